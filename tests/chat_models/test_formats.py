"""What differs between the formats: parameters, tools, bodies, ids."""

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from langchain_core.load import dumps, load
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel, Field, ValidationError

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import (
    ForcedToolMissing,
    NotFound,
    Overloaded,
    SessionExpired,
    StreamInterrupted,
    UsageError,
)
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.answers import ModelAnswer
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
from tests.local.stores import find, remove

OTHER = "5d2f9f60-1a2b-11f1-9c3d-0242ac120002"
SINGLE = {"agent_arch": "single-llm"}
CALL = ("open_valve", {"bed": 4})


class Valve(BaseModel):
    """A valve."""

    bed: int = Field(description="Which bed", ge=1)


@tool(extras={"cache_control": {"type": "ephemeral"}})
def open_valve(bed: int) -> str:
    """Open the valve of a bed."""
    return f"opened {bed}"


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    found: Row = request.param
    return found


@pytest.fixture
def service(row: Row) -> Service:
    return Service(row)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.MockTransport(service)) as made:
        yield made


# Parameters

STRANGE: list[tuple[Row, dict[str, Any], str]] = [
    (CHAT, {"reasoning": {"effort": "low"}}, "belongs to Responses"),
    (CHAT, {"use_previous_response_id": True}, "belongs to Responses"),
    (CHAT, {"thinking": {"type": "adaptive"}}, "no argument `thinking`"),
    (RESPONSES, {"n": 2}, "belongs to chat/completions"),
    (RESPONSES, {"seed": 1}, "belongs to chat/completions"),
    (RESPONSES, {"provider": "openrouter"}, "responses: None, openai, sequrity_azure"),
    (MESSAGES, {"seed": 1}, "no argument `seed`"),
    (MESSAGES, {"use_responses_api": True}, "no argument `use_responses_api`"),
    (MESSAGES, {"polcy": "x"}, "Did you mean `policy`"),
    (MESSAGES, {"provider": "openai"}, "messages: None, anthropic"),
]


@pytest.mark.parametrize(("strange", "argument", "says"), STRANGE)
def test_a_parameter_of_another_format_is_refused(
    strange: Row, argument: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        strange.make(api_key="k", **argument)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValidationError, match="temperature"):
        SequrityMessages("m", api_key="k", temperature=1.5)
    with pytest.raises(ValidationError, match="top_k"):
        SequrityMessages("m", api_key="k", top_k=-1)


def test_each_format_has_its_own_path(service: Service, client: httpx.Client, row: Row) -> None:
    service.answer("Hi")
    service.model(client, endpoint_type="code").invoke("x")
    assert service.requests[-1].url.path == f"/control/code/v1/{row.format}"


BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {
        "model": "any/model",
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["a"],
        "reasoning_effort": "low",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}],
    },
    "responses": {
        "model": "any/model",
        "temperature": 0.5,
        "max_output_tokens": 9,
        "stop": ["a"],
        "reasoning": {"effort": "low"},
        "input": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}],
    },
    "messages": {
        "model": "any/model",
        "temperature": 0.5,
        "max_tokens": 9,
        "stop_sequences": ["a"],
        "reasoning_effort": "low",
        "system": "s",
        "messages": [{"role": "user", "content": "x"}],
    },
}


@pytest.mark.parametrize("stream", [False, True])
def test_parameters_are_sent_under_the_names_of_the_format(
    service: Service, client: httpx.Client, row: Row, stream: bool
) -> None:
    service.answer("Hi", stream=stream)
    model = service.model(client, temperature=0.5, max_tokens=9, stop=["a"], reasoning_effort="low")
    messages = [SystemMessage("s"), HumanMessage("x")]
    list(model.stream(messages)) if stream else model.invoke(messages)
    body = service.bodies[-1]
    if stream:
        assert body.pop("stream") is True
    assert body == BODIES[row.format]


def test_arguments_of_a_call_have_priority_and_unknown_fields_are_sent(
    service: Service, client: httpx.Client
) -> None:
    service.answer("Hi")
    service.model(client, temperature=0.1).invoke(
        "x", temperature=0.9, brand_new=1, extra_body={"metadata": {"user_id": "u"}}
    )
    body = service.bodies[-1]
    assert (body["temperature"], body["brand_new"]) == (0.9, 1)
    assert body["metadata"] == {"user_id": "u"}


