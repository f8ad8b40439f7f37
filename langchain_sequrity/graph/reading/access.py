"""Which state fields each node and router reads and writes, and how that is known.

This decides what labels can tell apart. A node that reads the whole state gives everything it
writes the labels of the whole state. In order of authority:

1. declared: `NodeOptions(reads=…, writes=…)`
2. source: what the function's source shows; it is believed only where nothing is left open
3. annotation: a return annotation that is a TypedDict of its own
4. schema: the fields of the node's own input schema, which LangGraph gives it no more of
5. everything: all fields, with a warning that names the node

What a node reads and writes is enforced when it runs.
"""

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from langchain_sequrity.errors import UnknownAccess, warn
from langchain_sequrity.graph.reading.source import functions_of
from langchain_sequrity.graph.reading.spec import GraphSpec

From = Literal["declared", "source", "annotation", "schema", "everything"]
_LONGEST_DESCRIPTION = 1_000


@dataclass(frozen=True, slots=True)
class Access:
    """What a node or a router does with the state, and where it may go.

    Attributes:
        reads: Fields and managed values, in the order of the graph's.
        writes: Fields.
        definite: Fields that it writes each time.
        reads_from: How `reads` is known.
        writes_from: How `writes` is known.
        targets: Nodes that it may name; `None` for all.
        sends: Nodes that it may send packets to; `None` for all.
        single: Whether it names one target at most.
        may_end: Whether it may name none, or END.
        overwrites: Whether it may return `Overwrite`.
        description: What its docstring says, or nothing.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    definite: frozenset[str]
    reads_from: From
    writes_from: From
    targets: frozenset[str] | None
    sends: frozenset[str] | None
    single: bool
    may_end: bool
    overwrites: bool
    description: str


def warn_unknown(what: str, way_out: str) -> None:
    """Warn that something counts as the whole state."""
    text = (
        f"{what} what cannot be told from its source, so it counts as the whole state, and labels "
        f"tell nothing apart there. {way_out}"
    )
    warn(text, UnknownAccess)


def warn_of_model(what: str, way_out: str) -> None:
    """Warn that something reads the whole state because pydantic does."""
    text = (
        f"{what} the whole state, whatever its source says: the state is a pydantic model, whose "
        f"fields are validated together, so labels tell nothing apart there. {way_out}"
    )
    warn(text, UnknownAccess)


def ordered(graph: GraphSpec, fields: Collection[str]) -> tuple[str, ...]:
    """The fields in the graph's order."""
    return tuple(field for field in (*graph.channels, *graph.managed) if field in fields)


def nodes_among(graph: GraphSpec, named: Collection[Any]) -> frozenset[str]:
    """The graph's nodes that are named."""
    return frozenset(node for node in graph.nodes if node in named)


def only_nodes(graph: GraphSpec, named: frozenset[Any] | None) -> bool:
    """Whether it is known what is named, and all of it are nodes."""
    return named is not None and named <= graph.nodes.keys()


def listed(names: Collection[str]) -> str:
    """Names as a text."""
    return ", ".join(f"`{name}`" for name in sorted(names))


def description_of(runnable: Any) -> str:
    """What the docstring of a node or a router says, or nothing."""
    functions = functions_of(runnable)
    text = inspect.getdoc(functions[0]) if functions and inspect.isroutine(functions[0]) else None
    return (text or "").strip()[:_LONGEST_DESCRIPTION]
