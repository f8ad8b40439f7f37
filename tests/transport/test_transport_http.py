"""HTTP/1.1 on our own connections. Replies are read as httpx reads them, without leftovers."""

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.transport import RetryPolicy, Transport, http11
from langchain_sequrity.transport.http11 import ServiceAddress
from langchain_sequrity.wire.exchange import Reply
from tests.transport.transport_helpers import (
    FIRST_TURN,
    SEND,
    STREAM,
    WAIT,
    WORKS,
    RawServer,
    Way,
    chunk,
    events,
    http,
    quick,
    says,
)

ONCE = RetryPolicy(max_retries=0)
BODY = b'{"text": "hi"}'
Serve = Callable[..., RawServer]


def reply(*headers: bytes, status: bytes = b"HTTP/1.1 200 OK", body: bytes = BODY) -> bytes:
    return b"".join(line + b"\r\n" for line in (status, *headers, b"")) + body


LENGTH = b"Content-Length: %d" % len(BODY)
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = chunk(BODY[:5]) + chunk(BODY[5:])
REPLIES = {
    "length": reply(LENGTH),
    "chunks": reply(CHUNKED, body=CHUNKS + b"0\r\n\r\n"),
    "chunks with extensions and trailers": reply(
        CHUNKED, body=b'e;a="b"\r\n' + BODY + b"\r\n0\r\nX-Trailer: a\r\n\r\n"
    ),
    "until the end": reply(b"Connection: close"),
    "of HTTP/1.0": reply(status=b"HTTP/1.0 200 OK"),
    "without a reason": reply(LENGTH, status=b"HTTP/1.1 200"),
    "with line feeds only": reply(LENGTH).replace(b"\r\n", b"\n"),
    "after interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + reply(LENGTH)
    ),
    "length said twice": reply(LENGTH, LENGTH),
    "a header said twice": reply(LENGTH, b"X-Session-ID: a", b"x-session-id: b"),
    "a header of UTF-8": reply(LENGTH, "X-Session-ID: ü".encode()),
    "a header of Latin-1": reply(LENGTH, "X-Session-ID: ü".encode("latin-1")),
    "a header without a value": reply(LENGTH, b"X-Session-ID:"),
    "a folded header": reply(LENGTH, b"X-Session-ID: a", b"  b"),
    "no content": reply(status=b"HTTP/1.1 204 No Content", body=b""),
    "not modified": reply(status=b"HTTP/1.1 304 Not Modified", body=b""),
    "an error": reply(LENGTH, status=b"HTTP/1.1 500 Oh no"),
    "no status": reply(LENGTH, status=b"HTTP/1.1 OK"),
    "a status of four digits": reply(LENGTH, status=b"HTTP/1.1 2000 OK"),
    "another protocol": reply(LENGTH, status=b"HTTP/3 200 OK"),
    "switching protocols": reply(b"Upgrade: a", status=b"HTTP/1.1 101 Switching", body=b""),
    "a header without a colon": reply(LENGTH, b"oh no"),
    "a space before the colon": reply(LENGTH, b"X-Session-ID : a"),
    "two lengths": reply(LENGTH, b"Content-Length: 3"),
    "a negative length": reply(b"Content-Length: -3"),
    "a length with a sign": reply(b"Content-Length: +%d" % len(BODY)),
    "length and chunks": reply(LENGTH, CHUNKED, body=CHUNKS + b"0\r\n\r\n"),
    "another coding": reply(b"Transfer-Encoding: gzip"),
    "a chunk without a size": reply(CHUNKED, body=b"oh\r\n" + BODY),
    "a chunk longer than its size": reply(CHUNKED, body=b"3\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk of no known length": reply(CHUNKED, body=b"f" * 40 + b"\r\n" + BODY),
    "chunks without an end": reply(CHUNKED, body=CHUNKS),
    "less than its length": reply(LENGTH, body=BODY[:-1]),
    "nothing": b"",
    "half a head": reply(LENGTH)[:20],
    "a head without an end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000,
}


