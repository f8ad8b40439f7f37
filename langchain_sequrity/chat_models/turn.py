"""One turn of a session: the session that continues, the call to send, and its reply.

Nothing here does I/O. The four methods of a model send `Turn.call` and pass the reply to
`Turn.read`, or its events to a reader of `Turn.new_reader`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from hmac import compare_digest
from typing import Any, Literal, Self, TypeVar

import orjson
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_sequrity.chat_models.approval import (
    DECISIONS,
    REJECTED,
    Approval,
    NotOffered,
    approval_of,
    rejected_messages,
    request_digest,
    with_rejected_calls,
)
from langchain_sequrity.chat_models.run_config import inherited_configurable
from langchain_sequrity.chat_models.session_ids import (
    REPLACES_EARLIER,
    WITHOUT_TOOLS,
    Seal,
    last_own_session,
    last_session,
    own_metadata,
    own_session,
    with_replaced_ids,
)
from langchain_sequrity.chat_models.threads import ThreadMemory, session_in_checkpoint
from langchain_sequrity.connection import Connection
from langchain_sequrity.errors import (
    ForcedToolMissing,
    PolicyDenied,
    SessionExpired,
    SessionLost,
    StatusError,
    TurnFailed,
    UsageError,
)
from langchain_sequrity.headers import ConfigHeader
from langchain_sequrity.on_denied import OnDenied
from langchain_sequrity.session_memory import is_in_graph
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.sync_or_async import run_to_end
from langchain_sequrity.wire.denials import refusal_of
from langchain_sequrity.wire.dual_llm import (
    HISTORY_MISMATCH,
    may_be_dual,
    raise_for_outcome,
    refuse_doubtful,
    unwrap_envelope,
)
from langchain_sequrity.wire.error_body import error_code, is_session_gone, reason_in
from langchain_sequrity.wire.exchange import (
    METADATA_KEY,
    ChunkSum,
    ClientFormat,
    Reply,
    ServiceCall,
    StreamReader,
)
from langchain_sequrity.wire.refused_calls import with_refusal_sentences
from langchain_sequrity.wire.stream_buffering import DenialReader, EnvelopeReader, Judge
from langchain_sequrity.wire.stream_reader import as_chunk
from langchain_sequrity.wire.tool_results import refuse_labels_of_fields, results_as_values
from langchain_sequrity.wire.tools import arguments_text, name_of

OnSessionExpired = Literal["raise", "restart"]
M = TypeVar("M", bound=AIMessage)

NEW_SESSION = "new"
_ASKED_IN = "turn"
"""Under this name a question says in which turn it was asked."""
_RESULTS = ("tool_result", "function_call_output", "custom_tool_call_output")
_HAS_CALLS = (
    "This turn has made calls. A new session would plan the turn again and repeat them. Find out "
    "what the calls did, and send a new user message that says what is left to do."
)
_MID_TURN = f"The messages end with calls of another session. {_HAS_CALLS}"
_STAYS = (
    "The turn has made calls. A new session would plan the turn again and repeat them, so the turn "
    "stays in its session. Send its history with the calls and results unchanged, and edit "
    "histories only between turns. You may replace the messages before the turn by a summary, "
    "unless `history_mismatch_policy` says otherwise."
)
_NOT_ACCEPTED = "The history differs from that of its session, and the session does not accept it."
_logger = logging.getLogger("langchain_sequrity")


def _is_mid_turn(messages: Sequence[BaseMessage]) -> bool:
    for message in reversed(messages):
        if _holds_results(message):
            return True
        if isinstance(message, AIMessage):
            return bool(message.tool_calls or message.invalid_tool_calls)
        if isinstance(message, HumanMessage):
            return False
    return False


def _holds_results(message: BaseMessage) -> bool:
    """Whether a message holds a tool's result; in Anthropic's format a user message does."""
    if isinstance(message, ToolMessage | FunctionMessage):
        return True
    return isinstance(message.content, list) and any(map(_is_result, message.content))


def _is_result(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    block_type = block.get("type")
    is_wrapped = block_type == "non_standard" and _is_result(block.get("value"))
    return is_wrapped or block_type in _RESULTS


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Settings of all turns of a model.

    Attributes:
        connection: Address, keys and headers of the calls.
        wire: The wire format.
        on_denied: Whether a denial raises, is returned as a message, or is asked about.
        on_session_expired: Whether an expired session raises or is replaced by a new one.
        include_response_headers: Whether messages show the headers of the reply.
        only_new_messages: Whether only the messages after the last reply are sent, with that
            reply's id.
    """

    connection: Connection
    wire: ClientFormat
    on_denied: OnDenied = "raise"
    on_session_expired: OnSessionExpired = "raise"
    include_response_headers: bool = False
    only_new_messages: bool = False


