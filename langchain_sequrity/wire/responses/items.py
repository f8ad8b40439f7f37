"""Items of a response's output as the content of a LangChain message.

The content is the text where there is nothing else to say, and otherwise a list of blocks in the
order of the output: a part of a message is a block `text` or `refusal` with the `id` of its
message, and every other item stands as it came, without what is null. Function calls are
`tool_calls` too. What has another shape raises one of `MISSHAPEN`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import InvalidToolCall
from langchain_core.messages.content import KNOWN_BLOCK_TYPES
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call

from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.media import is_media

Item = Mapping[str, Any]
Block = dict[str, Any]

_BLOCKS = ("output_text", "tool_use")
# What LangChain puts into blocks.
_MARKS = frozenset({"index", "extras"})
# What a message says of itself and a block has no place or another one for.
_MESSAGE = _MARKS | {"type", "role", "content", "status", "text", "refusal", "annotations"}
_PART = _MARKS | {"type", "text", "annotations", "logprobs", "id"}
_PLAIN = {"type", "text", "id"}


@dataclass(frozen=True, slots=True)
class Output:
    """An output as the fields of a message.

    Attributes:
        blocks: All that is said, in order.
        refusal: Text of all refusals.
        tool_calls: Calls of functions.
        invalid_tool_calls: Those whose arguments did not parse.
    """

    blocks: list[Block]
    refusal: str
    tool_calls: list[ToolCall]
    invalid_tool_calls: list[InvalidToolCall]

    @property
    def content(self) -> str | list[str | dict[Any, Any]]:
        """The text, if there is nothing else to say; otherwise the blocks."""
        if not self.blocks:
            return ""
        [first, *others] = self.blocks
        if not others and first["type"] == "text" and first.keys() <= _PLAIN:
            text: str = first["text"]
            return text
        return [*self.blocks]


def read_output(items: Iterable[Item]) -> Output:
    """Read an output.

    Args:
        items: The items.

    Returns:
        The fields of the message that it makes.

    Raises:
        KeyError: If an item lacks something; other errors of `MISSHAPEN` if it has another shape.
    """
    blocks = [block for item in items for block in read_item(item)]
    good: list[ToolCall] = []
    bad: list[InvalidToolCall] = []
    for block in blocks:
        if block["type"] == "function_call":
            name, text, call_id = block["name"], block["arguments"], block["call_id"]
            args, problem = read_arguments(text)
            if args is None:
                bad.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
            else:
                good.append(tool_call(name=name, args=args, id=call_id))
    refusal = "".join(block["refusal"] for block in blocks if block["type"] == "refusal")
    return Output(blocks, refusal, good, bad)


def read_item(item: Item) -> list[Block]:
    """Read one item: the blocks that it makes, one per part of a message."""
    kind = string(item, "type")
    if kind == "message":
        named = identity(item)
        return [read_part(part, named) for part in item.get("content") or ()]
    if kind == "function_call":
        for key in ("name", "call_id", "arguments"):
            string(item, key)
    elif kind == "reasoning":
        for part in (*(item.get("summary") or ()), *(item.get("content") or ())):
            string(part, "text")
    return [_item(item)]


def _item(item: Item) -> Block:
    if is_block(string(item, "type")):
        msg = f"`{item['type']}` is the type of a block and of nothing that a response has."
        raise TypeError(msg)
    return {key: value for key, value in item.items() if value is not None and key not in _MARKS}


def is_block(kind: str) -> bool:
    """Whether a type is one of LangChain's, or of another format, and so of no item."""
    known = kind in KNOWN_BLOCK_TYPES and kind != "reasoning"
    return known or kind in _BLOCKS or is_media({"type": kind})


def identity(item: Item) -> Block:
    """What every block of a message says of the message: its id, and what is not known here."""
    named = {key: value for key, value in item.items() if key not in _MESSAGE and value is not None}
    if "id" in named:
        string(named, "id")
    return named


def read_part(part: Item, named: Block) -> Block:
    """Read one part of a message that is known by its `identity`."""
    kind = string(part, "type")
    if kind == "refusal":
        return {**named, "type": kind, "refusal": string(part, "refusal")}
    if kind not in ("output_text", "text"):
        return {**named, **_item(part)}
    others = {key: value for key, value in part.items() if key not in _PART and value is not None}
    block = {**others, **named, "type": "text", "text": string(part, "text")}
    if annotations := part.get("annotations"):
        block["annotations"] = [dict(one) for one in annotations]
    return block


def string(value: Item, key: str) -> str:
    """The string under a key; raises one of `MISSHAPEN` for anything else."""
    found = value[key]
    if not isinstance(found, str):
        msg = f"`{key}` is not a string."
        raise TypeError(msg)
    return found
