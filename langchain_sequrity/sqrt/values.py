"""Whether a JSON value is what an element of a set says.

Where the service's reading is unknown the answer is unknown: a value of another kind than the
element (see `coercion`); backslashes in texts; lists and objects, into which SQRT cannot look.

What a value of one kind may stand for in another: a text for a number, a number for a text.

Whether the service converts values, and with which parser, is unknown. So a conversion never makes
a match certain: what some parser takes for equal is in doubt, and only what none does is unequal.
Every comparison of two kinds goes through this module. It reads a text in linear time, however long
the text is, and a text with digits that it cannot read for sure may be any number.

Points in time, some without a zone.

Times without a zone compare with each other; with one that has a zone they compare only where no
zone on earth would make a difference.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Boolean,
    Element,
    Moment,
    Number,
    NumberDomain,
    Range,
    Text,
    TextDomain,
    TimeDomain,
)
from langchain_sequrity.sqrt.patterns import (
    Budget,
    Pattern,
    Truth,
    Wildcard,
    agreed,
    any_of,
    both,
    doubted,
)

Numbers = tuple[float, ...] | None
"""The numbers that a value may stand for; `None` if it may be any."""

# All parsers agree on these. Not on `010`, which is 8 to some; on `1.234`, where the point may mark
# thousands; on exponents, which parsers of integers cut off; or on anything longer.
_CLEAR_TEXT = re.compile(
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
    if sure := _CLEAR_TEXT.fullmatch(text.strip()):
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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY_ZONE = 14 * 3600.0
_MAX_TEXT = 64
# All parsers agree on these. Not on `20270101`, which may count seconds; on weeks; on other marks
# between date and time, which to some begin a zone; or on parts of microseconds.
_CLEAR_TIME = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)


class Instant(NamedTuple):
    """Seconds since 1970, in UTC if `zoned` and in some unknown zone if not."""

    seconds: float
    zoned: bool


def instant(written: object) -> Instant | None:
    """Read an ISO 8601 text or epoch seconds.

    Returns:
        The instant, or `None` if it is neither.
    """
    if isinstance(written, bool):
        return None
    if isinstance(written, int | float):
        return _epoch(written)
    if not isinstance(written, str) or len(written) > _MAX_TEXT:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return Instant((moment.replace(tzinfo=UTC) - _EPOCH).total_seconds(), zoned=False)
    return Instant((moment - _EPOCH).total_seconds(), zoned=True)


def surely(text: str) -> Instant | None:
    """Read a text that every parser of ISO 8601 reads alike; `None` for all others."""
    return instant(text) if _CLEAR_TIME.fullmatch(text) else None


def _epoch(number: float) -> Instant | None:
    try:
        seconds = float(number)
    except OverflowError:
        return None
    return None if math.isnan(seconds) else Instant(seconds, zoned=True)


def before(left: Instant, right: Instant, *, or_same: bool) -> Truth:
    """Whether `left` comes before `right`."""
    if left.zoned == right.zoned:
        return left.seconds < right.seconds or (or_same and left.seconds == right.seconds)
    gap = right.seconds - left.seconds
    return None if abs(gap) <= _ANY_ZONE else gap > 0


Matcher = Callable[[Any, Budget], Truth]
SCALARS = (str, int, float, type(None))  # not a union, which would be built at each call
_MAX_STEPS = 100_000
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def matcher(element: Element | Moment | Boolean) -> Matcher:
    """Make the test for one element, or for a literal on one side of `==`.

    Returns:
        The test, for values of the types in `SCALARS`.

    Raises:
        ValueError: For a regex that does not compile or a time that is none, with the reason.
    """
    match element:
        case Text():
            return _on_text(element, _text_test(element))
        case Number(value=literal) | BoolDomain(value=literal) | Boolean(value=literal):
            return lambda value, budget: _is(value, literal, budget)
        case NumberDomain():
            return _number_domain(element)
        case TextDomain():
            return _on_text(element.text, _text_domain(element))
        case Moment():
            return _time(element, element, low_open=False, high_open=False)
        case TimeDomain(low=low, high=high):
            return _time(low, high, low_open=element.low_open, high_open=element.high_open)


def readings(raw: str) -> tuple[str, ...]:
    """The texts that may be meant by what stands between two quotes."""
    if "\\" not in raw:
        return (raw,)
    return (raw, _ESCAPE.sub(r"\1", raw), *_as_json(raw))


def _as_json(raw: str) -> tuple[str, ...]:
    try:
        decoded = json.loads('"' + raw.replace("\n", "\\n") + '"')
    except ValueError:
        return ()
    return (str(decoded),)


def equal(left: Any, right: Any, budget: Budget) -> Truth:
    """Whether two values are equal; unknown where only loosely (1 and "1", also deep inside).

    It takes a bounded number of steps, however deep the values are and however often a part of
    them occurs, and is unknown beyond.
    """
    truth: Truth = True
    pending = [(left, right)]
    for _ in range(_MAX_STEPS):
        if not pending:
            return truth
        one, other = pending.pop()
        if isinstance(one, list) and isinstance(other, list):
            found: Truth = len(one) == len(other)
            pending.extend(zip(one, other, strict=False))
        elif isinstance(one, dict) and isinstance(other, dict):
            found = one.keys() == other.keys()
            pending.extend((value, other.get(name)) for name, value in one.items())
        elif isinstance(one, SCALARS) and isinstance(other, SCALARS):
            found = _is(one, other, budget)
        else:
            found = one == other and (type(one) is type(other) or None)
        truth = both(truth, found)
        if truth is False:
            return False
    return None


def _is(value: Any, other: Any, budget: Budget) -> Truth:
    """Whether a value equals another one or a literal; in doubt if only in another kind."""
    if type(value) is type(other):
        return bool(value == other)
    return may_equal(value, other, budget)


# Texts


def _text_test(text: Text) -> Callable[[str, Budget], Truth]:
    if text.kind == "matching":
        return Pattern(text.raw).matches
    if text.kind == "like":
        return Wildcard(text.raw).matches
    meant = readings(text.raw)
    return lambda value, _: agreed([value == one for one in meant])


def _on_text(text: Text, test: Callable[[str, Budget], Truth]) -> Matcher:
    meant = readings(text.raw) if text.kind == "plain" else ()

    def run(value: Any, budget: Budget) -> Truth:
        if isinstance(value, str):
            return test(value, budget)
        if meant:
            return any_of(may_equal(one, value, budget) for one in meant)
        written = writings(value)
        return None if written is None else doubted(any_of(test(one, budget) for one in written))

    return run


def _text_domain(domain: TextDomain) -> Callable[[str, Budget], Truth]:
    test = _text_test(domain.text)
    if domain.length is None:
        return test
    fits = within(domain.length)

    def run(value: str, budget: Budget) -> Truth:
        characters = fits(len(value))
        if not value.isascii() and characters != fits(len(value.encode("utf-8", "surrogatepass"))):
            return both(None, test(value, budget))
        return test(value, budget) if characters else False

    return run


# Numbers


def within(bounds: Range) -> Callable[[float], bool]:
    """Make the test whether a number lies in a range."""
    low = -math.inf if bounds.low is None else bounds.low.value
    high = math.inf if bounds.high is None else bounds.high.value
    low_open, high_open = bounds.low_open, bounds.high_open

    def run(number: float) -> bool:
        above = number > low if low_open else number >= low
        return above and (number < high if high_open else number <= high)

    return run


def _number_domain(domain: NumberDomain) -> Matcher:
    fits = within(domain.range)
    kind = int if domain.kind == "int" else float

    def run(value: Any, budget: Budget) -> Truth:
        found = numbers(value, budget)
        if found is None:
            return None
        truth = any(map(fits, found))
        return truth if type(value) is kind else doubted(truth)

    return run


# Times


def _time(low: Moment | None, high: Moment | None, *, low_open: bool, high_open: bool) -> Matcher:
    first, last = _bound(low), _bound(high)

    def run(value: Any, _: Budget) -> Truth:
        if not isinstance(value, str):  # a number counts seconds or milliseconds, from some year on
            return False if value is None or isinstance(value, bool) else None
        at = surely(value)
        if at is None:
            return None
        truth: Truth = True
        if first is not None:
            truth = both(truth, before(first, at, or_same=not low_open))
        if last is not None:
            truth = both(truth, before(at, last, or_same=not high_open))
        return truth

    return run


def _bound(moment: Moment | None) -> Instant | None:
    if moment is None:
        return None
    found = instant(moment.written)
    if found is None:
        msg = f"{moment.written!r} is not a time in ISO 8601"
        raise ValueError(msg)
    return found
