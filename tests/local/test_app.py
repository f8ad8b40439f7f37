"""Routes, statuses and headers of the local server, over HTTP."""

import asyncio
import gzip
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from langchain_core.messages import AIMessageChunk

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer, MemorySessions, RequestRecord, ServerLimits
from langchain_sequrity.local.app import make_app
from langchain_sequrity.local.auth import LOOPBACK_NAMES
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.forwarded import networks, read_forwarded
from langchain_sequrity.local.script import Script, ScriptBackend
from langchain_sequrity.local.services import Services
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
)
from langchain_sequrity.wire.sse import SSEDecoder
from tests.local.api import (
    CHAT,
    WAIT,
    Api,
    Gate,
    Speaker,
    call_ids,
    detail,
    events,
    result,
    said,
    session_of,
    streamed_text,
    tool,
)
from tests.local.conftest import Serve

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
JSON = {"Content-Type": "application/json"}
OPEN = [route for route in CHAT_ROUTES if route.endpoint_type != "lang-graph"]
LANG_GRAPH = [route for route in CHAT_ROUTES if route not in OPEN]
# For each format: the smallest body without `model` and `stream`, and a key of its reply.
SMALLEST: dict[str, tuple[dict[str, Any], str, str]] = {
    "chat/completions": ({"messages": BODY["messages"]}, "object", "chat.completion"),
    "messages": ({"messages": BODY["messages"], "max_tokens": 99}, "type", "message"),
    "responses": ({"input": "Hi"}, "object", "response"),
}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# Routes


@pytest.mark.parametrize("path", ["/", "/control", "/control/", "//", "//control//"])
def test_the_index_lists_every_route(api: Api, path: str) -> None:
    reply = api.request("GET", path)
    assert reply.status_code == 200
    paths = {row["path"]: row["method"] for row in reply.json()["routes"]}
    posts = (*CHAT_ROUTES, *COUNT_TOKENS_ROUTES, *POLICY_ROUTES)
    assert paths == {
        **{route.path: "POST" for route in posts},
        **{route.path: "GET" for route in MODELS_ROUTES},
        VALIDATE_HEADERS_PATH: "POST",
    }


@pytest.mark.parametrize("path", ["/health", "/control/health", "//health", "//control/health"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_needs_no_key_and_has_two_paths(api: Api, path: str, method: str) -> None:
    assert api.request(method, path).status_code == 200


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.path)
def test_every_route_answers_in_its_format(api: Api, route: Any) -> None:
    fields, key, kind = SMALLEST[route.suffix]
    reply = api.post(route.path, json={"model": "m", **fields})
    assert reply.status_code == 200, reply.text
    assert reply.json()[key] == kind
    assert "You said: Hi" in reply.text
    assert session_of(reply)


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.path)
def test_every_route_streams_in_its_format(api: Api, route: Any) -> None:
    fields, _, _ = SMALLEST[route.suffix]
    reply = api.post(route.path, json={"model": "m", "stream": True, **fields})
    assert reply.headers["content-type"].startswith("text/event-stream")
    names = [event.name for event in SSEDecoder().feed(reply.content)]
    last = {"chat/completions": "", "messages": "message_stop", "responses": "response.completed"}
    assert names[-1] == last[route.suffix]
    assert session_of(reply)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("suffix", SMALLEST)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_backend_keeps_its_status_in_every_format(
    serve: Serve, suffix: str, stream: bool
) -> None:
    api = serve(script=[{"error": {"status": 529, "message": "Busy.", "retry_after": 3}}])
    path = f"/control/chat/v1/{suffix}"
    reply = api.post(path, json={"model": "m", "stream": stream, **SMALLEST[suffix][0]})
    assert (reply.status_code, reply.headers["retry-after"]) == (529, "3")
    assert detail(reply) == "Busy."


