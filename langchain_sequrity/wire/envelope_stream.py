"""A dual-LLM reply that is streamed: nothing of it is shown before all of it has been read.

Pieces of messages: a whole message as one piece, and pieces added up.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.wire.dual_llm import may_be_dual
from langchain_sequrity.wire.exchange import Event, Kept, Reply, StreamReader, check_json
from langchain_sequrity.wire.tools import text_of, texts_of


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return the piece that holds a message, for services that answer a stream with one reply."""
    texts = texts_of(message)
    calls = [(call["name"], text_of(call, texts), call["id"]) for call in message.tool_calls]
    bad = [(call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls]
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        tool_call_chunks=[
            tool_call_chunk(name=name, args=args, id=call_id, index=index)
            for index, (name, args, call_id) in enumerate([*calls, *bad])
        ],
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        id=message.id,
    )


_AT_ONCE = 32


class Sum:
    """Pieces of one message, added up as they come: each takes far more memory than what it says.

    Sums are added up in turn, so that no piece is copied often, however many there are.
    """

    def __init__(self, pieces: Iterable[AIMessageChunk] = ()) -> None:
        # In each list what was added up as often; the later, the longer ago.
        self._levels: list[list[AIMessageChunk]] = []
        for piece in pieces:
            self.add(piece)

    def add(self, piece: AIMessageChunk, level: int = 0) -> None:
        """Add a piece."""
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(piece)
        if len(self._levels[level]) == _AT_ONCE:
            pieces, self._levels[level] = self._levels[level], []
            self.add(pieces[0] + pieces[1:], level + 1)

    def __iter__(self) -> Iterator[AIMessageChunk]:
        """The sums so far, few and in order."""
        return chain.from_iterable(reversed(self._levels))

    def total(self) -> AIMessageChunk | None:
        """The sum of all, if there are any."""
        pieces = list(self)
        return pieces[0] + pieces[1:] if len(pieces) > 1 else pieces[0] if pieces else None


_ALWAYS = {"model_provider"}
_REASONING = ("thinking", "redacted_thinking", "reasoning")


class Held:
    """Pieces that are held back: a stream without end must not fill the memory."""

    def __init__(self) -> None:
        self._pieces = Sum()
        self._kept = Kept()

    def add(self, piece: AIMessageChunk) -> None:
        """Hold a piece; raises `BadReply` if all together are more than may be kept."""
        beside = (
            piece.additional_kwargs,
            piece.response_metadata.keys() - _ALWAYS,
            piece.tool_call_chunks,
        )
        if isinstance(piece.content, str) and not any(beside):
            self._kept.add_text(piece.content)
        else:
            self._kept.add((piece.content, piece.response_metadata, *beside))
        self._pieces.add(piece)

    def extend(self, pieces: Iterable[AIMessageChunk]) -> None:
        """Hold pieces."""
        for piece in pieces:
            self.add(piece)

    def taken(self) -> list[AIMessageChunk]:
        """What is held, added up to few pieces; nothing is held then."""
        pieces, self._pieces = self._pieces, Sum()
        return list(pieces)

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return any(True for _ in self._pieces)


