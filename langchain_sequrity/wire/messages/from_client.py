"""The body of a Messages request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe. Content of users and
tools is read into LangChain's standard blocks, which every brain knows; what the assistant said
stays as it is, with `model_provider` "anthropic".
"""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import ToolCall, tool_call

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import Where
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.messages.from_server import MODEL_PROVIDER
from langchain_sequrity.wire.messages.parts import check_assistant_block, read_part, read_text
from langchain_sequrity.wire.tools import neutral, read_function

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
_BOUNDS = {"temperature": (0, 1), "top_p": (0, 1), "top_k": (0, 1_000_000)}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_LEAST_BUDGET = 1024
_FORCED = ("any", "tool")
_PLAIN_TEXT = {"type", "text"}


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        What is asked, with LangChain messages.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    checks.an_object(body, ("body",))
    max_tokens = checks.positive(body, "max_tokens")
    if max_tokens is None:
        checks.wrong(("max_tokens",), "an integer", None)
    tools, server_tools = read_tools(body)
    thinks = _thinks(body, max_tokens)
    choice, parallel = _tool_choice(body.get("tool_choice"), tools, server_tools, thinks=thinks)
    checks.numbers(body, _BOUNDS, ("top_k",))
    checks.one_of(body, "service_tier", ("auto", "standard_only"))
    checks.one_of(body, "reasoning_effort", _EFFORTS)
    checks.optional(body, "metadata", dict)
    options = {key: value for key, value in body.items() if key not in _READ_FIELDS}
    if thinks:
        options.setdefault("reasoning_effort", "medium")
    return ChatRequest(
        model=checks.text(body, "model", ()),
        messages=[*_system(body.get("system")), *_messages(body)],
        tools=tools,
        tool_choice=choice,
        response_format=_response_format(body),
        stop=checks.strings(body, "stop_sequences"),
        max_tokens=max_tokens,
        stream=checks.optional(body, "stream", bool) or False,
        stream_usage=True,
        parallel_tool_calls=parallel,
        server_tools=server_tools,
        options=options,
    )


# Fields


