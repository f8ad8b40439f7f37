"""Initial state of a run, the labels of its fields, and how a lost session is rebuilt.

It is what is done when the service has lost a session, and after a human approved a call. Policies
check every call again and the session gets its labels again; the user's code does not run again.

A run begins with an input, or with a state that the service did not make: one that somebody edited,
one that an older run or the plain graph has left. Its fields are context variables of the program.
What is known of their labels comes from the end of a run; within one, only its session knows.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langgraph.channels.base import BaseChannel
from langgraph.graph import START

from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    SessionExpired,
    StatusError,
    UsageError,
)
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.approval import Approvals, Denials
from langchain_sequrity.graph.dispatch.tools import ClientTools
from langchain_sequrity.graph.journal import (
    APPROVED,
    AnotherWay,
    Asked,
    Entry,
    Journal,
    Round,
    Run,
    again,
    entries_of_session,
    read_journal,
)
from langchain_sequrity.graph.program import HANDLE, JOURNAL, RUN, STEP, BeginsAt, Program
from langchain_sequrity.graph.runtime.requests import Answer, Asking, Ended, Exchange
from langchain_sequrity.labels import BadLabels, Labels
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.dual_llm import DualLLMResult
from langchain_sequrity.wire.error_body import is_session_gone
from langchain_sequrity.wire.exchange import Call

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport

Asks = Generator[tuple[Call, str | None], Answer, "Answer | PolicyDenied"]
"""Yields a request and the session that it names, takes the answer, returns what came of it."""


def ask(call: Call) -> Asks:
    """Send a request; a denial is an answer here."""
    try:
        return (yield call, call.session_id)
    except PolicyDenied as denied:
        return denied


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run in a new session.

    Attributes:
        run: The run.
        rounds: The journal's rounds as the new session asked for them.
        answer: What the service said last. If it asks for calls, they are the last round.
    """

    run: Run
    rounds: list[Round]
    answer: Answer | PolicyDenied


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a journal has for a new session.

    Attributes:
        calls: The calls that have results, in their order.
        steps: The step of each, and then the one after them.
        kept: Gives the result of a call that was there before it was asked for, for a session.
    """

    calls: Sequence[tuple[Asked, Entry]]
    steps: Sequence[int]
    kept: Callable[[Asked, str | None], Entry | None]


def replay(
    exchange: Exchange, run: Run, recorded: Recorded
) -> Generator[tuple[Call, str | None], Answer, Replayed]:
    """Start a run again and answer its calls from the journal.

    Args:
        exchange: Writes requests and reads replies.
        run: The run; its old session is not used.
        recorded: What the journal has.

    Yields:
        Requests.

    Returns:
        The run where the journal ends. Its last round is open, perhaps with some of its results.

    Raises:
        AnotherWay: If the program asks for other calls than the recorded ones.
        PolicyDenied: If a policy denies what it allowed when it was recorded.
        SessionExpired: If the new session is lost as well.
    """
    rest, rounds, results = list(recorded.calls), list[Round](), ""
    step = iter(recorded.steps)
    number = next(step)
    answer = yield from ask(exchange.first(run))
    while isinstance(answer, Asking):
        run = run.within(answer.session_id)
        heard = results if exchange.tells_all else ""
        rounds.append(Round(answer.said, answer.calls, heard=heard, step=number))
        for call in answer.calls:
            if rest and not (HANDLE in call.arguments and call.digest != rest[0][0].digest):
                old, entry = rest.pop(0)
                rounds[-1].take({**again(call, old, entry), "in": answer.session_id})
                number = next(step, number)
            elif (kept := recorded.kept(call, answer.session_id)) is not None:
                rounds[-1].take(kept)
        if not rounds[-1].is_answered:
            break
        results = exchange.results(rounds[-1])
        try:
            told = exchange.told(rounds) if exchange.tells_all else ()
            answer = yield from ask(exchange.next(run, told, results, len(rounds)))
        except StatusError as error:
            if not is_session_gone(error, run.session):
                raise
            msg = (
                f"The service forgot the session while it was rebuilt from the journal ({error}). "
                "Resume the run later; nothing is lost."
            )
            raise SessionExpired(msg, session_id=run.session) from None
    if rest:
        raise _early(answer, rest[0][0])
    return Replayed(run, rounds, answer)


def _early(answer: Answer | PolicyDenied, call: Asked) -> Exception:
    if isinstance(answer, PolicyDenied):
        return answer
    msg = (
        f"In a new session the program ends before the call of `{call.tool}` that the journal has: "
        "it took another way than when it was recorded. Nothing was run again. Start the run "
        "afresh, with another `thread_id`."
    )
    return AnotherWay(msg)


MOST_STEPS = 10_000
"""How many steps a program takes; then a new one goes on from where it stopped."""

Meta = dict[str, list[str]]
FieldLabels = Mapping[str, Meta]
Channels = Mapping[str, BaseChannel[Any, Any, Any]]

NO_LABELS = Labels().to_wire()
LOST = (
    "The checkpointer gives back a run without what happened in it: it keeps only the newest "
    "checkpoint of a thread. Use one that keeps all of them, as those for memory, SQLite and "
    "Postgres do. Start the run afresh, with another `thread_id`."
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs of an executor have in common.

    Attributes:
        keeps_labels: Whether a field keeps the labels of its old value when somebody edits it.
    """

    spec: GraphSpec
    program: Program
    tools: ClientTools
    exchange: Exchange
    transport: "Callable[[], Transport]"
    approvals: Approvals
    denials: Denials
    name: str
    keeps_labels: bool = False


