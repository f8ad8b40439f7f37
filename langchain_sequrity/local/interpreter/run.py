"""One run of a program: up to a tool call, on with its result, up to the next call or the end.

`Run` is what callers use. `Job` is the work of the run's thread: it runs the program and answers
what the machine asks for. `Fiber` is a thread that can pause in the middle of a call; generators
could pause only in code that is itself a generator, not inside `sorted` or `map`.

The log is the only source of what comes from outside. A result is first written to the log and
then read from it, in a live run and in a replay, so that the two cannot differ. A run that was
parked, or that comes from another process, starts again and compares each call with the log.
"""

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.faults import (
    Abandoned,
    BranchForbidden,
    Diverged,
    Exit,
    HostError,
    NotJson,
    OutOfBudget,
    ProgramRefused,
    Raised,
    ReplayDiverged,
    ToolError,
)
from langchain_sequrity.local.interpreter.formatting import as_text
from langchain_sequrity.local.interpreter.json_boundary import (
    check_json,
    value_from_json,
    value_to_json,
)
from langchain_sequrity.local.interpreter.machine import (
    DEFAULT_LIMITS,
    Limits,
    Machine,
    MayBranch,
    WorkTime,
)
from langchain_sequrity.local.interpreter.program import (
    ANSWER,
    Program,
    bound_by,
    compile_module,
    may_decide_the_end,
    names_within,
    parse,
)
from langchain_sequrity.local.interpreter.values import (
    NO_LABELS,
    ErrorType,
    ErrorValue,
    Labeled,
    Mark,
    Value,
    as_mark,
    join,
    strip,
    take,
    type_name,
)

