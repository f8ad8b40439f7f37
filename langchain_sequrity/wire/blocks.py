"""LangChain's standard content blocks of messages from the service.

`AIMessage.content_blocks`, `output_version="v1"` and the v3 event stream call the translator that
is registered for the message's `model_provider`. LangChain's own translators lose content of these
formats: the one for "openai" drops the reasoning text of chat/completions, and merges text with
tool calls in v1 streams. So the package registers its own.

Content is either text, with reasoning and refusal in `additional_kwargs` (chat/completions), or a
list of blocks that are nearly items of Responses. Blocks of a stream have string indices, separate
for each kind: LangChain merges those with prefix `lc_` and never mixes two kinds. Content that does
not grow comes once: v1 adds repetitions, and v3 keeps the last.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

from langchain_sequrity.strict_json import read_arguments
from langchain_sequrity.wire.media import without_index

Block = dict[str, Any]

MODEL_PROVIDER = "sequrity"
PROVIDER = {"model_provider": MODEL_PROVIDER}


def translate_content(message: AIMessage) -> list[types.ContentBlock]:
    """Translate a whole message: reasoning, text, refusal, tool calls; a list keeps its order."""
    calls: list[Block] = [{**call, "type": "tool_call"} for call in message.tool_calls]
    calls += [{**call, "type": "invalid_tool_call"} for call in message.invalid_tool_calls]
    if isinstance(message.content, str):
        blocks = _text_blocks(message)
    else:
        blocks = [block for _, block in _whole_blocks(content_blocks(message.content), calls)]
    return cast("list[types.ContentBlock]", [*_with_reasoning_and_refusal(message, blocks), *calls])


def translate_content_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Translate a chunk of a stream; the index of a block joins it to those of other chunks."""
    if message.chunk_position == "last":  # already joined
        return translate_content(message)
    content = message.content
    has_only_text = not (message.tool_call_chunks or message.additional_kwargs)
    if has_only_text and content and isinstance(content, str):  # the common case
        text = {"type": "text", "text": content, "index": "lc_txt_0"}
        return [cast("types.ContentBlock", text)]
    calls: list[Block] = [{**call, "type": "tool_call_chunk"} for call in message.tool_call_chunks]
    if isinstance(content, str):
        blocks = _with_reasoning_and_refusal(message, _text_blocks(message))
        for block in blocks:
            block.setdefault("index", _INDEX.get(block["type"], "lc_txt_0"))
    else:
        blocks = list(_chunk_blocks(content, calls))
    for call in calls:
        call["index"] = f"lc_tc_{call['index']}"
    return cast("list[types.ContentBlock]", [*blocks, *calls])


_INDEX = {"reasoning": "lc_rs_0", "text": "lc_txt_0", "refusal": "lc_rf_0"}


# Text, with other content in `additional_kwargs`


def _text_blocks(message: AIMessage) -> list[Block]:
    blocks: list[Block] = [{"type": "text", "text": message.content}] if message.content else []
    annotations = message.additional_kwargs.get("annotations")
    if annotations and blocks:
        blocks[-1]["annotations"] = [_citation(annotation) for annotation in annotations]
    return blocks


def _with_reasoning_and_refusal(message: AIMessage, blocks: list[Block]) -> list[Block]:
    """Add reasoning before the text and a refusal after it, unless the blocks have them."""
    extra = message.additional_kwargs
    if not extra:
        return blocks
    block_types = {block["type"] for block in blocks}
    if "reasoning" not in block_types and (reasoning := extra.get("reasoning_content")):
        blocks.insert(0, {"type": "reasoning", "reasoning": reasoning})
    if "refusal" not in block_types and (refusal := extra.get("refusal")):
        blocks.append({"type": "refusal", "refusal": refusal})
    return blocks


# A list of blocks


