"""The body of a Messages request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe. Content of users and
tools is read into LangChain's standard blocks, which every brain knows; what the assistant said
stays as it is, with `model_provider` "anthropic".

Content blocks of a request: what they look like, and how they are read.

Blocks of users and tools become LangChain's standard blocks; what is said beside them (titles,
cache marks, citations) goes into their `extras`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, at_least, between, by, maybe, text_or
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.messages.from_server import MODEL_PROVIDER
from langchain_sequrity.wire.tools import Function, neutral

Block = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+\Z")
_OWN = frozenset({"type", "text", "source"})

_ELSEWHERE = {"url": {"url": checks.WEB_URL}, "file": {"file_id": str}}
_IMAGE = {
    "media_type": Literal["image/jpeg", "image/png", "image/gif", "image/webp"],
    "data": checks.BASE64,
}
_DOCUMENT = {
    "base64": {"media_type": Literal["application/pdf"], "data": checks.BASE64},
    "text": {"media_type": Literal["text/plain"], "data": str},
    "content": {},
    **_ELSEWHERE,
}
_TEXT = {"text": checks.should(str, str.strip, "be more than white space")}
_PARTS = {
    "text": _TEXT,
    "image": {"source": by("type", {"base64": _IMAGE, **_ELSEWHERE})},
    "document": {"source": by("type", _DOCUMENT)},
    "search_result": {},
}
_RESULT = {
    "tool_use_id": str,
    "is_error": maybe(bool),
    "content": maybe(text_or(array(by("type", _PARTS)), "blocks")),
}
_THINKING_BLOCKS = {
    "thinking": str,
    "signature": checks.should(str, bool, "be the signature that came with it"),
}
_SAID = {
    "text": _TEXT,
    "thinking": by(
        "type",
        {"thinking": _THINKING_BLOCKS, "as documented": {"text": str}},
        kind_of=lambda block: "as documented" if _is_as_documented(block) else "thinking",
    ),
    "redacted_thinking": {"data": str},
    "tool_use": {
        "id": checks.should(str, _ID.match, "be letters, digits, `_` or `-`"),
        "name": checks.TOOL_NAME,
        "input": checks.OBJECT,
    },
    "*_tool_use": {},
    "*_tool_result": {},
}

SYSTEM = text_or(array(by("type", {"text": _TEXT})), "text blocks")
USER = text_or(array(by("type", {**_PARTS, "tool_result": _RESULT}), least=1), "blocks")
ASSISTANT = text_or(array(by("type", _SAID), least=1), "blocks")


def _is_as_documented(block: Block) -> bool:
    return "thinking" not in block and "text" in block


def read_part(block: Block) -> Block:
    """Read a block of a system prompt, of a user or of a tool's result as a standard block."""
    read = _READERS[block["type"]](block)
    extras = {key: value for key, value in block.items() if key not in _OWN and value is not None}
    return {**read, "extras": extras} if extras and read["type"] != "non_standard" else read


def _text(block: Block) -> Block:
    return {"type": "text", "text": block["text"]}


def _as_it_is(block: Block) -> Block:
    return {"type": "non_standard", "value": block}


def _media(block: Block) -> Block:
    source = block["source"]
    standard = "image" if block["type"] == "image" else "file"
    match source["type"]:
        case "url" | "file":
            key = "url" if source["type"] == "url" else "file_id"
            return {"type": standard, key: source[key]}
        case "content":
            return _as_it_is(block)
        case "text":
            return {"type": "text-plain", "text": source["data"], "mime_type": "text/plain"}
    return {"type": standard, "base64": source["data"], "mime_type": source["media_type"]}


_READERS: Mapping[str, Callable[[Block], Block]] = {
    "text": _text,
    "image": _media,
    "document": _media,
    "search_result": _as_it_is,
}


DOCUMENTED = frozenset(
    {
        "user_provided_program",
        "context_vars",
        "messages",
        "model",
        "max_tokens",
        "system",
        "temperature",
        "top_p",
        "top_k",
        "tools",
        "tool_choice",
        "thinking",
        "reasoning_effort",
        "stop_sequences",
        "stream",
        "output_config",
        "metadata",
        "service_tier",
        "timeout",
    }
)
_READ_FIELDS = {
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "stop_sequences",
    "max_tokens",
    "stream",
}
_LEAST_BUDGET = 1024
_OWN_TOOLS = ("custom", None)
_FORCED = ("any", "tool")
_SAME = ("name", "description", "strict", "output_schema")
_PLAIN_TEXT = {"type", "text"}

