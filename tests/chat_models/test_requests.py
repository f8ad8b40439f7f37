"""Requests that `ChatSequrity` sends, and replies that it reads."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import (
    BadReply,
    ConnectionFailed,
    ForcedToolMissing,
    Overloaded,
    StreamInterrupted,
    UsageError,
)
from tests.chat_models.conftest import SESSION, Service, chunks, completion

Make = Callable[..., ChatSequrity]


@tool
def open_valve(bed: int) -> str:
    """Open the valve of a bed."""
    return f"opened {bed}"


class Valve(BaseModel):
    """A valve."""

    bed: int = Field(description="Which bed")


class ValveDict(TypedDict):
    """A valve."""

    bed: int


class ValveV1(BaseModelV1):
    """A valve."""

    bed: int


# Bodies


def test_the_body_has_what_was_set_and_nothing_else(service: Service, make_model: Make) -> None:
    service.answer()
    make_model().invoke("Hi")
    assert service.bodies[-1] == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    service.answer()
    model = make_model(
        temperature=0.1, top_p=0.9, max_tokens=5, stop="x", seed=3, reasoning_effort="low", n=1,
        logprobs=True, top_logprobs=2, frequency_penalty=0.1, presence_penalty=0.2,
        logit_bias={"1": 2}, service_tier="flex", model_kwargs={"custom": 1}, timeout=7,
    )  # fmt: skip
    model.invoke("Hi")
    body = service.bodies[-1]
    del body["messages"]
    assert body == {
        "model": "m", "temperature": 0.1, "top_p": 0.9, "max_tokens": 5, "stop": ["x"], "seed": 3,
        "reasoning_effort": "low", "n": 1, "logprobs": True, "top_logprobs": 2, "custom": 1,
        "frequency_penalty": 0.1, "presence_penalty": 0.2, "logit_bias": {"1": 2}, "service_tier": "flex",
    }  # fmt: skip


def test_the_output_of_a_generation_names_the_model(service: Service, make_model: Make) -> None:
    service.answer()
    assert make_model().generate([[HumanMessage("Hi")]]).llm_output == {"model_name": "m"}


def test_arguments_of_a_call_override_the_model_and_extra_body_overrides_both(
    service: Service, make_model: Make
) -> None:
    service.answer()
    model = make_model(temperature=0.1, extra_body={"a": 1, "seed": 9})
    model.invoke(
        "Hi", temperature=0.5, model="n", seed=1, stop=["y"], extra_body={"a": 2}, new=True
    )
    body = service.bodies[-1]
    assert (body["temperature"], body["model"], body["seed"], body["stop"]) == (0.5, "n", 9, ["y"])
    assert (body["a"], body["new"]) == (2, True)


HERE = ["http://localhost:8000", "http://127.0.0.1:1", "https://[::1]", "http://a.localhost"]
ELSEWHERE = ["https://api.sequrity.ai", "https://api.example", "https://10.0.0.1", "https://local"]


@pytest.mark.parametrize("address", [*HERE, *ELSEWHERE])
@pytest.mark.parametrize("stream_usage", [None, True, False])
def test_streams_ask_for_usage_if_told_to_or_at_loopback_addresses(
    service: Service, make_model: Make, address: str, stream_usage: bool | None
) -> None:
    service.answer(stream=True)
    options = {} if stream_usage is None else {"stream_usage": stream_usage}
    list(make_model(base_url=address, **options).stream("Hi"))
    asks = address in HERE if stream_usage is None else stream_usage
    assert service.bodies[-1].get("stream_options") == ({"include_usage": True} if asks else None)
    assert service.bodies[-1]["stream"] is True


@pytest.mark.parametrize("name", ["gpt-5-pro", "gpt-5-codex", "o1", "claude-x"])
def test_the_name_of_the_model_changes_neither_path_nor_parameters(
    service: Service, make_model: Make, name: str
) -> None:
    service.answer()
    make_model(model=name, temperature=0.5).invoke("Hi")
    assert service.requests[-1].url.path == "/control/chat/v1/chat/completions"
    assert service.bodies[-1]["temperature"] == 0.5


def test_a_body_that_is_not_json_is_refused_before_sending(
    service: Service, make_model: Make
) -> None:
    with pytest.raises(UsageError, match="JSON"):
        make_model().invoke("Hi", custom=object())
    with pytest.raises(UsageError, match="Unicode"):
        make_model().invoke("\ud800")
    assert service.requests == []


def test_each_request_has_an_idempotency_key_of_its_own(service: Service, make_model: Make) -> None:
    model = make_model()
    for _ in range(2):
        service.answer()
        model.invoke("Hi")
    first, second = (request.headers["idempotency-key"] for request in service.requests)
    assert first != second


# Tools


def test_tools_of_every_kind_are_bound(service: Service, make_model: Make) -> None:
    def close_valve(bed: int) -> str:
        """Close the valve of a bed."""
        return str(bed)

    raw = convert_to_openai_tool(open_valve)
    service.answer()
    make_model().bind_tools([open_valve, close_valve, Valve, raw], strict=True).invoke("Hi")
    tools = service.bodies[-1]["tools"]
    assert [tool["function"]["name"] for tool in tools] == [
        "open_valve",
        "close_valve",
        "Valve",
        "open_valve",
    ]
    assert [tool["function"]["strict"] for tool in tools] == [True] * 4
    assert "strict" not in raw["function"]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [(None, None), (False, None), ("auto", "auto"), ("none", "none"), ("any", "required"),
     (True, "required"), ("required", "required"),
     ("open_valve", {"type": "function", "function": {"name": "open_valve"}}),
     ({"type": "function", "function": {"name": "x"}}, {"type": "function", "function": {"name": "x"}})],
)  # fmt: skip
def test_tool_choice_is_accepted_in_every_spelling(
    service: Service, make_model: Make, choice: Any, sent: Any
) -> None:
    service.answer(tool_calls=call("open_valve"))
    make_model().bind_tools([open_valve], tool_choice=choice, parallel_tool_calls=False).invoke(
        "Hi"
    )
    assert service.bodies[-1].get("tool_choice") == sent
    assert service.bodies[-1]["parallel_tool_calls"] is False


def test_a_tool_choice_that_names_no_bound_tool_is_refused(make_model: Make) -> None:
    with pytest.raises(UsageError, match="'shut_valve'"):
        make_model().bind_tools([open_valve], tool_choice="shut_valve")


def test_tools_and_a_response_format_can_be_bound_together(
    service: Service, make_model: Make
) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "v", "schema": {"type": "object"}}}
    for value in (shape, Valve, shape["json_schema"]):
        service.answer()
        make_model().bind_tools([open_valve], response_format=value).invoke("Hi")
        assert service.bodies[-1]["response_format"]["type"] == "json_schema"
        assert "schema" in service.bodies[-1]["response_format"]["json_schema"]


# Structured output


@pytest.mark.parametrize("schema", [Valve, ValveDict, Valve.model_json_schema()])
@pytest.mark.parametrize("strict", [None, True, False])
def test_a_schema_is_sent_as_the_api_defines_it(
    service: Service, make_model: Make, schema: Any, strict: bool | None
) -> None:
    service.answer('{"bed": 4}')
    result = make_model().with_structured_output(schema, strict=strict).invoke("Hi")
    sent = service.bodies[-1]["response_format"]["json_schema"]
    assert sent["schema"]["properties"]["bed"]["type"] == "integer"
    assert sent.get("strict") == strict
    assert result == (Valve(bed=4) if schema is Valve else {"bed": 4})


def call(name: str = "Valve", arguments: str = '{"bed": 4}') -> list[dict[str, Any]]:
    return [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]


@pytest.mark.parametrize("schema", [Valve, ValveDict, ValveV1])
def test_a_schema_can_be_a_forced_tool(service: Service, make_model: Make, schema: Any) -> None:
    service.answer("", tool_calls=call(schema.__name__))
    model = make_model().with_structured_output(schema, method="function_calling")
    result = model.invoke("Hi")
    assert (result if isinstance(result, dict) else dict(result)) == {"bed": 4}
    assert service.bodies[-1]["tool_choice"]["function"]["name"] == schema.__name__


def test_a_pydantic_v1_schema_works(service: Service, make_model: Make) -> None:
    service.answer('{"bed": 4}')
    assert make_model().with_structured_output(ValveV1).invoke("Hi") == ValveV1(bed=4)
    assert service.bodies[-1]["response_format"]["json_schema"]["name"] == "ValveV1"


async def test_a_missing_forced_call_is_an_error(service: Service, make_model: Make) -> None:
    model = make_model().with_structured_output(Valve, method="function_calling")
    replies: list[dict[str, Any]] = [{}, {"tool_calls": call("other")}]
    for reply in replies:
        service.answer("I will not", **reply)
        with pytest.raises(ForcedToolMissing, match="`Valve`") as caught:
            model.invoke("Hi")
        assert isinstance(caught.value.message, AIMessage)
    service.answer("I will not", stream=True)
    with pytest.raises(ForcedToolMissing):
        list(model.stream("Hi"))
    service.answer("I will not", stream=True)
    with pytest.raises(ForcedToolMissing):
        [chunk async for chunk in model.astream("Hi")]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_with_include_raw_a_parsing_error_is_returned(
    service: Service, make_model: Make, method: Any
) -> None:
    model = make_model().with_structured_output(Valve, method=method, include_raw=True)
    calls = call() if method == "function_calling" else None
    service.answer("" if calls else '{"bed": 4}', tool_calls=calls)
    good = model.invoke("Hi")
    assert good["parsed"] == Valve(bed=4)
    assert good["parsing_error"] is None
    assert isinstance(good["raw"], AIMessage)
    service.answer("I will not")
    bad = model.invoke("Hi")
    assert bad["parsed"] is None
    assert isinstance(bad["parsing_error"], Exception)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"schema": None}, "`schema`"), ({"schema": Valve, "method": "xml"}, "`json_mode`"),
     ({"schema": Valve, "method": "json_mode", "strict": True}, "`strict`")],
)  # fmt: skip
def test_arguments_that_do_not_go_together_are_refused(
    make_model: Make, arguments: Any, word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        make_model().with_structured_output(**arguments)


# Replies


def test_a_stream_can_be_answered_with_plain_json(service: Service, make_model: Make) -> None:
    service.answer("Hi", tool_calls=call())
    [first, *_] = list(make_model().stream("Hi"))
    assert first.text == "Hi"
    assert first.tool_call_chunks[0]["args"] == call()[0]["function"]["arguments"]
    assert first.response_metadata["sequrity"]["session_id"] == SESSION


def test_sessions_are_tracked_with_or_without_response_headers(
    service: Service, make_model: Make
) -> None:
    for shown in (False, True):
        service.answer()
        message = make_model(include_response_headers=shown).invoke("Hi")
        assert message.response_metadata["sequrity"]["session_id"] == SESSION
        assert ("headers" in message.response_metadata) == shown


def test_several_choices_are_returned_and_cannot_be_streamed(
    service: Service, make_model: Make
) -> None:
    body = completion("a")
    body["choices"].append(
        {**body["choices"][0], "index": 1, "message": {"role": "assistant", "content": "b"}}
    )
    service.answer(body=body)
    result = make_model(n=2, streaming=True).generate([[HumanMessage("Hi")]])
    assert [generation.text for generation in result.generations[0]] == ["a", "b"]
    with pytest.raises(UsageError, match="`n` > 1"):
        list(make_model()._stream([HumanMessage("Hi")], n=2))


def test_a_failed_turn_of_a_session_is_not_sent_again(service: Service, make_model: Make) -> None:
    model = make_model(max_retries=3)
    service.answer()
    first = model.invoke("Hi")
    service.answer(status=503, body={"detail": "busy"})
    with pytest.raises(Overloaded) as caught:
        model.invoke([HumanMessage("Hi"), first, HumanMessage("More")])
    assert not caught.value.is_retryable
    assert len(service.requests) == 2


def test_an_error_inside_a_stream_is_typed_and_ends_it(service: Service, make_model: Make) -> None:
    text = 'data: {"model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    text += 'data: {"error": {"message": "overloaded", "code": 529}}\n\n'
    service.replies.append(
        httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)
    )
    seen: list[str] = []
    with pytest.raises(Overloaded, match="overloaded") as caught:
        seen.extend(chunk.text for chunk in make_model().stream("Hi"))
    assert seen == ["Hel"]
    assert not caught.value.is_retryable


def test_a_cut_stream_and_an_html_page_are_errors(service: Service, make_model: Make) -> None:
    cut = 'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    for text, kind, error in (
        (cut, "text/event-stream", StreamInterrupted),
        ("<html>", "text/html", BadReply),
    ):
        service.replies.append(httpx.Response(200, headers={"content-type": kind}, text=text))
        with pytest.raises(error):
            list(make_model().stream("Hi"))


def test_a_failed_connection_has_its_own_error() -> None:
    with pytest.raises(ConnectionFailed):
        ChatSequrity("m", base_url="http://127.0.0.1:9", max_retries=0).invoke("Hi")


# One reply through every call method


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize(
    "reply",
    [
        {"content": "Hello there"},
        {
            "content": "Wait",
            "tool_calls": [*call("f", '{"a": 1}'), {**call("g", "{}")[0], "id": "c2"}],
        },
        {"content": "Hello", "reasoning_content": "thinking about it"},
        {"content": "Hi", "reasoning_content": "hm", "tool_calls": call("f", '{"a": "x"}')},
        {"content": "", "refusal": "I will not."},
        {"content": "", "tool_calls": call("f", "oops")},
    ],
    ids=["text", "text and two calls", "reasoning", "all three", "refusal", "bad call"],
)
def test_every_way_of_streaming_agrees_with_invoke(
    service: Service, make_model: Make, reply: dict[str, Any]
) -> None:
    service.answer(**reply)
    whole = make_model().invoke("x")

    def facts(message: AIMessage) -> tuple[Any, ...]:
        return (
            str(message.text),
            [(c["id"], c["name"], c["args"]) for c in message.tool_calls],
            [(c["id"], c["name"], c["args"]) for c in message.invalid_tool_calls],
            message.usage_metadata,
            message.additional_kwargs.get("refusal"),
            message.response_metadata["finish_reason"],
            message.response_metadata["model_name"],
            message.response_metadata["sequrity"],
        )

    for version in ("v0", "v1"):
        service.answer(**reply, stream=True)
        pieces = list(make_model(output_version=version).stream("x"))
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        assert facts(total) == facts(whole)
    service.answer(**reply, stream=True)
    stream = make_model().stream_events("x", version="v3")
    events = list(stream)
    assert_valid_event_stream(events)
    output = stream.output
    assert facts(output)[:2] == facts(whole)[:2]
    assert facts(output)[3:] == facts(whole)[3:]
    reasoning = [
        block["reasoning"] for block in output.content_blocks if block["type"] == "reasoning"
    ]
    assert "".join(reasoning) == reply.get("reasoning_content", "")


def test_v1_content_is_sent_back_without_loss(service: Service, make_model: Make) -> None:
    model = make_model(output_version="v1")
    service.answer("Wait", reasoning_content="hm", tool_calls=call("f", '{"a": 1}'))
    message = model.invoke("x")
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text", "tool_call"]
    service.answer()
    model.invoke([HumanMessage("x"), message, *[]])
    sent = service.bodies[-1]["messages"][1]
    assert sent["content"] == [{"type": "text", "text": "Wait"}]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"a": 1}


def test_annotations_become_citations(service: Service, make_model: Make) -> None:
    annotation = {
        "type": "url_citation",
        "url_citation": {"url": "https://x", "title": "X", "start_index": 0, "end_index": 2},
    }
    service.answer("Hi", annotations=[annotation, {"type": "other", "x": 1}])
    [block] = make_model().invoke("x").content_blocks
    assert block["type"] == "text"
    assert block["annotations"] == [
        {"type": "citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 2},
        {"type": "non_standard_annotation", "value": {"type": "other", "x": 1}},
    ]


def test_tokens_are_counted_without_a_tokenizer(make_model: Make) -> None:
    model = make_model()
    assert model.get_num_tokens("Hello there, how are you?") > 0
    some = model.get_num_tokens_from_messages([HumanMessage("Hello there, how are you?")])
    more = model.get_num_tokens_from_messages(
        [HumanMessage("Hello there, how are you?")], [open_valve]
    )
    assert 0 < some < more


def test_the_profile_has_what_holds_for_any_model(make_model: Make) -> None:
    profile = make_model().profile
    assert profile is not None
    assert profile["structured_output"]
    assert profile["tool_calling"]


def test_the_scripted_service_streams_a_completion_in_pieces() -> None:
    assert list(chunks(completion("abcd")))[1]["choices"][0]["delta"] == {"content": "abc"}
