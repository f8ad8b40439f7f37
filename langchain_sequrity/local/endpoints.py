"""The endpoints that need a key: asynchronous outside, one thread per turn inside."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import auth, http, session_headers
from langchain_sequrity.local.backends import BoundedBackend
from langchain_sequrity.local.fair_slots import FairSlots
from langchain_sequrity.local.http import EventStreamResponse, IncomingRequest, json_response
from langchain_sequrity.local.idempotency import ReplyCopy, request_key
from langchain_sequrity.local.keys import ANY_KEY
from langchain_sequrity.local.model_table import refuse_model, usable_models
from langchain_sequrity.local.observers import current_request
from langchain_sequrity.local.policy_writer import write_policy
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.local.store import Answered, RequestKey, StoredReply, StoreInThread
from langchain_sequrity.local.threads import ReusedThreads
from langchain_sequrity.local.turn import FORMATS, ChatTurn, charged_body
from langchain_sequrity.owned_cache import cache_owner
from langchain_sequrity.wire.exchange import Event
from langchain_sequrity.wire.policy_generation import read_request, variants_at, write_reply
from langchain_sequrity.wire.routes import POLICY_ROUTES, Route
from langchain_sequrity.wire.sse import write_event

if TYPE_CHECKING:
    from langchain_sequrity.local.connections import Connection

_MOST_COMPUTING = min(max(os.cpu_count() or 1, 2), 4)
# Turns have their own threads, so a slow backend delays nobody else. All servers share them. Few
# compute at once: only one of them has Python's lock, and the event loop waits longer for it with
# each that wants it. A turn that waits for a model or a program does not count.
_turn_threads = ReusedThreads("turn", most_idle=40, slots=FairSlots(_MOST_COMPUTING))
Facts = dict[str, Any]
_TIMES_SENT = 2  # a reply is copied once to the transport
logger = logging.getLogger("langchain_sequrity.local")


class Endpoints:
    """The endpoints with a body that is answered in threads: chats, token counts, policies.

    Args:
        services: Allowed keys, limits, and what answers.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.limits

    async def post(self, route: Route, request: Request) -> Response:
        """Check and read a request; answer it from memory if it is repeated, or else in threads."""
        headers, charge = request.scope["by_name"], request.scope["charge"]
        is_anthropic = route.suffix.startswith("messages")
        secret, api_key = auth.bearer(headers, self._services.keys, as_anthropic=is_anthropic)
        store = self._services.store
        bearer = charge.owner = bearer_digest(secret, store.secret)
        charge.share = api_key.memory_share
        auth.check_content_type(headers)
        limit = "policy_body_bytes" if route in POLICY_ROUTES else "body_bytes"
        # `None` behind another server than `LocalServer`
        connection: Connection | None = request.scope.get("state", {}).get("connection")
        with nullcontext() if connection is None else connection.body_expected(bearer):
            body = await http.read_body(
                request.stream(), headers, charge, self._limits, limit=limit
            )
        in_thread = StoreInThread(store, asyncio.get_running_loop())
        incoming = IncomingRequest(route, bearer, api_key, headers, body, charge, in_thread)
        cache_owner.set(bearer)
        facts = request.scope["facts"]
        if api_key is not ANY_KEY:
            facts["key"] = api_key.name
        key = request_key(incoming, store.secret)
        if key is None:
            return await self._answer(incoming, facts, None)
        begun = await store.begin_request(key)
        if isinstance(begun, StoredReply):
            return _repeated(incoming, facts, begun)
        try:
            return await self._answer(incoming, facts, begun)
        except Answered as answered:
            return _repeated(incoming, facts, answered.reply)

    async def _answer(
        self, incoming: IncomingRequest, facts: Facts, key: RequestKey | None
    ) -> Response:
        services = self._services
        async with AsyncExitStack() as at_end:
            if key is not None:
                at_end.push_async_callback(services.store.end_request, key)
            most_turns = self._limits.turns_at_once
            at_end.callback(
                await services.usage.begin_turn(incoming.bearer, incoming.key, most_turns)
            )
            if incoming.route.suffix in FORMATS:
                return await self._chat(incoming, facts, key, at_end)
            answer = _write_policy if incoming.route in POLICY_ROUTES else _count_tokens
            content = await _turn_threads.run(answer, incoming, services, facts)
            response = json_response(content)
            if key is not None:
                reply = _stored(response.headers, bytes(response.body))
                await services.store.commit(None, None, (key, reply))
            return response

    async def _chat(
        self, incoming: IncomingRequest, facts: Facts, key: RequestKey | None,
        at_end: AsyncExitStack,
    ) -> Response:  # fmt: skip
        begun: list[_BegunTurn] = []
        try:
            turn, reply = await _turn_threads.run(
                _begin_turn, incoming, self._services, facts, key, begun
            )
        except asyncio.CancelledError:  # the thread works on, or has just ended
            current_request.get().is_cancelled = True
            for turn in _begun_turn_of(begun):
                await turn.close()
            raise
        at_end.push_async_callback(turn.close)
        headers = turn.headers
        if isinstance(reply, bytes):
            facts["summary"] = turn.summary
            response = json_response(reply, headers=headers)
            await turn.commit(None if key is None else (key, _stored(response.headers, reply)))
            return response
        first, pieces = reply
        at_end.callback(pieces.close)
        facts["summary"] = "stream"
        headers["Content-Type"] = "text/event-stream; charset=utf-8"
        headers["Cache-Control"] = "no-store"
        copy = ReplyCopy(turn.charge if key else None, self._limits.reply_bytes)
        end = at_end.pop_all().aclose

        async def commit() -> None:
            stored = StoredReply(headers, copy.body)
            await turn.commit(None if key is None else (key, stored))
            await end()  # a client that does not read holds its connection, and nothing else

        return EventStreamResponse(self._events(turn, first, pieces, copy, commit), headers, end)

    async def _events(
        self,
        turn: ChatTurn,
        piece: Event,
        pieces: "_Pieces",
        copy: ReplyCopy,
        commit: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[bytes]:
        try:
            while not turn.is_over:
                event_bytes = _bytes(piece)
                copy.add(event_bytes)
                yield event_bytes
                piece = await _turn_threads.run(next, pieces)
            # The rest needs no backend. It is committed before it is sent: a client that has read
            # it may repeat the request, or send the next one.
            rest = b"".join(map(_bytes, (piece, *pieces)))
            copy.add(rest)
            await commit()
        except StatusError as error:
            yield _bytes(turn.error(str(error), error.status or 500))
            return
        except Exception:
            logger.exception("A stream of session %s failed", turn.session.id[:8])
            yield _bytes(turn.error("The server failed. Find the reason in its log.", 500))
            return
        yield rest


def _repeated(incoming: IncomingRequest, facts: Facts, reply: StoredReply) -> Response:
    incoming.charge.add(_TIMES_SENT * len(reply.body or b""))
    facts["summary"] = "repeated reply"
    return Response(reply.body, headers=reply.headers)


def _stored(headers: Mapping[str, str], body: bytes) -> StoredReply:
    return StoredReply(dict(headers), body)


class _Pieces:
    """The pieces of a stream, which threads take one after the other.

    If a client leaves while a thread waits for the next piece, this thread closes the stream when
    it has the piece. Otherwise the model would write to its end, or keep its connection.

    Args:
        pieces: The stream.
    """

    def __init__(self, pieces: Generator[Event, None, None]) -> None:
        self._pieces = pieces
        self._is_closed = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            with self._lock:
                return next(self._pieces)
        finally:
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Close the stream, now or when the thread that waits has its piece."""
        self._is_closed = True  # before the look at the lock: its holder looks here afterwards
        if self._lock.acquire(blocking=False):
            try:
                self._pieces.close()
            finally:
                self._lock.release()


_WholeOrPieces = bytes | tuple[Event, _Pieces]
_BegunTurn = tuple[ChatTurn, _WholeOrPieces]


def _begin_turn(
    incoming: IncomingRequest,
    services: Services,
    facts: Facts,
    key: RequestKey | None,
    begun: list[_BegunTurn],
) -> _BegunTurn:
    """Begin a turn, and make its whole reply, or the first piece of a stream and the others.

    All in one thread: to hand over costs as much as a short turn. An error before the first piece
    still has its own status. If the request is cancelled, the turn is in `begun` before this thread
    asks for that, and the event loop says so before it looks there: one of both ends the turn.
    """
    turn = ChatTurn(incoming, services, key)
    try:
        facts.update(model=turn.request.model, session=turn.session.id[:8])
        if not turn.request.stream:
            reply: _WholeOrPieces = turn.reply()
        else:
            pieces = _Pieces(turn.stream())
            reply = next(pieces), pieces
    except BaseException:
        turn.abandon()
        raise
    begun.append((turn, reply))
    if current_request.get().is_cancelled:  # nobody waits for it
        for cancelled_turn in _begun_turn_of(begun):
            cancelled_turn.abandon()
    return turn, reply


def _begun_turn_of(begun: list[_BegunTurn]) -> Iterator[ChatTurn]:
    """Take out a turn that has begun, for whoever ends it; its stream is closed."""
    with suppress(IndexError):  # not begun yet, or the other one has taken it
        turn, reply = begun.pop()
        if not isinstance(reply, bytes):
            reply[1].close()
        yield turn


def _bytes(event: Event) -> bytes:
    return write_event(event.data, event.name)


def _count_tokens(incoming: IncomingRequest, services: Services, facts: Facts) -> dict[str, int]:
    """`messages/count_tokens`: no session, and no model answers."""
    body = charged_body(incoming)
    if isinstance(body, dict):
        body.setdefault("max_tokens", sys.maxsize)  # which only an answer needs
    session_headers.read_headers(incoming.headers)
    request = FORMATS["messages"].read_request(body)
    services.check_models([request.model], incoming.key)
    facts.update(model=request.model, summary="token count")
    return {"input_tokens": services.count_tokens(request)}


def _write_policy(incoming: IncomingRequest, services: Services, facts: Facts) -> dict[str, Any]:
    """Policy generation. It has no sessions and reads no JSON headers."""
    request = read_request(http.parse_body(incoming.body, incoming.charge))
    allowed = variants_at(incoming.route.provider)
    if request.variant not in allowed:
        names = " or ".join(f"`{variant}`" for variant in allowed)
        refuse(
            400,
            f"`{incoming.route.path}` takes the type {names}, got `{request.variant}`. Use the "
            "path of the type's own provider.",
        )
    services.check_models([request.model], incoming.key)
    facts.update(model=request.model)
    most_bytes = services.limits.answer_bytes
    counted = services.usage.counted(services.backend, incoming.key, incoming.in_thread)
    backend = BoundedBackend(counted, incoming.charge, most_bytes)
    reply = write_policy(request, backend)
    facts["summary"] = "policy"
    return write_reply(reply)


class ModelsEndpoint:
    """`models`: what answers, in a form that the SDKs of OpenAI and Anthropic read.

    Args:
        services: Keys and models.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: Request) -> Response:
        """All models that the key may use, on one page."""
        models = [*self._models_for(request).values()]
        return json_response({"object": "list", "data": models, "has_more": False})

    def _models_for(self, request: Request) -> dict[str, Any]:
        services = self._services
        headers = request.scope["by_name"]
        _, key = auth.bearer(headers, services.keys, as_anthropic=True)
        listed = services.models if services.has_model_table else None
        names = usable_models(listed, key.models)
        return {
            name: _model(name, services.models.get(name, ("chat",)))
            for name in (services.models if names is None else names)
        }

    async def retrieve(self, request: Request) -> Response:
        """One model; 404 for another name."""
        models = self._models_for(request)
        name = request.path_params["model"]
        model = models.get(name)
        if model is None and self._services.has_model_table:
            refuse_model(name, models)
        if model is None:
            names = ", ".join(f"`{name}`" for name in models)
            refuse(
                404,
                f"This server has no model of this name. It has {names}. A chat may name any "
                "model: the same ones answer.",
            )
        return json_response(model)


def _model(name: str, roles: Sequence[str]) -> dict[str, Any]:
    of_openai = {"object": "model", "created": 0, "owned_by": "local"}
    of_anthropic = {
        "type": "model",
        "display_name": f"{name} ({', '.join(roles)})",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }
    return {"id": name, **of_openai, **of_anthropic}
