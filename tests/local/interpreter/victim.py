"""The process that runs hostile programs. It reads one program per line and writes how it ended.

Python code cannot remove an audit hook. This one records everything but pure computation that a
program causes: opening a file, an import, a compilation, a new process, access to a frame.
"""

import dataclasses
import json
import sys
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import (
    Labeled,
    Limits,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    Run,
    ToolCall,
    parse,
)

SECRET = Labels(tags=frozenset({"secret"}))
TOOLS = {
    "send": {"properties": {"to": {}, "body": {}}, "required": ["to", "body"]},
    "read": {"properties": {"name": {}}, "required": ["name"]},
}
# What `read` returns for these names. For other names it returns "result".
RESULTS: dict[object, Any] = {
    "list": [0] * 100_000,
    "dict": {str(number): number for number in range(20_000)},
    "text": "a" * 1_000_000,
    "number": [10**4_000] * 10,
    "empty": {str(number): None for number in range(100)},
}
# The interpreter does these itself: it runs a thread, and detects values that contain themselves.
_HARMLESS = ("_thread.start_new_thread", "builtins.id")
_TEXTS = ("<unknown>", "<program>")
_trespasses: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    # The interpreter parses texts without making code. For the line of an error, Python then looks
    # for a file with the name of the text.
    if (event == "compile" and args[1] in _TEXTS) or (event == "open" and args[0] in _TEXTS):
        return
    if event not in _HARMLESS:
        _trespasses.append(f"{event} {args!r:.100}")


def end_of(program: str, limits: Limits) -> dict[str, Any]:
    """Run a program to its end and answer its tool calls; return how it ended."""
    try:
        run = Run(
            parse(program, limits),
            tools=TOOLS,
            variables={"secret": Labeled("k3y", SECRET)},
            limits=limits,
        )
    except ProgramRefused as refusal:
        return {"ends": "refused", "says": str(refusal)}
    step = run.advance()
    while isinstance(step, ToolCall):
        labels = Labels()
        for argument in step.arguments.values():
            labels = labels.join(argument.labels)
        name = step.arguments["name"].value if step.tool == "read" else None
        step = run.advance(Labeled(RESULTS.get(name, "result"), labels))
    return _described(step)


def _described(step: ProgramFinished | ProgramRaised) -> dict[str, Any]:
    if isinstance(step, ProgramFinished):
        tags = sorted(step.value.labels.tags)
        return {"ends": "gives", "says": "", "value": step.value.value, "tags": tags}
    tags = sorted(step.labels.tags)
    ends = {"exception": "fails", "value": "fails"}.get(step.kind, step.kind)
    says = {"exception": step.type, "value": "value"}.get(step.kind, step.message)
    return {"ends": ends, "says": says, "message": step.message, "tags": tags}


def main() -> None:
    """Serve until the input ends."""
    # Python imports a module when `strptime` is first called. The hook must not see that.
    warm = end_of("import datetime\ndatetime.datetime.strptime('2020', '%Y').year", Limits())
    assert warm["ends"] == "gives", warm
    sys.addaudithook(_watch)
    for line in sys.stdin:
        request = json.loads(line)
        _trespasses.clear()
        end = end_of(request["program"], Limits(**request["limits"]))
        reply = json.dumps({**end, "trespasses": list(_trespasses)})
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


def as_request(program: str, limits: Limits) -> str:
    """The line that asks the process to run a program."""
    return json.dumps({"program": program, "limits": dataclasses.asdict(limits)})


if __name__ == "__main__":
    main()
