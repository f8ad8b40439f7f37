"""Agents of frameworks: LangChain's models, pydantic-ai, and the Agents SDK of OpenAI."""

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.local.clients.answers import Answer, Row, Target, Tool


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def functions(tools: Mapping[str, Tool]) -> list[Callable[..., str]]:
    """The tools as the functions that frameworks read: with names, types and docstrings."""

    def get_weather(city: str) -> str:
        """Get weather."""
        return tools["get_weather"](city)

    def get_time(city: str) -> str:
        """Get time."""
        return tools["get_time"](city)

    def pay(amount: int) -> str:
        """Pay."""
        return tools["pay"](amount)

    return [tool for tool in (get_weather, get_time, pay) if tool.__name__ in tools]


# LangChain


class LangChainAgent:
    """An agent of LangChain with a vendor's model."""

    def __init__(self, model: Any, tools: Mapping[str, Tool]) -> None:
        self._model = model
        self._agent = create_agent(model, functions(tools))
        self._messages: list[BaseMessage] = []

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        sent: Any = {"messages": [*self._messages, HumanMessage(prompt)]}
        pieces: list[str] = []
        if stream:
            events: Any = self._agent.stream(sent, stream_mode=["messages", "values"])
            for mode, part in events:
                if mode == "values":
                    self._messages = part["messages"]
                elif isinstance(part[0], AIMessageChunk) and part[0].text:
                    pieces.append(part[0].text)
        else:
            self._messages = self._agent.invoke(sent)["messages"]
        last: Any = self._messages[-1]
        metadata = last.response_metadata
        usage = last.usage_metadata or {}
        blocks = [block for block in last.content if isinstance(block, dict)]
        return Answer(
            last.text,
            metadata.get("finish_reason") or metadata.get("stop_reason") or blocks[-1]["type"],
            _refusal(last, blocks),
            (usage["input_tokens"], usage["output_tokens"]),
            pieces,
        )

    def fill(self, prompt: str) -> Mapping[str, Any]:
        structured = self._model.with_structured_output(Weather, method="json_schema")
        values: dict[str, Any] = structured.invoke(prompt).model_dump()
        return values


def _refusal(message: Any, blocks: list[dict[str, Any]]) -> str | None:
    details = message.response_metadata.get("stop_details") or {}
    refusals = [block["refusal"] for block in blocks if block["type"] == "refusal"]
    texts = [message.additional_kwargs.get("refusal"), details.get("explanation"), *refusals]
    return next(filter(None, texts), None)


def chat_openai(
    target: Target, tools: Mapping[str, Tool], *, responses: bool = False
) -> LangChainAgent:
    options: dict[str, Any] = {
        "model": target.model,
        "base_url": target.openai,
        "api_key": target.key,
        "use_responses_api": responses,
        "stream_usage": True,
        **target.no_retries,
    }
    return LangChainAgent(ChatOpenAI(**options), tools)


def chat_openai_responses(target: Target, tools: Mapping[str, Tool]) -> LangChainAgent:
    return chat_openai(target, tools, responses=True)


def chat_anthropic(target: Target, tools: Mapping[str, Tool]) -> LangChainAgent:
    options: dict[str, Any] = {
        "model": target.model,
        "base_url": target.anthropic,
        "api_key": target.key,
        **target.no_retries,
    }
    return LangChainAgent(ChatAnthropic(**options), tools)


# pydantic-ai


class PydanticAgent:
    """An agent of pydantic-ai with one of its models."""

    vendor, model = "openai", "OpenAIChatModel"

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        self._target = target
        self._tools = functions(tools)
        self._history: list[Any] = []

    def _agent(self, **options: Any) -> Any:
        """The agent, with a client for the event loop of this call."""
        target = self._target
        sdk = import_module(self.vendor)
        client_class, address = {
            "openai": ("AsyncOpenAI", target.openai),
            "anthropic": ("AsyncAnthropic", target.anthropic),
        }[self.vendor]
        client = getattr(sdk, client_class)(
            base_url=address, api_key=target.key, **target.no_retries
        )
        provider = getattr(
            import_module(f"pydantic_ai.providers.{self.vendor}"),
            {"openai": "OpenAIProvider", "anthropic": "AnthropicProvider"}[self.vendor],
        )(**{f"{self.vendor}_client": client})
        models = import_module(f"pydantic_ai.models.{self.vendor}")
        model = getattr(models, self.model)(target.model, provider=provider)
        return import_module("pydantic_ai").Agent(model, **options)

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        return asyncio.run(self._say(prompt, stream=stream))

    async def _say(self, prompt: str, *, stream: bool) -> Answer:
        agent = self._agent(tools=self._tools)
        pieces: list[str] = []
        if stream:
            async with agent.run_stream(prompt, message_history=self._history) as run:
                pieces += [piece async for piece in run.stream_text(delta=True)]
                text = await run.get_output()
        else:
            run = await agent.run(prompt, message_history=self._history)
            text = run.output
        self._history = run.all_messages()
        last = self._history[-1]
        tokens = last.usage.input_tokens, last.usage.output_tokens
        return Answer(text, last.finish_reason, None, tokens, pieces)

    def fill(self, prompt: str) -> Mapping[str, Any]:
        async def run() -> Any:
            return await self._agent(output_type=Weather).run(prompt)

        values: dict[str, Any] = asyncio.run(run()).output.model_dump()
        return values


