"""HTTP/1.1 on one connection: requests, the protocol, and sockets that keep time limits.

h11 implements the protocol. httpcore uses h11 too, but it takes locks and records traces for each
step of a request, and it reads bytes after a reply as the next reply (`docs/decisions.md`). Here a
request is one piece to send, and a reply is its head and the pieces of its body.
"""

import os
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import anyio
import h11
import httpcore
import httpx

from langchain_sequrity.errors import UsageError
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import Reply, ServiceCall
from langchain_sequrity.wire.routes import normalize_base_url

_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_SOCKETS = httpcore.SyncBackend()
_ASYNC_SOCKETS = httpcore.AnyIOBackend()
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)  # a turn may be silent for minutes
_MAX_HEAD = 100 * 1024
_READ_SIZE = 64 * 1024
"""Most bytes of one read."""
_WRITE_SIZE = 256 * 1024
"""Bytes that an event loop writes before it checks the deadline again."""


# Requests


class Origin(NamedTuple):
    """Scheme, host and port: requests to one origin share its connections."""

    scheme: bytes
    host: bytes
    port: int

    @classmethod
    def from_url(cls, url: httpx.URL) -> "Origin":
        """The origin of an absolute http or https URL."""
        return cls(url.raw_scheme, url.raw_host, url.port or _DEFAULT_PORTS[url.raw_scheme])

    def __str__(self) -> str:
        """The origin as it is written in a URL."""
        scheme, host = self.scheme.decode(), self.host.decode()
        host = f"[{host}]" if ":" in host else host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Its `repr` shows only the address: headers hold keys, and the body is private.

    Attributes:
        url: The whole address.
        target: Path and query of `url`, as they are sent.
        origin: The origin of `url`.
        headers: All headers, as they are sent.
        body: The body.
        method: The HTTP method.
    """

    url: httpx.URL
    target: bytes
    origin: Origin
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = field(default="POST", repr=False)


class ServiceAddress:
    """The address of a service. It makes the requests to that service.

    Args:
        base_url: The address, with or without a `/` at the end.

    Raises:
        UsageError: If it is not the address of an http or https service.
    """

    def __init__(self, base_url: str) -> None:
        self.url = _base_url(base_url)
        self.origin = Origin.from_url(self.url)
        # Compression would cost latency, and a small reply could expand until memory is full.
        self._headers = {b"Host": self.url.netloc, b"Accept-Encoding": b"identity"}
        self._urls: dict[str, tuple[httpx.URL, bytes]] = {}

    def request(self, call: ServiceCall) -> Request:
        """Make the request of a call: its own headers and those that every request needs."""
        urls = self._urls.get(call.path)
        if urls is None:
            url = httpx.URL(f"{self.url}{call.path}")
            urls = self._urls[call.path] = url, url.raw_path
        names = {name.lower() for name, _ in call.headers}
        added = {**self._headers, b"Content-Length": b"%d" % len(call.body)}
        if b"idempotency-key" not in names:
            added[b"Idempotency-Key"] = secrets.token_hex(16).encode()
        headers = [(name, value) for name, value in added.items() if name.lower() not in names]
        headers += call.headers
        return Request(*urls, self.origin, headers, call.body, call.method)


def _base_url(text: str) -> httpx.URL:
    with suppress(httpx.InvalidURL, UnicodeError):  # the latter for a host such as `xn--`
        if (url := httpx.URL(normalize_base_url(text))).host:
            return url
    msg = "`base_url` must be an http(s) URL with the name of a host."
    raise UsageError(msg)


# The protocol, without I/O


class Http11:
    """The state of HTTP/1.1 on one connection, over all its requests."""

    def __init__(self) -> None:
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._limits = Timeouts(), Deadline()

    def request(self, request: Request) -> bytes:
        """The bytes of a request, in one piece: a second system call would cost more.

        Raises:
            httpcore.LocalProtocolError: If the request is not valid HTTP.
        """
        send = self._state.send
        try:
            method, target = request.method.encode(), request.target
            head = send(h11.Request(method=method, target=target, headers=request.headers))
            return head + send(h11.Data(data=request.body)) + send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            raise httpcore.LocalProtocolError from None  # h11's text quotes the header

    def send_failed(self) -> None:
        """Record that a request was sent in part. Its reply may come; no other request follows."""
        self._state.send_failed()

    def receive(self, data: bytes) -> None:
        """Take bytes from the network; no bytes mean that the server has closed the connection.

        Raises:
            httpcore.RemoteProtocolError: If the server closed it before its reply.
        """
        if not data and self._state.their_state is h11.SEND_RESPONSE:
            msg = "Server disconnected without sending a response."
            raise httpcore.RemoteProtocolError(msg)
        self._state.receive_data(data)

    def head(self) -> Reply | None:
        """The head of the reply; `None` until it is complete.

        Raises:
            httpcore.RemoteProtocolError: If it is not HTTP.
        """
        while type(event := self._next()) is h11.InformationalResponse:
            pass
        if event is h11.NEED_DATA:
            return None
        if type(event) is not h11.Response:
            raise _unexpected(event)
        return Reply(event.status_code, _headers(event.headers))

    def body(self) -> bytes | None:
        """The next piece of the body, empty at its end; `None` until more bytes come.

        Raises:
            httpcore.RemoteProtocolError: If it is not HTTP, or incomplete.
        """
        while type(event := self._next()) is h11.Data:
            if event.data:
                return bytes(event.data)
        if event is h11.NEED_DATA:
            return None
        if type(event) is not h11.EndOfMessage:
            raise _unexpected(event)
        return b""

    def start_next_cycle(self) -> bool:
        """Prepare for another request, and return whether one may follow.

        It may not if this exchange is incomplete, or if bytes came after the reply: they would be
        read as the next reply.
        """
        state = self._state
        is_done = state.our_state is state.their_state is h11.DONE
        if not is_done or state.trailing_data != (b"", False):
            return False
        state.start_next_cycle()
        return True

    def _next(self) -> object:
        try:
            return self._state.next_event()
        except h11.RemoteProtocolError as error:
            raise httpcore.RemoteProtocolError(str(error)) from error


def _headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for key, value in fields:
        name, text = key.decode("ascii"), _text(value)
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _unexpected(event: object) -> httpcore.RemoteProtocolError:
    return httpcore.RemoteProtocolError(f"{type(event).__name__} where a reply was expected")


# Threads


def connect(
    origin: Origin, tls: ssl.SSLContext | None, timeouts: Timeouts, deadline: Deadline
) -> httpcore.NetworkStream:
    """Connect to an origin. One limit covers the look-up of its host, all addresses, and TLS.

    Args:
        origin: Where to connect.
        tls: The TLS context; `None` without TLS.
        timeouts: `connect` is the limit.
        deadline: The deadline of the call.
    """
    connecting = deadline.within(timeouts.connect, httpcore.ConnectTimeout)
    host = origin.host.decode("ascii")
    failure: Exception = httpcore.ConnectError(f"the name `{host}` has no address")
    addresses = _addresses(host, origin.port, connecting.shortened(None, httpcore.ConnectTimeout))
    for address in addresses:
        limit = connecting.shortened(None, httpcore.ConnectTimeout)
        try:
            stream = _SOCKETS.connect_tcp(address, origin.port, limit, socket_options=_KEEPALIVE)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            failure = error
        else:
            if tls is None:
                return stream
            try:
                limit = connecting.shortened(None, httpcore.ConnectTimeout)
                return stream.start_tls(tls, host, limit)
            except BaseException:
                stream.close()
                raise
    raise failure


_lookups: dict[tuple[int, str, int], Future[list[str]]] = {}
"""Look-ups in progress, by process, host and port. A fork does not have its parent's threads."""


