"""The difference between a request's messages and the session's history.

A client may send its whole history, the end of it, or only new messages (`docs/behaviour.md`, P5).
The old messages are compared with the stored ones. System messages are not compared, because agents
write them anew for each call.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_sequrity.local.conversation import non_text_blocks, text_of
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.stored_messages import Conversation
from langchain_sequrity.wire.dual_llm import HISTORY_MISMATCH, read_envelope


@dataclass(frozen=True, slots=True)
class HistoryDiff:
    """The new messages of a request.

    Attributes:
        past: The stored messages that are still true.
        added: The messages of the conversation after these, without system messages.
        system: System messages of this request, or else those of the last one.
        results: Results of the open call.
        new_messages: The user's new messages, and other new messages.
        start: Index of the first of these in the conversation; its length if there are none.
        done: Messages after those, if a history begins or restarts a turn: its calls and their
            results.
        mismatch: Whether the client's history differs from the stored one.
        repeated: The reply to send again, if the request is a repetition.
    """

    past: Conversation
    added: list[BaseMessage]
    system: list[BaseMessage]
    results: list[ToolMessage] = field(default_factory=list)
    new_messages: list[BaseMessage] = field(default_factory=list)
    start: int = 0
    done: list[BaseMessage] = field(default_factory=list)
    mismatch: bool = False
    repeated: AIMessage | None = None

    def __len__(self) -> int:
        """The number of messages of the conversation, with the new ones."""
        return len(self.past) + len(self.added)

    def before_start(self, first: int = 0) -> list[BaseMessage]:
        """The messages before the new ones of the user, from the index `first` on."""
        old_count = len(self.past)
        added = self.added[max(first - old_count, 0) : max(self.start - old_count, 0)]
        return [*self.past[first : self.start], *added]


def diff_history(
    sent: Sequence[BaseMessage],
    past: Conversation,
    stored_system: Sequence[BaseMessage],
    *,
    open_call: str | None,
    only_new: bool,
    policy: str | None,
    added_policy: bool = False,
    has_offer: bool = False,
) -> HistoryDiff:
    """Find the new messages of a request.

    Args:
        sent: The messages of the request.
        past: The session's conversation with the last reply; empty in a new session.
        stored_system: The system messages of the last request.
        open_call: Id of the tool call that waits for its result.
        only_new: Whether the request declares that it holds only new messages.
        policy: `fsm.history_mismatch_policy`.
        added_policy: Whether the policy was added after a refusal. Then `continue` accepts a
            summary of the messages before the open call, but no other call in its place.
        has_offer: Whether the last reply offers a call to a person. The same request again then
            asks for the same reply.

    Returns:
        The new messages.

    Raises:
        StatusError: 400 for results that answer no call, or if there is nothing to answer; 409 if
            the history differs from the stored one and the policy does not accept it.
    """
    system, messages = _split_system_messages(sent)
    system = system or [*stored_system]
    if not past:
        return _first_request(messages, past, system)
    past_count = _past_count(messages)
    if only_new and past_count:
        # A reply before the new messages stands for the stored one; it may be edited.
        messages = [*past[:-1], *messages]
        past_count = _past_count(messages)
    old, new = messages[:past_count], messages[past_count:]
    results = [m for m in new if isinstance(m, ToolMessage)]
    # A result is new only once: if the stored history ends with it, it was sent before.
    is_again = bool(old or results or has_offer) and _is_suffix(messages, past, before_reply=True)
    follows = not (old or is_again) or _is_suffix(old, past)
    if is_again and not follows:
        return _repetition(past, system)
    after_refusals = [] if follows else _after_refusals(messages, past)
    if follows or after_refusals:
        return _read(after_refusals or new, past, [], system, open_call)
    pairs = takewhile(lambda pair: _is_same_message(*pair), zip(messages, past, strict=False))
    prefix = sum(1 for _ in pairs)
    true_past = past.first(prefix)
    if policy == "continue" and any(r.tool_call_id == open_call for r in results):
        replies = (m for m in messages if isinstance(m, AIMessage))
        reply = cast("AIMessage", past[-1])
        if added_policy and not any(_calls(m) == _calls(reply) for m in replies):
            refuse(
                409,
                f"The open call `{open_call}` is not the call that was checked: its name or its "
                "arguments were edited. Send its result with the original call.",
                error_type=HISTORY_MISMATCH,
            )
        # Stored messages have labels.
        diff = _read(new, true_past, old[prefix:], system, open_call)
        return replace(diff, mismatch=True)
    if policy not in {"restart_turn", "continue"}:
        refuse(
            409,
            f"The history differs from the session's own, first at message {prefix + 1} (system "
            "messages not counted). Send the session's history, start a new session, or set "
            "`fsm.history_mismatch_policy`.",
            error_type=HISTORY_MISMATCH,
        )
    if results and _is_suffix(new, past, before_reply=True):  # these results were taken before
        return _repetition(past, system)
    request = _first_request([*true_past, *messages[prefix:]], true_past, system)
    return replace(request, mismatch=True)


def _after_refusals(messages: list[BaseMessage], past: Conversation) -> list[BaseMessage]:
    """The new messages of a client that left out refusals, because they have no text.

    An empty list if the history differs in anything else.
    """
    remaining = deque(messages)
    for stored in past:
        if remaining and _is_same_message(remaining[0], stored):
            remaining.popleft()
        elif not (_is_refusal(stored) and remaining and remaining[0].type == "human"):
            return []
    # Replies of somebody else are not new messages.
    return [] if any(m.type == "ai" for m in remaining) else [*remaining]


def _is_refusal(message: BaseMessage) -> bool:
    return "refusal" in message.additional_kwargs and not text_of(message)


def _repetition(past: Conversation, system: list[BaseMessage]) -> HistoryDiff:
    # A stored history ends with a reply.
    return HistoryDiff(past, [], system, repeated=cast("AIMessage", past[-1]))


def _split_system_messages(
    messages: Sequence[BaseMessage],
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """System messages, and all others."""
    system: list[BaseMessage] = [m for m in messages if isinstance(m, SystemMessage)]
    return system, [m for m in messages if not isinstance(m, SystemMessage)]


def _first_request(
    messages: list[BaseMessage], past: Conversation, system: list[BaseMessage]
) -> HistoryDiff:
    """A new session: messages before the user's last ones are history, and no call is open.

    Args:
        messages: The conversation.
        past: The stored messages that it begins with.
        system: System messages.
    """
    last = max((i for i, m in enumerate(messages) if m.type == "human"), default=None)
    if last is None:
        refuse(400, "The request has no message of the user to plan for. Send one.")
    start, end = last, last + 1
    while start and messages[start - 1].type == "human":
        start -= 1
    added, new_messages, done = messages[len(past) :], messages[start:end], messages[end:]
    return HistoryDiff(past, added, system, new_messages=new_messages, start=start, done=done)


def _past_count(messages: list[BaseMessage]) -> int:
    """Number of old messages: all up to the last reply."""
    return max((i + 1 for i, m in enumerate(messages) if isinstance(m, AIMessage)), default=0)


def _is_suffix(part: list[BaseMessage], past: Conversation, *, before_reply: bool = False) -> bool:
    """Whether the stored history ends with this part; a client may leave out the beginning.

    Args:
        part: Messages.
        past: The stored history.
        before_reply: Whether to compare with the history before its last reply.
    """
    end = len(past) - before_reply
    start = end - len(part)
    return 0 <= start < end and all(
        _is_same_message(message, past[start + i]) for i, message in enumerate(part)
    )


def _read(
    new: list[BaseMessage],
    past: Conversation,
    replaced: list[BaseMessage],
    system: list[BaseMessage],
    open_call: str | None,
) -> HistoryDiff:
    """The new messages after the stored ones.

    Args:
        new: The new messages.
        past: The stored messages that are still true.
        replaced: The client's messages in the place of the other stored ones.
        system: System messages.
        open_call: Id of the tool call that waits for its result.
    """
    results = [m for m in new if isinstance(m, ToolMessage)]
    new_messages = [m for m in new if not isinstance(m, ToolMessage)]
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
    if new_messages and not any(m.type == "human" for m in new_messages):
        refuse(400, "The new messages include no message of the user. Send one.")
    old_count = len(past) + len(replaced)
    start = next((i for i, m in enumerate(new) if not isinstance(m, ToolMessage)), len(new))
    return HistoryDiff(
        past, [*replaced, *new], system, results, new_messages, start=old_count + start
    )


def _is_same_message(sent: BaseMessage, stored: BaseMessage) -> bool:
    if sent.type != stored.type:
        return False
    if isinstance(sent, AIMessage) and isinstance(stored, AIMessage):
        calls = _calls(sent)
        # Clients change the text besides tool calls (null, empty), and some drop a refusal.
        return calls == _calls(stored) and (
            bool(calls)
            or text_of(sent) == text_of(stored)
            or _is_reply_text(_reply_text(sent), _reply_text(stored))
        )
    if isinstance(sent, ToolMessage) and isinstance(stored, ToolMessage):
        ids = sent.tool_call_id == stored.tool_call_id
        return ids and sent.content == stored.content and sent.status == stored.status
    return text_of(sent) == text_of(stored) and non_text_blocks(sent) == non_text_blocks(stored)


def _reply_text(message: AIMessage) -> str:
    """The text of a reply, or of a refusal, which some clients send back as text."""
    return text_of(message) or message.additional_kwargs.get("refusal") or ""


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