@pytest.mark.parametrize("suffix", SMALLEST)
def test_a_backend_that_fails_in_a_stream_ends_it_with_an_error_of_the_format(
    serve: Serve, suffix: str
) -> None:
    api = serve(model=Speaker(pieces=late_explosion))
    body = {"model": "m", "stream": True, **SMALLEST[suffix][0]}
    reply = api.post(f"/control/chat/v1/{suffix}", json=body)
    assert reply.status_code == 200
    last = SSEDecoder().feed(reply.content)[-1]
    assert last.name == ("" if suffix == "chat/completions" else "error")
    error = json.loads(last.data)
    message = error["message"] if suffix == "responses" else error["error"]["message"]
    assert "failed" in message
    assert "secret-of-the-backend" not in reply.text


@pytest.mark.parametrize(
    "slashes", ["/" + CHAT, CHAT.replace("/", "//"), CHAT.replace("/v1", "///v1")]
)
def test_repeated_slashes_in_a_path_do_not_matter(api: Api, slashes: str) -> None:
    assert said(api.chat("Hi", path=slashes))["content"]


@pytest.mark.parametrize("route", LANG_GRAPH, ids=lambda route: route.path)
def test_lang_graph_runs_a_program_on_every_route(api: Api, route: Any) -> None:
    body, _, _ = SMALLEST[route.suffix]
    asked = {"model": "m", **body}
    assert "user_provided_program" in detail(api.post(route.path, json=asked))
    reply = api.post(route.path, json={**asked, "user_provided_program": "6 * 7"})
    assert reply.status_code == 200
    assert '\\"value\\": 42' in reply.text


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ({"auto_gen": True}, "auto_gen"),
        ({"codes": {"code": "permit(principal, action, resource);", "language": "cedar"}}, "Cedar"),
    ],
)
def test_a_policy_that_the_server_cannot_enforce_is_501_with_the_reason(
    api: Api, policy: dict[str, Any], named: str
) -> None:
    reply = api.chat("Hi", headers={"X-Policy": json.dumps(policy)})
    assert reply.status_code == 501
    assert named in detail(reply)
    assert "X-Policy" in detail(reply)


def test_a_policy_with_a_syntax_error_is_400_and_shows_the_place(api: Api) -> None:
    policy = {"codes": {"code": 'tool "f" { must deny alwys; }'}}
    reply = api.chat("Hi", headers={"X-Policy": json.dumps(policy)})
    assert reply.status_code == 400
    assert "alwys" in detail(reply)
    assert "^" in detail(reply)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Features", {}),
        ("X-Features", {"agent_arch": "single-llm"}),
        ("X-Features", {"content_classifiers": [], "content_blockers": []}),
        ("X-Policy", {"mode": "standard", "codes": {"code": " ", "language": "sqrt"}}),
        ("X-Policy", {"presets": {"default_allow": True}, "auto_gen": False, "fail_fast": True}),
        ("X-Config", {"fsm": {"max_n_turns": 3, "clear_session_meta": "never"}}),
    ],
)
def test_headers_with_default_or_common_settings_are_accepted(
    api: Api, header: str, value: dict[str, Any]
) -> None:
    assert said(api.chat("Hi", headers={header: json.dumps(value)}))["content"]


# Refused requests


def _refused_bodies() -> Iterator[Any]:
    for data in (
        b"",
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": 1} {}',
        b"\xff\xfe",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b'{"a": "\\ud800"}',
    ):
        yield pytest.param(data, 400, id=repr(data))
    yield pytest.param(nested(101), 400, id="101 levels")
    yield pytest.param(nested(100_000), 400, id="100000 levels")
    for data in (b"null", b"[]", b"1", b'"a"', b"{}", nested(100)):
        yield pytest.param(data, 422, id=repr(data[:8]))
    yield pytest.param(orjson.dumps({"model": "m", "messages": []}), 400, id="no messages")


@pytest.mark.parametrize(("data", "status"), list(_refused_bodies()))
def test_a_body_that_is_not_a_request_is_refused(api: Api, data: bytes, status: int) -> None:
    reply = api.post(content=data, headers=JSON)
    assert reply.status_code == status
    assert detail(reply)


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"messages": "Hi"}, ["body", "messages"]),
        ({"model": None}, ["body", "model"]),
        ({"messages": [{"role": "pope", "content": "Hi"}]}, ["body", "messages", 0, "role"]),
        ({"messages": [{"role": "user", "content": 1}]}, ["body", "messages", 0, "content"]),
        ({"temperature": 3}, ["body", "temperature"]),
        ({"tools": [{"type": "function"}]}, ["body", "tools", 0, "function"]),
        ({"stream": "yes"}, ["body", "stream"]),
        ({"n": 1.5}, ["body", "n"]),
    ],
)
def test_a_wrong_field_is_422_with_its_place(
    api: Api, change: dict[str, Any], loc: list[Any]
) -> None:
    reply = api.post(json={**BODY, **change})
    assert reply.status_code == 422
    [problem] = detail(reply)
    assert problem["loc"] == loc
    assert problem["msg"]
    assert problem["type"]


