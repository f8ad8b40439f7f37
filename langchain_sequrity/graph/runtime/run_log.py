"""The log of one run: its record, its journal, and the driver's writes, which store both."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langchain_sequrity import _compat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.codec.values import ObjectHandles, current_objects
from langchain_sequrity.graph.journal import (
    OBJECTS,
    DeniedCall,
    Journal,
    JournalEntry,
    ProgramCall,
    ProgramRun,
    Round,
    read_journal,
)
from langchain_sequrity.graph.program import JOURNAL, RUN, STEP
from langchain_sequrity.graph.runtime.requests import (
    LOST,
    FieldLabels,
    entries_of,
    journal_entries_of_step,
)

OWN_WRITES = str(uuid5(NAMESPACE_OID, "sequrity"))
"""The task id of the driver's own writes."""

KEPT_LABELS, INPUT_FIELDS, LAST_SESSION = "kept", "given", "of"
"""Keys of the record of a thread without a run: labels of its fields, fields of its input, and the
key of its last run.
"""
SESSION, PLACE = "session", "place"
"""Keys of every record: the newest session of the thread, and where it is (`ProgramRun`)."""


class RunLog:
    """What a thread stores about a run.

    Attributes:
        record: The run; `None` before it begins.
        journal: Its calls and results.
        step: The number of the step, counted from 1; 0 for the routers of START.
        writes: Writes of the driver, to apply with the step.
        objects: The objects behind the handles in the journal.
        thread_session: The thread's newest session and its place, as every record has them.
    """

    def __init__(self) -> None:
        self.record: ProgramRun | None = None
        self.journal = Journal()
        self.step = 0
        self.writes: list[tuple[str, Any]] = []
        self.objects = ObjectHandles()
        self.thread_session: dict[str, Any] = {}
        self._stored = 0
        self._number = 0

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
    def is_refused(self) -> bool:
        """Whether a denial ended the run."""
        return self.journal.refused is not None

    @property
    def last(self) -> Round | None:
        """The last reply that asks for calls."""
        return self.journal.rounds[-1] if self.journal.rounds else None

    @property
    def waiting(self) -> list[ProgramCall]:
        """The calls that wait for a result."""
        last = self.last
        return [] if last is None else last.waiting

    def begin_step(self) -> None:
        """Forget the writes of the last step, which LangGraph has applied."""
        self.writes, self._stored = [], 0

    def write_entries(self, entries: Sequence[JournalEntry]) -> None:
        """Write entries to the journal's channel."""
        noted = [{"step": self.step, **one, "in": self.session} for one in entries]
        self.writes.append((JOURNAL, noted))

    def note_step(self) -> None:
        """Write that a step is finished."""
        self.writes.append((STEP, len(self.journal.rounds)))

    def add_result(self, entry: JournalEntry) -> None:
        """Add a result, and write it down."""
        self.journal.add_result(entry)
        self.write_entries([entry])

    def add_round(self, said: str, calls: Sequence[ProgramCall]) -> None:
        """Add a reply that asks for calls, and write it down; see `Round`."""
        one = Round(said, tuple(calls), step=self.step)
        self.journal.add(one)
        self.write_entries(one.entries())

    def add_denial(self, denied: DeniedCall) -> None:
        """Add a denied call that a human may approve, and write it down."""
        self.journal.denials.append(denied)
        self.write_entries(denied.entries())

    def refuse(self, facts: dict[str, Any], field: str) -> None:
        """End the run with a denial, whose facts become the value of a state field."""
        self.journal.refused = facts
        self.write_entries([{"refused": facts}])
        self.writes.append((field, facts))

    def reset(self, step: int) -> None:
        """Empty the journal for a run that begins with this step."""
        self.journal, self.step = Journal(), step

    def start(self, run: ProgramRun, early: Iterable[Sequence[JournalEntry]]) -> None:
        """Begin a run in its session.

        Args:
            run: The run.
            early: Results of routers that precede their calls, by task.
        """
        self._write(run)
        self.write_entries([{"reset": run.session or "", "open": self.step}])
        if (here := current_objects()) is not None and here.fresh:
            self.journal.objects = dict(here.fresh)
            self.write_entries([{OBJECTS: self.journal.objects}])
            self.objects.load(self.journal.objects)
        for entries in early:
            for entry in entries:
                self.journal.add_result(entry)
            self.write_entries(entries)

    def restart(self, run: ProgramRun, rounds: Sequence[Round]) -> None:
        """Continue the run in a new session, with the recorded calls as that session has them."""
        self.journal.rounds[:] = []
        for one in rounds:
            self.journal.add(one)
        self._write(run)
        begun = {"reset": run.session or "", "open": self.step}
        self.write_entries([begun, *self.journal.entries()])

    def mark_over(self) -> None:
        """Record that the program does not know the state after this step; a new run follows."""
        self._write(replace(self.run, is_over=True))

    def _write(self, run: ProgramRun) -> None:
        self._number += 1
        self.record = run = replace(run, number=self._number)
        self.thread_session = {SESSION: run.session, PLACE: run.place}
        self.writes.append((RUN, asdict(run)))

    def keep_labels(self, labels: FieldLabels) -> None:
        """Record the labels of the fields; they replace the journal of the run."""
        place = {LAST_SESSION: self.session, "number": self._number + 1}
        record = {KEPT_LABELS: labels, **place, **self.thread_session}
        self.writes, self._stored = [(RUN, record)], 0

    def keep_input(self, labels: FieldLabels, names: Sequence[str]) -> None:
        """Record the labels of the fields before an input, and the fields that it sets."""
        self.writes += [
            (RUN, {KEPT_LABELS: labels, INPUT_FIELDS: names, **self.thread_session}),
            (JOURNAL, [{"reset": ""}]),
        ]

    def store(self, loop: _compat.PregelLoop) -> None:
        """Store the writes with the checkpoint before the step."""
        if len(self.writes) > self._stored and loop.checkpointer is not None:
            self._stored = len(self.writes)
            key = str(uuid5(NAMESPACE_OID, f"{OWN_WRITES}:{self.session}"))
            loop.put_writes(key, list(self.writes))

    def stored_record(self, loop: _compat.PregelLoop) -> Any:
        """The record of a thread: a run, or the labels of its fields between two runs."""
        noted = [one for _, channel, one in loop.checkpoint_pending_writes if channel == RUN]
        if noted and not loop.is_replaying:
            newest = max(noted, key=lambda one: one.get("number", 0))
            self._number = newest.get("number", 0)
            return newest
        channel = loop.channels[RUN]
        return channel.get() or None if channel.is_available() else None

    def load(self, loop: _compat.PregelLoop, run: ProgramRun) -> bool:
        """Read the stored journal of a run: the channel, and the entries of an open step.

        Returns:
            Whether a step is open.

        Raises:
            UsageError: If the journal is missing.
        """
        self.record = run
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        writes = [
            (channel, written)
            for task, channel, written in pending
            if channel in (RUN, JOURNAL) and task not in loop.tasks
        ]
        # The last record counts, and a checkpointer gives back those of several runs in any order.
        writes.sort(key=lambda write: write[1].get("number", 0) if write[0] == RUN else math.inf)
        noted = journal_entries_of_step(loop)
        entries = [*entries_of(loop, self.session), *noted]
        for one in entries:
            self.objects.load(one.get(OBJECTS, {}))
        self.journal = read_journal(entries, self.session)
        if not (self.journal.rounds or self.journal.denials or self.is_refused):
            raise UsageError(LOST)
        self.writes = writes
        self._stored = len(self.writes)
        steps = [one.get("step", 0) for one in entries if one.get("in") == self.session]
        self.step = max(steps, default=0)
        return bool(noted)
