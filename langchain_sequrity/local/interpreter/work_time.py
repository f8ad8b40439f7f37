"""What a thread has worked, without the collections of garbage that fell into it.

Python collects the garbage of the whole process in whichever thread makes the next object. In a
process with many objects that takes a second, and it is nobody's work in particular. What a program
leaves behind itself is bounded by its memory.
"""

import gc
import threading
import time
from typing import Any

_FULL = 2
"""Generation of the collections that look at every object."""

_here = threading.local()


def work_time() -> float:
    """Seconds of processor time of this thread's own work; only differences have a meaning."""
    collecting: float = getattr(_here, "collecting", 0.0)
    return time.thread_time() - collecting


def _watch(phase: str, info: dict[str, Any]) -> None:
    if info["generation"] < _FULL:
        return
    if phase == "start":
        _here.began = time.thread_time()
    else:
        taken = time.thread_time() - _here.began
        _here.collecting = getattr(_here, "collecting", 0.0) + taken


gc.callbacks.append(_watch)
