"""Turns the bytes of one reply into what was asked for. Fed by hand; no I/O.

A `Sink` is made when the head of a reply has come, takes the body piece by piece, and gives what
each piece completes. One takes the whole body, the other server-sent events.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from langchain_sequrity.errors import BadReply
from langchain_sequrity.transport.heads import (
    check_encoding,
    failure,
    media_type,
    succeeded,
    unexpected,
)
from langchain_sequrity.transport.retry import Attempts
from langchain_sequrity.wire import limits
from langchain_sequrity.wire.exchange import Reply, StreamReader
from langchain_sequrity.wire.sse import SSEDecoder

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_EVENTS = "text/event-stream"


class Sink(Protocol[T_co]):
    """Takes the body of one reply."""

    @property
    def done(self) -> bool:
        """Whether all that matters has come before the body's end."""

    def feed(self, data: bytes) -> Iterable[T_co]:
        """Return what the next bytes complete."""

    def end(self) -> Iterable[T_co]:
        """Return what the end of the body completes."""


OpenSink = Callable[[Reply, Attempts], Sink[T]]


class WholeBody(Generic[T]):
    """Collects the body and reads it in one go; of an error, no more than its beginning.

    Args:
        head: Status and headers.
        attempts: Told when output begins.
        read: Reads a reply of status 2xx.
    """

    def __init__(
        self, head: Reply, attempts: Attempts, read: Callable[[Reply], Iterable[T]]
    ) -> None:
        check_encoding(head)
        self.done = False
        self._head = head
        self._attempts = attempts
        self._read = read
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterable[T]:
        """Keep a piece. Raises `BadReply` when there are more than 64 MiB."""
        size = len(self._body) + len(data)
        if not succeeded(self._head):
            self.done = size > limits.ERROR  # what it says comes first
        elif size > limits.REPLY:
            msg = f"The reply is larger than {limits.REPLY} bytes."
            raise BadReply(msg, status=self._head.status)
        self._body += data
        return ()

    def end(self) -> Iterator[T]:
        """Read the body. Raises what an error status means."""
        reply = Reply(self._head.status, self._head.headers, bytes(self._body))
        self._body.clear()
        if (error := failure(reply)) is not None:
            raise error
        for piece in self._read(reply):
            self._attempts.output = True
            yield piece


class Events(Generic[T]):
    """Decodes server-sent events and hands them to a reader.

    Args:
        attempts: Told when output begins; its deadline is told of each event.
        reader: The format's reader.
    """

    def __init__(self, attempts: Attempts, reader: StreamReader[T]) -> None:
        self._attempts = attempts
        self._reader = reader
        self._decoder = SSEDecoder()
        self._left = limits.STREAM
        self.done = False
        attempts.deadline.expect_event()

    def feed(self, data: bytes) -> Iterator[T]:
        """Read the events that the next bytes complete; `BadReply` when there are too many."""
        self._left -= len(data)
        if self._left < 0:
            msg = f"The stream is longer than {limits.STREAM} bytes."
            raise BadReply(msg)
        events = self._decoder.feed(data)
        for event in events:
            for piece in self._reader.feed(event):
                self._attempts.output = True
                yield piece
            if self._reader.done:
                self.done = True
                return
        if events:
            # Only now: what the consumer does between two pieces is not the server's silence.
            self._attempts.deadline.expect_event()

    def end(self) -> Iterator[T]:
        """Tell the reader that the stream is over, unless it said so itself."""
        if not self.done:
            yield from self._reader.end()


def open_whole(read: Callable[[Reply], T]) -> OpenSink[T]:
    """Expect one JSON reply.

    Args:
        read: Reads it.
    """

    def open_sink(head: Reply, attempts: Attempts) -> Sink[T]:
        media = media_type(head)
        if succeeded(head) and media in (_EVENTS, "text/html"):
            raise unexpected(head, "JSON")
        return WholeBody(head, attempts, lambda reply: (read(reply),))

    return open_sink


def open_stream(new_reader: Callable[[], StreamReader[T]]) -> OpenSink[T]:
    """Expect server-sent events, or one JSON reply from a service that does not stream.

    Args:
        new_reader: Makes the format's reader, a new one for each attempt.
    """

    def open_sink(head: Reply, attempts: Attempts) -> Sink[T]:
        reader = new_reader()
        if not succeeded(head):
            return WholeBody(head, attempts, reader.whole)
        check_encoding(head)
        reader.start(head)
        media = media_type(head)
        if media == _EVENTS:
            return Events(attempts, reader)
        if media == "application/json" or media.endswith("+json"):
            return WholeBody(head, attempts, reader.whole)
        raise unexpected(head, "server-sent events")

    return open_sink
