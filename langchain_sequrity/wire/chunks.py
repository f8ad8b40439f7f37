"""Pieces of messages: a whole message as one piece, and pieces added up."""

from collections.abc import Iterable, Iterator
from itertools import chain

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.wire.call_texts import text_of, texts_of


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
