"""The layout of policies: the white space between the tokens of a text.

The formatter walks the nodes and the tokens of a text together. It writes each token as it is: it
changes no spelling and no parenthesis, so the warnings of `check` stay the same. Comments stay with
the token that they precede. A comment that begins on the line of the previous token trails it; any
other comment has its own lines.

Lines come from a pretty printer in the style of Oppen. The formatter marks groups (`begin` … `end`)
and places to break (`line`). A group that fits on its line stays there; otherwise it breaks at all
its places. Groups are measured once and written from left to right, so nested groups need no nested
calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import AnyPolicy, policy_of, text_of
from langchain_sequrity.sqrt.lexer import COMMENT, MAX_CHARACTERS, Token, tokens
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import RANGES, parse

GLUED = frozenset({";", ","})
"""Tokens without a space before them."""


class Comment(NamedTuple):
    """A comment without trailing white space.

    Attributes:
        text: The comment with its marks.
        own: Whether it has lines of its own.
        blank: Whether a blank line precedes it.
    """

    text: str
    own: bool
    blank: bool


@dataclass(slots=True)
class Gap:
    """The text between a token and the previous one.

    Attributes:
        comments: The comments; first those that trail the previous token.
        blank: Whether a blank line stands between the comments and the token.
    """

    comments: list[Comment] = field(default_factory=list)
    blank: bool = False

    def take(self, *, own: bool) -> list[Comment]:
        """Remove and return the comments of one kind."""
        taken = [one for one in self.comments if one.own == own]
        self.comments = [one for one in self.comments if one.own != own]
        return taken


def gaps(text: str, tokens: Sequence[Token]) -> list[Gap]:
    """The gap before each token. Comments that would move `;` or `,` go after it."""
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
    """Give own lines to each comment after a comment that ends its line or has its own lines."""
    settled: list[Comment] = []
    for one in comments:
        last = settled[-1] if settled else None
        own = one.own or (last is not None and not _inline(last))
        settled.append(one._replace(own=own))
    return settled


WIDTH = 100
_INDENT = "    "
_Do = Callable[["_Page", "_Instruction"], None]


class _Instruction(NamedTuple):
    """A layout instruction; `width` is the width of a group on one line, up to the next break."""

    do: _Do
    text: str
    space: bool
    width: float = 0


class _Page:
    """Runs instructions. Of several breaks in a row, the last one sets the indentation."""

    def __init__(self, steps: Sequence[_Instruction]) -> None:
        self._steps = _measured(steps)
        self._parts: list[str] = []
        self._column = 0
        self._depth = 0
        self._next_depth: int | None = 0  # of a new line that is still empty
        self._leave_blank = False
        self._after_comment = False
        self._breaks = [True]

    def written(self) -> str:
        """The lines."""
        for step in self._steps:
            step.do(self, step)
        return "".join(self._parts)

    def text(self, step: _Instruction) -> None:
        """Write a text, after a space unless it begins a line."""
        self._put(step.text, space=step.space or (self._after_comment and step.text not in GLUED))
        self._after_comment = False

    def comment(self, step: _Instruction) -> None:
        """Write a comment after the text on the same line."""
        self._put(step.text, space=True)
        self._after_comment = True
        if step.text.startswith("//"):
            self._break(self._depth + 1)

    def own_comment(self, step: _Instruction) -> None:
        """Write a comment on lines of its own."""
        depth = self._depth + 1 if self._next_depth is None else self._next_depth
        self._break(depth)
        self._put(_aligned(step.text, depth), space=False)
        self._break(depth)

    def begin(self, step: _Instruction) -> None:
        """Begin a group."""
        column = self._column
        if self._next_depth is not None:
            column = self._next_depth * len(_INDENT)
        self._breaks.append(self._breaks[-1] and column + step.width > WIDTH)

    def end(self, _: _Instruction) -> None:
        """End a group."""
        self._breaks.pop()

    def indent(self, _: _Instruction) -> None:
        """Indent the following lines."""
        self._depth += 1

    def dedent(self, _: _Instruction) -> None:
        """Undo one indentation."""
        self._depth -= 1

    def line(self, _: _Instruction) -> None:
        """Break the line if the group breaks."""
        if self._breaks[-1]:
            self._break(self._depth)

    def hard(self, _: _Instruction) -> None:
        """Break the line, and break all groups around it."""
        self._break(self._depth)

    def blank(self, _: _Instruction) -> None:
        """Leave a blank line before the line that just began."""
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


def _measured(steps: Sequence[_Instruction]) -> list[_Instruction]:
    """Compute the width of each group: infinite if the group contains a hard break."""
    measured = list(steps)
    ends: list[tuple[int, int, int]] = []  # the next three values at the end of each open group
    # From here to the end: width of all text, width up to a break, number of hard breaks.
    width = tail = breaks = 0
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
    """Align the stars of a block comment whose lines begin with stars."""
    first, *rest = comment.split("\n")
    if not all(line.lstrip().startswith("*") for line in rest):
        return comment
    return "\n".join([first, *(f"{_INDENT * depth} {line.lstrip()}" for line in rest)])


_Item = TypeVar("_Item")


class _ExpressionFormatter:
    """Walks tokens and nodes together; each method writes one construct."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._gaps = gaps(text, self._tokens)
        self._places = _places(text, self._tokens)
        self._index = 0
        self._instructions: list[_Instruction] = []

    def _add(self, do: "_Do", text: str = "", *, space: bool = False) -> None:
        self._instructions.append(_Instruction(do, text, space))

    # Predicates

    def _predicate(self, node: nodes.Predicate, *, space: bool = True) -> None:
        opened = self._open(node.at, space=space)
        space = space and not opened
        match node:
            case nodes.Either(parts=parts) | nodes.Both(parts=parts):
                self._chain(parts, self._predicate, space=space, indent=not opened)
            case nodes.Not(inner=inner):
                self._put(space=space)
                self._predicate(inner)
            case nodes.Name():
                self._put(space=space)
            case nodes.Compared(left=left, right=right):
                self._meta(left, space=space)
                self._put(1 if self._is("overlaps", "==") else 2)
                if right is not None:
                    self._set(right)
            case nodes.In(value=value, set=members):
                self._operand(value, space=space)
                self._put()
                self._set(members)
            case nodes.Same(left=left_value, right=right_value):
                self._operand(left_value, space=space)
                self._put()
                self._operand(right_value)
        self._close_all(opened)

    def _operand(self, node: nodes.Operand, *, space: bool = True) -> None:
        if isinstance(node, nodes.Number):
            self._number(space=space)
        else:
            self._put(space=space)
        if isinstance(node, nodes.Value):
            self._put(space=False)

    # Sets

    def _set(self, node: nodes.Set, *, space: bool = True) -> None:
        opened = self._open(node.at, space=space)
        space = space and not opened
        match node:
            case nodes.Combined(operands=operands):
                self._chain(operands, self._set, space=space, indent=not opened)
            case nodes.Edited(base=base, edits=edits):
                elements = [element for _, element in edits]
                parts = (base, *elements)
                self._chain(parts, self._set_or_element, space=space, indent=not opened)
            case nodes.SetLiteral(elements=elements):
                self._members(elements, space=space)
            case nodes.Meta():
                self._meta(node, space=space)
            case nodes.Name():
                self._put(space=space)
        self._close_all(opened)

    def _set_or_element(self, node: nodes.Set | nodes.Element, *, space: bool = True) -> None:
        match node:
            case (
                nodes.Combined() | nodes.Edited() | nodes.SetLiteral() | nodes.Meta() | nodes.Name()
            ):
                self._set(node, space=space)
            case _:
                self._element(node, space=space)

    def _members(self, elements: Sequence[nodes.Element], *, space: bool) -> None:
        self._add(_Page.begin)
        self._put(space=space)
        self._add(_Page.indent)
        for number, element in enumerate(elements):
            if number:
                self._put()
            self._add(_Page.line)
            self._element(element, space=number > 0)
        self._last_comments(first=True)
        self._close()

    def _element(self, node: nodes.Element, *, space: bool = True) -> None:
        match node:
            case nodes.TextLiteral():
                self._put(space=space)
            case nodes.Number():
                self._number(space=space)
            case _:
                self._domain(node, space=space)

    def _meta(self, node: nodes.Meta, *, space: bool = True) -> None:
        """`@tags`, `a.tags`, `@args.tags.union` or `union of tags from args`."""
        if node.scope == "args" and not self._is("@args"):
            self._put(5, space=space)
            return
        self._put(space=space)
        if node.scope != "short":
            self._put(space=False)
        self._put(space=False)
        if node.scope == "args" and self._is("."):
            self._put(space=False)
            self._put(space=False)

    # Domains

    def _domain(self, node: nodes.Domain, *, space: bool = True) -> None:
        self._put(space=space)
        match node:
            case nodes.BoolDomain():
                self._put()
            case nodes.NumberDomain(range=bounds):
                self._range(bounds)
            case nodes.TimeDomain():
                self._range(node)
            case nodes.TextDomain(text=text, length=length):
                self._put(1 if text.kind == "plain" else 2)
                if length is not None:
                    self._put()
                    self._range(length)

    def _range(self, node: nodes.Range | nodes.TimeDomain) -> None:
        if node.low is not None:
            self._number()
        if self._is(*RANGES):
            self._put(space=node.low is None)
            if node.high is not None:
                self._number(space=False)

    def _number(self, *, space: bool = True) -> None:
        """A number with its sign, or a time."""
        if self._is("-", "+"):
            self._put(space=space)
            space = False
        self._put(space=space)

    # Brackets, words, comments

    def _chain(
        self, parts: Sequence[_Item], write: Callable[..., None], *, space: bool, indent: bool
    ) -> None:
        """Write parts with an operator between them."""
        self._add(_Page.begin)
        if indent:
            self._add(_Page.indent)
        write(parts[0], space=space)
        for part in parts[1:]:
            self._add(_Page.line)
            self._put()
            write(part)
        if indent:
            self._add(_Page.dedent)
        self._add(_Page.end)

    def _open(self, at: Position, *, space: bool) -> int:
        """Write the parentheses that open before the node at a position, and count them."""
        count = self._places[at] - self._index
        for number in range(count):
            self._add(_Page.begin)
            self._put(space=space and number == 0)
            self._add(_Page.indent)
            self._add(_Page.line)
        return count

    def _close_all(self, count: int) -> None:
        for _ in range(count):
            self._last_comments(first=True)
            self._close()

    def _close(self, *, space: bool = False) -> None:
        self._add(_Page.dedent)
        self._add(_Page.line)
        self._put(space=space)
        self._add(_Page.end)

    def _is(self, *texts: str) -> bool:
        return self._tokens[self._index].text in texts

    def _put(self, count: int = 1, *, space: bool = True) -> None:
        """Write tokens as they are, with the comments around them."""
        for _ in range(count):
            for comment in self._gaps[self._index].take(own=True):
                self._add(_Page.own_comment, comment.text)
            token = self._tokens[self._index]
            text = token.text.rstrip() if token.kind == "doc" else token.text
            self._add(_Page.text, text, space=space and text not in GLUED)
            self._index += 1
            space = True
            for comment in self._gaps[self._index].take(own=False):
                self._add(_Page.comment, comment.text)

    def _last_comments(self, *, first: bool) -> None:
        for comment in self._gaps[self._index].take(own=True):
            self._own_comment(comment, blank=comment.blank and not first)
            first = False

    def _own_comment(self, comment: Comment, *, blank: bool) -> None:
        self._add(_Page.hard)
        if blank:
            self._add(_Page.blank)
        self._add(_Page.own_comment, comment.text)


