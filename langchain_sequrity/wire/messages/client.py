"""The client's side of Messages: writes requests; reads replies, whole or streamed.

Turns alternate: consecutive messages of one side become one turn, tool results are part of the
user's turn, and system messages go into a separate field (`docs/protocol.md`, Messages).

Blocks of replies are kept as they came, with `model_provider` "anthropic". So LangChain's own
translator reads them, and they can go back unchanged. Replies are untrusted: every unexpected shape
becomes a `BadReply`. Unknown fields are kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, singledispatch
from typing import Any, ClassVar, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, ToolCallChunk, tool_call, tool_call_chunk

from langchain_sequrity.errors import UsageError
from langchain_sequrity.strict_json import dumps, read_arguments
from langchain_sequrity.wire import media
from langchain_sequrity.wire.error_body import error_in_reply
from langchain_sequrity.wire.exchange import (
    MISSHAPEN,
    ClientFormat,
    Describe,
    Event,
    Reply,
    StreamMemory,
    read_object,
    refuse_reply,
    reply_metadata,
    token_count,
    usage_metadata,
)
from langchain_sequrity.wire.media import THOUGHTS
from langchain_sequrity.wire.messages.content import (
    INVALID,
    MODEL_PROVIDER,
    Block,
    legal_id,
    write_block,
    write_blocks,
    write_result,
)
from langchain_sequrity.wire.messages.params import write_params
from langchain_sequrity.wire.stream_reader import FormatReader
from langchain_sequrity.wire.tool_results import is_result, write_tool_result
from langchain_sequrity.wire.tools import (
    FINISHED,
    check_call_id,
    end_of_arguments,
    invalid_text,
    parse_calls,
)

Turn = dict[str, Any]
Content = str | list[Block]

# Requests


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation.
        params: Every other field of the body, such as `model` and `tools`, in the neutral form of
            chat/completions or in the format's own. `None` is left out.
        dual_llm: Whether an interpreter reads tool results; this format needs no difference.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If this format cannot carry a message or a parameter.
    """
    del dual_llm
    body = write_params(params)
    system, turns = write_messages(messages)
    if prompt := body.get("system"):
        system = [*write_blocks(prompt), *_blocks(system)]
    if system:
        body["system"] = system
    body["messages"] = turns
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[Turn]:
    """Write tool results whose content is already written.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    blocks = [
        {"type": "tool_result", "tool_use_id": legal_id(call_id), "content": content}
        for call_id, content in results
    ]
    return [{"role": "user", "content": blocks}]


def write_messages(messages: Iterable[BaseMessage]) -> tuple[Content, list[Turn]]:
    """Write a conversation.

    Returns:
        The system prompt, empty if there is none, and the turns.

    Raises:
        UsageError: For a message that the format cannot carry.
    """
    system: Content = ""
    turns: list[Turn] = []
    for message in messages:
        role, content = _writer_of(type(message))(message)
        if role == "system":
            system = _merge_content(system, content) if system else content
        elif not content and role == "assistant":
            continue  # the format refuses an empty turn
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _merge_content(turns[-1]["content"], content)
        else:
            turns.append({"role": role, "content": content})
    if turns and turns[-1]["role"] == "assistant":
        turns[-1]["content"] = _without_trailing_space(turns[-1]["content"])
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "user" and isinstance(content, list) and len(content) > 1:
            # The format wants tool results before other blocks; the sort is stable.
            turn["content"] = sorted(content, key=lambda block: block.get("type") != "tool_result")
    return system, turns


def _merge_content(first: Content, second: Content) -> list[Block]:
    if isinstance(first, str):
        return [*_blocks(first), *_blocks(second)]
    first += _blocks(second)  # `write_messages` made this list; copies would be slow
    return first


def _blocks(content: Content) -> list[Block]:
    return write_blocks(content) if isinstance(content, str) else content


def _without_trailing_space(content: Content) -> Content:
    """The beginning of an answer; the format refuses white space at its end."""
    if isinstance(content, str):
        return content.rstrip()
    last = content[-1]
    if last.get("type") != "text":
        return content
    return [*content[:-1], {**last, "text": last["text"].rstrip()}]


# Messages: each becomes its role and content


@singledispatch
def _write(message: BaseMessage) -> tuple[str, Content]:
    raise media.unsupported_message_error(message)


_writer_of = lru_cache(maxsize=64)(_write.dispatch)  # a long history pays for each look-up


def _content(message: BaseMessage) -> Content:
    content = message.content
    return content if isinstance(content, str) else write_blocks(content)


@_write.register
def _system(message: SystemMessage) -> tuple[str, Content]:
    return "system", _content(message)


@_write.register
def _human(message: HumanMessage) -> tuple[str, Content]:
    # If no block can be sent, the service decides about the empty text.
    return "user", _content(message) or ""


@_write.register
def _chat(message: ChatMessage) -> tuple[str, Content]:
    role = {"human": "user", "ai": "assistant", "developer": "system"}.get(
        message.role, message.role
    )
    if role not in ("user", "assistant", "system"):
        msg = f"The Messages format has no role `{message.role}`. Use `user` or `assistant`."
        raise UsageError(msg)
    return role, _content(message)


@_write.register
def _function(message: FunctionMessage) -> tuple[str, Content]:
    msg = (
        f"The Messages format has no function messages (here of `{message.name}`). Use a "
        "`ToolMessage` with the id of the call."
    )
    raise UsageError(msg)


@_write.register
def _tool(message: ToolMessage) -> tuple[str, Content]:
    content: Content
    mark = None
    if isinstance(message.content, str):
        content = message.content
    elif message.content and all(map(is_result, message.content)):
        # Users of Anthropic's models write whole results.
        results = cast("list[Block]", message.content)
        return "user", [write_result(block, message.artifact) for block in results]
    else:
        content = write_blocks(message.content)
        # The text may be wrapped, so the cache mark of a block moves to the result.
        marks = [block.pop("cache_control", None) for block in content]
        mark = next(filter(None, reversed(marks)), None)
    result: Block = {
        "type": "tool_result",
        "tool_use_id": legal_id(message.tool_call_id),
        "content": write_tool_result(content, message.artifact),
    }
    if message.status == "error":
        result["is_error"] = True
    if mark is not None:
        result["cache_control"] = mark
    return "user", [result]


@_write.register
def _assistant(message: AIMessage) -> tuple[str, Content]:
    content = message.content
    if isinstance(content, str):
        if not (message.tool_calls or message.invalid_tool_calls):
            return "assistant", _text_or_refusal(content, message)
        return "assistant", [*write_blocks(content), *_CallBlocks(message).remaining]
    blocks: list[Block] = []
    calls = _CallBlocks(message)
    is_foreign = _is_foreign(message)
    for block in content:
        block_type = block.get("type") if isinstance(block, dict) else None
        if isinstance(block, dict) and block_type in media.CALLS:
            written = calls.pop(block)
        elif is_foreign and block_type in THOUGHTS:
            written = None
        else:
            written = write_block(block)
        if written is not None:
            blocks.append(written)
    blocks += calls.remaining
    return "assistant", blocks or _text_or_refusal("", message)


def _text_or_refusal(text: str, message: AIMessage) -> str:
    """The text, or the refusal of a message without text, so that the turn is not lost."""
    return text if text.strip() else str(message.additional_kwargs.get("refusal") or "")


def _is_foreign(message: AIMessage) -> bool:
    """Whether another provider signed the thoughts; only the signer accepts a signature."""
    provider = message.response_metadata.get("model_provider")
    homes = ("anthropic", "bedrock", "google_vertexai")
    return provider is not None and not str(provider).startswith(homes)


class _CallBlocks:
    """The tool calls of one message as blocks.

    `tool_calls` take precedence over the content, because users edit `tool_calls`.

    Args:
        message: The message.

    Attributes:
        remaining: Calls whose block in the content has not been taken, or that have none.

    Raises:
        UsageError: If two calls have the same id.
    """

    def __init__(self, message: AIMessage) -> None:
        self.remaining = [
            _tool_use(call["id"] or f"call {number}", call["name"], call["args"])
            for number, call in enumerate(message.tool_calls)
        ]
        for bad in message.invalid_tool_calls:
            # An error message answers the call: both go back.
            args = {INVALID: invalid_text(bad)}
            self.remaining.append(_tool_use(bad["id"], bad["name"] or "invalid_call", args))
        # Without an id the message is handwritten, and may have calls in its content only.
        self._is_complete = "id" in message.response_metadata or bool(self.remaining)
        if len({call["id"] for call in self.remaining}) != len(self.remaining):
            msg = "Two tool calls of one message have the same id. Give each an id of its own."
            raise UsageError(msg)

    def pop(self, block: Mapping[str, Any]) -> Block | None:
        """Return the call for a block of the content; `None` if it was removed from the calls."""
        call_id = legal_id(block.get("call_id") or block.get("id"))
        for index, call in enumerate(self.remaining):
            if call["id"] == call_id:
                del self.remaining[index]
                return {**call, **_additions(block)}
        if self._is_complete or block["type"] != "tool_use":
            return None
        args = block.get("input") or read_arguments(block.get("partial_json"))[0] or {}
        return _tool_use(call_id, block["name"], args) | _additions(block)


def _tool_use(call_id: str | None, name: str, args: Mapping[str, Any]) -> Block:
    return {"type": "tool_use", "id": legal_id(call_id), "name": name, "input": args}


def _additions(block: Mapping[str, Any]) -> Block:
    """Additional fields of a call, in its own block or in LangChain's standard block."""
    fields = {**(block.get("extras") or {}), **block}
    names = ("cache_control", "caller", "toolset_name")
    return {key: fields[key] for key in names if fields.get(key) is not None}


