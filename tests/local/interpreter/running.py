"""Helpers that run a program in a test and return its result, its labels or its failure."""

from collections.abc import Iterable
from typing import Any

from langchain_sequrity.labels import FieldLabels, Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    ProgramFinished,
    ProgramRaised,
    Run,
    ToolCall,
    ToolFailure,
    parse,
)

SECRET = Labels(producers=frozenset({"vault"}), tags=frozenset({"secret"}))
OTHER = Labels(tags=frozenset({"other"}))
FIELDS = FieldLabels.combined(SECRET, {"who": OTHER, "by/name": Labels()})
TAKEN = Labels(tags=frozenset({"taken"}))
TAKEN_BUT_FREE = FieldLabels.combined(TAKEN, {"free": Labels()})
TOOLS: dict[str, dict[str, Any]] = {
    "read": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "send": {
        "type": "object",
        "properties": {"to": {}, "text": {}, "copy": {}},
        "required": ["to", "text"],
    },
}


def finish(source: str, **options: Any) -> ProgramFinished | ProgramRaised:
    """Run a program that calls no tool."""
    run = Run(parse(source), **options)
    step = run.advance()
    assert not isinstance(step, ToolCall)
    return step


def value(source: str, **options: Any) -> Any:
    """The value that a program gives."""
    step = finish(source, **options)
    assert isinstance(step, ProgramFinished), step
    return step.value.value


def failure(source: str, **options: Any) -> ProgramRaised:
    """The failure of a program."""
    step = finish(source, **options)
    assert isinstance(step, ProgramRaised), step
    return step


def labels(source: str, **options: Any) -> Labels:
    """Labels of the value that a program gives. It can use `variables`."""
    step = finish(source, variables=variables(), **options)
    assert isinstance(step, ProgramFinished), step
    return step.value.labels


def _row(name: str) -> dict[str, Any]:
    return {"who": name, "say": "hush", "by": {"name": "x", "mail": "y"}}


def variables() -> dict[str, Labeled]:
    """Variables with and without labels."""
    return {
        "s": Labeled("hush", SECRET),
        "n": Labeled(3, SECRET),
        "xs": Labeled([3, 1, 2], SECRET),
        "d": Labeled({"a": 1, "b": [2]}, SECRET),
        "yes": Labeled(value=True, labels=SECRET),
        "no": Labeled(value=False, labels=SECRET),
        "o": Labeled("other", OTHER),
        "os": Labeled([2, 1], OTHER),
        "i": Labeled(0, OTHER),
        "p": Labeled("plain"),
        "ps": Labeled(["b", "a"]),
        "ts": Labeled([{"free": "x", "taken": "y"}], TAKEN_BUT_FREE),
        "rows": Labeled([_row("ada"), _row("bo")], FIELDS),
    }


def drive(run: Run, results: Iterable[Labeled | ToolFailure]) -> list[Any]:
    """Answer the tool calls of a run with these results, and return all steps."""
    steps: list[Any] = [run.advance()]
    steps += [run.advance(result) for result in results]
    return steps


def plain(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call, without labels."""
    return {name: argument.value for name, argument in call.arguments.items()}
