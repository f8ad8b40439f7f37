"""Senders that could replace our own pool: maintained libraries, each in its cheapest form.

The senders with httpcore's connections on a stack keep the deadline and check for bytes after a
reply, as ours do. The senders with aiohttp exist if it is installed.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
    IdleStack,
    Pool,
    _acquire,
    _AsyncClientResponse,
    _ClientResponse,
)
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

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
        timeout = deadline.bounded(timeouts.read, httpcore.ReadTimeout)
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

    def may_go_on(self) -> bool:
        # httpcore has no public name for what has come beyond a reply.
        beyond = self.http._h11_state.trailing_data  # noqa: SLF001
        return self.http.is_idle() and not self.stream.is_broken and beyond == _NOTHING_BEYOND

    def was_closed(self) -> bool:
        return bool(self.stream.get_extra_info("is_readable"))


class _Reply(httpx.SyncByteStream):
    """A reply whose body is not read yet, for our transport and for a client of httpx."""

    def __init__(
        self, response: httpcore.Response, connection: _Connection, stack: "_HttpcoreStack"
    ) -> None:
        self.response = response
        self.status = response.status
        self._connection: _Connection | None = connection
        self._stack = stack

    @property
    def headers(self) -> dict[str, str]:
        return _headers((name.lower(), value) for name, value in self.response.headers)

    def __iter__(self) -> Iterator[bytes]:
        return self.response.iter_stream()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.response.close()
            self._stack.release(connection)


class _HttpcoreStack:
    """Connections of httpcore to one origin, last used first, without httpx."""

    exact = True

    def __init__(self, max_open: int) -> None:
        self._idle: IdleStack[_Connection] = IdleStack(max_open)
        self._slots = threading.BoundedSemaphore(max_open)

    def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> _Reply:
        origin = request.origin
        url = httpcore.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, target=request.target
        )
        asked = httpcore.Request(request.method, url, headers=request.headers, content=request.body)
        return self.send(asked, origin, _CallLimits(timeouts, deadline))

    def send(self, request: httpcore.Request, origin: Origin, limits: _CallLimits) -> _Reply:
        timeouts, deadline = limits
        left = deadline.bounded(timeouts.pool, httpcore.PoolTimeout)
        if not self._slots.acquire(timeout=left):
            raise httpcore.PoolTimeout
        connection = None
        try:
            connection = self._idle_connection()
            if connection is None:
                connection = _Connection(origin, connect(origin, None, timeouts, deadline))
            connection.stream.limits = limits
            response = connection.http.handle_request(request)
        except BaseException:
            self._slots.release()
            if connection is not None:
                connection.http.close()
            raise
        return _Reply(response, connection, self)

    def release(self, connection: _Connection) -> None:
        self._slots.release()
        old = self._idle.put(connection) if connection.may_go_on() else [connection]
        for one in old:
            one.http.close()

    def close(self) -> None:
        for one in self._idle.retire():
            one.http.close()

    def _idle_connection(self) -> _Connection | None:
        while True:
            connection, old = self._idle.take()
            for one in old:
                one.http.close()
            if connection is None or not connection.was_closed():
                return connection
            connection.http.close()


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
        reply = self._stack.send(asked, origin, request.extensions["limits"])
        return httpx.Response(reply.status, headers=reply.response.headers, stream=reply)

    def close(self) -> None:
        self._stack.close()


def _address(request: httpx.Request) -> tuple[httpcore.URL, Origin]:
    origin = Origin.of(request.url)
    scheme, host, port = origin
    return httpcore.URL(scheme=scheme, host=host, port=port, target=request.url.raw_path), origin


class _Stacked(ClientSender):
    """Passes the limits of each call to the transport of the client."""

    exact = True

    def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Any:
        built = self._client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"limits": _CallLimits(timeouts, deadline)},
        )
        return _ClientResponse(self._client.send(built, stream=True))


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
        timeout = deadline.bounded(timeouts.read, httpcore.ReadTimeout)
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

    def may_go_on(self) -> bool:
        # httpcore has no public name for what has come beyond a reply.
        beyond = self.http._h11_state.trailing_data  # noqa: SLF001
        return self.http.is_idle() and not self.stream.is_broken and beyond == _NOTHING_BEYOND

    def was_closed(self) -> bool:
        # Our pool asks a stream that has read ahead. Here such a connection is dropped.
        return self.stream.reads_ahead or bool(self.stream.get_extra_info("is_readable"))


class _AsyncReply(httpx.AsyncByteStream):
    def __init__(
        self,
        response: httpcore.Response,
        connection: _AsyncConnection,
        stack: "_AsyncHttpcoreStack",
    ) -> None:
        self.response = response
        self.status = response.status
        self._connection: _AsyncConnection | None = connection
        self._stack = stack

    @property
    def headers(self) -> dict[str, str]:
        return _headers((name.lower(), value) for name, value in self.response.headers)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.response.aiter_stream()

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self.response.aclose()
            finally:
                await self._stack.release(connection)


class _AsyncHttpcoreStack:
    """Connections of httpcore to one origin, last used first, without httpx."""

    exact = True

    def __init__(self, max_open: int) -> None:
        self._idle: IdleStack[_AsyncConnection] = IdleStack(max_open)
        self._slots = asyncio.BoundedSemaphore(max_open)

    async def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> _AsyncReply:
        origin = request.origin
        url = httpcore.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, target=request.target
        )
        asked = httpcore.Request(request.method, url, headers=request.headers, content=request.body)
        return await self.send(asked, origin, _CallLimits(timeouts, deadline))

    async def send(
        self, request: httpcore.Request, origin: Origin, limits: _CallLimits
    ) -> _AsyncReply:
        timeouts, deadline = limits
        left = deadline.bounded(timeouts.pool, httpcore.PoolTimeout)
        if not self._slots.locked():
            await self._slots.acquire()
        else:
            await _acquire(self._slots, left)
        connection = None
        try:
            connection = await self._idle_connection()
            if connection is None:
                stream = await aconnect(origin, None, timeouts, deadline)
                connection = _AsyncConnection(origin, stream)
            connection.stream.limits = limits
            response = await connection.http.handle_async_request(request)
        except BaseException:
            self._slots.release()
            if connection is not None:
                await connection.http.aclose()
            raise
        return _AsyncReply(response, connection, self)

    async def release(self, connection: _AsyncConnection) -> None:
        self._slots.release()
        old = self._idle.put(connection) if connection.may_go_on() else [connection]
        for one in old:
            await one.http.aclose()

    async def aclose(self) -> None:
        for one in self._idle.retire():
            await one.http.aclose()

    async def _idle_connection(self) -> _AsyncConnection | None:
        while True:
            connection, old = self._idle.take()
            for one in old:
                await one.http.aclose()
            if connection is None or not connection.was_closed():
                return connection
            await connection.http.aclose()


class _AsyncStackTransport(httpx.AsyncBaseTransport):
    def __init__(self, max_open: int) -> None:
        self._stack = _AsyncHttpcoreStack(max_open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, origin = _address(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        asked = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        reply = await self._stack.send(asked, origin, request.extensions["limits"])
        return httpx.Response(reply.status, headers=reply.response.headers, stream=reply)

    async def aclose(self) -> None:
        await self._stack.aclose()


class _AsyncStacked(AsyncClientSender):
    exact = True

    async def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Any:
        built = self._client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"limits": _CallLimits(timeouts, deadline)},
        )
        return _AsyncClientResponse(await self._client.send(built, stream=True))


# Event loops: a timer around each wait, for libraries without a deadline


class _TimedSender(AsyncClientSender):
    exact = True

    async def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Any:
        try:
            async with asyncio.timeout(deadline.bounded(None, httpcore.ReadTimeout)):
                return _TimedReply(await super().open(request, timeouts, deadline), deadline)
        except TimeoutError:
            raise httpcore.ReadTimeout from None


class _TimedReply:
    def __init__(self, reply: _AsyncClientResponse, deadline: Deadline) -> None:
        self.status, self.headers = reply.status, reply.headers
        self._reply = reply
        self._pieces = aiter(reply)
        self._deadline = deadline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._deadline.bounded(None, httpcore.ReadTimeout)):
                return await anext(self._pieces)
        except TimeoutError:
            raise httpcore.ReadTimeout from None

    async def aclose(self) -> None:
        await self._reply.aclose()


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

    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> "_AiohttpReply":
        limits = self._timeout(
            total=deadline.bounded(None, httpcore.ReadTimeout),
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
        return _AiohttpReply(response, self._fault)

    async def aclose(self) -> None:
        await self._session.close()


class _AiohttpReply:
    def __init__(self, response: Any, fault: type[Exception]) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
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

    async def aclose(self) -> None:
        response = self._response
        if response.content.is_eof():
            response.release()
        else:
            response.close()


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
