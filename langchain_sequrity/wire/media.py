"""Content blocks of LangChain messages, in any dialect: images, files, audio, and unfit blocks.

Users write OpenAI's parts, LangChain's standard blocks (v1), their predecessors with
`source_type` (v0), and Anthropic's blocks. Media is read into one form, which each wire format
writes as its own.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import BaseMessage

from langchain_sequrity.errors import UsageError

Block = Mapping[str, Any]
MediaType = Literal["image", "audio", "file", "video"]

_DATA_URI = re.compile(r"data:([^;,]*)[^,]*;base64,")
_MEDIA_TYPES: dict[Any, MediaType] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "file": "file",
    "document": "file",
    "input_file": "file",
    "video": "video",
}


_TEXTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Media:
    """An image, a file, audio or a video.

    Attributes:
        type: Its type.
        mime_type: Its MIME type, such as `image/png`, if known.
        data: Its bytes as base64; or `url` or `file_id` instead.
        url: Its URL.
        file_id: Its id at the provider.
        name: Name of the file.
        extras: All fields of the block and its `extras`, such as `detail` or `cache_control`.
    """

    type: MediaType
    mime_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def is_media(block: Block) -> bool:
    """Whether a block is media, in any dialect."""
    return block.get("type") in _MEDIA_TYPES


def read_media(block: Block) -> Media:
    """Read a block of media.

    Args:
        block: The block, in any dialect.

    Returns:
        Its content; fields that a format requires may be missing.

    Example:
        ```python
        from langchain_sequrity.wire.media import read_media

        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        assert read_media(part).mime_type == "image/png"
        ```
    """
    block_type = block["type"]
    inner = block.get(block_type)
    if block_type == "image_url" or (block_type == "input_image" and "image_url" in block):
        return _image_url(block, block.get("image_url"))
    if block_type == "input_audio":
        return _openai_audio(block, inner if isinstance(inner, Mapping) else block)
    if block_type == "input_file" or (block_type == "file" and isinstance(inner, Mapping)):
        return _openai_file(block, inner if isinstance(inner, Mapping) else block)
    return _standard(block)


def _image_url(block: Block, image_field: Any) -> Media:
    image = image_field if isinstance(image_field, Mapping) else {"url": image_field}
    url = image.get("url")
    mime_type, data = _split_data_uri(url)
    extras = _extras(block)
    if detail := image.get("detail"):
        extras["detail"] = detail
    return Media("image", mime_type, data, None if data is not None else url, extras=extras)


def _openai_audio(block: Block, audio: Block) -> Media:
    mime_type = {"wav": "audio/wav", "mp3": "audio/mpeg"}.get(str(audio.get("format")))
    return Media("audio", mime_type, audio.get("data"), extras=_extras(block))


def _openai_file(block: Block, file: Block) -> Media:
    mime_type, data = _split_data_uri(file.get("file_data"))
    url, file_id, name = file.get("file_url"), file.get("file_id"), file.get("filename")
    return Media("file", mime_type, data, url, file_id, name, _extras(block))


def _standard(block: Block) -> Media:
    """Read a block of LangChain, v1 or v0, or of Anthropic."""
    media_type = _MEDIA_TYPES[block["type"]]
    source = block.get("source")
    extras = _extras(block)
    names = (fields.get(key) for fields in (block, extras) for key in ("filename", "title", "name"))
    name = next(filter(None, names), None)
    if isinstance(source, Mapping):
        mime_type, url, file_id = source.get("media_type"), source.get("url"), source.get("file_id")
        data = source.get("data") if source.get("type") in ("base64", "text") else None
    elif block.get("source_type") == "id":
        mime_type, data, url, file_id = block.get("mime_type"), None, None, block.get("id")
    else:
        mime_type, url, file_id = block.get("mime_type"), block.get("url"), block.get("file_id")
        data = block.get("base64") or block.get("data")
        if data is None and isinstance(url, str) and url.startswith("data:"):
            uri_type, data = _split_data_uri(url)
            mime_type, url = mime_type or uri_type, None
    return Media(media_type, mime_type, data, url, file_id, name, extras)


def _extras(block: Block) -> dict[str, Any]:
    extras = dict(block)
    for fields in (block.get("metadata"), block.get("extras")):
        if isinstance(fields, Mapping):
            extras |= fields
    return extras


def _split_data_uri(url: Any) -> tuple[str | None, str | None]:
    """Return type and data of a data URI, and nothing for any other URL."""
    match = _DATA_URI.match(url) if isinstance(url, str) else None
    return (match[1] or None, url[match.end() :]) if match else (None, None)


_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def openai_audio(block: Block, format_name: str) -> dict[str, Any]:
    """Write audio as the part that both of OpenAI's formats have.

    Raises:
        UsageError: For anything but WAV and MP3 as base64.
    """
    audio = read_media(block)
    audio_format = _AUDIO_FORMATS.get((audio.mime_type or "").lower())
    if audio.data is None or audio_format is None:
        formats = ", ".join(f"`{name}`" for name in _AUDIO_FORMATS)
        way_out = f"Give the audio as `base64` with a `mime_type` of {formats}."
        raise unsupported_block_error(block, way_out, format_name)
    return {"type": "input_audio", "input_audio": {"data": audio.data, "format": audio_format}}


def data_uri(block: Block, media: Media, format_name: str) -> str:
    """Write media as a data URI.

    Raises:
        UsageError: If its MIME type is unknown.
    """
    if not media.mime_type:
        way_out = "Add `mime_type`, such as `image/png` or `application/pdf`."
        raise unsupported_block_error(block, way_out, format_name)
    return f"data:{media.mime_type};base64,{media.data}"


def file_name(media: Media) -> str:
    """The name of a file, or one that is made of its MIME type."""
    return media.name or f"file.{(media.mime_type or '').split('/')[-1]}"


# Other blocks


CALLS = frozenset(
    {"function_call", "tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use"}
)
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
# OpenAI's formats send calls in a separate field, and no reasoning of other providers.
NOT_SENT = CALLS.union(
    THOUGHTS,
    {
        "reasoning_content",
        "input_json_delta",
        "server_tool_use",
        "server_tool_call",
        "server_tool_result",
    },
)


def without_index(block: Block) -> dict[str, Any]:
    """A block without the `index` that LangChain adds in streams."""
    return {key: value for key, value in block.items() if key != "index"}


def neutral_type(block: Block) -> Any:
    """The type of a block, one for all dialects of text and media; a text needs no type."""
    block_type = block.get("type")
    if block_type in _TEXTS or (block_type is None and "text" in block):
        return "text"
    return _MEDIA_TYPES.get(block_type, block_type) if isinstance(block_type, str) else block_type


def write_parts(
    content: Iterable[Any], writers: Mapping[Any, Callable[[Block], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Write blocks as parts of one of OpenAI's formats.

    Args:
        content: The blocks, or plain texts.
        writers: By kind of block. Unknown kinds are sent unchanged: the service may know more.

    Returns:
        The parts, without blocks that have no meaning there.
    """
    parts = []
    for block in content:
        part = {"type": "text", "text": block} if isinstance(block, str) else block
        part_type = neutral_type(part)
        if write := writers.get(part_type):
            parts.append(write(part))
        elif part_type not in NOT_SENT:
            parts.append(dict(part))
    return parts


