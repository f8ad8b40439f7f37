"""JSON as text: arguments of tool calls, values of turns, excerpts for errors.

Text from a model may be anything. Numbers keep all their digits (orjson would turn long integers
into floats), and arguments that are not an object of plain JSON are reported, not raised.
"""

import json
import math
from typing import Any, NoReturn

import orjson

from langchain_sequrity.display import plain


class _NotJson(ValueError):
    """A constant that JSON does not have."""


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no number that JSON can carry"
    raise _NotJson(msg)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        _refuse(f"{digits[:40]}, which is beyond what a float holds,")
    return number


# `json.loads` would make a decoder for each text.
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def loads(text: str) -> Any:
    """Parse JSON without losing digits.

    Raises:
        ValueError: If the text is no JSON, has NaN, infinities or floats as large as that, or is
            nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        msg = "The JSON is nested too deeply."
        raise ValueError(msg) from None


def read_arguments(text: str | None) -> tuple[dict[str, Any] | None, str]:
    """Read the arguments of a call.

    Args:
        text: The JSON text; an empty one stands for no arguments.

    Returns:
        The arguments, or `None` and what is wrong with the text.
    """
    if not text:
        return {}, ""
    try:
        args = loads(text)
    except ValueError as error:
        return None, f"The arguments are not JSON: {error}"
    if not isinstance(args, dict):
        return None, f"The arguments are not a JSON object but a {type(args).__name__}."
    return args, ""


def dumps(value: Any) -> str:
    """Write JSON with real Unicode and every digit.

    Raises:
        ValueError: If the value is nested too deeply, or holds NaN or infinities that JSON lacks.
    """
    try:
        text = orjson.dumps(value).decode()
        if "null" not in text:  # orjson writes NaN and infinities as null
            return text
    except TypeError:  # integers beyond 64 bits, or nested deeper than orjson goes
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        msg = "The value is nested too deeply."
        raise ValueError(msg) from None


def dumps_like_service(value: Any) -> str:
    r"""Write JSON as the service does: blanks after `,` and `:`, and `\uXXXX` beyond ASCII.

    Clients search envelopes for texts such as `"denied": [{`, and histories are compared as texts
    (`docs/protocol.md`, Dual-LLM content).

    Raises:
        ValueError: As `dumps`.
        TypeError: If the value holds what is not plain data.

    Example:
        ```python
        from langchain_sequrity.wire.json_text import dumps_like_service

        assert dumps_like_service({"to": "Zoë", "n": 1}) == '{"to": "Zo\\u00eb", "n": 1}'
        ```
    """
    try:
        return json.dumps(value, allow_nan=False)
    except TypeError:  # dates and the like, which `dumps` knows
        return json.dumps(loads(dumps(value)))
    except RecursionError:
        msg = "The value is nested too deeply."
        raise ValueError(msg) from None


def excerpt(value: Any, limit: int) -> str:
    """The beginning of any JSON value or text, fit to be shown."""
    if isinstance(value, bytes):
        return plain(value[: 4 * limit].decode(errors="replace"), limit=limit)
    try:
        return plain(value if isinstance(value, str) else dumps(value), limit=limit)
    except ValueError:
        return "(nested too deeply)"
