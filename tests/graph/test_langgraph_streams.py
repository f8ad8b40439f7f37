"""Streams of an executor are the same as streams of the graph itself."""

import operator
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels import Topic
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, StreamMode

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import PolicyDenied
from tests.graph.outcome import describe
from tests.graph.running import secured
from tests.graph.twins import Twins, thread

MODES: list[StreamMode] = [
    "updates",
    "values",
    "custom",
    "messages",
    "tasks",
    "debug",
    "checkpoints",
]


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]
    chat: Annotated[list[AnyMessage], add_messages]


def shout(state: State) -> dict[str, Any]:
    get_stream_writer()({"said": state["text"]})
    return {"text": state["text"].upper(), "log": ["shout"]}


def answer(state: State) -> dict[str, Any]:
    said = GenericFakeChatModel(messages=iter([AIMessage(f"To {state['text']}", id="a")]))
    return {"chat": [said.invoke("?")]}


def double(state: State) -> Command[Any]:
    return Command(update={"text": state["text"] * 2, "log": ["double"]})


def is_short(state: State) -> str:
    return "double" if len(state["text"]) < 10 else END


def talk() -> Any:
    graph = StateGraph(State)
    graph.add_sequence([shout, answer, double]).add_edge(START, "shout")
    return graph.add_conditional_edges("double", is_short)


GIVEN = {"text": "hi"}


def _told(mode: str, chunk: Any) -> Any:
    """The parts of a chunk that do not depend on times, ids and the number of steps."""
    if mode == "messages":
        message, metadata = chunk
        return type(message).__name__, message.content, message.id, metadata["langgraph_node"]
    if mode == "debug":
        kind = "checkpoints" if chunk["type"] == "checkpoint" else "tasks"
        return chunk["type"], _told(kind, chunk["payload"])
    if mode == "tasks":
        return {key: one for key, one in chunk.items() if key != "id"}, sorted(chunk)
    if mode == "checkpoints":
        tasks = [sorted({**task, "id": 0}) for task in chunk["tasks"]]
        config = sorted(chunk["config"]["configurable"])
        parent = chunk["parent_config"] and sorted(chunk["parent_config"]["configurable"])
        source = chunk["metadata"]["source"]
        return chunk["values"], chunk["next"], tasks, config, parent, source
    return chunk


@pytest.mark.long(sample=3)
@pytest.mark.parametrize("mode", MODES)
def test_a_stream_shows_what_langgraph_shows(mode: StreamMode, model: ChatSequrity) -> None:
    plain, secure = (
        [_told(mode, chunk) for chunk in graph.stream(GIVEN, thread(), stream_mode=mode)]
        for graph in Twins(talk, model).of(checkpointer=InMemorySaver)
    )
    assert secure == plain
    assert plain


