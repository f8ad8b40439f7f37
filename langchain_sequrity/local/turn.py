"""One chat request: its format, its session, its answer, and its reply.

Nothing here is asynchronous or uses HTTP. `endpoints` opens a turn, takes its reply, and ends it.
"""

import re
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage

from langchain_sequrity.local import limits, session_headers
from langchain_sequrity.local.agent_arch import ChatAnswer, answer_for
from langchain_sequrity.local.backends import BoundedBackend, join_chunks
from langchain_sequrity.local.configuration import configure
from langchain_sequrity.local.conversation import restore_references
from langchain_sequrity.local.http import IncomingRequest, parse_body
from langchain_sequrity.local.observers import Architecture, Outcome, current_request
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services, TurnInputs
from langchain_sequrity.local.sessions import Session, resume_session
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.chat_completions import server as chat_completions
from langchain_sequrity.wire.dual_llm import HISTORY_MISMATCH
from langchain_sequrity.wire.exchange import (
    REFERENCE_KEY,
    ChatRequest,
    ChunkSum,
    Event,
    ReplyHead,
    ServerFormat,
)
from langchain_sequrity.wire.messages import server as messages
from langchain_sequrity.wire.responses import stream_writer as responses
from langchain_sequrity.wire.responses.server import session_of

# Formats by the last part of the path.
FORMATS: Mapping[str, ServerFormat] = {
    "chat/completions": chat_completions.FORMAT,
    "messages": messages.FORMAT,
    "responses": responses.FORMAT,
}


_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_LONG_ID = re.compile(rf"tc-({_UUID})-")
_SHORT_ID = re.compile(r"tc([0-9a-f]{12})[0-9a-f]{4}\Z")


class ChatTurn:
    """One request, from its body to the end of its reply.

    Args:
        incoming: The request.
        services: Backend, store and everything else that requests share.

    Attributes:
        session: The session, reserved until the reply is over.
        request: The request, with the whole conversation.
        is_over: Whether the answer is complete, or the request failed.
        summary: The answer in a few words, for the record.
        charge: The memory that the request uses.

    Raises:
        StatusError: If the request is refused; its session is then released.
    """

    def __init__(self, incoming: IncomingRequest, services: Services) -> None:
        most_bytes = services.limits.answer_bytes
        counted = services.usage.counted(services.backend, incoming.key)
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
        session_ids = _named_sessions(request, incoming.headers.get("x-session-id"))
        self.session = self._open_session(incoming, session_ids)
        self.is_over = False
        self.summary = ""
        self._answer: ChatAnswer | None = None
        try:
            self._headers = session_headers.apply_headers(
                self.session, incoming.headers, new=not session_ids
            )
            self._check_previous(request)
            if self._is_responses:
                messages = restore_references(request.messages, self.session.messages)
                request = replace(request, messages=messages)
            services.runs.drop_unknown(services.store.find)
            self._answer = self._new_answer(
                request, incoming.route.endpoint_type, is_new=not session_ids
            )
        except BaseException:
            self.close()
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

    def _open_session(self, incoming: IncomingRequest, session_ids: set[str]) -> Session:
        path = incoming.route.path
        session = resume_session(self._store, session_ids, bearer=incoming.bearer, path=path)
        if session is None:
            key = incoming.key
            session = Session(
                incoming.bearer, path, settings=key.settings, memory_share=key.memory_share
            )
            self._store.acquire(session.id)
        # A working copy: a request that fails changes nothing (`docs/behaviour.md`, T2).
        return replace(session)

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
        self._is_dual_llm = inputs.configuration.dual_llm
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

    def _finish(self, message: AIMessage) -> None:
        if self.is_over or self._answer is None:  # the server was stopped
            return
        if current_request.get().is_cancelled:  # its client was told that it failed
            self.close()
            return
        session = self.session
        is_stored = self.request.options.get("store") is not False
        session.reply = self._head.id if is_stored else None
        if self._is_responses and is_stored:
            message.response_metadata[REFERENCE_KEY] = self._head.id
        self._answer.commit(message)
        calls = len(message.tool_calls) + len(message.invalid_tool_calls)
        self.summary = f"{calls} tool call{'s' * (calls > 1)}" if calls else "text"
        if session.max_turns is not None and session.turns >= session.max_turns:
            self._store.remove(session.id)
            self._services.runs.drop(session.id)
        else:
            try:
                self._store.save(session)
            except BaseException:  # the program is already further than the stored session
                self._services.runs.drop(session.id)
                raise
        self._outcome = _outcome(message, calls)
        self.close()

    def close(self) -> None:
        """Release the session, however the turn ended; a second call does nothing."""
        if not self.is_over:
            self.is_over = True
            if self._answer is not None:
                self._answer.close()
                self._answer = None  # breaks a reference cycle
            self._store.release(self.session.id)
            self._services.observers.turn_ended(self._architecture, self._outcome)


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


def _named_sessions(request: ChatRequest, header: str | None) -> set[str]:
    """Sessions that a request names: in its header, and in ids of tool results and replies."""
    session_ids = {header} if header else set()
    if request.previous_reply is not None:
        session_ids.add(session_of(request.previous_reply) or request.previous_reply)
    short = header.replace("-", "")[-12:] if header else None
    for message in request.messages:
        if (reply := message.response_metadata.get(REFERENCE_KEY)) is not None:
            session_ids.add(session_of(reply) or reply)
        call_id = message.tool_call_id if isinstance(message, ToolMessage) else ""
        match = _LONG_ID.match(call_id) or _SHORT_ID.match(call_id)
        if match and match[1] != short:
            session_ids.add(match[1])
    return session_ids
