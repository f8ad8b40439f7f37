"""One run of a program: up to a tool call, on with its result, up to the next call or the end.

`Run` is what callers use. `Job` is the work of the run's thread: it runs the program and answers
what the machine asks for. `Fiber` is a thread that can pause in the middle of a call; generators
could pause only in code that is itself a generator, not inside `sorted` or `map`.

The log is the only source of what comes from outside. A result is first written to the log and
then read from it, in a live run and in a replay, so that the two cannot differ. A run that gets the
log of another run starts again and compares each call with the log.
"""

import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from queue import SimpleQueue
from typing import Any, Literal, NoReturn, TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import (
    KINDS,
    NO_LABELS,
    FieldLabels,
    Labeled,
    Labels,
    read_fields,
    write_fields,
)
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.faults import (
    Abandoned,
    BranchForbidden,
    Exit,
    HostError,
    NoJsonForm,
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
)
from langchain_sequrity.local.interpreter.plan_check import check_plan
from langchain_sequrity.local.interpreter.program import (
    ANSWER,
    Program,
    bound_by,
    compile_module,
    deferred_names,
    may_end_turn,
    may_exit,
    parse,
)
from langchain_sequrity.local.interpreter.syntax import argument_at, variable_at
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    ErrorValue,
    Value,
    as_mark,
    join_labels,
    split_labels,
    type_name,
    unbox,
)
from langchain_sequrity.local.threads import ReusedThreads
from langchain_sequrity.strict_json import digest_of

