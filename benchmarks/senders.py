"""Senders that could replace our own pool: maintained libraries, each in its cheapest form.

The senders with httpcore's connections on a stack keep the deadline and check for bytes after a
reply, as ours do. The senders with aiohttp exist if it is installed.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Self

import httpcore
import httpx

from langchain_sequrity.transport.http11 import (
    Origin,
    Request,
    _headers,
    aconnect,
    awrite,
    connect,
    write,
)
from langchain_sequrity.transport.pool import (
    KEEPALIVE,
    AsyncClientSender,
    AsyncPool,
    ClientSender,
    OriginPool,
    Pool,
    _acquire,
)
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import Reply

_NOTHING_BEYOND = (b"", False)


class _CallLimits(NamedTuple):
    """The time limits of one call."""

    timeouts: Timeouts
    deadline: Deadline


def _without_tls() -> Any:
    msg = "these senders are measured over plain HTTP"
    raise NotImplementedError(msg)


# Threads: connections of httpcore on a stack


class _Stream(httpcore.NetworkStream):
    """A socket that keeps the deadline of the call, and sends a request in one piece."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._unsent = b""
        self.limits = _CallLimits(Timeouts(), Deadline())
        self.is_broken = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        timeouts, deadline = self.limits
        if self._unsent:
            self._send(timeouts, deadline)
        timeout = deadline.shortened(timeouts.read, httpcore.ReadTimeout)
        return self._stream.read(max_bytes, timeout)

    def _send(self, timeouts: Timeouts, deadline: Deadline) -> None:
        data, self._unsent = self._unsent, b""
        try:
            write(self._stream, data, timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self.is_broken = True

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002  # as httpcore calls it
        self._unsent += buffer

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Connection:
    def __init__(self, origin: Origin, stream: httpcore.NetworkStream) -> None:
        self.stream = _Stream(stream)
        self.http = httpcore.HTTP11Connection(httpcore.Origin(*origin), self.stream)

    def start_next_cycle(self) -> bool:
        # httpcore has no public name for what has come beyond a reply.
        beyond = self.http._h11_state.trailing_data  # noqa: SLF001
        return self.http.is_idle() and not self.stream.is_broken and beyond == _NOTHING_BEYOND

    def was_closed(self) -> bool:
        return bool(self.stream.get_extra_info("is_readable"))

    def close(self) -> None:
        self.http.close()


def _head(response: httpcore.Response) -> Reply:
    headers = _headers((name.lower(), value) for name, value in response.headers)
    return Reply(response.status, headers)


def _asked(request: Request) -> httpcore.Request:
    scheme, host, port = request.origin
    url = httpcore.URL(scheme=scheme, host=host, port=port, target=request.target)
    return httpcore.Request(request.method, url, headers=request.headers, content=request.body)


class _HttpcoreStack:
    """Connections of httpcore to one origin, last used first, without httpx."""

    exact = True

    def __init__(self, max_open: int) -> None:
        self._pool: Any = OriginPool(threading.BoundedSemaphore(max_open), max_open)

    @contextmanager
    def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        limits = _CallLimits(timeouts, deadline)
        with self.send(_asked(request), request.origin, limits) as response:
            yield _head(response), response.iter_stream()

    @contextmanager
    def send(
        self, request: httpcore.Request, origin: Origin, limits: _CallLimits
    ) -> Iterator[httpcore.Response]:
        timeouts, deadline = limits
        left = deadline.shortened(timeouts.pool, httpcore.PoolTimeout)
        if not self._pool.slots.acquire(timeout=left):
            raise httpcore.PoolTimeout
        connection = None
        try:
            connection = self._pool.acquire()
            if connection is None:
                connection = _Connection(origin, connect(origin, None, timeouts, deadline))
            connection.stream.limits = limits
            with closing(connection.http.handle_request(request)) as response:
                yield response
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.retire()


class _Body(httpx.SyncByteStream):
    """The body of a reply for a client of httpx."""

    def __init__(self, sent: AbstractContextManager[httpcore.Response]) -> None:
        self._open = ExitStack()
        self.response = self._open.enter_context(sent)

    def __iter__(self) -> Iterator[bytes]:
        return self.response.iter_stream()

    def close(self) -> None:
        self._open.close()


class _StackTransport(httpx.BaseTransport):
    """The stack as the transport of a client of httpx."""

    def __init__(self, max_open: int) -> None:
        self._stack = _HttpcoreStack(max_open)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, origin = _address(request)
        assert isinstance(request.stream, httpx.SyncByteStream)
        asked = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        body = _Body(self._stack.send(asked, origin, request.extensions["limits"]))
        reply = body.response
        return httpx.Response(reply.status, headers=reply.headers, stream=body)

    def close(self) -> None:
        self._stack.close()


def _address(request: httpx.Request) -> tuple[httpcore.URL, Origin]:
    origin = Origin.from_url(request.url)
    scheme, host, port = origin
    return httpcore.URL(scheme=scheme, host=host, port=port, target=request.url.raw_path), origin


class _Stacked(ClientSender):
    """Passes the limits of each call to the transport of the client."""

    exact = True

    @contextmanager
    def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        with closing(
            self._client.send(_built(self._client, request, timeouts, deadline), stream=True)
        ) as response:
            yield Reply(response.status_code, response.headers), response.iter_raw()


def _built(
    client: httpx.Client | httpx.AsyncClient,
    request: Request,
    timeouts: Timeouts,
    deadline: Deadline,
) -> httpx.Request:
    return client.build_request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.body,
        extensions={"limits": _CallLimits(timeouts, deadline)},
    )


