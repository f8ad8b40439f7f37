"""Function tools, the choice among them, and shapes of answers: one neutral form, many dialects.

The neutral form is that of chat/completions: `{"type": "function", "function": {name, description,
parameters, strict}}`, `tool_choice` as `auto`, `none`, `required` or one function, and
`response_format`. The chat models speak it to every format; a format writes it in its own words and
leaves what is already in its own words as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
