"""A server that stops lets turns end; a second signal ends them."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from langchain_sequrity.local import LocalServer, MemorySessions
from langchain_sequrity.local.store import Lease
from tests.local.api import CHAT, WAIT, Api, Gate, Speaker, streamed_text
from tests.local.operated.serving import url_in, wait_until

TURNS = 10
BODY = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}
KEY = {"Authorization": "Bearer sq-test"}


@contextmanager
def turns_under_way(
    server: LocalServer, gate: Gate, count: int = TURNS
) -> Iterator[list["Future[httpx.Response]"]]:
    """Turns that wait for the gate, each on its own connection."""
    with ThreadPoolExecutor(count) as threads:
        url = server.base_url + CHAT
        futures = [
            threads.submit(
                httpx.post, url, json=BODY, headers=KEY, trust_env=False, timeout=3 * WAIT
            )
            for _ in range(count)
        ]
        for _ in futures:
            gate.wait_for_request()
        try:
            yield futures
        finally:
            gate.opened.set()


def stopping(server: LocalServer, grace: float) -> threading.Thread:
    thread = threading.Thread(target=server.stop, args=[grace])
    thread.start()
    operation = server._services.operation
    wait_until(lambda: operation.is_draining, "the server is stopping")
    return thread


def test_turns_under_way_end_with_their_answers() -> None:
    gate = Gate()
    server = LocalServer(script=[{"answer": gate}]).start()
    with turns_under_way(server, gate) as futures:
        thread = stopping(server, 3 * WAIT)
        assert not any(future.done() for future in futures)
        gate.opened.set()
        replies = [future.result(3 * WAIT) for future in futures]
    thread.join(3 * WAIT)
    assert not thread.is_alive()
    assert [reply.status_code for reply in replies] == [200] * TURNS
    assert {reply.headers["connection"] for reply in replies} == {"close"}
    assert {reply.json()["choices"][0]["message"]["content"] for reply in replies} == {"opened"}


def test_a_long_stream_ends_by_itself() -> None:
    more = threading.Event()

    def pieces() -> Iterator[str]:
        yield "begin "
        assert more.wait(WAIT)
        yield from (f"{number} " for number in range(100))
        yield "end"

    server = LocalServer(model=Speaker(pieces=pieces)).start()
    with httpx.Client(trust_env=False) as client:
        api = Api(server, client, "sq-test")
        with api.stream("Hi") as reply:
            chunks = reply.iter_bytes()
            received = next(chunks)
            thread = stopping(server, 3 * WAIT)
            more.set()
            received += b"".join(chunks)
    thread.join(3 * WAIT)
    assert streamed_text(received).endswith(" 99 end")


def test_turns_that_take_longer_than_the_grace_get_503() -> None:
    gate = Gate()
    server = LocalServer(script=[{"answer": gate}]).start()
    with turns_under_way(server, gate, 2) as futures:
        server.stop(0)
        assert [future.result(WAIT).status_code for future in futures] == [503, 503]


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_got_503_changes_no_session_when_its_model_answers_at_last(
    stream: bool,
) -> None:
    gate, ended = Gate(), threading.Event()

    class Sessions(MemorySessions):
        async def release(self, lease: Lease) -> None:
            await super().release(lease)
            ended.set()

    sessions = Sessions()
    server = LocalServer(script=[{"answer": gate}], store=sessions).start()
    with ThreadPoolExecutor(1) as threads:
        body = {**BODY, "stream": stream}
        future = threads.submit(
            httpx.post,
            server.base_url + CHAT,
            json=body,
            headers=KEY,
            trust_env=False,
            timeout=WAIT,
        )
        gate.wait_for_request()
        server.stop(0)
        assert future.result(WAIT).status_code == 503
    gate.opened.set()
    assert ended.wait(WAIT)  # the session is not left reserved
    assert len(sessions) == 0


def test_a_second_stop_shortens_the_grace_of_the_first() -> None:
    gate = Gate()
    server = LocalServer(script=[{"answer": gate}]).start()
    with turns_under_way(server, gate, 2) as futures:
        thread = stopping(server, 1_000)
        server.stop(0)
        assert [future.result(WAIT).status_code for future in futures] == [503, 503]
        thread.join(WAIT)
        assert not thread.is_alive()


def test_no_connection_is_accepted_any_more_and_the_kept_ones_are_told() -> None:
    gate = Gate()
    server = LocalServer(script=[{"answer": gate}]).start()
    port = int(server.base_url.rpartition(":")[2])
    head = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as busy:
        body = b'{"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}'
        start = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sq-test\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        busy.sendall(start.encode() + body)
        gate.wait_for_request()
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as idle:
            idle.sendall(head)
            received = b""
            while not received.endswith(b"}"):
                received += idle.recv(65536)
            thread = stopping(server, 3 * WAIT)
            assert idle.recv(65536) == b""  # closed
        wait_until(lambda: _is_refused(port), "connections are refused")
        gate.opened.set()
        reply = b""
        while data := busy.recv(65536):
            reply += data
    thread.join(3 * WAIT)
    assert reply.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in reply.lower()


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT).close()
    except ConnectionError:
        return True
    return False


def test_a_stopping_server_is_not_ready() -> None:
    gate = Gate()
    server = LocalServer(script=[{"answer": gate}]).start()
    operation = server._services.operation
    with httpx.Client(trust_env=False, base_url=server.base_url) as http:
        operation.is_draining = True  # what `stop` sets before it closes connections
        reply = http.get("/ready")
        assert http.get("/health").status_code == 200
    server.stop()
    assert reply.status_code == 503
    assert reply.json() == {"status": "not ready", "not_ready": ["The server is stopping."]}


def test_a_stopped_server_can_be_started_again() -> None:
    server = LocalServer().start()
    server.stop()
    with server, httpx.Client(trust_env=False) as http:
        assert http.get(f"{server.base_url}/ready").status_code == 200


# `serve`


@contextmanager
def serving_slowly(tmp_path: Path, grace: str) -> Iterator[tuple[str, int, Path, Path]]:
    """`serve` behind a model that answers once a file exists; yields URL, pid, file and log."""
    opened, entered, log = (tmp_path / name for name in ("opened", "entered", "out.txt"))
    program = f"""
