"""Fields of the body beside the conversation: from the neutral words of `tools` to this format's.

What is in the format's own words already (`output_config`, `thinking`, `stop_sequences`, tools with
`input_schema`) stays as it is.
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.messages.schema import fit_schema
from langchain_sequrity.wire.tools import read_function

_NEUTRAL = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens"}
)
_FORCED = ("any", "tool")
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
DEFAULT_MAX_TOKENS = 16_384
"""`max_tokens` where none is given; the format demands one (`docs/protocol.md`, Messages)."""


def write_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Write all fields of the body but the conversation.

    Args:
        params: The fields; `None` is left out.

    Returns:
        The fields in the words of this format, `max_tokens` among them.

    Raises:
        UsageError: For what the format does not have.
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
            choice = {**_without_name(choice), "type": "auto"}
        body["tool_choice"] = choice
    if shape := _output_format(params.get("response_format")):
        body["output_config"] = {**body.get("output_config", {}), "format": shape}
    return body


def _default_max_tokens(body: Mapping[str, Any]) -> int:
    """The default; what is reserved for thinking comes on top, as it counts as output."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return DEFAULT_MAX_TOKENS + (budget or 0)


def _thinks(body: Mapping[str, Any]) -> bool:
    """Whether the model thinks: it can be asked to call a tool then, but not be forced to."""
    thinking = body.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")


def _without_name(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choice.items() if key != "name"}


def write_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Write a tool; one that the service runs itself stays as it is."""
    function = None if "input_schema" in tool else read_function(tool)
    if function is None:
        return dict(tool)
    schema = function.parameters or _NO_ARGUMENTS
    written: dict[str, Any] = {
        "name": function.name,
        "input_schema": fit_schema(schema) if function.strict else schema,
        **function.extras,
    }
    if function.description:
        written["description"] = function.description
    if function.strict is not None:
        written["strict"] = function.strict
    if function.output_schema is not None:
        written["output_schema"] = function.output_schema
    return written


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
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind != "json_schema":
        msg = (
            f"The Messages format has no `response_format` of type `{kind}`. Give a schema "
            "(`json_schema`), or use `method='function_calling'`."
        )
        raise UsageError(msg)
    inner = response_format.get("json_schema")
    schema = (inner or response_format).get("schema") or {"type": "object"}
    return {"type": "json_schema", "schema": fit_schema(schema)}
