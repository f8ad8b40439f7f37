"""Replies in which one field, anywhere, is missing or has a wrong type."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_sequrity.errors import BadReply, RateLimited, ServiceError, StreamInterrupted
from langchain_sequrity.wire.sse import write_event
from tests.chat_models.formats import (
    CHAT,
    MESSAGES,
    NAMES,
    RESPONSES,
    ROWS,
    SESSION,
    Row,
    Service,
    added,
)

Json = dict[str, Any]
Path = tuple[str | int, ...]

MISSING = object()
WRONG = [MISSING, None, "text", "", 7, -1, 10**30, 1.5, True, [], [7], [None], [[]], {}, {"a": 1}]

CITED = {"url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
COMPLETION: Json = {
    "id": "r1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{
        "index": 0, "finish_reason": "tool_calls", "logprobs": {"content": [{"token": "Hi", "logprob": -1.0}]},
        "message": {
            "role": "assistant", "content": "Hi", "reasoning_content": "hm", "audio": {"id": "a1"},
            "annotations": [{"type": "url_citation", "url_citation": CITED}],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
    }],
    "usage": {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    },
}  # fmt: skip
RESPONSE: Json = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "error": None,
    "incomplete_details": None, "metadata": {"a": "b"},
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
         "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": "e"},
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"],
         "results": [{"file_id": "f"}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "x", "content": [
            {"type": "output_text", "text": "Hi", "annotations": [{"type": "url_citation", **CITED}],
             "logprobs": [{"token": "Hi", "logprob": -1.0}]},
            {"type": "refusal", "refusal": "No"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}',
         "status": "completed"},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 1},
              "output_tokens_details": {"reasoning_tokens": 2}},
}  # fmt: skip
MESSAGE: Json = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
    "stop_sequence": None, "stop_details": {"explanation": "x"}, "container": {"id": "c"},
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hi", "citations": [
            {"type": "char_location", "cited_text": "c", "document_index": 0, "document_title": "d",
             "start_char_index": 0, "end_char_index": 1}]},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1",
         "content": [{"type": "web_search_result", "url": "u", "title": "t"}]},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
    ],
    "usage": {
        "input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": 2},
    },
}  # fmt: skip


def _completion_events() -> Iterator[Json]:
    [choice] = COMPLETION["choices"]
    message = choice["message"]
    [call] = message["tool_calls"]
    deltas: list[Json] = [
        {"role": "assistant", "content": "H"},
        {"content": "i", "annotations": message["annotations"]},
        {"reasoning_content": "hm", "audio": message["audio"]},
        {"tool_calls": [{"index": 0, **call, "function": {"name": "f", "arguments": '{"a'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]},
    ]
    head = {"id": "r1", "model": "m"}
    for delta in deltas:
        logprobs = choice["logprobs"] if "content" in delta else None
        yield {**head, "choices": [{"index": 0, "delta": delta, "logprobs": logprobs}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    yield {**head, "choices": [], "usage": COMPLETION["usage"]}


def _response_events() -> Iterator[Json]:
    text: Json = {"output_index": 2, "content_index": 0}
    call: Json = {"output_index": 3}
    bodies: list[tuple[str, Json]] = [
        ("created", {"response": {"id": "resp_1"}}),
        ("reasoning_summary_text.delta", {"output_index": 0, "summary_index": 0, "delta": "s"}),
        ("reasoning_text.delta", {"output_index": 0, "content_index": 0, "delta": "hm"}),
        ("output_item.done", {"output_index": 1, "item": RESPONSE["output"][1]}),
        ("output_item.added", {"output_index": 2, "item": {**RESPONSE["output"][2], "content": []}}),
        ("output_text.delta", {**text, "delta": "H"}),
        ("output_text.done", {**text, "text": "Hi"}),
        ("output_text.annotation.added", {**text, "annotation": {"type": "url_citation", **CITED}}),
        ("content_part.done", {**text, "part": RESPONSE["output"][2]["content"][0]}),
        ("refusal.delta", {"output_index": 2, "content_index": 1, "delta": "N"}),
        ("refusal.done", {"output_index": 2, "content_index": 1, "refusal": "No"}),
        ("output_item.added", {**call, "item": {**RESPONSE["output"][3], "arguments": ""}}),
        ("function_call_arguments.delta", {**call, "delta": '{"a"'}),
        ("function_call_arguments.done", {**call, "arguments": '{"a": 1}'}),
        ("completed", {"response": RESPONSE}),
    ]  # fmt: skip
    return ({"type": f"response.{name}", **body} for name, body in bodies)


def _message_events() -> Iterator[Json]:
    content = MESSAGE["content"]
    empty: Json = {"thinking": "", "text": "", "signature": "", "input": {}, "citations": []}
    yield {
        "type": "message_start",
        "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": None},
    }
    deltas: list[list[Json]] = [
        [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}],
        [{"type": "text_delta", "text": "Hi"}, {"type": "citations_delta", "citation": content[1]["citations"][0]}],
        [{"type": "input_json_delta", "partial_json": '{"query": "q"}'}],
        [],
        [{"type": "input_json_delta", "partial_json": '{"a": 1}'}],
    ]  # fmt: skip
    for index, (block, increments) in enumerate(zip(content, deltas, strict=True)):
        begun = {key: empty.get(key, value) for key, value in block.items()}
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in increments:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": "tool_use", "stop_details": MESSAGE["stop_details"]}
    yield {"type": "message_delta", "delta": end, "usage": MESSAGE["usage"]}
    yield {"type": "message_stop"}


REPLIES: list[tuple[Row, Any]] = [
    (CHAT, COMPLETION),
    (CHAT, [*_completion_events()]),
    (RESPONSES, RESPONSE),
    (RESPONSES, [*_response_events()]),
    (MESSAGES, MESSAGE),
    (MESSAGES, [*_message_events()]),
]


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _changed(reply: Any, path: Path, value: Any) -> Any:
    reply = inner = json.loads(json.dumps(reply))
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return reply


def _answer(row: Row, reply: Any, *, is_ended: bool = True) -> AIMessage:
    """What a model returns for a reply, after everything that a message offers has been used."""
    service = Service(row)
    headers = {"x-session-id": SESSION, "x-request-id": "q1", "content-type": "application/json"}
    if isinstance(reply, list):
        headers["content-type"] = "text/event-stream"
        content = b"".join(write_event(json.dumps(event)) for event in reply)
        content += write_event("[DONE]") if row is CHAT and is_ended else b""
    else:
        content = json.dumps(reply).encode()
    service.replies.append(httpx.Response(200, headers=headers, content=content))
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client)
        if isinstance(reply, list):
            message: AIMessage = added(model.stream("Hi"))
        else:
            message = model.invoke("Hi")
        assert all(isinstance(block["type"], str) for block in message.content_blocks)
        assert message.pretty_repr()
        type(message).model_validate(message.model_dump(warnings="error"))
        service.answer("Bye")
        results = [ToolMessage("r", tool_call_id=call["id"]) for call in message.tool_calls]
        model.invoke([HumanMessage("Hi"), message, *results])
    return message


def _ids(case: tuple[Row, Any, Path]) -> str:
    row, reply, path = case
    kind = "event" if isinstance(reply, list) else "reply"
    return f"{row.format} {kind} {'.'.join(map(str, path))}"


CASES = [(row, reply, path) for row, reply in REPLIES for path in _paths(reply)]


@pytest.mark.parametrize(("row", "reply"), REPLIES)
def test_a_reply_with_all_fields_is_an_answer(row: Row, reply: Any) -> None:
    message = _answer(row, reply)
    assert str(message.text) == "Hi"
    assert [call["args"] for call in message.tool_calls] == [{"a": 1}]
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"]["reasoning"] == 2


@pytest.mark.long(sample=30)
@pytest.mark.parametrize(("row", "reply", "path"), CASES, ids=[*map(_ids, CASES)])
def test_a_field_of_a_wrong_type_is_ignored_or_makes_a_bad_reply(
    row: Row, reply: Any, path: Path
) -> None:
    for value in WRONG:
        with suppress(ServiceError):
            _answer(row, _changed(reply, path, value))


def _value(reply: Any, path: Path) -> Any:
    for key in path:
        reply = reply[key]
    return reply


# Of a stream only the first mention, which begins the call.
CALL_IDS = [
    next(
        (row, reply, path)
        for case_row, case_reply, path in CASES
        if case_row is row and case_reply is reply
        and path[-1] in ("id", "call_id") and _value(reply, path) == "c1"
    )
    for row, reply in REPLIES
]  # fmt: skip


@pytest.mark.parametrize(("row", "reply", "path"), CALL_IDS, ids=[*map(_ids, CALL_IDS)])
@pytest.mark.parametrize(
    "value", [MISSING, None, "", 7, []], ids=["missing", "null", "empty", "number", "array"]
)
def test_a_call_that_nobody_could_answer_makes_a_bad_reply(
    row: Row, reply: Any, path: Path, value: Any
) -> None:
    with pytest.raises(BadReply):
        _answer(row, _changed(reply, path, value))


ERROR = {"error": {"code": 429, "message": "Slow down", "type": "rate_limit_error"}}
UNUSABLE: list[tuple[Any, type[ServiceError]]] = [
    ({}, BadReply),
    (ERROR, RateLimited),
    ([7], BadReply),
    ([ERROR], RateLimited),
    ([], StreamInterrupted),
]


@pytest.mark.parametrize(("reply", "expected"), UNUSABLE)
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_error_of_an_unusable_reply_names_the_session_and_the_request(
    row: Row, reply: Any, expected: type[ServiceError]
) -> None:
    with pytest.raises(expected) as caught:
        _answer(row, reply, is_ended=False)
    assert (caught.value.session_id, caught.value.request_id) == (SESSION, "q1")


COUNTS = [
    (row, reply, path)
    for row, reply, path in CASES
    if "usage" in path and path[-1] not in ("usage", "cache_creation") and "details" not in str(path[-1])
]  # fmt: skip


@pytest.mark.parametrize(("row", "reply", "path"), COUNTS, ids=[*map(_ids, COUNTS)])
@pytest.mark.parametrize("value", ["3", -1, 1.5, True, [], {}])
def test_a_count_of_tokens_that_is_none_makes_a_bad_reply(
    row: Row, reply: Any, path: Path, value: Any
) -> None:
    with pytest.raises(BadReply):
        _answer(row, _changed(reply, path, value))


@pytest.mark.parametrize(("row", "reply", "path"), COUNTS, ids=[*map(_ids, COUNTS)])
def test_a_count_of_tokens_may_be_missing_or_null(row: Row, reply: Any, path: Path) -> None:
    for value in (MISSING, None):
        message = _answer(row, _changed(reply, path, value))
        assert str(message.text) == "Hi"


@pytest.mark.parametrize(("row", "reply", "path"), COUNTS, ids=[*map(_ids, COUNTS)])
def test_a_count_of_tokens_may_have_a_decimal_point(row: Row, reply: Any, path: Path) -> None:
    usage = _answer(row, _changed(reply, path, 3.0)).usage_metadata
    assert usage == _answer(row, _changed(reply, path, 3)).usage_metadata
