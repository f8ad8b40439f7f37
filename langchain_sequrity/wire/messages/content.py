"""LangChain's content blocks, in any dialect, to the content blocks of Messages.

Anthropic's own blocks stay unchanged, except for the `index` that streams add. Citations in
LangChain's standard form become this format's kinds again.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from langchain_sequrity.strict_json import read_arguments
from langchain_sequrity.wire import media
from langchain_sequrity.wire.media import read_media, without_index
from langchain_sequrity.wire.tool_results import write_tool_result

Block = dict[str, Any]

MODEL_PROVIDER = "anthropic"
INVALID = "INVALID_JSON"
"""Key that wraps invalid arguments: the format requires an object."""

LEGAL_ID = re.compile(r"[a-zA-Z0-9_-]+\Z")


def legal_id(call_id: str | None) -> str:
    """Return an id of any provider if it is legal here; otherwise a legal id that is made of it.

    Equal ids give equal results, so calls and results still match.
    """
    if call_id and LEGAL_ID.match(call_id):
        return call_id
    text = (call_id or "").encode("utf-8", "surrogatepass")
    return f"call_{hashlib.blake2s(text, digest_size=12).hexdigest()}"


_FORMAT = "the Messages format"
# Additional fields of text, images and documents.
_ADDITIONAL = ("cache_control", "citations", "title", "context")
_TEXT_TYPES = "text/"


def write_blocks(content: str | Iterable[Any]) -> list[Block]:
    """Write content as blocks.

    Args:
        content: Content of a LangChain message.

    Returns:
        The blocks, without empty text, which the format refuses, and without pieces of other
        providers' protocols.

    Raises:
        UsageError: For a block that the format cannot carry.
    """
    items = [content] if isinstance(content, str) else content
    return [block for item in items if (block := write_block(item)) is not None]


def write_block(block: Any) -> Block | None:
    """Write one block; `None` if it has no meaning in this format."""
    if isinstance(block, str):
        return {"type": "text", "text": block} if block.strip() else None
    block_type = media.neutral_type(block)
    if block_type in _LEFT_OUT:
        return None
    write = _WRITERS.get(block_type) if isinstance(block_type, str) else None
    if write is not None:
        return write(block)
    # OpenAI's service ran these calls itself. Unknown types are sent unchanged: the service may
    # know more than this table.
    is_of_responses = isinstance(block_type, str) and block_type.endswith(("_call", "_call_output"))
    return None if is_of_responses else without_index(block)


def _text(block: Mapping[str, Any]) -> Block | None:
    text = media.text_of(block, _FORMAT)
    if not text.strip():
        return None
    written = {"type": "text", "text": text, **_additions(block)}
    citations = written.get("citations")
    if "citations" not in written and (annotations := block.get("annotations")):
        citations = [citation for citation in map(_citation, annotations) if citation is not None]
    if citations and isinstance(citations, list):
        written["citations"] = [_without_null_file(citation) for citation in citations]
    return written


# Fields that distinguish the kinds of citations, in this order.
_MARKS = (
    ("search_result_index", "search_result_location"),
    ("start_char_index", "char_location"),
    ("start_page_number", "page_location"),
    ("start_block_index", "content_block_location"),
)


def _citation(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write an annotation of a standard text block; `None` if it is from another provider."""
    if annotation.get("type") == "non_standard_annotation":
        value = annotation.get("value")
        is_location = isinstance(value, Mapping) and str(value.get("type")).endswith("_location")
        return dict(value) if is_location and isinstance(value, Mapping) else None
    extras = annotation.get("extras") or {}
    cited, title = annotation.get("cited_text"), annotation.get("title")
    if cited is None:
        return None
    if "url" in annotation:
        fields = {"cited_text": cited, "url": annotation["url"], "title": title}
        return {"type": "web_search_result_location", **fields, **extras}
    for mark, citation_type in _MARKS:
        if mark in extras:
            title_key = "title" if citation_type == "search_result_location" else "document_title"
            return {"type": citation_type, "cited_text": cited, title_key: title, **extras}
    return None


def _additions(block: Mapping[str, Any]) -> Block:
    extras = block.get("extras")
    additions = {key: extras[key] for key in _ADDITIONAL if key in extras} if extras else {}
    # Services send an empty list for "no citations", and refuse it in requests.
    return additions | {key: block[key] for key in _ADDITIONAL if block.get(key)}


def _without_null_file(citation: Any) -> Any:
    """A citation without a null `file_id`, which replies have and requests refuse."""
    if isinstance(citation, Mapping) and citation.get("file_id", "") is None:
        return {key: value for key, value in citation.items() if key != "file_id"}
    return citation