# Event loops: connections of httpcore on a stack


class _AsyncStream(httpcore.AsyncNetworkStream):
    """A socket that keeps the deadline of the call, and sends a request in one piece."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._unsent = b""
        self.limits = _CallLimits(Timeouts(), Deadline())
        self.is_broken = self.reads_ahead = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # as httpcore calls it
        timeouts, deadline = self.limits
        if self._unsent:
            await self._send(timeouts, deadline)
        timeout = deadline.shortened(timeouts.read, httpcore.ReadTimeout)
        data = await self._stream.read(max_bytes, timeout)
        if len(data) == max_bytes:
            self.reads_ahead = True
        return data

    async def _send(self, timeouts: Timeouts, deadline: Deadline) -> None:
        data, self._unsent = self._unsent, b""
        try:
            await awrite(self._stream, data, timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self.is_broken = True

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  # as httpcore calls it
        self._unsent += buffer

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _AsyncConnection:
    def __init__(self, origin: Origin, stream: httpcore.AsyncNetworkStream) -> None:
        self.stream = _AsyncStream(stream)
        self.http = httpcore.AsyncHTTP11Connection(httpcore.Origin(*origin), self.stream)

    def start_next_cycle(self) -> bool:
        # httpcore has no public name for what has come beyond a reply.
        beyond = self.http._h11_state.trailing_data  # noqa: SLF001
        return self.http.is_idle() and not self.stream.is_broken and beyond == _NOTHING_BEYOND

    def was_closed(self) -> bool:
        # Our pool asks a stream that has read ahead. Here such a connection is dropped.
        return self.stream.reads_ahead or bool(self.stream.get_extra_info("is_readable"))

    def close(self) -> None:
        closing = self.http.aclose().__await__()
        with suppress(StopIteration):
            next(closing)
        closing.close()


class _AsyncHttpcoreStack:
    """Connections of httpcore to one origin, last used first, without httpx."""

    exact = True

    def __init__(self, max_open: int) -> None:
        self._pool: Any = OriginPool(asyncio.BoundedSemaphore(max_open), max_open)

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        limits = _CallLimits(timeouts, deadline)
        async with self.send(_asked(request), request.origin, limits) as response:
            yield _head(response), response.aiter_stream()

    @asynccontextmanager
    async def send(
        self, request: httpcore.Request, origin: Origin, limits: _CallLimits
    ) -> AsyncIterator[httpcore.Response]:
        timeouts, deadline = limits
        await _acquire(self._pool.slots, deadline.shortened(timeouts.pool, httpcore.PoolTimeout))
        connection = None
        try:
            connection = self._pool.acquire()
            if connection is None:
                stream = await aconnect(origin, None, timeouts, deadline)
                connection = _AsyncConnection(origin, stream)
            connection.stream.limits = limits
            async with aclosing(await connection.http.handle_async_request(request)) as response:
                yield response
        finally:
            self._pool.release(connection)

    async def aclose(self) -> None:
        self._pool.retire()


class _AsyncBody(httpx.AsyncByteStream):
    """The body of a reply for a client of httpx."""

    def __init__(self, response: httpcore.Response, opened: AsyncExitStack) -> None:
        self._response, self._opened = response, opened

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._opened.aclose()


class _AsyncStackTransport(httpx.AsyncBaseTransport):
    def __init__(self, max_open: int) -> None:
        self._stack = _AsyncHttpcoreStack(max_open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, origin = _address(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        asked = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        opened = AsyncExitStack()
        sent = self._stack.send(asked, origin, request.extensions["limits"])
        reply = await opened.enter_async_context(sent)
        body = _AsyncBody(reply, opened)
        return httpx.Response(reply.status, headers=reply.headers, stream=body)

    async def aclose(self) -> None:
        await self._stack.aclose()


class _AsyncStacked(AsyncClientSender):
    exact = True

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        built = _built(self._client, request, timeouts, deadline)
        async with aclosing(await self._client.send(built, stream=True)) as response:
            yield Reply(response.status_code, response.headers), response.aiter_raw()


# Event loops: a timer around each wait, for libraries without a deadline


class _TimedSender(AsyncClientSender):
    exact = True

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        async with AsyncExitStack() as stack:
            opened = super().open(request, timeouts, deadline)
            try:
                async with asyncio.timeout(deadline.shortened(None, httpcore.ReadTimeout)):
                    head, pieces = await stack.enter_async_context(opened)
            except TimeoutError:
                raise httpcore.ReadTimeout from None
            yield head, _TimedPieces(pieces, deadline)


class _TimedPieces:
    def __init__(self, pieces: AsyncIterator[bytes], deadline: Deadline) -> None:
        self._pieces = pieces
        self._deadline = deadline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._deadline.shortened(None, httpcore.ReadTimeout)):
                return await anext(self._pieces)
        except TimeoutError:
            raise httpcore.ReadTimeout from None


# Event loops: aiohttp, which has its own total limit


class _Aiohttp:
    exact = True

    def __init__(self, max_open: int) -> None:
        aiohttp = import_module("aiohttp")
        self._timeout = aiohttp.ClientTimeout
        self._fault = aiohttp.ClientError
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_open, keepalive_timeout=KEEPALIVE),
            auto_decompress=False,
        )

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        limits = self._timeout(
            total=deadline.shortened(None, httpcore.ReadTimeout),
            sock_connect=timeouts.connect,
            sock_read=timeouts.read,
        )
        try:
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=[(name.decode(), text.decode("latin-1")) for name, text in request.headers],
                data=request.body,
                allow_redirects=False,
                timeout=limits,
            )
        except self._fault as error:
            raise httpcore.NetworkError(str(error)) from error
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            yield Reply(response.status, headers), _AiohttpPieces(response, self._fault)
        finally:
            if response.content.is_eof():
                response.release()
            else:
                response.close()

    async def aclose(self) -> None:
        await self._session.close()


class _AiohttpPieces:
    def __init__(self, response: Any, fault: type[Exception]) -> None:
        self._pieces = response.content.iter_any()
        self._fault = fault

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return bytes(await anext(self._pieces))
        except self._fault as error:
            raise httpcore.NetworkError(str(error)) from error
        except TimeoutError:
            raise httpcore.ReadTimeout from None


def _limits(max_open: int) -> httpx.Limits:
    return httpx.Limits(
        max_connections=max_open, max_keepalive_connections=max_open, keepalive_expiry=KEEPALIVE
    )


def _httpx_aiohttp(max_open: int) -> AsyncClientSender:
    transport = import_module("httpx_aiohttp").AiohttpTransport(limits=_limits(max_open))
    return _TimedSender(httpx.AsyncClient(transport=transport))


OURS = "ours"
HTTPCORE_STACK = "httpcore, stack"
HTTPX_STACK = "httpx, stack"
HTTPX = "httpx"
HTTPX_AIOHTTP = "httpx-aiohttp"
AIOHTTP = "aiohttp"

SENDERS: dict[str, Callable[[int], Any]] = {
    OURS: lambda most: Pool(_without_tls, most, most),
    HTTPCORE_STACK: _HttpcoreStack,
    HTTPX_STACK: lambda most: _Stacked(httpx.Client(transport=_StackTransport(most))),
    HTTPX: lambda most: ClientSender(httpx.Client(limits=_limits(most))),
}
"""Factories of senders for threads. Their argument is the maximum number of connections."""

ASYNC_SENDERS: dict[str, Callable[[int], Any]] = {
    OURS: lambda most: AsyncPool(_without_tls, most, most),
    HTTPCORE_STACK: _AsyncHttpcoreStack,
    HTTPX_STACK: lambda most: _AsyncStacked(
        httpx.AsyncClient(transport=_AsyncStackTransport(most))
    ),
    HTTPX: lambda most: _TimedSender(httpx.AsyncClient(limits=_limits(most))),
    HTTPX_AIOHTTP: _httpx_aiohttp,
    AIOHTTP: _Aiohttp,
}
"""The same for event loops."""

if find_spec("aiohttp") is None or find_spec("httpx_aiohttp") is None:
    del ASYNC_SENDERS[HTTPX_AIOHTTP], ASYNC_SENDERS[AIOHTTP]
