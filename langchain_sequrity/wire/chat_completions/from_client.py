"""The body of a chat/completions request, checked and read: what the local server is asked.

The body is untrusted and the checks are strict, so that a client that passes here sends what the
protocol describes. A wrong shape is 422 with the place of the first problem, as FastAPI words it;
a right shape with impossible content is 400.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call

from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.json_text import read_arguments

Where = tuple[str | int, ...]

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
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
# Possessive, so that hostile white space is looked at once and not at each of its places.
_DATA_URI = re.compile(r"data:([\w.+-]++/[\w.+-]++);base64,[A-Za-z0-9+/\s]*+={0,2}\s*+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*+\Z")
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
        _wrong(("body",), "an object", body)
    messages = _list(body, "messages", required=True)
    if not messages:
        _impossible("`messages` is empty. Send at least one message.")
    tools = [_tool(tool, ("tools", i)) for i, tool in enumerate(_list(body, "tools"))]
    stream_options = _optional(body, "stream_options", dict) or {}
    _check_numbers(body)
    return ChatRequest(
        model=_text(body, "model", ()),
        messages=[_message(message, ("messages", i)) for i, message in enumerate(messages)],
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), tools),
        response_format=_response_format(body.get("response_format")),
        stop=_stop(body.get("stop")),
        max_tokens=_positive(body, "max_completion_tokens") or _positive(body, "max_tokens"),
        stream=_optional(body, "stream", bool) or False,
        stream_usage=stream_options.get("include_usage") is True,
        parallel_tool_calls=_optional(body, "parallel_tool_calls", bool) is not False,
        options={key: value for key, value in body.items() if key not in _READ_FIELDS},
    )


# Refusals


def _wrong(where: Where, expected: str, got: Any, kind: str = "type_error") -> NoReturn:
    name = {dict: "an object", list: "an array", str: "a string", type(None): "null"}.get(
        type(got), f"a {type(got).__name__}"
    )
    detail = {"loc": ["body", *where], "msg": f"Expected {expected}, got {name}.", "type": kind}
    msg = f"{'.'.join(map(str, where))}: {detail['msg']}"
    raise InvalidRequest(msg, status=422, body={"detail": [detail]})


def _unknown(where: Where, expected: str, got: Any) -> NoReturn:
    msg = f"Expected {expected}, got {got!r}."
    detail = {"loc": ["body", *where], "msg": msg, "type": "value_error"}
    raise InvalidRequest(msg, status=422, body={"detail": [detail]})


def _impossible(detail: str) -> NoReturn:
    raise InvalidRequest(detail, status=400, body={"detail": detail})


# Fields


def _text(value: Mapping[str, Any], key: str, where: Where) -> str:
    if not isinstance(value.get(key), str):
        _wrong((*where, key), "a string", value.get(key))
    return str(value[key])


def _list(value: Mapping[str, Any], key: str, *, required: bool = False) -> list[Any]:
    found = value.get(key)
    if found is None and not required:
        return []
    if not isinstance(found, list):
        _wrong((key,), "an array", found)
    return found


def _optional(value: Mapping[str, Any], key: str, kind: type) -> Any:
    found = value.get(key)
    if found is not None and not isinstance(found, kind):
        _wrong((key,), {bool: "a boolean", dict: "an object", int: "an integer"}[kind], found)
    return found


def _positive(value: Mapping[str, Any], key: str) -> int | None:
    found: int | None = _optional(value, key, int)
    if found is not None and (isinstance(found, bool) or found < 1):
        _unknown((key,), "an integer of at least 1", found)
    return found


_BOUNDS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "n": (1, 128),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}

_WHOLE = ("n", "top_logprobs")


def _check_numbers(body: Mapping[str, Any]) -> None:
    for key, (low, high) in _BOUNDS.items():
        found = body.get(key)
        if found is None:
            continue
        kinds = int if key in _WHOLE else int | float
        if isinstance(found, bool) or not isinstance(found, kinds):
            _wrong((key,), "an integer" if key in _WHOLE else "a number", found)
        if not low <= found <= high:
            _unknown((key,), f"a number from {low} to {high}", found)


def _stop(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        _wrong(("stop",), "a string or an array of strings", stop)
    return stops


def _tool(tool: Any, where: Where) -> dict[str, Any]:
    if not isinstance(tool, dict):
        _wrong(where, "an object", tool)
    if tool.get("type") != "function":
        _unknown((*where, "type"), "`function`", tool.get("type"))
    function = tool.get("function")
    if not isinstance(function, dict):
        _wrong((*where, "function"), "an object", function)
    name = _text(function, "name", (*where, "function"))
    if not _TOOL_NAME.match(name):
        _unknown((*where, "function", "name"), "1 to 64 letters, digits, `_` or `-`", name)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        _wrong((*where, "function", "parameters"), "a JSON Schema object", parameters)
    return tool


def _tool_choice(choice: Any, tools: list[dict[str, Any]]) -> str | dict[str, str] | None:
    if choice is None or choice in _CHOICES:
        if choice == "required" and not tools:
            _impossible("`tool_choice` is `required`, but `tools` is empty.")
        return choice  # type: ignore[no-any-return]
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        expected = "`auto`, `none`, `required` or {type: function, function: {name}}"
        _unknown(("tool_choice",), expected, choice)
    if name not in {tool["function"]["name"] for tool in tools}:
        _impossible(f"`tool_choice` names the tool `{name}`, which is not in `tools`.")
    return {"name": name}


def _response_format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        _wrong(("response_format",), "an object", value)
    kind = value.get("type")
    if kind in ("text", "json_object"):
        return {"type": kind}
    if kind != "json_schema":
        _unknown(("response_format", "type"), "`text`, `json_object` or `json_schema`", kind)
    inner = value.get("json_schema")
    if not isinstance(inner, dict):
        _wrong(("response_format", "json_schema"), "an object", inner)
    # The vendor's SDK sends the schema as `schema_`.
    schema = inner.get("schema", inner.get("schema_"))
    if schema is not None and not isinstance(schema, dict):
        _wrong(("response_format", "json_schema", "schema"), "an object", schema)
    _text(inner, "name", ("response_format", "json_schema"))
    rest = {key: value for key, value in inner.items() if key != "schema_"}
    return {"type": kind, "json_schema": {**rest, "schema": schema or {"type": "object"}}}


# Messages


def _message(message: Any, where: Where) -> BaseMessage:
    if not isinstance(message, dict):
        _wrong(where, "an object", message)
    role = message.get("role")
    read = _READERS.get(role) if isinstance(role, str) else None
    if read is None:
        roles = ", ".join(f"`{known}`" for known in _READERS)
        _unknown((*where, "role"), f"one of {roles}", role)
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        _wrong((*where, "name"), "a string", name)
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
        _wrong((*where, "tool_calls"), "an array", calls)
    refusal, audio = message.get("refusal"), message.get("audio")
    has_content = message.get("content") is not None
    if not (has_content or calls or refusal or audio):
        _impossible(f"Message {where[-1]} of the assistant has neither `content` nor `tool_calls`.")
    extra: dict[str, Any] = {}
    if refusal is not None:
        extra["refusal"] = _text(message, "refusal", where)
    if audio is not None:
        if not isinstance(audio, dict):
            _wrong((*where, "audio"), "an object", audio)
        extra["audio"] = {"id": _text(audio, "id", (*where, "audio"))}
    return AIMessage(
        content=_content(message, where, ("text", "refusal")) if has_content else "",
        name=message.get("name"),
        additional_kwargs=extra,
        tool_calls=[_call(call, (*where, "tool_calls", i)) for i, call in enumerate(calls)],
    )


def _call(call: Any, where: Where) -> Any:
    if not isinstance(call, dict):
        _wrong(where, "an object", call)
    call_id = _text(call, "id", where)
    function = call.get("function")
    if not isinstance(function, dict):
        _wrong((*where, "function"), "an object", function)
    arguments = _text(function, "arguments", (*where, "function"))
    args, problem = read_arguments(arguments)
    if args is None:
        _impossible(f"Tool call `{call_id}`: {problem}")
    return tool_call(name=_text(function, "name", (*where, "function")), args=args, id=call_id)


def _tool_result(message: dict[str, Any], where: Where) -> BaseMessage:
    return ToolMessage(
        content=_content(message, where, ("text",)),
        tool_call_id=_text(message, "tool_call_id", where),
    )


def _function_result(message: dict[str, Any], where: Where) -> BaseMessage:
    return FunctionMessage(
        content=_content(message, where, ("text",)), name=_text(message, "name", where)
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
        _wrong(where, "a string or an array of parts", content)
    if not content:
        _unknown(where, "at least one part", content)
    for i, part in enumerate(content):
        _check_part(part, (*where, i), allowed)
    return content


def _check_part(part: Any, where: Where, allowed: tuple[str, ...]) -> None:
    if not isinstance(part, dict):
        _wrong(where, "an object", part)
    kind = part.get("type")
    if kind not in allowed:
        kinds = ", ".join(f"`{one}`" for one in allowed)
        _unknown((*where, "type"), f"one of {kinds}", kind)
    _PARTS_AND_REFUSAL[kind](part, where)


def _check_text(part: dict[str, Any], where: Where) -> None:
    _text(part, "text", where)


def _check_refusal(part: dict[str, Any], where: Where) -> None:
    _text(part, "refusal", where)


def _inner(part: dict[str, Any], where: Where) -> tuple[dict[str, Any], Where]:
    key = part["type"]
    if not isinstance(part.get(key), dict):
        _wrong((*where, key), "an object", part.get(key))
    return part[key], (*where, key)


def _check_image(part: dict[str, Any], where: Where) -> None:
    image, where = _inner(part, where)
    url = _text(image, "url", where)
    if not (url.startswith(("https://", "http://")) or _is_data_uri(url, "image/")):
        _impossible(
            f"The image at {'.'.join(map(str, where))} is neither an http(s) URL nor a base64 "
            "data URI of an image type."
        )
    if image.get("detail", "auto") not in ("auto", "low", "high"):
        _unknown((*where, "detail"), "`auto`, `low` or `high`", image["detail"])


def _check_audio(part: dict[str, Any], where: Where) -> None:
    audio, where = _inner(part, where)
    if audio.get("format") not in ("wav", "mp3"):
        _unknown((*where, "format"), "`wav` or `mp3`", audio.get("format"))
    if not _BASE64.match(_text(audio, "data", where)):
        _impossible(f"The audio at {'.'.join(map(str, where))} is not base64.")


def _check_file(part: dict[str, Any], where: Where) -> None:
    file, where = _inner(part, where)
    if file.get("file_id") is not None:
        _text(file, "file_id", where)
    elif not _is_data_uri(_text(file, "file_data", where), ""):
        _impossible(f"`file_data` at {'.'.join(map(str, where))} is not a base64 data URI.")


def _is_data_uri(url: str, kind: str) -> bool:
    match = _DATA_URI.match(url)
    return match is not None and match[1].startswith(kind)


_PARTS: dict[str, Callable[[dict[str, Any], Where], None]] = {
    "text": _check_text,
    "image_url": _check_image,
    "input_audio": _check_audio,
    "file": _check_file,
}
_PARTS_AND_REFUSAL = {**_PARTS, "refusal": _check_refusal}
