"""What clients of a format send besides a conversation, with the SDKs of both vendors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.local.clients.answers import Target, openai_tool
from tests.local.clients.gateway import DENIED, Running, gateway

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
SAID = "You said: Hello there"
# Fields that OpenAI's API documents and that have no effect here.
CHAT_FIELDS: dict[str, Any] = {
    "store": True, "metadata": {"a": "b"}, "user": "u", "service_tier": "auto", "verbosity": "low",
    "prompt_cache_key": "k", "safety_identifier": "s", "modalities": ["text"], "logit_bias": {},
    "prediction": {"type": "content", "content": "x"}, "reasoning_effort": "low",
    "web_search_options": {}, "presence_penalty": 0, "seed": 1, "parallel_tool_calls": True,
}  # fmt: skip
RESPONSES_FIELDS: dict[str, Any] = {
    "include": ["reasoning.encrypted_content"], "metadata": {"a": "b"}, "service_tier": "auto",
    "prompt_cache_key": "k", "safety_identifier": "s", "truncation": "auto", "user": "u",
    "text": {"verbosity": "low"}, "reasoning": {"effort": "low", "summary": "auto"},
    "top_logprobs": 2,
}  # fmt: skip
MESSAGES_FIELDS: dict[str, Any] = {
    "metadata": {"user_id": "u"}, "service_tier": "auto", "top_k": 5, "temperature": 0.5,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
}  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with gateway(tmp_path) as made:
        yield made


@pytest.fixture(params=["single-llm", "dual-llm"])
def target(running: Running, request: pytest.FixtureRequest) -> Target:
    return running.target(request.param)


@pytest.fixture
def sdk(target: Target) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{target.openai}/",
        api_key=target.key,
        organization="org-1",
        project="proj-1",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


@pytest.fixture
def claude(target: Target) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=f"{target.anthropic}/",
        api_key=target.key,
        default_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


@pytest.mark.parametrize("field", CHAT_FIELDS)
def test_fields_of_chat_completions_without_effect_are_accepted(
    sdk: openai.OpenAI, field: str
) -> None:
    request: Any = {"model": "assistant", "messages": HELLO, field: CHAT_FIELDS[field]}
    assert sdk.chat.completions.create(**request).choices[0].message.content == SAID


@pytest.mark.parametrize("field", RESPONSES_FIELDS)
def test_fields_of_responses_without_effect_are_accepted(sdk: openai.OpenAI, field: str) -> None:
    request: Any = {"model": "assistant", "input": HELLO, field: RESPONSES_FIELDS[field]}
    assert sdk.responses.create(**request).output_text == SAID


@pytest.mark.parametrize("field", MESSAGES_FIELDS)
def test_fields_of_messages_without_effect_are_accepted(
    claude: anthropic.Anthropic, field: str
) -> None:
    request: Any = {"model": "assistant", "messages": HELLO, "max_tokens": 9}
    reply: Any = claude.messages.create(**request, extra_body={field: MESSAGES_FIELDS[field]})
    assert reply.content[0].text == SAID


def test_the_beta_client_of_anthropic_works_and_counts_tokens(claude: anthropic.Anthropic) -> None:
    reply: Any = claude.beta.messages.create(model="assistant", messages=HELLO, max_tokens=9)
    assert reply.content[0].text == SAID
    assert claude.messages.count_tokens(model="assistant", messages=HELLO).input_tokens > 0


def test_both_sdks_list_the_models_of_the_key(
    sdk: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    assert [model.id for model in sdk.models.list()] == ["assistant"]
    assert [model.id for model in claude.models.list()] == ["assistant"]
    assert sdk.models.retrieve("assistant").id == "assistant"


def test_clients_of_anthropics_format_may_send_the_key_as_x_api_key(target: Target) -> None:
    body = {"model": "assistant", "max_tokens": 9, "messages": HELLO}
    url, key = f"{target.anthropic}/v1", {"X-Api-Key": target.key}
    with httpx.Client(trust_env=False) as http:
        assert http.post(f"{url}/messages", json=body, headers=key).status_code == 200
        counted = http.post(f"{url}/messages/count_tokens", json=body, headers=key)
        assert counted.status_code == 200
        assert http.get(f"{url}/models", headers=key).status_code == 200
        # In the other formats it is the key of a provider, and so it is beside `Authorization`.
        assert http.post(f"{url}/chat/completions", json=body, headers=key).status_code == 401
        both = {**key, "Authorization": "Bearer sq-wrong"}
        assert http.post(f"{url}/messages", json=body, headers=both).status_code == 401
        wrong = http.post(f"{url}/messages", json=body, headers={"X-Api-Key": "sq-wrong"})
        assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authentication_error")


def test_a_user_may_speak_twice_in_messages(claude: anthropic.Anthropic) -> None:
    twice: Any = [{"role": "user", "content": "First"}, *HELLO]
    reply: Any = claude.messages.create(model="assistant", messages=twice, max_tokens=99)
    assert "Hello there" in reply.content[0].text


def test_a_request_to_look_at_options_gets_an_error_and_no_permission(target: Target) -> None:
    with httpx.Client(trust_env=False) as http:
        reply = http.options(
            f"{target.openai}/chat/completions",
            headers={"Origin": "https://example.com", "Access-Control-Request-Method": "POST"},
        )
        assert reply.status_code == 405
        assert not [name for name in reply.headers if name.startswith("access-control")]
        head = http.head(f"{target.openai}/models", headers={"Authorization": "Bearer sq-wrong"})
        assert (head.status_code, head.content) == (401, b"")


def test_without_the_settings_of_the_page_a_dual_llm_denial_is_an_object_that_says_so(
    running: Running,
) -> None:
    target = running.target("dual-llm")
    whole = {"X-Config": '{"response_format": {"strip_response_content": false}}'}
    pays: list[Any] = [{"role": "user", "content": "pay amount=500"}]
    tools: list[Any] = [openai_tool("pay")]
    with openai.OpenAI(base_url=target.openai, api_key=target.key, default_headers=whole) as sdk:
        reply = sdk.chat.completions.create(model="assistant", messages=pays, tools=tools)
    outcome = json.loads(reply.choices[0].message.content or "")
    assert (outcome["status"], outcome["final_return_value"]) == ("failure", None)
    assert DENIED in outcome["error"]["message"]


# References to items, which clients send if replies are stored (the default)


def reference(reply: Any) -> Any:
    return {"type": "item_reference", "id": reply.output[-1].id}


def test_a_reference_stands_for_the_item_and_names_its_session(
    running: Running, sdk: openai.OpenAI
) -> None:
    first = sdk.responses.create(model="assistant", input="Hello there")
    items = [*HELLO, reference(first), {"role": "user", "content": "And now?"}]
    second = sdk.responses.create(model="assistant", input=items)
    assert second.output_text == "You said: And now?"
    assert len(running.sessions) == 1
    items += [reference(second), {"role": "user", "content": "Hello again"}]
    assert sdk.responses.create(model="assistant", input=items).output_text.endswith("Hello again")


def test_a_reply_is_referred_to_once_which_bounds_the_memory_of_a_request(
    sdk: openai.OpenAI,
) -> None:
    first = sdk.responses.create(model="assistant", input="Hello there")
    again = [{"role": "user", "content": "And now?"}, reference(first)] * 2
    with pytest.raises(openai.NotFoundError, match="comes twice"):
        sdk.responses.create(model="assistant", input=[*again, *HELLO])
    several = [*HELLO, reference(first), reference(first), *HELLO]  # of items of one reply
    assert sdk.responses.create(model="assistant", input=several).output_text == SAID


def test_an_unknown_reference_is_404(sdk: openai.OpenAI) -> None:
    unstored = sdk.responses.create(model="assistant", input="Hello there", store=False)
    stored = sdk.responses.create(model="assistant", input="Hello there")
    other = {**reference(stored), "id": f"msg_{'0' * 50}"}
    for unknown in (reference(unstored), other, {**other, "id": "msg_1"}):
        items = [*HELLO, unknown, *HELLO]
        with pytest.raises(openai.NotFoundError, match="unknown"):
            sdk.responses.create(model="assistant", input=items)
    # Another key has no part in it.
    with (
        openai.OpenAI(
            base_url=sdk.base_url,
            api_key={"sq-single-llm": "sq-dual-llm"}.get(sdk.api_key, "sq-single-llm"),
            max_retries=0,
        ) as stranger,
        pytest.raises(openai.NotFoundError, match="unknown"),
    ):
        stranger.responses.create(model="assistant", input=[*HELLO, reference(stored), *HELLO])
