"""Clients that send too little, read too little, or come in too great numbers."""

import gc
import json
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.local.api import CHAT, WAIT, Api, Speaker, detail, said, session_of
from tests.local.conftest import Serve
from tests.local.faults.loads import LARGE, Load, Served, head, large, request
from tests.local.floods import MB, MOST, PATIENCE, chat, headers

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@contextmanager
def connected(base_url: str, sent: bytes = b"") -> Iterator[socket.socket]:
    """A connection whose client receives little before it reads."""
    address = urlsplit(base_url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(PATIENCE)
        connection.connect((address.hostname, address.port))
        connection.sendall(sent)
        yield connection


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def eventually(is_so: Callable[[], Any]) -> None:
    """Wait until a state of the server is reached."""
    end = time.monotonic() + WAIT
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


# Clients that send too little


def test_a_connection_that_sends_nothing_is_closed(serve: Serve) -> None:
    api = serve(limits={"head_seconds": 0.1})
    with connected(api.server.base_url) as silent:
        assert received(silent) == b""


@pytest.mark.parametrize("before", [b"", request(large())], ids=["first", "second"])
def test_a_head_that_does_not_arrive_in_time_is_408(before: bytes, serve: Serve) -> None:
    api = serve(limits={"head_seconds": 0.1})
    with connected(api.server.base_url, before + head()[:-1]) as slow:
        reply = received(slow)
    assert reply.count(b"HTTP/1.1 ") == 1 + bool(before)
    assert b"HTTP/1.1 408 Request Timeout" in reply
    assert b"`serve --limit head_seconds=" in reply


def test_a_connection_that_sends_a_head_byte_by_byte_is_closed(serve: Serve) -> None:
    api = serve(limits={"head_seconds": 0.2})
    with connected(api.server.base_url) as slow, suppress(ConnectionError):
        for _ in range(10_000):
            slow.sendall(b"G")
            time.sleep(0.01)
        pytest.fail("it was not closed")


def test_a_body_that_goes_on_after_its_refusal_is_cut(serve: Serve) -> None:
    api = serve(limits={"body_seconds": 0.2})
    unwanted = request(b"x", "Authorization: none", length=1_000_000)
    with connected(api.server.base_url, unwanted) as slow:
        assert received(slow).startswith(b"HTTP/1.1 401 ")


def test_a_body_in_ten_thousand_tiny_chunks_is_400_and_in_larger_ones_is_read(api: Api) -> None:
    body = json.dumps(chat("x" * 1_500_000)).encode()
    for size, status in ((1, b"400 "), (100, b"200 ")):
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        with connected(api.server.base_url) as connection:
            with suppress(ConnectionError):  # the server refuses before it has read all
                connection.sendall(head("Transfer-Encoding: chunked") + coded)
            with suppress(ConnectionError):
                assert connection.recv(65_536).startswith(b"HTTP/1.1 " + status)


def test_heads_that_are_not_complete_share_the_memory_of_requests(serve: Serve) -> None:
    api = serve(limits={"requests_bytes": 200_000})
    part = head("X-Note: " + "y" * 60_000)[:-2]
    with ExitStack() as stack:
        first, *_, last = (
            stack.enter_context(connected(api.server.base_url, part)) for _ in range(3)
        )
        assert received(last).startswith(b"HTTP/1.1 429 ")
        assert api.chat("Hi").status_code == 200
        first.sendall(b"\r\n")
        assert first.recv(65_536).startswith(b"HTTP/1.1 ")
    free = api.server._services.budget
    eventually(lambda: free._free == free.total)


def test_a_key_that_sends_half_bodies_leaves_connections_for_another_key(serve: Serve) -> None:
    api = serve(limits={"connections": 8})
    half = request(b'"', "Authorization: Bearer greedy", length=100)
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(api.server.base_url, half)) for _ in range(20)]
        assert api.chat("Hi").status_code == 200
        refused = next(filter(None, map(answered, reversed(opened))))
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"wait for the rest of their bodies" in refused
        assert b"`serve --limit connections=" in refused


