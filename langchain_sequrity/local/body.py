"""The body of a request: read within limits, parsed strictly."""

from collections.abc import AsyncIterable, Mapping
from typing import Any

import orjson

from langchain_sequrity.local.refusals import refuse

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 100


async def read(chunks: AsyncIterable[bytes], headers: Mapping[str, str]) -> bytes:
    """Read a body; raises 413 as soon as it is longer than 32 MiB."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BYTES:
        _too_long()
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BYTES:
            _too_long()
    return bytes(body)


def _too_long() -> None:
    refuse(413, f"The body is longer than {MAX_BYTES} bytes.")


def parse(body: bytes) -> Any:
    """Parse a body; raises 400 for what is no JSON, or nested deeper than 100 levels."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse(400, f"Invalid JSON: {error}.")
    if _is_deeper(value, MAX_DEPTH):
        refuse(400, f"The JSON is nested deeper than {MAX_DEPTH} levels.")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ] if any(isinstance(one, dict | list) for one in level) else []  # fmt: skip
        if not level:
            return False
    return True
