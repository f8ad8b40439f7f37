"""Sets of labels, with the universal set and "all but X" (`docs/behaviour.md`, M4)."""

from collections.abc import Callable
from typing import Final, NamedTuple

from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt.nodes import MetaTest, Operator
from langchain_sequrity.sqrt.truth import Truth, agreed

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
