"""Tool results, with their labels, as text on the wire.

The service takes a JSON object with `is_sequrity_var: true` as a result with its own
labels (`docs/protocol.md`, Tool results with metadata). A mail or a web page can be such an object.
So only an artifact that the tool's own code made (`labeled_tool_result`) may set labels. Text that
only looks like such an object is wrapped as the `value` of another one, without labels
(`docs/security.md`, rule 1).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    ToolMessage,
)

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import (
    FIELDS_KEY,
    LABELS_KEY,
    Combine,
    FieldLabels,
    Labels,
    read_artifact,
    write_fields,
)
from langchain_sequrity.strict_json import dumps, loads

MARK = "is_sequrity_var"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NO_LABELS = Labels()
_PAIR = 2  # content and artifact
_STRUCTURED = "structured_content"
"""Key of artifacts of `langchain-mcp-adapters` for the structured result of an MCP tool."""


def results_as_values(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write tool results as JSON values, for programs that an interpreter runs.

    An MCP tool may return a value (`structuredContent`) next to texts for models, and a list as
    several texts. The value is used unless its text has been edited since: redaction edits the
    text and not the artifact, which would bring back the redacted data.

    Args:
        messages: The conversation; it is not changed.

    Returns:
        The conversation, with structured results and results of several texts as JSON.
    """
    return [_as_value(m) if isinstance(m, ToolMessage) else m for m in messages]


def has_failed(message: BaseMessage) -> TypeGuard[ToolMessage]:
    """Whether a message reports that a tool failed."""
    return isinstance(message, ToolMessage) and message.status == "error"


def _as_value(message: ToolMessage) -> ToolMessage:
    content, artifact = message.content, message.artifact
    structured = artifact.get(_STRUCTURED) if isinstance(artifact, dict) else None
    if isinstance(content, str) and not isinstance(structured, dict):
        return message
    blocks = [content] if isinstance(content, str) else content
    texts = [text for block in blocks if (text := _text_of(block)) is not None]
    rest = [block for block in blocks if _text_of(block) is None]
    try:
        text = _joined_value(message, structured, texts, is_all=not rest)
    except (ValueError, TypeError, RecursionError):  # a value that is not JSON
        text = None
    if text is None:
        return message
    value = [{"type": "text", "text": text}, *rest] if rest else text
    return message.model_copy(update={"content": value})


def _joined_value(
    message: ToolMessage, structured: Any, texts: list[str], *, is_all: bool
) -> str | None:
    """The result as one text, or `None` if it is one already."""
    if has_failed(message):
        return "\n".join(texts) if is_all and len(texts) > 1 else None
    if isinstance(structured, dict):
        return dumps(_edited_value(structured, texts))
    if not is_all:
        return None
    if isinstance(message.content, list) and all(isinstance(text, str) for text in message.content):
        return dumps(message.content)  # LangChain's form of a list of texts, or an empty list
    return dumps([_value(text) for text in texts]) if len(texts) > 1 else None


def _text_of(block: Any) -> str | None:
    if isinstance(block, str):
        return block
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    return text if isinstance(text, str) else None


def _edited_value(structured: dict[str, Any], texts: list[str]) -> Any:
    """The value of a tool, or the value of its texts if these are an edited version.

    FastMCP returns a value that is not an object as `{"result": value}`, with the bare value as
    text: one text, or one per element. A text that contains every scalar of the value is not a
    redacted version of it. Prose about an object or a list is not an edited version of it either.
    """
    value = structured["result"] if structured.keys() == {"result"} else structured
    whole = "\n".join(texts)
    if isinstance(value, list) and len(texts) == len(value):
        edited: Any = [_read_scalar_like(v, text) for v, text in zip(value, texts, strict=True)]
    else:
        edited = _read_scalar_like(value, whole)
    if not texts or edited == value or all(_contains(v, whole) for v in _scalars(value)):
        return structured
    is_prose = isinstance(edited, str) and whole.strip() and whole.lstrip()[:1] not in "{["
    if is_prose and isinstance(value, dict | list):
        return structured
    return edited if value is structured else {"result": edited}


def _read_scalar_like(value: Any, text: str) -> Any:
    return text if isinstance(value, str) else _value(text)


def _contains(scalar: Any, text: str) -> bool:
    if isinstance(scalar, str):
        return scalar in text or dumps(scalar)[1:-1] in text
    return dumps(scalar) in text or str(scalar) in text


def _scalars(value: Any) -> list[Any]:
    scalars, unvisited = [], [value]
    while unvisited:
        node = unvisited.pop()
        if isinstance(node, dict | list):
            unvisited.extend(node.values() if isinstance(node, dict) else node)
        else:
            scalars.append(node)
    return scalars


