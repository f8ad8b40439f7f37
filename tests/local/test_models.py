"""The backends behind the local server: the deterministic model, and LangChain models."""

import json
import time
import traceback
from collections.abc import Iterator
from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from langsmith.run_helpers import get_tracing_context
from openai import LengthFinishReasonError
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field, SecretStr

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import ServerFailed, StatusError
from langchain_sequrity.local.answers import count_message
from langchain_sequrity.local.backends import Backend, BackendContext, ModelBackend
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.conftest import Serve

CHAT = BackendContext()


def ask(prompt: str | list[BaseMessage] = "Hello", **request: Any) -> ChatRequest:
    messages: list[BaseMessage] = [HumanMessage(prompt)] if isinstance(prompt, str) else prompt
    return ChatRequest(model="any/model", messages=messages, **request)


def pieces(request: ChatRequest, backend: Backend | None = None) -> list[AIMessageChunk]:
    return list((backend or DeterministicModel()).stream(request, CHAT))


def answer(request: ChatRequest, backend: Backend | None = None) -> AIMessageChunk:
    first, *others = pieces(request, backend)
    return first + others if others else first


@tool
def get_weather(city: str) -> str:
    """Get the weather at a location."""
    return f"It is sunny in {city}."


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def send_mail(recipient: str, subject: str, urgent: bool = False) -> str:
    """Send an e-mail."""
    return f"{recipient} {subject} {urgent}"


@tool
def ping() -> str:
    """Check that the service is alive."""
    return "pong"


TOOLS = [convert_to_openai_tool(one) for one in (get_weather, multiply, send_mail, ping)]


def calls(prompt: str | list[BaseMessage], **request: Any) -> list[tuple[str, dict[str, Any]]]:
    message = answer(ask(prompt, **{"tools": TOOLS, **request}))
    assert not message.invalid_tool_calls
    return [(call["name"], call["args"]) for call in message.tool_calls]


# Text


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Hello", "You said: Hello"),
        ("", "You said nothing. What can I do for you?"),
        ("你好", "You said: 你好"),
    ],
)
def test_a_plain_answer_echoes_the_prompt(prompt: str, text: str) -> None:
    assert answer(ask(prompt)).text == text


def test_a_text_has_several_pieces_and_the_last_one_has_usage_and_finish_reason() -> None:
    *texts, last = pieces(ask("Hello there", stream=True))
    assert len(texts) >= 2
    assert all(piece.text and piece.usage_metadata is None for piece in texts)
    assert last.response_metadata == {"finish_reason": "stop", "model_name": "any/model"}
    assert last.usage_metadata is not None


def test_the_same_request_has_the_same_answer() -> None:
    request = ask("Weather in 'Rome'?", tools=TOOLS, options={"logprobs": True})
    assert pieces(request) == pieces(request)


def test_streamed_and_whole_answers_have_the_same_usage() -> None:
    whole, streamed = (answer(ask("Hello", stream=stream)) for stream in (False, True))
    assert whole.usage_metadata == streamed.usage_metadata


