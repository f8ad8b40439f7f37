"""What the compiler reads from a user's graph, and which graphs it refuses."""

# ruff: noqa: ARG001, ARG004, ARG005 - a node takes the state whether it looks at it or not

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.channels import LastValueAfterFinish
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.managed.base import ManagedValue
from langgraph.types import CachePolicy, RetryPolicy

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.spec import GraphSpec, read_graph
from langchain_sequrity.graph.codegen.compiler import compile_graph


class State(TypedDict, total=False):
    x: int
    log: Annotated[list[Any], operator.add]


class Narrow(TypedDict, total=False):
    x: int


def node(state: State) -> Any:
    return {"x": 1}


async def waiting(state: State) -> Any:
    return {"x": 1}


def narrow(state: Narrow) -> Any:
    return {"x": 1}


def handler(state: State, error: Any) -> Any:
    return {"x": 2}


def builder(*names: str) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, node)
    return graph.add_edge(START, names[0])


def test_a_compiled_graph_keeps_its_name_and_builder() -> None:
    compiled = builder("a", "b").compile(name="mine")
    spec = read_graph(compiled)
    assert spec.name == "mine"
    assert spec.builder is compiled.builder


def test_a_builder_and_its_compiled_graph_are_read_the_same() -> None:
    def shape(spec: GraphSpec) -> Any:
        return spec.nodes.keys(), spec.edges, spec.joins, spec.channels.keys(), spec.schemas

    graph = builder("a", "b", "c").add_edge(["a", "b"], "c").add_edge("a", "b")
    assert shape(read_graph(graph)) == shape(read_graph(graph.compile()))


def test_edges_and_joins_are_read_in_a_fixed_order() -> None:
    graph = builder("a", "b", "c")
    graph.add_edge("c", "b").add_edge("a", "c").add_edge("a", "b").add_edge(
        ["b", "a"], "c"
    ).add_edge(["a", "b"], "c")
    spec = read_graph(graph)
    assert spec.edges == ((START, "a"), ("a", "b"), ("a", "c"), ("c", "b"))
    assert spec.joins == ((("a", "b"), "c"), (("b", "a"), "c"))


def test_defaults_of_a_graph_apply_to_its_nodes() -> None:
    cache: CachePolicy[Any] = CachePolicy()
    own: CachePolicy[Any] = CachePolicy(ttl=5)
    graph = StateGraph(State).set_node_defaults(cache_policy=cache, timeout=3)
    graph.add_node("a", waiting).add_node("b", waiting, cache_policy=own).add_edge(START, "a")
    for spec in (read_graph(graph), read_graph(graph.compile())):
        a, b = spec.nodes["a"], spec.nodes["b"]
        assert (a.cache_policy, b.cache_policy) == (cache, own)
        assert list(spec.nodes) == ["a", "b"]


def test_a_default_error_handler_applies_to_every_node() -> None:
    graph = builder("a").set_node_defaults(error_handler=handler)
    for spec in (read_graph(graph), read_graph(graph.compile())):
        assert list(spec.nodes) == ["a"]
        assert spec.nodes["a"].error_handler.func is handler


def test_the_error_handler_of_a_node_applies_only_to_that_node() -> None:
    graph = StateGraph(State).add_node("a", narrow, error_handler=handler).add_node("b", node)
    spec = read_graph(graph.add_edge(START, "a"))
    assert list(spec.nodes) == ["a", "b"]
    assert spec.nodes["a"].error_handler.func is handler
    assert spec.nodes["b"].error_handler is None


def test_schemas_limit_the_fields_that_nodes_and_routers_get() -> None:
    def route(state: Narrow) -> Any:
        return END

    graph = StateGraph(State).add_node("a", narrow).add_node("b", node).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: END, ["b", END])
    graph.add_conditional_edges("b", route)
    graph.add_conditional_edges(START, lambda state: "b", ["b"])
    spec = read_graph(graph)
    assert spec.nodes["a"].input_fields == ("x",)
    assert [(one.source, one.input_fields, one.is_typed) for one in spec.branches] == [
        ("a", ("x",), False),
        ("b", ("x",), True),
        (START, ("x", "log"), False),
    ]
    assert [one.ends for one in spec.branches] == [{"b": "b", END: END}, None, {"b": "b"}]


def test_reading_does_not_change_the_builder() -> None:
    graph = StateGraph(State).set_node_defaults(error_handler=handler, retry_policy=RetryPolicy())
    graph.add_node("a", node).add_edge(START, "a")
    before = {name: repr(value) for name, value in vars(graph).items()}
    compile_graph(read_graph(graph))
    assert {name: repr(value) for name, value in vars(graph).items()} == before
    assert not graph.compiled
    graph.compile()


class Clock(ManagedValue[int]):
    @staticmethod
    def get(scratchpad: Any) -> int:
        return 1


class Timed(TypedDict):
    now: Annotated[int, Clock]


class Finishing(TypedDict):
    last: Annotated[int, LastValueAfterFinish]


@entrypoint()
def functional(value: int) -> int:
    return value


def managed() -> Any:
    return StateGraph(Timed).add_node("a", lambda state: None).add_edge(START, "a")


def finishing() -> Any:
    return StateGraph(Finishing).add_node("a", lambda state: None).add_edge(START, "a")


@pytest.mark.parametrize(
    ("make", "reason", "way_out"),
    [
        (lambda: functional, "got Pregel", "add_node"),
        (lambda: RunnableLambda(node), "got RunnableLambda", "add_node"),
        (lambda: None, "got NoneType", "add_node"),
        (managed, "`now` is the managed value Clock", "make anything else an ordinary field"),
        (finishing, "`last` has the channel LastValueAfterFinish", "Use `LastValue` or a reducer"),
    ],
)
def test_an_unsupported_graph_is_refused_with_a_reason_and_a_way_out(
    make: Callable[[], Any], reason: str, way_out: str
) -> None:
    with pytest.raises(GraphNotSupported) as caught:
        compile_graph(read_graph(make()))
    assert reason in str(caught.value)
    assert way_out in str(caught.value)
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: StateGraph(State).add_node("a", node),
        lambda: builder("a").add_edge("a", "nowhere"),
        lambda: builder("a").set_node_defaults(timeout=3),
        lambda: builder("a").add_conditional_edges("a", lambda state: END, ["nowhere"]),
    ],
)
def test_a_graph_that_langgraph_refuses_is_refused_with_the_same_message(
    broken: Callable[[], Any],
) -> None:
    with pytest.raises(ValueError, match=r".") as expected:
        broken().compile()
    with pytest.raises(ValueError, match=r".") as actual:
        read_graph(broken())
    assert str(actual.value) == str(expected.value)
