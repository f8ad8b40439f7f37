"""`Transport`: sends a `Call` and returns what a reader makes of the reply.

A whole reply is treated as a stream of one piece, so there are two loops in all: over the attempts
of a call, and over the bytes of a reply; each exists once for threads and once for event loops.
What is decided in them lives in `retry` (again or not), `replies` (what the bytes mean) and
`faults` (what an exception of the network means).
"""

from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterator,
)
from contextlib import aclosing, suppress
from typing import Any, NoReturn, Self, TypeVar

import anyio
import httpx

from langchain_sequrity.errors import SequrityError, ServiceError
from langchain_sequrity.transport.clients import (
    AsyncClientSender,
    ClientSender,
    Proxies,
    aclose_idle,
    close_idle,
    named_proxy,
    proxies_for,
    shared_async_sender,
    shared_sender,
)
from langchain_sequrity.transport.faults import MappedErrors
from langchain_sequrity.transport.redaction import Redactor
from langchain_sequrity.transport.replies import OpenSink, complete, open_stream, open_whole
from langchain_sequrity.transport.requests import (
    Address,
    AsyncResponse,
    AsyncSender,
    Request,
    Response,
    Sender,
    head_of,
)
from langchain_sequrity.transport.retry import Attempts, RetryPolicy
from langchain_sequrity.transport.timeouts import CLOCK, Clock, Deadline, Timeouts
from langchain_sequrity.wire.exchange import Call, Reply, StreamReader

T = TypeVar("T")

_KEY_HEADERS = (b"authorization", b"x-api-key")
_KEY = 8
"""Shorter keys are words that texts have anyway, such as the one for a local server."""
_LAST_BYTES = 0.05
"""Seconds that the end of a finished stream may take, for its connection to be used again."""


