"""Histories that are summarized in the middle of a turn (`docs/agents.md`)."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.local import LocalServer

POLICIES = [None, "continue", "restart_turn", "reject"]
MODELS = {
    "chat": (ChatSequrity, {}),
    "responses": (ChatSequrity, {"use_responses_api": True}),
    "previous-id": (ChatSequrity, {"use_responses_api": True, "use_previous_response_id": True}),
    "messages": (SequrityMessages, {}),
}
PROGRAM = """
receipts = [pay(payee="Ada", euros=5) for _ in range(3)]
final_return_value = ", ".join(receipts)
"""


class Ledger:
    def __init__(self) -> None:
        self.payments: list[tuple[str, int]] = []

    def pay(self, payee: str, euros: int) -> str:
        """Pay somebody."""
        self.payments.append((payee, euros))
        return f"receipt {len(self.payments)}"


def paying(number: int) -> dict[str, Any]:
    """The answer of a model after this number of receipts."""
    if number == 3:
        return {"text": "All is paid."}
    return {"tool_calls": [{"name": "pay", "arguments": {"payee": "Ada", "euros": 5}}]}


@pytest.fixture
def base_url() -> Iterator[str]:
    paid = iter(range(4))
    script: list[dict[str, Any]] = [
        {"when": {"role": "planner"}, "answer": lambda _: PROGRAM},
        {"when": {"role": "chat"}, "answer": lambda _: paying(next(paid))},
    ]
    with LocalServer(script=script) as server:
        yield server.base_url


def agent(name: str, base_url: str, ledger: Ledger, **fields: Any) -> Any:
    kind, options = MODELS[name]
    model = kind("any/model", base_url=base_url, max_retries=0, **options, **fields)
    summaries = FakeListChatModel(responses=["The user wants Ada to be paid."])
    middleware = SummarizationMiddleware(summaries, trigger=("messages", 2), keep=("messages", 1))
    return create_agent(model, [ledger.pay], middleware=[middleware])


def order(agent: Any) -> str:
    state = agent.invoke({"messages": [HumanMessage("Pay Ada 5 euros, three times.")]})
    assert any("summary" in one.text for one in state["messages"])
    text: str = state["messages"][-1].text
    return text


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_dual_llm_agent_pays_exactly_three_times_despite_summaries(
    base_url: str, name: str, policy: str | None
) -> None:
    ledger = Ledger()
    config = {"fsm": {"history_mismatch_policy": policy}} if policy else None
    dual = agent(name, base_url, ledger, features={"agent_arch": "dual-llm"}, session_config=config)
    if policy == "reject" and name != "previous-id":  # previous-id sends only new messages
        with pytest.raises(InvalidRequest, match="stays in its session"):
            order(dual)
        assert len(ledger.payments) == 1
        return
    assert order(dual) == "receipt 1, receipt 2, receipt 3"
    assert ledger.payments == [("Ada", 5)] * 3


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_single_llm_agent_pays_exactly_three_times_despite_summaries(
    base_url: str, name: str, policy: str | None
) -> None:
    ledger = Ledger()
    config = {"fsm": {"history_mismatch_policy": policy}} if policy else None
    single = agent(
        name, base_url, ledger, features={"agent_arch": "single-llm"}, session_config=config
    )
    assert order(single) == "All is paid."
    assert ledger.payments == [("Ada", 5)] * 3
