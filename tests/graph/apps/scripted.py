"""A chat model that follows a script, and the comparison that the tests of the apps use."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig

from langchain_sequrity import ChatSequrity
from tests.graph.outcome import describe
from tests.graph.running import compiled, secured

Answer = Callable[[Sequence[BaseMessage]], str | AIMessage]


class ScriptedModel(BaseChatModel):
    """Answers with a function of the conversation, so two runs get the same answers."""

    answer: Answer

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, *, tool_choice: str | None = None, **kwargs: Any) -> Any:  # noqa: ARG002 - LangChain's signature
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: Any = None,  # noqa: ARG002
        **_kwargs: Any,
    ) -> ChatResult:
        said = self.answer(messages)
        message = AIMessage(said) if isinstance(said, str) else said.model_copy()
        message.id = f"ai-{sum(isinstance(one, AIMessage) for one in messages)}"
        return ChatResult(generations=[ChatGeneration(message=message)])


def following(*script: str | AIMessage) -> ScriptedModel:
    """A model whose n-th answer in a conversation is the n-th of these."""

    def answer(messages: Sequence[BaseMessage]) -> str | AIMessage:
        return script[sum(isinstance(one, AIMessage) for one in messages)]

    return ScriptedModel(answer=answer)


def calling(*calls: tuple[str, dict[str, Any]], text: str = "") -> AIMessage:
    """A message that calls tools."""
    return AIMessage(
        text,
        tool_calls=[
            {"name": name, "args": args, "id": f"{name}-{i}", "type": "tool_call"}
            for i, (name, args) in enumerate(calls)
        ],
    )


def same_as_langgraph(
    make: Callable[[], Any],
    model: ChatSequrity,
    *inputs: Any,
    config: RunnableConfig | None = None,
    **options: Any,
) -> list[Any]:
    """Run an app in LangGraph and a new copy in the executor; return the states, which are equal."""
    plain, executor = compiled(make()), secured(make(), model, **options)
    states = []
    for value in inputs:
        expected = plain.invoke(value, config)
        state = executor.invoke(value, config)
        assert describe(state) == describe(expected), f"{state}\nLangGraph: {expected}"
        states.append(state)
    return states


__all__ = ["ScriptedModel", "calling", "following", "same_as_langgraph"]
