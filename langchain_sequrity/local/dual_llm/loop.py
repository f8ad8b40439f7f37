"""The programs of a turn: written, run, repaired, until the caller is needed or there is an end."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessageChunk, ToolMessage

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.dual_llm import planning, prompts, reports, runs
from langchain_sequrity.local.dual_llm.asking import NoAnswer
from langchain_sequrity.local.dual_llm.calls import Calls, Completed
from langchain_sequrity.local.dual_llm.context import Context
from langchain_sequrity.local.dual_llm.names import program_names
from langchain_sequrity.local.dual_llm.runs import AnyRun
from langchain_sequrity.local.dual_llm.state import OpenTurn, Step, WaitingCall
from langchain_sequrity.local.gate import Checked
from langchain_sequrity.local.interpreter import (
    Failed,
    Finished,
    Labeled,
    ProgramRefused,
    ToolCall,
    ToolFailure,
)
from langchain_sequrity.local.results import BadResult
from langchain_sequrity.wire.envelope import Envelope

_ANSWER = "final_return_value"
Result = Labeled | ToolFailure | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a request got: to a call for the caller, or to the end of the turn.

    Attributes:
        call: The call.
        run: The program that waits for its result.
        end: How the turn ended.
    """

    call: WaitingCall | None = None
    run: AnyRun | None = None
    end: Envelope | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A program ended, and the turn may go on with another one.

    Attributes:
        told: What the planner is told.
        end: How the turn ends if there is no other program.
        failed: Whether the program failed.
        variables: Variables that the next program starts from, if they have changed.
    """

    told: str
    end: Envelope
    failed: bool = True
    variables: dict[str, Labeled] | None = None


Work = Generator[AIMessageChunk, None, Outcome]


def _carried(text: str) -> str:
    """A text as UTF-8 can carry it; data can put half a surrogate pair into an exception."""
    return text.encode("utf-8", "replace").decode()


class Loop:
    """Writes and runs the programs of one turn.

    Args:
        context: The request's surroundings.
        turn: The turn.
    """

    def __init__(self, context: Context, turn: OpenTurn) -> None:
        self._context = context
        self._turn = turn
        self._fsm = context.configuration.fsm
        self._names = program_names(turn.tools, context.configuration.internal_tools)
        self._calls = Calls(context, turn, self._names)

    def plan(self) -> Work:
        """Have programs written until one gets somewhere.

        Yields:
            What the planner thinks.

        Returns:
            How far the turn got.
        """
        written = yield from self._write()
        return (yield from self._work(written))

    def run_given(self, program: str) -> Outcome:
        """Run a program that the caller gave; there is no other one if it fails."""
        self._begin_attempt()
        self._turn.program = program
        return self._only(self._start())

    def resume(self, run: AnyRun | None, message: ToolMessage, *, repairs: bool) -> Work:
        """Give the program the result that it waits for.

        Args:
            run: The live run, if there is one; it is replayed otherwise.
            message: The result.
            repairs: Whether another program may be written if this one fails.

        Yields:
            What the planner thinks.

        Returns:
            How far the turn got.
        """
        call, self._turn.waiting = self._turn.waiting, None
        if call is None:  # pragma: no cover - an open turn waits for a result
            msg = "The turn waits for no result."
            raise AssertionError(msg)
        run = self._live(run)
        with runs.closed_on_failure(run):
            try:
                result = self._calls.take(call, message)
            except BadResult as problem:
                text = f"The result of `{call.tool}` cannot be used. {problem}"
                end = self._failure((reports.RESULT_REFUSED, text), run)
                run.close()
                return Outcome(end=end)
        advanced = self._advance(run, result)
        if repairs and self._turn.is_planned:
            return (yield from self._work(advanced))
        return self._only(advanced)

    def _live(self, run: AnyRun | None) -> AnyRun:
        # Servers that share a store each have a run of their own, perhaps of an earlier turn.
        if run is not None and run.log == self._turn.log:
            return run
        if run is not None:
            run.close()
        run = self._new_run()
        runs.replayed(run)
        return run

    def _new_run(self) -> AnyRun:
        context = self._context
        return runs.start(
            self._turn, context.configuration, self._names, context.programs, context.owner
        )

    def _can_run(self, program: str) -> bool:
        try:
            self._context.programs.check(program, self._context.owner)
        except ProgramRefused:
            return False
        return True

    # -- one program after the other

    def _work(self, reached: AnyRun | _Ended | Outcome) -> Work:
        limits, turn = self._context.configuration.limits, self._turn
        while not isinstance(reached, Outcome):
            if isinstance(reached, AnyRun):
                reached = self._advance(reached, None)
                continue
            turn.failed_steps += reached.failed
            self._note(reached)
            if reached.variables is not None:
                turn.variables = reached.variables
            if turn.steps >= limits.steps or turn.failed_steps >= limits.failed_steps:
                return Outcome(end=reached.end)
            reached = yield from self._write()
        return reached

    def _only(self, reached: AnyRun | _Ended | Outcome) -> Outcome:
        if isinstance(reached, AnyRun):
            reached = self._advance(reached, None)
        return Outcome(end=reached.end) if isinstance(reached, _Ended) else reached

    def _note(self, ended: _Ended) -> None:
        turn, prompt = self._turn, self._context.configuration.planner
        known = prompts.variables_text(turn.variables, prompt)
        turn.attempts.append(Step(turn.program, ended.told, ended.failed, known))
        if ended.failed and turn.program:
            turn.failures.add(len(turn.programs) - 1)
        every = self._fsm.clear_history_every_n_attempts
        builds_up = self._fsm.enable_multistep_planning
        if every is not None and not builds_up and len(self._turn.attempts) >= every:
            self._turn.attempts.clear()

    def _write(self) -> Generator[AIMessageChunk, None, AnyRun | _Ended]:
        """Have the planner write a program, and start it."""
        turn, context = self._turn, self._context
        self._begin_attempt()
        try:
            turn.program = yield from planning.program(
                turn,
                context.state.past,
                context.configuration,
                context.models,
                self._names,
                can_run=self._can_run,
            )
        except NoAnswer as problem:
            return self._failed(str(problem), (reports.PLANNER_FAILED, str(problem)))
        turn.programs.append(turn.program)
        return self._start()

    def _begin_attempt(self) -> None:
        turn = self._turn
        if self._fsm.clear_session_meta == "every_attempt":
            self._context.state.labels = Labels()
        turn.steps += 1
        turn.calls, turn.log, turn.program = 0, (), ""

    def _start(self) -> AnyRun | _Ended:
        try:
            return self._new_run()
        except ProgramRefused as refused:
            # What it says is about the program's own text.
            told = f"It was refused. {refused}"
            return self._failed(told, (reports.PROGRAM_REFUSED, str(refused)))

    # -- one program

    def _advance(self, run: AnyRun, result: Result) -> Outcome | _Ended:
        """Run up to a call for the caller, or to the end of the program."""
        with runs.closed_on_failure(run):
            reached = self._steps(run, result)
        if not isinstance(reached, Outcome) or reached.call is None:
            run.close()
        return reached

    def _steps(self, run: AnyRun, result: Result) -> Outcome | _Ended:
        most = self._context.configuration.limits.tool_calls
        while True:
            step = run.advance(result)
            if not isinstance(step, ToolCall):
                return self._ended(run, step)
            if most is not None and self._turn.calls >= most:
                text = f"The program made more than {most} calls (`fsm.max_tool_calls_per_step`)."
                return self._failed(text, (reports.LIMIT_REACHED, text), run)
            made = self._calls.make(step)
            match made:
                case WaitingCall():
                    self._turn.log = run.log
                    self._turn.waiting = made
                    return Outcome(call=made, run=run)
                case Completed():
                    self._keep(run.variables())
                    return Outcome(end=self._success(made.value, None, run))
                case Checked():
                    return self._denied(run, step, made)
                case _:
                    result = made

    def _denied(self, run: AnyRun, step: ToolCall, checked: Checked) -> Outcome | _Ended:
        told = prompts.denial(step.tool, step.line, self._context.configuration.planner)
        error = (reports.POLICY_VIOLATION, reports.denial_message(checked))
        return self._violated(self._failed(told, error, run, violated=True))

    def _violated(self, ended: _Ended) -> Outcome | _Ended:
        return ended if self._fsm.retry_on_policy_violation else Outcome(end=ended.end)

    def _ended(self, run: AnyRun, step: Finished | Failed) -> Outcome | _Ended:
        prompt, turn = self._context.configuration.planner, self._turn
        if isinstance(step, Failed):
            step = replace(step, message=_carried(step.message))
            is_violation = step.kind == "branch"
            told, error = prompts.failure(step, prompt), reports.failure(step)
            ended = self._failed(told, error, run, violated=is_violation)
            return self._violated(ended) if is_violation else ended
        variables = run.variables()
        # An answer is that of its own program only.
        has_answer = _ANSWER in variables or step.value.value is not None
        self._keep(variables)
        end = self._success(step.value, step.value_type, run)
        if has_answer or not (turn.is_planned and self._fsm.enable_multistep_planning):
            return Outcome(end=end)
        return _Ended(prompts.ENDED, end, failed=False, variables=variables)

    def _keep(self, variables: dict[str, Labeled]) -> None:
        """Leave variables to later turns; programs of the caller bring their own."""
        variables.pop(_ANSWER, None)
        if self._turn.is_planned:
            self._context.state.variables = variables

    # -- ends

    def _failed(
        self,
        told: str,
        error: tuple[str, str],
        run: AnyRun | None = None,
        *,
        violated: bool = False,
    ) -> _Ended:
        return _Ended(told, self._failure(error, run, violated=violated))

    def _success(self, value: Labeled, value_type: str | None, run: AnyRun) -> Envelope:
        beside = self._beside(run)
        return Envelope(
            value.value, value.labels, value_type, history_mismatch=self._turn.mismatch, **beside
        )

    def _failure(
        self, error: tuple[str, str], run: AnyRun | None, *, violated: bool = False
    ) -> Envelope:
        beside = self._beside(run, violated=violated)
        return Envelope(error=error, history_mismatch=self._turn.mismatch, **beside)

    def _beside(self, run: AnyRun | None, *, violated: bool = False) -> Mapping[str, Any]:
        names = None
        if run is not None and self._context.configuration.response.include_namespace_snapshot:
            names = run.names()
        return reports.reported(
            self._turn, self._context.state, self._context.configuration, names, violated=violated
        )
