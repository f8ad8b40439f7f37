r"""Untrusted regular expressions: measured, compiled and searched within limits.

Every regex of a policy, a program, a configuration, a JSON Schema or a script uses this module
(`docs/security.md`, rule 3). Compilation has no time limit, and the package `regex` expands
repeats: `a{1000}` needs a thousand nodes. So this module parses a pattern first, and computes its
size from its structure. It rejects unknown syntax. It accepts only syntax that has the same meaning
in Python's `re` and in the package `regex`.

The time limit of `regex` is not exact: it checks the clock about every thousand steps, and one step
can scan the whole text, for example in the search for a first character. So the length of the text
is limited by the cost of such a step.
"""

import math
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from langchain_sequrity.owned_cache import cache_owner

if TYPE_CHECKING:
    from regex import Pattern as Engine

MAX_LENGTH: Final = 2_000
MAX_SIZE: Final = 20_000
MAX_NESTING: Final = 50
BARE_BRACE: Final = "a literal brace is written `\\{`, and `[[:alpha:]]` is not supported"
SECONDS_PER_CALL: Final = 0.5
# Limit for all cached patterns; one of `MAX_SIZE` needs about 8 MB.
KEPT_SIZE: Final = 100_000
_PURGED_EVERY = 200
_FAR = 1_000  # a longer repeat may scan the whole text in one step
_FAR_WORK = 300_000
_NEAR_WORK = 50_000_000
_MEMBERS_PER_STEP = 6
_GROUPS_PER_STEP = 8  # a match stores each repeat of a group
_EMPTY_GROUP = 20  # compiling a sequence of empty groups takes quadratic time
_COUNT_DIGITS = 9

_FLAGS: Final = {
    "a": re.ASCII,
    "i": re.IGNORECASE,
    "m": re.MULTILINE,
    "s": re.DOTALL,
    "u": re.UNICODE,
    "x": re.VERBOSE,
}
FLAGS: Final = sum(_FLAGS.values())
_VERBOSE_SPACE = " \t\n\r\v\f"
_POSITIONS = "AZbB"
_CLASSES = "dDsSwW"
_QUANTIFIERS = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}
_CHARACTERS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_SPACE = re.compile(rf"(?:[{_VERBOSE_SPACE}]|#[^\n]*(?:\n|\Z))+")
_COMMENT = re.compile(r"\(\?#[^)\\]*\)")
_GLOBAL_FLAGS = re.compile(r"\(\?([a-zA-Z]+)\)")
_SCOPED_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?:")
_NAMED = re.compile(r"\(\?P<([^<>()]*)>")
_NAMED_REFERENCE = re.compile(r"\(\?P=([^<>()]*)\)")
_LOOK = re.compile(r"\(\?(<?)[=!]")
_MANNER = re.compile(r"[?+]")  # lazy or possessive
_COUNT = re.compile(r"\{(?:([0-9]+)|([0-9]*),([0-9]*))\}")
_CODE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_REFERENCE = re.compile(r"\\([1-9][0-9]?)(?![0-9])")
_NOT_A_COUNT = frozenset("0123456789,deis")  # after a brace: a count, or a fuzzy match of `regex`


class PatternError(ValueError):
    """A pattern is rejected. The text has the reason, but not the pattern."""


class PatternTooLarge(PatternError):
    """A pattern exceeds a limit.

    Attributes:
        bound: `length`, `size` (after expansion) or `nesting`.
        limit: The limit.
    """

    def __init__(self, text: str, bound: str, limit: int) -> None:
        """Store the limit."""
        super().__init__(text)
        self.bound = bound
        self.limit = limit


@dataclass(frozen=True, slots=True)
class PatternMeasures:
    """The measures of a pattern.

    Attributes:
        size: Number of parts after the expansion of repeats; a part needs up to 500 bytes.
        groups: Number of capturing groups.
        repeats_groups: Whether a group may match repeatedly, which a match stores.
        has_brace: Whether there is a literal brace without a backslash.
        longest_text: Maximum length of a text to search.
    """

    size: int
    groups: int
    repeats_groups: bool
    has_brace: bool
    longest_text: int


