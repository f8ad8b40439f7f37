"""What the local server answers as a piece of HTTP: addresses, statuses, limits."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from langchain_sequrity.local import LocalServer, RequestRecord
from langchain_sequrity.wire.routes import CHAT_ROUTES, POLICY_ROUTES
from tests.local.asking import CHAT, KEY, Json, ask, body, calls, result, said, session_of, tool, user

VALIDATE = "/control/v1/validate-headers"
JSON = {"Content-Type": "application/json"}
NO_KEY = {"Authorization": ""}


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalServer]:
    with LocalServer(api_keys=["sq-one", "sq-two"]) as running:
        yield running


def raw(server: LocalServer, request: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    address = httpx.URL(server.base_url)
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


# Addresses


@pytest.mark.parametrize("path", ["/", "/control", "/control/", "//control"])
def test_the_index_lists_every_route(client: httpx.Client, path: str) -> None:
    listed = {row["path"] for row in client.get(path, headers=NO_KEY).json()["routes"]}
    assert {route.path for route in (*CHAT_ROUTES, *POLICY_ROUTES)} <= listed
    assert VALIDATE in listed


@pytest.mark.parametrize("path", ["/health", "/control/health"])
def test_a_load_balancer_can_ask_for_health_without_a_key(client: httpx.Client, path: str) -> None:
    reply = client.get(path, headers=NO_KEY)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("route", [*CHAT_ROUTES, *POLICY_ROUTES], ids=lambda route: route.path)
def test_every_row_of_the_route_table_is_there(client: httpx.Client, route: Any) -> None:
    """What a later version brings says so by name; nothing of the table is a 404."""
    reply = ask(client, path=route.path)
    works = route.suffix == "chat/completions" and route.endpoint_type != "lang-graph"
    assert reply.status_code == (200 if works else 501)
    if not works:
        word = {"lang-graph": "lang-graph", "policy-gen": "policy"}.get(route.endpoint_type)
        assert (word or f"`{route.suffix}`") in reply.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "//control/chat/v1/chat/completions",
        "/control//chat//v1/chat/completions",
        "///control/chat/openrouter/v1/chat//completions",
    ],
)
def test_double_slashes_of_a_base_url_do_no_harm(client: httpx.Client, path: str) -> None:
    target = str(client.base_url).rstrip("/") + path
    assert client.post(target, json=body()).status_code == 200


# Statuses

STATUSES: list[tuple[str, int, str, str, dict[str, str], bytes | None, str]] = [
    ("no such path", 404, "GET", "/control/nothing", {}, None, "no such path"),
    ("no such provider", 404, "POST", "/control/chat/llama/v1/chat/completions", JSON, b"{}", "path"),
    ("wrong method", 405, "GET", CHAT, {}, None, ""),
    ("preflight of a browser", 405, "OPTIONS", CHAT, {"Origin": "https://evil.example"}, None, ""),
    ("no key", 401, "POST", CHAT, {**JSON, **NO_KEY}, b"{}", "Bearer"),
    ("another scheme", 401, "POST", CHAT, {**JSON, "Authorization": "Basic c3E="}, b"{}", "Bearer"),
    ("an empty key", 401, "POST", CHAT, {**JSON, "Authorization": "Bearer "}, b"{}", "Bearer"),
    ("a form", 415, "POST", CHAT, {"Content-Type": "text/plain"}, b"{}", "application/json"),
    ("no content type", 415, "POST", CHAT, {}, b"{}", "application/json"),
    ("no body", 400, "POST", CHAT, JSON, b"", "Invalid JSON"),
    ("broken JSON", 400, "POST", CHAT, JSON, b'{"model": ', "Invalid JSON"),
    ("bad UTF-8", 400, "POST", CHAT, JSON, b'{"model": "\xff"}', "Invalid JSON"),
    ("a lone surrogate", 400, "POST", CHAT, JSON, b'{"model": "\\ud800"}', "Invalid JSON"),
    ("NaN", 400, "POST", CHAT, JSON, b'{"temperature": NaN}', "Invalid JSON"),
    ("deep JSON", 400, "POST", CHAT, JSON, b"[" * 5000 + b"]" * 5000, ""),
    ("JSON deeper than allowed", 400, "POST", CHAT, JSON, b"[" * 102 + b"]" * 102, "nested"),
    ("no object", 422, "POST", CHAT, JSON, b"[]", ""),
    ("no messages", 422, "POST", CHAT, JSON, b'{"model": "m"}', ""),
    ("a foreign host", 421, "GET", "/health", {"Host": "evil.example"}, None, "Host"),
    ("a host that looks local", 421, "GET", "/health", {"Host": "127.0.0.1.evil.example"}, None, "Host"),
    ("a header line over 8 KiB", 431, "GET", "/health", {"X-Policy": "p" * 8200}, None, "x-policy"),
    ("a huge header", 431, "POST", CHAT, {**JSON, "X-Policy": "p" * 100_000}, b"{}", "x-policy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "method", "path", "headers", "content", "says"),
    [case[1:] for case in STATUSES],
    ids=[case[0] for case in STATUSES],
)
def test_bad_requests_have_their_status_and_a_reason(
    client: httpx.Client,
    status: int,
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes | None,
    says: str,
) -> None:
    reply = client.request(method, path, headers=headers, content=content)
    assert reply.status_code == status, reply.text
    assert says in orjson.dumps(reply.json()["detail"]).decode()
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]


def test_a_header_line_of_just_8_kib_passes(client: httpx.Client) -> None:
    value = "v" * (8192 - len("x-note: \r\n"))
    assert client.get("/health", headers={"X-Note": value}).status_code == 200
    assert client.get("/health", headers={"X-Note": f"{value}v"}).status_code == 431


def test_json_of_just_the_allowed_depth_passes(client: httpx.Client) -> None:
    nested: Any = "leaf"
    for _ in range(98):
        nested = [nested]
    assert ask(client, extra=nested).status_code == 200


def test_a_refusal_of_a_method_names_those_that_are_allowed(client: httpx.Client) -> None:
    assert client.get(CHAT).headers["allow"] == "POST"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_name_of_the_scheme_has_no_case(guarded: LocalServer, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} sq-two"}
    with httpx.Client(base_url=guarded.base_url, headers=headers) as client:
        assert ask(client).status_code == 200


@pytest.mark.parametrize("key", ["sq-three", "sq-on", "sq-onee", "SQ-ONE", "\xe9"])
def test_only_listed_keys_are_let_in(guarded: LocalServer, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}".encode("latin-1")}
    reply = httpx.post(f"{guarded.base_url}{CHAT}", json=body(), headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert key not in reply.text


def test_the_key_is_asked_for_before_anything_else_is_said(guarded: LocalServer) -> None:
    """Neither what exists of a later version, nor what a body lacks, is told to strangers."""
    for path in (CHAT, POLICY_ROUTES[0].path, "/control/chat/v1/messages"):
        assert httpx.post(f"{guarded.base_url}{path}", content=b"{").status_code == 401


@pytest.mark.parametrize("name", ["Authorization", "X-Policy", "X-Session-ID"])
def test_a_header_that_matters_comes_once(server: LocalServer, name: str) -> None:
    headers = [*KEY.items(), (name, "a"), (name, "b")]
    assert httpx.post(f"{server.base_url}{CHAT}", json=body(), headers=headers).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:8080"])
def test_loopback_names_are_hosts_of_ours(server: LocalServer, host: str) -> None:
    assert httpx.get(f"{server.base_url}/health", headers={"Host": host}).status_code == 200


def test_a_request_without_a_host_is_refused(server: LocalServer) -> None:
    assert b" 421 " in raw(server, b"GET /health HTTP/1.0\r\n\r\n").splitlines()[0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400(server: LocalServer, request_bytes: bytes) -> None:
    assert b" 400 " in raw(server, request_bytes).splitlines()[0]
    assert httpx.get(f"{server.base_url}/health").status_code == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(server: LocalServer) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer k\r\n"
        f"Content-Type: application/json\r\nContent-Length: {33 * 1024 * 1024}\r\n"
        "Connection: close\r\n\r\n"
    )
    assert b" 413 " in raw(server, head.encode()).splitlines()[0]


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 1024 * 1024

    try:
        reply = client.post(CHAT, content=endless(), headers=JSON)
    except httpx.WriteError:  # the server has hung up while more was being sent
        return
    assert reply.status_code == 413


def test_a_large_body_within_the_limit_is_answered(client: httpx.Client) -> None:
    assert ask(client, user("word " * 400_000)).status_code == 200


# Replies


def test_a_chat_reply_has_what_the_protocol_promises(client: httpx.Client) -> None:
    reply = ask(client, user("Hello"), model="any/model")
    data = reply.json()
    assert data["object"] == "chat.completion"
    assert data["model"] == "any/model"
    assert isinstance(data["created"], int)
    assert data["choices"][0]["finish_reason"] == "stop"
    assert data["choices"][0]["message"]["role"] == "assistant"
    assert data["usage"]["total_tokens"] == (
        data["usage"]["prompt_tokens"] + data["usage"]["completion_tokens"]
    )
    assert len(session_of(reply)) == 36
    assert reply.headers["x-request-id"]


def test_the_same_question_has_the_same_answer(client: httpx.Client) -> None:
    question = [user("Add 3 and 4"), calls("c1", name="add"), result("c1", "7")]
    replies = [ask(client, *question, tools=[tool("add")], seed=1) for _ in range(3)]
    assert len({orjson.dumps(said(reply)) for reply in replies}) == 1
    assert len({session_of(reply) for reply in replies}) == 3


def test_one_line_is_recorded_for_each_request_and_holds_no_key() -> None:
    records: list[RequestRecord] = []
    with (
        LocalServer(on_request=records.append) as server,
        httpx.Client(base_url=server.base_url, headers=KEY) as client,
    ):
        ask(client, user("call look with 3"), tools=[tool("look")], tool_choice="required")
        ask(client, stream=True)
        client.get("/nowhere")
        client.post(CHAT, json=body(), headers=NO_KEY)
    assert [record.status for record in records] == [200, 200, 404, 401]
    assert [record.path for record in records] == [CHAT, CHAT, "/nowhere", CHAT]
    assert records[0].model == "any/model"
    assert "1 tool call" in records[0].summary
    assert len(records[0].session) == 8
    assert records[0].milliseconds > 0
    assert not any("sq-test" in repr(record) for record in records)


def test_a_log_that_fails_breaks_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_record: RequestRecord) -> None:
        msg = "no more paper"
        raise OSError(msg)

    with (
        LocalServer(on_request=fail) as server,
        httpx.Client(base_url=server.base_url, headers=KEY) as client,
    ):
        assert ask(client).status_code == 200
        assert ask(client).status_code == 200
    assert "no more paper" in caplog.text


# validate-headers


def test_the_three_headers_are_validated_without_a_key(client: httpx.Client) -> None:
    """As the vendor's own tests ask (docs/protocol.md, Endpoints)."""
    sent = {"x_features": '{"agent_arch": "dual-llm"}', "x_policy": "{not json"}
    reply = client.post(VALIDATE, json=sent, headers=NO_KEY)
    features, policy = reply.json()["x_features"], reply.json()["x_policy"]
    assert reply.status_code == 200
    assert features["valid"] is True
    assert features["normalized"]["agent_arch"] == "dual-llm"
    assert policy["valid"] is False
    assert any("Invalid JSON" in error for error in policy["errors"])
    assert reply.json()["x_config"] is None


@pytest.mark.parametrize("name", ["x_features", "x_policy", "x_config"])
def test_an_unknown_name_makes_a_header_invalid(client: httpx.Client, name: str) -> None:
    reply = client.post(VALIDATE, json={name: '{"surprise": 1}'})
    assert reply.json()[name]["valid"] is False
    assert reply.json()[name]["errors"]


@pytest.mark.parametrize("sent", [[], "x", {"x_features": {}}, {"x_features": 1}, {"other": "{}"}])
def test_a_wrong_shape_of_the_question_is_422(client: httpx.Client, sent: Any) -> None:
    assert client.post(VALIDATE, json=sent).status_code == 422


def test_a_null_header_was_not_sent(client: httpx.Client) -> None:
    reply: Json = client.post(VALIDATE, json={"x_policy": None}).json()
    assert reply == {"x_features": None, "x_policy": None, "x_config": None}