FailureKind = Literal["exception", "budget", "branch", "exit", "value"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The program waits for a tool.

    Attributes:
        tool: Its name.
        arguments: JSON values by name of parameter; defaults are not filled in.
        line: Line of the call.
    """

    tool: str
    arguments: dict[str, Labeled]
    line: int


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """A tool failed: the program sees a `ToolError` with this text, which it may catch."""

    message: str
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class ProgramFinished:
    """The program ended.

    Attributes:
        value: `final_return_value`, or else the value of an expression on the last line.
        value_type: Name of its type in the program.
        line: The last line that ran.
        exit_code: What `exit` was given; `None` also where it was not called.
    """

    value: Labeled
    value_type: str
    line: int
    exit_code: int | str | None = None


@dataclass(frozen=True, slots=True)
class ProgramFailed:
    """The program failed.

    Attributes:
        kind: An exception, an exhausted budget, a forbidden branch, `exit` with another code
            than 0, or a value that JSON does not have.
        type: Type of the exception, or of what comes nearest to one.
        message: Text. It may hold data that the program worked on; see `labels`.
        line: Line where it happened.
        labels: Labels of the text.
        value: `final_return_value` as it was when the program called `exit`.
    """

    kind: FailureKind
    type: str
    message: str
    line: int
    labels: Labels = NO_LABELS
    value: Labeled | None = None


@dataclass(frozen=True, slots=True)
class NextProgram:
    """The next of the programs that a run has one after the other.

    Attributes:
        source: Its text. It finds the variables of the programs before it as they left them.
    """

    source: str


Step = ToolCall | ProgramFinished | ProgramFailed
Answer = Labeled | ToolFailure | NextProgram


def waits(step: Step | None, *, has_steps: bool) -> bool:
    """Whether a run waits for something after that step."""
    return isinstance(step, ToolCall) or (has_steps and isinstance(step, ProgramFinished))


def check_turn(
    step: Step | None, answer: Answer | None, *, has_steps: bool, is_closed: bool
) -> None:
    """Check that a run may go on with this, after that step.

    Raises:
        UsageError: If it waits for one thing and gets another or none, or is over.
    """
    is_waiting = waits(step, has_steps=has_steps)
    if is_closed or not (step is None or is_waiting):
        msg = "This run is over. Make a new one, with this one's log to get to the same place."
    elif answer is not None and not is_waiting:
        msg = "This run does not wait for a result. Call `advance()` first."
    elif isinstance(step, ToolCall) and not isinstance(answer, Labeled | ToolFailure):
        msg = "This run waits for the result of a tool; give it to `advance`."
    elif isinstance(step, ProgramFinished) and not isinstance(answer, NextProgram):
        msg = "This run waits for its next program; give it to `advance`."
    else:
        return
    raise UsageError(msg)


ENGINE = 2
"""Version of what a log depends on: another engine does not replay it."""
_EVENT_SIZE = 400  # bytes of one that holds a usual number
_PLACE = 40  # bytes of a number in a list, with that list's reference to it
Event = dict[str, Any]
Pause = Callable[[Step], None]
_EVENTS = {
    "start": {"digest", "engine"},
    "result": {"call", "value", "labels"},
    "failure": {"call", "message", "labels"},
    "read": {"name", "value"},
    "program": {"source"},
}


def _size(value: Any) -> int:
    """Bytes of what was read, besides those of a usual number."""
    if isinstance(value, list):
        return _PLACE * len(value)
    return value.bit_length() >> 3 if isinstance(value, int) else 0


def read_event(event: Event) -> Event:
    """Check an event of a log that comes from outside.

    Raises:
        UsageError: If it is none.
    """
    copied = check_json(event)
    if not isinstance(copied, dict) or copied.get("event") not in _EVENTS:
        msg = "This is no log of a run: it has an event of an unknown kind."
        raise UsageError(msg)
    if missing := _EVENTS[copied["event"]] - copied.keys():
        msg = f"This is no log of a run: an event lacks `{min(missing)}`."
        raise UsageError(msg)
    if "labels" in copied:
        Labels.from_wire(copied["labels"])
    if type(copied.get("source", "")) is not str:
        msg = "This is no log of a run: an event has a program that is no text."
        raise UsageError(msg)
    return copied


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _wire(values: Mapping[str, Labeled]) -> dict[str, Any]:
    return {name: [one.value, one.labels.to_wire()] for name, one in values.items()}


def call_digest(call: ToolCall) -> str:
    """What stands for a call in the log."""
    return _digest([call.tool, _wire(call.arguments)])


def result_event(call: str, result: Labeled | ToolFailure) -> Event:
    """What a tool said, for the log.

    Args:
        call: `call_digest` of the call.
        result: What the tool said.

    Raises:
        UsageError: If it is not JSON data.
    """
    if isinstance(result, ToolFailure):
        event = {"event": "failure", "message": check_json(result.message)}
    else:
        event = {"event": "result", "value": check_json(result.value)}
    return {**event, "call": call, "labels": result.labels.to_wire()}


def program_event(program: NextProgram) -> Event:
    """The next program, for the log."""
    return {"event": "program", "source": program.source}


def answer_of(event: Event) -> Answer:
    """What came in, from the log."""
    return NextProgram(event["source"]) if event["event"] == "program" else result_of(event)


def result_of(event: Event) -> Labeled | ToolFailure:
    """What a tool said, from the log."""
    labels = Labels.from_wire(event["labels"])
    if event["event"] == "failure":
        return ToolFailure(event["message"], labels)
    return Labeled(event["value"], labels)


def _nobody(step: Step) -> NoReturn:
    msg = f"{step} came where no program runs"
    raise AssertionError(msg)


class Job:
    """What the thread of a run works on.

    Args:
        program: What to run.
        tools: JSON Schema of the parameters, by name of tool.
        variables: Variables that exist before the program.
        limits: What it may use up.
        may_branch: Whether a value with these labels may steer the program.
        is_strict: Whether what happens under a branch takes the labels of its condition.
        log: Events so far, which were read with `read_event`.
        has_steps: Whether other programs follow a program that ended well.
        asked: What the user said, where a model writes the programs.
    """

    def __init__(
        self,
        *,
        program: Program,
        tools: Mapping[str, Mapping[str, Any]],
        variables: Mapping[str, Labeled],
        limits: Limits,
        may_branch: MayBranch | None,
        is_strict: bool,
        log: list[Event],
        has_steps: bool = False,
        asked: str | None = None,
    ) -> None:
        """Do nothing yet."""
        self.program = program
        self.tools = tools
        self.variables = variables
        self.limits = limits
        self.may_branch = may_branch
        self.is_strict = is_strict
        self.log = log
        self.has_steps = has_steps
        self.asked = asked
        self.parsed: Program | None = None  # the last one that was read
        self.waiting = ""
        self.begin(_nobody)

    def begin(self, pause: Pause) -> None:
        """Put everything but the log back to the start."""
        self.pause = pause
        self.cursor = self.calls = 0
        self.within: frozenset[str] = frozenset()
        self.decides = False
        self.machine = Machine(
            limits=self.limits,
            tools=self.tools,
            call_tool=self.call_tool,
            event=self.read_clock,
            may_branch=self.ask if self.may_branch is not None else None,
            is_strict=self.is_strict,
        )

    # -- the log

    def answer(self, answer: Answer) -> None:
        """Write down what a tool said, or the next program.

        Raises:
            ProgramRefused: For a program that uses what the language has not; nothing has changed.
        """
        if isinstance(answer, NextProgram):
            self.read_program(answer.source)
            self.log.append(program_event(answer))
        else:
            self.log.append(result_event(self.waiting, answer))

    def read_program(self, source: str) -> Program:
        """Read a program that goes on with the variables there are; the last one is kept."""
        if self.parsed is None or self.parsed.source != source:
            known = [*self.machine.names]
            parsed = parse(source, self.limits, known=known)
            parsed.check_calls(self.tools, known, in_full=self.asked is not None)
            if self.asked is not None:
                parsed.check_readers(self.tools, known, self.asked)
            self.parsed = parsed
        return self.parsed

    def next_event(self, *kinds: str) -> Event:
        """The next event of the log, which must be of this kind."""
        event = self.log[self.cursor]
        if event["event"] not in kinds:
            self.diverge(f"asks for `{kinds[0]}` where it was `{event['event']}`")
        self.cursor += 1
        return event

    def diverge(self, what: str) -> NoReturn:
        """Say where the run leaves its log."""
        msg = f"The run {what} (event {self.cursor} of its log, line {self.machine.line})."
        raise Diverged(msg)

    # -- what the machine asks for

    def ask(self, labels: Labels) -> bool:
        """Ask the policy; that it fails is not for the program to catch."""
        try:
            return self.may_branch is None or self.may_branch(labels)
        except Exception as error:
            raise HostError(error) from error

    def read_clock(self, name: str, read: Callable[[], Any]) -> Any:
        """Read the clock or draw a number, unless the log has it."""
        if self.cursor == len(self.log):
            value = read()
            self.machine.charge(_EVENT_SIZE + _size(value))
            self.log.append({"event": "read", "name": name, "value": value})
        event = self.next_event("read")
        if event["name"] != name:
            self.diverge(f"asks for `{name}` where it asked for `{event['name']}`")
        return event["value"]

    def call_tool(self, tool: str, bound: dict[str, Value], line: int) -> Value:
        """Call a tool, unless the log has its result."""
        machine = self.machine
        self.calls += 1
        if self.calls > self.limits.calls:
            machine.exhaust("calls", self.limits.calls)
        arguments = {name: value_to_json(machine, value) for name, value in bound.items()}
        call = ToolCall(tool, arguments, line)
        self.waiting = call_digest(call)
        if self.cursor == len(self.log):
            self.pause(call)
        # A collection of garbage that fell into one stretch takes nothing of the next one's time.
        machine.restart_clock()
        event = self.next_event("result", "failure")
        if event["call"] != self.waiting:
            self.diverge(f"calls `{tool}` otherwise than before")
        result = result_of(event)
        if isinstance(result, ToolFailure):
            kind = ErrorType("ToolError", ToolError)
            raise Raised(ErrorValue(kind, (result.message,), as_mark(result.labels)))
        return value_from_json(machine, result)

    # -- the run

    def run(self, pause: Pause) -> ProgramFinished | ProgramFailed:
        """Run from the start; this is what the thread does."""
        self.begin(pause)
        try:
            return self.outcome()
        except (NotJson, OutOfBudget, BranchForbidden) as stop:
            return self.failed(stop.kind, stop.type_name, str(stop), stop.labels)
        except RecursionError:
            text = "The program nests calls or values too deeply."
            return self.failed("budget", OutOfBudget.type_name, text)
        except MemoryError:
            text = str(OutOfBudget.of("memory", self.limits.memory))
            return self.failed("budget", OutOfBudget.type_name, text)

    def outcome(self) -> ProgramFinished | ProgramFailed:
        """Run, and describe an exception; to write that one down can reach a limit too."""
        try:
            return self.result()
        except Raised as raised:
            return self.exception(raised.error)
        except (RecursionError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - what an operation raised is the program's
            return self.exception(self.machine.from_python(error, self.machine.branch))

    def result(self) -> ProgramFinished | ProgramFailed:
        """Run, and end as the last program did."""
        self.start()
        end = self.one(self.program)
        while self.has_steps and isinstance(end, ProgramFinished):
            end = self.one(self.next_program(end))
        if self.cursor != len(self.log):
            self.diverge("ended before its log did")
        return end

    def next_program(self, end: ProgramFinished) -> Program:
        """Wait for the next program, unless the log has it, and make ready for it."""
        machine = self.machine
        if self.cursor == len(self.log):
            self.pause(end)
        source = self.next_event("program")["source"]
        try:
            program = self.read_program(source)
        except ProgramRefused:
            self.diverge("has a program that is refused")
        self.calls = 0
        machine.begin_program(self.branch_after())
        self.check_names(program)
        return program

    def branch_after(self) -> Mark:
        """Labels of what decided that there is a next program, and what it starts from.

        In strict mode a branch may have ended a program early, by `exit`, or the whole turn, by an
        answer; that it did not says as much. Where no program could, its branches are closed.
        """
        machine = self.machine
        if not machine.is_strict:
            return None
        return machine.steered if self.decides else machine.branch

    def check_names(self, program: Program) -> None:
        """Refuse a variable with the name of a built-in or tool that earlier functions mean.

        They were compiled for that meaning, and would miss labels with another.
        """
        machine = self.machine
        meant = (BUILTINS.keys() | machine.tools.keys()) & self.within
        changed = sorted((bound_by(program.tree) & meant) - machine.names.keys())
        if changed:
            message = f"An earlier step uses `{changed[0]}` as it is. Choose another name."
            machine.fail(NameError, message)

    def one(self, program: Program) -> ProgramFinished | ProgramFailed:
        """Run one program, and end as it did."""
        machine = self.machine
        if self.has_steps:
            self.within |= names_within(program.tree)
            self.decides = self.decides or (machine.is_strict and may_decide_the_end(program.tree))
        body = compile_module(machine, program.tree, is_open=self.has_steps)
        code, mark, value = None, None, None
        try:
            value = body()
        except Exit as ended:
            code, mark = ended.code, ended.labels
        if self.cursor != len(self.log) and not self.has_steps:
            self.diverge("ended before its log did")
        # What the last line of a step gives is no answer: it may be the call of a tool.
        value = machine.names.get(ANSWER, None if self.has_steps else value)
        if self.has_steps and strip(value) is None:
            mark = None  # of an early end, which chose no answer
        if code is None or (isinstance(code, int | str) and not code):
            return self.finished(value, code, mark)
        text = code if isinstance(code, str) else f"exit({as_text(machine, code)})"
        kept = value_to_json(machine, value) if ANSWER in machine.names else None
        return self.failed("exit", "SystemExit", text, mark or NO_LABELS, kept)

    def start(self) -> None:
        """Write down, or compare, what the run starts from; then bind the variables."""
        digest = _digest([self.program.digest, _wire(self.variables), self.is_strict])
        if not self.log:
            self.log.append({"event": "start", "engine": ENGINE, "digest": digest})
        event = self.next_event("start")
        if event["engine"] != ENGINE or event["digest"] != digest:
            self.diverge("is of another program, other variables or another engine")
        for name, given in self.variables.items():
            self.machine.names[name] = value_from_json(self.machine, given)

    def finished(self, value: Value, code: Any, mark: Mark) -> ProgramFinished:
        """The normal end."""
        machine = self.machine
        out = value_to_json(machine, value)
        labels = join(as_mark(out.labels), mark) or NO_LABELS
        named = Labeled(out.value, labels)
        return ProgramFinished(named, type_name(strip(value)), machine.line, code)

    def failed(
        self,
        kind: FailureKind,
        type_name: str,
        message: str,
        labels: Labels = NO_LABELS,
        value: Labeled | None = None,
    ) -> ProgramFailed:
        """The other end, at this line."""
        return ProgramFailed(kind, type_name, message, self.machine.line, labels, value)

    def exception(self, error: ErrorValue) -> ProgramFailed:
        """An exception that nobody caught."""
        bare, mark = self.machine.bare(error)
        text = as_text(self.machine, bare)
        return self.failed("exception", error.type.name, text, mark or NO_LABELS)


class Fiber:
    """Runs `body` up to each of its pauses.

    The thread knows this object, which must therefore not know whoever owns it: else an owner that
    everyone forgot would live on for its waiting thread.

    Args:
        body: Is given `pause`, which hands out a value and returns once it shall go on.
    """

    def __init__(self, body: Callable[[Callable[[Any], None]], Any]) -> None:
        """Do nothing yet."""
        self._body = body
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="interpreter", daemon=True)
        self._is_closed = False
        self.is_done = False

    def resume(self) -> Any:
        """Go on until the next pause or the end.

        Returns:
            What `pause` was given, or what the function returned; then `is_done` is set.

        Raises:
            BaseException: Whatever the function raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value

    def close(self) -> None:
        """End the thread where it waits; nobody has to wait for that."""
        if self._is_closed:
            return
        self._is_closed = True
        self._go.release()

    def join(self, timeout: float) -> bool:
        """Wait for the thread of a closed fiber; whether it ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_closed:
                self._value = self._body(self._pause)
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where `resume` waits
            self._error = error
        self.is_done = True
        self._back.release()

    def _pause(self, value: Any) -> None:
        self._value = value
        self._back.release()
        self._go.acquire()
        if self._is_closed:
            raise Abandoned


class Run:
    """One run of a program. It is for one thread at a time.

    Args:
        program: What `parse` returned.
        tools: JSON Schema of the parameters, by name of tool.
        variables: Variables that exist before the program.
        limits: What it may use up.
        may_branch: Whether a value with these labels may steer the program; `None` for every one.
            It is called in the thread of the run.
        is_strict: Whether what happens under a branch takes the labels of its condition.
        log: `Run.log` of an earlier run of the same program with the same variables.
        has_steps: Whether a program that ended well is followed by another one in the same
            namespace: `advance` then takes that, and the log has it too. In each of them only
            `final_return_value` is an answer.
        asked: What the user said, where a model wrote the program for it: calls that do not fit
            their tools, a program that can have no answer, and readings of no data are then refused
            before anything is done.

    Raises:
        ProgramRefused: If it gives a tool positional arguments, or is not what a planner is to
            write.
        UsageError: For variables or a log that are no JSON data.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import Finished, Labeled, Run, ToolCall, parse

        run = Run(parse("f'{add(a=1)}!'"), tools={"add": {"properties": {"a": {}}}})
        call = run.advance()
        assert isinstance(call, ToolCall) and call.arguments["a"].value == 1
        end = run.advance(Labeled(2))
        assert isinstance(end, Finished) and end.value.value == "2!"
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
        log: Sequence[Event] = (),
        has_steps: bool = False,
        asked: str | None = None,
    ) -> None:
        """Do nothing yet."""
        given = {
            name: Labeled(check_json(one.value), one.labels)
            for name, one in (variables or {}).items()
        }
        program.check_calls(tools or {}, given, in_full=asked is not None)
        if asked is not None:
            program.check_readers(tools or {}, given, asked)
            if not has_steps:
                program.check_answer()
        self._job = Job(
            program=program,
            tools=tools or {},
            variables=given,
            limits=limits,
            may_branch=may_branch,
            is_strict=is_strict,
            log=[read_event(event) for event in log],
            has_steps=has_steps,
            asked=asked,
        )
        self._has_steps = has_steps
        self._fiber: Fiber | None = None
        self._close: Callable[[], Any] = _nothing
        self._step: Step | None = None
        self._is_closed = False

    @property
    def log(self) -> tuple[Event, ...]:
        """What came from outside so far, as JSON data: enough to run again up to here."""
        return tuple(self._job.log)

    def advance(self, answer: Answer | None = None) -> Step:
        """Run up to the next tool call or the end.

        Args:
            answer: Result of the call that the run waits for, or the next program; nothing at the
                start.

        Returns:
            The next call, or how the program ended.

        Raises:
            UsageError: If the run waits for one thing and gets another or none.
            ProgramRefused: If the next program uses what the language has not. The run waits on.
            ReplayDiverged: If the program does something else than its log says. The run is over.
        """
        check_turn(self._step, answer, has_steps=self._has_steps, is_closed=self._is_closed)
        work = WorkTime()
        if answer is not None:
            self._job.answer(answer)
        if self._fiber is None:
            self._fiber = Fiber(self._job.run)
            self._close = weakref.finalize(self, self._fiber.close)
        with self._closed_on_failure():
            self._step = self._fiber.resume()
        self._job.machine.take_time(work.spent())  # its own clock does not see this thread
        if not waits(self._step, has_steps=self._has_steps):
            self._leave()
        return self._step

    def finish(self, answer: Callable[[Step], Answer]) -> ProgramFinished | ProgramFailed:
        """Run to the end in this thread, instead of from call to call with `advance`.

        Args:
            answer: Gives the result of a call, or the next program. Meanwhile, log and names can
                be read.

        Returns:
            How the program ended.

        Raises:
            ReplayDiverged: If the program does something else than its log says.
        """

        def pause(step: Step) -> None:
            self._job.answer(answer(step))

        with self._closed_on_failure():
            self._step = end = self._job.run(pause)
        self.close()
        return end

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except Diverged as diverged:
            self.close()
            raise ReplayDiverged(str(diverged)) from None
        except HostError as error:
            self.close()
            raise error.error from None
        except BaseException:
            self._job.machine.stop()  # the thread may still be running, after Ctrl-C for one
            self.close()
            raise

    def park(self) -> None:
        """Give up the thread; the next `advance` replays the log."""
        self._leave()

    def close(self) -> None:
        """End the run. Its log and names can still be read."""
        self._is_closed = True
        self._leave()

    def _leave(self) -> None:
        self._close()
        self._fiber, self._close = None, _nothing

    def read(self, source: str) -> None:
        """Check a next program; raises `ProgramRefused` as `advance` does."""
        self._job.read_program(source)

    def kinds(self) -> dict[str, str]:
        """Names of the types that the variables have now in the program."""
        return {name: type_name(strip(value)) for name, value in self._names_now().items()}

    def _names_now(self) -> dict[str, Value]:
        # A copy: the thread of a run that was just parked may still be putting variables away.
        return dict(self._job.machine.names)

    def names(self) -> dict[str, Labeled]:
        """The variables now; what has no JSON form is shown as `{"type": …}`."""
        return self.namespace()[0]

    def variables(self) -> dict[str, Labeled]:
        """The variables now that have a JSON form: what a later program can start from."""
        return self.namespace()[1]

    def namespace(self) -> tuple[dict[str, Labeled], dict[str, Labeled]]:
        """`names` and `variables` at once."""
        machine = Machine.idle(self._job.limits)
        names = self._names_now()
        forms = {name: _json_form(machine, value) for name, value in names.items()}
        shown = {name: _shown(names[name], form) for name, form in forms.items()}
        return shown, {name: form for name, form in forms.items() if isinstance(form, Labeled)}


def _nothing() -> None:
    """There is no thread to end."""


def _shown(value: Value, form: Labeled | Labels) -> Labeled:
    if isinstance(form, Labeled):
        return form
    return Labeled({"type": type_name(strip(value))}, form)


def _json_form(machine: Machine, value: Value) -> Labeled | Labels:
    """The JSON form, or the labels of the fact that there is none."""
    try:
        return value_to_json(machine, value)
    except NotJson as error:
        return error.labels
    except (OutOfBudget, RecursionError):
        return take(value)[1] or NO_LABELS
