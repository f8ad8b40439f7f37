"""A graph as a program: its tools are laid out, then one of two generators writes the text."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from langgraph.graph import END, START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph import _langgraph
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
from langchain_sequrity.graph.program import PARSE_WITH_AI, RECURSION_LIMIT, Program
from langchain_sequrity.graph.reading.spec import Branch, GraphSpec


def compile_graph(spec: GraphSpec, nodes: Mapping[str, NodeOptions] | None = None) -> Program:
    """Write the program for a graph.

    Args:
        spec: What `read_graph` returned.
        nodes: Options by node.

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
    simple = is_simple(layout)
    write = write_structured if simple else write_superstep
    fields = layout.fields
    return Program(
        text=write(layout, local, toolbox.names),
        tools=MappingProxyType({tool.name: tool for tool in layout.tools}),
        variables=fields.variables,
        tokens=layout.tokens,
        keys=fields.keys,
        state=fields.state,
        plans=fields.plans,
        kind="structured" if simple else "superstep",
        overwritable=fields.overwritable,
        came=local.came if layout.joins else None,
        parses=any(one.internal_tool == PARSE_WITH_AI for one in options.values()),
    )


def _layout(spec: GraphSpec, toolbox: Toolbox, local: Locals) -> Layout:
    layout = Layout(
        spec=spec,
        start=_task(spec, toolbox, START),
        tasks={node: _task(spec, toolbox, node) for node in toolbox.nodes},
        tokens=MappingProxyType({node: f"{one.name}:" for node, one in toolbox.nodes.items()}),
        fields=_fields(spec, toolbox, local),
    )
    tasks = dict(layout.tasks)
    for node in layout.in_order(layout.receivers):
        tasks[node] = replace(tasks[node], tool=toolbox.for_packets(node))
    layout = replace(layout, tasks=MappingProxyType(tasks))
    return replace(layout, fields=replace(layout.fields, overwritable=layout.overwritable()))


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
    left = f"{RECURSION_LIMIT} - {local.steps}"
    return Fields(
        keys=MappingProxyType({field: keys[field] for field in spec.channels}),
        state=MappingProxyType(state),
        variables=MappingProxyType(variables),
        plans=MappingProxyType({field: plan_of(one) for field, one in spec.channels.items()}),
        counters=MappingProxyType(
            {
                field: f"{left} == 1" if _langgraph.is_flag(kind) else left
                for field, kind in spec.managed.items()
            }
        ),
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
