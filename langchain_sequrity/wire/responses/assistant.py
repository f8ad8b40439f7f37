"""What the assistant said, in whatever dialect, to items of Responses.

The content gives the order, and what the items are called; the message's own `tool_calls` say which
calls there are and with which arguments, since these are what users edit. A message that has none
was built from blocks alone, and then the blocks are believed. What another provider's model thought
stays behind: only reasoning with an id or encrypted content of its own means anything here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from langchain_sequrity.wire.blocks import CITATION, SERVED_TOOLS, THOUGHT, joined
from langchain_sequrity.wire.call_texts import text_of, texts_of
from langchain_sequrity.wire.json_text import dumps_like_service
from langchain_sequrity.wire.media import is_media
from langchain_sequrity.wire.responses.content import unfit

Block = Mapping[str, Any]
Item = dict[str, Any]

_CALLS = frozenset(
    {"function_call", "tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use"}
)
# Pieces of other providers' protocols.
_FOREIGN = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "reasoning_content",
        "input_json_delta",
        "server_tool_use",
        "server_tool_call_chunk",
    }
)
_OF_CALLS = frozenset({"type", "call_id", "name", "arguments", "index"})
_GENERATED = "lc_"
"""How ids begin that LangChain made up; the service does not know them."""


def write_assistant(message: AIMessage) -> list[Item]:
    """Write a message of the assistant.

    Args:
        message: The message.

    Returns:
        Its items, at least one.

    Raises:
        UsageError: For a block that an assistant cannot say.
    """
    refusal = message.additional_kwargs.get("refusal")
    if isinstance(message.content, str) and not refusal:  # the common case
        calls = _own_calls(message)
        said = message.content or not calls
        return [{"role": "assistant", "content": message.content}, *calls] if said else calls
    blocks = [_unwrapped(block) for block in joined(message.content)]
    if refusal and not any(block.get("type") == "refusal" for block in blocks):
        blocks.append({"type": "refusal", "refusal": refusal})
    placed, others = _calls(message, blocks)
    items: list[Item] = []
    for place, block in enumerate(blocks):
        kind = block.get("type")
        if kind in _CALLS:
            if call := placed.get(place):
                items.append({**call, **_item_of(block)})
        else:
            _WRITERS.get(kind, _other)(items, block)
    items += others
    return [_brief(item) for item in items] or [{"role": "assistant", "content": ""}]


def _unwrapped(block: Block) -> Block:
    value = block.get("value") if block.get("type") == "non_standard" else None
    return value if isinstance(value, Mapping) else block


# Calls


def _own_calls(message: AIMessage) -> list[Item]:
    texts = texts_of(message)
    calls = [_call(call["id"], call["name"], text_of(call, texts)) for call in message.tool_calls]
    # A call whose arguments did not parse was answered with an error message: both go back.
    calls += [
        _call(call["id"], call["name"] or "", call["args"] or "")
        for call in message.invalid_tool_calls
    ]
    return calls


def _calls(message: AIMessage, blocks: Sequence[Block]) -> tuple[dict[int, Item], list[Item]]:
    """The calls by the places of their blocks, and those that have none.

    Ids may have been replaced in `tool_calls` alone (`history`): what finds no block by its id
    takes the first one of the same name that finds no call.
    """
    calls = _own_calls(message)
    places = [place for place, block in enumerate(blocks) if block.get("type") in _CALLS]
    if not calls:
        return {place: _call_of(blocks[place]) for place in places}, []
    placed: dict[int, Item] = {}
    for key, read in (("call_id", _call_id), ("name", _name)):
        for place in places:
            if place not in placed and (call := _take(calls, key, read(blocks[place]))):
                placed[place] = call
    return placed, calls


def _take(calls: list[Item], key: str, value: Any) -> Item | None:
    for place, call in enumerate(calls):
        if call[key] == value:
            return calls.pop(place)
    return None


def _call(call_id: str | None, name: str, arguments: str) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _call_id(block: Block) -> Any:
    return block.get("call_id" if block["type"] == "function_call" else "id")


def _name(block: Block) -> Any:
    return block.get("name")


def _call_of(block: Block) -> Item:
    """The call that a block stands for by itself."""
    key = {"function_call": "arguments", "tool_use": "input"}.get(block["type"], "args")
    arguments = block.get(key)
    text = arguments if isinstance(arguments, str | None) else dumps_like_service(arguments)
    return _call(_call_id(block), block.get("name") or "", text or "")


def _item_of(block: Block) -> Item:
    """What a call's item says beside the call."""
    if block["type"] == "function_call":
        return {key: value for key, value in block.items() if key not in _OF_CALLS}
    extras = block.get("extras") or {}
    if "item_id" not in extras:  # of another provider
        return {}
    return {"id" if key == "item_id" else key: value for key, value in extras.items()}


