"""The server's side of Responses: writes streamed replies, with OpenAI's order of events.

An item ends before the next one begins. The content of a chunk decides which item is open:
reasoning, a message with its parts, or one call. Backends may interleave fragments of calls. So
fragments of another call wait while the arguments of the open one are incomplete.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import ToolCallChunk

from langchain_sequrity.wire.exchange import Event, ReplyHead
from langchain_sequrity.wire.responses.server import (
    Item,
    call_item,
    ended,
    message_item,
    reasoning_item,
    refusal_part,
    status_of,
    stream_event,
    text_part,
    write_response,
)

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

_Step = tuple[str, Mapping[str, Any]]
"""Name of an event after `response.`, and its fields other than those of its item."""

# These events are not documented. Without them, the refusal comes with the end of its part.
_REFUSAL = "refusal."


def write_stream(chunks: Iterable[AIMessageChunk], head: ReplyHead) -> Iterator[Event]:
    """Write a streamed reply.

    Args:
        chunks: Chunks of one message. Any of them may have the `finish_reason`.
        head: Facts of the reply.

    Yields:
        The events; the last one has the whole response, as `write_reply` writes it.
    """
    stream = _Stream(head)
    response = write_response(head, [])
    yield stream.event("created", response=response)
    yield stream.event("in_progress", response=response)
    for chunk in chunks:
        yield from stream.take(chunk)
    yield from stream.finish()


class _Stream:
    """The events of one reply, and its output."""

    def __init__(self, head: ReplyHead) -> None:
        self._head = head
        self._output: list[Item] = []
        self._number = 0
        self._open: _OpenItem | None = None
        self._waiting: list[ToolCallChunk] = []
        self._called: set[int | None] = set()
        self._metadata: dict[str, Any] = {}
        self._usage: UsageMetadata | None = None

    def event(self, name: str, /, **fields: Any) -> Event:
        """Write the next event."""
        self._number += 1
        return stream_event(self._number - 1, f"response.{name}", **fields)

    def take(self, chunk: AIMessageChunk) -> Iterator[Event]:
        """Write the events of a chunk."""
        self._usage = chunk.usage_metadata or self._usage
        self._metadata |= {key: value for key, value in chunk.response_metadata.items() if value}
        extra = chunk.additional_kwargs
        if reasoning := extra.get("reasoning_content"):
            yield from self._grow(_OpenReasoning, reasoning)
        if refusal := extra.get("refusal"):
            yield from self._grow(_OpenMessage, "refusal", refusal, ())
        if text := str(chunk.text):
            logprobs = chunk.response_metadata.get("logprobs") or {}
            yield from self._grow(_OpenMessage, "output_text", text, logprobs.get("content") or ())
        for fragment in chunk.tool_call_chunks:
            yield from self._call(fragment)

    def finish(self) -> Iterator[Event]:
        """Write the end of the response."""
        status = status_of(self._metadata.get("finish_reason"))
        yield from self._end(status)
        response = write_response(self._head, self._output, self._metadata, self._usage)
        yield self.event(status, response=response)

    def _end(self, status: str = "completed") -> Iterator[Event]:
        """End the open item and write the calls that wait; the last one may have been cut off."""
        waiting, self._waiting = self._waiting, []
        for index in dict.fromkeys(fragment["index"] for fragment in waiting):
            for fragment in waiting:
                if fragment["index"] == index:
                    yield from self._grow_call(fragment)
        yield from self._close(status)

    def _grow(self, kind: type["_OpenItem"], *content: Any) -> Iterator[Event]:
        """Add content to the open item, or to a new one if that is of another kind."""
        item = self._open
        if not isinstance(item, kind):
            yield from self._end()
            item = kind(self._head, len(self._output))
            yield from self._begin(item)
        yield from self._events(item, item.grow(*content))

    def _call(self, fragment: ToolCallChunk) -> Iterator[Event]:
        item, index = self._open, fragment["index"]
        if isinstance(item, _OpenCall) and index != item.index:
            if index in self._called:  # it is complete; readers would not accept more
                return
            if self._waiting or not item.is_complete:
                self._waiting.append(fragment)
                return
        yield from self._grow_call(fragment)

    def _grow_call(self, fragment: ToolCallChunk) -> Iterator[Event]:
        item = self._open
        if not isinstance(item, _OpenCall) or item.index != fragment["index"]:
            yield from self._close()
            item = _OpenCall(self._head, len(self._output), fragment)
            self._called.add(item.index)
            yield from self._begin(item)
        if fragment["args"]:
            yield from self._events(item, item.grow(fragment["args"]))

    def _begin(self, item: "_OpenItem") -> Iterator[Event]:
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

    def _events(self, item: "_OpenItem", steps: Iterable[_Step]) -> Iterator[Event]:
        named = {"item_id": item.id, "output_index": item.number}
        for name, fields in steps:
            if not (self._head.documented and name.startswith(_REFUSAL)):
                yield self.event(name, **named, **fields)


class _OpenItem(ABC):
    """An item that has begun."""

    def __init__(self, head: ReplyHead, number: int) -> None:
        self.number = number
        self.id = ""
        self._head = head
        self._pieces: list[str] = []

    @property
    @abstractmethod
    def item(self) -> Item:
        """The item with its content so far."""

    def begin(self) -> Iterable[_Step]:
        """Events after the announcement of the item."""
        return ()

    @abstractmethod
    def grow(self, *content: Any, **_: Any) -> Iterable[_Step]:
        """Add content."""

    @abstractmethod
    def end(self) -> Iterable[_Step]:
        """Events before the end of the item."""

    @property
    def _text(self) -> str:
        return "".join(self._pieces)


class _OpenReasoning(_OpenItem):
    """Reasoning with one summary."""

    @property
    def item(self) -> Item:
        return reasoning_item(self._head, self.number, self._text)

    def begin(self) -> Iterable[_Step]:
        yield "reasoning_summary_part.added", {"summary_index": 0, "part": _summary("")}

    def grow(self, text: str) -> Iterable[_Step]:
        """Add text."""
        self._pieces.append(text)
        yield "reasoning_summary_text.delta", {"summary_index": 0, "delta": text}

    def end(self) -> Iterable[_Step]:
        yield "reasoning_summary_text.done", {"summary_index": 0, "text": self._text}
        yield "reasoning_summary_part.done", {"summary_index": 0, "part": _summary(self._text)}


def _summary(text: str) -> Item:
    return {"type": "summary_text", "text": text}


class _OpenMessage(_OpenItem):
    """A message with its parts."""

    def __init__(self, head: ReplyHead, number: int) -> None:
        super().__init__(head, number)
        self._parts: list[Item] = []
        self._kind: str | None = None
        self._logprobs: list[Any] = []

    @property
    def item(self) -> Item:
        return message_item(self._head, self.number, [*self._parts])

    def grow(self, kind: str, text: str, logprobs: Sequence[Any]) -> Iterable[_Step]:
        """Add text to the open part, or begin a part of another kind."""
        if kind != self._kind:
            yield from self.end()
            self._kind = kind
            yield "content_part.added", {**self._place, "part": self._part}
        self._pieces.append(text)
        self._logprobs += logprobs
        fields: dict[str, Any] = {**self._place, "delta": text}
        if kind == "output_text":
            fields["logprobs"] = logprobs
        yield f"{kind}.delta", fields

    def end(self) -> Iterable[_Step]:
        if self._kind is None:
            return
        part, place = self._part, self._place
        fields = {key: part[key] for key in part if key not in ("type", "annotations")}
        yield f"{self._kind}.done", {**place, **fields}
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


class _OpenCall(_OpenItem):
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
        """Add arguments."""
        self._pieces.append(text)
        yield "function_call_arguments.delta", {"delta": text}

    def end(self) -> Iterable[_Step]:
        yield "function_call_arguments.done", {"name": self._name, "arguments": self._text}
