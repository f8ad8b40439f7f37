"""The client's side of Responses: writes requests and reads whole replies.

Content blocks of any dialect become input parts (`docs/protocol.md`, Responses). Messages of the
assistant become items. The content gives their order and ids. `tool_calls` give the calls and their
arguments, because users edit `tool_calls`; a message without them has its calls in the content
only. Reasoning of another provider is not sent: only reasoning with its own id or encrypted content
has a meaning here.

Replies are untrusted: every unexpected shape becomes a `BadReply`. Unknown fields are kept under
their own names, except for repetitions of the request.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial, singledispatch
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.errors import StatusError, UsageError
from langchain_sequrity.strict_json import dumps_like_service
from langchain_sequrity.wire import media
from langchain_sequrity.wire.blocks import (
    CITATION,
    MODEL_PROVIDER,
    SERVER_TOOLS,
    THOUGHT,
    content_blocks,
)
from langchain_sequrity.wire.error_body import error_in_reply
from langchain_sequrity.wire.exchange import (
    MISSHAPEN,
    Describe,
    Reply,
    openai_usage,
    read_object,
    refuse_reply,
    reply_metadata,
)
from langchain_sequrity.wire.media import is_media, read_media, without_index
from langchain_sequrity.wire.responses.items import read_output
from langchain_sequrity.wire.tool_results import has_failed, with_tool_messages, write_tool_result
from langchain_sequrity.wire.tools import (
    foreign_tool_error,
    keep_arguments,
    read_function,
    write_calls,
)

Part = dict[str, Any]
Item = dict[str, Any]
Block = Mapping[str, Any]

_FORMAT = "Responses"
_TEXT = "input_text"
_LOGPROBS = "message.output_text.logprobs"


# Requests


DOCUMENTED = frozenset(
    {
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "reasoning",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "timeout",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    }
)
"""Fields of a request that the service documents (`docs/protocol.md`, Request of Responses)."""


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation, or its new messages if `previous_response_id` is given.
        params: Every other field of the body, such as `model` and `tools`, in the neutral form of
            chat/completions or in the format's own. `None` is left out.
        dual_llm: Whether an interpreter reads tool results, and needs to know which tools failed.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If this format cannot carry a message.
    """
    body = _write_params(params)
    body["input"] = write_input(messages, dual_llm=dual_llm)
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Write tool results whose content is already written.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    return [
        {"type": "function_call_output", "call_id": call_id, "output": content}
        for call_id, content in results
    ]


_NEUTRAL = frozenset(
    {
        "tools",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "max_tokens",
        "max_completion_tokens",
        "logprobs",
    }
)


def _write_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Write all fields of the body except the conversation.

    Fields that the format does not have (`stop`, `seed`, `n`) are sent as the user gave them
    (`docs/behaviour.md`, P4).
    """
    fields = {key: value for key, value in params.items() if value is not None}
    body = {key: value for key, value in fields.items() if key not in _NEUTRAL}
    if "tools" in fields:
        body["tools"] = [write_tool(tool) for tool in fields["tools"]]
    if "tool_choice" in fields:
        choice = fields["tool_choice"]
        function = choice.get("function") if isinstance(choice, Mapping) else None
        named = function and {"type": "function", "name": function["name"]}
        body["tool_choice"] = named or choice
    if "response_format" in fields:
        body["text"] = {**body.get("text", {}), "format": write_format(fields["response_format"])}
    if "verbosity" in fields:
        body["text"] = {"verbosity": fields["verbosity"], **body.get("text", {})}
    if "reasoning_effort" in fields:
        body["reasoning"] = {"effort": fields["reasoning_effort"], **body.get("reasoning", {})}
    if limit := fields.get("max_completion_tokens", fields.get("max_tokens")):
        body.setdefault("max_output_tokens", limit)
    if fields.get("logprobs"):  # `top_logprobs` alone gives their number and does not ask for them
        include = body.get("include", [])
        body["include"] = include if _LOGPROBS in include else [*include, _LOGPROBS]
    return body


# As in `bash_20250124`; dates of OpenAI's tools have other forms.
_OF_ANTHROPIC = re.compile(r"_20\d{6}$")


def write_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Write a tool; one that the service runs itself stays unchanged.

    Raises:
        UsageError: For a tool of Anthropic's API.
    """
    function = read_function(tool)
    if function is not None:
        return {"type": "function", **function}
    if _OF_ANTHROPIC.search(str(tool.get("type"))):
        raise foreign_tool_error(tool, "Responses")
    return dict(tool)


