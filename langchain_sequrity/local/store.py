"""The contract of a session store: what the workers of a server share.

`MemorySessions` keeps it for one process, `RedisSessions` for many. What a request changes becomes
visible at once, in one commit: the session, and the reply under its idempotency key. A worker may
commit only while it holds the lease of the session, so a worker that was away cannot overwrite
what another one has done meanwhile (`docs/gateway.md`, "Many workers").
"""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from langchain_sequrity.local.fair_slots import waiting
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.sync_or_async import run_to_end

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


@dataclass(slots=True)
class Lease:
    """The right to commit a session, for some seconds.

    Attributes:
        session: The session as the last commit left it. It must not be changed.
        token: Proves the right.
        prepared: What a store has prepared for the commit; of its own type.
    """

    session: Session
    token: str = field(default="", repr=False)
    prepared: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply with status 200 as it was sent; `body` is `None` if it was too large to keep."""

    headers: dict[str, str]
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request with an `Idempotency-Key`.

    Attributes:
        owner: Digest of its bearer.
        key: Digest of the owner and the `Idempotency-Key`, in hex digits.
        request: Digest of everything that the reply depends on, in hex digits.
        session_id: Id of the session that it begins, unless it names one. Each attempt to answer
            the request has the same, so of two attempts only one can commit.
        token: Proves that it is this attempt.
        memory_share: Percent of the memory of all replies that those of the owner may use.
    """

    owner: str
    key: str
    request: str
    session_id: str
    token: str = field(default="", repr=False)
    memory_share: int | None = None


KeyedReply = tuple[RequestKey, StoredReply]


class Answered(Exception):
    """A request was answered before.

    Attributes:
        reply: Its reply.
    """

    def __init__(self, reply: StoredReply) -> None:
        super().__init__()
        self.reply = reply


class SessionStore(Protocol):
    """Where sessions, replies and counts live.

    Each method may raise a `StatusError` of status 503 if the store cannot be reached. What it was
    asked for is then not acknowledged.

    Attributes:
        secret: Key of the digests that the store holds instead of bearers. All workers have the
            same.
        lease_seconds: After so long without `renew`, a lease ends by itself; `None` if it does not.
        never_waits: Whether its coroutines never wait for the event loop. Threads then run them
            themselves.
    """

    secret: bytes
    lease_seconds: float | None
    never_waits: bool

    # Sessions

    async def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""

    async def lease(
        self, session_id: str, bearer: str, request: RequestKey | None = None
    ) -> Lease | None:
        """Reserve a session for one request. The store renews the lease until it is given back.

        Args:
            session_id: As for `find`.
            bearer: Digest of the request's bearer.
            request: The request, if it has an `Idempotency-Key`.

        Returns:
            The session and the right to commit it; `None` if this bearer has no such session.

        Raises:
            StatusError: 409 if another request has it.
            Answered: If an earlier attempt of the request was answered in this session.
        """

    async def begin_session(self, session: Session, request: RequestKey | None = None) -> Lease:
        """Reserve the id of a session that does not exist yet.

        Args:
            session: The session.
            request: The request, if it has an `Idempotency-Key`, of which the session has its id.

        Raises:
            StatusError: 409 if another attempt of the same request has it.
        """

    async def renew(self, lease: Lease) -> bool:
        """Extend a `lease` to its whole time; `False` if it has ended."""

    async def release(self, lease: Lease) -> None:
        """Give a `lease` back without a change; nothing happens if it has ended."""

    def prepare(self, lease: Lease, session: Session) -> None:
        """Do what takes time before `commit`, which runs on the event loop.

        Args:
            lease: The right to change the session.
            session: The session as it is now.

        Raises:
            StatusError: 413 if the session is too large.
        """

    async def commit(
        self, lease: Lease | None, session: Session | None, reply: KeyedReply | None = None
    ) -> None:
        """Store what a request has changed, and its reply; give the lease back.

        Args:
            lease: The right to change the session; `None` for a request without one.
            session: The session as it is now; `None` if it has ended.
            reply: The reply, if the request has an `Idempotency-Key`.

        Raises:
            StatusError: 409 if the lease has ended and another request has changed the session,
                or the request was answered meanwhile; 413 or 507 if the session is too large.
                Nothing is stored then.
        """

    async def remove(self, session_id: str) -> None:
        """End the session `session_id`, if it exists."""

    def has_ended(self, session_id: str) -> bool:
        """Whether the session `session_id` is known to have ended, without asking anybody."""

    # Replies

    async def begin_request(self, request: RequestKey) -> RequestKey | StoredReply:
        """Register a request with an `Idempotency-Key`.

        Args:
            request: The request, as yet without a token.

        Returns:
            The reply, if the request was answered before. Otherwise the request, with a token, and
            with the session id of an earlier attempt if there was one.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                being answered, 507 if its reply is no longer kept, 429 if so many requests are
                remembered that this one could not be.
        """

    async def end_request(self, request: RequestKey) -> None:
        """Forget a registered `request`, unless its reply was kept."""

    # Counts

    async def spend(self, account: str, amount: int, most: int | None = None) -> float:
        """Count an amount in the last minute.

        Args:
            account: What is counted.
            amount: The amount.
            most: It is only counted if the last minute has less; by default always.

        Returns:
            0.0 if it was counted. Otherwise the seconds until it can be.
        """

    # Operation

    async def problem(self) -> str:
        """Why the store cannot be used, or an empty text."""

    async def close(self) -> None:
        """Close its connections. It can be used again."""


