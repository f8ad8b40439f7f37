"""The journal of a run: its calls, results, denials and approvals.

The journal is a hidden channel of the graph, so a checkpointer stores it with every step. With it,
a run can continue in another process, or in a new session if the service has lost the old one.
The channel has one object for each record, of plain JSON and compressed texts:

| record | stored as |
|---|---|
| `CallBatch` | `{number, step, said, calls: [{id, tool, digest or arguments}]}` |
| `CallResult` | `{id, tool, digest, result}`, perhaps more: see `key` there |
| `DeniedCall` | `{denied: {…}, step}` |
| `Approval` | `{approved: digest}` |
| `Rejection` | `{rejected: digest, objection}` |
| `Refusal` | `{refused: {…}}` |
| `SessionStart` | `{reset: session, open, variables, program}`; older sessions no longer count |
| `StartObjects` | `{objects: {…}}` |

A batch of one call has no record if its result has `reply` (`RunLog.add_batch`).

Each has its session under `in`, but for the start before the first session. The order does not
matter: tasks that run side by side write records in any order. Objects that do not become JSON are
under `objects`, stored as LangGraph stores a state (`docs/security.md`, rule 8). The digest of a
call ties a result to its call. Threads of earlier versions have these objects too, so a new key
needs a default (`tests/graph/durability/stored_runs.py`).

Nothing is stored that follows from the rest, or the size of a thread would grow with the square of
its steps. A run has its variables once, and a call has no arguments if its program computes them.
"""

import zlib
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, Self, cast
from uuid import uuid4

from langgraph.channels import DeltaChannel
from typing_extensions import override

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.program import HANDLE, BeginsAt
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.sqrt.gate import call_digest
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.tool_results import write_labeled

StoredRecord = dict[str, Any]
"""A record as the channel has it."""


LOST = (
    "The checkpointer gives back a run without its journal: it keeps only the newest checkpoint "
    "of a thread. Use one that keeps all of them, as those for memory, SQLite and Postgres do. "
    "Start a new run with another `thread_id`."
)


