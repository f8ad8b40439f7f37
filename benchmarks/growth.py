"""Growth of memory, file descriptors and objects after thousands of calls, and of long work."""

import asyncio
import gc
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import long_work
from benchmarks.formats import CHAT_COMPLETIONS, OPENAI, UNSET
from benchmarks.measure import Effort
from benchmarks.peers import PROMPT
from benchmarks.report import Goal, Row
from langchain_sequrity.display.progress import tracked

_STATM = Path("/proc/self/statm")
_WARM_UPS = 5
# The limits leave room for the allocator and for Python's own caches.
_LIMITS = {"kiB of memory": 1024.0, "file descriptors": 0.0, "objects": 100.0}


class _Size(NamedTuple):
    """The memory, descriptors and objects of this process."""

    kib: float
    descriptors: float
    objects: float

    @classmethod
    def now(cls) -> "_Size":
        gc.collect()
        return cls(_rss(), len(os.listdir("/dev/fd")), len(gc.get_objects()))  # noqa: PTH208  # only the number


def measure(base_url: str, effort: Effort) -> list[Row]:
    models = CHAT_COMPLETIONS.models
    ours, openai = models[UNSET](base_url), models[OPENAI](base_url)
    invokes, loops = effort.calls, effort.calls // 20
    grown = {
        UNSET: _growth(lambda: ours.invoke(PROMPT), invokes),
        OPENAI: _growth(lambda: openai.invoke(PROMPT), invokes),
    }
    looped = {UNSET: _growth(lambda: asyncio.run(ours.ainvoke(PROMPT)), loops)}
    return [
        *_rows(f"growth in {invokes} calls", grown),
        *_rows(f"growth in {loops} event loops", looped),
        *long_work.measure(effort),
    ]


def _growth(action: Callable[[], object], times: int) -> _Size:
    # The warm-up fills pools and caches. The first measurements also need memory themselves: the
    # list of all objects is larger than the growth that is measured.
    for _ in range(_WARM_UPS):
        before = _after(action, times // _WARM_UPS)
    return _Size(*(new - old for new, old in zip(_after(action, times), before, strict=True)))


def _after(action: Callable[[], object], times: int) -> _Size:
    for _ in tracked(range(times), "Measuring", unit="calls"):
        action()
    return _Size.now()


def _rows(case: str, grown: dict[str, _Size]) -> list[Row]:
    rows = []
    for index, (unit, limit) in enumerate(_LIMITS.items()):
        figures = {name: size[index] for name, size in grown.items()}
        rows.append(Row(f"{case}, {unit}", figures, goals=[Goal("growth", figures[UNSET], limit)]))
    return rows


def _rss() -> float:
    """Resident memory in KiB, or its peak if the system does not report the present value."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
