"""A whole message as one piece of a stream."""

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.wire.json_text import dumps


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return the piece that holds a message, for services that answer a stream with one reply."""
    calls = [(call["name"], dumps(call["args"]), call["id"]) for call in message.tool_calls]
    bad = [(call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls]
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        tool_call_chunks=[
            tool_call_chunk(name=name, args=args, id=call_id, index=index)
            for index, (name, args, call_id) in enumerate([*calls, *bad])
        ],
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        id=message.id,
    )
