"""What a thread stores, and what reads it, grows with its steps and no faster."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from statistics import mean
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.program import JOURNAL
from langchain_sequrity.local import LocalServer
from tests.graph.durability.growth import chain
from tests.graph.services import changed, noted

_THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}, "recursion_limit": 2_000}


class Counting(TypedDict, total=False):
    count: int
    top: int


def _loop() -> "StateGraph[Any, Any, Any, Any]":
    """A graph that counts to `top`, one step for each number."""

    def add(state: Counting) -> Counting:
        return {"count": state["count"] + 1}

    def more(state: Counting) -> str:
        return "add" if state["count"] < state["top"] else END

    made: Any = StateGraph(Counting).add_node("add", add).add_edge(START, "add")
    return made.add_conditional_edges("add", more, ["add", END])  # type: ignore[no-any-return]


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


def _chat(*, asks: bool = False) -> "StateGraph[Any, Any, Any, Any]":
    """A graph that answers each message, perhaps after a question to a human."""

    def answer(state: Chat) -> Chat:
        # What is stored of it cannot be compressed well.
        text = sha256(str(len(state["messages"])).encode()).hexdigest()
        return {"messages": [AIMessage(text)]}

    def review(state: Chat) -> Chat:
        return {"messages": [AIMessage(f"{interrupt('Fine?')} {len(state['messages'])}")]}

    made: Any = StateGraph(Chat).add_node("answer", answer).add_edge(START, "answer")
    return made.add_node("review", review).add_edge("answer", "review") if asks else made  # type: ignore[no-any-return]


def _count(runs: Any, steps: int, durability: Any = "sync") -> None:
    assert runs.invoke({"count": 0, "top": steps}, _THREAD, durability=durability)["count"] == steps


def _talk(runs: Any, turns: int, durability: Any = "sync") -> None:
    for turn in range(turns):
        runs.invoke({"messages": [("user", f"question {turn}")]}, _THREAD, durability=durability)
    assert len(runs.get_state(_THREAD).values["messages"]) == 2 * turns


@contextmanager
def _sqlite() -> Iterator[Any]:
    with SqliteSaver.from_conn_string(":memory:") as saver:
        yield saver


def _stored(saver: SqliteSaver) -> list[int]:
    """The bytes of each checkpoint, with those of the writes that follow it; the oldest is first."""
    query = """
        SELECT length(checkpoint) + length(metadata) + coalesce((
            SELECT sum(length(value)) FROM writes
            WHERE writes.checkpoint_id = checkpoints.checkpoint_id
        ), 0) FROM checkpoints ORDER BY checkpoint_id"""
    return [size for (size,) in saver.conn.execute(query)]


def _makers(graph: Any, model: ChatSequrity) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Plain LangGraph and an executor, without a checkpointer."""
    return graph.compile, partial(LangGraphExecutor, graph, model)


def _both(
    graph: Any, model: ChatSequrity, go: Callable[[Any], None]
) -> tuple[list[int], list[int]]:
    """What plain LangGraph and an executor store of the same thread."""
    stored = []
    for make in _makers(graph, model):
        with _sqlite() as saver:
            go(make(checkpointer=saver))
            stored.append(_stored(saver))
    return stored[0], stored[1]


