"""The outcome of a turn: a value, an answer, a denial or a failure.

**Dual-LLM.** The text of the last reply is a JSON object, the envelope: whether the turn succeeded,
the value that it returned, and the reports that were asked for (`docs/protocol.md`, Dual-LLM
content). Any model could write such an object. So an envelope is trusted only if it can come from
the service (`docs/behaviour.md`, P2), and it is parsed strictly. Nothing of it is an answer before
all of it has parsed with status `success` (P3).

**Single-LLM.** The form of a denial is not documented (`docs/protocol.md`, Single-LLM and
dual-LLM). It is recognised by every mark of recorded denials. An empty turn under a policy is an
error and never an empty answer.
"""

import base64
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import orjson
from langchain_core.messages import AIMessage

from langchain_sequrity.denials import NOT_REPORTED, Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    EmptyTurn,
    PolicyDenied,
    ProgramFailed,
    TurnFailed,
)
from langchain_sequrity.labels import KINDS, BadLabels, Labels
from langchain_sequrity.strict_json import dumps, dumps_like_service, loads
from langchain_sequrity.wire import denials
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.error_body import session_end
from langchain_sequrity.wire.exchange import (
    CHECK_KEY,
    MAX_REPLY_BYTES,
    METADATA_KEY,
    check_json,
)
from langchain_sequrity.wire.media import THOUGHTS
from langchain_sequrity.wire.tools import CUT_OFF, finish_reason

M = TypeVar("M", bound=AIMessage)
Content = str | list[str | dict[Any, Any]]

HISTORY_MISMATCH = "history_mismatch"
"""`type` of the local server's error body for a history that differs from its session's."""
# Keys of a text block that describe its text.
_OF_TEXT = ("text", "citations", "annotations", "logprobs")
# An absent list is empty (`docs/protocol.md`, Dual-LLM content).
_NO_NAMES = Labels(consumers=frozenset())


# `"planner,worker"`: the field `model`, which names one model or two (`docs/protocol.md`)
#
# The planner writes programs. The worker reads data, and one name alone is for both.


def split_models(model: str) -> tuple[str, str]:
    """The names of planner and worker."""
    planner, _, worker = model.partition(",")
    planner = planner.strip()
    return planner, worker.strip() or planner


def join_models(planner: str, worker: str) -> str:
    """Both names, in the form of replies."""
    return f"{planner},{worker}"


def has_two_models(model: object) -> bool:
    """Whether the field names two models; in a reply this marks a dual-LLM session."""
    return "," in str(model)


# Envelopes


