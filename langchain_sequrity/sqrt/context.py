"""One call under a policy: what its predicates look at and what its updates change.

Sets of labels, with the universal set and "all but X" (`docs/behaviour.md`, M4).
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL, Combine, Labels
from langchain_sequrity.sqrt.matchers import MatchBudget, Truth, agreed
from langchain_sequrity.sqrt.nodes import Field, Meta, MetaTest, Operator

_NOBODY: Final[frozenset[str]] = frozenset()
_EVERYONE = frozenset({ALL})


class AllBut(frozenset[str]):
    """How "all but X" leaves the engine: an empty set, which still knows X when it comes back.

    Attributes:
        excluded: X.
    """

    excluded: frozenset[str]

    @classmethod
    def of(cls, excluded: frozenset[str]) -> "AllBut":
        """Make one; the result is equal to `frozenset()`."""
        empty = cls()
        empty.excluded = excluded
        return empty


class Names(NamedTuple):
    """A finite set of names, or everything but such a set.

    Attributes:
        items: The names in it, or those missing from it.
        negated: Whether `items` are what is missing.
    """

    items: frozenset[str]
    negated: bool = False

    @classmethod
    def read(cls, labels: frozenset[str]) -> "Names":
        """Read one set of a `Labels`."""
        if type(labels) is AllBut:
            return cls(labels.excluded, negated=True)
        return UNIVERSAL if ALL in labels else cls(labels)

    def written(self) -> frozenset[str]:
        """The set as a part of `Labels`; "all but X" is nobody there."""
        if not self.negated:
            return self.items
        return AllBut.of(self.items) if self.items else _EVERYONE

    @property
    def universal(self) -> bool:
        """Whether it is the universal set."""
        return self.negated and not self.items

    def has(self, name: str) -> Truth:
        """Whether a name is in the set; unknown where "all but X" would have to say yes."""
        if not self.negated:
            return name in self.items
        if not self.items:
            return True
        return False if name in self.items else None


EMPTY = Names(_NOBODY)
UNIVERSAL = Names(_NOBODY, negated=True)


def union(left: Names, right: Names) -> Names:
    """`left | right`, where `ALL | X` is X."""
    if left.universal and right.items and not right.negated:
        return right
    if left.negated and right.negated:
        return _bounded(Names(left.items & right.items, negated=True), left, right)
    if left.negated:
        return _bounded(Names(left.items - right.items, negated=True), left, right)
    if right.negated:
        return _bounded(Names(right.items - left.items, negated=True), left, right)
    return Names(left.items | right.items)


def _bounded(joined: Names, left: Names, right: Names) -> Names:
    """Only ALL makes ALL: "all but X" and X are X, as nobody and X are.

    "All but X" leaves the engine as nobody, and what nobody may read must not become public by
    adding a few.
    """
    if not joined.universal or left.universal or right.universal:
        return joined
    return left if right.negated else right


def widest(left: Names, right: Names) -> Names:
    """All that is in one of two sets; that `ALL | X` is X belongs to the written operator."""
    return UNIVERSAL if left.universal or right.universal else union(left, right)


def intersection(left: Names, right: Names) -> Names:
    """`left & right`."""
    if left.negated and right.negated:
        return Names(left.items | right.items, negated=True)
    if left.negated:
        return Names(right.items - left.items)
    if right.negated:
        return Names(left.items - right.items)
    return Names(left.items & right.items)


def difference(left: Names, right: Names) -> Names:
    """`left - right`."""
    return intersection(left, Names(right.items, negated=not right.negated))


def symmetric_difference(left: Names, right: Names) -> Names:
    """`left ^ right`."""
    joined = Names(left.items ^ right.items, negated=left.negated != right.negated)
    return _bounded(joined, left, right)


OPERATIONS: dict[Operator, Callable[[Names, Names], Names]] = {
    "|": union,
    "&": intersection,
    "-": difference,
    "^": symmetric_difference,
}


def _within(left: Names, right: Names) -> bool:
    if right.negated:
        return right.items <= left.items if left.negated else left.items.isdisjoint(right.items)
    return not left.negated and left.items <= right.items


def _overlap(left: Names, right: Names) -> bool:
    if left.negated:
        return right.negated or not right.items <= left.items
    return not (left.items <= right.items if right.negated else left.items.isdisjoint(right.items))


_TESTS: dict[MetaTest, Callable[[Names, Names], bool]] = {
    "overlaps": _overlap,
    "subset": _within,
    "superset": lambda left, right: _within(right, left),
    "==": lambda left, right: left == right,
    "empty": lambda left, _: left == EMPTY,
    "universal": lambda left, _: left.universal,
}


def compared(test: MetaTest, left: Names, right: Names = EMPTY) -> Truth:
    """One of the tests of labels.

    Args:
        test: The test.
        left: The labels.
        right: What they are compared with; not looked at by `empty` and `universal`.

    Returns:
        The answer; `None` where it depends on whether "all but X" is nobody, as it is written.
    """
    decide = _TESTS[test]
    if not (left.negated and left.items) and not (right.negated and right.items):
        return decide(left, right)
    return agreed(decide(one, two) for one in _readings(left) for two in _readings(right))


def _readings(names: Names) -> tuple[Names, ...]:
    return (names, EMPTY) if names.negated and names.items else (names,)


MISSING = object()


@dataclass(frozen=True, slots=True)
class Argument:
    """A value with its labels: an argument of a call, or its result.

    Attributes:
        value: Plain JSON data.
        labels: The join of the labels of everything inside the value.
    """

    value: Any
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool.

    Attributes:
        tool: The tool's name.
        arguments: Its arguments by name. One that was left out is simply not there.
    """

    tool: str
    arguments: Mapping[str, Argument]

    def __post_init__(self) -> None:
        """Refuse values without labels, which rules cannot look at."""
        if not isinstance(self.arguments, Mapping):
            msg = "`arguments` of a `Call` is a dict. Write `{name: Argument(value)}`."
            raise UsageError(msg)
        for name, argument in self.arguments.items():
            if not isinstance(argument, Argument):
                msg = (
                    f"The argument `{plain(str(name), limit=80)}` of a `Call` is an `Argument`; "
                    f"got a value of type `{type(argument).__name__}`. Write `Argument(value)`."
                )
                raise UsageError(msg)

    @property
    def labels(self) -> Labels:
        """The join of the labels of its arguments."""
        joined = Labels()
        for argument in self.arguments.values():
            joined = joined.join(argument.labels)
        return joined


