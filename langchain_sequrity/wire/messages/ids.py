"""Ids and arguments of tool calls that this format takes: letters, digits, `_`, `-`; objects."""

import hashlib
import re

INVALID = "INVALID_JSON"
"""Key of arguments that are no JSON object: the format demands one all the same."""

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+\Z")


def legal_id(call_id: str | None) -> str:
    """Return an id as it is, or a legal one in its place: the same each time, so that pairs stay.

    Args:
        call_id: The id, of any provider.

    Returns:
        The legal id.
    """
    if call_id and _LEGAL.match(call_id):
        return call_id
    text = (call_id or "").encode("utf-8", "surrogatepass")
    return f"call_{hashlib.blake2s(text, digest_size=12).hexdigest()}"
