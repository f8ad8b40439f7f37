"""Repeated requests: replies by `Idempotency-Key`, so that no request is answered twice."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import orjson

from langchain_sequrity.local.http import IncomingRequest
from langchain_sequrity.local.limits import DEFAULTS, Charge, ServerLimits, Shares
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.session_headers import HEADER_TYPES

_OVERHEAD = 500  # bytes that a stored reply takes besides its body
# Headers that decide the reply, besides path and body.
_DECIDING_HEADERS = ("x-session-id", *HEADER_TYPES)


def idempotency_key(incoming: IncomingRequest) -> str | None:
    """The key of a request together with its bearer; `None` if it has no `Idempotency-Key`."""
    key = incoming.headers.get("idempotency-key")
    return f"{incoming.bearer}:{key}" if key else None


def digest_of(incoming: IncomingRequest) -> str:
    """A digest of everything that the reply depends on."""
    deciding = [incoming.headers.get(name) for name in _DECIDING_HEADERS]
    digest = hashlib.sha256(orjson.dumps([incoming.route.path, *deciding]))
    digest.update(incoming.body)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply with status 200 as it was sent; `body` is `None` if it was too large to keep."""

    headers: dict[str, str]
    body: bytes | None = field(repr=False)


class ReplyCopy:
    """A copy of a streamed reply, unless it grows too large.

    Args:
        charge: The memory that the request uses; `None` makes no copy.
        most_bytes: Bytes that a kept reply may have (`ServerLimits.reply_bytes`).
    """

    def __init__(self, charge: Charge | None, most_bytes: int) -> None:
        self._charge = charge
        self._most_bytes = most_bytes
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Append the next bytes."""
        if self._charge is None:
            return
        is_too_long = len(self._body) + len(piece) > self._most_bytes
        if is_too_long or not self._charge.try_add(len(piece)):
            self._charge, self._body = None, bytearray()
        self._body += piece

    @property
    def body(self) -> bytes | None:
        """The whole copy, or `None` if there is none."""
        return None if self._charge is None else bytes(self._body)


class Replies:
    """Replies by idempotency key, for some minutes.

    A request begins, and then either its reply is kept or it ends without one. A request that
    failed has changed nothing: it is forgotten and may be sent again. The key `None` means a
    request without a key; nothing is stored for it.

    A reply that is too large is not kept. When all replies together are too large, the bearer that
    holds most loses the body of its oldest reply. The server still remembers that these requests
    were answered, so none of them is answered twice.

    Args:
        limits: The limits of the server.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, limits: ServerLimits = DEFAULTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}  # key → digest of the request
        self._shares = Shares(limits.replies, limits.replies_bytes)
        # Key → digest, time of the reply, and the reply; the oldest first.
        self._stored: OrderedDict[str, tuple[str, float, StoredReply]] = OrderedDict()

    def begin(self, key: str | None, digest: str) -> StoredReply | None:
        """Register a request that is about to be answered.

        Args:
            key: The client's key, together with its bearer.
            digest: A digest of everything that the reply depends on.

        Returns:
            The reply, if the request was answered before; it is then not registered again.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                still being answered, 507 if its reply is no longer kept.
        """
        if key is None:
            return None
        with self._lock:
            self._drop_expired()
            kept_digest, _, reply = self._stored.get(key, (None, 0.0, None))
            known_digest = kept_digest or self._running.get(key)
            if known_digest is None:
                self._running[key] = digest
                return None
        if known_digest != digest:
            refuse(422, "The `Idempotency-Key` was used for another request. Make a new key.")
        if reply is None:
            refuse(409, "The request with this `Idempotency-Key` is still being answered.")
        if reply.body is None:
            refuse(
                507,
                "The request with this `Idempotency-Key` was answered, but its reply was too large "
                "to be kept. It is not answered twice: continue its session, or make a new key. "
                + how_to_raise("reply_bytes"),
            )
        return reply

    def keep(self, key: str | None, reply: StoredReply) -> None:
        """Keep the reply of a registered request."""
        if key is None:
            return
        if len(reply.body or b"") > self._limits.reply_bytes:
            reply = replace(reply, body=None)
        with self._lock:
            self._stored[key] = (self._running.pop(key), self._clock(), reply)
            self._shares.put(_owner(key), key, _OVERHEAD + len(reply.body or b""))
            self._make_room()

    def end(self, key: str | None) -> None:
        """Forget a registered request, unless its reply was kept."""
        with self._lock:
            self._running.pop(key or "", None)

    def _drop_expired(self) -> None:
        oldest_kept = self._clock() - self._limits.reply_seconds
        while self._stored:
            key, (_, answered_at, _) = next(iter(self._stored.items()))
            if answered_at >= oldest_kept:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        del self._stored[key]
        self._shares.drop(key)

    def _make_room(self) -> None:
        def has_body(key: str) -> bool:
            return self._stored[key][2].body is not None

        while self._shares.exceeds_bytes and (key := self._shares.to_drop(has_body)):
            digest, answered_at, reply = self._stored[key]
            self._stored[key] = digest, answered_at, replace(reply, body=None)
            self._shares.put(_owner(key), key, _OVERHEAD)
        while self._shares.is_exceeded and (key := self._shares.to_drop(lambda _: True)):
            self._drop(key)


def _owner(key: str) -> str:
    return key.partition(":")[0]
