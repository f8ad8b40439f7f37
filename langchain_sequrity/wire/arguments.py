"""Arguments of tool calls: JSON text on the wire, a dict in LangChain.

Text from a model may be anything. Numbers keep all their digits (orjson would turn long integers
into floats), and what is not an object of plain JSON is reported, not raised.
"""

import json
from typing import Any, NoReturn

import orjson


class _NotJson(ValueError):
    """A constant that JSON does not have."""


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise _NotJson(msg)


def loads(text: str) -> Any:
    """Parse JSON without losing digits.

    Raises:
        ValueError: If the text is no JSON, has NaN or infinities, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
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


def write_arguments(args: dict[str, Any]) -> str:
    """Write the arguments of a call, with real Unicode and every digit."""
    try:
        return orjson.dumps(args).decode()
    except TypeError:  # integers beyond 64 bits
        return json.dumps(args, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
