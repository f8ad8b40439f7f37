"""One call under a policy: what its predicates look at and what its updates change."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.sqrt.names import EMPTY, UNIVERSAL, Names, intersection, widest
from langchain_sequrity.sqrt.nodes import Field, Meta
from langchain_sequrity.sqrt.patterns import Budget

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
        self.budget = Budget()
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
