"""Texts of the service are sent back unchanged, because it may compare histories as text.

The replies are written by hand, because the local server has only one spelling of JSON.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)

from langchain_sequrity import ChatSequrity
from langchain_sequrity.wire.sse import write_event
from tests.chat_models.conftest import SESSION, call_id, completion
from tests.chat_models.formats import added

FORMATS = ["chat/completions", "responses"]
DUAL = {"agent_arch": "dual-llm"}
# Spellings of one object. Only the first is that of `json.dumps`.
SPELLINGS = [
    '{"to": "Zo\\u00eb", "n": 1.0, "ok": true}',
    '{"to":"Zo\\u00eb","n":1.0,"ok":true}',
    '{"to": "Zoë", "n": 1.0, "ok": true}',
    '{"ok": true, "n": 1.0, "to": "Zo\\u00eb"}',
    '\n{ "to" : "\\u005a\\u006F\\u00EB", "n": 10e-1, "ok": true }\n',
    '{"to": "nobody", "to": "Zo\\u00eb", "n": 1.0, "ok": true}',
]
ARGS = {"to": "Zoë", "n": 1.0, "ok": True}


class Recorded:
    """A service that asks for calls whose arguments have a given spelling."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.calls: list[tuple[str, str]] = []
        self.said = ""
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        self.bodies.append(body)
        make = self._chat if self.form == "chat/completions" else self._responses
        content, kind = make(stream=bool(body.get("stream")))
        headers = {"content-type": kind, "x-session-id": SESSION}
        return httpx.Response(200, headers=headers, content=content)

    def _chat(self, *, stream: bool) -> tuple[bytes, str]:
        functions = [
            (number, one, {"name": "send", "arguments": text})
            for number, (one, text) in enumerate(self.calls)
        ]
        calls = [{"id": one, "type": "function", "function": f} for _, one, f in functions]
        whole = completion(self.said, tool_calls=calls)
        if not stream:
            return orjson.dumps(whole), "application/json"
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": self.said}]
        for number, one, function in functions:
            start = {"index": number, "id": one, "type": "function"}
            deltas.append({"tool_calls": [{**start, "function": {**function, "arguments": ""}}]})
            deltas += [
                {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                for piece in _pieces(function["arguments"])
            ]
        # The event with the last piece of a call also has the finish reason.
        ends = [None] * (len(deltas) - 1) + ["tool_calls"]
        head = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunks = [
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
            for delta, end in zip(deltas, ends, strict=True)
        ]
        events = [orjson.dumps(chunk).decode() for chunk in chunks]
        return b"".join(map(write_event, [*events, "[DONE]"])), "text/event-stream"

    def _responses(self, *, stream: bool) -> tuple[bytes, str]:
        items = [
            {"type": "function_call", "id": f"fc_{number}", "call_id": one, "name": "send",
             "arguments": text, "status": "completed"}
            for number, (one, text) in enumerate(self.calls)
        ]  # fmt: skip
        response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m",
                    "status": "completed", "output": items}  # fmt: skip
        if not stream:
            return orjson.dumps(response), "application/json"
        events: list[dict[str, Any]] = []
        for number, item in enumerate(items):
            place = {"output_index": number, "item_id": item["id"]}
            events.append({"type": "response.output_item.added", **place,
                           "item": {**item, "arguments": ""}})  # fmt: skip
            events += [
                {"type": "response.function_call_arguments.delta", **place, "delta": piece}
                for piece in _pieces(str(item["arguments"]))
            ]
        events.append({"type": "response.completed", "response": response})
        text = (write_event(orjson.dumps(one).decode(), one["type"]) for one in events)
        return b"".join(text), "text/event-stream"

    def sent_back(self) -> list[tuple[str, str]]:
        """Ids and arguments of the calls in the last request."""
        body = self.bodies[-1]
        if self.form == "responses":
            return [
                (one["call_id"], one["arguments"])
                for one in body["input"]
                if one.get("type") == "function_call"
            ]
        calls = [call for one in body["messages"] for call in one.get("tool_calls", ())]
        return [(call["id"], call["function"]["arguments"]) for call in calls]


def _pieces(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


@pytest.fixture(params=FORMATS)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


@pytest.fixture
def client(recorded: Recorded) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(recorded)) as found:
        yield found


def model_of(recorded: Recorded, client: httpx.Client, **fields: Any) -> ChatSequrity:
    return ChatSequrity(
        "m", api_key="sq-test", base_url="https://api.example", http_client=client, max_retries=0,
        use_responses_api=recorded.form == "responses", **fields,
    )  # fmt: skip


def asked(model: ChatSequrity, way: str) -> AIMessage:
    found: AIMessage = added(model.stream("Go")) if way == "streamed" else model.invoke("Go")
    return found


def echo(model: ChatSequrity, message: AIMessage) -> None:
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    model.invoke([HumanMessage("Go"), message, *results])


def _stored(message: AIMessage, *, sort_keys: bool) -> AIMessage:
    """The message after a round trip through a database. Some databases sort keys."""
    text = json.dumps([message_to_dict(message)], sort_keys=sort_keys)
    [again] = messages_from_dict(json.loads(text))
    assert isinstance(again, AIMessage)
    return again


