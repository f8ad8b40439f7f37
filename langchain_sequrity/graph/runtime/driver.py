"""The driver of one run: it matches LangGraph's tasks with the calls of the service.

LangGraph decides which tasks run. The service decides whether they may run, and with which
arguments. Both take the same steps. Before a step, the driver sends the results of the last one,
and the service asks for the calls of this one. A task waits for its call, runs with the arguments
of the call, and writes its result to the journal. If LangGraph and the service disagree, no task
runs.

A state that the service did not make starts a new run: a first input, an edited state, a thread of
the plain graph. Its fields are context variables, with their known labels (`StateVariables`).
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.graph import START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    ProgramFailed,
    StatusError,
    TurnFailed,
    UsageError,
)
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.approval import in_graph
from langchain_sequrity.graph.codec.channels import copy_ids
from langchain_sequrity.graph.codec.values import Objects, current_objects
from langchain_sequrity.graph.dispatch import NodeResult
from langchain_sequrity.graph.journal import (
    APPROVED,
    EARLY,
    GIVES,
    OBJECTS,
    DeniedCall,
    Journal,
    JournalEntry,
    ProgramCall,
    ProgramRun,
    Round,
    for_call,
    read_journal,
    result_entry,
    whole_steps,
)
from langchain_sequrity.graph.program import ACTIVE, HANDLE, JOURNAL, OUTPUT, RUN, STEP, ToolSpec
from langchain_sequrity.graph.runtime.events import HumanDecided, RequestWatch, new_run
from langchain_sequrity.graph.runtime.requests import (
    LOST,
    NO_LABELS,
    CallsRequested,
    Channels,
    ExecutorParts,
    FieldLabels,
    Meta,
    Recording,
    RunFinished,
    ServiceAnswer,
    StateVariables,
    Work,
    adriven,
    ask,
    check_whole,
    driven,
    entries_of,
    has_asked_nothing,
    is_edited,
    newest_version,
    noted_in,
    replay,
    writes_from_outside,
)
from langchain_sequrity.interrupts import check_can_ask
from langchain_sequrity.labels import Labels, labels_given
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.error_body import is_session_gone

DRIVER = "__sequrity_driver"
"""Key of `configurable` with the driver of a run."""

OWN_WRITES = str(uuid5(NAMESPACE_OID, "sequrity"))
"""The task id of the driver's own writes."""

_INPUT_BESIDE = (
    "An input waits beside other tasks of the thread, and START has routers: the service cannot "
    "call them there. Give the input again, or continue from another checkpoint."
)

_KEPT, _GIVEN, _OF = "kept", "given", "of"


