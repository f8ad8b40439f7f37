"""The contract of a session store: what the workers of a server share.

`MemorySessions` keeps it for one process, `RedisSessions` for many. What a request changes becomes
visible at once, in one commit: the session, and the reply under its idempotency key. A worker may
commit only while it holds the lease of the session, so a worker that was away cannot overwrite
what another one has done meanwhile (`docs/gateway.md`, "Many workers").
"""

from dataclasses import dataclass, field
from typing import Protocol

from langchain_sequrity.local.sessions import Session


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit a session, for some seconds.

    Attributes:
        session: The session as the last commit left it. It must not be changed.
        token: Proves the right.
    """

    session: Session
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply with status 200 as it was sent; `body` is `None` if it was too large to keep."""

    headers: dict[str, str]
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request with an `Idempotency-Key`, which is being answered.

    Attributes:
        owner: Digest of its bearer.
        key: Digest of the owner and the `Idempotency-Key`.
        request: Digest of everything that the reply depends on.
        session_id: Id of the session that it begins, unless it names one. It is the same for each
            attempt, so of two attempts at once only one can commit.
        token: Proves that this attempt is the one that is being made.
        memory_share: Percent of the memory of all replies that those of the owner may use.
    """

    owner: str
    key: str
    request: str
    session_id: str
    token: str = field(default="", repr=False)
    memory_share: int | None = None


class SessionStore(Protocol):
    """Where sessions, replies and counts live.

    All methods may raise a `StatusError` of status 503 if the store cannot be reached; whatever
    was asked then has not been acknowledged.

    Attributes:
        secret: Key of the digests that the store holds instead of bearers. All workers have the
            same.
        lease_seconds: After so long without `renew`, a lease ends by itself; `None` if it does not.
    """

    secret: bytes
    lease_seconds: float | None

    # Sessions

    async def find(self, session_id: str) -> Session | None:
        """The session with the id `session_id`, or with an id that ends in these 12 hex digits."""

    async def lease(self, session_id: str, bearer: str) -> Lease | None:
        """Reserve a session for one request.

        Args:
            session_id: As for `find`.
            bearer: Digest of the request's bearer.

        Returns:
            The session and the right to commit it; `None` if this bearer has no such session.

        Raises:
            StatusError: 409 if another request has it.
        """

    async def begin_session(self, session: Session) -> Lease:
        """Reserve the id of a session that does not exist yet.

        Raises:
            StatusError: 409 if another attempt of the same request has it.
        """

    async def renew(self, lease: Lease) -> bool:
        """Extend a lease to its whole time; `False` if it has ended."""

    async def release(self, lease: Lease) -> None:
        """Give a lease back without a change; nothing happens if it has ended."""

    async def commit(
        self,
        lease: Lease | None,
        session: Session | None,
        reply: tuple[RequestKey, StoredReply] | None = None,
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
        """End a session, if it exists."""

    # Replies

    async def begin_request(self, request: RequestKey) -> RequestKey | StoredReply:
        """Register a request with an `Idempotency-Key`.

        Returns:
            The reply, if the request was answered before. Otherwise the request, to be answered,
            with a token and the id of the session that it begins.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                being answered, 507 if its reply is no longer kept, 429 if so many requests are
                remembered that this one could not be.
        """

    async def end_request(self, request: RequestKey) -> None:
        """Forget a registered request, unless its reply was kept."""

    # Counts

    async def spend(self, account: str, amount: int, most: int | None = None) -> float:
        """Count an amount in the last minute.

        Args:
            account: What is counted.
            amount: The amount.
            most: What the last minute may have before; by default there is no limit.

        Returns:
            0.0 if it was counted. Otherwise the seconds until it can be.
        """

    # Operation

    async def problem(self) -> str:
        """Why the store cannot be used, or an empty text."""

    async def close(self) -> None:
        """Close its connections. It can be used again."""
