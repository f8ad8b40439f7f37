"""A TCP proxy that spreads connections over workers, as a load balancer does."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.proxy_threads import ThreadedProxy

_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Carried:
    """A connection of a client and the one to its worker.

    Attributes:
        port: The port of the worker.
        writers: Both connections.
        is_waiting: Whether the client sent something that has no answer yet.
    """

    port: int
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    is_waiting: bool = False

    def reset(self) -> None:
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class SpreadingProxy(ThreadedProxy):
    """Carries each connection to the next worker that accepts it.

    Args:
        ports: The ports of the workers.

    Attributes:
        url: Its address.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = [*ports]
        self._carried: set[_Carried] = set()

    def waiting_at(self, port: int | None = None) -> int:
        """How many clients wait for a worker, or for any."""
        return sum(c.is_waiting and port in {None, c.port} for c in [*self._carried])

    def cut(self, port: int | None = None) -> None:
        """Reset the connections to a worker, or all."""

        def reset() -> None:
            for carried in self._carried:
                if port in {None, carried.port}:
                    carried.reset()

        self.loop.call_soon_threadsafe(reset)

    def take_out(self, port: int) -> None:
        """Give no more connections to a worker."""
        self._ports.remove(port)

    def put_back(self, port: int) -> None:
        """Give connections to a worker again."""
        self._ports.append(port)

    async def serve(self) -> None:
        """Listen."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=500)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await self.until_stopped()
        server.close()
        for carried in self._carried:
            carried.reset()
        while self._carried:  # noqa: ASYNC110 - their tasks end by themselves
            await asyncio.sleep(0.01)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self._ports)):
            port = self._ports.pop(0)
            self._ports.append(port)
            try:
                upstream = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            await self._carry(_Carried(port, (writer, upstream[1])), reader, upstream[0])
            return
        writer.close()

    async def _carry(
        self, carried: _Carried, client: asyncio.StreamReader, worker: asyncio.StreamReader
    ) -> None:
        self._carried.add(carried)
        to_client, to_worker = carried.writers
        pumps = [
            asyncio.ensure_future(_pump(client, to_worker, carried, is_waiting=True)),
            asyncio.ensure_future(_pump(worker, to_client, carried, is_waiting=False)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._carried.discard(carried)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in carried.writers:
            writer.close()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    carried: _Carried,
    *,
    is_waiting: bool,
) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            carried.is_waiting = is_waiting
            writer.write(data)
            await writer.drain()
