"""The table of endpoints."""

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.routes import CHAT_ROUTES, POLICY_ROUTES, chat_route

PATHS = [
    ("chat", None, "chat/completions", "/control/chat/v1/chat/completions", True),
    ("chat", "openrouter", "chat/completions", "/control/chat/openrouter/v1/chat/completions", True),
    ("code", "sequrity_azure", "responses", "/control/code/sequrity_azure/v1/responses", True),
    ("agent", "anthropic", "messages", "/control/agent/anthropic/v1/messages", False),
    ("lang-graph", "anthropic", "messages", "/control/lang-graph/anthropic/v1/messages", True),
    ("lang-graph", None, "messages", "/control/lang-graph/v1/messages", False),
    ("lang-graph", None, "chat/completions", "/control/lang-graph/v1/chat/completions", True),
    ("lang-graph", "openai", "responses", "/control/lang-graph/openai/v1/responses", False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "provider", "suffix", "path", "listed"), PATHS)
def test_a_route_has_its_documented_path(
    kind: str, provider: str | None, suffix: str, path: str, listed: bool
) -> None:
    route = chat_route(kind, provider, suffix)  # type: ignore[arg-type]
    assert (route.path, route.listed) == (path, listed)


def test_every_route_has_its_own_path() -> None:
    routes = [*CHAT_ROUTES, *POLICY_ROUTES]
    assert len({route.path for route in routes}) == len(routes) == 4 * (4 + 2 + 3) + 5


@pytest.mark.parametrize(
    ("kind", "provider", "words"),
    [
        ("chat", "anthropic", ["`anthropic`", "messages: None, anthropic"]),
        ("chat", "llama", ["`llama`", "chat/completions: None, openai, openrouter"]),
        ("chats", None, ["`chats`", "`lang-graph`"]),
    ],
)
def test_the_refusal_of_an_unknown_pair_names_the_pairs_that_exist(
    kind: str, provider: str | None, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        chat_route(kind, provider, "chat/completions")
    assert all(word in str(caught.value) for word in words)
