"""What the command that serves clients for minutes finds."""

import sys
from dataclasses import replace

import pytest

from tests.local.faults.steady import Sample, run, trends

FLAT = Sample(megabytes=150, descriptors=30, threads=20, workers=8, sessions=5_000)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_ordinary_clients_get_right_replies_and_the_server_logs_no_error() -> None:
    samples, replies, errors = run(seconds=2, clients=5, pause=0.5)

    assert replies.problems == {}
    assert replies.statuses[200] > 5
    assert errors == ""
    assert samples[-1].sessions > 0


@pytest.mark.parametrize("name", ["megabytes", "descriptors", "threads", "workers"])
def test_what_grows_is_told_and_what_goes_up_and_down_is_not(name: str) -> None:
    before = getattr(FLAT, name)
    rising = [replace(FLAT, **{name: before + 4 * number}) for number in range(20)]
    noisy = [replace(FLAT, **{name: before + 4 * (number % 2)}) for number in range(20)]
    busier = [
        replace(FLAT, **{name: before + 9 * number * (number % 3 > 0)}) for number in range(20)
    ]

    assert trends(rising) == [f"{name} +{4 * 14}"]
    assert trends(noisy) == []
    assert trends(busier) == []
