"""Amounts of the last minute."""

import math
from collections import deque

_MINUTE = 60.0
_SLOTS_PER_SECOND = 10


class MinuteWindow:
    """Amounts of the last minute. It is exact to a tenth of a second, and never counts too little.

    Example:
        ```python
        from langchain_sequrity.local.minute_window import MinuteWindow

        window = MinuteWindow()
        window.add(3, now=0.0)
        window.add(4, now=30.0)
        assert window.seconds_until_below(5, now=50.0) == 10.1
        assert (window.total(now=59.0), window.total(now=61.0)) == (7, 4)
        ```
    """

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque()  # the end of a slot, and its amount
        self._total = 0

    def add(self, amount: int, now: float) -> None:
        """Add an amount."""
        self._expire(now)
        end = math.floor(now * _SLOTS_PER_SECOND) + 1
        if self._slots and self._slots[-1][0] == end:
            amount += self._slots.pop()[1]
        self._slots.append((end, amount))
        self._total = sum(amount for _, amount in self._slots)

    def total(self, now: float) -> int:
        """The amount of the last minute."""
        self._expire(now)
        return self._total

    def seconds_until_below(self, limit: int, now: float) -> float:
        """Seconds until the amount is below a limit, if nothing is added."""
        excess = self.total(now) - limit
        for end, amount in self._slots:
            if excess < 0:
                break
            excess -= amount
            if excess < 0:
                return max(0.0, round(end / _SLOTS_PER_SECOND + _MINUTE - now, 3))
        return 0.0

    def _expire(self, now: float) -> None:
        while self._slots and self._slots[0][0] / _SLOTS_PER_SECOND + _MINUTE <= now:
            self._total -= self._slots.popleft()[1]
