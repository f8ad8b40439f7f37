"""Settings of a model that are given to a run of a graph: LangGraph would ignore them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer

SETTINGS: dict[str, Any] = {
    "policy": 'tool "send" { must deny always; }',
    "features": {"agent_arch": "single-llm"},
    "session_config": {"fsm": {"max_n_turns": 3}},
    "on_denied": "message",
    "on_session_lost": "restart",
    "on_session_expired": "restart",
    "strict_policy": True,
}
ARGUMENTS = {"extra_headers": {"X-Trace": "1"}, "extra_body": {"seed": 1}, "session_id": "new"}


class State(TypedDict, total=False):
    to: str


GIVEN: State = {"to": "eve"}


async def all_of(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


CALLS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "bind": lambda graph, options: graph.bind(**options),
    "bind of a config": lambda graph, options: graph.with_config(tags=["a"]).bind(**options),
    "invoke": lambda graph, options: graph.invoke(GIVEN, **options),
    "invoke of bound": lambda graph, options: graph.bind(durability="sync").invoke(
        GIVEN, **options
    ),
    "ainvoke": lambda graph, options: asyncio.run(graph.ainvoke(GIVEN, **options)),
    "stream": lambda graph, options: list(graph.stream(GIVEN, **options)),
    "astream": lambda graph, options: asyncio.run(all_of(graph.astream(GIVEN, **options))),
    "batch": lambda graph, options: graph.batch([GIVEN], **options),
}
CONFIGS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "with_config": lambda graph, settings: graph.with_config(**settings),
    "with_config of a dict": lambda graph, settings: graph.with_config(settings),
    "with_config configurable": lambda graph, settings: graph.with_config(configurable=settings),
    "copy": lambda graph, settings: graph.copy(settings),
    "config": lambda graph, settings: graph.invoke(GIVEN, settings),
    "configurable": lambda graph, settings: graph.invoke(GIVEN, {"configurable": settings}),
    "async configurable": lambda graph, settings: asyncio.run(
        graph.ainvoke(GIVEN, {"configurable": settings})
    ),
}
PLACES = {**CALLS, **CONFIGS}


@pytest.fixture(scope="module")
def graph() -> Iterator[Any]:
    builder = StateGraph(State)
    builder.add_node("send", lambda _: {"to": "sent"})
    builder.add_edge(START, "send")
    with LocalServer() as server:
        yield LangGraphExecutor(builder, ChatSequrity("any/model", base_url=server.base_url))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_a_run_of_a_graph_refuses_a_setting_of_its_model(graph: Any, place: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}`"):
        PLACES[place](graph, {name: SETTINGS[name]})


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("place", CALLS)
def test_a_run_of_a_graph_refuses_an_argument_of_a_models_call(
    graph: Any, place: str, name: str
) -> None:
    with pytest.raises(UsageError, match=f"`{name}`"):
        CALLS[place](graph, {name: ARGUMENTS[name]})


@pytest.mark.parametrize("policy", ["gold", {"tier": 1}, None, 7])
def test_an_application_may_have_its_own_name_in_configurable(graph: Any, policy: Any) -> None:
    config: Any = {"configurable": {"policy": policy}, "tags": ["a"]}
    assert graph.invoke(GIVEN, config) == {"to": "sent"}
    assert graph.with_config(config).invoke(GIVEN) == {"to": "sent"}
