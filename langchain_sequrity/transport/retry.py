"""When a failed call is sent again, and after how long (`docs/behaviour.md`, Retries).

A turn that may call tools is sent again only when the service surely did not process it. What
that means is one table, `_may_be_sent_again`; nothing else in the package decides on retries.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_sequrity.errors import (
    RateLimited,
    SequrityError,
    ServiceError,
    StatusError,
    StreamInterrupted,
    TimedOut,
)
from langchain_sequrity.transport.timeouts import Deadline

if TYPE_CHECKING:
    from langchain_sequrity.wire.exchange import Reply

_log = logging.getLogger(__name__)

# Statuses after which trying again may help.
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to try again; times are in seconds.

    Attributes:
        max_retries: Attempts after the first.
        first_wait: Longest wait before the first retry; it doubles with each further one.
        longest_wait: Where the doubling ends.
        longest_retry_after: A longer `Retry-After` is raised at once, for the caller to decide.
        random: Gives a number from 0 to 1, by which each wait is multiplied, so that clients that
            failed together do not come back together.

    Example:
        ```python
        from langchain_sequrity.transport import RetryPolicy

        assert RetryPolicy(first_wait=0.5, random=lambda: 1.0).wait(3) == 4.0
        ```
    """

    max_retries: int = 2
    first_wait: float = 0.5
    longest_wait: float = 8.0
    longest_retry_after: float = 60.0
    random: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def wait(self, retry: int) -> float:
        """Seconds to wait before a retry, counted from 0, where the service names no time."""
        return min(self.longest_wait, self.first_wait * 2.0**retry) * self.random()


class Attempts:
    """The attempts of one call: what has happened so far, and whether there is another.

    Args:
        policy: How often and when.
        deadline: The clock of the call, waits included.
        resend: Whether the call may be sent again though it may have been processed.

    Attributes:
        deadline: The clock.
        head: Status and headers of the present attempt's reply, once they have come.
        output: Whether any of the reply has been handed out. Nothing is sent again after that.
    """

    __slots__ = ("_count", "_policy", "_resend", "deadline", "head", "output")

    def __init__(self, policy: RetryPolicy, deadline: Deadline, *, resend: bool) -> None:
        self._policy = policy
        self._resend = resend
        self._count = 0
        self.deadline = deadline
        self.head: Reply | None = None
        self.output = False

    def wait_after(self, error: SequrityError) -> float | None:
        """Decide what follows an error, and say on it whether it may be sent again.

        Args:
            error: What ended the attempt. `is_retryable` is set on a `ServiceError`.

        Returns:
            Seconds to wait before the next attempt, or `None` if the error is to be raised.
        """
        if not isinstance(error, ServiceError):
            return None
        error.is_retryable = not self.output and self._may_be_sent_again(error)
        wait = self._policy.wait(self._count) if error.retry_after is None else error.retry_after
        if (
            not error.is_retryable
            or self._count >= self._policy.max_retries
            or (error.retry_after or 0) > self._policy.longest_retry_after
            or wait >= self.deadline.left()
        ):
            return None
        self._count += 1
        self.head = None
        self.deadline.start_attempt()
        _log.info("Retrying in %.2f s after %s.", wait, type(error).__name__)
        return wait

    def _may_be_sent_again(self, error: ServiceError) -> bool:
        if error.headers.get("x-should-retry") == "false":
            return False
        if error.is_retryable or (isinstance(error, RateLimited) and not error.inside_reply):
            return True  # never connected, or refused unseen
        if isinstance(error, StatusError):
            return self._resend and error.status in _TEMPORARY
        return self._resend and isinstance(error, StreamInterrupted | TimedOut)
