"""Tool calls of a program: checked, then answered here, answered from the cache, or handed out.

The server runs the internal tools itself: a data model that reads and judges, and two small tools.
They are subject to the policy like any tool. The data model sees its query alone and has no tools.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as MessageCall

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.labels import NO_LABELS, FieldLabels, Labels
from langchain_sequrity.local.classifiers import UnusableAnswer
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.dual_llm.message_labels import remember_labels
from langchain_sequrity.local.dual_llm.model_calls import ModelCalls
from langchain_sequrity.local.dual_llm.prompts import type_and_size
from langchain_sequrity.local.dual_llm.state import (
    DualState,
    MadeCall,
    OpenTurn,
    WaitingCall,
)
from langchain_sequrity.local.interpreter import Labeled, ToolCall, ToolFailure
from langchain_sequrity.local.interpreter.static_types import has_unknown_type
from langchain_sequrity.local.observed_calls import tell_of_check, tell_of_result
from langchain_sequrity.local.policy_gate import CheckedResult, GatedCall, ScreenedGate, check_entry
from langchain_sequrity.local.program_runs import AnyRun
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.local.stored_messages import StoredMessage
from langchain_sequrity.local.tool_results import (
    AskWhetherError,
    BadResult,
    ReadResult,
    read_result,
)
from langchain_sequrity.owned_cache import owned_cache
from langchain_sequrity.patterns import TimeBudget
from langchain_sequrity.sqrt import Call, Engine, Presets, compile_policy, parse
from langchain_sequrity.sqrt.coerce import (
    ENOUGH,
    INTERNAL_TOOLS,
    ToolArguments,
    arguments_of_sent_tools,
    has_enough_flag,
)
from langchain_sequrity.sqrt.endorsements import Sources
from langchain_sequrity.sqrt.gate import ToolReturn, call_digest
from langchain_sequrity.sqrt.nodes import Binding, ToolBlock
from langchain_sequrity.strict_json import as_text, dumps


@dataclass(slots=True)
class TurnContext:
    """What all parts of a dual-LLM turn share.

    Attributes:
        inputs: The request and what it is answered with.
        state: A copy of the session's state, which changes.
        models: The models.
        run: The live run of the turn's program, which waits for a result or a next step.
    """

    inputs: TurnInputs
    state: DualState
    models: ModelCalls
    run: AnyRun | None = None

    @property
    def configuration(self) -> Configuration:
        """The configuration from the session's headers."""
        return self.inputs.configuration

    def close_run(self) -> None:
        """End the live run; it is replayed if it is needed again."""
        run, self.run = self.run, None
        if run is not None:
            run.close()


_CACHE_SECONDS = 0.2  # for all patterns and one name
_REMEMBERED = 256
_LIKELY = 0.5
_SUMMARY = "Here is a summary of the conversation"  # `SummarizationMiddleware` of langchain 1
_REFUSED = "This call was refused before, and is not made again."
_ONLY_CHECKS = Presets(llm_blocked=None, non_executable_memory=False)


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """The program has ended the turn with this value."""

    value: Labeled


@dataclass(frozen=True, slots=True)
class OfferedCall:
    """A softly denied call, which a person may approve (`docs/behaviour.md`, T6).

    Attributes:
        call: The call as it waits.
        check: Its check.
    """

    call: WaitingCall
    check: GatedCall


class _SentTools(Mapping[str, ToolArguments]):
    """The arguments of the caller's tools by name, read when a tool is called.

    Args:
        tools: The tools.
    """

    def __init__(self, tools: CallerTools) -> None:
        self._tools = tools.by_name
        self._read: dict[str, ToolArguments] = {}

    def __getitem__(self, name: str) -> ToolArguments:
        if name not in self._read:
            self._read |= arguments_of_sent_tools([self._tools[name]])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