class ReplayMismatch(BadReply):
    """A replayed program asks for other calls than the recorded ones."""


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A call that the service asked for.

    Attributes:
        id: Its id.
        tool: Name of the tool.
        arguments: Its arguments, which the node gets; empty if only their digest was stored.
        is_computed: Whether the arguments follow from the results before the call, so that they
            need not be stored.
        is_sent: Whether a `Send` made it; known if the arguments are computed.
        stored_digest: The digest, if the arguments were not stored.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any]
    is_computed: bool = field(default=False, compare=False)
    is_sent: bool = field(default=False, compare=False)
    stored_digest: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Hash of tool and arguments."""
        return self.stored_digest or call_digest(self.tool, self.arguments)

    def is_same(self, other: "ProgramCall | CallResult") -> bool:
        """Whether another call is, or a result is of, the same tool with the same arguments."""
        return self.tool == other.tool and short_digest(self.digest) == short_digest(other.digest)

    def stored(self, session: str | None) -> StoredRecord:
        """The call as its batch has it, whose records have the key `session`."""
        stored: StoredRecord = {"id": _short_id(self.id, session), "tool": self.tool}
        if not self.is_computed:
            return {**stored, "arguments": self.arguments}
        digest = {"digest": short_digest(self.digest)}
        return {**stored, **digest, **({"sent": True} if self.is_sent else {})}

    @classmethod
    def read(cls, stored: StoredRecord, session: str | None) -> Self:
        """Read a stored call."""
        call_id = _whole_id(stored["id"], session)
        call = cls(call_id, stored["tool"], stored.get("arguments", {}))
        if "arguments" in stored:
            return call
        is_sent, digest = stored.get("sent", False), stored["digest"]
        return replace(call, is_computed=True, is_sent=is_sent, stored_digest=digest)


def short_digest(digest: str) -> str:
    """A digest as it is stored: 128 bits in base 64. Earlier versions stored all of it."""
    if len(digest) <= _DIGEST_CHARACTERS:
        return digest
    return b64encode(bytes.fromhex(digest[:32])).decode()[:_DIGEST_CHARACTERS]


_DIGEST_CHARACTERS = 22


def _short_id(call_id: str, session: str | None) -> str:
    """The id of a call as a record stores it: many services write the session into each."""
    session_id = session_id_of(session)
    return call_id.replace(session_id, _SESSION_ID) if session_id else call_id


def _whole_id(stored: str, session: str | None) -> str:
    """A stored id."""
    return stored.replace(_SESSION_ID, session_id_of(session) or "")


_SESSION_ID = "\n"
"""Stands for the session in an id. No id of a reply has a line break (`requests`)."""


def _packed(text: str) -> str | bytes:
    """A text as it is stored: compressed if that makes it shorter."""
    if len(text) < _WORTH_PACKING:
        return text
    packed = zlib.compress(text.encode("utf-8", "surrogatepass"))
    return packed if len(packed) < len(text) else text


def _unpacked(stored: str | bytes) -> str:
    """A stored text."""
    if isinstance(stored, str):
        return stored
    return zlib.decompress(stored).decode("utf-8", "surrogatepass")


_WORTH_PACKING = 100
"""Characters. The names in shorter texts are too few to repeat."""


# Records

OPEN_STEP = -1
"""The step of a record that a task wrote itself: the one that is open."""


class _Stored:
    """A dataclass that is stored. An attribute's key is its name, or `key` of its metadata.

    An attribute that `is_text` there may be compressed.
    """

    __slots__ = ()

    def stored(self) -> StoredRecord:
        """The record as the channel has it, without attributes that have their default."""
        return {
            key: _packed(value) if _is_text(attribute) else value
            for key, attribute in _attributes(cast("Any", type(self))).items()
            if (value := getattr(self, attribute.name)) != attribute.default
        }

    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        """Read a stored record. Keys that only earlier versions have are left out."""
        attributes = _attributes(cast("Any", cls))
        named = {attributes[key]: value for key, value in stored.items() if key in attributes}
        return cls(
            **{
                attribute.name: _unpacked(value) if _is_text(attribute) else value
                for attribute, value in named.items()
            }
        )


@cache
def _attributes(record_type: Any) -> Mapping[str, Field[Any]]:
    """The attributes by their keys."""
    return {field.metadata.get("key", field.name): field for field in fields(record_type)}


def _is_text(attribute: Field[Any]) -> bool:
    return "is_text" in attribute.metadata


@dataclass(slots=True, kw_only=True)
class _Record(_Stored):
    """What all records of the journal have.

    Attributes:
        session: The session.
        step: The graph's step, counted from 1; 0 for the routers of START.
    """

    session: str | None = field(default=None, metadata={"key": "in"})
    step: int = OPEN_STEP


@dataclass(slots=True)
class CallResult(_Record):
    """The result of a call.

    Attributes:
        id: The id of the call that it answers.
        tool: The tool of that call.
        digest: The digest of that call.
        value: The result as JSON text.
        wire_labels: Its labels, without the lists that say nothing.
        combine: How they combine with those of the arguments.
        handle: The handle behind which this is the result; empty if it answers the call at once.
        given_handle: The handle that is the first answer to the call; empty without one.
        early_id: The provisional id of a router's call that ran before the service asked for it;
            empty for other results.
        previous_id: The id of the call in the session, or under the name, that it had before.
        objects: The objects behind the handles in the result.
        reply_number: See `CallBatch.number`, if the batch has no record of its own.
        is_sent: See `ProgramCall`, in the same case.
    """

    id: str
    tool: str
    digest: str
    value: str = field(metadata={"key": "result", "is_text": True})
    wire_labels: Mapping[str, list[str]] | None = field(default=None, metadata={"key": "labels"})
    combine: Combine = "merge"
    handle: str = ""
    given_handle: str = field(default="", metadata={"key": "gives"})
    early_id: str = field(default="", metadata={"key": "early"})
    previous_id: str = field(default="", metadata={"key": "was"})
    objects: Mapping[str, Any] | None = None
    reply_number: int | None = field(default=None, metadata={"key": "reply"})
    is_sent: bool = field(default=False, metadata={"key": "sent"})

    @classmethod
    def for_value(
        cls,
        call: ProgramCall,
        wire: Mapping[str, Any],
        labels: Labels,
        combine: Combine = "merge",
        **options: Any,
    ) -> "CallResult":
        """The result of a call.

        Args:
            call: The call that it answers.
            wire: The result.
            labels: Its labels.
            combine: How they combine with those of the arguments.
            options: Further attributes.
        """
        wire_labels = _telling(labels.to_wire())
        digest, value = short_digest(call.digest), dumps(wire)
        return cls(call.id, call.tool, digest, value, wire_labels or None, combine, **options)

    def for_call(self, call: ProgramCall, session: str | None) -> "CallResult":
        """The result for the call of another session or of another name.

        Args:
            call: The call that it now answers; the result is from a node's cache or of a handle.
            session: The session of the call.
        """
        answer = replace(self._without_batch(), session=session, handle="", previous_id=self.id)
        answer.id, answer.tool, answer.digest = call.id, call.tool, short_digest(call.digest)
        return answer

    def in_new_session(
        self, call: ProgramCall, recorded: ProgramCall, session: str | None
    ) -> "CallResult":
        """The result for the same call in another session.

        Args:
            call: The call in the new session.
            recorded: The recorded call.
            session: The new session.

        Raises:
            ReplayMismatch: If the calls differ.
        """
        if not call.is_same(recorded):
            is_same_tool = call.tool == recorded.tool
            difference = (
                "with other arguments than" if is_same_tool else f"instead of `{recorded.tool}`"
            )
            msg = (
                f"In a new session the program asks for `{call.tool}` {difference} in the journal: "
                "it took another path than in the recorded run. No node has run again. Start a new "
                "run with another `thread_id`."
            )
            raise ReplayMismatch(msg)
        self.check_answers(recorded)
        digest = short_digest(call.digest)
        return replace(self._without_batch(), id=call.id, digest=digest, session=session)

    def in_batch(self, batch: "CallBatch") -> "CallResult":
        """The result with what a record of its batch would have, which is then not needed."""
        number, is_sent = batch.number, batch.calls[0].is_sent
        return replace(self, step=batch.step, reply_number=number, is_sent=is_sent)

    def _without_batch(self) -> "CallResult":
        return replace(self, step=OPEN_STEP, reply_number=None, is_sent=False)

    def check_answers(self, call: ProgramCall) -> None:
        """Check that it belongs to a call: their digests are equal. Their ids may differ.

        Raises:
            BadReply: If it is the result of another call.
        """
        if not call.is_same(self):
            msg = (
                f"The journal has the result of another call in the place of that of `{call.tool}`."
            )
            raise BadReply(msg)

    def content(self, call: ProgramCall) -> str:
        """Its content as wire text, with its labels.

        Raises:
            BadReply: If it is the result of another call.
        """
        self.check_answers(call)
        return write_labeled(self.value, self.labels, self.combine)

    @property
    def labels(self) -> Labels:
        """Its labels."""
        return Labels.from_wire({**_NO_LABELS, **(self.wire_labels or {})})

    @override
    def stored(self) -> StoredRecord:
        call_id, previous_id = (_short_id(i, self.session) for i in (self.id, self.previous_id))
        short = replace(self, id=call_id, previous_id=previous_id)
        return super(CallResult, short).stored()

    @override
    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        result = super(CallResult, cls).read(stored)
        result.id = _whole_id(result.id, result.session)
        result.previous_id = _whole_id(result.previous_id, result.session)
        return result

    @property
    def is_of_step(self) -> bool:
        """Whether it belongs to a step, and not only to a later call."""
        return not (self.handle or self.early_id)


_NO_LABELS = Labels().to_wire()


def _telling(labels: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Labels without the lists that say nothing."""
    return {key: names for key, names in labels.items() if names != _NO_LABELS[key]}


