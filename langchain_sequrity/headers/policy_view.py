"""How an `X-Policy` header looks in a notebook and on a rich console."""

import html
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.display.tables import Row, Table
from langchain_sequrity.sqrt.text.highlighting import highlight, highlighted

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from langchain_sequrity.headers.policy import PolicyHeader

_LONGEST = 64 * 1024


def policy_html(header: "PolicyHeader") -> str:
    """The policy's text in colour, and a table of the other fields that were given."""
    code, is_sqrt = _code(header)
    shown = highlight(code) if is_sqrt else f"<pre>{html.escape(_plain(code))}</pre>"
    table = _table(header)
    return f"{shown if code else ''}{table.html() if table.rows or not code else ''}"


def policy_text(header: "PolicyHeader") -> str:
    """The same as plain text."""
    code, _ = _code(header)
    table = _table(header)
    shown = [_plain(code).rstrip()] if code else []
    return "\n\n".join(shown + ([table.text()] if table.rows or not code else []))


def policy_rich(header: "PolicyHeader") -> "Group":
    """The same for rich."""
    from rich.console import Group  # noqa: PLC0415 - rich belongs to an extra

    code, is_sqrt = _code(header)
    table = _table(header)
    parts: list[RenderableType] = []
    if code:
        parts.append(highlighted(code) if is_sqrt else rich_text(code, limit=_LONGEST))
    if table.rows or not code:
        parts.append(table.rich())
    return Group(*parts)


def _code(header: "PolicyHeader") -> tuple[str, bool]:
    if header.codes is None:
        return "", True
    return header.codes.code or "", header.codes.language != "cedar"


def _plain(code: str) -> str:
    return plain(code, limit=_LONGEST, lines=True)


def _table(header: "PolicyHeader") -> Table:
    fields = header.to_wire()
    codes = fields.pop("codes", None) or {}
    codes.pop("code", None)
    if codes.get("language") == "sqrt":
        del codes["language"]
    rows = tuple(_rows("", {**({"codes": codes} if codes else {}), **fields}))
    return Table("X-Policy", ("Field", "Value"), rows)


def _rows(prefix: str, fields: dict[str, Any]) -> Iterator[Row]:
    """A row for each field, those of sections under the section's name."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _rows(f"{prefix}{name}.", value)
        else:
            yield ((f"{prefix}{name}",), (json.dumps(value, ensure_ascii=False),))
