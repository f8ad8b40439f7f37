"""Middleware and tools that need a provider's own API, with models behind Sequrity."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import LLMToolSelectorMiddleware, ProviderToolSearchMiddleware
from langchain_anthropic.middleware import (
    StateClaudeMemoryMiddleware,
    StateClaudeTextEditorMiddleware,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import UsageError

Make = Callable[..., BaseChatModel]
ASK: Any = {"messages": [("user", "look_up 'x'")]}
DUAL = {"agent_arch": "dual-llm"}
NOBODY = "http://127.0.0.1:9"  # a request would fail with another error


@tool
def look_up(word: str) -> str:
    """Look up a word."""
    return f"{word} means 42"


@tool(extras={"defer_loading": True})
def look_up_later(word: str) -> str:
    """Look up a word that is seldom needed."""
    return word


MODELS: dict[str, Make] = {
    "chat/completions": ChatSequrity,
    "dual-llm": lambda *args, **options: ChatSequrity(*args, features=DUAL, **options),
    "responses": lambda *args, **options: ChatSequrity(
        *args, use_responses_api=True, provider="openai", **options
    ),
    "messages": SequrityMessages,
}


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda runnable, value: runnable.invoke(value),
    "ainvoke": lambda runnable, value: asyncio.run(runnable.ainvoke(value)),
    "stream": lambda runnable, value: list(runnable.stream(value)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_provider_tool_search_says_once_what_to_use_before_any_request(name: str, way: str) -> None:
    model = MODELS[name]("any/model", base_url=NOBODY)
    for tools, searchable in (([look_up], [look_up]), ([look_up, look_up_later], None)):
        search = ProviderToolSearchMiddleware(searchable_tools=searchable)  # type: ignore[arg-type] # a list of tools
        agent: Any = create_agent(model, tools, middleware=[search])
        with pytest.raises(UsageError) as caught:
            WAYS[way](agent, ASK)
        text = str(caught.value)
        assert text.count("ProviderToolSearchMiddleware") == 1
        assert f"`{type(model).__name__}`" in text
        assert "Use `LLMToolSelectorMiddleware`" in text


@pytest.mark.parametrize("name", MODELS)
def test_provider_tool_search_without_deferred_tools_changes_nothing(
    base_url: str, name: str
) -> None:
    model = MODELS[name]("any/model", base_url=base_url)
    agent = create_agent(model, [look_up], middleware=[ProviderToolSearchMiddleware()])
    assert "x means 42" in agent.invoke(ASK)["messages"][-1].text


@pytest.mark.parametrize("name", MODELS)
def test_what_the_error_advises_works(base_url: str, name: str) -> None:
    """The selector's model answers with a schema; here it selects what the user quotes."""
    model = MODELS[name]("any/model", base_url=base_url)
    chooser = ChatSequrity("any/model", base_url=base_url)
    selector = LLMToolSelectorMiddleware(model=chooser, always_include=["look_up"])
    agent: Any = create_agent(model, [look_up, look_up_later], middleware=[selector])
    assert "x means 42" in agent.invoke(ASK)["messages"][-1].text
    plain: Any = create_agent(model, [look_up, look_up_later])
    assert "x means 42" in plain.invoke(ASK)["messages"][-1].text


def test_a_model_of_the_provider_itself_is_searched_as_before(base_url: str) -> None:
    model = ChatOpenAI(
        model="any",
        base_url=f"{base_url}/control/chat/openai/v1",
        api_key=SecretStr("k"),
        use_responses_api=True,
    )
    search = ProviderToolSearchMiddleware(searchable_tools=["look_up"])
    agent: Any = create_agent(model, [look_up], middleware=[search])
    assert "x means 42" in agent.invoke(ASK)["messages"][-1].text


ANTHROPICS = [
    {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"},
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "bash_20250124", "name": "bash"},
]
OPENAIS = [
    {"type": "tool_search"},
    {"type": "web_search"},
    {"type": "web_search_preview_2025_03_11"},
    {"type": "mcp", "server_label": "x", "server_url": "https://x.example"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
]


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        *(("chat/completions", definition) for definition in (*ANTHROPICS, *OPENAIS)),
        *(("dual-llm", definition) for definition in (*ANTHROPICS, *OPENAIS)),
        *(("responses", definition) for definition in ANTHROPICS),
    ],
    ids=str,
)
def test_a_tool_that_the_format_cannot_carry_is_refused_before_any_request(
    name: str, definition: dict[str, Any]
) -> None:
    model = MODELS[name]("any/model", base_url=NOBODY).bind_tools([look_up, definition])
    for call in WAYS.values():
        with pytest.raises(UsageError) as caught:
            call(model, "x")
        text = str(caught.value)
        assert f"`{definition['type']}`" in text
        assert "Use a function" in text
        assert "`SequrityMessages`" in text


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        *(("messages", definition) for definition in ANTHROPICS),
        *(("responses", definition) for definition in OPENAIS),
    ],
    ids=str,
)
def test_a_tool_of_the_formats_own_provider_is_sent(
    base_url: str, name: str, definition: dict[str, Any]
) -> None:
    model = MODELS[name]("any/model", base_url=base_url).bind_tools([look_up, definition])
    assert model.invoke("look_up 'x'").tool_calls


@pytest.mark.parametrize(
    "middleware", [StateClaudeMemoryMiddleware, StateClaudeTextEditorMiddleware]
)
@pytest.mark.parametrize("name", ["chat/completions", "dual-llm", "responses"])
def test_middleware_with_tools_of_anthropic_says_which_format_has_them(
    name: str, middleware: Any
) -> None:
    model = MODELS[name]("any/model", base_url=NOBODY)
    agent: Any = create_agent(model, [look_up], middleware=[middleware()])
    with pytest.raises(UsageError, match="`SequrityMessages` for tools of Anthropic"):
        agent.invoke(ASK)
