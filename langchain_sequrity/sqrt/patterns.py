r"""Regexes and wildcards against untrusted text, in bounded time.

A regex runs in the `regex` package (extra `local`) with a time limit: the standard `re` has none,
and one bad match would hold the process. Without that package, or when the time is up, the answer
is unknown, which denies. Unknown is also what depends on how the service reads a regex: whether it
is anchored, and what a doubled backslash means.

A wildcard needs no backtracking over `*`, so that its time is bounded by the sizes alone.
"""

import fnmatch
import re
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

from langchain_sequrity.sqrt.truth import Truth, agreed, doubted, either

try:
    import regex
except ImportError:  # the extra `local` is not installed
    regex = None  # type: ignore[assignment]

MAX_PATTERN: Final = 1_000
SECONDS_PER_MATCH: Final = 0.1
SECONDS_PER_CALL: Final = 0.5
MAX_WRITTEN_OUT: Final = 20_000
MAX_WORK: Final = 5_000_000
_BROKEN = (re.error, RecursionError, OverflowError, MemoryError, ValueError)


class Budget:
    """What one phase of a call may spend on reading values, and what it has read already.

    Attributes:
        left: The seconds left for patterns. They are seconds of this thread's work: what a busy
            machine does meanwhile puts no rule in doubt.
        numbers: Text → the numbers that it may stand for, so that a long text is read once and not
            for each number of a policy.
    """

    __slots__ = ("left", "numbers")

    def __init__(self, seconds: float = SECONDS_PER_CALL) -> None:
        self.left = seconds
        self.numbers: dict[str, tuple[float, ...] | None] = {}

    def ask(self, search: Callable[..., object], text: str, **limits: float) -> Truth:
        """Whether a search finds something; unknown if the time is up, before or meanwhile."""
        if self.left <= 0:
            return None
        began = time.thread_time()
        try:
            return search(text, **limits) is not None
        except (TimeoutError, MemoryError):
            return None
        finally:
            self.left -= time.thread_time() - began


class Pattern:
    """A regex as written in a policy.

    Raises:
        ValueError: If it does not compile, is longer than `MAX_PATTERN` or repeats too much.
    """

    __slots__ = ("_compiled",)

    def __init__(self, raw: str) -> None:
        self._compiled: list[Any] = [_compile(raw)]
        if "\\\\" in raw:
            try:
                self._compiled.append(_compile(raw.replace("\\\\", "\\")))
            except ValueError:
                self._compiled.append(None)  # a reading in which the rule would raise

    def matches(self, text: str, budget: Budget) -> Truth:
        """Whether the text matches in every reading, in none, or who knows."""
        return agreed([_matches(compiled, text, budget) for compiled in self._compiled])


def _compile(raw: str) -> Any:
    if len(raw) > MAX_PATTERN:
        msg = f"a regex has at most {MAX_PATTERN} characters"
        raise ValueError(msg)
    if written_out(raw) > MAX_WRITTEN_OUT:
        msg = f"its repeats come to more than {MAX_WRITTEN_OUT} characters"
        raise ValueError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both packages warn of future changes of syntax
            re.compile(raw)
            return None if regex is None else regex.compile(raw)
    except Exception as error:
        if isinstance(error, _BROKEN) or (regex is not None and isinstance(error, regex.error)):
            raise ValueError(str(error) or type(error).__name__) from None
        raise


def _matches(compiled: Any, text: str, budget: Budget) -> Truth:
    if compiled is None:
        return None
    found = budget.ask(compiled.search, text, timeout=min(SECONDS_PER_MATCH, budget.left))
    if not found:
        return found
    whole = budget.ask(compiled.fullmatch, text, timeout=min(SECONDS_PER_MATCH, budget.left))
    return whole or None  # anchored it does not match, and who knows whether it is


PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<low>\d*)(?:,(?P<high>\d*))?\}|.", re.DOTALL
)


def written_out(raw: str) -> int:
    """How long a regex is when each `a{3}` is written as `aaa`.

    The package `regex` does write it out, so that `a{99999999}` would take all memory there is.
    It also gives a meaning to braces and brackets that to `re`, and so to the service, are text.

    Raises:
        ValueError: For such braces and brackets.
    """
    lengths, last = [0], 0
    counts = 1
    for piece in PIECE.finditer(raw):
        text = piece[0]
        if text == "(":
            lengths.append(0)
        elif text == ")" and len(lengths) > 1:
            last = lengths.pop() + 1
            lengths[-1] += last
        elif piece["low"] or piece["high"]:
            count = max(_count(piece["low"]), _count(piece["high"] or "0"), 1)
            counts *= count
            lengths[-1] += last * (count - 1)
            last *= count
        elif text[0] == "{" or (text[0] == "[" and "[:" in text):
            msg = "a brace that counts nothing is written `\\{`, and there is no `[[:alpha:]]`"
            raise ValueError(msg)
        else:
            last = 1
            lengths[-1] += 1
    # In a comment parentheses are no groups, so there any count may multiply all.
    return counts * len(raw) if "#" in raw else sum(lengths)


def _count(digits: str) -> int:
    return int(digits.lstrip("0")[:9] or 0)  # nine digits are too many already


def has_engine() -> bool:
    """Whether regexes can be evaluated at all."""
    return regex is not None


_REPEATED = re.compile(r"\([^()]*[+*}][^()]*\)\s*[+*{]|\([^()]*\|[^()]*\)\s*[+*{]")


def looks_slow(raw: str) -> bool:
    """Whether a regex repeats what is itself repeated or alternative: often exponential time."""
    if len(raw) > MAX_PATTERN:  # not for `_REPEATED`, whose time is square, nor for anyone else
        return False
    return _REPEATED.search(re.sub(r"\\.|\[[^\]]*\]", "x", raw)) is not None


_LINE_BREAK = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_LAST_LINE_BREAK = re.compile(rf"(?:\r\n|{_LINE_BREAK.pattern})\Z")


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
        if not _LINE_BREAK.search(text):
            return found
        return doubted(either(found, budget.ask(self._match, _LAST_LINE_BREAK.sub("", text))))
