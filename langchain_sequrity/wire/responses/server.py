"""The server's side of Responses: reads requests and writes whole replies.

Bodies are untrusted; `checks` refuses what the protocol does not describe. Parts of content become
LangChain's standard blocks, which every backend knows. Consecutive items of the assistant are one
message. Its content is text if there is only text next to calls, and otherwise the list of blocks
that a client reads from a reply (`items`), with the ids of the items.
"""

import base64
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_sequrity.errors import status_error
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.checks import array, optional, tagged_union, text_or
from langchain_sequrity.wire.exchange import REFERENCE_KEY, ChatRequest, Event, ReplyHead
from langchain_sequrity.wire.media import Media, read_media
from langchain_sequrity.wire.responses.client import write_format, write_tool
from langchain_sequrity.wire.responses.items import Block, is_block, read_output
from langchain_sequrity.wire.tools import neutral_tool, write_calls

Item = dict[str, Any]

# Content parts of a request


_DETAIL = {"detail": optional(Literal["auto", "low", "high", "original"])}
_TEXT = {"input_text": {"text": str}}
_PARTS = {
    **_TEXT,
    "input_image": tagged_union(
        "image_url",
        {
            "by id": {**_DETAIL, "file_id": str},
            "by URL": {**_DETAIL, "image_url": checks.IMAGE_URL},
        },
        tag_of=lambda part: "by URL" if part.get("file_id") is None else "by id",
    ),
    "input_audio": {"input_audio": checks.AUDIO},
    "input_file": checks.with_one_of(
        {
            "filename": optional(str),
            "file_id": optional(str),
            "file_url": optional(checks.WEB_URL),
            "file_data": optional(checks.DATA_URI),
        },
        "file_id",
        "file_url",
        "file_data",
    ),
}


def _content_of(parts: Mapping[str, Any]) -> checks.Form:
    return text_or(array(tagged_union("type", parts), least=1), "parts")


_TEXT_CONTENT = _content_of(_TEXT)
_CONTENT = _content_of(_PARTS)


def _read_content(content: Any) -> Any:
    """Read text unchanged, and parts as standard blocks."""
    return content if isinstance(content, str) else [_read_part(part) for part in content]


def _read_part(part: Block) -> Block:
    if part["type"] == "input_text":
        return {"type": "text", "text": part["text"]}
    if part.get("file_id") is not None:  # an image may have both
        part = {key: value for key, value in part.items() if key != "image_url"}
    block = _standard(read_media(part))
    detail = part.get("detail") if part["type"] == "input_image" else None
    return block if detail is None else {**block, "extras": {"detail": detail}}


def _standard(media: Media) -> Block:
    block: Block = {"type": media.type}
    if media.file_id is not None:
        block["file_id"] = media.file_id
    elif media.data is not None:
        block |= {"base64": media.data, "mime_type": media.mime_type}
    else:
        block["url"] = media.url
    if media.name is not None:
        block["filename"] = media.name
    return block


# Items of a request


_ANNOTATED = {"annotations": optional(array(checks.OBJECT))}
_MESSAGE = {
    "system": {"content": _TEXT_CONTENT},
    "developer": {"content": _TEXT_CONTENT},
    "user": {"content": _CONTENT},
    "assistant": {
        "id": optional(str),
        "phase": optional(str),
        "content": _content_of(
            {"output_text": {**_ANNOTATED, "text": str}, "refusal": {**_ANNOTATED, "refusal": str}}
        ),
    },
}
_THOUGHTS = optional(array({"text": str}))
_UNREAD = {"id": optional(str)}
_ITEM = {
    "message": tagged_union("role", _MESSAGE),
    "function_call": {"id": optional(str), "call_id": str, "name": str, "arguments": str},
    "function_call_output": {"call_id": str, "output": _CONTENT, "is_error": optional(bool)},
    "reasoning": {
        "id": optional(str),
        "encrypted_content": optional(str),
        "summary": _THOUGHTS,
        "content": _THOUGHTS,
    },
    # The server does not use these items. They belong to the assistant and are kept unchanged, such
    # as calls of tools that the service would run itself, and their results.
    "*_call": _UNREAD,
    "*_output": _UNREAD,
    "mcp_list_tools": _UNREAD,
    "mcp_approval_request": _UNREAD,
    "mcp_approval_response": _UNREAD,
    "compaction": _UNREAD,
    "item_reference": {"id": str},
}