def _addresses(host: str, port: int, timeout: float | None) -> list[str]:
    """Look up a host.

    The operating system sets its own limit, often half a minute, and cannot be interrupted. So a
    thread waits for it. Calls to one host share a look-up, so that a system that does not answer
    holds one thread and not one for each call.
    """
    key = (os.getpid(), host, port)
    new = Future[list[str]]()
    lookup = _lookups.setdefault(key, new)
    if lookup is new:
        try:
            threading.Thread(target=_look_up, args=(key,), daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            _lookups.pop(key).set_exception(OSError(str(error)))
    try:
        return lookup.result(timeout)
    except TimeoutError as error:
        msg = f"no answer to the look-up of `{host}`"
        raise httpcore.ConnectTimeout(msg) from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error


def _look_up(key: tuple[int, str, int]) -> None:
    _, host, port = key
    try:
        results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(sockaddr[0]) for *_, sockaddr in results]
    except Exception as error:  # noqa: BLE001 - the calls that wait raise it
        _lookups.pop(key).set_exception(error)
    else:
        _lookups.pop(key).set_result(addresses)


def write(
    stream: httpcore.NetworkStream, data: bytes, timeouts: Timeouts, deadline: Deadline
) -> None:
    """Write a whole request. httpcore would start the limit again with each piece.

    Args:
        stream: Where to write.
        data: The request.
        timeouts: `write` is the limit.
        deadline: The deadline of the call.
    """
    connection: socket.socket = stream.get_extra_info("socket")
    writing = deadline.within(timeouts.write, httpcore.WriteTimeout)
    rest = memoryview(data)
    try:
        while rest:
            connection.settimeout(writing.shortened(None, httpcore.WriteTimeout))
            rest = rest[connection.send(rest) :]
    except TimeoutError as error:
        raise httpcore.WriteTimeout from error
    except OSError as error:
        raise httpcore.WriteError from error


