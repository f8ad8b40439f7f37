"""Connecting: TCP, and TLS on top, both within one limit. Writing, within one limit too."""

import socket
import ssl

import anyio
import httpcore

from langchain_sequrity.transport.outgoing import Origin
from langchain_sequrity.transport.timeouts import Deadline, Timeouts

_SOCKETS = httpcore.SyncBackend()
_ASYNC_SOCKETS = httpcore.AnyIOBackend()
_PIECE = 256 * 1024
"""Bytes that an event loop writes before it looks at the clock again."""
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)  # a turn may be silent for minutes


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
