"""Each graph of the catalogue ends in the executor as it does in LangGraph."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command

from langchain_sequrity import ChatSequrity
from tests.graph.graphs import SHAPES
from tests.graph.outcome import describe, outcome
from tests.graph.running import compiled, outcomes, secured
from tests.graph.shape import Maker, Shape


def _is_builder(make: Maker) -> bool:
    return isinstance(make().graph, StateGraph)


each_shape = pytest.mark.parametrize("name", SHAPES)


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
@each_shape
def test_a_graph_ends_as_in_langgraph_and_its_builder_is_not_changed(
    name: str, in_loop: bool, model: ChatSequrity
) -> None:
    expected = outcomes(SHAPES[name](), compiled, in_loop=in_loop)
    shape = SHAPES[name]()
    before = _snapshot(builder_of(shape))
    actual = outcomes(shape, lambda graph: secured(graph, model, shape.nodes), in_loop=in_loop)
    assert actual == expected, [one.message for one in actual]
    assert _snapshot(builder_of(shape)) == before


def builder_of(shape: Shape) -> Any:
    return shape.graph if isinstance(shape.graph, StateGraph) else shape.graph.builder


def _snapshot(value: Any) -> Any:
    """The builder's attributes, with its own containers copied."""
    if isinstance(value, StateGraph):
        return {name: _snapshot(one) for name, one in vars(value).items()}
    if isinstance(value, dict):
        return {key: _snapshot(one) for key, one in value.items()}
    return value.copy() if isinstance(value, set | list) else value


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("name", [name for name, make in SHAPES.items() if _is_builder(make)])
def test_a_graph_that_is_a_node_of_another_ends_as_in_langgraph(
    name: str, model: ChatSequrity
) -> None:
    expected = outcomes(SHAPES[name](), lambda graph: _parent(graph, compiled(graph)))
    shape = SHAPES[name]()
    actual = outcomes(shape, lambda graph: _parent(graph, secured(graph, model, shape.nodes)))
    assert actual == expected, [one.message for one in actual]


def _parent(builder: Any, child: Any) -> Any:
    """A graph with the same schemas and this one node."""
    graph: Any = StateGraph(
        builder.state_schema,
        context_schema=builder.context_schema,
        input_schema=builder.input_schema,
        output_schema=builder.output_schema,
    )
    graph.add_node("child", child)
    return graph.add_edge(START, "child").compile()


@pytest.mark.long(sample=5)
@each_shape
def test_updates_are_streamed_as_in_langgraph(name: str, model: ChatSequrity) -> None:
    expected = _updates(SHAPES[name](), compiled)
    shape = SHAPES[name]()
    assert _updates(shape, lambda graph: secured(graph, model, shape.nodes)) == expected


def _updates(shape: Shape, make: Callable[[Any], Any]) -> list[tuple[str | None, list[str]]]:
    """The updates of each run, sorted, because nodes of one step run in parallel."""
    graph = make(shape.graph)
    found = []
    for value in shape.inputs:
        updates: list[str] = []
        run = partial(_stream, graph, value, shape, updates)
        ended = outcome(run)
        # Which nodes of a failed step still run is a race.
        found.append((ended.error, [] if ended.error else sorted(updates)))
    return found


def _stream(graph: Any, value: Any, shape: Shape, updates: list[str]) -> None:
    options: Any = {"config": dict(shape.config), "context": shape.context}
    stream = graph.stream(value, stream_mode="updates", **options)
    for update in stream:
        for written in update.values():
            if isinstance(written, dict) and "messages" in written:
                # `add_messages` gives messages their ids, as a channel does.
                written["messages"] = add_messages([], written["messages"])
        updates.append(repr(describe(update)))


@pytest.mark.long(sample=21)
@each_shape
def test_the_same_graph_always_has_the_same_program(name: str, model: ChatSequrity) -> None:
    first, second = SHAPES[name](), SHAPES[name]()
    assert (
        secured(first.graph, model, first.nodes).program
        == secured(second.graph, model, second.nodes).program
    )


def test_a_command_as_input_leads_to_the_same_node_as_in_langgraph(model: ChatSequrity) -> None:
    plain, executor = SHAPES["chain"]().graph.compile(), secured(SHAPES["chain"]().graph, model)
    assert executor.invoke(Command(goto="b")) == plain.invoke(Command(goto="b"))
