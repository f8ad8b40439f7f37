"""LangChain content blocks, in whatever dialect, to the content blocks of Messages.

Blocks that are Anthropic's own already stay as they are, but for the `index` that streams add.

Citations: LangChain's standard form back to the kinds of this format.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire import media
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.media import read_media
from langchain_sequrity.wire.messages.params import legal_id
from langchain_sequrity.wire.tool_results import write_tool_result

# What tells the kinds apart, in the order in which they are told.
_MARKS = (
    ("search_result_index", "search_result_location"),
    ("start_char_index", "char_location"),
    ("start_page_number", "page_location"),
    ("start_block_index", "content_block_location"),
)


def write_citation(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write an annotation of a standard text block.

    Args:
        annotation: A `citation`, or a `non_standard_annotation`.

    Returns:
        The citation, or `None` if it came from another provider and has no place here.
    """
    if annotation.get("type") == "non_standard_annotation":
        value = annotation.get("value")
        known = isinstance(value, Mapping) and str(value.get("type")).endswith("_location")
        return dict(value) if known and isinstance(value, Mapping) else None
    extras = annotation.get("extras") or {}
    cited, title = annotation.get("cited_text"), annotation.get("title")
    if cited is None:
        return None
    if "url" in annotation:
        kind = "web_search_result_location"
        return {
            "type": kind,
            "cited_text": cited,
            "url": annotation["url"],
            "title": title,
            **extras,
        }
    for mark, kind in _MARKS:
        if mark in extras:
            named = "title" if kind == "search_result_location" else "document_title"
            return {"type": kind, "cited_text": cited, named: title, **extras}
    return None


Block = dict[str, Any]

_FORMAT = "the Messages format"
# What is said of text, images and documents beside themselves.
_KEPT = ("cache_control", "citations", "title", "context")
_TEXT_TYPES = "text/"


def write_blocks(content: str | Iterable[Any]) -> list[Block]:
    """Write content as blocks.

    Args:
        content: Content of a LangChain message.

    Returns:
        The blocks. Those that say nothing here are left out: empty text, which the format
        refuses, and the pieces of other providers' protocols.

    Raises:
        UsageError: For a block that the format cannot carry.
    """
    items = [content] if isinstance(content, str) else content
    return [block for item in items if (block := write_block(item)) is not None]


def write_block(block: Any) -> Block | None:
    """Write one block, or `None` where it says nothing in this format."""
    if isinstance(block, str):
        return {"type": "text", "text": block} if block.strip() else None
    kind = block.get("type")
    if kind is None and "text" in block:
        kind = "text"
    write = _WRITERS.get(kind) if isinstance(kind, str) else None
    if write is not None:
        return write(block)
    # Kinds that are not known here go out as they are: the service may know more than this table.
    return None if _is_of_responses(kind) else as_is(block)


def as_is(block: Mapping[str, Any]) -> Block:
    """A block of this very format; `index` is LangChain's, for pieces of streams."""
    return {key: value for key, value in block.items() if key != "index"}


def _is_of_responses(kind: Any) -> bool:
    """Whether a block is a call that OpenAI's service ran itself."""
    return isinstance(kind, str) and kind.endswith(("_call", "_call_output"))


def _text(block: Mapping[str, Any]) -> Block | None:
    text = block.get("text")
    if not isinstance(text, str):
        raise _unfit(block, "Give the text itself as `text`.")
    if not text.strip():
        return None
    written = {"type": "text", "text": text, **_said_beside(block)}
    if isinstance(citations := written.get("citations"), list):
        written["citations"] = [_without_no_file(one) for one in citations]
    annotations = block.get("annotations")
    if annotations and "citations" not in written:
        found = [citation for one in annotations if (citation := write_citation(one)) is not None]
        if found:
            written["citations"] = [_without_no_file(one) for one in found]
    return written


def _said_beside(block: Mapping[str, Any]) -> Block:
    extras = block.get("extras")
    found = {key: extras[key] for key in _KEPT if key in extras} if extras else {}
    # An empty list is what a service sends for "no citations", and does not take back.
    return found | {key: block[key] for key in _KEPT if block.get(key)}


def _without_no_file(citation: Any) -> Any:
    """Replies name no file as null, which requests do not take."""
    if isinstance(citation, Mapping) and citation.get("file_id", "") is None:
        return {key: value for key, value in citation.items() if key != "file_id"}
    return citation


def _media(block: Mapping[str, Any]) -> Block:
    if isinstance(block.get("source"), Mapping):  # Anthropic's own
        return as_is(block)
    found = read_media(block)
    beside = {key: found.extras[key] for key in _KEPT if key in found.extras}
    if found.kind == "image":
        return {"type": "image", "source": _image_source(block, found), **beside}
    if found.name and "title" not in beside:
        beside["title"] = found.name
    return {"type": "document", "source": _document_source(block, found), **beside}


def _image_source(block: Mapping[str, Any], found: media.Media) -> Block:
    if found.data is not None:
        if not found.mime_type:
            raise _unfit(block, "Add `mime_type`, such as `image/png`.")
        return {"type": "base64", "media_type": found.mime_type, "data": found.data}
    return _elsewhere(block, found, "Give the image as `url` or as `base64` with `mime_type`.")