@dataclass(frozen=True, slots=True)
class DualLLMResult:
    """The result behind the last message of a dual-LLM turn.

    Attributes:
        status: `success` or `failure`.
        value: The value that the program returned; `None` on failure or without a value.
        labels: Labels of the value; `None` on failure, and if they are not reported: the value
            may then have any labels. In reported labels, an absent list is empty; without
            consumers, nobody may have the value.
        value_type: Name of the value's Python type, if reported.
        error_code: The service's error code on failure, if reported.
        error_message: Its error message on failure, if reported.
        program: The program that ran, if `include_program` was set.
        policy_check_history: Results of the policy checks, as the service sent them.
        namespace_snapshot: Variables after the run, if `include_namespace_snapshot` was set.
        session_meta: The session's own metadata, if reported.
        message_history_mismatch_detected: Whether the history sent differed from the stored one.
        offered_call_id: The id of the denied call, if a person may approve it; only `LocalServer`
            reports it.
        extra: Keys that this version does not know.
    """

    status: Literal["success", "failure"]
    value: Any = None
    labels: Labels | None = None
    value_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    program: str | None = None
    policy_check_history: tuple[Any, ...] = ()
    namespace_snapshot: Mapping[str, Any] | None = None
    session_meta: Mapping[str, Any] | None = None
    message_history_mismatch_detected: bool = False
    offered_call_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The value as text: a string as it is, anything else as JSON, perhaps with NaN."""
        return self.value if isinstance(self.value, str) else dumps(self.value, constants=True)


def dual_llm_result(message: AIMessage) -> DualLLMResult | None:
    """Return the result behind a message.

    Args:
        message: A message that `ChatSequrity` returned, or that an exception carries.

    Returns:
        The result, or `None` if the message did not end a dual-LLM turn.

    Example:
        ```python
        from langchain_core.messages import AIMessage
        from langchain_sequrity import dual_llm_result

        assert dual_llm_result(AIMessage("Hello")) is None
        ```
    """
    text = kept_text(message, "content")
    return None if text is None else read_envelope(text)


class _NotAnEnvelope(Exception):
    """The text is something else."""


def read_envelope(text: str, *, certain: bool = True) -> DualLLMResult | None:
    """Read an envelope.

    Args:
        text: The text of a reply.
        certain: Whether the session is known to be dual-LLM. Otherwise a success needs a value
            with labels, because models often answer with objects that have a `status`.

    Returns:
        The result, or `None` if the text is not a complete and well-formed envelope. Duplicate
        keys at any depth are not well-formed: two readers could see two results.
    """
    if not text.lstrip().startswith("{") or not _is_json(text):
        return None
    try:
        result = _read(loads(text, unique=True, constants=True), certain=certain)
        _ = result.text  # raises for a value that cannot be shown
    except (_NotAnEnvelope, BadLabels, ValueError):
        return None
    return result


_CONSTANT = re.compile(r"(?:NaN|-?Infinity)(?=\s*[,\]}])")


def _is_json(text: str) -> bool:
    """Whether a text is JSON of bounded depth and valid Unicode. Raises `BadReply` over the limit.

    The service writes with Python's `json.dumps`, which also writes NaN and infinities.
    """
    check_json(text)
    try:
        orjson.loads(text)
    except ValueError:
        # A text with such a word in a string is JSON with and without it.
        plain_text, count = _CONSTANT.subn("0", text)
        return count > 0 and _is_json(plain_text)
    return True


def _check_type(value: Any, *types: type) -> Any:
    if value is not None and not isinstance(value, types):
        raise _NotAnEnvelope
    return value


def _read(body: dict[str, Any], *, certain: bool) -> DualLLMResult:
    take = body.pop
    status = take("status", None)
    returned = _check_type(take("final_return_value", None), dict)
    error = _check_type(take("error", None), dict) or {}
    succeeded = status == "success"
    if not succeeded and status != "failure":
        raise _NotAnEnvelope
    meta = None if returned is None else _check_type(returned.get("meta"), dict)
    # A failure may come without an error object, a success never with one.
    if succeeded and (error or (returned is not None and "value" not in returned)):
        raise _NotAnEnvelope
    if succeeded and not certain and not (meta and meta.keys() >= {*KINDS}):
        raise _NotAnEnvelope
    returned = returned or {}
    has_labels = succeeded and meta is not None
    return DualLLMResult(
        status="success" if succeeded else "failure",
        value=returned.get("value") if succeeded else None,
        labels=Labels.from_wire(meta, absent=_NO_NAMES, unknown="ignore") if has_labels else None,
        value_type=_check_type(returned.get("value_type"), str) if succeeded else None,
        error_code=_check_type(error.get("code"), str),
        error_message=_check_type(error.get("message"), str),
        program=_check_type(take("program", None), str),
        policy_check_history=tuple(_check_type(take("policy_check_history", None), list) or ()),
        namespace_snapshot=_check_type(take("namespace_snapshot", None), dict),
        session_meta=_check_type(take("session_meta", None), dict),
        message_history_mismatch_detected=bool(take("message_history_mismatch_detected", None)),
        offered_call_id=_check_type(take("offered_call_id", None), str),
        extra=body,  # what is left
    )


# From envelope to message

Remap = Callable[[Denial], Denial]


def unwrap_envelope(message: M, *, certain: bool, remap: Remap | None = None) -> M:
    """Replace a turn's envelope by its value.

    Args:
        message: The whole reply of a turn.
        certain: Whether the session is known to be dual-LLM. Otherwise a text that is not an
            envelope is an ordinary answer, unless it is an object that was not finished.
        remap: Translates locations in a denial to the policy as its author wrote it.

    Returns:
        The message with the value as its text. A message that calls tools is unchanged, and so is
        a refusal.

    Raises:
        BadReply: If the session is dual-LLM and the text is not an envelope.
        PolicyDenied: If a policy ended the turn.
        ProgramFailed: If the turn failed for another reason.
        NotFound: If the turn failed because its session is over.
    """
    text = str(message.text)
    calls = bool(message.tool_calls or message.invalid_tool_calls)
    if calls and not text:
        return message
    result = read_envelope(text, certain=certain)
    if result is None:
        if not certain:
            if text.lstrip().startswith("{") and not _is_json(text):
                raise _no_envelope(message, text)
            return message
        # Text next to a call or a refusal is not an answer either, and is not shown as one.
        if (denial := denials.read_message(message)) is not None:
            raise _denied_without_envelope(message, remap(denial) if remap else denial)
        if calls or message.additional_kwargs.get("refusal"):
            if calls and isinstance(message.content, str):  # the service compares histories
                return _with_new_text(message, "", content=text)
            return message.model_copy(update={"content": with_text(message.content, "")})
        raise _no_envelope(message, text)
    if result.status == "failure":
        raise _failure(message, result, remap)
    return _with_result(message, result, result.text)


def _no_envelope(message: AIMessage, text: str) -> BadReply:
    beginning = plain(denials.without_values(text), limit=200)
    msg = (
        "The session is dual-LLM, but the reply is not the JSON object of a dual-LLM turn. It "
        f"begins with: {beginning!r}. It is not used as an answer. If your "
        'key is set up for single-LLM, give `features={"agent_arch": "single-llm"}`.'
    )
    return BadReply(msg, session_id=_session(message), body=text)


_LEADS = ('{"status":"success"', '{"status":"failure"')


def _is_unfinished_envelope(text: str) -> bool:
    """Whether a text is the beginning of an envelope: the reply ended within it."""
    start = denials.normalized_beginning(text)
    may_be = len(start) > 1 and any(
        start.startswith(lead) or lead.startswith(start) for lead in _LEADS
    )
    return may_be and not _is_json(text)


def _session(message: AIMessage) -> str | None:
    return (message.response_metadata.get(METADATA_KEY) or {}).get("session_id")


def _with_result(message: M, result: DualLLMResult, new_text: str, **facts: Any) -> M:
    return _with_new_text(
        message,
        new_text,
        status=result.status,
        labels=result.labels.to_wire() if result.labels else None,
        program=result.program,
        **_packed_texts(content=str(message.text), packed=result.status == "failure"),
        **facts,
    )


def _with_new_text(message: M, new_text: str, **facts: Any) -> M:
    """Replace the text of a reply by another.

    Args:
        message: The reply.
        new_text: The new text.
        facts: Facts for the metadata. `content` is the text to send back in later turns, since the
            service compares the history with its own; `refusal` likewise.

    Returns:
        The message.
    """
    metadata = message.response_metadata
    crc = zlib.crc32(new_text.encode("utf-8", "surrogatepass"))
    own_metadata = {**(metadata.get(METADATA_KEY) or {}), **facts, "shown": crc}
    content = with_text(message.content, new_text)
    return message.model_copy(
        update={"content": content, "response_metadata": {**metadata, METADATA_KEY: own_metadata}}
    )


def with_text(content: Content, text: str) -> Content:
    """Replace all text in a message's content by one text; other blocks stay.

    Args:
        content: Content of a LangChain message.
        text: The new text. It also replaces blocks of a refusal, unless it is empty.

    Returns:
        The content: text if there is nothing else, blocks otherwise.
    """
    if isinstance(content, str):
        return text
    blocks: list[str | dict[Any, Any]] = []
    is_placed = not text
    for block in content:
        block_type = "text" if isinstance(block, str) else block.get("type")
        if block_type == "refusal" and text:
            continue
        if block_type != "text":
            blocks.append(block)
        elif not is_placed:
            is_placed = True
            text_block = block if isinstance(block, dict) else {"type": "text"}
            fields = {key: value for key, value in text_block.items() if key not in _OF_TEXT}
            blocks.append({**fields, "text": text})
    if not is_placed:
        blocks.append({"type": "text", "text": text})
    # In a stream, `index` joins a block to those that were shown before.
    is_alone = len(blocks) == 1 and isinstance(blocks[0], dict) and "index" not in blocks[0]
    return text if not blocks or (is_alone and text) else blocks


def refuse_doubtful(message: AIMessage) -> None:
    """Refuse an envelope if it is unknown whether the session is dual-LLM.

    Raises:
        BadReply: If the message's text is an envelope, whole or not (`docs/behaviour.md`, P2).
    """
    text = str(message.text)
    if not text.lstrip().startswith("{"):
        return
    if read_envelope(text, certain=False) is None and not _is_unfinished_envelope(text):
        return
    msg = (
        "The reply is an object like that of a dual-LLM turn, and it is unknown whether the "
        "session is dual-LLM. It is used neither as an answer nor as a result. Give "
        '`features={"agent_arch": "dual-llm"}` or `{"agent_arch": "single-llm"}`.'
    )
    raise BadReply(msg, session_id=_session(message), body=text)


def original_content(message: AIMessage) -> str | None:
    """The envelope behind a message's text, unless the text has been edited since."""
    content = kept_text(message, "content")
    if content is None:
        return None
    crc = zlib.crc32(str(message.text).encode("utf-8", "surrogatepass"))
    return content if message.response_metadata[METADATA_KEY].get("shown") == crc else None


