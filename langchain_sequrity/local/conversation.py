"""What a conversation says, for brains that look into it."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage


def text_of(message: BaseMessage | None) -> str:
    """The text of a message, with nothing in it that UTF-8 cannot carry."""
    if message is None:
        return ""
    # LangChain's `text` is a copy, as is what comes back from bytes; a text can be long.
    text = message.content if isinstance(message.content, str) else str(message.text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def last_user(messages: Sequence[BaseMessage]) -> BaseMessage | None:
    """The last message of the user."""
    return next((one for one in reversed(messages) if isinstance(one, HumanMessage)), None)


def this_turn(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What came after the last message of the user; everything if there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if isinstance(messages[index], HumanMessage):
            return list(messages[index + 1 :])
    return list(messages)


def tool_results(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    """Names of the tools that have answered since the last message of the user, and their text."""
    turn = this_turn(messages)
    names = called_tools(messages)
    return [
        (names.get(one.tool_call_id) or one.name or "tool", text_of(one))
        for one in turn
        if isinstance(one, ToolMessage)
    ]


def called_tools(messages: Sequence[BaseMessage]) -> dict[str | None, str]:
    """Names of the tools that were called, by the ids of the calls."""
    return {
        call["id"]: call["name"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
