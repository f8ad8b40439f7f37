"""The text of a program: straight-line for simple graphs, else a loop over LangGraph's supersteps.

A graph is simple if it has no cycle, runs one node at a time, and has branches that meet again
where an `if` can be closed. Its program is short. Statements after the `if` are outside of it, so
they do not get the labels of its condition.

All other graphs become a loop. In each step every task reads the state as it was before the step.
Tasks run in the order in which LangGraph applies their writes: first nodes that edges started, by
name, then packets in the order in which they were sent. What starts a node is data
(`go_b = go_b or …`), not control flow, so the labels of a routing decision reach exactly the nodes
that it decides about.

The channels that LangGraph keeps for this, and what stands for them:

| LangGraph | here |
|---|---|
| `branch:to:b` (EphemeralValue) | `go_b`, or b's token in `gotos` where targets are not declared |
| `branch:to:b` of a deferred node (LastValueAfterFinish) | `go_b`, kept until nothing is left |
| `join:a+b:c` (NamedBarrierValue) | `a_came_for_c`, `b_came_for_c`, kept until both hold |
| TASKS (Topic) | `packets`; a deferred node does not wait for them |
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter

from langgraph.graph import END

from langchain_sequrity.graph.codegen.tools import (
    Namespace,
    ProgramRouter,
    ProgramTask,
    TaskGraph,
    for_comment,
)
from langchain_sequrity.graph.limits import IF_DEPTH, ROUNDS_PER_LOOP
from langchain_sequrity.graph.program import (
    ABSENT,
    ACTIVE,
    CHANGED,
    GOTO,
    HANDLE,
    HANDLED,
    OVERWRITE,
    SEND,
    EntryVariables,
    Join,
    ToolSpec,
)


class CodeWriter:
    """Program text with a current indentation."""

    def __init__(self) -> None:
        """Start empty, at depth 0."""
        self._lines: list[str] = []
        self._depth = 0

    def add(self, *lines: str) -> None:
        """Write lines at the current depth."""
        self._lines += [f"{'  ' * self._depth}{line}" if line else "" for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write an indented block under a head such as `if x:`; an empty one is `pass`."""
        self.add(head)
        self._depth += 1
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self.add("pass")
        self._depth -= 1

    def __str__(self) -> str:
        """The whole text."""
        return "\n".join([*self._lines, ""])


@dataclass(frozen=True, slots=True)
class LocalVariables:
    """Variables of a program besides those of fields and nodes.

    They are taken from the program's namespace, so a node may be called `steps` or `u`.
    """

    result: str
    answer: str
    value: str
    steps: str
    active: str
    gotos: str
    packets: str
    sent: str
    packet: str
    busy: str
    took_edges: str
    wide: str
    some: str
    handles: str
    number: str
    result_of: str
    packet_count: str
    entry: EntryVariables = dataclasses.field(kw_only=True)
    rounds: tuple[str, str, str] = dataclasses.field(kw_only=True)

    @classmethod
    def allocate(cls, names: Namespace) -> "LocalVariables":
        """Take them all."""
        variables = [f.name for f in dataclasses.fields(cls) if not f.kw_only]
        short_names = {"result": "u", "answer": "r"}
        entry_names = (
            "begins", "start_at", "start_packets", "came", "stop_after", "most_packets"
        )  # fmt: skip
        return cls(
            *(names.unique_name(short_names.get(name, name)) for name in variables),
            entry=EntryVariables(*map(names.unique_name, entry_names)),
            rounds=(names.unique_name("i"), names.unique_name("j"), names.unique_name("k")),
        )