FailureKind = Literal["exception", "budget", "branch", "exit", "value"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The program waits for a tool.

    Attributes:
        tool: Its name.
        arguments: JSON values by parameter name, without defaults.
        line: Line of the call.
    """

    tool: str
    arguments: dict[str, Labeled]
    line: int


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """A tool failed. The program gets a `ToolError` with this text, which it may catch."""

    message: str
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class ProgramFinished:
    """The program ended.

    Attributes:
        value: `final_return_value`, or else the value of an expression on the last line.
        value_type: Name of its type in the program.
        line: The last line that ran.
    """

    value: Labeled
    value_type: str
    line: int


@dataclass(frozen=True, slots=True)
class ProgramRaised:
    """The program failed.

    Attributes:
        kind: An exception, an exceeded limit, a forbidden branch, `exit` with a code other than 0,
            or a value without a JSON form.
        type: Type of the exception, or the most similar one.
        message: Text. It may contain data of the program; see `labels`.
        line: Line where it happened.
        labels: Labels of the text.
        by_interpreter: Whether the interpreter wrote the text, about an operation in this line; not
            the program, nor a tool.
    """

    kind: FailureKind
    type: str
    message: str
    line: int
    labels: Labels = NO_LABELS
    by_interpreter: bool = False


@dataclass(frozen=True, slots=True)
class NextProgram:
    """The next program of a run with several programs.

    Attributes:
        source: Its text. It continues with the variables of the programs before it.
    """

    source: str


Step = ToolCall | ProgramFinished | ProgramRaised
Answer = Labeled | ToolFailure | NextProgram


def waits_for_answer(step: Step | None, *, has_steps: bool) -> bool:
    """Whether a run waits for an answer after this step."""
    return isinstance(step, ToolCall) or (has_steps and isinstance(step, ProgramFinished))


def check_may_advance(
    step: Step | None, answer: Answer | None, *, has_steps: bool, is_closed: bool
) -> None:
    """Check that a run may continue with this answer after this step.

    Raises:
        UsageError: If the answer is missing or of the wrong kind, or the run is over.
    """
    if is_closed or not (step is None or waits_for_answer(step, has_steps=has_steps)):
        msg = "This run is over. Make a new `Run`; with the log of this one it repeats its steps."
        raise UsageError(msg)
    expected, msg = _EXPECTED_ANSWERS[type(step)]
    if not isinstance(answer, expected):
        raise UsageError(msg)


_EXPECTED_ANSWERS: dict[type, tuple[Any, str]] = {
    type(None): (type(None), "This run does not wait for an answer. Call `advance()` first."),
    ToolCall: (Labeled | ToolFailure, "This run waits for the result of a tool."),
    ProgramFinished: (NextProgram, "This run waits for its next program."),
}


ENGINE = 4
"""Version of the engine in logs: a log of another version is not replayed."""
_NO_NAMES = Labels(consumers=frozenset())
_EVENT_SIZE = 260  # bytes of an event without its value
_LIST_FACTOR = 5  # a list of numbers takes 5 times as much as the list itself
LogEvent = dict[str, Any]
Pause = Callable[[Step], None]
_EVENT_FIELDS = {
    "start": {"digest", "engine"},
    "result": {"call", "value"},
    "failure": {"call", "message"},
    "read": {"name", "value"},
    "program": {"source"},
}


def checked_event(event: LogEvent) -> LogEvent:
    """Check an event of a log from outside.

    Raises:
        UsageError: If it is not a valid event.
    """
    checked: LogEvent = check_json(event)
    fields = _EVENT_FIELDS.get(str(checked.get("event"))) if isinstance(checked, dict) else None
    if fields is None or fields - checked.keys() or not isinstance(checked.get("source", ""), str):
        msg = "This is not a log of a run: an event is incomplete or of an unknown kind."
        raise UsageError(msg)
    for name in checked.keys() & {"added", "removed"}:
        Labels.from_wire(checked[name], absent=_NO_NAMES)
    if "fields" in checked:
        read_fields(checked["fields"])
    return checked


def labeled_to_json(labeled: Labeled) -> list[Any]:
    """Write a value with its labels."""
    return [labeled.value, labeled.labels.to_wire()]


def named_to_json(values: Mapping[str, Labeled]) -> dict[str, Any]:
    """Write values by name. The digests in logs depend on this form."""
    return {name: labeled_to_json(labeled) for name, labeled in values.items()}


def call_digest(call: ToolCall) -> str:
    """The digest that identifies a call in the log."""
    return digest_of([call.tool, named_to_json(call.arguments)])


def call_labels(call: ToolCall) -> Labels:
    """The join of the labels of a call's arguments."""
    return reduce(Labels.join, (a.labels for a in call.arguments.values()), NO_LABELS)


def answer_event(answer: Answer, call: Step | None, digest: str) -> LogEvent:
    """The log event of a tool's result, or of the next program.

    A result usually has the labels of the call and a few more. The event holds only the names that
    are added to these, and those that are removed: a log of a chain of calls, in which labels
    accumulate, would otherwise grow with the square of its length.

    Args:
        answer: The result, or the program.
        call: The call; without meaning for a program.
        digest: Its `call_digest`.

    Raises:
        UsageError: If the result is not JSON data.
    """
    if isinstance(answer, NextProgram):
        return {"event": "program", "source": answer.source}
    if isinstance(answer, ToolFailure):
        event = {"event": "failure", "message": check_json(answer.message)}
    else:
        event = {"event": "result", "value": check_json(answer.value)}
    assert isinstance(call, ToolCall)  # noqa: S101 - only a call has a result
    event["call"] = digest
    before, after = call_labels(call), answer.labels
    for name, more, less in (("added", after, before), ("removed", before, after)):
        changes = {kind: getattr(more, kind) - getattr(less, kind) for kind in KINDS}
        if any(changes.values()):
            event[name] = {kind: sorted(names) for kind, names in changes.items() if names}
    if type(after) is FieldLabels:
        event["fields"] = write_fields(after)
    return event


def answer_from_event(event: LogEvent, call: Step | None) -> Answer:
    """The answer in an event, to this call."""
    if event["event"] == "program":
        return NextProgram(event["source"])
    assert isinstance(call, ToolCall)  # noqa: S101 - only a call has a result
    labels = call_labels(call)
    if event.keys() & {"added", "removed"}:
        added, removed = (
            Labels.from_wire(event.get(name, {}), absent=_NO_NAMES) for name in ("added", "removed")
        )
        names = ((getattr(labels, k) - getattr(removed, k)) | getattr(added, k) for k in KINDS)
        labels = Labels(*names)
    if event["event"] == "failure":
        return ToolFailure(event["message"], labels)
    if "fields" in event:
        labels = read_fields(event["fields"])
    return Labeled(event["value"], labels)


@contextmanager
def naming(subject: Callable[[], str]) -> Iterator[None]:
    """Name what exceeds a limit, in the error."""
    try:
        yield
    except OutOfBudget as error:
        raise error.about(subject()) from None


@dataclass(eq=False, kw_only=True)
class Job:
    """The work of a run's thread. It does not refer to the `Run`, so that a forgotten run ends.

    Args:
        program: The program.
        tools: JSON Schema of the parameters, by tool name.
        variables: Variables that exist before the program.
        limits: Limits of the run.
        may_branch: Whether a value with these labels may decide control flow.
        is_strict: Whether everything under a branch takes the labels of its condition.
        log: Events so far, checked by `checked_event`.
        has_steps: Whether other programs follow a program that succeeded.
        user_request: The request of the user, if a model writes the programs.
        result_schemas: JSON Schemas of the tools' results, by tool name, where they are known.
    """

    program: Program
    tools: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Labeled]
    limits: Limits
    may_branch: MayBranch | None
    is_strict: bool
    log: list[LogEvent]
    has_steps: bool = False
    user_request: str | None = None
    result_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the run."""
        self.current = self.program  # the one that runs
        self.parsed_next: Program | None = None  # the last next program that was parsed
        # Names of the programs before the next one, whether their lines ran or not.
        self.bound_names: frozenset[str] = frozenset()
        self.pending_call: ToolCall | None = None  # the last call, and its digest
        self.pending_digest = ""
        self.cursor = self.call_count = 0
        self.deferred_names: frozenset[str] = frozenset()  # those in functions of all programs
        self.may_end_turn = False  # whether a program so far may
        self.machine = Machine(
            limits=self.limits,
            tools=self.tools,
            call_tool=self.call_tool,
            read_external=self.read_external,
            may_branch=self.may_branch_on if self.may_branch is not None else None,
            is_strict=self.is_strict,
        )

    # -- the log

    def log_answer(self, answer: Answer) -> None:
        """Append a tool's result or the next program to the log.

        Raises:
            ProgramRefused: If the program is not supported; nothing has changed then.
        """
        if isinstance(answer, NextProgram):
            self.read_next_program(answer.source)
        self.log.append(answer_event(answer, self.pending_call, self.pending_digest))

    def read_next_program(self, source: str) -> Program:
        """Parse and check the next program, which continues with the current variables."""
        if self.parsed_next is None or self.parsed_next.source != source:
            variable_names = [*self.machine.names]

            def read(text: str) -> Program:
                return self.checked(
                    parse(text, self.limits, variables=variable_names), variable_names
                )

            self.parsed_next = _read_with_corrections(read, source)
        return self.parsed_next

    def checked(self, program: Program, variable_names: Collection[str]) -> Program:
        """Refuse what does not fit the tools; `variable_names` exist before the program."""
        if self.user_request is None:
            program.check_calls(self.tools, variable_names)
        else:
            known_names = self.bound_names.union(variable_names)
            schemas = (self.tools, self.result_schemas)
            check_plan(program.source, program.tree, *schemas, known_names, self.user_request)
            program.check_readers(self.tools, self.user_request)
        return program

    def next_event(self, *kinds: str) -> LogEvent:
        """The next event of the log, which must be of one of these kinds."""
        event = self.log[self.cursor]
        if event["event"] not in kinds:
            self.diverge(f"needs an event `{kinds[0]}`, but its log has `{event['event']}`")
        self.cursor += 1
        return event

    def diverge(self, difference: str) -> NoReturn:
        """Report where the run differs from its log."""
        msg = f"The run {difference} (event {self.cursor} of its log, line {self.machine.line})."
        raise HostError(ReplayDiverged(msg))

    # -- what the machine asks for

    def may_branch_on(self, labels: Labels) -> bool:
        """Ask the policy. The program cannot catch an error of the policy itself."""
        try:
            return self.may_branch is None or self.may_branch(labels)
        except Exception as error:
            raise HostError(error) from error

    def read_external(self, name: str, read: Callable[[], Any]) -> Any:
        """Read the clock or draw a random value, or take it from the log."""
        if self.cursor == len(self.log):
            value = read()
            self.machine.pay_memory(_EVENT_SIZE + _LIST_FACTOR * sys.getsizeof(value))
            self.log.append({"event": "read", "name": name, "value": value})
        event = self.next_event("read")
        if event["name"] != name:
            self.diverge(f"reads `{name}`, but its log has `{event['name']}`")
        return event["value"]

    def call_tool(self, tool: str, values: dict[str, Value], line: int) -> Value:
        """Call a tool, or take its result from the log."""
        machine = self.machine
        self.call_count += 1
        if self.call_count > self.limits.calls:
            machine.exhaust("calls", self.limits.calls)
        arguments = {}
        for name, value in values.items():
            with naming(partial(self.argument_in_words, tool, name)):
                arguments[name] = value_to_json(machine, value)
        call = self.pending_call = ToolCall(tool, arguments, line)
        self.pending_digest = call_digest(call)
        if self.cursor == len(self.log):
            self.pause(call)
        machine.restart_clock()
        event = self.next_event("result", "failure")
        if event["call"] != self.pending_digest:
            self.diverge(f"calls `{tool}` with other arguments than before")
        result: Any = answer_from_event(event, call)
        if isinstance(result, ToolFailure):
            error_type = ErrorType("ToolError", ToolError)
            raise Raised(ErrorValue(error_type, (result.message,), as_mark(result.labels)))
        with naming(lambda: f"the result of `{tool}`"):
            return value_from_json(machine, result)

    def argument_in_words(self, tool: str, argument: str) -> str:
        """The argument of the current call, for an error."""
        return argument_at(self.current.tree, self.machine.line, tool, argument)

    def variable_in_words(self) -> str:
        """The variable that the current line assigns to, for an error; empty if none is certain."""
        # A function of an earlier step has lines of another program.
        name = "" if self.has_steps else variable_at(self.current.tree, self.machine.line)
        return name and f"the value of the variable `{name}`"

    # -- the run

    def run(self, pause: Pause) -> ProgramFinished | ProgramRaised:
        """Run from the start to the end, once, in the thread of the run."""
        self.pause = pause
        self.machine.begin_program(None)  # its clock counts this thread
        try:
            try:
                return self.run_programs()
            except Exception as error:  # noqa: BLE001 - what an operation raised is the program's
                error_value = self.machine.as_error_value(error)
                bare, mark = self.machine.strip_labels(error_value)
                text = as_text(self.machine, bare)  # which can reach a limit too
                failure = self.failure("exception", error_value.type.name, text, mark or NO_LABELS)
                return replace(failure, by_interpreter=error_value.by_interpreter)
        except OutOfBudget as error:
            message = str(error.about(self.variable_in_words()))
            return self.failure(error.kind, error.type_name, message)
        except (NoJsonForm, BranchForbidden) as abort:
            return self.failure(abort.kind, abort.type_name, str(abort), abort.labels)
        except (RecursionError, MemoryError) as error:
            out_of_budget = self.machine.as_out_of_budget(error)
            return self.failure(out_of_budget.kind, out_of_budget.type_name, str(out_of_budget))

    def run_programs(self) -> ProgramFinished | ProgramRaised:
        """Run all programs; return the end of the last one."""
        self.start()
        self.bound_names = self.program.bound
        end = self.run_program(self.program)
        while self.has_steps and isinstance(end, ProgramFinished):
            end = self.run_program(self.next_program(end))
        if self.cursor != len(self.log):
            self.diverge("ended before its log did")
        return end

    def next_program(self, end: ProgramFinished) -> Program:
        """Wait for the next program, or take it from the log, and prepare the machine."""
        machine = self.machine
        if self.cursor == len(self.log):
            self.pause(end)
        source = self.next_event("program")["source"]
        try:
            program = self.read_next_program(source)
        except ProgramRefused:
            self.diverge("has a log with an unsupported program")
        self.call_count = 0
        self.bound_names |= program.bound
        # In strict mode a branch can end a program with `exit`, or the turn with an answer. The
        # next program runs only if no branch did, so it depends on the conditions of all branches.
        # If no program can end like this, it depends only on the branches that are still open.
        branch = machine.control_labels if self.may_end_turn else machine.branch
        machine.begin_program(branch if machine.is_strict else None)
        self.check_names(program)
        return program

    def check_names(self, program: Program) -> None:
        """Refuse to bind the name of a built-in or tool that an earlier function uses.

        What the function may change was found for the built-in: another value could lose labels.
        """
        machine = self.machine
        used = (BUILTINS.keys() | machine.tools.keys()) & self.deferred_names
        rebound = sorted((bound_by(program.tree) & used) - machine.names.keys())
        if rebound:
            message = (
                f"An earlier step uses the built-in or tool `{rebound[0]}`. Choose another name."
            )
            machine.fail(NameError, message)

    def run_program(self, program: Program) -> ProgramFinished | ProgramRaised:
        """Run one program."""
        machine, self.current = self.machine, program
        if self.has_steps:
            self.deferred_names |= deferred_names(program.tree)
            self.may_end_turn |= machine.is_strict and may_end_turn(program.tree)
        machine.may_exit = machine.may_exit or (machine.is_strict and may_exit(program.tree))
        run_body = compile_module(machine, program.tree)
        code, mark, value = None, None, None
        try:
            value = run_body()
        except Exit as exit_call:
            code, mark = exit_call.code, exit_call.labels
        # The value of a step's last line is not an answer: it may be a tool call.
        value = machine.names.get(ANSWER, None if self.has_steps else value)
        if code is None or (isinstance(code, int | str) and not code):
            with naming(lambda: "the final value"):
                json_value = value_to_json(machine, value)
            # An early end of a step without an answer reveals nothing in the result.
            end_mark = None if self.has_steps and unbox(value) is None else mark
            labels = join_labels(as_mark(json_value.labels), end_mark) or NO_LABELS
            answer = Labeled(json_value.value, labels)
            return ProgramFinished(answer, type_name(unbox(value)), machine.line)
        text = code if isinstance(code, str) else f"exit({as_text(machine, code)})"
        return self.failure("exit", "SystemExit", text, mark or NO_LABELS)

    def start(self) -> None:
        """Log or compare the initial state of the run; then bind the variables."""
        digest = digest_of([self.program.digest, named_to_json(self.variables), self.is_strict])
        if not self.log:
            self.log.append({"event": "start", "engine": ENGINE, "digest": digest})
        event = self.next_event("start")
        if event["engine"] != ENGINE or event["digest"] != digest:
            self.diverge("has another program, other variables or another engine than its log")
        for name, labeled in self.variables.items():
            with naming(partial("the variable `{}` of the request".format, name)):
                self.machine.names[name] = value_from_json(self.machine, labeled)

    def failure(
        self, kind: FailureKind, type_name: str, message: str, labels: Labels = NO_LABELS
    ) -> ProgramRaised:
        """The end of a program that failed, at the current line."""
        return ProgramRaised(kind, type_name, message, self.machine.line, labels)


_threads = ReusedThreads("interpreter", most_idle=16)


class Fiber:
    """Runs `body` in a thread, up to each of its pauses. Only one of the two sides runs at a time.

    The thread refers to this object, so this object must not refer to its owner: otherwise a
    waiting thread would keep a forgotten owner alive.

    Args:
        body: Gets a function `pause`, which hands out a value and returns on the next `resume`.
    """

    def __init__(self, body: Callable[[Callable[[Any], None]], Any]) -> None:
        self._body = body
        self._commands: SimpleQueue[bool] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = _threads.start(self._run)

    def resume(self) -> Any:
        """Continue until the next pause or the end.

        Returns:
            The argument of `pause`, or the result of `body`.

        Raises:
            BaseException: The exception that `body` raised.
        """
        self._commands.put(True)  # noqa: FBT003 - the message
        value, error = self._outcomes.get()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread at its pause, without waiting for it."""
        self._commands.put(False)  # noqa: FBT003 - the message

    def _run(self) -> None:
        try:
            self._wait_for_command()
            self._outcomes.put((self._body(self._pause), None))
        except BaseException as error:  # noqa: BLE001 - `resume` raises it
            self._outcomes.put((None, error))

    def _pause(self, value: Any) -> None:
        self._outcomes.put((value, None))
        self._wait_for_command()

    def _wait_for_command(self) -> None:
        if not self._commands.get():
            raise Abandoned


