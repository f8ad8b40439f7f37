"""The server's side of Messages: reads requests; writes replies, whole or streamed.

Bodies are untrusted; `checks` refuses what the protocol does not describe. Content of users and
tools becomes LangChain's standard blocks, which every backend knows; additional fields (titles,
cache marks, citations) go into their `extras`. Content of the assistant stays unchanged, with
`model_provider` "anthropic".
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call

from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, at_least, between, optional, tagged_union, text_or
from langchain_sequrity.wire.error_body import error_name
from langchain_sequrity.wire.exchange import (
    ChatRequest,
    Event,
    ReplyHead,
    ServerFormat,
    StreamTotals,
)
from langchain_sequrity.wire.messages.content import INVALID, LEGAL_ID, MODEL_PROVIDER, Block
from langchain_sequrity.wire.tools import neutral_tool

# Content blocks of a request


_READ_KEYS = frozenset({"type", "text", "source"})

_REMOTE = {"url": {"url": checks.WEB_URL}, "file": {"file_id": str}}
_IMAGE = {
    "media_type": Literal["image/jpeg", "image/png", "image/gif", "image/webp"],
    "data": checks.BASE64,
}
_DOCUMENT = {
    "base64": {"media_type": Literal["application/pdf"], "data": checks.BASE64},
    "text": {"media_type": Literal["text/plain"], "data": str},
    "content": {},
    **_REMOTE,
}
_TEXT = {"text": checks.with_check(str, str.strip, "be more than white space")}
_PARTS = {
    "text": _TEXT,
    "image": {"source": tagged_union("type", {"base64": _IMAGE, **_REMOTE})},
    "document": {"source": tagged_union("type", _DOCUMENT)},
    "search_result": {},
}
_RESULT = {
    "tool_use_id": str,
    "is_error": optional(bool),
    "content": optional(text_or(array(tagged_union("type", _PARTS)), "blocks")),
}
_THINKING_BLOCKS = {
    "thinking": str,
    "signature": checks.with_check(str, bool, "be the signature that came with it"),
}
_ASSISTANT_BLOCKS = {
    "text": _TEXT,
    "thinking": tagged_union(
        "type",
        {"thinking": _THINKING_BLOCKS, "as documented": {"text": str}},
        tag_of=lambda block: "as documented" if _is_as_documented(block) else "thinking",
    ),
    "redacted_thinking": {"data": str},
    "tool_use": {
        "id": checks.with_check(str, LEGAL_ID.match, "be letters, digits, `_` or `-`"),
        "name": checks.TOOL_NAME,
        "input": checks.OBJECT,
    },
    "*_tool_use": {},
    "*_tool_result": {},
}

_SYSTEM_CONTENT = text_or(array(tagged_union("type", {"text": _TEXT})), "text blocks")
_USER_CONTENT = text_or(
    array(tagged_union("type", {**_PARTS, "tool_result": _RESULT}), least=1), "blocks"
)
# A refusal has no blocks, and clients send it back as it came.
_ASSISTANT_CONTENT = text_or(array(tagged_union("type", _ASSISTANT_BLOCKS)), "blocks")


def _is_as_documented(block: Block) -> bool:
    return "thinking" not in block and "text" in block


def _read_block(block: Block) -> Block:
    """Read a block of a system prompt, a user or a tool result as a standard block."""
    read = _READERS[block["type"]](block)
    extras = {
        key: value for key, value in block.items() if key not in _READ_KEYS and value is not None
    }
    return {**read, "extras": extras} if extras and read["type"] != "non_standard" else read


def _text(block: Block) -> Block:
    return {"type": "text", "text": block["text"]}


def _unchanged(block: Block) -> Block:
    return {"type": "non_standard", "value": block}


def _media(block: Block) -> Block:
    source = block["source"]
    standard = "image" if block["type"] == "image" else "file"
    match source["type"]:
        case "url":
            return {"type": standard, "url": source["url"]}
        case "file":
            return {"type": standard, "file_id": source["file_id"]}
        case "content":
            return _unchanged(block)
        case "text":
            return {"type": "text-plain", "text": source["data"], "mime_type": "text/plain"}
    return {"type": standard, "base64": source["data"], "mime_type": source["media_type"]}


_READERS: Mapping[str, Callable[[Block], Block]] = {
    "text": _text,
    "image": _media,
    "document": _media,
    "search_result": _unchanged,
}


# Requests


_LEAST_BUDGET = 1024
_FUNCTION_TYPES = ("custom", None)
_FORCED = ("any", "tool")

_CUSTOM = {
    "name": checks.TOOL_NAME,
    "input_schema": checks.JSON_SCHEMA,
    "output_schema": optional(checks.JSON_SCHEMA),
}
_TOOL = tagged_union(
    "type",
    {"custom": _CUSTOM, "*": {"name": checks.TOOL_NAME}},
    tag_of=lambda tool: "custom" if tool.get("type") is None else tool["type"],
)
_TOOLS = checks.Body({"tools": optional(array(_TOOL))})
_CHOICE = {"disable_parallel_tool_use": optional(bool)}
_CHOICES = {
    "auto": _CHOICE,
    "any": _CHOICE,
    "tool": {**_CHOICE, "name": str},
    "none": _CHOICE,
}
_THINKING = {
    "enabled": {"budget_tokens": at_least(_LEAST_BUDGET)},
    "disabled": {},
    "adaptive": {},
}
_FORMAT = tagged_union("type", {"json_schema": checks.with_schema(checks.JSON_SCHEMA, {})})
_TURN = {
    "user": {"content": _USER_CONTENT},
    "assistant": {"content": _ASSISTANT_CONTENT},
    "system": {"content": _SYSTEM_CONTENT},
}
_FIELDS = {
    "model": str,
    "max_tokens": at_least(1),
    "messages": array(tagged_union("role", _TURN)),
    "system": optional(_SYSTEM_CONTENT),
    "thinking": optional(tagged_union("type", _THINKING)),
    "tool_choice": optional(tagged_union("type", _CHOICES)),
    "output_config": optional({"format": optional(_FORMAT)}),
    "stop_sequences": optional(array(str)),
    "stream": optional(bool),
    "temperature": optional(between(0, 1)),
    "top_p": optional(between(0, 1)),
    "top_k": optional(between(0, 1_000_000, int)),
    "service_tier": optional(Literal["auto", "standard_only"]),
    "reasoning_effort": optional(Literal["none", "minimal", "low", "medium", "high", "xhigh"]),
    "metadata": optional(checks.OBJECT),
}
BODY = checks.Body(_FIELDS)
# The service documents each field that is checked, and some more (`docs/protocol.md`, Messages).
DOCUMENTED = frozenset({*_FIELDS, "tools", "user_provided_program", "context_vars", "timeout"})


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        The request, with LangChain messages.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    BODY.check(body)
    options = dict(body)
    take = options.pop
    tools, server_tools = read_tools({"tools": take("tools", None)})
    thinks = _thinks(body)
    choice = take("tool_choice", None)
    tool_choice, parallel = _tool_choice(choice, tools, server_tools, thinks=thinks)
    system = [content for content in [take("system", None)] if content not in (None, "")]
    if thinks:
        options.setdefault("reasoning_effort", "medium")
    return ChatRequest(
        model=take("model"),
        messages=[*map(_system, system), *_messages(take("messages"))],
        tools=tools,
        tool_choice=tool_choice,
        response_format=_response_format(body),
        stop=take("stop_sequences", None) or [],
        max_tokens=take("max_tokens"),
        stream=take("stream", None) or False,
        stream_usage=True,
        parallel_tool_calls=parallel,
        server_tools=server_tools,
        options=options,
    )


# Fields of a request


def _thinks(body: Mapping[str, Any]) -> bool:
    thinking = body.get("thinking") or {"type": "disabled"}
    if thinking["type"] == "enabled" and thinking["budget_tokens"] >= body["max_tokens"]:
        checks.refuse_request("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return bool(thinking["type"] != "disabled")


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Function tools in neutral form, and tools that the service would run itself."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    functions = [
        neutral_tool({**tool, "parameters": tool["input_schema"]})
        for tool in tools
        if tool.get("type") in _FUNCTION_TYPES
    ]
    checks.distinct_tools(functions)
    return functions, [tool for tool in tools if tool.get("type") not in _FUNCTION_TYPES]


def _tool_choice(
    choice: dict[str, Any] | None,
    tools: list[dict[str, Any]],
    server_tools: list[dict[str, Any]],
    *,
    thinks: bool,
) -> tuple[str | dict[str, str] | None, bool]:
    """Read the choice in neutral form, and whether several calls are allowed."""
    if choice is None:
        return None, True
    choice_type = choice["type"]
    if not tools and not server_tools:
        checks.refuse_request("`tool_choice` is given, but `tools` is empty.")
    if thinks and choice_type in _FORCED:
        checks.refuse_request("`tool_choice` cannot force a tool while `thinking` is on.")
    several = choice.get("disable_parallel_tool_use") is not True
    if choice_type == "tool":
        return checks.chosen_tool(choice["name"], tools), several
    return ("required" if choice_type == "any" else choice_type), several


def _response_format(body: Mapping[str, Any]) -> dict[str, Any] | None:
    shape = (body.get("output_config") or {}).get("format")
    if shape is None:
        return None
    schema = checks.plain_schema(shape)["schema"]
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _system(content: str | list[Any]) -> SystemMessage:
    return SystemMessage(content=content if isinstance(content, str) else _read(content))


def _read(blocks: list[Any]) -> list[Any]:
    return [_read_block(block) for block in blocks]


# Turns of a request


def _messages(turns: list[dict[str, Any]]) -> list[BaseMessage]:
    if not turns:
        checks.refuse_request("`messages` is empty. Send at least one message.")
    messages: list[BaseMessage] = []
    # Turns of one role may follow each other, as in Anthropic's API: clients leave out a refusal.
    for index, turn in enumerate(turns):
        role, content = turn["role"], turn["content"]
        if role == "system":  # in the middle of a conversation; not a turn
            messages.append(_system(content))
        elif role == "user":
            messages += _user(content, index)
        elif all(isinstance(message, SystemMessage) for message in messages):
            checks.refuse_request(f"Message {index} is the assistant's. Begin with the user's.")
        else:
            messages.append(_assistant(content))
    return messages


def _user(content: str | list[Any], index: int) -> Iterator[BaseMessage]:
    """Read a user's turn: tool results first, then the user's own content."""
    if isinstance(content, str):
        yield HumanMessage(content=content)
        return
    others: list[Any] = []
    for position, block in enumerate(content):
        if block["type"] != "tool_result":
            others.append(_read_block(block))
            continue
        if others:
            checks.refuse_request(
                f"The tool result at messages.{index}.content.{position} comes after other "
                "blocks. Tool results come first."
            )
        yield _tool_result(block)
    if not others:
        return
    # Next to results, even plain text has to be a block.
    is_plain = len(others) == 1 < len(content) and others[0].keys() == {"type", "text"}
    yield HumanMessage(content=others[0]["text"] if is_plain else others)


def _tool_result(block: dict[str, Any]) -> ToolMessage:
    content = block.get("content")
    return ToolMessage(
        content=_read(content) if isinstance(content, list) else content or "",
        tool_call_id=block["tool_use_id"],
        status=checks.status_of(block),
    )


def _assistant(content: str | list[Any]) -> BaseMessage:
    if not content or isinstance(content, str):
        return AIMessage(content=content or "")
    calls = [block for block in content if block["type"] == "tool_use"]
    return AIMessage(
        content=content,
        tool_calls=[tool_call(name=c["name"], args=c["input"], id=c["id"]) for c in calls],
        response_metadata={"model_provider": MODEL_PROVIDER},
    )


# Replies


_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_NOTHING_YET = {"input_tokens": 0, "output_tokens": 0}


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply; in this format it is independent of the session."""
    del session_id, dual_llm
    return f"msg_{secrets.token_hex(12)}"


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: The one message. `finish_reason` comes from `response_metadata`.
        head: Facts of the reply.

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
    # Invalid arguments must not look like a call that can run.
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
    if head.documented:  # the service documents another key for the text, and no signature
        return {"type": "thinking", "text": text}
    return {"type": "thinking", "thinking": text, "signature": signature}