def content_blocks(content: str | list[Any]) -> list[Block]:
    """Return a message's content as blocks.

    Args:
        content: Content of a message, whole or joined from a stream.

    Returns:
        The blocks. A stream may send plain text before it turns out to have several blocks; such
        text is joined to its block.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: list[Block] = []
    follows_text = False
    for block in content:
        if isinstance(block, str):
            blocks.append({"type": "text", "text": block})
        elif follows_text and block.get("type") == "text" and block.get("index") == 0:
            blocks[-1] = {**block, "text": blocks[-1]["text"] + block.get("text", "")}
        else:
            blocks.append(block)
        follows_text = isinstance(block, str)
    return blocks


def _whole_blocks(blocks: Iterable[Block], calls: list[Block]) -> Iterator[tuple[str, Block]]:
    """Yield standard blocks of a whole message with tags, and take calls from the list.

    A call that the user removed from `tool_calls` is not shown. A message without `tool_calls` was
    built from blocks only, which then give the calls.
    """
    has_calls = bool(calls)
    for block in blocks:
        if block.get("type") != "function_call":
            yield from _standard(block)
        elif call := _pop_call(calls, "id", block.get("call_id")) if has_calls else _call(block):
            yield "tc", _with_item_fields(call, block)


def _chunk_blocks(content: list[Any], calls: list[Block]) -> Iterator[Block]:
    for position, block in enumerate(content_blocks(content)):
        index = block.get("index", position)
        if block.get("type") == "function_call":
            key = ("index", index) if "index" in block else ("id", block.get("call_id"))
            call = _pop_call(calls, *key)
            call = call or {"type": "tool_call_chunk", "id": None, "name": None, "args": ""}
            yield {**_with_item_fields(call, block), "index": f"lc_tc_{index}"}
            continue
        for tag, standard in _standard(block):
            yield {**standard, "index": f"lc_{tag}_{index}"}


def _pop_call(calls: list[Block], key: str, value: Any) -> Block | None:
    for index, call in enumerate(calls):
        if call.get(key) == value:
            return calls.pop(index)
    return None


def _call(block: Block) -> Block:
    """The call of a block in a message without `tool_calls`."""
    arguments = block.get("arguments")
    args, problem = read_arguments(arguments)
    call = {"id": block.get("call_id"), "name": block.get("name")}
    if args is None:
        return {"type": "invalid_tool_call", **call, "args": arguments, "error": problem}
    return {"type": "tool_call", **call, "args": args}


def _with_item_fields(call: Block, block: Block) -> Block:
    extras = _extras(block, "call_id", "name", "arguments", "id")
    if "id" in block:
        extras["item_id"] = block["id"]
    return {**call, "extras": extras} if extras else call


def _extras(block: Mapping[str, Any], *translated: str) -> dict[str, Any]:
    """Unknown fields of a block, for `extras`."""
    extras = {
        key: value
        for key, value in block.items()
        if key not in _EVERYWHERE and key not in translated and value is not None
    }
    own_extras = block.get("extras")
    return {**own_extras, **extras} if isinstance(own_extras, Mapping) else extras


_EVERYWHERE = frozenset({"type", "index", "extras"})


# Standard blocks, each with the tag for its index


def _standard(block: Block) -> Iterator[tuple[str, Block]]:
    block_type = block.get("type")
    translate = _TRANSLATORS.get(block_type)
    if translate is not None:
        yield from translate(block)
    elif block_type in types.KNOWN_BLOCK_TYPES:
        yield str(block_type), without_index(block)
    else:
        yield from _non_standard(block)


def _non_standard(block: Block) -> Iterator[tuple[str, Block]]:
    yield "ns", {"type": "non_standard", "value": without_index(block)}


def _text(block: Block) -> Iterator[tuple[str, Block]]:
    """A text or a refusal: its type is also the key of its content."""
    block_type = block["type"]
    standard: Block = {"type": block_type, block_type: block.get(block_type, "")}
    if "id" in block:
        standard["id"] = block["id"]
    if annotations := block.get("annotations"):
        standard["annotations"] = [_citation(annotation) for annotation in annotations]
    if extras := _extras(block, block_type, "id", "annotations"):
        standard["extras"] = extras
    yield "txt" if block_type == "text" else "rf", standard


def _citation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """A `url_citation` as LangChain's citation; others unchanged.

    Chat/completions has a nested object where Responses is flat.
    """
    annotation_type = annotation.get("type")
    if annotation_type in ("citation", "non_standard_annotation"):
        return dict(annotation)
    if annotation_type != "url_citation":
        return {"type": "non_standard_annotation", "value": dict(annotation)}
    nested = annotation.get("url_citation")
    inner = nested if isinstance(nested, Mapping) else annotation
    citation = {"type": "citation", **{key: inner[key] for key in CITATION if key in inner}}
    if extras := _extras(annotation, "url_citation", *CITATION):
        citation["extras"] = extras
    return citation


CITATION = ("url", "title", "start_index", "end_index")
"""Fields of a citation of a web page, the same for the service and LangChain."""


def _reasoning(block: Block) -> Iterator[tuple[str, Block]]:
    """One block per part, with the id of the item; the first has the item's other fields.

    A single block would lose the boundaries of parts, and so the original item.
    """
    if "reasoning" in block:
        yield "rs_0", without_index(block)
        return
    extras = _extras(block, "id", "summary", "content")
    parts = [*(block.get("content") or ()), *(block.get("summary") or ())]
    numbered = [(part.get("index", index), part) for index, part in enumerate(parts)]
    if not parts or (extras and all(number for number, _ in numbered)):
        numbered.insert(0, (0, {}))
    for number, part in numbered:
        standard: Block = {"type": "reasoning", "reasoning": part.get("text", "")}
        if "id" in block:
            standard["id"] = block["id"]
        marks = {"part": THOUGHT} if part.get("type") == THOUGHT else {}
        if number == 0:
            marks |= extras
        if marks:
            standard["extras"] = marks
        yield f"rs_{number}", standard


THOUGHT = "reasoning_text"
"""Type of a part that is the reasoning itself and not a summary."""


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the service runs itself: one item of Responses, two blocks of LangChain.

    Attributes:
        name: Its name.
        argument: Key of the item for the arguments.
        output: Key of the item for the result, if it has one.
    """

    name: str
    argument: str
    output: str | None = None


