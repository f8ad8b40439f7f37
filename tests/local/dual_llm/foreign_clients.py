"""One interface for SDKs that were not written for this server: send a message or a tool result.

A format writes the content of requests and finds text and calls in replies; a client makes the
requests. All work on plain dicts: after the SDK's own types have accepted a reply, whole and
streamed replies are read in the same way.
"""

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import openai
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from sequrity import (  # type: ignore[import-untyped] # the package has no type information
    AsyncSequrityClient,
    SequrityClient,
)
from sequrity.control import ControlConfig  # type: ignore[import-untyped] # as above

from tests.chat_models.formats import added
from tests.local.dual_llm.mail import MODEL, TOOLS

Json = dict[str, Any]
Create = Callable[..., Any]


@dataclass(frozen=True)
class Said:
    """A reply.

    Attributes:
        text: Its text.
        calls: Id, name and arguments of the calls.
        finish: The finish reason, in the format's own term.
        id: Its id.
        model: Its model.
    """

    text: str
    calls: list[tuple[str, str, Json]]
    finish: str = ""
    id: str = ""
    model: str = ""


class Format(Protocol):
    """A chat format."""

    name: str

    def request(self, items: list[Json]) -> Json:
        """Arguments of `create`."""

    def user(self, text: str) -> Json:
        """A message of the user."""

    def result(self, call_id: str, text: str) -> Json:
        """A tool's result."""

    def replied(self, said: Said) -> list[Json]:
        """A reply as items of the history."""

    def whole(self, reply: Json) -> Said:
        """Read a reply."""

    def streamed(self, events: list[Json]) -> Said:
        """Read a streamed reply."""


class ChatCompletions:
    name = "chat/completions"

    def request(self, items: list[Json]) -> Json:
        tools = [{"type": "function", "function": tool} for tool in TOOLS]
        return {"messages": items, "tools": tools}

    def user(self, text: str) -> Json:
        return {"role": "user", "content": text}

    def result(self, call_id: str, text: str) -> Json:
        return {"role": "tool", "tool_call_id": call_id, "content": text}

    def replied(self, said: Said) -> list[Json]:
        message: Json = {"role": "assistant", "content": said.text}
        calls = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
            for i, name, args in said.calls
        ]
        return [message | ({"tool_calls": calls} if calls else {})]

    def whole(self, reply: Json) -> Said:
        [choice] = reply["choices"]
        message = choice["message"]
        return self._said(reply, message, message.get("tool_calls"), choice["finish_reason"])

    def streamed(self, events: list[Json]) -> Said:
        choices = [choice for event in events for choice in event["choices"]]
        deltas = [choice["delta"] for choice in choices]
        text = "".join(delta.get("content") or "" for delta in deltas)
        pieces = [call for delta in deltas for call in delta.get("tool_calls") or []]
        calls = {piece["index"]: piece for piece in pieces if piece.get("id")}
        for index, call in calls.items():
            parts = [one["function"] for one in pieces if one["index"] == index]
            call["function"] = {
                "name": call["function"]["name"],
                "arguments": "".join(part.get("arguments") or "" for part in parts),
            }
        finish = choices[-1]["finish_reason"]
        return self._said(events[0], {"content": text}, calls.values(), finish)

    def _said(self, reply: Json, message: Json, calls: Iterable[Json] | None, finish: str) -> Said:
        found = [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in calls or ()
        ]
        return Said(message["content"] or "", found, finish, reply["id"], reply["model"])


