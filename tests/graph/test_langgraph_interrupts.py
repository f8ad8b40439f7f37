"""Interrupts: a run waits where LangGraph would wait, and continues without repeating anything."""

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from langchain_sequrity import ChatSequrity
from tests.graph.running import secured
from tests.graph.services import Noted, noted
from tests.graph.twins import Twins, thread


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def told(model: ChatSequrity) -> Iterator[tuple[Any, Noted]]:
    """A model, and what it sends."""
    with noted(model.base_url) as found:
        yield found


def first(state: State) -> dict[str, Any]:
    ran.append("first")
    return {"text": state["text"] + "1", "log": ["first"]}


def ask(state: State) -> dict[str, Any]:
    ran.append("ask")
    answer = interrupt({"sure": state["text"]})
    return {"text": state["text"] + answer, "log": ["ask"]}


def last(state: State) -> dict[str, Any]:
    ran.append("last")
    return {"text": state["text"] + "!", "log": ["last"]}


def asking() -> Any:
    graph: Any = StateGraph(State)
    return graph.add_sequence([first, ask, last]).set_entry_point("first")


def _waiting(snapshot: Any) -> Any:
    tasks = [(task.name, [one.value for one in task.interrupts]) for task in snapshot.tasks]
    values = [one.value for one in snapshot.interrupts]
    return snapshot.values, snapshot.next, tasks, values


def _values(state: Any) -> Any:
    found = dict(state)
    found["__interrupt__"] = [one.value for one in found.get("__interrupt__", [])]
    return found