def _places(text: str, found: Sequence[Token]) -> dict[Position, int]:
    """The index of the token at each position."""
    places = {}
    line = start = end = 0
    for index, token in enumerate(found):
        line += text.count("\n", end, token.start)
        start = text.rfind("\n", 0, token.start) + 1 if "\n" in text[end : token.start] else start
        places[Position(line + 1, token.start - start + 1)] = index
        end = token.start
    return places


def format_policy(policy: AnyPolicy) -> str:
    """Lay out a policy: one rule per line, long sets and conditions broken, comments kept.

    Args:
        policy: Text, a parsed policy, a `PolicyHeader`, or an engine.

    Returns:
        The same tokens and comments in the same order. Formatting it again changes nothing.

    Raises:
        PolicySyntaxError: If the text is not SQRT.
        UsageError: If the result is longer than a policy may be, or `policy` is not a policy.

    Example:
        ```python
        from langchain_sequrity import sqrt

        text = 'tool "ship" {must deny when "raw" in crate.tags;} // for now'
        assert sqrt.format(text).splitlines() == [
            'tool "ship" {',
            '    must deny when "raw" in crate.tags;',
            "} // for now",
        ]
        ```
    """
    formatted = laid_out(
        parse(text_of(policy) if isinstance(policy, str | Path) else policy_of(policy).text)
    )
    if len(formatted) > MAX_CHARACTERS:
        msg = (
            f"Formatted, this policy has {len(formatted)} characters; the limit is "
            f"{MAX_CHARACTERS}. Remove comments or shorten it."
        )
        raise UsageError(msg)
    return formatted


