"""Conditions and sets of a policy as Python objects: `arg("body").tags.overlaps({"web"})`.

Each object holds nodes and the names that these refer to, and none ever changes.

Python values as what stands in sets and on the sides of `==`.

A policy that is built says one thing only: what the service might read in several ways is refused.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from math import isinf, isnan
from typing import Any, Literal, NoReturn

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.nodes import (
    Binding,
    BoolDomain,
    Boolean,
    Both,
    Combined,
    Constant,
    Either,
    Element,
    Members,
    Moment,
    Not,
    Number,
    NumberDomain,
    Operator,
    Position,
    Predicate,
    Range,
    Set,
    Text,
    TextDomain,
    TimeDomain,
)
from langchain_sequrity.sqrt.parser import MAX_DIGITS
from langchain_sequrity.sqrt.printing import (
    certain_regex,
    certain_text,
    certain_wildcard,
    printed_element,
    printed_number,
    printed_predicate,
    printed_set,
)

NOWHERE = Position(0, 0)
Scalar = str | bool | int | float | datetime
"""A value that a policy can hold."""

Bound = int | float | datetime
"""An end of a range."""

Interval = NumberDomain | TimeDomain
"""Numbers or times between two ends."""

_ELEMENTS = (Text, Number, BoolDomain, NumberDomain, TextDomain, TimeDomain)


# Patterns


def matching(pattern: str | re.Pattern[str], *, length: Interval | None = None) -> TextDomain:
    """Texts that match a regex: `str matching r"…"`.

    Args:
        pattern: The regex, without flags but those written in it. Write `^…$` around it, so that
            it is the same whether the service anchors it or not.
        length: How many characters these texts have, as `between(1, 80)`.

    Returns:
        An element of a set.

    Raises:
        UsageError: If the regex does not compile, or the length is no range of integers.
    """
    if isinstance(pattern, re.Pattern):
        if pattern.flags != re.compile("").flags:
            msg = "A regex in a policy has no flags. Write them into it: `(?i)…`."
            raise UsageError(msg)
        pattern = pattern.pattern
    return TextDomain(regex(pattern), _length(length), NOWHERE)


def regex(pattern: str) -> Text:
    """The regex alone."""
    return Text(certain_regex(_text(pattern)), "matching", NOWHERE)


def like(pattern: str, *, length: Interval | None = None) -> TextDomain:
    """Texts that match a wildcard, with `*` for any run of characters and `?` for one.

    It does not guard an address: `like("*@museum.example")` matches
    `eve@evil.example,ada@museum.example` as well. Name the characters in `matching(…)` there.

    Args:
        pattern: The wildcard.
        length: How many characters these texts have, as `between(1, 80)`.

    Returns:
        An element of a set.

    Raises:
        UsageError: If the wildcard could be read in several ways.
    """
    text = Text(certain_wildcard(_text(pattern)), "like", NOWHERE)
    return TextDomain(text, _length(length), NOWHERE)


def _length(length: Interval | None) -> Range | None:
    if length is None:
        return None
    if not isinstance(length, NumberDomain) or length.kind != "int":
        msg = f"A length is a range of integers, as `between(1, 80)`; got {shown(length)}."
        raise UsageError(msg)
    return length.range


# Ranges


def between(
    low: Bound, high: Bound, *, low_open: bool = False, high_open: bool = False
) -> Interval:
    """Numbers or times from `low` to `high`.

    Args:
        low: The lower end: an `int` for integers, a `float` for floats, a `datetime` with a zone.
        high: The upper end, of the same kind.
        low_open: Whether `low` itself is excluded.
        high_open: Whether `high` itself is excluded.

    Returns:
        An element of a set.

    Raises:
        UsageError: If the ends are of different kinds, the range is empty, or a time has no zone.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg, between

        days = arg("days").value.is_in(between(1, 31))
        ```
    """
    if type(low) is not type(high):
        msg = f"The ends of a range are of one kind; got {shown(low)} and {shown(high)}."
        raise UsageError(msg)
    found = _interval(low, high, low_open=low_open, high_open=high_open)
    if low > high or (low == high and (low_open or high_open)):  # type: ignore[operator]
        msg = f"Nothing lies between {shown(low)} and {shown(high)}. The smaller end comes first."
        raise UsageError(msg)
    return found


def at_least(low: Bound) -> Interval:
    """Numbers or times from `low` on."""
    return _interval(low, None)


def at_most(high: Bound) -> Interval:
    """Numbers or times up to `high`."""
    return _interval(None, high)


def above(low: Bound) -> Interval:
    """Numbers or times beyond `low`, without it."""
    return _interval(low, None, low_open=True)


def below(high: Bound) -> Interval:
    """Numbers or times below `high`, without it."""
    return _interval(None, high, high_open=True)


def _interval(
    low: Bound | None, high: Bound | None, *, low_open: bool = False, high_open: bool = False
) -> Interval:
    bound = low if low is not None else high
    if isinstance(bound, datetime):
        first, last = (_moment(end) if isinstance(end, datetime) else None for end in (low, high))
        return TimeDomain(first, last, low_open, high_open, NOWHERE)
    if type(bound) not in {int, float}:
        msg = f"The end of a range is an `int`, a `float` or a `datetime`; got {shown(bound)}."
        raise UsageError(msg)
    lowest, highest = (
        _number(end) if isinstance(end, int | float) else None for end in (low, high)
    )
    kind: Literal["int", "float"] = "int" if isinstance(bound, int) else "float"
    return NumberDomain(kind, Range(lowest, highest, low_open, high_open, NOWHERE), NOWHERE)


# Single values


def element(value: object) -> Element:
    """What a value is in a set."""
    if isinstance(value, _ELEMENTS):
        return value
    found = constant(value)
    match found:
        case Boolean(value=flag):
            return BoolDomain(flag, NOWHERE)
        case Moment():
            return TimeDomain(found, found, low_open=False, high_open=False, at=NOWHERE)
        case _:
            return found


def label(value: object) -> Text:
    """What a value is in a set of labels."""
    if not isinstance(value, str):
        msg = (
            "Labels are texts, and how they compare with anything else is unknown; got "
            f"{shown(value)}."
        )
        raise UsageError(msg)
    exact = str.__str__(value)  # also of a member of a `StrEnum`
    return Text(certain_text(exact), "plain", NOWHERE)


def constant(value: object) -> Constant:
    """What a value is on one side of `==`."""
    match value:
        case bool():
            return Boolean(value, NOWHERE)
        case str():
            return label(value)
        case int() | float():
            return _number(value)
        case datetime():
            return _moment(value)
        case _:
            msg = (
                "A policy compares with texts, numbers, truth values and times; got "
                f"{shown(value)}."
            )
            raise UsageError(msg)


def members(values: Iterable[Any], make: Callable[[Any], Element]) -> Members:
    """A set of values; those of a Python set in an order of their own."""
    elements = [make(value) for value in values]
    if isinstance(values, set | frozenset):
        elements.sort(key=printed_element)
    return Members(tuple(elements), NOWHERE)


def _number(value: float) -> Number:
    plain_value = float(value) if isinstance(value, float) else int(value)
    number = Number(plain_value, NOWHERE)
    if isnan(plain_value):
        msg = "`nan` is no number that SQRT has."
        raise UsageError(msg)
    if not isinf(plain_value) and (
        abs(plain_value) >= 10**MAX_DIGITS or len(printed_number(number)) > MAX_DIGITS
    ):
        msg = f"A number in a policy has at most {MAX_DIGITS} digits and no exponent."
        raise UsageError(msg)
    return number


def _moment(value: datetime) -> Moment:
    if value.tzinfo is None:
        msg = f"The zone of {shown(value)} is unknown. Give it one: `datetime(…, tzinfo=UTC)`."
        raise UsageError(msg)
    return Moment(value.isoformat(), NOWHERE)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"A pattern is a text; got {shown(value)}."
        raise UsageError(msg)
    return str.__str__(value)


def shown(value: object) -> str:
    """A value as errors name it."""
    return f"`{plain(repr(value), limit=80)}`"


Lets = tuple[Binding, ...]


def _answered_at_once() -> UsageError:
    return UsageError(
        "Python would answer `==`, `!=` and `in` at once, and not the policy at each call. Write "
        "`.equals(…)` for `==`, `~….equals(…)` for `!=`, and `.is_in(…)` or `.has(…)` for `in`."
    )


class Undecided:
    """Base of what only the service decides, so that Python cannot."""

    __slots__ = ()

    def __bool__(self) -> bool:
        """Refuse to be true or false, which `and`, `or`, `not`, `if` and `in` would ask for."""
        msg = (
            "What a policy says is decided at each call, not in Python. Join conditions with `&`, "
            "`|` and `~` instead of `and`, `or` and `not`."
        )
        raise UsageError(msg)

    @override
    def __eq__(self, other: object) -> NoReturn:
        """Refuse `==` and `!=`, whose answer `and` and `or` would take for a condition."""
        raise _answered_at_once()

    @override
    def __hash__(self) -> int:
        """Refuse to be looked for in a set or a dict."""
        raise _answered_at_once()

    def __contains__(self, value: object) -> NoReturn:
        """Refuse `in`."""
        raise _answered_at_once()

    def _written(self, write: Callable[[], str]) -> str:
        """It as SQRT, for a `repr`."""
        try:
            return f"{type(self).__name__}({write()})"
        except UsageError:  # nested too deeply to be written
            return f"{type(self).__name__}(…)"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Condition(Undecided):
    """A condition; join conditions with `&`, `|` and `~`.

    Attributes:
        node: What it says.
        lets: The names that it uses.
    """

    node: Predicate
    lets: Lets = ()

    def __and__(self, other: "Condition") -> "Condition":
        """Both hold."""
        other = condition(other)
        parts = (*_parts(self.node, Both), *_parts(other.node, Both))
        return Condition(Both(parts, NOWHERE), self.lets + other.lets)

    def __or__(self, other: "Condition") -> "Condition":
        """At least one of them holds."""
        other = condition(other)
        parts = (*_parts(self.node, Either), *_parts(other.node, Either))
        return Condition(Either(parts, NOWHERE), self.lets + other.lets)

    def __invert__(self) -> "Condition":
        """It does not hold."""
        return Condition(Not(self.node, NOWHERE), self.lets)

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_predicate(self.node))

    def __rand__(self, other: object) -> NoReturn:
        """Refuse what is no condition."""
        condition(other)
        raise AssertionError  # pragma: no cover - a condition comes to `__and__`

    __ror__ = __rand__


def _parts(node: Predicate, kind: type[Both] | type[Either]) -> tuple[Predicate, ...]:
    return node.parts if isinstance(node, kind) else (node,)


def condition(value: object) -> Condition:
    """The condition itself.

    Raises:
        UsageError: If it is something else, as what Python makes of `==`, `and` or `in`.
    """
    if not isinstance(value, Condition):
        msg = (
            f'Expected a condition, as `arg("body").tags.overlaps({{"web"}})`; got {shown(value)}. '
            "Write `.equals(…)` for `==`, `.is_in(…)` for `in`, and `&`, `|`, `~` for `and`, `or`, "
            "`not`."
        )
        raise UsageError(msg)
    return value


# Sets


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SetOf(Undecided):
    """A set; join sets with `|`, `&`, `-` and `^`.

    Attributes:
        node: What it says.
        lets: The names that it uses.
    """

    node: Set
    lets: Lets = ()

    def __or__(self, other: "Elements") -> "SetOf":
        """What is in either."""
        return _combined("|", self, elements(other))

    def __and__(self, other: "Elements") -> "SetOf":
        """What is in both."""
        return _combined("&", self, elements(other))

    def __sub__(self, other: "Elements") -> "SetOf":
        """What is in the left one only."""
        return _combined("-", self, elements(other))

    def __xor__(self, other: "Elements") -> "SetOf":
        """What is in one of them only."""
        return _combined("^", self, elements(other))

    def __ror__(self, other: "Elements") -> "SetOf":
        """What is in either."""
        return elements(other) | self

    def __rand__(self, other: "Elements") -> "SetOf":
        """What is in both."""
        return elements(other) & self

    def __rsub__(self, other: "Elements") -> "SetOf":
        """What is in the left one only."""
        return elements(other) - self

    def __rxor__(self, other: "Elements") -> "SetOf":
        """What is in one of them only."""
        return elements(other) ^ self

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_set(self.node, 0))


def _combined(operator: Operator, left: SetOf, right: SetOf) -> SetOf:
    operands: tuple[Set, ...] = (left.node,)
    if isinstance(left.node, Combined) and left.node.operator == operator:
        operands = left.node.operands
    node = Combined(operator, (*operands, right.node), NOWHERE, bare=False)
    return SetOf(node, left.lets + right.lets)


Names = SetOf | Iterable[str]
"""Labels: a Python set of texts, one text, or the labels of something."""

Elements = SetOf | Element | Iterable[Scalar | Element]
"""Values: a Python set of them, a range or pattern, or a set that has a name."""


def elements(values: Elements) -> SetOf:
    """A set of values."""
    if isinstance(values, SetOf):
        return values
    if isinstance(values, str | bytes):
        msg = f"Expected a set, got {shown(values)}. Write `{{…}}` around it."
        raise UsageError(msg)
    if not isinstance(values, Iterable):
        return SetOf(Members((element(values),), NOWHERE))
    return SetOf(members(values, element))


def names(values: Names) -> SetOf:
    """A set of labels; one text is one label."""
    if isinstance(values, SetOf):
        return values
    if isinstance(values, str) or not isinstance(values, Iterable):
        return SetOf(Members((label(values),), NOWHERE))
    return SetOf(members(values, label))