@pytest.mark.parametrize("authorization", [None, "", "sq-test", "Bearer", "Basic c3E6dGVzdA=="])
@pytest.mark.parametrize("path", [CHAT, "/control/chat/v1/messages"])
def test_a_missing_key_is_401_and_the_reply_names_the_scheme(
    api: Api, authorization: str | None, path: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    reply = api.request("POST", path, json=BODY, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert detail(reply)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_only_the_configured_keys_are_accepted(serve: Serve, scheme: str) -> None:
    api = serve(api_keys=["sq-one", "sq-two"])
    for key, status in {
        "sq-one": 200,
        "sq-two": 200,
        "sq-on": 401,
        "sq-one1": 401,
        "é": 401,
    }.items():
        headers = {"Authorization": f"{scheme} {key}".encode()}
        reply = api.request("POST", CHAT, json=BODY, headers=headers)
        assert reply.status_code == status, key
        assert ("www-authenticate" in reply.headers) == (status == 401)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/control/chat/v1",
        CHAT + "/",
        "/control/chat/cohere/v1/chat/completions",
        "/control/v1/chat/completions",
        "/%00",
        "/control/chat/anthropic/v1/chat/completions",
    ],
)
def test_an_unknown_path_is_404(api: Api, path: str) -> None:
    reply = api.post(path, json=BODY)
    assert reply.status_code == 404
    assert "GET /" in detail(reply)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, {"POST"}),
        ("DELETE", CHAT, {"POST"}),
        ("OPTIONS", CHAT, {"POST"}),
        ("GET", VALIDATE_HEADERS_PATH, {"POST"}),
        ("GET", POLICY_ROUTES[0].path, {"POST"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("PUT", "/health", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_with_the_allowed_methods(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    reply = api.request(method, path)
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) == allowed
    assert all(name in detail(reply) for name in allowed)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
    ],
)
@pytest.mark.parametrize("path", [CHAT, VALIDATE_HEADERS_PATH])
def test_a_body_that_a_web_form_could_send_is_415(api: Api, kind: str | None, path: str) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    reply = api.post(path, content=orjson.dumps(BODY), headers=headers)
    assert reply.status_code == 415
    assert "application/json" in detail(reply)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_recognised_with_parameters_and_in_any_case(api: Api, kind: str) -> None:
    reply = api.post(content=orjson.dumps(BODY), headers={"Content-Type": kind})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "169.254.1.1",
        "[::2]:80",
        "[127.0.0.1",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/metrics", CHAT])
def test_a_host_header_with_another_host_is_421(api: Api, host: str, path: str) -> None:
    reply = api.request("GET", path, headers={"Host": host})
    assert reply.status_code == 421
    assert "serve --allowed-host" in detail(reply)


def test_health_answers_a_probe_that_does_not_know_the_name_of_the_server(api: Api) -> None:
    assert api.request("GET", "/health", headers={"Host": "10.1.2.3:80"}).status_code == 200


def test_a_name_that_whoever_runs_the_server_allows_is_accepted_as_host(serve: Serve) -> None:
    api = serve(allowed_hosts=["gateway.example", "[fd00::7]"])
    for host in ("gateway.example", "Gateway.Example:443", "[fd00::7]:80", "localhost"):
        assert api.request("GET", "/", headers={"Host": host}).status_code == 200
    for host in ("other.example", "gateway.example.evil.example", "[fd00::8]"):
        assert api.request("GET", "/", headers={"Host": host}).status_code == 421


def test_a_server_that_others_can_reach_accepts_only_the_allowed_names_if_there_are_any() -> None:
    exposed = LocalServer(host="192.0.2.1", api_keys=["k"], allowed_hosts=["gateway.example"])
    assert exposed._services.hosts == frozenset({"gateway.example", *LOOPBACK_NAMES})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"allowed_hosts": "gateway.example"}, "`allowed_hosts` must be a list"),
        ({"allowed_hosts": ["http://gateway.example"]}, "names such as `gateway.example`"),
        ({"trusted_proxies": "10.0.0.0/8"}, "`trusted_proxies` must be a list"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "addresses or networks, such as `10.0.0.0/8`: 10.0"),
        ({"trusted_proxies": ["proxy.example"]}, "addresses or networks"),
    ],
)
def test_hosts_and_proxies_in_another_form_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        LocalServer(**options)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "gateway.example"},
        {"X-Forwarded-Host": "evil.example, gateway.example:443"},
        {"Forwarded": 'for=192.0.2.9;host=evil.example, for="[::1]:4711";host="gateway.example"'},
        {"X-Forwarded-Host": "gateway.example", "Forwarded": "host=evil.example"},
    ],
)
def test_the_host_that_a_trusted_proxy_names_is_checked_and_that_of_others_is_ignored(
    headers: dict[str, str], serve: Serve
) -> None:
    behind = serve(allowed_hosts=["gateway.example"], trusted_proxies=["127.0.0.0/8"])
    apart = serve(allowed_hosts=["gateway.example"], trusted_proxies=["10.0.0.0/8"])
    sent = {"Host": "upstream", **headers}
    assert behind.request("GET", "/", headers=sent).status_code == 200
    assert apart.request("GET", "/", headers=sent).status_code == 421
    evil = {"Host": "localhost", "X-Forwarded-Host": "evil.example"}
    assert behind.request("GET", "/", headers=evil).status_code == 421
    assert apart.request("GET", "/", headers=evil).status_code == 200


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"x-forwarded-for": "192.0.2.9"}, "192.0.2.9"),
        ({"x-forwarded-for": "203.0.113.1, 192.0.2.9:4711, 10.0.0.7"}, "192.0.2.9"),
        ({"x-forwarded-for": "10.0.0.8, 10.0.0.7"}, "10.0.0.8"),
        ({"x-forwarded-for": "a name"}, ""),
        ({"x-forwarded-proto": "https"}, ""),
        ({"forwarded": 'for="[2001:db8::1]:47011";proto=https'}, "2001:db8::1"),
        ({"forwarded": "for=192.0.2.9, for=10.0.0.7"}, "192.0.2.9"),
        ({"forwarded": "for=_hidden"}, ""),
        ({"forwarded": "for=192.0.2.9, garbage"}, ""),
        ({}, ""),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(
    headers: dict[str, str], client: str
) -> None:
    assert read_forwarded(headers, networks(["10.0.0.0/8"])).client == client