def test_a_node_that_interrupted_continues_after_the_answer(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        ran.clear()
        begun = _values(graph.invoke({"text": "a"}, thread()))
        waiting = _waiting(graph.get_state(thread()))
        again = _values(graph.invoke(None, thread()))
        ended = graph.invoke(Command(resume="?"), thread())
        found.append((begun, waiting, again, ended, list(ran)))
    assert found[1] == found[0]


async def test_a_node_that_interrupted_continues_after_the_answer_in_an_event_loop(
    model: ChatSequrity,
) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        ran.clear()
        begun = _values(await graph.ainvoke({"text": "a"}, thread()))
        waiting = _waiting(await graph.aget_state(thread()))
        ended = await graph.ainvoke(Command(resume="?"), thread())
        found.append((begun, waiting, ended, list(ran)))
    assert found[1] == found[0]


def test_a_resumed_run_sends_no_request_twice(told: tuple[Any, Noted]) -> None:
    model, sent = told
    graph = secured(asking(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "a"}, thread())
    assert len(sent) == 2  # the program, and the result of `first`
    graph.invoke(Command(resume="?"), thread())
    assert len(sent) == 4
    assert ran == ["first", "ask", "ask", "last"]
    assert len({str(body["messages"]) for body in sent}) == 4


@pytest.mark.parametrize("mode", ["updates", "values", "tasks"])
def test_an_interrupt_is_streamed_as_in_langgraph(mode: Any, model: ChatSequrity) -> None:
    found = []
    for graph in Twins(asking, model).of(checkpointer=InMemorySaver):
        chunks = list(graph.stream({"text": "a"}, thread(), stream_mode=mode))
        found.append([_told(mode, chunk) for chunk in chunks])
    assert found[1] == found[0]


def _told(mode: str, chunk: Any) -> Any:
    if mode == "tasks":
        waits = [one["value"] for one in chunk.get("interrupts", [])]
        return chunk["name"], chunk.get("result"), waits
    if "__interrupt__" in chunk:
        return [one.value for one in chunk["__interrupt__"]]
    return chunk


def twice() -> Any:
    def ask_twice(_: State) -> dict[str, Any]:
        return {"text": f"{interrupt('one')} {interrupt('two')}", "log": ["twice"]}

    graph: Any = StateGraph(State)
    return graph.add_sequence([first, ask_twice]).set_entry_point("first")


def test_a_node_interrupts_several_times(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(twice, model).of(checkpointer=InMemorySaver):
        steps = [{"text": "a"}, Command(resume="x"), Command(resume="y")]
        found.append([_values(graph.invoke(step, thread())) for step in steps])
    assert found[1] == found[0]


def side_by_side() -> Any:
    def asker(name: str) -> Any:
        def node(_: State) -> dict[str, Any]:
            return {"log": [f"{name}: {interrupt(name)}"]}

        return node

    graph: Any = StateGraph(State)
    for name in "ab":
        graph.add_node(name, asker(name)).add_edge(START, name)
    return graph.add_node("last", last).add_edge(["a", "b"], "last")


def test_nodes_of_one_step_ask_at_the_same_time(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(side_by_side, model).of(checkpointer=InMemorySaver):
        asked = graph.invoke({"text": ""}, thread())["__interrupt__"]
        answers = {one.id: one.value * 2 for one in asked}
        state = graph.invoke(Command(resume=answers), thread())
        found.append((sorted(one.value for one in asked), state))
    assert found[1] == found[0]
    assert found[0] == (["a", "b"], {"text": "!", "log": ["a: aa", "b: bb", "last"]})


# Static interrupts


def chain() -> Any:
    graph: Any = StateGraph(State)

    def again(state: State) -> str:
        return "last" if len(state["log"]) < 4 else END

    def more(_: State) -> dict[str, Any]:
        ran.append("more")
        return {"log": ["more"]}

    graph.add_sequence([first, more, last]).set_entry_point("first")
    return graph.add_conditional_edges("last", again)


STATIC = [
    {"interrupt_before": ["first"]},
    {"interrupt_before": ["more"]},
    {"interrupt_after": ["first"]},
    {"interrupt_after": ["last"]},
    {"interrupt_before": ["last"], "interrupt_after": ["first"]},
    {"interrupt_before": "*"},
    {"interrupt_after": "*"},
]


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("when", STATIC, ids=str)
@pytest.mark.parametrize("at_compile", [True, False])
def test_a_run_waits_at_static_interrupts_before_and_after_nodes(
    when: dict[str, Any], at_compile: bool, model: ChatSequrity
) -> None:
    found = []
    for make in (_plain, _secure):
        ran.clear()
        graph = make(model, when if at_compile else {})
        options = {} if at_compile else when
        steps = []
        given: Any = {"text": "a"}
        for _ in range(8):
            chunks = list(graph.stream(given, thread(), stream_mode="updates", **options))
            state = graph.get_state(thread())
            steps.append((chunks, state.values, state.next, list(ran)))
            if not state.next:
                break
            given = None
        found.append(steps)
    assert found[1] == found[0]


def _plain(_: ChatSequrity, when: dict[str, Any]) -> Any:
    return chain().compile(checkpointer=InMemorySaver(), **when)


def _secure(model: ChatSequrity, when: dict[str, Any]) -> Any:
    return secured(chain().compile(checkpointer=InMemorySaver(), **when), model)


async def test_a_run_waits_after_a_node_in_an_event_loop(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(chain, model).of(checkpointer=InMemorySaver):
        await graph.ainvoke({"text": "a"}, thread(), interrupt_after=["first"])
        waiting = (await graph.aget_state(thread())).next
        found.append((waiting, await graph.ainvoke(None, thread())))
    assert found[1] == found[0]


def test_a_run_that_continues_after_static_interrupts_sends_no_request_twice(
    told: tuple[Any, Noted],
) -> None:
    model, sent = told
    graph = secured(chain(), model, checkpointer=InMemorySaver())
    graph.invoke({"text": "a"}, thread(), interrupt_after=["first"], interrupt_before=["last"])
    graph.invoke(None, thread(), interrupt_before=["last"])
    graph.invoke(None, thread())
    assert len(sent) == len({str(body["messages"]) for body in sent})
    assert ran == ["first", "more", "last", "last"]


# An outer graph


def around(inner: Any, **options: Any) -> Any:
    graph: Any = StateGraph(State)

    def before(_: State) -> dict[str, Any]:
        ran.append("before")
        return {"log": ["before"]}

    graph.add_node("before", before).add_node("inner", inner)
    graph.add_edge(START, "before").add_edge("before", "inner")
    return graph.compile(**options)


def test_an_interrupt_of_an_inner_executor_reaches_the_outer_graph(model: ChatSequrity) -> None:
    found = []
    for inner in Twins(asking, model).of():
        ran.clear()
        graph = around(inner, checkpointer=InMemorySaver())
        begun = _values(graph.invoke({"text": "a"}, thread()))
        state = graph.get_state(thread(), subgraphs=True)
        nested = _waiting(state.tasks[0].state)
        ended = graph.invoke(Command(resume="?"), thread())
        found.append((begun, state.next, nested, ended, list(ran)))
    assert found[1] == found[0]


def test_a_waiting_inner_run_can_be_updated_as_in_langgraph(model: ChatSequrity) -> None:
    found = []
    for inner in Twins(asking, model).of():
        graph = around(inner, checkpointer=InMemorySaver())
        graph.invoke({"text": "a"}, thread())
        [task] = graph.get_state(thread(), subgraphs=True).tasks
        graph.update_state(task.state.config, {"text": "b"})
        found.append(graph.invoke(Command(resume="?"), thread()))
    assert found[1] == found[0]


def nested() -> Any:
    """A node of the graph is itself a graph that asks."""
    graph: Any = StateGraph(State)
    graph.add_node("first", first).add_node("asking", asking().compile())
    return graph.add_edge(START, "first").add_edge("first", "asking")


def test_a_graph_that_is_a_node_can_interrupt(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(nested, model).of(checkpointer=InMemorySaver):
        ran.clear()
        begun = _values(graph.invoke({"text": "a"}, thread()))
        state = graph.get_state(thread(), subgraphs=True)
        within = _waiting(state.tasks[0].state)
        ended = graph.invoke(Command(resume="?"), thread())
        found.append((begun, state.next, within, ended, list(ran)))
    assert found[1] == found[0]


def remembering() -> Any:
    """A node calls a graph that has its own memory."""

    def count(state: State) -> dict[str, Any]:
        return {"log": [f"seen {len(state.get('log', []))}"]}

    inner: Any = StateGraph(State)
    kept = inner.add_sequence([count]).set_entry_point("count").compile(checkpointer=True)

    class Other(TypedDict, total=False):
        out: list[str]

    def call(_: Other) -> dict[str, Any]:
        return {"out": kept.invoke({"log": ["new"]})["log"]}

    graph: Any = StateGraph(Other)
    return graph.add_sequence([call]).set_entry_point("call")


def test_a_graph_that_a_node_calls_keeps_its_own_memory(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(remembering, model).of(checkpointer=InMemorySaver):
        found += [graph.invoke({}, thread()) for _ in range(3)]
    assert found[3:] == found[:3]