class RunStopped(GraphBubbleUp):
    """An error of the run, not of a task: it bypasses the task's retries and handlers."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class StepMismatch(BadReply):
    """LangGraph and the service disagree on the due tasks, or on the end of the run."""


@dataclass(slots=True)
class _RouterCall:
    """A router of a task.

    Attributes:
        call: Its call; `None` until the service asks for it.
        entry: Its result.
    """

    call: ProgramCall | None = None
    entry: JournalEntry | None = None


@dataclass(slots=True)
class Task:
    """A task of LangGraph that answers a call.

    Attributes:
        id: Its id in LangGraph.
        node: Its node.
        is_packet: Whether a `Send` started it.
        call: Its call; `None` until the service asks for it.
        entry: Its result; `None` until it is known.
        routers: Its routers by the names of their tools.
        handle: The first answer to its call if it runs beside others.
        early: Results of its routers that precede their calls.
        offered: The denied call of the task or of one of its routers, if a human may approve it.
        is_left: Whether it failed or waits for an answer, so it gives no result now.
        is_done: Whether it ended in an earlier attempt of the step, so it does not run.
        has_lost: Whether LangGraph did not store all of its results.
    """

    id: str
    node: str
    is_packet: bool
    call: ProgramCall | None = None
    entry: JournalEntry | None = None
    routers: dict[str, _RouterCall] = field(default_factory=dict)
    handle: str = ""
    early: list[JournalEntry] = field(default_factory=list)
    offered: DeniedCall | None = None
    is_left: bool = False
    is_done: bool = False
    has_lost: bool = False

    def forget_calls(self) -> None:
        """Drop the calls; another session will ask for its own."""
        self.call, self.handle = None, ""
        for routed in self.routers.values():
            routed.call = None

    @property
    def kept(self) -> list[JournalEntry]:
        """Its results so far."""
        return [*([self.entry] if self.entry is not None else []), *self.early]

    @property
    def written(self) -> Iterator[JournalEntry | None]:
        """The results that the task writes itself."""
        yield self.entry
        for routed in self.routers.values():
            yield routed.entry

    @property
    def is_approved(self) -> bool:
        """Whether a human approved its call, so that the program does not make it."""
        return self.entry is not None and str(self.entry["id"]).startswith(APPROVED)


class Driver:
    """Drives one run.

    Args:
        parts: The parts that all runs of the executor share.
        is_timed: Whether steps have a timeout, which is for nodes and not for requests.
    """

    def __init__(self, parts: ExecutorParts, *, is_timed: bool = False) -> None:
        self._parts, self._is_timed = parts, is_timed
        self.run_id = new_run(parts.name)
        self._record: ProgramRun | None = None
        self._journal = Journal()
        self._tasks: dict[str, Task] = {}
        self._handlers: dict[str, str] = {}
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self._raw: dict[str, list[tuple[str, Any]]] = {}
        self._shown: list[tuple[Any, Any]] = []
        self._own: list[tuple[str, Any]] = []
        self._stored = 0
        self._step = 0
        self._labels_at_start: dict[str, Meta] = {}
        self._given: list[str] | None = None
        self._work: Work | None = None
        self._states = StateVariables(parts)
        self.objects = Objects()
        self._watching: RequestWatch
        self._ended: RunFinished | None = None
        self._is_new = True
        self._is_start = False
        self._is_within = False
        self._is_resumed = False
        self._broken: BaseException | None = None
        self._changed = threading.Condition()
        self._achanged: asyncio.Condition | None = None

    # Called by the loop

    @property
    def own_writes(self) -> Sequence[tuple[str, Any]]:
        """Writes of the driver, to apply with the step."""
        return self._own

    @property
    def session(self) -> str | None:
        """The session."""
        return None if self._record is None else self._record.session

    def run(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                driven(work, self._parts.transport(), self._parts.exchange)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._store(loop)

    async def arun(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        self.run_id["mode"] = "async"
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                await adriven(work, self._parts.transport(), self._parts.exchange)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._store(loop)

    def step(self, loop: _compat.PregelLoop) -> Work | None:
        """Begin a step.

        Returns:
            The requests for its calls, if they cannot wait; else `None`. Then the first task makes
            them, after streams have shown the last step.
        """
        self._own, self._stored, self._raw, self._shown = [], 0, {}, []
        self._loop = loop
        due = list(loop.tasks.values())
        waiting = self._parts.program.waiting
        if len(due) > 1 and any(one.name in waiting for one in due):
            # LangGraph starts tasks in this order, and only as many as it has threads. The task
            # that the program calls first must be among them: the others wait for it.
            due = sorted(due, key=_place_of)
            loop.tasks = {one.id: one for one in due}
        self._is_start = [one.name for one in due] == [START]
        self._work = self._ask(loop)
        # A node's cache and timeout start after its call.
        is_bound = self._is_timed or any(one.cache_key or one.timeout is not None for one in due)
        is_lazy = any(not one.writes for one in due) and not is_bound
        return self._taken_work() if self._is_start or not is_lazy else None

    def _taken_work(self) -> Work:
        work, self._work = self._work, None
        if work is not None:
            yield from work

    def _ask(self, loop: _compat.PregelLoop) -> Work:
        """Request the calls of the due tasks."""
        if self._is_new:
            yield from self._restore(loop)
        if self._is_start:
            return
        if self._record is None:
            self._tasks = self._tasks_of(loop)
            yield from self._begin(loop, self._labels_at_start, is_start=True)
        elif self._is_within:
            self._is_within = False
        else:
            self._tasks = self._tasks_of(loop)
            if self._record.is_over:
                yield from self._begin_from_state(loop)
            else:
                self._step += 1
                self._assign_waiting()
        if all(one.writes for one in loop.tasks.values()):
            yield from self._catch_up()
            return
        try:
            yield from self._go_along(loop)
        except (StepMismatch, ProgramFailed):
            # After a change from outside, more tasks may be due than the program knows.
            if not self._may_disagree:
                raise
            yield from self._begin_from_state(loop)
            yield from self._go_along(loop)
        if self._refused:
            self._end_tasks(loop)

    @property
    def _may_disagree(self) -> bool:
        """Whether the thread may have changed in a way that the program does not know."""
        return self._is_resumed or (self._run.begins_at != "start" and self._step > 1)

    def _go_along(self, loop: _compat.PregelLoop) -> Work:
        yield from self._advance()
        yield from self._begin_again(loop)
        if not self._refused:
            self._check_due()

    def _catch_up(self) -> Work:
        """Request the calls of a step that has all results; the next step sends the rest.

        Otherwise late calls would be taken for those of the next step, which may have the same
        nodes.
        """
        try:
            yield from self._advance(until=lambda: self._has_all_calls)
            self._check_due()
        except (StepMismatch, ProgramFailed):
            self._end_record()
            return
        if not (self._refused or self._has_all_calls):
            self._end_record()

    @property
    def _has_all_calls(self) -> bool:
        """Whether the service has asked for all results of this step."""
        return all(
            slot.entry is not None
            and (slot.call is not None or slot.is_approved)
            and all(one.call is not None for one in slot.routers.values() if one.entry is not None)
            for slot in self._tasks.values()
        )

    def _end_record(self) -> None:
        """Record that the program does not know the state after this step; a new run follows."""
        self._record = replace(self._run, is_over=True)
        self._own.append((RUN, self._record.to_json()))

    def _begin_from_state(self, loop: _compat.PregelLoop) -> Work:
        """Start a run from LangGraph's state, within another run."""
        for slot in self._tasks.values():
            slot.forget_calls()
        labels = yield from self._labels_so_far(loop)
        yield from self._begin(loop, labels, is_start=False)

    def _labels_so_far(self, loop: _compat.PregelLoop) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields before this step."""
        return (yield from self._labels_after(loop, self._run))

    def _labels_after(
        self, loop: _compat.PregelLoop, run: ProgramRun
    ) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields after the finished steps of a run."""
        check_whole(loop, run)
        noted = whole_steps(noted_in(loop), run.session)
        entries = [*entries_of(loop, run.session), *noted]
        return (yield from self._states.after(run, entries))

    def _begin_again(self, loop: _compat.PregelLoop) -> Work:
        """Continue with a new program after one has taken its highest number of steps."""
        while self._ended is not None and not self._refused:
            if not self._is_active(self._ended):
                msg = "The program has ended, but LangGraph has tasks left. Its result is not used."
                raise StepMismatch(msg, session_id=self._ended.session_id)
            labels = self._states.reported(self._ended.result)
            yield from self._begin(loop, labels, is_start=False)
            yield from self._advance()

    @property
    def _waiting(self) -> list[ProgramCall]:
        """The calls that wait for a result."""
        return [call for one in self._journal.rounds[-1:] for call in one.waiting]

    def _assign_waiting(self) -> None:
        for call in self._waiting:
            self._assign(call)

    def _check_due(self) -> None:
        """Check that the service asks for LangGraph's tasks.

        Raises:
            BadReply: If it does not.
        """
        for call in self._waiting:
            if not self._is_due(call):
                msg = (
                    f"The service asks for `{plain(call.tool)}`, but LangGraph does not run this "
                    "node in this step. The call is not made."
                )
                raise StepMismatch(msg, session_id=self.session)

    def after_step(self, loop: _compat.PregelLoop) -> None:
        """Add the results of the step to the journal, before LangGraph applies its writes."""
        starts = [one for one in loop.tasks.values() if one.name == START]
        if self._is_start:
            [start] = starts
            fields = self._parts.spec.channels
            self._given = [name for name, _ in start.writes if name in fields]
            if self._record is None:
                note = {_KEPT: self._labels_at_start, _GIVEN: self._given}
                self._own += [(RUN, note), (JOURNAL, [{"reset": ""}])]
        self._take_written(loop)
        for raw, written in self._shown:
            copy_ids(raw, written)
        if starts and not self._is_start and self._record is not None:
            self._end_record()  # an input beside tasks is applied together with their writes
        elif any(slot.has_lost for slot in self._tasks.values()) and not self._refused:
            self._end_record()
        self._own.append((STEP, len(self._journal.rounds)))
        self._store(loop)

    def _take_written(self, loop: _compat.PregelLoop) -> None:
        written = (one for task in loop.tasks.values() for one in task.writes)
        for entry in (one for channel, entries in written if channel == JOURNAL for one in entries):
            if entry["in"] == self.session:
                self._journal.take(entry)
        for call in self._waiting:  # finished tasks may have earlier results
            self._answer(call)

    def failed_to_apply(self, loop: _compat.PregelLoop) -> Sequence[tuple[str, Any]]:
        """Handle a step whose writes LangGraph could not apply.

        With durability "exit" it stores the half-applied state, and the thread continues from it.
        The program of the run never has such a state, so the next run starts from it.

        Returns:
            Writes to apply to that state. With them, no field is newer than the last step, so the
            fields that the step changed keep their labels.
        """
        if loop.durability != "exit" or self._record is None:
            return ()
        self._keep_labels(self._states.all_labels(self._journal.entries(), self._record))
        self._store(loop)
        return [*self._own, (STEP, len(self._journal.rounds))]

    def close(self) -> None:
        """Drop the reference to the loop, which refers to this driver."""
        for name in ("_loop", "_watching"):
            vars(self).pop(name, None)
        self._work = None

    def finish(self, loop: _compat.PregelLoop) -> Work:
        """Send the last results, and store the labels of the fields."""
        self._own, self._stored = [], 0
        ran_nothing = self._is_new
        if self._is_new:
            self._is_new = False
            record = self._stored_record(loop)
            if record is None or _KEPT in record or is_edited(loop, record["since"]):
                return
            yield from self._go_on(loop, ProgramRun(**record))
        if self._record is None:  # nothing followed START
            kept = self._states.without(self._labels_at_start, self._given or ())
            self._own = [(RUN, {_KEPT: kept})] if self._given is not None else []
            return
        if self._run.is_over:
            self._keep_labels((yield from self._labels_so_far(loop)))
            return
        self._tasks = {}
        yield from self._advance()
        if ran_nothing and self._ended is None:
            return  # LangGraph has left this run: the due tasks were removed from outside
        if self._refused:
            return
        ended = self._ended
        # A run from a state may have begun with a node whose router LangGraph no longer calls.
        may_disagree = self._may_disagree or self._run.begins_at != "start"
        if may_disagree and (ended is None or self._is_active(ended)):
            self._keep_labels((yield from self._labels_so_far(loop)))
        else:
            self._keep_labels(self._checked_end())

    def _keep_labels(self, labels: FieldLabels) -> None:
        """Record the labels of the fields; they replace the journal of the run."""
        self._own, self._stored = [(RUN, {_KEPT: labels, _OF: self.session})], 0

    def _checked_end(self) -> dict[str, Meta]:
        """The labels of the fields at the end, after a check that the program has ended too.

        Raises:
            BadReply: If it has not.
        """
        ended = self._ended
        if ended is None:
            msg = (
                f"The program continues with `{plain(self._waiting[0].tool)}`, but LangGraph has "
                "ended. Its result is not used."
            )
            raise BadReply(msg, session_id=self.session)
        if self._is_active(ended):
            msg = "The program has work left, but LangGraph has ended."
            raise BadReply(msg, session_id=ended.session_id)
        labels = ended.result.labels
        if labels is None:  # they decide what the next run may do
            msg = "The service reports the final value of the run without its labels."
            raise BadReply(msg, session_id=ended.session_id)
        labels_given(labels.without_reserved())  # to an executor around this one
        return self._states.reported(ended.result)

    def cached(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Use the results in a node's cache for the calls of these tasks."""
        for task in tasks:
            slot = self._tasks.get(task.id)
            for index, (channel, entries) in enumerate(task.writes):
                if channel == JOURNAL and slot is not None:
                    task.writes[index] = (JOURNAL, self._adopted(slot, entries))
        return tasks

    def told(self, loop: _compat.PregelLoop, task_id: str, channels: Sequence[str]) -> None:
        """Handle the end of a task: an error, a question, or success."""
        slot = self._tasks.get(task_id)
        if slot is not None and _compat.is_left(channels):
            slot.is_left = True
            self._notify(loop)

    def handles(self, handler: str, task: str) -> None:
        """Record that a task handles the error of another one."""
        self._handlers[handler] = task

    def is_silent(self, writes: Any) -> bool:
        """Whether a task has not run because the run ends with a denial."""
        return self._refused and all(channel == _compat.NO_WRITES for channel, _ in writes)

    def returned(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as its node returned them."""
        raw = self._raw.get(task_id)
        if raw is None or _compat.is_left([channel for channel, _ in writes]):
            return writes
        rest = [one for one in writes if one[0] not in self._parts.spec.channels]
        return [*raw, *rest]

    # Called by the tasks

    def begin(self, task_id: str) -> None:
        """Wait until the calls of the step are requested.

        Raises:
            RunStopped: If the run cannot continue.
        """
        self._wait(lambda: self._work is None, task_id)

    async def abegin(self, task_id: str) -> None:
        """Wait until the calls of the step are requested; see `begin`."""
        await self._await(lambda: self._work is None, task_id)

    def call_of(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task.

        Returns:
            The call; or the denied call, which a human may approve; `None` if the run ends with a
            denial.

        Raises:
            RunStopped: If the run cannot continue.
            GraphInterrupt: If another task of the step first needs an answer or another attempt.
        """
        self._wait(lambda: self._is_told(task_id), task_id)
        return self._told(task_id)

    async def acall_of(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task; see `call_of`."""
        await self._await(lambda: self._is_told(task_id), task_id)
        return self._told(task_id)

    def _is_told(self, task_id: str) -> bool:
        slot = self._tasks.get(self._origin(task_id))
        return self._refused or (slot is not None and (slot.offered or slot.call) is not None)

    def _told(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        slot = self._slot(task_id)
        return None if self._refused else slot.offered or slot.call

    def router_call(self, task_id: str, tool: ToolSpec) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task's router; `None` if the run ends with a denial."""
        routed = self._routed(task_id, tool)
        slot = self._slot(task_id)
        self._wait(lambda: bool(routed.call or slot.offered or self._refused), task_id)
        return routed.call or slot.offered

    async def arouter_call(self, task_id: str, tool: ToolSpec) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task's router; see `router_call`."""
        routed = self._routed(task_id, tool)
        slot = self._slot(task_id)
        there = lambda: bool(routed.call or slot.offered or self._refused)  # noqa: E731
        await self._await(there, task_id)
        return routed.call or slot.offered

    def has_output(self, task_id: str) -> Any:
        """The stored output of an earlier attempt, whose router did not finish."""
        return self._outputs.get(_output_of(self._origin(task_id))) if self._outputs else None

    def answered(self, task_id: str, entry: JournalEntry) -> None:
        """Record the result of a task."""
        slot = self._slot(task_id)
        slot.entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        if HANDLE in entry:
            self._journal.take(entry)
        if slot.offered is not None:
            slot.offered.result, slot.offered = entry, None

    def call_before(self, task_id: str, tool: ToolSpec) -> ProgramCall:
        """A provisional call for a router that runs before the service asks for it.

        Its id sorts in the order in which the service will ask.
        """
        place = list(self._tasks).index(self._slot(task_id).id)
        at = f"{self._step:06}:{place:06}:{tool.name}"
        return ProgramCall(at, tool.name, {})

    def keep_output(self, task_id: str, output: Mapping[str, Any]) -> Any:
        """Store the output of a node before its router is called, so the node does not run again.

        Returns:
            A future that is done when it is stored; `None` if there is no need to wait.
        """
        key = _output_of(self._origin(task_id))
        self._outputs[key] = output
        return _compat.keep_writes(self._loop, key, [(OUTPUT, output)])

    def routed(self, task_id: str, tool: ToolSpec, entry: JournalEntry) -> None:
        """Record the result of a router."""
        if EARLY in entry:
            self._journal.take(entry)
            return
        self._routed(task_id, tool).entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        slot = self._slot(task_id)
        if slot.offered is not None and slot.offered.tool == tool.name:
            slot.offered.result, slot.offered = entry, None

    def handle_of(self, task_id: str) -> str:
        """The handle for the result of a task that runs beside others; empty for other tasks."""
        return self._slot(task_id).handle

    def shows(self, task_id: str, found: NodeResult) -> None:
        """Keep the output of a node as streams show it."""
        pairs = [*zip(found.raw, (value for _, value in found.writes), strict=True)]
        self._raw[task_id] = [
            (name, raw) for (name, _), (raw, _) in zip(found.writes, pairs, strict=True)
        ]
        self._shown += pairs

    def decided(self, offered: DeniedCall, objection: str | None) -> None:
        """Record a human's decision about a denied call.

        Args:
            offered: The denied call.
            objection: The human's objection; `None` if the call is approved.
        """
        with self._watch(self._loop) as watch:
            watch.tell(HumanDecided(offered, objection is None))
        offered.is_approved, offered.objection = objection is None, objection
        said = {} if objection is None else {"objection": objection}
        self._note([{"approved" if objection is None else "rejected": offered.digest, **said}])
        self._store(self._loop)

    # Waiting

    def _wait(self, there: Callable[[], bool], task_id: str) -> None:
        with self._changed:
            while not there():
                if self._can_go_on():
                    try:
                        self.run(self._loop, self._more())
                    except Exception as error:  # noqa: BLE001 - any error ends the run
                        self._broken = error
                        raise RunStopped(error) from None
                    finally:
                        self._changed.notify_all()
                else:
                    self._check(task_id)
                    self._changed.wait()

    async def _await(self, there: Callable[[], bool], task_id: str) -> None:
        if self._achanged is None:
            self._achanged = asyncio.Condition()
        async with self._achanged:
            while not there():
                if self._can_go_on():
                    try:
                        await self.arun(self._loop, self._more())
                    except Exception as error:  # noqa: BLE001 - any error ends the run
                        self._broken = error
                        raise RunStopped(error) from None
                    finally:
                        self._achanged.notify_all()
                else:
                    self._check(task_id)
                    await self._achanged.wait()

    def finished(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        with self._changed:
            self._changed.notify_all()

    async def afinished(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        if self._achanged is not None:
            async with self._achanged:
                self._achanged.notify_all()

    def _notify(self, loop: _compat.PregelLoop) -> None:
        if self._achanged is None:
            self.finished()
            return
        loop.submit(self.afinished)

    def _check(self, task_id: str) -> None:
        if self._broken is not None:
            raise RunStopped(self._broken)
        if any(one.is_left for one in self._tasks.values() if one.id != self._origin(task_id)):
            # The next call depends on a task that gives no result now.
            raise GraphInterrupt(())
        if self._ended is not None:
            msg = f"The program ended before the call of node `{self._slot(task_id).node}`."
            raise RunStopped(BadReply(msg, session_id=self.session))
        try:
            self._check_due()
        except BadReply as error:
            raise RunStopped(error) from None

    def _can_go_on(self) -> bool:
        if self._broken is not None:
            return False
        if self._work is not None:
            return True
        if self._ended is not None:
            return False
        if any(one.offered for one in self._tasks.values()):
            return False
        last = self._journal.rounds[-1:]
        return all(self._entry_for(call) is not None for one in last for call in one.waiting)

    def _more(self) -> Work:
        """Continue. If the run has not begun, the routers of START are called first."""
        if self._work is not None:
            yield from self._taken_work()
            return
        if self._record is None:
            yield from self._begin(self._loop, self._labels_at_start, is_start=True)
        yield from self._advance()

    # Requests

    def _advance(self, until: Callable[[], bool] = lambda: False) -> Work:
        """Send known results until the service waits for a task or the program ends."""
        while self._ended is None and not self._refused and not until():
            last = self._journal.rounds[-1:]
            for call in (call for one in last for call in one.waiting):
                self._answer(call)
            if any(one.offered for one in self._tasks.values()):
                return
            if len(self._journal.approved) > self._run.approvals:
                yield from self._again()
            elif not last or not last[0].is_answered:
                return
            else:
                yield from self._next(last[0])

    def _answer(self, call: ProgramCall) -> None:
        """Add the result of a call to the journal, if it is known."""
        entry = self._entry_for(call)
        if entry is None:
            return
        self._journal.take(entry)
        if not any(entry is own for one in self._tasks.values() for own in one.written):
            self._note([entry])

    def _next(self, last: Round) -> Work:
        exchange, run = self._parts.exchange, self._run
        results = exchange.results(last)
        told = exchange.told(self._journal.rounds) if exchange.tells_all else ()
        number = len(self._journal.rounds)
        try:
            answer = yield from ask(exchange.next(run, told, results, number))
        except StatusError as error:
            if not is_session_gone(error, run.session):
                raise
            yield from self._again()
            return
        self._take(answer, heard=results if exchange.tells_all else "")

    def _take(self, answer: ServiceAnswer | PolicyDenied, heard: str = "") -> None:
        if not isinstance(answer, PolicyDenied):
            self._watching.tell(answer)
        if isinstance(answer, PolicyDenied):
            self._deny(answer)
        elif isinstance(answer, RunFinished):
            self._ended = answer
        else:
            one = Round(answer.said, answer.calls, heard=heard, step=self._step)
            self._journal.add(one)
            self._note(one.entries())
            for call in answer.calls:
                self._assign(call)

    def _begin(self, loop: _compat.PregelLoop, labels: FieldLabels, *, is_start: bool) -> Work:
        """Start a run from LangGraph's state."""
        channels: Channels = loop.channels
        is_routing = self._is_start
        if is_routing:
            channels = self._with_input(loop)
        labels = self._states.without(labels, self._given or ()) if is_start else labels
        variables = self._states.variables(channels, labels)
        program, exchange = self._parts.program, self._parts.exchange
        entry = self._states.entry(loop, is_routing=is_routing)
        # A structured program can only begin at the targets of START's edges. An input that is a
        # `Command` may lead elsewhere.
        is_usual = is_start and self._states.is_usual(entry)
        if not (is_usual and program.kind == "structured"):
            variables |= entry
        for one in variables.values():  # an outer executor gathers kept labels
            if one["meta"] != NO_LABELS:
                labels_given(Labels.from_wire(one["meta"]).without_reserved())
        run = ProgramRun(
            None,
            dumps(variables),
            is_labelled=loop.checkpointer is not None,
            begins_at="start" if is_usual else self._states.place_of(entry),
            under=exchange.under,
            place=exchange.place,
            since=[newest_version(loop), writes_from_outside(loop)],
        )
        self._ended, self._journal, self._step = None, Journal(), 0 if is_routing else 1
        answer = yield from ask(exchange.first(run))
        self._start(run, answer)
        self._take(answer)

    def _start(self, run: ProgramRun, answer: ServiceAnswer | PolicyDenied) -> None:
        session = answer.session_id
        self._record = replace(run, session=session)
        self._own += [(RUN, self._record.to_json())]
        self._note([{"reset": session or "", "open": self._step}])
        if (here := current_objects()) is not None and here.fresh:
            self._journal.objects = dict(here.fresh)
            self._note([{OBJECTS: self._journal.objects}])
            self.objects.load(self._journal.objects)
        for slot in self._tasks.values():
            for entry in slot.early:
                self._journal.take(entry)
            self._note(slot.early)

    def _again(self) -> Work:
        """Continue in a new session, in which the journal answers the recorded calls."""
        parts, journal = self._parts, self._journal
        parts.approvals.check_all(journal)
        here, approved = parts.exchange, journal.approved
        run = replace(self._run, session=None, under=here.under, place=here.place)
        if len(approved) > run.approvals:
            base = parts.program.that_begins_at(run.begins_at).text
            program, results = parts.approvals.program_after(approved, base)
            variables = dumps({**loads(run.variables), **results})
            run = replace(run, variables=variables, program=program, approvals=len(approved))
        steps = [one.step for one in journal.rounds for _ in one.answered]
        recorded = Recording(journal.answered, [*steps, self._step], journal.kept)
        try:
            found = yield from replay(here, run, recorded)
        except PolicyDenied as denial:  # the policy is stricter now
            self._deny(denial)
            return
        if isinstance(found.answer, CallsRequested):
            self._watching.tell(found.answer)
        journal.rounds[:] = []
        for one in found.rounds:
            journal.add(one)
        for slot in self._tasks.values():
            slot.forget_calls()
        self._record = found.run
        self._own.append((RUN, found.run.to_json()))
        begun = {"reset": found.run.session or "", "open": self._step}
        self._note([begun, *journal.entries()])
        self._assign_step()
        if not isinstance(found.answer, CallsRequested):
            self._take(found.answer)

    # Denials

    @property
    def _refused(self) -> bool:
        return self._journal.refused is not None

    def _deny(self, error: PolicyDenied) -> None:
        self._watching.tell(error)
        told = self._parts.denials.after(error, self._run, self._journal)
        if isinstance(told, DeniedCall):
            if self._is_done(told):  # no task runs that could ask a human
                raise error
            self._journal.denials.append(told)
            self._note(told.entries())
            self._offer(told)
        else:
            self._journal.refused = told
            self._note([{"refused": told}])
            self._own.append((self._parts.denials.field, told))

    def _is_done(self, offered: DeniedCall) -> bool:
        """Whether the task of a denied call already has its result."""
        slots = self._without_call(self._tool(offered.tool), offered.arguments)
        return next((slot.is_done for slot in slots), False)

    def _offer(self, offered: DeniedCall) -> None:
        tool = self._tool(offered.tool)
        slot = next(self._without_call(tool, offered.arguments), None)
        if slot is None:
            msg = f"The service denies a call of `{plain(offered.tool)}`, which is not due."
            raise BadReply(msg, session_id=self.session)
        slot.offered = offered

    def _end_tasks(self, loop: _compat.PregelLoop) -> None:
        """End the run: tasks that have not begun count as done, without writes."""
        for task in loop.tasks.values():
            slot = self._tasks.get(task.id)
            if not task.writes and (slot is None or slot.entry is None):
                task.writes.append((_compat.NO_WRITES, None))

    # Calls and tasks

    @property
    def _is_wide(self) -> bool:
        """Whether all calls of this step precede its tasks."""
        program = self._parts.program
        tools = program.that_begins_at(self._run.begins_at).tools
        return len(self._tasks) > 1 and program.result_of in tools

    def _tasks_of(self, loop: _compat.PregelLoop) -> dict[str, Task]:
        """The tasks of a step in the order of the program: those of packets are last."""
        nodes = self._parts.spec.nodes
        found = {
            task.id: Task(task.id, task.name, _compat.is_packet(task))
            for task in sorted(loop.tasks.values(), key=_compat.is_packet)
            if task.name in nodes
        }
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        self._outputs = {key: value for key, channel, value in pending if channel == OUTPUT}
        for task in loop.tasks.values():
            kept = self._outputs.get(_output_of(task.id)) if self._outputs else None
            writes = [*task.writes, *(kept["writes"] if kept else ())]
            for channel, entries in writes:
                if channel == JOURNAL and task.id in found:
                    self._keep(found[task.id], [one for one in entries if EARLY not in one])
                    found[task.id].early += [one for one in entries if EARLY in one]
            if (slot := found.get(task.id)) is not None:
                slot.is_done = bool(task.writes)
                slot.has_lost = self._has_lost(slot, writes)
        return found

    def _has_lost(self, slot: Task, writes: Sequence[tuple[str, Any]]) -> bool:
        """Whether a task has results with values that LangGraph does not store."""
        unsaved = self._parts.tools.unsaved
        if not unsaved or any(_compat.names_any(one, unsaved) for one in writes):
            return False
        results = (entry for entry in (*slot.written, *slot.early) if entry is not None)
        return any(self._parts.tools.has_unsaved(loads(one["result"])) for one in results)

    def _keep(self, slot: Task, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self.objects.load(entry.get(OBJECTS, {}))
            if self._tool(entry["tool"]).role == "node":
                slot.entry = entry
            else:
                slot.routers.setdefault(entry["tool"], _RouterCall()).entry = entry

    def _adopted(self, slot: Task, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
        """Results of a node's cache, for the calls of this run."""
        self._keep(slot, entries)
        if slot.call is None or slot.entry is None:
            return []
        slot.entry = {**self._for(slot.call, slot.entry), **_named(slot.handle)}
        return [slot.entry]

    def _for(self, call: ProgramCall, entry: JournalEntry) -> JournalEntry:
        """A result for a call. A cached one was for another call of the same tool."""
        if entry["id"] == call.id or entry["tool"] != call.tool:
            return entry
        return for_call(call, entry, self.session)

    def _tool(self, name: str) -> ToolSpec:
        tool = self._parts.program.tools.get(name)
        if tool is None:
            msg = f"The service asks for the tool `{plain(name)}`, which the program does not have."
            raise BadReply(msg, session_id=self.session)
        return tool

    def _assign(self, call: ProgramCall) -> None:
        """Give a call to its task."""
        tool = self._tool(call.tool)
        if any(one["tool"] == call.tool for one in self._journal.early.values()):
            return
        # A missing task may come with the next step; otherwise the run ends with an error.
        slot = next(self._without_call(tool, call.arguments), None)
        if slot is None:
            return
        if tool.role == "router":
            slot.routers.setdefault(call.tool, _RouterCall()).call = call
            return
        slot.call = call
        made = {one.id: handle for handle, one in self._journal.made.items()}
        if call.id in made or (self._is_wide and not tool.not_split):
            slot.handle = made.get(call.id) or self._new_handle()
            self._take_over(slot, call)

    def _without_call(self, tool: ToolSpec, arguments: Mapping[str, Any]) -> Iterator[Task]:
        """The possible tasks for a call of a tool, in the order of the program."""
        if tool.role == "router" and tool.node == START:
            yield self._slot(START)
        for slot in self._tasks.values():
            if slot.node != tool.node or tool.role == "result":
                continue
            if tool.role == "node":
                is_free = slot.call is None and not slot.is_approved
                if is_free and slot.is_packet == tool.is_sent(arguments):
                    yield slot
            elif slot.call is not None or slot.is_approved:
                routed = slot.routers.get(tool.name)
                is_asked = routed is not None and routed.call is not None
                if not is_asked and not self._is_fused(slot, tool):
                    yield slot

    def _is_fused(self, slot: Task, router: ToolSpec) -> bool:
        """Whether a router runs within the call of its task."""
        tools = self._parts.program.tools.values()
        own = next(one for one in tools if one.role == "node" and one.node == slot.node)
        return not slot.is_packet and any(one.name == router.name for one in own.fused)

    def _new_handle(self) -> str:
        used = {*self._journal.made, *(one.handle for one in self._tasks.values())}
        return next(one for n in count() if (one := f"{self._step}:{n}") not in used)

    def _take_over(self, slot: Task, call: ProgramCall) -> None:
        """Use an earlier result of a task, for example from before an edit, for its new handle."""
        entry = slot.entry
        if entry is not None and (entry.get(HANDLE) != slot.handle or entry["id"] != call.id):
            slot.entry = {**for_call(call, entry, self.session), HANDLE: slot.handle}
            self._journal.take(slot.entry)
            self._note([slot.entry])

    def _entry_for(self, call: ProgramCall) -> JournalEntry | None:
        """The result of a call; `None` if it is not known yet."""
        if self._tool(call.tool).role == "result":
            return self._journal.of_handle(call, self.session)
        if (early := self._journal.of_router(call, self.session)) is not None:
            return early
        for slot in self._tasks.values():
            if slot.call is not None and slot.call.id == call.id:
                if slot.handle:
                    entry = result_entry(call, {HANDLE: slot.handle}, Labels())
                    return {**entry, GIVES: slot.handle, "in": self.session}
                return None if slot.entry is None else self._for(call, slot.entry)
            for routed in slot.routers.values():
                if (
                    routed.call is not None
                    and routed.call.id == call.id
                    and routed.entry is not None
                ):
                    return self._for(call, routed.entry)
        return None

    def _slot(self, task_id: str) -> Task:
        if task_id == START or self._is_start:
            return self._tasks.setdefault(START, Task(START, START, is_packet=False))
        slot = self._tasks.get(self._origin(task_id))
        if slot is None:  # START, beside other tasks
            raise RunStopped(UsageError(_INPUT_BESIDE))
        return slot

    def _origin(self, task_id: str) -> str:
        return self._handlers.get(task_id, task_id)

    def _routed(self, task_id: str, tool: ToolSpec) -> _RouterCall:
        return self._slot(task_id).routers.setdefault(tool.name, _RouterCall())

    def _is_due(self, call: ProgramCall) -> bool:
        """Whether a call is for a task of this step."""
        if self._tool(call.tool).role == "result":
            handle = call.arguments.get(HANDLE)
            return any(one.handle == handle for one in self._tasks.values())
        return any(
            call.id == asked.id
            for one in self._tasks.values()
            for asked in (one.call, *(routed.call for routed in one.routers.values()))
            if asked is not None
        )

    @property
    def _run(self) -> ProgramRun:
        assert self._record is not None  # noqa: S101 - it has begun
        return self._record

    # Storage

    def _note(self, entries: Sequence[JournalEntry]) -> None:
        session = self.session
        self._own.append((JOURNAL, [{"step": self._step, **one, "in": session} for one in entries]))

    def _store(self, loop: _compat.PregelLoop) -> None:
        """Store the driver's writes with the checkpoint before the step."""
        if len(self._own) > self._stored and loop.checkpointer is not None:
            self._stored = len(self._own)
            key = str(uuid5(NAMESPACE_OID, f"{OWN_WRITES}:{self.session}"))
            loop.put_writes(key, list(self._own))

    def _stored_record(self, loop: _compat.PregelLoop) -> Any:
        """The record of the last run: its labels if it is over, else the run."""
        noted = [one for _, channel, one in loop.checkpoint_pending_writes if channel == RUN]
        if noted and not loop.is_replaying:
            return noted[-1]
        channel = loop.channels[RUN]
        return channel.get() or None if channel.is_available() else None

    def _restore(self, loop: _compat.PregelLoop) -> Work:
        """Continue the thread from its stored state."""
        self._is_new = False
        if self._parts.denials.asks:
            check_can_ask({"configurable": {_compat.CHECKPOINTER: loop.checkpointer}})
        record = self._stored_record(loop)
        if record is None:  # a first input, or a thread of the plain graph
            labels = self._states.with_others(entries_of(loop, None), None, {})
            yield from self._begin_anywhere(loop, labels)
        elif _KEPT in record:
            kept = self._states.without(record[_KEPT], record.get(_GIVEN, ()))
            of = record.get(_OF)
            kept = self._states.with_others(entries_of(loop, of), of, kept)
            if not self._is_start and (is_edited(loop) or _GIVEN not in record):
                kept = self._states.edited(loop, kept)
                yield from self._begin_anywhere(loop, kept)
            else:
                self._labels_at_start = kept
        else:
            yield from self._take_up(loop, ProgramRun(**record))

    def _take_up(self, loop: _compat.PregelLoop, run: ProgramRun) -> Work:
        """Continue a run, or start another one if its program does not know the state."""
        is_known = not (run.is_over or is_edited(loop, run.since))
        if is_known and not has_asked_nothing(loop, run.session):
            yield from self._go_on(loop, run)
        else:
            labels = yield from self._labels_after(loop, run)
            yield from self._begin_anywhere(loop, self._states.edited(loop, labels, run.since))

    def _begin_anywhere(self, loop: _compat.PregelLoop, labels: FieldLabels) -> Work:
        """Start a run from the state of the thread, unless START is due first."""
        if self._is_start:
            self._labels_at_start = dict(labels)
            return
        self._tasks = self._tasks_of(loop)
        yield from self._begin(loop, labels, is_start=False)
        self._is_within = True

    def _go_on(self, loop: _compat.PregelLoop, run: ProgramRun) -> Work:
        """Continue a run, before a step or within one."""
        self._record, self._is_resumed = run, True
        self._read_notes(loop)
        self._tasks = self._tasks_of(loop)
        for entry in (one for slot in self._tasks.values() for one in slot.kept):
            if entry.get("in") == self.session:  # the others get handles with their calls
                self._journal.take(entry)
        for denial in self._journal.denials:
            if denial.result is None:
                self._parts.approvals.check(denial)
        if not self._is_within:
            self._step += 1
        if loop.is_replaying or run.place != self._parts.exchange.place:
            yield from self._again()
        elif self._is_within:
            self._assign_step()
        else:
            self._assign_waiting()
        self._is_within = True
        for denial in self._journal.denials:
            if denial.result is None:
                self._offer(denial)

    def _read_notes(self, loop: _compat.PregelLoop) -> None:
        """Read the journal: the channel, and the entries of an open step."""
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        own = [one for one in pending if one[1] in (RUN, JOURNAL) and one[0] not in loop.tasks]
        noted = [entry for _, channel, new in own if channel == JOURNAL for entry in new]
        entries = [*entries_of(loop, self.session), *noted]
        for one in entries:
            self.objects.load(one.get(OBJECTS, {}))
        self._journal = read_journal(entries, self.session)
        if not (self._journal.rounds or self._journal.denials or self._refused):
            raise UsageError(LOST)
        self._is_within = bool(noted)
        self._own = [(channel, one) for _, channel, one in own]
        self._stored = len(self._own)
        steps = [one.get("step", 0) for one in entries if one.get("in") == self.session]
        self._step = max(steps, default=0)

    def _assign_step(self) -> None:
        """Give the calls of this step to its tasks."""
        for one in self._journal.rounds:
            waiting = one.waiting
            for call in one.calls if one.step == self._step else ():
                self._assign(call)
                if call in waiting:
                    self._answer(call)

    def _with_input(self, loop: _compat.PregelLoop) -> Channels:
        """The channels with the input, which LangGraph applies at the end of the first step."""
        [start] = [one for one in loop.tasks.values() if one.name == START]
        found = dict(loop.channels)
        writes = list(start.writes)
        self._given = [name for name, _ in writes if name in self._parts.spec.channels]
        plans = self._parts.program.plans
        # Fields that a step without a write changes then lose the value of an earlier run.
        for name in dict.fromkeys((*self._given, *(one for one in plans if plans[one].resets))):
            found[name] = found[name].copy()
            found[name].update([value for one, value in writes if one == name])
        return found

    def _is_active(self, ended: RunFinished) -> bool:
        value = ended.result.value
        if not isinstance(value, dict) or not isinstance(value.get(ACTIVE), bool):
            msg = "The final value of the run is not the state that the program returns."
            raise BadReply(msg, session_id=ended.session_id)
        return bool(value[ACTIVE])

    def _watch(self, loop: _compat.PregelLoop) -> RequestWatch:
        def calls() -> list[ProgramCall]:
            return [call for one in self._journal.rounds for call in one.calls]

        return RequestWatch(self._parts.program.tools, calls, self.session, self.run_id, loop)


def _place_of(task: Any) -> tuple[bool, str]:
    """The sort key of a task in its step, in the order of the program."""
    is_packet = _compat.is_packet(task)
    return is_packet, "" if is_packet else task.name


def _named(handle: str) -> dict[str, str]:
    """The part of an entry with the handle that it belongs to."""
    return {HANDLE: handle} if handle else {}


def _output_of(task_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"{OUTPUT}:{task_id}"))
