"""Measuring: peers take turns, each figure is a median, and a ratio is one of the same round.

Other work on the machine changes what a microsecond is worth from one second to the next. So all
peers run in each round, in another order each time; a ratio is taken within a round, where all
had the same luck; and rounds go on until two halves of them agree.

Each round also begins at another depth of calls. CPython keeps frames in chunks of memory, and
where a call just crosses the end of one it gets and returns memory each time: the same code may
take twice as long at one depth as at another, and no peer is to have the luck of the better one.
"""

import gc
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
Samples = Mapping[K, Sequence[float]]
"""Figures by peer; those at the same place are of the same round."""

DEPTHS = tuple(range(0, 120, 8))
"""Depths of calls at which rounds begin: together about one chunk of frames."""

_AGREE = 0.02
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        least: Rounds that are run in any case.
        most: Rounds after which a case ends even if its figures still move.
        seconds: How long one peer works in a round.
        calls: How many calls it takes to look for growth.
    """

    least: int
    most: int
    seconds: float
    calls: int


FULL = Effort(least=15, most=60, seconds=0.05, calls=5000)
QUICK = Effort(least=3, most=3, seconds=0.02, calls=1000)


def cpu(
    action: Callable[[], object],
    effort: Effort,
    clock: Callable[[], float] = time.process_time,
) -> Callable[[], float]:
    """Make a measurement: seconds of CPU time of this process for one action.

    Args:
        action: What to measure; it is repeated as often as a round has time for.
        effort: How long a round is.
        clock: Another clock, for what happens in other processes as well.
    """

    def run() -> float:
        action()  # what the others left in the processor's caches is no one's fault
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
        work: A measurement by peer; it returns its figure.
        effort: How many rounds.

    Returns:
        The figures. A first round is thrown away: it opens connections and fills caches.
    """
    samples: dict[K, list[float]] = {name: [] for name in work}
    order = list(work)
    for run in work.values():
        run()
    for count in range(1, effort.most + 1):
        random.shuffle(order)
        for name in order:
            gc.collect()  # nobody pays for the garbage of another
            samples[name].append(at_depth(DEPTHS[count % len(DEPTHS)], work[name]))
        if count >= effort.least and _agree(samples):
            break
    return samples


def at_depth(depth: int, action: Callable[[], T]) -> T:
    """Call an action from so many calls further down."""
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
    """How many times the others' sum one peer needs: the median over the rounds."""
    totals: list[float] = [
        sum(figures) for figures in zip(*(samples[name] for name in others), strict=True)
    ]
    return median(figure / total for figure, total in zip(samples[one], totals, strict=True))
