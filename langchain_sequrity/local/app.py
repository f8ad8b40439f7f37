"""The REST API as an ASGI app: routes, request ids, header checks, records, and errors as JSON."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_sequrity.errors import StatusError
from langchain_sequrity.headers import validate_header
from langchain_sequrity.local import auth, http
from langchain_sequrity.local.console.access import PATH as CONSOLE_PATH
from langchain_sequrity.local.console.access import SECURITY_HEADERS
from langchain_sequrity.local.console.pages import console_paths
from langchain_sequrity.local.endpoints import Endpoints, ModelsEndpoint
from langchain_sequrity.local.forwarded import is_trusted, read_forwarded
from langchain_sequrity.local.http import error_response, json_response, problem_response
from langchain_sequrity.local.limits import Charge, ServerLimits
from langchain_sequrity.local.observers import CurrentRequest, RequestRecord, current_request
from langchain_sequrity.local.operations import FOR_ANY_HOST, operation_paths
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.session_headers import HEADER_TYPES
from langchain_sequrity.local.trace_context import request_span
from langchain_sequrity.validation import describe_value
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
    Route,
)

if TYPE_CHECKING:
    from langchain_sequrity.local.connections import Connection

_OF_CONSOLE = [(k.lower().encode(), value.encode()) for k, value in SECURITY_HEADERS.items()]
_FOR_ANY_HOST = {"/health", "/control/health"}  # probes of orchestrators do not know the name
_CLIENT_CLOSED_REQUEST = 499  # what web servers log if a client does not wait for its reply
_NOBODY = "-"  # one owner for all requests that need no key
_STOPPING = "The server is stopping. Send the request again once it runs."
_FAILED = "The server failed. Find the reason in its log, under the id in `X-Request-ID`."
_POST_ROUTES = (*CHAT_ROUTES, *COUNT_TOKENS_ROUTES, *POLICY_ROUTES)
_HEADERS = {name.replace("-", "_"): header_type for name, header_type in HEADER_TYPES.items()}
logger = logging.getLogger("langchain_sequrity.local")


def make_app(services: Services) -> ASGIApp:
    """Mount every row of the route table, inside the edge middleware."""
    endpoints, models = Endpoints(services), ModelsEndpoint(services)
    # The router tries one path after the other, so those that are asked most come first.
    paths = [Path(row.path, _Posts(endpoints, row), methods=["POST"]) for row in _POST_ROUTES]
    paths += [Path(path, _index, methods=["GET"]) for path in ("/", "/control", "/control/")]
    paths += operation_paths(services)
    paths += console_paths(services)
    validate = partial(_validate_headers, services.limits)
    paths.append(Path(VALIDATE_HEADERS_PATH, validate, methods=["POST"]))
    for route in MODELS_ROUTES:
        paths.append(Path(route.path, models.list, methods=["GET"]))
        paths.append(Path(f"{route.path}/{{model:path}}", models.retrieve, methods=["GET"]))
    return EdgeMiddleware(Router(paths, redirect_slashes=False), services)


@dataclass(frozen=True, slots=True)
class _Posts:
    """A POST path as an ASGI app: Starlette wraps other endpoints in two more layers."""

    endpoints: Endpoints
    route: Route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoints.post(self.route, Request(scope, receive))
        await response(scope, receive, send)


class EdgeMiddleware:
    """The outermost layer.

    It adds three entries to the ASGI scope: `by_name`, the headers by lower-case name; `facts`, a
    dict to which the app adds what the record of the request should say; and `charge`, the memory
    that the request uses, which is given back when its client has read the reply.

    Args:
        app: The app inside.
        services: Allowed names in a Host header, what is called for each answered request, and the
            memory that all requests share.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        values = _values(scope["headers"])
        request = CurrentRequest(_request_id(values.get("x-request-id", [])))
        path = re.sub("/{2,}", "/", scope["path"])  # a base URL may end with a slash
        attributes = {"http.request.method": scope["method"], "url.path": path}
        with request_span(values, f"{scope['method']} {path}", attributes) as (trace, span):
            request.trace = trace
            token = current_request.set(request)
            try:
                await self._answer({**scope, "path": path}, receive, send, request)
            finally:
                current_request.reset(token)
                if span is not None:
                    span.set_attribute(
                        "http.response.status_code", request.facts.get("status", 500)
                    )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request: CurrentRequest
    ) -> None:
        began = time.perf_counter()
        # `None` behind another server than `LocalServer`
        connection: Connection | None = scope.get("state", {}).get("connection")
        is_console = f"{scope['path']}/".startswith(f"{CONSOLE_PATH}/")
        of_path = _OF_CONSOLE if is_console else []  # also of errors
        facts = request.facts
        send_with_id = self._with_headers(send, request, connection, of_path)
        charge = Charge(self._services.budget)
        # With "app" Starlette raises `HTTPException`, instead of answering itself.
        scope.update(app=self, facts=facts, charge=charge)
        try:
            headers = auth.check_headers(scope["headers"], self._services.limits.header_bytes)
            scope.update(self._forwarded(scope, headers))
            if scope["path"] not in FOR_ANY_HOST:
                auth.check_host(headers.get("host", ""), self._services.hosts)
            scope["by_name"] = headers
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            facts.update(status=_CLIENT_CLOSED_REQUEST, summary="client hung up")
        except asyncio.CancelledError:
            if "status" not in facts:
                await problem_response(503, _STOPPING)(scope, receive, send_with_id)
            raise
        except Exception as error:
            response = _error_response(error)
            if response is None or "status" in facts:  # a reply that has begun is cut
                logger.exception("Request %s failed", request.id)
            if "status" not in facts:
                response = response or problem_response(500, _FAILED)
                await response(scope, receive, send_with_id)
        finally:
            if self._services.observers.of_requests:
                self._record(scope, request, (time.perf_counter() - began) * 1000)
            await _give_back(charge, connection)

    def _forwarded(self, scope: Scope, headers: dict[str, str]) -> dict[str, Any]:
        """What a trusted proxy says: changes of the scope; the host replaces the header."""
        address, port = scope.get("client") or ("", 0)
        proxies = self._services.trusted_proxies
        if not proxies or not is_trusted(address, proxies):
            return {}
        forwarded = read_forwarded(headers, proxies)
        if forwarded.host:
            headers["host"] = forwarded.host
        client = (forwarded.client, 0) if forwarded.client else (address, port)
        return {"client": client, "scheme": forwarded.scheme or scope["scheme"]}

    def _with_headers(
        self,
        send: Send,
        request: CurrentRequest,
        connection: "Connection | None",
        of_path: Sequence[tuple[bytes, bytes]],
    ) -> Send:
        """`send`, with the headers that all replies have."""
        facts, trace = request.facts, request.trace

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                names = {name for name, _ in message["headers"]}
                added = [header for header in of_path if header[0] not in names]
                added.append((b"x-request-id", request.id.encode()))
                if trace is not None and trace.is_continued:
                    added.append((b"traceresponse", trace.parent.encode()))
                should_close = connection is not None and connection.should_close
                if should_close or self._services.operation.is_draining:
                    added.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        return send_with_headers

    def _record(self, scope: Scope, request: CurrentRequest, milliseconds: float) -> None:
        client, _ = scope.get("client") or ("", 0)
        facts = {"status": 500, **request.facts}
        method, path = scope["method"], scope["path"]
        self._services.observers.request_ended(
            RequestRecord(
                method, path, milliseconds=milliseconds, request_id=request.id, client=client,
                **facts,
            )
        )  # fmt: skip


