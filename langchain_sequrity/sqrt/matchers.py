"""Whether a value matches an element of a set, with three-valued truth.

A test gives `True`, `False`, or `None` for unknown (rules V2 and V3 of `docs/behaviour.md`). A
denial treats unknown as true, an allowance as false. Unknown are:

- regexes that time out, meet a text that is too long, or have no engine (the package `regex`);
- what depends on how the service reads a regex: its anchoring, and doubled backslashes;
- backslashes in texts, `[` in wildcards, lists and objects;
- values of another kind than the element. Whether the service converts values, and with which
  parser, is unknown. So a conversion never makes a match certain: `None` where some parser may
  find them equal, `False` where no parser does.

All tests take bounded time, whatever the value is.
"""

import contextlib
import fnmatch
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from langchain_sequrity import patterns
from langchain_sequrity.patterns import SECONDS_PER_CALL
from langchain_sequrity.sqrt import nodes

# Three-valued truth

Truth = bool | None


def negated(truth: Truth) -> Truth:
    """Not."""
    return None if truth is None else not truth


def both(left: Truth, right: Truth) -> Truth:
    """And."""
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def either(left: Truth, right: Truth) -> Truth:
    """Or."""
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def any_of(truths: Iterable[Truth]) -> Truth:
    """Or, of any number; it stops at the first true one."""
    joined: Truth = False
    for truth in truths:
        joined = either(joined, truth)
        if joined is True:
            break
    return joined


def unanimous(readings: Iterable[Truth]) -> Truth:
    """The truth if all readings agree, else unknown."""
    distinct = set(readings)
    return distinct.pop() if len(distinct) == 1 else None


def at_most_unknown(truth: Truth) -> Truth:
    """The truth of a match that only some readings make: unknown, or false."""
    return False if truth is False else None


# Regexes

MAX_PATTERN: Final = 1_000
SECONDS_PER_MATCH: Final = 0.1
MAX_WORK: Final = 5_000_000
INSTALL: Final = 'pip install "langchain-sequrity[local]"'
"""The command that installs the package `regex`."""


class MatchBudget(patterns.TimeBudget):
    """Time for the matches of one phase of a call, and what was read from its texts.

    A long text is read once for each cache, not once for each element of a policy.

    Attributes:
        numbers: Text → the numbers that it may stand for.
    """

    __slots__ = ("_lines", "_sizes", "numbers")

    def __init__(self, seconds: float = SECONDS_PER_CALL) -> None:
        super().__init__(seconds)
        self.numbers: dict[str, tuple[float, ...] | None] = {}
        self._lines: dict[str, str | None] = {}
        self._sizes: dict[str, int] = {}

    def without_last_line_break(self, text: str) -> str | None:
        """The text without a line break at its end; `None` if it has no line break anywhere."""
        if text not in self._lines:
            has_line_break = LINE_BREAK.search(text)
            self._lines[text] = _LAST_LINE_BREAK.sub("", text) if has_line_break else None
        return self._lines[text]

    def utf8_size(self, text: str) -> int:
        """The number of bytes of a text in UTF-8."""
        if text not in self._sizes:
            self._sizes[text] = len(text.encode("utf-8", "surrogatepass"))
        return self._sizes[text]


TextTest = Callable[[str, MatchBudget], Truth]


def regex_test(raw: str) -> TextTest:
    """Whether a text matches a regex as written in a policy; unknown if the readings differ.

    Raises:
        ValueError: If it is not a regex, is longer than `MAX_PATTERN` or repeats too much.
    """
    compiled: list[patterns.Pattern | None] = [_compiled(raw)]
    if (other := _other_reading(raw)) is not None:
        try:
            compiled.append(_compiled(other))
        except ValueError:
            compiled.append(None)  # in this reading the rule would raise
    return lambda text, budget: unanimous([_search(pattern, text, budget) for pattern in compiled])


