"""Streamed chunks that are held back until they are known to be an answer.

Text of a stream is shown before the whole reply is known. So two readers wrap the reader of a
format and hold back chunks that may turn out not to be an answer: `EnvelopeReader` in dual-LLM
sessions, and `DenialReader` in every session.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

import orjson
from langchain_core.messages import AIMessageChunk

from langchain_sequrity.wire import denials
from langchain_sequrity.wire.dual_llm import is_empty, may_be_dual
from langchain_sequrity.wire.exchange import (
    CHECK_KEY,
    ChunkSum,
    Event,
    Reply,
    StreamMemory,
    StreamReader,
    check_json,
)
from langchain_sequrity.wire.media import THOUGHTS

Judge = Callable[[AIMessageChunk], AIMessageChunk]
"""Returns the message that a whole reply stands for, or raises."""


class _HeldChunks:
    """Chunks that are held back, within the memory limit of streams."""

    def __init__(self) -> None:
        self._sum = ChunkSum()
        self._memory = StreamMemory()

    def add(self, chunk: AIMessageChunk) -> None:
        """Hold a chunk. Raises `BadReply` over the limit."""
        others = (
            chunk.additional_kwargs,
            chunk.response_metadata.keys() - {"model_provider"},
            chunk.tool_call_chunks,
        )
        if isinstance(chunk.content, str) and not any(others):
            self._memory.add_text(chunk.content)
        else:
            self._memory.add((chunk.content, chunk.response_metadata, *others))
        self._sum.add(chunk)

    def pop_all(self) -> ChunkSum:
        """Return the sum of the held chunks and hold nothing."""
        chunks, self._sum = self._sum, ChunkSum()
        return chunks


class _HoldingReader(ABC):
    """Base of the readers that hold back chunks of another reader."""

    def __init__(self, inner: StreamReader[AIMessageChunk], judge: Judge) -> None:
        self._inner = inner
        self._judge = judge
        self._head = Reply(0, {})
        self._held = _HeldChunks()

    @property
    def done(self) -> bool:
        """Whether the stream is over."""
        return self._inner.done

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head
        self._inner.start(head)

    def feed(self, event: Event) -> Iterable[AIMessageChunk]:
        """Return the chunks that may be shown after this event."""
        released = self._filter(self._inner.feed(event))
        return [*released, *self._release()] if self._inner.done else released

    def end(self) -> Iterable[AIMessageChunk]:
        """Return the chunks that are still held, if the stream is complete."""
        if self.done:  # they were returned with the last event
            return []
        return [*self._filter(self._inner.end()), *self._release()]

    def whole(self, reply: Reply) -> Iterable[AIMessageChunk]:
        """Read the plain JSON of a service that does not stream."""
        return [*self._filter(self._inner.whole(reply)), *self._release()]

    @abstractmethod
    def _filter(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        """Return the chunks that may be shown now; hold the others."""

    @abstractmethod
    def _release(self) -> list[AIMessageChunk]:
        """Return what the held chunks stand for, at the end of the reply."""


class EnvelopeReader(_HoldingReader):
    """Holds back the text of a dual-LLM stream until the whole envelope has been read.

    Reasoning is shown at once; it is not an answer.

    Args:
        inner: The reader of the format.
        judge: See `Judge`; it unwraps the envelope.
        certain: Whether the session is known to be dual-LLM. Otherwise the first event with a
            model or an id decides (`docs/behaviour.md`, P2).
    """

    def __init__(self, inner: StreamReader[AIMessageChunk], judge: Judge, *, certain: bool) -> None:
        super().__init__(inner, judge)
        self._is_dual: bool | None = True if certain else None

    def feed(self, event: Event) -> Iterable[AIMessageChunk]:
        """Return the chunks that may be shown after this event."""
        self._decide(event.data, self._head)
        return super().feed(event)

    def whole(self, reply: Reply) -> Iterable[AIMessageChunk]:
        """Read the plain JSON of a service that does not stream."""
        self._decide(reply.body, reply)
        return super().whole(reply)

    def _decide(self, data: bytes | str, head: Reply) -> None:
        """Decide once an event names a model or an id."""
        if self._is_dual is not None:
            return
        check_json(data)
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:  # the reader of the format raises for it
            return
        if isinstance(body, dict) and (body.get("model") or body.get("id")):
            session_id = head.headers.get("x-session-id")
            self._is_dual = may_be_dual(body.get("model"), body.get("id"), session_id)

    def _filter(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        if self._is_dual is False:
            return [*self._held.pop_all(), *chunks]
        released = []
        for chunk in chunks:
            if _is_reasoning(chunk):
                released.append(chunk)
            else:
                self._held.add(chunk)
        return released

    def _release(self) -> list[AIMessageChunk]:
        held = self._held.pop_all()
        whole = held.total()
        # Without any mark of a dual-LLM session it is an ordinary answer.
        if whole is None or not self._is_dual:
            return list(held)
        return _by_call(self._judge(whole))


_CALL_FIELDS = ("tool_call_chunks", "tool_calls", "invalid_tool_calls")


def _by_call(chunk: AIMessageChunk) -> list[AIMessageChunk]:
    """Split a chunk with several calls among its blocks.

    From a chunk with a valid and an invalid call, LangChain's translator for Anthropic makes two
    blocks of the valid one.
    """
    calls = chunk.tool_call_chunks
    if len(calls) < 2 or isinstance(chunk.content, str):  # noqa: PLR2004 - several
        return [chunk]
    blocks: dict[Any, list[Any]] = {call["index"]: [] for call in calls}
    others: list[Any] = []
    for block in chunk.content:
        index = block.get("index") if isinstance(block, dict) else None
        blocks.get(index, others).append(block)
    provider = {"model_provider": chunk.response_metadata.get("model_provider")}
    chunks = [
        AIMessageChunk(
            content=blocks[call["index"]], tool_call_chunks=[call], response_metadata=provider
        )
        for call in calls
    ]
    no_calls = {name: list[Any]() for name in _CALL_FIELDS}
    return [chunk.model_copy(update={"content": others, **no_calls}), *chunks]


def _is_reasoning(chunk: AIMessageChunk) -> bool:
    """Whether a chunk holds nothing but reasoning."""
    content = chunk.content
    return not (
        (content if isinstance(content, str) else any(map(_is_answer_block, content)))
        or chunk.tool_call_chunks
        or chunk.usage_metadata
        or len(chunk.response_metadata) > 1  # more than the provider's name
        or chunk.additional_kwargs.keys() - {"reasoning_content"}
    )


def _is_answer_block(block: str | dict[Any, Any]) -> bool:
    return isinstance(block, str) or block.get("type") not in THOUGHTS


class DenialReader(_HoldingReader):
    """Holds back a possible denial until the whole reply has been read.

    An answer is shown as it comes. A text that begins like a denial waits, and so do a refusal and
    everything after it.

    Args:
        inner: The reader of the format.
        judge: See `Judge`.
        holds_objects: Whether text that begins like an object waits too. Some formats show no mark
            of a dual-LLM session. If the kind of the session is unknown, an envelope is neither an
            answer nor a result (`docs/behaviour.md`, P2).
    """

    def __init__(
        self, inner: StreamReader[AIMessageChunk], judge: Judge, *, holds_objects: bool = False
    ) -> None:
        super().__init__(inner, judge)
        self._leads = (*denials.LEADS, "{") if holds_objects else denials.LEADS
        # `open` before any text; `doubtful` while the text may be a denial; `held` after a refusal.
        self._state: Literal["open", "doubtful", "held", "clear"] = "open"
        self._start = ""
        self._has_content = False
        self._has_shown_text = False
        self._last: AIMessageChunk | None = None

    def _filter(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        released: list[AIMessageChunk] = []
        for chunk in chunks:
            if len(chunk.response_metadata) > 1:  # more than the provider's name
                self._last = chunk
            elif chunk.usage_metadata and self._last is not None:  # in a chunk of its own
                self._last = self._last.model_copy(update={"usage_metadata": chunk.usage_metadata})
            self._observe(chunk)
            if self._state in ("doubtful", "held"):
                self._held.add(chunk)
                continue
            released += self._held.pop_all()
            self._has_shown_text = self._has_shown_text or bool(self._start)
            released.append(chunk)
        return released

    def _observe(self, chunk: AIMessageChunk) -> None:
        if self._state != "held" and _is_refusal(chunk):
            self._state = "held"
        if len(self._start) < denials.MAX_BEGINNING and (text := str(chunk.text)):
            self._start += text
            if self._state in ("open", "doubtful"):
                self._state = "doubtful" if self._may_be_denial() else "clear"
        self._has_content = self._has_content or not is_empty(chunk) or bool(chunk.tool_call_chunks)

    def _may_be_denial(self) -> bool:
        start = denials.normalized_beginning(self._start)
        return any(lead.startswith(start) or start.startswith(lead) for lead in self._leads)

    def _release(self) -> list[AIMessageChunk]:
        held = self._held.pop_all()
        whole = held.total() or self._without_text()
        if whole is None:
            return []
        judged = self._judge(whole)
        if judged is whole:
            return list(held)
        if not self._has_shown_text:
            return [judged]
        # Separate the refusal from the text that has been shown.
        metadata = {"model_provider": judged.response_metadata.get("model_provider")}
        return [AIMessageChunk(content="\n\n", response_metadata=metadata), judged]

    def _without_text(self) -> AIMessageChunk | None:
        """The last chunk of a reply without held chunks, if the reply may not be an answer."""
        last = self._last
        if last is not None and last.response_metadata.get("status") == "failed":
            return last.model_copy(update={"content": self._start})
        return None if self._has_content else last


def _is_refusal(chunk: AIMessageChunk) -> bool:
    is_text = isinstance(chunk.content, str) and not chunk.additional_kwargs
    if is_text and len(chunk.response_metadata) <= 1:
        return False
    return bool(denials.refusal_of(chunk)) or CHECK_KEY in chunk.response_metadata