def call(name: str, arguments: Iterable[tuple[str, str]]) -> str:
    """A call with keyword arguments."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments)})"


def any_of(parts: Iterable[str]) -> str:
    """A condition: at least one of these holds."""
    return " or ".join(parts) or "False"


class _ProgramWriter:
    """What both kinds of programs have.

    Args:
        graph: The graph with its tools.
        local: Variables besides those of fields and nodes.
    """

    def __init__(self, graph: TaskGraph, local: LocalVariables) -> None:
        self.graph, self.local = graph, local
        self.fields, self.tasks = graph.fields, graph.tasks
        self.text = CodeWriter()

    def start(self) -> None:
        """The start of a program: the state."""
        self.text.add(f"# Graph {for_comment(self.graph.spec.name)}: each node is a tool.")
        for field, state in self.fields.state.items():
            self.text.add(f"{state} = {self.fields.variables[field]}")

    def end(self, active: str) -> None:
        """The final value: the state, and whether work was left."""
        keys = self.fields.keys
        items = [f'"{keys[field]}": {state}' for field, state in self.fields.state.items()]
        items.append(f'"{ACTIVE}": {active}')
        self.text.add(f"final_return_value = {{{', '.join(items)}}}")

    def call_node(self, task: ProgramTask, arguments: Iterable[tuple[str, str]]) -> None:
        """The call of a node."""
        result = self.fields.result
        self.text.add(f"{result} = {call(task.internal or task.tool.name, arguments)}")
        if task.internal is not None:  # its answer is passed on, so LangGraph has it too
            key = self.fields.keys[task.tool.writes[0]]
            self.text.add(f'{result} = {{"{key}": {result}}}')
            value = f'{result}["{key}"]'
            self.text.add(f"{self.local.answer} = {call(task.tool.name, [(key, value)])}")

    def arguments(self, tool: ToolSpec, packet: str | None = None) -> Iterator[tuple[str, str]]:
        """The arguments of a node: the state before this step, or what a packet brings."""
        for parameter in tool.parameters:
            name = parameter.name
            if parameter.kind == "send":
                if packet is not None:
                    yield name, f'{packet}["input"]'
            elif packet is None or tool.sees_state:
                yield name, self.fields.state[str(parameter.field)]
            else:
                yield name, f'{packet}["fields"].get("{name}", "{ABSENT}")'

    def changes(self, tool: ToolSpec, after_step: Mapping[str, str]) -> None:
        """Take over what a node changed in place: at once, as everybody shares the object.

        Args:
            tool: The node's tool.
            after_step: Field → variable with its value after the step, if that is another one.
        """
        fields = self.fields
        for field in tool.changes:
            before, after = fields.state[field], after_step.get(field)
            lines = [f"{before} = {fields.after_change(field, before)}"]
            if after is not None and fields.plans[field].kind == "sum":
                added = f"{after}[len({before}):]"  # by other nodes of the step
                lines = [f"{after} = {fields.after_change(field, before)} + {added}", *lines]
            elif after is not None and not fields.is_log(field):
                lines.append(f"{after} = {fields.after_change(field, after)}")
            if not fields.may_branch:
                self.text.add(*lines)
                continue
            with self.text.block(f'if "{CHANGED}{fields.keys[field]}" in {fields.result}:'):
                self.text.add(*lines)


@dataclass(frozen=True, slots=True)
class _Region:
    """A node, its successors, and the nodes of each branch before the branches meet."""

    task: ProgramTask
    branches: "tuple[tuple[str, tuple[_Region, ...]], ...]"


class _NotStructuredError(Exception):
    """A node would have to be written twice, or with too much indentation."""


def write_structured(graph: TaskGraph, local: LocalVariables) -> str | None:
    """Write the program of a simple graph.

    Args:
        graph: The graph with its tools.
        local: Variables besides those of fields and nodes.

    Returns:
        The program's text; `None` if the graph is not simple.
    """
    regions = _regions(graph)
    if regions is None:
        return None
    writer = _StructuredWriter(graph, local)
    writer.start()
    writer.write(regions)
    writer.end("False")
    return str(writer.text)


def _regions(graph: TaskGraph) -> tuple[_Region, ...] | None:
    has_handler = any(task.has_handler for task in graph.tasks.values())
    needs_loop = graph.is_parallel or graph.has_undeclared_targets or bool(graph.receivers)
    if needs_loop or has_handler or graph.longest_run() is None:
        return None
    try:
        return tuple(_RegionFinder(graph).region(graph.start, END, 0))
    except _NotStructuredError:
        return None


class _RegionFinder:
    """Finds the nested regions of a graph without cycles."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.successors = {
            task.node: [*graph.successors[task.node], *([END] if task.may_end else [])]
            for task in graph.start_and_tasks
        }
        self.post_dominators = _post_dominators(self.successors)
        self.visited: set[str] = set()

    def region(self, task: ProgramTask, stop: str, depth: int) -> Iterator[_Region]:
        """The regions from a node up to the node where its branches meet others."""
        while True:
            if task.node in self.visited or depth > IF_DEPTH:
                raise _NotStructuredError
            self.visited.add(task.node)
            merge = self.post_dominators[task.node]
            starts = [node for node in self.successors[task.node] if node not in (merge, END)]
            branches = (self.region(self.graph.tasks[node], merge, depth + 1) for node in starts)
            yield _Region(task, tuple(zip(starts, map(tuple, branches), strict=True)))
            if merge in (stop, END):
                return
            task = self.graph.tasks[merge]