def expanded_size(raw: str) -> int:
    """The size of a regex with its repeats written out, in both readings, without compiling it.

    Raises:
        ValueError: If it is not a regex, is too long or repeats too much.
    """
    total = patterns.measure(raw).size
    if (other := _other_reading(raw)) is not None:
        with contextlib.suppress(ValueError):
            total += patterns.measure(other).size
    return total


def _other_reading(raw: str) -> str | None:
    return raw.replace("\\\\", "\\") if "\\\\" in raw else None


def _compiled(raw: str) -> patterns.Pattern:
    if len(raw) > MAX_PATTERN:
        msg = f"a regex has at most {MAX_PATTERN} characters"
        raise ValueError(msg)
    pattern = patterns.Pattern(raw)
    if pattern.measures.has_brace:
        raise ValueError(patterns.BARE_BRACE)
    return pattern


def _search(reading: patterns.Pattern | None, text: str, budget: MatchBudget) -> Truth:
    if reading is None or not patterns.has_engine():
        return None
    is_in_text = reading.finds_within(text, budget, seconds=SECONDS_PER_MATCH)
    if not is_in_text:
        return is_in_text
    is_whole_text = reading.finds_within(text, budget, seconds=SECONDS_PER_MATCH, whole=True)
    return is_whole_text or None  # whether the service anchors regexes is unknown


# Wildcards

LINE_BREAK = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_LAST_LINE_BREAK = re.compile(rf"(?:\r\n|{LINE_BREAK.pattern})\Z")


def wildcard_test(raw: str) -> TextTest:
    """Whether a whole text matches a wildcard: `*` is any run of characters, `?` is one.

    `[` and backslashes have a meaning in some dialects only, so a wildcard with them never matches
    for certain. A text with line breaks does not either: many dialects stop `*` and `?` at a line
    break, or ignore one at the end. `fnmatch` writes a wildcard as a regex that never backtracks
    over a `*`, so its time is at most text times wildcard. A text that is too long is unknown.

    Raises:
        ValueError: If it is longer than `MAX_PATTERN`.
    """
    if len(raw) > MAX_PATTERN:
        msg = f"a wildcard has at most {MAX_PATTERN} characters"
        raise ValueError(msg)
    if "[" in raw or "\\" in raw:
        return lambda *_: None
    match = re.compile(fnmatch.translate(raw)).match

    def run(text: str, budget: MatchBudget) -> Truth:
        if len(text) * len(raw) > MAX_WORK:
            return None
        matches = budget.run_search(match, text)
        shortened = budget.without_last_line_break(text)
        if shortened is None:
            return matches
        return at_most_unknown(either(matches, budget.run_search(match, shortened)))

    return run


# Numbers in texts, and texts of numbers

Numbers = tuple[float, ...] | None
"""The numbers that a value may stand for; `None` if it may be any."""

# All parsers agree on these. They differ on `010`, which is 8 to some; on `1.234`, where the point
# may mark thousands; on exponents, which parsers of integers cut off; and on anything longer.
_CLEAR_NUMBER = re.compile(
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


def _numbers(value: Any, budget: MatchBudget) -> Numbers:
    """The numbers that a value of a type in `SCALARS` may stand for; possibly empty."""
    if isinstance(value, str):
        if value not in budget.numbers:
            budget.numbers[value] = _numbers_in_text(value)
        return budget.numbers[value]
    if value is None:
        return (0,)
    return (value,) if value == value else None  # noqa: PLR0124 - NaN is not equal to itself


def _numbers_in_text(text: str) -> Numbers:
    if clear := _CLEAR_NUMBER.fullmatch(text.strip()):
        return float(clear[0]), int(clear["whole"])
    if _DIGIT.search(text) or (not text.isascii() and any(map(str.isnumeric, text))):
        return None
    # Normalizing takes quadratic time on runs of accents, so only letters are normalized.
    word = _NO_LETTERS.sub("", text)
    if len(word) > _LONGEST_WORD:
        return ()
    return _WORDS.get(unicodedata.normalize("NFKC", word).casefold(), ())


def may_equal(value: Any, other: Any, budget: MatchBudget) -> Truth:
    """Whether two values of different kinds are equal: unknown or false."""
    numbers, other_numbers = _numbers(value, budget), _numbers(other, budget)
    if numbers is None or other_numbers is None:
        return False if value is None or other is None else None
    return False if set(numbers).isdisjoint(other_numbers) else None


def _text_forms(value: float | None) -> tuple[str, ...] | None:
    """The texts that a value may be converted to; `None` for a number too long to write out."""
    if value is None or isinstance(value, bool):
        return _WRITTEN[value]
    try:
        texts = [json.dumps(value), str(value), str(float(value))]
        return (*texts, str(int(value))) if value == int(value) else tuple(texts)
    except (ValueError, OverflowError):
        return None


# Times

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY_ZONE = 14 * 3600.0
# All parsers agree on these. They differ on `20270101`, which may count seconds; on weeks; on other
# marks between date and time, which to some begin a zone; and on parts of microseconds.
_CLEAR_TIME = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)


