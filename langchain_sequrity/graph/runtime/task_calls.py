"""The tasks of a step of LangGraph, and which call of the service belongs to which task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

from langgraph.errors import GraphBubbleUp
from langgraph.graph import START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.codec.channels import AnyChannel
from langchain_sequrity.graph.journal import (
    APPROVED,
    EARLY,
    GIVES,
    OBJECTS,
    DeniedCall,
    JournalEntry,
    ProgramCall,
    entry_for_call,
    result_entry,
)
from langchain_sequrity.graph.program import CHANGED, HANDLE, JOURNAL, OUTPUT, ToolSpec
from langchain_sequrity.graph.runtime.requests import ExecutorParts
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.labels import Labels
from langchain_sequrity.strict_json import dumps, loads

_CHANGES = f'"{CHANGED}'
"""Part of the text of a result with fields that a node has changed in place. A text within a value
may look like it."""

_INPUT_BESIDE = (
    "An input waits beside other tasks of the thread, and START has routers: the service cannot "
    "call them there. Give the input again, or continue from another checkpoint."
)


class RunStopped(GraphBubbleUp):
    """An error of the run, not of a task: it bypasses the task's retries and handlers."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class StepMismatch(BadReply):
    """LangGraph and the service disagree on the due tasks, or on the end of the run."""


