"""The same request, sent twice, makes one turn and gets one reply."""

import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from langchain_sequrity.errors import InvalidRequest, RateLimited, ServerFailed
from langchain_sequrity.local import MemorySessions, ServerLimits
from langchain_sequrity.local.idempotency import ReplyCopy
from langchain_sequrity.local.limits import DEFAULTS, Charge, MemoryBudget
from langchain_sequrity.local.replies import Replies
from langchain_sequrity.local.store import StoredReply
from tests.local.api import WAIT, Api, Gate, Speaker, detail, said, session_of, streamed_text
from tests.local.conftest import Serve
from tests.local.stores import keyed

KEY = {"Idempotency-Key": "one"}
OTHER_PATH = "/control/code/v1/chat/completions"


def counting() -> Any:
    """A script that never gives the same answer twice."""
    count = iter(range(1000))
    return [{"when": {"user": "^fail"}, "error": {"status": 500, "message": "Oh."}, "times": 1},
            {"answer": lambda _: f"answer {next(count)}"}]  # fmt: skip


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions()


@pytest.fixture
def counted(serve: Serve, sessions: MemorySessions) -> Api:
    return serve(store=sessions, script=counting())


def test_a_request_with_the_same_key_gets_the_stored_reply_and_changes_nothing(
    counted: Api, sessions: MemorySessions
) -> None:
    session = session_of(counted.chat("Hi"))
    first = counted.chat("more", session=session, headers=KEY)
    again = counted.chat("more", session=session, headers=KEY)
    assert again.content == first.content
    assert session_of(again) == session
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert sessions[session].turns == 2
    assert len(sessions) == 1


@pytest.mark.parametrize(
    ("sizes", "budget", "is_kept"),
    [
        ([5, 5], 10, True),
        ([5, 6], 10, False),
        ([11, 1], 10, False),
        ([99, 1], 200, True),
        ([100, 1, 1], 200, False),
    ],
)
def test_a_stream_is_copied_as_a_whole_or_not_at_all(
    sizes: list[int], budget: int, is_kept: bool
) -> None:
    copied = ReplyCopy(Charge(MemoryBudget(budget)), 100)
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    for piece in pieces:
        copied.add(piece)
    assert copied.body == (b"".join(pieces) if is_kept else None)


def test_a_first_turn_sent_twice_starts_one_session(counted: Api, sessions: MemorySessions) -> None:
    first, again = (counted.chat("Hi", headers=KEY) for _ in range(2))
    assert again.content == first.content
    assert session_of(again) == session_of(first)
    assert len(sessions) == 1


def test_a_stream_is_repeated_unchanged(counted: Api, sessions: MemorySessions) -> None:
    with counted.stream("Hi", headers=KEY) as first:
        data = first.read()
    with counted.stream("Hi", headers=KEY) as again:
        assert again.read() == data
    assert streamed_text(data) == "answer 0"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert session_of(again) == session_of(first)
    assert sessions[session_of(first)].turns == 1


def test_without_a_key_each_request_gets_a_new_answer(counted: Api) -> None:
    first, again = (said(counted.chat("Hi", headers=headers)) for headers in ({}, {"Idempotency-Key": ""}))  # fmt: skip
    assert first["content"] != again["content"]


def test_a_key_that_is_used_for_another_request_is_422(counted: Api) -> None:
    session = session_of(counted.chat("Hi", headers=KEY))
    others: list[dict[str, Any]] = [
        {"temperature": 1},
        {"stream": True},
        {"path": OTHER_PATH},
        {"session": session},
        *({"headers": {**KEY, name: "{}"}} for name in ("X-Features", "X-Policy", "X-Config")),
    ]
    for other in others:
        reply = counted.chat("Hi", **{"headers": KEY, **other})
        assert reply.status_code == 422, other
        assert "Idempotency-Key" in detail(reply)


def test_two_bearers_may_use_the_same_key(counted: Api) -> None:
    other = Api(counted.server, counted.http, "sq-other")
    first, second = (api.chat("Hi", headers=KEY) for api in (counted, other))
    assert first.content != second.content
    assert session_of(first) != session_of(second)


