"""`serve --workers` as a process: workers share sessions, and one of them may die."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner, Result

from langchain_sequrity.cli.commands import cli
from tests.gateway.deployment import run as run_tool
from tests.gateway.test_serve import ALICE, BOB, chat, table
from tests.local.api import CHAT, session_of
from tests.stores.redis_servers import RedisServer, redis_server, why_unavailable
from tests.test_cli import serving

if TYPE_CHECKING:
    import subprocess

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
    pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "it is available"),
]
SECRET = "the key of the digests that all workers share"
PATIENCE = 30


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextmanager
def served(
    folder: Path, store: str, settings: str = "", more: str = "", *, workers: int = 2
) -> Iterator[tuple["subprocess.Popen[bytes]", str, Path]]:
    """A running server with workers, its URL and its log."""
    file, log = folder / "gateway.toml", folder / "log.txt"
    (folder / "secret").write_text(SECRET)
    file.write_text(config(store, settings, more))
    with serving(log, "--config", str(file), "--workers", str(workers)) as (process, url):
        try:
            wait_for(
                log,
                lambda: all_ready(url) and (workers == 1 or len(pids_of(process.pid)) == workers),
            )
            yield process, url, log
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def config(store: str, settings: str = "", more: str = "") -> str:
    return (
        f"[server]\nisolated_programs = false\n{settings}\n"
        '[log]\nformat = "json"\n'
        f'[store]\nurl = "{store}"\nsecret_file = "secret"\n{table(ALICE)}{more}'
    )


def wait_for(log: Path, is_so: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (seen := is_so()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return seen


def ready(url: str) -> int:
    return httpx.get(f"{url}/ready", trust_env=False, timeout=PATIENCE).status_code


def all_ready(url: str) -> bool:
    return ready(url) == 200


def pids_of(supervisor: int) -> set[int]:
    """The processes of the workers."""
    listed = run_tool("ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(supervisor)).stdout
    return {int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line}


def entries(log: Path) -> list[dict[str, Any]]:
    """The lines of the log; that all are JSON shows that they are whole."""
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def answering(log: Path) -> list[int]:
    return [entry["process"] for entry in entries(log) if entry["event"] == "request"]


def talk_until_both_answered(url: str, log: Path, workers: int = 2) -> str:
    """Continue one session with new connections until each worker has answered."""
    session = session_of(chat(url, "sq-alice"))

    def both() -> bool:
        reply = chat(url, "sq-alice", **{"X-Session-ID": session})
        assert reply.status_code == 200, reply.text
        return len({*answering(log)}) == workers

    wait_for(log, both)
    return session


@pytest.mark.skipif(sys.platform != "linux", reason="lists processes as Linux does")
def test_a_session_continues_on_the_other_worker_and_after_a_kill(
    tmp_path: Path, redis: RedisServer
) -> None:
    with served(tmp_path, redis.url) as (process, url, log):
        session = talk_until_both_answered(url, log)
        before = pids_of(process.pid)
        os.kill(min(before), signal.SIGKILL)
        wait_for(log, lambda: len(pids_of(process.pid) - before) == 1)

        def continues() -> bool:
            try:
                reply = chat(url, "sq-alice", **{"X-Session-ID": session})
            except httpx.TransportError:  # the killed worker had it
                return False
            assert reply.status_code == 200, reply.text
            return bool({*answering(log)} - before)

        wait_for(log, continues)
        requests = count(url, "sequrity_requests_total", CHAT)
        # Those of the killed worker are counted too, and any worker tells them.
        assert requests >= len([e for e in entries(log) if e.get("path") == CHAT]) - 1
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    told = entries(log)
    assert sum("Serving on" in entry.get("message", "") for entry in told) == 1
    assert any("died" in entry.get("message", "") for entry in told)
    assert SECRET not in log.read_text()


def count(url: str, name: str, route: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False, timeout=PATIENCE).text
    lines = [line for line in text.splitlines() if line.startswith(name) and route in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_hangup_replaces_keys_in_all_workers(tmp_path: Path, redis: RedisServer) -> None:
    with served(tmp_path, redis.url, more=table(BOB)) as (process, url, log):
        session = talk_until_both_answered(url, log)
        (tmp_path / "gateway.toml").write_text(config(redis.url))
        process.send_signal(signal.SIGHUP)
        message = "1 keys were read again: alice"

        def reread() -> bool:
            return sum(message in e.get("message", "") for e in entries(log)) == 3

        wait_for(log, reread)  # the supervisor, and both workers
        assert {chat(url, "sq-bob").status_code for _ in range(20)} == {401}
        assert chat(url, "sq-alice", **{"X-Session-ID": session}).status_code == 200


def test_a_stop_lets_turns_end_and_a_second_one_does_not_wait(
    tmp_path: Path, redis: RedisServer
) -> None:
    (tmp_path / "script.yaml").write_text("- {text: Slow., delay: 60}")
    with served(tmp_path, redis.url, 'script = "script.yaml"') as (process, url, log):
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            body = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}
            head = {"Authorization": "Bearer sq-alice"}
            sent = client.build_request("POST", url + CHAT, json=body, headers=head)
            with socket.create_connection((sent.url.host, sent.url.port or 80)) as connection:
                lines = [f"{name.decode()}: {value.decode()}" for name, value in sent.headers.raw]
                start = f"POST {CHAT} HTTP/1.1"
                connection.sendall("\r\n".join([start, *lines, "", ""]).encode() + sent.content)
                wait_for(log, lambda: count(url, "sequrity_request_memory_bytes", "") > 0)
                process.terminate()
                wait_for(log, lambda: "Stopping" in log.read_text())
                wait_for(log, lambda: not accepts(sent.url.port or 80))
                assert process.poll() is None
                process.terminate()
                connection.settimeout(PATIENCE)
                assert b"HTTP/1.1 503" in connection.recv(100)
        assert process.wait(timeout=PATIENCE) == 0


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_is_ready_while_its_store_answers(tmp_path: Path) -> None:
    with redis_server() as redis, served(tmp_path, redis.url, workers=1) as (_, url, log):
        redis.kill()
        wait_for(log, lambda: ready(url) == 503)
        health = httpx.get(f"{url}/health", trust_env=False)
        reply = httpx.get(f"{url}/ready", trust_env=False)
        assert (health.status_code, "Redis cannot be used" in reply.text) == (200, True)
        redis.start()
        wait_for(log, lambda: ready(url) == 200)


# Refusals


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, ["serve", "--port", "0", *arguments])


def refused(folder: Path, store: str, *arguments: str, **environment: str) -> str:
    """What the command says of a file with this table `[store]`."""
    (folder / "secret").write_text(SECRET)
    (folder / "gateway.toml").write_text(f"{store}\n")
    result = run("--config", str(folder / "gateway.toml"), *arguments, **environment)
    assert result.exit_code == 1, result.output
    assert "hunter2" not in result.output
    return result.stderr


URL = 'url = "redis://127.0.0.1:1/0"'
STORE = f'[store]\n{URL}\nsecret_file = "secret"'
MISTAKES = [
    ("[server]\nworkers = 2", "2 workers need a store of sessions that they share"),
    (f"[store]\n{URL}", "`secret_file` or `secret_env` is required"),
    (f"[store]\n{URL}\nsecret_env = 'SHORT'", "`secret` needs at least 16 characters"),
    (f"[store]\n{URL}\nsecret_env = 'NO_SUCH'", "`NO_SUCH` of `secret_env` is not set"),
    ("[store]\naccept_loss = true", "`store.accept_loss` is set without `store.url`"),
    ('[store]\nurl = "redis://:hunter2@h/0"', "`store.url`: The URL has a password"),
    ('[store]\nurl = "redis://h/0?password=hunter2"', "`store.url`: The URL has the option `password`"),
    ('[store]\nurl = "hunter2"', "`store.url`: Expected the URL of a Redis"),
    (f"{STORE.replace('redis://', 'http://')}", "begins with `redis://` or `rediss://`"),
    (f"{STORE}\n[limits]\nsessions = 5", "The limit `sessions` cannot be counted over the workers"),
    (f"{STORE}\n{table(ALICE)}memory_share = 10", "`memory_share` cannot be counted over the workers"),
    (STORE, "The store `redis://127.0.0.1:1/0`: Redis cannot be used: ConnectionError"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), MISTAKES)
def test_a_store_with_a_mistake_is_refused_without_showing_secrets(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert problem in refused(tmp_path, text, SHORT="hunter2")


def test_options_name_a_store_as_a_file_does(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    assert "2 workers need a store" in run("--workers", "2").stderr
    url = "redis://127.0.0.1:1/0"
    assert "`secret_file` or `secret_env` is required" in run("--store", url).stderr
    away = run("--workers", "2", "--store", url, "--store-secret-file", str(secret))
    assert "Redis cannot be used" in away.stderr
    shown = run("--store", "redis://:hunter2@127.0.0.1:1/0").output
    assert ("has a password" in shown, "hunter2" in shown) == (True, False)


def test_a_check_says_what_would_run_without_connecting(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    file = tmp_path / "gateway.toml"
    file.write_text(STORE.replace("redis://", "rediss://user@") + "\naccept_loss = true\n")
    result = CliRunner().invoke(cli, ["serve", "--config", str(file), "--workers", "3", "--check"])
    assert result.output.splitlines()[1:3] == [
        "workers 3",
        "store   rediss://127.0.0.1:1/0, lease 10 s, loss is accepted",
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--appendonly", "no"), "no append-only file"),
        (("--maxmemory-policy", "allkeys-lru"), "drops sessions when its memory is full"),
        (("--cluster-enabled", "yes"), "is a node of a cluster"),
        (("--rename-command", "CONFIG", ""), "does not tell its settings"),
    ],
)
def test_a_redis_that_may_lose_sessions_is_refused_unless_that_is_accepted(
    tmp_path: Path, options: tuple[str, ...], problem: str
) -> None:
    with redis_server(options) as redis:
        store = STORE.replace("redis://127.0.0.1:1", redis.url)
        text = refused(tmp_path, store)
        assert problem in text
        assert ("accept_loss = true" in text) == ("cluster" not in problem)
        if "cluster" in problem:
            return
        file = tmp_path / "gateway.toml"
        file.write_text(f"{store}\naccept_loss = true\n")
        with serving(tmp_path / "log.txt", "--config", str(file)) as (_, url):
            assert ready(url) == 200
        log = " ".join((tmp_path / "log.txt").read_text().split())
        assert re.search(rf"WARNING The store .*{problem}.* The loss is accepted", log)