STORED: dict[str, Any] = {
    "as it is": lambda message: message,
    "as JSON": partial(_stored, sort_keys=False),
    "with keys in another order": partial(_stored, sort_keys=True),
}


@pytest.mark.parametrize("features", [None, DUAL], ids=["features unset", "dual-llm"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_arguments_are_sent_back_byte_for_byte(
    recorded: Recorded, client: httpx.Client, way: str, stored: str, features: Any
) -> None:
    recorded.calls = [(call_id(call=f"{n}" * 36), text) for n, text in enumerate(SPELLINGS)]
    model = model_of(recorded, client, features=features)
    message = asked(model, way)
    assert [call["args"] for call in message.tool_calls] == [ARGS] * len(SPELLINGS)
    message = AIMessage(**message.model_dump(exclude={"type", "tool_call_chunks"}))
    echo(model, STORED[stored](message))
    assert recorded.sent_back() == recorded.calls


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_arguments_in_standard_content_blocks_are_sent_back_byte_for_byte(
    recorded: Recorded, client: httpx.Client, way: str
) -> None:
    recorded.calls = [(call_id(call=f"{n}" * 36), text) for n, text in enumerate(SPELLINGS)]
    model = model_of(recorded, client, output_version="v1")
    echo(model, asked(model, way))
    assert recorded.sent_back() == recorded.calls


TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), TEXTS, max_size=4)
STYLES = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]),
        "sort_keys": st.booleans(),
    }
)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("way", ["whole", "streamed"])
@given(args=OBJECTS, style=STYLES)
def test_any_arguments_in_any_spelling_are_sent_back_byte_for_byte(
    form: str, way: str, args: dict[str, Any], style: dict[str, Any]
) -> None:
    recorded = Recorded(form)
    recorded.calls = [(call_id(), json.dumps(args, **style))]
    with httpx.Client(transport=httpx.MockTransport(recorded)) as client:
        model = model_of(recorded, client)
        message = asked(model, way)
        echo(model, message)
    assert [call["args"] for call in message.tool_calls] == [args]
    assert recorded.sent_back() == recorded.calls


EDITS: list[tuple[str, dict[str, Any]]] = [
    ('{"n":1}', {"n": 2}),
    ('{"n":1}', {"n": True}),
    ('{"n":1.0}', {"n": 1}),
    ('{"n":0}', {"n": False}),
    ('{"n":[1]}', {"n": [1, 1]}),
    ('{"to":"ana"}', {"to": "Zoë"}),
    ('{"to":"ana"}', {}),
    ('{"to":"ana"}', {"to": "ana", "n": 1}),
    ("{}", {"n": 10**30}),
    ("", {"n": 1}),
]


@pytest.mark.parametrize(("came", "edited"), EDITS)
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_edited_arguments_are_written_as_the_service_writes_them(
    recorded: Recorded, client: httpx.Client, way: str, came: str, edited: dict[str, Any]
) -> None:
    recorded.calls = [(call_id(), came)]
    model = model_of(recorded, client)
    message = asked(model, way)
    [call] = message.tool_calls
    echo(model, message.model_copy(update={"tool_calls": [{**call, "args": edited}]}))
    assert recorded.sent_back() == [(call_id(), json.dumps(edited))]


def test_text_beside_a_call_is_not_shown_but_is_sent_back() -> None:
    recorded = Recorded("chat/completions")
    recorded.calls, recorded.said = [(call_id(), "{}")], "I send it now."
    with httpx.Client(transport=httpx.MockTransport(recorded)) as chat:
        model = model_of(recorded, chat, features=DUAL)
        for way in ("whole", "streamed"):
            message = asked(model, way)
            assert message.text == ""
            echo(model, message)
            said = [m for m in recorded.bodies[-1]["messages"] if m["role"] == "assistant"]
            assert [one["content"] for one in said] == ["I send it now."]


def test_an_envelope_is_sent_back_byte_for_byte() -> None:
    spelled = '{ "status":"success" ,\n"final_return_value": {"value": "Zo\\u00eb", "meta": {} } }'
    recorded = Recorded("chat/completions")
    recorded.said = spelled
    with httpx.Client(transport=httpx.MockTransport(recorded)) as chat:
        model = model_of(recorded, chat, features=DUAL)
        for way in ("whole", "streamed"):
            message = asked(model, way)
            assert message.text == "Zoë"
            model.invoke([HumanMessage("Go"), message, HumanMessage("And?")])
            said = [m for m in recorded.bodies[-1]["messages"] if m["role"] == "assistant"]
            assert [one["content"] for one in said] == [spelled]


def test_another_session_gets_equal_arguments_and_neutral_ids(
    recorded: Recorded, client: httpx.Client
) -> None:
    recorded.calls = [(call_id(), SPELLINGS[1])]
    message = asked(model_of(recorded, client), "whole")
    other = model_of(recorded, client, features={"agent_arch": "single-llm"})
    echo(other, message)
    [(sent_id, text)] = recorded.sent_back()
    assert not sent_id.startswith("tc")
    assert json.loads(text) == ARGS