def test_a_repeated_request_is_409_while_the_first_is_being_answered(serve: Serve) -> None:
    gate = Gate()
    api = serve(script=[{"answer": gate}])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.chat, "Hi", headers=KEY)
        gate.wait_for_request()
        refused = api.chat("Hi", headers=KEY)
        gate.opened.set()
        answered = running.result(WAIT)
    assert refused.status_code == 409
    assert "Idempotency-Key" in detail(refused)
    assert api.chat("Hi", headers=KEY).content == answered.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_not_stored_so_that_a_retry_can_succeed(counted: Api, stream: bool) -> None:
    assert counted.chat("fail", headers=KEY, stream=stream).status_code == 500
    assert counted.chat("fail", headers=KEY, stream=stream).status_code == 200


def test_a_refused_request_does_not_use_up_its_key(counted: Api) -> None:
    assert counted.chat("Hi", headers=KEY, n=1.5).status_code == 422
    assert counted.chat("Hi", headers={**KEY, "X-Features": "{"}).status_code == 400
    assert counted.chat("Hi", headers=KEY).status_code == 200


def test_after_a_cut_stream_its_request_can_be_repeated(serve: Serve) -> None:
    is_cut = threading.Event()

    def pieces() -> Iterator[str]:
        yield "some "
        assert is_cut.wait(WAIT)
        yield "text"

    api = serve(model=Speaker(pieces=pieces))
    with httpx.Client(trust_env=False) as client:
        arguments = api.arguments("Hi", stream=True, headers=KEY)
        with client.stream("POST", **arguments) as reply:
            assert reply.status_code == 200
            assert api.chat("Hi", stream=True, headers=KEY).status_code == 409
    is_cut.set()
    # The server needs a moment to notice that the client is gone.
    end = time.monotonic() + WAIT
    while (again := api.chat("Hi", stream=True, headers=KEY)).status_code == 409:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert streamed_text(again.content) == "some text"


# The store of replies


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


REPLY = StoredReply({}, b"{}")


def test_a_stored_reply_is_dropped_after_its_maximal_age() -> None:
    clock = Clock()
    replies = Replies(clock=clock)
    assert replies.begin(keyed("me", "k")) is None
    replies.keep(keyed("me", "k"), REPLY)
    clock.now = DEFAULTS.reply_seconds
    assert replies.begin(keyed("me", "k")) is REPLY
    clock.now += 1
    assert replies.begin(keyed("me", "k")) is None


def test_a_slow_request_is_not_dropped() -> None:
    clock = Clock()
    replies = Replies(clock=clock)
    replies.begin(keyed("me", "k"))
    clock.now = DEFAULTS.reply_seconds * 2
    with pytest.raises(InvalidRequest, match="still being answered"):
        replies.begin(keyed("me", "k"))
    replies.keep(keyed("me", "k"), REPLY)
    assert replies.begin(keyed("me", "k")) is REPLY


def test_an_answered_request_is_remembered_whatever_other_requests_come() -> None:
    replies = Replies()
    for number in range(20_000):
        request = keyed("me", f"{number}", f"request {number}")
        assert replies.begin(request) is None
        replies.keep(request, StoredReply({}, b"x" * 2_000))
    for number in range(20_000):
        with suppress(ServerFailed):  # its body was dropped
            assert replies.begin(keyed("me", f"{number}", f"request {number}")) is not None
        with pytest.raises(InvalidRequest, match="used for another request"):
            replies.begin(keyed("me", f"{number}", "another"))


def test_a_bearer_with_too_many_answered_requests_is_refused_and_others_are_not() -> None:
    clock = Clock()
    replies = Replies(ServerLimits(replies=80), clock)
    replies.begin(keyed("me", "running"))
    for number in range(69):
        replies.begin(keyed("me", f"{number}"))
        replies.keep(keyed("me", f"{number}"), REPLY)
        clock.now += 1
    with pytest.raises(RateLimited, match="`serve --limit replies=") as refused:
        replies.begin(keyed("me", "more"))
    assert refused.value.retry_after == 590  # the first minute is remembered for ten
    assert replies.begin(keyed("me", "0")) is REPLY
    assert replies.begin(keyed("you", "0")) is None
    clock.now += refused.value.retry_after + 1
    assert replies.begin(keyed("me", "more")) is None


def test_an_answered_request_takes_at_most_150_bytes_while_it_is_remembered() -> None:
    replies = Replies(ServerLimits(replies=140_000))
    tracemalloc.start()
    try:
        for number in range(90_000):  # a dict has just grown
            request = keyed(f"{number % 20}", f"{number}", f"request {number}")
            replies.begin(request)
            replies.keep(request, StoredReply({}, None))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 150 * 90_000


def test_repr_of_a_stored_reply_does_not_show_its_text() -> None:
    assert "secret" not in repr(StoredReply({}, json.dumps("secret").encode()))
