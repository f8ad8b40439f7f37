"""The difference between a request's messages and the session's history.

A client may send its whole history, the end of it, or only new messages (`docs/behaviour.md`, P5).
The old messages are compared with the stored ones. System messages are not compared, because agents
write them anew for each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.dual_llm import HISTORY_MISMATCH, read_envelope


@dataclass(frozen=True, slots=True)
class HistoryDiff:
    """The new messages of a request.

    Attributes:
        messages: The conversation including the new messages, without system messages.
        system: System messages of this request, or else the stored ones.
        results: Results of the open call.
        new_messages: The user's new messages, and other new messages.
        done: Messages after those, if a history begins or restarts a turn: its calls and their
            results.
        kept: How many of the stored messages are still true.
        mismatch: Whether the client's history differs from the stored one.
        repeated: The reply to send again, if the request is a repetition.
    """

    messages: list[BaseMessage]
    system: list[BaseMessage]
    results: list[ToolMessage] = field(default_factory=list)
    new_messages: list[BaseMessage] = field(default_factory=list)
    done: list[BaseMessage] = field(default_factory=list)
    kept: int = 0
    mismatch: bool = False
    repeated: AIMessage | None = None

    @property
    def start(self) -> int:
        """Index of the first new message of the user in the conversation."""
        first = self.new_messages[0] if self.new_messages else None
        return next((i for i, one in enumerate(self.messages) if one is first), len(self.messages))


def diff_history(
    sent: Sequence[BaseMessage],
    stored: Sequence[BaseMessage],
    *,
    open_call: str | None,
    only_new: bool,
    policy: str | None,
    added_policy: bool = False,
) -> HistoryDiff:
    """Find the new messages of a request.

    Args:
        sent: The messages of the request.
        stored: The session's conversation with the last reply; empty in a new session.
        open_call: Id of the tool call that waits for its result.
        only_new: Whether the request declares that it holds only new messages.
        policy: `fsm.history_mismatch_policy`.
        added_policy: Whether the policy was added after a refusal. Then `continue` accepts a
            summary of the messages before the open call, but no other call in its place.

    Returns:
        The new messages.

    Raises:
        StatusError: 400 for results that answer no call, or if there is nothing to answer; 409 if
            the history differs from the stored one and the policy does not accept it.
    """
    system, now = _split_system_messages(sent)
    stored_system, past = _split_system_messages(stored)
    system = system or stored_system
    if not past:
        return _first_request(now, system)
    reply = cast("AIMessage", past[-1])  # a stored history ends with one
    again = HistoryDiff(past, system, kept=len(past), repeated=reply)
    if only_new and _past_count(now):
        # A reply before the new messages stands for the stored one; it may be edited.
        now = [*past[:-1], *now]
    past_count = _past_count(now)
    old, new = now[:past_count], now[past_count:]
    results = [one for one in new if isinstance(one, ToolMessage)]
    # A result is new only once: if the stored history ends with it, it was sent before.
    is_again = _is_suffix(now, past[:-1]) and bool(old or results)
    if _is_suffix(old, past) or not (old or is_again):
        return _read(new, past, system, open_call)
    if is_again:
        return again
    alike = takewhile(lambda pair: _is_same_message(*pair), zip(now, past, strict=False))
    kept = sum(1 for _ in alike)
    if policy == "continue" and any(one.tool_call_id == open_call for one in results):
        replies = (one for one in now if isinstance(one, AIMessage))
        if added_policy and not any(_calls(one) == _calls(reply) for one in replies):
            refuse(
                409,
                f"The open call `{open_call}` is not the call that was checked: its name or its "
                "arguments were edited. Send its result with the original call.",
                kind=HISTORY_MISMATCH,
            )
        # Stored messages have labels.
        stored = [*past[:kept], *old[kept:]]
        return replace(_read(new, stored, system, open_call), kept=kept, mismatch=True)
    if policy not in {"restart_turn", "continue"}:
        refuse(
            409,
            f"The history differs from the session's own, first at message {kept + 1} (system "
            "messages not counted). Send the session's history, start a new session, or set "
            "`fsm.history_mismatch_policy`.",
            kind=HISTORY_MISMATCH,
        )
    if results and _is_suffix(new, past[:-1]):  # these results were taken before
        return again
    return replace(_first_request([*past[:kept], *now[kept:]], system), kept=kept, mismatch=True)


def _split_system_messages(
    messages: Sequence[BaseMessage],
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """System messages, and all others."""
    system: list[BaseMessage] = [one for one in messages if isinstance(one, SystemMessage)]
    return system, [one for one in messages if not isinstance(one, SystemMessage)]


def _first_request(now: list[BaseMessage], system: list[BaseMessage]) -> HistoryDiff:
    """A new session: messages before the user's last ones are history, and no call is open."""
    last = max((i for i, one in enumerate(now) if one.type == "human"), default=None)
    if last is None:
        refuse(400, "The request has no message of the user to plan for. Send one.")
    start = last
    while start and now[start - 1].type == "human":
        start -= 1
    return HistoryDiff(now, system, new_messages=now[start : last + 1], done=now[last + 1 :])


