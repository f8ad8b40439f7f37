"""Runs that need several programs: one after the other, and several for the packets of one step.

With limits of a few steps and packets, every graph needs several programs. It must end, and must
keep its labels, as with one program.
"""

import logging
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import Overloaded, StatusError
from langchain_sequrity.graph.journal import FinishedRun
from langchain_sequrity.graph.program import RUN
from langchain_sequrity.graph.runtime import driver
from langchain_sequrity.graph.runtime.state_variables import ProgramLimits
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.memory_sessions import MemorySessions
from tests.graph.differential import compare
from tests.graph.journey_labels import look
from tests.graph.journeys import travel
from tests.graph.random_graphs import MIXES
from tests.graph.running import secured

LIMITS = [(1, 1), (1, 3), (2, 2), (3, 1)]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """LangGraph warns of targets that do not exist; these graphs have some."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def limit_programs(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def limit(steps: int, packets: int) -> None:
        monkeypatch.setattr(driver, "ProgramLimits", partial(ProgramLimits, steps, packets))

    return limit


@pytest.fixture(params=LIMITS, ids=str)
def short_programs(
    request: pytest.FixtureRequest, limit_programs: Callable[[int, int], None]
) -> None:
    limit_programs(*request.param)


class State(TypedDict, total=False):
    count: int
    items: Annotated[list[Any], operator.add]
    last: str


def loop(times: int) -> StateGraph[State]:
    """A node that routes to itself."""
    graph = StateGraph(State).add_node("step", lambda s: {"count": s["count"] + 1})
    graph.add_conditional_edges("step", lambda s: "step" if s["count"] < times else END)
    return graph.add_edge(START, "step")


def fan_out(number: int, *, work: Callable[[Any], Any] | None = None) -> Any:
    """As many packets in one step, beside a node; then a node that sees what they wrote."""
    default = lambda packet: {"items": [packet["n"]]}  # noqa: E731
    graph: Any = StateGraph(State)
    graph.add_node("beside", lambda _: {"items": ["beside"]})
    graph.add_node("work", work or default)
    graph.add_node("end", lambda s: {"count": len(s["items"]), "last": str(s["items"][-1])})
    packets = [Send("work", {"n": n}) for n in range(number)]
    graph.add_conditional_edges(START, lambda _: [*packets, "beside"], ["work", "beside"])
    return graph.add_edge("work", "end").add_edge("beside", "end").add_edge("end", END)


@pytest.mark.long(sample=6)
@pytest.mark.usefixtures("short_programs")
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("make", [loop, fan_out])
def test_a_run_of_any_length_ends_as_in_langgraph(
    make: Callable[[int], StateGraph[State]],
    number: int,
    saves: bool,
    model: ChatSequrity,
) -> None:
    plain = make(number).compile(checkpointer=InMemorySaver() if saves else None)
    executor = secured(make(number), model, checkpointer=InMemorySaver() if saves else None)
    config: Any = {"configurable": {"thread_id": "1"}}
    for start in (0, 1):  # the second run continues the thread
        state: Any = {"count": start}
        assert executor.invoke(state, config) == plain.invoke(state, config)


@pytest.mark.long(sample=1)
@pytest.mark.usefixtures("short_programs")
@pytest.mark.parametrize("mix", MIXES)
def test_random_graphs_end_as_in_langgraph_with_any_limits(
    mix: str,
    model: ChatSequrity,
) -> None:
    compared = [compare(mix, seed, model) for seed in range(6)]
    assert not [each for each in compared if each.verdict in {"DIFFERENT", "refused"}]


@pytest.mark.long(sample=2)
@pytest.mark.usefixtures("short_programs")
@pytest.mark.parametrize("mix", MIXES)
def test_threads_that_go_back_fork_and_are_edited_are_as_in_langgraph_with_any_limits(
    mix: str,
    model: ChatSequrity,
) -> None:
    journeys = [travel(mix, seed, model) for seed in (20, 21)]
    wrong = [(j.moves, j.told) for j in journeys if j.verdict not in {"equal", "endless"}]
    assert not wrong, wrong


@pytest.mark.long(sample=1)
@pytest.mark.usefixtures("short_programs")
@pytest.mark.parametrize("mix", MIXES)
def test_no_label_is_lost_between_the_programs_of_a_run(
    mix: str,
) -> None:
    with LocalServer(isolated_programs=False) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        looks = [look(mix, seed, model) for seed in range(3)]
    assert not [label for each in looks for label in each.lost]


def labels_after(executor: Any, config: Any) -> Any:
    """The labels that a thread keeps of its fields."""
    saved = executor.checkpointer.get_tuple(config)
    [stored] = [value for _, channel, value in saved.pending_writes if channel == RUN]
    return FinishedRun.read(stored).labels


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("make", [loop, fan_out])
def test_the_labels_after_a_run_are_those_of_one_program(
    make: Callable[[int], StateGraph[State]],
    limits: tuple[int, int],
    model: ChatSequrity,
    limit_programs: Callable[[int, int], None],
) -> None:
    config: Any = {"configurable": {"thread_id": "1"}}
    stored = []
    for each in (limits, (1000, 1000)):
        limit_programs(*each)
        executor = secured(make(5), model, checkpointer=InMemorySaver())
        executor.invoke({"count": 0}, config)
        stored.append(labels_after(executor, config))
    assert stored[0] == stored[1]


@pytest.mark.long(sample=4)
@pytest.mark.usefixtures("short_programs")
@pytest.mark.parametrize("stops", [0, 2, 4])
def test_a_question_within_a_divided_step_is_answered_and_no_packet_runs_twice(
    stops: int,
    model: ChatSequrity,
) -> None:
    finished: list[int] = []

    def work(packet: Any) -> Any:
        answer = interrupt("?") if packet["n"] == stops else ""
        finished.append(packet["n"])
        return {"items": [f"{packet['n']}{answer}"]}

    executor = secured(fan_out(5, work=work), model, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    assert "__interrupt__" in executor.invoke({"count": 0}, config)
    result = executor.invoke(Command(resume="!"), config)
    answers = [f"{n}!" if n == stops else str(n) for n in range(5)]
    assert result["items"] == ["beside", *answers]
    assert sorted(finished) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stops", [1, 3, 5])
def test_a_divided_step_continues_where_the_limits_are_others(
    stops: int, model: ChatSequrity, limit_programs: Callable[[int, int], None]
) -> None:
    """Each call is made once, and the labels are those of one program."""
    asked: list[int] = []

    def work(packet: Any) -> Any:
        asked.append(packet["n"])
        return {"items": [interrupt("?") if packet["n"] == stops else str(packet["n"])]}

    def graph() -> Any:
        packets = [Send("work", {"n": n}) for n in range(6)]
        graph: Any = StateGraph(State).add_node("before", lambda _: {"last": "before"})
        graph.add_node("work", work).add_node("end", lambda _: {"last": "end"})
        graph.add_edge(START, "before").add_edge("work", "end")
        return graph.add_conditional_edges("before", lambda _: packets, ["work"])

    config: Any = {"configurable": {"thread_id": "1"}}
    stored = []
    for first_limit in (2, 1000):
        asked.clear()
        saver = InMemorySaver()
        limit_programs(200, first_limit)
        secured(graph(), model, checkpointer=saver).invoke({"count": 0}, config)
        limit_programs(200, 1000)
        executor = secured(graph(), model, checkpointer=saver)
        items = executor.invoke(Command(resume="!"), config)["items"]
        assert items == ["!" if n == stops else str(n) for n in range(6)]
        assert sorted(asked) == sorted([*range(6), stops])  # the question is asked again
        stored.append(labels_after(executor, config))
    assert stored[0] == stored[1]


@pytest.mark.parametrize("make", [loop, fan_out])
@pytest.mark.parametrize("fails", [1, 3, 6])
def test_a_run_that_failed_between_two_programs_continues(
    fails: int,
    make: Callable[..., StateGraph[State]],
    model: ChatSequrity,
    limit_programs: Callable[[int, int], None],
) -> None:
    limit_programs(2, 2)
    calls: list[int] = []

    def work(state: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == fails:
            raise RuntimeError
        return {"items": [state["n"]]} if "n" in state else {"count": state["count"] + 1}

    graph: Any = fan_out(6, work=work)
    if make is loop:
        graph = StateGraph(State).add_node("step", work).add_edge(START, "step")
        graph.add_conditional_edges("step", lambda s: "step" if s["count"] < 6 else END)
    executor = secured(graph, model, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(RuntimeError):
        executor.invoke({"count": 0}, config)
    result = executor.invoke(None, config)
    assert result["count"] == (6 if make is loop else 7)
    assert len(calls) == 7  # the call that failed, again


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("most_bytes", range(300_000, 500_000, 25_000))
def test_a_run_continues_with_smaller_programs_when_a_session_is_too_large(
    most_bytes: int,
) -> None:
    graph = StateGraph(State).add_node("step", lambda s: {"count": s["count"] + 1, "last": TEXT})
    graph.add_conditional_edges("step", lambda s: "step" if s["count"] < 40 else END)
    graph.add_edge(START, "step")
    sessions = MemorySessions(max_session_bytes=most_bytes)
    with LocalServer(isolated_programs=False, store=sessions) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        executor = secured(graph, model)
        assert executor.invoke({"count": 0})["count"] == 40
        assert len(sessions) > 1


TEXT = "x" * 20_000


class _Refusing(httpx.HTTPTransport):
    """Refuses the requests that are planned for refusal, with these statuses, one after another."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self.statuses: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.statuses:
            return httpx.Response(self.statuses.pop(0), json={"error": {"message": "too much"}})
        return super().handle_request(request)


