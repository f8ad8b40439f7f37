"""The work of a run: the program, its log, and what the machine asks for.

The log is the one source of what comes from outside. A result is first written to the log and then
read from it, in a live run as in a replayed one, so that the two cannot differ.

What a run gives out at each step, and what it takes: plain data.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.faults import (
    BranchForbidden,
    Diverged,
    Exit,
    HostError,
    NoForm,
    OutOfBudget,
    ProgramRefused,
    Raised,
    ToolError,
)
from langchain_sequrity.local.interpreter.formatting import as_text
from langchain_sequrity.local.interpreter.json_boundary import check_json, come_in, go_out
from langchain_sequrity.local.interpreter.limits import Limits
from langchain_sequrity.local.interpreter.machine import Machine, MayBranch
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
class Finished:
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
class Failed:
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


Step = ToolCall | Finished | Failed
Answer = Labeled | ToolFailure | NextProgram


def waits(step: Step | None, *, has_steps: bool) -> bool:
    """Whether a run waits for something after that step."""
    return isinstance(step, ToolCall) or (has_steps and isinstance(step, Finished))


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
    elif isinstance(step, Finished) and not isinstance(answer, NextProgram):
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
        arguments = {name: go_out(machine, value) for name, value in bound.items()}
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
        return come_in(machine, result)

    # -- the run

    def run(self, pause: Pause) -> Finished | Failed:
        """Run from the start; this is what the thread does."""
        self.begin(pause)
        try:
            return self.outcome()
        except (NoForm, OutOfBudget, BranchForbidden) as stop:
            return self.failed(stop.kind, stop.type_name, str(stop), stop.labels)
        except RecursionError:
            text = "The program nests calls or values too deeply."
            return self.failed("budget", OutOfBudget.type_name, text)
        except MemoryError:
            text = str(OutOfBudget.of("memory", self.limits.memory))
            return self.failed("budget", OutOfBudget.type_name, text)

    def outcome(self) -> Finished | Failed:
        """Run, and describe an exception; to write that one down can reach a limit too."""
        try:
            return self.result()
        except Raised as raised:
            return self.exception(raised.error)
        except (RecursionError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - what an operation raised is the program's
            return self.exception(self.machine.from_python(error, self.machine.branch))

    def result(self) -> Finished | Failed:
        """Run, and end as the last program did."""
        self.start()
        end = self.one(self.program)
        while self.has_steps and isinstance(end, Finished):
            end = self.one(self.next_program(end))
        if self.cursor != len(self.log):
            self.diverge("ended before its log did")
        return end

    def next_program(self, end: Finished) -> Program:
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

    def one(self, program: Program) -> Finished | Failed:
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
        kept = go_out(machine, value) if ANSWER in machine.names else None
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
            self.machine.names[name] = come_in(self.machine, given)

    def finished(self, value: Value, code: Any, mark: Mark) -> Finished:
        """The normal end."""
        machine = self.machine
        out = go_out(machine, value)
        labels = join(as_mark(out.labels), mark) or NO_LABELS
        named = Labeled(out.value, labels)
        return Finished(named, type_name(strip(value)), machine.line, code)

    def failed(
        self,
        kind: FailureKind,
        type_name: str,
        message: str,
        labels: Labels = NO_LABELS,
        value: Labeled | None = None,
    ) -> Failed:
        """The other end, at this line."""
        return Failed(kind, type_name, message, self.machine.line, labels, value)

    def exception(self, error: ErrorValue) -> Failed:
        """An exception that nobody caught."""
        bare, mark = self.machine.bare(error)
        text = as_text(self.machine, bare)
        return self.failed("exception", error.type.name, text, mark or NO_LABELS)
