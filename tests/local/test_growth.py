"""A session grows by what its calls add: its memory, the count of it, and the work of a request."""

import gc
import json
import pickle
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.labels import Labels
from langchain_sequrity.local import LocalServer, MemorySessions, Session
from langchain_sequrity.local.dual_llm.state import LabelNames
from langchain_sequrity.local.growing import GrowingList, GrowingTable, IncrementalSize
from langchain_sequrity.local.interpreter import Labeled, ToolCall
from langchain_sequrity.local.interpreter.run import answer_event, answer_from_event, checked_event
from langchain_sequrity.local.stored_messages import Conversation, StoredMessage
from langchain_sequrity.sizes import of_value
from langchain_sequrity.wire.tool_results import MARK
from tests.local.api import Api, call_ids, result, said, session_of, tool
from tests.local.conftest import Serve

PATH = "/control/lang-graph/v1/chat/completions"
CHAIN = "word = ''\nwhile True:\n    word = look_up(word=word)\n"
NAMES = st.frozensets(st.sampled_from([f"name{number}" for number in range(40)]))


def labelled(number: int) -> str:
    """A result with a producer of its own, so that the labels of a chain accumulate."""
    meta = {"producers": [f"source{number}"], "consumers": ["*"], "tags": []}
    return json.dumps({MARK: True, "value": str(number), "meta": meta})


class Run:
    """A program that calls a tool with its last result, again and again."""

    def __init__(self, api: Api, **headers: str) -> None:
        self.api = api
        fields = {"user_provided_program": CHAIN, "tools": [tool()]}
        config = {"X-Config": '{"fsm": {"max_tool_calls_per_step": null}}', **headers}
        self.reply = api.chat("Run.", path=PATH, headers=config, **fields)
        self.session = session_of(self.reply)
        self.count = 0

    @property
    def stored(self) -> Session:
        sessions: Any = self.api.server.sessions
        found: Session = sessions[self.session]
        return found

    @property
    def counted(self) -> int:
        sessions: Any = self.api.server.sessions
        size: int = sessions._sessions[self.session].size
        return size

    def answer(self, make: Callable[[int], str] = labelled, times: int = 1) -> None:
        for _ in range(times):
            message = result(call_ids(self.reply)[0], make(self.count))
            self.reply = self.api.chat(message, path=PATH, session=self.session)
            said(self.reply)
            self.count += 1


@pytest.fixture
def run(serve: Serve) -> Run:
    return Run(serve(isolated_programs=False))


# Memory


def test_the_memory_of_a_call_is_small_and_does_not_grow_with_the_calls_before(run: Run) -> None:
    run.answer(times=10)
    sizes = [run.counted]
    for _ in range(2):
        run.answer(times=30)
        sizes.append(run.counted)
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert second < 30 * 3_000
    assert second < 1.1 * first


@pytest.mark.long
def test_a_chain_of_labels_takes_memory_in_proportion_to_its_length(run: Run) -> None:
    sizes = []
    for times in (100, 100, 200):
        run.answer(times=times)
        sizes.append(run.counted)
    assert sizes[2] < 8_000_000
    assert sizes[1] < 2**1.1 * sizes[0]
    assert sizes[2] < 2**1.1 * sizes[1]


def taken(copied: bytes) -> int:
    """The bytes that a session takes in memory."""
    gc.collect()
    tracemalloc.start()
    try:
        session = pickle.loads(copied)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del session
    return size


def of_single_llm(serve: Serve) -> Session:
    api = serve()
    first = api.chat("Hello")
    for number in range(20):
        api.chat(f"Number {number}", session=session_of(first))
    sessions: Any = api.server.sessions
    found: Session = sessions[session_of(first)]
    return found


def of_planner(serve: Serve) -> Session:
    api = serve(
        script=[
            {
                "program": "x = 1\nfor i in range(30): x = look_up(word=str(x))\nfinal_return_value = x"
            }
        ]
    )
    headers = {"X-Features": '{"agent_arch": "dual-llm"}'}
    reply = api.chat("Go", headers=headers, tools=[tool()])
    for _ in range(20):
        message = result(call_ids(reply)[0])
        reply = api.chat(message, headers=headers, tools=[tool()], session=session_of(reply))
    sessions: Any = api.server.sessions
    found: Session = sessions[session_of(reply)]
    return found


