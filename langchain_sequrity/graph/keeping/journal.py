"""What happened in a run, as plain JSON: what was asked, answered, denied and approved.

The journal is a channel of the shell, so a checkpointer stores it with every step. It is all that
is needed to go on in another process, or in a new session where the service lost the old one. It
holds no objects and no pickles (`docs/security.md`, rule 8); the digest of a call ties its result
to what was asked.

| entry | says |
|---|---|
| `{said, calls: [{id, tool, arguments}], heard?}` | a reply that asked for calls |
| `{id, tool, digest, result, labels, combine}` | the result of one |
| `{denied: {…}}` | a call that a policy denied, and that a human may approve |
| `{approved: digest}` | that a human did; the result of the call follows |
| `{refused: {…}}` | a denial that ends the run with a state |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.keeping.entries import Asked, Entry, asked_entry

_LOST = (
    "The checkpointer gives back a run without what happened in it: it keeps only the newest "
    "checkpoint of a thread. Use one that keeps all of them, as those for memory, SQLite and "
    "Postgres do. Start the run afresh, with another `thread_id`."
)


@dataclass(slots=True)
class Round:
    """A reply that asked for calls, and their results as far as they are there.

    Attributes:
        said: The assistant message as the wire has it.
        calls: What it asked for.
        results: Results, each in the place of its call; `None` while it is not there.
        heard: The results that the reply followed as the wire has them, where each request brings
            the whole conversation: so that they are not written again for each.
    """

    said: str
    calls: tuple[Asked, ...]
    results: list[Entry | None] = field(default_factory=list)
    heard: str = ""

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
        return [asked, *(entry for _, entry in self.answered)]

    def take(self, entry: Entry) -> bool:
        """Put a result in its place; whether there was one.

        One that a node's cache gave bears the id of an older call: it is for the first call of
        its tool that waits.
        """
        waiting = [i for i, found in enumerate(self.results) if found is None]
        named = [i for i in waiting if self.calls[i].id == entry["id"]]
        alike = [i for i in waiting if self.calls[i].tool == entry["tool"]]
        for index in (named or alike)[:1]:
            self.results[index] = entry
            return True
        return False


@dataclass(slots=True)
class Offered:
    """A call that a policy denied softly, and what a human made of it.

    Attributes:
        denial: The denial, with the arguments as the service would have sent them.
        index: Which of the program's calls of this tool it is, counted from 1.
        digest: Stands for the call, the policy and the program: what is approved.
        is_approved: Whether a human approved it.
        result: The result of the call, after that.
    """

    denial: Denial
    index: int
    digest: str
    is_approved: bool = False
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
        return Asked(f"approved:{self.digest}", self.tool, dict(self.arguments))

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
    """

    rounds: list[Round] = field(default_factory=list)
    denials: list[Offered] = field(default_factory=list)
    refused: dict[str, Any] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether every call that was asked for or approved has its result."""
        return all(one.is_answered for one in self.rounds[-1:]) and not any(
            one.is_approved and one.result is None for one in self.denials
        )

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
        return found + [entry for one in self.rounds for entry in one.entries()]


def read_journal(entries: Sequence[Entry]) -> Journal:
    """Read a journal.

    Raises:
        BadReply: If it is not as this package writes it.
    """
    journal = Journal()
    for entry in entries:
        if "said" in entry:
            calls = tuple(Asked(**call) for call in entry["calls"])
            journal.rounds.append(Round(entry["said"], calls, heard=entry.get("heard", "")))
        elif "denied" in entry:
            kept = entry["denied"]
            denial = Denial.from_json(kept["denial"])
            journal.denials.append(Offered(denial, kept["index"], kept["digest"]))
        elif "refused" in entry:
            journal.refused = entry["refused"]
        elif "approved" in entry:
            _approve(journal, entry["approved"])
        else:
            _take(journal, entry)
    return journal


def read_latest(entries: Sequence[Entry]) -> Journal:
    """Read a journal from the last reply that asked for calls.

    What a new session made up for stands before it, so an approval in it is one that the session
    does not know of.

    Raises:
        UsageError: If there is none: the checkpointer did not keep it.
        BadReply: If it is not as this package writes it.
    """
    asked = (i for i in range(len(entries) - 1, -1, -1) if "said" in entries[i])
    first = next(asked, 0)
    if not entries or not entries[first].keys() & {"said", "denied"}:
        raise UsageError(_LOST)
    return read_journal(entries[first:])


def _approve(journal: Journal, digest: str) -> None:
    for denial in journal.denials:
        if denial.digest == digest and not denial.is_approved:
            denial.is_approved = True
            return
    msg = "The journal has an approval of a call that was not denied, or was approved before."
    raise BadReply(msg)


def _take(journal: Journal, entry: Entry) -> None:
    for denial in journal.denials:
        if denial.is_approved and denial.result is None and denial.tool == entry["tool"]:
            denial.result = entry
            return
    if not any(one.take(entry) for one in journal.rounds[-1:]):
        msg = f"The journal has a result of `{entry['tool']}` that nothing asked for."
        raise BadReply(msg)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the program, as the shell's channel keeps it.

    Attributes:
        session: The session.
        variables: The context variables as JSON text.
        program: The program, where it is not the graph's own: it takes approved results.
        approvals: How many approved results it takes.
        is_labelled: Whether the service is asked for the labels of the fields at the end.
        under: Stands for policy and features: what allowed the calls that wait.
        place: Stands for these and the service: where the session is.
        approving: While an approved call waits for its result, the checkpoint at which it was
            approved.
        limit: How many nodes may run, where the program leaves it to the client to count them.
    """

    session: str | None
    variables: str
    program: str | None = None
    approvals: int = 0
    is_labelled: bool = False
    under: str = ""
    place: str = ""
    approving: str | None = None
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the channel has it."""
        return asdict(self)

    def within(self, session: str) -> "Run":
        """The run in a session."""
        return self if session == self.session else replace(self, session=session)
