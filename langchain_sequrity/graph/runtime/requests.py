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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Literal

import orjson
from langchain_core.messages import BaseMessage, HumanMessage, ToolCall
from langgraph.channels.base import BaseChannel
from langgraph.graph import START

from langchain_sequrity.chat_models.sessions import TurnSettings
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
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.approval import DenialHandler
from langchain_sequrity.graph.dispatch import ClientTools
from langchain_sequrity.graph.journal import (
    APPROVED,
    DeniedCall,
    Journal,
    JournalEntry,
    ProgramCall,
    ProgramRun,
    ReplayMismatch,
    Round,
    entries_of_session,
    entry_for_new_session,
    read_journal,
    result_content,
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
        said: The assistant message as wire text.
        calls: The calls.
        session_id: The session, as the service named it.
        keeps_history: Whether the service said that it keeps the conversation of the session.
    """

    said: str
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
    shown = config.response_format or ResponseFormatConfig()
    shown = shown.model_copy(update={"include_namespace_snapshot": True})
    return replace(connection, config=config.model_copy(update={"response_format": shown}))


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
        under: Hash of policy and features.
        place: Hash of these and of the service.
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
        one = settings.connection
        headers = [head and head.to_header() for head in (one.policy, one.features, one.config)]
        self.under = digest_of(headers[:2])
        self.place = digest_of([one.base_url, one.path, *headers])
        self._wire = settings.wire
        self._is_chat = one.suffix == "chat/completions"
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
        return self.connection.seal(self._params["model"], session_id)

    def next(self, run: ProgramRun, rounds: Sequence[Round]) -> ServiceCall:
        """The request with the results of the last round.

        The transport does not retry it, because the service may have processed it. A process that
        resumes the run sends it again with the same key, and the service gives its stored reply
        (`docs/behaviour.md`, T2).

        Args:
            run: The run, in a session.
            rounds: The replies so far, with all results.

        Raises:
            UsageError: If the conversation is needed, and the checkpointer has lost a part of it.
        """
        results = self._results(rounds[-1])
        body = b'%b,"messages":[%b]}' % (self._short_head, results.encode())
        tells_all = self._tells_all(run)
        mode = "whole:" if tells_all else ""
        # The session has the rest of the conversation, so the key need not cover it.
        text = f"{run.session}:{len(rounds)}:{mode}".encode() + body
        key = hashlib.blake2b(text, digest_size=16).hexdigest()
        if tells_all:
            if rounds[-1].number >= len(rounds):
                raise UsageError(LOST)
            told = [text for one in rounds for text in (one.said, self._results(one))]
            body = self._body(run, [self._words, ",".join(told).encode()])
        connection = self._connection(run)
        return connection.call(body, session_id=run.session_id, resend=False, idempotency_key=key)

    def _tells_all(self, run: ProgramRun) -> bool:
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
        found = self._program.that_begins_at(begins_at)
        tools = [tool.schema() for tool in found.tools.values()]
        body = self._wire.write_request([HumanMessage(_WORDS)], {**self._params, "tools": tools})
        body.pop("messages")
        self._heads[begins_at] = orjson.dumps(body)[:-1], orjson.dumps(found.text)
        return self._heads[begins_at]

    def _results(self, one: Round) -> str:
        """The results of a round as wire text, which is written once."""
        if not one.sent:
            contents = [(call.id, result_content(call, entry)) for call, entry in one.answered]
            one.sent = orjson.dumps(self._wire.write_results(contents))[1:-1].decode()
        return one.sent

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
        if self._is_chat and (plainly := read_calls(reply)) is not None:
            return _asking(*plainly, session, keeps_history=keeps_history)
        facts = {METADATA_KEY: {"session_id": session}}
        message = self._wire.read_reply(reply, lambda _: facts)[0]
        if message.invalid_tool_calls:
            bad = message.invalid_tool_calls[0]
            name, reason = plain(str(bad["name"])), plain(str(bad["error"])).rstrip(".")
            msg = f"The arguments of a call of `{name}` are not a JSON object: {reason}."
            raise BadReply(msg, session_id=session)
        if message.tool_calls:
            body = read_object(reply.body, exact=True)
            if self._is_chat:
                said = body["choices"][0]["message"]
            else:
                said = {"role": "assistant", "content": body["content"]}
            return _asking(said, message.tool_calls, session, keeps_history=keeps_history)
        result = dual_llm_result(
            unwrap_envelope(message, certain=True, told=self.connection.with_author_place)
        )
        if result is None:
            msg = "The reply neither asks for a call nor ends the run."
            raise BadReply(msg, session_id=session)
        return RunFinished(result, session)


def _asking(
    said: Any, given: Sequence[ToolCall], session: str, *, keeps_history: bool
) -> CallsRequested:
    """The calls of a reply, with its message, which must be sent back unchanged.

    A service may compare histories as text; differently written arguments would be another history
    (`docs/behaviour.md`, G9).
    """
    calls = tuple(ProgramCall(call["id"] or "", call["name"], call["args"]) for call in given)
    if len({call.id for call in calls}) < len(calls):
        msg = "The reply asks for several calls with one id."
        raise BadReply(msg, session_id=session)
    return CallsRequested(dumps(said), calls, session, keeps_history)


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
        rounds: The journal's rounds, with the calls of the new session.
        answer: The last answer of the service. If it asks for calls, they are the last round.
    """

    run: ProgramRun
    rounds: list[Round]
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
        The run where the journal ends. Its last round is open, perhaps with some of its results.

    Raises:
        ReplayMismatch: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    rest, rounds = journal.answered, list[Round]()
    step = iter(steps)
    number = next(step)
    answer = yield from send_request(exchange.first(run, session_id))
    run = in_session_of(run, answer, continues=session_id is not None)
    while isinstance(answer, CallsRequested):
        rounds.append(Round(answer.said, answer.calls, step=number))
        for call in answer.calls:
            if rest and not (HANDLE in call.arguments and call.digest != rest[0][0].digest):
                old, entry = rest.pop(0)
                rounds[-1].add_result(
                    {**entry_for_new_session(call, old, entry), "in": run.session}
                )
                number = next(step, number)
            elif (early := journal.early_result(call, run.session)) is not None:
                rounds[-1].add_result(early)
        if not rounds[-1].is_answered:
            break
        try:
            answer = yield from send_request(exchange.next(run, rounds))
        except StatusError as error:
            if not is_session_gone(error, run.session_id):
                raise
            msg = (
                f"The service lost the session while it was rebuilt from the journal ({error}). "
                "Resume the run later; no result is lost."
            )
            raise SessionExpired(msg, session_id=run.session_id) from None
    if rest and isinstance(answer, PolicyDenied):
        raise answer
    if rest:
        msg = (
            f"In a new session the program ends before the call of `{rest[0][0].tool}` that the "
            "journal has: it took another path than in the recorded run. No node has run again. "
            "Start a new run with another `thread_id`."
        )
        raise ReplayMismatch(msg)
    return Replay(run, rounds, answer)


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
        self._sent = Labels()
        self._unasked: dict[str, WireLabels] = {}

    def in_new_session(self, run: ProgramRun, approved: list[DeniedCall]) -> ProgramRun:
        """The run as it begins again in a new session; its program takes results of approved calls.

        Args:
            run: The run. Its variables have no results of approved calls, or those of `approved`.
            approved: Calls that were approved and made.
        """
        here, program, variables = self._parts.exchange, None, run.variables
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
            under=here.under,
            place=here.place,
        )

    # Labels

    def after(
        self, run: ProgramRun, entries: Sequence[JournalEntry]
    ) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, dict[str, WireLabels]]:
        """The labels of the fields after the last finished step of a run.

        Only the session knows them, and reports them at the end of its program. So the program runs
        again in a new session, up to that step, and the journal answers its calls. Policies check
        each call again, and no node runs.

        Args:
            run: The run.
            entries: Its journal.

        Raises:
            PolicyDenied: If a policy now denies a recorded call.
        """
        parts = self._parts
        journal = read_journal(entries, run.session)
        done = max((one.step for one in journal.rounds), default=0)
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
            self._unasked = self.all_labels(entries, run)
            return self._unasked
        labels = self.reported(answer.result)
        if journal.refused is not None:  # it quotes arguments
            labels[parts.denials.field] = _join_all(labels.values()).to_wire()
        self._unasked = self._labels_of_unasked(journal, entries, run, labels)
        return self.with_others(entries, run.session, labels)

    def with_others(
        self, entries: Sequence[JournalEntry], session: str | None, labels: Mapping[str, WireLabels]
    ) -> dict[str, WireLabels]:
        """The labels, with those of results from other sessions.

        The labels of the arguments of their calls are unknown. So all fields get all labels.
        """
        others = [one for one in entries if "result" in one and one.get("in") != session]
        if not others:
            return dict(labels)
        self._unasked = self._all_labels(others, labels.values())
        return self._unasked

    def all_labels(self, entries: Sequence[JournalEntry], run: ProgramRun) -> dict[str, WireLabels]:
        """All labels of a run, for each field; used if the labels per field are unknown."""
        return self._all_labels(entries, (one["meta"] for one in loads(run.variables).values()))

    def _all_labels(
        self, entries: Iterable[JournalEntry], known: Iterable[WireLabels]
    ) -> dict[str, WireLabels]:
        joined = _join_all(known).join(self._sent)
        for one in (entry for entry in entries if "result" in entry):
            labels = joined.join(Labels.from_wire(one["labels"]))
            joined = self._parts.denials.labels_after(one["tool"], loads(one["result"]), labels)
        self._sent = joined
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

    def _labels_of_unasked(
        self,
        journal: Journal,
        entries: Sequence[JournalEntry],
        run: ProgramRun,
        labels: FieldLabels,
    ) -> dict[str, WireLabels]:
        """The labels of the writes in a step that was edited before it was finished.

        The service does not have these results. So they get all labels of the run, of the nodes,
        and those that the policy adds to results.

        Raises:
            UsageError: If the policy's labels are unknown.
        """
        asked = {call.id for one in journal.rounds for call in one.calls}
        own = [one for one in entries if one.get("in") == run.session and "result" in one]
        left = [
            one
            for one in own
            if (one[HANDLE] not in journal.made if HANDLE in one else one["id"] not in asked)
            and not str(one["id"]).startswith(APPROVED)
        ]
        if not left:
            return {}
        joined = self._all_labels(left, labels.values())
        written = {name for one in left for name in self._program.tools[one["tool"]].writes}
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
        self._sent = _join_all([*labels.values(), sent])
        return labels

    def labels_after_edits(
        self, loop: _compat.PregelLoop, labels: FieldLabels, since: Any = None
    ) -> dict[str, WireLabels]:
        """The labels after edits from outside. By default a new value has no labels."""
        versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
        known = _newest_known(versions, since)
        self._sent = self._sent.join(_join_all(labels.values()))  # packets may hold them
        if known is not None and not self._parts.keeps_labels:
            newer = (name for name, version in versions.items() if _number(version) > known)
            labels = self.without_replaced(labels, newer)
        return {**labels, **self._unasked}

    def without_replaced(self, labels: FieldLabels, given: Iterable[str]) -> dict[str, WireLabels]:
        """The labels without those of replaced fields. A field that only adds keeps its labels."""
        plans, replaced = self._program.fields.plans, frozenset(given)
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
        due = [one for one in loop.tasks.values() if one.name in parts.spec.nodes]
        sent = [one for one in due if _compat.is_packet(one)]
        packets = [parts.tools.pack(one.name, one.input) for one in sent]
        waiting = _compat.waiting_nodes(loop.channels, parts.spec.nodes)
        pulled = [one.name for one in due if one not in sent]
        names = dict.fromkeys((*pulled, *waiting))
        tokens = [self._program.tokens[name] for name in names]
        came = {
            flag: _compat.join_source_has_finished(loop.channels, sources, target, source)
            for ((sources, target), source), flag in self._program.flags.items()
        }
        came |= {flag: True for name, flag in self._program.ready.items() if name in pulled}
        if is_routing:
            [start] = [one for one in loop.tasks.values() if one.name == START]
            tokens += [*self.first_tokens(), *_compat.started_nodes(start, self._program.tokens)]
        values = {
            entry.begins: is_routing,
            entry.start_at: list(dict.fromkeys(tokens)),
            entry.packets: packets,
            entry.came: came,
            entry.stop_after: STEPS_PER_PROGRAM,
        }
        found = {name: {"value": value, "meta": NO_LABELS} for name, value in values.items()}
        if packets:  # they were made from some fields, and it is unknown from which
            found[entry.packets]["meta"] = self._sent.to_wire()
        return found

    def is_usual(self, entry: Mapping[str, Any]) -> bool:
        """Whether a run begins at the targets of START's edges."""
        names = self._program.entry
        is_there = set(entry[names.start_at]["value"]) == set(self.first_tokens())
        return is_there and not entry[names.packets]["value"]

    def begins_at(self, entry: Mapping[str, Any]) -> BeginsAt:
        """The program that a run from a state needs."""
        program = self._program
        receivers = {program.tokens[node] for node in program.receivers}
        sent = {one["node"] for one in entry[program.entry.packets]["value"]}
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
    known, newest = _newest_known(loop.checkpoint["channel_versions"], since), newest_version(loop)
    if known is None or (newest is not None and newest > known):
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


