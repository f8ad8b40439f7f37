"""LangChain messages to the replies of chat/completions: what the local server answers."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata

from langchain_sequrity.wire.denials import check_beside
from langchain_sequrity.wire.exchange import Event, ReplyHead
from langchain_sequrity.wire.json_text import dumps_like_service

DONE = "[DONE]"
_FINISHED_BY_CALLS = "tool_calls"

FAILED_TURN = {"full": "stop", "documented": "error"}


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply: that of the session after a dual-LLM turn, else a random one."""
    return session_id if dual_llm else f"chatcmpl-{secrets.token_hex(12)}"


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: One message per choice. `finish_reason` and `logprobs` come from
            `response_metadata`; the prompt is counted once, the output of all choices.
        head: What the reply says of itself.

    Returns:
        The JSON body.
    """
    body: dict[str, Any] = {
        **_common(head, "chat.completion"),
        "choices": [_choice(index, message) for index, message in enumerate(messages)],
    }
    if len(messages) == 1:  # of several it would not say which one
        body |= check_beside(messages[0].response_metadata, head)
    if usage := _usage_of_all(messages):
        body["usage"] = write_usage(usage)
    return body


def _common(head: ReplyHead, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.request.model}


def write_stream(chunks: Iterable[AIMessageChunk], head: ReplyHead) -> Iterator[Event]:
    """Write a streamed reply.

    Args:
        chunks: Pieces of one message. `finish_reason` is taken from whichever has it.
        head: What the reply says of itself. Usage comes last, in an event of its own, if the
            request asked for it.

    Yields:
        The events, `[DONE]` at the end.
    """
    common = _common(head, "chat.completion.chunk")
    role: dict[str, Any] = {"role": "assistant", "content": ""}
    finish_reason: str | None = None
    tokens: UsageMetadata | None = None
    called = False
    check: dict[str, Any] = {}
    for chunk in chunks:
        tokens = chunk.usage_metadata or tokens
        check = check or check_beside(chunk.response_metadata, head)
        finish_reason = chunk.response_metadata.get("finish_reason") or finish_reason
        called = called or bool(chunk.tool_call_chunks)
        delta, logprobs = _delta(chunk), chunk.response_metadata.get("logprobs")
        if delta or logprobs or role:
            yield _chunk(common, {**role, **delta}, logprobs=logprobs)
            role = {}
    finish_reason = finish_reason or (_FINISHED_BY_CALLS if called else "stop")
    yield _chunk({**common, **check}, role, finish_reason=finish_reason)
    if head.request.stream_usage and tokens is not None:
        yield _event({**common, "choices": [], "usage": write_usage(tokens)})
    yield Event("", DONE)


def write_error(message: str, status: int) -> Event:
    """Write an error that comes up within a stream."""
    return _event({"error": {"message": message, "code": status}})


def _event(body: Mapping[str, Any]) -> Event:
    return Event("", orjson.dumps(body).decode())


def _usage_of_all(messages: Sequence[AIMessage]) -> UsageMetadata | None:
    first = messages[0].usage_metadata
    if first is None or len(messages) == 1:
        return first
    counts = (message.usage_metadata or {"output_tokens": 0} for message in messages)
    output = sum(count["output_tokens"] for count in counts)
    return {**first, "output_tokens": output, "total_tokens": first["input_tokens"] + output}


def write_usage(usage: UsageMetadata) -> dict[str, Any]:
    """Token counts in the names of this format."""
    inputs = usage.get("input_token_details", {})
    outputs = usage.get("output_token_details", {})
    body: dict[str, Any] = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    prompt = {"cached_tokens": inputs.get("cache_read"), "audio_tokens": inputs.get("audio")}
    completion = {
        "reasoning_tokens": outputs.get("reasoning"),
        "audio_tokens": outputs.get("audio"),
    }
    if found := _set(prompt):
        body["prompt_tokens_details"] = found
    if found := _set(completion):
        body["completion_tokens_details"] = found
    return body


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _choice(index: int, message: AIMessage) -> dict[str, Any]:
    calls = [
        _tool_call(call["id"], call["name"], dumps_like_service(call["args"]))
        for call in message.tool_calls
    ]
    calls += [
        _tool_call(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls
    ]
    body: dict[str, Any] = {
        "role": "assistant",
        "content": str(message.text),
        "refusal": message.additional_kwargs.get("refusal"),
    }
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        body["reasoning_content"] = reasoning
    if calls:
        body["tool_calls"] = calls
    finish_reason = message.response_metadata.get("finish_reason")
    return {
        "index": index,
        "message": body,
        "finish_reason": finish_reason or (_FINISHED_BY_CALLS if calls else "stop"),
        "logprobs": message.response_metadata.get("logprobs"),
    }


def _tool_call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _delta(chunk: AIMessageChunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if text := str(chunk.text):
        delta["content"] = text
    for key in ("reasoning_content", "refusal"):
        if value := chunk.additional_kwargs.get(key):
            delta[key] = value
    if chunk.tool_call_chunks:
        delta["tool_calls"] = [_fragment(dict(call)) for call in chunk.tool_call_chunks]
    return delta


def _fragment(call: dict[str, Any]) -> dict[str, Any]:
    fragment: dict[str, Any] = {
        "index": call["index"],
        "function": {"arguments": call["args"] or ""},
    }
    if call["id"] is not None:
        fragment |= {"id": call["id"], "type": "function"}
    if call["name"] is not None:
        fragment["function"]["name"] = call["name"]
    return fragment


def _chunk(
    common: Mapping[str, Any],
    delta: Mapping[str, Any],
    *,
    finish_reason: str | None = None,
    logprobs: Any = None,
) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return _event({**common, "choices": [choice]})
