"""Runs, turns, simulations and graphs as SVG: readable, safe, and the same in words."""

import base64
import html
import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, Trace, TurnPicture, with_labels
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.display.flow import Arrow, Flow, FlowCall, Shape, Vertex, flow_of_calls
from langchain_sequrity.display.svg import FLOW_CSS
from langchain_sequrity.display.tables import Tone
from langchain_sequrity.dry_run import run_program
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import coverage, simulate

Root = ET.Element
SVG = "{http://www.w3.org/2000/svg}"
# The widest of the fonts that the style names has characters of 0.602 of its size.
CHARACTER, LINE = 0.602 * 12, 14.0
SHAPES: list[Shape] = ["call", "router", "source", "value", "step"]
TONES: list[Tone] = ["", "good", "bad", "doubtful"]
HOSTILE = [
    f"{before}{middle}{after}"
    for before in ("", '"', "'", "]]>", "</title>", "</style>", "\x1b[31m", "\u202e", "\x00", "\ud800")
    for middle in ("<script>alert(1)</script>", "&lt;b&gt;&amp;", "' onload='x", "\uffff<!--", "<?x?>")
    for after in ("", "\n</text>", "-->", "\u2028")
]  # fmt: skip
DENIES_MAIL = """
    tool "read_mail" -> @tags |= {"mail"};
    tool "pay" { must deny when amount.tags overlaps {"mail"}; }
"""
CALLS: list[dict[str, Any]] = [
    {"id": "m", "tool": "read_mail", "arguments": {}, "result": "5"},
    {"tool": "pay", "arguments": {"amount": 5}, "uses": {"amount": ["m"]}, "expect": "denied"},
]


# Reading of drawings


@dataclass(frozen=True)
class Rectangle:
    """A part of a drawing. Parts that touch do not overlap."""

    x: float
    y: float
    right: float
    bottom: float

    def overlaps(self, other: "Rectangle") -> bool:
        across = self.x < other.right - 0.2 and other.x < self.right - 0.2
        return across and self.y < other.bottom - 0.2 and other.y < self.bottom - 0.2

    def contains(self, other: "Rectangle") -> bool:
        across = self.x <= other.x + 0.2 and other.right <= self.right + 0.2
        return across and self.y <= other.y + 0.2 and other.bottom <= self.bottom + 0.2


def parsed(drawing: str) -> Root:
    return ET.fromstring(drawing)  # noqa: S314 - it is the package's own


def with_class(root: Root, css: str) -> list[Root]:
    return [element for element in root.iter() if css in element.get("class", "").split()]


def points(text: str | None) -> list[tuple[float, float]]:
    values = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text or "")]
    return list(zip(values[::2], values[1::2], strict=True))


def around(corners: list[tuple[float, float]]) -> Rectangle:
    across, down = [x for x, _ in corners], [y for _, y in corners]
    return Rectangle(min(across), min(down), max(across), max(down))


def rectangle(element: Root) -> Rectangle:
    if "d" in element.attrib:
        return around(points(element.get("d")))
    x, y, width, height = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
    return Rectangle(x, y, x + width, y + height)


def text_rectangle(element: Root) -> Rectangle:
    size = 14 / 12 if element.get("class") == "heading" else 1
    width = len(element.text or "") * CHARACTER * size
    x, middle = float(element.attrib["x"]), float(element.attrib["y"]) - 4
    x -= width / 2 if element.get("text-anchor") == "middle" else 0
    return Rectangle(x, middle - LINE / 2, x + width, middle + LINE / 2)


