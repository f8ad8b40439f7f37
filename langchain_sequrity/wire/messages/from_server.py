"""Replies of Messages to LangChain messages.

Blocks are kept as they came, with `model_provider` "anthropic", so that LangChain's own translator
reads them and they can go back unchanged. Replies are untrusted: every shape that is not the
protocol's becomes a `BadReply`. Fields that are not known here are kept.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call

from langchain_sequrity.wire.exchange import Reply
from langchain_sequrity.wire.json_text import dumps, read_arguments
from langchain_sequrity.wire.messages.ids import INVALID
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    Describe,
    count,
    error_inside,
    read_object,
    refuse,
)

MODEL_PROVIDER = "anthropic"
_READ_FIELDS = {"content", "usage", "type", "role", "model", "id"}
# What LangChain joins to other pieces of a stream; anything but text would break it there.
_STRINGS = ("type", "text", "thinking", "signature", "id", "name", "partial_json")
_REFUSED = "refusal"
_NO_REASON = "The model refused to answer."
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    Args:
        reply: The reply with status 2xx.
        describe: Gives what to add to the message's `response_metadata`.

    Returns:
        The one message. `content` is text where the reply is nothing else, and the list of blocks
        as they came otherwise. `response_metadata` holds `model_name`, `model_provider`,
        `stop_reason`, `id`, and whatever else the reply said.

    Raises:
        BadReply: If the body is not a message.
        StatusError: If the body is an error object.
    """
    body = read_object(reply.body, reply, exact=True)  # arguments of calls are part of it
    if body.get("error"):
        raise error_inside(body, reply)
    blocks = body.get("content")
    if not isinstance(blocks, list):
        refuse("a message with `content`", body, reply)
    try:
        calls, invalid = _tool_calls(blocks)
        usage = body.get("usage")
        message = AIMessage(
            content=_content(blocks),
            additional_kwargs=refusal_of(body),
            tool_calls=calls,
            invalid_tool_calls=invalid,
            response_metadata={**read_metadata(body), **describe(reply)},
            usage_metadata=read_usage(usage) if usage else None,
        )
    except MISSHAPEN:
        refuse("a message with blocks of content", body, reply)
    return [message]


def _content(blocks: list[Any]) -> str | list[str | dict[Any, Any]]:
    read = [read_block(block) for block in blocks]
    if len(read) == 1 and read[0]["type"] == "text" and not read[0].get("citations"):
        text: str = read[0]["text"]
        return text
    return cast("list[str | dict[Any, Any]]", read)


def read_block(block: Mapping[str, Any]) -> dict[str, Any]:
    """Read one block: as it is, but that thinking has one spelling.

    The service documents `text` where Anthropic has `thinking` (`docs/protocol.md`, Messages).
    """
    for key in _STRINGS:
        if not isinstance(block.get(key, ""), str):
            msg = f"`{key}` is no string."
            raise TypeError(msg)
    if block["type"] == "thinking" and "thinking" not in block:
        return {**block, "thinking": block["text"]}
    return dict(block)


def _tool_calls(
    blocks: Iterable[Mapping[str, Any]],
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    good: list[ToolCall] = []
    bad: list[InvalidToolCall] = []
    for block in blocks:
        if block["type"] != "tool_use":
            continue
        name, given, call_id = block["name"], block.get("input"), block.get("id")
        if isinstance(given, dict) and given.keys() != {INVALID}:
            good.append(tool_call(name=name, args=given, id=call_id))
            continue
        if isinstance(given, dict):
            given = given[INVALID]
        # Some services in between send the JSON text itself.
        text = given if isinstance(given, str) or given is None else dumps(given)
        args, problem = read_arguments(text)
        if args is None:
            bad.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
        else:
            good.append(tool_call(name=name, args=args, id=call_id))
    return good, bad


def read_metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a reply says of itself, in LangChain's names."""
    kept = {
        key: value
        for key, value in body.items()
        if key not in _READ_FIELDS and value is not None and key != "error"
    }
    return {
        **kept,
        "model_name": body.get("model") or "",
        "model_provider": MODEL_PROVIDER,
        "id": body.get("id"),
        "stop_reason": body.get("stop_reason"),
    }


def refusal_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into `additional_kwargs`: the refusal, where all of this package looks for it."""
    if body.get("stop_reason") != _REFUSED:
        return {}
    details = body.get("stop_details")
    reason = details.get("explanation") if isinstance(details, Mapping) else None
    return {"refusal": str(reason or _NO_REASON)}


def read_usage(usage: Mapping[str, Any]) -> UsageMetadata:
    """Token counts. Those of the cache come beside `input_tokens` and are added to them."""
    read = usage.get("cache_read_input_tokens")
    created = usage.get("cache_creation_input_tokens")
    details: dict[str, Any] = {"cache_read": read, "cache_creation": created}
    by_lifetime = usage.get("cache_creation") or {}
    lifetimes = {name: by_lifetime[name] for name in _LIFETIMES if by_lifetime.get(name)}
    if lifetimes:  # in place of their sum, which LangChain's cost counting would add to them
        details |= {"cache_creation": 0, **lifetimes}
    cached = count(usage, "cache_read_input_tokens")
    cached += sum(lifetimes.values()) or count(usage, "cache_creation_input_tokens")
    inputs, outputs = count(usage, "input_tokens") + cached, count(usage, "output_tokens")
    result = UsageMetadata(
        input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs
    )
    if found := {key: number for key, number in details.items() if number is not None}:
        result["input_token_details"] = cast("Any", found)
    thought = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    if thought is not None:
        result["output_token_details"] = {"reasoning": thought}
    return result
