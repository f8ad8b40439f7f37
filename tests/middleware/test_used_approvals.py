"""An approval is used up in its thread, however the thread returns to a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from langchain_sequrity.middleware import PolicyMiddleware
from tests.graph.going_back import RUNS, WAYS, taken, trip
from tests.middleware.agents import Till, ask, calling, turns

SOFT = 'tool "pay" { should deny when not euros.value in {int 1..100}; }'
ONE = calling(("pay", {"euros": 500}))
TWO = calling(("pay", {"euros": 500}), ("pay", {"euros": 5}), ("pay", {"euros": 600}))
Build = Callable[..., Callable[[Any], Any]]


def agent(till: Till, *said: Any, saver: Any = None) -> Any:
    guard = PolicyMiddleware(SOFT, on_denied="interrupt")
    return create_agent(turns(*said), [till.pay], middleware=[guard], checkpointer=saver)


def alone(till: Till, *said: Any) -> Callable[[Any], Any]:
    return lambda saver: agent(till, *said, saver=saver)


def within(till: Till, *said: Any, keeps: bool | None = None) -> Callable[[Any], Any]:
    """An agent that is a node of another graph, with or without its own checkpoints."""

    def build(saver: Any) -> Any:
        graph = StateGraph(MessagesState).add_node("agent", agent(till, *said, saver=keeps))
        return graph.add_edge(START, "agent").compile(checkpointer=saver)

    return build


def remembering(till: Till, *said: Any) -> Callable[[Any], Any]:
    return within(till, *said, keeps=True)


def delegated(till: Till, *said: Any) -> Callable[[Any], Any]:
    """An agent that a tool of another agent calls."""

    def build(saver: Any) -> Any:
        inner = agent(till, *said)

        @tool
        def delegate(job: str) -> str:
            """Let another agent do it."""
            return str(inner.invoke(ask(job)))

        outer = calling(("delegate", {"job": "x"}))
        return create_agent(turns(outer), [delegate], checkpointer=saver)

    return build


PLACES: list[Build] = [alone, within, remembering, delegated]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("way", "saver", "durability"), RUNS)
@pytest.mark.parametrize(("said", "asked"), [([ONE, ONE], 2), ([TWO], 1)])
def test_no_way_of_going_back_repeats_an_approved_call(
    tmp_path: Path, place: Build, way: str, saver: str, durability: str, *, said: Any, asked: int
) -> None:
    till = Till()
    build = place(till, *said)
    with trip(build, tmp_path, way=way, saver=saver, durability=durability) as travelled:
        travelled.go(ask())
        questions = []
        for _ in range(asked):
            questions.append(travelled.state().config)
            travelled.approve()
        made = [euros for euros, _ in till.paid if euros > 100]
        assert len(made) == 2
        places = travelled.places()
        for config in questions:
            travelled.approve(travelled.copy(config))
        for config in places:
            travelled.approve(config)
            travelled.go(None, config)
            travelled.approve(config)
        assert [euros for euros, _ in till.paid if euros > 100] == made


@pytest.mark.long(sample=5)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_going_back_to_a_question_asks_again_and_each_answer_counts_once(
    tmp_path: Path, place: Build, way: str
) -> None:
    till = Till()
    build = place(till, ONE)
    with trip(build, tmp_path, way=way, saver="memory", durability="sync") as travelled:
        travelled.go(ask())
        old = travelled.state().config
        travelled.approve()
        for paid in (1, 2, 3):
            travelled.approve(old)
            assert len(till.paid) == paid
            travelled.go(None, old)
            assert travelled.state().interrupts
            assert len(till.paid) == paid
            travelled.approve()
            assert len(till.paid) == paid + 1


@settings(max_examples=10)
@given(place=st.sampled_from(PLACES), way=st.sampled_from(WAYS), data=st.data())
def test_a_call_is_made_only_after_an_answer_to_a_question_at_the_newest_checkpoint(
    place: Build, way: str, data: st.DataObject
) -> None:
    till = Till()
    build = place(till, ONE, ONE)
    with (
        TemporaryDirectory() as folder,
        trip(build, Path(folder), way=way, saver="memory", durability="sync") as travelled,
    ):
        travelled.go(ask())
        for _ in range(data.draw(st.integers(0, 12))):
            before, may_pay = len(till.paid), taken(travelled, data)
            assert len(till.paid) <= before + may_pay
