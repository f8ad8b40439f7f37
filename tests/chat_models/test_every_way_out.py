"""Every call method of a model returns what `invoke` returns, in every format."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pytest
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from pydantic import BaseModel

from langchain_sequrity.local import LocalServer
from tests.chat_models.formats import NAMES, ROWS, Row, added, calls_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def get_time(city: str, *, utc: bool = False) -> str:
    """The time in a city."""
    return f"Noon in {city} {utc}"


USAGE = {
    "input_tokens": 20,
    "output_tokens": 9,
    "input_token_details": {"cache_read": 7},
    "output_token_details": {"reasoning": 4},
}
ROME = {"name": "get_weather", "arguments": {"city": "Rome"}}
TOKYO = {"name": "get_time", "arguments": {"city": "東京", "utc": True}}
JSON = '{"city":"Rome","degrees":21}'


class Case(NamedTuple):
    """An answer of the script, and the parts of it that every call method must return."""

    answer: dict[str, Any]
    text: str = ""
    calls: tuple[Any, ...] = ()
    reasoning: str = ""
    refusal: str | None = None


CASES = {
    "text": Case({"text": "It is sunny, and warm."}, "It is sunny, and warm."),
    "text and a call": Case(
        {"text": "Let me look.", "tool_calls": [ROME]},
        "Let me look.",
        (("get_weather", {"city": "Rome"}),),
    ),
    "a call alone": Case({"tool_calls": [ROME]}, calls=(("get_weather", {"city": "Rome"}),)),
    "thinking, text and two calls": Case(
        {"reasoning": "First the weather.", "text": "Wait.", "tool_calls": [ROME, TOKYO]},
        "Wait.",
        (("get_weather", {"city": "Rome"}), ("get_time", {"city": "東京", "utc": True})),
        "First the weather.",
    ),
    "thinking and text": Case(
        {"reasoning": "Easy.", "text": "Four."}, "Four.", reasoning="Easy."
    ),
    "a refusal": Case({"refusal": "I will not."}, refusal="I will not."),
    "a structured answer": Case({"text": JSON}, JSON),
    "details of usage": Case({"text": "Hi.", "reasoning": "Hm.", "usage": USAGE}, "Hi.", reasoning="Hm."),
}  # fmt: skip


@pytest.fixture(scope="module")
def scripted() -> Iterator[LocalServer]:
    rules = [{"when": {"user": f"^{name}$"}, **case.answer} for name, case in CASES.items()]
    with LocalServer(script=rules) as running:
        yield running


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    found: Row = request.param
    return found


def _seen(message: AIMessage) -> dict[str, Any]:
    """The parts of a message that must be the same for every call method."""
    blocks: list[Any] = list(message.content_blocks)
    reasoning = "".join(one["reasoning"] for one in blocks if one["type"] == "reasoning")
    calls = [(one["name"], _args(one)) for one in blocks if one["type"].startswith("tool_call")]
    metadata = message.response_metadata
    return {
        "text": str(message.text),
        "calls": calls_of(message),
        "blocks of calls": calls,
        "reasoning": reasoning or message.additional_kwargs.get("reasoning_content", ""),
        "refusal": message.additional_kwargs.get("refusal"),
        "usage": message.usage_metadata,
        "model": metadata["model_name"],
        "reason": metadata.get("finish_reason", metadata.get("stop_reason")),
        "has a session": "session_id" in metadata["sequrity"],
    }


def _args(block: dict[str, Any]) -> Any:
    """LangChain leaves arguments as JSON text in the output of `astream_events` v2."""
    return orjson.loads(block["args"]) if block["type"] == "tool_call_chunk" else block["args"]


async def _ways_out(model: Any, prompt: str) -> dict[str, AIMessage]:
    """The answers of every call method to one question."""
    v1 = _with_v1(model)
    ways: dict[str, AIMessage] = {
        "invoke": model.invoke(prompt),
        "ainvoke": await model.ainvoke(prompt),
        "stream": added(model.stream(prompt)),
        "astream": added([chunk async for chunk in model.astream(prompt)]),
        "invoke with stream": model.invoke(prompt, stream=True),
        "invoke v1": v1.invoke(prompt),
        "stream v1": added(v1.stream(prompt)),
    }
    events = [event async for event in model.astream_events(prompt, version="v2")]
    ways["astream_events v2"] = events[-1]["data"]["output"]
    assert str(added(e["data"]["chunk"] for e in events if "chunk" in e["data"]).text) == str(
        ways["astream_events v2"].text
    )
    stream = model.stream_events(prompt, version="v3")
    protocol = list(stream)
    assert_valid_event_stream(protocol)
    ways["stream_events v3"] = stream.output
    return ways


def _with_v1(model: Any) -> Any:
    """The model with LangChain's standard blocks as content; a bound model is bound again."""
    if hasattr(model, "bound"):
        bound = model.bound.model_copy(update={"output_version": "v1"})
        return bound.bind(**model.kwargs)
    return model.model_copy(update={"output_version": "v1"})


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("name", CASES)
async def test_every_call_method_returns_what_invoke_returns(
    scripted: LocalServer, row: Row, name: str
) -> None:
    case = CASES[name]
    model: Any = row.make(base_url=scripted.base_url)
    if case.calls:
        model = model.bind_tools([get_weather, get_time])
    ways = await _ways_out(model, name)
    expected = _seen(ways["invoke"])
    assert expected["text"] == case.text
    assert expected["calls"] == expected["blocks of calls"] == list(case.calls)
    assert expected["reasoning"] == case.reasoning
    assert expected["refusal"] == case.refusal
    for way, message in ways.items():
        assert _seen(message) == expected, way


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_details_of_usage_are_read_in_every_format(
    scripted: LocalServer, row: Row, way: str
) -> None:
    model = row.make(base_url=scripted.base_url)
    prompt = "details of usage"
    message = model.invoke(prompt) if way == "invoke" else added(model.stream(prompt))
    usage = message.usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (20, 9, 29)
    assert usage["input_token_details"]["cache_read"] == 7
    assert usage["output_token_details"]["reasoning"] == 4


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
async def test_structured_output_is_the_same_for_every_call_method(
    scripted: LocalServer, row: Row, method: Any
) -> None:
    model: Any = row.make(base_url=scripted.base_url)
    prompt = "a structured answer"
    shaped = model.with_structured_output(Weather, method=method)
    expected = Weather(city="Rome", degrees=21)
    assert shaped.invoke(prompt) == expected
    assert await shaped.ainvoke(prompt) == expected
    assert list(shaped.stream(prompt))[-1] == expected
    raw = model.with_structured_output(Weather, method=method, include_raw=True).invoke(prompt)
    assert raw["parsed"] == expected
    assert raw["parsing_error"] is None
    assert raw["raw"].text == JSON
    assert (model | JsonOutputParser()).invoke(prompt) == expected.model_dump()


