"""Parts of a request's content: what they look like, and how they are read.

Each becomes one of LangChain's standard blocks, which every brain knows.
"""

from typing import Any, Literal

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import Form, array, by, maybe, text_or
from langchain_sequrity.wire.media import Media, read_media

Block = dict[str, Any]

_DETAIL = {"detail": maybe(Literal["auto", "low", "high", "original"])}
_TEXT = {"input_text": {"text": str}}
_PARTS = {
    **_TEXT,
    "input_image": by(
        "image_url",
        {
            "by id": {**_DETAIL, "file_id": str},
            "by URL": {**_DETAIL, "image_url": checks.IMAGE_URL},
        },
        kind_of=lambda part: "by URL" if part.get("file_id") is None else "by id",
    ),
    "input_audio": {"input_audio": checks.AUDIO},
    "input_file": checks.with_one_of(
        {
            "filename": maybe(str),
            "file_id": maybe(str),
            "file_url": maybe(checks.WEB_URL),
            "file_data": maybe(checks.DATA_URI),
        },
        "file_id",
        "file_url",
        "file_data",
    ),
}


def content_of(parts: dict[str, Any]) -> Form:
    """Content: text, or these parts, by type."""
    return text_or(array(by("type", parts), least=1), "parts")


TEXTS = content_of(_TEXT)
PARTS = content_of(_PARTS)


def read_content(content: Any) -> Any:
    """Read content: text as it is, parts as standard blocks."""
    return content if isinstance(content, str) else [_read_part(part) for part in content]


def _read_part(part: Block) -> Block:
    if part["type"] == "input_text":
        return {"type": "text", "text": part["text"]}
    if part.get("file_id") is not None:  # images may have both
        part = {key: value for key, value in part.items() if key != "image_url"}
    block = _standard(read_media(part))
    detail = part.get("detail") if part["type"] == "input_image" else None
    return block if detail is None else {**block, "extras": {"detail": detail}}


def _standard(media: Media) -> Block:
    block: Block = {"type": media.kind}
    if media.file_id is not None:
        block["file_id"] = media.file_id
    elif media.data is not None:
        block |= {"base64": media.data, "mime_type": media.mime_type}
    else:
        block["url"] = media.url
    if media.name is not None:
        block["filename"] = media.name
    return block