@pytest.mark.parametrize("path", [CHAT, VALIDATE_HEADERS_PATH])
def test_a_compressed_body_is_415_and_the_error_says_what_to_send(api: Api, path: str) -> None:
    body = gzip.compress(orjson.dumps(BODY))
    reply = api.post(path, content=body, headers={**JSON, "Content-Encoding": "gzip"})
    assert reply.status_code == 415
    assert "without `Content-Encoding`" in detail(reply)
    plain = api.post(content=orjson.dumps(BODY), headers={**JSON, "Content-Encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8000", "[::1]"])
def test_every_name_of_loopback_is_accepted_as_host(api: Api, host: str) -> None:
    assert api.request("GET", "/health", headers={"Host": host}).status_code == 200


def test_a_header_line_over_64_kib_is_431_and_the_error_names_the_header(api: Api) -> None:
    longest = "y" * (65_536 - len("X-Policy: \r\n"))
    assert api.chat("Hi", headers={"X-Policy": longest}).status_code == 400
    reply = api.chat("Hi", headers={"X-Policy": longest + "y"})
    assert reply.status_code == 431
    assert "x-policy" in detail(reply)
    assert "`header_bytes`" in detail(reply)
    assert "y" * 9 not in detail(reply)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-Session-ID",
        "X-Policy",
        "X-Features",
        "X-Config",
        "X-Api-Key",
        "Idempotency-Key",
        "Content-Type",
    ],
)
def test_a_header_that_may_occur_only_once_is_400_if_it_occurs_twice(api: Api, name: str) -> None:
    headers = [
        *api.authorization().items(),
        ("Content-Type", "application/json"),
        (name, "{}"),
        (name.lower(), "{}"),
    ]
    reply = api.request("POST", CHAT, content=orjson.dumps(BODY), headers=headers)
    assert reply.status_code == 400
    assert name.lower() in detail(reply)


