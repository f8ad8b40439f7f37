"""The body of a chat/completions request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import ToolCall, tool_call

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, between, by, maybe, text_or
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

# What a body looks like

_TEXT = {"text": str}
_PART = {
    "text": _TEXT,
    "image_url": {
        "image_url": {"url": checks.IMAGE_URL, "detail": maybe(Literal["auto", "low", "high"])}
    },
    "input_audio": {"input_audio": checks.AUDIO},
    "file": {
        "file": checks.with_one_of(
            {"file_id": maybe(str), "file_data": maybe(checks.DATA_URI)}, "file_id", "file_data"
        )
    },
}


def _content(parts: Mapping[str, Any]) -> Any:
    return text_or(array(by("type", parts), least=1), "parts")


_CALL = {"id": str, "function": {"name": str, "arguments": str}}
_SYSTEM = {"name": maybe(str), "content": _content({"text": _TEXT})}
_USER = {"name": maybe(str), "content": _content(_PART)}
_ASSISTANT = {
    "name": maybe(str),
    "content": maybe(_content({"text": _TEXT, "refusal": {"refusal": str}})),
    "refusal": maybe(str),
    "audio": maybe({"id": str}),
    "tool_calls": maybe(array(_CALL)),
}
_MESSAGE = {
    "system": _SYSTEM,
    "developer": _SYSTEM,
    "user": _USER,
    "assistant": checks.should(
        _ASSISTANT,
        lambda said: (
            said.get("content") is not None
            or any(map(said.get, ("refusal", "audio", "tool_calls")))
        ),
        "have `content` or `tool_calls`",
        possible=False,
    ),
    "tool": {**_USER, "tool_call_id": str, "is_error": maybe(bool)},
    "function": {**_SYSTEM, "name": str},
}

_FUNCTION = {
    "name": checks.TOOL_NAME,
    "parameters": maybe(checks.JSON_SCHEMA),
    "output_schema": maybe(checks.JSON_SCHEMA),
}
_TOOLS = checks.Body({"tools": maybe(array({"type": Literal["function"], "function": _FUNCTION}))})

_FORMAT = {
    "text": {},
    "json_object": {},
    "json_schema": {"json_schema": checks.with_schema(maybe(checks.JSON_SCHEMA), {"name": str})},
}


def _chosen(choice: Any) -> Any:
    function = choice.get("function") if isinstance(choice, dict) else None
    return function.get("name") if isinstance(function, dict) else None


_BODY = checks.Body(
    {
        "model": str,
        "messages": array(by("role", _MESSAGE)),
        "tool_choice": checks.choice_or(_chosen, "{type: function, function: {name}}"),
        "response_format": maybe(by("type", _FORMAT)),
        "stop": maybe(text_or(array(str), "strings")),
        "max_tokens": maybe(checks.at_least(1)),
        "max_completion_tokens": maybe(checks.at_least(1)),
        "stream": maybe(bool),
        "stream_options": maybe(checks.OBJECT),
        "parallel_tool_calls": maybe(bool),
        "temperature": maybe(between(0, 2)),
        "top_p": maybe(between(0, 1)),
        "top_logprobs": maybe(between(0, 20, int)),
        "n": maybe(between(1, 128, int)),
        "frequency_penalty": maybe(between(-2, 2)),
        "presence_penalty": maybe(between(-2, 2)),
    }
)


# Reading it


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        What is asked, with LangChain messages.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    _BODY.check(body)
    if not body["messages"]:
        checks.impossible("`messages` is empty. Send at least one message.")
    tools, _ = read_tools(body)
    choice = body.get("tool_choice")
    return ChatRequest(
        model=body["model"],
        messages=[_READERS[message["role"]](message) for message in body["messages"]],
        tools=tools,
        tool_choice=checks.neutral_choice(choice, _chosen(choice), tools),
        response_format=_response_format(body.get("response_format")),
        stop=checks.stops(body.get("stop")),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stream=body.get("stream") or False,
        stream_usage=(body.get("stream_options") or {}).get("include_usage") is True,
        parallel_tool_calls=body.get("parallel_tool_calls") is not False,
        options={key: value for key, value in body.items() if key not in _READ_FIELDS},
    )


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The function tools in neutral form; the format has no others, so that the second is empty."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    checks.distinct_tools(tools)
    return tools, []


def _response_format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    kind = value["type"]
    if kind != "json_schema":
        return {"type": kind}
    inner = checks.plain_schema(value["json_schema"])
    schema = inner.get("schema") or {"type": "object"}
    return {"type": kind, "json_schema": {**inner, "schema": schema}}


def _system(message: dict[str, Any]) -> BaseMessage:
    role = message["role"]
    return SystemMessage(
        content=message["content"],
        name=message.get("name"),
        additional_kwargs={"__openai_role__": role} if role == "developer" else {},
    )


def _user(message: dict[str, Any]) -> BaseMessage:
    return HumanMessage(content=message["content"], name=message.get("name"))


def _assistant(message: dict[str, Any]) -> BaseMessage:
    content, refusal, audio = map(message.get, ("content", "refusal", "audio"))
    extra = {} if refusal is None else {"refusal": refusal}
    return AIMessage(
        content="" if content is None else content,
        name=message.get("name"),
        additional_kwargs=extra if audio is None else {**extra, "audio": {"id": audio["id"]}},
        tool_calls=[_call(call) for call in message.get("tool_calls") or ()],
    )


def _call(call: dict[str, Any]) -> ToolCall:
    args, problem = read_arguments(call["function"]["arguments"])
    if args is None:
        checks.impossible(f"Tool call `{call['id']}`: {problem}")
    return tool_call(name=call["function"]["name"], args=args, id=call["id"])


def _tool_result(message: dict[str, Any]) -> BaseMessage:
    return ToolMessage(
        content=message["content"],
        tool_call_id=message["tool_call_id"],
        status=checks.status_of(message),
    )


def _function_result(message: dict[str, Any]) -> BaseMessage:
    return FunctionMessage(content=message["content"], name=message["name"])


_READERS: Mapping[str, Callable[[dict[str, Any]], BaseMessage]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
    "function": _function_result,
}