_MAX_CORRECTIONS = 3
T = TypeVar("T")


def _read_with_corrections(read: Callable[[str], T], source: str) -> T:
    """Read a program. If it is refused with a correction, the correction is read too, and so on.

    So the error names what is wrong in all of them, and what is left to do in the last.

    Raises:
        ProgramRefused: If the program is refused.
    """
    try:
        return read(source)
    except ProgramRefused as refused:
        first = refused
    reasons, corrected, latest = [first.reason], first.corrected, first
    for _ in range(_MAX_CORRECTIONS if corrected is not None else 0):
        try:
            read(corrected or "")
        except ProgramRefused as refused:
            latest = refused
        else:
            raise first.with_correction(reasons, corrected)
        reasons += [text for text in str(latest).split("\n") if text not in "\n".join(reasons)]
        if latest.corrected is None:
            break
        corrected = latest.corrected
    raise first.with_correction(reasons, corrected, still_wrong=str(latest))


def planned_run(source: str, *, read: Callable[[str], Program], **options: Any) -> "Run":
    """Make a run of a text, which `read` parses; the other arguments are those of `Run`.

    Raises:
        ProgramRefused: As `parse` and `Run` do, with the corrected program if it is known.
    """
    return _read_with_corrections(lambda text: Run(read(text), **options), source)