def test_other_headers_may_occur_twice(api: Api) -> None:
    assert (
        api.request("GET", "/health", headers=[("Accept", "a/b"), ("Accept", "c/d")]).status_code
        == 200
    )


# Values of a JSON header, and words of the error.
MALFORMED_HEADERS = [
    (b"", "text is empty"),
    (b"{", "Invalid JSON: Expecting property name"),
    (b"'", "Invalid JSON: Expecting value at line 1, column 1. Send one JSON object"),
    (b"dual-llm", "Invalid JSON"),
    (b'tool "pay" { must deny always; }', "Invalid JSON"),
    (b"{'mode': 'custom'}", "double quotes"),
    (b"{} {}", "Invalid JSON: Extra data at line 1, column 4."),
    (b"{}, {}", "Invalid JSON"),  # two headers that a proxy has joined
    (b"e30=", "Invalid JSON"),
    (b"%7B%7D", "Invalid JSON"),
    (b"undefined", "Invalid JSON"),
    (b'{"a": NaN}', "`NaN` is not a JSON number"),
    (b'{"a": 1e999}', "number is too large"),
    (b'{"a": "\t"}', "Invalid control character at line 1"),
    (b"[]", "Expected a JSON object; got a list. Send one JSON object"),
    (b'[{"fsm": {}}]', "got a list"),
    (b"null", "got null"),
    (b"true", "got true"),
    (b"7", "got 7"),
    (b'"{}"', "got text"),
    (b'{"a": 1, "a": 2}', "`a` occurs twice"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "32 levels"),
    (b'{"nonsense": 1}', "Unknown field `nonsense`"),
    (b"\xff\xfe{}", "must be ASCII"),
    (b"\xef\xbb\xbf{}", "must be ASCII"),
    ('{"codes": {"code": "tool \\"prüfen\\" { must deny always; }"}}'.encode(), r"\uXXXX"),
    ('{"fsm": {"force_to_cache": ["prüfen"]}}'.encode("latin-1"), r"\uXXXX"),
]


@pytest.mark.parametrize("name", ["X-Features", "X-Policy", "X-Config"])
def test_a_malformed_header_is_400_at_every_route_and_the_error_names_the_header(
    api: Api, name: str
) -> None:
    pairs = zip(CHAT_ROUTES, cycle(MALFORMED_HEADERS), strict=False)
    for route, (value, words) in (*pairs, *((CHAT_ROUTES[0], row) for row in MALFORMED_HEADERS)):
        for stream in (False, True):
            body = {"model": "m", "stream": stream, **SMALLEST[route.suffix][0]}
            headers = [(b"authorization", b"Bearer k"), (name.encode(), value)]
            reply = api.request("POST", route.path, json=body, headers=headers)
            assert reply.status_code == 400, (route.path, value)
            assert f"`{name}`" in detail(reply)
            assert words in detail(reply)
            assert "x-session-id" not in reply.headers


def test_a_malformed_header_of_a_later_request_is_400_and_leaves_the_session(api: Api) -> None:
    session = session_of(api.chat("Hi"))
    reply = api.chat("Hi", session=session, headers={"X-Policy": "{"})
    assert reply.status_code == 400
    assert "`X-Policy`" in detail(reply)
    assert session_of(api.chat("Hi", "Go on", session=session)) == session


def test_escaped_characters_of_a_header_reach_the_policy(api: Api) -> None:
    code = 'tool "look_up" { must deny when word.value == "prüfen"; }'
    headers = {"X-Policy": json.dumps({"codes": {"code": code}})}
    assert "denied" in api.chat("look_up 'prüfen'", tools=[tool()], headers=headers).text
    assert call_ids(api.chat("look_up 'other'", tools=[tool()], headers=headers))


