"""`re`: patterns are compiled and searched within limits (`docs/security.md`, rule 3)."""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import regex

from langchain_sequrity import patterns
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    call_value,
    functions,
    sized,
)
from langchain_sequrity.local.interpreter.faults import error as RegexError  # noqa: N812
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    TYPE_NAMES,
    ErrorType,
    IteratorValue,
    Value,
    changed_by_calls,
    join,
    tag,
    take,
)

Pattern = regex.Pattern
Match = regex.Match
_PART_SIZE = 500  # bytes of a compiled pattern
_MATCH_SIZE = 500
_GROUP_SIZE = 64
_CAPTURE_SIZE = 32
_BOUNDS = {"length": "pattern", "size": "repeats in a pattern", "nesting": "nesting of a pattern"}
# The patterns that each run compiled and paid for, and their measures.
_compiled: WeakKeyDictionary[Machine, dict[tuple[str | bytes, int], "Pattern[Any]"]]
_compiled = WeakKeyDictionary()
_measured: WeakKeyDictionary["Pattern[Any]", patterns.Measures] = WeakKeyDictionary()


def compile_pattern(machine: Machine, pattern: Any, flags: int = 0) -> "Pattern[Any]":
    """`re.compile`. A run pays for a pattern once, before it is compiled."""
    if isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str | bytes):
        machine.fail(TypeError, "first argument must be string or compiled pattern")
    if not isinstance(flags, int) or flags & ~patterns.FLAGS:
        machine.fail(ValueError, "unknown flags")
    known = _compiled.setdefault(machine, {})
    key = (pattern, int(flags))
    if key not in known:
        known[key] = _compiled_once(machine, *key)
    return known[key]


def _compiled_once(machine: Machine, pattern: str | bytes, flags: int) -> "Pattern[Any]":
    if len(pattern) > machine.limits.pattern:
        machine.exhaust("pattern", machine.limits.pattern)
    # A step for each character, so that reading many patterns checks the clock. Compiled patterns
    # are kept and paid for, which bounds the total time of compiling.
    machine.work(len(pattern))
    try:
        measures = patterns.measure(pattern, flags)
        machine.charge(_PART_SIZE * measures.size)
        engine = patterns.Pattern(pattern, flags).engine()
    except patterns.PatternTooLarge as error:
        machine.exhaust(_BOUNDS[error.bound], error.limit)
    except patterns.PatternError as error:
        raise RegexError(str(error)) from None
    _measured[engine] = measures
    return engine


def _check_text(machine: Machine, pattern: "Pattern[Any]", text: Any) -> None:
    longest = _measured[pattern].longest_text
    if isinstance(text, str | bytes) and len(text) > longest:
        machine.exhaust("characters for this pattern", longest)


def timed(machine: Machine, pattern: "Pattern[Any]", text: Any, run: Callable[[float], Any]) -> Any:
    """Search a text within the time limit; `run` gets the seconds."""
    _check_text(machine, pattern, text)
    machine.look_at_clock()
    longest, left = machine.limits.regex_seconds, machine.seconds_left
    try:
        # Never below 0: `regex` takes a negative timeout as no limit.
        return run(min(longest, left))
    except TimeoutError:
        if longest <= left:
            machine.exhaust("regex_seconds", longest)
        machine.exhaust_time()


def pay_for_match(machine: Machine, match: "Match[Any]") -> None:
    """Pay for a match: it stores its groups, and every capture of a repeated group."""
    machine.charge(_MATCH_SIZE + _GROUP_SIZE * match.re.groups)
    if _measured[match.re].repeats_groups:
        for group in range(1, match.re.groups + 1):
            machine.charge(_CAPTURE_SIZE * len(match.spans(group)))


def finds(machine: Machine, pattern: str, text: str) -> bool:
    """Whether a pattern of the program is found in a text."""
    return searched(machine, "search", pattern, text) is not None


def searched(machine: Machine, method: str, pattern: Any, text: Any, flags: int = 0) -> Any:
    """`re.search`, or another method that finds one match."""
    compiled = compile_pattern(machine, pattern, flags)
    search = getattr(compiled, method)
    match = timed(machine, compiled, text, lambda limit: search(text, timeout=limit))
    if match is not None:
        pay_for_match(machine, match)
    return match


