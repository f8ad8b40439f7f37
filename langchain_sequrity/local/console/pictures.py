"""Drawings of a turn: the flow of its data, and the steps of a graph's run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from langchain_sequrity.display.flow import Flow, FlowCall, flow_of_calls
from langchain_sequrity.local.console.recorder import RecordedSession
from langchain_sequrity.local.console.views import CallView, TurnView, ValueView, way_of

_KINDS = {"producer": "producers", "tag": "tags", "consumer": "consumers"}


def turn_flow(turn: TurnView) -> Flow:
    """The flow of data in a turn: which tools the values of each call come from."""
    given = _given_labels(turn)
    calls = (
        FlowCall(
            call.tool,
            call.verdict,
            call.tone,  # type: ignore[arg-type] # one of three words
            {value.name: _labels(value, given) for value in call.values},
            call.rules[0].text if call.rules and call.tone == "bad" else "",
        )
        for call in turn.calls
    )
    value = None if turn.value is None else _labels(turn.value, given)
    return flow_of_calls("Flow of data", calls, value)


def _given_labels(turn: TurnView) -> dict[str, list[str]]:
    """For each tag, the tools whose results have it, although no argument of theirs did."""
    tools: dict[str, list[str]] = {}
    for call in turn.calls:
        received = {chip for value in call.values for chip in value.chips}
        for chip in call.result.chips if call.result else ():
            is_given = chip.kind == "tag" and chip not in received
            if is_given and call.tool not in tools.setdefault(chip.name, []):
                tools[chip.name].append(call.tool)
    return tools


def _labels(value: ValueView, given: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The labels of a value; if they name no producer, the tools that gave it its tags."""
    labels: dict[str, list[str]] = {"producers": [], "consumers": [], "tags": []}
    for chip in value.chips:
        labels[_KINDS[chip.kind]].append(chip.name)
    if not labels["producers"]:
        tools = (tool for tag in labels["tags"] for tool in given.get(tag, ()))
        labels["producers"] = [*dict.fromkeys(tools)]
    labels["consumers"] = labels["consumers"] or ["*"]
    return labels


@dataclass(frozen=True, slots=True)
class Step:
    """A call of a graph's run.

    Attributes:
        number: Its number, from 1.
        call: The call of the node.
        times: How often the node ran before and with this call.
    """

    number: int
    call: CallView
    times: int


def graph_steps(session: RecordedSession, turn: TurnView) -> list[Step]:
    """The steps of a graph's run; none for a chat."""
    return [*_steps(turn)] if way_of(session) == "graph" else []


def _steps(turn: TurnView) -> Iterator[Step]:
    times: dict[str, int] = {}
    for call in turn.calls:
        times[call.tool] = times.get(call.tool, 0) + 1
        yield Step(call.number, call, times[call.tool])
