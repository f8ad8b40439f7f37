"""LangChain messages to the body of a Responses request.

LangChain content blocks to the input parts of Responses.

Blocks of any dialect (`media`) end as one part each (`docs/protocol.md`, Responses).

What the assistant said, in whatever dialect, to items of Responses.

The content gives the order, and what the items are called; the message's own `tool_calls` say which
calls there are and with which arguments, since these are what users edit. A message that has none
was built from blocks alone, and then the blocks are believed. What another provider's model thought
stays behind: only reasoning with an id or encrypted content of its own means anything here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
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

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire import media
from langchain_sequrity.wire.blocks import CITATION, SERVED_TOOLS, THOUGHT, joined
from langchain_sequrity.wire.json_text import dumps_like_service
from langchain_sequrity.wire.media import Block, Media, is_media, read_media
from langchain_sequrity.wire.responses.params import write_params
from langchain_sequrity.wire.tool_results import has_failed, whole_results, write_tool_result
from langchain_sequrity.wire.tools import text_of, texts_of

Part = dict[str, Any]

_FORMAT = "Responses"
TEXT = "input_text"


def write_parts(content: str | list[Any]) -> str | list[Part]:
    """Write the content of a message that is not the assistant's.

    Args:
        content: Content of a LangChain message.

    Returns:
        The text, or the list of parts. Blocks that say nothing here (reasoning, tool calls) are
        left out.

    Raises:
        UsageError: For a block that the format cannot carry.
    """
    if isinstance(content, str):
        return content
    return [part for block in content if (part := _write_part(block)) is not None]


def _write_part(block: Any) -> Part | None:
    if isinstance(block, str):
        return {"type": TEXT, "text": block}
    kind = block.get("type")
    if kind is None and "text" in block:
        kind = "text"
    write = _PART_WRITERS.get(kind)
    # Unknown kinds go out as they are: the service may know more than this table.
    return dict(block) if write is None else write(block)


def _text(block: Block) -> Part:
    return {"type": TEXT, "text": block["text"]}


def _left_out(_block: Block) -> None:
    return None


def _image(block: Block) -> Part:
    image = read_media(block)
    url = image.url if image.data is None else _data_uri(block, image)
    if url is not None:
        part: Part = {"type": "input_image", "image_url": url}
    elif image.file_id is not None:
        part = {"type": "input_image", "file_id": image.file_id}
    else:
        raise unfit(
            block, "Give the image as `url`, as `file_id`, or as `base64` with `mime_type`."
        )
    if detail := image.extras.get("detail"):
        part["detail"] = detail
    return part


def _file(block: Block) -> Part:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "text":
        return {"type": TEXT, "text": source.get("data", "")}
    file = read_media(block)
    part: Part = {"type": "input_file"}
    if file.file_id is not None:
        return {**part, "file_id": file.file_id}
    if file.data is not None:
        uri = _data_uri(block, file)
        name = file.name or f"file.{(file.mime_type or '').split('/')[-1]}"
        return {**part, "filename": name, "file_data": uri}
    if file.url is None:
        raise unfit(block, "Give the file as `url`, as `file_id`, or as `base64` with `mime_type`.")
    named = {"filename": file.name} if file.name else {}
    return {**part, "file_url": file.url, **named}


def _data_uri(block: Block, found: Media) -> str:
    if not found.mime_type:
        raise unfit(block, "Add `mime_type`, such as `image/png` or `application/pdf`.")
    return f"data:{found.mime_type};base64,{found.data}"


def _plain_text(block: Block) -> Part:
    if "text" not in block:
        raise unfit(block, "Give the text itself as `text`.")
    return _text(block)


def _video(block: Block) -> Part:
    raise unfit(block, "Responses has no video; send single frames as images.")


def _non_standard(block: Block) -> Part:
    return media.non_standard(block, _FORMAT)


def unfit(block: Block, way_out: str) -> UsageError:
    """The error for a block that this format cannot carry."""
    return media.unfit(block, _FORMAT, way_out)


_PART_WRITERS: dict[str | None, Callable[[Block], Part | None]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "text-plain": _plain_text,
    "image": _image,
    "image_url": _image,
    "input_image": _image,
    "audio": partial(media.openai_audio, format_name=_FORMAT),
    "input_audio": partial(media.openai_audio, format_name=_FORMAT),
    "file": _file,
    "input_file": _file,
    "document": _file,
    "video": _video,
    "non_standard": _non_standard,
    "reasoning": _left_out,
    "reasoning_content": _left_out,
    "thinking": _left_out,
    "redacted_thinking": _left_out,
    "tool_use": _left_out,
    "tool_call": _left_out,
    "tool_call_chunk": _left_out,
    "invalid_tool_call": _left_out,
    "function_call": _left_out,
    "input_json_delta": _left_out,
    "server_tool_use": _left_out,
    "server_tool_call": _left_out,
    "server_tool_result": _left_out,
}


AnyBlock = Mapping[str, Any]
Item = dict[str, Any]

_CALLS = frozenset(
    {"function_call", "tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use"}
)
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
_OF_CALLS = frozenset({"type", "call_id", "name", "arguments", "index"})
_GENERATED = "lc_"
"""How ids begin that LangChain made up; the service does not know them."""


def write_assistant(message: AIMessage) -> list[Item]:
    """Write a message of the assistant.

    Args:
        message: The message.

    Returns:
        Its items, at least one.

    Raises:
        UsageError: For a block that an assistant cannot say.
    """
    refusal = message.additional_kwargs.get("refusal")
    if isinstance(message.content, str) and not refusal:  # the common case
        calls = _own_calls(message)
        said = message.content or not calls
        return [{"role": "assistant", "content": message.content}, *calls] if said else calls
    blocks = [_unwrapped(block) for block in joined(message.content)]
    if refusal and not any(block.get("type") == "refusal" for block in blocks):
        blocks.append({"type": "refusal", "refusal": refusal})
    placed, others = _calls(message, blocks)
    items: list[Item] = []
    for place, block in enumerate(blocks):
        kind = block.get("type")
        if kind in _CALLS:
            if call := placed.get(place):
                items.append({**call, **_item_of(block)})
        else:
            _ITEM_WRITERS.get(kind, _other)(items, block)
    items += others
    return [_brief(item) for item in items] or [{"role": "assistant", "content": ""}]


def _unwrapped(block: AnyBlock) -> AnyBlock:
    value = block.get("value") if block.get("type") == "non_standard" else None
    return value if isinstance(value, Mapping) else block


# Calls


def _own_calls(message: AIMessage) -> list[Item]:
    texts = texts_of(message)
    calls = [_call(call["id"], call["name"], text_of(call, texts)) for call in message.tool_calls]
    # A call whose arguments did not parse was answered with an error message: both go back.
    calls += [
        _call(call["id"], call["name"] or "", call["args"] or "")
        for call in message.invalid_tool_calls
    ]
    return calls


def _calls(message: AIMessage, blocks: Sequence[AnyBlock]) -> tuple[dict[int, Item], list[Item]]:
    """The calls by the places of their blocks, and those that have none.

    Ids may have been replaced in `tool_calls` alone (`history`): what finds no block by its id
    takes the first one of the same name that finds no call.
    """
    calls = _own_calls(message)
    places = [place for place, block in enumerate(blocks) if block.get("type") in _CALLS]
    if not calls:
        return {place: _call_of(blocks[place]) for place in places}, []
    placed: dict[int, Item] = {}
    for key, read in (("call_id", _call_id), ("name", _name)):
        for place in places:
            if place not in placed and (call := _take(calls, key, read(blocks[place]))):
                placed[place] = call
    return placed, calls


def _take(calls: list[Item], key: str, value: Any) -> Item | None:
    for place, call in enumerate(calls):
        if call[key] == value:
            return calls.pop(place)
    return None


def _call(call_id: str | None, name: str, arguments: str) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _call_id(block: AnyBlock) -> Any:
    return block.get("call_id" if block["type"] == "function_call" else "id")


def _name(block: AnyBlock) -> Any:
    return block.get("name")


def _call_of(block: AnyBlock) -> Item:
    """The call that a block stands for by itself."""
    key = {"function_call": "arguments", "tool_use": "input"}.get(block["type"], "args")
    arguments = block.get(key)
    text = arguments if isinstance(arguments, str | None) else dumps_like_service(arguments)
    return _call(_call_id(block), block.get("name") or "", text or "")


def _item_of(block: AnyBlock) -> Item:
    """What a call's item says beside the call."""
    if block["type"] == "function_call":
        return {key: value for key, value in block.items() if key not in _OF_CALLS}
    extras = block.get("extras") or {}
    if "item_id" not in extras:  # of another provider
        return {}
    return {"id" if key == "item_id" else key: value for key, value in extras.items()}


