"""The three formats as table rows: how to make a model of each, and a service that answers it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import orjson
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.local.answers import ModelAnswer, stream_answer
from langchain_sequrity.local.turn import FORMATS
from langchain_sequrity.wire.exchange import ChatRequest, ReplyHead
from langchain_sequrity.wire.sse import write_event

SESSION = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"


class Row(NamedTuple):
    """One format: the model's class, and the arguments that select the format."""

    format: str
    model: Callable[..., BaseChatModel]
    arguments: Mapping[str, Any]

    def make(self, **kwargs: Any) -> BaseChatModel:
        return self.model(**{"model": "any/model", **self.arguments, **kwargs})


CHAT = Row("chat/completions", ChatSequrity, {})
RESPONSES = Row("responses", ChatSequrity, {"use_responses_api": True})
MESSAGES = Row("messages", SequrityMessages, {})
ROWS = (CHAT, RESPONSES, MESSAGES)
NAMES = [row.format for row in ROWS]


class Service:
    """Answers each request of one format with the next queued reply and stores the request."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.requests: list[httpx.Request] = []
        self.replies: list[httpx.Response] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [orjson.loads(request.content) for request in self.requests]

    def answer(
        self, answer: ModelAnswer | str, *, stream: bool = False, session: str = SESSION
    ) -> None:
        """Queue a reply, whole or streamed."""
        if isinstance(answer, str):
            answer = ModelAnswer(text=answer)
        request = ChatRequest("any/model", [], stream=stream, stream_usage=True)
        head = ReplyHead(FORMATS[self._row.format].new_reply_id(session), 1, request)
        pieces = list(stream_answer(answer, request))
        headers = {"x-request-id": "q1", "x-session-id": session}
        if stream:
            events = FORMATS[self._row.format].write_stream(pieces, head)
            content = b"".join(write_event(event.data, event.name) for event in events)
            headers["content-type"] = "text/event-stream"
        else:
            content = orjson.dumps(FORMATS[self._row.format].write_reply([_whole(pieces)], head))
            headers["content-type"] = "application/json"
        self.replies.append(httpx.Response(200, headers=headers, content=content))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.replies.pop(0)

    def model(self, client: httpx.Client, **kwargs: Any) -> Any:
        fields = {"api_key": "sq-test", "base_url": "https://api.example", "max_retries": 0}
        return self._row.make(**{**fields, "http_client": client, **kwargs})


def _whole(pieces: Iterable[AIMessageChunk]) -> AIMessage:
    total = added([*pieces, AIMessageChunk(content="", chunk_position="last")])
    return AIMessage(**total.model_dump(exclude={"type", "tool_call_chunks", "chunk_position"}))


def added(chunks: Iterable[AIMessageChunk]) -> AIMessageChunk:
    """Joins the chunks of a stream into one message."""
    first, *others = chunks
    return first + others if others else first


def calls_of(message: AIMessage) -> list[tuple[str, Any]]:
    """Names and arguments of a message's calls; ids differ from reply to reply."""
    assert len({call["id"] for call in message.tool_calls}) == len(message.tool_calls)
    return [(call["name"], call["args"]) for call in message.tool_calls]


def texts(chunks: Iterator[Any]) -> str:
    return "".join(str(chunk.text) for chunk in chunks)
