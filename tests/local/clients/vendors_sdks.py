"""The SDKs of OpenAI and Anthropic, and LiteLLM, which has the form of the former."""

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import anthropic
import openai

from tests.local.clients.answers import WEATHER, Answer, Row, Target, Tool, openai_tool

ANSWER_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "weather", "schema": WEATHER, "strict": True},
}


def call(tools: Mapping[str, Tool], name: str, arguments: Any) -> str:
    values = json.loads(arguments) if isinstance(arguments, str) else arguments
    return tools[name](*values.values())


class ChatCompletions:
    """OpenAI's SDK, with the loop that its guide shows: the messages of replies go back as they are."""

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._messages: list[Any] = []
        self._request: dict[str, Any] = {"model": target.model}
        self._client = openai.OpenAI(
            base_url=target.openai, api_key=target.key, **target.no_retries
        )

    def create(self, **request: Any) -> Any:
        return self._client.chat.completions.create(**self._request, **request)

    def whole(self, stream: Iterable[Any], pieces: list[str]) -> Any:
        state = openai.lib.streaming.chat.ChatCompletionStreamState()
        for chunk in stream:
            state.handle_chunk(chunk)
            pieces += [c.delta.content for c in chunk.choices if c.delta.content]
        return state.get_final_completion()

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        self._messages.append({"role": "user", "content": prompt})
        pieces: list[str] = []
        options: dict[str, Any] = {"tools": [*map(openai_tool, self._tools)]} if self._tools else {}
        if stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        while True:
            reply = self.create(messages=self._messages, **options)
            if stream:
                reply = self.whole(reply, pieces)
            [choice] = reply.choices
            self._messages.append(choice.message.model_dump(exclude_none=True))
            if not choice.message.tool_calls:
                break
            for asked in choice.message.tool_calls:
                result = call(self._tools, asked.function.name, asked.function.arguments)
                message = {"role": "tool", "tool_call_id": asked.id, "content": result}
                self._messages.append(message)
        return Answer(
            choice.message.content or "",
            choice.finish_reason,
            getattr(choice.message, "refusal", None),
            (reply.usage.prompt_tokens, reply.usage.completion_tokens),
            pieces,
        )

    def fill(self, prompt: str) -> Mapping[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        reply = self.create(messages=messages, response_format=ANSWER_FORMAT)
        values: dict[str, Any] = json.loads(reply.choices[0].message.content)
        return values


class LiteLLM(ChatCompletions):
    """LiteLLM with one of its providers."""

    provider = "openai"

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        super().__init__(target, tools)
        self._litellm: Any = import_module("litellm")
        address = target.openai if self.provider == "openai" else target.anthropic
        self._request = {
            "model": f"{self.provider}/{target.model}",
            "api_base": address,
            "api_key": target.key,
            **target.no_retries,
        }

    def create(self, **request: Any) -> Any:
        return self._litellm.completion(**self._request, **request)

    def whole(self, stream: Iterable[Any], pieces: list[str]) -> Any:
        chunks = [*stream]
        pieces += [c.delta.content for chunk in chunks for c in chunk.choices if c.delta.content]
        return self._litellm.stream_chunk_builder(chunks)


class LiteLLMForAnthropic(LiteLLM):
    provider = "anthropic"


class Responses:
    """OpenAI's SDK with Responses; the items of replies go back as they are."""

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._items: list[Any] = []
        self._model = target.model
        self._client = openai.OpenAI(
            base_url=target.openai, api_key=target.key, **target.no_retries
        )

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        self._items.append({"role": "user", "content": prompt})
        pieces: list[str] = []
        functions = [openai_tool(name)["function"] for name in self._tools]
        tools: Any = [{"type": "function", "strict": True, **function} for function in functions]
        while True:
            request: dict[str, Any] = {"model": self._model, "input": self._items, "tools": tools}
            if stream:
                with self._client.responses.stream(**request) as events:
                    pieces += [e.delta for e in events if e.type == "response.output_text.delta"]
                    reply: Any = events.get_final_response()
            else:
                reply = self._client.responses.create(**request)
            unsendable = {"parsed", "parsed_arguments"}  # the SDK's own fields
            self._items += [
                {k: v for k, v in item.to_dict().items() if k not in unsendable}
                for item in reply.output
            ]
            calls = [item for item in reply.output if item.type == "function_call"]
            if not calls:
                break
            self._items += [
                {
                    "type": "function_call_output",
                    "call_id": asked.call_id,
                    "output": call(self._tools, asked.name, asked.arguments),
                }
                for asked in calls
            ]
        part = reply.output[-1].content[-1]
        return Answer(
            reply.output_text,
            part.type,
            getattr(part, "refusal", None),
            (reply.usage.input_tokens, reply.usage.output_tokens),
            pieces,
        )

    def fill(self, prompt: str) -> Mapping[str, Any]:
        shape: Any = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}}
        reply = self._client.responses.create(model=self._model, input=prompt, text=shape)
        values: dict[str, Any] = json.loads(reply.output_text)
        return values


