"""The connections of the process: pools of our own, and httpx clients where a proxy applies.

All `Transport`s share one pool for threads and one for each event loop. A pool is made at its first
use. The pool of an event loop closes when that loop shuts down, so a program may call `asyncio.run`
any number of times. A forked child starts with new pools. A client that the caller passes is used
as it is and never closed.

httpx's pool scans all of its connections at each release, which costs milliseconds per call at
fifty concurrent calls. Here every operation takes constant time. httpcore takes a limit per
operation, so a server that sends a byte now and then keeps a call alive without end; here each read
and write gets the rest of the call's time. `docs/decisions.md` has the measurements.
"""

import asyncio
import atexit
import functools
import os
import ssl
import threading
import urllib.request
import warnings
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Generic, TypeVar, cast

import anyio
import httpcore
import httpx

from langchain_sequrity.errors import UsageError
from langchain_sequrity.transport.http11 import (
    AsyncHttp11Connection,
    Http11Connection,
    Origin,
    Request,
    aconnect,
    connect,
)
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import Reply
from langchain_sequrity.wire.routes import is_loopback

MAX_OPEN = 1000
"""Connections to one origin in use at a time. Further calls wait as long as `Timeouts.pool`."""
MAX_IDLE = 100
"""Idle connections to one origin that are kept."""
KEEPALIVE = 55.0
"""Seconds for which an idle connection is kept. Common load balancers close one after 60 s, and a
request that is sent while they do so is lost."""

SSLContextMaker = Callable[[], ssl.SSLContext]
C = TypeVar("C", Http11Connection, AsyncHttp11Connection)
S = TypeVar("S", threading.BoundedSemaphore, asyncio.BoundedSemaphore)


class OriginPool(Generic[C, S]):
    """The connections to one origin: slots for those in use, and a stack of idle ones.

    The connection that was used last is taken first. So few connections stay in use, the oldest are
    all at the bottom of the stack, and no operation searches. Threads may share it.

    Args:
        slots: Limits the connections in use at a time.
        max_idle: How many idle connections are kept.
        now: A clock that gives seconds.
    """

    def __init__(self, slots: S, max_idle: int, now: Callable[[], float] = monotonic) -> None:
        self.slots: S = slots
        self._max_idle = max_idle
        self._now = now
        self._idle: deque[tuple[float, C]] = deque()
        self._lock = threading.Lock()

    def acquire(self) -> C | None:
        """The connection that was used last, if it still works; broken and old ones are closed."""
        oldest = self._now() - KEEPALIVE
        with self._lock:
            while self._idle:
                since, connection = self._idle.pop()
                if since >= oldest and not connection.was_closed():
                    return connection
                connection.close()
        return None

    def release(self, connection: C | None) -> None:
        """Give back a slot, and keep the connection if another request may follow on it."""
        self.slots.release()
        if connection is None:
            return
        if not connection.start_next_cycle():
            connection.close()
            return
        now = self._now()
        with self._lock:
            self._idle.append((now, connection))
            while self._idle and (
                len(self._idle) > self._max_idle or self._idle[0][0] < now - KEEPALIVE
            ):
                self._idle.popleft()[1].close()

    def clear(self) -> None:
        """Close all idle connections."""
        with self._lock:
            while self._idle:
                self._idle.pop()[1].close()

    def retire(self) -> None:
        """Close all idle connections, and keep none from now on."""
        self._max_idle = 0
        self.clear()


class _OriginPools(Generic[C, S]):
    """The connections to all origins.

    Args:
        ssl_context: Makes the TLS context. It is called for https only.
        max_open: Connections to one origin in use at a time.
        max_idle: Idle connections to one origin that are kept.

    Attributes:
        exact: Each single wait ends at the deadline.
    """

    exact = True

    def __init__(
        self, ssl_context: SSLContextMaker, max_open: int = MAX_OPEN, max_idle: int = MAX_IDLE
    ) -> None:
        self._ssl_context = ssl_context
        self._max_open, self._max_idle = max_open, max_idle
        self._pools: dict[Origin, OriginPool[C, S]] = {}

    def _pool(self, origin: Origin, new_slots: Callable[[int], S]) -> OriginPool[C, S]:
        if (pool := self._pools.get(origin)) is not None:
            return pool
        new = OriginPool[C, S](new_slots(self._max_open), self._max_idle)
        return self._pools.setdefault(origin, new)

    def _tls(self, origin: Origin) -> ssl.SSLContext | None:
        return self._ssl_context() if origin.scheme == b"https" else None

    def clear(self, origin: Origin) -> None:
        """Close the idle connections to an origin. Calls in progress continue."""
        if pool := self._pools.get(origin):
            pool.clear()


