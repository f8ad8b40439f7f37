"""Limits of keys: requests and tokens a minute, turns at once, and fairness between keys."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import ApiKey, MemorySessions
from langchain_sequrity.local.backends import Backend, BackendContext
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.key_usage import KeyUsage
from langchain_sequrity.local.minute_window import MinuteWindow
from langchain_sequrity.local.store import StoreInThread
from langchain_sequrity.sync_or_async import run_to_end
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.api import Api, Gate, detail, said, session_of
from tests.local.conftest import Serve


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "alice", **limits: Any) -> ApiKey:
    return ApiKey.from_secret(f"sq-{name}", name, **limits)


class Usage:
    """What keys use, counted in memory, without an event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = MemorySessions(clock=clock)
        self._usage = KeyUsage(self._store)

    def begin_turn(self, bearer: str, key: ApiKey, *most: int) -> Callable[[], None]:
        return run_to_end(self._usage.begin_turn(bearer, key, *most))

    def add_tokens(self, key: ApiKey, tokens: int) -> None:
        run_to_end(self._store.spend(f"tokens:{key.digest}", tokens))

    def counted(self, backend: Backend, key: ApiKey) -> Backend:
        loop = asyncio.new_event_loop()
        loop.close()  # a store in memory does not need it
        return self._usage.counted(backend, key, StoreInThread(self._store, loop))


def refusal(begin: Callable[[], object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        begin()
    assert caught.value.status == 429
    return caught.value


def test_requests_beyond_the_minute_are_refused_until_retry_after_is_over() -> None:
    clock, alice = Clock(), key(requests_per_minute=2)
    usage = Usage(clock)
    for seconds in (0, 30):
        clock.now = 1000.0 + seconds
        usage.begin_turn("a", alice)()
    error = refusal(lambda: usage.begin_turn("a", alice))
    assert "key `alice` may send 2 requests in a minute (`requests_per_minute`)" in str(error)
    assert error.retry_after == 31
    clock.now += 29
    refusal(lambda: usage.begin_turn("a", alice))
    clock.now += 2
    usage.begin_turn("a", alice)()


def test_a_key_uses_no_more_than_its_share_of_the_memory_of_requests(serve: Serve) -> None:
    gate = Gate()
    api = serve(
        api_keys=[key(memory_share=25), key("bob")],
        limits={"requests_bytes": 8_000_000, "body_bytes": 8_000_000},
        script=[{"when": {"user": "wait"}, "answer": gate}],
    )
    alice, bob = (Api(api.server, api.http, f"sq-{name}") for name in ("alice", "bob"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alice.chat, "wait" + "x" * 300_000)
        gate.wait_for_request()
        refused = alice.chat("x" * 500_000)
        assert bob.chat("x" * 500_000).status_code == 200
        gate.opened.set()
        assert waiting.result().status_code == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "The key may use 25 percent (`memory_share`)" in detail(refused)
    assert alice.chat("x" * 500_000).status_code == 200
    assert alice.chat("x" * 1_000_000).status_code == 413


def test_a_key_that_exceeds_its_share_of_sessions_loses_its_oldest(serve: Serve) -> None:
    api = serve(api_keys=[key(memory_share=10), key("bob")], limits={"sessions_bytes": 4_000_000})
    alice, bob = (Api(api.server, api.http, f"sq-{name}") for name in ("alice", "bob"))
    other = session_of(bob.chat("x" * 100_000))
    first, *_, last = [session_of(alice.chat("x" * 100_000)) for _ in range(6)]
    assert alice.chat("Go on", session=first).status_code == 404
    assert alice.chat("Go on", session=last).status_code == 200
    assert bob.chat("Go on", session=other).status_code == 200
    refused = alice.chat("x" * 500_000)
    assert refused.status_code == 413
    assert "10 percent (`memory_share`)" in detail(refused)


def test_a_key_that_exceeds_its_share_of_kept_replies_loses_its_oldest(serve: Serve) -> None:
    api = serve(
        api_keys=[key(memory_share=10), key("bob")],
        limits={"replies_bytes": 1_000_000, "reply_bytes": 1_000_000},
        script=[{"text": "y" * 40_000}],
    )
    alice, bob = (Api(api.server, api.http, f"sq-{name}") for name in ("alice", "bob"))

    def status(of: Api, number: int) -> int:
        return of.chat("Hi", headers={"Idempotency-Key": str(number)}).status_code

    assert {status(of, number) for of in (bob, alice) for number in range(4)} == {200}
    assert [status(alice, number) for number in range(4)] == [507, 507, 200, 200]
    assert [status(bob, number) for number in range(4)] == [200] * 4


def test_a_refused_request_does_not_count() -> None:
    clock, alice = Clock(), key(requests_per_minute=1)
    usage = Usage(clock)
    usage.begin_turn("a", alice)()
    for _ in range(5):
        refusal(lambda: usage.begin_turn("a", alice))
    clock.now += 61
    usage.begin_turn("a", alice)()


def test_a_key_whose_tokens_are_used_up_waits_until_enough_of_them_are_a_minute_old() -> None:
    clock, alice = Clock(), key(tokens_per_minute=100)
    usage = Usage(clock)
    usage.begin_turn("a", alice)()
    usage.add_tokens(alice, 90)
    clock.now += 20
    usage.begin_turn("a", alice)()
    usage.add_tokens(alice, 60)
    error = refusal(lambda: usage.begin_turn("a", alice))
    assert "may use 100 tokens in a minute (`tokens_per_minute`), and has used them" in str(error)
    assert error.retry_after == 41
    clock.now += 41
    usage.begin_turn("a", alice)()
    usage.begin_turn("b", key("bob", tokens_per_minute=100))()


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 9)), max_size=40), st.integers(1, 30))
def test_after_retry_after_the_window_is_below_the_limit_and_just_before_it_is_not(
    additions: list[tuple[float, int]], limit: int
) -> None:
    window, now, added = MinuteWindow(), 500.0, []
    for pause, amount in additions:
        now += pause
        window.add(amount, now)
        added.append((now, amount))
    exact = sum(amount for moment, amount in added if moment > now - 60)
    assert window.total(now) >= exact
    seconds = window.seconds_until_below(limit, now)
    if seconds:
        assert window.total(now + seconds - 0.01) >= limit
    assert window.total(now + seconds + 0.001) < limit


