"""Limits hold exactly, whatever a server does."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.transport import HttpTimeout, RetryPolicy, Timeouts, Transport
from tests.transport.transport_helpers import (
    ASTREAM,
    AT_ONCE,
    FIRST_TURN,
    IN_SESSION,
    STREAM,
    STREAM_END,
    STREAM_HEAD,
    WORKS,
    RawServer,
    Reader,
    Script,
    Way,
    chunk,
    closes,
    events,
    hangs,
    http,
    mocked,
    quick,
    repeats,
    says,
)

ONCE = RetryPolicy(max_retries=0)


@pytest.fixture(params=[STREAM, ASTREAM], ids=str)
def streaming(request: pytest.FixtureRequest) -> Way:
    """The two methods that stream."""
    found: Way = request.param
    return found


def fails_within(seconds: float, call: Callable[[], Any]) -> errors.TimedOut:
    begin = time.monotonic()
    with pytest.raises(errors.TimedOut) as caught:
        call()
    assert time.monotonic() - begin < seconds
    return caught.value


def test_a_server_that_trickles_cannot_pass_the_total(
    serve: Callable[..., RawServer], way: Way
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nContent-Type: application/json\r\n\r\n"
    transport = Transport(serve(repeats(head, b" ", 0.02)).url, timeouts=quick(total=0.2))

    error = fails_within(2, lambda: way.call(transport))

    assert "within 0.2 s" in str(error)


def test_a_server_that_trickles_its_head_cannot_pass_the_total(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(repeats(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", 0.02))
    fails_within(2, lambda: way.call(Transport(server.url, timeouts=quick(total=0.2))))


def test_a_server_that_reads_slowly_cannot_pass_the_total(way: Way) -> None:
    call = replace(FIRST_TURN, body=b" " * 30_000_000)
    stop = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def read_slowly() -> None:
            connection, _ = listener.accept()
            with suppress(ConnectionError), connection:
                while connection.recv(50_000) and not stop.wait(0.01):
                    pass

        done = threads.submit(read_slowly)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = Transport(address, timeouts=quick(total=0.6))
        try:
            fails_within(2, lambda: way.call(transport, call))
        finally:
            stop.set()
            done.result()


def test_pings_do_not_break_the_silence(serve: Callable[..., RawServer], streaming: Way) -> None:
    server = serve(repeats(STREAM_HEAD, chunk(b": ping\n\n"), 0.02))
    transport = Transport(server.url, timeouts=quick(silence=0.15), retry=ONCE)

    error = fails_within(2, lambda: streaming.call(transport, IN_SESSION))

    assert "no event for 0.15 s" in str(error)
    assert error.is_retryable is False


def test_events_break_the_silence(serve: Callable[..., RawServer], streaming: Way) -> None:
    parts = [chunk(events(str(number), done=False)) for number in range(5)]
    server = serve(says(STREAM_HEAD, *parts, chunk(events()), STREAM_END, pause=0.06))
    transport = Transport(server.url, timeouts=quick(silence=0.2))

    assert streaming.call(transport) == ["0", "1", "2", "3", "4"]


def test_a_slow_consumer_is_not_the_servers_silence(serve: Callable[..., RawServer]) -> None:
    server = serve(says(STREAM_HEAD, chunk(events("a")[:-14]), chunk(events("b")), STREAM_END))
    transport = Transport(server.url, timeouts=quick(silence=0.1))

    pieces = []
    for piece in transport.stream(FIRST_TURN, Reader):
        time.sleep(0.15)
        pieces.append(piece)

    assert pieces == ["a", "b"]


def test_a_slow_consumer_counts_towards_the_total(serve: Callable[..., RawServer]) -> None:
    parts = [chunk(events("a", done=False)), chunk(events("b")), STREAM_END]
    transport = Transport(serve(says(STREAM_HEAD, *parts)).url, timeouts=quick(total=0.15))

    pieces = transport.stream(FIRST_TURN, Reader)
    assert next(pieces) == "a"
    time.sleep(0.2)
    with pytest.raises(errors.TimedOut, match=r"within 0\.15 s"):
        list(pieces)


def test_a_server_that_says_nothing_meets_the_read_limit(
    serve: Callable[..., RawServer], way: Way
) -> None:
    transport = Transport(serve(hangs).url, timeouts=quick(read=0.1), retry=ONCE)

    error = fails_within(2, lambda: way.call(transport))

    assert "the time limit `read` or `write`" in str(error)
    assert error.is_retryable is True


def test_the_total_spans_all_attempts(serve: Callable[..., RawServer], way: Way) -> None:
    server = serve(hangs)
    transport = Transport(
        server.url,
        timeouts=quick(read=0.1, total=0.25),
        retry=RetryPolicy(max_retries=100, random=lambda: 0.0),
    )

    fails_within(2, lambda: way.call(transport))

    assert 2 <= len(server.requests) <= 3


def test_a_service_that_is_not_there_is_never_connected(way: Way) -> None:
    transport = Transport("http://127.0.0.1:1", retry=AT_ONCE)

    with pytest.raises(errors.ConnectionFailed, match=r"http://127\.0\.0\.1:1") as caught:
        way.call(transport, IN_SESSION)

    assert caught.value.is_retryable is True


def test_a_host_that_has_no_address_is_never_connected(way: Way) -> None:
    with pytest.raises(errors.ConnectionFailed, match="no-such-host"):
        way.call(Transport("http://no-such-host.invalid", retry=ONCE))


def test_a_server_without_tls_is_never_connected(serve: Callable[..., RawServer], way: Way) -> None:
    server = serve(says(http(b"{}")))
    address = server.url.replace("http:", "https:")
    # The server reads a TLS greeting and waits for the end of a request that never comes.
    transport = Transport(address, timeouts=quick(connect=0.2), retry=ONCE)

    with pytest.raises(errors.TimedOut, match="time limit `connect`"):
        way.call(transport)


def test_a_server_that_closes_at_once_may_have_processed_the_request(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(closes)
    with pytest.raises(errors.StreamInterrupted) as caught:
        way.call(Transport(server.url, retry=AT_ONCE), IN_SESSION)
    assert caught.value.is_retryable is False
    assert len(server.requests) == 1

    server = serve(closes, closes, WORKS)
    assert way.call(Transport(server.url, retry=AT_ONCE)) == ["hi"]


def test_half_a_reply_is_lost_after_sending(serve: Callable[..., RawServer], way: Way) -> None:
    server = serve(says(http(b'{"text": "hi"}')[:-5], keep=False), WORKS)

    with pytest.raises(errors.StreamInterrupted):
        way.call(Transport(server.url, retry=AT_ONCE), IN_SESSION)
    assert way.call(Transport(server.url, retry=AT_ONCE)) == ["hi"]


def test_what_is_no_http_is_a_lost_request(serve: Callable[..., RawServer], way: Way) -> None:
    with pytest.raises(errors.StreamInterrupted):
        way.call(Transport(serve(says(b"SSH-2.0-hello\r\n\r\n")).url, retry=ONCE))


def test_injected_clients_get_the_limits_of_each_call(way: Way) -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return way.success()

    way.call(mocked(handler, timeouts=Timeouts(1.0, None, 3.0, None, total=2.0, silence=1.5)))

    (limits,) = seen
    assert limits["connect"] == 1.0
    assert limits["read"] == (1.5 if way.streams else pytest.approx(2.0, abs=0.1))
    assert limits["write"] == pytest.approx(2.0, abs=0.1)
    assert limits["pool"] == pytest.approx(2.0, abs=0.1)


def test_no_limits_are_no_limits(way: Way) -> None:
    script = Script(way.success())

    way.call(mocked(script, timeouts=Timeouts.of(HttpTimeout(None), silence=None)))

    assert set(script.requests[0].extensions["timeout"].values()) == {None}


def test_a_number_is_the_total() -> None:
    assert Timeouts.of(30.0) == Timeouts(total=30.0)
    assert Timeouts.of(None, silence=None) == Timeouts(silence=None)


def test_an_httpx_timeout_limits_single_operations_only() -> None:
    given = HttpTimeout(7.0, connect=3.0)
    assert Timeouts.of(given, 9.0) == Timeouts(
        connect=3.0, read=7.0, write=7.0, pool=7.0, total=None, silence=9.0
    )


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["connect", "read", "write", "pool", "total", "silence"])
def test_a_limit_that_no_clock_can_keep_is_refused(name: str, limit: float) -> None:
    with pytest.raises(errors.UsageError, match=f"`{name}` must be a number of seconds above 0"):
        Timeouts(**{name: limit})
