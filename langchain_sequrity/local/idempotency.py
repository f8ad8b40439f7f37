"""The same request sent twice gets the same reply (`docs/security.md`, rule 6)."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from langchain_sequrity.local.refusals import refuse

MAX_REPLIES = 1_000
MAX_AGE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply as it went out."""

    status: int
    headers: dict[str, str]
    body: bytes


class Replies:
    """Replies by idempotency key, for some minutes.

    Args:
        clock: Gives seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Key → digest of the request, when it came, and the reply once there is one.
        self._known: OrderedDict[str, tuple[str, float, StoredReply | None]] = OrderedDict()

    def begin(self, key: str, request: str) -> StoredReply | None:
        """Note that a request is being answered.

        Args:
            key: The client's key, together with its bearer.
            request: A digest of path and body.

        Returns:
            The reply if the request was answered before.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                still being answered.
        """
        with self._lock:
            self._forget_old()
            known = self._known.get(key)
            if known is None:
                self._known[key] = (request, self._clock(), None)
                return None
        if known[0] != request:
            refuse(422, "The `Idempotency-Key` was used for another request. Make a new key.")
        if known[2] is None:
            refuse(409, "The request with this `Idempotency-Key` is still being answered.")
        return known[2]

    def end(self, key: str, reply: StoredReply | None) -> None:
        """Keep the reply, or forget a request that has changed nothing."""
        with self._lock:
            request, began, _ = self._known.get(key, ("", 0.0, None))
            if reply is None:
                self._known.pop(key, None)
            else:
                self._known[key] = (request, began, reply)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._known:
            key, (_, began, reply) = next(iter(self._known.items()))
            too_many = len(self._known) > MAX_REPLIES and reply is not None
            if not too_many and now - began <= MAX_AGE_SECONDS:
                return
            del self._known[key]
