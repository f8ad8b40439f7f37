"""Requests and replies as the endpoints see them: a bounded body, JSON, errors, events."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import limits
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import nests_deeper
from langchain_sequrity.wire.routes import Route

# A body takes this much whatever is in it: as it came, a copy while it is parsed, and as text. It
# is paid for at once, so that of several at the same time some get through, not all half-way.
_TIMES_TEXT = 3


async def read(
    chunks: AsyncIterable[bytes],
    headers: Mapping[str, str],
    charge: Charge,
    *,
    limit: int = limits.BODY,
    seconds: float = limits.BODY_SECONDS,
) -> bytearray:
    """Read a body.

    Args:
        chunks: The body as it comes in.
        headers: The request's headers, by lower-case name.
        charge: What the request takes of the memory of all.
        limit: How many bytes it may have.
        seconds: How long it may take to come.

    Returns:
        The body.

    Raises:
        StatusError: 413 as soon as it is known to be longer, 429 if others take the memory, 408 if
            it does not come: a body that is half there takes memory as well.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal():
        _check(int(declared), limit)
        charge.take(_TIMES_TEXT * int(declared))
    try:
        with anyio.fail_after(seconds):
            return await _joined(chunks, charge, limit, is_paid=declared.isdecimal())
    except TimeoutError:
        refuse(408, f"The body did not come within {seconds:g} s. Send it at once.")


async def _joined(
    chunks: AsyncIterable[bytes], charge: Charge, limit: int, *, is_paid: bool
) -> bytearray:
    body = charge.buffer()
    async for chunk in chunks:
        _check(len(body) + len(chunk), limit)
        if not is_paid:
            charge.take(_TIMES_TEXT * len(chunk))
        body += chunk
    return body  # as bytes it would be there twice


def _check(length: int, limit: int) -> None:
    if length > limit:
        refuse(413, f"The body is longer than {limit} bytes. Send less.")


def parse(body: bytearray, charge: Charge) -> Any:
    """Parse a body, and empty it: what it says is there twice otherwise.

    Args:
        body: The bytes as they came.
        charge: What the request takes of the memory of all.

    Returns:
        The JSON value.

    Raises:
        StatusError: 400 for what is no JSON, or nested deeper than 100 levels; 413 for what would
            take more memory than there is, 429 if others take it.
    """
    charge.take(of_json(body) - (_TIMES_TEXT - 1) * len(body))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse(400, f"Invalid JSON: {error}.")
    # The copy that was made to parse it. What the bytes took stays paid, for copies to come.
    charge.take(-len(body))
    body.clear()
    if nests_deeper(value, limits.DEPTH):
        refuse(400, f"The JSON is nested deeper than {limits.DEPTH} levels. Flatten it.")
    return value


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request whose sender and size were checked, and nothing else.

    Attributes:
        route: The row of the table that it came in on.
        bearer: Digest of its bearer.
        headers: Its headers, by lower-case name.
        body: Its body as it came, until it is parsed.
        charge: What it takes of the memory of all requests.
    """

    route: Route
    bearer: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytearray = field(repr=False)
    charge: Charge = field(repr=False)


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
