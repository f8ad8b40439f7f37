"""A call or a value counts only if the reply has all of it (`docs/behaviour.md`, P14)."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel

from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.sse import write_event
from tests.chat_models.formats import CHAT, MESSAGES, NAMES, RESPONSES, ROWS, SESSION, Row, added
from tests.chat_models.unfinished import failures, pay
from tests.transport.transport_helpers import RawServer, http, says

CALL = {"to": "ada", "notes": ["a", {"b": "c d e f g h i j k l m n"}]}


@pytest.mark.parametrize("start", range(0, 300, 150))
def test_a_call_or_a_value_counts_only_if_the_reply_has_all_of_it(start: int) -> None:
    assert list(failures(range(start, start + 150))) == []


@pytest.fixture(scope="module")
def paying() -> Iterator[LocalServer]:
    script: list[Any] = [
        {"when": {"user": "^pay$"}, "tool_calls": [{"name": "pay", "arguments": CALL}]},
        {"when": {}, "text": "Done."},
    ]
    with LocalServer(script=script) as server:
        yield server


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_call_of_a_model_that_reaches_its_limit_of_tokens_is_whole_or_invalid(
    paying: LocalServer, row: Row
) -> None:
    model: Any = row.make(base_url=paying.base_url).bind_tools([pay])
    outcomes = set()
    for limit in range(1, 60, 3):
        whole = model.invoke("pay", max_tokens=limit)
        streamed = added(model.stream("pay", max_tokens=limit))
        for message in (whole, streamed):
            assert [call["args"] for call in message.tool_calls] in ([], [CALL])
            outcomes.add((len(message.tool_calls), len(message.invalid_tool_calls)))
        assert whole.tool_calls == [] or streamed.tool_calls[0]["args"] == CALL
    assert outcomes == {(0, 0), (0, 1), (1, 0)}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_an_invalid_call_of_a_stream_goes_back_as_the_model_wrote_it(
    paying: LocalServer, row: Row
) -> None:
    bodies: list[str] = []
    hooks = {"request": [lambda request: bodies.append(request.content.decode())]}
    with httpx.Client(event_hooks=hooks) as client:
        model: Any = row.make(base_url=paying.base_url, http_client=client).bind_tools([pay])
        question = HumanMessage("pay")
        asked = added(model.stream([question], max_tokens=20))
        bad: Any = asked.invalid_tool_calls[0]
        refused = ToolMessage("not a call", tool_call_id=bad["id"])
        answer = model.invoke([question, asked, refused, HumanMessage("What now?")])
    assert answer.text == "Done."
    sent = json.loads(bodies[-1])
    [written] = [text for text in _texts_in(sent) if text.startswith('{"to"')]
    assert json.dumps(CALL).startswith(written)
    assert bad["args"].startswith(written)
    assert bad["args"] != written


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)


def _streamed(*events: tuple[str, Any], end: bytes = b"") -> bytes:
    written = b"".join(write_event(json.dumps(data), name) for name, data in events)
    head = f"\r\nX-Session-ID: {SESSION}\r\n\r\n".encode()
    return http(written + end, media="text/event-stream").replace(b"\r\n\r\n", head, 1)


def _chat_stream(function: dict[str, str], finish_reason: str) -> bytes:
    call = {"index": 0, "id": "c", "function": function}
    deltas = [({"tool_calls": [call]}, None), ({}, finish_reason)]
    return _streamed(
        *(
            ("", {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
            for delta, reason in deltas
        ),
        end=b"data: [DONE]\n\n",
    )


def _response_stream(status: str, item_status: str) -> bytes:
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "pay", "arguments": ""}
    whole = {**item, "arguments": "{}", "status": item_status}
    is_added_only = item_status == "in_progress"
    response = {"id": "r", "status": status, "output": [] if is_added_only else [whole]}
    added_item = {"output_index": 0, "item": {**item, "status": "in_progress"}}
    return _streamed(
        ("", {"type": "response.output_item.added", **added_item}),
        ("", {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}),
        ("", {"type": f"response.{status}", "response": response}),
    )


DOUBTFUL: dict[str, tuple[Row, bytes, int]] = {
    "no arguments, finished": (CHAT, _chat_stream({"name": "pay"}, "tool_calls"), 1),
    "no arguments, cut off": (CHAT, _chat_stream({"name": "pay"}, "length"), 0),
    "no name": (CHAT, _chat_stream({"arguments": "{}"}, "tool_calls"), 0),
    "null": (CHAT, _chat_stream({"name": "pay", "arguments": "null"}, "tool_calls"), 0),
    "a number": (CHAT, _chat_stream({"name": "pay", "arguments": " 5"}, "tool_calls"), 0),
    "nan": (CHAT, _chat_stream({"name": "pay", "arguments": '{"x": nan}'}, "tool_calls"), 0),
    "finished item": (RESPONSES, _response_stream("completed", "completed"), 1),
    "incomplete item": (RESPONSES, _response_stream("completed", "incomplete"), 0),
    "item without its end, complete": (RESPONSES, _response_stream("completed", "in_progress"), 1),
    "item without its end, cut off": (RESPONSES, _response_stream("incomplete", "in_progress"), 0),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_call_counts_only_if_the_stream_shows_that_it_is_whole(name: str) -> None:
    row, body, number = DOUBTFUL[name]
    with RawServer([says(body)]).running() as server:
        model: Any = row.make(base_url=server.url)
        stream = model.stream_events("Hi", version="v3")
        assert len(list(stream)) > 0
        for message in (added(model.stream("Hi")), model.invoke("Hi", stream=True), stream.output):
            assert [call["args"] for call in message.tool_calls] == [{}] * number
            assert len(message.invalid_tool_calls) == 1 - number
        model.close()


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_an_invalid_call_does_not_become_a_copy_of_the_valid_one() -> None:
    blocks: list[Any] = [
        {"type": "tool_use", "id": i, "name": "pay", "input": {}} for i in ("a", "b")
    ]
    parts = ['{"to": "ada"}', '{"to": "bo']
    events: list[Any] = [{"type": "message_start", "message": {"id": "m", "content": []}}]
    for index, (block, part) in enumerate(zip(blocks, parts, strict=True)):
        delta = {"type": "input_json_delta", "partial_json": part}
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
    events.append({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}})
    events.append({"type": "message_stop"})
    body = _streamed(*(("", event) for event in events))
    with RawServer([says(body)]).running() as server:
        for features in ({"agent_arch": "dual-llm"}, {"agent_arch": "single-llm"}):
            model: Any = MESSAGES.make(base_url=server.url, features=features)
            stream = model.stream_events("Hi", version="v3")
            assert len(list(stream)) > 0
            assert [call["args"] for call in stream.output.tool_calls] == [{"to": "ada"}]
            model.close()


class _CutOff(GenericFakeChatModel):
    """Streams a call, and ends within its arguments."""

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        call: Any = {"name": "pay", "args": '{"to": "ada", "euros": 5', "id": "c", "index": 0,
                "type": "tool_call_chunk"}  # fmt: skip
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", response_metadata={"finish_reason": "length"})
        )

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        bad = {"name": "pay", "args": '{"to": "ada", "euros": 5', "id": "c", "error": "cut"}
        message = AIMessage("", invalid_tool_calls=[bad])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_call_that_a_model_behind_the_local_server_did_not_finish_is_not_repaired(
    row: Row,
) -> None:
    with LocalServer(_CutOff(messages=iter(()))) as server:
        model: Any = row.make(base_url=server.base_url).bind_tools([pay])
        for message in (model.invoke("Hi"), added(model.stream("Hi"))):
            assert message.tool_calls == []
            assert len(message.invalid_tool_calls) == 1
        guarded: Any = row.make(
            base_url=server.base_url,
            features={"agent_arch": "single-llm"},
            policy='tool "pay" { must deny when to.value == "bob"; }',
        )
        with pytest.raises(PolicyDenied, match="not a JSON object"):
            guarded.bind_tools([pay]).invoke("Hi")


class Answer(BaseModel):
    """An answer with defaults, so that a part of it would be valid."""

    name: str = ""
    text: str = ""


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_a_structured_answer_that_reached_the_limit_of_tokens_raises(row: Row, method: Any) -> None:
    value = {"name": "Ada", "text": "a long text of many words that goes on and on"}
    answer: Any = {"text": json.dumps(value)}
    if method == "function_calling":
        answer = {"tool_calls": [{"name": "Answer", "arguments": value}]}
    with LocalServer(script=[answer]) as server:
        shaped: Any = row.make(base_url=server.base_url).with_structured_output(
            Answer, method=method
        )
        with pytest.raises(OutputParserException):
            shaped.invoke("Hi", max_tokens=10)
        shown: list[Any] = []
        with pytest.raises(OutputParserException):
            shown.extend(shaped.stream("Hi", max_tokens=10))
        with pytest.raises(OutputParserException):
            asyncio.run(_read_async(shaped, shown))
        assert shown == []
        assert list(shaped.stream("Hi")) == [Answer(**value)]


async def _read_async(shaped: Any, shown: list[Any]) -> None:
    async for value in shaped.astream("Hi", max_tokens=10):
        shown.append(value)  # noqa: PERF401 - also of a stream that raises


@pytest.mark.parametrize("finish_reason", ["stop", None])
def test_a_number_is_a_value_only_if_the_reply_says_that_it_was_finished(
    finish_reason: str | None,
) -> None:
    choice = {"message": {"content": "12"}, "finish_reason": finish_reason}
    with RawServer([says(http(json.dumps({"choices": [choice]}).encode()))]).running() as server:
        model = CHAT.make(base_url=server.url)
        shaped: Any = model.with_structured_output({"title": "n", "description": "d"})
        if finish_reason is None:
            with pytest.raises(OutputParserException, match="beginning of another"):
                shaped.invoke("Hi")
        else:
            assert shaped.invoke("Hi") == 12
        model.close()  # type: ignore[attr-defined]


def test_a_block_within_a_value_that_was_not_finished_is_not_the_value() -> None:
    text = '{"name": "```json {}'
    script = [{"text": text, "finish_reason": "stop"}]
    with LocalServer(script=script) as server:
        shaped = ROWS[0].make(base_url=server.base_url).with_structured_output(Answer)
        with pytest.raises(OutputParserException):
            shaped.invoke("Hi")
