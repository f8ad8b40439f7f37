"""Connections of our own, without proxies: HTTP/1.1, and per origin a stack of idle ones.

httpx's pool walks over all of its connections whenever one is released, which costs milliseconds
per call at fifty concurrent calls. Here everything takes constant time, and each wait ends at the
call's deadline. Where a proxy applies, `clients` uses httpx's own client.
"""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, cast

import httpcore
import httpx

from langchain_sequrity.transport.idle import KEEPALIVE, MAX_IDLE, IdleStack
from langchain_sequrity.transport.network import AsyncBackend, Backend
from langchain_sequrity.transport.outgoing import Origin, Outgoing
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

MAX_OPEN = 1000
"""Connections to one origin in use at a time; further calls wait as long as `Timeouts.pool`."""

SSLContextMaker = Callable[[], ssl.SSLContext]


def _core_request(request: Outgoing, timeouts: Timeouts) -> httpcore.Request:
    limits = {"timeout": timeouts.by_operation()}
    core = httpcore.Request(b"POST", request.core_url, content=request.body, extensions=limits)
    core.headers = request.headers  # bytes already, of which httpcore would make sure
    return core


class _Line(NamedTuple):
    connection: httpcore.HTTPConnection
    backend: Backend


class _Lines:
    """All lines to one origin."""

    def __init__(self, max_open: int, max_idle: int) -> None:
        self.idle: IdleStack[_Line] = IdleStack(max_idle)
        self.slots = threading.BoundedSemaphore(max_open)


class Pool:
    """Connections for synchronous calls, shared by all threads.

    Args:
        ssl_context: Makes the TLS context; called for https only.
        max_open: Connections to one origin in use at a time.
        max_idle: Connections to one origin that are kept for later.
    """

    exact = True

    def __init__(
        self, ssl_context: SSLContextMaker, max_open: int = MAX_OPEN, max_idle: int = MAX_IDLE
    ) -> None:
        self._ssl_context = ssl_context
        self._limits = max_open, max_idle
        self._lines: dict[Origin, _Lines] = {}

    def open(self, request: Outgoing, timeouts: Timeouts, deadline: Deadline) -> httpx.Response:
        """Send a request and return the reply with its body still to come."""
        lines = self._lines.get(request.origin)
        if lines is None:
            lines = self._lines.setdefault(request.origin, _Lines(*self._limits))
        if not lines.slots.acquire(timeout=deadline.bounded(timeouts.pool, httpcore.PoolTimeout)):
            raise httpcore.PoolTimeout
        line = None
        try:
            line = self._idle_line(lines) or self._new_line(request.origin)
            line.backend.deadline = deadline
            reply = line.connection.handle_request(_core_request(request, timeouts))
        except BaseException:
            lines.slots.release()
            if line is not None:
                line.connection.close()
            raise
        body = _Body(reply, lambda: self._release(lines, line))
        return httpx.Response(reply.status, headers=reply.headers, stream=body)

    def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, lines in list(self._lines.items()):
            for line in lines.idle.clear() if origin in (known, None) else ():
                line.connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        self.close_idle()

    def _idle_line(self, lines: _Lines) -> _Line | None:
        while (line := lines.idle.take()) is not None:
            if not line.connection.has_expired():
                return line
            line.connection.close()
        return None

    def _new_line(self, origin: Origin) -> _Line:
        backend = Backend()
        connection = httpcore.HTTPConnection(
            httpcore.Origin(*origin),
            self._ssl_context() if origin.scheme == b"https" else None,
            keepalive_expiry=KEEPALIVE,
            network_backend=backend,
        )
        return _Line(connection, backend)

    def _release(self, lines: _Lines, line: _Line) -> None:
        lines.slots.release()
        if line.connection.is_available():
            for old in lines.idle.put(line):
                old.connection.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, reply: httpcore.Response, release: Callable[[], None]) -> None:
        self._reply = reply
        self._release = release

    def __iter__(self) -> Iterator[bytes]:
        return iter(cast("Iterator[bytes]", self._reply.stream))

    def close(self) -> None:
        try:
            self._reply.close()
        finally:
            self._release()


