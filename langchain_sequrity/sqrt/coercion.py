"""What a value of one kind may stand for in another: a text for a number, a number for a text.

Whether the service converts values, and with which parser, is unknown. So a conversion never makes
a match certain: what some parser takes for equal is in doubt, and only what none does is unequal.
Every comparison of two kinds goes through this module. It reads a text in linear time, however long
the text is, and a text with digits that it cannot read for sure may be any number.
"""

import json
import re
import unicodedata
from typing import Any

from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.truth import Truth

Numbers = tuple[float, ...] | None
"""The numbers that a value may stand for; `None` if it may be any."""

# All parsers agree on these. Not on `010`, which is 8 to some; on `1.234`, where the point may mark
# thousands; on exponents, which parsers of integers cut off; or on anything longer.
_SURE = re.compile(
    r"(?![+-]?[1-9]\d?\d?\.\d{3}\Z)(?P<whole>[+-]?(?:0|[1-9]\d{0,599}))(?:\.\d*)?", re.ASCII
)
_DIGIT = re.compile(r"\d|∞")
_NO_LETTERS = re.compile(r"[\W\d_]+")
_LONGEST_WORD = len("infinity")
_WORDS: dict[str, Numbers] = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), (1,)),
    **dict.fromkeys(("false", "f", "no", "n", "off", "none", "null", "nil", ""), (0,)),
    **dict.fromkeys(("inf", "infinity", "nan", "snan"), None),
}
_WRITTEN = {
    None: ("null", "None", ""),
    True: ("true", "True", "1"),
    False: ("false", "False", "0"),
}


def numbers(value: Any, budget: Budget) -> Numbers:
    """The numbers that a value of a type in `SCALARS` may stand for; none if it is empty."""
    if isinstance(value, str):
        if value not in budget.numbers:
            budget.numbers[value] = _in_text(value)
        return budget.numbers[value]
    if value is None:
        return (0,)
    return (value,) if value == value else None  # noqa: PLR0124 - NaN is not equal to itself


def _in_text(text: str) -> Numbers:
    if sure := _SURE.fullmatch(text.strip()):
        return float(sure[0]), int(sure["whole"])
    if _DIGIT.search(text) or (not text.isascii() and any(map(str.isnumeric, text))):
        return None
    # Only letters are left when they are normalized: runs of accents would take square time.
    word = _NO_LETTERS.sub("", text)
    if len(word) > _LONGEST_WORD:
        return ()
    return _WORDS.get(unicodedata.normalize("NFKC", word).casefold(), ())


def may_equal(one: Any, other: Any, budget: Budget) -> Truth:
    """Whether two values of different kinds may be the same: unknown, or surely not."""
    mine, theirs = numbers(one, budget), numbers(other, budget)
    if mine is None or theirs is None:
        return False if one is None or other is None else None
    return False if set(mine).isdisjoint(theirs) else None


def writings(value: float | None) -> tuple[str, ...] | None:
    """How a value that is not a text may be written; `None` for a number that nobody writes out."""
    if value is None or isinstance(value, bool):
        return _WRITTEN[value]
    try:
        texts = [json.dumps(value), str(value), str(float(value))]
        return (*texts, str(int(value))) if value == int(value) else tuple(texts)
    except (ValueError, OverflowError):
        return None
