"""A server that answers at once, with fixed replies that it has prepared.

It is a separate process and answers every POST of a format with the same bytes: a reply, a long
reply below `/long`, or a stream if the body has `"stream": true`. It ends with its parent (its
standard input closes), or after an hour.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.replies import REPLIES

EVENTS_PER_WRITE = 10
_LIFETIME = 3600.0
_BACKLOG = 1000
"""Connections that may wait to be accepted. With fewer, the system would reset some."""
_ROOT = Path(__file__).parent.parent
_HEADERS = (
    b"HTTP/1.1 200 OK\r\n"
    b"X-Request-ID: req-51c0e2\r\n"
    b"X-Session-ID: 0b6f1c2e-1a2b-41f1-9c3d-0242ac120002\r\n"
)
_PATH = re.compile(rb"POST [^ ?]*/(\w+)[ ?]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')


def _whole(body: bytes) -> list[bytes]:
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return [_HEADERS + head + body]


def _streamed(events: list[bytes]) -> list[bytes]:
    """The writes of a streamed reply. Each is one HTTP chunk with several events."""
    writes = []
    for start in range(0, len(events), EVENTS_PER_WRITE):
        data = b"".join(events[start : start + EVENTS_PER_WRITE])
        writes.append(b"%x\r\n%s\r\n" % (len(data), data))
    writes[-1] += b"0\r\n\r\n"
    head = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [_HEADERS + head, *writes]


_WHOLE = {path.encode(): _whole(replies.whole) for path, replies in REPLIES.items()}
_LONG = {path.encode(): _whole(replies.long) for path, replies in REPLIES.items()}
_STREAMED = {path.encode(): _streamed(replies.events) for path, replies in REPLIES.items()}


class _Connection(asyncio.Protocol):
    """One connection, which is kept alive. asyncio itself sets TCP_NODELAY."""

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := self._next_request()) is not None:
            path = _PATH.match(request)
            assert path, request[:80]
            answers = _STREAMED if _STREAM.search(request) else _WHOLE
            for piece in (_LONG if request.startswith(b"POST /long/") else answers)[path[1]]:
                self._transport.write(piece)

    def _next_request(self) -> bytes | None:
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        length = _LENGTH.search(self._received, 0, head_end)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return None
        request = bytes(self._received[:end])
        del self._received[:end]
        return request


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    parent_gone = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), parent_gone.set)
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    try:
        async with asyncio.timeout(_LIFETIME):
            await parent_gone.wait()
    finally:
        server.close()


@contextmanager
def raw_server() -> Iterator[str]:
    """Run the server, and yield its base URL."""
    command = [sys.executable, "-m", "benchmarks.server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603  # our own file
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve())
