"""Nobody sees or changes anything in the console without its token or a key that may."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from starlette.requests import Request

from langchain_sequrity import ConsoleReview
from langchain_sequrity.errors import ConnectionFailed
from langchain_sequrity.local import ApiKey, LocalServer, RequestRecord
from langchain_sequrity.local.console.access import Access, cookie_header
from langchain_sequrity.local.keys import Keyring
from tests.local.console.chromium import OpenPage, assert_clean, incidents
from tests.local.console.holes import PageServer, page

QUESTION = {"tool": "pay", "arguments": {"amount": 100}}
PAGES = ("", "/policy", "/policy/words", "/approvals", "/activity", "/events", "/questions/x",
         "/sessions/x", "/sessions/x/turns/1", "/sessions/x/turns/1/calls/1")  # fmt: skip
FORMS = ("/policy/check", "/policy/run", "/policy/file", "/approvals/x", "/questions", "/logout")
WRONG = {
    "nothing": {},
    "another token": {"Authorization": "Bearer wrong"},
    "no bearer": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": "Basic token"},
    "a key that may not": {"Authorization": "Bearer sq-client"},
    "another cookie": {"Cookie": "sequrity_console=x"},
    "a broken cookie": {"Cookie": 'sequrity_console="\\'},
}


class Visitor:
    """A server with a key of clients and one of the console, and requests to its console."""

    def __init__(self, server: LocalServer, http: httpx.Client) -> None:
        self.server = server
        self.http = http
        self.token = server.console_url.partition("token=")[2]

    def send(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        return self.http.request(method, f"{self.server.base_url}/console{path}", **options)

    def trusted(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return self.send(method, path, headers=headers, **options)

    def cookie(self, secret: str = "") -> str:
        form = {"secret": secret or self.token}
        reply = self.send("POST", "/login", data=form, headers={"Cookie": ""})
        return str(reply.headers.get("set-cookie", "")).partition(";")[0]

    def ask(self) -> str:
        return str(self.trusted("POST", "/questions", json=QUESTION).json()["id"])

    def is_undecided(self, question_id: str) -> bool:
        return self.trusted("GET", f"/questions/{question_id}").json()["decision"] is None


def _keys() -> list[str | ApiKey]:
    return [
        ApiKey.from_secret("sq-client", "client"),
        ApiKey.from_secret("sq-operator", "operator", console=True),
    ]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def visitor(http: httpx.Client) -> Iterator[Visitor]:
    with LocalServer(api_keys=_keys()) as server:
        yield Visitor(server, http)


# Without a login


@pytest.mark.parametrize("wrong", WRONG)
def test_nobody_gets_a_page_or_sends_a_form_without_the_token_or_a_key(
    wrong: str, visitor: Visitor
) -> None:
    for path in PAGES:
        for method in ("GET", "HEAD"):
            assert visitor.send(method, path, headers=WRONG[wrong]).status_code == 401
    for path in FORMS:
        assert visitor.send("POST", path, headers=WRONG[wrong]).status_code == 401


def test_the_token_and_a_key_of_the_console_open_it(visitor: Visitor) -> None:
    for secret in (visitor.token, "sq-operator"):
        assert visitor.send("GET", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        assert visitor.send("GET", headers={"Cookie": visitor.cookie(secret)}).status_code == 200
        visitor.http.cookies.clear()
        assert visitor.send("GET", f"?token={secret}").status_code == 303
        visitor.http.cookies.clear()
    for secret in ("sq-client", "", "wrong", "\u00e9", "a" * 10_000):
        assert visitor.cookie(secret or " ") == ""
        assert visitor.send("GET", f"?token={quote(secret)}").status_code == 401


def test_a_login_ends_with_its_key_with_a_logout_and_with_its_time(visitor: Visitor) -> None:
    cookie = visitor.cookie("sq-operator")
    visitor.http.cookies.clear()
    visitor.server.replace_keys(["sq-client"])
    assert visitor.send("GET", headers={"Cookie": cookie}).status_code == 401
    visitor.server.replace_keys(_keys())
    assert visitor.send("GET", headers={"Cookie": cookie}).status_code == 200
    assert visitor.send("POST", "/logout", headers={"Cookie": cookie}).status_code == 303
    assert visitor.send("GET", headers={"Cookie": cookie}).status_code == 401


def _request(cookie: str = "") -> Request:
    by_name = {"host": "127.0.0.1:8080", "cookie": cookie}
    return Request({"type": "http", "method": "GET", "scheme": "http", "by_name": by_name})


@pytest.mark.parametrize(("seconds", "is_allowed"), [(60, True), (0, False)])
def test_a_login_is_valid_for_its_time(seconds: int, is_allowed: bool) -> None:
    access = Access(Keyring(None), seconds)
    cookie = cookie_header(_request(), access.log_in(access.token)).partition(";")[0]
    assert access.is_allowed(_request(cookie)) is is_allowed


def test_only_the_last_thousand_logins_are_kept() -> None:
    access = Access(Keyring(None))
    cookies = [
        cookie_header(_request(), access.log_in(access.token)).partition(";")[0]
        for _ in range(1_001)
    ]
    assert [access.is_allowed(_request(cookie)) for cookie in cookies[:2]] == [False, True]


def test_an_open_stream_of_events_ends_when_its_key_is_removed(visitor: Visitor) -> None:
    headers = {"Authorization": "Bearer sq-operator"}
    with visitor.http.stream(
        "GET", f"{visitor.server.base_url}/console/events", headers=headers
    ) as reply:
        lines = reply.iter_lines()
        assert next(lines) == "retry: 2000"
        visitor.server.replace_keys(["sq-client"])
        assert [line for line in lines if line] == []


def test_streams_of_events_are_bounded_and_ended_ones_do_not_count(visitor: Visitor) -> None:
    address = urlsplit(visitor.server.base_url)
    head = f"GET /console/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += f"Authorization: Bearer {visitor.token}\r\n\r\n"
    streams = []
    for _ in range(101):
        stream = socket.create_connection((address.hostname, address.port or 0), timeout=10)
        stream.sendall(head.encode())
        streams.append(stream)
        status = stream.recv(4_096).split(b" ")[1]
    assert status == b"429"
    for stream in streams:
        stream.close()
    while visitor.trusted("HEAD", "/events").status_code == 429:
        pass


def test_two_servers_do_not_end_each_others_logins(visitor: Visitor) -> None:
    with LocalServer() as other:
        second = Visitor(other, visitor.http)
        visitor.send("GET", f"?token={visitor.token}")
        second.send("GET", f"?token={second.token}")
        assert visitor.send("GET").status_code == second.send("GET").status_code == 200
        cookie = visitor.cookie()
        value = cookie.partition("=")[2]
        port = urlsplit(other.base_url).port
        stolen = {"Cookie": f"sequrity_console_{port}={value}; sequrity_console={value}"}
        visitor.http.cookies.clear()
        assert second.send("GET", headers=stolen).status_code == 401
    reopened = visitor.send("GET", f"?token={second.token}")
    assert reopened.status_code == 401


# Requests of other pages


FOREIGN = {
    "another site": {"Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"},
    "no metadata": {"Origin": "https://example.com"},
    "a sandbox or a file": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    "a host that begins alike": {"Origin": "http://127.0.0.1.example.com"},
    "no origin": {"Sec-Fetch-Site": "cross-site"},
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_form_of_another_origin_changes_nothing(foreign: str, visitor: Visitor) -> None:
    question, cookie = visitor.ask(), visitor.cookie()
    headers = {"Cookie": cookie, **FOREIGN[foreign]}
    for path in (*FORMS, f"/approvals/{question}", "/login"):
        form = {"decision": "approve", "secret": visitor.token, "text": ""}
        reply = visitor.send("POST", path, data=form, headers=headers)
        assert (path, reply.status_code) == (path, 403)
        assert "set-cookie" not in reply.headers
    assert visitor.is_undecided(question)
    assert visitor.send("GET", headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("destination", ["iframe", "image", "script", "empty", "embed", "object"])
def test_another_page_cannot_load_a_part(destination: str, visitor: Visitor) -> None:
    mode = "navigate" if destination in {"iframe", "embed", "object"} else "no-cors"
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": mode,
        "Sec-Fetch-Dest": destination,
    }
    for path in ("", "/events", f"?token={visitor.token}"):
        reply = visitor.trusted("GET", path, headers=headers)
        assert reply.status_code == 403
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "[::2]", ""])
def test_a_host_that_is_not_the_servers_gets_nothing(host: str, visitor: Visitor) -> None:
    for path in ("", "/login", "/static/console.js", f"?token={visitor.token}"):
        reply = visitor.trusted("GET", path, headers={"Host": host})
        assert reply.status_code in {400, 421}
        assert "set-cookie" not in reply.headers


def test_a_page_of_another_origin_gets_nothing_and_changes_nothing(
    visitor: Visitor, pages: PageServer, open_page: OpenPage
) -> None:
    question = visitor.ask()
    console = f"{visitor.server.base_url}/console"
    opened = open_page(visitor.server.base_url)
    opened.goto(visitor.server.console_url)
    pages.show(page(
        f"""<iframe src="{console}"></iframe><img src="{console}/static/icon.svg">
        <script src="{console}/policy/words"></script><script src="{console}/static/console.js"></script>
        <form id=a method=post action="{console}/approvals/{question}"><input name=decision value=approve></form>
        <form id=b method=post action="{console}/logout"></form>"""
    ))  # fmt: skip
    opened.goto(pages.base_url)
    read = opened.evaluate(
        """async ([console, question]) => {
            const got = [];
            const form = new URLSearchParams({decision: "approve"});
            for (const [path, options] of [
                ["", {}], ["/events", {}], ["/questions/" + question, {}],
                ["/logout", {method: "POST"}],
                ["/approvals/" + question, {method: "POST", body: form}]])
              for (const mode of ["cors", "no-cors"])
                for (const credentials of ["include", "omit"])
                  try {
                    const reply = await fetch(console + path, {...options, mode, credentials});
                    got.push(reply.status, await reply.text());
                  } catch { /* blocked */ }
            const events = new EventSource(console + "/events", {withCredentials: true});
            got.push(await new Promise(done => {
                events.onmessage = events.onopen = () => done("stream");
                events.onerror = () => done("");
            }));
            return got.concat([...document.images].map(image => image.naturalWidth));
        }""",
        [console, question],
    )
    assert not any(read)
    frame = opened.frames[1]
    assert "sequrity console" not in (frame.content() if not frame.is_detached() else "")
    for form in ("a", "b"):
        opened.goto(pages.base_url)
        with opened.expect_navigation():
            opened.evaluate(f"document.getElementById('{form}').submit()")
        assert "Another page has sent this request" in opened.content()
    assert visitor.is_undecided(question)
    incidents(opened).clear()
    opened.goto("/console/approvals")
    assert opened.get_by_role("button", name="Approve").count() == 1
    assert_clean(opened)


# Replies


@pytest.mark.parametrize("target", [
    "//example.com", "\\\\example.com", "https://example.com", "/\\example.com", "javascript:alert(1)",
    "/consoles", "/console\r\nX-Injected: 1", "/console/\\example.com", "/console/..//example.com",
    "/console%0d%0aX-Injected:1", "", "/console@example.com",
])  # fmt: skip
def test_a_login_leads_to_the_console_only(target: str, visitor: Visitor) -> None:
    form = {"secret": visitor.token, "next": target}
    reply = visitor.send("POST", "/login", data=form)
    assert reply.status_code == 303
    assert "x-injected" not in reply.headers
    goal = httpx.URL(f"{visitor.server.base_url}/console/login").join(reply.headers["location"])
    assert str(goal).startswith(visitor.server.base_url)
    assert goal.path == "/console" or goal.path.startswith("/console/")


@pytest.mark.parametrize("path", ["/sessions/a%0d%0aX-Injected:1", "/sessions/%5C%5Cexample.com",
                                  "/sessions/%2f%2fexample.com", "/../console"])  # fmt: skip
def test_a_url_with_the_token_leads_to_itself_without_it(path: str, visitor: Visitor) -> None:
    reply = visitor.send("GET", f"{path}?token={visitor.token}")
    assert "x-injected" not in reply.headers
    assert reply.status_code == 404 or reply.headers["location"].startswith("/console")
    assert visitor.token not in str(reply.headers)


@pytest.mark.parametrize("name", [
    "..", "%2e%2e", "..%2fpages.py", "..%2f..%2fpages.py", "%2e%2e%5cpages.py", "README.md", "%00.css",
    "console.css%00", "a" * 5_000 + ".css", "%2fetc%2fpasswd", "%ff.css", ".css", "CONSOLE.CSS%20",
])  # fmt: skip
def test_static_files_are_those_of_the_console_only(name: str, visitor: Visitor) -> None:
    status = visitor.send("GET", f"/static/{name}").status_code
    assert status == (401 if name == ".." else 404)  # clients send `/console` for the first
    assert visitor.send("GET", "/static/console.css").status_code == 200


def test_each_reply_has_the_security_headers_also_errors(visitor: Visitor) -> None:
    client = {"Authorization": "Bearer sq-client"}
    foreign = {"Origin": "null"}
    replies = [
        *(visitor.trusted("GET", path) for path in ("", "/policy", "/sessions/x", "/unknown", "/")),
        visitor.send("GET"),
        visitor.send("GET", "/static/htmx.min.js"),
        visitor.send("GET", "/static/unknown"),
        visitor.send("GET", "?token=wrong"),
        visitor.send("POST", "/login", data={"secret": "wrong"}),
        visitor.send("POST", "/login", data={"secret": visitor.token}),
        visitor.send("POST", "/login", content=b"secret=\xff"),
        visitor.send("GET", "/events", headers={"HX-Request": "true", **client}),
        visitor.send("POST", "/logout", headers=foreign),
        visitor.send("GET", headers={"Host": "example.com"}),
        *(visitor.trusted(method, "/policy") for method in ("OPTIONS", "PUT", "DELETE", "TRACE")),
        visitor.trusted("POST", "/policy/check", content=b"x" * (2 * 2**20)),
        visitor.trusted("POST", "/questions", content=b"[" * 200_000),
        visitor.trusted("POST", "/questions", content=b'{"tool": "\xff"}'),
    ]
    for reply in replies:
        headers = reply.headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), reply
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        is_file = reply.status_code == 200 and "/static/" in str(reply.url)
        assert headers["cache-control"] == ("max-age=300" if is_file else "no-store")
        assert "access-control-allow-origin" not in headers
    assert {reply.status_code for reply in replies} >= {200, 303, 400, 401, 403, 404, 405, 413, 421}
    assert "content-security-policy" not in visitor.http.get(visitor.server.base_url).headers


BAD_BODIES = {
    "deep": (b"[" * 90 + b"]" * 90, 422),
    "deeper": (b"[" * 5_000 + b"]" * 5_000, 400),
    "no object": (b"1", 422),
    "another tool": (b'{"tool": 1}', 422),
    "another form of arguments": (b'{"tool": "pay", "arguments": []}', 0),
    "wrong labels": (b'{"tool": "pay", "labels": {"x": {"tags": [1, null, {}], "producers": 7}}, "arguments": {"x": 1}}', 201),
    "half a surrogate pair": (b'{"tool": "\\ud800"}', 0),
    "empty": (b"", 400),
}  # fmt: skip


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_bad_question_is_refused_and_the_page_still_shows(body: str, visitor: Visitor) -> None:
    content, status = BAD_BODIES[body]
    reply = visitor.trusted("POST", "/questions", content=content)
    assert reply.status_code == status or (status == 0 and reply.status_code < 500)
    assert visitor.trusted("GET", "/approvals").status_code == 200


def test_large_questions_are_refused_before_they_take_much_memory(visitor: Visitor) -> None:
    body = json.dumps({"tool": "pay", "arguments": {"text": "x" * 900_000}})
    statuses = [visitor.trusted("POST", "/questions", content=body).status_code for _ in range(25)]
    assert statuses[0] == 201
    assert statuses[-1] == 429


def test_a_form_with_many_fields_or_without_an_end_is_refused(visitor: Visitor) -> None:
    many = "&".join(f"a{number}=1" for number in range(100))
    assert visitor.trusted("POST", "/policy/check", content=many).status_code == 400
    assert visitor.send("POST", "/login", content=b"x" * 300_000).status_code == 413


def test_the_token_is_nowhere_but_in_the_url_of_the_console(
    tmp_path: Any, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):  # of the client
        logging.getLogger(name).setLevel(logging.WARNING)
    records: list[RequestRecord] = []
    log = tmp_path / "audit.jsonl"
    with LocalServer(on_request=records.append, audit_log=log) as server:
        visitor = Visitor(server, http)
        replies = [
            visitor.send("GET", f"?token={visitor.token}"),
            visitor.send("GET", f"/sessions/x?token={visitor.token}x"),
            visitor.trusted("GET", "/sessions/x"),
            visitor.trusted("POST", "/questions", content=b"no JSON"),
            visitor.send("GET"),
        ]
        metrics = http.get(f"{server.base_url}/metrics").text
        review = ConsoleReview(server.console_url)
        shown = [repr(server), repr(review), repr(server._console), metrics, caplog.text]
    with pytest.raises(ConnectionFailed) as unreachable:
        review.decide({"action_requests": [{"name": "pay"}]})
    shown += [str(unreachable.value), repr(unreachable.value), repr(unreachable.value.__cause__)]
    texts = [*shown, repr(records), log.read_text() if log.exists() else ""]
    texts += [reply.text + str(reply.headers) for reply in replies]
    assert [record.path for record in records][:2] == ["/console", "/console/sessions/x"]
    assert not [text for text in texts if visitor.token in text]


def test_a_long_policy_is_whole_in_the_editor(visitor: Visitor) -> None:
    lines = [f'tool "tool_{number}" {{ must deny always; }}' for number in range(1_000)]
    headers = {"X-Policy": json.dumps({"codes": {"code": "\n".join(lines), "language": "sqrt"}})}
    reply = visitor.http.post(
        f"{visitor.server.base_url}/control/chat/v1/chat/completions",
        json={"model": "any/model", "messages": [{"role": "user", "content": "Hi"}]},
        headers={**headers, "Authorization": "Bearer sq-client"},
    )
    assert reply.status_code == 200, reply.text
    page = visitor.trusted("GET", f"/policy?session={reply.headers['x-session-id']}").text
    text = page.partition("<textarea")[2].partition("</textarea>")[0]
    assert "tool_999" in text
    assert "more characters" not in text
