"""One run of a program: up to a tool call, on with its result, up to the next call or the end.

`Run` is what callers use. `Job` is the work of the run's thread: it runs the program and answers
what the machine asks for. `Fiber` is a thread that can pause in the middle of a call; generators
could pause only in code that is itself a generator, not inside `sorted` or `map`.

The log is the only source of what comes from outside. A result is first written to the log and
then read from it, in a live run and in a replay, so that the two cannot differ. A run that gets the
log of another run starts again and compares each call with the log.
"""

import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Literal, NoReturn, TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, Labeled, Labels
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
    may_exit,
    may_set_the_result,
    names_within,
    parse,
)
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
    expected, msg = _ANSWERS[type(step)]
    if not isinstance(answer, expected):
        raise UsageError(msg)


_ANSWERS: dict[type, tuple[Any, str]] = {
    type(None): (type(None), "This run does not wait for an answer. Call `advance()` first."),
    ToolCall: (Labeled | ToolFailure, "This run waits for the result of a tool."),
    ProgramFinished: (NextProgram, "This run waits for its next program."),
}


ENGINE = 3
"""Version of the engine in logs: a log of another version is not replayed."""
_EVENT_SIZE = 260  # bytes of an event without its value
_LIST_SIZES = 5  # a list of numbers takes 5 times as much as the list itself
LogEvent = dict[str, Any]
Pause = Callable[[Step], None]
_EVENTS = {
    "start": {"digest", "engine"},
    "result": {"call", "value", "labels"},
    "failure": {"call", "message", "labels"},
    "read": {"name", "value"},
    "program": {"source"},
}


def read_event(event: LogEvent) -> LogEvent:
    """Check an event of a log from outside.

    Raises:
        UsageError: If it is not a valid event.
    """
    copied: LogEvent = check_json(event)
    needed = _EVENTS.get(str(copied.get("event"))) if isinstance(copied, dict) else None
    if needed is None or needed - copied.keys() or not isinstance(copied.get("source", ""), str):
        msg = "This is not a log of a run: an event is incomplete or of an unknown kind."
        raise UsageError(msg)
    if "labels" in copied:
        Labels.from_wire(copied["labels"])
    return copied


def _labeled_to_wire(values: Mapping[str, Labeled]) -> dict[str, Any]:
    return {name: [one.value, one.labels.to_wire()] for name, one in values.items()}


def call_digest(call: ToolCall) -> str:
    """The digest that identifies a call in the log."""
    return digest_of([call.tool, _labeled_to_wire(call.arguments)])


def answer_event(answer: Answer, call: str) -> LogEvent:
    """The log event of a tool's result, or of the next program.

    Args:
        answer: The result, or the program.
        call: `call_digest` of the call; without meaning for a program.

    Raises:
        UsageError: If the result is not JSON data.
    """
    if isinstance(answer, NextProgram):
        return {"event": "program", "source": answer.source}
    if isinstance(answer, ToolFailure):
        event = {"event": "failure", "message": check_json(answer.message)}
    else:
        event = {"event": "result", "value": check_json(answer.value)}
    return {**event, "call": call, "labels": answer.labels.to_wire()}


