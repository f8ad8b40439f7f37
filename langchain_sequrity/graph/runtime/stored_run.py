"""What a thread has stored of a run, and what was changed from outside since."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from langchain_sequrity import _compat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.journal import (
    LOST,
    CallBatch,
    CallResult,
    DeniedCall,
    JournalRecord,
    ProgramRun,
    Refusal,
    read_journal,
    read_record,
    records_of_session,
)
from langchain_sequrity.graph.program import JOURNAL, OUTPUT, RUN, STEP


def is_edited(loop: _compat.PregelLoop, since: Any = None) -> bool:
    """Whether the state was changed from outside since the last step of a run.

    Args:
        loop: LangGraph's loop.
        since: See `ProgramRun`.
    """
    of_run = newest_of_run(loop.checkpoint["channel_versions"], since)
    newest = newest_version(loop)
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
    numbers = (version_number(version) for name, version in versions.items() if name != JOURNAL)
    return max(numbers, default=None)


def version_number(version: Any) -> Any:
    """The version of a channel as a number, without the random part that checkpointers add.

    The writes of a `Command` are applied again each time that a run continues, under another random
    part.
    """
    number = version.partition(".")[0] if isinstance(version, str) else version
    return int(number) if isinstance(number, str) and number.isdecimal() else number


def newest_of_run(versions: Mapping[str, Any], since: Any) -> Any:
    """The newest version that a run has seen: at its start, or after its last step."""
    seen = (versions.get(STEP), None if since is None else since[0])
    return max((version_number(version) for version in seen if version is not None), default=None)


def check_whole(loop: _compat.PregelLoop, run: ProgramRun) -> None:
    """Check that the checkpointer gives back the whole journal of a run.

    Raises:
        UsageError: If it does not.
    """
    record = loop.channels[RUN]
    if not record.is_available() or record.get().get("session") != run.session:
        return  # it began in the step that is open
    of_session = [r for r in records_of(loop, run.session) if r.session == run.session]
    batches = read_journal(of_session, run.session).batches
    if len(batches) < loop.channels[STEP].get():
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


def results_with_batches(loop: _compat.PregelLoop, session: str | None) -> list[CallResult]:
    """The results of tasks of the open step whose batches have no record."""
    pending = () if loop.is_replaying else loop.checkpoint_pending_writes
    outputs = (value["writes"] for _, channel, value in pending if channel == OUTPUT)
    of_tasks = [(channel, value) for task, channel, value in pending if task in loop.tasks]
    written = [value for channel, value in chain(of_tasks, *outputs) if channel == JOURNAL]
    results = map(CallResult.read, chain.from_iterable(written))
    return [r for r in results if r.session == session and r.reply_number is not None]


def records_of_step(loop: _compat.PregelLoop) -> list[JournalRecord]:
    """The driver's journal records of the open step."""
    pending = () if loop.is_replaying else loop.checkpoint_pending_writes
    return [
        read_record(record)
        for task, channel, written in pending
        if channel == JOURNAL and task not in loop.tasks
        for record in written
    ]