def test_usage_adds_up_and_counts_attachments_and_reasoning() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    request = ask([HumanMessage([part])], options={"reasoning_effort": "low"})
    usage = answer(request).usage_metadata
    assert usage is not None
    inputs, outputs = usage["input_token_details"], usage["output_token_details"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert inputs["cache_read"] == 0
    assert usage["input_tokens"] > 50
    assert 0 < outputs["reasoning"] < usage["output_tokens"]


def test_calls_and_reasoning_in_content_are_not_counted_as_attachments() -> None:
    call = {"name": "f", "args": {}, "id": "1"}
    blocks: list[str | dict[str, Any]] = [
        {"type": "reasoning", "id": "2", "summary": []},
        {"type": "tool_use", "name": "f", "input": {}, "id": "1"},
    ]
    assert count_message(AIMessage(blocks, tool_calls=[call])) == count_message(
        AIMessage("", tool_calls=[call])
    )


def test_the_answer_repeats_the_text_beside_attachments() -> None:
    content: list[str | dict[str, Any]] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "x.pdf", "file_data": "data:a/b;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    assert answer(ask([HumanMessage(content)])).text == "You said: What is this?"


@pytest.mark.parametrize("effort", ["minimal", "high"])
def test_with_reasoning_effort_the_reasoning_comes_first(effort: str) -> None:
    first, *_, last = pieces(ask("Hello", options={"reasoning_effort": effort}, stream=True))
    assert first.additional_kwargs["reasoning_content"]
    assert not first.text
    assert last.usage_metadata


def test_with_reasoning_effort_none_there_is_no_reasoning() -> None:
    message = answer(ask("Hello", options={"reasoning_effort": "none"}))
    assert "reasoning_content" not in message.additional_kwargs


def test_a_stop_sequence_cuts_the_text_before_it() -> None:
    message = answer(ask("one two three", stop=["three", "two"]))
    assert message.text == "You said: one "
    assert message.response_metadata["finish_reason"] == "stop"


def test_a_stop_sequence_at_the_start_leaves_an_empty_text() -> None:
    assert answer(ask("Hi", stop=["You"])).text == ""


@given(limit=st.integers(1, 30), effort=st.sampled_from(["none", "low"]))
def test_an_answer_respects_max_tokens_and_its_finish_reason_says_whether_it_was_cut(
    limit: int, effort: str
) -> None:
    options = {"reasoning_effort": effort}
    message, full = (
        answer(ask("one two three four five", max_tokens=most, options=options))
        for most in (limit, None)
    )
    assert message.usage_metadata
    assert full.usage_metadata
    used, wanted = message.usage_metadata["output_tokens"], full.usage_metadata["output_tokens"]
    assert used == min(limit, wanted)
    finish_reason = "length" if used < wanted else "stop"
    assert message.response_metadata["finish_reason"] == finish_reason
    assert full.text.startswith(message.text)


def test_max_tokens_cuts_the_arguments_of_a_call() -> None:
    message = answer(ask("Weather in Rome", tools=TOOLS, max_tokens=7))
    assert message.response_metadata["finish_reason"] == "length"
    assert message.tool_call_chunks[0]["args"] == '{"city":'


def test_log_probabilities_are_given_for_each_token() -> None:
    message = answer(ask("Hello", options={"logprobs": True, "top_logprobs": 3}))
    tokens = message.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == message.text
    for token in tokens:
        assert bytes(token["bytes"]).decode() == token["token"]
        ranked = [top["logprob"] for top in token["top_logprobs"]]
        assert len(ranked) == 3
        assert 0 > token["logprob"] == ranked[0] > ranked[1] > ranked[2]


def test_log_probabilities_are_omitted_unless_requested() -> None:
    assert "logprobs" not in answer(ask("Hello")).response_metadata


def test_a_request_without_a_user_message_is_answered() -> None:
    assert answer(ask([SystemMessage("Be brief.")])).text.startswith("You said nothing.")


# Tools


def test_a_tool_without_parameters_is_called_without_arguments() -> None:
    tools = [{"type": "function", "function": {"name": "tick"}}]
    assert calls("tick", tools=tools) == [("tick", {})]


def test_a_call_is_omitted_if_max_tokens_leaves_no_room_for_it() -> None:
    message = answer(ask("Weather in Rome", tools=TOOLS, max_tokens=2))
    assert not message.tool_call_chunks
    assert message.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("What is the weather in 'San Francisco, CA'?", ("get_weather", {"city": "San Francisco, CA"})),
        ("weather, city: Paris", ("get_weather", {"city": "Paris"})),
        ('Weather of {"city": "Bad Ems"}', ("get_weather", {"city": "Bad Ems"})),
        ("What is the weather?", ("get_weather", {"city": "What is the weather?"})),
        ("multiply(6, 7), please", ("multiply", {"a": 6, "b": 7})),
        ("Multiply b=2 by a=9", ("multiply", {"a": 9, "b": 2})),
        ("Multiply 3 by a=9", ("multiply", {"a": 9, "b": 3})),
        ("Mail 'bob@example.com' with the subject \"Lunch\"", ("send_mail", {"recipient": "bob@example.com", "subject": "Lunch"})),
        ("Send 'bob' a mail, subject: `Lunch`, urgent: yes", ("send_mail", {"recipient": "bob", "subject": "Lunch", "urgent": True})),
        ("PING!", ("ping", {})),
    ],
)  # fmt: skip
def test_the_tool_that_the_prompt_names_is_called(
    prompt: str, expected: tuple[str, dict[str, Any]]
) -> None:
    assert calls(prompt) == [expected]


