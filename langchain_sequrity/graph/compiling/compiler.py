"""A graph as a program: its tools are laid out, then one of two generators writes the text."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from langgraph.graph import END, START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.carrying.channels import plan_of
from langchain_sequrity.graph.carrying.values import encode
from langchain_sequrity.graph.compiling.fields import Fields
from langchain_sequrity.graph.compiling.layout import Layout, Router, Task
from langchain_sequrity.graph.compiling.names import INTERNAL_TOOLS
from langchain_sequrity.graph.compiling.structured import is_simple, write_structured
from langchain_sequrity.graph.compiling.superstep import write_superstep
from langchain_sequrity.graph.compiling.toolbox import RouterTool, Toolbox
from langchain_sequrity.graph.compiling.writing import Locals
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import (
    HANDLE,
    PARSE_WITH_AI,
    Parameter,
    Program,
    Text,
    ToolSpec,
)
from langchain_sequrity.graph.reading.spec import Branch, GraphSpec

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