class TurnCalls:
    """The tool calls of one turn.

    Args:
        context: The context of the turn; the session's labels, cache and policies change.
        turn: The turn; its checks and its count of calls change.

    Attributes:
        own_failures: Lines at which the server's own tools have failed, with their fixed texts.
        ignored_refusal: The last answer to a call of which the planner knew that it was refused.
    """

    def __init__(self, context: TurnContext, turn: OpenTurn) -> None:
        self._context = context
        self._state = context.state
        self._configuration = context.configuration
        self._turn = turn
        self.own_failures: set[tuple[int, str]] = set()
        self._own_names = turn.tools.own_names
        self._tools = _SentTools(turn.tools)
        self._gate = self._screened_gate()
        self.ignored_refusal: Labeled | ToolFailure | None = None

    def make(
        self, step: ToolCall
    ) -> Labeled | ToolFailure | WaitingCall | OfferedCall | GatedCall | TurnCompleted:
        """Make a call.

        Args:
            step: The call of the program.

        Returns:
            Its result, if it is known; a call to hand out, or to offer; the check that denied it;
            or the end of the turn.
        """
        self._turn.calls += 1
        call = self._call(self._own_names.get(step.tool, step.tool), step.arguments)
        if not all(map(_is_unicode, call.arguments)):
            return ToolFailure("The name of an argument is not valid JSON text.", call.labels)
        if step.tool not in self._own_names:
            checked = self._checked(call, step.line, self._state.labels)
            return self._internal(checked.call, step.line) if checked.allowed else checked
        digest = self._gate.digest(call)
        session = self._state.labels
        earlier = self._turn.reuse_call(digest) or self._turn.refused_call(digest)
        if earlier is not None:
            answer = self._refused_before if earlier.refusal else self._made_before
            return answer(call, step.line, earlier)
        checked = self._checked(call, step.line, session)
        if not checked.allowed:
            is_offered = self._offers and checked.may_be_approved
            return self._offered(checked, digest, step.line) if is_offered else checked
        call, is_cached = checked.call, self._is_cached(call.tool)
        cached = self._state.cache.get(self._gate.digest(call)) if is_cached else None
        if cached is not None:  # it replaces the tool, not the policy on its results
            return self._wrap_result(self._label_result(call, cached, failed=False))
        call_id = self._context.inputs.new_call_id()
        values = dict(call.arguments)
        return WaitingCall(call_id, call.tool, values, digest, session, step.line, is_cached)

    @property
    def _offers(self) -> bool:
        """Whether soft denials are offered. A reply without envelope has no place for an offer."""
        offers = self._configuration.fsm.offer_soft_denials
        strips = self._configuration.response.strip_response_content
        return bool(offers and self._turn.is_planned and not strips)

    def _offered(self, checked: GatedCall, digest: str, line: int) -> OfferedCall:
        call_id, call = self._context.inputs.new_call_id(), checked.call
        values = dict(call.arguments)
        waiting = WaitingCall(
            call_id, call.tool, values, digest, checked.before, line, is_offered=True
        )
        return OfferedCall(waiting, checked)

    def _approval_digest(self, call: Call) -> str:
        """Digest of what a person approves: the call, its labels, and the rules that it is under.

        The rules are those that programs added; `X-Policy` is the same for the whole session.
        """
        values = {name: argument.value for name, argument in call.arguments.items()}
        labels = {name: argument.labels.to_wire() for name, argument in call.arguments.items()}
        return call_digest(call.tool, values, labels, within=[*self._state.policies])

    def _call(self, tool: str, arguments: Mapping[str, Labeled]) -> Call:
        """A call. What the planner was shown decided it, and each of its arguments (T3)."""
        decided_by = self._state.planner_labels
        if decided_by == NO_LABELS:
            return Call(tool, arguments)
        labelled = {
            name: replace(argument, labels=argument.labels.join(decided_by))
            for name, argument in arguments.items()
        }
        return Call(tool, labelled, decided_by)

    def _checked(
        self, call: Call, line: int, session: Labels, *, is_repeated: bool = False
    ) -> GatedCall:
        checked = self._gate.check(call, session)
        current = self._state.labels
        self._state.labels = current.join(checked.session) if is_repeated else checked.session
        entry = check_entry(checked, line, self._state.names.pack)
        if self._turn.has_steps:
            entry = {"step": self._turn.steps, **entry}
        if is_repeated:
            entry["repeated"] = True
        self._turn.checks.add(entry)
        tell_of_check(
            checked, self._context.inputs, self._turn.calls, is_repeated=is_repeated,
            program=self._turn.steps, line=line,
        )  # fmt: skip
        return checked

    def _made_before(
        self, call: Call, line: int, earlier: MadeCall
    ) -> Labeled | ToolFailure | GatedCall:
        """Answer a call with the result that it had in an earlier program, which failed later.

        The call was allowed then, and its own effects on the session must not deny it now. So it
        is judged with the session's labels of that time and the current labels of its arguments.
        The current session only gets the labels that this adds.
        """
        session = self._state.names.unpack(earlier.session)
        checked = self._checked(call, line, session, is_repeated=True)
        if not (checked.allowed or self._was_approved(checked, earlier)):
            return checked
        result = cast("ToolMessage", earlier.result.message())
        returned = self._read(call.tool, result).returned
        labelled = self._gate.label_result(checked.call, returned, checked.session)
        session = self._state.labels.join(labelled.session)
        return self._wrap_result(self._store_result(labelled, session, failed=False))

    def _was_approved(self, checked: GatedCall, earlier: MadeCall) -> bool:
        """Whether a person has approved exactly this call, which was made then."""
        if not checked.may_be_approved or earlier.approved != self._approval_digest(checked.call):
            return False
        self._turn.checks.remark({"decision": "approved"})
        return True

    def _refused_before(self, call: Call, _: int, refused: MadeCall) -> Labeled | ToolFailure:
        """Answer a call that was refused in this turn: nobody is asked, and nothing is checked."""
        raises = self._configuration.fsm.detect_tool_errors != "none"
        answer = self._wrap_result((ToolFailure if raises else Labeled)(_REFUSED, call.labels))
        if refused.step < self._turn.steps:
            self.ignored_refusal = answer
        return answer

    def add_result(self, call: WaitingCall, message: ToolMessage) -> Labeled | ToolFailure:
        """Take the result of a call that was handed out.

        Args:
            call: The call.
            message: The tool message.

        Returns:
            The result for the program.

        Raises:
            BadResult: If it cannot be used.
        """
        read = self._read(call.tool, message, self._is_error)
        returned, failed = read.returned, read.failure is not None
        checked_call = self._call(call.tool, call.arguments)
        if call.is_offered:
            self._note_decision(checked_call, call, is_rejected=read.refusal == "certain")
        if call.is_cached and not failed and not read.refusal:
            key = self._gate.digest(checked_call)
            self._state.cache = {**self._state.cache, key: returned}
        approved = self._approval_digest(checked_call) if call.is_offered else ""
        self._turn.add_calls([self._made_call(call, message, read, approved=approved)])
        if read.refusal:
            self._turn.checks.remark({"refused": read.refusal})
        if read.refusal == "certain":
            refusal = self._gate.label_refusal(checked_call, returned.value, self._state.labels)
            result = self._store_result(refusal, refusal.session, failed=failed)
        else:
            result = self._label_result(checked_call, returned, failed=failed)
        if self._turn.is_planned:  # a later planner may be shown the message
            remember_labels(message, result.labels)
        return self._wrap_result(result)

    def _note_decision(self, checked_call: Call, call: WaitingCall, *, is_rejected: bool) -> None:
        """Report the decision about an offered call; raises `StatusError` if it cannot be."""
        decision: Literal["approved", "rejected"] = "rejected" if is_rejected else "approved"
        self._turn.checks.remark({"decision": decision})
        judged = self._gate.judged(GatedCall(checked_call, call.session, None), call.session)
        tell_of_check(judged, self._context.inputs, self._turn.calls, decision=decision)

    def cancel(self, call: WaitingCall) -> None:
        """Give the session the labels that a call may have given it.

        No result came, but the call was handed out, so it may have run.
        """
        checked_call = self._call(call.tool, call.arguments)
        self._state.labels = self._gate.foreseen(checked_call, self._state.labels)

    def _read(
        self, tool: str, message: ToolMessage, is_error: AskWhetherError | None = None
    ) -> ReadResult:
        sent = self._turn.tools.by_name.get(tool, {"function": {}})
        read = read_result(
            message,
            fsm=self._configuration.fsm,
            has_output_schema=bool(sent["function"].get("output_schema")),
            may_replace=tool in self._context.inputs.services.replacing_tools,
            is_error=is_error,
        )
        if read.failure is None:
            return read
        return replace(read, returned=replace(read.returned, value=read.failure))

    def restore(
        self,
        earlier: Iterable[MadeCall],
        history: Sequence[BaseMessage],
        waiting: WaitingCall | None,
    ) -> None:
        """Take over calls that were made for this turn before it was restarted.

        Args:
            earlier: Calls of the turn before.
            history: The messages after the user's message that begins the turn. Their
                calls have no labels; a program that repeats one supplies the labels.
            waiting: The open call of the restarted turn, if there is one.
        """
        calls = [waiting] if waiting is not None else []
        for message in history:
            if isinstance(message, AIMessage):
                calls += map(self._restored_call, message.tool_calls)
        results = {m.tool_call_id: m for m in history if isinstance(m, ToolMessage)}
        calls_made = {call.id: call for call in earlier}
        for call in calls:
            if call.id in results:  # the history decides
                made_call = self._restored_result(call, results[call.id])
                if (first := calls_made.get(call.id)) is not None:
                    made_call = replace(
                        made_call,
                        digest=first.digest,
                        session=first.session,
                        approved=first.approved,
                    )
                calls_made[call.id] = made_call
        self._turn.add_calls(calls_made.values())

    def _restored_call(self, call: MessageCall) -> WaitingCall:
        arguments = {name: Labeled(value) for name, value in call["args"].items()}
        digest = self._gate.digest(Call(call["name"], arguments))
        return WaitingCall(call["id"] or "", call["name"], arguments, digest, self._state.labels, 0)

    def _restored_result(self, call: WaitingCall, message: ToolMessage) -> MadeCall:
        try:
            read = self._read(call.tool, message, self._is_error)
        except BadResult:
            read = None
        return self._made_call(call, message, read)

    def _made_call(
        self,
        call: WaitingCall,
        message: ToolMessage,
        read: ReadResult | None,
        *,
        approved: str = "",
    ) -> MadeCall:
        """A call with its result; `read` is `None` if that cannot be used."""
        shape = ""
        if read is not None and read.failure is None and read.refusal is None:
            shape = type_and_size(type(read.returned.value).__name__, read.returned.value)
        return MadeCall(
            call.id,
            call.tool,
            call.digest,
            self._state.names.pack(call.session),
            StoredMessage.from_message(message),
            shape,
            None if read is None else read.refusal,
            self._turn.steps,
            approved,
        )

    def _screened_gate(self) -> ScreenedGate:
        engines = (self._configuration.engine, *map(_added_engine, self._state.policies))
        score = self._context.models.score
        # The messages of a program's caller are not a user's, and its tools are nodes of a graph.
        is_chat = self._context.inputs.endpoint_type != "lang-graph"
        sources = Sources(self._user_words, self._returned_by) if is_chat else None
        return ScreenedGate(engines, self._configuration.screen, score, self._tools, sources)

    def _user_words(self) -> Iterator[str]:
        """What the user wrote in this session.

        A message with a name is that of another agent, and LangChain's summary has the role of the
        user, too.
        """
        for message in (*self._context.inputs.session.messages, *self._turn.new_messages):
            if isinstance(message, HumanMessage) and message.name is None:
                text = text_of(message)
                if not text.startswith(_SUMMARY):
                    yield text

    def _returned_by(self, tool: str) -> Iterator[Any]:
        """What a tool of the caller returned in this turn, without errors and refusals."""
        for call in (*self._turn.settled, *self._turn.calls_made):
            if call.tool == tool and not call.failed:
                message = cast("ToolMessage", call.result.message())
                read = self._read(tool, message)
                if read.failure is None and not read.refusal and not read.returned.is_error:
                    yield read.returned.value

    def _is_error(self, text: str) -> bool:
        try:
            return self._context.models.score("tool_error", text) >= _LIKELY
        except UnusableAnswer:
            return True

    def _label_result(
        self, call: Call, returned: ToolReturn, *, failed: bool
    ) -> Labeled | ToolFailure:
        labelled = self._gate.label_result(call, returned, self._state.labels)
        return self._store_result(labelled, labelled.session, failed=failed)

    def _store_result(
        self, labelled: CheckedResult, session: Labels, *, failed: bool
    ) -> Labeled | ToolFailure:
        self._state.labels = session
        self._state.data_labels = self._state.data_labels.join(labelled.result.labels)
        if labelled.findings:
            self._turn.checks.remark({"result_findings": [*map(str, labelled.findings)]})
        result = labelled.result
        tell_of_result(result, self._context.inputs, is_error=failed)
        return ToolFailure(str(result.value), result.labels) if failed else result

    def _wrap_result(self, result: Labeled | ToolFailure) -> Labeled | ToolFailure:
        """Wrap the result of a caller's tool in `{ok: …}`, if `fsm.wrap_tool_result` is set."""
        if not self._configuration.fsm.wrap_tool_result:
            return result
        if isinstance(result, ToolFailure):
            return Labeled({"ok": False, "error": result.message}, result.labels)
        labels = result.labels
        if isinstance(labels, FieldLabels):
            labels = labels.within("value")
        return Labeled({"ok": True, "value": result.value}, labels)

    # -- internal tools

    def _internal(self, call: Call, line: int) -> Labeled | ToolFailure | TurnCompleted:
        values = {name: argument.value for name, argument in call.arguments.items()}
        if call.tool == _COMPLETE_TURN:
            return TurnCompleted(call.arguments.get("value", Labeled(None)))
        models = self._context.models
        try:
            if call.tool == _SET_POLICY:
                self._add_policy(values["policy"])
                returned = ToolReturn(None)
            elif call.tool == _PARSE_WITH_AI:
                returned = ToolReturn(_read(values, models), _PRODUCER)
            else:
                returned = ToolReturn(models.check_hypothesis(_hypothesis(values)))
        except (UnusableAnswer, PolicySyntaxError) as error:
            if isinstance(error, UnusableAnswer):  # its text quotes nothing
                self.own_failures.add((line, str(error)))
            return self._label_result(call, ToolReturn(str(error), is_error=True), failed=True)
        return self._label_result(call, returned, failed=False)

    def _add_policy(self, text: Any) -> None:
        """Add check rules of a program. Updates are refused, because they could loosen a policy."""
        if not isinstance(text, str):
            msg = "`policy` must be a text in SQRT."
            raise UnusableAnswer(msg)
        for node in parse(text).declarations:
            if not isinstance(node, Binding | ToolBlock) or (
                isinstance(node, ToolBlock) and node.blocks
            ):
                msg = "A policy of a program may have check rules only, no updates."
                raise UnusableAnswer(msg)
        _added_engine(text)  # raises for a policy that does not compile
        self._state.policies = (*self._state.policies, text)
        self._gate = self._screened_gate()

    def _is_cached(self, tool: str) -> bool:
        """Whether results of a tool are cached; in doubt they are not, and the call is made."""
        budget = TimeBudget(_CACHE_SECONDS)
        return any(pattern.finds_within(tool, budget) for pattern in self._configuration.cached)


