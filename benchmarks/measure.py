"""Measuring: peers take turns, figures are medians, and ratios are taken within a round.

The speed of the machine changes from one second to the next, because of other work on it. So all
peers run in each round, in another order each time. A ratio is taken within a round, where the
conditions are the same for all. Rounds continue until two halves of them agree.

Each round also begins at another depth of calls. CPython keeps frames in chunks of memory. If a
call crosses the end of a chunk, it allocates and frees memory each time. The same code may take
twice as long at one depth as at another, and no peer may profit from the better one.
"""

import gc
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from langchain_sequrity.display.progress import tracked

K = TypeVar("K", bound=Hashable)
Samples = Mapping[K, Sequence[float]]
"""The figures of each peer. Figures at the same index are of the same round."""

DEPTHS = tuple(range(0, 120, 8))
"""Call depths at which rounds begin. They span about one chunk of Python's frame stack."""

_AGREE = 0.02
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        least: The minimum number of rounds.
        most: The maximum number of rounds, even if the figures still change.
        seconds: The time of one peer in a round.
        calls: The number of calls for the measurement of growth.
    """

    least: int
    most: int
    seconds: float
    calls: int


FULL = Effort(least=15, most=60, seconds=0.05, calls=5000)
QUICK = Effort(least=3, most=3, seconds=0.02, calls=1000)
TRIAL = Effort(least=2, most=2, seconds=1e-9, calls=40)
"""Shows that the benchmarks run. Its figures mean nothing."""


def cpu(
    action: Callable[[], object],
    effort: Effort,
    clock: Callable[[], float] = time.process_time,
) -> Callable[[], float]:
    """Make a measurement: the CPU time of this process for one action, in seconds.

    Args:
        action: What to measure. It is repeated until the time of the round is over.
        effort: Gives the time of a round.
        clock: Another clock, for work that other processes do too.
    """

    def run() -> float:
        action()  # fills the processor's caches, which the other peers changed
        count, spent, start = 0, 0.0, clock()
        while spent < effort.seconds:
            action()
            count += 1
            spent = clock() - start
        return spent / count

    return run


def interleaved(work: Mapping[K, Callable[[], float]], effort: Effort) -> dict[K, list[float]]:
    """Run all measurements in rounds.

    Args:
        work: The measurement of each peer. It returns the figure.
        effort: Gives the number of rounds.

    Returns:
        The figures. The first round is discarded: it opens connections and fills caches.
    """
    samples: dict[K, list[float]] = {name: [] for name in work}
    order = list(work)
    for run in work.values():
        run()
    # Without a thread, whose time would be a part of the figures.
    for count in tracked(range(1, effort.most + 1), "Measuring", unit="rounds at most"):
        random.shuffle(order)
        for name in order:
            gc.collect()  # so that no peer pays for another's garbage
            samples[name].append(at_depth(DEPTHS[count % len(DEPTHS)], work[name]))
        if count >= effort.least and _agree(samples):
            break
    return samples


def at_depth(depth: int, action: Callable[[], T]) -> T:
    """Call an action this many frames deeper."""
    return at_depth(depth - 1, action) if depth else action()


def _agree(samples: Samples[K]) -> bool:
    """Whether even and odd rounds give each peer the same share of a round."""
    totals = [sum(figures) for figures in zip(*samples.values(), strict=True)]
    for figures in samples.values():
        shares = [figure / total for figure, total in zip(figures, totals, strict=True)]
        one, other = median(shares[::2]), median(shares[1::2])
        if abs(one - other) > _AGREE * max(one, other):
            return False
    return True


def ratio(samples: Samples[K], one: K, others: Sequence[K]) -> float:
    """The figure of one peer, divided by the sum of the others: the median over the rounds."""
    totals: list[float] = [
        sum(figures) for figures in zip(*(samples[name] for name in others), strict=True)
    ]
    return median(figure / total for figure, total in zip(samples[one], totals, strict=True))