def test_messages_always_has_a_token_limit_with_room_for_thinking() -> None:
    service = Service(MESSAGES)
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        for thinking, limit in ((None, 16384), (2000, 18384)):
            service.answer("Hi")
            budget = {"type": "enabled", "budget_tokens": thinking} if thinking else None
            service.model(client, thinking=budget).invoke("x")
            assert service.bodies[-1]["max_tokens"] == limit


# Tools

DESCRIPTION = "Open the valve of a bed."
PARAMETERS = {"properties": {"bed": {"type": "integer"}}, "required": ["bed"], "type": "object"}
TOOLS: dict[str, Any] = {
    "chat/completions": {
        "type": "function",
        "function": {"name": "open_valve", "description": DESCRIPTION, "parameters": PARAMETERS},
    },
    "responses": {
        "type": "function",
        "name": "open_valve",
        "description": DESCRIPTION,
        "parameters": PARAMETERS,
    },
    "messages": {
        "name": "open_valve",
        "description": DESCRIPTION,
        "input_schema": PARAMETERS,
        "cache_control": {"type": "ephemeral"},
    },
}
CHOICES: dict[str, dict[str, Any]] = {
    "any": {"chat/completions": "required", "responses": "required", "messages": {"type": "any"}},
    "auto": {"chat/completions": "auto", "responses": "auto", "messages": {"type": "auto"}},
    "none": {"chat/completions": "none", "responses": "none", "messages": {"type": "none"}},
    "open_valve": {
        "chat/completions": {"type": "function", "function": {"name": "open_valve"}},
        "responses": {"type": "function", "name": "open_valve"},
        "messages": {"type": "tool", "name": "open_valve"},
    },
}


@pytest.mark.parametrize("choice", CHOICES)
def test_tools_and_tool_choice_are_sent_as_the_format_defines_them(
    service: Service, client: httpx.Client, row: Row, choice: str
) -> None:
    service.answer(ModelAnswer(calls=(("open_valve", {"bed": 4}),)))
    service.model(client).bind_tools([open_valve], tool_choice=choice).invoke("x")
    body = service.bodies[-1]
    assert body["tools"] == [TOOLS[row.format]]
    assert body["tool_choice"] == CHOICES[choice][row.format]


def _unknown_argument(bed: "Unknown") -> str:  # type: ignore[name-defined] # noqa: F821 - tested
    """Open the valve of a bed."""
    return str(bed)


def _unknown_result(bed: int) -> "Unknown":  # type: ignore[name-defined] # noqa: F821 - tested
    """Open the valve of a bed."""
    return bed


class _UnknownField(BaseModel):
    bed: "Unknown"  # type: ignore[name-defined] # noqa: F821 - tested


class _Plain:
    """No schema describes it."""

    def __call__(self, bed: int) -> str:
        return str(bed)


def _takes_plain(bed: _Plain) -> str:
    """Open the valve of a bed."""
    return str(bed)


class _UnknownInTool(BaseTool):
    name: str = "valve"
    description: str = "Open the valve of a bed."

    def _run(self, bed: "Unknown") -> str:  # type: ignore[name-defined] # noqa: F821 - tested
        return str(bed)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (_unknown_argument, "`_unknown_argument`.*'Unknown' is not defined"),
        (_unknown_result, "`_unknown_result`.*'Unknown' is not defined"),
        (_UnknownField, "`_UnknownField`.*should define `Unknown`"),
        (_UnknownInTool(), "`valve`.*'Unknown' is not defined"),
        (_takes_plain, "`_takes_plain`.*JSON Schema"),
        (int, "`int`"),
        (_Plain(), "got a value of type `_Plain`"),
        (partial(_unknown_result, 1), "got a value of type `partial`"),
        (Valve(bed=1), "got a value of type `Valve`"),
        ("valve", "got the text 'valve'"),
        (None, "got a value of type `NoneType`"),
        (7, "got a value of type `int`"),
        ([Valve], "got a value of type `list`"),
        ({}, "got a value of type `dict`"),
        ({"type": "object", "properties": {}}, "got a value of type `dict`"),
        ({"toolSpec": {"name": "f"}}, "got a value of type `dict`"),
    ],
)
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_an_object_that_cannot_be_a_tool_is_named(row: Row, given: Any, expected: str) -> None:
    model = row.make(api_key="sq-test")
    with pytest.raises(UsageError, match=rf"(?s)`tools\[1\]`.*{expected}"):
        model.bind_tools([open_valve, given])
    if given is not None:
        with pytest.raises(UsageError, match=f"(?s)`schema`.*{expected}"):
            model.with_structured_output(given)


