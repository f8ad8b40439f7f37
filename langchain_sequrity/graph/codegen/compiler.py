"""A graph as a program: straight-line text for simple graphs, else a loop over supersteps.

A graph is simple if it has no cycle, one node at a time, and branches that meet again where an
`if` can be closed. Its program is short, and what follows a closed `if` does not stand under it: an
interpreter that marks what stands under a branch with the labels of its condition leaves it alone.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from graphlib import TopologicalSorter
from types import MappingProxyType

from langgraph.graph import END, START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec
from langchain_sequrity.graph.codec.channels import plan_of
from langchain_sequrity.graph.codec.values import encode
from langchain_sequrity.graph.codegen.superstep import write_superstep
from langchain_sequrity.graph.codegen.toolbox import INTERNAL_TOOLS, RouterTool, Toolbox, shown
from langchain_sequrity.graph.codegen.writer import (
    Fields,
    Layout,
    Lines,
    Locals,
    Router,
    Task,
    any_of,
    call,
    pulled_arguments,
    write_call,
    write_end,
    write_start,
)
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import (
    GOTO,
    HANDLE,
    PARSE_WITH_AI,
    Parameter,
    Program,
    Text,
    ToolSpec,
)

_DEEPEST = 8
"""Levels of `if` in `if`; Python itself stops at 100 levels of indentation."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A node, the ways out of it, and what each leads to before they meet."""

    task: Task
    ways: "tuple[tuple[str, tuple[_Piece, ...]], ...]"


class _NotSimpleError(Exception):
    """A node would have to be written twice, or too deep."""


def is_simple(layout: Layout) -> bool:
    """Whether a graph has a straight-line program."""
    return _pieces(layout) is not None


def write_structured(layout: Layout, local: Locals) -> str:
    """Write the program of a simple graph.

    Args:
        layout: The graph with its tools, for which `is_simple` holds.
        local: Names of the variables that stand for no field and no node.

    Returns:
        The program's text.
    """
    text = Lines()
    write_start(text, layout)
    writer = _Structured(layout, local, text)
    writer.write(_pieces(layout) or ())
    write_end(text, layout, "False")
    return str(text)


def _pieces(layout: Layout) -> tuple[_Piece, ...] | None:
    has_handler = any(task.has_handler for task in layout.tasks.values())
    is_more = layout.is_parallel or layout.has_undeclared_targets or bool(layout.receivers)
    if is_more or has_handler or layout.longest_run() is None:
        return None
    try:
        return tuple(_Regions(layout).region(layout.start, END, 0))
    except _NotSimpleError:
        return None


