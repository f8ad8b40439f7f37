"""The endpoints for chats and policies: asynchronous outside, one thread per turn inside."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import http as bodies
from langchain_sequrity.local import limits
from langchain_sequrity.local.admission import Copy, Entrance, StoredReply
from langchain_sequrity.local.backends import BoundedBrain
from langchain_sequrity.local.http import EventStream, Incoming, json_response
from langchain_sequrity.local.policy_writing.writer import write_policy
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.turn import Turn
from langchain_sequrity.wire.exchange import Event
from langchain_sequrity.wire.policy_generation import (
    PolicyRequest,
    read_request,
    variants_at,
    write_reply,
)
from langchain_sequrity.wire.routes import Route
from langchain_sequrity.wire.sse import write_event

logger = logging.getLogger("langchain_sequrity.local")


class Chats:
    """The chat endpoints.

    Args:
        services: What they need.
        entrance: What they share with others.
    """

    def __init__(self, services: Services, entrance: Entrance) -> None:
        self._services = services
        self._entrance = entrance

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the route table."""
        return self._entrance.endpoint(route, self._answer)

    async def _answer(self, incoming: Incoming, facts: dict[str, Any], key: str | None) -> Response:
        turn = await self._opened(incoming)
        facts.update(model=turn.request.model, session=turn.session.id[:8])
        answer = self._streamed if turn.request.stream else self._whole
        return await answer(turn, facts, key)

    async def _opened(self, incoming: Incoming) -> Turn:
        self._entrance.begin()
        try:
            return await self._entrance.in_thread(partial(Turn, incoming, self._services))
        except BaseException:
            self._entrance.end()
            raise

    async def _whole(self, turn: Turn, facts: dict[str, Any], key: str | None) -> Response:
        try:
            body = await self._entrance.in_thread(turn.reply)
        finally:
            self._end(turn)
        facts["summary"] = turn.summary
        response = json_response(body, headers={"X-Session-ID": turn.session.id})
        self._entrance.keep(key, StoredReply(dict(response.headers), body))
        return response

    async def _streamed(self, turn: Turn, facts: dict[str, Any], key: str | None) -> Response:
        pieces = turn.stream()
        try:
            # An error before the first piece has a status of its own.
            first = await self._entrance.in_thread(partial(next, pieces))
        except BaseException:
            self._end(turn)
            raise
        facts["summary"] = "stream"
        headers = {
            "X-Session-ID": turn.session.id,
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
        }

        copy = Copy(turn.charge if key else None)

        def keep() -> None:
            self._entrance.keep(key, StoredReply(headers, copy.body))

        def on_end() -> None:
            self._entrance.forget(key)
            self._end(turn)
            # When the server stops, a brain may still be at it; its thread then ends by itself.
            with suppress(ValueError):
                pieces.close()

        return EventStream(self._events(turn, first, pieces, copy, keep), headers, on_end)

    async def _events(
        self,
        turn: Turn,
        piece: Event,
        pieces: Iterator[Event],
        copy: Copy,
        keep: Callable[[], None],
    ) -> AsyncIterator[bytes]:
        try:
            while not turn.is_over:
                data = _bytes(piece)
                copy.add(data)
                yield data
                piece = await self._entrance.in_thread(partial(next, pieces))
        except StatusError as error:
            yield _bytes(turn.error(str(error), error.status or 500))
            return
        except Exception:
            logger.exception("A stream of session %s failed", turn.session.id[:8])
            yield _bytes(turn.error("The server failed. Its log has the reason.", 500))
            return
        # What is left takes no brain. It is kept first: a client may repeat what it has read.
        rest = b"".join(map(_bytes, (piece, *pieces)))
        copy.add(rest)
        keep()
        yield rest

    def _end(self, turn: Turn) -> None:
        self._entrance.end()
        turn.close()


def _bytes(event: Event) -> bytes:
    return write_event(event.data, event.name)


class Policies:
    """The endpoints for policy generation. They have no sessions, and read no JSON headers.

    Args:
        services: What they need.
        entrance: What they share with the chats.
    """

    def __init__(self, services: Services, entrance: Entrance) -> None:
        self._brain = services.brain
        self._entrance = entrance

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the route table."""
        return self._entrance.endpoint(route, self._answer, limits.POLICY_BODY)

    async def _answer(self, incoming: Incoming, facts: dict[str, Any], key: str | None) -> Response:
        self._entrance.begin()
        try:
            request = await self._entrance.in_thread(partial(_read, incoming))
            brain = BoundedBrain(self._brain, incoming.charge)
            facts.update(model=request.model)
            reply = await self._entrance.in_thread(partial(write_policy, request, brain))
        finally:
            self._entrance.end()
        facts["summary"] = "policy"
        response = json_response(write_reply(reply))
        self._entrance.keep(key, StoredReply(dict(response.headers), bytes(response.body)))
        return response


def _read(incoming: Incoming) -> PolicyRequest:
    request = read_request(bodies.parse(incoming.body, incoming.charge))
    allowed = variants_at(incoming.route.provider)
    if request.variant not in allowed:
        names = " or ".join(f"`{variant}`" for variant in allowed)
        refuse(
            400,
            f"`{incoming.route.path}` takes the type {names}, got `{request.variant}`. Use the "
            "path of the type's own provider.",
        )
    return request
