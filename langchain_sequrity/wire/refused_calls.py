"""Tool results that say that a call was refused and its tool did not run.

What refuses a call, such as LangChain's middleware for human review, answers it in place of the
tool. No format has a field for this, so a sentence at the beginning of the text says it. A call
that was refused has no effects and leaves no labels, so data must not be able to say it. The client
writes the sentence only for messages that code has marked, and changes the text of any other error
that begins with it. The sentence also names the id of the call, which data rarely know: this
protects clients that know nothing of the sentence.
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
    """Write the sentence into the results of refused calls, and into no others.

    Args:
        messages: The conversation; it is not changed.

    Returns:
        The conversation. A result is that of a refused call if its status is `error` and its
        notification metadata, which LangChain keeps beside the content, have the decision `reject`.
    """
    return [_with_sentence(message) if has_failed(message) else message for message in messages]


def _with_sentence(message: ToolMessage) -> ToolMessage:
    metadata = get_notification_metadata(message)
    sentence, content = refusal_sentence(message.tool_call_id), message.content
    if metadata is not None and metadata.get("data", {}).get("decision") == "reject":
        begin = sentence
    elif message.text.startswith(sentence):
        begin = "Error: "
    else:
        return message
    if isinstance(content, str):
        return message.model_copy(update={"content": begin + content})
    return message.model_copy(update={"content": [{"type": "text", "text": begin}, *content]})
