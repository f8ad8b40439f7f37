"""Connections are shared by threads, event loops and forked children, and always released."""

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.transport import RetryPolicy, Transport, pool
from langchain_sequrity.transport.http11 import Origin, ServiceAddress
from langchain_sequrity.transport.timeouts import Deadline
from tests.transport.transport_helpers import (
    ASEND,
    ASTREAM,
    AT_ONCE,
    FIRST_TURN,
    SEND,
    STREAM_HEAD,
    STREAMS,
    WAIT,
    WORKS,
    Answer,
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
    read,
    says,
)

ONCE = RetryPolicy(max_retries=0)
Serve = Callable[..., RawServer]
FDS = Path("/proc/self/fd")
needs_proc = pytest.mark.skipif(not FDS.exists(), reason="counts open files in /proc")


def open_files() -> int:
    return len(list(FDS.iterdir()))


def answer_then_close(way: Way) -> Any:
    if way.streams:
        return says(STREAM_HEAD, chunk(events("hi")), b"0\r\n\r\n", keep=False)
    return says(http(b'{"text": "hi"}'), keep=False)


# Event loops


@needs_proc
@pytest.mark.parametrize("way", [ASEND, ASTREAM], ids=str)
def test_event_loops_leave_no_connections_behind(serve: Serve, way: Way) -> None:
    server = serve(STREAMS if way.streams else WORKS)
    transport = Transport(server.url)
    way.call(transport)
    before = open_files()

    for _ in range(10):
        assert way.call(transport) in (["hi"], ["a", "b"])
        assert len(pool._loops) == 0
        assert server.closed.acquire(timeout=WAIT)

    gc.collect()
    assert len(server.requests) == 11
    assert open_files() <= before + 2


def test_the_pool_of_a_loop_that_was_closed_without_shutdown_is_dropped(serve: Serve) -> None:
    transport = Transport(serve(WORKS).url)

    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ASEND.acall(transport)) == ["hi"]
        loop.run_until_complete(transport.aclose())
        loop.close()
        assert len(pool._loops) == 1

    assert ASEND.call(transport) == ["hi"]
    assert len(pool._loops) == 0


def test_a_connection_released_after_its_pool_was_closed_is_closed(serve: Serve) -> None:
    server = serve(WORKS)
    transport = Transport(server.url)

    async def main() -> None:
        await (await own_pool()).aclose()
        assert await ASEND.acall(transport) == ["hi"]
        assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)

    asyncio.run(main())


async def test_many_tasks_share_the_connections_of_their_loop(serve: Serve) -> None:
    server = serve(WORKS)
    transport = Transport(server.url)

    for _ in range(2):
        replies = await asyncio.gather(*(ASEND.acall(transport) for _ in range(200)))
        assert replies == [["hi"]] * 200

    assert len(server.connections) <= 300  # 100 are kept for the second round


def test_many_threads_share_the_connections_of_their_process(serve: Serve) -> None:
    server = serve(WORKS)
    transport = Transport(server.url)

    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(lambda _: SEND.call(transport), range(200)))

    assert replies == [["hi"]] * 200
    assert len(server.connections) <= 20


def test_consecutive_calls_use_one_connection(serve: Serve) -> None:
    server = serve(WORKS)
    transports = [Transport(server.url), Transport(server.url + "/")]

    for transport in transports * 3:
        assert SEND.call(transport) == ["hi"]

    assert len(server.connections) == 1


@needs_proc
def test_thousands_of_calls_open_no_further_files(serve: Serve) -> None:
    server = serve(WORKS)
    transport = Transport(server.url)
    SEND.call(transport)
    before = open_files()

    for _ in range(5000):
        transport.send(FIRST_TURN, read)

    assert open_files() <= before
    assert len(server.connections) == 1


@needs_proc
def test_failures_open_no_further_files(serve: Serve, way: Way) -> None:
    server = serve(says(http(b"{}")[:-1], keep=False))
    transport = Transport(server.url, retry=ONCE)
    with pytest.raises(errors.StreamInterrupted):
        way.call(transport)
    before = open_files()

    for _ in range(10):
        with pytest.raises(errors.StreamInterrupted):
            way.call(transport)

    gc.collect()
    assert open_files() <= before + 2


