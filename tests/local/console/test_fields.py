"""No text of a client, model, tool, policy or reviewer has an effect in any page of the console.

Each injection is in every field of two sessions and a question; a browser looks at every page that
shows one of them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from playwright.sync_api import Page

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local import ApiKey, AuditLog, LocalServer
from langchain_sequrity.sqrt.engine import compile_policy
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.tool_results import write_labeled
from tests.local.api import Api, Message, call_ids, result, said, session_of
from tests.local.console.chromium import OpenPage, assert_clean, incidents
from tests.local.console.injections import CORPUS, EVALUATED, Injection, effects


def _batches() -> Iterator[tuple[Injection, ...]]:
    for begin in range(0, len(CORPUS), 8):
        yield CORPUS[begin : begin + 8]


PARTS = {f"from {part[0].name}": part for part in _batches()}
LONGEST = 3_000  # in headers, which have a limit
NAME = 60
SEARCHED = ("text", "tool", "verdict", "label", "key", "session", "start")
OPEN_ALL = "document.querySelectorAll('details').forEach(details => { details.open = true })"


class Author:
    """A server whose models write one text wherever they can.

    Args:
        audit_log: The path of its audit log.
        name: The name of its client's key.

    Attributes:
        text: The text.
        server: The server.
    """

    def __init__(self, audit_log: Path, name: str) -> None:
        self.text = ""
        self._programs: list[str] = []
        script: list[Mapping[str, Any]] = [
            {"when": {"role": "planner"}, "answer": lambda _: self._programs.pop(0)},
            {"when": {"role": "quarantined"}, "answer": lambda _: json.dumps({"value": self.text})},
            {"answer": self._chat},
        ]
        keys = [ApiKey.from_secret("sq-test", name)]
        log = AuditLog(path=audit_log, arguments="cut")
        self.server = LocalServer(
            script=script, api_keys=keys, audit_log=log, isolated_programs=False
        )

    def _chat(self, request: ChatRequest) -> AIMessage:
        if isinstance(request.messages[-1], ToolMessage):
            return AIMessage(self.text)
        arguments = {"text": self.text, self.text[:NAME] or "empty": [{self.text: self.text}]}
        call = {"name": "pay", "args": arguments, "id": "1"}
        return AIMessage(self.text, tool_calls=[call])

    @property
    def policy(self) -> str:
        """A policy with the text in doc comments, literals and tags, as far as it is allowed."""
        text = self.text[:LONGEST]
        forms = (_policy(text), _policy(plain(text)), _policy(plain(text), tag="tag"))
        return next(form for form in forms if _is_valid(form))

    def headers(self, architecture: str) -> dict[str, str]:
        codes = {"codes": {"code": self.policy, "language": "sqrt"}}
        return {
            "X-Policy": json.dumps(codes),
            "X-Features": json.dumps({"agent_arch": architecture}),
        }

    def program(self) -> str:
        comment = "".join(self.text.split()).replace("\x00", "").encode("utf-8", "replace").decode()
        text = ascii(self.text)
        return (
            f"# {comment}\nnote = {text}\nread = parse_with_ai(query={text}, "
            'output_schema={"type": "string"})\n'
            f"found = look_up(word=note)\nall_of_it = [note, found, {{note: found}}]\n"
            "send(text=found)\nfinal_return_value = all_of_it"
        )

    def sessions(self, api: Api) -> Iterator[str]:
        """Play a session of each architecture, and return their ids."""
        message: Message = {"role": "user", "content": self.text}
        system: Message = {"role": "system", "content": self.text}
        reply = self._send(api, "single-llm", system, message)
        yield session_of(reply)
        if said(reply).get("tool_calls"):
            content = result(call_ids(reply)[0], self.text)
            reply = self._send(
                api, "single-llm", system, message, said(reply), content, session=session_of(reply)
            )
        # Programs: the text itself, one whose error has it, and one with it everywhere.
        wrong = f"raise ValueError({self.text!a})"
        self._programs = [f"```python\n{self.text}\n```", wrong, *[self.program()] * 5]
        reply = self._send(api, "dual-llm", system, message)
        yield session_of(reply)
        if said(reply).get("tool_calls"):
            names = frozenset({self.text})
            labelled = write_labeled(json.dumps(self.text), Labels(names, names, names), "merge")
            self._send(
                api, "dual-llm", result(call_ids(reply)[0], labelled), session=session_of(reply)
            )

    def _send(
        self, api: Api, architecture: str, *messages: Message, session: str | None = None
    ) -> httpx.Response:
        properties = {"text": {"type": "string", "description": self.text}, self.text: {}}
        tools = [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": self.text,
                    "parameters": {"type": "object", "properties": properties},
                },
            }
            for name in ("pay", "look_up", "send")
        ]
        tools[1]["function"]["parameters"]["properties"]["word"] = {"type": "string"}  # type: ignore[index]
        headers = self.headers(architecture) if session is None else {}
        reply = api.chat(*messages, tools=tools, session=session, headers=headers)
        assert reply.status_code == 200, (self.text[:100], reply.text[:500])
        return reply

    def ask(self, api: Api, secret: str) -> None:
        """Put the text into every field of a question."""
        labels = {"producers": [self.text], "consumers": [self.text], "tags": [self.text]}
        question = {
            "tool": self.text, "arguments": {self.text: self.text, "text": [self.text]},
            "labels": {self.text: labels, "text": labels}, "rule": self.text, "reason": self.text,
            "source": self.text, "session_id": self.text,
        }  # fmt: skip
        headers = {"Authorization": f"Bearer {secret}"}
        reply = api.post("/console/questions", headers=headers, json=question)
        assert reply.status_code == 201, reply.text


def _policy(text: str, tag: str = "") -> str:
    line, literal, label = " ".join(text.split()), json.dumps(text), json.dumps(tag or text)
    return f"""/// {line}
