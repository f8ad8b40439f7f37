"""Fields and how writes to them are combined."""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels import (
    AnyValue,
    BinaryOperatorAggregate,
    DeltaChannel,
    EphemeralValue,
    Topic,
    UntrackedValue,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import Command, Overwrite

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, traced

SHAPES = Shapes()


def over(schema: Any, edges: Sequence[str], **nodes: Any) -> Any:
    """A graph over a schema."""
    graph: Any = StateGraph(schema)
    for name, node in nodes.items():
        graph.add_node(name, node)
    return connect(graph, *edges)


def constant(update: Any) -> Any:
    """A node that always returns this."""

    def node(_state: Any) -> Any:
        return update

    return node


PARALLEL = ("__start__>a", "__start__>b", "a>c", "b>c")


class Passing(TypedDict, total=False):
    trace: Annotated[list[str], operator.add]
    ephemeral: Annotated[str, EphemeralValue]
    topic: Annotated[list[str], Topic(str)]
    kept: Annotated[list[str], Topic(str, accumulate=True)]
    anything: Annotated[int, AnyValue]
    untracked: Annotated[str, UntrackedValue]


@SHAPES.add
def plain_field_written_twice_in_a_step() -> Shape:
    def write(_state: Traced) -> dict[str, Any]:
        return {"n": 1}

    return Shape(graph=connect(traced(a=write, b=write, c=write), *PARALLEL), inputs=[{}])


@SHAPES.add
def plain_field_that_one_of_two_writes() -> Shape:
    def a(state: Traced) -> dict[str, Any]:
        return {"n": 1} if state.get("n") else {}

    def b(_state: Traced) -> dict[str, Any]:
        return {"n": 2}

    return Shape(graph=connect(traced(a=a, b=b, c=a), *PARALLEL), inputs=[{}, {"n": 1}])


class Sums(TypedDict, total=False):
    total: Annotated[int, operator.add]
    text: Annotated[str, operator.add]
    items: Annotated[list[Any], operator.add]
    ratio: Annotated[float, operator.add]
    pair: Annotated[tuple[int, ...], operator.add]


@SHAPES.add
def fields_that_add_up() -> Shape:
    a = constant({"total": 5, "text": "a", "items": ["a"], "ratio": 0.1, "pair": (1,)})
    b = constant({"total": 7, "text": "b", "items": ["b", 2], "ratio": 0.2, "pair": (2, 3)})
    c = constant({"total": -1, "items": [], "text": ""})
    given = {"total": 10, "text": ">", "items": [0], "ratio": 0.3, "pair": (0,)}
    return Shape(graph=over(Sums, PARALLEL, a=a, b=b, c=c), inputs=[{}, given])


def higher(old: int, new: int) -> int:
    return max(old, new)


class Operators(TypedDict, total=False):
    union: Annotated[dict[str, int], operator.or_]
    names: Annotated[set[str], operator.or_]
    common: Annotated[set[str], operator.and_]
    product: Annotated[int, operator.mul]
    highest: Annotated[int, higher]


@SHAPES.add
def fields_with_other_operators() -> Shape:
    seen: list[Any] = []

    def c(state: Operators) -> dict[str, Any]:
        seen.append((state["union"], state["names"], state["common"], state["product"]))
        return {"union": {"y": 0}, "product": 2, "highest": 3}

    a = constant(
        {"union": {"x": 1}, "names": {"a"}, "common": {"p", "q"}, "product": 3, "highest": 9}
    )
    b = constant(
        {"union": {"x": 2, "y": 2}, "names": {"b"}, "common": {"q"}, "product": 5, "highest": 4}
    )
    given = {"union": {"z": 9}, "names": {"z"}, "common": {"p", "q"}, "product": 7, "highest": 1}
    graph = over(Operators, PARALLEL, a=a, b=b, c=c)
    return Shape(graph=graph, inputs=[{}, given], seen=seen)


def shifted(old: int | None, new: int) -> int:
    """Order matters: a digit is appended."""
    return (old or 0) * 10 + new


class Custom(TypedDict, total=False):
    digits: Annotated[int, shifted]
    maybe: Annotated[int | None, shifted]
    unique: Annotated[list[str], lambda old, new: sorted({*old, *new})]


@SHAPES.add
def reducers_of_ones_own_in_parallel() -> Shape:
    seen: list[Any] = []

    def c(state: Custom) -> dict[str, Any]:
        seen.append((state.get("digits"), state.get("maybe"), state.get("unique")))
        return {"digits": 3, "unique": ["m"]}

    a = constant({"digits": 1, "maybe": 4, "unique": ["z", "a"]})
    b = constant({"digits": 2, "unique": ["a", "k"]})
    graph = over(Custom, PARALLEL, a=a, b=b, c=c)
    return Shape(graph=graph, inputs=[{}, {"digits": 9, "maybe": 1, "unique": ["q"]}], seen=seen)


@SHAPES.add
def reducer_that_fails() -> Shape:
    graph = over(Sums, PARALLEL, a=constant({"total": "text"}), b=constant({}), c=constant({}))
    return Shape(graph=graph, inputs=[{"total": 1}])


@SHAPES.add
def messages_are_replaced_by_id() -> Shape:
    def a(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("better", id="2"), AIMessage(str(len(state["messages"])))]}

    graph = over(MessagesState, ["__start__>a"], a=a)
    given = [HumanMessage("one", id="1"), AIMessage("two", id="2")]
    return Shape(graph=graph, inputs=[{"messages": given}, {"messages": [("user", "hi")]}])


