"""The journal of a run, as plain JSON: its calls, results, denials and approvals.

The journal is a hidden channel of the graph, so a checkpointer stores it with every step. With it,
a run can continue in another process, or in a new session if the service has lost the old one.
Objects that do not become JSON are under `objects`, stored as LangGraph stores a state
(`docs/security.md`, rule 8). The digest of a call ties a result to its call.

| entry | meaning |
|---|---|
| `{number, step, said, calls: [{id, tool, arguments}]}` | a reply that asks for calls |
| `{id, tool, digest, result, labels, combine}` | the result of a call |
| `{denied: {…}, step}` | a call that a policy denied, and that a human may approve |
| `{approved: digest}` | a human approved the call; its result follows |
| `{rejected: digest, objection}` | a human rejected the call |
| `{refused: {…}}` | a denial that ends the run with a state |
| `{reset: session, open?: step}` | a new session began; the entries of older ones no longer count |
| `{objects: {…}}` | objects of the state at the start |

A result may also have `gives` or `handle` (a task beside others), `early` (a router that ran before
its call), `was` (its id in an older session) and `objects`. Each entry has its session under `in`,
but for the reset before the first session. The order does not matter: tasks that run side by side
write entries in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.program import HANDLE, BeginsAt
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.sqrt.gate import call_digest
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.tool_results import write_labeled

JournalEntry = dict[str, Any]


class ReplayMismatch(BadReply):
    """A replayed program asks for other calls than the recorded ones."""


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A call that the service asked for.

    Attributes:
        id: Its id.
        tool: Name of the tool.
        arguments: Its arguments, which the node gets.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of tool and arguments."""
        return call_digest(self.tool, self.arguments)


def result_entry(
    call: ProgramCall, wire: Mapping[str, Any], labels: Labels, combine: Combine = "merge"
) -> JournalEntry:
    """The entry of a result.

    Args:
        call: The call that it answers.
        wire: The result.
        labels: Its labels.
        combine: How they combine with those of the arguments.
    """
    return {
        "id": call.id,
        "tool": call.tool,
        "digest": call.digest,
        "result": dumps(wire),
        "labels": labels.to_wire(),
        "combine": combine,
    }


def entry_for_call(call: ProgramCall, entry: JournalEntry, session: str | None) -> JournalEntry:
    """The entry of a result, for the call of another session or of another name.

    Args:
        call: The call that it now answers.
        entry: The result, from a node's cache or of a handle.
        session: The session of the call.
    """
    found = {key: one for key, one in entry.items() if key != HANDLE}
    own = {"id": call.id, "tool": call.tool, "digest": call.digest, "in": session}
    return {**found, **own, "was": entry["id"]}


def entry_for_new_session(call: ProgramCall, old: ProgramCall, entry: JournalEntry) -> JournalEntry:
    """The entry of a result, for the same call in another session.

    Args:
        call: The call in the new session.
        old: The recorded call.
        entry: The result.

    Raises:
        ReplayMismatch: If the calls differ.
    """
    if call.tool != old.tool or call.digest != old.digest:
        other = "with other arguments than" if call.tool == old.tool else f"instead of `{old.tool}`"
        msg = (
            f"In a new session the program asks for `{call.tool}` {other} in the journal: it took "
            "another path than in the recorded run. No node has run again. Start a new run with "
            "another `thread_id`."
        )
        raise ReplayMismatch(msg)
    check_answers(entry, old)
    return {**entry, "id": call.id, "digest": call.digest}


def result_content(call: ProgramCall, entry: JournalEntry) -> str:
    """The content of a result as wire text, with its labels.

    Raises:
        BadReply: If it is the result of another call.
    """
    check_answers(entry, call)
    return write_labeled(entry["result"], Labels.from_wire(entry["labels"]), entry["combine"])


def check_answers(entry: JournalEntry, call: ProgramCall) -> None:
    """Check that a result belongs to a call: their digests are equal. Their ids may differ."""
    if entry["tool"] != call.tool or entry["digest"] != call.digest:
        msg = f"The journal has the result of another call in the place of that of `{call.tool}`."
        raise BadReply(msg)


APPROVED = "approved:"
"""Prefix of the id of an approved call."""

GIVES = "gives"
"""Key of an entry: the handle that was the first answer to a call."""

EARLY = "early"
"""Key of an entry: the place of a router's result that precedes its call."""

OBJECTS = "objects"
"""Key of an entry: the objects behind the handles in it, or in the state at the start."""


