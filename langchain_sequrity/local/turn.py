"""One chat request: whose session it is, what is asked, and what the brain answers.

Nothing here is asynchronous or knows HTTP; `app` opens a turn, takes its reply, and ends it.
"""

import re
import secrets
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage, message_chunk_to_message
from langchain_core.messages.tool import ToolCallChunk

from langchain_sequrity.local import settings
from langchain_sequrity.local.brains import Brain, BrainContext
from langchain_sequrity.local.history import complete
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.sessions import Session, SessionStore, resume
from langchain_sequrity.wire import chat_completions
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.routes import Route

Fidelity = Literal["full", "documented"]

_LONG_ID = re.compile(r"tc-([0-9a-fA-F-]{36})-")
_SHORT_ID = re.compile(r"tc([0-9a-f]{12})[0-9a-f]{4}\Z")
# What the service documents for chat/completions; whether more has an effect is not known (P4).
_DOCUMENTED = frozenset(
    {
        "messages",
        "model",
        "temperature",
        "top_p",
        "tools",
        "seed",
        "reasoning_effort",
        "response_format",
    }
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A chat request as the app hands it over.

    Attributes:
        route: The row of the table that it came in on.
        bearer: Digest of its bearer.
        headers: Its headers, by lower-case name.
        body: Its parsed JSON.
    """

    route: Route
    bearer: str
    headers: Mapping[str, str]
    body: Any


class Turn:
    """One turn of a session, from the request to the end of the reply.

    Args:
        incoming: The request.
        store: Where sessions live.
        brain: What answers.
        fidelity: `full` honours every field; `documented` only those that are documented.

    Raises:
        StatusError: If the request is refused; no session is then left reserved.
    """

    def __init__(
        self, incoming: Incoming, store: SessionStore, brain: Brain, fidelity: Fidelity
    ) -> None:
        self._store = store
        self._brain = brain
        self._documented = fidelity == "documented"
        self._context = BrainContext(endpoint_type=incoming.route.endpoint_type)
        self.request = chat_completions.read_request(self._kept(incoming.body))
        self.session, new = self._open(incoming)
        try:
            self._settings = settings.apply(self.session, incoming.headers, new=new)
            messages = complete(self.request.messages, self.session.messages)
            self.request = replace(self.request, messages=messages)
        except BaseException:
            self.close()
            raise
        self.reply_id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def _kept(self, body: Any) -> Any:
        if not self._documented or not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if name in _DOCUMENTED}

    def _open(self, incoming: Incoming) -> tuple[Session, bool]:
        place = incoming.route.path
        named = _named_sessions(self.request, incoming.headers.get("x-session-id"))
        session = resume(self._store, named, bearer=incoming.bearer, place=place)
        if session is not None:
            return session, False
        session = Session(incoming.bearer, place)
        self._store.acquire(session.id)
        return session, True

    # The reply

    def reply(self) -> dict[str, Any]:
        """Let the brain answer, and write the whole reply."""
        messages = [_whole(self._chunks()) for _ in range(self.request.options.get("n") or 1)]
        self._finish(messages[0])
        return chat_completions.write_reply(
            messages, reply_id=self.reply_id, model=self.request.model, created=self.created
        )

    def stream(self) -> Iterator[str]:
        """Let the brain answer, and write the reply in pieces."""
        if (self.request.options.get("n") or 1) > 1:
            refuse(400, "Several replies (`n` > 1) cannot be streamed. Leave out `stream` or `n`.")
        pieces: list[AIMessageChunk] = []
        yield from chat_completions.write_stream(
            self._kept_pieces(pieces),
            reply_id=self.reply_id,
            model=self.request.model,
            created=self.created,
            usage=self.request.stream_usage,
        )
        self._finish(_whole(pieces))

    def _kept_pieces(self, pieces: list[AIMessageChunk]) -> Iterator[AIMessageChunk]:
        for chunk in self._chunks():
            pieces.append(chunk)
            yield chunk

    def _chunks(self) -> Iterator[AIMessageChunk]:
        for chunk in self._brain.stream(self.request, self._context):
            chunk.tool_call_chunks = [self._with_own_id(call) for call in chunk.tool_call_chunks]
            yield chunk

    def _with_own_id(self, call: ToolCallChunk) -> ToolCallChunk:
        """A tool call id tells its session; the brain's own id does not leave the server."""
        if call["id"] is None:
            return call
        self.session.calls += 1
        if self._documented:
            own = f"tc{self.session.short}{self.session.calls & 0xFFFF:04x}"
        else:
            own = f"tc-{self.session.id}-{uuid.uuid4()}"
        return ToolCallChunk(**{**call, "id": own})

    # The end

    def _finish(self, message: AIMessage) -> None:
        session = self.session
        session.messages = [*self.request.messages, message]
        if not message.tool_calls:
            session.turns += 1
        limit = self._settings.max_turns
        if limit is not None and session.turns >= limit:
            self._store.remove(session.id)
        else:
            self._store.save(session)

    def close(self) -> None:
        """Give the session back; call it once the reply is over, however it ended."""
        self._store.release(self.session.id)


def _whole(chunks: Iterable[AIMessageChunk]) -> AIMessage:
    # The closing piece makes LangChain parse the arguments of the tool calls.
    first, *others = [*chunks, AIMessageChunk(content="", chunk_position="last")]
    total = first + others if others else first
    message = message_chunk_to_message(total)
    if not isinstance(message, AIMessage):
        msg = f"The brain answered with a {type(message).__name__}."
        raise TypeError(msg)
    return message


def _named_sessions(request: ChatRequest, header: str | None) -> set[str]:
    """Sessions that a request names: in its header, and in the ids of its tool results."""
    named = {header} if header else set()
    short = header.replace("-", "")[-12:] if header else None
    for message in request.messages:
        call_id = message.tool_call_id if isinstance(message, ToolMessage) else ""
        match = _LONG_ID.match(call_id) or _SHORT_ID.match(call_id)
        if match and match[1] != short:
            named.add(match[1])
    return named
