"""The layout of policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.coerce import AnyPolicy, policy_of, text_of
from langchain_sequrity.sqrt.lexer import COMMENT, MAX_CHARACTERS, Token, tokens
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Block,
    BoolDomain,
    Both,
    CheckRule,
    Combined,
    Compared,
    Declaration,
    Domain,
    Edited,
    Either,
    Element,
    In,
    Members,
    Meta,
    Name,
    Not,
    Number,
    NumberDomain,
    OneLiner,
    Operand,
    Policy,
    Position,
    Predicate,
    Range,
    Same,
    Set,
    Step,
    Text,
    TextDomain,
    TimeDomain,
    ToolBlock,
    Update,
    Value,
)
from langchain_sequrity.sqrt.parser import RANGES, parse

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


_Item = TypeVar("_Item")


class ExpressionLayout:
    """Goes through tokens and nodes side by side; each method takes one construct."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._gaps = gaps(text, self._tokens)
        self._places = _places(text, self._tokens)
        self._index = 0
        self._out = Layout()

    # Predicates

    def _predicate(self, node: Predicate, *, space: bool = True) -> None:
        opened = self._open(node.at, space=space)
        space = space and not opened
        match node:
            case Either(parts=parts) | Both(parts=parts):
                self._chain(parts, self._predicate, space=space, indent=not opened)
            case Not(inner=inner):
                self._put(space=space)
                self._predicate(inner)
            case Name():
                self._put(space=space)
            case Compared(left=left, right=right):
                self._meta(left, space=space)
                self._put(1 if self._is("overlaps", "==") else 2)
                if right is not None:
                    self._set(right)
            case In(value=value, set=members):
                self._operand(value, space=space)
                self._put()
                self._set(members)
            case Same(left=left_value, right=right_value):
                self._operand(left_value, space=space)
                self._put()
                self._operand(right_value)
        self._close_all(opened)

    def _operand(self, node: Operand, *, space: bool = True) -> None:
        if isinstance(node, Number):
            self._number(space=space)
        else:
            self._put(space=space)
        if isinstance(node, Value):
            self._put(space=False)

    # Sets

    def _set(self, node: Set, *, space: bool = True) -> None:
        opened = self._open(node.at, space=space)
        space = space and not opened
        match node:
            case Combined(operands=operands):
                self._chain(operands, self._set, space=space, indent=not opened)
            case Edited(base=base, edits=edits):
                elements = [element for _, element in edits]
                parts = (base, *elements)
                self._chain(parts, self._set_or_element, space=space, indent=not opened)
            case Members(elements=elements):
                self._members(elements, space=space)
            case Meta():
                self._meta(node, space=space)
            case Name():
                self._put(space=space)
        self._close_all(opened)

    def _set_or_element(self, node: Set | Element, *, space: bool = True) -> None:
        match node:
            case Combined() | Edited() | Members() | Meta() | Name():
                self._set(node, space=space)
            case _:
                self._element(node, space=space)

    def _members(self, elements: Sequence[Element], *, space: bool) -> None:
        self._out.begin()
        self._put(space=space)
        self._out.indent()
        for number, element in enumerate(elements):
            if number:
                self._put()
            self._out.line()
            self._element(element, space=number > 0)
        self._last_comments(first=True)
        self._close()

    def _element(self, node: Element, *, space: bool = True) -> None:
        match node:
            case Text():
                self._put(space=space)
            case Number():
                self._number(space=space)
            case _:
                self._domain(node, space=space)

    def _meta(self, node: Meta, *, space: bool = True) -> None:
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

    def _domain(self, node: Domain, *, space: bool = True) -> None:
        self._put(space=space)
        match node:
            case BoolDomain():
                self._put()
            case NumberDomain(range=bounds):
                self._range(bounds)
            case TimeDomain():
                self._range(node)
            case TextDomain(text=text, length=length):
                self._put(1 if text.kind == "plain" else 2)
                if length is not None:
                    self._put()
                    self._range(length)

    def _range(self, node: Range | TimeDomain) -> None:
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
        """Write parts with an operator before each but the first."""
        self._out.begin()
        if indent:
            self._out.indent()
        write(parts[0], space=space)
        for part in parts[1:]:
            self._out.line()
            self._put()
            write(part)
        if indent:
            self._out.dedent()
        self._out.end()

    def _open(self, at: Position, *, space: bool) -> int:
        """Open the parentheses around what begins at a place, and count them."""
        count = self._places[at] - self._index
        for number in range(count):
            self._out.begin()
            self._put(space=space and number == 0)
            self._out.indent()
            self._out.line()
        return count

    def _close_all(self, count: int) -> None:
        for _ in range(count):
            self._last_comments(first=True)
            self._close()

    def _close(self, *, space: bool = False) -> None:
        self._out.dedent()
        self._out.line()
        self._put(space=space)
        self._out.end()

    def _is(self, *texts: str) -> bool:
        return self._tokens[self._index].text in texts

    def _put(self, count: int = 1, *, space: bool = True) -> None:
        """Write tokens as they are, with the comments around them."""
        for _ in range(count):
            for comment in self._gaps[self._index].take(own=True):
                self._out.comment(comment.text, own=True)
            token = self._tokens[self._index]
            text = token.text.rstrip() if token.kind == "doc" else token.text
            self._out.text(text, space=space and text not in GLUED)
            self._index += 1
            space = True
            for comment in self._gaps[self._index].take(own=False):
                self._out.comment(comment.text, own=False)

    def _last_comments(self, *, first: bool) -> None:
        for comment in self._gaps[self._index].take(own=True):
            self._own_comment(comment, blank=comment.blank and not first)
            first = False

    def _own_comment(self, comment: Comment, *, blank: bool) -> None:
        self._out.hard()
        if blank:
            self._out.blank()
        self._out.comment(comment.text, own=True)


