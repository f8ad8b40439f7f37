"""The contract of session stores: what all of them promise to the workers of a server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any
from uuid import uuid4

import pytest

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import ServerLimits
from langchain_sequrity.local.sessions import Session, bearer_digest
from langchain_sequrity.local.store import StoredReply
from tests.stores.interleavings import Interleaving
from tests.stores.kinds import KINDS, play
from tests.stores.stores import (
    MemoryStores,
    RedisStores,
    Stores,
    answer_of,
    begun,
    changed,
    leased,
    new_request,
    new_session,
    reply,
    status_of,
    stored,
    until_not_refused,
)

NewStores = Callable[..., Stores]
SHORT_LEASE = 0.2  # seconds
OTHER = "b" * 64  # digest of another bearer


@pytest.fixture(params=["memory", "server", "cluster"])
async def new_stores(request: pytest.FixtureRequest) -> AsyncIterator[NewStores]:
    """A function that makes stores with limits; they are closed after the test."""
    opened: list[Stores] = []

    def make(**limits: Any) -> Stores:
        server_limits = ServerLimits(**limits)
        if request.param == "memory":
            opened.append(MemoryStores(server_limits))
        else:
            url = request.getfixturevalue(f"redis_{request.param}_url")
            opened.append(RedisStores(url, server_limits))
        return opened[-1]

    yield make
    for stores in opened:
        await stores.close()


@pytest.fixture
def stores(new_stores: NewStores) -> Stores:
    return new_stores()


@pytest.fixture
def ending(stores: Stores) -> Stores:
    """Stores whose leases end by themselves."""
    if not stores.leases_end:
        pytest.skip("leases of this store do not end by themselves")
    return stores


# Sessions


async def test_a_session_is_found_by_its_id_and_by_its_short_id(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = await stored(one)

    for store in (one, other):
        assert await store.find(session.id) == session
        assert await store.find(session.short) == session
        lease = await leased(store, session)
        assert lease.session == session
        await store.release(lease)


async def test_an_id_that_only_ends_like_that_of_a_session_finds_nothing(stores: Stores) -> None:
    store = stores.open()
    session = await stored(store)

    similar = "00000000" + session.id[8:]
    assert await store.find(similar) is None
    assert await store.lease(similar, session.bearer) is None
    assert await store.find(str(uuid4())) is None
    assert await store.find("") is None


async def test_another_bearer_has_no_such_session(stores: Stores) -> None:
    store = stores.open()
    session = await stored(store)

    assert await store.lease(session.id, OTHER) is None
    assert await store.lease(session.short, OTHER) is None
    lease = await leased(store, session)
    assert await store.lease(session.id, OTHER) is None  # it does not learn that it is busy
    await store.release(lease)


async def test_what_one_worker_commits_the_others_see(stores: Stores) -> None:
    workers = [stores.open() for _ in range(3)]
    session = await stored(workers[0])

    for number in range(9):
        lease = await leased(workers[number % 3], session)
        assert lease.session == session
        session = changed(session, f"message {number}")
        await workers[number % 3].commit(lease, session)
        assert [await worker.find(session.id) for worker in workers] == [session] * 3


async def test_a_leased_session_is_busy_until_the_lease_is_given_back(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = await stored(one)

    lease = await leased(one, session)
    assert await status_of(other.lease(session.id, session.bearer)) == 409
    assert await status_of(one.lease(session.short, session.bearer)) == 409
    await one.release(lease)
    lease = await leased(other, session)
    await other.commit(lease, changed(lease.session))
    await one.release(await leased(one, session))


async def test_a_new_session_does_not_exist_before_its_commit(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = new_session()

    lease = await one.begin_session(session)
    assert await other.find(session.id) is None
    assert await status_of(other.begin_session(session)) == 409
    await one.release(lease)
    assert await other.find(session.id) is None
    await other.commit(await other.begin_session(session), changed(session))
    assert await status_of(one.begin_session(session)) == 409


async def test_nothing_happens_if_a_lease_is_given_back_twice(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = await stored(one)

    lease = await leased(one, session)
    await one.release(lease)
    await one.release(lease)
    if stores.leases_end:  # the leases of one process have no tokens
        taken = await leased(other, session)
        await one.release(lease)
        assert await status_of(one.lease(session.id, session.bearer)) == 409
        await other.release(taken)


async def test_a_session_that_ends_is_gone_for_all_workers(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = await stored(one)
    request = await begun(one, new_request())
    assert await other.find(session.id) == session

    await one.commit(await leased(one, session), None, (request, reply("the last one")))

    assert await other.find(session.id) is None
    assert await other.find(session.short) is None
    assert await other.lease(session.id, session.bearer) is None
    assert await answer_of(other, request, session) == reply("the last one")


async def test_a_removed_session_is_gone_for_all_workers(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    session = await stored(one)

    await other.remove(session.id)
    await other.remove(session.id)

    assert await one.find(session.id) is None
    assert await one.lease(session.id, session.bearer) is None


async def test_an_idle_session_ends_and_one_in_use_does_not(new_stores: NewStores) -> None:
    stores = new_stores(session_seconds=0.3)
    store, other = stores.open(), stores.open()
    session, used = await stored(store), await stored(store)

    for _ in range(8):
        await asyncio.sleep(0.1)  # time is the subject
        lease = await leased(store, used)
        used = changed(lease.session)
        await store.commit(lease, used)

    assert await store.find(used.id) == used
    assert await store.find(session.id) is None
    assert await other.find(session.id) is None
    assert await store.lease(session.id, session.bearer) is None


async def test_a_session_does_not_end_while_a_request_has_it(new_stores: NewStores) -> None:
    stores = new_stores(session_seconds=0.3)
    store = stores.open(lease_seconds=SHORT_LEASE)
    session = await stored(store)

    lease = await leased(store, session)
    await asyncio.sleep(1)  # time is the subject
    await store.commit(lease, changed(session))

    assert await store.find(session.id) == changed(session)


async def test_a_session_that_is_too_large_is_refused_and_stays_as_it_was(
    new_stores: NewStores,
) -> None:
    stores = new_stores(session_bytes=30_000)
    store, other = stores.open(), stores.open()
    session = await stored(store)
    request = await begun(store, new_request())

    lease = await leased(store, session)
    too_large = changed(session, "x" * 100_000)
    assert await status_of(store.commit(lease, too_large, (request, reply()))) == 413
    await store.release(lease)
    await store.end_request(request)

    assert await other.find(session.id) == session
    await begun(other, request)
    await other.commit(await leased(other, session), changed(session))


async def test_a_session_that_would_begin_too_large_is_refused(new_stores: NewStores) -> None:
    store = new_stores(session_bytes=30_000).open()
    session = new_session()

    lease = await store.begin_session(session)
    assert await status_of(store.commit(lease, changed(session, "x" * 100_000))) == 413
    await store.release(lease)

    assert await store.find(session.id) is None
    await store.commit(await store.begin_session(session), changed(session))


# Leases that end


async def test_a_lease_lasts_as_long_as_its_worker(ending: Stores) -> None:
    one, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    session = await stored(one)

    lease = await leased(one, session)
    for _ in range(10):
        await asyncio.sleep(SHORT_LEASE / 2)  # time is the subject
        assert await status_of(other.lease(session.id, session.bearer)) == 409
    await one.commit(lease, changed(session))

    await other.release(await leased(other, session))


async def test_the_lease_of_a_worker_that_died_ends(ending: Stores) -> None:
    one, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    session = await stored(one)

    await leased(one, session)
    await one.close()

    lease = await until_not_refused(lambda: other.lease(session.id, session.bearer))
    assert lease.session == session
    await other.commit(lease, changed(session))


async def test_a_late_commit_is_refused_and_nothing_of_it_is_stored(ending: Stores) -> None:
    late, other = ending.open(), ending.open()
    session = await stored(late)
    request = await begun(late, new_request())

    lease = await leased(late, session)
    ending.end_lease(lease)
    assert not await late.renew(lease)
    taken = await leased(other, session)
    # While the other worker is at it, and after its commit.
    late_commit = (lease, changed(session, "late"), (request, reply("late")))
    assert await status_of(late.commit(*late_commit)) == 409
    in_time = changed(session, "in time")
    await other.commit(taken, in_time)
    assert await status_of(late.commit(*late_commit)) == 409
    assert await status_of(late.commit(lease, None, (request, reply("late")))) == 409

    for store in (late, other):
        assert await store.find(session.id) == in_time
    await late.end_request(request)
    await begun(other, request)
    lease = await leased(late, session)  # it sees what the other one has done
    assert lease.session == in_time
    await late.commit(lease, changed(in_time, "again"))
    assert await other.find(session.id) == changed(in_time, "again")


async def test_a_late_release_leaves_the_lease_of_another_worker(ending: Stores) -> None:
    late, other = ending.open(), ending.open()
    session = await stored(late)

    lease = await leased(late, session)
    ending.end_lease(lease)
    taken = await leased(other, session)
    await late.release(lease)
    assert not await late.renew(lease)

    assert await status_of(late.lease(session.id, session.bearer)) == 409
    assert await other.renew(taken)
    await other.commit(taken, changed(session))


async def test_a_late_commit_does_not_bring_an_ended_session_back(ending: Stores) -> None:
    late, other = ending.open(), ending.open()
    session = await stored(late)

    lease = await leased(late, session)
    ending.end_lease(lease)
    await other.commit(await leased(other, session), None)

    assert await status_of(late.commit(lease, changed(session))) == 409
    assert await other.find(session.id) is None


# Replies


async def test_a_session_and_its_reply_are_stored_at_once(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    request = await begun(one, new_request())
    session = new_session(id=request.session_id)

    lease = await one.begin_session(session, request)
    session = changed(session)
    assert await other.find(session.id) is None
    await one.commit(lease, session, (request, reply()))

    assert await other.find(session.id) == session
    assert [await store.begin_request(request) for store in (other, one)] == [reply()] * 2


async def test_a_reply_without_a_session_is_stored(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    request = await begun(one, new_request())

    await one.commit(None, None, (request, reply("a policy")))

    assert await other.begin_request(request) == reply("a policy")


async def test_a_key_that_was_used_for_another_request_is_refused(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    request = await begun(one, new_request())
    different = replace(request, request="2" * 64)

    assert await status_of(other.begin_request(different)) == 422
    await one.commit(None, None, (request, reply()))
    assert await status_of(other.begin_request(different)) == 422
    assert await status_of(one.begin_request(different)) == 422


async def test_a_request_that_is_being_answered_is_refused_for_a_while(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    request = await begun(one, new_request())

    for store in (other, one):
        with pytest.raises(StatusError, match="still being answered") as refused:
            await store.begin_request(request)
        assert refused.value.status == 409
        assert 1 <= (refused.value.retry_after or 0) <= 10  # at most the rest of a lease


async def test_a_worker_that_stops_gives_back_what_it_holds(ending: Stores) -> None:
    one, other = ending.open(), ending.open()
    session = await stored(one)
    lease, request, new = await leased(one, session), new_request(), new_session()
    await begun(one, request)
    await one.begin_session(new)

    await one.close()

    await other.release(await leased(other, session))
    assert (await begun(other, request)).token
    await other.release(await other.begin_session(new))
    await other.commit(await leased(other, session), changed(session))
    assert await status_of(one.commit(lease, changed(session, "too late"))) == 409


async def test_a_request_that_failed_can_be_sent_again(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    request = await begun(one, new_request())

    await one.end_request(request)
    again = await begun(other, request)
    await other.commit(None, None, (again, reply()))
    await one.end_request(request)  # it was kept

    assert await one.begin_request(request) == reply()


async def test_a_reply_that_is_too_large_is_not_kept_and_its_request_not_answered_twice(
    new_stores: NewStores,
) -> None:
    stores = new_stores(reply_bytes=10)
    one, other = stores.open(), stores.open()
    large, missing = await begun(one, new_request()), await begun(one, new_request())

    await one.commit(None, None, (large, reply("x" * 11)))
    await one.commit(None, None, (missing, StoredReply({}, None)))

    assert await status_of(other.begin_request(large)) == 507
    assert await status_of(other.begin_request(missing)) == 507


async def test_a_reply_is_forgotten_after_its_time(new_stores: NewStores) -> None:
    stores = new_stores(reply_seconds=0.2)
    store = stores.open(lease_seconds=SHORT_LEASE)
    request = await begun(store, new_request())
    await store.commit(None, None, (request, reply()))

    assert await store.begin_request(request) == reply()
    await asyncio.sleep(0.5)  # time is the subject
    await begun(store, request)


async def test_an_attempt_that_was_given_up_is_followed_by_one_with_the_same_session(
    ending: Stores,
) -> None:
    dead, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    request = await begun(dead, new_request())
    await dead.close()

    repeated = replace(request, session_id=str(uuid4()), token="")
    again = await until_not_refused(lambda: other.begin_request(repeated))

    assert again.session_id == request.session_id
    assert again.token != request.token


async def test_an_attempt_lasts_as_long_as_its_worker(ending: Stores) -> None:
    one, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    request = await begun(one, new_request())

    for _ in range(10):
        await asyncio.sleep(SHORT_LEASE / 2)  # time is the subject
        assert await status_of(other.begin_request(request)) == 409


async def test_of_two_attempts_only_one_can_commit(ending: Stores) -> None:
    late, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    first = await begun(late, new_request())
    session = new_session(id=first.session_id)
    late_lease = await late.begin_session(session, first)
    await late.close()  # it is away, and comes back
    second = await until_not_refused(lambda: other.begin_request(first))

    lease = await other.begin_session(session, second)
    await other.commit(lease, changed(session, "second"), (second, reply("second")))
    late_commit = late.commit(late_lease, changed(session, "first"), (first, reply("first")))
    assert await status_of(late_commit) == 409
    await late.end_request(first)

    assert await late.find(session.id) == changed(session, "second")
    for store in (late, other):
        assert await store.begin_request(first) == reply("second")


async def test_an_attempt_that_comes_back_first_commits_and_the_other_gets_nothing(
    ending: Stores,
) -> None:
    away, other = ending.open(lease_seconds=SHORT_LEASE), ending.open()
    first = await begun(away, new_request())
    session = new_session(id=first.session_id)
    first_lease = await away.begin_session(session, first)
    await away.close()
    second = await until_not_refused(lambda: other.begin_request(first))
    lease = await other.begin_session(session, second)

    await away.commit(first_lease, changed(session, "first"), (first, reply("first")))
    late_commit = other.commit(lease, changed(session, "second"), (second, reply("second")))
    assert await status_of(late_commit) == 409
    await other.release(lease)
    await other.end_request(second)

    assert await other.find(session.id) == changed(session, "first")
    assert await other.begin_request(first) == reply("first")


# Counts


async def test_amounts_of_a_minute_are_counted_over_all_workers(stores: Stores) -> None:
    one, other = stores.open(), stores.open()
    account = str(uuid4())

    assert [await store.spend(account, 2, most=5) for store in (one, other, one)] == [0.0] * 3
    for store in (one, other):
        assert 0 < await store.spend(account, 1, most=5) <= 61
    assert await one.spend(account, 1, most=7) == 0.0  # what was refused was not counted
    assert await other.spend(account, 1, most=7) > 0
    assert await other.spend(account, 100) == 0.0
    assert await one.spend(account, 0, most=107) > 0
    assert await one.spend(str(uuid4()), 1, most=1) == 0.0


async def test_the_first_of_many_workers_get_what_a_minute_has(stores: Stores) -> None:
    workers = [stores.open() for _ in range(4)]
    account = str(uuid4())

    waits = await asyncio.gather(
        *(workers[number % 4].spend(account, 1, most=10) for number in range(40))
    )

    assert sum(wait == 0.0 for wait in waits) == 10


# All kinds of sessions


@pytest.mark.parametrize("kind", KINDS)
async def test_sessions_of_every_kind_come_back_equal(stores: Stores, kind: str) -> None:
    one, other = stores.open(), stores.open()
    previous: Session | None = None

    for number, made in enumerate(play(kind), 1):
        session = replace(made, version=number)
        if previous is None:
            lease = await one.begin_session(replace(new_session(session.bearer), id=session.id))
        else:
            lease = await leased(one, session)
            assert_equal(lease.session, previous)
        await one.commit(lease, session)
        found = await other.find(session.id)
        assert found is not None
        assert_equal(found, session)
        previous = session

    fresh = await stores.open().find(session.id)
    assert fresh is not None
    assert_equal(fresh, session)


def assert_equal(found: Session, session: Session) -> None:
    for field in fields(Session):
        assert getattr(found, field.name) == getattr(session, field.name), field.name


# Secrets, and many at once


async def test_a_store_with_another_secret_finds_nothing(
    stores: Stores, new_stores: NewStores
) -> None:
    if isinstance(stores, MemoryStores):
        stranger = new_stores().open()
    else:
        stranger = stores.open(secret="quite another secret")
    store = stores.open()
    bearer = bearer_digest("sq-key", store.secret)
    session, request = await stored(store, bearer=bearer), await begun(store, new_request())
    await store.commit(None, None, (request, reply()))

    assert bearer_digest("sq-key", stranger.secret) != bearer
    assert await stranger.find(session.id) is None
    assert await stranger.lease(session.id, bearer) is None
    await begun(stranger, request)


async def test_many_requests_at_once_are_all_answered(stores: Stores) -> None:
    store = stores.open(max_connections=8)
    sessions = [await stored(store, f"session {number}") for number in range(20)]

    found = await asyncio.gather(*(store.find(session.id) for session in sessions * 20))

    assert found == sessions * 20
    assert await store.problem() == ""


async def test_of_many_requests_for_one_session_one_gets_it(stores: Stores) -> None:
    workers = [stores.open() for _ in range(4)]
    session = await stored(workers[0])

    for _ in range(5):
        leases = await asyncio.gather(
            *(workers[number % 4].lease(session.id, session.bearer) for number in range(20)),
            return_exceptions=True,
        )
        winners = [
            (workers[number % 4], lease)
            for number, lease in enumerate(leases)
            if not isinstance(lease, BaseException)
        ]
        assert len(winners) == 1
        for worker, lease in winners:
            assert lease is not None
            session = changed(session)
            await worker.commit(lease, session)


@pytest.mark.long(sample=8)
@pytest.mark.parametrize("seed", range(60))
async def test_any_order_of_three_workers_operations_gives_what_the_contract_says(
    stores: Stores, seed: int
) -> None:
    interleaving = Interleaving(stores, seed)

    await interleaving.run(steps=200)

    assert interleaving.commits > 4
