"""Requests without an SDK, and backends that wait for the test."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx
import orjson
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.sse import SSEDecoder

CHAT = "/control/chat/v1/chat/completions"
WAIT = 10  # seconds; without a failure it takes milliseconds
NO_HEADERS: Mapping[str, str] = {}

Message = dict[str, Any]


def tool(name: str = "look_up") -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def result(call_id: str, content: str = "42") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def said(reply: httpx.Response) -> Message:
    assert reply.status_code == 200, reply.text
    message: Message = reply.json()["choices"][0]["message"]
    return message


def call_ids(reply: httpx.Response) -> list[str]:
    return [call["id"] for call in said(reply)["tool_calls"]]


def session_of(reply: httpx.Response) -> str:
    return reply.headers["x-session-id"]


def detail(reply: httpx.Response) -> Any:
    assert reply.headers["content-type"] == "application/json", reply.text
    return reply.json()["detail"]


def events(data: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().feed(data)]


def streamed_text(data: bytes) -> str:
    *chunks, done = events(data)
    assert done == "[DONE]", chunks
    choices = [choice for chunk in chunks for choice in orjson.loads(chunk)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


class Api:
    """A server and a key."""

    def __init__(self, server: LocalServer, http: httpx.Client, key: str) -> None:
        self.server = server
        self.http = http
        self.key = key

    def url(self, path: str) -> str:
        return self.server.base_url + path

    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.http.request(method, self.url(path), **options)

    def post(self, path: str = CHAT, **options: Any) -> httpx.Response:
        headers = {**self.authorization(), **options.pop("headers", {})}
        return self.request("POST", path, headers=headers, **options)

    def chat(self, *messages: str | Message, **options: Any) -> httpx.Response:
        """Send messages; a string is a message of the user. Options as in `arguments`."""
        return self.http.post(**self.arguments(*messages, **options))

    def stream(
        self, *messages: str | Message, **options: Any
    ) -> AbstractContextManager[httpx.Response]:
        arguments = self.arguments(*messages, stream=True, **options)
        return self.http.stream("POST", **arguments)

    def arguments(
        self,
        *messages: str | Message,
        session: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        path: str = CHAT,
        **fields: Any,
    ) -> dict[str, Any]:
        named = {"X-Session-ID": session} if session else {}
        spoken = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        return {
            "url": self.url(path),
            "headers": {**self.authorization(), **named, **headers},
            "json": {"model": "any/model", "messages": spoken, **fields},
        }


class Gate:
    """A backend that answers only after `opened` is set: `script=[{"answer": gate}]`."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, _request: ChatRequest) -> str:
        self.entered.release()
        assert self.opened.wait(WAIT)
        return "opened"

    def wait_for_request(self) -> None:
        assert self.entered.acquire(timeout=WAIT)


class Speaker(BaseChatModel):
    """A model that answers with the pieces that a function yields."""

    pieces: Callable[[], Iterator[str]]

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del messages, stop, run_manager, kwargs
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(self.pieces())))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        del messages, stop, run_manager, kwargs
        for piece in self.pieces():
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