# Replies


_READ_FIELDS = {"content", "usage", "type", "role", "model", "id", "error"}
# LangChain joins these fields of chunks; other types than text would break there.
_STRINGS = ("type", "text", "thinking", "signature", "id", "name", "partial_json")
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    Args:
        reply: The reply with status 2xx.
        describe: Makes additional `response_metadata` for the message.

    Returns:
        One message. `content` is text if the reply is only text, and otherwise the list of blocks
        as they came. `response_metadata` holds `model_name`, `model_provider`, `stop_reason`,
        `id`, and all other fields of the reply.

    Raises:
        BadReply: If the body is not a message.
        StatusError: If the body is an error object.
    """
    body = read_object(reply.body, exact=True)  # it holds arguments of calls
    if body.get("error"):
        raise error_in_reply(body)
    blocks = body.get("content")
    if not isinstance(blocks, list):
        refuse_reply("a message with `content`", body)
    try:
        calls, invalid = _read_calls(blocks, body.get("stop_reason"))
        usage = body.get("usage")
        message = AIMessage(
            content=_read_content(blocks, invalid),
            additional_kwargs=_refusal(body),
            tool_calls=calls,
            invalid_tool_calls=invalid,
            response_metadata={**_metadata(body), **describe(reply)},
            usage_metadata=_usage(usage) if usage else None,
        )
    except MISSHAPEN:
        refuse_reply("a message with blocks of content", body)
    return [message]


def _read_content(
    blocks: list[Any], invalid: Iterable[InvalidToolCall]
) -> str | list[str | dict[Any, Any]]:
    read = [_read_block(block) for block in blocks]
    # LangChain would show the block of an invalid call as a call.
    by_id = {call["id"]: {**call} for call in invalid}
    if by_id:
        read = [by_id.get(b.get("id"), b) if b["type"] == "tool_use" else b for b in read]
    texts: list[str] = [block["text"] for block in read if block["type"] == "text"]
    if len(read) == len(texts) == 1 and not read[0].get("citations"):
        return texts[0]
    return cast("list[str | dict[Any, Any]]", read)


def _read_block(block: Mapping[str, Any]) -> Block:
    """Read a block; only thinking changes.

    The service documents `text` where Anthropic has `thinking` (`docs/protocol.md`, Messages).
    """
    for key in _STRINGS:
        _string(block.get(key, ""))
    _check_citations(block.get("citations"))
    if block["type"] == "thinking" and "thinking" not in block:
        return {**block, "thinking": block["text"]}
    return dict(block)


def _check_citations(citations: Any) -> None:
    for citation in citations or ():
        _string(citation.get("type", ""))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        msg = "The value is not a string."
        raise TypeError(msg)
    return value


def _read_calls(
    blocks: Sequence[Mapping[str, Any]], stop_reason: Any
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Read the calls.

    If a reply was cut off, its last block may have any part of its input (`docs/protocol.md`,
    Messages).
    """
    calls: list[ToolCall] = []
    invalid_calls: list[InvalidToolCall] = []
    for number, block in enumerate(blocks, 1):
        if block["type"] != "tool_use":
            continue
        name, args, call_id = block["name"], block.get("input"), block.get("id")
        check_call_id(call_id)
        is_cut = number == len(blocks) and stop_reason not in FINISHED
        if isinstance(args, dict) and args.keys() != {INVALID} and not is_cut:
            calls.append(tool_call(name=name, args=args, id=call_id))
            continue
        if isinstance(args, dict) and args.keys() == {INVALID}:
            args = args[INVALID]
        # Some proxies send the arguments as JSON text.
        text = args if isinstance(args, str) or args is None else dumps(args)
        parsed, invalid = parse_calls([(name, text, call_id, is_cut)])
        calls += parsed
        invalid_calls += invalid
    return calls, invalid_calls