def _item_type(item: Mapping[str, Any]) -> Any:
    item_type = item.get("type")
    if item_type is None:  # a reference may come without its type
        return "message" if item.get("role") is not None else "item_reference"
    # A type of block is never a type of item, even if it matches a pattern.
    is_other = isinstance(item_type, str) and is_block(item_type) and item_type not in _ITEM
    return None if is_other else item_type


_INPUT = {
    "instructions": optional(str),
    "input": optional(text_or(array(tagged_union("type", _ITEM, tag_of=_item_type)), "items")),
    "previous_response_id": optional(str),
}


def _read_input(body: Mapping[str, Any]) -> list[BaseMessage]:
    """Read the conversation of a checked body; `instructions` come first."""
    instructions, conversation = body.get("instructions"), body.get("input")
    messages: list[BaseMessage] = [SystemMessage(instructions)] if instructions else []
    if not conversation and body.get("previous_response_id") is None:
        checks.refuse_request("`input` is empty. Send text, or at least one item.")
    if isinstance(conversation, str):
        return [*messages, HumanMessage(conversation)]
    assistant_items: list[Item] = []
    for item in conversation or ():
        is_reference = _item_type(item) == "item_reference"
        message = _reference(item["id"]) if is_reference else _other_message(item)
        if message is None:
            assistant_items.append(_assistant_item(item))
            continue
        messages += _assistant(assistant_items)
        assistant_items = []
        messages.append(message)
    return [*messages, *_assistant(assistant_items)]


def _reference(item_id: str) -> AIMessage:
    """In the place of an item that the client does not repeat; the session has its message."""
    match = _ITEM_ID.match(item_id)
    reply_id = f"resp_{match[1]}" if match else item_id
    return AIMessage("", response_metadata={REFERENCE_KEY: reply_id})


def _other_message(item: Item) -> BaseMessage | None:
    """Read an item as a message; `None` for an item of the assistant."""
    if item.get("type") == "function_call_output":
        return ToolMessage(
            content=_read_content(item["output"]),
            tool_call_id=item["call_id"],
            status=checks.status_of(item),
        )
    role = item["role"] if item.get("type") in (None, "message") else "assistant"
    if role == "user":
        return HumanMessage(content=_read_content(item["content"]))
    if role == "assistant":
        return None
    extra = {"__openai_role__": role} if role == "developer" else {}
    return SystemMessage(content=_read_content(item["content"]), additional_kwargs=extra)


def _assistant(items: list[Item]) -> Iterable[AIMessage]:
    if not items:
        return
    output = read_output(items, is_cut=False)
    plain = _is_plain(output.blocks)
    text = "".join(block["text"] for block in output.blocks if block["type"] == "text")
    yield AIMessage(
        content=text if plain else [*output.blocks],
        additional_kwargs={"refusal": output.refusal} if output.refusal else {},
        tool_calls=output.tool_calls,
        invalid_tool_calls=output.invalid_tool_calls,
        # Blocks need the provider's translator; text does not.
        response_metadata={} if plain else {"model_provider": MODEL_PROVIDER},
    )


# In the order of plain blocks.
_BARE = {
    "text": {"type", "text"},
    "refusal": {"type", "refusal"},
    "function_call": {"type", "call_id", "name", "arguments"},
}


def _is_plain(blocks: list[Block]) -> bool:
    """Whether there are only text, refusal and calls, in this order and without ids."""
    block_types = [block["type"] for block in blocks]
    if any(block_types.count(block_type) > 1 for block_type in ("text", "refusal")):
        return False
    if not all(block.keys() == _BARE.get(block["type"]) for block in blocks):
        return False
    return block_types == sorted(block_types, key=[*_BARE].index)


