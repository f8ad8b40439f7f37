"""The chat endpoints: asynchronous outside, one thread for each turn inside."""

import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import body as bodies
from langchain_sequrity.local import guard
from langchain_sequrity.local.idempotency import Replies, StoredReply
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.responses import EventStream, json_response
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.local.turn import Incoming, Turn
from langchain_sequrity.wire.exchange import Event
from langchain_sequrity.wire.routes import Route
from langchain_sequrity.wire.sse import write_event

# What decides on a reply beside path and body.
_DECIDING = ("x-session-id", "x-features", "x-policy", "x-config")
T = TypeVar("T")

logger = logging.getLogger("langchain_sequrity.local")


class Chats:
    """The chat endpoints, and what their requests share.

    Args:
        services: What they need.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replies = Replies()
        self._running = 0
        # Turns have threads of their own: a slow brain keeps nobody else waiting.
        self._threads = CapacityLimiter(services.max_turns_at_once)

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the route table."""

        async def endpoint(request: Request) -> Response:
            headers = request.scope["by_name"]
            key = guard.bearer(headers, self._services.api_keys)
            guard.check_content_type(headers)
            data = await bodies.read(request.stream(), headers)
            incoming = Incoming(route, bearer_digest(key), headers, data)
            return await self._answer_once(incoming, request.scope["facts"])

        return endpoint

    async def _answer_once(self, incoming: Incoming, facts: dict[str, Any]) -> Response:
        """Answer, or repeat the answer that the same request had."""
        sent = incoming.headers.get("idempotency-key")
        key = f"{incoming.bearer}:{sent}" if sent else None
        known = self._replies.begin(key, _digest(incoming) if key else "")
        if known is not None:
            facts["summary"] = "repeated reply"
            return Response(known.body, headers=known.headers)
        try:
            turn = await self._opened(incoming)
            facts.update(model=turn.request.model, session=turn.session.id[:8])
            answer = self._streamed if turn.request.stream else self._whole
            return await answer(turn, facts, key)
        except BaseException:
            self._replies.end(key)
            raise

    async def _opened(self, incoming: Incoming) -> Turn:
        services = self._services
        if self._running >= services.max_turns_at_once:
            refuse(429, "Too many turns are running at once. Try again.", retry_after=1)
        self._running += 1
        try:
            return await self._in_thread(partial(Turn, incoming, services))
        except BaseException:
            self._running -= 1
            raise

    async def _whole(self, turn: Turn, facts: dict[str, Any], key: str | None) -> Response:
        try:
            body = await self._in_thread(turn.reply)
        finally:
            self._end(turn)
        facts["summary"] = turn.summary
        response = json_response(body, headers={"X-Session-ID": turn.session.id})
        self._replies.keep(key, StoredReply(dict(response.headers), body))
        return response

    async def _streamed(self, turn: Turn, facts: dict[str, Any], key: str | None) -> Response:
        pieces = turn.stream()
        try:
            # An error before the first piece has a status of its own.
            first = await self._in_thread(partial(next, pieces))
        except BaseException:
            self._end(turn)
            raise
        facts["summary"] = "stream"
        headers = {
            "X-Session-ID": turn.session.id,
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
        }

        def keep(body: bytes) -> None:
            self._replies.keep(key, StoredReply(headers, body))

        def on_end() -> None:
            self._replies.end(key)
            self._end(turn)
            # When the server stops, a brain may still be at it; its thread then ends by itself.
            with suppress(ValueError):
                pieces.close()

        return EventStream(self._events(turn, first, pieces, keep), headers, on_end)

    async def _events(
        self, turn: Turn, piece: Event, pieces: Iterator[Event], keep: Callable[[bytes], None]
    ) -> AsyncIterator[bytes]:
        sent: list[bytes] = []
        try:
            while not turn.is_over:
                sent.append(_bytes(piece))
                yield sent[-1]
                piece = await self._in_thread(partial(next, pieces))
        except StatusError as error:
            yield _bytes(turn.error(str(error), error.status or 500))
            return
        except Exception:
            logger.exception("A stream of session %s failed", turn.session.id[:8])
            yield _bytes(turn.error("The server failed. Its log has the reason.", 500))
            return
        # What is left takes no brain. It is kept first: a client may repeat what it has read.
        rest = b"".join(map(_bytes, (piece, *pieces)))
        keep(b"".join(sent) + rest)
        yield rest

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await run_sync(call, limiter=self._threads)

    def _end(self, turn: Turn) -> None:
        self._running -= 1
        turn.close()


def _digest(incoming: Incoming) -> str:
    deciding = [incoming.headers.get(name) for name in _DECIDING]
    head = orjson.dumps([incoming.route.path, *deciding])
    return hashlib.sha256(head + incoming.body).hexdigest()


def _bytes(event: Event) -> bytes:
    return write_event(event.data, event.name)
