"""Connections of a server: their number, their time limits, and what their clients did not read.

A connection is closed if its client does not send a head in time, or takes nothing of its reply. If
there are too many connections, the next clients wait in the system's queue, and nobody is refused.
Meanwhile replies end their connections, and connections without a request are closed.
"""

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from struct import Struct
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_sequrity.local.framing import StrictConnection
from langchain_sequrity.local.limits import MemoryBudget, ServerLimits, has_room
from langchain_sequrity.local.refusals import how_to_raise, refuse

_logger = logging.getLogger("langchain_sequrity.local")
_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
}
_INT = Struct("i")
_HEADS = "heads"  # owner of the memory of heads that are not complete
_READ = 64 * 1024  # bytes that are received at once; asyncio would take four times as many
_PIECE = 2_048  # bytes; chunks of one byte in so many take a few milliseconds
_SHORT_LINE = 64  # bytes
_LONGEST_PAUSE = 1.0  # seconds between two looks at all connections
# A connection without a request for so long may be closed if others wait. In a shorter time a
# client might not have been able to send one.
_SECONDS_TO_SEND = 0.5
_RETRY_SECONDS = 0.1
_BATCH = 8  # of so many connections one is closed at a time


class Phase(Enum):
    """What a connection waits for. If others wait, it is closed in this order."""

    REQUEST = auto()  # the next one, of which nothing has come
    REST = auto()  # the rest of a body whose request was answered
    HEAD = auto()
    REPLY = auto()  # it is never closed for others


