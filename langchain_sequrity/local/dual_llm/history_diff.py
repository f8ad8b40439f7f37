"""What a request brings to a session: results of the open call, new words, or nothing new at all.

A client may send its whole history, the end of it, or only what is new (`docs/behaviour.md`, P5).
What it sends of the past is compared with what is stored; system messages are not, for agents word
them anew at each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.dual_llm import HISTORY_MISMATCH, read_envelope


@dataclass(frozen=True, slots=True)
class News:
    """What is new in a request.

    Attributes:
        messages: The conversation as it now stands, without system messages.
        system: System messages, those of this request or else the stored ones.
        results: Results of the call that is open.
        said: What the user says, and whatever else is new.
        done: What came after that in a history that begins or restarts a turn: calls that were
            made for it, with their results.
        kept: How many of the stored messages are still true.
        mismatch: Whether the history that was sent differs from the stored one.
        repeated: The reply to give again, because the request is a repetition.
    """

    messages: list[BaseMessage]
    system: list[BaseMessage]
    results: list[ToolMessage] = field(default_factory=list)
    said: list[BaseMessage] = field(default_factory=list)
    done: list[BaseMessage] = field(default_factory=list)
    kept: int = 0
    mismatch: bool = False
    repeated: AIMessage | None = None

    @property
    def start(self) -> int:
        """Where in the conversation the new words begin."""
        first = self.said[0] if self.said else None
        return next((i for i, one in enumerate(self.messages) if one is first), len(self.messages))


def news_of(
    sent: Sequence[BaseMessage],
    stored: Sequence[BaseMessage],
    *,
    open_call: str | None,
    only_new: bool,
    policy: str | None,
    added_policy: bool = False,
) -> News:
    """Find out what is new.

    Args:
        sent: The messages of the request.
        stored: The session's conversation, the last reply included; empty in a new session.
        open_call: Id of the tool call that waits for its result.
        only_new: Whether the request says itself that it holds only what is new.
        policy: `fsm.history_mismatch_policy`.
        added_policy: Whether it was said after a refusal. To continue is then to take a summary of
            what came before the open call, and no other call in its place.

    Returns:
        The news.

    Raises:
        StatusError: 400 for results that answer nothing, or if there is nothing to answer; 409 if
            the history differs from the stored one and is not to be taken as it is.
    """
    system: list[BaseMessage] = [one for one in sent if isinstance(one, SystemMessage)]
    system = system or [one for one in stored if isinstance(one, SystemMessage)]
    past = [one for one in stored if not isinstance(one, SystemMessage)]
    now = [one for one in sent if not isinstance(one, SystemMessage)]
    if not past:
        return _first(now, system)
    if only_new and _told(now):
        # A reply that comes with what is new stands for the stored one, and may be edited.
        now = [*past[:-1], *now]
    told = _told(now)
    if told == 0:
        return _delta(now, past, system, open_call)
    if _ends_alike(now[:told], past):
        return _read(now[told:], past, system, open_call)
    if _ends_alike(now, past[:-1]) and isinstance(past[-1], AIMessage):
        return _again(past, system)
    return _mismatched(now, past, system, open_call, policy, added_policy=added_policy)


def _first(now: list[BaseMessage], system: list[BaseMessage]) -> News:
    """A new session: what came before the user's last words is history, and nothing is open."""
    last = max((i for i, one in enumerate(now) if one.type == "human"), default=None)
    if last is None:
        refuse(400, "There is no message of the user to plan for. Send one.")
    start = last
    while start and now[start - 1].type == "human":
        start -= 1
    return News(now, system, said=now[start : last + 1], done=now[last + 1 :])


def _told(now: list[BaseMessage]) -> int:
    """How many messages are of the past: all up to the last reply."""
    return max((i + 1 for i, one in enumerate(now) if isinstance(one, AIMessage)), default=0)


def _ends_alike(part: list[BaseMessage], past: list[BaseMessage]) -> bool:
    """Whether a part of a history is how the stored one ends; its beginning may be left out."""
    return 0 < len(part) <= len(past) and all(map(_same, part, past[len(past) - len(part) :]))


def _delta(
    now: list[BaseMessage],
    past: list[BaseMessage],
    system: list[BaseMessage],
    open_call: str | None,
) -> News:
    # A result comes once: one that the stored history ends with was sent before.
    if _ends_alike(now, past[:-1]) and any(isinstance(one, ToolMessage) for one in now):
        return _again(past, system)
    return _read(now, past, system, open_call)