@dataclass(slots=True, repr=False, eq=False)
class Turn:
    """One turn of a conversation.

    Args:
        settings: The model's settings.
        messages: The caller's conversation.
        params: All fields of the body except the messages.
        connection: The connection of the call, with the JSON headers that it has of its own.
        session_id: A session that the caller names, `"new"`, or `None`.
        configured_session_id: The session to use if the history has none.
        extra_headers: Other headers of this call only.
        memory: What is remembered of the thread, if the policy has rules on the session.
        forked_from: The session of which the history is a fork, if known.
        continues: Whether to ask the session to accept a history that differs from its own.
        is_parsed: Whether a parser of `with_structured_output` reads the reply.

    Attributes:
        call: What is sent. It is written when the turn is entered.
    """

    settings: TurnSettings
    messages: Sequence[BaseMessage]
    params: Mapping[str, Any]
    connection: Connection
    session_id: str | None = None
    configured_session_id: str | None = None
    extra_headers: Mapping[str, str] | None = None
    memory: ThreadMemory | None = None
    forked_from: str | None = None
    continues: bool = False
    is_parsed: bool = False
    dual_llm: bool | None = field(init=False)
    call: ServiceCall = field(init=False)
    _body: dict[str, Any] = field(init=False)
    _marks: dict[str, bool] = field(init=False)
    _is_mid_turn: bool = field(init=False)
    _graph: Mapping[str, Any] | None = field(init=False, default=None)
    _rejected: list[Mapping[str, Any]] = field(init=False, default_factory=list)
    _request: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Put rejected calls back into the history."""
        self.messages = with_rejected_calls(self.messages)
        if self.settings.on_denied == "interrupt":
            configurable = inherited_configurable()
            self._graph = configurable if is_in_graph(configurable) else None

    def __enter__(self) -> Self:
        """Choose the session and write the call.

        Raises:
            UsageError: If the messages or parameters cannot be sent.
            SessionLost: If the policy needs a session that cannot be continued.
        """
        if self.memory is None and self._graph is None:
            self._prepare()
        else:
            run_to_end(self._enter(is_async=False))
        return self

    def __exit__(self, *_: object) -> None:
        """Remember the session."""
        if self.memory is not None:
            run_to_end(self.memory.close(is_async=False))

    async def __aenter__(self) -> Self:
        """See `__enter__`."""
        if self.memory is None and self._graph is None:
            self._prepare()
        else:
            await self._enter(is_async=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remember the session."""
        if self.memory is not None:
            await self.memory.close(is_async=True)

    async def _enter(self, *, is_async: bool) -> None:
        if (memory := self.memory) is None:
            await self._continue_question(is_async=is_async)
            self._prepare()
            return
        try:
            await self._continue_question(is_async=is_async)
            if self.session_id is None and not memory.is_known:
                session_id, _ = last_own_session(self.messages, self._seal, of_tools=True)
                session_in = partial(session_in_checkpoint, seal=self._seal)
                await memory.recall(self.messages, session_id, session_in, is_async=is_async)
            self._prepare()
        except BaseException:
            await memory.close(is_async=is_async)
            raise

    async def _continue_question(self, *, is_async: bool) -> None:
        """If a person was asked about a call of this turn, continue the turn in its session.

        Raises:
            UsageError: If a person could not be asked, or has answered at an older checkpoint.
        """
        if self._graph is None:
            return
        # Imported here only: it imports LangGraph, which a run of LangGraph has imported.
        from langchain_sequrity import interrupts  # noqa: PLC0415

        config: Any = {"configurable": self._graph}
        interrupts.check_can_ask(config)
        self._request = request_digest(self.messages)
        question_turn = interrupts.last_facts(config, _ASKED_IN)
        if question_turn is None or await interrupts.is_outdated(config, is_async=is_async):
            return
        session_id = str(question_turn.get("session_id"))
        is_own = compare_digest(self._seal(session_id), str(question_turn.get("digest")))
        if is_own and question_turn.get("request") == self._request and self.session_id is None:
            self.session_id = session_id
            self._add_rejected(question_turn.get(REJECTED) or (), question_turn)

    def _add_rejected(
        self, entries: Sequence[Mapping[str, Any]], of_session: Mapping[str, Any]
    ) -> None:
        self._rejected += entries
        self.messages = [*self.messages, *rejected_messages(entries, of_session)]

    def after_denial(self, denied: PolicyDenied) -> AIMessage | None:
        """Ask a person about a denial, if they may approve the call.

        Args:
            denied: The denial.

        Returns:
            The message with the approved call; `None` after a rejection: the turn goes on, and is
            to be sent again.

        Raises:
            PolicyDenied: If nobody is asked here. Outside of LangGraph it has the `approval`.
            GraphInterrupt: While there is no answer.
        """
        if self.settings.on_denied != "interrupt":
            raise denied
        try:
            approval = approval_of(denied)
        except NotOffered as reason:
            denied.add_note(f"It is not offered for approval: {reason}.")
            raise denied from None
        if self._graph is None:
            denied.approval = approval
            raise denied
        self.note_reply(has_calls=True)  # the turn is not over
        return self._decide(approval)

    def _decide(self, approval: Approval) -> AIMessage | None:
        from langchain_sequrity import interrupts  # noqa: PLC0415 - as above

        of_session = {name: approval.metadata.get(name) for name in ("session_id", "digest")}
        asked_in = {**of_session, "request": self._request, REJECTED: self._rejected}
        decision = interrupts.ask_about_call(
            approval.digest,
            approval.denial,
            approval.args,
            DECISIONS,
            {_ASKED_IN: asked_in},
            is_late=False,
        )
        if decision.type == "approve":
            return approval.approve()
        self._add_rejected([approval.rejected(decision.message)], of_session)
        self.session_id = of_session["session_id"]
        self._prepare()
        return None

    def _session_for(self, message_session: str | None, seal: Seal) -> str | None:
        """The session to resume, or `None`: the caller's, the thread's, that of the messages."""
        session_id, memory = self.session_id, self.memory
        if session_id is None and memory is not None:
            configured = self.configured_session_id
            continued = None if self._went_on_elsewhere(message_session, seal) else message_session
            return memory.session_for(
                self.messages,
                continued or (None if configured == NEW_SESSION else configured),
                is_mid_turn=self._is_mid_turn,
                seal=seal,
                may_begin=configured == NEW_SESSION,
                has_several=partial(self._has_several, continued, seal),
            )
        session_id = session_id or message_session or self.configured_session_id
        if session_id != NEW_SESSION:
            return session_id
        if memory is not None:
            memory.begin(replaces=True)
        return None

    def _prepare(self) -> None:
        """Choose the session, replace the ids of all others in the history, and write the call."""
        self.dual_llm = self.connection.dual_llm
        self._is_mid_turn = _is_mid_turn(self.messages)
        seal = cache(self._seal)  # a hundred messages often have one foreign session
        message_session, resumed_index = last_own_session(
            self.messages, seal, of_tools=self.memory is not None
        )
        resumed = self._session_for(message_session, seal)
        self._marks = self._marks_for(resumed, resumed_index)
        continues = self.continues or self._is_known_to_differ(resumed, message_session)
        self.continues = continues and resumed is not None  # a new session accepts any history
        leaves_session = self._is_mid_turn and last_session(self.messages) not in (None, resumed)
        if leaves_session and self.dual_llm:
            raise UsageError(_MID_TURN)
        messages: Sequence[BaseMessage] = with_replaced_ids(self.messages, resumed, seal)
        params = self.params
        only_new = self.settings.only_new_messages and not self.continues
        if only_new and resumed_index is not None and resumed == message_session:
            messages, params = self._after(resumed_index, messages)
        headers = self.extra_headers
        if self.continues and self._mismatch_policy is None:
            config = self.connection.sent_config or ConfigHeader()
            config = config.with_mismatch_policy("continue")
            headers = {**(headers or {}), config.header_name: config.to_header()}
        if self.connection.is_hosted:
            refuse_labels_of_fields(messages)
        dual_llm = self.dual_llm is True
        fsm = self.connection.config and self.connection.config.fsm
        # With strict parsing, a result of a tool without output schema is read as text.
        if dual_llm and not (fsm and fsm.strict_tool_result_parsing):
            messages = results_as_values(messages)
        if dual_llm:
            messages = with_refusal_sentences(messages)
        self._body = self.settings.wire.write_request(messages, params, dual_llm=dual_llm)
        has_run_tools = any(map(_holds_results, self.messages))
        self.call = self.connection.call(
            _dumps(self._body),
            session_id=resumed,
            resend=resumed is None and not has_run_tools,
            extra_headers=headers,
        )

    def _went_on_elsewhere(self, message_session: str | None, seal: Seal) -> bool:
        """Whether another session, or another service, has worked after that of the messages."""
        if message_session is None:
            return False
        for message in reversed(self.messages):
            if isinstance(message, AIMessage):
                if own_session(message, seal) == message_session:
                    return False
                marks = own_metadata(message)
                is_aside = WITHOUT_TOOLS in marks
                if message.tool_calls or not (is_aside or marks.get("session_id") is None):
                    return True
        return False

    def _has_several(self, message_session: str | None, seal: Seal) -> bool:
        """Whether the messages are also of another session, which the caller did not give up."""
        for message in reversed(self.messages) if message_session else ():
            session_id = own_session(message, seal)
            marks = own_metadata(message)
            if session_id == message_session and marks.get(REPLACES_EARLIER):
                return False
            if session_id not in (None, message_session) and not marks.get(WITHOUT_TOOLS):
                return True
        return False

    def _marks_for(self, resumed: str | None, resumed_index: int | None) -> dict[str, bool]:
        """What the messages of the reply note about their session, if the policy has rules on it.

        Without tools a call is not one of the thread, so neither is a session that it begins.
        """
        if self.memory is not None:
            is_chosen = self.session_id is not None or self.memory.is_chosen
            return {REPLACES_EARLIER: True} if is_chosen else {}
        is_aside = resumed is None
        if resumed is not None and resumed_index is not None:
            is_aside = WITHOUT_TOOLS in own_metadata(self.messages[resumed_index])
        return {WITHOUT_TOOLS: True} if is_aside and self.connection.uses_session else {}

    def _is_known_to_differ(self, resumed: str | None, message_session: str | None) -> bool:
        """Whether the session's history cannot be that of the messages.

        The thread remembers a session that the messages do not have, or a failed turn whose reply
        they lack. A turn that has made calls is asked for first (`after_refusal`).
        """
        if self.memory is None or resumed is None or self.dual_llm is not True:
            return False
        differs = resumed != message_session or self.memory.differs
        return differs and not self._is_mid_turn and self._may_continue

    def _after(
        self, index: int, messages: Sequence[BaseMessage]
    ) -> tuple[Sequence[BaseMessage], Mapping[str, Any]]:
        """The messages after a reply of the session, and the body's fields with its id."""
        last = messages[index]
        reply_id = last.response_metadata.get("id")
        unsent = messages[index + 1 :]
        is_edited = isinstance(last, AIMessage) and not _has_its_calls(last)
        if not reply_id or not unsent or is_edited or "previous_response_id" in self.params:
            return messages, self.params
        return unsent, {**self.params, "previous_response_id": reply_id}

    def _seal(self, session_id: str) -> str:
        return self.connection.session_digest(self.params["model"], session_id)

    def read(self, reply: Reply) -> ChatResult:
        """Read a whole reply.

        Raises:
            ServiceError: If the reply does not follow the protocol.
            TurnFailed: If the turn failed without an answer.
        """
        self.note_session(reply)
        messages = self.settings.wire.read_reply(reply, self._describe)
        read = partial(self._unwrap_if_dual, reply)
        replies = [self._read_message(read, message) for message in messages]
        self.note_reply(
            has_calls=any(reply.tool_calls or reply.invalid_tool_calls for reply in replies)
        )
        if self.requires_form:
            for message in replies:
                self.check_form(message)
        return ChatResult(generations=[ChatGeneration(message=message) for message in replies])

    def new_reader(self) -> StreamReader[AIMessageChunk]:
        """Make a reader for one streamed reply."""
        reader = self.settings.wire.stream_reader(self._describe, self._body)
        if self.dual_llm is not False and not self.is_doubtful:
            certain = self.dual_llm is True
            read = partial(unwrap_envelope, certain=certain, remap=self.connection.with_author_rule)
            reader = EnvelopeReader(reader, partial(self._read_chunk, read), certain=certain)
        judge_chunk = partial(self._read_chunk, self._checked)
        return _SessionReader(self, reader, judge_chunk)

    def note_session(self, head: Reply) -> None:
        """Remember the session of a reply that begins, whatever follows."""
        session_id = head.headers.get("x-session-id") or self.call.session_id
        if self.memory is not None and session_id is not None:
            self.memory.continues_in(session_id, self._seal(session_id))

    def after_refusal(self, error: StatusError) -> None:
        """Prepare to send the turn again after an error status, if needed in a new session.

        A history that was forked between two turns differs from that of its session
        (`docs/behaviour.md`, T1). It continues in a new session, and the reply says so. A session
        that the policy has rules on is asked to accept the history (P13). A turn that has made
        calls stays: a new session would plan it again and repeat the calls.

        Raises:
            StatusError: If the error does not concern a resumed session, or if the turn must stay
                in its session.
            SessionExpired: If the session is gone and the model does not, or must not, restart.
            SessionLost: If the policy has rules on a session that is gone or cannot be continued.
        """
        if self.connection.policy is not None:  # its places refer to the compacted text
            error.args = (self.connection.policy.author_text(str(error)),)
        session_id = self.call.session_id
        if session_id is None or error.inside_reply:
            raise error
        if error_code(error.body) == HISTORY_MISMATCH:
            self._after_mismatch(error, session_id)
            return
        if not is_session_gone(error, session_id):
            raise error
        reason = f"The service no longer knows the session ({reason_in(error.body).rstrip('.')})."
        if self._stays:
            error_class = SessionExpired if self.memory is None else SessionLost
            msg = f"{reason} {_HAS_CALLS}"
            raise error_class(msg, session_id=session_id) from None
        if self.memory is not None:
            self.memory.lose(reason, session_id)
        if self.memory is not None or self.settings.on_session_expired == "restart":
            self.session_id = NEW_SESSION
            self._prepare()
            return
        msg = (
            f'{reason} Start a new session with `session_id="new"`, or construct the model with '
            '`on_session_expired="restart"`.'
        )
        raise SessionExpired(msg, session_id=session_id) from None

    def _after_mismatch(self, error: StatusError, session_id: str) -> None:
        if (self._stays or self.memory is not None) and self._may_continue:
            step, self.continues = "asking the session to accept it", True
        elif self._stays:
            error.args = (f"{error} {_STAYS}",)
            raise error
        elif self.session_id is not None or self._mismatch_policy == "reject":
            raise error
        else:
            if self.memory is not None:
                self.memory.lose(_NOT_ACCEPTED, session_id)
            self.session_id, self.forked_from = NEW_SESSION, session_id
            step = "continuing in a new session"
        _logger.warning("The history differs from that of session %s; %s.", session_id, step)
        self._prepare()

    @property
    def _stays(self) -> bool:
        """Whether the turn has made calls, so that a new session would repeat them."""
        return self._is_mid_turn and self._may_be_dual

    @property
    def _mismatch_policy(self) -> str | None:
        config = self.connection.config
        return config.mismatch_policy if config is not None else None

    @property
    def _may_continue(self) -> bool:
        """Whether to ask the session again, with the whole history or another mismatch policy."""
        can_ask = self._mismatch_policy is None or self.settings.only_new_messages
        return can_ask and not self.continues and self._mismatch_policy != "reject"

    @property
    def is_doubtful(self) -> bool:
        """Whether a JSON object may be an answer as well as the envelope of a turn."""
        return self.dual_llm is None and not self.settings.wire.tells_dual_llm

    @property
    def _may_be_dual(self) -> bool:
        """Whether the session may be a dual-LLM session, judged by its replies."""
        if self.dual_llm is not None or not self.settings.wire.tells_dual_llm:
            return self.dual_llm is not False
        session_id = self.call.session_id
        replies = (m.response_metadata for m in self.messages if isinstance(m, AIMessage))
        return any(may_be_dual(r.get("model_name"), r.get("id"), session_id) for r in replies)

    def _describe(self, head: Reply) -> dict[str, Any]:
        """The `response_metadata` that the head of a reply gives."""
        session_id = head.headers.get("x-session-id") or self.call.session_id
        metadata: dict[str, Any] = {}
        if session_id is not None:
            metadata = {"session_id": session_id, "digest": self._seal(session_id), **self._marks}
            if self._rejected:
                metadata[REJECTED] = self._rejected
        if forked_from := self.forked_from or (self.memory and self.memory.forked_from):
            metadata["forked_from"] = forked_from
        if request_id := head.headers.get("x-request-id"):
            metadata["request_id"] = request_id
        response_metadata: dict[str, Any] = {METADATA_KEY: metadata}
        if self.settings.include_response_headers:
            response_metadata["headers"] = {
                name: value for name, value in head.headers.items() if name.lower() != "set-cookie"
            }
        return response_metadata

    # Answers, calls and failed turns

    def _unwrap_if_dual(self, reply: Reply, message: AIMessage) -> AIMessage:
        metadata, session_id = message.response_metadata, reply.headers.get("x-session-id")
        if self.dual_llm or (
            self.dual_llm is None
            and not self.is_doubtful
            and may_be_dual(metadata.get("model_name"), metadata.get("id"), session_id)
        ):
            message = unwrap_envelope(
                message, certain=self.dual_llm is True, remap=self.connection.with_author_rule
            )
        return self._checked(message)

    def _checked(self, message: M) -> M:
        """Raise if the message is a denial or may be an envelope, else return it."""
        if self.is_doubtful:
            refuse_doubtful(message)
        raise_for_outcome(
            message, is_guarded=self.connection.is_guarded, remap=self.connection.with_author_rule
        )
        return message

    def _read_message(self, read: Callable[[M], AIMessage], message: M) -> AIMessage:
        """Read a reply. With `on_denied="message"`, a denial is a message with its sentence.

        It is raised if the answer has to have a schema, or to be a call: a parser would make an
        ordinary error of the sentence, after which another model could answer.
        """
        try:
            return read(message)
        except PolicyDenied as error:
            has_form = "response_format" in self.params or _requires_call(self.params)
            is_shown = self.settings.on_denied == "message" and not has_form
            if is_shown and error.message is not None:
                return error.message
            self._note_failure()
            raise
        except TurnFailed:
            self._note_failure()
            raise

    def _note_failure(self) -> None:
        if self.memory is not None:
            self.memory.ended(is_waiting=False, has_failed=True)

    @property
    def requires_form(self) -> bool:
        """Whether `check_form` has something to check."""
        return _requires_call(self.params) or (not self.is_parsed and _requires_object(self.params))

    def check_form(self, message: AIMessage) -> None:
        """Raise if a whole reply does not have the form that the request requires."""
        error = _error_of_form(self.params, message)
        if error is not None:
            self._note_failure()  # the caller's history will not have the reply
            raise error

    def note_reply(self, *, has_calls: bool) -> None:
        """Remember whether the session waits for results."""
        if self.memory is not None:
            self.memory.ended(is_waiting=has_calls)

    def _read_chunk(
        self, read: Callable[[AIMessageChunk], AIMessage], chunk: AIMessageChunk
    ) -> AIMessageChunk:
        message = self._read_message(read, chunk)
        return message if isinstance(message, AIMessageChunk) else as_chunk(message)


