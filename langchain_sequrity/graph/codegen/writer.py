"""What both generators write a program from: the graph's layout, its fields, lines of text."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from langgraph.graph import END

from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.codegen.toolbox import Names, shown
from langchain_sequrity.graph.program import (
    ABSENT,
    ACTIVE,
    OVERWRITE,
    Entry,
    Parameter,
    Plan,
    ToolSpec,
)


@dataclass(frozen=True, slots=True)
class Fields:
    """How the state fields stand in a program.

    Attributes:
        keys: Field → key in results.
        state: Field → variable with its value.
        variables: Field → context variable with its initial value.
        plans: Field → how it is carried.
        overwritable: Sums for which a result may say a new value.
        result: Variable with a node's result.
    """

    keys: Mapping[str, str]
    state: Mapping[str, str]
    variables: Mapping[str, str]
    plans: Mapping[str, Plan]
    overwritable: frozenset[str]
    result: str

    def is_log(self, field: str) -> bool:
        """Whether the field is a list of batches that the client folds."""
        return self.plans[field].kind == "log"

    def read(self, field: str) -> str:
        """The field before this step."""
        return self.state[field]

    def written(self, field: str, tool: ToolSpec, base: str) -> str:
        """The field after a node's result, for "last" and "sum".

        Args:
            field: A field that the tool may write.
            tool: The node's tool.
            base: The field's value so far.
        """
        key, plan, result = self.keys[field], self.plans[field], self.result
        is_sure = field in tool.definite
        if plan.kind == "last":
            return f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {base})'
        if field in self.overwritable:
            added = f'{base} + {result}.get("{key}", {plan.zero!r})'
            return f'{result}.get("{OVERWRITE}{key}", {added})'
        added = f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {plan.zero!r})'
        return f"{base} + {added}"

    def fresh(self, field: str, tool: ToolSpec | None) -> str:
        """The field before this step with this node's own writes: what its routers see."""
        if tool is None:
            return self.read(field)
        before = self.state[field]
        if not self.is_log(field):
            return self.written(field, tool, before) if field in tool.writes else before
        if field in tool.writes:
            return f'{before} + [{self.result}["{self.keys[field]}"]]'
        return f"{before} + [[]]" if self.plans[field].resets else before


