"""Content blocks of a request, checked one by one: the local server's side.

Blocks of users and tools become LangChain's standard blocks; what is said beside them (titles,
cache marks, citations) goes into their `extras`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import Where

Block = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+\Z")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_OWN = frozenset({"type", "text", "source"})


def read_part(block: Any, where: Where) -> Block:
    """Read a block of a user or of a tool's result as a standard block.

    Raises:
        InvalidRequest: If it is none that may stand here.
    """
    checks.an_object(block, where)
    kind = block.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        kinds = ", ".join(f"`{kind}`" for kind in _READERS)
        checks.unknown((*where, "type"), f"one of {kinds}", kind)
    return read(block, where)


def read_text(block: Any, where: Where) -> Block:
    """Read a block of text, the only kind that may stand in a system prompt."""
    checks.an_object(block, where)
    if block.get("type") != "text":
        checks.unknown((*where, "type"), "`text`", block.get("type"))
    return _text(block, where)


def check_assistant_block(block: Any, where: Where) -> None:
    """Check a block of an assistant's turn; it stays as it is.

    Raises:
        InvalidRequest: If it is none that may stand here.
    """
    checks.an_object(block, where)
    kind = block.get("type")
    if not isinstance(kind, str):
        checks.wrong((*where, "type"), "a string", kind)
    check = _CHECKS.get(kind)
    if check is not None:
        check(block, where)
    elif not kind.endswith(("_tool_use", "_tool_result")):
        kinds = ", ".join(f"`{one}`" for one in _CHECKS)
        checks.unknown((*where, "type"), f"one of {kinds}, or of a server's tool", kind)


# Of users and tools


def _with_extras(read: Block, block: Mapping[str, Any]) -> Block:
    extras = {key: value for key, value in block.items() if key not in _OWN and value is not None}
    return {**read, "extras": extras} if extras else read


def _text(block: Block, where: Where) -> Block:
    said = checks.text(block, "text", where)
    if not said.strip():
        checks.unknown((*where, "text"), "more than white space", said)
    return _with_extras({"type": "text", "text": said}, block)


def _image(block: Block, where: Where) -> Block:
    source, kind = _source(block, where, ("base64", "url", "file"))
    where = (*where, "source")
    if kind != "base64":
        return _with_extras({"type": "image", **_elsewhere(source, kind, where)}, block)
    media_type = checks.text(source, "media_type", where)
    if media_type not in _IMAGES:
        checks.unknown(
            (*where, "media_type"), " or ".join(f"`{one}`" for one in _IMAGES), media_type
        )
    image = {"type": "image", "base64": _base64(source, where), "mime_type": media_type}
    return _with_extras(image, block)


def _document(block: Block, where: Where) -> Block:
    source, kind = _source(block, where, ("base64", "url", "file", "text", "content"))
    where = (*where, "source")
    if kind in ("url", "file"):
        return _with_extras({"type": "file", **_elsewhere(source, kind, where)}, block)
    if kind == "content":
        return {"type": "non_standard", "value": block}
    media_type = checks.text(source, "media_type", where)
    expected = "text/plain" if kind == "text" else "application/pdf"
    if media_type != expected:
        checks.unknown((*where, "media_type"), f"`{expected}`", media_type)
    if kind == "text":
        text = checks.text(source, "data", where)
        return _with_extras({"type": "text-plain", "text": text, "mime_type": media_type}, block)
    file = {"type": "file", "base64": _base64(source, where), "mime_type": media_type}
    return _with_extras(file, block)


def _source(block: Block, where: Where, kinds: tuple[str, ...]) -> tuple[Block, str]:
    source = checks.an_object(block.get("source"), (*where, "source"))
    kind = source.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        expected = " or ".join(f"`{one}`" for one in kinds)
        checks.unknown((*where, "source", "type"), expected, kind)
    return source, kind


def _elsewhere(source: Block, kind: str, where: Where) -> Block:
    if kind == "file":
        return {"file_id": checks.text(source, "file_id", where)}
    url = checks.text(source, "url", where)
    if not checks.is_web_url(url):
        checks.impossible(f"`url` at {checks.place(where)} is no http(s) URL.")
    return {"url": url}


def _base64(source: Block, where: Where) -> str:
    data = checks.text(source, "data", where)
    if not checks.is_base64(data):
        checks.impossible(f"`data` at {checks.place(where)} is not base64.")
    return data


def _search_result(block: Block, _where: Where) -> Block:
    return {"type": "non_standard", "value": block}


_READERS: Mapping[Any, Callable[[Block, Where], Block]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}


# Of the assistant


def _check_text(block: Block, where: Where) -> None:
    _text(block, where)


def _check_thinking(block: Block, where: Where) -> None:
    if "thinking" not in block and "text" in block:  # the form that the service documents
        checks.text(block, "text", where)
        return
    checks.text(block, "thinking", where)
    if not checks.text(block, "signature", where):
        checks.unknown((*where, "signature"), "the signature that came with it", "")


def _check_redacted(block: Block, where: Where) -> None:
    checks.text(block, "data", where)


def _check_tool_use(block: Block, where: Where) -> None:
    call_id = checks.text(block, "id", where)
    if not _ID.match(call_id):
        checks.unknown((*where, "id"), "letters, digits, `_` or `-`", call_id)
    checks.tool_name(block, where)
    checks.an_object(block.get("input"), (*where, "input"))


_CHECKS: Mapping[str, Callable[[Block, Where], None]] = {
    "text": _check_text,
    "thinking": _check_thinking,
    "redacted_thinking": _check_redacted,
    "tool_use": _check_tool_use,
}