Args = list[Value]
Named = dict[str, Value]
_ESCAPE_SIZE = 200
Template = list[Any]  # texts and numbers of groups
_FLAGS = {
    "A": regex.A, "ASCII": regex.A, "I": regex.I, "IGNORECASE": regex.I, "M": regex.M,
    "MULTILINE": regex.M, "S": regex.S, "DOTALL": regex.S, "X": regex.X, "VERBOSE": regex.X,
    "U": regex.U, "UNICODE": regex.U,
}  # fmt: skip
_ESCAPE = regex.compile(
    r"\\(?:g<(?P<name>[^<>]*)>|(?P<octal>0[0-7]{0,2}|[1-3][0-7]{2})|(?P<group>[1-9][0-9]?)"
    r"|(?P<other>.)|\Z)",
    regex.DOTALL,
)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def _search(method: str) -> Callable[..., Any]:
    def call(machine: Machine, pattern: Any, text: Any, flags: int = 0) -> Any:
        return searched(machine, method, pattern, text, flags)

    return call


def _findall(machine: Machine, pattern: Any, text: Any, flags: int = 0) -> list[Any]:
    return [_found(machine, match) for match in _matches(machine, pattern, text, flags)]


def _found(machine: Machine, match: "Match[Any]") -> Any:
    groups = _group_texts(machine, match, match.string[:0])
    return groups[0] if len(groups) == 1 else groups or match[0]


def _group_texts(machine: Machine, match: "Match[Any]", default: Any) -> tuple[Any, ...]:
    _pay_for_groups(machine, match)
    return match.groups(default)


def _pay_for_groups(machine: Machine, match: "Match[Any]", *which: Any) -> None:
    """Pay for the texts of groups before they are copied; for all groups if none is named."""
    for start, end in map(match.span, which) if which else match.regs:
        machine.make_text(end - start)


def _matches(
    machine: Machine, pattern: Any, text: Any, flags: int = 0, most: int = 0
) -> "list[Match[Any]]":
    """All matches, or the first `most` of them. Each is paid for as it is found."""
    compiled = compile_pattern(machine, pattern, flags)

    def run(limit: float) -> "list[Match[Any]]":
        found = compiled.finditer(text, timeout=limit)
        return list(_paid(machine, itertools.islice(found, most or None)))

    result: list[Match[Any]] = timed(machine, compiled, text, run)
    return result


def _paid(machine: Machine, matches: "Iterator[Match[Any]]") -> "Iterator[Match[Any]]":
    for count, match in enumerate(matches, 1):
        machine.make_room(count)
        pay_for_match(machine, match)
        yield match


def _finditer(machine: Machine, args: Args, named: Named) -> Value:
    inner, mark = take(_MATCHES(machine, args, named))
    return IteratorValue((tag(match, mark) for match in inner), mark)


_MATCHES = sized(_matches)


def _split(machine: Machine, pattern: Any, text: Any, maxsplit: int = 0, flags: int = 0) -> Any:
    if maxsplit < 0:
        return [text]
    machine.make_text(len(text))
    pieces: list[Any] = []
    end = 0
    for match in _matches(machine, pattern, text, flags, maxsplit):
        machine.make_room(len(pieces) + match.re.groups + 2)
        pieces += [text[end : match.start()], *_group_texts(machine, match, None)]
        end = match.end()
    return [*pieces, text[end:]]


def _sub(machine: Machine, args: Args, named: Named) -> Value:
    """`re.sub`; the replacement may be a function of the program."""
    names = ("pattern", "repl", "string", "count", "flags")
    given = {**dict(zip(names, args, strict=False)), **named}
    if len(args) > len(names) or not {*names[:3]} <= set(given) <= set(names):
        machine.fail(TypeError, "sub() takes a pattern, a replacement and a text")
    rest = [given["pattern"], given["string"], given.get("count", 0), given.get("flags", 0)]
    (pattern, text, count, flags), mark = machine.bare_all(rest)
    repl, repl_mark = machine.bare(given["repl"])
    marks = [join(mark, repl_mark)]
    for changed in changed_by_calls(repl):
        machine.mark(changed, marks[0])  # the number of calls depends on them

    def called(match: "Match[Any]") -> Any:
        value, value_mark = machine.bare(call_value(machine, repl, [tag(match, marks[0])], {}))
        marks[0] = join(marks[0], value_mark)
        return value

    def run() -> Any:
        compiled = compile_pattern(machine, pattern, flags)
        replacement: Callable[[Match[Any]], Any] = called
        if isinstance(repl, str | bytes):
            replacement = _expansion(machine, _template(machine, compiled, repl))
        return _replaced(machine, compiled, text, count, replacement)

    return tag(machine.under(marks[0], run), marks[0])


