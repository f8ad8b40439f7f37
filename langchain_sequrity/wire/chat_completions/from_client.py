"""The body of a chat/completions request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe.
"""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import Where
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.json_text import read_arguments

# Whether more than this has an effect is not known; `stream` has once been answered with plain JSON
# (`docs/behaviour.md`, P4).
DOCUMENTED = frozenset(
    {
        "user_provided_program",
        "context_vars",
        "messages",
        "model",
        "temperature",
        "top_p",
        "tools",
        "seed",
        "reasoning_effort",
        "response_format",
    }
)
_READ_FIELDS = {
    "model",
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "parallel_tool_calls",
}
_CHOICES = ("auto", "none", "required")


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        What is asked, with LangChain messages.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    if not isinstance(body, dict):
        checks.wrong(("body",), "an object", body)
    messages = checks.a_list(body, "messages", required=True)
    if not messages:
        checks.impossible("`messages` is empty. Send at least one message.")
    tools, _ = read_tools(body)
    stream_options = checks.optional(body, "stream_options", dict) or {}
    checks.numbers(body, _BOUNDS, _WHOLE)
    return ChatRequest(
        model=checks.text(body, "model", ()),
        messages=[_message(message, ("messages", i)) for i, message in enumerate(messages)],
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), tools),
        response_format=_response_format(body.get("response_format")),
        stop=_stop(body.get("stop")),
        max_tokens=checks.positive(body, "max_completion_tokens")
        or checks.positive(body, "max_tokens"),
        stream=checks.optional(body, "stream", bool) or False,
        stream_usage=stream_options.get("include_usage") is True,
        parallel_tool_calls=checks.optional(body, "parallel_tool_calls", bool) is not False,
        options={key: value for key, value in body.items() if key not in _READ_FIELDS},
    )


# Fields


_BOUNDS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "n": (1, 128),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}

_WHOLE = ("n", "top_logprobs")


