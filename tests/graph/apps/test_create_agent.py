"""Agents of LangChain's `create_agent` in the executor."""

from typing import Any

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ToolCallLimitMiddleware,
)
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import calling, following, same_as_langgraph


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"{city}: sunny"


@tool
def mail(to: str, text: str) -> str:
    """Send a mail."""
    return f"sent {text!r} to {to}"


def test_an_agent_answers_without_tools(model: ChatSequrity) -> None:
    [state] = same_as_langgraph(
        lambda: create_agent(following("hello"), [weather], system_prompt="Be kind."),
        model,
        {"messages": [("user", "hi")]},
    )
    assert state["messages"][-1].text == "hello"


def test_an_agent_calls_tools_in_several_rounds(model: ChatSequrity) -> None:
    script = following(
        calling(("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})),
        calling(("mail", {"to": "ada", "text": "sunny"})),
        "done",
    )
    [state] = same_as_langgraph(
        lambda: create_agent(script, [weather, mail]), model, {"messages": [("user", "go")]}
    )
    results = [one.text for one in state["messages"] if isinstance(one, ToolMessage)]
    assert results == ["Paris: sunny", "Rome: sunny", "sent 'sunny' to ada"]


def test_an_agent_gives_structured_output(model: ChatSequrity) -> None:
    class Report(BaseModel):
        city: str
        degrees: int

    def make() -> Any:
        script = following(
            calling(("weather", {"city": "Paris"})),
            calling(("Report", {"city": "Paris", "degrees": 21})),
        )
        return create_agent(script, [weather], response_format=ToolStrategy(Report))

    [state] = same_as_langgraph(make, model, {"messages": [("user", "report")]})
    assert state["structured_response"] == Report(city="Paris", degrees=21)


class Counting(AgentState[Any]):
    turns: int


class Counter(AgentMiddleware[Any]):
    """Counts turns before the model, and multiplies the count by 100 at the end."""

    state_schema = Counting

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:  # noqa: ARG002 - LangChain's signature
        return {"turns": state.get("turns", 0) + 1}

    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"turns": state["turns"] * 100}


def test_an_agent_with_middleware_keeps_its_state(model: ChatSequrity) -> None:
    def make() -> Any:
        script = following(calling(("weather", {"city": "Oslo"})), "cold")
        limit: Any = ToolCallLimitMiddleware(run_limit=5)
        return create_agent(script, [weather], middleware=[Counter(), limit])

    [state] = same_as_langgraph(make, model, {"messages": [("user", "go")]})
    assert state["turns"] == 200


def test_an_agent_that_reaches_its_limit_of_tool_calls_ends(model: ChatSequrity) -> None:
    def make() -> Any:
        script = following(*[calling(("weather", {"city": "Oslo"}))] * 5)
        limit: Any = ToolCallLimitMiddleware(run_limit=2, exit_behavior="end")
        return create_agent(script, [weather], middleware=[limit])

    [state] = same_as_langgraph(make, model, {"messages": [("user", "go")]})
    assert "limit" in state["messages"][-1].text


def test_a_tool_updates_the_agents_state(model: ChatSequrity) -> None:
    @tool
    def remember(fact: str, runtime: ToolRuntime) -> Any:
        """Remember."""
        said = ToolMessage(
            f"noted {len(runtime.state['messages'])}", tool_call_id=runtime.tool_call_id
        )
        return Command(update={"turns": len(fact), "messages": [said]})

    def make() -> Any:
        script = following(calling(("remember", {"fact": "four"})), "ok")
        return create_agent(script, [remember], state_schema=Counting)

    [state] = same_as_langgraph(make, model, {"messages": [("user", "go")], "turns": 0})
    assert state["turns"] == 4


def test_a_person_approves_edits_and_rejects_calls(model: ChatSequrity) -> None:
    def make() -> Any:
        script = following(
            calling(("mail", {"to": "ada", "text": "one"})),
            calling(("mail", {"to": "bob", "text": "two"})),
            calling(("mail", {"to": "eve", "text": "three"})),
            "done",
        )
        asks: Any = HumanInTheLoopMiddleware(interrupt_on={"mail": True})
        return create_agent(script, [mail], middleware=[asks], checkpointer=InMemorySaver())

    def decide(**decision: Any) -> Command[Any]:
        return Command(resume={"decisions": [decision]})

    edited = {"name": "mail", "args": {"to": "bob", "text": "edited"}}
    states = same_as_langgraph(
        make,
        model,
        {"messages": [("user", "go")]},
        decide(type="approve"),
        decide(type="edit", edited_action=edited),
        decide(type="reject", message="no"),
        config={"configurable": {"thread_id": "1"}},
    )
    results = [one.text for one in states[-1]["messages"] if isinstance(one, ToolMessage)]
    assert [one.rpartition("\n")[2][-21:] for one in results[:2]] == [
        "sent 'one' to ada",
        "sent 'edited' to bob",
    ]
    assert "sent" not in results[2]
