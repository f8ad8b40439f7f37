"""Checkpoints of a run are small, and a run can continue from any of them."""

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.durability.growth import State, chain, plain, secured
from tests.graph.durability.killing import expected
from tests.graph.durability.subject import GIVEN, Note, graph
from tests.graph.services import noted

_THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}}


class Texts(TypedDict, total=False):
    texts: Annotated[list[str], operator.add]
    all: str


class Crash(BaseException):
    """Stands for the end of a process."""


class Crashing(InMemorySaver):
    """A saver that fails at its n-th checkpoint, and works again after that."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def put(self, *args: Any, **options: Any) -> RunnableConfig:
        self._left -= 1
        if self._left == 0:
            raise Crash
        return super().put(*args, **options)


class Shallow(Crashing):
    """A saver that keeps only the newest checkpoint of a thread, as some do."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found, newest = super().get_tuple(config), super().get_tuple(_THREAD)
        return found if found and newest and found.config == newest.config else None

    def get_delta_channel_history(self, **options: Any) -> Mapping[str, Any]:
        return super(InMemorySaver, self).get_delta_channel_history(**options)


@contextmanager
def _memory() -> Iterator[InMemorySaver]:
    yield InMemorySaver()


@contextmanager
def _sqlite() -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(":memory:") as saver:
        yield saver


SAVERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
}


def _secured(note: Note, model: ChatSequrity, saver: Any) -> LangGraphExecutor:
    return LangGraphExecutor(graph(note), model, checkpointer=saver)


def test_the_stored_size_of_a_run_is_linear_in_its_steps_and_near_langgraphs(
    model: ChatSequrity,
) -> None:
    small, large = (
        sum(secured(count, model).values()) - sum(plain(count).values()) for count in (30, 120)
    )
    assert large < 4 * small * 1.25
    assert large < 0.3 * sum(plain(120).values())


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("saver", SAVERS)
def test_an_interrupted_run_continues_in_another_executor(
    saver: str, durability: Any, model: ChatSequrity
) -> None:
    calls: list[str] = []
    with SAVERS[saver]() as kept:
        first = _secured(calls.append, model, kept).invoke(GIVEN, _THREAD, durability=durability)
        assert first["__interrupt__"]
        last = _secured(calls.append, model, kept).invoke(
            Command(resume="yes"), _THREAD, durability=durability
        )
    state, wanted = expected()
    assert last == state
    assert sorted(calls) == sorted(wanted)


@pytest.mark.long
@pytest.mark.parametrize("saver", SAVERS)
def test_a_run_continues_from_any_of_its_states_and_makes_only_the_calls_that_follow(
    saver: str, model: ChatSequrity
) -> None:
    state, calls = expected()
    with SAVERS[saver]() as kept:
        made: list[str] = []
        runs = _secured(made.append, model, kept)
        runs.invoke(GIVEN, _THREAD)
        runs.invoke(Command(resume="yes"), _THREAD)
        assert sorted(made) == sorted(calls)  # LangGraph runs some of them in threads
        history = [one for one in runs.get_state_history(_THREAD) if one.next][::4]
        assert len(history) > 5
        for one in history:
            seen: list[str] = []
            again = _secured(seen.append, model, kept)
            found = again.invoke(None, one.config)
            if "__interrupt__" in found:
                found = again.invoke(Command(resume="yes"), _THREAD)
            assert found == state
            # LangGraph runs the nodes of one step in threads, in any order.
            assert sorted(seen) == sorted(made[len(made) - len(seen) :])


def test_states_and_checkpoint_streams_do_not_show_the_journal(model: ChatSequrity) -> None:
    runs = LangGraphExecutor(chain(3), model, checkpointer=InMemorySaver())
    shown = list(runs.stream({"text": "a"}, _THREAD, stream_mode=["checkpoints", "debug"]))
    shown += [("states", one) for one in runs.get_state_history(_THREAD)]
    assert "__sequrity" not in repr(shown)


@pytest.mark.parametrize("at", range(3, 11))
def test_a_parent_graph_that_crashed_continues_inside_the_executor(
    at: int, model: ChatSequrity
) -> None:
    calls: list[str] = []

    def parent(saver: Crashing) -> Any:
        outer = chain(1, calls.append)
        outer.add_node("secure", LangGraphExecutor(chain(4, calls.append), model))
        return outer.add_edge("step_0", "secure").compile(checkpointer=saver)

    saver = Crashing(at)
    with pytest.raises(Crash):
        parent(saver).invoke({"text": "abc"}, _THREAD, durability="sync")
    assert parent(saver).invoke(None, _THREAD, durability="sync") == {"text": "cba"}
    assert calls == ["step_0", "step_0", "step_1", "step_2", "step_3"]


