"""The requests of a run and their replies: first request, results, replay.

A run is one turn of one session. The first request brings program, tools and variables; each later
one brings the results of the calls that the last reply asked for.

The variables are the initial state. A run begins with an input, or with a state that the service
did not make: one that somebody edited, or that an older run or the plain graph has left. The
service reports the labels of the fields when a run ends. A run that has not ended is replayed to
get them.

If the service has lost a session, or a human approved a call, the run is replayed in a new session.
Policies check every call again and the session gets its labels again. The user's code does not run
again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Literal

import orjson
from langchain_core.messages import BaseMessage, HumanMessage, ToolCall
from langgraph.channels.base import BaseChannel
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.chat_models.turn import TurnSettings
from langchain_sequrity.connection import Connection
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    SequrityError,
    SessionExpired,
    StatusError,
    UsageError,
)
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.approval import DenialHandler
from langchain_sequrity.graph.dispatch import ClientTools
from langchain_sequrity.graph.journal import (
    APPROVED,
    CallBatch,
    CallResult,
    DeniedCall,
    Journal,
    JournalRecord,
    ProgramCall,
    ProgramRun,
    Refusal,
    ReplayMismatch,
    read_journal,
    read_record,
    records_of_session,
)
from langchain_sequrity.graph.limits import STEPS_PER_PROGRAM
from langchain_sequrity.graph.program import HANDLE, JOURNAL, RUN, STEP, BeginsAt, GraphProgram
from langchain_sequrity.headers import ConfigHeader
from langchain_sequrity.headers.config import ResponseFormatConfig
from langchain_sequrity.labels import BadLabels, Labels
from langchain_sequrity.session_memory import OnSessionLost
from langchain_sequrity.strict_json import digest_of, dumps, loads
from langchain_sequrity.wire.chat_completions.client import read_calls
from langchain_sequrity.wire.dual_llm import DualLLMResult, dual_llm_result, unwrap_envelope
from langchain_sequrity.wire.error_body import is_session_gone
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
        self.location = digest_of([to.base_url, to.path, *headers])
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
        sends_all = self._sends_all(run)
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

    def _sends_all(self, run: ProgramRun) -> bool:
        """Whether each request of a run has the whole conversation."""
        return self._history == "whole" or (self._history == "auto" and not run.keeps_history)

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


# Replay


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that began again.

    Attributes:
        run: The run.
        batches: The journal's calls, as the new session has them.
        answer: The last answer of the service. If it asks for calls, they are the last batch.
    """

    run: ProgramRun
    batches: list[CallBatch]
    answer: ServiceAnswer | PolicyDenied


