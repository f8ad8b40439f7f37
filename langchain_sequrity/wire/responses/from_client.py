"""The body of a Responses request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe.
"""

from collections.abc import Mapping
from typing import Any, Literal

from langchain_sequrity.errors import status_error
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, between, by, maybe, text_or
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.responses.input import INPUT, read_input
from langchain_sequrity.wire.tools import Function, neutral

DOCUMENTED = frozenset(
    {
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "reasoning",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "timeout",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    }
)
_READ_FIELDS = {
    "model",
    "input",
    "tools",
    "tool_choice",
    "stop",
    "max_output_tokens",
    "stream",
    "stream_options",
    "parallel_tool_calls",
    "previous_response_id",
}
_MOST_PAIRS = 16
_LOGPROBS = "message.output_text.logprobs"
_NOT_IMPLEMENTED = 501

_SCHEMA = maybe(checks.JSON_SCHEMA)
_FUNCTION = {
    "name": checks.TOOL_NAME,
    "description": maybe(str),
    "parameters": _SCHEMA,
    "strict": maybe(bool),
    "output_schema": _SCHEMA,
}
_TOOLS = checks.Body({"tools": maybe(array(by("type", {"function": _FUNCTION, "*": {}})))})
_FORMAT = {
    "text": {},
    "json_object": {},
    "json_schema": checks.with_schema(checks.JSON_SCHEMA, {"name": str}),
}
_SUMMARY = maybe(Literal["auto", "concise", "detailed"])
_REASONING = {
    "effort": maybe(Literal["none", "minimal", "low", "medium", "high", "xhigh"]),
    "summary": _SUMMARY,
    "generate_summary": _SUMMARY,
}


def _chosen(choice: Any) -> Any:
    is_function = isinstance(choice, dict) and choice.get("type") == "function"
    return choice.get("name") if is_function else None


_BODY = checks.Body(
    {
        **INPUT,
        "model": str,
        "tool_choice": checks.choice_or(_chosen, "{type: function, name}"),
        "text": maybe(
            {
                "verbosity": maybe(Literal["low", "medium", "high"]),
                "format": maybe(by("type", _FORMAT)),
            }
        ),
        "stop": maybe(text_or(array(str), "strings")),
        "max_output_tokens": maybe(checks.at_least(1)),
        "max_tool_calls": maybe(checks.at_least(1)),
        "stream": maybe(bool),
        "stream_options": maybe(checks.OBJECT),
        "parallel_tool_calls": maybe(bool),
        "reasoning": maybe(_REASONING),
        "include": maybe(array(str)),
        "store": maybe(bool),
        "truncation": maybe(Literal["auto", "disabled"]),
        "temperature": maybe(between(0, 2)),
        "top_p": maybe(between(0, 1)),
        "top_logprobs": maybe(between(0, 20, int)),
        "metadata": maybe(
            checks.should(
                checks.OBJECT,
                lambda pairs: (
                    len(pairs) <= _MOST_PAIRS
                    and all(isinstance(value, str) for value in pairs.values())
                ),
                f"have at most {_MOST_PAIRS} pairs, each with a string",
            )
        ),
    }
)


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        What is asked, with LangChain messages. `options` has `reasoning_effort` and `logprobs`
        beside the fields that ask for them in this format.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
        ServerFailed: With `status` 501 for what this server does not have.
    """
    if isinstance(body, dict):
        _refuse_missing(body)
    _BODY.check(body)
    tools, server_tools = read_tools(body)
    effort = (body.get("reasoning") or {}).get("effort")
    choice = body.get("tool_choice")
    return ChatRequest(
        model=body["model"],
        messages=read_input(body),
        tools=tools,
        tool_choice=checks.neutral_choice(choice, _chosen(choice), tools, server_tools),
        response_format=_response_format(body.get("text") or {}),
        stop=checks.stops(body.get("stop")),
        max_tokens=body.get("max_output_tokens"),
        stream=body.get("stream") or False,
        stream_usage=True,
        parallel_tool_calls=body.get("parallel_tool_calls") is not False,
        server_tools=server_tools,
        previous_reply=body.get("previous_response_id"),
        options={key: value for key, value in body.items() if key not in _READ_FIELDS}
        | ({} if effort is None else {"reasoning_effort": effort})
        | ({"logprobs": True} if _LOGPROBS in (body.get("include") or ()) else {}),
    )


# Fields


def _refuse_missing(body: Mapping[str, Any]) -> None:
    for key, lacks in (
        ("background", "does not answer in the background"),
        ("conversation", "keeps no conversations beside its sessions"),
        ("prompt", "has no stored prompts"),
    ):
        if body.get(key):
            detail = f"This server {lacks}. Send the request without `{key}`."
            raise status_error(_NOT_IMPLEMENTED)(
                detail, status=_NOT_IMPLEMENTED, body={"detail": detail}
            )
    # One request has one response here; several are a matter of chat/completions.
    if body.get("n") not in (None, 1):
        checks.impossible("A response is one reply. Send the request without `n`.")


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The function tools in neutral form, and those that the service would run itself."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    functions = [_function(tool) for tool in tools if tool["type"] == "function"]
    checks.distinct_tools(functions)
    return functions, [tool for tool in tools if tool["type"] != "function"]


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {key: tool.get(key) for key in _FUNCTION}
    return neutral(Function(**fields))


def _response_format(text: Mapping[str, Any]) -> dict[str, Any] | None:
    value = checks.plain_schema(text.get("format"))
    if value is None or value["type"] != "json_schema":
        return value and {"type": value["type"]}
    return {"type": "json_schema", "json_schema": {k: v for k, v in value.items() if k != "type"}}
