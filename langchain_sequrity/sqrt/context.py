"""One call under a policy: the state that predicates read and updates change.

Sets of labels include the universal set and "all but X" (`docs/behaviour.md`, M4).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL, NO_LABELS, Labeled, Labels
from langchain_sequrity.sqrt.matchers import MatchBudget, Truth, unanimous
from langchain_sequrity.sqrt.nodes import Field, Meta, MetaTest, Operator

# Sets of labels

_NOBODY: Final[frozenset[str]] = frozenset()
_EVERYONE = frozenset({ALL})


class AllBut(frozenset[str]):
    """The form in which "all but X" leaves the engine: an empty set that remembers X.

    Attributes:
        excluded: X.
    """

    excluded: frozenset[str]

    @classmethod
    def excluding(cls, excluded: frozenset[str]) -> "AllBut":
        """Make one; the result is equal to `frozenset()`."""
        empty = cls()
        empty.excluded = excluded
        return empty


class LabelSet(NamedTuple):
    """A finite set of names, or all names but a finite set.

    Attributes:
        items: The names in it, or those missing from it.
        negated: Whether `items` are the missing names.
    """

    items: frozenset[str]
    negated: bool = False

    @classmethod
    def read(cls, labels: frozenset[str]) -> "LabelSet":
        """Read one set of a `Labels`."""
        if type(labels) is AllBut:
            return cls(labels.excluded, negated=True)
        return UNIVERSAL if ALL in labels else cls(labels)

    def written(self) -> frozenset[str]:
        """The set as a part of `Labels`, where "all but X" is empty."""
        if not self.negated:
            return self.items
        return AllBut.excluding(self.items) if self.items else _EVERYONE

    @property
    def universal(self) -> bool:
        """Whether it is the universal set."""
        return self.negated and not self.items

    @property
    def complement(self) -> "LabelSet":
        """All other names."""
        return LabelSet(self.items, not self.negated)

    def has(self, name: str) -> Truth:
        """Whether a name is in the set; unknown for a name that "all but X" does not exclude."""
        if not self.negated:
            return name in self.items
        if not self.items:
            return True
        return False if name in self.items else None


EMPTY = LabelSet(_NOBODY)
UNIVERSAL = LabelSet(_NOBODY, negated=True)


def union(left: LabelSet, right: LabelSet) -> LabelSet:
    """`left | right`, where `ALL | X` is X."""
    if left.universal and right.items and not right.negated:
        return right
    if not (left.negated or right.negated):
        return LabelSet(left.items | right.items)
    outside = intersection(left.complement, right.complement)
    return _bounded(outside.complement, left, right)


def _bounded(joined: LabelSet, left: LabelSet, right: LabelSet) -> LabelSet:
    """Keep a join finite unless one side is ALL: "all but X" joined with X is X.

    "All but X" leaves the engine as an empty set. So data that nobody may read must not become
    public when a few readers are added.
    """
    if not joined.universal or left.universal or right.universal:
        return joined
    return left if right.negated else right


def widest(left: LabelSet, right: LabelSet) -> LabelSet:
    """All names in either set. Unlike the written operator `|`, `ALL | X` is ALL here."""
    return UNIVERSAL if left.universal or right.universal else union(left, right)


def intersection(left: LabelSet, right: LabelSet) -> LabelSet:
    """`left & right`."""
    if left.negated and right.negated:
        return LabelSet(left.items | right.items, negated=True)
    if left.negated:
        return LabelSet(right.items - left.items)
    if right.negated:
        return LabelSet(left.items - right.items)
    return LabelSet(left.items & right.items)


def difference(left: LabelSet, right: LabelSet) -> LabelSet:
    """`left - right`."""
    return intersection(left, right.complement)


def symmetric_difference(left: LabelSet, right: LabelSet) -> LabelSet:
    """`left ^ right`."""
    joined = LabelSet(left.items ^ right.items, negated=left.negated != right.negated)
    return _bounded(joined, left, right)


OPERATIONS: dict[Operator, Callable[[LabelSet, LabelSet], LabelSet]] = {
    "|": union,
    "&": intersection,
    "-": difference,
    "^": symmetric_difference,
}


def _is_subset(left: LabelSet, right: LabelSet) -> bool:
    if right.negated:
        return right.items <= left.items if left.negated else left.items.isdisjoint(right.items)
    return not left.negated and left.items <= right.items


def _overlap(left: LabelSet, right: LabelSet) -> bool:
    if left.negated:
        return right.negated or not right.items <= left.items
    return not (left.items <= right.items if right.negated else left.items.isdisjoint(right.items))


_TESTS: dict[MetaTest, Callable[[LabelSet, LabelSet], bool]] = {
    "overlaps": _overlap,
    "subset": _is_subset,
    "superset": lambda left, right: _is_subset(right, left),
    "==": lambda left, right: left == right,
    "empty": lambda left, _: left == EMPTY,
    "universal": lambda left, _: left.universal,
}


def compare_labels(test: MetaTest, left: LabelSet, right: LabelSet = EMPTY) -> Truth:
    """One of the tests of labels.

    Args:
        test: The test.
        left: The labels.
        right: The set that they are compared with; `empty` and `universal` ignore it.

    Returns:
        The answer; `None` if it depends on whether "all but X" is read as an empty set.
    """
    decide = _TESTS[test]
    if not (left.negated and left.items) and not (right.negated and right.items):
        return decide(left, right)
    return unanimous(decide(*pair) for pair in product(_possible_sets(left), _possible_sets(right)))


def _possible_sets(names: LabelSet) -> tuple[LabelSet, ...]:
    return (names, EMPTY) if names.negated and names.items else (names,)


# Calls

MISSING = object()


Argument = Labeled


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool.

    Attributes:
        tool: The tool's name.
        arguments: Its arguments by name, without those that the call leaves out.
        decided_by: Labels of the data that decided that this call is made. The arguments have them
            too; `@args` of a call without arguments, and arguments that it leaves out, have only
            them.
        declared: The arguments that the tool's schema names, if it is known.
    """

    tool: str
    arguments: Mapping[str, Argument]
    decided_by: Labels = NO_LABELS
    declared: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse values without labels, which rules cannot check."""
        if not isinstance(self.arguments, Mapping):
            msg = (
                "`arguments` of a `Call` must be a dict; got a value of type "
                f"`{type(self.arguments).__name__}`. Write `{{name: Argument(value)}}`."
            )
            raise UsageError(msg)
        for name, argument in self.arguments.items():
            if not isinstance(argument, Argument):
                msg = (
                    f"The argument `{plain(str(name), limit=80)}` of a `Call` must be an "
                    "`Argument`; "
                    f"got a value of type `{type(argument).__name__}`. Write `Argument(value)`."
                )
                raise UsageError(msg)

    @property
    def labels(self) -> Labels:
        """The join of the labels of its arguments, and of what decided that it is made."""
        arguments = self.arguments.values()
        return reduce(Labels.join, (argument.labels for argument in arguments), self.decided_by)


def equally_labelled(values: Mapping[str, Any], labels: Labels) -> dict[str, Argument]:
    """Arguments that all have the same labels.

    So are those of a call whose flow of data is unknown, as in a conversation: the model may have
    used each result that it had seen, in each argument.
    """
    return {name: Argument(value, labels) for name, value in values.items()}


_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_MOST_CACHED = 1_000  # characters of the names of a call
_NO_NAMES: Mapping[str, Collection[str]] = MappingProxyType({})
_Groups = Sequence[Sequence[str]]


def similar_arguments(call: Call) -> _Groups:
    """The groups of arguments of a call of which one may be taken for another by its name."""
    names = (*call.arguments,)
    if sum(map(len, names)) <= _MOST_CACHED:
        return _cached_groups(names)
    return _similar_groups(names)


def _similar_groups(names: tuple[str, ...]) -> _Groups:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[folded(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


_cached_groups = lru_cache(maxsize=1_000)(_similar_groups)


def folded(name: str) -> str:
    """One form for all names that a framework or a model may take for the same.

    They may differ in case, white space, punctuation, accents or the form of their characters.
    """
    # Normalising takes quadratic time on runs of accents, which this removes.
    bare = _NOT_ALPHANUMERIC.sub("", name)
    folded = unicodedata.normalize("NFKD", bare).upper().casefold()
    return _NOT_ALPHANUMERIC.sub("", unicodedata.normalize("NFKD", folded)) or name


def _undistinguished(call: Call) -> Mapping[str, Collection[str]]:
    """Arguments of a call that may be taken for others, each with its group.

    A tool that declares all of a group tells them apart.
    """
    groups = similar_arguments(call)
    if not groups:
        return _NO_NAMES
    declared = frozenset(call.declared)
    return {name: group for group in groups if not declared.issuperset(group) for name in group}


_ERROR = re.compile(r"\A\W*(error|exception|traceback|failed|failure)\b", re.IGNORECASE)


def looks_like_error(value: object) -> bool:
    """Whether a value is a text that begins like an error; the pattern reads it at most once."""
    return isinstance(value, str) and _ERROR.match(value) is not None


class EvaluationContext:
    """The state that predicates read and updates change; made anew for each phase of a call.

    Attributes:
        arguments: The arguments of the call.
        similar: Arguments that may be taken for others, each with all that it may be taken for.
        result: The result; `None` before the call.
        short: What the short form `@tags` means.
        budget: Time for the matches of the phase.
        memo: Values of named predicates and sets.
    """

    __slots__ = (
        "_absent", "_labels", "_lenient", "arguments", "budget", "memo", "result", "short",
        "similar",
    )  # fmt: skip

    def __init__(
        self, call: Call, session: Labels, result: Argument | None = None, short: str = ""
    ) -> None:
        self.arguments = call.arguments
        self.similar = _undistinguished(call)
        self._absent = call.decided_by  # the labels of what the call leaves out
        self.result = result
        self.short = short
        self.budget = MatchBudget()
        self.memo: dict[Hashable, Any] = {}
        self._lenient = False
        self._labels: dict[tuple[str, str], Labels] = {("session", ""): session}
        if result is not None:
            self._labels["result", ""] = result.labels

    def set_short_scope(self, scope: str) -> None:
        """Define what `@tags` means; an empty scope means that it has no meaning here."""
        self.short = scope
        self.memo.clear()

    @property
    def session(self) -> Labels:
        """The current labels of the session."""
        return self._labels["session", ""]

    @property
    def result_labels(self) -> Labels:
        """The current labels of the result; the context must have a result."""
        return self._labels["result", ""]

    def argument_labels(self) -> Iterator[Labels]:
        """The current labels of all arguments."""
        return (self._labels.get(("arg", name), a.labels) for name, a in self.arguments.items())

    def value(self, name: str) -> Any:
        """The value of an argument; `MISSING` if the call has none, or several similar ones."""
        argument = self.arguments.get(name)
        return MISSING if argument is None or name in self.similar else argument.value

    def names(self, meta: Meta) -> LabelSet | None:
        """The set of an expression such as `a.tags`; `None` if it is not known here."""
        if meta.scope == "arg" and meta.argument in self.similar:
            if not self._lenient:
                return None
            labels = [self._labels_of("arg", name) for name in self.similar[meta.argument]]
            joined = reduce(Labels.join, filter(None, labels))
            return LabelSet.read(getattr(joined, meta.field))
        return self.current_names(meta)

    def current_names(self, meta: Meta) -> LabelSet | None:
        """The set that an update replaces; `None` if there is none here."""
        if meta.scope == "args":
            return self._of_all_arguments(meta)
        labels = self._labels_of(self.short if meta.scope == "short" else meta.scope, meta.argument)
        if labels is not None:
            return LabelSet.read(getattr(labels, meta.field))
        return LabelSet.read(getattr(self._absent, meta.field)) if self._lenient else None

    def _labels_of(self, scope: str, argument: str) -> Labels | None:
        labels = self._labels.get((scope, argument))
        if labels is None and scope == "arg" and argument in self.arguments:
            return self.arguments[argument].labels
        return labels

    def _of_all_arguments(self, meta: Meta) -> LabelSet:
        sets = [LabelSet.read(getattr(labels, meta.field)) for labels in self.argument_labels()]
        if not sets:
            return LabelSet.read(getattr(self._absent, meta.field))
        return reduce(intersection if meta.intersect else widest, sets)

    def as_if_arguments_given(
        self, names: "Callable[[EvaluationContext], LabelSet | None]"
    ) -> LabelSet | None:
        """A set, computed as if missing arguments were there with the labels of `decided_by`.

        Similar arguments have the labels of each other.
        """
        self._lenient = True
        self.memo.clear()
        label_set = names(self)
        self._lenient = False
        self.memo.clear()
        return label_set

    def write(self, meta: Meta, names: LabelSet) -> None:
        """Replace one set of labels, unless it belongs to a missing argument."""
        scope = self.short if meta.scope == "short" else meta.scope
        labels = self._labels_of(scope, meta.argument)
        if labels is not None:
            self._labels[scope, meta.argument] = _replaced(labels, meta.field, names.written())
            self.memo.clear()

    def tag_result(self, tag: str) -> None:
        """Add one of the service's own tags to the result."""
        labels = self.result_labels
        self._labels["result", ""] = _replaced(labels, "tags", labels.tags | {tag})
        self.memo.clear()


def _replaced(labels: Labels, field_: Field, names: frozenset[str]) -> Labels:
    if field_ == "tags":
        return Labels(labels.producers, labels.consumers, names)
    if field_ == "consumers":
        return Labels(labels.producers, names, labels.tags)
    return Labels(names, labels.consumers, labels.tags)
