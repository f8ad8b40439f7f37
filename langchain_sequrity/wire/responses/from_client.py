"""The body of a Responses request, checked and read: what the local server is asked.

The body is untrusted; `checks` refuses what the protocol does not describe.

Parts of a request's content: what they look like, and how they are read.

Each becomes one of LangChain's standard blocks, which every brain knows.

The items of a request, checked and read: the conversation as the local server sees it.

Several items of the assistant that stand together are one message. It has text alone where that is
all there is, apart from calls; otherwise its content is the list of blocks that a client reads from
a reply (`items`), with the ids that the items have.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_sequrity.errors import status_error
from langchain_sequrity.wire import checks
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.checks import Form, array, between, by, maybe, text_or
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.media import Media, read_media
from langchain_sequrity.wire.responses.from_server import Block, Item, is_block, read_output
from langchain_sequrity.wire.tools import Function, neutral

RawPart = dict[str, Any]

_DETAIL = {"detail": maybe(Literal["auto", "low", "high", "original"])}
_TEXT = {"input_text": {"text": str}}
_PARTS = {
    **_TEXT,
    "input_image": by(
        "image_url",
        {
            "by id": {**_DETAIL, "file_id": str},
            "by URL": {**_DETAIL, "image_url": checks.IMAGE_URL},
        },
        kind_of=lambda part: "by URL" if part.get("file_id") is None else "by id",
    ),
    "input_audio": {"input_audio": checks.AUDIO},
    "input_file": checks.with_one_of(
        {
            "filename": maybe(str),
            "file_id": maybe(str),
            "file_url": maybe(checks.WEB_URL),
            "file_data": maybe(checks.DATA_URI),
        },
        "file_id",
        "file_url",
        "file_data",
    ),
}


def content_of(parts: dict[str, Any]) -> Form:
    """Content: text, or these parts, by type."""
    return text_or(array(by("type", parts), least=1), "parts")


TEXTS = content_of(_TEXT)
PARTS = content_of(_PARTS)


def read_content(content: Any) -> Any:
    """Read content: text as it is, parts as standard blocks."""
    return content if isinstance(content, str) else [_read_part(part) for part in content]


def _read_part(part: RawPart) -> RawPart:
    if part["type"] == "input_text":
        return {"type": "text", "text": part["text"]}
    if part.get("file_id") is not None:  # images may have both
        part = {key: value for key, value in part.items() if key != "image_url"}
    block = _standard(read_media(part))
    detail = part.get("detail") if part["type"] == "input_image" else None
    return block if detail is None else {**block, "extras": {"detail": detail}}


def _standard(media: Media) -> RawPart:
    block: RawPart = {"type": media.kind}
    if media.file_id is not None:
        block["file_id"] = media.file_id
    elif media.data is not None:
        block |= {"base64": media.data, "mime_type": media.mime_type}
    else:
        block["url"] = media.url
    if media.name is not None:
        block["filename"] = media.name
    return block


_SAID = {"annotations": maybe(array(checks.OBJECT))}
_MESSAGE = {
    "system": {"content": TEXTS},
    "developer": {"content": TEXTS},
    "user": {"content": PARTS},
    "assistant": {
        "id": maybe(str),
        "phase": maybe(str),
        "content": content_of(
            {"output_text": {**_SAID, "text": str}, "refusal": {**_SAID, "refusal": str}}
        ),
    },
}
_THOUGHTS = maybe(array({"text": str}))
_KEPT = {"id": maybe(str)}
_ITEM = {
    "message": by("role", _MESSAGE),
    "function_call": {"id": maybe(str), "call_id": str, "name": str, "arguments": str},
    "function_call_output": {"call_id": str, "output": PARTS, "is_error": maybe(bool)},
    "reasoning": {
        "id": maybe(str),
        "encrypted_content": maybe(str),
        "summary": _THOUGHTS,
        "content": _THOUGHTS,
    },
    # Items that the server has no use for are the assistant's, and kept as they are: calls of tools
    # that the service would run itself, and what came out of them.
    "*_call": _KEPT,
    "*_output": _KEPT,
    "mcp_list_tools": _KEPT,
    "mcp_approval_request": _KEPT,
    "mcp_approval_response": _KEPT,
    "compaction": _KEPT,
    "item_reference": checks.should(
        Any,
        lambda _: False,
        "be the item itself: this server keeps no items. Or go on with `previous_response_id`",
        possible=False,
    ),
}


def _kind(item: Mapping[str, Any]) -> Any:
    kind = item.get("type")
    if kind is None:  # a reference need not say that it is one
        return "message" if item.get("role") is not None else "item_reference"
    if isinstance(kind, str) and is_block(kind) and kind not in _ITEM:  # whatever it ends with
        return None
    return kind


INPUT = {
    "instructions": maybe(str),
    "input": maybe(text_or(array(by("type", _ITEM, kind_of=_kind)), "items")),
    "previous_response_id": maybe(str),
}


def read_input(body: Mapping[str, Any]) -> list[BaseMessage]:
    """Read the conversation of a request.

    Args:
        body: The body, checked.

    Returns:
        Its messages, `instructions` first. They are only what is new where the request goes on from
        an earlier reply.

    Raises:
        InvalidRequest: If there is nothing in it, or arguments of a call are not JSON.
    """
    instructions, given = body.get("instructions"), body.get("input")
    messages: list[BaseMessage] = [SystemMessage(instructions)] if instructions else []
    if not given and body.get("previous_response_id") is None:
        checks.impossible("`input` is empty. Send text, or at least one item.")
    if isinstance(given, str):
        return [*messages, HumanMessage(given)]
    said: list[Item] = []
    for item in given or ():
        message = _of_others(item)
        if message is None:
            said.append(_said(item))
            continue
        messages += _assistant(said)
        said = []
        messages.append(message)
    return [*messages, *_assistant(said)]


def _of_others(item: dict[str, Any]) -> BaseMessage | None:
    if item.get("type") == "function_call_output":
        return ToolMessage(
            content=read_content(item["output"]),
            tool_call_id=item["call_id"],
            status=checks.status_of(item),
        )
    role = item["role"] if item.get("type") in (None, "message") else "assistant"
    if role == "user":
        return HumanMessage(content=read_content(item["content"]))
    if role == "assistant":
        return None
    extra = {"__openai_role__": role} if role == "developer" else {}
    return SystemMessage(content=read_content(item["content"]), additional_kwargs=extra)


# Items of the assistant


def _assistant(items: list[Item]) -> Iterable[AIMessage]:
    if not items:
        return
    output = read_output(items)
    plain = _is_plain(output.blocks)
    text = "".join(block["text"] for block in output.blocks if block["type"] == "text")
    yield AIMessage(
        content=text if plain else [*output.blocks],
        additional_kwargs={"refusal": output.refusal} if output.refusal else {},
        tool_calls=output.tool_calls,
        # Blocks mean nothing without it; text does.
        response_metadata={} if plain else {"model_provider": MODEL_PROVIDER},
    )


_ORDER = ("text", "refusal", "function_call")
_BARE = {
    "text": {"type", "text"},
    "refusal": {"type", "refusal"},
    "function_call": {"type", "call_id", "name", "arguments"},
}


def _is_plain(blocks: list[Block]) -> bool:
    """Whether text, refusal and calls, in this order and each without a name, are all there is."""
    kinds = [block["type"] for block in blocks]
    if any(kinds.count(kind) > 1 for kind in ("text", "refusal")):
        return False
    if not all(block.keys() == _BARE.get(block["type"]) for block in blocks):
        return False
    return kinds == sorted(kinds, key=_ORDER.index)


def _said(item: dict[str, Any]) -> Item:
    if item.get("type") == "function_call":
        args, problem = read_arguments(item["arguments"])
        if args is None:
            checks.impossible(f"Function call `{item['call_id']}`: {problem}")
    elif item.get("type") in (None, "message"):
        content = item["content"]
        parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
        return {**item, "type": "message", "content": parts}
    return item


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
