"""A user's graph as data, read from its builder without changing the builder.

`compile` and `validate` change a builder, and `compile` adds a node for a default error handler. So
neither is called on it.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from langgraph.channels.base import BaseChannel
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from langchain_sequrity import _compat
from langchain_sequrity.errors import GraphNotSupported
from langchain_sequrity.graph.program import OWN_PREFIX, Join, is_executor_name
from langchain_sequrity.labels import ALL, RESERVED_PREFIX

ROOT = "__root__"
"""Name of the one channel of a state that is not a dict of fields."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node, with the graph's defaults applied.

    Attributes:
        name: LangGraph's name.
        runnable: What runs.
        input_schema: Schema of its input.
        input_fields: State fields and managed values of that schema, in its order.
        ends: Declared targets of its `Command`, without END.
        defer: Whether it waits until all other nodes are done.
        cache_policy: As in LangGraph, with the graph's default.
        trace_policy: As in LangGraph.
        error_handler: What runs when the node fails, with the input of the node; `None` without.
    """

    name: str
    runnable: Any
    input_schema: type[Any]
    input_fields: tuple[str, ...]
    ends: tuple[str, ...]
    defer: bool
    cache_policy: Any
    trace_policy: Any
    error_handler: Any


class Branch(NamedTuple):
    """One conditional edge.

    Attributes:
        source: The node before it, or START.
        name: Its name in LangGraph.
        path: The router.
        ends: Answer of the router → node or END; `None` if that is not declared.
        input_fields: State fields and managed values of its schema.
        input_schema: Schema of its input.
        is_typed: Whether the schema is its own. If not, it also sees all that its node returned.
    """

    source: str
    name: str
    path: Any
    ends: dict[Any, str] | None
    input_fields: tuple[str, ...]
    input_schema: type[Any]
    is_typed: bool


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A user's graph as data, in an order that does not depend on hashes.

    Attributes:
        nodes: By name, in the order in which they were added, without error handlers.
        edges: Pairs, sorted; START and END as LangGraph names them.
        joins: Edges from several nodes, sorted.
        branches: Conditional edges in the order in which they were added.
        channels: State field → channel.
        managed: State field → kind of managed value.
        schemas: Schema → its fields.
        builder: The user's builder. It is never changed.
        name: Name of the graph.
    """

    nodes: dict[str, NodeSpec]
    edges: tuple[tuple[str, str], ...]
    joins: tuple[Join, ...]
    branches: tuple[Branch, ...]
    channels: dict[str, BaseChannel[Any, Any, Any]]
    managed: dict[str, Any]
    schemas: dict[type[Any], tuple[str, ...]]
    state_schema: type[Any]
    output_schema: type[Any]
    builder: StateGraph[Any, Any, Any, Any]
    name: str

    def reader(self, node: str, router: str | None) -> NodeSpec | Branch:
        """A node, or the router of this name after it: what gets a state."""
        if router is None:
            return self.nodes[node]
        return next(b for b in self.branches if (b.source, b.name) == (node, router))


def read_graph(graph: Any) -> GraphSpec:
    """Read a graph.

    Args:
        graph: A `StateGraph`, compiled or not.

    Returns:
        The graph as data.

    Raises:
        GraphNotSupported: If it is not a `StateGraph`, or has a managed value that only
            LangGraph's own loop can give.
        ValueError: As LangGraph, for example for an edge to an unknown node.
    """
    compiled = graph if isinstance(graph, CompiledStateGraph) else None
    builder = compiled.builder if compiled is not None else graph
    if not isinstance(builder, StateGraph):
        msg = (
            "A graph must be a `StateGraph`, compiled or not; got "
            f"{type(graph).__name__}. Make another runnable the node of a graph: "
            "`StateGraph(State).add_node('run', runnable)`."
        )
        raise GraphNotSupported(msg)
    copy.copy(builder).validate()  # which changes the builder
    _check_managed(builder.managed)
    _check_names(builder)
    schemas = {schema: tuple(fields) for schema, fields in builder.schemas.items()}
    return GraphSpec(
        nodes={node.name: node for node in _nodes(builder, schemas)},
        edges=tuple(sorted((_text(start), _text(end)) for start, end in builder.edges)),
        joins=tuple(
            sorted(Join(tuple(map(_text, s)), _text(end)) for s, end in builder.waiting_edges)
        ),
        branches=tuple(_branches(builder, schemas)),
        channels=dict(builder.channels),
        managed=dict(builder.managed),
        schemas=schemas,
        state_schema=builder.state_schema,
        output_schema=builder.output_schema,
        builder=builder,
        name=compiled.name if compiled is not None else "LangGraph",
    )


