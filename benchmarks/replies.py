"""The server's answers in each format: the same text, whole or in `CHUNKS` pieces."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

CHUNKS = 300
"""Number of text chunks in a streamed reply."""
TEXT = "The meeting is on Thursday at ten, and Ada brings the figures of the third quarter."
"""The text of a reply that is not streamed."""
LONG_TEXT = (TEXT + "\n") * (200_000 // (len(TEXT) + 1))
"""The text of a long reply that is not streamed: 200 kB."""
PIECES = [f" word{index}" for index in range(CHUNKS)]
"""The text of a streamed reply, chunk by chunk."""
_PROMPT_TOKENS = 12

Body = dict[str, Any]


class Replies(NamedTuple):
    """The replies of one format.

    Attributes:
        whole: The body of a reply that is not streamed.
        long: The same with a long text.
        events: The server-sent events of a streamed reply.
    """

    whole: bytes
    long: bytes
    events: list[bytes]


def _dumps(body: Body) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _named(events: Iterable[Body]) -> list[bytes]:
    """Events of the formats whose events have names."""
    return [
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _dumps(event)) for event in events
    ]


# chat/completions


def _chat_completions() -> Replies:
    common = {"id": "chatcmpl-7f3a", "created": 1700000000, "model": "bench/model"}
    total = _PROMPT_TOKENS + CHUNKS
    usage = {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": CHUNKS, "total_tokens": total}

    def body(kind: str, choice: Body | None = None, **more: Any) -> bytes:
        choices = [] if choice is None else [{"index": 0, **choice}]
        return _dumps({**common, "object": kind, "choices": choices, **more})

    def chunk(choice: Body | None = None, **more: Any) -> bytes:
        return b"data: %s\n\n" % body("chat.completion.chunk", choice, **more)

    def delta(said: Body, finish_reason: str | None = None) -> bytes:
        return chunk({"delta": said, "finish_reason": finish_reason})

    def whole(text: str) -> bytes:
        message = {"role": "assistant", "content": text}
        return body("chat.completion", {"message": message, "finish_reason": "stop"}, usage=usage)

    events = [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": piece}) for piece in PIECES),
        delta({}, "stop"),
        chunk(usage=usage),
        b"data: [DONE]\n\n",
    ]
    return Replies(whole(TEXT), whole(LONG_TEXT), events)


# Messages


def _messages() -> Replies:
    usage = {"input_tokens": _PROMPT_TOKENS, "output_tokens": CHUNKS}
    start = {"id": "msg_7f3a", "type": "message", "role": "assistant", "model": "bench/model"}
    end = {"stop_reason": "end_turn", "stop_sequence": None}

    def whole(text: str) -> bytes:
        content = [{"type": "text", "text": text}]
        return _dumps({**start, "content": content, **end, "usage": usage})

    begun: Body = {**start, "content": [], "stop_reason": None, "stop_sequence": None}

    def events() -> Iterator[Body]:
        yield {
            "type": "message_start",
            "message": {**begun, "usage": {**usage, "output_tokens": 1}},
        }
        block = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        for piece in PIECES:
            delta = {"type": "text_delta", "text": piece}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": CHUNKS}}
        yield {"type": "message_stop"}

    return Replies(whole(TEXT), whole(LONG_TEXT), _named(events()))


# Responses

_IN_ITEM = {"item_id": "msg_7f3b", "output_index": 0}
_IN_PART = {**_IN_ITEM, "content_index": 0}


def _response(status: str, text: str | None, usage: Body | None) -> Body:
    return {
        "id": "resp_7f3a",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "bench/model",
        "output": [] if text is None else [_item(text)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def _item(text: str) -> Body:
    return {**_begun_item(), "status": "completed", "content": [_part(text)]}


def _begun_item() -> Body:
    return {
        "id": _IN_ITEM["item_id"],
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }


def _part(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _responses() -> Replies:
    usage = {
        "input_tokens": _PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": CHUNKS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": _PROMPT_TOKENS + CHUNKS,
    }
    text = "".join(PIECES)

    def events() -> Iterator[Body]:
        begun = _response("in_progress", None, None)
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        yield {"type": "response.output_item.added", "output_index": 0, "item": _begun_item()}
        yield {"type": "response.content_part.added", **_IN_PART, "part": _part("")}
        for piece in PIECES:
            delta = {"delta": piece, "logprobs": []}
            yield {"type": "response.output_text.delta", **_IN_PART, **delta}
        yield {"type": "response.output_text.done", **_IN_PART, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **_IN_PART, "part": _part(text)}
        yield {"type": "response.output_item.done", "output_index": 0, "item": _item(text)}
        yield {"type": "response.completed", "response": _response("completed", text, usage)}

    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events()))
    whole, long = (_dumps(_response("completed", said, usage)) for said in (TEXT, LONG_TEXT))
    return Replies(whole, long, _named(numbered))


REPLIES: Mapping[str, Replies] = {
    "completions": _chat_completions(),
    "messages": _messages(),
    "responses": _responses(),
}
"""The replies of each format, by the last part of its path."""
