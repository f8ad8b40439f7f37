"""The pages of the console: what each path answers."""

import asyncio
import math
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from anyio.to_thread import run_sync
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from langchain_sequrity.display import plain
from langchain_sequrity.display.svg import FLOW_CSS
from langchain_sequrity.local import http
from langchain_sequrity.local.console import editor, rerun, views
from langchain_sequrity.local.console.access import (
    PATH,
    Access,
    check_origin,
    cookie_header,
)
from langchain_sequrity.local.console.approvals import Approvals
from langchain_sequrity.local.console.pictures import graph_run, turn_flow
from langchain_sequrity.local.console.plots import plots
from langchain_sequrity.local.console.policies import shown_policy
from langchain_sequrity.local.console.recorder import RecordedSession, Recorder
from langchain_sequrity.local.console.search import VERDICTS, Search
from langchain_sequrity.local.http import json_response
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services

_ROWS = 50
_MOST_DIGITS = 8
_MOST_TEXT = 20_000
_MOST_MARKS = 8
_MOST_STREAMS = 100
_LOOK_SECONDS = 1.0  # an open page loads its parts again at most so often
_DECISION_SECONDS = 0.25
_COMMENT_SECONDS = 15.0
_MOST_WAIT = 30.0
_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_STYLE_OF_DRAWINGS = "flow.css"
# Names of URLs are compared with these, and are never paths of the file system.
_FILES = {path.name: path for path in _STATIC.iterdir() if path.suffix in _MEDIA_TYPES}

_OWN_URL = re.compile(rf"{PATH}(/[\w-]+)*(\?[\x21-\x7e]*)?", re.ASCII)

Page = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """The console of a server.

    Attributes:
        recorder: What it shows.
        access: Who may see it.
        approvals: The questions that wait.
        audit_log: The path of the audit log; `None` without one.
    """

    recorder: Recorder
    access: Access
    approvals: Approvals
    audit_log: Path | None = None


def console_paths(services: Services) -> list[Route]:
    """The paths and their endpoints; none without a console."""
    console = services.console
    if not isinstance(console, Console):
        return []
    pages = _Pages(console, services)
    get, post = ["GET"], ["POST"]
    paths: list[tuple[str, Page, list[str]]] = [
        ("", pages.sessions, get),
        ("/sessions/{id}", pages.session, get),
        ("/sessions/{id}/turns/{turn:int}", pages.session, get),
        ("/sessions/{id}/turns/{turn:int}/calls/{call:int}", pages.call, get),
        ("/policy", pages.policy, get),
        ("/policy/check", pages.check_policy, post),
        ("/policy/words", pages.policy_words, get),
        ("/policy/run", pages.run_policy, post),
        ("/policy/file", pages.policy_file, post),
        ("/approvals", pages.approvals, get),
        ("/approvals/{id}", pages.decide, post),
        ("/activity", pages.activity, get),
        ("/events", pages.events, get),
        ("/questions", pages.ask, post),
        ("/questions/{id}", pages.decision, get),
        ("/logout", pages.log_out, post),
    ]
    routes = [Route(f"{PATH}{path}", pages.guarded(page), methods=m) for path, page, m in paths]
    open_paths: list[tuple[str, Page, list[str]]] = [
        ("/login", pages.log_in, post),
        ("/static/{name}", _static, get),
    ]
    routes += [Route(f"{PATH}{path}", page, methods=m) for path, page, m in open_paths]
    return routes


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name == _STYLE_OF_DRAWINGS:
        body = FLOW_CSS.encode()
    elif name in _FILES:
        body = await run_sync(_FILES[name].read_bytes)
    else:
        refuse(404, "The console has no such file.")
    headers = {"Content-Type": _MEDIA_TYPES[Path(name).suffix]}
    return Response(body, headers={**headers, "Cache-Control": "max-age=300"})


