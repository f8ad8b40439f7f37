"""Content blocks of a request: what they look like, and how they are read.

Blocks of users and tools become LangChain's standard blocks; what is said beside them (titles,
cache marks, citations) goes into their `extras`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, by, maybe, text_or

Block = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+\Z")
_OWN = frozenset({"type", "text", "source"})

_ELSEWHERE = {"url": {"url": checks.WEB_URL}, "file": {"file_id": str}}
_IMAGE = {
    "media_type": Literal["image/jpeg", "image/png", "image/gif", "image/webp"],
    "data": checks.BASE64,
}
_DOCUMENT = {
    "base64": {"media_type": Literal["application/pdf"], "data": checks.BASE64},
    "text": {"media_type": Literal["text/plain"], "data": str},
    "content": {},
    **_ELSEWHERE,
}
_TEXT = {"text": checks.should(str, str.strip, "be more than white space")}
_PARTS = {
    "text": _TEXT,
    "image": {"source": by("type", {"base64": _IMAGE, **_ELSEWHERE})},
    "document": {"source": by("type", _DOCUMENT)},
    "search_result": {},
}
_RESULT = {
    "tool_use_id": str,
    "is_error": maybe(bool),
    "content": maybe(text_or(array(by("type", _PARTS)), "blocks")),
}
_THINKING = {
    "thinking": str,
    "signature": checks.should(str, bool, "be the signature that came with it"),
}
_SAID = {
    "text": _TEXT,
    "thinking": by(
        "type",
        {"thinking": _THINKING, "as documented": {"text": str}},
        kind_of=lambda block: "as documented" if _is_as_documented(block) else "thinking",
    ),
    "redacted_thinking": {"data": str},
    "tool_use": {
        "id": checks.should(str, _ID.match, "be letters, digits, `_` or `-`"),
        "name": checks.TOOL_NAME,
        "input": checks.OBJECT,
    },
    "*_tool_use": {},
    "*_tool_result": {},
}

SYSTEM = text_or(array(by("type", {"text": _TEXT})), "text blocks")
USER = text_or(array(by("type", {**_PARTS, "tool_result": _RESULT}), least=1), "blocks")
ASSISTANT = text_or(array(by("type", _SAID), least=1), "blocks")


def _is_as_documented(block: Block) -> bool:
    return "thinking" not in block and "text" in block


def read_part(block: Block) -> Block:
    """Read a block of a system prompt, of a user or of a tool's result as a standard block."""
    read = _READERS[block["type"]](block)
    extras = {key: value for key, value in block.items() if key not in _OWN and value is not None}
    return {**read, "extras": extras} if extras and read["type"] != "non_standard" else read


def _text(block: Block) -> Block:
    return {"type": "text", "text": block["text"]}


def _as_it_is(block: Block) -> Block:
    return {"type": "non_standard", "value": block}


def _media(block: Block) -> Block:
    source = block["source"]
    standard = "image" if block["type"] == "image" else "file"
    match source["type"]:
        case "url" | "file":
            key = "url" if source["type"] == "url" else "file_id"
            return {"type": standard, key: source[key]}
        case "content":
            return _as_it_is(block)
        case "text":
            return {"type": "text-plain", "text": source["data"], "mime_type": "text/plain"}
    return {"type": standard, "base64": source["data"], "mime_type": source["media_type"]}


_READERS: Mapping[str, Callable[[Block], Block]] = {
    "text": _text,
    "image": _media,
    "document": _media,
    "search_result": _as_it_is,
}
