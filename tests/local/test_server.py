"""Start, stop and address of the local server."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer, MemorySessions
from tests.local.api import CHAT, WAIT, Api, Gate, Speaker, detail, said
from tests.local.conftest import Serve

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
AUTHORIZATION = {"Authorization": "Bearer sq-test"}
FILES = Path("/proc/self/fd")
MISSING = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import langchain_sequrity.errors
try:
    from langchain_sequrity.local import LocalServer
except langchain_sequrity.errors.MissingExtra as error:
    print(error)
"""


def server_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "LocalServer"]


def open_files() -> int:
    return len(list(FILES.iterdir()))


@pytest.mark.long
def test_twenty_starts_and_stops_leave_no_threads_and_no_open_files(http: httpx.Client) -> None:
    before = len(server_threads())
    with LocalServer() as server:
        http.get(server.base_url + "/health")
    files = open_files() if FILES.exists() else 0
    for _ in range(20):
        with LocalServer() as server, httpx.Client(trust_env=False) as client:
            url = server.base_url
            reply = client.post(url + CHAT, json=BODY, headers=AUTHORIZATION)
            assert reply.status_code == 200
        with pytest.raises(httpx.ConnectError):
            http.get(url + "/health")
    assert len(server_threads()) == before
    if FILES.exists():
        assert open_files() <= files + 2


@pytest.mark.long
def test_a_server_can_be_stopped_immediately_after_its_start() -> None:
    for _ in range(20):
        LocalServer().start().stop()


def test_a_server_can_start_again_after_it_was_stopped(http: httpx.Client) -> None:
    server = LocalServer()
    for _ in range(3):
        assert server.start() is server
        assert server.start() is server
        assert http.get(server.base_url + "/health").status_code == 200
        server.stop()
        server.stop()


def test_sessions_survive_a_restart_of_the_same_server(http: httpx.Client) -> None:
    server = LocalServer()
    with server:
        session = Api(server, http, "sq-test").chat("Hi").headers["x-session-id"]
    with server:
        assert Api(server, http, "sq-test").chat("Hi", session=session).status_code == 200


def test_the_same_port_can_be_used_again_at_once(http: httpx.Client) -> None:
    with LocalServer() as server:
        port = int(server.base_url.rpartition(":")[2])
    with LocalServer(port=port) as server:
        assert server.base_url == f"http://127.0.0.1:{port}"
        assert http.get(server.base_url + "/health").status_code == 200


def test_a_port_in_use_is_an_error_that_names_it(serve: Serve) -> None:
    port = int(serve().server.base_url.rpartition(":")[2])
    second = LocalServer(port=port)
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
        second.start()
    assert "stopped" in repr(second)


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_an_unusable_address_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(UsageError, match=f"{host}:0"):
        LocalServer(host=host, port=0, api_keys=["sq-test"]).start()


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_port_out_of_range_is_an_error_that_names_the_range(port: int) -> None:
    with pytest.raises(UsageError, match=f"from 0 to 65535, .*; got {port}"):
        LocalServer(port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - refused
@pytest.mark.parametrize("keys", [None, []])
def test_a_server_without_keys_may_listen_only_on_loopback(
    host: str, keys: list[str] | None
) -> None:
    with pytest.raises(UsageError, match="api_keys"):
        LocalServer(host=host, api_keys=keys)


def test_a_server_with_keys_may_listen_on_any_address_with_any_host_name(
    http: httpx.Client,
) -> None:
    with LocalServer(host="0.0.0.0", api_keys=["sq-test"]) as server:  # noqa: S104 - what is tested
        url = server.base_url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - as above
        headers = {**AUTHORIZATION, "Host": "build-17.example"}
        assert http.post(url + CHAT, json=BODY, headers=headers).status_code == 200
        headers["Authorization"] = "Bearer sq-wrong"
        assert http.post(url + CHAT, json=BODY, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fidelity": "exact"}, "fidelity"),
        ({"api_keys": "sq-test"}, "api_keys"),
        ({"api_keys": [""]}, "api_keys"),
        ({"api_keys": ["sq-é"]}, "api_keys"),
        ({"api_keys": ["sq a"]}, "api_keys"),
    ],
)
def test_the_error_for_an_invalid_option_names_it(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"`{named}`"):
        LocalServer(**options)


