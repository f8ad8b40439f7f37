"""LangChain content blocks to the content parts of chat/completions.

Input comes in several dialects: OpenAI's own parts, LangChain's standard blocks (v1), their
predecessors with `source_type` (v0), and Anthropic's blocks. Each ends as one OpenAI part
(`docs/protocol.md`, Chat completions).
"""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity.errors import UsageError

Part = dict[str, Any]
Block = Mapping[str, Any]

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def write_parts(content: str | list[Any]) -> str | list[Part]:
    """Write a message's content: text stays text, blocks become parts.

    Args:
        content: Content of a LangChain message.

    Returns:
        The text, or the list of parts. Blocks that say nothing on this wire (tool calls, which
        have a place of their own, and reasoning) are left out.

    Raises:
        UsageError: For a block that chat/completions cannot carry.
    """
    if isinstance(content, str):
        return content
    return [part for block in content if (part := _write_part(block)) is not None]


def _write_part(block: Any) -> Part | None:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind is None and "text" in block:
        kind = "text"
    write = _WRITERS.get(kind)
    # Unknown kinds go out as they are: the service may know more than this table.
    return dict(block) if write is None else write(block)


def _text(block: Block) -> Part:
    part = {"type": "text", "text": block["text"]}
    if "cache_control" in block:  # OpenRouter, the default provider, honours it on text parts
        part["cache_control"] = block["cache_control"]
    return part


def _as_is(block: Block) -> Part:
    return dict(block)


def _refusal(block: Block) -> Part:
    return {"type": "refusal", "refusal": block["refusal"]}


def _left_out(_block: Block) -> None:
    return None


def _data(block: Block) -> tuple[str | None, str | None, str | None, str | None]:
    """Mime type, base64 data, URL and file id of a media block in any dialect."""
    source = block.get("source")
    if isinstance(source, Mapping):  # Anthropic
        data = source.get("data") if source.get("type") == "base64" else None
        return source.get("media_type"), data, source.get("url"), source.get("file_id")
    if block.get("source_type") == "base64":
        return block.get("mime_type"), block.get("data"), None, None
    if block.get("source_type") == "id":
        return block.get("mime_type"), None, None, block.get("id")
    return (
        block.get("mime_type"),
        block.get("base64") or block.get("data"),
        block.get("url"),
        block.get("file_id"),
    )


def _unfit(block: Block, way_out: str) -> UsageError:
    keys = ", ".join(f"`{key}`" for key in sorted(block) if key != "type")
    msg = (
        f"A content block of type `{block.get('type')}` with {keys} does not fit into "
        f"chat/completions. {way_out}"
    )
    return UsageError(msg)


def _image(block: Block) -> Part:
    mime_type, data, url, _file_id = _data(block)
    if data is not None:
        if not mime_type:
            raise _unfit(block, "Add `mime_type`, such as `image/png`.")
        url = f"data:{mime_type};base64,{data}"
    if url is None:
        raise _unfit(block, "Give the image as `url` or as `base64` with `mime_type`.")
    image: Part = {"url": url}
    detail = block.get("detail") or (block.get("extras") or {}).get("detail")
    if detail:
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _image_url(block: Block) -> Part:
    image = block.get("image_url")
    return {**block, "image_url": {"url": image}} if isinstance(image, str) else dict(block)


def _audio(block: Block) -> Part:
    mime_type, data, _url, _file_id = _data(block)
    kind = _AUDIO_FORMATS.get((mime_type or "").lower())
    if data is None or kind is None:
        known = ", ".join(f"`{name}`" for name in _AUDIO_FORMATS)
        raise _unfit(block, f"Give the audio as `base64` with a `mime_type` of {known}.")
    return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}


def _file(block: Block) -> Part:
    if "file" in block:  # already OpenAI's form
        return dict(block)
    mime_type, data, _url, file_id = _data(block)
    if file_id is not None:
        return {"type": "file", "file": {"file_id": file_id}}
    if data is None or not mime_type:
        raise _unfit(block, "Give the file as `base64` with `mime_type`, or as `file_id`.")
    extras = block.get("extras") or {}
    name = block.get("filename") or block.get("title") or block.get("name")
    name = (
        name or extras.get("filename") or extras.get("name") or f"file.{mime_type.split('/')[-1]}"
    )
    return {
        "type": "file",
        "file": {"filename": name, "file_data": f"data:{mime_type};base64,{data}"},
    }


def _document(block: Block) -> Part:
    source = block.get("source") or {}
    if source.get("type") == "text":
        return {"type": "text", "text": source.get("data", "")}
    return _file(block)


def _plain_text(block: Block) -> Part:
    if "text" not in block:
        raise _unfit(block, "Give the text itself as `text`.")
    return {"type": "text", "text": block["text"]}


def _video(block: Block) -> Part:
    raise _unfit(block, "Chat/completions has no video; send single frames as images.")


def _non_standard(block: Block) -> Part:
    value = block.get("value")
    if not isinstance(value, Mapping):
        raise _unfit(block, "Its `value` must be the provider's own block.")
    return dict(value)


_WRITERS: dict[str | None, Callable[[Block], Part | None]] = {
    "text": _text,
    "text-plain": _plain_text,
    "image": _image,
    "image_url": _image_url,
    "audio": _audio,
    "input_audio": _as_is,
    "file": _file,
    "document": _document,
    "video": _video,
    "refusal": _refusal,
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
