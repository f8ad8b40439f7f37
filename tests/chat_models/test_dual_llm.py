"""Dual-LLM answers through every call method (behaviour.md P2, P3, P8; security.md 5)."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelRefusalError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from pydantic import BaseModel
from sequrity.control.types.dual_llm_response import (  # type: ignore[import-untyped]
    ResponseContentJsonSchema,
)

from langchain_sequrity import ChatSequrity, DualLLMResult, Labels, dual_llm_result
from langchain_sequrity.errors import BadReply, PolicyDenied, ProgramFailed, UsageError
from langchain_sequrity.local.answers import ModelAnswer
from langchain_sequrity.wire.dual_llm import read_envelope
from tests.chat_models import formats
from tests.chat_models.conftest import SESSION, Service
from tests.chat_models.formats import added

Make = Callable[..., ChatSequrity]
BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

META = {"producers": ["soil_sensor"], "consumers": ["*"], "tags": ["field"]}
DUAL = {"agent_arch": "dual-llm"}


def envelope(value: Any = "Bed 4 is fine.", **fields: Any) -> str:
    returned = {"value": value, "meta": META}
    return json.dumps({"status": "success", "final_return_value": returned, **fields})


def failure(message: str | None, code: str = "x", **fields: Any) -> str:
    error = {"code": code, "message": message} if message is not None else None
    body = {"status": "failure", "final_return_value": None, "error": error, **fields}
    return json.dumps(body)


ENVELOPE = envelope("secret")
DENIAL = "Tool call to 'open_valve' is denied by argument checking policies. (details)"
SENTENCE = "The policy denied the call of `open_valve`: details."


@pytest.fixture(params=formats.ROWS, ids=formats.NAMES)
def each(request: pytest.FixtureRequest) -> formats.Service:
    """A service of each format."""
    return formats.Service(request.param)


@pytest.fixture
def client(each: formats.Service) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(each)) as made:
        yield made


def test_the_answer_is_the_value_and_the_rest_is_in_the_metadata(
    service: Service, make_model: Make
) -> None:
    service.answer(envelope(program="m = read()", extra_key=1))
    message = make_model(features=DUAL).invoke("How wet is bed 4?")
    assert message.content == "Bed 4 is fine."
    seen = message.response_metadata["sequrity"]
    assert (seen["status"], seen["program"], seen["labels"]) == ("success", "m = read()", META)
    result = dual_llm_result(message)
    assert result == DualLLMResult(
        status="success",
        value="Bed 4 is fine.",
        labels=Labels(frozenset({"soil_sensor"}), frozenset({"*"}), frozenset({"field"})),
        program="m = read()",
        extra={"extra_key": 1},
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [({"a": True, "b": None}, '{"a":true,"b":null}'), ([1, "x"], '[1,"x"]'), (None, "null"),
     (True, "true"), (4.5, "4.5"), ("42", "42"), ("", "")],
)  # fmt: skip
def test_values_other_than_text_are_shown_as_json(
    service: Service, make_model: Make, value: Any, text: str
) -> None:
    service.answer(envelope(value))
    message = make_model(features=DUAL).invoke("x")
    assert message.content == text
    result = dual_llm_result(message)
    assert result is not None
    assert result.value == value


NAN = float("nan")
INFINITE = float("inf")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "NaN"), ([1, NAN], "[1,NaN]"), ({"low": -INFINITE, "high": INFINITE},
         '{"low":-Infinity,"high":Infinity}'), ("NaN", "NaN"), (["NaN, Infinity]", NAN],
         '["NaN, Infinity]",NaN]'),
    ],
)  # fmt: skip
def test_nan_and_infinities_are_read_as_python_writes_them(
    service: Service, make_model: Make, value: Any, text: str, *, stream: bool
) -> None:
    body = envelope(value, session_meta={"score": NAN})
    assert "NaN" in body
    service.answer(body, stream=stream)
    model = make_model(features=DUAL)
    message = added(model.stream("x")) if stream else model.invoke("x")
    assert message.text == text
    result = dual_llm_result(message)
    assert result is not None
    assert json.dumps(result.value) == json.dumps(value)
    service.answer(envelope())
    model.invoke([HumanMessage("x"), message, HumanMessage("y")])
    assert service.bodies[-1]["messages"][1]["content"] == body


@pytest.mark.parametrize("broken", ['{"status":"success","final_return_value":{"value":NaN}',
                                    '{"status":"success","final_return_value":{"value":nan}}',
                                    '{"status":"success","final_return_value":{"value":1e999}}',
                                    '{"status":"success","a":NaN,"final_return_value":{"value":"\\ud800"}}'])  # fmt: skip
def test_what_is_no_json_beside_nan_is_no_envelope(broken: str) -> None:
    assert read_envelope(broken) is None


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_with_nan_are_a_call_and_go_back_as_they_came(
    service: Service, make_model: Make, *, stream: bool
) -> None:
    arguments = '{"low": -Infinity, "at": [NaN, 1]}'
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    service.answer("", tool_calls=[call], stream=stream)
    model = make_model(features=DUAL)
    message = added(model.stream("x")) if stream else model.invoke("x")
    [asked] = message.tool_calls
    assert repr(asked["args"]) == "{'low': -inf, 'at': [nan, 1]}"
    service.answer(envelope())
    model.invoke([HumanMessage("x"), message, ToolMessage("1", tool_call_id="c1")])
    [sent] = service.bodies[-1]["messages"][1]["tool_calls"]
    assert sent["function"]["arguments"] == arguments


@BETA
async def test_every_call_method_returns_the_value(
    each: formats.Service, client: httpx.Client
) -> None:
    async_client = httpx.AsyncClient(transport=httpx.MockTransport(each))
    clients = {"features": DUAL, "http_async_client": async_client}
    model = each.model(client, **clients)
    for stream in (False, False, *[True] * 7, False):
        each.answer(envelope(program="p"), stream=stream)
    whole = model.invoke("x")
    assert whole.text == (await model.ainvoke("x")).text == "Bed 4 is fine."
    assert formats.texts(model.stream("x")) == "Bed 4 is fine."
    assert "".join([str(chunk.text) async for chunk in model.astream("x")]) == "Bed 4 is fine."
    events = [event async for event in model.astream_events("x", version="v2")]
    assert events[-1]["data"]["output"].text == "Bed 4 is fine."
    v3 = model.stream_events("x", version="v3").output
    total = added(model.stream("x"))
    streaming = each.model(client, **clients, streaming=True).invoke("x")
    v1 = each.model(client, **clients, output_version="v1").invoke("x", stream=True)
    plain = added(model.stream("x"))  # a service that answers a stream with plain JSON
    assert total.usage_metadata == whole.usage_metadata
    for message in (whole, v3, total, streaming, v1, plain):
        assert message.text == "Bed 4 is fine."
        seen = message.response_metadata["sequrity"]
        assert (seen["status"], seen["program"], seen["session_id"]) == ("success", "p", SESSION)
        result = dual_llm_result(message)
        assert result is not None
        assert result.value == "Bed 4 is fine."


def test_streamed_metadata_and_usage_come_once(service: Service, make_model: Make) -> None:
    service.answer(envelope(program="p"))
    service.answer(envelope(program="p"), stream=True)
    model = make_model(features=DUAL)
    whole = model.invoke("x")
    chunks = list(model.stream("x"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.response_metadata == whole.response_metadata
    assert total.usage_metadata == whole.usage_metadata


def test_reasoning_streams_while_the_answer_is_held_back(
    each: formats.Service, client: httpx.Client
) -> None:
    each.answer(ModelAnswer(reasoning="Hm, a bed.", text=envelope()), stream=True)
    shown = [
        (block["type"], block.get("reasoning") or block.get("text"))
        for chunk in each.model(client, features=DUAL).stream("x")
        for block in chunk.content_blocks
    ]
    thoughts = [text for kind, text in shown if kind == "reasoning" and text]
    assert len(thoughts) > 1
    assert "".join(thoughts) == "Hm, a bed."
    assert [text for kind, text in shown if kind == "text" and text] == ["Bed 4 is fine."]
    assert shown[-1] == ("text", "Bed 4 is fine.")


def test_tool_calls_pass_through(service: Service, make_model: Make) -> None:
    call = {"id": "tc-1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    for stream in (False, True):
        service.answer("", tool_calls=[call], stream=stream)
    model = make_model(features=DUAL)
    assert model.invoke("x").tool_calls[0]["args"] == {"a": 1}
    chunks = list(model.stream("x"))
    assert (
        "".join(c["args"] or "" for chunk in chunks for c in chunk.tool_call_chunks) == '{"a": 1}'
    )


NO_ENVELOPES = [
    "Plain text",
    "",
    "{}",
    "[]",
    '{"status": "unknown", "final_return_value": {"value": 1, "meta": {}}}',
    '{"status": "success", "final_return_value": {}}',
    '{"status": "success", "final_return_value": {"meta": {}}}',
    '{"status": "success", "final_return_value": {"value": 1, "meta": []}}',
    '{"status": "success", "final_return_value": {"value": 1, "meta": {"tags": null}}}',
    '{"status": "success", "final_return_value": 1}',
    envelope()[:-1],
    envelope() + "x",
    envelope().replace('"status": "success"', '"status": "failure", "status": "success"'),
    envelope().replace('"tags": ["field"]', '"tags": ["field"], "tags": []'),
    envelope().replace('"*"', "7"),
    envelope(error={"code": "x", "message": "y"}),
    envelope(program=7),
    envelope(float("nan")).replace("NaN", "nan"),
    '{"status": "success", "final_return_value": ' + "[" * 100_000,
]


@pytest.mark.parametrize("text", NO_ENVELOPES, ids=range(len(NO_ENVELOPES)))
@pytest.mark.parametrize("stream", [False, True])
def test_a_dual_llm_reply_without_a_valid_envelope_is_a_bad_reply(
    each: formats.Service, client: httpx.Client, text: str, stream: bool
) -> None:
    each.answer(text, stream=stream)
    seen: list[str] = []
    model = each.model(client, features=DUAL)
    with pytest.raises(BadReply, match="dual-LLM"):
        seen.extend(str(c.text) for c in model.stream("x")) if stream else model.invoke("x")
    assert "".join(seen) == ""


NOBODY: dict[str, list[str]] = {"producers": [], "consumers": [], "tags": []}
SPARSE: list[tuple[dict[str, Any], Any, dict[str, list[str]] | None]] = [
    ({}, None, None),
    ({"final_return_value": None}, None, None),
    ({"final_return_value": {"value": 1}}, 1, None),
    ({"final_return_value": {"value": 1, "meta": None}}, 1, None),
    ({"final_return_value": {"value": 1, "meta": {}}}, 1, NOBODY),
    ({"final_return_value": {"value": 1, "meta": {"consumers": ["*"]}}}, 1,
     {**NOBODY, "consumers": ["*"]}),
    ({"final_return_value": {"value": 1, "meta": {"producers": ["a"], "tags": ["b"]}}}, 1,
     {"producers": ["a"], "consumers": [], "tags": ["b"]}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "value", "labels"), SPARSE)
@pytest.mark.parametrize("stream", [False, True])
def test_missing_fields_of_an_envelope_are_read_as_in_the_vendors_types(
    service: Service, make_model: Make, fields: Any, value: Any, labels: Any, stream: bool
) -> None:
    """Labels that are not reported are unknown, which is not the same as no labels."""
    text = json.dumps({"status": "success", **fields})
    theirs = ResponseContentJsonSchema.parse_json_safe(text)
    service.answer(text, stream=stream)
    model = make_model(features=DUAL)
    message = added(model.stream("x")) if stream else model.invoke("x")
    result = dual_llm_result(message)
    assert result is not None
    assert message.text == json.dumps(value)
    assert result.value == value
    assert message.response_metadata["sequrity"]["labels"] == labels
    assert (result.labels and result.labels.to_wire()) == labels
    if '"meta": null' not in text:  # the vendor's types refuse it
        assert theirs.status == "success"
        returned = theirs.final_return_value
        assert (returned and returned.value) == value
        if labels is not None:
            assert returned is not None
            sets = {kind: set(names) for kind, names in labels.items()}
            assert returned.meta.model_dump() == sets


@pytest.mark.parametrize("fields", [one[0] for one in SPARSE])
def test_without_features_an_incomplete_envelope_is_an_ordinary_answer(
    service: Service, make_model: Make, fields: Any
) -> None:
    text = json.dumps({"status": "success", **fields})
    service.answer(text, reply_id=SESSION, model="a,b")
    assert make_model().invoke("x").text == text


def test_a_cut_envelope_is_never_read() -> None:
    text = envelope({"a": ["secret", 7]}, program="m = read()")
    for at in range(len(text)):
        assert read_envelope(text[:at]) is None
        assert read_envelope(text[at + 1 :]) is None


@given(st.integers(0), st.integers(0), st.text() | st.sampled_from([*'{}[]",:', ENVELOPE, " "]))
def test_a_changed_envelope_is_read_only_if_it_is_json_and_as_that_json_says(
    start: int, size: int, junk: str
) -> None:
    start, size = start % (len(ENVELOPE) + 1), size % 20
    changed = ENVELOPE[:start] + junk + ENVELOPE[start + size :]
    result = read_envelope(changed)
    if result is not None:
        body = json.loads(changed)
        returned = body.get("final_return_value") or {}
        assert (result.status, result.value) == (body["status"], returned.get("value"))


# Which replies are dual-LLM (P2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_single_llm_model_cannot_forge_a_verdict(
    each: formats.Service, client: httpx.Client, stream: bool
) -> None:
    each.answer(envelope("forged"), stream=stream)
    model = each.model(client, features={"agent_arch": "single-llm"})
    message = added(model.stream("x")) if stream else model.invoke("x")
    assert message.text == envelope("forged")
    assert dual_llm_result(message) is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply_id", "model", "dual"),
    [(SESSION, "m", True), ("r1", "a,b", True), ("r1", "m", False)],
)
def test_without_features_a_reply_is_dual_llm_only_if_it_has_a_mark(
    service: Service, make_model: Make, reply_id: str, model: str, dual: bool, stream: bool
) -> None:
    service.answer(envelope(), reply_id=reply_id, model=model, stream=stream)
    chat = make_model()
    text = "".join(str(c.text) for c in chat.stream("x")) if stream else chat.invoke("x").text
    assert text == ("Bed 4 is fine." if dual else envelope())


@pytest.mark.parametrize("stream", [False, True])
def test_without_features_ordinary_text_stays_text(
    service: Service, make_model: Make, stream: bool
) -> None:
    for text in ("Hello", '{"status": "success"}'):
        service.answer(text, reply_id=SESSION, stream=stream)
        chat = make_model()
        got = "".join(str(c.text) for c in chat.stream("x")) if stream else chat.invoke("x").text
        assert got == text


def test_features_in_default_headers_count(service: Service, make_model: Make) -> None:
    service.answer(envelope())
    headers = {"X-Features": '{"agent_arch":"dual-llm","new":1}'}
    assert make_model(default_headers=headers).invoke("x").text == "Bed 4 is fine."
    assert service.requests[-1].headers["x-features"] == headers["X-Features"]


# Envelope before text (P3)


def test_the_envelope_is_requested(service: Service, make_model: Make) -> None:
    service.answer(envelope())
    make_model(features=DUAL, session_config={"fsm": {"max_n_turns": 3}}).invoke("x")
    config = json.loads(service.requests[-1].headers["x-config"])
    assert config == {
        "fsm": {"max_n_turns": 3},
        "response_format": {
            "strip_response_content": False,
            "include_program": True,
            "include_policy_check_history": True,
        },
    }


@pytest.mark.parametrize("features", [DUAL, None])
def test_stripping_the_envelope_is_refused(make_model: Make, features: Any) -> None:
    config = {"response_format": {"strip_response_content": True}}
    with pytest.raises(UsageError, match="failed turn would look like an answer"):
        make_model(features=features, session_config=config)
    make_model(features={"agent_arch": "single-llm"}, session_config=config)


# Denied and broken turns


@pytest.mark.parametrize("stream", [False, True])
def test_a_denied_turn_is_an_exception_and_never_an_answer(
    each: formats.Service, client: httpx.Client, stream: bool
) -> None:
    each.answer(failure(DENIAL, program="open_valve(bed=4)"), stream=stream)
    model = each.model(client, features=DUAL)
    seen: list[str] = []
    with pytest.raises(PolicyDenied) as caught:
        seen.extend(str(c.text) for c in model.stream("x")) if stream else model.invoke("x")
    assert "".join(seen) == ""
    error = caught.value
    assert isinstance(error, ModelRefusalError)
    assert not error.is_retryable
    assert (error.tool, error.program, error.session_id) == (
        "open_valve",
        "open_valve(bed=4)",
        SESSION,
    )
    assert error.rule == "not reported"
    assert error.reason == "details"
    assert str(error).startswith(f"{SENTENCE} ")
    assert isinstance(error.result, DualLLMResult)


@pytest.mark.parametrize("mode", ["raise", "message"])
def test_the_session_continues_after_a_denial_in_both_modes(
    service: Service, make_model: Make, mode: str
) -> None:
    service.answer(failure(DENIAL))
    model = make_model(features=DUAL, on_denied=mode)
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
    # The history has the turn in the service's own text.
    assert service.bodies[-1]["messages"][1]["content"] == failure(DENIAL)


@BETA
@pytest.mark.parametrize("stream", [False, True])
def test_a_denial_as_message_is_no_refusal_and_no_answer_of_a_parser(
    each: formats.Service, client: httpx.Client, stream: bool
) -> None:
    model = each.model(client, features=DUAL, on_denied="message")
    each.answer(failure(DENIAL), stream=stream)
    message = added(model.stream("x")) if stream else model.invoke("x")
    each.answer(failure(DENIAL), stream=True)
    for denied in (message, model.stream_events("x", version="v3").output):
        assert denied.text == SENTENCE
        assert "refusal" not in denied.additional_kwargs
        assert [block["type"] for block in denied.content_blocks] == ["text"]
    result = dual_llm_result(message)
    assert result is not None
    assert result.status == "failure"
    parsers = (JsonOutputParser(), PydanticOutputParser(pydantic_object=Bed))
    for chain in (*(model | parser for parser in parsers), model.with_structured_output(Bed)):
        each.answer(failure(DENIAL), stream=stream)
        with pytest.raises(PolicyDenied):
            list(chain.stream("x")) if stream else chain.invoke("x")


def test_a_denied_check_in_the_history_is_reported(service: Service, make_model: Make) -> None:
    denied = {"tool": "send", "arguments": {"to": "x"}, "rule": "must deny always", "reason": "why"}
    checks = [{"denied": []}, {"denied": [denied]}, 7]
    service.answer(failure("Something else.", policy_check_history=checks))
    with pytest.raises(PolicyDenied) as caught:
        make_model(features=DUAL).invoke("x")
    error = caught.value
    assert (error.tool, error.rule, error.reason) == ("send", "must deny always", "why")
    assert error.arguments == {"to": "x"}
    assert error.checks == tuple(checks)


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        (failure(DENIAL), True),
        (failure("The control flow was violated."), True),
        (failure("x", code="policy_violation"), True),
        (failure("x", policy_check_history=[{"denied": ["rule 1"]}]), True),
        (failure("NameError in line 3."), False),
        (failure("x", policy_check_history=[{"denied": []}, {}, 7]), False),
        (failure(None), False),
        ('{"status": "failure"}', False),
        (failure("x").replace("null", '{"value": 1, "meta": {}}'), False),
    ],
)
def test_a_failure_is_raised_as_a_denial_or_as_a_failed_program(
    service: Service, make_model: Make, text: str, denied: bool
) -> None:
    service.answer(text, finish_reason="error")
    with pytest.raises(PolicyDenied if denied else ProgramFailed):
        make_model(features=DUAL).invoke("x")


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_program_raises_even_if_denials_are_messages(
    each: formats.Service, client: httpx.Client, stream: bool
) -> None:
    each.answer(failure("NameError", code="program_error", program="x"), stream=stream)
    model = each.model(client, features=DUAL, on_denied="message")
    with pytest.raises(ProgramFailed, match="NameError") as caught:
        list(model.stream("x")) if stream else model.invoke("x")
    assert (caught.value.code, caught.value.program) == ("program_error", "x")
    assert caught.value.message is not None


def test_text_of_the_service_cannot_control_the_terminal(
    service: Service, make_model: Make
) -> None:
    service.answer(failure("denied \x1b[2J\u202e by policy\nfake: line"))
    with pytest.raises(PolicyDenied) as caught:
        make_model(features=DUAL).invoke("x")
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_is_sent_back_as_its_envelope_unless_it_was_edited(
    service: Service, make_model: Make
) -> None:
    model = make_model(features=DUAL)
    service.answer(envelope({"a": 1}))
    reply = model.invoke("x")
    edited = reply.model_copy(update={"content": "Something else"})
    for message, sent in ((reply, envelope({"a": 1})), (edited, "Something else")):
        service.answer(envelope())
        model.invoke([HumanMessage("x"), message, HumanMessage("y")])
        assert service.bodies[-1]["messages"][1]["content"] == sent
    # In another session the value is plain text.
    service.answer(envelope())
    model.invoke([HumanMessage("x"), reply, HumanMessage("y")], session_id="new")
    assert service.bodies[-1]["messages"][1]["content"] == '{"a":1}'


# Structured output


class Bed(BaseModel):
    bed: int
    percent: float


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("value", [{"bed": 4, "percent": 42}, '{"bed": 4, "percent": 42}'])
def test_structured_output_parses_the_value(
    service: Service, make_model: Make, method: Any, value: Any
) -> None:
    service.answer(envelope(value))
    model = make_model(features=DUAL)
    assert model.with_structured_output(Bed, method=method).invoke("x") == Bed(bed=4, percent=42)


def test_structured_output_raises_on_a_denial(service: Service, make_model: Make) -> None:
    service.answer(failure(DENIAL))
    with pytest.raises(PolicyDenied):
        make_model(features=DUAL).with_structured_output(Bed).invoke("x")
    service.answer(failure(DENIAL))
    with pytest.raises(ModelRefusalError):
        make_model(features=DUAL, on_denied="message").with_structured_output(Bed).invoke("x")
