r"""Regular expressions that somebody else wrote: measured, compiled, searched, all within bounds.

Every regex of a policy, a program, a configuration, a JSON Schema or a script comes through here
(`docs/security.md`, rule 3). Compiling has no time limit, and the package `regex` writes repeats
out: `a{1000}` takes a thousand nodes. So a pattern is parsed here first, and its size is computed
from its structure. What this parser does not know is refused; it knows the syntax that Python's
`re` and the package `regex` read alike, so no spelling means one thing here and another there.

The time limit of `regex` is not exact either. It looks at the clock about once in a thousand
steps, one step can walk over the whole text, and the search for a first character is one step. The
text that a pattern may be searched in is bounded by what such a step costs.
"""

import math
import re
import sys
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

try:
    import regex
except ImportError:  # the extra `local` is not installed
    regex = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from regex import Pattern as Engine

MAX_LENGTH: Final = 2_000
MAX_SIZE: Final = 20_000
MAX_NESTING: Final = 50
BARE_BRACE: Final = "a brace that counts nothing is written `\\{`, and there is no `[[:alpha:]]`"
SECONDS_PER_CALL: Final = 0.5
# Of all patterns that are kept compiled; one of `MAX_SIZE` takes about 8 MB.
KEPT_SIZE: Final = 100_000
_PURGED_EVERY = 200
_FAR = 1_000  # a repeat of more may walk over the whole text in one step
_FAR_WORK = 300_000
_NEAR_WORK = 50_000_000
_MEMBERS_PER_STEP = 6
_GROUPS_PER_STEP = 8  # each repeat of a group is remembered
_EMPTY_GROUP = 20  # compiling a row of groups that match nothing takes time by its square
_COUNT_DIGITS = 9
_HIGHEST_OCTAL = 0o377

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
_CHARACTERS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_SPACE = re.compile(rf"(?:[{_VERBOSE_SPACE}]|#[^\n]*(?:\n|\Z))+")
_COMMENT = re.compile(r"\(\?#[^)\\]*\)")
_GLOBAL_FLAGS = re.compile(r"\(\?([a-zA-Z]+)\)")
_SCOPED_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?:")
_NAMED = re.compile(r"\(\?P<([^<>()]*)>")
_NAMED_REFERENCE = re.compile(r"\(\?P=([^<>()]*)\)")
_CONDITION = re.compile(r"\(\?\(([^<>()]*)\)")
_LOOK = re.compile(r"\(\?(<?)[=!]")
_MANNER = re.compile(r"[?+]")  # lazy or possessive
_COUNT = re.compile(r"\{(?:([0-9]+)|([0-9]*),([0-9]*))\}")
_CODE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|N\{(?P<name>[A-Za-z0-9 -]+)\})"
)
_OCTAL = re.compile(r"\\(0[0-7]{0,2}|[0-7]{3})")
_OCTAL_IN_SET = re.compile(r"\\([0-7]{1,3})")
_REFERENCE = re.compile(r"\\([1-9][0-9]?)")
_NOT_A_COUNT = frozenset("0123456789,deis")  # after a brace: a count, or a fuzzy match of `regex`


class PatternError(ValueError):
    """A pattern that is not used. The text says why, and does not show the pattern."""


class PatternTooLarge(PatternError):
    """A pattern beyond a bound.

    Attributes:
        bound: `length`, `size` (what it expands to) or `nesting`.
        limit: The bound.
    """

    def __init__(self, text: str, bound: str, limit: int) -> None:
        """Keep what was exceeded."""
        super().__init__(text)
        self.bound = bound
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Measures:
    """What a pattern comes to.

    Attributes:
        size: Its parts, each as often as repeats write it out; a part takes up to 500 bytes.
        groups: Its capturing groups.
        repeats_groups: Whether one of them may match again and again, which a match remembers.
        has_brace: Whether a brace stands for itself without a backslash.
        longest_text: Characters of a text that it may be searched in.
    """

    size: int
    groups: int
    repeats_groups: bool
    has_brace: bool
    longest_text: int