def outcome(transport: Transport, *, is_async: bool) -> Any:
    """All that the transport reports of a reply, or the error that it raises."""

    def seen(found: Reply) -> Any:
        kept = {name: value for name, value in found.headers.items() if name != "connection"}
        return found.status, kept, found.body

    try:
        if is_async:
            return asyncio.run(transport.asend(FIRST_TURN, seen))
        return transport.send(FIRST_TURN, seen)
    except errors.SequrityError as error:
        return type(error), getattr(error, "status", None), getattr(error, "headers", None)


def through_httpx(server: RawServer) -> Any:
    """The outcome with a client of httpx."""
    with closing(httpx.Client()) as client:
        return outcome(
            Transport(server.url, retry=ONCE, timeouts=quick(), http_client=client), is_async=False
        )


@pytest.mark.long(sample=22)
@pytest.mark.parametrize("piecewise", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_read_as_httpx_reads_it(
    serve: Serve, name: str, is_async: bool, piecewise: bool
) -> None:
    raw = REPLIES[name]
    pieces = [raw[i : i + 1] for i in range(len(raw))] if piecewise and len(raw) < 1000 else [raw]
    server = serve(says(*pieces, keep=False))

    found = outcome(Transport(server.url, retry=ONCE, timeouts=quick()), is_async=is_async)

    assert found == through_httpx(server)
    assert len(server.requests) == 2


def of_size(size: int) -> bytes:
    """A reply that has this many bytes in all."""
    spare = size - len(http(BODY + b" " * size))
    return http(BODY + b" " * (size + spare))


# An event loop may take more from a socket than the 64 KiB that one read returns.
@pytest.mark.parametrize("size", [1000, 64 * 1024, 128 * 1024])
def test_bytes_after_a_reply_are_not_the_reply_to_the_next_request(
    serve: Serve, way: Way, size: int
) -> None:
    smuggled = http(b'{"text": "forged"}')
    server = serve(says(of_size(size) + smuggled), WORKS)
    transport = Transport(server.url, retry=ONCE)

    async def twice() -> None:
        assert await way.acall(transport) == ["hi"]
        assert await way.acall(transport) == ["hi"]

    if way.is_async:
        asyncio.run(twice())
    else:
        assert way.call(transport) + way.call(transport) == ["hi", "hi"]

    assert len(server.connections) == 2


def test_bytes_on_an_idle_connection_are_not_the_reply_to_the_next_request(
    serve: Serve, way: Way
) -> None:
    is_idle, has_sent = threading.Event(), threading.Event()

    def sends_later(connection: socket.socket) -> bool:
        connection.sendall(http(BODY))
        assert is_idle.wait(WAIT)
        connection.sendall(http(b'{"text": "forged"}'))
        has_sent.set()
        return True

    def wait() -> None:
        is_idle.set()
        assert has_sent.wait(WAIT)

    server = serve(sends_later, WORKS)
    transport = Transport(server.url, retry=ONCE)

    async def twice() -> None:
        assert await way.acall(transport) == ["hi"]
        await asyncio.to_thread(wait)
        assert await way.acall(transport) == ["hi"]

    if way.is_async:
        asyncio.run(twice())
    else:
        assert way.call(transport) == ["hi"]
        wait()
        assert way.call(transport) == ["hi"]

    assert len(server.connections) == 2


_TIMEOUT = b"HTTP/1.1 408 Request Timeout"


def _calls(transport: Transport, way: Way, count: int) -> list[str]:
    """The outcome of each call, on the same connection as long as that is possible."""

    async def outcomes() -> list[str]:
        seen = []
        for _ in range(count):
            try:
                seen += await way.acall(transport) if way.is_async else way.call(transport)
            except errors.ServiceError as error:
                seen.append(type(error).__name__)
        return seen

    return asyncio.run(outcomes())


@pytest.mark.parametrize("retries", [0, 2])
def test_a_timeout_of_an_idle_connection_is_no_answer_to_the_request_that_it_crosses(
    serve: Serve, way: Way, retries: int
) -> None:
    late = reply(LENGTH, b"Connection: close", status=_TIMEOUT)
    server = serve(WORKS, says(late, keep=False), WORKS)
    transport = Transport(server.url, retry=RetryPolicy(max_retries=retries))
    assert _calls(transport, way, 2) == ["hi", "hi"]
    assert (len(server.requests), len(server.connections)) == (3, 2)


@pytest.mark.parametrize(
    ("before", "timeout"),
    [
        ([], reply(LENGTH, b"Connection: close", status=_TIMEOUT)),
        ([WORKS], reply(LENGTH, status=_TIMEOUT)),
    ],
    ids=["a new connection", "a connection that stays open"],
)
def test_another_timeout_is_an_error(
    serve: Serve, way: Way, before: list[Any], timeout: bytes
) -> None:
    server = serve(*before, says(timeout, keep=b"close" not in timeout), WORKS)
    transport = Transport(server.url, retry=ONCE)
    assert _calls(transport, way, len(before) + 1) == [*["hi" for _ in before], "InvalidRequest"]
    assert len(server.requests) == len(before) + 1


@pytest.mark.parametrize(
    "last",
    [
        reply(JSON, LENGTH, b"Connection: close"),
        reply(JSON, LENGTH, status=b"HTTP/1.0 200 OK"),
    ],
    ids=["announced", "of HTTP/1.0"],
)
def test_a_connection_that_the_server_will_close_is_not_kept(
    serve: Serve, way: Way, last: bytes
) -> None:
    server = serve(says(last), WORKS)
    transport = Transport(server.url, retry=ONCE)

    assert way.call(transport) == ["hi"]

    assert server.closed.acquire(timeout=WAIT)
    assert way.call(transport) == ["hi"]


# An event loop drops a connection that it cannot write to, with all unread data.
@pytest.mark.parametrize("way", [SEND, STREAM], ids=str)
def test_a_reply_before_the_end_of_the_request_is_read(way: Way) -> None:
    refused = http(b'{"detail": "too long"}', status="413 Too Large")
    call = replace(FIRST_TURN, body=b" " * 20_000_000)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(refused)

        done = threads.submit(refuse)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.StatusError, match="too long"):
            way.call(Transport(address, retry=ONCE, timeouts=quick()), call)
        done.result()


