"""Which state fields each node and router reads and writes, and how that is known.

This decides what labels can tell apart. A node that reads the whole state gives everything it
writes the labels of the whole state. In order of authority:

1. declared: `NodeOptions(reads=…, writes=…)`
2. source: what the function's source shows; it is believed only where nothing is left open
3. annotation: a return annotation that is a TypedDict of its own
4. schema: the fields of the node's own input schema, which LangGraph gives it no more of
5. everything: all fields, with a warning that names the node

What a node reads and writes is enforced when it runs.

Only classes that are named there are ever made of what the service says. They are known before
anything is sent, and are the same in each process that resumes a run.
"""

import dataclasses
import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_type_hints

from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel

from langchain_sequrity.errors import GraphNotSupported, UnknownAccess, UsageError, warn
from langchain_sequrity.graph.analysis.prebuilt import Known, known, response_formats
from langchain_sequrity.graph.analysis.reads import fields_read, uses_tool_node
from langchain_sequrity.graph.analysis.returns import (
    Answer,
    annotated_keys,
    answer_of_node,
    answer_of_router,
    either,
    names_one,
    return_kinds,
)
from langchain_sequrity.graph.analysis.source import functions_of, input_hint, sources_of
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec, NodeSpec
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import OUTPUT_SCHEMA, PARSE_WITH_AI

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


_ROOT = "__root__"


def of_fields(spec: GraphSpec) -> Mapping[str, list[Any]]:
    """State field → what the schemas say about it, and the nodes that write it."""
    found: dict[str, list[Any]] = {field: [] for field in spec.channels}
    for schema in spec.schemas:
        hints = _hints(schema) if hasattr(schema, "__annotations__") else {_ROOT: schema}
        _add(found, hints)
    for node in spec.nodes.values():
        for runnable in (node.runnable, node.error_handler):
            for kind in filter(inspect.isclass, return_kinds(runnable)):
                _add(found, _hints(kind))
        _add(found, response_formats(node.runnable))
    return found


def of_packets(node: NodeSpec) -> list[Any]:
    """What a node says about its input, which a `Send` may carry."""
    return [node.input_schema, *map(input_hint, functions_of(node.runnable))]


def _add(found: Mapping[str, list[Any]], hints: Mapping[str, Any]) -> None:
    for field in found.keys() & hints.keys():
        found[field].append(hints[field])