# Cancelling


@pytest.mark.parametrize("way", [ASEND, ASTREAM], ids=str)
@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "half way"])
async def test_a_cancelled_task_closes_its_connection_and_frees_its_slot(
    serve: Serve, way: Way, begun: bool
) -> None:
    def stalls(connection: socket.socket) -> bool:
        if begun:
            connection.sendall(STREAM_HEAD.replace(b"text/event-stream", b"application/json"))
        return hangs(connection)

    server = serve(stalls)
    transport = Transport(server.url, timeouts=quick())
    task = asyncio.create_task(way.acall(transport))
    assert await asyncio.to_thread(server.asked.acquire, timeout=WAIT)
    await asyncio.sleep(0.05)
    slots = (await own_pool())._pools[Origin.from_url(httpx.URL(server.url))].slots

    assert slots._value == pool.MAX_OPEN - 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert slots._value == pool.MAX_OPEN
    assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)


async def own_pool() -> pool.AsyncPool:
    sender = await pool.shared_async_sender(())
    assert isinstance(sender, pool.AsyncPool)
    return sender


async def test_a_cancelled_anyio_scope_releases_its_connection(serve: Serve) -> None:
    server = serve(says(STREAM_HEAD, chunk(events("a", done=False))))
    transport = Transport(server.url)

    with anyio.move_on_after(0.1):
        async with aclosing(transport.astream(FIRST_TURN, Reader)) as pieces:
            async for piece in pieces:
                assert piece == "a"

    assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)
    origin_pool = (await own_pool())._pools[Origin.from_url(httpx.URL(server.url))]
    assert origin_pool.slots._value == pool.MAX_OPEN


async def test_a_task_cancelled_at_any_moment_leaves_nothing_open(serve: Serve) -> None:
    server = serve(STREAMS)
    transport = Transport(server.url)
    origin_pool = None

    for moment in range(40):
        task = asyncio.create_task(ASTREAM.acall(transport))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        origin_pool = (await own_pool())._pools.get(Origin.from_url(httpx.URL(server.url)))
        assert origin_pool is None or origin_pool.slots._value == pool.MAX_OPEN

    assert await ASTREAM.acall(transport) == ["a", "b"]
    gc.collect()


# Limits of the pool


def no_tls() -> Any:
    raise NotImplementedError


def test_a_thread_waits_for_a_full_pool_up_to_the_pool_limit(serve: Serve) -> None:
    request = ServiceAddress(serve(WORKS).url).request(FIRST_TURN)
    small = pool.Pool(no_tls, max_open=1)

    def call(deadline: Deadline, **limits: float) -> bytes:
        with small.open(request, quick(**limits), deadline) as (_, pieces):
            return b"".join(pieces)

    with small.open(request, quick(), Deadline()):
        with pytest.raises(httpcore.PoolTimeout):
            call(Deadline(), pool=0.02)
        with pytest.raises(httpcore.PoolTimeout):
            call(Deadline(total=0.02))

    assert call(Deadline()) == b'{"text": "hi"}'
    small.close()


async def test_a_task_waits_for_a_full_pool_up_to_the_pool_limit(serve: Serve) -> None:
    request = ServiceAddress(serve(WORKS).url).request(FIRST_TURN)
    small = pool.AsyncPool(no_tls, max_open=1)

    async def call(**limits: float) -> bytes:
        async with small.open(request, quick(**limits), Deadline()) as (_, pieces):
            return b"".join([data async for data in pieces])

    async with small.open(request, quick(), Deadline()):
        with pytest.raises(httpcore.PoolTimeout):
            await call(pool=0.02)
        waiting = asyncio.create_task(call())
        await asyncio.sleep(0.02)
        assert not waiting.done()

    assert await waiting == b'{"text": "hi"}'
    await small.aclose()


FAILURES: list[list[Answer]] = [[closes], [says(b"no HTTP\r\n\r\n")], [WORKS, closes]]


