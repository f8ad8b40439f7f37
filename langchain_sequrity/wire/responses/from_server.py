"""Whole replies of Responses to LangChain messages.

Replies are untrusted: every shape that is not the protocol's becomes a `BadReply`. Fields that are
not known here are kept, under the names they came with; echoes of the request are not.

Items of a response's output as the content of a LangChain message.

The content is the text where there is nothing else to say, and otherwise a list of blocks in the
order of the output: a part of a message is a block `text` or `refusal` with the `id` of its
message, and every other item stands as it came, without what is null. Function calls are
`tool_calls` too. What has another shape raises one of `MISSHAPEN`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.content import KNOWN_BLOCK_TYPES
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call

from langchain_sequrity.errors import StatusError
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.exchange import Reply
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.media import is_media
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    Describe,
    count,
    error_inside,
    read_object,
    refuse,
)
from langchain_sequrity.wire.tools import with_texts

Item = Mapping[str, Any]
Block = dict[str, Any]

_BLOCKS = ("output_text", "tool_use")
# What LangChain puts into blocks.
_MARKS = frozenset({"index", "extras"})
# What a message says of itself and a block has no place or another one for.
_MESSAGE = _MARKS | {"type", "role", "content", "status", "text", "refusal", "annotations"}
_PART = _MARKS | {"type", "text", "annotations", "logprobs", "id"}
_PLAIN = {"type", "text", "id"}


@dataclass(frozen=True, slots=True)
class Output:
    """An output as the fields of a message.

    Attributes:
        blocks: All that is said, in order.
        refusal: Text of all refusals.
        tool_calls: Calls of functions.
        invalid_tool_calls: Those whose arguments did not parse.
    """

    blocks: list[Block]
    refusal: str
    tool_calls: list[ToolCall]
    invalid_tool_calls: list[InvalidToolCall]

    @property
    def content(self) -> str | list[str | dict[Any, Any]]:
        """The text, if there is nothing else to say; otherwise the blocks."""
        if not self.blocks:
            return ""
        [first, *others] = self.blocks
        if not others and first["type"] == "text" and first.keys() <= _PLAIN:
            text: str = first["text"]
            return text
        return [*self.blocks]


def read_output(items: Iterable[Item]) -> Output:
    """Read an output.

    Args:
        items: The items.

    Returns:
        The fields of the message that it makes.

    Raises:
        KeyError: If an item lacks something; other errors of `MISSHAPEN` if it has another shape.
    """
    blocks = [block for item in items for block in read_item(item)]
    good: list[ToolCall] = []
    bad: list[InvalidToolCall] = []
    for block in blocks:
        if block["type"] == "function_call":
            name, text, call_id = block["name"], block["arguments"], block["call_id"]
            args, problem = read_arguments(text)
            if args is None:
                bad.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
            else:
                good.append(tool_call(name=name, args=args, id=call_id))
    refusal = "".join(block["refusal"] for block in blocks if block["type"] == "refusal")
    return Output(blocks, refusal, good, bad)


def read_item(item: Item) -> list[Block]:
    """Read one item: the blocks that it makes, one per part of a message."""
    kind = string(item, "type")
    if kind == "message":
        named = identity(item)
        return [read_part(part, named) for part in item.get("content") or ()]
    if kind == "function_call":
        for key in ("name", "call_id", "arguments"):
            string(item, key)
    elif kind == "reasoning":
        for part in (*(item.get("summary") or ()), *(item.get("content") or ())):
            string(part, "text")
    return [_item(item)]


def _item(item: Item) -> Block:
    if is_block(string(item, "type")):
        msg = f"`{item['type']}` is the type of a block and of nothing that a response has."
        raise TypeError(msg)
    return {key: value for key, value in item.items() if value is not None and key not in _MARKS}


def is_block(kind: str) -> bool:
    """Whether a type is one of LangChain's, or of another format, and so of no item."""
    known = kind in KNOWN_BLOCK_TYPES and kind != "reasoning"
    return known or kind in _BLOCKS or is_media({"type": kind})


def identity(item: Item) -> Block:
    """What every block of a message says of the message: its id, and what is not known here."""
    named = {key: value for key, value in item.items() if key not in _MESSAGE and value is not None}
    if "id" in named:
        string(named, "id")
    return named


def read_part(part: Item, named: Block) -> Block:
    """Read one part of a message that is known by its `identity`."""
    kind = string(part, "type")
    if kind == "refusal":
        return {**named, "type": kind, "refusal": string(part, "refusal")}
    if kind not in ("output_text", "text"):
        return {**named, **_item(part)}
    others = {key: value for key, value in part.items() if key not in _PART and value is not None}
    block = {**others, **named, "type": "text", "text": string(part, "text")}
    if annotations := part.get("annotations"):
        block["annotations"] = [dict(one) for one in annotations]
    return block


def string(value: Item, key: str) -> str:
    """The string under a key; raises one of `MISSHAPEN` for anything else."""
    found = value[key]
    if not isinstance(found, str):
        msg = f"`{key}` is not a string."
        raise TypeError(msg)
    return found