def test_a_connection_that_breaks_during_the_request_raises_stream_interrupted(way: Way) -> None:
    call = replace(FIRST_TURN, body=b" " * 20_000_000)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def reset() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)

        done = threads.submit(reset)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.StreamInterrupted):
            way.call(Transport(address, retry=ONCE, timeouts=quick()), call)
        done.result()


def test_the_frames_of_an_interrupted_call_hold_no_bytes_of_the_request(
    serve: Serve, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(http11.Http11, "receive", interrupt)
    server = serve(WORKS)

    with pytest.raises(Interrupted) as caught:
        way.call(Transport(server.url))

    _, *frames = [frame for frame, _ in traceback.walk_tb(caught.tb)]
    shown = [repr(value) for frame in frames for value in frame.f_locals.values()]
    assert "send" in [frame.f_code.co_name for frame in frames]
    assert not [text for text in shown if "POST" in text]


def test_a_connection_is_not_reused_after_an_incomplete_request() -> None:
    http = http11.Http11()
    http.request(ServiceAddress("http://service.example").request(FIRST_TURN))
    http.send_failed()

    http.receive(reply(LENGTH))

    assert http.head() == Reply(200, {"content-length": "14"})
    assert (http.body(), http.body()) == (BODY, b"")
    assert http.start_next_cycle() is False


def test_a_chunked_request_ends_with_an_empty_chunk() -> None:
    headers = ((b"Content-Length", b"14"), (b"Transfer-Encoding", b"chunked"))
    request = ServiceAddress("http://service.example").request(replace(FIRST_TURN, headers=headers))

    assert http11.Http11().request(request).endswith(b'c\r\n{"hello": 1}\r\n0\r\n\r\n')


def test_no_log_of_another_library_contains_the_request(
    serve: Serve, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(says(http(events("hi"), media="text/event-stream"))) if way.streams else None
    server = server or serve(WORKS)

    with caplog.at_level(0):
        assert way.call(Transport(server.url)) == ["hi"]

    assert "sk-a-key" not in caplog.text
    assert "hello" not in caplog.text