def _post_dominators(successors: Mapping[str, list[str]]) -> dict[str, str]:
    """Node → its post-dominator: the first node on all paths from it."""
    post_dominators, depth = {END: END}, {END: 0}
    for node in TopologicalSorter(successors).static_order():  # successors come first
        if node == END:
            continue
        common, *rest = successors[node] or [END]
        for successor in rest:
            while common != successor:
                if depth[common] >= depth[successor]:
                    common = post_dominators[common]
                else:
                    successor = post_dominators[successor]  # noqa: PLW2901
        post_dominators[node], depth[node] = common, depth[common] + 1
    return post_dominators


class _StructuredWriter(_ProgramWriter):
    def write(self, regions: tuple[_Region, ...]) -> None:
        for region in regions:
            self._node(region.task)
            self._branches(region)

    def _node(self, task: ProgramTask) -> None:
        tool, text, fields = task.tool, self.text, self.fields
        if tool.role == "start":
            return
        text.add(f"# Node {for_comment(task.node)}.")
        self.call_node(task, self.arguments(tool))
        self.changes(tool, {})
        for field, state in fields.state.items():
            if field in tool.writes or fields.plans[field].resets:
                text.add(f"{state} = {fields.with_own_writes(field, tool)}")

    def _branches(self, region: _Region) -> None:
        task, text, local = region.task, self.text, self.local
        if not task.is_routed:
            return
        if task.has_lookup_router:
            text.add(f"{local.value} = {self.fields.state[task.routers[0].field]}")
        for router in task.routers:
            if router.tool is not None:
                arguments = self.arguments(router.tool)
                text.add(f"{local.answer} = {call(router.tool.name, arguments)}")
        keyword = "if"
        for node, regions in region.branches:
            with text.block(f"{keyword} {self._condition(task, node)}:"):
                self.write(regions)
            keyword = "elif"

    def _condition(self, task: ProgramTask, node: str) -> str:
        if task.has_lookup_router:
            values = task.routers[0].values[node]
            return any_of(f"{self.local.value} == {value}" for value in values)
        token = self.graph.tokens[node]
        if task.routers:
            return f'"{token}" in {self.local.answer}["{GOTO}"]'
        return f'"{token}" in {self.fields.result}.get("{GOTO}", [])'


def write_superstep(
    graph: TaskGraph, local: LocalVariables, names: Namespace
) -> tuple[str, dict[tuple[Join, str], str], dict[str, str]]:
    """Write the program.

    Args:
        graph: The graph with its tools.
        local: Variables besides those of fields and nodes.
        names: The program's namespace with tools, fields and these variables. It is not changed.

    Returns:
        The program's text, the flags of its joins, and those of its deferred nodes.
    """
    writer = _SuperstepWriter(graph, local, names.copy())
    return str(writer.write()), writer.came, writer.ready