def _again(past: list[BaseMessage], system: list[BaseMessage]) -> News:
    reply = past[-1]
    if not isinstance(reply, AIMessage):  # pragma: no cover - a stored history ends with a reply
        refuse(400, "The session has not replied yet.")
    return News(past, system, kept=len(past), repeated=reply)


def _read(
    new: list[BaseMessage],
    past: list[BaseMessage],
    system: list[BaseMessage],
    open_call: str | None,
) -> News:
    results = [one for one in new if isinstance(one, ToolMessage)]
    said = [one for one in new if not isinstance(one, ToolMessage)]
    for result in results:
        if result.tool_call_id != open_call:
            refuse(
                400,
                f"The tool result for `{result.tool_call_id}` answers no open call. "
                + (f"The open one is `{open_call}`." if open_call else "None is open."),
            )
    if len(results) > 1:
        refuse(400, f"The tool call `{open_call}` has two results. Send one.")
    if not new:
        refuse(400, "There is nothing new in this request. Send a tool result or a user message.")
    if said and not any(one.type == "human" for one in said):
        refuse(400, "What is new holds no message of the user. Send one.")
    return News([*past, *new], system, results, said, kept=len(past))


def _mismatched(
    now: list[BaseMessage],
    past: list[BaseMessage],
    system: list[BaseMessage],
    open_call: str | None,
    policy: str | None,
    *,
    added_policy: bool,
) -> News:
    alike = takewhile(lambda pair: _same(*pair), zip(now, past, strict=False))
    kept = sum(1 for _ in alike)
    told = _told(now)
    results = [one for one in now[told:] if isinstance(one, ToolMessage)]
    answers = any(one.tool_call_id == open_call for one in results)
    if answers and policy == "continue":
        if added_policy and not any(_has_calls_of(past[-1], one) for one in now):
            refuse(
                409,
                f"The open call `{open_call}` is not the one that was checked: its name or its "
                "arguments were edited. Send its result with the call as it was.",
                kind=HISTORY_MISMATCH,
            )
        read = _read(now[told:], now[:told], system, open_call)
        return News(read.messages, system, read.results, read.said, kept=kept, mismatch=True)
    if policy not in {"restart_turn", "continue"}:
        refuse(
            409,
            f"The history differs from the session's own, first at message {kept + 1} (system "
            "messages not counted). Send the session's history, start a new session, or set "
            "`fsm.history_mismatch_policy`.",
            kind=HISTORY_MISMATCH,
        )
    if results and _ends_alike(now[told:], past[:-1]):  # they were taken before
        return _again(past, system)
    return replace(_first(now, system), kept=kept, mismatch=True)


def _has_calls_of(stored: BaseMessage, message: BaseMessage) -> bool:
    return (
        isinstance(stored, AIMessage)
        and isinstance(message, AIMessage)
        and _calls(stored) == _calls(message)
    )


def _same(one: BaseMessage, other: BaseMessage) -> bool:
    if one.type != other.type:
        return False
    if isinstance(one, AIMessage) and isinstance(other, AIMessage):
        calls = _calls(one)
        # Clients reword the text beside tool calls (null, empty).
        return calls == _calls(other) and (bool(calls) or _is_told(text_of(one), text_of(other)))
    if isinstance(one, ToolMessage) and isinstance(other, ToolMessage):
        return _result(one) == _result(other)
    return text_of(one) == text_of(other) and _beside_text(one) == _beside_text(other)


def _result(message: ToolMessage) -> tuple[Any, ...]:
    return message.tool_call_id, message.content, message.status


def _beside_text(message: BaseMessage) -> list[Any]:
    """Images, files and whatever else there is, as data: two of a kind are not the same."""
    parts = message.content if isinstance(message.content, list) else []
    return [one for one in parts if isinstance(one, dict) and one.get("type") != "text"]


def _is_told(text: str, stored: str) -> bool:
    """Whether a text is the reply that is stored, or what clients show in its place."""
    if text == stored:
        return True
    result = read_envelope(stored)
    if result is None:
        return False
    if result.status == "failure":
        return text in {result.error_message, f"Error: {result.error_message}"}
    # The service's own client for LangChain shows values as Python prints them.
    return text in {result.text, str(result.value)}


def _calls(message: AIMessage) -> list[tuple[Any, ...]]:
    return [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