class _AsyncLine(NamedTuple):
    connection: httpcore.AsyncHTTPConnection
    backend: AsyncBackend


class _AsyncLines:
    """All lines to one origin."""

    def __init__(self, max_open: int, max_idle: int) -> None:
        self.idle: IdleStack[_AsyncLine] = IdleStack(max_idle)
        self.slots = asyncio.BoundedSemaphore(max_open)


class AsyncPool:
    """Connections for asynchronous calls of one event loop.

    Args:
        ssl_context: Makes the TLS context; called for https only.
        max_open: Connections to one origin in use at a time.
        max_idle: Connections to one origin that are kept for later.
    """

    exact = True

    def __init__(
        self, ssl_context: SSLContextMaker, max_open: int = MAX_OPEN, max_idle: int = MAX_IDLE
    ) -> None:
        self._ssl_context = ssl_context
        self._limits = max_open, max_idle
        self._lines: dict[Origin, _AsyncLines] = {}
        self._keeps = True

    async def open(
        self, request: Outgoing, timeouts: Timeouts, deadline: Deadline
    ) -> httpx.Response:
        """Send a request and return the reply with its body still to come."""
        lines = self._lines.get(request.origin)
        if lines is None:
            lines = self._lines[request.origin] = _AsyncLines(*self._limits)
        await _acquire(lines.slots, deadline.bounded(timeouts.pool, httpcore.PoolTimeout))
        line = None
        try:
            line = self._idle_line(lines) or self._new_line(request.origin)
            line.backend.deadline = deadline
            reply = await line.connection.handle_async_request(_core_request(request, timeouts))
        except BaseException:
            lines.slots.release()
            if line is not None:
                _close_now(line.connection)
            raise
        body = _AsyncBody(reply, lambda: self._release(lines, line))
        return httpx.Response(reply.status, headers=reply.headers, stream=body)

    async def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, lines in list(self._lines.items()):
            for line in lines.idle.clear() if origin in (known, None) else ():
                await line.connection.aclose()

    async def aclose(self) -> None:
        """Close the idle connections, and from now on each other one after its call."""
        self._keeps = False
        await self.close_idle()

    def _idle_line(self, lines: _AsyncLines) -> _AsyncLine | None:
        while (line := lines.idle.take()) is not None:
            if not line.connection.has_expired():
                return line
            _close_now(line.connection)
        return None

    def _new_line(self, origin: Origin) -> _AsyncLine:
        backend = AsyncBackend()
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(*origin),
            self._ssl_context() if origin.scheme == b"https" else None,
            keepalive_expiry=KEEPALIVE,
            network_backend=backend,
        )
        return _AsyncLine(connection, backend)

    def _release(self, lines: _AsyncLines, line: _AsyncLine) -> None:
        lines.slots.release()
        if self._keeps and line.connection.is_available():
            for old in lines.idle.put(line):
                _close_now(old.connection)
        else:
            _close_now(line.connection)


def _close_now(connection: httpcore.AsyncHTTPConnection) -> None:
    """Close without waiting, since what cancelled a task cancels its waits too.

    The socket is closed before `aclose` first waits, which it does for one turn of the loop only.
    """
    closing = connection.aclose()
    with suppress(StopIteration):
        closing.send(None)
    closing.close()


async def _acquire(slots: asyncio.BoundedSemaphore, timeout: float | None) -> None:  # noqa: ASYNC109  # as httpcore passes limits
    if not slots.locked():
        await slots.acquire()
        return
    try:
        async with asyncio.timeout(timeout):
            await slots.acquire()
    except TimeoutError:
        raise httpcore.PoolTimeout from None


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, reply: httpcore.Response, release: Callable[[], None]) -> None:
        self._reply = reply
        self._release = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(cast("AsyncIterator[bytes]", self._reply.stream))

    async def aclose(self) -> None:
        try:
            await self._reply.aclose()
        finally:
            self._release()
