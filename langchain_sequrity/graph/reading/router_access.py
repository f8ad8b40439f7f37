"""What a router reads, and where it may go: see `access`."""

from langgraph.graph import START

from langchain_sequrity.errors import GraphNotSupported
from langchain_sequrity.graph.options import FieldRouter
from langchain_sequrity.graph.reading.access import (
    Access,
    description_of,
    listed,
    nodes_among,
    only_nodes,
    ordered,
    warn_of_model,
    warn_unknown,
)
from langchain_sequrity.graph.reading.answer import Answer
from langchain_sequrity.graph.reading.answers import answer_of_node, answer_of_router, names_one
from langchain_sequrity.graph.reading.readers import Reader, is_model
from langchain_sequrity.graph.reading.source import functions_of
from langchain_sequrity.graph.reading.spec import Branch, GraphSpec


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
