"""Strict JSON, read and written: no lost digits, no NaN, no repeated keys, no crash at depth.

Two readers of one text must see the same value. orjson loses digits beyond 64 bits. Python's own
reader accepts NaN, infinities and repeated keys, and raises `RecursionError` for deep nesting.

The service writes with Python's `json.dumps`, which knows NaN and infinities. What it writes as a
text, an envelope or the arguments of a call, is read with them (`docs/protocol.md`).
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import orjson


class NotJson(ValueError):
    """The text is not JSON; the message is a part of a sentence."""


class TooDeep(NotJson):
    """The text is nested deeper than Python reads."""


class RepeatedKey(NotJson):
    """One object has a key twice.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__("an object has a key twice")
        self.key = key


def loads(
    text: str,
    *,
    unique: bool = False,
    integer: Callable[[str], int] = int,
    constants: bool = False,
) -> Any:
    """Parse JSON without losing digits.

    Args:
        text: The text.
        unique: Whether to refuse an object that has a key twice, at any depth.
        integer: Converts the digits of an integer.
        constants: Whether to read `NaN`, `Infinity` and `-Infinity`.

    Returns:
        The value.

    Raises:
        ValueError: If the text is not JSON: `json.JSONDecodeError` with the location of a syntax
            error, `NotJson` for NaN, infinities, floats that overflow, depth and repeated keys.

    Example:
        ```python
        from langchain_sequrity.strict_json import loads

        assert loads('{"n": 12345678901234567890}') == {"n": 12345678901234567890}
        ```
    """
    try:
        return _decoder(unique, integer, constants).decode(text)
    except RecursionError:
        msg = "The JSON is nested too deeply."
        raise TooDeep(msg) from None


@lru_cache(maxsize=8)
def _decoder(unique: bool, integer: Callable[[str], int], constants: bool) -> json.JSONDecoder:  # noqa: FBT001 - private
    # `json.loads` would make a decoder for each text.
    return json.JSONDecoder(
        object_pairs_hook=_unique if unique else None,
        parse_constant=float if constants else _refuse,
        parse_float=_finite,
        parse_int=integer,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise RepeatedKey(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return result


def _refuse(constant: str) -> NoReturn:
    msg = f"`{constant}` is not a JSON number"
    raise NotJson(msg)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        msg = "a number is too large"
        raise NotJson(msg)
    return number


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than `levels`."""
    values = [value]
    for _ in range(levels + 1):
        containers = [v for v in values if isinstance(v, dict | list)]
        if not containers:
            return False
        values = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
    return True


def read_arguments(
    text: str | None, *, constants: bool = False
) -> tuple[dict[str, Any] | None, str]:
    """Read the arguments of a tool call, which a model wrote and which may be any text.

    Args:
        text: The JSON text; an empty one stands for no arguments.
        constants: As for `loads`.

    Returns:
        The arguments and an empty text, or `None` and a description of the problem.
    """
    if not text:
        return {}, ""
    try:
        args = loads(text, constants=constants)
    except ValueError as error:
        return None, f"The arguments are not JSON: {error}"
    if not isinstance(args, dict):
        return None, f"The arguments are not a JSON object but a {type(args).__name__}."
    return args, ""


def dumps(value: Any, *, constants: bool = False) -> str:
    """Write JSON with real Unicode and every digit.

    Args:
        value: Plain data.
        constants: Whether to write `NaN`, `Infinity` and `-Infinity`, as Python does.

    Raises:
        ValueError: If the value is nested too deeply, or holds NaN or infinities.
    """
    try:
        text = orjson.dumps(value).decode()
        # orjson writes NaN and infinities as null. The standard encoder refuses them, but is slow.
        if "null" not in text or orjson.loads(text) == value:
            return text
    except (TypeError, RecursionError):  # integers beyond 64 bits, or deep nesting
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=constants)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def as_text(value: Any) -> str:
    """A text as it is, and any other value as JSON; raises as `dumps`."""
    return value if isinstance(value, str) else dumps(value)


def dumps_like_service(value: Any, *, constants: bool = False) -> str:
    r"""Write JSON as the service does: blanks after `,` and `:`, and `\uXXXX` beyond ASCII.

    Clients search envelopes for texts such as `"denied": [{`, and the service compares histories
    as texts (`docs/protocol.md`, Dual-LLM content).

    Args:
        value: Plain data.
        constants: As for `dumps`.

    Raises:
        ValueError: As `dumps`.
        TypeError: If the value is not plain data.

    Example:
        ```python
        from langchain_sequrity.strict_json import dumps_like_service

        assert dumps_like_service({"to": "Zoë", "n": 1}) == '{"to": "Zo\\u00eb", "n": 1}'
        ```
    """
    try:
        return json.dumps(value, allow_nan=constants)
    except TypeError:  # dates and the like, which `dumps` knows
        return json.dumps(loads(dumps(value, constants=constants), constants=constants))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


Encoder = Callable[[Any], bytes]
"""Writes JSON in a canonical form: one text for values that differ only in the order of keys."""


def sorted_json(value: Any) -> bytes:
    """Write JSON with sorted keys. Digests in stored runs are of exactly these bytes."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits, or lone surrogates
        return dumps(_sorted(value)).encode("utf-8", "surrogatepass")


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [*map(_sorted, value)] if isinstance(value, list | tuple) else value


def digest_of(value: Any, encode: Encoder = sorted_json) -> str:
    """SHA-256 of a JSON value in a canonical form."""
    return hashlib.sha256(encode(value)).hexdigest()


_TOO_DEEP = "The value is nested too deeply."