@dataclass(slots=True)
class CallBatch(_Record):
    """A reply that asks for calls, and the results so far.

    Attributes:
        reply: The assistant message as wire text; empty if it is not sent again.
        calls: The calls.
        results: Their results so far, by id.
        sent: The results as wire text, once they are sent.
        number: Its index among the replies.
    """

    reply: str
    calls: tuple[ProgramCall, ...]
    results: dict[str, CallResult] = field(default_factory=dict)
    sent: str = ""
    number: int = 0

    @classmethod
    def of_result(cls, result: CallResult, number: int) -> Self:
        """The batch of a result, if only the result has been stored."""
        call = ProgramCall(
            result.id, result.tool, {}, is_computed=True, is_sent=result.is_sent,
            stored_digest=result.digest,
        )  # fmt: skip
        return cls("", (call,), number=number, step=result.step, session=result.session)

    @property
    def follows_from_result(self) -> bool:
        """Whether the result of the batch can have all that its record would have.

        The first batch of a run is not asked for again: its request has no key.
        """
        is_single = len(self.calls) == 1 and self.calls[0].is_computed
        return is_single and self.number > 0

    @property
    def answered(self) -> list[tuple[ProgramCall, CallResult]]:
        """The calls with a result, and the results."""
        return [(call, self.results[call.id]) for call in self.calls if call.id in self.results]

    @property
    def is_answered(self) -> bool:
        """Whether all calls have a result."""
        return len(self.results) == len(self.calls)

    @property
    def waiting(self) -> list[ProgramCall]:
        """The calls without a result."""
        return [call for call in self.calls if call.id not in self.results]

    def records(self) -> "list[JournalRecord]":
        """The records of the batch."""
        return [self, *(replace(result, step=self.step) for _, result in self.answered)]

    def add_result(self, result: CallResult) -> ProgramCall | None:
        """Add a result. Returns its call, or `None` if the call is not in this batch."""
        call = next((call for call in self.calls if call.id == result.id), None)
        if call is not None:
            self.results[call.id] = result
        return call

    @override
    def stored(self) -> StoredRecord:
        calls = [call.stored(self.session) for call in self.calls]
        step = {"step": self.step, "in": self.session}
        return {"said": _packed(self.reply), "calls": calls, "number": self.number, **step}

    @override
    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        session, reply = stored.get("in"), _unpacked(stored["said"])
        calls = tuple(ProgramCall.read(call, session) for call in stored["calls"])
        return cls(reply, calls, number=stored["number"], step=stored["step"], session=session)


