"""The graph that is killed. Each of its thirty nodes notes its input.

It has a linear part, a loop, branches with a join, a router, an interrupt, packets, and a linear
end. No note occurs twice in one run, so a call that ran twice is visible.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

Note = Callable[[str], None]

ARMS = [f"arm_{number}" for number in range(6)]
FIRST = [f"first_{number}" for number in range(7)]
LAST = [f"last_{number}" for number in range(5)]
LAPS = ["lap_in", "lap_work", "lap_out"]
QUESTION = "Go on?"
GIVEN = {"text": ">", "laps": 0}


def longest(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """A reducer that the program does not know, so the client applies it."""
    return {key: max(one.get(key, ""), other.get(key, ""), key=len) for key in {*one, *other}}


@dataclass
class Card:
    """A value of a class that savers do not know."""

    answer: str


class State(TypedDict, total=False):
    text: str
    laps: int
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    best: Annotated[dict[str, str], longest]
    card: Card
    messages: Annotated[list[AnyMessage], add_messages]


class Nodes:
    """Nodes and routers. Each calls `note` as its side effect.

    Args:
        note: Called with the name and the input of each call.
    """

    def __init__(self, note: Note) -> None:
        self.note = note

    def linear(self, name: str) -> Callable[[State], State]:
        note = self.note

        def run(state: State) -> State:
            text = state["text"] + name[-1]
            note(f"{name} {text}")
            return {"text": text, "log": [name], "best": {"text": text}}

        return run

    def arm(self, name: str) -> Callable[[State], State]:
        note = self.note

        def run(state: State) -> State:
            note(f"{name} {state['text']}")
            return {"log": [name], "total": len(name)}

        return run

    def lap_out(self, state: State) -> State:
        self.note(f"lap_out {state['text']}")
        return {"laps": state["laps"] + 1}

    def again(self, state: State) -> Literal["lap_in", "fan"]:
        self.note(f"again {state['laps']}")
        return "lap_in" if state["laps"] < 3 else "fan"

    def side(self, state: State) -> Literal["left", "right", "middle"]:
        self.note(f"side {state['total']}")
        return "right" if state["total"] > 20 else "left"

    def ask(self, state: State) -> State:
        answer = interrupt(QUESTION)
        self.note(f"ask {state['text']}")
        said = HumanMessage(answer, id="said")
        return {"card": Card(answer), "messages": [said], "log": ["ask"]}

    def gather(self, state: State) -> State:
        text = f"{state['text']}{state['card'].answer}{state['messages'][0].text}"
        self.note(f"gather {text}")
        return {"text": text, "log": ["gather"]}

    def pieces(self, state: State) -> list[Send]:
        self.note(f"pieces {state['text']}")
        return [Send("piece", {"number": number}) for number in range(4)]

    def piece(self, packet: dict[str, int]) -> State:
        self.note(f"piece {packet['number']}")
        return {"log": [f"piece {packet['number']}"], "total": packet["number"]}


def graph(note: Note) -> "StateGraph[Any, Any, Any, Any]":
    """Make the graph."""
    nodes = Nodes(note)
    made: Any = StateGraph(State)
    linears = [*FIRST, *LAPS[:2], "fan", "joined", "left", "right", "middle", "split"]
    for name in [*linears, *LAST]:
        made.add_node(name, nodes.linear(name))
    for name in ARMS:
        made.add_node(name, nodes.arm(name))
        made.add_edge("fan", name)
    for node in (nodes.lap_out, nodes.ask, nodes.piece, nodes.gather):
        made.add_node(node)
    for chain in ([START, *FIRST, *LAPS], ["piece", "gather", *LAST, END], ["ask", "split"]):
        for source, target in pairwise(chain):
            made.add_edge(source, target)
    made.add_conditional_edges("lap_out", nodes.again)
    made.add_edge(ARMS, "joined")
    made.add_conditional_edges("joined", nodes.side)
    for name in ("left", "right", "middle"):
        made.add_edge(name, "ask")
    made.add_conditional_edges("split", nodes.pieces, ["piece"])
    return made  # type: ignore[no-any-return]