# The service's text about a failed turn is sent back in later turns. It may hold values of calls,
# so it is packed: logs and traces of the message must not show them.
_PACKED = "_packed"


def _packed_texts(*, packed: bool, **texts: Any) -> dict[str, Any]:
    """Texts as facts for a message's metadata."""
    if not packed:
        return texts
    return {
        f"{name}{_PACKED}": base64.b64encode(
            zlib.compress(text.encode("utf-8", "surrogatepass"))
        ).decode()
        for name, text in texts.items()
        if isinstance(text, str)
    }


def kept_text(message: AIMessage, name: str) -> str | None:
    """Return a text of the service that the message shown replaces.

    Args:
        message: The message.
        name: `content`, or `refusal`.

    Returns:
        The text; `None` if the message keeps no text.
    """
    own_metadata = message.response_metadata.get(METADATA_KEY)
    if not isinstance(own_metadata, Mapping):
        return None
    if isinstance(text := own_metadata.get(name), str):
        return text
    if not isinstance(packed := own_metadata.get(f"{name}{_PACKED}"), str):
        return None
    try:
        data = base64.b64decode(packed, validate=True)
        unpacked = zlib.decompressobj().decompress(data, MAX_REPLY_BYTES)
        return unpacked.decode("utf-8", "surrogatepass")
    except (ValueError, zlib.error):
        return None


