"""The items of a request, checked and read: the conversation as the local server sees it.

Several items of the assistant that stand together are one message. It has text alone where that is
all there is, apart from calls; otherwise its content is the list of blocks that a client reads from
a reply (`items`), with the ids that the items have.
"""

from collections.abc import Callable, Iterable, Mapping
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
from langchain_sequrity.wire.checks import Where
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.responses.items import Block, Item, is_block, read_output
from langchain_sequrity.wire.responses.parts import (
    EVERY_PART,
    a_list_of_parts,
    read_content,
)

# Items that the server has no use for are the assistant's, and kept as they are: calls of tools
# that the service would run itself, and what came out of them.
_KEPT_ENDS = ("_call", "_output")
_KEPT = ("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "compaction")


def read_input(body: Mapping[str, Any]) -> list[BaseMessage]:
    """Read the conversation of a request.

    Args:
        body: The body.

    Returns:
        Its messages, `instructions` first. They are only what is new where the request goes on from
        an earlier reply.

    Raises:
        InvalidRequest: If an item is not one that the protocol describes.
    """
    instructions = checks.optional(body, "instructions", str)
    messages: list[BaseMessage] = [SystemMessage(instructions)] if instructions else []
    given = body.get("input")
    if not given and body.get("previous_response_id") is None:
        checks.impossible("`input` is empty. Send text, or at least one item.")
    if isinstance(given, str):
        return [*messages, HumanMessage(given)]
    if not isinstance(given, list | None):
        checks.wrong(("input",), "a string or an array of items", given)
    said: list[Item] = []
    for index, item in enumerate(given or ()):
        where = ("input", index)
        kind = _kind(checks.an_object(item, where), where)
        if check := _SAID.get(kind):
            said.append(check(item, where))
            continue
        messages += _assistant(said)
        said = []
        messages.append(_READERS[kind](item, where))
    return [*messages, *_assistant(said)]


def _kind(item: Mapping[str, Any], where: Where) -> str:
    """What an item is: its type, or the role of a message."""
    kind, role = item.get("type"), item.get("role")
    if kind == "item_reference" or (kind is None and role is None):
        checks.impossible(
            f"{checks.place(where)} refers to an item, but this server keeps no items. Send the "
            "item itself, or go on with `previous_response_id`."
        )
    if kind in (None, "message"):
        if role not in _ROLES:
            roles = ", ".join(f"`{known}`" for known in _ROLES)
            checks.unknown((*where, "role"), f"one of {roles}", role)
        return str(role)
    if isinstance(kind, str) and kind in ("reasoning", "function_call", "function_call_output"):
        return kind
    kept = isinstance(kind, str) and (kind.endswith(_KEPT_ENDS) or kind in _KEPT)
    if not kept or is_block(kind):
        expected = "the type of an item, such as `message`, `function_call` or `reasoning`"
        checks.unknown((*where, "type"), expected, kind)
    return "kept"


# Messages of others


def _system(item: dict[str, Any], where: Where) -> BaseMessage:
    role = item["role"]
    return SystemMessage(
        content=read_content(item, "content", where, ("input_text",)),
        additional_kwargs={"__openai_role__": role} if role == "developer" else {},
    )


def _user(item: dict[str, Any], where: Where) -> BaseMessage:
    return HumanMessage(content=read_content(item, "content", where, EVERY_PART))


def _result(item: dict[str, Any], where: Where) -> BaseMessage:
    return ToolMessage(
        content=read_content(item, "output", where, EVERY_PART),
        tool_call_id=checks.text(item, "call_id", where),
        status=checks.status_of(item, where),
    )


_READERS: dict[str, Callable[[dict[str, Any], Where], BaseMessage]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "function_call_output": _result,
}
_ROLES = ("system", "developer", "user", "assistant")


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


def _message(item: dict[str, Any], where: Where) -> Item:
    checks.optional(item, "id", str, where)
    checks.optional(item, "phase", str, where)
    content = item.get("content")
    if isinstance(content, str):
        parts: list[Any] = [{"type": "output_text", "text": content}]
    else:
        parts = a_list_of_parts(content, (*where, "content"))
        for index, part in enumerate(parts):
            _check_said(part, (*where, "content", index))
    return {**item, "type": "message", "content": parts}


def _check_said(part: Any, where: Where) -> None:
    kind = checks.an_object(part, where).get("type")
    if kind not in ("output_text", "refusal"):
        checks.unknown((*where, "type"), "`output_text` or `refusal`", kind)
    checks.text(part, "text" if kind == "output_text" else "refusal", where)
    for index, annotation in enumerate(checks.optional(part, "annotations", list, where) or ()):
        checks.an_object(annotation, (*where, "annotations", index))


def _reasoning(item: dict[str, Any], where: Where) -> Item:
    checks.optional(item, "id", str, where)
    checks.optional(item, "encrypted_content", str, where)
    for key in ("summary", "content"):
        for index, part in enumerate(checks.optional(item, key, list, where) or ()):
            place = (*where, key, index)
            checks.text(checks.an_object(part, place), "text", place)
    return item


def _call(item: dict[str, Any], where: Where) -> Item:
    checks.optional(item, "id", str, where)
    call_id = checks.text(item, "call_id", where)
    checks.text(item, "name", where)
    args, problem = read_arguments(checks.text(item, "arguments", where))
    if args is None:
        checks.impossible(f"Function call `{call_id}`: {problem}")
    return item


def _kept(item: dict[str, Any], where: Where) -> Item:
    checks.optional(item, "id", str, where)
    return item


_SAID: dict[str, Callable[[dict[str, Any], Where], Item]] = {
    "assistant": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "kept": _kept,
}