SERVER_TOOLS = {
    "web_search_call": ServerTool("web_search", "action"),
    "file_search_call": ServerTool("file_search", "queries", "results"),
    "code_interpreter_call": ServerTool("code_interpreter", "code", "outputs"),
}
"""By the type of the item."""

_FAILED = ("failed", "incomplete")


def _server_tool_blocks(block: Block) -> Iterator[tuple[str, Block]]:
    tool, item_id = SERVER_TOOLS[block["type"]], block.get("id")
    if not isinstance(item_id, str):
        yield from _non_standard(block)
        return
    args = block.get(tool.argument)
    if not isinstance(args, dict):
        args = {} if args is None else {tool.argument: args}
    # The type allows to write the item again.
    extras = {"type": block["type"], **_extras(block, "id", tool.argument, str(tool.output))}
    call = {"type": "server_tool_call", "id": item_id, "name": tool.name, "args": args}
    yield "st", {**call, "extras": extras}
    status = "error" if block.get("status") in _FAILED else "success"
    result = {"type": "server_tool_result", "tool_call_id": item_id, "status": status}
    if tool.output is not None and block.get(tool.output) is not None:
        result["output"] = block[tool.output]
    yield "sr", result


_TRANSLATORS: dict[Any, Callable[[Block], Iterator[tuple[str, Block]]]] = {
    "text": _text,
    "refusal": _text,
    "reasoning": _reasoning,
    **dict.fromkeys(SERVER_TOOLS, _server_tool_blocks),
}

register_translator(MODEL_PROVIDER, translate_content, translate_content_chunk)
