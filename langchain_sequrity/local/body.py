"""The body of a request: read within limits, parsed strictly."""

from collections.abc import AsyncIterable, Mapping
from typing import Any, NoReturn

import orjson

from langchain_sequrity.local.refusals import refuse

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 100


async def read(
    chunks: AsyncIterable[bytes], headers: Mapping[str, str], limit: int = MAX_BYTES
) -> bytes:
    """Read a body.

    Args:
        chunks: The body as it comes in.
        headers: The request's headers, by lower-case name.
        limit: How many bytes it may have.

    Returns:
        The body.

    Raises:
        StatusError: 413 as soon as it is known to be longer.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        _too_long(limit)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            _too_long(limit)
    return bytes(body)


def _too_long(limit: int) -> NoReturn:
    refuse(413, f"The body is longer than {limit} bytes. Send less.")


def parse(body: bytes) -> Any:
    """Parse a body.

    Args:
        body: The bytes as they came.

    Returns:
        The JSON value.

    Raises:
        StatusError: 400 for what is no JSON, or nested deeper than 100 levels.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse(400, f"Invalid JSON: {error}.")
    if _is_deeper(value, MAX_DEPTH):
        refuse(400, f"The JSON is nested deeper than {MAX_DEPTH} levels. Flatten it.")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        containers = [one for one in level if isinstance(one, dict | list)]
        if not containers:
            return False
        level = [
            inner
            for outer in containers
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return True