def replay(
    exchange: RunExchange,
    run: ProgramRun,
    journal: Journal,
    steps: Sequence[int],
    session_id: str | None = None,
) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, Replay]:
    """Start a run again and answer its calls from the journal.

    Args:
        exchange: Writes requests and reads replies.
        run: The run; its old session is not used.
        journal: The journal.
        steps: The step of each answered call, and then the next one.
        session_id: The session in which it starts as another turn; `None` for a new session.

    Yields:
        Requests.

    Returns:
        The run where the journal ends. Its last batch is open, perhaps with some of its results.

    Raises:
        ReplayMismatch: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    recorded, batches = deque(journal.answered), list[CallBatch]()
    later_steps = iter(steps)
    step = next(later_steps)
    answer = yield from send_request(exchange.first(run, session_id))
    run = in_session_of(run, answer, continues=session_id is not None)
    while isinstance(answer, CallsRequested):
        batch = CallBatch(answer.reply, answer.calls, step=step)
        batches.append(batch)
        for call in answer.calls:
            if recorded and not (HANDLE in call.arguments and call.digest != recorded[0][0].digest):
                recorded_call, result = recorded.popleft()
                batch.add_result(result.in_new_session(call, recorded_call, run.session))
                step = next(later_steps, step)
            elif (early := journal.early_result(call, run.session)) is not None:
                batch.add_result(early)
        if not batch.is_answered:
            break
        try:
            answer = yield from send_request(exchange.next(run, batches))
        except StatusError as error:
            if not is_session_gone(error, run.session_id):
                raise
            msg = (
                f"The service lost the session while it was rebuilt from the journal ({error}). "
                "Resume the run later; no result is lost."
            )
            raise SessionExpired(msg, session_id=run.session_id) from None
    if recorded and isinstance(answer, PolicyDenied):
        raise answer
    if recorded:
        msg = (
            f"In a new session the program ends before the call of `{recorded[0][0].tool}` that "
            "the journal has: it took another path than in the recorded run. No node has run "
            "again. Start a new run with another `thread_id`."
        )
        raise ReplayMismatch(msg)
    return Replay(run, batches, answer)


# Variables and labels

WireLabels = dict[str, list[str]]
"""Labels as the protocol has them: producers, consumers, tags."""

FieldLabels = Mapping[str, WireLabels]

Channels = Mapping[str, BaseChannel[Any, Any, Any]]

NO_LABELS = Labels().to_wire()

LOST = (
    "The checkpointer gives back a run without its journal: it keeps only the newest checkpoint "
    "of a thread. Use one that keeps all of them, as those for memory, SQLite and Postgres do. "
    "Start a new run with another `thread_id`."
)


@dataclass(frozen=True, slots=True)
class ExecutorParts:
    """The parts that all runs of an executor share.

    Attributes:
        keeps_labels: Whether an edited field keeps the labels of its old value.
        on_session_lost: Whether a session that the policy needs and that is lost raises.
    """

    spec: GraphSpec
    program: GraphProgram
    tools: ClientTools
    exchange: RunExchange
    transport: "Callable[[], Transport]"
    denials: DenialHandler
    name: str
    keeps_labels: bool = False
    on_session_lost: OnSessionLost = "raise"


class StateVariables:
    """Makes the initial variables of runs, with their labels.

    Args:
        parts: The parts that all runs of the executor share.
    """

    def __init__(self, parts: ExecutorParts) -> None:
        self._parts = parts
        self._program = parts.program
        self._packet_labels = Labels()
        self._unsent_labels: dict[str, WireLabels] = {}

    def in_new_session(self, run: ProgramRun, approved: list[DeniedCall]) -> ProgramRun:
        """The run as it begins again in a new session; its program takes results of approved calls.

        Args:
            run: The run. Its variables have no results of approved calls, or those of `approved`.
            approved: Calls that were approved and made.
        """
        program, variables = None, run.variables
        if approved:
            base = self._program.that_begins_at(run.begins_at).text
            program, results = self._parts.denials.program_after(approved, base)
            variables = dumps({**loads(variables), **results})
        return replace(
            run,
            session=None,
            program=program,
            variables=variables,
            approvals=len(approved),
            location=self._parts.exchange.location,
        )

    # Labels

    def after(
        self, run: ProgramRun, records: Sequence[JournalRecord]
    ) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, dict[str, WireLabels]]:
        """The labels of the fields after the last finished step of a run.

        Only the session knows them, and reports them at the end of its program. So the program runs
        again in a new session, up to that step, and the journal answers its calls. Policies check
        each call again, and no node runs.

        Args:
            run: The run.
            records: Its journal.

        Raises:
            PolicyDenied: If a policy now denies a recorded call.
        """
        parts = self._parts
        journal = read_journal(records, run.session)
        done = max((batch.step for batch in journal.batches), default=0)
        query = replace(
            run,
            variables=dumps(self._variables_up_to(run, done)),
            is_labelled=True,
            begins_at="state" if run.begins_at == "start" else run.begins_at,
        )
        query = self.in_new_session(query, journal.approved)
        answer: ServiceAnswer | PolicyDenied | None = None
        with suppress(ReplayMismatch):  # the run of another graph, whose program is unknown
            answer = (yield from replay(parts.exchange, query, journal, [done])).answer
        if isinstance(answer, PolicyDenied):
            raise answer
        if not isinstance(answer, RunFinished):  # or LangGraph counts an unfinished step
            self._unsent_labels = self.all_labels(records, run)
            return self._unsent_labels
        labels = self.reported(answer.result)
        if journal.refused is not None:  # it quotes arguments
            labels[parts.denials.field] = _join_all(labels.values()).to_wire()
        self._unsent_labels = self._labels_of_unsent(journal, records, run, labels)
        return self.with_other_sessions(records, run.session, labels)

    def with_other_sessions(
        self, records: Iterable[JournalRecord], session: str | None, labels: FieldLabels
    ) -> dict[str, WireLabels]:
        """The labels, with those of results from other sessions.

        The labels of the arguments of their calls are unknown. So all fields get all labels.
        """
        results = [result for result in _results_in(records) if result.session != session]
        if not results:
            return dict(labels)
        self._unsent_labels = self._all_labels(results, labels.values())
        return self._unsent_labels

    def all_labels(
        self, records: Iterable[JournalRecord], run: ProgramRun
    ) -> dict[str, WireLabels]:
        """All labels of a run, for each field; used if the labels per field are unknown."""
        metas = (variable["meta"] for variable in loads(run.variables).values())
        return self._all_labels(_results_in(records), metas)

    def _all_labels(
        self, results: Iterable[CallResult], of_variables: Iterable[WireLabels]
    ) -> dict[str, WireLabels]:
        joined = _join_all(of_variables).join(self._packet_labels)
        for result in results:
            labels = joined.join(Labels.from_wire(result.labels))
            value = loads(result.value)
            joined = self._parts.denials.labels_after(result.tool, value, labels)
        self._packet_labels = joined
        return {name: joined.to_wire() for name in self._parts.spec.channels}

    def _variables_up_to(self, run: ProgramRun, done: int) -> dict[str, Any]:
        """The variables of a run, for a program that stops after a step."""
        # An older graph may have had fewer fields, and a structured program has no start point.
        variables = {**self.variables(self._parts.spec.channels, {}), **loads(run.variables)}
        entry = self._program.entry
        for name, value in (
            (entry.begins, True),
            (entry.start_at, self.first_tokens()),
            (entry.packets, []),
            (entry.came, {}),
        ):
            variables.setdefault(name, {"value": value, "meta": NO_LABELS})
        variables[entry.stop_after] = {"value": done, "meta": NO_LABELS}
        return variables

    def _labels_of_unsent(
        self,
        journal: Journal,
        records: Iterable[JournalRecord],
        run: ProgramRun,
        labels: FieldLabels,
    ) -> dict[str, WireLabels]:
        """The labels of the writes in a step that was edited before it was finished.

        The service does not have these results. So they get all labels of the run, of the nodes,
        and those that the policy adds to results.

        Raises:
            UsageError: If the policy's labels are unknown.
        """
        calls = {call.id for batch in journal.batches for call in batch.calls}
        handles = journal.calls_by_handle
        unsent = [
            result
            for result in _results_in(records)
            if result.session == run.session
            and (result.handle not in handles if result.handle else result.id not in calls)
            and not result.id.startswith(APPROVED)
        ]
        if not unsent:
            return {}
        joined = self._all_labels(unsent, labels.values())
        written = {name for result in unsent for name in self._program.tools[result.tool].writes}
        return {name: meta for name, meta in joined.items() if name in written}

    def reported(self, result: DualLLMResult) -> dict[str, WireLabels]:
        """The labels of the fields, as a run reports them at its end.

        If the service does not report variables, each field has the labels of the whole value.
        """
        whole = (result.labels or Labels()).to_wire()
        snapshot = result.namespace_snapshot or {}
        labels = {
            name: _meta_of(snapshot[variable], name) if variable in snapshot else whole
            for name, variable in self._program.fields.state.items()
        }
        packets = snapshot.get(self._program.packets)
        sent = whole if packets is None else _meta_of(packets, self._program.packets)
        self._packet_labels = _join_all([*labels.values(), sent])
        return labels

    def labels_after_edits(
        self, loop: _compat.PregelLoop, labels: FieldLabels, since: Any = None
    ) -> dict[str, WireLabels]:
        """The labels after edits from outside. By default a new value has no labels."""
        versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
        of_run = _newest_of_run(versions, since)
        self._packet_labels = self._packet_labels.join(
            _join_all(labels.values())
        )  # packets may hold them
        if of_run is not None and not self._parts.keeps_labels:
            newer = (name for name, version in versions.items() if _number(version) > of_run)
            labels = self.without_replaced(labels, newer)
        return {**labels, **self._unsent_labels}

    def without_replaced(
        self, labels: FieldLabels, replaced: Iterable[str]
    ) -> dict[str, WireLabels]:
        """The labels without those of replaced fields. A field that only adds keeps its labels."""
        plans, replaced = self._program.fields.plans, frozenset(replaced)
        return {
            name: meta
            for name, meta in labels.items()
            if not (name in replaced and name in plans and plans[name].kind == "last")
        }

    # Variables

    def variables(self, channels: Channels, labels: FieldLabels) -> dict[str, Any]:
        """The context variables of the fields: name → `{value, meta}`."""
        fields = {name: channels[name] for name in self._parts.spec.channels}
        values = self._parts.tools.initial(fields)
        return {
            variable: {"value": values[variable], "meta": labels.get(name, NO_LABELS)}
            for name, variable in self._program.fields.variables.items()
        }

    def messages(self, channels: Channels) -> list[BaseMessage]:
        """The messages in the fields of a state: they show whether it has earlier turns."""
        available = (channels[name] for name in self._parts.spec.channels)
        values = [channel.get() for channel in available if channel.is_available()]
        lists = [value for value in values if isinstance(value, list)]
        return max(
            ([item for item in items if isinstance(item, BaseMessage)] for items in lists),
            key=len,
            default=[],
        )

    def entry(self, loop: _compat.PregelLoop, *, is_routing: bool) -> dict[str, Any]:
        """The variables with the start point of a run.

        Args:
            loop: LangGraph's loop; its due tasks are the start point.
            is_routing: Whether the routers of START decide it.
        """
        parts, entry = self._parts, self._program.entry
        tasks = [task for task in loop.tasks.values() if task.name in parts.spec.nodes]
        sent = [task for task in tasks if _compat.is_packet(task)]
        packets = [parts.tools.pack(task.name, task.input) for task in sent]
        waiting = _compat.waiting_nodes(loop.channels, parts.spec.nodes)
        pulled = [task.name for task in tasks if task not in sent]
        names = dict.fromkeys((*pulled, *waiting))
        tokens = [self._program.tokens[name] for name in names]
        came = {
            flag: _compat.join_source_has_finished(loop.channels, sources, target, source)
            for ((sources, target), source), flag in self._program.flags.items()
        }
        came |= {flag: True for name, flag in self._program.ready.items() if name in pulled}
        if is_routing:
            [start] = [task for task in loop.tasks.values() if task.name == START]
            tokens += [*self.first_tokens(), *_compat.started_nodes(start, self._program.tokens)]
        values = {
            entry.begins: is_routing,
            entry.start_at: list(dict.fromkeys(tokens)),
            entry.packets: packets,
            entry.came: came,
            entry.stop_after: STEPS_PER_PROGRAM,
        }
        variables = {name: {"value": value, "meta": NO_LABELS} for name, value in values.items()}
        if packets:  # they were made from some fields, and it is unknown from which
            variables[entry.packets]["meta"] = self._packet_labels.to_wire()
        return variables

    def is_usual(self, entry: Mapping[str, Any]) -> bool:
        """Whether a run begins at the targets of START's edges."""
        names = self._program.entry
        is_there = set(entry[names.start_at]["value"]) == set(self.first_tokens())
        return is_there and not entry[names.packets]["value"]

    def begins_at(self, entry: Mapping[str, Any]) -> BeginsAt:
        """The program that a run from a state needs."""
        program = self._program
        receivers = {program.tokens[node] for node in program.receivers}
        sent = {packet["node"] for packet in entry[program.entry.packets]["value"]}
        return "state" if sent <= receivers else "packets"

    def first_tokens(self) -> list[str]:
        """The tokens of the targets of START's edges."""
        spec, tokens = self._parts.spec, self._program.tokens
        return [tokens[to] for source, to in spec.edges if source == START and to in tokens]


