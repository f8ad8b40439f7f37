"""The log of one run: its record, its journal, and the driver's writes, which store both."""

import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langchain_sequrity import _compat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.codec.values import ObjectHandles, current_objects
from langchain_sequrity.graph.journal import (
    LOST,
    CallBatch,
    CallResult,
    DeniedCall,
    FinishedRun,
    Journal,
    JournalRecord,
    ProgramCall,
    ProgramRun,
    Refusal,
    SessionStart,
    StartObjects,
    StoredRecord,
    ThreadRecord,
    ends_calls,
    read_journal,
    read_thread_record,
)
from langchain_sequrity.graph.program import JOURNAL, RUN, STEP
from langchain_sequrity.graph.runtime.state_variables import FieldLabels
from langchain_sequrity.graph.runtime.stored_run import (
    records_of,
    records_of_step,
    results_with_batches,
)

OWN_WRITES = str(uuid5(NAMESPACE_OID, "sequrity"))
"""The task id of the driver's own writes."""


def key_of_writes(name: str) -> str:
    """The task id under which the driver stores writes; short, as checkpointers index each row."""
    return urlsafe_b64encode(blake2b(name.encode(), digest_size=9).digest()).decode()


class RunLog:
    """What a thread stores about a run.

    Args:
        sends_all: Whether each request of a run has the whole conversation, so that the replies
            have to be stored.

    Attributes:
        record: The run; `None` before it begins.
        journal: Its calls and results.
        step: The number of the step, counted from 1; 0 for the routers of START.
        writes: Writes of the driver, to apply with the step.
        objects: The objects behind the handles in the journal.
        newest: The newest record of the thread; it has the thread's newest session.
    """

    def __init__(self, sends_all: Callable[[ProgramRun], bool]) -> None:
        self._sends_all = sends_all
        self.record: ProgramRun | None = None
        self.journal = Journal()
        self.step = 0
        self.writes: list[tuple[str, Any]] = []
        self.objects = ObjectHandles()
        self.newest: ThreadRecord = FinishedRun({})
        self._stored_writes = 0
        self._number = 0
        self._unwritten: CallBatch | None = None

    @property
    def session(self) -> str | None:
        """The key of the run's entries; see `ProgramRun`."""
        return None if self.record is None else self.record.session

    @property
    def session_id(self) -> str | None:
        """The session."""
        return None if self.record is None else self.record.session_id

    @property
    def run(self) -> ProgramRun:
        """The run, which has begun."""
        assert self.record is not None  # noqa: S101 - it has begun
        return self.record

    @property
    def takes_portion(self) -> bool:
        """Whether the run takes a portion of a step; see `ProgramRun`."""
        return self.record is not None and bool(self.record.portion)

    @property
    def is_refused(self) -> bool:
        """Whether a denial ended the run."""
        return self.journal.refused is not None

    @property
    def last(self) -> CallBatch | None:
        """The last reply that asks for calls."""
        return self.journal.batches[-1] if self.journal.batches else None

    @property
    def waiting(self) -> list[ProgramCall]:
        """The calls that wait for a result."""
        last = self.last
        return [] if last is None else last.waiting

    def begin_step(self) -> None:
        """Forget the writes of the last step, which LangGraph has applied."""
        self.writes, self._stored_writes = [], 0

    def write_records(self, records: Iterable[JournalRecord]) -> None:
        """Write records of this session to the journal's channel.

        Those that are stored together become one row.
        """
        stored = [*map(self._stored, records)]
        if len(self.writes) > self._stored_writes and self.writes[-1][0] == JOURNAL:
            _, unstored = self.writes.pop()
            stored = [*unstored, *stored]
        self.writes.append((JOURNAL, stored))

    def _stored(self, record: JournalRecord) -> StoredRecord:
        record = replace(record, session=self.session)
        if isinstance(record, CallBatch) and not self._sends_all(self.run):
            record.reply = ""
        return {"step": self.step, "in": self.session, **record.stored()}

    def finish_step(self) -> None:
        """Write that a step is finished."""
        self.writes.append((STEP, len(self.journal.batches)))

    def add_result(self, result: CallResult) -> None:
        """Add a result, and write it down."""
        self.journal.add_result(result)
        self.write_records([self.with_batch(result)])

    def add_batch(self, reply: str, calls: Sequence[ProgramCall]) -> None:
        """Add a reply that asks for calls; see `CallBatch`.

        A batch that follows from its result has no record of its own, which would be a row of the
        checkpointer. If the process ends before the result, the same request gets the same reply
        again (`docs/behaviour.md`, T2).
        """
        batch = CallBatch(reply, tuple(calls), step=self.step)
        self.journal.add(batch)
        if batch.follows_from_result and not self._sends_all(self.run):
            self._unwritten = batch
        else:
            self.write_records(batch.records())

    def with_batch(self, result: CallResult) -> CallResult:
        """A result with its batch, if that has no record."""
        batch = self._unwritten
        if batch is None or result.handle or result.id != batch.calls[0].id:
            return result
        return result.in_batch(batch)

    def store_waiting(self, loop: _compat.PregelLoop) -> None:
        """Store the call that has no result, if the run stops there.

        It may be continued later than a service keeps its replies.
        """
        batch, self._unwritten = self._unwritten, None
        if batch is not None and batch.waiting:
            self.write_records([batch])
            self.store(loop)

    def add_denial(self, denied: DeniedCall) -> None:
        """Add a denied call that a human may approve, and write it down."""
        self.journal.denials.append(denied)
        self.write_records(denied.records())

    def refuse(self, facts: dict[str, Any], field: str) -> None:
        """End the run with a denial, whose facts become the value of a state field."""
        self.journal.refused = facts
        self.write_records([Refusal(facts)])
        self.writes.append((field, facts))

    def reset(self, step: int) -> None:
        """Empty the journal for a run that begins with this step."""
        self.journal, self.step, self._unwritten = Journal(), step, None

    def start(self, run: ProgramRun, early: Iterable[Sequence[CallResult]]) -> None:
        """Begin a run in its session.

        Args:
            run: The run.
            early: Results of routers that precede their calls, by task.
        """
        run = self._write(run)
        self.write_records([run.start(self.step)])
        if (objects := current_objects()) is not None and objects.fresh:
            self.journal.objects = dict(objects.fresh)
            self.write_records([StartObjects(self.journal.objects)])
            self.objects.load(self.journal.objects)
        for results in early:
            for result in results:
                self.journal.add_result(result)
            self.write_records(results)

    def restart(self, run: ProgramRun, batches: Iterable[CallBatch]) -> None:
        """Continue the run in a new session, with the recorded calls as that session has them."""
        self.journal.batches[:], self._unwritten = [], None
        for batch in batches:
            self.journal.add(batch)
        run = self._write(replace(run, has_start=True))
        self.write_records([run.start(self.step), *self.journal.records()])

    def mark_over(self) -> None:
        """Record that the program does not know the state after this step; a new run follows."""
        self._write(replace(self.run, is_over=True))

    def _write(self, run: ProgramRun) -> ProgramRun:
        self._number += 1
        self.record = self.newest = run = replace(run, number=self._number)
        self.writes.append((RUN, run.stored()))
        return run

    def keep_labels(self, labels: FieldLabels) -> None:
        """Record the labels of the fields; they replace the journal of the run."""
        record = self._between_runs(labels, last_session=self.session, number=self._number + 1)
        self.newest = record
        self.writes, self._stored_writes = [(RUN, record.stored())], 0

    def keep_input(self, labels: FieldLabels, names: Sequence[str]) -> None:
        """Record the labels of the fields before an input, and the fields that it sets."""
        record = self._between_runs(labels, input_fields=names)
        self.writes += [(RUN, record.stored()), (JOURNAL, [SessionStart("").stored()])]

    def _between_runs(self, labels: FieldLabels, **facts: Any) -> FinishedRun:
        return FinishedRun(dict(labels), self.newest.session, self.newest.location, **facts)

    def store(self, loop: _compat.PregelLoop) -> None:
        """Store the writes with the checkpoint before the step.

        The end of the step is stored with the checkpoint after it, and not before.
        """
        writes = [write for write in self.writes if write[0] != STEP]
        if len(writes) > self._stored_writes and loop.checkpointer is not None:
            self._stored_writes = len(writes)
            loop.put_writes(key_of_writes(f"{OWN_WRITES}:{self.session}"), writes)

    def ends_calls(self, loop: _compat.PregelLoop) -> bool:
        """Whether the calls in the journal's channel do not count after this step."""
        written = (entry for name, new in self.writes if name == JOURNAL for entry in new)
        channel = loop.channels[JOURNAL]
        return channel.is_available() and ends_calls(channel.get(), written)

    def end_of_run(self) -> Sequence[tuple[str, Any]]:
        """The writes after which a checkpoint has a finished run without its journal."""
        if self.record is None or not isinstance(self.newest, FinishedRun):
            return ()
        writes = [(RUN, self.newest.stored()), (JOURNAL, [SessionStart("").stored()])]
        return [*writes, (STEP, len(self.journal.batches))]

    def read_thread(self, loop: _compat.PregelLoop) -> ThreadRecord | None:
        """The record of a thread: a run, or what it keeps between two runs.

        `None` for a thread that no executor has run.
        """
        written = [value for _, channel, value in loop.checkpoint_pending_writes if channel == RUN]
        channel = loop.channels[RUN]
        if written and not loop.is_replaying:
            stored = max(written, key=lambda record: record.get("number", 0))
            self._number = stored.get("number", 0)
        else:
            stored = channel.get() if channel.is_available() else None
        record = read_thread_record(stored) if stored else None
        if isinstance(record, ProgramRun) and record.has_start:
            records = [*records_of(loop, record.session), *records_of_step(loop)]
            record = record.with_start(records)
        self.newest = record or FinishedRun({})
        return record

    def load(self, loop: _compat.PregelLoop, run: ProgramRun) -> bool:
        """Read the stored journal of a run: the channel, and the records of an open step.

        Returns:
            Whether a step is open.

        Raises:
            UsageError: If the journal is missing.
        """
        self.record = run
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        writes = [
            (channel, value)
            for task, channel, value in pending
            if channel in (RUN, JOURNAL) and task not in loop.tasks
        ]
        # The last record counts, and a checkpointer gives back those of several runs in any order.
        writes.sort(key=lambda write: write[1].get("number", 0) if write[0] == RUN else math.inf)
        of_step = records_of_step(loop)
        of_tasks = results_with_batches(loop, self.session)
        records = [*records_of(loop, self.session), *of_step, *of_tasks]
        for record in records:
            if isinstance(record, CallResult | StartObjects):
                self.objects.load(record.objects or {})
        self.journal = read_journal(records, self.session)
        if not (self.journal.batches or self.journal.denials or self.is_refused):
            raise UsageError(LOST)
        self.writes = writes
        self._stored_writes = len(self.writes)
        steps = (record.step for record in records if record.session == self.session)
        self.step = max([0, *steps])
        return bool(of_step or of_tasks)