@pytest.mark.parametrize("tools", [Valve, open_valve, "valve", {"name": "valve"}, 7, None])
def test_a_single_tool_instead_of_a_list_is_refused(tools: Any) -> None:
    with pytest.raises(UsageError, match="must be a list of tools"):
        CHAT.make(api_key="sq-test").bind_tools(tools)


@pytest.mark.parametrize("native", TOOLS)
def test_a_tool_object_of_any_format_is_accepted(
    service: Service, client: httpx.Client, row: Row, native: str
) -> None:
    service.answer("Hi")
    service.model(client).bind_tools([TOOLS[native]], tool_choice="open_valve").invoke("x")
    [written] = service.bodies[-1]["tools"]
    written.pop("cache_control", None)
    expected = {k: v for k, v in TOOLS[row.format].items() if k != "cache_control"}
    assert written == expected
    assert service.bodies[-1]["tool_choice"] == CHOICES["open_valve"][row.format]


@pytest.mark.parametrize(
    ("row", "native", "choice", "written"),
    [
        (RESPONSES, {"type": "web_search"}, "web_search", {"type": "web_search"}),
        (MESSAGES, {"type": "web_search_20250305", "name": "web_search"}, "web_search",
         {"type": "tool", "name": "web_search"}),
    ],
    ids=["responses", "messages"],
)  # fmt: skip
def test_tools_that_the_service_runs_are_sent_and_can_be_chosen(
    service: Service, client: httpx.Client, native: Any, choice: str, written: Any
) -> None:
    service.answer("Hi")
    service.model(client).bind_tools([native, open_valve], tool_choice=choice).invoke("x")
    assert service.bodies[-1]["tools"][0] == native
    assert service.bodies[-1]["tool_choice"] == written
    with pytest.raises(UsageError, match="open_valve"):
        service.model(client).bind_tools([native, open_valve], tool_choice="close_valve")


def test_only_known_extras_are_sent_and_a_provider_definition_replaces_the_tool() -> None:
    service = Service(MESSAGES)
    definition = {"type": "memory_20250818", "name": "memory"}
    strange = open_valve.model_copy(update={"extras": {"foo": 1, "defer_loading": True}})
    served = open_valve.model_copy(update={"extras": {"provider_tool_definition": definition}})
    service.answer("Hi")
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        service.model(client).bind_tools([strange, served]).invoke("x", stop_sequences=["b"])
    body = service.bodies[-1]
    assert body["tools"][1] == definition
    assert body["tools"][0].keys() == {"name", "description", "input_schema", "defer_loading"}
    assert body["stop_sequences"] == ["b"]


def test_parallel_tool_calls_are_disabled_as_the_format_defines_it(
    service: Service, client: httpx.Client, row: Row
) -> None:
    service.answer("Hi")
    service.model(client).bind_tools([open_valve], parallel_tool_calls=False).invoke("x")
    body = service.bodies[-1]
    if row is MESSAGES:
        assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    else:
        assert body["parallel_tool_calls"] is False


# Structured output