# What a thread has stored


def is_edited(loop: _compat.PregelLoop, since: Any = None) -> bool:
    """Whether the state was changed from outside since the last step of a run.

    Args:
        loop: LangGraph's loop.
        since: See `ProgramRun`.
    """
    of_run, newest = (
        _newest_of_run(loop.checkpoint["channel_versions"], since),
        newest_version(loop),
    )
    if of_run is None or (newest is not None and newest > of_run):
        return True
    return since is not None and writes_from_outside(loop) > since[1]


def writes_from_outside(loop: _compat.PregelLoop) -> int:
    """The number of writes that a `Command` has added to an open step; no version shows them."""
    return sum(
        task == _compat.NO_TASK and channel != _compat.ANSWER
        for task, channel, _ in loop.checkpoint_pending_writes
    )


def newest_version(loop: _compat.PregelLoop) -> Any:
    """The newest version of a channel, except the journal, which LangGraph may store again."""
    versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
    numbers = (_number(version) for name, version in versions.items() if name != JOURNAL)
    return max(numbers, default=None)


def _number(version: Any) -> Any:
    """The version of a channel without the random part that some checkpointers add.

    The writes of a `Command` are applied again each time that a run continues, under another random
    part.
    """
    return version.partition(".")[0] if isinstance(version, str) else version