@pytest.mark.parametrize("refusals", [[413], [413, 413]], ids=str)
@pytest.mark.parametrize("is_loop", [True, False], ids=["loop", "sequence"])
def test_a_thread_that_failed_at_its_end_ends_with_a_smaller_program(
    model: ChatSequrity, *, is_loop: bool, refusals: list[int]
) -> None:
    transport = _Refusing()

    def step(state: State) -> State:
        if state["count"] == 3:
            transport.statuses = [503]  # of the results of the last step
        return {"count": state["count"] + 1}

    graph = StateGraph(State)
    if is_loop:
        graph.add_node("step", step).add_edge(START, "step")
        graph.add_conditional_edges("step", lambda s: "step" if s["count"] < 4 else END)
    else:
        graph.add_sequence([(name, step) for name in "abcd"]).add_edge(START, "a")
    config: Any = {"configurable": {"thread_id": "1"}}
    with httpx.Client(transport=transport) as client:
        update = {"http_client": client, "max_retries": 0}
        executor = secured(graph, model.model_copy(update=update), checkpointer=InMemorySaver())
        with pytest.raises(Overloaded):
            executor.invoke({"count": 0}, config)
        transport.statuses = refusals
        assert executor.invoke(None, config)["count"] == 4


def test_a_single_step_that_is_too_large_is_an_error_that_says_what_to_do() -> None:
    graph = StateGraph(State).add_node("step", lambda _: {"last": TEXT * 10})
    graph.add_edge(START, "step").add_edge("step", END)
    sessions = MemorySessions(max_session_bytes=100_000)
    with LocalServer(isolated_programs=False, store=sessions) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        with pytest.raises(StatusError) as raised:
            secured(graph, model).invoke({"count": 0})
    assert "Store less in the fields" in "".join(raised.value.__notes__)