def test_structured_output_sends_the_schema_as_the_format_defines_it(
    service: Service, client: httpx.Client, row: Row
) -> None:
    service.answer('{"bed": 4}')
    assert service.model(client).with_structured_output(Valve).invoke("x") == Valve(bed=4)
    body = service.bodies[-1]
    if row is CHAT:
        schema = body["response_format"]["json_schema"]["schema"]
    elif row is RESPONSES:
        assert body["text"]["format"]["name"] == "Valve"
        schema = body["text"]["format"]["schema"]
    else:
        schema = body["output_config"]["format"]["schema"]
        assert schema["additionalProperties"] is False
    bound = "minimum" in schema["properties"]["bed"]
    assert bound is (row is not MESSAGES)
    assert "Which bed" in schema["properties"]["bed"]["description"]


def test_a_response_format_can_be_bound_together_with_tools(
    service: Service, client: httpx.Client, row: Row
) -> None:
    service.answer("{}")
    bound = service.model(client).bind_tools([open_valve], response_format=Valve)
    bound.invoke("x")
    places = {
        "chat/completions": "response_format",
        "responses": "text",
        "messages": "output_config",
    }
    assert places[row.format] in service.bodies[-1]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_can_be_combined_with_tools(
    service: Service, client: httpx.Client, row: Row, method: Any
) -> None:
    del row
    service.answer(
        ModelAnswer(calls=(("Valve", {"bed": 4}),)) if method != "json_schema" else '{"bed": 4}'
    )
    shaped = service.model(client).with_structured_output(Valve, method=method, tools=[open_valve])
    assert shaped.invoke("x") == Valve(bed=4)
    assert "open_valve" in str(service.bodies[-1]["tools"])


def test_a_thinking_model_is_asked_for_the_tool_but_not_forced() -> None:
    service = Service(MESSAGES)
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, thinking={"type": "enabled", "budget_tokens": 1024})
        shaped = model.with_structured_output(Valve, method="function_calling")
        service.answer(ModelAnswer(calls=(("Valve", {"bed": 4}),)))
        assert shaped.invoke("x") == Valve(bed=4)
        assert service.bodies[-1]["tool_choice"]["type"] == "auto"
        service.answer("No tool.")
        with pytest.raises(ForcedToolMissing):
            shaped.invoke("x")


def test_messages_refuses_json_mode() -> None:
    service = Service(MESSAGES)
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        with pytest.raises(UsageError, match="json_schema"):
            service.model(client).with_structured_output(None, method="json_mode").invoke("x")
        assert service.requests == []


# Continuing from a reply by its id


def _saver(base_url: str, **kwargs: Any) -> Any:
    return RESPONSES.make(base_url=base_url, use_previous_response_id=True, **kwargs)


def test_only_new_messages_are_sent_when_a_reply_is_continued_by_its_id(
    server: LocalServer,
) -> None:
    sent: list[Any] = []
    with httpx.Client(event_hooks={"request": [lambda r: sent.append(r.read())]}) as client:
        model = _saver(server.base_url, http_client=client).bind_tools([open_valve])
        history: list[Any] = [SystemMessage("Be brief."), HumanMessage("call open_valve for bed 4")]
        called = model.invoke(history)
        [call] = called.tool_calls
        history += [called, ToolMessage("opened 4", tool_call_id=call["id"])]
        answer = model.invoke(history)
        assert "opened 4" in answer.text
        assert b"Be brief" not in sent[-1]
        assert called.response_metadata["id"].encode() in sent[-1]
        history += [answer, HumanMessage("Hello there")]
        last = model.invoke(history)
        assert b"opened 4" not in sent[-1]
    ids = {m.response_metadata["sequrity"]["session_id"] for m in (called, answer, last)}
    assert len(ids) == 1
    session = find(server.sessions, ids.pop())
    assert session is not None
    stored = session.messages
    assert [message.type for message in stored] == [
        "system",
        "human",
        "ai",
        "tool",
        "ai",
        "human",
        "ai",
    ]


def test_a_reply_of_another_key_or_an_expired_session_is_not_continued(
    server: LocalServer,
) -> None:
    first = _saver(server.base_url).invoke("Hello")
    history = [HumanMessage("Hello"), first, HumanMessage("Again")]
    other = _saver(server.base_url, api_key="sq-other").invoke(history)
    assert "Again" in other.text  # the whole conversation was sent, in a new session
    session = first.response_metadata["sequrity"]["session_id"]
    remove(server.sessions, session)
    with pytest.raises(SessionExpired):
        _saver(server.base_url).invoke(history)
    again = _saver(server.base_url, on_session_expired="restart").invoke(history)
    assert again.response_metadata["sequrity"]["session_id"] != session
    afresh = _saver(server.base_url).invoke(history, session_id="new")
    assert afresh.text == again.text


