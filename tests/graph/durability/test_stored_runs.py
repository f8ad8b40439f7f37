"""Threads that an earlier version stored go on as they would have there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity.local import LocalServer
from tests.graph.durability.killing import expected
from tests.graph.durability.stored_runs import (
    CRASHES,
    THREAD,
    continued,
    dumped,
    executor,
    loaded,
    read_all,
)
from tests.graph.durability.subject import GIVEN, graph

STORED: dict[str, Any] = read_all()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


@pytest.mark.parametrize("name", STORED)
def test_a_thread_of_an_earlier_version_goes_on_as_it_did_there(name: str, url: str) -> None:
    assert continued(name, STORED[name], url) == STORED[name]["continued"]


def test_the_stored_runs_of_the_large_graph_ended_as_in_langgraph() -> None:
    state, calls = expected()
    ends = [stored["continued"] for name, stored in STORED.items() if name.startswith("write")]
    assert len(ends) == len(CRASHES)
    for end in ends:
        assert end["outcome"]["text"] == state["text"]
        assert set(end["notes"]) == set(calls)


def test_what_is_stored_can_be_read_again(url: str) -> None:
    saver = InMemorySaver()
    executor(graph, lambda _: None, saver, url).invoke(GIVEN, THREAD)
    again = loaded(json.loads(json.dumps(dumped(saver))))
    assert again.get_tuple(THREAD) == saver.get_tuple(THREAD)
