"""`re`: patterns are compiled and searched within limits (`docs/security.md`, rule 3)."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import regex

from langchain_sequrity import patterns
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    Operation,
    call_value,
    cautious,
    functions,
    methods,
    pure_with_machine,
)
from langchain_sequrity.local.interpreter.faults import error as RegexError  # noqa: N812
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    IteratorValue,
    Value,
    add_labels,
    changed_by_calls,
    join_labels,
    split_labels,
    type_name,
)

Pattern = regex.Pattern
Match = regex.Match
_PART_SIZE = 500  # bytes of a compiled pattern
_MATCH_SIZE = 500
_ESCAPED_SIZE = 100  # bytes of a character, while a text with others than ASCII is escaped
_GROUP_SIZE = 64
_CAPTURE_SIZE = 32
_BOUNDS = {"length": "pattern", "size": "repeats in a pattern", "nesting": "nesting of a pattern"}
# The patterns that each run compiled and paid for, and their measures.
_compiled: WeakKeyDictionary[Machine, dict[tuple[str, int], "Pattern[str]"]]
_compiled = WeakKeyDictionary()
_measured: WeakKeyDictionary["Pattern[str]", patterns.PatternMeasures] = WeakKeyDictionary()


def compile_pattern(machine: Machine, pattern: Any, flags: int = 0) -> "Pattern[str]":
    """`re.compile`. A run pays for a pattern once, before it is compiled."""
    if isinstance(pattern, Pattern):
        if flags:
            machine.fail(ValueError, "A compiled pattern takes neither flags nor a position.")
        return pattern
    if not isinstance(pattern, str):
        machine.fail(TypeError, "first argument must be string or compiled pattern")
    if not isinstance(flags, int) or flags & ~patterns.FLAGS:
        machine.fail(ValueError, "unknown flags")
    compiled = _compiled.setdefault(machine, {})
    key = (pattern, int(flags))
    if key not in compiled:
        compiled[key] = _compiled_once(machine, *key)
    return compiled[key]


def _compiled_once(machine: Machine, pattern: str, flags: int) -> "Pattern[str]":
    if len(pattern) > machine.limits.pattern:
        machine.exhaust("pattern", machine.limits.pattern)
    # A step for each character, so that reading many patterns checks the clock. Compiled patterns
    # are kept and paid for, which bounds the total time of compiling.
    machine.pay_steps(len(pattern))
    try:
        measures = patterns.measure(pattern, flags)
        machine.pay_memory(_PART_SIZE * measures.size)
        engine = patterns.Pattern(pattern, flags).engine()
    except patterns.PatternTooLarge as error:
        machine.exhaust(_BOUNDS[error.bound], error.limit)
    except patterns.PatternError as error:
        raise RegexError(str(error)) from None
    _measured[engine] = measures
    return engine


def search_in_time(
    machine: Machine, pattern: "Pattern[str]", text: Any, run: Callable[[float], Any]
) -> Any:
    """Search a text within the time limit; `run` gets the seconds."""
    if not isinstance(text, str):
        machine.fail(TypeError, f"expected a string, got '{type_name(text)}'")
    if len(text) > _measured[pattern].longest_text:
        machine.exhaust("characters for this pattern", _measured[pattern].longest_text)
    machine.check_time()
    longest, seconds_left = machine.limits.regex_seconds, machine.seconds_left
    try:
        # Never below 0: `regex` takes a negative timeout as no limit.
        return run(min(longest, seconds_left))
    except TimeoutError:
        if longest <= seconds_left:
            machine.exhaust("regex_seconds", longest)
        machine.exhaust_time()


def pay_for_match(machine: Machine, match: "Match[str]") -> None:
    """Pay for a match: it stores its groups, and every capture of a repeated group."""
    machine.pay_memory(_MATCH_SIZE + _GROUP_SIZE * match.re.groups)
    if _measured[match.re].repeats_groups:
        for group in range(1, match.re.groups + 1):
            machine.pay_memory(_CAPTURE_SIZE * len(match.spans(group)))


def search_once(machine: Machine, method: str, pattern: Any, text: Any, flags: int = 0) -> Any:
    """`re.search`, or another method that finds one match."""
    compiled = compile_pattern(machine, pattern, flags)
    search = getattr(compiled, method)
    match = search_in_time(machine, compiled, text, lambda limit: search(text, timeout=limit))
    if match is not None:
        pay_for_match(machine, match)
    return match


_FLAGS = (
    *("A", "ASCII", "I", "IGNORECASE", "M", "MULTILINE", "S", "DOTALL", "X", "VERBOSE"),
    *("U", "UNICODE"),
)


def _search(method: str) -> Implementation:
    def call(machine: Machine, pattern: Any, string: Any, flags: int = 0) -> Any:
        return search_once(machine, method, pattern, string, flags)

    return pure_with_machine(call)


def _findall(machine: Machine, pattern: Any, string: Any, flags: int = 0) -> list[Any]:
    return [_findall_item(machine, match) for match in _matches(machine, pattern, string, flags)]


def _findall_item(machine: Machine, match: "Match[str]") -> Any:
    groups = _group_texts(machine, match, "")
    return groups[0] if len(groups) == 1 else groups or match[0]


def _group_texts(machine: Machine, match: "Match[str]", default: Any = None) -> tuple[Any, ...]:
    _pay_for_groups(machine, match)
    return match.groups(default)


def _pay_for_groups(machine: Machine, match: "Match[str]", *groups: Any) -> None:
    """Pay for the texts of groups before they are copied; for all groups if none is named."""
    for start, end in map(match.span, groups) if groups else match.regs:
        machine.pay_text(end - start)


def _matches(
    machine: Machine, pattern: Any, text: Any, flags: int = 0, max_matches: int = 0
) -> "list[Match[str]]":
    """All matches, or the first `max_matches` of them. Each is paid for as it is found."""
    compiled = compile_pattern(machine, pattern, flags)

    def run(limit: float) -> "list[Match[str]]":
        matches = compiled.finditer(text, timeout=limit)
        return list(_pay_for_matches(machine, itertools.islice(matches, max_matches or None)))

    result: list[Match[str]] = search_in_time(machine, compiled, text, run)
    return result


def _pay_for_matches(machine: Machine, matches: "Iterator[Match[str]]") -> "Iterator[Match[str]]":
    for count, match in enumerate(matches, 1):
        machine.check_items(count)
        pay_for_match(machine, match)
        yield match


def _finditer(machine: Machine, pattern: Value, string: Value, flags: Value = 0) -> Value:
    inner, mark = split_labels(_MATCHES(machine, [pattern, string, flags], {}))
    return IteratorValue((add_labels(match, mark) for match in inner), mark)


_MATCHES = pure_with_machine(_matches)


def _split(machine: Machine, pattern: Any, string: Any, maxsplit: int = 0, flags: int = 0) -> Any:
    if maxsplit < 0:
        return [string]
    pieces: list[Any] = []
    end = 0
    matches = _matches(machine, pattern, string, flags, maxsplit)
    machine.pay_text(len(string))
    for match in matches:
        machine.check_items(len(pieces) + match.re.groups + 2)
        pieces += [string[end : match.start()], *_group_texts(machine, match)]
        end = match.end()
    return [*pieces, string[end:]]


def _sub(  # noqa: PLR0917 - the arguments of `re.sub`
    machine: Machine,
    pattern: Value,
    repl: Value,
    string: Value,
    count: Value = 0,
    flags: Value = 0,
) -> Value:
    """`re.sub`; the replacement may be a function of the program."""
    (bare, text, most, options), mark = machine.strip_all_labels([pattern, string, count, flags])
    replacement, repl_mark = machine.strip_labels(repl)
    marks = [join_labels(mark, repl_mark)]
    for changed in changed_by_calls(replacement):
        machine.label_changed(changed, marks[0])  # the number of calls depends on them

    def called(match: "Match[str]") -> Any:
        result = call_value(machine, replacement, [add_labels(match, marks[0])], {})
        value, value_mark = machine.strip_labels(result)
        marks[0] = join_labels(marks[0], value_mark)
        return value

    def run() -> Any:
        compiled = compile_pattern(machine, bare, options)
        is_text = isinstance(replacement, str)
        replace = _replacement(machine, replacement) if is_text else called
        # Not `Pattern.sub`: the size of the result has to be checked while it grows.
        parts, end = [], 0
        for match in _matches(machine, compiled, text, 0, most) if most >= 0 else []:
            parts += [text[end : match.start()], replace(match)]
            end = match.end()
        parts.append(text[end:])
        machine.pay_text(sum(map(len, parts)))
        return "".join(parts)

    return add_labels(machine.branch_on(marks[0], run), marks[0])


def _replacement(machine: Machine, template: str) -> Callable[["Match[str]"], str]:
    """The replacement by a text, in which groups may be named."""
    escapes = template.count("\\")
    if not escapes:
        return lambda _: template
    if len(template) > machine.limits.pattern:  # `regex` keeps parsed templates
        machine.exhaust("pattern", machine.limits.pattern)

    def expand(match: "Match[str]") -> str:
        longest = max(end - start for start, end in match.regs)
        machine.pay_text(len(template) + escapes * longest)
        try:
            return match.expand(template)
        except (regex.error, IndexError) as error:
            raise RegexError(str(error)) from None

    return expand


def _escape(machine: Machine, pattern: Any) -> str:
    if not isinstance(pattern, str):
        machine.fail(TypeError, f"escape() argument must be str, not {type_name(pattern)}")
    machine.pay_text(2 * len(pattern))
    if not pattern.isascii():
        machine.pay_memory(_ESCAPED_SIZE * len(pattern))
    return regex.escape(pattern)


def _group(machine: Machine, match: "Match[str]", *groups: Any) -> Any:
    _pay_for_groups(machine, match, *groups or (0,))
    return match.group(*groups)


def _group_dict(machine: Machine, match: "Match[str]", default: Any = None) -> Any:
    _pay_for_groups(machine, match)
    return match.groupdict(default)


def _searching() -> dict[str, Operation]:
    """The functions of `re` that are also methods of a pattern."""
    return {
        "findall": pure_with_machine(_findall),
        "finditer": cautious(_finditer),
        "fullmatch": _search("fullmatch"),
        "match": _search("match"),
        "search": _search("search"),
        "split": pure_with_machine(_split),
        "sub": cautious(_sub),
    }


RE: dict[str, Value] = {
    **functions(
        {
            "compile": pure_with_machine(compile_pattern),
            "escape": pure_with_machine(_escape),
            **_searching(),
        }
    ),
    **{name: int(getattr(regex, name)) for name in _FLAGS},
    "error": ErrorType("error", RegexError),
}
METHODS[Pattern] = methods(_searching())
METHODS[Match] = methods(
    {
        "end": pure_with_machine(lambda _, match, group=0, /: match.end(group)),
        "group": pure_with_machine(_group),
        "groupdict": pure_with_machine(_group_dict),
        "groups": pure_with_machine(_group_texts),
        "span": pure_with_machine(lambda _, match, group=0, /: match.span(group)),
        "start": pure_with_machine(lambda _, match, group=0, /: match.start(group)),
    }
)
ATTRIBUTES[Pattern] = lambda inner, name: inner.pattern if name == "pattern" else MISSING