def laid_out(policy: Policy) -> str:
    """The formatted text of a parsed policy."""
    return _Formatter(policy.text).policy(policy)


class _Formatter(_ExpressionFormatter):
    """Writes declarations and blocks."""

    def policy(self, policy: Policy) -> str:
        """Write all declarations, with blank lines around tool blocks."""
        last: nodes.Declaration | None = None
        for node in policy.declarations:
            apart = isinstance(node, nodes.ToolBlock) or isinstance(last, nodes.ToolBlock)
            self._begin_item(first=last is None, apart=apart)
            self._declaration(node)
            last = node
        self._last_comments(first=last is None)
        text = _Page(self._instructions).written()
        return f"{text}\n" if text else ""

    def _declaration(self, node: nodes.Declaration) -> None:
        match node:
            case nodes.Binding(value=value):
                self._put(3)
                self._bound(value)
                self._put()
            case nodes.OneLiner():
                self._one_liner(node)
            case nodes.ToolBlock(priorities=priorities, checks=checks, blocks=blocks):
                self._put(2)
                items: list[nodes.Number | nodes.CheckRule | nodes.UpdateBlock] = [
                    *priorities,
                    *checks,
                    *blocks,
                ]
                self._braces(sorted(items, key=lambda item: item.at), self._item)

    def _bound(self, value: nodes.Predicate | nodes.Set | nodes.Domain) -> None:
        match value:
            case (
                nodes.BoolDomain() | nodes.NumberDomain() | nodes.TextDomain() | nodes.TimeDomain()
            ):
                self._domain(value)
            case nodes.SetLiteral() | nodes.Meta() | nodes.Combined() | nodes.Edited():
                self._set(value)
            case _:
                self._predicate(value)

    def _one_liner(self, node: nodes.OneLiner) -> None:
        self._add(_Page.begin)
        self._add(_Page.indent)
        self._put(2)
        if node.priority is not None:
            self._put()
            self._number(space=False)
            self._put(space=False)
        while not self._is("@"):
            self._put()
        (update,) = node.step.updates
        self._change(update)
        if node.step.condition is not None:
            self._add(_Page.line)
            self._put()
            self._predicate(node.step.condition)
        self._put()
        self._add(_Page.dedent)
        self._add(_Page.end)

    # Blocks

    def _item(self, node: nodes.Number | nodes.CheckRule | nodes.UpdateBlock) -> None:
        match node:
            case nodes.Number():
                self._put()
                self._number()
                self._put()
            case nodes.CheckRule(condition=condition):
                self._put(3)
                if condition is not None:
                    self._predicate(condition)
                self._put()
            case nodes.UpdateBlock(phase=phase, steps=steps):
                self._put(1 if phase == "result" else 2)
                lone = len(steps) == 1 and steps[0].condition is None
                self._braces(steps, self._step, short=lone)

    def _step(self, node: nodes.UpdateStep) -> None:
        if node.condition is None:
            self._update(node.updates[0])
            return
        self._put()
        self._predicate(node.condition)
        self._braces(node.updates, self._update, short=len(node.updates) == 1)

    def _update(self, node: nodes.Update) -> None:
        self._change(node)
        self._put()

    def _change(self, node: nodes.Update) -> None:
        self._meta(node.target)
        self._put()
        self._set(node.set)

    def _braces(
        self, items: Sequence[_Item], write: Callable[[_Item], None], *, short: bool = False
    ) -> None:
        """Write a block; a `short` one stays on one line if it fits."""
        self._add(_Page.begin)
        self._put()
        self._add(_Page.indent)
        for number, item in enumerate(items):
            self._begin_item(first=number == 0, short=short)
            write(item)
        self._last_comments(first=not items)
        self._close(space=bool(items))

    def _begin_item(self, *, first: bool, apart: bool = False, short: bool = False) -> None:
        """Begin a line, with the comments before an item and at most one blank line."""
        gap = self._gaps[self._index]
        self._add(_Page.line if short else _Page.hard)
        for comment in gap.take(own=True):
            self._own_comment(comment, blank=not first and (comment.blank or apart))
            first = apart = False
        if not first and (gap.blank or apart):
            self._add(_Page.blank)
        while self._tokens[self._index].kind == "doc":
            self._put()
            self._add(_Page.hard)
