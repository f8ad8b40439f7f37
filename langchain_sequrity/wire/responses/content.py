"""LangChain content blocks to the input parts of Responses.

Blocks of any dialect (`media`) end as one part each (`docs/protocol.md`, Responses).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire import media
from langchain_sequrity.wire.media import Block, Media, read_media

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
    write = _WRITERS.get(kind)
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


_WRITERS: dict[str | None, Callable[[Block], Part | None]] = {
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