# Fields of the reply that are read by name, and those that only repeat the request.
_READ = {"output", "usage", "object", "created_at", "completed_at", "model", "id"}
_ECHOES = {
    "background",
    "include",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
}
_UNKEPT = frozenset(_READ | _ECHOES)
_UNFINISHED = ("queued", "in_progress", "cancelled")
_FINISH_REASONS = {"max_output_tokens": "length"}


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    A denied turn of a dual-LLM session has status `failed` and a text that says so
    (`docs/protocol.md`, Responses); it is read like any other. A failure without text is an error.

    Args:
        reply: The reply with status 2xx.
        describe: Gives what to add to the message's `response_metadata`.

    Returns:
        One message. `response_metadata` holds `model_name`, `model_provider`, `finish_reason` in
        the words of chat/completions, `id`, `status`, and whatever else the reply said.

    Raises:
        BadReply: If the body is not a finished response.
        StatusError: If the body is an error object, or a failed response without text.
    """
    body = read_object(reply.body, reply)
    items = output_of(body, reply)
    try:
        output = read_output(items)
        message = AIMessage(
            content=output.content,
            additional_kwargs={"refusal": output.refusal} if output.refusal else {},
            tool_calls=output.tool_calls,
            invalid_tool_calls=output.invalid_tool_calls,
            usage_metadata=read_usage(body.get("usage")),
        )
        called = bool(output.tool_calls or output.invalid_tool_calls)
        metadata = {**read_metadata(body, items, called=called), **describe(reply)}
        message.response_metadata = with_texts(metadata, texts_in(items))
    except MISSHAPEN:
        refuse("a response whose `output` has the documented shape", body, reply)
    if is_failed(body) and not message.text:
        raise failure(body, reply)
    return [message]


def texts_in(items: Iterable[Item]) -> Iterator[tuple[Any, Any]]:
    """Ids and arguments of the calls of an output, as they came."""
    return (
        (item.get("call_id"), item.get("arguments"))
        for item in items
        if item.get("type") == "function_call"
    )


def output_of(body: Mapping[str, Any], reply: Reply) -> list[Item]:
    """The output of a finished response; raises for anything else."""
    output = body.get("output")
    if not isinstance(output, list):
        if body.get("error"):
            raise error_inside(body, reply)
        refuse("a response with `output`", body, reply)
    if body.get("status") in _UNFINISHED:
        refuse(f"a finished response: its status is `{body['status']}`", body, reply)
    return output


def is_failed(body: Mapping[str, Any]) -> bool:
    """Whether the service says that the response failed."""
    return body.get("status") == "failed" or bool(body.get("error"))


def failure(body: Mapping[str, Any], reply: Reply) -> StatusError:
    """The error that a failed response stands for."""
    error = body.get("error") or {"message": "The response failed, and no reason was given."}
    return error_inside({"error": error}, reply)


def read_metadata(
    body: Mapping[str, Any], items: Iterable[Item], *, called: bool
) -> dict[str, Any]:
    """What a response says of itself.

    Args:
        body: The response.
        items: Its output.
        called: Whether tools are called.

    Returns:
        The `response_metadata`.
    """
    kept = {key: value for key, value in body.items() if key not in _UNKEPT and value is not None}
    metadata = {
        **kept,
        "model_name": body.get("model") or "",
        "model_provider": MODEL_PROVIDER,
        "id": body.get("id"),
        "finish_reason": _finish_reason(body, called=called),
    }
    if logprobs := _logprobs(items):
        metadata["logprobs"] = {"content": logprobs}
    return metadata


def _finish_reason(body: Mapping[str, Any], *, called: bool) -> str:
    if is_failed(body):
        return "error"
    if body.get("status") == "incomplete":
        reason: str = (body.get("incomplete_details") or {}).get("reason") or "incomplete"
        return _FINISH_REASONS.get(reason, reason)
    return "tool_calls" if called else "stop"


def _logprobs(items: Iterable[Item]) -> list[Any]:
    """Log probabilities of all parts: where chat/completions has them, and nowhere else."""
    return [
        token
        for item in items
        if item["type"] == "message"
        for part in item.get("content") or ()
        for token in part.get("logprobs") or ()
    ]


def read_usage(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """Token counts in LangChain's names."""
    if not usage:
        return None
    asked, answered = count(usage, "input_tokens"), count(usage, "output_tokens")
    result = UsageMetadata(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=count(usage, "total_tokens") or asked + answered,
    )
    input_details = usage.get("input_tokens_details") or {}
    output_details = usage.get("output_tokens_details") or {}
    inputs = {
        "cache_read": input_details.get("cached_tokens"),
        "cache_creation": input_details.get("cache_write_tokens"),
    }
    outputs = {"reasoning": output_details.get("reasoning_tokens")}
    if found := {key: count for key, count in inputs.items() if count is not None}:
        result["input_token_details"] = cast("Any", found)
    if found := {key: count for key, count in outputs.items() if count is not None}:
        result["output_token_details"] = cast("Any", found)
    return result
