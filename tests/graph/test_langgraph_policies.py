"""Retry, cache and timeout policies and error handlers of nodes work as in LangGraph."""

import asyncio
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, TimeoutPolicy, TracePolicy

from langchain_sequrity import ChatSequrity
from tests.graph.running import secured
from tests.graph.services import noted
from tests.graph.twins import Twins


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]
    bag: Annotated[dict[str, int], operator.or_]


ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


SOON = RetryPolicy(initial_interval=0.001, max_interval=0.001, jitter=False, max_attempts=3)


def flaky(failures: int, error: type[Exception] = ConnectionError) -> Callable[[State], Any]:
    """A node that fails this number of times before it works."""

    def work(state: State) -> dict[str, Any]:
        ran.append("work")
        if len(ran) <= failures:
            raise error(state["text"])
        return {"text": state["text"].upper(), "log": ["work"]}

    return work


def last(state: State) -> dict[str, Any]:
    return {"log": [f"last {state['text']}"]}


def _two(work: Any, **options: Any) -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("work", work, **options).add_node("last", last)
    return graph.add_edge(START, "work").add_edge("work", "last")


def _ended(graph: Any, given: Any = None, **options: Any) -> Any:
    """The chunks of a run and its error, and how often the node ran."""
    ran.clear()
    chunks: list[Any] = []
    error: Any = None
    try:
        for chunk in graph.stream(given or {"text": "a"}, stream_mode="updates", **options):
            chunks.append(chunk)  # noqa: PERF402 - those before an error count
    except Exception as raised:  # noqa: BLE001 - compared
        error = type(raised), str(raised)
    return chunks, error, list(ran)


async def _aended(graph: Any) -> Any:
    """As `_ended`, but in an event loop."""
    ran.clear()
    chunks: list[Any] = []
    error: Any = None
    try:
        async for chunk in graph.astream({"text": "a"}, stream_mode="updates"):
            chunks.append(chunk)  # noqa: PERF401 - those before an error count
    except Exception as raised:  # noqa: BLE001 - compared
        error = type(raised)
    return chunks, error, list(ran)


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
@pytest.mark.parametrize("error", [ConnectionError, ValueError])
def test_a_failed_node_is_retried_as_in_langgraph(
    failures: int, error: type[Exception], model: ChatSequrity
) -> None:
    plain, secure = (
        _ended(graph)
        for graph in Twins(lambda: _two(flaky(failures, error), retry_policy=SOON), model).of()
    )
    assert secure == plain


def test_a_retried_node_sends_one_result(model: ChatSequrity) -> None:
    with noted(model.base_url) as (told, sent):
        secured(_two(flaky(2), retry_policy=SOON), told).invoke({"text": "a"})
    assert len(sent) == 3
    assert ran == ["work"] * 3


def test_the_default_retry_policy_of_a_graph_applies_to_its_nodes(model: ChatSequrity) -> None:
    def make() -> Any:
        return _two(flaky(2)).set_node_defaults(retry_policy=SOON)

    plain, secure = (_ended(graph) for graph in Twins(make, model).of())
    assert secure == plain
    assert secure[1] is None


# Cache


def _counting(state: State) -> dict[str, Any]:
    ran.append(state["text"])
    return {"log": [f"{state['text']} {len(ran)}"]}


def _cached(**options: Any) -> Any:
    return _two(_counting, cache_policy=CachePolicy(**options))


