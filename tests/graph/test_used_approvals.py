"""An approval counts only once in its thread, however a caller goes back."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from langchain_sequrity import ChatSequrity
from langchain_sequrity.graph.journal import add_entries, read_record, records_of_session
from langchain_sequrity.graph.program import JOURNAL
from langchain_sequrity.local import LocalServer
from tests.graph.going_back import RUNS, THREAD, WAYS, Trip, taken, trip
from tests.graph.ledger import Ledger, Ran, ledger
from tests.graph.running import secured

APPROVE: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
SOFT = 'tool "pay" { should deny always; }'
Build = Callable[[str, Ran], Callable[[Any], Any]]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def alone(url: str, ran: Ran) -> Callable[[Any], Any]:
    return lambda saver: executor(url, ran, saver)


def executor(url: str, ran: Ran, saver: Any = None) -> Any:
    model = ChatSequrity("any/model", base_url=url, policy=SOFT)
    return secured(ledger(ran), model, checkpointer=saver, on_denied="interrupt")


def within(url: str, ran: Ran, *, keeps: bool | None = None) -> Callable[[Any], Any]:
    """An executor that is a node of another graph, with or without its own memory."""

    def build(saver: Any) -> Any:
        parent: Any = StateGraph(Ledger)
        parent.add_node("secure", executor(url, ran, keeps))
        parent.add_node("after", lambda _: {"denied": None})
        parent.add_edge(START, "secure").add_edge("secure", "after")
        return parent.compile(checkpointer=saver)

    return build


def remembering(url: str, ran: Ran) -> Callable[[Any], Any]:
    return within(url, ran, keeps=True)


def called(url: str, ran: Ran) -> Callable[[Any], Any]:
    """An executor that a node of another graph calls."""

    def build(saver: Any) -> Any:
        secure = executor(url, ran)

        def run(state: Ledger) -> Any:
            return secure.invoke({"due": state["due"]})

        parent: Any = StateGraph(Ledger).add_node("secure", run).add_edge(START, "secure")
        return parent.compile(checkpointer=saver)

    return build


PLACES: list[Build] = [alone, within, remembering, called]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("way", "saver", "durability"), RUNS)
def test_no_way_of_going_back_repeats_an_approved_call(
    local: LocalServer, tmp_path: Path, place: Build, way: str, saver: str, durability: str
) -> None:
    ran = Ran()
    build = place(local.base_url, ran)
    with trip(build, tmp_path, way=way, saver=saver, durability=durability) as travelled:
        travelled.go({"due": [5, 6]})
        asked = []
        for times in range(2):
            assert ran.of("pay") == times
            asked.append(travelled.state().config)
            travelled.approve()
        assert ran.of("pay") == 2
        places = travelled.places()
        for config in asked:
            travelled.approve(travelled.copy(config))
        for config in places:
            travelled.approve(config)
            travelled.go(None, config)
            travelled.approve(config)
        assert ran.of("pay") == 2


class Short(InMemorySaver):
    """Lists checkpoints without their pending writes, as a checkpointer may."""

    def list(self, *args: Any, **options: Any) -> Iterator[CheckpointTuple]:
        for found in super().list(*args, **options):
            yield found._replace(pending_writes=None)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", [alone, remembering])
def test_no_way_back_makes_an_approved_call_again_if_writes_are_not_listed(
    local: LocalServer, place: Build
) -> None:
    ran, saver = Ran(), Short()
    travelled = Trip(place(local.base_url, ran), saver, "invoke", asyncio.run, "sync")
    travelled.go({"due": [5]})
    travelled.approve()
    for config in travelled.places():
        travelled.approve(config)
        travelled.go(None, config)
        travelled.approve(config)
    assert ran.of("pay") == 1


class Dying(InMemorySaver):
    """Stores what an approved call returned, and fails at the checkpoint that follows."""

    def __init__(self) -> None:
        super().__init__()
        self._is_made, self._is_dead = False, False

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        super().put_writes(config, writes, task_id, task_path)
        results = [new for channel, new in writes if channel == JOURNAL and isinstance(new, list)]
        ids = [str(one.get("id")) for new in results for one in new]
        self._is_made |= any(one.startswith("approved:") for one in ids)

    def put(self, *args: Any, **options: Any) -> Any:
        if self._is_made and not self._is_dead:
            self._is_dead = True
            msg = "the power went out"
            raise OSError(msg)
        return super().put(*args, **options)


@pytest.mark.parametrize("goes_back", [True, False])
def test_an_approved_call_is_not_repeated_if_only_its_result_was_stored(
    local: LocalServer, *, goes_back: bool
) -> None:
    ran, saver = Ran(), Dying()
    secure = executor(local.base_url, ran, saver)
    secure.invoke({"due": [5]}, THREAD)
    with pytest.raises(OSError, match="the power went out"):
        secure.invoke(APPROVE, THREAD, durability="sync")
    assert ran == ["read", "pay", "more"]
    if goes_back:
        assert secure.invoke(None, secure.get_state(THREAD).config)["__interrupt__"]
    else:
        assert secure.invoke(None, THREAD)["note"] == "paid 5"
    assert ran.of("pay") == 1


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_going_back_to_a_question_asks_again_and_each_answer_counts_once(
    local: LocalServer, tmp_path: Path, place: Build, way: str
) -> None:
    ran = Ran()
    build = place(local.base_url, ran)
    with trip(build, tmp_path, way=way, saver="memory", durability="sync") as travelled:
        travelled.go({"due": [5]})
        old = travelled.state().config
        travelled.approve()
        for paid in (1, 2, 3):
            travelled.approve(old)
            assert ran.of("pay") == paid
            travelled.go(None, old)
            assert travelled.state().interrupts
            assert ran.of("pay") == paid
            travelled.approve()
            assert ran.of("pay") == paid + 1


@settings(max_examples=6)
@given(place=st.sampled_from(PLACES), way=st.sampled_from(WAYS), data=st.data())
def test_a_call_is_made_only_after_an_answer_to_a_question_at_the_newest_checkpoint(
    local: LocalServer, place: Build, way: str, data: st.DataObject
) -> None:
    ran = Ran()
    build = place(local.base_url, ran)
    with (
        TemporaryDirectory() as folder,
        trip(build, Path(folder), way=way, saver="memory", durability="sync") as travelled,
    ):
        travelled.go({"due": [5, 6]})
        for _ in range(data.draw(st.integers(0, 12))):
            before, may_pay = ran.of("pay"), taken(travelled, data)
            assert ran.of("pay") <= before + may_pay


@pytest.mark.long
def test_a_fork_finds_its_run_among_other_runs_of_the_same_checkpoint(
    local: LocalServer,
) -> None:
    # A checkpointer may order what it stores by the names of sessions, which are random.
    for _ in range(10):
        build = alone(local.base_url, Ran())
        with (
            TemporaryDirectory() as folder,
            trip(build, Path(folder), way="astream", saver="memory", durability="sync") as journey,
        ):
            journey.go({"due": [5, 6]})
            journey.go(None, journey.places()[1])
            journey.approve()
            for place in (4, 0):
                journey.approve(journey.places()[place])
            journey.go(None, journey.places()[5])  # reports no lost entries


def test_entries_of_two_runs_from_one_checkpoint_count_in_any_order() -> None:
    def of(session: str) -> list[list[dict[str, Any]]]:
        first = {"in": session, "step": 2, "reset": session, "open": 0}
        said = {"in": session, "step": 2, "number": 0, "said": f"of {session}", "calls": []}
        result: dict[str, Any] = {"in": session, "id": session, "tool": "t", "result": "1"}
        result |= {"digest": "", "labels": {}, "combine": "merge"}
        return [[first], [said], [result]]

    left: list[dict[str, Any]]
    left = [{"in": "left", "reset": "left"}, {"in": "left", "number": 0, "said": "left"}]
    before = add_entries(left, [[{"in": "before", "reset": "before"}]])
    for batch in ([*of("a"), *of("b")], [*of("b"), *of("a")]):
        kept = add_entries(before, batch)
        for session in ("a", "b"):
            records = [one for one in records_of_session(kept, session) if one.session == session]
            assert records == [read_record(entry) for new in of(session) for entry in new]
        assert not [one for one in kept if one["in"] == "left"]
