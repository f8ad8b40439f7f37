"""SQRT text to tokens.

Words are read whole, and whether one is a keyword is for the parser to say: no word is reserved.
A sign belongs to a number only where it touches it, which the parser sees by the offsets.
"""

import re
from typing import NamedTuple

from langchain_sequrity.sqrt.diagnostics import fault, position

MAX_CHARACTERS = 64 * 1024
"""How long a policy may be."""

# Possessive, because a gap that could be split in many ways would be tried in all of them.
_COMMENT = r"//(?!/)[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/"
_GAP = rf"(?:[ \t\f\r\n]++|{_COMMENT})*+"
_TOKEN = re.compile(
    r"""
    (?: (?P<doc> ///[^\n]* )
      | (?P<text> [rwd]?"(?:[^"\\]|\\[^\n])*+" )
      | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
      | (?P<number> [0-9]+(?:\.[0-9]+)? )
      | (?P<mark> \.value(?![A-Za-z0-9_]) | @(?:result|session|args)(?![A-Za-z0-9_])
                | <\.\.<? | \.\.<? | -> | == | [|&^-]= | [{}()\[\];,.=|&^@+-] )
      | (?P<end> \Z )
    )
    """,
    re.VERBOSE,
)
_SKIP = re.compile(_GAP)
COMMENT = re.compile(_COMMENT)
"""A comment in what stands between two tokens; doc comments are tokens."""


class Token(NamedTuple):
    """A piece of the text; `start` and `end` are its offsets."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """Split a text; the last token is of kind `end`.

    Raises:
        PolicySyntaxError: For a character that SQRT does not have, or a text or comment that
            does not end.
    """
    found = []
    offset = 0
    skip, match = _SKIP.match, _TOKEN.match
    while True:
        if (gap := skip(text, offset)) is not None:
            offset = gap.end()
        hit = match(text, offset)
        if hit is None:
            raise fault(text, position(text, offset), _reason(text[offset : offset + 2]))
        kind = str(hit.lastgroup)
        found.append(Token(kind, hit[0], offset, hit.end()))
        if kind == "end":
            return found
        offset = hit.end()


def _reason(head: str) -> str:
    if head == "/*":
        return "This comment does not end; close it with `*/`"
    if '"' in head and head[0] in 'rwd"':
        return 'This text does not end; close it with `"` (no line may end in a backslash)'
    return _HINTS.get(head) or _HINTS.get(head[0]) or f"SQRT has no character {head[0]!r}"


_HINTS = {
    "'": 'Texts stand in double quotes: `"ana"`',
    "!=": "There is no `!=`; write `not a.value == b.value`",
    "!": "There is no `!`; write `not`",
    ">": "There is no `>`; write `a.value in {int 4..}` or `a.value in {float 3<..}`",
    ">=": "There is no `>=`; write `a.value in {int 3..}`",
    "<": "There is no `<`; write `a.value in {int ..<3}`",
    "<=": "There is no `<=`; write `a.value in {int ..3}`",
    "“": 'Texts stand in straight quotes: `"ana"`',
    "”": 'Texts stand in straight quotes: `"ana"`',
    "„": 'Texts stand in straight quotes: `"ana"`',
    "\xa0": "This is a no-break space, U+00A0; write a plain one",
    "\u200b": "This is an invisible character, U+200B; leave it out",
    "\ufeff": "This is an invisible character, U+FEFF; leave it out",
    "#": "There is no `#` comment; write `// …`",
}
