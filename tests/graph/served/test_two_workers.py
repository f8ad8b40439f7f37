"""Runs whose requests go to two workers of the gateway in turn, which share one Redis."""

import operator
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import ServiceError
from tests.graph.durability.killing import expected
from tests.graph.durability.subject import GIVEN, graph
from tests.graph.served.workers import RoundRobin, needs_redis, two_workers

pytestmark = needs_redis
THREAD: Any = {"configurable": {"thread_id": "1"}}
ROUNDS = 120


@pytest.fixture(scope="module")
def proxy() -> Iterator[RoundRobin]:
    with two_workers() as made:
        yield made


class Runner:
    """Runs the graph of `tests.graph.durability`: a loop, branches, an interrupt, packets.

    Args:
        base_url: Address of the gateway.
    """

    def __init__(self, base_url: str) -> None:
        self.calls: list[str] = []
        self.errors: list[ServiceError] = []
        model = ChatSequrity("any/model", base_url=base_url)
        self._runs = LangGraphExecutor(
            graph(self.calls.append), model, checkpointer=InMemorySaver()
        )

    def to_the_end(self) -> Any:
        """Run; answer the question, and continue after an error of the gateway."""
        given: Any = GIVEN
        while True:
            try:
                self._runs.invoke(given, THREAD, durability="sync")
            except ServiceError as error:
                self.errors.append(error)
            state = self._runs.get_state(THREAD)
            if not state.next:
                return state.values
            given = Command(resume="yes") if state.interrupts else None


def test_a_run_with_a_loop_an_interrupt_and_packets_uses_both_workers(proxy: RoundRobin) -> None:
    before = len(proxy.served)
    runner = Runner(proxy.base_url)
    state, calls = expected()
    assert runner.to_the_end() == state
    assert Counter(runner.calls) == Counter(calls)
    served = proxy.served[before:]
    assert {status for _, status in served} == {200}
    assert len(served) > len(set(calls))
    assert all(one[0] != other[0] for one, other in pairwise(served))


class Count(TypedDict, total=False):
    number: int
    log: Annotated[list[int], operator.add]


def add(state: Count) -> Count:
    return {"number": state["number"] + 1, "log": [state["number"]]}


def again(state: Count) -> Literal["add", "__end__"]:
    return "add" if state["number"] < ROUNDS else "__end__"


@pytest.mark.long
async def test_a_long_loop_uses_both_workers(proxy: RoundRobin) -> None:
    before = len(proxy.served)
    counting: Any = StateGraph(Count).add_node(add).add_edge(START, "add")
    counting.add_conditional_edges("add", again)
    runs = LangGraphExecutor(counting, ChatSequrity("any/model", base_url=proxy.base_url))
    state = await runs.ainvoke({"number": 0}, {"recursion_limit": 1000})
    assert state["log"] == list(range(ROUNDS))
    by_worker = Counter(worker for worker, _ in proxy.served[before:])
    assert min(by_worker.values()) >= ROUNDS


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("request_number", [20, 1, 45])
def test_a_run_ends_right_if_a_worker_is_killed_in_the_middle_of_a_request(
    request_number: int,
) -> None:
    state, calls = expected()
    with two_workers() as proxy:
        proxy.kill_at = request_number
        runner = Runner(proxy.base_url)
        assert runner.to_the_end() == state
        assert proxy.killed == {request_number % 2}
    assert Counter(runner.calls) == Counter(calls)
    first, *later = [error.status for error in runner.errors]
    assert first == 502
    assert set(later) <= {409}  # until the lease of the killed worker has ended
