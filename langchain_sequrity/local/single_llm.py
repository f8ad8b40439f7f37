"""A single-LLM request under policy: one model answers; its calls and their results are checked.

There are no labels on values here. A policy sees the arguments, the labels that wrapped results
bring along, and those of the session (`docs/protocol.md`, Single-LLM and dual-LLM).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.backends import Brain, BrainContext
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.conversation import text_of, this_turn
from langchain_sequrity.local.dual_llm.model_calls import Models, as_piece, whole
from langchain_sequrity.local.dual_llm.reports import check_entry, denial_message
from langchain_sequrity.local.policy_gate import Gate
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.tool_results import MARK, BadResult, read_result
from langchain_sequrity.sqrt import Argument, Call
from langchain_sequrity.sqrt.coerce import tools_sent
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.exchange import CHECK_KEY, ChatRequest

# How results are read is settled by X-Config in dual-LLM mode only.
_FSM = FsmConfig()


@dataclass(slots=True)
class SingleState:
    """What a single-LLM session remembers under policy.

    Attributes:
        labels: The session's labels.
        results: What the model is shown of tool results, by id of the call: a list, for models
            that made calls before this session may have used an id again.
    """

    labels: Labels = field(default_factory=Labels)
    results: dict[str, list[Any]] = field(default_factory=dict)

    def copy(self) -> "SingleState":
        """A copy to work on: a request that fails changes nothing."""
        return replace(self, results={key: [*shown] for key, shown in self.results.items()})


class SingleTurn:
    """Works on one request.

    Args:
        state: A copy of the session's state, to be changed.
        configuration: What the session's headers decide.
        models: The classifiers.
        replacing_tools: Tools whose results may replace labels.
    """

    def __init__(
        self,
        state: SingleState,
        configuration: Configuration,
        models: Models,
        replacing_tools: frozenset[str],
    ) -> None:
        self._state = state
        self._configuration = configuration
        self._gate = Gate((configuration.engine,), configuration.screen, models.score)
        self._replacing_tools = replacing_tools

    def stream(
        self, request: ChatRequest, brain: Brain, context: BrainContext
    ) -> Iterator[AIMessageChunk]:
        """Take the results of the request, let the model answer, and check its calls.

        Args:
            request: What is asked.
            brain: The model.
            context: What it is told beside.

        Yields:
            The answer, or a refusal where a call is denied.

        Raises:
            StatusError: 400 for a result that may not be used.
        """
        self._gate = self._gate.for_tools(tools_sent(request.tools))
        if not this_turn(request.messages) and self._clears_labels:
            self._state.labels = Labels()
        messages = self._shown(request.messages)
        message = whole(brain.stream(replace(request, messages=messages), context))
        denied = self._denial(message)
        yield as_piece(message) if denied is None else _refusal(message, *denied)

    @property
    def _clears_labels(self) -> bool:
        return self._configuration.fsm.clear_session_meta in {"every_turn", "every_attempt"}

    # Results

    def _shown(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """The conversation as the model sees it; results that are new are taken."""
        calls: dict[str | None, Mapping[str, Any]] = {}
        times = Counter[str]()
        shown: list[BaseMessage] = []
        for message in messages:
            if isinstance(message, AIMessage):
                calls |= {call["id"]: call for call in message.tool_calls}
            if isinstance(message, ToolMessage):
                call_id = message.tool_call_id
                shown.append(self._result(message, calls.get(call_id) or {}, times[call_id]))
                times[call_id] += 1
            else:
                shown.append(message)
        return shown

    def _result(self, message: ToolMessage, call: Mapping[str, Any], time: int) -> ToolMessage:
        """The result of a call, for the first, second, … time that its id is used."""
        known = self._state.results.setdefault(message.tool_call_id, [])
        if time == len(known):
            known.append(self._taken(message, call))
        shown: ToolMessage = message.model_copy(update={"content": known[time]})
        return shown

    def _taken(self, message: ToolMessage, call: Mapping[str, Any]) -> Any:
        name = call.get("name") or message.name or "tool"
        try:
            read = read_result(message, fsm=_FSM, may_replace=name in self._replacing_tools)
        except BadResult as problem:
            refuse(400, f"The result of `{name}` cannot be used. {problem}")
        brought = read.brought
        made = Call(name, _arguments(call.get("args") or {}))
        taken = self._gate.take(made, brought, self._state.labels)
        self._state.labels = taken.session
        is_as_sent = brought.labels is None and taken.result.value == brought.value
        return message.content if is_as_sent else _text(taken.result.value)

    # Calls

    def _denial(self, message: AIMessage) -> tuple[str, Mapping[str, Any] | None] | None:
        """Check the calls of an answer in their order; says why the first denied one is, and how.

        They are all made before the first result comes back, so each is also checked as if those
        before it had returned: a rule that lets one call pass and counts it by `session after`
        would let two pass side by side.
        """
        returned = self._state.labels
        for broken in message.invalid_tool_calls:
            name = broken["name"]
            return f"Tool call to '{name}' is denied: its arguments are no JSON object.", None
        for call in message.tool_calls:
            made = Call(call["name"], _arguments(call["args"]))
            checked = self._gate.check(made, self._state.labels)
            self._state.labels = checked.session
            if checked.allowed and len(message.tool_calls) > 1:
                beside, returned = self._gate.check_beside(checked, returned)
                checked = checked if beside.allowed else beside
            if not checked.allowed:
                return denial_message(checked), check_entry(checked)
            call["args"] = {name: one.value for name, one in checked.call.arguments.items()}
        return None


def without_wrappers(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation without labels, for a session that has no use for them.

    Args:
        messages: The conversation.

    Returns:
        The messages, results with labels reduced to their values. What only looks like one, and is
        none, stays as it is.
    """
    return [
        _unwrapped(message)
        if isinstance(message, ToolMessage) and MARK in text_of(message)
        else message
        for message in messages
    ]


def _unwrapped(message: ToolMessage) -> ToolMessage:
    try:
        brought = read_result(message, fsm=_FSM, may_replace=True).brought
    except BadResult:
        return message
    if brought.labels is None:
        return message
    shown: ToolMessage = message.model_copy(update={"content": _text(brought.value)})
    return shown


def _refusal(message: AIMessage, reason: str, check: Mapping[str, Any] | None) -> AIMessageChunk:
    told = {"finish_reason": "stop", **({} if check is None else {CHECK_KEY: check})}
    return AIMessageChunk(
        content="",
        additional_kwargs={"refusal": reason},
        response_metadata={**message.response_metadata, **told},
        usage_metadata=message.usage_metadata,
    )


def _arguments(args: Mapping[str, Any]) -> dict[str, Argument]:
    return {name: Argument(value) for name, value in args.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)
