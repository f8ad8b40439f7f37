"""The tasks of a step of LangGraph, and which call of the service belongs to which task."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

from langgraph.errors import GraphBubbleUp
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.codec.channels import AnyChannel
from langchain_sequrity.graph.dispatch import refuse_arguments
from langchain_sequrity.graph.journal import (
    EARLY,
    GIVES,
    OBJECTS,
    DeniedCall,
    JournalEntry,
    ProgramCall,
    entry_for_call,
    result_entry,
)
from langchain_sequrity.graph.program import HANDLE, JOURNAL, OUTPUT, BeginsAt, ToolSpec
from langchain_sequrity.graph.runtime.program_calls import (
    CHANGES,
    DueCall,
    ProgramCalls,
    StepMismatch,
    Task,
)
from langchain_sequrity.graph.runtime.requests import ExecutorParts
from langchain_sequrity.graph.runtime.run_log import RunLog
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


class TaskCalls:
    """The tasks of the current step, and their calls.

    Args:
        parts: The parts that all runs of the executor share.
        log: The log of the run.

    Attributes:
        is_start: Whether START is the only task of the step.
        has_changed_state: Whether a node of the step has changed a field in place.
    """

    def __init__(self, parts: ExecutorParts, log: RunLog) -> None:
        self.is_start = False
        self.has_changed_state = False
        self._parts, self._log = parts, log
        self._tasks: dict[str, Task] = {}
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

    def end_step(self) -> None:
        """End the step: the results of its tasks are known."""
        if not self._log.is_refused:  # otherwise no more calls follow
            self._calls.end_step(list(self))

    def begin(self, variables: Mapping[str, Any], begins_at: BeginsAt) -> None:
        """Begin a program, of which the tasks of this step are the first."""
        self._calls.begin(variables, begins_at)

    def forget_calls(self) -> None:
        """Drop the calls of all tasks; another session will ask for its own."""
        for slot in self:
            slot.forget_calls()

    def read(self, loop: _compat.PregelLoop) -> None:
        """Read the tasks of a step, with the results that an earlier attempt stored."""
        self.has_changed_state = False
        nodes = self._parts.spec.nodes
        found = {
            task.id: Task(task.id, task.name, _compat.is_packet(task))
            for task in sorted(loop.tasks.values(), key=self._place)
            if task.name in nodes
        }
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        outputs = (value for _, channel, value in pending if channel == OUTPUT)
        by_number = sorted(outputs, key=lambda output: output["number"])
        self._outputs = {output["task"]: output for output in by_number}
        for task in loop.tasks.values():
            if (slot := found.get(task.id)) is None:
                continue
            kept = self._outputs.get(task.id)
            writes = [*task.writes, *(kept["writes"] if kept else ())]
            for channel, entries in writes:
                if channel == JOURNAL:
                    self._keep(slot, [one for one in entries if EARLY not in one])
                    slot.early += [one for one in entries if EARLY in one]
            self.apply_changes(slot, loop)
            if slot.entry is not None:
                self._parts.tools.give_ids(task.writes, slot.entry["result"])
            slot.is_done = bool(task.writes)
            slot.has_lost = self._has_lost(slot, writes)
        self._tasks, self._of_step = found, loop.tasks

    def _place(self, task: Any) -> tuple[bool, int]:
        is_packet = _compat.is_packet(task)
        return is_packet, 0 if is_packet else self._calls.order_of(task.name)

    def _has_lost(self, slot: Task, writes: Sequence[tuple[str, Any]]) -> bool:
        """Whether a task has results with values that LangGraph does not store."""
        unsaved = self._parts.tools.unsaved
        if not unsaved or any(_compat.writes_any(one, unsaved) for one in writes):
            return False
        results = (loads(entry["result"]) for entry in (*slot.written, *slot.early))
        return any(map(self._parts.tools.has_unsaved, results))

    def _keep(self, slot: Task, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self._log.objects.load(entry.get(OBJECTS, {}))
            slot.add_result(self.tool(entry["tool"]), entry)

    def apply_changes(self, slot: Task, loop: _compat.PregelLoop) -> None:
        """Change the fields of LangGraph's state that a node has changed in place."""
        if slot.entry is not None and CHANGES in slot.entry["result"]:
            self.has_changed_state = True
            channels = cast("dict[str, AnyChannel]", loop.channels)
            self._parts.tools.apply_changes(loads(slot.entry["result"]), channels)

    def check_changes(self) -> None:
        """Check that no node of the step has lost what it wrote or changed in place.

        Raises:
            UsageError: If one has.
        """
        entries = [(slot.node, slot.entry["result"]) for slot in self if slot.entry is not None]
        if len(entries) > 1 and any(CHANGES in result for _, result in entries):
            results = [(node, loads(result)) for node, result in entries]
            is_parallel = any(slot.handle for slot in self)
            self._parts.tools.check_changes(results, is_parallel=is_parallel)

    def has_changes(self, channels: Mapping[str, AnyChannel]) -> bool:
        """Whether LangGraph's state has what the nodes of the run have changed in place.

        Some checkpointers store a field only if it was written.
        """
        results = [entry["result"] for _, entry in self._log.journal.answered]
        if not any(CHANGES in result for result in results):
            return True
        return self._parts.tools.has_changes(map(loads, results), channels)

    @property
    def has_offered(self) -> bool:
        """Whether a human must first decide about a denied call."""
        return any(one.offered is not None for one in self)

    @property
    def have_all_calls(self) -> bool:
        """Whether the service has asked for all results of this step."""
        return all(slot.has_all_calls(self._log.journal) for slot in self)

    # One task

    def origin(self, task_id: str) -> str:
        """The task whose error a task handles; else the task itself."""
        if task_id in self._tasks or task_id not in self._of_step:
            return task_id
        return _compat.handled_task(self._of_step[task_id], list(self._of_step.values()))

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

    def keep_output(self, loop: _compat.PregelLoop, task_id: str, output: Mapping[str, Any]) -> Any:
        """Store the output of a node before its router is called, so the node does not run again.

        Returns:
            A future that is done when it is stored; `None` if there is no need to wait.
        """
        task = self.origin(task_id)
        before = self._outputs.get(task)
        # Checkpointers ignore a second write with the same key.
        number = 0 if before is None else before["number"] + 1
        self._outputs[task] = {**output, "task": task, "number": number}
        key = str(uuid5(NAMESPACE_OID, f"{OUTPUT}:{task}:{number}"))
        return _compat.keep_writes(loop, key, [(OUTPUT, self._outputs[task])])

    def use_cached(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Use the results in a node's cache for the calls of these tasks."""
        for task in tasks:
            slot = self.find(task.id)
            for index, (channel, entries) in enumerate(task.writes):
                if channel == JOURNAL and slot is not None:
                    task.writes[index] = (JOURNAL, self._cached_results(slot, entries))
        return tasks

    def _cached_results(self, slot: Task, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
        self._keep(slot, entries)
        if slot.call is None or slot.entry is None:
            return []
        if CHANGES in slot.entry["result"]:  # a node that does not run changes nothing
            result = self._parts.tools.without_changes(loads(slot.entry["result"]))
            slot.entry = {**slot.entry, "result": dumps(result)}
        named = {HANDLE: slot.handle} if slot.handle else {}
        slot.entry = {**self._entry_for(slot.call, slot.entry), **named}
        return [slot.entry]

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
        due_calls = self._calls.due(list(self))
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
        return ProgramCall(call.id, call.tool, expected), due

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
        made = {one.id: handle for handle, one in self._log.journal.made.items()}
        if call.id in made or (self._calls.is_wide(list(self)) and not tool.not_split):
            slot.handle = made.get(call.id) or self._new_handle()
            self._take_over(slot, call)

    def assign_recorded(self) -> None:
        """Give the recorded calls of this step to their tasks."""
        self._calls.rebuild()
        if self.is_start:
            self.get(START)
        for one in self._log.journal.rounds:
            waiting = one.waiting
            for call in one.calls if one.step == self._log.step else ():
                due = next(self._calls.due(list(self)), None)
                is_waiting = call in waiting
                if due is not None and due.tool.name == call.tool:
                    if is_waiting:  # another session may have asked for it
                        self._as_due(call, due)
                    self.assign(call, due)
                if is_waiting:
                    self.answer(call)

    def answer(self, call: ProgramCall) -> None:
        """Add the result of a call to the journal, if it is known."""
        entry = self.entry_for(call)
        if entry is None:
            return
        if any(entry is own for one in self for own in one.written):
            self._log.journal.add_result(entry)
        else:
            self._log.add_result(entry)

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
            return any(one.handle == handle for one in self)
        return any(call.id == one.id for slot in self for one in slot.calls)

    def _new_handle(self) -> str:
        used = {*self._log.journal.made, *(one.handle for one in self)}
        return next(one for n in count() if (one := f"{self._log.step}:{n}") not in used)

    def _take_over(self, slot: Task, call: ProgramCall) -> None:
        """Use an earlier result of a task, for example from before an edit, for its new handle."""
        entry = slot.entry
        if entry is not None and (entry.get(HANDLE) != slot.handle or entry["id"] != call.id):
            slot.entry = {**entry_for_call(call, entry, self._log.session), HANDLE: slot.handle}
            self._log.add_result(slot.entry)

    def entry_for(self, call: ProgramCall) -> JournalEntry | None:
        """The result of a call; `None` if it is not known yet."""
        log = self._log
        if self.tool(call.tool).role == "result":
            return log.journal.result_of_handle(call, log.session)
        if (early := log.journal.result_of_router(call, log.session)) is not None:
            return early
        for slot in self:
            if slot.call is not None and slot.call.id == call.id:
                if slot.handle:
                    entry = result_entry(call, {HANDLE: slot.handle}, Labels())
                    return {**entry, GIVES: slot.handle, "in": log.session}
                return None if slot.entry is None else self._entry_for(call, slot.entry)
            for routed in slot.routers.values():
                is_asked = routed.call is not None and routed.call.id == call.id
                if is_asked and routed.entry is not None:
                    return self._entry_for(call, routed.entry)
        return None

    def _entry_for(self, call: ProgramCall, entry: JournalEntry) -> JournalEntry:
        """A result for a call. A cached one was for another call of the same tool."""
        if entry["id"] == call.id or entry["tool"] != call.tool:
            return entry
        return entry_for_call(call, entry, self._log.session)
