"""The programs of a turn: written, run, repaired, until the caller is needed or there is an end.

Names of the caller's tools as programs call them: what is no name in Python becomes one.
"""

import keyword
import re
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessageChunk, ToolMessage

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.dual_llm import planner, prompts, reports, runs
from langchain_sequrity.local.dual_llm.calls import Calls, Completed, Context
from langchain_sequrity.local.dual_llm.model_calls import NoAnswer
from langchain_sequrity.local.dual_llm.runs import AnyRun
from langchain_sequrity.local.dual_llm.state import OpenTurn, Step, WaitingCall
from langchain_sequrity.local.interpreter import (
    Failed,
    Finished,
    Labeled,
    NextProgram,
    ProgramRefused,
    ToolCall,
    ToolFailure,
)
from langchain_sequrity.local.interpreter.syntax import BLOCKED
from langchain_sequrity.local.policy_gate import Checked
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.tool_results import BadResult
from langchain_sequrity.wire.dual_llm import Envelope

_OTHER = re.compile(r"\W", re.ASCII)


def program_names(
    tools: Sequence[Mapping[str, Any]], internal_tools: Collection[str]
) -> dict[str, str]:
    """Find a name for each tool.

    Args:
        tools: The caller's tools.
        internal_tools: Internal tools that are enabled.

    Returns:
        The names that programs use, by the tools' own.

    Raises:
        StatusError: 400 if two tools would have one name.
    """
    names: dict[str, str] = {}
    taken = dict.fromkeys(internal_tools, "an internal tool")
    for tool in tools:
        own = tool["function"]["name"]
        name = _identifier(own)
        if name in taken:
            refuse(
                400,
                f"A program would call the tool `{own}` by the name `{name}`, which is also that "
                f"of {taken[name]}. Rename it, or leave the internal tool out of "
                "`fsm.enabled_internal_tools`.",
            )
        names[own] = name
        taken[name] = f"the tool `{own}`"
    return names


def _identifier(name: str) -> str:
    name = _OTHER.sub("_", name)
    if name[:1].isdigit() or name.startswith("__"):
        name = f"tool_{name}"
    # A program that has a function of Python that is blocked is refused, tool or no tool.
    return f"{name}_" if keyword.iskeyword(name) or name in BLOCKED else name


