"""Tools, the choice among them, and shapes of answers, as chat/completions words them."""

from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sequrity.errors import UsageError


def write_tool(tool: Any, *, strict: bool | None) -> dict[str, Any]:
    """Write a tool; `strict` asks for arguments that fit the schema exactly."""
    written: dict[str, Any] = convert_to_openai_tool(tool, strict=strict)
    if strict is not None and isinstance(written.get("function"), dict):
        # `convert_to_openai_tool` leaves tools that are already in this form as they are.
        written = {**written, "function": {**written["function"], "strict": strict}}
    return written


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
    names = [tool["function"]["name"] for tool in tools if "function" in tool]
    if choice not in names:
        msg = f"`tool_choice` names the tool {choice!r}, but the tools are {names}."
        raise UsageError(msg)
    return {"type": "function", "function": {"name": choice}}


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
