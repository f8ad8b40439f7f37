"""Random interleavings of what three workers ask of a store, beside a small model of the contract."""

import random
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import (
    Lease,
    RequestKey,
    SessionStore,
    StoredReply,
)
from tests.stores.stores import Stores, answer_of, changed, new_request, new_session, reply

_WORKERS = 3
_BEARERS = ("a" * 64, "b" * 64)
_MOST_SESSIONS = 4
_OPERATIONS = {
    "begin": 2, "lease": 8, "commit": 8, "release": 2, "renew": 1, "end_lease": 2, "find": 3,
    "remove": 0.3, "begin_request": 5, "end_request": 1,
}  # fmt: skip


@dataclass(eq=False)
class _Held:
    """A lease that a worker holds or held, with the request that it serves.

    Attributes:
        worker: The worker.
        lease: The lease.
        base: The session as the model had it; `None` for a session that is new.
        request: The request with a key, if there is one.
        has_ended: Whether its time was over.
    """

    worker: int
    lease: Lease
    base: Session | None
    request: RequestKey | None = None
    has_ended: bool = False


@dataclass
class _Request:
    """A request with a key.

    Attributes:
        request: The request.
        attempt: The attempt that is registered.
        worker: The worker that makes it.
    """

    request: RequestKey
    attempt: RequestKey | None = None
    answer: StoredReply | None = None
    session: Session | None = None
    worker: int = 0


