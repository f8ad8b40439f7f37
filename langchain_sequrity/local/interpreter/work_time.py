"""What a thread has worked, without a collection of garbage that fell into it.

Python collects the garbage of the whole process in whichever thread makes the next object. In a
process with many objects that takes a second, and it is nobody's work in particular. It comes
seldom there, so one is forgiven; a program that makes them come again and again pays for them.
"""

import gc
import threading
import time
from typing import Any

_FULL = 2
"""Generation of the collections that look at every object."""

_here = threading.local()


class WorkTime:
    """Seconds of processor time that this thread has worked since then, but for one collection."""

    __slots__ = ("_forgiven", "_start")

    def __init__(self) -> None:
        self._start = time.thread_time()
        self._forgiven: float | None = None
        _here.watched = self

    def spent(self) -> float:
        """The seconds so far; to be asked for in the thread that made it."""
        return time.thread_time() - self._start - (self._forgiven or 0.0)

    def forgive(self, seconds: float) -> None:
        """Leave a collection out, if it is the first one."""
        if self._forgiven is None:
            self._forgiven = seconds


def _watch(phase: str, info: dict[str, Any]) -> None:
    if info["generation"] < _FULL:
        return
    if phase == "start":
        _here.began = time.thread_time()
        return
    watched: WorkTime | None = getattr(_here, "watched", None)
    if watched is not None:
        watched.forgive(time.thread_time() - _here.began)


gc.callbacks.append(_watch)
