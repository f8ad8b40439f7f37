"""The driver of one run: it decides when the service is asked, and when a task has to wait.

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
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langgraph.errors import GraphInterrupt
from langgraph.graph import START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    ProgramFailed,
    StatusError,
    TurnFailed,
)
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.approval import in_graph
from langchain_sequrity.graph.codec.channels import copy_ids
from langchain_sequrity.graph.codec.values import Objects
from langchain_sequrity.graph.dispatch import NodeResult
from langchain_sequrity.graph.journal import (
    EARLY,
    OBJECTS,
    DeniedCall,
    JournalEntry,
    ProgramCall,
    ProgramRun,
    Round,
    whole_steps,
)
from langchain_sequrity.graph.program import ACTIVE, HANDLE, JOURNAL, ToolSpec
from langchain_sequrity.graph.runtime.events import HumanDecided, RequestWatch, new_run
from langchain_sequrity.graph.runtime.requests import (
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
from langchain_sequrity.graph.runtime.run_log import GIVEN, KEPT, OF, RunLog
from langchain_sequrity.graph.runtime.task_calls import (
    RouterCall,
    RunStopped,
    StepMismatch,
    Task,
    TaskCalls,
)
from langchain_sequrity.interrupts import check_can_ask
from langchain_sequrity.labels import Labels, labels_given
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.error_body import is_session_gone

DRIVER = "__sequrity_driver"
"""Key of `configurable` with the driver of a run."""

_START_ANEW = "Start a new run with another `thread_id`."


class Driver:
    """Drives one run.

    Args:
        parts: The parts that all runs of the executor share.
        is_timed: Whether steps have a timeout, which is for nodes and not for requests.
    """

    def __init__(self, parts: ExecutorParts, *, is_timed: bool = False) -> None:
        self._parts, self._is_timed = parts, is_timed
        self.run_id = new_run(parts.name)
        self._log = RunLog()
        self._tasks = TaskCalls(parts, self._log)
        self._states = StateVariables(parts)
        self._raw: dict[str, list[tuple[str, Any]]] = {}
        self._shown: list[tuple[Any, Any]] = []
        self._labels_at_start: dict[str, Meta] = {}
        self._given: list[str] | None = None
        self._work: Work | None = None
        self._watching: RequestWatch
        self._ended: RunFinished | None = None
        self._is_new = True
        self._is_within = False
        self._is_resumed = False
        self._broken: BaseException | None = None
        self._changed = threading.Condition()
        self._achanged: asyncio.Condition | None = None

    # Called by the loop

    @property
    def own_writes(self) -> Sequence[tuple[str, Any]]:
        """Writes of the driver, to apply with the step."""
        return self._log.writes

    @property
    def session(self) -> str | None:
        """The session."""
        return self._log.session

    @property
    def objects(self) -> Objects:
        """The objects behind the handles in the journal."""
        return self._log.objects

    def run(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                driven(work, self._parts.transport(), self._parts.exchange)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._log.store(loop)

    async def arun(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        self.run_id["mode"] = "async"
        with self._watch(loop) as watch, self.objects.in_use():
            try:
                self._watching = watch
                await adriven(work, self._parts.transport(), self._parts.exchange)
            except TurnFailed as error:
                raise in_graph(error, self._parts.program) from None
        self._log.store(loop)

    def step(self, loop: _compat.PregelLoop) -> Work | None:
        """Begin a step.

        Returns:
            The requests to make now; `None` if the first task of the step makes them. This is the
            usual case: streams then show the last step before the next request.
        """
        self._log.begin_step()
        self._raw, self._shown = {}, []
        self._loop = loop
        due = list(loop.tasks.values())
        waiting = self._parts.program.waiting
        if len(due) > 1 and any(one.name in waiting for one in due):
            # LangGraph starts tasks in this order, and only as many as it has threads. The task
            # that the program calls first must be among them: the others wait for it.
            due = sorted(due, key=_program_order)
            loop.tasks = {one.id: one for one in due}
        self._tasks.is_start = [one.name for one in due] == [START]
        self._work = self._request_step(loop)
        # A node's cache and timeout start after its call.
        is_bound = self._is_timed or any(one.cache_key or one.timeout is not None for one in due)
        is_lazy = any(not one.writes for one in due) and not is_bound
        return self._pop_work() if self._tasks.is_start or not is_lazy else None

    def _pop_work(self) -> Work:
        work, self._work = self._work, None
        if work is not None:
            yield from work

    def _request_step(self, loop: _compat.PregelLoop) -> Work:
        """Request the calls of the due tasks."""
        if self._is_new:
            yield from self._restore(loop)
        if self._tasks.is_start:
            return
        if self._log.record is None:
            self._tasks.read(loop)
            yield from self._begin(loop, self._labels_at_start, is_start=True)
        elif self._is_within:
            self._is_within = False
        else:
            self._tasks.read(loop)
            if self._log.record.is_over:
                yield from self._begin_from_state(loop)
            else:
                self._log.step += 1
                self._tasks.assign_waiting()
        if all(one.writes for one in loop.tasks.values()):
            yield from self._catch_up()
            return
        try:
            yield from self._request_due_calls(loop)
        except (StepMismatch, ProgramFailed):
            # After a change from outside, more tasks may be due than the program knows.
            if not self._may_disagree:
                raise
            yield from self._begin_from_state(loop)
            yield from self._request_due_calls(loop)
        if self._log.is_refused:
            self._end_tasks(loop)

    @property
    def _may_disagree(self) -> bool:
        """Whether the thread may have changed in a way that the program does not know."""
        return self._is_resumed or (self._log.run.begins_at != "start" and self._log.step > 1)

    def _request_due_calls(self, loop: _compat.PregelLoop) -> Work:
        yield from self._send_known_results()
        yield from self._begin_next_program(loop)
        if not self._log.is_refused:
            self._tasks.check_due()

    def _catch_up(self) -> Work:
        """Request the calls of a step that has all results; the next step sends the rest.

        Otherwise late calls would be taken for those of the next step, which may have the same
        nodes.
        """
        try:
            yield from self._send_known_results(until=lambda: self._tasks.have_all_calls)
            self._tasks.check_due()
        except (StepMismatch, ProgramFailed):
            self._log.mark_over()
            return
        if not (self._log.is_refused or self._tasks.have_all_calls):
            self._log.mark_over()

    def _begin_from_state(self, loop: _compat.PregelLoop) -> Work:
        """Start a run from LangGraph's state, within another run."""
        self._tasks.forget_calls()
        labels = yield from self._labels_so_far(loop)
        yield from self._begin(loop, labels, is_start=False)

    def _labels_so_far(self, loop: _compat.PregelLoop) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields before this step."""
        return (yield from self._labels_after(loop, self._log.run))

    def _labels_after(
        self, loop: _compat.PregelLoop, run: ProgramRun
    ) -> Generator[Any, Any, dict[str, Meta]]:
        """The labels of the fields after the finished steps of a run."""
        check_whole(loop, run)
        noted = whole_steps(noted_in(loop), run.session)
        entries = [*entries_of(loop, run.session), *noted]
        return (yield from self._states.after(run, entries))

    def _begin_next_program(self, loop: _compat.PregelLoop) -> Work:
        """Continue with a new program after one has taken its highest number of steps."""
        while self._ended is not None and not self._log.is_refused:
            if not self._is_active(self._ended):
                msg = (
                    "The program has ended, but LangGraph has tasks left. Its result is not used. "
                    f"{_START_ANEW}"
                )
                raise StepMismatch(msg, session_id=self._ended.session_id)
            labels = self._states.reported(self._ended.result)
            yield from self._begin(loop, labels, is_start=False)
            yield from self._send_known_results()

    def after_step(self, loop: _compat.PregelLoop) -> None:
        """Add the results of the step to the journal, before LangGraph applies its writes."""
        starts = [one for one in loop.tasks.values() if one.name == START]
        if self._tasks.is_start:
            [start] = starts
            fields = self._parts.spec.channels
            self._given = [name for name, _ in start.writes if name in fields]
            if self._log.record is None:
                self._log.keep_input(self._labels_at_start, self._given)
        self._take_written(loop)
        for raw, written in self._shown:
            copy_ids(raw, written)
        if starts and not self._tasks.is_start and self._log.record is not None:
            self._log.mark_over()  # an input beside tasks is applied together with their writes
        elif any(slot.has_lost for slot in self._tasks) and not self._log.is_refused:
            self._log.mark_over()
        self._log.note_step()
        self._log.store(loop)

    def _take_written(self, loop: _compat.PregelLoop) -> None:
        written = (one for task in loop.tasks.values() for one in task.writes)
        for entry in (one for channel, entries in written if channel == JOURNAL for one in entries):
            if entry["in"] == self.session:
                self._log.journal.take(entry)
        self._tasks.answer_waiting()  # finished tasks may have earlier results

    def failed_to_apply(self, loop: _compat.PregelLoop) -> Sequence[tuple[str, Any]]:
        """Handle a step whose writes LangGraph could not apply.

        With durability "exit" it stores the half-applied state, and the thread continues from it.
        The program of the run never has such a state, so the next run starts from it.

        Returns:
            Writes to apply to that state. They mark the step as finished. Without them, the next
            run would take the changed fields for edits from outside, and drop their labels.
        """
        if loop.durability != "exit" or self._log.record is None:
            return ()
        self._log.keep_labels(
            self._states.all_labels(self._log.journal.entries(), self._log.record)
        )
        self._log.store(loop)
        self._log.note_step()
        return self._log.writes  # this driver writes nothing after them

    def close(self) -> None:
        """Drop the reference to the loop, which refers to this driver."""
        for name in ("_loop", "_watching"):
            vars(self).pop(name, None)
        self._work = None

    def finish(self, loop: _compat.PregelLoop) -> Work:
        """Send the last results, and store the labels of the fields."""
        self._log.begin_step()
        ran_nothing = self._is_new
        if self._is_new:
            self._is_new = False
            record = self._log.stored_record(loop)
            if record is None or KEPT in record or is_edited(loop, record["since"]):
                return
            yield from self._resume(loop, ProgramRun(**record))
        if self._log.record is None:  # nothing followed START
            if self._given is not None:
                self._log.keep_labels(self._states.without(self._labels_at_start, self._given))
            return
        if self._log.run.is_over:
            self._log.keep_labels((yield from self._labels_so_far(loop)))
            return
        self._tasks.clear()
        yield from self._send_known_results()
        if ran_nothing and self._ended is None:
            return  # LangGraph has left this run: the due tasks were removed from outside
        if self._log.is_refused:
            return
        ended = self._ended
        # A run from a state may have begun with a node whose router LangGraph no longer calls.
        may_disagree = self._may_disagree or self._log.run.begins_at != "start"
        if may_disagree and (ended is None or self._is_active(ended)):
            self._log.keep_labels((yield from self._labels_so_far(loop)))
        else:
            self._log.keep_labels(self._checked_end())

    def _checked_end(self) -> dict[str, Meta]:
        """The labels of the fields at the end, after a check that the program has ended too.

        Raises:
            BadReply: If it has not.
        """
        ended = self._ended
        if ended is None:
            msg = (
                f"The program continues with `{plain(self._log.waiting[0].tool)}`, but LangGraph "
                f"has ended. Its result is not used. {_START_ANEW}"
            )
            raise BadReply(msg, session_id=self.session)
        if self._is_active(ended):
            msg = f"The program has work left, but LangGraph has ended. {_START_ANEW}"
            raise BadReply(msg, session_id=ended.session_id)
        labels = ended.result.labels
        if labels is None:  # they decide what the next run may do
            msg = "The service reports the final value of the run without its labels."
            raise BadReply(msg, session_id=ended.session_id)
        labels_given(labels.without_reserved())  # to an executor around this one
        return self._states.reported(ended.result)

    def use_cached(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Use the results in a node's cache for the calls of these tasks."""
        for task in tasks:
            self._tasks.adopt(task)
        return tasks

    def task_ended(self, loop: _compat.PregelLoop, task_id: str, channels: Sequence[str]) -> None:
        """Handle the end of a task: an error, a question, or success."""
        slot = self._tasks.find(task_id)
        if slot is not None and _compat.is_left(channels):
            slot.is_left = True
            self._notify_waiting(loop)

    def record_handler(self, handler: str, task: str) -> None:
        """Record that a task handles the error of another one."""
        self._tasks.add_handler(handler, task)

    def is_silent(self, writes: Any) -> bool:
        """Whether a task has not run because the run ends with a denial."""
        return self._log.is_refused and all(channel == _compat.NO_WRITES for channel, _ in writes)

    def writes_as_returned(self, task_id: str, writes: Any) -> Any:
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
        self._wait_until(lambda: self._work is None, task_id)

    async def abegin(self, task_id: str) -> None:
        """Wait until the calls of the step are requested; see `begin`."""
        await self._await_until(lambda: self._work is None, task_id)

    def call_of(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task.

        Returns:
            The call; or the denied call, which a human may approve; `None` if the run ends with a
            denial.

        Raises:
            RunStopped: If the run cannot continue.
            GraphInterrupt: If another task of the step first needs an answer or another attempt.
        """
        self._wait_until(lambda: self._has_call(task_id), task_id)
        return self._known_call(task_id)

    async def acall_of(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task; see `call_of`."""
        await self._await_until(lambda: self._has_call(task_id), task_id)
        return self._known_call(task_id)

    def _has_call(self, task_id: str) -> bool:
        slot = self._tasks.find(self._tasks.origin(task_id))
        return self._log.is_refused or (
            slot is not None and (slot.offered or slot.call) is not None
        )

    def _known_call(self, task_id: str) -> "ProgramCall | DeniedCall | None":
        slot = self._tasks.get(task_id)
        return None if self._log.is_refused else slot.offered or slot.call

    def router_call(self, task_id: str, tool: ToolSpec) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task's router; `None` if the run ends with a denial."""
        slot = self._tasks.get(task_id)
        routed = slot.router(tool.name)
        self._wait_until(lambda: self._has_router_call(slot, routed), task_id)
        return routed.call or slot.offered

    async def arouter_call(self, task_id: str, tool: ToolSpec) -> "ProgramCall | DeniedCall | None":
        """Wait for the call of a task's router; see `router_call`."""
        slot = self._tasks.get(task_id)
        routed = slot.router(tool.name)
        await self._await_until(lambda: self._has_router_call(slot, routed), task_id)
        return routed.call or slot.offered

    def _has_router_call(self, slot: Task, routed: RouterCall) -> bool:
        return self._log.is_refused or (routed.call or slot.offered) is not None

    def stored_output(self, task_id: str) -> Any:
        """The stored output of an earlier attempt, whose router did not finish."""
        return self._tasks.output_of(task_id)

    def record_result(self, task_id: str, entry: JournalEntry) -> None:
        """Record the result of a task."""
        slot = self._tasks.get(task_id)
        slot.entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        if HANDLE in entry:
            self._log.journal.take(entry)
        slot.take_approved(entry)

    def call_before(self, task_id: str, tool: ToolSpec) -> ProgramCall:
        """A provisional call for a router that runs before the service asks for it.

        Its id sorts in the order in which the service will ask.
        """
        at = f"{self._log.step:06}:{self._tasks.index_of(task_id):06}:{tool.name}"
        return ProgramCall(at, tool.name, {})

    def keep_output(self, task_id: str, output: Mapping[str, Any]) -> Any:
        """Store the output of a node before its router is called, so the node does not run again.

        Returns:
            A future that is done when it is stored; `None` if there is no need to wait.
        """
        return self._tasks.keep_output(self._loop, task_id, output)

    def record_router_result(self, task_id: str, tool: ToolSpec, entry: JournalEntry) -> None:
        """Record the result of a router."""
        if EARLY in entry:
            self._log.journal.take(entry)
            return
        slot = self._tasks.get(task_id)
        slot.router(tool.name).entry = entry
        self.objects.load(entry.get(OBJECTS, {}))
        if slot.offered is not None and slot.offered.tool == tool.name:
            slot.take_approved(entry)

    def handle_of(self, task_id: str) -> str:
        """The handle for the result of a task that runs beside others; empty for other tasks."""
        return self._tasks.get(task_id).handle

    def keep_raw_output(self, task_id: str, found: NodeResult) -> None:
        """Keep the output of a node as streams show it."""
        pairs = [*zip(found.raw, (value for _, value in found.writes), strict=True)]
        self._raw[task_id] = [
            (name, raw) for (name, _), (raw, _) in zip(found.writes, pairs, strict=True)
        ]
        self._shown += pairs

    def record_decision(self, offered: DeniedCall, objection: str | None) -> None:
        """Record a human's decision about a denied call.

        Args:
            offered: The denied call.
            objection: The human's objection; `None` if the call is approved.
        """
        with self._watch(self._loop) as watch:
            watch.tell(HumanDecided(offered, objection is None))
        offered.is_approved, offered.objection = objection is None, objection
        said = {} if objection is None else {"objection": objection}
        self._log.note([{"approved" if objection is None else "rejected": offered.digest, **said}])
        self._log.store(self._loop)

    # Waiting

    def _wait_until(self, there: Callable[[], bool], task_id: str) -> None:
        with self._changed:
            while not there():
                if self._can_continue():
                    try:
                        self.run(self._loop, self._continue_run())
                    except Exception as error:  # noqa: BLE001 - any error ends the run
                        self._broken = error
                        raise RunStopped(error) from None
                    finally:
                        self._changed.notify_all()
                else:
                    self._check_can_wait(task_id)
                    self._changed.wait()

    async def _await_until(self, there: Callable[[], bool], task_id: str) -> None:
        if self._achanged is None:
            self._achanged = asyncio.Condition()
        async with self._achanged:
            while not there():
                if self._can_continue():
                    try:
                        await self.arun(self._loop, self._continue_run())
                    except Exception as error:  # noqa: BLE001 - any error ends the run
                        self._broken = error
                        raise RunStopped(error) from None
                    finally:
                        self._achanged.notify_all()
                else:
                    self._check_can_wait(task_id)
                    await self._achanged.wait()

    def notify(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        with self._changed:
            self._changed.notify_all()

    async def anotify(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        if self._achanged is not None:
            async with self._achanged:
                self._achanged.notify_all()

    def _notify_waiting(self, loop: _compat.PregelLoop) -> None:
        if self._achanged is None:
            self.notify()
            return
        loop.submit(self.anotify)

    def _check_can_wait(self, task_id: str) -> None:
        if self._broken is not None:
            raise RunStopped(self._broken)
        if any(one.is_left for one in self._tasks if one.id != self._tasks.origin(task_id)):
            # The next call depends on a task that gives no result now.
            raise GraphInterrupt(())
        if self._ended is not None:
            msg = f"The program ended before the call of node `{self._tasks.get(task_id).node}`."
            raise RunStopped(BadReply(msg, session_id=self.session))
        try:
            self._tasks.check_due()
        except BadReply as error:
            raise RunStopped(error) from None

    def _can_continue(self) -> bool:
        if self._broken is not None:
            return False
        if self._work is not None:
            return True
        if self._ended is not None:
            return False
        if self._tasks.has_offered:
            return False
        return all(self._tasks.entry_for(call) is not None for call in self._log.waiting)

    def _continue_run(self) -> Work:
        """Continue. If the run has not begun, the routers of START are called first."""
        if self._work is not None:
            yield from self._pop_work()
            return
        if self._log.record is None:
            yield from self._begin(self._loop, self._labels_at_start, is_start=True)
        yield from self._send_known_results()

    # Requests

    def _send_known_results(self, until: Callable[[], bool] = lambda: False) -> Work:
        """Send known results until the service waits for a task or the program ends."""
        while self._ended is None and not self._log.is_refused and not until():
            self._tasks.answer_waiting()
            if self._tasks.has_offered:
                return
            if len(self._log.journal.approved) > self._log.run.approvals:
                yield from self._replay_in_new_session()
            elif (last := self._log.last) is None or not last.is_answered:
                return
            else:
                yield from self._send_results_of(last)

    def _send_results_of(self, last: Round) -> Work:
        exchange, run = self._parts.exchange, self._log.run
        results = exchange.results(last)
        rounds = self._log.journal.rounds
        before = exchange.conversation(rounds) if exchange.tells_all else ()
        try:
            answer = yield from ask(exchange.next(run, before, results, len(rounds)))
        except StatusError as error:
            if not is_session_gone(error, run.session):
                raise
            yield from self._replay_in_new_session()
            return
        self._handle_answer(answer, heard=results if exchange.tells_all else "")

    def _handle_answer(self, answer: ServiceAnswer | PolicyDenied, heard: str = "") -> None:
        if not isinstance(answer, PolicyDenied):
            self._watching.tell(answer)
        if isinstance(answer, PolicyDenied):
            self._deny(answer)
        elif isinstance(answer, RunFinished):
            self._ended = answer
        else:
            self._log.add_round(answer.said, answer.calls, heard)
            for call in answer.calls:
                self._tasks.assign(call)

    def _begin(self, loop: _compat.PregelLoop, labels: FieldLabels, *, is_start: bool) -> Work:
        """Start a run from LangGraph's state."""
        channels: Channels = loop.channels
        is_routing = self._tasks.is_start
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
            begins_at="start" if is_usual else self._states.begins_at(entry),
            under=exchange.under,
            place=exchange.place,
            since=[newest_version(loop), writes_from_outside(loop)],
        )
        self._ended = None
        self._log.reset(0 if is_routing else 1)
        answer = yield from ask(exchange.first(run))
        self._log.start(replace(run, session=answer.session_id), [one.early for one in self._tasks])
        self._handle_answer(answer)

    def _replay_in_new_session(self) -> Work:
        """Continue in a new session, in which the journal answers the recorded calls."""
        parts, journal = self._parts, self._log.journal
        parts.approvals.check_all(journal)
        here, approved = parts.exchange, journal.approved
        run = replace(self._log.run, session=None, under=here.under, place=here.place)
        if len(approved) > run.approvals:
            base = parts.program.that_begins_at(run.begins_at).text
            program, results = parts.approvals.program_after(approved, base)
            variables = dumps({**loads(run.variables), **results})
            run = replace(run, variables=variables, program=program, approvals=len(approved))
        steps = [one.step for one in journal.rounds for _ in one.answered]
        recorded = Recording(journal.answered, [*steps, self._log.step], journal.kept)
        try:
            found = yield from replay(here, run, recorded)
        except PolicyDenied as denial:  # the policy is stricter now
            self._deny(denial)
            return
        if isinstance(found.answer, CallsRequested):
            self._watching.tell(found.answer)
        self._tasks.forget_calls()
        self._log.restart(found.run, found.rounds)
        self._tasks.assign_step()
        if not isinstance(found.answer, CallsRequested):
            self._handle_answer(found.answer)

    # Denials

    def _deny(self, error: PolicyDenied) -> None:
        self._watching.tell(error)
        found = self._parts.denials.after(error, self._log.run, self._log.journal)
        if isinstance(found, DeniedCall):
            if self._tasks.is_done(found):  # no task runs that could ask a human
                raise error
            self._log.add_denial(found)
            self._tasks.offer(found)
        else:
            self._log.refuse(found, self._parts.denials.field)

    def _end_tasks(self, loop: _compat.PregelLoop) -> None:
        """End the run: tasks that have not begun count as done, without writes."""
        for task in loop.tasks.values():
            slot = self._tasks.find(task.id)
            if not task.writes and (slot is None or slot.entry is None):
                task.writes.append((_compat.NO_WRITES, None))

    # Storage

    def _restore(self, loop: _compat.PregelLoop) -> Work:
        """Continue the thread from its stored state."""
        self._is_new = False
        if self._parts.denials.asks:
            check_can_ask({"configurable": {_compat.CHECKPOINTER: loop.checkpointer}})
        record = self._log.stored_record(loop)
        if record is None:  # a first input, or a thread of the plain graph
            labels = self._states.with_others(entries_of(loop, None), None, {})
            yield from self._begin_from_thread(loop, labels)
        elif KEPT in record:
            kept = self._states.without(record[KEPT], record.get(GIVEN, ()))
            of = record.get(OF)
            kept = self._states.with_others(entries_of(loop, of), of, kept)
            if not self._tasks.is_start and (is_edited(loop) or GIVEN not in record):
                kept = self._states.edited(loop, kept)
                yield from self._begin_from_thread(loop, kept)
            else:
                self._labels_at_start = kept
        else:
            yield from self._resume_or_restart(loop, ProgramRun(**record))

    def _resume_or_restart(self, loop: _compat.PregelLoop, run: ProgramRun) -> Work:
        """Continue a run, or start another one if its program does not know the state."""
        is_known = not (run.is_over or is_edited(loop, run.since))
        if is_known and not has_asked_nothing(loop, run.session):
            yield from self._resume(loop, run)
        else:
            labels = yield from self._labels_after(loop, run)
            yield from self._begin_from_thread(loop, self._states.edited(loop, labels, run.since))

    def _begin_from_thread(self, loop: _compat.PregelLoop, labels: FieldLabels) -> Work:
        """Start a run from the state of the thread, unless START is due first."""
        if self._tasks.is_start:
            self._labels_at_start = dict(labels)
            return
        self._tasks.read(loop)
        yield from self._begin(loop, labels, is_start=False)
        self._is_within = True

    def _resume(self, loop: _compat.PregelLoop, run: ProgramRun) -> Work:
        """Continue a run, before a step or within one."""
        self._is_resumed = True
        self._is_within = self._log.load(loop, run)
        self._tasks.read(loop)
        for entry in (one for slot in self._tasks for one in slot.kept):
            if entry.get("in") == self.session:  # the others get handles with their calls
                self._log.journal.take(entry)
        for denial in self._log.journal.denials:
            if denial.result is None:
                self._parts.approvals.check(denial)
        if not self._is_within:
            self._log.step += 1
        # The session of a copied checkpoint may have gone on since the checkpoint.
        is_copy = loop.checkpoint_metadata.get("source") == "fork" and not self._is_within
        if loop.is_replaying or is_copy or run.place != self._parts.exchange.place:
            yield from self._replay_in_new_session()
        elif self._is_within:
            self._tasks.assign_step()
        else:
            self._tasks.assign_waiting()
        self._is_within = True
        for denial in self._log.journal.denials:
            if denial.result is None:
                self._tasks.offer(denial)

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
            return [call for one in self._log.journal.rounds for call in one.calls]

        return RequestWatch(self._parts.program.tools, calls, self.session, self.run_id, loop)


def _program_order(task: Any) -> tuple[bool, str]:
    """The sort key of a task in its step, in the order of the program."""
    is_packet = _compat.is_packet(task)
    return is_packet, "" if is_packet else task.name
