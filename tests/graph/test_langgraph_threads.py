"""Threads: what a checkpointer stores of an executor's runs, and what may happen between runs."""

import asyncio
import operator
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypedDict
from unittest import mock

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.channels import AnyValue, DeltaChannel, EphemeralValue, Topic, UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages, push_message
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import CachePolicy, Command, Send, StateUpdate, interrupt

from langchain_sequrity import ChatSequrity, SequrityMessages, with_labels
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter import Run, ToolCall
from tests.graph.running import secured
from tests.graph.services import DUAL
from tests.graph.twins import Twins, thread


class State(TypedDict, total=False):
    text: str
    mail: str
    now: Annotated[str, EphemeralValue]
    log: Annotated[list[str], operator.add]


def read(state: State) -> dict[str, Any]:
    return {"mail": f"mail for {state['text']}", "log": ["read"]}


def send(state: State) -> dict[str, Any]:
    return {"text": state["mail"].upper(), "log": ["send"]}


def mails() -> Any:
    graph: Any = StateGraph(State)
    return graph.add_sequence([read, send]).set_entry_point("read")


def _seen(snapshot: Any) -> Any:
    tasks = [(task.name, task.error, task.result) for task in snapshot.tasks]
    return snapshot.values, snapshot.next, tasks, snapshot.metadata["source"]


# Runs without a thread


@pytest.mark.parametrize("given", [{"text": "ann"}, None, Command(update={"text": "bo"})], ids=str)
@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}], ids=str)
def test_a_run_without_a_thread_raises_langgraphs_error(
    config: Any, given: Any, model: ChatSequrity
) -> None:
    found = set()
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        for run in (
            lambda graph=graph: graph.invoke(given, config),
            lambda graph=graph: list(graph.stream(given, config)),
            lambda graph=graph: asyncio.run(graph.ainvoke(given, config)),
            lambda graph=graph: asyncio.run(_all(graph.astream(given, config))),
        ):
            with pytest.raises(ValueError, match="thread_id") as caught:
                run()
            found.add((type(caught.value), str(caught.value)))
    assert len(found) == 1


def test_a_run_without_a_checkpointer_needs_no_thread(model: ChatSequrity) -> None:
    for graph in Twins(mails, model).of():
        assert graph.invoke({"text": "ann"})["mail"] == "mail for ann"


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


# State and history of a thread