class Instant(NamedTuple):
    """Seconds since 1970, in UTC if `zoned`, else in an unknown zone."""

    seconds: float
    zoned: bool


def instant(written: str | float) -> Instant | None:
    """Read an ISO 8601 text or epoch seconds; `None` for anything else."""
    try:
        if not isinstance(written, str):
            return Instant(float(written), zoned=True)
        moment = datetime.fromisoformat(written)
    except (ValueError, OverflowError):
        return None
    zoned = moment.tzinfo is not None
    in_utc = moment if zoned else moment.replace(tzinfo=UTC)
    return Instant((in_utc - _EPOCH).total_seconds(), zoned)


def _is_before(first: Instant, second: Instant, *, or_same: bool) -> Truth:
    """Whether the first is before the second; unknown if that depends on an unknown zone."""
    if first.zoned == second.zoned:
        return first.seconds < second.seconds or (or_same and first.seconds == second.seconds)
    gap = second.seconds - first.seconds
    return None if abs(gap) <= _ANY_ZONE else gap > 0


# Elements

Matcher = Callable[[Any, MatchBudget], Truth]
SCALARS = (str, int, float, type(None))  # a tuple, because a union would be built at each call
_MAX_STEPS = 100_000
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def matcher(element: nodes.Element | nodes.TimeLiteral | nodes.BooleanLiteral) -> Matcher:
    """Make the test for one element, or for a literal on one side of `==`.

    Returns:
        The test, for values of the types in `SCALARS`.

    Raises:
        ValueError: For a regex that does not compile or an invalid time, with the reason.
    """
    match element:
        case nodes.TextLiteral():
            return _text_matcher(element, _text_test(element))
        case (
            nodes.NumberLiteral(value=literal)
            | nodes.BoolDomain(value=literal)
            | nodes.BooleanLiteral(value=literal)
        ):
            return lambda value, budget: _scalars_equal(value, literal, budget)
        case nodes.NumberDomain():
            return _number_matcher(element)
        case nodes.TextDomain():
            return _text_matcher(element.text, _sized_text_test(element))
        case nodes.TimeLiteral(at=position):
            return _time_matcher(nodes.TimeDomain(element, element, False, False, position))  # noqa: FBT003
        case nodes.TimeDomain():
            return _time_matcher(element)


def readings(raw: str) -> tuple[str, ...]:
    """The texts that a quoted text may stand for: several if it has backslashes."""
    if "\\" not in raw:
        return (raw,)
    texts = (raw, _ESCAPE.sub(r"\1", raw))
    try:
        return (*texts, str(json.loads('"' + raw.replace("\n", "\\n") + '"')))
    except ValueError:
        return texts


