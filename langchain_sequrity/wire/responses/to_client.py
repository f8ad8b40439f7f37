"""LangChain messages to the replies of Responses: what the local server answers.

Pieces of a LangChain message to the events of Responses, in the order in which OpenAI has them.

An item is done before the next one begins. What a piece brings decides what is open: reasoning, a
message with its parts, or one call. Fragments of another call wait as long as the open one lacks
arguments, since brains may send them mixed.
"""

import base64
import re
import secrets
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk

from langchain_sequrity.wire.denials import CHECK_KEY, check_beside
from langchain_sequrity.wire.exchange import Event, ReplyHead
from langchain_sequrity.wire.json_text import dumps_like_service
from langchain_sequrity.wire.responses.params import write_format, write_tool

Item = dict[str, Any]

_REPLY_ID = re.compile(r"resp_([0-9a-f]{32})[0-9a-f]{16}\Z")
_RANDOM = 16  # hex digits
_ENCRYPTED = "reasoning.encrypted_content"
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FAILED = "error"

FAILED_TURN = {"full": "error", "documented": "error"}


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply; `previous_response_id` finds the session by it."""
    del dual_llm
    return f"resp_{session_id.replace('-', '')}{secrets.token_hex(_RANDOM // 2)}"


def session_of(reply_id: str) -> str | None:
    """Find the session that a reply was given in.

    Args:
        reply_id: The id of the reply.

    Returns:
        The session's id, or `None` if the reply's is not one of ours.

    Example:
        ```python
        from langchain_sequrity.wire.responses import new_reply_id, session_of

        session_id = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"
        assert session_of(new_reply_id(session_id)) == session_id
        ```
    """
    match = _REPLY_ID.match(reply_id)
    return str(uuid.UUID(match[1])) if match else None


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: The one message. `finish_reason` and `logprobs` come from `response_metadata`.
        head: What the reply says of itself.

    Returns:
        The JSON body.
    """
    [message] = messages
    status = status_of(message.response_metadata.get("finish_reason"))
    items = _items(message, head)
    if items:
        items[-1] = ended(items[-1], status)
    return write_response(head, items, message.response_metadata, message.usage_metadata)


def write_error(message: str, status: int) -> Event:
    """Write an error that comes up within a stream."""
    return stream_event(0, "error", code=str(status), message=message, param=None)


def stream_event(number: int, kind: str, /, **fields: Any) -> Event:
    """Write the event of a stream that has this number."""
    body = {"type": kind, "sequence_number": number, **fields}
    return Event(kind, orjson.dumps(body).decode())


# The response


def write_response(
    head: ReplyHead,
    output: Sequence[Item],
    metadata: Mapping[str, Any] | None = None,
    usage: UsageMetadata | None = None,
) -> dict[str, Any]:
    """Write a response around its output.

    Args:
        head: What the reply says of itself.
        output: Its items.
        metadata: The message's `response_metadata`, where `failure` says why a turn failed; `None`
            while it is not finished.
        usage: Token counts, once they are known.

    Returns:
        The object.
    """
    finish_reason = None if metadata is None else metadata.get("finish_reason")
    reason = _INCOMPLETE.get(str(finish_reason))
    error = None
    if metadata is not None and finish_reason == _FAILED:
        told = metadata.get("failure") or "The turn failed."
        error = {"code": "server_error", "message": told}
    return {
        "id": head.id,
        "object": "response",
        "created_at": float(head.created),
        "status": "in_progress" if metadata is None else status_of(finish_reason),
        "error": error,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": None if usage is None else _usage(usage),
        **_echoes(head),
        **check_beside(metadata or {}, head),
    }