APPROVED = "approved:"
"""Prefix of the id of an approved call."""


@dataclass(slots=True)
class DeniedCall(_Record):
    """A call that a policy denied softly, and a human's decision about it.

    Attributes:
        denial: The denial, with the arguments as the service would have sent them.
        index: Its number among the program's calls of this tool, from 1.
        digest: Hash of the call, the policy and the program. An approval is for this hash.
        is_approved: Whether a human approved it.
        objection: The objection of a human who rejected it.
        result: The result of the approved call.
    """

    denial: Denial
    index: int
    digest: str
    is_approved: bool = False
    objection: str | None = None
    result: CallResult | None = None

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

    def records(self) -> "list[JournalRecord]":
        """The records of the denial."""
        approval = [Approval(self.digest)] if self.is_approved else []
        return [self, *approval, *([self.result] if self.result else [])]

    @override
    def stored(self) -> StoredRecord:
        denied = {"denial": self.denial.to_json(), "index": self.index, "digest": self.digest}
        return {"denied": denied, "step": self.step, "in": self.session}

    @override
    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        denied = stored["denied"]
        denial = Denial.from_json(denied["denial"])
        record = cls(denial, denied["index"], denied["digest"])
        record.session, record.step = stored.get("in"), stored["step"]
        return record


@dataclass(slots=True)
class Approval(_Record):
    """A human approved a denied call, which has this digest; its result follows."""

    digest: str = field(metadata={"key": "approved"})


@dataclass(slots=True)
class Rejection(_Record):
    """A human rejected a denied call, which has this digest."""

    digest: str = field(metadata={"key": "rejected"})
    objection: str


@dataclass(slots=True)
class Refusal(_Record):
    """A denial that ends the run with a state, which has its facts."""

    facts: dict[str, Any] = field(metadata={"key": "refused"})


@dataclass(slots=True)
class SessionStart(_Record):
    """The start of a session, or an input before the first one.

    Attributes:
        started: The session that starts; empty before an input.
        open_step: The step in which it starts; `None` before an input.
        variables: See `ProgramRun`; `None` before an input, and if the record of the run has them.
        program: See `ProgramRun`.
    """

    started: str = field(metadata={"key": "reset"})
    open_step: int | None = field(default=None, metadata={"key": "open"})
    variables: str | None = field(default=None, metadata={"is_text": True})
    program: str | None = field(default=None, metadata={"is_text": True})


