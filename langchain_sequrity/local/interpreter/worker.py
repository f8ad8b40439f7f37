"""A run in a process of its own, which can be killed (`docs/security.md`, rule 2).

The limits inside a run are the first line: they stop a program between two of its operations. This
is the second, for an operation that takes longer or more than anybody thought: the process has a
limit of memory that the system keeps, nothing of the environment, no files, and is killed when it
does not answer in time. The two sides send each other lines of JSON. What the process says is data:
it is checked, but a program that took the process over could still say anything about its own
values and labels.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.border import check_json, labels_from_json
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ReplayDiverged
from langchain_sequrity.local.interpreter.job import Event, read_event
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import MayBranch
from langchain_sequrity.local.interpreter.program import Program, parse
from langchain_sequrity.local.interpreter.run import Run
from langchain_sequrity.local.interpreter.steps import (
    Failed,
    Finished,
    Step,
    ToolCall,
    ToolFailure,
    check_turn,
)
from langchain_sequrity.local.interpreter.values import Labeled

Message = dict[str, Any]
_STEPS: dict[str, type[Step]] = {kind.__name__: kind for kind in (ToolCall, Finished, Failed)}
_RAISES = {"UsageError": UsageError, "ReplayDiverged": ReplayDiverged}
_START_SECONDS = 60.0
_LONGEST = 200_000_000  # bytes of one line
_KEPT = ("TZ", "SYSTEMROOT")  # the zone, so that replays agree; Windows starts nothing without


class WorkerRun:
    """A `Run` in a process of its own; it is used in the same way.

    A process that had to be killed, or ended by itself, is a `Failed` of the kind `budget`.

    Args:
        program: What `parse` returned.
        tools: As for `Run`, like all up to `log`.
        variables: Variables that exist before the program.
        limits: What it may use up.
        may_branch: Is asked here, not in the process.
        is_strict: Whether what happens under a branch takes the labels of its condition.
        typed: Parameters that hold a type, by name of tool.
        log: `log` of an earlier run of the same program with the same variables.
        patience: Seconds that one `advance` may take before the process is killed; a little more
            than `limits.seconds` if not given.
        room: Bytes of address space that the process may take besides what Python itself needs,
            where the system has such a limit; enough for `limits.memory` if not given.

    Raises:
        UsageError: If the process cannot be started.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import Finished, parse
        from langchain_sequrity.local.interpreter.worker import WorkerRun

        run = WorkerRun(parse("sum(range(10))"))
        end = run.advance()
        assert isinstance(end, Finished) and end.value.value == 45
        ```
    """

    def __init__(
        self,
        program: Program,
        *,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        variables: Mapping[str, Labeled] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        may_branch: MayBranch | None = None,
        is_strict: bool = False,
        typed: Mapping[str, str] | None = None,
        log: Sequence[Event] = (),
        patience: float | None = None,
        room: int | None = None,
    ) -> None:
        """Start nothing yet."""
        self._begin: Message = {
            "source": program.source,
            "tools": check_json({name: dict(schema) for name, schema in (tools or {}).items()}),
            "variables": _labeled_to_json(variables or {}),
            "limits": asdict(limits),
            "asks": may_branch is not None,
            "is_strict": is_strict,
            "typed": dict(typed or {}),
            "room": 2 * limits.memory + 256_000_000 if room is None else room,
        }
        self._patience = limits.seconds + 2 if patience is None else patience
        self._may_branch = may_branch
        self._log = [read_event(event) for event in log]
        self._output: list[str] = []
        self._names: Message = {"names": {}, "variables": {}}
        self._process: subprocess.Popen[bytes] | None = None
        self._kill: Callable[[], Any] = _nothing
        self._step: Step | None = None
        self._is_closed = False

    @property
    def log(self) -> tuple[Event, ...]:
        """What came from outside so far, as JSON data: enough to run again up to here."""
        return tuple(self._log)

    @property
    def output(self) -> tuple[str, ...]:
        """What the program printed."""
        return tuple(self._output)

    def advance(self, result: Labeled | ToolFailure | None = None) -> Step:
        """Run up to the next tool call or the end, as `Run.advance` does.

        Raises:
            UsageError: As `Run.advance`, and if the process cannot be started.
            ReplayDiverged: If the program does something else than its log says.
        """
        check_turn(self._step, result, is_closed=self._is_closed)
        line = self._step.line if self._step is not None else 1
        try:
            if self._process is None:
                self._start()
                if self._step is not None:
                    self._proceed({"do": "advance", "result": None})  # up to where it waits
            self._step = self._proceed({"do": "advance", "result": _result_to_json(result)})
        except _Lost as lost:
            self._step = Failed("budget", OutOfBudget.type_name, str(lost), line)
        except BaseException:
            self.close()
            raise
        if not isinstance(self._step, ToolCall):
            self._leave()
        return self._step

    def park(self) -> None:
        """Give up the process; the next `advance` replays the log in a new one."""
        self._read_names()
        self._leave()

    def close(self) -> None:
        """End the run. Its log and output can still be read."""
        self._is_closed = True
        self._leave()

    def names(self) -> dict[str, Labeled]:
        """The variables now, or when the process ended; see `Run.names`."""
        self._read_names()
        return _labeled_from_json(self._names["names"])

    def variables(self) -> dict[str, Labeled]:
        """The variables that a later program can start from; see `Run.variables`."""
        self._read_names()
        return _labeled_from_json(self._names["variables"])

    # -- the process

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-B", "-P", "-s", "-m", "langchain_sequrity.local.interpreter.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(sys.executable).anchor,
            env=_environment(),
        )
        self._process, self._kill = process, weakref.finalize(self, _end, process)
        self._output = []
        try:
            self._exchange({**self._begin, "log": self._log}, _START_SECONDS)
        except _Lost as lost:
            self.close()
            msg = f"The process for the program did not start. {lost}"
            raise UsageError(msg) from None

    def _leave(self) -> None:
        self._kill()
        self._process, self._kill = None, _nothing

    def _proceed(self, request: Message) -> Step:
        reply = self._exchange(request, self._patience)
        try:
            step = _step_from_json(reply["step"])
            self._log += [read_event(event) for event in reply["log"]]
            self._output += [str(text) for text in reply["output"]]
            self._names = reply.get("names", self._names)
        except (KeyError, TypeError, ValueError, AttributeError, SequrityError):
            raise _Lost(_NONSENSE) from None
        return step

    def _read_names(self) -> None:
        if self._process is None:
            return
        try:
            self._names = self._exchange({"do": "names"}, self._patience)
        except _Lost:
            self._leave()

    def _exchange(self, request: Message, seconds: float) -> Message:
        reply = self._send(request, seconds)
        while "ask" in reply and self._may_branch is not None:
            may = self._may_branch(labels_from_json(reply["ask"]))
            reply = self._send({"may": bool(may)}, seconds)
        if "raises" in reply:
            raise _RAISES.get(reply["raises"], UsageError)(str(reply.get("text")))
        return reply

    def _send(self, message: Message, seconds: float) -> Message:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise _Lost(_ENDED)
        # The timer ends the process, and with it the wait: that works on every system.
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline(_LONGEST)
        except OSError:
            line = b""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if not line.endswith(b"\n"):
            raise _Lost(
                f"It did not answer within {seconds:g} s and was stopped." if late else _ENDED
            )
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise _Lost(_NONSENSE) from None
        if not isinstance(reply, dict):
            raise _Lost(_NONSENSE)
        return reply


class _Lost(Exception):
    """The process is gone, or says what makes no sense."""


_ENDED = "The process of the program ended; it may have taken too much memory."
_NONSENSE = "The process of the program answered what makes no sense."


def _nothing() -> None:
    """There is no process to end."""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent yet cannot be any more
                pipe.close()
    # Without reading to the end of the pipe: something else may hold its other side.
    process.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# -- what the two sides say


def _labeled_to_json(values: Mapping[str, Labeled]) -> Message:
    return {n: {"value": one.value, "labels": one.labels.to_wire()} for n, one in values.items()}


def _labeled_from_json(data: Message) -> dict[str, Labeled]:
    return {n: Labeled(d["value"], labels_from_json(d["labels"])) for n, d in data.items()}


def _result_to_json(result: Labeled | ToolFailure | None) -> Message | None:
    if result is None:
        return None
    return {**asdict(result), "labels": result.labels.to_wire()}


def _result_from_json(data: Message | None) -> Labeled | ToolFailure | None:
    if data is None:
        return None
    kind = ToolFailure if "message" in data else Labeled
    return kind(**{**data, "labels": labels_from_json(data["labels"])})


def _step_to_json(step: Step) -> Message:
    data: Message = {name: getattr(step, name) for name in type(step).__dataclass_fields__}
    for name, item in data.items():
        if isinstance(item, Labels):
            data[name] = item.to_wire()
        elif isinstance(item, Labeled):
            data[name] = _labeled_to_json({name: item})[name]
        elif name == "arguments":
            data[name] = _labeled_to_json(item)
    return {"step": type(step).__name__, **data}


def _step_from_json(data: Message) -> Step:
    fields = dict(data)
    kind = _STEPS[fields.pop("step")]
    for name, item in fields.items():
        if name == "labels":
            fields[name] = labels_from_json(item)
        elif name == "value" and item is not None:
            fields[name] = _labeled_from_json({name: item})[name]
        elif name == "arguments":
            fields[name] = _labeled_from_json(item)
    return kind(**fields)


# -- the process itself


def main() -> None:
    """Run one program, as the lines on standard input say, until they end."""
    begin = _receive()
    _confine(begin["room"])
    run = Run(
        parse(begin["source"], Limits(**begin["limits"])),
        tools=begin["tools"],
        variables=_labeled_from_json(begin["variables"]),
        limits=Limits(**begin["limits"]),
        may_branch=_ask if begin["asks"] else None,
        is_strict=begin["is_strict"],
        typed=begin["typed"],
        log=begin["log"],
    )
    _reply({})
    told, printed = len(begin["log"]), 0
    while True:
        request = _receive()
        if request["do"] == "names":
            _reply(_all_names(run))
            continue
        try:
            step = run.advance(_result_from_json(request["result"]))
        except SequrityError as error:
            _reply({"raises": type(error).__name__, "text": str(error)})
            continue
        log, output = run.log, run.output
        reply = {"step": _step_to_json(step), "log": log[told:], "output": output[printed:]}
        told, printed = len(log), len(output)
        _reply(reply if isinstance(step, ToolCall) else {**reply, "names": _all_names(run)})


def _all_names(run: Run) -> Message:
    names, variables = _labeled_to_json(run.names()), _labeled_to_json(run.variables())
    return {"names": names, "variables": variables}


def _ask(labels: Labels) -> bool:
    _reply({"ask": labels.to_wire()})
    return bool(_receive()["may"])


def _receive() -> Message:
    line = sys.stdin.buffer.readline()
    if not line:
        # Nobody is there any more. Not `sys.exit`: a thread of the run may be the one to ask.
        os._exit(0)
    message: Message = json.loads(line)
    return message


def _reply(message: Message) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def _confine(room: int) -> None:
    """Give up what no program needs; what is needed later has to be loaded before."""
    try:
        import resource  # noqa: PLC0415 - Windows has no such limits
    except ImportError:
        return
    dt.datetime.strptime("2020", "%Y")  # noqa: DTZ007 - Python loads a module for the first one
    taken = _address_space()
    if taken is not None:
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))
    # No file, pipe or socket can be opened from here on, and none written; no traces are left.
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))


def _address_space() -> int | None:
    """Bytes that are mapped now, where the system says so."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
