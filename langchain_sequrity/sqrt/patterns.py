"""Regexes and wildcards against untrusted text, in bounded time.

A regex runs in the `regex` package (extras `local` and `langchain`), within the bounds of the
module `patterns` that all regexes share. Without that package, when the time is up, or for a text
that is too long, the answer is unknown, which denies. Unknown is also what depends on how the
service reads a regex: whether it is anchored, and what a doubled backslash means.

A wildcard needs no backtracking over `*`, so that its time is bounded by the sizes alone.

Three-valued truth: `True`, `False`, and `None` for what nobody can know (rules V2 and V3).

`docs/behaviour.md` lists where the service's reading of a policy is unknown. There a test gives
`None`, which a denial takes for true and an allowance for false.
"""

import contextlib
import fnmatch
import re
from collections.abc import Iterable
from typing import Final

from langchain_sequrity import patterns
from langchain_sequrity.patterns import SECONDS_PER_CALL

Truth = bool | None


def negated(truth: Truth) -> Truth:
    """Not."""
    return None if truth is None else not truth


def both(left: Truth, right: Truth) -> Truth:
    """And: false if either is surely false."""
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def either(left: Truth, right: Truth) -> Truth:
    """Or: true if either is surely true."""
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def any_of(truths: Iterable[Truth]) -> Truth:
    """Or, of any number; what follows a true one is not looked at."""
    found: Truth = False
    for truth in truths:
        found = either(found, truth)
        if found is True:
            break
    return found


def agreed(readings: Iterable[Truth]) -> Truth:
    """What all readings say, or `None` where they differ."""
    seen = set(readings)
    return seen.pop() if len(seen) == 1 else None


def doubted(truth: Truth) -> Truth:
    """Turn a match that only one reading has into doubt; what matches in none stays false."""
    return False if truth is False else None


__all__ = ["MAX_PATTERN", "MAX_WORK", "SECONDS_PER_CALL", "SECONDS_PER_MATCH", "Budget"]

MAX_PATTERN: Final = 1_000
SECONDS_PER_MATCH: Final = 0.1
MAX_WORK: Final = 5_000_000
INSTALL: Final = 'pip install "langchain-sequrity[local]"'
"""What brings the package `regex`."""


class Budget(patterns.Budget):
    """What one phase of a call may spend on reading values, and what it has read already.

    Attributes:
        numbers: Text → the numbers that it may stand for, so that a long text is read once and not
            for each number of a policy.
    """

    __slots__ = ("numbers",)

    def __init__(self, seconds: float = SECONDS_PER_CALL) -> None:
        super().__init__(seconds)
        self.numbers: dict[str, tuple[float, ...] | None] = {}


class Pattern:
    """A regex as written in a policy.

    Raises:
        ValueError: If it is no regex, is longer than `MAX_PATTERN` or repeats too much.
    """

    __slots__ = ("_readings",)

    def __init__(self, raw: str) -> None:
        self._readings: list[patterns.Pattern | None] = [_read(raw)]
        if (other := _other_reading(raw)) is not None:
            try:
                self._readings.append(_read(other))
            except ValueError:
                self._readings.append(None)  # a reading in which the rule would raise

    def matches(self, text: str, budget: Budget) -> Truth:
        """Whether the text matches in every reading, in none, or who knows."""
        return agreed([_matches(reading, text, budget) for reading in self._readings])


def expanded(raw: str) -> int:
    """What a regex expands to, in both its readings, without compiling it.

    Raises:
        ValueError: If it is no regex, is too long or repeats too much.
    """
    total = patterns.measure(raw).size
    if (other := _other_reading(raw)) is not None:
        with contextlib.suppress(ValueError):
            total += patterns.measure(other).size
    return total


def _other_reading(raw: str) -> str | None:
    return raw.replace("\\\\", "\\") if "\\\\" in raw else None


def _read(raw: str) -> patterns.Pattern:
    if len(raw) > MAX_PATTERN:
        msg = f"a regex has at most {MAX_PATTERN} characters"
        raise ValueError(msg)
    found = patterns.Pattern(raw)
    if found.measures.has_brace:
        raise ValueError(patterns.BARE_BRACE)
    return found


def _matches(reading: patterns.Pattern | None, text: str, budget: Budget) -> Truth:
    if reading is None or not has_engine():
        return None

    found = reading.asked(text, budget, seconds=SECONDS_PER_MATCH)
    if not found:
        return found
    whole = reading.asked(text, budget, seconds=SECONDS_PER_MATCH, whole=True)
    return whole or None  # anchored it does not match, and who knows whether it is


def has_engine() -> bool:
    """Whether regexes can be evaluated at all."""
    return patterns.has_engine()


_REPEATED = re.compile(r"\([^()]*[+*}][^()]*\)\s*[+*{]|\([^()]*\|[^()]*\)\s*[+*{]")


def looks_slow(raw: str) -> bool:
    """Whether a regex repeats what is itself repeated or alternative: often exponential time."""
    if len(raw) > MAX_PATTERN:  # not for `_REPEATED`, whose time is square, nor for anyone else
        return False
    return _REPEATED.search(re.sub(r"\\.|\[[^\]]*\]", "x", raw)) is not None


LINE_BREAK = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_LAST_LINE_BREAK = re.compile(rf"(?:\r\n|{LINE_BREAK.pattern})\Z")


class Wildcard:
    """A wildcard: `*` is any run of characters, `?` is one.

    `[` and backslashes have a meaning in some dialects and none in others, so that nothing is
    certain of a wildcard with them. Nor is a match of a text with line breaks: a translation to a
    regex often lets `*` and `?` stop at them, and does not see one at the end. `fnmatch` writes a
    wildcard as a regex that never goes back over a `*`, whose time is at most text times wildcard.

    Raises:
        ValueError: If it is longer than `MAX_PATTERN`.
    """

    __slots__ = ("_match", "_size")

    def __init__(self, raw: str) -> None:
        if len(raw) > MAX_PATTERN:
            msg = f"a wildcard has at most {MAX_PATTERN} characters"
            raise ValueError(msg)
        certain = "[" not in raw and "\\" not in raw
        self._match = re.compile(fnmatch.translate(raw)).match if certain else None
        self._size = len(raw)

    def matches(self, text: str, budget: Budget) -> Truth:
        """Whether the whole text matches; unknown if it is too long to find out."""
        if self._match is None or len(text) * self._size > MAX_WORK:
            return None
        found = budget.ask(self._match, text)
        if not LINE_BREAK.search(text):
            return found
        return doubted(either(found, budget.ask(self._match, _LAST_LINE_BREAK.sub("", text))))
