"""What conditions are about: arguments, the result, the session; their values and labels."""

from dataclasses import dataclass

from typing_extensions import override

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.building.conditions import (
    Condition,
    Elements,
    Lets,
    Names,
    SetOf,
    Undecided,
    elements,
    names,
)
from langchain_sequrity.sqrt.building.elements import NOWHERE, Scalar, constant, label, shown
from langchain_sequrity.sqrt.nodes import (
    Assignment,
    Compared,
    Field,
    In,
    Meta,
    MetaTest,
    Operand,
    Same,
    Scope,
    Update,
    Value,
)
from langchain_sequrity.sqrt.text.expression_printing import printed_operand, printed_update
from langchain_sequrity.sqrt.text.spelling import written_name

# Labels


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelsOf(SetOf):
    """The tags, producers or consumers of something, as they are at a call."""

    node: Meta

    def overlaps(self, labels: Names) -> Condition:
        """At least one of these is there."""
        return self._test("overlaps", labels)

    def subset_of(self, labels: Names) -> Condition:
        """There are no others than these."""
        return self._test("subset", labels)

    def superset_of(self, labels: Names) -> Condition:
        """All of these are there."""
        return self._test("superset", labels)

    def equals(self, labels: Names) -> Condition:
        """Exactly these are there."""
        return self._test("==", labels)

    def has(self, name: str) -> Condition:
        """This one is there."""
        return Condition(In(label(name), self.node, NOWHERE))

    def is_empty(self) -> Condition:
        """There are none."""
        return Condition(Compared(self.node, "empty", None, NOWHERE))

    def is_universal(self) -> Condition:
        """Everyone is there: of consumers, that everyone may read it."""
        return Condition(Compared(self.node, "universal", None, NOWHERE))

    def _test(self, test: MetaTest, labels: Names) -> Condition:
        right = names(labels)
        return Condition(Compared(self.node, test, right.node, NOWHERE), right.lets)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Change(Undecided):
    """A change of labels.

    Attributes:
        node: What it changes, and how.
        lets: The names that it uses.
    """

    node: Update
    lets: Lets = ()

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_update(self.node))


class ChangeableLabels(LabelsOf):
    """Labels that a policy can change, of the result or of the session."""

    __slots__ = ()

    def add(self, labels: Names) -> Change:
        """Add these: `|=`. Added to everyone, they are the only ones."""
        return self._change("|=", labels)

    def remove(self, labels: Names) -> Change:
        """Remove these: `-=`."""
        return self._change("-=", labels)

    def keep(self, labels: Names) -> Change:
        """Remove all but these: `&=`."""
        return self._change("&=", labels)

    def replace(self, labels: Names) -> Change:
        """Leave these and nothing else: `=`."""
        return self._change("=", labels)

    def toggle(self, labels: Names) -> Change:
        """Remove those of these that are there, and add the others: `^=`."""
        return self._change("^=", labels)

    def _change(self, assignment: Assignment, labels: Names) -> Change:
        right = names(labels)
        return Change(Update(self.node, assignment, right.node, NOWHERE), right.lets)


# Values


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValueOf(Undecided):
    """The value of an argument or of the result."""

    node: Value

    @override
    def __repr__(self) -> str:
        return self._written(lambda: printed_operand(self.node))

    def equals(self, other: "Scalar | ValueOf") -> Condition:
        """It is this value, or the same as that of another argument."""
        right: Operand = other.node if isinstance(other, ValueOf) else constant(other)
        return Condition(Same(self.node, right, NOWHERE))

    def is_in(self, values: Elements) -> Condition:
        """It is one of these, lies in a range, or matches a pattern.

        Args:
            values: A set of values, or one range or pattern: `{"east", 5}`, `between(1, 31)`,
                `matching(r"^[a-z]+$")`, `{like("R-*"), "vase"}`. Labels are sets as well:
                `arg("to").value.is_in(arg("text").consumers)`.
        """
        right = elements(values)
        return Condition(In(self.node, right.node, NOWHERE), right.lets)

    def __lt__(self, other: object) -> bool:
        """Refuse `<`, `<=`, `>` and `>=`."""
        msg = (
            f"Got a comparison with {shown(other)}. Write `.is_in(between(1, 31))`, or `above`, "
            "`below`, `at_least`, `at_most` in place of `between`."
        )
        raise UsageError(msg)

    __le__ = __gt__ = __ge__ = __lt__


# Whose they are


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Labelled(Undecided):
    """Something that has labels, which conditions can look at."""

    scope: Scope
    argument: str = ""
    intersect: bool = False

    @override
    def __repr__(self) -> str:
        return self._written(lambda: self.argument or f"@{self.scope}")

    @property
    def tags(self) -> LabelsOf:
        """Its tags."""
        return LabelsOf(self._meta("tags"))

    @property
    def producers(self) -> LabelsOf:
        """Who made it."""
        return LabelsOf(self._meta("producers"))

    @property
    def consumers(self) -> LabelsOf:
        """Who may read it."""
        return LabelsOf(self._meta("consumers"))

    def _meta(self, field: Field) -> Meta:
        return Meta(self.scope, field, self.argument, self.intersect, NOWHERE)


class OneArgument(Labelled):
    """An argument of the call."""

    __slots__ = ()

    @property
    def value(self) -> ValueOf:
        """Its value."""
        return ValueOf(Value("arg", self.argument, NOWHERE))


class AllArguments(Labelled):
    """All arguments of the call together: their labels united."""

    __slots__ = ()

    @property
    def shared(self) -> Labelled:
        """What all of them have: their labels intersected."""
        return Labelled("args", intersect=True)


class Changeable(Labelled):
    """Something whose labels a policy can change."""

    __slots__ = ()

    @property
    def tags(self) -> ChangeableLabels:
        """Its tags."""
        return ChangeableLabels(self._meta("tags"))

    @property
    def producers(self) -> ChangeableLabels:
        """Who made it."""
        return ChangeableLabels(self._meta("producers"))

    @property
    def consumers(self) -> ChangeableLabels:
        """Who may read it."""
        return ChangeableLabels(self._meta("consumers"))


class Result(Changeable):
    """The result of the call."""

    __slots__ = ()

    @property
    def value(self) -> ValueOf:
        """Its value."""
        return ValueOf(Value("result", "", NOWHERE))


def arg(name: str) -> OneArgument:
    """An argument of the call.

    Args:
        name: Its name.

    Returns:
        What has its `value`, `tags`, `producers` and `consumers`.

    Raises:
        UsageError: If SQRT cannot write the name.

    Example:
        ```python
        from langchain_sequrity.sqrt import arg

        outside = ~arg("to").value.is_in({"ada@museum.example"})
        leak = arg("text").tags.overlaps({"personal"}) & outside
        ```
    """
    return OneArgument("arg", written_name(name))


args = AllArguments("args")
"""All arguments of the call."""

result = Result("result")
"""The result of the call; it is there in changes of labels after the call."""

session = Changeable("session")
"""The session, whose labels stay from call to call."""
