"""Drawings of a turn: the flow of its data, and a graph's run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_sequrity.display.flow import (
    Arrow,
    Flow,
    FlowCall,
    Shape,
    Vertex,
    flow_of_calls,
)
from langchain_sequrity.local.console.recorder import RecordedSession, RecordedTurn
from langchain_sequrity.local.console.views import CallView, TurnView, way_of
from langchain_sequrity.wire.graph_edges import (
    ANY_NODE,
    GRAPH_END,
    GRAPH_START,
    GraphEdge,
    edges_in,
)

if TYPE_CHECKING:
    from langchain_sequrity.display.tables import Tone

_ROUTER = "__from__"  # in the names of routers' tools
_MOST_STEPS = 6


def turn_flow(recorded: RecordedTurn, turn: TurnView) -> Flow:
    """The flow of data in a turn: which tools the values of each call come from.

    Args:
        recorded: The turn.
        turn: The same as its page shows it.
    """
    calls = (
        FlowCall(
            view.tool,
            view.verdict,
            view.tone,
            {name: value.labels.to_wire() for name, value in call.check.call.arguments.items()},
            view.rules[0].text if view.rules and view.tone == "bad" else "",
            result=None if call.result is None else call.result.labels.to_wire(),
        )
        for call, view in zip(recorded.calls, turn.calls, strict=False)  # new calls may come
    )
    value = recorded.program.value if recorded.program is not None else None
    labels = None if value is None else value.labels.to_wire()
    return flow_of_calls("By the labels of values", calls, labels)


# Graphs


@dataclass(frozen=True, slots=True)
class Step:
    """A call of a graph's run.

    Attributes:
        key: The key of its node in the drawing.
        call: The call.
        times: How often the node ran before and with this call.
    """

    key: str
    call: CallView
    times: int


@dataclass(frozen=True, slots=True)
class GraphRun:
    """A run of a graph.

    Attributes:
        flow: The graph, with the steps in which its nodes ran, and those that did not run.
        steps: Its calls in order.
    """

    flow: Flow
    steps: tuple[Step, ...]


def graph_run(session: RecordedSession, recorded: RecordedTurn, turn: TurnView) -> GraphRun | None:
    """The run of a graph; `None` if the session has another program.

    Args:
        session: The session.
        recorded: Its turn.
        turn: The same as its page shows it.
    """
    if way_of(session) != "graph":
        return None
    steps = tuple(_steps(turn))
    program = recorded.program
    edges = () if program is None else edges_in(program.programs[0])
    tools = (str(tool.get("function", {}).get("name", "")) for tool in session.tools)
    names = dict.fromkeys([*(step.key for step in steps), *filter(None, tools)])
    return GraphRun(_graph_flow(tuple(names), edges, steps), steps)


def _steps(turn: TurnView) -> Iterator[Step]:
    times = Counter[str]()
    for call in turn.calls:
        times[call.tool] += 1
        yield Step(call.tool, call, times[call.tool])


def _graph_flow(names: Sequence[str], edges: Sequence[GraphEdge], steps: Sequence[Step]) -> Flow:
    vertex_keys = {*names, GRAPH_START, GRAPH_END}
    moves: dict[tuple[str, str], list[int]] = {
        edge: [] for edge in edges if vertex_keys.issuperset(edge)
    }
    for number, move in _moves(edges, steps):
        moves.setdefault(move, []).append(number)
    open_ended = {edge.source for edge in edges if edge.target == ANY_NODE}
    vertices = [Vertex(GRAPH_START, "START", shape="step")]
    for name in names:
        ran = [number for number, step in enumerate(steps, 1) if step.key == name]
        last = steps[ran[-1] - 1].call if ran else None
        lines = [f"step{'s' if len(ran) > 1 else ''} {_listed(ran)}" if ran else "did not run"]
        tone: Tone = last.tone if last else ""
        lines += [last.verdict] if last and tone == "bad" else []
        lines += ["any node may follow"] if name in open_ended else []
        shape: Shape = "router" if _ROUTER in name else "call"
        vertices.append(Vertex(name, name, tuple(lines), shape, tone))
    if any(target == GRAPH_END for _, target in moves):
        vertices.append(Vertex(GRAPH_END, "END", shape="step"))
    arrows = (
        Arrow(*ends, _listed(ran), tone=steps[ran[-1] - 1].call.tone if ran else "")
        for ends, ran in moves.items()
    )
    return Flow("Steps", tuple(vertices), tuple(arrows))


def _moves(
    edges: Sequence[GraphEdge], steps: Sequence[Step]
) -> Iterator[tuple[int, tuple[str, str]]]:
    """For each step: from where an edge led to it; without such an edge, from the step before.

    A tool that no edge names, such as that for results of parallel nodes, is not moved to.
    """
    sources: dict[str, set[str]] = {}
    for edge in edges:
        sources.setdefault(edge.target, set()).add(edge.source)
    named = {end for edge in edges for end in edge}
    last = {GRAPH_START: 0}
    before = GRAPH_START
    for number, step in enumerate(steps, 1):
        if edges and step.key not in named:
            continue
        ran = last.keys() & sources.get(step.key, frozenset())
        yield number, (max(ran, key=last.__getitem__, default=before), step.key)
        last[step.key], before = number, step.key


def _listed(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_STEPS]))
    return (
        f"{listed} and {len(numbers) - _MOST_STEPS} more" if len(numbers) > _MOST_STEPS else listed
    )
