"""The tasks of a step of LangGraph, and which call of the service belongs to which task."""

from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast

from langgraph.errors import GraphBubbleUp
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.codec.channels import AnyChannel
from langchain_sequrity.graph.dispatch import refuse_arguments
from langchain_sequrity.graph.journal import (
    CallResult,
    DeniedCall,
    ProgramCall,
    StoredRecord,
)
from langchain_sequrity.graph.program import HANDLE, JOURNAL, OUTPUT, BeginsAt, ToolSpec
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.program_calls import (
    CHANGES,
    DueCall,
    ProgramCalls,
    StepMismatch,
    Task,
)
from langchain_sequrity.graph.runtime.run_log import RunLog, key_of_writes
from langchain_sequrity.labels import Labels
from langchain_sequrity.strict_json import dumps, loads

_INPUT_BESIDE = (
    "An input waits beside other tasks of the thread, and START has routers: the service cannot "
    "call them there. Give the input again, or continue from another checkpoint."
)


class RunStopped(GraphBubbleUp):
    """An error of the run, not of a task: it bypasses the task's retries and handlers."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def key_of_output(task_id: str, number: int) -> str:
    """The key under which the n-th output of a task is stored before its router runs."""
    return key_of_writes(f"{OUTPUT}:{task_id}:{number}")


def _outputs_of(
    tasks: Iterable[str], outputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The last stored output of each task.

    Args:
        tasks: Their ids.
        outputs: The outputs by their keys. Those of earlier versions name their tasks.
    """
    named = [output for output in outputs.values() if "task" in output]
    last = {o["task"]: o for o in sorted(named, key=lambda output: output["number"])}
    for task_id in tasks:
        for number in count():
            if (output := outputs.get(key_of_output(task_id, number))) is None:
                break
            last[task_id] = {**output, "number": number}
    return last