NAMED = "resp_of_the_caller"
NAMINGS: dict[str, Callable[[Any], Any]] = {
    "bound": lambda model: model.bind(previous_response_id=NAMED),
    "bound in extra_body": lambda model: model.bind(extra_body={"previous_response_id": NAMED}),
    "extra_body of the model": lambda model: model.model_copy(
        update={"extra_body": {"previous_response_id": NAMED}}
    ),
    "model_kwargs": lambda model: model.model_copy(
        update={"model_kwargs": {"previous_response_id": NAMED}}
    ),
}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("naming", NAMINGS)
def test_a_reply_that_the_caller_names_is_continued_with_all_given_messages(
    naming: str, is_streamed: bool
) -> None:
    service = Service(RESPONSES)
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, use_previous_response_id=True)
        service.answer("One")
        first = model.invoke("Hello")
        history = [HumanMessage("Hello"), first, HumanMessage("Again")]
        own_id = first.response_metadata["id"]
        for asked, reply_id, is_whole in (
            (model, own_id, False),
            (NAMINGS[naming](model), NAMED, True),
        ):
            service.answer("Two", stream=is_streamed)
            reply = added(asked.stream(history)) if is_streamed else asked.invoke(history)
            assert reply.text == "Two"
            body = service.bodies[-1]
            assert body["previous_response_id"] == reply_id
            assert ("Hello" in str(body["input"])) is is_whole
            assert "Again" in str(body["input"])


# Ids of other sessions


def test_ids_of_other_sessions_are_replaced_in_calls_and_in_blocks(
    service: Service, client: httpx.Client
) -> None:
    foreign = f"tc-{OTHER}-0c11d7aa-1a2b-11f1-8e44-0242ac120002"
    args: Any = {"bed": 4}
    own = {"type": "tool_use", "id": foreign, "name": "open_valve", "input": args}
    blocks: list[Any] = [
        own,
        {"type": "non_standard", "value": own},
        {"type": "server_tool_use", "id": foreign, "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": foreign, "content": []},
        {"type": "text", "text": "x", "extras": {"caller": {"tool_id": foreign}}},
        {"type": "function_call", "id": "fc_1", "call_id": foreign, "name": "open_valve", "arguments": "{}"},
        {"type": "tool_call", "id": foreign, "name": "open_valve", "args": args},
    ]  # fmt: skip
    calls: list[Any] = [{"id": foreign, "name": "open_valve", "args": args}]
    for block in blocks:
        for result in (
            ToolMessage("ok", tool_call_id=foreign),
            HumanMessage([{"type": "tool_result", "tool_use_id": foreign, "content": "ok"}]),
            HumanMessage(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": foreign,
                        "content": [{"type": "tool_reference", "tool_use_id": foreign}],
                    }
                ]
            ),
            ChatMessage(
                content=[{"type": "tool_result", "tool_use_id": foreign, "content": "ok"}],
                role="user",
            ),
        ):
            service.answer("Hi")
            said = AIMessage([{"type": "text", "text": "x"}, block], tool_calls=calls)
            service.model(client).invoke([HumanMessage("a"), said, result])
            assert OTHER not in service.requests[-1].content.decode()
            assert "x-session-id" not in service.requests[-1].headers


def test_ids_in_the_arguments_of_a_tool_are_not_replaced(
    service: Service, client: httpx.Client
) -> None:
    named = f"tc-{OTHER}-0c11d7aa-1a2b-11f1-8e44-0242ac120002"
    calls: list[Any] = [{"id": "c1", "name": "look_up", "args": {"id": named}}]
    service.answer("Hi")
    said = AIMessage("", tool_calls=calls)
    service.model(client).invoke([HumanMessage("a"), said, ToolMessage("ok", tool_call_id="c1")])
    assert named in service.requests[-1].content.decode()


