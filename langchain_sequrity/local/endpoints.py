"""The endpoints for chats and policies: asynchronous outside, one thread per turn inside."""

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local import auth, http, session_headers
from langchain_sequrity.local.backends import BoundedBackend
from langchain_sequrity.local.http import EventStreamResponse, IncomingRequest, json_response
from langchain_sequrity.local.idempotency import (
    Replies,
    ReplyCopy,
    StoredReply,
    digest_of,
    idempotency_key,
)
from langchain_sequrity.local.policy_writer import write_policy
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.local.turn import FORMATS, ChatTurn, charged_body
from langchain_sequrity.wire.exchange import KEEPS_HISTORY, ChatRequest, Event
from langchain_sequrity.wire.policy_generation import (
    PolicyRequest,
    read_request,
    variants_at,
    write_reply,
)
from langchain_sequrity.wire.routes import Route
from langchain_sequrity.wire.sse import write_event

Facts = dict[str, Any]
T = TypeVar("T")
logger = logging.getLogger("langchain_sequrity.local")


class Admission:
    """Admits requests that need a backend: checks keys, bodies, repeats and the number at once.

    Args:
        services: Which keys are allowed, and how many turns may run.

    Attributes:
        replies: Replies for repeated requests.
    """

    def __init__(self, services: Services) -> None:
        self._api_keys = services.api_keys
        self._max_turns = services.max_turns_at_once
        self._body_seconds = services.body_seconds
        self.replies = Replies()
        self._running = 0
        # Turns have their own threads, so a slow backend delays nobody else.
        self._threads = CapacityLimiter(services.max_turns_at_once)

    def endpoint(
        self,
        route: Route,
        answer: Callable[[IncomingRequest, Facts, str | None], Awaitable[Response]],
        limit: int,
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint for one row of the route table.

        Args:
            route: The row.
            answer: Answers a request. Its arguments are the request, the facts for the record of
                the request, and the key under which the reply may be kept.
            limit: Maximum size of a body in bytes.

        Returns:
            The endpoint.
        """

        async def endpoint(request: Request) -> Response:
            headers = request.scope["by_name"]
            bearer = auth.bearer(headers, self._api_keys)
            auth.check_content_type(headers)
            charge = request.scope["charge"]
            data = await http.read_body(
                request.stream(), headers, charge, limit=limit, seconds=self._body_seconds
            )
            incoming = IncomingRequest(route, bearer_digest(bearer), headers, data, charge)
            facts = request.scope["facts"]
            key = idempotency_key(incoming)
            known = self.replies.begin(key, digest_of(incoming) if key else "")
            if known is not None:
                facts["summary"] = "repeated reply"
                return Response(known.body, headers=known.headers)
            try:
                return await answer(incoming, facts, key)
            except BaseException:
                self.replies.end(key)
                raise

        return endpoint

    def begin(self) -> None:
        """Count a turn that begins; `end` must follow.

        Raises:
            StatusError: 429 if too many turns are running.
        """
        if self._running >= self._max_turns:
            refuse(429, "Too many turns are running at once. Try again.", retry_after=1)
        self._running += 1

    def end(self) -> None:
        """Count a turn that has ended."""
        self._running -= 1

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run a call in a thread, and wait for its result."""
        return await run_sync(call, limiter=self._threads)


class ChatEndpoint:
    """The chat endpoints.

    Args:
        services: What turns need.
        admission: Admits requests; shared with other endpoints.
    """

    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def answer(self, incoming: IncomingRequest, facts: Facts, key: str | None) -> Response:
        """Answer a request."""
        turn = await self._opened(incoming)
        facts.update(model=turn.request.model, session=turn.session.id[:8])
        answer = self._streamed if turn.request.stream else self._whole
        return await answer(turn, facts, key)

    async def _opened(self, incoming: IncomingRequest) -> ChatTurn:
        self._admission.begin()
        try:
            return await self._admission.in_thread(partial(ChatTurn, incoming, self._services))
        except BaseException:
            self._admission.end()
            raise

    async def _whole(self, turn: ChatTurn, facts: Facts, key: str | None) -> Response:
        try:
            body = await self._admission.in_thread(turn.reply)
        finally:
            self._end(turn)
        facts["summary"] = turn.summary
        response = json_response(body, headers=self._session_headers(turn))
        self._admission.replies.keep(key, StoredReply(dict(response.headers), body))
        return response

    def _session_headers(self, turn: ChatTurn) -> dict[str, str]:
        keeps = {KEEPS_HISTORY: "true"} if self._services.fidelity == "full" else {}
        return {"X-Session-ID": turn.session.id, **keeps}

    async def _streamed(self, turn: ChatTurn, facts: Facts, key: str | None) -> Response:
        pieces = turn.stream()
        try:
            # An error before the first piece still has its own status.
            first = await self._admission.in_thread(partial(next, pieces))
        except BaseException:
            self._end(turn)
            raise
        facts["summary"] = "stream"
        headers = {
            **self._session_headers(turn),
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
        }

        copy = ReplyCopy(turn.charge if key else None)

        def keep() -> None:
            self._admission.replies.keep(key, StoredReply(headers, copy.body))

        def on_end() -> None:
            self._admission.replies.end(key)
            self._end(turn)
            # When the server stops, a backend may still be answering; its thread ends by itself.
            with suppress(ValueError):
                pieces.close()

        return EventStreamResponse(self._events(turn, first, pieces, copy, keep), headers, on_end)

    async def _events(
        self,
        turn: ChatTurn,
        piece: Event,
        pieces: Iterator[Event],
        copy: ReplyCopy,
        keep: Callable[[], None],
    ) -> AsyncIterator[bytes]:
        try:
            while not turn.is_over:
                data = _bytes(piece)
                copy.add(data)
                yield data
                piece = await self._admission.in_thread(partial(next, pieces))
        except StatusError as error:
            yield _bytes(turn.error(str(error), error.status or 500))
            return
        except Exception:
            logger.exception("A stream of session %s failed", turn.session.id[:8])
            yield _bytes(turn.error("The server failed. Find the reason in its log.", 500))
            return
        # The rest needs no backend. It is kept before it is sent: a client that has read it may
        # repeat the request.
        rest = b"".join(map(_bytes, (piece, *pieces)))
        copy.add(rest)
        keep()
        yield rest

    def _end(self, turn: ChatTurn) -> None:
        self._admission.end()
        turn.close()


def _bytes(event: Event) -> bytes:
    return write_event(event.data, event.name)


class TokenCountEndpoint:
    """`messages/count_tokens`: no session, and no model answers.

    Args:
        services: Counts the tokens.
        admission: Admits requests; shared with the chats.
    """

    def __init__(self, services: Services, admission: Admission) -> None:
        self._count = services.count_tokens
        self._admission = admission

    async def answer(self, incoming: IncomingRequest, facts: Facts, key: str | None) -> Response:
        """Answer a request."""
        self._admission.begin()
        try:
            request = await self._admission.in_thread(partial(_read_messages, incoming))
            facts.update(model=request.model, summary="token count")
            tokens = await self._admission.in_thread(partial(self._count, request))
        finally:
            self._admission.end()
        response = json_response({"input_tokens": tokens})
        self._admission.replies.keep(key, StoredReply(dict(response.headers), bytes(response.body)))
        return response


def _read_messages(incoming: IncomingRequest) -> ChatRequest:
    """The request as `messages` reads it; without `max_tokens`, which only an answer needs."""
    body = charged_body(incoming)
    if isinstance(body, dict):
        body.setdefault("max_tokens", sys.maxsize)
    session_headers.read_headers(incoming.headers)
    return FORMATS["messages"].read_request(body)


class ModelsEndpoint:
    """`models`: what answers, in a form that the SDKs of OpenAI and Anthropic read.

    Args:
        services: Keys and models.
    """

    def __init__(self, services: Services) -> None:
        self._api_keys = services.api_keys
        self._models = {name: _model(name, roles) for name, roles in services.models.items()}

    async def list(self, request: Request) -> Response:
        """All models, on one page."""
        auth.bearer(request.scope["by_name"], self._api_keys)
        models = [*self._models.values()]
        return json_response({"object": "list", "data": models, "has_more": False})

    async def retrieve(self, request: Request) -> Response:
        """One model; 404 for another name."""
        auth.bearer(request.scope["by_name"], self._api_keys)
        model = self._models.get(request.path_params["model"])
        if model is None:
            names = ", ".join(f"`{name}`" for name in self._models)
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


class PolicyEndpoint:
    """The endpoints for policy generation. They have no sessions and read no JSON headers.

    Args:
        services: Provides the backend.
        admission: Admits requests; shared with the chats.
    """

    def __init__(self, services: Services, admission: Admission) -> None:
        self._backend = services.backend
        self._admission = admission

    async def answer(self, incoming: IncomingRequest, facts: Facts, key: str | None) -> Response:
        """Answer a request."""
        self._admission.begin()
        try:
            request = await self._admission.in_thread(partial(_read, incoming))
            backend = BoundedBackend(self._backend, incoming.charge)
            facts.update(model=request.model)
            reply = await self._admission.in_thread(partial(write_policy, request, backend))
        finally:
            self._admission.end()
        facts["summary"] = "policy"
        response = json_response(write_reply(reply))
        self._admission.replies.keep(key, StoredReply(dict(response.headers), bytes(response.body)))
        return response


def _read(incoming: IncomingRequest) -> PolicyRequest:
    request = read_request(http.parse_body(incoming.body, incoming.charge))
    allowed = variants_at(incoming.route.provider)
    if request.variant not in allowed:
        names = " or ".join(f"`{variant}`" for variant in allowed)
        refuse(
            400,
            f"`{incoming.route.path}` takes the type {names}, got `{request.variant}`. Use the "
            "path of the type's own provider.",
        )
    return request