@pytest.mark.parametrize("prompt", ["Hello!", "Get me a joke about Pings.", ""])
def test_no_tool_is_called_when_none_is_named(prompt: str) -> None:
    message = answer(ask(prompt, tools=TOOLS))
    assert not message.tool_calls
    assert message.text


def test_no_tool_is_called_with_tool_choice_none() -> None:
    assert calls("What is the weather in Rome?", tool_choice="none") == []


@pytest.mark.parametrize("prompt", ["Hello!", "What is the weather in Rome?", ""])
def test_the_tool_that_tool_choice_names_is_called_with_every_prompt(prompt: str) -> None:
    [(name, _)] = calls(prompt, tool_choice={"name": "multiply"})
    assert name == "multiply"


def test_with_tool_choice_required_the_best_tool_or_the_first_one_is_called() -> None:
    assert calls("Multiply 2 and 3", tool_choice="required") == [("multiply", {"a": 2, "b": 3})]
    assert [name for name, _ in calls("Hello!", tool_choice="required")] == ["get_weather"]


def test_with_tool_choice_required_the_next_call_of_a_turn_is_another_tool() -> None:
    history = [
        HumanMessage("What is the weather in Rome?"),
        AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": "Rome"}, "id": "1"}]),
        ToolMessage("Sunny", tool_call_id="1"),
    ]
    tools = TOOLS[:2]
    assert [name for name, _ in calls(history, tools=tools, tool_choice="required")] == ["multiply"]


def test_two_named_tools_are_both_called_unless_parallel_calls_are_off() -> None:
    prompt = "Call ping and get_weather for 'Rome'."
    both = [("get_weather", {"city": "Rome"}), ("ping", {})]
    assert calls(prompt) == both
    assert len(calls(prompt, parallel_tool_calls=False)) == 1


def test_arguments_are_sent_in_several_fragments_with_one_id() -> None:
    chunks = pieces(ask("ping", tools=TOOLS, stream=True))
    fragments = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece["index"] for piece in fragments] == [0] * len(fragments)
    assert [bool(piece["id"]) for piece in fragments] == [True, *[False] * (len(fragments) - 1)]
    assert len([piece for piece in fragments if piece["args"]]) >= 2
    assert chunks[-1].response_metadata["finish_reason"] == "tool_calls"


def test_unicode_survives_in_arguments() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    function = {"name": "create", "description": "Create a customer.", "parameters": schema}
    prompt = "Create a customer named '你好啊集团' (Hello Group)"
    assert calls(prompt, tools=[{"type": "function", "function": function}]) == [
        ("create", {"name": "你好啊集团"})
    ]


def test_an_answer_after_tools_quotes_their_results() -> None:
    history = [
        HumanMessage("Weather and ping"),
        AIMessage(
            "",
            tool_calls=[
                {"name": "get_weather", "args": {"city": "Rome"}, "id": "1"},
                {"name": "ping", "args": {}, "id": "2"},
            ],
        ),
        ToolMessage("It is sunny in Rome.", tool_call_id="1"),
        ToolMessage("no route", tool_call_id="2", status="error"),
    ]
    assert answer(ask(history, tools=TOOLS)).text == (
        "The tool `get_weather` returned: It is sunny in Rome.\nThe tool `ping` returned: no route"
    )


def test_earlier_tool_calls_in_the_history_do_not_prevent_a_new_call() -> None:
    history = [
        SystemMessage("Be brief."),
        HumanMessage("Multiply 1 and 2."),
        AIMessage("", tool_calls=[{"name": "multiply", "args": {"a": 1, "b": 2}, "id": "1"}]),
        ToolMessage("2", tool_call_id="1"),
        AIMessage("2"),
        HumanMessage("Multiply 3 and 4."),
    ]
    assert calls(history) == [("multiply", {"a": 3, "b": 4})]


