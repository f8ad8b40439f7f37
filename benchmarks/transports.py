"""Our pool and maintained libraries: CPU time of an exchange, at 1, 50 and 500 at a time.

An exchange sends a request, reads its reply to the end and releases the connection. Retries,
redaction and readers do not depend on the sender. `benchmarks.promises` shows which promises of
our pool each library keeps. `docs/decisions.md` has both tables.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from benchmarks.formats import CHAT_COMPLETIONS, KEY
from benchmarks.measure import Effort, Samples, interleaved, ratio
from benchmarks.peers import prompt_body
from benchmarks.report import Goal, Row
from benchmarks.senders import (
    AIOHTTP,
    ASYNC_SENDERS,
    HTTPCORE_STACK,
    HTTPX_STACK,
    OURS,
    SENDERS,
)
from langchain_sequrity.transport.http11 import ServiceAddress
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import ServiceCall

_MOST_OPEN = 1000
_MICRO = 1e6
_MOST_OF_A_CANDIDATE = 0.8
"""Our sender stays while each candidate that keeps the promises takes over 1.25 times as long."""
_CANDIDATES = (HTTPCORE_STACK, HTTPX_STACK)
_LIMITS = Timeouts(connect=None)
"""No connect limit: opening 500 connections at once takes longer than the default allows."""
_TOTAL = 3600.0


def measure(base_url: str, effort: Effort) -> list[Row]:
    if AIOHTTP not in ASYNC_SENDERS:
        print("aiohttp and httpx-aiohttp are not installed: no figures of them.", file=sys.stderr)
    body = json.dumps(prompt_body(CHAT_COMPLETIONS)).encode()
    headers = (
        (b"Authorization", b"Bearer " + KEY.encode()),
        (b"Content-Type", b"application/json"),
    )
    exchange = _Exchange(
        ServiceAddress(base_url), ServiceCall(CHAT_COMPLETIONS.path, headers, body)
    )
    effort = replace(effort, most=effort.least)  # the differences are large
    rows = [*_of_threads(exchange, effort), *_of_tasks(exchange, effort)]
    return [*rows, _worst(rows)]


class _Exchange:
    """One request and its reply, through any sender.

    Args:
        address: The address of the server.
        call: The request.
    """

    def __init__(self, address: ServiceAddress, call: ServiceCall) -> None:
        self._address = address
        self._call = call

    def run(self, sender: Any) -> bytes:
        request = self._address.request(self._call)
        with sender.open(request, _LIMITS, Deadline(_TOTAL)) as (_, pieces):
            return b"".join(pieces)

    async def arun(self, sender: Any) -> bytes:
        request = self._address.request(self._call)
        async with sender.open(request, _LIMITS, Deadline(_TOTAL)) as (_, pieces):
            return b"".join([data async for data in pieces])


def _of_threads(exchange: _Exchange, effort: Effort) -> list[Row]:
    senders = {name: make(_MOST_OPEN) for name, make in SENDERS.items()}
    assert len({exchange.run(sender) for sender in senders.values()}) == 1
    rows = []
    for at_a_time, calls in ((1, 200), (50, 200)):
        with ThreadPoolExecutor(at_a_time) as threads:
            work = {
                name: partial(_in_threads, threads, partial(exchange.run, sender), at_a_time, calls)
                for name, sender in senders.items()
            }
            rows.append(_row(f"{at_a_time} in threads", interleaved(work, effort)))
    for sender in senders.values():
        sender.close()
    return rows


def _in_threads(
    threads: Executor, exchange: Callable[[], object], at_a_time: int, calls: int
) -> float:
    def all_calls(number: int) -> None:
        for done in [threads.submit(exchange) for _ in range(number)]:
            done.result()

    return _cpu(all_calls, at_a_time, calls)


def _of_tasks(exchange: _Exchange, effort: Effort) -> list[Row]:
    rows = []
    # One loop for all rounds: connections live as long as their loop.
    with asyncio.Runner() as runner:
        senders = runner.run(_made())
        bodies = {runner.run(exchange.arun(sender)) for sender in senders.values()}
        assert len(bodies) == 1
        # httpx's own pool needs half a minute for a round of 500 at a time.
        few = replace(effort, least=max(3, effort.least // 3), most=max(3, effort.least // 3))
        for at_a_time, calls, rounds in ((1, 200, effort), (50, 200, effort), (500, 500, few)):
            work = {
                name: partial(_in_tasks, runner, partial(exchange.arun, sender), at_a_time, calls)
                for name, sender in senders.items()
            }
            rows.append(_row(f"{at_a_time} in a loop", interleaved(work, rounds)))
        for sender in senders.values():
            runner.run(sender.aclose())
    return rows


async def _made() -> dict[str, Any]:
    return {name: make(_MOST_OPEN) for name, make in ASYNC_SENDERS.items()}


def _in_tasks(
    runner: asyncio.Runner,
    exchange: Callable[[], Awaitable[object]],
    at_a_time: int,
    calls: int,
) -> float:
    async def all_calls(number: int) -> None:
        left = iter(range(number))
        await asyncio.gather(*(one_after_another(left) for _ in range(at_a_time)))

    async def one_after_another(left: Iterable[int]) -> None:
        for _ in left:
            await exchange()

    return _cpu(lambda number: runner.run(all_calls(number)), at_a_time, calls)


def _cpu(all_calls: Callable[[int], object], at_a_time: int, calls: int) -> float:
    """CPU time of a call. The first calls open connections again, because idle ones may be old."""
    all_calls(at_a_time)
    start = time.process_time()
    all_calls(calls)
    return (time.process_time() - start) / calls


def _row(case: str, samples: Samples[str]) -> Row:
    times = {name: ratio(samples, name, (OURS,)) for name in samples}
    micro = median(samples[OURS]) * _MICRO
    return Row(f"exchange, {case}: times ours ({micro:.3g} µs)", times)


def _worst(rows: Sequence[Row]) -> Row:
    """The largest ratio of each sender. A replacement must be cheap at every number at a time."""
    names = dict.fromkeys(name for row in rows for name in row.figures)
    worst = {name: max(row.figures[name] for row in rows if name in row.figures) for name in names}
    candidate = min(_CANDIDATES, key=worst.__getitem__)
    goal = Goal(f"/ {candidate}", 1 / worst[candidate], _MOST_OF_A_CANDIDATE)
    return Row("exchange, worst: times ours", worst, goals=[goal])
