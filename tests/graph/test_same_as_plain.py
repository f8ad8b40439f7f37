"""Single features of graphs: the executor returns and raises the same as LangGraph."""

import asyncio
import contextlib
import io
import operator
import re
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.channels import DeltaChannel, UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError, NodeTimeoutError
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.message import push_message
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.pregel._messages import _messages_delta_reducer
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from typing_extensions import override

from langchain_sequrity import ChatSequrity
from tests.graph.running import secured
from tests.graph.twins import thread

pytestmark = pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.UnknownAccess")

THREAD = thread()


class Open(TypedDict, total=False):
    trace: Annotated[list[Any], operator.add]
    anything: Any
    values: list[Any]


class Chat(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


class Deltas(TypedDict, total=False):
    messages: Annotated[list[Any], DeltaChannel(_messages_delta_reducer)]


class Untracked(TypedDict, total=False):
    trace: Annotated[list[Any], operator.add]
    lock: Annotated[Any, UntrackedValue]


class Answer(BaseModel):
    ok: bool


class Name(str, Enum):  # noqa: UP042 - a `StrEnum` prints differently
    FIRST = "first one"
    SECOND = "second"


def line(state: Any, **nodes: Any) -> Any:
    """A graph with one node after the other."""
    graph: Any = StateGraph(state)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node).add_edge(before, name)
        before = name
    return graph


def said(state: Any) -> list[Any]:
    messages = state if isinstance(state, list) else state["messages"]
    return [(one.type, one.content) for one in messages]