@dataclass(slots=True)
class Round:
    """A reply that asks for calls, and the results so far.

    Attributes:
        said: The assistant message as wire text.
        calls: The calls.
        results: Their results so far, by id.
        sent: The results as wire text, once they are sent.
        step: The graph's step of the calls, counted from 1; 0 for the routers of START.
        number: Its index among the replies.
    """

    said: str
    calls: tuple[ProgramCall, ...]
    results: dict[str, JournalEntry] = field(default_factory=dict)
    sent: str = ""
    step: int = 0
    number: int = 0

    @property
    def answered(self) -> list[tuple[ProgramCall, JournalEntry]]:
        """The calls with a result, and the results."""
        return [(one, self.results[one.id]) for one in self.calls if one.id in self.results]

    @property
    def is_answered(self) -> bool:
        """Whether all calls have a result."""
        return len(self.results) == len(self.calls)

    @property
    def waiting(self) -> list[ProgramCall]:
        """The calls without a result."""
        return [one for one in self.calls if one.id not in self.results]

    def entries(self) -> list[JournalEntry]:
        """The journal entries of the round."""
        asked = [{"id": one.id, "tool": one.tool, "arguments": one.arguments} for one in self.calls]
        place = {"step": self.step, "number": self.number}
        results = [{**entry, "step": self.step} for _, entry in self.answered]
        return [{"said": self.said, "calls": asked, **place}, *results]

    def add_result(self, entry: JournalEntry) -> ProgramCall | None:
        """Add a result. Returns its call, or `None` if the call is not in this round."""
        call = next((one for one in self.calls if one.id == entry["id"]), None)
        if call is not None:
            self.results[call.id] = entry
        return call


