"""`Trace`, policy events, metadata of tracers and `Progress`: what they show of a run."""

import asyncio
import io
import json
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    dispatch_custom_event,
)
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from langchain_sequrity import ChatSequrity, LangGraphExecutor, Progress, Trace, with_labels
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, PolicyDenied
from langchain_sequrity.graph.runtime.events import ReportedCheck, checks_by_call, read_checks
from langchain_sequrity.graph.tracing import TracedCall, TracedRun
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.services import DUAL, changed
from tests.showing import SENDABLE, assert_plain_mermaid, assert_shown_safely, on_rich

DENIES = """
tool "send" {
    /// no mail from untrusted sources
    hard deny when "untrusted" in summary.tags;
}
"""
ASKS = 'tool "send" { /// ask first\n should deny always; }'


class State(TypedDict, total=False):
    user: str
    mail: str
    summary: str
    is_urgent: bool
    log: Annotated[list[str], operator.add]


def read(state: State) -> Any:
    return with_labels({"mail": f"Hello {state['user']}"}, producers=["imap"], tags=["untrusted"])


def summarize(state: State) -> Any:
    return {"summary": state["mail"][:3], "is_urgent": True}


def pick(state: State) -> str:
    return "send" if state["is_urgent"] else END


def send(state: State) -> Any:
    return {"log": [state["user"] + state["summary"]]}


def mail_graph() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State).add_sequence([read, summarize]).add_node(send).add_edge(START, "read")
    return graph.add_conditional_edges("summarize", pick, ["send", END])


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def executor(
    local: LocalServer, policy: Any = None, graph: Any = None, **options: Any
) -> LangGraphExecutor:
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy, features=DUAL)
    return secured(graph or mail_graph(), model, **options)


def call(graph: Any, given: Any, config: Any, *, in_loop: bool) -> Any:
    if in_loop:
        return asyncio.run(graph.ainvoke(given, config))
    return graph.invoke(given, config)


def traced(graph: Any, given: Any, *, in_loop: bool = False, values: bool = False) -> TracedRun:
    """The trace of a run, however it ends."""
    trace = Trace(values=values)
    with suppress(PolicyDenied, ZeroDivisionError):
        call(graph, given, {"callbacks": [trace]}, in_loop=in_loop)
    [run] = trace.runs
    return run


def producers(one: TracedCall) -> dict[str, set[str]]:
    assert one.labels is not None
    return {name: set(meta["producers"]) for name, meta in one.labels.items()}


# The content of a trace.


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_trace_has_each_call_with_its_labels_verdict_and_times(
    local: LocalServer, in_loop: bool
) -> None:
    run = traced(executor(local), {"user": "ann"}, in_loop=in_loop)
    assert (run.outcome, run.error, run.mode) == ("finished", None, "async" if in_loop else "sync")
    assert [(one.role, one.node, one.tool) for one in run.calls] == [
        ("node", "read", "read"),
        ("node", "summarize", "summarize"),
        ("router", "summarize", "pick__from__summarize"),
        ("node", "send", "send"),
    ]
    assert [producers(one) for one in run.calls] == [
        {"user": set()},
        {"mail": {"read", "imap"}},
        {"is_urgent": {"summarize", "read", "imap"}},
        {"user": set(), "summary": {"summarize", "read", "imap"}},
    ]
    assert {(one.verdict, one.rule, one.is_certain) for one in run.calls} == {
        ("allowed", "default_allow", True)
    }
    assert all(
        one.node_seconds is not None and one.request_seconds is not None for one in run.calls
    )


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_denied_call_is_the_last_call_and_has_rule_and_reason(
    local: LocalServer, in_loop: bool
) -> None:
    run = traced(executor(local, DENIES), {"user": "ann"}, in_loop=in_loop)
    assert (run.outcome, len(run.calls)) == ("denied", 4)
    last = run.calls[-1]
    assert (last.node, last.tool, last.verdict) == ("send", "send", "denied")
    assert last.rule == 'hard deny when "untrusted" in summary.tags;'
    assert last.reason == "no mail from untrusted sources"
    assert producers(last)["summary"] == {"summarize", "read", "imap"}
    assert last.node_seconds is None
    assert {one.verdict for one in run.calls[:-1]} == {"allowed"}


