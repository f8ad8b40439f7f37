"""Conditions, sets of labels and changes of labels in English.

What stands in the braces of a set in English: texts, patterns, numbers, times and domains.

Texts, patterns and times stand as the policy has them, quotes and all: between its quotes there is
no further quote, so that nothing in them reads as a word of ours.
"""

from typing import assert_never

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Boolean,
    Both,
    Combined,
    Compared,
    Domain,
    Edited,
    Either,
    Element,
    Field,
    In,
    Members,
    Meta,
    MetaTest,
    Moment,
    Name,
    Not,
    Number,
    NumberDomain,
    Operand,
    Operator,
    Predicate,
    Range,
    Same,
    Set,
    Text,
    TextDomain,
    TimeDomain,
    Update,
    Value,
)

_QUOTES = {"plain": "", "matching": "r", "like": "w"}
_PAIR = 2
_KINDS = {"int": "whole number", "float": "number"}


def domain(node: Domain, article: str = "any") -> str:
    """What is in a domain: one value, or any of a kind."""
    match node:
        case BoolDomain(value=value):
            return "true" if value else "false"
        case NumberDomain(kind=kind, range=bounds):
            return _numbers(_KINDS[kind], bounds, article)
        case TextDomain(text=text, length=length):
            words = _pattern(text, article)
            return words if length is None else f"{words} with a length {_length(length)}"
        case TimeDomain(low=low, high=high):
            return _times(low, high, (node.low_open, node.high_open), article)
        case _:
            assert_never(node)


def quoted(text: Text) -> str:
    """A text as the policy has it."""
    return f'{_QUOTES[text.kind]}"{plain(text.raw)}"'


def members(elements: tuple[Element, ...], field: Field | None = None) -> str:
    """Elements of a set; in one of consumers `"*"` is everyone."""
    if not elements:
        return "the empty set"
    return listed([element(one, field) for one in elements])


def choice(elements: tuple[Element, ...]) -> str:
    """What a value is, if it is in a set."""
    if not elements:
        return "in the empty set"
    choices = listed([element(one, article="a") for one in elements], "or")
    return choices if len(elements) == 1 else f"one of {choices}"


def element(node: Element, field: Field | None = None, article: str = "any") -> str:
    """One element; `article` stands before a kind of values."""
    if isinstance(node, Number):
        return number(node)
    if isinstance(node, Text):
        is_everyone = field == "consumers" and node.kind == "plain" and node.raw == "*"
        return f"{quoted(node)} (everyone)" if is_everyone else _pattern(node, article)
    return domain(node, article)


def joined(operator: Operator, parts: list[str]) -> str:
    """Sets joined by an operator, from left to right."""
    match operator:
        case "|":
            return f"the union of {listed(parts)}"
        case "&":
            return f"what is in {'both' if len(parts) == _PAIR else 'all of'} {listed(parts)}"
        case "-":
            return f"what is in {parts[0]} and not in {listed(parts[1:], 'or')}"
        case "^":
            count = "just one" if len(parts) == _PAIR else "an odd number"
            return f"what is in {count} of {listed(parts)}"
        case _:
            assert_never(operator)


def _pattern(text: Text, article: str) -> str:
    kind = "" if text.kind == "plain" else f"{article} text that matches "
    return f"{kind}{quoted(text)}"


def _numbers(kind: str, bounds: Range, article: str) -> str:
    if bounds.low is not None and bounds.low == bounds.high:
        return f"the {kind} {number(bounds.low)}"
    return f"{article} {kind} {_range(bounds)}"


def _times(
    low: Moment | None, high: Moment | None, is_open: tuple[bool, bool], article: str
) -> str:
    if low is not None and low == high:
        return f"the time {moment(low)}"
    start, end = (None if one is None else moment(one) for one in (low, high))
    return f"{article} time {_between(start, end, is_open, ('after', 'before'))}"


def moment(node: Moment) -> str:
    """A point in time, as the policy has it."""
    if isinstance(node.written, str):
        return f'd"{plain(node.written)}"'
    return f"{_figure(node.written)} seconds after 1970 began"


def number(node: Number) -> str:
    """A number in digits, or an infinity."""
    return _figure(node.value)


def _figure(value: float) -> str:
    if value in {float("inf"), float("-inf")}:
        return "infinity" if value > 0 else "minus infinity"
    return str(value)


def _range(bounds: Range) -> str:
    start, end = (None if one is None else number(one) for one in (bounds.low, bounds.high))
    return _between(start, end, (bounds.low_open, bounds.high_open), ("above", "below"))


def _length(bounds: Range) -> str:
    if bounds.low is not None and bounds.low == bounds.high:
        return f"of {number(bounds.low)}"
    return _range(bounds)


def _between(
    low: str | None, high: str | None, is_open: tuple[bool, bool], words: tuple[str, str]
) -> str:
    """A range; `words` stand for its open ends."""
    start = "" if low is None else f"{words[0] if is_open[0] else 'from'} {low}"
    end = "" if high is None else f"{words[1] if is_open[1] else 'up to'} {high}"
    if not start:
        return end
    if not end:
        return start if is_open[0] else f"{start} on"
    return f"{start} and {end}" if any(is_open) else f"{start} {end}"


