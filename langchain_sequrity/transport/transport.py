"""`Transport`: sends a `ServiceCall` and gives the reply to a reader.

There are two loops: over the attempts of a call, and over the bytes of a reply. Each exists once
for threads and once for event loops. A whole reply is a stream of one piece. The loops do the I/O
and nothing else: `retry` decides whether a call is sent again, and a `Sink` reads the bytes.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, suppress
from typing import Any, Generic, NoReturn, Self, TypeVar

import httpx

from langchain_sequrity.errors import BadReply, SequrityError, ServiceError
from langchain_sequrity.transport.http11 import Request, ServiceAddress
from langchain_sequrity.transport.pool import (
    AsyncClientSender,
    AsyncSender,
    ClientSender,
    Proxies,
    Sender,
    aclose_idle,
    close_idle,
    explicit_proxy,
    proxies_for,
    shared_async_sender,
    shared_sender,
)
from langchain_sequrity.transport.redaction import Redactor
from langchain_sequrity.transport.retry import (
    MappedErrors,
    RetryPolicy,
    RetryState,
    add_reply_facts,
    failure,
    is_success,
)
from langchain_sequrity.transport.timeouts import CLOCK, Clock, Deadline, Timeouts
from langchain_sequrity.wire import exchange
from langchain_sequrity.wire.exchange import Reply, ServiceCall, StreamReader
from langchain_sequrity.wire.sse import SSEDecoder

T = TypeVar("T")

_EVENTS = "text/event-stream"
_KEY_HEADERS = (b"authorization", b"x-api-key")
_SHORTEST_KEY = 8
"""Minimum length of a key that is masked. A shorter one, as for a local server, may be a word."""
_LAST_BYTES = 0.05
"""Seconds to wait for the end of a finished stream, so that its connection can be used again."""


# Reading a reply, without I/O


class WholeBody(Generic[T]):
    """Collects the body of a reply and reads it as one; of an error, only the beginning.

    Args:
        head: Status and headers.
        attempts: Records that output has begun.
        read: Reads a reply of status 2xx.

    Attributes:
        done: Whether the rest of the body does not matter.
    """

    def __init__(
        self, head: Reply, attempts: RetryState, read: Callable[[Reply], Iterable[T]]
    ) -> None:
        _check_encoding(head)
        self.done = False
        self._head = head
        self._attempts = attempts
        self._read = read
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterable[T]:
        """Keep a piece of the body. Raises `BadReply` above 64 MiB."""
        size = len(self._body) + len(data)
        if not is_success(self._head):
            self.done = size > exchange.MAX_ERROR_BYTES  # the message is at the beginning
        elif size > exchange.MAX_REPLY_BYTES:
            msg = f"The reply is larger than {exchange.MAX_REPLY_BYTES} bytes."
            raise BadReply(msg)
        self._body += data
        return ()

    def end(self) -> Iterator[T]:
        """Read the body. Raises the error of an error status."""
        reply = Reply(self._head.status, self._head.headers, bytes(self._body))
        self._body.clear()
        if (error := failure(reply)) is not None:
            raise error
        for piece in self._read(reply):
            self._attempts.output = True
            yield piece


class StreamedBody(Generic[T]):
    """Decodes server-sent events and passes them to a reader.

    Args:
        attempts: Records that output has begun. Each event restarts its limit on silence.
        reader: The reader of the wire format.

    Attributes:
        done: Whether the reader has read the last event.
    """

    def __init__(self, attempts: RetryState, reader: StreamReader[T]) -> None:
        self._attempts = attempts
        self._reader = reader
        self._decoder = SSEDecoder()
        self._bytes_left = exchange.MAX_STREAM_BYTES
        self.done = False
        attempts.deadline.expect_event()

    def feed(self, data: bytes) -> Iterator[T]:
        """Read the events that the next bytes complete. Raises `BadReply` above 256 MiB."""
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            msg = f"The stream is longer than {exchange.MAX_STREAM_BYTES} bytes."
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
            # Only now: the consumer's time between two pieces is not silence of the server.
            self._attempts.deadline.expect_event()

    def end(self) -> Iterator[T]:
        """Report the end of the stream to the reader, unless it has read the last event."""
        if not self.done:
            yield from self._reader.end()


Sink = WholeBody[T] | StreamedBody[T]
OpenSink = Callable[[Reply, RetryState], Sink[T]]


def open_whole(read: Callable[[Reply], T]) -> OpenSink[T]:
    """Expect one JSON reply.

    Args:
        read: Reads the reply.
    """

    def open_sink(head: Reply, attempts: RetryState) -> Sink[T]:
        media = _media_type(head)
        if is_success(head) and media in (_EVENTS, "text/html"):
            raise _unexpected(head, "JSON")
        _check_session(head)
        return WholeBody(head, attempts, lambda reply: (read(reply),))

    return open_sink


def open_stream(new_reader: Callable[[], StreamReader[T]]) -> OpenSink[T]:
    """Expect server-sent events, or one JSON reply from a service that does not stream.

    Args:
        new_reader: Makes the reader of one attempt.
    """

    def open_sink(head: Reply, attempts: RetryState) -> Sink[T]:
        reader = new_reader()
        if not is_success(head):
            return WholeBody(head, attempts, reader.whole)
        _check_encoding(head)
        _check_session(head)
        reader.start(head)
        media = _media_type(head)
        if media == _EVENTS:
            return StreamedBody(attempts, reader)
        if media == "application/json" or media.endswith("+json"):
            return WholeBody(head, attempts, reader.whole)
        raise _unexpected(head, "server-sent events")

    return open_sink


def _media_type(head: Reply) -> str:
    """The content type without its parameters; empty if the reply has none."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_encoding(head: Reply) -> None:
    """Raise `BadReply` for a compressed body: it could expand until memory is full."""
    if head.headers.get("content-encoding", "identity") != "identity":
        msg = "The reply is compressed though `Accept-Encoding: identity` was sent."
        raise BadReply(msg)