def _replaced(
    machine: Machine,
    pattern: "Pattern[Any]",
    text: Any,
    count: int,
    replacement: Callable[["Match[Any]"], Any],
) -> Any:
    # Not `Pattern.sub`: the size of the result has to be checked while it grows.
    parts, end = [], 0
    for match in _matches(machine, pattern, text, 0, count) if count >= 0 else []:
        parts += [text[end : match.start()], replacement(match)]
        end = match.end()
    parts.append(text[end:])
    machine.make_text(sum(map(len, parts)))
    return text[:0].join(parts)


def _expansion(machine: Machine, template: Template) -> Callable[["Match[Any]"], Any]:
    def expand(match: "Match[Any]") -> Any:
        spans = [match.span(part) for part in template if isinstance(part, int)]
        written = sum(len(part) for part in template if not isinstance(part, int))
        machine.make_text(written + sum(end - start for start, end in spans))
        empty = match.string[:0]
        return empty.join(
            (match[part] or empty) if isinstance(part, int) else part for part in template
        )

    return expand


def _template(machine: Machine, pattern: "Pattern[Any]", repl: str | bytes) -> Template:
    """Parse a replacement. `regex` would cache it without a limit."""
    text = repl if isinstance(repl, str) else repl.decode("latin-1")
    machine.charge(_ESCAPE_SIZE * text.count("\\") + sys.getsizeof(text))
    parts, end = [], 0
    for escape in _ESCAPE.finditer(text):
        parts += [text[end : escape.start()], _escaped(pattern, escape)]
        end = escape.end()
    parts = [part for part in [*parts, text[end:]] if part != ""]
    if isinstance(repl, str):
        return parts
    return [part if isinstance(part, int) else part.encode("latin-1") for part in parts]


def _escaped(pattern: "Pattern[Any]", escape: "Match[str]") -> str | int:
    """The text of an escape, or the number of a group."""
    name, octal, group, other = escape.group("name", "octal", "group", "other")
    if octal is not None:
        return chr(int(octal, 8))
    if other is None:
        return _group_number(pattern, group or name)
    if other not in _ESCAPED and other.isascii() and other.isalpha():
        msg = f"bad escape \\{other}"
        raise RegexError(msg)
    return _ESCAPED.get(other, escape[0])


def _group_number(pattern: "Pattern[Any]", name: str | None) -> int:
    if name is None:
        msg = "bad escape (end of pattern)"
        raise RegexError(msg)
    is_number = name.isascii() and name.isdecimal() and len(name) < len(str(sys.maxsize))
    number = int(name) if is_number else pattern.groupindex.get(name, -1)
    if not 0 <= number <= pattern.groups:
        msg = "invalid group reference"
        raise RegexError(msg)
    return number


def _escape(machine: Machine, text: Any) -> Any:
    if not isinstance(text, str | bytes):
        machine.fail(TypeError, "expected string or bytes-like object")
    machine.make_text(2 * len(text))
    return regex.escape(text)  # type: ignore[type-var]  # of either type, as `re.escape`


def _group(machine: Machine, match: "Match[Any]", *which: Any) -> Any:
    _pay_for_groups(machine, match, *which or (0,))
    return match.group(*which)


def _groups(machine: Machine, match: "Match[Any]", default: Any = None) -> Any:
    return _group_texts(machine, match, default)


def _group_dict(machine: Machine, match: "Match[Any]", default: Any = None) -> Any:
    _pay_for_groups(machine, match)
    return match.groupdict(default)


RE: dict[str, Value] = {
    **functions(
        {
            "compile": sized(compile_pattern),
            "escape": sized(_escape),
            "findall": sized(_findall),
            "finditer": _finditer,
            "fullmatch": sized(_search("fullmatch")),
            "match": sized(_search("match")),
            "search": sized(_search("search")),
            "split": sized(_split),
            "sub": _sub,
        }
    ),
    **{name: int(flag) for name, flag in _FLAGS.items()},
    "error": ErrorType("error", RegexError),
}
METHODS[Pattern] = {
    name: RE[name].call
    for name in ("findall", "finditer", "fullmatch", "match", "search", "split", "sub")
}
METHODS[Match] = {
    "end": sized(lambda _, match, *group: match.end(*group)),
    "group": sized(_group),
    "groupdict": sized(_group_dict),
    "groups": sized(_groups),
    "span": sized(lambda _, match, *group: match.span(*group)),
    "start": sized(lambda _, match, *group: match.start(*group)),
}
ATTRIBUTES[Pattern] = lambda inner, name: inner.pattern if name == "pattern" else MISSING
TYPE_NAMES[Pattern] = "Pattern"
TYPE_NAMES[Match] = "Match"