def write_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """Write a neutral `response_format` as the flat `format` of `text`."""
    inner = response_format.get("json_schema")
    if not isinstance(inner, Mapping):
        return dict(response_format)
    return {"type": "json_schema", **inner}


def write_input(messages: Iterable[BaseMessage], *, dual_llm: bool = False) -> list[Item]:
    """Write a conversation as items.

    Args:
        messages: The conversation. The format has no names of messages.
        dual_llm: See `write_request`.

    Returns:
        The items. A message of the assistant may become several.

    Raises:
        UsageError: For a message that the format cannot carry.
    """
    items: list[Item] = []
    for message in with_tool_messages(messages):
        written = _writer_of(type(message))(message)
        if dual_llm and has_failed(message):
            written[0]["is_error"] = True  # borrowed from Messages (`docs/behaviour.md`, P7)
        items += written
    return items


@singledispatch
def _write(message: BaseMessage) -> list[Item]:
    raise media.unsupported_message_error(message)


_writer_of = lru_cache(maxsize=64)(_write.dispatch)  # a long history pays for each look-up


def _content(message: BaseMessage) -> str | list[Part]:
    return _parts(message.content) or ""  # an empty list of parts is not legal


@_write.register
def _system(message: SystemMessage) -> list[Item]:
    role = message.additional_kwargs.get("__openai_role__", "system")
    return [{"role": role, "content": _content(message)}]


@_write.register
def _human(message: HumanMessage) -> list[Item]:
    return [{"role": "user", "content": _content(message)}]


@_write.register
def _chat(message: ChatMessage) -> list[Item]:
    if message.role == "assistant":
        return _write(AIMessage(message.content))
    if message.role in ("tool", "function"):
        raise _no_call_id(message)
    return [{"role": message.role, "content": _content(message)}]


@_write.register
def _function(message: FunctionMessage) -> list[Item]:
    raise _no_call_id(message)


def _no_call_id(message: BaseMessage) -> UsageError:
    msg = (
        f"A `{type(message).__name__}` has no id of the call that it answers, which Responses "
        "requires. Use a `ToolMessage`."
    )
    return UsageError(msg)


@_write.register
def _tool(message: ToolMessage) -> list[Item]:
    content = _parts(message.content)
    if isinstance(content, list):
        if all(part.get("type") == _TEXT for part in content):
            content = "".join(part["text"] for part in content)  # the one documented form
        else:  # `write_tool_result` looks for labels in parts of type `text`
            content = [_retyped(part, _TEXT, "text") for part in content]
    output = write_tool_result(content, message.artifact)
    if not isinstance(output, str):
        output = [_retyped(part, "text", _TEXT) for part in output]
    return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]


def _retyped(part: Part, old: str, new: str) -> Part:
    return {**part, "type": new} if part.get("type") == old else part


# Content parts


def _parts(content: str | list[Any]) -> str | list[Part]:
    return content if isinstance(content, str) else media.write_parts(content, _PART_WRITERS)


def _text(block: Block) -> Part:
    return {"type": _TEXT, "text": media.text_of(block, _FORMAT)}


def _image(block: Block) -> Part:
    image = read_media(block)
    url = image.url if image.data is None else media.data_uri(block, image, _FORMAT)
    if url is not None:
        part: Part = {"type": "input_image", "image_url": url}
    elif image.file_id is not None:
        part = {"type": "input_image", "file_id": image.file_id}
    else:
        way_out = "Give the image as `url`, as `file_id`, or as `base64` with `mime_type`."
        raise _unfit(block, way_out)
    if detail := image.extras.get("detail"):
        part["detail"] = detail
    return part


def _file(block: Block) -> Part:
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "text":
        return {"type": _TEXT, "text": source.get("data", "")}
    file = read_media(block)
    part: Part = {"type": "input_file"}
    if file.file_id is not None:
        return {**part, "file_id": file.file_id}
    if file.data is not None:
        uri = media.data_uri(block, file, _FORMAT)
        return {**part, "filename": media.file_name(file), "file_data": uri}
    if file.url is None:
        way_out = "Give the file as `url`, as `file_id`, or as `base64` with `mime_type`."
        raise _unfit(block, way_out)
    named = {"filename": file.name} if file.name else {}
    return {**part, "file_url": file.url, **named}


