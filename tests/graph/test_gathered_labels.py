"""Labels that are given while a node runs are on its result, whatever way the data took."""

import asyncio
import itertools
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send

from langchain_sequrity import (
    ChatSequrity,
    LangGraphExecutor,
    NodeOptions,
    Trace,
    labeled_tool_result,
    with_labels,
)
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import GatheredLabels, Labels, labels_given, labels_of_error
from langchain_sequrity.local import LocalServer

pytestmark = pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.UnknownAccess")


class Mail(TypedDict, total=False):
    text: str
    sent: str


def labelled(_: Mail) -> Any:
    return with_labels({"text": "hi"}, producers=["inbox"], tags=["untrusted"])


def look_once(state: Mail) -> Any:
    return {"sent": "again"} if "text" in state else labelled(state)


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
    """The labelled update is not the update that leaves the graph."""
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
    """The tool's message stays inside the inner graph."""
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
    """Producers, consumers and tags of the value that `send` gets after `read`."""
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
def test_labels_that_are_given_inside_a_node_reach_its_result(
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
def test_only_replace_on_a_nodes_own_result_replaces_the_labels_of_its_tools(
    combine: Any, expected: Any
) -> None:
    def read(_: Mail) -> Any:
        text = read_mail.invoke({"number": 1})
        return with_labels({"text": text}, producers=["clerk"], tags=["checked"], combine=combine)

    with LocalServer(replacing_tools=["read"]) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        producers, _, tags = sent_labels(read, model)
    assert (producers, tags) == expected


def test_the_consumers_of_a_result_are_those_that_all_its_parts_allow(
    model: ChatSequrity,
) -> None:
    def read(_: Mail) -> Any:
        first = with_labels({"text": "a"}, consumers=["ann", "bob"])
        return with_labels({"text": first["text"] + "b"}, consumers=["bob", "cy"])

    assert sent_labels(read, model)[1] == {"bob"}


def test_the_labels_of_a_failed_attempt_are_not_on_the_result_of_the_retry(
    model: ChatSequrity,
) -> None:
    attempts = []

    def read(state: Mail) -> Any:
        attempts.append(state)
        if len(attempts) == 1:
            with_labels({}, tags=["failed"])
            raise ConnectionError
        return {"text": "a"}

    again = RetryPolicy(initial_interval=0, jitter=False, retry_on=ConnectionError)
    assert sent_labels(read, model, retry_policy=again) == ({"read"}, {"*"}, set())
    assert len(attempts) == 2


# Labels from before the run, or from the service


EARLIER = with_labels({"text": "hi"}, producers=["constant"], tags=["old"])


def test_labels_of_an_update_made_before_the_run_join_those_given_during_it(
    model: ChatSequrity,
) -> None:
    def read(_: Mail) -> Any:
        read_mail.invoke({"number": 1})
        return EARLIER

    producers, _, tags = sent_labels(read, model)
    assert (producers, tags) == ({"read", "constant", "inbox"}, {"old", "untrusted"})


def test_labels_of_messages_made_before_the_run_are_on_the_result(model: ChatSequrity) -> None:
    def message(tag: str, combine: Any) -> ToolMessage:
        content, artifact = labeled_tool_result("hi", tags=[tag], combine=combine)
        return ToolMessage(content, tool_call_id="1", artifact=artifact)

    found = [message("a", "merge"), message("b", "replace"), message("c", "ignore")]
    graph = StateGraph(Messages)
    graph.add_node("read", lambda _: {"messages": found, "text": "hi"})
    graph.add_node("send", lambda state: {"text": state["text"]})
    graph.add_edge(START, "read").add_edge("read", "send")
    trace = Trace()
    LangGraphExecutor(graph, model).invoke({}, {"callbacks": [trace]})
    [labels] = [call.labels for call in trace.runs[0].calls if call.node == "send"]
    assert labels is not None
    assert {"a", "b"} <= set(labels["text"]["tags"])
    assert "c" not in labels["text"]["tags"]


def test_labels_that_the_policy_of_an_inner_executor_added_are_on_the_result(
    model: ChatSequrity,
) -> None:
    url = model.prepared.settings.connection.base_url
    policy = 'tool "look" -> @tags |= {"private"};'
    inner_model = ChatSequrity("any/model", base_url=url, policy=policy)
    inner = LangGraphExecutor(chain(("look", lambda _: {"text": "hi"})), inner_model)
    assert sent_labels(inner, model)[2] == {"private"}


def test_labels_that_the_thread_of_an_inner_executor_kept_are_on_the_result(
    model: ChatSequrity,
) -> None:
    inner = LangGraphExecutor(chain(("look", look_once)), model, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}

    def read(_: Mail) -> Any:
        return {"text": inner.invoke({}, thread)["text"]}

    for _ in range(2):
        assert sent_labels(read, model)[2] == {"untrusted"}


@pytest.mark.parametrize("is_denied", [True, False], ids=["denied", "left"])
def test_labels_that_an_inner_thread_kept_are_on_the_result_if_its_run_is_denied_or_left(
    model: ChatSequrity, *, is_denied: bool
) -> None:
    graph = chain(("look", look_once))
    saver, thread = InMemorySaver(), RunnableConfig(configurable={"thread_id": "1"})
    LangGraphExecutor(graph, model, checkpointer=saver).invoke({}, thread)
    url = model.prepared.settings.connection.base_url
    denies = ChatSequrity("any/model", base_url=url, policy='tool "look" { must deny always; }')
    denied = LangGraphExecutor(graph, denies, checkpointer=saver, on_denied="state:sent")
    inner = denied if is_denied else LangGraphExecutor(graph, model, checkpointer=saver)

    def read(_: Mail) -> Any:
        first = next(inner.stream({}, thread, stream_mode="values"))
        return {"text": first["text"]}

    assert sent_labels(read, model)[2] == {"untrusted"}


# An executor inside a node whose run does not end normally


def failing(_: Mail) -> Any:
    raise ValueError(read_mail.invoke({"number": 1}))


def leaving(state: Mail) -> Any:
    return Command(graph=Command.PARENT, update={"text": state["text"]})


def denied_after_look(model: ChatSequrity, **options: Any) -> Any:
    policy = 'tool "pay" { must deny always; }'
    url = model.prepared.settings.connection.base_url
    under = ChatSequrity("any/model", base_url=url, policy=policy)
    graph = chain(("look", labelled), ("pay", lambda state: {"sent": state["text"]}))
    return LangGraphExecutor(graph, under, **options)


def error_that_is_caught(model: ChatSequrity) -> Any:
    inner = LangGraphExecutor(chain(("look", failing)), model)

    def read(_: Mail) -> Any:
        with pytest.raises(ValueError, match="hi 1") as caught:
            inner.invoke({})
        return {"text": str(caught.value)}

    return read


def denial_that_is_caught(model: ChatSequrity) -> Any:
    inner = denied_after_look(model)

    def read(_: Mail) -> Any:
        seen: list[Any] = []
        with pytest.raises(PolicyDenied):
            seen.extend(inner.stream({}, stream_mode="updates"))
        return seen[0]["look"]

    return read


def denial_that_is_a_state(model: ChatSequrity) -> Any:
    inner = denied_after_look(model, on_denied="state:sent")
    return lambda _: {"text": inner.invoke({})["text"]}


def stream_that_is_left_half_way(model: ChatSequrity) -> Any:
    inner = executor(model)
    return lambda _: next(inner.stream({}, stream_mode="updates"))["look"]


def command_to_the_graph_around(model: ChatSequrity) -> Any:
    return LangGraphExecutor(chain(("look", labelled), ("leave", leaving)), model)


WAYS_OUT: list[Callable[[ChatSequrity], Any]] = [
    error_that_is_caught, denial_that_is_caught, denial_that_is_a_state,
    stream_that_is_left_half_way, command_to_the_graph_around,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OUT, ids=lambda way: way.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_labels_reach_the_result_if_the_inner_run_does_not_end_normally(
    model: ChatSequrity, way: Callable[[ChatSequrity], Any], *, is_async: bool
) -> None:
    options = {"destinations": ("send",)} if way is command_to_the_graph_around else {}
    producers, _, tags = sent_labels(way(model), model, is_async=is_async, **options)

    assert {"read", "inbox"} <= producers
    assert tags == {"untrusted"}


def test_the_labels_of_an_async_stream_that_is_left_early_reach_the_result(
    model: ChatSequrity,
) -> None:
    inner = executor(model)

    async def read(_: Mail) -> Any:
        stream = inner.astream({}, stream_mode="updates")
        return (await anext(stream))["look"]

    assert sent_labels(read, model, is_async=True) == (
        {"read", "inbox", "look"},
        {"*"},
        {"untrusted"},
    )


# Errors


def quote(_: Mail, error: NodeError) -> Any:
    return Command(update={"text": str(error.error)}, goto="send")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_result_of_an_error_handler_has_the_labels_of_the_failed_attempt(
    model: ChatSequrity, *, is_async: bool
) -> None:
    found = sent_labels(
        failing, model, is_async=is_async, error_handler=quote, destinations=("send",)
    )
    assert found == ({"read", "inbox"}, {"*"}, {"untrusted"})


def test_an_error_that_is_raised_again_in_another_run_adds_no_labels(
    model: ChatSequrity,
) -> None:
    error = ValueError("busy")
    options: dict[str, Any] = {"error_handler": quote, "destinations": ("send",)}

    def tells(_: Mail) -> Any:
        read_mail.invoke({"number": 1})
        raise error

    def tells_nothing(_: Mail) -> Any:
        raise error

    assert sent_labels(tells, model, **options)[2] == {"untrusted"}
    assert sent_labels(tells_nothing, model, **options) == ({"read"}, {"*"}, set())


# Routers


def sends_a_mail(_: Mail) -> Any:
    return [Send("send", {"text": read_mail.invoke({"number": 1})})]


async def asends_a_mail(state: Mail) -> Any:
    return sends_a_mail(state)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("combine", ["merge", "replace"])
@pytest.mark.parametrize("is_fused", [False, True], ids=["tool", "fused"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_send_of_a_router_has_the_labels_of_the_tools_that_the_router_called(
    combine: Any, *, is_fused: bool, is_async: bool
) -> None:
    graph = chain()
    graph.add_node("read", lambda _: with_labels({"sent": ""}, tags=["own"], combine=combine))
    graph.add_node("send", lambda state: {"sent": state["text"]})
    graph.add_edge(START, "read")
    graph.add_conditional_edges("read", asends_a_mail if is_async else sends_a_mail, ["send"])
    trace, nodes = Trace(), {"read": NodeOptions(fuse_router=is_fused)}
    with LocalServer(replacing_tools=["read"]) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        secure = LangGraphExecutor(graph, model, nodes=nodes)
        if is_async:
            asyncio.run(secure.ainvoke({}, {"callbacks": [trace]}))
        else:
            secure.invoke({}, {"callbacks": [trace]})
    [labels] = [call.labels for call in trace.runs[0].calls if call.node == "send"]
    assert labels is not None
    assert "untrusted" in labels["text"]["tags"]


def test_labels_with_combine_ignore_are_not_added_to_the_result(
    model: ChatSequrity,
) -> None:
    assert sent_labels(
        lambda _: with_labels({"text": "a"}, tags=["x"], combine="ignore"), model
    ) == ({"read"}, {"*"}, set())


# `GatheredLabels` itself


def test_labels_reach_all_enclosing_gatherers_but_none_that_has_ended() -> None:
    with GatheredLabels() as outer:
        with GatheredLabels() as inner:
            labelled({})
        labels_given(Labels(tags=frozenset({"late"})))
    labelled({"text": "nobody gathers"})

    assert inner.labels is not None
    assert inner.labels.tags == {"untrusted"}
    assert outer.labels is not None
    assert outer.labels.tags == {"untrusted", "late"}


def test_no_label_is_lost_if_many_threads_give_labels_at_once() -> None:
    names = [[f"{worker}-{number}" for number in range(100)] for worker in range(8)]

    def give(some: list[str]) -> None:
        for name in some:
            with_labels({}, tags=[name])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with GatheredLabels() as gathered, ContextThreadPoolExecutor(8) as pool:
            list(pool.map(give, names))
    finally:
        sys.setswitchinterval(interval)
    assert gathered.labels is not None
    assert gathered.labels.tags == {name for some in names for name in some}


def test_labels_can_be_read_while_more_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    join, late = Labels.join, itertools.count()

    def join_while_more_come(one: Labels, other: Labels) -> Labels:
        gathered.give(Labels(tags=frozenset({f"late {next(late)}"})))
        return join(one, other)

    with GatheredLabels() as gathered:
        for tag in "abc":
            with_labels({}, tags=[tag])
        monkeypatch.setattr(Labels, "join", join_while_more_come)
        found = gathered.labels
        monkeypatch.undo()
    assert found is not None
    assert found.tags == {"a", "b", "c"}


def test_invalid_labels_of_an_error_are_ignored() -> None:
    error = ValueError()
    for stale in (error, "ValueError()", None):  # a checkpoint may return an error as text
        assert labels_of_error(stale) is None
    vars(error)["sequrity_labels"] = {"tags": ["from a web page"]}
    assert labels_of_error(error) is None


def test_a_coroutine_that_is_closed_in_another_context_ends_without_an_error() -> None:
    async def gathers() -> None:
        with GatheredLabels():
            await asyncio.sleep(0)

    left = gathers()
    copy_context().run(left.send, None)
    left.close()


async def test_runs_at_the_same_time_do_not_mix_their_labels(model: ChatSequrity) -> None:
    class Numbered(Mail, total=False):
        number: str

    async def read(state: Numbered) -> Any:
        await asyncio.sleep(0)
        inner = with_labels({"text": "hi"}, tags=[state["number"]])
        await asyncio.sleep(0)
        return {"text": inner["text"]}

    graph = chain(("read", read), ("send", lambda state: {"sent": state["text"]}), schema=Numbered)
    secure = LangGraphExecutor(graph, model)
    traces = [Trace() for _ in range(8)]
    await secure.abatch(
        [{"number": str(number)} for number in range(8)],
        [{"callbacks": [trace]} for trace in traces],
    )
    for number, trace in enumerate(traces):
        [labels] = [call.labels for call in trace.runs[0].calls if call.node == "send"]
        assert labels is not None
        tags = {name for name in labels["text"]["tags"] if not name.startswith("__")}
        assert tags == {str(number)}