@pytest.mark.parametrize("mode", ["updates", "values"])
def test_a_stream_shows_the_steps_before_a_denial(mode: StreamMode, model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "answer" { hard deny always; }'})
    chunks: list[Any] = []
    with pytest.raises(PolicyDenied):  # a list keeps what came before the error
        chunks.extend(secured(talk(), denies).stream(GIVEN, stream_mode=mode))
    before = talk().compile().stream(GIVEN, stream_mode=mode, interrupt_before=["answer"])
    assert chunks == [chunk for chunk in before if "__interrupt__" not in chunk]


@pytest.mark.parametrize("mode", MODES)
async def test_an_async_stream_shows_what_langgraph_shows(
    mode: StreamMode, model: ChatSequrity
) -> None:
    plain, secure = [
        [_told(mode, chunk) async for chunk in graph.astream(GIVEN, thread(), stream_mode=mode)]
        for graph in Twins(talk, model).of(checkpointer=InMemorySaver)
    ]
    assert secure == plain
    assert plain


def test_a_task_shows_the_nodes_input_and_not_the_call(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(talk, model).of():
        chunks = graph.stream(GIVEN, stream_mode="tasks")
        found.append([(one["name"], one["input"]) for one in chunks if "input" in one])
    assert found[1] == found[0]
    assert [name for name, _ in found[0]] == ["shout", "answer", *["double"] * 3]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_several_modes_at_once_have_langgraphs_shape(
    version: Any, subgraphs: bool, model: ChatSequrity
) -> None:
    modes: list[StreamMode] = ["updates", "values", "tasks"]
    options = {"stream_mode": modes, "subgraphs": subgraphs, "version": version}
    plain, secure = (
        [_shape(chunk) for chunk in graph.stream(GIVEN, **options)]
        for graph in Twins(talk, model).of()
    )
    assert secure == plain


def _shape(chunk: Any) -> Any:
    if isinstance(chunk, dict):
        shown = _told(chunk["type"], chunk["data"])
        return {**chunk, "data": shown}
    *namespace, mode, payload = chunk
    return (*namespace, mode, _told(mode, payload))


def parent_of(inner: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("secure", inner).add_edge(START, "secure")
    return graph.compile()


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_of_an_outer_graph_shows_the_inner_nodes(
    mode: StreamMode, model: ChatSequrity
) -> None:
    found = []
    for graph in Twins(talk, model).of():
        chunks = parent_of(graph).stream(GIVEN, stream_mode=mode, subgraphs=True)
        found.append([_inner(mode, *chunk) for chunk in chunks])
    assert found[1] == found[0]


def _inner(mode: str, namespace: tuple[str, ...], chunk: Any) -> Any:
    return [one.split(":")[0] for one in namespace], _told(mode, chunk)


def _events(chunks: list[Any]) -> list[Any]:
    """Starts and ends of chains in the order of their arrival, with name and output."""
    return [
        (one["event"], one["name"], one["data"].get("output"), one.get("tags"))
        for one in chunks
        if one["event"] in ("on_chain_start", "on_chain_end", "on_chat_model_stream")
    ]


async def test_events_are_those_of_langgraph(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(talk, model).of():
        chunks = [one async for one in graph.astream_events(GIVEN, version="v2")]
        found.append([one[:2] for one in _events(chunks)])
    assert found[1] == found[0]
    assert not any("sequrity" in str(name) for _, name in found[1])


def _typed_events(stream: Any) -> list[tuple[Any, ...]]:
    return [
        (one["method"], describe(one["params"]["data"]))
        for one in stream
        if one["method"] in ("updates", "values")
    ]


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
def test_events_of_version_3_are_those_of_langgraph(model: ChatSequrity) -> None:
    found = [
        _typed_events(graph.stream_events(GIVEN, version="v3")) for graph in Twins(talk, model).of()
    ]
    assert found[1] == found[0]
    assert found[0]


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
async def test_async_events_of_version_3_are_those_of_langgraph(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(talk, model).of():
        stream: AsyncIterator[Any] = await graph.astream_events(GIVEN, version="v3")
        found.append(_typed_events([one async for one in stream]))
    assert found[1] == found[0]
    assert found[0]


def test_batches_are_answered_in_order(model: ChatSequrity) -> None:
    given = [{"text": text} for text in "abcdef"]
    plain, secure = (graph.batch(given) for graph in Twins(talk, model).of())
    assert secure == plain


async def test_async_batches_are_answered_in_order(model: ChatSequrity) -> None:
    given = [{"text": text} for text in "abcdef"]
    plain, secure = [await graph.abatch(given) for graph in Twins(talk, model).of()]
    assert secure == plain


@pytest.mark.parametrize("mode", ["values", "updates"])
def test_invoke_accepts_a_stream_mode_and_output_keys(
    mode: StreamMode, model: ChatSequrity
) -> None:
    options: dict[str, Any] = {"stream_mode": mode, "output_keys": ["text"]}
    plain, secure = (graph.invoke(GIVEN, **options) for graph in Twins(talk, model).of())
    assert secure == plain


def _root() -> Any:
    graph: Any = StateGraph(int)

    def more(number: int) -> int:
        return number + 1

    return graph.add_sequence([("one", more), ("two", more)]).set_entry_point("one")


@pytest.mark.parametrize("mode", ["updates", "values"])
def test_a_state_that_is_one_value_is_streamed_as_that_value(
    mode: StreamMode, model: ChatSequrity
) -> None:
    plain, secure = (list(graph.stream(1, stream_mode=mode)) for graph in Twins(_root, model).of())
    assert secure == plain


class Passing(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    text: str
    topic: Annotated[list[str], Topic(str)]


class Returned(TypedDict, total=False):
    text: str
    topic: list[str]


def _passing() -> Any:
    graph: Any = StateGraph(Passing, output_schema=Returned)
    graph.add_node("one", lambda _: {"topic": "x"}).add_node("two", lambda _: {"text": "y"})
    return graph.add_edge(START, "one").add_edge("one", "two")


def test_a_field_that_the_last_step_cleared_is_not_returned(model: ChatSequrity) -> None:
    plain, secure = (graph.invoke({}) for graph in Twins(_passing, model).of())
    assert secure == plain == {"text": "y"}


def test_a_closed_stream_ends_its_run(model: ChatSequrity) -> None:
    ran: list[str] = []

    def noted(name: str) -> Callable[[State], dict[str, Any]]:
        def node(_: State) -> dict[str, Any]:
            ran.append(name)
            return {"log": [name]}

        return node

    graph: Any = StateGraph(State)
    graph.add_sequence([(name, noted(name)) for name in "abc"]).set_entry_point("a")
    stream = secured(graph, model).stream(GIVEN)
    assert next(iter(stream)) == {"a": {"log": ["a"]}}
    stream.close()  # type: ignore[attr-defined] # a generator
    assert ran == ["a"]
