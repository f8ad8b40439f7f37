"""Words to lines: where a line may break, and where it has to.

Whoever writes says what belongs together (`begin` … `end`) and where it may break (`line`). A group
that fits into its line stays on it, another breaks at all of its places. Instructions are measured
once and then written from left to right, so that no depth of groups is a depth of calls.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from langchain_sequrity.sqrt.text.comments import GLUED

WIDTH = 100
_INDENT = "    "


class Layout:
    """Takes texts and places to break, and makes lines of them."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def text(self, text: str, *, space: bool = True) -> None:
        """Write a text, after a space unless it comes first in its line."""
        self._add(_Page.text, text, space=space)

    def comment(self, text: str, *, own: bool) -> None:
        """Write a comment after what is there, or on lines of its own."""
        self._add(_Page.own_comment if own else _Page.comment, text)

    def begin(self) -> None:
        """Begin a group."""
        self._add(_Page.begin)

    def end(self) -> None:
        """End the group."""
        self._add(_Page.end)

    def indent(self) -> None:
        """Indent the lines that follow."""
        self._add(_Page.indent)

    def dedent(self) -> None:
        """Take one indentation back."""
        self._add(_Page.dedent)

    def line(self) -> None:
        """Break here if the group breaks."""
        self._add(_Page.line)

    def hard(self) -> None:
        """Break here, and so in all groups around."""
        self._add(_Page.hard)

    def blank(self) -> None:
        """Leave a line free before the line that was just begun."""
        self._add(_Page.blank)

    def written(self) -> str:
        """All of it, with a line break at the end unless it is nothing."""
        text = _Page(self._steps).written()
        return f"{text}\n" if text else ""

    def _add(self, do: "_Do", text: str = "", *, space: bool = False) -> None:
        self._steps.append(_Step(do, text, space=space))


_Do = Callable[["_Page", "_Step"], None]


class _Step(NamedTuple):
    """An instruction; `width` is that of a whole group in one line, up to the next break."""

    do: _Do
    text: str
    space: bool
    width: float = 0


class _Page:
    """Follows instructions; of several breaks in a row the last one decides the indentation."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self._steps = _measured(steps)
        self._parts: list[str] = []
        self._column = 0
        self._depth = 0
        self._next_depth: int | None = 0  # of a line that was begun and is empty so far
        self._leave_blank = False
        self._after_comment = False
        self._breaks = [True]

    def written(self) -> str:
        for step in self._steps:
            step.do(self, step)
        return "".join(self._parts)

    def text(self, step: _Step) -> None:
        self._put(step.text, space=step.space or (self._after_comment and step.text not in GLUED))
        self._after_comment = False

    def comment(self, step: _Step) -> None:
        self._put(step.text, space=True)
        self._after_comment = True
        if step.text.startswith("//"):
            self._break(self._depth + 1)

    def own_comment(self, step: _Step) -> None:
        depth = self._depth + 1 if self._next_depth is None else self._next_depth
        self._break(depth)
        self._put(_aligned(step.text, depth), space=False)
        self._break(depth)

    def begin(self, step: _Step) -> None:
        column = self._column
        if self._next_depth is not None:
            column = self._next_depth * len(_INDENT)
        self._breaks.append(self._breaks[-1] and column + step.width > WIDTH)

    def end(self, _: _Step) -> None:
        self._breaks.pop()

    def indent(self, _: _Step) -> None:
        self._depth += 1

    def dedent(self, _: _Step) -> None:
        self._depth -= 1

    def line(self, _: _Step) -> None:
        if self._breaks[-1]:
            self._break(self._depth)

    def hard(self, _: _Step) -> None:
        self._break(self._depth)

    def blank(self, _: _Step) -> None:
        self._leave_blank = self._next_depth is not None

    def _break(self, depth: int) -> None:
        self._next_depth = depth
        self._after_comment = False

    def _put(self, text: str, *, space: bool) -> None:
        if self._next_depth is not None:
            self._begin_line(self._next_depth)
        elif space:
            text = f" {text}"
        self._parts.append(text)
        _, newline, last = text.rpartition("\n")
        self._column = len(last) + (0 if newline else self._column)

    def _begin_line(self, depth: int) -> None:
        if self._parts:
            self._parts.append("\n\n" if self._leave_blank else "\n")
        self._parts.append(_INDENT * depth)
        self._column = depth * len(_INDENT)
        self._next_depth, self._leave_blank = None, False


def _measured(steps: Sequence[_Step]) -> list[_Step]:
    """Give each group its width: infinite where something in it breaks the line anyway."""
    measured = list(steps)
    ends: list[tuple[int, int, int]] = []  # what the next three were where each open group ends
    width = tail = breaks = 0  # from here on: of all text, of that up to a break; how many breaks
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        if step.do is _Page.end:
            ends.append((width, tail, breaks))
        elif step.do is _Page.begin:
            after, rest, later = ends.pop()
            measured[index] = step._replace(width=inf if breaks > later else width - after + rest)
        elif step.do is _Page.line:
            tail = 0
        elif step.do in _BREAKS or step.text.startswith("//"):
            tail, breaks = 0, breaks + 1
        else:
            size = len(step.text) + step.space
            width, tail = width + size, tail + size
    return measured


_BREAKS = {_Page.hard, _Page.own_comment}


def _aligned(comment: str, depth: int) -> str:
    """A block comment whose lines begin with stars, these below each other."""
    first, *rest = comment.split("\n")
    if not all(line.lstrip().startswith("*") for line in rest):
        return comment
    return "\n".join([first, *(f"{_INDENT * depth} {line.lstrip()}" for line in rest)])