def _hints(schema: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(schema, include_extras=True)
    except (NameError, TypeError):  # a class that a node returns need not be one of LangGraph's
        return {}


ROOT = "__root__"
"""Name of the one channel of a state that is no dict of fields."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Something that gets a state.

    Attributes:
        runnable: What runs.
        schema: Schema of its input.
        fields: State fields and managed values of that schema.
    """

    runnable: Any
    schema: type[Any]
    fields: tuple[str, ...]

    @property
    def known(self) -> Known | None:
        """What is known of it, if LangGraph or LangChain brought it along."""
        return known(self.runnable, self.fields, is_dict=self._is_dict)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields that it reads; `None` if that cannot be told."""
        if isinstance(self.runnable, CompiledStateGraph):
            return _read_by_subgraph(self.runnable, self.fields)
        if is_model(self.schema):
            return None
        keys = self.keys
        if keys is None and (prebuilt := self.known) is not None:
            keys = prebuilt.reads
        if keys is None:
            return None
        # A state that is no dict of fields is read as a whole, or not at all.
        named = frozenset({ROOT}) if self.fields == (ROOT,) and keys else keys
        return (named & set(self.fields)) | self.needed

    @property
    def keys(self) -> frozenset[str] | None:
        """What its source shows to be read, fields or not."""
        sources = sources_of(self.runnable)
        found = [fields_read(one, self.fields, is_dict=self._is_dict) for one in sources]
        if not found or None in found or any(map(uses_tool_node, sources)):
            return None
        return frozenset(key for one in found if one is not None for key in one)

    @property
    def needed(self) -> frozenset[str]:
        """Fields without which an object of the schema cannot be made as LangGraph makes it.

        Pydantic validates all of them at each node. A dataclass needs those without a default, and
        all where code of its own runs when it is made.
        """
        if is_model(self.schema):
            return frozenset(self.fields)
        if not dataclasses.is_dataclass(self.schema):
            return frozenset()
        if hasattr(self.schema, "__post_init__"):
            return frozenset(self.fields)
        return frozenset(
            one.name
            for one in dataclasses.fields(self.schema)
            if one.name in self.fields
            and one.default is dataclasses.MISSING
            and one.default_factory is dataclasses.MISSING
        )

    @property
    def _is_dict(self) -> bool:
        return not (dataclasses.is_dataclass(self.schema) or is_model(self.schema))


def is_model(schema: type[Any]) -> bool:
    """Whether a schema is a pydantic model: LangGraph validates all of it at each node."""
    return inspect.isclass(schema) and issubclass(schema, BaseModel)


def _read_by_subgraph(
    graph: CompiledStateGraph[Any, Any, Any, Any], fields: Collection[str]
) -> frozenset[str] | None:
    """A subgraph takes the fields of its input schema and drops the rest.

    But routers after its START that have no schema of their own see all that came in.
    """
    builder = graph.builder
    if any(branch.input_schema is None for branch in builder.branches.get(START, {}).values()):
        return None
    return frozenset(fields) & builder.schemas[builder.input_schema].keys()


class _Parameters(NamedTuple):
    """What one of the service's own tools takes (`docs/protocol.md`, LangGraph endpoint)."""

    needed: tuple[str, ...]
    takes_more: bool = False


_PARAMETERS = {
    PARSE_WITH_AI: _Parameters(("query", OUTPUT_SCHEMA)),
    # Further ones bring the values that the hypothesis names.
    "verify_hypothesis": _Parameters(("hypothesis",), takes_more=True),
    "set_policy": _Parameters(("policy",)),
    "complete_turn": _Parameters((), takes_more=True),
}


def node_access(graph: GraphSpec, node: NodeSpec, options: NodeOptions) -> Access:
    """What a node does.

    Args:
        graph: The graph.
        node: One of its nodes.
        options: What the user says about it.

    Raises:
        UsageError: If the options name a field that the node cannot read or write.
    """
    if options.internal_tool is not None:
        return _internal(graph, node, options)
    # An error handler gets what its node got, whatever its own schema is.
    runnables = [one for one in (node.runnable, node.error_handler) if one is not None]
    readers = [Reader(one, node.input_schema, node.input_fields) for one in runnables]
    answer = either(map(_answer, readers))
    reads, reads_from = _reads(graph, node, options, readers)
    writes, writes_from = _writes(graph, node, options, answer)
    ends = frozenset(node.ends) if node.ends else None
    known = answer.targets
    is_sure = node.error_handler is None and writes_from == "source"
    if writes_from == "everything" and len(graph.channels) > 1:
        warn_unknown(f"Node {node.name!r} writes", 'Declare it: `NodeOptions(writes=["…"])`.')
    if reads_from == "everything" and len(reads) > 1:
        if is_model(node.input_schema):
            warn_of_model(f"Node {node.name!r} reads", "Give it a smaller `input_schema`.")
        else:
            warn_unknown(f"Node {node.name!r} reads", 'Declare it: `NodeOptions(reads=["…"])`.')
    return Access(
        reads=ordered(graph, reads),
        writes=writes,
        definite=frozenset(writes) & (answer.sure or frozenset()) if is_sure else frozenset(),
        reads_from=reads_from,
        writes_from=writes_from,
        targets=ends if known is None else nodes_among(graph, known),
        sends=ends if answer.sends is None else nodes_among(graph, answer.sends),
        single=answer.most <= 1,
        may_end=answer.least == 0 or not only_nodes(graph, answer.targets),
        overwrites=answer.overwrites,
        description=description_of(node.runnable),
    )


def _answer(reader: Reader) -> Answer:
    """What a node or its error handler may return."""
    answer = answer_of_node(reader.runnable)
    if answer.keys is None and (prebuilt := reader.known) is not None:
        return prebuilt.answer
    return answer


def _reads(
    graph: GraphSpec, node: NodeSpec, options: NodeOptions, readers: list[Reader]
) -> tuple[Collection[str], From]:
    everything = {field for one in readers for field in one.fields}
    if options.reads is not None:
        _check_fields(node, "reads", options.reads, everything)
        needed = {field for one in readers for field in one.needed}
        if missing := needed - set(options.reads):
            msg = (
                f"`NodeOptions(reads=…)` of node {node.name!r} leaves out {listed(missing)}, which "
                f"its input schema needs to be made. Give the node a smaller `input_schema`, or "
                "add the fields."
            )
            raise UsageError(msg)
        return options.reads, "declared"
    found = [one.reads for one in readers]
    if None not in found:
        return {field for one in found if one is not None for field in one}, "source"
    is_own = node.input_schema is not graph.state_schema
    return everything, "schema" if is_own else "everything"


def _writes(
    graph: GraphSpec, node: NodeSpec, options: NodeOptions, answer: Answer
) -> tuple[tuple[str, ...], From]:
    if options.writes is not None:
        _check_fields(node, "writes", options.writes, graph.channels)
        return tuple(field for field in graph.channels if field in options.writes), "declared"
    if list(graph.channels) == [_ROOT]:
        return (_ROOT,), "schema"
    if answer.keys is not None:
        return tuple(field for field in graph.channels if field in answer.keys), "source"
    annotated = annotated_keys(node.runnable, graph.state_schema)
    if annotated is not None and node.error_handler is None:
        return tuple(field for field in graph.channels if field in annotated), "annotation"
    return tuple(graph.channels), "everything"


def _internal(graph: GraphSpec, node: NodeSpec, options: NodeOptions) -> Access:
    """One of the service's own tools in place of a node: all about it is declared."""
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
        reads=ordered(graph, options.reads),
        writes=options.writes,
        definite=frozenset(options.writes),
        reads_from="declared",
        writes_from="declared",
        targets=frozenset(),
        sends=frozenset(),
        single=True,
        may_end=True,
        overwrites=False,
        description="",
    )