def answer_of(event: LogEvent) -> Answer:
    """The answer in an event."""
    if event["event"] == "program":
        return NextProgram(event["source"])
    labels = Labels.from_wire(event["labels"])
    if event["event"] == "failure":
        return ToolFailure(event["message"], labels)
    return Labeled(event["value"], labels)


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
        log: Events so far, checked by `read_event`.
        has_steps: Whether other programs follow a program that succeeded.
        asked: The request of the user, if a model writes the programs.
        results: JSON Schemas of the tools' results, by tool name, where they are known.
    """

    program: Program
    tools: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Labeled]
    limits: Limits
    may_branch: MayBranch | None
    is_strict: bool
    log: list[LogEvent]
    has_steps: bool = False
    asked: str | None = None
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the run."""
        self.parsed: Program | None = None  # the last next program that was parsed
        # Names of the programs before the next one, whether their lines ran or not.
        self.bound: frozenset[str] = frozenset()
        self.waiting = ""
        self.cursor = self.calls = 0
        self.within: frozenset[str] = frozenset()
        self.decides = False
        self.machine = Machine(
            limits=self.limits,
            tools=self.tools,
            call_tool=self.call_tool,
            event=self.read_clock,
            may_branch=self.may_branch_on if self.may_branch is not None else None,
            is_strict=self.is_strict,
        )

    # -- the log

    def answer(self, answer: Answer) -> None:
        """Append a tool's result or the next program to the log.

        Raises:
            ProgramRefused: If the program is not supported; nothing has changed then.
        """
        if isinstance(answer, NextProgram):
            self.read_program(answer.source)
        self.log.append(answer_event(answer, self.waiting))

    def read_program(self, source: str) -> Program:
        """Parse and check the next program, which continues with the current variables."""
        if self.parsed is None or self.parsed.source != source:
            known = [*self.machine.names]

            def read(text: str) -> Program:
                return self.checked(parse(text, self.limits, known=known), known)

            self.parsed = _or_corrected(read, source)
        return self.parsed

    def checked(self, program: Program, known: Collection[str]) -> Program:
        """Refuse what does not fit the tools; `known` are the variables before the program."""
        if self.asked is None:
            program.check_calls(self.tools, known)
        else:
            names = self.bound.union(known)
            check_plan(program.source, program.tree, self.tools, self.results, names, self.asked)
            program.check_readers(self.tools, self.asked)
        return program

    def next_event(self, *kinds: str) -> LogEvent:
        """The next event of the log, which must be of one of these kinds."""
        event = self.log[self.cursor]
        if event["event"] not in kinds:
            self.diverge(f"needs an event `{kinds[0]}`, but its log has `{event['event']}`")
        self.cursor += 1
        return event

    def diverge(self, what: str) -> NoReturn:
        """Report where the run differs from its log."""
        msg = f"The run {what} (event {self.cursor} of its log, line {self.machine.line})."
        raise HostError(ReplayDiverged(msg))

    # -- what the machine asks for

    def may_branch_on(self, labels: Labels) -> bool:
        """Ask the policy. The program cannot catch an error of the policy itself."""
        try:
            return self.may_branch is None or self.may_branch(labels)
        except Exception as error:
            raise HostError(error) from error

    def read_clock(self, name: str, read: Callable[[], Any]) -> Any:
        """Read the clock or draw a random value, or take it from the log."""
        if self.cursor == len(self.log):
            value = read()
            self.machine.pay_memory(_EVENT_SIZE + _LIST_SIZES * sys.getsizeof(value))
            self.log.append({"event": "read", "name": name, "value": value})
        event = self.next_event("read")
        if event["name"] != name:
            self.diverge(f"reads `{name}`, but its log has `{event['name']}`")
        return event["value"]

    def call_tool(self, tool: str, bound: dict[str, Value], line: int) -> Value:
        """Call a tool, or take its result from the log."""
        machine = self.machine
        self.calls += 1
        if self.calls > self.limits.calls:
            machine.exhaust("calls", self.limits.calls)
        arguments = {name: value_to_json(machine, value) for name, value in bound.items()}
        call = ToolCall(tool, arguments, line)
        self.waiting = call_digest(call)
        if self.cursor == len(self.log):
            self.pause(call)
        machine.restart_clock()
        event = self.next_event("result", "failure")
        if event["call"] != self.waiting:
            self.diverge(f"calls `{tool}` with other arguments than before")
        result: Any = answer_of(event)
        if isinstance(result, ToolFailure):
            kind = ErrorType("ToolError", ToolError)
            raise Raised(ErrorValue(kind, (result.message,), as_mark(result.labels)))
        return value_from_json(machine, result)

    # -- the run

    def run(self, pause: Pause) -> ProgramFinished | ProgramRaised:
        """Run from the start to the end, once, in the thread of the run."""
        self.pause = pause
        self.machine.begin_program(None)  # its clock counts this thread
        try:
            try:
                return self.result()
            except Exception as error:  # noqa: BLE001 - what an operation raised is the program's
                caught = self.machine.as_error_value(error)
                bare, mark = self.machine.strip_labels(caught)
                text = as_text(self.machine, bare)  # which can reach a limit too
                failed = self.failed("exception", caught.type.name, text, mark or NO_LABELS)
                return replace(failed, by_interpreter=caught.by_interpreter)
        except (NoJsonForm, OutOfBudget, BranchForbidden) as stop:
            return self.failed(stop.kind, stop.type_name, str(stop), stop.labels)
        except (RecursionError, MemoryError) as error:
            limit = self.machine.as_out_of_budget(error)
            return self.failed(limit.kind, limit.type_name, str(limit))

    def result(self) -> ProgramFinished | ProgramRaised:
        """Run all programs; return the end of the last one."""
        self.start()
        self.bound = self.program.bound
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
            program = self.read_program(source)
        except ProgramRefused:
            self.diverge("has a log with an unsupported program")
        self.calls = 0
        self.bound |= program.bound
        # In strict mode a branch can end a program with `exit`, or the turn with an answer. The
        # next program runs only if no branch did, so it depends on the conditions of all branches.
        # If no program can end like this, it depends only on the branches that are still open.
        branch = machine.steered if self.decides else machine.branch
        machine.begin_program(branch if machine.is_strict else None)
        self.check_names(program)
        return program

    def check_names(self, program: Program) -> None:
        """Refuse to bind the name of a built-in or tool that an earlier function uses.

        What the function may change was found for the built-in: another value could lose labels.
        """
        machine = self.machine
        meant = (BUILTINS.keys() | machine.tools.keys()) & self.within
        changed = sorted((bound_by(program.tree) & meant) - machine.names.keys())
        if changed:
            message = (
                f"An earlier step uses the built-in or tool `{changed[0]}`. Choose another name."
            )
            machine.fail(NameError, message)

    def run_program(self, program: Program) -> ProgramFinished | ProgramRaised:
        """Run one program."""
        machine = self.machine
        if self.has_steps:
            self.within |= names_within(program.tree)
            self.decides = self.decides or (machine.is_strict and may_set_the_result(program.tree))
        machine.may_exit = machine.may_exit or (machine.is_strict and may_exit(program.tree))
        body = compile_module(machine, program.tree)
        code, mark, value = None, None, None
        try:
            value = body()
        except Exit as ended:
            code, mark = ended.code, ended.labels
        # The value of a step's last line is not an answer: it may be a tool call.
        value = machine.names.get(ANSWER, None if self.has_steps else value)
        if code is None or (isinstance(code, int | str) and not code):
            out = value_to_json(machine, value)
            # An early end of a step without an answer reveals nothing in the result.
            end_mark = None if self.has_steps and unbox(value) is None else mark
            named = Labeled(out.value, join_labels(as_mark(out.labels), end_mark) or NO_LABELS)
            return ProgramFinished(named, type_name(unbox(value)), machine.line)
        text = code if isinstance(code, str) else f"exit({as_text(machine, code)})"
        return self.failed("exit", "SystemExit", text, mark or NO_LABELS)

    def start(self) -> None:
        """Log or compare the initial state of the run; then bind the variables."""
        digest = digest_of([self.program.digest, _labeled_to_wire(self.variables), self.is_strict])
        if not self.log:
            self.log.append({"event": "start", "engine": ENGINE, "digest": digest})
        event = self.next_event("start")
        if event["engine"] != ENGINE or event["digest"] != digest:
            self.diverge("has another program, other variables or another engine than its log")
        for name, given in self.variables.items():
            self.machine.names[name] = value_from_json(self.machine, given)

    def failed(
        self, kind: FailureKind, type_name: str, message: str, labels: Labels = NO_LABELS
    ) -> ProgramRaised:
        """The end of a program that failed, at the current line."""
        return ProgramRaised(kind, type_name, message, self.machine.line, labels)


