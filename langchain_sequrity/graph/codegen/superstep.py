"""Any graph as a program: a loop over LangGraph's supersteps.

In each step every task reads the state as it was before the step; tasks run in the order in which
LangGraph applies their writes: nodes that were started by edges by name, then packets in the order
they were sent. What starts a node is data (`go_b = go_b or …`), not control flow, so that labels of
a routing decision reach exactly the nodes it decides about.

The channels that LangGraph keeps for this, and what stands for them:

| LangGraph | here |
|---|---|
| `branch:to:b` (EphemeralValue) | `go_b`, or b's token in `gotos` where targets are not declared |
| `branch:to:b` of a deferred node (LastValueAfterFinish) | `go_b`, kept until nothing is left |
| `join:a+b:c` (NamedBarrierValue) | `a_came_for_c`, `b_came_for_c`, kept until both hold |
| TASKS (Topic) | `packets`; a deferred node does not wait for them |
"""

from langchain_sequrity.graph.codegen.toolbox import Names, shown
from langchain_sequrity.graph.codegen.writer import (
    Layout,
    Lines,
    Locals,
    Router,
    Task,
    any_of,
    call,
    pulled_arguments,
    router_arguments,
    sent_arguments,
    write_call,
    write_end,
    write_start,
)
from langchain_sequrity.graph.program import GOTO, HANDLE, HANDLED, OVERWRITE, SEND, ToolSpec

_WIDTH = 22
"""Three loops of 22 rounds are more than LangGraph's default limit of 10,007 steps."""

MOST_STEPS = _WIDTH**3
"""Steps that a program can take: more than one with a bound takes, and than most limits let."""

Flags = dict[tuple[tuple[tuple[str, ...], str], str], str]
"""A join and a source → the flag that says that the source came."""


def write_superstep(
    layout: Layout, local: Locals, names: Names
) -> tuple[str, Flags, dict[str, str]]:
    """Write the program.

    Args:
        layout: The graph with its tools.
        local: Names of the variables that stand for no field and no node.
        names: The program's namespace, with tools, fields and those variables taken; what is
            taken here is free afterwards.

    Returns:
        The program's text, the flags of its joins, and those of its deferred nodes.
    """
    writer = _Superstep(layout, local, names.copy())
    return str(writer.write()), writer.came, writer.ready