# Structured output


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = Field(ge=1, le=999)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Tree(BaseModel):
    label: str
    children: "list[Tree]"
    parent: "Tree | None"


class Everything(BaseModel):
    name: str = Field(min_length=3, max_length=40)
    colour: Colour
    version: Literal[2]
    address: Address
    others: list[Address] = Field(min_length=2)
    score: float = Field(gt=0, lt=1)
    even: int = Field(multiple_of=2)
    ready: bool
    born: date
    email: str | None = Field(json_schema_extra={"format": "email"})
    pet: Cat | Dog
    pair: tuple[int, str]
    note: str | None
    level: int = 3


def structured(model: type[BaseModel], prompt: str) -> dict[str, Any]:
    form = {"name": model.__name__, "schema": model.model_json_schema()}
    request = ask(prompt, response_format={"type": "json_schema", "json_schema": form})
    text = answer(request).text
    model.model_validate_json(text)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    "prompt",
    ["", "Hello", "A blue dog, born 2020-02-03, 'Rex', 7, 0.5 and 1000; mail rex@example.com."],
)
def test_a_structured_answer_fits_its_schema(prompt: str) -> None:
    structured(Everything, prompt)


def test_a_structured_answer_uses_values_of_the_prompt() -> None:
    prompt = (
        "A blue one, born 2020-02-03, ready: true, 'Rex', email: rex@example.com, "
        'pet: {"kind": "dog", "tricks": ["sit"]}'
    )
    found = structured(Everything, prompt)
    expected = {
        "colour": "blue",
        "born": "2020-02-03",
        "ready": True,
        "name": "Rex",
        "email": "rex@example.com",
        "pet": {"kind": "dog", "tricks": ["sit"]},
        "note": None,
    }
    assert {key: found[key] for key in expected} == expected


def test_an_optional_property_with_a_default_is_filled_only_if_the_prompt_states_it() -> None:
    assert "level" not in structured(Everything, "Hello")
    assert structured(Everything, "level: 9")["level"] == 9


def test_a_recursive_schema_has_a_finite_answer() -> None:
    assert structured(Tree, "Plant one") == {
        "label": "Plant one",
        "children": [],
        "parent": None,
    }


def filled(schema: dict[str, Any], prompt: str) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return json.loads(str(answer(ask(prompt, response_format=form)).text))


