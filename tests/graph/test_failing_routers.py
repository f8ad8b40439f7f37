"""A router that fails once runs again in a resumed run, and its node does not."""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from langchain_sequrity import ChatSequrity
from tests.graph.ledger import thread
from tests.graph.running import secured


class State(TypedDict, total=False):
    n: int
    log: Annotated[list[str], operator.add]


class Once:
    """Notes what runs. The first call of the router fails."""

    def __init__(self, *, fails: bool = True) -> None:
        self.ran = list[str]()
        self._fails = fails

    def node(self, name: str) -> Callable[[State], State]:
        def run(_state: State) -> State:
            self.ran.append(name)
            return {"log": [name]}

        return run

    def router(self, *targets: Any) -> Callable[[State], list[Any]]:
        def decide(state: State) -> list[Any]:
            self.ran.append("router")
            if self._fails:
                self._fails = False
                raise LookupError
            return list(targets) if state.get("n", 0) >= 0 else []

        return decide


def graph_of(once: Once, names: str, *edges: tuple[str, str]) -> Any:
    graph: Any = StateGraph(State)
    for name in names:
        graph.add_node(name, once.node(name))
    for source, target in edges:
        graph.add_edge(source, target)
    return graph


def after_a_node(once: Once) -> Any:
    graph = graph_of(once, "abc", (START, "a"), ("b", "c"))
    return graph.add_conditional_edges("a", once.router("b"), ["b", END])


def at_the_start(once: Once) -> Any:
    return graph_of(once, "ab", ("a", "b")).add_conditional_edges(START, once.router("a"), ["a"])


def beside_another(once: Once) -> Any:
    graph = graph_of(once, "acz", (START, "a"), (START, "z"))
    return graph.add_conditional_edges("a", once.router("c"), ["c"])


def of_a_packet(once: Once) -> Any:
    graph = graph_of(once, "abc", (START, "a"))
    graph.add_conditional_edges("a", lambda _state: [Send("b", {"n": 1})], ["b"])
    return graph.add_conditional_edges("b", once.router("c"), ["c"])


def with_packets(once: Once) -> Any:
    graph = graph_of(once, "ab", (START, "a"))
    return graph.add_conditional_edges(
        "a", once.router(Send("b", {"n": 1}), Send("b", {"n": 2})), ["b"]
    )


GRAPHS = (after_a_node, at_the_start, beside_another, of_a_packet, with_packets)


@pytest.mark.parametrize(("durability", "in_loop"), [("sync", False), ("exit", True)])
@pytest.mark.parametrize("build", GRAPHS)
def test_a_router_that_fails_once_runs_again_and_its_node_does_not(
    build: Callable[[Once], Any], durability: Any, in_loop: Any, model: ChatSequrity
) -> None:
    saver, once, plain = InMemorySaver(), Once(), Once(fails=False)
    expected = build(plain).compile().invoke({"n": 0})

    def run(given: Any) -> Any:
        executor = secured(build(once), model, checkpointer=saver)
        if in_loop:
            return asyncio.run(executor.ainvoke(given, thread(), durability=durability))
        return executor.invoke(given, thread(), durability=durability)

    with pytest.raises(LookupError):
        run({"n": 0})
    assert secured(build(once), model, checkpointer=saver).get_state(thread()).next
    assert run(None) == expected
    # How far a task beside a failed one comes is a race: `z` may run again.
    ran, plain_ran = ([one for one in each.ran if one != "z"] for each in (once, plain))
    assert sorted(ran) == sorted([*plain_ran, "router"])
