"""The body of a Responses request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe.
"""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.errors import status_error
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.responses.input import read_input
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
_BOUNDS = {"temperature": (0, 2), "top_p": (0, 1), "top_logprobs": (0, 20)}
_WHOLE = ("top_logprobs",)
_CHOICES = ("auto", "none", "required")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_SUMMARIES = ("auto", "concise", "detailed")
_MOST_PAIRS = 16
_LOGPROBS = "message.output_text.logprobs"
_NOT_IMPLEMENTED = 501


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
    checks.an_object(body, ("body",))
    _refuse_missing(body)
    tools, server_tools = read_tools(body)
    checks.numbers(body, _BOUNDS, _WHOLE)
    checks.optional(body, "stream_options", dict)
    checks.optional(body, "store", bool)
    checks.one_of(body, "truncation", ("auto", "disabled"))
    checks.positive(body, "max_tool_calls")
    _check_metadata(body)
    return ChatRequest(
        model=checks.text(body, "model", ()),
        messages=read_input(body),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), tools, server_tools),
        response_format=_response_format(checks.optional(body, "text", dict) or {}),
        stop=_stop(body.get("stop")),
        max_tokens=checks.positive(body, "max_output_tokens"),
        stream=checks.optional(body, "stream", bool) or False,
        stream_usage=True,
        parallel_tool_calls=checks.optional(body, "parallel_tool_calls", bool) is not False,
        server_tools=server_tools,
        previous_reply=checks.optional(body, "previous_response_id", str),
        options={key: value for key, value in body.items() if key not in _READ_FIELDS}
        | _reasoning(body)
        | _logprobs(body),
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
    functions: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for index, tool in enumerate(checks.a_list(body, "tools")):
        where = ("tools", index)
        kind = checks.text(checks.an_object(tool, where), "type", where)
        if kind != "function":
            others.append(tool)
            continue
        function = Function(
            name=checks.tool_name(tool, where),
            description=checks.optional(tool, "description", str, where),
            parameters=checks.json_schema(tool, "parameters", where),
            strict=checks.optional(tool, "strict", bool, where),
            output_schema=checks.json_schema(tool, "output_schema", where),
        )
        functions.append(neutral(function))
    checks.distinct_tools(functions)
    return functions, others


def _tool_choice(
    choice: Any, tools: list[dict[str, Any]], server_tools: list[dict[str, Any]]
) -> str | dict[str, str] | None:
    if choice is None or choice in _CHOICES:
        if choice == "required" and not (tools or server_tools):
            checks.impossible("`tool_choice` is `required`, but `tools` is empty.")
        return choice  # type: ignore[no-any-return]
    is_function = isinstance(choice, dict) and choice.get("type") == "function"
    name = choice.get("name") if is_function else None
    if not isinstance(name, str):
        expected = "`auto`, `none`, `required` or {type: function, name}"
        checks.unknown(("tool_choice",), expected, choice)
    if name not in {tool["function"]["name"] for tool in tools}:
        checks.impossible(f"`tool_choice` names the tool `{name}`, which is not in `tools`.")
    return {"name": name}


def _response_format(text: Mapping[str, Any]) -> dict[str, Any] | None:
    checks.one_of(text, "verbosity", ("low", "medium", "high"), ("text",))
    value = checks.optional(text, "format", dict, ("text",))
    if value is None:
        return None
    where = ("text", "format")
    kind = value.get("type")
    if kind in ("text", "json_object"):
        return {"type": kind}
    if kind != "json_schema":
        checks.unknown((*where, "type"), "`text`, `json_object` or `json_schema`", kind)
    # The vendor's SDK sends the schema as `schema_`.
    key = "schema" if "schema" in value else "schema_"
    schema = checks.json_schema(value, key, where)
    if schema is None:
        checks.wrong((*where, "schema"), "a JSON Schema object", None)
    checks.text(value, "name", where)
    rest = {key: value[key] for key in value if key not in ("type", "schema_")}
    return {"type": kind, "json_schema": {**rest, "schema": schema}}


def _stop(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        checks.wrong(("stop",), "a string or an array of strings", stop)
    return stops


def _reasoning(body: Mapping[str, Any]) -> dict[str, Any]:
    reasoning = checks.optional(body, "reasoning", dict) or {}
    effort = checks.one_of(reasoning, "effort", _EFFORTS, ("reasoning",))
    for key in ("summary", "generate_summary"):
        checks.one_of(reasoning, key, _SUMMARIES, ("reasoning",))
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"logprobs": True} if _LOGPROBS in checks.strings(body, "include") else {}


def _check_metadata(body: Mapping[str, Any]) -> None:
    metadata = checks.optional(body, "metadata", dict) or {}
    if len(metadata) > _MOST_PAIRS:
        checks.unknown(("metadata",), f"at most {_MOST_PAIRS} pairs", len(metadata))
    for key, value in metadata.items():
        if not isinstance(value, str):
            checks.wrong(("metadata", key), "a string", value)
