"""Static edges: chains, fan-out and fan-in, joins, deferred nodes, cycles."""

from typing import Literal

from langgraph.graph import END, START

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, count, traced, visit

SHAPES = Shapes()


@SHAPES.add
def single_node() -> Shape:
    return Shape(graph=connect(traced("a"), "__start__>a"), inputs=[{}, {"trace": ["before"]}])


@SHAPES.add
def chain() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "b>c", "c>__end__")
    return Shape(graph=graph, inputs=[{}, {"n": 3}])


@SHAPES.add
def sequence_with_entry_and_finish_points() -> Shape:
    graph = traced()
    graph.add_sequence([("a", visit("a")), ("b", count("b")), ("c", count("c"))])
    graph.set_entry_point("a")
    graph.set_finish_point("c")
    return Shape(graph=graph, inputs=[{"n": 0}])


@SHAPES.add
def several_starts() -> Shape:
    graph = connect(traced("b", "a", "c"), "__start__>b", "__start__>a", "a>c", "b>c")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def start_that_goes_to_a_node_and_the_end() -> Shape:
    return Shape(graph=connect(traced("a"), "__start__>a", "__start__>__end__"), inputs=[{}])


@SHAPES.add
def start_that_is_the_end() -> Shape:
    return Shape(graph=connect(traced("a"), "__start__>__end__"), inputs=[{}, {"n": 1}])


@SHAPES.add
def nodes_that_write_nothing() -> Shape:
    graph = connect(traced(a=lambda _state: None, b=lambda _state: {}), "__start__>a", "a>b")
    return Shape(graph=graph, inputs=[{}, {"n": 1}])


@SHAPES.add
def fan_out_without_fan_in() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "a>c")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def fan_in_without_a_barrier() -> Shape:
    graph = traced("a", "b", "c", "d")
    return Shape(graph=connect(graph, "__start__>a", "a>b", "a>c", "b>d", "c>d"), inputs=[{}])


@SHAPES.add
def uneven_arms_run_the_sink_twice() -> Shape:
    graph = traced("a", "b", "b2", "c", "sink")
    connect(graph, "__start__>a", "a>b", "b>b2", "b2>sink", "a>c", "c>sink")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def join() -> Shape:
    graph = connect(traced("a", "b", "c", "d"), "__start__>a", "a>b", "a>c")
    graph.add_edge(["b", "c"], "d")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def join_of_uneven_arms() -> Shape:
    graph = connect(traced("a", "b", "b2", "c", "d"), "__start__>a", "a>b", "b>b2", "a>c")
    graph.add_edge(["b2", "c"], "d")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def join_that_never_fills() -> Shape:
    def go(state: Traced) -> Literal["b", "c"]:
        return "b" if state.get("n") else "c"

    graph = connect(traced("a", "b", "c", "d"), "__start__>a")
    graph.add_conditional_edges("a", go)
    graph.add_edge(["b", "c"], "d")
    return Shape(graph=graph, inputs=[{}, {"n": 1}])


@SHAPES.add
def join_in_a_cycle() -> Shape:
    def again(state: Traced) -> Literal["a", "__end__"]:
        return "a" if state["n"] < 3 else "__end__"

    graph = connect(traced("a", "b", "c", d=count("d")), "__start__>a", "a>b", "a>c")
    graph.add_edge(["b", "c"], "d")
    graph.add_conditional_edges("d", again)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 2}])


@SHAPES.add
def join_that_fills_over_several_rounds() -> Shape:
    def turn(state: Traced) -> Literal["b", "c", "__end__"]:
        return ("b", "c", "b", "c", "__end__")[state["n"] - 1]

    graph = connect(traced("b", "c", "d", a=count("a")), "__start__>a", "b>a", "c>a")
    graph.add_conditional_edges("a", turn)
    graph.add_edge(["b", "c"], "d")
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 3}])


@SHAPES.add
def full_join_is_consumed_by_another_trigger() -> Shape:
    graph = traced("a", "b", "c", "d", "e")
    connect(graph, "__start__>a", "a>b", "a>c", "b>d", "c>e", "e>d")
    graph.add_edge(["b", "c"], "d")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def two_joins_into_one_node() -> Shape:
    graph = connect(traced("a", "b", "c", "d", "e"), "__start__>a", "__start__>b", "b>c", "c>d")
    graph.add_edge(["a", "b"], "e")
    graph.add_edge(["a", "d"], "e")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def self_loop() -> Shape:
    def again(state: Traced) -> str:
        return END if state["n"] >= 3 else "a"

    graph = connect(traced(a=count("a")), "__start__>a")
    graph.add_conditional_edges("a", again, ["a", END])
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 3}])


