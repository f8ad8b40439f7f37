"""Policy generation on the wire: each variant in both directions, and the documented samples."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sequrity.control.types.policy_gen import (  # type: ignore[import-untyped] # the package has no type information
    PolicyGenRequest,
    PolicyGenResponse,
)

from langchain_sequrity.errors import BadReply, InvalidRequest, RateLimited, UsageError
from langchain_sequrity.wire.policy_generation import (
    PolicyReply,
    PolicyRequest,
    Variant,
    read_reply,
    read_request,
    variant_of,
    variants_at,
    write_reply,
    write_request,
)
from langchain_sequrity.wire.routes import POLICY_PROVIDERS, policy_route

SCHEMA = {
    "type": "object",
    "properties": {"bed": {"type": "integer"}, "seconds": {"type": "integer"}},
    "required": ["bed", "seconds"],
}
NESTED = {"type": "function", "function": {"name": "open_valve", "parameters": SCHEMA}}
FLAT = {"type": "function", "name": "open_valve", "parameters": SCHEMA}
ANTHROPIC = {"name": "open_valve", "input_schema": SCHEMA}
WRITTEN: list[tuple[Variant, dict[str, Any]]] = [
    ("oai_chat_completion", NESTED),
    ("openrouter_chat_completion", NESTED),
    ("anthropic_messages", ANTHROPIC),
    ("sequrity_azure_chat_completion", NESTED),
    ("sequrity_azure_responses", FLAT),
]
VARIANTS = [variant for variant, _ in WRITTEN]
# The documented samples.
REQUEST = {
    "type": "oai_chat_completion",
    "model": "vendor/policy-writer",
    "description": "Valves may be opened for at most one minute, and never on beds marked as protected.",
    "policy_lang": "sqrt",
    "n_retries": 2,
    "internal_tool_names": ["parse_with_ai"],
    "tools": [NESTED],
}
POLICY = 'tool "open_valve" {\n    must deny when not seconds.value in {int 0..60};\n    should allow always;\n}\n'
REPLY = {
    "policies": POLICY,
    "usage": {"prompt_tokens": 900, "completion_tokens": 120, "total_tokens": 1020},
}
VENDOR = TypeAdapter(PolicyGenRequest)

functions = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
        "parameters": st.just(SCHEMA) | st.just({"type": "object", "properties": {}}),
    },
    optional={"description": st.text(min_size=1, max_size=20)},
)
tool_lists = st.lists(functions, max_size=4, unique_by=lambda function: str(function["name"])).map(
    lambda found: [{"type": "function", "function": one} for one in found]
)
requests = st.builds(
    PolicyRequest,
    variant=st.sampled_from(VARIANTS),
    model=st.text(max_size=10),
    description=st.text(max_size=40),
    tools=tool_lists,
    n_retries=st.integers(0, 50),
    internal_tool_names=st.lists(
        st.sampled_from(["parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn"])
    ).map(tuple),
)


def minimal(**fields: Any) -> dict[str, Any]:
    return {"type": "oai_chat_completion", "model": "m", "description": "d", **fields}


# Requests


def test_the_documented_request_is_read_and_written() -> None:
    request = read_request(REQUEST)
    assert request == PolicyRequest(
        variant="oai_chat_completion",
        model="vendor/policy-writer",
        description=str(REQUEST["description"]),
        tools=[NESTED],
        n_retries=2,
        internal_tool_names=("parse_with_ai",),
    )
    assert write_request(request) == REQUEST


@given(requests)
def test_a_written_request_is_read_as_the_same_request(request: PolicyRequest) -> None:
    assert read_request(write_request(request)) == request


@given(requests)
def test_the_vendors_types_accept_our_requests_and_we_read_theirs(
    request: PolicyRequest,
) -> None:
    theirs = VENDOR.validate_python(write_request(request))
    assert read_request(theirs.model_dump(exclude_none=True)) == request


@pytest.mark.parametrize(("variant", "written"), WRITTEN)
@pytest.mark.parametrize("tool", [NESTED, FLAT, ANTHROPIC], ids=["nested", "flat", "anthropic"])
def test_tools_of_any_format_are_written_in_the_format_of_the_variant(
    variant: Variant, written: dict[str, Any], tool: dict[str, Any]
) -> None:
    body = write_request(PolicyRequest(variant, "m", "d", [tool]))
    assert body["tools"] == [written]
    assert read_request(body).tools == [NESTED]


def test_a_request_has_the_documented_defaults() -> None:
    request = read_request(minimal())
    assert (request.tools, request.n_retries, request.internal_tool_names) == ([], 3, ())


def test_tools_that_the_service_runs_itself_are_skipped() -> None:
    tools = [{"type": "web_search"}, FLAT]
    request = read_request(minimal(type="sequrity_azure_responses", tools=tools))
    assert request.tools == [NESTED]


WRONG: list[tuple[Any, tuple[str, ...]]] = [
    ([], ("body", "an object", "a list")),
    ({"type": "oai_chat_completion", "description": "d"}, ("model", "a valid string")),
    ({"type": "oai_chat_completion", "model": "m"}, ("description", "a valid string")),
    ({"model": "m", "description": "d"}, ("type", "`anthropic_messages`")),
    (minimal(type="oai"), ("type", "`sequrity_azure_responses`", "'oai'")),
    (minimal(type=["oai"]), ("type", "`sequrity_azure_responses`")),
    (minimal(type="oai_responses"), ("type", "`oai_responses` is not supported yet")),
    (minimal(temperature=1), ("temperature", "`n_retries`")),
    (minimal(policy_lang="cedar"), ("policy_lang", "`sqrt`", "cedar")),
    (minimal(n_retries=-1), ("n_retries", "greater than or equal to 0", "-1")),
    (minimal(n_retries=True), ("n_retries", "integer", "true")),
    (minimal(n_retries="3"), ("n_retries", "a valid integer")),
    (minimal(internal_tool_names="set_policy"), ("internal_tool_names", "an array")),
    (minimal(internal_tool_names=["set_policies"]), ("internal_tool_names", "`set_policy`")),
    (minimal(internal_tool_names=[[]]), ("internal_tool_names.0", "a valid string")),
    (minimal(tools={}), ("tools", "an array")),
    (minimal(tools=[{"type": "function", "function": {"name": "x", "parameters": {"properties": 3}}}]), ("tools.0.parameters", "an object as `properties`")),
    (minimal(tools=[{"type": "function", "function": {"name": "x", "description": 3}}]), ("tools.0.description", "a valid string")),
    (minimal(type="anthropic_messages", tools=[{"name": "x", "input_schema": {"properties": None}}]), ("tools.0.parameters", "an object as `properties`")),
    (minimal(tools=[ANTHROPIC]), ("tools.0.type", "`function`")),
    (minimal(type="anthropic_messages", tools=[NESTED]), ("tools.0.name", "a valid string")),
    (minimal(type="anthropic_messages", tools=[FLAT]), ("tools.0.type", "`custom`", "function")),
    (minimal(type="anthropic_messages", tools=[ANTHROPIC, FLAT]), ("tools.1.type", "`custom`", "function")),
    (minimal(type="anthropic_messages", tools=[{"name": "x"}]), ("tools.0.input_schema",)),
    (minimal(type="sequrity_azure_responses", tools=[ANTHROPIC]), ("tools.0.type", "`function`")),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), WRONG)
def test_a_malformed_request_is_422_with_what_was_expected(
    body: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_request(body)
    assert caught.value.status == 422
    assert all(word in str(caught.value) for word in words), caught.value


def test_two_tools_of_one_name_are_400() -> None:
    with pytest.raises(InvalidRequest, match="two tools named `open_valve`") as caught:
        read_request(minimal(tools=[NESTED, NESTED]))
    assert caught.value.status == 400


def test_a_tool_that_the_service_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`set_policies` is not a tool.*`set_policy`"):
        write_request(PolicyRequest(VARIANTS[0], "m", "d", internal_tool_names=("set_policies",)))


# Replies


def test_the_documented_reply_is_read_and_written() -> None:
    reply = read_reply(REPLY)
    assert reply == PolicyReply(POLICY, REPLY["usage"])  # type: ignore[arg-type] # a dict of ints
    assert write_reply(reply) == REPLY
    assert PolicyGenResponse.model_validate(write_reply(reply)).policies == POLICY


def test_further_fields_of_a_reply_are_ignored() -> None:
    usage = {"total_tokens": 3, "details": {"cached": 1}, "cost": 0.1, "exact": True, "none": None}
    reply = read_reply({"policies": "", "usage": usage, "id": "x", "warnings": ["y"]})
    assert reply == PolicyReply("", {"total_tokens": 3})
    assert read_reply({"policies": POLICY}).usage == {}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "tool",
        {},
        {"policies": None},
        {"policies": ["x"], "usage": {}},
        {"policies": "", "usage": 3},
    ],
)
def test_a_malformed_reply_is_a_bad_reply(body: Any) -> None:
    with pytest.raises(BadReply, match="a policy with `policies`"):
        read_reply(body)


def test_an_error_object_in_a_reply_is_raised() -> None:
    with pytest.raises(RateLimited, match="Slow down"):
        read_reply({"error": {"message": "Slow down", "code": 429}})


# Variants and paths


@pytest.mark.parametrize(
    ("provider", "responses", "variant"),
    [
        (None, False, "openrouter_chat_completion"),
        ("openai", False, "oai_chat_completion"),
        ("openrouter", False, "openrouter_chat_completion"),
        ("anthropic", False, "anthropic_messages"),
        ("sequrity_azure", False, "sequrity_azure_chat_completion"),
        ("sequrity_azure", True, "sequrity_azure_responses"),
    ],
)
def test_a_provider_has_a_variant(provider: str | None, responses: bool, variant: Variant) -> None:
    assert variant_of(provider, responses=responses) == variant


@pytest.mark.parametrize("provider", [None, "openai", "openrouter", "anthropic"])
def test_only_one_provider_accepts_tools_in_the_form_of_responses(provider: str | None) -> None:
    with pytest.raises(UsageError, match="Use `sequrity_azure`"):
        variant_of(provider, responses=True)


@pytest.mark.parametrize("find", [variant_of, policy_route])
def test_the_refusal_of_an_unknown_provider_names_the_known_ones(find: Any) -> None:
    with pytest.raises(UsageError, match=r"`llama`.* None, openai, openrouter, anthropic"):
        find("llama")


@pytest.mark.parametrize("provider", POLICY_PROVIDERS)
def test_every_path_has_a_variant(provider: Any) -> None:
    segment = f"/{provider}" if provider else ""
    assert policy_route(provider).path == f"/control/policy-gen{segment}/v1/generate"
    assert variant_of(provider) in variants_at(provider)