class Http11Connection(Http11):
    """A connection of threads. It carries one request and its reply at a time."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        super().__init__()
        self._stream = stream

    def send(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Reply:
        """Send a request and return the head of its reply. The limits hold for the body too."""
        self._limits = timeouts, deadline
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            write(self._stream, self.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read the whole request
            self.send_failed()
        while (head := self.head()) is None:
            self._receive()
        return head

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the reply's body."""
        while (data := self.body()) != b"":
            if data is None:
                self._receive()
            else:
                yield data

    def _receive(self) -> None:
        timeouts, deadline = self._limits
        limit = deadline.shortened(timeouts.read, httpcore.ReadTimeout)
        self.receive(self._stream.read(_READ_SIZE, limit))

    def was_closed(self) -> bool:
        """Whether the server has closed it, the only thing to read between two requests."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()


# Event loops


async def aconnect(
    origin: Origin, tls: ssl.SSLContext | None, timeouts: Timeouts, deadline: Deadline
) -> httpcore.AsyncNetworkStream:
    """Connect to the address of an origin's host that answers first; see `connect`."""
    connecting = deadline.within(timeouts.connect, httpcore.ConnectTimeout)
    host = origin.host.decode("ascii")
    limit = connecting.shortened(None, httpcore.ConnectTimeout)
    stream = await _ASYNC_SOCKETS.connect_tcp(host, origin.port, limit, socket_options=_KEEPALIVE)
    if tls is None:
        return stream
    try:
        limit = connecting.shortened(None, httpcore.ConnectTimeout)
        return await stream.start_tls(tls, host, limit)
    except BaseException:
        # httpcore closes the socket on errors, but not when the task is cancelled.
        with anyio.CancelScope(shield=True):
            await stream.aclose()
        raise


async def awrite(
    stream: httpcore.AsyncNetworkStream, data: bytes, timeouts: Timeouts, deadline: Deadline
) -> None:
    """Write a whole request; see `write`."""
    writing = deadline.within(timeouts.write, httpcore.WriteTimeout)
    for first in range(0, len(data), _WRITE_SIZE):
        limit = writing.shortened(None, httpcore.WriteTimeout)
        await stream.write(data[first : first + _WRITE_SIZE], limit)


class AsyncHttp11Connection(Http11):
    """A connection of one event loop. It carries one request and its reply at a time.

    Iterating gives the pieces of the reply's body. A generator for them would outlive a cancelled
    call until the loop closes it.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, reads_ahead: bool) -> None:
        super().__init__()
        self._stream = stream
        self._reads_ahead = reads_ahead

    async def send(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Reply:
        """Send a request and return the head of its reply. The limits hold for the body too."""
        self._limits = timeouts, deadline
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            await awrite(self._stream, self.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read the whole request
            self.send_failed()
        while (head := self.head()) is None:
            await self._receive()
        return head

    def __aiter__(self) -> Self:
        """The connection itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the reply's body."""
        while (data := self.body()) is None:
            await self._receive()
        if not data:
            raise StopAsyncIteration
        return data

    async def _receive(self) -> None:
        timeouts, deadline = self._limits
        limit = deadline.shortened(timeouts.read, httpcore.ReadTimeout)
        data = await self._stream.read(_READ_SIZE, limit)
        if len(data) == _READ_SIZE:
            self._reads_ahead = True
        self.receive(data)

    def was_closed(self) -> bool:
        """Whether the server has closed it, the only thing to read between two requests."""
        is_readable = bool(self._stream.get_extra_info("is_readable"))
        return is_readable or (self._reads_ahead and self._has_unread_bytes())

    def _has_unread_bytes(self) -> bool:
        """Whether the stream holds bytes of the socket that nobody has read.

        This happens if more bytes came than one read took, and with TLS, which reads all there is.
        The stream does not report it. But a read waits for something only if the stream holds
        nothing; otherwise it waits for one turn of the loop.
        """
        reading = self._stream.read(1).__await__()
        try:
            return next(reading) is None
        except (StopIteration, OSError, httpcore.NetworkError):
            return True
        finally:
            reading.close()

    def close(self) -> None:
        """Close without waiting: the cancellation of a task would cancel a wait too.

        `aclose` closes the socket before it waits for one turn of the loop.
        """
        closing = self._stream.aclose().__await__()
        with suppress(StopIteration):
            next(closing)
        closing.close()
