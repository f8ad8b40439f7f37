"""Programs of a dual-LLM turn, run offline: without a server, a planner or a data model.

The interpreter, the calls of a turn and the gate are those of the local server. So each call has
the labels that it would have there, and the same verdict. Results come from functions, or from a
list.
"""

import inspect
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from typing_extensions import override

from langchain_sequrity.chat_models.tools import write_tools
from langchain_sequrity.display import plain
from langchain_sequrity.display.flow import Flow, flow_of_calls
from langchain_sequrity.display.tables import Table
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    PolicyHeader,
    ResponseFormatConfig,
    coerce,
)
from langchain_sequrity.labels import KINDS, NO_LABELS, Labeled, Labels, labeled_tool_result
from langchain_sequrity.local.answers import ModelAnswer, stream_answer
from langchain_sequrity.local.backends import BackendContext
from langchain_sequrity.local.configuration import Configuration, configure
from langchain_sequrity.local.conversation import last_user, text_of
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.dual_llm.calls import TurnCalls, TurnContext
from langchain_sequrity.local.dual_llm.loop import ProgramLoop, TurnResult
from langchain_sequrity.local.dual_llm.model_calls import ModelCalls
from langchain_sequrity.local.dual_llm.state import DualState, OpenTurn, WaitingCall
from langchain_sequrity.local.memory_sessions import MemorySessions
from langchain_sequrity.local.policy_gate import CheckedResult, GatedCall
from langchain_sequrity.local.program_runs import ProgramRunner
from langchain_sequrity.local.services import Services, TurnInputs
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.sqrt import Coverage, Decision, Simulation, Trial
from langchain_sequrity.sqrt.audited_calls import AuditedTrial
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI
from langchain_sequrity.sqrt.simulation import CountingEngine, RuleCounts
from langchain_sequrity.sqrt.trials import AnyTrial, TrialReader
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.dual_llm import Envelope
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.tool_results import results_as_values, write_tool_result
from langchain_sequrity.wire.tools import name_of, neutral_tool

