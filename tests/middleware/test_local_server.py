"""The middleware with the package's own chat model and a real server."""

from collections.abc import Iterator

import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import ChatSequrity, FeaturesHeader
from langchain_sequrity.local import LocalServer, Script
from langchain_sequrity.middleware import PolicyMiddleware
from tests.middleware.agents import THREAD, Till, ask, kinds

POLICY = """
    tool "pay" {
        /// over the limit
        must deny when not euros.value in {int 1..100};
    }
"""
SCRIPT = Script(
    [
        {"when": {"tool_result": "policy denied"}, "text": "I may not: {tool_result}"},
        {"when": {"tool_result": "paid"}, "text": "Done."},
        {"when": {"user": "a lot"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 500}}]},
        {"tool_calls": [{"name": "pay", "arguments": {"euros": 5}}]},
    ]
)


@pytest.fixture(scope="module")
def model() -> Iterator[ChatSequrity]:
    with LocalServer(script=SCRIPT) as server:
        yield ChatSequrity(
            model="local/any", base_url=server.base_url, features=FeaturesHeader.single_llm()
        )


async def test_chat_sequrity_gets_a_denial_as_a_tool_result_and_continues(
    model: ChatSequrity,
) -> None:
    till = Till()
    run = create_agent(
        model, [till.pay], middleware=[PolicyMiddleware(POLICY)], checkpointer=InMemorySaver()
    )
    state = run.invoke(ask("Pay a lot."), THREAD)
    assert kinds(state) == ["policy"]
    assert "over the limit" in state["messages"][-1].text
    assert till.paid == []
    state = await run.ainvoke(ask("Then pay little."), THREAD)
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]