# Messages


def _text_item(items: list[Item], block: AnyBlock) -> None:
    text, annotations = block.get("text") or "", block.get("annotations") or ()
    if not (text or annotations or _own_id(block)):
        return
    written = [one for annotation in annotations if (one := _annotation(annotation)) is not None]
    _say(items, block, {"type": "output_text", "text": text, "annotations": written})


def _refusal(items: list[Item], block: AnyBlock) -> None:
    _say(items, block, {"type": "refusal", "refusal": block["refusal"]})


def _say(items: list[Item], block: AnyBlock, part: Item) -> None:
    """Put a part into the message that it belongs to: the last item, or a new one."""
    item_id = _own_id(block)
    phase = block.get("phase") or (block.get("extras") or {}).get("phase")
    last: Item = items[-1] if items else {}
    same = last.get("id") == item_id and last.get("phase") == phase
    if last.get("type") == "message" and same:
        last["content"].append(part)
        return
    message: Item = {"type": "message", "role": "assistant", "content": [part]}
    if item_id is not None:
        message |= {"id": item_id, "status": "completed"}
    if phase is not None:
        message["phase"] = phase
    items.append(message)


def _own_id(block: AnyBlock) -> str | None:
    found = block.get("id")
    return found if isinstance(found, str) and not found.startswith(_GENERATED) else None


