"""Sessions in memory, and when they end.

A session ends when its turns are used up or when it has been idle too long. If the store is full,
the bearer that holds most loses its session that was idle longest (`docs/security.md`, rule 9).
"""

import hmac
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import NoReturn

from langchain_sequrity.local.growing import IncrementalSize
from langchain_sequrity.local.limits import DEFAULTS, ServerLimits, Shares, part_of
from langchain_sequrity.local.minute_window import MinuteWindow
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.replies import Replies
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import (
    KeyedReply,
    Lease,
    RequestKey,
    StoredReply,
    refuse_busy,
    refuse_lost_lease,
    refuse_running_request,
)


@dataclass(slots=True)
class _StoredSession:
    """A session in memory.

    Attributes:
        session: The session.
        growing: Counts its size.
        size: Its size in bytes.
        used: The time of its last use.
    """

    session: Session
    growing: IncrementalSize
    size: int
    used: float


class MemorySessions:
    """Sessions of one process, its replies by idempotency key, and its counts.

    If there are too many sessions, or they are too large together, the bearer that holds most loses
    its session that was idle longest. Other bearers lose nothing.

    Args:
        max_sessions: Maximum number of sessions.
        max_idle: Seconds after which an idle session expires.
        max_bytes: Maximum memory of all sessions together in bytes; 40 MiB by default.
        max_session_bytes: Maximum memory of one session in bytes; 32 MiB by default.
        limits: Limits of replies; those of sessions are the other arguments.
        clock: Returns monotonic seconds.
    """

    lease_seconds: float | None = None
    never_waits: bool = True

    def __init__(
        self,
        *,
        max_sessions: int = DEFAULTS.sessions,
        max_idle: float = DEFAULTS.session_seconds,
        max_bytes: int = DEFAULTS.sessions_bytes,
        max_session_bytes: int = DEFAULTS.session_bytes,
        limits: ServerLimits = DEFAULTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shares = Shares[str](max_sessions, max_bytes)
        self._max_bytes = max_bytes
        self._max_session_bytes = max_session_bytes
        self._max_idle = max_idle
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _StoredSession] = OrderedDict()
        self._by_short: dict[str, str] = {}
        self._leases: dict[str, Lease] = {}
        self.secret = secrets.token_bytes(32)
        self._replies = Replies(limits, clock)
        self._minutes: dict[str, MinuteWindow] = {}

    def __len__(self) -> int:
        """The number of sessions."""
        return len(self._sessions)

    @property
    def size(self) -> int:
        """Bytes of all sessions together."""
        return self._shares.size

    def __iter__(self) -> Iterator[Session]:
        """All sessions, the most recently used last."""
        with self._lock:
            return iter([stored.session for stored in self._sessions.values()])

    def __getitem__(self, session_id: str) -> Session:
        """The session with this id; raises `KeyError` if there is none."""
        return self._sessions[session_id].session

    async def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""
        with self._lock:
            return self._find(session_id)

    def _find(self, session_id: str) -> Session | None:
        self._drop_expired()
        stored = self._sessions.get(self._by_short.get(session_id, session_id))
        return stored.session if stored else None

    async def lease(
        self, session_id: str, bearer: str, request: RequestKey | None = None
    ) -> Lease | None:
        """Reserve a session for one request. See `SessionStore.lease`."""
        del request  # `begin_request` knows all that were answered
        with self._lock:
            session = self._find(session_id)
            if session is None or not hmac.compare_digest(session.bearer, bearer):
                return None
            if session.id in self._leases:
                refuse_busy()
            lease = self._leases[session.id] = Lease(session)
            return lease

    async def begin_session(self, session: Session, request: RequestKey | None = None) -> Lease:
        """Reserve the id of a session that does not exist yet. See `SessionStore.begin_session`."""
        del request
        with self._lock:
            if session.id in self._leases or session.id in self._sessions:
                refuse_running_request()
            lease = self._leases[session.id] = Lease(session)
            return lease

    async def renew(self, lease: Lease) -> bool:
        """Whether the lease has not been given back; here it does not end by itself.

        See `SessionStore.renew`.
        """
        return self._leases.get(lease.session.id) is lease

    async def release(self, lease: Lease) -> None:
        """Give a lease back without a change. See `SessionStore.release`."""
        with self._lock:
            self._end_lease(lease)

    def prepare(self, lease: Lease, session: Session) -> None:
        """Count the session, which takes time for a large one.

        See `SessionStore.prepare`.

        Raises:
            StatusError: 413 if the session is too large. The stored session then stays as it was.
        """
        stored = self._sessions.get(session.id)
        growing = stored.growing if stored else IncrementalSize()
        size = growing.count(session)  # needs no lock: no other request has this session
        if size > min(self._max_session_bytes, self._most_of_key(session)):
            growing.forget()  # its counts belong to the session that is not stored
            if size <= self._max_session_bytes:
                _refuse_by_share(413, session, self._max_bytes)
            refuse(
                413,
                f"The session would need {size} bytes of memory, more than "
                f"{self._max_session_bytes} bytes. It was not changed. Start a new session "
                f"with a shorter history. {how_to_raise('session_bytes')}",
            )
        lease.prepared = _StoredSession(session, growing, size, self._clock())

    async def commit(
        self, lease: Lease | None, session: Session | None, reply: KeyedReply | None = None
    ) -> None:
        """Store what a request has changed, and its reply; give the lease back.

        See `SessionStore.commit`.

        Raises:
            StatusError: 413 if the session is too large, 507 if there is no room for it beside the
                sessions in use of the same bearer and those of bearers that hold less, or in the
                share of its key. Nothing is stored then.
        """
        if lease is not None and session is not None and lease.prepared is None:
            self.prepare(lease, session)
        with self._lock:
            if reply is not None and not self._replies.is_running(reply[0]):
                refuse_lost_lease()
            if lease is not None:
                self._commit_session(lease, session)
            if reply is not None:
                self._replies.keep(*reply)

    def _commit_session(self, lease: Lease, session: Session | None) -> None:
        session_id, new = lease.session.id, lease.prepared
        stored = self._sessions.get(session_id)
        version = stored.session.version if stored else 0
        if self._leases.get(session_id) is not lease or lease.session.version != version:
            refuse_lost_lease()
        if session is None:
            self._drop(session_id)
        else:
            try:
                self._drop_expired()
                self._make_room(session, new.size, stored.size if stored else None)
            except BaseException:
                new.growing.forget()  # its counts belong to the session that is not stored
                raise
            new.used = self._clock()
            self._sessions[session_id] = new
            self._sessions.move_to_end(session_id)
            self._by_short[session.short] = session_id
        self._end_lease(lease)

    def _end_lease(self, lease: Lease) -> None:
        if self._leases.get(lease.session.id) is lease:
            del self._leases[lease.session.id]

    def _make_room(self, session: Session, size: int, stored_size: int | None) -> None:
        shares = self._shares
        shares.put(session.bearer, session.id, size)
        most_of_key = self._most_of_key(session)
        while (
            exceeds_share := shares.bytes_of(session.bearer) > most_of_key
        ) or shares.is_exceeded:
            oldest = shares.to_drop(
                lambda key: key not in self._leases and key != session.id,
                session.bearer if exceeds_share else None,
            )
            if oldest is None and not exceeds_share and not shares.exceeds_bytes:
                return  # sessions in use are never dropped for their number
            if oldest is None:
                if stored_size is None:
                    shares.drop(session.id)
                else:
                    shares.put(session.bearer, session.id, stored_size)
                if exceeds_share:
                    _refuse_by_share(507, session, self._max_bytes)
                refuse(
                    507,
                    f"All sessions of this server together may use {self._max_bytes} bytes of "
                    "memory, and there is no room for this one. It was not changed. Try again "
                    f"when other sessions have ended. {how_to_raise('sessions_bytes')}",
                )
            self._drop(oldest)

    def _most_of_key(self, session: Session) -> float:
        share = session.memory_share
        return math.inf if share is None else part_of(self._max_bytes, share)

    async def remove(self, session_id: str) -> None:
        """End a session, if it exists. See `SessionStore.remove`."""
        with self._lock:
            self._drop(session_id)

    def has_ended(self, session_id: str) -> bool:
        """Whether a session does not exist any more. See `SessionStore.has_ended`."""
        with self._lock:
            self._drop_expired()
            return session_id not in self._sessions

    async def begin_request(self, request: RequestKey) -> RequestKey | StoredReply:
        """Register a request with an `Idempotency-Key`. See `SessionStore.begin_request`."""
        return self._replies.begin(request) or request

    async def end_request(self, request: RequestKey) -> None:
        """Forget a registered request, unless its reply was kept.

        See `SessionStore.end_request`.
        """
        self._replies.end(request)

    async def spend(self, account: str, amount: int, most: int | None = None) -> float:
        """Count an amount in the last minute; exact to a tenth of a second.

        See `SessionStore.spend`.
        """
        now = self._clock()
        with self._lock:
            window = self._minutes.setdefault(account, MinuteWindow())
            if most is not None and window.total(now) >= most:
                return window.seconds_until_below(most, now)
            window.add(amount, now)
        return 0.0

    async def problem(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """Nothing has to be closed."""

    def _drop_expired(self) -> None:
        last_good = self._clock() - self._max_idle
        idle = (key for key in self._sessions if key not in self._leases)
        for key in [*takewhile(lambda key: self._sessions[key].used < last_good, idle)]:
            self._drop(key)

    def _drop(self, session_id: str) -> None:
        stored = self._sessions.pop(session_id, None)
        if stored is not None:
            self._shares.drop(session_id)
            self._by_short.pop(stored.session.short, None)


def _refuse_by_share(status: int, session: Session, most: int) -> NoReturn:
    refuse(
        status,
        f"The sessions of this key may use {session.memory_share} percent (`memory_share`) of the "
        f"{most} bytes of memory of all sessions, and there is no room for this one. It was not "
        "changed. Start a new session with a shorter history, or try again when others have ended.",
    )
