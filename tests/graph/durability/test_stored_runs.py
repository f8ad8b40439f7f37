"""Threads that an earlier version stored go on as they would have there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity.local import LocalServer
from tests.graph.durability.killing import expected
from tests.graph.durability.stored_runs import (
    CASES,
    CRASHES,
    FILES,
    THREAD,
    continued,
    dumped,
    executor,
    loaded,
    made,
    read_all,
)
from tests.graph.durability.subject import GIVEN, graph

STORED: dict[str, dict[str, Any]] = {form: read_all(file) for form, file in FILES.items()}
THREADS = [(form, name) for form, threads in STORED.items() for name in threads]
[FIRST, *_] = STORED.values()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


@pytest.mark.parametrize(("form", "name"), THREADS)
def test_a_thread_of_an_earlier_version_goes_on_as_it_did_there(
    form: str, name: str, url: str
) -> None:
    stored = STORED[form][name]
    assert continued(name, stored, url) == stored["continued"]


@pytest.mark.parametrize("name", CASES)
def test_a_thread_of_this_version_goes_on_as_one_of_an_earlier_version(name: str, url: str) -> None:
    assert continued(name, made(name), url) == FIRST[name]["continued"]


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
