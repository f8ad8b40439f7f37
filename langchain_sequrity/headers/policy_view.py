"""Display of an `X-Policy` header in notebooks and on a rich console."""

import html
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.display.tables import Row, Table
from langchain_sequrity.sqrt.highlighter import PRE, highlight, highlighted

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_LONGEST = 64 * 1024


def policy_html(fields: dict[str, Any]) -> str:
    """The header as HTML: the text in colour, and a table of the other fields.

    Args:
        fields: The fields as `to_wire` gives them.
    """
    code, is_sqrt, table = _parts(fields)
    code_html = highlight(code) if is_sqrt else f"{PRE}{html.escape(_plain(code))}</pre>"
    return f"{code_html if code else ''}{table.html() if table else ''}"


def policy_text(fields: dict[str, Any]) -> str:
    """The header as plain text; see `policy_html`."""
    code, _, table = _parts(fields)
    parts = [_plain(code).rstrip()] if code else []
    return "\n\n".join(parts + ([table.text()] if table else []))


def policy_rich(fields: dict[str, Any]) -> "Group":
    """The header for rich; see `policy_html`."""
    from rich.console import Group  # noqa: PLC0415 - rich belongs to an extra

    code, is_sqrt, table = _parts(fields)
    parts: list[RenderableType] = []
    if code:
        parts.append(highlighted(code) if is_sqrt else rich_text(code, limit=_LONGEST))
    if table:
        parts.append(table.rich())
    return Group(*parts)


def _plain(code: str) -> str:
    return plain(code, limit=_LONGEST, lines=True)


_CODE = frozenset({"Field", "Value"})


def _parts(fields: dict[str, Any]) -> tuple[str, bool, Table | None]:
    """The text, whether it is SQRT, and a table if there are other fields or there is no text."""
    codes = dict(fields.get("codes") or {})
    code, language = codes.pop("code", None) or "", codes.get("language")
    if language == "sqrt":
        del codes["language"]
    rest = {name: value for name, value in fields.items() if name != "codes"}
    rows = tuple(_rows("", {**({"codes": codes} if codes else {}), **rest}))
    table = Table("X-Policy", ("Field", "Value"), rows, code=_CODE) if rows or not code else None
    return code, language != "cedar", table


def _rows(prefix: str, fields: dict[str, Any]) -> Iterator[Row]:
    """A row for each field; fields of a section have the section's name before theirs."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _rows(f"{prefix}{name}.", value)
        else:
            yield ((f"{prefix}{name}",), (json.dumps(value, ensure_ascii=False),))
