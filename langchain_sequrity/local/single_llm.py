"""Single-LLM turns: one model answers; a policy checks its calls and their results.

Values have no labels here. A policy sees the arguments, the labels of wrapped results, and the
labels of the session (`docs/protocol.md`, Single-LLM and dual-LLM).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import ToolCallChunk

from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.backends import Backend, BackendContext, join_chunks, message_as_chunk
from langchain_sequrity.local.classifiers import Classifiers
from langchain_sequrity.local.conversation import text_of, this_turn, whole_conversation
from langchain_sequrity.local.observed_calls import tell_of_check
from langchain_sequrity.local.policy_gate import ScreenedGate, check_entry, denial_message
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.local.tool_results import BadResult, read_result
from langchain_sequrity.sqrt import Argument, Call
from langchain_sequrity.sqrt.coerce import arguments_of_sent_tools
from langchain_sequrity.strict_json import as_text
from langchain_sequrity.wire.exchange import CHECK_KEY, DENIED, ChatRequest
from langchain_sequrity.wire.tool_results import MARK

# X-Config decides how results are read only for dual-LLM sessions.
_FSM = FsmConfig()


@dataclass(slots=True)
class SingleState:
    """State of a single-LLM session with a policy.

    Attributes:
        labels: The session's labels.
        results: Tool results as the model sees them, by id of the call. They are tuples, because
            models that made calls before this session may have used an id twice.
        open_calls: The calls of the last answer.
    """

    labels: Labels = field(default_factory=Labels)
    results: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    open_calls: tuple[ToolCall, ...] = ()

    def copy(self) -> "SingleState":
        """A working copy: a request that fails changes nothing."""
        return replace(self, results=dict(self.results))


class SingleAnswer:
    """One model answers; a policy checks its calls if the session has one.

    Args:
        inputs: The request and what it is answered with.

    Attributes:
        request: The request, with the whole conversation.
        program: `None`: one model answers, without a program.

    Raises:
        StatusError: 400 for a history that a model cannot continue.
    """

    program = None

    def __init__(self, inputs: TurnInputs) -> None:
        request, session = inputs.request, inputs.session
        only_new = request.previous_reply is not None
        messages = whole_conversation(request.messages, session.messages, only_new=only_new)
        self.request = replace(request, messages=messages)
        self._session = session
        self._backend = inputs.backend
        self._context = BackendContext(endpoint_type=inputs.endpoint_type)
        self._new_call_id = inputs.new_call_id
        self._calls: _TurnCalls | None = None
        if inputs.configuration.is_guarded:
            earlier = session.state
            state = earlier.copy() if isinstance(earlier, SingleState) else SingleState()
            self._calls = _TurnCalls(state, inputs)

    def chunks(self) -> Iterator[AIMessageChunk]:
        """The model's chunks, with tool call ids of the session."""
        named = set[int | None]()
        if self._calls is None:
            chunks = self._backend.stream(_without_wrappers(self.request), self._context)
        else:
            chunks = self._calls.stream(self.request, self._backend, self._context)
        for chunk in chunks:
            calls = chunk.tool_call_chunks
            chunk.tool_call_chunks = [self._with_own_id(call, named) for call in calls]
            yield chunk

    def _with_own_id(self, call: ToolCallChunk, named: set[int | None]) -> ToolCallChunk:
        """A call's id names its session and is sent once; the backend's own id is not sent."""
        if call["index"] in named:
            return ToolCallChunk(**{**call, "id": None})
        named.add(call["index"])
        return ToolCallChunk(**{**call, "id": self._new_call_id()})

    def commit(self, message: AIMessage) -> None:
        """Keep the conversation, and count the turn if it is over."""
        session = self._session
        session.messages = session.messages.replaced_by([*self.request.messages, message])
        session.turns += not (message.tool_calls or message.invalid_tool_calls)
        if self._calls is not None:
            self._calls.state.open_calls = tuple(message.tool_calls)
            session.state = self._calls.state

    def close(self) -> None:
        """Nothing has to be released."""


