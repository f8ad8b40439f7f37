"""The vendor's runner of graphs on `lang-graph` (protocol.md, LangGraph endpoint)."""

from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from sequrity import SequrityClient  # type: ignore[import-untyped] # the package has no type information
from sequrity.control import (  # type: ignore[import-untyped] # as above
    ControlConfig,
    FeaturesHeader,
    FineGrainedConfigHeader,
)

from tests.local.dual_llm.conversation import Stage, Teller

Json = dict[str, Any]


class State(TypedDict):
    """State of a graph."""

    eggs: list[int]
    note: str


def count_eggs(state: State) -> Json:
    """Count the eggs."""
    return {"eggs": [len(state["eggs"])]}


def few(state: State) -> Json:
    """Say that there are few."""
    return {"note": f"few: {state['eggs']}"}


def many(state: State) -> Json:
    """Say that there are many."""
    return {"note": f"many: {state['eggs']}"}


def choose(state: State) -> str:
    """Choose what to say."""
    return "few" if len(state["eggs"]) < 4 else "many"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("eggs", "note"), [([5], "few: [5, 1]"), ([5, 6, 7], "many: [5, 6, 7, 3]")]
)
def test_the_vendors_runner_runs_a_graph(
    stage: Stage, provider: str, eggs: list[int], note: str
) -> None:
    graph = StateGraph(State)
    graph.add_node("count_eggs", count_eggs)
    graph.add_node("few", few)
    graph.add_node("many", many)
    graph.add_edge(START, "count_eggs")
    graph.add_conditional_edges("count_eggs", choose, {"few": "few", "many": "many"})
    graph.add_edge("few", END)
    graph.add_edge("many", END)
    planner = Teller("planner", "'planned'")
    control = ControlConfig(
        endpoint_type="lang-graph",
        provider=provider,
        llm_api_key="llm-test",
        features=FeaturesHeader.dual_llm(),
        fine_grained_config=FineGrainedConfigHeader.dual_llm(),
    )
    with SequrityClient(
        api_key="sq-test", base_url=stage.server.base_url, control=control
    ) as client:
        state = client.control.langgraph.run(
            graph,
            {"eggs": [*eggs], "note": ""},
            stage.cast(planner),
            node_functions={one.__name__: one for one in (count_eggs, few, many, choose)},
        )
    assert state["note"] == note
    assert planner.requests == []
