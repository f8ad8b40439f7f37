"""Display of an `X-Policy` header in notebooks and on a rich console."""

import html
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.display.tables import Row, Table
from langchain_sequrity.sqrt.highlighter import highlight, highlighted

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_LONGEST = 64 * 1024


def policy_html(fields: dict[str, Any]) -> str:
    """The header as HTML: the text in colour, and a table of the other fields.

    Args:
        fields: The fields as `to_wire` gives them.
    """
    code, is_sqrt = _code(fields)
    code_html = highlight(code) if is_sqrt else f"<pre>{html.escape(_plain(code))}</pre>"
    table = _table(fields)
    return f"{code_html if code else ''}{table.html() if table.rows or not code else ''}"


def policy_text(fields: dict[str, Any]) -> str:
    """The header as plain text; see `policy_html`."""
    code, _ = _code(fields)
    table = _table(fields)
    parts = [_plain(code).rstrip()] if code else []
    return "\n\n".join(parts + ([table.text()] if table.rows or not code else []))


def policy_rich(fields: dict[str, Any]) -> "Group":
    """The header for rich; see `policy_html`."""
    from rich.console import Group  # noqa: PLC0415 - rich belongs to an extra

    code, is_sqrt = _code(fields)
    table = _table(fields)
    parts: list[RenderableType] = []
    if code:
        parts.append(highlighted(code) if is_sqrt else rich_text(code, limit=_LONGEST))
    if table.rows or not code:
        parts.append(table.rich())
    return Group(*parts)


def _code(fields: dict[str, Any]) -> tuple[str, bool]:
    codes = fields.get("codes") or {}
    return codes.get("code") or "", codes.get("language") != "cedar"


def _plain(code: str) -> str:
    return plain(code, limit=_LONGEST, lines=True)


def _table(fields: dict[str, Any]) -> Table:
    codes = dict(fields.get("codes") or {})
    codes.pop("code", None)
    if codes.get("language") == "sqrt":
        del codes["language"]
    rest = {name: value for name, value in fields.items() if name != "codes"}
    rows = tuple(_rows("", {**({"codes": codes} if codes else {}), **rest}))
    return Table("X-Policy", ("Field", "Value"), rows)


def _rows(prefix: str, fields: dict[str, Any]) -> Iterator[Row]:
    """A row for each field; fields of a section have the section's name before theirs."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _rows(f"{prefix}{name}.", value)
        else:
            yield ((f"{prefix}{name}",), (json.dumps(value, ensure_ascii=False),))
