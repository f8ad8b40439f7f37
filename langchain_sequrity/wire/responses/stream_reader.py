"""The client's side of Responses: reads streamed replies.

Content comes in increments, whole at its end, in its item and in the response. Servers may leave
out any of them. Each block records what has been sent on, so a repetition adds only new content. A
whole item becomes the blocks that `items` reads from it. So the sum of all chunks is the message of
the whole reply.

A single text has no id. Its block gets the id only when the output turns out to have more blocks.
From then on content is a list, as for the whole reply.

Replies are untrusted: every unexpected shape becomes a `BadReply`. Unknown events are skipped
(`docs/protocol.md`, Responses).
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_sequrity.wire.blocks import PROVIDER, THOUGHT
from langchain_sequrity.wire.error_body import error_in_reply
from langchain_sequrity.wire.exchange import (
    MISSHAPEN,
    ClientFormat,
    Describe,
    Event,
    StreamMemory,
    openai_usage,
    read_object,
    refuse_reply,
)
from langchain_sequrity.wire.responses.client import (
    failure,
    is_failed,
    read_metadata,
    read_reply,
    texts_in,
    write_request,
    write_results,
)
from langchain_sequrity.wire.responses.items import (
    Block,
    Item,
    is_unfinished,
    message_identity,
    read_item,
    read_part,
    string,
)
from langchain_sequrity.wire.stream_reader import FormatReader
from langchain_sequrity.wire.tools import end_of_arguments, keep_arguments

Position = tuple[Any, Any]
"""Number of an item; and of a part of a message, otherwise `None`."""

_GROWING = {"text": "text", "function_call": "arguments"}
# In the order of standard blocks (`blocks`).
_PARTS = {"content": THOUGHT, "summary": "summary_text"}
_EMPTY: dict[str, Block] = {"function_call": {"arguments": ""}, "reasoning": {"summary": []}}
# Fields that may change until the end of an item.
_LATER = frozenset({"arguments", "status", "encrypted_content", "summary", "content"})


class _StreamedBlock:
    """One block, and a record of what has been sent on.

    Attributes:
        type: Its type.
        index: Its index in the content.
        sent: Keys that have been sent on and do not grow.
        identity: Its id. For a single text it waits; for reasoning it comes with every part.
        lengths: How much of each growing text has been sent on.
        refusal: The refusal so far. It is sent on as a whole, since LangChain's v3 stream would
            keep only its last fragment.
        arguments: The parts of a call's arguments so far.
    """

    __slots__ = ("arguments", "identity", "index", "lengths", "refusal", "sent", "type")

    def __init__(self, block_type: str, index: int) -> None:
        self.type = block_type
        self.index = index
        self.sent = {"type", "index"}
        self.identity: Block = {}
        self.lengths: dict[Any, int] = {}
        self.refusal = ""
        self.arguments: list[str] = []


class ChunkBuilder:
    """Makes chunks from the events of one output.

    Args:
        plain: Whether a single text may come as text instead of a list.

    Attributes:
        has_text: Whether there is any text.
        called: Whether tools are called.
    """

    def __init__(self, *, plain: bool) -> None:
        self.has_text = False
        self.called = False
        self._plain = plain
        self._alone: _StreamedBlock | None = None
        self._blocks: dict[Position, _StreamedBlock] = {}
        self._items: dict[Any, Item] = {}
        self._ended: set[Any] = set()
        self._parts: list[Item] = []
        self._annotations: dict[Position, list[Item]] = {}
        self._ids: dict[str, Any] = {}
        self._new: dict[int, Block] = {}
        self._calls: dict[int, ToolCallChunk] = {}
        self._refusal = ""
        self._memory = StreamMemory()

    def pop_chunk(
        self,
        metadata: Mapping[str, Any] | None = None,
        usage: UsageMetadata | None = None,
    ) -> tuple[AIMessageChunk, ...]:
        """Return a chunk with everything new since the last one: one or none."""
        new, calls, refusal = self._new, self._calls, self._refusal
        if not (new or calls or refusal or metadata or usage):
            return ()
        self._new, self._calls, self._refusal = {}, {}, ""
        content: Any = [*new.values()]
        if self._plain:
            content = "".join(block["text"] for block in content)
        return (
            AIMessageChunk(
                content=content,
                additional_kwargs={"refusal": refusal} if refusal else {},
                tool_call_chunks=[*calls.values()],
                response_metadata={**metadata, **PROVIDER} if metadata else PROVIDER,
                usage_metadata=usage,
            ),
        )

    # Content of events

    def text(self, position: Position, delta: str) -> tuple[AIMessageChunk, ...]:
        """Take an increment of a text and return its chunk; nearly every event is one."""
        block = self._blocks.get(position)
        if block is None or "text" not in block.lengths:
            self._grow(self._part("text", position), "text", delta)
            return self.pop_chunk()
        if not delta:
            return ()
        self.has_text = True
        block.lengths["text"] += len(delta)
        content: Any = delta
        if not self._plain:
            content = [{"type": "text", "text": delta, "index": block.index}]
        return (AIMessageChunk(content=content, response_metadata=PROVIDER),)

    def whole_text(self, body: Item) -> None:
        """Take a whole text."""
        self._grow(self._part("text", _position(body)), "text", string(body, "text"), whole=True)

    def refusal(self, body: Item) -> None:
        """Take an increment of a refusal, or all of it."""
        block = self._part("refusal", _position(body))
        if "delta" in body:
            delta = string(body, "delta")
        else:
            delta = string(body, "refusal")[len(block.refusal) :]
        self._memory.add(delta)
        block.refusal += delta
        self._refusal += delta

    def arguments(self, body: Item) -> None:
        """Take an increment of a call's arguments, or all of them."""
        key = "delta" if "delta" in body else "arguments"
        text = string(body, key)
        block = self._blocks.get((_number(body), None))
        if block is not None:  # otherwise its item will name the call
            _expect(block, "function_call")
            self._grow(block, "arguments", text, whole=key == "arguments")

    def part(self, body: Item) -> None:
        """Take a whole part of a message or of reasoning. It counts if its item never comes whole.

        Some proxies write parts in forms of their own, or with numbers of other parts.
        """
        self._memory.add(body)
        self._parts.append(body)

    def _add_part(self, body: Item) -> None:
        part = body["part"]
        part_type = string(part, "type")
        if part_type == "summary_text":
            self.summary({**body, **part})
        elif part_type == THOUGHT:
            self.reasoning({**body, **part})
        else:
            identity = message_identity(self._items.get(_number(body), {}))
            self._add_whole(_position(body), read_part(part, identity))

    def annotation(self, body: Item) -> None:
        """Take a citation. It waits: whole parts repeat it, and it is sent on only once."""
        self._memory.add(body["annotation"])
        self._annotations.setdefault(_position(body), []).append({**body["annotation"]})

    def summary(self, body: Item) -> None:
        """Take an increment of a summary of reasoning, or all of it."""
        self._reasoning(body, ("summary", body.get("summary_index", 0)))

    def reasoning(self, body: Item) -> None:
        """Take an increment of reasoning itself, or all of it."""
        self._reasoning(body, ("content", body.get("content_index", 0)))

    def _reasoning(self, body: Item, part: tuple[str, Any]) -> None:
        number, key = _number(body), "delta" if "delta" in body else "text"
        text = string(body, key)
        if (number, None) not in self._blocks:
            self._begin(number, {"type": "reasoning"})
        block = self._blocks[number, None]
        _expect(block, "reasoning")
        self._grow_part(block, part, text, whole=key == "text")

    def item_added(self, body: Item) -> None:
        """Take the beginning of an item. Most items wait for their end, messages for parts."""
        self._begin(_number(body), body["item"])

    def item_done(self, body: Item) -> None:
        """Take a whole item."""
        self._ended.add(_number(body))
        self._end(_number(body), body["item"])

    def _begin(self, number: Any, item: Item) -> None:
        self._remember(number, item)
        if missing := _EMPTY.get(string(item, "type")):
            fields = {key: value for key, value in item.items() if key not in _LATER}
            [block] = read_item({**fields, **missing})
            self._add_whole((number, None), block)

    def _end(self, number: Any, item: Item) -> None:
        self._remember(number, item)
        blocks = read_item(item)
        is_message = item["type"] == "message"
        for part_number, block in enumerate(blocks):
            self._add_whole((number, part_number if is_message else None), block)

    def finish(self, output: Sequence[Item]) -> Sequence[Item]:
        """Take the output of the whole response, and send on everything that waits.

        Args:
            output: The items; empty if the response does not repeat them.

        Returns:
            The items in their latest form.
        """
        numbers = [self._number(item, index) for index, item in enumerate(output)]
        for number, item in zip(numbers, output, strict=True):
            self._end(number, item)
        if not output:
            for number, item in list(self._items.items()):
                self._end(number, item)
            for part in self._parts:
                if _number(part) not in self._ended:
                    self._add_part(part)
        for position, annotations in self._annotations.items():
            block = self._blocks.get(position)
            if block is not None and block.type == "text":
                self._send(block, {"annotations": annotations})
        return output or list(self._items.values())

    def end_calls(self, *, is_cut: bool) -> None:
        """Make calls invalid whose arguments are not a whole JSON object; see `wire.tools`."""
        for position, block in self._blocks.items():
            if block.type != "function_call":
                continue
            arguments = "".join(block.arguments)
            is_last = block.index == len(self._blocks) - 1
            item = self._items.get(position[0], {})
            is_open = is_unfinished(item, arguments, is_cut=is_cut, is_last=is_last)
            if added := end_of_arguments(arguments, is_unfinished=is_open):
                self._call(block, args=added)

    def _number(self, item: Item, index: int) -> Any:
        """The number of an item in events; a response may leave out items."""
        item_id = item.get("id")
        if not isinstance(item_id, str) or self._items.get(index, {}).get("id") == item_id:
            return index  # some servers give all items the same id
        return self._ids.get(item_id, index)

    def _remember(self, number: Any, item: Item) -> None:
        self._memory.add(item)
        self._items[number] = item
        item_id = item.get("id")
        if isinstance(item_id, str):
            self._ids.setdefault(item_id, number)

    # Blocks

    def _part(self, block_type: str, position: Position) -> _StreamedBlock:
        """Return the block of a part of a message; begin it if necessary."""
        block = self._blocks.get(position)
        if block is None:
            block = self._open(block_type, position)
            if block_type == "text":  # the `phase` of its message matters while it comes
                self._send(block, message_identity(self._items.get(position[0], {})))
        _expect(block, block_type)
        return block

    def _open(self, block_type: str, position: Position) -> _StreamedBlock:
        is_only_text = not self._blocks and block_type == "text"
        if not is_only_text:
            self._settle()
        block = self._blocks[position] = _StreamedBlock(block_type, len(self._blocks))
        self._memory.add(block)
        self._alone = block if is_only_text else None
        return block

    def _settle(self) -> None:
        """Make content a list from now on, and send on the id of a single text."""
        self._plain = False
        if self._alone is not None:
            block, self._alone = self._alone, None
            self._send(block, block.identity)
            self._new_block(block).setdefault("text", "")

    def _add_whole(self, position: Position, whole: Block) -> None:
        """Send on new content of a block that came whole."""
        block_type = whole["type"]
        block = self._blocks.get(position)
        if block is None:
            block = self._open(block_type, position)
            if block_type == "function_call":
                self.called = True
                self._call(block, whole["name"], whole["call_id"])
        _expect(block, block_type)
        if block_type == "reasoning" and "id" in whole:
            block.identity.setdefault("id", whole["id"])
        if block_type == "refusal":
            self._refusal += whole["refusal"][len(block.refusal) :]
            block.refusal = whole["refusal"]
        growing = _GROWING.get(block.type)
        parts = [key for key in _PARTS if key in whole] if block_type == "reasoning" else []
        fixed = {key: value for key, value in whole.items() if key not in (growing, *parts)}
        self._send(block, {**block.identity, **fixed, **{key: [] for key in parts}})
        if growing is not None:
            self._grow(block, growing, whole[growing], whole=True)
        for key in parts:
            for number, part in enumerate(whole[key]):
                self._grow_part(block, (key, number), part["text"], whole=True)

    def _send(self, block: _StreamedBlock, fields: Mapping[str, Any]) -> None:
        """Send on fields that do not grow; the id of a single text waits."""
        new = _without(fields, block.sent)
        if block is self._alone:
            if new.keys() <= {"id"}:
                block.identity = {**new, **block.identity}
                return
            self._settle()
            new = _without(new, block.sent)
        if new:
            self._memory.add(list(new))
            block.sent.update(new)
            self._new_block(block).update(new)

    def _new_block(self, block: _StreamedBlock) -> Block:
        return self._new.setdefault(block.index, {"type": block.type, "index": block.index})

    def _grow(self, block: _StreamedBlock, key: str, text: str, *, whole: bool = False) -> None:
        delta = _new_text(block, key, text, whole=whole)
        if delta is None:
            return
        new = self._new_block(block)
        new[key] = new.get(key, "") + delta
        if block.type == "text":
            self.has_text = self.has_text or bool(delta)
        else:
            self._call(block, args=delta)

    def _grow_part(
        self, block: _StreamedBlock, part: tuple[str, Any], text: str, *, whole: bool = False
    ) -> None:
        """Extend a part of reasoning; its type is sent on once."""
        has_begun = part in block.lengths
        delta = _new_text(block, part, text, whole=whole)
        if delta is None:
            return
        key = part[0]
        fragment = {"text": delta, "index": list(block.lengths).index(part)}
        new = self._new_block(block)
        if not has_begun:
            self._memory.add(part)
            fragment["type"] = _PARTS[key]
            new.update(block.identity)
        new.setdefault(key, []).append(fragment)

    def _call(
        self,
        block: _StreamedBlock,
        name: str | None = None,
        call_id: str | None = None,
        args: str = "",
    ) -> None:
        """Send on a fragment of a call: one per chunk, since LangChain joins them by chunk."""
        call = self._calls.get(block.index)
        if call is None:
            call = tool_call_chunk(name=name, args="", id=call_id, index=block.index)
            self._calls[block.index] = call
        self._memory.add_json(args)
        self._memory.add_text(args)
        block.arguments.append(args)
        call["args"] = (call["args"] or "") + args


