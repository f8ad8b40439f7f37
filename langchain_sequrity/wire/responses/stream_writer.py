"""The server's side of Responses: writes streamed replies, with OpenAI's order of events.

An item ends before the next one begins. The content of a chunk decides which item is open:
reasoning, or a message with its parts. Backends may mix fragments of several calls, so a call comes
whole, after the text.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.wire.exchange import Event, ReplyHead, ServerFormat, StreamTotals
from langchain_sequrity.wire.responses.client import DOCUMENTED
from langchain_sequrity.wire.responses.server import (
    Item,
    call_item,
    message_item,
    new_reply_id,
    read_request,
    reasoning_item,
    refusal_part,
    status_of,
    stream_event,
    summary_part,
    text_part,
    with_final_status,
    write_error,
    write_reply,
    write_response,
)


class _Part(NamedTuple):
    """A type of part that grows, with the names of its events after `response.`."""

    item: str
    part_event: str
    text_event: str
    index_key: str


_NOTHING = _Part("", "", "", "")
_REASONING = _Part("reasoning", "reasoning_summary_part", "reasoning_summary_text", "summary_index")
_TEXT = _Part("message", "content_part", "output_text", "content_index")
_REFUSAL = _Part("message", "content_part", "refusal", "content_index")


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
    totals = StreamTotals()
    for chunk in chunks:
        totals.add(chunk)
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            yield from stream.grow(_REASONING, reasoning)
        if refusal := chunk.additional_kwargs.get("refusal"):
            yield from stream.grow(_REFUSAL, refusal)
        if text := str(chunk.text):
            logprobs = chunk.response_metadata.get("logprobs") or {}
            yield from stream.grow(_TEXT, text, logprobs.get("content") or ())
    status = status_of(totals.metadata.get("finish_reason"))
    calls = totals.calls
    yield from stream.end("completed" if calls else status)
    for number, call in enumerate(calls, start=1):
        yield from stream.call(*call, "completed" if number < len(calls) else status)
    response = write_response(head, stream.output, totals.metadata, totals.usage)
    yield stream.event(status, response=response)


class _Stream:
    """The events of one reply.

    Attributes:
        output: The items that have ended.
    """

    def __init__(self, head: ReplyHead) -> None:
        self.output: list[Item] = []
        self._head = head
        self._number = 0
        self._id = ""
        self._open = _NOTHING
        self._parts: list[Item] = []
        self._pieces: list[str] = []
        self._logprobs: list[Any] = []

    def event(self, name: str, /, **fields: Any) -> Event:
        """Write the next event."""
        self._number += 1
        return stream_event(self._number - 1, f"response.{name}", **fields)

    def grow(self, part: _Part, text: str, logprobs: Sequence[Any] = ()) -> Iterator[Event]:
        """Write an increment of the open part, or of a new one if that is of another type."""
        if part.item != self._open.item:
            yield from self.end()
            self._open = part
            yield self._begin(self._item)
            yield from self._begin_part(part)
        elif part != self._open:
            yield from self._end_part()
            yield from self._begin_part(part)
        self._pieces.append(text)
        self._logprobs += logprobs
        fields = {"logprobs": logprobs} if part is _TEXT else {}
        yield from self._text_event("delta", delta=text, **fields)

    def end(self, status: str = "completed") -> Iterator[Event]:
        """Write the end of the open item, if there is one."""
        if self._open is not _NOTHING:
            yield from self._end_part()
            yield self._end(self._item, status)
            self._open, self._parts = _NOTHING, []

    def call(
        self, call_id: str | None, name: str | None, arguments: str, status: str
    ) -> Iterator[Event]:
        """Write a call."""
        item = call_item(self._head, len(self.output), call_id, name, "")
        yield self._begin(item)
        if arguments:
            yield self._event("function_call_arguments.delta", delta=arguments)
        yield self._event("function_call_arguments.done", name=name, arguments=arguments)
        yield self._end({**item, "arguments": arguments}, status)

    def _begin(self, item: Item) -> Event:
        self._id = item["id"]
        begun = {**item, "status": "in_progress"} if "status" in item else item
        return self.event("output_item.added", output_index=len(self.output), item=begun)

    def _end(self, item: Item, status: str) -> Event:
        done = with_final_status(item, status)
        self.output.append(done)
        return self.event("output_item.done", output_index=len(self.output) - 1, item=done)

    def _begin_part(self, part: _Part) -> Iterator[Event]:
        self._open, self._pieces, self._logprobs = part, [], []
        yield self._event(f"{part.part_event}.added", **self._part_index, part=self._part)

    def _end_part(self) -> Iterator[Event]:
        part = self._part
        fields = {key: part[key] for key in part if key not in ("type", "annotations")}
        yield from self._text_event("done", **fields)
        yield self._event(f"{self._open.part_event}.done", **self._part_index, part=part)
        self._parts.append(part)

    def _text_event(self, name: str, /, **fields: Any) -> Iterator[Event]:
        """Write an event of the open text; those of a refusal are not documented."""
        if not (self._head.documented and self._open is _REFUSAL):
            yield self._event(f"{self._open.text_event}.{name}", **self._part_index, **fields)

    def _event(self, name: str, /, **fields: Any) -> Event:
        """Write an event of the open item."""
        return self.event(name, item_id=self._id, output_index=len(self.output), **fields)

    @property
    def _part_index(self) -> dict[str, int]:
        return {self._open.index_key: len(self._parts)}

    @property
    def _item(self) -> Item:
        """The open item with its complete parts."""
        if self._open is _REASONING:
            text = "".join(part["text"] for part in self._parts)
            return reasoning_item(self._head, len(self.output), text)
        return message_item(self._head, len(self.output), self._parts)

    @property
    def _part(self) -> Item:
        """The open part."""
        text = "".join(self._pieces)
        if self._open is _REASONING:
            return summary_part(text)
        return refusal_part(text) if self._open is _REFUSAL else text_part(text, self._logprobs)


FORMAT = ServerFormat(
    DOCUMENTED,
    {"full": "error", "documented": "error"},
    read_request,
    new_reply_id,
    write_reply,
    write_stream,
    write_error,
)
