"""Which state fields each node and router reads and writes, and how that is known.

The result decides how precise labels are: what a node writes gets the labels of all that it reads.
The sources, in order of authority:

1. declared: `NodeOptions(reads=…, writes=…)`
2. source: the function's source code, used only when it is conclusive
3. annotation: a return annotation with a TypedDict other than the state's
4. schema: the fields of the node's own input schema; LangGraph gives it no others
5. everything: all fields, with a warning that names the node

Reads and writes are enforced when a node runs.

The annotations also say which classes a field may hold. Values from the service become objects of
these classes only. The classes are known before the first request, and are the same in each process
that resumes a run.
"""

import dataclasses
import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel

from langchain_sequrity.errors import GraphNotSupported, UnknownAccess, UsageError, warn
from langchain_sequrity.graph.analysis.prebuilt import (
    PrebuiltAccess,
    prebuilt_access,
    response_formats,
)
from langchain_sequrity.graph.analysis.source import (
    ReturnSummary,
    annotated_keys,
    either,
    fields_read,
    functions_of,
    input_hint,
    return_types,
    returns_of_node,
    returns_of_router,
    returns_one_literal,
    sources_of,
    union_of,
    uses_state,
    uses_tool_node,
)
from langchain_sequrity.graph.analysis.spec import ROOT, Branch, GraphSpec, NodeSpec
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import Access, KnownFrom
from langchain_sequrity.sqrt.coerce import INTERNAL_ARGUMENTS, OPEN_TOOLS

_DESCRIPTION_CHARACTERS = 1_000


def whole_state(verb: str, schema: type[Any] | None = None, *, is_router: bool = False) -> str:
    """What to say of a node or a router that reads or writes all fields, as far as is known.

    Args:
        verb: "reads" or "writes".
        schema: For what is read, the schema of the input.
        is_router: Whether it is a router.
    """
    if schema is not None and is_model(schema):
        why = (
            "the whole state, whatever its source shows: the state is a pydantic model, whose "
            "fields are validated together"
        )
        way_out = "Give it a smaller `input_schema`."
    else:
        why = "fields that its source does not show, so it counts as the whole state"
        way_out = f'Declare it: `NodeOptions({verb}=["…"])`.'
    if is_router:
        way_out = "Annotate its first parameter with a TypedDict of the fields that it reads."
    return f"{verb} {why}; labels are imprecise there. {way_out}"


def in_graph_order(graph: GraphSpec, fields: Collection[str]) -> tuple[str, ...]:
    """The fields in the graph's order."""
    return tuple(field for field in (*graph.channels, *graph.managed) if field in fields)


def nodes_among(graph: GraphSpec, names: Collection[Any]) -> frozenset[str]:
    """The graph's nodes that are named."""
    return frozenset(node for node in graph.nodes if node in names)


def only_nodes(graph: GraphSpec, names: frozenset[Any] | None) -> bool:
    """Whether the names are known, and all are nodes."""
    return names is not None and names <= graph.nodes.keys()


def quoted(names: Collection[str]) -> str:
    """Names as a text."""
    return ", ".join(f"`{name}`" for name in sorted(names))


def description_of(runnable: Any) -> str:
    """The docstring of a node or a router, or nothing."""
    functions = functions_of(runnable)
    text = inspect.getdoc(functions[0]) if functions and inspect.isroutine(functions[0]) else None
    return (text or "").strip()[:_DESCRIPTION_CHARACTERS]


def annotations_of_fields(spec: GraphSpec) -> Mapping[str, list[Any]]:
    """State field → its annotations in the schemas and in the nodes that write it."""
    annotations: dict[str, list[Any]] = {field: [] for field in spec.channels}
    for schema in spec.schemas:
        hints = _hints(schema) if hasattr(schema, "__annotations__") else {ROOT: schema}
        _add_annotations(annotations, hints)
    for node in spec.nodes.values():
        for runnable in (node.runnable, node.error_handler):
            for cls in filter(inspect.isclass, return_types(runnable)):
                _add_annotations(annotations, _hints(cls))
        _add_annotations(annotations, response_formats(node.runnable))
    return annotations