class _PatternPart(NamedTuple):
    """A piece of a pattern.

    `low` and `high` are the minimum and maximum length of its matches. `weight` is the cost of its
    most expensive character, and `far` the weight of parts that may scan a whole text in one step.
    `ending` is that weight at the end of a pattern: a repeat of one character at the end cannot
    fail, so it scans each piece of a text once.
    """

    size: int
    low: int = 0
    high: float = 0
    weight: int = 0
    far: int = 0
    ending: int = 0
    type: str = ""


_EMPTY = _PatternPart(0)
_CHARACTER = _PatternPart(1, 1, 1, 1, type="character")
_ANCHOR = _PatternPart(1, type="anchor")


def _concatenated(first: _PatternPart, second: _PatternPart) -> _PatternPart:
    return _PatternPart(
        first.size + second.size,
        first.low + second.low,
        first.high + second.high,
        max(first.weight, second.weight),
        max(first.far, second.far),
        max(first.far, second.ending),
    )


def _alternatives(first: _PatternPart, second: _PatternPart) -> _PatternPart:
    return _PatternPart(
        first.size + second.size + 2,
        min(first.low, second.low),
        max(first.high, second.high),
        max(first.weight, second.weight),
        max(first.far, second.far),
        max(first.ending, second.ending),
    )


def _repeated(part: _PatternPart, low: int, high: float) -> _PatternPart:
    # The minimum number of copies is expanded, plus one if there may be more.
    copies = max(low, 1) + (1 if high > low > 0 else 0)
    far = max(part.far, part.weight if high > _FAR else 0)
    return _PatternPart(
        part.size * copies + 3,
        part.low * low,
        part.high * high if part.high and high else 0,
        part.weight,
        far,
        0 if part.type == "character" and low <= _FAR else far,
        "repeat",
    )


@dataclass(slots=True)
class _OpenGroup:
    """An open group: its branches so far, and the current sequence.

    `last` is the last part of the sequence, to which a quantifier applies.
    """

    type: str
    flags: int
    number: int = 0
    branches: list[_PatternPart] = field(default_factory=list)
    before: _PatternPart = _EMPTY
    last: _PatternPart | None = None

    def add(self, part: _PatternPart) -> None:
        if self.last is not None:
            self.before = _concatenated(self.before, self.last)
        self.last = part

    def next_branch(self) -> None:
        self.branches.append(self.sequence)
        self.before, self.last = _EMPTY, None

    @property
    def sequence(self) -> _PatternPart:
        return self.before if self.last is None else _concatenated(self.before, self.last)

    @property
    def whole(self) -> _PatternPart:
        whole = self.sequence
        for branch in self.branches:
            whole = _alternatives(whole, branch)
        return whole


