"""One connection: a socket that keeps limits, and HTTP/1.1 on it.

h11 knows the protocol. httpcore knows it through h11 too, but keeps locks and traces for each step
of a request, and reads what follows a reply as the next one (`docs/decisions.md`). Here a request
is one piece to send, and a reply its head and the pieces of its body.
"""

import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import anyio
import h11
import httpcore

from langchain_sequrity.transport.requests import Origin, Request
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

_SOCKETS = httpcore.SyncBackend()
_ASYNC_SOCKETS = httpcore.AnyIOBackend()
_PIECE = 256 * 1024
"""Bytes that an event loop writes before it looks at the clock again."""
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)  # a turn may be silent for minutes
_MAX_HEAD = 100 * 1024
_MOST_AT_ONCE = 64 * 1024
"""Bytes that are read at a time."""


# The protocol, without I/O


class Head(NamedTuple):
    """The head of a reply; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]


class Http11:
    """What is said on one connection, from one request to the next."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def request(self, request: Request) -> bytes:
        """The bytes of a request, in one piece: a system call costs more than all this.

        Raises:
            httpcore.LocalProtocolError: If it is not valid HTTP.
        """
        send = self._state.send
        try:
            method, target = request.method.encode(), request.target
            head = send(h11.Request(method=method, target=target, headers=request.headers))
            return head + send(h11.Data(data=request.body)) + send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            raise httpcore.LocalProtocolError from None  # its text quotes the header

    def sending_failed(self) -> None:
        """Not all of the request went out: its reply may still come, but no other request goes."""
        self._state.send_failed()

    def receive(self, data: bytes) -> None:
        """Take bytes from the network; an empty piece says that the server has closed.

        Raises:
            httpcore.RemoteProtocolError: If it has closed before its reply.
        """
        if not data and self._state.their_state is h11.SEND_RESPONSE:
            msg = "Server disconnected without sending a response."
            raise httpcore.RemoteProtocolError(msg)
        self._state.receive_data(data)

    def head(self) -> Head | None:
        """The head of the reply; `None` while bytes of it are missing.

        Raises:
            httpcore.RemoteProtocolError: If it is not HTTP.
        """
        while type(event := self._next()) is h11.InformationalResponse:
            pass
        if event is h11.NEED_DATA:
            return None
        if type(event) is not h11.Response:
            raise _unexpected(event)
        return Head(event.status_code, _headers(event.headers))

    def body(self) -> bytes | None:
        """The next piece of the body, empty at its end; `None` while bytes are missing.

        Raises:
            httpcore.RemoteProtocolError: If it is not HTTP, or cut short.
        """
        while type(event := self._next()) is h11.Data:
            if event.data:
                return bytes(event.data)
        if event is h11.NEED_DATA:
            return None
        if type(event) is not h11.EndOfMessage:
            raise _unexpected(event)
        return b""

    def next_cycle(self) -> bool:
        """Whether another request may follow; all is ready for it then.

        It may not where anything is missing of this one, or has come beyond it: that would be
        taken for the beginning of the next reply.
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


def _headers(found: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for key, value in found:
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
    """Connect to an origin, with one limit for all addresses of its host and for TLS.

    The operating system's look-up of the name cannot be given a limit.

    Args:
        origin: Where to.
        tls: The TLS context; `None` without TLS.
        timeouts: `connect` of them is the limit.
        deadline: That of the call.
    """
    connecting = deadline.within(deadline.bounded(timeouts.connect, httpcore.ConnectTimeout))
    host = origin.host.decode("ascii")
    failure: Exception = httpcore.ConnectError(f"the name `{host}` has no address")
    for address in _addresses(host, origin.port):
        left = connecting.bounded(None, httpcore.ConnectTimeout)
        try:
            stream = _SOCKETS.connect_tcp(address, origin.port, left, socket_options=_KEEPALIVE)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            failure = error
        else:
            if tls is None:
                return stream
            try:
                left = connecting.bounded(None, httpcore.ConnectTimeout)
                return stream.start_tls(tls, host, left)
            except BaseException:
                stream.close()
                raise
    raise failure


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


def write(
    stream: httpcore.NetworkStream, data: bytes, timeouts: Timeouts, deadline: Deadline
) -> None:
    """Write all of a request. httpcore's own writing starts the limit anew with each piece.

    Args:
        stream: Where to.
        data: What.
        timeouts: `write` of them is the limit.
        deadline: That of the call.
    """
    connection: socket.socket = stream.get_extra_info("socket")
    writing = deadline.within(deadline.bounded(timeouts.write, httpcore.WriteTimeout))
    rest = memoryview(data)
    try:
        while rest:
            connection.settimeout(writing.bounded(None, httpcore.WriteTimeout))
            rest = rest[connection.send(rest) :]
    except TimeoutError as error:
        raise httpcore.WriteTimeout from error
    except OSError as error:
        raise httpcore.WriteError from error


class Connection:
    """A connection, with the request and the reply that are on it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._http = Http11()
        self._limits = Timeouts(), Deadline()

    def send(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Head:
        """Send a request and return the head of its reply. The limits hold for the body too."""
        self._limits = timeouts, deadline
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            write(self._stream, self._http.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self._http.sending_failed()
        while (head := self._http.head()) is None:
            self._receive()
        return head

    def body(self) -> bytes:
        """The next piece of the reply's body, empty at its end."""
        while (data := self._http.body()) is None:
            self._receive()
        return data

    def _receive(self) -> None:
        timeouts, deadline = self._limits
        left = deadline.bounded(timeouts.read, httpcore.ReadTimeout)
        self._http.receive(self._stream.read(_MOST_AT_ONCE, left))

    def may_go_on(self) -> bool:
        """Whether another request may follow."""
        return self._http.next_cycle()

    def was_closed(self) -> bool:
        """Whether the server has closed it: that is all it has to say between two requests."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()


# Event loops


async def aconnect(
    origin: Origin, tls: ssl.SSLContext | None, timeouts: Timeouts, deadline: Deadline
) -> httpcore.AsyncNetworkStream:
    """Connect to whichever address of an origin's host answers first; see `connect`."""
    connecting = deadline.within(deadline.bounded(timeouts.connect, httpcore.ConnectTimeout))
    host = origin.host.decode("ascii")
    left = connecting.bounded(None, httpcore.ConnectTimeout)
    stream = await _ASYNC_SOCKETS.connect_tcp(host, origin.port, left, socket_options=_KEEPALIVE)
    if tls is None:
        return stream
    try:
        left = connecting.bounded(None, httpcore.ConnectTimeout)
        return await stream.start_tls(tls, host, left)
    except BaseException:
        # httpcore closes the socket on errors, but not when the task is cancelled.
        with anyio.CancelScope(shield=True):
            await stream.aclose()
        raise


async def awrite(
    stream: httpcore.AsyncNetworkStream, data: bytes, timeouts: Timeouts, deadline: Deadline
) -> None:
    """Write all of a request; see `write`."""
    writing = deadline.within(deadline.bounded(timeouts.write, httpcore.WriteTimeout))
    for first in range(0, len(data), _PIECE):
        left = writing.bounded(None, httpcore.WriteTimeout)
        await stream.write(data[first : first + _PIECE], left)


class AsyncConnection:
    """A connection, with the request and the reply that are on it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, reads_ahead: bool) -> None:
        self._stream = stream
        self._http = Http11()
        self._reads_ahead = reads_ahead
        self._limits = Timeouts(), Deadline()

    async def send(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Head:
        """Send a request and return the head of its reply. The limits hold for the body too."""
        self._limits = timeouts, deadline
        try:  # no variable holds the bytes: tracebacks would show the keys in them
            await awrite(self._stream, self._http.request(request), timeouts, deadline)
        except httpcore.WriteError:  # a server may answer before it has read everything
            self._http.sending_failed()
        while (head := self._http.head()) is None:
            await self._receive()
        return head

    async def body(self) -> bytes:
        """The next piece of the reply's body, empty at its end."""
        while (data := self._http.body()) is None:
            await self._receive()
        return data

    async def _receive(self) -> None:
        timeouts, deadline = self._limits
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

    def close(self) -> None:
        """Close without waiting, since what cancelled a task cancels its waits too.

        The socket is closed before `aclose` first waits, which it does for one turn of the loop.
        """
        closing = self._stream.aclose().__await__()
        with suppress(StopIteration):
            next(closing)
        closing.close()