def text_of(block: Block, format_name: str) -> str:
    """The text of a block.

    Raises:
        UsageError: If it has none.
    """
    text = block.get("text")
    if not isinstance(text, str):
        raise unsupported_block_error(block, "Give the text itself as `text`.", format_name)
    return text


def non_standard(block: Block, format_name: str) -> dict[str, Any]:
    """The provider's own block that LangChain wrapped as `non_standard`."""
    value = block.get("value")
    if not isinstance(value, Mapping):
        raise unsupported_block_error(
            block, "Its `value` must be the provider's own block.", format_name
        )
    return dict(value)


def unsupported_block_error(block: Block, way_out: str, format_name: str) -> UsageError:
    """The error for a block that a format cannot carry; it names the block's keys, not its data."""
    keys = ", ".join(f"`{key}`" for key in sorted(block) if key != "type")
    msg = (
        f"A content block of type `{block.get('type')}` with {keys or 'no other key'} does not fit "
        f"into {format_name}. {way_out}"
    )
    return UsageError(msg)


def unsupported_message_error(message: BaseMessage) -> UsageError:
    """The error for a message of an unknown class."""
    msg = (
        f"A `{type(message).__name__}` cannot be sent. Expected system, human, AI, tool or chat "
        "messages."
    )
    return UsageError(msg)
