"""Time limits: `Timeouts` that a user sets, and the `Deadline` of one call."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import httpcore
import httpx

from langchain_sequrity.errors import UsageError

_READ = 600.0
"""Seconds to wait for the next bytes, unless a longer total is given."""
_SILENCE = 120.0
"""Seconds to wait for the next event of a stream, unless a longer total is given."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one call, in seconds; `None` means no limit.

    | Limit | Time for |
    |---|---|
    | `connect` | opening the connection, with TLS |
    | `read` | waiting for the next bytes |
    | `write` | sending the request |
    | `pool` | waiting for a free connection |
    | `total` | the whole call: all attempts, the waits between them, and a stream to its end |
    | `silence` | waiting for the next event of a stream; comments and other padding do not count |

    A stream's `total` includes the time that its consumer takes between two pieces; `silence` does
    not. All limits are exact, even if a server sends single bytes slowly. The exceptions are a
    proxy and a client that you pass: limits are then checked when bytes arrive, so a call may last
    up to one `read` (or `silence`) limit longer than `total`.

    Example:
        ```python
        from langchain_sequrity.transport import Timeouts

        assert Timeouts.of(30.0).total == 30.0
        ```
    """

    connect: float | None = 10.0
    read: float | None = _READ
    write: float | None = 60.0
    pool: float | None = None
    total: float | None = 600.0
    silence: float | None = _SILENCE

    def __post_init__(self) -> None:
        """Check that each limit is a positive, finite number."""
        for name in self.__slots__:
            limit = getattr(self, name)
            is_number = isinstance(limit, int | float)
            if limit is not None and not (is_number and 0 < limit < math.inf):
                msg = (
                    f"The timeout `{name}` must be a number of seconds above 0, or `None` for no "
                    f"limit; got {limit!r}."
                )
                raise UsageError(msg)

    @classmethod
    def of(
        cls,
        timeout: float | httpx.Timeout | None,
        silence: float | Literal["default"] | None = "default",
    ) -> "Timeouts":
        """Read the argument `timeout` of a model.

        Args:
            timeout: A number is the total in seconds; `read` is at least as long, so that it does
                not end the call earlier. An `httpx.Timeout` gives the four limits of single
                operations and sets no total. `None` means the defaults.
            silence: Seconds without an event after which a stream ends with an error; `None` for
                no limit. The default is 120, or `timeout` if that is a longer total: the service
                may plan for that long before it streams anything.

        Returns:
            The limits.

        Raises:
            UsageError: If a limit is not above 0.
        """
        longer = timeout if isinstance(timeout, int | float) else 0
        if silence == "default":
            silence = max(longer, _SILENCE)
        if isinstance(timeout, httpx.Timeout):
            return cls(**timeout.as_dict(), total=None, silence=silence)
        if timeout is None:
            return cls(silence=silence)
        return cls(total=timeout, read=max(longer, _READ), silence=silence)

    def by_operation(self) -> dict[str, float | None]:
        """The four limits of single operations, as httpx and httpcore take them."""
        return {name: getattr(self, name) for name in ("connect", "read", "write", "pool")}


@dataclass(frozen=True, slots=True)
class Clock:
    """The source of time, and the ways to wait.

    Attributes:
        now: Gives the time in seconds, from any starting point.
        sleep: Waits in a thread, in seconds.
        asleep: Waits in an event loop, in seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep


CLOCK = Clock()
"""The clock of this machine."""


class Deadline:
    """The time that one call has left.

    Args:
        total: Seconds for the whole call, or `None`.
        silence: Seconds for the next event of a stream, or `None`.
        clock: The source of time.

    Attributes:
        clock: The source of time.
    """

    __slots__ = ("_end", "_silence", "_silent_end", "_total", "clock")

    def __init__(
        self, total: float | None = None, silence: float | None = None, clock: Clock = CLOCK
    ) -> None:
        self.clock = clock
        self._total = total
        self._silence = math.inf if silence is None else silence
        self._end = math.inf if total is None else self.clock.now() + total
        self._silent_end = math.inf

    def within(self, timeout: float | None, passed: type[Exception]) -> "Deadline":
        """The deadline of one operation of several steps; arguments as for `shortened`."""
        return Deadline(self.shortened(timeout, passed), clock=self.clock)

    def start_attempt(self) -> None:
        """Stop the limit on silence: until the head of a reply comes, `read` is the limit."""
        self._silent_end = math.inf

    def expect_event(self) -> None:
        """Start the limit on silence again: an event came, or the head of a stream."""
        self._silent_end = self.clock.now() + self._silence

    def finish_within(self, seconds: float) -> None:
        """Move the end nearer, once everything that matters has come."""
        self._end = min(self._end, self.clock.now() + seconds)

    def remaining(self) -> float:
        """Seconds that are left of the total; negative once it has passed."""
        return self._end - self.clock.now()

    def shortened(self, timeout: float | None, passed: type[Exception]) -> float | None:
        """Shorten the limit of one operation to the time that is left.

        Args:
            timeout: The operation's own limit in seconds, or `None`.
            passed: The exception to raise if no time is left. (A socket reads 0 as "do not block",
                which would allow a slow server another read.)

        Returns:
            Seconds, or `None` for no limit.
        """
        end = min(self._end, self._silent_end)
        if end == math.inf:
            return timeout
        remaining = end - self.clock.now()
        if remaining <= 0:
            raise passed
        return remaining if timeout is None else min(timeout, remaining)

    def check(self) -> None:
        """Raise `httpcore.ReadTimeout` if the total or the limit on silence has passed."""
        self.shortened(None, httpcore.ReadTimeout)

    def shorten_all(self, timeouts: Timeouts) -> dict[str, float | None]:
        """The limits of single operations, for a client that does not know deadlines.

        Args:
            timeouts: The limits that the user set.

        Returns:
            The limits as httpx takes them. Each is at most the time that is left of the call, and
            `read` is at most the limit on silence.
        """
        limits = {
            name: self.shortened(limit, httpcore.ConnectTimeout)
            for name, limit in timeouts.by_operation().items()
        }
        if self._silence < math.inf:
            limits["read"] = min(limits["read"] or math.inf, self._silence)
        return limits

    def passed(self) -> tuple[Literal["total", "silence"], float] | None:
        """The limit that has passed, with its seconds; `None` if none has."""
        now = self.clock.now()
        if self._total is not None and now >= self._end:
            return "total", self._total
        if now >= self._silent_end:
            return "silence", self._silence
        return None
