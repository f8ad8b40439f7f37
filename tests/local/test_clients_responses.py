"""Foreign clients of Responses; they validate the server's replies by their own rules."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel, SecretStr
from sequrity import (  # type: ignore[import-untyped] # the package has no type information
    AsyncSequrityClient,
    SequrityAPIError,
    SequrityClient,
)
from sequrity.control import ControlConfig, FeaturesHeader  # type: ignore[import-untyped] # as above

from langchain_sequrity.local import LocalServer
from tests.local.conftest import Serve

MODEL = "any/model"
CALL = "call get_weather in `Rome`"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": SCHEMA,
    "strict": None,
}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
ERRORS: list[tuple[int, type[openai.APIStatusError]]] = [
    (400, openai.BadRequestError),
    (404, openai.NotFoundError),
    (429, openai.RateLimitError),
    (503, openai.InternalServerError),
]


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


# The openai SDK


def _arguments(base_url: str) -> Any:
    return {
        "base_url": f"{base_url}/control/chat/openai/v1",
        "api_key": "sq-test",
        "max_retries": 0,
        "_strict_response_validation": True,
    }


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**_arguments(base_url)) as made:
        yield made


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(**_arguments(base_url)) as made:
        yield made


def check_answer(reply: Response) -> None:
    assert reply.status == "completed"
    assert "Hello there" in reply.output_text
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_openai_creates_a_response(client: openai.OpenAI) -> None:
    check_answer(client.responses.create(model=MODEL, input="Hello there"))


async def test_openai_creates_a_response_asynchronously(async_client: openai.AsyncOpenAI) -> None:
    check_answer(await async_client.responses.create(model=MODEL, input="Hello there"))


def test_openai_streams_the_same_reply_as_it_creates(client: openai.OpenAI) -> None:
    whole = client.responses.create(model=MODEL, input="Hello there")
    with client.responses.stream(model=MODEL, input="Hello there") as stream:
        final = stream.get_final_response()
    check_answer(final)
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage


async def test_openai_streams_the_documented_events_in_order(
    async_client: openai.AsyncOpenAI,
) -> None:
    stream = await async_client.responses.create(model=MODEL, input="Hello there", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert [
        kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind
    ] == TEXT_EVENTS


@pytest.mark.parametrize("go_on", ["whole history", "previous_response_id"])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_runs_tools(client: openai.OpenAI, stream: bool, go_on: str) -> None:
    asked: Any = {"model": MODEL, "tools": [TOOL]}
    if stream:
        with client.responses.stream(input=CALL, **asked) as events:
            called: Any = events.get_final_response()
    else:
        called = client.responses.create(input=CALL, **asked)
    [call] = called.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Rome"}')
    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "Sunny in Rome",
    }
    if go_on == "previous_response_id":
        reply = client.responses.create(input=[result], previous_response_id=called.id, **asked)
        assert reply.previous_response_id == called.id
    else:
        sent = call.model_dump(exclude_none=True, exclude={"parsed_arguments"})
        history: Any = [{"role": "user", "content": CALL}, sent, result]
        reply = client.responses.create(input=history, **asked)
    assert "Sunny in Rome" in reply.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_openai_reasons_and_sends_its_items_back(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {
        "model": MODEL,
        "tools": [TOOL],
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    if stream:
        with client.responses.stream(input=CALL, **asked) as events:
            called: Any = events.get_final_response()
    else:
        called = client.responses.create(input=CALL, **asked)
    thought, call = called.output
    assert thought.type == "reasoning"
    assert thought.summary[0].text
    assert thought.encrypted_content
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny in Rome"}
    items = [
        one.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for one in called.output
    ]
    history: Any = [{"role": "user", "content": CALL}, *items, result]
    assert "Sunny in Rome" in client.responses.create(input=history, **asked).output_text


def test_openai_parses_structured_answers(client: openai.OpenAI) -> None:
    reply = client.responses.parse(model=MODEL, input="Hello", text_format=Weather)
    assert isinstance(reply.output_parsed, Weather)


def test_openai_reads_why_an_answer_is_incomplete(client: openai.OpenAI) -> None:
    reply = client.responses.create(model=MODEL, input="Hello there", max_output_tokens=2)
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_reads_a_refusal(serve: Serve, stream: bool) -> None:
    base_url = serve(script=[{"refusal": "Not that."}]).server.base_url
    with openai.OpenAI(**_arguments(base_url)) as client:
        if stream:
            with client.responses.stream(model=MODEL, input="x") as events:
                reply: Any = events.get_final_response()
        else:
            reply = client.responses.create(model=MODEL, input="x")
    assert reply.output[0].content[0].refusal == "Not that."


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(("status", "kind"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_openai_maps_errors_to_its_classes(
    serve: Serve, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    base_url = serve(script=[{"error": {"status": status, "message": "As told."}}]).server.base_url
    with openai.OpenAI(**_arguments(base_url)) as client, pytest.raises(kind, match="As told"):
        client.responses.create(model=MODEL, input="x", stream=stream)


# `previous_response_id`


def test_only_the_last_reply_of_a_session_can_be_continued(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hello")
    second = client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
    assert second.output_text
    with pytest.raises(openai.ConflictError, match="not the last reply"):
        client.responses.create(model=MODEL, input="Or?", previous_response_id=first.id)


def test_a_reply_that_was_not_stored_cannot_be_continued(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hello", store=False)
    with pytest.raises(openai.ConflictError, match="not stored"):
        client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)


@pytest.mark.parametrize("known", [False, True])
def test_a_reply_of_another_key_is_404_like_an_unknown_reply(base_url: str, known: bool) -> None:
    with openai.OpenAI(**{**_arguments(base_url), "api_key": "sq-other"}) as other:
        theirs = other.responses.create(model=MODEL, input="Hello").id
    reply_id = theirs if known else "resp_nonsense"
    with openai.OpenAI(**_arguments(base_url)) as client, pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="And?", previous_response_id=reply_id)


# LangChain's client for OpenAI


@pytest.fixture
def chat_openai(base_url: str) -> ChatOpenAI:
    return _chat_openai(base_url)


def _chat_openai(base_url: str, **kwargs: Any) -> ChatOpenAI:
    fields: dict[str, Any] = {
        "model": MODEL,
        "base_url": f"{base_url}/control/chat/v1",
        "api_key": SecretStr("sq-test"),
        "max_retries": 0,
        "use_responses_api": True,
        **kwargs,
    }
    return ChatOpenAI(**fields)


def _total(chunks: Iterator[Any]) -> AIMessageChunk:
    first, *others = chunks
    total: AIMessageChunk = first + others if others else first
    return total


def test_chat_openai_invokes_and_streams_the_same(chat_openai: ChatOpenAI) -> None:
    whole = chat_openai.invoke("Hello there")
    total = _total(chat_openai.stream("Hello there"))
    assert "Hello there" in whole.text
    assert total.text == whole.text
    assert total.usage_metadata == whole.usage_metadata


async def test_chat_openai_works_asynchronously(chat_openai: ChatOpenAI) -> None:
    # The test has its own client, because the one that `ChatOpenAI` shares may be bound to a
    # closed event loop.
    async with httpx.AsyncClient() as client:
        model = ChatOpenAI(
            model=MODEL,
            base_url=chat_openai.openai_api_base,
            api_key=SecretStr("sq-test"),
            max_retries=0,
            use_responses_api=True,
            http_async_client=client,
        )
        whole = await model.ainvoke("Hello there")
        texts = [chunk.text async for chunk in model.astream("Hello there")]
    assert "".join(texts) == whole.text


@pytest.mark.parametrize("kwargs", [
    {},
    {"use_previous_response_id": True},
    {"reasoning": {"effort": "low", "summary": "auto"}},
    {"reasoning": {"effort": "low"}, "store": False, "include": ["reasoning.encrypted_content"]},
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_chat_openai_runs_tools(base_url: str, stream: bool, kwargs: dict[str, Any]) -> None:
    model = _chat_openai(base_url, **kwargs).bind_tools([get_weather])
    prompt = HumanMessage(CALL)
    called: Any = _total(model.stream([prompt])) if stream else model.invoke([prompt])
    [call] = called.tool_calls
    assert call["name"] == "get_weather"
    assert any(b["type"] == "reasoning" for b in called.content_blocks) == ("reasoning" in kwargs)
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert "Sunny in" in model.invoke([prompt, called, result]).text


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_chat_openai_returns_structured_output(chat_openai: ChatOpenAI, method: Any) -> None:
    shaped = chat_openai.with_structured_output(Weather, method=method)
    assert isinstance(shaped.invoke('The weather in "Rome"'), Weather)


def test_chat_openai_raises_for_a_refusal(serve: Serve) -> None:
    base_url = serve(script=[{"refusal": "Not that."}]).server.base_url
    with pytest.raises(ModelRefusalError, match="Not that"):
        _chat_openai(base_url).with_structured_output(Weather).invoke("x")


# The vendor's SDK

CONFIG = ControlConfig(features=FeaturesHeader.single_llm())


@pytest.fixture
def vendor(any_base_url: str) -> Iterator[SequrityClient]:
    with SequrityClient("sq-test", base_url=any_base_url, control=CONFIG) as made:
        yield made


def _text(response: Any) -> str:
    return "".join(
        str(part.text)
        for item in response.output
        if item.type == "message"
        for part in item.content
    )


def test_the_vendors_client_creates_a_response_and_continues_its_session(
    vendor: SequrityClient,
) -> None:
    first = vendor.control.responses.create(MODEL, input="Hello there")
    assert "Hello there" in _text(first)
    again = vendor.control.responses.create(MODEL, input="And?", previous_response_id=first.id)
    assert again.session_id == first.session_id


def test_the_vendors_client_streams(vendor: SequrityClient) -> None:
    with vendor.control.responses.create(MODEL, input="Hello there", stream=True) as stream:
        events = list(stream)
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "Hello there" in "".join(texts)
    assert events[-1].type == "response.completed"
    assert stream.session_id == vendor.control.session_id


async def test_the_vendors_asynchronous_client_creates_and_streams(any_base_url: str) -> None:
    async with AsyncSequrityClient("k", base_url=any_base_url, control=CONFIG) as vendor:
        whole = await vendor.control.responses.create(MODEL, input="Hello there")
        stream = await vendor.control.responses.create(
            MODEL, input="Hello there", stream=True, session_id=None
        )
        async with stream:
            texts = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        assert "".join(texts) == _text(whole)


@pytest.mark.parametrize("provider", [None, "openai", "sequrity_azure"])
@pytest.mark.parametrize("endpoint_type", ["chat", "code"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_vendors_client_runs_tools_on_every_route(
    vendor: SequrityClient, provider: Any, endpoint_type: Any, stream: bool
) -> None:
    asked: Any = {
        "tools": [{key: value for key, value in TOOL.items() if value is not None}],
        "reasoning": {"effort": "low"},
        "provider": provider,
        "endpoint_type": endpoint_type,
    }
    if stream:
        with vendor.control.responses.create(MODEL, input=CALL, stream=True, **asked) as events:
            called: Any = list(events)[-1].response
    else:
        called = vendor.control.responses.create(MODEL, input=CALL, **asked)
    output = [one if isinstance(one, dict) else one.model_dump() for one in called["output"]] if (
        isinstance(called, dict)
    ) else [one.model_dump() for one in called.output]  # fmt: skip
    call = output[-1]
    assert (call["type"], call["arguments"]) == ("function_call", '{"city": "Rome"}')
    reply_id = called["id"] if isinstance(called, dict) else called.id
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny in Rome"}
    reply = vendor.control.responses.create(
        MODEL, input=[result], previous_response_id=reply_id, **asked
    )
    assert "Sunny in Rome" in _text(reply)


def test_the_misspelt_schema_field_of_the_vendors_sdk_is_accepted(vendor: SequrityClient) -> None:
    shape = {"format": {"type": "json_schema", "name": "w", "schema": Weather.model_json_schema()}}
    reply = vendor.control.responses.create(MODEL, input="Hello", text=shape)
    Weather.model_validate_json(_text(reply))


def test_the_vendors_client_reads_the_stream_of_a_refusal_in_documented_fidelity(
    serve: Serve,
) -> None:
    api = serve(script=[{"refusal": "Not that."}], fidelity="documented")
    with (
        SequrityClient("k", base_url=api.server.base_url, control=CONFIG) as vendor,
        vendor.control.responses.create(MODEL, input="x", stream=True) as stream,
    ):
        events = list(stream)
    [part] = [event.part for event in events if event.type == "response.content_part.done"]
    assert (part["type"], part["refusal"]) == ("refusal", "Not that.")
    assert events[-1].type == "response.completed"
    assert events[-1].response["output"][0]["content"] == [part]


def test_the_vendors_client_raises_with_status_and_reason(server: LocalServer) -> None:
    with SequrityClient("k", base_url=server.base_url, control=CONFIG) as vendor:
        with pytest.raises(SequrityAPIError, match="background") as caught:
            vendor.control.responses.create(MODEL, input="x", background=True)
        assert caught.value.status_code == 501