def equal(left: Any, right: Any, budget: MatchBudget) -> Truth:
    """Whether two values are equal; unknown if only after a conversion (1 and "1", also inside).

    It takes a bounded number of steps, however deep the values are and however often a part of
    them occurs, and gives unknown beyond.
    """
    truth: Truth = True
    pending = [(left, right)]
    for _ in range(_MAX_STEPS):
        if not pending:
            return truth
        left_part, right_part = pending.pop()
        if isinstance(left_part, list) and isinstance(right_part, list):
            are_equal: Truth = len(left_part) == len(right_part)
            pending.extend(zip(left_part, right_part, strict=False))
        elif isinstance(left_part, dict) and isinstance(right_part, dict):
            are_equal = left_part.keys() == right_part.keys()
            pending.extend((value, right_part.get(name)) for name, value in left_part.items())
        elif isinstance(left_part, SCALARS) and isinstance(right_part, SCALARS):
            are_equal = _scalars_equal(left_part, right_part, budget)
        else:
            are_equal = left_part == right_part and (type(left_part) is type(right_part) or None)
        truth = both(truth, are_equal)
        if truth is False:
            return False
    return None


def _scalars_equal(value: Any, other: Any, budget: MatchBudget) -> Truth:
    if type(value) is type(other):
        return bool(value == other)
    if isinstance(other, bool):
        return _may_be_flag(value, other, budget)
    if isinstance(value, bool):
        return _may_be_flag(other, value, budget)
    return may_equal(value, other, budget)


def _may_be_flag(value: Any, flag: bool, budget: MatchBudget) -> Truth:  # noqa: FBT001 - a value
    """Whether a value may be read as true or as false: unknown or false.

    Parsers of flags differ: some know `"enabled"`, `"ok"` or `"✓"`, and some take anything but 0.
    """
    if isinstance(value, str) and value.strip() and not any(map(str.isalnum, value)):
        return None  # only signs
    numbers = _numbers(value, budget)
    return None if not numbers or any(bool(number) is flag for number in numbers) else False


def _text_test(text: nodes.TextLiteral) -> TextTest:
    if text.kind == "matching":
        return regex_test(text.raw)
    if text.kind == "like":
        return wildcard_test(text.raw)
    texts = readings(text.raw)
    return lambda value, _: unanimous([value == candidate for candidate in texts])


def _sized_text_test(domain: nodes.TextDomain) -> TextTest:
    test = _text_test(domain.text)
    if domain.length is None:
        return test
    fits = _range_test(domain.length)

    def run(value: str, budget: MatchBudget) -> Truth:
        sizes = {len(value), budget.utf8_size(value)}
        is_fitting = unanimous(map(fits, sizes))
        return False if is_fitting is False else both(is_fitting, test(value, budget))

    return run


def _text_matcher(text: nodes.TextLiteral, test: TextTest) -> Matcher:
    texts = readings(text.raw) if text.kind == "plain" else ()

    def run(value: Any, budget: MatchBudget) -> Truth:
        if isinstance(value, str):
            return test(value, budget)
        if texts:
            return any_of(may_equal(candidate, value, budget) for candidate in texts)
        forms = _text_forms(value)
        return (
            None if forms is None else at_most_unknown(any_of(test(form, budget) for form in forms))
        )

    return run


def _range_test(bounds: nodes.NumberRange) -> Callable[[float], bool]:
    """Make the test whether a number lies in a range."""
    low = -math.inf if bounds.low is None else bounds.low.value
    high = math.inf if bounds.high is None else bounds.high.value
    low_open, high_open = bounds.low_open, bounds.high_open

    def run(number: float) -> bool:
        above = number > low if low_open else number >= low
        return above and (number < high if high_open else number <= high)

    return run


def _number_matcher(domain: nodes.NumberDomain) -> Matcher:
    fits = _range_test(domain.range)
    number_type = int if domain.kind == "int" else float

    def run(value: Any, budget: MatchBudget) -> Truth:
        numbers = _numbers(value, budget)
        if numbers is None:
            return None
        truth = any(map(fits, numbers))
        return truth if type(value) is number_type else at_most_unknown(truth)

    return run