@dataclass
class Interleaving:
    """Operations of workers in a random order; each answer is compared with the model's.

    Args:
        stores: The stores.
        seed: Decides the order.

    Attributes:
        commits: Commits that succeeded.
        late_commits: Commits that were refused, because another worker was faster.
    """

    stores: Stores
    seed: int
    commits: int = 0
    late_commits: int = 0
    _sessions: dict[str, Session] = field(default_factory=dict)
    _ids: list[str] = field(default_factory=list)
    _holder: dict[str, _Held] = field(default_factory=dict)  # by session, while it has not ended
    _held: list[_Held] = field(default_factory=list)
    _requests: list[_Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 - an order, no secret
        self._workers: list[SessionStore] = [self.stores.open() for _ in range(_WORKERS)]

    async def run(self, steps: int) -> None:
        """Do so many operations, and look at all sessions and requests at the end."""
        names = [*_OPERATIONS]
        for _ in range(steps):
            name = self._dice.choices(names, [*_OPERATIONS.values()])[0]
            await getattr(self, f"_{name}")(self._dice.randrange(_WORKERS))
        for worker in self._workers:
            for session_id in self._ids:
                assert await worker.find(session_id) == self._sessions.get(session_id)
        for known in self._requests:
            if known.answer is not None:
                await self._check_answer(self._workers[0], known)

    async def _check_answer(self, store: SessionStore, known: _Request) -> None:
        answer = await answer_of(store, known.request, known.session)
        assert answer == known.answer

    # Operations

    async def _begin(self, worker: int) -> None:
        if len(self._ids) >= _MOST_SESSIONS:
            return
        session = new_session(self._dice.choice(_BEARERS))
        self._ids.append(session.id)
        lease = await self._workers[worker].begin_session(session)
        self._take(_Held(worker, lease, None))

    async def _lease(self, worker: int) -> None:
        if not self._ids:
            return
        session_id, bearer = self._dice.choice(self._ids), self._dice.choice(_BEARERS)
        named = session_id if self._dice.random() < 0.8 else session_id.replace("-", "")[-12:]
        store, session = self._workers[worker], self._sessions.get(session_id)
        if session is None or session.bearer != bearer:
            assert await store.lease(named, bearer) is None
        elif session_id in self._holder:
            assert await _refusal(store.lease(named, bearer)) == 409
        else:
            lease = await store.lease(named, bearer)
            assert lease is not None
            assert lease.session == session
            self._take(_Held(worker, lease, session, self._free_request(worker)))

    def _take(self, held: _Held) -> None:
        self._held.append(held)
        self._holder[held.lease.session.id] = held

    def _free_request(self, worker: int) -> RequestKey | None:
        """A request that a worker has registered, and that no lease serves."""
        serving = [held.request for held in self._held]
        free = [
            known.attempt
            for known in self._requests
            if known.attempt is not None and known.worker == worker and known.attempt not in serving
        ]
        return self._dice.choice([*free, None])

    def _choose(self) -> _Held | None:
        return self._dice.choice(self._held) if self._held else None

    async def _commit(self, _worker: int) -> None:
        held = self._choose()
        if held is None:
            return
        session_id = held.lease.session.id
        current = self._sessions.get(session_id)
        ends = self._dice.random() < 0.03
        session = None if ends else changed(held.base or held.lease.session, str(uuid4()))
        answered = (held.request, reply(str(uuid4()))) if held.request else None
        status = await _refusal(self._workers[held.worker].commit(held.lease, session, answered))
        holder = self._holder.get(session_id)
        is_stale = current is not held.base or holder not in {held, None}
        if held.has_ended and is_stale:
            assert status == 409, "a late commit was accepted"
        elif not held.has_ended:
            assert status == 0, f"a commit in time was refused with {status}"
        if status:
            self.late_commits += 1
            await self._give_back(held)
            return
        self.commits += 1
        self._held.remove(held)
        self._holder.pop(session_id, None)
        self._store(session_id, session)
        if answered is not None:
            known = self._known(answered[0])
            known.answer, known.session, known.attempt = answered[1], held.lease.session, None

    def _store(self, session_id: str, session: Session | None) -> None:
        if session is not None:
            self._sessions[session_id] = session
            return
        self._sessions.pop(session_id, None)
        self._ids.remove(session_id)

    def _known(self, request: RequestKey) -> _Request:
        return next(known for known in self._requests if known.request.key == request.key)

    async def _release(self, _worker: int) -> None:
        held = self._choose()
        if held is not None:
            await self._give_back(held)

    async def _give_back(self, held: _Held) -> None:
        store, session_id = self._workers[held.worker], held.lease.session.id
        await store.release(held.lease)
        if held.request is not None:
            await store.end_request(held.request)
            self._known(held.request).attempt = None
        self._held.remove(held)
        if self._holder.get(session_id) is held:
            del self._holder[session_id]
            if session_id not in self._sessions:
                self._ids.remove(session_id)

    async def _renew(self, _worker: int) -> None:
        held = self._choose()
        if held is not None:
            renewed = await self._workers[held.worker].renew(held.lease)
            assert renewed is not held.has_ended

    async def _end_lease(self, _worker: int) -> None:
        holders = [held for held in self._holder.values() if held.base is not None]
        if holders and self.stores.leases_end:
            held = self._dice.choice(holders)
            self.stores.end_lease(held.lease)
            held.has_ended = True
            del self._holder[held.lease.session.id]

    async def _find(self, worker: int) -> None:
        if self._ids:
            session_id = self._dice.choice(self._ids)
            assert await self._workers[worker].find(session_id) == self._sessions.get(session_id)

    async def _remove(self, worker: int) -> None:
        idle = [name for name in self._ids if not self._is_in_use(name)]
        if idle:
            session_id = self._dice.choice(idle)
            await self._workers[worker].remove(session_id)
            self._store(session_id, None)

    def _is_in_use(self, session_id: str) -> bool:
        return any(held.lease.session.id == session_id for held in self._held)

    async def _begin_request(self, worker: int) -> None:
        store = self._workers[worker]
        if not self._requests or self._dice.random() < 0.4:
            known = _Request(new_request(self._dice.choice("123") * 64))
            self._requests.append(known)
        else:
            known = self._dice.choice(self._requests)
        if self._dice.random() < 0.1 and (known.answer or known.attempt):
            other = replace(known.request, request="f" * 64)
            assert await _refusal(store.begin_request(other)) == 422
        elif known.answer is not None:
            await self._check_answer(store, known)
        elif known.attempt is not None:
            assert await _refusal(store.begin_request(known.request)) == 409
        else:
            attempt = await store.begin_request(known.request)
            assert isinstance(attempt, RequestKey)
            assert attempt.session_id == known.request.session_id
            known.attempt, known.worker = attempt, worker

    async def _end_request(self, worker: int) -> None:
        attempt = self._free_request(worker)
        if attempt is not None:
            await self._workers[worker].end_request(attempt)
            self._known(attempt).attempt = None


async def _refusal(work: Any) -> int:
    try:
        await work
    except StatusError as error:
        return error.status or 0
    return 0
