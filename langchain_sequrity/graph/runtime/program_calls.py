"""The calls of a run as its program makes them, computed from what the client has sent.

The program gets everything from the client: its variables and the results of its calls. So the
client knows which call comes next, and its arguments, and takes neither from the service
(`docs/behaviour.md`, G4). Only the answers of the service's own tools are new.
"""

from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.graph import START

from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.journal import CallResult, DeniedCall, Journal, ProgramCall
from langchain_sequrity.graph.program import (
    ABSENT,
    CHANGED,
    HANDLE,
    HANDLED,
    OVERWRITE,
    SEND,
    BeginsAt,
    GraphProgram,
    ToolSpec,
)
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.strict_json import loads

Json = Any


CHANGES = f'"{CHANGED}'
"""Part of the text of a result with fields that a node has changed in place. A text within a value
may look like it."""


class StepMismatch(BadReply):
    """LangGraph and the service disagree on the due tasks, or on the end of the run."""


@dataclass(slots=True)
class RouterCall:
    """A router of a task.

    Attributes:
        call: Its call; `None` until the service asks for it.
        result: Its result.
    """

    call: ProgramCall | None = None
    result: CallResult | None = None


@dataclass(slots=True)
class Task:
    """A task of LangGraph that answers a call.

    Attributes:
        id: Its id in LangGraph.
        node: Its node.
        is_packet: Whether a `Send` started it.
        call: Its call; `None` until the service asks for it.
        result: Its result; `None` until it is known.
        routers: Its routers by the names of their tools.
        handle: The first answer to its call if it runs beside others.
        is_collected: Whether the service has asked for the result behind the handle.
        early: Results of its routers that precede their calls.
        index: The index of its packet among those of the step.
        offered: The denied call of the task or of one of its routers, if a human may approve it.
        is_done: Whether it ended in an earlier attempt of the step, so it does not run.
        has_lost: Whether LangGraph did not store all of its results.
    """

    id: str
    node: str
    is_packet: bool
    call: ProgramCall | None = None
    result: CallResult | None = None
    routers: dict[str, RouterCall] = field(default_factory=dict)
    handle: str = ""
    is_collected: bool = False
    early: list[CallResult] = field(default_factory=list)
    index: int = 0
    offered: DeniedCall | None = None
    is_done: bool = False
    has_lost: bool = False

    def router(self, name: str) -> RouterCall:
        """Its router with a tool of this name."""
        return self.routers.setdefault(name, RouterCall())

    def forget_calls(self) -> None:
        """Drop the calls; another session will ask for its own."""
        self.call, self.handle, self.is_collected = None, "", False
        for routed in self.routers.values():
            routed.call = None

    @property
    def results(self) -> list[CallResult]:
        """Its results so far."""
        return [*([self.result] if self.result is not None else []), *self.early]

    @property
    def written(self) -> list[CallResult]:
        """The results that the task writes itself."""
        results = (self.result, *(routed.result for routed in self.routers.values()))
        return [result for result in results if result is not None]

    @property
    def calls(self) -> list[ProgramCall]:
        """The calls of the task and of its routers, as far as the service has asked for them."""
        calls = (self.call, *(routed.call for routed in self.routers.values()))
        return [call for call in calls if call is not None]

    def needs_call(self, journal: Journal) -> bool:
        """Whether the program of a run has yet to call its node. It makes no approved calls."""
        if self.call is not None:
            return False
        return self.result is None or self.result.id not in journal.approved_ids

    def result_of(self, router: str) -> CallResult | None:
        """The result of a router; `None` if it is unknown."""
        routed = self.routers.get(router)
        if routed is not None and routed.result is not None:
            return routed.result
        return self.early_result(router)

    def early_result(self, router: str) -> CallResult | None:
        """The result of a router that precedes its call, if there is one."""
        return next((result for result in self.early if result.tool == router), None)

    def has_called(self, router: str, journal: Journal) -> bool:
        """Whether the program of a run need not call a router any more."""
        routed, early = self.routers.get(router), self.early_result(router)
        if routed is not None and routed.call is not None:
            return True
        if routed is not None and routed.result is not None:
            return routed.result.id in journal.approved_ids
        return early is not None and early.early_id in journal.called_routers

    def has_all_calls(self, journal: Journal) -> bool:
        """Whether the program has made all calls whose results are known."""
        routers = (name for name, routed in self.routers.items() if routed.result is not None)
        is_called = self.result is not None and not self.needs_call(journal)
        return is_called and all(self.has_called(name, journal) for name in routers)

    def add_result(self, tool: ToolSpec, result: CallResult) -> None:
        """Add its own result, or that of one of its routers."""
        if tool.role == "node":
            self.result = result
        else:
            self.router(tool.name).result = result


