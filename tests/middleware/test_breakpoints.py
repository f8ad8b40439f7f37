"""Only an answer that was given after its question counts."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.middleware import PolicyMiddleware
from tests.middleware.agents import (
    NO_RULES,
    THREAD,
    Till,
    agent,
    ask,
    calling,
    decide,
    kinds,
    turns,
)

SOFT = 'tool "pay" { should deny when not euros.value in {int 1..100}; }'
APPROVE = {"type": "approve"}
PAYS = calling(("pay", {"euros": 500}))


class Tries(Till):
    """The first payment fails after it was made."""

    def pay(self, euros: int, to: str = "shop") -> str:
        """Pay somebody."""
        said = super().pay(euros, to)
        if len(self.paid) == 1:
            raise TimeoutError
        return said


class Again(AgentMiddleware[Any, Any, Any]):
    """Retries once. LangChain's own middleware treated questions as failures in version 1.2."""

    def wrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        try:
            return handler(request)
        except TimeoutError:
            return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        try:
            return await handler(request)
        except TimeoutError:
            return await handler(request)


def sqlite() -> SqliteSaver:
    return SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))


def guarded(till: Till, **options: Any) -> Any:
    guard = PolicyMiddleware(SOFT, on_denied="interrupt", tools=None)
    return create_agent(turns(PAYS), [till.pay], middleware=[Again(), guard], **options)


def at_the_top(till: Till, saver: Any = None) -> Any:
    return guarded(till, checkpointer=saver or InMemorySaver(), interrupt_before=["tools"])


def within(inner: Any, saver: Any, **options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("agent", inner)
    graph.add_edge(START, "agent")
    return graph.compile(checkpointer=saver or InMemorySaver(), **options)


def in_a_subgraph(till: Till, saver: Any = None) -> Any:
    return within(guarded(till, interrupt_before=["tools"]), saver)


def before_a_subgraph(till: Till, saver: Any = None) -> Any:
    return within(guarded(till), saver, interrupt_before=["agent"])


def in_a_tool(till: Till, saver: Any = None) -> Any:
    inner = guarded(till)

    @tool
    def delegate(job: str) -> str:
        """Let another agent do it."""
        return str(inner.invoke(ask(job)))

    return create_agent(
        turns(calling(("delegate", {"job": "x"}))),
        [delegate],
        checkpointer=saver or InMemorySaver(),
        interrupt_before=["tools"],
    )


PLACES = [at_the_top, in_a_subgraph, before_a_subgraph, in_a_tool]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_an_approval_at_a_breakpoint_approves_nothing(
    place: Callable[[Till], Any], durability: Any
) -> None:
    till = Till()
    run = place(till)
    assert "__interrupt__" not in run.invoke(ask(), THREAD, durability=durability)
    state = run.invoke(decide(APPROVE), THREAD, durability=durability)
    assert len(state["__interrupt__"]) == 1
    assert till.paid == []
    run.invoke(decide(APPROVE), THREAD, durability=durability)
    assert till.paid == [(500, "shop")]


@pytest.mark.long(sample=8)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("saver", [InMemorySaver, sqlite])
def test_a_run_that_continues_without_an_answer_asks_again(
    place: Callable[..., Any], durability: Any, saver: Callable[[], Any]
) -> None:
    till = Till()
    run = place(till, saver())
    run.invoke(ask(), THREAD, durability=durability)
    for given in (decide(APPROVE), None, None):
        assert len(run.invoke(given, THREAD, durability=durability)["__interrupt__"]) == 1
        assert till.paid == []
    run.invoke(decide({"type": "reject"}), THREAD, durability=durability)
    assert till.paid == []


@pytest.mark.parametrize("place", PLACES)
def test_an_approval_is_valid_for_all_retries_of_a_call(place: Callable[..., Any]) -> None:
    tries = Tries()
    run = place(tries)
    run.invoke(ask(), THREAD)
    run.invoke(None, THREAD)
    edit = {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 200}}}
    run.invoke(decide(edit), THREAD)
    assert tries.paid == []
    assert "__interrupt__" not in run.invoke(decide(APPROVE), THREAD)
    assert tries.paid == [(200, "shop")] * 2