def _new_text(block: _StreamedBlock, key: Any, text: str, *, whole: bool) -> str | None:
    """What a text adds to a block, maybe nothing at its beginning; `None` for a repetition."""
    length = block.lengths.get(key)
    delta = text[length or 0 :] if whole else text
    if length is not None and not delta:
        return None
    block.lengths[key] = (length or 0) + len(delta)
    return delta


def _without(fields: Mapping[str, Any], keys: Container[str]) -> Block:
    return {key: value for key, value in fields.items() if key not in keys}


def _expect(block: _StreamedBlock, block_type: str) -> None:
    if block.type != block_type:
        msg = f"A block of type `{block.type}` continues as `{block_type}`."
        raise TypeError(msg)


_TEXT = "response.output_text.delta"
_LAST = ("response.completed", "response.incomplete", "response.failed")
# With these fields in the request, content is a list from the start.
_RICH = ("tools", "reasoning", "include")


class ResponsesReader(FormatReader):
    """Reads one streamed reply. See `FormatReader`.

    Content is text while the reply has nothing else, unless the request asks for more.
    """

    read_reply = staticmethod(read_reply)

    def __init__(self, describe: Describe, request: Mapping[str, Any]) -> None:
        super().__init__(describe)
        self._output = ChunkBuilder(plain=not any(request.get(field) for field in _RICH))

    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the chunk that an event completes: one or none."""
        if event.data == "[DONE]":  # some proxies end every stream with it
            return self.end()
        body = read_object(event.data)
        event_type = body.get("type") or event.name
        if event_type == "error" or (body.get("error") and event_type not in _LAST):
            raise error_in_reply(body)
        try:
            if event_type == _TEXT:
                return self._output.text(_position(body), string(body, "delta"))
            if event_type in _LAST:
                status = event_type.removeprefix("response.")
                return self._finish({"status": status, **body["response"]})
            handle = _EVENTS.get(event_type)
            if handle is not None:
                handle(self._output, body)
                return self._output.pop_chunk()
        except MISSHAPEN:
            refuse_reply("an event of a response", body)
        if not isinstance(event_type, str) or not event_type:
            refuse_reply("an event of a response", body)
        return ()

    def end(self) -> tuple[AIMessageChunk, ...]:
        """Check that the stream was not cut short."""
        if not self.done:
            raise self._interrupted()
        return ()

    def _finish(self, response: dict[str, Any]) -> tuple[AIMessageChunk, ...]:
        output = self._output
        items = output.finish(response.get("output") or ())
        if is_failed(response) and not output.has_text:
            raise failure(response)
        self.done = True
        metadata = read_metadata(response, items, called=output.called)
        output.end_calls(is_cut=response["status"] != "completed")
        usage = openai_usage(response.get("usage"), "input", "output")
        metadata = keep_arguments({**metadata, **self._describe(self._head)}, texts_in(items))
        return output.pop_chunk(metadata, usage)


def _number(body: Mapping[str, Any]) -> Any:
    return body.get("output_index", 0)  # some servers leave out the first number


def _position(body: Mapping[str, Any]) -> Position:
    return _number(body), body.get("content_index", 0)


_EVENTS: dict[Any, Callable[[ChunkBuilder, Mapping[str, Any]], None]] = {
    "response.output_item.added": ChunkBuilder.item_added,
    "response.output_item.done": ChunkBuilder.item_done,
    "response.output_text.done": ChunkBuilder.whole_text,
    "response.output_text.annotation.added": ChunkBuilder.annotation,
    "response.content_part.done": ChunkBuilder.part,
    "response.refusal.delta": ChunkBuilder.refusal,
    "response.refusal.done": ChunkBuilder.refusal,
    "response.function_call_arguments.delta": ChunkBuilder.arguments,
    "response.function_call_arguments.done": ChunkBuilder.arguments,
    "response.reasoning_summary_text.delta": ChunkBuilder.summary,
    "response.reasoning_summary_text.done": ChunkBuilder.summary,
    "response.reasoning_summary_part.done": ChunkBuilder.part,
    "response.reasoning_text.delta": ChunkBuilder.reasoning,
    "response.reasoning_text.done": ChunkBuilder.reasoning,
}


FORMAT = ClientFormat(write_request, write_results, read_reply, ResponsesReader)