def _metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = reply_metadata(body, _READ_FIELDS, MODEL_PROVIDER)
    return {**metadata, "stop_reason": body.get("stop_reason")}


def _refusal(body: Mapping[str, Any]) -> dict[str, Any]:
    """The refusal as `additional_kwargs`, where all formats of this package have it."""
    if body.get("stop_reason") != "refusal":
        return {}
    details = body.get("stop_details")
    reason = details.get("explanation") if isinstance(details, Mapping) else None
    return {"refusal": str(reason or "The model refused to answer.")}


def _usage(usage: Mapping[str, Any]) -> UsageMetadata:
    """Token counts. The format does not count cached tokens as `input_tokens`; LangChain does."""
    cache_read = token_count(usage, "cache_read_input_tokens")
    created = token_count(usage, "cache_creation_input_tokens")
    details = {"cache_read": cache_read, "cache_creation": created}
    by_lifetime = usage.get("cache_creation") or {}
    lifetimes = {name: count for name in _LIFETIMES if (count := token_count(by_lifetime, name))}
    if lifetimes:  # instead of their sum, which LangChain would count a second time
        created = sum(lifetimes.values())
        details |= {"cache_creation": 0, **lifetimes}
    thought = token_count(usage.get("output_tokens_details") or {}, "thinking_tokens")
    return usage_metadata(
        (token_count(usage, "input_tokens") or 0) + (cache_read or 0) + (created or 0),
        token_count(usage, "output_tokens") or 0,
        inputs=details,
        outputs={"reasoning": thought},
    )