def test_a_denied_run_that_raises_nothing_is_traced_as_denied(local: LocalServer) -> None:
    class Told(State, total=False):
        refused: dict[str, Any]

    graph = StateGraph(Told).add_sequence([read, summarize, send]).add_edge(START, "read")
    secure = executor(local, DENIES, graph, on_denied="state:refused")
    run = traced(secure, {"user": "ann"})
    assert (run.outcome, run.calls[-1].verdict) == ("denied", "denied")


def test_a_run_whose_node_raises_is_traced_as_open(local: LocalServer) -> None:
    def broken(state: State) -> Any:
        raise ZeroDivisionError(state["user"])

    run = traced(
        executor(local, graph=StateGraph(State).add_sequence([broken]).add_edge(START, "broken")),
        {"user": "ann"},
    )
    [one] = run.calls
    assert (run.outcome, one.error, one.labels) == ("open", "ZeroDivisionError", None)
    assert "labels not reported" in run.table().text(200)


def test_a_retried_node_is_one_call(local: LocalServer) -> None:
    tries: list[int] = []

    def flaky(state: State) -> Any:
        tries.append(len(tries))
        if len(tries) < 3:
            raise InterruptedError(state["user"])
        return {"mail": "there"}

    policy = RetryPolicy(
        max_attempts=3, initial_interval=0, jitter=False, retry_on=InterruptedError
    )
    graph = StateGraph(State).add_node(flaky, retry_policy=policy).add_edge(START, "flaky")
    run = traced(executor(local, graph=graph), {"user": "ann"})
    [one] = run.calls
    assert (len(tries), one.error, run.outcome) == (3, None, "finished")


def test_the_trace_of_a_failed_run_names_the_error(local: LocalServer) -> None:
    trace = Trace()
    with changed(local.base_url, without("final_return_value")) as model, pytest.raises(BadReply):
        secured(mail_graph(), model).invoke({"user": "ann"}, {"callbacks": [trace]})
    [run] = trace.runs
    assert (run.outcome, run.error, len(run.calls)) == ("failed", "BadReply", 4)
    assert producers(run.calls[0]) == {"user": set()}


def test_a_run_that_reaches_the_recursion_limit_is_traced_as_open(local: LocalServer) -> None:
    def again(state: State) -> Any:
        return {"mail": state["user"]}

    graph = StateGraph(State).add_node(again).add_edge(START, "again").add_edge("again", "again")
    trace = Trace()
    with pytest.raises(GraphRecursionError):
        executor(local, graph=graph).invoke(
            {"user": "ann"}, {"recursion_limit": 3, "callbacks": [trace]}
        )
    [run] = trace.runs
    assert (run.outcome, run.error, len(run.calls)) == ("open", None, 3)


def test_a_trace_keeps_values_only_on_request(local: LocalServer) -> None:
    secure = executor(local, DENIES)
    without, with_values = (
        traced(secure, {"user": "ann"}),
        traced(secure, {"user": "ann"}, values=True),
    )
    assert not any(one.values for one in without.calls)
    assert "Hello ann" not in json.dumps(without.to_dict())
    assert with_values.calls[1].values == {"mail": "Hello ann"}
    assert with_values.calls[-1].values == {"user": "ann", "summary": "Hel"}


def test_a_trace_has_no_values_beside_another_trace_that_keeps_them(local: LocalServer) -> None:
    without, with_values = Trace(), Trace(values=True)
    with suppress(PolicyDenied):
        executor(local, DENIES).invoke({"user": "ann"}, {"callbacks": [without, with_values]})
    assert not any(one.values for one in without.runs[0].calls)
    assert with_values.runs[0].calls[1].values == {"mail": "Hello ann"}


def test_a_trace_keeps_long_values_and_shows_them_shortened(local: LocalServer) -> None:
    trace = Trace(values=True)
    executor(local).invoke({"user": "a" * 5_000}, {"callbacks": [trace]})
    assert len(str(trace)) < 4_000
    assert trace.runs[0].calls[0].values == {"user": "a" * 5_000}


