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

FUNCTION_FIELDS = ("name", "description", "parameters", "strict", "output_schema")


def read_function(tool: Mapping[str, Any]) -> Tool | None:
    """Read a function tool.

    Args:
        tool: A tool in the form of chat/completions, of Responses (flat), or of Messages
            (`input_schema`).

    Returns:
        The fields of the function that are set: `name`, `description`, `parameters` (the JSON
        Schema of its arguments), `strict`, and `output_schema` (that of its results). `None` for a
        tool of another kind, which the service runs itself.
    """
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        return _function(inner)
    if "input_schema" in tool:
        return _function({**tool, "parameters": tool["input_schema"]})
    return _function(tool) if tool.get("type") == "function" and "name" in tool else None


def _function(given: Mapping[str, Any]) -> Tool:
    return {key: given[key] for key in FUNCTION_FIELDS if given.get(key) is not None}


def neutral_tool(given: Mapping[str, Any]) -> Tool:
    """A function tool in the neutral form, of a mapping with the fields of the function."""
    return {"type": "function", "function": _function(given)}


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


def write_calls(message: AIMessage) -> list[tuple[str | None, str, str]]:
    """Write the calls of a message.

    Args:
        message: The message.

    Returns:
        Id, name, and arguments as JSON text of each call. Invalid calls are among them: an error
        message has answered them, and both go back.
    """
    kept = _kept_arguments(message) if message.tool_calls else {}
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


def _kept_arguments(message: AIMessage) -> Mapping[str, str]:
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