_CUSTOM = {
    "name": checks.TOOL_NAME,
    "input_schema": checks.JSON_SCHEMA,
    "output_schema": maybe(checks.JSON_SCHEMA),
}
_TOOL = by(
    "type",
    {"custom": _CUSTOM, "*": {"name": checks.TOOL_NAME}},
    kind_of=lambda tool: "custom" if tool.get("type") is None else tool["type"],
)
_TOOLS = checks.Body({"tools": maybe(array(_TOOL))})
_CHOICE = {"disable_parallel_tool_use": maybe(bool)}
_CHOICES = {
    "auto": _CHOICE,
    "any": _CHOICE,
    "tool": {**_CHOICE, "name": str},
    "none": _CHOICE,
}
_THINKING = {
    "enabled": {"budget_tokens": at_least(_LEAST_BUDGET)},
    "disabled": {},
    "adaptive": {},
}
_FORMAT = by("type", {"json_schema": checks.with_schema(checks.JSON_SCHEMA, {})})
_TURN = {
    "user": {"content": USER},
    "assistant": {"content": ASSISTANT},
    "system": {"content": SYSTEM},
}
_BODY = checks.Body(
    {
        "model": str,
        "max_tokens": at_least(1),
        "messages": array(by("role", _TURN)),
        "system": maybe(SYSTEM),
        "thinking": maybe(by("type", _THINKING)),
        "tool_choice": maybe(by("type", _CHOICES)),
        "output_config": maybe({"format": maybe(_FORMAT)}),
        "stop_sequences": maybe(array(str)),
        "stream": maybe(bool),
        "temperature": maybe(between(0, 1)),
        "top_p": maybe(between(0, 1)),
        "top_k": maybe(between(0, 1_000_000, int)),
        "service_tier": maybe(Literal["auto", "standard_only"]),
        "reasoning_effort": maybe(Literal["none", "minimal", "low", "medium", "high", "xhigh"]),
        "metadata": maybe(checks.OBJECT),
    }
)


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
    tools, server_tools = read_tools(body)
    thinks = _thinks(body)
    choice, parallel = _tool_choice(body.get("tool_choice"), tools, server_tools, thinks=thinks)
    options = {key: value for key, value in body.items() if key not in _READ_FIELDS}
    if thinks:
        options.setdefault("reasoning_effort", "medium")
    return ChatRequest(
        model=body["model"],
        messages=[*_system(body.get("system")), *_messages(body["messages"])],
        tools=tools,
        tool_choice=choice,
        response_format=_response_format(body),
        stop=body.get("stop_sequences") or [],
        max_tokens=body["max_tokens"],
        stream=body.get("stream") or False,
        stream_usage=True,
        parallel_tool_calls=parallel,
        server_tools=server_tools,
        options=options,
    )


# Fields


def _thinks(body: Mapping[str, Any]) -> bool:
    thinking = body.get("thinking") or {"type": "disabled"}
    if thinking["type"] == "enabled" and thinking["budget_tokens"] >= body["max_tokens"]:
        checks.impossible("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return bool(thinking["type"] != "disabled")


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The function tools in neutral form, and those that the service would run itself."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    functions = [_function(tool) for tool in tools if tool.get("type") in _OWN_TOOLS]
    checks.distinct_tools(functions)
    return functions, [tool for tool in tools if tool.get("type") not in _OWN_TOOLS]


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    same: dict[str, Any] = {key: tool.get(key) for key in _SAME}
    return neutral(Function(**same, parameters=tool["input_schema"]))


def _tool_choice(
    choice: dict[str, Any] | None,
    tools: list[dict[str, Any]],
    server_tools: list[dict[str, Any]],
    *,
    thinks: bool,
) -> tuple[str | dict[str, str] | None, bool]:
    """The choice in neutral form, and whether several calls are allowed."""
    if choice is None:
        return None, True
    kind = choice["type"]
    if not tools and not server_tools:
        checks.impossible("`tool_choice` is given, but `tools` is empty.")
    if thinks and kind in _FORCED:
        checks.impossible("`tool_choice` cannot force a tool while `thinking` is on.")
    several = choice.get("disable_parallel_tool_use") is not True
    if kind == "tool":
        return checks.chosen_tool(choice["name"], tools), several
    return ("required" if kind == "any" else kind), several


def _response_format(body: Mapping[str, Any]) -> dict[str, Any] | None:
    shape = (body.get("output_config") or {}).get("format")
    if shape is None:
        return None
    schema = checks.plain_schema(shape)["schema"]
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _system(content: str | list[Any] | None) -> list[BaseMessage]:
    return [] if content is None or content == "" else [_system_message(content)]


def _system_message(content: str | list[Any]) -> SystemMessage:
    return SystemMessage(content=content if isinstance(content, str) else _read(content))


def _read(blocks: list[Any]) -> list[Any]:
    return [read_part(block) for block in blocks]


# Turns


def _messages(turns: list[dict[str, Any]]) -> list[BaseMessage]:
    if not turns:
        checks.impossible("`messages` is empty. Send at least one message.")
    messages: list[BaseMessage] = []
    before = "assistant"
    for index, turn in enumerate(turns):
        role, content = turn["role"], turn["content"]
        if role == "system":  # in the middle of a conversation; it is no turn
            messages.append(_system_message(content))
            continue
        if role == before:
            checks.impossible(
                f"Message {index} is the {role}'s, and so is the one before. Roles alternate and "
                "begin with the user's: put messages of one side into one."
            )
        before = role
        messages += _user(content, index) if role == "user" else [_assistant(content)]
    return messages


def _user(content: str | list[Any], index: int) -> Iterator[BaseMessage]:
    """What the user's turn holds: results of tools first, then what the user says."""
    if isinstance(content, str):
        yield HumanMessage(content=content)
        return
    said: list[Any] = []
    for position, block in enumerate(content):
        if block["type"] != "tool_result":
            said.append(read_part(block))
            continue
        if said:
            checks.impossible(
                f"The tool result at messages.{index}.content.{position} stands behind other "
                "blocks. Tool results come first."
            )
        yield _tool_result(block)
    if not said:
        return
    # Beside results even plain text has to be a block.
    is_plain = len(said) == 1 < len(content) and said[0].keys() == _PLAIN_TEXT
    yield HumanMessage(content=said[0]["text"] if is_plain else said)


def _tool_result(block: dict[str, Any]) -> ToolMessage:
    content = block.get("content")
    return ToolMessage(
        content=_read(content) if isinstance(content, list) else content or "",
        tool_call_id=block["tool_use_id"],
        status=checks.status_of(block),
    )


def _assistant(content: str | list[Any]) -> BaseMessage:
    if isinstance(content, str):
        return AIMessage(content=content)
    calls = [block for block in content if block["type"] == "tool_use"]
    return AIMessage(
        content=content,
        tool_calls=[tool_call(name=one["name"], args=one["input"], id=one["id"]) for one in calls],
        response_metadata={"model_provider": MODEL_PROVIDER},
    )
