"""Streams: their events, their end, and the release of their connection."""

import asyncio
import gc
import socket
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest

from langchain_sequrity import errors
from langchain_sequrity.transport import RetryPolicy, Transport
from langchain_sequrity.transport.timeouts import Deadline
from tests.transport.transport_helpers import (
    ASTREAM,
    AT_ONCE,
    EVENT_STREAM,
    FIRST_TURN,
    STREAM,
    STREAM_END,
    STREAM_HEAD,
    STREAMS,
    WAIT,
    Body,
    FakeTime,
    RawServer,
    Reader,
    Script,
    Way,
    chunk,
    events,
    mocked,
    says,
)

ONCE = RetryPolicy(max_retries=0)
PATIENCE = 10.0
"""Seconds for which a server waits for the client to go away."""


@pytest.fixture(params=[STREAM, ASTREAM], ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """The two methods that stream."""
    found: Way = request.param
    return found


def stream(content: bytes) -> Script:
    return Script(httpx.Response(200, headers=EVENT_STREAM, content=content))


def test_pieces_come_in_order(way: Way) -> None:
    assert way.call(mocked(stream(events("a", "b", "c")))) == ["a", "b", "c"]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_events_do_not_depend_on_how_the_network_cuts_the_bytes(
    serve: Callable[..., RawServer], way: Way, size: int
) -> None:
    data = events("one", "zwei ä", "three")
    pieces = [chunk(data[start : start + size]) for start in range(0, len(data), size)]
    server = serve(says(STREAM_HEAD, *pieces, STREAM_END))

    assert way.call(Transport(server.url)) == ["one", "zwei ä", "three"]


def test_an_event_over_several_lines_is_one_event(way: Way) -> None:
    assert way.call(mocked(stream(b'data: {"text":\ndata: "a"}\n\ndata: [DONE]\n\n'))) == ["a"]


def test_events_after_the_end_are_not_read(way: Way) -> None:
    assert way.call(mocked(stream(events("a") + events("b")))) == ["a"]


def test_an_error_object_in_the_middle_is_the_servers_error(way: Way) -> None:
    content = events("a", done=False) + b'data: {"error": {"message": "The model died."}}\n\n'

    with pytest.raises(errors.ServerFailed, match=r"The model died\.") as caught:
        way.call(mocked(stream(content)))

    assert caught.value.body == {"error": {"message": "The model died."}}


def test_a_stream_without_its_end_is_an_error(way: Way) -> None:
    with pytest.raises(errors.StreamInterrupted, match="cut short"):
        way.call(mocked(stream(events("a", done=False))))


def test_a_plain_json_reply_is_the_answer(way: Way) -> None:
    for media in ("application/json; charset=utf-8", "application/vnd.sequrity+json"):
        answer = httpx.Response(200, headers={"content-type": media}, content=b'{"text": "hi"}')
        assert way.call(mocked(Script(answer))) == ["hi"]


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {}])
def test_another_content_type_is_a_bad_reply(way: Way, headers: dict[str, str]) -> None:
    answer = httpx.Response(200, headers=headers, content=b"hello")
    with pytest.raises(errors.BadReply, match="Expected server-sent events"):
        way.call(mocked(Script(answer)))


def test_events_instead_of_a_whole_reply_are_a_bad_reply(is_async: bool) -> None:
    with pytest.raises(
        errors.BadReply, match=r"Expected JSON.* has the content type `text/event-stream`"
    ):
        Way(streams=False, is_async=is_async).call(mocked(stream(events("a"))))


def test_bytes_that_are_not_utf8_are_a_bad_reply(way: Way) -> None:
    with pytest.raises(errors.BadReply, match="UTF-8"):
        way.call(mocked(stream(b"data: \xff\n\n")))


def test_a_lost_connection_in_the_middle_raises_stream_interrupted(
    serve: Callable[..., RawServer], way: Way
) -> None:
    server = serve(says(STREAM_HEAD, chunk(events("a", done=False)), keep=False))

    with pytest.raises(errors.StreamInterrupted, match="was lost") as caught:
        way.call(Transport(server.url, retry=AT_ONCE))

    assert caught.value.is_retryable is False
    assert len(server.requests) == 1


def test_a_reader_gets_the_head_first(way: Way) -> None:
    heads: list[Any] = []

    class Told(Reader):
        def start(self, head: Any) -> None:
            heads.append((head.status, head.headers["X-Session-Id"]))

    headers = {**EVENT_STREAM, "x-session-id": "sess-9"}
    transport = mocked(Script(httpx.Response(200, headers=headers, content=events("a"))))
    if way.is_async:

        async def main() -> None:
            async for _ in transport.astream(FIRST_TURN, Told):
                pass

        asyncio.run(main())
    else:
        list(transport.stream(FIRST_TURN, Told))

    assert heads == [(200, "sess-9")]