def _is_unicode(name: str) -> bool:
    """Whether UTF-8 can encode a name; data can choose one, as in `f(**{text: 1})`."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


@owned_cache(maxsize=_REMEMBERED)
def _added_engine(text: str) -> Engine:
    return compile_policy(text, _ONLY_CHECKS)


# Internal tools

_PARSE_WITH_AI, _VERIFY_HYPOTHESIS, _COMPLETE_TURN, _SET_POLICY = INTERNAL_TOOLS
_PRODUCER = Labels(producers=frozenset({"__tool/parse_with_ai"}))


def _object(required: Sequence[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


_TEXT = {"type": "string"}
_ANY: dict[str, Any] = {}
INTERNAL_SCHEMAS: Mapping[str, dict[str, Any]] = {
    _PARSE_WITH_AI: _object(["query", "output_schema"], query=_TEXT, output_schema=_ANY),
    _VERIFY_HYPOTHESIS: {
        **_object(["hypothesis"], hypothesis=_TEXT),
        "additionalProperties": True,  # values, by their names in the hypothesis
    },
    _COMPLETE_TURN: _object([], value=_ANY),
    _SET_POLICY: _object(["policy"], policy=_TEXT),
}


def _read(arguments: Mapping[str, Any], models: ModelCalls) -> Any:
    schema = arguments["output_schema"]
    if not has_enough_flag(schema):
        msg = (
            f"`output_schema` must be the JSON Schema of an object with the boolean `{ENOUGH}`, "
            "such as `Model.model_json_schema()`."
        )
        raise UnusableAnswer(msg)
    if has_unknown_type(schema):
        msg = "`output_schema` has a `type` that JSON does not have."
        raise UnusableAnswer(msg)
    if "required" not in schema and isinstance(schema.get("properties"), Mapping):
        schema = {**schema, "required": [*schema["properties"]]}  # a program reads all of them
    answer = models.read(as_text(arguments["query"]), schema)
    if not isinstance(answer, dict) or not isinstance(answer.get(ENOUGH), bool):
        msg = f"The data model did not answer with an object that has the boolean `{ENOUGH}`."
        raise UnusableAnswer(msg)
    return answer


def _hypothesis(arguments: Mapping[str, Any]) -> str:
    """The hypothesis, followed by the values that the program gave for its names."""
    values = {name: value for name, value in arguments.items() if name != "hypothesis"}
    lines = [f"{dumps(name)}: {dumps(value)}" for name, value in values.items()]
    return "\n".join([as_text(arguments["hypothesis"]), *(["", "Data:"] if lines else []), *lines])
