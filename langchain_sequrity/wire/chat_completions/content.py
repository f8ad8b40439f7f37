"""LangChain content blocks to the content parts of chat/completions.

Blocks of any dialect (`media`) end as one OpenAI part each (`docs/protocol.md`, Chat completions).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.media import Block, non_standard, openai_audio, read_media, unfit

Part = dict[str, Any]

_FORMAT = "chat/completions"

_RAN_ELSEWHERE = ("_tool_use", "_tool_result", "_call", "_output")


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
    if write is not None:
        return write(block)
    # Calls that another provider's service ran itself have no meaning here; unknown kinds go out
    # as they are: the service may know more than this table.
    ran_elsewhere = str(kind).endswith(_RAN_ELSEWHERE) or str(kind).startswith("mcp_")
    return None if ran_elsewhere else dict(block)


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


def _image(block: Block) -> Part:
    media = read_media(block)
    url = media.url
    if media.data is not None:
        if not media.mime_type:
            raise _unfit(block, "Add `mime_type`, such as `image/png`.")
        url = f"data:{media.mime_type};base64,{media.data}"
    if url is None:
        raise _unfit(block, "Give the image as `url` or as `base64` with `mime_type`.")
    image: Part = {"url": url}
    if detail := media.extras.get("detail"):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _image_url(block: Block) -> Part:
    image = block.get("image_url")
    return {**block, "image_url": {"url": image}} if isinstance(image, str) else dict(block)


def _file(block: Block) -> Part:
    if "file" in block:  # already OpenAI's form
        return dict(block)
    media = read_media(block)
    if media.file_id is not None:
        return {"type": "file", "file": {"file_id": media.file_id}}
    if media.data is None or not media.mime_type:
        raise _unfit(block, "Give the file as `base64` with `mime_type`, or as `file_id`.")
    return {
        "type": "file",
        "file": {
            "filename": media.name or f"file.{media.mime_type.split('/')[-1]}",
            "file_data": f"data:{media.mime_type};base64,{media.data}",
        },
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
    return non_standard(block, _FORMAT)


def _unfit(block: Block, way_out: str) -> UsageError:
    return unfit(block, _FORMAT, way_out)


_WRITERS: dict[str | None, Callable[[Block], Part | None]] = {
    "text": _text,
    "text-plain": _plain_text,
    "image": _image,
    "image_url": _image_url,
    "audio": partial(openai_audio, format_name=_FORMAT),
    "input_audio": _as_is,
    "input_image": _image,
    "input_file": _file,
    "input_text": _text,
    "output_text": _text,
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