@dataclass(slots=True)
class StartObjects(_Record):
    """The objects behind the handles in the state at the start: handle → object."""

    objects: Mapping[str, Any]


JournalRecord = (
    CallBatch
    | CallResult
    | DeniedCall
    | Approval
    | Rejection
    | Refusal
    | SessionStart
    | StartObjects
)

_RECORD_TYPES: Mapping[str, Any] = {
    "result": CallResult, "said": CallBatch, "denied": DeniedCall, "approved": Approval,
    "rejected": Rejection, "refused": Refusal, "reset": SessionStart, "objects": StartObjects,
}  # fmt: skip
"""A key that only one kind of record has → that kind. A result may have `objects` too."""


def read_record(stored: StoredRecord) -> JournalRecord:
    """Read a record of the channel.

    Raises:
        BadReply: If this version of the package cannot have written it.
    """
    for key, record_type in _RECORD_TYPES.items():
        if key in stored:
            try:
                record: JournalRecord = record_type.read(stored)
            except (KeyError, TypeError) as error:
                raise BadReply(_UNKNOWN_RECORD) from error
            return record
    raise BadReply(_UNKNOWN_RECORD)


_UNKNOWN_RECORD = "The journal has a record that this version of the package does not know."


# The journal


@dataclass(slots=True)
class Journal:
    """A parsed journal.

    Attributes:
        batches: Replies that ask for calls.
        denials: Denied calls that are offered for approval, in order.
        refused: Facts of a denial that ended the run.
        results_by_handle: Handle → result of the call that was first answered with the handle.
        calls_by_handle: Handle → that call.
        early_results: Provisional id → result of a router that precedes its call.
        called_routers: Those ids whose routers the service has called since.
        objects: Handle → object of the initial state.
    """

    batches: list[CallBatch] = field(default_factory=list)
    denials: list[DeniedCall] = field(default_factory=list)
    refused: dict[str, Any] | None = None
    results_by_handle: dict[str, CallResult] = field(default_factory=dict)
    calls_by_handle: dict[str, ProgramCall] = field(default_factory=dict)
    early_results: dict[str, CallResult] = field(default_factory=dict)
    called_routers: set[str] = field(default_factory=set)
    objects: dict[str, Any] = field(default_factory=dict)

    def add_result(self, result: CallResult) -> None:
        """Add a result. A result without a call is dropped."""
        if result.handle:  # for the later call of `result_of`
            self.results_by_handle[result.handle] = result
            return
        if result.early_id:
            self._add_early_result(result)
            if result.id == result.early_id:
                return
        for denial in self.denials:
            if denial.is_approved and denial.call.id == result.id:
                denial.result = result
                return
        if result.reply_number is not None:
            self._add_batch_of(result, result.reply_number)
        for batch in reversed(self.batches):
            if (call := batch.add_result(result)) is not None:
                if result.given_handle:
                    self.calls_by_handle[result.given_handle] = call
                return

    def _add_batch_of(self, result: CallResult, number: int) -> None:
        """Add the batch of a result, unless it is known."""
        index = bisect_left(self.batches, number, key=lambda batch: batch.number)
        if index == len(self.batches) or self.batches[index].number != number:
            self.batches.insert(index, CallBatch.of_result(result, number))

    def cut(self, step: int) -> bool:
        """Drop what follows a result of the open step that was not stored: its node runs again.

        The result may be another one then. A killed process may have stored the driver's records
        without those of a task.

        Returns:
            Whether something was dropped, so that the session may have more than the journal.
        """
        of_step = [index for index, batch in enumerate(self.batches) if batch.step == step]
        for index in of_step:
            if index and self.batches[index].number > self.batches[index - 1].number + 1:
                return self._drop_from(index)
        results = [r for index in of_step for r in self.batches[index].results.values()]
        unstored = {r.given_handle for r in results} - self.results_by_handle.keys() - {""}
        for index in of_step:
            batch = self.batches[index]
            answers = [c.id for c, _ in batch.answered if c.arguments.get(HANDLE) in unstored]
            for call_id in answers:
                del batch.results[call_id]
            if not batch.is_answered:
                return self._drop_from(index + 1) or bool(answers)
        return False

    def _drop_from(self, index: int) -> bool:
        is_any = index < len(self.batches)
        del self.batches[index:]
        return is_any

    def handle_of(self, call: ProgramCall) -> str:
        """The handle that a call was first answered with; empty if there is none."""
        answered = self.calls_by_handle.items()
        return next((handle for handle, other in answered if other.id == call.id), "")

    def result_of_handle(self, call: ProgramCall, session: str | None) -> CallResult | None:
        """The result behind the handle that a call names, for that call; `None` if it is missing.

        Raises:
            BadReply: If the result belongs to another call than the handle.
        """
        handle = str(call.arguments.get(HANDLE))
        result, answered = self.results_by_handle.get(handle), self.calls_by_handle.get(handle)
        if result is None or answered is None:
            return None
        result.check_answers(answered)
        return result.for_call(call, session)

    def early_result(self, call: ProgramCall, session: str | None) -> CallResult | None:
        """The result that precedes a call, if there is one. It is used once."""
        result = self.result_of_handle(call, session) or self.result_of_router(call, session)
        if result is not None and result.early_id:
            self._add_early_result(result)
        return result

    def _add_early_result(self, result: CallResult) -> None:
        """Keep a router's result until the service calls the router. It is used once."""
        early_id = result.early_id
        if result.id != early_id:
            self.called_routers.add(early_id)
        if early_id in self.called_routers:
            self.early_results.pop(early_id, None)
        else:
            self.early_results[early_id] = result

    def result_of_router(self, call: ProgramCall, session: str | None) -> CallResult | None:
        """The first result of a router that precedes its call, for that call."""
        ids = [early_id for early_id, r in self.early_results.items() if r.tool == call.tool]
        return self.early_results[min(ids)].for_call(call, session) if ids else None

    def add(self, batch: CallBatch) -> None:
        """Add a reply, with the results that it has in a new session."""
        batch.number = self.batches[-1].number + 1 if self.batches else 0
        self.batches.append(batch)
        handles = {result.given_handle: call for call, result in batch.answered}
        self.calls_by_handle |= {handle: call for handle, call in handles.items() if handle}

    @property
    def answered(self) -> list[tuple[ProgramCall, CallResult]]:
        """All calls of the program with their results, without approved calls."""
        return [pair for batch in self.batches for pair in batch.answered]

    @property
    def approved(self) -> list[DeniedCall]:
        """The denied calls that were approved and made."""
        return [denial for denial in self.denials if denial.is_approved and denial.result]

    @property
    def approved_ids(self) -> set[str]:
        """The ids of these calls."""
        return {denied.call.id for denied in self.approved}

    def calls_of(self, tool: str) -> int:
        """The number of the program's calls of a tool."""
        called = sum(call.tool == tool for call, _ in self.answered)
        return called + sum(denied.tool == tool for denied in self.approved)

    def records(self) -> list[JournalRecord]:
        """The journal as records."""
        records = [record for denial in self.denials for record in denial.records()]
        records += [*self.results_by_handle.values(), *self.early_results.values()]
        records += [StartObjects(self.objects)] if self.objects else []
        return records + [record for batch in self.batches for record in batch.records()]