TAGS = {"type": "array", "items": {"enum": ["red", "green", "blue"]}}
NUMBERS = {"type": "array", "items": {"type": "number"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
NULLABLE = {"properties": {"size": {"type": ["integer", "null"]}}, "required": ["size"]}
COUNT = {"type": "integer", "minimum": 5, "maximum": 50}
WEEK = {"type": "string", "pattern": "^[0-9]{4}-W[0-9]{2}$"}
AGREED = {"type": "object", "properties": {"agreed": {"type": "boolean"}}, "required": ["agreed"]}
SIZED = {"type": "object", "properties": {"size": {"enum": ["S", "L"], "default": "S"}}}
NOTE = {"properties": {"note": {"type": "string"}}}
DAY = {"type": "object", "properties": {"dayOfWeek": {"type": "string"}}}
MERGED = {
    "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "integer"}}}],
    "$defs": {"a": {"properties": {"x": {"type": "integer"}}, "required": ["x"]}},
}
NESTED = {
    "properties": {"of": {"properties": {"city": {"type": "string"}}}, "city": {"type": "string"}}
}
PAIR = {
    "properties": {
        "pair": {"prefixItems": [{"type": "integer"}, {"type": "string"}], "type": "array"}
    }
}


@pytest.mark.parametrize(
    ("schema", "prompt", "value"),
    [
        (TAGS, "green and red ones", ["red", "green"]),
        (TAGS, "some", []),
        ({**TAGS, "minItems": 2}, "blue", ["blue", "blue"]),
        (NUMBERS, "1, 2.5 and -3, not 4-5 or 'Room 6'", [1, 2.5, -3]),
        ({**NUMBERS, "maxItems": 1}, "1, 2", [1]),
        (TEXTS, "Buy 'milk' and \"tea\" and \u2018rye\u2019", ["milk", "tea", "rye"]),
        ({"properties": {"x": TEXTS}}, "x: [\"a\", \"b\"] and 'c'", {"x": ["a", "b"]}),
        ({"properties": {"x": TEXTS}}, "x: a", {"x": ["a"]}),
        (PAIR, 'pair: [4, "b"]', {"pair": [4, "b"]}),
        (NULLABLE, "none given", {"size": None}),
        (NULLABLE, "7 of them", {"size": None}),
        (NULLABLE, "size 7, size: 8", {"size": 8}),
        ({"type": "null"}, "7", None),
        ({"anyOf": [{"type": "null"}]}, "7", None),
        ({"properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}}, "x: a", {"x": "a"}),
        (COUNT, "3 or 60 or 20", 20),
        (COUNT, "none given", 5),
        ({**COUNT, "multipleOf": 4}, "none given", 8),
        ({"properties": {"x": COUNT}}, "x: 70, but 8", {"x": 8}),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1}, "", 0.05),
        ({"type": "integer", "default": 4}, "5", 4),
        ({"type": "integer", "examples": [4]}, "", 4),
        ({"type": "integer", "examples": [4]}, "5", 5),
        ({"type": "string", "default": "x"}, "", "x"),
        ({"type": "string", "examples": ["x"]}, "", "x"),
        (WEEK, "in week 2025-W07, please", "2025-W07"),
        ({**WEEK, "examples": ["2025-W01"]}, "in 'May'", "2025-W01"),
        ({"type": "string", "pattern": "("}, "", "text"),
        ({"type": "string", "pattern": "a" * 600}, "", "text"),
        ({"type": "string", "maxLength": 3}, "'abcdef'", "abc"),
        ({"type": "string", "minLength": 5}, "'abc'", "abc.."),
        ({"type": "string", "format": "date-time"}, "at 2025-02-03T10:00:00Z", "2025-02-03T10:00:00Z"),
        ({"type": "string", "format": "email"}, "'Bo', bo@example.com.", "bo@example.com"),
        ({"type": "string", "format": "uuid"}, "", "00000000-0000-4000-8000-000000000000"),
        ({"type": "boolean", "default": True}, "", True),
        (AGREED, "agreed: yes", {"agreed": True}),
        (AGREED, "agreed", {"agreed": False}),
        (SIZED, "Hello", {}),
        (SIZED, "size: L", {"size": "L"}),
        ({**SIZED, "required": ["size"]}, "an L", {"size": "L"}),
        ({**SIZED, "required": ["size"]}, "any", {"size": "S"}),
        (MERGED, "1 2", {"x": 1, "y": 2}),
        (NESTED, 'of: {"city": "Rome"}, city: Oslo', {"of": {"city": "Rome"}, "city": "Oslo"}),
        ({"enum": ["a", None]}, "", "a"),
        ({"const": {"k": 1}}, "", {"k": 1}),
        (NOTE, "note: 007", {"note": "007"}),
        (NOTE, "note: 7", {"note": "7"}),
        (NOTE, "note: [1, NaN", {"note": "note: [1, NaN"}),
        (NOTE, '{"a": {"note": 1}, "note": "\\ud800"}', {"note": "\\ud800"}),
        ({"properties": {"a": NOTE}}, 'a = {"note": "\\ud800"}', {"a": {"note": "?"}}),
        ({"properties": {"next": {"$ref": "#"}}}, "", {"next": {"next": {"next": {}}}}),
        (DAY, "dayofweek=Monday", {"dayOfWeek": "Monday"}),
        (DAY, "day_of_week: 'Mon day'", {"dayOfWeek": "Mon day"}),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "", 0),
        ({"items": {"type": "integer"}, "maxItems": 0}, "1", []),
        ({}, "Hello", "Hello"),
    ],
)  # fmt: skip
def test_values_are_made_from_schema_and_prompt(
    schema: dict[str, Any], prompt: str, value: Any
) -> None:
    assert filled(schema, prompt) == value


def rows(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 20}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"allOf": [{"$ref": "#"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 20},
        {"type": "array", "items": {"type": "array", "items": {"$ref": "#"}, "minItems": 9}, "minItems": 9},
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
        {"type": "string", "minLength": 10**12},
        {"type": "string", "pattern": "(a+)+$"},
        {"properties": [], "required": "x", "enum": {}, "minimum": "1"},
        {"type": "array", "items": {"const": "x" * 100_000}, "minItems": 20},
        {"type": "array", "items": {"properties": {f"p{i}": {} for i in range(5000)}}, "minItems": 20},
        rows(rows(rows({"enum": [f"o{i}" for i in range(100_000)]}))),
        {"properties": {f"p{i}": {"pattern": f"a{{19000}}{i}"} for i in range(300)}},
        {"anyOf": [{"$ref": "#"}] * 20},
        {"type": "number", "minimum": 1e14, "multipleOf": 5e-324},
    ],
)  # fmt: skip
def test_hostile_schemas_are_answered_quickly(schema: dict[str, Any]) -> None:
    started = time.monotonic()
    found = filled(schema, "a" * 5000 + "! 1 2 3")
    assert len(json.dumps(found)) < 500_000
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "prompt",
    [
        '{"a":' * 2000,
        '{"a":' * 1000 + "1" + "}" * 1000,
        "a:[" * 3000,
        "a:" + "[" * 8000,
        "a=" * 4000,
        "'a" * 4000,
        '"' * 8000,
        "a: " + "9" * 8000,
        "a: [1e999, -Infinity, NaN], 1e999",
        "a: " + "[" * 2000 + "]" * 2000,
        'a: {"b": "\\ud800"}',
    ],
    ids=lambda prompt: prompt[:9],
)
def test_hostile_prompts_are_answered_quickly(prompt: str) -> None:
    kinds = ("string", "number", "integer", "boolean", "array", "object")
    started = time.monotonic()
    for kind in kinds:
        inner = {"type": kind, "items": {"type": "number"}, "properties": {"b": {}}}
        found = filled({"properties": {"a": inner}}, prompt)
        assert len(json.dumps(found)) < 10_000
    assert time.monotonic() - started < 5


KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "items", "anyOf", "allOf", "$ref", "enum", "const", "default"),
        *("required", "minimum", "maximum", "multipleOf", "minItems", "maxLength", "pattern"),
        *("format", "prefixItems"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(schema=st.dictionaries(KEYWORDS, JSON, max_size=6), prompt=st.text(max_size=60))
def test_any_schema_and_prompt_are_answered_without_an_exception(
    schema: dict[str, Any], prompt: str
) -> None:
    filled(schema, prompt)
    function = {"name": "f", "parameters": schema}
    message = answer(
        ask(prompt, tools=[{"type": "function", "function": function}], tool_choice="required")
    )
    assert [call["name"] for call in message.tool_calls] == ["f"]


def test_json_mode_has_the_keys_that_the_conversation_quotes() -> None:
    history = [
        SystemMessage('Answer as JSON with "setup".'),
        HumanMessage("Tell me a joke about cats, with 'setup' and 'punchline' keys."),
    ]
    found = json.loads(answer(ask(history, response_format={"type": "json_object"})).text)
    assert list(found) == ["setup", "punchline"]
    assert all(found.values())


def test_json_mode_without_quoted_keys_answers_with_an_object() -> None:
    found = json.loads(answer(ask("Hello", response_format={"type": "json_object"})).text)
    assert found == {"answer": "Hello"}


# LangChain models


class Recorder(BaseChatModel):
    """A model that records its options, and answers with the given replies."""

    replies: list[AIMessageChunk]
    asked: list[dict[str, Any]] = Field(default_factory=list)
    traced: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def bind_tools(
        self, tools: Any, *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=tools, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del messages, run_manager
        self.asked.append({"stop": stop, **kwargs})
        return ChatResult(generations=[ChatGeneration(message=self.replies[0])])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        del messages, run_manager
        self.asked.append({"stop": stop, **kwargs})
        for reply in self.replies:
            self.traced.append(get_tracing_context()["enabled"])
            yield ChatGenerationChunk(message=reply)


class Broken(Recorder):
    failure: Any

    def _generate(self, *_args: Any, **_kwargs: Any) -> ChatResult:
        raise self.failure


HELLO = [AIMessageChunk(content="Hel"), AIMessageChunk(content="lo")]


def test_a_model_gets_the_options_of_the_request() -> None:
    model = Recorder(replies=HELLO)
    form = {"type": "json_object"}
    request = ask(
        "Hi",
        tools=TOOLS,
        tool_choice="required",
        response_format=form,
        stop=["x"],
        max_tokens=5,
        parallel_tool_calls=False,
    )
    answer(request, ModelBackend(model))
    [asked] = model.asked
    expected = {
        "tools": TOOLS,
        "tool_choice": "any",
        "response_format": form,
        "stop": ["x"],
        "max_tokens": 5,
        "parallel_tool_calls": False,
    }
    assert asked == expected


def test_a_model_does_not_get_options_that_the_request_omits() -> None:
    model = Recorder(replies=HELLO)
    answer(ask("Hi", response_format={"type": "text"}), ModelBackend(model))
    assert model.asked == [{"stop": None}]


@pytest.mark.parametrize(
    ("choice", "passed"), [({"name": "ping"}, "ping"), ("none", "none"), ("auto", "auto")]
)
def test_a_tool_choice_reaches_the_model_in_the_form_of_langchain(choice: Any, passed: str) -> None:
    model = Recorder(replies=HELLO)
    answer(ask("Hi", tools=TOOLS, tool_choice=choice), ModelBackend(model))
    assert model.asked[0]["tool_choice"] == passed


def test_a_model_streams_and_is_not_traced() -> None:
    model = Recorder(replies=HELLO)
    chunks = pieces(ask("Hi", stream=True), ModelBackend(model))
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hel", "lo"]
    assert model.traced == [False, False]


def test_usage_is_counted_if_the_model_reports_none() -> None:
    usage = answer(ask("Hi", stream=True), ModelBackend(Recorder(replies=HELLO))).usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] == 2


def test_usage_in_several_chunks_of_a_model_is_summed_in_the_last_chunk() -> None:
    start = {"input_tokens": 7, "output_tokens": 0, "total_tokens": 7}
    end = {"input_tokens": 0, "output_tokens": 2, "total_tokens": 2}
    replies = [
        AIMessageChunk(content="Hi", usage_metadata=start),  # type: ignore[arg-type]
        AIMessageChunk(
            content="",
            usage_metadata=end,  # type: ignore[arg-type]
            response_metadata={"stop_reason": "max_tokens"},
        ),
    ]
    chunks = pieces(ask("Hi", stream=True), ModelBackend(Recorder(replies=replies)))
    assert [chunk.usage_metadata for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage_metadata
    assert chunks[-1].usage_metadata["total_tokens"] == 9
    assert chunks[-1].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("indices", [(None, None, None), (0, 0, 1)])
def test_calls_streamed_with_or_without_indices_stay_separate(
    indices: tuple[Any, Any, Any],
) -> None:
    def piece(name: str | None, args: str, call_id: str | None, index: Any) -> AIMessageChunk:
        chunk = {"name": name, "args": args, "id": call_id, "index": index}
        return AIMessageChunk(content="", tool_call_chunks=[chunk])  # type: ignore[list-item]

    parts = [("f", "{", "1"), (None, "}", None), ("g", "{}", "2")]
    replies = [piece(*part, index) for part, index in zip(parts, indices, strict=True)]
    message = answer(ask("Hi", stream=True), ModelBackend(Recorder(replies=replies)))
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("f", {}), ("g", {})]


def test_a_call_with_broken_arguments_is_passed_on() -> None:
    broken = {"name": "f", "args": "{", "id": "1", "error": None, "type": "invalid_tool_call"}
    message = AIMessage("", invalid_tool_calls=[broken])
    model = GenericFakeChatModel(messages=iter([message]))
    [chunk] = answer(ask("Hi"), ModelBackend(model)).tool_call_chunks
    assert (chunk["name"], chunk["args"]) == ("f", "{")


def test_an_error_of_this_package_keeps_its_status() -> None:
    failure = StatusError("Gone.", status=410)
    with pytest.raises(StatusError, match="Gone") as caught:
        answer(ask("Hi"), ModelBackend(Broken(replies=[], failure=failure)))
    assert caught.value is failure


def test_content_blocks_of_other_providers_become_text_and_reasoning() -> None:
    content: list[str | dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "text", "text": "Hello"},
    ]
    model = Recorder(replies=[AIMessageChunk(content=content)])
    message = answer(ask("Hi"), ModelBackend(model))
    assert (message.text, message.additional_kwargs) == ("Hello", {"reasoning_content": "Hm."})