class States:
    """Makes the variables with which runs begin.

    Args:
        parts: What all runs of the executor have in common.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._program = parts.program
        self._sent = Labels()
        self._unasked: dict[str, Meta] = {}

    # Labels

    def after(
        self, run: Run, entries: Sequence[Entry]
    ) -> Generator[tuple[Call, str | None], Answer, dict[str, Meta]]:
        """The labels of the fields after the last step that a run has done.

        Only the session knows them, and tells them at the end of its program. So the program is
        run again in a new one, up to that step, and the journal answers its calls: policies see
        each again, and no node runs.

        Args:
            run: The run.
            entries: Its journal.

        Raises:
            PolicyDenied: If a policy denies now what it allowed when it was recorded.
        """
        parts = self._parts
        journal = read_journal(entries, run.session)
        done = max((one.step for one in journal.rounds), default=0)
        text, variables = None, self._variables_up_to(run, done)
        place: BeginsAt = "state" if run.begins_at == "start" else run.begins_at
        if journal.approved:
            base = self._program.that_begins_at(place).text
            text, results = parts.approvals.program_after(journal.approved, base)
            variables |= results
        query = replace(
            run,
            session=None,
            program=text,
            variables=dumps(variables),
            is_labelled=True,
            begins_at=place,
            under=parts.exchange.under,
            place=parts.exchange.place,
        )
        recorded = Recorded(journal.answered, [done], journal.kept)
        try:
            found = yield from replay(parts.exchange, query, recorded)
        except AnotherWay:  # it was the run of another graph, whose program nobody has
            self._unasked = self.all_labels(entries, run)
            return self._unasked
        if isinstance(found.answer, PolicyDenied):
            raise found.answer
        if not isinstance(found.answer, Ended):  # LangGraph counts a step that was left half way
            self._unasked = self.all_labels(entries, run)
            return self._unasked
        labels = self.reported(found.answer.result)
        if journal.refused is not None:  # it quotes arguments
            labels[parts.denials.field] = _joined(labels.values()).to_wire()
        self._unasked = self._labels_of_unasked(journal, entries, run, labels)
        return self.with_others(entries, run.session, labels)

    def with_others(
        self, entries: Sequence[Entry], session: str | None, labels: Mapping[str, Meta]
    ) -> dict[str, Meta]:
        """The labels with those of results that are not of the session.

        Nobody knows what their calls were labelled with. So all fields have all labels.
        """
        others = [one for one in entries if "result" in one and one.get("in") != session]
        if not others:
            return dict(labels)
        self._unasked = self._all_labels(others, labels.values())
        return self._unasked

    def all_labels(self, entries: Sequence[Entry], run: Run) -> dict[str, Meta]:
        """All labels that there are in a run, for each field: where nobody knows more."""
        return self._all_labels(entries, (one["meta"] for one in loads(run.variables).values()))

    def _all_labels(self, entries: Iterable[Entry], known: Iterable[Meta]) -> dict[str, Meta]:
        joined = _joined(known).join(self._sent)
        for one in (entry for entry in entries if "result" in entry):
            labels = joined.join(Labels.from_wire(one["labels"]))
            joined = self._parts.approvals.after(one["tool"], loads(one["result"]), labels)
        self._sent = joined
        return {name: joined.to_wire() for name in self._parts.spec.channels}

    def _variables_up_to(self, run: Run, done: int) -> dict[str, Any]:
        """The variables of a run, for a program that stops after a step."""
        # An older graph may have had fewer fields, and a straight program has no entry.
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
        self, journal: Journal, entries: Sequence[Entry], run: Run, labels: FieldLabels
    ) -> dict[str, Meta]:
        """The labels of what tasks wrote in a step that was left, and edited, half way.

        The service has not been told of these results. So they have the labels of all that there
        was, of the nodes, and what the policy adds to results.

        Raises:
            UsageError: If that is not known.
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

    def reported(self, result: DualLLMResult) -> dict[str, Meta]:
        """The labels of the fields, as a run tells them at its end.

        Where the service does not report variables, each field has the labels of the whole value.
        """
        whole = (result.labels or Labels()).to_wire()
        snapshot = result.namespace_snapshot or {}
        labels = {
            name: _meta_of(snapshot[variable], name) if variable in snapshot else whole
            for name, variable in self._program.state.items()
        }
        packets = snapshot.get(self._program.packets)
        sent = whole if packets is None else _meta_of(packets, self._program.packets)
        self._sent = _joined([*labels.values(), sent])
        return labels

    def edited(
        self, loop: _compat.PregelLoop, labels: FieldLabels, since: Any = None
    ) -> dict[str, Meta]:
        """The labels after edits from outside: what replaced a value has none by default."""
        versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
        known = _known(versions, since)
        fields = [
            name
            for name in self._parts.spec.channels
            if known is not None and name in versions and versions[name] > known
        ]
        self._sent = self._sent.join(_joined(labels.values()))  # of packets that were sent before
        replaced = [] if self._parts.keeps_labels else fields
        rest = self.without(labels, [name for name in replaced if name not in self._unasked])
        return {**rest, **self._unasked}

    def without(self, labels: FieldLabels, given: Iterable[str]) -> dict[str, Meta]:
        """The labels without those of fields whose value was replaced; a sum joins with it."""
        plans, replaced = self._program.plans, frozenset(given)
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
            for name, variable in self._program.variables.items()
        }

    def entry(self, loop: _compat.PregelLoop, *, is_routing: bool) -> dict[str, Any]:
        """The variables that say where a run begins.

        Args:
            loop: LangGraph's loop; what it has due is where the run begins.
            is_routing: Whether the routers behind START decide that.
        """
        parts, entry = self._parts, self._program.entry
        due = [one for one in loop.tasks.values() if one.name in parts.spec.nodes]
        sent = [one for one in due if _compat.is_packet(one)]
        packets = [parts.tools.pack(one.name, _compat.input_of(one)) for one in sent]
        waiting = _compat.waiting_nodes(loop.channels, parts.spec.nodes)
        pulled = [one.name for one in due if one not in sent]
        names = dict.fromkeys((*pulled, *waiting))
        tokens = [self._program.tokens[name] for name in names]
        came = {
            flag: _compat.has_come(loop.channels, sources, target, source)
            for ((sources, target), source), flag in self._program.flags.items()
        }
        came |= {flag: True for name, flag in self._program.ready.items() if name in pulled}
        if is_routing:
            [start] = [one for one in loop.tasks.values() if one.name == START]
            tokens += [*self.first_tokens(), *_compat.nodes_named(start, self._program.tokens)]
        values = {
            entry.begins: is_routing,
            entry.start_at: list(dict.fromkeys(tokens)),
            entry.packets: packets,
            entry.came: came,
            entry.stop_after: MOST_STEPS,
        }
        found = {name: {"value": value, "meta": NO_LABELS} for name, value in values.items()}
        if packets:  # they were made of some fields, and nobody knows of which
            found[entry.packets]["meta"] = self._sent.to_wire()
        return found

    def is_usual(self, entry: Mapping[str, Any]) -> bool:
        """Whether a run begins where the edges from START lead."""
        names = self._program.entry
        is_there = set(entry[names.start_at]["value"]) == set(self.first_tokens())
        return is_there and not entry[names.packets]["value"]

    def place_of(self, entry: Mapping[str, Any]) -> BeginsAt:
        """Which program a run from a state needs."""
        program = self._program
        receivers = {program.tokens[node] for node in program.receivers}
        sent = {one["node"] for one in entry[program.entry.packets]["value"]}
        return "state" if sent <= receivers else "packets"

    def first_tokens(self) -> list[str]:
        """The tokens of the nodes to which edges from START lead."""
        spec, tokens = self._parts.spec, self._program.tokens
        return [tokens[to] for source, to in spec.edges if source == START and to in tokens]


