"""One chat request: its format, its session, its answer, and its reply.

Nothing here is asynchronous or uses HTTP. `endpoints` opens a turn, takes its reply, and ends it.
"""

import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_sequrity.local import limits, session_headers
from langchain_sequrity.local.agent_arch import ChatAnswer, answer_for
from langchain_sequrity.local.backends import BoundedBackend, join_chunks
from langchain_sequrity.local.configuration import configure
from langchain_sequrity.local.conversation import restore_references
from langchain_sequrity.local.http import IncomingRequest, parse_body
from langchain_sequrity.local.observers import Architecture, EndedTurn, Outcome, current_request
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services, TurnInputs
from langchain_sequrity.local.session_lookup import named_sessions, resume_session
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.store import KeyedReply, Lease, RequestKey
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.chat_completions import server as chat_completions
from langchain_sequrity.wire.dual_llm import HISTORY_MISMATCH
from langchain_sequrity.wire.exchange import (
    KEEPS_HISTORY,
    REFERENCE_KEY,
    ChatRequest,
    ChunkSum,
    Event,
    ReplyHead,
    ServerFormat,
)
from langchain_sequrity.wire.messages import server as messages
from langchain_sequrity.wire.responses import stream_writer as responses

if TYPE_CHECKING:
    from langchain_sequrity.sqrt import Engine

# Formats by the last part of the path.
FORMATS: Mapping[str, ServerFormat] = {
    "chat/completions": chat_completions.FORMAT,
    "messages": messages.FORMAT,
    "responses": responses.FORMAT,
}