class Messages:
    """Anthropic's SDK; the content of replies goes back as it is."""

    def __init__(self, target: Target, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._messages: list[Any] = []
        self._request: dict[str, Any] = {"model": target.model, "max_tokens": 999}
        self._client = anthropic.Anthropic(
            base_url=target.anthropic, api_key=target.key, **target.no_retries
        )

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        self._messages.append({"role": "user", "content": prompt})
        pieces: list[str] = []
        functions = [openai_tool(name)["function"] for name in self._tools]
        tools = [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
        while True:
            request = {**self._request, "messages": self._messages, "tools": tools}
            if stream:
                with self._client.messages.stream(**request) as events:
                    pieces += events.text_stream
                    reply: Any = events.get_final_message()
            else:
                reply = self._client.messages.create(**request)
            content = [block.model_dump(exclude_none=True) for block in reply.content]
            unsendable = {"parsed_output"}  # the SDK's own field
            content = [{k: v for k, v in b.items() if k not in unsendable} for b in content]
            self._messages.append({"role": "assistant", "content": content})
            calls = [block for block in reply.content if block.type == "tool_use"]
            if not calls:
                break
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": asked.id,
                    "content": call(self._tools, asked.name, asked.input),
                }
                for asked in calls
            ]
            self._messages.append({"role": "user", "content": results})
        return Answer(
            "".join(block.text for block in reply.content if block.type == "text"),
            reply.stop_reason,
            reply.stop_details and reply.stop_details.explanation,
            (reply.usage.input_tokens, reply.usage.output_tokens),
            pieces,
        )

    def fill(self, prompt: str) -> Mapping[str, Any]:
        shape: Any = {"format": {"type": "json_schema", "schema": WEATHER}}
        messages: Any = [{"role": "user", "content": prompt}]
        reply: Any = self._client.messages.create(
            messages=messages, output_config=shape, **self._request
        )
        values: dict[str, Any] = json.loads(reply.content[0].text)
        return values


ROWS = [
    Row(
        "OpenAI SDK, chat",
        "openai",
        ChatCompletions,
        "finish_reason",
        "message.refusal",
        'OpenAI(base_url=f"{gateway}/control/chat/v1", api_key=key)',
        "openai",
    ),
    Row(
        "OpenAI SDK, Responses",
        "openai",
        Responses,
        "type",
        "content[].refusal",
        "the same",
        "openai",
    ),
    Row(
        "Anthropic SDK",
        "anthropic",
        Messages,
        "stop_reason",
        "stop_details.explanation",
        'Anthropic(base_url=f"{gateway}/control/chat", api_key=key)',
        "anthropic",
    ),
    Row(
        "LiteLLM, `openai/`",
        "litellm",
        LiteLLM,
        "finish_reason",
        "message.refusal",
        'completion(model="openai/assistant", api_base=f"{gateway}/control/chat/v1", api_key=key)',
        "litellm",
    ),
    Row(
        "LiteLLM, `anthropic/`",
        "litellm",
        LiteLLMForAnthropic,
        "finish_reason",
        "message.refusal",
        'completion(model="anthropic/assistant", api_base=f"{gateway}/control/chat", api_key=key)',
        "litellm",
    ),
]
