"""The layout of predicates, sets and domains, which stand between the words of a declaration.

The nodes say how a text is built, and its tokens are written as they are, with their comments.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from langchain_sequrity.sqrt.expressions import RANGES
from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Both,
    Combined,
    Compared,
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
    Operand,
    Position,
    Predicate,
    Range,
    Same,
    Set,
    Text,
    TextDomain,
    TimeDomain,
    Value,
)
from langchain_sequrity.sqrt.text.comments import GLUED, Comment, gaps
from langchain_sequrity.sqrt.text.layout import Layout
from langchain_sequrity.sqrt.tokens import Token, tokens

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
