"""LangChain's view of a message that came from the service: its standard content blocks.

`AIMessage.content_blocks`, `output_version="v1"` and the v3 event stream all ask the translator
that is registered under the message's `model_provider`. The translators that come with LangChain
lose something for these wire formats (the one for "openai" drops the reasoning text of
chat/completions, and merges text with tool calls in v1 streams), so the package registers its own.

Content is either text, with reasoning and refusal beside it (chat/completions), or a list of
blocks that are items of Responses in all but name. Blocks of a stream carry string indices, one
per kind: core merges those that start with `lc_` and never mixes two kinds. What does not grow
piece by piece comes once: v1 adds what is repeated, and v3 takes the last.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

from langchain_sequrity.strict_json import read_arguments

Block = dict[str, Any]

MODEL_PROVIDER = "sequrity"


def translate_content(message: AIMessage) -> list[types.ContentBlock]:
    """Blocks of a whole message: reasoning, text, refusal, tool calls; a list in its own order."""
    calls: list[Block] = [{**call, "type": "tool_call"} for call in message.tool_calls]
    calls += [{**call, "type": "invalid_tool_call"} for call in message.invalid_tool_calls]
    if isinstance(message.content, str):
        blocks = _text_blocks(message)
    else:
        blocks = [block for _, block in _in_order(joined(message.content), calls)]
    return cast("list[types.ContentBlock]", [*_around(message, blocks), *calls])


def translate_content_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Blocks of one piece of a stream, each with the index that ties the pieces together."""
    if message.chunk_position == "last":  # put together already
        return translate_content(message)
    content = message.content
    plain = not (message.tool_call_chunks or message.additional_kwargs)
    if plain and content and isinstance(content, str):  # the common case, once a chunk
        text = {"type": "text", "text": content, "index": "lc_txt_0"}
        return [cast("types.ContentBlock", text)]
    calls: list[Block] = [{**call, "type": "tool_call_chunk"} for call in message.tool_call_chunks]
    if isinstance(content, str):
        blocks = _around(message, _text_blocks(message))
        for block in blocks:
            block.setdefault("index", _INDEX.get(block["type"], "lc_txt_0"))
    else:
        blocks = list(_pieces_in_order(content, calls))
    for call in calls:
        call["index"] = f"lc_tc_{call['index']}"
    return cast("list[types.ContentBlock]", [*blocks, *calls])


_INDEX = {"reasoning": "lc_rs_0", "text": "lc_txt_0", "refusal": "lc_rf_0"}


# Text, with all else beside it


def _text_blocks(message: AIMessage) -> list[Block]:
    blocks: list[Block] = [{"type": "text", "text": message.content}] if message.content else []
    annotations = message.additional_kwargs.get("annotations")
    if annotations and blocks:
        blocks[-1]["annotations"] = [_citation(one) for one in annotations]
    return blocks


def _around(message: AIMessage, blocks: list[Block]) -> list[Block]:
    """Put reasoning before the text and a refusal behind it, unless they are in their places."""
    extra = message.additional_kwargs
    if not extra:
        return blocks
    kinds = {block["type"] for block in blocks}
    if "reasoning" not in kinds and (reasoning := extra.get("reasoning_content")):
        blocks.insert(0, {"type": "reasoning", "reasoning": reasoning})
    if "refusal" not in kinds and (refusal := extra.get("refusal")):
        blocks.append({"type": "refusal", "refusal": refusal})
    return blocks


# A list of blocks


def joined(content: str | list[Any]) -> list[Block]:
    """The blocks of a message's content; text is a block of its own.

    Args:
        content: Content of a message, whole or put together from a stream.

    Returns:
        The blocks. Text that a stream gave as plain text, before it turned out to be one block of
        several, goes into that block.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: list[Block] = []
    bare = False
    for block in content:
        if isinstance(block, str):
            blocks.append({"type": "text", "text": block})
        elif bare and block.get("type") == "text" and block.get("index") == 0:
            blocks[-1] = {**block, "text": blocks[-1]["text"] + block.get("text", "")}
        else:
            blocks.append(block)
        bare = isinstance(block, str)
    return blocks


def _in_order(blocks: Iterable[Block], calls: list[Block]) -> Iterator[tuple[str, Block]]:
    """Standard blocks of a whole message, with tags; calls leave the list for their places.

    The message's tool calls say which calls there are, so that one which the user took out is
    not shown. A message without any was built from blocks alone.
    """
    alone = not calls
    for block in blocks:
        if block.get("type") != "function_call":
            yield from _standard(block)
        elif call := _call(block) if alone else _take(calls, "id", block.get("call_id")):
            yield "tc", _with_item(call, block)


def _pieces_in_order(content: list[Any], calls: list[Block]) -> Iterator[Block]:
    for place, block in enumerate(joined(content)):
        index = block.get("index", place)
        if block.get("type") == "function_call":
            found = (
                _take(calls, "index", index)
                if "index" in block
                else _take(calls, "id", block.get("call_id"))
            )
            call = found or {"type": "tool_call_chunk", "id": None, "name": None, "args": ""}
            yield {**_with_item(call, block), "index": f"lc_tc_{index}"}
            continue
        for tag, standard in _standard(block):
            yield {**standard, "index": f"lc_{tag}_{index}"}


def _take(calls: list[Block], key: str, value: Any) -> Block | None:
    for place, call in enumerate(calls):
        if call.get(key) == value:
            return calls.pop(place)
    return None


def _call(block: Block) -> Block:
    """The call that a block stands for by itself."""
    arguments = block.get("arguments")
    args, problem = read_arguments(arguments)
    call = {"id": block.get("call_id"), "name": block.get("name")}
    if args is None:
        return {"type": "invalid_tool_call", **call, "args": arguments, "error": problem}
    return {"type": "tool_call", **call, "args": args}


def _with_item(call: Block, block: Block) -> Block:
    extras = _others(block, "call_id", "name", "arguments", "id")
    if "id" in block:
        extras["item_id"] = block["id"]
    return {**call, "extras": extras} if extras else call


def _others(block: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What a block says beside what is known here; it goes into `extras`."""
    extras = {
        key: value
        for key, value in block.items()
        if key not in _EVERYWHERE and key not in known and value is not None
    }
    given = block.get("extras")
    return {**given, **extras} if isinstance(given, Mapping) else extras