@dataclass(frozen=True, slots=True)
class Router:
    """A conditional edge.

    Attributes:
        tool: The tool that decides, or `None` where a field does.
        looked_up: That field.
        values: Node or END → values of the field that lead there, as program text.
    """

    tool: ToolSpec | None
    looked_up: str = ""
    values: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """A node, or START, with what it starts.

    Attributes:
        node: LangGraph's name.
        tool: Its tool; `None` for START.
        internal: The service's own tool that is called in its place.
        edges: Nodes that follow it in any case, sorted; END is not among them.
        routers: Conditional edges that are no part of its own call.
        fused: Those that are, unless a packet started it.
        has_handler: Whether an error handler may have made its result.
        is_deferred: Whether it waits until nothing else is left to do.
    """

    node: str
    tool: ToolSpec | None
    internal: str | None
    edges: tuple[str, ...]
    routers: tuple[Router, ...]
    fused: tuple[Router, ...]
    has_handler: bool
    is_deferred: bool

    @property
    def writes(self) -> tuple[str, ...]:
        """Fields that it may write."""
        return () if self.tool is None else self.tool.writes

    @property
    def answerers(self) -> tuple[ToolSpec, ...]:
        """The tools whose results may route, the node's own first."""
        own = () if self.tool is None else (self.tool,)
        return own + tuple(router.tool for router in self.routers if router.tool is not None)

    @property
    def decides(self) -> bool:
        """Whether something else than its edges says what follows."""
        return bool(self.routers) or any(one.targets != frozenset() for one in self.answerers)

    @property
    def looks_up(self) -> bool:
        """Whether a field that is looked up says what follows."""
        return any(router.tool is None for router in self.routers)

    @property
    def may_end(self) -> bool:
        """Whether it is possible that nothing follows it; for nodes that start one task at most."""
        if self.edges:
            return False
        if self.looks_up:
            return any(END in router.values for router in self.routers)
        return not self.decides or any(
            one.may_end for one in self.answerers if one.role == "router" or not self.routers
        )

    @property
    def may_start_several(self) -> bool:
        """Whether more than one task may follow it in one step."""
        several = any(
            (one.targets is None or one.targets) and not one.single for one in self.answerers
        )
        ways = len(self.edges) + len(self.routers)
        ways += bool(self.tool is not None and (self.tool.targets is None or self.tool.targets))
        return several or ways > 1 or any(one.sends is None or one.sends for one in self.answerers)


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph with its tools.

    Attributes:
        spec: The graph.
        start: START and what it starts.
        tasks: Nodes by name, sorted, which is the order in which LangGraph applies their writes.
        tokens: Node → routing token.
        fields: How the state fields stand in the program.
        is_wide: Whether something outside may start any node, beside others.
        takes_packets: Whether something outside may send a packet to any node.
    """

    spec: GraphSpec
    start: Task
    tasks: Mapping[str, Task]
    tokens: Mapping[str, str]
    fields: Fields
    is_wide: bool = False
    takes_packets: bool = False

    @property
    def everyone(self) -> tuple[Task, ...]:
        """START and all nodes."""
        return (self.start, *self.tasks.values())

    @property
    def joins(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """The joins that start a node, each source once."""
        return tuple(
            (tuple(dict.fromkeys(sources)), target)
            for sources, target in self.spec.joins
            if target in self.tasks
        )

    @property
    def receivers(self) -> frozenset[str]:
        """Nodes that a packet may be for."""
        found: set[str] = set()
        if self.takes_packets:  # the service's own tools have no parameter for one
            found |= {node for node, task in self.tasks.items() if task.internal is None}
        for task in self.everyone:
            for tool in task.answerers:
                found |= self.tasks.keys() if tool.sends is None else tool.sends
        return frozenset(found)

    @property
    def has_undeclared_targets(self) -> bool:
        """Whether something may go to any node."""
        return any(tool.targets is None for task in self.everyone for tool in task.answerers)

    @property
    def is_parallel(self) -> bool:
        """Whether two tasks may run in one step."""
        several = any(task.may_start_several for task in self.everyone)
        return self.is_wide or bool(self.joins) or several

    @property
    def written(self) -> frozenset[str]:
        """Fields that some node may write."""
        return frozenset(field for task in self.tasks.values() for field in task.writes)

    def written_by_one(self, kind: str) -> list[str]:
        """Fields of a kind that get one write in a step at most, of one task."""
        several = self._written_by_several() if self.is_parallel else frozenset()
        plans = self.fields.plans
        return [
            field
            for field in self.spec.channels
            if plans[field].kind == kind and field not in several
        ]

    def overwritable(self) -> frozenset[str]:
        """Sums that some node may overwrite."""
        return frozenset(
            field
            for task in self.tasks.values()
            if task.tool is not None and task.tool.overwrites
            for field in task.writes
            if self.fields.plans[field].kind == "sum"
        )

    def _written_by_several(self) -> frozenset[str]:
        receivers = self.receivers
        writers = Counter(
            field
            for node, task in self.tasks.items()
            for field in task.writes * (2 if node in receivers else 1)
        )
        return frozenset(field for field, number in writers.items() if number > 1)

    @property
    def split(self) -> frozenset[str]:
        """Nodes whose calls are made before any of their step runs, where several are due."""
        if not self.is_parallel:
            return frozenset()
        return frozenset(
            node
            for node, task in self.tasks.items()
            if task.tool is not None and not task.tool.not_split
        )

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """What is offered to the service."""
        tools = [
            task.tool if task.internal is None else self._handover(task.tool)
            for task in self.tasks.values()
            if task.tool is not None
        ]
        receivers = self.receivers
        routers = [one.tool for task in self.everyone for one in task.routers]
        routers += [
            one.tool for node, task in self.tasks.items() if node in receivers for one in task.fused
        ]
        return (*tools, *(one for one in routers if one is not None))

    def _handover(self, tool: ToolSpec) -> ToolSpec:
        """What takes the answer of the service's own tool for the node in whose place it is."""
        field = tool.writes[0]
        answer = Parameter(self.fields.keys[field], field, "field")
        return replace(
            tool, parameters=(answer,), writes=(), definite=frozenset(), is_handover=True
        )

    def in_order(self, nodes: Iterable[str]) -> list[str]:
        """These nodes in the order of the tasks."""
        chosen = frozenset(nodes)
        return [node for node in self.tasks if node in chosen]

    def successors(self) -> dict[str, list[str]]:
        """Node (or START) → nodes that may run because it did."""
        found: dict[str, list[str]] = {}
        for task in self.everyone:
            ways = set(task.edges)
            for tool in task.answerers:
                for some in (tool.targets, tool.sends):
                    ways |= self.tasks.keys() if some is None else some
            ways |= {node for router in task.routers for node in router.values}
            ways |= {target for sources, target in self.joins if task.node in sources}
            found[task.node] = self.in_order(ways)
        return found

    def longest_run(self) -> int | None:
        """How many steps a run can take at most; `None` if that has no simple bound.

        A graph without a cycle takes as many as its longest path has nodes. A deferred node waits
        for things that no path shows.
        """
        if any(task.is_deferred for task in self.tasks.values()):
            return None
        try:
            order = list(TopologicalSorter(self.successors()).static_order())
        except CycleError:
            return None
        successors = self.successors()
        longest: dict[str, int] = {}
        for node in order:  # successors come first
            longest[node] = 1 + max((longest[one] for one in successors[node]), default=0)
        return max(longest.values()) if self.is_wide else longest[self.start.node] - 1


