"""Questions about the messages of a conversation, and the check that a model can continue it."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_sequrity.display import plain
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.exchange import REFERENCE_KEY

_LONGEST_NAME = 80


def text_of(message: BaseMessage | None) -> str:
    """The text of a message; characters that UTF-8 cannot encode are replaced."""
    if message is None:
        return ""
    # LangChain's `text` is a copy, and so is a decoded text; both cost time if the text is long.
    text = message.content if isinstance(message.content, str) else str(message.text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def non_text_blocks(message: BaseMessage) -> list[Any]:
    """Images, files and other blocks besides text, as data."""
    parts = message.content if isinstance(message.content, list) else []
    return [block for block in parts if isinstance(block, dict) and block.get("type") != "text"]


def last_user(messages: Sequence[BaseMessage]) -> BaseMessage | None:
    """The last message of the user."""
    return next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)


def this_turn(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages after the last message of the user; all messages if there is none."""
    return [*takewhile(lambda m: not isinstance(m, HumanMessage), reversed(messages))][::-1]


def tool_results(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    """Tool results since the last message of the user: names of the tools and texts."""
    names = called_tools(messages)
    return [
        (names.get(m.tool_call_id) or m.name or "tool", text_of(m))
        for m in this_turn(messages)
        if isinstance(m, ToolMessage)
    ]


def called_tools(messages: Sequence[BaseMessage]) -> dict[str | None, str]:
    """Names of the called tools, by the ids of the calls."""
    return {
        call["id"]: call["name"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }


def restore_references(
    messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """Put stored messages in the place of references to them (Responses).

    A client may refer to the text of a reply and repeat its calls. The message is then restored
    with both, unless the calls are not those that were sent.

    Args:
        messages: The messages of the request.
        stored: The session's conversation so far.

    Returns:
        The messages.

    Raises:
        StatusError: 404 if the session does not have a message, or if it comes twice.
    """
    if not any(REFERENCE_KEY in message.response_metadata for message in messages):
        return [*messages]
    by_reply = {reply: m for m in stored if (reply := m.response_metadata.get(REFERENCE_KEY))}
    restored: list[BaseMessage] = []
    for message in messages:
        reply = message.response_metadata.get(REFERENCE_KEY)
        last = restored[-1] if restored else None
        if reply is None:
            if not _repeats_calls(message, last):
                restored.append(message)
        elif last is None or last.response_metadata.get(REFERENCE_KEY) != reply:
            # Each once: many references to a long message would take memory that nobody counts.
            if (stored_message := by_reply.pop(reply, None)) is None:
                name = plain(reply, limit=_LONGEST_NAME)
                refuse(404, f"The item of `{name}` is unknown or comes twice. Send it itself.")
            restored.append(stored_message)
    return restored


def _repeats_calls(message: BaseMessage, last: BaseMessage | None) -> bool:
    """Whether a message has only the calls of the restored message before it."""
    if not (isinstance(message, AIMessage) and isinstance(last, AIMessage)):
        return False
    is_restored = REFERENCE_KEY in last.response_metadata
    return is_restored and bool(message.tool_calls) and message.tool_calls == last.tool_calls


def whole_conversation(
    messages: Sequence[BaseMessage], stored: Sequence[BaseMessage], *, only_new: bool = False
) -> list[BaseMessage]:
    """Return the whole conversation of a request.

    A client may send the whole history each time, a trimmed one, or only new messages
    (`docs/behaviour.md`, P5). A history contains messages of the assistant; new messages do not.

    Args:
        messages: The messages of the request.
        stored: The session's conversation so far; empty in a new session.
        only_new: Whether the request declares that it holds only new messages.

    Returns:
        The conversation.

    Raises:
        StatusError: 400 if a tool call has no result, or a result has no call.
    """
    is_whole = not only_new and _is_history(messages, stored)
    whole = list(messages) if is_whole else _with_new_messages(messages, stored)
    if (problem := _problem(whole)) is not None:
        refuse(400, problem)
    return whole


def _is_history(messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]) -> bool:
    replies = {_message_key(message) for message in stored if isinstance(message, AIMessage)}
    return any(_message_key(m) in replies for m in messages if isinstance(m, AIMessage))


def _message_key(message: AIMessage) -> tuple[str | None, ...] | str:
    # Clients change the content of a message that calls tools (null, empty), but not the ids.
    return tuple(_call_ids(message)) or str(message.text)


def _with_new_messages(
    messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """The new messages after the stored ones, without instructions that are stored already.

    If there is no result for calls of the last answer, the user has cancelled them.
    """
    results = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    last = stored[-1] if stored else None
    if isinstance(last, AIMessage) and (ids := _call_ids(last)) and results.isdisjoint(ids):
        stored = stored[:-1]
    instructions = [m.content for m in stored if isinstance(m, SystemMessage)]
    new = (m for m in messages if not (isinstance(m, SystemMessage) and m.content in instructions))
    return [*stored, *new]


def _call_ids(message: AIMessage) -> list[str | None]:
    return [call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)]


def _problem(messages: Sequence[BaseMessage]) -> str | None:
    waiting: set[str | None] = set()
    answered: set[str | None] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            call_id = message.tool_call_id
            if call_id in answered - waiting:
                return f"The tool call `{call_id}` has two results. Send one."
            if call_id not in waiting:
                return (
                    f"No assistant message before the tool result for `{call_id}` makes this call. "
                    "Send that message before it, or name its session."
                )
            waiting.remove(call_id)
            answered.add(call_id)
        elif waiting:
            break
        elif isinstance(message, AIMessage):
            ids = _call_ids(message)
            waiting = set(ids)
            if len(waiting) != len(ids):
                return "An assistant message makes two tool calls with the same id."
    if not waiting:
        return None
    missing = ", ".join(sorted(f"`{call_id}`" for call_id in waiting))
    return f"No result was sent for the tool call {missing}. Send a tool message for each."