FAILED = (httpcore.NetworkError, httpcore.ProtocolError)


@pytest.mark.parametrize("script", FAILURES, ids=["no reply", "no HTTP", "used before"])
def test_a_failed_request_of_a_thread_frees_its_slot(serve: Serve, script: list[Answer]) -> None:
    request = ServiceAddress(serve(*script, WORKS).url).request(FIRST_TURN)

    def call() -> bytes:
        with small.open(request, quick(pool=0.01), Deadline()) as (_, pieces):
            return b"".join(pieces)

    with contextlib.closing(pool.Pool(no_tls, max_open=1)) as small:
        for _ in script:
            with contextlib.suppress(*FAILED):
                call()
        assert call() == b'{"text": "hi"}'


@pytest.mark.parametrize("script", FAILURES, ids=["no reply", "no HTTP", "used before"])
async def test_a_failed_request_of_a_task_frees_its_slot(
    serve: Serve, script: list[Answer]
) -> None:
    request = ServiceAddress(serve(*script, WORKS).url).request(FIRST_TURN)

    async def call() -> bytes:
        async with small.open(request, quick(pool=0.01), Deadline()) as (_, pieces):
            return b"".join([data async for data in pieces])

    async with contextlib.aclosing(pool.AsyncPool(no_tls, max_open=1)) as small:
        for _ in script:
            with contextlib.suppress(*FAILED):
                await call()
        assert await call() == b'{"text": "hi"}'


def test_idle_connections_above_the_limit_are_closed(serve: Serve) -> None:
    server = serve(WORKS)
    request = ServiceAddress(server.url).request(FIRST_TURN)
    small = pool.Pool(no_tls, max_idle=1)

    with contextlib.ExitStack() as stack:
        for _ in range(2):
            _, pieces = stack.enter_context(small.open(request, quick(), Deadline()))
            assert b"".join(pieces) == b'{"text": "hi"}'

    assert server.closed.acquire(timeout=WAIT)
    assert len(server.connections) == 2
    small.close()
    assert server.closed.acquire(timeout=WAIT)


async def test_idle_connections_of_a_loop_above_the_limit_are_closed(serve: Serve) -> None:
    server = serve(WORKS)
    request = ServiceAddress(server.url).request(FIRST_TURN)
    small = pool.AsyncPool(no_tls, max_idle=1)

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            opened = small.open(request, quick(), Deadline())
            _, pieces = await stack.enter_async_context(opened)
            assert b"".join([data async for data in pieces]) == b'{"text": "hi"}'

    assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)
    assert len(server.connections) == 2
    await small.aclose()
    assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)


class Connection:
    """A connection that always works."""

    def __init__(self) -> None:
        self.is_closed = False

    def start_next_cycle(self) -> bool:
        return True

    def was_closed(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


def idle(origin: Any, *connections: Connection) -> list[bool]:
    for _ in connections:
        origin.slots.acquire()
    for connection in connections:
        origin.release(connection)
    return [connection.is_closed for connection in connections]


def test_the_connection_used_last_is_taken_first_and_those_above_the_limit_are_closed() -> None:
    origin: Any = pool.OriginPool(threading.BoundedSemaphore(3), 2)
    connections = [Connection() for _ in range(3)]

    assert idle(origin, *connections) == [True, False, False]
    assert origin.acquire() is connections[2]
    assert origin.acquire() is connections[1]
    assert origin.acquire() is None


def test_a_connection_that_was_idle_for_too_long_is_closed_with_all_older_ones() -> None:
    time = FakeTime()
    origin: Any = pool.OriginPool(threading.BoundedSemaphore(3), 3, time.clock.now)
    connections = [Connection() for _ in range(3)]
    for connection in connections:
        assert idle(origin, connection) == [False]
        time.passes(1)

    time.passes(pool.KEEPALIVE - 1)
    assert origin.acquire() is connections[2]
    time.passes(1.1)
    assert origin.acquire() is None
    assert [one.is_closed for one in connections] == [True, True, False]


def test_a_connection_that_is_idle_for_too_long_is_closed_while_another_is_in_use() -> None:
    time = FakeTime()
    origin: Any = pool.OriginPool(threading.BoundedSemaphore(2), 2, time.clock.now)
    unused, used = Connection(), Connection()
    assert idle(origin, unused, used) == [False, False]

    for _ in range(2):
        assert not unused.is_closed
        assert origin.acquire() is used
        time.passes(pool.KEEPALIVE / 2 + 0.1)
        assert idle(origin, used) == [False]

    assert unused.is_closed


def test_a_connection_that_the_server_closed_is_not_used_again(serve: Serve, way: Way) -> None:
    server = serve(answer_then_close(way))
    transport = Transport(server.url, retry=ONCE)

    async def thrice() -> None:
        for _ in range(3):
            assert await way.acall(transport) == ["hi"]
            assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)

    if way.is_async:
        asyncio.run(thrice())
        return
    for _ in range(3):
        assert way.call(transport) == ["hi"]
        assert server.closed.acquire(timeout=WAIT)


