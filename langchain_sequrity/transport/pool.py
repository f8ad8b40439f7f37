"""Connections of our own, without proxies: HTTP/1.1, and per origin a stack of idle ones.

httpx's pool walks over all of its connections whenever one is released, which costs milliseconds
per call at fifty concurrent calls. Here everything takes constant time. httpcore takes a limit per
operation, so a server that sends a byte now and then keeps a call alive for ever; here each read
and write gets the rest of the call's time. Where a proxy applies, `clients` uses httpx's client.
`docs/decisions.md` has the measurements.
"""

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Generic, Self, TypeVar

import httpcore

from langchain_sequrity.transport.http11 import (
    AsyncConnection,
    Connection,
    Head,
    aconnect,
    connect,
)
from langchain_sequrity.transport.requests import Origin, Request
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

MAX_OPEN = 1000
"""Connections to one origin in use at a time; further calls wait as long as `Timeouts.pool`."""

MAX_IDLE = 100
"""Connections to one origin that are kept for later."""
KEEPALIVE = 55.0
"""Seconds for which an idle connection is kept: below the 60 s after which common load balancers
drop one, since a request that crosses the server's closing is lost."""

SSLContextMaker = Callable[[], ssl.SSLContext]
T = TypeVar("T")
C = TypeVar("C", Connection, AsyncConnection)
S = TypeVar("S", threading.BoundedSemaphore, asyncio.BoundedSemaphore)


def _tls(origin: Origin, make: SSLContextMaker) -> ssl.SSLContext | None:
    return make() if origin.scheme == b"https" else None


