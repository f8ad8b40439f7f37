"""`LangGraphExecutor.explain()`: the tools of a graph, and the fields that they read and write."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from langgraph.graph import END, START
from pydantic_core import to_jsonable_python
from typing_extensions import override

from langchain_sequrity.display.flow import Arrow, Flow, Vertex
from langchain_sequrity.display.tables import Cell, Table, Tone
from langchain_sequrity.graph.analysis.reads_and_writes import field_router_of, whole_state
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec, NodeSpec
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import GraphProgram, ToolSpec
from langchain_sequrity.graph.tracing import (
    TracedCall,
    TracedRun,
    call_tone,
    rule_or_reason,
    verdict_words,
)
from langchain_sequrity.pictures import PictureMixin

if TYPE_CHECKING:
    import rich.table

_SENT = "what a Send carries besides the state fields"


@dataclass(frozen=True, slots=True)
class ExplainedTool:
    """A node or a router, as the policy sees it.

    Attributes:
        node: The node; of a router, the node it follows (START possible).
        router: Name of the router; `None` for a node.
        tool: Name of the tool in policies. `None`: the program decides without a call, or within
            the call of the node.
        parameters: Parameter → state field. `send_input` stands for what a `Send` carries besides
            the state fields.
        reads: State fields that it reads.
        reads_from: Source of `reads`: "declared", "source", "schema" or "everything".
        writes: State fields that it may write.
        definite: State fields that it writes each time.
        writes_from: Source of `writes`: the same words, or "annotation".
        routes: A router's answers → nodes; `None` if it may name any node.
        follows: Nodes that follow a node by its edges or its `Command`; `None` if any may.
        notes: Further remarks.
    """

    node: str
    router: str | None
    tool: str | None
    parameters: Mapping[str, str]
    reads: tuple[str, ...]
    reads_from: str
    writes: tuple[str, ...] = ()
    definite: tuple[str, ...] = ()
    writes_from: str = ""
    routes: Mapping[str, str] | None = None
    follows: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphExplanation(PictureMixin):
    """Result of `LangGraphExecutor.explain()`.

    Print it, show it in a notebook, or save its picture.

    Attributes:
        graph: Name of the graph.
        program: Form of its program: "structured" or "superstep".
        tools: Nodes in the graph's order, each with its routers after it.
        fsm: Section `fsm` of the `X-Config` that runs are sent with.
        entries: Nodes that edges from START lead to.
    """

    graph: str
    program: str
    tools: tuple[ExplainedTool, ...]
    fsm: Mapping[str, Any]
    entries: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON data."""
        json_data: dict[str, Any] = to_jsonable_python(self, fallback=dict)
        return json_data

    def _table(self) -> Table:
        notes = [f"{_tool_owner(tool)}: {note}" for tool in self.tools for note in tool.notes]
        fsm_fields = ", ".join(f"{name}={value!r}" for name, value in self.fsm.items())
        notes.append(f"X-Config, fsm: {fsm_fields}.")
        return Table(
            title=f"{self.graph}: {self.program} program",
            columns=("node", "tool", "reads", "writes", "then"),
            rows=tuple(_row(tool) for tool in self.tools),
            notes=tuple(notes),
            code=frozenset({"node", "tool", "reads", "writes", "then"}),
        )

    def __repr__(self) -> str:
        """A table."""
        return self._table().text()

    def __rich__(self) -> "rich.table.Table":
        """A rich table."""
        return self._table().rich()

    @override
    def _repr_html_(self) -> str:
        return self._table().html()

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Nodes, routers and edges."""
        return (self.flow(),)

    def flow(self, run: TracedRun | None = None) -> Flow:
        """Nodes, routers and edges, with what happened in a run.

        Args:
            run: A run of this graph, from a `Trace`. Each node then shows the steps in which it
                ran or was denied: the numbers of the calls in the trace.
        """
        steps = _steps(() if run is None else run.calls)
        title = f"{self.graph}: {self.program} program" if run is None else run.flows()[0].title
        vertices = [_vertex(tool, steps, has_run=run is not None) for tool in self.tools]
        arrows = [Arrow(START, _node_key(node)) for node in self.entries]
        arrows += [arrow for tool in self.tools for arrow in _arrows(tool)]
        ends = {end for arrow in arrows for end in (arrow.source, arrow.target)}
        start = [Vertex(START, "START", shape="step")] if START in ends else []
        end = [Vertex(_END_KEY, "END", shape="step")] if _END_KEY in ends else []
        keys = {vertex.key for vertex in (*start, *vertices, *end)}
        drawable = tuple(arrow for arrow in arrows if {arrow.source, arrow.target} <= keys)
        return Flow(title, (*start, *vertices, *end), drawable)


def explain(
    spec: GraphSpec,
    program: GraphProgram,
    options: Mapping[str, NodeOptions],
    fsm: Mapping[str, Any],
) -> GraphExplanation:
    """Explain a graph and its program.

    Args:
        spec: The graph.
        program: Its program.
        options: The options of its nodes.
        fsm: Section `fsm` of the `X-Config` that runs are sent with.
    """
    offered = program.offered.values()
    tools = {(tool.node, tool.branch): tool for tool in offered}
    tools |= {(router.node, router.branch): router for tool in offered for router in tool.fused}
    explained = list(_routers(spec, START, program, tools))
    for name, node in spec.nodes.items():
        tool = tools.get((name, None))
        option = options.get(name, NodeOptions())
        explained.append(
            _node(spec, node, tool)
            if tool and not tool.is_handover
            else _internal(spec, node, option)
        )
        explained += _routers(spec, name, program, tools)
    return GraphExplanation(
        spec.name, program.kind, tuple(explained), MappingProxyType(dict(fsm)), _edges(spec, START)
    )


def _node(spec: GraphSpec, node: NodeSpec, tool: ToolSpec) -> ExplainedTool:
    edges = _edges(spec, node.name)
    followers = None if tool.targets is None else (*edges, *sorted(tool.targets - set(edges)))
    return replace(
        _explained(tool),
        writes=tool.writes,
        definite=tuple(field for field in tool.writes if field in tool.definite),
        writes_from=tool.writes_from,
        follows=followers,
        notes=tuple(_notes(spec, node, tool)),
    )


def _internal(spec: GraphSpec, node: NodeSpec, option: NodeOptions) -> ExplainedTool:
    reads, writes = option.reads or (), option.writes or ()
    return ExplainedTool(
        node=node.name,
        router=None,
        tool=option.internal_tool,
        parameters={field: field for field in reads},
        reads=reads,
        reads_from="declared",
        writes=writes,
        definite=writes,
        writes_from="declared",
        follows=_edges(spec, node.name),
        notes=("The service runs its own tool; the node's code does not run.",),
    )


def _routers(
    spec: GraphSpec,
    source: str,
    program: GraphProgram,
    tools: Mapping[tuple[str, str | None], ToolSpec],
) -> Iterator[ExplainedTool]:
    for branch in (b for b in spec.branches if b.source == source):
        field_router = field_router_of(branch)
        if field_router is not None:
            yield ExplainedTool(
                node=source,
                router=branch.name,
                tool=None,
                parameters={},
                reads=(field_router.field,),
                reads_from="declared",
                routes={repr(value): node for value, node in field_router.routes.items()},
                notes=("The program looks the field up; no call is made.",),
            )
            continue
        tool = tools[source, branch.name]
        is_fused = tool.name not in program.offered
        notes = ["It runs within the call of its node."] if is_fused else []
        if tool.reads_from == "everything" and len(tool.parameters) > 1:
            notes.append(f"It {whole_state('reads', branch.input_schema, is_router=True)}")
        yield replace(
            _explained(tool),
            tool=None if is_fused else tool.name,
            routes=_routes(branch, tool),
            notes=tuple(notes),
        )


def _routes(branch: Branch, tool: ToolSpec) -> dict[str, str] | None:
    if branch.ends is not None:
        ends = branch.ends.items()
        return {answer if isinstance(answer, str) else repr(answer): node for answer, node in ends}
    return None if tool.targets is None else {node: node for node in sorted(tool.targets)}


def _notes(spec: GraphSpec, node: NodeSpec, tool: ToolSpec) -> Iterator[str]:
    if tool.reads_from == "everything" and len(tool.parameters) > 1:
        yield f"It {whole_state('reads', node.input_schema)}"
    if tool.writes_from == "everything" and len(spec.channels) > 1:
        yield f"It {whole_state('writes')}"
    if tool.fused:
        names = ", ".join(str(router.branch) for router in tool.fused)
        yield f"Its call also runs the routers ({names}), so it reads what they read."
    if node.error_handler is not None:
        yield "Its error handler runs within its call, so none of its writes is definite."
    if tool.not_split:
        yield f"It does not run side by side with others of its step: {tool.not_split}."
    if node.defer:
        yield "It waits until all other nodes are done."


def _edges(spec: GraphSpec, node: str) -> tuple[str, ...]:
    joins = [target for sources, target in spec.joins if node in sources]
    return tuple(dict.fromkeys([target for source, target in spec.edges if source == node] + joins))


def _explained(tool: ToolSpec) -> ExplainedTool:
    parameters = {p.name: p.field or _SENT for p in tool.parameters}
    return ExplainedTool(
        node=tool.node,
        router=tool.branch,
        tool=tool.name,
        parameters=MappingProxyType(parameters),
        reads=tuple(p.field for p in tool.parameters if p.field is not None),
        reads_from=tool.reads_from,
    )


# How it is shown.


def _row(tool: ExplainedTool) -> tuple[Cell, ...]:
    is_router = tool.router is not None
    writes = tuple(field if field in tool.definite else f"{field} (maybe)" for field in tool.writes)
    return (
        (f"  {_tool_owner(tool)}" if is_router else tool.node,),
        (tool.tool or "no call of its own",),
        _reads_cell(tool),
        () if is_router else (*writes, f"({tool.writes_from})") if writes else ("nothing",),
        _next_nodes(tool),
    )


def _reads_cell(tool: ExplainedTool) -> Cell:
    """The fields that are read, with the name of a parameter that differs."""
    names = {field: name for name, field in tool.parameters.items()}
    renamed = {field: name for field, name in names.items() if name != field}
    fields = tuple(
        f"{field} as {renamed[field]}" if field in renamed else field for field in tool.reads
    )
    send_input = (f"{names[_SENT]}: {_SENT}",) if _SENT in names else ()
    return (*(fields or ("nothing",)), f"({tool.reads_from})", *send_input)


def _next_nodes(tool: ExplainedTool) -> Cell:
    if tool.router is None:
        return ("any node",) if tool.follows is None else tuple(map(_node_title, tool.follows))
    if tool.routes is None:
        return ("any node",)
    return tuple(
        _node_title(node) if answer == node else f"{answer} → {_node_title(node)}"
        for answer, node in tool.routes.items()
    )


def _node_title(node: str) -> str:
    return "END" if node == END else node


def _tool_owner(tool: ExplainedTool) -> str:
    return tool.node if tool.router is None else f"{tool.router} after {tool.node}"


# How it is drawn.

_ANY = "any node may follow"
_END_KEY = END
_MOST_STEPS = 6
_Steps = Mapping[tuple[str | None, str], list[tuple[int, TracedCall]]]
"""Tool with its role → its calls in a run, with their numbers."""


def _steps(calls: Iterable[TracedCall]) -> _Steps:
    steps: dict[tuple[str | None, str], list[tuple[int, TracedCall]]] = {}
    for number, call in enumerate(calls, 1):
        steps.setdefault((call.role, call.tool), []).append((number, call))
    return steps


def _node_key(node: str) -> str:
    return node if node in (START, END) else f"node:{node}"


def _key(tool: ExplainedTool) -> str:
    return _node_key(tool.node) if tool.router is None else f"router:{tool.node}:{tool.router}"


def _vertex(tool: ExplainedTool, steps: _Steps, *, has_run: bool) -> Vertex:
    role = "node" if tool.router is None else "router"
    calls = steps.get((role, tool.tool or ""), [])
    title = tool.node if tool.router is None else tool.router
    names_tool = tool.tool is not None and tool.tool != title
    lines = [f"tool {tool.tool}"] if names_tool else []
    is_open = tool.follows is None if tool.router is None else tool.routes is None
    lines += [_ANY] if is_open else []
    if tool.tool is None:
        lines.insert(0, "no call of its own")
    elif has_run:
        lines = [*(_ran(calls) or ["not called"]), *lines]
    else:
        lines += [f"reads {', '.join(tool.reads)}"] if tool.reads else []
        lines += [f"writes {', '.join(tool.writes)}"] if tool.writes else []
    tones = {call_tone(call) for _, call in calls}
    tone: Tone = next((tone for tone in ("bad", "doubtful", "good") if tone in tones), "")
    return Vertex(_key(tool), title, tuple(lines), "router" if tool.router else "call", tone)


def _ran(calls: list[tuple[int, TracedCall]]) -> list[str]:
    """For each verdict: how often, and in which steps; of denied calls, the rule."""
    steps: dict[str, list[int]] = {}
    for number, call in calls:
        steps.setdefault(verdict_words(call), []).append(number)
    lines = [f"{verdict}: {_numbers(numbers)}" for verdict, numbers in steps.items()]
    rules = dict.fromkeys(rule_or_reason(call) for _, call in calls if call_tone(call) == "bad")
    return [*lines, *filter(None, rules)]


def _numbers(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_STEPS]))
    if len(numbers) == 1:
        return f"step {listed}"
    rest = len(numbers) - _MOST_STEPS
    return f"{len(numbers)} times, steps {listed}{f' and {rest:,} more' if rest > 0 else ''}"


def _arrows(tool: ExplainedTool) -> Iterator[Arrow]:
    """To a router from its node, and to all that may follow."""
    if tool.router is None:
        yield from (Arrow(_key(tool), _node_key(node)) for node in tool.follows or ())
        return
    yield Arrow(_node_key(tool.node), _key(tool))
    answers: dict[str, list[str]] = {}
    for answer, node in (tool.routes or {}).items():
        answers.setdefault(node, []).extend(
            [answer] if answer not in (node, _node_title(node)) else []
        )
    for node, texts in answers.items():
        yield Arrow(_key(tool), _node_key(node), ", ".join(texts))
