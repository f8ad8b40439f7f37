"""Limits in bytes: which requests are refused, and which sessions and replies are evicted."""

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from langchain_core.messages import HumanMessage

from langchain_sequrity.errors import SequrityError, ServerFailed, StatusError
from langchain_sequrity.local import LocalServer, MemorySessions, Session
from langchain_sequrity.local.limits import DEFAULTS, Charge, MemoryBudget
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.replies import Replies
from langchain_sequrity.local.store import Lease, RequestKey, StoredReply
from langchain_sequrity.local.stored_messages import Conversation
from langchain_sequrity.transport.pool import KEEPALIVE
from tests.local.api import CHAT, WAIT, Api, Gate, Speaker, detail, said, session_of, streamed_text
from tests.local.conftest import Serve
from tests.local.stores import acquire, find, keyed, release, remove, save

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
HI: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def small(http: httpx.Client) -> Iterator[Api]:
    """A server with 1 MiB for all requests together; its backend waits for the test."""
    gate = Gate()
    script = [{"when": {"user": "wait"}, "answer": gate}]
    server = LocalServer(script=script, limits={"requests_bytes": MIB})
    with server:
        api = Api(server, http, "sq-test")
        api.gate = gate  # type: ignore[attr-defined]  # for the tests below
        yield api
        gate.opened.set()