# Connections


def test_a_finished_stream_leaves_its_connection_for_the_next_call(
    serve: Callable[..., RawServer], way: Way
) -> None:
    late = says(STREAM_HEAD, chunk(events("a")), STREAM_END, pause=0.01)
    server = serve(late)
    transport = Transport(server.url)

    async def twice() -> None:
        assert await way.acall(transport) == ["a"]
        assert await way.acall(transport) == ["a"]

    if way.is_async:
        asyncio.run(twice())
    else:
        assert way.call(transport) + way.call(transport) == ["a", "a"]

    assert len(server.connections) == 1


def test_a_finished_stream_does_not_wait_for_the_server_to_end_it(
    serve: Callable[..., RawServer], way: Way
) -> None:
    closed_by_client: list[bool] = []

    def sends_no_end(connection: socket.socket) -> bool:
        connection.sendall(STREAM_HEAD + chunk(events("a")))
        connection.settimeout(PATIENCE)
        with suppress(TimeoutError):
            closed_by_client.append(connection.recv(1) == b"")
        return False

    server = serve(sends_no_end)

    assert way.call(Transport(server.url)) == ["a"]

    assert server.closed.acquire(timeout=WAIT)
    assert closed_by_client == [True]


def test_the_end_of_a_call_only_moves_nearer() -> None:
    deadline = Deadline(10.0, clock=FakeTime().clock)

    for seconds, left in ((20.0, 10.0), (1.0, 1.0), (5.0, 1.0)):
        deadline.finish_within(seconds)
        assert deadline.remaining() == left


def test_an_abandoned_stream_closes_its_connection(serve: Callable[..., RawServer]) -> None:
    server = serve(STREAMS)
    transport = Transport(server.url)

    for piece in transport.stream(FIRST_TURN, Reader):
        assert piece == "a"
        break

    assert server.closed.acquire(timeout=WAIT)
    assert STREAM.call(transport) == ["a", "b"]
    assert len(server.connections) == 2


async def test_an_abandoned_async_stream_closes_its_connection(
    serve: Callable[..., RawServer],
) -> None:
    server = serve(STREAMS)
    transport = Transport(server.url)

    async with aclosing(transport.astream(FIRST_TURN, Reader)) as pieces:
        async for piece in pieces:
            assert piece == "a"
            break

    assert await asyncio.to_thread(server.closed.acquire, timeout=WAIT)
    assert await ASTREAM.acall(transport) == ["a", "b"]
    assert len(server.connections) == 2


def test_an_async_stream_abandoned_at_the_end_of_its_loop_leaves_nothing_open(
    serve: Callable[..., RawServer],
) -> None:
    server = serve(STREAMS)
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async for piece in Transport(server.url).astream(FIRST_TURN, Reader):
            assert piece == "a"
            break

    asyncio.run(main())
    gc.collect()

    assert server.closed.acquire(timeout=WAIT)
    assert complaints == []


def test_an_error_while_iterating_closes_the_connection(serve: Callable[..., RawServer]) -> None:
    server = serve(STREAMS)

    def consume() -> None:
        for _ in Transport(server.url).stream(FIRST_TURN, Reader):
            raise KeyError

    with pytest.raises(KeyError):
        consume()

    gc.collect()
    assert server.closed.acquire(timeout=WAIT)


def test_an_injected_clients_stream_is_closed_when_abandoned() -> None:
    body = Body(events("a", done=False), events("b"))
    transport = mocked(lambda _: httpx.Response(200, headers=EVENT_STREAM, stream=body))

    async def abandon() -> None:
        async with aclosing(transport.astream(FIRST_TURN, Reader)) as pieces:
            assert await anext(pieces) == "a"

    pieces = transport.stream(FIRST_TURN, Reader)
    assert next(pieces) == "a"
    pieces.close()
    assert body.closed == 1

    asyncio.run(abandon())
    assert body.closed == 2
    assert STREAM.call(transport) == ["a", "b"]


def test_a_hook_of_an_injected_client_may_read_the_body(way: Way) -> None:
    async def aread(response: httpx.Response) -> None:
        await response.aread()

    mock = httpx.MockTransport(stream(events("a", "b")))
    transport = Transport(
        "https://service.example",
        http_client=httpx.Client(
            transport=mock, event_hooks={"response": [lambda response: response.read()]}
        ),
        http_async_client=httpx.AsyncClient(transport=mock, event_hooks={"response": [aread]}),
    )

    assert way.call(transport) == ["a", "b"]
