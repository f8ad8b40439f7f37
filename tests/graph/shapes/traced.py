"""A state that keeps a trace of its nodes, for graphs that test only edges."""

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import StateGraph


class Traced(TypedDict, total=False):
    trace: Annotated[list[str], operator.add]
    n: int


Node = Callable[[Traced], dict[str, Any]]


def visit(name: str) -> Node:
    """A node that adds its name to the trace."""

    def node(_state: Traced) -> dict[str, Any]:
        return {"trace": [name]}

    return node


def count(name: str) -> Node:
    """A node that adds its name to the trace and increments `n`."""

    def node(state: Traced) -> dict[str, Any]:
        return {"trace": [name], "n": state.get("n", 0) + 1}

    return node


def traced(*names: str, **nodes: Any) -> Any:
    """A graph with nodes that add their names to the trace, and with other nodes."""
    graph: Any = StateGraph(Traced)
    for name in names:
        graph.add_node(name, visit(name))
    for name, node in nodes.items():
        graph.add_node(name, node)
    return graph


def connect(graph: Any, *edges: str) -> Any:
    """Add edges written as `"a>b"`; `__start__` and `__end__` as LangGraph names them."""
    for edge in edges:
        source, _, target = edge.partition(">")
        graph.add_edge(source, target)
    return graph