def _places(text: str, found: Sequence[Token]) -> dict[Position, int]:
    """The token that stands at each place."""
    places = {}
    line = start = end = 0
    for index, token in enumerate(found):
        line += text.count("\n", end, token.start)
        start = text.rfind("\n", 0, token.start) + 1 if "\n" in text[end : token.start] else start
        places[Position(line + 1, token.start - start + 1)] = index
        end = token.start
    return places


def format_policy(policy: AnyPolicy) -> str:
    """Lay a policy out: one rule a line, long sets and conditions broken, comments kept.

    Args:
        policy: Its text; or the parsed policy, a `PolicyHeader`, or an engine, whose text it is.

    Returns:
        The same words and comments in the same order. Formatting it again changes nothing.

    Raises:
        PolicySyntaxError: If the text is not SQRT.
        UsageError: If it would become longer than a policy may be, and for what is no policy.

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
            f"Formatted, this policy has {len(formatted)} characters, and at most "
            f"{MAX_CHARACTERS} are allowed. Drop comments or shorten it."
        )
        raise UsageError(msg)
    return formatted


def laid_out(policy: Policy) -> str:
    """The text of a parsed policy in the layout of `format_policy`."""
    return _Formatter(policy.text).policy(policy)


class _Formatter(ExpressionLayout):
    """Goes through tokens and nodes side by side."""

    def policy(self, policy: Policy) -> str:
        """Write all declarations, tool blocks apart from their neighbours."""
        last: Declaration | None = None
        for node in policy.declarations:
            apart = isinstance(node, ToolBlock) or isinstance(last, ToolBlock)
            self._begin_item(first=last is None, apart=apart)
            self._declaration(node)
            last = node
        self._last_comments(first=last is None)
        return self._out.written()

    def _declaration(self, node: Declaration) -> None:
        match node:
            case Binding(value=value):
                self._put(3)
                self._bound(value)
                self._put()
            case OneLiner():
                self._one_liner(node)
            case ToolBlock(priorities=priorities, checks=checks, blocks=blocks):
                self._put(2)
                items: list[Number | CheckRule | Block] = [*priorities, *checks, *blocks]
                self._braces(sorted(items, key=lambda item: item.at), self._item)

    def _bound(self, value: Predicate | Set | Domain) -> None:
        match value:
            case BoolDomain() | NumberDomain() | TextDomain() | TimeDomain():
                self._domain(value)
            case Members() | Meta() | Combined() | Edited():
                self._set(value)
            case _:
                self._predicate(value)

    def _one_liner(self, node: OneLiner) -> None:
        self._out.begin()
        self._out.indent()
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
            self._out.line()
            self._put()
            self._predicate(node.step.condition)
        self._put()
        self._out.dedent()
        self._out.end()

    # Blocks

    def _item(self, node: Number | CheckRule | Block) -> None:
        match node:
            case Number():
                self._put()
                self._number()
                self._put()
            case CheckRule(condition=condition):
                self._put(3)
                if condition is not None:
                    self._predicate(condition)
                self._put()
            case Block(phase=phase, steps=steps):
                self._put(1 if phase == "result" else 2)
                lone = len(steps) == 1 and steps[0].condition is None
                self._braces(steps, self._step, short=lone)

    def _step(self, node: Step) -> None:
        if node.condition is None:
            self._update(node.updates[0])
            return
        self._put()
        self._predicate(node.condition)
        self._braces(node.updates, self._update, short=len(node.updates) == 1)

    def _update(self, node: Update) -> None:
        self._change(node)
        self._put()

    def _change(self, node: Update) -> None:
        self._meta(node.target)
        self._put()
        self._set(node.set)

    def _braces(
        self, items: Sequence[_Item], write: Callable[[_Item], None], *, short: bool = False
    ) -> None:
        """Write a block; a `short` one stays on the line if it fits."""
        self._out.begin()
        self._put()
        self._out.indent()
        for number, item in enumerate(items):
            self._begin_item(first=number == 0, short=short)
            write(item)
        self._last_comments(first=not items)
        self._close(space=bool(items))

    def _begin_item(self, *, first: bool, apart: bool = False, short: bool = False) -> None:
        """Begin a line with the comments that stand before an item, and keep one free line."""
        gap = self._gaps[self._index]
        self._out.line() if short else self._out.hard()
        for comment in gap.take(own=True):
            self._own_comment(comment, blank=not first and (comment.blank or apart))
            first = apart = False
        if not first and (gap.blank or apart):
            self._out.blank()
        while self._tokens[self._index].kind == "doc":
            self._put()
            self._out.hard()
