"""Commands: updates and routing, single and in lists, with and without declared targets, to a parent."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, traced

SHAPES = Shapes()


@SHAPES.add
def command_with_literal_targets() -> Shape:
    def a(state: Traced) -> Command[Literal["b", "c"]]:
        return Command(update={"trace": ["a"], "n": 7}, goto="b" if state["n"] else "c")

    graph = connect(traced("b", "c", a=a), "__start__>a", "b>c")
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def command_with_destinations() -> Shape:
    def a(state: Traced) -> Command[Any]:
        return Command(update={"trace": ["a"]}, goto="b" if state["n"] else END)

    graph = traced("b")
    graph.add_node("a", a, destinations=("b", END))
    return Shape(graph=connect(graph, "__start__>a"), inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def command_to_several_nodes() -> Shape:
    def a(state: Traced) -> Command[Literal["b", "c", "__end__"]]:
        return Command(goto=["c", "b"] if state["n"] else ["b", "__end__"])

    graph = connect(traced("b", "c", a=a), "__start__>a")
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def command_beside_a_static_edge() -> Shape:
    def a(_state: Traced) -> Command[Literal["c"]]:
        return Command(update={"trace": ["a"]}, goto="c")

    graph = connect(traced("b", "c", a=a), "__start__>a", "a>b")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def command_to_its_own_node() -> Shape:
    def a(state: Traced) -> Command[Literal["a", "__end__"]]:
        n = state.get("n", 0) + 1
        return Command(update={"trace": ["a"], "n": n}, goto="a" if n < 4 else "__end__")

    return Shape(graph=connect(traced(a=a), "__start__>a"), inputs=[{}, {"n": 3}])


@SHAPES.add
def command_that_only_routes() -> Shape:
    def a(_state: Traced) -> Command[Literal["b"]]:
        return Command(goto="b")

    return Shape(graph=connect(traced("b", a=a), "__start__>a"), inputs=[{}])


@SHAPES.add
def command_that_only_updates() -> Shape:
    def a(_state: Traced) -> Command[Any]:
        return Command(update={"trace": ["a"]})

    return Shape(graph=connect(traced("b", a=a), "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def command_without_declared_targets() -> Shape:
    def a(state: Traced) -> Any:
        return Command(update={"trace": ["a"]}, goto="b" if state["n"] else "c")

    graph = connect(traced("b", "c", a=a), "__start__>a")
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}])


@SHAPES.add
def command_to_an_unknown_node() -> Shape:
    def a(_state: Traced) -> Command[Literal["b"]]:
        return Command(update={"trace": ["a"]}, goto="nowhere")  # type: ignore[arg-type]

    return Shape(graph=connect(traced("b", a=a), "__start__>a"), inputs=[{}])


@SHAPES.add
def list_of_commands_and_updates() -> Shape:
    def a(state: Traced) -> Any:
        return [
            {"trace": ["first"]},
            Command(update={"trace": ["second"]}, goto="b"),
            Command(update={"trace": ["third"], "n": state["n"] + 1}, goto=["c", "b"]),
        ]

    graph = traced("b", "c")
    graph.add_node("a", a, destinations=("b", "c"))
    return Shape(graph=connect(graph, "__start__>a"), inputs=[{"n": 0}])


@SHAPES.add
def list_of_commands_that_writes_a_plain_field_twice() -> Shape:
    def a(_state: Traced) -> Any:
        return [Command(update={"n": 1}), Command(update={"n": 2})]

    return Shape(graph=connect(traced(a=a), "__start__>a"), inputs=[{}])


@SHAPES.add
def command_with_pairs() -> Shape:
    def a(_state: Traced) -> Command[Any]:
        return Command(update=[("trace", ["one"]), ("trace", ["two"]), ("n", 3), ("unknown", 1)])

    return Shape(graph=connect(traced("b", a=a), "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def command_with_a_dataclass_or_a_model() -> Shape:
    @dataclass
    class Part:
        trace: list[str]
        n: int | None = None

    class Model(BaseModel):
        trace: list[str] = []
        n: int = 0

    def a(_state: Traced) -> Command[Any]:
        return Command(update=Part(trace=["part"]))

    def b(_state: Traced) -> Command[Any]:
        return Command(update=Model(trace=["model"]))

    graph = connect(traced(a=a, b=b), "__start__>a", "a>b")
    return Shape(graph=graph, inputs=[{"n": 5}])


@SHAPES.add
def commands_of_parallel_nodes() -> Shape:
    def make(name: str, target: str) -> Any:
        def node(_state: Traced) -> Command[Any]:
            return Command(update={"trace": [name]}, goto=target)

        return node

    graph = traced("d", "e")
    graph.add_node("a", make("a", "d"), destinations=("d",))
    graph.add_node("b", make("b", "e"), destinations=("e",))
    graph.add_node("c", make("c", "d"), destinations=("d",))
    connect(graph, "__start__>a", "__start__>b", "__start__>c")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def command_beside_a_branch() -> Shape:
    def a(_state: Traced) -> Command[Literal["b"]]:
        return Command(update={"n": 5, "trace": ["a"]}, goto="b")

    def route(state: Traced) -> Literal["c", "__end__"]:
        return "c" if state["n"] == 5 else "__end__"

    graph = connect(traced("b", "c", a=a), "__start__>a")
    graph.add_conditional_edges("a", route)
    return Shape(graph=graph, inputs=[{"n": 0}])


@SHAPES.add
def command_to_the_parent() -> Shape:
    class Parent(TypedDict, total=False):
        trace: Annotated[list[str], operator.add]
        x: int

    def inner(_state: Traced) -> Command[Any]:
        return Command(graph=Command.PARENT, update={"x": 42, "trace": ["inner"]}, goto="after")

    child = connect(traced(inner=inner), "__start__>inner").compile()
    graph: Any = StateGraph(Parent)
    graph.add_node("child", child, destinations=("after",))
    graph.add_node("after", lambda state: {"x": state["x"] + 1, "trace": ["after"]})
    graph.add_edge(START, "child")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def commands_to_the_parent_from_two_levels_down() -> Shape:
    def inner(_state: Traced) -> Command[Any]:
        return Command(graph=Command.PARENT, update={"trace": ["inner"]}, goto="middle")

    def middle(_state: Traced) -> Command[Any]:
        return Command(graph=Command.PARENT, update={"trace": ["middle"]}, goto=["b", "c"])

    low = connect(traced(inner=inner), "__start__>inner").compile()
    child: Any = traced(middle=middle)
    child.add_node("low", low, destinations=("middle",))
    child.add_edge(START, "low")
    graph: Any = traced("b", "c")
    graph.add_node("child", child.compile(), destinations=("b", "c"))
    graph.add_edge(START, "child")
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def update_of_no_known_kind() -> Shape:
    def a(_state: Traced) -> Any:
        return "text"

    return Shape(graph=connect(traced(a=a), "__start__>a"), inputs=[{}])


@SHAPES.add
def command_that_starts_the_graph() -> Shape:
    graph = connect(traced("a", "b"), "__start__>a", "a>b")
    return Shape(graph=graph, inputs=[Command(update={"trace": ["given"]})])
