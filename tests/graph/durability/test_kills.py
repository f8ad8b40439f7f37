"""A run whose process is killed continues in a new one, and repeats nothing recorded."""

import os
from collections.abc import Iterator

import pytest

from tests.graph.durability.killing import check, expected, killed_runs, killer
from tests.graph.durability.postgres import postgres_or_skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
_KILLS = 3


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    pytest.importorskip("langgraph.checkpoint.postgres")
    with postgres_or_skip() as saver:
        yield saver


@pytest.mark.long
@pytest.mark.parametrize(("strict", "history"), [(False, "new"), (True, "whole")])
def test_a_killed_run_ends_correctly_and_repeats_no_recorded_call(
    strict: bool, history: str
) -> None:
    with killer(strict=strict) as made:
        made.history = history
        runs = killed_runs(made, _KILLS)
        sent = sum(len(run.of("request")) for run in runs)
        assert sent - _KILLS <= len(made.answered) <= sent
        assert {record.status for record in made.answered} <= {200, 499}


@pytest.mark.long
def test_a_killed_run_ends_as_in_langgraph_on_postgres(postgres_server: str) -> None:
    with killer(postgres_server) as made:
        killed_runs(made, _KILLS)


@pytest.mark.long
def test_a_run_that_dies_repeatedly_after_a_few_writes_ends_as_in_langgraph() -> None:
    with killer() as made:
        run = made.dying(20)
    check(run)
    assert len(run.kills) >= 3


@pytest.mark.long
def test_a_killed_run_continues_with_a_service_that_forgot_its_session() -> None:
    with killer(forgets=True) as made:
        killed_runs(made, _KILLS)
        assert 404 in {record.status for record in made.answered}


def test_the_graph_has_thirty_nodes_and_never_makes_a_call_twice() -> None:
    _, calls = expected()
    names = {call.split()[0] for call in calls}
    assert len(names | {"left", "middle"}) == 30 + len({"again", "side", "pieces"})
    assert len(calls) == len(set(calls))