class Pool(_OriginPools[Http11Connection, threading.BoundedSemaphore]):
    """Connections of synchronous calls, shared by all threads; see `_OriginPools`."""

    @contextmanager
    def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """Send a request; gives the head of the reply and the pieces of its body."""
        pool = self._pool(request.origin, threading.BoundedSemaphore)
        limit = deadline.shortened(timeouts.pool, httpcore.PoolTimeout)
        if not pool.slots.acquire(timeout=limit):
            raise httpcore.PoolTimeout
        connection = None
        try:
            connection, head = pool.acquire(), None
            if connection is not None:
                head = connection.send(request, timeouts, deadline)
                if _is_late(head):
                    connection.close()
                    connection = None
            if connection is None or head is None:
                stream = connect(request.origin, self._tls(request.origin), timeouts, deadline)
                connection = Http11Connection(stream)
                head = connection.send(request, timeouts, deadline)
            yield head, iter(connection)
        finally:
            pool.release(connection)

    def close(self) -> None:
        """Close all idle connections."""
        for origin in list(self._pools):
            self.clear(origin)


class AsyncPool(_OriginPools[AsyncHttp11Connection, asyncio.BoundedSemaphore]):
    """Connections of asynchronous calls in one event loop; see `_OriginPools`."""

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Send a request; gives the head of the reply and the pieces of its body."""
        pool = self._pool(request.origin, asyncio.BoundedSemaphore)
        await _acquire(pool.slots, deadline.shortened(timeouts.pool, httpcore.PoolTimeout))
        connection = None
        try:
            connection, head = pool.acquire(), None
            if connection is not None:
                head = await connection.send(request, timeouts, deadline)
                if _is_late(head):
                    connection.close()
                    connection = None
            if connection is None or head is None:
                tls = self._tls(request.origin)
                stream = await aconnect(request.origin, tls, timeouts, deadline)
                connection = AsyncHttp11Connection(stream, reads_ahead=tls is not None)
                head = await connection.send(request, timeouts, deadline)
            yield head, connection
        finally:
            pool.release(connection)

    async def aclose(self) -> None:
        """Close the idle connections, and from now on each other connection after its call."""
        self._max_idle = 0
        for pool in self._pools.values():
            pool.retire()
        await asyncio.sleep(0)  # one turn of the loop later the sockets are closed


def _is_late(head: Reply) -> bool:
    """Whether a reply on a connection that had been idle is about the idle time.

    Load balancers send 408 and close the connection. If a request is on its way at that moment, it
    was not read, and may be sent again on another connection (RFC 9110, section 15.5.9).
    """
    closes = "close" in head.headers.get("connection", "").lower()
    return head.status == HTTPStatus.REQUEST_TIMEOUT and closes


async def _acquire(slots: asyncio.BoundedSemaphore, timeout: float | None) -> None:  # noqa: ASYNC109  # as httpcore passes limits
    if not slots.locked():
        await slots.acquire()
        return
    try:
        async with asyncio.timeout(timeout):
            await slots.acquire()
    except TimeoutError:
        raise httpcore.PoolTimeout from None


# Clients of httpx


class ClientSender:
    """Sends through an httpx client. The client's own headers, auth and hooks apply.

    Args:
        client: The client. The call's headers and limits take precedence over the client's.

    Attributes:
        exact: Single waits may end after the deadline.
    """

    exact = False

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @contextmanager
    def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """Send a request; gives the head of the reply and the pieces of its body."""
        built = _build_request(self._client, request, timeouts, deadline)
        response = self._client.send(built, stream=True, follow_redirects=False)
        try:
            # A hook of the caller's client may have read the body already.
            pieces = response.iter_bytes() if response.is_closed else response.stream
            head = Reply(response.status_code, response.headers)
            yield head, iter(cast("Iterable[bytes]", pieces))
        finally:
            response.close()

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class AsyncClientSender:
    """Sends through an asynchronous httpx client; see `ClientSender`."""

    exact = False

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Send a request; gives the head of the reply and the pieces of its body."""
        built = _build_request(self._client, request, timeouts, deadline)
        response = await self._client.send(built, stream=True, follow_redirects=False)
        try:
            # A hook of the caller's client may have read the body already.
            pieces = response.aiter_bytes() if response.is_closed else response.stream
            head = Reply(response.status_code, response.headers)
            yield head, aiter(cast("AsyncIterable[bytes]", pieces))
        finally:
            # anyio cancels a task again at each await, but the connection must be given back.
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _build_request(
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
        extensions={"timeout": deadline.shorten_all(timeouts)},
    )


# Proxies, and the senders that calls share


Sender = Pool | ClientSender
AsyncSender = AsyncPool | AsyncClientSender
Proxies = tuple[tuple[str, str], ...]
"""The proxy settings of the environment, by scheme; empty where none applies."""

