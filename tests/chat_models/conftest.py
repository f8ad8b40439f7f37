"""A scripted service for replies that the local server cannot make."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.wire.sse import write_event

SESSION = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"
OTHER_SESSION = "5d2f9f60-1a2b-11f1-9c3d-0242ac120002"


def call_id(session: str = SESSION, call: str = "0c11d7aa-1a2b-11f1-8e44-0242ac120002") -> str:
    return f"tc-{session}-{call}"


class Service:
    """Answers each request with the next queued reply and stores the request."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.replies: list[httpx.Response] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [orjson.loads(request.content) for request in self.requests]

    def answer(self, content: Any = "Hi", *, session: str | None = SESSION, status: int = 200,
               body: Any = None, stream: bool = False, **choice: Any) -> None:  # fmt: skip
        """Queue a reply: a completion with this content, unless a whole body is given."""
        headers = {"x-request-id": "q1"} | ({"x-session-id": session} if session else {})
        full = completion(content, **choice) if body is None else body
        if stream:
            text = b"".join(write_event(orjson.dumps(chunk).decode()) for chunk in chunks(full))
            headers["content-type"] = "text/event-stream"
            content_bytes = text + write_event("[DONE]")
        else:
            headers["content-type"] = "application/json"
            content_bytes = orjson.dumps(full)
        self.replies.append(httpx.Response(status, headers=headers, content=content_bytes))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.replies.pop(0)


def completion(content: Any, *, reply_id: str = "r1", model: str = "m", finish_reason: str = "stop",
               tool_calls: Any = None, **message: Any) -> dict[str, Any]:  # fmt: skip
    calls = {"tool_calls": tool_calls} if tool_calls else {}
    choice = {
        "index": 0,
        "finish_reason": "tool_calls" if tool_calls else finish_reason,
        "message": {"role": "assistant", "content": content, **calls, **message},
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {"id": reply_id, "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": usage}  # fmt: skip


def chunks(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The completion as stream chunks, with three characters of text in each."""
    head = {
        "id": body["id"],
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
    }
    [choice] = body["choices"]
    message = dict(choice["message"])
    text = message.pop("content") or ""
    message.pop("role")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[i : i + 3]} for i in range(0, len(text), 3)]
    calls = message.pop("tool_calls", None) or []
    deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls)]
    deltas += [{key: value} for key, value in message.items()]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    finish = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield {**head, "choices": [finish]}
    yield {**head, "choices": [], "usage": body["usage"]}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def make_model(service: Service) -> Iterator[Callable[..., ChatSequrity]]:
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        async_client = httpx.AsyncClient(transport=httpx.MockTransport(service))

        def make(**kwargs: Any) -> ChatSequrity:
            fields: dict[str, Any] = {
                "model": "m",
                "api_key": "sq-test",
                "base_url": "https://api.example",
                "http_client": client,
                "http_async_client": async_client,
                "max_retries": 0,
                **kwargs,
            }
            return ChatSequrity(**fields)

        yield make
