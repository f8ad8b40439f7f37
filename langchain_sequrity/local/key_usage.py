"""Turns, requests and tokens of each key, and what is refused when there are too many."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local.answers import count_message, count_request
from langchain_sequrity.local.backends import Backend, BackendContext
from langchain_sequrity.local.keys import ApiKey
from langchain_sequrity.local.limits import DEFAULTS
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.store import SessionStore, StoreInThread
from langchain_sequrity.wire.exchange import ChatRequest

# One bearer may hold three times as many turns as are free. So it never takes the last quarter, and
# another bearer always finds room. The fewer are free, the less each may hold (dynamic thresholds
# of shared buffers: Choudhury and Hahne, 1998).
_TIMES_FREE = 3


class KeyUsage:
    """What each key uses, and whether it may begin another turn.

    Requests and tokens count in the store, so for all workers together; turns at once count in this
    process.

    Args:
        store: Counts the last minute.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._turns: Counter[str] = Counter()  # by bearer

    async def begin_turn(
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
            self._turns[bearer] += 1
        try:
            await self._check_minute(key)
        except BaseException:
            self._end_turn(bearer)
            raise
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

    async def _check_minute(self, key: ApiKey) -> None:
        if (limit := key.tokens_per_minute) is not None:
            seconds = await self._store.spend(_tokens_of(key), 0, limit)
            _refuse_until(
                seconds,
                f"The key `{key.name}` may use {limit:,} tokens in a minute "
                "(`tokens_per_minute`), and has used them.",
            )
        if (limit := key.requests_per_minute) is not None:
            seconds = await self._store.spend(f"requests:{key.digest}", 1, limit)
            _refuse_until(
                seconds,
                f"The key `{key.name}` may send {limit:,} requests in a minute "
                "(`requests_per_minute`).",
            )

    def counted(self, backend: Backend, key: ApiKey, in_thread: StoreInThread) -> Backend:
        """A backend whose tokens count for a key; the backend itself if the key has no limit."""
        if key.tokens_per_minute is None:
            return backend
        account, spend = _tokens_of(key), self._store.spend
        return _CountedBackend(backend, lambda tokens: in_thread.let(spend(account, tokens)))


def _tokens_of(key: ApiKey) -> str:
    return f"tokens:{key.digest}"


def _refuse_until(seconds: float, problem: str) -> None:
    if not seconds:
        return
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