def _thinks(body: Mapping[str, Any], max_tokens: int) -> bool:
    thinking = checks.optional(body, "thinking", dict)
    if thinking is None:
        return False
    kind = thinking.get("type")
    if kind not in ("enabled", "disabled", "adaptive"):
        checks.unknown(("thinking", "type"), "`enabled`, `disabled` or `adaptive`", kind)
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < _LEAST_BUDGET:
            expected = f"an integer of at least {_LEAST_BUDGET}"
            checks.unknown(("thinking", "budget_tokens"), expected, budget)
        if budget >= max_tokens:
            checks.impossible("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return bool(kind != "disabled")


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The function tools in neutral form, and those that the service would run itself."""
    functions: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for index, tool in enumerate(checks.a_list(body, "tools")):
        where = ("tools", index)
        checks.an_object(tool, where)
        checks.tool_name(tool, where)
        if tool.get("type", "custom") not in ("custom", None):
            others.append(tool)
            continue
        if checks.json_schema(tool, "input_schema", where) is None:
            checks.wrong((*where, "input_schema"), "a JSON Schema object", None)
        checks.json_schema(tool, "output_schema", where)
        function = read_function(tool)
        if function is not None:
            functions.append(neutral(function))
    checks.distinct_tools(functions)
    return functions, others


def _tool_choice(
    choice: Any,
    tools: list[dict[str, Any]],
    server_tools: list[dict[str, Any]],
    *,
    thinks: bool,
) -> tuple[str | dict[str, str] | None, bool]:
    """The choice in neutral form, and whether several calls are allowed."""
    if choice is None:
        return None, True
    checks.an_object(choice, ("tool_choice",))
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        checks.unknown(("tool_choice", "type"), "`auto`, `any`, `tool` or `none`", kind)
    if not tools and not server_tools:
        checks.impossible("`tool_choice` is given, but `tools` is empty.")
    if thinks and kind in _FORCED:
        checks.impossible("`tool_choice` cannot force a tool while `thinking` is on.")
    single = checks.optional(choice, "disable_parallel_tool_use", bool, ("tool_choice",)) is True
    if kind != "tool":
        return ("required" if kind == "any" else kind), not single
    name = checks.text(choice, "name", ("tool_choice",))
    if name not in {tool["function"]["name"] for tool in tools}:
        checks.impossible(f"`tool_choice` names the tool `{name}`, which is not in `tools`.")
    return {"name": name}, not single


def _response_format(body: Mapping[str, Any]) -> dict[str, Any] | None:
    config = checks.optional(body, "output_config", dict) or {}
    where = ("output_config", "format")
    shape = checks.optional(config, "format", dict, ("output_config",))
    if shape is None:
        return None
    if shape.get("type") != "json_schema":
        checks.unknown((*where, "type"), "`json_schema`", shape.get("type"))
    # The vendor's SDK sends the schema as `schema_`.
    key = "schema" if "schema" in shape else "schema_"
    schema = checks.json_schema(shape, key, where)
    if schema is None:
        checks.wrong((*where, "schema"), "a JSON Schema object", None)
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _system(system: Any) -> list[BaseMessage]:
    if system is None or system == "":
        return []
    return [_system_message(system, ("system",))]


def _system_message(content: Any, where: Where) -> SystemMessage:
    if isinstance(content, str):
        return SystemMessage(content=content)
    if not isinstance(content, list):
        checks.wrong(where, "a string or an array of text blocks", content)
    blocks: list[Any] = [read_text(block, (*where, i)) for i, block in enumerate(content)]
    return SystemMessage(content=blocks)


# Turns


def _messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    turns = checks.a_list(body, "messages", required=True)
    if not turns:
        checks.impossible("`messages` is empty. Send at least one message.")
    messages: list[BaseMessage] = []
    before = "assistant"
    for index, turn in enumerate(turns):
        where = ("messages", index)
        checks.an_object(turn, where)
        role = turn.get("role")
        if role == "system":  # in the middle of a conversation; it is no turn
            messages.append(_system_message(turn.get("content"), (*where, "content")))
            continue
        if role not in ("user", "assistant"):
            checks.unknown((*where, "role"), "`user`, `assistant` or `system`", role)
        if role == before:
            checks.impossible(
                f"Message {index} is the {role}'s, and so is the one before. Roles alternate and "
                "begin with the user's: put messages of one side into one."
            )
        before = role
        messages += (_user if role == "user" else _assistant)(turn.get("content"), where)
    return messages


def _content(content: Any, where: Where) -> list[Any]:
    if not isinstance(content, list):
        checks.wrong((*where, "content"), "a string or an array of blocks", content)
    if not content:
        checks.unknown((*where, "content"), "at least one block", content)
    return content


def _user(content: Any, where: Where) -> Iterator[BaseMessage]:
    """What the user's turn holds: results of tools first, then what the user says."""
    if isinstance(content, str):
        yield HumanMessage(content=content)
        return
    said: list[Any] = []
    has_results = False
    for index, block in enumerate(_content(content, where)):
        place = (*where, "content", index)
        if isinstance(block, dict) and block.get("type") == "tool_result":
            if said:
                checks.impossible(
                    f"The tool result at {checks.place(place)} stands behind other blocks. Tool "
                    "results come first."
                )
            has_results = True
            yield _tool_result(block, place)
        else:
            said.append(read_part(block, place))
    if not said:
        return
    # Beside results even plain text has to be a block.
    is_plain = has_results and len(said) == 1 and said[0].keys() == _PLAIN_TEXT
    yield HumanMessage(content=said[0]["text"] if is_plain else said)


def _tool_result(block: dict[str, Any], where: Where) -> ToolMessage:
    content = block.get("content")
    if content is None:
        content = ""
    elif isinstance(content, list):
        content = [
            read_part(part, (*where, "content", index)) for index, part in enumerate(content)
        ]
    elif not isinstance(content, str):
        checks.wrong((*where, "content"), "a string or an array of blocks", content)
    return ToolMessage(
        content=content,
        tool_call_id=checks.text(block, "tool_use_id", where),
        status=checks.status_of(block, where),
    )


def _assistant(content: Any, where: Where) -> Iterator[BaseMessage]:
    if isinstance(content, str):
        yield AIMessage(content=content)
        return
    blocks = _content(content, where)
    for index, block in enumerate(blocks):
        check_assistant_block(block, (*where, "content", index))
    yield AIMessage(
        content=blocks,
        tool_calls=[_call(block) for block in blocks if block["type"] == "tool_use"],
        response_metadata={"model_provider": MODEL_PROVIDER},
    )


def _call(block: Mapping[str, Any]) -> ToolCall:
    return tool_call(name=block["name"], args=block["input"], id=block["id"])
