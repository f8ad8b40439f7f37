"""SQRT text without comments and unnecessary white space, for headers of limited size.

`docs/behaviour.md`, P9. Tokens never change; only the gaps between them do. A doc comment is a
token and keeps its line end. White space is removed where two neighbours cannot be read as one
token. If the result is uncertain (a character outside of SQRT, a comment that another parser might
end elsewhere), the text stays as it is.

A service reports places in the compact text. Each token keeps its original offset, so these can be
translated to places in the author's text.
"""

import functools
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt.diagnostics import caret_excerpt, position_at
from langchain_sequrity.sqrt.lexer import COMMENT, Token, tokens
from langchain_sequrity.sqrt.nodes import Position

_BRACKETS = frozenset("{}()[];,")
_OPERATORS = frozenset({"->", "==", "=", "-=", "|=", "&=", "^=", "|", "&", "^"})
_OPENING = frozenset("{([;,")
_CLOSING = frozenset("})];,")
_PLACE = re.compile(r"line (\d{1,9}), column (\d{1,9})")


class AuthorPlace(NamedTuple):
    """A place in a policy as its author wrote it.

    Attributes:
        policy: The name of the policy; empty if there is only one.
        text: Its text.
        at: The place in that text.
    """

    policy: str
    text: str
    at: Position


class Compact(NamedTuple):
    """A policy's text as it is sent, with the original offsets of its tokens.

    Attributes:
        text: The compact text.
        author: The original text.
        starts: Offsets of the tokens in the compact text, in order.
        origins: Offsets of the same tokens in the author's text.
    """

    text: str
    author: str
    starts: tuple[int, ...] = ()
    origins: tuple[int, ...] = ()

    def author_place(self, line: int, column: int | None = None) -> Position | None:
        """Translate a place in the compact text to the author's text.

        Args:
            line: Its line, from 1.
            column: Its column, from 1, if known.

        Returns:
            The place; `None` if the text has no such place, or if the column is unknown and the
            line contains several of the author's lines.
        """
        lines = self.text.split("\n")
        if not 1 <= line <= len(lines):
            return None
        start = sum(len(earlier) + 1 for earlier in lines[: line - 1])
        length = len(lines[line - 1])
        ends = (1, max(length, 1)) if column is None else (column, column)
        if not 1 <= ends[0] <= ends[1] <= length + 1:
            return None
        first, last = (
            Position(*position_at(self.author, self._origin(start + end - 1))) for end in ends
        )
        return first if first.line == last.line else None

    def author_text(
        self, text: str, author_of: Callable[[Position], AuthorPlace | None] | None = None
    ) -> str:
        """Translate the places in a service's message to the author's text.

        Args:
            text: The message; places in it look like `line 1, column 14`.
            author_of: For combined policies, the author's policy for a place of `author`.

        Returns:
            The message. If it has one place, the author's line with a caret follows.
        """
        sent = [Position(int(match[1]), int(match[2])) for match in _PLACE.finditer(text)]
        authored = [self.author_place(*position) for position in sent]
        locate = author_of or (lambda position: AuthorPlace("", self.author, position))
        places = [p for position in authored if position and (p := locate(position))]
        if not sent or len(places) < len(sent):
            return text
        if len(sent) > 1:
            remaining = iter(places)
            return _PLACE.sub(lambda _: _place_text(next(remaining)), text)
        sent_excerpt = caret_excerpt(self.text, sent[0])
        # Some errors are one line, with the policy's line and the caret in the middle.
        flat = " ".join(sent_excerpt.split())
        text = text.replace(f"\n{sent_excerpt}", "").replace(f" {flat}", "")
        (author_place,) = places
        excerpt = caret_excerpt(author_place.text, author_place.at)
        return f"{_PLACE.sub(lambda _: _place_text(author_place), text)}\n{excerpt}"

    def _origin(self, offset: int) -> int:
        index = bisect_right(self.starts, offset) - 1
        if index < 0:
            return offset  # the text is unchanged
        return min(self.origins[index] + offset - self.starts[index], len(self.author))


def compact_sqrt(text: str) -> str:
    """Remove comments and unnecessary white space from a policy; doc comments stay.

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
    return compacted(text).text


def _place_text(author_place: AuthorPlace) -> str:
    location = f"line {author_place.at.line}, column {author_place.at.column}"
    return f"{location} of the policy `{author_place.policy}`" if author_place.policy else location


@functools.lru_cache(maxsize=64)  # models with the same policy are copied and bound often
def compacted(text: str) -> Compact:
    """Compact a policy, keeping the original offsets."""
    unchanged = Compact(text, text)
    try:
        all_tokens = tokens(text)
    except PolicySyntaxError:
        return unchanged
    parts: list[str] = []
    starts: list[int] = []
    length = end = 0
    before: Token | None = None
    for token in all_tokens:
        gap = text[end : token.start]
        comments = COMMENT.findall(gap) if gap.strip() else []
        if any(map(_is_doubtful, comments)) or (token.kind == "doc" and _is_doubtful(token.text)):
            return unchanged
        if token.kind == "end":
            break
        space = " " if gap and before and not _may_touch(before, token) else ""
        line_end = "\n" if token.kind == "doc" else ""
        starts.append(length + len(space))
        parts.append(f"{space}{token.text}{line_end}")
        length += len(parts[-1])
        before, end = token, token.end
    return Compact("".join(parts), text, tuple(starts), tuple(t.start for t in all_tokens[:-1]))


def _token_class(token: Token) -> str:
    """The class that decides whether a token may touch its neighbour."""
    if token.text in _BRACKETS:
        return "bracket"
    if token.text in _OPERATORS:
        return "operator"
    is_textual = token.kind != "mark" or token.text[0] == "@" or token.text == ".value"
    return "textual" if is_textual else "other"


def _is_doubtful(comment: str) -> bool:
    """Whether another parser could end this comment elsewhere: nesting, unusual line ends."""
    if comment.startswith("/*"):
        return "/*" in comment[2:]
    return len(comment.splitlines()) > 1


def _may_touch(before: Token, after: Token) -> bool:
    """Whether two tokens need no gap.

    A gap between a word and a bracket stays, because rules are shown as they were sent, and
    `overlaps {"a"} and` is readable.
    """
    if before.kind == "doc" or before.text in _OPENING or after.text in _CLOSING:
        return True
    classes = _token_class(before), _token_class(after)
    return classes in {("operator", "textual"), ("operator", "bracket"), ("textual", "operator")}