@SHAPES.add
def messages_are_removed() -> Shape:
    def a(state: MessagesState) -> dict[str, Any]:
        last = state["messages"][-1]
        return {"messages": [RemoveMessage(id=last.id or "")]}

    def b(_state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage("new", id="n")]}

    def c(_state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id="no such message")]}

    given = {"messages": [HumanMessage("one", id="1"), HumanMessage("two")]}
    graph = over(MessagesState, ["__start__>a"], a=a, b=b, c=c)
    graph.add_conditional_edges(
        "a", lambda state: "b" if state["messages"][0].id == "1" else "c", ["b", "c"]
    )
    return Shape(graph=graph, inputs=[given, {"messages": ["one", "two"]}])


@SHAPES.add
def messages_without_ids_keep_the_ids_they_get() -> Shape:
    seen: list[Any] = []

    class Chat(TypedDict, total=False):
        messages: Annotated[list[AnyMessage], add_messages]
        first: str | None

    def a(_state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage("a"), {"role": "user", "content": "dict"}]}

    def b(state: Chat) -> dict[str, Any]:
        return {"first": state["messages"][0].id}

    def c(state: Chat) -> dict[str, Any]:
        seen.append((state.get("first") == state["messages"][0].id, len(state["messages"])))
        return {"messages": [AIMessage("replaced", id=state.get("first"))]}

    graph = over(Chat, ["__start__>a", "a>b", "b>c"], a=a, b=b, c=c)
    return Shape(graph=graph, inputs=[{}, {"messages": "hello"}], seen=seen)


@SHAPES.add
def messages_from_parallel_nodes() -> Shape:
    def say(text: str) -> Any:
        def node(_state: MessagesState) -> dict[str, Any]:
            return {"messages": AIMessage(text, id=text[0])}

        return node

    graph = over(MessagesState, PARALLEL, a=say("x from a"), b=say("x from b"), c=say("c"))
    return Shape(graph=graph, inputs=[{"messages": []}, {"messages": [HumanMessage("q", id="x")]}])


def _extended(state: list[str], batch: Sequence[list[str]]) -> list[str]:
    return [*state, *(f"{len(batch)}:{item}" for update in batch for item in update)]


class Delta(TypedDict, total=False):
    items: Annotated[list[str], DeltaChannel(_extended)]


@SHAPES.add
def delta_field_gets_the_writes_of_a_step_at_once() -> Shape:
    seen: list[Any] = []

    def c(state: Delta) -> dict[str, Any]:
        seen.append(state["items"])
        return {"items": ["c"]}

    graph = over(
        Delta, PARALLEL, a=constant({"items": ["a"]}), b=constant({"items": ["b", "B"]}), c=c
    )
    return Shape(graph=graph, inputs=[{}, {"items": ["given"]}], seen=seen)


@SHAPES.add
def delta_field_is_overwritten() -> Shape:
    overwrite: Any = Overwrite(["fresh"])
    graph = over(
        Delta,
        ["__start__>a", "a>b"],
        a=constant({"items": overwrite}),
        b=constant({"items": ["b"]}),
    )
    return Shape(graph=graph, inputs=[{"items": ["old"]}])


@SHAPES.add
def field_is_overwritten_past_its_reducer() -> Shape:
    def a(_state: Sums) -> dict[str, Any]:
        return {"total": Overwrite(100), "items": Overwrite(["fresh"])}

    def b(_state: Sums) -> dict[str, Any]:
        return {"total": 1, "items": ["more"], "text": "b"}

    graph = over(Sums, ["__start__>a", "a>b"], a=a, b=b)
    return Shape(graph=graph, inputs=[{}, {"total": 5, "items": ["old"]}])


