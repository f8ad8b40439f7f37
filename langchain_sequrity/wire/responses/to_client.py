"""LangChain messages to the replies of Responses: what the local server answers."""

import base64
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_sequrity.wire.denied import check_beside
from langchain_sequrity.wire.exchange import Event, ReplyHead
from langchain_sequrity.wire.json_text import dumps_like_service
from langchain_sequrity.wire.responses.params import write_format, write_tool

Item = dict[str, Any]

_REPLY_ID = re.compile(r"resp_([0-9a-f]{32})[0-9a-f]{16}\Z")
_RANDOM = 16  # hex digits
_ENCRYPTED = "reasoning.encrypted_content"
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FAILED = "error"

FAILED_TURN = {"full": "error", "documented": "error"}


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply; `previous_response_id` finds the session by it."""
    del dual_llm
    return f"resp_{session_id.replace('-', '')}{secrets.token_hex(_RANDOM // 2)}"


def session_of(reply_id: str) -> str | None:
    """Find the session that a reply was given in.

    Args:
        reply_id: The id of the reply.

    Returns:
        The session's id, or `None` if the reply's is not one of ours.

    Example:
        ```python
        from langchain_sequrity.wire.responses import new_reply_id, session_of

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
        head: What the reply says of itself.

    Returns:
        The JSON body.
    """
    [message] = messages
    status = status_of(message.response_metadata.get("finish_reason"))
    items = _items(message, head)
    if items:
        items[-1] = ended(items[-1], status)
    return write_response(head, items, message.response_metadata, message.usage_metadata)


def write_error(message: str, status: int) -> Event:
    """Write an error that comes up within a stream."""
    return stream_event(0, "error", code=str(status), message=message, param=None)


def stream_event(number: int, kind: str, /, **fields: Any) -> Event:
    """Write the event of a stream that has this number."""
    body = {"type": kind, "sequence_number": number, **fields}
    return Event(kind, orjson.dumps(body).decode())


# The response


def write_response(
    head: ReplyHead,
    output: Sequence[Item],
    metadata: Mapping[str, Any] | None = None,
    usage: UsageMetadata | None = None,
) -> dict[str, Any]:
    """Write a response around its output.

    Args:
        head: What the reply says of itself.
        output: Its items.
        metadata: The message's `response_metadata`, where `failure` says why a turn failed; `None`
            while it is not finished.
        usage: Token counts, once they are known.

    Returns:
        The object.
    """
    finish_reason = None if metadata is None else metadata.get("finish_reason")
    reason = _INCOMPLETE.get(str(finish_reason))
    error = None
    if metadata is not None and finish_reason == _FAILED:
        told = metadata.get("failure") or "The turn failed."
        error = {"code": "server_error", "message": told}
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
        **check_beside(metadata or {}, head),
    }


def status_of(finish_reason: str | None) -> str:
    """Status of a response that finished for a reason."""
    if finish_reason == _FAILED:
        return "failed"
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def _echoes(head: ReplyHead) -> dict[str, Any]:
    """What a response repeats of its request."""
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


# Items


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
    calls = [
        (call["id"], call["name"], dumps_like_service(call["args"])) for call in message.tool_calls
    ]
    bad = [(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
    for call_id, name, arguments in (*calls, *bad):
        items.append(call_item(head, len(items), call_id, name, arguments or ""))
    return items


def reasoning_item(head: ReplyHead, number: int, text: str) -> Item:
    """Write reasoning as an item with one summary."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: Item = {"id": _id("rs", head, number), "type": "reasoning", "summary": summary}
    if text and _ENCRYPTED in (head.request.options.get("include") or ()):
        # Nothing is secret here; clients pass it back unread.
        item["encrypted_content"] = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return item


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


def ended(item: Item, status: str) -> Item:
    """An item as it stands in a response that ended with a status: the last one may be cut off."""
    if "status" in item and status == "incomplete":
        return {**item, "status": status}
    return item


def _id(prefix: str, head: ReplyHead, number: int) -> str:
    """Id of an item: of the random part of the reply's id, which tells nothing of the session."""
    return f"{prefix}_{head.id[-_RANDOM:]}{number:02x}"