class Run:
    """One run of a program. Use it from one thread at a time.

    Args:
        program: The result of `parse`.
        tools: JSON Schema of the parameters, by tool name.
        variables: Variables that exist before the program.
        limits: Limits of the run.
        may_branch: Whether a value with these labels may decide control flow; `None` allows all.
            It is called in the thread of the run.
        is_strict: Whether everything under a branch takes the labels of its condition.
        log: `Run.log` of an earlier run of the same program with the same variables.
        has_steps: Whether another program in the same namespace follows a program that succeeded.
            `advance` then takes the next program, which is logged too. Only `final_return_value` is
            an answer.
        user_request: The request of the user, if a model wrote the program. Then what its text
            shows to fail is refused before the run (`plan_check`), and so are programs that cannot
            give an answer, and queries of `parse_with_ai` without data.
        result_schemas: JSON Schemas of the tools' results, by tool name, where they are known.

    Raises:
        ProgramRefused: For positional arguments of a tool, and as said at `user_request`.
        UsageError: If variables or the log are not JSON data.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import (
            Labeled,
            ProgramFinished,
            Run,
            ToolCall,
            parse,
        )

        run = Run(parse("f'{add(a=1)}!'"), tools={"add": {"properties": {"a": {}}}})
        call = run.advance()
        assert isinstance(call, ToolCall) and call.arguments["a"].value == 1
        end = run.advance(Labeled(2))
        assert isinstance(end, ProgramFinished) and end.value.value == "2!"
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
        log: Sequence[LogEvent] = (),
        has_steps: bool = False,
        user_request: str | None = None,
        result_schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        checked_variables = {
            name: Labeled(check_json(labeled.value), labeled.labels)
            for name, labeled in (variables or {}).items()
        }
        self._job = Job(
            program=program,
            tools=tools or {},
            variables=checked_variables,
            limits=limits,
            may_branch=may_branch,
            is_strict=is_strict,
            log=[checked_event(event) for event in log],
            has_steps=has_steps,
            user_request=user_request,
            result_schemas=result_schemas or {},
        )
        self._job.checked(program, checked_variables)
        if user_request is not None and not has_steps:
            program.check_answer()
        self._fiber: Fiber | None = None
        self._step: Step | None = None
        self._is_closed = False

    @property
    def log(self) -> tuple[LogEvent, ...]:
        """All input from outside so far, as JSON data: enough to repeat the run up to here."""
        return tuple(self._job.log)

    def events_after(self, count: int) -> list[LogEvent]:
        """The events of the log after the first `count`."""
        return self._job.log[count:]

    def advance(self, answer: Answer | None = None) -> Step:
        """Run up to the next tool call or the end.

        Args:
            answer: The result of the call that the run waits for, or the next program; `None` at
                the start.

        Returns:
            The next call, or the end of the program.

        Raises:
            UsageError: If the answer is missing or of the wrong kind.
            ProgramRefused: If the next program is not supported. The run still waits for one.
            ReplayDiverged: If the program differs from its log. The run is over.
        """
        has_steps = self._job.has_steps
        check_may_advance(self._step, answer, has_steps=has_steps, is_closed=self._is_closed)
        if answer is not None:
            self._job.log_answer(answer)
        if self._fiber is None:
            self._fiber = Fiber(self._job.run)
            weakref.finalize(self, self._fiber.close)
        with self._closed_on_failure():
            self._step = self._fiber.resume()
        if not waits_for_answer(self._step, has_steps=has_steps):
            self.close()
        return self._step

    def finish(self, answer: Callable[[Step], Answer]) -> ProgramFinished | ProgramRaised:
        """Run to the end in this thread, instead of from call to call with `advance`.

        Args:
            answer: Returns the result of a call, or the next program. It may read the log and the
                names.

        Returns:
            The end of the program.

        Raises:
            ReplayDiverged: If the program differs from its log.
        """
        with self._closed_on_failure():
            self._step = end = self._job.run(lambda step: self._job.log_answer(answer(step)))
        self.close()
        return end

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except HostError as error:
            self.close()
            raise error.error from None
        except BaseException:
            self._job.machine.stop()  # the thread may still run, for example after Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """End the run. Its log and names stay readable."""
        self._is_closed = True
        if self._fiber is not None:
            self._fiber.close()

    def check_next_program(self, source: str) -> None:
        """Check the next program; raises `ProgramRefused` as `advance` does."""
        self._job.read_next_program(source)

    def kinds(self) -> dict[str, str]:
        """Names of the current types of the variables in the program."""
        names = dict(self._job.machine.names)  # a copy: the thread of a closed run may change them
        return {name: type_name(unbox(value)) for name, value in names.items()}

    def names(self) -> dict[str, Labeled]:
        """The current variables. Those without a JSON form are shown as `{"type": …}`."""
        return self.namespace()[0]

    def variables(self) -> dict[str, Labeled]:
        """The current variables that have a JSON form, with which a later program can start."""
        return self.namespace()[1]

    def namespace(self) -> tuple[dict[str, Labeled], dict[str, Labeled]]:
        """`names` and `variables` at once."""
        machine = Machine(limits=self._job.limits)
        names: dict[str, Labeled] = {}
        variables: dict[str, Labeled] = {}
        for name, value in dict(self._job.machine.names).items():
            try:
                names[name] = variables[name] = value_to_json(machine, value)
                continue
            except NoJsonForm as error:
                labels = error.labels
            except (OutOfBudget, RecursionError):
                labels = split_labels(value)[1] or NO_LABELS
            names[name] = Labeled({"type": type_name(unbox(value))}, labels)
        return names, variables
