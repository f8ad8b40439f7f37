"""A server that is killed in the middle of chats, turns with tools and graphs, and started again.

`python -m tests.transport.faults.kills --kills 40` kills it 40 times.
"""

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Self

from langchain_sequrity.display.progress import tracked
from tests.transport.faults.calls import Case, Clients, case_of, talk, talk_in_thread
from tests.transport.faults.running import Totals

_AT_ONCE = 24
_PATIENCE = 120.0
"""Seconds within which the server starts; on an idle machine it takes one."""


class Served:
    """`langchain-sequrity serve` in a process of its own, always on the same port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it accepts connections."""
        command = [sys.executable, "-m", "langchain_sequrity.cli", "serve", "--port"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, str(self._port)], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                assert self._process.poll() is None, "the server did not start"
                assert time.monotonic() < end, "the server did not listen in time"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """Kill it as the system does when memory is short."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()


def run(kills: int, seed: int = 0) -> Totals:
    """Call without a pause, until the server has been killed so many times, and once more."""
    totals = Totals()
    with Served() as served, ThreadPoolExecutor(_AT_ONCE + 1) as threads:
        asyncio.run(_run(served, threads, kills, seed, totals))
    return totals


async def _run(
    served: Served, threads: ThreadPoolExecutor, kills: int, seed: int, totals: Totals
) -> None:
    loop, clients = asyncio.get_running_loop(), Clients(served.base_url)
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    numbers, ended = count(seed * 1_000_000), asyncio.Event()
    finished = asyncio.Semaphore(0)

    async def work() -> None:
        while not ended.is_set():
            case = _case(next(numbers))
            await clients.until_up(replace(case, way="ainvoke"))  # the loop must not block
            if case.is_async:
                outcome = await talk(case, clients)
            else:
                outcome = await loop.run_in_executor(threads, talk_in_thread, case, clients)
            totals.add(outcome)
            finished.release()

    working = [loop.create_task(work()) for _ in range(_AT_ONCE)]
    for left in tracked(range(kills, -1, -1), "Killing", unit="servers", waits=True):
        for _ in range(dice.randint(_AT_ONCE, 3 * _AT_ONCE)):
            await finished.acquire()
        if left:
            clients.is_up.clear()
            served.kill()
            await loop.run_in_executor(threads, served.start)
            clients.is_up.set()
    ended.set()
    await asyncio.gather(*working)


def _case(number: int) -> Case:
    case = case_of(number, "nothing")
    kinds = ("chat", "tool", "tool", "graph")
    kind = kinds[number % len(kinds)]
    form = "chat" if kind == "graph" else case.format
    dual = kind == "tool" and number % 8 < 4
    return replace(case, kind=kind, format=form, dual=dual, is_scripted=False)


def main(arguments: Sequence[str]) -> int:
    """Kill; returns 1 for any violation."""
    parser = argparse.ArgumentParser(description="Kill a server in the middle of calls.")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    totals = run(options.kills, options.seed)
    for problem in totals.problems:
        sys.stdout.write(problem + "\n")
    names = {name: number for (_, name), number in sorted(totals.outcomes.items())}
    sys.stdout.write(
        f"{options.kills} kills, {totals.calls} calls in {totals.cases} cases: {names}; "
        f"longest call {totals.longest:.1f} s; {len(totals.problems)} problems\n"
    )
    return 1 if totals.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