@dataclass(slots=True)
class RouterCall:
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
    routers: dict[str, RouterCall] = field(default_factory=dict)
    handle: str = ""
    early: list[JournalEntry] = field(default_factory=list)
    offered: DeniedCall | None = None
    is_left: bool = False
    is_done: bool = False
    has_lost: bool = False

    def router(self, name: str) -> RouterCall:
        """Its router with a tool of this name."""
        return self.routers.setdefault(name, RouterCall())

    def forget_calls(self) -> None:
        """Drop the calls; another session will ask for its own."""
        self.call, self.handle = None, ""
        for routed in self.routers.values():
            routed.call = None

    @property
    def results(self) -> list[JournalEntry]:
        """Its results so far."""
        return [*([self.entry] if self.entry is not None else []), *self.early]

    @property
    def written(self) -> list[JournalEntry]:
        """The results that the task writes itself."""
        entries = (self.entry, *(routed.entry for routed in self.routers.values()))
        return [one for one in entries if one is not None]

    @property
    def calls(self) -> list[ProgramCall]:
        """The calls of the task and of its routers, as far as the service has asked for them."""
        calls = (self.call, *(routed.call for routed in self.routers.values()))
        return [one for one in calls if one is not None]

    @property
    def is_approved(self) -> bool:
        """Whether a human approved its call, so that the program does not make it."""
        return self.entry is not None and str(self.entry["id"]).startswith(APPROVED)

    @property
    def has_all_calls(self) -> bool:
        """Whether the service has asked for all of its results."""
        routers = (one for one in self.routers.values() if one.entry is not None)
        return (
            self.entry is not None
            and (self.call is not None or self.is_approved)
            and all(one.call is not None for one in routers)
        )

    def add_result(self, tool: ToolSpec, entry: JournalEntry) -> None:
        """Add its own result, or that of one of its routers."""
        if tool.role == "node":
            self.entry = entry
        else:
            self.router(tool.name).entry = entry


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

    def __iter__(self) -> Iterator[Task]:
        """The tasks in the order of the program: those of packets are last."""
        return iter(self._tasks.values())

    def clear(self) -> None:
        """Forget the tasks: the graph has ended."""
        self._tasks, self._of_step = {}, {}

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
            for task in sorted(loop.tasks.values(), key=_compat.is_packet)
            if task.name in nodes
        }
        pending = () if loop.is_replaying else loop.checkpoint_pending_writes
        self._outputs = {key: value for key, channel, value in pending if channel == OUTPUT}
        for task in loop.tasks.values():
            if (slot := found.get(task.id)) is None:
                continue
            kept = self._outputs.get(_output_key(task.id)) if self._outputs else None
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
        if slot.entry is not None and _CHANGES in slot.entry["result"]:
            self.has_changed_state = True
            channels = cast("dict[str, AnyChannel]", loop.channels)
            self._parts.tools.apply_changes(loads(slot.entry["result"]), channels)

    def check_changes(self) -> None:
        """Check that no node of the step has lost what it wrote or changed in place.

        Raises:
            UsageError: If one has.
        """
        entries = [(slot.node, slot.entry["result"]) for slot in self if slot.entry is not None]
        if len(entries) > 1 and any(_CHANGES in result for _, result in entries):
            results = [(node, loads(result)) for node, result in entries]
            is_parallel = any(slot.handle for slot in self)
            self._parts.tools.check_changes(results, is_parallel=is_parallel)

    def has_changes(self, channels: Mapping[str, AnyChannel]) -> bool:
        """Whether LangGraph's state has what the nodes of the run have changed in place.

        Some checkpointers store a field only if it was written.
        """
        results = [entry["result"] for _, entry in self._log.journal.answered]
        if not any(_CHANGES in result for result in results):
            return True
        return self._parts.tools.has_changes(map(loads, results), channels)

    @property
    def has_offered(self) -> bool:
        """Whether a human must first decide about a denied call."""
        return any(one.offered is not None for one in self)

    @property
    def have_all_calls(self) -> bool:
        """Whether the service has asked for all results of this step."""
        return all(slot.has_all_calls for slot in self)

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
        """The stored output of an earlier attempt, whose router did not finish."""
        return self._outputs.get(_output_key(self.origin(task_id))) if self._outputs else None

    def keep_output(self, loop: _compat.PregelLoop, task_id: str, output: Mapping[str, Any]) -> Any:
        """Store the output of a node before its router is called, so the node does not run again.

        Returns:
            A future that is done when it is stored; `None` if there is no need to wait.
        """
        key = _output_key(self.origin(task_id))
        self._outputs[key] = output
        return _compat.keep_writes(loop, key, [(OUTPUT, output)])

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
        if _CHANGES in slot.entry["result"]:  # a node that does not run changes nothing
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

    def assign(self, call: ProgramCall) -> None:
        """Give a call to its task."""
        tool = self.tool(call.tool)
        if any(one["tool"] == call.tool for one in self._log.journal.early.values()):
            return
        # A missing task may come with the next step; otherwise the run ends with an error.
        slot = next(self._without_call(tool, call.arguments), None)
        if slot is None:
            return
        if tool.role == "router":
            slot.router(call.tool).call = call
            return
        slot.call = call
        made = {one.id: handle for handle, one in self._log.journal.made.items()}
        if call.id in made or (self._is_wide and not tool.not_split):
            slot.handle = made.get(call.id) or self._new_handle()
            self._take_over(slot, call)

    def assign_waiting(self) -> None:
        """Give the calls that wait for a result to their tasks."""
        for call in self._log.waiting:
            self.assign(call)

    def assign_step(self) -> None:
        """Give all calls of this step to their tasks."""
        for one in self._log.journal.rounds:
            waiting = one.waiting
            for call in one.calls if one.step == self._log.step else ():
                self.assign(call)
                if call in waiting:
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
            BadReply: If no task of this step makes it.
        """
        slot = next(self._without_call(self.tool(offered.tool), offered.arguments), None)
        if slot is None:
            msg = f"The service denies a call of `{plain(offered.tool)}`, which is not due."
            raise BadReply(msg, session_id=self._log.session_id)
        return slot

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

    @property
    def _is_wide(self) -> bool:
        """Whether all calls of this step precede its tasks."""
        program = self._parts.program
        tools = program.that_begins_at(self._log.run.begins_at).tools
        return len(self._tasks) > 1 and program.result_of in tools

    def _without_call(self, tool: ToolSpec, arguments: Mapping[str, Any]) -> Iterator[Task]:
        """The possible tasks for a call of a tool, in the order of the program."""
        if tool.role == "router" and tool.node == START:
            yield self.get(START)
        for slot in self:
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


def _output_key(task_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"{OUTPUT}:{task_id}"))
