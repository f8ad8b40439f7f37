"""A run of many cases: threads and an event loop call at once, through one proxy."""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from langchain_sequrity.errors import TimedOut
from langchain_sequrity.local import LocalServer
from tests.transport.faults.calls import (
    SCRIPT,
    Case,
    Clients,
    Outcome,
    talk,
    talk_in_thread,
)
from tests.transport.faults.proxy import FaultProxy

_THREADS = 24
_AT_ONCE = 48
_STUCK = 180.0
"""Seconds without the end of any case after which a run gives up; the longest takes 80."""


@dataclass
class Totals:
    """What a run counted.

    Attributes:
        outcomes: Cases by fault and outcome.
        problems: What must not be, with its case.
        calls: Calls that were made.
        repeated_runs: Runs of models beyond one for each call.
        longest: The longest call, in seconds.
        requests: What the server was asked.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    repeated_runs: int = 0
    longest: float = 0.0
    requests: int = 0

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.case.plan.fault.name, outcome.name] += 1
        self.problems += [f"{outcome.case}: {problem}" for problem in outcome.problems]
        self.calls += outcome.calls
        self.repeated_runs += outcome.repeated_runs
        self.longest = max(self.longest, outcome.seconds)

    @property
    def cases(self) -> int:
        """Cases that have ended."""
        return self.outcomes.total()

    @property
    def right(self) -> int:
        """Cases with the right answer."""
        return sum(count for (_, name), count in self.outcomes.items() if name == "right")


@contextmanager
def stage() -> Iterator[FaultProxy]:
    """A server with the script of the cases, and a proxy before it."""
    # 100,000 calls of one bearer may be made in less than the ten minutes of their keys.
    limits = {"replies": 1_000_000}
    with LocalServer(script=SCRIPT, isolated_programs=False, limits=limits) as server:
        port = urlsplit(server.base_url).port
        assert port
        with FaultProxy(port).running() as proxy:
            yield proxy


def run(
    cases: Iterable[Case], *, totals: Totals, tell: Callable[[Totals], None] = lambda _totals: None
) -> None:
    """Make the calls of all cases.

    Args:
        cases: The cases.
        totals: Gets what happens.
        tell: Called after each case.
    """
    with stage() as proxy, ThreadPoolExecutor(_THREADS) as threads:
        asyncio.run(_run(iter(cases), proxy, threads, totals, tell))
        totals.requests = proxy.requests
        totals.problems += [f"the proxy failed: {fault!r}" for fault in proxy.faults]
        if proxy.redirected:
            totals.problems.append(f"{proxy.redirected} redirects were followed")
        if proxy.unplanned:
            totals.problems.append(
                f"requests of no case, or of one that is over: {proxy.unplanned}"
            )


async def _run(
    cases: Iterator[Case],
    proxy: FaultProxy,
    threads: ThreadPoolExecutor,
    totals: Totals,
    tell: Callable[[Totals], None],
) -> None:
    clients, loop = Clients(proxy.url), asyncio.get_running_loop()
    pending: dict[int, Case] = {}

    async def work() -> None:
        for case in cases:
            pending[case.number] = case
            proxy.plans[case.number] = case.plan
            if case.is_async:
                outcome = await talk(case, clients)
            else:
                outcome = await loop.run_in_executor(threads, talk_in_thread, case, clients)
            del proxy.plans[case.number], pending[case.number]
            if outcome.name == TimedOut.__name__:
                proxy.given_up.add(case.number)
            totals.add(outcome)
            tell(totals)

    working = [loop.create_task(work()) for _ in range(_AT_ONCE)]
    while any(not task.done() for task in working):
        before = totals.cases
        await asyncio.wait(working, timeout=_STUCK)
        if totals.cases == before:
            totals.problems += [f"{case}: hung" for case in pending.values()]
            break
    for task in working:
        task.cancel()
    for task in working:
        with suppress(asyncio.CancelledError):
            await task


def most_memory() -> int:
    """The most megabytes that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6