class EnvelopeReader:
    """Holds back the text of a dual-LLM stream until the whole envelope has been read.

    Reasoning is passed on as it comes; it is no answer.

    Args:
        inner: The reader of the format.
        judge: Gives the message that a whole reply stands for, or raises (`unwrap`).
        certain: Whether the session is known to be dual-LLM. Otherwise the first event that names
            a model or an id decides whether the reply may come from one (`docs/behaviour.md`, P2).
    """

    def __init__(
        self,
        inner: StreamReader[AIMessageChunk],
        judge: Callable[[AIMessageChunk], AIMessageChunk],
        *,
        certain: bool,
    ) -> None:
        self._inner = inner
        self._judge = judge
        self._holds: bool | None = True if certain else None
        self._head = Reply(0, {})
        self._held = Held()

    @property
    def done(self) -> bool:
        """Whether the stream is over."""
        return self._inner.done

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head
        self._inner.start(head)

    def feed(self, event: Event) -> Iterable[AIMessageChunk]:
        """Return what may be shown after this event."""
        if self._holds is None:
            self._holds = _body_may_be_dual(event.data, self._head)
        chunks = self._inner.feed(event)
        if self._holds is False:
            return [*self._held.taken(), *chunks]
        shown = []
        for chunk in chunks:
            if self._harmless(chunk):
                shown.append(chunk)
            else:
                self._held.add(chunk)
        return [*shown, *self._released()] if self._inner.done else shown

    def end(self) -> Iterable[AIMessageChunk]:
        """Return what is still held, if the stream is complete."""
        self._held.extend(self._inner.end())
        return self._released()

    def whole(self, reply: Reply) -> Iterable[AIMessageChunk]:
        """Read the plain JSON of a service that does not stream."""
        self._held.extend(self._inner.whole(reply))
        if self._holds is None:
            self._holds = _body_may_be_dual(reply.body, reply)
        return self._released()

    @staticmethod
    def _harmless(chunk: AIMessageChunk) -> bool:
        return not (
            _says_something(chunk.content)
            or chunk.tool_call_chunks
            or chunk.usage_metadata
            or len(chunk.response_metadata) > 1  # more than the provider's name
            or chunk.additional_kwargs.keys() - {"reasoning_content"}
        )

    def _released(self) -> list[AIMessageChunk]:
        held = Sum(self._held.taken())
        whole = held.total()
        if whole is None or not self._holds:  # no event showed a mark: an ordinary answer
            return list(held)
        return [self._judge(whole)]


def _says_something(content: str | list[str | dict[Any, Any]]) -> bool:
    if isinstance(content, str):
        return bool(content)
    return any(isinstance(one, str) or one.get("type") not in _REASONING for one in content)


class DoubtReader:
    """Holds back what may turn out to be an envelope, where nothing tells whether it could be one.

    The formats that show no mark of a dual-LLM session leave one way only: text that begins like
    an object is held until its end, and an envelope is then neither answer nor verdict
    (`docs/behaviour.md`, P2).

    Args:
        inner: The reader of the format.
        check: Raises for a whole reply whose text is an envelope.
    """

    def __init__(
        self, inner: StreamReader[AIMessageChunk], check: Callable[[AIMessageChunk], object]
    ) -> None:
        self._inner = inner
        self._check = check
        self._is_doubtful = False
        self._is_clear = False
        self._held = Held()

    @property
    def done(self) -> bool:
        """Whether the stream is over."""
        return self._inner.done

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._inner.start(head)

    def feed(self, event: Event) -> Iterable[AIMessageChunk]:
        """Return what may be shown after this event."""
        chunks = self._inner.feed(event)
        if self._is_clear:
            return chunks
        shown = self._sifted(chunks)
        return [*shown, *self._released()] if self._inner.done else shown

    def end(self) -> Iterable[AIMessageChunk]:
        """Return what is still held, if the stream is complete."""
        return [*self._sifted(self._inner.end()), *self._released()]

    def whole(self, reply: Reply) -> Iterable[AIMessageChunk]:
        """Read the plain JSON of a service that does not stream."""
        return [*self._sifted(self._inner.whole(reply)), *self._released()]

    def _sifted(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        shown: list[AIMessageChunk] = []
        for chunk in chunks:
            text = str(chunk.text)
            if self._is_clear or not (text or self._held):
                shown.append(chunk)
                continue
            self._held.add(chunk)
            start = text.lstrip()[:1]
            if start and not self._is_doubtful:
                self._is_doubtful = start == "{"
                self._is_clear = not self._is_doubtful
                if self._is_clear:
                    shown += self._held.taken()
        return shown

    def _released(self) -> list[AIMessageChunk]:
        held = Sum(self._held.taken())
        whole = held.total()
        if whole is not None:
            self._check(whole)
        return list(held)


def _body_may_be_dual(data: bytes | str, head: Reply) -> bool | None:
    """Whether a reply may come from a dual-LLM session; `None` while it names no model or id."""
    check_json(data)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None  # the format's reader says what is wrong with it
    if not isinstance(body, dict) or not (body.get("model") or body.get("id")):
        return None
    return may_be_dual(body.get("model"), body.get("id"), head)
