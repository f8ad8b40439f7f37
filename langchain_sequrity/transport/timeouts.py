"""How long things may take: the limits a user sets, and the running clock of one call."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import httpcore
import httpx

from langchain_sequrity.errors import UsageError

Limit = Literal["total", "silence"]
_READ = 600.0
_SILENCE = 120.0
"""Seconds to wait for the next bytes, unless more is given."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one call, in seconds; `None` means no limit.

    | Limit | On |
    |---|---|
    | `connect` | making the connection, TLS included |
    | `read` | waiting for the next bytes |
    | `write` | sending the request |
    | `pool` | waiting for a free connection |
    | `total` | the whole call: all attempts, the waits between them, and a stream to its end |
    | `silence` | waiting for the next event of a stream; comments and other padding do not count |

    A stream's `total` includes the time that its consumer takes between two pieces; `silence` does
    not. All limits are kept exactly, also against a server that trickles, except through a proxy
    or an injected client: there they are checked whenever bytes arrive, so a call may last up to
    one `read` (or `silence`) limit longer than `total`.

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
        """Refuse limits that no clock can keep."""
        for name in self.__slots__:
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                msg = (
                    f"The timeout `{name}` must be a number of seconds above 0, or `None` for no "
                    f"limit; it is `{limit}`."
                )
                raise UsageError(msg)

    @classmethod
    def of(
        cls,
        timeout: float | httpx.Timeout | None,
        silence: float | Literal["default"] | None = "default",
    ) -> "Timeouts":
        """Read what users give as `timeout`.

        Args:
            timeout: A number is the total in seconds; `read` grows with it, so that it does not end
                the call before. An `httpx.Timeout` gives the four limits of
                single operations and sets no total. `None` takes the defaults.
            silence: Seconds without an event after which a stream is given up; `None` for no
                limit. The default is 120, or `timeout` where that is a longer total: a turn may be
                planned for as long before anything is streamed.

        Returns:
            The limits.

        Raises:
            UsageError: If a limit is not above 0.
        """
        if silence == "default":
            silence = max(timeout, _SILENCE) if isinstance(timeout, int | float) else _SILENCE
        if isinstance(timeout, httpx.Timeout):
            return cls(**timeout.as_dict(), total=None, silence=silence)
        if timeout is None:
            return cls(silence=silence)
        # The class's own default: what a single wait may take where nothing longer is asked for.
        return cls(total=timeout, read=max(timeout, _READ), silence=silence)

    def by_operation(self) -> dict[str, float | None]:
        """The four limits of single operations, as httpx and httpcore take them."""
        return {
            "connect": self.connect,
            "read": self.read,
            "write": self.write,
            "pool": self.pool,
        }


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from, and how it is waited for.

    Attributes:
        now: Seconds since some moment.
        sleep: Waits in a thread, for seconds.
        asleep: Waits in an event loop, for seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep


CLOCK = Clock()
"""The machine's."""


class Deadline:
    """The running clock of one call.

    Args:
        total: Seconds for the whole call, or `None`.
        silence: Seconds for the next event of a stream, or `None`.
        clock: Where time comes from.

    Attributes:
        clock: Where time comes from.
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

    def within(self, seconds: float | None) -> "Deadline":
        """A deadline of its own for one operation, by the same clock."""
        return Deadline(seconds, clock=self.clock)

    def start_attempt(self) -> None:
        """Nothing is awaited in silence yet: the head of a reply has `read` as its limit."""
        self._silent_end = math.inf

    def expect_event(self) -> None:
        """Count silence from now on: an event came, or the head of a stream."""
        self._silent_end = self.clock.now() + self._silence

    def finish_within(self, seconds: float) -> None:
        """Bring the end nearer: all that matters has come."""
        self._end = min(self._end, self.clock.now() + seconds)

    def left(self) -> float:
        """Seconds of the total that are left; negative once it has passed."""
        return self._end - self.clock.now()

    def bounded(self, timeout: float | None, passed: type[Exception]) -> float | None:
        """Shorten the limit of one operation to what is left.

        Args:
            timeout: The operation's own limit in seconds, or `None`.
            passed: What to raise when nothing is left. (A socket would take 0 as "do not block"
                and so give a trickling server another read.)

        Returns:
            Seconds, or `None` for no limit.
        """
        end = min(self._end, self._silent_end)
        if end == math.inf:
            return timeout
        left = end - self.clock.now()
        if left <= 0:
            raise passed
        return left if timeout is None else min(timeout, left)

    def check(self) -> None:
        """Raise `httpcore.ReadTimeout` once the total or the silence has passed."""
        self.bounded(None, httpcore.ReadTimeout)

    def clip(self, timeouts: Timeouts) -> dict[str, float | None]:
        """The limits of single operations, for a client that does not know deadlines.

        Args:
            timeouts: The limits as the user set them.

        Returns:
            None of them longer than what is left of the call, and `read` not longer than a stream
            may be silent.
        """
        limits = {
            name: self.bounded(limit, httpcore.ConnectTimeout)
            for name, limit in timeouts.by_operation().items()
        }
        if self._silence < math.inf:
            limits["read"] = min(limits["read"] or math.inf, self._silence)
        return limits

    def passed(self) -> tuple[Limit, float] | None:
        """Which limit has passed, if one has, with its seconds."""
        now = self.clock.now()
        if self._total is not None and now >= self._end:
            return "total", self._total
        if now >= self._silent_end:
            return "silence", self._silence
        return None
