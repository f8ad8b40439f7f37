"""The requests of a run and their replies.

A run is one turn of one session. The first request brings program, tools and variables; each later
one brings the results of the calls that the last reply asked for.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import orjson
from langchain_core.messages import HumanMessage, ToolCall

from langchain_sequrity.chat_models.turn import TurnSettings
from langchain_sequrity.connection import Connection
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    SequrityError,
    ServiceError,
    UsageError,
)
from langchain_sequrity.graph.journal import (
    LOST,
    CallBatch,
    ProgramCall,
    ProgramRun,
    short_digest,
)
from langchain_sequrity.graph.program import BeginsAt, GraphProgram
from langchain_sequrity.headers import ConfigHeader
from langchain_sequrity.headers.config import ResponseFormatConfig
from langchain_sequrity.strict_json import digest_of, dumps
from langchain_sequrity.wire.chat_completions.client import read_calls
from langchain_sequrity.wire.dual_llm import DualLLMResult, dual_llm_result, unwrap_envelope
from langchain_sequrity.wire.exchange import (
    KEEPS_HISTORY,
    METADATA_KEY,
    Reply,
    ServiceCall,
    read_object,
)

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport


History = Literal["auto", "whole", "new"]

_WORDS = "Run the supplied program."


# Requests and replies


@dataclass(frozen=True, slots=True)
class CallsRequested:
    """A reply that asks for calls.

    Attributes:
        reply: The assistant message as wire text.
        calls: The calls.
        session_id: The session, as the service named it.
        keeps_history: Whether the service said that it keeps the conversation of the session.
    """

    reply: str
    calls: tuple[ProgramCall, ...]
    session_id: str
    keeps_history: bool = False


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A reply that ends the run with success.

    Attributes:
        result: The verdict, value and labels.
        session_id: The session.
    """

    result: DualLLMResult
    session_id: str


ServiceAnswer = CallsRequested | RunFinished


def reporting_labels(connection: Connection) -> Connection:
    """The connection of runs that report the labels of each field, for the thread to keep."""
    config = connection.config or ConfigHeader()
    response_format = config.response_format or ResponseFormatConfig()
    response_format = response_format.model_copy(update={"include_namespace_snapshot": True})
    return replace(
        connection, config=config.model_copy(update={"response_format": response_format})
    )


class RunExchange:
    """Writes the requests of an executor, and reads the replies.

    Args:
        settings: Connection and format.
        params: Fields of the body, `model` among them.
        program: The graph as a program.
        history: "whole": each request has the whole conversation. "new": only the new results.
            "auto": only these if the service said that it keeps the conversation.

    Attributes:
        connection: The target of the requests.
        location: Hash of the service, policy, features and configuration: where its sessions are.
    """

    def __init__(
        self,
        settings: TurnSettings,
        params: Mapping[str, Any],
        program: GraphProgram,
        history: History,
    ) -> None:
        self.connection: Connection = settings.connection
        self._labelled = reporting_labels(settings.connection)
        to = settings.connection
        headers = [header and header.to_header() for header in (to.policy, to.features, to.config)]
        self.location = short_digest(digest_of([to.base_url, to.path, *headers]))
        self._wire = settings.wire
        self._is_chat = to.suffix == "chat/completions"
        self._history = history
        self._params, self._program = params, program
        short = self._wire.write_request([HumanMessage(_WORDS)], {**params})
        self._words = orjson.dumps(short.pop("messages"))[1:-1]
        self._short_head = orjson.dumps(short)[:-1]
        self._heads: dict[BeginsAt, tuple[bytes, bytes]] = {}

    def first(self, run: ProgramRun, session_id: str | None = None) -> ServiceCall:
        """The first request of a run, in a new session or in one that continues."""
        body = self._body(run, [self._words])
        resend = session_id is None
        return self._connection(run).call(body, session_id=session_id, resend=resend)

    def seal(self, session_id: str) -> str:
        """The digest that ties a session to the connection and the model."""
        return self.connection.session_digest(self._params["model"], session_id)

    def next(self, run: ProgramRun, batches: Sequence[CallBatch]) -> ServiceCall:
        """The request with the results of the last batch of calls.

        The transport does not retry it, because the service may have processed it. A process that
        resumes the run sends it again with the same key, and the service gives its stored reply
        (`docs/behaviour.md`, T2).

        Args:
            run: The run, in a session.
            batches: The replies so far, with all results.

        Raises:
            UsageError: If the conversation is needed, and the checkpointer has lost a part of it.
        """
        results = self._results(batches[-1])
        body = b'%b,"messages":[%b]}' % (self._short_head, results.encode())
        sends_all = self.sends_all(run)
        mode = "whole:" if sends_all else ""
        # The session has the rest of the conversation, so the key need not cover it.
        text = f"{run.session}:{len(batches)}:{mode}".encode() + body
        key = hashlib.blake2b(text, digest_size=16).hexdigest()
        if sends_all:
            if batches[-1].number >= len(batches):
                raise UsageError(LOST)
            messages = [text for b in batches for text in (b.reply, self._results(b))]
            body = self._body(run, [self._words, ",".join(messages).encode()])
        connection = self._connection(run)
        return connection.call(body, session_id=run.session_id, resend=False, idempotency_key=key)

    def sends_all(self, run: ProgramRun) -> bool:
        """Whether each request of a run has the whole conversation."""
        return self._history == "whole" or (self._history == "auto" and not run.keeps_history)

    def has_conversation(self, run: ProgramRun, batches: Sequence[CallBatch]) -> bool:
        """Whether the batches have what requests of a run need of the conversation."""
        return not self.sends_all(run) or all(batch.reply for batch in batches)

    def _connection(self, run: ProgramRun) -> Connection:
        return self._labelled if run.is_labelled else self.connection

    def _body(self, run: ProgramRun, messages: Sequence[bytes]) -> bytes:
        head, program = self._heads.get(run.begins_at) or self._head(run.begins_at)
        return b'%b,"user_provided_program":%b,"context_vars":%b,"messages":[%b]}' % (
            head,
            program if run.program is None else orjson.dumps(run.program),
            run.variables.encode(),
            b",".join(messages),
        )

    def _head(self, begins_at: BeginsAt) -> tuple[bytes, bytes]:
        """The start of the first request, with its tools, and the program."""
        program = self._program.that_begins_at(begins_at)
        tools = [tool.schema() for tool in program.tools.values()]
        body = self._wire.write_request([HumanMessage(_WORDS)], {**self._params, "tools": tools})
        body.pop("messages")
        self._heads[begins_at] = orjson.dumps(body)[:-1], orjson.dumps(program.text)
        return self._heads[begins_at]

    def _results(self, batch: CallBatch) -> str:
        """The results of a batch of calls as wire text, which is written once."""
        if not batch.sent:
            contents = [(call.id, result.content(call)) for call, result in batch.answered]
            batch.sent = orjson.dumps(self._wire.write_results(contents))[1:-1].decode()
        return batch.sent

    def read(self, reply: Reply, session_id: str | None) -> ServiceAnswer:
        """Read a reply.

        Args:
            reply: The reply with status 2xx.
            session_id: The session of the request; `None` for the first.

        Raises:
            BadReply: If it does not follow the protocol.
            TurnFailed: If the program failed, or a policy denied a call.
        """
        session = reply.headers.get("x-session-id") or session_id
        if session is None:
            msg = "The reply has no session (`X-Session-ID`), so the run cannot continue."
            raise BadReply(msg)
        if session_id is not None and session != session_id:
            msg = (
                f"The reply names the session `{plain(session)}`, not that of the request, "
                f"`{session_id}`. A run is one session; nothing of the reply is used."
            )
            raise BadReply(msg, session_id=session_id)
        keeps_history = reply.headers.get(KEEPS_HISTORY) == "true"
        if self._is_chat and (message_and_calls := read_calls(reply)) is not None:
            return _calls_requested(*message_and_calls, session, keeps_history=keeps_history)
        facts = {METADATA_KEY: {"session_id": session}}
        message = self._wire.read_reply(reply, lambda _: facts)[0]
        if message.invalid_tool_calls:
            call = message.invalid_tool_calls[0]
            name, reason = plain(str(call["name"])), plain(str(call["error"])).rstrip(".")
            msg = f"The arguments of a call of `{name}` are not a JSON object: {reason}."
            raise BadReply(msg, session_id=session)
        if message.tool_calls:
            body = read_object(reply.body, exact=True)
            if self._is_chat:
                answer = body["choices"][0]["message"]
            else:
                answer = {"role": "assistant", "content": body["content"]}
            calls = message.tool_calls
            return _calls_requested(answer, calls, session, keeps_history=keeps_history)
        result = dual_llm_result(
            unwrap_envelope(message, certain=True, remap=self.connection.with_author_rule)
        )
        if result is None:
            msg = "The reply neither asks for a call nor ends the run."
            raise BadReply(msg, session_id=session)
        return RunFinished(result, session)