_EXPLICIT = "the proxy that the caller names"
"""Key of a proxy that the caller names. `explicit_proxy` in the environment must not set it."""
_LIMITS = httpx.Limits(
    max_connections=MAX_OPEN, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEEPALIVE
)
_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)
_senders: dict[Proxies, Sender] = {}


def proxies_for(url: httpx.URL) -> Proxies:
    """The environment's proxy settings, if one of them applies to a URL.

    Args:
        url: The base URL.

    Returns:
        All settings, since httpx reads them all; empty if the URL is reached directly.
    """
    if is_loopback(url.host):
        return ()  # a proxy would see the keys, and look for the server on its own machine
    proxies = urllib.request.getproxies()
    applies = url.scheme in proxies or "all" in proxies
    if not applies or urllib.request.proxy_bypass(url.host):
        return ()
    return tuple(sorted(proxies.items()))


def explicit_proxy(address: str) -> Proxies:
    """A proxy that the caller names, in the form of the environment's settings."""
    return ((_EXPLICIT, address),)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context()  # reads some 150 certificates: milliseconds
    except OSError as error:
        msg = f"The certificates cannot be read ({error}). Check `SSL_CERT_FILE`."
        raise UsageError(msg) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _client(client_class: type[_Client], proxies: Proxies) -> _Client:
    """Make an httpx client, which reads the proxy settings of the environment itself."""
    proxy = dict(proxies).get(_EXPLICIT)
    # A shared client must not carry cookies from user to user.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    try:
        return client_class(verify=_ssl_context(), limits=_LIMITS, cookies=cookies, proxy=proxy)
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        source = "`proxy`" if proxy else "The proxy settings of the environment"
        msg = f"{source} cannot be used: {error}"
        raise UsageError(msg) from None  # the cause holds their passwords


def shared_sender(proxies: Proxies) -> Sender:
    """The sender that all threads share.

    Args:
        proxies: Proxy settings; empty for direct connections.
    """
    return _senders.get(proxies) or _senders.setdefault(proxies, _new_sender(proxies))


def _new_sender(proxies: Proxies) -> Sender:
    return ClientSender(_client(httpx.Client, proxies)) if proxies else Pool(_ssl_context)


_LoopSenders = tuple[dict[Proxies, AsyncSender], AsyncIterator[None]]
"""The senders of one event loop, and the generator that closes them with the loop."""

_loops: dict[asyncio.AbstractEventLoop, _LoopSenders] = {}


async def shared_async_sender(proxies: Proxies) -> AsyncSender:
    """The sender of the running event loop.

    Args:
        proxies: Proxy settings; empty for direct connections.
    """
    senders, _ = _loops.get(asyncio.get_running_loop()) or await _senders_of_loop()
    return senders.get(proxies) or senders.setdefault(proxies, _new_async_sender(proxies))


def _new_async_sender(proxies: Proxies) -> AsyncSender:
    if proxies:
        return AsyncClientSender(_client(httpx.AsyncClient, proxies))
    return AsyncPool(_ssl_context)


async def _senders_of_loop() -> _LoopSenders:
    # A plain dict: a weak one would never lose an entry, since live connections hold their loop.
    for loop in [loop for loop in list(_loops) if loop.is_closed()]:
        _loops.pop(loop, None)
    loop = asyncio.get_running_loop()
    senders: dict[Proxies, AsyncSender] = {}
    # At its shutdown the loop closes all async generators that were started in it.
    closing = _close_with(loop, senders)
    _loops[loop] = senders, closing
    await anext(closing)
    return senders, closing


async def _close_with(
    loop: asyncio.AbstractEventLoop, senders: Mapping[Proxies, AsyncSender]
) -> AsyncIterator[None]:
    try:
        yield
    finally:
        _loops.pop(loop, None)
        for sender in senders.values():
            await sender.aclose()


def close_idle(origin: Origin) -> None:
    """Close the idle connections of threads to an origin. Calls in progress continue."""
    if isinstance(pool := _senders.get(()), Pool):
        pool.clear(origin)


async def aclose_idle(origin: Origin) -> None:
    """Close the running loop's idle connections to an origin. Calls in progress continue."""
    of_loop = _loops.get(asyncio.get_running_loop())
    if of_loop is not None and isinstance(pool := of_loop[0].get(()), AsyncPool):
        pool.clear(origin)
        await asyncio.sleep(0)  # as above


@atexit.register
def _close_all() -> None:
    for sender in _senders.values():
        sender.close()


_inherited: list[object] = []


def _forget_parent() -> None:
    """Forget, in a forked child, the connections of the parent.

    The child's copies of the threads' sockets are closed when they are dropped. Those of event
    loops are kept untouched: the child shares their selector with the parent.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        _senders.clear()
    _inherited.append(dict(_loops))
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