def _annotation(annotation: AnyBlock) -> Item | None:
    kind = annotation.get("type")
    if kind == "non_standard_annotation":
        value = annotation.get("value")
        return dict(value) if isinstance(value, Mapping) else None
    if kind != "citation":
        return dict(annotation)
    cited = {key: annotation[key] for key in CITATION if key in annotation}
    if len(cited) < len(CITATION):  # of another provider
        return None
    return {"type": "url_citation", **cited, **(annotation.get("extras") or {})}


_BARE = {"type", "role", "content"}


def _brief(item: Item) -> Item:
    """A message of nothing but text as text."""
    if item["type"] != "message" or item.keys() != _BARE:
        return item
    [part, *others] = item["content"]
    if others or part["type"] != "output_text" or part["annotations"]:
        return item
    return {"role": "assistant", "content": part["text"]}


# Reasoning


def _reasoning(items: list[Item], block: AnyBlock) -> None:
    item_id = _own_id(block)
    extras = block.get("extras") or {}
    if item_id is None and not (block.get("encrypted_content") or extras.get("encrypted_content")):
        return
    if "reasoning" not in block:
        items.append({"summary": [], **_own(block)})
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


def _own(block: AnyBlock) -> Item:
    """An item that stands in the content as it came, without the marks of a stream."""
    item = {key: value for key, value in block.items() if key != "index"}
    for key in ("summary", "content"):
        if key in item:
            item[key] = [
                {name: value for name, value in part.items() if name != "index"}
                for part in item[key] or ()
            ]
    return item


# All else


def _served_call(items: list[Item], block: AnyBlock) -> None:
    extras = block.get("extras") or {}
    tool = SERVED_TOOLS.get(str(extras.get("type")))
    if tool is None:  # of another provider
        return
    item: Item = {**extras, "id": block["id"]}
    if args := block.get("args"):
        item[tool.argument] = args.get(tool.argument, args)
    items.append(item)


def _served_result(items: list[Item], block: AnyBlock) -> None:
    for item in items:
        tool = SERVED_TOOLS.get(item["type"])
        if tool is None or tool.output is None:
            continue
        if item.get("id") == block["tool_call_id"]:
            if "output" in block:
                item[tool.output] = block["output"]
            return


def _other(items: list[Item], block: AnyBlock) -> None:
    kind = str(block.get("type"))
    if kind in _FOREIGN or kind.endswith("_tool_result"):
        return
    if kind.startswith("output_"):  # a part that may be received but not sent
        return
    if is_media(block):
        raise unfit(block, "An assistant says text; send it in a human message.")
    items.append({key: value for key, value in block.items() if key != "index"})


