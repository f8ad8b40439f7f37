"""The REST API as an ASGI app: the one place of the local server that is asynchronous."""

import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_sequrity.errors import StatusError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    PolicyHeader,
    validate_header,
)
from langchain_sequrity.local import body as bodies
from langchain_sequrity.local import guard
from langchain_sequrity.local.brains import Brain
from langchain_sequrity.local.idempotency import Replies, StoredReply
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.sessions import SessionStore, bearer_digest
from langchain_sequrity.local.turn import Fidelity, Incoming, Turn
from langchain_sequrity.wire.routes import CHAT_ROUTES, POLICY_ROUTES, VALIDATE_HEADERS_PATH, Route
from langchain_sequrity.wire.sse import write_event

MAX_TURNS_AT_ONCE = 512
_JSON = "application/json"
_STREAM = "text/event-stream; charset=utf-8"

logger = logging.getLogger("langchain_sequrity.local")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One answered request, for a log. It holds no key and no text of the conversation.

    Attributes:
        method: HTTP method.
        path: Path of the URL.
        status: Status of the reply.
        model: The model that was asked for, or an empty text.
        session: The first eight characters of the session's id, or an empty text.
        milliseconds: How long the reply took, its stream included.
        summary: What the reply was, in a few words.
    """

    method: str
    path: str
    status: int
    model: str = ""
    session: str = ""
    milliseconds: float = 0.0
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """What the app needs.

    Attributes:
        store: Where sessions live.
        brain: What answers.
        api_keys: Keys that are allowed, or `None` for any.
        hosts: Names that a Host header may have, or `None` for any.
        fidelity: Which fields are honoured.
        on_request: Called once for each answered request, on the server's thread.
    """

    store: SessionStore
    brain: Brain
    api_keys: Sequence[str] | None = None
    hosts: frozenset[str] | None = guard.LOOPBACK_NAMES
    fidelity: Fidelity = "full"
    on_request: Callable[[RequestRecord], None] | None = None


def make_app(services: Services) -> ASGIApp:
    """Mount every row of the route table, and what surrounds it."""
    api = _Api(services)
    paths = [Path(path, api.index, methods=["GET"]) for path in ("/", "/control", "/control/")]
    paths += [Path(path, api.health, methods=["GET"]) for path in ("/health", "/control/health")]
    paths.append(Path(VALIDATE_HEADERS_PATH, api.validate_headers, methods=["POST"]))
    paths += [Path(route.path, api.chat(route), methods=["POST"]) for route in CHAT_ROUTES]
    paths += [Path(route.path, api.later(route), methods=["POST"]) for route in POLICY_ROUTES]
    handlers: Any = {StatusError: _on_status_error, HTTPException: _on_http_exception}
    app = Starlette(routes=paths, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _Outermost(app, services)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, _JSON)


def _on_status_error(_request: Request, error: StatusError) -> Response:
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = f"{error.retry_after:g}"
    return _json(error.body or {"detail": str(error)}, error.status or 500, headers)


def _on_http_exception(_request: Request, error: HTTPException) -> Response:
    what = {404: "There is no such path. `GET /` lists those that exist."}
    detail = what.get(error.status_code, error.detail)
    return _json({"detail": detail}, error.status_code, dict(error.headers or {}))


class _Outermost:
    """Around the app: one form of paths, checks of headers, request ids, no traceback outside."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        facts: dict[str, Any] = {"status": 500}
        request_id = str(uuid.uuid4())
        scope = {**scope, "path": _collapsed(scope["path"]), "facts": facts}
        started = False

        async def send_with_id(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                facts["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._checked(scope, receive, send_with_id)
        except Exception:
            logger.exception("Request %s failed", request_id)
            if not started:
                detail = "The server failed. Its log has the reason under the request's id."
                await _json({"detail": detail}, 500)(scope, receive, send_with_id)
        finally:
            if self._services.on_request is not None:
                took = (time.perf_counter() - began) * 1000
                record = RequestRecord(scope["method"], scope["path"], milliseconds=took, **facts)
                self._services.on_request(record)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = guard.check_headers(scope["headers"])
            guard.check_host(headers, self._services.hosts)
        except StatusError as error:
            await _on_status_error(Request(scope), error)(scope, receive, send)
            return
        await self._app({**scope, "by_name": headers}, receive, send)


def _collapsed(path: str) -> str:
    """A base URL with a trailing slash gives double slashes."""
    while "//" in path:
        path = path.replace("//", "/")
    return path


class _Api:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replies = Replies()
        self._running = 0

    async def index(self, _request: Request) -> Response:
        """List the routes."""
        routes = [*CHAT_ROUTES, *POLICY_ROUTES]
        paths = [{"method": "POST", "path": route.path, "listed": route.listed} for route in routes]
        paths.append({"method": "POST", "path": VALIDATE_HEADERS_PATH, "listed": False})
        return _json({"service": "langchain-sequrity local server", "routes": paths})

    async def health(self, _request: Request) -> Response:
        """Say that the server is there."""
        return _json({"status": "ok"})

    async def validate_headers(self, request: Request) -> Response:
        """Check the three JSON headers without running anything."""
        guard.check_content_type(request.scope["by_name"])
        sent = bodies.parse(await bodies.read(request.stream(), request.scope["by_name"]))
        kinds: dict[str, type[Header]] = {
            "x_features": FeaturesHeader,
            "x_policy": PolicyHeader,
            "x_config": ConfigHeader,
        }
        if not isinstance(sent, dict) or not sent.keys() <= kinds.keys():
            refuse(422, f"Expected an object with any of {', '.join(kinds)}, each a string.")
        if any(value is not None and not isinstance(value, str) for value in sent.values()):
            refuse(422, "Each header is a string with the JSON in it, or null.")

        def check() -> dict[str, Any]:
            return {
                name: None if sent.get(name) is None else validate_header(kind, sent[name])
                for name, kind in kinds.items()
            }

        return _json(await run_in_threadpool(check))

    def later(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that a later version brings."""

        async def endpoint(request: Request) -> Response:
            guard.bearer(request.scope["by_name"], self._services.api_keys)
            what = "policy generation" if route.suffix == "generate" else f"format `{route.suffix}`"
            if route.endpoint_type == "lang-graph":
                what = "lang-graph endpoint"
            refuse(501, f"This version of the local server does not have the {what} yet.")

        return endpoint

    def chat(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the table."""
        if route.suffix != "chat/completions" or route.endpoint_type == "lang-graph":
            return self.later(route)

        async def endpoint(request: Request) -> Response:
            headers = request.scope["by_name"]
            key = guard.bearer(headers, self._services.api_keys)
            guard.check_content_type(headers)
            data = await bodies.read(request.stream(), headers)
            incoming = Incoming(route, bearer_digest(key), headers, bodies.parse(data))
            return await self._answer_once(request, incoming, data)

        return endpoint

    async def _answer_once(self, request: Request, incoming: Incoming, data: bytes) -> Response:
        """Answer, or repeat the answer that the same request had."""
        sent_key = incoming.headers.get("idempotency-key")
        if sent_key is None:
            return await self._answer(request, incoming, None)
        key = f"{incoming.bearer}:{sent_key}"
        digest = hashlib.sha256(incoming.route.path.encode() + b"\0" + data).hexdigest()
        known = self._replies.begin(key, digest)
        if known is not None:
            return Response(known.body, known.status, known.headers)
        try:
            return await self._answer(request, incoming, key)
        except BaseException:
            self._replies.end(key, None)
            raise

    async def _answer(self, request: Request, incoming: Incoming, key: str | None) -> Response:
        if self._running >= MAX_TURNS_AT_ONCE:
            refuse(429, "Too many turns are running at once.", Retry_After="1")
        services = self._services

        def open_turn() -> Turn:
            return Turn(incoming, services.store, services.brain, services.fidelity)

        self._running += 1
        try:
            turn = await run_in_threadpool(open_turn)
        except BaseException:
            self._running -= 1
            raise
        facts = request.scope["facts"]
        facts.update(model=turn.request.model, session=turn.session.id[:8])
        if turn.request.stream:
            return await self._streamed(turn, facts, key)
        try:
            reply = await run_in_threadpool(turn.reply)
        finally:
            self._end(turn)
        facts["summary"] = _summary(reply["choices"][0]["message"].get("tool_calls"))
        response = _json(reply, headers={"X-Session-ID": turn.session.id})
        self._keep(key, response.body, dict(response.headers))
        return response

    async def _streamed(self, turn: Turn, facts: dict[str, Any], key: str | None) -> Response:
        pieces = turn.stream()
        try:
            # An error before the first piece has a status of its own.
            first = await run_in_threadpool(next, pieces, None)
        except BaseException:
            self._end(turn)
            raise
        headers = {"X-Session-ID": turn.session.id, "Cache-Control": "no-store"}
        facts["summary"] = "stream"
        events = self._events(turn, first, pieces, key, {**headers, "Content-Type": _STREAM})
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    async def _events(
        self, turn: Turn, first: str | None, pieces: Iterator[str], key: str | None,
        headers: dict[str, str],
    ) -> AsyncIterator[bytes]:  # fmt: skip
        sent = bytearray()
        kept = False
        try:
            if first is not None:
                sent += write_event(first)
                yield bytes(sent)
            async for piece in iterate_in_threadpool(pieces):
                event = write_event(piece)
                sent += event
                yield event
            self._keep(key, bytes(sent), headers)
            kept = True
        except StatusError as error:
            yield write_event(_error_event(error))
        except Exception:
            logger.exception("A stream failed")
            yield write_event('{"error":{"message":"The server failed.","code":500}}')
        finally:
            if key is not None and not kept:
                self._replies.end(key, None)
            self._end(turn)

    def _end(self, turn: Turn) -> None:
        self._running -= 1
        turn.close()

    def _keep(self, key: str | None, body: bytes | memoryview, headers: dict[str, str]) -> None:
        if key is not None:
            self._replies.end(key, StoredReply(200, headers, bytes(body)))


def _error_event(error: StatusError) -> str:
    return orjson.dumps({"error": {"message": str(error), "code": error.status}}).decode()


def _summary(calls: Any) -> str:
    if not calls:
        return "text"
    return f"{len(calls)} tool call{'s' if len(calls) > 1 else ''}"