@pytest.mark.parametrize("steps", [16, pytest.param(400, marks=pytest.mark.long)])
def test_each_step_of_a_loop_takes_as_much_as_the_others(
    steps: int, fidelity: str, model: ChatSequrity
) -> None:
    plain, secured = _both(_loop(), model, lambda runs: _count(runs, steps))
    early, late = secured[steps // 4 : steps // 2], secured[steps // 2 : -2]
    assert mean(late) < mean(early) * 1.02
    # Of the node and of its router. A service that does not say that it keeps the conversation
    # needs a row for each call.
    most = 3 if fidelity == "full" else 3.5
    assert mean(late) < most * mean(plain[2:-1])


def test_a_step_with_one_call_takes_little_more_than_twice_as_much_as_in_langgraph(
    fidelity: str, model: ChatSequrity
) -> None:
    plain, secured = _both(chain(8), model, lambda runs: runs.invoke({"text": "a"}, _THREAD))
    extra = [more - less for less, more in zip(plain, secured, strict=True)]
    assert mean(extra[3:-1]) < (750 if fidelity == "full" else 1_000)


@pytest.mark.parametrize("turns", [6, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_turn_takes_little_more_than_in_langgraph_beside_a_constant(
    turns: int, durability: str, model: ChatSequrity
) -> None:
    plain, secured = _both(_chat(), model, lambda runs: _talk(runs, turns, durability))
    assert len(secured) == len(plain)
    per_turn = len(plain) // turns
    of_last = sum(secured[-per_turn:]) - sum(secured[:per_turn])
    assert of_last < 1.3 * (sum(plain[-per_turn:]) - sum(plain[:per_turn]))


def test_a_finished_run_leaves_no_journal_in_a_checkpoint_that_is_stored_at_its_end(
    model: ChatSequrity,
) -> None:
    sizes = []
    for steps in (2, 8):
        with _sqlite() as saver:
            runs = LangGraphExecutor(_loop(), model, checkpointer=saver)
            for _ in range(2):
                _count(runs, steps, "exit")
            sizes.append(sum(_stored(saver)))
    assert sizes[1] < sizes[0] + 50


class Counted(InMemorySaver):
    """Counts how often it is read, and how many writes of the journal it gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.walks = Counter[str](), list[int]()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        self.reads["get_tuple"] += 1
        return super().get_tuple(config)

    def list(self, *args: Any, **options: Any) -> Iterator[CheckpointTuple]:
        self.reads["list"] += 1
        yield from super().list(*args, **options)

    def get_delta_channel_history(self, **options: Any) -> Mapping[str, Any]:
        self.reads["get_delta_channel_history"] += 1
        history = super().get_delta_channel_history(**options)
        self.walks.append(len(history[JOURNAL]["writes"]) if JOURNAL in history else 0)
        return history


async def _listed(runs: Any) -> list[Any]:
    return [state async for state in runs.aget_state_history(_THREAD)]


READERS: dict[str, Callable[[Any], Any]] = {
    "get_state": lambda runs: [runs.get_state(_THREAD)],
    "aget_state": lambda runs: [asyncio.run(runs.aget_state(_THREAD))],
    "get_state_history": lambda runs: list(runs.get_state_history(_THREAD)),
    "aget_state_history": lambda runs: asyncio.run(_listed(runs)),
    "subgraphs": lambda runs: [runs.get_state(_THREAD, subgraphs=True)],
}


@pytest.mark.parametrize("name", READERS)
def test_states_are_read_as_often_from_the_checkpointer_as_in_langgraph(
    name: str, model: ChatSequrity
) -> None:
    reads, states = [], []
    for make in _makers(_chat(asks=True), model):
        saver = Counted()
        runs = make(checkpointer=saver)
        runs.invoke({"messages": [("user", "a")]}, _THREAD)
        saver.reads.clear()
        read = READERS[name](runs)
        states.append([(state.next, len(state.values.get("messages", ()))) for state in read])
        reads.append(saver.reads)
    assert reads[1] == reads[0]
    assert states[1] == states[0]


def test_the_state_of_an_executor_in_another_graph_is_read_without_its_journal(
    model: ChatSequrity,
) -> None:
    saver = Counted()
    outer: Any = StateGraph(Chat).add_node("inner", LangGraphExecutor(_chat(asks=True), model))
    runs = outer.add_edge(START, "inner").compile(checkpointer=saver)
    runs.invoke({"messages": [("user", "a")]}, _THREAD)
    saver.reads.clear()
    [task] = runs.get_state(_THREAD, subgraphs=True).tasks
    assert len(task.state.values["messages"]) == 2
    assert not saver.reads["get_delta_channel_history"]


def test_a_turn_does_not_read_the_journal_of_earlier_turns(model: ChatSequrity) -> None:
    saver = Counted()
    _talk(LangGraphExecutor(_chat(), model, checkpointer=saver), 5)
    assert len(set(saver.walks[2:])) == 1


# What is left out is known again


def _interrupted(saver: InMemorySaver, url: str) -> None:
    model = ChatSequrity("any/model", base_url=url)
    runs = LangGraphExecutor(_chat(asks=True), model, checkpointer=saver)
    assert runs.invoke({"messages": [("user", "a")]}, _THREAD)["__interrupt__"]


@pytest.mark.parametrize("history", ["whole", "new", "auto"])
def test_a_run_continues_with_another_history_than_it_was_stored_with(
    history: Any, fidelity: str, model: ChatSequrity
) -> None:
    saver = InMemorySaver()
    _interrupted(saver, model.base_url)
    with noted(model.base_url) as (resuming, sent):
        runs = LangGraphExecutor(_chat(asks=True), resuming, checkpointer=saver, history=history)
        messages = runs.invoke(Command(resume="yes"), _THREAD)["messages"]
    assert messages[-1].content == "yes 2"
    # Of a service that keeps the conversation, the thread has no replies to send again.
    assert sent.sessions().count(None) == (history == "whole" and fidelity == "full")


class Changed(InMemorySaver):
    """Gives back the open call of a run with another digest."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        stored = super().get_tuple(config)
        for _, channel, records in (stored and stored.pending_writes) or ():
            for record in records if channel == JOURNAL else ():
                for call in record.get("calls", ()):
                    call["digest"] = "0" * 32
        return stored


def test_a_call_is_not_made_if_the_state_gives_it_other_arguments_than_were_stored(
    model: ChatSequrity,
) -> None:
    saver = Changed()
    _interrupted(saver, model.base_url)
    runs = LangGraphExecutor(_chat(asks=True), model, checkpointer=saver)
    with pytest.raises(BadReply, match="other arguments than those that the journal has"):
        runs.invoke(Command(resume="yes"), _THREAD)


class Newest(InMemorySaver):
    """Keeps only the newest checkpoint, so the journal of a run has only its open step."""

    def get_delta_channel_history(self, **options: Any) -> Mapping[str, Any]:
        return {channel: {"writes": []} for channel in options["channels"]}


def test_a_run_without_its_variables_is_not_begun_again(model: ChatSequrity) -> None:
    saver = Newest()
    with LocalServer() as lost:
        _interrupted(saver, lost.base_url)
    runs = LangGraphExecutor(_chat(asks=True), model, checkpointer=saver)
    with pytest.raises(UsageError, match="keeps only the newest checkpoint"):
        runs.invoke(Command(resume="yes"), _THREAD)


def test_an_id_with_a_line_break_which_stands_for_the_session_is_refused(
    model: ChatSequrity,
) -> None:
    def change(reply: bytes) -> bytes:
        return re.sub(rb'"id": ?"(?=[^"]*", ?"type": ?"function")', rb"\g<0>\\n", reply)

    with changed(model.base_url, change) as changing:
        runs = LangGraphExecutor(_chat(), changing, checkpointer=InMemorySaver())
        with pytest.raises(BadReply, match="has a line break"):
            runs.invoke({"messages": [("user", "a")]}, _THREAD)