class Connection(H11Protocol):
    """uvicorn's protocol on a strict connection with time limits.

    The app finds it as `scope["state"]["connection"]`.

    Args:
        connections: All connections of the server.
        args: Arguments of uvicorn's protocol.
        kwargs: The same.

    Attributes:
        phase: What it waits for.
        since: Since when, as the event loop's time.
    """

    def __init__(self, connections: "Connections", *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}
        self.conn: StrictConnection = StrictConnection(connections.limits)
        self.phase = Phase.HEAD
        self.since = self._delivered_at = self.loop.time()
        self._delivered = 0
        self._all = connections
        self._charged = 0  # bytes of an incomplete head
        self._rest = bytearray()  # what was received, and is read later

    # Of the app

    @property
    def unread(self) -> int:
        """Bytes of replies that the system has not taken yet, because the client does not read."""
        return self.transport.get_write_buffer_size()

    async def all_read(self) -> None:
        """Wait until the system has taken all replies, or the connection is lost."""
        await self.flow.drain()

    @contextmanager
    def body_expected(self, owner: str) -> Iterator[None]:
        """Read a body within the block. Nothing happens if it has arrived already.

        Args:
            owner: Digest of the bearer.

        Raises:
            StatusError: 429 if connections of this bearer that wait for bodies are so many that too
                few are left for others.
        """
        if self.conn.their_state is not h11.SEND_BODY:
            yield
            return
        self._all.expect_body(owner)
        try:
            yield
        finally:
            self._all.expected_bodies -= Counter((owner,))

    @property
    def should_close(self) -> bool:
        """Whether a reply should end the connection, because others wait for one."""
        return self._all.are_awaited

    # Of asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        # So the app waits until the system has taken each part of a reply. What it has not taken
        # is never more than one part.
        transport.set_write_buffer_limits(0)
        if hasattr(transport, "max_size"):  # of asyncio's own loop
            transport.max_size = _READ
        super().connection_made(transport)
        self._all.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._charge(0)
        self._all.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read what a client sent.

        Many short lines may be chunks of one byte. They are read in pieces, and others are served
        between two pieces.
        """
        if self._rest:
            self._rest += data
            self.transport.pause_reading()
        elif len(data) > _PIECE and data.count(b"\n") > len(data) // _SHORT_LINE:
            self._rest += data
            self.transport.pause_reading()
            self._read_piece()
        else:
            self._read(data)

    def _read_piece(self) -> None:
        piece = bytes(self._rest[:_PIECE])
        del self._rest[:_PIECE]
        if self.transport.is_closing():
            self._rest.clear()
            return
        self._read(piece)
        if self._rest:
            self.loop.call_soon(self._read_piece)
        elif not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _read(self, data: bytes) -> None:
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Go on after a reply."""
        super().on_response_complete()
        self._update()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be read, in the JSON form of all errors."""
        del msg  # always the same text of uvicorn
        self._refuse(*self.conn.refusal)

    # Phases

    def _update(self) -> None:
        unparsed = self.conn.unparsed
        if self.cycle is not None and not self.cycle.response_complete:
            phase = Phase.REPLY
        elif self.conn.their_state is not h11.IDLE:
            phase = Phase.REST
        else:
            phase = Phase.HEAD if unparsed or self.cycle is None else Phase.REQUEST
        if phase is not self.phase:
            self.phase, self.since = phase, self.loop.time()
        if not self._charge(unparsed) and not self.transport.is_closing():
            self._refuse(429, "Other requests use most of the server's memory. Try again.")

    def _charge(self, unparsed: int) -> bool:
        is_granted = self._all.budget.charge(unparsed - self._charged, _HEADS)
        if is_granted:
            self._charged = unparsed
        return is_granted

    def look(self, now: float) -> None:
        """Close the connection if its time is over."""
        limits, unread = self._all.limits, self.unread
        delivered = self.conn.bytes_written - unread
        if unread:
            delivered -= _queued_by_system(self.transport.get_extra_info("socket"))
        if not unread or delivered > self._delivered:
            self._delivered, self._delivered_at = delivered, now
        elif now - self._delivered_at > limits.write_seconds:
            self.transport.abort()
        waited = now - self.since
        if self.transport.is_closing():
            return
        if self.phase is Phase.HEAD and waited > limits.head_seconds and not self._charged:
            self.transport.close()  # nothing has come
        elif self.phase is Phase.HEAD and waited > limits.head_seconds:
            self._refuse(
                408,
                f"The head of the request did not arrive within {limits.head_seconds:g} s. "
                f"{how_to_raise('head_seconds')}",
            )
        elif self.phase is Phase.REST and waited > limits.body_seconds:
            self.transport.close()

    def give_up(self) -> None:
        """Close the connection because others wait."""
        self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer unless another reply was begun, and close the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the app cannot answer any more
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = orjson.dumps({"detail": detail, "message": detail})
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
            events = (head, h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


class Connections:
    """All connections of a server.

    Args:
        limits: The limits of the server.
        budget: The memory that all requests share.

    Attributes:
        limits: The same.
        budget: The same.
        are_awaited: Whether there are as many as there may be, and a client waits.
        expected_bodies: How many wait for the rest of a body, by the bearer of the request. They
            are not closed for others, so no bearer may have too many of them.
    """

    def __init__(self, limits: ServerLimits, budget: MemoryBudget) -> None:
        self.limits = limits
        self.budget = budget
        self.are_awaited = False
        self.expected_bodies: Counter[str] = Counter()
        self._most = min(limits.connections, _allowed_by_system(limits.connections))
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._has_changed = asyncio.Event()

    def opened(self, connection: Connection) -> None:
        """Add a connection."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        self._open.discard(connection)
        self._has_changed.set()

    def expect_body(self, owner: str) -> None:
        """Count a connection that waits for a body.

        Args:
            owner: Digest of the bearer.

        Raises:
            StatusError: 429 if this bearer has too many of them.
        """
        held, free = self.expected_bodies[owner], self._most - self.expected_bodies.total()
        if held and not has_room(1, held=held, free=free):
            refuse(
                429,
                f"{held} requests of this key wait for the rest of their bodies. Other connections "
                f"are for other keys. Try again. {how_to_raise('connections')}",
                retry_after=1,
            )
        self.expected_bodies[owner] += 1

    async def accept(
        self, listener: socket.socket, new_connection: Callable[[], asyncio.Protocol]
    ) -> None:
        """Accept connections until this is cancelled.

        Args:
            listener: The listening socket.
            new_connection: Makes the protocol of a connection.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)  # noqa: FBT003 - the socket's own argument
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:  # of the client, or too few descriptors
                _logger.warning("A connection cannot be accepted: %s", error)
                self._give_up_some()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await self._room()
            opening = loop.create_task(_open(accepted, new_connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _room(self) -> None:
        while len(self._open) + len(self._opening) >= self._most:
            self.are_awaited = True
            self._has_changed.clear()
            self._give_up_some()
            with suppress(TimeoutError):  # time passes for those that may be given up
                await asyncio.wait_for(self._has_changed.wait(), _RETRY_SECONDS)
        self.are_awaited = False

    def _give_up_some(self) -> None:
        latest = asyncio.get_running_loop().time() - _SECONDS_TO_SEND
        spare = [c for c in self._open if c.phase is not Phase.REPLY and c.since <= latest]
        spare.sort(key=lambda connection: (connection.phase.value, connection.since))
        for connection in spare[: max(1, self._most // _BATCH)]:
            connection.give_up()

    async def watch(self) -> None:
        """Close connections whose time is over, until this is cancelled."""
        limits = self.limits
        seconds = (limits.head_seconds, limits.body_seconds, limits.write_seconds)
        pause = min(_LONGEST_PAUSE, *(limit / 4 for limit in seconds))
        while True:
            await asyncio.sleep(pause)
            now = asyncio.get_running_loop().time()
            for connection in [*self._open]:
                connection.look(now)


async def _open(accepted: socket.socket, new_connection: Callable[[], asyncio.Protocol]) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(new_connection, accepted)
    except OSError:  # the client is gone
        accepted.close()


def _queued_by_system(connected: Any) -> int:
    """Bytes that the system has taken and the client has not, as far as the system tells.

    It takes megabytes at once, for which a slow client needs long.
    """
    if sys.platform != "linux":
        return 0
    import fcntl  # noqa: PLC0415 - not on Windows
    import termios  # noqa: PLC0415

    with suppress(OSError):
        (queued,) = _INT.unpack(fcntl.ioctl(connected, termios.TIOCOUTQ, bytes(_INT.size)))
        return int(queued)
    return 0


def _allowed_by_system(wanted: int) -> int:
    """How many connections the process can have, after its limit of open files was raised."""
    if sys.platform == "win32":  # has no such limit
        return wanted
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + wanted // _SPARE + _RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # some systems have further limits
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY:
        return wanted
    # For workers, files, and connections to models.
    spare = min(_RESERVE + soft // _SPARE, soft // 2)
    return max(1, soft - spare)


_RESERVE = 32  # descriptors
_SPARE = 8  # one of so many
