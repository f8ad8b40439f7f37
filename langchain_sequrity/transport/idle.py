"""Which idle connection to take next, and which to give up. Does no I/O."""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_IDLE = 100
"""Connections to one origin that are kept for later."""
KEEPALIVE = 55.0
"""Seconds for which an idle connection is kept: below the 60 s after which common load balancers
drop one, since a request that crosses the server's closing is lost."""


class IdleStack(Generic[T]):
    """Idle connections of one origin, last used first. Threads may share it.

    Taking the last used keeps few connections warm, so the oldest are all at the bottom and
    nothing has to be searched.

    Args:
        max_idle: How many are kept.
        keepalive: Seconds for which one is kept.
        now: Gives seconds since some moment.
    """

    def __init__(
        self,
        max_idle: int = MAX_IDLE,
        keepalive: float = KEEPALIVE,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._now = now
        self._max_idle = max_idle
        self._keepalive = keepalive
        self._kept: deque[tuple[float, T]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def take(self) -> tuple[T | None, list[T]]:
        """Take the connection that was used last, and those that are to be closed: too old."""
        oldest = self._now() - self._keepalive
        with self._lock:
            if not self._kept:
                return None, []
            since, connection = self._kept.pop()
            if since >= oldest:
                return connection, []
            dropped = [connection, *(one for _, one in self._kept)]  # which are older still
            self._kept.clear()
        return None, dropped

    def put(self, connection: T) -> list[T]:
        """Keep a connection; return those that are to be closed: too old, or too many."""
        now = self._now()
        dropped = []
        with self._lock:
            self._kept.append((now, connection))
            while self._kept and (
                len(self._kept) > self._max_idle or self._kept[0][0] < now - self._keepalive
            ):
                dropped.append(self._kept.popleft()[1])
        return dropped

    def retire(self) -> list[T]:
        """Give all up as `clear` does, and keep none from now on."""
        self._max_idle = 0
        return self.clear()

    def clear(self) -> list[T]:
        """Give all up and return them; they are the caller's to close."""
        with self._lock:
            dropped = [connection for _, connection in self._kept]
            self._kept.clear()
        return dropped
