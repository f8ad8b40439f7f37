"""One turn: from messages to a call, and from what comes back to a message.

Everything here is decided without I/O. The model's four methods send `call` and hand the reply to
`read`, or the events to a reader of `new_reader`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_sequrity.chat_models.sessions import NEW_SESSION, prepare
from langchain_sequrity.connection import Connection
from langchain_sequrity.errors import (
    PolicyDenied,
    SessionExpired,
    StatusError,
    UsageError,
)
from langchain_sequrity.headers import ConfigHeader
from langchain_sequrity.on_denied import OnDeniedTurn
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.dual_llm import (
    HISTORY_MISMATCH,
    judge,
    may_be_dual,
    refuse_doubtful,
    unwrap,
)
from langchain_sequrity.wire.error_body import is_session_gone
from langchain_sequrity.wire.exchange import METADATA_KEY, Call, Reply, StreamReader
from langchain_sequrity.wire.streams import (
    DeniedReader,
    DoubtReader,
    EnvelopeReader,
    as_chunk,
)
from langchain_sequrity.wire.tools import arguments_text, as_values

OnSessionExpired = Literal["raise", "restart"]
_MADE = (
    "This turn has made calls, which a new session would plan and make again. Find out what they "
    "did, and send a new message of the user that says what is left to do."
)
_MID_TURN = f"The messages end with calls that another session has made. {_MADE}"
_STAYS = (
    "The turn has made calls, which a new session would plan and make again, so it stays in its "
    "own. Send its history with the calls and results as they were: what edits histories may do "
    "so between turns. A summary in the place of what came before them can be continued with, "
    "unless `history_mismatch_policy` says otherwise."
)
_logger = logging.getLogger("langchain_sequrity")
M = TypeVar("M", bound=AIMessage)
Describe = Callable[[Reply], Mapping[str, Any]]


class WireFormat(Protocol):
    """What each module of `wire` that is a chat format offers to a client."""

    @property
    def write_request(self) -> Callable[..., dict[str, Any]]:
        """Messages, parameters and `dual_llm` to a body."""

    @property
    def write_results(self) -> Callable[[Sequence[tuple[str, str]]], list[dict[str, Any]]]:
        """Ids of calls and written contents to messages of a body."""

    @property
    def read_reply(self) -> Callable[[Reply, Describe], list[AIMessage]]:
        """A whole reply to messages."""

    @property
    def StreamReader(  # noqa: N802
        self,
    ) -> Callable[[Describe, Mapping[str, Any]], StreamReader[AIMessageChunk]]:
        """The class that reads a stream; it is told the body of the request."""

    @property
    def TELLS_DUAL_LLM(self) -> bool:  # noqa: N802
        """Whether a reply shows marks of a dual-LLM session."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all turns of a model have in common.

    Attributes:
        connection: Where calls go.
        wire: The format.
        on_denied: Whether a denial raises or comes back as a refusal.
        on_session_expired: Whether an expired session raises or is replaced by a new one.
        include_response_headers: Whether messages show the headers of the reply.
        only_new_messages: Whether a conversation goes on by the id of its last reply, with nothing
            sent but what came after it.
    """

    connection: Connection
    wire: WireFormat
    on_denied: OnDeniedTurn = "raise"
    on_session_expired: OnSessionExpired = "raise"
    include_response_headers: bool = False
    only_new_messages: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One turn of a conversation.

    Args:
        settings: The model's settings.
        messages: The conversation as the caller has it.
        params: Every field of the body but the messages.
        session_id: A session that the caller names, `"new"`, or `None`.
        configured_session_id: A session to start with, where the history has none yet.
        extra_headers: Headers of this call only.
        forked_from: The session that the history is a fork of, where that is known.
        continues: Whether the session is to go on with a history that is not as it has it.

    Raises:
        UsageError: If the messages or parameters cannot be sent.
    """

    settings: Settings
    messages: Sequence[BaseMessage]
    params: Mapping[str, Any]
    session_id: str | None = None
    configured_session_id: str | None = None
    extra_headers: Mapping[str, str] | None = None
    forked_from: str | None = None
    continues: bool = False
    connection: Connection = field(init=False)
    dual_llm: bool | None = field(init=False)
    call: Call = field(init=False)
    _body: dict[str, Any] = field(init=False)
    _is_mid_turn: bool = field(init=False)

    def __post_init__(self) -> None:
        """Choose the session and write the call."""
        connection, headers = self.settings.connection, self.extra_headers
        if headers:
            connection, headers = connection.with_headers(headers)
        object.__setattr__(self, "connection", connection)
        object.__setattr__(self, "dual_llm", connection.dual_llm)
        object.__setattr__(self, "call", self._write(headers))

    def _write(self, headers: Mapping[str, str] | None) -> Call:
        history = prepare(
            self.messages,
            session_id=self.session_id,
            seal=self._seal,
            configured=self.configured_session_id,
        )
        if history.leaves_session and self.dual_llm:
            raise UsageError(_MID_TURN)
        messages, params = history.messages, self.params
        only_new = self.settings.only_new_messages and not self.continues
        if only_new and history.resumed_at is not None:
            messages, params = self._after(history.resumed_at, messages)
        if self.continues and self._mismatch_policy is None:
            config = self.connection.sent_config or ConfigHeader()
            config = config.with_mismatch_policy("continue")
            headers = {**(headers or {}), config.header_name: config.to_header()}
        dual_llm = self.dual_llm is True
        fsm = self.connection.config and self.connection.config.fsm
        if dual_llm and not (fsm and fsm.strict_tool_result_parsing):  # which reads no JSON
            messages = as_values(messages)
        body = self.settings.wire.write_request(messages, params, dual_llm=dual_llm)
        object.__setattr__(self, "_body", body)
        object.__setattr__(self, "_is_mid_turn", history.is_mid_turn)
        return self.connection.call(
            _dumps(body),
            session_id=history.session_id,
            resend=history.session_id is None and not history.has_results,
            extra_headers=headers,
        )

    def _after(
        self, index: int, messages: Sequence[BaseMessage]
    ) -> tuple[Sequence[BaseMessage], Mapping[str, Any]]:
        """What is new after a message of the session, and the fields that name that message."""
        last = messages[index]
        reply_id = last.response_metadata.get("id")
        new = messages[index + 1 :]
        is_edited = isinstance(last, AIMessage) and not _has_its_calls(last)
        if not reply_id or not new or is_edited or "previous_response_id" in self.params:
            return messages, self.params
        return new, {**self.params, "previous_response_id": reply_id}

    def _seal(self, session_id: str) -> str:
        return self.connection.seal(self.params["model"], session_id)

    def read(self, reply: Reply) -> ChatResult:
        """Read a whole reply.

        Raises:
            ServiceError: If it is not what the protocol promises.
            TurnFailed: If the turn brought no answer.
        """
        messages = self.settings.wire.read_reply(reply, self._describe)
        read = partial(self._unwrap_if_dual, reply)
        generations = [ChatGeneration(message=self._judged(read, one)) for one in messages]
        return ChatResult(generations=generations)

    def new_reader(self) -> StreamReader[AIMessageChunk]:
        """Make a reader for one streamed reply."""
        return DeniedReader(self._reader(), partial(self._judged_chunk, self._checked))

    def _reader(self) -> StreamReader[AIMessageChunk]:
        reader = self.settings.wire.StreamReader(self._describe, self._body)
        if self.dual_llm is False:
            return reader
        if self.dual_llm is None and not self.settings.wire.TELLS_DUAL_LLM:
            return DoubtReader(reader, refuse_doubtful)
        certain = self.dual_llm is True
        read = partial(unwrap, certain=certain, told=self.connection.told)
        return EnvelopeReader(reader, partial(self._judged_chunk, read), certain=certain)

    def after_refusal(self, error: StatusError) -> "Turn":
        """What to do after a refusal: the turn in a new session, if that is what it takes.

        A history that was forked between two turns is no longer that of its session
        (`docs/behaviour.md`, T1). It goes on in a new one, which the reply tells. A turn that has
        made calls is not moved: a new session plans it anew, and would make them again.

        Raises:
            StatusError: If the refusal has nothing to do with a session that was resumed, or if
                the turn has to stay in its session.
            SessionExpired: If the session is gone, and the model does not restart, or cannot.
        """
        if self.connection.policy is not None:  # places in it are those of the text that was sent
            error.args = (self.connection.policy.author_text(str(error)),)
        if self.call.session_id is None or error.inside_reply:
            raise error
        is_mismatch, stays = _is_mismatch(error), self._is_mid_turn and self._may_be_dual
        if is_mismatch and stays and self._may_continue:
            _logger.warning(
                "The history differs from that of session %s in the middle of a turn; the session "
                "is asked to go on with it.",
                self.call.session_id,
            )
            return replace(self, continues=True)
        if is_mismatch and stays:
            error.args = (f"{error} {_STAYS}",)
            raise error
        if is_mismatch and self.session_id is None and self._mismatch_policy != "reject":
            _logger.warning(
                "The history differs from that of session %s; it goes on in a new session.",
                self.call.session_id,
            )
            return replace(self, session_id=NEW_SESSION, forked_from=self.call.session_id)
        if not is_session_gone(error, self.call.session_id):
            raise error
        if stays:
            msg = f"The service does not know the session any more ({error}). {_MADE}"
            raise SessionExpired(msg, session_id=self.call.session_id) from None
        if self.settings.on_session_expired == "restart":
            return replace(self, session_id=NEW_SESSION)
        msg = (
            f"The service does not know the session any more ({error}). Start afresh with "
            '`session_id="new"`, or construct the model with `on_session_expired="restart"`.'
        )
        raise SessionExpired(msg, session_id=self.call.session_id) from None

    @property
    def _mismatch_policy(self) -> str | None:
        config = self.connection.config
        return config.mismatch_policy if config is not None else None

    @property
    def _may_continue(self) -> bool:
        """Whether the session can be asked once more, with the whole history or another policy."""
        can_ask = self._mismatch_policy is None or self.settings.only_new_messages
        return can_ask and not self.continues and self._mismatch_policy != "reject"

    @property
    def _may_be_dual(self) -> bool:
        """Whether the session may be a dual-LLM one, by what its replies tell."""
        if self.dual_llm is not None or not self.settings.wire.TELLS_DUAL_LLM:
            return self.dual_llm is not False
        session_id = self.call.session_id
        told = (one.response_metadata for one in self.messages if isinstance(one, AIMessage))
        return any("," in str(one.get("model_name")) or one.get("id") == session_id for one in told)

    def _describe(self, head: Reply) -> dict[str, Any]:
        """What the head of a reply adds to `response_metadata`."""
        session_id = head.headers.get("x-session-id") or self.call.session_id
        facts: dict[str, Any] = {}
        if session_id is not None:
            facts = {"session_id": session_id, "digest": self._seal(session_id)}
        if self.forked_from is not None:
            facts["forked_from"] = self.forked_from
        if request_id := head.headers.get("x-request-id"):
            facts["request_id"] = request_id
        described: dict[str, Any] = {METADATA_KEY: facts}
        if self.settings.include_response_headers:
            described["headers"] = {
                name: value for name, value in head.headers.items() if name.lower() != "set-cookie"
            }
        return described

    # What a reply is: an answer, a call, or a turn that brought none

    def _unwrap_if_dual(self, reply: Reply, message: AIMessage) -> AIMessage:
        seen = message.response_metadata
        if self.dual_llm is None and not self.settings.wire.TELLS_DUAL_LLM:
            refuse_doubtful(message)
        elif self.dual_llm or (
            self.dual_llm is None and may_be_dual(seen.get("model_name"), seen.get("id"), reply)
        ):
            message = unwrap(message, certain=self.dual_llm is True, told=self.connection.told)
        return self._checked(message)

    def _checked(self, message: M) -> M:
        """The message, if it is not one of a turn that was denied without an envelope."""
        judge(message, is_guarded=self.connection.is_guarded, told=self.connection.told)
        return message

    def _judged(self, read: Callable[[M], AIMessage], message: M) -> AIMessage:
        """What a reply stands for; of a denial the refusal, if that is what the caller wants."""
        try:
            return read(message)
        except PolicyDenied as error:
            if self.settings.on_denied == "raise" or error.message is None:
                raise
            return error.message

    def _judged_chunk(
        self, read: Callable[[AIMessageChunk], AIMessage], chunk: AIMessageChunk
    ) -> AIMessageChunk:
        message = self._judged(read, chunk)
        return message if isinstance(message, AIMessageChunk) else as_chunk(message)


def _has_its_calls(message: AIMessage) -> bool:
    """Whether a message of Responses still makes the calls that its content shows."""
    came = [
        (block.get("call_id"), block.get("name"), block.get("arguments"))
        for block in message.content
        if isinstance(block, dict) and block.get("type") == "function_call"
    ]
    calls = message.tool_calls
    if message.invalid_tool_calls or len(came) != len(calls):
        return not calls
    return all(
        (call_id, name) == (call["id"], call["name"])
        and arguments_text(call, {str(call_id): str(arguments)}) == arguments
        for (call_id, name, arguments), call in zip(came, calls, strict=True)
    )


def _is_mismatch(error: StatusError) -> bool:
    body = error.body
    return isinstance(body, Mapping) and body.get("type") == HISTORY_MISMATCH


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
