"""The edges of a graph, as comments in the program that is made from it.

Who runs the program gets nothing else of the graph; the local server's console draws them.
"""

import re
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

GRAPH_START, GRAPH_END = "__start__", "__end__"  # as LangGraph has them
ANY_NODE = "*"
_HEAD = "# Edges: "
_NEXT = "#   "
_WIDTH = 100
_MOST_EDGES = 200
_EDGE = re.compile(r"(\w{1,64}) -> (\w{1,64}|\*)", re.ASCII)


class GraphEdge(NamedTuple):
    """An edge between tools of a graph.

    Attributes:
        source: The tool of a node or router, or `__start__`.
        target: A tool, `__end__`, or `*` for any node.
    """

    source: str
    target: str


def edges_comment(edges: Iterable[GraphEdge]) -> list[str]:
    """Lines that name the edges; none if there are more than 200, which nobody could see drawn."""
    unique = dict.fromkeys(edges)
    if not unique or len(unique) > _MOST_EDGES:
        return []
    text = "; ".join(f"{edge.source}\0->\0{edge.target}" for edge in unique)
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=_HEAD, subsequent_indent=_NEXT, break_long_words=False
    )
    return [line.replace("\0", " ") for line in lines]


def edges_in(program: str) -> tuple[GraphEdge, ...]:
    """The edges that a program's comments name; none if it has no such comment."""
    lines = iter(program.split("\n", _MOST_EDGES + 2)[1:-1])
    head = next(lines, "")
    if not head.startswith(_HEAD):
        return ()
    text = [head.removeprefix(_HEAD)]
    for line in lines:
        if not line.startswith(_NEXT):
            break
        text.append(line.removeprefix(_NEXT))
    edges = map(_EDGE.fullmatch, " ".join(text).split("; "))
    return tuple(GraphEdge(*edge.groups()) for edge in edges if edge is not None)[:_MOST_EDGES]