class _TurnCalls:
    """Checks the calls of one request, and takes the results in it.

    Args:
        state: A copy of the session's state, which changes.
        inputs: The request and what it is answered with.
    """

    def __init__(self, state: SingleState, inputs: TurnInputs) -> None:
        configuration, services = inputs.configuration, inputs.services
        models = Classifiers(inputs.backend, inputs.endpoint_type, inputs.request.model, {})
        tools = arguments_of_sent_tools(inputs.request.tools)
        self.state = state
        self._inputs = inputs
        self._fsm = configuration.fsm
        engines = (configuration.engine,)
        self._gate = ScreenedGate(engines, configuration.screen, models.score, tools)
        self._replacing_tools = services.replacing_tools

    def stream(
        self, request: ChatRequest, backend: Backend, context: BackendContext
    ) -> Iterator[AIMessageChunk]:
        """Take the results of the request, let the model answer, and check its calls.

        Args:
            request: The request.
            backend: The model.
            context: The role and the endpoint.

        Yields:
            The answer, or a refusal if a call is denied.

        Raises:
            StatusError: 400 for a result that cannot be used.
        """
        clears_labels = self._fsm.clear_session_meta in {"every_turn", "every_attempt"}
        if clears_labels and not this_turn(request.messages):
            self.state.labels = Labels()
        messages = self._visible_messages(request.messages)
        self._cancel_open_calls(request.messages)
        message = join_chunks(backend.stream(replace(request, messages=messages), context))
        denied = self._denial(message)
        yield message_as_chunk(message) if denied is None else _refusal(message, *denied)

    # Results

    def _visible_messages(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """The conversation as the model sees it; new results are taken."""
        calls: dict[str | None, Mapping[str, Any]] = {}
        times = Counter[str]()
        visible: list[BaseMessage] = []
        for message in messages:
            if isinstance(message, AIMessage):
                calls |= {call["id"]: call for call in message.tool_calls}
            if isinstance(message, ToolMessage):
                call_id = message.tool_call_id
                visible.append(self._result(message, calls.get(call_id) or {}, times[call_id]))
                times[call_id] += 1
            else:
                visible.append(message)
        return visible

    def _result(self, message: ToolMessage, call: Mapping[str, Any], time: int) -> ToolMessage:
        """The result of a call, for the given use of its id."""
        contents = self.state.results.get(message.tool_call_id, ())
        if time == len(contents):
            contents = (*contents, self._label_result(message, call))
            self.state.results[message.tool_call_id] = contents
        return _with_content(message, contents[time])

    def _label_result(self, message: ToolMessage, call: Mapping[str, Any]) -> Any:
        name = call.get("name") or message.name or "tool"
        try:
            read = read_result(message, fsm=_FSM, may_replace=name in self._replacing_tools)
        except BadResult as problem:
            refuse(400, f"The result of `{name}` cannot be used. {problem}")
        returned = read.returned
        answered = Call(name, _arguments(call.get("args") or {}))
        checked = self._gate.label_result(answered, returned, self.state.labels)
        self.state.labels = checked.session
        is_as_sent = returned.labels is None and checked.result.value == returned.value
        return message.content if is_as_sent else as_text(checked.result.value)

    def _cancel_open_calls(self, messages: Sequence[BaseMessage]) -> None:
        """Give the session the labels that calls may have given it whose results did not come.

        The calls were handed out, so they may have run.
        """
        returned = {
            message.tool_call_id for message in messages if isinstance(message, ToolMessage)
        }
        for call in self.state.open_calls:
            if call["id"] not in returned:
                open_call = Call(call["name"], _arguments(call["args"]))
                self.state.labels = self._gate.foreseen(open_call, self.state.labels)

    # Calls

    def _denial(self, message: AIMessage) -> tuple[str, Mapping[str, Any] | None] | None:
        """Check the calls of an answer in their order; returns the first denial and its check.

        The client makes all calls before the first result returns. So each call is also checked as
        if the calls before it had returned: otherwise a rule that allows one call, and counts it
        with `session after`, would allow two parallel calls. If a call may give the session labels
        that only its result has, the calls after it are left out: the model can make them when it
        has the result.
        """
        returned = self.state.labels
        for broken in message.invalid_tool_calls:
            name = broken["name"]
            return f"Tool call to '{name}' is denied: its arguments are not a JSON object.", None
        for number, call in enumerate(message.tool_calls, 1):
            asked_for = Call(call["name"], _arguments(call["args"]))
            checked = self._gate.check(asked_for, self.state.labels)
            self.state.labels = checked.session
            if checked.allowed and len(message.tool_calls) > 1:
                beside, returned = self._gate.check_in_parallel(checked, returned)
                checked = checked if beside.allowed else beside
            tell_of_check(checked, self._inputs, number)
            if not checked.allowed:
                return denial_message(checked), check_entry(checked)
            call["args"] = {name: a.value for name, a in checked.call.arguments.items()}
            if self._gate.copies_result_labels(call["name"]):
                message.tool_calls = message.tool_calls[:number]
                break
        return None


def _without_wrappers(request: ChatRequest) -> ChatRequest:
    """A request without labels, for a session without a policy.

    Args:
        request: The request, with the whole conversation.

    Returns:
        The request; results with labels are reduced to their values. An invalid wrapper stays as
        it is.
    """
    messages = [_unwrapped(message) for message in request.messages]
    return request if messages == request.messages else replace(request, messages=messages)


def _unwrapped(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, ToolMessage) or MARK not in text_of(message):
        return message
    try:
        returned = read_result(message, fsm=_FSM, may_replace=True).returned
    except BadResult:
        return message
    if returned.labels is None:
        return message
    return _with_content(message, as_text(returned.value))


def _with_content(message: ToolMessage, content: Any) -> ToolMessage:
    copied: ToolMessage = message.model_copy(update={"content": content})
    return copied


def _refusal(message: AIMessage, reason: str, check: Mapping[str, Any] | None) -> AIMessageChunk:
    metadata = {**message.response_metadata, "finish_reason": DENIED}
    return AIMessageChunk(
        content="",
        additional_kwargs={"refusal": reason},
        response_metadata=metadata if check is None else {**metadata, CHECK_KEY: check},
        usage_metadata=message.usage_metadata,
    )


def _arguments(args: Mapping[str, Any]) -> dict[str, Argument]:
    return {name: Argument(value) for name, value in args.items()}
