"""The body of a request: read within limits, parsed strictly, and paid for before either."""

from collections.abc import AsyncIterable, Mapping
from typing import Any

import anyio
import orjson

from langchain_sequrity.local import limits
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.sizes import of_json
from langchain_sequrity.strict_json import nests_deeper

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
