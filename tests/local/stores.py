"""A session store in memory, used without an event loop."""

from dataclasses import replace

from langchain_sequrity.local import Session, SessionStore
from langchain_sequrity.local.store import Lease, RequestKey
from langchain_sequrity.sync_or_async import run_to_end
from tests.stores.chosen import ReadsApart


def save(store: SessionStore, session: Session) -> None:
    """Commit a session, as a request does that has just changed it."""
    lease = acquire(store, session.id)
    if lease is None:
        lease = run_to_end(store.begin_session(replace(session, version=0)))
    session.version = lease.session.version + 1
    try:
        run_to_end(store.commit(lease, session))
    finally:
        run_to_end(store.release(lease))


def find(store: SessionStore, session_id: str) -> Session | None:
    """Find a session."""
    if isinstance(store, ReadsApart):
        return store.read_apart(session_id)
    return run_to_end(store.find(session_id))


def acquire(store: SessionStore, session_id: str) -> Lease | None:
    """Reserve a session, whoever its bearer is."""
    session = find(store, session_id)
    return None if session is None else run_to_end(store.lease(session_id, session.bearer))


def release(store: SessionStore, lease: Lease) -> None:
    """Give a session back."""
    run_to_end(store.release(lease))


def remove(store: SessionStore, session_id: str) -> None:
    """End a session."""
    run_to_end(store.remove(session_id))


def keyed(owner: str, key: str, request: str = "0") -> RequestKey:
    """A request with an idempotency key; the texts stand for digests."""
    key_digest, digest = (
        format(hash(text) % 2**64, "016x") for text in (f"{owner}:{key}", request)
    )
    return RequestKey(owner, key_digest, digest, session_id="")
