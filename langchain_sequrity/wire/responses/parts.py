"""Parts of a request's content, checked one by one: the local server's side.

Each becomes one of LangChain's standard blocks, which every brain knows.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import Where
from langchain_sequrity.wire.media import Media, read_media

Block = dict[str, Any]

_DETAILS = ("auto", "low", "high", "original")
_AUDIO_FORMATS = ("wav", "mp3")


def read_content(
    value: Mapping[str, Any], key: str, where: Where, allowed: Collection[str]
) -> str | list[str | dict[Any, Any]]:
    """Read content: text, or parts.

    Args:
        value: The item.
        key: Where its content is.
        where: The way to the item from the top of the body.
        allowed: Types of the parts that may stand there.

    Returns:
        The text, or standard blocks.

    Raises:
        InvalidRequest: If it is neither.
    """
    content = value.get(key)
    if isinstance(content, str):
        return content
    parts = a_list_of_parts(content, (*where, key))
    return [read_part(part, (*where, key, i), allowed) for i, part in enumerate(parts)]


def a_list_of_parts(content: Any, where: Where) -> list[Any]:
    """The content, which must be an array of at least one part."""
    if not isinstance(content, list):
        checks.wrong(where, "a string or an array of parts", content)
    if not content:
        checks.unknown(where, "at least one part", content)
    return content


def read_part(part: Any, where: Where, allowed: Collection[str]) -> Block:
    """Read a part as a standard block."""
    kind = checks.an_object(part, where).get("type")
    if kind not in allowed:
        kinds = ", ".join(f"`{one}`" for one in allowed)
        checks.unknown((*where, "type"), f"one of {kinds}", kind)
    return _READERS[kind](part, where)


def _text(part: Block, where: Where) -> Block:
    return {"type": "text", "text": checks.text(part, "text", where)}


def _image(part: Block, where: Where) -> Block:
    detail = checks.one_of(part, "detail", _DETAILS, where)
    if part.get("file_id") is not None:
        checks.text(part, "file_id", where)
        part = {key: value for key, value in part.items() if key != "image_url"}
    else:
        url = checks.text(part, "image_url", where)
        if not (checks.is_web_url(url) or checks.is_data_uri(url, "image/")):
            checks.impossible(
                f"The image at {checks.place(where)} is neither an http(s) URL nor a base64 data "
                "URI of an image type."
            )
    block = _standard(read_media(part))
    return {**block, "extras": {"detail": detail}} if detail is not None else block


def _audio(part: Block, where: Where) -> Block:
    audio = checks.an_object(part.get("input_audio"), (*where, "input_audio"))
    where = (*where, "input_audio")
    if audio.get("format") not in _AUDIO_FORMATS:
        checks.unknown((*where, "format"), "`wav` or `mp3`", audio.get("format"))
    if not checks.is_base64(checks.text(audio, "data", where)):
        checks.impossible(f"The audio at {checks.place(where)} is not base64.")
    return _standard(read_media(part))


def _file(part: Block, where: Where) -> Block:
    checks.optional(part, "filename", str, where)
    if part.get("file_id") is not None:
        checks.text(part, "file_id", where)
    elif part.get("file_url") is not None:
        if not checks.is_web_url(checks.text(part, "file_url", where)):
            checks.impossible(f"`file_url` at {checks.place(where)} is not an http(s) URL.")
    elif not checks.is_data_uri(checks.text(part, "file_data", where)):
        checks.impossible(f"`file_data` at {checks.place(where)} is not a base64 data URI.")
    return _standard(read_media(part))


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


_READERS: dict[Any, Callable[[Block, Where], Block]] = {
    "input_text": _text,
    "input_image": _image,
    "input_audio": _audio,
    "input_file": _file,
}
EVERY_PART = tuple(_READERS)