@dataclass(frozen=True, slots=True)
class TaskResults:
    """The results of a task that is over.

    Attributes:
        tool: The tool of its node; `None` for START.
        node: The result of the node.
        routers: The results of its routers, in the order of the program.
    """

    tool: ToolSpec | None
    node: Mapping[str, Json]
    routers: Sequence[Mapping[str, Json]]


class ProgramState:
    """The fields and packets of a program before a step.

    Args:
        program: The graph as a program.

    Attributes:
        values: The fields.
        packets: The packets that are due, in the order in which they were sent.
        is_structured: Whether the program is straight-line.
    """

    def __init__(self, program: GraphProgram) -> None:
        self._program, self._fields = program, program.fields
        self.values: dict[str, Json] = {}
        self.packets: Sequence[Mapping[str, Json]] = ()
        nodes = [tool for tool in program.tools.values() if tool.role == "node"]
        written = {name for tool in nodes for name in self._written_by(tool)}
        plans = self._fields.plans
        self._resets = frozenset(name for name in plans if plans[name].resets)
        self._appends = frozenset(
            name for name in (*written, *self._resets) if self._fields.is_log(name)
        )
        self._changed = {CHANGED + key: name for name, key in self._fields.keys.items()}
        self.is_structured = False

    def at_start(
        self, variables: Mapping[str, Mapping[str, Json]], begins_at: BeginsAt
    ) -> "ProgramState":
        """The state at the start of a run.

        Args:
            variables: The context variables of the run.
            begins_at: The start point.
        """
        # An older graph may have had fewer fields.
        fields = self._fields
        values = {
            name: variables[variable]["value"]
            if variable in variables
            else ([] if fields.is_log(name) else ABSENT)
            for name, variable in fields.variables.items()
        }
        packets = variables.get(self._program.entry.packets)
        new = self._with(values, () if packets is None else packets["value"])
        new.is_structured = self._program.kind == "structured" and begins_at == "start"
        return new

    def _with(
        self, values: dict[str, Json], packets: Sequence[Mapping[str, Json]]
    ) -> "ProgramState":
        new = object.__new__(ProgramState)  # `copy.copy` takes several times as long
        new.__dict__ = {**self.__dict__, "values": values, "packets": packets}
        return new

    # Arguments of the next calls

    def node_arguments(self, tool: ToolSpec) -> dict[str, Json]:
        """The arguments of a node that an edge started."""
        return {
            parameter.name: self.values[str(parameter.field)]
            for parameter in tool.parameters
            if parameter.kind == "field"
        }

    def packet_arguments(self, tool: ToolSpec, packet: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments of a node that a packet started."""
        carried = {p.name: packet["input"] for p in tool.parameters if p.kind == "send"}
        if tool.sees_state:
            return self.node_arguments(tool) | carried
        sent, names = packet["fields"], (p.name for p in tool.parameters if p.kind == "field")
        return {name: sent.get(name, ABSENT) for name in names} | carried

    def router_arguments(
        self, router: ToolSpec, node: ToolSpec | None, result: Mapping[str, Json]
    ) -> dict[str, Json]:
        """The arguments of a router: the state before the step, with its node's own writes.

        Args:
            router: The router.
            node: Its node; `None` for START.
            result: The node's result.
        """
        fields = ((p.name, str(p.field)) for p in router.parameters)
        return {parameter: self._after(name, node, result) for parameter, name in fields}

    def _after(self, name: str, node: ToolSpec | None, result: Mapping[str, Json]) -> Json:
        before = self.values[name]
        if node is None:
            return before
        if name not in self._written_by(node):
            return [*before, []] if name in self._resets else before
        return self._fields.value_after(name, before, result)

    # Steps

    def changed_by(self, result: Mapping[str, Json]) -> "ProgramState":
        """The state after a node has changed fields of it in place: the rest of its step has it."""
        changes = self._changes(result)
        return self._with(self.values | changes, self.packets) if changes else self

    def changes_after(
        self, result: Mapping[str, Json], values: Mapping[str, Json]
    ) -> dict[str, Json]:
        """The fields after a step that a node has changed in place.

        Args:
            result: The node's result.
            values: The fields after the step so far. What was added to a sum stays.
        """
        changes, plans = self._changes(result), self._fields.plans
        if not changes:
            return changes
        for name in (name for name in changes if plans[name].kind == "sum"):
            changes[name] = changes[name] + values[name][len(self.values[name]) :]
        return changes

    def _changes(self, result: Mapping[str, Json]) -> dict[str, Json]:
        changed = self._changed
        if result.keys().isdisjoint(changed):
            return {}
        return {name: result[key] for key, name in changed.items() if key in result}

    def after(self, tasks: Iterable[TaskResults]) -> "ProgramState":
        """The state after a step with these results, in the order of the program."""
        tasks = list(tasks)
        is_start = all(task.tool is None for task in tasks)
        values, packets = dict(self.values), list(self.packets if is_start else ())
        before = self
        appends = self._appends if not (is_start or self.is_structured) else ()
        logs = {name: list[Json]() for name in appends}
        overwritten = set[str]()
        for task in tasks:
            result = task.node
            if changes := before.changes_after(result, values):
                values |= changes
                before = before.changed_by(result)
            if task.tool is not None:
                self._write(task.tool, result, values, logs, overwritten)
            for routed in (result, *task.routers):
                packets += routed.get(SEND, ())
        for name, updates in logs.items():
            values[name] = [*values[name], updates]
        return self._with(values, packets)

    def _write(
        self,
        tool: ToolSpec,
        result: Mapping[str, Json],
        values: dict[str, Json],
        logs: dict[str, list[Json]],
        overwritten: set[str],
    ) -> None:
        """Add what a node wrote to the fields, and to the updates of a step in `logs`."""
        for name in self._written_by(tool):
            key = self._fields.keys[name]
            if self._fields.is_log(name):
                logs.setdefault(name, []).extend(result[key])
            elif name not in overwritten:  # after an overwrite, a step adds no more
                values[name] = self._fields.value_after(name, values[name], result)
                if OVERWRITE + key in result:
                    overwritten.add(name)
        if self.is_structured:
            for name in self._resets:
                logs.setdefault(name, [])

    @staticmethod
    def _written_by(tool: ToolSpec) -> Sequence[str]:
        if tool.is_handover:
            return [str(parameter.field) for parameter in tool.parameters]
        return tool.writes


@dataclass(frozen=True, slots=True)
class DueCall:
    """A call that the program makes next.

    Attributes:
        task: Its task.
        tool: Its tool.
        arguments: Its arguments; `None` if they are the answer of a tool of the service's own.
    """

    task: Task
    tool: ToolSpec
    arguments: Mapping[str, Json] | None


@dataclass(frozen=True, slots=True)
class _RecordedCall:
    """A call in the journal.

    Attributes:
        step: Its step.
        arguments: Its arguments.
        call: The call; `None` if a human approved it.
        result: Its result; `None` until it is known.
    """

    step: int
    arguments: Mapping[str, Json]
    call: ProgramCall | None
    result: CallResult | None


class ProgramCalls:
    """The order of a program's calls, and their arguments.

    Args:
        program: The graph as a program.
        log: The log of the run.
    """

    def __init__(self, program: GraphProgram, log: RunLog) -> None:
        self._program, self._log = program, log
        tools = program.tools.values()
        self._nodes = {tool.node: tool for tool in tools if tool.role == "node"}
        self._order = {node: index for index, node in enumerate(self._nodes)}
        self._routers = defaultdict[str, list[ToolSpec]](list)
        for tool in tools:
            if tool.role == "router":
                self._routers[tool.node].append(tool)
        self._fused = {router.name for tool in self._nodes.values() for router in tool.fused}
        self._begins_at: BeginsAt = "start"
        self._state = ProgramState(program)
        # The service asks for the last results of a step with the first calls of the next one.
        self._tasks_before: Sequence[Task] = ()
        self._state_before = self._state

    def order_of(self, node: str) -> int:
        """The place of a node among the nodes of a step that edges start."""
        return self._order.get(node, 0)

    def begin(self, variables: Mapping[str, Any], begins_at: BeginsAt) -> None:
        """Begin a run with these variables."""
        self._begins_at = begins_at
        self._state = self._state_before = self._state.at_start(variables, begins_at)
        self._tasks_before = ()

    def end_step(self, tasks: Sequence[Task]) -> None:
        """Compute the state after a step, from the results of its tasks."""
        self._tasks_before, self._state_before = tasks, self._state
        self._state = self._state.after(map(self._results_of, tasks))

    def rebuild(self) -> None:
        """Compute the state before the open step again, from the journal."""
        run = self._log.run
        # If the checkpointer has lost the variables, calls do not agree with the state.
        self.begin(loads(run.stored_variables or "{}"), run.begins_at)
        calls, early = self._recorded_calls(), self._early_results()
        for step in range(self._log.step):
            tasks = [Task(START, START, is_packet=False)] if step == 0 else []
            for node in self._nodes.values():
                recorded = calls[node.name]
                while recorded and recorded[0].step == step:
                    tasks.append(self._recorded_task(node, recorded.popleft()))
            tasks = self._in_order(tasks)
            for task in tasks:
                for router in self._routers_of(task):
                    if recorded := calls[router.name]:
                        first = recorded.popleft()
                        task.routers[router.name] = RouterCall(first.call, first.result)
                    elif early[router.name]:
                        task.early.append(early[router.name].popleft())
            self.end_step(tasks)

    def _recorded_calls(self) -> Mapping[str, deque[_RecordedCall]]:
        """The calls in the journal by tool, in the order of the program."""
        calls = defaultdict[str, deque[_RecordedCall]](deque)
        for batch in self._log.journal.batches:
            for call in batch.calls:
                result = batch.results.get(call.id)
                calls[call.tool].append(_RecordedCall(batch.step, call.arguments, call, result))
        for denied in sorted(self._log.journal.approved, key=lambda denied: denied.index):
            approved = _RecordedCall(denied.step, denied.arguments, None, denied.result)
            calls[denied.tool].insert(denied.index - 1, approved)
        return calls

    def _early_results(self) -> Mapping[str, deque[CallResult]]:
        """The results of routers that precede their calls, by tool."""
        early = defaultdict[str, deque[CallResult]](deque)
        for _, result in sorted(self._log.journal.early_results.items()):
            early[result.tool].append(result)
        return early

    def _recorded_task(self, tool: ToolSpec, recorded: _RecordedCall) -> Task:
        journal = self._log.journal
        is_sent = tool.is_sent(recorded.arguments)
        if recorded.call is not None:
            is_sent |= recorded.call.is_sent
        task = Task("", tool.node, is_sent, recorded.call, recorded.result)
        if recorded.result is not None and recorded.result.given_handle:
            task.handle = recorded.result.given_handle
            task.result = journal.results_by_handle.get(task.handle)
            task.is_collected = any(
                call.tool == self._program.result_of and call.arguments[HANDLE] == task.handle
                for batch in journal.batches
                for call in batch.calls
            )
        return task

    def _in_order(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks of an earlier step in the order of the program."""
        packets = defaultdict[str, deque[Task]](deque)
        for task in tasks:
            if task.is_packet:
                packets[self._program.tokens[task.node]].append(task)
        sent = (packets[packet["node"]] for packet in self._state.packets)
        return [
            *(task for task in tasks if not task.is_packet),
            *(tasks_of_node.popleft() for tasks_of_node in sent if tasks_of_node),
        ]

    def _results_of(self, task: Task) -> TaskResults:
        results = (task.result_of(router.name) for router in self._routers_of(task))
        routers = [loads(result.value) for result in results if result is not None]
        return TaskResults(self._nodes.get(task.node), self._node_result(task), routers)

    def _node_result(self, task: Task) -> Mapping[str, Json]:
        tool = self._nodes.get(task.node)
        if tool is not None and tool.is_handover:  # its call brings the answer
            return {} if task.call is None else task.call.arguments
        return {} if task.result is None else loads(task.result.value)

    def _routers_of(self, task: Task) -> list[ToolSpec]:
        """The routers that the program calls after a task, whose result is known."""
        of_node = self._routers.get(task.node)
        if of_node is None:
            return []
        routers = [router for router in of_node if task.is_packet or router.name not in self._fused]
        # An error handler's result has no edges.
        return [] if routers and self._node_result(task).get(HANDLED) else routers

    # The next calls

    def due(self, tasks: Sequence[Task]) -> Iterator[DueCall]:
        """The calls that the next reply may ask for, in the order of the program.

        Of tasks that run side by side, the program makes all calls before it needs a result.

        Args:
            tasks: The tasks of the open step.
        """
        for step, state in ((self._tasks_before, self._state_before), (tasks, self._state)):
            is_over = len(step) == 1 and self._is_over(step[0])
            if not is_over and (yield from self._due_of_step(step, state)):
                return

    def _due_of_step(
        self, step: Sequence[Task], state: ProgramState
    ) -> Generator[DueCall, None, bool]:
        """The next calls of a step; `False` if it has no more."""
        sent = iter(state.packets)
        pairs = [(task, next(sent, None) if task.is_packet else None) for task in step]
        is_waiting, current = False, state
        if self.is_wide(step):
            for task, packet in pairs:
                if task.needs_call(self._log.journal) and not self._nodes[task.node].not_split:
                    yield self._node_call(task, packet, state)
                    is_waiting = True
            if is_waiting:
                return True
        for task, packet in pairs:
            if is_waiting:  # a service may ask for more calls of the step at once
                if task.needs_call(self._log.journal):
                    yield self._node_call(task, packet, current)
                continue
            due = self._next_call(task, packet, current)
            if task.result is not None and CHANGES in task.result.value:
                current = current.changed_by(self._node_result(task))
            if due is not None:
                yield due
            is_waiting = due is not None or not self._has_all_results(task)
        return is_waiting

    def _is_over(self, task: Task) -> bool:
        """Whether a task without routers and without a handle has been called and answered."""
        is_answered = task.call is not None and task.result is not None
        return is_answered and not task.handle and task.node not in self._routers

    def _next_call(
        self, task: Task, packet: Mapping[str, Json] | None, state: ProgramState
    ) -> DueCall | None:
        """The next call of a task; `None` if it has all calls, or waits for a result."""
        if task.needs_call(self._log.journal) and task.node != START:
            return self._node_call(task, packet, state)
        if task.handle and not task.is_collected:
            tool = self._program.tools[str(self._program.result_of)]
            return DueCall(task, tool, {HANDLE: task.handle})
        if task.result is None and task.node != START:
            return None
        for router in self._routers_of(task):
            if not task.has_called(router.name, self._log.journal):
                node, result = self._nodes.get(task.node), self._node_result(task)
                arguments = state.changed_by(result).router_arguments(router, node, result)
                return DueCall(task, router, arguments)
            if task.result_of(router.name) is None:
                return None
        return None

    def _has_all_results(self, task: Task) -> bool:
        if task.result is None and task.node != START:
            return False
        return all(task.result_of(router.name) is not None for router in self._routers_of(task))

    def _node_call(
        self, task: Task, packet: Mapping[str, Json] | None, state: ProgramState
    ) -> DueCall:
        tool = self._nodes[task.node]
        if tool.is_handover:
            return DueCall(task, tool, None)
        if not task.is_packet:
            return DueCall(task, tool, state.node_arguments(tool))
        if packet is None or packet["node"] != self._program.tokens[task.node]:
            msg = f"LangGraph runs node `{task.node}` for a `Send` that the program does not have."
            raise StepMismatch(msg, session_id=self._log.session_id)
        return DueCall(task, tool, state.packet_arguments(tool, packet))

    def is_wide(self, tasks: Sequence[Task]) -> bool:
        """Whether all calls of a step precede its tasks."""
        if len(tasks) <= 1:
            return False
        return self._program.result_of in self._program.that_begins_at(self._begins_at).tools