class _Regions:
    """Finds the nested pieces of a graph without cycles."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.ways = {
            task.node: [*layout.successors()[task.node], *([END] if task.may_end else [])]
            for task in layout.everyone
        }
        self.meeting = _meeting_places(self.ways)
        self.seen: set[str] = set()

    def region(self, task: Task, stop: str, depth: int) -> Iterator[_Piece]:
        """The pieces from a node up to the place where its branches meet others."""
        while True:
            if task.node in self.seen or depth > _DEEPEST:
                raise _NotSimpleError
            self.seen.add(task.node)
            meeting = self.meeting[task.node]
            inner = [way for way in self.ways[task.node] if way not in (meeting, END)]
            yield _Piece(task, tuple((way, self._way(way, meeting, depth)) for way in inner))
            if meeting in (stop, END):
                return
            task = self.layout.tasks[meeting]

    def _way(self, way: str, meeting: str, depth: int) -> tuple[_Piece, ...]:
        return tuple(self.region(self.layout.tasks[way], meeting, depth + 1))


def _meeting_places(ways: Mapping[str, list[str]]) -> dict[str, str]:
    """For each node the first one that every way out of it comes to: its post-dominator."""
    meeting, depth = {END: END}, {END: 0}
    for node in TopologicalSorter(ways).static_order():  # successors come first
        if node == END:
            continue
        first, *others = ways[node] or [END]
        for other in others:
            while first != other:
                if depth[first] >= depth[other]:
                    first = meeting[first]
                else:
                    other = meeting[other]  # noqa: PLW2901
        meeting[node], depth[node] = first, depth[first] + 1
    return meeting


class _Structured:
    def __init__(self, layout: Layout, local: Locals, text: Lines) -> None:
        self.layout, self.local, self.text = layout, local, text
        self.fields = layout.fields

    def write(self, pieces: tuple[_Piece, ...]) -> None:
        for piece in pieces:
            self._node(piece.task)
            self._ways(piece)

    def _node(self, task: Task) -> None:
        tool, text, fields = task.tool, self.text, self.fields
        if tool is None:
            return
        text.add(f"# Node {shown(task.node)}.")
        write_call(text, self.layout, self.local, task, pulled_arguments(self.layout, tool))
        for field, state in fields.state.items():
            if field in tool.writes or fields.plans[field].resets:
                text.add(f"{state} = {fields.fresh(field, tool)}")

    def _ways(self, piece: _Piece) -> None:
        task, text, local = piece.task, self.text, self.local
        if not task.decides:
            return
        if task.looks_up:
            text.add(f"{local.value} = {self.fields.read(task.routers[0].looked_up)}")
        for router in task.routers:
            if router.tool is not None:
                arguments = pulled_arguments(self.layout, router.tool)
                text.add(f"{local.answer} = {call(router.tool.name, arguments)}")
        keyword = "if"
        for node, pieces in piece.ways:
            with text.block(f"{keyword} {self._test(task, node)}:"):
                self.write(pieces)
            keyword = "elif"

    def _test(self, task: Task, node: str) -> str:
        if task.looks_up:
            return self._values(task.routers[0].values[node])
        token = self.layout.tokens[node]
        if task.routers:
            return f'"{token}" in {self.local.answer}["{GOTO}"]'
        return f'"{token}" in {self.fields.result}.get("{GOTO}", [])'

    def _values(self, values: tuple[str, ...]) -> str:
        return any_of(f"{self.local.value} == {one}" for one in values)


WhyNotSplit = Callable[[str, str], str]
"""Why calls of a tool cannot be answered before they run, given it and the tool that gives results.