def test_a_fake_model_without_tool_calling_can_answer_with_calls() -> None:
    call = {"name": "ping", "args": {}, "id": "1"}
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[call])]))
    message = answer(ask("Hi", tools=TOOLS), ModelBackend(model))
    assert [(one["name"], one["args"]) for one in message.tool_calls] == [("ping", {})]
    assert message.response_metadata["finish_reason"] == "tool_calls"


def test_a_fake_model_without_tool_calling_can_stream_calls() -> None:
    call = {"name": "ping", "args": {}, "id": "1"}
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[call])]))
    message = answer(ask("Hi", tools=TOOLS, stream=True), ModelBackend(model))
    assert [(one["name"], one["args"]) for one in message.tool_calls] == [("ping", {})]


def test_a_failing_model_is_502_and_its_place_is_logged_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = RuntimeError("sk-secret")
    failure.__cause__ = ValueError("sk-secret, too")
    failure.__cause__.__cause__ = failure
    backend = ModelBackend(Broken(replies=[], failure=failure))
    with pytest.raises(ServerFailed) as caught:
        answer(ask("Hi"), backend)
    assert caught.value.status == 502
    assert "sk-secret" not in str(caught.value) + str(caught.value.body)
    assert "RuntimeError" in str(caught.value)
    assert "RuntimeError" in caplog.text
    assert "ValueError" in caplog.text
    assert "test_models.py" in caplog.text
    # A failing classifier logs the whole exception, so that must not contain the message either.
    assert "sk-secret" not in caplog.text + "".join(traceback.format_exception(caught.value))