def test_a_body_over_32_mib_is_413_with_and_without_a_content_length(api: Api) -> None:
    data = b" " * (32 * 1024 * 1024 + 1)
    whole = api.post(content=data, headers=JSON)
    chunked = api.post(content=iter([data[:-1], data[-1:]]), headers=JSON)
    for reply in (whole, chunked):
        assert reply.status_code == 413
        assert "33554432" in detail(reply)


def test_a_body_of_exactly_the_size_limit_is_accepted(api: Api) -> None:
    text = orjson.dumps(BODY)
    reply = api.post(content=text + b" " * (32 * 1024 * 1024 - len(text)), headers=JSON)
    assert said(reply)["content"]


# Limits and failures


async def test_a_turn_over_the_limit_is_429_with_retry_after() -> None:
    gate = Gate()
    backend = ScriptBackend(Script([{"answer": gate}]), DeterministicModel())
    app = make_app(Services(MemorySessions(), backend, limits=ServerLimits(turns_at_once=2)))
    headers = {"Authorization": "Bearer k"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers) as client:  # fmt: skip
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(client.post(CHAT, json=BODY)) for _ in range(2)]
            await asyncio.to_thread(gate.wait_for_request)
            await asyncio.to_thread(gate.wait_for_request)
            refused = await client.post(CHAT, json=BODY)
            health = await client.get("/health")
            gate.opened.set()
        after = await client.post(CHAT, json=BODY)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "`turns_at_once`" in detail(refused)
    assert health.status_code == 200
    assert [task.result().status_code for task in running] == [200, 200]
    assert after.status_code == 200


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_request_frees_its_session_whether_or_not_its_thread_has_ended(
    stream: bool, has_ended: bool
) -> None:
    gate, threads = Gate(), list[threading.Thread]()

    def answer(request: ChatRequest) -> str:
        threads.append(threading.current_thread())
        return gate(request)

    script = Script([{"when": {"user": "slow"}, "answer": answer}])
    app = make_app(Services(MemorySessions(), ScriptBackend(script, DeterministicModel())))
    headers = {"Authorization": "Bearer k"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers) as client:  # fmt: skip
        headers["X-Session-ID"] = session_of(await client.post(CHAT, json=BODY))
        slow = {**BODY, "messages": [{"role": "user", "content": "slow"}], "stream": stream}
        request = asyncio.create_task(client.post(CHAT, json=slow, headers=headers))
        await asyncio.to_thread(gate.wait_for_request)

        def end_thread() -> None:
            gate.opened.set()
            while threads[0].name == "turn":
                pass

        if has_ended:  # the event loop must not see the end before `cancel`
            end_thread()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        end_thread()
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200


def explode(_request: object = None) -> str:
    msg = "secret-of-the-backend"
    raise RuntimeError(msg)


def late_explosion() -> Iterator[str]:
    yield "So far "
    yield "so good"
    explode()


@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_that_raises_is_500_without_a_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level(logging.CRITICAL, "langchain_sequrity.local")
    api = serve(script=[{"when": {"user": "bang"}, "answer": explode}])
    reply = api.chat("bang", stream=stream)
    assert reply.status_code >= 500
    assert detail(reply)
    assert reply.headers["x-request-id"]
    assert "secret-of-the-backend" not in reply.text
    assert "Traceback" not in reply.text
    assert said(api.chat("Hi"))["content"]


async def test_a_failure_is_logged_with_the_id_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def stream(self, request: object, context: object) -> Any:
            del request, context
            return iter([explode()])

    transport = httpx.ASGITransport(make_app(Services(MemorySessions(), Broken())))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.post(CHAT, json=BODY, headers={"Authorization": "Bearer k"})
    assert reply.status_code == 500
    assert "X-Request-ID" in detail(reply)
    assert reply.headers["x-request-id"] in caplog.text
    assert "secret-of-the-backend" in caplog.text


