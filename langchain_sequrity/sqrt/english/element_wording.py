"""What stands in the braces of a set in English: texts, patterns, numbers, times and domains.

Texts, patterns and times stand as the policy has them, quotes and all: between its quotes there is
no further quote, so that nothing in them reads as a word of ours.
"""

from typing import assert_never

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Domain,
    Element,
    Field,
    Moment,
    Number,
    NumberDomain,
    Operator,
    Range,
    Text,
    TextDomain,
    TimeDomain,
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