def without(part: str) -> Callable[[bytes], bytes]:
    """A function that removes a part of the service's report from a reply."""

    def change(body: bytes) -> bytes:
        reply = json.loads(body)
        message = reply["choices"][0]["message"]
        if message["content"]:
            told = json.loads(message["content"])
            del told[part]
            message["content"] = json.dumps(told)
        return json.dumps(reply).encode()

    return change


def test_a_trace_says_not_reported_if_the_service_reports_no_checks(local: LocalServer) -> None:
    with changed(local.base_url, without("policy_check_history")) as model:
        run = traced(secured(mail_graph(), model), {"user": "ann"})
    assert {(one.verdict, one.rule, one.reason) for one in run.calls} == {
        ("allowed", "not reported", "not reported")
    }
    assert {one.labels for one in run.calls} == {None}
    assert run.table().text(200).count("labels not reported") == 4


def side_by_side() -> StateGraph[Any, Any, Any, Any]:
    def look(state: State) -> Any:
        return {"log": [state["user"]]}

    graph = StateGraph(State).add_node(read).add_node(look).add_node(summarize)
    return graph.add_edge(START, "read").add_edge(START, "look").add_edge("read", "summarize")


def test_parallel_calls_are_traced_like_other_calls(local: LocalServer) -> None:
    run = traced(executor(local, graph=side_by_side()), {"user": "ann"})
    calls = {one.node: one for one in run.calls}
    assert calls["read"].node_seconds is not None
    assert calls["look"].node_seconds is not None
    assert producers(calls["summarize"]) == {"mail": {"read", "imap"}}


def test_a_trace_leaves_out_the_calls_that_return_late_results(local: LocalServer) -> None:
    run = traced(executor(local, graph=side_by_side()), {"user": "ann"})
    assert sorted(one.tool for one in run.calls) == ["look", "read", "summarize"]


# Several runs, and executors in other graphs.


