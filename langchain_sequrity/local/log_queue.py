"""A log that never makes its writers wait: a bounded queue, and a thread that prints.

If nobody reads the output, such as a pipe, records are dropped and counted.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")
_MOST = 10_000
_FLUSH_SECONDS = 1.0


class LogQueue(Generic[R]):
    """Records that a thread prints one after the other.

    Args:
        write: Prints a record. It may block.
        dropped: Makes a record that tells how many were dropped.
        most: The number of records that wait at most.

    Attributes:
        drops: How many records were dropped so far.
    """

    def __init__(
        self, write: Callable[[R], None], dropped: Callable[[int], R], most: int = _MOST
    ) -> None:
        self._write = write
        self._dropped = dropped
        self._most = most
        self._records: deque[R] = deque()
        self._has_changed = threading.Condition()
        self._untold = 0
        self._is_closed = False
        self.drops = 0
        self._thread = threading.Thread(target=self._print_all, name="LogQueue", daemon=True)
        self._thread.start()

    def put(self, record: R) -> None:
        """Add a record, or drop it if too many wait; never blocks."""
        with self._has_changed:
            if len(self._records) >= self._most or self._is_closed:
                self.drops += 1
                self._untold += 1
                return
            self._records.append(record)
            self._has_changed.notify()

    def close(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Print what waits, for some seconds at most; later records are dropped."""
        with self._has_changed:
            self._is_closed = True
            self._has_changed.notify()
        self._thread.join(seconds)

    def _print_all(self) -> None:
        while (record := self._next()) is not None:
            try:
                self._write(record)
            except (OSError, ValueError):  # the reader of a pipe is gone, or the file is closed
                with self._has_changed:
                    self.drops += 1

    def _next(self) -> R | None:
        """The next record: first how many were dropped; `None` after the last one."""
        with self._has_changed:
            self._has_changed.wait_for(lambda: self._records or self._untold or self._is_closed)
            if self._untold and len(self._records) < self._most:
                count, self._untold = self._untold, 0
                return self._dropped(count)
            return self._records.popleft() if self._records else None
