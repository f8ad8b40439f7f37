"""Conditional edges: return values, inputs and kinds of routers."""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from langchain_sequrity import FieldRouter
from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, count, traced, visit

SHAPES = Shapes()


def branching(
    route: Any, path_map: Any = None, *, inputs: Any = ({"n": 0}, {"n": 1}), **more: Any
) -> Shape:
    """Node `a`, then a router to `b` and `c`."""
    graph = connect(traced("a", "b", "c"), "__start__>a")
    graph.add_conditional_edges("a", route, path_map)
    return Shape(graph=graph, inputs=inputs, **more)


@SHAPES.add
def router_with_literal_targets() -> Shape:
    def route(state: Traced) -> Literal["b", "c"]:
        return "b" if state["n"] else "c"

    return branching(route)


@SHAPES.add
def router_with_labels() -> Shape:
    def route(state: Traced) -> str:
        return "yes" if state["n"] else "no"

    return branching(route, {"yes": "b", "no": "c"})


@SHAPES.add
def router_with_booleans() -> Shape:
    def route(state: Traced) -> bool:
        return state["n"] > 0

    return branching(route, {True: "b", False: END})


@SHAPES.add
def router_with_numbers() -> Shape:
    def route(state: Traced) -> int:
        return state["n"]

    return branching(route, {0: "b", 1: "c"}, inputs=[{"n": 0}, {"n": 1}, {"n": 2}])


@SHAPES.add
def router_with_a_list_of_names_as_map() -> Shape:
    def route(state: Traced) -> str:
        return "b" if state["n"] else END

    return branching(route, ["b", END])


@SHAPES.add
def router_without_declared_targets() -> Shape:
    def route(state: Traced) -> str:
        return "b" if state["n"] else "c"

    return branching(route)


@SHAPES.add
def router_that_returns_several_targets() -> Shape:
    def route(state: Traced) -> list[str]:
        return ["c", "b"] if state["n"] else ["b"]

    return branching(route)


@SHAPES.add
def router_that_returns_a_tuple_of_labels() -> Shape:
    def route(state: Traced) -> tuple[str, ...]:
        return ("x", "y") if state["n"] else ("stop",)

    return branching(route, {"x": "b", "y": "c", "stop": END})


@SHAPES.add
def router_that_returns_nothing_to_do() -> Shape:
    def route(state: Traced) -> list[str]:
        return [] if state["n"] else ["b", "b"]

    return branching(route)


@SHAPES.add
def router_that_returns_none() -> Shape:
    def route(state: Traced) -> Any:
        return None if state["n"] else [None]

    return branching(route)


@SHAPES.add
def router_that_returns_the_start() -> Shape:
    def route(_state: Traced) -> str:
        return START

    return branching(route)


@SHAPES.add
def router_that_returns_an_unknown_label() -> Shape:
    def route(_state: Traced) -> str:
        return "elsewhere"

    return branching(route, {"yes": "b", "no": "c"})


@SHAPES.add
def router_that_returns_an_unknown_name() -> Shape:
    def route(_state: Traced) -> str:
        return "elsewhere"

    return branching(route)


@SHAPES.add
def router_that_fails() -> Shape:
    def route(state: Traced) -> str:
        return "b" if 1 // state["n"] else "c"

    return branching(route)


@SHAPES.add
def conditional_entry() -> Shape:
    def route(state: Traced) -> Literal["a", "b", "__end__"]:
        return ("__end__", "a", "b")[state.get("n", 0)]

    graph = connect(traced("a", "b"), "a>b")
    graph.add_conditional_edges(START, route)
    return Shape(graph=graph, inputs=[{}, {"n": 1}, {"n": 2}])


@SHAPES.add
def conditional_entry_beside_a_static_one() -> Shape:
    def route(state: Traced) -> list[str]:
        return ["b", "c"] if state["n"] else []

    graph = connect(traced("a", "b", "c"), "__start__>a", "b>c")
    graph.set_conditional_entry_point(route, {"b": "b", "c": "c"})
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def several_branches_of_one_node() -> Shape:
    def first(state: Traced) -> Literal["b", "__end__"]:
        return "b" if state["n"] % 2 else "__end__"

    def second(state: Traced) -> Literal["b", "c"]:
        return "b" if state["n"] > 1 else "c"

    graph = connect(traced("a", "b", "c"), "__start__>a")
    graph.add_conditional_edges("a", first)
    graph.add_conditional_edges("a", second)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}])


@SHAPES.add
def static_edge_beside_a_branch() -> Shape:
    def route(state: Traced) -> Literal["b", "__end__"]:
        return "b" if state["n"] else "__end__"

    graph = connect(traced("a", "b", "c"), "__start__>a", "a>c")
    graph.add_conditional_edges("a", route)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


class Siblings(TypedDict, total=False):
    trace: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    x: str


