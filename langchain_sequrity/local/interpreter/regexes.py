"""`re`: the usual functions, each search with a time limit (`docs/security.md`, rule 3)."""

from collections.abc import Callable
from typing import Any

import regex

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
    join,
    tag,
    take,
)

Args = list[Value]
Named = dict[str, Value]
Pattern = regex.Pattern
Match = regex.Match
_COUNTS = regex.compile(r"\{([0-9]*),?([0-9]*)\}")
_REFERENCES = regex.compile(r"\\[0-9g]")
_LARGEST_COUNT = 1_000
_MATCH_SIZE = 500  # bytes
_FLAGS = {
    "A": regex.A, "ASCII": regex.A, "I": regex.I, "IGNORECASE": regex.I, "M": regex.M,
    "MULTILINE": regex.M, "S": regex.S, "DOTALL": regex.S, "X": regex.X, "VERBOSE": regex.X,
    "U": regex.U, "UNICODE": regex.U,
}  # fmt: skip


def compile_pattern(machine: Machine, pattern: Any, flags: int = 0) -> "Pattern[Any]":
    """`re.compile`, for patterns that are short and repeat nothing too often."""
    if isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str | bytes):
        machine.fail(TypeError, "first argument must be string or compiled pattern")
    if len(pattern) > machine.limits.pattern:
        machine.exhaust("pattern", machine.limits.pattern)
    _check_counts(machine, pattern)
    allowed = regex.A | regex.I | regex.M | regex.S | regex.X | regex.U
    if not isinstance(flags, int) or flags & ~int(allowed):
        machine.fail(ValueError, "unknown flags")
    try:
        return regex.compile(pattern, int(flags) | regex.V0, cache_pattern=False)
    except (regex.error, OverflowError) as error:
        # Only `regex.error` can say where; the pattern itself stays out of the text.
        raise RegexError(str(getattr(error, "msg", "too large"))) from None


def _check_counts(machine: Machine, pattern: str | bytes) -> None:
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    product = 1
    for match in _COUNTS.finditer(text):
        for digits in match.groups():
            product *= max(int(digits[:6] or 1), 1)
    if product > _LARGEST_COUNT:
        # Repeats multiply while the pattern is compiled, which no time limit covers.
        machine.exhaust("repeats in a pattern", _LARGEST_COUNT)


def _timed(machine: Machine, run: Callable[[float], Any]) -> Any:
    longest, left = machine.limits.regex_seconds, machine.seconds_left
    try:
        # Never below 0, which `regex` would take for no limit at all.
        return run(min(longest, left))
    except TimeoutError:
        name = "regex_seconds" if longest <= left else "seconds"
        machine.exhaust(name, getattr(machine.limits, name))


def _search(method: str) -> Callable[..., Any]:
    def call(machine: Machine, pattern: Any, text: Any, flags: int = 0) -> Any:
        compiled = compile_pattern(machine, pattern, flags)
        machine.charge(_MATCH_SIZE)
        return _timed(machine, lambda limit: getattr(compiled, method)(text, timeout=limit))

    return call


def _findall(machine: Machine, pattern: Any, text: Any, flags: int = 0) -> list[Any]:
    return [_found(machine, match) for match in _matches(machine, pattern, text, flags)]


def _found(machine: Machine, match: "Match[Any]") -> Any:
    _pay_for_groups(machine, match)
    groups = match.groups(default=match.string[:0])
    return groups[0] if len(groups) == 1 else groups or match[0]


def _pay_for_groups(machine: Machine, match: "Match[Any]", *which: Any) -> None:
    """Pay for the texts of groups before they are cut out; of all of them, if none is named."""
    for start, end in map(match.span, which) if which else match.regs:
        machine.make_text(end - start)


def _matches(machine: Machine, pattern: Any, text: Any, flags: int = 0) -> "list[Match[Any]]":
    compiled = compile_pattern(machine, pattern, flags)

    def run(limit: float) -> "list[Match[Any]]":
        matches = []
        for match in compiled.finditer(text, timeout=limit):
            matches.append(match)
            machine.charge(_MATCH_SIZE)
        return matches

    result: list[Match[Any]] = _timed(machine, run)
    return result


def _finditer(machine: Machine, args: Args, named: Named) -> Value:
    inner, mark = take(_MATCHES(machine, args, named))
    return IteratorValue((tag(match, mark) for match in inner), mark)


_MATCHES = sized(_matches)


def _split(machine: Machine, pattern: Any, text: Any, maxsplit: int = 0, flags: int = 0) -> Any:
    compiled = compile_pattern(machine, pattern, flags)
    each = compiled.groups + 1  # the texts of groups stand among the pieces
    most = machine.limits.items // each + 1
    most = min(maxsplit, most) if maxsplit else most
    machine.charge(len(text) * each)
    pieces = _timed(machine, lambda limit: compiled.split(text, most, timeout=limit))
    machine.make_items(len(pieces), 80)
    return pieces


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

    def replacement(match: "Match[Any]") -> Any:
        if isinstance(repl, str | bytes):
            return _expanded(machine, match, repl)
        value, value_mark = machine.bare(call_value(machine, repl, [tag(match, marks[0])], {}))
        marks[0] = join(marks[0], value_mark)
        return value

    result = machine.under(
        marks[0], lambda: _replaced(machine, pattern, text, count, flags, replacement)
    )
    return tag(result, marks[0])


def _replaced(  # noqa: PLR0917 - what `re.sub` takes
    machine: Machine,
    pattern: Any,
    text: Any,
    count: int,
    flags: int,
    replacement: Callable[["Match[Any]"], Any],
) -> Any:
    # Not `Pattern.sub`: the result's size has to be known while it grows.
    parts, end = [], 0
    for match in _matches(machine, pattern, text, flags)[: count or None]:
        try:
            fresh = replacement(match)
        except regex.error as error:
            raise RegexError(str(getattr(error, "msg", error))) from None
        parts += [text[end : match.start()], fresh]
        end = match.end()
    parts.append(text[end:])
    machine.make_text(sum(map(len, parts)))
    return text[:0].join(parts)


def _expanded(machine: Machine, match: "Match[Any]", template: Any) -> Any:
    longest = max(end - start for start, end in match.regs)
    count = len(_REFERENCES.findall(template if isinstance(template, str) else repr(template)))
    machine.make_text(len(template) + count * longest)
    try:
        return match.expand(template)
    except IndexError:
        msg = "invalid group reference"
        raise RegexError(msg) from None


def _escape(machine: Machine, text: Any) -> Any:
    if not isinstance(text, str | bytes):
        machine.fail(TypeError, "expected string or bytes-like object")
    machine.make_text(2 * len(text))
    return regex.escape(text)  # type: ignore[type-var]  # of either type, as `re.escape`


def _group(machine: Machine, match: "Match[Any]", *which: Any) -> Any:
    _pay_for_groups(machine, match, *which or (0,))
    return match.group(*which)


def _groups(machine: Machine, match: "Match[Any]", default: Any = None) -> Any:
    _pay_for_groups(machine, match)
    return match.groups(default)


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
