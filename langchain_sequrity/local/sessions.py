"""Sessions of the server: their owners, their state, and when they end.

A session belongs to the bearer that started it; for other bearers it does not exist. Only one
request at a time may use it. It ends when its turns are used up or when it has been idle too long.
If the store is full, the bearer that holds most loses its session that was idle longest
(`docs/security.md`, rules 4 and 9).
"""

import hashlib
import hmac
import math
import secrets
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NoReturn, Protocol

from langchain_sequrity.local.growing import IncrementalSize
from langchain_sequrity.local.key_settings import KeySettings
from langchain_sequrity.local.limits import DEFAULTS, Shares, part_of
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.stored_messages import Conversation

# Sessions hold digests of bearers, with a key of this process, so that no store holds a bearer.
_BEARER_KEY = secrets.token_bytes(32)


def bearer_digest(bearer: str) -> str:
    """The digest of a bearer for its sessions."""
    # Keyed BLAKE2 is a MAC, and takes a tenth of the time of HMAC.
    return hashlib.blake2b(bearer.encode(), key=_BEARER_KEY, digest_size=32).hexdigest()


@dataclass(slots=True)
class Session:
    """State of a conversation between its requests.

    Attributes:
        bearer: Digest of the bearer that started it.
        place: The path on which it was started; all its requests use this path.
        id: A random id in the form of a UUID.
        headers: X-Features, X-Policy and X-Config of the first request, in normal form.
        sent: Digest of these headers as they were sent.
        messages: The conversation so far, including the last reply. In dual-LLM sessions without
            system messages, which belong to single requests.
        turns: Number of ended turns.
        calls: Number of tool calls that were handed out.
        reply: Id of the last reply, from which a request can continue.
        max_turns: Maximum number of turns; `None` means no limit.
        state: State of policies and programs, if there are any.
        settings: The settings of its key when it began; a change of the key does not change them.
        memory_share: Percent of the memory of all sessions that those of its key may use.
    """

    bearer: str
    place: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    headers: dict[str, str] = field(default_factory=dict)
    sent: bytes = b""
    messages: Conversation = field(default_factory=Conversation)
    turns: int = 0
    calls: int = 0
    reply: str | None = None
    max_turns: int | None = None
    state: object = None
    settings: KeySettings | None = None
    memory_share: int | None = None

    @property
    def short(self) -> str:
        """The part of the id that short tool call ids contain."""
        return self.id.replace("-", "")[-12:]


