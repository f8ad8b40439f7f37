"""Threads that an earlier version stored go on as they would have there."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.local import LocalServer
from tests.graph.durability.killing import expected
from tests.graph.durability.stored_runs import (
    BY_TAG,
    CASES,
    CRASHES,
    FILES,
    THREAD,
    Bill,
    continued,
    dumped,
    executor,
    loaded,
    made,
    read_all,
)
from tests.graph.durability.subject import GIVEN, graph
from tests.graph.services import DUAL

STORED: dict[str, dict[str, Any]] = {form: read_all(file) for form, file in FILES.items()}
THREADS = [(form, name) for form, threads in STORED.items() for name in threads]
[FIRST, *_] = STORED.values()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


@pytest.mark.long(sample=16)
@pytest.mark.parametrize(("form", "name"), THREADS)
def test_a_thread_of_an_earlier_version_goes_on_as_it_did_there(
    form: str, name: str, url: str
) -> None:
    stored = STORED[form][name]
    assert continued(name, stored, url) == stored["continued"]


@pytest.mark.parametrize("name", CASES)
def test_a_thread_of_this_version_goes_on_as_one_of_an_earlier_version(name: str, url: str) -> None:
    seen, expected_end = continued(name, made(name), url), dict(FIRST[name]["continued"])
    if name == "a packet has failed":
        # LangGraph does not store a result that comes while another packet fails: its node may run
        # again.
        for end in (seen, expected_end):
            end["notes"] = sorted(set(end["notes"]))
    assert seen == expected_end


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_the_labels_of_a_finished_run_decide_however_it_was_stored(
    durability: Any, url: str
) -> None:
    def target(state: Bill) -> str:
        return "pay" if "due" in state else "read"

    made: Any = StateGraph(Bill).add_conditional_edges(START, target, ["read", "pay"])
    made.add_node("read", lambda state: {"due": len(state["text"])})
    made.add_node("pay", lambda state: {"paid": state["due"]})
    model = ChatSequrity("any/model", base_url=url, policy=BY_TAG, features=DUAL)
    runs = LangGraphExecutor(made, model, checkpointer=InMemorySaver(), on_denied="state:denial")
    invoke = partial(runs.invoke, config=THREAD, durability=durability)
    assert invoke({"text": "abc"})["due"] == 3
    assert invoke({"text": "de"})["denial"]["tool"] == "pay"
    runs.update_state(THREAD, {"due": 4})
    assert invoke({"text": "fg"})["paid"] == 4


def test_the_stored_runs_of_the_large_graph_ended_as_in_langgraph() -> None:
    state, calls = expected()
    ends = [stored["continued"] for name, stored in FIRST.items() if name.startswith("write")]
    assert len(ends) == len(CRASHES)
    for end in ends:
        assert end["outcome"]["text"] == state["text"]
        assert set(end["notes"]) == set(calls)


def test_what_is_stored_can_be_read_again(url: str) -> None:
    saver = InMemorySaver()
    executor(graph, lambda _: None, saver, url).invoke(GIVEN, THREAD)
    again = loaded(json.loads(json.dumps(dumped(saver))))
    assert again.get_tuple(THREAD) == saver.get_tuple(THREAD)