def _document_source(block: Mapping[str, Any], found: media.Media) -> Block:
    if found.data is None:
        return _elsewhere(block, found, "Give the file as `base64` with `mime_type`, or as `url`.")
    if not found.mime_type:
        raise _unfit(block, "Add `mime_type`, such as `application/pdf`.")
    if not found.mime_type.startswith(_TEXT_TYPES):
        return {"type": "base64", "media_type": found.mime_type, "data": found.data}
    try:
        text = base64.b64decode(found.data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise _unfit(block, "A text file is UTF-8 in `base64`.") from None
    return _text_source(text)


def _text_source(text: str) -> Block:
    return {"type": "text", "media_type": "text/plain", "data": text}


def _elsewhere(block: Mapping[str, Any], found: media.Media, way_out: str) -> Block:
    if found.url is not None:
        return {"type": "url", "url": found.url}
    if found.file_id is not None:
        return {"type": "file", "file_id": found.file_id}
    raise _unfit(block, way_out)


def _plain_text(block: Mapping[str, Any]) -> Block:
    if "text" not in block:
        raise _unfit(block, "Give the text itself as `text`.")
    source = _text_source(block["text"])
    return {"type": "document", "source": source, **_said_beside(block)}


def _no_place(block: Mapping[str, Any]) -> Block:
    raise _unfit(block, "Messages takes text, images and documents only.")


def write_result(block: Mapping[str, Any], artifact: Any = None) -> Block:
    """Write a whole tool result, as Anthropic's users write them; labels come from the artifact."""
    written = {**as_is(block), "tool_use_id": legal_id(block.get("tool_use_id"))}
    content = block.get("content")
    if isinstance(content, Mapping):
        content = [content]
    if content is not None:
        content = content if isinstance(content, str) else write_blocks(content)
        written["content"] = write_tool_result(content, artifact)
    return written


def _thinking(block: Mapping[str, Any]) -> Block | None:
    """Thinking can go back only as it came: signed, or in the service's own documented form."""
    if block.get("signature"):  # the text may have been left out, and then its key is missing
        return {"type": "thinking", "thinking": "", **as_is(block)}
    return {"type": "thinking", "text": block["text"]} if "text" in block else None


def _reasoning(block: Mapping[str, Any]) -> Block | None:
    """LangChain's standard block; what other providers made of it is not signed and stays away."""
    extras = block.get("extras")
    if not extras:
        return None
    return _thinking({"type": "thinking", "thinking": block.get("reasoning", ""), **extras})


def _refusal(block: Mapping[str, Any]) -> Block | None:
    return write_block(block["refusal"])


def _server_tool_call(block: Mapping[str, Any]) -> Block:
    extras = dict(block.get("extras") or {})
    name = {"code_interpreter": "code_execution"}.get(block["name"], block["name"])
    kind = "server_tool_use"
    if name == "remote_mcp":
        kind, name = "mcp_tool_use", extras.pop("tool_name", "")
    return {"type": kind, "id": block["id"], "name": name, "input": block["args"], **extras}


def _server_tool_result(block: Mapping[str, Any]) -> Block | None:
    extras = dict(block.get("extras") or {})
    kind = extras.pop("block_type", None)
    if kind is None:  # of another provider
        return None
    content = block.get("output", [])
    written = {"type": kind, "tool_use_id": block["tool_call_id"], "content": content, **extras}
    if kind == "mcp_tool_result":
        written["is_error"] = block.get("status") == "error"
    return written


def _server_tool_use(block: Mapping[str, Any]) -> Block:
    """A call that the service ran; its input came in pieces if it was streamed."""
    written = as_is(block)
    pieces = written.pop("partial_json", None)
    if pieces is not None and not written.get("input"):
        written["input"] = read_arguments(pieces)[0] or {}
    return written


def _non_standard(block: Mapping[str, Any]) -> Block | None:
    return write_block(media.non_standard(block, _FORMAT))


def _left_out(_block: Mapping[str, Any]) -> None:
    return None


def _unfit(block: Mapping[str, Any], way_out: str) -> UsageError:
    return media.unfit(block, _FORMAT, way_out)


_WRITERS: dict[str | None, Callable[[Mapping[str, Any]], Block | None]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "text-plain": _plain_text,
    "image": _media,
    "image_url": _media,
    "input_image": _media,
    "file": _media,
    "input_file": _media,
    "document": _media,
    "audio": _no_place,
    "input_audio": _no_place,
    "video": _no_place,
    "tool_result": write_result,
    "thinking": _thinking,
    "reasoning": _reasoning,
    "refusal": _refusal,
    "server_tool_use": _server_tool_use,
    "mcp_tool_use": _server_tool_use,
    "server_tool_call": _server_tool_call,
    "server_tool_result": _server_tool_result,
    "non_standard": _non_standard,
    # Tool calls have a place of their own (`to_server`); pieces of streams have been put together.
    "input_json_delta": _left_out,
    "reasoning_content": _left_out,
    "server_tool_call_chunk": _left_out,
}
