"""Around the app: one form of paths, checks of headers, request ids, records, no traceback."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import auth
from langchain_sequrity.local.http import error_response, problem_response
from langchain_sequrity.local.limits import Budget, Charge

_HUNG_UP = 499  # what web servers log where a client did not wait for its reply
_STOPPING = "The server is stopping. Send the request again once it runs."

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


class Edge:
    """The outermost layer.

    It adds three entries to the ASGI scope: `by_name`, the headers by lower-case name; `facts`, a
    dict in which the app leaves what the record of the request should say; and `charge`, what the
    request takes of the memory of all, which it gives back when its reply has gone out.

    Args:
        app: The app within.
        hosts: Names that a Host header may have, or `None` for any.
        on_request: Called once for each answered request.
        budget: The memory that all requests have together.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None,
        on_request: Callable[[RequestRecord], None] | None,
        budget: Budget,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._on_request = on_request
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.perf_counter()
        request_id = str(uuid.uuid4())
        facts: dict[str, Any] = {}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        charge = Charge(self._budget)
        path = _collapsed(scope["path"])
        scope = {**scope, "path": path, "facts": facts, "charge": charge}
        try:
            await self._checked(scope, receive, send_with_id)
        except ClientDisconnect:
            facts.update(status=_HUNG_UP, summary="client hung up")
        except asyncio.CancelledError:
            if "status" not in facts:
                await problem_response(503, _STOPPING, _STOPPING)(scope, receive, send_with_id)
            raise
        except Exception:
            # The app has answered with 500 before it let the exception pass.
            logger.exception("Request %s failed", request_id)
        finally:
            charge.close()
            self._record(scope, (time.perf_counter() - began) * 1000)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = auth.check_headers(scope["headers"])
            auth.check_host(headers, self._hosts)
        except StatusError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app({**scope, "by_name": headers}, receive, send)

    def _record(self, scope: Scope, milliseconds: float) -> None:
        if self._on_request is None:
            return
        facts = {"status": 500, **scope["facts"]}
        try:
            self._on_request(
                RequestRecord(scope["method"], scope["path"], milliseconds=milliseconds, **facts)
            )
        except Exception:
            logger.exception("`on_request` failed; the request was answered all the same")


def _collapsed(path: str) -> str:
    """A base URL with a trailing slash gives double slashes."""
    while "//" in path:
        path = path.replace("//", "/")
    return path