def _failure(message: AIMessage, result: DualLLMResult, remap: Remap | None) -> TurnFailed:
    facts: dict[str, Any] = {
        "session_id": _session(message),
        "result": result,
        "program": result.program,
    }
    denial = denial_in(result)
    if denial is None:
        is_untouched = result.program is None and not result.policy_check_history
        if is_untouched and (end := session_end(result.error_code, result.error_message)):
            raise end
        reason = plain(denials.without_values(result.error_message or "") or NOT_REPORTED)
        facts["message"] = _refusal(_with_result(message, result, ""), reason)
        sentence = (
            f"The turn failed: {reason} (code `{plain(result.error_code or NOT_REPORTED)}`). "
            "Append `error.message` to the history to go on with the session."
        )
        return ProgramFailed(sentence, code=result.error_code, **facts)
    denial = remap(denial) if remap else denial
    turn = _with_result(message, result, denial.text, denial=denial.to_json())
    return _denied(turn, denial, checks=result.policy_check_history, **facts)


def _denied_without_envelope(message: AIMessage, denial: Denial) -> PolicyDenied:
    """The exception for a denial in a reply without an envelope."""
    metadata = dict(message.response_metadata)
    check = metadata.pop(CHECK_KEY, None)
    turn = _with_new_text(
        message.model_copy(update={"response_metadata": metadata}),
        denial.text,
        denial=denial.to_json(),
        **_packed_texts(
            content=str(message.text),
            refusal=message.additional_kwargs.get("refusal"),
            packed=True,
        ),
    )
    checks = () if check is None else (check,)
    return _denied(turn, denial, checks=checks, session_id=_session(message))


