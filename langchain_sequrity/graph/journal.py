"""The journal of a run, as plain JSON: calls asked for, answered, denied and approved.

The journal is a hidden channel of the graph, so a checkpointer stores it with every step. It is all
that is needed to go on in another process, or in a new session where the service lost the old one.
Objects without a form stand beside it under `objects`, stored as LangGraph stores a state
(`docs/security.md`, rule 8); the digest of a call ties its result to what was asked.

| entry | says |
|---|---|
| `{number, step, said, calls: [{id, tool, arguments}], heard?}` | a reply that asked for calls |
| `{id, tool, digest, result, labels, combine}` | the result of one |
| `{denied: {…}}` | a call that a policy denied, and that a human may approve |
| `{approved: digest}` | that a human did; the result of the call follows |
| `{rejected: digest, objection}` | that a human did not |
| `{refused: {…}}` | a denial that ends the run with a state |
| `{reset: session}` | that the session is new, and what others did counts no more |

Each has the session it belongs to under `in`. Their order does not matter: tasks that run side by
side write them in any.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.program import HANDLE, BeginsAt
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.tools import write_labeled

Entry = dict[str, Any]


class AnotherWay(BadReply):
    """A program that was run again asks for other calls than when it was recorded."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the service asked for.

    Attributes:
        id: Its id.
        tool: Name of the tool.
        arguments: Its arguments; they are authoritative.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Tells this call from every other with another tool or other arguments."""
        return digest_of([self.tool, self.arguments])


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits
        text = dumps(_sorted(value)).encode()
    return hashlib.sha256(text).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value


def asked_entry(said: str, calls: Iterable[Asked], heard: str = "") -> Entry:
    """The entry of a reply that asks for calls.

    Args:
        said: The assistant message as the wire has it.
        calls: What it asks for.
        heard: The results that it followed as the wire has them, if that is kept.
    """
    asked = [{"id": one.id, "tool": one.tool, "arguments": one.arguments} for one in calls]
    return {"said": said, "calls": asked, **({"heard": heard} if heard else {})}


def result_entry(
    call: Asked, wire: Mapping[str, Any], labels: Labels, combine: Combine = "merge"
) -> Entry:
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


def retagged(call: Asked, entry: Entry, session: str | None) -> Entry:
    """The entry of a result, for the call of another session or of another name.

    Args:
        call: The call that it is to answer.
        entry: The result, of a node's cache or of a handle.
        session: The session of the call.
    """
    found = {key: one for key, one in entry.items() if key != HANDLE}
    own = {"id": call.id, "tool": call.tool, "digest": call.digest, "in": session}
    return {**found, **own, "was": entry["id"]}


def again(call: Asked, old: Asked, entry: Entry) -> Entry:
    """The entry of a result, for the same call in another session.

    Args:
        call: The call as the new session asks for it.
        old: The call that the result answered.
        entry: The result.

    Raises:
        AnotherWay: If they are different calls.
    """
    if call.tool != old.tool or call.digest != old.digest:
        other = "with other arguments than" if call.tool == old.tool else f"instead of `{old.tool}`"
        msg = (
            f"In a new session the program asks for `{call.tool}` {other} in the journal: it took "
            "another way than when it was recorded. Nothing was run again. Start the run afresh, "
            "with another `thread_id`."
        )
        raise AnotherWay(msg)
    check_answers(entry, old)
    return {**entry, "id": call.id, "digest": call.digest}


def result_content(call: Asked, entry: Entry) -> str:
    """The content of a result as the wire has it, with its labels.

    Raises:
        BadReply: If the result is that of another call.
    """
    check_answers(entry, call)
    return write_labeled(entry["result"], Labels.from_wire(entry["labels"]), entry["combine"])


def check_answers(entry: Entry, call: Asked) -> None:
    """Check that a result is that of a call; one of a node's cache bears the id of another."""
    is_cached = entry["id"] != call.id
    if entry["tool"] != call.tool or not (is_cached or entry["digest"] == call.digest):
        msg = f"The journal has the result of another call in the place of that of `{call.tool}`."
        raise BadReply(msg)


APPROVED = "approved:"
"""How the id of a call begins that a human approved."""

GIVES = "gives"
"""Key of an entry: the handle that a call was answered with."""

EARLY = "early"
"""Key of an entry: the place of a router's result that is there before the service asks for it."""

OBJECTS = "objects"
"""Key of an entry: the objects for which handles stand in it, or in the state at the start."""


