"""A ReAct agent written by hand: a model node, `ToolNode` and `tools_condition`."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import calling, following, same_as_langgraph
from tests.graph.running import secured


@tool
def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


@tool
def divide(a: int, b: int) -> float:
    """Divide."""
    return a / b


def agent(*script: Any) -> Any:
    llm = following(*script).bind_tools([multiply, divide])

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [llm.invoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", call_model)
    graph.add_node("tools", ToolNode([multiply, divide], handle_tool_errors=True))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph


QUESTION = {"messages": [HumanMessage("what is 6 * 7 / 2?", id="q")]}
SCRIPT = (
    calling(("multiply", {"a": 6, "b": 7})),
    calling(("divide", {"a": 42, "b": 2}), ("divide", {"a": 1, "b": 0})),
    "21",
)


def test_a_react_agent_loops_until_it_has_its_answer(model: ChatSequrity) -> None:
    [state] = same_as_langgraph(lambda: agent(*SCRIPT), model, QUESTION)
    tools = [one.text for one in state["messages"] if isinstance(one, ToolMessage)]
    assert tools[:2] == ["42", "21.0"]
    assert "division by zero" in tools[2]
    assert state["messages"][-1].text == "21"


def test_a_react_agent_remembers_its_thread(model: ChatSequrity) -> None:
    def make() -> Any:
        return agent("first", calling(("multiply", {"a": 2, "b": 2})), "second").compile(
            checkpointer=InMemorySaver()
        )

    states = same_as_langgraph(
        make,
        model,
        {"messages": [("user", "one")]},
        {"messages": [("user", "two")]},
        config={"configurable": {"thread_id": "t"}},
    )
    assert [one.text for one in states[1]["messages"]] == ["one", "first", "two", "", "4", "second"]


@pytest.mark.asyncio
async def test_a_react_agent_runs_in_an_event_loop(model: ChatSequrity) -> None:
    state = await secured(agent(*SCRIPT), model).ainvoke(QUESTION)
    assert state["messages"][-1].text == "21"
