"""Foreign clients of Anthropic's format; they validate the server's replies by their own rules."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, MessageParam, TextBlock, ToolParam, ToolUseBlock
from langchain_anthropic import ChatAnthropic
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel, SecretStr
from sequrity import (  # type: ignore[import-untyped] # the package has no type information
    AsyncSequrityClient,
    SequrityAPIError,
    SequrityClient,
)
from sequrity.control import ControlConfig, FeaturesHeader  # type: ignore[import-untyped] # as above

from tests.local.conftest import Serve

MODEL = "any/model"
HELLO: list[MessageParam] = [{"role": "user", "content": "Hello there"}]
CALL: list[MessageParam] = [{"role": "user", "content": "call get_weather in `Rome`"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOL: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": SCHEMA,
}
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
ERRORS: list[tuple[int, type[anthropic.APIStatusError]]] = [
    (400, anthropic.BadRequestError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (409, anthropic.ConflictError),
    (422, anthropic.UnprocessableEntityError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.InternalServerError),
]


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


# The anthropic SDK


def _arguments(base_url: str) -> Any:
    return {
        "base_url": f"{base_url}/control/chat/anthropic",
        "api_key": "sq-test",
        "max_retries": 0,
        "_strict_response_validation": True,
    }


@pytest.fixture
def client(base_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(**_arguments(base_url)) as made:
        yield made


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(**_arguments(base_url)) as made:
        yield made


def check_answer(reply: Message) -> None:
    [block] = reply.content
    assert isinstance(block, TextBlock)
    assert "Hello there" in block.text
    assert reply.stop_reason == "end_turn"
    assert reply.model == MODEL
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0


def test_anthropic_creates_a_message(client: anthropic.Anthropic) -> None:
    check_answer(client.messages.create(model=MODEL, messages=HELLO, max_tokens=99))


async def test_anthropic_creates_a_message_asynchronously(
    async_client: anthropic.AsyncAnthropic,
) -> None:
    check_answer(await async_client.messages.create(model=MODEL, messages=HELLO, max_tokens=99))


def test_anthropic_streams_the_same_reply_as_it_creates(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model=MODEL, messages=HELLO, max_tokens=99)
    with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=99) as stream:
        final = stream.get_final_message()
    check_answer(final)
    assert [block.to_dict() for block in whole.content] == [
        {key: value for key, value in block.to_dict().items() if key != "parsed_output"}
        for block in final.content
    ]
    assert final.usage == whole.usage


async def test_anthropic_streams_asynchronously(async_client: anthropic.AsyncAnthropic) -> None:
    stream = await async_client.messages.create(
        model=MODEL, messages=HELLO, max_tokens=99, stream=True
    )
    events = [event.type async for event in stream]
    assert events[0] == "message_start"
    assert events[1] == "content_block_start"
    assert set(events[2:-3]) == {"content_block_delta"}
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_runs_tools(client: anthropic.Anthropic, stream: bool) -> None:
    asked: Any = {"model": MODEL, "tools": [TOOL], "max_tokens": 99}
    if stream:
        with client.messages.stream(messages=CALL, **asked) as events:
            called: Any = events.get_final_message()
    else:
        called = client.messages.create(messages=CALL, **asked)
    assert called.stop_reason == "tool_use"
    [call] = called.content
    assert isinstance(call, ToolUseBlock)
    assert (call.name, call.input) == ("get_weather", {"city": "Rome"})
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny in Rome"}
    messages: list[MessageParam] = [
        *CALL,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    reply = client.messages.create(messages=messages, **asked)
    assert isinstance(reply.content[0], TextBlock)
    assert "Sunny in Rome" in reply.content[0].text


@pytest.mark.parametrize(
    ("choice", "calls"),
    [({"type": "any"}, 1), ({"type": "tool", "name": "get_weather"}, 1), ({"type": "none"}, 0)],
)
def test_anthropic_gets_calls_according_to_its_tool_choice(
    client: anthropic.Anthropic, choice: Any, calls: int
) -> None:
    reply = client.messages.create(
        model=MODEL, messages=HELLO, tools=[TOOL], tool_choice=choice, max_tokens=99
    )
    assert sum(block.type == "tool_use" for block in reply.content) == calls


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_thinks_and_sends_its_thoughts_back(
    client: anthropic.Anthropic, stream: bool
) -> None:
    asked: Any = {"model": MODEL, "tools": [TOOL], "max_tokens": 2000, "thinking": THINKING}
    if stream:
        with client.messages.stream(messages=CALL, **asked) as events:
            called: Any = events.get_final_message()
    else:
        called = client.messages.create(messages=CALL, **asked)
    thought, call = called.content
    assert thought.type == "thinking"
    assert thought.signature
    assert call.type == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}
    again: list[MessageParam] = [
        *CALL,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    assert client.messages.create(messages=again, **asked).content[-1].type == "text"


def test_anthropic_parses_structured_answers(client: anthropic.Anthropic) -> None:
    reply = client.messages.parse(
        model=MODEL, messages=HELLO, max_tokens=999, output_format=Weather
    )
    assert isinstance(reply.parsed_output, Weather)


def test_anthropic_stops_at_stop_sequences_and_max_tokens(client: anthropic.Anthropic) -> None:
    stopped = client.messages.create(
        model=MODEL, messages=HELLO, max_tokens=99, stop_sequences=["there"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "there")
    cut = client.messages.create(model=MODEL, messages=HELLO, max_tokens=2)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(("status", "kind"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_maps_errors_to_its_classes(
    serve: Serve, status: int, kind: type[anthropic.APIStatusError], stream: bool
) -> None:
    base_url = serve(script=[{"error": {"status": status, "message": "As told."}}]).server.base_url
    with (
        anthropic.Anthropic(**_arguments(base_url)) as client,
        pytest.raises(kind) as caught,
    ):
        client.messages.create(model=MODEL, messages=HELLO, max_tokens=9, stream=stream)
    assert caught.value.status_code == status
    assert "As told." in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_reads_a_refusal(serve: Serve, stream: bool) -> None:
    base_url = serve(script=[{"refusal": "Not that."}]).server.base_url
    with anthropic.Anthropic(**_arguments(base_url)) as client:
        if stream:
            with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=9) as events:
                reply: Any = events.get_final_message()
        else:
            reply = client.messages.create(model=MODEL, messages=HELLO, max_tokens=9)
    assert reply.stop_reason == "refusal"
    assert reply.stop_details is not None
    assert reply.stop_details.explanation == "Not that."


# LangChain's client for Anthropic


@pytest.fixture
def chat_anthropic(base_url: str) -> ChatAnthropic:
    return _chat_anthropic(base_url)


def _chat_anthropic(base_url: str, **kwargs: Any) -> ChatAnthropic:
    fields: dict[str, Any] = {
        "model": MODEL,
        "base_url": f"{base_url}/control/chat",
        "api_key": SecretStr("sq-test"),
        "max_retries": 0,
        **kwargs,
    }
    return ChatAnthropic(**fields)


def _total(chunks: Iterator[Any]) -> AIMessageChunk:
    first, *others = chunks
    total: AIMessageChunk = first + others if others else first
    return total


def test_chat_anthropic_invokes_and_streams_the_same(chat_anthropic: ChatAnthropic) -> None:
    whole = chat_anthropic.invoke("Hello there")
    total = _total(chat_anthropic.stream("Hello there"))
    assert total.text == whole.text
    assert total.usage_metadata == whole.usage_metadata


async def test_chat_anthropic_works_asynchronously(chat_anthropic: ChatAnthropic) -> None:
    whole = await chat_anthropic.ainvoke("Hello there")
    texts = [chunk.text async for chunk in chat_anthropic.astream("Hello there")]
    assert "".join(texts) == whole.text


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_chat_anthropic_runs_tools(base_url: str, stream: bool, thinks: bool) -> None:
    thinking = {"thinking": THINKING, "max_tokens": 2000} if thinks else {}
    model = _chat_anthropic(base_url, **thinking).bind_tools([get_weather])
    prompt = HumanMessage("call get_weather in `Rome`")
    called: Any = _total(model.stream([prompt])) if stream else model.invoke([prompt])
    [call] = called.tool_calls
    assert call["name"] == "get_weather"
    kinds = [block["type"] for block in called.content_blocks]
    assert kinds[0] == ("reasoning" if thinks else kinds[-1])
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert "Sunny in" in model.invoke([prompt, called, result]).text


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_chat_anthropic_returns_structured_output(
    chat_anthropic: ChatAnthropic, method: Any
) -> None:
    model = chat_anthropic.with_structured_output(Weather, method=method)
    assert isinstance(model.invoke('The weather in "Rome"'), Weather)


def test_chat_anthropic_raises_for_a_refusal(serve: Serve) -> None:
    base_url = serve(script=[{"refusal": "Not that."}]).server.base_url
    model = _chat_anthropic(base_url).with_structured_output(Weather, method="json_schema")
    with pytest.raises(ModelRefusalError, match="Not that"):
        model.invoke("x")


# The vendor's SDK

CONFIG = ControlConfig(features=FeaturesHeader.single_llm())
VENDOR_HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
def vendor(any_base_url: str) -> Iterator[SequrityClient]:
    with SequrityClient("sq-test", base_url=any_base_url, control=CONFIG) as made:
        yield made


def test_the_vendors_client_creates_a_message_and_continues_its_session(
    vendor: SequrityClient,
) -> None:
    first = vendor.control.messages.create(VENDOR_HELLO, MODEL, max_tokens=99)
    assert "Hello there" in first.content[0].text
    again = vendor.control.messages.create(
        [{"role": "user", "content": "And?"}], MODEL, max_tokens=9
    )
    assert again.session_id == first.session_id


def test_the_vendors_client_streams(vendor: SequrityClient) -> None:
    with vendor.control.messages.create(VENDOR_HELLO, MODEL, max_tokens=99, stream=True) as stream:
        events = list(stream)
    texts = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "Hello there" in "".join(texts)
    assert events[-2].delta.stop_reason == "end_turn"
    assert stream.session_id == vendor.control.session_id


async def test_the_vendors_asynchronous_client_creates_and_streams(any_base_url: str) -> None:
    async with AsyncSequrityClient("k", base_url=any_base_url, control=CONFIG) as vendor:
        whole = await vendor.control.messages.create(VENDOR_HELLO, MODEL, max_tokens=99)
        stream = await vendor.control.messages.create(
            VENDOR_HELLO, MODEL, max_tokens=99, stream=True, session_id=None
        )
        async with stream:
            texts = [e.delta.text async for e in stream if e.type == "content_block_delta"]
        assert "".join(texts) == whole.content[0].text


@pytest.mark.parametrize("provider", [None, "anthropic"])
@pytest.mark.parametrize("endpoint_type", ["chat", "code"])
def test_the_vendors_client_runs_tools_on_every_route(
    vendor: SequrityClient, provider: Any, endpoint_type: Any
) -> None:
    asked: Any = {
        "tools": [TOOL],
        "max_tokens": 99,
        "provider": provider,
        "endpoint_type": endpoint_type,
    }
    called = vendor.control.messages.create(CALL, MODEL, **asked)
    assert called.stop_reason == "tool_use"
    [call] = called.content
    assert call.input == {"city": "Rome"}
    messages = [
        *CALL,
        {"role": "assistant", "content": [call.model_dump()]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny in Rome"}]},
    ]  # fmt: skip
    reply = vendor.control.messages.create(messages, MODEL, **asked)
    assert "Sunny in Rome" in reply.content[0].text


def test_the_vendors_client_reads_thoughts_as_the_service_documents_them(
    documented_server: Any,
) -> None:
    asked: Any = {"max_tokens": 2000, "thinking": THINKING}
    with SequrityClient("k", base_url=documented_server.base_url, control=CONFIG) as vendor:
        reply = vendor.control.messages.create(VENDOR_HELLO, MODEL, **asked)
        thought, answer = reply.content
        assert "Hello there" in thought.text
        assert "Hello there" in answer.text
        with vendor.control.messages.create(VENDOR_HELLO, MODEL, stream=True, **asked) as stream:
            kinds = {e.delta.type for e in stream if e.type == "content_block_delta"}
        assert kinds == {"thinking_delta", "signature_delta", "text_delta"}


def test_the_misspelt_schema_field_of_the_vendors_sdk_is_accepted(vendor: SequrityClient) -> None:
    shape = {"format": {"type": "json_schema", "schema": Weather.model_json_schema()}}
    reply = vendor.control.messages.create(VENDOR_HELLO, MODEL, max_tokens=99, output_config=shape)
    Weather.model_validate_json(reply.content[0].text)


def test_the_vendors_client_raises_with_status_and_reason(base_url: str) -> None:
    with SequrityClient("k", base_url=base_url) as vendor:
        with pytest.raises(SequrityAPIError, match="empty") as caught:
            vendor.control.messages.create([], MODEL, max_tokens=9)
        assert caught.value.status_code == 400