def is_edited(loop: _compat.PregelLoop, since: Any = None) -> bool:
    """Whether something else than a step of a run has changed the state since the last one.

    Args:
        loop: LangGraph's loop.
        since: See `Run`.
    """
    known, newest = _known(loop.checkpoint["channel_versions"], since), newest_version(loop)
    if known is None or (newest is not None and newest > known):
        return True
    return since is not None and writes_from_outside(loop) > since[1]


def writes_from_outside(loop: _compat.PregelLoop) -> int:
    """How many writes a `Command` has added to a step that is open; they make nothing newer."""
    return sum(
        task == _compat.NO_TASK and channel != _compat.ANSWER
        for task, channel, _ in loop.checkpoint_pending_writes
    )


def newest_version(loop: _compat.PregelLoop) -> Any:
    """The newest version of a channel; LangGraph makes the journal newer where it stores all."""
    versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
    return max((one for name, one in versions.items() if name != JOURNAL), default=None)


def _known(versions: Mapping[str, Any], since: Any) -> Any:
    """The newest version that a run knows."""
    of_run = None if since is None else since[0]
    return max((one for one in (versions.get(STEP), of_run) if one is not None), default=None)


def check_whole(loop: _compat.PregelLoop, run: Run) -> None:
    """Check that the checkpointer gives back all that happened in the steps of a run.

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
    """Whether a session is in the journal with its beginning alone."""
    entries = [*entries_of(loop, session), *noted_in(loop)]
    own = [one for one in entries if one.get("in") == session]
    return bool(own) and not any(key in one for one in own for key in ("said", "denied", "refused"))


def entries_of(loop: _compat.PregelLoop, session: str | None) -> list[Entry]:
    """The journal of a session as the last step has left it."""
    channel = loop.channels[JOURNAL]
    return entries_of_session(channel.get(), session) if channel.is_available() else []


def noted_in(loop: _compat.PregelLoop) -> list[Entry]:
    """What the driver noted in the step that is open."""
    pending = () if loop.is_replaying else loop.checkpoint_pending_writes
    own = [new for task, channel, new in pending if channel == JOURNAL and task not in loop.tasks]
    return [entry for entries in own for entry in entries]


def _joined(labels: Iterable[Meta]) -> Labels:
    joined = Labels()
    for meta in labels:
        joined = joined.join(Labels.from_wire(meta))
    return joined


def _meta_of(variable: Any, name: str) -> Meta:
    """The labels of a variable in the service's report; the next run is begun with them."""
    meta = variable.get("meta") if isinstance(variable, Mapping) else None
    try:
        return Labels.from_wire(meta, unknown="ignore").to_wire()
    except BadLabels:
        msg = f"The service reports the field `{name}` without labels that it could have."
        raise BadReply(msg) from None