@pytest.mark.parametrize("at", range(2, 7))
def test_a_crashed_run_continues_if_only_the_newest_checkpoint_is_kept(
    at: int, model: ChatSequrity
) -> None:
    runs = LangGraphExecutor(chain(4), model, checkpointer=Shallow(at), history="new")
    with pytest.raises(Crash):
        runs.invoke({"text": "abc"}, _THREAD, durability="sync")
    assert runs.invoke(None, _THREAD) == {"text": "abc"}


@pytest.mark.parametrize("at", range(2, 7))
def test_a_crashed_run_whose_conversation_is_lost_is_refused_if_the_service_needs_it(
    at: int, model: ChatSequrity
) -> None:
    runs = LangGraphExecutor(chain(4), model, checkpointer=Shallow(at), history="whole")
    with pytest.raises(Crash):
        runs.invoke({"text": "abc"}, _THREAD, durability="sync")
    has_lost_a_reply = at > 3
    refused = pytest.raises(UsageError, match="keeps only the newest checkpoint")
    with refused if has_lost_a_reply else nullcontext():
        assert runs.invoke(None, _THREAD) == {"text": "abc"}


@pytest.mark.parametrize("history", ["new", "auto"])
@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_a_run_that_was_killed_in_a_node_needs_more_than_the_newest_checkpoint_after_its_first_step(
    killed_in: int, history: Any, model: ChatSequrity
) -> None:
    saver, calls = Shallow(0), list[str]()
    stored: list[Shallow] = []

    def note(name: str) -> None:
        calls.append(name)
        if len(calls) == killed_in:
            stored.append(deepcopy(saver))

    runs = LangGraphExecutor(chain(4, note), model, checkpointer=saver, history=history)
    runs.invoke({"text": "abc"}, _THREAD, durability="sync")
    again = LangGraphExecutor(chain(4), model, checkpointer=stored[0], history=history)
    refused = pytest.raises(UsageError, match="keeps only the newest checkpoint")
    with refused if killed_in > 1 else nullcontext():
        assert again.invoke(None, _THREAD) == {"text": "abc"}


@pytest.mark.parametrize("at", [4, 6])
def test_a_new_run_is_refused_if_the_journal_with_the_labels_of_the_last_one_is_lost(
    at: int, model: ChatSequrity
) -> None:
    runs = LangGraphExecutor(chain(4), model, checkpointer=Shallow(at), history="new")
    with pytest.raises(Crash):
        runs.invoke({"text": "abc"}, _THREAD, durability="sync")
    runs.update_state(_THREAD, {"text": "x"})
    with pytest.raises(UsageError, match="keeps only the newest checkpoint"):
        runs.invoke(None, _THREAD)


@pytest.mark.parametrize("at", range(2, 7))
def test_a_crashed_run_can_be_updated_and_continues_as_in_langgraph(
    at: int, model: ChatSequrity
) -> None:
    ended: list[Any] = []
    for make in (chain(4).compile, partial(LangGraphExecutor, chain(4), model)):
        runs = make(checkpointer=Crashing(at))
        with pytest.raises(Crash):
            runs.invoke({"text": "abc"}, _THREAD, durability="sync")
        try:
            runs.update_state(_THREAD, {"text": "x"})
        except InvalidUpdateError as error:  # no node has run yet that the update could belong to
            ended.append(str(error))
            continue
        ended.append(runs.invoke(None, _THREAD))
    assert ended[1] == ended[0]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_run_that_moved_within_a_step_continues_in_its_last_session(saver: str) -> None:
    """Each service begins the run again, and the records of all sessions are in one step."""
    broken = [True]

    def step(state: State) -> State:
        if broken:
            raise RuntimeError
        return {"text": state["text"].upper()}

    made: Any = StateGraph(State).add_node("first", lambda state: {"text": f"{state['text']}!"})
    made.add_node("second", step).add_edge(START, "first").add_edge("first", "second")
    with ExitStack() as stack, SAVERS[saver]() as kept:
        servers = [stack.enter_context(LocalServer()) for _ in range(4)]
        services = [stack.enter_context(noted(server.base_url)) for server in servers]
        runs = partial(LangGraphExecutor, made, checkpointer=kept)
        for model, _ in services:
            with pytest.raises(RuntimeError):
                runs(model).invoke({"text": "a"} if model is services[0][0] else None, _THREAD)
        broken.clear()
        model, sent = services[-1]
        assert runs(model).invoke(None, _THREAD) == {"text": "A!"}
        assert sent.sessions().count(None) == 1