class _Part(NamedTuple):
    """A piece of a pattern.

    `low` and `high` are the least and most characters that it matches, `weight` is what the
    dearest of them costs, and `far` the weight of what may walk over a whole text in one step.
    `ending` is that weight where nothing follows: what ends with a repeat of one character cannot
    fail after it, so it walks over each piece of a text once.
    """

    size: int
    low: int = 0
    high: float = 0
    weight: int = 0
    far: int = 0
    ending: int = 0
    kind: str = ""


_EMPTY = _Part(0)
_CHARACTER = _Part(1, 1, 1, 1, kind="character")
_ANCHOR = _Part(1, kind="anchor")


def _then(first: _Part, second: _Part) -> _Part:
    return _Part(
        first.size + second.size,
        first.low + second.low,
        first.high + second.high,
        max(first.weight, second.weight),
        max(first.far, second.far),
        max(first.far, second.ending),
    )


def _either(first: _Part, second: _Part) -> _Part:
    return _Part(
        first.size + second.size + 2,
        min(first.low, second.low),
        max(first.high, second.high),
        max(first.weight, second.weight),
        max(first.far, second.far),
        max(first.ending, second.ending),
    )


def _repeated(part: _Part, low: int, high: float) -> _Part:
    # The least number of copies is written out, and one more where there may be more.
    copies = max(low, 1) + (1 if high > low > 0 else 0)
    far = max(part.far, part.weight if high > _FAR else 0)
    return _Part(
        part.size * copies + 3,
        part.low * low,
        part.high * high if part.high and high else 0,
        part.weight,
        far,
        0 if part.kind == "character" and low <= _FAR else far,
        "repeat",
    )


