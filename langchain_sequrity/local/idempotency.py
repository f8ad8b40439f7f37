"""The same request sent twice gets the same reply (`docs/security.md`, rule 6)."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from langchain_sequrity.local import limits
from langchain_sequrity.local.limits import Charge, Shares
from langchain_sequrity.local.refusals import refuse

MAX_REPLIES = 1_000
_NOTE = 500  # bytes of a reply without its body
MAX_AGE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply of status 200 as it went out; without a body where that was too large to be kept."""

    headers: dict[str, str]
    body: bytes | None = field(repr=False)


class Copy:
    """A copy of what goes out, as far as it can be kept.

    Args:
        charge: What the request takes of the memory of all; `None` where nobody wants a copy.
    """

    def __init__(self, charge: Charge | None) -> None:
        self._charge = charge
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._charge is None:
            return
        is_too_long = len(self._body) + len(piece) > limits.REPLY
        if is_too_long or not self._charge.may_take(len(piece)):
            self._charge, self._body = None, bytearray()
        self._body += piece

    @property
    def body(self) -> bytes | None:
        """Everything, or `None` if it is not there."""
        return None if self._charge is None else bytes(self._body)


class Replies:
    """Replies by idempotency key, for some minutes.

    A request is begun, then either kept with its reply or ended without one. What failed has
    changed nothing, so it is forgotten and may be sent again. A key that is `None` stands for a
    request without one, of which nothing is noted.

    A reply that is too large is not kept, and when all together are too large, the bearer that
    holds most loses its oldest one. That they were answered is remembered all the same, so that
    none of their requests is answered twice.

    Args:
        clock: Gives seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}  # key → digest of the request
        self._shares = Shares(MAX_REPLIES, limits.REPLIES)
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
                still being answered, 507 if its reply is not kept any more.
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
        if reply.body is None:
            refuse(
                507,
                "The request with this `Idempotency-Key` was answered, but its reply was too large "
                "to be kept. It is not answered twice: go on in its session, or make a new key.",
            )
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
        if len(reply.body or b"") > limits.REPLY:
            reply = replace(reply, body=None)
        with self._lock:
            self._kept[key] = (self._running.pop(key), self._clock(), reply)
            self._shares.put(_owner(key), key, _NOTE + len(reply.body or b""))
            self._make_room()

    def end(self, key: str | None) -> None:
        """Forget a request that was begun, unless its reply was kept."""
        with self._lock:
            self._running.pop(key or "", None)

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - MAX_AGE_SECONDS
        while self._kept:
            key, (_, made, _) = next(iter(self._kept.items()))
            if made >= oldest_kept:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        del self._kept[key]
        self._shares.drop(key)

    def _make_room(self) -> None:
        while self._shares.exceeds_bytes:
            key = self._shares.to_drop(lambda one: self._kept[one][2].body is not None)
            if key is None:  # pragma: no cover - who holds most holds a body
                return
            digest, made, reply = self._kept[key]
            self._kept[key] = digest, made, replace(reply, body=None)
            self._shares.put(_owner(key), key, _NOTE)
        while self._shares.is_exceeded and (key := self._shares.to_drop(lambda _: True)):
            self._drop(key)


def _owner(key: str) -> str:
    return key.partition(":")[0]