def test_a_server_has_no_base_url_before_its_start() -> None:
    server = LocalServer()
    with pytest.raises(UsageError, match="start"):
        _ = server.base_url


def test_repr_shows_the_address_and_no_key() -> None:
    server = LocalServer(api_keys=["sq-secret"], fidelity="documented")
    assert repr(server) == "<LocalServer stopped fidelity='documented'>"
    with server:
        assert repr(server) == f"<LocalServer {server.base_url} fidelity='documented'>"
    assert "sq-secret" not in repr(vars(server))


def test_a_server_listens_on_ipv6(http: httpx.Client) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("This machine has no IPv6 loopback.")
    with LocalServer(host="::1") as server:
        assert server.base_url.startswith("http://[::1]:")
        assert http.get(server.base_url + "/health").status_code == 200


async def test_a_server_works_inside_a_running_event_loop() -> None:
    with LocalServer() as server:
        async with httpx.AsyncClient(trust_env=False, headers=AUTHORIZATION) as client:
            posts = [client.post(server.base_url + CHAT, json=BODY) for _ in range(10)]
            replies = await asyncio.gather(*posts)
    assert [reply.status_code for reply in replies] == [200] * 10


def test_wait_returns_when_the_server_has_stopped() -> None:
    server = LocalServer().start()
    threading.Timer(0.1, server.stop).start()
    server.wait(10)
    server.stop()
    server.wait(10)
    assert "stopped" in repr(server)


def endless() -> Iterator[str]:
    pause = threading.Event()
    while True:
        yield "more "
        pause.wait(0.01)


def test_stopping_cuts_open_streams_within_three_seconds(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    server = LocalServer(model=Speaker(pieces=endless)).start()
    with httpx.Client(trust_env=False) as client:
        api = Api(server, client, "sq-test")
        with api.stream("Hi") as reply:
            pieces = reply.iter_bytes()
            next(pieces)
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 3
            with pytest.raises(httpx.TransportError):
                list(pieces)
    assert capfd.readouterr().err == ""
    assert caplog.text == ""


def test_stopping_does_not_wait_for_a_slow_backend() -> None:
    gate = Gate()
    sessions = MemorySessions()
    server = LocalServer(script=[{"answer": gate}], store=sessions).start()
    with httpx.Client(trust_env=False) as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(Api(server, client, "sq-test").chat, "Hi")
        gate.wait_for_request()
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        gate.opened.set()
        reply = running.result(WAIT)
    assert reply.status_code == 503
    assert "stopping" in detail(reply)
    assert len(sessions) == 0


def test_stopping_does_not_wait_for_idle_connections() -> None:
    seconds: list[float] = []
    for _ in range(5):
        server = LocalServer().start()
        with httpx.Client(trust_env=False) as client:
            client.get(server.base_url + "/health")
            began = time.monotonic()
            server.stop()
            seconds.append(time.monotonic() - began)
    assert max(seconds) < 3
    assert min(seconds) < 0.1  # a server of uvicorn never stops sooner


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("package", ["starlette", "uvicorn", "yaml", "regex"])
def test_the_error_for_a_missing_package_has_the_pip_command(package: str) -> None:
    code = MISSING.format(package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert f"`{package}`" in done.stdout
    assert 'pip install "langchain-sequrity[local]"' in done.stdout


def test_replies_are_sent_without_nagles_delay(serve: Serve) -> None:
    # With Nagle's algorithm on, each reply takes the 40 ms of a delayed acknowledgement.
    api = serve()
    api.chat("Hi")
    times: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        said(api.chat("Hi"))
        times.append(time.perf_counter() - began)
    assert min(times) < 0.03


def test_many_servers_that_have_stopped_leave_few_threads(http: httpx.Client) -> None:
    def idle_threads() -> int:
        return sum(thread.name == "turn, idle" for thread in threading.enumerate())

    for _ in range(60):
        with LocalServer(script=[{"text": "Hi"}]) as server:
            assert Api(server, http, key="sq-test").chat("Go").status_code == 200
    assert idle_threads() <= 40