def curve(ends: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points on a way of cubic Bézier curves."""
    for first in range(0, len(ends) - 1, 3):
        a, b, c, d = ends[first : first + 4]
        for step in range(21):
            t = step / 20
            weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t**3)
            x, y = (
                sum(w * p[i] for w, p in zip(weights, (a, b, c, d), strict=True)) for i in (0, 1)
            )
            yield x, y


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    texts = st.text("abc XYZ_-<&", max_size=60)
    numbers = range(draw(st.integers(1, 14)))
    vertices = tuple(
        Vertex(f"v{number}", draw(texts), tuple(draw(st.lists(texts, max_size=3))),
               draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TONES)))
        for number in numbers
    )  # fmt: skip
    keys = st.sampled_from([vertex.key for vertex in vertices])
    names = st.lists(st.sampled_from(["mail", "web", "a long tag" * 9]), max_size=2).map(tuple)
    arrows = draw(st.lists(st.builds(Arrow, keys, keys, texts, names), max_size=24))
    return Flow(draw(texts), vertices, tuple(arrows))


# Geometry


@given(flows())
def test_no_text_leaves_its_box_or_overlaps_another(flow: Flow) -> None:
    root = parsed(flow.svg())
    groups = with_class(root.find(f"{SVG}g") or root, "vertex")
    boxes = [rectangle(with_class(group, "shape")[0]) for group in groups]
    for group, box in zip(groups, boxes, strict=True):
        assert all(box.contains(text_rectangle(text)) for text in group.iter(f"{SVG}text"))
    arrows = with_class(root.find(f"{SVG}g") or root, "arrow")
    rooms = [rectangle(room) for arrow in arrows for room in with_class(arrow, "under")]
    for arrow in arrows:
        for room in with_class(arrow, "under"):
            lines = list(arrow.iter(f"{SVG}text"))
            assert all(rectangle(room).contains(text_rectangle(line)) for line in lines)
    places = [*boxes, *rooms]
    for number, place in enumerate(places):
        assert not any(place.overlaps(other) for other in places[number + 1 :])


def below_a_high_box() -> Flow:
    """Arrows from a low box to what is on the other side of a high one."""
    lows = tuple(Vertex(f"c{number}", "child") for number in range(8))
    high = Vertex("high", "high", ("words " * 30,) * 4)
    arrows = tuple(Arrow(source, low.key) for source in ("low", "high") for low in lows)
    return Flow("", (Vertex("low", "low"), high, *lows), arrows)


@example(below_a_high_box())
@given(flows())
def test_every_arrow_goes_from_its_source_to_its_target_and_around_all_other_boxes(
    flow: Flow,
) -> None:
    group = parsed(flow.svg()).find(f"{SVG}g")
    assert group is not None
    boxes = {
        vertex.get("data-key"): rectangle(with_class(vertex, "shape")[0])
        for vertex in with_class(group, "vertex")
    }
    arrows = with_class(group, "arrow")
    assert len(arrows) == len(flow.arrows)
    for arrow, drawn in zip(flow.arrows, arrows, strict=True):
        way = points(with_class(drawn, "line")[0].get("d"))
        for (x, y), key in ((way[0], arrow.source), (way[-1], arrow.target)):
            assert boxes[key].contains(Rectangle(x, y, x, y))
        for x, y in curve(way):
            assert not any(box.overlaps(Rectangle(x, y, x, y)) for box in boxes.values())


@given(flows())
def test_everything_is_inside_the_picture(flow: Flow) -> None:
    root = parsed(flow.svg())
    whole = rectangle(with_class(root, "page")[0])
    assert f"0 0 {root.get('width')} {root.get('height')}" == root.get("viewBox")
    group = root.find(f"{SVG}g")
    (shift,) = points((group.get("transform") if group is not None else None) or "0 0")
    for text in root.findall(f"{SVG}text"):
        assert whole.contains(text_rectangle(text))
    for element in with_class(root, "under") + with_class(root, "line"):
        if element.get("d", "").endswith("h26"):
            continue  # of the legend
        part = rectangle(element)
        moved = [
            (part.x + shift[0], part.y + shift[1]),
            (part.right + shift[0], part.bottom + shift[1]),
        ]
        assert whole.contains(around(moved))


@given(flows())
def test_a_picture_depends_only_on_what_it_shows(flow: Flow) -> None:
    again = Flow(flow.title, tuple(flow.vertices), tuple(flow.arrows))
    assert flow.svg() == again.svg()
    assert flow.svg(standalone=False) == again.svg(standalone=False)


def test_data_flows_downwards_and_only_what_closes_a_cycle_goes_up() -> None:
    vertices = tuple(Vertex(key, key) for key in "abc")
    flow = Flow("", vertices, (Arrow("a", "b"), Arrow("b", "c"), Arrow("c", "a"), Arrow("b", "b")))
    ways = [points(line.get("d")) for line in with_class(parsed(flow.svg()), "line")]
    assert [way[0][1] < way[-1][1] for way in ways] == [True, True, False, True]


def test_a_picture_of_many_calls_stays_small_and_says_what_it_leaves_out() -> None:
    labels = {"producers": ["hub"], "consumers": ["*"], "tags": []}
    calls = [FlowCall(f"tool{n}", "allowed", "good", {"x": labels}) for n in range(500)]
    calls.append(FlowCall("last", "denied", "bad", {"x": labels}, "must deny always;"))
    root = parsed(flow_of_calls("many", calls).svg())
    vertices = with_class(root.find(f"{SVG}g") or root, "vertex")
    assert len(vertices) == 61
    words = " ".join(root.itertext())
    assert "and 442 more" in words
    assert "must deny always" in words


# Safety


def assert_only_drawn(drawing: str) -> Root:
    root = parsed(drawing)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "title", "desc", "style", "rect", "path", "text"}
    names = {name for element in root.iter() for name in element.attrib}
    assert names <= {
        "class", "role", "aria-label", "viewBox", "width", "height", "x", "y", "rx", "d", "tabindex",
        "transform", "text-anchor", "data-key", "data-source", "data-target",
    }  # fmt: skip
    return root


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_an_element_or_an_attribute(name: str) -> None:
    vertices = tuple(
        Vertex(f"{name}{shape}", name, (name, name), shape, "bad", name) for shape in SHAPES
    )
    first, *others = [vertex.key for vertex in vertices]
    arrows = tuple(Arrow(first, other, name, (name,), "", name) for other in others)
    flow = Flow(name, vertices, (*arrows, Arrow(first, first, name)))
    styles = assert_only_drawn(flow.svg()).findall(f"{SVG}style")
    assert len(styles) == 1
    assert name not in (styles[0].text or "")
    page = flow.svg(standalone=False)
    assert not assert_only_drawn(page).findall("style")
    for drawing in (flow.svg(), page):
        drawing.encode()
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\uffff]", drawing
        )


def test_a_drawing_for_a_page_has_no_styles_of_its_own_and_can_be_used_without_a_mouse() -> None:
    flow = Flow("", (Vertex("a", "pay", ("denied",), tone="bad"),))
    drawing = parsed(flow.svg(standalone=False))
    assert not [e for e in drawing.iter() if e.tag == "style" or "style" in e.attrib]
    (vertex,) = with_class(drawing, "vertex")
    assert vertex.get("class") == "vertex call bad"
    assert (vertex.get("data-key"), vertex.get("tabindex"), vertex.get("role")) == ("a", "0", "img")
    assert vertex.get("aria-label") == vertex.findtext("title") == "call `pay`: denied."


# Words and colours


def test_the_whole_picture_is_also_there_in_words() -> None:
    flow = Flow("Title", (Vertex("a", "read"), Vertex("b", "send", ("denied",), tone="bad")),
                (Arrow("a", "b", "text", ("mail",)),))  # fmt: skip
    assert flow.text().splitlines() == [
        "Title", "call `read`.", "call `send`: denied.", "`read` → `send`: text [mail].",
    ]  # fmt: skip
    root = parsed(flow.svg())
    assert root.findtext(f"{SVG}desc") == flow.text()
    assert root.findtext(f"{SVG}title") == root.get("aria-label") == "Title"


def test_a_long_title_is_cut_in_its_box_and_whole_in_its_tooltip() -> None:
    name = "a_very_long_name_of_a_tool_" * 4
    (vertex,) = with_class(parsed(Flow("", (Vertex("a", name),)).svg()), "vertex")
    assert (vertex.findtext(f"{SVG}text") or "").endswith("…")
    assert name in (vertex.findtext(f"{SVG}title") or "")


def test_denials_and_labels_are_seen_without_colours() -> None:
    root = parsed(Flow("", (Vertex("a", "x"), Vertex("b", "y", tone="bad")),
                       (Arrow("a", "b", "", ("mail",)),)).svg())  # fmt: skip
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"✕ y", "[mail]"} <= {*texts}
    assert re.search(r"\.flow \.bad \.shape\{[^}]*stroke-dasharray", FLOW_CSS)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_enough_contrast(scheme: int) -> None:
    colours = dict(re.findall(r"--([\w-]+):(#\w{6})", FLOW_CSS.split("@media")[scheme]))
    pairs = [(text, "page") for text in colours if not text.endswith(("box", "page", "edge"))]
    pairs += [(text, "box") for text in ("ink", "quiet")]
    pairs += [(text, f"{tone}-box") for tone in TONES if tone for text in ("ink", "quiet", tone)]
    for text, ground in pairs:
        lighter, darker = sorted(
            (luminance(colours[text]), luminance(colours[ground])), reverse=True
        )
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


# What is drawn


class State(TypedDict, total=False):
    topic: str
    mail: str
    sent: str


def graph() -> StateGraph[Any, Any, Any, Any]:
    def read_mail(state: State) -> Any:
        return with_labels({"mail": f"about {state['topic']}"}, tags=["mail"])

    def check(state: State) -> str:
        return "again" if not state["mail"] else "send"

    def send(state: State) -> Any:
        return {"sent": state["mail"]}

    builder = StateGraph(State).add_node(read_mail).add_node(send).add_edge(START, "read_mail")
    ends: dict[Hashable, str] = {"again": "read_mail", "send": "send"}
    return builder.add_conditional_edges("read_mail", check, ends).add_edge("send", END)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(
        script=[{"when": {"role": "planner"}, "program": "pay(amount=read_mail())"}]
    ) as local:
        yield local


@pytest.fixture(scope="module")
def executor(server: LocalServer) -> LangGraphExecutor:
    policy = 'tool "send" { must deny when mail.tags overlaps {"mail"}; }'
    model = ChatSequrity(
        "any/model", base_url=server.base_url, policy=policy, features={"agent_arch": "dual-llm"}
    )
    return LangGraphExecutor(graph(), model)


@pytest.fixture(scope="module")
def trace(executor: LangGraphExecutor) -> Trace:
    trace = Trace()
    with pytest.raises(PolicyDenied):
        executor.invoke({"topic": "bills"}, config={"callbacks": [trace]})
    return trace


def test_a_trace_is_saved_as_the_flow_of_data_to_the_denied_node(
    trace: Trace, tmp_path: Path
) -> None:
    path = trace.save(tmp_path / "run.svg")
    root = assert_only_drawn(path.read_text("utf-8"))
    (denied,) = with_class(root.find(f"{SVG}g") or root, "bad")
    texts = [text.text or "" for text in denied.iter(f"{SVG}text")]
    assert texts[:2] == ["✕ send", "denied"]
    assert "must deny when mail.tags overlaps" in " ".join(texts)
    assert "`read_mail` → `send`: mail [mail]." in (root.findtext(f"{SVG}desc") or "")


def test_a_picture_is_only_saved_as_svg(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in `\.svg`; got `run\.png`"):
        trace.save(tmp_path / "run.png")
    assert not list(tmp_path.iterdir())


def test_a_notebook_gets_the_picture_as_an_image_above_the_table(trace: Trace) -> None:
    for shown in (trace, trace.runs[0]):
        forms = shown._repr_mimebundle_()
        assert forms["text/plain"] == str(shown)
        image, table = forms["text/html"].split("<table", 1)
        data = re.fullmatch(
            r'<img alt="([^"]*)" .*src="data:image/svg\+xml;base64,([^"]+)">', image, re.DOTALL
        )
        assert data
        assert base64.b64decode(data[2]).decode() == forms["image/svg+xml"] == shown.svg()
        assert "`send`: denied" in html.unescape(data[1])
        assert "send" in table
        assert list(shown._repr_mimebundle_(include={"text/plain"})) == ["text/plain"]


def test_a_notebook_gets_the_picture_of_a_graph_with_a_run_as_an_image(
    executor: LangGraphExecutor, trace: Trace
) -> None:
    flow = executor.explain().flow(trace.runs[0])
    forms = flow._repr_mimebundle_()
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)">$', forms["text/html"])
    assert data
    assert base64.b64decode(data[1]).decode() == forms["image/svg+xml"] == flow.svg()
    assert forms["text/plain"] == flow.text()


def test_a_graph_is_drawn_with_its_routers_and_with_what_a_run_did(
    executor: LangGraphExecutor, trace: Trace
) -> None:
    explanation = executor.explain()
    plan = explanation.flows()[0].text()
    assert "`START` → `read_mail`." in plan
    assert "router `check`" in plan
    assert "`check` → `read_mail`: again." in plan
    assert "`send` → `END`." in plan
    assert_only_drawn(explanation.svg())
    happened = explanation.flow(trace.runs[0]).text()
    assert "call `read_mail`: allowed: step 1" in happened
    assert "router `check`: allowed: step 2" in happened
    assert "call `send`: denied: step 3, must deny when mail.tags" in happened


def test_a_simulation_and_its_coverage_are_drawn_with_the_rule_that_denied() -> None:
    for shown in (simulate(DENIES_MAIL, CALLS), coverage(DENIES_MAIL, CALLS)):
        text = shown.flows()[0].text()
        assert (
            'call `pay`: hard denied, must deny when amount.tags overlaps {"mail"} (line 3).'
            in text
        )
        assert "`read_mail` → `[mail]`: result [mail]." in text
        assert "`[mail]` → `pay`: amount [mail]." in text
        assert_only_drawn(shown.svg())


def test_a_program_that_ran_offline_is_drawn_up_to_its_value() -> None:
    run = run_program(
        DENIES_MAIL, "read_mail()", results=[{"tool": "read_mail", "result": "5"}]
    )  # fmt: skip
    text = run.flows()[0].text()
    assert "`read_mail` → `[mail]`: result [mail]." in text
    assert "`[mail]` → `value`: [mail]." in text


@tool
def read_mail() -> str:
    """Read the mail."""
    return "5"


def test_a_turn_is_drawn_from_its_checks(server: LocalServer) -> None:
    model = ChatSequrity(
        "any/model",
        base_url=server.base_url,
        features={"agent_arch": "dual-llm"},
        policy=DENIES_MAIL,
        session_config={"response_format": {"include_policy_check_history": True}},
    ).bind_tools([read_mail, {"type": "function", "function": {"name": "pay"}}])
    question = model.invoke("pay")
    result = read_mail.invoke(question.tool_calls[0])
    with pytest.raises(PolicyDenied) as denied:
        model.invoke([("user", "pay"), question, result])
    picture = TurnPicture(denied.value)
    assert "call `pay`: hard denied" in picture.flows()[0].text()
    assert "`[mail]` → `pay`: amount [mail]." in picture.flows()[0].text()
    assert "hard denied" in str(picture)


def test_a_picture_of_a_turn_says_what_is_not_reported() -> None:
    assert "did not end a dual-LLM turn" in TurnPicture(AIMessage("Hi")).flows()[0].text()
    assert "labels not reported" in TurnPicture(PolicyDenied("no")).flows()[0].text()
    with pytest.raises(UsageError, match="got a value of type `str`"):
        TurnPicture("Hi")  # type: ignore[arg-type]


def test_the_command_draws_into_a_new_file(tmp_path: Path) -> None:
    policy, calls, picture = (tmp_path / name for name in ("p.sqrt", "calls.json", "calls.svg"))
    policy.write_text(DENIES_MAIL)
    calls.write_text(json.dumps(CALLS))
    arguments = ["policy", "simulate", str(policy), "--calls", str(calls), "--svg", str(picture)]
    first = CliRunner().invoke(cli, arguments)
    assert first.exit_code == 0, first.output
    assert "✕ pay" in picture.read_text("utf-8")
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2
    assert "calls.svg" in again.output
