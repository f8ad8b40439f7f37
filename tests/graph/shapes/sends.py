"""Send: packets from routers and commands, their arguments, their order."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, traced, visit

SHAPES = Shapes()


class Map(TypedDict, total=False):
    items: list[int]
    out: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    done: bool


class Work(TypedDict, total=False):
    item: int
    weight: int


def plan(_state: Map) -> dict[str, Any]:
    return {"out": ["plan"]}


def work(state: Work) -> dict[str, Any]:
    return {"out": [f"worked {state['item']}"], "total": state["item"] * state.get("weight", 1)}


def finish(state: Map) -> dict[str, Any]:
    return {"out": [f"total {state['total']}"], "done": True}


def spread(state: Map) -> list[Send]:
    return [Send("work", {"item": item}) for item in state["items"]]


def mapping(**nodes: Any) -> Any:
    """A graph over `Map`."""
    graph: Any = StateGraph(Map)
    for name, node in nodes.items():
        graph.add_node(name, node)
    return graph


@SHAPES.add
def map_reduce() -> Shape:
    graph = mapping(plan=plan, work=work, finish=finish)
    graph.add_conditional_edges("plan", spread, ["work"])
    connect(graph, "__start__>plan", "work>finish")
    return Shape(graph=graph, inputs=[{"items": [3, 1, 2]}, {"items": []}, {"items": [5]}])


@SHAPES.add
def map_reduce_without_declared_targets() -> Shape:
    graph = mapping(plan=plan, work=work, finish=finish)
    graph.add_conditional_edges("plan", spread)
    connect(graph, "__start__>plan", "work>finish")
    return Shape(graph=graph, inputs=[{"items": [3, 1, 2]}])


@SHAPES.add
def map_from_the_entry() -> Shape:
    graph = mapping(work=work, finish=finish)
    graph.add_conditional_edges(START, spread, ["work"])
    graph.add_edge("work", "finish")
    return Shape(graph=graph, inputs=[{"items": [2, 4]}, {"items": []}])


@SHAPES.add
def map_with_a_deferred_reducer() -> Shape:
    graph = mapping(plan=plan, work=work)
    graph.add_node("finish", finish, defer=True)
    graph.add_conditional_edges("plan", spread, ["work"])
    connect(graph, "__start__>plan", "plan>finish", "work>finish")
    return Shape(graph=graph, inputs=[{"items": [1, 2]}, {"items": []}])


@SHAPES.add
def packets_run_after_nodes_and_in_their_own_order() -> Shape:
    def mixed(_state: Traced) -> list[Any]:
        return [Send("z", {"n": 2}), "b", Send("a", {"n": 1}), "z", Send("z", {"n": 0})]

    def say(name: str) -> Any:
        def node(state: Traced) -> dict[str, Any]:
            return {"trace": [f"{name}{state.get('n')}"]}

        return node

    graph = connect(traced(s=say("s"), a=say("a"), b=say("b"), z=say("z")), "__start__>s")
    graph.add_conditional_edges("s", mixed)
    return Shape(graph=graph, inputs=[{}, {"n": 9}])


@SHAPES.add
def packet_to_an_unknown_node_is_dropped() -> Shape:
    def route(_state: Map) -> list[Any]:
        return [Send("nowhere", {"item": 1}), Send("work", {"item": 2})]

    graph = mapping(plan=plan, work=work)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", route)
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def packet_to_the_end() -> Shape:
    def route(_state: Map) -> list[Any]:
        return [Send(END, {"item": 1})]

    graph = mapping(plan=plan)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", route)
    return Shape(graph=graph, inputs=[{}])


@dataclass
class Point:
    x: int
    y: int = 0


class Order(BaseModel):
    item: int
    note: str = ""


@SHAPES.add
def packets_whose_arguments_are_no_state() -> Shape:
    seen: list[Any] = []

    def show(value: Any) -> dict[str, Any]:
        seen.append(value)
        return {"out": [f"{type(value).__name__} {value!r}"]}

    def route(_state: Map) -> list[Send]:
        values = [
            7,
            "text",
            None,
            [1, "a"],
            (1, 2),
            {"item": 1, "other": {"deep": [1]}},
            1.5,
            True,
            {},
        ]
        return [Send("show", value) for value in values]

    graph = mapping(plan=plan, show=show)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", route, ["show"])
    return Shape(graph=graph, inputs=[{"items": []}], seen=seen)


@SHAPES.add
def packets_with_models_as_arguments() -> Shape:
    seen: list[Any] = []

    def show(order: Order) -> dict[str, Any]:
        seen.append(order)
        return {"out": [f"{order.item} {order.note}"]}

    def route(_state: Map) -> list[Send]:
        return [Send("show", Order(item=1)), Send("show", Order(item=2, note="two"))]

    graph = mapping(plan=plan, show=show)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", route, ["show"])
    return Shape(graph=graph, inputs=[{}], seen=seen)


@SHAPES.add
def packets_with_more_than_the_node_reads() -> Shape:
    seen: list[Any] = []

    def show(state: Work) -> dict[str, Any]:
        seen.append(dict(state))
        return {"out": [f"{state['item']}"]}

    def route(_state: Map) -> list[Send]:
        return [
            Send("show", {"item": 1, "unknown": "kept", "items": [1]}),
            Send("show", {"weight": 3, "item": 2}),
        ]

    graph = mapping(plan=plan, show=show)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", route, ["show"])
    return Shape(graph=graph, inputs=[{}], seen=seen)


@SHAPES.add
def packets_of_packets() -> Shape:
    def split(state: Work) -> dict[str, Any]:
        return {"out": [f"split {state['item']}"], "total": 1}

    def again(state: Map) -> list[Send]:
        return [Send("work", {"item": state["total"], "weight": i}) for i in range(2)]

    graph = mapping(plan=plan, split=split, work=work)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges(
        "plan", lambda _state: [Send("split", {"item": i}) for i in range(2)], ["split"]
    )
    graph.add_conditional_edges("split", again, ["work"])
    return Shape(graph=graph, inputs=[{}, {"total": 10}])


@SHAPES.add
def workers_that_write_one_plain_field_collide() -> Shape:
    def mark(state: Work) -> dict[str, Any]:
        return {"done": state["item"] > 0}

    graph = mapping(plan=plan, work=mark)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["work"])
    return Shape(graph=graph, inputs=[{"items": [1]}, {"items": [1, 2]}])


@SHAPES.add
def workers_that_route_by_command() -> Shape:
    def choose(state: Work) -> Command[Literal["even", "odd"]]:
        return Command(
            update={"out": [f"chose {state['item']}"]}, goto="odd" if state["item"] % 2 else "even"
        )

    graph = mapping(plan=plan, work=choose)
    graph.add_node("even", lambda _state: {"out": ["even"]})
    graph.add_node("odd", lambda _state: {"out": ["odd"]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["work"])
    return Shape(graph=graph, inputs=[{"items": [1, 3]}, {"items": [1, 2, 3]}])


@SHAPES.add
def command_that_sends() -> Shape:
    def boss(state: Map) -> Command[Literal["work", "finish"]]:
        goto: Any = [*(Send("work", {"item": item}) for item in state["items"]), "finish"]
        return Command(update={"out": ["boss"]}, goto=goto)

    graph = connect(mapping(boss=boss, work=work, finish=finish), "__start__>boss")
    return Shape(graph=graph, inputs=[{"items": [4, 5]}, {"items": []}])


@SHAPES.add
def command_with_one_packet() -> Shape:
    def boss(state: Map) -> Command[Literal["work"]]:
        return Command(goto=Send("work", {"item": len(state["items"])}))

    graph = connect(mapping(boss=boss, work=work), "__start__>boss")
    return Shape(graph=graph, inputs=[{"items": [4, 5]}])


@SHAPES.add
def packets_that_feed_a_join() -> Shape:
    graph = traced("s", "a", "b", "c")
    graph.add_edge(START, "s")
    graph.add_conditional_edges("s", lambda _state: [Send("a", {}), Send("a", {}), "b"], ["a", "b"])
    graph.add_edge(["a", "b"], "c")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def packets_in_a_loop() -> Shape:
    def tick(state: Map) -> dict[str, Any]:
        return {"out": [f"tick {state['total']}"], "total": 1}

    def go(state: Map) -> Any:
        if state["total"] > 8:
            return END
        return [Send("work", {"item": 1}), Send("work", {"item": 2})]

    graph = mapping(tick=tick, work=work)
    connect(graph, "__start__>tick", "work>tick")
    graph.add_conditional_edges("tick", go, ["work", END])
    return Shape(graph=graph, inputs=[{}, {"total": 8}])


@SHAPES.add
def packets_at_the_recursion_limit() -> Shape:
    graph = traced("a", "b")
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda _state: [Send("b", {})], ["b"])
    graph.add_conditional_edges("b", lambda _state: [Send("a", {})], ["a"])
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 5})


@SHAPES.add
def packet_to_a_deferred_node() -> Shape:
    graph = traced("a", "b")
    graph.add_node("d", visit("d"), defer=True)
    connect(graph, "__start__>a", "a>b", "b>d")
    graph.add_conditional_edges("a", lambda _state: [Send("d", {})], ["d"])
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def packets_with_keys_in_any_order() -> Shape:
    def show(state: Map) -> dict[str, Any]:
        return {"out": [f"{key}={value}" for key, value in state.items()]}

    def send(state: Map) -> list[Send]:
        orders = [("total", "items"), ("items", "more", "total"), ("more", "done", "items")]
        values = {"items": state["items"], "total": 1, "done": True, "more": None}
        return [Send("show", {key: values[key] for key in keys}) for keys in orders]

    graph = mapping(show=show)
    graph.add_conditional_edges(START, send, ["show"])
    return Shape(graph=graph, inputs=[{"items": [1]}])