def status_of(finish_reason: str | None) -> str:
    """Status of a response that finished for a reason."""
    if finish_reason == _FAILED:
        return "failed"
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def _echoes(head: ReplyHead) -> dict[str, Any]:
    """What a response repeats of its request."""
    request, options = head.request, head.request.options
    choice: Any = request.tool_choice or "auto"
    if isinstance(choice, dict):
        choice = {"type": "function", **choice}
    text = {"format": write_format(request.response_format or {"type": "text"})}
    if verbosity := (options.get("text") or {}).get("verbosity"):
        text["verbosity"] = verbosity
    reasoning = options.get("reasoning") or {}
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    return {
        "model": request.model,
        "instructions": options.get("instructions"),
        "previous_response_id": request.previous_reply,
        "tools": [*map(write_tool, request.tools), *request.server_tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "max_tool_calls": options.get("max_tool_calls"),
        "max_output_tokens": request.max_tokens,
        "temperature": options.get("temperature"),
        "top_p": options.get("top_p"),
        "top_logprobs": options.get("top_logprobs"),
        "text": text,
        "reasoning": {"effort": reasoning.get("effort"), "summary": summary},
        "truncation": options.get("truncation") or "disabled",
        "store": options.get("store") is not False,
        "background": False,
        "metadata": options.get("metadata") or {},
    }


def _usage(usage: UsageMetadata) -> dict[str, Any]:
    inputs = usage.get("input_token_details", {})
    outputs = usage.get("output_token_details", {})
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": inputs.get("cache_read") or 0,
            "cache_write_tokens": inputs.get("cache_creation") or 0,
        },
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": outputs.get("reasoning") or 0},
        "total_tokens": usage["total_tokens"],
    }


# Items


def _items(message: AIMessage, head: ReplyHead) -> list[Item]:
    extra = message.additional_kwargs
    items: list[Item] = []
    if reasoning := extra.get("reasoning_content"):
        items.append(reasoning_item(head, len(items), reasoning))
    parts: list[Item] = []
    if refusal := extra.get("refusal"):
        parts.append(refusal_part(refusal))
    if text := str(message.text):
        logprobs = message.response_metadata.get("logprobs") or {}
        parts.append(text_part(text, logprobs.get("content") or []))
    if parts:
        items.append(message_item(head, len(items), parts))
    calls = [
        (call["id"], call["name"], dumps_like_service(call["args"])) for call in message.tool_calls
    ]
    bad = [(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
    for call_id, name, arguments in (*calls, *bad):
        items.append(call_item(head, len(items), call_id, name, arguments or ""))
    return items


def reasoning_item(head: ReplyHead, number: int, text: str) -> Item:
    """Write reasoning as an item with one summary."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: Item = {"id": _id("rs", head, number), "type": "reasoning", "summary": summary}
    if text and _ENCRYPTED in (head.request.options.get("include") or ()):
        # Nothing is secret here; clients pass it back unread.
        item["encrypted_content"] = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return item


def message_item(head: ReplyHead, number: int, parts: list[Item]) -> Item:
    """Write a message with its parts."""
    named = {"id": _id("msg", head, number), "type": "message", "role": "assistant"}
    return {**named, "status": "completed", "content": parts}


def text_part(text: str, logprobs: Sequence[Any] = ()) -> Item:
    """Write a text as a part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*logprobs]}


def refusal_part(text: str) -> Item:
    """Write a refusal as a part of a message."""
    return {"type": "refusal", "refusal": text}


