"""What a node or a router may say, in the end: keys and targets."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What one or several returns may say.

    Attributes:
        keys: Keys that a node may return; `None` for any.
        sure: Keys that are always among them; `None` where nothing is returned at all.
        targets: What a router or a `goto` may name; `None` for anything.
        sends: Nodes that packets may go to; `None` for any.
        most: How many targets it names at most; 2 for "several".
        least: How many at least.
        overwrites: Whether an update may be an `Overwrite`.
    """

    keys: frozenset[str] | None = frozenset()
    sure: frozenset[str] | None = frozenset()
    targets: frozenset[Any] | None = frozenset()
    sends: frozenset[str] | None = frozenset()
    most: int = 0
    least: int = 0
    overwrites: bool = False

    def either(self, other: "Answer") -> "Answer":
        """One or the other."""
        return Answer(
            keys=union(self.keys, other.keys),
            sure=_both(self.sure, other.sure),
            targets=union(self.targets, other.targets),
            sends=union(self.sends, other.sends),
            most=max(self.most, other.most),
            least=min(self.least, other.least),
            overwrites=self.overwrites or other.overwrites,
        )

    def together(self, other: "Answer") -> "Answer":
        """One after the other."""
        sure = None if self.sure is None or other.sure is None else self.sure | other.sure
        most, least = min(2, self.most + other.most), self.least + other.least
        return replace(self.either(other), sure=sure, most=most, least=least)


def one(target: Any) -> Answer:
    """One target."""
    return Answer(targets=frozenset({target}), most=1, least=1)


def either(answers: Iterable[Answer]) -> Answer:
    """One of these; `NEVER` if there is none."""
    found = None
    for answer in answers:
        found = answer if found is None else found.either(answer)
    return NEVER if found is None else found


def union(some: frozenset[Any] | None, others: frozenset[Any] | None) -> frozenset[Any] | None:
    """Both sets together, where `None` is everything."""
    return None if some is None or others is None else some | others


def _both(some: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    if some is None or others is None:
        return others if some is None else some
    return some & others


ANYTHING = Answer(None, frozenset(), None, None, most=2, overwrites=True)
NOTHING = Answer()
NEVER = Answer(sure=None, least=2)
"""An answer that does not come: `Command.PARENT` leaves the graph."""

ANY_ONE = Answer(targets=None, most=1, least=1)
"""One target, whatever it is."""

ANY_NAMES = Answer(targets=None, most=2)
"""Targets, whatever they are, but no packets."""

YES_OR_NO = one(target=True).either(one(target=False))