# Messages


def _text(items: list[Item], block: Block) -> None:
    text, annotations = block.get("text") or "", block.get("annotations") or ()
    if not (text or annotations or _own_id(block)):
        return
    written = [one for annotation in annotations if (one := _annotation(annotation)) is not None]
    _say(items, block, {"type": "output_text", "text": text, "annotations": written})


def _refusal(items: list[Item], block: Block) -> None:
    _say(items, block, {"type": "refusal", "refusal": block["refusal"]})


def _say(items: list[Item], block: Block, part: Item) -> None:
    """Put a part into the message that it belongs to: the last item, or a new one."""
    item_id = _own_id(block)
    phase = block.get("phase") or (block.get("extras") or {}).get("phase")
    last: Item = items[-1] if items else {}
    same = last.get("id") == item_id and last.get("phase") == phase
    if last.get("type") == "message" and same:
        last["content"].append(part)
        return
    message: Item = {"type": "message", "role": "assistant", "content": [part]}
    if item_id is not None:
        message |= {"id": item_id, "status": "completed"}
    if phase is not None:
        message["phase"] = phase
    items.append(message)


def _own_id(block: Block) -> str | None:
    found = block.get("id")
    return found if isinstance(found, str) and not found.startswith(_GENERATED) else None


def _annotation(annotation: Block) -> Item | None:
    kind = annotation.get("type")
    if kind == "non_standard_annotation":
        value = annotation.get("value")
        return dict(value) if isinstance(value, Mapping) else None
    if kind != "citation":
        return dict(annotation)
    cited = {key: annotation[key] for key in CITATION if key in annotation}
    if len(cited) < len(CITATION):  # of another provider
        return None
    return {"type": "url_citation", **cited, **(annotation.get("extras") or {})}


_BARE = {"type", "role", "content"}


def _brief(item: Item) -> Item:
    """A message of nothing but text as text."""
    if item["type"] != "message" or item.keys() != _BARE:
        return item
    [part, *others] = item["content"]
    if others or part["type"] != "output_text" or part["annotations"]:
        return item
    return {"role": "assistant", "content": part["text"]}


# Reasoning


def _reasoning(items: list[Item], block: Block) -> None:
    item_id = _own_id(block)
    extras = block.get("extras") or {}
    if item_id is None and not (block.get("encrypted_content") or extras.get("encrypted_content")):
        return
    if "reasoning" not in block:
        items.append({"summary": [], **_own(block)})
        return
    item: Item = items[-1] if items else {}
    if item.get("type") != "reasoning" or item_id is None or item.get("id") != item_id:
        named = {} if item_id is None else {"id": item_id}
        item = {"type": "reasoning", **named, "summary": []}
        items.append(item)
    if "encrypted_content" in block:
        item["encrypted_content"] = block["encrypted_content"]
    item.update((key, value) for key, value in extras.items() if key != "part")
    if text := block["reasoning"]:
        is_thought = extras.get("part") == THOUGHT
        part = {"type": THOUGHT if is_thought else "summary_text", "text": text}
        item.setdefault("content" if is_thought else "summary", []).append(part)


def _own(block: Block) -> Item:
    """An item that stands in the content as it came, without the marks of a stream."""
    item = {key: value for key, value in block.items() if key != "index"}
    for key in ("summary", "content"):
        if key in item:
            item[key] = [
                {name: value for name, value in part.items() if name != "index"}
                for part in item[key] or ()
            ]
    return item


# All else


def _served_call(items: list[Item], block: Block) -> None:
    extras = block.get("extras") or {}
    tool = SERVED_TOOLS.get(str(extras.get("type")))
    if tool is None:  # of another provider
        return
    item: Item = {**extras, "id": block["id"]}
    if args := block.get("args"):
        item[tool.argument] = args.get(tool.argument, args)
    items.append(item)


def _served_result(items: list[Item], block: Block) -> None:
    for item in items:
        tool = SERVED_TOOLS.get(item["type"])
        if tool is None or tool.output is None:
            continue
        if item.get("id") == block["tool_call_id"]:
            if "output" in block:
                item[tool.output] = block["output"]
            return


def _other(items: list[Item], block: Block) -> None:
    kind = str(block.get("type"))
    if kind in _FOREIGN or kind.endswith("_tool_result"):
        return
    if kind.startswith("output_"):  # a part that may be received but not sent
        return
    if is_media(block):
        raise unfit(block, "An assistant says text; send it in a human message.")
    items.append({key: value for key, value in block.items() if key != "index"})


_WRITERS: dict[Any, Callable[[list[Item], Block], None]] = {
    None: _text,
    "text": _text,
    "output_text": _text,
    "text-plain": _text,
    "refusal": _refusal,
    "reasoning": _reasoning,
    "server_tool_call": _served_call,
    "server_tool_result": _served_result,
}
