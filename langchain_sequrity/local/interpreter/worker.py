"""A run in a process of its own, which can be killed (`docs/security.md`, rule 2).

The limits inside a run are the first line: they stop a program between two of its operations. This
is the second, for an operation that takes longer or more than anybody thought: the process has a
limit of memory that the system keeps, nothing of the environment, no files, and is killed when it
does not answer in time. The two sides send each other lines of JSON. What the process says is data:
it is checked, but a program that took the process over could still say anything about its own
values and labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.local.interpreter.border import check_json, labels_from_json
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ReplayDiverged
from langchain_sequrity.local.interpreter.job import Event, read_event
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import MayBranch
from langchain_sequrity.local.interpreter.program import Program
from langchain_sequrity.local.interpreter.steps import (
    Failed,
    Step,
    ToolCall,
    ToolFailure,
    check_turn,
)
from langchain_sequrity.local.interpreter.values import Labeled
from langchain_sequrity.local.interpreter.worker_messages import (
    Message,
    labeled_from_json,
    labeled_to_json,
    result_to_json,
    step_from_json,
)
from langchain_sequrity.local.interpreter.worker_process import Lost, WorkerProcess

_RAISES = {"UsageError": UsageError, "ReplayDiverged": ReplayDiverged}
_START_SECONDS = 60.0


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
        patience: Seconds that one `advance` may take before the process is killed, also when the
            machine is busy with something else; five more than five times `limits.seconds` if not
            given.
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
            "variables": labeled_to_json(variables or {}),
            "limits": asdict(limits),
            "asks": may_branch is not None,
            "is_strict": is_strict,
            "typed": dict(typed or {}),
            "room": 2 * limits.memory + 256_000_000 if room is None else room,
        }
        self._patience = 5 * limits.seconds + 5 if patience is None else patience
        self._may_branch = may_branch
        self._log = [read_event(event) for event in log]
        self._output: list[str] = []
        self._names: Message = {"names": {}, "variables": {}}
        self._process: WorkerProcess | None = None
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
            process = self._process
            if process is None:
                process = self._start()
                if self._step is not None:
                    self._proceed(process, None)  # up to where it waits
            self._step = self._proceed(process, result)
        except Lost as lost:
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
        return labeled_from_json(self._names["names"])

    def variables(self) -> dict[str, Labeled]:
        """The variables that a later program can start from; see `Run.variables`."""
        self._read_names()
        return labeled_from_json(self._names["variables"])

    # -- the process

    def _start(self) -> WorkerProcess:
        self._output = []
        try:
            self._process = process = WorkerProcess()
            self._exchange(process, {**self._begin, "log": self._log}, _START_SECONDS)
        except (Lost, OSError) as error:
            self.close()
            msg = f"The process for the program did not start. {error}"
            raise UsageError(msg) from None
        return process

    def _leave(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    def _proceed(self, process: WorkerProcess, result: Labeled | ToolFailure | None) -> Step:
        request = {"do": "advance", "result": result_to_json(result)}
        reply = self._exchange(process, request, self._patience)
        try:
            step = step_from_json(reply["step"])
            self._log += [read_event(event) for event in reply["log"]]
            self._output += [str(text) for text in reply["output"]]
            self._names = reply.get("names", self._names)
        except (KeyError, TypeError, ValueError, AttributeError, SequrityError):
            raise Lost.for_nonsense() from None
        return step

    def _read_names(self) -> None:
        if self._process is None:
            return
        try:
            self._names = self._exchange(self._process, {"do": "names"}, self._patience)
        except Lost:
            self._leave()

    def _exchange(self, process: WorkerProcess, request: Message, seconds: float) -> Message:
        reply = process.exchange(request, seconds, self._answer if self._may_branch else None)
        if "raises" in reply:
            raise _RAISES.get(reply["raises"], UsageError)(str(reply.get("text")))
        return reply

    def _answer(self, question: Message) -> Message:
        labels = labels_from_json(question["ask"])
        return {"may": self._may_branch is None or bool(self._may_branch(labels))}
