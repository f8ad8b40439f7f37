"""Few turns compute at once. Those that wait take turns, and those of a slow model do not count."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.local.fair_slots import FairSlots, waiting, work_in_slot
from langchain_sequrity.local.threads import ReusedThreads
from langchain_sequrity.owned_cache import cache_owner
from tests.local.api import WAIT, Gate, said
from tests.local.conftest import Serve


def test_turns_that_wait_for_slow_models_do_not_keep_others_from_being_answered(
    serve: Serve,
) -> None:
    gate = Gate()
    api = serve(script=[{"when": {"user": "wait"}, "answer": gate}, {"text": "Hello"}])
    with ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(api.chat, "wait") for _ in range(20)]
        for _ in slow:
            gate.wait_for_request()
        assert said(api.chat("Hi"))["content"] == "Hello"
        gate.opened.set()
        assert {said(turn.result())["content"] for turn in slow} == {"opened"}


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_owners_take_turns_and_each_keeps_its_order(owners: list[str], count: int) -> None:
    slots, begun = FairSlots(count), list[tuple[str, int]]()
    for number, owner in enumerate(owners):
        slots.begin(owner, lambda work=(owner, number): begun.append(work))  # type: ignore[misc]
    assert len(begun) == min(count, len(owners))
    for _ in owners:
        slots.end()
    waited = begun[min(count, len(owners)) :]
    assert sorted(number for _, number in begun) == [*range(len(owners))]
    for owner in set(owners):
        numbers = [number for name, number in begun if name == owner]
        assert numbers == sorted(numbers)
        rest = [name for name, _ in waited]
        while owner in rest:
            before = rest[: rest.index(owner)]
            assert len(before) == len(set(before)), "nobody has two before it"
            rest = rest[rest.index(owner) + 1 :]


def test_a_thread_that_waits_leaves_its_slot_to_another_and_then_needs_one_again() -> None:
    slots, order = FairSlots(1), list[str]()
    may_go_on, other_began, other_may_end = (threading.Event() for _ in range(3))

    def first() -> None:
        with waiting():
            assert may_go_on.wait(WAIT)
        order.append("first")

    def other() -> None:
        other_began.set()
        assert other_may_end.wait(WAIT)
        order.append("other")

    with ThreadPoolExecutor(2) as pool:
        done = []
        for owner, work in (("a", first), ("b", other)):
            start = partial(pool.submit, work_in_slot, slots, owner, work)
            slots.begin(owner, lambda start=start: done.append(start()))  # type: ignore[misc]
        assert other_began.wait(WAIT)
        may_go_on.set()
        other_may_end.set()
    assert order == ["other", "first"]
    assert [future.result() for future in done] == [None, None]


def test_a_call_that_was_cancelled_while_it_waited_is_not_made() -> None:
    made = list[str]()
    opened = threading.Event()
    threads = ReusedThreads("test", most_idle=1, slots=FairSlots(1))

    async def main() -> None:
        cache_owner.set("a")
        first = asyncio.create_task(threads.run(opened.wait, WAIT))
        second, third = (
            asyncio.create_task(threads.run(made.append, name)) for name in ("second", "third")
        )
        await asyncio.sleep(0)  # all have asked for a slot
        second.cancel()
        opened.set()
        assert await first
        await third
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(main())
    assert made == ["third"]
