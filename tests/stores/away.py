"""Redis is away for a while, under load: `python -m tests.stores.away --seconds 30`."""

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from langchain_sequrity.display.progress import progress
from tests.stores.redis_servers import wait_until
from tests.stores.stage import Counts, Stage, stage
from tests.stores.talks import Attempt, Ledger, talk_until

_TALKS = 24
_LONGEST = 5.0
"""Seconds after which a refusal counts as hung; it takes milliseconds on an idle machine."""


@dataclass
class Result:
    """What a run counted.

    Attributes:
        ledger: What the talks have seen.
        refusals: Statuses of what was sent while Redis was away.
        longest: The longest of these replies, in seconds.
        runs: Runs of the model meanwhile.
        seconds_back: Seconds until the first answer after Redis was back.
        problems: What must not be.
    """

    ledger: Ledger = field(default_factory=Ledger)
    refusals: Counts = field(default_factory=Counter)
    longest: float = 0.0
    runs: int = 0
    seconds_back: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        refusals = {int(status): number for status, number in self.refusals.items()}
        return (
            f"replies while Redis was away: {refusals}, longest {self.longest:.3f} s; {self.runs} "
            f"runs of the model meanwhile; first answer {self.seconds_back:.2f} s after it was "
            f"back; talks {dict(self.ledger.counts)}; {len(self.problems)} problems"
        )


def run(seconds: float) -> Result:
    """Let clients talk, let Redis be away for so many seconds, and let the clients go on."""
    result, is_over = Result(), threading.Event()
    with stage() as stage_, ThreadPoolExecutor(1) as threads:
        load = threads.submit(asyncio.run, _load(stage_.proxy.url, result.ledger, is_over))
        try:
            _be_away(stage_, result, seconds)
        finally:
            is_over.set()
            load.result()
    result.ledger.check()
    result.problems += result.ledger.problems
    return result


async def _load(url: str, ledger: Ledger, is_over: threading.Event) -> None:
    numbers = count()
    talks = [talk_until(is_over.is_set, url, ledger, numbers, steps=20) for _ in range(_TALKS)]
    await asyncio.gather(*talks)


def _be_away(stage_: Stage, result: Result, seconds: float) -> None:
    ledger = result.ledger
    wait_until(lambda: ledger.counts["answered"] > 5 * _TALKS, lambda: "the talks do not begin")
    under_way = ledger.unfinished
    stage_.redis.kill()
    # What was under way may still ask its model; it cannot be committed.
    under_way += ledger.unfinished
    wait_until(lambda: all(attempt.ended for attempt in under_way), lambda: "a request hangs")
    began, runs = time.monotonic(), stage_.runs().total()
    time.sleep(seconds)  # time is the subject
    result.runs = stage_.runs().total() - runs
    ended = time.monotonic()
    stage_.redis.start()
    back = time.monotonic()
    answered = ledger.counts["answered"]
    wait_until(lambda: ledger.counts["answered"] > answered, lambda: "nothing goes on")
    result.seconds_back = time.monotonic() - back
    wait_until(lambda: ledger.counts["answered"] > answered + 5 * _TALKS, lambda: "not all go on")
    # Those that had no reply before Redis came back may have got an answer.
    meanwhile = [a for a in ledger.attempts if a.began > began and (a.ended or back) < ended]
    _check(result, meanwhile)


def _check(result: Result, meanwhile: Sequence[Attempt]) -> None:
    for attempt in meanwhile:
        lasted = attempt.ended - attempt.began
        result.refusals[str(attempt.status)] += 1
        result.longest = max(result.longest, lasted)
        if attempt.status != 503 or not attempt.retry_after:
            result.problems.append(f"{attempt.status}, Retry-After: {attempt.retry_after}")
        if lasted > _LONGEST:
            result.problems.append(f"a refusal took {lasted:.1f} s")
    if not meanwhile:
        result.problems.append("nothing was asked while Redis was away")
    if result.runs:
        result.problems.append(f"the model ran {result.runs} times while Redis was away")


def main(arguments: Sequence[str]) -> int:
    """Be away; returns 1 for any problem."""
    parser = argparse.ArgumentParser(description="Stop Redis for a while, under load.")
    parser.add_argument("--seconds", type=float, default=30)
    with progress("Being away", waits=True):
        result = run(parser.parse_args(arguments).seconds)
    for line in (*result.problems, str(result)):
        sys.stdout.write(line + "\n")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