def call_item(
    head: ReplyHead, number: int, call_id: str | None, name: str | None, arguments: str
) -> Item:
    """Write a call of a function."""
    return {
        "id": _id("fc", head, number),
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def ended(item: Item, status: str) -> Item:
    """An item as it stands in a response that ended with a status: the last one may be cut off."""
    if "status" in item and status == "incomplete":
        return {**item, "status": status}
    return item


def _id(prefix: str, head: ReplyHead, number: int) -> str:
    """Id of an item: of the random part of the reply's id, which tells nothing of the session."""
    return f"{prefix}_{head.id[-_RANDOM:]}{number:02x}"


_Step = tuple[str, Mapping[str, Any]]
"""Name of an event after `response.`, and what it says beside which item it is about."""

# Not documented: the refusal then comes with the end of its part.
_REFUSAL = "refusal."


def write_stream(chunks: Iterable[AIMessageChunk], head: ReplyHead) -> Iterator[Event]:
    """Write a streamed reply.

    Args:
        chunks: Pieces of one message. `finish_reason` is taken from whichever has it.
        head: What the reply says of itself.

    Yields:
        The events; the last one has the whole response, as `write_reply` gives it.
    """
    stream = _Stream(head)
    response = write_response(head, [])
    yield stream.event("created", response=response)
    yield stream.event("in_progress", response=response)
    for chunk in chunks:
        yield from stream.take(chunk)
    yield from stream.finish()


class _Stream:
    """The events of one reply, and the output that they make."""

    def __init__(self, head: ReplyHead) -> None:
        self._head = head
        self._output: list[Item] = []
        self._number = 0
        self._open: _Open | None = None
        self._waiting: list[ToolCallChunk] = []
        self._called: set[int | None] = set()
        self._finish_reason: str | None = None
        self._failure: str | None = None
        self._check: Any = None
        self._usage: UsageMetadata | None = None

    def event(self, name: str, /, **fields: Any) -> Event:
        """Write the next event."""
        self._number += 1
        return stream_event(self._number - 1, f"response.{name}", **fields)

    def take(self, chunk: AIMessageChunk) -> Iterator[Event]:
        """Write what a piece brings."""
        self._usage = chunk.usage_metadata or self._usage
        self._finish_reason = chunk.response_metadata.get("finish_reason") or self._finish_reason
        self._failure = chunk.response_metadata.get("failure") or self._failure
        self._check = chunk.response_metadata.get(CHECK_KEY) or self._check
        extra = chunk.additional_kwargs
        if reasoning := extra.get("reasoning_content"):
            yield from self._think(reasoning)
        if refusal := extra.get("refusal"):
            yield from self._say("refusal", refusal)
        if text := str(chunk.text):
            logprobs = chunk.response_metadata.get("logprobs") or {}
            yield from self._say("output_text", text, logprobs.get("content") or ())
        for fragment in chunk.tool_call_chunks:
            yield from self._call(fragment)

    def finish(self) -> Iterator[Event]:
        """Write the end of the response."""
        status = status_of(self._finish_reason)
        yield from self._end(status)
        metadata = {
            "finish_reason": self._finish_reason,
            "failure": self._failure,
            CHECK_KEY: self._check,
        }
        response = write_response(self._head, self._output, metadata, self._usage)
        yield self.event(status, response=response)

    def _end(self, status: str = "completed") -> Iterator[Event]:
        """End the open item, after all that waits; the last one may have been cut off."""
        waiting, self._waiting = self._waiting, []
        for index in dict.fromkeys(fragment["index"] for fragment in waiting):
            for fragment in waiting:
                if fragment["index"] == index:
                    yield from self._grow_call(fragment)
        yield from self._close(status)

    def _think(self, text: str) -> Iterator[Event]:
        item = self._open
        if not isinstance(item, _Reasoning):
            yield from self._end()
            item = _Reasoning(self._head, len(self._output))
            yield from self._begin(item)
        yield from self._events(item, item.grow(text))

    def _say(self, kind: str, text: str, logprobs: Sequence[Any] = ()) -> Iterator[Event]:
        item = self._open
        if not isinstance(item, _Message):
            yield from self._end()
            item = _Message(self._head, len(self._output))
            yield from self._begin(item)
        yield from self._events(item, item.grow(kind, text, logprobs))

    def _call(self, fragment: ToolCallChunk) -> Iterator[Event]:
        item, index = self._open, fragment["index"]
        if isinstance(item, _Call) and index != item.index:
            if index in self._called:  # it was complete; more is nothing that could be read
                return
            if self._waiting or not item.is_complete:
                self._waiting.append(fragment)
                return
        yield from self._grow_call(fragment)

    def _grow_call(self, fragment: ToolCallChunk) -> Iterator[Event]:
        item = self._open
        if not isinstance(item, _Call) or item.index != fragment["index"]:
            yield from self._close()
            item = _Call(self._head, len(self._output), fragment)
            self._called.add(item.index)
            yield from self._begin(item)
        if fragment["args"]:
            yield from self._events(item, item.grow(fragment["args"]))

    def _begin(self, item: "_Open") -> Iterator[Event]:
        self._open = item
        started = item.item
        item.id = started["id"]
        if "status" in started:
            started["status"] = "in_progress"
        yield self.event("output_item.added", output_index=item.number, item=started)
        yield from self._events(item, item.begin())

    def _close(self, status: str = "completed") -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        self._open = None
        yield from self._events(item, item.end())
        done = ended(item.item, status)
        yield self.event("output_item.done", output_index=item.number, item=done)
        self._output.append(done)

    def _events(self, item: "_Open", steps: Iterable[_Step]) -> Iterator[Event]:
        named = {"item_id": item.id, "output_index": item.number}
        for name, fields in steps:
            if not (self._head.documented and name.startswith(_REFUSAL)):
                yield self.event(name, **named, **fields)


class _Open(ABC):
    """An item that has begun."""

    def __init__(self, head: ReplyHead, number: int) -> None:
        self.number = number
        self.id = ""
        self._head = head
        self._pieces: list[str] = []

    @property
    @abstractmethod
    def item(self) -> Item:
        """The item as far as it has come."""

    def begin(self) -> Iterable[_Step]:
        """What comes after it was announced."""
        return ()

    @abstractmethod
    def end(self) -> Iterable[_Step]:
        """What comes before it is done."""

    @property
    def _text(self) -> str:
        return "".join(self._pieces)


class _Reasoning(_Open):
    """Reasoning with one summary."""

    @property
    def item(self) -> Item:
        return reasoning_item(self._head, self.number, self._text)

    def begin(self) -> Iterable[_Step]:
        yield "reasoning_summary_part.added", {"summary_index": 0, "part": _summary("")}

    def grow(self, text: str) -> Iterable[_Step]:
        """Take more of it."""
        self._pieces.append(text)
        yield "reasoning_summary_text.delta", {"summary_index": 0, "delta": text}

    def end(self) -> Iterable[_Step]:
        yield "reasoning_summary_text.done", {"summary_index": 0, "text": self._text}
        yield "reasoning_summary_part.done", {"summary_index": 0, "part": _summary(self._text)}


def _summary(text: str) -> Item:
    return {"type": "summary_text", "text": text}


class _Message(_Open):
    """A message, part by part."""

    def __init__(self, head: ReplyHead, number: int) -> None:
        super().__init__(head, number)
        self._parts: list[Item] = []
        self._kind: str | None = None
        self._logprobs: list[Any] = []

    @property
    def item(self) -> Item:
        return message_item(self._head, self.number, [*self._parts])

    def grow(self, kind: str, text: str, logprobs: Sequence[Any]) -> Iterable[_Step]:
        """Take more of a part, or the beginning of the next one."""
        if kind != self._kind:
            yield from self.end()
            self._kind = kind
            yield "content_part.added", {**self._place, "part": self._part}
        self._pieces.append(text)
        self._logprobs += logprobs
        said: dict[str, Any] = {**self._place, "delta": text}
        if kind == "output_text":
            said["logprobs"] = logprobs
        yield f"{kind}.delta", said

    def end(self) -> Iterable[_Step]:
        if self._kind is None:
            return
        part, place = self._part, self._place
        said = {key: part[key] for key in part if key not in ("type", "annotations")}
        yield f"{self._kind}.done", {**place, **said}
        yield "content_part.done", {**place, "part": part}
        self._parts.append(part)
        self._kind, self._pieces, self._logprobs = None, [], []

    @property
    def _place(self) -> dict[str, Any]:
        return {"content_index": len(self._parts)}

    @property
    def _part(self) -> Item:
        if self._kind == "refusal":
            return refusal_part(self._text)
        return text_part(self._text, self._logprobs)


class _Call(_Open):
    """A call of a function."""

    def __init__(self, head: ReplyHead, number: int, first: ToolCallChunk) -> None:
        super().__init__(head, number)
        self.index = first["index"]
        self._id = first["id"]
        self._name = first["name"]

    @property
    def item(self) -> Item:
        return call_item(self._head, self.number, self._id, self._name, self._text)

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are an object."""
        try:
            return isinstance(orjson.loads(self._text), dict)
        except orjson.JSONDecodeError:
            return False

    def grow(self, text: str) -> Iterable[_Step]:
        """Take more of its arguments."""
        self._pieces.append(text)
        yield "function_call_arguments.delta", {"delta": text}

    def end(self) -> Iterable[_Step]:
        yield "function_call_arguments.done", {"name": self._name, "arguments": self._text}