class _Superstep:
    def __init__(self, layout: Layout, local: Locals, names: Names) -> None:
        self.layout, self.local = layout, local
        self.fields, self.tasks = layout.fields, layout.tasks
        self.text = Lines()
        stems = {node: layout.tokens[node][:-1] for node in self.tasks}
        keys = self.fields.keys
        self.go = {node: names.take(f"go_{stem}") for node, stem in stems.items()}
        self.run = {node: names.take(f"run_{stem}") for node, stem in stems.items()}
        self.came = {
            (join, source): names.take(f"{stems[source]}_came_for_{stems[join[1]]}")
            for join in layout.joins
            for source in join[0]
        }
        self.ready = {
            node: names.take(f"{stems[node]}_is_ready")
            for node, task in self.tasks.items()
            if task.is_deferred
        }
        self.full = {join: names.take(f"all_came_for_{stems[join[1]]}") for join in layout.joins}
        self.has_gotos = layout.has_undeclared_targets
        self.receivers = layout.receivers
        self.new = {
            field: names.take(f"n_{keys[field]}")
            for field in layout.spec.channels
            if field in layout.written or self.fields.plans[field].resets
        }
        self.split = layout.split
        self.handle = {
            node: names.take(f"handle_{stems[node]}") for node in layout.in_order(self.split)
        }
        self.over = {
            field: names.take(f"over_{keys[field]}")
            for field in self.fields.state
            if field in self.fields.overwritable and field not in layout.written_by_one("sum")
        }

    def write(self) -> Lines:
        text, local = self.text, self.local
        entry, tokens = local.entry, self.layout.tokens
        write_start(text, self.layout)
        text.add(f"{local.steps} = 0", f"{local.active} = True")
        known = (*self.came.values(), *self.ready.values())
        text.add(*(f'{flag} = {entry.came}.get("{flag}", False)' for flag in known))
        text.add(
            *(f'{flag} = "{tokens[one]}" in {entry.start_at}' for one, flag in self.go.items())
        )
        if self.has_gotos:
            text.add(f"{local.gotos} = []")
        if self.receivers:
            text.add(f"{local.packets} = {entry.packets}")
        if self.layout.start.routers:
            with text.block(f"if {entry.begins}:"):
                self._routers(self.layout.start, self.layout.start.routers)
        self._loop()
        write_end(text, self.layout, f"{local.active} or {local.steps} == {entry.stop_after}")
        return text

    def _loop(self) -> None:
        block, rounds = self.text.block, self.layout.longest_run()
        i, j, k = self.local.rounds
        if rounds is not None:
            with block(f"for {i} in {list(range(rounds + 1))}:"):
                self._round()
            return
        width, active = list(range(_WIDTH)), f"if {self.local.active}:"
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
        """Which nodes run in this step."""
        text, local = self.text, self.local
        for join, flag in self.full.items():
            text.add(f"{flag} = {' and '.join(self.came[join, source] for source in join[0])}")
        normal = [node for node, task in self.tasks.items() if not task.is_deferred]
        for node in normal:
            ways = [self.go[node], *self._named(node), *self._joined(node)]
            text.add(f"{self.run[node]} = {any_of(ways)}", f"{self.go[node]} = False")
        self._choose_deferred(normal)
        for join, flag in self.full.items():
            if self.tasks[join[1]].is_deferred:
                text.add(f"{flag} = {flag} and {self.run[join[1]]}")
            for source in join[0]:
                text.add(f"{self.came[join, source]} = {self.came[join, source]} and not {flag}")
        if self.has_gotos:
            text.add(f"{local.gotos} = []")
        work = [*self.run.values(), *([f"{local.packets} != []"] if self.receivers else [])]
        within = f"{local.steps} < {local.entry.stop_after}"
        text.add(f"{local.active} = ({any_of(work)}) and {within}")

    def _choose_deferred(self, normal: list[str]) -> None:
        text, local, busy = self.text, self.local, self.local.busy
        deferred = [node for node, task in self.tasks.items() if task.is_deferred]
        if deferred:
            # One that is ready runs before those that have begun to wait since.
            others = [*(self.run[node] for node in normal), *self.ready.values()]
            if self.receivers:  # what a command from outside adds to packets ends no step
                others.append(f"({local.steps} == 0 and not {local.entry.begins})")
            text.add(f"{busy} = {any_of(others)}")
        for node in deferred:
            go, run = self.go[node], self.run[node]
            if self.has_gotos:
                text.add(f"{go} = {any_of([go, *self._named(node)])}")
            ready = self.ready[node]
            text.add(f"{run} = ({any_of([go, *self._joined(node)])}) and (not {busy} or {ready})")
            text.add(f"{go} = {go} and not {run}", f"{ready} = False")

    def _named(self, node: str) -> list[str]:
        return [f'"{self.layout.tokens[node]}" in {self.local.gotos}'] if self.has_gotos else []

    def _joined(self, node: str) -> list[str]:
        return [flag for join, flag in self.full.items() if join[1] == node]

    def _step(self) -> None:
        text, local, fields = self.text, self.local, self.fields
        text.add(f"{local.steps} = {local.steps} + 1")
        if self.receivers:
            text.add(f"{local.sent} = {local.packets}", f"{local.packets} = []")
        for field, new in self.new.items():
            text.add(f"{new} = {'[]' if fields.is_log(field) else fields.state[field]}")
        text.add(*(f"{flag} = False" for flag in self.over.values()))
        if self.split:
            self._call_all()
        for node, task in self.tasks.items():
            text.add(f"# Node {shown(node)}.")
            with text.block(f"if {self.run[node]}:"):
                self._task(task)
        if self.receivers:
            self._packets()
        for field, new in self.new.items():
            state = fields.state[field]
            text.add(f"{state} = {f'{state} + [{new}]' if fields.is_log(field) else new}")

    def _call_all(self) -> None:
        """Where several tasks are due, call them all before the result of any is looked at."""
        text, local = self.text, self.local
        text.add("# Several at once?", f"{local.wide} = False", f"{local.some} = False")
        for run in self.run.values():
            text.add(f"{local.wide} = {local.wide} or ({local.some} and {run})")
            text.add(f"{local.some} = {local.some} or {run}")
        if self.receivers:
            with text.block(f"for {local.packet} in {local.sent}:"):
                text.add(f"{local.wide} = {local.wide} or {local.some}", f"{local.some} = True")
            text.add(f"{local.handles} = []")
        with text.block(f"if {local.wide}:"):
            for node, handle in self.handle.items():
                tool = self.tasks[node].tool
                if tool is not None:
                    with text.block(f"if {self.run[node]}:"):
                        arguments = pulled_arguments(self.layout, tool)
                        text.add(f"{handle} = {call(tool.name, arguments)}")
            if self.receivers:
                with text.block(f"for {local.packet} in {local.sent}:"):
                    self._call_packet()

    def _call_packet(self) -> None:
        text, local, keyword = self.text, self.local, "if"
        for node in self.layout.in_order(self.receivers):
            tool = self.tasks[node].tool
            if tool is None or node not in self.split:
                continue
            test = f'{local.packet}["node"] == "{self.layout.tokens[node]}"'
            with text.block(f"{keyword} {test}:"):
                arguments = sent_arguments(self.layout, tool, local.packet)
                text.add(f"{local.answer} = {call(tool.name, arguments)}")
                text.add(f"{local.handles} = {local.handles} + [{local.answer}]")
            keyword = "elif"
        if keyword == "elif":
            with text.block("else:"):
                text.add(f"{local.handles} = {local.handles} + [{{}}]")

    def _packets(self) -> None:
        packet = self.local.packet
        self.text.add("# Packets, in the order they were sent.")
        if self.split & self.receivers:
            self.text.add(f"{self.local.number} = 0")
        with self.text.block(f"for {packet} in {self.local.sent}:"):
            keyword = "if"
            for node, task in self.tasks.items():
                if node in self.receivers and task.tool is not None:
                    test = f'{packet}["node"] == "{self.layout.tokens[node]}"'
                    with self.text.block(f"{keyword} {test}:"):
                        self._task(task, packet)
                    keyword = "elif"
            if self.split & self.receivers:
                self.text.add(f"{self.local.number} = {self.local.number} + 1")

    def _task(self, task: Task, packet: str | None = None) -> None:
        """Call a node, keep what it wrote, and note what it starts."""
        if task.tool is None:
            return
        text, local = self.text, self.local
        took_edges = local.took_edges
        routers = task.routers if packet is None else (*task.routers, *task.fused)
        arguments = (
            pulled_arguments(self.layout, task.tool)
            if packet is None
            else sent_arguments(self.layout, task.tool, packet)
        )
        if task.node in self.split:
            handle = self.handle[task.node]
            if packet is not None:
                handle = f"{local.handles}[{local.number}]"
            with text.block(f"if {local.wide}:"):
                of = call(local.result_of, [(HANDLE, f'{handle}["{HANDLE}"]')])
                text.add(f"{self.fields.result} = {of}")
            with text.block("else:"):
                write_call(text, self.layout, local, task, arguments)
        else:
            write_call(text, self.layout, local, task, arguments)
        self._writes(task.tool)
        self._routes(task.tool, self.fields.result)
        if not task.has_handler:
            text.add(*self._started(task, "True"))
            self._routers(task, routers)
            return
        text.add(f'{took_edges} = not {self.fields.result}.get("{HANDLED}", False)')
        text.add(*self._started(task, took_edges))
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
            line = f"{new} = {fields.written(field, tool, new)}"
            if field in self.over:
                self._overwrites(field, tool, line)
                continue
            text.add(line)

    def _overwrites(self, field: str, tool: ToolSpec, line: str) -> None:
        """A sum that several tasks may write: after an overwrite, the step adds no more to it."""
        over = self.over[field]
        with self.text.block(f"if not {over}:"):
            self.text.add(line)
        if tool.overwrites:
            has_it = f'"{OVERWRITE}{self.fields.keys[field]}" in {self.fields.result}'
            self.text.add(f"{over} = {over} or {has_it}")

    def _started(self, task: Task, when: str) -> list[str]:
        """What follows in any case: edges and joins."""
        flags = [self.go[target] for target in task.edges]
        flags += [flag for (_, source), flag in self.came.items() if source == task.node]
        return [f"{flag} = {when if when == 'True' else f'{flag} or {when}'}" for flag in flags]

    def _routes(self, tool: ToolSpec, result: str) -> None:
        """What a result says about where to go."""
        text, local = self.text, self.local
        gotos, packets = f'{result}["{GOTO}"]', f'{result}["{SEND}"]'
        if tool.role == "node":
            gotos, packets = f'{result}.get("{GOTO}", [])', f'{result}.get("{SEND}", [])'
        if tool.targets is None:
            text.add(f"{local.gotos} = {local.gotos} + {gotos}")
        for target in self.layout.in_order(tool.targets or ()):
            flag = self.go[target]
            text.add(f'{flag} = {flag} or "{self.layout.tokens[target]}" in {gotos}')
        if tool.sends is None or tool.sends:
            text.add(f"{local.packets} = {local.packets} + {packets}")

    def _routers(self, task: Task, routers: tuple[Router, ...]) -> None:
        for router in routers:
            if router.tool is None:
                self._field_router(task, router)
                continue
            arguments = router_arguments(self.layout, task, router)
            self.text.add(f"{self.local.answer} = {call(router.tool.name, arguments)}")
            self._routes(router.tool, self.local.answer)

    def _field_router(self, task: Task, router: Router) -> None:
        text, value = self.text, self.local.value
        text.add(f"{value} = {self.fields.fresh(router.looked_up, task.tool)}")
        for target, ones in router.values.items():
            if target in self.go:
                flag = self.go[target]
                text.add(f"{flag} = {any_of([flag, *(f'{value} == {one}' for one in ones)])}")
