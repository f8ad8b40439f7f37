"""Escapes untrusted text from models, tools and servers before it is shown.

Such text may contain terminal sequences, line breaks that fake log lines, bidirectional marks that
reorder the text, or markup (`docs/security.md`, rule 11). All display code uses this module.
"""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Cc and Cf contain control, zero-width, bidi and tag characters. Co and Cn have no standard glyphs,
# Cs cannot be encoded. Only some programs treat Zl and Zp as line breaks.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Joiners inside emoji and some scripts: invisible, but harmless and necessary.
_NEEDED = frozenset({"\u200c", "\u200d"})
DEFAULT_LIMIT = 2_000


def plain(text: str, *, limit: int = DEFAULT_LIMIT, lines: bool = False) -> str:
    r"""Make text safe to print, to log or to use in an exception.

    Args:
        text: Untrusted text.
        limit: Maximum length in characters. A count replaces the rest.
        lines: Whether to keep line breaks and tabs. Otherwise they are escaped too.

    Returns:
        The text with every unsafe character as an escape sequence.

    Example:
        ```python
        from langchain_sequrity.display import plain

        assert plain("red\x1b[31m\nINFO ok") == "red\\x1b[31m\\nINFO ok"
        ```
    """
    excess = len(text) - limit
    excerpt = text[:limit] if excess > 0 else text
    if not excerpt.isascii() or not excerpt.isprintable():
        allowed = _NEEDED | frozenset("\n\t") if lines else _NEEDED
        excerpt = "".join(
            char if char in allowed or unicodedata.category(char) not in _UNSAFE else _escape(char)
            for char in excerpt
        )
    return f"{excerpt}… ({excess} more characters)" if excess > 0 else excerpt


def enumeration(items: Sequence[str], word: str = "and") -> str:
    """Items as in "a, b and c"."""
    *others, last = items
    return f"{', '.join(others)} {word} {last}" if others else last


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def rich_text(text: str, *, style: str = "", limit: int = DEFAULT_LIMIT) -> "Text":
    """Make text safe for a rich console, which does not parse it as markup or links.

    Args:
        text: Untrusted text.
        style: A rich style for the whole text.
        limit: Maximum length in characters.

    Returns:
        A rich `Text`.
    """
    from rich.text import Text  # noqa: PLC0415 - rich belongs to an extra

    return Text(plain(text, limit=limit, lines=True), style=style)
