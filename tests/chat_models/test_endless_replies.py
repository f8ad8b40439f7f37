"""Endless replies of a service: an error names the limit before the memory is full."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_sequrity.errors import BadReply, RateLimited, SequrityError
from langchain_sequrity.wire.sse import write_event
from tests.chat_models.formats import CHAT, MESSAGES, RESPONSES, Row

MB = 1_000_000
Events = Iterator[tuple[str, dict[str, Any]]]
LONG = "x" * 100_000
LISTS = "[]," * 3_000
DUAL = {"agent_arch": "dual-llm"}
SINGLE = {"agent_arch": "single-llm"}


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.fixture
def grown() -> Callable[[], int]:
    """The largest growth of this process since the test began, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, `VmHWM`
    before = memory("VmRSS")
    return lambda: memory("VmHWM") - before


# Endless streams of events. The client accumulates other data in each format.


def chat(delta: Callable[[int], dict[str, Any]], **choice: Any) -> Events:
    return (("", {"choices": [{"index": 0, "delta": delta(n), **choice}]}) for n in count())


def call(n: int, arguments: str, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": n, "function": {"arguments": arguments}, **more}]}


def messages(*events: dict[str, Any], then: Callable[[int], dict[str, Any]]) -> Events:
    yield "message_start", {"type": "message_start", "message": {"id": "m", "content": []}}
    for event in events:
        yield event["type"], event
    for n in count():
        yield then(n)["type"], then(n)


def block(n: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": n, "content_block": fields}


def delta(**fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def responses(*events: dict[str, Any], then: Callable[[int], dict[str, Any]]) -> Events:
    for event in events:
        yield "", event
    for n in count():
        yield "", then(n)


TOOL_USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
CALLED = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": ""}
ENDLESS: dict[str, tuple[Row, Callable[[], Events]]] = {
    "text": (CHAT, lambda: chat(lambda _: {"content": LONG})),
    "little text": (CHAT, lambda: chat(lambda _: {"content": "{" * 2_000})),
    "refusal": (CHAT, lambda: chat(lambda _: {"refusal": LONG})),
    "unknown fields": (CHAT, lambda: chat(lambda n: {f"key{n}": LONG})),
    "arguments": (CHAT, lambda: chat(lambda _: call(0, LISTS))),
    "calls": (CHAT, lambda: chat(lambda n: call(n, "", id=f"{n}" + "c" * 5_000))),
    "log probabilities": (CHAT, lambda: chat(lambda _: {}, logprobs={"content": [[]] * 3_000})),
    "text of Messages": (MESSAGES, lambda: messages(then=lambda _: delta(type="text_delta", text=LONG))),
    "arguments of Messages": (MESSAGES, lambda: messages(block(0, **TOOL_USE), then=lambda _: delta(type="input_json_delta", partial_json=LISTS))),
    "blocks": (MESSAGES, lambda: messages(then=lambda n: block(n, type="other" + "x" * 5_000))),
    "keys of a message": (MESSAGES, lambda: messages(then=lambda n: {"type": "message_delta", "delta": {f"{n}": [[]] * 3_000}})),
    "text of Responses": (RESPONSES, lambda: responses(then=lambda _: {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": LONG})),
    "arguments of Responses": (RESPONSES, lambda: responses({"type": "response.output_item.added", "output_index": 0, "item": CALLED}, then=lambda _: {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": LISTS})),
    "items": (RESPONSES, lambda: responses(then=lambda n: {"type": "response.output_item.added", "output_index": n, "item": {"type": "message", "id": f"{n}", "more": [[]] * 3_000}})),
}  # fmt: skip
# Events that the client passes on at once in single-LLM sessions and does not keep.
HANDED_ON = {"text", "little text", "refusal", "unknown fields", "text of Messages", "blocks", "text of Responses"}  # fmt: skip


def answering(content: Callable[[], Iterator[bytes]], status: int = 200, kind: str = "text/event-stream") -> httpx.Client:  # fmt: skip
    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return content()

    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": kind}, stream=Endless())

    return httpx.Client(transport=httpx.MockTransport(handler))


def model(row: Row, client: httpx.Client, features: dict[str, str] | None) -> Any:
    return row.make(
        api_key="sq-test",
        base_url="https://api.example",
        http_client=client,
        max_retries=0,
        features=features,
    )


def written(events: Events) -> Iterator[bytes]:
    return (write_event(json.dumps(body), name) for name, body in events)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    ("name", "features"),
    [
        *((name, DUAL) for name in ENDLESS),
        *((name, SINGLE) for name in sorted(ENDLESS.keys() - HANDED_ON)),
    ],
)
def test_an_endless_stream_ends_with_an_error_at_the_limit(
    name: str, features: dict[str, str], grown: Callable[[], int]
) -> None:
    row, events = ENDLESS[name]
    client = answering(lambda: written(events()))
    with pytest.raises(BadReply, match="more than 33554432 bytes"):
        for _ in model(row, client, features).stream("Hi"):
            pass
    assert grown() < 200 * MB


async def test_an_endless_stream_ends_with_an_error_in_async_calls() -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            for data in written(ENDLESS["text"][1]()):
                yield data

    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless())

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        made = CHAT.make(api_key="sq-test", base_url="https://api.example", http_async_client=client, features=DUAL)  # fmt: skip
        with pytest.raises(BadReply, match="more than 33554432 bytes"):
            async for _ in made.astream("Hi"):
                pass


def test_text_that_may_be_an_envelope_is_held_back_only_up_to_the_limit() -> None:
    row, events = ENDLESS["text of Messages"]
    opening = write_event(json.dumps(delta(type="text_delta", text="{")), "content_block_delta")

    def content() -> Iterator[bytes]:
        stream = written(events())
        yield next(stream)
        yield opening
        yield from stream

    with pytest.raises(BadReply, match="more than 33554432 bytes"):
        for _ in model(row, answering(content), None).stream("Hi"):
            pass


def test_an_endless_stream_of_comments_ends_with_an_error() -> None:
    """Comments are not events, so the limit for events does not apply to them."""
    client = answering(lambda: (b": " + b"x" * 1_000_000 + b"\n\n" for _ in count()))
    with pytest.raises(BadReply, match="longer than 268435456 bytes"):
        list(model(CHAT, client, SINGLE).stream("Hi"))


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "piece", [b"x" * MB, b"data: " + b"x" * MB, b"\r" * MB + b"a", b"data: x\n" * 100_000]
)
def test_an_endless_event_ends_with_an_error(piece: bytes, grown: Callable[[], int]) -> None:
    client = answering(lambda: (piece for _ in count()))
    with pytest.raises(BadReply, match=r"more than 16777216 bytes|not JSON|longer than"):
        list(model(CHAT, client, SINGLE).stream("Hi"))
    assert grown() < 200 * MB


# Whole replies


def whole(begin: bytes, part: bytes, end: bytes, size: int) -> Callable[[], Iterator[bytes]]:
    def content() -> Iterator[bytes]:
        yield begin
        for _ in range(size // (len(part) * 10_000)):
            yield part * 10_000
        yield end

    return content


BODIES = {
    "lists": (b"[", b"[],", b"1]"),
    "lists in a field": (b'{"choices": [', b"[],", b"1]}"),
    "lists in a string": (b'{"choices": [{"message": {"content": "{[', b"[],", b'1]"}}]}'),
    "arguments": (b'{"choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[', b"[],", b'1]"}}]}}]}'),
    "objects": (b'{"choices": [', b'{"a":1},', b"1]}"),
    "numbers": (b'{"choices": [', b"1,", b"1]}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_reply_that_would_fill_the_memory_is_not_parsed(
    name: str, kind: str, grown: Callable[[], int]
) -> None:
    body = whole(*BODIES[name], size=12 * MB)

    def event() -> Iterator[bytes]:
        yield b"data: "
        yield from body()
        yield b"\n\n"

    client = answering(body if kind == "application/json" else event, kind=kind)
    with pytest.raises(BadReply, match="134217728 bytes of memory"):
        for _ in model(CHAT, client, DUAL).stream("Hi"):
            pass
    assert grown() < 200 * MB


def test_an_endless_reply_is_refused_by_its_size(grown: Callable[[], int]) -> None:
    client = answering(lambda: (b" " * MB for _ in count()), kind="application/json")
    with pytest.raises(BadReply, match="larger than 67108864 bytes"):
        model(CHAT, client, SINGLE).invoke("Hi")
    assert grown() < 200 * MB


@pytest.mark.parametrize("content", [b"x" * MB, b"[]," * 300_000])
@pytest.mark.parametrize("stream", [False, True])
def test_an_endless_error_reply_raises_the_error_of_its_status(
    content: bytes, *, stream: bool, grown: Callable[[], int]
) -> None:
    client = answering(lambda: (content for _ in count()), status=429, kind="application/json")
    with pytest.raises(SequrityError) as caught:
        list(model(CHAT, client, SINGLE).stream("Hi")) if stream else model(CHAT, client, SINGLE).invoke("Hi")  # fmt: skip
    assert isinstance(caught.value, RateLimited)
    assert len(str(caught.value)) < 1_000
    assert grown() < 50 * MB