def _stop(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        checks.wrong(("stop",), "a string or an array of strings", stop)
    return stops


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The function tools in neutral form; the format has no others, so that the second is empty."""
    tools = [_tool(tool, ("tools", i)) for i, tool in enumerate(checks.a_list(body, "tools"))]
    checks.distinct_tools(tools)
    return tools, []


def _tool(tool: Any, where: Where) -> dict[str, Any]:
    if not isinstance(tool, dict):
        checks.wrong(where, "an object", tool)
    if tool.get("type") != "function":
        checks.unknown((*where, "type"), "`function`", tool.get("type"))
    function = tool.get("function")
    if not isinstance(function, dict):
        checks.wrong((*where, "function"), "an object", function)
    checks.tool_name(function, (*where, "function"))
    for key in ("parameters", "output_schema"):
        checks.json_schema(function, key, (*where, "function"))
    return tool


def _tool_choice(choice: Any, tools: list[dict[str, Any]]) -> str | dict[str, str] | None:
    if choice is None or choice in _CHOICES:
        if choice == "required" and not tools:
            checks.impossible("`tool_choice` is `required`, but `tools` is empty.")
        return choice  # type: ignore[no-any-return]
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        expected = "`auto`, `none`, `required` or {type: function, function: {name}}"
        checks.unknown(("tool_choice",), expected, choice)
    if name not in {tool["function"]["name"] for tool in tools}:
        checks.impossible(f"`tool_choice` names the tool `{name}`, which is not in `tools`.")
    return {"name": name}


def _response_format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        checks.wrong(("response_format",), "an object", value)
    kind = value.get("type")
    if kind in ("text", "json_object"):
        return {"type": kind}
    if kind != "json_schema":
        checks.unknown(("response_format", "type"), "`text`, `json_object` or `json_schema`", kind)
    inner = value.get("json_schema")
    if not isinstance(inner, dict):
        checks.wrong(("response_format", "json_schema"), "an object", inner)
    # The vendor's SDK sends the schema as `schema_`.
    key = "schema" if "schema" in inner else "schema_"
    schema = checks.json_schema(inner, key, ("response_format", "json_schema"))
    checks.text(inner, "name", ("response_format", "json_schema"))
    rest = {key: value for key, value in inner.items() if key != "schema_"}
    return {"type": kind, "json_schema": {**rest, "schema": schema or {"type": "object"}}}


# Messages


def _message(message: Any, where: Where) -> BaseMessage:
    if not isinstance(message, dict):
        checks.wrong(where, "an object", message)
    role = message.get("role")
    read = _READERS.get(role) if isinstance(role, str) else None
    if read is None:
        roles = ", ".join(f"`{known}`" for known in _READERS)
        checks.unknown((*where, "role"), f"one of {roles}", role)
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        checks.wrong((*where, "name"), "a string", name)
    return read(message, where)


def _system(message: dict[str, Any], where: Where) -> BaseMessage:
    role = message["role"]
    return SystemMessage(
        content=_content(message, where, ("text",)),
        name=message.get("name"),
        additional_kwargs={"__openai_role__": role} if role == "developer" else {},
    )


def _user(message: dict[str, Any], where: Where) -> BaseMessage:
    return HumanMessage(content=_content(message, where, tuple(_PARTS)), name=message.get("name"))


def _assistant(message: dict[str, Any], where: Where) -> BaseMessage:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        checks.wrong((*where, "tool_calls"), "an array", calls)
    refusal, audio = message.get("refusal"), message.get("audio")
    has_content = message.get("content") is not None
    if not (has_content or calls or refusal or audio):
        checks.impossible(
            f"Message {where[-1]} of the assistant has neither `content` nor `tool_calls`."
        )
    extra: dict[str, Any] = {}
    if refusal is not None:
        extra["refusal"] = checks.text(message, "refusal", where)
    if audio is not None:
        if not isinstance(audio, dict):
            checks.wrong((*where, "audio"), "an object", audio)
        extra["audio"] = {"id": checks.text(audio, "id", (*where, "audio"))}
    return AIMessage(
        content=_content(message, where, ("text", "refusal")) if has_content else "",
        name=message.get("name"),
        additional_kwargs=extra,
        tool_calls=[_call(call, (*where, "tool_calls", i)) for i, call in enumerate(calls)],
    )


def _call(call: Any, where: Where) -> Any:
    if not isinstance(call, dict):
        checks.wrong(where, "an object", call)
    call_id = checks.text(call, "id", where)
    function = call.get("function")
    if not isinstance(function, dict):
        checks.wrong((*where, "function"), "an object", function)
    arguments = checks.text(function, "arguments", (*where, "function"))
    args, problem = read_arguments(arguments)
    if args is None:
        checks.impossible(f"Tool call `{call_id}`: {problem}")
    return tool_call(
        name=checks.text(function, "name", (*where, "function")), args=args, id=call_id
    )


def _tool_result(message: dict[str, Any], where: Where) -> BaseMessage:
    return ToolMessage(
        content=_content(message, where, tuple(_PARTS)),
        tool_call_id=checks.text(message, "tool_call_id", where),
        status=checks.status_of(message, where),
    )


def _function_result(message: dict[str, Any], where: Where) -> BaseMessage:
    return FunctionMessage(
        content=_content(message, where, ("text",)), name=checks.text(message, "name", where)
    )


_READERS: dict[str, Callable[[dict[str, Any], Where], BaseMessage]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
    "function": _function_result,
}


# Content


def _content(message: dict[str, Any], where: Where, allowed: tuple[str, ...]) -> Any:
    content = message.get("content")
    where = (*where, "content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        checks.wrong(where, "a string or an array of parts", content)
    if not content:
        checks.unknown(where, "at least one part", content)
    for i, part in enumerate(content):
        _check_part(part, (*where, i), allowed)
    return content


def _check_part(part: Any, where: Where, allowed: tuple[str, ...]) -> None:
    if not isinstance(part, dict):
        checks.wrong(where, "an object", part)
    kind = part.get("type")
    if kind not in allowed:
        kinds = ", ".join(f"`{one}`" for one in allowed)
        checks.unknown((*where, "type"), f"one of {kinds}", kind)
    _PARTS_AND_REFUSAL[kind](part, where)


def _check_text(part: dict[str, Any], where: Where) -> None:
    checks.text(part, "text", where)


def _check_refusal(part: dict[str, Any], where: Where) -> None:
    checks.text(part, "refusal", where)


def _inner(part: dict[str, Any], where: Where) -> tuple[dict[str, Any], Where]:
    key = part["type"]
    if not isinstance(part.get(key), dict):
        checks.wrong((*where, key), "an object", part.get(key))
    return part[key], (*where, key)


def _check_image(part: dict[str, Any], where: Where) -> None:
    image, where = _inner(part, where)
    url = checks.text(image, "url", where)
    if not (checks.is_web_url(url) or checks.is_data_uri(url, "image/")):
        checks.impossible(
            f"The image at {checks.place(where)} is neither an http(s) URL nor a base64 data URI "
            "of an image type."
        )
    checks.one_of(image, "detail", ("auto", "low", "high"), where)


def _check_audio(part: dict[str, Any], where: Where) -> None:
    audio, where = _inner(part, where)
    if audio.get("format") not in ("wav", "mp3"):
        checks.unknown((*where, "format"), "`wav` or `mp3`", audio.get("format"))
    if not checks.is_base64(checks.text(audio, "data", where)):
        checks.impossible(f"The audio at {checks.place(where)} is not base64.")


def _check_file(part: dict[str, Any], where: Where) -> None:
    file, where = _inner(part, where)
    if file.get("file_id") is not None:
        checks.text(file, "file_id", where)
    elif not checks.is_data_uri(checks.text(file, "file_data", where)):
        checks.impossible(f"`file_data` at {checks.place(where)} is not a base64 data URI.")


_PARTS: dict[str, Callable[[dict[str, Any], Where], None]] = {
    "text": _check_text,
    "image_url": _check_image,
    "input_audio": _check_audio,
    "file": _check_file,
}
_PARTS_AND_REFUSAL = {**_PARTS, "refusal": _check_refusal}