@dataclass(slots=True)
class Round:
    """A reply that asked for calls, and their results as far as they are there.

    Attributes:
        said: The assistant message as the wire has it.
        calls: What it asked for.
        results: Results, each in the place of its call; `None` while it is not there.
        heard: The results that the reply followed as the wire has them, where each request brings
            the whole conversation: so that they are not written again for each.
        step: The step of the graph to which the calls belong, counted from 1; 0 are those of the
            routers behind START.
        number: Its place among the replies.
    """

    said: str
    calls: tuple[Asked, ...]
    results: list[Entry | None] = field(default_factory=list)
    heard: str = ""
    step: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        """Begin without results."""
        self.results = self.results or [None] * len(self.calls)

    @property
    def answered(self) -> Iterator[tuple[Asked, Entry]]:
        """The calls that have results, with these."""
        for call, entry in zip(self.calls, self.results, strict=True):
            if entry is not None:
                yield call, entry

    @property
    def is_answered(self) -> bool:
        """Whether all results are there."""
        return None not in self.results

    @property
    def waiting(self) -> list[Asked]:
        """The calls without a result."""
        return [call for call, entry in zip(self.calls, self.results, strict=True) if entry is None]

    def entries(self) -> list[Entry]:
        """The round as a journal has it."""
        asked = asked_entry(self.said, self.calls, self.heard)
        place = {"step": self.step, "number": self.number}
        results = [{**entry, "step": self.step} for _, entry in self.answered]
        return [{**asked, **place}, *results]

    def take(self, entry: Entry) -> Asked | None:
        """Put a result in its place; the call that it answers, if it is of this round."""
        for index, call in enumerate(self.calls):
            if call.id == entry["id"]:
                self.results[index] = entry
                return call
        return None


@dataclass(slots=True)
class Offered:
    """A call that a policy denied softly, and what a human made of it.

    Attributes:
        denial: The denial, with the arguments as the service would have sent them.
        index: Which of the program's calls of this tool it is, counted from 1.
        digest: Stands for the call, the policy and the program: what is approved.
        is_approved: Whether a human approved it.
        objection: What a human who rejected it has against it.
        result: The result of the call, after that.
    """

    denial: Denial
    index: int
    digest: str
    is_approved: bool = False
    objection: str | None = None
    result: Entry | None = None

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
    def call(self) -> Asked:
        """The call as the client makes it."""
        return Asked(f"{APPROVED}{self.digest}", self.tool, dict(self.arguments))

    def entries(self) -> list[Entry]:
        """The denial as a journal has it."""
        written = {"denial": self.denial.to_json(), "index": self.index, "digest": self.digest}
        approved = [{"approved": self.digest}] if self.is_approved else []
        return [{"denied": written}, *approved, *([self.result] if self.result else [])]


@dataclass(slots=True)
class Journal:
    """A journal that has been read.

    Attributes:
        rounds: Replies that asked for calls.
        denials: Calls that were denied and offered for approval, in their order.
        refused: What is said of a denial that ended the run.
        handles: Results of calls that were answered with a handle, by these.
        made: These calls.
        early: Results of routers that the service has not asked for yet, by their places.
        asked: Places of those that it has asked for.
        objects: Objects of the state that the run began with, by their handles.
    """

    rounds: list[Round] = field(default_factory=list)
    denials: list[Offered] = field(default_factory=list)
    refused: dict[str, Any] | None = None
    handles: dict[str, Entry] = field(default_factory=dict)
    made: dict[str, Asked] = field(default_factory=dict)
    early: dict[str, Entry] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    objects: dict[str, Any] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Put a result in its place; one that nothing asked for is left out."""
        if HANDLE in entry:  # it is for the call that asks for the handle's result
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
            if (call := one.take(entry)) is not None:
                if GIVES in entry:
                    self.made[entry[GIVES]] = call
                return

    def of_handle(self, call: Asked, session: str | None) -> Entry | None:
        """The result of the handle that a call names, as that call's; `None` if it is not there.

        Raises:
            BadReply: If it is that of another call than the one that was answered with the handle.
        """
        handle = str(call.arguments.get(HANDLE))
        found, made = self.handles.get(handle), self.made.get(handle)
        if found is None or made is None:
            return None
        check_answers(found, made)
        return retagged(call, found, session)

    def kept(self, call: Asked, session: str | None) -> Entry | None:
        """What is there of a call before it is asked for, once."""
        found = self.of_handle(call, session) or self.of_router(call, session)
        if found is not None and EARLY in found:
            self._take_early(found)
        return found

    def _take_early(self, entry: Entry) -> None:
        """Keep a router's result until the service asks for it, once."""
        place = entry[EARLY]
        if entry["id"] != place:
            self.asked.add(place)
        if place in self.asked:
            self.early.pop(place, None)
        else:
            self.early[place] = entry

    def of_router(self, call: Asked, session: str | None) -> Entry | None:
        """The first result of a router that was there before its call, as that call's."""
        places = [place for place, one in self.early.items() if one["tool"] == call.tool]
        return retagged(call, self.early[min(places)], session) if places else None

    def add(self, one: Round) -> None:
        """Add a reply."""
        one.number = len(self.rounds)
        self.rounds.append(one)

    @property
    def answered(self) -> list[tuple[Asked, Entry]]:
        """All calls of the program that have results, without those that were approved."""
        return [pair for one in self.rounds for pair in one.answered]

    @property
    def approved(self) -> list[Offered]:
        """The denied calls that were approved and made."""
        return [one for one in self.denials if one.is_approved and one.result is not None]

    def calls_of(self, tool: str) -> int:
        """How many calls of a tool the program has made."""
        called = sum(call.tool == tool for call, _ in self.answered)
        return called + sum(one.tool == tool for one in self.approved)

    def entries(self) -> list[Entry]:
        """The journal as it is written."""
        found = [entry for one in self.denials for entry in one.entries()]
        found += [*self.handles.values(), *self.early.values()]
        found += [{OBJECTS: self.objects}] if self.objects else []
        return found + [entry for one in self.rounds for entry in one.entries()]