class _Pages:
    """The endpoints of a console.

    Args:
        console: The console.
        services: The server's limits and whether it stops.
    """

    def __init__(self, console: Console, services: Services) -> None:
        self._console = console
        self._recorder = console.recorder
        self._services = services
        self._templates = _environment()
        self._streams = 0

    def guarded(self, page: Page) -> Page:
        """A page for those who may see the console; others can log in."""

        async def answer(request: Request) -> Response:
            check_origin(request)
            token = request.query_params.get("token")
            if token is not None and request.method == "GET":
                return self._logged_in(request, token, request.url.path)
            if not self._console.access.is_allowed(request):
                if request.method == "GET" and not _is_part(request):
                    return self._page("login.html", 401, next=_own_path(request), is_wrong=False)
                self._console.access.check(request)
            return await page(request)

        return answer

    # Logins

    async def log_in(self, request: Request) -> Response:
        """Take the token or a key from a form."""
        check_origin(request)
        form = await self._form(request, owner="login", limit="checked_body_bytes")
        target = form.get("next", PATH)
        return self._logged_in(request, form.get("secret", ""), target)

    def _logged_in(self, request: Request, secret: str, target: str) -> Response:
        cookie = self._console.access.log_in(secret)
        if not cookie:
            return self._page("login.html", 401, next=PATH, is_wrong=True)
        if not _OWN_URL.fullmatch(target):
            target = PATH
        headers = {
            "Location": quote(target, safe="/?=&%"),
            "Set-Cookie": cookie_header(request, cookie),
        }
        return Response(status_code=303, headers=headers)

    async def log_out(self, request: Request) -> Response:
        """End the login."""
        self._console.access.log_out(request)
        headers = {"Location": PATH, "Set-Cookie": cookie_header(request, "")}
        return Response(status_code=303, headers=headers)

    # Sessions

    async def sessions(self, request: Request) -> Response:
        """The list of sessions, or its rows."""
        search = Search.from_query(request.query_params)
        start = _number(request.query_params.get("start", "0"))
        rows, more = await run_sync(self._rows, search, start)
        query = {name: getattr(search, name) for name in search.__slots__ if getattr(search, name)}
        template = "session_rows.html" if _is_part(request) else "sessions.html"
        return self._page(
            template,
            rows=rows,
            search=search,
            verdicts=VERDICTS,
            query=urlencode(query),
            more=urlencode({**query, "start": start + _ROWS}) if more else "",
            is_empty=not rows and search.is_empty,
            start=start,
        )

    def _rows(self, search: Search, start: int) -> tuple[list[views.SessionRow], bool]:
        rows: list[views.SessionRow] = []
        for index, session in enumerate(search.matching(self._recorder.sessions())):
            if len(rows) == _ROWS:
                return rows, True
            if index >= start:
                rows.append(views.session_row(session))
        return rows, False

    async def session(self, request: Request) -> Response:
        """A turn of a session; the last one by default."""
        session = self._session(request)
        number = request.path_params.get("turn", max(session.turns, default=0))
        template = "turn_parts.html" if _is_part(request) else "turn.html"
        return await run_sync(self._turn_page, template, session, number)

    def _turn_page(self, template: str, session: RecordedSession, number: int) -> Response:
        recorded = session.turns.get(number)
        if recorded is None:
            refuse(404, "The console does not keep this turn.")
        policy = shown_policy(session)
        turn = views.turn_view(recorded, policy, views.told_in(session))
        return self._page(
            template,
            session=session,
            row=views.session_row(session),
            turn=turn,
            turns=sorted(session.turns),
            knows_models=views.knows_models(session),
            policy=views.policy_lines(policy, turn.calls),
            flow=turn_flow(recorded, turn) if turn.calls else None,
            run=graph_run(session, turn),
            is_running=recorded.outcome in {None, "tool_calls"},
        )

    async def call(self, request: Request) -> Response:
        """The details of a call."""
        session = self._session(request)
        turn = session.turns.get(request.path_params["turn"])
        number = request.path_params["call"]
        if turn is None or not 1 <= number <= len(turn.calls):
            refuse(404, "The console does not keep this call.")
        policy = shown_policy(session)
        call = views.call_view(number, turn.calls[number - 1], policy)
        return self._page("call.html", call=call)

    def _session(self, request: Request) -> RecordedSession:
        session = self._recorder.session(request.path_params["id"])
        if session is None:
            refuse(404, "The console does not keep this session: it knows the last ones only.")
        return session

    # Policies

    async def policy(self, request: Request) -> Response:
        """The editor, with the policy of a session."""
        session_id = request.query_params.get("session", "")
        session = self._recorder.session(session_id)
        text = "" if session is None else shown_policy(session).text
        return await self._page_in_thread(
            "policy.html",
            text=text,
            session=session,
            checked=await run_sync(editor.checked, text, session),
            has_audit_log=self._console.audit_log is not None,
            count=len(self._recorder.sessions()),
        )

    async def check_policy(self, request: Request) -> Response:
        """The text in colour, and what `check` finds."""
        form = await self._form(request)
        session = self._recorder.session(form.get("session", ""))
        checked = await run_sync(editor.checked, form.get("text", ""), session)
        return await self._page_in_thread("policy_check.html", checked=checked)

    async def policy_words(self, request: Request) -> Response:
        """Words for completions."""
        session = self._recorder.session(request.query_params.get("session", ""))
        sessions = self._recorder.sessions() if session is None else [session]
        return json_response(await run_sync(editor.words, sessions))

    async def run_policy(self, request: Request) -> Response:
        """The calls of a session, of all sessions or of the audit log, under the text."""
        form = await self._form(request)
        session = self._recorder.session(form.get("session", ""))
        scope, text = form.get("scope", "session"), form.get("text", "")
        if scope == "audit":
            if self._console.audit_log is None:
                refuse(404, "The server has no audit log.")
            report = await run_sync(rerun.of_audit_log, text, self._console.audit_log)
        else:
            is_one = scope == "session" and session is not None
            sessions = [session] if is_one and session else self._recorder.sessions()
            report = await run_sync(
                rerun.of_sessions, text, sessions, self._services.keys.settings_of
            )
        return await self._page_in_thread("rerun.html", report=report)

    async def policy_file(self, request: Request) -> Response:
        """The text as a file."""
        form = await self._form(request)
        headers = {"Content-Disposition": 'attachment; filename="policy.sqrt"'}
        body = form.get("text", "").replace("\r\n", "\n").encode("utf-8", "replace")
        return Response(body, headers={**headers, "Content-Type": "text/plain; charset=utf-8"})

    # Approvals

    async def approvals(self, request: Request) -> Response:
        """The questions that wait."""
        template = "approval_list.html" if _is_part(request) else "approvals.html"
        return await self._approvals(template)

    async def _approvals(self, template: str) -> Response:
        waiting, decided = self._console.approvals.waiting(), self._console.approvals.decided()
        is_part = template == "approval_list.html"
        return await self._page_in_thread(
            template, waiting=waiting, decided=decided, is_part=is_part
        )

    async def decide(self, request: Request) -> Response:
        """A person's decision."""
        form = await self._form(request)
        self._console.approvals.decide(
            request.path_params["id"], form.get("decision", ""), form.get("message", "")
        )
        return await self._approvals("approval_list.html")

    async def ask(self, request: Request) -> Response:
        """A question of a program, as JSON."""
        body = await self._body(request)
        question = self._console.approvals.ask(http.parse_body(body, request.scope["charge"]))
        return json_response({"id": question.id}, 201)

    async def decision(self, request: Request) -> Response:
        """The decision about a question; waits for it as long as the program wants."""
        wait = min(_seconds(request.query_params.get("wait", "0")), _MOST_WAIT)
        question = self._console.approvals.get(request.path_params["id"])
        end = time.monotonic() + wait
        while question.decision is None and time.monotonic() < end:
            if self._services.operation.is_draining:
                break
            if await request.is_disconnected():
                self._console.approvals.abandon(question)
                return Response(status_code=499)
            question.seen = time.monotonic()
            await asyncio.sleep(_DECISION_SECONDS)
        question.seen = time.monotonic()
        return json_response({"decision": question.decision, "message": question.message})

    # Counts and events

    async def activity(self, request: Request) -> Response:
        """What the server counts, as plots."""
        template = "activity_parts.html" if _is_part(request) else "activity.html"
        drawn = await run_sync(plots, self._recorder.minutes())
        return self._page(template, plots=drawn, denials=self._recorder.denials()[:20])

    async def events(self, request: Request) -> Response:
        """Server-sent events: `changed` when sessions changed, `asked` when questions did."""
        if self._streams >= _MOST_STREAMS:
            refuse(429, f"The console is open {_MOST_STREAMS} times. Close some.", retry_after=30)
        return StreamingResponse(self._counted_events(request), media_type="text/event-stream")

    async def _counted_events(self, request: Request) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            async for event in self._events(request):
                yield event
        finally:
            self._streams -= 1

    async def _events(self, request: Request) -> AsyncIterator[bytes]:
        versions = self._versions()  # before the page knows that the stream is open
        yield b"retry: 2000\n\n"
        silent = 0.0
        while not self._services.operation.is_draining:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._console.access.is_allowed(request):
                return  # logged out meanwhile, or the key was removed
            silent += _LOOK_SECONDS
            for name, version in self._versions().items():
                if versions[name] != version:
                    yield f"event: {name}\ndata: {version}\n\n".encode()
                    versions[name], silent = version, 0.0
            if silent >= _COMMENT_SECONDS:
                yield b": still here\n\n"
                silent = 0.0

    def _versions(self) -> dict[str, int]:
        return {"changed": self._recorder.version, "asked": self._console.approvals.version}

    # Parts

    async def _page_in_thread(self, template: str, **facts: Any) -> Response:
        """A page of clients' texts, which may be large, without keeping others waiting."""
        return await run_sync(partial(self._page, template, **facts))

    def _page(self, template: str, status: int = 200, **facts: Any) -> Response:
        waiting = len(self._console.approvals.waiting())
        html = self._templates.get_template(template).render(**facts, waiting_count=waiting)
        body = html.encode("utf-8", "replace")
        return Response(body, status, media_type="text/html; charset=utf-8")

    async def _body(
        self, request: Request, owner: str = "console", limit: str = "policy_body_bytes"
    ) -> bytearray:
        headers, charge = request.scope["by_name"], request.scope["charge"]
        charge.owner = owner
        return await http.read_body(
            request.stream(), headers, charge, self._services.limits, limit=limit
        )

    async def _form(self, request: Request, **options: str) -> Mapping[str, str]:
        body = await self._body(request, **options)
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20)
        except ValueError:
            refuse(400, "The form is not valid. Reload the page.")
        return dict(fields)


