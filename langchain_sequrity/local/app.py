"""The REST API as an ASGI app: every route, and what surrounds them."""

from typing import Any

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp

from langchain_sequrity.errors import StatusError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    PolicyHeader,
    validate_header,
)
from langchain_sequrity.local import auth, limits
from langchain_sequrity.local import http as bodies
from langchain_sequrity.local.admission import Entrance
from langchain_sequrity.local.asgi import Edge
from langchain_sequrity.local.endpoints import Chats, Policies
from langchain_sequrity.local.http import error_response, json_response, problem_response
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.wire.routes import CHAT_ROUTES, POLICY_ROUTES, VALIDATE_HEADERS_PATH

_CHECKED: dict[str, type[Header]] = {
    "x_features": FeaturesHeader,
    "x_policy": PolicyHeader,
    "x_config": ConfigHeader,
}
_FAILED = "The server failed. Its log has the reason under the id in `X-Request-ID`."


def make_app(services: Services) -> ASGIApp:
    """Mount every row of the route table, and what surrounds it."""
    entrance = Entrance(services)
    chats, policies = Chats(services, entrance), Policies(services, entrance)
    paths = [Path(path, _index, methods=["GET"]) for path in ("/", "/control", "/control/")]
    paths += [Path(path, _health, methods=["GET"]) for path in ("/health", "/control/health")]
    paths.append(Path(VALIDATE_HEADERS_PATH, _validate_headers, methods=["POST"]))
    for routes, endpoints in ((CHAT_ROUTES, chats), (POLICY_ROUTES, policies)):
        paths += [Path(one.path, endpoints.endpoint(one), methods=["POST"]) for one in routes]
    handlers: Any = {
        StatusError: lambda _, error: error_response(error),
        HTTPException: _on_http_exception,
        Exception: lambda _, __: problem_response(500, _FAILED, _FAILED),
    }
    app = Starlette(routes=paths, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Edge(app, services.hosts, services.on_request, services.budget)


def _on_http_exception(_request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    details = {
        404: "There is no such path. `GET /` lists those that exist.",
        405: f"This path does not have this method. Use {headers.get('Allow')}.",
    }
    detail = details.get(error.status_code, error.detail)
    return problem_response(error.status_code, detail, detail, headers)


# Endpoints that are no chat


async def _index(_request: Request) -> Response:
    routes = [*CHAT_ROUTES, *POLICY_ROUTES]
    paths = [{"method": "POST", "path": route.path, "listed": route.listed} for route in routes]
    paths.append({"method": "POST", "path": VALIDATE_HEADERS_PATH, "listed": False})
    return json_response({"service": "langchain-sequrity local server", "routes": paths})


async def _health(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def _validate_headers(request: Request) -> Response:
    """Check the three JSON headers without running anything; no key, as its users send none."""
    headers = request.scope["by_name"]
    auth.check_content_type(headers)
    charge = request.scope["charge"]
    data = await bodies.read(request.stream(), headers, charge, limit=limits.CHECKED_BODY)
    return json_response(await run_sync(_validated, data, charge))


def _validated(data: bytearray, charge: Charge) -> dict[str, Any]:
    sent = bodies.parse(data, charge)
    if not isinstance(sent, dict) or not sent.keys() <= _CHECKED.keys():
        refuse(422, f"Expected an object with any of {', '.join(_CHECKED)}, each a string.")
    if any(value is not None and not isinstance(value, str) for value in sent.values()):
        refuse(422, "Each header is a string with the JSON in it, or null.")
    return {
        name: None if sent.get(name) is None else validate_header(kind, sent[name])
        for name, kind in _CHECKED.items()
    }