def _assistant_item(item: Item) -> Item:
    if item.get("type") in (None, "message"):
        content = item["content"]
        parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
        return {**item, "type": "message", "content": parts}
    return item


# Requests


_MOST_PAIRS = 16
_LOGPROBS = "message.output_text.logprobs"
_NOT_IMPLEMENTED = 501

_SCHEMA = optional(checks.JSON_SCHEMA)
_FUNCTION = {
    "name": checks.TOOL_NAME,
    "description": optional(str),
    "parameters": _SCHEMA,
    "strict": optional(bool),
    "output_schema": _SCHEMA,
}
_TOOLS = checks.Body(
    {"tools": optional(array(tagged_union("type", {"function": _FUNCTION, "*": {}})))}
)
_FORMAT = {
    "text": {},
    "json_object": {},
    "json_schema": checks.with_schema(checks.JSON_SCHEMA, {"name": str}),
}
_SUMMARY = optional(Literal["auto", "concise", "detailed"])
_REASONING = {
    "effort": optional(Literal["none", "minimal", "low", "medium", "high", "xhigh"]),
    "summary": _SUMMARY,
    "generate_summary": _SUMMARY,
}


def _chosen(choice: Any) -> Any:
    is_function = isinstance(choice, dict) and choice.get("type") == "function"
    return choice.get("name") if is_function else None


BODY = checks.Body(
    {
        **_INPUT,
        "model": str,
        "tool_choice": checks.tool_choice_form(_chosen, "{type: function, name}"),
        "text": optional(
            {
                "verbosity": optional(Literal["low", "medium", "high"]),
                "format": optional(tagged_union("type", _FORMAT)),
            }
        ),
        **checks.OPENAI_FIELDS,
        "max_output_tokens": optional(checks.at_least(1)),
        "max_tool_calls": optional(checks.at_least(1)),
        "reasoning": optional(_REASONING),
        "include": optional(array(str)),
        "store": optional(bool),
        "truncation": optional(Literal["auto", "disabled"]),
        "metadata": optional(
            checks.with_check(
                checks.OBJECT,
                lambda pairs: (
                    len(pairs) <= _MOST_PAIRS
                    and all(isinstance(value, str) for value in pairs.values())
                ),
                f"have at most {_MOST_PAIRS} pairs, each with a string",
            )
        ),
    }
)


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        The request, with LangChain messages. `options` has `reasoning_effort` and `logprobs` in
        addition to this format's own fields for them.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
        ServerFailed: With `status` 501 for features that this server does not have.
    """
    if isinstance(body, dict):
        _refuse_unsupported(body)
    BODY.check(body)
    options = dict(body)
    take = options.pop
    take("input", None)
    take("stream_options", None)
    tools, server_tools = read_tools({"tools": take("tools", None)})
    choice = take("tool_choice", None)
    if (effort := (body.get("reasoning") or {}).get("effort")) is not None:
        options["reasoning_effort"] = effort
    if _LOGPROBS in (body.get("include") or ()):
        options["logprobs"] = True
    return ChatRequest(
        model=take("model"),
        messages=_read_input(body),
        tools=tools,
        tool_choice=checks.neutral_choice(choice, _chosen(choice), tools, server_tools),
        response_format=_response_format(body.get("text") or {}),
        stop=checks.stop_list(take("stop", None)),
        max_tokens=take("max_output_tokens", None),
        stream=take("stream", None) or False,
        stream_usage=True,
        parallel_tool_calls=take("parallel_tool_calls", None) is not False,
        server_tools=server_tools,
        previous_reply=take("previous_response_id", None),
        options=options,
    )


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for key, lacks in (
        ("background", "does not answer in the background"),
        ("conversation", "keeps no conversations other than its sessions"),
        ("prompt", "has no stored prompts"),
    ):
        if body.get(key):
            detail = f"This server {lacks}. Send the request without `{key}`."
            raise status_error(_NOT_IMPLEMENTED)(
                detail, status=_NOT_IMPLEMENTED, body={"detail": detail}
            )
    # Only chat/completions can ask for several choices.
    if body.get("n") not in (None, 1):
        checks.refuse_request("A response is one reply. Send the request without `n`.")


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Function tools in neutral form, and tools that the service would run itself."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    functions = [neutral_tool(tool) for tool in tools if tool["type"] == "function"]
    checks.distinct_tools(functions)
    return functions, [tool for tool in tools if tool["type"] != "function"]


def _response_format(text: Mapping[str, Any]) -> dict[str, Any] | None:
    value = checks.plain_schema(text.get("format"))
    if value is None or value["type"] != "json_schema":
        return value and {"type": value["type"]}
    return {"type": "json_schema", "json_schema": {k: v for k, v in value.items() if k != "type"}}


# Replies


_REPLY_ID = re.compile(r"resp_([0-9a-f]{32})[0-9a-f]{16}\Z")
_ITEM_ID = re.compile(r"(?:fc|msg|rs)_([0-9a-f]{48})[0-9a-f]{2,4}\Z")
_RANDOM = 16  # hex digits
_ENCRYPTED = "reasoning.encrypted_content"
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FAILED = "error"


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply, by which `previous_response_id` finds the session."""
    del dual_llm
    return f"resp_{session_id.replace('-', '')}{secrets.token_hex(_RANDOM // 2)}"