def test_a_models_rate_limit_is_passed_on() -> None:
    failure = RuntimeError("slow down")
    failure.status_code = 429  # type: ignore[attr-defined]
    with pytest.raises(StatusError) as caught:
        answer(ask("Hi"), ModelBackend(Broken(replies=[], failure=failure)))
    assert caught.value.status == 429


def test_an_answer_in_openais_length_error_is_passed_on() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    message = {"role": "assistant", "content": "{", "tool_calls": [call]}
    completion = ChatCompletion.model_validate({
        "id": "2", "created": 0, "model": "m", "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "length", "message": message}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    })  # fmt: skip
    failure = LengthFinishReasonError(completion=completion)
    cut = answer(ask("Hi"), ModelBackend(Broken(replies=[], failure=failure)))
    [chunk] = cut.tool_call_chunks
    assert (cut.text, chunk["name"], chunk["args"]) == ("{", "f", '{"a')
    assert cut.response_metadata["finish_reason"] == "length"
    assert cut.usage_metadata is not None
    assert cut.usage_metadata["total_tokens"] == 10


class Report(BaseModel):
    """A report."""

    summary: str
    details: list[str]


SHAPE = {
    "type": "json_schema",
    "json_schema": {"name": "Report", "schema": Report.model_json_schema()},
}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("limit", [None, 6])
def test_an_answer_for_which_openais_sdk_raises_a_length_error_ends_with_length(
    serve: Serve, limit: int | None, *, streams: bool
) -> None:
    upstream = serve()
    model = ChatOpenAI(
        model="any/model",
        base_url=f"{upstream.server.base_url}/control/chat/v1",
        api_key=SecretStr("k"),
        max_retries=0,
    )
    api = serve(model=model)
    body = {"response_format": SHAPE, "max_tokens": limit}
    chat = ChatSequrity("any/model", base_url=api.server.base_url, max_retries=0)
    asked = chat.bind(**{key: value for key, value in body.items() if value is not None})
    said = "Report that all is well and that nothing has happened."
    message: Any = None
    if streams:
        for chunk in asked.stream(said):
            message = chunk if message is None else message + chunk
    else:
        message = asked.invoke(said)
    assert message.response_metadata["finish_reason"] == ("length" if limit else "stop")
    assert str(message.text).startswith("{")
    assert message.usage_metadata is not None