Empty if they can.
"""


_LONGEST = 80_000
"""Characters of a program; the local server takes 100,000, and 20,000 nodes of a syntax tree."""


def compile_graph(
    spec: GraphSpec,
    nodes: Mapping[str, NodeOptions] | None = None,
    why_not_split: WhyNotSplit = lambda *_: "",
) -> Program:
    """Write the program for a graph.

    Args:
        spec: What `read_graph` returned.
        nodes: Options by node.
        why_not_split: Says of which nodes the calls do not run side by side.

    Returns:
        The program. The same graph gives the same text in every process.

    Raises:
        GraphNotSupported: If the graph does something that a program cannot.
        UsageError: If the options do not fit the graph.
    """
    options = nodes or {}
    _check_options(spec, options)
    toolbox = Toolbox(spec, options)
    local = Locals.take(toolbox.names)
    layout = _layout(spec, toolbox, local)
    layout, beside, anywhere = (
        _told_apart(_with_packets(one, toolbox), local, why_not_split)
        for one in (
            layout,
            replace(layout, is_wide=True),
            replace(layout, is_wide=True, takes_packets=True),
        )
    )
    simple, fields = is_simple(layout), layout.fields
    from_state, flags, ready = write_superstep(beside, local, toolbox.names)
    if len(from_state) > _LONGEST:  # then what somebody starts beside others runs after them
        beside = layout
        from_state, flags, ready = write_superstep(beside, local, toolbox.names)
    if simple:
        text = write_structured(layout, local)
    elif layout.is_parallel:
        text = from_state
    else:
        text, *_ = write_superstep(layout, local, toolbox.names)
    tools = _tools(anywhere, local)

    @cache
    def from_packets() -> Text:
        if anywhere.receivers == beside.receivers:
            return Text(from_state, tools)
        return Text(write_superstep(anywhere, local, toolbox.names)[0], tools)

    early: set[str] = set()
    if anywhere.split:
        routers = [one.name for one in tools.values() if one.role == "router"]
        early = {name for name in routers if not why_not_split(name, name)}
    return Program(
        at_start=Text(text, MappingProxyType(_tools(layout, local))),
        from_state=Text(from_state, MappingProxyType(_tools(beside, local))),
        from_packets=from_packets,
        entry=local.entry,
        flags=MappingProxyType(flags),
        ready=MappingProxyType(ready),
        tools=MappingProxyType(tools),
        receivers=layout.receivers,
        variables=fields.variables,
        tokens=layout.tokens,
        keys=fields.keys,
        state=fields.state,
        plans=fields.plans,
        kind="structured" if simple else "superstep",
        overwritable=fields.overwritable,
        packets=local.packets,
        result_of=local.result_of if anywhere.split else None,
        early=frozenset(early),
        waiting=_waiting(beside, early),
        parses=any(one.internal_tool == PARSE_WITH_AI for one in options.values()),
    )


def _waiting(layout: Layout, early: Collection[str]) -> frozenset[str]:
    """Nodes that wait for others of their step, or whose routers do."""
    split = layout.split
    return frozenset(
        node
        for node, task in layout.tasks.items()
        if node not in split
        or any(
            one.tool is not None and one.tool.name not in early
            for one in (*task.routers, *task.fused)
        )
    )


def _tools(layout: Layout, local: Locals) -> dict[str, ToolSpec]:
    tools = {tool.name: tool for tool in layout.tools}
    if layout.split:
        tools[local.result_of] = _result_of(local.result_of)
    return tools


def _with_packets(layout: Layout, toolbox: Toolbox) -> Layout:
    """A layout whose tools take the packets that may come."""
    tasks = dict(layout.tasks)
    for node in layout.in_order(layout.receivers):
        tasks[node] = replace(tasks[node], tool=toolbox.for_packets(node))
    layout = replace(layout, tasks=MappingProxyType(tasks))
    return replace(layout, fields=replace(layout.fields, overwritable=layout.overwritable()))


def _told_apart(layout: Layout, local: Locals, why_not: WhyNotSplit) -> Layout:
    """A layout whose tasks say why their calls do not run side by side."""
    if not layout.is_parallel:
        return layout
    tasks = {node: _split(task, local, why_not) for node, task in layout.tasks.items()}
    return replace(layout, tasks=MappingProxyType(tasks))


def _split(task: Task, local: Locals, why_not: WhyNotSplit) -> Task:
    """A task with the reason why its calls do not run side by side, if there is one."""
    if task.tool is None:
        return task
    is_own = task.internal is not None
    why = "the service answers it" if is_own else why_not(task.tool.name, local.result_of)
    return replace(task, tool=replace(task.tool, not_split=why))


def _result_of(name: str) -> ToolSpec:
    handle = Parameter(HANDLE, None, "handle", {"type": "string"})
    return ToolSpec(
        name=name,
        role="result",
        node="",
        branch=None,
        parameters=(handle,),
        description="Gives the result of a call that runs beside others.",
        writes=(),
        definite=frozenset(),
    )


def _layout(spec: GraphSpec, toolbox: Toolbox, local: Locals) -> Layout:
    return Layout(
        spec=spec,
        start=_task(spec, toolbox, START),
        tasks={node: _task(spec, toolbox, node) for node in toolbox.nodes},
        tokens=MappingProxyType({node: f"{one.name}:" for node, one in toolbox.nodes.items()}),
        fields=_fields(spec, toolbox, local),
    )


def _task(spec: GraphSpec, toolbox: Toolbox, node: str) -> Task:
    option = toolbox.option(node)
    routers = tuple(_router(spec, one) for one in toolbox.routers.get(node, ()))
    fused = tuple(one for one in routers if option.fuse_router and one.tool is not None)
    known = spec.nodes.get(node)
    return Task(
        node=node,
        tool=toolbox.nodes.get(node),
        internal=option.internal_tool,
        edges=tuple(target for source, target in spec.edges if source == node and target != END),
        routers=tuple(one for one in routers if one not in fused),
        fused=fused,
        has_handler=known is not None and known.error_handler is not None,
        is_deferred=known is not None and known.defer,
    )


def _router(spec: GraphSpec, router: RouterTool) -> Router:
    if router.field is None:
        return Router(router.tool)
    _check_field_router(spec, router.branch, router.field)
    values: dict[str, list[str]] = {}
    for value, target in router.field.routes.items():
        text = ascii(encode(value, f"A route of {router.field!r}"))
        values.setdefault(target, []).append(text)
    return Router(None, router.field.field, {node: tuple(ones) for node, ones in values.items()})


def _fields(spec: GraphSpec, toolbox: Toolbox, local: Locals) -> Fields:
    take, keys = toolbox.names.take, toolbox.keys
    variables = {field: take(f"in_{keys[field]}") for field in spec.channels}
    state = {field: take(f"s_{keys[field]}") for field in spec.channels}
    return Fields(
        keys=MappingProxyType({field: keys[field] for field in spec.channels}),
        state=MappingProxyType(state),
        variables=MappingProxyType(variables),
        plans=MappingProxyType({field: plan_of(one) for field, one in spec.channels.items()}),
        overwritable=frozenset(),
        result=local.result,
    )


def _check_options(spec: GraphSpec, options: Mapping[str, NodeOptions]) -> None:
    for node, option in options.items():
        if node not in spec.nodes:
            known = ", ".join(repr(one) for one in spec.nodes)
            msg = f"`nodes` has options for {node!r}, which is no node. The nodes are {known}."
            raise UsageError(msg)
        if not isinstance(option, NodeOptions):
            msg = (
                f"The options of node {node!r} are a `NodeOptions`; got "
                f"{plain(repr(option), limit=80)}. Write {{{node!r}: {_meant(option)}}}."
            )
            raise UsageError(msg)
        internal = option.internal_tool
        if internal is not None and internal not in INTERNAL_TOOLS:
            msg = (
                f"`NodeOptions(internal_tool={internal!r})` of node {node!r}: the service's own "
                f"tools are {', '.join(INTERNAL_TOOLS)}."
            )
            raise UsageError(msg)


def _meant(option: object) -> str:
    """What to write in place of options that are something else."""
    names = [one.name for one in dataclasses.fields(NodeOptions)]
    given = option if isinstance(option, Mapping) else {}
    known = [f"{name}={plain(repr(given[name]), limit=80)}" for name in names if name in given]
    return f"NodeOptions({', '.join(known) or 'reads=[…]'})"


def _check_field_router(spec: GraphSpec, branch: Branch, router: FieldRouter) -> None:
    place, edge = f"{router!r} after {branch.source!r}", (branch.source, branch.name)
    if router.field not in spec.channels or router.field not in branch.input_fields:
        msg = f"{place} looks up `{router.field}`, which is no field of the state. Name a field."
        raise GraphNotSupported(msg, edge=edge)
    if plan_of(spec.channels[router.field]).kind == "log":
        msg = (
            f"{place} looks up `{router.field}`, whose reducer the program does not know. Use a "
            "function as the router."
        )
        raise GraphNotSupported(msg, edge=edge)
    if branch.ends is not None:
        msg = f"{place} has a path map as well. Leave the path map out: its routes are one."
        raise GraphNotSupported(msg, edge=edge)
    for target in router.routes.values():
        if target not in spec.nodes and target != END:
            msg = f"{place} leads to {target!r}, which is no node. Name a node or END."
            raise GraphNotSupported(msg, edge=edge)