def _is_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    headers: Mapping[str, str] = request.scope["by_name"]
    return headers.get("hx-request") == "true"


def _own_path(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


# Templates


@cache
def _environment() -> Environment:
    """Templates that escape everything: markup for the browser, and unsafe characters before."""
    environment = Environment(
        loader=PackageLoader("langchain_sequrity.local.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "whole": lambda text: escape(plain(text, limit=len(text), lines=True)),
        "clock": views.clock,
        "duration": views.duration,
        "json": lambda value: orjson.dumps(value, default=str).decode("utf-8", "replace"),
        "url": partial(quote, safe=""),
        "value": views.value_text,
        "chips": views.wire_chips,
        "drawing": lambda flow: Markup(flow.svg(standalone=False)),  # noqa: S704 - it escapes
    }
    return environment


def _safe(value: object) -> object:
    """Text without characters that reorder or fake the text around it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _without_towers(plain(value, limit=_MOST_TEXT, lines=True))
    return value


def _without_towers(text: str) -> str:
    """Escape marks of a letter with many: they cover other lines, and the letter never wraps."""
    if text.isascii():
        return text
    parts, marks = list[str](), 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char).startswith("M") else 0
        parts.append(char if marks <= _MOST_MARKS else f"\\u{ord(char):04x}")
    return "".join(parts)
