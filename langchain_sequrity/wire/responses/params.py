"""Fields of the body beside the conversation: from the neutral words of `tools` to this format's.

What is in the format's own words already (`text`, `reasoning`, `max_output_tokens`, flat tools,
tools that the service runs) stays as it is. Fields that the format does not have (`stop`, `seed`,
`n`) are sent as the user gave them (`docs/behaviour.md`, P4).
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.wire.tools import read_function

_NEUTRAL = frozenset(
    {
        "tools",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "max_tokens",
        "max_completion_tokens",
        "logprobs",
    }
)
_LOGPROBS = "message.output_text.logprobs"


def write_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Write all fields of the body but the conversation.

    Args:
        params: The fields; `None` is left out.

    Returns:
        The fields in the words of this format.
    """
    given = {key: value for key, value in params.items() if value is not None}
    body = {key: value for key, value in given.items() if key not in _NEUTRAL}
    if "tools" in given:
        body["tools"] = [write_tool(tool) for tool in given["tools"]]
    if "tool_choice" in given:
        body["tool_choice"] = _tool_choice(given["tool_choice"])
    if "response_format" in given:
        body["text"] = {**body.get("text", {}), "format": write_format(given["response_format"])}
    if "verbosity" in given:
        body["text"] = {"verbosity": given["verbosity"], **body.get("text", {})}
    if "reasoning_effort" in given:
        body["reasoning"] = {"effort": given["reasoning_effort"], **body.get("reasoning", {})}
    if limit := given.get("max_completion_tokens", given.get("max_tokens")):
        body.setdefault("max_output_tokens", limit)
    if given.get("logprobs"):  # `top_logprobs` alone says how many, not that they are wanted
        include = body.get("include", [])
        body["include"] = include if _LOGPROBS in include else [*include, _LOGPROBS]
    return body


def write_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Write a tool; one that the service runs itself stays as it is."""
    function = read_function(tool)
    if function is None:
        return dict(tool)
    written: dict[str, Any] = {"type": "function", "name": function.name}
    for key in ("description", "parameters", "strict", "output_schema"):
        if (value := getattr(function, key)) is not None:
            written[key] = value
    return written


def _tool_choice(choice: Any) -> Any:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    return {"type": "function", "name": function["name"]} if function else choice


def write_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """Write a neutral `response_format` as the `format` of `text`: flat."""
    inner = response_format.get("json_schema")
    if not isinstance(inner, Mapping):
        return dict(response_format)
    return {"type": "json_schema", **inner}
