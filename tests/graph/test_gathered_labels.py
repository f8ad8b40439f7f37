"""What was labelled while a node ran is labelled in its result, whatever way it came there."""

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy

from langchain_sequrity import (
    ChatSequrity,
    LangGraphExecutor,
    Trace,
    labeled_tool_result,
    with_labels,
)
from langchain_sequrity.labels import GatheredLabels
from langchain_sequrity.local import LocalServer

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_sequrity.graph.reading.access.UnknownAccess"
)


class Mail(TypedDict, total=False):
    text: str
    sent: str


def labelled(_: Mail) -> Any:
    return with_labels({"text": "hi"}, producers=["inbox"], tags=["untrusted"])


async def alabelled(state: Mail) -> Any:
    return labelled(state)


@tool(response_format="content_and_artifact")
def read_mail(number: int) -> Any:
    """Read a mail."""
    return labeled_tool_result(f"hi {number}", producers=["inbox"], tags=["untrusted"])


def chain(*nodes: tuple[str, Any], schema: Any = Mail) -> Any:
    graph = StateGraph(schema)
    before = START
    for name, run in nodes:
        graph.add_node(name, run)
        graph.add_edge(before, name)
        before = name
    return graph


def subgraph(_: ChatSequrity) -> Any:
    return chain(("look", labelled)).compile()


def subgraph_that_goes_on(_: ChatSequrity) -> Any:
    """The labelled update is another one than that which leaves the graph."""
    return chain(("look", labelled), ("sum", lambda state: {"text": state["text"] * 2})).compile()


def subgraph_within(model: ChatSequrity) -> Any:
    return chain(("inner", subgraph(model))).compile()


def function_that_invokes_a_graph(model: ChatSequrity) -> Any:
    inner = subgraph(model)
    return lambda _: {"text": inner.invoke({})["text"]}


def function_that_calls_a_tool(_: ChatSequrity) -> Any:
    return lambda _: {"text": read_mail.invoke({"number": 1})}


def function_that_maps_a_tool(_: ChatSequrity) -> Any:
    """Its calls run in threads."""
    return lambda _: {"text": "".join(read_mail.batch([{"number": 1}, {"number": 2}]))}


def sequence(_: ChatSequrity) -> Any:
    return RunnableLambda(labelled) | RunnableLambda(lambda update: {"text": update["text"]})


def command(_: ChatSequrity) -> Any:
    return lambda _: Command(update={"text": read_mail.invoke({"number": 1})})


class Messages(TypedDict, total=False):
    messages: list[AnyMessage]
    text: str


def agent_that_keeps_its_messages(_: ChatSequrity) -> Any:
    """A tool node whose message stays inside."""
    call = {"name": "read_mail", "args": {"number": 1}, "id": "1"}
    inner = chain(
        ("ask", lambda _: {"messages": [AIMessage("", tool_calls=[call])]}),
        ("tools", ToolNode([read_mail])),
        ("tell", lambda state: {"text": str(state["messages"][-1].content)}),
        schema=Messages,
    ).compile()
    return lambda _: {"text": inner.invoke({})["text"]}


def executor(model: ChatSequrity) -> Any:
    return LangGraphExecutor(chain(("look", labelled)), model)


def executor_that_is_invoked(model: ChatSequrity) -> Any:
    inner = executor(model)
    return lambda _: {"text": inner.invoke({})["text"]}


WAYS: list[Callable[[ChatSequrity], Any]] = [
    subgraph, subgraph_that_goes_on, subgraph_within, function_that_invokes_a_graph,
    function_that_calls_a_tool, function_that_maps_a_tool, sequence, command,
    agent_that_keeps_its_messages, executor, executor_that_is_invoked,
]  # fmt: skip


def sent_labels(
    read: Any, model: ChatSequrity, *, is_async: bool = False, **options: Any
) -> tuple[set[str], set[str], set[str]]:
    """Producers, consumers and tags of what `send` gets after `read`."""
    graph = chain()
    graph.add_node("read", read, **options)
    graph.add_node("send", lambda state: {"sent": state["text"]})
    graph.add_edge(START, "read").add_edge("read", "send")
    trace = Trace()
    secure = LangGraphExecutor(graph, model)
    if is_async:
        asyncio.run(secure.ainvoke({}, {"callbacks": [trace]}))
    else:
        secure.invoke({}, {"callbacks": [trace]})
    [labels] = [call.labels for run in trace.runs for call in run.calls if call.node == "send"]
    assert labels is not None
    [meta] = labels.values()
    tags = {name for name in meta["tags"] if not name.startswith("__")}
    return set(meta["producers"]), set(meta["consumers"]), tags


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_labels_reach_the_result(
    model: ChatSequrity, way: Callable[[ChatSequrity], Any], *, is_async: bool
) -> None:
    producers, consumers, tags = sent_labels(way(model), model, is_async=is_async)

    assert {"read", "inbox"} <= producers
    assert tags == {"untrusted"}
    assert consumers == {"*"}


def test_labels_of_a_graph_of_async_nodes_reach_the_result(model: ChatSequrity) -> None:
    inner = chain(("look", alabelled)).compile()
    assert sent_labels(inner, model, is_async=True)[2] == {"untrusted"}


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("merge", ({"read", "inbox", "clerk"}, {"untrusted", "checked"})),
        ("replace", ({"read", "clerk"}, {"checked"})),
        ("ignore", ({"read", "inbox"}, {"untrusted"})),
    ],
)
def test_what_a_node_says_of_its_own_result_with_replace_is_the_last_word(
    combine: Any, expected: Any
) -> None:
    def read(_: Mail) -> Any:
        text = read_mail.invoke({"number": 1})
        return with_labels({"text": text}, producers=["clerk"], tags=["checked"], combine=combine)

    with LocalServer(replacing_tools=["read"]) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        producers, _, tags = sent_labels(read, model)
    assert (producers, tags) == expected


def test_only_those_may_receive_a_result_who_may_receive_all_that_went_into_it(
    model: ChatSequrity,
) -> None:
    def read(_: Mail) -> Any:
        first = with_labels({"text": "a"}, consumers=["ann", "bob"])
        return with_labels({"text": first["text"] + "b"}, consumers=["bob", "cy"])

    assert sent_labels(read, model)[1] == {"bob"}


def test_nothing_is_left_of_an_attempt_that_failed_or_of_another_call(model: ChatSequrity) -> None:
    attempts = []

    def read(state: Mail) -> Any:
        attempts.append(state)
        if len(attempts) == 1:
            with_labels({}, tags=["failed"])
            raise ConnectionError
        return {"text": "a"}

    again = RetryPolicy(initial_interval=0.001, retry_on=ConnectionError)
    assert sent_labels(read, model, retry_policy=again) == ({"read"}, {"*"}, set())
    assert len(attempts) == 2


def test_labels_are_gathered_by_the_innermost_only_and_by_nobody_afterwards() -> None:
    with GatheredLabels() as outer:
        with GatheredLabels() as inner:
            labelled({})
        assert outer.labels is None
    labelled({})

    assert inner.labels is not None
    assert inner.labels.tags == {"untrusted"}
    assert outer.labels is None
