"""A graph of the catalogue: the graph, its inputs, and what its nodes note."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A graph and its runs.

    Attributes:
        graph: A `StateGraph`, or a compiled graph if arguments of `compile` matter.
        inputs: One input for each run, in order, on one compiled graph.
        config: The config of each run.
        context: The context of each run.
        seen: What nodes note.
        nodes: Options that the executor needs: keywords of `NodeOptions` by node.
    """

    graph: Any
    inputs: Sequence[Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    seen: list[Any] = field(default_factory=list)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Maker = Callable[[], Shape]


class Shapes(dict[str, Maker]):
    """The shapes of a module by name. `@shapes.add` adds a function."""

    def add(self, make: Maker) -> Maker:
        """Add a function that makes a new shape at each call."""
        self[make.__name__] = make
        return make
