"""The request: address, variant, tools and headers, for all ways to make the tool."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import orjson
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from langchain_sequrity import ChatSequrity, PolicyHeader, SequrityMessages
from langchain_sequrity.errors import RateLimited, UsageError
from langchain_sequrity.policy_generation import PolicyGenTool
from tests.policy_generation.conftest import Generate
from tests.policy_generation.service import POLICY, USAGE, Service, read_page, send_mail
from tests.transport.transport_helpers import RawServer, http, says

Make = Callable[..., Any]
RESPONSES = {"use_responses_api": True}


# The model decides variant and address

ROWS: list[tuple[Any, dict[str, Any], str, str]] = [
    (ChatSequrity, {}, "openrouter_chat_completion", "policy-gen/v1"),
    (ChatSequrity, {"provider": "openai"}, "oai_chat_completion", "policy-gen/openai/v1"),
    (ChatSequrity, {"provider": "openrouter"}, "openrouter_chat_completion", "policy-gen/openrouter/v1"),
    (ChatSequrity, {"provider": "sequrity_azure"}, "sequrity_azure_chat_completion", "policy-gen/sequrity_azure/v1"),
    (ChatSequrity, {"provider": "sequrity_azure", **RESPONSES}, "sequrity_azure_responses", "policy-gen/sequrity_azure/v1"),
    (ChatSequrity, {"endpoint_type": "code"}, "openrouter_chat_completion", "policy-gen/v1"),
    (ChatSequrity, {"endpoint_type": "lang-graph"}, "openrouter_chat_completion", "policy-gen/v1"),
    (SequrityMessages, {}, "anthropic_messages", "policy-gen/anthropic/v1"),
    (SequrityMessages, {"provider": "anthropic"}, "anthropic_messages", "policy-gen/anthropic/v1"),
]  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
    "required": ["to", "text"],
}
NESTED = {
    "type": "function",
    "function": {"name": "send_mail", "description": "Send a mail.", "parameters": SCHEMA},
}
FLAT = {
    "type": "function",
    "name": "send_mail",
    "description": "Send a mail.",
    "parameters": SCHEMA,
}
ANTHROPIC = {"name": "send_mail", "description": "Send a mail.", "input_schema": SCHEMA}
WRITTEN = {"anthropic_messages": ANTHROPIC, "sequrity_azure_responses": FLAT}


WAYS = ["model", "bound", "bound with more around", "name"]
GIVEN = [
    (*row, way)
    for row in ROWS
    for way in WAYS
    if way != "name"
    or row[0] is ChatSequrity
    or "provider" in row[1]  # a name means a ChatSequrity
]


@pytest.mark.parametrize(("kind", "options", "variant", "path", "way"), GIVEN)
def test_variant_and_address_depend_on_the_model_in_every_form(
    service: Service, make: Make, kind: Any, options: dict[str, Any], variant: str, path: str, way: str
) -> None:  # fmt: skip
    if way == "name":
        made = make(PolicyGenTool, [send_mail], **options)
    elif way == "model":
        made = PolicyGenTool(make(kind, **options), [send_mail])
    else:
        bound = make(kind, **options).bind_tools([send_mail])
        if way != "bound":
            bound = bound.with_config(tags=["x"]).with_retry().bind(stop=["y"])
        made = PolicyGenTool(bound)
    assert made.generate("Nothing from the web.") == PolicyHeader.from_sqrt(POLICY)
    assert str(service.requests[0].url) == f"https://api.example/control/{path}/generate"
    assert service.bodies == [
        {
            "type": variant,
            "model": "any/model",
            "description": "Nothing from the web.",
            "policy_lang": "sqrt",
            "n_retries": 3,
            "internal_tool_names": [],
            "tools": [WRITTEN.get(variant, NESTED)],
        }
    ]


@pytest.mark.parametrize("provider", [None, "openai"])
def test_a_provider_without_policy_generation_is_refused_with_one_that_has_it(
    make: Make, provider: str | None
) -> None:
    with pytest.raises(UsageError, match="`sequrity_azure`"):
        make(PolicyGenTool, [send_mail], provider=provider, **RESPONSES)


@pytest.mark.parametrize(
    ("given", "sent"), [("planner,worker", "planner"), ("one/model", "one/model")]
)
def test_the_planner_of_a_pair_of_models_writes_the_policy(
    service: Service, make: Make, given: str, sent: str
) -> None:
    model = make().model_copy(update={"model": given})
    PolicyGenTool(model, [send_mail]).generate("x")
    assert service.bodies[0]["model"] == sent


def test_a_model_name_from_bind_is_sent(service: Service, make: Make) -> None:
    bound = make().bind_tools([send_mail]).bind(model="other/model")
    PolicyGenTool(bound).generate("x")
    PolicyGenTool(bound.with_retry().bind(model="outer/model")).generate("x")
    outermost = RunnableBinding(bound=bound, kwargs={"model": "outermost/model"})
    PolicyGenTool(outermost).generate("x")
    assert [body["model"] for body in service.bodies] == [
        "other/model",
        "outer/model",
        "outermost/model",
    ]


def test_retries_and_internal_tools_are_passed_on(service: Service, make: Make) -> None:
    names = ["parse_with_ai", "complete_turn"]
    made = PolicyGenTool(make(), [send_mail], n_retries=0, internal_tool_names=names)
    made.generate("x")
    assert service.bodies[0]["n_retries"] == 0
    assert service.bodies[0]["internal_tool_names"] == names
    service.answer('tool "parse_with_ai" { must deny always; }')
    PolicyGenTool(make(), internal_tool_names=names).generate("x")
    assert service.bodies[1]["tools"] == []


# Tools


class Mail(BaseModel):
    """Send a mail."""

    to: str
    text: str


class MailDict(TypedDict):
    """Send a mail."""

    to: str
    text: str


def sending(to: str, text: str, sender: Annotated[str, InjectedToolArg]) -> str:
    """Send a mail."""
    return f"{sender}, {to}, {text}"


LANGCHAIN_TOOL = tool(send_mail)
NAMED_CLASS = StructuredTool.from_function(func=send_mail, args_schema=Mail)
INJECTED = tool("send_mail")(sending)
KINDS: dict[str, Any] = {
    "a LangChain tool": LANGCHAIN_TOOL,
    "a tool with a class of arguments": NAMED_CLASS,
    "a tool with an injected argument": INJECTED,
    "a function": send_mail,
    "a nested object": NESTED,
    "a flat object": FLAT,
    "an object of Anthropic": {**ANTHROPIC, "cache_control": {"type": "ephemeral"}},
    "a function of OpenAI": NESTED["function"],
    "a JSON Schema": {"title": "send_mail", "description": "Send a mail.", **SCHEMA},
    "a strict tool": {"type": "function", "function": {**FLAT, "strict": True}},
}


@pytest.mark.parametrize("bound", [False, True], ids=["given", "bound"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [ChatSequrity, SequrityMessages])
def test_the_policy_sees_the_same_tool_whatever_form_it_has(
    service: Service, make: Make, model: Any, kind: str, bound: bool
) -> None:
    given = [KINDS[kind]]
    asked = make(model)
    made = PolicyGenTool(asked.bind_tools(given)) if bound else PolicyGenTool(asked, given)
    assert made.tools == [NESTED]
    made.generate("x")
    assert len(service.bodies[0]["tools"]) == 1


@pytest.mark.parametrize("kind", [Mail, MailDict])
def test_a_class_is_a_tool_with_the_name_of_the_class(
    service: Service, make: Make, kind: type
) -> None:
    service.answer(f'tool "{kind.__name__}" {{ must deny when to.value == "x"; }}')
    PolicyGenTool(make(), [kind]).generate("x")
    assert service.bodies[0]["tools"][0]["function"]["name"] == kind.__name__


def test_given_tools_replace_bound_tools(service: Service, make: Make) -> None:
    PolicyGenTool(make().bind_tools([read_page]), [send_mail]).generate("x")
    assert [one["function"]["name"] for one in service.bodies[0]["tools"]] == ["send_mail"]


def test_tools_that_the_service_runs_are_left_out(service: Service, make: Make) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    PolicyGenTool(make(SequrityMessages).bind_tools([search, send_mail])).generate("x")
    assert [one["name"] for one in service.bodies[0]["tools"]] == ["send_mail"]
    with pytest.raises(UsageError, match="No tools are given"):
        PolicyGenTool(make(SequrityMessages), [search])


@pytest.mark.parametrize("give", [
    lambda make: PolicyGenTool(make()),
    lambda make: PolicyGenTool(make(), []),
    lambda make: PolicyGenTool(make().bind(stop=["x"])),
    lambda make: make(PolicyGenTool),
])  # fmt: skip
def test_a_policy_without_tools_is_refused(make: Make, give: Callable[[Make], Any]) -> None:
    with pytest.raises(UsageError, match=r"No tools are given. Pass `tools=\[…\]`"):
        give(make)


@pytest.mark.parametrize(
    "wrong",
    [5, "send_mail", None, {}, {"a": 1}, {"type": "function", "function": {}},
     {"type": "function", "function": {"name": 3}}, {"type": "function", "function": {"name": ""}},
     {"type": "function", "function": {"name": "x", "parameters": 7}},
     {"type": "function", "name": "x", "parameters": []}],
)  # fmt: skip
def test_a_value_that_is_not_a_tool_is_refused_with_its_index(make: Make, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"`tools\[1\]` is not a tool"):
        PolicyGenTool(make(), [send_mail, wrong])


@pytest.mark.parametrize("alone", [send_mail, read_page, NESTED, Mail, "send_mail", 5])
def test_a_single_tool_without_a_list_is_refused(make: Make, alone: Any) -> None:
    with pytest.raises(UsageError, match=r"`tools` must be a list of tools; got .*\[…\]"):
        PolicyGenTool(make(), alone)


# Other refusals


@pytest.mark.parametrize(
    "wrong", [5, None, FakeListChatModel(responses=["x"]), FakeListChatModel(responses=["x"]).bind()]
)  # fmt: skip
def test_a_model_of_another_package_is_refused(wrong: Any) -> None:
    with pytest.raises(
        UsageError, match="`model` must be a `ChatSequrity` or a `SequrityMessages`"
    ):
        PolicyGenTool(wrong, [send_mail])


def test_the_chain_of_structured_output_is_refused_as_a_model(make: Make) -> None:
    with pytest.raises(UsageError, match="got RunnableSequence"):
        PolicyGenTool(make().with_structured_output(Mail), [send_mail])


def test_connection_arguments_are_accepted_only_with_a_model_name(make: Make) -> None:
    with pytest.raises(UsageError, match="`provider` is not an argument of `PolicyGenTool`"):
        PolicyGenTool(make(), [send_mail], provider="openai")
    with pytest.raises(UsageError, match="Did you mean `provider`"):
        make(PolicyGenTool, [send_mail], provder="openai")


@pytest.mark.parametrize("field", ["model", "tools", "n_retries", "internal_tool_names"])
def test_fields_of_the_tool_are_frozen(make: Make, field: str) -> None:
    made = PolicyGenTool(make(), [send_mail])
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, field, getattr(made, field))


@pytest.mark.parametrize(
    ("options", "word"),
    [({"n_retries": -1}, "n_retries"), ({"n_retries": True}, "n_retries"), ({"n_retries": 1.5}, "n_retries"),
     ({"internal_tool_names": ["parse"]}, "`parse` is not a tool of the service"),
     ({"internal_tool_names": "parse_with_ai"}, "internal_tool_names")],
)  # fmt: skip
def test_wrong_options_are_refused(make: Make, options: dict[str, Any], word: str) -> None:
    with pytest.raises((UsageError, ValidationError), match=word):
        PolicyGenTool(make(), [send_mail], **options)


@pytest.mark.parametrize("text", ["", "  \n", "\ud800", None, 5, ["x"]])
def test_a_description_that_is_empty_or_not_a_text_is_refused(
    service: Service, make: Make, generate: Generate, text: Any
) -> None:
    with pytest.raises(UsageError, match=r"[Dd]escription"):
        generate(PolicyGenTool(make(), [send_mail]), text)
    assert service.requests == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_model_reads_the_validation_error_for_an_empty_description(
    service: Service, make: Make, text: str
) -> None:
    made = PolicyGenTool(make(), [send_mail], handle_validation_error=True)
    assert "validation error" in made.invoke({"description": text})
    assert service.requests == []


def test_a_tool_schema_that_is_not_json_is_refused_at_construction(make: Make) -> None:
    class Odd(BaseModel):
        """Odd."""

        number: Annotated[float, Field(json_schema_extra={"default": float("nan")})]

    with pytest.raises(UsageError, match="JSON"):
        PolicyGenTool(make(), [Odd])


# Headers


OWN = {"X-Team": "blue"}
BESIDE = {"policy": 'tool "x" { must deny always; }', "features": {"agent_arch": "dual-llm"},
          "session_config": {"fsm": {"max_n_turns": 3}}}  # fmt: skip


def sent(request: bytes) -> tuple[dict[str, str], Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value for name, value in lines}, orjson.loads(body)


@pytest.mark.parametrize("llm_api_key", [None, "llm-key"])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_only_keys_the_callers_headers_and_http_headers_are_sent(
    generate: Generate, kind: Any, llm_api_key: str | None
) -> None:
    reply = http(json.dumps({"policies": POLICY, "usage": USAGE}).encode())
    with RawServer([says(reply)]).running() as server:
        model = kind("any/model", base_url=server.url, api_key="sq-key", llm_api_key=llm_api_key,
                     default_headers=OWN, **BESIDE)  # fmt: skip
        generate(PolicyGenTool(model, [send_mail]), "x")
        model.close()
    headers, body = sent(server.requests[0])
    expected = {"host", "content-length", "accept-encoding", "idempotency-key", "content-type",
                "user-agent", "authorization", "x-team"}  # fmt: skip
    assert set(headers) == expected | ({"x-api-key"} if llm_api_key else set())
    assert headers["authorization"] == "Bearer sq-key"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("langchain-sequrity/")
    assert headers.get("x-api-key") == llm_api_key
    # The mode is sent as a sentence, because the policy depends on it.
    assert body["description"] == (
        "x\n\nThe policy is for dual-LLM sessions: each argument carries the labels of the data it is "
        "made from."
    )


def test_the_callers_own_x_policy_header_is_not_sent(service: Service, make: Make) -> None:
    text = json.dumps({"codes": {"code": BESIDE["policy"], "language": "sqrt"}})
    PolicyGenTool(make(default_headers={"X-Policy": text, **OWN}), [send_mail]).generate("x")
    headers = service.requests[0].headers
    assert "x-policy" not in headers
    assert headers["x-team"] == "blue"


def test_generating_a_policy_does_not_use_the_session_of_an_earlier_chat(
    generate: Generate,
) -> None:
    """The vendor's asynchronous SDK sends the session of the last chat."""
    chat = json.dumps({"id": "r", "model": "m", "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}]})  # fmt: skip
    answer = http(chat.encode()).replace(b"\r\n\r\n", b"\r\nX-Session-ID: s1\r\n\r\n", 1)
    reply = http(json.dumps({"policies": POLICY, "usage": USAGE}).encode())
    with RawServer([says(answer), says(reply)]).running() as server:
        model = ChatSequrity("any/model", base_url=server.url)
        message = model.invoke("Hi")
        assert message.response_metadata["sequrity"]["session_id"] == "s1"
        generate(PolicyGenTool(model, [send_mail]), "x")
        model.close()
    assert "x-session-id" not in sent(server.requests[1])[0]


# Retries


@pytest.mark.parametrize("first", ["429 Too Many Requests", "503 Unavailable", "500 Failed", "cut"])
def test_a_failed_or_lost_request_is_sent_again(generate: Generate, first: str) -> None:
    reply = http(json.dumps({"policies": POLICY, "usage": USAGE}).encode())
    failed = http(b"{}", first).replace(b"\r\n\r\n", b"\r\nRetry-After: 0\r\n\r\n", 1)
    broken = says(reply[:-9], keep=False) if first == "cut" else says(failed)
    with RawServer([broken, says(reply)]).running() as server:
        model = ChatSequrity("any/model", base_url=server.url)
        assert generate(PolicyGenTool(model, [send_mail]), "x") == PolicyHeader.from_sqrt(POLICY)
        model.close()
    one, two = map(sent, server.requests)
    assert one == two  # including the idempotency key


def test_the_models_max_retries_limits_the_attempts(service: Service, make: Make) -> None:
    service.answer(status=429, body={"detail": "Slow down."})
    with pytest.raises(RateLimited, match="Slow down"):
        PolicyGenTool(make(), [send_mail]).generate("x")
    assert len(service.requests) == 1


def test_a_copy_without_changes_needs_no_constructor(make: Make) -> None:
    class Writer(PolicyGenTool):
        def __init__(self) -> None:
            super().__init__(make(), [send_mail])

    assert Writer().model_copy().tools == [NESTED]