def test_the_state_of_a_thread_is_that_of_langgraph(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        found.append(_seen(graph.get_state(thread())))
    assert found[1] == found[0]


async def test_the_history_of_a_thread_is_that_of_langgraph(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        await graph.ainvoke({"text": "ann"}, thread())
        history = [_seen(one) async for one in graph.aget_state_history(thread())]
        first = [_seen(one) for one in graph.get_state_history(thread(), limit=2)]
        found.append((history, first, _seen(await graph.aget_state(thread()))))
    assert found[1] == found[0]


def test_a_state_shows_no_internal_data_of_the_executor(model: ChatSequrity) -> None:
    graph = secured(mails(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread(), interrupt_after=["read"])
    shown = repr([graph.get_state(thread()), *graph.get_state_history(thread())])
    assert "sequrity" not in shown


def test_after_a_denial_the_denied_node_is_the_next_one_of_the_thread(model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "send" { hard deny always; }'})
    graph = secured(mails(), denies, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied) as denied:
        graph.invoke({"text": "ann"}, thread())
    assert not any("__sequrity" in note for note in getattr(denied.value, "__notes__", []))
    state = graph.get_state(thread())
    assert state.next == ("send",)
    assert state.values == {"text": "ann", "mail": "mail for ann", "log": ["read"]}


def test_the_history_does_not_show_a_denied_node_as_done(model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "send" { hard deny always; }'})
    graph = secured(mails(), denies, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        graph.invoke({"text": "ann"}, thread())
    plain = mails().compile(checkpointer=InMemorySaver())
    plain.invoke({"text": "ann"}, thread(), interrupt_before=["send"])
    found = [[_seen(one) for one in each.get_state_history(thread())] for each in (plain, graph)]
    assert found[1] == found[0]
    for _ in range(2):  # a continued run asks the policy again
        with pytest.raises(PolicyDenied):
            graph.invoke(None, thread())


# Several runs


def test_the_next_run_begins_with_the_state_of_the_last_run(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        runs = [{"text": "ann"}, {"log": ["again"]}, {"text": "bob", "now": "x"}]
        found.append([graph.invoke(run, thread()) for run in runs])
    assert found[1] == found[0]


def test_two_threads_share_no_state(model: ChatSequrity) -> None:
    graph = secured(mails(), model, checkpointer=InMemorySaver())
    for name in ("ann", "bob"):
        graph.invoke({"text": name}, thread(name))
    assert graph.invoke({}, thread("ann"))["mail"] == "mail for MAIL FOR ANN"
    assert graph.invoke({}, thread("bob"))["mail"] == "mail for MAIL FOR BOB"


class Gathered(TypedDict, total=False):
    way: str
    log: Annotated[list[str], operator.add]


def _noting(name: str) -> Callable[[Gathered], dict[str, Any]]:
    def node(_: Gathered) -> dict[str, Any]:
        return {"log": [name]}

    return node


def half_full() -> Any:
    """A join that waits for both `a` and `b`, although each run enters only one node."""
    graph: Any = StateGraph(Gathered)
    for name in "abcd":
        graph.add_node(name, _noting(name))

    def way(state: Gathered) -> str:
        return state["way"]

    graph.add_conditional_edges(START, way, ["a", "b", "d"])
    return graph.add_edge(["a", "b"], "c").add_edge("c", "d")


@pytest.mark.parametrize("ways", ["ab", "ba", "aab", "adb", "abab", "abb", "aba"])
def test_a_join_that_lacks_a_node_still_waits_in_the_next_run(
    ways: str, model: ChatSequrity
) -> None:
    found = []
    for graph in Twins(half_full, model).of(checkpointer=InMemorySaver):
        found += [graph.invoke({"way": way}, thread()) for way in ways]
    assert found[len(ways) :] == found[: len(ways)]


def two_joins() -> Any:
    """Two joins start the same node. Each run enters only one of their sources."""
    graph: Any = StateGraph(Gathered)
    for name in "abcdt":
        graph.add_node(name, _noting(name))
    graph.add_conditional_edges(START, lambda state: state["way"], list("abcd"))
    return graph.add_edge(["a", "b"], "t").add_edge(["c", "d"], "t")


@pytest.mark.parametrize("ways", ["ab", "cd", "acbd", "cadb"])
def test_each_of_two_joins_of_a_node_waits_for_its_own_sources(
    ways: str, model: ChatSequrity
) -> None:
    found = []
    for graph in Twins(two_joins, model).of(checkpointer=InMemorySaver):
        found += [graph.invoke({"way": way}, thread()) for way in ways]
    assert found[len(ways) :] == found[: len(ways)]


# Labels

UNTRUSTED = """
tool "read" { result { @tags |= {"untrusted"}; } }
tool "send" { hard deny when mail.tags overlaps {"untrusted"}; }
"""


def _labelled_mails() -> Any:
    """A run does `send` if `now` says so, and `read` otherwise."""
    graph: Any = StateGraph(State)

    def way(state: State) -> str:
        return "send" if state.get("now") == "send" else "read"

    graph.add_node("read", read).add_node("send", send)
    return graph.add_conditional_edges(START, way, ["read", "send"])


@pytest.fixture(params=["openai", "anthropic"])
def wary(request: pytest.FixtureRequest, model: ChatSequrity) -> ChatSequrity | SequrityMessages:
    """A model of each format, with a policy that forbids sending untrusted mail."""
    if request.param == "openai":
        return ChatSequrity("any/model", base_url=model.base_url, policy=UNTRUSTED, features=DUAL)
    return SequrityMessages(
        "any/model", base_url=model.base_url, provider="anthropic", policy=UNTRUSTED, features=DUAL
    )


def test_labels_survive_to_the_next_run(wary: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    with pytest.raises(PolicyDenied) as denied:
        graph.invoke({"now": "send"}, thread())
    assert denied.value.tool == "send"


@pytest.mark.parametrize("keeps", [False, True])
def test_an_edited_value_has_no_labels_unless_keep_labels_of_edits_is_set(
    keeps: bool, wary: ChatSequrity
) -> None:
    options: dict[str, Any] = {"checkpointer": InMemorySaver(), "keep_labels_of_edits": keeps}
    graph = secured(mails().compile(interrupt_before=["send"]), wary, **options)
    graph.invoke({"text": "ann"}, thread())
    graph.update_state(thread(), {"mail": "mine"})
    with pytest.raises(PolicyDenied) if keeps else nullcontext():
        assert graph.invoke(None, thread())["text"] == "MINE"


def test_an_edit_does_not_change_the_labels_of_other_fields(wary: ChatSequrity) -> None:
    graph = secured(mails().compile(interrupt_before=["send"]), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    graph.update_state(thread(), {"text": "bob", "log": ["edited"]})
    with pytest.raises(PolicyDenied):
        graph.invoke(None, thread())


def test_labels_are_kept_for_several_runs(wary: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    for _ in range(2):
        with pytest.raises(PolicyDenied):
            graph.invoke({"now": "send"}, thread())


def test_an_input_that_replaces_a_value_has_no_labels(wary: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    sent = graph.invoke({"now": "send", "mail": "my own"}, thread())
    assert sent["text"] == "MY OWN"


def test_an_input_that_replaces_a_value_has_no_labels_behind_a_static_edge(
    wary: ChatSequrity,
) -> None:
    graph = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    sends = StateGraph(State).add_node("send", send).add_edge(START, "send")
    straight = secured(sends, wary, checkpointer=graph.checkpointer)
    with pytest.raises(PolicyDenied):
        straight.invoke({"text": "ann"}, thread())
    assert straight.invoke({"mail": "my own"}, thread())["text"] == "MY OWN"


def test_a_graph_with_several_entry_nodes_runs_without_a_checkpointer(model: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), model)
    assert graph.invoke({"text": "ann"})["mail"] == "mail for ann"


class Half(TypedDict, total=False):
    mail: str
    x: int
    sent: str


@pytest.mark.parametrize("replays", [False, True])
def test_a_step_that_langgraph_applied_only_in_part_keeps_its_labels(
    replays: bool, model: ChatSequrity
) -> None:
    def nothing(_: Half) -> dict[str, Any]:
        return {}

    def fetch(_: Half) -> dict[str, Any]:
        return with_labels({"mail": "hi", "x": 1}, tags=["untrusted"])

    def clash(_: Half) -> dict[str, Any]:
        return {"x": 2}

    def post(state: Half) -> dict[str, Any]:
        return {"sent": state["mail"]}

    graph: Any = StateGraph(Half)
    graph.add_node("first", nothing).add_edge(START, "first").add_node("a", nothing)
    graph.add_node("b", fetch).add_node("c", clash).add_node("post", post)
    for name in ("a", "b", "c", "post"):
        graph.add_edge("first", name)
    graph.add_edge("a", "post")
    policy = 'tool "post" { hard deny when mail.tags overlaps {"untrusted"}; }'
    wary = model.model_copy(update={"policy": policy, "features": DUAL})
    executor = secured(graph, wary, checkpointer=InMemorySaver())
    with pytest.raises(InvalidUpdateError):
        executor.invoke({"mail": "mine"}, thread(), durability="exit")
    half = executor.get_state(thread())
    assert half.values["mail"] == "hi"
    with pytest.raises(PolicyDenied):
        executor.invoke(None, half.config if replays else thread(), durability="exit")


def clashing(*, routes: bool) -> Any:
    """Two nodes that start themselves again, beside two nodes whose writes conflict."""

    def loops(name: str) -> Any:
        return lambda state: {"log": [f"{name} {len(state['log'])}"]}

    graph: Any = StateGraph(Added).add_node("first", lambda _: {}).add_edge(START, "first")
    for name in ("a", "b"):
        graph.add_node(name, loops(name)).add_edge("first", name)
        if routes:
            way = partial(lambda name, state: name if len(state["log"]) < 9 else END, name)
            graph.add_conditional_edges(name, way, [name, END])
        else:
            graph.add_edge(name, name)
    for name in ("c", "d"):
        graph.add_node(name, lambda _: {"go": "on"}).add_edge("first", name)
    return graph


@pytest.mark.parametrize("routes", [False, True], ids=["edges", "routers"])
def test_results_of_a_failed_step_are_not_used_as_results_of_the_next_step(
    routes: bool, model: ChatSequrity
) -> None:
    logs = []
    for graph in Twins(lambda: clashing(routes=routes), model).of(checkpointer=InMemorySaver):
        with pytest.raises(InvalidUpdateError):
            graph.invoke({"log": []}, thread(), durability="exit")
        with nullcontext() if routes else pytest.raises(GraphRecursionError):
            graph.invoke(None, {**thread(), "recursion_limit": 5}, durability="exit")
        logs.append(graph.get_state(thread()).values["log"])
    assert logs[0] == logs[1]
    # LangGraph applies the results of the failed step a second time.
    assert logs[0][:6] == ["a 0", "b 0", "a 0", "b 0", "a 4", "b 4"]


def test_a_call_that_already_has_its_result_is_not_offered_for_approval(
    model: ChatSequrity,
) -> None:
    def asks(_: Added) -> Any:
        interrupt("?")
        return {}

    def make() -> Any:
        graph: Any = StateGraph(Added).add_node("a", lambda _: {"log": ["a"]})
        return graph.add_node(asks).add_edge(START, "a").add_edge(START, "asks")

    saver = InMemorySaver()
    secured(make(), model, checkpointer=saver).invoke({"log": []}, thread())
    wary = model.model_copy(update={"policy": 'tool "a" { should deny always; }'})
    executor = secured(make(), wary, checkpointer=saver, on_denied="interrupt")
    with pytest.raises(PolicyDenied):
        executor.invoke(Command(resume="yes", update={"log": ["edit"]}), thread())


class Added(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    go: str


def test_a_value_keeps_its_labels_when_an_input_adds_to_it(model: ChatSequrity) -> None:
    def fetch(_: Added) -> dict[str, Any]:
        return with_labels({"log": ["web"]}, tags=["untrusted"])

    def post(state: Added) -> dict[str, Any]:
        return {"go": ",".join(state["log"])}

    def way(state: Added) -> str:
        return state["go"]

    graph: Any = StateGraph(Added)
    graph.add_node("fetch", fetch).add_node("post", post)
    graph.add_conditional_edges(START, way, ["fetch", "post"])
    policy = 'tool "post" { hard deny when log.tags overlaps {"untrusted"}; }'
    wary = model.model_copy(update={"policy": policy, "features": DUAL})
    executor = secured(graph, wary, checkpointer=InMemorySaver())
    assert executor.invoke({"go": "post", "log": ["mine"]}, thread("clean"))["go"] == "mine"
    executor.invoke({"go": "fetch"}, thread())
    with pytest.raises(PolicyDenied):
        executor.invoke({"go": "post", "log": ["mine"]}, thread())


def _labelled_and_sent() -> Any:
    """`read` and then `send`, or `send` at once."""
    return _labelled_mails().add_edge("read", "send")


def test_fields_that_an_unfinished_run_wrote_keep_their_labels(wary: ChatSequrity) -> None:
    # A new input starts from all that was written. Without labels it would bypass the policy.
    graph = secured(_labelled_and_sent(), wary, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        graph.invoke({"text": "ann", "log": ["one"]}, thread())
    for _ in range(2):
        with pytest.raises(PolicyDenied) as denied:
            graph.invoke({"now": "send", "log": ["two"]}, thread())
        assert denied.value.tool == "send"
    state = graph.get_state(thread()).values
    assert state["mail"] == "mail for ann"
    assert state["log"] == ["one", "read", "two", "two"]


def test_after_the_run_of_another_graph_each_field_has_the_labels_of_all_fields(
    wary: ChatSequrity,
) -> None:
    graph = secured(mails(), wary, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        graph.invoke({"text": "ann"}, thread())
    other = secured(_labelled_mails(), wary, checkpointer=graph.checkpointer)
    with pytest.raises(PolicyDenied):
        other.invoke({"now": "send"}, thread())
    fresh = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    assert fresh.invoke({"now": "send", "mail": "m", "text": "t"}, thread())


# New input while a run is open


def asking() -> Any:
    graph: Any = StateGraph(State)

    def ask(state: State) -> dict[str, Any]:
        return {"text": interrupt(f"{state['mail']}?"), "log": ["ask"]}

    return graph.add_sequence([read, ask, send]).set_entry_point("read")


def test_new_input_drops_an_open_interrupt(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        asked = [graph.invoke({"text": text}, thread()) for text in ("ann", "bob")]
        values = [one["__interrupt__"][0].value for one in asked]
        found.append((values, graph.invoke(Command(resume="yes"), thread())))
    assert found[1] == found[0]
    assert found[0][0] == ["mail for ann?", "mail for bob?"]
    assert found[0][1]["log"] == ["read", "read", "ask", "send"]


# Updates from outside


def test_a_state_can_be_updated_between_runs(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), {"text": "bob", "log": ["outside"]})
        between = _seen(graph.get_state(thread()))
        found.append((between, graph.invoke({}, thread()), graph.invoke(None, thread())))
    assert found[1] == found[0]


async def test_a_state_can_be_updated_between_runs_in_an_event_loop(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        await graph.ainvoke({"text": "ann"}, thread())
        await graph.aupdate_state(thread(), {"text": "bob"}, as_node="send")
        found.append(await graph.ainvoke({}, thread()))
    assert found[1] == found[0]


@pytest.mark.parametrize("as_node", [None, START])
def test_an_update_of_a_new_thread_is_its_input(as_node: str | None, model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.update_state(thread(), {"text": "ann"}, as_node=as_node)
        found.append(graph.invoke(None, thread()))
    assert found[1] == found[0]


def test_a_state_can_be_updated_within_an_open_run(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), {"mail": "another"})
        between = _seen(graph.get_state(thread()))
        asked = graph.invoke(None, thread())["__interrupt__"][0].value
        given: Any = Command(update={"text": "bob"}, resume="yes")
        found.append((between, asked, graph.invoke(given, thread())))
    assert found[1] == found[0]
    assert found[0][1] == "another?"


async def test_a_state_can_be_updated_within_an_open_run_in_an_event_loop(
    model: ChatSequrity,
) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        await graph.ainvoke({"text": "ann"}, thread())
        await graph.aupdate_state(thread(), {"mail": "another"})
        between = _seen(await graph.aget_state(thread()))
        given: Any = Command(update={"mail": "a third"})
        asked = (await graph.ainvoke(given, thread()))["__interrupt__"][0].value
        found.append((between, asked, await graph.ainvoke(Command(resume="yes"), thread())))
    assert found[1] == found[0]


def test_an_open_run_can_be_dropped(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), None, as_node=END)
        dropped = _seen(graph.get_state(thread()))
        graph.update_state(thread(), {"text": "bob"})
        updated = _seen(graph.get_state(thread()))
        asked = graph.invoke({"text": "cat"}, thread())["mail"]
        found.append((dropped, updated, asked, graph.invoke(Command(resume="yes"), thread())))
    assert found[1] == found[0]
    assert found[0][0][1] == ()


def test_after_an_update_as_a_node_the_run_continues_behind_that_node(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), {"mail": "mine"}, as_node="read")
        found.append((_seen(graph.get_state(thread())), graph.invoke(None, thread())))
        with pytest.raises(InvalidUpdateError):
            graph.update_state(thread(), {"text": "bob"}, as_node="nobody")
    assert found[1] == found[0]
    assert found[0][1]["text"] == "MINE"


def test_a_command_of_the_caller_can_go_to_a_node(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        given: Any = Command(goto="send", update={"mail": "mine"})
        found.append((graph.invoke(given, thread()), _seen(graph.get_state(thread()))))
    assert found[1] == found[0]
    assert found[0][0]["log"] == ["read", "send", "send"]


def test_update_state_removes_only_the_labels_of_the_updated_field(
    wary: ChatSequrity,
) -> None:
    for field in ("text", "mail"):
        graph = secured(mails(), wary, checkpointer=InMemorySaver())
        with pytest.raises(PolicyDenied):
            graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), {field: "mine"}, as_node="read")
        if field == "mail":
            assert graph.invoke(None, thread())["text"] == "MINE"
            continue
        with pytest.raises(PolicyDenied) as denied:
            graph.invoke(None, thread())
        assert denied.value.tool == "send"


def test_the_policy_checks_the_node_that_a_command_goes_to(wary: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), wary, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    for given in (Command(goto="send"), Command(goto="send", update={"text": "mine"})):
        with pytest.raises(PolicyDenied) as denied:
            graph.invoke(given, thread())
        assert denied.value.tool == "send"


def test_a_command_without_a_target_updates_the_state(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.invoke(Command(update={"text": "bob"}), thread())
        found.append((graph.get_state(thread()).values, graph.invoke({}, thread())))
    assert found[1] == found[0]


def test_several_updates_are_applied_at_once(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        steps = [[StateUpdate({"log": ["1"]}, "send")], [StateUpdate({"log": ["2"]}, "send")]]
        graph.bulk_update_state(thread(), steps)
        found.append(graph.get_state(thread()).values)
    assert found[1] == found[0]


# Going back


def test_a_run_can_continue_from_an_older_state(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.invoke({"text": "bob"}, thread())
        ends = [one for one in graph.get_state_history(thread()) if not one.next]
        found.append((len(ends), graph.invoke({"log": ["fork"]}, ends[-1].config)))
    assert found[1] == found[0]


def test_an_old_step_can_run_again(model: ChatSequrity) -> None:
    ran: list[str] = []

    def make() -> Any:
        graph: Any = StateGraph(State)

        def write(state: State) -> dict[str, Any]:
            ran.append("write")
            return {"text": state["mail"] + "!"}

        return graph.add_sequence([read, write]).set_entry_point("read")

    found = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        ran.clear()
        graph.invoke({"text": "ann"}, thread())
        [before] = [one for one in graph.get_state_history(thread()) if one.next == ("write",)]
        found.append((graph.invoke(None, before.config), list(ran)))
    assert found[1] == found[0]


# Questions, writes and started steps at a checkpoint that was edited


class Copies(TypedDict, total=False):
    given: str
    first: str
    second: str
    third: str


def copying(*, breaks: bool = False) -> Any:
    """Each node copies the value of the node before it. With `breaks`, a node beside `b` fails."""
    graph: Any = StateGraph(Copies)
    graph.add_node("a", lambda state: {"first": f"a {state['given']}"})
    graph.add_node("b", lambda state: {"second": f"b {state['first']}"})
    graph.add_node("c", lambda state: {"third": f"c {state.get('second')}"})
    if breaks:

        def fails(_state: Copies) -> None:
            raise OSError

        graph.add_node("fails", fails).add_edge("a", "fails")
    return graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")


def producers(url: str, run: Callable[[ChatSequrity], Any]) -> dict[str, set[str]]:
    """The producers of the argument of each call, as a service sees them."""
    found = dict[str, set[str]]()
    advance = Run.advance

    def noted(one: Run, *given: Any) -> Any:
        step = advance(one, *given)
        if isinstance(step, ToolCall):
            for value in step.arguments.values():
                found[step.tool] = set(value.labels.producers)
        return step

    with mock.patch.object(Run, "advance", noted):
        run(ChatSequrity("any/model", base_url=url))
    return found


@pytest.fixture(scope="module")
def in_process() -> Iterator[str]:
    with LocalServer(isolated_programs=False) as server:
        yield server.base_url


@pytest.mark.parametrize("stops", [False, True])
def test_labels_are_kept_when_an_input_is_added_beside_a_waiting_node(
    in_process: str, *, stops: bool
) -> None:
    def run(model: ChatSequrity) -> None:
        graph = secured(copying(), model, checkpointer=InMemorySaver())
        graph.invoke({"given": "x"}, thread(), interrupt_before=["b"])
        graph.update_state(thread(), {"given": "more"}, as_node="__input__")
        if stops:
            graph.invoke(None, thread(), interrupt_after=["b"])
        graph.invoke(None, thread(), interrupt_after=["c"])

    assert producers(in_process, run)["c"] >= {"a", "b"}


@pytest.mark.parametrize("is_other", [False, True])
def test_labels_are_kept_when_a_step_has_stopped_half_way(
    in_process: str, *, is_other: bool
) -> None:
    def run(model: ChatSequrity) -> None:
        saver = InMemorySaver()
        graph = secured(copying(breaks=True), model, checkpointer=saver)
        # LangGraph may cancel `b` before it writes. Then no step has stopped half way.
        for config in map(thread, map(str, range(50))):
            with pytest.raises(OSError):  # noqa: PT011 - the node's own
                graph.invoke({"given": "x"}, config)
            if any(one.name == "b" and one.result for one in graph.get_state(config).tasks):
                break
        graph.update_state(config, None, as_node=END)
        if is_other:
            graph = secured(copying(), model, checkpointer=saver)
        graph.invoke(Command(goto="c"), config)

    assert producers(in_process, run)["c"] >= {"a", "b"}


@pytest.mark.parametrize(
    "targets", [["pay"], [Send("pay", {"log": ["1"]}), "pay"], [Send("pay", {"log": ["1"]})] * 2]
)
def test_each_call_that_is_approved_at_an_edited_checkpoint_runs_once(
    model: ChatSequrity, targets: list[Any]
) -> None:
    paid = list[Any]()

    def pay(state: State) -> dict[str, Any]:
        paid.append(state["log"])
        return {"log": ["paid"]}

    graph: Any = StateGraph(State).add_node("a", lambda _state: {"log": ["a"]})
    graph.add_node("pay", pay).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda _state: targets, ["pay"])
    asking = ChatSequrity(
        "any/model", base_url=model.base_url, policy='tool "pay" { should deny always; }'
    )
    run = secured(graph, asking, checkpointer=InMemorySaver(), on_denied="interrupt")
    run.invoke({"log": ["in"]}, thread())
    run.update_state(thread(), {"log": ["edited"]}, as_node="a")
    found, asked = run.invoke(None, thread()), list[Any]()
    while found.get("__interrupt__"):
        [question] = found["__interrupt__"]
        asked.append(question.value["action_requests"][0]["args"]["log"])
        answer = {question.id: {"decisions": [{"type": "approve"}]}}
        found = run.invoke(Command(resume=answer), thread())
    assert sorted(paid) == sorted(asked)
    assert len(paid) == len(targets)


class Passing(TypedDict, total=False):
    text: str
    any: Annotated[int, AnyValue]
    now: Annotated[str, EphemeralValue]
    topic: Annotated[list[str], Topic]
    lock: Annotated[int, UntrackedValue]
    seen: Annotated[list[Any], operator.add]


def _shown(state: Passing) -> list[Any]:
    return sorted((name, one) for name, one in state.items() if name != "seen")


def passing(*, routes: bool) -> Any:
    """A graph whose last node writes fields that also change in a step without a write."""

    def first(state: Passing) -> Any:
        return {"seen": [_shown(state)]}

    def last(state: Passing) -> Any:
        return {"any": 7, "now": "now", "topic": "t", "lock": 5, "seen": [_shown(state)]}

    graph: Any = StateGraph(Passing).add_node(first).add_node(last).add_edge("first", "last")
    if routes:
        return graph.add_conditional_edges(START, lambda _: "first", ["first"])
    return graph.add_edge(START, "first")


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("routes", [False, True], ids=["an edge", "a router"])
@pytest.mark.parametrize("name", ["text", "any", "now", "topic", "lock"])
def test_an_input_clears_fields_that_last_one_step_as_in_langgraph(
    name: str, model: ChatSequrity, *, routes: bool
) -> None:
    given = {"text": "b", "any": 1, "now": "n", "topic": ["o"], "lock": 2}
    states = []
    for graph in Twins(lambda: passing(routes=routes), model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "a"}, thread())
        graph.invoke({name: given[name]}, thread())
        states.append(graph.invoke({"text": "c"}, thread()))
    assert states[0] == states[1]


@pytest.mark.parametrize("place", ["node", "router", "fused router", "config"])
def test_an_untracked_value_is_gone_for_every_reader_when_a_run_continues(
    place: str, model: ChatSequrity
) -> None:
    seen: list[Any] = []

    def look(state: Any, where: str) -> None:
        if where in place:
            seen.append(state.get("lock"))
            if len(seen) == 1:
                msg = "the first time"
                raise ArithmeticError(msg)

    @tool
    def peek(state: Annotated[Any, InjectedState]) -> str:
        """Look at the state."""
        look(state, "config")
        return "seen"

    tools = ToolNode([peek], handle_tool_errors=False)

    def node(state: Passing) -> Any:
        look(state, "node")
        tools.invoke([{"name": "peek", "args": {}, "id": "1", "type": "tool_call"}])
        return {"text": "done"}

    def route(state: Passing) -> Any:
        look(state, "router")
        return END

    def make() -> Any:
        graph: Any = StateGraph(Passing).add_node(node).add_edge(START, "node")
        return graph.add_conditional_edges("node", route, [END])

    options = {"fuse_router": place.startswith("fused")}
    executor = secured(make(), model, nodes={"node": options}, checkpointer=InMemorySaver())
    found = []
    for graph in (make().compile(checkpointer=InMemorySaver()), executor):
        seen.clear()
        with pytest.raises(ArithmeticError):
            graph.invoke({"text": "a", "lock": 5}, thread())
        graph.invoke(None, graph.get_state(thread()).config)
        found.append([*seen])
    assert found == [[5, None]] * 2


class Locked(TypedDict, total=False):
    rounds: Annotated[list[bool], operator.add]
    lock: Annotated[Any, UntrackedValue]


@pytest.mark.filterwarnings("ignore:Field `lock` holds")
def test_a_new_object_in_an_untracked_field_is_read_after_the_thread_has_lost_an_older_one(
    model: ChatSequrity,
) -> None:
    def take(_state: Locked) -> Any:
        return {"lock": threading.Lock()}

    def use(state: Locked) -> Any:
        return {"rounds": ["lock" in state]}

    def route(state: Locked) -> Any:
        return END if len(state["rounds"]) == 3 else "take"

    def make() -> Any:
        graph: Any = StateGraph(Locked)
        graph.add_sequence([take, use]).add_edge(START, "take")
        return graph.add_conditional_edges("use", route, ["take", END])

    states = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        with pytest.raises(GraphRecursionError):
            graph.invoke({}, thread(recursion_limit=3))
        states.append(graph.invoke(None, thread())["rounds"])
    assert states == [[True, False, True]] * 2


class Handle:
    """An object that only pickle can store."""

    def __init__(self, number: int) -> None:
        self.number = number


class Held(TypedDict, total=False):
    handle: Any
    seen: Annotated[list[Any], operator.add]


def test_an_object_that_the_checkpointer_pickles_is_there_when_a_thread_continues(
    model: ChatSequrity,
) -> None:
    def make() -> Any:
        def take(_state: Held) -> Any:
            return {"handle": Handle(5)}

        def ask(state: Held) -> Any:
            return {"seen": [state["handle"].number, interrupt("?")]}

        def use(state: Held) -> Any:
            return {"seen": [state["handle"].number]}

        graph: Any = StateGraph(Held)
        return graph.add_sequence([take, ask, use]).add_edge(START, "take")

    def saver() -> Any:
        return InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=True))

    for graph in Twins(make, model).of(checkpointer=saver):
        graph.invoke({}, thread())
        assert graph.invoke(Command(resume="yes"), thread())["seen"] == [5, "yes", 5]


def test_an_object_that_the_cache_pickles_is_there_when_its_node_does_not_run(
    model: ChatSequrity,
) -> None:
    def make() -> Any:
        def take(_state: Held) -> Any:
            ran.append("take")
            return {"handle": Handle(5)}

        def use(state: Held) -> Any:
            return {"seen": [state["handle"].number]}

        graph: Any = StateGraph(Held)
        graph.add_node(take, cache_policy=CachePolicy()).add_node(use)
        return graph.add_edge(START, "take").add_edge("take", "use")

    def cache() -> Any:
        return InMemoryCache(serde=JsonPlusSerializer(pickle_fallback=True))

    for graph in Twins(make, model).of(cache=cache):
        ran: list[str] = []
        assert [graph.invoke({})["seen"] for _ in range(2)] == [[5], [5]]
        assert ran == ["take"]


def test_a_changed_object_that_the_checkpointer_pickles_is_stored_again(
    model: ChatSequrity,
) -> None:
    def make() -> Any:
        def take(_state: Held) -> Any:
            return {"handle": Handle(1)}

        def change(state: Held) -> Any:
            state["handle"].number = 2
            return {"handle": state["handle"]}

        def ask(state: Held) -> Any:
            return {"seen": [state["handle"].number, interrupt("?")]}

        def use(state: Held) -> Any:
            return {"seen": [state["handle"].number]}

        graph: Any = StateGraph(Held)
        return graph.add_sequence([take, change, ask, use]).add_edge(START, "take")

    def saver() -> Any:
        return InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=True))

    for graph in Twins(make, model).of(checkpointer=saver):
        graph.invoke({}, thread())
        assert graph.invoke(Command(resume="yes"), thread())["seen"] == [2, "yes", 2]


@dataclass
class Box:
    """An object that each checkpointer can store."""

    number: int


@pytest.mark.parametrize("kind", [Box, Handle])
def test_an_object_is_not_an_older_one_that_was_like_it_before_it_changed(
    model: ChatSequrity, kind: Any
) -> None:
    def make() -> Any:
        def take(_state: Held) -> Any:
            return {"handle": kind(1)}

        def change(state: Held) -> Any:
            state["handle"].number = 2
            return {"handle": state["handle"]}

        def again(state: Held) -> Any:
            return {"handle": kind(1), "seen": [state["handle"].number]}

        def use(state: Held) -> Any:
            return {"seen": [state["handle"].number]}

        graph: Any = StateGraph(Held)
        return graph.add_sequence([take, change, again, use]).add_edge(START, "take")

    def saver() -> Any:
        return InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=True))

    for graph in Twins(make, model).of(checkpointer=saver):
        assert graph.invoke({}, thread())["seen"] == [2, 1]


class Untracked(TypedDict, total=False):
    handle: Annotated[Any, UntrackedValue]
    seen: Annotated[list[Any], operator.add]


def test_an_object_that_only_the_cache_pickles_is_no_error_of_the_checkpointer(
    model: ChatSequrity,
) -> None:
    def make() -> Any:
        def take(_state: Untracked) -> Any:
            return {"handle": Handle(5)}

        def use(state: Untracked) -> Any:
            return {"seen": [state["handle"].number]}

        graph: Any = StateGraph(Untracked)
        return graph.add_sequence([take, use]).add_edge(START, "take")

    def cache() -> Any:
        return InMemoryCache(serde=JsonPlusSerializer(pickle_fallback=True))

    for graph in Twins(make, model).of(checkpointer=InMemorySaver, cache=cache):
        assert graph.invoke({}, thread())["seen"] == [5]


class Gathering(UntrackedValue[Any]):
    """A channel of a user: it keeps all updates."""

    def update(self, values: Any) -> bool:
        before = self.value if self.is_available() else []
        self.value = [*before, *values]
        return bool(values)


class Collected(TypedDict, total=False):
    numbers: Annotated[Any, Gathering]
    seen: Annotated[list[Any], operator.add]


def test_a_subclass_of_untracked_value_gets_all_updates(model: ChatSequrity) -> None:
    def make() -> Any:
        def one(_state: Collected) -> Any:
            return {"numbers": 1}

        def two(_state: Collected) -> Any:
            return {"numbers": 2}

        def use(state: Collected) -> Any:
            return {"seen": [state["numbers"]]}

        graph: Any = StateGraph(Collected)
        return graph.add_sequence([one, two, use]).add_edge(START, "one")

    for graph in Twins(make, model).of():
        assert graph.invoke({})["seen"] == [[1, 2]]


class Loose(TypedDict, total=False):
    lock: Annotated[int, UntrackedValue(int, guard=False)]
    log: Annotated[list[Any], operator.add]


def waiting(kind: str, name: str = "asks", *, writes: bool = False) -> Any:
    """A node that writes or sends an untracked field, beside a node that asks."""

    def sets(_: Loose) -> Any:
        given = with_labels({"log": ["sets"], "lock": 5}, tags=["untrusted"])
        return given if kind == "field" else {"log": ["sets"]}

    def sends(_: Loose) -> Any:
        return Command(goto=Send("last", {"lock": 5, "log": []}))

    def asks(_: Loose) -> Any:
        interrupt("?")
        return {"lock": 7} if writes else {}

    def last(state: Loose) -> Any:
        return {"log": [state.get("lock")]}

    graph: Any = StateGraph(Loose)
    graph.add_node(name, asks).add_node("last", last)
    if kind == "command":
        graph.add_node("sets", sends, destinations=("last",))
    else:
        graph.add_node("sets", sets)
    if kind == "router":
        packet = Send("last", {"lock": 5, "log": []})
        graph.add_conditional_edges("sets", lambda _: packet, ["last"])
    graph.add_edge(START, "sets").add_edge(START, name)
    return graph.add_edge("sets", "last").add_edge(name, "last") if kind == "field" else graph


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("durability", ["sync", "exit"])
@pytest.mark.parametrize("update", [None, {"lock": 9}, {"log": ["given"]}], ids=str)
@pytest.mark.parametrize("kind", ["field", "command", "router"])
def test_the_next_step_does_not_see_parts_of_a_result_that_were_not_stored(
    kind: str, update: Any, durability: str, model: ChatSequrity
) -> None:
    logs = []
    for graph in Twins(lambda: waiting(kind), model).of(checkpointer=InMemorySaver):
        graph.invoke({"lock": 1}, thread(), durability=durability)
        answer: Any = Command(resume="yes", update=update)
        logs.append(graph.invoke(answer, thread(), durability=durability)["log"])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", ["asks", "then_asks"])
def test_if_a_step_waited_only_the_untracked_value_written_after_the_wait_counts(
    name: str, model: ChatSequrity
) -> None:
    logs = []
    make = partial(waiting, "field", name, writes=True)
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        graph.invoke({"lock": 1}, thread())
        logs.append(graph.invoke(Command(resume="yes"), thread())["log"])
    assert logs == [["sets", 7]] * 2


@pytest.mark.parametrize("update", [None, {"lock": 9}], ids=str)
def test_a_result_that_langgraph_stored_only_in_part_keeps_its_labels(
    update: Any, model: ChatSequrity
) -> None:
    policy = 'tool "last" { hard deny when log.tags overlaps {"untrusted"}; }'
    wary = model.model_copy(update={"policy": policy, "features": DUAL})
    nodes = {"last": {"reads": ["log", "lock"]}}
    executor = secured(waiting("field"), wary, nodes=nodes, checkpointer=InMemorySaver())
    executor.invoke({"lock": 1}, thread())
    with pytest.raises(PolicyDenied):
        executor.invoke(Command(resume="yes", update=update), thread())


def test_the_last_step_of_a_run_keeps_its_labels_if_it_was_stored_only_in_part(
    model: ChatSequrity,
) -> None:
    graph: Any = StateGraph(Loose)
    given = with_labels({"log": ["sets"], "lock": 5}, tags=["untrusted"])
    graph.add_node("sets", lambda _: given)
    graph.add_node("asks", lambda _: interrupt("?") and {}).add_node(
        "last", lambda state: {"log": state["log"][:1]}
    )
    graph.add_conditional_edges(
        START, lambda state: "last" if "again" in state["log"] else ["sets", "asks"]
    )
    policy = 'tool "last" { hard deny when log.tags overlaps {"untrusted"}; }'
    wary = model.model_copy(update={"policy": policy, "features": DUAL})
    nodes = {"sets": {"writes": ["log", "lock"]}}
    executor = secured(graph, wary, nodes=nodes, checkpointer=InMemorySaver())
    executor.invoke({"log": []}, thread())
    assert executor.invoke(Command(resume="yes"), thread())["log"] == ["sets"]
    with pytest.raises(PolicyDenied):
        executor.invoke({"log": ["again"]}, thread())


@pytest.mark.parametrize("edge", ["start", "goto"])
def test_a_packet_of_the_caller_runs_before_a_waiting_deferred_node(
    edge: str, model: ChatSequrity
) -> None:
    def make() -> Any:
        graph: Any = StateGraph(State)
        graph.add_node("j", lambda _: {"log": ["j"]})
        graph.add_node("c", lambda _: {"log": ["c"]}, defer=True)
        graph.add_edge(START, "c" if edge == "start" else "j")
        return graph.add_conditional_edges("c", lambda _: END, [END, "j"])

    states = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "a"}, thread())
        graph.invoke(Command(goto="c", update={"log": ["waits"]}), thread())
        states.append(graph.invoke(Command(goto=Send("j", {})), thread())["log"])
        states.append(graph.get_state(thread()).next)
    assert states[:2] == states[2:]


class Told(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    seen: Annotated[list[Any], operator.add]


def test_the_results_of_tasks_in_a_history_are_what_the_nodes_returned(
    model: ChatSequrity,
) -> None:
    def one(_state: Told) -> Any:
        return {"messages": AIMessage("one")}

    def several(_state: Told) -> Any:
        return {"messages": [AIMessage("two", id="2"), {"role": "user", "content": "three"}]}

    def text(_state: Told) -> Any:
        return {"messages": "four", "seen": ["five"]}

    def make() -> Any:
        graph: Any = StateGraph(Told)
        return graph.add_sequence([one, several, text]).add_edge(START, "one")

    histories = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        graph.invoke({"messages": []}, thread(), durability="sync")
        results = [
            task.result for state in graph.get_state_history(thread()) for task in state.tasks
        ]
        # LangGraph sets the id of a message while it may still be stored.
        histories.append(
            re.sub(r"id='[-0-9a-f]{36}'", "id=None", repr(results)).replace(", id=None", "")
        )
    assert histories[0] == histories[1]


def test_a_message_of_a_task_that_ended_before_an_interrupt_keeps_its_id(
    model: ChatSequrity,
) -> None:
    def says(_state: Told) -> Any:
        return {"messages": "hello"}

    def asks(_state: Told) -> Any:
        return {"seen": [interrupt("?")]}

    def reads(state: Told) -> Any:
        return {"seen": [message.id for message in state["messages"]]}

    graph: Any = StateGraph(Told)
    for node in (says, asks, reads):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "says").add_edge(START, "asks").add_edge(["says", "asks"], "reads")
    saver = InMemorySaver()
    secured(graph, model, checkpointer=saver).invoke({"messages": []}, thread())
    ended = secured(graph, model, checkpointer=saver).invoke(Command(resume="!"), thread())
    assert ended["seen"] == ["!", ended["messages"][0].id]


def test_messages_that_a_node_pushes_and_returns_survive_an_interrupt_beside_it(
    model: ChatSequrity,
) -> None:
    def says(_state: Told) -> Any:
        push_message(AIMessage("pushed", id="1"))
        return {"messages": ["returned"]}

    def asks(_state: Told) -> Any:
        return {"seen": [interrupt("?")]}

    def make() -> Any:
        graph: Any = StateGraph(Told)
        graph.add_node("says", says).add_node("asks", asks)
        return graph.add_edge(START, "says").add_edge(START, "asks")

    ends = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        graph.invoke({"messages": []}, thread())
        ended = graph.invoke(Command(resume="!"), thread())
        ends.append([message.content for message in ended["messages"]])
    assert ends[0] == ends[1] == ["pushed", "returned"]


def _append(held: list[str], updates: Sequence[list[str]]) -> list[str]:
    return [*held, *(text for update in updates for text in update)]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_task_that_runs_again_at_an_older_checkpoint_keeps_what_it_writes_then(
    model: ChatSequrity, durability: Any
) -> None:
    class State(TypedDict, total=False):
        log: Annotated[list[str], DeltaChannel(_append, list)]
        extra: Annotated[list[str], DeltaChannel(_append, list)]
        flag: bool

    def done(state: State) -> Any:
        return {"log": ["done"], **({"extra": ["new"]} if state.get("flag") else {})}

    def ask(_state: State) -> Any:
        return {"log": [interrupt("?")]}

    def make() -> Any:
        graph: Any = StateGraph(State)
        graph.add_node("done", done).add_node("ask", ask)
        return graph.add_edge(START, "done").add_edge(START, "ask")

    ends = []
    for graph in Twins(make, model).of(checkpointer=InMemorySaver):
        graph.invoke({"log": ["in"]}, thread(), durability=durability)
        paused = graph.get_state(thread()).config
        graph.update_state(thread(), None)
        resume: Any = Command(resume="yes", update={"flag": True})
        ended = graph.invoke(resume, paused, durability=durability)
        ends += [ended, graph.get_state(thread()).values]
    assert ends[:2] == ends[2:]
    assert ends[0]["extra"] == ["new"]


def test_the_results_of_an_edited_step_label_only_the_fields_that_they_wrote(
    model: ChatSequrity,
) -> None:
    """The run after the edit takes over the result of a node that had finished before it."""

    def fetch(_: State) -> Any:
        return with_labels({"mail": "hi"}, tags=["untrusted"])

    def ask(_: State) -> Any:
        return {"log": [interrupt("?")]}

    def post(state: State) -> Any:
        return {"log": [state["text"]]}

    def way(state: State) -> Any:
        return "post" if state.get("now") == "post" else ["fetch", "ask"]

    graph: Any = StateGraph(State)
    graph.add_node(fetch).add_node(ask).add_node(post)
    graph.add_conditional_edges(START, way, ["fetch", "ask", "post"])
    policy = 'tool "post" { hard deny when text.tags overlaps {"untrusted"}; }'
    wary = model.model_copy(update={"policy": policy, "features": DUAL})
    executor = secured(graph, wary, {"fetch": {"writes": ["mail"]}}, checkpointer=InMemorySaver())
    executor.invoke({"text": "mine", "log": []}, thread())
    executor.invoke(Command(resume="yes", update={"log": ["edit"]}), thread())
    assert executor.invoke({"now": "post"}, thread())["log"] == ["edit", "yes", "mine"]
