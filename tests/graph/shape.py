"""A graph of the catalogue: what to build, what to run it on, what its nodes note meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A graph and the runs to make of it.

    Attributes:
        graph: A `StateGraph`, or a compiled one where arguments of `compile` matter.
        inputs: One run each, in order, on one compiled graph.
        config: The config of each run.
        context: The context of each run.
        seen: What nodes note.
        nodes: What the executor must be told about nodes: keywords of `NodeOptions` by node.
    """

    graph: Any
    inputs: Sequence[Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    seen: list[Any] = field(default_factory=list)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Maker = Callable[[], Shape]


class Shapes(dict[str, Maker]):
    """The shapes of a module by name; a function enters with `@shapes.add`."""

    def add(self, make: Maker) -> Maker:
        """Enter a function that makes a shape afresh each time."""
        self[make.__name__] = make
        return make