@dataclass(slots=True)
class _Group:
    """An open group: its branches so far, and the sequence that is being read.

    `last` is the newest part of the sequence, which a quantifier would repeat.
    """

    kind: str
    flags: int
    number: int = 0
    branches: list[_Part] = field(default_factory=list)
    before: _Part = _EMPTY
    last: _Part | None = None

    def add(self, part: _Part) -> None:
        if self.last is not None:
            self.before = _then(self.before, self.last)
        self.last = part

    def next_branch(self) -> None:
        self.branches.append(self.sequence)
        self.before, self.last = _EMPTY, None

    @property
    def sequence(self) -> _Part:
        return self.before if self.last is None else _then(self.before, self.last)

    @property
    def whole(self) -> _Part:
        whole = self.sequence
        for branch in self.branches:
            whole = _either(whole, branch)
        return whole


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, text: str, flags: int, *, is_bytes: bool) -> None:
        self._text = text
        self._is_bytes = is_bytes
        self._at = 0
        self._open = [_Group("top", flags)]
        self._groups: list[_Part | None] = []  # `None` while it is open
        self._names: dict[str, int] = {}
        self._has_brace = False
        self._repeats_groups = False

    def measures(self) -> Measures:
        self._global_flags()
        while self._skip() < len(self._text):
            self._one()
        if len(self._open) > 1:
            self._refuse("a parenthesis is not closed")
        whole = self._group.whole
        self._check_size(whole.size)
        return Measures(
            size=whole.size,
            groups=len(self._groups),
            repeats_groups=self._repeats_groups,
            has_brace=self._has_brace,
            longest_text=self._longest_text(whole),
        )

    def _longest_text(self, whole: _Part) -> int:
        far = whole.ending
        near = _NEAR_WORK // max(whole.weight, 1)
        dear = (1 + far // _MEMBERS_PER_STEP) * (1 + len(self._groups) // _GROUPS_PER_STEP)
        return min(_FAR_WORK // dear, near) if far else near

    @property
    def _group(self) -> _Group:
        return self._open[-1]

    @property
    def _is_verbose(self) -> bool:
        return bool(self._group.flags & re.VERBOSE)

    def _refuse(self, reason: str) -> NoReturn:
        msg = f"{reason} (at character {self._at + 1})"
        raise PatternError(msg)

    def _check_size(self, size: int) -> None:
        if size > MAX_SIZE:
            msg = f"its repeats come to more than {MAX_SIZE} parts"
            raise PatternTooLarge(msg, "size", MAX_SIZE)

    def _take(self, token: "re.Pattern[str]") -> "re.Match[str] | None":
        found = token.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _has(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    @property
    def _is_spaced(self) -> bool:
        """Whether white space follows that verbose mode drops."""
        return self._is_verbose and (self._next == "#" or self._next.isspace())

    def _skip(self) -> int:
        """Skip what means nothing, and return the place."""
        while self._take(_COMMENT) or (self._is_verbose and self._take(_SPACE)):
            pass
        return self._at

    # -- parts

    def _one(self) -> None:
        char = self._text[self._at]
        reader = _READERS.get(char)
        if reader is not None:
            reader(self)
        elif self._is_verbose and char.isspace():
            self._refuse("in verbose mode this white space is not read alike everywhere")
        else:
            self._at += 1
            self._group.add(_CHARACTER)

    def anchor(self) -> None:
        self._at += 1
        self._group.add(_ANCHOR)

    def branch(self) -> None:
        self._at += 1
        group = self._group
        if group.kind == "condition" and group.branches:
            self._refuse("a condition has at most two branches")
        group.next_branch()
        self._check_size(group.whole.size)

    def quantifier(self) -> None:
        if self._has("*"):
            self._repeat(0, math.inf)
        elif self._has("+"):
            self._repeat(1, math.inf)
        elif self._has("?"):
            self._repeat(0, 1)
        elif found := self._take(_COUNT):
            self._counted(*found.groups())
        else:
            self._brace()

    def _counted(self, exactly: str | None, least: str | None, most: str | None) -> None:
        for digits in (exactly, least, most):
            # No more are repeated, though `regex` writes only the least number out.
            self._check_size(int((digits or "0").lstrip("0")[:_COUNT_DIGITS] or 0))
        low = int(exactly or least or 0)
        high = int(exactly) if exactly else int(most) if most else math.inf
        if low > high:
            self._refuse("a repeat has a minimum above its maximum")
        self._repeat(low, high)

    def _repeat(self, low: int, high: float) -> None:
        part = self._group.last
        if part is None or part.kind == "anchor":
            self._refuse("there is nothing to repeat")
        if part.kind == "repeat":
            self._refuse("a repeat is repeated without parentheses")
        self._take(_MANNER)
        if part.kind == "group" and high > 1:
            self._repeats_groups = self._repeats_groups or bool(self._groups)
        self._group.last = _repeated(part, low, high)
        self._check_size(self._group.last.size)

    def _brace(self) -> None:
        self._at += 1
        if self._next in _NOT_A_COUNT or self._is_spaced:
            self._refuse(BARE_BRACE)
        self._has_brace = True
        self._group.add(_CHARACTER)

    def escape(self) -> None:
        if found := self._take(_OCTAL):
            self._octal(found[1])
            self._numbered(_CHARACTER)
        elif self._code() is not None:
            self._group.add(_CHARACTER)
        elif found := self._take(_REFERENCE):
            self._numbered(self._reference(int(found[1])))
        else:
            char = self._escaped()
            self._group.add(_ANCHOR if char in _POSITIONS else _CHARACTER)

    def _numbered(self, part: _Part) -> None:
        if self._is_spaced:
            self._refuse("in verbose mode white space may not follow a number")
        self._group.add(part)

    def _octal(self, digits: str) -> int:
        code = int(digits, 8)
        if code > _HIGHEST_OCTAL:
            self._refuse("an octal escape ends at `\\377`")
        return code

    def _code(self) -> int | None:
        """Read a character that is written as a number or a name."""
        if self._is_bytes and self._text.startswith(("\\u", "\\U", "\\N"), self._at):
            self._refuse("a pattern of bytes has no such escape")
        found = self._take(_CODE)
        if found is None:
            return None
        code = _named(found["name"]) if found["name"] else int(found[found.lastindex or 0], 16)
        if not 0 <= code <= sys.maxunicode:
            self._refuse("there is no such character")
        return code

    def _escaped(self) -> str:
        """Read a backslash and one character."""
        char = self._text[self._at + 1 : self._at + 2]
        if not char:
            self._refuse("a backslash ends the pattern")
        known = char in _POSITIONS or char in _CLASSES or char in _CHARACTERS
        if not known and char.isascii() and char.isalnum():
            self._refuse(f"the escape `\\{char}` is not read alike everywhere")
        self._at += 2
        return char

    def _reference(self, number: int) -> _Part:
        known = 0 < number <= len(self._groups)
        group = self._groups[number - 1] if known else None
        if group is None:
            self._refuse("there is no such group before this reference")
        far = int(group.high > _FAR)
        return _Part(2, group.low, group.high, 1, far, far)

    # -- character classes

    def character_set(self) -> None:
        start = self._at
        self._at += 1
        if self._next == "[" and not self._text.startswith("[:", self._at):
            self._refuse("a nested set is not read alike everywhere; write `\\[`")
        self._has("^")
        members = 0
        while members == 0 or not self._text.startswith("]", self._at):
            if self._at >= len(self._text):
                self._at = start
                self._refuse("a bracket is not closed")
            if members and self._text[self._at : self._at + 2] in {"--", "&&", "~~", "||"}:
                self._refuse("an operation on sets is not read alike everywhere")
            self._member()
            members += 1
        self._at += 1
        self._group.add(_Part(1 + members, 1, 1, 1 + members, kind="character"))

    def _member(self) -> None:
        low = self._set_character()
        if self._next != "-" or self._text[self._at + 1 : self._at + 2] in {"", "]"}:
            return
        self._at += 1
        high = self._set_character()
        if low is None or high is None:
            self._refuse("a range begins and ends with a character")
        if low > high:
            self._refuse("a range ends before it begins")

    def _set_character(self) -> int | None:
        r"""Read a member; its code, or `None` if it is a class such as `\d`."""
        if self._text.startswith("[:", self._at):
            self._refuse(BARE_BRACE)
        if self._next != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        if octal := self._take(_OCTAL_IN_SET):
            return self._octal(octal[1])
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
        if not self._text.startswith("(?", self._at):
            self._at += 1
            self._enter("capture")
        elif found := self._take(_NAMED):
            self._name(found[1])
            self._enter("capture")
        elif found := self._take(_NAMED_REFERENCE):
            self._group.add(self._reference(self._number_of(found[1])))
        elif found := self._take(_CONDITION):
            self._reference_of_condition(found[1])
            self._enter("condition")
        elif found := self._take(_LOOK):
            self._enter("behind" if found[1] else "ahead")
        elif self._has("(?>"):
            self._enter("atomic")
        elif found := self._take(_SCOPED_FLAGS):
            self._enter("plain", self._scoped(found[1], found[2] or ""))
        else:
            self._refuse("a group of this kind is not read alike everywhere")

    def _enter(self, kind: str, flags: int | None = None) -> None:
        if len(self._open) > MAX_NESTING:
            msg = f"its groups stand in each other more than {MAX_NESTING} deep"
            raise PatternTooLarge(msg, "nesting", MAX_NESTING)
        group = _Group(kind, self._group.flags if flags is None else flags)
        if kind == "capture":
            self._groups.append(None)
            group.number = len(self._groups)
        self._open.append(group)

    def close(self) -> None:
        if len(self._open) == 1:
            self._refuse("a parenthesis is closed that was not opened")
        self._at += 1
        group = self._open.pop()
        if group.kind == "condition" and not group.branches:
            group.next_branch()
        inner = group.whole
        if group.kind == "behind" and inner.low != inner.high:
            self._refuse("what stands in `(?<=…)` has a fixed length")
        if group.kind == "capture":
            self._groups[group.number - 1] = inner
        wide = group.kind not in {"behind", "ahead"}
        low, high = (inner.low, inner.high) if wide else (0, 0)
        own = 1 if group.kind == "plain" else 3
        if group.kind == "capture" and not inner.high:
            own = _EMPTY_GROUP
        ending = inner.ending if group.kind in {"capture", "plain", "atomic"} else inner.far
        part = _Part(inner.size + own, low, high, inner.weight, inner.far, ending, "group")
        self._group.add(part)

    def _name(self, name: str) -> None:
        if (
            not name.isidentifier()
            or name in self._names
            or (self._is_bytes and not name.isascii())
        ):
            self._refuse("a group has a name of its own, made of letters, digits and `_`")
        self._names[name] = len(self._groups) + 1

    def _number_of(self, name: str) -> int:
        return self._names.get(name, 0)

    def _reference_of_condition(self, name: str) -> None:
        is_number = name.isascii() and name.isdecimal() and len(name) <= _COUNT_DIGITS
        self._reference(int(name) if is_number else self._number_of(name))

    # -- flags

    def _global_flags(self) -> None:
        self._skip()
        while found := self._take(_GLOBAL_FLAGS):
            self._group.flags |= self._flags(found[1], "aimsux")
            self._skip()

    def _scoped(self, on: str, off: str) -> int:
        removed = self._flags(off, "".join({*"imsx"} - {*on}))
        return self._group.flags & ~removed | self._flags(on, "aimsux")

    def _flags(self, letters: str, allowed: str) -> int:
        if self._is_bytes:
            allowed = allowed.replace("u", "")
        if not set(letters) <= set(allowed) or {*"au"} <= set(letters):
            self._refuse("flags like these are not read alike everywhere")
        return sum(_FLAGS[letter] for letter in set(letters))


def _named(name: str) -> int:
    """The code of a character by its name, or -1; a name may also stand for several."""
    try:
        found = unicodedata.lookup(name)
    except KeyError:
        return -1
    return ord(found) if len(found) == 1 else -1


_READERS: dict[str, Callable[[_Parser], None]] = {
    "\\": _Parser.escape,
    "[": _Parser.character_set,
    "(": _Parser.parenthesis,
    ")": _Parser.close,
    "|": _Parser.branch,
    "^": _Parser.anchor,
    "$": _Parser.anchor,
    **dict.fromkeys("*+?{", _Parser.quantifier),
}


def measure(pattern: str | bytes, flags: int = 0) -> Measures:
    r"""Read a pattern and say what it comes to, without compiling it.

    Args:
        pattern: The pattern, in the syntax that `re` and the package `regex` read alike.
        flags: Flags of `re` that hold for all of it: those in `FLAGS`.

    Returns:
        Its measures.

    Raises:
        PatternTooLarge: If it is longer than `MAX_LENGTH`, expands to more than `MAX_SIZE` parts,
            or is nested deeper than `MAX_NESTING`.
        PatternError: If it is not a regular expression, or not read alike by both.

    Example:
        ```python
        from langchain_sequrity.patterns import measure

        assert measure("a{1000}").size == 1_003
        ```
    """
    if len(pattern) > MAX_LENGTH:
        msg = f"it is longer than {MAX_LENGTH} characters"
        raise PatternTooLarge(msg, "length", MAX_LENGTH)
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    return _Parser(text, flags, is_bytes=isinstance(pattern, bytes)).measures()


def check_together(texts: Iterable[str]) -> None:
    """Bound the size of several patterns that come from one place.

    Raises:
        PatternTooLarge: If they expand to more than `MAX_SIZE` parts in all.
        PatternError: As `measure`.
    """
    total = 0
    for text in texts:
        total += measure(text).size
        if total > MAX_SIZE:
            msg = f"together they come to more than {MAX_SIZE} parts"
            raise PatternTooLarge(msg, "size", MAX_SIZE)


class _Kept:
    """Compiled patterns, the newest up to a size in all.

    Sessions and policies hold texts; what these compile to is shared and may be compiled anew.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 0
        self._made = 0
        self._engines: OrderedDict[tuple[str | bytes, int], tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, pattern: str | bytes, flags: int, size: int) -> "Engine[Any]":
        """Find a pattern, or compile it."""
        key = (pattern, flags)
        with self._lock:
            if key in self._engines:
                self._engines.move_to_end(key)
                known: Engine[Any] = self._engines[key][0]
                return known
        engine = _compiled(pattern, flags)
        with self._lock:
            self._keep(key, engine, size)
        return engine

    def _keep(self, key: tuple[str | bytes, int], engine: Any, size: int) -> None:
        self._made += 1
        if self._made % _PURGED_EVERY == 0:
            regex.purge()  # it remembers each text that was ever compiled, cached or not
        if key not in self._engines:
            self._engines[key] = engine, size
            self.size += size
        while self.size > self._most:
            _, (_, freed) = self._engines.popitem(last=False)
            self.size -= freed


_kept = _Kept(KEPT_SIZE)


def kept_size() -> int:
    """The size of all patterns that are kept compiled, at most `KEPT_SIZE`."""
    return _kept.size


def has_engine() -> bool:
    """Whether regexes can be compiled and searched: the extra `local` brings the package."""
    return regex is not None


def _compiled(pattern: str | bytes, flags: int) -> "Engine[Any]":
    try:
        return regex.compile(pattern, flags | regex.V0, cache_pattern=False)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise PatternError(str(getattr(error, "msg", "it cannot be compiled"))) from None


class Budget:
    """The seconds left for the patterns of one phase of a call.

    They are seconds of this thread's work: what a busy machine does meanwhile puts no rule in
    doubt.
    """

    __slots__ = ("left",)

    def __init__(self, seconds: float = SECONDS_PER_CALL) -> None:
        self.left = seconds

    def ask(self, search: Callable[[str], object], text: str) -> bool | None:
        """Whether a search finds something; unknown if the time is up, before or meanwhile."""
        if self.left <= 0:
            return None
        began = time.thread_time()
        try:
            return bool(search(text))
        except (TimeoutError, MemoryError, PatternError):
            return None
        finally:
            self.left -= time.thread_time() - began


class Pattern:
    """A pattern from outside, ready to be searched.

    Args:
        text: The pattern.
        flags: Flags of `re` that hold for all of it.

    Attributes:
        text: The pattern.
        measures: What it comes to.

    Raises:
        PatternTooLarge: As `measure`.
        PatternError: As `measure`.

    Example:
        ```python
        from langchain_sequrity.patterns import Pattern

        assert Pattern(r"^[a-z]{2,64}$").finds("mail", seconds=0.1)
        ```
    """

    __slots__ = ("_flags", "measures", "text")

    def __init__(self, text: str | bytes, flags: int = 0) -> None:
        self.text = text
        self._flags = flags
        self.measures = measure(text, flags)
        if regex is not None:
            self.engine()

    def engine(self) -> "Engine[Any]":
        """The pattern as the package `regex` has it; searching with it is up to the caller."""
        return _kept.get(self.text, self._flags, self.measures.size)

    def finds(self, text: str | bytes, *, seconds: float, whole: bool = False) -> bool:
        """Whether it is found in a text.

        Args:
            text: The text.
            seconds: Time for the search.
            whole: Whether the whole text must match.

        Returns:
            Whether it is.

        Raises:
            TimeoutError: If the time is up, or the text is too long to search it in time.
        """
        self.check_text(text)
        engine = self.engine()
        search = engine.fullmatch if whole else engine.search
        return search(text, timeout=max(seconds, 0)) is not None  # below 0 there is no limit

    def asked(
        self, text: str, budget: Budget, *, seconds: float = math.inf, whole: bool = False
    ) -> bool | None:
        """Whether it is found in a text, in the time that is left for this and other searches.

        Args:
            text: The text.
            budget: The time for all of them.
            seconds: Time for this one, if that is less.
            whole: Whether the whole text must match.

        Returns:
            Whether it is; `None` if that was not to be found out in time.
        """
        limit = min(seconds, budget.left)
        return budget.ask(lambda text: self.finds(text, seconds=limit, whole=whole), text)

    def check_text(self, text: str | bytes) -> None:
        """Refuse a text in which one step between two looks at the clock takes too long.

        Raises:
            TimeoutError: If it is longer than `measures.longest_text`.
        """
        if len(text) > self.measures.longest_text:
            msg = f"the text is longer than {self.measures.longest_text} characters"
            raise TimeoutError(msg)
