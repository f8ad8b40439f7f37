"""HTTP/1.1 of one connection, fed by hand; no I/O.

h11 knows the protocol. httpcore, which knows it through h11 too, keeps locks and traces for each
step of a request, which cost half as much again; here a request is one piece to send, and a reply
its head and the pieces of its body.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import h11
import httpcore

from langchain_sequrity.transport.outgoing import Outgoing

_MAX_HEAD = 100 * 1024


class Head(NamedTuple):
    """The head of a reply; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]


class Http11:
    """What is said on one connection, from one request to the next."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def request(self, request: Outgoing) -> bytes:
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
