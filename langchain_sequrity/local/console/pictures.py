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

if TYPE_CHECKING:
    from langchain_sequrity.display.tables import Tone

_START = "START"
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
        flow: The nodes, and from which to which the run went; nodes that did not run, too.
        steps: Its calls in order.
    """

    flow: Flow
    steps: tuple[Step, ...]


def graph_run(session: RecordedSession, turn: TurnView) -> GraphRun | None:
    """The run of a graph; `None` for a chat."""
    if way_of(session) != "graph":
        return None
    steps = tuple(_steps(turn))
    return GraphRun(_graph_flow(session, steps), steps)


def _steps(turn: TurnView) -> Iterator[Step]:
    times = Counter[str]()
    for call in turn.calls:
        times[call.tool] += 1
        yield Step(call.tool, call, times[call.tool])


def _graph_flow(session: RecordedSession, steps: Sequence[Step]) -> Flow:
    numbers: dict[str, list[int]] = {}
    moves: dict[tuple[str, str], list[int]] = {}
    before = _START
    for number, step in enumerate(steps, 1):
        numbers.setdefault(step.key, []).append(number)
        moves.setdefault((before, step.key), []).append(number)
        before = step.key
    last = {step.key: step.call for step in steps}
    names = [str(tool.get("function", {}).get("name", "")) for tool in session.tools]
    vertices = [Vertex(_START, "START", shape="step")]
    for name in dict.fromkeys(filter(None, [*numbers, *names])):
        shape: Shape = "router" if _ROUTER in name else "call"
        call, ran = last.get(name), numbers.get(name, [])
        lines = [f"step {_listed(ran)}" if ran else "did not run"]
        if call is not None and call.tone == "bad":
            lines.append(call.verdict)
        tone: Tone = "" if call is None else call.tone
        vertices.append(Vertex(name, name, tuple(lines), shape, tone))
    arrows = [Arrow(*ends, _listed(ran)) for ends, ran in moves.items()]
    return Flow("Steps", tuple(vertices), tuple(arrows))


def _listed(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_STEPS]))
    return (
        f"{listed} and {len(numbers) - _MOST_STEPS} more" if len(numbers) > _MOST_STEPS else listed
    )