class ChatTurn:
    """One request, from its body to the end of its reply.

    Threads make the answer. Then `commit` stores it, and `close` gives the session back.

    Args:
        incoming: The request.
        services: Backend, store and everything else that requests share.
        key: The request, if it has an `Idempotency-Key`.

    Attributes:
        session: The session, reserved until the turn is closed.
        request: The request, with the whole conversation.
        is_over: Whether the answer is complete, or the turn is closed.
        summary: The answer in a few words, for the record.
        charge: The memory that the request uses.

    Raises:
        StatusError: If the request is refused; its session is then released.
    """

    def __init__(
        self, incoming: IncomingRequest, services: Services, key: RequestKey | None = None
    ) -> None:
        most_bytes = services.limits.answer_bytes
        in_thread = self._in_thread = incoming.in_thread
        counted = services.usage.counted(services.backend, incoming.key, in_thread)
        self._backend = BoundedBackend(counted, incoming.charge, most_bytes)
        self._services = services
        services.observers.turn_begins()
        self._architecture: Architecture = "single-llm"
        self._outcome: Outcome = "error"
        self.charge = incoming.charge
        self._store = services.store
        self._documented = services.fidelity == "documented"
        self._format = FORMATS[incoming.route.suffix]
        self._is_responses = self._format is responses.FORMAT
        body = charged_body(incoming)
        request = self._format.read_request(self._documented_fields(body))
        services.check_models([request.model], incoming.key)
        self._key = incoming.key
        self._count = _reply_count(request)
        session_ids = named_sessions(request, incoming.headers.get("x-session-id"))
        self._lease = self._open_session(incoming, session_ids, key)
        # A working copy: a request that fails changes nothing (`docs/behaviour.md`, T2).
        self.session = replace(self._lease.session, version=self._lease.session.version + 1)
        self.is_over = self._is_closed = False
        self._is_finished = self._ends_session = self._is_committed = False
        self.summary = ""
        self._answer: ChatAnswer | None = None
        self.request = request
        self._number = self.session.turns + 1
        self._engine: Engine | None = None
        self._reply: AIMessage | None = None
        try:
            self._headers = session_headers.apply_headers(
                self.session, incoming.headers, new=not session_ids
            )
            self._check_previous(request)
            if self._is_responses:
                messages = restore_references(request.messages, self.session.messages)
                request = replace(request, messages=messages)
            services.runs.drop_ended(services.store.has_ended)
            self._answer = self._new_answer(
                request, incoming.route.endpoint_type, is_new=not session_ids
            )
        except BaseException:
            self.abandon()
            raise
        self.request = self._answer.request

    def _check_previous(self, request: ChatRequest) -> None:
        if request.previous_reply is not None and request.previous_reply != self.session.reply:
            refuse(
                409,
                f"The reply `{request.previous_reply}` is not the last reply of its session, or "
                "was not stored. Continue from the last reply, or send the whole conversation.",
                error_type=HISTORY_MISMATCH,
            )

    def _documented_fields(self, body: Any) -> Any:
        if not self._documented or not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if name in self._format.documented}

    def _open_session(
        self, incoming: IncomingRequest, session_ids: set[str], key: RequestKey | None
    ) -> Lease:
        bearer, path = incoming.bearer, incoming.route.path
        if session_ids:
            return self._in_thread.wait(
                resume_session(self._store, session_ids, bearer=bearer, path=path, request=key)
            )
        api_key = incoming.key
        settings, memory_share = api_key.settings, api_key.memory_share
        session = Session(bearer, path, settings=settings, memory_share=memory_share)
        if key is not None:
            session.id = key.session_id
        return self._in_thread.wait(self._store.begin_session(session, key))

    def _new_answer(self, request: ChatRequest, endpoint_type: str, *, is_new: bool) -> ChatAnswer:
        session = self.session
        configuration = configure(self._headers, endpoint_type, session.settings)
        if is_new:
            session.max_turns = configuration.fsm.max_n_turns
        self._services.check_models(configuration.fsm.pllm_candidate_models or (), self._key)
        inputs = TurnInputs(
            request,
            session,
            configuration,
            self._services,
            self._backend,
            endpoint_type,
            self._new_call_id,
            added_policy=self._headers is not self.session.headers,
        )
        self._engine = configuration.engine
        self._is_dual_llm = configuration.dual_llm
        self._architecture = "dual-llm" if self._is_dual_llm else "single-llm"
        return answer_for(inputs, failed=self._format.failed_turn[self._services.fidelity])

    def _new_call_id(self) -> str:
        self.session.calls += 1
        if self._documented:
            return f"tc{self.session.short}{self.session.calls & 0xFFFF:04x}"
        return f"tc-{self.session.id}-{uuid.uuid4()}"

    # The reply

    def reply(self) -> bytes:
        """Make the answer, and write the whole reply as JSON."""
        messages = [join_chunks(self._chunks()) for _ in range(self._count)]
        body = dumps(self._format.write_reply(messages, self._head)).encode()
        self._finish(messages[0])
        return body

    def stream(self) -> Generator[Event, None, None]:
        """Make the answer, and write the reply in pieces.

        The turn is over before its last pieces are returned: a client that has read them may send
        its next request at once, or hang up.
        """
        chunks = self._finishing_chunks()
        # Before the stream starts: an error of the backend then still has its own status.
        first = list(islice(chunks, 1))
        yield from self._format.write_stream(chain(first, chunks), self._head)

    def error(self, message: str, status: int) -> Event:
        """Write an error that comes up within the stream."""
        return self._format.write_error(message, status)

    @cached_property
    def _head(self) -> ReplyHead:
        return ReplyHead(
            self._format.new_reply_id(self.session.id, dual_llm=self._is_dual_llm),
            int(time.time()),
            self.request,
            documented=self._documented,
        )

    def _chunks(self) -> Iterator[AIMessageChunk]:
        return self._answer.chunks() if self._answer else iter(())

    def _finishing_chunks(self) -> Iterator[AIMessageChunk]:
        total = ChunkSum()
        for chunk in self._chunks():
            total.add(chunk)
            yield chunk
        self._finish(join_chunks(total))

    # The end

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the reply, without those that depend on its form."""
        headers = {"X-Session-ID": self.session.id}
        if self._services.fidelity == "full":
            headers[KEEPS_HISTORY] = "true"
        return headers

    def _finish(self, message: AIMessage) -> None:
        """Bring the session up to date. Nothing is stored before `commit`."""
        if self.is_over or self._answer is None:  # the server was stopped
            return
        session = self.session
        is_stored = self.request.options.get("store") is not False
        session.reply = self._head.id if is_stored else None
        if self._is_responses and is_stored:
            message.response_metadata[REFERENCE_KEY] = self._head.id
        self._answer.commit(message)
        self._reply = message
        self._is_finished = True
        calls = len(message.tool_calls) + len(message.invalid_tool_calls)
        self.summary = f"{calls} tool call{'s' * (calls > 1)}" if calls else "text"
        self._ends_session = session.max_turns is not None and session.turns >= session.max_turns
        if not self._ends_session:
            self._store.prepare(self._lease, session)
        self._outcome = _outcome(message, calls)
        self.is_over = True

    async def commit(self, reply: KeyedReply | None) -> None:
        """Store the session and the reply; a client may be told of both afterwards.

        Args:
            reply: The reply, if the request has an `Idempotency-Key`.

        Raises:
            StatusError: If they cannot be stored.
        """
        await self._store.commit(self._lease, None if self._ends_session else self.session, reply)
        self._is_committed = True

    async def close(self) -> None:
        """Give the session back, however the turn ended; a second call does nothing."""
        if self._end():
            await self._store.release(self._lease)

    def abandon(self) -> None:
        """`close`, in a thread."""
        if self._end():
            self._in_thread.let(self._store.release(self._lease))

    def _end(self) -> bool:
        """End the answer; returns whether the session has to be given back."""
        if self._is_closed:
            return False
        self.is_over = self._is_closed = True
        program = None
        if self._answer is not None:
            program = self._answer.program
            self._answer.close()
            self._answer = None  # breaks a reference cycle
        if self._is_finished and (self._ends_session or not self._is_committed):
            self._services.runs.drop(self.session.id)  # it may be further than the stored session
        self._services.observers.turn_ended(
            EndedTurn(
                current_request.get(),
                self._architecture,
                self._outcome if self._is_committed else "error",
                self.session.id,
                self._number,
                self.session.place,
                self.request.model,
                self.request.messages,
                self.request.tools,
                self.session.headers.get("x-policy", ""),
                self._engine,
                self._reply,
                program,
            )
        )
        return not self._is_committed


def _outcome(message: AIMessage, calls: int) -> Outcome:
    if calls:
        return "tool_calls"
    is_failed = "failure" in message.response_metadata  # of a dual-LLM turn
    if current_request.get().denials and (is_failed or message.additional_kwargs.get("refusal")):
        return "denied"
    return "failed" if is_failed else "answer"


def charged_body(incoming: IncomingRequest) -> Any:
    """Parse the body of a chat, and charge the memory of the messages that become of it."""
    body = parse_body(incoming.body, incoming.charge)
    incoming.charge.add(limits.MESSAGE * _message_count(body))
    return body


def _message_count(body: Any) -> int:
    """Maximum number of messages in a body: in some formats each block becomes a message."""
    body = body if isinstance(body, dict) else {}
    lists = [body[key] for key in ("messages", "input") if isinstance(body.get(key), list)]
    contents = [m.get("content") for messages in lists for m in messages if isinstance(m, dict)]
    return sum(len(blocks) for blocks in (*lists, *contents) if isinstance(blocks, list))


def _reply_count(request: ChatRequest) -> int:
    count: int = request.options.get("n") or 1
    if count > 1 and request.stream:
        refuse(400, "Several replies (`n` > 1) cannot be streamed. Leave out `stream` or `n`.")
    return count
