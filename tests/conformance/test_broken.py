"""What says nothing about the API is no answer: keys, credit, rate limits, outages, proxies."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from langchain_sequrity.conformance import PROBES, Report, Target, run
from langchain_sequrity.local import LocalServer
from tests.conformance.conftest import target_of

PAGE = b"<!DOCTYPE html><html><body>Sign in to go on</body></html>"
NOW = {"retry-after": "0"}
BROKEN: dict[str, tuple[int, dict[str, str], bytes]] = {
    "401": (401, {}, b'{"detail": "Invalid key"}'),
    "402": (402, {}, b'{"detail": "No credit"}'),
    "403": (403, {}, b'{"detail": "Forbidden"}'),
    "404": (404, {}, b'{"detail": "Not Found"}'),
    "425": (425, NOW, b'{"detail": "Too early"}'),
    "429": (429, NOW, b'{"detail": "Too many requests"}'),
    "500": (500, NOW, b'{"detail": "Internal error"}'),
    "529": (529, NOW, b"{}"),
    "a page": (200, {"content-type": "text/html"}, PAGE),
    "a page without a type": (200, {}, PAGE),
    "a page of a proxy": (502, {"content-type": "text/html", **NOW}, PAGE),
    "a text": (200, {}, b"OK"),
}
CUT = b'{"id": "x", "choices": [{"index": 0, "mess'


class Broken(httpx.HTTPTransport):
    """Answers each n-th request like a broken service, and the others like a local server."""

    def __init__(self, reply: tuple[int, dict[str, str], bytes], each: int) -> None:
        super().__init__(trust_env=False)
        self._reply, self._each = reply, each
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        if self.count % self._each:
            return super().handle_request(request)
        status, headers, content = self._reply
        return httpx.Response(status, headers=headers, content=content)


def asked(server: LocalServer, kind: str, each: int, **options: Any) -> Report:
    with httpx.Client(transport=Broken(BROKEN[kind], each)) as client:
        return run(target_of(server), http_client=client, **options)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_service_that_answers_nothing_gives_no_facts(full_server: LocalServer, kind: str) -> None:
    report = asked(full_server, kind, 1)
    assert {one.verdict for one in report.outcomes} == {"no answer"}
    assert report.stopped
    assert report.requests <= 4
    assert report.exit_code == 1
    assert "The run ended early" in report.to_markdown()


@contextmanager
def raw_service(reply: bytes | None) -> Iterator[str]:
    """A service that sends the beginning of a reply and closes, or sends nothing for a while."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            if reply is None:
                time.sleep(1.0)
            else:
                self.wfile.write(reply)
            self.close_connection = True

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        None, b"", b"HTTP/1.1 200", HEAD + b"Content-Length: 900\r\n\r\n" + CUT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1a\r\n" + CUT[:26], HEAD + b"\r\n" + CUT,
    ],
    ids=["slow", "closed", "half a head", "half a body", "half a chunk", "without a length"],
)  # fmt: skip
def test_a_slow_or_cut_reply_is_no_fact(reply: bytes | None) -> None:
    with raw_service(reply) as base_url:
        report = run(Target(base_url, timeout=0.3), only=["program-*", "stream-*", "key-*"])
    assert {one.verdict for one in report.outcomes} == {"no answer"}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("kind", BROKEN)
def test_one_bad_reply_in_seven_is_no_fact(full_server: LocalServer, kind: str) -> None:
    report = asked(full_server, kind, 7)
    refuted = [(one.probe.id, one.found) for one in report.having("refuted")]
    if kind == "404":  # cannot be told from an answer
        return
    assert refuted == []
    assert len(report.having("confirmed")) > (100 if kind in ("429", "500", "529") else 30)


def test_a_rate_limit_is_waited_out(full_server: LocalServer) -> None:
    report = asked(full_server, "429", 3, only=["program-*", "labels-*"])
    assert {one.verdict for one in report.outcomes} == {"confirmed"}
    assert all(1 <= one.requests <= one.probe.requests for one in report.outcomes)


@pytest.mark.parametrize(("seconds", "times"), [("60", 3), ("61", 0)])
def test_only_a_wait_of_a_minute_at_most_is_waited_for(
    full_server: LocalServer, monkeypatch: pytest.MonkeyPatch, seconds: str, times: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = Broken((429, {"retry-after": seconds}, b"{}"), 1)
    with httpx.Client(transport=busy) as client:
        report = run(target_of(full_server), only=["program-runs"], http_client=client)
    assert report.stopped
    assert waits == [float(seconds)] * times


SHORT = [probe.id for probe in PROBES.values() if probe.requests == 1][:12]


def test_a_service_that_refuses_now_and_then_is_looked_at_once(full_server: LocalServer) -> None:
    report = asked(full_server, "401", 2, only=SHORT)
    assert report.stopped == ""
    assert report.requests == 1 + sum(one.requests for one in report.outcomes)


def test_a_service_that_stops_to_answer_is_asked_no_more(full_server: LocalServer) -> None:
    class Closing(Broken):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self._each = 1 if self.count else 2
            return super().handle_request(request)

    with httpx.Client(transport=Closing(BROKEN["401"], 2)) as client:
        report = run(target_of(full_server), only=SHORT, http_client=client)
    assert "The service refuses the key" in report.stopped
    assert report.requests < len(SHORT)


def test_a_request_without_a_key_has_no_key_of_the_provider_either(
    full_server: LocalServer,
) -> None:
    sent: list[httpx.Headers] = []

    class Noting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(request.headers)
            return super().handle_request(request)

    with httpx.Client(transport=Noting(trust_env=False)) as client:
        run(target_of(full_server), only=["key-missing"], http_client=client)
    assert {"authorization" in headers for headers in sent} == {True, False}
    assert all(("authorization" in headers) == ("x-api-key" in headers) for headers in sent)


def test_a_service_without_the_endpoint_for_programs_gives_facts_about_the_rest(
    full_server: LocalServer,
) -> None:
    class Without(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if "/lang-graph/" in request.url.path:
                return httpx.Response(404, json={"detail": "Not Found"})
            return super().handle_request(request)

    with httpx.Client(transport=Without(trust_env=False)) as client:
        report = run(target_of(full_server), http_client=client)
    assert report.stopped == ""
    assert [one.probe.id for one in report.having("refuted")] == ["messages-of-graph"]
    confirmed = {one.probe.id for one in report.having("confirmed")}
    assert {"chat-single-llm", "policy-gen-reply", "health", "unknown-path"} <= confirmed
    assert "session-unknown" not in confirmed