# Streams


Chunks = tuple[AIMessageChunk, ...]

_PROVIDER = {"model_provider": MODEL_PROVIDER}
# Replies to requests with these fields have more than one block.
_ASKS_FOR_BLOCKS = ("tools", "thinking", "reasoning_effort", "mcp_servers", "container")


class MessagesReader(FormatReader):
    """Reads one streamed reply. See `FormatReader`.

    A reply that is only text comes as text, every other reply as blocks, which LangChain joins by
    their `index`. Text and blocks cannot be mixed. So the request and the first event decide.
    """

    read_reply = staticmethod(read_reply)

    def __init__(self, describe: Describe, request: Mapping[str, Any]) -> None:
        super().__init__(describe)
        self._message: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        # `None` while it is unknown.
        self._is_text: bool | None = False if _asks_for_blocks(request) else None
        self._block_types: dict[int, str] = {}
        self._arguments_of: dict[int, list[str]] = {}
        self._memory = StreamMemory()
        self._finished = False

    def feed(self, event: Event) -> Chunks:
        """Return the chunk that an event completes: one or none."""
        if event.data == "[DONE]":  # some proxies end every stream with it
            return self.end()
        body = read_object(event.data)
        event_type = body.get("type") or event.name
        if event_type == "error" or body.get("error"):
            raise error_in_reply(body)
        try:
            reader = self._READERS.get(event_type)
            # `ping` and unknown events are skipped.
            return () if reader is None else reader(self, body)
        except MISSHAPEN:
            refuse_reply("an event of a streamed message", body)

    def end(self) -> Chunks:
        """Return the remaining chunk at the end of the stream: one or none."""
        if self.done:
            return ()
        if not self._finished:
            raise self._interrupted()
        try:
            return self._end_of_message({})
        except MISSHAPEN:
            refuse_reply("a streamed message", self._message)

    def whole(self, reply: Reply) -> Chunks:
        """Read the plain JSON of a service that does not stream: a message that begins complete."""
        body = read_object(reply.body, exact=True)
        if not isinstance(body.get("content"), list):
            self.read_reply(reply, self._describe)  # raises for an error, or what is no message
        try:
            return (*self._start_of_message({"message": body}), *self._end_of_message({}))
        except MISSHAPEN:
            refuse_reply("a message with blocks of content", body)

    # Events

    def _start_of_message(self, body: dict[str, Any]) -> Chunks:
        message = body["message"]
        self._memory.add(message)
        self._message = {**message, "content": None}
        self._add_usage(message.get("usage"))
        chunks: Chunks = ()
        for index, block in enumerate(message.get("content") or ()):
            chunks += self._start_of_block({"index": index, "content_block": block})
        return chunks

    def _start_of_block(self, body: dict[str, Any]) -> Chunks:
        index, block = int(body["index"]), _read_block(body["content_block"])
        if index in self._block_types:
            msg = "Two blocks have the same index."
            raise ValueError(msg)
        block_type = block["type"]
        self._memory.add((index, block_type))
        self._block_types[index] = block_type
        if self._is_text is None:
            self._is_text = block_type == "text" and block.get("citations") is None
        if block_type == "text":
            return self._text(index, block.get("text", ""), block.get("citations") or [])
        if block_type == "thinking" and not (block["thinking"] or block.get("signature")):
            return ()
        indexed = {**block, "index": index}
        return self._call(index, indexed) if block_type == "tool_use" else _chunk(indexed)

    def _call(self, index: int, block: Block) -> Chunks:
        check_call_id(block.get("id"))
        args = block.get("input")
        if isinstance(args, dict) and args.keys() == {INVALID}:
            args = args[INVALID]
        text = args if isinstance(args, str) else dumps(args) if args else ""
        self._memory.add_json(text)
        self._arguments_of[index] = [text]
        call = tool_call_chunk(name=block["name"], args=text, id=block["id"], index=index)
        return _chunk({**block, "input": {}}, call)

    def _text(self, index: int, text: str, citations: list[Any]) -> Chunks:
        if self._is_text:
            return (AIMessageChunk(content=text, response_metadata=_PROVIDER),) if text else ()
        block: Block = {"type": "text", "text": text, "index": index}
        if citations:
            block["citations"] = list(citations)
        return _chunk(block) if text or citations else ()

    def _delta(self, body: dict[str, Any]) -> Chunks:
        delta = body["delta"]
        if delta["type"] != "text_delta":
            return self._delta_of_block(int(body["index"]), delta)
        text = delta["text"]
        if self._is_text:
            return (AIMessageChunk(content=text, response_metadata=_PROVIDER),)
        index = int(body["index"])
        if self._block_types.get(index) == "thinking":  # the service's documented form
            return _chunk({"type": "thinking", "thinking": _string(text), "index": index})
        return self._text(index, _string(text), [])

    def _delta_of_block(self, index: int, delta: dict[str, Any]) -> Chunks:
        delta_type = delta["type"]
        if delta_type == "input_json_delta":
            return self._arguments(index, _string(delta["partial_json"]))
        if delta_type == "citations_delta":
            self._is_text = False
            citations = [delta["citation"]]
            _check_citations(citations)
            return self._text(index, "", citations)
        if delta_type == "thinking_delta":
            thought = _string(delta["thinking"])
            return _chunk({"type": "thinking", "thinking": thought, "index": index})
        if delta_type == "signature_delta":  # the text of the thinking may be missing
            signature = _string(delta["signature"])
            block = {"type": "thinking", "thinking": "", "signature": signature, "index": index}
            return _chunk(block)
        return ()  # an unknown kind

    def _arguments(self, index: int, text: str) -> Chunks:
        if not text:
            return ()
        self._memory.add_json(text)
        block = {"type": "input_json_delta", "partial_json": text, "index": index}
        if self._block_types.get(index) != "tool_use":  # a tool that the service runs itself
            return _chunk(block)
        self._memory.add_text(text)
        self._arguments_of[index].append(text)
        return _chunk(block, tool_call_chunk(name=None, args=text, id=None, index=index))

    def _delta_of_message(self, body: dict[str, Any]) -> Chunks:
        delta = body.get("delta") or {}
        self._memory.add(delta)
        self._message |= {key: value for key, value in delta.items() if value is not None}
        self._add_usage(body.get("usage"))
        self._finished = self._finished or bool(delta.get("stop_reason"))
        return ()

    def _add_usage(self, usage: Mapping[str, Any] | None) -> None:
        """Take counts. They are running totals: later ones replace earlier ones."""
        if usage:
            self._memory.add(usage)
            self._counts |= {name: number for name, number in usage.items() if number is not None}

    def _end_of_message(self, _body: dict[str, Any]) -> Chunks:
        if self.done:
            return ()
        if not self._message:
            msg = "The message has not begun."
            raise ValueError(msg)
        self.done = True
        return (
            *self._invalid_calls(),
            AIMessageChunk(
                content="" if self._is_text else [],
                additional_kwargs=_refusal(self._message),
                response_metadata={**_metadata(self._message), **self._describe(self._head)},
                usage_metadata=_usage(self._counts) if self._counts else None,
            ),
        )

    def _invalid_calls(self) -> Iterator[AIMessageChunk]:
        """A chunk for each invalid call, as in a whole reply; see `wire.tools`."""
        is_cut = self._message.get("stop_reason") not in FINISHED
        last = next(reversed(self._block_types), None)
        for index, parts in self._arguments_of.items():
            text = "".join(parts)
            added = end_of_arguments(text, is_unfinished=is_cut and index == last)
            if added is not None:
                block = {"type": "input_json_delta", "partial_json": added, "index": index}
                call = tool_call_chunk(name=None, args=added, id=None, index=index)
                yield from _chunk({**block, "input": {INVALID: text}}, call)

    _READERS: ClassVar[Mapping[Any, Callable[["MessagesReader", dict[str, Any]], Chunks]]] = {
        "content_block_delta": _delta,
        "content_block_start": _start_of_block,
        "message_start": _start_of_message,
        "message_delta": _delta_of_message,
        "message_stop": _end_of_message,
    }


def _chunk(block: Block, call: ToolCallChunk | None = None) -> Chunks:
    calls = [] if call is None else [call]
    return (AIMessageChunk(content=[block], tool_call_chunks=calls, response_metadata=_PROVIDER),)


def _asks_for_blocks(request: Mapping[str, Any]) -> bool:
    """Whether a request leads to blocks: by its fields, by tool calls, or by citations."""
    return any(map(request.get, _ASKS_FOR_BLOCKS)) or any(
        "citations" in block or block.get("type") in ("tool_use", "tool_result")
        for turn in request.get("messages", ())
        if isinstance(turn["content"], list)
        for block in turn["content"]
    )


FORMAT = ClientFormat(write_request, write_results, read_reply, MessagesReader)
