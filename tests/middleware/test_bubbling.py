"""LangGraph passes a denial through retries and error handlers, and the denial ends the run."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

from langchain_sequrity.errors import (
    ForcedToolMissing,
    PolicyDenied,
    ProgramFailed,
    SequrityError,
    ServiceError,
    SessionExpired,
    TurnFailed,
    UsageError,
    ordinary,
)
from tests.middleware.agents import THREAD

PASSING = [PolicyDenied("No."), ProgramFailed("No.", code="x"), SessionExpired("No.")]
IDS = [type(one).__name__ for one in PASSING]


@pytest.mark.parametrize("error", PASSING, ids=IDS)
def test_a_denial_is_a_graph_bubble_up_and_copies_keep_its_class(error: TurnFailed) -> None:
    kind = type(error)
    assert isinstance(error, GraphBubbleUp)
    assert repr(error) == f"{kind.__name__}('No.')"
    assert (kind.__module__, kind.__qualname__) == ("langchain_sequrity.errors", kind.__name__)
    for same in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is kind
        assert vars(same) == vars(error)


@pytest.mark.parametrize(
    "error", [ServiceError("x"), UsageError("x"), ForcedToolMissing("x", tool="t"), *map(ordinary, PASSING)]
)  # fmt: skip
def test_other_errors_can_be_handled(error: SequrityError) -> None:
    assert not isinstance(error, GraphBubbleUp)


def test_a_denial_is_a_graph_bubble_up_as_soon_as_langgraph_is_imported() -> None:
    program = """
import pickle, sys
from langchain_sequrity.errors import PolicyDenied
early = PolicyDenied("No.")
assert "langgraph.errors" not in sys.modules
from langgraph.errors import GraphBubbleUp
late = PolicyDenied("No.")
assert not isinstance(early, GraphBubbleUp) and isinstance(late, GraphBubbleUp)
for error in (early, late):
    try:
        raise error
    except PolicyDenied as caught:
        assert isinstance(pickle.loads(pickle.dumps(caught)), GraphBubbleUp)
"""
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own text


async def invoke(graph: Any) -> None:
    graph.invoke({"messages": []}, THREAD)


async def ainvoke(graph: Any) -> None:
    await graph.ainvoke({"messages": []}, THREAD)


async def stream(graph: Any) -> None:
    list(graph.stream({"messages": []}, THREAD))


async def astream(graph: Any) -> None:
    async for _ in graph.astream({"messages": []}, THREAD):
        pass


WAYS = {one.__name__: one for one in (invoke, ainvoke, stream, astream)}


class Watched:
    """Two parallel nodes; one of them is denied. Records which other functions ran."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tried, self.seen = 0, list[str]()

    def denied(self, _: MessagesState) -> None:
        self.tried += 1
        raise self.error

    def other(self, _: MessagesState) -> Any:
        self.seen.append("other")
        return {"messages": [AIMessage("other")]}

    def handler(self, _: MessagesState) -> Any:
        self.seen.append("handler")
        return {"messages": [AIMessage("handled")]}

    def graph(self, *, beside: bool) -> Any:
        graph: Any = StateGraph(MessagesState)
        again = RetryPolicy(retry_on=Exception, initial_interval=0, jitter=False, max_attempts=3)
        graph.add_node("denied", self.denied, retry_policy=again, error_handler=self.handler)
        graph.add_edge(START, "denied")
        if beside:
            graph.add_node("other", self.other).add_edge(START, "other")
        return graph.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("error", PASSING, ids=IDS)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_denied_node_is_not_retried_and_no_error_handler_runs(
    error: TurnFailed, beside: bool, way: str
) -> None:
    watched = Watched(error)
    graph = watched.graph(beside=beside)
    with pytest.raises(type(error)) as caught:
        await WAYS[way](graph)
    assert caught.value is error
    assert watched.tried == 1
    # A parallel node runs to its end, and its result is kept until the thread continues.
    assert watched.seen == (["other"] if beside else [])
    state = graph.get_state(THREAD)
    assert "denied" in state.next
    assert [one.text for one in state.values["messages"]] == watched.seen


def test_a_thread_continues_with_the_denied_node() -> None:
    watched = Watched(PolicyDenied("No."))
    graph = watched.graph(beside=True)
    for _ in range(2):
        with pytest.raises(PolicyDenied):
            graph.invoke({"messages": []} if watched.tried == 0 else None, THREAD)
    assert watched.tried == 2
    assert watched.seen == ["other"]  # its result was kept


@pytest.mark.parametrize("handle", [True, "Try again.", str])
def test_a_denial_inside_a_tool_is_raised_and_not_a_tool_result(handle: Any) -> None:
    def ask(text: str) -> str:
        """Ask another model."""
        raise PolicyDenied(text)

    call = {"name": "ask", "args": {"text": "x"}, "id": "1", "type": "tool_call"}
    graph: Any = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([ask], handle_tool_errors=handle)).add_edge(START, "tools")
    with pytest.raises(PolicyDenied):
        graph.compile().invoke({"messages": [AIMessage("", tool_calls=[call])]})