def _check_session(head: Reply) -> None:
    """Raise `BadReply` for a session that no later request could name."""
    if is_success(head) and not head.has_usable_session:
        msg = "The reply names a session (`X-Session-ID`) that is too long or not printable ASCII."
        raise BadReply(msg)


def _unexpected(head: Reply, expected: str) -> BadReply:
    media = _media_type(head)
    msg = (
        f"Expected {expected}; the reply with status {head.status} has "
        f"{f'the content type `{media}`' if media else 'no content type'}. Check that `base_url` "
        "is the address of the service."
    )
    return BadReply(msg)


# Sending


class Transport:
    """Sends calls to one service.

    It stores nothing of a conversation, so threads and event loops may share it. A new one costs
    little: the connections belong to the process and are opened when they are first needed.

    Args:
        base_url: Address of the service, such as `https://api.sequrity.ai`.
        timeouts: Limits of each call.
        retry: When a failed call is sent again.
        secrets: The caller's keys. Errors show `***` instead of a key, or of 8 characters of it,
            that a server repeats.
        http_client: Used for synchronous calls instead of the shared connections, with its own
            proxies, headers, auth and hooks. It is never closed here.
        http_async_client: The same for asynchronous calls.
        proxy: Address of a proxy, used instead of the proxies of the environment.
        clock: The source of time, for limits and waits.

    Raises:
        UsageError: If `base_url` is not the address of an http or https service.

    Example:
        ```python
        from langchain_sequrity.transport import Transport
        from langchain_sequrity.wire.exchange import ServiceCall

        transport = Transport("https://api.sequrity.ai")
        call = ServiceCall("/control/chat/v1/chat/completions", headers=(), body=b"{}")
        # transport.send(call, lambda reply: reply.body)
        ```
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        secrets: tuple[str, ...] = (),
        http_client: httpx.Client | None = None,
        http_async_client: httpx.AsyncClient | None = None,
        proxy: str | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._address = ServiceAddress(base_url)
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._redactor = Redactor(secrets)
        self._injected = ClientSender(http_client) if http_client else None
        self._injected_async = AsyncClientSender(http_async_client) if http_async_client else None
        self._proxies: Proxies | None = None if proxy is None else explicit_proxy(proxy)
        self._clock = clock

    def send(self, call: ServiceCall, read: Callable[[Reply], T]) -> T:
        """Send a call and read the whole reply.

        Args:
            call: What to send.
            read: Reads a reply of status 2xx. A `ServiceError` that it raises is treated like one
                of the transport.

        Returns:
            What `read` returns.

        Raises:
            ServiceError: After the last attempt; `is_retryable` says whether sending the call
                again is safe and may help.
            UsageError: If the headers are not valid HTTP.
        """
        (value,) = self._run(call, open_whole(read), silence=None)
        return value

    async def asend(self, call: ServiceCall, read: Callable[[Reply], T]) -> T:
        """Send a call and read the whole reply; see `send`."""
        (value,) = [value async for value in self._arun(call, open_whole(read), silence=None)]
        return value

    def stream(
        self, call: ServiceCall, new_reader: Callable[[], StreamReader[T]]
    ) -> Generator[T, None, None]:
        """Send a call and read the reply while it comes.

        Args:
            call: What to send.
            new_reader: Makes the reader of one attempt.

        Yields:
            The results of the reader, for each event or, if the service does not stream, for the
            whole reply. Closing the generator closes the connection.

        Raises:
            ServiceError: After the last attempt. The call is not sent again after the first piece.
            UsageError: If the headers are not valid HTTP.
        """
        return self._run(call, open_stream(new_reader), silence=self._timeouts.silence)

    def astream(
        self, call: ServiceCall, new_reader: Callable[[], StreamReader[T]]
    ) -> AsyncGenerator[T, None]:
        """Send a call and read the reply while it comes; see `stream`."""
        return self._arun(call, open_stream(new_reader), silence=self._timeouts.silence)

    def close(self) -> None:
        """Close the threads' idle connections to this service. Later calls open new ones."""
        close_idle(self._address.origin)

    async def aclose(self) -> None:
        """Close the running loop's idle connections to this service. Later calls open new ones."""
        await aclose_idle(self._address.origin)

    def _run(
        self, call: ServiceCall, open_sink: OpenSink[T], *, silence: float | None
    ) -> Generator[T, None, None]:
        request, attempts = self._address.request(call), self._attempts(call, silence)
        while True:
            try:
                yield from self._attempt(request, attempts, open_sink)
            except SequrityError as error:
                wait = self._wait_after(error, call, attempts)
                if wait is None:
                    raise
            else:
                return
            self._clock.sleep(wait)

    async def _arun(
        self, call: ServiceCall, open_sink: OpenSink[T], *, silence: float | None
    ) -> AsyncGenerator[T, None]:
        request, attempts = self._address.request(call), self._attempts(call, silence)
        while True:
            try:
                async with aclosing(self._aattempt(request, attempts, open_sink)) as pieces:
                    async for piece in pieces:
                        yield piece
            except SequrityError as error:
                wait = self._wait_after(error, call, attempts)
                if wait is None:
                    raise
            else:
                return
            await self._clock.asleep(wait)

    def _attempt(
        self, request: Request, attempts: RetryState, open_sink: OpenSink[T]
    ) -> Generator[T, None, None]:
        sender, deadline = self._sender(), attempts.deadline
        mapped = MappedErrors(deadline, self._address.origin)
        with mapped, sender.open(request, self._timeouts, deadline) as (head, pieces):
            attempts.head = head
            sink = open_sink(head, attempts)
            for data in pieces:
                deadline.check()
                yield from sink.feed(data)
                if sink.done:
                    break
            yield from sink.end()
            if sink.done and sender.exact:
                deadline.finish_within(_LAST_BYTES)
                with suppress(ServiceError), mapped:  # then only the connection is closed
                    next(pieces, None)

    async def _aattempt(
        self, request: Request, attempts: RetryState, open_sink: OpenSink[T]
    ) -> AsyncGenerator[T, None]:
        sender, deadline = await self._async_sender(), attempts.deadline
        mapped = MappedErrors(deadline, self._address.origin)
        with mapped:
            async with sender.open(request, self._timeouts, deadline) as (head, pieces):
                attempts.head = head
                sink = open_sink(head, attempts)
                async for data in pieces:
                    deadline.check()
                    for piece in sink.feed(data):
                        yield piece
                    if sink.done:
                        break
                for piece in sink.end():
                    yield piece
                if sink.done and sender.exact:
                    deadline.finish_within(_LAST_BYTES)
                    with suppress(ServiceError), mapped:  # then only the connection is closed
                        await anext(pieces, None)

    def _wait_after(
        self, error: SequrityError, call: ServiceCall, attempts: RetryState
    ) -> float | None:
        # A parser's exception and the variables of the frames below hold the server's text, which
        # may repeat a key.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        if isinstance(error, ServiceError):
            if attempts.head is not None:
                add_reply_facts(error, attempts.head)
            error.session_id = error.session_id or call.session_id
        self._redactor_for(call).mask_error(error)
        return attempts.wait_after(error)

    def _redactor_for(self, call: ServiceCall) -> Redactor:
        """The redactor with the keys of this call, which may differ from those of the others."""
        values = {
            value.decode("latin-1").removeprefix("Bearer ")
            for name, value in call.headers
            if name.lower() in _KEY_HEADERS
        }
        return self._redactor.with_keys(key for key in values if len(key) >= _SHORTEST_KEY)

    def _sender(self) -> Sender:
        return self._injected or shared_sender(self._env_proxies())

    async def _async_sender(self) -> AsyncSender:
        return self._injected_async or await shared_async_sender(self._env_proxies())

    def _env_proxies(self) -> Proxies:
        if self._proxies is None:
            self._proxies = proxies_for(self._address.url)
        return self._proxies

    def _attempts(self, call: ServiceCall, silence: float | None) -> RetryState:
        deadline = Deadline(self._timeouts.total, silence, self._clock)
        return RetryState(self._retry, deadline, resend=call.resend)

    def __repr__(self) -> str:
        """Show the address only."""
        return f"{type(self).__name__}({str(self._address.url)!r})"

    def __copy__(self) -> Self:
        """Return the same object: it has no state to copy."""
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Return the same object: it has no state to copy."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: the object holds keys."""
        msg = "A `Transport` holds keys and cannot be pickled; make a new one."
        raise TypeError(msg)