# Running requests


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("part", [b"[],", b'{"a":1},', b"1,", b'"ab",'])
@pytest.mark.parametrize("as_string", [False, True])
def test_a_body_that_would_be_too_large_after_parsing_is_413(
    part: bytes, *, as_string: bool, small: Api
) -> None:
    value = b"[" + part * (60_000 // len(part)) + b"1]"
    if as_string:
        value = json.dumps(value.decode()).encode()
    body = json.dumps({**HI, "metadata": {"x": 0}}).encode().replace(b"0", value)
    assert len(body) < 150_000
    reply = small.post(content=body, headers=JSON)
    assert reply.status_code == 413
    assert "1048576 bytes" in detail(reply)
    assert said(small.chat("Hi"))["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_without_room_beside_others_is_429_and_succeeds_later(
    small: Api, *, stream: bool
) -> None:
    large = "x" * 280_000
    with httpx.Client(timeout=WAIT, trust_env=False) as other, ThreadPoolExecutor(1) as pool:
        first = pool.submit(Api(small.server, other, "sq-1").chat, "wait" + large)
        small.gate.wait_for_request()  # type: ignore[attr-defined]  # as above
        refused = small.chat(large, stream=stream)
        beside = small.chat("Hi")
        small.gate.opened.set()  # type: ignore[attr-defined]  # as above
        assert first.result().status_code == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "1048576 bytes" in detail(refused)
    assert beside.status_code == 200
    assert small.chat(large, stream=stream).status_code == 200


def test_a_request_frees_all_its_memory_however_it_ends(small: Api) -> None:
    budget = small.server._services.budget
    endings: list[Any] = [
        {"content": b"{", "headers": JSON},
        {"content": b"[" * 1_000, "headers": JSON},
        {"content": b"x", "headers": {}},
        {"json": HI, "headers": {"Authorization": ""}},
        {"json": HI, "headers": {"X-Policy": "{"}},
        {"json": HI, "headers": {"Idempotency-Key": "k"}},
        {"json": HI, "headers": {"Idempotency-Key": "k"}},
        {"json": {**HI, "stream": True}},
        {"json": {"model": 1}},
        {"content": iter([b"x" * 100_000] * 9), "headers": JSON},
    ]
    for ending in endings:
        small.post(**ending)
    with small.stream("Hi"):
        pass  # hangs up
    assert said(small.chat("Hi"))["content"]
    # The server frees the memory of a request only after it has sent the reply.
    limit = time.monotonic() + WAIT
    while not (is_free := budget.charge(MIB)) and time.monotonic() < limit:
        time.sleep(0.001)
    assert is_free, "something was not given back"
    budget.charge(-MIB)


def test_a_body_that_does_not_arrive_in_time_is_408_and_frees_its_memory() -> None:
    server = LocalServer(limits={"requests_bytes": MIB, "body_seconds": 0.01})
    budget = server._services.budget
    server.start()
    address = urlsplit(server.base_url)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 300000\r\n\r\n{{"
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    server.stop()
    assert budget.charge(MIB)


def test_a_charge_is_refused_if_the_budget_is_exceeded() -> None:
    budget = MemoryBudget(100)
    first, second = Charge(budget), Charge(budget)
    first.add(60)
    with pytest.raises(StatusError) as later:
        second.add(50)
    assert (later.value.status, later.value.retry_after) == (429, 1)
    with pytest.raises(StatusError) as never:
        first.add(41)
    assert never.value.status == 413
    first.close()
    second.add(100)


# Answers


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("words", ["x" * 100_000, "äö" * 50_000])
def test_an_endless_answer_is_cut_and_the_error_names_the_limit(words: str, serve: Serve) -> None:
    api = serve(model=Speaker(pieces=lambda: iter(lambda: words, None)))
    with api.stream("Hi") as reply:
        data = reply.read()
    assert b"more than 8388608 bytes" in data
    assert b"[DONE]" not in data
    assert said(serve().chat("Hi"))["content"]


def test_an_endless_program_text_is_502(serve: Serve) -> None:
    api = serve(model=Speaker(pieces=lambda: iter(lambda: "x = 1\n" * 20_000, None)))
    reply = api.chat("Hi", headers={"X-Features": '{"agent_arch": "dual-llm"}'})
    assert reply.status_code == 502
    assert "8388608 bytes" in detail(reply)


# Sessions


def sessions(**options: Any) -> MemorySessions:
    return MemorySessions(**{"max_bytes": 100_000, "max_session_bytes": 60_000, **options})


def session(owner: str, size: int, **more: Any) -> Session:
    return Session(
        owner, "/path", messages=Conversation.from_messages([HumanMessage("x" * size)]), **more
    )


def test_a_session_that_is_too_large_is_413_and_stays_as_it_was(serve: Serve) -> None:
    store = sessions()
    api = serve(store=store)
    started = session_of(api.chat("Hi"))
    before = store[started]
    refused = api.chat("x" * 60_000, session=started)
    assert refused.status_code == 413
    assert "60000 bytes" in detail(refused)
    assert store[started] is before
    assert before.turns == 1
    assert len(before.messages) == 2
    assert said(api.chat("Go on", session=started))["content"]
    assert api.chat("x" * 60_000).status_code == 413
    assert len(store) == 1


def test_a_session_that_grows_too_large_in_a_stream_ends_it_with_an_error(serve: Serve) -> None:
    store = sessions()
    api = serve(store=store)
    started = session_of(api.chat("Hi"))
    with api.stream("x" * 60_000, session=started) as reply:
        data = reply.read()
    assert b"60000 bytes" in data
    assert b"[DONE]" not in data
    assert store[started].turns == 1


def test_a_dual_llm_session_counts_its_variables_and_logs(serve: Serve) -> None:
    api = serve(
        store=sessions(), script=[{"program": 'kept = "x" * 70000\nfinal_return_value = 1'}]
    )
    dual = {"X-Features": '{"agent_arch": "dual-llm"}'}
    reply = api.chat("Hi", headers=dual)
    assert reply.status_code == 413
    assert "60000 bytes" in detail(reply)
    assert len(api.server.sessions) == 0  # type: ignore[arg-type]  # a MemorySessions


def test_the_owner_of_most_data_loses_the_session_that_was_idle_longest() -> None:
    store = sessions()
    mine = session("me", 30_000)
    save(store, mine)
    theirs = [session("them", 10_000) for _ in range(20)]
    for one in theirs:
        save(store, one)
    assert find(store, mine.id) is mine
    kept = [one for one in theirs if find(store, one.id)]
    assert 3 < len(kept) < 8
    assert kept == theirs[-len(kept) :]


def test_a_flood_of_small_sessions_does_not_evict_sessions_of_others() -> None:
    store = MemorySessions(max_sessions=10)
    mine = [session("me", 10) for _ in range(3)]
    for one in mine:
        save(store, one)
    for _ in range(100):
        save(store, session("them", 10))
    assert all(find(store, one.id) for one in mine)
    assert len(store) == 10


def test_a_session_without_room_beside_its_owners_sessions_is_507_and_evicts_nobody_else() -> None:
    store = sessions()
    mine, busy = session("me", 30_000), session("them", 50_000)
    save(store, mine)
    save(store, busy)
    lease = acquire(store, busy.id)
    assert lease
    with pytest.raises(StatusError) as refused:
        save(store, session("them", 40_000))
    assert refused.value.status == 507
    assert "100000 bytes" in str(refused.value)
    assert find(store, mine.id) is mine
    assert find(store, busy.id) is busy
    save(store, session("them", 5_000))
    release(store, lease)
    save(store, session("them", 40_000))
    assert find(store, busy.id) is None
    assert find(store, mine.id) is mine


def test_without_room_a_request_is_507_over_http_and_its_session_stays_usable(serve: Serve) -> None:
    store = sessions(max_session_bytes=100_000)
    api = serve(store=store)
    busy = session("them", 80_000)
    save(store, busy)
    acquire(store, busy.id)
    started = session_of(api.chat("Hi"))
    refused = api.chat("x" * 50_000, session=started)
    assert refused.status_code == 507
    assert store[started].turns == 1
    assert said(api.chat("Go on", session=started))["content"]


@pytest.mark.parametrize("given", range(20))
def test_an_owner_below_a_fair_share_loses_no_session(given: int) -> None:
    numbers = random.Random(given)  # noqa: S311 - no secret
    owners = ["a", "b", "c", "d"]
    store = sessions(max_session_bytes=30_000)
    quiet = [session("quiet", numbers.randrange(2_000)) for _ in range(4)]
    for one in quiet:
        save(store, one)
    for _ in range(200):
        one = session(numbers.choice(owners), numbers.randrange(25_000))
        with suppress(ServerFailed):  # 507
            save(store, one)
        if numbers.random() < 0.1:
            remove(store, one.id)
    assert all(find(store, one.id) for one in quiet)
    assert store._shares._total <= 100_000
    assert sum(map(len, store._shares._sizes.values())) == len(store)


def test_a_session_that_shrinks_or_ends_frees_its_memory() -> None:
    store = sessions()
    first = session("me", 50_000)
    save(store, first)
    save(store, replace(first, messages=Conversation()))
    second = session("me", 50_000)
    save(store, second)
    assert find(store, first.id)
    remove(store, second.id)
    assert store._shares._total < 10_000


def test_a_custom_store_may_refuse_a_session(serve: Serve) -> None:
    class Refusing(MemorySessions):
        def prepare(self, lease: Lease, session: Session) -> None:
            del lease
            refuse(507, f"No room for {session.place}.")

    api = serve(store=Refusing())
    reply = api.chat("Hi")
    assert reply.status_code == 507
    assert CHAT in detail(reply)


# Replies


def reply_of(size: int) -> StoredReply:
    return StoredReply({}, b"x" * size)


def request_of(key: str) -> RequestKey:
    return keyed(*key.split(":"))


def keep(replies: Replies, key: str, size: int) -> None:
    assert replies.begin(request_of(key)) is None
    replies.keep(request_of(key), reply_of(size))


def test_a_repeated_request_whose_reply_was_too_large_to_keep_is_507(serve: Serve) -> None:
    text = "x" * (DEFAULTS.reply_bytes + 1)
    api = serve(script=[{"when": {"user": "long"}, "text": text}])
    key = {"Idempotency-Key": "k"}
    for stream in (False, True):
        headers = {"Idempotency-Key": f"k{stream}"}
        reply = api.chat("long", headers=headers, stream=stream)
        assert reply.status_code == 200
        assert streamed_text(reply.content) == text if stream else said(reply)["content"] == text
        again = api.chat("long", headers=headers, stream=stream)
        assert again.status_code == 507
        assert "not answered twice" in detail(again)
    assert api.chat("Hi", headers=key).content == api.chat("Hi", headers=key).content


def test_the_owner_of_most_data_loses_its_oldest_reply_and_a_repeat_is_an_error() -> None:
    replies = Replies()
    keep(replies, "me:1", 3 * MIB)
    for number in range(20):
        keep(replies, f"them:{number}", 3 * MIB)
    mine = replies.begin(request_of("me:1"))
    assert mine is not None
    assert mine.body == b"x" * (3 * MIB)
    with pytest.raises(SequrityError, match="not answered twice"):
        replies.begin(request_of("them:0"))
    last = replies.begin(request_of("them:19"))
    assert last is not None
    assert last.body is not None
    assert replies._shares._total <= DEFAULTS.replies_bytes


def test_a_flood_of_idempotency_keys_does_not_evict_replies_of_others() -> None:
    replies = Replies()
    keep(replies, "me:1", 1)
    for number in range(2_000):
        keep(replies, f"them:{number}", 1)
    assert replies.begin(request_of("me:1")) is not None


def test_only_a_stream_with_an_idempotency_key_needs_memory_for_a_copy(http: httpx.Client) -> None:
    budget = MemoryBudget()
    free = []

    def pieces() -> Iterator[str]:
        yield from ["x" * 1_000] * 100
        free.append(budget._free)

    server = LocalServer(model=Speaker(pieces=pieces))
    server._services = replace(server._services, budget=budget)
    with server:
        api = Api(server, http, "sq-test")
        for headers in ({"Idempotency-Key": "k"}, {}):
            with api.stream("Hi", headers=headers) as reply:
                assert len(streamed_text(reply.read())) == 100_000
    with_key, without_key = free
    assert without_key - with_key > 90_000


# Connections


def test_the_client_closes_idle_connections_before_the_server_does() -> None:
    assert DEFAULTS.idle_seconds > KEEPALIVE


# What has gone


def entries(*stores: object) -> int:
    """The number of entries in all tables of some objects."""
    parts = (part for store in stores for part in vars(store).values())
    return sum(len(part) for part in parts if isinstance(part, dict | set))


def test_a_session_that_could_not_grow_takes_no_more_room_than_before() -> None:
    store = sessions()
    mine = session("me", 10_000)
    for one in (session("them", 35_000), session("them", 35_000)):
        save(store, one)
        assert acquire(store, one.id)
    save(store, mine)
    with pytest.raises(StatusError, match="no room for this one"):
        save(store, replace(mine, messages=session("me", 45_000).messages))
    save(store, session("another", 5_000))
    assert len(store) == 4


def test_sessions_and_replies_that_have_gone_leave_nothing_in_memory() -> None:
    store, replies, now = sessions(), Replies(clock=lambda: now), 0.0
    for number in range(3):
        one = session(f"bearer {number}", 10)
        save(store, one)
        remove(store, one.id)
        keep(replies, f"bearer {number}:k", 10)
    now = DEFAULTS.reply_seconds + 1
    assert replies.begin(request_of("me:k")) is None
    replies.end(request_of("me:k"))
    assert entries(store, store._shares, replies, replies._shares, replies._answered) == 0
    assert len(replies._answered) == 0