def _video(block: Block) -> Part:
    raise _unfit(block, "Responses has no video; send single frames as images.")


_unfit = partial(media.unsupported_block_error, format_name=_FORMAT)

_PART_WRITERS: dict[str | None, Callable[[Block], Part]] = {
    "text": _text,
    "text-plain": _text,
    "image": _image,
    "audio": partial(media.openai_audio, format_name=_FORMAT),
    "file": _file,
    "video": _video,
    "non_standard": partial(media.non_standard, format_name=_FORMAT),
}


# Items of the assistant


# Pieces of other providers' protocols.
_FOREIGN = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "reasoning_content",
        "input_json_delta",
        "server_tool_use",
        "server_tool_call_chunk",
    }
)
_CALL_KEYS = frozenset({"type", "call_id", "name", "arguments", "index"})
_GENERATED = "lc_"
"""Prefix of ids that LangChain made; the service does not know them."""


@_write.register
def _assistant(message: AIMessage) -> list[Item]:
    refusal = message.additional_kwargs.get("refusal")
    calls = [_call(*call) for call in write_calls(message)]
    if isinstance(message.content, str) and not refusal:  # the common case
        is_needed = message.content or not calls
        text = [{"role": "assistant", "content": message.content}] if is_needed else []
        return [*text, *calls]
    blocks = [_unwrapped(block) for block in content_blocks(message.content)]
    if refusal and not any(block.get("type") == "refusal" for block in blocks):
        blocks.append({"type": "refusal", "refusal": refusal})
    indexed = _calls_by_index(calls, blocks)
    items: list[Item] = []
    for index, block in enumerate(blocks):
        block_type = block.get("type")
        if block_type not in media.CALLS:
            _ITEM_WRITERS.get(block_type, _unknown_block)(items, block)
        elif call := indexed.get(index):
            items.append({**call, **_item_fields(block)})
    items += calls
    return [_brief(item) for item in items] or [{"role": "assistant", "content": ""}]


def _unwrapped(block: Block) -> Block:
    value = block.get("value") if block.get("type") == "non_standard" else None
    return value if isinstance(value, Mapping) else block


def _calls_by_index(calls: list[Item], blocks: Sequence[Block]) -> dict[int, Item]:
    """Take calls from the list by the places of their blocks; others stay in the list.

    Middleware may replace ids in `tool_calls` only. So a block without a call of its id takes the
    first call of its name that is left.
    """
    indices = [index for index, block in enumerate(blocks) if block.get("type") in media.CALLS]
    if not calls:
        return {index: _call_of(blocks[index]) for index in indices}
    indexed: dict[int, Item] = {}
    for key, identify in (("call_id", _call_id), ("name", lambda block: block.get("name"))):
        for index in indices:
            value = identify(blocks[index])
            call = next((call for call in calls if call[key] == value), None)
            if index not in indexed and call is not None:
                indexed[index] = call
                calls.remove(call)
    return indexed


def _call(call_id: str | None, name: str, arguments: str) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _call_id(block: Block) -> Any:
    return block.get("call_id" if block["type"] == "function_call" else "id")


def _call_of(block: Block) -> Item:
    """The call of a block in a message without `tool_calls`."""
    key = {"function_call": "arguments", "tool_use": "input"}.get(block["type"], "args")
    arguments = block.get(key)
    text = arguments if isinstance(arguments, str | None) else dumps_like_service(arguments)
    return _call(_call_id(block), block.get("name") or "", text or "")


def _item_fields(block: Block) -> Item:
    """Additional fields of a call's item."""
    if block["type"] == "function_call":
        return {key: value for key, value in block.items() if key not in _CALL_KEYS}
    extras = block.get("extras") or {}
    if "item_id" not in extras:  # from another provider
        return {}
    return {"id" if key == "item_id" else key: value for key, value in extras.items()}


