"""Fields of a Messages request other than the conversation.

The neutral form of `tools` is translated. Fields in the format's own form (`output_config`,
`thinking`, `stop_sequences`, tools with `input_schema`) stay unchanged.

The format takes a part of JSON Schema (`docs/protocol.md`, Messages): objects must be closed, and
bounds on numbers, lengths and sizes are unknown. Bounds go into the description, which the model
reads. The parser of the answer checks them anyway.
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.tools import FUNCTION_FIELDS, read_function

_SUBSCHEMAS = ("items", "not", "if", "then", "else", "contains", "additionalProperties")
_LISTS = ("anyOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)
_RENAMED = {"oneOf": "anyOf"}
_FORMATS = frozenset(
    {
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    }
)


def fit_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a schema in the part of JSON Schema that the format knows.

    Args:
        schema: The schema; it is not changed.

    Returns:
        The schema with closed objects, and with bounds in descriptions.

    Example:
        ```python
        from langchain_sequrity.wire.messages.params import fit_schema

        assert fit_schema({"type": "integer", "minimum": 1}) == {
            "type": "integer",
            "description": "(minimum: 1)",
        }
        ```
    """
    # The format tells variants apart by their shapes, not by a discriminator.
    renamed = {_RENAMED.get(k, k): v for k, v in schema.items() if k != "discriminator"}
    fit = {key: _fit_part(key, value) for key, value in renamed.items()}
    if _is_object(fit) and fit.get("additionalProperties") in (None, True):
        fit["additionalProperties"] = False
    moved = [key for key in _BOUNDS if key in fit]
    if isinstance(fit.get("minItems"), int) and fit["minItems"] > 1:
        moved.append("minItems")
    if "format" in fit and fit["format"] not in _FORMATS:
        moved.append("format")
    if moved:
        note = ", ".join(f"{key}: {fit.pop(key)}" for key in moved)
        fit["description"] = f"{fit.get('description', '')} ({note})".strip()
    return fit


def _is_object(schema: Mapping[str, Any]) -> bool:
    # An object without named properties is a map of any keys, so it cannot be closed.
    return "properties" in schema or (
        schema.get("type") == "object" and "additionalProperties" not in schema
    )


def _fit_part(key: str, value: Any) -> Any:
    if key in _MAPS and isinstance(value, Mapping):
        return {name: _fit_subschema(inner) for name, inner in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [_fit_subschema(inner) for inner in value]
    return _fit_subschema(value) if key in _SUBSCHEMAS else value


def _fit_subschema(value: Any) -> Any:
    return fit_schema(value) if isinstance(value, Mapping) else value


_NEUTRAL = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens"}
)
_FORCED = ("any", "tool")
_OF_FUNCTION = frozenset({"type", "function", *FUNCTION_FIELDS})
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
DEFAULT_MAX_TOKENS = 16_384
"""Default of `max_tokens`, which the format requires (`docs/protocol.md`, Messages)."""


def write_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Write all fields of the body except the conversation.

    Args:
        params: The fields; `None` is left out.

    Returns:
        The fields in the form of this format, with `max_tokens`.

    Raises:
        UsageError: For a `response_format` that the format does not have.
    """
    body = {
        key: value for key, value in params.items() if value is not None and key not in _NEUTRAL
    }
    limit = params.get("max_tokens")
    body["max_tokens"] = _default_max_tokens(body) if limit is None else limit
    if stop := params.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if tools := params.get("tools"):
        body["tools"] = [write_tool(tool) for tool in tools]
    parallel = params.get("parallel_tool_calls") if tools else None
    choice = _tool_choice(params.get("tool_choice"), parallel=parallel)
    if choice is not None:
        if choice.get("type") in _FORCED and _thinks(body):
            choice = {key: value for key, value in choice.items() if key != "name"}
            choice["type"] = "auto"
        body["tool_choice"] = choice
    if shape := _output_format(params.get("response_format")):
        body["output_config"] = {**body.get("output_config", {}), "format": shape}
    return body


def _default_max_tokens(body: Mapping[str, Any]) -> int:
    """The default, plus the budget for thinking, which counts as output."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return DEFAULT_MAX_TOKENS + (budget or 0)


def _thinks(body: Mapping[str, Any]) -> bool:
    """Whether the model thinks: then a request can ask for a tool call, but not force it."""
    thinking = body.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")


def write_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Write a tool; one that the service runs itself stays unchanged."""
    function = None if "input_schema" in tool else read_function(tool)
    if function is None:
        return dict(tool)
    extras = {key: value for key, value in tool.items() if key not in _OF_FUNCTION}
    schema = function.pop("parameters", None) or _NO_ARGUMENTS
    if not function.get("description"):
        function.pop("description", None)
    is_strict = function.get("strict")
    return {**extras, **function, "input_schema": fit_schema(schema) if is_strict else schema}


def _tool_choice(choice: Any, *, parallel: bool | None) -> dict[str, Any] | None:
    written = _choice(choice)
    if parallel is False:
        written = written or {"type": "auto"}
        if written["type"] != "none":
            written["disable_parallel_tool_use"] = True
    return written


def _choice(choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, Mapping):
        function = choice.get("function")
        if isinstance(function, Mapping):
            return {"type": "tool", "name": function["name"]}
        return dict(choice)
    return {"type": "any" if choice in ("required", "any") else choice}


def _output_format(response_format: Any) -> dict[str, Any] | None:
    if response_format is None:
        return None
    format_type = response_format.get("type")
    if format_type == "text":
        return None
    if format_type != "json_schema":
        msg = (
            f"The Messages format has no `response_format` of type `{format_type}`. Give a schema "
            "(`json_schema`), or use `method='function_calling'`."
        )
        raise UsageError(msg)
    inner = response_format.get("json_schema")
    schema = (inner or response_format).get("schema") or {"type": "object"}
    return {"type": "json_schema", "schema": fit_schema(schema)}