_PRINTABLE = re.compile(r"[\x20-\x7e]{1,128}")
_READ_FIRST = {b"x-request-id", b"traceparent", b"tracestate"}


def _values(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """The values of the headers that name a request and its trace."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _READ_FIRST:
            values.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return values


def _request_id(values: list[str]) -> str:
    """The client's own id of the request, if it has one that a log can show; else a new one."""
    if len(values) == 1 and _PRINTABLE.fullmatch(values[0]):
        return values[0]
    return str(uuid.uuid4())


async def _give_back(charge: Charge, connection: "Connection | None") -> None:
    """Give back the memory of a request; that of its reply once the client has read it."""
    try:
        if connection is not None and connection.unread:
            charge.reduce_to(connection.unread)
            await connection.all_read()
    finally:
        charge.close()


def _error_response(error: Exception) -> Response | None:
    """The reply to a request that was refused; `None` for an unexpected error."""
    if isinstance(error, StatusError):
        return error_response(error)
    return _http_problem(error) if isinstance(error, HTTPException) else None


def _http_problem(error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    details = {
        404: "This path does not exist. `GET /` lists the paths.",
        405: f"This path does not support this method. Use {headers.get('Allow')}.",
    }
    detail = details.get(error.status_code, error.detail)
    return problem_response(error.status_code, detail, headers)


# Endpoints without a backend


async def _index(_request: Request) -> Response:
    posts = [route.path for route in _POST_ROUTES]
    routes = [{"method": "POST", "path": path} for path in (*posts, VALIDATE_HEADERS_PATH)]
    routes += [{"method": "GET", "path": route.path} for route in MODELS_ROUTES]
    return json_response({"service": "langchain-sequrity local server", "routes": routes})


async def _validate_headers(limits: ServerLimits, request: Request) -> Response:
    """Check the three JSON headers without running anything. Users of this endpoint send no key."""
    headers = request.scope["by_name"]
    auth.check_content_type(headers)
    charge = request.scope["charge"]
    charge.owner = _NOBODY
    data = await http.read_body(
        request.stream(), headers, charge, limits, limit="checked_body_bytes"
    )
    return json_response(await run_sync(_validated, data, charge))


def _validated(data: bytearray, charge: Charge) -> dict[str, Any]:
    headers = http.parse_body(data, charge)
    if not isinstance(headers, dict) or not headers.keys() <= _HEADERS.keys():
        refuse(422, f"Expected an object with any of {', '.join(_HEADERS)}, each a string.")
    for name, value in headers.items():
        if value is not None and not isinstance(value, str):
            got = describe_value(value)
            refuse(422, f"`{name}` must be a string that contains JSON, or null; got {got}.")
    return {
        name: None if headers.get(name) is None else validate_header(header_type, headers[name])
        for name, header_type in _HEADERS.items()
    }