def _signature(reasoning: str, extra: Mapping[str, Any]) -> str:
    """The backend's own signature, or a made-up one, which clients pass back unread."""
    digest = hashlib.blake2b(reasoning.encode("utf-8", "replace"), digest_size=48).digest()
    return str(extra.get("reasoning_signature") or base64.b64encode(digest).decode())


def _stop(
    metadata: Mapping[str, Any], head: ReplyHead, *, refusal: str | None, called: bool
) -> dict[str, Any]:
    finish_reason = metadata.get("finish_reason") or ("tool_calls" if called else "stop")
    sequence = metadata.get("stop_sequence")
    reason = _STOP_REASONS.get(finish_reason, finish_reason)
    if refusal:
        reason = "refusal"
    elif sequence is not None and reason == "end_turn":
        reason = "stop_sequence"
    stop: dict[str, Any] = {"stop_reason": reason, "stop_sequence": sequence}
    if refusal and not head.documented:
        stop["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return stop | head.policy_check(metadata)


def _usage(usage: UsageMetadata | None) -> dict[str, Any]:
    """Write token counts with this format's names; it counts cached tokens separately."""
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
        chunks: Chunks of one message. Any of them may have the `finish_reason`.
        head: Facts of the reply.

    Yields:
        The events: the start of the message, each block with its start, deltas and end, facts
        about the whole message, and its end. A call comes whole, after the text.
    """
    start = {**_common(head), "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**start, "usage": _NOTHING_YET})
    totals = StreamTotals()
    blocks = _BlockWriter(totals)
    for chunk in chunks:
        totals.add(chunk)
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            delta = {"type": "thinking_delta", "thinking": reasoning}
            yield from blocks.grow({"type": "thinking", "thinking": "", "signature": ""}, delta)
        if text := str(chunk.text):
            yield from blocks.text(text)
    refusal = totals.extra.get("refusal")
    if refusal and head.documented:
        yield from blocks.text(refusal)
    for call_id, name, args in totals.calls:
        yield from blocks.begin({"type": "tool_use", "id": call_id, "name": name, "input": {}})
        if args:
            yield blocks.delta({"type": "input_json_delta", "partial_json": args})
    yield from blocks.end()
    stop = _stop(totals.metadata, head, refusal=refusal, called=bool(totals.calls))
    yield _event("message_delta", delta=stop, usage=_usage(totals.usage))
    yield _event("message_stop")


def write_error(message: str, status: int) -> Event:
    """Write an error that happens during a stream."""
    return _event("error", error={"type": error_name(status), "message": message})


def _event(name: str, **fields: Any) -> Event:
    return Event(name, dumps({"type": name, **fields}))


class _BlockWriter:
    """Writes blocks, one after the other.

    Args:
        totals: The sum of the chunks so far.
    """

    def __init__(self, totals: StreamTotals) -> None:
        self._totals = totals
        self._index = -1
        self._open: str | None = None

    def text(self, text: str) -> Iterator[Event]:
        """Write an increment of text."""
        return self.grow({"type": "text", "text": ""}, {"type": "text_delta", "text": text})

    def grow(self, block: Block, delta: Block) -> Iterator[Event]:
        """Write an increment of the open block, or of a new one if that is of another type."""
        if self._open != block["type"]:
            yield from self.begin(block)
        yield self.delta(delta)

    def begin(self, block: Block) -> Iterator[Event]:
        """Write the beginning of a block, which is still empty."""
        yield from self.end()
        self._open = block["type"]
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def end(self) -> Iterator[Event]:
        """Write the end of the open block, if there is one."""
        if self._open == "thinking":
            extra = self._totals.extra
            signature = _signature(extra["reasoning_content"], extra)
            yield self.delta({"type": "signature_delta", "signature": signature})
        if self._open is not None:
            self._open = None
            yield _event("content_block_stop", index=self._index)

    def delta(self, delta: Block) -> Event:
        """Write an increment of the open block."""
        return _event("content_block_delta", index=self._index, delta=delta)


FORMAT = ServerFormat(
    DOCUMENTED,
    {"full": "stop", "documented": "stop"},
    read_request,
    new_reply_id,
    write_reply,
    write_stream,
    write_error,
)
