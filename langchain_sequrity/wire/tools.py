"""Tools on the wire: definitions, the choice among them, arguments of calls.

**Definitions.** The neutral form is that of chat/completions: `{"type": "function", "function":
{name, description, parameters, strict}}`, `tool_choice` as `auto`, `none`, `required` or one
function, and `response_format`. The chat models use it for every format. Each format translates it,
and leaves definitions in its own form unchanged.

**Arguments.** A service may compare the history with its own as text. So a call goes back with the
text it came with, unless somebody edited its arguments. That text is kept in a message's metadata,
because `tool_calls` hold parsed arguments, and a database may reorder their keys. Other arguments
are written as the service writes them (`docs/protocol.md`, Chat completions).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import (
    AIMessage,
    InvalidToolCall,
)
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call

from langchain_sequrity.strict_json import dumps_like_service, read_arguments
from langchain_sequrity.wire.exchange import METADATA_KEY

# Definitions


Tool = dict[str, Any]

_NEUTRAL = frozenset({"type", "function"})
_FLAT = frozenset({"type", "name", "description", "parameters", "strict", "output_schema"})
_ANTHROPIC = (_FLAT - {"parameters"}) | {"input_schema"}


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool that the client runs, in any format.

    Attributes:
        name: Its name.
        description: What it does.
        parameters: JSON Schema of its arguments.
        strict: Whether arguments must fit the schema exactly.
        output_schema: JSON Schema of its results, for planners.
        extras: Other fields of the definition, such as `cache_control`.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    output_schema: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def read_function(tool: Mapping[str, Any]) -> FunctionTool | None:
    """Read a function tool.

    Args:
        tool: A tool in the form of chat/completions, of Responses (flat), or of Messages
            (`input_schema`).

    Returns:
        The function, or `None` for a tool of another kind, which the service runs itself.
    """
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        return _function(inner, inner.get("parameters"), tool, _NEUTRAL)
    if "input_schema" in tool:
        return _function(tool, tool["input_schema"], tool, _ANTHROPIC)
    if tool.get("type") == "function" and "name" in tool:
        return _function(tool, tool.get("parameters"), tool, _FLAT)
    return None


def _function(
    inner: Mapping[str, Any], schema: Any, tool: Mapping[str, Any], known: frozenset[str]
) -> FunctionTool:
    extras = {key: value for key, value in tool.items() if key not in known}
    return FunctionTool(
        inner["name"],
        inner.get("description"),
        schema,
        inner.get("strict"),
        inner.get("output_schema"),
        extras,
    )


FUNCTION_FIELDS = ("description", "parameters", "strict", "output_schema")


def fields_of(function: FunctionTool) -> Tool:
    """The fields of a function that are set, without extras."""
    found = {key: getattr(function, key) for key in FUNCTION_FIELDS}
    return {
        "name": function.name,
        **{key: value for key, value in found.items() if value is not None},
    }


def neutral(function: FunctionTool) -> Tool:
    """Write a function tool in the neutral form, without its extras."""
    return {"type": "function", "function": fields_of(function)}


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name by which a tool is called, if it has one."""
    inner = tool.get("function")
    found = inner.get("name") if isinstance(inner, Mapping) else tool.get("name")
    return found if isinstance(found, str) else None


# Calls


_ARGUMENTS = "arguments"


def parse_calls(
    calls: Iterable[tuple[str, str | None, str | None]],
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Parse the calls of a reply.

    Args:
        calls: Name, arguments as JSON text, and id of each call.

    Returns:
        The calls, and those whose arguments are not a JSON object.
    """
    good: list[ToolCall] = []
    bad: list[InvalidToolCall] = []
    for name, text, call_id in calls:
        args, problem = read_arguments(text)
        if args is None:
            bad.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
        else:
            good.append(tool_call(name=name, args=args, id=call_id))
    return good, bad


def write_calls(message: AIMessage, kept: Mapping[str, str]) -> list[tuple[str | None, str, str]]:
    """Write the calls of a message.

    Args:
        message: The message.
        kept: See `arguments_text`.

    Returns:
        Id, name, and arguments as JSON text of each call. Invalid calls are among them: an error
        message has answered them, and both go back.
    """
    calls = [(call["id"], call["name"], arguments_text(call, kept)) for call in message.tool_calls]
    bad = [
        (call["id"], call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls
    ]
    return [*calls, *bad]


def keep_arguments(
    metadata: Mapping[str, Any], texts: Iterable[tuple[str | None, Any]]
) -> dict[str, Any]:
    """Keep the arguments of a reply's calls as they came.

    Args:
        metadata: The `response_metadata` of the message.
        texts: Id and arguments of each call; values other than text are skipped.

    Returns:
        The metadata with the texts in it.
    """
    kept = {call_id: text for call_id, text in texts if call_id and isinstance(text, str)}
    if not kept:
        return {**metadata}
    return {**metadata, METADATA_KEY: {**(metadata.get(METADATA_KEY) or {}), _ARGUMENTS: kept}}


def kept_arguments(message: AIMessage) -> Mapping[str, str]:
    """The arguments of a message's calls as they came, by id of the call."""
    texts: dict[Any, Any] = {}
    if isinstance(message.content, list):
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == "function_call":
                texts[block.get("call_id")] = block.get("arguments")
    own = message.response_metadata.get(METADATA_KEY)
    found = own.get(_ARGUMENTS) if isinstance(own, Mapping) else None
    if isinstance(found, Mapping):
        texts.update(found)
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def arguments_text(call: ToolCall, kept: Mapping[str, str]) -> str:
    """Write the arguments of a call.

    Args:
        call: The call.
        kept: Arguments of the message's calls as they came, by id.

    Returns:
        The text as it came, unless the arguments have been edited since.
    """
    written = dumps_like_service(call["args"])
    came = kept.get(call["id"] or "")
    if came is None or came == written:
        return written
    args, _ = read_arguments(came)
    return came if args is not None and _sorted(args) == _sorted(call["args"]) else written


def _sorted(args: Mapping[str, Any]) -> str | None:
    """A text that equal arguments share; 1, 1.0 and true differ."""
    try:
        return json.dumps(args, sort_keys=True)
    except TypeError:  # not plain JSON, so no reply brought them
        return None
