"""Draws flows as SVG.

The document is a tree of `xml.etree`, which escapes each text and each attribute when it writes
them. So no name can become an element, an attribute, a link or a script (`docs/security.md`, rule
11). `plain` escapes control characters, those that XML forbids, and marks that reorder text.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from langchain_sequrity.display import plain
from langchain_sequrity.display.layout import (
    Box,
    Edge,
    Layout,
    Point,
    Route,
    layout,
    loops_height,
)
from langchain_sequrity.display.shapes import Arrow, Figure, Vertex
from langchain_sequrity.display.tables import Tone

_HUES, _DASHES = 6, 2
_LIGHT = {
    "page": "#ffffff", "ink": "#1f2328", "quiet": "#57606a", "box": "#f6f8fa", "edge": "#6e7781",
    "good": "#1a7f37", "good-box": "#f0faf2", "bad": "#b3261e", "bad-box": "#fff1f0",
    "doubtful": "#8a5a00", "doubtful-box": "#fff8e6",
    "hue0": "#0550ae", "hue1": "#7a3fc4", "hue2": "#0b6b63", "hue3": "#a8206d", "hue4": "#5b6200",
    "hue5": "#9a4a00",
}  # fmt: skip
_DARK = {
    "page": "#15181d", "ink": "#e6edf3", "quiet": "#9da7b3", "box": "#21262d", "edge": "#8b949e",
    "good": "#57c46d", "good-box": "#12261a", "bad": "#ff8f87", "bad-box": "#331a1a",
    "doubtful": "#e0b04c", "doubtful-box": "#2b2411",
    "hue0": "#79b8ff", "hue1": "#c9a6ff", "hue2": "#5fd4c4", "hue3": "#ff9bd0", "hue4": "#cdd36f",
    "hue5": "#ffb27a",
}  # fmt: skip
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_RULES = "\n".join([
    f".flow text{{font-family:{_FONT};font-size:12px;fill:var(--ink)}}",
    ".flow text{direction:ltr;unicode-bidi:isolate}",
    ".flow .page,.flow .under{fill:var(--page)}",
    ".flow .heading{font-size:14px;font-weight:bold}",
    ".flow .name{font-weight:bold}",
    ".flow .quiet{fill:var(--quiet)}",
    ".flow .shape{fill:var(--box);stroke:var(--edge);stroke-width:1.2}",
    ".flow .source .shape{stroke-dasharray:2 3}",
    ".flow .line{fill:none;stroke:var(--edge);stroke-width:1.5}",
    ".flow .head{fill:var(--edge);stroke:none}",
    *(
        f".flow .{tone} .shape{{fill:var(--{tone}-box);stroke:var(--{tone})}}\n"
        f".flow .{tone} .line{{stroke:var(--{tone})}}\n"
        f".flow .{tone} .head,.flow .{tone} .verdict,.flow .arrow.{tone} text{{fill:var(--{tone})}}"
        for tone in ("good", "bad", "doubtful")
    ),
    ".flow .bad .shape{stroke-width:2.5;stroke-dasharray:6 3}",
    ".flow .bad .name{fill:var(--bad)}",
    *(
        f".flow .hue{hue} .line{{stroke:var(--hue{hue})}}\n"
        f".flow .hue{hue} .head,.flow .hue{hue} text{{fill:var(--hue{hue})}}"
        for hue in range(_HUES)
    ),
    ".flow .dashes1 .line{stroke-dasharray:8 3}",
    ".flow .dashes2 .line{stroke-dasharray:2 3}",
    ".flow .vertex:focus{outline:2px solid var(--hue0);outline-offset:2px}",
])  # fmt: skip
_DARK_MEDIA = "@media (prefers-color-scheme:dark)"


def _variables(colours: dict[str, str]) -> str:
    return ".flow{" + ";".join(f"--{name}:{colour}" for name, colour in colours.items()) + "}"


def _with_colours(colours: dict[str, str]) -> str:
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda variable: colours[variable[1]], _RULES)


FLOW_CSS = f"{_variables(_LIGHT)}\n{_DARK_MEDIA}{{{_variables(_DARK)}}}\n{_RULES}\n"
"""The style of drawings that are not standalone; `.flow` has the colours as variables."""

# The same rules, without variables: many programs that show SVG files do not know them.
_FILE_CSS = f"{_with_colours(_LIGHT)}\n{_DARK_MEDIA}{{\n{_with_colours(_DARK)}\n}}\n"

_MARGIN, _PAD, _ROUTER_PAD = 20.0, 11.0, 16.0
_LINE, _HEADING_LINE, _HEADING_GAP = 16.0, 19.0, 11.0
_MOST_FIGURES = 12
_CHARACTER = 7.5
"""The width of a character of the font in pixels, at most; a wide one has two."""
_UNUSUAL = 12.5
"""The width of a character of a script that fonts rarely have in one width."""
_TITLE_COLUMNS, _LINE_COLUMNS, _ARROW_COLUMNS, _HEADING_COLUMNS = 36, 42, 30, 90
_LINES_OF_A_TEXT = 3
_MAX_TEXT, _MAX_DESCRIPTION = 300, 2_000
_TONE_WORDS: dict[Tone, str] = {"good": "allowed", "bad": "✕ denied", "doubtful": "? undecided"}
_MARKS: dict[Tone, str] = {"bad": "✕ ", "doubtful": "? "}
_HEAD_LENGTH, _HEAD_WIDTH = 9.0, 3.8


def drawn(figures: Sequence[Figure], *, standalone: bool = True) -> str:
    """Draw figures below each other.

    Args:
        figures: The figures.
        standalone: Whether the result is a whole file, with colours and a legend. Otherwise it is
            an element for a page that has `FLOW_CSS`.
    """
    return _Drawing(standalone=standalone).document(figures)


# Texts


def text_width(text: str) -> float:
    """The width of a text in pixels, at most."""
    return sum(map(_character_width, text))


def _character_width(char: str) -> float:
    if char.isascii() or char in "…✕→←":
        return _CHARACTER
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in {"W", "F"}:
        return 2 * _CHARACTER
    return _CHARACTER if ord(char) < 0x530 else _UNUSUAL  # noqa: PLR2004 - Latin, Greek, Cyrillic


def _cut(text: str, columns: int) -> str:
    """The text, or its beginning and "…"."""
    text, space = " ".join(plain(text, limit=_MAX_TEXT).split()), columns * _CHARACTER
    if text_width(text) <= space:
        return text
    while text and text_width(text) > space - _CHARACTER:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _wrapped(text: str, columns: int) -> list[str]:
    """The text in a few lines, broken between words if possible."""
    lines, space = [""], columns * _CHARACTER
    for word in plain(text, limit=_MAX_TEXT).split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer) <= space or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _LINES_OF_A_TEXT:
        lines[_LINES_OF_A_TEXT - 1 :] = [f"{lines[_LINES_OF_A_TEXT - 1]} …"]
    return [_cut(line, columns) for line in lines]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# Elements


def _add(parent: Element, name: str, css: str = "", **attributes: float | str) -> Element:
    """Add an element. Texts of attributes are escaped, `_` in their names becomes `-`."""
    written = {"class": css} if css else {}
    for key, value in attributes.items():
        text = plain(value) if isinstance(value, str) else _number(value)
        written[key.rstrip("_").replace("_", "-")] = text
    return SubElement(parent, name, written)


def _write(parent: Element, x: float, y: float, text: str, css: str = "", **more: str) -> None:
    """Add a text in one line; `y` is the middle of the line."""
    _add(parent, "text", css, x=x, y=y + 4, **more).text = plain(text)


def _describe(parent: Element, text: str) -> None:
    _add(parent, "title").text = plain(text, limit=_MAX_DESCRIPTION, lines=True)


@dataclass(slots=True)
class _Text:
    """Lines of a vertex or an arrow, each with its class."""

    lines: list[tuple[str, str]]

    @property
    def width(self) -> float:
        return max((text_width(text) for text, _ in self.lines), default=0.0)

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE

    def add_to(self, parent: Element, x: float, y: float) -> None:
        """Add the lines around the centre `x`, from `y` downwards."""
        for number, (text, css) in enumerate(self.lines):
            _write(parent, x, y + (number + 0.5) * _LINE, text, css, text_anchor="middle")


def _vertex_text(vertex: Vertex) -> _Text:
    title = f"{_MARKS.get(vertex.tone, '')}{_cut(vertex.title, _TITLE_COLUMNS)}"
    lines = [(title, "name")]
    for number, text in enumerate(vertex.lines):
        css = "quiet" if number else "verdict"
        lines += [(line, css) for line in _wrapped(text, _LINE_COLUMNS)]
    return _Text(lines)


def _arrow_text(arrow: Arrow) -> _Text:
    labels = f"[{', '.join(arrow.names)}]" if arrow.names else ""
    texts = [_cut(text, _ARROW_COLUMNS) for text in (arrow.text, labels) if text]
    return _Text([(text, "") for text in texts])


# Drawings


@dataclass(slots=True)
class _Drawing:
    """A drawing, element by element."""

    standalone: bool
    width: float = 0.0
    height: float = _MARGIN

    def document(self, figures: Sequence[Figure]) -> str:
        """The document."""
        drawable = figures[:_MOST_FIGURES]
        hues = _hues(drawable)
        title = (
            "; ".join(plain(figure.title, limit=_MAX_TEXT) for figure in drawable)
            or "nothing to draw"
        )
        root = Element("svg", {"class": "flow", "role": "img" if self.standalone else "group"})
        if self.standalone:
            root.set("xmlns", "http://www.w3.org/2000/svg")
        _describe(root, title)
        text = "\n\n".join(figure.text for figure in drawable)
        _add(root, "desc").text = plain(text, limit=10 * _MAX_DESCRIPTION, lines=True)
        if self.standalone:
            _add(root, "style").text = _FILE_CSS
        page = _add(root, "rect", "page", x=0.0, y=0.0)
        for figure in drawable:
            self._add_figure(root, figure, hues)
        if rest := len(figures) - len(drawable):
            self._add_heading(root, f"and {rest:,} more, not drawn")
        if self.standalone:
            self._add_legend(root, drawable, hues)
        width, height = self.width + 2 * _MARGIN, self.height
        for element in (root, page):
            element.set("width", _number(width))
            element.set("height", _number(height))
        root.set("viewBox", f"0 0 {_number(width)} {_number(height)}")
        root.set("aria-label", plain(title))
        return tostring(root, encoding="unicode")

    def _add_heading(self, root: Element, title: str) -> None:
        for line in _wrapped(title, _HEADING_COLUMNS):
            _write(root, _MARGIN, self.height + _LINE / 2, line, "heading")
            self.width = max(self.width, text_width(line) * 14 / 12)
            self.height += _HEADING_LINE
        self.height += _HEADING_GAP

    def _add_figure(self, root: Element, figure: Figure, hues: dict[tuple[str, ...], int]) -> None:
        if figure.title:
            self._add_heading(root, figure.title)
        if not figure.vertices:
            return
        vertex_texts = {vertex.key: _vertex_text(vertex) for vertex in figure.vertices}
        arrow_texts = [_arrow_text(arrow) for arrow in figure.arrows]
        places = _layout(figure, vertex_texts, arrow_texts)
        group = _add(root, "g", transform=f"translate({_MARGIN:g} {_number(self.height)})")
        texts = zip(figure.arrows, places.routes, arrow_texts, strict=True)
        for arrow, route, text in texts:
            self._add_arrow(group, arrow, route, text, hues)
        for vertex in figure.vertices:
            self._add_vertex(group, vertex, places.boxes[vertex.key], vertex_texts[vertex.key])
        self.width = max(self.width, places.width)
        self.height += places.height + _MARGIN

    def _add_vertex(self, parent: Element, vertex: Vertex, box: Box, text: _Text) -> None:
        css = f"vertex {vertex.shape} {vertex.tone}".rstrip()
        description = vertex.text()
        group = _add(parent, "g", css, data_key=vertex.key)
        if not self.standalone:
            group.attrib |= {"tabindex": "0", "role": "img", "aria-label": description}
        _describe(group, description)
        _add_shape(group, vertex.shape, box)
        text.add_to(group, box.x + box.width / 2, box.y + (box.height - text.height) / 2)

    def _add_arrow(
        self,
        parent: Element,
        arrow: Arrow,
        route: Route,
        text: _Text,
        hues: dict[tuple[str, ...], int],
    ) -> None:
        colour = _hue(hues[arrow.names]) if arrow.names else arrow.tone
        ends = {"data_source": arrow.source, "data_target": arrow.target}
        group = _add(parent, "g", f"arrow {colour}".rstrip(), **ends)
        if words := arrow.words():
            _describe(group, words)
        _add(group, "path", "line", d=_curves(route.points))
        _add(group, "path", "head", d=_head(route.points))
        if box := route.text:
            middle = box.x + box.width / 2
            _add_rectangle(group, "under", box)
            text.add_to(group, middle, box.y + (box.height - text.height) / 2)

    def _add_legend(
        self, root: Element, figures: Sequence[Figure], hues: dict[tuple[str, ...], int]
    ) -> None:
        """Which colour is which label, and what the tones mean, in as many lines as needed."""
        x, least = 0.0, max(self.width, 60 * _CHARACTER)
        for css, words in _legend(figures, hues):
            width = 34 + text_width(words) + 24
            if x and x + width > least:
                x, self.height = 0.0, self.height + _LINE + 4
            middle = self.height + _LINE / 2
            group = _add(root, "g", css)
            start = _MARGIN + x
            if "vertex" in css:
                _add_rectangle(group, "shape", Box(start, middle - 6, 26, 12), radius=4)
            else:
                _add(group, "path", "line", d=f"M{_number(start)} {_number(middle)}h26")
            _write(group, start + 34, middle, words, "" if "arrow" in css else "quiet")
            x += width
            self.width = max(self.width, x)
        self.height += _LINE + _MARGIN if x else 0


def _hues(figures: Iterable[Figure]) -> dict[tuple[str, ...], int]:
    """A number for each set of labels, which decides its colour."""
    names = dict.fromkeys(
        arrow.names for figure in figures for arrow in figure.arrows if arrow.names
    )
    return {labels: index for index, labels in enumerate(names)}


def _hue(number: int) -> str:
    """The classes of a colour. After the last colour they begin again, with dashed lines."""
    dashes = min(number // _HUES, _DASHES)
    return f"hue{number % _HUES}{f' dashes{dashes}' if dashes else ''}"


def _legend(
    figures: Sequence[Figure], hues: dict[tuple[str, ...], int]
) -> Iterator[tuple[str, str]]:
    tones = {vertex.tone for figure in figures for vertex in figure.vertices}
    for tone, words in _TONE_WORDS.items():
        if tone in tones:
            yield f"vertex {tone}", words
    if any(not arrow.names for figure in figures for arrow in figure.arrows) and hues:
        yield "arrow", "no tags"
    for labels, hue in hues.items():
        yield f"arrow {_hue(hue)}", _cut(f"[{', '.join(labels)}]", _LINE_COLUMNS)


def _layout(figure: Figure, vertex_texts: dict[str, _Text], arrow_texts: list[_Text]) -> Layout:
    sizes, loops = {}, [arrow.source for arrow in figure.arrows if arrow.source == arrow.target]
    for vertex in figure.vertices:
        text = vertex_texts[vertex.key]
        side = _ROUTER_PAD if vertex.shape in {"router", "source", "step"} else _PAD
        height = max(text.height + 2 * _PAD - 4, loops_height(loops.count(vertex.key)))
        sizes[vertex.key] = (text.width + 2 * side, height)
    edges = [
        Edge(arrow.source, arrow.target, text.width + 8 if text.lines else 0.0, text.height)
        for arrow, text in zip(figure.arrows, arrow_texts, strict=True)
    ]
    return layout(sizes, edges)


# Shapes and lines


def _add_rectangle(parent: Element, css: str, box: Box, *, radius: float = 0.0) -> None:
    sides = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    _add(parent, "rect", css, **sides, **({"rx": radius} if radius else {}))


def _add_shape(parent: Element, shape: str, box: Box) -> None:
    if shape == "router":
        x, y, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
        middle, corner = (y + bottom) / 2, _ROUTER_PAD * 0.75
        corners = [(x, middle), (x + corner, y), (right - corner, y), (right, middle)]
        corners += [(right - corner, bottom), (x + corner, bottom)]
        _add(parent, "path", "shape", d=_polygon(corners))
        return
    radius = {"call": 6.0, "value": 0.0}.get(shape, min(box.height / 2, 18.0))
    _add_rectangle(parent, "shape", box, radius=radius)
    if shape == "value":
        inner = Box(box.x + 3, box.y + 3, box.width - 6, box.height - 6)
        _add_rectangle(parent, "shape", inner)


def _curves(points: Sequence[Point]) -> str:
    first, *others = [f"{_number(x)} {_number(y)}" for x, y in points]
    curves = (f"C{' '.join(others[i : i + 3])}" for i in range(0, len(others), 3))
    return f"M{first}{''.join(curves)}"


def _polygon(corners: Sequence[Point]) -> str:
    return f"M{'L'.join(f'{_number(x)} {_number(y)}' for x, y in corners)}Z"


def _head(points: Sequence[Point]) -> str:
    """The arrowhead at the end of curves."""
    (x, y) = points[-1]
    before = next((point for point in points[-2::-1] if point != (x, y)), (x, y - 1))
    length = ((x - before[0]) ** 2 + (y - before[1]) ** 2) ** 0.5
    along_x, along_y = (x - before[0]) / length, (y - before[1]) / length
    back = (x - along_x * _HEAD_LENGTH, y - along_y * _HEAD_LENGTH)
    wings = [
        (back[0] - side * along_y * _HEAD_WIDTH, back[1] + side * along_x * _HEAD_WIDTH)
        for side in (1, -1)
    ]
    return _polygon([(x, y), *wings])
