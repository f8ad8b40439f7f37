"""Turns, requests and tokens of each key, and what is refused when there are too many."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local.answers import count_message, count_request
from langchain_sequrity.local.backends import Backend, BackendContext
from langchain_sequrity.local.keys import ApiKey
from langchain_sequrity.local.limits import DEFAULTS
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.wire.exchange import ChatRequest

_MINUTE = 60.0
_SLOTS_PER_SECOND = 10
# One bearer may hold three times as many turns as are free. So it never takes the last quarter, and
# another bearer always finds room. The fewer are free, the less each may hold (dynamic thresholds
# of shared buffers: Choudhury and Hahne, 1998).
_TIMES_FREE = 3


class MinuteWindow:
    """Amounts of the last minute. It is exact to a tenth of a second, and never counts too little.

    Example:
        ```python
        from langchain_sequrity.local.key_usage import MinuteWindow

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


class KeyUsage:
    """What each key uses, and whether it may begin another turn.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: Counter[str] = Counter()  # by bearer
        self._requests: dict[str, MinuteWindow] = {}  # by digest of the key
        self._tokens: dict[str, MinuteWindow] = {}

    def begin_turn(
        self, bearer: str, key: ApiKey, most_turns: int = DEFAULTS.turns_at_once
    ) -> Callable[[], None]:
        """Register a turn.

        Args:
            bearer: Digest of the bearer. On a server without keys, each bearer has its share.
            key: The key.
            most_turns: Turns of all keys that run at once (`ServerLimits.turns_at_once`).

        Returns:
            A function to call when the turn is over.

        Raises:
            StatusError: 429 if a limit of the key or of the server is reached.
        """
        with self._lock:
            self._check_turns(bearer, key, most_turns)
            self._check_minute(key)
            self._turns[bearer] += 1
        return lambda: self._end_turn(bearer)

    def _end_turn(self, bearer: str) -> None:
        with self._lock:
            self._turns[bearer] -= 1
            if not self._turns[bearer]:
                del self._turns[bearer]

    def _check_turns(self, bearer: str, key: ApiKey, most_turns: int) -> None:
        turns = self._turns[bearer]
        free = most_turns - self._turns.total()
        if key.turns_at_once is not None and turns >= key.turns_at_once:
            refuse(
                429,
                f"The key `{key.name}` may have {key.turns_at_once} turns at once "
                "(`turns_at_once`). Try again when one of them is over.",
                retry_after=1,
            )
        if free <= 0:
            refuse(
                429,
                f"{most_turns} turns are running at once. Try again. "
                f"{how_to_raise('turns_at_once')}",
                retry_after=1,
            )
        if turns >= _TIMES_FREE * free:
            refuse(
                429,
                f"{turns} turns of this key are running at once. The other {free} of "
                f"{most_turns} turns are for other keys. Try again. "
                f"{how_to_raise('turns_at_once')}",
                retry_after=1,
            )

    def _check_minute(self, key: ApiKey) -> None:
        now = self._clock()
        if key.tokens_per_minute is not None and key.digest in self._tokens:
            window, limit = self._tokens[key.digest], key.tokens_per_minute
            if window.total(now) >= limit:
                _refuse_until(
                    window.seconds_until_below(limit, now),
                    f"The key `{key.name}` may use {limit:,} tokens in a minute "
                    f"(`tokens_per_minute`), and used {window.total(now):,}.",
                )
        if key.requests_per_minute is not None:
            window = self._requests.setdefault(key.digest, MinuteWindow())
            limit = key.requests_per_minute
            if window.total(now) >= limit:
                _refuse_until(
                    window.seconds_until_below(limit, now),
                    f"The key `{key.name}` may send {limit:,} requests in a minute "
                    "(`requests_per_minute`).",
                )
            window.add(1, now)

    def add_tokens(self, key: ApiKey, tokens: int) -> None:
        """Count tokens that a model has used."""
        with self._lock:
            window = self._tokens.setdefault(key.digest, MinuteWindow())
            window.add(tokens, self._clock())

    def counted(self, backend: Backend, key: ApiKey) -> Backend:
        """A backend whose tokens count for a key; the backend itself if the key has no limit."""
        if key.tokens_per_minute is None:
            return backend
        return _CountedBackend(backend, lambda tokens: self.add_tokens(key, tokens))


def _refuse_until(seconds: float, problem: str) -> None:
    wait = max(1, math.ceil(seconds))
    refuse(429, f"{problem} Try again in {wait} s.", retry_after=wait)


class _CountedBackend:
    """A backend whose tokens are counted, also those of an answer that nobody reads to its end.

    Args:
        backend: The backend.
        on_tokens: Called once for each answer.
    """

    def __init__(self, backend: Backend, on_tokens: Callable[[int], None]) -> None:
        self._backend = backend
        self._on_tokens = on_tokens

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces, as the backend does."""
        usage, written, has_begun = 0, 0, False
        try:
            for chunk in self._backend.stream(request, context):
                has_begun = True
                if chunk.usage_metadata is not None:
                    usage += chunk.usage_metadata["total_tokens"]
                else:
                    written += count_message(chunk)
                yield chunk
        finally:
            if usage or has_begun:
                self._on_tokens(usage or count_request(request) + written)
