"""What a node reads and writes: see `access`."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import OUTPUT_SCHEMA, PARSE_WITH_AI
from langchain_sequrity.graph.reading.access import (
    Access,
    From,
    description_of,
    listed,
    nodes_among,
    only_nodes,
    ordered,
    warn_of_model,
    warn_unknown,
)
from langchain_sequrity.graph.reading.answer import Answer, either
from langchain_sequrity.graph.reading.answers import annotated_keys, answer_of_node
from langchain_sequrity.graph.reading.readers import Reader, is_model
from langchain_sequrity.graph.reading.spec import GraphSpec, NodeSpec

_ROOT = "__root__"


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
