"""The drawing of a graph's run: random graphs, whose steps must be explained by their own edges."""

import logging
from collections.abc import Iterator

import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.console import views
from langchain_sequrity.local.console.pictures import GraphRun, graph_run
from langchain_sequrity.local.console.policies import shown_policy
from langchain_sequrity.local.console.recorder import Recorder
from langchain_sequrity.wire.graph_edges import ANY_NODE, GraphEdge, edges_comment, edges_in
from tests.graph.differential import run
from tests.graph.graph_text import text_of
from tests.graph.random_graphs import MIXES, plan_of

_PER_MIX = 8


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """LangGraph warns of targets that do not exist; these graphs have some."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("mix", MIXES)
def test_each_step_of_a_drawing_follows_an_edge_of_the_graph(mix: str) -> None:
    steps = drawn = 0
    for seed in range(_PER_MIX):
        with LocalServer() as server:
            assert server._console is not None
            text = text_of(plan_of(MIXES[mix], f"{mix} {seed}"))
            run(text, ChatSequrity("any/model", base_url=server.base_url))
            for picture, edges in _runs(server._console.recorder):
                shown = {(arrow.source, arrow.target) for arrow in picture.flow.arrows}
                taken = [arrow for arrow in picture.flow.arrows if arrow.text]
                numbers = [n for arrow in taken for n in _numbers(arrow.text)]
                assert len(numbers) == len(set(numbers)), picture.flow.text()
                may_be_any = any(edge.target == ANY_NODE for edge in edges)
                for arrow in taken:
                    assert may_be_any or (arrow.source, arrow.target) in edges, (seed, arrow)
                assert {edge for edge in edges if edge.target != ANY_NODE} <= shown
                steps += len(picture.steps)
                drawn += len(shown)
    assert steps
    assert drawn


def _runs(recorder: Recorder) -> Iterator[tuple[GraphRun, tuple[GraphEdge, ...]]]:
    for session in recorder.sessions():
        for recorded in session.turns.values():
            if recorded.program is None:  # the server refused it
                continue
            turn = views.turn_view(recorded, shown_policy(session), views.told_in(session))
            picture = graph_run(session, recorded, turn)
            assert picture is not None
            yield picture, edges_in(recorded.program.programs[0])


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.partition(" and ")[0].split(", ")]


def test_edges_are_read_as_they_were_written() -> None:
    nodes = [f"node_{number}" for number in range(9)]
    edges = tuple(GraphEdge(a, b) for a in ["__start__", *nodes] for b in [*nodes, ANY_NODE])
    head = "# Graph 'g': each node is a tool."
    for count in range(len(edges)):
        program = "\n".join([head, *edges_comment(edges[:count]), "x = 1", ""])
        assert edges_in(program) == edges[:count]
        assert max(map(len, program.split("\n"))) <= 100
    assert edges_comment([GraphEdge("a", f"b{number}") for number in range(201)]) == []


@pytest.mark.parametrize(
    "program",
    ["", "\n", "x", "# Edges: a -> b", "head\n# Edges: \n", "head\n# Edges: a -> b -> c; <b> -> x\nx = 1",
     "head\n# Edges: a\n#   -> \n", "head\n#   a -> b\nx = 1"],
)  # fmt: skip
def test_other_comments_are_no_edges(program: str) -> None:
    assert edges_in(program) == ()
