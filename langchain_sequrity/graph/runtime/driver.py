"""The driver of one run: it decides when the service is asked, and when a task has to wait.

LangGraph decides which tasks run. The service decides whether they may run, and with which
arguments. Both take the same steps. Before a step, the driver sends the results of the last one,
and the service asks for the calls of this one. A task waits for its call, runs with the arguments
of the call, and writes its result to the journal. If LangGraph and the service disagree, no task
runs.

A state that the service did not make starts a new run: a first input, an edited state, a thread of
the plain graph. Its fields are context variables, with their known labels (`StateVariables`,
`StateLabels`).

The states of a run in this process, and all ways from one to another:

    UNREAD ──────────────► RUNNING ──┬──► ENDED ────┐
      │     begin, resume    ▲   ▲    ├──► REFUSED ──┼──► LEFT
      │                begin │   │    └──────────────┘     │
      └────► AT_INPUT ───────┘   └───────── begin ─────────┘
                                     (also ENDED, REFUSED)

A stored run may also be resumed as REFUSED, and each state may become FAILED.

Where to look (`Driver`, if no other class is named):

- The stored record decides whether an input, a stored run or a new one comes: `_restore`,
  `_resume`.
- A program begins, in the session of the thread or in a new one: `_begin`.
- Results are sent until the service waits for a task, denies a call or ends:
  `_send_known_results`, `_handle_answer`.
- A task waits for its call, and the first one that finds all results makes the requests: `Waiting`.
- A denial stops the step, or is offered to a human: `_deny`.
- A fork, an approved call or a lost session: a new session replays the program (`_replay`).
- A program has reached a limit: the next one begins, at a step (`_begin_next_program`), or within
  one (`_begin_next_portions`). The service has reached one: `_begin_smaller`.
- LangGraph has a state that the program cannot have; the next step begins a run with it: `_leave`.
- The graph ends, so the program must have ended: `finish`.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from enum import Enum
from typing import Any
from uuid import uuid4

from langchain_core.runnables import Runnable, RunnableConfig
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
)
from langchain_sequrity.graph.approval import with_graph_facts
from langchain_sequrity.graph.journal import (
    Approval,
    CallResult,
    DeniedCall,
    FinishedRun,
    ProgramCall,
    ProgramRun,
    Rejection,
    finished_steps,
)
from langchain_sequrity.graph.program import ACTIVE, JOURNAL, ToolSpec
from langchain_sequrity.graph.runtime.events import RequestWatch
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.program_calls import DueCall, StepMismatch
from langchain_sequrity.graph.runtime.replay import replay
from langchain_sequrity.graph.runtime.requests import (
    CallsRequested,
    RunFinished,
    ServiceAnswer,
    Work,
    in_session_of,
    send_request,
    send_requests,
)
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.graph.runtime.run_session import GONE, RunSession
from langchain_sequrity.graph.runtime.state_labels import StateLabels
from langchain_sequrity.graph.runtime.state_variables import (
    NO_LABELS,
    Channels,
    FieldLabels,
    ProgramLimits,
    StateVariables,
)
from langchain_sequrity.graph.runtime.step_results import StepResults
from langchain_sequrity.graph.runtime.stored_run import (
    check_whole,
    is_edited,
    is_only_begun,
    newest_version,
    records_of,
    records_of_step,
    writes_from_outside,
)
from langchain_sequrity.graph.runtime.task_calls import RunStopped, TaskCalls
from langchain_sequrity.graph.runtime.waiting import Waiting
from langchain_sequrity.interrupts import check_can_ask
from langchain_sequrity.labels import Labels, WireLabels, labels_given
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.sync_or_async import run_to_end
from langchain_sequrity.wire.error_body import is_session_busy, is_session_gone


class RunState(Enum):
    """Where a run is; the value says it in words."""

    UNREAD = "nothing of the thread has been read"
    AT_INPUT = "no program runs, and an input comes first"
    RUNNING = "the program runs"
    ENDED = "the program has ended"
    REFUSED = "a denial has ended the run with a state"
    LEFT = "the program no longer has the state of the graph"
    FAILED = "an error has ended the run"

    def check_next(self, state: "RunState") -> None:
        """Check that a state may follow this one.

        Raises:
            RuntimeError: If it may not; this is a mistake in the driver.
        """
        if state is not RunState.FAILED and state not in _NEXT[self]:
            msg = f"A run of which {self.value!r} holds cannot become one of which {state.value!r}."
            raise RuntimeError(msg)


_NEXT: dict[RunState, frozenset[RunState]] = {
    RunState.UNREAD: frozenset({RunState.AT_INPUT, RunState.RUNNING, RunState.REFUSED}),
    RunState.AT_INPUT: frozenset({RunState.RUNNING}),
    RunState.RUNNING: frozenset(
        {RunState.RUNNING, RunState.ENDED, RunState.REFUSED, RunState.LEFT}
    ),
    RunState.ENDED: frozenset({RunState.RUNNING, RunState.LEFT}),
    RunState.REFUSED: frozenset({RunState.REFUSED, RunState.RUNNING, RunState.LEFT}),
    RunState.LEFT: frozenset({RunState.LEFT, RunState.RUNNING}),
    RunState.FAILED: frozenset(),
}


_START_ANEW = "Start a new run with another `thread_id`."
_STEP_TOO_LARGE = (
    "A program of one call needs more than the service allows. Store less in the fields that the "
    "node reads or writes, or raise the limit if the service is yours."
)


def _is_too_large(error: Exception) -> bool:
    """Whether a session or a program needs more than the service allows.

    An exceeded limit of `fsm` in `X-Config` has the code of a program's limit too, but a run does
    not pass it by.
    """
    if isinstance(error, ProgramFailed):
        return error.code == "limit_reached" and "OutOfBudget" in str(error)
    return isinstance(error, StatusError) and error.status == 413  # noqa: PLR2004 - the status


class Driver:
    """Drives one run.

    Args:
        parts: The parts that all runs of the executor share.
        is_timed: Whether steps have a timeout, which is for nodes and not for requests.
        is_async: Whether the run is in an event loop. Otherwise no coroutine of it ever waits
            (`sync_or_async.run_to_end`).

    Attributes:
        run_id: The identity of the run, for its events.
        state: Where the run is.
        failure: The error that has ended the run; `None` in other states than `FAILED`.
        log: What the thread stores of it.
        tasks: The tasks of the current step.
        results: The results of their nodes.
        waiting: Lets the tasks wait.
    """

    def __init__(self, parts: ExecutorParts, *, is_timed: bool, is_async: bool) -> None:
        self.parts, self._is_timed, self.is_async = parts, is_timed, is_async
        mode = "async" if is_async else "sync"
        self.run_id = {"id": uuid4().hex, "graph": parts.name, "mode": mode}
        self.log = RunLog(parts.exchange.sends_all)
        self.tasks = TaskCalls(parts, self.log)
        self.results = StepResults(parts, self.log, self.tasks)
        self.waiting = Waiting(self)
        self._variables = StateVariables(parts)
        self._labels = StateLabels(parts, self._variables)
        self._session = RunSession(parts, self.log, self._variables)
        self.state = RunState.UNREAD
        self.failure: BaseException | None = None
        self._final_answer: RunFinished | None = None
        self._continues_stored_run = False
        self._step_requests: Work | None = None
        self._labels_before_input: dict[str, WireLabels] = {}
        self._input_fields: list[str] | None = None
        self._limits = ProgramLimits()
        self._watching: RequestWatch

    def _enter(self, state: RunState) -> None:
        self.state.check_next(state)
        self.state = state

    def fail(self, error: BaseException) -> None:
        """End the run with an error."""
        self._enter(RunState.FAILED)
        self.failure = error

    # Called by the loop

    async def run(self, loop: _compat.PregelLoop, work: Work) -> None:
        """Make the requests of a piece of work."""
        transport, exchange = self.parts.transport(), self.parts.exchange
        with self._watch(loop) as watch, self.log.objects.in_use():
            try:
                self._watching = watch
                await self._session.recall(loop, is_async=self.is_async)
                await send_requests(work, transport, exchange, is_async=self.is_async)
            except StatusError as error:
                self._note_sizes(error, loop)
                raise
            except TurnFailed as error:
                self._note_sizes(error, loop)
                self._session.answered(is_waiting=False)
                raise with_graph_facts(error, self.parts.program) from None
            finally:
                await self._session.close(is_async=self.is_async)
        self.log.store(loop)

    def _note_sizes(self, error: Exception, loop: _compat.PregelLoop) -> None:
        """Name the large fields in an error about a size."""
        if _is_too_large(error) and (note := self.parts.tools.describe_sizes(loop.channels)):
            error.add_note(note)

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
        self.results.clear()
        self._loop = loop
        due = list(loop.tasks.values())
        waiting = self.parts.program.waiting
        sent = sum(map(_compat.is_packet, due))
        is_split = bool(self._limits.portion(0, sent))
        if is_split or (len(due) > 1 and any(task.name in waiting for task in due)):
            # LangGraph starts tasks in this order, and only as many as it has threads. The task
            # that the program calls first must be among them: the others wait for it.
            due.sort(key=lambda t: (True, "") if _compat.is_packet(t) else (False, t.name))
            loop.tasks = {task.id: task for task in due}
        self.tasks.is_start = [task.name for task in due] == [START]
        requests = self._request_step(loop)
        # A node's cache and timeout start after its call.
        is_bound = self._is_timed or any(t.cache_key or t.timeout is not None for t in due)
        is_lazy = any(not t.writes for t in due) and not (is_bound or self.tasks.is_start)
        self._step_requests = requests if is_lazy else None
        return None if is_lazy else requests

    def _request_step(self, loop: _compat.PregelLoop) -> Work:
        """Request the calls of the due tasks."""
        is_open = False
        if self.state is RunState.UNREAD:
            is_open = yield from self._restore(loop)
        if self.tasks.is_start:
            return
        if self.state is RunState.AT_INPUT:
            self.tasks.read(loop)
            yield from self._begin(loop, self._labels_before_input, is_start=True)
        elif self.state is RunState.LEFT:
            self.tasks.read(loop)
            yield from self._begin_from_state(loop)
        elif not is_open:
            self.tasks.end_step()
            self.tasks.read(loop)
            self.log.step += 1
        if all(task.writes for task in loop.tasks.values()):
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
        is_late = self.log.run.begins_at != "start" and self.log.step > 1
        return self._continues_stored_run or is_late

    def _request_due_calls(self, loop: _compat.PregelLoop) -> Work:
        yield from self._send_known_results()
        yield from self._begin_next_portions()
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
            self._leave()
            return
        if not (self.log.is_refused or self.tasks.have_all_calls):
            self._leave()

    def _leave(self) -> None:
        """Record that the program does not have the state of the graph after this step."""
        self.log.mark_over()
        self._enter(RunState.LEFT)

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
        of_open_step = finished_steps(records_of_step(loop), run.session)
        records = [*records_of(loop, run.session), *of_open_step]
        try:
            return (yield from self._labels.after(run, records))
        except StatusError as error:
            if not _is_too_large(error):
                raise
            return self._labels.all_labels(records, run)

    def _begin_next_portions(self) -> Work:
        """Continue with a program for the next packets of the step, after one has ended."""
        while self.state is RunState.ENDED and self.tasks.has_unserved:
            answer, run = self._final_answer, self.log.run
            assert answer is not None  # noqa: S101 - the program has ended
            earlier_labels = self._labels.after_portion(answer.result, run)
            labels, self._labels.packet_labels = self._variables.labels_of(run)
            yield from self._begin(self._loop, labels, is_start=False, earlier=earlier_labels)
            yield from self._send_known_results()

    def _begin_next_program(self, loop: _compat.PregelLoop) -> Work:
        """Continue with a new program after one has reached a limit."""
        if self.tasks.has_unserved:
            return
        while self.state is RunState.ENDED and (answer := self._final_answer) is not None:
            if not (self.log.takes_portion or self._is_active(answer)):
                msg = (
                    "The program has ended, but LangGraph has tasks left. Its result is not used. "
                    f"{_START_ANEW}"
                )
                raise StepMismatch(msg, session_id=answer.session_id)
            labels = self._reported(answer)
            self._labels.packet_labels = self._labels.sent_labels
            yield from self._begin(loop, labels, is_start=False)
            yield from self._send_known_results()
            yield from self._begin_next_portions()

    def _reported(self, answer: RunFinished) -> dict[str, WireLabels]:
        return self._labels.reported(answer.result, self.log.run.earlier_labels)

    def _begin_smaller(self, error: StatusError | ProgramFailed) -> Work:
        """Continue with a program that takes less, after one has reached a limit of the service."""
        packets = len([slot for slot in self.tasks.served if slot.is_packet])
        if self.log.step > 1:
            self._limits.steps = max(1, self.log.step // 2)
        elif packets > 1:
            self._limits.packets = packets // 2
        else:
            error.add_note(_STEP_TOO_LARGE)
            raise error
        yield from self._begin_from_state(self._loop)

    def after_step(self, loop: _compat.PregelLoop) -> None:
        """Add the results of the step to the journal, before LangGraph applies its writes."""
        starts = [task for task in loop.tasks.values() if task.name == START]
        if self.tasks.is_start:
            [start] = starts
            fields = self.parts.spec.channels
            self._input_fields = [name for name, _ in start.writes if name in fields]
            if self.state is RunState.AT_INPUT:
                self.log.keep_input(self._labels_before_input, self._input_fields)
        self._read_results(loop)
        self.tasks.check_changes()
        self.results.copy_ids()
        if self.log.takes_portion:  # the results of the earlier portions are in `earlier_labels`
            for task in loop.tasks.values():
                self.tasks.drop_earlier(task.writes)
        if starts and not self.tasks.is_start and self.log.record is not None:
            self._leave()  # an input beside tasks is applied together with their writes
        elif any(slot.has_lost for slot in self.tasks) and not self.log.is_refused:
            self._leave()
        self.log.finish_step()
        self.log.store(loop)

    def _read_results(self, loop: _compat.PregelLoop) -> None:
        """Read the results that the tasks have written to the journal."""
        written = (write for task in loop.tasks.values() for write in task.writes)
        for records in (records for channel, records in written if channel == JOURNAL):
            for result in map(CallResult.read, records):
                if result.session == self.log.session:
                    self.log.journal.add_result(result)
        self.tasks.answer_waiting()  # finished tasks may have earlier results

    def failed_to_apply(self, loop: _compat.PregelLoop) -> Sequence[tuple[str, Any]]:
        """Handle a step whose writes LangGraph could not apply.

        With durability "exit" it stores the half-applied state, and the thread continues from it.
        The program of the run never has such a state, so the next run starts from it.

        Returns:
            Writes to apply to that state: the labels of its fields. The step already counts as
            finished, because LangGraph applies the driver's own writes first.
        """
        if loop.durability != "exit" or self.log.record is None:
            return ()
        records = self.log.journal.records()
        self.log.keep_labels(self._labels.all_labels(records, self.log.record))
        self.log.store(loop)
        return self.log.writes  # this driver writes nothing after them

    def close(self) -> None:
        """Drop the reference to the loop, which refers to this driver."""
        for name in ("_loop", "_watching"):
            vars(self).pop(name, None)
        self.tasks.clear()
        self._step_requests = None

    def finish(self, loop: _compat.PregelLoop) -> Work:
        """Send the last results, and store the labels of the fields."""
        self._loop = loop  # a thread that is resumed at its end has no step
        self.log.begin_step()
        has_run_steps = self.state is not RunState.UNREAD
        if not has_run_steps:
            record = self.log.read_thread(loop)
            if not isinstance(record, ProgramRun) or is_edited(loop, record.since):
                return
            is_open = self.log.load(loop, record)
            self.tasks.read(loop)
            yield from self._resume(loop, record, is_open=is_open)
        if self.state is RunState.AT_INPUT:  # nothing followed START
            if self._input_fields is not None:
                labels, fields = self._labels_before_input, self._input_fields
                self.log.keep_labels(self._labels.without_replaced(labels, fields))
            return
        is_known = False
        if not self.log.run.is_over:
            self.tasks.end_step()
            self.tasks.clear()
            yield from self._send_known_results()
            if self.log.is_refused:
                return
            answer = self._final_answer
            if answer is None and not has_run_steps:
                return  # LangGraph has left this run: the due tasks were removed from outside
            # A run from a state may have begun with a node whose router LangGraph no longer calls.
            may_disagree = self._may_disagree or self.log.run.begins_at != "start"
            is_known = not may_disagree or (answer is not None and self._may_be_last(answer))
        if is_known:
            self.log.keep_labels(self._checked_end())
        else:
            self.log.keep_labels((yield from self._labels_after(loop, self.log.run)))

    def _checked_end(self) -> dict[str, WireLabels]:
        """The labels of the fields at the end, after a check that the program has ended too.

        Raises:
            BadReply: If it has not.
        """
        answer = self._final_answer
        if answer is None or not self._may_be_last(answer):
            msg = (
                "The program has work left, but LangGraph has ended. Its result is not used. "
                f"{_START_ANEW}"
            )
            raise BadReply(msg, session_id=self.log.session_id)
        labels = answer.result.labels
        if labels is None:  # they decide what the next run may do
            msg = "The service reports the final value of the run without its labels."
            raise BadReply(msg, session_id=answer.session_id)
        labels_given(labels.without_reserved())  # to an executor around this one
        return self._reported(answer)

    def task_ended(self, loop: _compat.PregelLoop, task_id: str, channels: Sequence[str]) -> None:
        """Handle the end of a task: an error, a question, or success."""
        slot = self.tasks.find(task_id)
        if slot is not None and _compat.was_interrupted_or_failed(channels):
            self.tasks.unfinished.add(task_id)
            if self.is_async:
                loop.submit(self.waiting.wake_all)
            else:
                run_to_end(self.waiting.wake_all())

    # Called by the tasks

    async def call(self, runnable: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
        """Call a part of the graph as the run does: in the event loop, or at once."""
        if self.is_async:
            return await runnable.ainvoke(value, config)
        return runnable.invoke(value, config)

    def record(self, task_id: str, tool: ToolSpec, result: CallResult) -> None:
        """Record the result of a task, or of one of its routers."""
        if result.early_id or result.handle:
            self.log.journal.add_result(result)
        slot = self.tasks.get(task_id)
        if result.early_id:
            slot.early.append(result)
            return
        slot.add_result(tool, result)
        self.tasks.apply_changes(slot, self._loop)
        self.log.objects.load(result.objects or {})
        if slot.offered is not None and slot.offered.tool == tool.name:
            slot.offered.result, slot.offered = result, None

    def provisional_call(self, task_id: str, tool: ToolSpec) -> ProgramCall:
        """A provisional call for a router that runs before the service asks for it.

        Its id sorts in the order in which the service will ask.
        """
        early_id = f"{self.log.step:06}:{self.tasks.index_of(task_id):06}:{tool.name}"
        return ProgramCall(early_id, tool.name, {})

    async def store_output(self, task_id: str, output: Mapping[str, Any]) -> None:
        """Store the output of a node before its router is called, so the node does not run again.

        With durability "sync", it waits until the output is stored.
        """
        stored = self.tasks.store_output(self._loop, task_id, output)
        if stored is not None and self.is_async:
            await stored
        elif stored is not None:
            stored.result()

    def store_decision(self, offered: DeniedCall, decision: Approval | Rejection) -> None:
        """Report and store what a human has decided about a denied call."""
        with self._watch(self._loop) as watch:
            watch.report(offered)
        self.log.write_records([decision])
        self.log.store(self._loop)

    # For tasks that wait

    @property
    def is_going(self) -> bool:
        """Whether neither an error nor a denial has ended the run."""
        return self.state not in (RunState.FAILED, RunState.REFUSED)

    @property
    def has_ended(self) -> bool:
        """Whether the program has ended, so that no more calls come."""
        return self.state is RunState.ENDED

    @property
    def has_step_requests(self) -> bool:
        """Whether the first task of the step still has to make its requests."""
        return self._step_requests is not None

    @property
    def can_continue(self) -> bool:
        """Whether there are requests that can be made now."""
        if self.state is RunState.FAILED:
            return False
        if self.has_step_requests:
            return True
        if self.state is RunState.ENDED:
            return self.tasks.has_unserved
        if self.tasks.has_offered:
            return False
        return all(self.tasks.result_for(call) is not None for call in self.log.waiting)

    async def continue_run(self) -> None:
        """Make these requests.

        Raises:
            RunStopped: If the run fails.
        """
        try:
            await self.run(self._loop, self._next_requests())
        except Exception as error:  # noqa: BLE001 - any error ends the run
            self.fail(error)
            raise RunStopped(error) from None

    def _next_requests(self) -> Work:
        """The requests of the step. The routers of START are called before the run has begun."""
        requests, self._step_requests = self._step_requests, None
        if requests is not None:
            yield from requests
            return
        if self.state is RunState.AT_INPUT:
            yield from self._begin(self._loop, self._labels_before_input, is_start=True)
        yield from self._send_known_results()
        yield from self._begin_next_portions()

    # Requests

    def _send_known_results(self, until: Callable[[], bool] = lambda: False) -> Work:
        """Send known results until the service waits for a task or the program ends."""
        while self.state is RunState.RUNNING and not until():
            self.tasks.answer_waiting()
            if self.tasks.has_offered:
                return
            if len(self.log.journal.approved) > self.log.run.approvals:
                yield from self._replay()
                continue
            if (last := self.log.last) is None or not last.is_answered:
                return
            call = self.parts.exchange.next(self.log.run, self.log.journal.batches)
            try:
                answer = yield from send_request(call)
            except (StatusError, ProgramFailed) as error:
                yield from self._recover(error)
            else:
                self._handle_answer(answer, self._due_calls(answer))

    def _recover(self, error: StatusError | ProgramFailed) -> Work:
        """Continue after an error, if a new session or a smaller program can."""
        is_gone = isinstance(error, StatusError) and is_session_gone(error, self.log.session_id)
        if is_gone or self._is_refused_again(error):
            try:
                yield from self._replay(GONE if is_gone else "")
            except (StatusError, ProgramFailed) as replay_error:
                error = replay_error
            else:
                return
        if not _is_too_large(error):
            raise error
        if isinstance(error, ProgramFailed):
            self._session.answered(is_waiting=False)
        yield from self._begin_smaller(error)

    def _is_refused_again(self, error: StatusError | ProgramFailed) -> bool:
        """Whether the session cannot continue with what the thread has stored of it.

        An earlier reply may have been false in a part that only the service knows, such as the id
        of a call. A run that is resumed then begins again in a new session.
        """
        is_invalid = isinstance(error, InvalidRequest) and not is_session_busy(error)
        return is_invalid and self._session.is_from_storage

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
            self._final_answer = answer
            if not self.log.is_refused:
                self._enter(RunState.ENDED)
            return
        self.log.add_batch(answer.reply, [call for call, _ in due_calls])
        for call, due in due_calls:
            self.tasks.assign(call, due)

    def _begin(
        self,
        loop: _compat.PregelLoop,
        labels: FieldLabels,
        *,
        is_start: bool,
        earlier: FieldLabels | None = None,
    ) -> Work:
        """Start a run from LangGraph's state.

        Args:
            loop: LangGraph's loop.
            labels: The labels of the fields.
            is_start: Whether START was the last step.
            earlier: See `ProgramRun.earlier_labels`; `None` if no packet of the step was taken.
        """
        exchange, is_routing = self.parts.exchange, self.tasks.is_start
        channels = self._with_input(loop) if is_routing else loop.channels
        if is_start:
            labels = self._labels.without_replaced(labels, self._input_fields or ())
        variables = self._variables.variables(channels, labels)
        run = self._new_run(loop, variables, is_start=is_start, earlier=earlier)
        session_id = self._session.to_begin_in(channels)
        try:
            answer = yield from send_request(exchange.first(run, session_id))
        except StatusError as error:
            self._session.accept_loss(error, session_id)
            session_id = None
            answer = yield from send_request(exchange.first(run))
        self._enter(RunState.RUNNING)
        self._final_answer = None
        self.tasks.begin(variables, run.begins_at, run.portion)
        due_calls = self._due_calls(answer)
        self.log.reset(0 if is_routing else 1)
        run = in_session_of(run, answer, continues=session_id is not None)
        self._session.continues_in(run)
        self.log.start(run, [task.early for task in self.tasks.served])
        self._handle_answer(answer, due_calls)

    def _new_run(
        self,
        loop: _compat.PregelLoop,
        variables: dict[str, Any],
        *,
        is_start: bool,
        earlier: FieldLabels | None,
    ) -> ProgramRun:
        """A run that begins with the due tasks; see `_begin`.

        Args:
            loop: LangGraph's loop.
            variables: Those of the fields, to which the start point is added.
            is_start: Whether START was the last step.
            earlier: The labels after the earlier portions.
        """
        program, is_routing = self.parts.program, self.tasks.is_start
        first = 0 if earlier is None else self.tasks.portion[1]
        portion = self._limits.portion(first, self.tasks.packet_count)
        entry = self._variables.entry(
            loop, self._labels.packet_labels, portion, self._limits, is_routing=is_routing
        )
        # A structured program can only begin at the targets of START's edges. An input that is a
        # `Command` may lead elsewhere.
        is_usual = is_start and self._variables.is_usual(entry)
        if not (is_usual and program.kind == "structured"):
            variables |= entry
        for variable in variables.values():  # an outer executor gathers kept labels
            if variable["meta"] != NO_LABELS:
                labels_given(Labels.from_wire(variable["meta"]).without_reserved())
        return ProgramRun(
            None,
            dumps(variables),
            is_labelled=loop.checkpointer is not None or program.may_stop,
            begins_at="start" if is_usual else self._variables.begins_at(entry),
            location=self.parts.exchange.location,
            since=[newest_version(loop), writes_from_outside(loop)],
            portion=portion,
            earlier_labels=earlier,
        )

    def _replay(self, reason: str = "") -> Work:
        """Begin the run again; the journal answers the recorded calls.

        Args:
            reason: Why its session is lost; empty if it is there.
        """
        parts, journal = self.parts, self.log.journal
        session_id = self._session.to_begin_again_in(self.log.run, reason)
        for denial in journal.denials:
            if denial.is_approved:
                parts.denials.check_approval(denial)
        run = self._variables.in_new_session(self.log.run, journal.approved)
        steps = [batch.step for batch in journal.batches for _ in batch.answered]
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
        is_waiting = isinstance(replayed.answer, CallsRequested)
        if isinstance(replayed.answer, CallsRequested):
            self._watching.report(replayed.answer)
        self._session.continues_in(replayed.run)
        self._session.answered(is_waiting=is_waiting)
        self.tasks.forget_calls()
        self.log.restart(replayed.run, replayed.batches)
        self.tasks.assign_recorded()
        if not is_waiting:
            self._handle_answer(replayed.answer, ())

    # Denials

    def _deny(self, error: PolicyDenied) -> None:
        """Offer a denied call to a human, or end the run with a state; otherwise raise."""
        self._watching.report(error)
        denials = self.parts.denials
        outcome = denials.handle(error, self.log.run, self.log.journal, self.log.step)
        if isinstance(outcome, DeniedCall):
            slot = self.tasks.task_of(outcome)
            if slot.is_done:  # no task runs that could ask a human
                raise error
            self.log.add_denial(outcome)
            slot.offered = outcome
        else:
            self.log.refuse(outcome, denials.field)
            self._enter(RunState.REFUSED)

    def _end_tasks(self, loop: _compat.PregelLoop) -> None:
        """End the run: tasks that have not begun count as done, without writes."""
        for task in loop.tasks.values():
            slot = self.tasks.find(task.id)
            if not task.writes and (slot is None or slot.result is None):
                task.writes.append((_compat.NO_WRITES, None))

    # Storage

    def _restore(self, loop: _compat.PregelLoop) -> Generator[Any, Any, bool]:
        """Continue the thread from its stored state.

        Returns:
            Whether a program runs whose calls the due tasks make: the step is open.
        """
        if self.parts.denials.asks:
            check_can_ask({"configurable": {_compat.CHECKPOINTER: loop.checkpointer}})
        record = self.log.read_thread(loop)
        if record is None:  # a first input, or a thread of the plain graph
            labels = self._labels.with_other_sessions(records_of(loop, None), None, {})
            return (yield from self._begin_from_thread(loop, labels))
        if isinstance(record, FinishedRun):
            return (yield from self._continue_finished(loop, record))
        is_known = not (record.is_over or is_edited(loop, record.since))
        if is_known and not is_only_begun(loop, record.session):
            is_open = self.log.load(loop, record)
            self.tasks.read(loop)
            if self.tasks.has_changes(loop.channels):
                yield from self._resume(loop, record, is_open=is_open)
                return True
        labels = yield from self._labels_after(loop, record)
        labels = self._labels.labels_after_edits(loop, labels, record.since)
        return (yield from self._begin_from_thread(loop, labels))

    def _continue_finished(
        self, loop: _compat.PregelLoop, record: FinishedRun
    ) -> Generator[Any, Any, bool]:
        """Continue a thread whose last run has finished."""
        labels = self._labels.without_replaced(record.labels, record.input_fields or ())
        session = record.last_session
        labels = self._labels.with_other_sessions(records_of(loop, session), session, labels)
        if not self.tasks.is_start and (is_edited(loop) or record.input_fields is None):
            labels = self._labels.labels_after_edits(loop, labels)
            return (yield from self._begin_from_thread(loop, labels))
        self._expect_input(labels)
        return False

    def _expect_input(self, labels: FieldLabels) -> None:
        self._labels_before_input = dict(labels)
        self._enter(RunState.AT_INPUT)

    def _begin_from_thread(
        self, loop: _compat.PregelLoop, labels: FieldLabels
    ) -> Generator[Any, Any, bool]:
        """Start a run from the state of the thread, unless START is due first."""
        if self.tasks.is_start:
            self._expect_input(labels)
            return False
        self.tasks.read(loop)
        yield from self._begin(loop, labels, is_start=False)
        return True

    def _resume(self, loop: _compat.PregelLoop, run: ProgramRun, *, is_open: bool) -> Work:
        """Continue a run whose log and tasks are read, before a step or within an open one."""
        self._enter(RunState.REFUSED if self.log.is_refused else RunState.RUNNING)
        self._continues_stored_run = self._session.is_from_storage = True
        for result in (result for slot in self.tasks for result in slot.results):
            if result.session == self.log.session:  # the others get handles with their calls
                self.log.journal.add_result(result)
        offered = [denial for denial in self.log.journal.denials if denial.result is None]
        for denial in offered:
            self.parts.denials.check_approval(denial)
        is_cut = is_open and not self.log.is_refused and self.log.journal.cut(self.log.step)
        if not is_open:
            self.log.step += 1
        # The session of a copied checkpoint may have gone on since the checkpoint.
        is_copy = loop.checkpoint_metadata.get("source") == "fork" and not is_open
        is_moved = run.location != self.parts.exchange.location
        has_all = self.parts.exchange.has_conversation(run, self.log.journal.batches)
        if loop.is_replaying or is_copy or is_cut or is_moved or not has_all:
            self._session.has_left_calls = True
            yield from self._replay(ELSEWHERE if is_moved else "")
        else:
            self.tasks.assign_recorded()
        for denial in offered:
            self.tasks.task_of(denial).offered = denial

    def _with_input(self, loop: _compat.PregelLoop) -> Channels:
        """The channels with the input, which LangGraph applies at the end of the first step."""
        [start] = [task for task in loop.tasks.values() if task.name == START]
        channels = dict(loop.channels)
        writes = list(start.writes)
        self._input_fields = [name for name, _ in writes if name in self.parts.spec.channels]
        plans = self.parts.program.fields.plans
        resets = (name for name, plan in plans.items() if plan.resets)
        # Fields that a step without a write changes then lose the value of an earlier run.
        for name in dict.fromkeys((*self._input_fields, *resets)):
            channels[name] = channels[name].copy()
            channels[name].update([value for field, value in writes if field == name])
        return channels

    def _may_be_last(self, answer: RunFinished) -> bool:
        """Whether the graph may end with a program. At a limit, it does not know."""
        is_limited = self.log.takes_portion or self.log.step >= self._limits.steps
        return not self._is_active(answer) or is_limited

    def _is_active(self, answer: RunFinished) -> bool:
        value = answer.result.value
        if not isinstance(value, dict) or not isinstance(value.get(ACTIVE), bool):
            msg = "The final value of the run is not the state that the program returns."
            raise BadReply(msg, session_id=answer.session_id)
        return bool(value[ACTIVE])

    def _watch(self, loop: _compat.PregelLoop) -> RequestWatch:
        return RequestWatch(self.parts.program.tools, self.log, self.run_id, loop)