def test_a_backend_that_raises_in_a_stream_ends_it_with_an_error_event(serve: Serve) -> None:
    api = serve(model=Speaker(pieces=late_explosion))
    with api.stream("Hi") as reply:
        assert reply.status_code == 200
        *chunks, last = events(reply.read())
    assert "So far" in "".join(chunks)
    error = orjson.loads(last)["error"]
    assert error["message"]
    assert error["code"] >= 500
    assert "secret-of-the-backend" not in last
    assert "[DONE]" not in chunks


async def test_a_failure_of_the_server_in_a_stream_is_an_error_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def stream(self, request: object, context: object) -> Iterator[AIMessageChunk]:
            del request, context
            yield AIMessageChunk(content="So far")
            yield AIMessageChunk(content="so good")
            explode()

    transport = httpx.ASGITransport(make_app(Services(MemorySessions(), Broken())))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = {**BODY, "stream": True}
        reply = await client.post(CHAT, json=body, headers={"Authorization": "Bearer k"})
    *_, last = events(reply.content)
    assert orjson.loads(last)["error"]["code"] == 500
    assert "secret-of-the-backend" not in reply.text
    assert "secret-of-the-backend" in caplog.text


def test_a_client_that_hangs_up_while_sending_is_recorded_and_not_logged_as_an_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    records: list[RequestRecord] = []
    answered = threading.Event()

    def note(record: RequestRecord) -> None:
        records.append(record)
        answered.set()

    api = serve(on_request=note)
    host, port = api.server.base_url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
    assert answered.wait(WAIT)
    assert records[0].summary == "client hung up"
    assert caplog.text == ""


def test_a_script_can_answer_with_any_status(serve: Serve) -> None:
    rule = {"error": {"status": 429, "message": "Slow down.", "retry_after": 3}}
    reply = serve(script=[rule]).chat("Hi")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "3"
    assert "Slow down." in detail(reply)


# Headers of replies


@pytest.mark.parametrize("path", ["/", "/health", "/nope", CHAT])
def test_every_reply_has_its_own_request_id(api: Api, path: str) -> None:
    ids = [api.request("GET", path).headers["x-request-id"] for _ in range(2)]
    assert len({UUID(one) for one in ids}) == 2


def test_requests_that_are_refused_before_routing_get_a_request_id(api: Api) -> None:
    for headers in ({"Host": "evil.example"}, {"X-A": "y" * 9000}):
        request_id = api.request("GET", "/", headers=headers).headers["x-request-id"]
        assert UUID(request_id).version == 4


def test_chat_replies_name_their_session(api: Api) -> None:
    first = api.chat("Hi")
    with api.stream("Hi") as streamed:
        streamed.read()
    assert UUID(session_of(first)) != UUID(session_of(streamed))
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_streamed_reply_has_the_same_text_as_a_whole_reply(api: Api) -> None:
    whole = said(api.chat("Say something long enough to be cut into pieces."))["content"]
    with api.stream("Say something long enough to be cut into pieces.") as reply:
        assert streamed_text(reply.read()) == whole


def test_several_replies_cannot_be_streamed(api: Api) -> None:
    assert len(api.chat("Hi", n=3).json()["choices"]) == 3
    reply = api.chat("Hi", n=3, stream=True)
    assert reply.status_code == 400
    assert "`n`" in detail(reply)


# Validation of headers


def test_validate_headers_checks_each_header_that_was_sent(api: Api) -> None:
    sent = {"x_features": '{"agent_arch":"dual-llm"}', "x_policy": "{"}
    reply = api.request("POST", VALIDATE_HEADERS_PATH, json=sent)
    assert reply.status_code == 200
    found = reply.json()
    assert set(found) == {"x_features", "x_policy", "x_config"}
    assert found["x_features"]["valid"] is True
    assert found["x_features"]["normalized"]["agent_arch"] == "dual-llm"
    assert found["x_policy"]["valid"] is False
    assert any("Invalid JSON" in error for error in found["x_policy"]["errors"])
    assert found["x_config"] is None