_ANSWER = "final_return_value"
Given = Labeled | ToolFailure | NextProgram | None


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
        run: The run that waits for the next step, if one does.
        context: What the planner is told of the variables from now on, if they have changed.
    """

    told: str
    end: Envelope
    failed: bool = True
    run: AnyRun | None = None
    context: str | None = None


Work = Generator[AIMessageChunk, None, Outcome]


def _is_open(answer: Labeled) -> bool:
    """Whether a step has left the turn without an answer.

    A `None` that a tool returned is an answer: data do not decide whether there is another step.
    """
    return answer.value is None and answer.labels == Labels()


def _carried(text: str) -> str:
    """A text as UTF-8 can carry it; data can put half a surrogate pair into an exception."""
    return text.encode("utf-8", "replace").decode()


class Loop:
    """Writes and runs the programs of one turn.

    Args:
        context: The request's surroundings.
        turn: The turn.

    Attributes:
        calls: The calls of the turn.
    """

    def __init__(self, context: Context, turn: OpenTurn) -> None:
        self._context = context
        self._turn = turn
        self._fsm = context.configuration.fsm
        self._names = program_names(turn.tools, context.configuration.internal_tools)
        self.calls = Calls(context, turn, self._names)
        self._has_steps = runs.has_steps(turn, context.configuration)
        self._is_cut = False

    def plan(self) -> Work:
        """Have programs written until one gets somewhere.

        Yields:
            What the planner thinks.

        Returns:
            How far the turn got.
        """
        prompt = self._context.configuration.planner
        self._turn.context = prompts.variables_text(self._turn.variables, prompt)
        written = yield from self._write(None)
        return (yield from self._work(written))

    def run_given(self, program: str) -> Outcome:
        """Run a program that the caller gave; there is no other one if it fails."""
        self._begin_attempt()
        self._turn.program = program
        return self._only(self._start(None))

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
                result = self.calls.take(call, message)
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
        said = (one.query for one in context.state.past)
        return runs.start(
            self._turn,
            context.configuration,
            self._names,
            context.programs,
            context.owner,
            said=said,
        )

    def _can_run(self, program: str) -> bool:
        turn = self._turn
        known = prompts.words_of(turn.done) | turn.variables.keys() if turn.done else ()
        try:
            self._context.programs.check(program, self._context.owner, known)
        except ProgramRefused:
            return False
        return True

    # -- one program after the other

    def _work(self, reached: _Ended | Outcome) -> Work:
        turn = self._turn
        while not isinstance(reached, Outcome):
            turn.failed_steps += reached.failed
            self._note(reached)
            run = reached.run
            with runs.closed_on_failure(run):
                end = self._end_by_limit(reached)
                if end is None:
                    reached = yield from self._write(run)
                    continue
            if run is not None:
                run.close()
            return Outcome(end=end)
        return reached

    def _end_by_limit(self, ended: _Ended) -> Envelope | None:
        """How the turn ends, if it may have no further program."""
        limits, turn = self._context.configuration.limits, self._turn
        if turn.failed_steps >= limits.failed_steps:
            text = f"{limits.failed_steps} steps of a turn may fail (`fsm.max_pllm_failed_steps`)"
        elif turn.steps >= limits.steps:
            text = f"a turn has {limits.steps} steps at most (`fsm.max_pllm_steps`)"
        else:
            return None
        if ended.end.error is None:
            text = f"The turn has no answer, and {text}."
            return self._failure((reports.LIMIT_REACHED, text), ended.run)
        code, message = ended.end.error
        if not self._has_steps or code in reports.VIOLATIONS:  # whose message clients read
            return ended.end
        return replace(ended.end, error=(code, f"{message} (There is no other step: {text}.)"))

    def _only(self, reached: _Ended | Outcome) -> Outcome:
        if isinstance(reached, Outcome):
            return reached
        if reached.run is not None:
            reached.run.close()
        return Outcome(end=reached.end)

    def _note(self, ended: _Ended) -> None:
        turn = self._turn
        program = turn.program if ended.failed else turn.done[-1]
        turn.attempts.append(Step(program, ended.told, ended.failed, turn.context))
        if ended.context is not None:
            turn.context = ended.context
        every = self._fsm.clear_history_every_n_attempts
        if every is not None and not self._has_steps and len(turn.attempts) >= every:
            turn.attempts.clear()

    def _write(self, run: AnyRun | None) -> Generator[AIMessageChunk, None, _Ended | Outcome]:
        """Have the planner write a program, and run it.

        Args:
            run: The run that waits for it, where it is a step after others.

        Yields:
            What the planner thinks.
        """
        turn, context = self._turn, self._context
        self._begin_attempt()
        try:
            turn.program, self._is_cut = yield from planner.program(
                turn,
                context.state.past,
                context.configuration,
                context.models,
                self._names,
                can_run=self._can_run,
            )
        except NoAnswer as problem:
            failed = self._failed(str(problem), (reports.PLANNER_FAILED, str(problem)))
            return replace(failed, run=run)
        turn.programs.append(turn.program)
        return self._start(run)

    def _begin_attempt(self) -> None:
        turn = self._turn
        if self._fsm.clear_session_meta == "every_attempt":
            self._context.state.labels = Labels()
        turn.steps += 1
        # What is not of a step that succeeded is forgotten: a failed one leaves nothing behind.
        turn.calls, turn.log, turn.program = 0, turn.log[: turn.kept], ""
        turn.asked_for = {}

    def _start(self, run: AnyRun | None) -> _Ended | Outcome:
        turn = self._turn
        try:
            if not turn.done:
                return self._advance(self._new_run(), None)
            if run is None:  # the last step failed, and its run with it
                run = self._new_run()
                with runs.closed_on_failure(run):
                    runs.replayed(run, Finished)
            return self._advance(run, NextProgram(turn.program))
        except ProgramRefused as refused:
            told = prompts.refusal(refused, turn.program, is_cut=self._is_cut)
            failed = self._failed(told, (reports.PROGRAM_REFUSED, str(refused)))
            return replace(failed, run=run)

    # -- one program

    def _advance(self, run: AnyRun, given: Given) -> Outcome | _Ended:
        """Run up to a call for the caller, or to the end of the program."""
        with runs.closed_on_failure(run):
            reached = self._steps(run, given)
        waits = reached.run if isinstance(reached, _Ended) else reached.call
        if waits is None:
            run.close()
        return reached

    def _steps(self, run: AnyRun, given: Given) -> Outcome | _Ended:
        most = self._context.configuration.limits.tool_calls
        while True:
            step = run.advance(given)
            if not isinstance(step, ToolCall):
                return self._ended(run, step)
            if most is not None and self._turn.calls >= most:
                text = f"The program made more than {most} calls (`fsm.max_tool_calls_per_step`)."
                return self._failed(text, (reports.LIMIT_REACHED, text), run)
            made = self.calls.make(step)
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
                    given = made

    def _denied(self, run: AnyRun, step: ToolCall, checked: Checked) -> Outcome | _Ended:
        prompt = self._context.configuration.planner
        told = prompts.denial(step.tool, step.line, prompt, self._turn.program)
        error = (reports.POLICY_VIOLATION, reports.denial_message(checked))
        return self._violated(self._failed(told, error, run, violated=True))

    def _violated(self, ended: _Ended) -> Outcome | _Ended:
        return ended if self._fsm.retry_on_policy_violation else Outcome(end=ended.end)

    def _ended(self, run: AnyRun, step: Finished | Failed) -> Outcome | _Ended:
        prompt, turn = self._context.configuration.planner, self._turn
        if isinstance(step, Failed):
            step = replace(step, message=_carried(step.message))
            is_violation = step.kind == "branch"
            told = prompts.failure(step, prompt, turn.program, self._words())
            error = reports.failure(step)
            ended = self._failed(told, error, run, violated=is_violation)
            return self._violated(ended) if is_violation else ended
        variables = run.variables()
        self._keep(variables)
        end = self._success(step.value, step.value_type, run)
        if not self._has_steps or not _is_open(step.value):
            return Outcome(end=end)
        turn.done.append(turn.program)
        turn.settle()
        turn.program, turn.log, turn.kept = "", run.log, len(run.log)
        kinds = {name: kind for name, kind in run.kinds().items() if name != _ANSWER}
        kinds = prompts.trusted_kinds(kinds, self._words())
        context = prompts.variables_text(self._context.state.variables, prompt, kinds)
        return _Ended(prompts.ENDED, end, failed=False, run=run, context=context)

    def _keep(self, variables: Mapping[str, Labeled]) -> None:
        """Leave variables to later turns; programs of the caller bring their own.

        Their names are told to the planner, so they are words of programs whatever a worker says.
        """
        if self._turn.is_planned:
            words = self._words()
            self._context.state.variables = {
                name: one for name, one in variables.items() if name in words and name != _ANSWER
            }

    def _words(self) -> frozenset[str]:
        return prompts.words_of(self._turn.programs) | self._turn.variables.keys()

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
        if self._turn.is_planned and self._turn.program:
            self._turn.failures.add(len(self._turn.programs) - 1)
        beside = self._beside(run, violated=violated)
        made = list(dict.fromkeys(f"`{one.call.tool}`" for one in self._turn.made))
        if made and error[0] not in reports.VIOLATIONS:  # whose checks tell of each call
            error = (error[0], f"{error[1]} (Calls were made by then: {', '.join(made)}.)")
        return Envelope(error=error, history_mismatch=self._turn.mismatch, **beside)

    def _beside(self, run: AnyRun | None, *, violated: bool = False) -> Mapping[str, Any]:
        names: Mapping[str, Labeled] | None = None
        if self._context.configuration.response.include_namespace_snapshot:
            kept = self._context.state.variables if self._turn.done else None
            names = run.names() if run is not None else kept
        return reports.reported(
            self._turn, self._context.state, self._context.configuration, names, violated=violated
        )
