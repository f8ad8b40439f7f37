"""The same request sent twice gets the same reply (`docs/security.md`, rule 6)."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from langchain_sequrity.local.refusals import refuse

MAX_REPLIES = 1_000
MAX_AGE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply of status 200 as it went out."""

    headers: dict[str, str]
    body: bytes = field(repr=False)


class Replies:
    """Replies by idempotency key, for some minutes.

    A request is begun, then either kept with its reply or ended without one. What failed has
    changed nothing, so it is forgotten and may be sent again. A key that is `None` stands for a
    request without one, of which nothing is noted.

    Args:
        clock: Gives seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}  # key → digest of the request
        # Key → digest, when the reply was made, and the reply; the oldest first.
        self._kept: OrderedDict[str, tuple[str, float, StoredReply]] = OrderedDict()

    def begin(self, key: str | None, digest: str) -> StoredReply | None:
        """Note that a request is being answered.

        Args:
            key: The client's key, together with its bearer.
            digest: A digest of all that the reply depends on.

        Returns:
            The reply if the request was answered before; it is then not begun again.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                still being answered.
        """
        if key is None:
            return None
        with self._lock:
            self._forget_old()
            before, reply = self._known(key)
            if before is None:
                self._running[key] = digest
                return None
        if before != digest:
            refuse(422, "The `Idempotency-Key` was used for another request. Make a new key.")
        if reply is None:
            refuse(409, "The request with this `Idempotency-Key` is still being answered.")
        return reply

    def _known(self, key: str) -> tuple[str | None, StoredReply | None]:
        if key in self._kept:
            digest, _, reply = self._kept[key]
            return digest, reply
        return self._running.get(key), None

    def keep(self, key: str | None, reply: StoredReply) -> None:
        """Keep the reply of a request that was begun."""
        if key is None:
            return
        with self._lock:
            self._kept[key] = (self._running.pop(key), self._clock(), reply)

    def end(self, key: str | None) -> None:
        """Forget a request that was begun, unless its reply was kept."""
        with self._lock:
            self._running.pop(key or "", None)

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - MAX_AGE_SECONDS
        while self._kept:
            _, made, _ = next(iter(self._kept.values()))
            if len(self._kept) < MAX_REPLIES and made >= oldest_kept:
                return
            self._kept.popitem(last=False)
