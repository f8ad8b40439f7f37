"""Values of the service become objects only of classes that the user's code names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from langchain_sequrity.graph.analysis.reads_and_writes import (
    annotations_of_fields,
    annotations_of_packets,
)
from langchain_sequrity.graph.analysis.spec import GraphSpec, read_graph
from langchain_sequrity.graph.codec.values import allowed_types
from tests.graph.apps.scripted import following
from tests.graph.running import secured


class Report(BaseModel):
    city: str


class Inner(BaseModel):
    size: int


class Order(BaseModel):
    inner: Inner


@dataclass
class Failure:
    reason: str


class State(TypedDict, total=False):
    anything: Any
    other: Any


def classes(spec: GraphSpec, field: str) -> set[type]:
    """The classes that a field may hold."""
    return set(allowed_types(annotations_of_fields(spec)[field]).classes)


AGENTS: list[tuple[Any, set[type]]] = [
    (None, set()),
    (Report, {Report}),
    (ToolStrategy(Report), {Report}),
    (ProviderStrategy(Report), {Report}),
    (AutoStrategy(Report), {Report}),
    (ToolStrategy(Report | Failure), {Report, Failure}),
    (ToolStrategy(Order), {Order, Inner}),
    ({"title": "Report", "type": "object", "properties": {}}, set()),
]


@pytest.mark.parametrize(("told", "expected"), AGENTS, ids=[str(n) for n in range(len(AGENTS))])
def test_the_response_format_of_an_agent_names_the_classes_of_its_response(
    told: Any, expected: set[type]
) -> None:
    spec = read_graph(create_agent(following("hi"), response_format=told))
    assert classes(spec, "structured_response") == expected
    assert classes(spec, "jump_to") == set()


def test_a_return_annotation_names_the_classes_of_its_fields() -> None:
    class Update(TypedDict, total=False):
        anything: Report
        nowhere: Failure

    def node(state: State) -> Update | None:
        return {"anything": Report(city=str(state["other"]))}

    spec = read_graph(StateGraph(State).add_node("a", node).add_edge(START, "a"))
    assert (classes(spec, "anything"), classes(spec, "other")) == ({Report}, set())


def test_an_annotation_that_cannot_be_resolved_names_no_class() -> None:
    def node(state: State) -> Any:
        return state

    node.__annotations__ = {"state": "Nobody", "return": "Nothing"}
    graph = StateGraph(State).add_node("a", node, input_schema=State).add_edge(START, "a")
    spec = read_graph(graph)
    assert classes(spec, "anything") == set()
    assert annotations_of_packets(spec.nodes["a"]) == [State, None]


def test_a_return_annotation_with_an_unresolvable_field_names_no_class() -> None:
    class Update(TypedDict):
        anything: "Nobody"  # type: ignore[name-defined]  # noqa: F821 - that is the point

    def node(state: State) -> Any:
        return {"anything": state["other"]}

    node.__annotations__["return"] = Update
    spec = read_graph(StateGraph(State).add_node("a", node).add_edge(START, "a"))
    assert classes(spec, "anything") == set()


def takes_model(order: Order) -> Any:
    return {"anything": order.inner.size}


def takes_list(orders: list[Order]) -> Any:
    return {"anything": [order.inner.size for order in orders]}


def takes_optional(order: Annotated[Order | None, "of a kind"]) -> Any:
    return {"anything": order and order.inner.size}


ORDER = Order(inner=Inner(size=3))


@pytest.mark.parametrize(
    ("node", "argument", "expected"),
    [
        (takes_model, ORDER, 3), (takes_list, [ORDER, ORDER], [3, 3]), (takes_optional, ORDER, 3), (takes_optional, None, None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.UnknownAccess")
def test_the_argument_of_a_send_arrives_as_the_type_that_its_target_is_annotated_with(
    node: Callable[..., Any], argument: Any, expected: Any, model: ChatSequrity
) -> None:
    def start(_: State) -> list[Send]:
        return [Send("a", argument)]

    graph: Any = StateGraph(State).add_node("a", node)
    graph.add_conditional_edges(START, start, ["a"])
    for runnable in (graph.compile(), secured(graph, model)):
        assert runnable.invoke({"other": 1})["anything"] == expected
