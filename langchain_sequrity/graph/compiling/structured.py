"""Simple graphs as straight-line programs: calls in order, and `if` where a router decides.

A graph is simple if it has no cycle, one node at a time, and branches that meet again where an
`if` can be closed. Its program is short, and what follows a closed `if` does not stand under it: an
interpreter that marks what stands under a branch with the labels of its condition leaves it alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from langgraph.graph import END

from langchain_sequrity.graph.compiling.layout import Layout, Task
from langchain_sequrity.graph.compiling.names import shown
from langchain_sequrity.graph.compiling.writing import (
    Locals,
    Text,
    any_of,
    call,
    pulled_arguments,
    write_call,
    write_end,
    write_start,
)
from langchain_sequrity.graph.program import GOTO

_DEEPEST = 8
"""Levels of `if` in `if`; Python itself stops at 100 levels of indentation."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A node, the ways out of it, and what each leads to before they meet."""

    task: Task
    ways: "tuple[tuple[str, tuple[_Piece, ...]], ...]"


class _NotSimpleError(Exception):
    """A node would have to be written twice, or too deep."""


def is_simple(layout: Layout) -> bool:
    """Whether a graph has a straight-line program."""
    return _pieces(layout) is not None


def write_structured(layout: Layout, local: Locals) -> str:
    """Write the program of a simple graph.

    Args:
        layout: The graph with its tools, for which `is_simple` holds.
        local: Names of the variables that stand for no field and no node.

    Returns:
        The program's text.
    """
    text = Text()
    write_start(text, layout)
    writer = _Structured(layout, local, text)
    writer.write(_pieces(layout) or ())
    write_end(text, layout, "False")
    return str(text)


def _pieces(layout: Layout) -> tuple[_Piece, ...] | None:
    has_handler = any(task.has_handler for task in layout.tasks.values())
    is_more = layout.is_parallel or layout.has_undeclared_targets or bool(layout.receivers)
    if is_more or has_handler or layout.longest_run() is None:
        return None
    try:
        return tuple(_Regions(layout).region(layout.start, END, 0))
    except _NotSimpleError:
        return None


class _Regions:
    """Finds the nested pieces of a graph without cycles."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.ways = {
            task.node: [*layout.successors()[task.node], *([END] if task.may_end else [])]
            for task in layout.everyone
        }
        self.meeting = _meeting_places(self.ways)
        self.seen: set[str] = set()

    def region(self, task: Task, stop: str, depth: int) -> Iterator[_Piece]:
        """The pieces from a node up to the place where its branches meet others."""
        while True:
            if task.node in self.seen or depth > _DEEPEST:
                raise _NotSimpleError
            self.seen.add(task.node)
            meeting = self.meeting[task.node]
            inner = [way for way in self.ways[task.node] if way not in (meeting, END)]
            yield _Piece(task, tuple((way, self._way(way, meeting, depth)) for way in inner))
            if meeting in (stop, END):
                return
            task = self.layout.tasks[meeting]

    def _way(self, way: str, meeting: str, depth: int) -> tuple[_Piece, ...]:
        return tuple(self.region(self.layout.tasks[way], meeting, depth + 1))


def _meeting_places(ways: Mapping[str, list[str]]) -> dict[str, str]:
    """For each node the first one that every way out of it comes to: its post-dominator."""
    meeting, depth = {END: END}, {END: 0}
    for node in TopologicalSorter(ways).static_order():  # successors come first
        if node == END:
            continue
        first, *others = ways[node] or [END]
        for other in others:
            while first != other:
                if depth[first] >= depth[other]:
                    first = meeting[first]
                else:
                    other = meeting[other]  # noqa: PLW2901
        meeting[node], depth[node] = first, depth[first] + 1
    return meeting


class _Structured:
    def __init__(self, layout: Layout, local: Locals, text: Text) -> None:
        self.layout, self.local, self.text = layout, local, text
        self.fields = layout.fields

    def write(self, pieces: tuple[_Piece, ...]) -> None:
        for piece in pieces:
            self._node(piece.task)
            self._ways(piece)

    def _node(self, task: Task) -> None:
        tool, text, fields = task.tool, self.text, self.fields
        if tool is None:
            return
        text.add(f"# Node {shown(task.node)}.")
        write_call(text, self.layout, self.local, task, pulled_arguments(self.layout, tool))
        for field, state in fields.state.items():
            if field in tool.writes or fields.plans[field].resets:
                text.add(f"{state} = {fields.fresh(field, tool)}")

    def _ways(self, piece: _Piece) -> None:
        task, text, local = piece.task, self.text, self.local
        if not task.decides:
            return
        if task.looks_up:
            text.add(f"{local.value} = {self.fields.read(task.routers[0].looked_up)}")
        for router in task.routers:
            if router.tool is not None:
                arguments = pulled_arguments(self.layout, router.tool)
                text.add(f"{local.answer} = {call(router.tool.name, arguments)}")
        keyword = "if"
        for node, pieces in piece.ways:
            with text.block(f"{keyword} {self._test(task, node)}:"):
                self.write(pieces)
            keyword = "elif"

    def _test(self, task: Task, node: str) -> str:
        if task.looks_up:
            return self._values(task.routers[0].values[node])
        token = self.layout.tokens[node]
        if task.routers:
            return f'"{token}" in {self.local.answer}["{GOTO}"]'
        return f'"{token}" in {self.fields.result}.get("{GOTO}", [])'

    def _values(self, values: tuple[str, ...]) -> str:
        return any_of(f"{self.local.value} == {one}" for one in values)
