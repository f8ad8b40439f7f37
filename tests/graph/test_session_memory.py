"""The session of an executor's thread, if the policy has rules on it (behaviour.md P13)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from langchain_sequrity import LangGraphExecutor
from langchain_sequrity.chat_models.threads import forget_threads
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, SessionLost
from langchain_sequrity.local import LocalServer

POLICY = """
tool "read_mail" { session after { @tags |= {"mail"}; } }
tool "pay" { session before { @tags |= {"tried"}; } should deny always; }
tool "send" { must deny when @session.tags overlaps {"mail", "tried"}; should allow always; }
"""
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Office:
    """A graph that runs the nodes which the last message names."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        graph = StateGraph(MessagesState)
        for name in ("read_mail", "pay", "send"):
            graph.add_node(name, self._node(name))
            graph.add_conditional_edges(name, self._route, ["read_mail", "pay", "send", END])
        graph.add_conditional_edges(START, self._route, ["read_mail", "pay", "send", END])
        self.graph = graph

    def _node(self, name: str) -> Any:
        def node(state: MessagesState) -> dict[str, Any]:
            *_, last = state["messages"]
            self.ran.append(name)
            return {"messages": [AIMessage(last.text.partition(" ")[2])]}

        return node

    def _route(self, state: MessagesState) -> str:
        return state["messages"][-1].text.partition(" ")[0] or END

    def executor(self, base_url: str, saver: Any, **options: Any) -> LangGraphExecutor:
        settings = {"policy": POLICY, "base_url": base_url, "checkpointer": saver, **options}
        return LangGraphExecutor(self.graph, "any/model", **settings)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


@pytest.fixture
def office() -> Office:
    return Office()


def run(secure: LangGraphExecutor, text: str, config: Any = THREAD) -> Any:
    return secure.invoke({"messages": [HumanMessage(text)]}, config)


@pytest.mark.parametrize("history", ["new", "whole"])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_run_remembers_the_earlier_runs_of_its_thread(
    base_url: str, office: Office, history: Any, restarts: bool
) -> None:
    secure = office.executor(base_url, InMemorySaver(), history=history)
    run(secure, "read_mail")
    if restarts:
        forget_threads()
    with pytest.raises(PolicyDenied):
        run(secure, "send")
    assert run(secure, "send", {"configurable": {"thread_id": "other"}})
    assert office.ran == ["read_mail", "send"]


def test_a_run_remembers_a_denied_one(base_url: str, office: Office) -> None:
    secure = office.executor(base_url, InMemorySaver())
    for text in ("pay", "send", "read_mail send"):
        with pytest.raises(PolicyDenied):
            run(secure, text)
    assert office.ran == ["read_mail"]


async def test_async_runs_and_streams_remember_too(base_url: str, office: Office) -> None:
    secure = office.executor(base_url, InMemorySaver())
    await secure.ainvoke({"messages": [HumanMessage("read_mail")]}, THREAD)
    with pytest.raises(PolicyDenied):
        [_ async for _ in secure.astream({"messages": [HumanMessage("send")]}, THREAD)]


def test_a_fork_does_not_forget_what_ran_since(base_url: str, office: Office) -> None:
    secure = office.executor(base_url, InMemorySaver())
    run(secure, "")
    before = secure.get_state(THREAD).config
    run(secure, "read_mail")
    with pytest.raises(PolicyDenied):
        run(secure, "send", before)


def test_a_replay_from_within_a_run_does_not_forget_what_ran_since(
    base_url: str, office: Office
) -> None:
    graph = office.graph.compile(interrupt_before=["send"])
    secure = LangGraphExecutor(
        graph, "any/model", policy=POLICY, base_url=base_url, checkpointer=InMemorySaver()
    )
    run(secure, "send")
    paused = secure.get_state(THREAD).config
    run(secure, "read_mail")
    with pytest.raises(PolicyDenied):
        secure.invoke(None, paused)
    assert office.ran == ["read_mail"]


def test_an_edit_does_not_make_the_session_forget(base_url: str, office: Office) -> None:
    secure = office.executor(base_url, InMemorySaver())
    run(secure, "read_mail")
    secure.update_state(THREAD, {"messages": [AIMessage("send")]}, as_node="read_mail")
    with pytest.raises(PolicyDenied):
        secure.invoke(None, THREAD)
    with pytest.raises(PolicyDenied):
        secure.invoke(Command(goto="send"), THREAD)
    assert office.ran == ["read_mail"]


def test_a_history_that_is_passed_in_is_told_that_its_session_is_lost(
    base_url: str, office: Office
) -> None:
    secure = office.executor(base_url, None)
    messages = [HumanMessage("read_mail"), AIMessage("a mail"), HumanMessage("send")]
    with pytest.raises(SessionLost, match="earlier turns"):
        secure.invoke({"messages": messages})
    accepts = office.executor(base_url, None, on_session_lost="restart")
    assert accepts.invoke({"messages": messages})
    assert office.ran == ["send"]


