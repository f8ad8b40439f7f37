"""Time limits hold exactly, whatever a server does."""

import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from time import sleep
from typing import Any

import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.transport import HttpTimeout, RetryPolicy, Timeouts, Transport
from langchain_sequrity.wire.exchange import Event
from tests.transport.transport_helpers import (
    ASTREAM,
    AT_ONCE,
    FIRST_TURN,
    IN_SESSION,
    SEND,
    STREAM,
    STREAM_END,
    STREAM_HEAD,
    STREAMS,
    WAIT,
    WORKS,
    FakeTime,
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
LITTLE = 0.2


@pytest.fixture(params=[STREAM, ASTREAM], ids=str)
def streaming(request: pytest.FixtureRequest) -> Way:
    """The two methods that stream."""
    found: Way = request.param
    return found


@pytest.fixture
def time() -> FakeTime:
    """A fake clock. The servers of the tests move it.

    They move it in big steps. The rest of a limit is also the real timeout of a socket. With small
    steps, a busy machine would reach that timeout first.
    """
    return FakeTime()


def times_out(call: Callable[[], Any]) -> errors.TimedOut:
    with pytest.raises(errors.TimedOut) as caught:
        call()
    return caught.value


def test_a_server_that_sends_its_body_slowly_cannot_exceed_the_total_time(
    serve: Callable[..., RawServer], way: Way, time: FakeTime
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\nContent-Type: application/json\r\n\r\n"
    server = serve(repeats(head, b" ", time, 60))
    transport = Transport(server.url, timeouts=quick(total=5990), clock=time.clock)

    error = times_out(lambda: way.call(transport))

    assert "within 5990 s" in str(error)


def test_a_server_that_sends_its_head_slowly_cannot_exceed_the_total_time(
    serve: Callable[..., RawServer], way: Way, time: FakeTime
) -> None:
    # Many more bytes would exceed the limit for headers before the time limit.
    server = serve(repeats(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", time, 60, times=1000))
    error = times_out(
        lambda: way.call(Transport(server.url, timeouts=quick(total=1190), clock=time.clock))
    )
    assert "within 1190 s" in str(error)


def test_a_server_that_reads_slowly_cannot_exceed_the_total_time(way: Way, time: FakeTime) -> None:
    call = replace(FIRST_TURN, body=b" " * 30_000_000)
    taken = 0

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def read_slowly() -> None:
            nonlocal taken
            connection, _ = listener.accept()
            with suppress(ConnectionError), connection:
                while got := connection.recv(50_000):
                    taken += len(got)
                    time.passes(60)
                    sleep(0.002)  # otherwise the kernel may take the whole body in one `send`

        done = threads.submit(read_slowly)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = Transport(address, timeouts=quick(write=None, total=2990), clock=time.clock)
        error = times_out(lambda: way.call(transport, call))
        done.result()

    assert "within 2990 s" in str(error)
    assert taken < len(call.body)


def test_pings_do_not_reset_the_silence_limit(
    serve: Callable[..., RawServer], streaming: Way, time: FakeTime
) -> None:
    server = serve(repeats(STREAM_HEAD, chunk(b": ping\n\n"), time, 60))
    limits = quick(silence=200, total=None)
    transport = Transport(server.url, timeouts=limits, retry=ONCE, clock=time.clock)

    error = times_out(lambda: streaming.call(transport, IN_SESSION))

    assert "no event for 200 s" in str(error)
    assert error.is_retryable is False


def test_events_reset_the_silence_limit(
    serve: Callable[..., RawServer], streaming: Way, time: FakeTime
) -> None:
    heard = threading.Semaphore(1)

    class Heard(Reader):
        def feed(self, event: Event) -> Iterable[str]:
            heard.release()
            return super().feed(event)

    def later() -> None:  # sends the next event after the last one was read
        assert heard.acquire(timeout=WAIT)
        time.passes(60)

    parts = [chunk(events(str(number), done=False)) for number in range(5)]
    server = serve(says(STREAM_HEAD + parts[0], *parts[1:], chunk(events()), before_each=later))
    limits = quick(silence=100, total=None)
    transport = Transport(server.url, timeouts=limits, clock=time.clock)

    assert streaming.call(transport, reader=Heard) == ["0", "1", "2", "3", "4"]
    assert time.seconds > 300


def test_a_slow_consumer_does_not_count_towards_the_silence_limit(
    serve: Callable[..., RawServer], time: FakeTime
) -> None:
    server = serve(says(STREAM_HEAD, chunk(events("a")[:-14]), chunk(events("b")), STREAM_END))
    transport = Transport(server.url, timeouts=quick(silence=10, total=None), clock=time.clock)

    pieces = []
    for piece in transport.stream(FIRST_TURN, Reader):
        time.passes(15)
        pieces.append(piece)

    assert pieces == ["a", "b"]


def test_the_silence_limit_of_an_attempt_does_not_end_the_next_one(
    serve: Callable[..., RawServer], streaming: Way, time: FakeTime
) -> None:
    server = serve(says(STREAM_HEAD, keep=False), STREAMS)
    retry = RetryPolicy(first_wait=150, longest_wait=150, random=lambda: 1.0)
    limits = quick(silence=100, total=None)
    transport = Transport(server.url, timeouts=limits, retry=retry, clock=time.clock)

    assert streaming.call(transport) == ["a", "b"]
    assert time.waits == [150]


def test_a_slow_consumer_counts_towards_the_total_limit(
    serve: Callable[..., RawServer], time: FakeTime
) -> None:
    parts = [chunk(events("a", done=False)), chunk(events("b")), STREAM_END]
    server = serve(says(STREAM_HEAD, *parts))
    transport = Transport(server.url, timeouts=quick(total=15), clock=time.clock)

    pieces = transport.stream(FIRST_TURN, Reader)
    assert next(pieces) == "a"
    time.passes(20)
    with pytest.raises(errors.TimedOut, match=r"within 15 s"):
        list(pieces)


def test_a_server_that_sends_nothing_reaches_the_read_limit(
    serve: Callable[..., RawServer], way: Way
) -> None:
    transport = Transport(serve(hangs).url, timeouts=quick(read=0.1), retry=ONCE)

    error = times_out(lambda: way.call(transport))

    assert "the time limit `read` or `write`" in str(error)
    assert error.is_retryable is True


def test_the_total_limit_covers_all_attempts(
    serve: Callable[..., RawServer], way: Way, time: FakeTime
) -> None:
    busy = http(b"{}", "503 Busy")
    server = serve(says(busy, before_each=lambda: time.passes(100)))
    transport = Transport(
        server.url,
        timeouts=quick(total=250),
        retry=RetryPolicy(max_retries=100, first_wait=1, random=lambda: 1.0),
        clock=time.clock,
    )

    error = times_out(lambda: way.call(transport))

    assert "within 250 s" in str(error)
    assert time.waits == [1, 2]
    assert len(server.requests) == 3


def test_a_refused_connection_raises_connection_failed(way: Way) -> None:
    transport = Transport("http://127.0.0.1:1", retry=AT_ONCE)

    with pytest.raises(errors.ConnectionFailed, match=r"http://127\.0\.0\.1:1") as caught:
        way.call(transport, IN_SESSION)

    assert caught.value.is_retryable is True


def test_a_host_without_an_address_raises_connection_failed(way: Way) -> None:
    with pytest.raises(errors.ConnectionFailed, match="no-such-host"):
        way.call(Transport("http://no-such-host.invalid", retry=ONCE))


@pytest.mark.parametrize("way", [SEND, STREAM], ids=str)
@pytest.mark.parametrize(
    "limits", [Timeouts(total=LITTLE), Timeouts(connect=LITTLE)], ids=["total", "connect"]
)
def test_a_look_up_that_hangs_cannot_exceed_a_limit_and_holds_one_thread(
    monkeypatch: pytest.MonkeyPatch, way: Way, limits: Timeouts
) -> None:
    released, lookups = threading.Event(), []

    def hang(host: str, *_: object, **__: object) -> None:
        lookups.append(host)
        released.wait(WAIT)
        _no_address()

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    host = f"{way}-{'total' if limits.total == LITTLE else 'connect'}.example"
    transport = Transport(f"http://{host}", timeouts=limits, retry=ONCE)
    for _ in range(2):
        with pytest.raises((errors.TimedOut, errors.ConnectionFailed), match="within"):
            way.call(transport)
    released.set()
    assert lookups == [host]


def test_a_failed_look_up_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., RawServer]
) -> None:
    server = serve(WORKS)
    transport = Transport(server.url.replace("127.0.0.1", "localhost"), retry=ONCE)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", _no_address)
        with pytest.raises(errors.ConnectionFailed, match="no such name"):
            SEND.call(transport)
    assert SEND.call(transport) == ["hi"]


def _no_address(*_: object, **__: object) -> None:
    msg = "no such name"
    raise socket.gaierror(msg)


def test_a_server_without_tls_reaches_the_connect_limit(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(says(http(b"{}")))
    address = server.url.replace("http:", "https:")
    # The server reads a TLS greeting and waits for the end of a request that never comes.
    transport = Transport(address, timeouts=quick(connect=0.2), retry=ONCE)

    with pytest.raises(errors.TimedOut, match="time limit `connect`"):
        way.call(transport)


def test_a_turn_of_a_session_is_not_sent_again_if_the_server_closes_without_a_reply(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(closes)
    with pytest.raises(errors.StreamInterrupted) as caught:
        way.call(Transport(server.url, retry=AT_ONCE), IN_SESSION)
    assert caught.value.is_retryable is False
    assert len(server.requests) == 1

    server = serve(closes, closes, WORKS)
    assert way.call(Transport(server.url, retry=AT_ONCE)) == ["hi"]


def test_an_incomplete_reply_is_retried_only_on_a_first_turn(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(says(http(b'{"text": "hi"}')[:-5], keep=False), WORKS)

    with pytest.raises(errors.StreamInterrupted):
        way.call(Transport(server.url, retry=AT_ONCE), IN_SESSION)
    assert way.call(Transport(server.url, retry=AT_ONCE)) == ["hi"]


def test_a_reply_that_is_not_http_counts_as_a_lost_request(
    serve: Callable[..., RawServer], way: Way
) -> None:
    with pytest.raises(errors.StreamInterrupted):
        way.call(Transport(serve(says(b"SSH-2.0-hello\r\n\r\n")).url, retry=ONCE))


def test_injected_clients_get_the_limits_of_each_call(way: Way, time: FakeTime) -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return way.success()

    limits = Timeouts(1.0, None, 3.0, None, total=2.0, silence=1.5)
    way.call(mocked(handler, timeouts=limits, clock=time.clock))

    read = 1.5 if way.streams else 2.0
    assert seen == [{"connect": 1.0, "read": read, "write": 2.0, "pool": 2.0}]


def test_a_limit_of_none_sets_no_timeout(way: Way) -> None:
    script = Script(way.success())

    way.call(mocked(script, timeouts=Timeouts.of(HttpTimeout(None), silence=None)))

    assert set(script.requests[0].extensions["timeout"].values()) == {None}


def test_a_number_as_timeout_is_the_total_limit() -> None:
    assert Timeouts.of(30.0) == Timeouts(total=30.0)
    assert Timeouts.of(900.0) == Timeouts(read=900.0, total=900.0, silence=900.0)
    assert Timeouts.of(None, silence=None) == Timeouts(silence=None)


def test_an_httpx_timeout_limits_single_operations_only() -> None:
    given = HttpTimeout(7.0, connect=3.0)
    assert Timeouts.of(given, 9.0) == Timeouts(
        connect=3.0, read=7.0, write=7.0, pool=7.0, total=None, silence=9.0
    )


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["connect", "read", "write", "pool", "total", "silence"])
def test_a_limit_that_is_not_positive_and_finite_is_refused(name: str, limit: float) -> None:
    with pytest.raises(errors.UsageError, match=f"`{name}` must be a number of seconds above 0"):
        Timeouts(**{name: limit})