def listed(items: list[str], word: str = "and") -> str:
    """Items with commas, and a word before the last one."""
    *first, last = items
    return f"{', '.join(first)} {word} {last}" if first else last


_TESTS: dict[MetaTest, tuple[str, str]] = {
    "overlaps": ("include at least one of", "include none of"),
    "subset": ("include nothing beside", "include something beside"),
    "superset": ("include all of", "do not include all of"),
    "==": ("are exactly", "are not exactly"),
}


class Wording:
    """Says what nodes mean, at one place of a policy.

    Args:
        short: Whose labels `@tags` and the like are there; an empty text where that is unknown.
    """

    def __init__(self, short: str = "") -> None:
        self._short = short

    # Conditions

    def condition(self, node: Predicate, *, holds: bool = True) -> str:
        """A condition, or that it does not hold, as it follows "when"."""
        match node:
            case Not(inner=inner):
                return self.condition(inner, holds=not holds)
            case Both(parts=parts) | Either(parts=parts):
                word = " and " if isinstance(node, Both) else " or "
                words = word.join(map(self._part, parts))
                return words if holds else f"it is not so that ({words})"
            case Name(name=name):
                return f"`{name}` {'holds' if holds else 'does not hold'}"
            case In():
                return self._in(node, "is" if holds else "is not")
            case Same(left=left, right=right):
                equals = "equals" if holds else "does not equal"
                return f"{self._operand(left)} {equals} {self._operand(right)}"
            case Compared():
                return f"{self.labels(node.left)} {self._compared(node, holds=holds)}"
            case _:
                assert_never(node)

    def _part(self, node: Predicate) -> str:
        words = self.condition(node)
        return f"({words})" if isinstance(node, Both | Either) else words

    def _in(self, node: In, is_: str) -> str:
        value, given = self._operand(node.value), node.set
        if isinstance(given, Members):
            return f"{value} {is_} {choice(given.elements)}"
        if isinstance(given, Meta):
            return f"{value} {is_} among {self.labels(given)}"
        return f"{value} {is_} in {self.set(given)}"

    def _compared(self, node: Compared, *, holds: bool) -> str:
        field, test = node.left.field, node.test
        if node.right is None:
            everything = "everyone" if field == "consumers" else "universal"
            are = "are" if holds else "are not"
            return f"{are} {'empty' if test == 'empty' else everything}"
        right = self.set(node.right, field)
        is_single = isinstance(node.right, Members) and len(node.right.elements) == 1
        if is_single and test in {"overlaps", "superset"}:
            return f"{'include' if holds else 'do not include'} {right}"
        yes, no = _TESTS[test]
        return f"{yes if holds else no} {right}"

    def _operand(self, node: Operand) -> str:
        match node:
            case Value(scope="arg", argument=argument):
                return f"the value of `{argument}`"
            case Value(scope=scope):
                return f"the value of the {scope}"
            case Text():
                return quoted(node)
            case Moment():
                return moment(node)
            case Number():
                return number(node)
            case Boolean(value=value):
                return "true" if value else "false"
            case _:
                assert_never(node)

    # Sets

    def set(self, node: Set, field: Field | None = None) -> str:
        """A set; in one of consumers `"*"` is everyone."""
        match node:
            case Members(elements=elements):
                return members(elements, field)
            case Meta():
                return self.labels(node)
            case Name(name=name):
                return f"`{name}`"
            case Combined(operator=operator, operands=operands):
                return joined(operator, [self._operand_of_set(one, field) for one in operands])
            case Edited(base=base, edits=edits):
                changes = [
                    f"{'with' if added else 'without'} {element(edit, field)}"
                    for added, edit in edits
                ]
                return f"{self._operand_of_set(base, field)} {' and then '.join(changes)}"
            case _:
                assert_never(node)

    def _operand_of_set(self, node: Set, field: Field | None) -> str:
        words = self.set(node, field)
        is_simple = isinstance(node, Name | Meta) or (
            isinstance(node, Members) and len(node.elements) <= 1
        )
        return words if is_simple else f"({words})"

    def labels(self, node: Meta) -> str:
        """Labels of something."""
        match node.scope:
            case "arg":
                return f"the {node.field} of `{node.argument}`"
            case "args":
                how = "that all arguments share" if node.intersect else "of all arguments together"
                return f"the {node.field} {how}"
            case "short":
                return self._of_short(node.field)
            case "session" | "result":
                return f"the {node.field} of the {node.scope}"
            case _:
                assert_never(node.scope)

    def _of_short(self, field: Field) -> str:
        if not self._short:
            return f"the {field} that `@{field}` means here"
        return f"the {field} of the {self._short}"

    # Changes

    def update(self, node: Update) -> str:
        """A change of labels, as it follows "it"."""
        target, field = self.labels(node.target), node.target.field
        given = self.set(node.set, field)
        match node.assignment:
            case "=":
                return f"makes {target} exactly {given}"
            case "|=" if field == "consumers":
                stays = "where these are everyone and something is added, only that stays"
                return f"adds to {target}: {given} ({stays})"
            case "|=":
                return f"adds to {target}: {given}"
            case "-=":
                return f"takes out of {target}: {given}"
            case "&=":
                return f"keeps of {target} only what is also in {given}"
            case "^=":
                return f"leaves in {target} what is in just one of these and {given}"
            case _:
                assert_never(node.assignment)
