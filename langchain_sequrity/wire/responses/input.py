"""The items of a request, checked and read: the conversation as the local server sees it.

Several items of the assistant that stand together are one message. It has text alone where that is
all there is, apart from calls; otherwise its content is the list of blocks that a client reads from
a reply (`items`), with the ids that the items have.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.checks import array, by, maybe, text_or
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.responses.items import Block, Item, is_block, read_output
from langchain_sequrity.wire.responses.parts import PARTS, TEXTS, content_of, read_content

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
