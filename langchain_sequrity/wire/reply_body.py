"""The body of a reply, whatever its format: JSON or not, an error or not.

Replies are untrusted: every shape that is not the protocol's becomes a `BadReply`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson

from langchain_sequrity.errors import BadReply, StatusError
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.error_body import error_from_body
from langchain_sequrity.wire.exchange import Reply
from langchain_sequrity.wire.json_text import excerpt
from langchain_sequrity.wire.limits import check_json

Describe = Callable[[Reply], Mapping[str, Any]]
"""What to add to a message's `response_metadata`, made from the head of the reply."""

OK = 200
# What reading a reply of the wrong shape raises.
MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_EXCERPT = 200
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def read_object(data: bytes | str, reply: Reply, *, exact: bool = False) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: The text.
        reply: The head of the reply.
        exact: Whether integers beyond 64 bits keep all digits.

    Returns:
        The object.

    Raises:
        BadReply: For anything else, and for what would take too much memory (`limits`).
    """
    check_json(data)
    try:
        body = orjson.loads(data)
        if exact and _LONG_NUMBER.search(data if isinstance(data, bytes) else data.encode()):
            body = loads(data.decode() if isinstance(data, bytes) else data)
    except ValueError:
        refuse("JSON", data, reply)
    if not isinstance(body, dict):
        refuse("a JSON object", body, reply)
    return body


def refuse(expected: str, body: Any, reply: Reply) -> NoReturn:
    """Refuse a reply.

    Args:
        expected: What it should have been, such as `a chat completion with `choices``.
        body: What came.
        reply: The head of the reply.

    Raises:
        BadReply: Always.
    """
    msg = f"The service's reply is not {expected}. It begins with: {excerpt(body, _EXCERPT)!r}."
    raise BadReply(
        msg,
        status=reply.status,
        request_id=reply.headers.get("x-request-id"),
        session_id=reply.headers.get("x-session-id"),
        body=body.decode(errors="replace") if isinstance(body, bytes) else body,
    ) from None


def error_inside(body: Mapping[str, Any], reply: Reply) -> StatusError:
    """The error that an object inside a good reply stands for."""
    return error_from_body(
        OK,
        body,
        request_id=reply.headers.get("x-request-id"),
        session_id=reply.headers.get("x-session-id"),
    )


def count(usage: Mapping[str, Any], name: str) -> int:
    """The token count under a name; an absent one is 0."""
    found = usage.get(name) or 0
    if not isinstance(found, int):
        msg = f"`{name}` is not an integer."
        raise TypeError(msg)
    return found