def test_another_policy_or_an_expired_session_does_not_continue_the_thread(
    office: Office,
) -> None:
    saver = InMemorySaver()
    with LocalServer() as server:
        run(office.executor(server.base_url, saver), "read_mail")
        stricter = POLICY.replace("should deny", "must deny")
        other = office.executor(server.base_url, saver, policy=stricter)
        with pytest.raises(SessionLost, match="another model"):
            run(other, "send")
        port = server.base_url.rpartition(":")[2]
    with LocalServer(port=int(port)) as server:  # it knows no session
        with pytest.raises(SessionLost, match="no longer knows"):
            run(office.executor(server.base_url, saver), "send")
        accepts = office.executor(server.base_url, saver, on_session_lost="restart")
        assert run(accepts, "send")
    assert office.ran == ["read_mail", "send"]


def test_an_executor_within_a_node_does_not_begin_a_session_of_its_own(
    base_url: str, office: Office
) -> None:
    inner = office.executor(base_url, None)

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": inner.invoke({"messages": [state["messages"][-1]]})["messages"][-1:]}

    graph: Any = StateGraph(MessagesState).add_sequence([("ask", ask)]).add_edge(START, "ask")
    policy = 'tool "ask" { session after { @tags |= {"asked"}; } should allow always; }'
    outer = LangGraphExecutor(graph, "any/model", policy=policy, base_url=base_url)
    with pytest.raises(SessionLost, match="belongs to another"):
        outer.invoke({"messages": [HumanMessage("send")]})
    pair = StateGraph(MessagesState).add_node("first", ask)
    pair.add_node("again", lambda _: ask({"messages": [HumanMessage("send")]}))
    plain = pair.add_edge(START, "first").add_edge("first", "again").compile()
    with pytest.raises(PolicyDenied):  # two runs of one plain run share their session
        plain.invoke({"messages": [HumanMessage("read_mail")]})
    assert office.ran == ["read_mail"]


def test_a_run_that_failed_does_not_keep_the_session_from_the_next_one(
    base_url: str, office: Office
) -> None:
    config = {"fsm": {"max_tool_calls_per_step": 3}}
    inner = office.executor(base_url, None, session_config=config)
    texts = ["read_mail read_mail read_mail", "send"]

    def ask(_: MessagesState) -> dict[str, Any]:
        try:
            inner.invoke({"messages": [HumanMessage(texts.pop(0))]})
        except ProgramFailed as error:
            return {"messages": [AIMessage(str(error.code))]}
        return {"messages": [AIMessage("done")]}

    team, graph = (cast("Any", StateGraph(MessagesState)) for _ in range(2))
    team.add_node("ask", ask).add_edge(START, "ask")
    graph.add_node("team", team.compile()).add_edge(START, "team")
    graph.add_conditional_edges("team", lambda _: "team" if texts else END, ["team", END])
    with pytest.raises(PolicyDenied):
        graph.compile().invoke({"messages": [HumanMessage("Go")]})
    assert office.ran == ["read_mail"]


def test_a_checkpointer_on_disk_keeps_the_session(
    base_url: str, office: Office, tmp_path: Path
) -> None:
    for text in ("read_mail", "send"):
        with SqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as saver:
            secure = office.executor(base_url, saver)
            if text == "send":
                with pytest.raises(PolicyDenied):
                    run(secure, text)
            else:
                run(secure, text)
    assert office.ran == ["read_mail"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_an_executor_in_a_node_finds_the_session_after_a_restart(
    base_url: str, office: Office, is_async: bool
) -> None:
    def node(text: str) -> Any:
        inner = office.executor(base_url, None)
        ask = {"messages": [HumanMessage(text)]}

        def call(_: MessagesState) -> dict[str, Any]:
            return {"messages": inner.invoke(ask)["messages"][-1:]}

        async def acall(_: MessagesState) -> dict[str, Any]:
            return {"messages": (await inner.ainvoke(ask))["messages"][-1:]}

        return acall if is_async else call

    graph = StateGraph(MessagesState)
    graph.add_node("a", node("read_mail"))
    graph.add_node("b", node("send"))
    app: Any = (
        graph.add_edge(START, "a")
        .add_edge("a", "b")
        .compile(InMemorySaver(), interrupt_before=["b"])
    )
    await app.ainvoke({"messages": [HumanMessage("Go")]}, THREAD) if is_async else app.invoke(
        {"messages": [HumanMessage("Go")]}, THREAD
    )
    forget_threads()
    with pytest.raises(PolicyDenied):
        await app.ainvoke(None, THREAD) if is_async else app.invoke(None, THREAD)
    assert office.ran == ["read_mail"]


def test_a_fork_from_before_the_session_finds_it_after_a_restart(
    base_url: str, office: Office
) -> None:
    secure = office.executor(base_url, InMemorySaver())
    run(secure, "read_mail")
    *_, first = secure.get_state_history(THREAD)
    forget_threads()
    with pytest.raises(PolicyDenied):
        run(secure, "send", first.config)
    assert office.ran == ["read_mail"]
