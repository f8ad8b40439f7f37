"""The client's side of chat/completions: writes requests; reads replies, whole or streamed.

Content blocks of any dialect become OpenAI's parts (`docs/protocol.md`, Chat completions). Replies
are untrusted: every unexpected shape becomes a `BadReply`. Unknown fields of replies are kept under
their own names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial, singledispatch
from typing import Any

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
from langchain_core.messages.tool import ToolCall, ToolCallChunk, tool_call_chunk

from langchain_sequrity.wire import media
from langchain_sequrity.wire.blocks import MODEL_PROVIDER, PROVIDER
from langchain_sequrity.wire.error_body import error_in_reply
from langchain_sequrity.wire.exchange import (
    MISSHAPEN,
    ClientFormat,
    Describe,
    Event,
    Reply,
    StreamMemory,
    openai_usage,
    read_object,
    refuse_reply,
    reply_metadata,
)
from langchain_sequrity.wire.media import Block, read_media
from langchain_sequrity.wire.stream_reader import FormatReader
from langchain_sequrity.wire.tool_results import has_failed, with_tool_messages, write_tool_result
from langchain_sequrity.wire.tools import (
    check_call_id,
    end_of_arguments,
    foreign_tool_error,
    keep_arguments,
    neutral_tool,
    parse_calls,
    read_function,
    unfinished_calls,
    write_calls,
)

Message = dict[str, Any]
Part = dict[str, Any]

_FORMAT = "chat/completions"


# Requests


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation.
        params: Every other field of the body, such as `model` and `tools`. `None` is left out.
        dual_llm: Whether an interpreter reads tool results, and needs to know which tools failed.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If this format cannot carry a message.
    """
    body = {key: value for key, value in params.items() if value is not None}
    if tools := body.get("tools"):
        body["tools"] = [write_tool(tool) for tool in tools]
    body["messages"] = write_messages(messages, dual_llm=dual_llm)
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[Message]:
    """Write tool results whose content is already written.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    return [
        {"role": "tool", "content": content, "tool_call_id": call_id}
        for call_id, content in results
    ]


def write_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write a function tool of any format in the form of this one.

    Raises:
        UsageError: For a tool that is not a function, such as one that a provider runs itself.
    """
    if "function" in tool:
        return tool
    function = read_function(tool)
    if function is not None:
        return neutral_tool(function)
    if tool.get("type") not in (None, "function"):
        raise foreign_tool_error(tool, _FORMAT)
    return tool


def write_messages(messages: Sequence[BaseMessage], *, dual_llm: bool = False) -> list[Message]:
    """Write a conversation; raises `UsageError` for a message that the format cannot carry."""
    written: list[Message] = []
    if not all(isinstance(message.content, str) for message in messages):
        messages = [*with_tool_messages(messages)]
    for message in messages:
        wire_message = _writer_of(type(message))(message)
        if dual_llm and has_failed(message):
            wire_message["is_error"] = True  # borrowed from Messages (`docs/behaviour.md`, P7)
        written.append(wire_message)
    return written


@singledispatch
def _write(message: BaseMessage) -> Message:
    raise media.unsupported_message_error(message)


_writer_of = lru_cache(maxsize=64)(_write.dispatch)  # a long history pays for each look-up


def _with_name(written: Message, message: BaseMessage) -> Message:
    if message.name is not None:
        written["name"] = message.name
    return written


def _content(message: BaseMessage) -> str | list[Part]:
    content = message.content
    if isinstance(content, str):
        return content
    blocks = [block for block in content if not _ran_elsewhere(block)]
    return media.write_parts(blocks, _PART_WRITERS) or ""  # an empty list of parts is not legal


def _ran_elsewhere(block: Any) -> bool:
    """Whether a block is a call, or its result, that another provider ran itself."""
    block_type = str(block.get("type")) if isinstance(block, dict) else ""
    suffixes = ("_tool_use", "_tool_result", "_call", "_output")
    return block_type.startswith("mcp_") or block_type.endswith(suffixes)


@_write.register
def _system(message: SystemMessage) -> Message:
    role = message.additional_kwargs.get("__openai_role__", "system")
    return _with_name({"role": role, "content": _content(message)}, message)


@_write.register
def _human(message: HumanMessage) -> Message:
    return _with_name({"role": "user", "content": _content(message)}, message)


@_write.register
def _chat(message: ChatMessage) -> Message:
    content = _content(message)
    if message.role in ("tool", "function"):
        content = write_tool_result(content, None)
    return _with_name({"role": message.role, "content": content}, message)


@_write.register
def _function_result(message: FunctionMessage) -> Message:
    content = write_tool_result(_content(message), None)
    return {"role": "function", "name": message.name, "content": content}


