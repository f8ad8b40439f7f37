"""Steps with several tasks: which task waits, what is requested, and what policies decide."""

import asyncio
import logging
import operator
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.twins import thread
from tests.graph.verdicts import PARALLEL, compare

pytestmark = pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.UnknownAccess")

APART = 'tool "result_of" { must allow always; }'
"""A policy with a rule for `result_of`. Under it, calls are not answered with handles."""


class Trace(TypedDict, total=False):
    n: int
    trace: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def fan(width: int) -> Any:
    """A node that runs once for each of `width` packets."""
    graph: Any = StateGraph(Trace).add_node("w", lambda state: {"trace": [state["n"]]})
    return graph.add_conditional_edges(
        START, lambda _state: [Send("w", {"n": number}) for number in range(width)], ["w"]
    )


def crowd() -> Any:
    """Packets and edges that start the same node in one step; a router follows each task."""
    graph: Any = StateGraph(Trace).add_node("a", lambda _state: {"trace": ["a"]})
    graph.add_node("w", lambda state: {"trace": [state.get("n", -1)]})
    graph.add_node("last", lambda state: {"trace": [len(state["trace"])]})
    graph.add_edge(START, "a").add_edge("a", "w")
    packets = [Send("w", {"n": number}) for number in range(9)]
    graph.add_conditional_edges("a", lambda _state: packets, ["w"])
    return graph.add_conditional_edges("w", lambda _state: "last", ["last"])


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("width", [10, 100])
def test_a_fan_out_makes_two_requests_for_each_packet(local: LocalServer, width: int) -> None:
    sent = list[httpx.Request]()
    with httpx.Client(event_hooks={"request": [sent.append]}, trust_env=False) as client:
        model = ChatSequrity("any/model", base_url=local.base_url, http_client=client)
        found = secured(fan(width), model).invoke({"n": 0})
    assert found["trace"] == list(range(width))
    assert len(sent) == 2 * width + 2  # one begins the run, one brings the router's answer


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("policy", [None, APART], ids=["beside", "apart"])
@pytest.mark.parametrize("is_fused", [False, True], ids=["routers", "fused"])
@pytest.mark.parametrize("in_loop", [False, True], ids=["threads", "loop"])
@pytest.mark.parametrize("workers", [1, 2, None])
def test_a_step_with_more_tasks_than_threads_does_not_deadlock(
    local: LocalServer, policy: str | None, workers: int | None, *, is_fused: bool, in_loop: bool
) -> None:
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy)
    nodes = {"w": {"fuse_router": is_fused}}
    config: Any = {"max_concurrency": workers}
    found = list[Any]()

    def run() -> None:
        graphs = (crowd().compile(), secured(crowd(), model, nodes=nodes))
        for graph in graphs:
            if in_loop:
                found.append(asyncio.run(graph.ainvoke({}, config)))
            else:
                found.append(graph.invoke({}, config))

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(60)
    assert not running.is_alive()
    assert found[0] == found[1]


def asking() -> Any:
    """Three nodes in a row. Each asks a question."""

    def asks(name: str) -> Any:
        return lambda _state: {"trace": [[name, interrupt(name)]]}

    graph: Any = StateGraph(Trace)
    for name in "abc":
        graph.add_node(name, asks(name))
    return graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")


@pytest.mark.parametrize(
    "goto", ["b", ["b", "c"], Send("b", {}), [Send("b", {}), Send("c", {}), "c"]], ids=repr
)
def test_a_node_that_the_caller_starts_runs_beside_a_waiting_node(
    model: ChatSequrity, goto: Any
) -> None:
    ends = []
    for graph in (
        asking().compile(checkpointer=InMemorySaver()),
        secured(asking(), model, checkpointer=InMemorySaver()),
    ):
        graph.invoke({}, thread())
        graph.invoke(Command(goto=goto), thread())
        asked = graph.get_state(thread()).interrupts
        graph.invoke(Command(resume={one.id: one.value.upper() for one in asked}), thread())
        left = graph.get_state(thread())
        ends.append((sorted(one.value for one in asked), left.values, left.next))
    assert ends[0] == ends[1]


def test_the_steps_after_a_copied_input_checkpoint_know_the_input(model: ChatSequrity) -> None:
    ends = []
    for graph in (
        asking().compile(checkpointer=InMemorySaver()),
        secured(asking(), model, checkpointer=InMemorySaver()),
    ):
        graph.invoke({"n": 1, "trace": ["given"]}, thread())
        first = list(graph.get_state_history(thread()))[-1]
        graph.update_state(first.config, None, "__copy__")
        graph.invoke(Command(goto="b"), thread())
        asked = graph.get_state(thread()).interrupts
        graph.invoke(Command(resume={one.id: one.value.upper() for one in asked}), thread())
        left = graph.get_state(thread())
        ends.append((sorted(one.value for one in asked), left.values, left.next))
    assert ends[0] == ends[1]


@pytest.fixture
def _quiet() -> Iterator[None]:
    """No warnings: random graphs name nodes that do not exist, and random rules protect nothing."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.long
@pytest.mark.usefixtures("_quiet")
def test_policies_decide_the_same_about_calls_made_before_their_step_runs(
    local: LocalServer,
) -> None:
    """`python -m tests.graph.verdicts` compares 2,000."""
    found = [compare(mix, seed, local.base_url) for mix in PARALLEL for seed in range(5)]
    assert not [one for one in found if one.verdict == "DIFFERENT"]
    verdicts = Counter(one.verdict for one in found)
    assert verdicts["split: PolicyDenied"] > 3
    assert verdicts["split: state"] > 3


@pytest.mark.long
@pytest.mark.parametrize("in_loop", [False, True], ids=["threads", "loop"])
def test_the_timeout_of_a_step_does_not_include_requests_to_the_service(
    local: LocalServer, *, in_loop: bool
) -> None:
    """LangGraph limits the time of a step. The calls of its nodes are requested earlier."""

    def slow(_request: httpx.Request) -> None:
        time.sleep(0.8)

    async def aslow(_request: httpx.Request) -> None:
        await asyncio.sleep(0.8)

    async def arun(graph: Any) -> Any:
        hooks: Any = {"request": [aslow]}
        async with httpx.AsyncClient(event_hooks=hooks, trust_env=False) as client:
            return await graph(http_async_client=client).ainvoke({})

    def timed(**client: Any) -> Any:
        compiled = asked_in_a_row().compile()
        compiled.step_timeout = 0.7
        return secured(compiled, ChatSequrity("any/model", base_url=local.base_url, **client))

    if in_loop:
        found = asyncio.run(arun(timed))
    else:
        with httpx.Client(event_hooks={"request": [slow]}, trust_env=False) as client:
            found = timed(http_client=client).invoke({})
    assert found["trace"] == ["a", "b"]


def asked_in_a_row() -> Any:
    graph: Any = StateGraph(Trace)
    graph.add_node("a", lambda _state: {"trace": ["a"]})
    graph.add_node("b", lambda _state: {"trace": ["b"]})
    return graph.add_edge(START, "a").add_edge("a", "b")
