"""JSON as it stands in an HTTP header: one line of ASCII on the way out, strict on the way in.

Both directions agree on what they take, so whatever is written can be read back
(`docs/protocol.md`, The three JSON headers).
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.strict_json import NotJson, RepeatedKey, TooDeep, loads
from langchain_sequrity.validation import described, join_path, shown

MAX_DEPTH = 32
# Beyond 64 bits other languages round or refuse, and Python itself refuses very long digits.
_INTEGER_LIMIT = 2**63
_SURROGATE = re.compile("[\ud800-\udfff]")


def write_json(data: Mapping[str, Any]) -> str:
    r"""Write an object as the value of an HTTP header.

    Args:
        data: The object. The keys are sorted, so equal objects give equal text.

    Returns:
        Compact JSON in printable ASCII: everything else is escaped as `\uXXXX`.

    Raises:
        UsageError: If the object holds something that JSON text cannot carry.
    """
    if found := json_problem(data):
        raise UsageError(found)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    # The encoder leaves DEL, the one ASCII control character that JSON allows, as it is.
    return text.replace("\x7f", "\\u007f")


def read_json(text: str) -> dict[str, Any]:
    """Read the value of a header.

    Args:
        text: JSON text of one object.

    Returns:
        The object.

    Raises:
        UsageError: If the text is no JSON (the message starts with "Invalid JSON" and has the
            position), is no object, repeats a key, or is nested more than 32 levels deep.
    """
    try:
        data = loads(text, unique=True, integer=_int)
    except json.JSONDecodeError as error:
        msg = f"Invalid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise UsageError(msg) from None
    except TooDeep:
        raise UsageError(_TOO_DEEP) from None
    except RepeatedKey as error:
        msg = f"The key {shown(error.key)} stands twice in one JSON object. Keep one of them."
        raise UsageError(msg) from None
    except NotJson as error:
        msg = f"Invalid JSON: {error}."
        raise UsageError(msg) from None
    if not isinstance(data, dict):
        msg = f"A header holds one JSON object; got {described(data)}."
        raise UsageError(msg)
    if found := json_problem(data):
        raise UsageError(found)
    return data


_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} levels deep. Flatten it."


def _int(digits: str) -> int:
    if len(digits) > len(str(-_INTEGER_LIMIT)):
        msg = "an integer has more than 64 bits"
        raise NotJson(msg)
    return int(digits)


def json_problem(value: Any, path: str = "", depth: int = MAX_DEPTH) -> str | None:
    """Say why a value cannot be JSON text, or `None` if it can.

    Args:
        value: Anything.
        path: How to name the value in the sentence.
        depth: How many levels of objects and lists are allowed.

    Returns:
        One readable sentence about the first problem found.
    """
    if isinstance(value, Mapping | list):
        return _container_problem(value, path, depth) if depth else _TOO_DEEP
    found = _scalar_problem(value)
    return f"`{path}` {found}" if found else None


def _container_problem(value: Mapping[Any, Any] | list[Any], path: str, depth: int) -> str | None:
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str) or _scalar_problem(key):
            return f"The key {shown(key)} cannot be JSON: keys are text without lone surrogates."
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = (json_problem(item, join_path(path, key), depth - 1) for key, item in items)
    return next(filter(None, found), None)


def _scalar_problem(value: Any) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        inside = -_INTEGER_LIMIT <= value < _INTEGER_LIMIT
        return None if inside else "has more than 64 bits. Use a smaller number."
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not finite. JSON has finite numbers only."
    return f"is a `{type(value).__name__}`. JSON has objects, lists, text, numbers, true, false."


def _text_problem(text: str) -> str | None:
    match = _SURROGATE.search(text)
    if match is None:
        return None
    return (
        f"holds a lone surrogate (U+{ord(match[0]):04X}) at character {match.start()}, which is "
        "no text. Remove it."
    )