def _time_matcher(domain: nodes.TimeDomain) -> Matcher:
    first, last = _bound(domain.low), _bound(domain.high)

    def run(value: Any, _: MatchBudget) -> Truth:
        if not isinstance(value, str):  # a number may count seconds or milliseconds
            return False if value is None or isinstance(value, bool) else None
        moment = instant(value) if _CLEAR_TIME.fullmatch(value) else None
        if moment is None:
            return None
        truth: Truth = True
        if first is not None:
            truth = both(truth, _is_before(first, moment, or_same=not domain.low_open))
        if last is not None:
            truth = both(truth, _is_before(moment, last, or_same=not domain.high_open))
        return truth

    return run


def _bound(moment: nodes.TimeLiteral | None) -> Instant | None:
    if moment is None:
        return None
    bound = instant(moment.written)
    if bound is None:
        msg = f"{moment.written!r} is not a time in ISO 8601"
        raise ValueError(msg)
    return bound


# Remarks

_REPEATED = re.compile(r"\([^()]*[+*}][^()]*\)\s*[+*{]|\([^()]*\|[^()]*\)\s*[+*{]")


def literal_warnings(element: Any) -> Iterator[tuple[str, str]]:
    """Warnings about an element or a literal that is legal but doubtful, each with advice."""
    match element:
        case nodes.TextLiteral():
            yield from _text_remarks(element)
        case nodes.NumberDomain(kind=number_type, range=bounds):
            yield from _range_remarks(bounds, whole=number_type == "int")
        case nodes.TextDomain(text=text, length=length):
            yield from _text_remarks(text)
            if length is not None:
                yield from _range_remarks(length, whole=True)
        case nodes.TimeDomain():
            yield from _time_remarks(element)


def _text_remarks(text: nodes.TextLiteral) -> Iterator[tuple[str, str]]:
    raw = text.raw
    if text.kind == "plain" and "\\" in raw:
        yield "How a backslash in a text is read is unknown", "Avoid it"
    elif text.kind == "like" and ("[" in raw or "\\" in raw):
        yield "How `[` and backslashes in a wildcard are read is unknown", "Use a regex"
    elif text.kind == "matching":
        if "\\\\" in raw:
            yield "How a doubled backslash in a regex is read is unknown", "Write `[.]` for `\\\\.`"
        if _looks_slow(raw):
            yield "This regex can take exponential time", "Do not repeat what is itself repeated"
        if not patterns.has_engine():
            yield (
                "Without the package `regex` no regex is evaluated: each is unknown, which denies",
                f"Run `{INSTALL}`",
            )


def _looks_slow(raw: str) -> bool:
    """Whether a regex repeats a group that repeats or has alternatives: often exponential time."""
    if len(raw) > MAX_PATTERN:  # `_REPEATED` takes quadratic time, and such a regex is an error
        return False
    return _REPEATED.search(re.sub(r"\\.|\[[^\]]*\]", "x", raw)) is not None


def _range_remarks(bounds: nodes.NumberRange, *, whole: bool) -> Iterator[tuple[str, str]]:
    ends = [end.value for end in (bounds.low, bounds.high) if end is not None]
    if whole and any(isinstance(end, float) and math.isfinite(end) for end in ends):
        yield "The bounds of whole numbers are whole", "Drop the fraction"
    if len(ends) > 1 and (
        ends[0] > ends[1] or (ends[0] == ends[1] and (bounds.low_open or bounds.high_open))
    ):
        yield "No number lies in this range", "The smaller bound comes first"


def _time_remarks(domain: nodes.TimeDomain) -> Iterator[tuple[str, str]]:
    low = domain.low and instant(domain.low.written)
    high = domain.high and instant(domain.high.written)
    if not low or not high:
        return
    closed = not (domain.low_open or domain.high_open)
    if _is_before(low, high, or_same=closed) is False:
        yield "No time lies in this range", "The earlier bound comes first"
    if not low.zoned or not high.zoned:
        yield "The zone of a time without one is unknown", "Write it, such as `…T00:00:00Z`"
