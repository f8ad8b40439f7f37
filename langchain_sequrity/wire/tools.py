"""Function tools, the choice among them, and shapes of answers: one neutral form, many dialects.

The neutral form is that of chat/completions: `{"type": "function", "function": {name, description,
parameters, strict}}`, `tool_choice` as `auto`, `none`, `required` or one function, and
`response_format`. The chat models speak it to every format; a format writes it in its own words and
leaves what is already in its own words as it is.

Arguments of tool calls as JSON text: as they came, or as the service writes them.

A service may compare the history that it is sent with its own as text. So a call goes back with the
very text it came with, as long as nobody edited its arguments. The text is kept beside the session
in a message's metadata, because `tool_calls` hold parsed arguments, and a database may reorder the
keys of those. Arguments that have to be written are written as the service does
(`docs/protocol.md`, Chat completions).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.tool import ToolCall

from langchain_sequrity.wire.dual_llm import METADATA_KEY
from langchain_sequrity.wire.json_text import dumps_like_service, read_arguments

_KEY = "arguments"
_BLOCK = "function_call"


def with_texts(
    metadata: Mapping[str, Any], texts: Iterable[tuple[str | None, Any]]
) -> dict[str, Any]:
    """Keep the texts of a reply's calls.

    Args:
        metadata: The `response_metadata` of the message.
        texts: Id and text of each call, as they came; what is not text is left out.

    Returns:
        The metadata with the texts in it.
    """
    kept = {call_id: text for call_id, text in texts if call_id and isinstance(text, str)}
    if not kept:
        return {**metadata}
    return {**metadata, METADATA_KEY: {**(metadata.get(METADATA_KEY) or {}), _KEY: kept}}


def texts_of(message: AIMessage) -> Mapping[str, str]:
    """The texts that the calls of a message came with, by their ids."""
    texts: dict[Any, Any] = {}
    if isinstance(message.content, list):
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == _BLOCK:
                texts[block.get("call_id")] = block.get("arguments")
    own = message.response_metadata.get(METADATA_KEY)
    found = own.get(_KEY) if isinstance(own, Mapping) else None
    if isinstance(found, Mapping):
        texts.update(found)
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def text_of(call: ToolCall, texts: Mapping[str, str]) -> str:
    """The text of a call's arguments.

    Args:
        call: The call.
        texts: The texts that the calls of its message came with.

    Returns:
        The text that it came with, unless its arguments are others by now.
    """
    written = dumps_like_service(call["args"])
    came = texts.get(call["id"] or "")
    if came is None or came == written:
        return written
    args, _ = read_arguments(came)
    return came if args is not None and _sorted(args) == _sorted(call["args"]) else written


def _sorted(args: Mapping[str, Any]) -> str | None:
    """A text that is the same for equal arguments alone: 1, 1.0 and true are three."""
    try:
        return json.dumps(args, sort_keys=True)
    except TypeError:  # keys of several kinds, or what JSON lacks: no reply brought them
        return None


Tool = dict[str, Any]

_NEUTRAL = frozenset({"type", "function"})
_FLAT = frozenset({"type", "name", "description", "parameters", "strict", "output_schema"})
_ANTHROPIC = (_FLAT - {"parameters"}) | {"input_schema"}


@dataclass(frozen=True, slots=True)
class Function:
    """A function tool, whatever dialect it came in.

    Attributes:
        name: Its name.
        description: What it does.
        parameters: JSON Schema of its arguments.
        strict: Whether arguments must fit the schema exactly.
        output_schema: JSON Schema of its results, which planners are shown.
        extras: What else was said of it, such as `cache_control`.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    output_schema: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def read_function(tool: Mapping[str, Any]) -> Function | None:
    """Read a function tool.

    Args:
        tool: A tool in the form of chat/completions, of Responses (flat), or of Messages
            (`input_schema`).

    Returns:
        The function, or `None` for a tool of another kind: one that the service runs itself.
    """
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        return Function(
            inner["name"],
            inner.get("description"),
            inner.get("parameters"),
            inner.get("strict"),
            inner.get("output_schema"),
            {key: value for key, value in tool.items() if key not in _NEUTRAL},
        )
    if "input_schema" in tool:
        return _read(tool, tool["input_schema"], _ANTHROPIC)
    if tool.get("type") == "function" and "name" in tool:
        return _read(tool, tool.get("parameters"), _FLAT)
    return None


def _read(tool: Mapping[str, Any], schema: Any, known: frozenset[str]) -> Function:
    extras = {key: value for key, value in tool.items() if key not in known}
    return Function(
        tool["name"],
        tool.get("description"),
        schema,
        tool.get("strict"),
        tool.get("output_schema"),
        extras,
    )


def neutral(function: Function) -> Tool:
    """Write a function tool in the neutral form, without what is not known there."""
    inner: Tool = {"name": function.name}
    if function.description is not None:
        inner["description"] = function.description
    if function.parameters is not None:
        inner["parameters"] = function.parameters
    if function.strict is not None:
        inner["strict"] = function.strict
    if function.output_schema is not None:
        inner["output_schema"] = function.output_schema
    return {"type": "function", "function": inner}


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name that a tool is called by, where it has one."""
    inner = tool.get("function")
    found = inner.get("name") if isinstance(inner, Mapping) else tool.get("name")
    return found if isinstance(found, str) else None