def read_journal(records: Iterable[JournalRecord], session: str | None) -> Journal:
    """Make a journal of records.

    Args:
        records: The records, in any order. After a crash, some may occur twice.
        session: The current session.

    Raises:
        BadReply: If this package cannot have written them.
    """
    of_session = [record for record in records if record.session == session]
    batches = {record.number: record for record in of_session if isinstance(record, CallBatch)}
    journal = Journal([batch for _, batch in sorted(batches.items())])
    for record in of_session:
        match record:
            case DeniedCall() if all(d.digest != record.digest for d in journal.denials):
                journal.denials.append(record)
            case Refusal():
                journal.refused = record.facts
            case StartObjects():
                journal.objects |= record.objects
    for record in of_session:
        match record:
            case Approval():
                _denial_with(journal, record.digest).is_approved = True
            case Rejection():
                _denial_with(journal, record.digest).objection = record.objection
    for record in of_session:
        if isinstance(record, CallResult):
            journal.add_result(record)
    return journal


def _denial_with(journal: Journal, digest: str) -> DeniedCall:
    for denial in journal.denials:
        if denial.digest == digest:
            return denial
    msg = "The journal has an approval of a call that was not denied."
    raise BadReply(msg)


def finished_steps(records: Iterable[JournalRecord], session: str | None) -> list[JournalRecord]:
    """The records of finished steps, from those written since the last checkpoint.

    Args:
        records: Records that were written in the open step.
        session: The session. If it did not begin in that step, there are none.
    """
    of_session = [record for record in records if record.session == session]
    starts = [record for record in of_session if isinstance(record, SessionStart)]
    if not starts or (open_step := starts[-1].open_step) is None:
        return []
    return [
        record
        for record in of_session
        if (record.step != OPEN_STEP and record.step < open_step) or not _is_of_step(record)
    ]


