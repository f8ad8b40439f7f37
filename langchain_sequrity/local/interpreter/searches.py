"""Patterns of programs: compiled and searched within limits, and paid for."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import regex

from langchain_sequrity import patterns
from langchain_sequrity.local.interpreter.faults import error as RegexError  # noqa: N812
from langchain_sequrity.local.interpreter.machine import Machine

Pattern = regex.Pattern
Match = regex.Match
_PART_SIZE = 500  # bytes of a compiled pattern
_MATCH_SIZE = 500
_GROUP_SIZE = 64
_CAPTURE_SIZE = 32
_BOUNDS = {"length": "pattern", "size": "repeats in a pattern", "nesting": "nesting of a pattern"}
# What each run compiled and paid for, and what is known of it.
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
        known[key] = _fresh(machine, *key)
    return known[key]


def _fresh(machine: Machine, pattern: str | bytes, flags: int) -> "Pattern[Any]":
    if len(pattern) > machine.limits.pattern:
        machine.exhaust("pattern", machine.limits.pattern)
    # A step for each character, so that the clock is looked at for each pattern that is read. What
    # they compile to is kept and paid for, which bounds the time that compiling takes in all.
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
    """Search a text, in the seconds that `run` is given."""
    _check_text(machine, pattern, text)
    machine.look_at_clock()
    longest, left = machine.limits.regex_seconds, machine.seconds_left
    try:
        # Never below 0, which `regex` would take for no limit at all.
        return run(min(longest, left))
    except TimeoutError:
        if longest <= left:
            machine.exhaust("regex_seconds", longest)
        machine.exhaust_time()


def pay_for_match(machine: Machine, match: "Match[Any]") -> None:
    """Pay for a match: it remembers its groups, and each time that one of them matched."""
    machine.charge(_MATCH_SIZE + _GROUP_SIZE * match.re.groups)
    if _measured[match.re].repeats_groups:
        for group in range(1, match.re.groups + 1):
            machine.charge(_CAPTURE_SIZE * len(match.spans(group)))


def finds(machine: Machine, pattern: str, text: str) -> bool:
    """Whether a pattern that a program gave is found in a text."""
    return searched(machine, "search", pattern, text) is not None


def searched(machine: Machine, method: str, pattern: Any, text: Any, flags: int = 0) -> Any:
    """`re.search`, or another function that finds one match."""
    compiled = compile_pattern(machine, pattern, flags)
    search = getattr(compiled, method)
    match = timed(machine, compiled, text, lambda limit: search(text, timeout=limit))
    if match is not None:
        pay_for_match(machine, match)
    return match