def _text_item(items: list[Item], block: Block) -> None:
    text, annotations = block.get("text") or "", block.get("annotations") or ()
    if not (text or annotations or _own_id(block)):
        return
    written = [citation for citation in map(_annotation, annotations) if citation is not None]
    _add_part(items, block, {"type": "output_text", "text": text, "annotations": written})


def _refusal(items: list[Item], block: Block) -> None:
    _add_part(items, block, {"type": "refusal", "refusal": block["refusal"]})


def _add_part(items: list[Item], block: Block, part: Item) -> None:
    """Add a part to its message, which is the last item or a new one."""
    item_id = _own_id(block)
    phase = block.get("phase") or (block.get("extras") or {}).get("phase")
    last: Item = items[-1] if items else {}
    is_same = last.get("id") == item_id and last.get("phase") == phase
    if last.get("type") == "message" and is_same:
        last["content"].append(part)
        return
    message: Item = {"type": "message", "role": "assistant", "content": [part]}
    if item_id is not None:
        message |= {"id": item_id, "status": "completed"}
    if phase is not None:
        message["phase"] = phase
    items.append(message)


def _own_id(block: Block) -> str | None:
    item_id = block.get("id")
    return item_id if isinstance(item_id, str) and not item_id.startswith(_GENERATED) else None


def _annotation(annotation: Block) -> Item | None:
    annotation_type = annotation.get("type")
    if annotation_type == "non_standard_annotation":
        value = annotation.get("value")
        return dict(value) if isinstance(value, Mapping) else None
    if annotation_type != "citation":
        return dict(annotation)
    cited = {key: annotation[key] for key in CITATION if key in annotation}
    if len(cited) < len(CITATION):  # from another provider
        return None
    return {"type": "url_citation", **cited, **(annotation.get("extras") or {})}


def _brief(item: Item) -> Item:
    """A message with a single text as text; other items unchanged."""
    if item["type"] != "message" or item.keys() != {"type", "role", "content"}:
        return item
    [part, *others] = item["content"]
    if others or part["type"] != "output_text" or part["annotations"]:
        return item
    return {"role": "assistant", "content": part["text"]}


def _reasoning(items: list[Item], block: Block) -> None:
    item_id = _own_id(block)
    extras = block.get("extras") or {}
    if item_id is None and not (block.get("encrypted_content") or extras.get("encrypted_content")):
        return
    if "reasoning" not in block:
        items.append({"summary": [], **_reasoning_item(block)})
        return
    item: Item = items[-1] if items else {}
    if item.get("type") != "reasoning" or item_id is None or item.get("id") != item_id:
        named = {} if item_id is None else {"id": item_id}
        item = {"type": "reasoning", **named, "summary": []}
        items.append(item)
    if "encrypted_content" in block:
        item["encrypted_content"] = block["encrypted_content"]
    item.update((key, value) for key, value in extras.items() if key != "part")
    if text := block["reasoning"]:
        is_thought = extras.get("part") == THOUGHT
        part = {"type": THOUGHT if is_thought else "summary_text", "text": text}
        item.setdefault("content" if is_thought else "summary", []).append(part)


def _reasoning_item(block: Block) -> Item:
    """An item as it came, without the `index` that streams add to it and its parts."""
    item = without_index(block)
    for key in ("summary", "content"):
        if key in item:
            item[key] = [without_index(part) for part in item[key] or ()]
    return item


def _served_call(items: list[Item], block: Block) -> None:
    extras = block.get("extras") or {}
    tool = SERVER_TOOLS.get(str(extras.get("type")))
    if tool is None:  # from another provider
        return
    item: Item = {**extras, "id": block["id"]}
    if args := block.get("args"):
        item[tool.argument] = args.get(tool.argument, args)
    items.append(item)


def _served_result(items: list[Item], block: Block) -> None:
    for item in items:
        tool = SERVER_TOOLS.get(item["type"])
        if tool is None or tool.output is None:
            continue
        if item.get("id") == block["tool_call_id"]:
            if "output" in block:
                item[tool.output] = block["output"]
            return


def _unknown_block(items: list[Item], block: Block) -> None:
    block_type = str(block.get("type"))
    if block_type in _FOREIGN or block_type.endswith("_tool_result"):
        return
    if block_type.startswith("output_"):  # replies may have it, requests may not
        return
    if is_media(block):
        raise _unfit(block, "An assistant says text; send it in a human message.")
    items.append(without_index(block))