class TaskCalls:
    """The tasks of the current step, and their calls.

    Args:
        parts: The parts that all runs of the executor share.
        log: The log of the run.

    Attributes:
        is_start: Whether START is the only task of the step.
        has_changed_state: Whether a node of the step has changed a field in place.
        portion: See `ProgramRun`.
        unfinished: The ids of tasks that failed or wait for an answer: they give no result now.
    """

    def __init__(self, parts: ExecutorParts, log: RunLog) -> None:
        self.is_start = False
        self.has_changed_state = False
        self._parts, self._log = parts, log
        self.portion: Sequence[int] = ()
        self.unfinished = set[str]()
        self._tasks: dict[str, Task] = {}
        self._packets: list[Task] = []
        self._served: list[Task] | None = None
        self._handles = set[str]()
        self._of_step: Mapping[str, Any] = {}
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self._calls = ProgramCalls(parts.program, log)
        features = parts.exchange.connection.features
        # A configuration that is stored for the key may redact values too; then the error says so.
        self._may_redact = features is not None and bool(
            features.content_classifiers or features.content_blockers
        )

    def __iter__(self) -> Iterator[Task]:
        """The tasks in the order of the program: those of packets are last."""
        return iter(self._tasks.values())

    def clear(self) -> None:
        """Forget the tasks: the graph has ended."""
        self._tasks, self._of_step = {}, {}
        self._packets, self._served = [], None

    @property
    def served(self) -> list[Task]:
        """The tasks whose calls the running program makes, in its order."""
        return list(self._tasks.values()) if self._served is None else self._served

    @property
    def packet_count(self) -> int:
        """The number of packets of the step."""
        return len(self._packets)

    @property
    def has_unserved(self) -> bool:
        """Whether the step has packets for which another program begins."""
        return bool(self.portion) and self.portion[1] < len(self._packets)

    def is_soon(self, task_id: str) -> bool:
        """Whether the running program makes the calls of a task, or the task begins the next."""
        slot = self.find(self.origin(task_id))
        if slot is None or not (self.portion and slot.is_packet):
            return True
        return slot.index <= self.portion[1]

    def _serve(self, portion: Sequence[int]) -> None:
        self.portion, self._served = portion, None
        if portion:
            first, end = portion
            pulled = [] if first else [slot for slot in self if not slot.is_packet]
            self._served = [*pulled, *self._packets[first:end]]

    def end_step(self) -> None:
        """End the step: the results of its tasks are known."""
        if not self._log.is_refused:  # otherwise no more calls follow
            self._calls.end_step(self.served)

    def begin(
        self, variables: Mapping[str, Any], begins_at: BeginsAt, portion: Sequence[int]
    ) -> None:
        """Begin a program, of which the tasks of this step are the first; see `ProgramRun`."""
        self._calls.begin(variables, begins_at)
        self._serve(portion)

    def forget_calls(self) -> None:
        """Drop the calls of all tasks; another session will ask for its own."""
        for slot in self:
            slot.forget_calls()

    def read(self, loop: _compat.PregelLoop) -> None:
        """Read the tasks of a step, with the results that an earlier attempt stored."""
        self.has_changed_state = False
        nodes = self._parts.spec.nodes
        tasks = {
            task.id: Task(task.id, task.name, _compat.is_packet(task))
            for task in sorted(loop.tasks.values(), key=self._order_of)
            if task.name in nodes
        }
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        self._outputs = _outputs_of(
            tasks, {key: value for key, channel, value in pending if channel == OUTPUT}
        )
        for task in loop.tasks.values():
            if (slot := tasks.get(task.id)) is None:
                continue
            output = self._outputs.get(task.id)
            writes = [*task.writes, *(output["writes"] if output else ())]
            for channel, records in writes:
                if channel == JOURNAL:
                    results = list(map(CallResult.read, records))
                    self._add_results(slot, [result for result in results if not result.early_id])
                    slot.early += [result for result in results if result.early_id]
            self.apply_changes(slot, loop)
            if slot.result is not None:
                self._parts.tools.give_ids(task.writes, slot.result.value)
            slot.is_done = bool(task.writes)
            slot.has_lost = self._has_lost(slot, writes)
        self._tasks, self._of_step = tasks, loop.tasks
        self._packets = [slot for slot in tasks.values() if slot.is_packet]
        for index, slot in enumerate(self._packets):
            slot.index = index
        self.unfinished.clear()
        self._handles.clear()
        # A program that takes a portion of a step makes no call of the next one.
        self.portion, self._served = (), [] if self._log.takes_portion else None

    def _order_of(self, task: Any) -> tuple[bool, int]:
        is_packet = _compat.is_packet(task)
        return is_packet, 0 if is_packet else self._calls.order_of(task.name)

    def _has_lost(self, slot: Task, writes: Sequence[tuple[str, Any]]) -> bool:
        """Whether a task has results with values that LangGraph does not store."""
        unsaved = self._parts.tools.unsaved
        if not unsaved or any(_compat.writes_any(write, unsaved) for write in writes):
            return False
        results = (loads(result.value) for result in (*slot.written, *slot.early))
        return any(map(self._parts.tools.has_unsaved, results))

    def _add_results(self, slot: Task, results: Iterable[CallResult]) -> None:
        for result in results:
            self._log.objects.load(result.objects or {})
            slot.add_result(self.tool(result.tool), result)

    def apply_changes(self, slot: Task, loop: _compat.PregelLoop) -> None:
        """Change the fields of LangGraph's state that a node has changed in place."""
        if slot.result is not None and CHANGES in slot.result.value:
            self.has_changed_state = True
            channels = cast("dict[str, AnyChannel]", loop.channels)
            self._parts.tools.apply_changes(loads(slot.result.value), channels)

    def check_changes(self) -> None:
        """Check that no node of the step has lost what it wrote or changed in place.

        Raises:
            UsageError: If one has.
        """
        texts = [(slot.node, slot.result.value) for slot in self if slot.result is not None]
        if len(texts) > 1 and any(CHANGES in text for _, text in texts):
            results = [(node, loads(text)) for node, text in texts]
            is_parallel = any(slot.handle for slot in self)
            self._parts.tools.check_changes(results, is_parallel=is_parallel)

    def has_changes(self, channels: Mapping[str, AnyChannel]) -> bool:
        """Whether LangGraph's state has what the nodes of the run have changed in place.

        Some checkpointers store a field only if it was written.
        """
        texts = [result.value for _, result in self._log.journal.answered]
        if not any(CHANGES in text for text in texts):
            return True
        return self._parts.tools.has_changes(map(loads, texts), channels)

    @property
    def has_offered(self) -> bool:
        """Whether a human must first decide about a denied call."""
        return any(slot.offered is not None for slot in self.served)

    @property
    def have_all_calls(self) -> bool:
        """Whether the service has asked for all results of this step."""
        has_all = all(slot.has_all_calls(self._log.journal) for slot in self.served)
        return has_all and not self.has_unserved

    # One task

    def origin(self, task_id: str) -> str:
        """The task whose error a task handles; else the task itself."""
        if task_id in self._tasks or task_id not in self._of_step:
            return task_id
        return _compat.handled_task(self._of_step[task_id], list(self._of_step.values()))

    def drop_earlier(self, writes: MutableSequence[tuple[str, Any]]) -> None:
        """Drop the results of other sessions from the writes of a task."""
        session = self._log.session
        for index, (channel, records) in enumerate(writes):
            if channel == JOURNAL:
                of_session = [record for record in records if record.get("in") == session]
                writes[index] = (JOURNAL, of_session)

    def find(self, task_id: str) -> Task | None:
        """A task of this step; `None` for the handler of a task's error."""
        return self._tasks.get(task_id)

    def get(self, task_id: str) -> Task:
        """A task of this step, or the one whose error it handles.

        Raises:
            RunStopped: If it is an input beside other tasks.
        """
        if task_id == START or self.is_start:
            return self._tasks.setdefault(START, Task(START, START, is_packet=False))
        if (slot := self.find(self.origin(task_id))) is None:  # START, beside other tasks
            raise RunStopped(UsageError(_INPUT_BESIDE))
        return slot

    def index_of(self, task_id: str) -> int:
        """The index of a task in the order of the program."""
        return list(self._tasks).index(self.get(task_id).id)

    def output_of(self, task_id: str) -> Any:
        """The stored output of an earlier attempt, whose router did not finish.

        It does not count if the call of the node is now denied, after a change from outside.
        """
        origin = self.origin(task_id)
        slot = self.find(origin)
        offered = None if slot is None else slot.offered
        if offered is not None and self.tool(offered.tool).role == "node":
            return None
        return self._outputs.get(origin)

    def store_output(
        self, loop: _compat.PregelLoop, task_id: str, output: Mapping[str, Any]
    ) -> Any:
        """Store the output of a node before its router is called, so the node does not run again.

        Returns:
            A future that is done when it is stored; `None` if there is no need to wait.
        """
        task = self.origin(task_id)
        earlier = self._outputs.get(task)
        # Checkpointers ignore a second write with the same key.
        number = 0 if earlier is None else earlier["number"] + 1
        self._outputs[task] = {**output, "number": number}
        return _compat.keep_writes(loop, key_of_output(task, number), [(OUTPUT, output)])

    def use_cached(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Use the results in a node's cache for the calls of these tasks."""
        for task in tasks:
            slot = self.find(task.id)
            for index, (channel, records) in enumerate(task.writes):
                if channel == JOURNAL and slot is not None:
                    task.writes[index] = (JOURNAL, self._cached_results(slot, records))
        return tasks

    def _cached_results(self, slot: Task, records: Sequence[StoredRecord]) -> list[StoredRecord]:
        self._add_results(slot, map(CallResult.read, records))
        if slot.call is None or slot.result is None:
            return []
        value = slot.result.value
        if CHANGES in value:  # a node that does not run changes nothing
            value = dumps(self._parts.tools.without_changes(loads(value)))
        result = self._result_for(slot.call, replace(slot.result, value=value))
        result = self._log.with_batch(result)
        slot.result = replace(result, handle=slot.handle or result.handle)
        return [slot.result.stored()]

    # Calls

    def tool(self, name: str) -> ToolSpec:
        """The tool of the program with this name.

        Raises:
            BadReply: If the program does not have it.
        """
        tool = self._parts.program.tools.get(name)
        if tool is None:
            msg = f"The service asks for the tool `{plain(name)}`, which the program does not have."
            raise BadReply(msg, session_id=self._log.session_id)
        return tool

    def due(self, calls: Sequence[ProgramCall]) -> list[tuple[ProgramCall, DueCall]]:
        """The calls of a reply as calls of the program, with the client's own arguments.

        Nothing is changed.

        Raises:
            StepMismatch: If LangGraph's tasks do not make these calls next.
            BadReply: If a call has other arguments than the program gives it.
        """
        if self.is_start:
            self.get(START)
        due_calls = self._calls.due(self.served)
        return [self._as_due(call, next(due_calls, None)) for call in calls]

    def _as_due(self, call: ProgramCall, due: DueCall | None) -> tuple[ProgramCall, DueCall]:
        tool = self.tool(call.tool)
        if due is None or due.tool is not tool:
            msg = (
                f"The service asks for `{plain(call.tool)}`, but LangGraph does not run this node "
                "in this step. The call is not made."
            )
            raise StepMismatch(msg, session_id=self._log.session_id)
        expected = due.arguments
        if call.stored_digest:
            return self._with_arguments(call, expected), due
        needed = {p.name for p in tool.parameters} if expected is None else expected.keys()
        names = call.arguments.keys()
        if names != needed:
            refuse_arguments(call.tool, names, needed, names - needed, self._log.session_id)
        if expected is None or self._may_redact:
            return call, due
        for name, value in expected.items():
            if call.arguments[name] != value:
                msg = (
                    f"The service's call of `{tool.name}` has another value for `{name}` than the "
                    "state of the graph. The call is not made. If the key's stored configuration "
                    "redacts values, name its classifiers or blockers in `features`."
                )
                raise BadReply(msg, session_id=self._log.session_id)
        is_computed, is_sent = tool.role != "result", tool.is_sent(expected)
        computed = ProgramCall(
            call.id, call.tool, expected, is_computed=is_computed, is_sent=is_sent
        )
        return computed, due

    def _with_arguments(
        self, call: ProgramCall, arguments: Mapping[str, Any] | None
    ) -> ProgramCall:
        """A recorded call with the arguments that its program gives it again."""
        computed = replace(call, arguments=arguments or {}, stored_digest="")
        if not computed.is_same(call):
            msg = (
                f"The state of the thread gives a call of `{call.tool}` other arguments than those "
                "that the journal has. The call is not made. Start a new run with another "
                "`thread_id`."
            )
            raise BadReply(msg, session_id=self._log.session_id)
        return computed

    def assign(self, call: ProgramCall, due: DueCall) -> None:
        """Give a call to its task."""
        tool, slot = due.tool, due.task
        if tool.role == "result":
            slot.is_collected = True
            return
        if tool.role == "router":
            if slot.early_result(tool.name) is None:
                slot.router(tool.name).call = call
            return
        slot.call = call
        handle = self._log.journal.handle_of(call)
        if handle or (self._calls.is_wide(self.served) and not tool.not_split):
            slot.handle = handle or self._new_handle()
            self._handles.add(slot.handle)
            self._take_over(slot, call)

    def assign_recorded(self) -> None:
        """Give the recorded calls of this step to their tasks."""
        self._calls.rebuild()
        if self._log.run.portion and self._log.step == 1:
            self._serve(self._log.run.portion)
        if self.is_start:
            self.get(START)
        for batch in self._log.journal.batches:
            waiting = batch.waiting
            for call in batch.calls if batch.step == self._log.step else ():
                has_run = not (call in waiting or batch.results[call.id].given_handle)
                self._assign_recorded(call, has_run=has_run)
                if call in waiting:
                    self.answer(call)

    def _assign_recorded(self, call: ProgramCall, *, has_run: bool) -> None:
        """Give a recorded call of this step to its task; `rebuild` does it for earlier steps."""
        if self.tool(call.tool).role == "result":
            for slot in self.served:
                slot.is_collected |= slot.handle == call.arguments[HANDLE]
            return
        due = next(self._calls.due(self.served), None)
        if due is not None and due.tool.name == call.tool:
            # Another session may have asked for it.
            self.assign(call if has_run else self._as_due(call, due)[0], due)

    def answer(self, call: ProgramCall) -> None:
        """Add the result of a call to the journal, if it is known."""
        result = self.result_for(call)
        if result is None:
            return
        # No task writes a handle, or what is behind it, so the tasks need not be searched for it.
        is_of_handle = bool(result.given_handle) or self.tool(call.tool).role == "result"
        if not is_of_handle and any(
            result is written for slot in self.served for written in slot.written
        ):
            self._log.journal.add_result(result)
        else:
            self._log.add_result(result)

    def answer_waiting(self) -> None:
        """Add all known results of the last calls to the journal."""
        for call in self._log.waiting:
            self.answer(call)

    def task_of(self, offered: DeniedCall) -> Task:
        """The task of a denied call, which a human may approve.

        Raises:
            BadReply: If no task of this step makes it now.
        """
        [(_, due)] = self.due([offered.call])
        return due.task

    def check_due(self) -> None:
        """Check that the service asks for LangGraph's tasks.

        Raises:
            StepMismatch: If it does not.
        """
        for call in self._log.waiting:
            if not self._is_due(call):
                msg = (
                    f"The service asks for `{plain(call.tool)}`, but LangGraph does not run this "
                    "node in this step. The call is not made."
                )
                raise StepMismatch(msg, session_id=self._log.session_id)

    def _is_due(self, call: ProgramCall) -> bool:
        if self.tool(call.tool).role == "result":
            handle = call.arguments.get(HANDLE)
            return any(slot.handle == handle for slot in self.served)
        return any(call.id == task_call.id for slot in self.served for task_call in slot.calls)

    def _new_handle(self) -> str:
        used = self._log.journal.calls_by_handle
        handles = (f"{self._log.step}:{number}" for number in count(len(self._handles)))
        return next(h for h in handles if not (h in used or h in self._handles))

    def _take_over(self, slot: Task, call: ProgramCall) -> None:
        """Use an earlier result of a task, for example from before an edit, for its new handle."""
        result = slot.result
        if result is not None and (result.handle != slot.handle or result.id != call.id):
            slot.result = replace(result.for_call(call, self._log.session), handle=slot.handle)
            self._log.add_result(slot.result)

    def result_for(self, call: ProgramCall) -> CallResult | None:
        """The result of a call; `None` if it is not known yet."""
        log = self._log
        if self.tool(call.tool).role == "result":
            return log.journal.result_of_handle(call, log.session)
        if (early := log.journal.result_of_router(call, log.session)) is not None:
            return early
        for slot in self.served:
            if slot.call is not None and slot.call.id == call.id:
                if slot.handle:
                    value = {HANDLE: slot.handle}
                    result = CallResult.for_value(call, value, Labels(), session=log.session)
                    return replace(result, given_handle=slot.handle)
                return None if slot.result is None else self._result_for(call, slot.result)
            for routed in slot.routers.values():
                is_called = routed.call is not None and routed.call.id == call.id
                if is_called and routed.result is not None:
                    return self._result_for(call, routed.result)
        return None

    def _result_for(self, call: ProgramCall, result: CallResult) -> CallResult:
        """A result for a call. A cached one was for another call of the same tool."""
        if result.id == call.id or result.tool != call.tool:
            return result
        return result.for_call(call, self._log.session)
