"""The table of endpoints."""

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.routes import CHAT_ROUTES, POLICY_ROUTES, chat_route

PATHS = [
    ("chat", None, "chat/completions", "/control/chat/v1/chat/completions"),
    ("chat", "openrouter", "chat/completions", "/control/chat/openrouter/v1/chat/completions"),
    ("code", "sequrity_azure", "responses", "/control/code/sequrity_azure/v1/responses"),
    ("agent", "anthropic", "messages", "/control/agent/anthropic/v1/messages"),
    ("lang-graph", "anthropic", "messages", "/control/lang-graph/anthropic/v1/messages"),
    ("lang-graph", None, "messages", "/control/lang-graph/v1/messages"),
    ("lang-graph", None, "chat/completions", "/control/lang-graph/v1/chat/completions"),
    ("lang-graph", "openai", "responses", "/control/lang-graph/openai/v1/responses"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "provider", "suffix", "path"), PATHS)
def test_a_route_has_its_documented_path(
    kind: str, provider: str | None, suffix: str, path: str
) -> None:
    assert chat_route(kind, provider, suffix).path == path  # type: ignore[arg-type]


def test_every_route_has_its_own_path() -> None:
    routes = [*CHAT_ROUTES, *POLICY_ROUTES]
    assert len({route.path for route in routes}) == len(routes) == 4 * (5 + 2 + 3) + 5


@pytest.mark.parametrize(
    ("kind", "provider", "words"),
    [
        ("chat", "anthropic", ["`anthropic`", "messages: None, anthropic"]),
        ("chat", "cohere", ["`cohere`", "chat/completions: None, openai, openrouter"]),
        ("chats", None, ["`chats`", "`lang-graph`"]),
    ],
)
def test_the_refusal_of_an_unknown_pair_names_the_pairs_that_exist(
    kind: str, provider: str | None, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        chat_route(kind, provider, "chat/completions")
    assert all(word in str(caught.value) for word in words)