class Lines:
    """Lines that grow, with a current depth."""

    def __init__(self) -> None:
        """Start empty, at depth 0."""
        self._lines: list[str] = []
        self._depth = 0

    def add(self, *lines: str) -> None:
        """Write lines at the current depth."""
        self._lines += [f"{'  ' * self._depth}{line}" if line else "" for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write what is within under a head such as `if x:`; nothing within is `pass`."""
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
class Locals:
    """Variables of a program that stand for no field and no node.

    Made from the program's namespace, so that a node may be called `steps` or `u`.
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
    entry: Entry
    rounds: tuple[str, str, str]

    @classmethod
    def take(cls, names: Names) -> "Locals":
        """Take them all."""
        one = names.take
        return cls(
            result=one("u"),
            answer=one("r"),
            value=one("value"),
            steps=one("steps"),
            active=one("active"),
            gotos=one("gotos"),
            packets=one("packets"),
            sent=one("sent"),
            packet=one("packet"),
            busy=one("busy"),
            took_edges=one("took_edges"),
            wide=one("wide"),
            some=one("some"),
            handles=one("handles"),
            number=one("number"),
            result_of=one("result_of"),
            entry=Entry(
                begins=one("begins"),
                start_at=one("start_at"),
                packets=one("start_packets"),
                came=one("came"),
                stop_after=one("stop_after"),
            ),
            rounds=(one("i"), one("j"), one("k")),
        )


def call(name: str, arguments: Iterable[tuple[str, str]]) -> str:
    """A call with keywords."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments)})"


def any_of(parts: Iterable[str]) -> str:
    """Whether one of them holds."""
    return " or ".join(parts) or "False"


def pulled_arguments(layout: Layout, tool: ToolSpec) -> list[tuple[str, str]]:
    """The arguments of a node that an edge started: the state before this step."""
    return [
        (one.name, layout.fields.read(str(one.field)))
        for one in tool.parameters
        if one.kind != "send"
    ]


def sent_arguments(layout: Layout, tool: ToolSpec, packet: str) -> list[tuple[str, str]]:
    """The arguments of a node that a packet started."""
    carried = [(one.name, f'{packet}["input"]') for one in tool.parameters if one.kind == "send"]
    if tool.sees_state:
        return pulled_arguments(layout, tool) + carried
    fields = [
        (one.name, f'{packet}["fields"].get("{one.name}", "{ABSENT}")')
        for one in tool.parameters
        if one.kind != "send"
    ]
    return fields + carried


def router_arguments(layout: Layout, task: Task, router: Router) -> list[tuple[str, str]]:
    """The arguments of a router: the state before this step with its node's own writes."""
    parameters = () if router.tool is None else router.tool.parameters
    return [(one.name, layout.fields.fresh(str(one.field), task.tool)) for one in parameters]


def write_start(text: Lines, layout: Layout) -> None:
    """The head of a program: the state."""
    text.add(f"# Graph {shown(layout.spec.name)}: each node is a tool.")
    for field in layout.spec.channels:
        text.add(f"{layout.fields.state[field]} = {layout.fields.variables[field]}")


def write_call(
    text: Lines, layout: Layout, local: Locals, task: Task, arguments: Iterable[tuple[str, str]]
) -> None:
    """The call of a node."""
    if task.tool is None:
        return
    result = layout.fields.result
    text.add(f"{result} = {call(task.internal or task.tool.name, arguments)}")
    if task.internal is not None:  # its answer is handed over, so that LangGraph has it as well
        key = layout.fields.keys[task.tool.writes[0]]
        text.add(f'{result} = {{"{key}": {result}}}')
        value = f'{result}["{key}"]'
        text.add(f"{local.answer} = {call(task.tool.name, [(key, value)])}")


def write_end(text: Lines, layout: Layout, active: str) -> None:
    """The final value: the state, and whether work was left."""
    fields = layout.fields
    items = [f'"{fields.keys[field]}": {fields.state[field]}' for field in layout.spec.channels]
    items.append(f'"{ACTIVE}": {active}')
    text.add(f"final_return_value = {{{', '.join(items)}}}")
