"""Replies that are no answer though no envelope says so: a denial of a single-LLM session.

How the service shows one is not documented (`docs/protocol.md`, Single-LLM and dual-LLM). So it is
known by every mark that recorded denials have, and what is left, an empty turn under a policy, is
an error and never an empty answer.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import EmptyTurn
from langchain_sequrity.wire import denials
from langchain_sequrity.wire.dual_llm import (
    METADATA_KEY,
    Told,
    as_it_came,
    kept_text,
    read_envelope,
)
from langchain_sequrity.wire.envelope_stream import Held, Sum
from langchain_sequrity.wire.exchange import Event, Reply, StreamReader

# What a reply says that ended for a reason of its own; nothing else has to be in it.
_ENDED_OTHERWISE = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_context_window_exceeded",
        "content_filter",
        "refusal",
        "pause_turn",
    }
)
_LOOKED_AT = 2_000
# Blocks that are no answer by themselves.
_NOTHING = frozenset(
    {"text", "refusal", "reasoning", "reasoning_content", "thinking", "redacted_thinking"}
)


def judge(message: AIMessage, *, is_guarded: bool, told: Told) -> None:
    """Raise for a reply that is no answer.

    Args:
        message: The whole reply.
        is_guarded: Whether the session has a policy of the caller's.
        told: Tells a denial with the places of the policy as its author wrote it.

    Raises:
        PolicyDenied: If it tells of a denial.
        EmptyTurn: If nothing is in it, and a policy may be the reason.
    """
    own = message.response_metadata.get(METADATA_KEY)
    if kept_text(message, "content") is not None:  # what the end of a dual-LLM turn stands for
        return
    denial = denials.in_message(message) or _in_envelope(message)
    if denial is not None:
        raise as_it_came(message, told(denial))
    if is_guarded and _is_empty(message):
        metadata = message.response_metadata
        reason = metadata.get("finish_reason") or metadata.get("stop_reason") or "none"
        msg = (
            "The reply is empty: no text, no tool call, and no reason (it ended with "
            f"`{reason}`). Under a policy this may be a denied call, so it is not used as an "
            'answer. In a session with `features={"agent_arch": "dual-llm"}` the service says why.'
        )
        session = own.get("session_id") if isinstance(own, Mapping) else None
        raise EmptyTurn(msg, message=message, session_id=session)


def _in_envelope(message: AIMessage) -> Denial | None:
    """A denial that is told by the object of a dual-LLM turn in a session that has none."""
    text = str(message.text)
    if not _squeezed(text).startswith(denials.LEADS[-1]):
        return None
    result = read_envelope(text)
    if result is None:
        return None
    return denials.of_failure(result.error_code, result.error_message, result.policy_check_history)


def _is_empty(message: AIMessage) -> bool:
    metadata = message.response_metadata
    ended = (metadata.get("finish_reason"), metadata.get("stop_reason"))
    return not (
        str(message.text).strip()
        or message.tool_calls
        or message.invalid_tool_calls
        or denials.refusal_of(message)
        or message.additional_kwargs.get("audio")
        or _has_blocks(message.content)
        or _ENDED_OTHERWISE.intersection(ended)
    )


def _has_blocks(content: Any) -> bool:
    """Whether content has a block that is of use without a text."""
    return isinstance(content, list) and any(
        isinstance(one, dict) and one.get("type") not in _NOTHING for one in content
    )


def _squeezed(text: str) -> str:
    """The beginning of a text in small letters and without white space."""
    return "".join(text[:_LOOKED_AT].split()).lower()


class DeniedReader:
    """Holds back what may turn out to be a denial, until the whole reply has been read.

    An answer is passed on as it comes. What begins like a denial waits, and a refusal with all that
    follows it.

    Args:
        inner: The reader of the format.
        judge: Gives the message that a whole reply stands for, or raises.
    """

    def __init__(
        self,
        inner: StreamReader[AIMessageChunk],
        judge: Callable[[AIMessageChunk], AIMessageChunk],
    ) -> None:
        self._inner = inner
        self._judge = judge
        self._held = Held()
        # Whether what comes is held back, may be shown, or waits for the beginning of a text.
        self._state: Literal["open", "doubtful", "held", "clear"] = "open"
        self._start = ""
        self._has_said = False
        self._has_shown = False
        self._last: AIMessageChunk | None = None
        self._is_over = False

    @property
    def done(self) -> bool:
        """Whether the stream is over."""
        return self._inner.done

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._inner.start(head)

    def feed(self, event: Event) -> Iterable[AIMessageChunk]:
        """Return what may be shown after this event."""
        shown = self._sifted(self._inner.feed(event))
        return [*shown, *self._ended()] if self._inner.done else shown

    def end(self) -> Iterable[AIMessageChunk]:
        """Return what is still held, if the stream is complete."""
        return [*self._sifted(self._inner.end()), *self._ended()]

    def whole(self, reply: Reply) -> Iterable[AIMessageChunk]:
        """Read the plain JSON of a service that does not stream."""
        return [*self._sifted(self._inner.whole(reply)), *self._ended()]

    def _sifted(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        shown: list[AIMessageChunk] = []
        for chunk in chunks:
            if len(chunk.response_metadata) > 1:  # more than the provider's name
                self._last = chunk
            self._look_at(chunk)
            if self._state in ("doubtful", "held"):
                self._held.add(chunk)
                continue
            shown += self._held.taken()
            self._has_shown = self._has_shown or bool(self._start)
            shown.append(chunk)
        return shown

    def _look_at(self, chunk: AIMessageChunk) -> None:
        if self._state != "held" and _is_refusal(chunk):
            self._state = "held"
        if len(self._start) < _LOOKED_AT and (text := str(chunk.text)):
            self._start += text
            if self._state in ("open", "doubtful"):
                self._state = "doubtful" if _may_be_denial(self._start) else "clear"
        self._has_said = self._has_said or not _is_empty(chunk) or bool(chunk.tool_call_chunks)

    def _ended(self) -> list[AIMessageChunk]:
        if self._is_over:
            return []
        self._is_over = True
        held = Sum(self._held.taken())
        whole = held.total() or self._without_text()
        if whole is None:
            return []
        judged = self._judge(whole)
        if judged is whole:
            return list(held)
        if not self._has_shown:
            return [judged]
        # What was said before has been shown, and stays apart.
        metadata = {"model_provider": judged.response_metadata.get("model_provider")}
        return [AIMessageChunk(content="\n\n", response_metadata=metadata), judged]

    def _without_text(self) -> AIMessageChunk | None:
        """The end of a reply of which nothing is held, if it may still be no answer."""
        last = self._last
        if last is not None and last.response_metadata.get("status") == "failed":
            return last.model_copy(update={"content": self._start})
        return None if self._has_said else last


def _is_refusal(chunk: AIMessageChunk) -> bool:
    is_text = isinstance(chunk.content, str) and not chunk.additional_kwargs
    if is_text and len(chunk.response_metadata) <= 1:
        return False
    return bool(denials.refusal_of(chunk)) or denials.CHECK_KEY in chunk.response_metadata


def _may_be_denial(text: str) -> bool:
    start = _squeezed(text)
    return any(lead.startswith(start) or start.startswith(lead) for lead in denials.LEADS)
