"""JSON as text: arguments of tool calls, values of turns, excerpts for errors.

Text from a model may be anything: arguments that are not an object of plain JSON are reported, not
raised.
"""

import json
from typing import Any

import orjson

from langchain_sequrity.display import plain
from langchain_sequrity.strict_json import loads


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