class Messages:
    name = "messages"

    def request(self, items: list[Json]) -> Json:
        tools = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS]
        return {"messages": _merged(items), "tools": tools, "max_tokens": 999}

    def user(self, text: str) -> Json:
        return {"role": "user", "content": [{"type": "text", "text": text}]}

    def result(self, call_id: str, text: str) -> Json:
        block = {"type": "tool_result", "tool_use_id": call_id, "content": text}
        return {"role": "user", "content": [block]}

    def replied(self, said: Said) -> list[Json]:
        blocks: list[Json] = [{"type": "text", "text": said.text}] if said.text else []
        blocks += [
            {"type": "tool_use", "id": i, "name": name, "input": args}
            for i, name, args in said.calls
        ]
        return [{"role": "assistant", "content": blocks}]

    def whole(self, reply: Json) -> Said:
        blocks = reply["content"]
        return Said(
            "".join(block["text"] for block in blocks if block["type"] == "text"),
            [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"],
            reply["stop_reason"],
            reply["id"],
            reply["model"],
        )

    def streamed(self, events: list[Json]) -> Said:
        start = events[0]["message"]
        blocks: dict[int, Json] = {}
        for event in events:
            if event["type"] == "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "partial": ""}
            elif event["type"] == "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                else:
                    block["partial"] += delta["partial_json"]
        for block in blocks.values():
            block["input"] = json.loads(block["partial"] or "{}")
        stop = events[-2]["delta"]["stop_reason"]
        return self.whole({**start, "content": [*blocks.values()], "stop_reason": stop})


def _merged(items: list[Json]) -> list[Json]:
    """Merge a tool result with the next user message, because roles alternate in this format."""
    merged: list[Json] = []
    for item in items:
        if merged and merged[-1]["role"] == item["role"]:
            merged[-1] = {**item, "content": [*merged[-1]["content"], *item["content"]]}
        else:
            merged.append(item)
    return merged


class Responses:
    name = "responses"

    def request(self, items: list[Json]) -> Json:
        return {"input": items, "tools": [{"type": "function", **tool} for tool in TOOLS]}

    def user(self, text: str) -> Json:
        return {"role": "user", "content": text}

    def result(self, call_id: str, text: str) -> Json:
        return {"type": "function_call_output", "call_id": call_id, "output": text}

    def replied(self, said: Said) -> list[Json]:
        calls = [
            {"type": "function_call", "call_id": i, "name": name, "arguments": json.dumps(args)}
            for i, name, args in said.calls
        ]
        return calls or [{"role": "assistant", "content": said.text}]

    def whole(self, reply: Json) -> Said:
        items = reply["output"]
        texts = [p["text"] for one in items if one["type"] == "message" for p in one["content"]]
        return Said(
            "".join(texts),
            [
                (one["call_id"], one["name"], json.loads(one["arguments"]))
                for one in items
                if one["type"] == "function_call"
            ],
            reply["status"],
            reply["id"],
            reply["model"],
        )

    def streamed(self, events: list[Json]) -> Said:
        last = events[-1]
        said = self.whole(last["response"])
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert "".join(deltas) == said.text
        assert last["type"] == f"response.{said.finish}"
        return said


@dataclass
class Talk:
    """A conversation of one client.

    Attributes:
        format: The format.
        create: The function of the SDK that makes a request.
        stream: Whether replies are streamed.
        only_new: Whether requests contain only new items.
        history: The client's copy of the conversation.
        replies: All replies.
    """

    format: Format
    create: Create
    stream: bool
    only_new: bool
    history: list[Json] = field(default_factory=list)
    replies: list[Said] = field(default_factory=list)

    async def say(self, text: str) -> Said:
        return await self._send(self.format.user(text))

    async def give(self, text: str) -> Said:
        """Give the result of the only call of the last reply."""
        [(call_id, _, _)] = self.replies[-1].calls
        return await self._send(self.format.result(call_id, text))

    async def _send(self, item: Json) -> Said:
        self.history.append(item)
        request = self.format.request([item] if self.only_new else self.history)
        if self.only_new and self.replies and self.format.name == "responses":
            request["previous_response_id"] = self.replies[-1].id
        made = self.create(model=MODEL, stream=self.stream, **request)
        made = await made if inspect.isawaitable(made) else made
        if self.stream:
            said = self.format.streamed([_plain(one) for one in await _all(made)])
        else:
            said = self.format.whole(_plain(made))
        self.history += self.format.replied(said)
        self.replies.append(said)
        return said


class LangChainTalk:
    """A conversation of a chat model of LangChain.

    Args:
        model: The model.
        stream: Whether replies are streamed.
    """

    def __init__(self, model: BaseChatModel, *, stream: bool) -> None:
        self._model = model.bind_tools([{"type": "function", "function": one} for one in TOOLS])
        self._stream = stream
        self.history: list[BaseMessage] = []

    async def say(self, text: str) -> Said:
        return self._send(HumanMessage(text))

    async def give(self, text: str) -> Said:
        last = self.history[-1]
        assert isinstance(last, AIMessage)
        return self._send(ToolMessage(text, tool_call_id=last.tool_calls[0]["id"]))

    def _send(self, message: BaseMessage) -> Said:
        self.history.append(message)
        model: Any = self._model
        history = self.history
        reply: AIMessage = added(model.stream(history)) if self._stream else model.invoke(history)
        self.history.append(reply)
        calls = [(str(call["id"]), call["name"], call["args"]) for call in reply.tool_calls]
        return Said(str(reply.text), calls)


async def _all(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [one async for one in stream]
    return list(stream)


def _plain(made: Any) -> Json:
    plain: Json = made if isinstance(made, dict) else made.model_dump()
    return plain


# Clients

CHAT, MESSAGES, RESPONSES = ChatCompletions(), Messages(), Responses()
_RESOURCES = {"chat/completions": "chat", "messages": "messages", "responses": "responses"}


@asynccontextmanager
async def vendor(
    kind: Format, base_url: str, control: ControlConfig, *, asynchronous: bool
) -> AsyncIterator[Create]:
    """The `create` function of the service's own SDK."""
    resource = _RESOURCES[kind.name]
    if asynchronous:
        async with AsyncSequrityClient("sq-test", base_url=base_url, control=control) as client:
            yield getattr(client.control, resource).create
    else:
        with SequrityClient("sq-test", base_url=base_url, control=control) as client:
            yield getattr(client.control, resource).create


@asynccontextmanager
async def provider(
    kind: Format, base_url: str, headers: Mapping[str, str], *, asynchronous: bool
) -> AsyncIterator[Create]:
    """The `create` function of the provider's SDK, which refuses replies that violate its types."""
    path = "anthropic" if kind is MESSAGES else "v1"
    arguments: Any = {
        "base_url": f"{base_url}/control/chat/{path}",
        "api_key": "sq-test",
        "max_retries": 0,
        "default_headers": headers,
        "_strict_response_validation": True,
    }
    of_anthropic = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    of_openai = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    client: Any = (of_anthropic if kind is MESSAGES else of_openai)(**arguments)
    creates = {
        CHAT.name: lambda: client.chat.completions.create,
        MESSAGES.name: lambda: client.messages.create,
        RESPONSES.name: lambda: client.responses.create,
    }
    if asynchronous:
        async with client:
            yield creates[kind.name]()
    else:
        with client:
            yield creates[kind.name]()
