"""Which data reached which node, as a Mermaid flowchart.

Only text is made here; nothing is sent anywhere to be drawn. Names become quoted labels in which
every character that could mean something to Mermaid, or to the page around it, is an entity code.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from langchain_sequrity.display import plain
from langchain_sequrity.graph.looking.traced import TracedCall, TracedRun

_HARMLESS = frozenset(" _.,-")
_LONGEST = 80
_DENIED = "classDef denied stroke:#c00,stroke-width:3px,stroke-dasharray:4"
# What stands around the label of a vertex, by what it is.
_SHAPES = {"node": ("[", "]"), "router": ("{", "}"), "source": ("([", "])")}

Vertex = tuple[str, str]
"""What it is, and its name: two things of different kinds may have one name."""


def mermaid(runs: Sequence[TracedRun]) -> str:
    """Draw runs: an arrow from each producer of an argument to the node that got it.

    Args:
        runs: Each becomes a part of the chart.

    Returns:
        Mermaid text.
    """
    parts = [line for number, run in enumerate(runs, 1) for line in _part(f"r{number}", run)]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in [*parts, _DENIED])])


def _part(prefix: str, run: TracedRun) -> Iterator[str]:
    nodes = {call.node for call in run.calls if call.role == "node"}
    vertices: dict[Vertex, str] = {}
    arrows: dict[tuple[str, str], set[str]] = defaultdict(set)
    denied = set()

    def vertex(kind: str, name: str) -> str:
        return vertices.setdefault((kind, name), f"{prefix}n{len(vertices)}")

    for call in run.calls:
        target = vertex(*_place(call))
        if call.verdict in {"denied", "rejected"}:
            denied.add(target)
        for argument, meta in (call.labels or {}).items():
            for producer in meta["producers"]:
                source = vertex("node" if producer in nodes else "source", producer)
                arrows[source, target].add(argument)
    yield f'subgraph {prefix}["{_escaped(f"{run.graph}, {run.outcome}")}"]'
    for (kind, name), key in vertices.items():
        opening, closing = _SHAPES[kind]
        yield f'  {key}{opening}"{_escaped(name)}"{closing}{":::denied" if key in denied else ""}'
    for (source, target), arguments in arrows.items():
        yield f'  {source} -->|"{_escaped(", ".join(sorted(arguments)))}"| {target}'
    yield "end"


def _place(call: TracedCall) -> Vertex:
    if call.role == "router":
        return "router", call.tool
    return "node", call.node or call.tool


def _escaped(text: str) -> str:
    shown = plain(text, limit=_LONGEST)
    return "".join(
        char if char in _HARMLESS or char.isalnum() else f"#{ord(char)};" for char in shown
    )
