"""`explain()` describes how a graph was compiled, and is displayed safely."""

import json
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, FieldRouter
from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Table
from langchain_sequrity.graph.explain import ExplainedTool, GraphExplanation
from tests.graph.running import secured
from tests.showing import SENDABLE, assert_plain_html, assert_shown_safely, on_rich


class State(TypedDict, total=False):
    user: str
    mail: str
    summary: str
    is_urgent: bool
    log: Annotated[list[str], operator.add]


class Mail(TypedDict):
    mail: str


class Model(BaseModel):
    mail: str = ""
    log: list[str] = []


def read(state: State) -> dict[str, Any]:
    found: dict[str, Any] = {"mail": "Hello"}
    if state["user"] == "bob":
        found["summary"] = "for Bob"
    return found


def summarize(state: State) -> dict[str, Any]:
    return {"summary": state["mail"][:3], "is_urgent": True}


def pick(state: State) -> str:
    return "now" if state["is_urgent"] else "later"


def send(state: State) -> dict[str, Any]:
    return {"log": [state["user"] + state["summary"]]}


def anything(state: State) -> Any:
    return dict(**state)


def of_mail(state: Mail) -> Any:
    return dict(**state)


def of_model(state: Model) -> Any:
    return {"log": [state.mail]}


def mail_graph() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State).add_sequence([read, summarize]).add_node(send).add_edge(START, "read")
    return graph.add_conditional_edges("summarize", pick, {"now": "send", "later": END})


def explained(
    model: ChatSequrity, graph: Any, nodes: dict[str, dict[str, Any]] | None = None
) -> GraphExplanation:
    return secured(graph, model, nodes).explain()


def by_name(explanation: GraphExplanation) -> dict[tuple[str, str | None], ExplainedTool]:
    return {(one.node, one.router): one for one in explanation.tools}


def test_each_node_is_listed_with_its_tool_its_reads_and_its_writes(model: ChatSequrity) -> None:
    found = by_name(explained(model, mail_graph()))
    assert list(found) == [
        ("read", None),
        ("summarize", None),
        ("summarize", "pick"),
        ("send", None),
    ]
    one = found["read", None]
    assert (one.tool, one.reads, one.reads_from) == ("read", ("user",), "source")
    assert (one.writes, one.definite, one.writes_from) == (("mail", "summary"), ("mail",), "source")
    assert one.follows == ("summarize",)
    one = found["send", None]
    assert (one.reads, one.writes, one.parameters) == (
        ("user", "summary"),
        ("log",),
        {"user": "user", "summary": "summary"},
    )


def test_a_router_is_listed_with_its_tool_its_reads_and_its_routes(
    model: ChatSequrity,
) -> None:
    one = by_name(explained(model, mail_graph()))["summarize", "pick"]
    assert (one.tool, one.reads, one.reads_from) == (
        "pick__from__summarize",
        ("is_urgent",),
        "source",
    )
    assert one.routes == {"now": "send", "later": END}


WAYS_TO_KNOW: list[tuple[str, Any, dict[str, Any], tuple[str, str]]] = [
    ("declared", anything, {"reads": ["mail"], "writes": ["log"]}, ("declared", "declared")),
    ("source", summarize, {}, ("source", "source")),
    ("nothing is known", anything, {}, ("everything", "everything")),
]


@pytest.mark.parametrize(
    ("function", "options", "known"),
    [one[1:] for one in WAYS_TO_KNOW],
    ids=[one[0] for one in WAYS_TO_KNOW],
)
def test_an_explanation_says_how_reads_and_writes_are_known(
    model: ChatSequrity, function: Any, options: dict[str, Any], known: tuple[str, str]
) -> None:
    graph = StateGraph(State).add_node("it", function).add_edge(START, "it")
    [one] = explained(model, graph, {"it": options}).tools
    assert (one.reads_from, one.writes_from) == known
    assert any("labels are imprecise" in note for note in one.notes) == ("everything" in known)


def test_an_explanation_says_why_a_pydantic_state_is_read_completely(model: ChatSequrity) -> None:
    graph = StateGraph(Model).add_node("it", of_model).add_edge(START, "it")
    [one] = explained(model, graph).tools
    assert (one.reads, one.reads_from) == (("mail", "log"), "everything")
    [note] = one.notes
    assert "pydantic model" in note
    assert "smaller `input_schema`" in note


def test_the_reads_of_a_node_with_a_smaller_schema_are_known_from_the_schema(
    model: ChatSequrity,
) -> None:
    graph = StateGraph(State).add_node("it", of_mail, input_schema=Mail).add_edge(START, "it")
    [one] = explained(model, graph).tools
    assert (one.reads, one.reads_from) == (("mail",), "schema")


