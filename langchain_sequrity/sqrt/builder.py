"""Policies in Python, for users who do not want to write SQRT text.

A policy is built of nodes and then printed, so no text is ever pasted into another. All objects are
immutable; each has nodes and the bindings that these refer to. The builder refuses anything that
the service could read in several ways.

Example:
    ```python
    from langchain_sequrity.sqrt import arg, matching, policy, result, tool

    leak = arg("text").tags.overlaps({"personal"}) & ~arg("to").value.is_in(
        matching("^[A-Za-z0-9._+-]+@museum[.]example$")
    )
    built = policy(
        tool("find_borrower").result(result.tags.add("personal")),
        tool("send_mail").must_deny(when=leak, doc="addresses stay in the house").should_allow(),
    )
    assert "must deny when text.tags" in str(built)
    ```
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isinf, isnan
from typing import Any, Literal, NoReturn, overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.engine import compile_policy
from langchain_sequrity.sqrt.formatter import printed
from langchain_sequrity.sqrt.node_text import (
    checked_name,
    encodable,
    printed_node,
    printed_value,
    unambiguous_regex,
    unambiguous_text,
)
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import MAX_DIGITS, parse

NOWHERE = Position(0, 0)
Scalar = str | bool | int | float | datetime
"""A value that a policy can hold."""


Bound = int | float | datetime
"""An end of a range."""


Interval = nodes.NumberDomain | nodes.TimeDomain
"""A range of numbers or times."""


# Patterns


def matching(pattern: str | re.Pattern[str], *, length: Interval | None = None) -> nodes.TextDomain:
    """Texts that match a regex: `str matching r"…"`.

    Args:
        pattern: The regex; flags must be written in it. Write `^…$` around it, so that it means
            the same whether the service anchors it or not.
        length: The number of characters, such as `between(1, 80)`.

    Returns:
        An element of a set.

    Raises:
        UsageError: If the regex does not compile, or the length is not a range of integers.
    """
    if isinstance(pattern, re.Pattern):
        if pattern.flags != re.compile("").flags:
            msg = (
                "A compiled regex in a policy cannot have flags. Write them in the regex: `(?i)…`."
            )
            raise UsageError(msg)
        pattern = pattern.pattern
    return nodes.TextDomain(regex(pattern), _length(length), NOWHERE)


def regex(pattern: object) -> nodes.TextLiteral:
    """A regex as a literal."""
    return nodes.TextLiteral(unambiguous_regex(_text(pattern, "A pattern")), "matching", NOWHERE)


def like(pattern: str, *, length: Interval | None = None) -> nodes.TextDomain:
    """Texts that match a wildcard, with `*` for any run of characters and `?` for one.

    A wildcard does not protect an address: `like("*@museum.example")` also matches
    `eve@evil.example,ada@museum.example`. Use `matching(…)` with the allowed characters there.

    Args:
        pattern: The wildcard.
        length: The number of characters, such as `between(1, 80)`.

    Returns:
        An element of a set.

    Raises:
        UsageError: If the wildcard could be read in several ways.
    """
    text = nodes.TextLiteral(
        unambiguous_text(_text(pattern, "A pattern"), "wildcard"), "like", NOWHERE
    )
    return nodes.TextDomain(text, _length(length), NOWHERE)


def _length(length: Interval | None) -> nodes.NumberRange | None:
    if length is None:
        return None
    if not isinstance(length, nodes.NumberDomain) or length.kind != "int":
        msg = (
            f"A length must be a range of integers, such as `between(1, 80)`; got {quote(length)}."
        )
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
        msg = f"The ends of a range must be of one kind; got {quote(low)} and {quote(high)}."
        raise UsageError(msg)
    interval = _interval(low, high, low_open=low_open, high_open=high_open)
    if low > high or (low == high and (low_open or high_open)):  # type: ignore[operator]
        msg = f"Nothing lies between {quote(low)} and {quote(high)}. The smaller end comes first."
        raise UsageError(msg)
    return interval


def at_least(low: Bound) -> Interval:
    """Numbers or times from `low` upwards."""
    return _interval(low, None)


def at_most(high: Bound) -> Interval:
    """Numbers or times up to `high`."""
    return _interval(None, high)


def above(low: Bound) -> Interval:
    """Numbers or times above `low`, excluding it."""
    return _interval(low, None, low_open=True)


def below(high: Bound) -> Interval:
    """Numbers or times below `high`, excluding it."""
    return _interval(None, high, high_open=True)


def _interval(
    low: Bound | None, high: Bound | None, *, low_open: bool = False, high_open: bool = False
) -> Interval:
    first, last = (None if end is None else constant(end) for end in (low, high))
    ends: Any = (first, last, low_open, high_open, NOWHERE)
    match first or last:
        case nodes.TimeLiteral():
            return nodes.TimeDomain(*ends)
        case nodes.NumberLiteral(value=value):
            number_type: Literal["int", "float"] = "int" if isinstance(value, int) else "float"
            return nodes.NumberDomain(number_type, nodes.Range(*ends), NOWHERE)
    bound = quote(high if low is None else low)
    msg = f"The end of a range must be an `int`, a `float` or a `datetime`; got {bound}."
    raise UsageError(msg)


# Single values


def element(value: object) -> nodes.Element:
    """A Python value as an element of a set."""
    if isinstance(value, nodes.Element):
        return value
    literal = constant(value)
    match literal:
        case nodes.BooleanLiteral(value=flag):
            return nodes.BoolDomain(flag, NOWHERE)
        case nodes.TimeLiteral():
            return nodes.TimeDomain(literal, literal, low_open=False, high_open=False, at=NOWHERE)
        case _:
            return literal


def label(value: object) -> nodes.TextLiteral:
    """A Python value as an element of a set of labels."""
    return nodes.TextLiteral(unambiguous_text(_text(value, "A label")), "plain", NOWHERE)


def constant(value: object) -> nodes.Constant:
    """A Python value as a literal on one side of `==`."""
    match value:
        case bool():
            return nodes.BooleanLiteral(value, NOWHERE)
        case str():
            return label(value)
        case int() | float():
            return _number(value)
        case datetime():
            return _moment(value)
        case _:
            msg = (
                "A policy can compare only with texts, numbers, booleans and times; got "
                f"{quote(value)}."
            )
            raise UsageError(msg)


def _number(value: float) -> nodes.NumberLiteral:
    plain_value = float(value) if isinstance(value, float) else int(value)
    number = nodes.NumberLiteral(plain_value, NOWHERE)
    if isnan(plain_value):
        msg = "SQRT has no `nan`. Use another number."
        raise UsageError(msg)
    if not isinf(plain_value) and (
        abs(plain_value) >= 10**MAX_DIGITS or len(printed_value(number)) > MAX_DIGITS
    ):
        msg = f"A number in a policy has at most {MAX_DIGITS} digits and no exponent."
        raise UsageError(msg)
    return number


def _moment(value: datetime) -> nodes.TimeLiteral:
    if value.tzinfo is None:
        msg = f"The zone of {quote(value)} is unknown. Give it one: `datetime(…, tzinfo=UTC)`."
        raise UsageError(msg)
    return nodes.TimeLiteral(value.isoformat(), NOWHERE)


def _text(value: object, subject: str) -> str:
    """Check and return a text, without the type of a `StrEnum`."""
    if not isinstance(value, str):
        msg = f"{subject} must be a text; got {quote(value)}."
        raise UsageError(msg)
    return str.__str__(value)


def quote(value: object) -> str:
    """A value for an error message; of an object without a `repr` of its own, the type."""
    if type(value).__repr__ is object.__repr__:
        return f"a value of type `{type(value).__name__}`"
    return f"`{plain(repr(value), limit=80)}`"


Lets = tuple[nodes.Binding, ...]


def _not_in_python() -> UsageError:
    return UsageError(
        "Python would evaluate `==`, `!=` and `in` now, but a policy decides at each call. Write "
        "`.equals(…)` for `==`, `~….equals(…)` for `!=`, and `.is_in(…)` or `.has(…)` for `in`."
    )


class Deferred:
    """Base of objects that have a value only at a call, so Python must not evaluate them."""

    __slots__ = ()
    node: Any

    def __bool__(self) -> bool:
        """Refuse a truth value, which `and`, `or`, `not`, `if` and `in` would request."""
        msg = (
            "A policy decides at each call, not in Python. Join conditions with `&`, "
            "`|` and `~` instead of `and`, `or` and `not`."
        )
        raise UsageError(msg)

    @override
    def __eq__(self, other: object) -> NoReturn:
        """Refuse `==` and `!=`, whose result `and` and `or` would use as a condition."""
        raise _not_in_python()

    @override
    def __hash__(self) -> int:
        """Refuse lookups in a set or a dict."""
        raise _not_in_python()

    def __contains__(self, value: object) -> NoReturn:
        """Refuse `in`."""
        raise _not_in_python()

    @override
    def __repr__(self) -> str:
        """The object as SQRT."""
        try:
            text = printed_node(self.node)
        except UsageError:  # nested too deeply to write
            text = "…"
        return f"{type(self).__name__}({text})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Condition(Deferred):
    """A condition; join conditions with `&`, `|` and `~`.

    Attributes:
        node: The condition as a node.
        lets: The bindings that it uses.
    """

    node: nodes.Predicate
    lets: Lets = ()

    def __and__(self, other: "Condition") -> "Condition":
        """Both hold."""
        return _joined(nodes.And, self, condition(other))

    def __or__(self, other: "Condition") -> "Condition":
        """At least one of them holds."""
        return _joined(nodes.Or, self, condition(other))

    def __invert__(self) -> "Condition":
        """It does not hold."""
        return Condition(nodes.Not(self.node, NOWHERE), self.lets)


def _joined(
    node_type: type[nodes.And] | type[nodes.Or], first: Condition, second: Condition
) -> Condition:
    sides = (first.node, second.node)
    parts = [side.parts if isinstance(side, node_type) else (side,) for side in sides]
    return Condition(node_type((*parts[0], *parts[1]), NOWHERE), first.lets + second.lets)


def condition(value: object) -> Condition:
    """Check and return a condition.

    Raises:
        UsageError: For anything else, as the result of Python's `==`, `and` or `in`.
    """
    if not isinstance(value, Condition):
        msg = (
            'Expected a condition, such as `arg("body").tags.overlaps({"web"})`; got '
            f"{quote(value)}. "
            "Write `.equals(…)` for `==`, `.is_in(…)` for `in`, and `&`, `|`, `~` for `and`, `or`, "
            "`not`."
        )
        raise UsageError(msg)
    return value


# Sets


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SetOf(Deferred):
    """A set; join sets with `|`, `&`, `-` and `^`.

    Attributes:
        node: The set as a node.
        lets: The bindings that it uses.
    """

    node: nodes.Set
    lets: Lets = ()

    def __or__(self, other: "Elements") -> "SetOf":
        """The union."""
        return _combined("|", self, elements(other))

    def __and__(self, other: "Elements") -> "SetOf":
        """The intersection."""
        return _combined("&", self, elements(other))

    def __sub__(self, other: "Elements") -> "SetOf":
        """The difference."""
        return _combined("-", self, elements(other))

    def __xor__(self, other: "Elements") -> "SetOf":
        """The symmetric difference."""
        return _combined("^", self, elements(other))

    def __ror__(self, other: "Elements") -> "SetOf":
        """The union."""
        return elements(other) | self

    def __rand__(self, other: "Elements") -> "SetOf":
        """The intersection."""
        return elements(other) & self

    def __rsub__(self, other: "Elements") -> "SetOf":
        """The difference."""
        return elements(other) - self

    def __rxor__(self, other: "Elements") -> "SetOf":
        """The symmetric difference."""
        return elements(other) ^ self


def _combined(operator: nodes.Operator, first: SetOf, second: SetOf) -> SetOf:
    operands: tuple[nodes.Set, ...] = (first.node,)
    if isinstance(first.node, nodes.SetOperation) and first.node.operator == operator:
        operands = first.node.operands
    node = nodes.SetOperation(operator, (*operands, second.node), NOWHERE, bare=False)
    return SetOf(node, first.lets + second.lets)


Names = SetOf | Iterable[str]
"""Labels: a Python set of texts, one text, or the labels of an argument, result or session."""


Elements = SetOf | nodes.Element | Iterable[Scalar | nodes.Element]
"""Values: a Python set of them, a range or pattern, or a set of this module."""


def elements(values: Elements) -> SetOf:
    """A set of values."""
    if isinstance(values, SetOf):
        return values
    if isinstance(values, str | bytes):
        msg = f"Expected a set, got {quote(values)}. Write `{{…}}` around it."
        raise UsageError(msg)
    return _set_of(values, element)


def names(values: Names) -> SetOf:
    """A set of labels; one text is one label."""
    return values if isinstance(values, SetOf) else _set_of(values, label)


def _set_of(values: Any, make: Callable[[Any], nodes.Element]) -> SetOf:
    """A set of one or several values; elements of a Python set are sorted."""
    is_one = isinstance(values, str) or not isinstance(values, Iterable)
    all_elements = [make(value) for value in ([values] if is_one else values)]
    if isinstance(values, set | frozenset):
        all_elements.sort(key=printed_value)
    return SetOf(nodes.SetLiteral(tuple(all_elements), NOWHERE))


# Labels


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Change(Deferred):
    """A change of labels.

    Attributes:
        node: The change as a node.
        lets: The bindings that it uses.
    """

    node: nodes.Update
    lets: Lets = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelsOf(SetOf):
    """The tags, producers or consumers of an argument, the result or the session, at a call.

    A policy can test all of them, and change those of the result and of the session.
    """

    node: nodes.Meta

    def overlaps(self, labels: Names) -> Condition:
        """Whether they contain at least one of these."""
        return self._test("overlaps", labels)

    def subset_of(self, labels: Names) -> Condition:
        """Whether they contain only these."""
        return self._test("subset", labels)

    def superset_of(self, labels: Names) -> Condition:
        """Whether they contain all of these."""
        return self._test("superset", labels)

    def equals(self, labels: Names) -> Condition:
        """Whether they are exactly these."""
        return self._test("==", labels)

    def has(self, name: str) -> Condition:
        """Whether they contain this one."""
        return Condition(nodes.Membership(label(name), self.node, NOWHERE))

    def is_empty(self) -> Condition:
        """Whether they are empty."""
        return Condition(nodes.LabelTest(self.node, "empty", None, NOWHERE))

    def is_universal(self) -> Condition:
        """Whether they are universal: for consumers, that everyone may read the value."""
        return Condition(nodes.LabelTest(self.node, "universal", None, NOWHERE))

    def _test(self, test: nodes.MetaTest, labels: Names) -> Condition:
        right = names(labels)
        return Condition(nodes.LabelTest(self.node, test, right.node, NOWHERE), right.lets)

    def add(self, labels: Names) -> Change:
        """Add these: `|=`. If the old labels are everyone (`{"*"}`), only the added ones stay."""
        return self._change("|=", labels)

    def remove(self, labels: Names) -> Change:
        """Remove these: `-=`."""
        return self._change("-=", labels)

    def keep(self, labels: Names) -> Change:
        """Remove all others: `&=`."""
        return self._change("&=", labels)

    def replace(self, labels: Names) -> Change:
        """Replace all by these: `=`."""
        return self._change("=", labels)

    def toggle(self, labels: Names) -> Change:
        """Remove each of these that is present, and add each that is absent: `^=`."""
        return self._change("^=", labels)

    def _change(self, assignment: nodes.Assignment, labels: Names) -> Change:
        right = names(labels)
        return Change(nodes.Update(self.node, assignment, right.node, NOWHERE), right.lets)


# Values


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValueOf(Deferred):
    """The value of an argument or of the result."""

    node: nodes.ValueRef

    def equals(self, other: "Scalar | ValueOf") -> Condition:
        """Whether it equals this value, or the value of another argument."""
        right: nodes.Operand = other.node if isinstance(other, ValueOf) else constant(other)
        return Condition(nodes.Equality(self.node, right, NOWHERE))

    def is_in(self, values: Elements) -> Condition:
        """Whether it is one of these, is in a range, or matches a pattern.

        Args:
            values: A set of values, or one range or pattern: `{"east", 5}`, `between(1, 31)`,
                `matching(r"^[a-z]+$")`, `{like("R-*"), "vase"}`. Labels are also sets:
                `arg("to").value.is_in(arg("text").consumers)`.
        """
        right = elements(values)
        return Condition(nodes.Membership(self.node, right.node, NOWHERE), right.lets)

    def __lt__(self, other: object) -> bool:
        """Refuse `<`, `<=`, `>` and `>=`."""
        msg = (
            f"Got a comparison with {quote(other)}. Write `.is_in(between(1, 31))`, or `above`, "
            "`below`, `at_least`, `at_most` in place of `between`."
        )
        raise UsageError(msg)

    __le__ = __gt__ = __ge__ = __lt__


# Owners of labels


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Labelled(Deferred):
    """An owner of labels."""

    scope: nodes.LabelOwner
    argument: str = ""
    intersect: bool = False

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.argument or f'@{self.scope}'})"

    @property
    def tags(self) -> LabelsOf:
        """Its tags."""
        return LabelsOf(self._meta("tags"))

    @property
    def producers(self) -> LabelsOf:
        """The sources of the value."""
        return LabelsOf(self._meta("producers"))

    @property
    def consumers(self) -> LabelsOf:
        """The parties that may read the value."""
        return LabelsOf(self._meta("consumers"))

    def _meta(self, field: nodes.Field) -> nodes.Meta:
        return nodes.Meta(self.scope, field, self.argument, self.intersect, NOWHERE)


class LabelledValue(Labelled):
    """An argument or the result of the call."""

    __slots__ = ()

    @property
    def value(self) -> ValueOf:
        """Its value."""
        scope: Any = self.scope
        return ValueOf(nodes.ValueRef(scope, self.argument, NOWHERE))


class AllArguments(Labelled):
    """All arguments of the call: the union of their labels."""

    __slots__ = ()

    @property
    def shared(self) -> Labelled:
        """The intersection of the labels of all arguments."""
        return Labelled("args", intersect=True)


def arg(name: str) -> LabelledValue:
    """An argument of the call.

    Args:
        name: Its name.

    Returns:
        An object with `value`, `tags`, `producers` and `consumers`.

    Raises:
        UsageError: If SQRT cannot write the name.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg

        outside = ~arg("to").value.is_in({"ada@museum.example"})
        leak = arg("text").tags.overlaps({"personal"}) & outside
        ```
    """
    return LabelledValue("arg", checked_name(name))


args = AllArguments("args")
"""All arguments of the call."""


result = LabelledValue("result")
"""The result of the call; only changes of labels after the call can use it."""


session = Labelled("session")
"""The session, whose labels persist from call to call."""


@dataclass(frozen=True, slots=True, repr=False)
class Tool:
    """The rules of a tool; each method returns a new one with an added rule.

    A condition or a change of another type raises `UsageError`.

    Attributes:
        node: The rules as a block.
        lets: The bindings that they use.
    """

    node: nodes.ToolBlock
    lets: Lets = ()

    @override
    def __str__(self) -> str:
        """The rules as SQRT, with the bindings that they use."""
        return printed(_policy_of(self))

    @override
    def __repr__(self) -> str:
        return f"Tool({printed_value(self.node.tool.text)})"

    # Rules

    def must_deny(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Deny, whatever other rules decide.

        Args:
            when: The condition; `None` means always.
            doc: The reason, which is shown when the rule decides.
        """
        return self._check("hard", "deny", when, doc)

    def must_allow(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Allow, and deny if the condition fails and no other rule allows.

        Args:
            when: The condition; `None` means always.
            doc: The reason, which is shown when the rule decides.
        """
        return self._check("hard", "allow", when, doc)

    def should_deny(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Deny unless a `must` rule, or a `should` rule of higher priority, allows.

        Args:
            when: The condition; `None` means always.
            doc: The reason, which is shown when the rule decides.
        """
        return self._check("soft", "deny", when, doc)

    def should_allow(self, when: Condition | None = None, *, doc: str = "") -> "Tool":
        """Allow unless another rule denies.

        Args:
            when: The condition; `None` means always.
            doc: The reason, which is shown when the rule decides.
        """
        return self._check("soft", "allow", when, doc)

    def priority(self, number: int) -> "Tool":
        """Set the priority of the `should` rules of this tool.

        Args:
            number: The priority; rules of a higher one decide first. The default is 0.

        Raises:
            UsageError: If it is not an integer, or has too many digits.
        """
        if type(number) is not int or abs(number) >= 10**MAX_DIGITS:
            msg = (
                f"A priority must be an integer of at most {MAX_DIGITS} digits; got "
                f"{quote(number)}."
            )
            raise UsageError(msg)
        return replace(
            self, node=replace(self.node, priorities=(nodes.NumberLiteral(number, NOWHERE),))
        )

    # Changes of labels

    def session_before(
        self, *changes: Change, when: Condition | None = None, doc: str = ""
    ) -> "Tool":
        """Change the session's labels before a call is checked, and keep them even if it is denied.

        Args:
            changes: Such as `session.tags.add("tried")`, in order.
            when: A condition for all changes.
            doc: The reason.
        """
        return self._step("before", changes, when, doc)

    def result(self, *changes: Change, when: Condition | None = None, doc: str = "") -> "Tool":
        """Change the labels of a result.

        Args:
            changes: Such as `result.consumers.replace({"ada"})`, in order.
            when: A condition for all changes.
            doc: The reason.
        """
        return self._step("result", changes, when, doc)

    def session_after(
        self, *changes: Change, when: Condition | None = None, doc: str = ""
    ) -> "Tool":
        """Change the session's labels after a call.

        Args:
            changes: Such as `session.tags.add("lent")`, in order.
            when: A condition for all changes.
            doc: The reason.
        """
        return self._step("after", changes, when, doc)

    def _check(
        self, strength: nodes.Strength, decision: nodes.Effect, when: Condition | None, doc: str
    ) -> "Tool":
        test, lets = _condition_and_lets(when)
        rule = nodes.CheckRule(strength, decision, test, "", _doc(doc), NOWHERE)
        node = replace(self.node, checks=(*self.node.checks, rule))
        return Tool(node, self.lets + lets)

    def _step(
        self, phase: nodes.Phase, changes: Sequence[Change], when: Condition | None, doc: str
    ) -> "Tool":
        test, lets = _condition_and_lets(when)
        updates = tuple(_short_update(phase, change) for change in changes)
        if not updates:
            msg = "Expected at least one change. Write one, such as `result.tags.add(…)`."
            raise UsageError(msg)
        groups = [updates] if test is not None else [(update,) for update in updates]
        steps = [nodes.UpdateStep(test, group, "", NOWHERE) for group in groups]
        steps[0] = replace(steps[0], doc=_doc(doc))
        steps_in = {block.phase: block.steps for block in self.node.blocks}
        steps_in[phase] = (*steps_in.get(phase, ()), *steps)
        blocks = tuple(
            nodes.UpdateBlock(p, steps_in[p], "", NOWHERE) for p in nodes.PHASES if p in steps_in
        )
        used = (let for change in changes for let in change.lets)
        return Tool(replace(self.node, blocks=blocks), (*self.lets, *lets, *used))


def _condition_and_lets(when: Condition | None) -> tuple[nodes.Predicate | None, Lets]:
    if when is None:
        return None, ()
    checked = condition(when)
    return checked.node, checked.lets


def _short_update(phase: nodes.Phase, change: Change) -> nodes.Update:
    """The change with its labels in the short form, `@tags`."""
    scope = "result" if phase == "result" else "session"
    if not isinstance(change, Change) or change.node.target.scope != scope:
        actual = quote(change) if not isinstance(change, Change) else "a change of other labels"
        msg = f"Expected changes of the {scope}, such as `{scope}.tags.add(…)`; got {actual}."
        raise UsageError(msg)
    return replace(change.node, target=replace(change.node.target, scope="short"))


def _doc(doc: str) -> str:
    lines = _text(doc, "`doc`").strip().splitlines()
    return encodable("\n".join(line.strip() for line in lines))


def tool(name: str | None = None, *, matching: str | None = None, doc: str = "") -> Tool:
    """Begin the rules of a tool, or of all tools whose names match a regex.

    Args:
        name: The tool's name.
        matching: The regex, instead of a name.
        doc: The purpose of these rules.

    Returns:
        A tool without rules; its methods add rules.

    Raises:
        UsageError: If both or neither are given, or SQRT cannot write it.

    Example:
        ```python
        from langchain_sequrity.sqrt import session, tool

        paid = tool("pay").must_deny(when=session.tags.has("paid")).should_allow()
        once = paid.session_after(session.tags.add("paid"))
        ```
    """
    if (name is None) == (matching is None):
        msg = 'Give a tool by its name, `tool("send")`, or a regex, `tool(matching=r"^read_")`.'
        raise UsageError(msg)
    text = regex(matching) if name is None else label(_text(name, "The name of a tool"))
    return Tool(nodes.ToolBlock(nodes.ToolId(text, NOWHERE), (), (), (), _doc(doc), NOWHERE))


@overload
def let(name: str, value: Condition, *, doc: str = "") -> Condition: ...


@overload
def let(name: str, value: Elements, *, doc: str = "") -> SetOf: ...


def let(name: str, value: Condition | Elements, *, doc: str = "") -> Condition | SetOf:
    """Name a condition or a set, so that the policy contains it once.

    Args:
        name: The name.
        value: A condition, or a set of values.
        doc: A description.

    Returns:
        The name, to be used instead of the value.

    Raises:
        UsageError: If SQRT cannot write the name or the value.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg, let, policy, tool

        staff = let("staff", {"ada", "grace"})
        mail = tool("mail").must_deny(when=~arg("text").consumers.superset_of(staff))
        assert str(policy(mail)).startswith('let staff = {"ada", "grace"};')
        ```
    """
    word = nodes.Name(checked_name(name), NOWHERE)
    if isinstance(value, Condition):
        return Condition(word, (*value.lets, nodes.Binding(name, value.node, _doc(doc), NOWHERE)))
    members = elements(value)
    node = value if isinstance(value, nodes.Domain) else members.node
    return SetOf(word, (*members.lets, nodes.Binding(name, node, _doc(doc), NOWHERE)))


def policy(*tools: Tool) -> Policy:
    """Make a policy of tools.

    Args:
        tools: The tools, in the order of the text. Bindings that they use come first.

    Returns:
        A parsed policy; its `text`, or `str(…)`, is the policy as SQRT.

    Raises:
        UsageError: If the policy cannot be written.
        PolicySyntaxError: If it has no meaning, as with two values for one name.

    Example:
        ```python
        from langchain_sequrity.headers import PolicyHeader
        from langchain_sequrity.sqrt import policy, tool

        built = policy(tool("ship").must_deny(doc="nothing leaves"))
        header = PolicyHeader.from_sqrt(built.text)
        ```
    """
    for tool_ in tools:
        if not isinstance(tool_, Tool):
            msg = (
                'A policy must be made of tools, such as `tool("send").must_deny()`; got '
                f"{quote(tool_)}."
            )
            raise UsageError(msg)
    built = parse(printed(_policy_of(*tools)))
    compile_policy(built)
    return built


def _policy_of(*tools: Tool) -> Policy:
    # Compared by `repr`, because 1 and 1.0 are equal but differ.
    lets = {repr(binding): binding for tool_ in tools for binding in tool_.lets}
    return Policy((*lets.values(), *(tool_.node for tool_ in tools)), "")
