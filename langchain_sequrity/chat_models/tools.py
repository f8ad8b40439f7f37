"""Tools, the choice among them, and shapes of answers, in the neutral words of `wire.tools`."""

from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.tools import name_of

# What of a tool's `extras` is for Anthropic's format; other packages have theirs there too.
_EXTRAS = (
    "allowed_callers",
    "cache_control",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
)
# A dict whose `type` is one of these is a JSON Schema or a function, and not a tool of the API.
_CONVERTED = (None, "object", "function")


def write_tool(tool: Any, *, strict: bool | None, extras: bool = False) -> dict[str, Any]:
    """Write a tool.

    Args:
        tool: Any tool that LangChain knows, or a tool object of the provider's API.
        strict: Asks for arguments that fit the schema exactly.
        extras: Whether what the tool has as `extras`, such as `cache_control`, is for this format.

    Returns:
        The tool in neutral form; a tool object of the API stays as it is.
    """
    if isinstance(tool, dict) and _is_of_the_api(tool):
        return tool if strict is None or tool.get("type") else {**tool, "strict": strict}
    written: dict[str, Any] = convert_to_openai_tool(tool, strict=strict)
    if strict is not None and isinstance(written.get("function"), dict):
        # `convert_to_openai_tool` leaves tools that are already in this form as they are.
        written = {**written, "function": {**written["function"], "strict": strict}}
    if extras and isinstance(tool, BaseTool) and tool.extras:
        if isinstance(own := tool.extras.get("provider_tool_definition"), dict):
            return own
        written |= {key: tool.extras[key] for key in _EXTRAS if key in tool.extras}
    return written


def _is_of_the_api(tool: dict[str, Any]) -> bool:
    kind = tool.get("type")
    is_flat = kind == "function" and "name" in tool and "function" not in tool
    return is_flat or "input_schema" in tool or kind not in _CONVERTED


def write_tool_choice(choice: Any, tools: list[dict[str, Any]]) -> Any:
    """Write `tool_choice` in any of LangChain's spellings.

    Raises:
        UsageError: If it names a tool that is not there.
    """
    if choice is None or choice is False:
        return None
    if choice is True or choice == "any":
        return "required"
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    if choice in (names := [name_of(tool) for tool in tools]):
        return {"type": "function", "function": {"name": choice}}
    if choice in (kinds := [tool["type"] for tool in tools if name_of(tool) is None]):
        return {"type": choice}
    there = [*filter(None, names), *kinds]
    msg = f"`tool_choice` names the tool {choice!r}, but the tools are {there}."
    raise UsageError(msg)


def write_response_format(schema: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a schema as the `response_format` of chat/completions.

    Args:
        schema: A pydantic class, a TypedDict, a JSON Schema, an OpenAI function, or a
            `response_format` object, which is returned as it is.
        strict: Whether the reply must fit exactly; left out when `None`.

    Returns:
        The object for the body.
    """
    if isinstance(schema, dict) and schema.get("type") in ("json_schema", "json_object", "text"):
        return schema
    if isinstance(schema, dict) and "name" in schema and "schema" in schema:
        return {"type": "json_schema", "json_schema": schema}
    function = convert_to_openai_tool(schema, strict=strict)["function"]
    inner = {"name": function["name"], "schema": function.get("parameters", {"type": "object"})}
    if function.get("description"):
        inner["description"] = function["description"]
    if strict is not None:
        inner["strict"] = strict
    return {"type": "json_schema", "json_schema": inner}
