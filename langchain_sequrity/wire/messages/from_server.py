"""Replies of Messages to LangChain messages.

Blocks are kept as they came, with `model_provider` "anthropic", so that LangChain's own translator
reads them and they can go back unchanged. Replies are untrusted: every shape that is not the
protocol's becomes a `BadReply`. Fields that are not known here are kept.

A streamed reply of Messages, event by event.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import (
    ToolCall,
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)

from langchain_sequrity.errors import StreamInterrupted
from langchain_sequrity.wire.envelope_stream import as_chunk
from langchain_sequrity.wire.exchange import Event, Kept, Reply
from langchain_sequrity.wire.json_text import dumps, read_arguments
from langchain_sequrity.wire.messages.params import INVALID
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    OK,
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


Chunks = tuple[AIMessageChunk, ...]

_PROVIDER = {"model_provider": MODEL_PROVIDER}
# What is asked for with these is answered in more than one block.
_ASKS_FOR_BLOCKS = ("tools", "thinking", "reasoning_effort", "mcp_servers", "container")


class StreamReader:
    """Reads one streamed reply, event by event.

    Each piece carries its own increment only. What describes the whole reply (model, stop reason,
    session, usage) comes once, with the last piece: LangChain joins strings and adds counts that
    are repeated.

    A reply that is nothing but text comes as text. Everything else comes as blocks, whose `index`
    LangChain joins them by; text and blocks cannot be mixed, so the first event decides, and so
    does what was asked for.

    Args:
        describe: Gives what to add to `response_metadata` of the last piece.
        asked: The body of the request.
    """

    def __init__(self, describe: Describe, asked: Mapping[str, Any]) -> None:
        self._describe = describe
        self._head = Reply(OK, {})
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        # `None` while nothing tells.
        self._is_text: bool | None = False if _asks_for_blocks(asked) else None
        self._kinds: dict[int, str] = {}
        self._kept = Kept()
        self._finished = False
        self.done = False

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head

    def feed(self, event: Event) -> Chunks:
        """Return the piece of the message that an event brings: one or none.

        Raises:
            BadReply: If the event is not one of a streamed message.
            StatusError: If it is an error.
        """
        if event.data == "[DONE]":  # some services in between end every stream like this
            return self.end()
        body = read_object(event.data, self._head)
        kind = body.get("type") or event.name
        if kind == "error" or body.get("error"):
            raise error_inside(body, self._head)
        try:
            read = self._READERS.get(kind)
            # `ping` and what is not known yet says nothing of the message.
            return () if read is None else read(self, body)
        except MISSHAPEN:
            refuse("an event of a streamed message", body, self._head)

    def end(self) -> Chunks:
        """Return what is left, if the stream was not cut short.

        Raises:
            StreamInterrupted: If neither a stop reason nor the end of the message has come.
        """
        if self.done:
            return ()
        if not self._finished:
            msg = "The stream ended before the reply was finished."
            raise StreamInterrupted(msg, session_id=self._head.headers.get("x-session-id"))
        try:
            return self._end_of_message({})
        except MISSHAPEN:
            refuse("a streamed message", self._message, self._head)

    def whole(self, reply: Reply) -> Chunks:
        """Read the plain JSON of a service that does not stream."""
        return (as_chunk(read_reply(reply, self._describe)[0]),)

    # Events

    def _start_of_message(self, body: dict[str, Any]) -> Chunks:
        message = body["message"]
        self._kept.add(message)
        self._message = {**message, "content": None}
        self._add_usage(message.get("usage"))
        chunks: Chunks = ()
        for index, block in enumerate(message.get("content") or ()):
            chunks += self._start_of_block({"index": index, "content_block": block})
        return chunks

    def _start_of_block(self, body: dict[str, Any]) -> Chunks:
        index, block = int(body["index"]), read_block(body["content_block"])
        if index in self._kinds:
            msg = "Two blocks have the same index."
            raise ValueError(msg)
        kind = block["type"]
        self._kept.add((index, kind))
        self._kinds[index] = kind
        if self._is_text is None:
            self._is_text = kind == "text" and block.get("citations") is None
        if kind == "text":
            return self._text(index, block.get("text", ""), block.get("citations") or [])
        if kind == "thinking" and not (block["thinking"] or block.get("signature")):
            return ()
        placed = {**block, "index": index}
        return self._call(index, placed) if kind == "tool_use" else _piece(placed)

    def _call(self, index: int, block: dict[str, Any]) -> Chunks:
        given = block.get("input")
        args = given if isinstance(given, str) else dumps(given) if given else ""
        self._kept.add_json(args)
        call = tool_call_chunk(name=block["name"], args=args, id=block["id"], index=index)
        return _piece({**block, "input": {}}, call)

    def _text(self, index: int, text: str, citations: list[Any]) -> Chunks:
        if self._is_text:
            return (AIMessageChunk(content=text, response_metadata=_PROVIDER),) if text else ()
        block: dict[str, Any] = {"type": "text", "text": text, "index": index}
        if citations:
            block["citations"] = list(citations)
        return _piece(block) if text or citations else ()

    def _delta(self, body: dict[str, Any]) -> Chunks:
        delta = body["delta"]
        if delta["type"] != "text_delta":
            return self._delta_of_block(int(body["index"]), delta)
        text = delta["text"]
        if self._is_text:
            return (AIMessageChunk(content=text, response_metadata=_PROVIDER),)
        index = int(body["index"])
        if self._kinds.get(index) == "thinking":  # in the words that the service documents
            return _piece({"type": "thinking", "thinking": _string(text), "index": index})
        return self._text(index, _string(text), [])

    def _delta_of_block(self, index: int, delta: dict[str, Any]) -> Chunks:
        kind = delta["type"]
        if kind == "input_json_delta":
            return self._arguments(index, _string(delta["partial_json"]))
        if kind == "citations_delta":
            self._is_text = False
            return self._text(index, "", [delta["citation"]])
        if kind == "thinking_delta":
            thought = _string(delta["thinking"])
            return _piece({"type": "thinking", "thinking": thought, "index": index})
        if kind == "signature_delta":  # perhaps of thinking whose text is left out
            signature = _string(delta["signature"])
            block = {"type": "thinking", "thinking": "", "signature": signature, "index": index}
            return _piece(block)
        return ()  # not known yet

    def _arguments(self, index: int, text: str) -> Chunks:
        if not text:
            return ()
        self._kept.add_json(text)
        block = {"type": "input_json_delta", "partial_json": text, "index": index}
        if self._kinds.get(index) != "tool_use":  # of a tool that the service runs itself
            return _piece(block)
        return _piece(block, tool_call_chunk(name=None, args=text, id=None, index=index))

    def _delta_of_message(self, body: dict[str, Any]) -> Chunks:
        delta = body.get("delta") or {}
        self._kept.add(delta)
        self._message |= {key: value for key, value in delta.items() if value is not None}
        self._add_usage(body.get("usage"))
        self._finished = self._finished or bool(delta.get("stop_reason"))
        return ()

    def _add_usage(self, usage: Mapping[str, Any] | None) -> None:
        """Counts are running totals: a later one takes the place of an earlier one."""
        if usage:
            self._kept.add(usage)
            self._usage |= {name: number for name, number in usage.items() if number is not None}

    def _end_of_message(self, _body: dict[str, Any]) -> Chunks:
        if self.done:
            return ()
        if not self._message:
            msg = "The message has not begun."
            raise ValueError(msg)
        self.done = True
        return (
            AIMessageChunk(
                content="" if self._is_text else [],
                additional_kwargs=refusal_of(self._message),
                response_metadata={
                    **read_metadata(self._message),
                    **self._describe(self._head),
                },
                usage_metadata=read_usage(self._usage) if self._usage else None,
            ),
        )

    _READERS: ClassVar[Mapping[Any, Callable[["StreamReader", dict[str, Any]], Chunks]]] = {
        "content_block_delta": _delta,
        "content_block_start": _start_of_block,
        "message_start": _start_of_message,
        "message_delta": _delta_of_message,
        "message_stop": _end_of_message,
    }


def _piece(block: dict[str, Any], call: ToolCallChunk | None = None) -> Chunks:
    return (
        AIMessageChunk(
            content=[block],
            tool_call_chunks=[] if call is None else [call],
            response_metadata=_PROVIDER,
        ),
    )


def _asks_for_blocks(asked: Mapping[str, Any]) -> bool:
    return any(map(asked.get, _ASKS_FOR_BLOCKS)) or any(
        _brings_blocks(turn["content"]) for turn in asked.get("messages", ())
    )


def _brings_blocks(content: Any) -> bool:
    """Whether tools were called, or documents are to be cited, which takes many blocks of text."""
    return isinstance(content, list) and any(
        "citations" in block or block.get("type") in ("tool_use", "tool_result")
        for block in content
    )


def _string(value: Any) -> str:
    # LangChain joins it to other pieces; anything else would break it there.
    if not isinstance(value, str):
        msg = "The increment is no string."
        raise TypeError(msg)
    return value
