"""Conditions and sets of a policy as Python objects: `arg("body").tags.overlaps({"web"})`.

Each object holds nodes and the names that these refer to, and none ever changes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from typing_extensions import override

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.building.elements import (
    NOWHERE,
    Scalar,
    element,
    label,
    members,
    shown,
)
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Both,
    Combined,
    Either,
    Element,
    Members,
    Not,
    Operator,
    Predicate,
    Set,
)
from langchain_sequrity.sqrt.text.expression_printing import printed_predicate, printed_set

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
