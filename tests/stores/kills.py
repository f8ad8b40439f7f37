"""Workers, program workers and Redis are killed, cut off and paused in the middle of turns.

`python -m tests.stores.kills --kills 200` does so 200 times.
"""

import argparse
import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

from langchain_sequrity.display.progress import hide, tracked
from tests.stores.stage import FAULTS, Counts, Faults, Stage, stage
from tests.stores.talks import Ledger, talk_until
from tests.transport.faults.calls import Case, Clients, case_of, talk, talk_in_thread
from tests.transport.faults.running import Totals

_TALKS = 12
_CASES = 8
_REST = (10, 40)  # requests that end between two faults


@dataclass
class Result:
    """What a run counted.

    Attributes:
        ledger: What the talks have seen.
        totals: What the cases of our clients have seen.
        faults: How often each fault happened.
        repeated_runs: Runs of the model beyond one, for each thing that it was asked.
    """

    ledger: Ledger = field(default_factory=Ledger)
    totals: Totals = field(default_factory=Totals)
    faults: Counts = field(default_factory=Counter)
    repeated_runs: int = 0

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        return [*self.ledger.problems, *self.totals.problems]

    def __str__(self) -> str:
        outcomes: Counts = Counter()
        for (_, name), number in self.totals.outcomes.items():
            outcomes[name] += number
        longest = max((a.ended - a.began for a in self.ledger.attempts), default=0.0)
        return (
            f"faults {dict(self.faults)}; talks {dict(self.ledger.counts)}, {len(self.ledger.charges)} "
            f"charges, longest attempt {longest:.1f} s; cases {dict(outcomes)}, longest call "
            f"{self.totals.longest:.1f} s; {self.repeated_runs} runs of the model over one; "
            f"{len(self.problems)} problems"
        )


def run(
    kills: int, kinds: Sequence[str] = FAULTS, seed: int = 0, *, fsync: str = "always",
    tells: bool = False,
) -> Result:  # fmt: skip
    """Let clients talk, let so many faults happen, and let the clients come to their end."""
    result, is_over = Result(), threading.Event()
    with stage(fsync=fsync) as stage_, ThreadPoolExecutor(_CASES + 1) as threads:
        load = threads.submit(asyncio.run, _load(stage_.proxy.url, result, is_over, threads, seed))
        try:
            _cause_faults(stage_, result, kills, kinds, seed, tells=tells)
        finally:
            is_over.set()
            load.result()
        result.ledger.check()
        result.repeated_runs = sum(number - 1 for number in stage_.runs().values())
    return result


def _cause_faults(
    stage_: Stage, result: Result, kills: int, kinds: Sequence[str], seed: int, *, tells: bool
) -> None:
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    faults = Faults(stage_, result.ledger.counts)
    start, told = time.monotonic(), 0
    for number in tracked(range(kills), "Causing", unit="faults", waits=True):
        kind = kinds[number % len(kinds)]
        enough = result.ledger.counts["answered"] + dice.randint(*_REST)
        while result.ledger.counts["answered"] < enough:
            time.sleep(0.005)
        getattr(faults, kind)(dice.randrange(len(stage_.workers)))
        result.faults[kind] += 1
        if tells:
            for problem in result.problems[told:]:
                hide()
                _say(problem)
            told = len(result.problems)
            hide()
            _say(f"{time.monotonic() - start:.0f} s, {kind}: {result}")


async def _load(
    url: str, result: Result, is_over: threading.Event, threads: ThreadPoolExecutor, seed: int
) -> None:
    numbers, clients = count(seed * 1_000_000), Clients(url)
    talks = [talk_until(is_over.is_set, url, result.ledger, numbers) for _ in range(_TALKS)]
    cases = [_make_cases(numbers, clients, result, is_over, threads) for _ in range(_CASES)]
    await asyncio.gather(*talks, *cases)


async def _make_cases(
    numbers: "count[int]", clients: Clients, result: Result, is_over: threading.Event,
    threads: ThreadPoolExecutor,
) -> None:  # fmt: skip
    loop = asyncio.get_running_loop()
    while not is_over.is_set():
        case = _case(next(numbers))
        if case.is_async:
            outcome = await talk(case, clients)
        else:
            outcome = await loop.run_in_executor(threads, talk_in_thread, case, clients)
        result.totals.add(outcome)


def _case(number: int) -> Case:
    case = case_of(number, "nothing")
    kinds = ("chat", "tool", "tool", "graph")
    kind = kinds[number % len(kinds)]
    form = "chat" if kind == "graph" else case.format
    return replace(case, kind=kind, format=form, dual=kind == "tool" and number % 8 < 4)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Kill; returns 1 for any problem."""
    parser = argparse.ArgumentParser(description="Kill workers that share a Redis, and Redis.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kind", choices=FAULTS, help="only this fault")
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kinds = (options.kind,) if options.kind else FAULTS
    result = run(options.kills, kinds, options.seed, fsync=options.fsync, tells=True)
    for problem in result.problems:
        _say(problem)
    _say(str(result))
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
