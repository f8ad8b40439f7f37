"""The loop of a turn: the planner writes programs, they run, and failed ones are replaced.

The loop stops at a call for the caller, or at the end of the turn.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessageChunk, ToolMessage

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.classifiers import UnusableAnswer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.dual_llm import feedback, planner, prompts
from langchain_sequrity.local.dual_llm.calls import (
    INTERNAL_SCHEMAS,
    OfferedCall,
    TurnCalls,
    TurnCompleted,
    TurnContext,
)
from langchain_sequrity.local.dual_llm.state import Attempt, FailedProgram, OpenTurn, WaitingCall
from langchain_sequrity.local.interpreter import (
    Labeled,
    NextProgram,
    ProgramFinished,
    ProgramRaised,
    ProgramRefused,
    ReplayDiverged,
    ToolCall,
)
from langchain_sequrity.local.interpreter.program import ANSWER
from langchain_sequrity.local.interpreter.run import Answer
from langchain_sequrity.local.observers import ProgramOutcome
from langchain_sequrity.local.policy_gate import GatedCall, denial_message
from langchain_sequrity.local.program_runs import AnyRun, replay_to
from langchain_sequrity.local.tool_results import BadResult
from langchain_sequrity.wire.dual_llm import Envelope

_MOST_REPEATED = 3
_MAX_STEPS, _MAX_FAILED_STEPS, _MAX_TOOL_CALLS = 10, 3, 200
# Error codes of a turn; those of one place are written there. The service does not publish its own
# (`docs/local-server.md`).
_POLICY_VIOLATION = "policy_violation"
_LIMIT_REACHED = "limit_reached"
_CONTROL_FLOW = "control_flow_violation"
_CONTROL_FLOW_VIOLATED = (
    # Clients of the service look for this text in an envelope.
    "Control flow violation: the program violated control flow policies"
)
_PLANNER_MAY_NOT_SEE = (
    f"{_CONTROL_FLOW_VIOLATED}. `prompt.pllm` of `X-Config` shows the planner data that may not "
    "decide the control flow (`branching_meta_policy`), but the planner decides which calls are "
    "made. Show the planner less, or allow these labels."
)
_CALLS_BEFORE = {
    "Calls were made before": None,
    "Calls were refused, and not made": "certain",
    "Calls were refused, as their results say": "stated",
}
_VIOLATIONS = frozenset({_POLICY_VIOLATION, _CONTROL_FLOW})
_ERROR_CODES = {
    "exception": "program_error",
    "budget": _LIMIT_REACHED,
    "branch": _CONTROL_FLOW,
    "exit": "program_exit",
    "value": "value_not_json",
}


TurnResult = WaitingCall | Envelope
"""What a request led to: a call for the caller, or the end of the turn."""


@dataclass(frozen=True, slots=True)
class _ProgramResult:
    """The end of a program, after which the turn may continue with another program.

    Attributes:
        outcome: The text for the planner, with the labels of the data in it.
        end: The end of the turn if there is no other program.
        failed: Whether the program failed.
        context: The new list of variables for the planner, if they have changed.
        is_corrected: Whether this text has the program in another form.
        may_repeat: Whether the same program may do better, because a tool has failed.
    """

    outcome: Labeled
    end: Envelope
    failed: bool = True
    context: Labeled | None = None
    is_corrected: bool = False
    may_repeat: bool = False


_Reached = TurnResult | _ProgramResult
TurnStream = Generator[AIMessageChunk, None, TurnResult]


class ProgramLoop:
    """Writes and runs the programs of one turn.

    Args:
        context: The context of the turn.
        turn: The turn.

    Attributes:
        calls: The tool calls of the turn.
        variables: The variables where the last program stopped, if somebody observes them.
    """

    def __init__(self, context: TurnContext, turn: OpenTurn) -> None:
        self.variables: Mapping[str, Labeled] = {}
        self._context = context
        self._turn = turn
        self._fsm = context.configuration.fsm
        self._names = turn.tools.names
        self.calls = TurnCalls(context, turn)
        self._is_cut = False
        self._makes_reply = True

    def plan(self) -> TurnStream:
        """Let the planner write programs until one makes a call or ends the turn.

        Yields:
            The planner's thoughts.

        Returns:
            A call for the caller, or the end of the turn.
        """
        prompt = self._context.configuration.planner
        self._turn.context = self._turn.show(prompts.variables_text(self._turn.variables, prompt))
        written = yield from self._write()
        return (yield from self._run_programs(written))

    def run_caller_program(self, program: str) -> TurnResult:
        """Run a program of the caller; if it fails, there is no other one."""
        self._begin_attempt()
        self._turn.program = program
        return _without_repair(self._start())

    def resume(self, message: ToolMessage, *, repairs: bool) -> TurnStream:
        """Give the program the result that it waits for.

        Args:
            message: The result.
            repairs: Whether the planner may write another program if this one fails.

        Yields:
            The planner's thoughts.

        Returns:
            A call for the caller, or the end of the turn.
        """
        self._makes_reply = repairs
        call, self._turn.waiting = self._turn.waiting, None
        assert call is not None  # noqa: S101 - an open turn waits for a result
        if call.is_offered:  # the program has not failed after all
            self._turn.failures -= {len(self._turn.programs) - 1}
        if self._context.run is None:
            self._replay()
        try:
            result = self.calls.add_result(call, message)
        except BadResult as problem:
            text = f"The result of `{call.tool}` cannot be used. {problem}"
            return self._failure(("tool_result_refused", text))
        advanced = self._advance(result)
        if repairs and self._turn.is_planned:
            return (yield from self._run_programs(advanced))
        return _without_repair(advanced)

    def outcome(self, reached: TurnResult | None) -> ProgramOutcome:
        """How far the programs came.

        Args:
            reached: What the request led to.
        """
        turn, value = self._turn, None
        if isinstance(reached, Envelope) and reached.error is None:
            value = Labeled(reached.value, reached.labels)
        return ProgramOutcome(
            turn.query,
            turn.is_planned,
            turn.programs or (turn.program,),
            turn.failures,
            tuple(attempt.outcome for attempt in turn.attempts),
            self.variables,
            value,
            self._context.state.labels,
        )

    def _replay(self) -> None:
        """Replay the run up to the call that it waits for."""
        try:
            replay_to(self._new_run())
        except (ProgramRefused, ReplayDiverged):
            # It ran before, so perhaps the process of the program was ended, which others share.
            replay_to(self._new_run())

    def _new_run(self) -> AnyRun:
        context = self._context
        context.close_run()
        turn, configuration = self._turn, context.configuration
        tools = {
            self._names[tool["function"]["name"]]: tool["function"].get("parameters") or {}
            for tool in turn.tools
        }
        tools |= {name: INTERNAL_SCHEMAS[name] for name in configuration.internal_tools}
        queries = [
            *(past_turn.query for past_turn in context.state.past),
            turn.query,
            *map(text_of, turn.system),
        ]
        context.run = context.inputs.services.programs.run(
            turn.done[0] if turn.done else turn.program,
            context.inputs.session.bearer,
            tools=tools,
            variables=turn.variables,
            may_branch=configuration.may_branch,
            is_strict=configuration.is_strict,
            log=turn.events,
            has_steps=turn.has_steps,
            user_request="\n".join(queries) if turn.is_planned else None,
            result_schemas=self._result_schemas() if turn.is_planned else None,
        )
        return context.run

    def _result_schemas(self) -> dict[str, Any]:
        """JSON Schemas of the results that programs get, by the tools' names in programs."""
        return {
            self._names[tool["function"]["name"]]: (
                _wrapped(schema) if self._fsm.wrap_tool_result else schema
            )
            for tool in self._turn.tools
            if isinstance(schema := tool["function"].get("output_schema"), Mapping)
        }

    def _can_run(self, program: str) -> bool:
        turn = self._turn
        inputs = self._context.inputs
        names = prompts.names_in_programs(turn.done) | turn.variables.keys() if turn.done else ()
        try:
            inputs.services.programs.check(program, inputs.session.bearer, names)
        except ProgramRefused:
            return False
        return True

    # Programs one after the other

    def _run_programs(self, reached: _Reached) -> TurnStream:
        while isinstance(reached, _ProgramResult):
            self._turn.failed_steps += reached.failed
            if (end := self._end_by_limit(reached)) is not None:
                return end
            self._add_attempt(reached)
            reached = yield from self._write()
        return reached

    def _end_by_limit(self, ended: _ProgramResult) -> Envelope | None:
        """The end of the turn, if a limit allows no further program."""
        turn, most = self._turn, self._fsm.max_pllm_steps or _MAX_STEPS
        may_fail = self._fsm.max_pllm_failed_steps or _MAX_FAILED_STEPS
        if turn.failed_steps >= may_fail:
            text = f"{may_fail} steps of a turn may fail (`fsm.max_pllm_failed_steps`)"
        elif turn.steps >= most:
            text = f"a turn has {most} steps at most (`fsm.max_pllm_steps`)"
        else:
            return None
        if ended.end.error is None:
            text = f"The turn has no answer, and {text}."
            return self._failure((_LIMIT_REACHED, text))
        code, message = ended.end.error
        if not self._turn.has_steps or code in _VIOLATIONS:  # clients read this message
            return ended.end
        return replace(ended.end, error=(code, f"{message} (There is no other step: {text}.)"))

    def _add_attempt(self, ended: _ProgramResult) -> None:
        turn = self._turn
        program = turn.program if ended.failed else turn.done[-1]
        outcome, is_shown = turn.show(ended.outcome), not ended.is_corrected
        attempt = Attempt(program, outcome, turn.context, is_shown=is_shown)
        turn.attempts = (*turn.attempts, attempt)
        if ended.failed and ended.end.error is not None:
            code, message = ended.end.error
            error = code, message.removesuffix(self._calls_before())
            failed = FailedProgram(program, outcome, error, ended.may_repeat)
            turn.failed = (*turn.failed, failed)
        else:
            turn.failed = ()
        if ended.context is not None:
            turn.context = turn.show(ended.context)
        every = self._fsm.clear_history_every_n_attempts
        if every is not None and not self._turn.has_steps and len(turn.attempts) >= every:
            turn.attempts = ()

    def _write(self) -> Generator[AIMessageChunk, None, _Reached]:
        """Let the planner write a program, and run it.

        Yields:
            The planner's thoughts.
        """
        turn = self._turn
        self._begin_attempt()
        labels = self._context.state.planner_labels.join(turn.prompt_labels)
        may_branch = self._context.configuration.may_branch
        # The planner decides which calls are made, so what it is shown decides the control flow.
        if may_branch is not None and labels != NO_LABELS and not may_branch(labels):
            return self._failure((_CONTROL_FLOW, _PLANNER_MAY_NOT_SEE), violated=True)
        self._context.state.planner_labels = labels
        try:
            turn.program, self._is_cut = yield from planner.ask_for_program(
                self._context, turn, self._names, can_run=self._can_run
            )
        except UnusableAnswer as problem:
            return self._failed_program(str(problem), ("planner_failed", str(problem)))
        turn.programs = (*turn.programs, turn.program)
        return self._repeated() or self._start()

    def _repeated(self) -> _ProgramResult | Envelope | None:
        """What to do instead, if the program has failed in this turn before.

        Only if it failed because a tool of the caller did, it may run a second time.
        """
        lines = _lines_of(self._turn.program)
        same = [failed for failed in self._turn.failed if _lines_of(failed.program) == lines]
        if not same or (len(same) == 1 and same[0].may_repeat):
            return None
        (code, message), times = same[0].error, len(same) + 1
        if code not in _VIOLATIONS:  # clients read this message
            message = f"{message} (The planner wrote the same program {times} times.)"
        end = self._failure((code, message), violated=code in _VIOLATIONS)
        outcome = Labeled(f"{feedback.SAME} {same[0].outcome}")
        return end if times >= _MOST_REPEATED else _ProgramResult(outcome, end, is_corrected=True)

    def _begin_attempt(self) -> None:
        if self._fsm.clear_session_meta == "every_attempt":
            self._context.state.labels = Labels()
        self._turn.begin_program()

    def _start(self) -> _Reached:
        turn = self._turn
        try:
            if not turn.done:
                self._new_run()
                return self._advance(None)
            if self._context.run is None:  # the last step failed, and its run was closed
                replay_to(self._new_run(), ProgramFinished)
            return self._advance(NextProgram(turn.program))
        except ProgramRefused as refused:
            if not turn.done:
                self._context.close_run()
            outcome = feedback.refusal_feedback(
                refused, turn.program, self._names.values(), is_cut=self._is_cut
            )
            program_result = self._failed_program(outcome, ("program_refused", str(refused)))
            return replace(program_result, is_corrected=refused.corrected is not None)

    # One program

    def _advance(self, answer: Answer | None) -> _Reached:
        """Run until a call for the caller, or until the end of the program.

        The run stays if it waits for the result of the call, or for the next step.
        """
        run = self._context.run
        assert run is not None  # noqa: S101 - for mypy
        reached = self._run_steps(run, answer)
        is_step = isinstance(reached, _ProgramResult) and not reached.failed
        if not is_step and self._turn.waiting is None:
            self._context.close_run()
        return reached

    def _run_steps(  # noqa: PLR0911 - one per end
        self, run: AnyRun, answer: Answer | None
    ) -> _Reached:
        most = self._fsm.max_tool_calls_per_step
        if "max_tool_calls_per_step" not in self._fsm.model_fields_set:  # `None` means no limit
            most = _MAX_TOOL_CALLS
        while True:
            step = run.advance(answer)
            if not isinstance(step, ToolCall):
                self._show_variables(run)
                reached = self._end_of_program(run, step)
                is_last = answer is not None and answer is self.calls.ignored_refusal
                if is_last and isinstance(step, ProgramRaised) and step.type == "ToolError":
                    return _without_repair(reached)  # the planner would ignore the refusal again
                return reached
            if most is not None and self._turn.calls >= most:
                text = f"The program made more than {most} calls (`fsm.max_tool_calls_per_step`)."
                return self._failed_program(text, (_LIMIT_REACHED, text))
            response = self.calls.make(step)
            match response:
                case WaitingCall():
                    self._keep_log(run)
                    self._turn.waiting = response
                    return response
                case TurnCompleted():
                    if (missing := self._missing_call()) is not None:
                        return missing
                    self._show_variables(run)
                    self._keep_variables(run.variables())
                    return self._success(response.value, None)
                case OfferedCall() | GatedCall():
                    return self._denied(run, step, response)
                case _:
                    answer = response

    def _keep_log(self, run: AnyRun) -> None:
        """Keep the new events of the run, from which it can be replayed."""
        self._turn.keep_events(run.events_after(len(self._turn.stored_log)))

    def _show_variables(self, run: AnyRun) -> None:
        if self._context.inputs.services.observers.of_models:
            self.variables = run.names()

    def _denied(self, run: AnyRun, step: ToolCall, denied: OfferedCall | GatedCall) -> _Reached:
        self._show_variables(run)
        if isinstance(denied, OfferedCall):
            self._keep_log(run)
            self._turn.waiting = denied.call
            error = (_POLICY_VIOLATION, denial_message(denied.check))
            return replace(self._failure(error, violated=True), offered=denied.call.id)
        prompt = self._context.configuration.planner
        feedback_text = feedback.denial_feedback(step.tool, step.line, prompt, self._turn.program)
        return self._violated(Labeled(feedback_text), (_POLICY_VIOLATION, denial_message(denied)))

    def _violated(self, outcome: Labeled, error: tuple[str, str]) -> _Reached:
        end = self._failure(error, violated=True)
        return _ProgramResult(outcome, end) if self._fsm.retry_on_policy_violation else end

    def _end_of_program(self, run: AnyRun, step: ProgramFinished | ProgramRaised) -> _Reached:
        prompt, turn = self._context.configuration.planner, self._turn
        if isinstance(step, ProgramRaised):
            # Data can put half a surrogate pair into an exception, which UTF-8 cannot encode.
            step = replace(step, message=step.message.encode("utf-8", "replace").decode())
            outcome = feedback.failure_feedback(
                step, prompt, turn.program, self._known_names(), self.calls.own_failures
            )
            error = _code_and_message(step)
            if step.kind == "branch":
                return self._violated(outcome, error)
            is_own = (step.line, step.message) in self.calls.own_failures
            may_repeat = step.type == "ToolError" and not is_own
            return _ProgramResult(outcome, self._failure(error), may_repeat=may_repeat)
        # A `None` from a tool is an answer: data must not decide whether there is another step.
        is_answered = step.value.value is not None or step.value.labels != Labels()
        is_end = is_answered or not self._turn.has_steps
        if is_end and (missing := self._missing_call()) is not None:
            return missing
        self._keep_variables(run.variables())
        end = self._success(step.value, step.value_type)
        if is_end:
            return end
        turn.done = (*turn.done, turn.program)
        turn.settle()
        self._keep_log(run)
        turn.program, turn.done_events = "", len(turn.stored_log)
        types = {name: type_name for name, type_name in run.kinds().items() if name != ANSWER}
        types = prompts.trusted_kinds(types, self._known_names())
        context = prompts.variables_text(self._context.state.variables, prompt, types)
        return _ProgramResult(Labeled(feedback.ENDED), end, failed=False, context=context)

    def _missing_call(self) -> _ProgramResult | None:
        """The failure of a program that ends, if the request requires a call instead of an end.

        With `required` each reply has to be a call, as in OpenAI's format: agents read their
        structured response from it. A tool that is named has to be called once in the turn.
        """
        turn, choice = self._turn, self._context.inputs.request.tool_choice
        if not turn.is_planned or not self._makes_reply:
            return None
        called = {made_call.tool for made_call in (*turn.calls_made, *turn.settled)}
        if isinstance(choice, dict) and choice["name"] not in called:
            required = [choice["name"]]
        elif choice == "required":
            names = [*turn.tools.names]
            required = [name for name in names if name not in called] or names
        else:
            return None
        listed = " or ".join(f"`{self._names[name]}`" for name in required)
        outcome = (
            "The program ended without a call that the application requires: it reads the "
            "arguments of the call, and not `final_return_value`. Write the program again and let "
            f"it end with a call of {listed}. Calls that were made before are not made twice."
        )
        error = f"The program ended without a call of {listed}, which `tool_choice` requires."
        return self._failed_program(outcome, ("forced_call_missing", error))

    def _keep_variables(self, variables: Mapping[str, Labeled]) -> None:
        """Keep variables for later turns; programs of the caller have their own.

        The planner sees their names, so only words of programs are kept, whatever a worker reports.
        """
        if self._turn.is_planned:
            words = self._known_names()
            self._context.state.variables = {
                name: value for name, value in variables.items() if name in words and name != ANSWER
            }

    def _known_names(self) -> frozenset[str]:
        return prompts.names_in_programs(self._turn.programs) | self._turn.variables.keys()

    # Ends

    def _failed_program(self, outcome: str, error: tuple[str, str]) -> _ProgramResult:
        """The end of a program for a reason whose text contains no data."""
        return _ProgramResult(Labeled(outcome), self._failure(error))

    def _success(self, value: Labeled, value_type: str | None) -> Envelope:
        # Whatever leaves the planner's programs has the labels of all data that it was shown.
        labels = value.labels.join(self._context.state.planner_labels)
        return Envelope(
            value.value, labels, value_type, history_mismatch=self._turn.mismatch, **self._report()
        )

    def _failure(self, error: tuple[str, str], *, violated: bool = False) -> Envelope:
        if self._turn.is_planned and self._turn.program:
            self._turn.failures |= {len(self._turn.programs) - 1}
        report = self._report(violated=violated)
        if error[0] not in _VIOLATIONS:  # their checks list all calls
            error = (error[0], f"{error[1]}{self._calls_before()}")
        return Envelope(error=error, history_mismatch=self._turn.mismatch, **report)

    def _calls_before(self) -> str:
        """The calls that the program and failed ones before it have made, and those refused."""
        lists = []
        for head, refusal in _CALLS_BEFORE.items():
            calls = (m.tool for m in self._turn.calls_made if m.refusal == refusal)
            if names := ", ".join(dict.fromkeys(f"`{tool}`" for tool in calls)):
                lists.append(f"{head}: {names}.")
        return f" ({' '.join(lists)})" if lists else ""

    def _report(self, *, violated: bool = False) -> dict[str, Any]:
        """The parts of the envelope that `X-Config` asks for."""
        response, turn, state = (
            self._context.configuration.response,
            self._turn,
            self._context.state,
        )
        report: dict[str, Any] = {}
        if response.include_program and turn.text:
            report["program"] = turn.text
        # After a violation checks are always reported.
        if response.include_policy_check_history or violated:
            report["policy_check_history"] = turn.checks.report(state.names)
        if response.include_namespace_snapshot:
            run, variables = self._context.run, state.variables if turn.done else None
            names = run.names() if run is not None else variables
            if names is not None:
                report["namespace_snapshot"] = {
                    name: {
                        "value": value.value,
                        "meta": value.labels.join(state.planner_labels).to_wire(),
                    }
                    for name, value in names.items()
                }
        if response.include_policy_check_history or response.include_namespace_snapshot:
            report["session_labels"] = state.labels
        return report


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a result in `{ok: …}`; references of the schema lead to its own root."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    fields = {"ok": {"type": "boolean"}, "value": schema, "error": {"type": "string"}}
    return {**shared, "type": "object", "properties": fields}


def _lines_of(program: str) -> list[str]:
    """The lines of a program, without empty ones and without spaces at their ends."""
    return [*filter(None, map(str.rstrip, program.split("\n")))]


def _without_repair(reached: _Reached) -> TurnResult:
    return reached.end if isinstance(reached, _ProgramResult) else reached


def _code_and_message(failed: ProgramRaised) -> tuple[str, str]:
    """Code and message for a failed program."""
    code = _ERROR_CODES[failed.kind]
    if failed.kind == "branch":
        return code, f"{_CONTROL_FLOW_VIOLATED} at line {failed.line}. {failed.message}"
    return code, f"The program failed at line {failed.line} with `{failed.type}`: {failed.message}"
