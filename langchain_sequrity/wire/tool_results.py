"""The text of a tool result, with labels, and safe from forged ones.

The service takes a JSON object with `is_sequrity_var: true` for a result that brings its own
labels (`docs/protocol.md`, Tool results with metadata). A mail or a web page can be such an
object. So only an artifact that the tool's own code made (`labeled_tool_result`) may set labels;
text that merely looks like a wrapper goes out as the `value` of a wrapper of ours that adds
nothing (`docs/security.md`, rule 1).
"""

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import LABELS_KEY, Combine, Labels, read_artifact
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.json_text import dumps

_MARK = "is_sequrity_var"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NO_LABELS = Labels().to_wire()
_PAIR = 2  # content and artifact
_STRUCTURED = "structured_content"
"""Where the artifacts of `langchain-mcp-adapters` have what an MCP tool returned to programs."""


def as_values(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Give results the form that programs work with, as an interpreter reads them.

    An MCP tool may return a value (`structuredContent`) beside texts for models, and several texts
    for a list. The value comes first, unless the text beside it has been edited since, as what
    redacts results does: an artifact is left alone by it, and would bring back what was taken out.

    Args:
        messages: The conversation; it is not changed.

    Returns:
        The same with results as JSON where they are values or several texts.
    """
    return [_as_value(one) if isinstance(one, ToolMessage) else one for one in messages]


def has_failed(message: BaseMessage) -> bool:
    """Whether a message says that a tool failed."""
    return isinstance(message, ToolMessage) and message.status == "error"


def _as_value(message: ToolMessage) -> ToolMessage:
    content, artifact = message.content, message.artifact
    found = artifact.get(_STRUCTURED) if isinstance(artifact, dict) else None
    if isinstance(content, str) and not isinstance(found, dict):
        return message
    blocks = [content] if isinstance(content, str) else content
    texts = [text for block in blocks if (text := _text_of(block)) is not None]
    rest = [block for block in blocks if _text_of(block) is None]
    try:
        text = _joined_value(message, found, texts, is_all=not rest)
    except (ValueError, TypeError, RecursionError):  # a value that JSON does not have
        text = None
    if text is None:
        return message
    value = [{"type": "text", "text": text}, *rest] if rest else text
    return message.model_copy(update={"content": value})


def _joined_value(
    message: ToolMessage, found: Any, texts: list[str], *, is_all: bool
) -> str | None:
    """The result as one text; nothing where it is one already."""
    if has_failed(message):
        return "\n".join(texts) if is_all and len(texts) > 1 else None
    if isinstance(found, dict):
        return dumps(_unless_edited(found, texts))
    if not is_all:
        return None
    if isinstance(message.content, list) and all(isinstance(one, str) for one in message.content):
        return dumps(message.content)  # a list of texts, as LangChain has it; or an empty one
    return dumps([_value(text) for text in texts]) if len(texts) > 1 else None


def _text_of(block: Any) -> str | None:
    if isinstance(block, str):
        return block
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    return text if isinstance(text, str) else None


def _unless_edited(found: dict[str, Any], texts: list[str]) -> Any:
    """The value of a tool, or what its texts say where they are that value, edited.

    What is no object, FastMCP has as `{"result": value}`, and its texts say the value alone: one
    text, or one for each element. A text that says all that is in the value hides nothing of it,
    and words about a larger value are no edit of it.
    """
    value = found["result"] if found.keys() == {"result"} else found
    if isinstance(value, list) and len(texts) == len(value):
        said: Any = [_read_like(one, text) for one, text in zip(value, texts, strict=True)]
    else:
        said = _read_like(value, "\n".join(texts))
    whole = "\n".join(texts)
    if not texts or said == value or all(_is_said(one, whole) for one in _scalars(value)):
        return found
    is_words = isinstance(said, str) and whole.strip() and whole.lstrip()[:1] not in "{["
    if is_words and isinstance(value, dict | list):
        return found
    return said if value is found else {"result": said}


def _read_like(value: Any, text: str) -> Any:
    return text if isinstance(value, str) else _value(text)


def _is_said(scalar: Any, text: str) -> bool:
    if isinstance(scalar, str):
        return scalar in text or dumps(scalar)[1:-1] in text
    return dumps(scalar) in text or str(scalar) in text


def _scalars(value: Any) -> list[Any]:
    found, inside = [], [value]
    while inside:
        one = inside.pop()
        if isinstance(one, dict | list):
            inside.extend(one.values() if isinstance(one, dict) else one)
        else:
            found.append(one)
    return found


def write_tool_result(content: str | list[Any], artifact: Any) -> str | list[Any]:
    """Write the content of a tool message.

    Args:
        content: Text or content parts.
        artifact: The message's artifact; labels are taken from there only.

    Returns:
        The content, wrapped where it brings labels or looks as if it did.

    Raises:
        UsageError: If the artifact's labels are not the work of `labeled_tool_result`, or if labels
            stand in the content.
    """
    if artifact is not None and (found := read_artifact(artifact)):
        labels, combine = found
        return _wrap(content, labels.to_wire(), combine)
    text = content if isinstance(content, str) else _joined(content)
    refuse_lost_labels(text)
    return _wrap(content, _NO_LABELS, "ignore") if _looks_wrapped(text) else content


def refuse_lost_labels(text: str) -> None:
    """Refuse a result whose text is what `labeled_tool_result` returns, its labels among it.

    LangChain makes one text of the pair where the tool is not declared to return one. Nothing
    tells that text from one that was forged of an old seal, so it cannot set the labels either.

    Args:
        text: The text of a tool message.

    Raises:
        UsageError: If it is such a pair.
    """
    if LABELS_KEY not in text:
        return
    try:
        pair = loads(text)
        is_pair = isinstance(pair, list) and len(pair) == _PAIR and read_artifact(pair[1])
    except (ValueError, UsageError):
        return
    if is_pair:
        msg = (
            "A tool's result holds its labels as text, where they count for nothing: the tool "
            "returns `labeled_tool_result(…)` but is not declared to. Declare it with "
            '`@tool(response_format="content_and_artifact")`.'
        )
        raise UsageError(msg)


def write_labeled(value: str, labels: Labels, combine: Combine) -> str:
    """Write the content of a result whose labels are the caller's own, not those of an artifact.

    Args:
        value: The value as JSON text.
        labels: Its labels.
        combine: How they combine with those of the arguments.
    """
    # The value is not parsed again: it may be long, and it was written here.
    meta = dumps(labels.to_wire())
    return f'{{"value":{value},"meta":{meta},"{_MARK}":true,"combine_meta":"{combine}"}}'


def whole_results(content: str | list[Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Find whole tool results in a message's content, as Anthropic's users write them.

    Args:
        content: Content of any message.

    Returns:
        The results (`tool_result` blocks), and the other blocks; nothing of a text.
    """
    if isinstance(content, str):
        return [], []
    blocks = [_unwrapped(block) for block in content]
    results = [block for block in blocks if _is_result(block)]
    return results, [block for block in blocks if not _is_result(block)]


def _unwrapped(block: Any) -> Any:
    is_wrapped = isinstance(block, dict) and block.get("type") == "non_standard"
    return block["value"] if is_wrapped and _is_result(block.get("value")) else block


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


def _joined(parts: list[Any]) -> str:
    return "".join(part.get("text", "") for part in parts if part.get("type") == "text")


def _looks_wrapped(text: str) -> bool:
    # JSON may spell any letter of the key as \uXXXX.
    if "\\u" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return _MARK in text


def _wrap(content: str | list[Any], labels: dict[str, list[str]], combine: str) -> str:
    wrapper = {
        "value": _value(content),
        "meta": labels,
        "is_sequrity_var": True,
        "combine_meta": combine,
    }
    return dumps(wrapper)


def _value(content: str | list[Any]) -> Any:
    """The value itself: JSON text stands for what it says, as in a result without labels (P7)."""
    if not isinstance(content, str):
        if any(part.get("type") != "text" for part in content):
            return content
        content = _joined(content)
    try:
        return loads(content)
    except ValueError:
        return content