class _SessionReader(DenialReader):
    """Also remembers the session as soon as the reply begins: a stream may not reach its end."""

    def __init__(self, turn: Turn, inner: StreamReader[AIMessageChunk], judge: Judge) -> None:
        super().__init__(inner, judge, holds_objects=turn.is_doubtful)
        self._turn = turn
        self._has_calls = False
        self._whole = ChunkSum() if turn.requires_form else None

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._turn.note_session(head)
        super().start(head)

    def _observe(self, chunk: AIMessageChunk) -> None:
        self._has_calls = self._has_calls or bool(chunk.tool_call_chunks)
        if self._whole is not None:
            self._whole.add(chunk)
        super()._observe(chunk)

    def _release(self) -> list[AIMessageChunk]:
        chunks = super()._release()
        self._turn.note_reply(has_calls=self._has_calls)
        if self._whole is not None and (whole := self._whole.total()) is not None:
            self._turn.check_form(whole)
        return chunks


# The form that a request requires of its answer: a call of a tool, or JSON that fits a schema
#
# LangChain's agents end without an error if a reply has no call, also if they need one for their
# structured response. For a JSON Schema they accept any JSON, also `null`. So what the request
# requires is checked here (`docs/behaviour.md`, P4).

# Blocks of calls that the client makes; other blocks with these endings ran at the provider.
_CALLS_OF_CLIENT = ("function_call", "tool_use")
_CALLS = ("_call", "tool_use")


