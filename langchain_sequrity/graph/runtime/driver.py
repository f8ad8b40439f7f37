"""One run of an executor: what LangGraph does, told to the service in the words of the program.

LangGraph decides which tasks run; the service decides whether they may, and with which arguments.
Both go through the same steps. Before a step the driver sends the results of the last one, and the
service asks for the calls of this one. A task waits until its call is asked for, runs with the
arguments of the call, and leaves its result in the journal. Where both do not agree, nothing is
run.

A state that the service did not make begins a new run: a first input, a state that somebody edited,
a thread of the plain graph. Its fields are context variables, with the labels that are known of
them (`running.states`).
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
from langchain_sequrity.graph.codec.channels import same_ids
from langchain_sequrity.graph.codec.values import Objects, objects_here
from langchain_sequrity.graph.dispatch.tools import NodeResult
from langchain_sequrity.graph.journal import (
    APPROVED,
    EARLY,
    GIVES,
    OBJECTS,
    Asked,
    Entry,
    Journal,
    Offered,
    Round,
    Run,
    read_journal,
    result_entry,
    retagged,
    whole_steps,
)
from langchain_sequrity.graph.program import ACTIVE, HANDLE, JOURNAL, OUTPUT, RUN, STEP, ToolSpec
from langchain_sequrity.graph.runtime.events import Decided, RequestWatch, new_run
from langchain_sequrity.graph.runtime.requests import Answer, Asking, Ended, adriven, driven
from langchain_sequrity.graph.runtime.states import (
    LOST,
    NO_LABELS,
    Channels,
    FieldLabels,
    Meta,
    Parts,
    Recorded,
    States,
    ask,
    check_whole,
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
from langchain_sequrity.wire.exchange import Call

DRIVER = "__sequrity_driver"
"""Key of `configurable` with the driver of a run."""

OWN_WRITES = str(uuid5(NAMESPACE_OID, "sequrity"))
"""Stands for a task's id where the driver writes what it notes."""

_INPUT_BESIDE = (
    "An input waits beside other tasks of the thread, and routers follow START: the service cannot "
    "be asked for them there. Give the input again, or go on from another checkpoint."
)

Work = Generator[tuple[Call, str | None], Answer, Any]
"""Yields a request and the session that it names, takes the answer."""

_KEPT, _GIVEN, _OF = "kept", "given", "of"


