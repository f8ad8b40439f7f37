"""Dual-LLM turns over Messages and Responses (behaviour.md P1 to P3; security.md 5)."""

import json
from collections.abc import Iterator

import httpx
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from pydantic import BaseModel

from langchain_sequrity.errors import BadReply, PolicyDenied
from langchain_sequrity.local.answers import ModelAnswer
from tests.chat_models.formats import MESSAGES, RESPONSES, SESSION, Row, Service, added, texts
from tests.chat_models.test_dual_llm import (
    DENIAL,
    DUAL,
    envelope,
    failure,
)

SINGLE = {"agent_arch": "single-llm"}
CALL = ("get_weather", {"city": "Rome"})


class Bed(BaseModel):
    """A bed of the garden."""

    bed: int


@pytest.fixture(params=[MESSAGES, RESPONSES], ids=["messages", "responses"])
def service(request: pytest.FixtureRequest) -> Service:
    row: Row = request.param
    return Service(row)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(service)) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_stays_beside_the_value(
    service: Service, client: httpx.Client, stream: bool
) -> None:
    service.answer(ModelAnswer(reasoning="Hm, a bed.", text=envelope()), stream=stream)
    model = service.model(client, features=DUAL)
    message = added(model.stream("x")) if stream else model.invoke("x")
    assert [(b["type"], b.get("reasoning") or b.get("text")) for b in message.content_blocks] == [
        ("reasoning", "Hm, a bed."),
        ("text", "Bed 4 is fine."),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", [envelope(), failure(DENIAL), f" \n{envelope()}"])
def test_without_features_an_envelope_is_a_bad_reply(
    service: Service, client: httpx.Client, text: str, stream: bool
) -> None:
    service.answer(ModelAnswer(reasoning="Hm.", text=text), stream=stream)
    model = service.model(client)
    shown: list[str] = []
    with pytest.raises(BadReply, match="features="):
        shown += (str(chunk.text) for chunk in model.stream("x")) if stream else [model.invoke("x")]
    assert "".join(shown) == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "text", ["Hello there", '{"status": "success"}', "  ", '{"a": [1, 2]}', "{"]
)
def test_without_features_other_text_stays_text(
    service: Service, client: httpx.Client, text: str, stream: bool
) -> None:
    service.answer(text, stream=stream)
    model = service.model(client)
    assert (texts(model.stream("x")) if stream else model.invoke("x").text) == text


def test_without_features_text_is_shown_as_soon_as_it_cannot_be_an_envelope(
    service: Service, client: httpx.Client
) -> None:
    service.answer("Hello there, you", stream=True)
    pieces = [str(chunk.text) for chunk in service.model(client).stream("x") if chunk.text]
    assert len(pieces) > 2
    service.answer(ModelAnswer(text='{"a": 1, "b": [2]}', calls=(CALL,)), stream=True)
    total = added(service.model(client).stream("x"))
    assert total.text == '{"a": 1, "b": [2]}'
    assert total.tool_calls[0]["args"] == {"city": "Rome"}


@pytest.mark.parametrize("mode", ["raise", "message"])
def test_the_session_continues_after_a_denial_with_the_services_own_text(
    service: Service, client: httpx.Client, mode: str
) -> None:
    model = service.model(client, features=DUAL, on_denied=mode)
    service.answer(failure(DENIAL))
    if mode == "raise":
        with pytest.raises(PolicyDenied) as caught:
            model.invoke("x")
        message = caught.value.message
    else:
        message = model.invoke("x")
    assert message is not None
    service.answer(envelope())
    model.invoke([HumanMessage("x"), message, HumanMessage("Then do something else.")])
    assert service.requests[-1].headers["x-session-id"] == SESSION
    assert json.dumps(failure(DENIAL)) in json.dumps(service.bodies[-1])
    assert json.dumps(DENIAL) not in json.dumps(service.bodies[-1]).replace(
        json.dumps(failure(DENIAL)), ""
    )


def test_a_value_is_sent_back_as_its_envelope_beside_its_reasoning(
    service: Service, client: httpx.Client
) -> None:
    model = service.model(client, features=DUAL)
    service.answer(ModelAnswer(reasoning="Hm.", text=envelope()))
    message = model.invoke("x")
    service.answer(envelope())
    model.invoke([HumanMessage("x"), message, HumanMessage("y")])
    sent = json.dumps(service.bodies[-1])
    assert json.dumps(envelope()) in sent
    assert "Hm." in sent


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_pass_through_and_their_session_is_resumed(
    service: Service, client: httpx.Client, stream: bool
) -> None:
    model = service.model(client, features=DUAL)
    service.answer(ModelAnswer(calls=(CALL,)), stream=stream)
    called = added(model.stream("x")) if stream else model.invoke("x")
    [call] = called.tool_calls
    service.answer(envelope())
    result = ToolMessage("Sunny", tool_call_id=call["id"])
    assert model.invoke([HumanMessage("x"), called, result]).text == "Bed 4 is fine."
    assert service.requests[-1].headers["x-session-id"] == SESSION


def test_structured_output_reads_the_value(service: Service, client: httpx.Client) -> None:
    shaped = service.model(client, features=DUAL).with_structured_output(Bed)
    for value in ({"bed": 4}, '{"bed": 4}'):
        service.answer(envelope(value))
        assert shaped.invoke("x") == Bed(bed=4)
