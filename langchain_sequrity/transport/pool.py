"""Connections of our own, without proxies: HTTP/1.1, and per origin a stack of idle ones.

httpx's pool walks over all of its connections whenever one is released, which costs milliseconds
per call at fifty concurrent calls. Here everything takes constant time. httpcore takes a limit per
operation, so a server that sends a byte now and then keeps a call alive for ever; here each read
and write gets the rest of the call's time. Where a proxy applies, `clients` uses httpx's client.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

import httpcore

from langchain_sequrity.transport.http11 import Head, Http11
from langchain_sequrity.transport.idle import MAX_IDLE, IdleStack
from langchain_sequrity.transport.network import aconnect, awrite, connect, write
from langchain_sequrity.transport.outgoing import Origin, Outgoing
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

MAX_OPEN = 1000
"""Connections to one origin in use at a time; further calls wait as long as `Timeouts.pool`."""

_MOST_AT_ONCE = 64 * 1024
"""Bytes that are read at a time."""

SSLContextMaker = Callable[[], ssl.SSLContext]


def _tls(origin: Origin, make: SSLContextMaker) -> ssl.SSLContext | None:
    return make() if origin.scheme == b"https" else None


# Threads


class _Line:
    """A connection, with the request and the reply that are on it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._http = Http11()

    def send(self, request: Outgoing, timeouts: Timeouts, deadline: Deadline) -> Head:
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            write(self._stream, self._http.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self._http.sending_failed()
        while (head := self._http.head()) is None:
            self._receive(timeouts, deadline)
        return head

    def body(self, timeouts: Timeouts, deadline: Deadline) -> bytes:
        """The next piece of the reply's body, empty at its end."""
        while (data := self._http.body()) is None:
            self._receive(timeouts, deadline)
        return data

    def _receive(self, timeouts: Timeouts, deadline: Deadline) -> None:
        left = deadline.bounded(timeouts.read, httpcore.ReadTimeout)
        self._http.receive(self._stream.read(_MOST_AT_ONCE, left))

    def may_go_on(self) -> bool:
        """Whether another request may follow."""
        return self._http.next_cycle()

    def was_closed(self) -> bool:
        """Whether the server has closed it: that is all it has to say between two requests."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        self._stream.close()


class _Lines:
    """All lines to one origin."""

    def __init__(self, max_open: int, max_idle: int) -> None:
        self.idle: IdleStack[_Line] = IdleStack(max_idle)
        self.slots = threading.BoundedSemaphore(max_open)

    def release(self, line: _Line) -> None:
        self.slots.release()
        for one in self.idle.put(line) if line.may_go_on() else (line,):
            one.close()


class _Incoming:
    """A reply on a line."""

    def __init__(
        self, head: Head, line: _Line, lines: _Lines, timeouts: Timeouts, deadline: Deadline
    ) -> None:
        self.status, self.headers = head
        self._line: _Line | None = line
        self._lines = lines
        self._timeouts = timeouts
        self._deadline = deadline

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._line is not None and (data := self._line.body(self._timeouts, self._deadline)):
            return data
        raise StopIteration

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._lines.release(line)


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

    def open(self, request: Outgoing, timeouts: Timeouts, deadline: Deadline) -> _Incoming:
        """Send a request and return the reply with its body still to come."""
        origin = request.origin
        lines = self._lines.get(origin)
        if lines is None:
            lines = self._lines.setdefault(origin, _Lines(*self._limits))
        if not lines.slots.acquire(timeout=deadline.bounded(timeouts.pool, httpcore.PoolTimeout)):
            raise httpcore.PoolTimeout
        line = None
        try:
            line = self._idle_line(lines)
            if line is None:
                tls = _tls(origin, self._ssl_context)
                line = _Line(connect(origin, tls, timeouts, deadline))
            head = line.send(request, timeouts, deadline)
        except BaseException:
            lines.slots.release()
            if line is not None:
                line.close()
            raise
        return _Incoming(head, line, lines, timeouts, deadline)

    def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, lines in list(self._lines.items()):
            for line in lines.idle.clear() if origin in (known, None) else ():
                line.close()

    def close(self) -> None:
        """Close all idle connections."""
        self.close_idle()

    def _idle_line(self, lines: _Lines) -> _Line | None:
        while True:
            line, old = lines.idle.take()
            for one in old:
                one.close()
            if line is None or not line.was_closed():
                return line
            line.close()


# Event loops


class _AsyncLine:
    """A connection, with the request and the reply that are on it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, reads_ahead: bool) -> None:
        self._stream = stream
        self._http = Http11()
        self._reads_ahead = reads_ahead

    async def send(self, request: Outgoing, timeouts: Timeouts, deadline: Deadline) -> Head:
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            await awrite(self._stream, self._http.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self._http.sending_failed()
        while (head := self._http.head()) is None:
            await self._receive(timeouts, deadline)
        return head

    async def body(self, timeouts: Timeouts, deadline: Deadline) -> bytes:
        """The next piece of the reply's body, empty at its end."""
        while (data := self._http.body()) is None:
            await self._receive(timeouts, deadline)
        return data

    async def _receive(self, timeouts: Timeouts, deadline: Deadline) -> None:
        left = deadline.bounded(timeouts.read, httpcore.ReadTimeout)
        data = await self._stream.read(_MOST_AT_ONCE, left)
        if len(data) == _MOST_AT_ONCE:
            self._reads_ahead = True
        self._http.receive(data)

    def may_go_on(self) -> bool:
        """Whether another request may follow."""
        return self._http.next_cycle()

    def was_closed(self) -> bool:
        """Whether the server has closed it: that is all it has to say between two requests."""
        is_readable = bool(self._stream.get_extra_info("is_readable"))
        return is_readable or (self._reads_ahead and self._holds_more())

    def _holds_more(self) -> bool:
        """Whether the stream has taken something from the socket that nobody has read.

        It does so where more has come than was asked for, and with TLS, which takes all there is.
        It does not say so; but only if it holds nothing does a read wait for something, instead of
        for one turn of the loop.
        """
        reading = self._stream.read(1).__await__()
        try:
            return next(reading) is None
        except (StopIteration, OSError, httpcore.NetworkError):
            return True
        finally:
            reading.close()

    def close_now(self) -> None:
        """Close without waiting, since what cancelled a task cancels its waits too.

        The socket is closed before `aclose` first waits, which it does for one turn of the loop.
        """
        closing = self._stream.aclose().__await__()
        with suppress(StopIteration):
            next(closing)
        closing.close()


class _AsyncLines:
    """All lines to one origin."""

    def __init__(self, max_open: int, max_idle: int) -> None:
        self.idle: IdleStack[_AsyncLine] = IdleStack(max_idle)
        self.slots = asyncio.BoundedSemaphore(max_open)

    def release(self, line: _AsyncLine) -> None:
        self.slots.release()
        for one in self.idle.put(line) if line.may_go_on() else (line,):
            one.close_now()


class _AsyncIncoming:
    """A reply on a line."""

    def __init__(
        self,
        head: Head,
        line: _AsyncLine,
        lines: _AsyncLines,
        timeouts: Timeouts,
        deadline: Deadline,
    ) -> None:
        self.status, self.headers = head
        self._line: _AsyncLine | None = line
        self._lines = lines
        self._timeouts = timeouts
        self._deadline = deadline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = self._line
        if line is not None and (data := await line.body(self._timeouts, self._deadline)):
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._lines.release(line)


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

    async def open(
        self, request: Outgoing, timeouts: Timeouts, deadline: Deadline
    ) -> _AsyncIncoming:
        """Send a request and return the reply with its body still to come."""
        origin = request.origin
        lines = self._lines.get(origin)
        if lines is None:
            lines = self._lines[origin] = _AsyncLines(*self._limits)
        await _acquire(lines.slots, deadline.bounded(timeouts.pool, httpcore.PoolTimeout))
        line = None
        try:
            line = self._idle_line(lines)
            if line is None:
                tls = _tls(origin, self._ssl_context)
                stream = await aconnect(origin, tls, timeouts, deadline)
                line = _AsyncLine(stream, reads_ahead=tls is not None)
            head = await line.send(request, timeouts, deadline)
        except BaseException:
            lines.slots.release()
            if line is not None:
                line.close_now()
            raise
        return _AsyncIncoming(head, line, lines, timeouts, deadline)

    async def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, lines in list(self._lines.items()):
            if origin in (known, None):
                _close_all(lines.idle.clear())
        await asyncio.sleep(0)  # one turn of the loop later the sockets are closed

    async def aclose(self) -> None:
        """Close the idle connections, and from now on each other one after its call."""
        max_open, _ = self._limits
        self._limits = max_open, 0
        for lines in self._lines.values():
            _close_all(lines.idle.retire())
        await asyncio.sleep(0)  # as above

    def _idle_line(self, lines: _AsyncLines) -> _AsyncLine | None:
        while True:
            line, old = lines.idle.take()
            for one in old:
                one.close_now()
            if line is None or not line.was_closed():
                return line
            line.close_now()


def _close_all(lines: Iterable[_AsyncLine]) -> None:
    for line in lines:
        line.close_now()


async def _acquire(slots: asyncio.BoundedSemaphore, timeout: float | None) -> None:  # noqa: ASYNC109  # as httpcore passes limits
    if not slots.locked():
        await slots.acquire()
        return
    try:
        async with asyncio.timeout(timeout):
            await slots.acquire()
    except TimeoutError:
        raise httpcore.PoolTimeout from None