class Transport:
    """Sends calls to one service.

    It keeps nothing of a conversation, so threads and event loops share it freely. Making one is
    cheap: connections belong to the process and are opened when first needed.

    Args:
        base_url: Address of the service, such as `https://api.sequrity.ai`.
        timeouts: Limits of each call.
        retry: When a failed call is sent again.
        secrets: The caller's keys. Where a server echoes one, or 8 characters of it,
            errors show `***`.
        http_client: Used for synchronous calls instead of the shared connections, with its own
            proxies, headers, auth and hooks; it is never closed here.
        http_async_client: The same for asynchronous calls.
        proxy: Address of a proxy, in the place of those of the environment.
        clock: Where time comes from, for limits and waits.

    Raises:
        UsageError: If `base_url` is not the address of an http or https service.

    Example:
        ```python
        from langchain_sequrity.transport import Transport
        from langchain_sequrity.wire.exchange import Call

        transport = Transport("https://api.sequrity.ai")
        call = Call("/control/chat/v1/chat/completions", headers=(), body=b"{}")
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
        self._address = Address(base_url)
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._redactor = Redactor(secrets)
        self._injected = ClientSender(http_client) if http_client else None
        self._injected_async = AsyncClientSender(http_async_client) if http_async_client else None
        self._proxies: Proxies | None = None if proxy is None else named_proxy(proxy)
        self._clock = clock

    def send(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Send a call and read the whole reply.

        Args:
            call: What to send.
            read: Reads a reply of status 2xx. It may raise `ServiceError`, which counts like one
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

    async def asend(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Send a call and read the whole reply; see `send`."""
        (value,) = [value async for value in self._arun(call, open_whole(read), silence=None)]
        return value

    def stream(
        self, call: Call, new_reader: Callable[[], StreamReader[T]]
    ) -> Generator[T, None, None]:
        """Send a call and read the reply as it comes.

        Args:
            call: What to send.
            new_reader: Makes the reader of one attempt.

        Yields:
            What the reader makes of the events, or of the whole reply where the service does not
            stream. Closing the generator closes the connection.

        Raises:
            ServiceError: After the last attempt. Nothing is sent again after the first piece.
            UsageError: If the headers are not valid HTTP.
        """
        return self._run(call, open_stream(new_reader), silence=self._timeouts.silence)

    def astream(
        self, call: Call, new_reader: Callable[[], StreamReader[T]]
    ) -> AsyncGenerator[T, None]:
        """Send a call and read the reply as it comes; see `stream`."""
        return self._arun(call, open_stream(new_reader), silence=self._timeouts.silence)

    def close(self) -> None:
        """Close the idle connections of threads to this service. Later calls open new ones."""
        close_idle(self._address.origin)

    async def aclose(self) -> None:
        """Close the running loop's idle connections to this service; later calls open new ones."""
        await aclose_idle(self._address.origin)

    def _run(
        self, call: Call, open_sink: OpenSink[T], *, silence: float | None
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
        self, call: Call, open_sink: OpenSink[T], *, silence: float | None
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
        self, request: Request, attempts: Attempts, open_sink: OpenSink[T]
    ) -> Generator[T, None, None]:
        sender, deadline = self._sender(), attempts.deadline
        with MappedErrors(deadline, self._address.origin):
            response = sender.open(request, self._timeouts, deadline)
        try:
            attempts.head = head = head_of(response)
            sink = open_sink(head, attempts)
            received = self._received(response, deadline)
            for data in received:
                yield from sink.feed(data)
                if sink.done:
                    break
            yield from sink.end()
            if sink.done and sender.exact:
                deadline.finish_within(_LAST_BYTES)
                with suppress(ServiceError):  # then the connection is closed, that is all
                    next(received, None)
        finally:
            response.close()

    async def _aattempt(
        self, request: Request, attempts: Attempts, open_sink: OpenSink[T]
    ) -> AsyncGenerator[T, None]:
        sender, deadline = await self._async_sender(), attempts.deadline
        with MappedErrors(deadline, self._address.origin):
            response = await sender.open(request, self._timeouts, deadline)
        try:
            attempts.head = head = head_of(response)
            sink = open_sink(head, attempts)
            async with aclosing(self._areceived(response, deadline)) as received:
                async for data in received:
                    for piece in sink.feed(data):
                        yield piece
                    if sink.done:
                        break
                for piece in sink.end():
                    yield piece
                if sink.done and sender.exact:
                    deadline.finish_within(_LAST_BYTES)
                    with suppress(ServiceError):  # then the connection is closed, that is all
                        await anext(received, None)
        finally:
            # anyio cancels a task again at each await; the connection must be given back.
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _wait_after(self, error: SequrityError, call: Call, attempts: Attempts) -> float | None:
        # A parser's exception and the variables of the frames below hold what the server said,
        # with whatever it echoed.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        if isinstance(error, ServiceError):
            if attempts.head is not None:
                complete(error, attempts.head)
            error.session_id = error.session_id or call.session_id
        self._redactor_for(call).clean(error)
        return attempts.wait_after(error)

    def _redactor_for(self, call: Call) -> Redactor:
        """The redactor, which knows the keys of the call also where they are its own alone."""
        found = {
            value.decode("latin-1").removeprefix("Bearer ")
            for name, value in call.headers
            if name.lower() in _KEY_HEADERS
        }
        return self._redactor.knowing(key for key in found if len(key) >= _KEY)

    def _received(self, response: Response, deadline: Deadline) -> Iterator[bytes]:
        with MappedErrors(deadline, self._address.origin):
            for data in response:
                deadline.check()
                yield data

    async def _areceived(
        self, response: AsyncResponse, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        with MappedErrors(deadline, self._address.origin):
            async for data in response:
                deadline.check()
                yield data

    def _sender(self) -> Sender:
        return self._injected or shared_sender(self._env_proxies())

    async def _async_sender(self) -> AsyncSender:
        return self._injected_async or await shared_async_sender(self._env_proxies())

    def _env_proxies(self) -> Proxies:
        if self._proxies is None:
            self._proxies = proxies_for(self._address.url)
        return self._proxies

    def _attempts(self, call: Call, silence: float | None) -> Attempts:
        deadline = Deadline(self._timeouts.total, silence, self._clock)
        return Attempts(self._retry, deadline, resend=call.resend)

    def __repr__(self) -> str:
        """Show the address only."""
        return f"{type(self).__name__}({str(self._address.url)!r})"

    def __copy__(self) -> Self:
        """Return the same object: there is nothing of its own to copy."""
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Return the same object: there is nothing of its own to copy."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: it holds keys."""
        msg = "A `Transport` holds keys and cannot be pickled; make a new one."
        raise TypeError(msg)