_ITEM_WRITERS: dict[Any, Callable[[list[Item], Block], None]] = {
    None: _text_item,
    "text": _text_item,
    "output_text": _text_item,
    "text-plain": _text_item,
    "refusal": _refusal,
    "reasoning": _reasoning,
    "server_tool_call": _served_call,
    "server_tool_result": _served_result,
}


# Replies


# Repetitions of the request, and fields of the reply that are read by name. Others are kept.
_SKIPPED = (DOCUMENTED - {"conversation", "metadata", "service_tier"}) | {
    "output",
    "usage",
    "object",
    "created_at",
    "completed_at",
    "id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
}
_UNFINISHED = ("queued", "in_progress", "cancelled")


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    A denied turn of a dual-LLM session has status `failed` and a text with the reason
    (`docs/protocol.md`, Responses); it is read like any other. A failure without text is an error.

    Args:
        reply: The reply with status 2xx.
        describe: Makes additional `response_metadata` for the message.

    Returns:
        One message. `response_metadata` holds `model_name`, `model_provider`, `finish_reason` as
        in chat/completions, `id`, `status`, and all other fields of the reply.

    Raises:
        BadReply: If the body is not a finished response.
        StatusError: If the body is an error object, or a failed response without text.
    """
    body = read_object(reply.body)
    items = _output(body)
    try:
        output = read_output(items, is_cut=body.get("status") != "completed", constants=True)
        message = AIMessage(
            content=output.content,
            additional_kwargs={"refusal": output.refusal} if output.refusal else {},
            tool_calls=output.tool_calls,
            invalid_tool_calls=output.invalid_tool_calls,
            usage_metadata=openai_usage(body.get("usage"), "input", "output"),
        )
        called = bool(output.tool_calls or output.invalid_tool_calls)
        metadata = {**read_metadata(body, items, called=called), **describe(reply)}
        message.response_metadata = keep_arguments(metadata, texts_in(items))
    except MISSHAPEN:
        refuse_reply("a response whose `output` has the documented shape", body)
    if is_failed(body) and not message.text:
        raise failure(body)
    return [message]


def texts_in(items: Iterable[Block]) -> Iterator[tuple[Any, Any]]:
    """Ids and arguments of the calls of an output, as they came."""
    return (
        (item.get("call_id"), item.get("arguments"))
        for item in items
        if item.get("type") == "function_call"
    )


def _output(body: Mapping[str, Any]) -> list[Block]:
    output = body.get("output")
    if not isinstance(output, list):
        if body.get("error"):
            raise error_in_reply(body)
        refuse_reply("a response with `output`", body)
    if body.get("status") in _UNFINISHED:
        refuse_reply(f"a finished response: its status is `{body['status']}`", body)
    return output


def is_failed(body: Mapping[str, Any]) -> bool:
    """Whether the service reports that the response failed."""
    return body.get("status") == "failed" or bool(body.get("error"))


def failure(body: Mapping[str, Any]) -> StatusError:
    """The error of a failed response."""
    error = body.get("error") or {"message": "The response failed, and no reason was given."}
    return error_in_reply({"error": error})


def read_metadata(
    body: Mapping[str, Any], items: Iterable[Block], *, called: bool
) -> dict[str, Any]:
    """Make the `response_metadata` of a response.

    Args:
        body: The response.
        items: Its output.
        called: Whether it calls tools.
    """
    metadata = reply_metadata(body, _SKIPPED, MODEL_PROVIDER)
    metadata["finish_reason"] = _finish_reason(body, called=called)
    logprobs = [
        token
        for item in items
        if item["type"] == "message"
        for part in item.get("content") or ()
        for token in part.get("logprobs") or ()
    ]
    if logprobs:  # in the same place as for chat/completions
        metadata["logprobs"] = {"content": logprobs}
    return metadata


def _finish_reason(body: Mapping[str, Any], *, called: bool) -> str:
    if is_failed(body):
        return "error"
    if body.get("status") == "incomplete":
        reason: str = (body.get("incomplete_details") or {}).get("reason") or "incomplete"
        return "length" if reason == "max_output_tokens" else reason
    return "tool_calls" if called else "stop"
