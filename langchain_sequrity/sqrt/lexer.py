"""SQRT text to tokens.

No word is reserved, so the parser decides whether a word is a keyword. It also decides by the
offsets whether a sign touches a number and so belongs to it.
"""

import re
from typing import NamedTuple

from langchain_sequrity.sqrt.diagnostics import position_at, syntax_error

MAX_CHARACTERS = 64 * 1024
"""The maximum length of a policy."""

# Possessive: otherwise the regex would try all ways to split a gap.
_COMMENT = r"//(?!/)[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/"
_GAP = rf"(?:[ \t\f\r\n]++|{_COMMENT})*+"
_TOKEN = re.compile(
    _GAP
    + r"""(?x:
        (?P<doc> ///[^\n]* )
      | (?P<text> [rwd]?"(?:[^"\\]|\\[^\n])*+" )
      | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
      | (?P<number> [0-9]+(?:\.[0-9]+)? )
      | (?P<mark> \.value(?![A-Za-z0-9_]) | @(?:result|session|args)(?![A-Za-z0-9_])
                | <\.\.<? | \.\.<? | -> | == | [|&^-]= | [{}()\[\];,.=|&^@+-] )
      | (?P<end> \Z )
      | (?P<unknown> (?s:.) )
    )"""
)
COMMENT = re.compile(_COMMENT)
"""A comment between two tokens; doc comments are tokens."""


class Token(NamedTuple):
    """A token; `start` and `end` are its offsets in the text."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """Split a text; the last token is of kind `end`.

    Raises:
        PolicySyntaxError: For a character outside of SQRT, or a text or comment that does not
            end.
    """
    all_tokens = []
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        start, end = match.span(kind)
        if kind == "unknown":
            raise syntax_error(text, position_at(text, start), _reason(text[start : start + 2]))
        all_tokens.append(Token(kind, match[kind], start, end))
        if kind == "end":
            break
    return all_tokens


def _reason(head: str) -> str:
    if head == "/*":
        return "This comment does not end; close it with `*/`"
    if '"' in head and head[0] in 'rwd"':
        return 'This text does not end; close it with `"` (no line may end in a backslash)'
    return _HINTS.get(head) or _HINTS.get(head[0]) or f"SQRT has no character {head[0]!r}"


_HINTS = {
    "'": 'Write texts in double quotes: `"ana"`',
    "!=": "There is no `!=`; write `not a.value == b.value`",
    "!": "There is no `!`; write `not`",
    ">": "There is no `>`; write `a.value in {int 4..}` or `a.value in {float 3<..}`",
    ">=": "There is no `>=`; write `a.value in {int 3..}`",
    "<": "There is no `<`; write `a.value in {int ..<3}`",
    "<=": "There is no `<=`; write `a.value in {int ..3}`",
    **dict.fromkeys("“”„", 'Write texts in straight quotes: `"ana"`'),
    "\xa0": "This is a no-break space, U+00A0; write a plain space",
    "\u200b": "This is an invisible character, U+200B; remove it",
    "\ufeff": "This is an invisible character, U+FEFF; remove it",
    "#": "There is no `#` comment; write `// …`",
}