def _is_of_step(record: JournalRecord) -> bool:
    return isinstance(record, CallBatch) or (isinstance(record, CallResult) and record.is_of_step)


# The channel


def add_entries(
    entries: list[StoredRecord], batch: Sequence[list[StoredRecord]]
) -> list[StoredRecord]:
    """The reducer of the channel: adds records, and drops old sessions when a new one begins.

    LangGraph rebuilds the channel from the writes that are stored with earlier checkpoints. Several
    runs may have continued from one checkpoint, each in its own session, and their writes are in
    one batch, in any order. Another channel says which run this state belongs to
    (`records_of_session`). So the records of all new sessions and of the last one are kept.
    """
    new = [entry for written in batch for entry in written]
    if not any(_STARTS in entry for entry in new):
        return [*entries, *new]
    starts = [index for index, entry in enumerate(entries) if _STARTS in entry]
    recent = entries[starts[-1] if starts else 0 :]
    sessions = {entry.get(_SESSION, "") for entry in (*recent, *new)}
    return [*(entry for entry in entries if entry.get(_SESSION, "") in sessions), *new]


class JournalChannel(DeltaChannel[list[StoredRecord]]):
    """The channel of the journal.

    A run knows which session its own writes begin. So the records of older sessions are dropped at
    once, and a checkpoint that holds the whole channel does not have them.
    """

    @override
    def update(self, values: Sequence[Any]) -> bool:
        if any(_STARTS in entry for written in values for entry in written):
            self.value = []
        return super().update(values)


def ends_calls(entries: Iterable[StoredRecord], new: Iterable[StoredRecord]) -> bool:
    """Whether new records begin a session, so that calls among the older ones no longer count."""
    begins = any(_STARTS in entry for entry in new)
    return begins and any("said" in entry for entry in entries)


def records_of_session(entries: Iterable[StoredRecord], session: str | None) -> list[JournalRecord]:
    """The records that count if a session was the last one.

    Results of other sessions can come later, if LangGraph applied them without the driver, as after
    `update_state(None, as_node=END)`. They are kept until this session has them too.

    Args:
        entries: The content of the channel.
        session: The session; `None` if there was none.
    """
    records = [read_record(entry) for entry in entries]
    start, answered = 0, set[str]()
    for index, record in enumerate(records):
        if isinstance(record, SessionStart) and record.started == (session or ""):
            start = index
        elif isinstance(record, CallResult) and record.previous_id:
            answered.add(record.previous_id)
    return [
        record
        for index, record in enumerate(records)
        if record.session == session
        or (index >= start and isinstance(record, CallResult) and record.id not in answered)
    ]


_STARTS, _SESSION = "reset", "in"


# The record of a thread