class Stop(GraphBubbleUp):
    """Carries an error of a run past a task's retries and handlers: it is not the task's own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Disagrees(BadReply):
    """LangGraph and the service do not agree on what is due, or that the run is over."""


@dataclass(slots=True)
class _Routed:
    """A router of a task.

    Attributes:
        call: Its call, once it is asked for.
        entry: Its result.
    """

    call: Asked | None = None
    entry: Entry | None = None


@dataclass(slots=True)
class Task:
    """A task of LangGraph's that stands for a call.

    Attributes:
        id: LangGraph's id of it.
        node: Its node.
        is_packet: Whether a `Send` started it.
        call: Its call, once it is asked for.
        entry: Its result, once it is there.
        routers: Its routers by the names of their tools.
        handle: What its call is answered with before it runs, where it runs beside others.
        early: Results of its routers from before, for which the service has not asked.
        offered: The denial of its call or of one of its routers, where a human may approve it.
        is_left: Whether it failed or waits for an answer, so that nothing more comes of it now.
        is_done: Whether it ended in an earlier attempt of the step, so that it does not run.
        has_lost: Whether LangGraph did not store all that its results say.
    """

    id: str
    node: str
    is_packet: bool
    call: Asked | None = None
    entry: Entry | None = None
    routers: dict[str, _Routed] = field(default_factory=dict)
    handle: str = ""
    early: list[Entry] = field(default_factory=list)
    offered: Offered | None = None
    is_left: bool = False
    is_done: bool = False
    has_lost: bool = False

    def forget_calls(self) -> None:
        """Take the calls away: those of another session come."""
        self.call, self.handle = None, ""
        for routed in self.routers.values():
            routed.call = None

    @property
    def kept(self) -> list[Entry]:
        """The results that it has."""
        return [*([self.entry] if self.entry is not None else []), *self.early]

    @property
    def written(self) -> Iterator[Entry | None]:
        """The results that it writes itself."""
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
        parts: What all runs of the executor have in common.
        is_timed: Whether steps have a limit in time: it is for the nodes, and not for requests.
    """

    def __init__(self, parts: Parts, *, is_timed: bool = False) -> None:
        self._parts, self._is_timed = parts, is_timed
        self.run_id = new_run(parts.name)
        self._record: Run | None = None
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
        self._states = States(parts)
        self.objects = Objects()
        self._watching: RequestWatch
        self._ended: Ended | None = None
        self._is_new = True
        self._is_start = False
        self._is_within = False
        self._is_resumed = False
        self._broken: BaseException | None = None
        self._changed = threading.Condition()
        self._achanged: asyncio.Condition | None = None

    # What the loop calls

    @property
    def own_writes(self) -> Sequence[tuple[str, Any]]:
        """What is to be written to the channels with the step."""
        return self._own

    @property
    def session(self) -> str | None:
        """The session."""
        return None if self._record is None else self._record.session

    def run(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests that the work asks for."""
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                driven(work, self._parts.transport(), self._parts.exchange.read)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._store(loop)

    async def arun(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests that the work asks for."""
        self.run_id["mode"] = "async"
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                await adriven(work, self._parts.transport(), self._parts.exchange.read)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._store(loop)

    def step(self, loop: _compat.PregelLoop) -> Work | None:
        """Begin a step.

        Returns:
            What asks for its calls, where that cannot wait; else its first task will do it, when
            streams have shown what came before.
        """
        self._own, self._stored, self._raw, self._shown = [], 0, {}, []
        self._loop = loop
        due = list(loop.tasks.values())
        waiting = self._parts.program.waiting
        if len(due) > 1 and any(one.name in waiting for one in due):
            # LangGraph starts tasks in this order, and not all if it has no threads left. That of
            # which the program asks first must be among them: the others wait for it.
            due = sorted(due, key=_place_of)
            loop.tasks = {one.id: one for one in due}
        self._is_start = [one.name for one in due] == [START]
        self._work = self._ask(loop)
        # What a node's cache or its time is for begins after its call.
        is_bound = self._is_timed or any(one.cache_key or one.timeout is not None for one in due)
        is_lazy = any(not one.writes for one in due) and not is_bound
        return self._taken_work() if self._is_start or not is_lazy else None

    def _taken_work(self) -> Work:
        work, self._work = self._work, None
        if work is not None:
            yield from work

    def _ask(self, loop: _compat.PregelLoop) -> Work:
        """Ask for the calls of the tasks that are due."""
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
        except (Disagrees, ProgramFailed):
            # What somebody did from outside can leave more due than a program can know.
            if not self._may_disagree:
                raise
            yield from self._begin_from_state(loop)
            yield from self._go_along(loop)
        if self._refused:
            self._end_tasks(loop)

    @property
    def _may_disagree(self) -> bool:
        """Whether something was done to the thread that the program does not know."""
        return self._is_resumed or (self._run.begins_at != "start" and self._step > 1)

    def _go_along(self, loop: _compat.PregelLoop) -> Work:
        yield from self._advance()
        yield from self._begin_again(loop)
        if not self._refused:
            self._check_due()

    def _catch_up(self) -> Work:
        """Ask for the calls of a step whose results are all there; the next step sends the rest.

        Calls that are still to come would be taken for those of the next step, which may have the
        same nodes.
        """
        try:
            yield from self._advance(until=lambda: self._has_all_calls)
            self._check_due()
        except (Disagrees, ProgramFailed):
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
        """Note that the program does not know the state after this step: the next begins a run."""
        self._record = replace(self._run, is_over=True)
        self._own.append((RUN, self._record.to_json()))

    def _begin_from_state(self, loop: _compat.PregelLoop) -> Work:
        """Begin a run with the state that LangGraph has, in the midst of another one."""
        for slot in self._tasks.values():
            slot.forget_calls()
        labels = yield from self._labels_so_far(loop)
        yield from self._begin(loop, labels, is_start=False)

    def _labels_so_far(self, loop: _compat.PregelLoop) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields before this step."""
        return (yield from self._labels_after(loop, self._run))

    def _labels_after(
        self, loop: _compat.PregelLoop, run: Run
    ) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields after the steps of a run that are over."""
        check_whole(loop, run)
        noted = whole_steps(noted_in(loop), run.session)
        entries = [*entries_of(loop, run.session), *noted]
        return (yield from self._states.after(run, entries))

    def _begin_again(self, loop: _compat.PregelLoop) -> Work:
        """Go on with a new program, where one has taken as many steps as it can."""
        while self._ended is not None and not self._refused:
            if not self._is_active(self._ended):
                msg = "The program ended where LangGraph goes on. Nothing of it is used."
                raise Disagrees(msg, session_id=self._ended.session_id)
            labels = self._states.reported(self._ended.result)
            yield from self._begin(loop, labels, is_start=False)
            yield from self._advance()

    @property
    def _waiting(self) -> list[Asked]:
        """The calls that wait for a result."""
        return [call for one in self._journal.rounds[-1:] for call in one.waiting]

    def _assign_waiting(self) -> None:
        for call in self._waiting:
            self._assign(call)

    def _check_due(self) -> None:
        """Check that the service asks for what LangGraph runs.

        Raises:
            BadReply: If it does not.
        """
        for call in self._waiting:
            if not self._is_due(call):
                msg = (
                    f"The service asks for `{plain(call.tool)}`, and LangGraph runs no such node "
                    "in this step. Nothing of it is run."
                )
                raise Disagrees(msg, session_id=self.session)

    def after_step(self, loop: _compat.PregelLoop) -> None:
        """Take the results of the step into the journal, before LangGraph applies its writes."""
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
            same_ids(raw, written)
        if starts and not self._is_start and self._record is not None:
            self._end_record()  # an input that comes beside tasks is applied with what they write
        elif any(slot.has_lost for slot in self._tasks.values()) and not self._refused:
            self._end_record()
        self._own.append((STEP, len(self._journal.rounds)))
        self._store(loop)

    def _take_written(self, loop: _compat.PregelLoop) -> None:
        written = (one for task in loop.tasks.values() for one in task.writes)
        for entry in (one for channel, entries in written if channel == JOURNAL for one in entries):
            if entry["in"] == self.session:
                self._journal.take(entry)
        for call in self._waiting:  # tasks that are done already may have results of before
            self._answer(call)

    def failed_to_apply(self, loop: _compat.PregelLoop) -> Sequence[tuple[str, Any]]:
        """Hear that LangGraph could not apply what the tasks wrote.

        With durability "exit" it stores the half-applied state, and the thread continues from it.
        The program of the run never has such a state, so the next run begins from it.

        Returns:
            Writes to apply to that state. With them no field is newer than the last step, so the
            fields that the step changed keep their labels.
        """
        if loop.durability != "exit" or self._record is None:
            return ()
        self._keep_labels(self._states.all_labels(self._journal.entries(), self._record))
        self._store(loop)
        return [*self._own, (STEP, len(self._journal.rounds))]

    def close(self) -> None:
        """Let go of the loop, which holds this driver."""
        for name in ("_loop", "_watching"):
            vars(self).pop(name, None)
        self._work = None

    def finish(self, loop: _compat.PregelLoop) -> Work:
        """Send the last results, and take what the run is labelled."""
        self._own, self._stored = [], 0
        ran_nothing = self._is_new
        if self._is_new:
            self._is_new = False
            record = self._stored_record(loop)
            if record is None or _KEPT in record or is_edited(loop, record["since"]):
                return
            yield from self._go_on(loop, Run(**record))
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
            return  # LangGraph has left this run: somebody took away what was due
        if self._refused:
            return
        ended = self._ended
        # A run from a state may have begun with a node whose router LangGraph asks no more.
        may_disagree = self._may_disagree or self._run.begins_at != "start"
        if may_disagree and (ended is None or self._is_active(ended)):
            self._keep_labels((yield from self._labels_so_far(loop)))
        else:
            self._keep_labels(self._checked_end())

    def _keep_labels(self, labels: FieldLabels) -> None:
        """Note what the run is labelled: all that the journal has of it is in that."""
        self._own, self._stored = [(RUN, {_KEPT: labels, _OF: self.session})], 0

    def _checked_end(self) -> dict[str, Meta]:
        """The labels of the fields at the end, where the program ends as LangGraph does.

        Raises:
            BadReply: If it does not.
        """
        ended = self._ended
        if ended is None:
            msg = (
                f"The program goes on with `{plain(self._waiting[0].tool)}` where LangGraph has "
                "come to the end. Nothing of it is used."
            )
            raise BadReply(msg, session_id=self.session)
        if self._is_active(ended):
            msg = "The program says that work is left where LangGraph has come to the end."
            raise BadReply(msg, session_id=ended.session_id)
        labels = ended.result.labels
        if labels is None:  # they decide what the next run may do
            msg = "The service reports the final value of the run without its labels."
            raise BadReply(msg, session_id=ended.session_id)
        labels_given(labels.without_reserved())  # to an executor around this one
        return self._states.reported(ended.result)

    def cached(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Give the results that a node's cache had to the calls of these tasks."""
        for task in tasks:
            slot = self._tasks.get(task.id)
            for index, (channel, entries) in enumerate(task.writes):
                if channel == JOURNAL and slot is not None:
                    task.writes[index] = (JOURNAL, self._adopted(slot, entries))
        return tasks

    def told(self, loop: _compat.PregelLoop, task_id: str, channels: Sequence[str]) -> None:
        """Hear that a task has ended: with an error, a question, or well."""
        slot = self._tasks.get(task_id)
        if slot is not None and _compat.is_left(channels):
            slot.is_left = True
            self._notify(loop)

    def handles(self, handler: str, task: str) -> None:
        """Hear that a task handles the error of another one."""
        self._handlers[handler] = task

    def is_silent(self, writes: Any) -> bool:
        """Whether a task did nothing because the run ends with a denial."""
        return self._refused and all(channel == _compat.NO_WRITES for channel, _ in writes)

    def returned(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as its node returned them."""
        raw = self._raw.get(task_id)
        if raw is None or _compat.is_left([channel for channel, _ in writes]):
            return writes
        rest = [one for one in writes if one[0] not in self._parts.spec.channels]
        return [*raw, *rest]

    # What the tasks call

    def begin(self, task_id: str) -> None:
        """Wait until the calls of the step have been asked for.

        Raises:
            Stop: If the run cannot go on.
        """
        self._wait(lambda: self._work is None, task_id)

    async def abegin(self, task_id: str) -> None:
        """Wait until the calls of the step have been asked for; see `begin`."""
        await self._await(lambda: self._work is None, task_id)

    def call_of(self, task_id: str) -> "Asked | Offered | None":
        """The call of a task, once the service asks for it.

        Returns:
            The call; or its denial, which a human may approve; `None` where the run ends with a
            denial.

        Raises:
            Stop: If the run cannot go on.
            GraphInterrupt: If another task of the step has to be answered or done again first.
        """
        self._wait(lambda: self._is_told(task_id), task_id)
        return self._told(task_id)

    async def acall_of(self, task_id: str) -> "Asked | Offered | None":
        """The call of a task; see `call_of`."""
        await self._await(lambda: self._is_told(task_id), task_id)
        return self._told(task_id)

    def _is_told(self, task_id: str) -> bool:
        slot = self._tasks.get(self._origin(task_id))
        return self._refused or (slot is not None and (slot.offered or slot.call) is not None)

    def _told(self, task_id: str) -> "Asked | Offered | None":
        slot = self._slot(task_id)
        return None if self._refused else slot.offered or slot.call

    def router_call(self, task_id: str, tool: ToolSpec) -> "Asked | Offered | None":
        """The call of a router of a task; `None` where the run ends with a denial of it."""
        routed = self._routed(task_id, tool)
        slot = self._slot(task_id)
        self._wait(lambda: bool(routed.call or slot.offered or self._refused), task_id)
        return routed.call or slot.offered

    async def arouter_call(self, task_id: str, tool: ToolSpec) -> "Asked | Offered | None":
        """The call of a router of a task; see `router_call`."""
        routed = self._routed(task_id, tool)
        slot = self._slot(task_id)
        there = lambda: bool(routed.call or slot.offered or self._refused)  # noqa: E731
        await self._await(there, task_id)
        return routed.call or slot.offered

    def has_output(self, task_id: str) -> Any:
        """What a node returned in an earlier attempt, whose router did not run to its end."""
        return self._outputs.get(_output_of(self._origin(task_id))) if self._outputs else None

    def answered(self, task_id: str, entry: Entry) -> None:
        """Take the result of a task."""
        slot = self._slot(task_id)
        slot.entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        if HANDLE in entry:
            self._journal.take(entry)
        if slot.offered is not None:
            slot.offered.result, slot.offered = entry, None

    def call_before(self, task_id: str, tool: ToolSpec) -> Asked:
        """Stands for the call of a router that runs before the service asks for it.

        Its id is the place in which the service will do so.
        """
        place = list(self._tasks).index(self._slot(task_id).id)
        at = f"{self._step:06}:{place:06}:{tool.name}"
        return Asked(at, tool.name, {})

    def keep_output(self, task_id: str, output: Mapping[str, Any]) -> Any:
        """Store what a node returned before its router is asked for: it does not run again.

        Returns:
            A future that is done when it is stored; `None` where nothing waits for that.
        """
        key = _output_of(self._origin(task_id))
        self._outputs[key] = output
        return _compat.keep_writes(self._loop, key, [(OUTPUT, output)])

    def routed(self, task_id: str, tool: ToolSpec, entry: Entry) -> None:
        """Take the result of a router."""
        if EARLY in entry:
            self._journal.take(entry)
            return
        self._routed(task_id, tool).entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        slot = self._slot(task_id)
        if slot.offered is not None and slot.offered.tool == tool.name:
            slot.offered.result, slot.offered = entry, None

    def handle_of(self, task_id: str) -> str:
        """What stands for the result of a task that runs beside others; empty for all others."""
        return self._slot(task_id).handle

    def shows(self, task_id: str, found: NodeResult) -> None:
        """Keep what a node returned as streams show it."""
        pairs = [*zip(found.raw, (value for _, value in found.writes), strict=True)]
        self._raw[task_id] = [
            (name, raw) for (name, _), (raw, _) in zip(found.writes, pairs, strict=True)
        ]
        self._shown += pairs

    def decided(self, offered: Offered, objection: str | None) -> None:
        """Take what a human decided about a call that was denied.

        Args:
            offered: The denial.
            objection: What the human has against the call; `None` if it is approved.
        """
        with self._watch(self._loop) as watch:
            watch.tell(Decided(offered, objection is None))
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
                    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the run
                        self._broken = error
                        raise Stop(error) from None
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
                    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the run
                        self._broken = error
                        raise Stop(error) from None
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
            raise Stop(self._broken)
        if any(one.is_left for one in self._tasks.values() if one.id != self._origin(task_id)):
            # What is asked for next depends on a task of which nothing more comes now.
            raise GraphInterrupt(())
        if self._ended is not None:
            msg = f"The program ended before the call of node `{self._slot(task_id).node}`."
            raise Stop(BadReply(msg, session_id=self.session))
        try:
            self._check_due()
        except BadReply as error:
            raise Stop(error) from None

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
        """Go on; where nothing has begun, the routers behind START are asked for first."""
        if self._work is not None:
            yield from self._taken_work()
            return
        if self._record is None:
            yield from self._begin(self._loop, self._labels_at_start, is_start=True)
        yield from self._advance()

    # Requests

    def _advance(self, until: Callable[[], bool] = lambda: False) -> Work:
        """Answer what can be answered, until the service waits for a task or the program ends."""
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

    def _answer(self, call: Asked) -> None:
        """Put the result of a call into the journal, if it is there."""
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

    def _take(self, answer: Answer | PolicyDenied, heard: str = "") -> None:
        if not isinstance(answer, PolicyDenied):
            self._watching.tell(answer)
        if isinstance(answer, PolicyDenied):
            self._deny(answer)
        elif isinstance(answer, Ended):
            self._ended = answer
        else:
            one = Round(answer.said, answer.calls, heard=heard, step=self._step)
            self._journal.add(one)
            self._note(one.entries())
            for call in answer.calls:
                self._assign(call)

    def _begin(self, loop: _compat.PregelLoop, labels: FieldLabels, *, is_start: bool) -> Work:
        """Begin a run with the state that LangGraph has."""
        channels: Channels = loop.channels
        is_routing = self._is_start
        if is_routing:
            channels = self._with_input(loop)
        labels = self._states.without(labels, self._given or ()) if is_start else labels
        variables = self._states.variables(channels, labels)
        program, exchange = self._parts.program, self._parts.exchange
        entry = self._states.entry(loop, is_routing=is_routing)
        # A straight program begins where the edges from START lead, and nowhere else: an input that
        # is a `Command` may lead elsewhere.
        is_usual = is_start and self._states.is_usual(entry)
        if not (is_usual and program.kind == "structured"):
            variables |= entry
        for one in variables.values():  # an executor around this one hears of kept labels
            if one["meta"] != NO_LABELS:
                labels_given(Labels.from_wire(one["meta"]).without_reserved())
        run = Run(
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

    def _start(self, run: Run, answer: Answer | PolicyDenied) -> None:
        session = answer.session_id
        self._record = replace(run, session=session)
        self._own += [(RUN, self._record.to_json())]
        self._note([{"reset": session or "", "open": self._step}])
        if (here := objects_here()) is not None and here.fresh:
            self._journal.objects = dict(here.fresh)
            self._note([{OBJECTS: self._journal.objects}])
            self.objects.load(self._journal.objects)
        for slot in self._tasks.values():
            for entry in slot.early:
                self._journal.take(entry)
            self._note(slot.early)

    def _again(self) -> Work:
        """Go on in a new session, in which the journal answers the calls that were made."""
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
        recorded = Recorded(journal.answered, [*steps, self._step], journal.kept)
        try:
            found = yield from replay(here, run, recorded)
        except PolicyDenied as denial:  # under a policy that has become stricter
            self._deny(denial)
            return
        if isinstance(found.answer, Asking):
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
        if not isinstance(found.answer, Asking):
            self._take(found.answer)

    # Denials

    @property
    def _refused(self) -> bool:
        return self._journal.refused is not None

    def _deny(self, error: PolicyDenied) -> None:
        self._watching.tell(error)
        told = self._parts.denials.after(error, self._run, self._journal)
        if isinstance(told, Offered):
            if self._is_done(told):  # nothing runs that could ask a human
                raise error
            self._journal.denials.append(told)
            self._note(told.entries())
            self._offer(told)
        else:
            self._journal.refused = told
            self._note([{"refused": told}])
            self._own.append((self._parts.denials.field, told))

    def _is_done(self, offered: Offered) -> bool:
        """Whether the task of a denied call has its result from before."""
        slots = self._without_call(self._tool(offered.tool), offered.arguments)
        return next((slot.is_done for slot in slots), False)

    def _offer(self, offered: Offered) -> None:
        tool = self._tool(offered.tool)
        slot = next(self._without_call(tool, offered.arguments), None)
        if slot is None:
            msg = f"The service denies a call of `{plain(offered.tool)}`, which is not due."
            raise BadReply(msg, session_id=self.session)
        slot.offered = offered

    def _end_tasks(self, loop: _compat.PregelLoop) -> None:
        """Let the run end: what has not begun is done, and wrote nothing."""
        for task in loop.tasks.values():
            slot = self._tasks.get(task.id)
            if not task.writes and (slot is None or slot.entry is None):
                task.writes.append((_compat.NO_WRITES, None))

    # Calls and tasks

    @property
    def _is_wide(self) -> bool:
        """Whether calls of this step are made before any of its tasks runs."""
        program = self._parts.program
        tools = program.that_begins_at(self._run.begins_at).tools
        return len(self._tasks) > 1 and program.result_of in tools

    def _tasks_of(self, loop: _compat.PregelLoop) -> dict[str, Task]:
        """The tasks of a step, as the program has them: those of packets come last."""
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
        """Whether LangGraph left out what it does not store of a task's writes."""
        unsaved = self._parts.tools.unsaved
        if not unsaved or any(_compat.names_any(one, unsaved) for one in writes):
            return False
        results = (entry for entry in (*slot.written, *slot.early) if entry is not None)
        return any(self._parts.tools.has_unsaved(loads(one["result"])) for one in results)

    def _keep(self, slot: Task, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.objects.load(entry.get(OBJECTS, {}))
            if self._tool(entry["tool"]).role == "node":
                slot.entry = entry
            else:
                slot.routers.setdefault(entry["tool"], _Routed()).entry = entry

    def _adopted(self, slot: Task, entries: Sequence[Entry]) -> list[Entry]:
        """Results of a node's cache, for the calls of this run."""
        self._keep(slot, entries)
        if slot.call is None or slot.entry is None:
            return []
        slot.entry = {**self._for(slot.call, slot.entry), **_named(slot.handle)}
        return [slot.entry]

    def _for(self, call: Asked, entry: Entry) -> Entry:
        """A result for a call; one that a node's cache had was for another one of the same tool."""
        if entry["id"] == call.id or entry["tool"] != call.tool:
            return entry
        return retagged(call, entry, self.session)

    def _tool(self, name: str) -> ToolSpec:
        tool = self._parts.program.tools.get(name)
        if tool is None:
            msg = f"The service asks for the tool `{plain(name)}`, which the program does not have."
            raise BadReply(msg, session_id=self.session)
        return tool

    def _assign(self, call: Asked) -> None:
        """Give a call to the task that it is for."""
        tool = self._tool(call.tool)
        if any(one["tool"] == call.tool for one in self._journal.early.values()):
            return
        # Where there is no task for it, that comes with the step, or the run ends with that.
        slot = next(self._without_call(tool, call.arguments), None)
        if slot is None:
            return
        if tool.role == "router":
            slot.routers.setdefault(call.tool, _Routed()).call = call
            return
        slot.call = call
        made = {one.id: handle for handle, one in self._journal.made.items()}
        if call.id in made or (self._is_wide and not tool.not_split):
            slot.handle = made.get(call.id) or self._new_handle()
            self._take_over(slot, call)

    def _without_call(self, tool: ToolSpec, arguments: Mapping[str, Any]) -> Iterator[Task]:
        """The tasks that a call of a tool may be for, in the order of the program."""
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

    def _take_over(self, slot: Task, call: Asked) -> None:
        """Let the result that a task has from before an edit, say, be that of its handle now."""
        entry = slot.entry
        if entry is not None and (entry.get(HANDLE) != slot.handle or entry["id"] != call.id):
            slot.entry = {**retagged(call, entry, self.session), HANDLE: slot.handle}
            self._journal.take(slot.entry)
            self._note([slot.entry])

    def _entry_for(self, call: Asked) -> Entry | None:
        """The result of a call, once it is there."""
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
            raise Stop(UsageError(_INPUT_BESIDE))
        return slot

    def _origin(self, task_id: str) -> str:
        return self._handlers.get(task_id, task_id)

    def _routed(self, task_id: str, tool: ToolSpec) -> _Routed:
        return self._slot(task_id).routers.setdefault(tool.name, _Routed())

    def _is_due(self, call: Asked) -> bool:
        """Whether a task of this step is there for a call."""
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
    def _run(self) -> Run:
        assert self._record is not None  # noqa: S101 - it has begun
        return self._record

    # What is stored

    def _note(self, entries: Sequence[Entry]) -> None:
        session = self.session
        self._own.append((JOURNAL, [{"step": self._step, **one, "in": session} for one in entries]))

    def _store(self, loop: _compat.PregelLoop) -> None:
        """Store what was noted, with the checkpoint before the step."""
        if len(self._own) > self._stored and loop.checkpointer is not None:
            self._stored = len(self._own)
            key = str(uuid5(NAMESPACE_OID, f"{OWN_WRITES}:{self.session}"))
            loop.put_writes(key, list(self._own))

    def _stored_record(self, loop: _compat.PregelLoop) -> Any:
        """What is known of the last run: its labels if it is over, else the run."""
        noted = [one for _, channel, one in loop.checkpoint_pending_writes if channel == RUN]
        if noted and not loop.is_replaying:
            return noted[-1]
        channel = loop.channels[RUN]
        return channel.get() or None if channel.is_available() else None

    def _restore(self, loop: _compat.PregelLoop) -> Work:
        """Go on where the thread is."""
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
            yield from self._take_up(loop, Run(**record))

    def _take_up(self, loop: _compat.PregelLoop, run: Run) -> Work:
        """Go on with a run, or begin another where its program does not know the state."""
        is_known = not (run.is_over or is_edited(loop, run.since))
        if is_known and not has_asked_nothing(loop, run.session):
            yield from self._go_on(loop, run)
        else:
            labels = yield from self._labels_after(loop, run)
            yield from self._begin_anywhere(loop, self._states.edited(loop, labels, run.since))

    def _begin_anywhere(self, loop: _compat.PregelLoop, labels: FieldLabels) -> Work:
        """Begin with the state that the thread has, unless START comes first."""
        if self._is_start:
            self._labels_at_start = dict(labels)
            return
        self._tasks = self._tasks_of(loop)
        yield from self._begin(loop, labels, is_start=False)
        self._is_within = True

    def _go_on(self, loop: _compat.PregelLoop, run: Run) -> Work:
        """Go on with a run, before a step or within one."""
        self._record, self._is_resumed = run, True
        self._read_notes(loop)
        self._tasks = self._tasks_of(loop)
        for entry in (one for slot in self._tasks.values() for one in slot.kept):
            if entry.get("in") == self.session:  # others get their handles with their calls
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
        """Read the journal: what is in the channel, and what was noted in a step that is open."""
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
        """Give the calls that this step has been asked for to its tasks."""
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
        # Fields that a step without a write changes lose then what an earlier run has left.
        for name in dict.fromkeys((*self._given, *(one for one in plans if plans[one].resets))):
            found[name] = found[name].copy()
            found[name].update([value for one, value in writes if one == name])
        return found

    def _is_active(self, ended: Ended) -> bool:
        value = ended.result.value
        if not isinstance(value, dict) or not isinstance(value.get(ACTIVE), bool):
            msg = "The final value of the run is not the state that the program returns."
            raise BadReply(msg, session_id=ended.session_id)
        return bool(value[ACTIVE])

    def _watch(self, loop: _compat.PregelLoop) -> RequestWatch:
        def calls() -> list[Asked]:
            return [call for one in self._journal.rounds for call in one.calls]

        return RequestWatch(self._parts.program.tools, calls, self.session, self.run_id, loop)


def _place_of(task: Any) -> tuple[bool, str]:
    """Where a task stands among those of its step in the program."""
    is_packet = _compat.is_packet(task)
    return is_packet, "" if is_packet else task.name


def _named(handle: str) -> dict[str, str]:
    """The part of an entry that says for which handle it is the result."""
    return {HANDLE: handle} if handle else {}


def _output_of(task_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"{OUTPUT}:{task_id}"))
