"""The comments of a text, each with the token that it stands before, and free lines.

A comment that begins on the line of what comes before it trails that; another has its own lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from langchain_sequrity.sqrt.tokens import COMMENT, Token

GLUED = frozenset({";", ","})
"""What is written right behind the word before it."""


class Comment(NamedTuple):
    """A comment without blanks at the ends of its lines.

    Attributes:
        text: With the marks that make it one.
        own: Whether it has lines of its own.
        blank: Whether a free line stands before it.
    """

    text: str
    own: bool
    blank: bool


@dataclass(slots=True)
class Gap:
    """What stands before a token.

    Attributes:
        comments: The comments, those that trail the token before first.
        blank: Whether a free line stands between them and the token.
    """

    comments: list[Comment] = field(default_factory=list)
    blank: bool = False

    def take(self, *, own: bool) -> list[Comment]:
        """Take out the comments of one kind."""
        taken = [one for one in self.comments if one.own == own]
        self.comments = [one for one in self.comments if one.own != own]
        return taken


def gaps(text: str, tokens: Sequence[Token]) -> list[Gap]:
    """What stands before each token; what would part `;` and `,` from their line comes later."""
    found = []
    moved: list[Comment] = []
    end = 0
    for token in tokens:
        gap = _gap(text[end : token.start], at_start=end == 0)
        gap.comments = _settled(moved + gap.comments)
        moved = []
        if token.text in GLUED and not all(map(_inline, gap.comments)):
            moved, gap = gap.comments, Gap()
        found.append(gap)
        end = token.end
    return found


def _gap(between: str, *, at_start: bool) -> Gap:
    gap = Gap()
    end = 0
    for comment in COMMENT.finditer(between):
        lines = between[end : comment.start()].count("\n")
        text = "\n".join(line.rstrip() for line in comment[0].split("\n"))
        own = lines > 0 or (at_start and end == 0)
        gap.comments.append(Comment(text, own, blank=lines > 1))
        end = comment.end()
    gap.blank = between.count("\n", end) > 1
    return gap


def _inline(comment: Comment) -> bool:
    return not comment.own and not comment.text.startswith("//")


def _settled(comments: list[Comment]) -> list[Comment]:
    """Nothing trails behind a comment that ends its line or has lines of its own."""
    settled: list[Comment] = []
    for one in comments:
        last = settled[-1] if settled else None
        own = one.own or (last is not None and not _inline(last))
        settled.append(one._replace(own=own))
    return settled
