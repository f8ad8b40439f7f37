"""A layered layout of directed graphs, from top to bottom (Sugiyama, Tagawa and Toda, 1981).

Cycles are broken, vertices get layers, the order within the layers is changed to reduce crossings,
and then each layer gets coordinates. A bend of a long edge and the text of an edge are vertices of
their layer, so they have room there. Edges are slanted only between two layers. So no edge crosses
a box, and no two texts overlap. The result depends only on the input: there is no random number,
and no order of a set.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]

_GAP_X, _GAP_Y = 26.0, 34.0
"""Room between two boxes of a layer, and between two layers."""
_GAP_COMPONENTS = 44.0
_BEND_WIDTH = 10.0
_PORT_GAP = 22.0
_LOOP_HEIGHT, _LOOP_REACH = 34.0, 26.0
_WORK = 160_000
"""Vertices that all sweeps together may visit, so that large graphs take less than a second."""
_MOST_SWEEPS = 16
_PLACING_SWEEPS, _SETTLING_SWEEPS = 6, 10
"""Sweeps towards the neighbours on one side, and then towards those on both."""
_COMPONENTS_RATIO = 1.8
# Long edges become straight rather than short ones (Gansner et al., 1993, section 4.2).
_STRAIGHTNESS = {0: 1.0, 1: 2.0, 2: 8.0}


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge, and the room that its text needs; 0 without text."""

    source: str
    target: str
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `x` and `y` are its left upper corner."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> "Box":
        """The rectangle at another place."""
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True, slots=True)
class Route:
    """The way of an edge.

    Attributes:
        points: Cubic Bézier curves: the start, and then two control points and an end for each.
        text: The room for its text; `None` without text.
    """

    points: tuple[Point, ...]
    text: Box | None = None

    def moved(self, x: float, y: float) -> "Route":
        """The way at another place."""
        points = tuple((px + x, py + y) for px, py in self.points)
        return Route(points, self.text and self.text.moved(x, y))


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of all vertices and edges.

    Attributes:
        width: The width of all together.
        height: The height of all together.
        boxes: Vertex → its rectangle.
        routes: The ways of the edges, in their order.
    """

    width: float
    height: float
    boxes: Mapping[str, Box]
    routes: tuple[Route, ...]


def loops_height(loops: int) -> float:
    """The height that a vertex needs for its edges to itself."""
    return loops * _LOOP_HEIGHT


def layout(sizes: Mapping[str, Point], edges: Sequence[Edge]) -> Layout:
    """Place a graph.

    Args:
        sizes: Vertex → its width and height. A vertex with edges to itself has at least the height
            `loops_height`.
        edges: The edges; both ends are in `sizes`. Several may have the same ends.
    """
    boxes: dict[str, Box] = {}
    routes: dict[int, Route] = {}
    parts = [
        _Component(sizes, vertices, edges, edge_numbers).placed()
        for vertices, edge_numbers in _parts(sizes, edges)
    ]
    area = sum(part.width * part.height for part in parts)
    most = max([part.width for part in parts] + [(area * _COMPONENTS_RATIO) ** 0.5])
    x = y = height = width = 0.0
    for part in parts:
        if x and x + part.width > most:
            x, y, height = 0.0, y + height + _GAP_COMPONENTS, 0.0
        boxes |= {vertex: box.moved(x, y) for vertex, box in part.boxes.items()}
        routes |= {index: route.moved(x, y) for index, route in part.routes.items()}
        width, height = max(width, x + part.width), max(height, part.height)
        x += part.width + _GAP_COMPONENTS
    ordered = {vertex: boxes[vertex] for vertex in sizes}
    return Layout(width, y + height, ordered, tuple(routes[i] for i in range(len(edges))))


def _parts(
    sizes: Mapping[str, Point], edges: Sequence[Edge]
) -> Iterator[tuple[list[str], list[int]]]:
    """The connected components: their vertices and the numbers of their edges."""
    touching: dict[str, list[int]] = defaultdict(list)
    for index, edge in enumerate(edges):
        touching[edge.source].append(index)
        touching[edge.target].append(index)
    seen: set[str] = set()
    for first in sizes:
        members, waiting = {first}, [first]
        while waiting and first not in seen:
            for index in touching[waiting.pop()]:
                ends = {edges[index].source, edges[index].target} - members
                members |= ends
                waiting += sorted(ends)
        if first not in seen:
            seen |= members
            edge_numbers = {index for vertex in members for index in touching[vertex]}
            yield [vertex for vertex in sizes if vertex in members], sorted(edge_numbers)


@dataclass(slots=True)
class _Placed:
    """A component with its places."""

    width: float
    height: float
    boxes: dict[str, Box]
    routes: dict[int, Route]


@dataclass(slots=True)
class _Component:
    """The layout of a connected graph, step by step.

    Inside, vertices are numbers. Those from `len(vertices)` on are bends and texts.
    """

    sizes: Mapping[str, Point]
    vertices: list[str]
    edges: Sequence[Edge]
    edge_numbers: list[int]
    loops: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    chains: dict[int, list[int]] = field(default_factory=dict)
    """Edge → the vertices that it passes, downwards."""
    backwards: set[int] = field(default_factory=set)
    """Edges whose chain is against their direction."""
    texts: dict[int, int] = field(default_factory=dict)
    """Edge → the vertex of its text."""
    widths: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    layers: list[list[int]] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    """The centre of each vertex; that of a vertex with loops includes their room."""

    def placed(self) -> _Placed:
        number = {vertex: index for index, vertex in enumerate(self.vertices)}
        ends = {}
        for index in self.edge_numbers:
            source, target = number[self.edges[index].source], number[self.edges[index].target]
            if source == target:
                self.loops[source].append(index)
            else:
                ends[index] = (source, target)
        for vertex, name in enumerate(self.vertices):
            width, height = self.sizes[name]
            self.widths.append(width + self._loop_room(vertex))
            self.heights.append(height)
        downward = self._without_cycles(ends)
        self._add_chains(downward, self._ranks(downward))
        self._order()
        self._set_columns()
        return self._drawn()

    def _loop_room(self, vertex: int) -> float:
        loops = self.loops.get(vertex, ())
        return max((_LOOP_REACH + self.edges[loop].width for loop in loops), default=0.0)

    def _without_cycles(self, ends: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """The edges, with those turned round that lead back to an earlier vertex of their cycle."""
        reachable = [1 << vertex for vertex in range(len(self.vertices))]  # as sets of bits
        before: list[int] = []
        while before != reachable:
            before = reachable[:]
            for source, target in ends.values():
                reachable[source] |= reachable[target]
        self.backwards = {
            index
            for index, (source, target) in ends.items()
            if source > target and reachable[target] >> source & 1
        }
        return {i: ends[i][::-1] if i in self.backwards else ends[i] for i in ends}

    def _ranks(self, downward: Mapping[int, tuple[int, int]]) -> list[int]:
        """The layer of each vertex: below all that lead to it, and near to what it leads to."""
        entering, leaving = defaultdict(list), defaultdict(list)
        for index, (source, target) in downward.items():
            length = 2 if self.edges[index].width else 1
            entering[target].append((source, length))
            leaving[source].append((target, length))
        ranks = [0] * len(self.vertices)
        missing = [len(entering[vertex]) for vertex in range(len(ranks))]
        order = [vertex for vertex, count in enumerate(missing) if not count]
        for vertex in order:
            for target, length in leaving[vertex]:
                ranks[target] = max(ranks[target], ranks[vertex] + length)
                missing[target] -= 1
                if not missing[target]:
                    order.append(target)
        for vertex in reversed(order):
            if len(leaving[vertex]) > len(entering[vertex]):
                ranks[vertex] = min(ranks[target] - length for target, length in leaving[vertex])
        first = min(ranks)
        return [rank - first for rank in ranks]

    def _add_chains(self, downward: Mapping[int, tuple[int, int]], ranks: list[int]) -> None:
        """Add a vertex where an edge passes a layer; the middle one has its text."""
        for index, (source, target) in downward.items():
            passed = range(ranks[source] + 1, ranks[target])
            chain = [source]
            for rank in passed:
                has_text = self.edges[index].width and rank == passed[len(passed) // 2]
                if has_text:
                    self.texts[index] = len(ranks)
                self.widths.append(self.edges[index].width if has_text else _BEND_WIDTH)
                self.heights.append(self.edges[index].height if has_text else 0.0)
                chain.append(len(ranks))
                ranks.append(rank)
            self.chains[index] = [*chain, target]
        self.above = [[] for _ in ranks]
        self.below = [[] for _ in ranks]
        for chain in self.chains.values():
            for upper, lower in pairwise(chain):
                self.below[upper].append(lower)
                self.above[lower].append(upper)
        self.layers = [[] for _ in range(max(ranks) + 1)]
        for vertex in self._depth_first(ranks):
            self.layers[ranks[vertex]].append(vertex)

    def _depth_first(self, ranks: Sequence[int]) -> Iterator[int]:
        """All vertices, so that those of one way are together."""
        seen = set[int]()
        for root in sorted(range(len(ranks)), key=lambda vertex: ranks[vertex]):
            waiting = [root]
            while waiting:
                vertex = waiting.pop()
                if vertex not in seen:
                    seen.add(vertex)
                    yield vertex
                    waiting += reversed(self.below[vertex])

    def _order(self) -> None:
        """Sort each layer by the mean position of the neighbours, down and up; keep the best."""
        sweeps = min(_MOST_SWEEPS, max(2, _WORK // len(self.widths) // 2))
        best, fewest = [layer[:] for layer in self.layers], self._crossings()
        for sweep in range(sweeps):
            if not fewest:
                break
            down = sweep % 2 == 0
            neighbours = self.above if down else self.below
            position = self._positions()
            for layer in self.layers[1:] if down else self.layers[-2::-1]:
                means = {
                    vertex: sum(position[n] for n in near) / len(near)
                    if (near := neighbours[vertex])
                    else position[vertex]
                    for vertex in layer
                }
                layer.sort(key=means.__getitem__)
                count = max(len(layer), 1)
                position.update((vertex, (i + 0.5) / count) for i, vertex in enumerate(layer))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [layer[:] for layer in self.layers], crossings
        self.layers = best

    def _positions(self) -> dict[int, float]:
        """The place of each vertex in its layer, from 0 to 1."""
        return {v: (i + 0.5) / len(layer) for layer in self.layers for i, v in enumerate(layer)}

    def _crossings(self) -> int:
        """How often two edges cross."""
        total = 0
        for upper, lower in pairwise(self.layers):
            index = {vertex: i for i, vertex in enumerate(lower)}
            passed: list[int] = []
            for vertex in upper:
                targets = sorted(index[target] for target in self.below[vertex])
                total += sum(len(passed) - bisect_right(passed, target) for target in targets)
                for target in targets:
                    insort(passed, target)
        return total

    def _set_columns(self) -> None:
        """Move each layer towards the neighbours of its vertices, down and up."""
        self.x = [0.0] * len(self.widths)
        for layer in self.layers:
            self._spread(layer, [0.0] * len(layer), [1.0] * len(layer))
        for sweep in range(_PLACING_SWEEPS + _SETTLING_SWEEPS):
            down = sweep % 2 == 0
            is_last = sweep >= _PLACING_SWEEPS
            for layer in self.layers if down else reversed(self.layers):
                self._attract(layer, above=down or is_last, below=not down or is_last)

    def _attract(self, layer: list[int], *, above: bool, below: bool) -> None:
        wanted, weights = [], []
        for vertex in layer:
            near = [
                (
                    self.x[n],
                    _STRAIGHTNESS[(n >= len(self.vertices)) + (vertex >= len(self.vertices))],
                )
                for n in (self.above[vertex] if above else [])
                + (self.below[vertex] if below else [])
            ]
            weight = sum(w for _, w in near)
            wanted.append(sum(x * w for x, w in near) / weight if near else self.x[vertex])
            weights.append(weight or 0.1)
        self._spread(layer, wanted, weights)

    def _spread(self, layer: list[int], wanted: list[float], weights: list[float]) -> None:
        """Place a layer as near as possible to what is wanted, in its order and without overlaps.

        This is an isotonic regression, which pooling of adjacent violators solves.
        """
        offsets, blocks = [0.0], list[list[float]]()
        for previous, vertex in pairwise(layer):
            gap = (self.widths[previous] + self.widths[vertex]) / 2 + _GAP_X
            offsets.append(offsets[-1] + gap)
        for goal, offset, weight in zip(wanted, offsets, weights, strict=True):
            blocks.append([goal - offset, weight, 1])
            while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
                mean, heavy, count = blocks.pop()
                last = blocks[-1]
                last[0] = (last[0] * last[1] + mean * heavy) / (last[1] + heavy)
                last[1] += heavy
                last[2] += count
        means = (mean for mean, _, count in blocks for _ in range(int(count)))
        for vertex, mean, offset in zip(layer, means, offsets, strict=True):
            self.x[vertex] = mean + offset

    def _drawn(self) -> _Placed:
        """Boxes and routes, with the left upper corner of all at 0."""
        first = min(x - width / 2 for x, width in zip(self.x, self.widths, strict=True))
        last = max(x + width / 2 for x, width in zip(self.x, self.widths, strict=True))
        bands: dict[int, tuple[float, float]] = {}
        top = 0.0
        for layer in self.layers:
            bottom = top + max(self.heights[vertex] for vertex in layer)
            bands |= dict.fromkeys(layer, (top, bottom))
            top = bottom + _GAP_Y
        self.x = [x - first for x in self.x]
        places = {vertex: self._box(vertex, bands[vertex]) for vertex in bands}
        boxes = {name: places[vertex] for vertex, name in enumerate(self.vertices)}
        routes = self._routes(places, bands)
        for vertex, loops in self.loops.items():
            routes |= {loop: self._loop(loop, n, places[vertex]) for n, loop in enumerate(loops)}
        return _Placed(last - first, top - _GAP_Y, boxes, routes)

    def _box(self, vertex: int, band: tuple[float, float]) -> Box:
        width, height = self.widths[vertex], self.heights[vertex]
        x, y = self.x[vertex] - width / 2, (band[0] + band[1] - height) / 2
        room = self._loop_room(vertex) if vertex < len(self.vertices) else 0.0
        return Box(x, y, width - room, height)

    def _loop(self, index: int, number: int, box: Box) -> Route:
        """An edge from a vertex to itself, to the right of it."""
        edge = self.edges[index]
        slot = box.height / len(self.loops[self.vertices.index(edge.source)])
        middle, right = box.y + (number + 0.5) * slot, box.x + box.width
        upper, lower = middle - _LOOP_HEIGHT / 4, middle + _LOOP_HEIGHT / 4
        far = right + _LOOP_REACH - 4
        points = ((right, upper), (far, upper - 5), (far, lower + 5), (right, lower))
        text = Box(right + _LOOP_REACH - 4, middle - edge.height / 2, edge.width, edge.height)
        return Route(points, text if edge.width else None)

    def _routes(
        self, places: Mapping[int, Box], bands: Mapping[int, tuple[float, float]]
    ) -> dict[int, Route]:
        starts = self._ports(places, end=0)
        ends = self._ports(places, end=-1)
        routes = {}
        for index, chain in self.chains.items():
            stops = [
                (starts[index], places[chain[0]].y + places[chain[0]].height, bands[chain[0]][1])
            ]
            stops += [(self.x[vertex], *bands[vertex]) for vertex in chain[1:-1]]
            stops.append((ends[index], bands[chain[-1]][0], places[chain[-1]].y))
            points = [stops[0][:2]]
            for number, (x, upper, lower) in enumerate(stops):
                if number:
                    previous = points[-1]
                    middle = (previous[1] + upper) / 2
                    points += [(previous[0], middle), (x, middle), (x, upper)]
                if lower != upper:
                    points += [(x, upper), (x, lower), (x, lower)]
            if index in self.backwards:
                points.reverse()
            text = places.get(self.texts.get(index, -1))
            routes[index] = Route(tuple(points), text)
        return routes

    def _ports(self, places: Mapping[int, Box], *, end: int) -> dict[int, float]:
        """Where each edge leaves or enters the box of its first or last vertex."""
        touching: dict[int, list[int]] = defaultdict(list)
        for index, chain in self.chains.items():
            touching[chain[end]].append(index)
        ports: dict[int, float] = {}
        for vertex, indices in touching.items():
            indices.sort(key=lambda index: self.x[self.chains[index][end - 1 if end else 1]])
            box = places[vertex]
            gap = min(_PORT_GAP, box.width * 0.8 / len(indices))
            first = box.x + box.width / 2 - gap * (len(indices) - 1) / 2
            ports |= {index: first + gap * number for number, index in enumerate(indices)}
        return ports
