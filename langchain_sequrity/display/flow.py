"""A flow of data, or of control, as a graph: what is drawn, and the same in sentences.

Names come from graphs, policies, models and servers, so they are escaped wherever they are shown.
"""

import base64
import html
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.display import enumeration, plain, svg
from langchain_sequrity.display.shapes import MAX_NAME, Arrow, Figure, Shape, Vertex
from langchain_sequrity.display.tables import Tone

_MOST_VERTICES, _MOST_ARROWS = 60, 120
_MOST_RULES = 3
_ALTERNATIVE = 1_500
_REST = "\N{HORIZONTAL ELLIPSIS}"
_VALUE = "value"
_RESERVED_PREFIX = "__"
_ALL = ["*"]
_TIMES = "\N{MULTIPLICATION SIGN}"
_NOT_RUN: frozenset[Tone] = frozenset({"bad", "doubtful"})

__all__ = [
    "Arrow", "Flow", "FlowCall", "Shape", "Vertex", "flow_of_calls", "label_text", "notebook_forms",
    "outcome_tone",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flow:
    """A graph to draw. At most 60 vertices and 120 arrows are shown; then it says how many more.

    Attributes:
        title: A line above it.
        vertices: Its vertices.
        arrows: Its arrows, between keys of its vertices.
    """

    title: str
    vertices: tuple[Vertex, ...]
    arrows: tuple[Arrow, ...] = ()

    def svg(self, *, standalone: bool = True) -> str:
        """The drawing.

        Args:
            standalone: Whether it is a whole file, with colours and a legend. Otherwise it is an
                element for a page that has `display.svg.FLOW_CSS`.
        """
        return svg.drawn((self.figure(),), standalone=standalone)

    def figure(self) -> Figure:
        """What is drawn of it, with its text alternative."""
        flow = self._bounded()
        return Figure(self.title, flow.vertices, flow.arrows, self.text())

    def text(self) -> str:
        """The same in sentences: a line for each vertex and arrow."""
        flow = self._bounded()
        titles = {v.key: f"`{plain(v.title, limit=MAX_NAME)}`" for v in flow.vertices}
        arrows = (
            f"{titles[arrow.source]} → {titles[arrow.target]}{_end(arrow.words())}"
            for arrow in flow.arrows
        )
        return "\n".join([plain(self.title), *(v.text() for v in flow.vertices), *arrows])

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The forms for notebooks: HTML with the drawing as an image, SVG and text."""
        return notebook_forms(
            self.svg(), (self,), text=self.text(), include=include, exclude=exclude
        )

    def _bounded(self) -> "Flow":
        """What is shown of it; denied calls are left out last."""
        omitted = len(self.vertices) - _MOST_VERTICES
        vertices = self.vertices
        if omitted > 0:
            order = sorted(range(len(vertices)), key=lambda i: vertices[i].tone != "bad")
            vertices = tuple(vertices[i] for i in sorted(order[:_MOST_VERTICES]))
        keys = {vertex.key for vertex in vertices}
        arrows = [arrow for arrow in self.arrows if {arrow.source, arrow.target} <= keys]
        first_arrows = tuple(arrows[:_MOST_ARROWS])
        rest = len(self.arrows) - len(first_arrows)
        if omitted > 0 or rest:
            title = f"and {omitted:,} more" if omitted > 0 else "and more"
            lines = (f"{rest:,} arrow{'' if rest == 1 else 's'} not drawn",) if rest else ()
            vertices = (*vertices, Vertex(_REST, title, lines, "step"))
        return Flow(self.title, vertices, first_arrows)


def _end(text: str) -> str:
    return f": {text}." if text else "."


def notebook_forms(
    drawing: str,
    flows: Iterable[Flow],
    *,
    text: str,
    table: str = "",
    include: Collection[str] | None,
    exclude: Collection[str] | None,
) -> dict[str, Any]:
    """What a notebook may show of a drawing.

    Nothing in an image can run, also if the notebook trusts its HTML.

    Args:
        drawing: The SVG.
        flows: What is drawn, for the text alternative.
        text: The form for terminals.
        table: HTML below the image.
        include: MIME types to return; empty for all.
        exclude: MIME types to leave out.
    """
    alternative = plain("\n".join(flow.text() for flow in flows), limit=_ALTERNATIVE, lines=True)
    data = base64.b64encode(drawing.encode()).decode()
    image = (
        f'<img alt="{html.escape(alternative)}" style="max-width: 100%" '
        f'src="data:image/svg+xml;base64,{data}">'
    )
    forms = {"text/plain": text, "text/html": f"{image}{table}", "image/svg+xml": drawing}
    return {
        name: form
        for name, form in forms.items()
        if (not include or name in include) and name not in (exclude or ())
    }


# Checked calls


_Label = tuple[str, tuple[str, ...]]
"""Names, and whether they are producers or tags."""


@dataclass(frozen=True, slots=True)
class FlowCall:
    """A checked call, or several equal ones.

    Attributes:
        tool: The tool.
        verdict: The verdict in words.
        tone: "good" for a call that was allowed, "bad" for a denied one.
        labels: Argument → its producers, consumers and tags; `None` if they are not reported.
        rule: The rule that decided; of allowed calls it is not shown.
        line: Its line in the policy.
        result: The labels of its result; `None` if they are not known.
        shape: "call" or "router".
        calls: The number of calls.
    """

    tool: str
    verdict: str
    tone: Tone = ""
    labels: Mapping[str, Mapping[str, Sequence[str]]] | None = None
    rule: str = ""
    line: int | None = None
    result: Mapping[str, Sequence[str]] | None = None
    shape: Shape = "call"
    calls: int = 1


def flow_of_calls(
    title: str, calls: Iterable[FlowCall], value: Mapping[str, Sequence[str]] | None = None
) -> Flow:
    """The flow of data between calls, by the labels of their arguments.

    Calls of a tool with the same verdict are one vertex. An arrow begins at the producer of an
    argument: at its allowed calls if it was called here, otherwise at a source of its own. Data
    with tags and without a producer has a source for these tags. To such a source an arrow leads
    from the calls whose result added its label, if the labels of results are known.

    Args:
        title: A line above it.
        calls: The calls in order.
        value: The labels of the final value, if there is one.
    """
    flow = _CallFlow()
    for call in calls:
        key = f"{call.shape}:{call.tool}:{call.verdict}"
        flow.groups.setdefault(key, _Group(key, call)).add(call)
    return flow.drawable(title, value)


def outcome_tone(outcome: str) -> Tone:
    """The colour of a policy's or a human's decision."""
    if outcome in {"allowed", "approved"}:
        return "good"
    return "bad" if outcome in {"denied", "rejected"} else "doubtful"


def label_text(labels: Mapping[str, Sequence[str]]) -> str:
    """Labels in one line, to follow a name: producers, tags, consumers; without empty parts."""
    tags = _names(labels, "tags")
    parts = [f" ← {', '.join(labels['producers'])}"] if labels.get("producers") else []
    parts += [f" [{', '.join(tags)}]"] if tags else []
    if [*labels.get("consumers", _ALL)] != _ALL:
        parts.append(f" → {', '.join(labels['consumers']) or 'nobody'}")
    return "".join(parts)


@dataclass(slots=True)
class _CallFlow:
    """The vertices and arrows of calls so far."""

    groups: dict[str, "_Group"] = field(default_factory=dict)
    sources: dict[str, Vertex] = field(default_factory=dict)
    labels: dict[str, _Label] = field(default_factory=dict)
    """Source → its labels, which results of calls may add."""
    arrows: dict[tuple[str, str, tuple[str, ...]], dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    producers: dict[str, str] = field(default_factory=dict)
    """Producer → the vertex of its allowed calls."""

    def drawable(self, title: str, value: Mapping[str, Sequence[str]] | None) -> Flow:
        """The flow of all calls to the value."""
        groups = self.groups.values()
        for group in groups:
            if group.first.tone not in _NOT_RUN and group.first.shape == "call":
                self.producers.setdefault(group.first.tool, group.key)
        for group in groups:
            for argument, labels in group.arguments:
                self._connect(argument, labels, group.key)
        results: tuple[Vertex, ...] = ()
        if value is not None:
            self._connect("", value, _VALUE)
            results = (Vertex(_VALUE, "value", _value_lines(value), "value"),)
        for group in groups:
            for source, (label_kind, names) in self.labels.items():
                if added := group.added & {(label_kind, name) for name in names}:
                    tags = tuple(sorted(name for added_kind, name in added if added_kind == "tags"))
                    self.arrows[group.key, source, tags]["result"] = None
        arrows = (
            Arrow(source, target, ", ".join(filter(None, arguments)), tags)
            for (source, target, tags), arguments in self.arrows.items()
        )
        vertices = (*self.sources.values(), *(group.vertex() for group in groups), *results)
        return Flow(title, vertices, tuple(arrows))

    def _connect(self, argument: str, labels: Mapping[str, Sequence[str]], target: str) -> None:
        """Add arrows from where an argument comes from, as far as its labels say."""
        producers, tags = _names(labels, "producers"), _names(labels, "tags")
        sources = [
            self.producers.get(name) or self._source("producers", name) for name in producers
        ]
        if tags and not producers:
            sources = [self._source("tags", *tags)]
        for source in sources:
            self.arrows[source, target, tags][argument] = None

    def _source(self, label_kind: str, *names: str) -> str:
        title = names[0] if label_kind == "producers" else f"[{', '.join(names)}]"
        lines = () if label_kind == "producers" else ("data with this label",)
        key = f"{label_kind}:{names[0] if label_kind == 'producers' else names!r}"
        self.sources.setdefault(key, Vertex(key, title, lines, "source"))
        self.labels[key] = (label_kind, names)
        return key


def _value_lines(labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    tags, consumers = _names(labels, "tags"), _only_for(labels)
    return tuple(filter(None, [f"[{', '.join(tags)}]" if tags else "", consumers]))


def _only_for(labels: Mapping[str, Sequence[str]]) -> str:
    """Who may have a value; empty if everyone may."""
    consumers = sorted(labels.get("consumers", _ALL))
    if consumers == _ALL:
        return ""
    return f"for {enumeration(consumers)} only" if consumers else "for nobody"


def _names(labels: Mapping[str, Sequence[str]], label_kind: str) -> tuple[str, ...]:
    """Labels without those of the service itself, which are unrelated to the data."""
    names = labels.get(label_kind) or ()
    return tuple(sorted(name for name in names if not name.startswith(_RESERVED_PREFIX)))


def _pairs(all_labels: Iterable[Mapping[str, Sequence[str]]]) -> frozenset[tuple[str, str]]:
    """Producers and tags, each with what it is."""
    return frozenset(
        (label_kind, name)
        for labels in all_labels
        for label_kind in ("producers", "tags")
        for name in _names(labels, label_kind)
    )


@dataclass(slots=True)
class _Group:
    """The calls of a tool with one verdict."""

    key: str
    first: FlowCall
    calls: int = 0
    rules: dict[str, None] = field(default_factory=dict)
    arguments: list[tuple[str, Mapping[str, Sequence[str]]]] = field(default_factory=list)
    seen: set[object] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    added: frozenset[tuple[str, str]] = frozenset()
    """Labels of results that no argument had."""

    def add(self, call: FlowCall) -> None:
        """Add a call. Equal labels of an argument are kept once."""
        self.calls += call.calls
        if call.rule and call.tone != "good":
            rule = " ".join(call.rule.split()).removesuffix(";")
            self.rules[rule if call.line is None else f"{rule} (line {call.line})"] = None
        if call.labels is None:
            self.notes["labels not reported"] = None
        for name, labels in (call.labels or {}).items():
            identity = (name, *(tuple(labels.get(label_kind) or ()) for label_kind in _LABEL_KINDS))
            if identity in self.seen:
                continue
            self.seen.add(identity)
            self.arguments.append((name, labels))
            if consumers := _only_for(labels):
                self.notes[f"{name}: {consumers}"] = None
        self.added |= _pairs([call.result or {}]) - _pairs((call.labels or {}).values())

    def vertex(self) -> Vertex:
        rules = tuple(self.rules)
        rest = len(rules) - _MOST_RULES
        lines = (self.first.verdict, *rules[:_MOST_RULES])
        lines += (f"and {rest} more rule{'' if rest == 1 else 's'}",) if rest > 0 else ()
        lines += tuple(self.notes)[:_MOST_RULES]
        title = self.first.tool if self.calls == 1 else f"{self.first.tool} {_TIMES}{self.calls:,}"
        return Vertex(self.key, title, lines, self.first.shape, self.first.tone)


_LABEL_KINDS = ("producers", "consumers", "tags")
