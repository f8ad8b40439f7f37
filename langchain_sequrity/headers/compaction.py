r"""SQRT text without comments and needless white space, for headers of limited size.

`docs/behaviour.md`, P9. Tokens are never changed, only what stands between them. By the lexical
rules of SQRT `//` and `/* */` are comments, `///` is a doc comment and stays together with
its line end, the four forms of strings share one rule for escapes. White space goes where no two
neighbours could be read as one token. In doubt (a character that SQRT does not have, a comment
that another parser might end elsewhere) the text stays as it is.
"""

import functools
import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<space> [\ \t\f\r\n]+ )
    | (?P<doc> ///[^\n]* )
    | (?P<comment> //[^\n]* | /\*.*?\*/ )
    | (?P<text> [rwd]?"[^"\\]*(?:\\[^\n][^"\\]*)*" )
    | (?P<word> [A-Za-z0-9_]+ )
    | (?P<bracket> [{}()\[\];,] )
    | (?P<operator> -> | == | [-|&^]?= | [|&^] )
    | (?P<at> @ )
    | (?P<other> [.<>+-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_GAPS = {"space", "comment"}
_TEXTUAL = {"word", "text", "at"}
_OPENING = frozenset("{([;,")
_CLOSING = frozenset("})];,")


class _Token(NamedTuple):
    kind: str
    text: str


@functools.lru_cache(maxsize=64)  # models are copied and bound with one policy many times
def compact_sqrt(text: str) -> str:
    """Drop comments and needless white space from a policy; doc comments stay.

    Args:
        text: SQRT text.

    Returns:
        Text that parses to the same policy, or the text itself if that is not certain.

    Example:
        ```python
        from langchain_sequrity.headers import compact_sqrt

        policy = 'let crew = {"ana"};  // on duty'
        assert compact_sqrt(policy) == 'let crew={"ana"};'
        ```
    """
    tokens = _tokens(text)
    return text if tokens is None else _joined(tokens)


def _tokens(text: str) -> list[_Token] | None:
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        token = _Token(str(match.lastgroup), match[0])
        if _doubtful(token):
            return None
        tokens.append(token)
        position = match.end()
    return tokens


def _doubtful(token: _Token) -> bool:
    """Whether another parser could end this comment elsewhere: nesting, unusual line ends."""
    if token.kind not in {"doc", "comment"}:
        return False
    if token.text.startswith("/*"):
        return "/*" in token.text[2:]
    return len(token.text.splitlines()) > 1


def _joined(tokens: list[_Token]) -> str:
    parts = []
    before = _Token("doc", "")  # nothing needs a space at the start
    gap = False
    for kind, text in tokens:
        if kind in _GAPS:
            gap = True
            continue
        if gap and not _may_touch(before, _Token(kind, text)):
            parts.append(" ")
        parts.append(f"{text}\n" if kind == "doc" else text)
        before, gap = _Token(kind, text), False
    return "".join(parts)


def _may_touch(left: _Token, right: _Token) -> bool:
    """Whether a gap between two tokens is needless.

    One between a word and a bracket is kept: rules are shown as they were sent, and
    `overlaps {"a"} and` can be read.
    """
    if left.kind == "doc" or left.text in _OPENING or right.text in _CLOSING:
        return True
    if left.kind == "operator":
        return right.kind in _TEXTUAL or right.kind == "bracket"
    return left.kind in _TEXTUAL and right.kind == "operator"
