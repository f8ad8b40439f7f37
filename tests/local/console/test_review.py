"""`ConsoleReview`: runs of every way go on with the decision of a person in the console."""

import asyncio
import pickle
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypedDict

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph

from langchain_sequrity import ChatSequrity, ConsoleReview, LangGraphExecutor
from langchain_sequrity.errors import AuthenticationFailed, PolicyDenied, ProgramFailed, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware

POLICY = 'tool "pay" { should deny always; }'
CONFIG: Any = {"configurable": {"thread_id": "1"}}
SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner"}, "program": "final_return_value = pay(euros=5)"},
    {"when": {"tool_result": "(?s).*"}, "text": "done"},
    {"tool_calls": [{"name": "pay", "arguments": {"euros": 5}}]},
]


class State(TypedDict):
    euros: int


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(script=SCRIPT) as running:
        yield running


@contextmanager
def a_person(server: LocalServer, decision: str, message: str = "") -> Iterator[list[str]]:
    """Somebody who decides about each question; yields the pages that were seen."""
    pages: list[str] = []
    is_over = threading.Event()
    bearer = {"Authorization": f"Bearer {server.console_url.partition('token=')[2]}"}

    def decide() -> None:
        with httpx.Client(base_url=server.base_url, headers=bearer) as client:
            while not is_over.is_set():
                page = client.get("/console/approvals").text
                for question in set(re.findall(r'hx-post="(/console/approvals/\w+)"', page)):
                    pages.append(page)
                    client.post(question, data={"decision": decision, "message": message})
                time.sleep(0.02)

    person = threading.Thread(target=decide)
    person.start()
    try:
        yield pages
    finally:
        is_over.set()
        person.join()


class Payments:
    """Payments that were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def tool(self) -> Any:
        def pay(euros: int) -> str:
            """Pay an amount."""
            self.made.append(euros)
            return "paid"

        return pay


def chat(server: LocalServer, payments: Payments) -> tuple[Any, Any]:
    model = ChatSequrity(
        "any/model", base_url=server.base_url, features={"agent_arch": "dual-llm"},
        policy=POLICY, on_denied="interrupt",
    )  # fmt: skip
    return create_agent(model, [payments.tool()], checkpointer=InMemorySaver()), {
        "messages": [("user", "Pay")]
    }


def middleware(server: LocalServer, payments: Payments) -> tuple[Any, Any]:
    guard = PolicyMiddleware(POLICY, on_denied="interrupt")
    model = ChatSequrity("any/model", base_url=server.base_url)
    agent = create_agent(model, [payments.tool()], middleware=[guard], checkpointer=InMemorySaver())
    return agent, {"messages": [("user", "Pay")]}


def human_in_the_loop(server: LocalServer, payments: Payments) -> tuple[Any, Any]:
    asks: Any = HumanInTheLoopMiddleware(interrupt_on={"pay": True})
    model = ChatSequrity("any/model", base_url=server.base_url)
    agent = create_agent(model, [payments.tool()], middleware=[asks], checkpointer=InMemorySaver())
    return agent, {"messages": [("user", "Pay")]}


def graph(server: LocalServer, payments: Payments) -> tuple[Any, Any]:
    def pay(state: State) -> dict[str, Any]:
        payments.made.append(state["euros"])
        return {"euros": 0}

    nodes = StateGraph(State).add_sequence([pay]).set_entry_point("pay")
    model = ChatSequrity("any/model", base_url=server.base_url, policy=POLICY)
    executor = LangGraphExecutor(nodes, model, on_denied="interrupt", checkpointer=InMemorySaver())
    return executor, {"euros": 5}


WAYS = [chat, middleware, human_in_the_loop, graph]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_approved_call_is_made_once(way: Any, is_async: bool, server: LocalServer) -> None:
    payments = Payments()
    runnable, task = way(server, payments)
    review = ConsoleReview(server.console_url, source="the till", timeout=30)
    with a_person(server, "approve") as pages:
        if is_async:
            result = asyncio.run(review.ainvoke(runnable, task, CONFIG))
        else:
            result = review.invoke(runnable, task, CONFIG)
    assert payments.made == [5]
    assert "__interrupt__" not in result
    assert len(pages) == 1
    assert "the till" in pages[0]


@pytest.mark.parametrize("way", [chat, middleware, human_in_the_loop], ids=lambda way: way.__name__)
def test_a_rejected_call_is_not_made(way: Any, server: LocalServer) -> None:
    payments = Payments()
    runnable, task = way(server, payments)
    review = ConsoleReview(server.console_url, timeout=30)
    # The scripted planner writes the rejected call again.
    with a_person(server, "reject", "Ask Carl first."), suppress(ProgramFailed):
        review.invoke(runnable, task, CONFIG)
    assert payments.made == []


def test_the_call_of_an_error_is_decided_too(server: LocalServer) -> None:
    model = ChatSequrity(
        "any/model", base_url=server.base_url, features={"agent_arch": "dual-llm"},
        policy=POLICY, on_denied="interrupt",
    ).bind_tools([Payments().tool()])  # fmt: skip
    with pytest.raises(PolicyDenied) as denied:
        model.invoke("Pay")
    assert denied.value.approval is not None
    with a_person(server, "reject", "No."):
        decision = ConsoleReview(server.console_url).decide(denied.value.approval.request)
    assert decision == {"decisions": [{"type": "reject", "message": "No."}]}


def test_each_call_of_a_question_has_a_decision_of_its_own(server: LocalServer) -> None:
    actions = [{"name": "pay", "args": {"euros": number}} for number in range(3)]
    with a_person(server, "approve") as pages:
        decision = ConsoleReview(server.console_url, timeout=30).decide(
            {"action_requests": actions}
        )
    assert decision == {"decisions": [{"type": "approve"}] * 3}
    assert len(pages) == len(actions)


def test_nobody_decides_in_time_and_the_run_can_be_resumed(server: LocalServer) -> None:
    payments = Payments()
    agent, task = chat(server, payments)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        ConsoleReview(server.console_url, timeout=0.2).invoke(agent, task, CONFIG)
    with a_person(server, "approve"):
        ConsoleReview(server.console_url).invoke(agent, None, CONFIG)
    assert payments.made == [5]


def test_another_question_and_a_missing_token_are_refused_with_what_was_expected(
    server: LocalServer,
) -> None:
    with pytest.raises(UsageError, match="action_requests"):
        ConsoleReview(server.console_url).decide({"question": "Which colour?"})
    with pytest.raises(UsageError, match="console_url"):
        ConsoleReview(server.base_url)
    request = {"action_requests": [{"name": "pay", "args": {}}]}
    with pytest.raises(AuthenticationFailed):
        ConsoleReview(server.base_url, api_key="wrong").decide(request)
    review = ConsoleReview(server.console_url)
    assert server.console_url.partition("token=")[2] not in repr(review)
    with pytest.raises(TypeError, match="token"):
        pickle.dumps(review)