class _Losing(InMemorySaver):
    """A saver whose process ends after a parallel step, before the rows of some tasks are stored.

    Attributes:
        lost: The nodes of these tasks, for each process.
    """

    def __init__(self, *lost: set[str]) -> None:
        super().__init__()
        self.lost = list(lost)

    def put(self, *args: Any, **options: Any) -> RunnableConfig:
        if self.lost and args[2]["step"] == 2:
            raise Crash
        return super().put(*args, **options)

    def put_writes(
        self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = ""
    ) -> None:
        texts = [text for channel, added in writes if channel == "texts" for text in added]
        if not (self.lost and self.lost[0].intersection(text[0] for text in texts)):
            super().put_writes(config, writes, task_id, task_path)


@pytest.mark.parametrize("on_denied", ["raise", "interrupt"])  # side by side, one by one
@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(
    "lost", [["b"], ["abcde"], ["ae", "a"], ["bcde", "ce"], ["cde", "c"], ["de", "d", "d"]]
)
def test_a_task_whose_result_was_not_stored_runs_again_and_only_its_new_result_counts(
    lost: list[str], forgets: bool, on_denied: Any
) -> None:
    runs_of: Counter[str] = Counter()

    def node(name: str) -> Callable[[Texts], Texts]:
        def run(_: Texts) -> Texts:
            runs_of[name] += 1
            return {"texts": [f"{name}{runs_of[name]}"]}

        return run

    made: Any = StateGraph(Texts).add_node("join", lambda state: {"all": "".join(state["texts"])})
    made.add_node("first", lambda _: {"texts": ["f"]}).add_edge(START, "first")
    for name in "abcde":
        made.add_node(name, node(name)).add_edge("first", name)
    made.add_edge(list("abcde"), "join")
    saver = _Losing(*map(set, lost))
    with ExitStack() as stack:
        servers = [stack.enter_context(LocalServer()) for _ in range(len(lost) + 1)]
        for server in servers if forgets else servers[:1] * len(servers):
            model = ChatSequrity("any/model", base_url=server.base_url)
            runs = LangGraphExecutor(made, model, checkpointer=saver, on_denied=on_denied)
            given: Texts | None = None if runs_of else {"texts": []}
            if not saver.lost:
                ended = runs.invoke(given, _THREAD, durability="sync")
                break
            with pytest.raises(Crash):
                runs.invoke(given, _THREAD, durability="sync")
            saver.lost.pop(0)
    again = Counter(name for names in lost for name in names)
    assert runs_of == Counter("abcde") + again
    assert ended["all"] == "f" + "".join(f"{name}{runs_of[name]}" for name in "abcde")


def test_a_run_that_began_at_a_change_from_outside_is_not_begun_again_when_it_is_resumed(
    model: ChatSequrity,
) -> None:
    def ask(state: State) -> State:
        return {"text": f"{state['text']} {interrupt('Go on?')}"}

    made: Any = StateGraph(State).add_node("first", lambda state: {"text": f"{state['text']}!"})
    made.add_node("ask", ask).add_edge(START, "first").add_edge("first", "ask")
    with noted(model.base_url) as (counted, sent):
        runs = LangGraphExecutor(made, counted, checkpointer=InMemorySaver())
        runs.invoke({"text": "a"}, _THREAD, interrupt_before=["ask"])
        runs.invoke(Command(update={"text": "b"}), _THREAD)
        begun = sent.sessions().count(None)
        assert runs.invoke(Command(resume="yes"), _THREAD) == {"text": "b yes"}
        assert sent.sessions().count(None) == begun


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_thread_has_as_many_checkpoints_as_in_langgraph(
    durability: Any, model: ChatSequrity
) -> None:
    counts = []
    for make in (chain(3).compile, partial(LangGraphExecutor, chain(3), model)):
        saver = InMemorySaver()
        runs = make(checkpointer=saver)
        for _ in range(2):
            runs.invoke({"text": "abc"}, _THREAD, durability=durability)
        counts.append(len(list(saver.list(_THREAD))))
    assert counts[1] == counts[0]