def read_journal(entries: Sequence[Entry], session: str | None) -> Journal:
    """Read a journal.

    Args:
        entries: Its entries, in any order; what was noted again, after a crash, is there twice.
        session: The session that counts.

    Raises:
        BadReply: If it is not as this package writes it.
    """
    own = [one for one in entries if one.get("in") == session]
    journal, results = Journal(_rounds(own)), list[Entry]()
    for entry in own:
        if "denied" in entry:
            _add_denial(journal, entry["denied"])
        elif "refused" in entry:
            journal.refused = entry["refused"]
        elif "digest" in entry:
            results.append(entry)
        elif OBJECTS in entry:
            journal.objects |= entry[OBJECTS]
    for entry in own:
        if "approved" in entry:
            _offered(journal, entry["approved"]).is_approved = True
        elif "rejected" in entry:
            _offered(journal, entry["rejected"]).objection = entry["objection"]
    for entry in results:
        journal.take(entry)
    return journal


def whole_steps(entries: Sequence[Entry], session: str | None) -> list[Entry]:
    """What a session noted of steps that were over when it began, in the midst of another one.

    Args:
        entries: What was noted in a step that is open.
        session: The session; if it did not begin in that step, nothing of this is over.
    """
    own = [one for one in entries if one.get("in") == session]
    begun = [one["open"] for one in own if "open" in one]
    if not begun:
        return []
    # What a task has written itself does not say of which step it is: of the open one.
    is_over = (one.get("step", begun[-1]) < begun[-1] for one in own)
    return [one for one, over in zip(own, is_over, strict=True) if over or not _is_of_step(one)]


def _is_of_step(entry: Entry) -> bool:
    return "said" in entry or ("result" in entry and HANDLE not in entry and EARLY not in entry)


def _add_denial(journal: Journal, kept: Mapping[str, Any]) -> None:
    if all(one.digest != kept["digest"] for one in journal.denials):
        denial = Denial.from_json(kept["denial"])
        journal.denials.append(Offered(denial, kept["index"], kept["digest"]))


def _rounds(entries: Sequence[Entry]) -> list[Round]:
    asked = {one["number"]: one for one in entries if "said" in one}
    return [
        Round(
            one["said"],
            tuple(Asked(**call) for call in one["calls"]),
            heard=one.get("heard", ""),
            step=one["step"],
            number=number,
        )
        for number, one in sorted(asked.items())
    ]


def add_entries(entries: list[Entry], batch: Sequence[list[Entry]]) -> list[Entry]:
    """What the channel makes of new entries; a new session leaves behind what is long over.

    LangGraph makes the channel anew from what was stored with the checkpoints before. Several runs
    may have gone on from one of these, each with a session of its own, and what they stored there
    comes in one batch, in any order. Which of them this state is of stands in another channel
    (`entries_of_session`). So the entries of all stay, and of the session that there was last.
    """
    new = [entry for one in batch for entry in one]
    if not any("reset" in one for one in new):
        return [*entries, *new]
    resets = [place for place, one in enumerate(entries) if "reset" in one]
    recent = entries[resets[-1] if resets else 0 :]
    kept = {one.get("in", "") for one in (*recent, *new)}
    return [*(one for one in entries if one.get("in", "") in kept), *new]


def entries_of_session(entries: Sequence[Entry], session: str | None) -> list[Entry]:
    """The entries that count where a session was the last one.

    What comes of another session later was applied by LangGraph alone, without what the driver
    noted beside it (`update_state(None, as_node=END)` does so): it stays, until the session has it.

    Args:
        entries: What the channel has.
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


def _offered(journal: Journal, digest: str) -> Offered:
    for denial in journal.denials:
        if denial.digest == digest:
            return denial
    msg = "The journal has an approval of a call that was not denied."
    raise BadReply(msg)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the program, as the channel keeps it.

    Attributes:
        session: The session.
        variables: The context variables as JSON text.
        program: The program, where it is not the graph's own: it takes approved results.
        approvals: How many approved results it takes.
        is_labelled: Whether the service is asked for the labels of the fields at the end.
        under: Stands for policy and features: what allowed the calls that wait.
        place: Stands for these and the service: where the session is.
        begins_at: Where it begins, which says which program it is.
        since: The newest version of a channel that it knows from its beginning, and how many writes
            from outside.
        is_over: Whether the program does not know the state any more: an input came beside it.
    """

    session: str | None
    variables: str
    program: str | None = None
    approvals: int = 0
    is_labelled: bool = False
    under: str = ""
    place: str = ""
    begins_at: BeginsAt = "start"
    since: Any = None
    is_over: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the channel has it."""
        return asdict(self)

    def within(self, session: str) -> "Run":
        """The run in a session."""
        return self if session == self.session else replace(self, session=session)
