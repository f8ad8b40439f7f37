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
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.chat_models.threads import ELSEWHERE
from langchain_sequrity.errors import (
    BadReply,
    InvalidRequest,
    PolicyDenied,
    ProgramFailed,
    StatusError,
    TurnFailed,
    UsageError,
)
from langchain_sequrity.graph.approval import with_graph_facts
from langchain_sequrity.graph.codec.channels import copy_ids
from langchain_sequrity.graph.journal import (
    EARLY,
    OBJECTS,
    DeniedCall,
    JournalEntry,
    ProgramCall,
    ProgramRun,
    whole_steps,
)
from langchain_sequrity.graph.program import ACTIVE, HANDLE, JOURNAL, ToolSpec
from langchain_sequrity.graph.runtime.events import RequestWatch
from langchain_sequrity.graph.runtime.program_calls import DueCall, StepMismatch
from langchain_sequrity.graph.runtime.requests import (
    NO_LABELS,
    CallsRequested,
    Channels,
    ExecutorParts,
    FieldLabels,
    RunFinished,
    ServiceAnswer,
    StateVariables,
    WireLabels,
    Work,
    check_whole,
    entries_of,
    has_asked_nothing,
    in_session_of,
    is_edited,
    journal_entries_of_step,
    newest_version,
    replay,
    send_request,
    send_requests,
    writes_from_outside,
)
from langchain_sequrity.graph.runtime.run_log import (
    INPUT_FIELDS,
    KEPT_LABELS,
    LAST_SESSION,
    PLACE,
    SESSION,
    RunLog,
)
from langchain_sequrity.graph.runtime.run_session import GONE, RunSession
from langchain_sequrity.graph.runtime.task_calls import RunStopped, TaskCalls
from langchain_sequrity.interrupts import check_can_ask, drop_answer, is_late
from langchain_sequrity.labels import Labels, labels_given
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.sync_or_async import run_to_end
from langchain_sequrity.wire.error_body import is_session_busy, is_session_gone

if TYPE_CHECKING:
    from langchain_sequrity.graph.codec.channels import AnyChannel
    from langchain_sequrity.graph.dispatch import NodeResult
    from langchain_sequrity.graph.runtime.call_state import CallState

_START_ANEW = "Start a new run with another `thread_id`."