import time, pathlib, sys
from langchain_sequrity.local import LocalServer, Script
from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.cli.serve import serve_until_stopped
from rich.console import Console

def answer(request):
    with open({str(entered)!r}, "a") as file:
        file.write("x")
    while not pathlib.Path({str(opened)!r}).exists():
        time.sleep(0.01)
    return "done"

log = ServerLog(Console())
server = LocalServer(script=[{{"answer": answer}}], on_request=log.add)
serve_until_stopped(server, log, with_keys=False, grace={grace})
"""
    with (
        log.open("wb") as stdout,
        subprocess.Popen([sys.executable, "-c", program], stdout=stdout, stderr=stdout) as process,  # noqa: S603
    ):
        try:
            wait_until(lambda: url_in(log.read_text("utf-8")), "the server started")
            yield url_in(log.read_text("utf-8")), process.pid, opened, entered
            assert process.wait(timeout=3 * WAIT) == 0
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_waits_for_ten_turns_and_a_second_one_ends_them(
    tmp_path: Path, signals: int
) -> None:
    with (
        ThreadPoolExecutor(TURNS) as threads,
        serving_slowly(tmp_path, grace="60") as (url, pid, opened, entered),
    ):
        futures = [
            threads.submit(
                httpx.post, url + CHAT, json=BODY, headers=KEY, trust_env=False, timeout=3 * WAIT
            )
            for _ in range(TURNS)
        ]
        wait_until(lambda: entered.exists() and len(entered.read_text()) == TURNS, "all run")
        os.kill(pid, signal.SIGTERM)
        port = int(url.rpartition(":")[2])
        wait_until(lambda: _is_refused(port), "the server is stopping")
        if signals == 1:
            opened.touch()
        else:
            os.kill(pid, signal.SIGTERM)
        statuses = {future.result(3 * WAIT).status_code for future in futures}
        opened.touch()
    assert statuses == {200 if signals == 1 else 503}
    assert "Stopping: turns under way have 60 s." in (tmp_path / "out.txt").read_text("utf-8")
