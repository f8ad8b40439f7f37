"""A real Caddy with the example's file in front of a server: TLS, streams, and who the client is."""

import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from langchain_sequrity.local import ApiKey, LocalServer
from tests.gateway.deployment import EXAMPLE, free_port, tool
from tests.gateway.test_serve import table
from tests.local.api import CHAT, WAIT, Speaker
from tests.test_cli import serving

DOMAIN = "gateway.example"
ALICE = ApiKey.from_secret("sq-alice", "alice")
CLIENT = "127.0.0.7"
# For a test without the names and the certificates of the internet, and without root's files.
_GLOBAL = """{{
	admin off
	local_certs
	skip_install_trust
	http_port {http}
	https_port {https}
}}
import {caddyfile}
"""


@contextmanager
def caddy(folder: Path, upstream: str) -> Iterator[httpx.Client]:
    """A client of a running Caddy. It comes from another address, and asks for the domain."""
    executable, http, https = tool("caddy"), free_port(), free_port()
    file, log = folder / "Caddyfile", folder / "caddy.log"
    file.write_text(_GLOBAL.format(http=http, https=https, caddyfile=EXAMPLE / "Caddyfile"))
    variables = {
        "DOMAIN": f"https://{DOMAIN}:{https}", "GATEWAY": upstream.removeprefix("http://"),
        "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder),
    }  # fmt: skip
    command = [executable, "run", "--config", str(file), "--adapter", "caddyfile"]
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - the example's own program
            command, env={**os.environ, **variables}, stderr=output
        ) as process,
    ):
        try:
            authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            wait_until("serving initial configuration", log)
            wait_until("certificate obtained successfully", log)
            with client(https, ssl.create_default_context(cafile=authority)) as http_client:
                yield http_client
        finally:
            process.terminate()
            process.wait(WAIT)


def wait_until(text: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def client(port: str, certificates: ssl.SSLContext) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://{DOMAIN}:{port}", timeout=WAIT, headers={"Authorization": "Bearer sq-alice"},
        transport=ToThisMachine(verify=certificates, local_address=CLIENT),
    )  # fmt: skip


class ToThisMachine(httpx.HTTPTransport):
    """Connects to this machine, whatever the name in the URL is."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def chat(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": "assistant", "messages": messages, **fields}


def test_a_request_through_caddy_has_the_address_of_its_client(tmp_path: Path) -> None:
    config, log = tmp_path / "gateway.toml", tmp_path / "log.txt"
    config.write_text(
        f'[server]\nallowed_hosts = ["{DOMAIN}"]\ntrusted_proxies = ["127.0.0.1"]\n'
        f'[log]\nformat = "json"\n{table(ALICE)}'
    )
    with serving(log, "--config", str(config)) as (process, url):
        with caddy(tmp_path, url) as http:
            forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
            reply = http.post(CHAT, json=chat(), headers=forged)
            assert http.get("/metrics", headers={"Authorization": ""}).status_code == 401
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert reply.json()["choices"][0]["message"]["content"] == "You said: Hello"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line["client"]) for line in requests] == [(200, CLIENT), (401, CLIENT)]
    assert requests[0]["key"] == "alice"


@contextmanager
def in_front_of(folder: Path, model: Speaker) -> Iterator[httpx.Client]:
    """A client of Caddy, whose key may have one turn at once."""
    key = replace(ALICE, turns_at_once=1)
    with (
        LocalServer(
            model, api_keys=[key], allowed_hosts=[DOMAIN], trusted_proxies=["127.0.0.1"]
        ) as server,
        caddy(folder, server.base_url) as http,
    ):
        yield http


def test_caddy_passes_each_piece_of_a_stream_on_at_once(tmp_path: Path) -> None:
    has_arrived = threading.Event()

    def pieces() -> Iterator[str]:
        yield "first"
        assert has_arrived.wait(WAIT)
        yield "second"

    with (
        in_front_of(tmp_path, Speaker(pieces=pieces)) as http,
        http.stream("POST", CHAT, json=chat(stream=True)) as reply,
    ):
        lines = reply.iter_lines()
        assert any("first" in line for line in lines)
        has_arrived.set()
        assert any("second" in line for line in lines)
        assert any(line == "data: [DONE]" for line in lines)


def test_a_client_that_leaves_caddy_frees_its_turn_while_the_model_is_silent(
    tmp_path: Path,
) -> None:
    is_over = threading.Event()

    def pieces() -> Iterator[str]:
        yield "first"
        is_over.wait()

    def status_of_another() -> int:
        with http.stream("POST", CHAT, json=chat(stream=True)) as reply:
            return reply.status_code

    with in_front_of(tmp_path, Speaker(pieces=pieces)) as http:
        try:
            with http.stream("POST", CHAT, json=chat(stream=True)) as reply:
                lines = reply.iter_lines()  # whose end would close the connection
                assert any("first" in line for line in lines)
                assert status_of_another() == 429
            deadline = time.monotonic() + WAIT
            while status_of_another() == 429:
                assert time.monotonic() < deadline
        finally:
            is_over.set()
