"""Admission of a request: who may ask, how much at once, and repeated requests."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.local import auth, limits
from langchain_sequrity.local import http as bodies
from langchain_sequrity.local.http import Incoming
from langchain_sequrity.local.limits import Charge, Shares
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.wire.routes import Route

MAX_REPLIES = 1_000
_NOTE = 500  # bytes of a reply without its body
MAX_AGE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply of status 200 as it went out; without a body where that was too large to be kept."""

    headers: dict[str, str]
    body: bytes | None = field(repr=False)


class Copy:
    """A copy of what goes out, as far as it can be kept.

    Args:
        charge: What the request takes of the memory of all; `None` where nobody wants a copy.
    """

    def __init__(self, charge: Charge | None) -> None:
        self._charge = charge
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._charge is None:
            return
        is_too_long = len(self._body) + len(piece) > limits.REPLY
        if is_too_long or not self._charge.may_take(len(piece)):
            self._charge, self._body = None, bytearray()
        self._body += piece

    @property
    def body(self) -> bytes | None:
        """Everything, or `None` if it is not there."""
        return None if self._charge is None else bytes(self._body)


class Replies:
    """Replies by idempotency key, for some minutes.

    A request is begun, then either kept with its reply or ended without one. What failed has
    changed nothing, so it is forgotten and may be sent again. A key that is `None` stands for a
    request without one, of which nothing is noted.

    A reply that is too large is not kept, and when all together are too large, the bearer that
    holds most loses its oldest one. That they were answered is remembered all the same, so that
    none of their requests is answered twice.

    Args:
        clock: Gives seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}  # key → digest of the request
        self._shares = Shares(MAX_REPLIES, limits.REPLIES)
        # Key → digest, when the reply was made, and the reply; the oldest first.
        self._kept: OrderedDict[str, tuple[str, float, StoredReply]] = OrderedDict()

    def begin(self, key: str | None, digest: str) -> StoredReply | None:
        """Note that a request is being answered.

        Args:
            key: The client's key, together with its bearer.
            digest: A digest of all that the reply depends on.

        Returns:
            The reply if the request was answered before; it is then not begun again.

        Raises:
            StatusError: 422 if the key was used for another request, 409 if the same request is
                still being answered, 507 if its reply is not kept any more.
        """
        if key is None:
            return None
        with self._lock:
            self._forget_old()
            before, reply = self._known(key)
            if before is None:
                self._running[key] = digest
                return None
        if before != digest:
            refuse(422, "The `Idempotency-Key` was used for another request. Make a new key.")
        if reply is None:
            refuse(409, "The request with this `Idempotency-Key` is still being answered.")
        if reply.body is None:
            refuse(
                507,
                "The request with this `Idempotency-Key` was answered, but its reply was too large "
                "to be kept. It is not answered twice: go on in its session, or make a new key.",
            )
        return reply

    def _known(self, key: str) -> tuple[str | None, StoredReply | None]:
        if key in self._kept:
            digest, _, reply = self._kept[key]
            return digest, reply
        return self._running.get(key), None

    def keep(self, key: str | None, reply: StoredReply) -> None:
        """Keep the reply of a request that was begun."""
        if key is None:
            return
        if len(reply.body or b"") > limits.REPLY:
            reply = replace(reply, body=None)
        with self._lock:
            self._kept[key] = (self._running.pop(key), self._clock(), reply)
            self._shares.put(_owner(key), key, _NOTE + len(reply.body or b""))
            self._make_room()

    def end(self, key: str | None) -> None:
        """Forget a request that was begun, unless its reply was kept."""
        with self._lock:
            self._running.pop(key or "", None)

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - MAX_AGE_SECONDS
        while self._kept:
            key, (_, made, _) = next(iter(self._kept.items()))
            if made >= oldest_kept:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        del self._kept[key]
        self._shares.drop(key)

    def _make_room(self) -> None:
        while self._shares.exceeds_bytes:
            key = self._shares.to_drop(lambda one: self._kept[one][2].body is not None)
            if key is None:  # pragma: no cover - who holds most holds a body
                return
            digest, made, reply = self._kept[key]
            self._kept[key] = digest, made, replace(reply, body=None)
            self._shares.put(_owner(key), key, _NOTE)
        while self._shares.is_exceeded and (key := self._shares.to_drop(lambda _: True)):
            self._drop(key)


def _owner(key: str) -> str:
    return key.partition(":")[0]


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
            key = auth.bearer(headers, self._api_keys)
            auth.check_content_type(headers)
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