def of_graph(make: Callable[[int], str]) -> Callable[[Serve], Session]:
    def run_graph(serve: Serve) -> Session:
        run = Run(serve(isolated_programs=False))
        run.answer(make, times=30)
        return run.stored

    return run_graph


@pytest.mark.parametrize(
    "make",
    [of_single_llm, of_planner, of_graph(labelled), of_graph(str), of_graph(lambda i: f"{i}" * 4_000),
     of_graph(lambda i: json.dumps([{"n": [i, {}]}] * 50))],
    ids=["single-LLM", "planner", "labels", "trivial", "long texts", "structures"],
)  # fmt: skip
def test_the_count_of_a_session_is_near_what_it_takes_in_memory(
    make: Callable[[Serve], Session], serve: Serve
) -> None:
    session = make(serve)
    copied = pickle.dumps(session)
    size = taken(copied)
    assert 0.7 * size < IncrementalSize().count(session) < 2 * size


# The count


class Watched:
    """An object that knows how often it was counted."""

    times = 0

    def __sizeof__(self) -> int:
        type(self).times += 1
        return 100


def test_a_request_counts_only_what_it_adds() -> None:
    class Item(Watched):
        pass

    log, growing = GrowingList[Any](), IncrementalSize()
    for _ in range(100):
        log = log.copy()
        log.append(Item())
        growing.count([log, {"turn": 1}])
    assert Item.times <= 2 * len(log)  # as a new item, and as one that copies share


@dataclass(frozen=True)
class Frozen:
    inner: Any


@dataclass
class State:
    """What a session is made of."""

    log: GrowingList[Any]
    forms: GrowingTable
    frozen: Any
    others: dict[str, Any]


TEXTS = st.sampled_from(["", "short", "x" * 1_000, "y" * 5_000])
ITEMS: st.SearchStrategy[Any] = st.one_of(
    TEXTS, st.builds(list, st.lists(TEXTS, max_size=3)), st.integers()
)
FROZEN = st.one_of(st.builds(Frozen, st.lists(TEXTS, max_size=5)), st.tuples(TEXTS, TEXTS))
CHANGES = st.one_of(
    st.tuples(st.just("append"), ITEMS),
    st.tuples(st.just("form"), st.text("ab", max_size=3)),
    st.tuples(st.just("first"), st.integers(0, 5)),
    st.tuples(st.just("replace"), FROZEN),
    st.tuples(st.just("other"), ITEMS),
    st.tuples(st.just("fail"), ITEMS),
)


@given(st.lists(CHANGES, max_size=30))
def test_counting_by_the_difference_gives_what_counting_anew_gives(
    changes: list[tuple[str, Any]],
) -> None:
    state = State(GrowingList(), GrowingTable(), (), {})
    growing = IncrementalSize()
    for change, value in changes:
        copied = State(state.log.copy(), state.forms.copy(), state.frozen, {**state.others})
        match change:
            case "append" | "fail":
                copied.log.append(value)
            case "form":
                copied.forms.number_of(value)
            case "first":
                copied.log = copied.log.first(value)
            case "replace":
                copied.frozen = value
            case "other":
                copied.others["x"] = value
        size = growing.count(copied)
        if change == "fail":
            growing.forget()
            continue
        state = copied
        assert size == IncrementalSize().count(state)
        assert size >= 0.9 * of_value([[*state.log], [*state.forms], state.frozen, state.others])


def test_a_text_counts_while_one_part_has_it() -> None:
    text = "x" * 100_000
    growing = IncrementalSize()
    first, second = GrowingList([[text]]).copy(), GrowingList([[text]]).copy()
    both = growing.count([first, second])
    assert 100_000 < both < 110_000
    assert growing.count([second]) > 100_000
    assert growing.count([GrowingList[Any]()]) < 5_000


# Copies