def _denied(turn: AIMessage, denial: Denial, **facts: Any) -> PolicyDenied:
    """The exception for a denied turn. Its message has the sentence of the denial as its text.

    The message is not a refusal of the model, because LangChain's middleware would make an ordinary
    error of it, after which another model, without a policy, could make the call.
    """
    text = f"{denial.text} Append `error.message` to the history to go on with the session."
    metadata = dict(turn.response_metadata)
    if metadata.get("stop_reason") == "refusal":
        metadata = {name: metadata[name] for name in metadata.keys() - _OF_REFUSAL}
    extra = {name: value for name, value in turn.additional_kwargs.items() if name != "refusal"}
    return PolicyDenied(text, denial=denial, message=_without_calls(turn, extra, metadata), **facts)


def _without_calls(turn: AIMessage, extra: dict[str, Any], metadata: dict[str, Any]) -> AIMessage:
    return AIMessage(
        content=turn.content or [],
        additional_kwargs=extra,
        response_metadata=metadata,
        usage_metadata=turn.usage_metadata,
        id=turn.id,
    )


_OF_REFUSAL = {"stop_reason", "stop_details"}


def shown_denial(message: object) -> Denial | None:
    """The denial that a message shows instead of an answer (`on_denied="message"`)."""
    if not isinstance(message, AIMessage):
        return None
    facts = message.response_metadata.get(METADATA_KEY)
    denial = facts.get("denial") if isinstance(facts, Mapping) else None
    return Denial.from_json(denial) if isinstance(denial, Mapping) else None


def raise_if_denied(message: object) -> None:
    """Raise the denial that a message shows.

    Raises:
        PolicyDenied: If it shows one.
    """
    denial = shown_denial(message)
    if denial is not None and isinstance(message, AIMessage):
        raise PolicyDenied(
            denial.text, denial=denial, message=message, session_id=_session(message)
        )


def _refusal(turn: AIMessage, reason: str) -> AIMessage:
    """The message of a turn without an answer, as a refusal.

    LangChain's parsers raise for a refusal, so it is never read as an answer. They look for it in
    different places: for Anthropic's provider it is the stop reason.
    """
    metadata = turn.response_metadata
    if metadata.get("model_provider") != MODEL_PROVIDER:
        details = {"type": "refusal", "explanation": reason}
        metadata = {**metadata, "stop_reason": "refusal", "stop_details": details}
    return _without_calls(turn, {**turn.additional_kwargs, "refusal": reason}, metadata)


def may_be_dual(model: object, reply_id: object, session_id: str | None) -> bool:
    """Whether a reply has a mark of a dual-LLM session: two models, or the session's own id."""
    return has_two_models(model) or (session_id is not None and reply_id == session_id)


# Stop reasons of replies that may be empty.
_ENDED_OTHERWISE = CUT_OFF | {"refusal", "pause_turn"}
# Types of blocks that are not an answer by themselves.
_NO_ANSWER = frozenset({"text", "refusal", "reasoning_content", *THOUGHTS})