def test_a_turn_with_tool_results_in_a_user_message_is_not_retried() -> None:
    service = Service(MESSAGES)
    service.replies = [httpx.Response(503), httpx.Response(503)]
    block = {"type": "tool_result", "tool_use_id": "c1", "content": "ok"}
    result = HumanMessage([{"type": "non_standard", "value": block}])
    said = AIMessage("", tool_calls=[{"id": "c1", "name": "f", "args": {}}])
    with (
        httpx.Client(transport=httpx.MockTransport(service)) as client,
        pytest.raises(Overloaded),
    ):
        service.model(client, max_retries=2).invoke([HumanMessage("a"), said, result])
    assert len(service.requests) == 1


# Errors


def test_a_stream_that_is_cut_short_raises_stream_interrupted_after_its_pieces(
    service: Service, client: httpx.Client
) -> None:
    text = "Hello there, and a bit more"
    service.answer(text, stream=True)
    whole = service.replies.pop()
    cut = httpx.Response(
        200, headers=whole.headers, content=whole.content[: len(whole.content) // 2]
    )
    service.replies.append(cut)
    model = service.model(client, features=SINGLE)
    seen: list[str] = []
    with pytest.raises(StreamInterrupted):
        seen.extend(chunk.text for chunk in model.stream("x"))
    assert "Hello" in "".join(seen)
    assert text.startswith("".join(seen))


def test_a_service_that_does_not_stream_can_still_be_read(
    service: Service, client: httpx.Client
) -> None:
    service.answer(ModelAnswer(text="Hello there", calls=(CALL,)))
    total = added(service.model(client).bind_tools([open_valve]).stream("x"))
    assert total.text == "Hello there"
    assert [(c["name"], c["args"]) for c in total.tool_calls] == [CALL]


def test_an_unknown_session_raises_session_expired(row: Row, base_url: str) -> None:
    model = row.make(base_url=base_url)
    with pytest.raises(SessionExpired):
        model.invoke("x", session_id=SESSION)
    with pytest.raises(NotFound):
        row.make(base_url=f"{base_url}/nowhere").invoke("x")


# Copies and serialization


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_a_model_of_each_format_survives_pickling_and_dumps(
    row: Row, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQURITY_API_KEY", "sq-secret")
    model = row.make(base_url=base_url, max_tokens=9)
    copied = pickle.loads(pickle.dumps(model))
    loaded = load(
        json.loads(dumps(model)),
        allowed_objects=[ChatSequrity, SequrityMessages],
        valid_namespaces=["langchain_sequrity"],
        secrets_from_env=True,
    )
    for again in (copied, loaded):
        assert type(again) is type(model)
        assert again._identifying_params == model._identifying_params
        assert again.invoke("Hello").response_metadata["model_name"] == "any/model"
    assert "sq-secret" not in dumps(model) + repr(model)
    assert {m.invoke("x").response_metadata["model_provider"] for m in (model, copied)} == {
        "anthropic" if row is MESSAGES else "sequrity"
    }


def test_changing_the_format_of_a_model_changes_its_path(base_url: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    first = model.invoke("Hello")
    changed = model.model_copy(update={"use_responses_api": True})
    second = changed.invoke([HumanMessage("Hello"), first, HumanMessage("Again")])
    assert second.response_metadata["status"] == "completed"
    assert (
        second.response_metadata["sequrity"]["session_id"]
        != first.response_metadata["sequrity"]["session_id"]
    )


def _calls_of(action: Callable[[], object]) -> int:
    """The number of Python and C functions that an action calls."""
    calls = 0

    def count(_frame: object, event: str, _function: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("features", [None, {"agent_arch": "single-llm"}])
def test_the_number_of_steps_does_not_grow_with_the_length_of_an_answer(
    service: Service, client: httpx.Client, features: Any
) -> None:
    model = service.model(client, features=features)
    counts = []
    for text in ("Hi", "Hi", "word " * 20_000):
        service.answer(text)
        counts.append(_calls_of(lambda: model.invoke("Hi")))
    assert counts[2] < counts[1] + 500  # of httpx, which reads the body in pieces
