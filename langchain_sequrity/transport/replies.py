"""Turns the head and the bytes of one reply into what was asked for. Fed by hand; no I/O.

A `Sink` is made when the head of a reply has come, takes the body piece by piece, and gives what
each piece completes. One takes the whole body, the other server-sent events.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar

import httpx
import orjson

from langchain_sequrity.errors import BadReply, ServiceError
from langchain_sequrity.transport.retry import Attempts
from langchain_sequrity.wire import exchange
from langchain_sequrity.wire.exchange import Reply, StreamReader
from langchain_sequrity.wire.reply_body import error_from_body
from langchain_sequrity.wire.sse import SSEDecoder

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_EVENTS = "text/event-stream"
_LONGEST_TEXT_BODY = 10_000
_OK, _REDIRECT, _ERROR = 200, 300, 400
_NOT_LOGGED = frozenset({"set-cookie", "set-cookie2"})


# The head


def _succeeded(head: Reply) -> bool:
    """Whether the status is one of 2xx."""
    return _OK <= head.status < _REDIRECT


def _media_type(head: Reply) -> str:
    """The content type without its parameters; empty where none is named."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_encoding(head: Reply) -> None:
    """Raise `BadReply` for a compressed body: none was asked for, and it could swell."""
    if head.headers.get("content-encoding", "identity") != "identity":
        msg = "The reply is compressed though `Accept-Encoding: identity` was sent."
        raise BadReply(msg, status=head.status)


def _unexpected(head: Reply, expected: str) -> BadReply:
    """The error for a body of another type than was expected."""
    msg = (
        f"The reply with status {head.status} is `{_media_type(head) or 'of no named type'}` "
        f"instead of {expected}. Check that `base_url` is the address of the service."
    )
    return BadReply(msg, status=head.status)


def failure(reply: Reply) -> ServiceError | None:
    """The error that a whole reply stands for; `None` for status 2xx."""
    if _succeeded(reply):
        return None
    if reply.status >= _ERROR:
        return error_from_body(reply.status, _body(reply.body))
    msg = (
        f"The reply has status {reply.status} and leads to {_target(reply)}. Redirects are not "
        "followed, since keys and policies would go there; correct `base_url`."
    )
    return BadReply(msg, status=reply.status)


def _target(reply: Reply) -> str:
    try:
        url = httpx.URL(reply.headers.get("location", ""))
    except httpx.InvalidURL:
        return "an unreadable address"
    return f"`{url.scheme}://{url.netloc.decode()}`" if url.host else "another path"


def _body(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")[:_LONGEST_TEXT_BODY]


def complete(error: ServiceError, head: Reply) -> None:
    """Add to an error what the head of the reply says.

    Args:
        error: The error, from the transport or from a reader.
        head: Status and headers.
    """
    headers = head.headers
    error.status = head.status if error.status is None else error.status
    error.request_id = error.request_id or headers.get("x-request-id") or headers.get("request-id")
    error.session_id = error.session_id or headers.get("x-session-id")
    error.headers = error.headers or _loggable(headers)
    if error.retry_after is None:
        error.retry_after = _retry_after(headers)


def _loggable(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower(): value for name, value in headers.items() if name.lower() not in _NOT_LOGGED
    }


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait, 0 for a past date; `None` if it names none."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


# The body


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
        _check_encoding(head)
        self.done = False
        self._head = head
        self._attempts = attempts
        self._read = read
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterable[T]:
        """Keep a piece. Raises `BadReply` when there are more than 64 MiB."""
        size = len(self._body) + len(data)
        if not _succeeded(self._head):
            self.done = size > exchange.ERROR  # what it says comes first
        elif size > exchange.REPLY:
            msg = f"The reply is larger than {exchange.REPLY} bytes."
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
        self._left = exchange.STREAM
        self.done = False
        attempts.deadline.expect_event()

    def feed(self, data: bytes) -> Iterator[T]:
        """Read the events that the next bytes complete; `BadReply` when there are too many."""
        self._left -= len(data)
        if self._left < 0:
            msg = f"The stream is longer than {exchange.STREAM} bytes."
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
        media = _media_type(head)
        if _succeeded(head) and media in (_EVENTS, "text/html"):
            raise _unexpected(head, "JSON")
        return WholeBody(head, attempts, lambda reply: (read(reply),))

    return open_sink


def open_stream(new_reader: Callable[[], StreamReader[T]]) -> OpenSink[T]:
    """Expect server-sent events, or one JSON reply from a service that does not stream.

    Args:
        new_reader: Makes the format's reader, a new one for each attempt.
    """

    def open_sink(head: Reply, attempts: Attempts) -> Sink[T]:
        reader = new_reader()
        if not _succeeded(head):
            return WholeBody(head, attempts, reader.whole)
        _check_encoding(head)
        reader.start(head)
        media = _media_type(head)
        if media == _EVENTS:
            return Events(attempts, reader)
        if media == "application/json" or media.endswith("+json"):
            return WholeBody(head, attempts, reader.whole)
        raise _unexpected(head, "server-sent events")

    return open_sink
