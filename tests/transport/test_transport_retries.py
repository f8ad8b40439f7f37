"""The retry table, for each call method."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.errors import ServiceError
from langchain_sequrity.transport import RetryPolicy, Timeouts
from tests.transport.transport_helpers import (
    ASEND,
    ASTREAM,
    AT_ONCE,
    EVENT_STREAM,
    FIRST_TURN,
    IN_SESSION,
    SEND,
    STREAM,
    FakeTime,
    Script,
    Way,
    events,
    mocked,
)

ALWAYS, FIRST_TURN_ONLY, NEVER = (True, True), (True, False), (False, False)


def status(number: int) -> httpx.Response:
    return httpx.Response(number, json={"detail": "no"})


# The failure, whether it is retried on a first turn and in a session, and the error.
TABLE: list[tuple[Any, tuple[bool, bool], type[ServiceError]]] = [
    (httpx.ConnectError("refused"), ALWAYS, errors.ConnectionFailed),
    (httpx.ConnectTimeout("slow"), ALWAYS, errors.TimedOut),
    (httpx.PoolTimeout("full"), ALWAYS, errors.TimedOut),
    (httpx.ProxyError("no proxy"), ALWAYS, errors.ConnectionFailed),
    (httpx.UnsupportedProtocol("gopher"), ALWAYS, errors.ConnectionFailed),
    (status(429), ALWAYS, errors.RateLimited),
    (status(408), FIRST_TURN_ONLY, errors.InvalidRequest),
    (status(500), FIRST_TURN_ONLY, errors.ServerFailed),
    (status(502), FIRST_TURN_ONLY, errors.ServerFailed),
    (status(503), FIRST_TURN_ONLY, errors.Overloaded),
    (status(504), FIRST_TURN_ONLY, errors.ServerFailed),
    (status(529), FIRST_TURN_ONLY, errors.Overloaded),
    ({"message": "busy", "type": "overloaded_error"}, FIRST_TURN_ONLY, errors.Overloaded),
    ({"message": "broken"}, FIRST_TURN_ONLY, errors.ServerFailed),
    ({"message": "slow down", "code": 429}, FIRST_TURN_ONLY, errors.RateLimited),
    ({"message": "no", "code": "invalid_api_key"}, NEVER, errors.AuthenticationFailed),
    (httpx.ReadTimeout("slow"), FIRST_TURN_ONLY, errors.TimedOut),
    (httpx.WriteTimeout("slow"), FIRST_TURN_ONLY, errors.TimedOut),
    (httpx.ReadError("reset"), FIRST_TURN_ONLY, errors.StreamInterrupted),
    (httpx.WriteError("reset"), FIRST_TURN_ONLY, errors.StreamInterrupted),
    (httpx.CloseError("reset"), FIRST_TURN_ONLY, errors.StreamInterrupted),
    (httpx.RemoteProtocolError("cut"), FIRST_TURN_ONLY, errors.StreamInterrupted),
    (status(400), NEVER, errors.InvalidRequest),
    (status(401), NEVER, errors.AuthenticationFailed),
    (status(403), NEVER, errors.PermissionDenied),
    (status(404), NEVER, errors.NotFound),
    (status(409), NEVER, errors.InvalidRequest),
    (httpx.Response(409, headers={"Retry-After": "0"}), ALWAYS, errors.InvalidRequest),
    (status(422), NEVER, errors.InvalidRequest),
    (status(501), NEVER, errors.ServerFailed),
    (status(302), NEVER, errors.BadReply),
    (httpx.Response(200, html="<p>hello</p>"), NEVER, errors.BadReply),
]


def name(row: Any) -> str:
    happened = row[0]
    if isinstance(happened, httpx.Response):
        return str(happened.status_code)
    if isinstance(happened, dict):
        return f"error object: {happened['message']}"
    return type(happened).__name__


CALLS = pytest.mark.parametrize(
    "call", [FIRST_TURN, IN_SESSION], ids=["first turn", "in a session"]
)
ROWS = pytest.mark.parametrize(("happened", "again", "raised"), TABLE, ids=map(name, TABLE))


@ROWS
@CALLS
def test_a_failed_call_is_sent_again_only_where_the_table_allows_it(
    call: Any, happened: Any, again: tuple[bool, bool], raised: type[ServiceError]
) -> None:
    assert_attempts(SEND, call, happened, again, raised)


@pytest.mark.long(sample=20)
@pytest.mark.parametrize("way", [STREAM, ASEND, ASTREAM], ids=str)
@ROWS
@CALLS
def test_the_table_holds_for_streams_and_in_event_loops(
    way: Way, call: Any, happened: Any, again: tuple[bool, bool], raised: type[ServiceError]
) -> None:
    assert_attempts(way, call, happened, again, raised)


def assert_attempts(
    way: Way, call: Any, happened: Any, again: tuple[bool, bool], raised: type[ServiceError]
) -> None:
    """Assert that a row of the table holds for a call."""
    answer = way.error_object(happened) if isinstance(happened, dict) else happened
    may = again[0] if call is FIRST_TURN else again[1]
    failing = Script(answer)

    with pytest.raises(raised) as caught:
        way.call(mocked(failing), call)

    assert type(caught.value) is raised
    assert caught.value.is_retryable == may
    assert len(failing.requests) == (3 if may else 1)
    assert len({request.headers["idempotency-key"] for request in failing.requests}) == 1

    recovering = mocked(Script(answer, way.success()))
    if may:
        assert way.call(recovering, call) == ["hi"]


def test_each_call_has_its_own_idempotency_key(way: Way) -> None:
    script = Script(way.success())
    transport = mocked(script)

    way.call(transport)
    way.call(transport)

    assert len({request.headers["idempotency-key"] for request in script.requests}) == 2


@pytest.mark.parametrize("way", [STREAM, ASTREAM], ids=str)
@pytest.mark.parametrize("last", [b'data: {"error": {"code": 429}}\n\n', b""], ids=["error", "cut"])
def test_a_stream_that_fails_after_its_first_output_is_not_requested_again(
    way: Way, last: bytes
) -> None:
    stream = events("one", done=False) + last
    script = Script(httpx.Response(200, headers=EVENT_STREAM, content=stream))

    with pytest.raises(ServiceError) as caught:
        way.call(mocked(script))

    assert len(script.requests) == 1
    assert caught.value.is_retryable is False


@pytest.mark.parametrize("way", [STREAM, ASTREAM], ids=str)
def test_a_stream_that_ends_before_any_output_is_retried_on_a_first_turn(way: Way) -> None:
    empty = httpx.Response(200, headers=EVENT_STREAM, content=b": nothing\n\n")

    assert way.call(mocked(Script(empty, way.success()))) == ["hi"]
    with pytest.raises(errors.StreamInterrupted):
        way.call(mocked(Script(empty, way.success())), IN_SESSION)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "0.05"},
        {"Retry-After-Ms": "50"},
        {"Retry-After-Ms": "50", "Retry-After": "7"},
        {"Retry-After-Ms": "soon", "Retry-After": "0.05"},
    ],
    ids=str,
)
def test_a_429_is_retried_after_the_time_the_server_asks_for(
    way: Way, headers: dict[str, str]
) -> None:
    script = Script(httpx.Response(429, headers=headers), way.success())

    time = FakeTime()
    retry = RetryPolicy(random=lambda: 9.0)
    assert way.call(mocked(script, retry=retry, clock=time.clock)) == ["hi"]

    assert time.waits == [0.05]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "90"}, 90),
        ({"Retry-After-Ms": "90000"}, 90),
        ({"Retry-After-Ms": "1"}, 0.001),
        ({"Retry-After-Ms": "0", "Retry-After": "7"}, 0),
        ({"Retry-After-Ms": "-1", "Retry-After": "7"}, 7),
        ({"Retry-After-Ms": "inf"}, None),
    ],
    ids=str,
)
def test_an_error_has_the_wait_that_the_server_asks_for_in_seconds(
    way: Way, headers: dict[str, str], seconds: float | None
) -> None:
    script = Script(httpx.Response(429, headers=headers))

    with pytest.raises(errors.RateLimited) as caught:
        way.call(mocked(script, retry=RetryPolicy(max_retries=0)))

    assert caught.value.retry_after == seconds


def test_a_date_in_retry_after_is_a_time_to_wait(way: Way) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    script = Script(httpx.Response(429, headers={"Retry-After": later}))

    with pytest.raises(errors.RateLimited) as caught:
        way.call(mocked(script))

    assert len(script.requests) == 1
    assert caught.value.retry_after == pytest.approx(1000, abs=30)


def test_a_date_in_the_past_means_no_wait(way: Way) -> None:
    past = "Sun, 06 Nov 1994 08:49:37 GMT"
    script = Script(httpx.Response(503, headers={"Retry-After": past}), way.success())

    assert way.call(mocked(script, retry=RetryPolicy(random=lambda: 9.0))) == ["hi"]


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", "", "Foo, 99 Bar 99999"])
def test_an_invalid_retry_after_is_ignored(way: Way, value: str) -> None:
    script = Script(httpx.Response(429, headers={"Retry-After": value}), way.success())

    assert way.call(mocked(script)) == ["hi"]


def test_a_wait_longer_than_allowed_is_raised_at_once_with_the_wait(way: Way) -> None:
    script = Script(httpx.Response(429, headers={"Retry-After": "61"}))

    with pytest.raises(errors.RateLimited) as caught:
        way.call(mocked(script))

    assert len(script.requests) == 1
    assert caught.value.retry_after == 61
    assert caught.value.is_retryable


def test_a_wait_that_would_pass_the_total_limit_is_raised_at_once(way: Way) -> None:
    script = Script(httpx.Response(429, headers={"Retry-After": "20"}))

    with pytest.raises(errors.RateLimited):
        way.call(mocked(script, timeouts=Timeouts(total=20.0), clock=FakeTime().clock))

    assert len(script.requests) == 1


@pytest.mark.parametrize(("said", "attempts"), [("false", 1), ("true", 3), ("perhaps", 3)])
def test_a_server_may_forbid_a_retry_that_the_table_allows(
    way: Way, said: str, attempts: int
) -> None:
    script = Script(httpx.Response(500, headers={"X-Should-Retry": said}))

    with pytest.raises(errors.ServerFailed) as caught:
        way.call(mocked(script))

    assert len(script.requests) == attempts
    assert caught.value.is_retryable == (attempts > 1)


@pytest.mark.parametrize("number", [400, 409])
def test_a_server_may_not_ask_for_a_retry_that_the_table_forbids(way: Way, number: int) -> None:
    script = Script(httpx.Response(number, headers={"X-Should-Retry": "true"}))

    with pytest.raises(errors.InvalidRequest):
        way.call(mocked(script))

    assert len(script.requests) == 1


@pytest.mark.parametrize("max_retries", [0, 1, 4])
def test_retries_end_after_the_allowed_number(way: Way, max_retries: int) -> None:
    script = Script(status(429))

    with pytest.raises(errors.RateLimited):
        way.call(mocked(script, retry=RetryPolicy(max_retries, random=lambda: 0.0)))

    assert len(script.requests) == max_retries + 1


def test_waits_double_up_to_a_limit_and_are_spread() -> None:
    policy = RetryPolicy(first_wait=0.5, longest_wait=8.0, random=lambda: 1.0)
    assert [policy.wait(retry) for retry in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]

    spread = RetryPolicy()
    waits = {spread.wait(3) for _ in range(20)}
    assert len(waits) > 1
    assert all(0 <= wait <= 4 for wait in waits)


def test_a_retry_gets_a_new_reader(way: Way) -> None:
    cut = httpx.ReadError("reset")
    assert way.call(mocked(Script(cut, cut, way.success()), retry=AT_ONCE)) == ["hi"]


def test_an_error_has_no_facts_of_an_earlier_attempt(way: Way) -> None:
    first = httpx.Response(503, headers={"x-request-id": "first", "retry-after": "0"})
    script = Script(first, httpx.ConnectError("refused"))

    with pytest.raises(errors.ConnectionFailed) as caught:
        way.call(mocked(script, retry=RetryPolicy(max_retries=1)))

    error = caught.value
    assert (error.status, error.request_id, error.retry_after) == (None, None, None)
    assert error.headers == {}
