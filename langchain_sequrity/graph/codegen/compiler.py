"""A graph as a program: which generator writes it, and the tools that it calls."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache, partial
from types import MappingProxyType

from langgraph.graph import END, START

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.codegen.program_text import (
    LocalVariables,
    write_structured,
    write_superstep,
)
from langchain_sequrity.graph.codegen.tools import ProgramTask, TaskGraph, Toolbox
from langchain_sequrity.graph.limits import PROGRAM_CHARACTERS
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import (
    HANDLE,
    BeginsAt,
    FieldVariables,
    GraphProgram,
    Parameter,
    ProgramText,
    ToolSpec,
)
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI

WhyNotSplit = Callable[[str, str], str]
"""Takes the names of a tool and of the tool that gives results.

Returns why the tool's calls run one after the other; empty if they run in parallel.
"""


def compile_graph(
    spec: GraphSpec,
    options: Mapping[str, NodeOptions] = MappingProxyType({}),
    why_not_split: WhyNotSplit = lambda *_: "",
    *,
    may_branch: bool = True,
) -> GraphProgram:
    """Write the program for a graph.

    Args:
        spec: What `read_graph` returned.
        options: Options by node.
        why_not_split: Gives the reason why calls of a tool do not run side by side.
        may_branch: Whether the program may decide by what a node changed in place. Otherwise a
            field that a node may change has the node's labels, changed or not.

    Returns:
        The program. The same graph gives the same text in every process.

    Raises:
        GraphNotSupported: If a program cannot do the same as the graph.
        UsageError: If the options do not fit the graph.
    """
    _check_options(spec, options)
    toolbox = Toolbox(spec, options)
    local = LocalVariables.allocate(toolbox.names)
    with_packets = partial(_with_packets, toolbox=toolbox, local=local, why_not=why_not_split)
    base = TaskGraph(
        spec=spec,
        start=_task(spec, toolbox, START),
        tasks={node: _task(spec, toolbox, node) for node in toolbox.nodes},
        tokens=MappingProxyType({node: f"{tool.name}:" for node, tool in toolbox.nodes.items()}),
        fields=_field_variables(toolbox, local, may_branch=may_branch),
    )
    graph, wide = with_packets(base), with_packets(replace(base, is_wide=True))
    widest = with_packets(replace(base, is_wide=True, takes_packets=True))
    wide_text, flags, ready = write_superstep(wide, local, toolbox.names)
    if len(wide_text) > PROGRAM_CHARACTERS:
        # Too long: in the program without parallel starts, nodes that were started from outside run
        # after the others.
        wide = graph
        wide_text, flags, ready = write_superstep(wide, local, toolbox.names)
    structured = text = write_structured(graph, local)
    if text is None and graph.is_parallel:
        text = wide_text
    elif text is None:
        text, *_ = write_superstep(graph, local, toolbox.names)
    tools = _tools(widest, local)

    @cache
    def that_begins_at(begins_at: BeginsAt) -> ProgramText:
        if begins_at == "start":
            return ProgramText(text, MappingProxyType(_tools(graph, local)))
        if begins_at == "state":
            return ProgramText(wide_text, MappingProxyType(_tools(wide, local)))
        if widest.receivers == wide.receivers:
            return ProgramText(wide_text, tools)
        return ProgramText(write_superstep(widest, local, toolbox.names)[0], tools)

    routers = [tool.name for tool in tools.values() if tool.role == "router" and widest.split_nodes]
    early = frozenset(name for name in routers if not why_not_split(name, name))
    return GraphProgram(
        that_begins_at=that_begins_at,
        entry=local.entry,
        flags=MappingProxyType(flags),
        ready=MappingProxyType(ready),
        tools=MappingProxyType(tools),
        receivers=graph.receivers,
        fields=graph.fields,
        tokens=graph.tokens,
        kind="superstep" if structured is None else "structured",
        packets=local.packets,
        result_of=local.result_of if widest.split_nodes else None,
        early=early,
        waiting=_waiting_nodes(wide, early),
        parses=any(option.internal_tool == PARSE_WITH_AI for option in options.values()),
        may_stop=bool(graph.receivers) or graph.longest_run() is None,
    )


def _waiting_nodes(graph: TaskGraph, early: Collection[str]) -> frozenset[str]:
    """Nodes that wait for others of their step, or whose routers wait."""
    return frozenset(
        node
        for node, task in graph.tasks.items()
        if node not in graph.split_nodes
        or any(
            router.tool is not None and router.tool.name not in early
            for router in (*task.routers, *task.fused)
        )
    )


def _tools(graph: TaskGraph, local: LocalVariables) -> dict[str, ToolSpec]:
    tools = {tool.name: tool for tool in graph.tools}
    if graph.split_nodes:
        tools[local.result_of] = ToolSpec(
            name=local.result_of,
            role="result",
            node="",
            parameters=(Parameter(HANDLE, None, "handle", {"type": "string"}),),
            description="Gives the result of a call that runs beside others.",
        )
    return tools


def _with_packets(
    graph: TaskGraph, toolbox: Toolbox, local: LocalVariables, why_not: WhyNotSplit
) -> TaskGraph:
    """The graph, with tools that take the possible packets, and run side by side if they may."""
    tasks, is_parallel = dict(graph.tasks), graph.is_parallel
    for node in graph.in_order(graph.receivers):
        tasks[node] = replace(tasks[node], tool=toolbox.for_packets(node))
    for node, task in tasks.items():
        if is_parallel:
            reason = "the service answers it"
            if task.internal is None:
                reason = why_not(task.tool.name, local.result_of)
            tasks[node] = replace(task, tool=replace(task.tool, not_split=reason))
    graph = replace(graph, tasks=MappingProxyType(tasks))
    return replace(graph, fields=replace(graph.fields, overwritable=graph.overwritable()))


_START_TOOL = ToolSpec(name="", role="start", node=START)


def _task(spec: GraphSpec, toolbox: Toolbox, node: str) -> ProgramTask:
    option = toolbox.option(node)
    routers = tuple(toolbox.routers.get(node, ()))
    fused = tuple(router for router in routers if option.fuse_router and router.tool is not None)
    node_spec = spec.nodes.get(node)
    return ProgramTask(
        node=node,
        tool=toolbox.nodes.get(node, _START_TOOL),
        internal=option.internal_tool,
        edges=tuple(target for source, target in spec.edges if source == node and target != END),
        routers=tuple(router for router in routers if router not in fused),
        fused=fused,
        has_handler=node_spec is not None and node_spec.error_handler is not None,
        is_deferred=node_spec is not None and node_spec.defer,
    )


def _field_variables(
    toolbox: Toolbox, local: LocalVariables, *, may_branch: bool
) -> FieldVariables:
    variables = toolbox.names.unique_names("in_{}", toolbox.keys)
    state = toolbox.names.unique_names("s_{}", toolbox.keys)
    return FieldVariables(
        keys=MappingProxyType(toolbox.keys),
        state=MappingProxyType(state),
        variables=MappingProxyType(variables),
        plans=MappingProxyType(toolbox.plans),
        overwritable=frozenset(),
        result=local.result,
        may_branch=may_branch,
    )


def _check_options(spec: GraphSpec, options: Mapping[str, NodeOptions]) -> None:
    for node, option in options.items():
        if node not in spec.nodes:
            nodes = ", ".join(map(repr, spec.nodes))
            msg = f"`nodes` has options for {node!r}, which is not a node. The nodes are {nodes}."
            raise UsageError(msg)
        if not isinstance(option, NodeOptions):
            msg = (
                f"The options of node {node!r} must be a `NodeOptions`; got "
                f"{plain(repr(option), limit=80)}. Write {{{node!r}: NodeOptions(reads=[…])}}."
            )
            raise UsageError(msg)
        internal = option.internal_tool
        if internal is not None and internal not in INTERNAL_TOOLS:
            msg = (
                f"`NodeOptions(internal_tool={internal!r})` of node {node!r} is not a tool of the "
                f"service. Its tools are {', '.join(INTERNAL_TOOLS)}."
            )
            raise UsageError(msg)
