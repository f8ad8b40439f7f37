"""Threads: what a checkpointer keeps of an executor's runs, and what may be done between them."""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import EphemeralValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StateUpdate, interrupt

from langchain_sequrity import ChatSequrity, SequrityMessages, with_labels
from langchain_sequrity.errors import GraphNotSupported, PolicyDenied, UsageError
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


# What has no thread


@pytest.mark.parametrize("given", [{"text": "ann"}, None, Command(update={"text": "bo"})], ids=str)
@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}], ids=str)
def test_a_run_without_a_thread_is_the_error_of_langgraph(
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


def test_a_run_that_keeps_nothing_needs_no_thread(model: ChatSequrity) -> None:
    for graph in Twins(mails, model).of():
        assert graph.invoke({"text": "ann"})["mail"] == "mail for ann"


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


# What a thread shows


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


def test_nothing_of_the_executors_own_is_in_a_state(model: ChatSequrity) -> None:
    graph = secured(mails(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread(), interrupt_after=["read"])
    shown = repr([graph.get_state(thread()), *graph.get_state_history(thread())])
    assert "sequrity" not in shown


def test_the_state_after_a_failed_request_is_an_open_run(model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "send" { hard deny always; }'})
    graph = secured(mails(), denies, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied) as denied:
        graph.invoke({"text": "ann"}, thread())
    assert not any("__sequrity" in note for note in getattr(denied.value, "__notes__", []))
    state = graph.get_state(thread())
    assert state.next == (START,)
    assert state.values == {"text": "ann", "mail": "mail for ann", "log": ["read"]}
    assert "PolicyDenied" in str(state.tasks[0].error)


# Several runs


def test_the_next_run_begins_with_the_state_of_the_last(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        runs = [{"text": "ann"}, {"log": ["again"]}, {"text": "bob", "now": "x"}]
        found.append([graph.invoke(run, thread()) for run in runs])
    assert found[1] == found[0]


def test_two_threads_are_apart(model: ChatSequrity) -> None:
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
    """A join that waits for both `a` and `b`, of which each run takes one."""
    graph: Any = StateGraph(Gathered)
    for name in "abcd":
        graph.add_node(name, _noting(name))

    def way(state: Gathered) -> str:
        return state["way"]

    graph.add_conditional_edges(START, way, ["a", "b", "d"])
    return graph.add_edge(["a", "b"], "c").add_edge("c", "d")


@pytest.mark.parametrize("ways", ["ab", "ba", "aab", "adb", "abab", "abb", "aba"])
def test_a_half_full_join_waits_for_the_next_run(ways: str, model: ChatSequrity) -> None:
    found = []
    for graph in Twins(half_full, model).of(checkpointer=InMemorySaver):
        found += [graph.invoke({"way": way}, thread()) for way in ways]
    assert found[len(ways) :] == found[: len(ways)]


# Labels

UNTRUSTED = """
tool "read" { result { @tags |= {"untrusted"}; } }
tool "send" { hard deny when mail.tags overlaps {"untrusted"}; }
"""


def _labelled_mails() -> Any:
    """`read` in one run, `send` in another."""
    graph: Any = StateGraph(State)

    def way(state: State) -> str:
        return "send" if state.get("now") == "send" else "read"

    graph.add_node("read", read).add_node("send", send)
    return graph.add_conditional_edges(START, way, ["read", "send"])


@pytest.fixture(params=["openai", "anthropic"])
def wary(request: pytest.FixtureRequest, model: ChatSequrity) -> ChatSequrity | SequrityMessages:
    """A model, of each format, whose policy lets nothing untrusted be sent."""
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


def test_labels_survive_several_runs(wary: ChatSequrity) -> None:
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


def test_without_a_checkpointer_nothing_is_asked_for(model: ChatSequrity) -> None:
    graph = secured(_labelled_mails(), model)
    assert graph.invoke({"text": "ann"})["mail"] == "mail for ann"


class Added(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    go: str


def test_an_input_that_adds_to_a_value_joins_its_labels(model: ChatSequrity) -> None:
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


def test_what_an_unfinished_run_wrote_is_taken_back(wary: ChatSequrity) -> None:
    # Its labels are known to its session alone: kept, it would be a way around the policy.
    graph = secured(mails(), wary, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        graph.invoke({"text": "ann", "log": ["one"]}, thread())
    with pytest.raises(PolicyDenied):
        graph.invoke({"log": ["two"]}, thread())
    labelled = secured(_labelled_mails(), wary, checkpointer=graph.checkpointer)
    with pytest.raises(KeyError):  # there is no mail to send
        labelled.invoke({"now": "send"}, thread())
    assert graph.get_state(thread()).values["log"] == ["one", "two"]


# New input while a run is open


def asking() -> Any:
    graph: Any = StateGraph(State)

    def ask(state: State) -> dict[str, Any]:
        return {"text": interrupt(f"{state['mail']}?"), "log": ["ask"]}

    return graph.add_sequence([read, ask, send]).set_entry_point("read")


def test_new_input_drops_an_open_interrupt(model: ChatSequrity) -> None:
    graph = secured(asking(), model, checkpointer=InMemorySaver())
    first = graph.invoke({"text": "ann"}, thread())
    second = graph.invoke({"text": "bob"}, thread())
    assert [one["__interrupt__"][0].value for one in (first, second)] == [
        "mail for ann?",
        "mail for bob?",
    ]
    assert graph.invoke(Command(resume="yes"), thread()) == {
        "text": "MAIL FOR BOB",
        "mail": "mail for bob",
        "log": ["read", "ask", "send"],
    }


# Updates from outside


def test_a_state_is_updated_between_runs(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.update_state(thread(), {"text": "bob", "log": ["outside"]})
        between = _seen(graph.get_state(thread()))
        found.append((between, graph.invoke({}, thread()), graph.invoke(None, thread())))
    assert found[1] == found[0]


async def test_a_state_is_updated_between_runs_in_a_loop(model: ChatSequrity) -> None:
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


def test_an_update_within_an_open_run_is_refused(model: ChatSequrity) -> None:
    graph = secured(asking(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    with pytest.raises(UsageError, match="run that is not finished"):
        graph.update_state(thread(), {"text": "bob"})
    with pytest.raises(UsageError, match="run that is not finished"):
        graph.invoke(Command(update={"text": "bob"}, resume="yes"), thread())
    assert graph.invoke(Command(resume="yes"), thread())["mail"] == "mail for ann"


async def test_an_update_within_an_open_run_is_refused_in_a_loop(model: ChatSequrity) -> None:
    graph = secured(asking(), model, checkpointer=InMemorySaver())
    await graph.ainvoke({"text": "ann"}, thread())
    with pytest.raises(UsageError, match="run that is not finished"):
        await graph.aupdate_state(thread(), {"text": "bob"})
    with pytest.raises(UsageError, match="run that is not finished"):
        await graph.ainvoke(Command(update={"text": "bob"}), thread())


def test_an_open_run_can_be_dropped(model: ChatSequrity) -> None:
    graph = secured(asking(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    graph.update_state(thread(), None, as_node=END)
    assert graph.get_state(thread()).next == ()
    with pytest.raises(UsageError, match="take"):  # the next run would lose it
        graph.update_state(thread(), {"text": "bob"})
    assert graph.invoke({"text": "cat"}, thread())["mail"] == "mail for cat"


def test_an_update_that_starts_in_the_middle_is_refused(model: ChatSequrity) -> None:
    graph = secured(mails(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "ann"}, thread())
    with pytest.raises(GraphNotSupported, match="as_node='read'") as refused:
        graph.update_state(thread(), {"text": "bob"}, as_node="read")
    assert refused.value.node == "read"
    with pytest.raises(GraphNotSupported, match="goto"):
        graph.invoke(Command(goto="send"), thread())
    with pytest.raises(InvalidUpdateError):
        graph.update_state(thread(), {"text": "bob"}, as_node="nobody")


def test_a_command_without_a_place_updates_the_state(model: ChatSequrity) -> None:
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


def test_a_run_goes_on_from_an_older_state(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(mails, model).of(checkpointer=InMemorySaver):
        graph.invoke({"text": "ann"}, thread())
        graph.invoke({"text": "bob"}, thread())
        ends = [one for one in graph.get_state_history(thread()) if not one.next]
        found.append((len(ends), graph.invoke({"log": ["fork"]}, ends[-1].config)))
    assert found[1] == found[0]


def test_an_old_step_is_run_again(model: ChatSequrity) -> None:
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