def _media(block: Mapping[str, Any]) -> Block:
    if isinstance(block.get("source"), Mapping):  # Anthropic's own
        return without_index(block)
    content = read_media(block)
    additions = {key: content.extras[key] for key in _ADDITIONAL if key in content.extras}
    block_type = "image" if content.type == "image" else "document"
    if block_type == "document" and content.name and "title" not in additions:
        additions["title"] = content.name
    return {"type": block_type, "source": _source(block, content), **additions}


def _source(block: Mapping[str, Any], content: media.Media) -> Block:
    if content.data is None:
        if content.url is not None:
            return {"type": "url", "url": content.url}
        if content.file_id is not None:
            return {"type": "file", "file_id": content.file_id}
        raise _unfit(block, "Give it as `url` or as `base64` with `mime_type`.")
    if not content.mime_type:
        raise _unfit(block, "Add `mime_type`, such as `image/png` or `application/pdf`.")
    if not content.mime_type.startswith(_TEXT_TYPES):
        return {"type": "base64", "media_type": content.mime_type, "data": content.data}
    try:
        return _text_source(base64.b64decode(content.data, validate=True).decode())
    except ValueError:
        raise _unfit(block, "A text file is UTF-8 in `base64`.") from None


def _text_source(text: str) -> Block:
    return {"type": "text", "media_type": "text/plain", "data": text}


def _plain_text(block: Mapping[str, Any]) -> Block:
    source = _text_source(media.text_of(block, _FORMAT))
    return {"type": "document", "source": source, **_additions(block)}


def _unsupported(block: Mapping[str, Any]) -> Block:
    raise _unfit(block, "Messages takes text, images and documents only.")


def write_result(block: Mapping[str, Any], artifact: Any = None) -> Block:
    """Write a whole tool result in Anthropic's form; labels come from the artifact."""
    written = {**without_index(block), "tool_use_id": legal_id(block.get("tool_use_id"))}
    content = block.get("content")
    if isinstance(content, Mapping):
        content = [content]
    if content is not None:
        content = content if isinstance(content, str) else write_blocks(content)
        written["content"] = write_tool_result(content, artifact)
    return written


def _thinking(block: Mapping[str, Any]) -> Block | None:
    """Thinking that is signed or in the service's documented form; nothing else can go back."""
    if block.get("signature"):  # the text may be missing
        return {"type": "thinking", "thinking": "", **without_index(block)}
    return {"type": "thinking", "text": block["text"]} if "text" in block else None


def _reasoning(block: Mapping[str, Any]) -> Block | None:
    """LangChain's standard block; reasoning of other providers is not signed and not sent."""
    extras = block.get("extras")
    if not extras:
        return None
    return _thinking({"type": "thinking", "thinking": block.get("reasoning", ""), **extras})


def _refusal(block: Mapping[str, Any]) -> Block | None:
    return write_block(block["refusal"])


def _server_tool_call(block: Mapping[str, Any]) -> Block:
    extras = dict(block.get("extras") or {})
    name = {"code_interpreter": "code_execution"}.get(block["name"], block["name"])
    block_type = "server_tool_use"
    if name == "remote_mcp":
        block_type, name = "mcp_tool_use", extras.pop("tool_name", "")
    return {"type": block_type, "id": block["id"], "name": name, "input": block["args"], **extras}


def _server_tool_result(block: Mapping[str, Any]) -> Block | None:
    extras = dict(block.get("extras") or {})
    type_ = extras.pop("block_type", None)
    if type_ is None:  # from another provider
        return None
    content = block.get("output", [])
    written = {"type": type_, "tool_use_id": block["tool_call_id"], "content": content, **extras}
    if type_ == "mcp_tool_result":
        written["is_error"] = block.get("status") == "error"
    return written


def _server_tool_use(block: Mapping[str, Any]) -> Block:
    """A call that the service ran; a stream sends its input in fragments."""
    written = without_index(block)
    text = written.pop("partial_json", None)
    if text is not None and not written.get("input"):
        written["input"] = read_arguments(text)[0] or {}
    return written


def _non_standard(block: Mapping[str, Any]) -> Block | None:
    return write_block(media.non_standard(block, _FORMAT))


_unfit = partial(media.unsupported_block_error, format_name=_FORMAT)

# `client` writes tool calls; fragments of streams have been joined.
_LEFT_OUT = ("input_json_delta", "reasoning_content", "server_tool_call_chunk")
_WRITERS: dict[str | None, Callable[[Mapping[str, Any]], Block | None]] = {
    "text": _text,
    "text-plain": _plain_text,
    "image": _media,
    "file": _media,
    "audio": _unsupported,
    "video": _unsupported,
    "tool_result": write_result,
    "thinking": _thinking,
    "reasoning": _reasoning,
    "refusal": _refusal,
    "server_tool_use": _server_tool_use,
    "mcp_tool_use": _server_tool_use,
    "server_tool_call": _server_tool_call,
    "server_tool_result": _server_tool_result,
    "non_standard": _non_standard,
}