def answered(connection: socket.socket) -> bytes:
    """What has come so far."""
    connection.settimeout(0.1)
    with suppress(TimeoutError, ConnectionError):
        return connection.recv(65_536)
    return b""


# Clients that read too little


@pytest.fixture
def impatient(serve: Serve) -> Api:
    """A server with one turn at once, which soon cuts clients that do not read."""
    limits = {"write_seconds": 0.3, "turns_at_once": 1}
    return serve(model=Speaker(pieces=lambda: iter(["word " * 20_000] * 60)), limits=limits)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_stops_reading_is_cut_and_leaves_nothing_behind(
    stream: bool, impatient: Api
) -> None:
    session = session_of(impatient.chat("Hi"))
    body = json.dumps(chat("Go on", stream=stream)).encode()
    lines = (f"X-Session-ID: {session}", f"Authorization: Bearer {impatient.key}")
    with connected(impatient.server.base_url, request(body, *lines)) as stopped:
        stopped.recv(100)
        eventually(lambda: impatient.chat("And now?", session=session).status_code == 200)
        budget = impatient.server._services.budget
        eventually(lambda: budget._free == budget.total)
        with suppress(ConnectionError):
            assert len(received(stopped)) < LARGE


def test_a_model_ends_soon_after_its_client_has_left_the_stream(serve: Serve) -> None:
    is_waiting, has_ended = threading.Event(), threading.Event()

    def words() -> Iterator[str]:
        try:
            yield "word "
            is_waiting.set()
            while not has_ended.wait(0.2):
                yield "word "
        finally:
            has_ended.set()

    api = serve(model=Speaker(pieces=words))
    gc.disable()  # nobody else closes the stream
    try:
        with httpx.stream(
            "POST", api.server.base_url + CHAT, json=chat("Hi", stream=True), headers=headers()
        ) as reply:
            received_bytes = reply.iter_bytes()  # without a name it would be closed at once
            assert next(received_bytes)
            assert is_waiting.wait(WAIT)
        assert has_ended.wait(WAIT)
    finally:
        gc.enable()


def test_a_client_that_reads_slowly_gets_the_whole_reply(impatient: Api) -> None:
    with connected(impatient.server.base_url, request(json.dumps(chat("Hi")).encode())) as slow:
        data = b""
        while part := slow.recv(200_000):
            data += part
            time.sleep(0.001)
            if len(data) > 6 * MB:
                break
    assert data.startswith(b"HTTP/1.1 200 ")
    assert len(data) > 6 * MB


