"""Items of a response as the content of a LangChain message.

Content is text if there is nothing else, and otherwise a list of blocks in the order of the output.
A part of a message is a block `text` or `refusal` with the `id` of its message. Every other item is
a block as it came, without null fields. Function calls are in `tool_calls` too. Any other shape
raises one of `MISSHAPEN`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import InvalidToolCall
from langchain_core.messages.content import KNOWN_BLOCK_TYPES
from langchain_core.messages.tool import ToolCall

from langchain_sequrity.wire.media import is_media
from langchain_sequrity.wire.tools import check_call_id, parse_calls

Item = Mapping[str, Any]
Block = dict[str, Any]

_BLOCKS = ("output_text", "tool_use")
# Keys that LangChain adds to blocks.
_MARKS = frozenset({"index", "extras"})
# Keys of a message that its blocks do not have, or have in another form.
_MESSAGE = _MARKS | {"type", "role", "content", "status", "text", "refusal", "annotations"}
_PART = _MARKS | {"type", "text", "annotations", "logprobs", "id"}
_PLAIN = {"type", "text", "id"}


@dataclass(frozen=True, slots=True)
class OutputFields:
    """The output of a response as fields of a message.

    Attributes:
        blocks: All blocks, in order.
        refusal: Text of all refusals.
        tool_calls: Calls of functions.
        invalid_tool_calls: Calls whose arguments did not parse.
    """

    blocks: list[Block]
    refusal: str
    tool_calls: list[ToolCall]
    invalid_tool_calls: list[InvalidToolCall]

    @property
    def content(self) -> str | list[str | dict[Any, Any]]:
        """The text if there is nothing else; otherwise the blocks."""
        if not self.blocks:
            return ""
        [first, *others] = self.blocks
        if not others and first["type"] == "text" and first.keys() <= _PLAIN:
            text: str = first["text"]
            return text
        return [*self.blocks]


def read_output(items: Iterable[Item], *, is_cut: bool, constants: bool = False) -> OutputFields:
    """Read the items of an output. Raises one of `MISSHAPEN` for a wrong shape.

    Args:
        items: The items.
        is_cut: Whether the response may have ended before it was complete.
        constants: As for `parse_calls`.
    """
    blocks = [block for item in items for block in read_item(item)]
    unparsed = (
        (
            call["name"],
            call["arguments"],
            call["call_id"],
            is_unfinished(call, call["arguments"], is_cut=is_cut, is_last=call is blocks[-1]),
        )
        for call in blocks
        if call["type"] == "function_call"
    )
    calls, invalid_calls = parse_calls(unparsed, constants=constants)
    refusal = "".join(block["refusal"] for block in blocks if block["type"] == "refusal")
    return OutputFields(blocks, refusal, calls, invalid_calls)


def is_unfinished(call: Item, arguments: str, *, is_cut: bool, is_last: bool) -> bool:
    """Whether a response ended within a call, whatever its arguments are.

    Args:
        call: The item of the call.
        arguments: Its arguments.
        is_cut: Whether the response may have ended before it was complete.
        is_last: Whether the call is the last item.
    """
    status = call.get("status")
    is_open = status == "in_progress" or not arguments
    return status == "incomplete" or (is_cut and is_last and is_open)


def read_item(item: Item) -> list[Block]:
    """Read one item as blocks, one per part of a message."""
    item_type = string(item, "type")
    if item_type == "message":
        identity = message_identity(item)
        return [read_part(part, identity) for part in item.get("content") or ()]
    if item_type == "function_call":
        for key in ("name", "arguments"):
            string(item, key)
        check_call_id(item.get("call_id"))
    elif item_type == "reasoning":
        for part in (*(item.get("summary") or ()), *(item.get("content") or ())):
            string(part, "text")
    return [_item(item)]


def _item(item: Item) -> Block:
    if is_block(string(item, "type")):
        msg = f"`{item['type']}` is a type of block that responses do not have."
        raise TypeError(msg)
    block = {k: value for k, value in item.items() if value is not None and k not in _MARKS}
    string({"id": "", **block}, "id")
    return block


def is_block(block_type: str) -> bool:
    """Whether a type belongs to LangChain or another format, so that no item has it."""
    is_of_langchain = block_type in KNOWN_BLOCK_TYPES and block_type != "reasoning"
    return is_of_langchain or block_type in _BLOCKS or is_media({"type": block_type})


def message_identity(item: Item) -> Block:
    """Fields of a message that each of its blocks repeats: its id and unknown fields."""
    identity = {k: v for k, v in item.items() if k not in _MESSAGE and v is not None}
    if "id" in identity:
        string(identity, "id")
    return identity


def read_part(part: Item, identity: Block) -> Block:
    """Read one part of a message; `identity` is its `message_identity`."""
    part_type = string(part, "type")
    if part_type == "refusal":
        return {**identity, "type": part_type, "refusal": string(part, "refusal")}
    if part_type not in ("output_text", "text"):
        return {**identity, **_item(part)}
    others = {key: value for key, value in part.items() if key not in _PART and value is not None}
    block = {**others, **identity, "type": "text", "text": string(part, "text")}
    if annotations := part.get("annotations"):
        block["annotations"] = [dict(annotation) for annotation in annotations]
    return block


def string(value: Item, key: str) -> str:
    """Return the string under a key; raises one of `MISSHAPEN` for anything else."""
    text = value[key]
    if not isinstance(text, str):
        msg = f"`{key}` is not a string."
        raise TypeError(msg)
    return text