def test_turns_at_once_of_a_key_are_limited_and_free_again_when_one_is_over() -> None:
    usage, alice = Usage(), key(turns_at_once=2)
    end, _ = usage.begin_turn("a", alice), usage.begin_turn("a", alice)
    error = refusal(lambda: usage.begin_turn("a", alice))
    assert "The key `alice` may have 2 turns at once (`turns_at_once`)" in str(error)
    assert error.retry_after == 1
    end()
    usage.begin_turn("a", alice)


@given(st.integers(4, 600), st.integers(2, 5))
def test_however_many_turns_a_few_bearers_begin_another_one_finds_room(
    most_turns: int, bearers: int
) -> None:
    usage, anyone = Usage(), key()
    refused = set[int]()
    for number in range(most_turns * 2):
        try:
            usage.begin_turn(str(number % (bearers - 1)), anyone, most_turns)
        except StatusError:
            refused.add(number % (bearers - 1))
    assert refused == {*range(bearers - 1)}
    if 3 * (bearers - 1) < most_turns:
        usage.begin_turn("another", anyone, most_turns)


def test_another_key_is_answered_while_one_floods(serve: Serve) -> None:
    gate = Gate()
    api = serve(
        script=[{"when": {"user": "wait"}, "answer": gate}, {"text": "Hi"}],
        api_keys=["sq-flood", "sq-other"],
        limits={"turns_at_once": 8},
    )
    flood, other = (Api(api.server, api.http, key) for key in ("sq-flood", "sq-other"))
    with ThreadPoolExecutor(6) as threads:
        replies = [threads.submit(flood.chat, "wait") for _ in range(6)]
        for _ in range(6):
            gate.wait_for_request()
        refused = flood.chat("wait")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "6 turns of this key are running at once" in detail(refused)
        assert said(other.chat("Hello"))["content"] == "Hi"
        gate.opened.set()
        assert {reply.result().status_code for reply in replies} == {200}


def test_the_tokens_of_an_answer_count_for_its_key_only(serve: Serve) -> None:
    usage = {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50}
    keys = [key(tokens_per_minute=100), key("bob", tokens_per_minute=100)]
    api = serve(script=[{"text": "Hi", "usage": usage}], api_keys=keys)
    alice, bob = (Api(api.server, api.http, f"sq-{name}") for name in ("alice", "bob"))
    assert [alice.chat("Hi").status_code for _ in range(3)] == [200, 200, 429]
    refused = alice.chat("Hi")
    assert "tokens_per_minute" in detail(refused)
    assert 55 <= int(refused.headers["retry-after"]) <= 61
    assert bob.chat("Hi").status_code == 200


def test_an_answer_that_nobody_reads_to_its_end_counts_too() -> None:
    usage, alice = Usage(Clock()), key(tokens_per_minute=5)
    request = ChatRequest("any/model", [HumanMessage("Tell me a very long story, please.")])
    answer = iter(usage.counted(DeterministicModel(), alice).stream(request, BackendContext()))
    next(answer)
    usage.begin_turn("a", alice)()
    answer.close()  # type: ignore[attr-defined] # it is a generator
    assert "tokens_per_minute" in str(refusal(lambda: usage.begin_turn("a", alice)))
