"""`messages/count_tokens`: the SDK's call, what counts, and what it leaves alone."""

import base64
import json
from itertools import product
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageTokensCount
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import SecretStr

from langchain_sequrity.local import LocalServer, MemorySessions
from langchain_sequrity.wire.routes import COUNT_TOKENS_ROUTES
from tests.local.api import Api, detail
from tests.local.conftest import Serve

PATH = "/control/chat/v1/messages/count_tokens"
HELLO: Any = [{"role": "user", "content": "Hello there"}]
PNG = base64.b64encode(b"\x89PNG").decode()
IMAGE: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
    }
]
CALL: Any = [
    *HELLO,
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "t1", "name": "look_up", "input": {"word": "x"}}],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "forty-two"}],
    },
]
TOOL: Any = {
    "name": "look_up",
    "description": "Look up a word.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"system": "Be brief."},
    {"system": [{"type": "text", "text": "Be brief."}]},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": {"type": "any"}, "system": "Be brief."},
    {"thinking": {"type": "enabled", "budget_tokens": 10_000}},
]


def sdk(server: LocalServer, prefix: str = "/control/chat") -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=server.base_url + prefix,
        api_key="sq-test",
        max_retries=0,
        _strict_response_validation=True,
    )


def test_the_sdk_counts_what_the_message_would_use_and_no_session_begins(serve: Serve) -> None:
    store = MemorySessions()
    server = serve(store=store).server
    with sdk(server) as client:
        counts = {}
        for messages, options in product((HELLO, IMAGE, CALL), OPTIONS):
            count = client.messages.count_tokens(model="m", messages=messages, **options)
            counts[json.dumps([messages, options])] = count.input_tokens
        assert len(store) == 0
        for text, tokens in counts.items():
            messages, options = json.loads(text)
            reply = client.messages.create(
                model="m", messages=messages, max_tokens=20_000, **options
            )
            assert reply.usage.input_tokens == tokens > 0
    assert len(store) == len(counts)


async def test_the_asynchronous_sdk_counts_too(base_url: str) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"{base_url}/control/chat/anthropic", api_key="sq-test"
    ) as client:
        count = await client.messages.count_tokens(model="m", messages=HELLO)
        assert count == MessageTokensCount(input_tokens=count.input_tokens)
        assert count.input_tokens > 0


def test_every_prefix_with_messages_counts_with_a_key(api: Api) -> None:
    for route in COUNT_TOKENS_ROUTES:
        body = {"model": "m", "messages": HELLO}
        assert set(api.post(route.path, json=body).json()) == {"input_tokens"}
        assert api.request("POST", route.path, json=body).status_code == 401


def test_a_chat_model_behind_the_server_counts_with_its_own_counter(server: LocalServer) -> None:
    """The model is a client of another server, which counts the same request."""
    model = ChatAnthropic(
        model_name="claude",
        base_url=f"{server.base_url}/control/chat",
        api_key=SecretStr("sq-test"),
        timeout=None,
        stop=None,
    )
    with LocalServer(model=model) as front, sdk(front) as client, sdk(server) as behind:
        for messages, options in product((HELLO, IMAGE, CALL), OPTIONS[:4]):
            request = {"model": "m", "messages": messages, **options}
            count = client.messages.count_tokens(**request)
            assert count == behind.messages.count_tokens(**request)


class Counter(GenericFakeChatModel):
    """A model with a counter of its own."""

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        return 1000 * len(tools or ()) + len(messages)


class UnfitCounter(GenericFakeChatModel):
    """A model whose package counts only for other models, as `ChatOpenAI`."""

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        raise NotImplementedError


class BrokenCounter(GenericFakeChatModel):
    """A model whose counter fails, with a key in the text."""

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        del messages, tools
        msg = "sk-secret is invalid"
        raise ConnectionError(msg)


def test_the_models_counter_gets_messages_system_and_tools(serve: Serve) -> None:
    tools: Any = [TOOL, {**TOOL, "name": "b"}]
    with sdk(serve(model=Counter(messages=iter([]))).server) as client:
        count = client.messages.count_tokens(
            model="m", messages=CALL, system="Be brief.", tools=tools
        )
    assert count.input_tokens == 2004


@pytest.mark.parametrize(
    "model",
    [
        GenericFakeChatModel(messages=iter([AIMessage("Hi")])),
        UnfitCounter(messages=iter([AIMessage("Hi")])),
    ],
    ids=["no counter", "a counter for other models"],
)
def test_a_model_that_cannot_count_gets_the_estimate(
    serve: Serve, server: LocalServer, model: Any
) -> None:
    request: Any = {"model": "m", "messages": CALL}
    with sdk(serve(model=model).server) as client, sdk(server) as estimating:
        count = client.messages.count_tokens(**request)
        assert count == estimating.messages.count_tokens(**request)


def test_a_counter_that_fails_is_502_without_its_text(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    api = serve(model=BrokenCounter(messages=iter([])))
    reply = api.post(PATH, json={"model": "m", "messages": HELLO})
    assert reply.status_code == 502
    assert "`BrokenCounter`" in detail(reply)
    assert "sk-secret" not in reply.text + caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": "Hi"},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        {"model": None},
        {"system": 7},
        {"tools": [{"name": "a b", "input_schema": {}}]},
        {"tools": [TOOL, TOOL]},
        {"tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}},
        {"max_tokens": 0},
        {"thinking": {"type": "enabled", "budget_tokens": 1}},
    ],
    ids=str,
)
def test_a_body_is_refused_as_a_message_is(api: Api, change: dict[str, Any]) -> None:
    body = {"model": "m", "messages": HELLO, **change}
    reply = api.post(PATH, json=body)
    message = api.post("/control/chat/v1/messages", json={"max_tokens": 20_000, **body})
    assert reply.status_code == message.status_code >= 400
    assert detail(reply) == detail(message)


def test_a_list_and_broken_json_are_refused(api: Api) -> None:
    assert api.post(PATH, json=[]).status_code == 422
    headers = {"Content-Type": "application/json"}
    assert api.post(PATH, content=b"{", headers=headers).status_code == 400
    assert api.post(PATH, content=b"{}").status_code == 415


def test_a_malformed_header_is_named(api: Api) -> None:
    body = {"model": "m", "messages": HELLO}
    reply = api.post(PATH, json=body, headers={"X-Policy": "{"})
    assert reply.status_code == 400
    assert "`X-Policy`" in detail(reply)
