"""What the head of a reply says: its status, its type, whom to ask, how long to wait."""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx
import orjson

from langchain_sequrity.errors import BadReply, ServiceError
from langchain_sequrity.wire.error_body import error_from_body
from langchain_sequrity.wire.exchange import Reply

_LONGEST_TEXT_BODY = 10_000
_OK, _REDIRECT, _ERROR = 200, 300, 400
_NOT_LOGGED = frozenset({"set-cookie", "set-cookie2"})


def succeeded(head: Reply) -> bool:
    """Whether the status is one of 2xx."""
    return _OK <= head.status < _REDIRECT


def media_type(head: Reply) -> str:
    """The content type without its parameters; empty where none is named."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_encoding(head: Reply) -> None:
    """Raise `BadReply` for a compressed body: none was asked for, and it could swell."""
    if head.headers.get("content-encoding", "identity") != "identity":
        msg = "The reply is compressed though `Accept-Encoding: identity` was sent."
        raise BadReply(msg, status=head.status)


def unexpected(head: Reply, expected: str) -> BadReply:
    """The error for a body of another type than was expected."""
    msg = (
        f"The reply with status {head.status} is `{media_type(head) or 'of no named type'}` "
        f"instead of {expected}. Check that `base_url` is the address of the service."
    )
    return BadReply(msg, status=head.status)


def failure(reply: Reply) -> ServiceError | None:
    """The error that a whole reply stands for; `None` for status 2xx."""
    if succeeded(reply):
        return None
    if reply.status >= _ERROR:
        return error_from_body(reply.status, _body(reply.body))
    msg = (
        f"The reply has status {reply.status} and leads to {_target(reply)}. Redirects are not "
        "followed, since keys and policies would go there; correct `base_url`."
    )
    return BadReply(msg, status=reply.status)


def _target(reply: Reply) -> str:
    try:
        url = httpx.URL(reply.headers.get("location", ""))
    except httpx.InvalidURL:
        return "an unreadable address"
    return f"`{url.scheme}://{url.netloc.decode()}`" if url.host else "another path"


def _body(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")[:_LONGEST_TEXT_BODY]


def complete(error: ServiceError, head: Reply) -> None:
    """Add to an error what the head of the reply says.

    Args:
        error: The error, from the transport or from a reader.
        head: Status and headers.
    """
    headers = head.headers
    error.status = head.status if error.status is None else error.status
    error.request_id = error.request_id or headers.get("x-request-id") or headers.get("request-id")
    error.session_id = error.session_id or headers.get("x-session-id")
    error.headers = error.headers or _loggable(headers)
    if error.retry_after is None:
        error.retry_after = retry_after(headers)


def _loggable(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower(): value for name, value in headers.items() if name.lower() not in _NOT_LOGGED
    }


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a reply asks to wait.

    Args:
        headers: Response headers; `Retry-After-Ms` goes before `Retry-After`, which may be a
            number or a date.

    Returns:
        Seconds, 0 for a date in the past; `None` where nothing readable is said.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None
