"""Drawings of a turn: the flow of its data, and a graph's run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from langchain_sequrity.display.flow import (
    Arrow,
    Flow,
    FlowCall,
    Shape,
    Vertex,
    flow_of_calls,
)
from langchain_sequrity.local.console.recorder import RecordedSession
from langchain_sequrity.local.console.views import CallView, TurnView, ValueView, way_of

_START = "START"
_ROUTER = "__from__"  # in the names of routers' tools
_MOST_STEPS = 6
_KINDS = {"producer": "producers", "tag": "tags", "consumer": "consumers"}


def turn_flow(turn: TurnView) -> Flow:
    """The flow of data in a turn: which tools the values of each call come from."""
    tools_by_tag = _given_labels(turn)
    calls = (
        FlowCall(
            call.tool,
            call.verdict,
            call.tone,  # type: ignore[arg-type] # one of three words
            {value.name: _labels(value, tools_by_tag) for value in call.values},
            call.rules[0].text if call.rules and call.tone == "bad" else "",
        )
        for call in turn.calls
    )
    value = None if turn.value is None else _labels(turn.value, tools_by_tag)
    return flow_of_calls("By the labels of values", calls, value)


def _given_labels(turn: TurnView) -> dict[str, list[str]]:
    """For each tag, the tools whose results have it, although no argument of theirs did."""
    tools: dict[str, list[str]] = {}
    for call in turn.calls:
        received = {chip for value in call.values for chip in value.chips}
        for chip in call.result.chips if call.result else ():
            is_given = chip.label_kind == "tag" and chip not in received
            if is_given and call.tool not in tools.setdefault(chip.name, []):
                tools[chip.name].append(call.tool)
    return tools


def _labels(value: ValueView, tools_by_tag: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The labels of a value; if they name no producer, the tools that gave it its tags."""
    labels: dict[str, list[str]] = {"producers": [], "consumers": [], "tags": []}
    for chip in value.chips:
        labels[_KINDS[chip.label_kind]].append(chip.name)
    if not labels["producers"]:
        tools = (tool for tag in labels["tags"] for tool in tools_by_tag.get(tag, ()))
        labels["producers"] = [*dict.fromkeys(tools)]
    labels["consumers"] = labels["consumers"] or ["*"]
    return labels


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
        tone = "" if call is None else call.tone
        vertices.append(Vertex(name, name, tuple(lines), shape, tone))  # type: ignore[arg-type] # one of three words
    arrows = [Arrow(*ends, _listed(ran)) for ends, ran in moves.items()]
    return Flow("Steps", tuple(vertices), tuple(arrows))


def _listed(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_STEPS]))
    return (
        f"{listed} and {len(numbers) - _MOST_STEPS} more" if len(numbers) > _MOST_STEPS else listed
    )