class SessionStore(Protocol):
    """Where sessions live. A store for several processes implements the same five methods.

    A session is plain data, which `pickle` writes and reads at any point between two requests.
    The store decides how much sessions may take: `save` refuses a session that is too large with a
    `StatusError` of status 413 or 507, and the request fails with it. `save` gets a copy; the
    session that `find` returned does not change.
    """

    def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""

    def acquire(self, session_id: str) -> bool:
        """Reserve the session `session_id` for one request; `False` if another request has it."""

    def release(self, session_id: str) -> None:
        """Release the session `session_id` after a request."""

    def save(self, session: Session) -> None:
        """Store the changes of a turn; may refuse a session that is too large."""

    def remove(self, session_id: str) -> None:
        """End the session `session_id`, if it exists."""


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
    """Sessions of one process.

    If there are too many sessions, or they are too large together, the bearer that holds most loses
    its session that was idle longest. Other bearers lose nothing.

    Args:
        max_sessions: Maximum number of sessions.
        max_idle: Seconds after which an idle session expires.
        max_bytes: Maximum memory of all sessions together in bytes; 40 MiB by default.
        max_session_bytes: Maximum memory of one session in bytes; 32 MiB by default.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        max_sessions: int = DEFAULTS.sessions,
        max_idle: float = DEFAULTS.session_seconds,
        max_bytes: int = DEFAULTS.sessions_bytes,
        max_session_bytes: int = DEFAULTS.session_bytes,
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
        self._busy: set[str] = set()

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

    def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""
        with self._lock:
            self._drop_expired()
            stored = self._sessions.get(self._by_short.get(session_id, session_id))
            return stored.session if stored else None

    def acquire(self, session_id: str) -> bool:
        """Reserve the session `session_id` for one request; `False` if another request has it."""
        with self._lock:
            if session_id in self._busy:
                return False
            self._busy.add(session_id)
            return True

    def release(self, session_id: str) -> None:
        """Release the session `session_id` after a request."""
        with self._lock:
            self._busy.discard(session_id)

    def save(self, session: Session) -> None:
        """Store the changes of a turn.

        Raises:
            StatusError: 413 if the session is too large, 507 if there is no room for it beside the
                sessions in use of the same bearer and those of bearers that hold less, or in the
                share of its key. The stored session then stays as it was.
        """
        stored = self._sessions.get(session.id)
        growing = stored.growing if stored else IncrementalSize()
        size = growing.count(session)  # needs no lock: no other request has this session
        try:
            if size > self._max_session_bytes:
                refuse(
                    413,
                    f"The session would need {size} bytes of memory, more than "
                    f"{self._max_session_bytes} bytes. It was not changed. Start a new session "
                    f"with a shorter history. {how_to_raise('session_bytes')}",
                )
            if size > self._most_of_key(session):
                _refuse_by_share(413, session, self._max_bytes)
            with self._lock:
                self._drop_expired()
                self._make_room(session, size, stored.size if stored else None)
                self._sessions[session.id] = _StoredSession(session, growing, size, self._clock())
                self._sessions.move_to_end(session.id)
                self._by_short[session.short] = session.id
        except BaseException:
            growing.forget()  # its counts belong to the session that was not stored
            raise

    def _make_room(self, session: Session, size: int, stored_size: int | None) -> None:
        shares = self._shares
        shares.put(session.bearer, session.id, size)
        most_of_key = self._most_of_key(session)
        while (
            exceeds_share := shares.bytes_of(session.bearer) > most_of_key
        ) or shares.is_exceeded:
            oldest = shares.to_drop(
                lambda key: key not in self._busy and key != session.id,
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

    def remove(self, session_id: str) -> None:
        """End the session `session_id`, if it exists."""
        with self._lock:
            self._drop(session_id)

    def _drop_expired(self) -> None:
        last_good = self._clock() - self._max_idle
        idle = (key for key in self._sessions if key not in self._busy)
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


def resume_session(
    store: SessionStore, session_ids: set[str], *, bearer: str, path: str
) -> Session | None:
    """Find the session that a request continues, and reserve it.

    Args:
        store: Where sessions live.
        session_ids: All sessions that the request names, in its header or in ids.
        bearer: Digest of the request's bearer.
        path: The path of the request.

    Returns:
        The session, reserved, or `None` if the request names none.

    Raises:
        StatusError: 404 if this bearer has no such session, or if the request names two; 409 if it
            is in use, or was started on another path.
    """
    if not session_ids:
        return None
    session_id = _find_one(store, session_ids, bearer)
    if not store.acquire(session_id):
        refuse(409, "The session is busy with another request. Wait for its reply.")
    # It may have changed or ended before it was reserved.
    session = store.find(session_id)
    if session is None or session.place != path:
        store.release(session_id)
        if session is None:
            _unknown()
        refuse(
            409, f"The session was started on `{session.place}`. Send its requests to this path."
        )
    return session


def _find_one(store: SessionStore, session_ids: set[str], bearer: str) -> str:
    sessions = [store.find(session_id) for session_id in session_ids]
    # All cases get the same answer, so that it does not reveal which sessions exist.
    ids = {s.id for s in sessions if s and hmac.compare_digest(s.bearer, bearer)}
    if None in sessions or len(ids) != 1 or any(s and s.id not in ids for s in sessions):
        _unknown()
    return ids.pop()


def _unknown() -> NoReturn:
    refuse(404, "The session is unknown or has expired, or the request names two sessions.")
