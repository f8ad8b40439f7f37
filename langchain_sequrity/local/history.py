"""Whether a history is one that a model can go on with: every tool call has its one result."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_sequrity.local.refusals import refuse


def complete(messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the whole conversation that a request stands for.

    A client may send the whole history each time, or only what is new (`docs/behaviour.md`, P5).

    Args:
        messages: The messages of the request.
        stored: The session's conversation so far; empty in a new session.

    Returns:
        The conversation.

    Raises:
        StatusError: 400 if a tool call has no result, or a result no call.
    """
    together = [*stored, *messages]
    if stored and _continues(messages, stored) and _problem(together) is None:
        return together
    problem = _problem(messages)
    if problem is not None:
        refuse(400, problem)
    return list(messages)


def _continues(messages: Sequence[BaseMessage], stored: Sequence[BaseMessage]) -> bool:
    """Whether the messages are new: the first of them is nowhere in what was said before."""
    first = next((one for one in messages if not isinstance(one, SystemMessage)), None)
    if first is None:
        return False
    return not any(type(one) is type(first) and one.content == first.content for one in stored)


def _problem(messages: Sequence[BaseMessage]) -> str | None:
    open_calls: dict[str | None, None] = {}
    answered: set[str] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            call_id = message.tool_call_id
            if call_id in open_calls:
                del open_calls[call_id]
                answered.add(call_id)
                continue
            if call_id in answered:
                return f"The tool call `{call_id}` has two results. Send one."
            return (
                f"The tool result for `{call_id}` follows no assistant message that makes this "
                "call. Send that message before it, or name its session."
            )
        if open_calls:
            break
        if isinstance(message, AIMessage):
            answered = set()
            open_calls = {call["id"]: None for call in message.tool_calls}
            if len(open_calls) != len(message.tool_calls):
                return "An assistant message makes two tool calls with the same id."
    if not open_calls:
        return None
    return f"The tool call `{next(iter(open_calls))}` has no result. Send a tool message for it."
