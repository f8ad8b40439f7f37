"""LangChain messages to the replies of Messages: what the local server answers."""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_sequrity.wire.denials import check_beside
from langchain_sequrity.wire.exchange import Event, ReplyHead
from langchain_sequrity.wire.json_text import dumps
from langchain_sequrity.wire.messages.params import INVALID

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_NAMES_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_NOTHING_YET = {"input_tokens": 0, "output_tokens": 0}

FAILED_TURN = {"full": "stop", "documented": "stop"}


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply; it tells nothing of the session in this format."""
    del session_id, dual_llm
    return f"msg_{secrets.token_hex(12)}"


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: The one message. `finish_reason` comes from `response_metadata`.
        head: What the reply says of itself.

    Returns:
        The JSON body.
    """
    [message] = messages
    refusal = message.additional_kwargs.get("refusal")
    return {
        **_common(head),
        "content": list(_blocks(message, head)),
        **_stop(message.response_metadata, head, refusal=refusal, called=bool(_calls(message))),
        "usage": _usage(message.usage_metadata),
    }


def _common(head: ReplyHead) -> dict[str, Any]:
    return {"id": head.id, "type": "message", "role": "assistant", "model": head.request.model}


def _calls(message: AIMessage) -> list[dict[str, Any]]:
    calls = [
        {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["args"]}
        for call in message.tool_calls
    ]
    # Arguments that are no JSON object must not look like a call that can be run.
    calls += [
        {"type": "tool_use", "id": bad["id"], "name": bad["name"], "input": {INVALID: bad["args"]}}
        for bad in message.invalid_tool_calls
    ]
    return calls


def _blocks(message: AIMessage, head: ReplyHead) -> Iterator[dict[str, Any]]:
    extra = message.additional_kwargs
    if reasoning := extra.get("reasoning_content"):
        yield _thinking(reasoning, _signature(reasoning, extra), head)
    if text := str(message.text):
        yield {"type": "text", "text": text}
    if head.documented and (refusal := extra.get("refusal")):
        yield {"type": "text", "text": refusal}
    yield from _calls(message)


def _thinking(text: str, signature: str, head: ReplyHead) -> dict[str, Any]:
    if head.documented:  # the service documents another name for the text, and no signature
        return {"type": "thinking", "text": text}
    return {"type": "thinking", "thinking": text, "signature": signature}


def _signature(reasoning: str, extra: Mapping[str, Any]) -> str:
    """The brain's own signature, or one that is made up: clients pass it back unread."""
    digest = hashlib.blake2b(reasoning.encode("utf-8", "replace"), digest_size=48).digest()
    return str(extra.get("reasoning_signature") or base64.b64encode(digest).decode())