def _requires_call(params: Mapping[str, Any]) -> bool:
    """Whether a request requires a call of any of its tools.

    Args:
        params: All fields of the body except the messages.
    """
    choice = params.get("tool_choice")
    return (choice.get("type") if isinstance(choice, Mapping) else choice) in ("required", "any")


def _requires_object(params: Mapping[str, Any]) -> bool:
    """Whether a request requires JSON that is an object; arguments as above."""
    shape: Any = params.get("response_format")
    for key in ("json_schema", "schema"):
        shape = shape.get(key) if isinstance(shape, Mapping) else None
    return isinstance(shape, Mapping) and shape.get("type") == "object"


def _error_of_form(params: Mapping[str, Any], message: AIMessage) -> Exception | None:
    """The error of a reply that does not have the form that its request requires.

    Args:
        params: All fields of the body except the messages.
        message: The whole reply.

    Returns:
        `ForcedToolMissing` if it has no call, and the request requires one. LangChain's
        `OutputParserException` if it is other JSON, and the request requires an object.
    """
    if message.tool_calls:
        return None
    if _requires_call(params):
        return None if _has_run_at_provider(message) else _missing_call(params, message)
    if _requires_object(params) and _is_other_json(text := str(message.text).strip()):
        msg = f"The reply is JSON, but not an object as the schema requires: {text}. Ask again."
        return OutputParserException(msg, llm_output=text)
    return None


