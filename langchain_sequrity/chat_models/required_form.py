"""The form that a request requires of its answer: a call of a tool, or JSON that fits a schema.

LangChain's agents end without an error if a reply has no call, also if they need one for their
structured response. For a JSON Schema they accept any JSON, also `null`. So what the request
requires is checked here (`docs/behaviour.md`, P4).
"""

from collections.abc import Mapping
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage

from langchain_sequrity.errors import ForcedToolMissing
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.denials import refusal_of
from langchain_sequrity.wire.tools import name_of

# Blocks of calls that the client makes; other blocks with these endings ran at the provider.
_CALLS_OF_CLIENT = ("function_call", "tool_use")
_CALLS = ("_call", "tool_use")


def requires_call(params: Mapping[str, Any]) -> bool:
    """Whether a request requires a call of any of its tools.

    Args:
        params: All fields of the body except the messages.
    """
    choice = params.get("tool_choice")
    return (choice.get("type") if isinstance(choice, Mapping) else choice) in ("required", "any")


def requires_object(params: Mapping[str, Any]) -> bool:
    """Whether a request requires JSON that is an object; arguments as above."""
    shape: Any = params.get("response_format")
    for key in ("json_schema", "schema"):
        shape = shape.get(key) if isinstance(shape, Mapping) else None
    return isinstance(shape, Mapping) and shape.get("type") == "object"


def check_form(params: Mapping[str, Any], message: AIMessage) -> None:
    """Check that a reply has the form that its request requires.

    Args:
        params: All fields of the body except the messages.
        message: The whole reply.

    Raises:
        ForcedToolMissing: If it has no call, and the request requires one.
        ValueError: LangChain's `OutputParserException`, if it is other JSON, and the request
            requires an object.
    """
    if message.tool_calls:
        return
    if requires_call(params):
        if not _has_run_at_provider(message):
            raise _missing_call(params, message)
    elif requires_object(params) and _is_other_json(text := str(message.text).strip()):
        msg = f"The reply is JSON, but not an object as the schema requires: {text}. Ask again."
        raise OutputParserException(msg, llm_output=text)


def _is_other_json(text: str) -> bool:
    """Whether a text is a JSON value other than an object; a parser refuses what is no JSON."""
    if text.startswith("{"):
        return False
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _has_run_at_provider(message: AIMessage) -> bool:
    blocks = message.content if isinstance(message.content, list) else ()
    types = [str(block.get("type")) for block in blocks if isinstance(block, dict)]
    return any(name.endswith(_CALLS) and name not in _CALLS_OF_CLIENT for name in types)


def _missing_call(params: Mapping[str, Any], message: AIMessage) -> ForcedToolMissing:
    tools = params.get("tools")
    definitions = [tool for tool in tools or () if isinstance(tool, dict)]
    names = [name_of(tool) or str(tool.get("type")) for tool in definitions]
    if refusal := refusal_of(message):
        fault = f"is a refusal ({refusal.rstrip('.')})"
    elif message.invalid_tool_calls:
        call = message.invalid_tool_calls[0]
        reason = (call["error"] or "They are not a whole JSON object.").rstrip(".")
        fault = f"calls `{call['name']}` with arguments that cannot be used ({reason})"
    else:
        fault = "has no call"
    listed = ", ".join(f"`{name}`" for name in names)
    msg = (
        f"The reply {fault}, but `tool_choice` requires a call of one of the tools: {listed}. The "
        "planner or the service may ignore `tool_choice`. Ask again, say in the request when to "
        "call the tool, or leave `tool_choice` out. For structured output, use the schema of the "
        'answer instead: `ProviderStrategy`, or `method="json_schema"`.'
    )
    return ForcedToolMissing(msg, tool=", ".join(names), message=message)