def raise_for_outcome(message: AIMessage, *, is_guarded: bool, remap: Remap) -> None:
    """Raise for a reply that is not an answer.

    Args:
        message: The whole reply.
        is_guarded: Whether the caller set a policy for the session.
        remap: Translates locations in a denial to the policy as its author wrote it.

    Raises:
        PolicyDenied: If it is a denial.
        EmptyTurn: If it is empty, and a policy may be the reason.
    """
    if kept_text(message, "content") is not None:  # the end of a dual-LLM turn
        return
    denial = denials.read_message(message) or _in_envelope(message)
    if denial is not None:
        raise _denied_without_envelope(message, remap(denial))
    if is_guarded and is_empty(message):
        reason = finish_reason(message) or "none"
        msg = (
            "The reply is empty: no text, no tool call, and no reason (it ended with "
            f"`{reason}`). Under a policy this may be a denied call, so it is not used as an "
            'answer. In a session with `features={"agent_arch": "dual-llm"}` the service says why.'
        )
        raise EmptyTurn(msg, message=message, session_id=_session(message))


def _in_envelope(message: AIMessage) -> Denial | None:
    """A denial in the envelope of a dual-LLM turn, in a session of another kind."""
    text = str(message.text)
    is_failure = denials.normalized_beginning(text).startswith(denials.LEADS[-1])
    result = read_envelope(text) if is_failure else None
    return None if result is None else denial_in(result)


def denial_in(turn: DualLLMResult) -> Denial | None:
    """The denial that ended a failed turn; `None` if it failed for another reason."""
    return denials.read_failure(turn.error_code, turn.error_message, turn.policy_check_history)


def is_empty(message: AIMessage) -> bool:
    """Whether a reply has no text, no call, no refusal, and no other reason to be empty."""
    return not (
        str(message.text).strip()
        or message.tool_calls
        or message.invalid_tool_calls
        or denials.refusal_of(message)
        or message.additional_kwargs.get("audio")
        or (isinstance(message.content, list) and any(map(_is_answer_block, message.content)))
        or finish_reason(message) in _ENDED_OTHERWISE
    )


def _is_answer_block(block: str | dict[Any, Any]) -> bool:
    return isinstance(block, dict) and block.get("type") not in _NO_ANSWER


# The server's side


@dataclass(frozen=True, slots=True)
class Envelope:
    """The outcome of a turn and its reports, written by the local server.

    Attributes:
        value: The value that the program returned, as plain JSON.
        labels: The labels of the value.
        value_type: Name of the value's Python type.
        error: Code and message of a failed turn; `None` for a success.
        program: The program that ran, if it is reported; likewise the following fields.
        policy_check_history: One object for each checked call.
        namespace_snapshot: Variables after the run, `{name: {value, meta}}`.
        session_labels: The session's own labels.
        history_mismatch: Whether the history that was sent differed from the stored one.
        offered: The id of the denied call, if it waits for the approval of a person.
    """

    value: Any = None
    labels: Labels = field(default_factory=Labels)
    value_type: str | None = None
    error: tuple[str, str] | None = None
    program: str | None = None
    policy_check_history: Sequence[Mapping[str, Any]] | None = None
    namespace_snapshot: Mapping[str, Any] | None = None
    session_labels: Labels | None = None
    history_mismatch: bool = False
    offered: str | None = None

    def text(self) -> str:
        """The JSON object as text, without fields that are not reported.

        Raises:
            ValueError: If the value is not JSON.
        """
        body: dict[str, Any]
        if self.error is None:
            value = {"value": self.value, "meta": self.labels.to_wire()}
            if self.value_type is not None:
                value["value_type"] = self.value_type
            body = {"status": "success", "final_return_value": value}
        else:
            code, message = self.error
            body = {
                "status": "failure",
                "final_return_value": None,
                "error": {"code": code, "message": message},
            }
        session = self.session_labels
        reports = {
            "program": self.program,
            "policy_check_history": self.policy_check_history,
            "namespace_snapshot": self.namespace_snapshot,
            "session_meta": session and {"value": None, "meta": session.to_wire()},
            "message_history_mismatch_detected": self.history_mismatch or None,
            "offered_call_id": self.offered,
        }
        reported = {key: value for key, value in reports.items() if value is not None}
        return dumps_like_service(body | reported)

    def plain_text(self) -> str:
        """The value as plain text, or the message of the failure."""
        if self.error is not None:
            return self.error[1]
        return self.value if isinstance(self.value, str) else dumps(self.value)