class _PatternParser:
    """Reads one pattern from left to right."""

    def __init__(self, text: str, flags: int) -> None:
        self._text = text
        self._pos = 0
        self._open = [_OpenGroup("top", flags)]
        self._groups: list[_PatternPart | None] = []  # `None` for an open group
        self._names: dict[str, int] = {}
        self._has_brace = False
        self._repeats_groups = False

    def measures(self) -> PatternMeasures:
        self._global_flags()
        while self._skip() < len(self._text):
            self._atom()
        if len(self._open) > 1:
            self._refuse("a parenthesis is not closed")
        whole = self._group.whole
        self._check_size(whole.size)
        return PatternMeasures(
            size=whole.size,
            groups=len(self._groups),
            repeats_groups=self._repeats_groups,
            has_brace=self._has_brace,
            longest_text=self._longest_text(whole),
        )

    def _longest_text(self, whole: _PatternPart) -> int:
        far = whole.ending
        near = _NEAR_WORK // max(whole.weight, 1)
        step_cost = (1 + far // _MEMBERS_PER_STEP) * (1 + len(self._groups) // _GROUPS_PER_STEP)
        return min(_FAR_WORK // step_cost, near) if far else near

    @property
    def _group(self) -> _OpenGroup:
        return self._open[-1]

    @property
    def _is_verbose(self) -> bool:
        return bool(self._group.flags & re.VERBOSE)

    def _refuse(self, reason: str) -> NoReturn:
        msg = f"{reason} (at character {self._pos + 1})"
        raise PatternError(msg)

    def _check_size(self, size: int) -> None:
        if size > MAX_SIZE:
            msg = f"its repeats expand to more than {MAX_SIZE} parts"
            raise PatternTooLarge(msg, "size", MAX_SIZE)

    def _take(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        match = pattern.match(self._text, self._pos)
        if match is not None:
            self._pos = match.end()
        return match

    def _accept(self, token: str) -> bool:
        is_next = self._text.startswith(token, self._pos)
        self._pos += len(token) if is_next else 0
        return is_next

    @property
    def _next(self) -> str:
        return self._text[self._pos : self._pos + 1]

    @property
    def _is_spaced(self) -> bool:
        """Whether white space follows that verbose mode ignores."""
        return self._is_verbose and (self._next == "#" or self._next.isspace())

    def _skip(self) -> int:
        """Skip comments and ignored white space, and return the position."""
        while self._take(_COMMENT) or (self._is_verbose and self._take(_SPACE)):
            pass
        return self._pos

    # -- parts

    def _atom(self) -> None:
        char = self._text[self._pos]
        reader = _READERS.get(char)
        if reader is not None:
            reader(self)
        elif self._is_verbose and char.isspace():
            self._refuse("in verbose mode regex engines read this white space differently")
        else:
            self._pos += 1
            self._group.add(_CHARACTER)

    def anchor(self) -> None:
        self._pos += 1
        self._group.add(_ANCHOR)

    def branch(self) -> None:
        self._pos += 1
        self._group.next_branch()
        self._check_size(self._group.whole.size)

    def quantifier(self) -> None:
        if bounds := _QUANTIFIERS.get(self._next):
            self._pos += 1
            self._repeat(*bounds)
        elif count := self._take(_COUNT):
            self._counted(*count.groups())
        else:
            self._brace()

    def _counted(self, exactly: str | None, least: str | None, most: str | None) -> None:
        for digits in (exactly, least, most):
            # The maximum is limited too, although `regex` expands only the minimum.
            self._check_size(int((digits or "0").lstrip("0")[:_COUNT_DIGITS] or 0))
        low = int(exactly or least or 0)
        high = int(exactly) if exactly else int(most) if most else math.inf
        if low > high:
            self._refuse("a repeat has a minimum above its maximum")
        self._repeat(low, high)

    def _repeat(self, low: int, high: float) -> None:
        part = self._group.last
        if part is None or part.type == "anchor":
            self._refuse("there is nothing to repeat")
        if part.type == "repeat":
            self._refuse("a repeat is repeated without parentheses")
        self._take(_MANNER)
        if part.type == "group" and high > 1:
            self._repeats_groups = self._repeats_groups or bool(self._groups)
        self._group.last = _repeated(part, low, high)
        self._check_size(self._group.last.size)

    def _brace(self) -> None:
        self._pos += 1
        if self._next in _NOT_A_COUNT or self._is_spaced:
            self._refuse(BARE_BRACE)
        self._has_brace = True
        self._group.add(_CHARACTER)

    def escape(self) -> None:
        if self._code() is not None:
            self._group.add(_CHARACTER)
        elif reference := self._take(_REFERENCE):
            self._group.add(self._reference(int(reference[1])))
            if self._is_spaced:
                self._refuse("in verbose mode white space may not follow a number")
        else:
            char = self._escaped()
            self._group.add(_ANCHOR if char in _POSITIONS else _CHARACTER)

    def _code(self) -> int | None:
        """Read a character that is given by number."""
        match = self._take(_CODE)
        if match is None:
            return None
        code = int(match[match.lastindex or 0], 16)
        if code > sys.maxunicode:
            self._refuse("there is no such character")
        return code

    def _escaped(self) -> str:
        """Read a backslash and one character."""
        char = self._text[self._pos + 1 : self._pos + 2]
        if not char:
            self._refuse("a backslash ends the pattern")
        has_meaning = char in _POSITIONS or char in _CLASSES or char in _CHARACTERS
        if not has_meaning and char.isascii() and char.isalnum():
            self._refuse(f"regex engines read the escape `\\{char}` differently")
        self._pos += 2
        return char

    def _reference(self, number: int) -> _PatternPart:
        group = self._groups[number - 1] if 0 < number <= len(self._groups) else None
        if group is None:
            self._refuse("there is no such group before this reference")
        far = int(group.high > _FAR)
        return _PatternPart(2, group.low, group.high, 1, far, far)

    # -- character classes

    def character_set(self) -> None:
        start = self._pos
        self._pos += 1
        if self._next == "[" and not self._text.startswith("[:", self._pos):
            self._refuse("regex engines read a nested set differently; write `\\[`")
        self._accept("^")
        members = 0
        while members == 0 or not self._text.startswith("]", self._pos):
            if self._pos >= len(self._text):
                self._pos = start
                self._refuse("a bracket is not closed")
            if members and self._text[self._pos : self._pos + 2] in {"--", "&&", "~~", "||"}:
                self._refuse("regex engines read operations on sets differently")
            self._member()
            members += 1
        self._pos += 1
        self._group.add(_PatternPart(1 + members, 1, 1, 1 + members, type="character"))

    def _member(self) -> None:
        low = self._set_character()
        if self._next != "-" or self._text[self._pos + 1 : self._pos + 2] in {"", "]"}:
            return
        self._pos += 1
        high = self._set_character()
        if low is None or high is None:
            self._refuse("a range must start and end with a character")
        if low > high:
            self._refuse("the end of a range is before its start")

    def _set_character(self) -> int | None:
        r"""Read a member of a set: its code, or `None` for a class such as `\d`."""
        if self._text.startswith("[:", self._pos):
            self._refuse(BARE_BRACE)
        if self._next != "\\":
            self._pos += 1
            return ord(self._text[self._pos - 1])
        code = self._code()
        return self._set_escape() if code is None else code

    def _set_escape(self) -> int | None:
        char = self._escaped()
        if char in "AZB":
            self._refuse(f"`\\{char}` has no meaning in brackets")
        if char in _CLASSES:
            return None
        return ord(_CHARACTERS.get(char, "\b" if char == "b" else char))

    # -- groups

    def parenthesis(self) -> None:
        if not self._text.startswith("(?", self._pos):
            self._pos += 1
            self._enter("capture")
        elif match := self._take(_NAMED):
            self._name(match[1])
            self._enter("capture")
        elif match := self._take(_NAMED_REFERENCE):
            self._group.add(self._reference(self._names.get(match[1], 0)))
        elif match := self._take(_LOOK):
            self._enter("behind" if match[1] else "ahead")
        elif self._accept("(?>"):
            self._enter("atomic")
        elif match := self._take(_SCOPED_FLAGS):
            self._enter("plain", self._scoped(match[1], match[2] or ""))
        else:
            self._refuse("regex engines read this kind of group differently")

    def _enter(self, group_type: str, flags: int | None = None) -> None:
        if len(self._open) > MAX_NESTING:
            msg = f"its groups are nested more than {MAX_NESTING} deep"
            raise PatternTooLarge(msg, "nesting", MAX_NESTING)
        group = _OpenGroup(group_type, self._group.flags if flags is None else flags)
        if group_type == "capture":
            self._groups.append(None)
            group.number = len(self._groups)
        self._open.append(group)

    def close(self) -> None:
        if len(self._open) == 1:
            self._refuse("a closing parenthesis has no opening one")
        self._pos += 1
        group = self._open.pop()
        inner = group.whole
        if group.type == "behind" and inner.low != inner.high:
            self._refuse("the pattern in `(?<=…)` must have a fixed length")
        if group.type == "capture":
            self._groups[group.number - 1] = inner
        consumes_text = group.type not in {"behind", "ahead"}
        low, high = (inner.low, inner.high) if consumes_text else (0, 0)
        size = inner.size + (1 if group.type == "plain" else 3)
        if group.type == "capture" and not inner.high:
            size = inner.size + _EMPTY_GROUP
        ending = inner.ending if group.type in {"capture", "plain", "atomic"} else inner.far
        part = _PatternPart(size, low, high, inner.weight, inner.far, ending, "group")
        self._group.add(part)

    def _name(self, name: str) -> None:
        if not name.isidentifier() or name in self._names:
            self._refuse("a group needs a unique name of letters, digits and `_`")
        self._names[name] = len(self._groups) + 1

    # -- flags

    def _global_flags(self) -> None:
        self._skip()
        while match := self._take(_GLOBAL_FLAGS):
            self._group.flags |= self._flags(match[1], "aimsux")
            self._skip()

    def _scoped(self, on: str, off: str) -> int:
        removed = self._flags(off, "".join({*"imsx"} - {*on}))
        return self._group.flags & ~removed | self._flags(on, "aimsux")

    def _flags(self, letters: str, allowed: str) -> int:
        if not set(letters) <= set(allowed) or {*"au"} <= set(letters):
            self._refuse("regex engines read these flags differently")
        return sum(_FLAGS[letter] for letter in set(letters))


_READERS: dict[str, Callable[[_PatternParser], None]] = {
    "\\": _PatternParser.escape,
    "[": _PatternParser.character_set,
    "(": _PatternParser.parenthesis,
    ")": _PatternParser.close,
    "|": _PatternParser.branch,
    "^": _PatternParser.anchor,
    "$": _PatternParser.anchor,
    **dict.fromkeys("*+?{", _PatternParser.quantifier),
}


def measure(pattern: str, flags: int = 0) -> PatternMeasures:
    r"""Measure a pattern without compiling it.

    Args:
        pattern: The pattern, in the common syntax of `re` and the package `regex`.
        flags: Flags of `re` for the whole pattern, from `FLAGS`.

    Returns:
        Its measures.

    Raises:
        PatternTooLarge: If it is longer than `MAX_LENGTH`, expands to more than `MAX_SIZE` parts,
            or is nested deeper than `MAX_NESTING`.
        PatternError: If it is not a regular expression, or the two packages read it differently.

    Example:
        ```python
        from langchain_sequrity.patterns import measure

        assert measure("a{1000}").size == 1_003
        ```
    """
    if len(pattern) > MAX_LENGTH:
        msg = f"it is longer than {MAX_LENGTH} characters"
        raise PatternTooLarge(msg, "length", MAX_LENGTH)
    return _PatternParser(pattern, flags).measures()


def check_together(texts: Iterable[str]) -> None:
    """Limit the total size of several patterns.

    Raises:
        PatternTooLarge: If they expand to more than `MAX_SIZE` parts together.
        PatternError: As for `measure`.
    """
    total = 0
    for text in texts:
        total += measure(text).size
        if total > MAX_SIZE:
            msg = f"together they expand to more than {MAX_SIZE} parts"
            raise PatternTooLarge(msg, "size", MAX_SIZE)


class _PatternCache:
    """A cache of compiled patterns with a limit of their total size; the oldest are removed.

    Sessions and policies store only the texts, which can be compiled again.
    """

    def __init__(self) -> None:
        self.size = 0
        self._compilations = 0
        self._engines: OrderedDict[tuple[str, str, int], tuple[Engine[str], int]] = OrderedDict()
        self._lock = Lock()

    def get(self, pattern: str, flags: int, size: int) -> "Engine[str]":
        """Get a pattern from the cache, or compile it."""
        key = (cache_owner.get(), pattern, flags)
        with self._lock:
            if key in self._engines:
                self._engines.move_to_end(key)
                return self._engines[key][0]
        engine = _compiled(pattern, flags)
        with self._lock:
            self._compilations += 1
            if self._compilations % _PURGED_EVERY == 0:
                _regex().purge()  # its own cache stores every text that was compiled
            if key not in self._engines:
                self._engines[key] = engine, size
                self.size += size
            while self.size > KEPT_SIZE:
                _, (_, freed) = self._engines.popitem(last=False)
                self.size -= freed
        return engine


_cache = _PatternCache()


def kept_size() -> int:
    """The total size of the cached patterns, at most `KEPT_SIZE`."""
    return _cache.size


@cache
def _regex() -> Any:
    """The package `regex`, imported for the first pattern: few models have one."""
    try:
        import regex  # noqa: PLC0415
    except ImportError:  # neither `local` nor `langchain` is installed
        return None
    return regex


def has_engine() -> bool:
    """Whether patterns can be compiled: `regex` is part of the extras `local` and `langchain`."""
    return _regex() is not None


def _compiled(pattern: str, flags: int) -> "Engine[str]":
    regex = _regex()
    try:
        engine: Engine[str] = regex.compile(pattern, flags | regex.V0, cache_pattern=False)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise PatternError(str(getattr(error, "msg", "it cannot be compiled"))) from None
    return engine


class TimeBudget:
    """The remaining seconds for the patterns of one phase of a call.

    These are seconds of CPU time of the thread, so a busy machine does not make rules uncertain.
    """

    __slots__ = ("remaining",)

    def __init__(self, seconds: float = SECONDS_PER_CALL) -> None:
        self.remaining = seconds

    def run_search(self, search: Callable[[str], object], text: str) -> bool | None:
        """Whether a search finds something; `None` if the time is over before or during it."""
        try:
            return self.run(lambda: bool(search(text)))
        except (TimeoutError, MemoryError, PatternError):
            return None

    def run(self, test: Callable[[], bool | None]) -> bool | None:
        """The result of a test; `None` if the time was over before it."""
        if self.remaining <= 0:
            return None
        began = time.thread_time()
        try:
            return test()
        finally:
            self.remaining -= time.thread_time() - began


class Pattern:
    """An untrusted pattern for searches.

    Args:
        text: The pattern.
        flags: Flags of `re` for the whole pattern.

    Attributes:
        text: The pattern.
        measures: Its measures.

    Raises:
        PatternTooLarge: As for `measure`.
        PatternError: As for `measure`.

    Example:
        ```python
        from langchain_sequrity.patterns import Pattern

        assert Pattern(r"^[a-z]{2,64}$").finds("mail", seconds=0.1)
        ```
    """

    __slots__ = ("_flags", "measures", "text")

    def __init__(self, text: str, flags: int = 0) -> None:
        self.text = text
        self._flags = flags
        self.measures = measure(text, flags)
        if has_engine():
            self.engine()

    def engine(self) -> "Engine[str]":
        """The compiled pattern. The caller is responsible for limits of a search with it."""
        return _cache.get(self.text, self._flags, self.measures.size)

    def finds(self, text: str, *, seconds: float, whole: bool = False) -> bool:
        """Whether a text contains a match.

        Args:
            text: The text.
            seconds: Time limit of the search.
            whole: Whether the whole text must match.

        Raises:
            TimeoutError: If the time is over, or the text is too long for the time limit.
        """
        if len(text) > self.measures.longest_text:
            # One step between two checks of the clock would be too long.
            msg = f"the text is longer than {self.measures.longest_text} characters"
            raise TimeoutError(msg)
        engine = self.engine()
        search = engine.fullmatch if whole else engine.search
        # A negative number would mean no limit.
        return search(text, timeout=max(seconds, 0)) is not None

    def finds_within(
        self, text: str, budget: TimeBudget, *, seconds: float = math.inf, whole: bool = False
    ) -> bool | None:
        """Whether a text contains a match, with a time budget for several searches.

        Args:
            text: The text.
            budget: The time for all searches.
            seconds: Time limit of this search, if it is shorter.
            whole: Whether the whole text must match.

        Returns:
            Whether there is a match; `None` if the time is not enough.
        """
        limit = min(seconds, budget.remaining)
        return budget.run_search(lambda text: self.finds(text, seconds=limit, whole=whole), text)