# Closing


def test_close_closes_only_the_connections_to_its_service(serve: Serve) -> None:
    here, there = serve(WORKS), serve(WORKS)
    transport, other = Transport(here.url), Transport(there.url)
    SEND.call(transport)
    SEND.call(other)

    transport.close()

    assert here.closed.acquire(timeout=WAIT)
    assert SEND.call(transport) == ["hi"]
    assert SEND.call(other) == ["hi"]
    assert len(here.connections) == 2
    assert len(there.connections) == 1


async def test_aclose_closes_only_the_connections_to_its_service(
    serve: Serve,
) -> None:
    here, there = serve(WORKS), serve(WORKS)
    transport, other = Transport(here.url), Transport(there.url)
    await transport.aclose()
    await ASEND.acall(transport)
    await ASEND.acall(other)

    await transport.aclose()

    assert await asyncio.to_thread(here.closed.acquire, timeout=WAIT)
    assert await ASEND.acall(transport) == ["hi"]
    assert await ASEND.acall(other) == ["hi"]
    assert len(here.connections) == 2
    assert len(there.connections) == 1


async def test_a_cancelled_aclose_still_closes_all_connections(serve: Serve) -> None:
    server = serve(WORKS)
    transport = Transport(server.url)
    await asyncio.gather(*(ASEND.acall(transport) for _ in range(5)))
    assert len(server.connections) > 1

    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()

    for _ in server.connections:
        assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)


async def test_an_injected_client_is_never_closed() -> None:
    sync_client = httpx.Client(transport=httpx.MockTransport(Script(SEND.success())))
    async_client = httpx.AsyncClient(transport=httpx.MockTransport(Script(SEND.success())))
    transport = Transport(
        "https://service.example", http_client=sync_client, http_async_client=async_client
    )
    SEND.call(transport)
    await ASEND.acall(transport)

    transport.close()
    await transport.aclose()

    assert not sync_client.is_closed
    assert not async_client.is_closed


def test_an_injected_client_adds_its_headers_but_those_of_the_call_have_priority(way: Way) -> None:
    script = Script(way.success())
    mock = httpx.MockTransport(script)
    headers = {"X-Gateway": "mine", "Content-Type": "text/plain"}
    transport = Transport(
        "https://service.example",
        http_client=httpx.Client(transport=mock, headers=headers, follow_redirects=True),
        http_async_client=httpx.AsyncClient(transport=mock, headers=headers),
    )

    way.call(transport)

    (request,) = script.requests
    assert request.method == "POST"
    assert request.headers["x-gateway"] == "mine"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.content == FIRST_TURN.body


def test_a_copy_is_the_same_object_and_a_pickle_is_refused() -> None:
    transport = mocked(Script(SEND.success()))

    assert copy.copy(transport) is transport
    assert copy.deepcopy({"t": transport})["t"] is transport
    with pytest.raises(TypeError, match="make a new one"):
        pickle.dumps(transport)


# Requests on the wire


