"""Map-reduce: jokes about subjects with `Send`, and a summary that collapses until it is short."""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import ScriptedModel, same_as_langgraph


class Overall(TypedDict, total=False):
    topic: str
    subjects: list[str]
    jokes: Annotated[list[str], operator.add]
    best: str


class Subject(TypedDict):
    subject: str


llm = ScriptedModel(answer=lambda messages: messages[-1].text[::-1])


def generate_topics(state: Overall) -> dict[str, Any]:
    return {"subjects": [f"{state['topic']} {kind}" for kind in ("lions", "elephants", "penguins")]}


def generate_joke(state: Subject) -> dict[str, Any]:
    return {"jokes": [llm.invoke(f"joke about {state['subject']}").text]}


def continue_to_jokes(state: Overall) -> list[Send]:
    return [Send("generate_joke", {"subject": one}) for one in state["subjects"]]


def best_joke(state: Overall) -> dict[str, Any]:
    return {"best": max(state["jokes"], key=len)}


def jokes() -> Any:
    graph: Any = StateGraph(Overall)
    graph.add_node("generate_topics", generate_topics)
    graph.add_node("generate_joke", generate_joke)
    graph.add_node("best_joke", best_joke)
    graph.add_edge(START, "generate_topics")
    graph.add_conditional_edges("generate_topics", continue_to_jokes, ["generate_joke"])
    graph.add_edge("generate_joke", "best_joke")
    graph.add_edge("best_joke", END)
    return graph


def test_each_subject_gets_its_joke_and_the_best_is_chosen(model: ChatSequrity) -> None:
    [state] = same_as_langgraph(jokes, model, {"topic": "big"})
    assert len(state["jokes"]) == 3
    assert state["best"] == "joke about big elephants"[::-1]


class Summary(TypedDict, total=False):
    contents: list[str]
    summaries: Annotated[list[str], operator.add]
    collapsed: list[str]
    final: str


def summarize(state: dict[str, Any]) -> dict[str, Any]:
    return {"summaries": [state["content"][: len(state["content"]) // 2]]}


def map_contents(state: Summary) -> list[Send]:
    return [Send("summarize", {"content": one}) for one in state["contents"]]


def collect(state: Summary) -> dict[str, Any]:
    return {"collapsed": state["summaries"]}


def collapse(state: Summary) -> dict[str, Any]:
    pairs = zip(state["collapsed"][::2], [*state["collapsed"][1::2], ""], strict=False)
    return {"collapsed": [(a + b)[:8] for a, b in pairs]}


def should_collapse(state: Summary) -> Literal["collapse", "finish"]:
    return "collapse" if sum(map(len, state["collapsed"])) > 8 else "finish"


def finish(state: Summary) -> dict[str, Any]:
    return {"final": " ".join(state["collapsed"])}


def summaries() -> Any:
    graph: Any = StateGraph(Summary)
    for node in (summarize, collect, collapse, finish):
        graph.add_node(node.__name__, node)
    graph.add_conditional_edges(START, map_contents, ["summarize"])
    graph.add_edge("summarize", "collect")
    graph.add_conditional_edges("collect", should_collapse)
    graph.add_conditional_edges("collapse", should_collapse)
    return graph


def test_summaries_collapse_until_they_are_short(model: ChatSequrity) -> None:
    contents = [f"content number {i} of this document" for i in range(7)]
    [state] = same_as_langgraph(summaries, model, {"contents": contents})
    assert len(state["summaries"]) == 7
    assert len(state["final"]) <= 8