@_write.register
def _tool_result(message: ToolMessage) -> Message:
    content = write_tool_result(_content(message), message.artifact)
    return {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}


@_write.register
def _assistant(message: AIMessage) -> Message:
    written: Message = {"role": "assistant", "content": _content(message)}
    if message.tool_calls or message.invalid_tool_calls:
        written["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
            for call_id, name, text in write_calls(message)
        ]
    extra = message.additional_kwargs
    if extra:
        if "refusal" in extra:
            written["refusal"] = extra["refusal"]
        audio = extra.get("audio")
        if isinstance(audio, dict) and audio.get("id"):
            written["audio"] = {"id": audio["id"]}
    return _with_name(written, message)


# Content parts


def _text(block: Block) -> Part:
    part = {"type": "text", "text": media.text_of(block, _FORMAT)}
    if "cache_control" in block:  # OpenRouter, the default provider, supports it on text parts
        part["cache_control"] = block["cache_control"]
    return part


def _refusal(block: Block) -> Part:
    return {"type": "refusal", "refusal": block["refusal"]}


def _image(block: Block) -> Part:
    if block["type"] == "image_url":  # already OpenAI's form
        url = block.get("image_url")
        return {**block, "image_url": {"url": url}} if isinstance(url, str) else dict(block)
    image = read_media(block)
    url = image.url if image.data is None else media.data_uri(block, image, _FORMAT)
    if url is None:
        raise _unfit(block, "Give the image as `url` or as `base64` with `mime_type`.")
    written: Part = {"url": url}
    if detail := image.extras.get("detail"):
        written["detail"] = detail
    return {"type": "image_url", "image_url": written}


def _audio(block: Block) -> Part:
    if block["type"] == "input_audio":  # already OpenAI's form; providers know other formats
        return dict(block)
    return media.openai_audio(block, format_name=_FORMAT)


def _file(block: Block) -> Part:
    if "file" in block:  # already OpenAI's form
        return dict(block)
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "text":
        return {"type": "text", "text": source.get("data", "")}
    file = read_media(block)
    if file.file_id is not None:
        return {"type": "file", "file": {"file_id": file.file_id}}
    if file.data is None:
        raise _unfit(block, "Give the file as `base64` with `mime_type`, or as `file_id`.")
    uri = media.data_uri(block, file, _FORMAT)
    return {"type": "file", "file": {"filename": media.file_name(file), "file_data": uri}}


def _video(block: Block) -> Part:
    raise _unfit(block, "Chat/completions has no video; send single frames as images.")


_unfit = partial(media.unsupported_block_error, format_name=_FORMAT)

_PART_WRITERS: dict[str | None, Callable[[Block], Part]] = {
    "text": _text,
    "text-plain": _text,
    "image": _image,
    "audio": _audio,
    "file": _file,
    "video": _video,
    "refusal": _refusal,
    "non_standard": partial(media.non_standard, format_name=_FORMAT),
}


# Replies