def session_of(reply_id: str) -> str | None:
    """Find the session of a reply.

    Args:
        reply_id: The id of the reply.

    Returns:
        The session's id, or `None` if this server did not make the reply's id.

    Example:
        ```python
        from langchain_sequrity.wire.responses.server import new_reply_id, session_of

        session_id = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"
        assert session_of(new_reply_id(session_id)) == session_id
        ```
    """
    match = _REPLY_ID.match(reply_id)
    return str(uuid.UUID(match[1])) if match else None


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: The one message. `finish_reason` and `logprobs` come from `response_metadata`.
        head: Facts of the reply.

    Returns:
        The JSON body.
    """
    [message] = messages
    status = status_of(message.response_metadata.get("finish_reason"))
    items = _items(message, head)
    if items:
        items[-1] = with_final_status(items[-1], status)
    return write_response(head, items, message.response_metadata, message.usage_metadata)


def write_error(message: str, status: int) -> Event:
    """Write an error that happens during a stream."""
    return stream_event(0, "error", code=str(status), message=message, param=None)


def stream_event(number: int, event_type: str, /, **fields: Any) -> Event:
    """Write an event of a stream with its number."""
    body = {"type": event_type, "sequence_number": number, **fields}
    return Event(event_type, orjson.dumps(body).decode())


def write_response(
    head: ReplyHead,
    output: Sequence[Item],
    metadata: Mapping[str, Any] | None = None,
    usage: UsageMetadata | None = None,
) -> dict[str, Any]:
    """Write a response around its output.

    Args:
        head: Facts of the reply.
        output: Its items.
        metadata: The message's `response_metadata`, with the reason of a failed turn as `failure`;
            `None` while it is not finished.
        usage: Token counts, if known.

    Returns:
        The object.
    """
    finish_reason = None if metadata is None else metadata.get("finish_reason")
    reason = _INCOMPLETE.get(str(finish_reason))
    error = None
    if metadata is not None and finish_reason == _FAILED:
        reason_text = metadata.get("failure") or "The turn failed."
        error = {"code": "server_error", "message": reason_text}
    return {
        "id": head.id,
        "object": "response",
        "created_at": float(head.created),
        "status": "in_progress" if metadata is None else status_of(finish_reason),
        "error": error,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": None if usage is None else _usage(usage),
        **_echoes(head),
        **head.policy_check(metadata or {}),
    }


def status_of(finish_reason: str | None) -> str:
    """The status of a response with this finish reason."""
    if finish_reason == _FAILED:
        return "failed"
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def _echoes(head: ReplyHead) -> dict[str, Any]:
    """Fields of the request that the response repeats."""
    request, options = head.request, head.request.options
    choice: Any = request.tool_choice or "auto"
    if isinstance(choice, dict):
        choice = {"type": "function", **choice}
    text = {"format": write_format(request.response_format or {"type": "text"})}
    if verbosity := (options.get("text") or {}).get("verbosity"):
        text["verbosity"] = verbosity
    reasoning = options.get("reasoning") or {}
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    return {
        "model": request.model,
        "instructions": options.get("instructions"),
        "previous_response_id": request.previous_reply,
        "tools": [*map(write_tool, request.tools), *request.server_tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "max_tool_calls": options.get("max_tool_calls"),
        "max_output_tokens": request.max_tokens,
        "temperature": options.get("temperature"),
        "top_p": options.get("top_p"),
        "top_logprobs": options.get("top_logprobs"),
        "text": text,
        "reasoning": {"effort": reasoning.get("effort"), "summary": summary},
        "truncation": options.get("truncation") or "disabled",
        "store": options.get("store") is not False,
        "background": False,
        "metadata": options.get("metadata") or {},
    }


def _usage(usage: UsageMetadata) -> dict[str, Any]:
    inputs = usage.get("input_token_details", {})
    outputs = usage.get("output_token_details", {})
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": inputs.get("cache_read") or 0,
            "cache_write_tokens": inputs.get("cache_creation") or 0,
        },
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": outputs.get("reasoning") or 0},
        "total_tokens": usage["total_tokens"],
    }


def _items(message: AIMessage, head: ReplyHead) -> list[Item]:
    extra = message.additional_kwargs
    items: list[Item] = []
    if reasoning := extra.get("reasoning_content"):
        items.append(reasoning_item(head, len(items), reasoning))
    parts: list[Item] = []
    if refusal := extra.get("refusal"):
        parts.append(refusal_part(refusal))
    if text := str(message.text):
        logprobs = message.response_metadata.get("logprobs") or {}
        parts.append(text_part(text, logprobs.get("content") or []))
    if parts:
        items.append(message_item(head, len(items), parts))
    for call_id, name, arguments in write_calls(message):
        items.append(call_item(head, len(items), call_id, name, arguments))
    return items


def reasoning_item(head: ReplyHead, number: int, text: str) -> Item:
    """Write reasoning as an item with one summary."""
    summary = [summary_part(text)] if text else []
    item: Item = {"id": _id("rs", head, number), "type": "reasoning", "summary": summary}
    if text and _ENCRYPTED in (head.request.options.get("include") or ()):
        # It is not encrypted; clients pass it back unread.
        item["encrypted_content"] = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return item


def summary_part(text: str) -> Item:
    """Write a text as the summary of reasoning."""
    return {"type": "summary_text", "text": text}


def message_item(head: ReplyHead, number: int, parts: list[Item]) -> Item:
    """Write a message with its parts."""
    named = {"id": _id("msg", head, number), "type": "message", "role": "assistant"}
    return {**named, "status": "completed", "content": parts}


def text_part(text: str, logprobs: Sequence[Any] = ()) -> Item:
    """Write a text as a part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*logprobs]}


def refusal_part(text: str) -> Item:
    """Write a refusal as a part of a message."""
    return {"type": "refusal", "refusal": text}


def call_item(
    head: ReplyHead, number: int, call_id: str | None, name: str | None, arguments: str
) -> Item:
    """Write a call of a function."""
    return {
        "id": _id("fc", head, number),
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def with_final_status(item: Item, status: str) -> Item:
    """The last item of a response with this status; it may have been cut off."""
    if "status" in item and status == "incomplete":
        return {**item, "status": status}
    return item


def _id(prefix: str, head: ReplyHead, number: int) -> str:
    """The id of an item: made of the reply's id, by which a reference finds its message."""
    return f"{prefix}_{head.id.removeprefix('resp_')}{number:02x}"
