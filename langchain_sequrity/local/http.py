"""Requests and replies as the endpoints use them: bounded bodies, JSON, errors, event streams."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local.keys import ApiKey
from langchain_sequrity.local.limits import DEPTH, Charge, ServerLimits
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.store import StoreInThread
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import nests_deeper
from langchain_sequrity.wire.error_body import error_name
from langchain_sequrity.wire.routes import Route

# Memory of a body, in multiples of its length: the bytes, a copy while they are parsed, and the
# text. All of it is charged at once: of several large bodies some then succeed, instead of all
# failing half-way.
_TIMES_TEXT = 3


async def read_body(
    chunks: AsyncIterable[bytes],
    headers: Mapping[str, str],
    charge: Charge,
    limits: ServerLimits,
    *,
    limit: str = "body_bytes",
) -> bytearray:
    """Read a body.

    Args:
        chunks: The body as it arrives.
        headers: The request's headers, by lower-case name.
        charge: The memory that the request uses.
        limits: The limits of the server.
        limit: Name of the limit of its size.

    Returns:
        The body.

    Raises:
        StatusError: 413 as soon as it exceeds the limit, 429 if other requests use the memory, 408
            if it does not arrive in time: half a body takes memory, too.
    """
    declared = headers.get("content-length", "")
    is_paid = declared.isdecimal()
    if is_paid:
        _check(int(declared), limits, limit)
        charge.add(_TIMES_TEXT * int(declared))
    body = charge.buffer()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in chunks:
                _check(len(body) + len(chunk), limits, limit)
                if not is_paid:
                    charge.add(_TIMES_TEXT * len(chunk))
                body += chunk
    except TimeoutError:
        refuse(
            408,
            f"The body did not arrive within {limits.body_seconds:g} s. Send it without pauses. "
            f"{how_to_raise('body_seconds')}",
        )
    return body  # a copy as `bytes` would double the memory


def _check(length: int, limits: ServerLimits, limit: str) -> None:
    most: int = getattr(limits, limit)
    if length > most:
        refuse(413, f"The body is longer than {most} bytes. Send less. {how_to_raise(limit)}")


def parse_body(body: bytearray, charge: Charge) -> Any:
    """Parse a body, and empty it: otherwise its content would be in memory twice.

    Args:
        body: The received bytes.
        charge: The memory that the request uses.

    Returns:
        The JSON value.

    Raises:
        StatusError: 400 if it is not JSON, or nested deeper than 100 levels; 413 if it needs more
            memory than the server has, 429 if other requests use the memory.
    """
    charge.add(of_json(body) - (_TIMES_TEXT - 1) * len(body))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse(400, f"Invalid JSON: {error}.")
    # The copy that was made to parse it. The charge for the bytes stays: later steps copy them.
    charge.add(-len(body))
    body.clear()
    if nests_deeper(value, DEPTH):
        refuse(400, f"The JSON is nested deeper than {DEPTH} levels. Flatten it.")
    return value


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A request of which only the sender and the size were checked.

    Attributes:
        route: Its row of the route table.
        bearer: Digest of its bearer.
        key: The bearer's key.
        headers: Its headers, by lower-case name.
        body: The received body, until it is parsed.
        charge: The memory that it uses.
        in_thread: Lets threads wait for the session store.
    """

    route: Route
    bearer: str
    key: ApiKey
    headers: Mapping[str, str] = field(repr=False)
    body: bytearray = field(repr=False)
    charge: Charge = field(repr=False)
    in_thread: StoreInThread = field(repr=False)


# After a body that is too long the connection is closed: an endless one is not read to its end.
_HEADERS_BY_STATUS = {401: {"WWW-Authenticate": "Bearer"}, 413: {"Connection": "close"}}


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; bytes are sent as they are."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, "application/json")


def problem_response(
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    detail: Any = None,
    code: str | None = None,
) -> Response:
    """Answer with an error, in one form that all clients read.

    Args:
        status: The HTTP status.
        message: A sentence.
        headers: Headers of the reply.
        detail: A list of validation problems in place of the sentence.
        code: A name of the error for programs.

    Returns:
        The reply. Sequrity's clients read `detail` and `message`; those of OpenAI and Anthropic
        read `error`, and some of Anthropic's only if `type` is `error`.
    """
    error = {"type": error_name(status), "message": message, "code": code, "param": None}
    detail = message if detail is None else detail
    body = {"type": "error", "error": error, "detail": detail, "message": message}
    return json_response(body, status, headers)


def error_response(error: StatusError) -> Response:
    """Answer with the text of an exception, and release the data in the frames of its traceback."""
    error.__traceback__ = error.__context__ = None
    status = error.status or 500
    # The error's own headers are not sent: they may come from the model behind this server.
    headers = dict(_HEADERS_BY_STATUS.get(status, {}))
    if error.retry_after is not None:
        headers["Retry-After"] = f"{error.retry_after:g}"
    body = error.body if isinstance(error.body, dict) else {}
    return problem_response(
        status, str(error), headers, detail=body.get("detail"), code=body.get("type")
    )


class EventStreamResponse(StreamingResponse):
    """Server-sent events.

    Args:
        events: The events as bytes.
        headers: Headers of the reply.
        on_end: Called once when the response is over: it was sent, the client hung up, or the
            server stopped.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str],
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(events, headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._on_end()