def _past_count(now: list[BaseMessage]) -> int:
    """Number of old messages: all up to the last reply."""
    return max((i + 1 for i, one in enumerate(now) if isinstance(one, AIMessage)), default=0)


def _is_suffix(part: list[BaseMessage], past: list[BaseMessage]) -> bool:
    """Whether the stored history ends with this part; a client may leave out the beginning."""
    return 0 < len(part) <= len(past) and all(
        map(_is_same_message, part, past[len(past) - len(part) :])
    )


def _read(
    new: list[BaseMessage],
    past: list[BaseMessage],
    system: list[BaseMessage],
    open_call: str | None,
) -> HistoryDiff:
    results = [one for one in new if isinstance(one, ToolMessage)]
    new_messages = [one for one in new if not isinstance(one, ToolMessage)]
    for result in results:
        if result.tool_call_id != open_call:
            refuse(
                400,
                f"The tool result for `{result.tool_call_id}` answers no open call. "
                + (f"The open call is `{open_call}`." if open_call else "No call is open."),
            )
    if len(results) > 1:
        refuse(400, f"The tool call `{open_call}` has two results. Send one.")
    if not new:
        refuse(400, "This request has no new message. Send a tool result or a user message.")
    if new_messages and not any(one.type == "human" for one in new_messages):
        refuse(400, "The new messages include no message of the user. Send one.")
    return HistoryDiff([*past, *new], system, results, new_messages, kept=len(past))


def _is_same_message(one: BaseMessage, other: BaseMessage) -> bool:
    if one.type != other.type:
        return False
    if isinstance(one, AIMessage) and isinstance(other, AIMessage):
        calls = _calls(one)
        # Clients change the text besides tool calls (null, empty).
        return calls == _calls(other) and (
            bool(calls) or _is_reply_text(text_of(one), text_of(other))
        )
    if isinstance(one, ToolMessage) and isinstance(other, ToolMessage):
        ids = one.tool_call_id == other.tool_call_id
        return ids and one.content == other.content and one.status == other.status
    return text_of(one) == text_of(other) and _blocks_beside_text(one) == _blocks_beside_text(other)


def _blocks_beside_text(message: BaseMessage) -> list[Any]:
    """Images, files and other blocks besides text, as data."""
    parts = message.content if isinstance(message.content, list) else []
    return [one for one in parts if isinstance(one, dict) and one.get("type") != "text"]


def _is_reply_text(text: str, stored: str) -> bool:
    """Whether a text is the stored reply, or the text that clients show instead of it."""
    if text == stored:
        return True
    result = read_envelope(stored)
    if result is None:
        return False
    if result.status == "failure":
        return text in {result.error_message, f"Error: {result.error_message}"}
    # The service's own client for LangChain shows values as Python's `str`.
    return text in {result.text, str(result.value)}


def _calls(message: AIMessage) -> list[tuple[Any, ...]]:
    return [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