async def test_structured_output_works_with_a_forced_tool(base_url: str, row: Row) -> None:
    model = row.make(base_url=base_url)
    shaped = model.with_structured_output(Weather, method="function_calling")
    assert isinstance(shaped.invoke("in 'Rome'"), Weather)
    assert isinstance(await shaped.ainvoke("in 'Rome'"), Weather)
    assert isinstance(list(shaped.stream("in 'Rome'"))[-1], Weather)
    with_raw = model.with_structured_output(Weather, method="function_calling", include_raw=True)
    raw: Any = with_raw.invoke("in 'Rome'")
    assert isinstance(raw["parsed"], Weather)
    assert raw["raw"].tool_calls


@pytest.mark.parametrize("stream", [False, True])
def test_parsers_raise_on_a_refusal(scripted: LocalServer, row: Row, stream: bool) -> None:
    model = row.make(base_url=scripted.base_url)
    for chain in (model | JsonOutputParser(), model.with_structured_output(Weather)):
        with pytest.raises(ModelRefusalError):
            list(chain.stream("a refusal")) if stream else chain.invoke("a refusal")


def test_a_conversation_continues_after_reasoning_and_tool_calls(
    scripted: LocalServer, row: Row
) -> None:
    model = row.make(base_url=scripted.base_url).bind_tools([get_weather, get_time])
    prompt = HumanMessage("thinking, text and two calls")
    for called in (model.invoke([prompt]), added(model.stream([prompt]))):  # type: ignore[arg-type]
        results = [get_weather("Rome"), get_time("東京")]
        messages: list[Any] = [prompt, called]
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": result}
            for call, result in zip(called.tool_calls, results, strict=True)
        ]
        reply = model.invoke([*messages, HumanMessage("text")])
        assert reply.text == "It is sunny, and warm."
        sessions = [m.response_metadata["sequrity"]["session_id"] for m in (called, reply)]
        assert sessions[0] == sessions[1]