class PydanticResponsesAgent(PydanticAgent):
    model = "OpenAIResponsesModel"


class PydanticAnthropicAgent(PydanticAgent):
    vendor, model = "anthropic", "AnthropicModel"


# The Agents SDK of OpenAI


class OpenAIAgent:
    """An agent of the Agents SDK with one of its models."""

    model = "OpenAIChatCompletionsModel"

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        self._agents = import_module("agents")
        self._agents.set_tracing_disabled(True)
        self._target = target
        self._tools = [self._agents.function_tool(tool) for tool in functions(tools)]
        self._items: list[Any] = []

    def _agent(self, **options: Any) -> Any:
        target = self._target
        client = import_module("openai").AsyncOpenAI(
            base_url=target.openai, api_key=target.key, **target.no_retries
        )
        model = getattr(self._agents, self.model)(model=target.model, openai_client=client)
        return self._agents.Agent(name="agent", model=model, **options)

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        return asyncio.run(self._say(prompt, stream=stream))

    async def _say(self, prompt: str, *, stream: bool) -> Answer:
        sent = [*self._items, {"role": "user", "content": prompt}]
        agent, runner = self._agent(tools=self._tools), self._agents.Runner
        pieces: list[str] = []
        if stream:
            run = runner.run_streamed(agent, sent)
            pieces += [
                event.data.delta
                async for event in run.stream_events()
                if getattr(getattr(event, "data", None), "type", "") == "response.output_text.delta"
            ]
        else:
            run = await runner.run(agent, sent)
        self._items = run.to_input_list()
        usage = run.raw_responses[-1].usage
        return Answer(
            run.final_output,
            "final_output",
            None,
            (usage.input_tokens, usage.output_tokens),
            pieces,
        )

    def fill(self, prompt: str) -> Mapping[str, Any]:
        async def run() -> Any:
            return await self._agents.Runner.run(self._agent(output_type=Weather), prompt)

        values: dict[str, Any] = asyncio.run(run()).final_output.model_dump()
        return values


class OpenAIResponsesAgent(OpenAIAgent):
    model = "OpenAIResponsesModel"


ROWS = [
    Row(
        "`ChatOpenAI`",
        "langchain-openai",
        chat_openai,
        'response_metadata["finish_reason"]',
        'additional_kwargs["refusal"]',
        'ChatOpenAI(model="assistant", base_url=f"{gateway}/control/chat/v1", api_key=key)',
        "langchain_openai",
    ),
    Row(
        "`ChatOpenAI`, Responses",
        "langchain-openai",
        chat_openai_responses,
        "type",
        "content[].refusal",
        "the same, with `use_responses_api=True`",
        "langchain_openai",
    ),
    Row(
        "`ChatAnthropic`",
        "langchain-anthropic",
        chat_anthropic,
        'response_metadata["stop_reason"]',
        'response_metadata["stop_details"]',
        'ChatAnthropic(model="assistant", base_url=f"{gateway}/control/chat", api_key=key)',
        "langchain_anthropic",
    ),
    Row(
        "pydantic-ai, chat",
        "pydantic-ai-slim",
        PydanticAgent,
        "finish_reason",
        "",
        'OpenAIChatModel("assistant", provider=OpenAIProvider(openai_client='
        'AsyncOpenAI(base_url=f"{gateway}/control/chat/v1", api_key=key)))',
        "pydantic_ai",
    ),
    Row(
        "pydantic-ai, Responses",
        "pydantic-ai-slim",
        PydanticResponsesAgent,
        "finish_reason",
        "",
        "the same, with `OpenAIResponsesModel`",
        "pydantic_ai",
    ),
    Row(
        "pydantic-ai, Anthropic",
        "pydantic-ai-slim",
        PydanticAnthropicAgent,
        "finish_reason",
        "",
        'AnthropicModel("assistant", provider=AnthropicProvider(anthropic_client='
        'AsyncAnthropic(base_url=f"{gateway}/control/chat", api_key=key)))',
        "pydantic_ai",
    ),
    Row(
        "openai-agents, chat",
        "openai-agents",
        OpenAIAgent,
        "final_output",
        "",
        'OpenAIChatCompletionsModel("assistant", '
        'AsyncOpenAI(base_url=f"{gateway}/control/chat/v1", api_key=key))',
        "agents",
    ),
    Row(
        "openai-agents, Responses",
        "openai-agents",
        OpenAIResponsesAgent,
        "final_output",
        "",
        "the same, with `OpenAIResponsesModel`",
        "agents",
    ),
]