async def test_an_approval_is_valid_for_all_retries_of_a_call_in_an_event_loop() -> None:
    tries = Tries()
    run = at_the_top(tries)
    for given in (ask(), None, decide(APPROVE)):
        assert tries.paid == []
        await run.ainvoke(given, THREAD)
    assert tries.paid == [(500, "shop")] * 2


def test_an_approval_is_not_valid_for_the_same_call_of_another_run() -> None:
    till = Till()
    run = guarded(till, checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    asked = run.get_state(THREAD).config
    run.invoke(decide(APPROVE), THREAD)
    assert len(run.invoke(None, asked)["__interrupt__"]) == 1
    assert till.paid == [(500, "shop")]


@pytest.mark.parametrize("place", PLACES[:-1])  # the last one calls its agent synchronously
async def test_an_approval_at_a_breakpoint_approves_nothing_in_an_event_loop(
    place: Callable[[Till], Any],
) -> None:
    till = Till()
    run = place(till)
    await run.ainvoke(ask(), THREAD)
    assert (await run.ainvoke(decide(APPROVE), THREAD))["__interrupt__"]
    assert till.paid == []
    await run.ainvoke(decide(APPROVE), THREAD)
    assert till.paid == [(500, "shop")]


def test_successive_questions_about_a_call_are_answered_in_turn() -> None:
    till = Till()
    run = at_the_top(till)
    run.invoke(ask(), THREAD)
    edit = {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 200}}}
    for answer in (decide(APPROVE), Command(resume="what?"), decide(edit)):
        assert run.invoke(answer, THREAD)["__interrupt__"]
        assert till.paid == []
    run.invoke(decide(APPROVE), THREAD)
    assert till.paid == [(200, "shop")]


def test_a_tool_may_ask_its_own_question_after_an_approval() -> None:
    said: list[Any] = []

    @tool
    def pay(euros: int) -> str:
        """Pay."""
        said.append((euros, interrupt("Which account?")))
        return "paid"

    run = agent(SOFT, [pay], PAYS, on_denied="interrupt", checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    (question,) = run.invoke(decide(APPROVE), THREAD)["__interrupt__"]
    assert question.value == "Which account?"
    run.invoke(Command(resume="the first"), THREAD)
    assert said == [(500, "the first")]


def test_an_approval_is_not_valid_if_the_call_was_changed_after_the_question() -> None:
    till = Till()
    run = guarded(till, checkpointer=InMemorySaver())
    message = run.invoke(ask(), THREAD)["messages"][-1]
    call = {**message.tool_calls[0], "args": {"euros": 900}}
    changed = message.model_copy(update={"tool_calls": [call]})
    run.update_state(THREAD, {"messages": [changed]})
    assert kinds(run.invoke(decide(APPROVE), THREAD)) == ["policy"]
    assert till.paid == []


def sent(call: Any, messages: list[Any]) -> Command[Any]:
    """A command that starts a call with a state of its own."""
    state = {"messages": messages}
    given = {"__type": "tool_call_with_context", "tool_call": call, "state": state}
    return Command(goto=Send("tools", given))


def test_a_state_that_is_sent_with_a_call_cannot_hide_labels() -> None:
    @tool(response_format="content_and_artifact")
    def read_mail() -> Any:
        """Read a mail."""
        return labeled_tool_result("text", tags=["mail"])

    till = Till()
    policy = 'tool "pay" { must deny when to.tags overlaps {"mail"}; }'
    script = calling(("read_mail", {})), "read", calling(("pay", {"euros": 5, "to": "x"}))
    run = agent(policy, [read_mail, till.pay], *script, checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    call = {"name": "pay", "args": {"euros": 5, "to": "x"}, "id": "other", "type": "tool_call"}
    state = run.invoke(sent(call, []), THREAD)
    assert kinds(state)[-1] == "policy"
    assert till.paid == []


def test_a_state_that_is_sent_with_a_call_cannot_hide_an_earlier_result() -> None:
    till = Till()
    run = agent(NO_RULES, [till.pay], calling(("pay", {"euros": 5})), checkpointer=InMemorySaver())
    messages = run.invoke(ask(), THREAD)["messages"]
    # At the checkpoint after the tools, where the call's message is the model's newest.
    ended = next(one for one in run.get_state_history(THREAD) if one.next == ("model",))
    run.invoke(sent(messages[1].tool_calls[0], messages[:2]), ended.config)
    assert till.paid == [(5, "shop")]
