"""Agents with the field server: their answers are right, and no tool runs twice."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import InvalidRequest, SessionExpired
from langchain_sequrity.local import LocalServer
from tests.field.conftest import HABITS
from tests.field.server import FieldServer, Habits

ANSWERS = {
    "single-llm": "Both are paid.",
    "dual-llm": "paid 5 to Zo\u00eb paid 6 to Bo",
}
ENDED = {
    400: "Invalid session ID.",
    403: "This session has expired.",
    404: "Session not found.",
    409: "The session has expired.",
    410: "The session no longer exists.",
    422: "Unknown session.",
}
TWO = [(5, "Zo\u00eb"), (6, "Bo")]
# The limit ends a turn that restarts again and again.
THREAD: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 20}


class Till:
    """A tool that records its calls."""

    def __init__(self) -> None:
        self.paid: list[tuple[int, str]] = []

    def pay(self, euros: int, to: str) -> str:
        """Pay somebody."""
        self.paid.append((euros, to))
        return f"paid {euros} to {to}"


def model_at(field: FieldServer, arch: str, **fields: Any) -> ChatSequrity:
    return ChatSequrity(
        "any/model", base_url=field.base_url, features={"agent_arch": arch}, max_retries=0, **fields
    )


def agent_of(model: ChatSequrity, till: Till) -> Any:
    return create_agent(model, [till.pay], system_prompt="Be brief.", checkpointer=InMemorySaver())


async def _invoke(agent: Any, given: dict[str, Any]) -> str:
    return str(agent.invoke(given, THREAD)["messages"][-1].text)


async def _ainvoke(agent: Any, given: dict[str, Any]) -> str:
    return str((await agent.ainvoke(given, THREAD))["messages"][-1].text)


async def _stream(agent: Any, given: dict[str, Any]) -> str:
    """The text of the last message of a stream."""
    texts: dict[str, str] = {}
    async for chunk, _ in agent.astream(given, THREAD, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk):
            texts[str(chunk.id)] = texts.get(str(chunk.id), "") + chunk.text
    return list(texts.values())[-1]


WAYS: dict[str, Callable[..., Any]] = {"invoke": _invoke, "ainvoke": _ainvoke, "stream": _stream}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("arch", ANSWERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("habit", HABITS)
async def test_an_agent_gives_the_right_answer_and_pays_once(
    behind: LocalServer, habit: str, way: str, arch: str
) -> None:
    till = Till()
    with FieldServer(behind.base_url, HABITS[habit]) as field:
        agent = agent_of(model_at(field, arch), till)
        answer = await WAYS[way](agent, {"messages": [HumanMessage("pay both")]})
    assert (answer, till.paid) == (ANSWERS[arch], TWO)
    assert field.mismatches == 0


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("arch", ANSWERS)
@pytest.mark.parametrize("habit", HABITS)
async def test_the_second_turn_of_a_thread_gives_the_right_answer(
    behind: LocalServer, habit: str, arch: str
) -> None:
    till = Till()
    with FieldServer(behind.base_url, HABITS[habit]) as field:
        agent = agent_of(model_at(field, arch), till)
        for _ in range(2):
            answer = await _invoke(agent, {"messages": [HumanMessage("pay both")]})
    assert (answer, till.paid) == (ANSWERS[arch], TWO * 2)
    assert field.mismatches == 0
    sessions = [one.get("x-session-id") for one in field.headers]
    assert len(set(sessions)) == 2  # none at first, then one for the whole thread


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("arch", ANSWERS)
@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("at", [1, 2])
def test_an_ended_session_raises_session_expired_and_nothing_is_paid_twice(
    behind: LocalServer, at: int, status: int, arch: str
) -> None:
    till = Till()
    habits = Habits(ends={at: (status, ENDED[status])})
    with FieldServer(behind.base_url, habits) as field:
        agent = agent_of(model_at(field, arch), till)
        with pytest.raises(SessionExpired):
            agent.invoke({"messages": [HumanMessage("pay both")]}, THREAD)
    assert till.paid == TWO[:at]


LAST_TURN = {
    400: "Session has reached max_n_turns",
    409: "Session already completed",
    410: "Gone.",
    422: "No active session with this id",
    200: "Maximum number of turns reached for session 12",
}


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(
    ("status", "arch"),
    # Only a dual-LLM turn can fail with status 200.
    [
        (status, arch)
        for status in LAST_TURN
        for arch in ANSWERS
        if (status, arch) != (200, "single-llm")
    ],
)
@pytest.mark.parametrize(
    "habits", [{}, {"short": True, "unknown_keys": True, "null_content": True}]
)
async def test_a_long_chat_goes_on_after_the_last_turn_of_each_session(
    behind: LocalServer, status: int, arch: str, habits: dict[str, Any]
) -> None:
    till = Till()
    ends = Habits(turns=(2, status, LAST_TURN[status]), **habits)
    with FieldServer(behind.base_url, ends) as field:
        agent = agent_of(model_at(field, arch, on_session_expired="restart"), till)
        answers = [await _invoke(agent, {"messages": [HumanMessage("pay both")]}) for _ in range(5)]
    assert answers == [ANSWERS[arch]] * 5
    assert till.paid == TWO * 5


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("at", [1, 2])
def test_a_single_llm_chat_with_restart_continues_in_a_new_session(
    behind: LocalServer, at: int, status: int
) -> None:
    till = Till()
    habits = Habits(ends={at: (status, ENDED[status])}, dashless=True)
    with FieldServer(behind.base_url, habits) as field:
        model = model_at(field, "single-llm", on_session_expired="restart")
        answer = agent_of(model, till).invoke({"messages": [HumanMessage("pay both")]}, THREAD)
    assert (answer["messages"][-1].text, till.paid) == (ANSWERS["single-llm"], TWO)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "The field `tools` is not valid."), (403, "This key may not use the model."),
        (409, "Another request of this session is still running."), (422, "messages: Field required"),
        (400, "A result is missing for a call of this session."),
    ],
)  # fmt: skip
def test_other_refusals_do_not_count_as_an_ended_session(
    behind: LocalServer, status: int, text: str, *, restart: bool
) -> None:
    till = Till()
    with FieldServer(behind.base_url, Habits(ends={1: (status, text)})) as field:
        how = "restart" if restart else "raise"
        agent = agent_of(model_at(field, "dual-llm", on_session_expired=how), till)
        with pytest.raises(Exception, match=re.escape(text[:20])) as caught:
            agent.invoke({"messages": [HumanMessage("pay both")]}, THREAD)
    assert not isinstance(caught.value, SessionExpired)
    assert till.paid == TWO[:1]
    assert len(field.requests) == 2


def test_an_edited_history_is_refused_and_nothing_is_paid(
    behind: LocalServer,
) -> None:
    with FieldServer(behind.base_url, HABITS["compares strictly"]) as field:
        model = model_at(field, "dual-llm").bind_tools([Till().pay])
        asks = model.invoke("pay both")
        (call,) = asks.tool_calls
        edited = asks.model_copy(
            update={"tool_calls": [{**call, "args": {"euros": 500, "to": "Eve"}}]}
        )
        history = [HumanMessage("pay both"), edited, ToolMessage("paid", tool_call_id=call["id"])]
        reply = _reply_or_error(model, history)
    assert field.mismatches == 1
    assert isinstance(reply, InvalidRequest) or "forked_from" in reply.response_metadata["sequrity"]


def _reply_or_error(model: Any, history: list[Any]) -> Any:
    try:
        return model.invoke(history)
    except InvalidRequest as error:
        return error


@pytest.mark.parametrize("dashless", [False, True])
def test_ids_of_another_session_are_not_sent(behind: LocalServer, *, dashless: bool) -> None:
    till = Till()
    with FieldServer(behind.base_url, Habits(dashless=dashless)) as field:
        agent = agent_of(model_at(field, "single-llm"), till)
        found = agent.invoke({"messages": [HumanMessage("pay both")]}, THREAD)["messages"]
        session = next(
            one.response_metadata["sequrity"]["session_id"]
            for one in found
            if isinstance(one, AIMessage)
        )
        sent = len(field.requests)
        other = model_at(field, "single-llm", policy='tool "pay" { must allow always; }')
        other.bind_tools([till.pay]).invoke([*found, HumanMessage("pay both again")])
    text = repr(field.requests[sent:])
    assert session not in text
    assert session.replace("-", "") not in text
    assert field.headers[-1].get("x-session-id") is None
