"""The one place that makes text from models, tools and servers fit to be shown.

Such text may hold terminal sequences, line breaks that fake log lines, bidirectional marks that
reorder what is read, or the markup of the place where it is shown (`docs/security.md`, rule 11).
"""

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Cc and Cf hold control, zero-width, bidi and tag characters; Co and Cn have no agreed look, Cs
# cannot be encoded; Zl and Zp are line breaks to some programs and none to others.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Joiners inside emoji and some scripts: invisible, but harmless and needed to write them.
_NEEDED = frozenset({"\u200c", "\u200d"})
DEFAULT_LIMIT = 2_000


def plain(text: str, *, limit: int = DEFAULT_LIMIT, lines: bool = False) -> str:
    r"""Make text safe to print, to log or to put into an exception.

    Args:
        text: Text from anywhere.
        limit: Longest result in characters; the rest is replaced by a count.
        lines: Whether line breaks and tabs stay; otherwise they are escaped as well.

    Returns:
        The text with every character that could act on its surroundings written as an escape.

    Example:
        ```python
        from langchain_sequrity.display import plain

        assert plain("red\x1b[31m\nINFO ok") == "red\\x1b[31m\\nINFO ok"
        ```
    """
    cut = len(text) - limit
    shown = text[:limit] if cut > 0 else text
    if not shown.isascii() or not shown.isprintable():
        kept = _NEEDED | frozenset("\n\t") if lines else _NEEDED
        shown = "".join(
            char if char in kept or unicodedata.category(char) not in _UNSAFE else _escape(char)
            for char in shown
        )
    return f"{shown}… ({cut} more characters)" if cut > 0 else shown


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def rich_text(text: str, *, style: str = "", limit: int = DEFAULT_LIMIT) -> "Text":
    """Make text safe for a rich console: as data, never parsed as markup or as links.

    Args:
        text: Text from anywhere.
        style: A rich style for the whole text.
        limit: Longest result in characters.

    Returns:
        A rich `Text`.
    """
    from rich.text import Text  # noqa: PLC0415 - rich belongs to an extra

    return Text(plain(text, limit=limit, lines=True), style=style)
