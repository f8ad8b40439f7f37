"""The proxy: an event loop in a thread of its own, between clients and one server."""

import asyncio
import random
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tests.proxy_threads import ThreadedProxy
from tests.transport.faults.replies import Act, Endless, Fault, Pause, Step, WholeReply

CASE = re.compile(rb"case-(\d+)\.")
"""How a request names its case; in a long request it is at the beginning of the body."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)
_EMPTY = WholeReply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}", b"{}")
_MOST_HEAD = 2**20


@dataclass
class Plan:
    """What happens to the requests of one case.

    Attributes:
        fault: The fault.
        first: The first request that it hits, counted from 0.
        hits: How many requests it hits from there on.
        dice: Decides how.
        requests: Requests that have come.
        answered: Replies that were written to their end.
        forwarded: Requests that the server got.
    """

    fault: Fault
    first: int
    hits: int
    dice: random.Random
    requests: int = 0
    answered: int = 0
    forwarded: int = 0

    def next_fault(self) -> Fault | None:
        """The fault of the next request, or `None`."""
        number, self.requests = self.requests, self.requests + 1
        return self.fault if self.first <= number < self.first + self.hits else None


@dataclass
class _Upstream:
    """Connections to the server."""

    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, request: bytes) -> WholeReply:
        """Send a request and read the whole reply."""
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        framed, body = await read_body(reader, head)
        self.idle.append((reader, writer))
        return WholeReply(head, framed, body, request)


async def read_body(reader: asyncio.StreamReader, head: bytes) -> tuple[bytes, bytes]:
    """The body of a reply as it was sent, and without its chunks."""
    if not _CHUNKED.search(head):
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        return body, body
    framed = b""
    pieces: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line, 16) + 2)
        framed += line + chunk
        if chunk == b"\r\n":
            return framed, b"".join(pieces)
        pieces.append(chunk[:-2])


class FaultProxy(ThreadedProxy):
    """Passes requests to a server and damages what the plan of their case says.

    Args:
        port: The port of the server.

    Attributes:
        plans: The plans of the cases, by number.
        redirected: Connections to the address that redirects lead to.
        given_up: Cases that timed out. Their last request may arrive when they are over.
        unplanned: The names of other requests without a plan.
        requests: How often the server was asked.
        faults: Exceptions of the proxy itself.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.plans: dict[int, Plan] = {}
        self.redirected = self.requests = 0
        self.unplanned: list[str] = []
        self.given_up: set[int] = set()
        self.faults: list[BaseException] = []
        self._upstream = _Upstream(port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._large = asyncio.Semaphore(1)

    async def serve(self) -> None:
        """Listen."""
        server = await asyncio.start_server(
            self._accepted, "127.0.0.1", 0, limit=_MOST_HEAD, backlog=500
        )
        trap = await asyncio.start_server(self._trapped, "127.0.0.1", 0)
        self.url, self._trap = (
            f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in (server, trap)
        )
        await self.until_stopped()
        server.close()
        trap.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._upstream.idle:
            writer.close()
        await asyncio.sleep(0)

    async def _trapped(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.redirected += 1
        writer.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        except asyncio.CancelledError:
            pass
        except Exception as fault:  # noqa: BLE001 - the run reports it
            self.faults.append(fault)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; false if the connection ends."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        body = await reader.readexactly(min(size, 4_000))
        named = CASE.search(head) or CASE.search(body)
        if named is None:
            body += await reader.readexactly(size - len(body))
            named = CASE.search(body)
        number = int(named[1]) if named else -1
        plan = self.plans.get(number)
        if plan is None:
            if number not in self.given_up:
                self.unplanned.append(named[0].decode() if named else "")
            return False
        fault = plan.next_fault()
        pace = fault.reads if fault else 0
        while len(body) < size:
            if pace and fault and not fault.asks:
                break
            body += await reader.readexactly(min(pace or size, size - len(body)))
            if pace:
                await asyncio.sleep(0.001)
        reply = await self._reply(head + body, plan, fault)
        if fault is None:
            writer.write(reply.raw)
            await writer.drain()
            plan.answered += 1
            return True
        steps = fault.steps(reply, plan.dice)
        if fault.is_large:
            async with self._large:
                goes_on = await self._carry_out(steps, reader, writer)
        else:
            goes_on = await self._carry_out(steps, reader, writer)
        plan.answered += 1
        return goes_on

    async def _reply(self, request: bytes, plan: Plan, fault: Fault | None) -> WholeReply:
        """The server's reply, or an empty one if the server is not to be asked."""
        found = _EMPTY
        if fault is None or fault.asks:
            self.requests += 1
            plan.forwarded += 1
            found = await self._upstream.ask(request)
        return WholeReply(found.head, found.framed, found.body, request, self._trap, self.url)

    async def _carry_out(
        self, steps: Iterator[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        for step in steps:
            match step:
                case bytes():
                    writer.write(step)
                case Pause(seconds=seconds):
                    await writer.drain()
                    await asyncio.sleep(seconds)
                case Endless(data=data, pause=pause):
                    while not writer.transport.is_closing():
                        writer.write(data)
                        await writer.drain()
                        await asyncio.sleep(pause)
                    return False
                case Act.STALL:
                    await writer.drain()
                    await reader.read()
                    return False
                case Act.RST:
                    await writer.drain()
                    sock = writer.get_extra_info("socket")
                    with suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    writer.transport.abort()
                    return False
                case Act.FIN:
                    return False
        await writer.drain()
        return True
