"""The forms of a reply: JSON, an error, a stream of events."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_sequrity.errors import StatusError

_UNAUTHORIZED = 401
_TOO_LARGE = 413


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, "application/json")


def problem_response(
    status: int,
    detail: Any,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    kind: str | None = None,
) -> Response:
    """Answer with an error.

    Args:
        status: The HTTP status.
        detail: A sentence, or a list of validation problems; where Sequrity's clients look.
        message: The same as one sentence; where OpenAI's clients look.
        headers: Headers of the reply.
        kind: What programs may tell the error by.

    Returns:
        The reply.
    """
    told = {} if kind is None else {"type": kind}
    return json_response({"detail": detail, "message": message, **told}, status, headers)


def error_response(error: StatusError) -> Response:
    """Answer with what an exception says, and let go of the data in the frames that it came by."""
    error.__traceback__ = error.__context__ = None
    # The error's own headers stay here: a model behind the server may have had them from elsewhere.
    headers = {"WWW-Authenticate": "Bearer"} if error.status == _UNAUTHORIZED else {}
    if error.status == _TOO_LARGE:
        headers["Connection"] = "close"  # nobody reads the rest of an endless body
    if error.retry_after is not None:
        headers["Retry-After"] = f"{error.retry_after:g}"
    text = str(error)
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("detail", text)
    return problem_response(error.status or 500, detail, text, headers, kind=body.get("type"))


class EventStream(StreamingResponse):
    """Server-sent events.

    Args:
        events: The events as bytes.
        headers: Headers of the reply.
        on_end: Called once when the response is over: sent, broken off by the client before its
            first event or within, or cut when the server stops.
    """

    def __init__(
        self, events: AsyncIterator[bytes], headers: Mapping[str, str], on_end: Callable[[], None]
    ) -> None:
        super().__init__(events, headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