_MODEL, _ENDPOINT = "dry/run", "chat"
Reader = Callable[[str, Mapping[str, Any]], Any]
"""Answers instead of the data model. It gets the query and the JSON Schema of the answer."""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class ProgramRun(Simulation):
    """A program that was run offline, as the decisions on its calls; made by `run_program`.

    A denial ends the program. `sqrt.simulate` and `sqrt.diff` also try the `trial` of each decision
    on another policy, with the labels that it had here.

    Attributes:
        coverage: The rules and label changes that the calls exercised.
        value: The final value and its labels; `None` without labels if the program failed.
        variables: The variables at the end, with their labels. Values without a JSON form are shown
            as `{"type": …}`.
        session: The session's labels at the end.
        error_code: Why there is no value, such as `policy_violation`, `control_flow_violation`,
            `program_error` or `program_refused`; else an empty text.
        error: The same as a sentence.
    """

    is_turn: ClassVar[bool] = True

    coverage: Coverage
    value: Labeled
    variables: Mapping[str, Labeled]
    session: Labels
    error_code: str = ""
    error: str = ""

    @property
    @override
    def failure(self) -> tuple[str, str]:
        return self.error_code, self.error

    def run_json(self) -> dict[str, Any]:
        """The whole run as plain data: decisions, labels and the error, but no values."""
        return {
            "calls": self.to_json(),
            "value_labels": None if self.error_code else self.value.labels.to_wire(),
            "variables": {name: v.labels.to_wire() for name, v in self.variables.items()},
            "session": self.session.to_wire(),
            "error": {"code": self.error_code, "message": self.error} if self.error_code else None,
            "coverage": self.coverage.to_json(),
        }

    @override
    def table(self) -> Table:
        """The table of the decisions, with the values and their labels below."""
        end = self.error or f"The value is {_value_and_labels(self.value)}"
        values = (f"{name} = {_value_and_labels(value)}" for name, value in self.variables.items())
        return replace(Simulation(self.decisions).table(), notes=(end, *values))

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call and the value."""
        calls, labels = self._flow_calls(), self.value.labels.to_wire()
        title = f"{self._title()}, {self.error_code or 'with a value'}"
        return (flow_of_calls(title, calls, None if self.error_code else labels),)


def _value_and_labels(value: Labeled) -> str:
    differing = (
        f"{label_kind}: {', '.join(sorted(getattr(value.labels, label_kind))) or 'nobody'}"
        for label_kind in KINDS
        if getattr(value.labels, label_kind) != getattr(NO_LABELS, label_kind)
    )
    return f"{plain(dumps(value.value), limit=120)} ({'; '.join(differing) or 'no labels'})"


def run_program(
    policy: object,
    program: str,
    *,
    tools: Iterable[Any] = (),
    results: Iterable[AnyTrial] = (),
    reader: Iterable[Any] | Reader | None = None,
    request: str | None = None,
    variables: Mapping[str, Any] | None = None,
    features: object = None,
    session_config: object = None,
    session: Labels = NO_LABELS,
    replacing_tools: Collection[str] = (),
    isolated_programs: bool | None = None,
) -> ProgramRun:
    r"""Run a program under a policy as a dual-LLM turn does, without a server and without models.

    Each call is checked by the local server's own gate, with the labels that the interpreter found
    for its arguments. An allowed call gets the next of `results` for its tool, or else the result
    of the tool itself: **functions are really called.**

    Args:
        policy: As for `ChatSequrity`. A `PolicyHeader` has its presets, and its `mode` for strict
            or custom control flow.
        program: The program, as a planner writes it.
        tools: Functions, LangChain tools, definitions as for models, or names of tools. Only
            functions and tools can give a result.
        results: Results as `Trial` or mappings with the same keys: `tool`, `result`,
            `result_labels`, `combine`, `is_error`. With `arguments`, it answers only a call that
            has these values. Each answers one call, in order. Those of `parse_with_ai` are answers
            of the reader. The tools in the list are known too, with any arguments.
        reader: The answers of the data model in order, or a function of the query and the JSON
            Schema of the answer, for `parse_with_ai` and `verify_hypothesis`.
        request: The user's request. With it, the program is checked before the run as one that a
            planner wrote for this request.
        variables: Variables that exist before the program: values, or `Labeled` values.
        features: `X-Features`, as for `ChatSequrity`. The session is always dual-LLM. Classifiers
            count typical words, as without a model.
        session_config: `X-Config`, as for `ChatSequrity`.
        session: The session's labels before the program.
        replacing_tools: As for `LocalServer`.
        isolated_programs: As for `LocalServer`.

    Returns:
        The decisions, the final value and all variables with their labels.

    Raises:
        UsageError: If an argument is invalid, or a call or the reader has no answer.
        PolicySyntaxError: If the text is not a SQRT policy.
        StatusError: If the policy needs what only the hosted service has.

    Example:
        ```python
        from langchain_sequrity.dry_run import run_program

        policy = '''
            tool "read_mail" -> @tags |= {"mail"};
            tool "pay" { must deny when amount.tags overlaps {"mail"}; }
        '''
        run = run_program(
            policy,
            "mail = read_mail()\npay(amount=mail['sum'])",
            tools=["pay"],
            results=[{"tool": "read_mail", "result": {"sum": 5}}],
        )
        assert [call.final_verdict for call in run] == ["soft_allowed", "hard_denied"]
        assert "mail" in run.variables["mail"].labels.tags
        ```
    """
    available_tools, header = [*tools], coerce(PolicyHeader, policy)
    answers = _Answers(available_tools, results, reader)
    engine = CountingEngine(header.compile(), RuleCounts())
    configuration = _configuration(header, features, session_config, engine)
    runner = ProgramRunner(isolated=isolated_programs)
    services = Services(
        MemorySessions(), answers, programs=runner,
        replacing_tools=frozenset(replacing_tools) | answers.replacing,
    )  # fmt: skip
    state = DualState(labels=session)
    turn = OpenTurn(
        query=request or "",
        new_messages=() if request is None else (HumanMessage(request),),
        system=(),
        tools=CallerTools.read(
            _definitions(available_tools, answers), configuration.internal_tools
        ),
        is_planned=request is not None,
        variables={name: _labelled(value) for name, value in (variables or {}).items()},
    )
    runner.open()
    try:
        context = _context(services, configuration, state)
        loop = ProgramLoop(context, turn)
        calls = loop.calls = _RecordedCalls(context, turn)
        end = _run(loop, program, answers)
    finally:
        runner.close()
    simulation = Simulation(tuple(calls.decisions))
    code, message = end.error or ("", "")
    variables_at_end = {
        name: Labeled(entry["value"], Labels.from_wire(entry["meta"]))
        for name, entry in (end.namespace_snapshot or {}).items()
    }
    return ProgramRun(
        simulation.decisions,
        coverage=Coverage(tuple(engine.covered_rules()), simulation),
        value=Labeled(end.value, end.labels),
        variables=variables_at_end,
        session=state.labels,
        error_code=code,
        error=message,
    )


def _labelled(value: Any) -> Labeled:
    return value if isinstance(value, Labeled) else Labeled(value)


def _configuration(
    policy: PolicyHeader, features: object, session_config: object, engine: CountingEngine
) -> Configuration:
    """The configuration of a session with these headers; the engine counts what it decides."""
    chosen_features = coerce(FeaturesHeader, features or {})
    sent = {
        "x-features": chosen_features.model_copy(update={"agent_arch": "dual-llm"}).to_header(),
        "x-policy": policy.to_header(),
        "x-config": coerce(ConfigHeader, session_config or {}).to_header(),
    }
    response = ResponseFormatConfig(include_namespace_snapshot=True)
    return replace(configure(sent, _ENDPOINT), engine=engine, response=response)


def _context(services: Services, configuration: Configuration, state: DualState) -> TurnContext:
    numbers = itertools.count(1)
    inputs = TurnInputs(
        ChatRequest(_MODEL, []),
        Session(bearer="", place=""),
        configuration,
        services,
        services.backend,
        _ENDPOINT,
        lambda: f"call-{next(numbers)}",
    )
    models = ModelCalls(
        services.backend, _ENDPOINT, _MODEL, configuration.max_output_tokens,
        parsed_answer_bytes=services.limits.parsed_answer_bytes,
    )  # fmt: skip
    return TurnContext(inputs, state, models)


def _run(loop: ProgramLoop, program: str, answers: "_Answers") -> Envelope:
    reached = loop.run_caller_program(program)
    while isinstance(reached, WaitingCall):
        reached = _returned(loop.resume(answers.message(reached), repairs=False))
    return reached


def _returned(stream: Iterator[Any]) -> TurnResult:
    """What a turn without a planner returns; it streams nothing."""
    while True:
        try:
            next(stream)
        except StopIteration as end:
            reached: TurnResult = end.value
            return reached


class _RecordedCalls(TurnCalls):
    """The calls of a turn, with a decision for each.

    Attributes:
        decisions: The decisions so far.
    """

    def __init__(self, context: TurnContext, turn: OpenTurn) -> None:
        super().__init__(context, turn)
        self.decisions: list[Decision] = []

    @override
    def _checked(
        self, call: Call, line: int, session: Labels, *, is_repeated: bool = False
    ) -> GatedCall:
        checked = super()._checked(call, line, session, is_repeated=is_repeated)
        judged = checked.judged or checked.call
        trial = AuditedTrial(
            judged.tool,
            {name: argument.value for name, argument in judged.arguments.items()},
            {name: argument.labels for name, argument in judged.arguments.items()},
            id=f"line {line}",
            session_labels=session,
            decided_by=judged.decided_by,
            declared=tuple(judged.declared),
            unjudged=f"a classifier denied it: {checked.denied}" if checked.denied else "",
        )
        number = len(self.decisions) + 1
        self.decisions.append(
            Decision(number, trial, judged, checked.verdict, session, checked.session)
        )
        return checked

    @override
    def _store_result(self, labelled: CheckedResult, session: Labels, *, failed: bool) -> Any:
        decision, result = self.decisions[-1], labelled.result
        trial = replace(decision.trial, result=result.value, is_error=failed)
        self.decisions[-1] = replace(
            decision, trial=trial, session_after=session, result_labels=result.labels
        )
        return super()._store_result(labelled, session, failed=failed)


# Tools and their results


def _definitions(available_tools: Iterable[Any], answers: "_Answers") -> list[dict[str, Any]]:
    """Definitions of the tools; those without a definition take any arguments."""
    written = write_tools(
        [tool for tool in available_tools if not isinstance(tool, str)], strict=None, results=True
    )
    defined = {name_of(tool) for tool in written}
    named = dict.fromkeys(
        [*(tool for tool in available_tools if isinstance(tool, str)), *answers.listed]
    )
    return [*written, *(neutral_tool({"name": name}) for name in named if name not in defined)]


class _Answers:
    """Answers the calls of a program, and is the backend that answers for the data model.

    Args:
        tools: The tools. Functions and LangChain tools can be called.
        results: The listed results.
        reader: The reader.

    Attributes:
        listed: The results that are left, by tool.
        replacing: The tools whose listed results replace labels.
    """

    def __init__(
        self,
        tools: Iterable[Any],
        results: Iterable[AnyTrial],
        reader: Iterable[Any] | Reader | None,
    ) -> None:
        self.listed: dict[str, deque[Trial]] = {}
        trials = [TrialReader(number, result).read() for number, result in enumerate(results, 1)]
        for trial in trials:
            self.listed.setdefault(trial.tool, deque()).append(trial)
        self.replacing = frozenset(trial.tool for trial in trials if trial.combine == "replace")
        answers = [trial.result for trial in self.listed.pop(PARSE_WITH_AI, ())]
        if not callable(reader):
            answers += reader or ()
        self._answers = deque(answers)
        self._reader = reader if callable(reader) else None
        functions = map(runnable_tool, filter(can_run, tools))
        self._functions = {tool.name: tool for tool in functions}

    def message(self, call: WaitingCall) -> ToolMessage:
        """The result of an allowed call, as the server gets it from a client."""
        values = {name: argument.value for name, argument in call.arguments.items()}
        trial = self._listed(call.tool, values)
        if trial is not None:
            message = _listed_message(trial, call.id)
        elif call.tool in self._functions:
            message = called_tool(self._functions[call.tool], values, call.id)
        else:
            msg = (
                f"Line {call.line}: there is no result for this call of "
                f"`{plain(call.tool, limit=80)}` with {plain(dumps(values), limit=300)}. Add "
                '`{"tool": …, "result": …}` to the results, or give the tool as a function.'
            )
            raise UsageError(msg)
        (sent,) = results_as_values([message])
        content = write_tool_result(sent.content, message.artifact)
        return ToolMessage(content, tool_call_id=call.id, status=message.status)

    def _listed(self, tool: str, values: Mapping[str, Any]) -> Trial | None:
        """Take the next result for a call with these arguments."""
        unused = self.listed.get(tool, deque())
        fits = (trial for trial in unused if trial.arguments.items() <= values.items())
        if (trial := next(fits, None)) is not None:
            unused.remove(trial)
        return trial

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer for the data model; other models are the deterministic one."""
        if context.role != "quarantined":
            return DeterministicModel().stream(request, context)
        query = text_of(last_user(request.messages))
        if self._reader is not None:
            schema = (request.response_format or {})["json_schema"]["schema"]
            answer = self._reader(query, schema)
        elif self._answers:
            answer = self._answers.popleft()
        else:
            msg = (
                f"The reader has no answer left for the query {plain(query, limit=300)!r}. Add one "
                "to `reader`, or to the results as one of `parse_with_ai`."
            )
            raise UsageError(msg)
        return stream_answer(ModelAnswer(text=dumps(answer)), request)