def _calls_requested(
    message: Any, tool_calls: Sequence[ToolCall], session: str, *, keeps_history: bool
) -> CallsRequested:
    """The calls of a reply, with its message, which must be sent back unchanged.

    A service may compare histories as text; differently written arguments would be another history
    (`docs/behaviour.md`, G9).
    """
    calls = tuple(ProgramCall(call["id"] or "", call["name"], call["args"]) for call in tool_calls)
    if len({call.id for call in calls}) < len(calls):
        msg = "The reply asks for several calls with one id."
        raise BadReply(msg, session_id=session)
    if any("\n" in call.id for call in calls):
        msg = "The reply asks for a call whose id has a line break."
        raise BadReply(msg, session_id=session)
    return CallsRequested(dumps(message), calls, session, keeps_history)


def in_session_of(
    run: ProgramRun, answer: ServiceAnswer | PolicyDenied, *, continues: bool
) -> ProgramRun:
    """The run in the session of its first answer.

    Args:
        run: The run.
        answer: The answer.
        continues: Whether the session had an earlier turn.
    """
    keeps_history = isinstance(answer, CallsRequested) and answer.keeps_history
    return run.in_session(answer.session_id, continues=continues, keeps_history=keeps_history)


Work = Generator[tuple[ServiceCall, str | None], ServiceAnswer, Any]
"""Yields a request with its session, and receives the answer."""


async def send_requests(
    work: Work, transport: "Transport", exchange: RunExchange, *, is_async: bool
) -> None:
    """Send the requests of a piece of work.

    Args:
        work: The work.
        transport: Sends requests.
        exchange: Reads the replies.
        is_async: Whether to wait for replies in an event loop.
    """
    try:
        call, session = next(work)
        while True:
            read = partial(exchange.read, session_id=session)
            try:
                answer = (
                    await transport.asend(call, read) if is_async else transport.send(call, read)
                )
            except SequrityError as error:
                if isinstance(error, ServiceError) and not call.resend:
                    # The same input would begin the run again, with calls that were made.
                    error.is_retryable = False
                call, session = work.throw(error)
            else:
                call, session = work.send(answer)
    except StopIteration:
        return


def send_request(
    call: ServiceCall,
) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, ServiceAnswer | PolicyDenied]:
    """Send a request. A denial is returned, not raised."""
    try:
        return (yield call, call.session_id)
    except PolicyDenied as denied:
        return denied