@SHAPES.add
def cycle_of_two_nodes() -> Shape:
    def ping(state: Traced) -> Literal["b", "__end__"]:
        return "b" if state["n"] < 5 else "__end__"

    graph = connect(traced(a=count("a"), b=count("b")), "__start__>a", "b>a")
    graph.add_conditional_edges("a", ping)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 4}])


@SHAPES.add
def endless_cycle_meets_the_recursion_limit() -> Shape:
    graph = connect(traced("a", "b"), "__start__>a", "a>b", "b>a")
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 7})


@SHAPES.add
def recursion_limit_that_is_one_too_small() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "b>c")
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 3})


@SHAPES.add
def recursion_limit_that_is_just_enough() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "b>c")
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 4})


@SHAPES.add
def recursion_limit_of_nothing() -> Shape:
    graph = connect(traced("a"), "__start__>a")
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 0})


@SHAPES.add
def the_end_of_one_arm_leaves_the_others_running() -> Shape:
    graph = connect(traced("a", "b", "c", "d"), "__start__>a", "a>b", "a>c", "b>__end__", "c>d")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def deferred_node_waits_for_all_arms() -> Shape:
    graph = traced("a", "b", "b2", "c")
    graph.add_node("sink", visit("sink"), defer=True)
    connect(graph, "__start__>a", "a>b", "b>b2", "b2>sink", "a>c", "c>sink")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def deferred_node_with_a_join() -> Shape:
    graph = traced("a", "b", "c", "c2", "c3")
    graph.add_node("d", visit("d"), defer=True)
    connect(graph, "__start__>a", "a>b", "a>c", "c>c2", "c2>c3")
    graph.add_edge(["a", "b"], "d")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def two_deferred_nodes_in_a_row() -> Shape:
    graph = traced("a", "b")
    graph.add_node("d", visit("d"), defer=True)
    graph.add_node("e", visit("e"), defer=True)
    connect(graph, "__start__>a", "__start__>e", "a>b", "a>d", "d>e", "d>b")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def deferred_node_in_a_cycle() -> Shape:
    def again(state: Traced) -> Literal["a", "__end__"]:
        return "a" if state["n"] < 3 else "__end__"

    graph = traced("a", "b", "b2")
    graph.add_node("d", count("d"), defer=True)
    connect(graph, "__start__>a", "a>b", "b>b2", "a>d")
    graph.add_conditional_edges("d", again)
    return Shape(graph=graph, inputs=[{"n": 0}])


@SHAPES.add
def chain_of_diamonds() -> Shape:
    def side(state: Traced) -> Literal["left", "right"]:
        return "left" if state["n"] % 2 else "right"

    graph = traced()
    for i in range(6):
        graph.add_node(f"top{i}", count(f"top{i}"))
        graph.add_node(f"left{i}", visit(f"left{i}"))
        graph.add_node(f"right{i}", visit(f"right{i}"))
        graph.add_conditional_edges(f"top{i}", side, {"left": f"left{i}", "right": f"right{i}"})
        below = f"top{i + 1}" if i < 5 else END
        connect(graph, f"left{i}>{below}", f"right{i}>{below}")
    graph.add_edge(START, "top0")
    return Shape(graph=graph, inputs=[{"n": 0}])


@SHAPES.add
def hundred_conditional_edges_in_a_row() -> Shape:
    def further(state: Traced) -> bool:
        return state["n"] < 60

    graph = traced()
    for i in range(101):
        graph.add_node(f"n{i}", count(f"n{i}"))
    for i in range(100):
        graph.add_conditional_edges(f"n{i}", further, {True: f"n{i + 1}", False: END})
    graph.add_edge(START, "n0")
    return Shape(graph=graph, inputs=[{"n": 50}])


@SHAPES.add
def nodes_that_nothing_leads_to() -> Shape:
    graph = connect(traced("a", "b", "island", "shore"), "__start__>a", "a>b", "island>shore")
    return Shape(graph=graph, inputs=[{}])
