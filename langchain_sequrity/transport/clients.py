"""Who sends: a pool for all threads, a pool per event loop, or an httpx client behind a proxy.

All `Transport`s of a process share them. They are made when first used and closed when their
event loop shuts down, so a program may call `asyncio.run` any number of times; a forked child
starts afresh. An injected client is used as it is and never closed.
"""

import asyncio
import atexit
import functools
import os
import ssl
import urllib.request
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar, cast

import httpx

from langchain_sequrity.errors import UsageError
from langchain_sequrity.transport.pool import KEEPALIVE, MAX_IDLE, MAX_OPEN, AsyncPool, Pool
from langchain_sequrity.transport.requests import AsyncSender, Origin, Request, Sender
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.routes import is_loopback

Proxies = tuple[tuple[str, str], ...]
"""The proxy settings of the environment, by scheme; empty where none applies."""


class _Received:
    """A reply that an httpx client has received."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        response = self._response
        # A hook of an injected client may have read the body already.
        pieces = response.iter_bytes() if response.is_closed else response.stream
        return iter(cast("Iterable[bytes]", pieces))

    def close(self) -> None:
        self._response.close()


class _AsyncReceived:
    """A reply that an asynchronous httpx client has received."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        response = self._response
        # A hook of an injected client may have read the body already.
        pieces = response.aiter_bytes() if response.is_closed else response.stream
        return aiter(cast("AsyncIterable[bytes]", pieces))

    async def aclose(self) -> None:
        await self._response.aclose()


class ClientSender:
    """Sends through an httpx client; its own headers, auth and hooks apply.

    Args:
        client: The client. The call's headers and limits go before the client's.
    """

    exact = False

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> "_Received":
        """Send a request and return the reply with its body still to come."""
        built = self._client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"timeout": deadline.clip(timeouts)},
        )
        return _Received(self._client.send(built, stream=True, follow_redirects=False))

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class AsyncClientSender:
    """Sends through an asynchronous httpx client; its own headers, auth and hooks apply.

    Args:
        client: The client. The call's headers and limits go before the client's.
    """

    exact = False

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> "_AsyncReceived":
        """Send a request and return the reply with its body still to come."""
        built = self._client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"timeout": deadline.clip(timeouts)},
        )
        return _AsyncReceived(await self._client.send(built, stream=True, follow_redirects=False))

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


def proxies_for(url: httpx.URL) -> Proxies:
    """The environment's proxy settings, where one of them applies to a URL.

    Args:
        url: The base URL.

    Returns:
        All settings, since httpx reads them all; empty where the URL is reached directly.
    """
    if is_loopback(url.host):
        return ()  # a proxy would read the keys, and look for the server on its own machine
    proxies = urllib.request.getproxies()
    applies = url.scheme in proxies or "all" in proxies
    if not applies or urllib.request.proxy_bypass(url.host):
        return ()
    return tuple(sorted(proxies.items()))


def named_proxy(address: str) -> Proxies:
    """A proxy that the caller names, in the form of the environment's settings."""
    return ((_NAMED, address),)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context()  # reads some 150 certificates: milliseconds
    except OSError as error:
        msg = f"The certificates cannot be read ({error}). Check `SSL_CERT_FILE`."
        raise UsageError(msg) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_cookies() -> CookieJar:
    """A jar that takes nothing: a shared client must not carry cookies from user to user."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


_NAMED = "the proxy that the caller names"
_LIMITS = httpx.Limits(
    max_connections=MAX_OPEN, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEEPALIVE
)
_C = TypeVar("_C", httpx.Client, httpx.AsyncClient)
_senders: dict[Proxies, Pool | ClientSender] = {}


def shared_sender(proxies: Proxies) -> Sender:
    """The sender that all threads share.

    Args:
        proxies: Proxy settings from `proxies_for`; empty for direct connections.
    """
    sender = _senders.get(proxies)
    return sender or _senders.setdefault(proxies, _new_sender(proxies))


def _new_sender(proxies: Proxies) -> Pool | ClientSender:
    if not proxies:
        return Pool(_ssl_context)
    return ClientSender(_client(httpx.Client, proxies))


def _client(kind: type[_C], proxies: Proxies) -> _C:
    """Make a client of httpx, which reads the proxy settings of the environment by itself."""
    proxy = dict(proxies).get(_NAMED)
    try:
        return kind(verify=_ssl_context(), limits=_LIMITS, cookies=_no_cookies(), proxy=proxy)
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        where = "`proxy`" if proxy else "The proxy settings of the environment"
        msg = f"{where} cannot be used: {error}"
        raise UsageError(msg) from None  # what made them holds their passwords


@dataclass(slots=True)
class _LoopSenders:
    """The senders of one event loop, and what closes them with it."""

    senders: dict[Proxies, AsyncPool | AsyncClientSender] = field(default_factory=dict)
    closing: AsyncIterator[None] | None = None


_loops: dict[asyncio.AbstractEventLoop, _LoopSenders] = {}


async def shared_async_sender(proxies: Proxies) -> AsyncSender:
    """The sender of the running event loop.

    Args:
        proxies: Proxy settings from `proxies_for`; empty for direct connections.
    """
    of_loop = _loops.get(asyncio.get_running_loop()) or await _enter_loop()
    sender = of_loop.senders.get(proxies)
    return sender or of_loop.senders.setdefault(proxies, _new_async_sender(proxies))


async def _enter_loop() -> _LoopSenders:
    # A plain dict: in a weak one no entry would ever go, since live connections hold their loop.
    for loop in [loop for loop in list(_loops) if loop.is_closed()]:
        _loops.pop(loop, None)
    loop = asyncio.get_running_loop()
    of_loop = _loops[loop] = _LoopSenders()
    # The loop closes all async generators that were started in it, when it shuts down.
    of_loop.closing = _closing_with(loop, of_loop)
    await anext(of_loop.closing)
    return of_loop


async def _closing_with(
    loop: asyncio.AbstractEventLoop, of_loop: _LoopSenders
) -> AsyncIterator[None]:
    try:
        yield
    finally:
        _loops.pop(loop, None)
        for sender in of_loop.senders.values():
            await sender.aclose()


def _new_async_sender(proxies: Proxies) -> AsyncPool | AsyncClientSender:
    if not proxies:
        return AsyncPool(_ssl_context)
    return AsyncClientSender(_client(httpx.AsyncClient, proxies))


def close_idle(origin: Origin) -> None:
    """Close the threads' idle connections to an origin; calls in progress go on."""
    if isinstance(pool := _senders.get(()), Pool):
        pool.close_idle(origin)


async def aclose_idle(origin: Origin) -> None:
    """Close the running loop's idle connections to an origin; calls in progress go on."""
    of_loop = _loops.get(asyncio.get_running_loop())
    if of_loop is not None and isinstance(pool := of_loop.senders.get(()), AsyncPool):
        await pool.close_idle(origin)


@atexit.register
def _close_all() -> None:
    for sender in _senders.values():
        sender.close()


_inherited: list[object] = []


def _start_afresh() -> None:
    """Forget, in a forked child, what belongs to the parent.

    The child's copies of the threads' sockets are closed as they are dropped. Those of event loops
    stay untouched: their selector is shared with the parent.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        _senders.clear()
    _inherited.append(dict(_loops))
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