def _is_other_json(text: str) -> bool:
    """Whether a text is a JSON value other than an object; a parser refuses what is no JSON."""
    if text.startswith("{"):
        return False
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _has_run_at_provider(message: AIMessage) -> bool:
    blocks = message.content if isinstance(message.content, list) else ()
    types = [str(block.get("type")) for block in blocks if isinstance(block, dict)]
    return any(name.endswith(_CALLS) and name not in _CALLS_OF_CLIENT for name in types)


def _missing_call(params: Mapping[str, Any], message: AIMessage) -> ForcedToolMissing:
    tools = params.get("tools")
    definitions = [tool for tool in tools or () if isinstance(tool, dict)]
    names = [name_of(tool) or str(tool.get("type")) for tool in definitions]
    if refusal := refusal_of(message):
        fault = f"is a refusal ({refusal.rstrip('.')})"
    elif message.invalid_tool_calls:
        call = message.invalid_tool_calls[0]
        reason = (call["error"] or "They are not a whole JSON object.").rstrip(".")
        fault = f"calls `{call['name']}` with arguments that cannot be used ({reason})"
    else:
        fault = "has no call"
    listed = ", ".join(f"`{name}`" for name in names)
    msg = (
        f"The reply {fault}, but `tool_choice` requires a call of one of the tools: {listed}. The "
        "planner or the service may ignore `tool_choice`. Ask again, say in the request when to "
        "call the tool, or leave `tool_choice` out. For structured output, use the schema of the "
        'answer instead: `ProviderStrategy`, or `method="json_schema"`.'
    )
    return ForcedToolMissing(msg, tool=", ".join(names), message=message)


def _has_its_calls(message: AIMessage) -> bool:
    """Whether the calls of a Responses message are still those that its content shows."""
    content_calls = [
        (block.get("call_id"), block.get("name"), block.get("arguments"))
        for block in message.content
        if isinstance(block, dict) and block.get("type") == "function_call"
    ]
    calls = message.tool_calls
    if message.invalid_tool_calls or len(content_calls) != len(calls):
        return not calls
    return all(
        (call_id, name) == (call["id"], call["name"])
        and arguments_text(call, {str(call_id): str(arguments)}) == arguments
        for (call_id, name, arguments), call in zip(content_calls, calls, strict=True)
    )


def _dumps(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        pass
    try:  # integers beyond 64 bits
        return dumps(body).encode()
    except (TypeError, ValueError) as error:
        msg = (
            f"The request cannot be written as JSON: {error}. Messages, tools and parameters must "
            "hold plain data and valid Unicode."
        )
        raise UsageError(msg) from None