def test_a_reply_that_its_client_has_not_read_is_charged_but_holds_no_turn(serve: Serve) -> None:
    script = [{"when": {"user": "large"}, "text": "Many words. " * (LARGE // 6)}]
    api = serve(script=script, limits={"turns_at_once": 1})
    budget = api.server._services.budget
    for stream in (False, True):
        with connected(api.server.base_url, request(large(stream=stream))) as unread:
            unread.recv(100)
            if not stream:
                eventually(lambda: api.chat("Hi").status_code == 200)
            assert budget._free < budget.total
            while b"0\r\n\r\n" not in (data := unread.recv(1 * MB)) and not data.endswith(b"}"):
                pass
        eventually(lambda: budget._free == budget.total)


# Many clients


@ON_LINUX
def test_300_silent_connections_do_not_keep_a_call_from_256_descriptors() -> None:
    with Served(files=256) as server, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(server.base_url))
        reply = httpx.post(
            server.base_url + CHAT,
            json=chat("Hi"),
            headers=headers(),
            timeout=PATIENCE,
            trust_env=False,
        )
        assert said(reply)["content"]
        assert not server.log


@ON_LINUX
def test_all_calls_of_100_clients_are_answered_with_64_descriptors() -> None:
    def call_twice(number: int) -> list[str]:
        with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
            body = chat(f"I am {number}.")
            replies = [
                client.post(server.base_url + CHAT, json=body, headers=headers()) for _ in "12"
            ]
        return [said(reply)["content"] for reply in replies]

    with Served(files=64) as server, ThreadPoolExecutor(100) as pool:
        answers = [*pool.map(call_twice, range(100))]
        assert not server.log
    assert answers == [[f"You said: I am {number}."] * 2 for number in range(100)]


def test_while_a_client_waits_for_a_connection_replies_end_theirs(serve: Serve) -> None:
    api = serve(limits={"connections": 1})
    hello = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def reply(connection: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"}"):
            data += connection.recv(65_536)
        return data

    with ExitStack() as stack:
        first = stack.enter_context(connected(api.server.base_url, hello))
        assert b"connection: close" not in reply(first).lower()
        second, third = (
            stack.enter_context(connected(api.server.base_url, hello)) for _ in range(2)
        )
        assert received(first) == b"", "it is closed, because the others wait"
        assert b"connection: close" in reply(second).lower()
        assert reply(third).startswith(b"HTTP/1.1 200 ")


# Memory


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server
        assert "Traceback" not in server.log


@ON_LINUX
@pytest.mark.parametrize(
    ("act", "count"),
    [
        ("unread streams", 60),
        ("unread keyed replies", 60),
        ("chunks of one byte", 8),
        ("half heads", 150),
    ],
)
def test_the_memory_of_a_server_stays_within_its_limit(
    act: str, count: int, served: Served
) -> None:
    watch = Load(act, [act] * count, seconds=1).send_to(served)
    assert watch.grown < MOST
    assert watch.health > 0


def test_one_bearer_cannot_take_the_memory_of_another(serve: Serve) -> None:
    api = serve(limits={"requests_bytes": MB})
    with ExitStack() as stack:
        for _ in range(20):
            half = request(b'"' + b"x" * 1_000, length=30_000)  # three times that is reserved
            stack.enter_context(connected(api.server.base_url, half))
        budget = api.server._services.budget
        eventually(lambda: budget._free < MB // 5)
        greedy = Api(api.server, api.http, "flood").chat("x" * 30_000)
        assert greedy.status_code == 429
        assert greedy.headers["retry-after"] == "1"
        assert "your own key" in detail(greedy)
        assert api.chat("x" * 3_000).status_code == 200


@pytest.mark.parametrize(
    ("messages", "most"), [(["Hello there"], 6_000), (["word " * 200] * 8, 20_000)]
)
def test_a_kept_chat_takes_little_memory_and_is_counted_so(
    messages: list[str], most: int, serve: Serve
) -> None:
    api = serve(console=False)  # it keeps parts of them, too
    store: Any = api.server.sessions
    body: Any = [
        {"role": ("user", "assistant")[number % 2], "content": f"{number} {text}"}
        for number, text in enumerate(messages)
    ]

    def begin(times: int) -> None:
        for _ in range(times):
            assert api.chat(*body, {"role": "user", "content": "So?"}).status_code == 200

    begin(20)
    tracemalloc.start()
    try:
        begin(100)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 100 * most
    assert store._shares._total < 120 * most


def test_the_command_raises_the_memory_of_all_sessions() -> None:
    from langchain_sequrity.cli.services import limits_by_name  # noqa: PLC0415
    from langchain_sequrity.local import LocalServer  # noqa: PLC0415

    server = LocalServer(limits=limits_by_name(["sessions_bytes=400_000_000", "sessions=50_000"]))
    assert server.sessions._max_bytes == 400_000_000  # type: ignore[attr-defined]


# Twice


def test_a_request_is_not_answered_twice_however_many_others_come(serve: Serve) -> None:
    asked: list[object] = []

    def answer(request: object) -> str:
        asked.append(request)
        return f"answer {len(asked)}"

    api = serve(script=[{"answer": answer}])
    first = api.chat("Hi", headers={"Idempotency-Key": "first"})
    for number in range(1_010):
        api.chat("Hi", headers={"Idempotency-Key": str(number)})
    again = api.chat("Hi", headers={"Idempotency-Key": "first"})
    assert again.content == first.content
    assert session_of(again) == session_of(first)
    assert len(asked) == 1_011
