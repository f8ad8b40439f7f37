"""Calls through a proxy that damages replies and connections: all end, and none ends wrong."""

import pytest

from tests.transport.faults import kills
from tests.transport.faults.calls import case_of
from tests.transport.faults.replies import FAULTS
from tests.transport.faults.running import Totals, run

SAMPLE = 200


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("first", range(0, 15 * SAMPLE, SAMPLE))
def test_each_call_through_a_faulty_proxy_ends_right_or_with_an_error_of_ours(first: int) -> None:
    totals = Totals()

    run((case_of(number) for number in range(first, first + SAMPLE)), totals=totals)

    assert totals.problems == []
    assert totals.cases == SAMPLE
    assert SAMPLE / 3 < totals.right < SAMPLE


def test_each_fault_leaves_calls_right_or_ended_with_an_error_of_ours() -> None:
    totals = Totals()

    faults = sorted([*FAULTS] * 3)
    run((case_of(number, name) for number, name in enumerate(faults)), totals=totals)

    assert totals.problems == []
    assert {fault for fault, _ in totals.outcomes} == {*FAULTS}


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_happens_twice_or_wrong_around_a_server_that_is_killed(seed: int) -> None:
    totals = kills.run(1, seed)

    assert totals.problems == []
    names = {name for _, name in totals.outcomes}
    assert "right" in names
    assert names & {"ConnectionFailed", "StreamInterrupted"}