class _ThreadCondition:
    """A condition of threads, used like `asyncio.Condition`. It blocks its thread and no loop."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.notify_all = self._condition.notify_all

    async def __aenter__(self) -> None:
        self._condition.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._condition.release()

    async def wait(self) -> None:
        self._condition.wait()


class Driver:
    """Drives one run.

    Args:
        parts: The parts that all runs of the executor share.
        is_timed: Whether steps have a timeout, which is for nodes and not for requests.
        is_async: Whether the run is in an event loop. Otherwise no coroutine of it ever waits
            (`sync_or_async.run_to_end`).

    Attributes:
        run_id: The identity of the run, for its events.
        log: What the thread stores of it.
        tasks: The tasks of the current step.
        found: The results of their nodes, by task.
        states: The states of the calls whose nodes have begun, by call.
    """

    def __init__(self, parts: ExecutorParts, *, is_timed: bool, is_async: bool) -> None:
        self._parts, self._is_timed, self.is_async = parts, is_timed, is_async
        mode = "async" if is_async else "sync"
        self.run_id = {"id": uuid4().hex, "graph": parts.name, "mode": mode}
        self.log = RunLog()
        self.tasks = TaskCalls(parts, self.log)
        self._states = StateVariables(parts)
        self._session = RunSession(parts, self.log, self._states)
        self.found: dict[str, NodeResult] = {}
        self.states: dict[str, CallState] = {}
        self._labels_at_start: dict[str, WireLabels] = {}
        self._given: list[str] | None = None
        self._work: Work | None = None
        self._watching: RequestWatch
        self._ended: RunFinished | None = None
        self._is_new = True
        self._is_within = False
        self._is_resumed = False
        self._is_unheard = False  # resumed, and the service has not answered since
        self._broken: BaseException | None = None
        self._changed = asyncio.Condition() if is_async else _ThreadCondition()

    # Called by the loop

    async def run(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        transport, exchange = self._parts.transport(), self._parts.exchange
        with self._watch(loop) as watch, self.log.objects.in_use():
            try:
                self._watching = watch
                await self._session.recall(loop, is_async=self.is_async)
                await send_requests(work, transport, exchange, is_async=self.is_async)
            except TurnFailed as error:
                self._session.answered(is_waiting=False)
                raise with_graph_facts(error, self._parts.program) from None
            finally:
                await self._session.close(is_async=self.is_async)
        self.log.store(loop)

    def step(self, loop: _compat.PregelLoop) -> Work | None:
        """Begin a step.

        Returns:
            The requests to make now; `None` if the first task of the step makes them. This is the
            usual case: streams then show the last step before the next request.
        """
        self.log.begin_step()
        # A checkpointer stores all of the journal, so its serializer decides.
        store = loop.cache if loop.checkpointer is None else loop.checkpointer
        self.log.objects.serde = getattr(store, "serde", None)
        self.found, self.states = {}, {}
        self._loop = loop
        due = list(loop.tasks.values())
        waiting = self._parts.program.waiting
        if len(due) > 1 and any(one.name in waiting for one in due):
            # LangGraph starts tasks in this order, and only as many as it has threads. The task
            # that the program calls first must be among them: the others wait for it.
            due.sort(key=lambda one: (True, "") if _compat.is_packet(one) else (False, one.name))
            loop.tasks = {one.id: one for one in due}
        self.tasks.is_start = [one.name for one in due] == [START]
        work = self._request_step(loop)
        # A node's cache and timeout start after its call.
        is_bound = self._is_timed or any(one.cache_key or one.timeout is not None for one in due)
        is_lazy = any(not one.writes for one in due) and not (is_bound or self.tasks.is_start)
        self._work = work if is_lazy else None
        return None if is_lazy else work

    def _request_step(self, loop: _compat.PregelLoop) -> Work:
        """Request the calls of the due tasks."""
        if self._is_new:
            yield from self._restore(loop)
        if self.tasks.is_start:
            self._is_within = False
            return
        if self.log.record is None:
            self.tasks.read(loop)
            yield from self._begin(loop, self._labels_at_start, is_start=True)
        elif self._is_within:
            self._is_within = False
        elif self.log.record.is_over:
            self.tasks.read(loop)
            yield from self._begin_from_state(loop)
        else:
            self.tasks.end_step()
            self.tasks.read(loop)
            self.log.step += 1
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
        if self.log.is_refused:
            self._end_tasks(loop)

    @property
    def _may_disagree(self) -> bool:
        """Whether the thread may have changed in a way that the program does not know."""
        return self._is_resumed or (self.log.run.begins_at != "start" and self.log.step > 1)

    def _request_due_calls(self, loop: _compat.PregelLoop) -> Work:
        yield from self._send_known_results()
        yield from self._begin_next_program(loop)
        if not self.log.is_refused:
            self.tasks.check_due()

    def _catch_up(self) -> Work:
        """Let the service ask for all calls of a step whose results are all known.

        Otherwise it would ask for these calls later. They would be taken for calls of the next
        step, which may have the same nodes. The next step sends the results that are left.
        """
        try:
            yield from self._send_known_results(until=lambda: self.tasks.have_all_calls)
            self.tasks.check_due()
        except (StepMismatch, ProgramFailed):
            self.log.mark_over()
            return
        if not (self.log.is_refused or self.tasks.have_all_calls):
            self.log.mark_over()

    def _begin_from_state(self, loop: _compat.PregelLoop) -> Work:
        """Start a run from LangGraph's state, within another run."""
        self.tasks.forget_calls()
        labels = yield from self._labels_after(loop, self.log.run)
        yield from self._begin(loop, labels, is_start=False)

    def _labels_after(
        self, loop: _compat.PregelLoop, run: ProgramRun
    ) -> Generator[Any, Any, dict[str, WireLabels]]:
        """The labels of the fields after the finished steps of a run."""
        check_whole(loop, run)
        noted = whole_steps(journal_entries_of_step(loop), run.session)
        entries = [*entries_of(loop, run.session), *noted]
        return (yield from self._states.after(run, entries))

    def _begin_next_program(self, loop: _compat.PregelLoop) -> Work:
        """Continue with a new program after one has taken its highest number of steps."""
        while self._ended is not None and not self.log.is_refused:
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
        if self.tasks.is_start:
            [start] = starts
            fields = self._parts.spec.channels
            self._given = [name for name, _ in start.writes if name in fields]
            if self.log.record is None:
                self.log.keep_input(self._labels_at_start, self._given)
        self._take_written(loop)
        self.tasks.check_changes()
        for found in self.found.values():
            for raw, (_, written) in zip(found.raw, found.writes, strict=True):
                copy_ids(raw, written)
        if starts and not self.tasks.is_start and self.log.record is not None:
            self.log.mark_over()  # an input beside tasks is applied together with their writes
        elif any(slot.has_lost for slot in self.tasks) and not self.log.is_refused:
            self.log.mark_over()
        self.log.note_step()
        self.log.store(loop)

    def _take_written(self, loop: _compat.PregelLoop) -> None:
        written = (one for task in loop.tasks.values() for one in task.writes)
        for entry in (one for channel, entries in written if channel == JOURNAL for one in entries):
            if entry["in"] == self.log.session:
                self.log.journal.add_result(entry)
        self.tasks.answer_waiting()  # finished tasks may have earlier results

    def failed_to_apply(self, loop: _compat.PregelLoop) -> Sequence[tuple[str, Any]]:
        """Handle a step whose writes LangGraph could not apply.

        With durability "exit" it stores the half-applied state, and the thread continues from it.
        The program of the run never has such a state, so the next run starts from it.

        Returns:
            Writes to apply to that state. They mark the step as finished. Without them, the next
            run would take the changed fields for edits from outside, and drop their labels.
        """
        if loop.durability != "exit" or self.log.record is None:
            return ()
        self.log.keep_labels(self._states.all_labels(self.log.journal.entries(), self.log.record))
        self.log.store(loop)
        self.log.note_step()
        return self.log.writes  # this driver writes nothing after them

    def close(self) -> None:
        """Drop the reference to the loop, which refers to this driver."""
        for name in ("_loop", "_watching"):
            vars(self).pop(name, None)
        self.tasks.clear()
        self._work = None

    def finish(self, loop: _compat.PregelLoop) -> Work:
        """Send the last results, and store the labels of the fields."""
        self.log.begin_step()
        ran_nothing = self._is_new
        if self._is_new:
            self._is_new = False
            record = self.log.stored_record(loop)
            if record is None or KEPT_LABELS in record or is_edited(loop, record["since"]):
                return
            run = ProgramRun(**record)
            self._is_within = self.log.load(loop, run)
            self.tasks.read(loop)
            yield from self._resume(loop, run)
        if self.log.record is None:  # nothing followed START
            if self._given is not None:
                self.log.keep_labels(
                    self._states.without_replaced(self._labels_at_start, self._given)
                )
            return
        is_known = not self.log.run.is_over
        if is_known:
            self.tasks.end_step()
            self.tasks.clear()
            yield from self._send_known_results()
            if self.log.is_refused:
                return
            if ran_nothing and self._ended is None:
                return  # LangGraph has left this run: the due tasks were removed from outside
            # A run from a state may have begun with a node whose router LangGraph no longer calls.
            may_disagree = self._may_disagree or self.log.run.begins_at != "start"
            has_ended = self._ended is not None and not self._is_active(self._ended)
            is_known = has_ended or not may_disagree
        if is_known:
            self.log.keep_labels(self._checked_end())
        else:
            self.log.keep_labels((yield from self._labels_after(loop, self.log.run)))

    def _checked_end(self) -> dict[str, WireLabels]:
        """The labels of the fields at the end, after a check that the program has ended too.

        Raises:
            BadReply: If it has not.
        """
        ended = self._ended
        if ended is None or self._is_active(ended):
            msg = (
                "The program has work left, but LangGraph has ended. Its result is not used. "
                f"{_START_ANEW}"
            )
            raise BadReply(msg, session_id=self.log.session_id)
        labels = ended.result.labels
        if labels is None:  # they decide what the next run may do
            msg = "The service reports the final value of the run without its labels."
            raise BadReply(msg, session_id=ended.session_id)
        labels_given(labels.without_reserved())  # to an executor around this one
        return self._states.reported(ended.result)

    def task_ended(self, loop: _compat.PregelLoop, task_id: str, channels: Sequence[str]) -> None:
        """Handle the end of a task: an error, a question, or success."""
        slot = self.tasks.find(task_id)
        if slot is not None and _compat.was_interrupted_or_failed(channels):
            slot.is_left = True
            if self.is_async:
                loop.submit(self.notify)
            else:
                run_to_end(self.notify())

    def writes_as_returned(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as its node returned them.

        `None` for a task that has not run because the run ends with a denial.
        """
        if self.log.is_refused and all(channel == _compat.NO_WRITES for channel, _ in writes):
            return None
        found = self.found.get(task_id)
        if found is None or _compat.was_interrupted_or_failed([channel for channel, _ in writes]):
            return writes
        names = (name for name, _ in found.writes)
        rest = [one for one in writes if one[0] not in self._parts.spec.channels]
        return [*zip(names, found.raw, strict=True), *rest]

    def writes_to_store(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as LangGraph stores them: messages get their ids later."""
        result = self.found.get(task_id) if self._parts.tools.stores_no_ids else None
        if result is None or _compat.was_interrupted_or_failed([channel for channel, _ in writes]):
            return writes
        returned = self._parts.tools.without_ids(result)
        # The node's code may also write to channels itself (`push_message`).
        return [(channel, returned.get(id(value), value)) for channel, value in writes]

    # Called by the tasks

    async def call(self, runnable: Runnable[Any, Any], given: Any, config: RunnableConfig) -> Any:
        """Call a part of the graph as the run does: in the event loop, or at once."""
        if self.is_async:
            return await runnable.ainvoke(given, config)
        return runnable.invoke(given, config)

    async def begin(self, task_id: str) -> None:
        """Wait until the calls of the step are requested.

        Raises:
            RunStopped: If the run cannot continue.
        """
        await self._wait_until(lambda: self._work is None, task_id)

    async def call_of(self, task_id: str, config: RunnableConfig) -> ProgramCall | None:
        """Wait for the call of a task.

        If the call is denied and a human may approve it, an interrupt of the task asks.

        Returns:
            The call; `None` if the run ends with a denial.

        Raises:
            RunStopped: If the run cannot continue, or a human rejected the call.
            GraphInterrupt: If another task of the step first needs an answer or another attempt.
        """
        await self._wait_until(lambda: self._has_call(task_id), task_id)
        slot = self.tasks.get(task_id)
        if self.log.is_refused:
            return None
        return await self._approved(slot.call, slot.offered, config)

    def _has_call(self, task_id: str) -> bool:
        slot = self.tasks.find(self.tasks.origin(task_id))
        return self.log.is_refused or (slot is not None and (slot.offered or slot.call) is not None)

    async def router_call(
        self, task_id: str, tool: ToolSpec, config: RunnableConfig
    ) -> ProgramCall | None:
        """Wait for the call of a task's router; see `call_of`."""
        slot = self.tasks.get(task_id)
        routed = slot.router(tool.name)

        def is_known() -> bool:
            return self.log.is_refused or (routed.call or slot.offered) is not None

        await self._wait_until(is_known, task_id)
        return await self._approved(routed.call, slot.offered, config)

    async def _approved(
        self, call: ProgramCall | None, offered: DeniedCall | None, config: RunnableConfig
    ) -> ProgramCall | None:
        """The call, or the denied call after a human has approved it.

        Raises:
            RunStopped: If it is rejected.
        """
        denials = self._parts.denials
        if call is not None or offered is None:
            if denials.asks:
                drop_answer(config)
            return call
        if offered.is_approved or offered.objection is not None:
            drop_answer(config)
        else:
            late = await is_late(config, is_async=self.is_async)
            objection = denials.ask_human(offered, config, is_late=late)
            offered.is_approved, offered.objection = objection is None, objection
            with self._watch(self._loop) as watch:
                watch.report(offered)
            said = {"approved": offered.digest}
            if objection is not None:
                said = {"rejected": offered.digest, "objection": objection}
            self.log.write_entries([said])
            self.log.store(self._loop)
        if offered.objection is not None:
            self._broken = denials.rejection_error(offered, offered.objection)
            await self.notify()  # other tasks may wait for calls that do not come now
            raise RunStopped(self._broken)
        return offered.call

    def record(self, task_id: str, tool: ToolSpec, entry: JournalEntry) -> None:
        """Record the result of a task, or of one of its routers."""
        if EARLY in entry or HANDLE in entry:
            self.log.journal.add_result(entry)
        slot = self.tasks.get(task_id)
        if EARLY in entry:
            slot.early.append(entry)
            return
        slot.add_result(tool, entry)
        self.tasks.apply_changes(slot, self._loop)
        self.log.objects.load(entry.get(OBJECTS, {}))
        if slot.offered is not None and slot.offered.tool == tool.name:
            slot.offered.result, slot.offered = entry, None

    def undo_changes(self, loop: _compat.PregelLoop) -> None:
        """Undo what the nodes of a step that failed have changed in place, before it is stored.

        No call has reported it, so the state would have it without labels. What finished nodes have
        changed is in their results.
        """
        with self.log.objects.as_stored().in_use():
            for state in self.states.values():
                cast("dict[str, AnyChannel]", loop.channels).update(state.before_changes())

    def check_shared(
        self, task_id: str, state: "CallState", find: Callable[[], Sequence[Any]], verb: str
    ) -> None:
        """Check that no node beside a task has an object that its own node changes in place.

        Args:
            task_id: The task.
            state: The state of its call.
            find: Finds the objects in it that it changes.
            verb: How sure that is.

        Raises:
            UsageError: If one has.
        """
        slot = self.tasks.get(task_id)
        objects = find() if slot.handle else ()
        if not objects:
            return
        for other in list(self.states.values()):
            if other is not state and other.shares(objects):
                msg = (
                    f"Node `{slot.node}` {verb} a `{type(objects[0]).__name__}` in place, and node "
                    f"`{other.signature.tool.node}`, which runs beside it, has the same object. "
                    "Give each its own object, have it outside the state, or run the nodes one "
                    "after the other."
                )
                raise UsageError(msg)

    def call_before(self, task_id: str, tool: ToolSpec) -> ProgramCall:
        """A provisional call for a router that runs before the service asks for it.

        Its id sorts in the order in which the service will ask.
        """
        at = f"{self.log.step:06}:{self.tasks.index_of(task_id):06}:{tool.name}"
        return ProgramCall(at, tool.name, {})

    async def keep_output(self, task_id: str, output: Mapping[str, Any]) -> None:
        """Store the output of a node before its router is called, so the node does not run again.

        With durability "sync", it waits until the output is stored.
        """
        stored = self.tasks.keep_output(self._loop, task_id, output)
        if stored is not None and self.is_async:
            await stored
        elif stored is not None:
            stored.result()

    # Waiting

    async def _wait_until(self, there: Callable[[], bool], task_id: str) -> None:
        async with self._changed:
            while not there():
                if self._can_continue():
                    try:
                        await self.run(self._loop, self._continue_run())
                    except Exception as error:  # noqa: BLE001 - any error ends the run
                        self._broken = error
                        raise RunStopped(error) from None
                    finally:
                        self._changed.notify_all()
                else:
                    self._check_can_wait(task_id)
                    await self._changed.wait()

    async def notify(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        async with self._changed:
            self._changed.notify_all()

    def _check_can_wait(self, task_id: str) -> None:
        if self._broken is not None:
            raise RunStopped(self._broken)
        if any(one.is_left for one in self.tasks if one.id != self.tasks.origin(task_id)):
            # The next call depends on a task that gives no result now.
            raise GraphInterrupt(())
        if self._ended is not None:
            msg = f"The program ended before the call of node `{self.tasks.get(task_id).node}`."
            raise RunStopped(BadReply(msg, session_id=self.log.session_id))
        try:
            self.tasks.check_due()
        except BadReply as error:
            raise RunStopped(error) from None

    def _can_continue(self) -> bool:
        if self._broken is not None:
            return False
        if self._work is not None:
            return True
        if self._ended is not None:
            return False
        if self.tasks.has_offered:
            return False
        return all(self.tasks.entry_for(call) is not None for call in self.log.waiting)

    def _continue_run(self) -> Work:
        """Continue. If the run has not begun, the routers of START are called first."""
        work, self._work = self._work, None
        if work is not None:
            yield from work
            return
        if self.log.record is None:
            yield from self._begin(self._loop, self._labels_at_start, is_start=True)
        yield from self._send_known_results()

    # Requests

    def _send_known_results(self, until: Callable[[], bool] = lambda: False) -> Work:
        """Send known results until the service waits for a task or the program ends."""
        while self._ended is None and not self.log.is_refused and not until():
            self.tasks.answer_waiting()
            if self.tasks.has_offered:
                return
            if len(self.log.journal.approved) > self.log.run.approvals:
                yield from self._replay()
                continue
            if (last := self.log.last) is None or not last.is_answered:
                return
            call = self._parts.exchange.next(self.log.run, self.log.journal.rounds)
            try:
                answer = yield from send_request(call)
            except StatusError as error:
                if is_session_gone(error, self.log.session_id):
                    yield from self._replay(GONE)
                elif self._is_refused_again(error):
                    yield from self._replay()
                else:
                    raise
            else:
                self._is_unheard = False
                self._handle_answer(answer, self._due_calls(answer))

    def _is_refused_again(self, error: StatusError) -> bool:
        """Whether the session cannot continue with what the thread has stored of it.

        An earlier reply may have been false in a part that only the service knows, such as the id
        of a call. A run that is resumed then begins again in a new session.
        """
        is_invalid = isinstance(error, InvalidRequest) and not is_session_busy(error)
        return is_invalid and self._is_unheard

    def _due_calls(
        self, answer: ServiceAnswer | PolicyDenied
    ) -> Sequence[tuple[ProgramCall, DueCall]]:
        """The calls of a reply, which are checked before anything of the reply is used."""
        return self.tasks.due(answer.calls) if isinstance(answer, CallsRequested) else ()

    def _handle_answer(
        self,
        answer: ServiceAnswer | PolicyDenied,
        due_calls: Sequence[tuple[ProgramCall, DueCall]],
    ) -> None:
        self._session.answered(is_waiting=isinstance(answer, CallsRequested))
        if isinstance(answer, PolicyDenied):
            self._deny(answer)
            return
        self._watching.report(answer)
        if isinstance(answer, RunFinished):
            self._ended = answer
            return
        self.log.add_round(answer.said, [call for call, _ in due_calls])
        for call, due in due_calls:
            self.tasks.assign(call, due)

    def _begin(self, loop: _compat.PregelLoop, labels: FieldLabels, *, is_start: bool) -> Work:
        """Start a run from LangGraph's state."""
        channels: Channels = loop.channels
        is_routing = self.tasks.is_start
        if is_routing:
            channels = self._with_input(loop)
        labels = self._states.without_replaced(labels, self._given or ()) if is_start else labels
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
        session_id = self._session.to_begin_in(channels)
        try:
            answer = yield from send_request(exchange.first(run, session_id))
        except StatusError as error:
            self._session.accept_loss(error, session_id)
            session_id = None
            answer = yield from send_request(exchange.first(run))
        self.tasks.begin(variables, run.begins_at)
        due_calls = self._due_calls(answer)
        self.log.reset(0 if is_routing else 1)
        run = in_session_of(run, answer, continues=session_id is not None)
        self._session.continues_in(run)
        self.log.start(run, [task.early for task in self.tasks])
        self._handle_answer(answer, due_calls)

    def _replay(self, reason: str = "") -> Work:
        """Begin the run again; the journal answers the recorded calls.

        Args:
            reason: Why its session is lost; empty if it is there.
        """
        parts, journal = self._parts, self.log.journal
        self._is_unheard = False
        session_id = self._session.to_begin_again_in(self.log.run, reason)
        for denial in journal.denials:
            if denial.is_approved:
                parts.denials.check_approval(denial)
        run = self._states.in_new_session(self.log.run, journal.approved)
        steps = [turn.step for turn in journal.rounds for _ in turn.answered]
        steps.append(self.log.step)
        try:
            try:
                replayed = yield from replay(parts.exchange, run, journal, steps, session_id)
            except StatusError as error:
                self._session.accept_loss(error, session_id)
                replayed = yield from replay(parts.exchange, run, journal, steps)
        except PolicyDenied as denial:  # the policy is stricter now
            self._deny(denial)
            return
        if isinstance(replayed.answer, CallsRequested):
            self._watching.report(replayed.answer)
        self._session.continues_in(replayed.run)
        self._session.answered(is_waiting=isinstance(replayed.answer, CallsRequested))
        self.tasks.forget_calls()
        self.log.restart(replayed.run, replayed.rounds)
        self.tasks.assign_recorded()
        if not isinstance(replayed.answer, CallsRequested):
            self._handle_answer(replayed.answer, ())

    # Denials

    def _deny(self, error: PolicyDenied) -> None:
        self._watching.report(error)
        found = self._parts.denials.handle(error, self.log.run, self.log.journal, self.log.step)
        if isinstance(found, DeniedCall):
            slot = self.tasks.task_of(found)
            if slot.is_done:  # no task runs that could ask a human
                raise error
            self.log.add_denial(found)
            slot.offered = found
        else:
            self.log.refuse(found, self._parts.denials.field)

    def _end_tasks(self, loop: _compat.PregelLoop) -> None:
        """End the run: tasks that have not begun count as done, without writes."""
        for task in loop.tasks.values():
            slot = self.tasks.find(task.id)
            if not task.writes and (slot is None or slot.entry is None):
                task.writes.append((_compat.NO_WRITES, None))

    # Storage

    def _restore(self, loop: _compat.PregelLoop) -> Work:
        """Continue the thread from its stored state."""
        self._is_new = False
        if self._parts.denials.asks:
            check_can_ask({"configurable": {_compat.CHECKPOINTER: loop.checkpointer}})
        record = self.log.stored_record(loop)
        self.log.thread_session = {name: (record or {}).get(name) for name in (SESSION, PLACE)}
        if record is None:  # a first input, or a thread of the plain graph
            labels = self._states.with_others(entries_of(loop, None), None, {})
            yield from self._begin_from_thread(loop, labels)
        elif KEPT_LABELS in record:
            kept = self._states.without_replaced(record[KEPT_LABELS], record.get(INPUT_FIELDS, ()))
            of = record.get(LAST_SESSION)
            kept = self._states.with_others(entries_of(loop, of), of, kept)
            if not self.tasks.is_start and (is_edited(loop) or INPUT_FIELDS not in record):
                kept = self._states.labels_after_edits(loop, kept)
                yield from self._begin_from_thread(loop, kept)
            else:
                self._labels_at_start = kept
        else:
            run = ProgramRun(**record)
            is_known = not (run.is_over or is_edited(loop, run.since))
            if is_known and not has_asked_nothing(loop, run.session):
                self._is_within = self.log.load(loop, run)
                self.tasks.read(loop)
                if self.tasks.has_changes(loop.channels):
                    yield from self._resume(loop, run)
                    return
            labels = yield from self._labels_after(loop, run)
            yield from self._begin_from_thread(
                loop, self._states.labels_after_edits(loop, labels, run.since)
            )

    def _begin_from_thread(self, loop: _compat.PregelLoop, labels: FieldLabels) -> Work:
        """Start a run from the state of the thread, unless START is due first."""
        if self.tasks.is_start:
            self._labels_at_start = dict(labels)
            return
        self.tasks.read(loop)
        yield from self._begin(loop, labels, is_start=False)
        self._is_within = True

    def _resume(self, loop: _compat.PregelLoop, run: ProgramRun) -> Work:
        """Continue a run whose log and tasks are read, before a step or within one."""
        self._is_resumed = self._is_unheard = True
        for entry in (one for slot in self.tasks for one in slot.results):
            if entry.get("in") == self.log.session:  # the others get handles with their calls
                self.log.journal.add_result(entry)
        offered = [one for one in self.log.journal.denials if one.result is None]
        for denial in offered:
            self._parts.denials.check_approval(denial)
        if not self._is_within:
            self.log.step += 1
        # The session of a copied checkpoint may have gone on since the checkpoint.
        is_copy = loop.checkpoint_metadata.get("source") == "fork" and not self._is_within
        is_moved = run.place != self._parts.exchange.place
        if loop.is_replaying or is_copy or is_moved:
            self._session.has_left_calls = True
            yield from self._replay(ELSEWHERE if is_moved else "")
        else:
            self.tasks.assign_recorded()
        self._is_within = True
        for denial in offered:
            self.tasks.task_of(denial).offered = denial

    def _with_input(self, loop: _compat.PregelLoop) -> Channels:
        """The channels with the input, which LangGraph applies at the end of the first step."""
        [start] = [one for one in loop.tasks.values() if one.name == START]
        found = dict(loop.channels)
        writes = list(start.writes)
        self._given = [name for name, _ in writes if name in self._parts.spec.channels]
        plans = self._parts.program.fields.plans
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
        return RequestWatch(self._parts.program.tools, self.log, self.run_id, loop)