# Fields of the reply and of its message that are read by name; others are kept unchanged.
_REPLY_FIELDS = {"choices", "usage", "object", "created", "model", "id", "error"}
_MESSAGE_FIELDS = {"role", "content", "tool_calls", "reasoning_content", "reasoning", "refusal"}


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    Args:
        reply: The reply with status 2xx.
        describe: Makes additional `response_metadata` for each message.

    Returns:
        One message per choice. `response_metadata` holds `model_name`, `model_provider`,
        `finish_reason`, `id`, and all other fields of the reply. `usage_metadata` is on the first
        message only, since it counts the whole reply.

    Raises:
        BadReply: If the body is not a chat completion.
        StatusError: If the body is an error object.
    """
    body = read_object(reply.body)
    if body.get("error"):
        raise error_in_reply(body)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        refuse_reply("a chat completion with `choices`", body)
    shared = {**_metadata(body), **describe(reply)}
    try:
        for choice in choices:
            if choice.get("error"):
                raise error_in_reply(choice)
        messages = [_read_choice(choice, shared) for choice in choices]
        messages[0].usage_metadata = openai_usage(body.get("usage"), "prompt", "completion")
    except MISSHAPEN:
        refuse_reply("choices with a `message`, and an `id` for each tool call", body)
    return messages


def read_calls(reply: Reply) -> tuple[dict[str, Any], list[ToolCall]] | None:
    """Read a reply that calls tools, without making a LangChain message.

    Args:
        reply: The reply with status 2xx.

    Returns:
        The message as it came, and its calls; `None` for every other reply, which `read_reply`
        reads.

    Raises:
        BadReply: If the body is not a JSON object.
    """
    body = read_object(reply.body, exact=True)
    try:
        (choice,) = body["choices"]
        message = choice["message"]
        _text_and_refusal(message.get("content"))  # raises for a wrong shape
        calls, invalid = _read_calls(message["tool_calls"], choice.get("finish_reason"))
        are_named = all(type(call["id"]) is type(call["name"]) is str for call in calls)
        has_error = bool(body.get("error") or choice.get("error"))
    except MISSHAPEN:
        return None
    return (message, calls) if calls and are_named and not (invalid or has_error) else None


def _metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    return reply_metadata(body, _REPLY_FIELDS, MODEL_PROVIDER)


def _read_choice(choice: Mapping[str, Any], shared: Mapping[str, Any]) -> AIMessage:
    message = choice["message"]
    content, extra = _read_content(message)
    metadata = {**shared, "finish_reason": choice.get("finish_reason")}
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    if raw_calls := message.get("tool_calls"):
        calls, invalid = _read_calls(raw_calls, choice.get("finish_reason"))
        texts = ((call.get("id"), call["function"].get("arguments")) for call in raw_calls)
        metadata = keep_arguments(metadata, texts)
    if choice.get("logprobs"):
        metadata["logprobs"] = choice["logprobs"]
    return AIMessage(
        content=content,
        additional_kwargs=extra,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata=metadata,
    )


def _read_content(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Text, and `additional_kwargs`: reasoning, refusal, and all unknown fields."""
    content, refusal = _text_and_refusal(message.get("content"))
    extra = {
        key: value
        for key, value in message.items()
        if key not in _MESSAGE_FIELDS and value is not None and value != []
    }
    if "annotations" in extra:
        extra["annotations"] = [{**annotation} for annotation in extra["annotations"]]
    # Servers use both names; LangChain knows the first.
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        extra["reasoning_content"] = reasoning
    if refusal := message.get("refusal") or refusal:
        extra["refusal"] = refusal
    return content, extra


def _text_and_refusal(content: str | list[Mapping[str, Any]] | None) -> tuple[str, str]:
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    text = "".join(part["text"] for part in content if part.get("type") == "text")
    return text, "".join(part["refusal"] for part in content if part.get("type") == "refusal")


