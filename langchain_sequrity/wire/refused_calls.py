"""Tool results that say that a call was refused and its tool did not run.

What refuses a call, such as LangChain's middleware for human review, answers it in place of the
tool. No format has a field for this, so the text says it. Data must not be able to say it, because
a call that was refused has no effects and leaves no labels. So the sentence names the id of the
call: what a tool reads does not know the random id of the call that reads it.
"""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, ToolMessage, get_notification_metadata

from langchain_sequrity.wire.tool_results import has_failed


def refusal_sentence(call_id: str) -> str:
    """The sentence with which the result of a refused call begins.

    Args:
        call_id: The id of the call.
    """
    return f"The call {call_id} was refused, and its tool did not run. "


def with_refusal_sentences(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write the sentence into the results of refused calls.

    Args:
        messages: The conversation; it is not changed.

    Returns:
        The conversation. A result is that of a refused call if its status is `error` and its
        notification metadata, which only code can set, has the decision `reject`.
    """
    return [_with_sentence(one) if isinstance(one, ToolMessage) else one for one in messages]


def _with_sentence(message: ToolMessage) -> ToolMessage:
    metadata = get_notification_metadata(message) if has_failed(message) else None
    if metadata is None or metadata.get("data", {}).get("decision") != "reject":
        return message
    sentence, content = refusal_sentence(message.tool_call_id), message.content
    if isinstance(content, str):
        return message.model_copy(update={"content": sentence + content})
    blocks = [{"type": "text", "text": sentence}, *content]
    return message.model_copy(update={"content": blocks})