def result_labels(call: Call, brought: Labels | None, combine: Combine = "merge") -> Labels:
    """Labels of a result before the rules: its arguments' and its own (`docs/protocol.md`).

    Args:
        call: The call that was made.
        brought: Labels that the result brings along, if it brings any.
        combine: How they combine with those of the arguments.
    """
    if brought is None or combine == "ignore":
        return call.labels
    return brought if combine == "replace" else call.labels.join(brought)


class Context:
    """The state that predicates read and updates write; made anew for each phase of a call."""

    __slots__ = ("_labels", "_lenient", "_short", "arguments", "budget", "memo", "result")

    def __init__(
        self, call: Call, session: Labels, result: Argument | None = None, short: str = ""
    ) -> None:
        self.arguments = call.arguments
        self.result = result
        self._short = short
        self.budget = MatchBudget()
        self.memo: dict[Hashable, Any] = {}  # values of named predicates and sets
        self._lenient = False
        self._labels: dict[tuple[str, str], Labels] = {("session", ""): session}
        if result is not None:
            self._labels["result", ""] = result.labels

    @property
    def short(self) -> str:
        """The scope that `@tags` means; none if empty."""
        return self._short

    @short.setter
    def short(self, scope: str) -> None:
        if scope != self._short:
            self._short = scope
            self.memo.clear()

    def labels(self, scope: str, argument: str = "") -> Labels | None:
        """The labels of the session, the result or an argument, as they are by now."""
        found = self._labels.get((scope, argument))
        if found is None and scope == "arg" and argument in self.arguments:
            return self.arguments[argument].labels
        return found

    def names(self, meta: Meta) -> Names | None:
        """The set that a text like `a.tags` means, or `None` if there is nothing it could mean."""
        if meta.scope == "args":
            return self._of_all(meta)
        labels = self.labels(self.short if meta.scope == "short" else meta.scope, meta.argument)
        if labels is not None:
            return Names.read(getattr(labels, meta.field))
        return _without(meta.field) if self._lenient else None

    @property
    def session(self) -> Labels:
        """The labels of the session, as they are by now."""
        return self._labels["session", ""]

    def argument_labels(self) -> Iterator[Labels]:
        """The labels of all arguments, as they are by now."""
        return (
            self._labels.get(("arg", name), given.labels) for name, given in self.arguments.items()
        )

    def tag_result(self, tag: str) -> None:
        """Add a tag of the service's own to the result."""
        labels = self.result_labels
        self._labels["result", ""] = Labels(labels.producers, labels.consumers, labels.tags | {tag})
        self.memo.clear()

    @property
    def result_labels(self) -> Labels:
        """The labels of the result, as they are by now; there must be one."""
        return self._labels["result", ""]

    def as_if_given(self, names: "Callable[[Context], Names | None]") -> Names | None:
        """What a set would be if arguments that were left out had the labels of a new value."""
        self._lenient = True
        self.memo.clear()
        found = names(self)
        self._lenient = False
        self.memo.clear()
        return found

    def _of_all(self, meta: Meta) -> Names:
        found = [Names.read(getattr(labels, meta.field)) for labels in self.argument_labels()]
        if not found:
            return _without(meta.field)
        joined = found[0]
        for names in found[1:]:
            joined = intersection(joined, names) if meta.intersect else widest(joined, names)
        return joined

    def write(self, meta: Meta, names: Names) -> None:
        """Replace one set of labels, if there is something that has them."""
        scope = self.short if meta.scope == "short" else meta.scope
        labels = self.labels(scope, meta.argument)
        if labels is not None:
            self._labels[scope, meta.argument] = _replaced(labels, meta.field, names.written())
            self.memo.clear()


def _without(field_: Field) -> Names:
    """What a value without labels has."""
    return UNIVERSAL if field_ == "consumers" else EMPTY


def _replaced(labels: Labels, field_: Field, names: frozenset[str]) -> Labels:
    if field_ == "tags":
        return Labels(labels.producers, labels.consumers, names)
    if field_ == "consumers":
        return Labels(labels.producers, names, labels.tags)
    return Labels(names, labels.consumers, labels.tags)