def test_a_cached_node_does_not_run_again(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(_cached, model).of(cache=InMemoryCache):
        ran.clear()
        ended = [graph.invoke({"text": text}) for text in "aab"]
        chunks = [list(graph.stream({"text": "a"})), list(graph.stream({"text": "c"}))]
        found.append((ended, chunks, list(ran)))
    assert found[1] == found[0]


def test_a_cache_key_is_made_of_the_nodes_input(model: ChatSequrity) -> None:
    def make() -> Any:
        return _cached(key_func=lambda state: state["text"].lower())

    found = []
    for graph in Twins(make, model).of(cache=InMemoryCache):
        ran.clear()
        found.append(([graph.invoke({"text": text}) for text in "aAbB"], list(ran)))
    assert found[1] == found[0]


def test_a_cache_finds_equal_input_after_one_update_or_two(model: ChatSequrity) -> None:
    """A field with a reducer has the same value after one batch as after two."""

    def make() -> Any:
        def count(state: State) -> dict[str, Any]:
            ran.append("count")
            return {"log": [str(sorted(state["bag"]))]}

        def add(state: State) -> dict[str, Any]:
            return {"bag": {"b": 2} if "a" in state["bag"] else {"a": 1, "b": 2}}

        graph: Any = StateGraph(State)
        graph.add_node("add", add).add_node("count", count, cache_policy=CachePolicy())
        return graph.add_edge(START, "add").add_edge("add", "count")

    found = []
    for graph in Twins(make, model).of(cache=InMemoryCache):
        ran.clear()
        found.append(([graph.invoke({"bag": bag}) for bag in ({}, {"a": 1})], list(ran)))
    assert found[1] == found[0]
    assert found[1][1] == ["count"]


async def test_a_node_runs_again_after_its_cache_was_cleared(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(_cached, model).of(cache=InMemoryCache):
        ran.clear()
        for clear in (False, True):
            await graph.ainvoke({"text": "a"})
            if clear:
                await graph.aclear_cache()
        await graph.ainvoke({"text": "a"})
        found.append(list(ran))
    assert found[1] == found[0]


# Timeout


def _slow(**options: Any) -> Any:
    async def work(_: State) -> dict[str, Any]:
        ran.append("work")
        await asyncio.sleep(30)
        return {"log": ["work"]}

    return _two(work, **options)


@pytest.mark.parametrize("limit", [0.05, TimeoutPolicy(run_timeout=0.05)])
async def test_a_node_that_takes_too_long_is_stopped(limit: Any, model: ChatSequrity) -> None:
    plain, secure = [
        await _aended(graph) for graph in Twins(lambda: _slow(timeout=limit), model).of()
    ]
    assert secure == plain
    assert secure[1] is NodeTimeoutError


def _ignoring_its_timeout() -> Any:
    """The first attempt goes on after its timeout, until the second one has written its output."""
    attempts, has_written, has_ended = list[int](), asyncio.Event(), asyncio.Event()

    async def work(_: State) -> dict[str, Any]:
        attempts.append(len(attempts))
        number = len(attempts)
        if number == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            await has_written.wait()
        return {"text": str(number), "log": [f"work {number}"]}

    async def route(_: State) -> str:
        if has_written.is_set():  # the first attempt
            has_ended.set()
        else:
            has_written.set()
            await has_ended.wait()
            await asyncio.sleep(0.05)  # the end of the first attempt must change nothing
        return "last"

    graph: Any = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=NodeTimeoutError)
    graph.add_node("work", work, timeout=TimeoutPolicy(run_timeout=0.5), retry_policy=policy)
    graph.add_node("last", last).add_edge(START, "work")
    return graph.add_conditional_edges("work", route, ["last"])


async def test_an_attempt_that_ignores_its_timeout_writes_nothing(model: ChatSequrity) -> None:
    plain, secure = [
        await graph.ainvoke({"text": "a"}) for graph in Twins(_ignoring_its_timeout, model).of()
    ]
    assert secure == plain
    assert secure["log"] == ["work 2", "last 2"]


# Error handlers


def _handled(kind: str) -> Callable[..., Any]:
    def handler(state: State, error: NodeError) -> Any:
        update = {"log": [f"{error.node}: {type(error.error).__name__}"], "text": state["text"]}
        return update if kind == "update" else Command(update=update, goto=kind)

    return handler


HANDLERS = ["update", "last", END]


def _node_handler(kind: str, failures: int) -> Any:
    return _two(flaky(failures, ValueError), error_handler=_handled(kind))


def _default_handler(kind: str, failures: int) -> Any:
    graph = _two(flaky(failures, ValueError))
    return graph.set_node_defaults(error_handler=_handled(kind))


@pytest.mark.long(sample=5)
@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("failures", [0, 1])
@pytest.mark.parametrize("make", [_node_handler, _default_handler])
def test_an_error_handler_takes_over(
    make: Any, failures: int, kind: str, model: ChatSequrity
) -> None:
    plain, secure = (_ended(graph) for graph in Twins(lambda: make(kind, failures), model).of())
    assert secure == plain


@pytest.mark.parametrize("make", [_node_handler, _default_handler])
async def test_an_error_handler_takes_over_in_an_event_loop(make: Any, model: ChatSequrity) -> None:
    plain, secure = [await _aended(graph) for graph in Twins(lambda: make("last", 1), model).of()]
    assert secure == plain


def test_an_error_handler_cannot_bypass_a_denial(model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "last" { hard deny always; }'})
    graph = secured(_default_handler("last", 0), denies)
    _, error, _ = _ended(graph)
    assert error[0].__name__ == "PolicyDenied"


# Traces


def test_a_trace_policy_gets_the_nodes_own_input_and_output(model: ChatSequrity) -> None:
    found = []

    def make() -> Any:
        seen: list[Any] = []
        found.append(seen)
        policy = TracePolicy(process_inputs=seen.append, process_outputs=seen.append)
        return _two(flaky(0), trace_policy=policy)

    for graph in Twins(make, model).of():
        graph.invoke({"text": "a"})
    plain, secure = (seen for seen in found if seen)
    assert secure == [{"text": "a"}, {"text": "A", "log": ["work"]}]
    assert [sorted(one) for one in plain] == [["bag", "log", "text"], ["log", "text"]]