@tool
def inject(x: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Look at the state."""
    return f"{x} {len(state['messages'])} {sorted(state)}"


@tool
def runtime_of(x: int, runtime: ToolRuntime) -> str:
    """Look at the runtime."""
    return f"{x} {sorted(runtime.state)}"


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def call_of(name: str, **arguments: Any) -> Any:
    return {"name": name, "args": arguments, "id": "c", "type": "tool_call"}


def runs_tool(one: Any) -> Callable[[], Any]:
    def node(_state: Chat) -> Any:
        return ToolNode([one]).invoke([call_of(one.name, x=1)])

    return lambda: line(Chat, n=node)


PREPARED = ToolNode([runtime_of])


def runs_prepared_tool() -> Any:
    def node(_state: Chat) -> Any:
        return PREPARED.invoke([call_of("runtime_of", x=2)])

    return line(Chat, n=node)


def pushes() -> Any:
    def node(_state: Chat) -> Any:
        push_message(AIMessage("pushed", id="1"))
        return {}

    return line(Chat, n=node)


def sends_by_name() -> Any:
    def route(state: Chat) -> Any:
        return [Send(one["name"], one) for one in state["messages"][-1].tool_calls]

    calls = [call_of("foo", q="1")]
    graph = line(Chat, agent=lambda _: {"messages": [AIMessage("", tool_calls=calls, id="9")]})
    graph.add_node(
        "foo", lambda one: {"messages": [ToolMessage(one["args"]["q"], tool_call_id="c", id="10")]}
    )
    return graph.add_conditional_edges("agent", route)


def named_by_enum() -> Any:
    graph: Any = StateGraph(Open)
    graph.add_node(Name.FIRST, lambda _: {"trace": ["a"]})
    graph.add_node(Name.SECOND, lambda _: {"trace": ["b"]})
    graph.add_node("last", lambda _: {"trace": ["c"]})
    graph.add_edge(START, Name.FIRST).add_edge(Name.SECOND, END)
    graph.add_edge([Name.FIRST, Name.SECOND], "last")
    return graph.add_conditional_edges(Name.FIRST, lambda _: "x", {"x": Name.SECOND})


def tools_on_a_list() -> Any:
    return line(Annotated[list[Any], add_messages], tools=ToolNode([search]))


def bound_later() -> Any:
    def made() -> Iterator[Any]:
        yield line(Open, n=lambda _: {"trace": [later]})
        later: int = 5
        yield None

    steps = made()
    graph = next(steps)
    graph.bind_later = lambda: next(steps)
    return graph


def counts() -> Any:
    number = 0

    def node(_state: Open) -> None:
        nonlocal number
        number += 1
        return {"trace": [number]}  # type: ignore[return-value] # the case tests this

    return line(Open, n=node)


class Opaque:
    """An object that LangGraph cannot store."""

    def __init__(self, x: int) -> None:
        self.x = x

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def holds_objects() -> Any:
    def first(_state: Open) -> Any:
        return {
            "trace": [AIMessage("m", id="1")],
            "values": [Answer(ok=True), {3}],
            "anything": Decimal("1.5"),
        }

    def second(state: Open) -> Any:
        kept = [type(one).__name__ for one in (*state["trace"], *state["values"])]
        return {"trace": [kept, state["anything"]], "anything": state["values"][0]}

    return line(Open, first=first, second=second)


def holds_functions() -> Any:
    def second(state: Open) -> Any:
        return {
            "trace": [state["anything"](2), state["trace"][0].x],
            "anything": None,
            "values": [],
        }

    held = {"anything": lambda x: x + 1, "trace": [Opaque(3)]}
    return line(Open, first=lambda _: held, second=second)


def sends_objects() -> Any:
    def route(_state: Open) -> Any:
        return [Send("n", Command(update={"x": number})) for number in range(2)]

    graph = line(Open, a=lambda _: {})
    graph.add_node("n", lambda command: {"trace": [command.update["x"]]})
    return graph.add_conditional_edges("a", route, ["n"])


def routes_by_object() -> Any:
    def route(state: Open) -> str:
        return "n" if state["anything"] == Opaque(1) else END

    graph = line(Open, a=lambda _: {"anything": Opaque(1)})
    graph.add_node("n", lambda _: {"anything": None, "trace": ["came"]})
    return graph.add_conditional_edges("a", route, ["n", END])


def asks_for_an_answer() -> Any:
    def node(_state: Open) -> Any:
        return {"anything": interrupt("sure?", response_schema=Answer)}

    return line(Open, n=node, m=lambda state: {"trace": [state["anything"].ok]})


def keeps_a_lock() -> Any:
    def last(state: Untracked) -> Any:
        return {"trace": [type(state.get("lock")).__name__]}

    return line(
        Untracked, n=lambda _: {"lock": threading.Lock()}, m=last, asks=asks_once, late=last
    )


def asks_once(_state: Untracked) -> Any:
    return {"trace": [interrupt("go on?")]}


def has_a_timeout() -> Any:
    async def node(state: Any) -> Any:
        await asyncio.sleep(state["seconds"])
        return {"trace": ["done"]}

    graph: Any = StateGraph(Open).add_node("n", node)
    late, soon = Send("n", {"seconds": 60}, timeout=0.05), Send("n", {"seconds": 0}, timeout=60)
    return graph.add_conditional_edges(START, lambda s: [late if s["anything"] else soon], ["n"])


def returns_one_message() -> Any:
    return line(
        Chat,
        one=lambda _: {"messages": AIMessage("q", id="1")},
        pair=lambda _: {"messages": [("user", "q")]},
    )


def loops() -> Any:
    graph = line(Open, n=lambda _: {"trace": [1]})
    return graph.add_conditional_edges(
        "n", lambda state: "n" if len(state["trace"]) < 50 else END, ["n", END]
    )


def looks_at_the_config() -> Any:
    def node(_state: Open, config: RunnableConfig) -> Any:
        own = {key: one for key, one in config["metadata"].items() if key in ("a", "b")}
        return {"trace": [sorted(config["tags"] or []), own, config["configurable"].get("q")]}

    return line(Open, n=node)


def sleeps() -> Any:
    async def node(_state: Open) -> Any:
        await asyncio.sleep(60)

    compiled = line(Open, n=node).compile()
    compiled.step_timeout = 0.05
    return compiled


class _Model(GenericFakeChatModel):
    @override
    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


def agent() -> Any:
    return create_agent(_Model(messages=iter([AIMessage("hi", id="1")])), [], name="bob")


def deltas(graph: Any) -> Any:
    graph.invoke({"messages": [HumanMessage("q")]}, THREAD)
    graph.update_state(THREAD, {"messages": [HumanMessage("edit")]})
    once, twice = (graph.get_state(THREAD).values["messages"] for _ in range(2))
    return [
        one.id is not None and one.id == other.id for one, other in zip(once, twice, strict=True)
    ]


async def events(graph: Any) -> Any:
    return [
        (one["event"], one["name"])
        async for one in graph.astream_events({"trace": []}, THREAD, version="v2")
    ]


def printed(graph: Any) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        graph.invoke({"trace": [1] * 48})
    return re.sub(r"[0-9a-f-]{36}|\d{4}-\d\d-\d\dT[\d:.+]+", "", out.getvalue())


def resumed(answer: Any) -> Callable[[Any], Any]:
    def run(graph: Any) -> Any:
        return graph.invoke({"trace": []}, THREAD), graph.invoke(Command(resume=answer), THREAD)

    return run


def streamed(mode: Any) -> Callable[[Any], Any]:
    def run(graph: Any) -> Any:
        chunks = list(graph.stream({"messages": []}, THREAD, stream_mode=mode))
        return [{key: one for key, one in chunk.items() if key != "id"} for chunk in chunks]

    return run


def asked(question: Any, **config: Any) -> Callable[[Any], Any]:
    return lambda graph: graph.invoke(question, {**THREAD, **config})


class Case(NamedTuple):
    """A graph, a run of it, and the error that the run must end with, if any.

    A `StateGraph` is compiled with a checkpointer, so its runs need a thread.
    """

    make: Callable[[], Any]
    run: Callable[[Any], Any]
    raises: type[Exception] | None = None


EMPTY: Any = {"trace": []}
NO_MESSAGES: Any = {"messages": []}
CASES = {
    "a message that a node pushes": Case(pushes, lambda g: said(g.invoke(NO_MESSAGES, THREAD))),
    "a tool with the state in a node": Case(
        runs_tool(inject), lambda g: said(g.invoke({"messages": ["hi"]}, THREAD))
    ),
    "a tool with the runtime in a node": Case(
        runs_tool(runtime_of), lambda g: said(g.invoke({"messages": ["hi"]}, THREAD))
    ),
    "a tool node from outside in a node": Case(
        runs_prepared_tool, lambda g: said(g.invoke({"messages": ["hi"]}, THREAD))
    ),
    "ids of messages in a delta channel": Case(
        lambda: line(Deltas, n=lambda _: {"messages": [AIMessage("x")]}), deltas
    ),
    "packets to a node that is looked up": Case(
        sends_by_name, lambda g: said(g.invoke(NO_MESSAGES, THREAD))
    ),
    "nodes named by an enum": Case(named_by_enum, asked(EMPTY)),
    "a tool node whose state is a list": Case(
        tools_on_a_list,
        lambda g: said(g.invoke([AIMessage("", tool_calls=[call_of("search", query="q")])], THREAD)),
    ),
    "a node that returns something and is annotated otherwise": Case(counts, asked(EMPTY)),
    "objects in open fields": Case(holds_objects, asked(EMPTY)),
    "objects in the input": Case(
        lambda: line(Open, n=lambda s: {"trace": [type(s["anything"]).__name__]}),
        asked({"trace": [], "anything": Answer(ok=False)}),
    ),
    "objects that cannot be stored": Case(holds_functions, asked(EMPTY), TypeError),
    "objects that need not be stored": Case(
        lambda: holds_functions().compile(), lambda g: g.invoke(EMPTY)["trace"][1:]
    ),
    "commands in packets": Case(sends_objects, asked(EMPTY)),
    "a router that looks at an object": Case(
        lambda: routes_by_object().compile(), lambda g: g.invoke(EMPTY)["trace"]
    ),
    "an answer in a class": Case(asks_for_an_answer, resumed({"ok": True})),
    "a lock that is not stored": Case(
        keeps_a_lock, lambda g: [one["trace"] for one in resumed("on")(g)]
    ),
    "a packet with a timeout": Case(
        has_a_timeout,
        lambda g: asyncio.run(g.ainvoke({**EMPTY, "anything": True}, THREAD)),
        NodeTimeoutError,
    ),
    "a packet with a timeout that is not reached": Case(
        has_a_timeout, lambda g: asyncio.run(g.ainvoke({**EMPTY, "anything": False}, THREAD))
    ),
    "events of nodes": Case(
        lambda: line(Open, n=lambda _: {"trace": ["n"]}), lambda g: asyncio.run(events(g))
    ),
    "updates as nodes returned them": Case(returns_one_message, streamed("updates")),
    "results as nodes returned them": Case(returns_one_message, streamed("tasks")),
    "a bound limit of steps": Case(
        lambda: loops().compile().with_config(recursion_limit=5), asked(EMPTY), GraphRecursionError
    ),
    "a limit of steps of the call": Case(
        lambda: loops().compile().with_config(recursion_limit=5),
        asked({"trace": [1] * 40}, recursion_limit=60),
    ),
    "a bound config": Case(
        lambda: looks_at_the_config().compile().with_config(
            tags=["x"], metadata={"a": 1}, configurable={"q": 2}
        ),
        asked(EMPTY, tags=["y"], metadata={"b": 2}),
    ),
    "a limit of time": Case(sleeps, lambda g: asyncio.run(g.ainvoke(EMPTY)), TimeoutError),
    "debug": Case(lambda: loops().compile(debug=True), printed),
    "an agent": Case(
        agent, lambda g: said(g.invoke({"messages": [HumanMessage("q", id="2")]}))
    ),
    "an agent's own config": Case(
        agent, lambda g: (g.config["metadata"], g.config["recursion_limit"], g.name, g.debug)
    ),
    "breakpoints": Case(
        lambda: loops().compile(checkpointer=InMemorySaver(), interrupt_before=["n"]),
        lambda g: (g.invoke(EMPTY, THREAD), g.get_state(THREAD).next, g.invoke(None, THREAD)),
    ),
}  # fmt: skip


def came_of(graph: Any, case: Case) -> str:
    """The result of a run, or the error that the case declares, without what differs in each run."""
    if case.raises is None:
        text = repr(case.run(graph))
    else:
        with pytest.raises(case.raises) as caught:
            case.run(graph)
        text = repr(caught.value)
    return re.sub(r"id='[0-9a-f]{32}'|elapsed: [\d.]+s", "", text)


@pytest.mark.long(sample=16)
@pytest.mark.parametrize("name", CASES)
def test_the_executor_does_the_same_as_langgraph(name: str, model: ChatSequrity) -> None:
    case = CASES[name]
    plain, other = case.make(), case.make()
    if isinstance(plain, StateGraph):
        graph = plain.compile(checkpointer=InMemorySaver())
        executor = secured(other, model, checkpointer=InMemorySaver())
    else:
        graph, executor = plain, secured(other, model)
    assert came_of(executor, case) == came_of(graph, case)


def test_an_outer_variable_that_is_set_later_is_read_when_the_node_runs(
    model: ChatSequrity,
) -> None:
    graph = bound_later()
    executor = secured(graph, model)
    graph.bind_later()
    assert executor.invoke({"trace": []}) == {"trace": [5]}