_EVERYWHERE = frozenset({"type", "index", "extras"})


# Standard blocks, each with the tag that its index begins with


def _standard(block: Block) -> Iterator[tuple[str, Block]]:
    kind = block.get("type")
    translate = _TRANSLATORS.get(kind)
    if translate is not None:
        yield from translate(block)
    elif kind in types.KNOWN_BLOCK_TYPES:
        yield str(kind), _without_index(block)
    else:
        yield from _non_standard(block)


def _without_index(block: Block) -> Block:
    return {key: value for key, value in block.items() if key != "index"}


def _non_standard(block: Block) -> Iterator[tuple[str, Block]]:
    yield "ns", {"type": "non_standard", "value": _without_index(block)}


def _text(block: Block) -> Iterator[tuple[str, Block]]:
    out: Block = {"type": "text", "text": block.get("text", "")}
    if "id" in block:
        out["id"] = block["id"]
    if annotations := block.get("annotations"):
        out["annotations"] = [_citation(one) for one in annotations]
    if extras := _others(block, "text", "id", "annotations"):
        out["extras"] = extras
    yield "txt", out


def _citation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """`url_citation` as LangChain's citation; others as they are.

    Chat/completions has an object of its own for what Responses writes flat.
    """
    kind = annotation.get("type")
    if kind in ("citation", "non_standard_annotation"):
        return dict(annotation)
    if kind != "url_citation":
        return {"type": "non_standard_annotation", "value": dict(annotation)}
    nested = annotation.get("url_citation")
    inner = nested if isinstance(nested, Mapping) else annotation
    citation = {"type": "citation", **{key: inner[key] for key in CITATION if key in inner}}
    if extras := _others(annotation, "url_citation", *CITATION):
        citation["extras"] = extras
    return citation


CITATION = ("url", "title", "start_index", "end_index")
"""What a citation of a web page says, in both vocabularies."""


def _refusal(block: Block) -> Iterator[tuple[str, Block]]:
    out = {"type": "refusal", "refusal": block.get("refusal", "")}
    if "id" in block:
        out["id"] = block["id"]
    if extras := _others(block, "refusal", "id"):
        out["extras"] = extras
    yield "rf", out


def _reasoning(block: Block) -> Iterator[tuple[str, Block]]:
    """One block per part, all with the id of the item; the first has what the item says beside.

    One block for all would lose where a part ends, and with it the item as it was.
    """
    if "reasoning" in block:
        yield "rs_0", _without_index(block)
        return
    extras = _others(block, "id", "summary", "content")
    parts = [*(block.get("content") or ()), *(block.get("summary") or ())]
    numbered = [(part.get("index", place), part) for place, part in enumerate(parts)]
    if not parts or (extras and all(number for number, _ in numbered)):
        numbered.insert(0, (0, {}))
    for number, part in numbered:
        out: Block = {"type": "reasoning", "reasoning": part.get("text", "")}
        if "id" in block:
            out["id"] = block["id"]
        marks = {"part": THOUGHT} if part.get("type") == THOUGHT else {}
        if number == 0:
            marks |= extras
        if marks:
            out["extras"] = marks
        yield f"rs_{number}", out


THOUGHT = "reasoning_text"
"""Type of a part that is the reasoning itself and no summary of it."""


@dataclass(frozen=True, slots=True)
class ServedTool:
    """A tool that the service runs itself: one item of Responses, two blocks of LangChain.

    Attributes:
        name: Its name.
        argument: Key of the item that holds what it was asked.
        output: Key that holds what came out, where it has one.
    """

    name: str
    argument: str
    output: str | None = None


SERVED_TOOLS = {
    "web_search_call": ServedTool("web_search", "action"),
    "file_search_call": ServedTool("file_search", "queries", "results"),
    "code_interpreter_call": ServedTool("code_interpreter", "code", "outputs"),
}
"""By the type of the item."""

_FAILED = ("failed", "incomplete")


def _served(block: Block) -> Iterator[tuple[str, Block]]:
    tool, item_id = SERVED_TOOLS[block["type"]], block.get("id")
    if not isinstance(item_id, str):
        yield from _non_standard(block)
        return
    asked = block.get(tool.argument)
    if not isinstance(asked, dict):
        asked = {} if asked is None else {tool.argument: asked}
    # The type marks a block that can become an item again.
    extras = {"type": block["type"], **_others(block, "id", tool.argument, str(tool.output))}
    call = {"type": "server_tool_call", "id": item_id, "name": tool.name, "args": asked}
    yield "st", {**call, "extras": extras}
    status = "error" if block.get("status") in _FAILED else "success"
    result = {"type": "server_tool_result", "tool_call_id": item_id, "status": status}
    if tool.output is not None and block.get(tool.output) is not None:
        result["output"] = block[tool.output]
    yield "sr", result


_TRANSLATORS: dict[Any, Callable[[Block], Iterator[tuple[str, Block]]]] = {
    "text": _text,
    "refusal": _refusal,
    "reasoning": _reasoning,
    **dict.fromkeys(SERVED_TOOLS, _served),
}

register_translator(MODEL_PROVIDER, translate_content, translate_content_chunk)