def can_run(tool: object) -> bool:
    """Whether it is a function or a LangChain tool, and no definition."""
    return isinstance(tool, BaseTool) or inspect.isroutine(tool)


def runnable_tool(tool: Any) -> BaseTool:
    """A function as a LangChain tool.

    Raises:
        UsageError: If it is only asynchronous.
    """
    if not isinstance(tool, BaseTool):
        is_async = inspect.iscoroutinefunction(tool)
        name = tool.__name__
        function = {"coroutine" if is_async else "func": tool}
        tool = StructuredTool.from_function(**function, description=tool.__doc__ or name)
    if isinstance(tool, StructuredTool) and tool.func is None:
        msg = f"The tool `{tool.name}` is asynchronous. List its results, or give a function."
        raise UsageError(msg)
    checked: BaseTool = tool
    return checked


def called_tool(tool: BaseTool, values: Mapping[str, Any], call_id: str) -> ToolMessage:
    """The result of a tool, or of its failure, as an agent gets it."""
    try:
        result = tool.invoke(
            {"type": "tool_call", "name": tool.name, "args": {**values}, "id": call_id}
        )
    except Exception as error:  # noqa: BLE001 - a tool may raise anything
        text = f"{type(error).__name__}: {error}"
        return ToolMessage(text, tool_call_id=call_id, status="error")
    if isinstance(result, ToolMessage):
        return result
    msg = (
        f"The tool `{tool.name}` returned a value of type `{type(result).__name__}`, which only a "
        "graph can use. List its results instead."
    )
    raise UsageError(msg)


def _listed_message(trial: Trial, call_id: str) -> ToolMessage:
    content = trial.result if isinstance(trial.result, str) else dumps(trial.result)
    artifact = None
    if trial.result_labels != NO_LABELS or trial.combine != "merge":
        names = {label_kind: getattr(trial.result_labels, label_kind) for label_kind in KINDS}
        content, artifact = labeled_tool_result(content, **names, combine=trial.combine)
    return ToolMessage(
        content, artifact=artifact, tool_call_id=call_id,
        status="error" if trial.is_error else "success",
    )  # fmt: skip