def test_a_trace_keeps_parallel_runs_apart(local: LocalServer) -> None:
    trace, secure = Trace(values=True), executor(local)
    names = [f"u{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: secure.invoke({"user": name}, {"callbacks": [trace]}), names))
    found = [[(one.values or {}).get("user") for one in run.calls] for run in trace.runs]
    assert sorted(found) == sorted([name, None, None, name] for name in names)
    assert len({run.session_id for run in trace.runs}) == 12


async def test_a_trace_keeps_parallel_runs_of_an_event_loop_apart(local: LocalServer) -> None:
    trace, secure = Trace(values=True), executor(local)
    given = [{"user": f"u{number}"} for number in range(6)]
    await secure.abatch(given, {"callbacks": [trace]})
    assert sorted(str((run.calls[0].values or {})["user"]) for run in trace.runs) == [
        f"u{number}" for number in range(6)
    ]


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_trace_of_an_outer_graph_has_the_runs_of_inner_executors(
    local: LocalServer, in_loop: bool
) -> None:
    parent = StateGraph(State).add_node("first", executor(local, name="one"))
    parent.add_node("second", executor(local, name="two")).add_edge(START, "first")
    trace = Trace()
    call(
        parent.add_edge("first", "second").compile(),
        {"user": "ann"},
        {"callbacks": [trace]},
        in_loop=in_loop,
    )
    assert [(run.graph, len(run.calls)) for run in trace.runs] == [("one", 4), ("two", 4)]


def on_thread(*callbacks: Any) -> Any:
    """A config for a thread."""
    return {"configurable": {"thread_id": "1"}, "callbacks": list(callbacks)}


def asking_graph() -> StateGraph[Any, Any, Any, Any]:
    def ask(state: State) -> Any:
        return {"summary": interrupt(state["mail"])}

    return StateGraph(State).add_sequence([read, ask, send]).add_edge(START, "read")


def test_the_trace_of_a_resumed_run_shows_earlier_calls(local: LocalServer) -> None:
    secure = executor(local, graph=asking_graph(), checkpointer=InMemorySaver())
    first, second = Trace(), Trace()
    secure.invoke({"user": "ann"}, on_thread(first))
    secure.invoke(Command(resume="yes"), on_thread(second))
    [before], [after] = first.runs, second.runs
    assert (before.outcome, before.calls[-1].error) == ("open", "GraphInterrupt")
    assert (after.outcome, [one.tool for one in after.calls]) == (
        "finished",
        ["read", "ask", "send"],
    )
    assert [one.node_seconds is None for one in after.calls] == [True, False, False]
    assert producers(after.calls[1]) == {"mail": {"read", "imap"}}


@pytest.mark.parametrize(("answer", "verdict"), [("approve", "approved"), ("reject", "rejected")])
def test_a_trace_shows_the_decision_of_a_human(
    local: LocalServer, answer: str, verdict: str
) -> None:
    secure = executor(local, ASKS, on_denied="interrupt", checkpointer=InMemorySaver())
    first, second = Trace(), Trace()
    secure.invoke({"user": "ann"}, on_thread(first))
    assert (first.runs[0].outcome, first.runs[0].calls[-1].verdict) == ("denied", "denied")
    resume: Any = Command(resume={"decisions": [{"type": answer}]})
    try:
        secure.invoke(resume, on_thread(second))
    except PolicyDenied:
        assert answer == "reject"
    [run] = second.runs
    [one] = [one for one in run.calls if one.verdict == verdict]
    assert (one.tool, one.node_seconds is None) == ("send", answer == "reject")
    assert run.outcome == ("finished" if answer == "approve" else "denied")
    assert (one.rule, one.reason, one.values) == ("should deny always;", "ask first", None)
    assert producers(one) == {"user": set(), "summary": {"summarize", "read", "imap"}}


def test_a_drawing_shows_which_data_reached_an_approved_node(local: LocalServer) -> None:
    secure = executor(local, ASKS, on_denied="interrupt", checkpointer=InMemorySaver())
    secure.invoke({"user": "ann"}, on_thread(Trace()))
    trace = Trace(values=True)
    resume: Any = Command(resume={"decisions": [{"type": "approve"}]})
    secure.invoke(resume, on_thread(trace))
    [one] = [one for one in trace.runs[0].calls if one.verdict == "approved"]
    assert one.values == {"user": "ann", "summary": "Hel"}
    lines = [line.strip() for line in trace.to_mermaid().split("\n")]
    [send] = [line.partition("[")[0] for line in lines if line.endswith('["send"]')]
    assert len([line for line in lines if line.endswith(f'-->|"summary"| {send}')]) == 3


def test_a_rejected_node_is_drawn_as_denied(local: LocalServer) -> None:
    secure = executor(local, ASKS, on_denied="interrupt", checkpointer=InMemorySaver())
    trace = Trace()
    secure.invoke({"user": "ann"}, on_thread(Trace()))
    with pytest.raises(PolicyDenied):
        secure.invoke(Command(resume={"decisions": [{"type": "reject"}]}), on_thread(trace))
    assert '["send"]:::denied' in trace.to_mermaid()


# The display of a trace.


def test_a_trace_is_a_table_in_text_rich_and_html(
    local: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    trace = Trace()
    assert str(trace) == "No run has been traced."
    with pytest.raises(PolicyDenied):
        executor(local, DENIES, name="mails").invoke({"user": "ann"}, {"callbacks": [trace]})
    for shown in (str(trace), on_rich(trace), trace._repr_html_()):
        for text in (
            "mails: denied, sync",
            "router after summarize",
            "summary ← imap, read, summarize [untrusted]",
            "no mail from untrusted sources",
        ):
            assert text in shown
    assert json.loads(trace.to_json()) == trace.to_dict()
    assert trace.to_dict()["runs"][0]["calls"][3]["verdict"] == "denied"


def test_a_drawing_shows_the_flow_of_data_from_labels(local: LocalServer) -> None:
    trace = Trace()
    with pytest.raises(PolicyDenied):
        executor(local, DENIES).invoke({"user": "ann"}, {"callbacks": [trace]})
    drawn = trace.to_mermaid()
    assert_plain_mermaid(drawn)
    lines = [line.strip() for line in drawn.split("\n")]
    names = {
        key: line
        for line in lines
        for key in ("read", "imap", "summarize", "send")
        if f'["{key}"]' in line
    }
    keys = {name: line.partition("[")[0].partition("(")[0] for name, line in names.items()}
    into_send = {line for line in lines if line.endswith(f"| {keys['send']}")}
    assert into_send == {
        f'{keys[one]} -->|"summary"| {keys["send"]}' for one in ("read", "imap", "summarize")
    }
    assert names["imap"].endswith('(["imap"])')
    assert names["send"].endswith(":::denied")


@pytest.mark.parametrize("text", SENDABLE)
def test_text_from_tools_and_policies_cannot_control_the_display_of_a_trace(
    local: LocalServer, text: str
) -> None:
    name = text.replace(":", ";").replace("|", "/")  # LangGraph takes neither in a node's name

    def fetch(state: State) -> Any:
        return with_labels({"mail": text + state["user"]}, producers=[text], tags=[text])

    graph = StateGraph(State).add_node(name, fetch).add_node(summarize).add_node(send)
    graph.add_edge(START, name).add_edge(name, "summarize").add_edge("summarize", "send")
    doc = " ".join(text.split())
    remark = f"/// {doc}" if doc.isprintable() else ""
    policy = f'tool "send" {{\n{remark}\nhard deny always;\n}}'
    trace = Trace(values=True)
    with pytest.raises(PolicyDenied):
        executor(local, policy, graph.compile(name=text)).invoke(
            {"user": text}, {"callbacks": [trace]}
        )
    assert_shown_safely(trace)
    assert_plain_mermaid(trace.to_mermaid())
    assert trace.to_json().isascii()
    assert plain(text) in on_rich(trace)


# Reports of any shape.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "tool",
                    "verdict",
                    "denied",
                    "allowed",
                    "arguments",
                    "rule",
                    "reason",
                    "certain",
                    "tags",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {"tool": st.sampled_from("abc")},
    optional={"denied": JSON, "allowed": JSON, "arguments": JSON, "verdict": JSON},
)


@given(st.lists(JSON | ENTRY, max_size=6))
def test_a_report_of_any_shape_is_read(history: list[Any]) -> None:
    for check in read_checks(history):
        assert check.verdict in {"allowed", "denied", "not reported"}
        assert all(
            set(meta) == {"producers", "consumers", "tags"} for meta in check.labels.values()
        )


@given(
    st.lists(st.sampled_from("ab")),
    st.lists(
        st.builds(ReportedCheck, st.sampled_from("abc"), st.sampled_from(["allowed", "denied"]))
    ),
)
def test_a_check_is_assigned_to_its_own_call_or_to_none(
    tools: list[str], checks: list[ReportedCheck]
) -> None:
    found, others = checks_by_call(tools, checks)
    assert len(found) == len(tools)
    for tool in set(tools):
        mine = [one for one, of in zip(found, tools, strict=True) if of == tool]
        passed = [one for one in checks if one.tool == tool and one.verdict == "allowed"]
        fits = len(passed) == tools.count(tool)
        assert mine == (passed if fits else [None] * len(mine))
    assert others == [one for one in checks if one.verdict == "denied" or one.tool not in tools]


# Events.


def streamed(graph: Any, given: Any, config: Any = None) -> list[tuple[str, Any]]:
    """The policy events of a run: event and tool."""
    found = []
    try:
        for event in graph.stream(given, config, stream_mode="sequrity"):
            assert event["type"] == "sequrity"
            assert event["session_id"]
            found.append((event["event"], event.get("tool")))
    except PolicyDenied:
        pass
    return found


EVENTS: Any = "sequrity"
"""The stream mode of policy events."""


def called(*tools: str) -> list[tuple[str, Any]]:
    return [(event, tool) for tool in tools for event in ("tool_call", "allowed")]


def test_the_stream_of_policy_events_has_an_event_for_each_step(local: LocalServer) -> None:
    seen = called("read", "summarize", "pick__from__summarize")
    assert streamed(executor(local), {"user": "ann"}) == [
        *seen,
        *called("send"),
        ("finished", None),
    ]


def test_the_stream_of_policy_events_ends_with_a_denial(local: LocalServer) -> None:
    seen = called("read", "summarize", "pick__from__summarize")
    assert streamed(executor(local, DENIES), {"user": "ann"}) == [
        *seen,
        ("tool_call", "send"),
        ("denied", "send"),
    ]


def test_events_hold_no_values(local: LocalServer) -> None:
    events = list(executor(local).stream({"user": "ann"}, stream_mode=EVENTS))
    assert "ann" not in json.dumps(events)
    assert {event.get("node") for event in events} == {"read", "summarize", "send", None}


def test_policy_events_and_other_stream_modes_come_in_the_order_of_the_run(
    local: LocalServer,
) -> None:
    chunks = executor(local).stream({"user": "ann"}, stream_mode=["updates", EVENTS])
    seen = [(next(iter(told)) if mode == "updates" else told["event"]) for mode, told in chunks]
    asked = ["tool_call", "allowed"]
    assert seen == [*asked, "read", *asked, *asked, "summarize", *asked, "send", "finished"]


def noting_graph() -> StateGraph[Any, Any, Any, Any]:
    def note(state: State) -> Any:
        get_stream_writer()({"wrote": state["user"]})
        dispatch_custom_event("noted", state["user"])
        return {"mail": "there"}

    return StateGraph(State).add_node(note).add_edge(START, "note")


def test_a_custom_stream_has_only_what_nodes_write(local: LocalServer) -> None:
    chunks = executor(local, graph=noting_graph()).stream({"user": "ann"}, stream_mode="custom")
    assert list(chunks) == [{"wrote": "ann"}]


async def test_an_async_stream_has_the_same_events(local: LocalServer) -> None:
    events = [event async for event in executor(local).astream({"user": "ann"}, stream_mode=EVENTS)]
    assert [event["event"] for event in events] == ["tool_call", "allowed"] * 4 + ["finished"]


def test_a_stream_of_an_outer_graph_has_the_events_of_an_inner_executor(local: LocalServer) -> None:
    parent = StateGraph(State).add_node("inner", executor(local)).add_edge(START, "inner").compile()
    spaces = [
        space for space, _ in parent.stream({"user": "ann"}, stream_mode=EVENTS, subgraphs=True)
    ]
    assert [len(space) for space in spaces] == [1] * 9


def test_a_resumed_run_does_not_repeat_events(local: LocalServer) -> None:
    secure = executor(local, graph=asking_graph(), checkpointer=InMemorySaver())
    assert streamed(secure, {"user": "ann"}, on_thread()) == called("read", "ask")
    assert streamed(secure, Command(resume="yes"), on_thread()) == [
        *called("send"),
        ("finished", None),
    ]


class Heard(BaseCallbackHandler):
    """A callback handler that asks for policy events."""

    hears_runs = True

    def __init__(self) -> None:
        self.events: list[Any] = []

    def heard(self, event: Any) -> None:
        self.events.append(event)


class HeardInLoop(AsyncCallbackHandler):
    hears_runs = True

    def __init__(self) -> None:
        self.events: list[Any] = []

    def heard(self, event: Any) -> None:
        self.events.append(event)


@pytest.mark.parametrize(
    ("handler", "in_loop"), [(Heard, False), (Heard, True), (HeardInLoop, True)]
)
def test_callback_handlers_that_ask_for_policy_events_get_them(
    local: LocalServer, handler: Callable[[], Any], in_loop: bool
) -> None:
    heard = handler()
    call(executor(local), {"user": "ann"}, {"callbacks": [heard]}, in_loop=in_loop)
    kinds = [event["event"] for event in heard.events]
    assert sorted(kinds) == sorted(["tool_call", "allowed", "ran"] * 4 + ["finished"])
    assert [kind for kind in kinds if kind != "ran"] == ["tool_call", "allowed"] * 4 + ["finished"]
    for number, event in enumerate(heard.events):
        if event["event"] == "ran":  # no node runs before its call is allowed
            allowed = [one for one in heard.events[:number] if one["event"] == "allowed"]
            assert event["call"] in {one["call"] for one in allowed}
    assert "ann" not in json.dumps(heard.events)


class Foreign(BaseCallbackHandler):
    """A callback handler that does not know policy events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        self.events.append((name, data))


@pytest.mark.parametrize("in_loop", [False, True])
def test_other_callback_handlers_get_only_the_custom_events_of_nodes(
    local: LocalServer, in_loop: bool
) -> None:
    heard = Foreign()
    secure = executor(local, graph=noting_graph())
    call(secure, {"user": "ann"}, {"callbacks": [heard]}, in_loop=in_loop)
    assert heard.events == [("noted", "ann")]


async def test_custom_events_of_langchain_come_only_from_nodes(local: LocalServer) -> None:
    secure = executor(local, graph=noting_graph())
    found = [
        (event["name"], event["data"])
        async for event in secure.astream_events({"user": "ann"}, version="v2")
        if event["event"] == "on_custom_event"
    ]
    assert found == [("noted", "ann")]


class Kept(BaseTracer):
    """A tracer that keeps its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.kept.append(run)


def facts(run: Run) -> dict[str, Any]:
    return {
        key: value for key, value in run.extra["metadata"].items() if key.startswith("sequrity_")
    }


@pytest.mark.parametrize("in_loop", [False, True])
def test_tracers_have_session_tool_and_verdict_in_their_metadata(
    local: LocalServer, in_loop: bool
) -> None:
    tracer, trace = Kept(), Trace()
    call(executor(local), {"user": "ann"}, {"callbacks": [tracer, trace]}, in_loop=in_loop)
    [root] = tracer.kept
    session = trace.runs[0].session_id
    assert facts(root) == {"sequrity_session_id": session, "sequrity_outcome": "finished"}
    nodes = {run.name: facts(run) for run in root.child_runs}
    assert nodes["send"] == {"sequrity_tool": "send", "sequrity_verdict": "allowed"}


def test_tracers_have_the_denied_tool_and_the_reason_in_their_metadata(local: LocalServer) -> None:
    tracer = Kept()
    with pytest.raises(PolicyDenied):
        executor(local, DENIES).invoke({"user": "ann"}, {"callbacks": [tracer]})
    found = facts(tracer.kept[0])
    assert found["sequrity_outcome"] == "denied"
    assert (found["sequrity_tool"], found["sequrity_reason"]) == (
        "send",
        "no mail from untrusted sources",
    )


# Progress.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(local: LocalServer, stream: Any, *, force: bool = False, policy: Any = None) -> str:
    shown = Progress(stream, force=force)
    try:
        executor(local, policy, name="mails\x1b[2J").invoke({"user": "ann"}, {"callbacks": [shown]})
    except PolicyDenied:
        assert policy
    found: str = stream.getvalue()
    return found


def test_progress_is_one_line_in_a_terminal(local: LocalServer) -> None:
    lines = progress(local, Terminal()).split("\r\x1b[2K")
    assert lines[1:] == [
        r"mails\x1b[2J: call 1, node read",
        r"mails\x1b[2J: call 2, node summarize",
        r"mails\x1b[2J: call 3, router after summarize",
        r"mails\x1b[2J: call 4, node send",
        "mails\\x1b[2J: finished after 4 calls\n",
    ]


def test_progress_is_shown_outside_a_terminal_only_on_request(local: LocalServer) -> None:
    assert progress(local, io.StringIO()) == ""
    shown = progress(local, io.StringIO(), force=True, policy=DENIES)
    assert shown.split("\n")[-2:] == [r"mails\x1b[2J: denied after 3 calls", ""]


def test_progress_writes_to_standard_error(
    local: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    executor(local).invoke({"user": "ann"}, {"callbacks": [Progress(force=True)]})
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 5)