@pytest.mark.parametrize("name", ["x_features", "x_policy", "x_config"])
def test_validate_headers_refuses_unknown_keys_at_the_top_level(api: Api, name: str) -> None:
    reply = api.request("POST", VALIDATE_HEADERS_PATH, json={name: '{"nonsense": 1}'})
    found = reply.json()[name]
    assert found["valid"] is False
    assert found["errors"]
    assert all(isinstance(error, str) for error in found["errors"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 422),
        ({"x_other": "{}"}, 422),
        ({"x_config": {}}, 422),
        ({"x_policy": "{}", "x_config": {}}, 422),
        ({"x_config": "y" * 300_000}, 413),
        ({"x_config": None}, 200),
        ({}, 200),
    ],
    ids=["list", "unknown", "object", "second object", "too long", "null", "empty"],
)
def test_validate_headers_is_strict_about_its_own_body(api: Api, body: Any, status: int) -> None:
    reply = api.request("POST", VALIDATE_HEADERS_PATH, json=body)
    assert reply.status_code == status
    if status == 422:
        assert "x_config" in detail(reply)


# Records of requests


def test_each_answered_request_is_recorded_once_and_without_secrets(serve: Serve) -> None:
    records: list[RequestRecord] = []
    answered = threading.Semaphore(0)

    def note(record: RequestRecord) -> None:
        records.append(record)
        answered.release()

    api = serve(on_request=note)
    reply = api.chat("a private matter", tools=[tool()], headers={"X-Api-Key": "or-secret"})
    api.request("GET", "/nope")
    api.chat("call look_up", tools=[tool()])
    for _ in range(3):
        assert answered.acquire(timeout=10)
    first, second, third = records
    assert (first.method, first.path, first.status, first.model) == ("POST", CHAT, 200, "any/model")
    assert first.session == session_of(reply)[:8]
    assert first.milliseconds > 0
    assert (second.status, second.model) == (404, "")
    assert third.summary == "1 tool call"
    assert not any(secret in repr(records) for secret in ("private", "or-secret", "sq-test"))


def test_an_on_request_callback_that_raises_does_not_affect_replies(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    api = serve(on_request=explode)
    assert said(api.chat("Hi"))["content"]
    assert said(api.chat("Hi"))["content"]
    assert "`on_request` failed" in caplog.text


# Documented mode


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 1},
        {"stop": ["S"]},
        {"n": 3},
        {"tool_choice": {"type": "function", "function": {"name": "look_up"}}},
        {"logprobs": True, "top_logprobs": 2},
        {"stream_options": {"include_usage": True}},
        {"max_tokens": "nonsense", "stop": 1, "n": -1, "tool_choice": [], "parallel_tool_calls": 7},
    ],
    ids=str,
)  # fmt: skip
def test_undocumented_fields_have_no_effect_in_documented_mode(
    documented: Api, fields: dict[str, Any]
) -> None:
    plain, changed = (documented.chat("S o m e t h i n g", **more).json() for more in ({}, fields))
    assert changed["choices"] == plain["choices"]
    assert changed["usage"] == plain["usage"]


def test_documented_mode_answers_a_stream_with_plain_json(documented: Api) -> None:
    reply = documented.chat("Hi", stream=True)
    assert reply.headers["content-type"] == "application/json"
    assert said(reply)["content"]


def test_documented_mode_uses_call_ids_of_18_characters_that_continue_the_session(
    documented: Api,
) -> None:
    reply = documented.chat("call look_up with x", tools=[tool()])
    [call_id] = call_ids(reply)
    assert call_id == f"tc{session_of(reply).replace('-', '')[-12:]}0001"
    messages = [said(reply), result(call_id)]
    again = documented.chat("call look_up with x", *messages, tools=[tool()])
    assert session_of(again) == session_of(reply)


def test_full_mode_uses_call_ids_that_contain_the_session_id(api: Api) -> None:
    reply = api.chat("call look_up with x", tools=[tool()])
    [call_id] = call_ids(reply)
    assert re.fullmatch(f"tc-{session_of(reply)}-[0-9a-f-]{{36}}", call_id)


@pytest.mark.parametrize("name", ["", "look_up"])
def test_a_message_of_a_function_is_part_of_a_conversation(api: Api, name: str) -> None:
    message = {"role": "function", "name": name, "content": "42"}
    first = api.chat("Hi", message)
    assert first.status_code == 200, first.text
    again = api.chat("Hi", message, said(first), "And?", session=session_of(first))
    assert again.status_code == 200, again.text