def _newest_of_run(versions: Mapping[str, Any], since: Any) -> Any:
    """The newest version that a run has seen: at its start, or after its last step."""
    seen = (versions.get(STEP), None if since is None else since[0])
    return max((_number(version) for version in seen if version is not None), default=None)


def check_whole(loop: _compat.PregelLoop, run: ProgramRun) -> None:
    """Check that the checkpointer gives back the whole journal of a run.

    Raises:
        UsageError: If it does not.
    """
    record = loop.channels[RUN]
    if not record.is_available() or record.get().get("session") != run.session:
        return  # it began in the step that is open
    batches = [
        record.number
        for record in records_of(loop, run.session)
        if record.session == run.session and isinstance(record, CallBatch)
    ]
    if len(set(batches)) < loop.channels[STEP].get():
        raise UsageError(LOST)


def is_only_begun(loop: _compat.PregelLoop, session: str | None) -> bool:
    """Whether the journal of a session has its beginning, and no call or denial."""
    records = [*records_of(loop, session), *records_of_step(loop)]
    of_session = [record for record in records if record.session == session]
    return bool(of_session) and not any(
        isinstance(record, CallBatch | DeniedCall | Refusal) for record in of_session
    )


def records_of(loop: _compat.PregelLoop, session: str | None) -> list[JournalRecord]:
    """The journal of a session after the last step."""
    channel = loop.channels[JOURNAL]
    return records_of_session(channel.get(), session) if channel.is_available() else []


def records_of_step(loop: _compat.PregelLoop) -> list[JournalRecord]:
    """The driver's journal records of the open step."""
    pending = () if loop.is_replaying else loop.checkpoint_pending_writes
    return [
        read_record(record)
        for task, channel, written in pending
        if channel == JOURNAL and task not in loop.tasks
        for record in written
    ]


def _results_in(records: Iterable[JournalRecord]) -> Iterator[CallResult]:
    return (record for record in records if isinstance(record, CallResult))


def _join_all(labels: Iterable[WireLabels]) -> Labels:
    return reduce(Labels.join, map(Labels.from_wire, labels), Labels())


def _meta_of(variable: Any, name: str) -> WireLabels:
    """The labels of a variable in the service's report; the next run begins with them."""
    meta = variable.get("meta") if isinstance(variable, Mapping) else None
    try:
        return Labels.from_wire(meta, unknown="ignore").to_wire()
    except BadLabels:
        msg = f"The service reports the field `{name}` without valid labels."
        raise BadReply(msg) from None
