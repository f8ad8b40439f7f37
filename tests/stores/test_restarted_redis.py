"""A Redis that was restarted and has lost its last commits, and workers that know these."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from langchain_sequrity.local.sessions import Session
from tests.stores.redis_servers import RedisServer, redis_server, why_unavailable
from tests.stores.stores import RedisStores, changed, leased, status_of, stored

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "installed")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server(("--appendfsync", "always")) as running:
        yield running


@pytest.fixture
async def stores(server: RedisServer) -> AsyncIterator[RedisStores]:
    stores = RedisStores(server.url)
    yield stores
    await stores.close()


def lose_last_commit(server: RedisServer, session: Session) -> None:
    """Let Redis be as it was before the last commit of a session."""
    with redis.Redis.from_url(server.url) as client:
        [events] = client.scan_iter(f"*{{{session.short}}}:events")
        client.rpop(events)
        head = events.replace(b":events", b":session")
        client.hincrby(head, "version", -1)
        client.hincrby(head, "count", -1)


async def test_a_worker_that_knows_a_lost_commit_reads_what_another_one_wrote_in_its_place(
    server: RedisServer, stores: RedisStores
) -> None:
    one, other = stores.open(), stores.open()
    first = await stored(one)
    await one.commit(await leased(one, first), changed(first, "lost"))
    lose_last_commit(server, first)

    kept = changed(first, "kept")
    await other.commit(await leased(other, first), kept)

    assert (await leased(one, first)).session == kept


async def test_a_commit_is_refused_if_another_one_has_the_place_of_the_one_before(
    server: RedisServer, stores: RedisStores
) -> None:
    one, other = stores.open(), stores.open()
    first = await stored(one)
    lost = changed(first, "lost")
    await one.commit(await leased(one, first), lost)
    lease = await leased(one, lost)
    lose_last_commit(server, first)
    stores.end_lease(lease)

    kept = changed(first, "kept")
    await other.commit(await leased(other, first), kept)

    assert kept.version == lost.version
    assert await status_of(one.commit(lease, changed(lost, "late"))) == 409
    assert await other.find(first.id) == kept


async def test_a_store_that_was_closed_while_redis_was_away_works_when_it_is_opened_again(
    server: RedisServer, stores: RedisStores
) -> None:
    store = stores.open()
    session = await stored(store)
    server.kill()
    assert await status_of(store.find(session.id)) == 503
    assert await store.problem()

    await store.close()
    server.start()

    assert await store.find(session.id) == session


async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_command(
    server: RedisServer, stores: RedisStores
) -> None:
    store = stores.open(timeout=0.2)
    first, second = await stored(store), await stored(store)
    server.pause()
    try:
        refused = [await status_of(store.find(first.id)) for _ in range(3)]
    finally:
        server.resume()
    assert refused == [503, 503, 503]

    while await store.problem():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    for session in (second, first) * 5:
        assert await store.find(session.id) == session
        lease = await leased(store, session)
        assert lease.session == session
        await store.release(lease)