def _check_parameters(node: NodeSpec, tool: str, reads: Collection[str]) -> None:
    """Check the fields that an internal tool gets: they are its parameters, by name."""
    parameters = _PARAMETERS[tool]
    if missing := [name for name in parameters.needed if name not in reads]:
        needed = " and ".join(f"`{name}`" for name in parameters.needed)
        msg = (
            f"Node {node.name!r} is the internal tool `{tool}`, which needs {needed}, and its "
            f"`reads` lack {listed(missing)}. Its parameters are state fields of these names: add "
            f"them to the state and write `NodeOptions(reads={list(parameters.needed)!r}, …)`."
        )
        raise UsageError(msg)
    if not parameters.takes_more and (more := set(reads) - set(parameters.needed)):
        msg = (
            f"Node {node.name!r} is the internal tool `{tool}`, which takes no {listed(more)}: "
            f"write `NodeOptions(reads={list(parameters.needed)!r}, …)`. All that it is to know "
            "goes into these fields."
        )
        raise UsageError(msg)


def _check_fields(
    node: NodeSpec, option: str, given: Iterable[str], possible: Collection[str]
) -> None:
    if unknown := set(given) - set(possible):
        msg = (
            f"`NodeOptions({option}=…)` of node {node.name!r} names {listed(unknown)}; it can be "
            f"one of {listed(possible)}."
        )
        raise UsageError(msg)


def router_access(graph: GraphSpec, branch: Branch) -> Access:
    """What a router does.

    Args:
        graph: The graph.
        branch: One of its conditional edges.

    Raises:
        GraphNotSupported: If it looks at something that its node returned beside the state.
    """
    reader = Reader(branch.path, branch.schema, branch.input_fields)
    keys = reader.keys
    if keys is not None and not branch.is_typed:
        _check_no_passthrough(graph, branch, keys)
    found = reader.reads
    reads = branch.input_fields if found is None else found
    answer = answer_of_router(branch.path)
    if found is None and len(reads) > 1:
        place = f"The router {branch.name!r} after {branch.source!r} reads"
        warn = warn_of_model if is_model(branch.schema) else warn_unknown
        warn(place, "Annotate its first parameter with a TypedDict of the fields that it reads.")
    named = _named(branch, answer)
    targets = None if named is None else nodes_among(graph, named)
    # A Literal says one name, and what its function returns is no Send.
    is_literal = answer.sends == frozenset() and names_one(branch.path)
    return Access(
        reads=ordered(graph, reads),
        writes=(),
        definite=frozenset(),
        reads_from="everything" if found is None else "source",
        writes_from="source",
        targets=targets,
        sends=_sends(graph, branch, answer, targets),
        single=answer.most <= 1 or is_literal,
        may_end=(answer.least == 0 and not is_literal) or not only_nodes(graph, named),
        overwrites=False,
        description=description_of(branch.path),
    )


def field_router_of(branch: Branch) -> FieldRouter | None:
    """The `FieldRouter` behind a conditional edge, if it is one."""
    found = functions_of(branch.path)
    return found[0] if len(found) == 1 and isinstance(found[0], FieldRouter) else None


def _check_no_passthrough(graph: GraphSpec, branch: Branch, keys: frozenset[str]) -> None:
    """LangGraph shows such a router also what its node returned beside state fields."""
    extra = keys - set(branch.input_fields)
    if branch.source != START and extra:
        returned = answer_of_node(graph.nodes[branch.source].runnable).keys
        extra = extra if returned is None else extra & returned
    if hidden := extra & (graph.channels.keys() | graph.managed.keys()):
        msg = (
            f"The router {branch.name!r} after {branch.source!r} reads {listed(hidden)}, which the "
            f"input schema of {branch.source!r} does not have, and a router without an annotation "
            "has the schema of its node. Annotate its parameter with a schema that has the field."
        )
        raise GraphNotSupported(msg, edge=(branch.source, branch.name))
    if extra:
        msg = (
            f"The router {branch.name!r} after {branch.source!r} reads {listed(extra)}, which is "
            "no field of the state: LangGraph passes it on from what the node returned. Make it a "
            "field of the state."
        )
        raise GraphNotSupported(msg, edge=(branch.source, branch.name))


def _sends(
    graph: GraphSpec, branch: Branch, answer: Answer, targets: frozenset[str] | None
) -> frozenset[str] | None:
    """The nodes to which a router may send packets: those of its path map, else any."""
    if answer.sends is not None:
        return nodes_among(graph, answer.sends)
    return None if branch.ends is None else targets


def _named(branch: Branch, answer: Answer) -> frozenset[str] | None:
    """What a router may name, after its path map."""
    if branch.ends is None:
        return answer.targets
    if answer.targets is None:
        return frozenset(branch.ends.values())
    return frozenset(branch.ends[one] for one in answer.targets if one in branch.ends)