def _newest_known(versions: Mapping[str, Any], since: Any) -> Any:
    """The newest version that a run knows."""
    of_run = None if since is None else since[0]
    known = (versions.get(STEP), of_run)
    return max((_number(one) for one in known if one is not None), default=None)


def check_whole(loop: _compat.PregelLoop, run: ProgramRun) -> None:
    """Check that the checkpointer gives back the whole journal of a run.

    Raises:
        UsageError: If it does not.
    """
    record = loop.channels[RUN]
    if not record.is_available() or record.get().get("session") != run.session:
        return  # it began in the step that is open
    own = [one for one in entries_of(loop, run.session) if one.get("in") == run.session]
    if len({one["number"] for one in own if "said" in one}) < loop.channels[STEP].get():
        raise UsageError(LOST)


def has_asked_nothing(loop: _compat.PregelLoop, session: str | None) -> bool:
    """Whether the journal of a session has only its beginning."""
    entries = [*entries_of(loop, session), *journal_entries_of_step(loop)]
    own = [one for one in entries if one.get("in") == session]
    return bool(own) and not any(key in one for one in own for key in ("said", "denied", "refused"))


def entries_of(loop: _compat.PregelLoop, session: str | None) -> list[JournalEntry]:
    """The journal of a session after the last step."""
    channel = loop.channels[JOURNAL]
    return entries_of_session(channel.get(), session) if channel.is_available() else []


def journal_entries_of_step(loop: _compat.PregelLoop) -> list[JournalEntry]:
    """The driver's journal entries of the open step."""
    pending = () if loop.is_replaying else loop.checkpoint_pending_writes
    own = [new for task, channel, new in pending if channel == JOURNAL and task not in loop.tasks]
    return [entry for entries in own for entry in entries]


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