_ITEM_WRITERS: dict[Any, Callable[[list[Item], AnyBlock], None]] = {
    None: _text_item,
    "text": _text_item,
    "output_text": _text_item,
    "text-plain": _text_item,
    "refusal": _refusal,
    "reasoning": _reasoning,
    "server_tool_call": _served_call,
    "server_tool_result": _served_result,
}


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation, or what is new in it where `previous_response_id` is given.
        params: Every other field of the body, such as `model` and `tools`, in the neutral words of
            chat/completions or in the format's own. `None` is left out.
        dual_llm: Whether an interpreter reads the results of tools, and is told which failed.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If a message has no place in this format.
    """
    body = write_params(params)
    body["input"] = write_input(messages, dual_llm=dual_llm)
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Write tool results whose content is written already.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    return [
        {"type": "function_call_output", "call_id": call_id, "output": content}
        for call_id, content in results
    ]


def write_input(messages: Iterable[BaseMessage], *, dual_llm: bool = False) -> list[Item]:
    """Write a conversation as items.

    Args:
        messages: The conversation. Names of messages have no place here.
        dual_llm: See `write_request`.

    Returns:
        The items: those of the assistant are several per message.

    Raises:
        UsageError: For a message that has no place in it.
    """
    items: list[Item] = []
    for message in messages:
        results, others = whole_results(message.content)
        if results:
            artifact = getattr(message, "artifact", None)
            for block in results:
                content = block.get("content") or ""
                output = _output(block.get("tool_use_id"), content, artifact)
                items.append(_marked(output, dual_llm and block.get("is_error")))
            if not others:
                continue
            message = HumanMessage(others)  # noqa: PLW2901 - what was said beside the results
        written = _writer(message)(message)
        items += [_marked(one, dual_llm and has_failed(message)) for one in written]
    return items


def _marked(item: Item, has_failed: object) -> Item:
    """A result with the mark of Messages, which this format lacks (`docs/behaviour.md`, P7)."""
    return {**item, "is_error": True} if has_failed else item


def _writer(message: BaseMessage) -> Callable[[Any], list[Item]]:
    writer = _WRITERS.get(type(message))
    if writer is not None:
        return writer
    for kind, candidate in _WRITERS.items():  # chunks and the user's own subclasses
        if isinstance(message, kind):
            return candidate
    msg = (
        f"A `{type(message).__name__}` cannot be sent. Expected system, human, AI, tool or chat "
        "messages."
    )
    raise UsageError(msg)


def _system(message: SystemMessage) -> list[Item]:
    role = message.additional_kwargs.get("__openai_role__", "system")
    return [{"role": role, "content": _content(message)}]


def _content(message: BaseMessage) -> str | list[Part]:
    # An empty list of parts is not legal: blocks that say nothing on this wire were all there was.
    return write_parts(message.content) or ""


def _human(message: HumanMessage) -> list[Item]:
    return [{"role": "user", "content": _content(message)}]


def _chat(message: ChatMessage) -> list[Item]:
    if message.role == "assistant":
        return write_assistant(AIMessage(message.content))
    if message.role in ("tool", "function"):
        raise _no_call_id(message)
    return [{"role": message.role, "content": _content(message)}]


def _function(message: FunctionMessage) -> list[Item]:
    raise _no_call_id(message)


def _no_call_id(message: BaseMessage) -> UsageError:
    msg = (
        f"A `{type(message).__name__}` says nothing of the call that it answers, which Responses "
        "needs. Use a `ToolMessage` with the id of the call."
    )
    return UsageError(msg)


def _tool(message: ToolMessage) -> list[Item]:
    return [_output(message.tool_call_id, message.content, message.artifact)]


def _output(call_id: str | None, content: str | list[Any], artifact: Any) -> Item:
    output = write_tool_result(_result(content), artifact)
    if not isinstance(output, str):
        output = [{**part, "type": TEXT} if part.get("type") == "text" else part for part in output]
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _result(content: str | list[Any]) -> str | list[Part]:
    """A tool's result: text, which is all that is documented, or parts if there is more.

    Text in parts is of type `text` as long as labels are looked for in it (`tool_results`).
    """
    parts = write_parts(content)
    if isinstance(parts, str):
        return parts
    if all(part.get("type") == TEXT for part in parts):
        return "".join(part["text"] for part in parts)
    return [{**part, "type": "text"} if part.get("type") == TEXT else part for part in parts]


_WRITERS: dict[type[BaseMessage], Callable[[Any], list[Item]]] = {
    HumanMessage: _human,
    AIMessage: write_assistant,
    ToolMessage: _tool,
    SystemMessage: _system,
    ChatMessage: _chat,
    FunctionMessage: _function,
}
