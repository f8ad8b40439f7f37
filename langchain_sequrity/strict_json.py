"""JSON of others, read strictly: what two readers could read differently is refused.

Numbers keep all their digits, which orjson would lose beyond 64 bits. Python's own reader takes
NaN, infinities and keys that repeat, and does not raise a `ValueError` for depth.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn


class NotJson(ValueError):
    """The text is something that JSON does not have; the message is a part of a sentence."""


class TooDeep(NotJson):
    """The text is nested deeper than Python reads."""


class RepeatedKey(NotJson):
    """One object has a key twice.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__("a key stands twice in one object")
        self.key = key


def loads(text: str, *, unique: bool = False, integer: Callable[[str], int] = int) -> Any:
    """Parse JSON without losing digits.

    Args:
        text: The text.
        unique: Whether to refuse an object that has a key twice, at any depth.
        integer: Makes integers of their digits.

    Returns:
        The value.

    Raises:
        ValueError: If the text is not JSON: `json.JSONDecodeError` with the place of a mistake in
            its form, `NotJson` for NaN, infinities, floats as large as that, and the rest.

    Example:
        ```python
        from langchain_sequrity.strict_json import loads

        assert loads('{"n": 12345678901234567890}') == {"n": 12345678901234567890}
        ```
    """
    try:
        return _decoder(unique, integer).decode(text)
    except RecursionError:
        msg = "The JSON is nested too deeply."
        raise TooDeep(msg) from None


@lru_cache(maxsize=8)
def _decoder(unique: bool, integer: Callable[[str], int]) -> json.JSONDecoder:  # noqa: FBT001 - private
    # `json.loads` would make a decoder for each text.
    return json.JSONDecoder(
        object_pairs_hook=_unique if unique else None,
        parse_constant=_refuse,
        parse_float=_finite,
        parse_int=integer,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise RepeatedKey(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return result


def _refuse(constant: str) -> NoReturn:
    msg = f"`{constant}` is no JSON number"
    raise NotJson(msg)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        msg = "a number is too large"
        raise NotJson(msg)
    return number


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more lists and objects within each other than this."""
    inside = [value]
    for _ in range(levels + 1):
        containers = [one for one in inside if isinstance(one, dict | list)]
        if not containers:
            return False
        inside = [
            one
            for outer in containers
            for one in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return True
