"""Streamed replies of Responses to pieces of LangChain messages.

Replies are untrusted: every event of the wrong shape becomes a `BadReply`. Events that are not
known here are skipped, whatever they say (`docs/protocol.md`, Responses).

What a streamed output adds to a LangChain message, piece by piece, and nothing twice.

Servers differ in how often they say the same: a text comes in increments, whole when it is done,
whole in its item, and whole in the response. Each block remembers what of it has been handed on, so
that every telling adds only what is new. An item that is told whole becomes the blocks that `items`
reads from it, which makes the sum of all pieces the message of the whole reply.

A text that is alone has no id: only when the output turns out to be more does its block get one,
and from then on content is a list, as it is of the whole reply.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_sequrity.errors import StreamInterrupted
from langchain_sequrity.wire.blocks import MODEL_PROVIDER, THOUGHT
from langchain_sequrity.wire.envelope_stream import as_chunk
from langchain_sequrity.wire.exchange import Event, Kept, Reply
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    OK,
    Describe,
    error_inside,
    read_object,
    refuse,
)
from langchain_sequrity.wire.responses.from_server import (
    Block,
    Item,
    failure,
    identity,
    is_failed,
    read_item,
    read_metadata,
    read_part,
    read_reply,
    read_usage,
    string,
    texts_in,
)
from langchain_sequrity.wire.tools import with_texts

Place = tuple[Any, Any]
"""Number of an item, and of a part of it where it is a message; otherwise `None`."""

_PROVIDER = {"model_provider": MODEL_PROVIDER}
_GROWING = {"text": "text", "function_call": "arguments"}
# In the order in which standard blocks show them (`blocks`).
_PARTS = {"content": THOUGHT, "summary": "summary_text"}
_EMPTY: dict[str, Block] = {"function_call": {"arguments": ""}, "reasoning": {"summary": []}}
# What an item that has only begun may say otherwise in the end.
_LATER = frozenset({"arguments", "status", "encrypted_content", "summary", "content"})


class _Block:
    """One block, and what of it has been handed on.

    Attributes:
        kind: Its type.
        index: Its place in the content.
        named: Keys that have been handed on and do not grow.
        name: Its id and what else names it. That of a text that is alone waits, that of a refusal
            comes with the whole, that of reasoning with every part.
        lengths: How much has been handed on of each text that grows.
        refusal: The refusal so far, which is handed on as a whole: v3 would keep its last piece.
        annotations: Those that came one by one.
    """

    __slots__ = ("annotations", "index", "kind", "lengths", "name", "named", "refusal")

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.named = {"type", "index"}
        self.name: Block = {}
        self.lengths: dict[Any, int] = {}
        self.refusal = ""
        self.annotations: list[Any] = []


class Increments:
    """The pieces of one output.

    Args:
        plain: Whether a text that is alone may come as text instead of a list.

    Attributes:
        said: Whether there is any text.
        called: Whether tools are called.
    """

    def __init__(self, *, plain: bool) -> None:
        self.said = False
        self.called = False
        self._plain = plain
        self._alone: _Block | None = None
        self._blocks: dict[Place, _Block] = {}
        self._items: dict[Any, Item] = {}
        self._ids: dict[str, Any] = {}
        self._new: dict[int, Block] = {}
        self._calls: dict[int, ToolCallChunk] = {}
        self._refusal = ""
        self._kept = Kept()

    def take(
        self,
        metadata: Mapping[str, Any] | None = None,
        usage: UsageMetadata | None = None,
    ) -> tuple[AIMessageChunk, ...]:
        """Return the piece with all that is new since the last one: one or none."""
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
                response_metadata={**metadata, **_PROVIDER} if metadata else _PROVIDER,
                usage_metadata=usage,
            ),
        )

    # What is told

    def text(self, place: Place, item_id: Any, delta: str) -> tuple[AIMessageChunk, ...]:
        """Take an increment of a text and return its piece: nearly every event is one."""
        block = self._blocks.get(place)
        if block is None or "text" not in block.lengths:
            self._grow(self._part("text", place, item_id), "text", delta)
            return self.take()
        if not delta:
            return ()
        self.said = True
        block.lengths["text"] += len(delta)
        content: Any = delta
        if not self._plain:
            content = [{"type": "text", "text": delta, "index": block.index}]
        return (AIMessageChunk(content=content, response_metadata=_PROVIDER),)

    def whole_text(self, place: Place, item_id: Any, text: str) -> None:
        """Take all of a text."""
        self._grow(self._part("text", place, item_id), "text", text, whole=True)

    def annotation(self, place: Place, item_id: Any, annotation: Item) -> None:
        """Take an annotation; all of a text are handed on at once (v3 would keep the last).

        That is when the text is told whole, or in the end.
        """
        self._kept.add(annotation)
        self._part("text", place, item_id).annotations.append(dict(annotation))

    def refusal(self, place: Place, item_id: Any, delta: str) -> None:
        """Take an increment of a refusal."""
        block = self._part("refusal", place, item_id)
        self._kept.add(delta)
        block.refusal += delta
        self._refusal += delta

    def arguments(self, number: Any, text: str, *, whole: bool = False) -> None:
        """Take an increment of a call's arguments, or all of them."""
        block = self._blocks.get((number, None))
        if block is not None:  # otherwise its item will tell whose call it is
            _expect(block, "function_call")
            self._grow(block, "arguments", text, whole=whole)

    def thought(
        self, key: str, place: Place, item_id: Any, text: str, *, whole: bool = False
    ) -> None:
        """Take an increment of a part of reasoning, or all of it; `key` says of which list."""
        number, part_number = place
        if (number, None) not in self._blocks:
            self.begin(number, {"type": "reasoning", **_id(item_id)})
        block = self._blocks[number, None]
        _expect(block, "reasoning")
        self._grow_part(block, (key, part_number), text, whole=whole)

    def part(self, place: Place, item_id: Any, part: Item) -> None:
        """Take a part of a message, or of reasoning, that is whole."""
        if part["type"] == THOUGHT:
            self.thought("content", place, item_id, string(part, "text"), whole=True)
        else:
            self._tell(place, read_part(part, self._name(place, item_id)))

    def begin(self, number: Any, item: Item) -> None:
        """Take an item that begins; most wait for their end, and messages for their parts."""
        self._remember(number, item)
        if missing := _EMPTY.get(string(item, "type")):
            known = {key: value for key, value in item.items() if key not in _LATER}
            [block] = read_item({**known, **missing})
            self._tell((number, None), block)

    def end(self, number: Any, item: Item) -> None:
        """Take an item that is whole."""
        self._remember(number, item)
        if item["type"] == "message":
            for part_number, part in enumerate(item.get("content") or ()):
                self.part((number, part_number), None, part)
        else:
            [block] = read_item(item)
            self._tell((number, None), block)

    def finish(self, output: Sequence[Item]) -> Sequence[Item]:
        """Take the output of the whole response, and let nothing be owed any more.

        Args:
            output: The items; none where the response does not repeat them.

        Returns:
            The items as they were told last.
        """
        for number, item in enumerate(output):
            self.end(self._number(item, number), item)
        if not output:
            for number, item in list(self._items.items()):
                self.end(number, item)
        for block in self._blocks.values():
            if block.annotations:
                self._hand_on(block, {"annotations": block.annotations})
            if block.kind == "refusal":
                self._hand_on(block, {**block.name, "refusal": block.refusal})
        return output or list(self._items.values())

    def _number(self, item: Item, place: int) -> Any:
        """The number that an item had in events: those of a response may be fewer."""
        item_id = item.get("id")
        return self._ids.get(item_id, place) if isinstance(item_id, str) else place

    def _remember(self, number: Any, item: Item) -> None:
        self._kept.add(item)
        self._items[number] = item
        item_id = item.get("id")
        if isinstance(item_id, str):
            self._ids.setdefault(item_id, number)

    # Blocks

    def _name(self, place: Place, item_id: Any) -> Block:
        item = self._items.get(place[0])
        return _id(item_id) if item is None else identity(item)

    def _part(self, kind: str, place: Place, item_id: Any) -> _Block:
        """The block of a part of a message, whether or not it has begun."""
        block = self._blocks.get(place)
        if block is None:
            block = self._open(kind, place)
            name = self._name(place, item_id)
            if kind == "refusal":
                block.name = name
            else:
                self._hand_on(block, name)
        _expect(block, kind)
        return block

    def _open(self, kind: str, place: Place) -> _Block:
        alone = not self._blocks and kind == "text"
        if not alone:
            self._settle()
        block = self._blocks[place] = _Block(kind, len(self._blocks))
        self._kept.add(block)
        self._alone = block if alone else None
        return block

    def _settle(self) -> None:
        """Make content a list for good, and give a text that was alone its name."""
        self._plain = False
        if self._alone is not None:
            block, self._alone = self._alone, None
            self._hand_on(block, block.name)
            self._piece(block).setdefault("text", "")

    def _tell(self, place: Place, whole: Block) -> None:
        """Hand on what is new in a block that is told whole."""
        kind = whole["type"]
        block = self._blocks.get(place)
        if block is None:
            block = self._open(kind, place)
            if kind == "function_call":
                self.called = True
                self._call(block, whole["name"], whole["call_id"])
            elif kind == "reasoning":
                block.name = {"id": whole["id"]} if "id" in whole else {}
        _expect(block, kind)
        if kind == "refusal":
            self._refusal += whole["refusal"][len(block.refusal) :]
            block.refusal = whole["refusal"]
        growing = _GROWING.get(block.kind)
        parts = [key for key in _PARTS if key in whole] if kind == "reasoning" else []
        fixed = {key: value for key, value in whole.items() if key not in (growing, *parts)}
        self._hand_on(block, {**block.name, **fixed, **{key: [] for key in parts}})
        if growing is not None:
            self._grow(block, growing, whole[growing], whole=True)
        for key in parts:
            for number, part in enumerate(whole[key]):
                self._grow_part(block, (key, number), part["text"], whole=True)

    def _hand_on(self, block: _Block, fields: Mapping[str, Any]) -> None:
        """Hand on what does not grow; the id of a text that is alone waits."""
        new = _without(fields, block.named)
        if block is self._alone:
            if new.keys() <= {"id"}:
                block.name = {**new, **block.name}
                return
            self._settle()
            new = _without(new, block.named)
        if new:
            self._kept.add(list(new))
            block.named.update(new)
            self._piece(block).update(new)

    def _piece(self, block: _Block) -> Block:
        return self._new.setdefault(block.index, {"type": block.kind, "index": block.index})

    def _grow(self, block: _Block, key: str, text: str, *, whole: bool = False) -> None:
        begun = key in block.lengths
        length = block.lengths.get(key, 0)
        delta = text[length:] if whole else text
        if begun and not delta:
            return
        block.lengths[key] = length + len(delta)
        piece = self._piece(block)
        piece[key] = piece.get(key, "") + delta
        if block.kind == "text":
            self.said = self.said or bool(delta)
        else:
            self._call(block, args=delta)

    def _grow_part(self, block: _Block, part: tuple[str, Any], text: str, *, whole: bool) -> None:
        """Let a part of reasoning grow; it is told once of what type it is."""
        begun = part in block.lengths
        length = block.lengths.get(part, 0)
        delta = text[length:] if whole else text
        if begun and not delta:
            return
        block.lengths[part] = length + len(delta)
        if not begun:
            self._kept.add(part)
        key = part[0]
        fragment = {"text": delta, "index": list(block.lengths).index(part)}
        piece = self._piece(block)
        if not begun:
            fragment["type"] = _PARTS[key]
            piece.update(block.name)
        piece.setdefault(key, []).append(fragment)

    def _call(
        self, block: _Block, name: str | None = None, call_id: str | None = None, args: str = ""
    ) -> None:
        """Hand on a part of a call: one fragment per piece, since LangChain joins across pieces."""
        call = self._calls.get(block.index)
        if call is None:
            call = tool_call_chunk(name=name, args="", id=call_id, index=block.index)
            self._calls[block.index] = call
        self._kept.add_json(args)
        call["args"] = (call["args"] or "") + args


