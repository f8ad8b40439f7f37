"""200 `ainvoke` with 50 at a time: CPU time and wall time of a call."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from statistics import median, quantiles

from benchmarks.formats import CHAT_COMPLETIONS
from benchmarks.measure import Effort, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, chat_models, prompt_body
from benchmarks.report import Row, compare

_CALLS = 200
_AT_A_TIME = 50

Call = Callable[[], Awaitable[object]]


def measure(base_url: str, effort: Effort) -> list[Row]:
    bare = BareHttpx(CHAT_COMPLETIONS, base_url)
    calls: dict[str, Call] = {
        name: partial(model.ainvoke, PROMPT)
        for name, model in chat_models(CHAT_COMPLETIONS, base_url).items()
    }
    calls[HTTPX] = partial(bare.apost, prompt_body(CHAT_COMPLETIONS))
    # One loop for all rounds: clients keep their connections as long as their loop lives.
    with asyncio.Runner() as runner:
        crowds = {name: _Crowd(runner, call) for name, call in calls.items()}
        samples = interleaved(crowds, effort)
        runner.run(bare.aclose())
    # The first round is discarded, as in `interleaved`.
    p50 = {name: crowd.p50[1:] for name, crowd in crowds.items()}
    p99 = {name: crowd.p99[1:] for name, crowd in crowds.items()}
    return [
        compare("50 concurrent, CPU per call", samples, rival=0.5),
        compare("50 concurrent, p50 of wall time", p50),
        compare("50 concurrent, p99 of wall time", p99, rival=1.0),
    ]


class _Crowd:
    """The calls of one peer. Each run is a round.

    Args:
        runner: Runs the calls.
        call: One call.
    """

    def __init__(self, runner: asyncio.Runner, call: Call) -> None:
        self._runner = runner
        self._call = call
        self.p50: list[float] = []
        self.p99: list[float] = []

    def __call__(self) -> float:
        start = time.process_time()
        walls = self._runner.run(_all_calls(self._call))
        spent = time.process_time() - start
        self.p50.append(median(walls))
        self.p99.append(quantiles(walls, n=100)[-1])
        return spent / _CALLS


async def _all_calls(call: Call) -> list[float]:
    left = iter(range(_CALLS))
    done = await asyncio.gather(*(_one_after_another(call, left) for _ in range(_AT_A_TIME)))
    return [wall for walls in done for wall in walls]


async def _one_after_another(call: Call, left: Iterable[int]) -> list[float]:
    walls = []
    for _ in left:
        start = time.perf_counter()
        await call()
        walls.append(time.perf_counter() - start)
    return walls
