"""The forms of a reply: JSON, an error, a stream of events."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_sequrity.errors import StatusError

_UNAUTHORIZED = 401


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, "application/json")


def error_response(error: StatusError) -> Response:
    """Answer with an error; the body has a `detail` whatever the error's own body is."""
    # The error's own headers stay here: a model behind the server may have had them from elsewhere.
    headers = {"WWW-Authenticate": "Bearer"} if error.status == _UNAUTHORIZED else {}
    if error.retry_after is not None:
        headers["Retry-After"] = f"{error.retry_after:g}"
    is_whole = isinstance(error.body, dict) and "detail" in error.body
    body = error.body if is_whole else {"detail": str(error)}
    return json_response(body, error.status or 500, headers)


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