def test_the_request_is_plain_http_with_the_headers_of_the_call(serve: Serve, way: Way) -> None:
    server = serve(STREAMS if way.streams else WORKS)
    way.call(Transport(server.url + "/prefix/"))

    head, _, body = server.requests[0].decode().partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    names = [header.partition(":")[0].lower() for header in headers]
    assert line == "POST /prefix/control/chat/v1/chat/completions HTTP/1.1"
    assert sorted(names) == sorted(
        [
            "host",
            "content-length",
            "accept-encoding",
            "idempotency-key",
            "authorization",
            "content-type",
        ]
    )
    assert body == '{"hello": 1}'


# Proxies


def test_the_proxy_of_the_environment_is_used(
    serve: Serve, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(STREAMS if way.streams else WORKS)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    transport = Transport("http://service.invalid", retry=AT_ONCE)

    assert way.call(transport) in (["hi"], ["a", "b"])

    assert proxy.requests[0].startswith(b"POST http://service.invalid/control/")
    pool._close_all()
    pool._senders.clear()


def test_an_explicit_proxy_has_priority_over_the_environment(
    serve: Serve, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, other = serve(STREAMS if way.streams else WORKS), serve(WORKS)
    monkeypatch.setenv("HTTP_PROXY", other.url)
    transport = Transport("http://127.0.0.1:9", retry=AT_ONCE, proxy=proxy.url)

    assert way.call(transport) in (["hi"], ["a", "b"])

    assert proxy.requests[0].startswith(b"POST http://127.0.0.1:9/control/")
    assert other.requests == []
    pool._close_all()
    pool._senders.clear()


@pytest.mark.parametrize("name", ["explicit", "_EXPLICIT", "PROXY", ""])
def test_variables_that_only_look_like_proxy_settings_are_ignored(
    serve: Serve, way: Way, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy, other = serve(STREAMS if way.streams else WORKS), serve(WORKS)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv(f"{name}_PROXY", other.url)
    transport = Transport("http://service.invalid", retry=AT_ONCE)

    assert way.call(transport) in (["hi"], ["a", "b"])

    assert other.requests == []
    pool._close_all()
    pool._senders.clear()


def test_a_shared_client_behind_a_proxy_keeps_no_cookies(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = http(b'{"text": "hi"}').replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n", 1)
    proxy = serve(says(reply))
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    transport = Transport("http://service.invalid")

    for _ in range(2):
        assert SEND.call(transport) == ["hi"]

    assert b"cookie" not in proxy.requests[1].lower()
    pool._close_all()
    pool._senders.clear()


@pytest.mark.parametrize("proxy", ["foo://me:secret@proxy.example", "http://me:secret@proxy:x"])
def test_proxy_settings_that_cannot_be_used_are_refused(
    way: Way, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(errors.UsageError, match="proxy settings") as caught:
        way.call(Transport("https://service.example", retry=ONCE))

    assert "secret" not in str(caught.value)


def test_a_host_in_no_proxy_is_reached_directly(
    serve: Serve, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(STREAMS if way.streams else WORKS), serve(WORKS)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    way.call(Transport(server.url))

    assert len(server.requests) == 1
    assert proxy.requests == []


# Processes

FORKING = """
import os, sys
from tests.transport.transport_helpers import SEND, ASEND
from langchain_sequrity.transport import Transport

transport = Transport(sys.argv[1])
assert SEND.call(transport) == ["hi"]
child = os.fork()
if not child:
    works = SEND.call(transport) == ["hi"] and ASEND.call(transport) == ["hi"]
    os._exit(0 if works else 1)
_, status = os.waitpid(child, 0)
assert status == 0
assert SEND.call(transport) == ["hi"]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own_connections(serve: Serve) -> None:
    server = serve(WORKS)

    done = run(FORKING, server.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.requests) == 4
    assert len(server.connections) == 3


OVER_TLS = """
import asyncio, sys
from tests.transport.transport_helpers import ASEND, ASTREAM, SEND, STREAM
from langchain_sequrity.transport import Transport

transport = Transport(sys.argv[1])
assert SEND.call(transport) + STREAM.call(transport) == ["hi", "a", "b"]

async def main():
    assert await ASEND.acall(transport) + await ASTREAM.acall(transport) == ["hi", "a", "b"]

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("makes a certificate with openssl")
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {path}.crt"
    )
    subprocess.run(  # noqa: S603  # our own command
        command.split(),
        check=True,
        capture_output=True,
    )
    with path.open("ab") as both:
        both.write(Path(f"{path}.crt").read_bytes())
    return path


def server_tls(cert: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert)
    return tls


FORGED = http(b'{"text": "forged"}')


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "beyond",
    [says(FORGED), lambda connection: bool(connection.unwrap())],
    ids=["another reply", "the end"],
)
def test_a_tls_connection_with_more_data_after_its_reply_is_not_used_again(
    cert: Path, is_async: bool, beyond: Answer
) -> None:
    def answers(connection: socket.socket) -> bool:
        slowly = says(b"", http(b'{"text": "hi"}'), pause=0.05)
        return slowly(connection) and beyond(connection)

    def whole(replies: pool.Pool) -> bytes:
        with replies.open(request, quick(), Deadline()) as (_, pieces):
            return b"".join(pieces)

    async def awhole(replies: pool.AsyncPool) -> bytes:
        async with replies.open(request, quick(), Deadline()) as (_, pieces):
            return b"".join([data async for data in pieces])

    async def atwice() -> list[bytes]:
        replies = pool.AsyncPool(client_tls)
        first = asyncio.create_task(awhole(replies))
        assert await asyncio.to_thread(server.asked.acquire, timeout=WAIT)
        time.sleep(0.2)  # noqa: ASYNC251  # so that the loop finds all at once
        both = [await first, await awhole(replies)]
        await replies.aclose()
        return both

    def twice() -> list[bytes]:
        with contextlib.closing(pool.Pool(client_tls)) as replies:
            first = whole(replies)
            time.sleep(0.2)
            return [first, whole(replies)]

    def client_tls() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=cert)

    with RawServer([answers, WORKS], server_tls(cert)).running() as server:
        request = ServiceAddress(server.url).request(FIRST_TURN)
        both = asyncio.run(atwice()) if is_async else twice()

    assert both == [b'{"text": "hi"}'] * 2
    assert len(server.connections) == 2


def test_the_error_of_unreadable_certificates_names_the_variable(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_ssl_context", pool._ssl_context.__wrapped__)
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    monkeypatch.setattr(pool, "_senders", {})

    with pytest.raises(errors.UsageError, match="SSL_CERT_FILE"):
        way.call(Transport("https://127.0.0.1:1", retry=ONCE))


def test_connections_over_tls_are_verified_and_kept(cert: Path) -> None:
    tls = server_tls(cert)
    with RawServer([WORKS, STREAMS, WORKS, STREAMS], tls).running() as server:
        done = run(OVER_TLS, server.url, SSL_CERT_FILE=str(cert))
        assert (done.returncode, done.stderr) == (0, "")
        assert len(server.connections) == 2

        distrusted = run(OVER_TLS, server.url)
        assert "ConnectionFailed" in distrusted.stderr
        assert "CERTIFICATE_VERIFY_FAILED" in distrusted.stderr


def run(program: str, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that treats warnings as errors."""
    return subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-W", "error", "-c", program, url],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


OPENS_NOTHING = """
import sys, threading

opened = []
OPENING = {"socket.connect", "socket.getaddrinfo"}  # urllib3 binds a socket when it is imported
sys.addaudithook(lambda event, _: event in OPENING and opened.append(event))

from langchain_sequrity.transport import Transport, pool

Transport(sys.argv[1])
assert opened == [], opened
assert pool._senders == {}
assert pool._ssl_context.cache_info().currsize == 0  # reading certificates takes milliseconds
assert threading.active_count() == 1
"""


def test_importing_and_making_a_transport_opens_nothing() -> None:
    done = run(OPENS_NOTHING, "https://service.example")
    assert (done.returncode, done.stderr) == (0, "")