@SHAPES.add
def messages_are_overwritten() -> Shape:
    def a(_state: MessagesState) -> dict[str, Any]:
        return {"messages": Overwrite([AIMessage("only", id="only")])}

    graph = over(MessagesState, ["__start__>a"], a=a)
    return Shape(graph=graph, inputs=[{"messages": [HumanMessage("old", id="1")]}])


@SHAPES.add
def messages_are_overwritten_with_messages_that_have_no_ids() -> Shape:
    def a(_state: MessagesState) -> dict[str, Any]:
        return {"messages": Overwrite([AIMessage("only")])}

    def b(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{state['messages'][0].id}", id="b")]}

    graph = over(MessagesState, ["__start__>a", "a>b"], a=a, b=b)
    return Shape(graph=graph, inputs=[{"messages": [HumanMessage("old", id="1")]}])


@SHAPES.add
def values_of_a_step_that_writes_nothing_are_those_before() -> Shape:
    a = constant({"trace": ["a"], "ephemeral": "a", "topic": ["a"], "anything": 1})
    graph = over(Passing, ["__start__>a", "a>b", "b>c"], a=a, b=constant(None), c=constant({}))
    return Shape(graph=graph, inputs=[{}, {"ephemeral": "in"}])


@SHAPES.add
def field_is_overwritten_twice_in_a_step() -> Shape:
    a = constant({"digits": Overwrite(1)})
    graph = over(Custom, PARALLEL, a=a, b=a, c=constant({}))
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def sum_is_overwritten_beside_other_writes() -> Shape:
    a, b = constant({"total": Overwrite(5), "items": ["a"]}), constant({"total": 1, "items": ["b"]})
    c = constant({"items": Overwrite(["c"]), "text": Overwrite("c")})
    edges = [*PARALLEL[:2], "__start__>c"]
    inputs = [{}, {"total": 4, "items": [0], "text": "in"}]
    return Shape(graph=over(Sums, edges, a=a, b=b, c=c), inputs=inputs)


@SHAPES.add
def sum_is_overwritten_twice_in_a_step() -> Shape:
    a = constant({"total": Overwrite(5)})
    return Shape(graph=over(Sums, PARALLEL, a=a, b=a, c=constant({})), inputs=[{}])


@SHAPES.add
def field_is_overwritten_beside_other_writes() -> Shape:
    a, b = constant({"digits": 5}), constant({"digits": Overwrite(1)})
    graph = over(Custom, PARALLEL, a=a, b=b, c=constant({"digits": 2}))
    return Shape(graph=graph, inputs=[{"digits": 4}])


@SHAPES.add
def fields_that_last_for_a_step() -> Shape:
    seen: list[Any] = []

    def look(name: str, update: dict[str, Any]) -> Any:
        def node(state: Passing) -> dict[str, Any]:
            now = [
                state.get("ephemeral"), state.get("topic"), state.get("kept"),
                state.get("anything"), state.get("untracked"),
            ]  # fmt: skip
            seen.append((name, now))
            return {"trace": [name], **update}

        return node

    graph = over(
        Passing,
        ["__start__>a", "a>b", "b>c", "c>d"],
        a=look(
            "a", {"ephemeral": "a", "topic": ["a"], "kept": ["a"], "anything": 1, "untracked": "a"}
        ),
        b=look("b", {"topic": ["b1", "b2"], "kept": "b"}),
        c=look("c", {"anything": 3}),
        d=look("d", {}),
    )
    given = {"ephemeral": "in", "topic": ["in"], "kept": ["in"], "anything": 9, "untracked": "in"}
    return Shape(graph=graph, inputs=[{}, given], seen=seen)


@SHAPES.add
def passing_fields_written_in_parallel() -> Shape:
    a = constant({"topic": ["a"], "kept": ["a"], "anything": 1})
    b = constant({"topic": ["b"], "kept": ["b"], "anything": 1})

    def c(state: Passing) -> dict[str, Any]:
        return {"trace": [f"{state.get('topic')} {state.get('kept')} {state.get('anything')}"]}

    return Shape(graph=over(Passing, PARALLEL, a=a, b=b, c=c), inputs=[{}])


def _mark(_state: Passing) -> dict[str, Any]:
    return {"ephemeral": "e", "topic": ["t"], "anything": 1}


def _trace(_state: Passing) -> dict[str, Any]:
    return {"trace": ["x"]}


def _nothing(_state: Passing) -> dict[str, Any]:
    return {}


PASSING_INPUTS: tuple[dict[str, Any], ...] = (
    {},
    {"trace": ["in"]},
    {"ephemeral": "in", "topic": ["in"]},
)


@SHAPES.add
def passing_fields_before_steps_that_write_nothing() -> Shape:
    edges = ["__start__>a", "a>b", "b>c"]
    graph = over(Passing, edges, a=_mark, b=_nothing, c=_nothing)
    return Shape(graph=graph, inputs=PASSING_INPUTS)


@SHAPES.add
def passing_fields_before_steps_that_write_others() -> Shape:
    edges = ["__start__>a", "a>b", "b>c"]
    graph = over(Passing, edges, a=_mark, b=_trace, c=_nothing)
    return Shape(graph=graph, inputs=PASSING_INPUTS)


@SHAPES.add
def passing_fields_beside_steps_that_write_nothing() -> Shape:
    edges = [*PARALLEL, "c>d", "d>e"]
    nodes = {"a": _nothing, "b": _mark, "c": _nothing, "d": _mark, "e": constant(None)}
    return Shape(graph=over(Passing, edges, **nodes), inputs=PASSING_INPUTS)


@SHAPES.add
def passing_fields_of_the_input_only() -> Shape:
    graph = over(Passing, ["__start__>a", "a>b"], a=_nothing, b=_nothing)
    return Shape(graph=graph, inputs=PASSING_INPUTS)


@SHAPES.add
def passing_fields_of_a_thread() -> Shape:
    graph = over(Passing, ["__start__>a", "a>b"], a=_mark, b=_nothing)
    return Shape(
        graph=graph.compile(checkpointer=InMemorySaver()),
        inputs=PASSING_INPUTS,
        config={"configurable": {"thread_id": "t"}},
    )


@SHAPES.add
def ephemeral_field_written_twice_in_the_last_step_of_the_limit() -> Shape:
    a = constant({"ephemeral": "a"})
    graph = over(Passing, PARALLEL, a=a, b=a, c=constant({}))
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 1})


