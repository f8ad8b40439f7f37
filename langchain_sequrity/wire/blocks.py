"""LangChain's view of a message that came from chat/completions: its standard content blocks.

`AIMessage.content_blocks`, `output_version="v1"` and the v3 event stream all ask the translator
that is registered under the message's `model_provider`. The translators that come with LangChain
lose something for this wire format (the one for "openai" drops reasoning text, and merges text
with tool calls in v1 streams), so the package registers its own. Blocks of a stream carry string
indices, one per kind: core merges those that start with `lc_` and never mixes two kinds.
"""

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

MODEL_PROVIDER = "sequrity"


def _citation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """`url_citation` of chat/completions as LangChain's citation; others as they are."""
    if annotation.get("type") != "url_citation":
        return {"type": "non_standard_annotation", "value": dict(annotation)}
    inner = annotation.get("url_citation") or {}
    keys = ("url", "title", "start_index", "end_index")
    return {"type": "citation", **{key: inner[key] for key in keys if key in inner}}


def _text_blocks(message: AIMessage) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        blocks: list[dict[str, Any]] = [{"type": "text", "text": content}] if content else []
    else:
        blocks = [
            {"type": "text", "text": block} if isinstance(block, str) else dict(block)
            for block in content
        ]
    annotations = message.additional_kwargs.get("annotations")
    if annotations and blocks:
        blocks[-1]["annotations"] = [_citation(one) for one in annotations]
    return blocks


def _around(message: AIMessage, text: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put reasoning before the text and a refusal behind it."""
    extra = message.additional_kwargs
    if not extra:
        return text
    blocks = list(text)
    if reasoning := extra.get("reasoning_content"):
        blocks.insert(0, {"type": "reasoning", "reasoning": reasoning})
    if refusal := extra.get("refusal"):
        blocks.append({"type": "refusal", "refusal": refusal})
    return blocks


def translate_content(message: AIMessage) -> list[types.ContentBlock]:
    """Blocks of a whole message: reasoning, text, refusal, tool calls."""
    blocks = _around(message, _text_blocks(message))
    blocks += [{**call, "type": "tool_call"} for call in message.tool_calls]
    blocks += [{**call, "type": "invalid_tool_call"} for call in message.invalid_tool_calls]
    return cast("list[types.ContentBlock]", blocks)


def translate_content_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Blocks of one piece of a stream, each with the index that ties the pieces together."""
    if message.chunk_position == "last":  # put together already
        return translate_content(message)
    content = message.content
    plain = not (message.tool_call_chunks or message.additional_kwargs)
    if plain and content and isinstance(content, str):  # the common case, once a chunk
        text = {"type": "text", "text": content, "index": "lc_txt_0"}
        return [cast("types.ContentBlock", text)]
    blocks = _around(message, _text_blocks(message))
    for block in blocks:
        block.setdefault("index", _INDEX.get(block["type"], "lc_txt_0"))
    blocks += [
        {**call, "type": "tool_call_chunk", "index": f"lc_tc_{call['index']}"}
        for call in message.tool_call_chunks
    ]
    return cast("list[types.ContentBlock]", blocks)


_INDEX = {"reasoning": "lc_rs_0", "text": "lc_txt_0", "refusal": "lc_rf_0"}

register_translator(MODEL_PROVIDER, translate_content, translate_content_chunk)
