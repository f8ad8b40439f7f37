"""Replies of one process by `Idempotency-Key`, so that no request is answered twice."""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from langchain_sequrity.local.limits import DEFAULTS, ServerLimits, Shares, has_room, part_of
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.store import (
    RequestKey,
    StoredReply,
    refuse_lost_reply,
    refuse_other_request,
    refuse_running_request,
)

_OVERHEAD = 500  # bytes that a stored reply takes besides its body


class Replies:
    """Replies by idempotency key, for some minutes.

    A request begins, and then either its reply is kept or it ends without one. A request that
    failed has changed nothing: it is forgotten and may be sent again.

    An answered request is remembered until its time is over, whatever else is sent: it is not
    answered twice. If too many are remembered, new requests with a key are refused. A body that is
    too large is not kept. When all bodies together are too large, the bearer that holds most loses
    its oldest one.

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
        self._running: dict[int, int] = {}  # key → request, as digests
        self._answered = _Answered(limits.reply_seconds)
        self._shares = Shares[int](limits.replies, limits.replies_bytes)
        # Digest of the key → time of the reply, and the reply; the oldest first.
        self._stored: OrderedDict[int, tuple[float, StoredReply]] = OrderedDict()

    def begin(self, request: RequestKey) -> StoredReply | None:
        """Register a request that is about to be answered.

        Args:
            request: The request.

        Returns:
            The reply, if the request was answered before; it is then not registered again.

        Raises:
            StatusError: As for `SessionStore.begin_request`.
        """
        key_number, digest = _number(request.key), _number(request.request)
        with self._lock:
            self._drop_expired()
            answered = self._answered.get(key_number)
            earlier = self._running.get(key_number) if answered is None else answered
            if earlier is None:
                self._check_room(request.owner)
                self._running[key_number] = digest
                return None
            _, reply = self._stored.get(key_number, (0.0, None))
        if earlier != digest:
            refuse_other_request()
        if answered is None:
            refuse_running_request()
        if reply is None:
            refuse_lost_reply()
        return reply

    def is_running(self, request: RequestKey) -> bool:
        """Whether a request is registered and not answered."""
        return _number(request.key) in self._running

    def keep(self, request: RequestKey, reply: StoredReply) -> None:
        """Keep the reply of a registered request.

        Args:
            request: The request.
            reply: The reply.
        """
        key_number, owner, now = _number(request.key), request.owner, self._clock()
        with self._lock:
            self._answered.add(key_number, self._running.pop(key_number), owner, now)
            if reply.body is not None and len(reply.body) <= self._limits.reply_bytes:
                self._stored[key_number] = now, reply
                self._shares.put(owner, key_number, _OVERHEAD + len(reply.body))
            most = part_of(self._limits.replies_bytes, request.memory_share)
            while self._shares.bytes_of(owner) > most:
                oldest = self._shares.to_drop(lambda _: True, owner)
                self._drop(oldest)  # type: ignore[arg-type] # something is there
            self._make_room()

    def end(self, request: RequestKey) -> None:
        """Forget a registered request, unless its reply was kept."""
        with self._lock:
            self._running.pop(_number(request.key), None)

    def _check_room(self, owner: str) -> None:
        free = self._limits.replies - len(self._answered) - len(self._running)
        if not has_room(1, held=self._answered.count(owner), free=free):
            refuse(
                429,
                f"{len(self._answered)} requests with an `Idempotency-Key` were answered in the "
                "last minutes, many of them yours, and no more can be remembered. Try again, or "
                f"send the request without the key. {how_to_raise('replies')}",
                retry_after=self._answered.seconds_to_next_end(self._clock()),
            )

    def _drop_expired(self) -> None:
        now = self._clock()
        self._answered.drop_expired(now)
        while self._stored:
            key_number, (answered_at, _) = next(iter(self._stored.items()))
            if answered_at >= now - self._limits.reply_seconds:
                return
            self._drop(key_number)

    def _drop(self, key_number: int) -> None:
        del self._stored[key_number]
        self._shares.drop(key_number)

    def _make_room(self) -> None:
        # What is remembered without a body takes memory, too.
        self._shares.most_bytes = self._limits.replies_bytes - _REMEMBERED * len(self._answered)
        while self._stored and self._shares.is_exceeded:
            key_number = self._shares.to_drop(lambda _: True)
            self._drop(key_number)  # type: ignore[arg-type] # something is there


class _Answered:
    """Answered requests: the digest of each by the digest of its key, oldest first.

    They are in parts that end as a whole. Removing single ones from the beginning of a dict would
    get slower and slower, and each would need its own time.

    Args:
        seconds: For how long a request is remembered at least; at most a tenth longer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parts: deque[_Part] = deque()
        self._by_owner = Counter[str]()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, key: int) -> int | None:
        requests = (part.requests.get(key) for part in self._parts)
        return next((request for request in requests if request is not None), None)

    def count(self, owner: str) -> int:
        return self._by_owner[owner]

    def add(self, key: int, request: int, owner: str, now: float) -> None:
        if not self._parts or now >= self._parts[-1].began + self._seconds / _PARTS:
            self._parts.append(_Part(now, now))
        part = self._parts[-1]
        part.ended = now
        part.requests[key] = request
        part.by_owner[owner] += 1
        self._by_owner[owner] += 1
        self._length += 1

    def drop_expired(self, now: float) -> None:
        while self._parts and self._parts[0].ended < now - self._seconds:
            part = self._parts.popleft()
            self._by_owner -= part.by_owner
            self._length -= len(part.requests)

    def seconds_to_next_end(self, now: float) -> int:
        if not self._parts:
            return 1  # all are still being answered
        return max(1, ceil(self._parts[0].ended + self._seconds - now))


@dataclass(slots=True)
class _Part:
    """Requests that were answered one after the other.

    Attributes:
        began: When the first was answered.
        ended: When the last was answered.
        requests: Digest of the request by digest of its key.
        by_owner: How many each owner has.
    """

    began: float
    ended: float
    requests: dict[int, int] = field(default_factory=dict)
    by_owner: Counter[str] = field(default_factory=Counter)


_PARTS = 10
_REMEMBERED = 130  # bytes: two numbers, and an entry of a dict that has just grown
# Python stores numbers of 60 bits in 32 bytes, and larger ones in more. A reply is only found if
# both digests fit, so nobody gets the reply of another, and nobody can search for digests that are
# equal without the secret of the store.
_HEX_DIGITS = 15


def _number(digest: str) -> int:
    return int(digest[:_HEX_DIGITS], 16)
