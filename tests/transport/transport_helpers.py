"""Shared by the transport's tests: a trivial format, and a server whose faults are scripted."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import httpx
import orjson

from langchain_sequrity.errors import BadReply, StreamInterrupted
from langchain_sequrity.transport import RetryPolicy, Timeouts, Transport
from langchain_sequrity.transport.timeouts import Clock
from langchain_sequrity.wire.error_body import error_from_body
from langchain_sequrity.wire.exchange import Event, Reply, ServiceCall

KEY = "sk-a-key-that-nobody-may-see"
PATH = "/control/chat/v1/chat/completions"
HEADERS = ((b"Authorization", f"Bearer {KEY}".encode()), (b"Content-Type", b"application/json"))
FIRST_TURN = ServiceCall(PATH, HEADERS, b'{"hello": 1}')
IN_SESSION = ServiceCall(PATH, HEADERS, b'{"hello": 2}', resend=False, session_id="sess-1")
AT_ONCE = RetryPolicy(max_retries=2, random=lambda: 0.0)
WAIT = 60.0
"""Seconds to wait for an expected event. Even a slow machine needs less."""
EVENT_STREAM = {"content-type": "text/event-stream"}


# The format: JSON objects with a text, or an error object.


def read(reply: Reply) -> str:
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        msg = "not JSON"
        raise BadReply(msg) from None
    if "error" in body:
        raise error_from_body(reply.status, body)
    return str(body["text"])


class Reader:
    """Reads a stream of that format, which ends with `[DONE]`."""

    def __init__(self) -> None:
        self.done = False
        self._head = Reply(200, {})

    def start(self, head: Reply) -> None:
        self._head = head

    def feed(self, event: Event) -> Iterable[str]:
        if event.data == "[DONE]":
            self.done = True
            return ()
        return (read(Reply(self._head.status, {}, event.data.encode())),)

    def end(self) -> Iterable[str]:
        msg = "cut short"
        raise StreamInterrupted(msg)

    def whole(self, reply: Reply) -> Iterable[str]:
        return (read(reply),)


def events(*texts: str, done: bool = True) -> bytes:
    """A stream of these texts."""
    data = [orjson.dumps({"text": text}).decode() for text in texts]
    return "".join(f"data: {item}\n\n" for item in [*data, *(["[DONE]"] * done)]).encode()


# The call methods.


@dataclass(frozen=True)
class Way:
    """One of the four methods: whole or streamed, in a thread or in an event loop."""

    streams: bool
    is_async: bool

    def __str__(self) -> str:
        return "a" * self.is_async + ("stream" if self.streams else "send")

    def call(
        self, transport: Transport, call: ServiceCall = FIRST_TURN, reader: type[Reader] = Reader
    ) -> list[str]:
        """Make a call and return all pieces of the reply."""
        if self.is_async:
            return asyncio.run(self.acall(transport, call, reader))
        if self.streams:
            return list(transport.stream(call, reader))
        return [transport.send(call, read)]

    async def acall(
        self, transport: Transport, call: ServiceCall = FIRST_TURN, reader: type[Reader] = Reader
    ) -> list[str]:
        if not self.streams:
            return [await transport.asend(call, read)]
        async with aclosing(transport.astream(call, reader)) as pieces:
            return [piece async for piece in pieces]

    def success(self, text: str = "hi") -> httpx.Response:
        """The reply of a working service."""
        if self.streams:
            return httpx.Response(200, headers=EVENT_STREAM, content=events(text))
        return httpx.Response(200, json={"text": text})

    def error_object(self, error: Any) -> httpx.Response:
        """An error object in a reply whose status is 200."""
        if self.streams:
            content = b"event: error\ndata: " + orjson.dumps({"error": error}) + b"\n\n"
            return httpx.Response(200, headers=EVENT_STREAM, content=content)
        return httpx.Response(200, json={"error": error})


SEND, STREAM, ASEND, ASTREAM = WAYS = [
    Way(streams, is_async) for is_async in (False, True) for streams in (False, True)
]


def mocked(handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> Transport:
    """A transport with injected clients. A function answers their requests."""
    mock = httpx.MockTransport(handler)
    return Transport(
        "https://service.example",
        http_client=httpx.Client(transport=mock),
        http_async_client=httpx.AsyncClient(transport=mock),
        **{"retry": AT_ONCE, "secrets": (KEY,), **options},
    )


class Script:
    """Answers with each reply or exception in turn, and repeats the last one."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a mocked reply. It counts how often it was closed."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


# A server of raw bytes.

Answer = Callable[[socket.socket], bool]
"""Writes an answer, and returns whether the connection stays open."""


@dataclass
class RawServer:
    """Answers each request with the next entry of `script`, and repeats the last entry."""

    script: list[Answer]
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self._threads: list[threading.Thread] = []
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):  # `running` closed it
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                thread = threading.Thread(target=self._talk, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _talk(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), self._encrypted(accepted) as connection:  # the client went away
            while request := _read_request(connection):
                with self._lock:
                    answer = self.script[min(len(self.requests), len(self.script) - 1)]
                    self.requests.append(request)
                self.asked.release()
                if not answer(connection):
                    break
        self.closed.release()

    def _encrypted(self, connection: socket.socket) -> socket.socket:
        return self.tls.wrap_socket(connection, server_side=True) if self.tls else connection

    @contextmanager
    def running(self) -> Iterator["RawServer"]:
        accepting = threading.Thread(target=self.serve)
        accepting.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            accepting.join()
            for connection in self.connections:
                with suppress(OSError):  # closed already
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        if not (more := connection.recv(65536)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def http(body: bytes, status: str = "200 OK", media: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def says(
    *pieces: bytes,
    keep: bool = True,
    pause: float = 0.0,
    before_each: Callable[[], object] = lambda: None,
) -> Answer:
    """Write bytes. Call a function before each piece, and pause after it."""

    def answer(connection: socket.socket) -> bool:
        wait = threading.Event()
        for piece in pieces:
            before_each()
            connection.sendall(piece)
            if pause:
                wait.wait(pause)
        return keep

    return answer


def repeats(
    head: bytes, piece: bytes, time: "FakeTime", seconds: float, times: int | None = None
) -> Answer:
    """Write the same bytes until the client goes away, and move the clock each time.

    Args:
        head: What to write first.
        piece: The bytes.
        time: The clock.
        seconds: How far to move it, each time.
        times: The maximum number of repetitions.
    """

    def answer(connection: socket.socket) -> bool:
        connection.sendall(head)
        for _ in repeat(None) if times is None else range(times):
            connection.sendall(piece)
            time.passes(seconds)
        return hangs(connection)

    return answer


class FakeTime:
    """A fake clock. Tests and sleeps move it.

    Attributes:
        clock: For code that takes a `Clock`.
        waits: The seconds of each sleep.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []
        self.clock = Clock(lambda: self.seconds, self._sleep, self._asleep)

    def passes(self, seconds: float) -> None:
        self.seconds += seconds

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.passes(seconds)

    async def _asleep(self, seconds: float) -> None:
        self._sleep(seconds)


def hangs(connection: socket.socket) -> bool:
    """Send nothing until the client goes away."""
    return bool(connection.recv(1))


def closes(_connection: socket.socket) -> bool:
    """Send nothing and close."""
    return False


WORKS = says(http(b'{"text": "hi"}'))
STREAMS = says(STREAM_HEAD, chunk(events("a", "b")), STREAM_END)


def quick(**limits: Any) -> Timeouts:
    """Limits that are too long to be reached on a slow machine, except for the given ones."""
    return Timeouts(**{"connect": 60.0, "read": 60.0, "total": 60.0, **limits})
