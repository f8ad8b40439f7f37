"""Slots for work of which only a little may run at once, and threads that give theirs back.

Owners take turns: whoever has one piece of work waits for one piece of each other owner, however
many these have.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_Work = Callable[[], object]


class FairSlots:
    """A number of slots.

    Args:
        count: How many.

    Example:
        ```python
        from langchain_sequrity.local.fair_slots import FairSlots

        slots, begun = FairSlots(1), []
        for owner in ("first", "many", "many", "few"):
            slots.begin(owner, lambda owner=owner: begun.append(owner))
        for _ in range(3):
            slots.end()
        assert begun == ["first", "many", "few", "many"]
        ```
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        # By owner. The first one's turn is next.
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()

    def begin(self, owner: str, work: _Work) -> None:
        """Call a function as soon as a slot is free: now, or on the thread that frees one.

        Args:
            owner: Whose work it is.
            work: Returns soon and raises nothing. `end` has to be called after the work.
        """
        with self._lock:
            if not self._free:
                self._waiting.setdefault(owner, deque()).append(work)
                return
            self._free -= 1
        work()

    def end(self) -> None:
        """Free a slot. The next work that waits begins."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            owner, works = self._waiting.popitem(last=False)
            work = works.popleft()
            if works:
                self._waiting[owner] = works
        work()

    def wait(self, owner: str) -> None:
        """Wait for a slot."""
        has_begun = threading.Lock()
        has_begun.acquire()
        self.begin(owner, has_begun.release)
        has_begun.acquire()

    @contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """Wait for a slot, and free it at the end of the block."""
        self.wait(owner)
        try:
            yield
        finally:
            self.end()


class _SlotOfThread(threading.local):
    """The slot that the current thread has.

    Attributes:
        slots: Of which slots it is one; `None` without a slot.
        owner: Whose work the thread does.
    """

    slots: FairSlots | None = None
    owner: str = ""


_current = _SlotOfThread()


def work_in_slot(slots: FairSlots, owner: str, work: _Work) -> None:
    """Do work in a slot that has begun, and end the slot.

    Args:
        slots: Of which slots it is one.
        owner: Whose work it is.
        work: The work, which may be `waiting`.
    """
    _current.slots, _current.owner = slots, owner
    try:
        work()
    finally:
        _current.slots = None
        slots.end()


@contextmanager
def waiting() -> Iterator[None]:
    """Leave the slot of this thread to others while the block waits for something outside."""
    slots, owner = _current.slots, _current.owner
    if slots is None:
        yield
        return
    _current.slots = None
    slots.end()
    try:
        yield
    finally:
        slots.wait(owner)
        _current.slots = slots