class IdleStack(Generic[T]):
    """Idle connections of one origin, last used first. Threads may share it.

    Taking the last used keeps few connections warm, so the oldest are all at the bottom and
    nothing has to be searched.

    Args:
        max_idle: How many are kept.
        keepalive: Seconds for which one is kept.
        now: Gives seconds since some moment.
    """

    def __init__(
        self,
        max_idle: int = MAX_IDLE,
        keepalive: float = KEEPALIVE,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._now = now
        self._max_idle = max_idle
        self._keepalive = keepalive
        self._kept: deque[tuple[float, T]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def take(self) -> tuple[T | None, list[T]]:
        """Take the connection that was used last, and those that are to be closed: too old."""
        oldest = self._now() - self._keepalive
        with self._lock:
            if not self._kept:
                return None, []
            since, connection = self._kept.pop()
            if since >= oldest:
                return connection, []
            dropped = [connection, *(one for _, one in self._kept)]  # which are older still
            self._kept.clear()
        return None, dropped

    def put(self, connection: T) -> list[T]:
        """Keep a connection; return those that are to be closed: too old, or too many."""
        now = self._now()
        dropped = []
        with self._lock:
            self._kept.append((now, connection))
            while self._kept and (
                len(self._kept) > self._max_idle or self._kept[0][0] < now - self._keepalive
            ):
                dropped.append(self._kept.popleft()[1])
        return dropped

    def retire(self) -> list[T]:
        """Give all up as `clear` does, and keep none from now on."""
        self._max_idle = 0
        return self.clear()

    def clear(self) -> list[T]:
        """Give all up and return them; they are the caller's to close."""
        with self._lock:
            dropped = [connection for _, connection in self._kept]
            self._kept.clear()
        return dropped


class _OriginPool(Generic[C, S]):
    """All connections to one origin: the idle ones, and slots for those in use."""

    def __init__(self, slots: S, max_idle: int) -> None:
        self.slots: S = slots
        self.idle: IdleStack[C] = IdleStack(max_idle)

    def take(self) -> C | None:
        """An idle connection that still works."""
        while True:
            connection, old = self.idle.take()
            _close_all(old)
            if connection is None or not connection.was_closed():
                return connection
            connection.close()

    def release(self, connection: C) -> None:
        self.slots.release()
        _close_all(self.idle.put(connection) if connection.may_go_on() else (connection,))


def _close_all(connections: Iterable[Connection] | Iterable[AsyncConnection]) -> None:
    for connection in connections:
        connection.close()


# Threads

_SyncOriginPool = _OriginPool[Connection, threading.BoundedSemaphore]


class _Response:
    """A reply on a connection."""

    def __init__(self, head: Head, connection: Connection, pool: _SyncOriginPool) -> None:
        self.status, self.headers = head
        self._connection: Connection | None = connection
        self._pool = pool

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._connection is not None and (data := self._connection.body()):
            return data
        raise StopIteration

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


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
        self._max_open, self._max_idle = max_open, max_idle
        self._pools: dict[Origin, _SyncOriginPool] = {}

    def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> _Response:
        """Send a request and return the reply with its body still to come."""
        origin = request.origin
        pool = self._pools.get(origin)
        if pool is None:
            slots = threading.BoundedSemaphore(self._max_open)
            pool = self._pools.setdefault(origin, _OriginPool(slots, self._max_idle))
        left = deadline.bounded(timeouts.pool, httpcore.PoolTimeout)
        if not pool.slots.acquire(timeout=left):
            raise httpcore.PoolTimeout
        connection = None
        try:
            connection = pool.take()
            if connection is None:
                tls = _tls(origin, self._ssl_context)
                connection = Connection(connect(origin, tls, timeouts, deadline))
            head = connection.send(request, timeouts, deadline)
        except BaseException:
            pool.slots.release()
            if connection is not None:
                connection.close()
            raise
        return _Response(head, connection, pool)

    def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, pool in list(self._pools.items()):
            if origin in (known, None):
                _close_all(pool.idle.clear())

    def close(self) -> None:
        """Close all idle connections."""
        self.close_idle()


# Event loops

_AsyncOriginPool = _OriginPool[AsyncConnection, asyncio.BoundedSemaphore]


class _AsyncResponse:
    """A reply on a connection."""

    def __init__(self, head: Head, connection: AsyncConnection, pool: _AsyncOriginPool) -> None:
        self.status, self.headers = head
        self._connection: AsyncConnection | None = connection
        self._pool = pool

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is not None and (data := await self._connection.body()):
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


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
        self._max_open, self._max_idle = max_open, max_idle
        self._pools: dict[Origin, _AsyncOriginPool] = {}

    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> _AsyncResponse:
        """Send a request and return the reply with its body still to come."""
        origin = request.origin
        pool = self._pools.get(origin)
        if pool is None:
            slots = asyncio.BoundedSemaphore(self._max_open)
            pool = self._pools[origin] = _OriginPool(slots, self._max_idle)
        await _acquire(pool.slots, deadline.bounded(timeouts.pool, httpcore.PoolTimeout))
        connection = None
        try:
            connection = pool.take()
            if connection is None:
                tls = _tls(origin, self._ssl_context)
                stream = await aconnect(origin, tls, timeouts, deadline)
                connection = AsyncConnection(stream, reads_ahead=tls is not None)
            head = await connection.send(request, timeouts, deadline)
        except BaseException:
            pool.slots.release()
            if connection is not None:
                connection.close()
            raise
        return _AsyncResponse(head, connection, pool)

    async def close_idle(self, origin: Origin | None = None) -> None:
        """Close the idle connections to one origin, or to all."""
        for known, pool in list(self._pools.items()):
            if origin in (known, None):
                _close_all(pool.idle.clear())
        await asyncio.sleep(0)  # one turn of the loop later the sockets are closed

    async def aclose(self) -> None:
        """Close the idle connections, and from now on each other one after its call."""
        self._max_idle = 0
        for pool in self._pools.values():
            _close_all(pool.idle.retire())
        await asyncio.sleep(0)  # as above


async def _acquire(slots: asyncio.BoundedSemaphore, timeout: float | None) -> None:  # noqa: ASYNC109  # as httpcore passes limits
    if not slots.locked():
        await slots.acquire()
        return
    try:
        async with asyncio.timeout(timeout):
            await slots.acquire()
    except TimeoutError:
        raise httpcore.PoolTimeout from None