let listed = {{{literal}}};
tool "look_up" -> @tags |= {{{label}}};
tool "send" {{
    /// {line}
    must deny when text.tags overlaps {{{label}}};
    should allow always;
}}
tool "pay" {{
    /// {line}
    should deny when text.value in listed;
    should allow always;
}}
"""


def _is_valid(policy: str) -> bool:
    try:
        compile_policy(policy)
    except UsageError:
        return False
    return True


def _sendable(injection: Injection) -> str:
    """The text as it can be sent; escapes of half surrogate pairs are refused in bodies."""
    text = injection.text if len(injection.text) < 20_000 else injection.text[:20_000]
    return text.encode("utf-8", "replace").decode()


def _check(page: Page, path: str, what: str) -> None:
    reply = page.goto(path)
    assert reply is not None
    assert reply.status == 200, (what, path, page.content()[:500])
    page.evaluate(OPEN_ALL)
    _check_shown(page, what)


def _check_shown(page: Page, what: str) -> None:
    assert effects(page) == [], what
    assert_clean(page)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("part", PARTS)
def test_no_text_in_any_field_has_an_effect(
    part: str, open_page: OpenPage, http: httpx.Client, tmp_path: Path
) -> None:
    injections = PARTS[part]
    names = [plain(_sendable(one))[:NAME].strip().replace("`", "'") for one in injections]
    author = Author(tmp_path / "audit.jsonl", next(filter(None, names), "key"))
    with author.server as server:
        api = Api(server, http, "sq-test")
        secret = server.console_url.partition("token=")[2]
        page = open_page(server.base_url, width=1_000)
        page.goto(server.console_url)
        for injection in injections:
            author.text = _sendable(injection)
            author.ask(api, secret)
            for session in author.sessions(api):
                _check(page, f"/console/sessions/{session}", injection.name)
        last = session
        for path in ("", "/approvals", "/activity", f"/policy?session={last}"):
            _check(page, f"/console{path}", path)
        for injection in injections:
            text = _sendable(injection)[:500]
            query = urlencode(dict.fromkeys(SEARCHED, text))
            _check(page, f"/console?{query}", f"search {injection.name}")
        policy = "".join(f"{author.policy}\n" for author.text in map(_sendable, injections[:3]))
        _edit(page, policy, last)
        _edit(page, "\n".join(_sendable(injection)[:1_000] for injection in injections), last)


def _edit(page: Page, policy: str, session: str) -> None:
    page.goto(f"/console/policy?session={session}")
    with page.expect_response("**/policy/check"):
        page.get_by_label("Text in SQRT").fill(policy)
    page.get_by_label("Text in SQRT").press("Control+Space")
    _check_shown(page, "editor")
    for scope in ("session", "all", "audit"):
        page.get_by_label("Calls of").select_option(scope)
        with page.expect_response("**/policy/run"):
            page.get_by_role("button", name="Run them again").click()
        _check_shown(page, f"run again: {scope}")


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("path", ["/sessions/@", "/sessions/@/turns/1", "/static/@", "/@",
                                  "/policy?session=@", "/policy/words?session=@", "?token=@"])  # fmt: skip
def test_no_text_in_a_url_has_an_effect(path: str, open_page: OpenPage) -> None:
    with LocalServer() as server:
        page = open_page(server.base_url)
        page.goto(server.console_url)
        for injection in CORPUS[::16]:
            text = quote(_sendable(injection)[:500], safe="") or "x"
            page.goto(f"/console{path}".replace("@", text))
            assert effects(page) == [], injection.name
            incidents(page).clear()  # Chromium writes errors of HTTP into its console


def test_the_login_page_shows_where_it_leads_without_an_effect(open_page: OpenPage) -> None:
    with LocalServer() as server:
        page = open_page(server.base_url)
        for injection in CORPUS[::20]:
            page.goto(f"/console/sessions/x?{quote(_sendable(injection)[:500])}")
            assert effects(page) == [], injection.name
            incidents(page).clear()
        assert EVALUATED not in page.content()
