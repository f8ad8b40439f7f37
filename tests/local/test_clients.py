"""Clients that were not written for this server; they validate its replies by their own rules."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, SecretStr
from sequrity import (  # type: ignore[import-untyped] # the package has no type information
    AsyncSequrityClient,
    SequrityAPIError,
    SequrityClient,
)
from sequrity.control import ControlConfig, FeaturesHeader, SecurityPolicyHeader  # type: ignore[import-untyped] # as above
from sequrity.control.integrations.langgraph import (  # type: ignore[import-untyped] # as above
    LangGraphChatSequrityAI,
)
from sequrity.types.chat_completion.request import (  # type: ignore[import-untyped] # as above
    JsonSchema,
    ResponseFormatJsonSchema,
)

from langchain_sequrity.local import LocalServer
from tests.local.conftest import Serve

MODEL = "any/model"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
CALL: list[ChatCompletionMessageParam] = [{"role": "user", "content": "call get_weather in `Rome`"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": SCHEMA,
    },
}
ERRORS: list[tuple[int, type[openai.APIStatusError]]] = [
    (400, openai.BadRequestError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
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


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{base_url}/control/chat/v1",
        api_key="sq-test",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{base_url}/control/chat/v1",
        api_key="sq-test",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


def check_answer(reply: ChatCompletion) -> None:
    [choice] = reply.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert "Hello there" in choice.message.content
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_openai_creates_a_completion(client: openai.OpenAI) -> None:
    check_answer(client.chat.completions.create(model=MODEL, messages=HELLO))


async def test_openai_creates_a_completion_asynchronously(async_client: openai.AsyncOpenAI) -> None:
    check_answer(await async_client.chat.completions.create(model=MODEL, messages=HELLO))


def test_openai_streams_the_same_reply_as_it_creates(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO)
    with client.chat.completions.stream(model=MODEL, messages=HELLO, stream_options={"include_usage": True}) as stream:  # fmt: skip
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage == whole.usage


async def test_openai_streams_asynchronously(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "Hello there" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_openai_runs_tools(client: openai.OpenAI, stream: bool) -> None:
    if stream:
        with client.chat.completions.stream(model=MODEL, messages=CALL, tools=[TOOL]) as events:
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model=MODEL, messages=CALL, tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    messages = [
        *CALL,
        choice.message.model_dump(include={"role", "content", "tool_calls"}),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny in Rome"},
    ]
    reply = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    assert "Sunny in Rome" in (reply.choices[0].message.content or "")


def test_openai_parses_structured_answers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Weather)
    assert isinstance(reply.choices[0].message.parsed, Weather)


def test_openai_gets_several_choices_and_json_objects(client: openai.OpenAI) -> None:
    assert len(client.chat.completions.create(model=MODEL, messages=HELLO, n=2).choices) == 2
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, response_format={"type": "json_object"}
    )
    assert (reply.choices[0].message.content or "").startswith("{")


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(("status", "kind"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_openai_maps_errors_to_its_classes(
    serve: Serve, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    base_url = serve(script=[{"error": {"status": status, "message": "As told."}}]).server.base_url
    with (
        openai.OpenAI(base_url=f"{base_url}/control/chat/v1", api_key="k", max_retries=0) as client,
        pytest.raises(kind) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert "As told." in str(caught.value)
    assert caught.value.request_id


def test_openai_shows_which_header_is_malformed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"`X-Config` is not valid\. Invalid JSON"):
        client.chat.completions.create(
            model=MODEL, messages=HELLO, extra_headers={"X-Config": "max_n_turns=8"}
        )


def test_openai_retries_after_429(serve: Serve) -> None:
    error = {"error": {"status": 429, "message": "Slow down.", "retry_after": 0.01}, "times": 1}
    base_url = serve(script=[error]).server.base_url
    with openai.OpenAI(
        base_url=f"{base_url}/control/chat/v1", api_key="k", max_retries=1
    ) as client:
        check_answer(client.chat.completions.create(model=MODEL, messages=HELLO))


def test_openai_continues_a_session_by_header(client: openai.OpenAI) -> None:
    first = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    session = {"X-Session-ID": first.headers["x-session-id"]}
    again = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, extra_headers=session
    )
    assert again.headers["x-session-id"] == first.headers["x-session-id"]


# LangChain's client for OpenAI


@pytest.fixture
def chat_openai(base_url: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=f"{base_url}/control/chat/v1",
        api_key=SecretStr("sq-test"),
        max_retries=0,
        stream_usage=True,
        use_responses_api=False,
    )


def test_chat_openai_invokes_and_streams_the_same(chat_openai: ChatOpenAI) -> None:
    whole = chat_openai.invoke("Hello there")
    chunks = list(chat_openai.stream("Hello there"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert isinstance(total, AIMessageChunk)
    assert total.text == whole.text
    assert total.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert total.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]


async def test_chat_openai_works_asynchronously(chat_openai: ChatOpenAI) -> None:
    # The test has its own client, because the one that `ChatOpenAI` shares may be bound to a
    # closed event loop.
    async with httpx.AsyncClient() as client:
        model = ChatOpenAI(
            model=MODEL,
            base_url=chat_openai.openai_api_base,
            api_key=SecretStr("sq-test"),
            max_retries=0,
            use_responses_api=False,
            http_async_client=client,
        )
        whole = await model.ainvoke("Hello there")
        texts = [chunk.text async for chunk in model.astream("Hello there")]
    assert "".join(texts) == whole.text


@pytest.mark.parametrize("stream", [False, True])
def test_chat_openai_runs_tools(chat_openai: ChatOpenAI, stream: bool) -> None:
    model = chat_openai.bind_tools([get_weather])
    prompt = HumanMessage("call get_weather in `Rome`")
    called: Any = model.invoke([prompt])
    if stream:
        first, *others = model.stream([prompt])
        called = first + others if others else first
    [call] = called.tool_calls
    assert call["name"] == "get_weather"
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert "Sunny in" in model.invoke([prompt, called, result]).text


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
def test_chat_openai_returns_structured_output(chat_openai: ChatOpenAI, method: Any) -> None:
    prompt = 'The weather in Rome as JSON with "city" and "degrees"'
    if method == "json_mode":
        found = chat_openai.with_structured_output(None, method=method).invoke(prompt)
        assert set(found) >= {"city", "degrees"}
    else:
        assert isinstance(
            chat_openai.with_structured_output(Weather, method=method).invoke(prompt), Weather
        )


# The vendor's SDK


AUTO_GEN = SecurityPolicyHeader.dual_llm(auto_gen=True)
CONFIG = ControlConfig(features=FeaturesHeader.single_llm())
VENDOR_HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
VENDOR_CALL: list[Any] = [{"role": "user", "content": "call get_weather in `Rome`"}]


@pytest.fixture
def vendor(any_base_url: str) -> Iterator[SequrityClient]:
    with SequrityClient("sq-test", base_url=any_base_url, control=CONFIG) as made:
        yield made


@pytest.fixture
async def async_vendor(base_url: str) -> AsyncIterator[AsyncSequrityClient]:
    async with AsyncSequrityClient("sq-test", base_url=base_url, control=CONFIG) as made:
        yield made


def test_the_vendors_client_creates_a_completion_and_continues_its_session(
    vendor: SequrityClient,
) -> None:
    first = vendor.control.chat.create(VENDOR_HELLO, MODEL)
    assert "Hello there" in str(first.choices[0].message.content)
    again = vendor.control.chat.create([{"role": "user", "content": "And now?"}], MODEL)
    assert again.session_id == first.session_id == vendor.control.session_id
    afresh = vendor.control.chat.create(VENDOR_HELLO, MODEL, session_id=None)
    assert afresh.session_id != first.session_id


async def test_the_vendors_asynchronous_client_creates_and_streams(
    async_vendor: AsyncSequrityClient,
) -> None:
    whole = await async_vendor.control.chat.create(VENDOR_HELLO, MODEL)
    stream = await async_vendor.control.chat.create(
        VENDOR_HELLO, MODEL, stream=True, session_id=None
    )
    async with stream:
        texts = [
            str(chunk.choices[0].delta.content or "") async for chunk in stream if chunk.choices
        ]
    assert "".join(texts) == whole.choices[0].message.content
    assert stream.session_id != whole.session_id


def test_the_vendors_client_streams(base_url: str) -> None:
    with SequrityClient("sq-test", base_url=base_url, control=CONFIG) as vendor:
        with vendor.control.chat.create(VENDOR_HELLO, MODEL, stream=True) as stream:
            chunks = list(stream)
        assert stream.session_id == vendor.control.session_id
    assert "Hello there" in "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_vendors_client_continues_a_session_by_the_tool_call_id_alone(
    vendor: SequrityClient,
) -> None:
    tools: list[Any] = [TOOL]
    called = vendor.control.chat.create(VENDOR_CALL, MODEL, tools=tools)
    message = called.choices[0].message.model_dump(exclude_none=True)
    [call] = message["tool_calls"]
    vendor.control.reset_session()
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Sunny in Rome"}
    reply = vendor.control.chat.create([*VENDOR_CALL, message, result], MODEL, tools=tools)
    assert reply.session_id == called.session_id
    assert "Sunny in Rome" in str(reply.choices[0].message.content)


def test_the_vendors_client_may_send_the_tool_result_alone(vendor: SequrityClient) -> None:
    tools: list[Any] = [TOOL]
    called = vendor.control.chat.create(VENDOR_CALL, MODEL, tools=tools)
    [call] = called.choices[0].message.tool_calls or []
    reply = vendor.control.chat.create(
        [{"role": "tool", "tool_call_id": call.id, "content": "Sunny in Rome"}], MODEL, tools=tools
    )
    assert "Sunny in Rome" in str(reply.choices[0].message.content)


def test_the_misspelt_schema_field_of_the_vendors_sdk_is_accepted(vendor: SequrityClient) -> None:
    schema = JsonSchema.model_validate({"name": "weather", "schema": Weather.model_json_schema()})
    form = ResponseFormatJsonSchema(type="json_schema", json_schema=schema)
    reply = vendor.control.chat.create(VENDOR_HELLO, MODEL, response_format=form)
    Weather.model_validate_json(str(reply.choices[0].message.content))


def test_the_vendors_client_raises_with_status_and_reason(base_url: str) -> None:
    with SequrityClient("sq-test", base_url=base_url) as vendor:
        with pytest.raises(SequrityAPIError, match="auto_gen") as caught:
            vendor.control.chat.create(VENDOR_HELLO, MODEL, security_policy=AUTO_GEN)
        assert caught.value.status_code == 501
        with pytest.raises(SequrityAPIError, match="unknown") as caught:
            vendor.control.chat.create(VENDOR_HELLO, MODEL, session_id="nonsense")
        assert caught.value.status_code == 404


def test_the_vendors_client_may_have_a_base_url_that_ends_in_a_slash(base_url: str) -> None:
    with SequrityClient("sq-test", base_url=f"{base_url}/", control=CONFIG) as vendor:
        assert vendor.control.chat.create(VENDOR_HELLO, MODEL).choices


@pytest.fixture
def vendors_langchain(server: LocalServer) -> Any:
    return LangGraphChatSequrityAI(
        "sq-test",
        features=FeaturesHeader.single_llm(),
        base_url=server.base_url,
        model=MODEL,
        max_retries=0,
    )


def test_the_vendors_langchain_client_runs_tools_and_keeps_its_session(
    vendors_langchain: Any,
) -> None:
    model = vendors_langchain.bind_tools([get_weather])
    prompt = HumanMessage("call get_weather in `Rome`")
    called: AIMessage = model.invoke([prompt])
    session = vendors_langchain.session_id
    [call] = called.tool_calls
    reply = model.invoke([prompt, called, ToolMessage("Sunny in Rome", tool_call_id=call["id"])])
    assert "Sunny in Rome" in reply.text
    assert session
    assert vendors_langchain.session_id == session


def test_the_vendors_langchain_client_streams(vendors_langchain: Any) -> None:
    assert "Hello there" in "".join(chunk.text for chunk in vendors_langchain.stream("Hello there"))


async def test_the_vendors_langchain_client_works_asynchronously(vendors_langchain: Any) -> None:
    assert "Hello there" in (await vendors_langchain.ainvoke("Hello there")).text