def annotations_of_packets(node: NodeSpec) -> list[Any]:
    """The annotations of a node's input, which a `Send` may carry."""
    return [node.input_schema, *map(input_hint, functions_of(node.runnable))]


def _add_annotations(annotations: Mapping[str, list[Any]], hints: Mapping[str, Any]) -> None:
    for field in annotations.keys() & hints.keys():
        annotations[field].append(hints[field])


def _hints(schema: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(schema, include_extras=True)
    except (NameError, TypeError):  # a class that a node returns need not be one of LangGraph's
        return {}


@dataclass(frozen=True)
class StateReader:
    """A node, error handler or router that gets a state.

    Attributes:
        runnable: What runs.
        schema: Schema of its input.
        fields: State fields and managed values of that schema.
    """

    runnable: Any
    schema: type[Any]
    fields: tuple[str, ...]

    @cached_property
    def prebuilt(self) -> PrebuiltAccess | None:
        """Its access, if it is a prebuilt part of LangGraph or LangChain."""
        return prebuilt_access(self.runnable, self.fields, is_dict=self._is_dict)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields that it reads; `None` if unknown."""
        if isinstance(self.runnable, CompiledStateGraph):
            return _read_by_subgraph(self.runnable, self.fields)
        if is_model(self.schema):
            return None
        keys = self.keys
        if keys is None and (prebuilt := self.prebuilt) is not None:
            keys = prebuilt.reads
        if keys is None:
            return None
        # A state that is not a dict of fields is read as a whole, or not at all. To set a key of it
        # changes it in place.
        is_used = bool(keys) or any(map(uses_state, sources_of(self.runnable)))
        keys = frozenset({ROOT}) if self.fields == (ROOT,) and is_used else keys
        return (keys & set(self.fields)) | self.needed

    @cached_property
    def keys(self) -> frozenset[str] | None:
        """The keys that its source reads, fields or not; `None` if unknown."""
        sources = sources_of(self.runnable)
        key_sets = [fields_read(source, self.fields, is_dict=self._is_dict) for source in sources]
        if not key_sets or any(map(uses_tool_node, sources)):
            return None
        return union_of(key_sets)

    @property
    def needed(self) -> frozenset[str]:
        """Fields that LangGraph needs to make an object of the schema.

        Pydantic validates all fields at each node. A dataclass needs those without a default, or
        all if it has a `__post_init__`.
        """
        if is_model(self.schema):
            return frozenset(self.fields)
        if not dataclasses.is_dataclass(self.schema):
            return frozenset()
        if hasattr(self.schema, "__post_init__"):
            return frozenset(self.fields)
        return frozenset(
            field.name
            for field in dataclasses.fields(self.schema)
            if field.name in self.fields
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )

    @property
    def _is_dict(self) -> bool:
        return not (dataclasses.is_dataclass(self.schema) or is_model(self.schema))


def is_model(schema: type[Any]) -> bool:
    """Whether a schema is a pydantic model, all of which LangGraph validates at each node."""
    return inspect.isclass(schema) and issubclass(schema, BaseModel)


def _read_by_subgraph(
    graph: CompiledStateGraph[Any, Any, Any, Any], fields: Collection[str]
) -> frozenset[str] | None:
    """The fields of a subgraph's input schema, as LangGraph drops the rest.

    But routers after its START without a schema of their own see the whole input.
    """
    builder = graph.builder
    if any(branch.input_schema is None for branch in builder.branches.get(START, {}).values()):
        return None
    return frozenset(fields) & builder.schemas[builder.input_schema].keys()


def node_access(graph: GraphSpec, node: NodeSpec, options: NodeOptions) -> Access:
    """The access of a node.

    Args:
        graph: The graph.
        node: One of its nodes.
        options: Its options.

    Raises:
        UsageError: If the options name a field that the node cannot read or write.
    """
    if options.internal_tool is not None:
        return _internal_tool_access(graph, node, options)
    # An error handler gets the input of its node, whatever its own schema is.
    runnables = [r for r in (node.runnable, node.error_handler) if r is not None]
    readers = [StateReader(r, node.input_schema, node.input_fields) for r in runnables]
    returns = either(map(_returns, readers))
    reads, reads_from = _reads(graph, node, options, readers)
    writes, writes_from = _writes(graph, node, options, returns)
    ends = frozenset(node.ends) if node.ends else None
    targets = returns.targets
    is_sure = node.error_handler is None and writes_from == "source"
    if writes_from == "everything" and len(graph.channels) > 1:
        warn(f"Node {node.name!r} {whole_state('writes')}", UnknownAccess)
    if reads_from == "everything" and len(reads) > 1:
        warn(f"Node {node.name!r} {whole_state('reads', node.input_schema)}", UnknownAccess)
    return Access(
        reads=in_graph_order(graph, reads),
        writes=writes,
        definite=frozenset(writes) & (returns.definite or frozenset()) if is_sure else frozenset(),
        reads_from=reads_from,
        writes_from=writes_from,
        targets=ends if targets is None else nodes_among(graph, targets),
        sends=ends if returns.sends is None else nodes_among(graph, returns.sends),
        single=returns.max_targets <= 1,
        may_end=returns.min_targets == 0 or not only_nodes(graph, returns.targets),
        overwrites=returns.overwrites,
        description=description_of(node.runnable),
    )


def _returns(reader: StateReader) -> ReturnSummary:
    """The possible returns of a node or of its error handler."""
    returns = returns_of_node(reader.runnable)
    if returns.keys is None and (prebuilt := reader.prebuilt) is not None:
        return prebuilt.returns
    return returns


def _reads(
    graph: GraphSpec, node: NodeSpec, options: NodeOptions, readers: list[StateReader]
) -> tuple[Collection[str], KnownFrom]:
    everything = {field for reader in readers for field in reader.fields}
    if options.reads is not None:
        _check_fields(node, "reads", options.reads, everything)
        needed = {field for reader in readers for field in reader.needed}
        if missing := needed - set(options.reads):
            msg = (
                f"`NodeOptions(reads=…)` of node {node.name!r} leaves out {quoted(missing)}, which "
                f"its input schema needs to be made. Give the node a smaller `input_schema`, or "
                "add the fields."
            )
            raise UsageError(msg)
        return options.reads, "declared"
    reads = union_of(reader.reads for reader in readers)
    if reads is not None:
        return reads, "source"
    has_own_schema = node.input_schema is not graph.state_schema
    return everything, "schema" if has_own_schema else "everything"


def _writes(
    graph: GraphSpec, node: NodeSpec, options: NodeOptions, returns: ReturnSummary
) -> tuple[tuple[str, ...], KnownFrom]:
    if options.writes is not None:
        _check_fields(node, "writes", options.writes, graph.channels)
        return tuple(field for field in graph.channels if field in options.writes), "declared"
    if list(graph.channels) == [ROOT]:
        return (ROOT,), "schema"
    if returns.keys is not None:
        return tuple(field for field in graph.channels if field in returns.keys), "source"
    annotated = annotated_keys(node.runnable, graph.state_schema)
    if annotated is not None and node.error_handler is None:
        return tuple(field for field in graph.channels if field in annotated), "annotation"
    return tuple(graph.channels), "everything"


def _internal_tool_access(graph: GraphSpec, node: NodeSpec, options: NodeOptions) -> Access:
    """The access of one of the service's own tools in place of a node: all of it is declared."""
    if options.reads is None or options.writes is None or len(options.writes) != 1:
        msg = (
            f"Node {node.name!r} is the internal tool `{options.internal_tool}`: declare its "
            "parameters and the one field for its result, as in "
            '`NodeOptions(reads=["query", "output_schema"], writes=["answer"], internal_tool=…)`.'
        )
        raise UsageError(msg)
    _check_parameters(node, str(options.internal_tool), options.reads)
    _check_fields(node, "reads", options.reads, node.input_fields)
    _check_fields(node, "writes", options.writes, graph.channels)
    return Access(
        reads=in_graph_order(graph, options.reads),
        writes=options.writes,
        definite=frozenset(options.writes),
    )


def _check_parameters(node: NodeSpec, tool: str, reads: Collection[str]) -> None:
    """Check the fields that an internal tool reads: they are its parameters, by name."""
    needed = INTERNAL_ARGUMENTS[tool]
    is_complete = set(needed) <= set(reads) if tool in OPEN_TOOLS else set(needed) == set(reads)
    if not is_complete and tool != "complete_turn":  # which may end a turn with any values
        msg = (
            f"Node {node.name!r} is the internal tool `{tool}`, which takes {quoted(needed)}, and "
            f"its `reads` are {quoted(reads) or 'empty'}. Its parameters are state fields of these "
            f"names: add them to the state and write `NodeOptions(reads={list(needed)!r}, …)`."
        )
        raise UsageError(msg)


def _check_fields(
    node: NodeSpec, option: str, fields: Iterable[str], allowed: Collection[str]
) -> None:
    if unknown := set(fields) - set(allowed):
        msg = (
            f"`NodeOptions({option}=…)` of node {node.name!r} names {quoted(unknown)}; it can be "
            f"one of {quoted(allowed)}."
        )
        raise UsageError(msg)


def router_access(graph: GraphSpec, branch: Branch) -> Access:
    """The access of a router.

    Args:
        graph: The graph.
        branch: One of its conditional edges.

    Raises:
        GraphNotSupported: If it reads something that its node returned besides the state.
    """
    reader = StateReader(branch.path, branch.input_schema, branch.input_fields)
    keys = reader.keys
    if keys is not None and not branch.is_typed:
        _check_no_passthrough(graph, branch, keys)
    known_reads = reader.reads
    reads = branch.input_fields if known_reads is None else known_reads
    returns = returns_of_router(branch.path)
    if known_reads is None and len(reads) > 1:
        whole = whole_state("reads", branch.input_schema, is_router=True)
        warn(f"The router {branch.name!r} after {branch.source!r} {whole}", UnknownAccess)
    names = _router_targets(branch, returns)
    targets = None if names is None else nodes_among(graph, names)
    # A Literal means one name, and its function returns no Send.
    is_literal = returns.sends == frozenset() and returns_one_literal(branch.path)
    return Access(
        reads=in_graph_order(graph, reads),
        reads_from="everything" if known_reads is None else "source",
        writes_from="source",
        targets=targets,
        sends=_sends(graph, branch, returns, targets),
        single=returns.max_targets <= 1 or is_literal,
        may_end=(returns.min_targets == 0 and not is_literal) or not only_nodes(graph, names),
        description=description_of(branch.path),
    )


def field_router_of(branch: Branch) -> FieldRouter | None:
    """The `FieldRouter` behind a conditional edge, if it is one."""
    functions = functions_of(branch.path)
    return functions[0] if len(functions) == 1 and isinstance(functions[0], FieldRouter) else None


def _check_no_passthrough(graph: GraphSpec, branch: Branch, keys: frozenset[str]) -> None:
    """Refuse a router that reads more than state fields: LangGraph shows it all of the return."""
    extra = keys - set(branch.input_fields)
    if branch.source != START and extra:
        returned = returns_of_node(graph.nodes[branch.source].runnable).keys
        extra = extra if returned is None else extra & returned
    if extra:
        msg = (
            f"The router {branch.name!r} after {branch.source!r} reads {quoted(extra)}, which the "
            f"input schema of {branch.source!r} does not have: LangGraph passes it on from what "
            "the node returned. Make it a state field if it is not one yet. Annotate the router's "
            "parameter with a schema that has the field."
        )
        raise GraphNotSupported(msg, edge=(branch.source, branch.name))


def _sends(
    graph: GraphSpec, branch: Branch, returns: ReturnSummary, targets: frozenset[str] | None
) -> frozenset[str] | None:
    """The nodes to which a router may send packets: those of its path map, or any."""
    if returns.sends is not None:
        return nodes_among(graph, returns.sends)
    return None if branch.ends is None else targets


def _router_targets(branch: Branch, returns: ReturnSummary) -> frozenset[str] | None:
    """The targets of a router, after its path map."""
    if branch.ends is None:
        return returns.targets
    if returns.targets is None:
        return frozenset(branch.ends.values())
    return frozenset(branch.ends[answer] for answer in returns.targets if answer in branch.ends)
