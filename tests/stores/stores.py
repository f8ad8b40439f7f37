"""Stores for tests: in memory, on one Redis, and on a cluster. Each worker opens its own."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import redis
from langchain_core.messages import AIMessage, HumanMessage

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import MemorySessions, ServerLimits
from langchain_sequrity.local.redis_sessions import RedisSessions
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import Answered, Lease, RequestKey, SessionStore, StoredReply

SECRET = "a secret that the workers of a test share"
PLACE = "/control/chat/v1/chat/completions"


class MemoryStores:
    """Workers that are threads of one process share the store itself."""

    leases_end = False

    def __init__(self, limits: ServerLimits | None = None) -> None:
        limits = limits or ServerLimits()
        self._shared = MemorySessions(
            max_idle=limits.session_seconds,
            max_session_bytes=limits.session_bytes,
            limits=limits,
        )

    def open(self, **_options: Any) -> SessionStore:
        """The store of one more worker."""
        return self._shared

    def end_lease(self, lease: Lease) -> None:
        """Not possible: leases of memory do not end by themselves."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the stores of all workers."""


class RedisStores:
    """Each worker has a store of its own with one Redis.

    Args:
        url: The address of a server, or of a cluster.
        limits: Limits of all workers.
    """

    leases_end = True

    def __init__(self, url: str, limits: ServerLimits | None = None) -> None:
        self._url = url
        self._limits = limits or ServerLimits()
        self._opened: list[RedisSessions] = []

    def open(self, **options: Any) -> SessionStore:
        """The store of one more worker."""
        options = {"secret": SECRET, "limits": self._limits, "timeout": 10.0, **options}
        store = RedisSessions(self._url, **options)
        self._opened.append(store)
        return store

    def end_lease(self, lease: Lease) -> None:
        """Let a lease end, as if its worker had been away for too long."""
        plain_url = self._url.replace("+cluster", "")
        kind = redis.RedisCluster if plain_url != self._url else redis.Redis
        with kind.from_url(plain_url) as client:
            for key in client.scan_iter(f"*{{{lease.session.short}}}:lease"):
                client.delete(key)

    async def close(self) -> None:
        """Close the stores of all workers."""
        for store in self._opened:
            await store.close()


Stores = MemoryStores | RedisStores


def new_session(bearer: str = "a" * 64, **fields: Any) -> Session:
    """A session of a bearer, before its first commit."""
    return Session(bearer, PLACE, **fields)


def changed(session: Session, text: str = "Hi") -> Session:
    """A session after one more turn."""
    messages = session.messages.followed_by([HumanMessage(text), AIMessage(f"You said: {text}")])
    return replace(session, version=session.version + 1, turns=session.turns + 1, messages=messages)


def new_request(request: str = "1" * 64, **fields: Any) -> RequestKey:
    """A request with an idempotency key that no other has."""
    key = uuid4().hex + uuid4().hex
    return RequestKey(
        "a" * 64, **{"key": key, "request": request, "session_id": str(uuid4()), **fields}
    )


def reply(text: str = "Hello") -> StoredReply:
    """A reply to keep."""
    return StoredReply({"content-type": "text/plain"}, text.encode())


async def leased(store: SessionStore, session: Session) -> Lease:
    """The lease of a session that exists."""
    lease = await store.lease(session.id, session.bearer)
    assert lease is not None
    return lease


async def begun(store: SessionStore, request: RequestKey) -> RequestKey:
    """A registered request, which was not answered before."""
    registered = await store.begin_request(request)
    assert isinstance(registered, RequestKey)
    return registered


async def stored(store: SessionStore, text: str = "Hi", **fields: Any) -> Session:
    """A session after its first commit."""
    session = new_session(**fields)
    lease = await store.begin_session(session)
    session = changed(session, text)
    await store.commit(lease, session)
    return session


async def status_of(work: Any) -> int:
    """The status with which a store refuses something; 0 if it does not."""
    try:
        await work
    except StatusError as error:
        return error.status or 0
    return 0


async def answer_of(
    store: SessionStore, request: RequestKey, session: Session | None = None
) -> StoredReply | None:
    """The reply of a request that is sent again: it is with the request, or in its session."""
    registered = await store.begin_request(request)
    if isinstance(registered, StoredReply):
        return registered
    try:
        if session is not None:
            lease = await store.lease(session.id, session.bearer, registered)
            if lease is not None:
                await store.release(lease)
    except Answered as answered:
        return answered.reply
    finally:
        await store.end_request(registered)
    return None


async def until_not_refused(work: Callable[[], Any]) -> Any:
    """Ask again and again while the answer is 409; return another one."""
    end = time.monotonic() + 60
    while True:
        try:
            return await work()
        except StatusError as error:
            if error.status != 409 or time.monotonic() > end:
                raise
