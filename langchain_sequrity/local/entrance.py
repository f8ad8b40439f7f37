"""What the endpoints that ask a brain share: who may ask, repeated requests, threads."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.local import body as bodies
from langchain_sequrity.local import guard, limits
from langchain_sequrity.local.idempotency import Replies, StoredReply
from langchain_sequrity.local.incoming import Incoming
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.wire.routes import Route

# What decides on a reply beside path and body.
_DECIDING = ("x-session-id", "x-features", "x-policy", "x-config")
Facts = dict[str, Any]
T = TypeVar("T")


class Entrance:
    """The way into the server for all requests that make a brain work.

    Args:
        services: Who may ask, and how many turns may run.
    """

    def __init__(self, services: Services) -> None:
        self._api_keys = services.api_keys
        self._most = services.max_turns_at_once
        self._body_seconds = services.body_seconds
        self._replies = Replies()
        self._running = 0
        # Turns have threads of their own: a slow brain keeps nobody else waiting.
        self._threads = CapacityLimiter(services.max_turns_at_once)

    def endpoint(
        self,
        route: Route,
        answer: Callable[[Incoming, Facts, str | None], Awaitable[Response]],
        limit: int = limits.BODY,
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one row of the route table.

        Args:
            route: The row.
            answer: Answers a request. It is given what the record of the request is to say, and
                the key under which its reply may be kept.
            limit: How many bytes a body may have.

        Returns:
            The endpoint.
        """

        async def endpoint(request: Request) -> Response:
            headers = request.scope["by_name"]
            key = guard.bearer(headers, self._api_keys)
            guard.check_content_type(headers)
            charge = request.scope["charge"]
            data = await bodies.read(
                request.stream(), headers, charge, limit=limit, seconds=self._body_seconds
            )
            incoming = Incoming(route, bearer_digest(key), headers, data, charge)
            facts = request.scope["facts"]
            once = _once_key(incoming)
            known = self._replies.begin(once, _digest(incoming) if once else "")
            if known is not None:
                facts["summary"] = "repeated reply"
                return Response(known.body, headers=known.headers)
            try:
                return await answer(incoming, facts, once)
            except BaseException:
                self.forget(once)
                raise

        return endpoint

    def keep(self, once: str | None, reply: StoredReply) -> None:
        """Keep the reply of a request, for those that repeat it."""
        self._replies.keep(once, reply)

    def forget(self, once: str | None) -> None:
        """Forget a request, unless its reply was kept."""
        self._replies.end(once)

    def begin(self) -> None:
        """Count a turn that begins; `end` has to follow.

        Raises:
            StatusError: 429 if too many are running.
        """
        if self._running >= self._most:
            refuse(429, "Too many turns are running at once. Try again.", retry_after=1)
        self._running += 1

    def end(self) -> None:
        """Count a turn that is over."""
        self._running -= 1

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Make a call in a thread, and wait for what it returns."""
        return await run_sync(call, limiter=self._threads)


def _once_key(incoming: Incoming) -> str | None:
    sent = incoming.headers.get("idempotency-key")
    return f"{incoming.bearer}:{sent}" if sent else None


def _digest(incoming: Incoming) -> str:
    deciding = [incoming.headers.get(name) for name in _DECIDING]
    digest = hashlib.sha256(orjson.dumps([incoming.route.path, *deciding]))
    digest.update(incoming.body)
    return digest.hexdigest()
