"""One run of a program: up to a tool call, on with its result, up to the next one.

A live run waits in a thread; one that was parked, or comes from another process, runs again from
the start, and each call is compared with the log on the way.

A function that can wait in the middle of a call, on a thread of its own.

Generators could wait only in code that is one itself, through every `sorted` and `map` on the way.
A thread can wait anywhere. Only one of the two sides ever runs; they hand over with two locks.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.faults import (
    Abandoned,
    Diverged,
    HostError,
    NoForm,
    OutOfBudget,
    ReplayDiverged,
)
from langchain_sequrity.local.interpreter.job import (
    Answer,
    Event,
    Failed,
    Finished,
    Job,
    Step,
    check_turn,
    read_event,
    waits,
)
from langchain_sequrity.local.interpreter.json_boundary import check_json, go_out
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import Machine, MayBranch, WorkTime
from langchain_sequrity.local.interpreter.program import Program
from langchain_sequrity.local.interpreter.values import (
    NO_LABELS,
    Labeled,
    Value,
    strip,
    take,
    type_name,
)


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

    def finish(self, answer: Callable[[Step], Answer]) -> Finished | Failed:
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
        return go_out(machine, value)
    except NoForm as error:
        return error.labels
    except (OutOfBudget, RecursionError):
        return take(value)[1] or NO_LABELS