@dataclass(frozen=True, slots=True)
class ProgramRun(_Stored):
    """A run of the program, as the channel stores it.

    Attributes:
        session: The key of its records in the journal: the id of its session, and a mark of its own
            if the session had an earlier turn.
        stored_variables: The context variables as JSON text; `None` if they are lost.
        program: The program, if it differs from the graph's: it takes approved results.
        has_start: Whether the start of its session in the journal has variables and program. In
            threads of earlier versions the record of the run has them.
        approvals: The number of approved results that it takes.
        is_labelled: Whether the service reports the labels of the fields at the end.
        location: Hash of the service, policy, features and configuration: where the session is.
        begins_at: The start point, which selects the program.
        keeps_history: Whether the service said that it keeps the conversation of the session.
        since: At the start: the newest version of a channel, and the number of writes from outside.
        is_over: Whether the program no longer has the state, because an input came beside it.
        number: Its number among the records of an open step, which checkpointers give back in any
            order.
        portion: The packets that it takes of its only step, as first and end index, if other
            programs take the rest of the step; otherwise it takes whole steps.
        earlier_labels: The labels of the fields, and of the packets, after the earlier portions of
            the step.
    """

    session: str | None
    stored_variables: str | None = field(default=None, metadata={"key": "variables"})
    program: str | None = None
    has_start: bool = True
    approvals: int = 0
    is_labelled: bool = True
    location: str = field(default="", metadata={"key": "place"})
    begins_at: BeginsAt = "start"
    keeps_history: bool = False
    since: Any = None
    is_over: bool = False
    number: int = 0
    portion: Sequence[int] = ()
    earlier_labels: Mapping[str, dict[str, list[str]]] | None = None

    @property
    def variables(self) -> str:
        """The context variables as JSON text.

        Raises:
            UsageError: If they are lost.
        """
        if self.stored_variables is None:
            raise UsageError(LOST)
        return self.stored_variables

    @override
    def stored(self) -> StoredRecord:
        rest = replace(self, stored_variables=None, program=None) if self.has_start else self
        return super(ProgramRun, replace(rest, has_start=True)).stored()

    @override
    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        run = super(ProgramRun, cls).read(stored)
        return replace(run, has_start=run.stored_variables is None)

    def start(self, open_step: int) -> "SessionStart":
        """The start of its session, which has variables and program once for all checkpoints."""
        return SessionStart(self.session or "", open_step, self.stored_variables, self.program)

    def with_start(self, records: Iterable[JournalRecord]) -> "ProgramRun":
        """The run with what the start of its session has, if that is among these records."""
        starts = (record for record in records if isinstance(record, SessionStart))
        start = next((start for start in starts if start.started == self.session), None)
        if start is None or not self.has_start:
            return self
        return replace(self, stored_variables=start.variables, program=start.program)

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


@dataclass(frozen=True, slots=True)
class FinishedRun(_Stored):
    """What a thread keeps between two runs.

    Attributes:
        labels: The labels of its fields.
        session: The newest session of the thread; see `ProgramRun.session`.
        location: Where that session is; see `ProgramRun.location`.
        last_session: The key of the last run; `None` before the first one.
        input_fields: The fields that an input has set since; `None` without an input.
        number: As for `ProgramRun`.
    """

    labels: Mapping[str, dict[str, list[str]]] = field(metadata={"key": "kept"})
    session: str | None = None
    location: str | None = field(default=None, metadata={"key": "place"})
    last_session: str | None = field(default=None, metadata={"key": "of"})
    input_fields: Sequence[str] | None = field(default=None, metadata={"key": "given"})
    number: int = 0

    @override
    def stored(self) -> StoredRecord:
        labels = {name: _telling(wire) for name, wire in self.labels.items()}
        return super(FinishedRun, replace(self, labels=labels)).stored()

    @override
    @classmethod
    def read(cls, stored: StoredRecord) -> Self:
        run = super(FinishedRun, cls).read(stored)
        return replace(run, labels={n: {**_NO_LABELS, **wire} for n, wire in run.labels.items()})


ThreadRecord = ProgramRun | FinishedRun


def read_thread_record(stored: StoredRecord) -> ThreadRecord:
    """Read what a thread has stored of its last run."""
    if location := stored.get("place"):
        stored = {**stored, "place": short_digest(location)}
    return FinishedRun.read(stored) if "kept" in stored else ProgramRun.read(stored)


def session_id_of(key: str | None) -> str | None:
    """The session in the key of a run's records; see `ProgramRun.session`."""
    return None if key is None else key.partition(_TURN)[0]


_TURN = "\n"
"""Begins the mark of a turn. It cannot be in the id of a session, which is a header."""