@SHAPES.add
def ephemeral_field_written_twice_in_a_step() -> Shape:
    a = constant({"ephemeral": "a"})
    return Shape(graph=over(Passing, PARALLEL, a=a, b=a, c=constant({})), inputs=[{}])


@SHAPES.add
def untracked_field_written_twice_in_a_step() -> Shape:
    a = constant({"untracked": "a"})
    return Shape(graph=over(Passing, PARALLEL, a=a, b=a, c=constant({})), inputs=[{}])


@SHAPES.add
def aggregate_given_as_a_channel() -> Shape:
    class State(TypedDict, total=False):
        total: Annotated[int, BinaryOperatorAggregate(int, operator.add)]

    a = constant({"total": 2})
    return Shape(graph=over(State, PARALLEL, a=a, b=a, c=a), inputs=[{}, {"total": 1}])


@SHAPES.add
def writes_that_come_or_not() -> Shape:
    def a(state: Traced) -> dict[str, Any]:
        update: dict[str, Any] = {"trace": [f"a{state.get('n')}"]}
        if state.get("n", 0) % 2:
            update["n"] = state["n"] + 1
        return update

    def b(state: Traced) -> dict[str, Any] | None:
        return {"trace": ["b"]} if state.get("n") == 2 else None

    graph = connect(traced(a=a, b=b, c=a), "__start__>a", "a>b", "b>c")
    return Shape(graph=graph, inputs=[{}, {"n": 1}, {"n": 2}, {"n": 3}])


@SHAPES.add
def list_without_a_reducer_is_replaced() -> Shape:
    class Plain(TypedDict, total=False):
        items: list[str]

    graph = over(Plain, ["__start__>a", "a>b"], a=constant({"items": ["new"]}), b=constant({}))
    return Shape(graph=graph, inputs=[{"items": ["old"]}, {}])


@SHAPES.add
def one_node_writes_an_added_field_several_times() -> Shape:
    def a(_state: Sums) -> Any:
        return [
            {"total": 1, "items": ["a"]},
            Command(update=[("total", 2), ("total", 3), ("items", ["b"])]),
        ]

    return Shape(graph=over(Sums, ["__start__>a", "a>b"], a=a, b=a), inputs=[{}, {"total": 1}])
