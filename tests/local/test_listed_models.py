"""`models`: what the SDKs of OpenAI and Anthropic list and retrieve."""

from typing import Any

import anthropic
import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_sequrity.wire.routes import MODELS_ROUTES
from tests.local.api import Api, detail
from tests.local.conftest import Serve


def model(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key=SecretStr("none"), base_url="http://127.0.0.1:1/v1")


NAMELESS = FakeListChatModel(responses=["Hi"])
# Arguments of `LocalServer`, and the names that it lists with their roles.
SERVERS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"deterministic": "chat"}),
    ({"model": NAMELESS}, {"FakeListChatModel": "chat"}),
    ({"model": model("qwen/qwen3:8b")}, {"qwen/qwen3:8b": "chat"}),
    ({"script": [{"text": "Hi"}]}, {"script": "answers first", "deterministic": "chat"}),
    (
        {"models": {"planner": model("strong"), "reader": model("cheap")}},
        {"deterministic": "chat", "strong": "planner", "cheap": "reader"},
    ),
    (
        {"model": model("a"), "models": {"policy": model("a"), "reader": model("b")}},
        {"a": "chat, policy", "b": "reader"},
    ),
]


@pytest.mark.parametrize(("arguments", "names"), SERVERS, ids=",".join)
def test_both_sdks_list_and_retrieve_what_the_server_was_given(
    serve: Serve, arguments: dict[str, Any], names: dict[str, str]
) -> None:
    url = f"{serve(**arguments).server.base_url}/control/chat"
    options: Any = {"api_key": "sq-test", "_strict_response_validation": True}
    shown = {name: f"{name} ({roles})" for name, roles in names.items()}
    with (
        openai.OpenAI(base_url=f"{url}/openai/v1", **options) as of_openai,
        anthropic.Anthropic(base_url=f"{url}/anthropic", **options) as of_anthropic,
    ):
        assert [row.id for row in of_openai.models.list()] == [*names]
        assert {row.id: row.display_name for row in of_anthropic.models.list(limit=1)} == shown
        for name in names:
            assert of_openai.models.retrieve(name).id == name
            assert of_anthropic.models.retrieve(name).display_name == shown[name]
        with pytest.raises(openai.NotFoundError, match=f"It has .*`{next(iter(names))}`"):
            of_openai.models.retrieve("gpt-none")
        with pytest.raises(anthropic.NotFoundError):
            of_anthropic.models.retrieve("claude-none")


async def test_the_asynchronous_sdks_list_too(base_url: str) -> None:
    url = f"{base_url}/control/lang-graph"
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sq-test") as of_openai:
        assert [row.id async for row in of_openai.models.list()] == ["deterministic"]
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sq-test") as of_anthropic:
        assert [row.id async for row in of_anthropic.models.list()] == ["deterministic"]


def test_every_prefix_of_a_chat_lists_the_same_models_to_who_has_a_key(serve: Serve) -> None:
    api = serve(api_keys=["sq-test"])
    for route in MODELS_ROUTES:
        for path in (route.path, f"{route.path}/deterministic"):
            reply = api.request("GET", path, headers=api.authorization())
            assert reply.status_code == 200
            assert "x-session-id" not in reply.headers
            assert api.request("GET", path).status_code == 401
            wrong = {"Authorization": "Bearer other"}
            assert api.request("GET", path, headers=wrong).status_code == 401


def test_models_can_only_be_read(api: Api) -> None:
    reply = api.post(MODELS_ROUTES[0].path, json={})
    assert reply.status_code == 405
    assert "GET" in detail(reply)