@SHAPES.add
def routers_see_their_own_node_but_not_its_siblings() -> Shape:
    seen: list[Any] = []

    def a(_state: Siblings) -> dict[str, Any]:
        return {"trace": ["a"], "total": 1}

    def b(_state: Siblings) -> dict[str, Any]:
        return {"trace": ["b"], "total": 10, "x": "from b"}

    def after_a(state: Siblings) -> Literal["c", "d"]:
        seen.append(("after a", state["trace"], state["total"], state.get("x")))
        return "c" if state.get("x") is None else "d"

    def after_b(state: Siblings) -> Literal["c", "d"]:
        seen.append(("after b", state["trace"], state["total"], state.get("x")))
        return "d" if state["total"] == 10 else "c"

    graph: Any = StateGraph(Siblings)
    graph.add_node("a", a)
    graph.add_node("b", b)
    graph.add_node("c", visit("c"))
    graph.add_node("d", visit("d"))
    connect(graph, "__start__>a", "__start__>b")
    graph.add_conditional_edges("a", after_a)
    graph.add_conditional_edges("b", after_b)
    return Shape(graph=graph, inputs=[{}, {"total": 5, "trace": ["in"]}], seen=seen)


@SHAPES.add
def routers_with_schemas_of_their_own() -> Shape:
    class Narrow(TypedDict):
        total: int

    seen: list[Any] = []

    def a(_state: Siblings) -> dict[str, Any]:
        return {"trace": ["a"], "total": 1, "x": "unseen"}

    def route(state: Narrow) -> Literal["c", "__end__"]:
        seen.append(sorted(state))
        return "c" if state["total"] > 1 else "__end__"

    graph: Any = StateGraph(Siblings)
    graph.add_node("a", a)
    graph.add_node("c", visit("c"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", route)
    return Shape(graph=graph, inputs=[{}, {"total": 5}], seen=seen)


@SHAPES.add
def routers_that_are_no_plain_functions() -> Shape:
    class Route:
        def __call__(self, state: Traced) -> Literal["c", "__end__"]:
            return "c" if state["n"] else "__end__"

    graph = connect(traced("a", "b", "c", "d"), "__start__>a")
    graph.add_conditional_edges(
        "a", RunnableLambda(lambda state: "b" if state["n"] else END, name="pick"), ["b", END]
    )
    graph.add_conditional_edges("b", Route(), ["c", END])
    graph.add_conditional_edges("c", lambda state: state["n"] > 1, {True: "d", False: END})
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}, {"n": 2}])


@SHAPES.add
def router_with_config() -> Shape:
    def route(state: Traced, config: RunnableConfig) -> Literal["b", "c"]:
        return "b" if config["configurable"]["way"] == state["n"] else "c"

    return branching(route, config={"configurable": {"way": 1}})


@SHAPES.add
def router_that_awaits() -> Shape:
    async def route(state: Traced) -> Literal["b", "c"]:
        return "b" if state["n"] else "c"

    return branching(route)


@SHAPES.add
def router_that_is_used_twice() -> Shape:
    def route(state: Traced) -> bool:
        return state["n"] < 3

    graph = connect(traced(a=count("a"), b=count("b")), "__start__>a")
    graph.add_conditional_edges("a", route, {True: "b", False: END})
    graph.add_conditional_edges("b", route, {True: "a", False: END})
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def two_routers_of_one_name() -> Shape:
    def make(target: str) -> Any:
        def route(state: Traced) -> list[str]:
            return [target] if state["n"] else []

        return route

    graph = connect(traced("a", "b", "c"), "__start__>a")
    graph.add_conditional_edges("a", make("b"))
    graph.add_conditional_edges("b", make("c"))
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def one_map_with_two_labels_for_a_target() -> Shape:
    def route(state: Traced) -> list[str]:
        return ["u", "v"] if state["n"] else ["v"]

    return branching(route, {"u": "b", "v": "b", "w": "c"})


@SHAPES.add
def router_that_is_fused_with_its_node() -> Shape:
    def route(state: Traced) -> Literal["b", "c", "__end__"]:
        if len(state["trace"]) > 1:
            return "__end__"
        return "b" if state["n"] else "c"

    def also(_state: Traced) -> Any:
        return [Send("c", {"n": 7}), "b"]

    shape = branching(route, nodes={"a": {"fuse_router": True}})
    shape.graph.add_conditional_edges("a", also, ["b", "c"])
    return shape


@SHAPES.add
def router_that_only_looks_a_field_up() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a")
    graph.add_conditional_edges("a", FieldRouter("n", {0: "b", 1: "c", None: END}))
    inputs = [{"n": 0}, {"n": 1}, {"n": None}]
    return Shape(graph=graph, inputs=inputs)


@SHAPES.add
def router_that_looks_up_what_it_does_not_know() -> Shape:
    graph = connect(traced("a", "b"), "__start__>a")
    graph.add_conditional_edges("a", FieldRouter("n", {0: "b"}))
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 2}, {}])


@SHAPES.add
def router_that_looks_up_booleans() -> Shape:
    graph = connect(traced("b", "c", a=count("a")), "__start__>a")
    graph.add_conditional_edges("a", FieldRouter("n", {True: "b", False: "c", "text": END}))
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": -1}])