def _check_names(builder: StateGraph[Any, Any, Any, Any]) -> None:
    """Refuse names that cannot be labels of results, and names of the executor."""
    for name in builder.nodes:
        # The handlers that LangGraph adds have such names, but they are no labels.
        is_handler = builder.nodes[name].is_error_handler
        if not is_handler and (name.startswith(RESERVED_PREFIX) or name == ALL):
            msg = (
                f"The results of node {name!r} are labelled with its name, and labels that start "
                f"with `{RESERVED_PREFIX}` or are `{ALL}` belong to the service. Rename the node."
            )
            raise GraphNotSupported(msg, node=name)
    for field in (*builder.channels, *builder.managed):
        if is_executor_name(field):
            msg = (
                f"The name of field {field!r} starts with `{OWN_PREFIX}`, which is reserved for "
                "the executor. Rename the field."
            )
            raise GraphNotSupported(msg)


def _check_managed(managed: Mapping[str, Any]) -> None:
    for field, spec in managed.items():
        if spec not in _compat.STEP_COUNTERS:
            msg = (
                f"Field `{field}` is the managed value {getattr(spec, '__name__', spec)}, which "
                "only LangGraph's own loop can give. `RemainingSteps` and `IsLastStep` work; "
                "make anything else an ordinary field, or read it from the runtime context."
            )
            raise GraphNotSupported(msg)


def _nodes(
    builder: StateGraph[Any, Any, Any, Any], schemas: Mapping[type[Any], tuple[str, ...]]
) -> Iterator[NodeSpec]:
    defaults = _compat.node_defaults(builder)
    for node, spec in builder.nodes.items():
        if spec.is_error_handler:
            continue
        name = _text(node)
        if (spec.timeout or defaults.timeout) is not None:
            _compat.check_timeout(spec.runnable, name)
        yield NodeSpec(
            name=name,
            runnable=spec.runnable,
            input_schema=spec.input_schema,
            input_fields=schemas[spec.input_schema],
            ends=tuple(_text(end) for end in spec.ends or () if end in builder.nodes),
            defer=spec.defer,
            cache_policy=spec.cache_policy or defaults.cache_policy,
            trace_policy=spec.trace_policy,
            error_handler=_handler(builder, spec, defaults.error_handler),
        )


def _text(name: str) -> str:
    """A name as plain text; a member of a `str` enum prints differently."""
    return str.__str__(name)


def _handler(builder: StateGraph[Any, Any, Any, Any], spec: Any, default: Any) -> Any:
    if spec.error_handler_node in builder.nodes:
        return builder.nodes[spec.error_handler_node].runnable
    return None if default is None else _compat.default_error_handler(default)


def _branches(
    builder: StateGraph[Any, Any, Any, Any], schemas: Mapping[type[Any], tuple[str, ...]]
) -> Iterator[Branch]:
    for source, branches in builder.branches.items():
        node = builder.nodes.get(source)
        inherited = node.input_schema if node is not None else builder.state_schema
        for name, branch in branches.items():
            schema = branch.input_schema or inherited
            ends = {key: _text(end) for key, end in (branch.ends or {}).items()}
            yield Branch(
                source=_text(source),
                name=name,
                path=branch.path,
                ends=ends or None,
                input_fields=schemas[schema],
                input_schema=schema,
                is_typed=branch.input_schema is not None,
            )