class Fiber:
    """Runs `body` in a thread, up to each of its pauses. Only one of the two sides runs at a time.

    The thread refers to this object, so this object must not refer to its owner: otherwise a
    waiting thread would keep a forgotten owner alive.

    Args:
        body: Gets a function `pause`, which hands out a value and returns on the next `resume`.
    """

    def __init__(self, body: Callable[[Callable[[Any], None]], Any]) -> None:
        self._body = body
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._back: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="interpreter", daemon=True)
        self.thread.start()

    def resume(self) -> Any:
        """Continue until the next pause or the end.

        Returns:
            The argument of `pause`, or the result of `body`.

        Raises:
            BaseException: The exception that `body` raised.
        """
        self._go.put(True)  # noqa: FBT003 - the message
        value, error = self._back.get()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread at its pause, without waiting for it."""
        self._go.put(False)  # noqa: FBT003 - the message

    def _run(self) -> None:
        try:
            self._wait()
            self._back.put((self._body(self._pause), None))
        except BaseException as error:  # noqa: BLE001 - `resume` raises it
            self._back.put((None, error))

    def _pause(self, value: Any) -> None:
        self._back.put((value, None))
        self._wait()

    def _wait(self) -> None:
        if not self._go.get():
            raise Abandoned


_MOST_CORRECTIONS = 3
T = TypeVar("T")


def _or_corrected(read: Callable[[str], T], source: str) -> T:
    """Read a program. If it is refused with a correction, the correction is read too, and so on.

    So the error names what is wrong in all of them, and what is left to do in the last.

    Raises:
        ProgramRefused: If the program is refused.
    """
    try:
        return read(source)
    except ProgramRefused as refused:
        first = refused
    texts, corrected, left = [first.reason], first.corrected, first
    for _ in range(_MOST_CORRECTIONS if corrected is not None else 0):
        try:
            read(corrected or "")
        except ProgramRefused as refused:
            left = refused
        else:
            raise first.with_correction(texts, corrected)
        texts += [text for text in str(left).split("\n") if text not in "\n".join(texts)]
        if left.corrected is None:
            break
        corrected = left.corrected
    raise first.with_correction(texts, corrected, left=str(left))


def planned_run(source: str, *, read: Callable[[str], Program], **options: Any) -> "Run":
    """Make a run of a text, which `read` parses; the other arguments are those of `Run`.

    Raises:
        ProgramRefused: As `parse` and `Run` do, with the corrected program if it is known.
    """
    return _or_corrected(lambda text: Run(read(text), **options), source)


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
        asked: The request of the user, if a model wrote the program. Then what its text shows to
            fail is refused before the run (`plan_check`), and so are programs that cannot give an
            answer, and queries of `parse_with_ai` without data.
        results: JSON Schemas of the tools' results, by tool name, where they are known.

    Raises:
        ProgramRefused: For positional arguments of a tool, and for the programs named at `asked`.
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
        asked: str | None = None,
        results: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        given = {
            name: Labeled(check_json(one.value), one.labels)
            for name, one in (variables or {}).items()
        }
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
            results=results or {},
        )
        self._job.checked(program, given)
        if asked is not None and not has_steps:
            program.check_answer()
        self._has_steps = has_steps
        self._fiber: Fiber | None = None
        self._step: Step | None = None
        self._is_closed = False

    @property
    def log(self) -> tuple[LogEvent, ...]:
        """All input from outside so far, as JSON data: enough to repeat the run up to here."""
        return tuple(self._job.log)

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
        check_may_advance(self._step, answer, has_steps=self._has_steps, is_closed=self._is_closed)
        if answer is not None:
            self._job.answer(answer)
        if self._fiber is None:
            self._fiber = Fiber(self._job.run)
            weakref.finalize(self, self._fiber.close)
        with self._closed_on_failure():
            self._step = self._fiber.resume()
        if not waits_for_answer(self._step, has_steps=self._has_steps):
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
            self._step = end = self._job.run(lambda step: self._job.answer(answer(step)))
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

    def read(self, source: str) -> None:
        """Check the next program; raises `ProgramRefused` as `advance` does."""
        self._job.read_program(source)

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
        shown: dict[str, Labeled] = {}
        variables: dict[str, Labeled] = {}
        for name, value in dict(self._job.machine.names).items():
            try:
                shown[name] = variables[name] = value_to_json(machine, value)
                continue
            except NoJsonForm as error:
                labels = error.labels
            except (OutOfBudget, RecursionError):
                labels = split_labels(value)[1] or NO_LABELS
            shown[name] = Labeled({"type": type_name(unbox(value))}, labels)
        return shown, variables