def _stop(
    metadata: Mapping[str, Any], head: ReplyHead, *, refusal: str | None, called: bool
) -> dict[str, Any]:
    found = metadata.get("finish_reason") or ("tool_calls" if called else "stop")
    sequence = metadata.get("stop_sequence")
    reason = _STOP_REASONS.get(found, found)
    if refusal:
        reason = "refusal"
    elif sequence is not None and reason == "end_turn":
        reason = "stop_sequence"
    stop: dict[str, Any] = {"stop_reason": reason, "stop_sequence": sequence}
    if refusal and not head.documented:
        stop["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return stop | check_beside(metadata, head)


def _usage(usage: UsageMetadata | None) -> dict[str, Any]:
    """Token counts in the names of this format, which counts cached tokens apart."""
    if usage is None:
        return dict(_NOTHING_YET)
    inputs = usage.get("input_token_details", {})
    read, created = inputs.get("cache_read") or 0, inputs.get("cache_creation") or 0
    body: dict[str, Any] = {
        "input_tokens": usage["input_tokens"] - read - created,
        "output_tokens": usage["output_tokens"],
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": created,
    }
    thought = usage.get("output_token_details", {}).get("reasoning")
    if thought is not None:
        body["output_tokens_details"] = {"thinking_tokens": thought}
    return body


# Streams


def write_stream(chunks: Iterable[AIMessageChunk], head: ReplyHead) -> Iterator[Event]:
    """Write a streamed reply.

    Args:
        chunks: Pieces of one message. `finish_reason` is taken from whichever has it.
        head: What the reply says of itself.

    Yields:
        The events: start of the message, then per block its start, deltas and end, then what the
        whole message was, and its end.
    """
    start = {**_common(head), "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**start, "usage": _NOTHING_YET})
    blocks = _BlockWriter(head)
    metadata: dict[str, Any] = {}
    tokens: UsageMetadata | None = None
    for chunk in chunks:
        tokens = chunk.usage_metadata or tokens
        metadata |= {key: value for key, value in chunk.response_metadata.items() if value}
        yield from blocks.write(chunk)
    yield from blocks.end()
    delta = _stop(metadata, head, refusal=blocks.refusal, called=blocks.called)
    yield _event("message_delta", delta=delta, usage=_usage(tokens))
    yield _event("message_stop")


def write_error(message: str, status: int) -> Event:
    """Write an error that comes up within a stream."""
    name = _NAMES_OF_STATUS.get(status, "api_error")
    return _event("error", error={"type": name, "message": message})


def _event(name: str, **fields: Any) -> Event:
    return Event(name, dumps({"type": name, **fields}))


class _BlockWriter:
    """Puts the pieces of a message into blocks, one after the other.

    A block that is closed cannot go on. Brains may answer with pieces of several calls by turns,
    and with text between them; so the first call is written as it comes, and all else that comes
    from then on waits for its end.
    """

    def __init__(self, head: ReplyHead) -> None:
        self._head = head
        self._index = -1
        self._open: Any = None
        self._call: int | None = None
        self._waiting: dict[int | None, ToolCallChunk] = {}
        self._later: list[AIMessageChunk] = []
        self._reasoning = ""
        self._extra: dict[str, Any] = {}
        self.refusal = ""
        self.called = False

    def write(self, chunk: AIMessageChunk) -> Iterator[Event]:
        """Write what one piece adds."""
        if self._call is None:
            yield from self._said(chunk)
        else:
            self._later.append(chunk)
        for call in chunk.tool_call_chunks:
            yield from self._piece(call)

    def _said(self, chunk: AIMessageChunk) -> Iterator[Event]:
        extra = chunk.additional_kwargs
        self._extra |= extra
        if reasoning := extra.get("reasoning_content"):
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            yield from self._opened("thinking", empty)
            self._reasoning += reasoning
            yield self._delta({"type": "thinking_delta", "thinking": reasoning})
        if refusal := extra.get("refusal"):
            self.refusal += refusal
        if text := str(chunk.text):
            yield from self._text(text)

    def end(self) -> Iterator[Event]:
        """Write what has waited, and close what is open."""
        for call in self._waiting.values():
            yield from self._called(call)
        for chunk in self._later:
            yield from self._said(chunk)
        if self.refusal and self._head.documented:
            yield from self._text(self.refusal)
        yield from self._closed()

    def _text(self, text: str) -> Iterator[Event]:
        yield from self._opened("text", {"type": "text", "text": ""})
        yield self._delta({"type": "text_delta", "text": text})

    def _piece(self, call: ToolCallChunk) -> Iterator[Event]:
        index = call["index"]
        waiting = self._waiting.pop(index, None)
        if waiting is not None:
            call = tool_call_chunk(
                id=waiting["id"] or call["id"],
                name=waiting["name"] or call["name"],
                args=(waiting["args"] or "") + (call["args"] or ""),
                index=index,
            )
        is_open = self._open == ("tool_use", index)
        starts = self._call is None and bool(call["name"])
        if is_open or starts:
            self._call = index
            yield from self._called(call)
        else:
            self._waiting[index] = call

    def _called(self, call: ToolCallChunk) -> Iterator[Event]:
        self.called = True
        block: dict[str, Any] = {"type": "tool_use", "input": {}}
        block |= {"id": call["id"], "name": call["name"]}
        yield from self._opened(("tool_use", call["index"]), block)
        if call["args"]:
            yield self._delta({"type": "input_json_delta", "partial_json": call["args"]})

    def _opened(self, key: Any, block: dict[str, Any]) -> Iterator[Event]:
        if self._open == key:
            return
        yield from self._closed()
        self._open = key
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _closed(self) -> Iterator[Event]:
        if self._open is None:
            return
        if self._open == "thinking":
            signature = _signature(self._reasoning, self._extra)
            yield self._delta({"type": "signature_delta", "signature": signature})
        self._open = None
        yield _event("content_block_stop", index=self._index)

    def _delta(self, delta: Mapping[str, Any]) -> Event:
        return _event("content_block_delta", index=self._index, delta=delta)