class _SuperstepWriter(_ProgramWriter):
    def __init__(self, graph: TaskGraph, local: LocalVariables, names: Namespace) -> None:
        super().__init__(graph, local)
        stems = {node: graph.tokens[node][:-1] for node in self.tasks}
        keys = self.fields.keys
        self.go = names.unique_names("go_{}", stems)
        self.run = names.unique_names("run_{}", stems)
        self.came = {
            (join, source): names.unique_name(f"{stems[source]}_came_for_{stems[join.target]}")
            for join in graph.joins
            for source in join.sources
        }
        deferred = {node: stem for node, stem in stems.items() if self.tasks[node].is_deferred}
        self.ready = names.unique_names("{}_is_ready", deferred)
        targets = {join: stems[join.target] for join in graph.joins}
        self.full = names.unique_names("all_came_for_{}", targets)
        changing = {field for field, plan in self.fields.plans.items() if plan.resets}
        changing |= graph.written
        self.new = names.unique_names("n_{}", {f: keys[f] for f in keys if f in changing})
        split = {node: stems[node] for node in graph.in_order(graph.split_nodes)}
        self.handle = names.unique_names("handle_{}", split)
        shared = self.fields.overwritable & graph.written_by_several()
        self.over = names.unique_names("over_{}", {f: keys[f] for f in keys if f in shared})

    def write(self) -> CodeWriter:
        text, local = self.text, self.local
        entry, tokens = local.entry, self.graph.tokens
        self.start()
        text.add(f"{local.steps} = 0", f"{local.active} = True")
        entry_flags = (*self.came.values(), *self.ready.values())
        text.add(*(f'{flag} = {entry.came}.get("{flag}", False)' for flag in entry_flags))
        text.add(
            *(f'{flag} = "{tokens[node]}" in {entry.start_at}' for node, flag in self.go.items())
        )
        if self.graph.has_undeclared_targets:
            text.add(f"{local.gotos} = []")
        if self.graph.receivers:
            text.add(f"{local.packets} = {entry.packets}", f"{local.packet_count} = 0")
        if self.graph.start.routers:
            with text.block(f"if {entry.begins}:"):
                self._routers(self.graph.start, self.graph.start.routers)
        self._loop()
        stopped = f"{local.steps} == {entry.stop_after}"
        if self.graph.receivers:
            stopped += f" or {entry.most_packets} < {local.packet_count}"
        self.end(f"{local.active} or {stopped}")
        return text

    def _loop(self) -> None:
        block, rounds = self.text.block, self.graph.longest_run()
        i, j, k = self.local.rounds
        if rounds is not None:
            with block(f"for {i} in {list(range(rounds + 1))}:"):
                self._round()
            return
        width, active = list(range(ROUNDS_PER_LOOP)), f"if {self.local.active}:"
        with (
            block(f"for {i} in {width}:"),
            block(active),
            block(f"for {j} in {width}:"),
            block(active),
            block(f"for {k} in {width}:"),
        ):
            self._round()

    def _round(self) -> None:
        with self.text.block(f"if {self.local.active}:"):
            self._choose()
            with self.text.block(f"if {self.local.active}:"):
                self._step()

    def _choose(self) -> None:
        """Decide which nodes run in this step."""
        text, local = self.text, self.local
        for join, flag in self.full.items():
            text.add(f"{flag} = {' and '.join(self.came[join, source] for source in join.sources)}")
        immediate = [node for node, task in self.tasks.items() if not task.is_deferred]
        for node in immediate:
            triggers = [self.go[node], *self._goto_conditions(node), *self._joins(node)]
            text.add(f"{self.run[node]} = {any_of(triggers)}", f"{self.go[node]} = False")
        self._choose_deferred(immediate)
        for join, flag in self.full.items():
            if self.tasks[join.target].is_deferred:
                text.add(f"{flag} = {flag} and {self.run[join.target]}")
            for source in join.sources:
                text.add(f"{self.came[join, source]} = {self.came[join, source]} and not {flag}")
        if self.graph.has_undeclared_targets:
            text.add(f"{local.gotos} = []")
        due = [*self.run.values(), *([f"{local.packets} != []"] if self.graph.receivers else [])]
        within_limits = f"{local.steps} < {local.entry.stop_after}"
        if self.graph.receivers:
            with text.block(f"for {local.packet} in {local.packets}:"):
                text.add(f"{local.packet_count} = {local.packet_count} + 1")
            many = f"{local.entry.most_packets} < {local.packet_count}"
            within_limits += (
                f" and (not {many} or ({local.steps} == 0 and not {local.entry.begins}))"
            )
        text.add(f"{local.active} = ({any_of(due)}) and {within_limits}")

    def _choose_deferred(self, immediate: list[str]) -> None:
        text, local, busy = self.text, self.local, self.local.busy
        deferred = [node for node, task in self.tasks.items() if task.is_deferred]
        if deferred:
            # A ready node runs before nodes that have started to wait since.
            busy_flags = [*(self.run[node] for node in immediate), *self.ready.values()]
            # A command from outside that adds to packets does not end a step.
            if self.graph.receivers:
                busy_flags.append(f"({local.steps} == 0 and not {local.entry.begins})")
            text.add(f"{busy} = {any_of(busy_flags)}")
        for node in deferred:
            go, run = self.go[node], self.run[node]
            if conditions := self._goto_conditions(node):
                text.add(f"{go} = {any_of([go, *conditions])}")
            ready = self.ready[node]
            text.add(f"{run} = ({any_of([go, *self._joins(node)])}) and (not {busy} or {ready})")
            text.add(f"{go} = {go} and not {run}", f"{ready} = False")

    def _goto_conditions(self, node: str) -> list[str]:
        if not self.graph.has_undeclared_targets:
            return []
        return [f'"{self.graph.tokens[node]}" in {self.local.gotos}']

    def _joins(self, node: str) -> list[str]:
        return [flag for join, flag in self.full.items() if join.target == node]

    def _step(self) -> None:
        text, local, fields = self.text, self.local, self.fields
        text.add(f"{local.steps} = {local.steps} + 1")
        if self.graph.receivers:
            text.add(f"{local.sent} = {local.packets}", f"{local.packets} = []")
        for field, new in self.new.items():
            text.add(f"{new} = {'[]' if fields.is_log(field) else fields.state[field]}")
        text.add(*(f"{flag} = False" for flag in self.over.values()))
        if self.graph.split_nodes:
            self._call_all()
        for node, task in self.tasks.items():
            text.add(f"# Node {for_comment(node)}.")
            with text.block(f"if {self.run[node]}:"):
                self._task(task)
        if self.graph.receivers:
            self._packets()
        for field, new in self.new.items():
            state = fields.state[field]
            text.add(f"{state} = {f'{state} + [{new}]' if fields.is_log(field) else new}")

    def _call_all(self) -> None:
        """If several tasks are due, call them all before reading any result."""
        text, local = self.text, self.local
        text.add("# Several at once?", f"{local.wide} = False", f"{local.some} = False")
        for run in self.run.values():
            text.add(f"{local.wide} = {local.wide} or ({local.some} and {run})")
            text.add(f"{local.some} = {local.some} or {run}")
        if self.graph.receivers:
            with text.block(f"for {local.packet} in {local.sent}:"):
                text.add(f"{local.wide} = {local.wide} or {local.some}", f"{local.some} = True")
            text.add(f"{local.handles} = []")
        with text.block(f"if {local.wide}:"):
            for node, handle in self.handle.items():
                tool = self.tasks[node].tool
                with text.block(f"if {self.run[node]}:"):
                    text.add(f"{handle} = {call(tool.name, self.arguments(tool))}")
            if self.graph.receivers:
                with text.block(f"for {local.packet} in {local.sent}:"):
                    self._call_packet()

    def _call_packet(self) -> None:
        text, local = self.text, self.local
        for task in self._packet_cases(self.graph.receivers & self.graph.split_nodes):
            arguments = self.arguments(task.tool, local.packet)
            text.add(f"{local.answer} = {call(task.tool.name, arguments)}")
            text.add(f"{local.handles} = {local.handles} + [{local.answer}]")
        if self.graph.receivers & self.graph.split_nodes:
            with text.block("else:"):
                text.add(f"{local.handles} = {local.handles} + [{{}}]")

    def _packet_cases(self, nodes: frozenset[str]) -> Iterator[ProgramTask]:
        """Write an `if` on the node of a packet, with a block for each of these nodes."""
        keyword = "if"
        for node in self.graph.in_order(nodes):
            test = f'{self.local.packet}["node"] == "{self.graph.tokens[node]}"'
            with self.text.block(f"{keyword} {test}:"):
                yield self.tasks[node]
            keyword = "elif"

    def _packets(self) -> None:
        packet = self.local.packet
        self.text.add("# Packets, in the order they were sent.")
        if self.graph.split_nodes & self.graph.receivers:
            self.text.add(f"{self.local.number} = 0")
        with self.text.block(f"for {packet} in {self.local.sent}:"):
            for task in self._packet_cases(self.graph.receivers):
                self._task(task, packet)
            if self.graph.split_nodes & self.graph.receivers:
                self.text.add(f"{self.local.number} = {self.local.number} + 1")

    def _task(self, task: ProgramTask, packet: str | None = None) -> None:
        """Call a node, store its writes, and start its successors."""
        text, local = self.text, self.local
        took_edges = local.took_edges
        routers = task.routers if packet is None else (*task.routers, *task.fused)
        arguments = self.arguments(task.tool, packet)
        if task.node in self.graph.split_nodes:
            packet_handle = f"{local.handles}[{local.number}]"
            handle = self.handle[task.node] if packet is None else packet_handle
            with text.block(f"if {local.wide}:"):
                result = call(local.result_of, [(HANDLE, f'{handle}["{HANDLE}"]')])
                text.add(f"{self.fields.result} = {result}")
            with text.block("else:"):
                self.call_node(task, arguments)
        else:
            self.call_node(task, arguments)
        if packet is None or task.tool.sees_state:
            self.changes(task.tool, self.new)
        self._writes(task.tool)
        self._routes(task.tool, self.fields.result)
        if not task.has_handler:
            text.add(*self._start_lines(task, "True"))
            self._routers(task, routers)
            return
        text.add(f'{took_edges} = not {self.fields.result}.get("{HANDLED}", False)')
        text.add(*self._start_lines(task, took_edges))
        if routers:
            with text.block(f"if {took_edges}:"):
                self._routers(task, routers)

    def _writes(self, tool: ToolSpec) -> None:
        text, fields = self.text, self.fields
        for field in tool.writes:
            key, new = fields.keys[field], self.new[field]
            if fields.is_log(field):
                text.add(f'{new} = {new} + {fields.result}["{key}"]')
                continue
            line = f"{new} = {fields.after_result(field, tool, new)}"
            if (over := self.over.get(field)) is None:
                text.add(line)
                continue
            with text.block(f"if not {over}:"):  # after an overwrite, the step adds no more
                text.add(line)
            if tool.overwrites:
                text.add(f'{over} = {over} or "{OVERWRITE}{key}" in {fields.result}')

    def _start_lines(self, task: ProgramTask, test: str) -> list[str]:
        """The lines that start unconditional successors: edges and joins."""
        flags = [self.go[target] for target in task.edges]
        flags += [flag for (_, source), flag in self.came.items() if source == task.node]
        return [f"{flag} = {test if test == 'True' else f'{flag} or {test}'}" for flag in flags]

    def _routes(self, tool: ToolSpec, result: str) -> None:
        """The targets in a result."""
        text, local = self.text, self.local
        gotos, packets = f'{result}["{GOTO}"]', f'{result}["{SEND}"]'
        if tool.role == "node":
            gotos, packets = f'{result}.get("{GOTO}", [])', f'{result}.get("{SEND}", [])'
        if tool.targets is None:
            text.add(f"{local.gotos} = {local.gotos} + {gotos}")
        for target in self.graph.in_order(tool.targets or ()):
            flag = self.go[target]
            text.add(f'{flag} = {flag} or "{self.graph.tokens[target]}" in {gotos}')
        if tool.sends is None or tool.sends:
            text.add(f"{local.packets} = {local.packets} + {packets}")

    def _routers(self, task: ProgramTask, routers: tuple[ProgramRouter, ...]) -> None:
        for router in routers:
            if router.tool is None:
                self._field_router(task, router)
                continue
            # The state before this step with the node's own writes
            arguments = [
                (parameter.name, self.fields.with_own_writes(str(parameter.field), task.tool))
                for parameter in router.tool.parameters
            ]
            self.text.add(f"{self.local.answer} = {call(router.tool.name, arguments)}")
            self._routes(router.tool, self.local.answer)

    def _field_router(self, task: ProgramTask, router: ProgramRouter) -> None:
        text, value = self.text, self.local.value
        text.add(f"{value} = {self.fields.with_own_writes(router.field, task.tool)}")
        for target, values in router.values.items():
            if target in self.go:
                flag = self.go[target]
                text.add(f"{flag} = {any_of([flag, *(f'{value} == {v}' for v in values)])}")