@dataclass(slots=True)
class DeniedCall:
    """A call that a policy denied softly, and a human's decision about it.

    Attributes:
        denial: The denial, with the arguments as the service would have sent them.
        index: Its number among the program's calls of this tool, from 1.
        digest: Hash of the call, the policy and the program. An approval is for this hash.
        step: The graph's step of the call, as in `Round`.
        is_approved: Whether a human approved it.
        objection: The objection of a human who rejected it.
        result: The result of the approved call.
    """

    denial: Denial
    index: int
    digest: str
    step: int
    is_approved: bool = False
    objection: str | None = None
    result: JournalEntry | None = None

    @property
    def tool(self) -> str:
        """The tool."""
        return self.denial.tool or ""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The call's arguments."""
        return self.denial.arguments or {}

    @property
    def labels(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """The labels of each argument."""
        return self.denial.labels or {}

    @property
    def call(self) -> ProgramCall:
        """The call as the client makes it."""
        return ProgramCall(f"{APPROVED}{self.digest}", self.tool, dict(self.arguments))

    def entries(self) -> list[JournalEntry]:
        """The journal entries of the denial."""
        written = {"denial": self.denial.to_json(), "index": self.index, "digest": self.digest}
        approved = [{"approved": self.digest}] if self.is_approved else []
        return [
            {"denied": written, "step": self.step},
            *approved,
            *([self.result] if self.result else []),
        ]


@dataclass(slots=True)
class Journal:
    """A parsed journal.

    Attributes:
        rounds: Replies that ask for calls.
        denials: Denied calls that are offered for approval, in order.
        refused: Facts of a denial that ended the run.
        handles: Handle → result of the call that was first answered with the handle.
        made: Handle → that call.
        early: Place → result of a router that precedes its call.
        asked: Places of routers that the service has called since.
        objects: Handle → object of the initial state.
    """

    rounds: list[Round] = field(default_factory=list)
    denials: list[DeniedCall] = field(default_factory=list)
    refused: dict[str, Any] | None = None
    handles: dict[str, JournalEntry] = field(default_factory=dict)
    made: dict[str, ProgramCall] = field(default_factory=dict)
    early: dict[str, JournalEntry] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    objects: dict[str, Any] = field(default_factory=dict)

    def add_result(self, entry: JournalEntry) -> None:
        """Add a result. A result without a call is dropped."""
        if HANDLE in entry:  # for the later call of `result_of`
            self.handles[entry[HANDLE]] = entry
            return
        if EARLY in entry:
            self._take_early(entry)
            if entry["id"] == entry[EARLY]:
                return
        for denial in self.denials:
            if denial.is_approved and denial.call.id == entry["id"]:
                denial.result = entry
                return
        for one in reversed(self.rounds):
            if (call := one.add_result(entry)) is not None:
                if GIVES in entry:
                    self.made[entry[GIVES]] = call
                return

    def result_of_handle(self, call: ProgramCall, session: str | None) -> JournalEntry | None:
        """The result behind the handle that a call names, for that call; `None` if it is missing.

        Raises:
            BadReply: If the result belongs to another call than the handle.
        """
        handle = str(call.arguments.get(HANDLE))
        found, made = self.handles.get(handle), self.made.get(handle)
        if found is None or made is None:
            return None
        check_answers(found, made)
        return entry_for_call(call, found, session)

    def early_result(self, call: ProgramCall, session: str | None) -> JournalEntry | None:
        """The result that precedes a call, if there is one. It is used once."""
        found = self.result_of_handle(call, session) or self.result_of_router(call, session)
        if found is not None and EARLY in found:
            self._take_early(found)
        return found

    def _take_early(self, entry: JournalEntry) -> None:
        """Keep a router's result until the service calls the router. It is used once."""
        place = entry[EARLY]
        if entry["id"] != place:
            self.asked.add(place)
        if place in self.asked:
            self.early.pop(place, None)
        else:
            self.early[place] = entry

    def result_of_router(self, call: ProgramCall, session: str | None) -> JournalEntry | None:
        """The first result of a router that precedes its call, for that call."""
        places = [place for place, one in self.early.items() if one["tool"] == call.tool]
        return entry_for_call(call, self.early[min(places)], session) if places else None

    def add(self, one: Round) -> None:
        """Add a reply, with the results that it has in a new session."""
        one.number = len(self.rounds)
        self.rounds.append(one)
        self.made |= {entry[GIVES]: call for call, entry in one.answered if GIVES in entry}

    @property
    def answered(self) -> list[tuple[ProgramCall, JournalEntry]]:
        """All calls of the program with their results, without approved calls."""
        return [pair for one in self.rounds for pair in one.answered]

    @property
    def approved(self) -> list[DeniedCall]:
        """The denied calls that were approved and made."""
        return [one for one in self.denials if one.is_approved and one.result is not None]

    @property
    def approved_ids(self) -> set[str]:
        """The ids of these calls."""
        return {denied.call.id for denied in self.approved}

    def calls_of(self, tool: str) -> int:
        """The number of the program's calls of a tool."""
        called = sum(call.tool == tool for call, _ in self.answered)
        return called + sum(one.tool == tool for one in self.approved)

    def entries(self) -> list[JournalEntry]:
        """The journal as entries."""
        found = [entry for one in self.denials for entry in one.entries()]
        found += [*self.handles.values(), *self.early.values()]
        found += [{OBJECTS: self.objects}] if self.objects else []
        return found + [entry for one in self.rounds for entry in one.entries()]


def read_journal(entries: Sequence[JournalEntry], session: str | None) -> Journal:
    """Read a journal.

    Args:
        entries: Its entries, in any order. After a crash, some may occur twice.
        session: The current session.

    Raises:
        BadReply: If this package cannot have written it.
    """
    own = [one for one in entries if one.get("in") == session]
    journal, results = Journal(_rounds(own)), list[JournalEntry]()
    for entry in own:
        if "denied" in entry:
            _add_denial(journal, entry["denied"], entry["step"])
        elif "refused" in entry:
            journal.refused = entry["refused"]
        elif "digest" in entry:
            results.append(entry)
        elif OBJECTS in entry:
            journal.objects |= entry[OBJECTS]
    for entry in own:
        if "approved" in entry:
            _denied_call_of(journal, entry["approved"]).is_approved = True
        elif "rejected" in entry:
            _denied_call_of(journal, entry["rejected"]).objection = entry["objection"]
    for entry in results:
        journal.add_result(entry)
    return journal


def whole_steps(entries: Sequence[JournalEntry], session: str | None) -> list[JournalEntry]:
    """The entries of finished steps, from those written since the last checkpoint.

    Args:
        entries: Entries that were written in the open step.
        session: The session. If it did not begin in that step, there are none.
    """
    own = [one for one in entries if one.get("in") == session]
    begun = [one["open"] for one in own if "open" in one]
    if not begun:
        return []
    # Entries that a task wrote itself have no step: they belong to the open one.
    is_over = (one.get("step", begun[-1]) < begun[-1] for one in own)
    return [one for one, over in zip(own, is_over, strict=True) if over or not _is_of_step(one)]


def _is_of_step(entry: JournalEntry) -> bool:
    return "said" in entry or ("result" in entry and HANDLE not in entry and EARLY not in entry)


def _add_denial(journal: Journal, kept: Mapping[str, Any], step: int) -> None:
    if all(one.digest != kept["digest"] for one in journal.denials):
        denial = Denial.from_json(kept["denial"])
        journal.denials.append(DeniedCall(denial, kept["index"], kept["digest"], step))


def _rounds(entries: Sequence[JournalEntry]) -> list[Round]:
    asked = {one["number"]: one for one in entries if "said" in one}
    return [
        Round(
            one["said"],
            tuple(ProgramCall(**call) for call in one["calls"]),
            step=one["step"],
            number=number,
        )
        for number, one in sorted(asked.items())
    ]


def add_entries(
    entries: list[JournalEntry], batch: Sequence[list[JournalEntry]]
) -> list[JournalEntry]:
    """The reducer of the channel: adds entries, and drops old sessions when a new one begins.

    LangGraph rebuilds the channel from the writes that are stored with earlier checkpoints. Several
    runs may have continued from one checkpoint, each in its own session, and their writes are in
    one batch, in any order. Another channel says which run this state belongs to
    (`entries_of_session`). So the entries of all new sessions and of the last one are kept.
    """
    new = [entry for one in batch for entry in one]
    if not any("reset" in one for one in new):
        return [*entries, *new]
    resets = [place for place, one in enumerate(entries) if "reset" in one]
    recent = entries[resets[-1] if resets else 0 :]
    kept = {one.get("in", "") for one in (*recent, *new)}
    return [*(one for one in entries if one.get("in", "") in kept), *new]


def entries_of_session(entries: Sequence[JournalEntry], session: str | None) -> list[JournalEntry]:
    """The entries that count if a session was the last one.

    Results of other sessions can come later, if LangGraph applied them without the driver, as after
    `update_state(None, as_node=END)`. They are kept until this session has them too.

    Args:
        entries: The content of the channel.
        session: The session; `None` if there was none.
    """
    begun = [place for place, one in enumerate(entries) if one.get("reset") == (session or "")]
    told = {one["was"] for one in entries if "was" in one}
    return [
        one
        for place, one in enumerate(entries)
        if one.get("in") == session
        or (place >= (begun[-1] if begun else 0) and "result" in one and one["id"] not in told)
    ]


def _denied_call_of(journal: Journal, digest: str) -> DeniedCall:
    for denial in journal.denials:
        if denial.digest == digest:
            return denial
    msg = "The journal has an approval of a call that was not denied."
    raise BadReply(msg)


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A run of the program, as the channel stores it.

    Attributes:
        session: The key of its entries in the journal: the id of its session, and a mark of its own
            if the session had an earlier turn.
        variables: The context variables as JSON text.
        program: The program, if it differs from the graph's: it takes approved results.
        approvals: The number of approved results that it takes.
        is_labelled: Whether the service reports the labels of the fields at the end.
        under: Hash of policy and features, which allowed the waiting calls.
        place: Hash of these and of the service: the location of the session.
        begins_at: The start point, which selects the program.
        keeps_history: Whether the service said that it keeps the conversation of the session.
        since: At the start: the newest version of a channel, and the number of writes from outside.
        is_over: Whether the program no longer has the state, because an input came beside it.
        number: Its number among the records of an open step, which checkpointers give back in any
            order.
    """

    session: str | None
    variables: str
    program: str | None = None
    approvals: int = 0
    is_labelled: bool = False
    under: str = ""
    place: str = ""
    begins_at: BeginsAt = "start"
    keeps_history: bool = False
    since: Any = None
    is_over: bool = False
    number: int = 0

    @property
    def session_id(self) -> str | None:
        """The session."""
        return session_id_of(self.session)

    @property
    def continues_session(self) -> bool:
        """Whether the session had an earlier turn."""
        return self.session is not None and _TURN in self.session

    def in_session(
        self, session_id: str | None, *, continues: bool, keeps_history: bool
    ) -> "ProgramRun":
        """The run with its session.

        Args:
            session_id: The session.
            continues: Whether the session had an earlier turn.
            keeps_history: As for the attribute.
        """
        mark = f"{_TURN}{uuid4().hex[:12]}" if continues else ""
        session = session_id and f"{session_id}{mark}"
        return replace(self, session=session, keeps_history=keeps_history)


def session_id_of(key: str | None) -> str | None:
    """The session in the key of a run's entries; see `ProgramRun.session`."""
    return None if key is None else key.partition(_TURN)[0]


_TURN = "\n"
"""Begins the mark of a turn. It cannot be in the id of a session, which is a header."""
