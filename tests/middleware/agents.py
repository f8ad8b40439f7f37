"""Agents for tests: a model that follows a script, tools that record calls, and a policy."""

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from langchain_sequrity.middleware import PolicyMiddleware, denial_of
from tests.graph.apps.scripted import Answer, ScriptedModel, calling

THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}

NO_RULES = 'let nobody = {""};'
"""A policy that allows every call. It has a declaration, because an empty policy causes a warning."""


class Till:
    """Tools that record what they did."""

    def __init__(self) -> None:
        self.paid: list[Any] = []

    def pay(self, euros: int, to: str = "shop") -> str:
        """Pay somebody."""
        self.paid.append((euros, to))
        return f"paid {euros}"


def turns(*said: str | AIMessage) -> ScriptedModel:
    """A model whose n-th answer in a conversation is the n-th of these, then "done"."""

    def answer(messages: Sequence[Any]) -> str | AIMessage:
        number = sum(isinstance(one, AIMessage) for one in messages)
        return said[number] if number < len(said) else "done"

    return ScriptedModel(answer=answer)


def agent(
    policy: Any,
    tools: Sequence[Any],
    *said: Any,
    middleware: Sequence[Any] = (),
    model: Any = None,
    checkpointer: Any = None,
    response_format: Any = None,
    policy_tools: Any = "agent",
    **options: Any,
) -> Any:
    """An agent under a policy."""
    return create_agent(
        model or turns(*said),
        list(tools),
        middleware=[*middleware, PolicyMiddleware(policy, tools=policy_tools, **options)],
        checkpointer=checkpointer,
        response_format=response_format,
    )


def ask(text: str = "go") -> Any:
    return {"messages": [HumanMessage(text)]}


def results(state: dict[str, Any]) -> list[ToolMessage]:
    return [one for one in state["messages"] if isinstance(one, ToolMessage)]


def kinds(state: dict[str, Any]) -> list[str]:
    """For each tool message the kind of its denial, or "made" if the call was made."""
    found = [denial_of(one) for one in results(state)]
    return [one.kind if one else "made" for one in found]


def decide(*decisions: dict[str, Any]) -> Command[Any]:
    return Command(resume={"decisions": list(decisions)})


__all__ = [
    "THREAD", "Answer", "AnyMessage", "ScriptedModel", "Till", "agent", "ask", "calling", "decide",
    "kinds", "results", "turns",
]  # fmt: skip