def test_a_field_router_and_a_fused_router_have_no_tool(model: ChatSequrity) -> None:
    graph = mail_graph().add_conditional_edges(
        "send", FieldRouter("is_urgent", {True: "read", False: END})
    )
    found = by_name(explained(model, graph, {"summarize": {"fuse_router": True}}))
    looked_up, fused = found["send", "by_is_urgent"], found["summarize", "pick"]
    assert (looked_up.tool, looked_up.routes) == (None, {"True": "read", "False": END})
    assert (fused.tool, fused.routes) == (None, {"now": "send", "later": END})
    assert found["summarize", None].reads == ("mail", "is_urgent")


def test_a_node_that_is_an_internal_tool_is_listed_with_that_tool(model: ChatSequrity) -> None:
    options = {"reads": ["mail"], "writes": ["summary"], "internal_tool": "complete_turn"}
    found = by_name(explained(model, mail_graph(), {"summarize": options}))
    one = found["summarize", None]
    assert (one.tool, one.reads, one.definite) == ("complete_turn", ("mail",), ("summary",))


def test_the_followers_of_a_node_that_may_go_anywhere_are_unknown(model: ChatSequrity) -> None:
    def jump(state: State) -> Any:
        return Command(goto=state["user"])

    graph = StateGraph(State).add_node(jump).add_node(send).add_edge(START, "jump")
    found = by_name(explained(model, graph))
    assert found["jump", None].follows is None
    assert found["send", None].follows == ()


def test_an_explanation_says_why_nodes_do_not_run_side_by_side(model: ChatSequrity) -> None:
    graph: Any = StateGraph(State).add_node("a", lambda _: {}).add_node("b", lambda _: {})
    graph.add_edge(START, "a").add_edge(START, "b")
    policy = 'tool "result_of" { must allow always; }'
    apart = ChatSequrity("any/model", base_url=model.base_url, policy=policy)
    notes = [one.notes for one in secured(graph, apart).explain().tools]
    assert all("side by side" in note[-1] and "`result_of`" in note[-1] for note in notes)
    assert not any(
        "side by side" in str(one.notes) for one in secured(graph, model).explain().tools
    )


def test_an_explanation_can_be_converted_to_plain_data(model: ChatSequrity) -> None:
    explanation = explained(model, mail_graph())
    data = json.loads(json.dumps(explanation.to_dict()))
    assert data == explanation.to_dict()
    assert data["tools"][2]["routes"] == {"now": "send", "later": "__end__"}


def test_an_explanation_is_a_table_in_its_repr_in_rich_and_in_html(
    model: ChatSequrity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    explanation = explained(model, mail_graph())
    for shown in (repr(explanation), on_rich(explanation), explanation._repr_html_()):
        for text in ("pick__from__summarize", "summary (maybe)", "now → send", "later → END"):
            assert text in shown


@pytest.mark.parametrize("text", SENDABLE)
def test_names_in_a_graph_cannot_control_the_display_of_its_explanation(
    model: ChatSequrity, text: str
) -> None:
    text = text.replace(":", ";").replace("|", "/")  # LangGraph refuses both in the name of a node
    graph = StateGraph(State).add_node(text, anything).add_edge(START, text)
    graph.add_conditional_edges(text, FieldRouter("user", {text: END}))
    explanation = secured(graph.compile(name=text), model).explain()
    assert_shown_safely(explanation)
    assert plain(text) in on_rich(explanation)


TABLE = Table(
    title="A title",
    columns=("first", "second"),
    rows=((("a word " * 9, "水" * 20), ()), (("x",), ("y" * 90,))),
    notes=("A note",),
)


@pytest.mark.parametrize("width", [10, 30, 60, 500])
def test_a_table_fits_the_terminal_unless_it_is_very_narrow(width: int) -> None:
    lines = TABLE.text(width).split("\n")
    assert (lines[0], lines[-1]) == ("A title", "A note")
    assert sum(line.count("y") for line in lines) == 90
    assert sum(line.count("word") for line in lines) == 9
    assert max(map(len, lines)) <= max(width, 14)


def test_the_cells_of_an_html_table_are_escaped() -> None:
    table = Table("T", ("a",), ((("<b>", "&"),),))
    assert_plain_html(table.html())
    assert ">&lt;b&gt;<br>&amp;</td>" in table.html()


def test_a_row_with_a_tone_is_coloured_in_html() -> None:
    rows = ((("yes",),), (("no",),), (("who knows",),), (("neither",),))
    table = Table("T", ("a",), rows, tones=("good", "bad", "doubtful", ""))
    page = table.html()
    assert_plain_html(page)
    assert [part.count("color") for part in page.split("<tr")[2:]] == [1, 1, 1, 0]
    assert "neither" in table.text()