def _id(item_id: Any) -> Block:
    return {"id": item_id} if isinstance(item_id, str) and item_id else {}


def _without(fields: Mapping[str, Any], keys: Container[str]) -> Block:
    return {key: value for key, value in fields.items() if key not in keys}


def _expect(block: _Block, kind: str) -> None:
    if block.kind != kind:
        msg = f"A block of type `{block.kind}` goes on as `{kind}`."
        raise TypeError(msg)


_TEXT = "response.output_text.delta"
_LAST = ("response.completed", "response.incomplete", "response.failed")
# Fields of the request whose reply has more than text, so that content is a list from the start.
_RICH = ("tools", "reasoning", "include")


class StreamReader:
    """Reads one streamed reply, event by event.

    Each piece carries its own increment only. What describes the whole reply (model, finish
    reason, session, usage) comes once, with the piece that finishes it: LangChain joins strings and
    adds counts that are repeated.

    Args:
        describe: Gives what to add to `response_metadata` of the finishing piece.
        asked: Fields of the request's body. Content is text while the reply is nothing else,
            unless they ask for more.
    """

    def __init__(self, describe: Describe, asked: Mapping[str, Any]) -> None:
        self._describe = describe
        self._head = Reply(OK, {})
        self._output = Increments(plain=not any(asked.get(field) for field in _RICH))
        self.done = False

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head

    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the piece of the message that an event brings: one or none.

        Raises:
            BadReply: If the event is not one of a response.
            StatusError: If it is an error, or the end of a response that failed without text.
            StreamInterrupted: If it is `[DONE]`, and the response was not finished.
        """
        if event.data == "[DONE]":  # not of this format, but some proxies end every stream with it
            return self.end()
        body = read_object(event.data, self._head)
        kind = body.get("type") or event.name
        if kind == "error" or (body.get("error") and kind not in _LAST):
            raise error_inside(body, self._head)
        try:
            if kind == _TEXT:
                return self._output.text(_place(body), body.get("item_id"), string(body, "delta"))
            if kind in _LAST:
                status = kind.removeprefix("response.")
                return self._finish({"status": status, **body["response"]})
            take = _EVENTS.get(kind)
            if take is not None:
                take(self._output, body)
                return self._output.take()
        except MISSHAPEN:
            refuse("an event of a response", body, self._head)
        if not isinstance(kind, str) or not kind:
            refuse("an event of a response", body, self._head)
        return ()

    def end(self) -> tuple[AIMessageChunk, ...]:
        """Check that the stream was not cut short.

        Raises:
            StreamInterrupted: If the response was not finished.
        """
        if not self.done:
            raise self._interrupted()
        return ()

    def whole(self, reply: Reply) -> tuple[AIMessageChunk, ...]:
        """Read the plain JSON of a service that does not stream."""
        return (as_chunk(read_reply(reply, self._describe)[0]),)

    def _interrupted(self) -> StreamInterrupted:
        msg = "The stream ended before the reply was finished."
        return StreamInterrupted(msg, session_id=self._head.headers.get("x-session-id"))

    def _finish(self, response: dict[str, Any]) -> tuple[AIMessageChunk, ...]:
        output = self._output
        items = output.finish(response.get("output") or ())
        if is_failed(response) and not output.said:
            raise failure(response, self._head)
        self.done = True
        metadata = read_metadata(response, items, called=output.called)
        usage = read_usage(response.get("usage"))
        metadata = with_texts({**metadata, **self._describe(self._head)}, texts_in(items))
        return output.take(metadata, usage)


def _number(body: Mapping[str, Any]) -> Any:
    return body.get("output_index", 0)  # some servers leave out what is the first


def _place(body: Mapping[str, Any]) -> Place:
    return _number(body), body.get("content_index", 0)


def _text_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.whole_text(_place(body), body.get("item_id"), string(body, "text"))


def _refusal_done(output: Increments, body: Mapping[str, Any]) -> None:
    part = {"type": "refusal", "refusal": body["refusal"]}
    output.part(_place(body), body.get("item_id"), part)


def _annotation(output: Increments, body: Mapping[str, Any]) -> None:
    output.annotation(_place(body), body.get("item_id"), body["annotation"])


def _refusal(output: Increments, body: Mapping[str, Any]) -> None:
    output.refusal(_place(body), body.get("item_id"), string(body, "delta"))


def _part_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.part(_place(body), body.get("item_id"), body["part"])


def _arguments(output: Increments, body: Mapping[str, Any]) -> None:
    output.arguments(_number(body), string(body, "delta"))


def _arguments_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.arguments(_number(body), string(body, "arguments"), whole=True)


def _thought(key: str, number: str, field: str) -> Callable[[Increments, Mapping[str, Any]], None]:
    """Reads an event of reasoning: of which list, which key numbers the part, which has text."""

    def take(output: Increments, body: Mapping[str, Any]) -> None:
        place = _number(body), body.get(number, 0)
        whole = field != "delta"
        output.thought(key, place, body.get("item_id"), string(body, field), whole=whole)

    return take


def _summary_done(output: Increments, body: Mapping[str, Any]) -> None:
    place = _number(body), body.get("summary_index", 0)
    output.thought("summary", place, body.get("item_id"), string(body["part"], "text"), whole=True)


def _item_added(output: Increments, body: Mapping[str, Any]) -> None:
    output.begin(_number(body), body["item"])


def _item_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.end(_number(body), body["item"])


_EVENTS: dict[Any, Callable[[Increments, Mapping[str, Any]], None]] = {
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
    "response.content_part.done": _part_done,
    "response.output_text.done": _text_done,
    "response.output_text.annotation.added": _annotation,
    "response.refusal.delta": _refusal,
    "response.refusal.done": _refusal_done,
    "response.function_call_arguments.delta": _arguments,
    "response.function_call_arguments.done": _arguments_done,
    "response.reasoning_summary_text.delta": _thought("summary", "summary_index", "delta"),
    "response.reasoning_summary_text.done": _thought("summary", "summary_index", "text"),
    "response.reasoning_summary_part.done": _summary_done,
    "response.reasoning_text.delta": _thought("content", "content_index", "delta"),
    "response.reasoning_text.done": _thought("content", "content_index", "text"),
}