def write_tool_result(content: str | list[Any], artifact: Any) -> str | list[Any]:
    """Write the content of a tool message.

    Args:
        content: Text or content parts.
        artifact: The message's artifact, the only source of labels.

    Returns:
        The content, wrapped if it has labels or looks like a wrapped result.

    Raises:
        UsageError: If `labeled_tool_result` did not make the artifact's labels, or if the content
            holds labels.
    """
    if artifact is not None and (labelled := read_artifact(artifact)):
        labels, combine = labelled
        return _wrap(content, labels, combine)
    text = content if isinstance(content, str) else _joined(content)
    refuse_lost_labels(text)
    return _wrap(content, _NO_LABELS, "ignore") if _looks_wrapped(text) else content


def refuse_labels_of_fields(messages: Iterable[BaseMessage]) -> None:
    """Refuse results whose fields have labels of their own, which the hosted service cannot read.

    Raises:
        UsageError: If there is one.
    """
    for message in messages:
        artifact = getattr(message, "artifact", None)
        if isinstance(artifact, dict) and FIELDS_KEY in artifact:
            msg = (
                "`labeled_tool_result(fields=…)` is not documented for the hosted service. Use a "
                "`LocalServer`, or give the whole result its labels."
            )
            raise UsageError(msg)


def refuse_lost_labels(text: str) -> None:
    """Refuse a result whose text is the pair that `labeled_tool_result` returns.

    LangChain turns the pair into text if the tool is not declared to return a pair. Such a text
    cannot be told from one forged with an old seal, so it must not set labels.

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
            "The tool returned `labeled_tool_result(…)`, but LangChain joined the result and its "
            "labels into one text, and labels are never read from text. Declare the tool with "
            '`@tool(response_format="content_and_artifact")`.'
        )
        raise UsageError(msg)


def write_labeled(value: str, labels: Labels, combine: Combine) -> str:
    """Write the content of a result with labels that the caller knows, without an artifact.

    Args:
        value: The value as JSON text.
        labels: Its labels.
        combine: How they combine with the labels of the arguments.
    """
    # The value is not parsed again: it may be long, and it was written here.
    meta = dumps(labels.to_wire())
    return f'{{"value":{value},"meta":{meta},"{MARK}":true,"combine_meta":"{combine}"}}'


def with_tool_messages(messages: Iterable[BaseMessage]) -> Iterator[BaseMessage]:
    """Make a `ToolMessage` of each whole result in the content of a message.

    Users of Anthropic's models write results as blocks `tool_result`.

    Args:
        messages: The conversation.

    Yields:
        The messages. Other blocks next to results become a human message.

    Raises:
        UsageError: If a result does not name its call.
    """
    for message in messages:
        if isinstance(message.content, str):
            yield message
            continue
        blocks = [_unwrapped(block) for block in message.content]
        others = [block for block in blocks if not is_result(block)]
        if len(others) == len(blocks):
            yield message
            continue
        for block in filter(is_result, blocks):
            yield ToolMessage(
                content=block.get("content") or "",
                tool_call_id=_call_id(block),
                artifact=getattr(message, "artifact", None),
                status="error" if block.get("is_error") else "success",
            )
        if others:
            yield HumanMessage(others)


def _call_id(block: dict[str, Any]) -> str:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):  # an id of ours could be that of another call
        msg = "A `tool_result` block has no `tool_use_id`. Give the id of the call it answers."
        raise UsageError(msg)
    return call_id


def _unwrapped(block: Any) -> Any:
    is_wrapped = isinstance(block, dict) and block.get("type") == "non_standard"
    return block["value"] if is_wrapped and is_result(block.get("value")) else block


def is_result(block: Any) -> bool:
    """Whether a block is a whole tool result in Anthropic's form."""
    return isinstance(block, dict) and block.get("type") == "tool_result"


def _joined(parts: list[Any]) -> str:
    return "".join(part.get("text", "") for part in parts if part.get("type") == "text")


def _looks_wrapped(text: str) -> bool:
    # JSON may write any letter of the key as \uXXXX.
    if "\\u" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return MARK in text


def _wrap(content: str | list[Any], labels: Labels, combine: str) -> str:
    by_field = {FIELDS_KEY: write_fields(labels)} if isinstance(labels, FieldLabels) else {}
    wrapper = {
        "value": _value(content),
        "meta": labels.to_wire(),
        **by_field,
        MARK: True,
        "combine_meta": combine,
    }
    return dumps(wrapper)


def _value(content: str | list[Any]) -> Any:
    """The value: JSON text is parsed, as in a result without labels (`docs/behaviour.md`, P7)."""
    if not isinstance(content, str):
        if any(part.get("type") != "text" for part in content):
            return content
        content = _joined(content)
    try:
        return loads(content)
    except ValueError:
        return content