def _read_calls(
    calls: Sequence[Mapping[str, Any]], finish_reason: Any
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    for call in calls:
        check_call_id(call.get("id"))
    texts = [call["function"].get("arguments") for call in calls]
    are_unfinished = unfinished_calls(texts, finish_reason)
    named = (
        (call["function"]["name"], text, call.get("id"), is_unfinished)
        for call, text, is_unfinished in zip(calls, texts, are_unfinished, strict=True)
    )
    return parse_calls(named, constants=True)


# Streams


_WITH_ROLE = 2  # `role` and `content`


class ChatCompletionsReader(FormatReader):
    """Reads one streamed reply. See `FormatReader`.

    Facts about the whole reply come with the chunk that has the finish reason, and usage at the
    end: some services send a running total with each event.
    """

    read_reply = staticmethod(read_reply)

    def __init__(self, describe: Describe, _request: Mapping[str, Any]) -> None:
        super().__init__(describe)
        self._logprobs: dict[str, list[Any]] = {}
        self._memory = StreamMemory()
        self._calls = _CallIndices(self._memory)
        self._last: Mapping[str, Any] = {}
        self._usage: Any = None
        self._finish_reason: Any = None
        self._finished = False
        self._ended = False

    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the chunk that an event completes: one or none."""
        if event.data == "[DONE]":
            self.done = True
            return self.end()
        body = self._last = read_object(event.data)
        if body.get("error") or event.name == "error":
            raise error_in_reply(body)
        choices = body.get("choices")
        self._usage = body.get("usage") or self._usage
        try:
            # Further choices come only with `n` > 1, which is never sent with a stream.
            if choices and choices[0].get("index", 0) == 0:
                return self._choice(body, choices[0])
        except MISSHAPEN:
            refuse_reply("a chunk of a chat completion", body)
        if choices is None and not body.get("usage"):
            refuse_reply("a chunk of a chat completion", body)
        return ()

    def end(self) -> tuple[AIMessageChunk, ...]:
        """Return the remaining chunk at the end of the stream: one or none."""
        if not (self.done or self._finished):
            raise self._interrupted()
        if self._ended:
            return ()
        self._ended = True
        metadata = None if self._finished else self._whole_metadata(self._last, None)
        usage, self._usage, self._finished = self._usage, None, True
        try:
            return self._chunk(
                {},
                metadata,
                openai_usage(usage, "prompt", "completion"),
                self._calls.ends(self._finish_reason),
            )
        except MISSHAPEN:
            refuse_reply("a chat completion with an `id` for each tool call", self._last)

    def _choice(self, body: dict[str, Any], choice: dict[str, Any]) -> tuple[AIMessageChunk, ...]:
        delta = choice.get("delta") or {}
        finish_reason = choice.get("finish_reason")
        if choice.get("logprobs"):
            self._collect_logprobs(choice["logprobs"])
        if not finish_reason:
            text = delta.get("content")
            is_plain = len(delta) == 1 or (len(delta) == _WITH_ROLE and "role" in delta)
            if is_plain and text and isinstance(text, str):  # nearly every chunk
                return (AIMessageChunk(content=text, response_metadata=PROVIDER),)
            return self._chunk(delta)
        if self._finished:  # some services repeat the finishing chunk
            return self._chunk(delta)
        if choice.get("error"):
            raise error_in_reply(choice)
        self._finished, self._finish_reason = True, finish_reason
        return self._chunk(delta, self._whole_metadata(body, finish_reason))

    def _whole_metadata(self, body: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
        metadata = {
            **_metadata(body),
            **self._describe(self._head),
            "finish_reason": finish_reason,
        }
        if self._logprobs:
            metadata["logprobs"] = self._logprobs
        return metadata

    def _chunk(
        self,
        delta: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        usage: UsageMetadata | None = None,
        calls: Sequence[ToolCallChunk] = (),
    ) -> tuple[AIMessageChunk, ...]:
        content, extra = _read_content(delta)
        calls = [*map(self._calls.with_index, delta.get("tool_calls") or ()), *calls]
        if not (content or extra or calls or metadata or usage):
            return ()
        if metadata:
            metadata = keep_arguments(metadata, self._calls.texts())
        return (
            AIMessageChunk(
                content=content,
                additional_kwargs=extra,
                tool_call_chunks=calls,
                response_metadata={**(metadata or {}), **PROVIDER},
                usage_metadata=usage,
            ),
        )

    def _collect_logprobs(self, logprobs: Mapping[str, Any]) -> None:
        for field, tokens in logprobs.items():
            if tokens:
                self._memory.add(tokens)
                self._logprobs.setdefault(field, []).extend(tokens)


class _CallIndices:
    """Gives each tool call of a stream its own index.

    Servers number calls carelessly: all with index 0, or without an index, or with the id repeated
    on each fragment. LangChain joins fragments by index, so two calls would become one.
    """

    def __init__(self, memory: StreamMemory) -> None:
        self._memory = memory
        self._arguments: list[tuple[str | None, list[str]]] = []
        self._by_id: dict[str, int] = {}
        self._named_calls: set[int] = set()
        self._by_wire: dict[Any, int] = {}

    def with_index(self, call: Mapping[str, Any]) -> ToolCallChunk:
        """Return a fragment of a call with its index."""
        function = call.get("function") or {}
        call_id, wire = call.get("id") or None, call.get("index")
        if call_id is not None:
            index = self._by_id.get(call_id)
        else:
            last = len(self._arguments) - 1 if wire is None and self._arguments else None
            index = self._by_wire.get(wire, last)
        if index is None:
            index = len(self._arguments)
            self._memory.add((call_id, wire, function.get("name")))
            self._arguments.append((call_id, []))
            self._by_wire[wire] = index
            if call_id is not None:
                self._by_id[call_id] = index
        else:
            call_id = None
        name = None if index in self._named_calls else function.get("name") or None
        if name is not None:
            self._named_calls.add(index)
        args = function.get("arguments") or ""
        self._memory.add_json(args)
        self._memory.add_text(args)
        self._arguments[index][1].append(args)
        return tool_call_chunk(name=name, args=args, id=call_id, index=index)

    def texts(self) -> Iterator[tuple[str | None, str]]:
        """Ids and arguments of all calls so far, as they came."""
        return ((call_id, "".join(texts)) for call_id, texts in self._arguments)

    def ends(self, finish_reason: Any) -> list[ToolCallChunk]:
        """The fragments that make calls invalid at the end; see `wire.tools`."""
        for call_id, _ in self._arguments:
            check_call_id(call_id)
        texts = [text for _, text in self.texts()]
        fragments = []
        for index, is_unfinished in enumerate(unfinished_calls(texts, finish_reason)):
            is_open = is_unfinished or index not in self._named_calls
            if added := end_of_arguments(texts[index], is_unfinished=is_open):
                fragments.append(tool_call_chunk(name=None, args=added, id=None, index=index))
        return fragments


FORMAT = ClientFormat(
    write_request, write_results, read_reply, ChatCompletionsReader, tells_dual_llm=True
)
