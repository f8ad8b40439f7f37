"""Makes calls through the proxy and prints what became of them; exits 1 if a law is broken."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count, takewhile

from langchain_sequrity.display.progress import hide, tracked
from tests.transport.faults.calls import case_of
from tests.transport.faults.replies import FAULTS
from tests.transport.faults.running import Totals, most_memory, run

_MOST_MEMORY = 700
"""Megabytes of clients, proxy and server together; a reply may have 64 MiB, and its copies."""


def _say(line: str) -> None:
    hide()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Progress:
    """Prints a line now and then, and each problem at once."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._start = time.monotonic()
        self._told = 0

    def __call__(self, totals: Totals) -> None:
        for problem in totals.problems[self._told :]:
            _say(problem)
        self._told = len(totals.problems)
        if totals.cases % self._every == 0:
            speed = totals.calls / (time.monotonic() - self._start)
            _say(
                f"{totals.cases} cases, {totals.right} right, {len(totals.problems)} problems, "
                f"{speed:.0f} calls a second, {most_memory()} MB"
            )


def _table(totals: Totals) -> None:
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for (fault, name), number in sorted(totals.outcomes.items()):
        rows[fault].append(f"{name} {number}")
    for fault, counts in rows.items():
        _say(f"{fault:22} {', '.join(counts)}")


def main(arguments: Sequence[str]) -> int:
    """Run cases; returns 1 for any violation."""
    parser = argparse.ArgumentParser(description="Call through a proxy that damages replies.")
    parser.add_argument("--count", type=int, default=3_000, help="calls")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--fault", default="", choices=["", *FAULTS], help="only this fault")
    options = parser.parse_args(arguments)
    progress = _Progress(max(100, min(1_000, options.count // 10)))
    start = time.monotonic()
    totals = Totals()
    numbers = takewhile(lambda _: totals.calls < options.count, count(options.first))
    cases = (case_of(number, options.fault) for number in tracked(numbers, "Calling", unit="cases"))
    run(cases, totals=totals, tell=progress)
    if most_memory() > _MOST_MEMORY:
        totals.problems.append(f"the process had more than {_MOST_MEMORY} MB")
    progress(totals)
    _table(totals)
    _say(
        f"{totals.calls} calls in {totals.cases} cases, {totals.right} right, "
        f"{totals.requests} requests to the server, {time.monotonic() - start:.0f} s; "
        f"longest call {totals.longest:.1f} s; {totals.repeated_runs} runs of models too many; "
        f"{most_memory()} MB at most; {len(totals.problems)} problems"
    )
    return 1 if totals.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