class StoreInThread:
    """A store for code in a thread, which waits for what it asks.

    Args:
        store: The store.
        loop: The event loop of the server.
    """

    def __init__(self, store: SessionStore, loop: asyncio.AbstractEventLoop) -> None:
        self._never_waits = store.never_waits
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of one of the store's coroutines."""
        if self._never_waits:
            return run_to_end(work)
        with waiting():
            future = self._start(work)
            if future is None:
                refuse(503, "The server was stopped.")
            return future.result()

    def let(self, work: Coroutine[Any, Any, object]) -> None:
        """Let one of the store's coroutines run, without its result."""
        if self._never_waits:
            run_to_end(work)
        else:
            self._start(work)

    def _start(self, work: Coroutine[Any, Any, T]) -> "Future[T] | None":
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop was closed
            work.close()
            return None


# Refusals that all stores share


def refuse_busy() -> NoReturn:
    """Refuse a request whose session another one has."""
    refuse(409, "The session is busy with another request. Wait for its reply.")


def refuse_other_request() -> NoReturn:
    """Refuse a key that was used for another request."""
    refuse(422, "The `Idempotency-Key` was used for another request. Make a new key.")


def refuse_running_request(wait_ms: float = 0) -> NoReturn:
    """Refuse a request that is being answered, maybe by a worker that has died.

    Args:
        wait_ms: Milliseconds after which another worker may answer it.
    """
    refuse(
        409,
        "The request with this `Idempotency-Key` is still being answered. Send it again later.",
        retry_after=max(1, math.ceil(wait_ms / 1000)),
    )


def refuse_lost_reply() -> NoReturn:
    """Refuse a request that was answered, and whose reply is not kept."""
    refuse(
        507,
        "The request with this `Idempotency-Key` was answered, but its reply was too large to be "
        "kept. It is not answered twice: continue its session, or make a new key. "
        + how_to_raise("reply_bytes"),
    )


def refuse_lost_lease() -> NoReturn:
    """Refuse what a worker wants to commit that was away for too long."""
    refuse(
        409,
        "Another worker has continued the session while this request ran, or has answered the same "
        "request. Nothing of it was stored. Send the request again.",
        retry_after=1,
        error_type="lease_lost",
    )
