"""Sockets whose every wait ends at the deadline of the request in progress.

httpcore takes a limit per operation, so a server that sends a byte now and then keeps a call alive
for ever. Here each read and write gets the rest of the call's time instead. A connection carries
one request at a time (HTTP/1.1), so its backend can hold that request's deadline.

httpcore writes head and body of a request one after the other. Here the head waits for the body,
and both leave in one write: a system call costs more than all that is done with a short request.
"""
# ruff: noqa: ASYNC109  # the signatures are those of httpcore, which passes limits as `timeout`

import socket
import ssl
from collections.abc import Iterable
from typing import Any

import anyio
import httpcore

from langchain_sequrity.transport.timeouts import Deadline

_NO_DEADLINE = Deadline()
_END_OF_HEAD = b"\r\n\r\n"
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)  # a turn may be silent for minutes


class Backend(httpcore.NetworkBackend):
    """Opens the socket of one connection; `deadline` is that of the request in progress."""

    def __init__(self) -> None:
        self.deadline = _NO_DEADLINE
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> "_Stream":
        """Connect, with one limit for all addresses of a host.

        The operating system's look-up of the name cannot be given a limit.
        """
        connecting = Deadline(self.deadline.bounded(timeout, httpcore.ConnectTimeout))
        failure: Exception = httpcore.ConnectError(f"the name `{host}` has no address")
        for address in _addresses(host, port):
            left = connecting.bounded(None, httpcore.ConnectTimeout)
            try:
                stream = self._inner.connect_tcp(
                    address, port, left, local_address, socket_options or _KEEPALIVE
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self)
        raise failure


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, backend: Backend) -> None:
        self._inner = inner
        self._backend = backend
        self._head = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._head:
            self.write(b"", timeout)
        left = self._backend.deadline.bounded(timeout, httpcore.ReadTimeout)
        return self._inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._head and buffer.endswith(_END_OF_HEAD):
            self._head = buffer
            return
        waiting, self._head = self._head, b""
        left = self._backend.deadline.bounded(timeout, httpcore.WriteTimeout)
        self._inner.write(waiting + buffer, left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "_Stream":
        left = self._backend.deadline.bounded(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncBackend(httpcore.AsyncNetworkBackend):
    """Opens the socket of one connection; `deadline` is that of the request in progress."""

    def __init__(self) -> None:
        self.deadline = _NO_DEADLINE
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> "_AsyncStream":
        """Connect to whichever address of the host answers first."""
        left = self.deadline.bounded(timeout, httpcore.ConnectTimeout)
        stream = await self._inner.connect_tcp(
            host, port, left, local_address, socket_options or _KEEPALIVE
        )
        return _AsyncStream(stream, self)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream, backend: AsyncBackend) -> None:
        self._inner = inner
        self._backend = backend
        self._head = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._head:
            await self.write(b"", timeout)
        left = self._backend.deadline.bounded(timeout, httpcore.ReadTimeout)
        return await self._inner.read(max_bytes, left)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._head and buffer.endswith(_END_OF_HEAD):
            self._head = buffer
            return
        waiting, self._head = self._head, b""
        left = self._backend.deadline.bounded(timeout, httpcore.WriteTimeout)
        await self._inner.write(waiting + buffer, left)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "_AsyncStream":
        left = self._backend.deadline.bounded(timeout, httpcore.ConnectTimeout)
        try:
            inner = await self._inner.start_tls(ssl_context, server_hostname, left)
        except BaseException:
            # httpcore closes the socket on errors, but not when the task is cancelled.
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise
        return _AsyncStream(inner, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