@given(st.randoms(use_true_random=False))
def test_copies_of_a_growing_list_do_not_see_each_other(numbers: random.Random) -> None:
    lists: list[tuple[Any, list[str]]] = [(GrowingTable(), [])]
    for number in range(40):
        table, expected = numbers.choice(lists)
        action = numbers.randrange(4)
        if action == 0:
            lists.append((table.copy(), [*expected]))
        elif action == 1:
            count = numbers.randrange(len(expected) + 1)
            lists.append((table.first(count), expected[:count]))
        elif action == 2:
            lists.append((pickle.loads(pickle.dumps(table)), [*expected]))
        else:
            text = str(numbers.randrange(number + 1))
            index = table.number_of(text)
            if text not in expected:
                expected.append(text)
            assert index == expected.index(text)
        for other, content in lists:
            assert (len(other), [*other], other[1:3]) == (len(content), content, content[1:3])


def test_nothing_of_a_copy_that_is_dropped_stays() -> None:
    class Item:
        pass

    stored = GrowingList([Item()]).copy()
    copied = stored.copy()
    copied.append(Item())
    del copied
    assert stored.memory()[0] == [stored[0]]


def test_a_program_continues_after_a_request_that_failed_and_in_another_server(
    serve: Serve, http: Any
) -> None:
    """Its log is extended in the run that goes on, and read where there is none."""
    store = MemorySessions()
    run = Run(serve(isolated_programs=False, store=store))
    run.answer(times=3)
    before = pickle.dumps(run.stored)
    refused = run.api.chat(result("unknown"), path=PATH, session=run.session)
    assert refused.status_code == 400
    assert pickle.dumps(run.stored) == before
    run.answer()
    with LocalServer(isolated_programs=False, store=store) as second:
        first, run.api = run.api, Api(second, http, "sq-test")
        run.answer(times=2)
    run.api = first  # whose own run is outdated
    run.answer()
    turn: Any = run.stored.state.turn  # type: ignore[attr-defined] # a DualState
    assert len(turn.stored_log) == 1 + run.count
    assert turn.waiting.arguments["word"].labels.producers >= {"source0", "source6"}


# What is stored


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("Hi"),
        HumanMessage([{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]),
        SystemMessage("Rules", additional_kwargs={"role": "developer"}, name="rules"),
        AIMessage(""),
        AIMessage("", tool_calls=[{"name": "send", "args": {"n": 2**70, "x": [1.5, None, "é"]}, "id": "c1"}]),
        AIMessage("", invalid_tool_calls=[{"name": "send", "args": "{", "id": "c1", "error": "bad"}]),
        AIMessage("No.", additional_kwargs={"refusal": "no"}, response_metadata={"model_name": "m"},
                  usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        AIMessage("x", response_metadata={"of a model": (1, {2}), "set": {3}}),
        AIMessage("x", id="run-1", name="bot"),
        ToolMessage("done", tool_call_id="c1"),
        ToolMessage([{"type": "text", "text": "a"}], tool_call_id="c1", status="error", name="send",
                    artifact={"a": 1}),
        HumanMessage("x", unknown_field=1),
    ],
)  # fmt: skip
def test_a_stored_message_is_the_same_message(message: BaseMessage) -> None:
    stored = StoredMessage.from_message(message)
    assert stored.message() == message
    assert repr(stored.message()) == repr(message)
    assert stored.message().content is message.content
    assert [*pickle.loads(pickle.dumps(Conversation.from_messages([message])))] == [message]


@given(st.lists(st.builds(Labels, NAMES, NAMES, NAMES), max_size=5))
def test_packed_labels_are_the_same_labels(all_labels: list[Labels]) -> None:
    names = LabelNames()
    packed = [names.pack(labels) for labels in all_labels]
    assert [*map(pickle.loads(pickle.dumps(names)).unpack, packed)] == all_labels


@given(st.builds(Labels, NAMES, NAMES, NAMES), st.builds(Labels, NAMES, NAMES, NAMES))
def test_a_log_keeps_the_labels_of_a_result_whatever_those_of_the_call_are(
    before: Labels, after: Labels
) -> None:
    call = ToolCall("read", {"a": Labeled(1, before), "b": Labeled(2)}, 1)
    event = json.loads(json.dumps(answer_event(Labeled(3, after), call, "digest")))
    assert answer_from_event(checked_event(event), call) == Labeled(3, after)
