"""An executor as an object: drawings, schemas, copies, pickles, and its model."""

import copy
import json
import operator
import pickle
from typing import Annotated, Any

import pytest
from langchain_core.runnables import Runnable
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions, SequrityMessages
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.services import noted
from tests.graph.twins import Twins, thread


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


class Given(TypedDict):
    text: str


class Told(TypedDict):
    log: list[str]


class Context(BaseModel):
    user: str = "ann"


def shout(state: State) -> dict[str, Any]:
    return {"text": state["text"].upper(), "log": ["shout"]}


def pick(state: State) -> Command[Any]:
    return Command(goto="end" if state["text"] else "again")


def again(_: State) -> dict[str, Any]:
    return {"log": ["again"]}


def end(state: State) -> dict[str, Any]:
    return {"log": [f"end {state['text']}"]}


def by_length(state: State) -> str:
    return "long" if len(state["text"]) > 3 else "short"


def many(state: State) -> list[Send]:
    return [Send("again", {"text": one}) for one in state["text"]]


def rich() -> Any:
    """A graph with most of what a drawing can show."""
    inner: Any = StateGraph(State)
    nested = inner.add_sequence([shout, again]).set_entry_point("shout").compile()
    graph: Any = StateGraph(State, context_schema=Context, input_schema=Given, output_schema=Told)
    graph.add_node("shout", shout, metadata={"a": 1}).add_node("nested", nested)
    graph.add_node("pick", pick, destinations=("end", "again"))
    graph.add_node("again", again).add_node("end", end, defer=True)
    graph.add_conditional_edges(START, by_length, {"long": "shout", "short": "nested"})
    graph.add_conditional_edges("shout", many, ["again"]).add_edge("nested", "pick")
    return graph.add_edge("end", END)


def small() -> Any:
    graph: Any = StateGraph(State)
    return graph.add_sequence([shout, end]).set_entry_point("shout")


# Drawings and schemas


@pytest.mark.parametrize("xray", [False, True, 1])
def test_a_drawing_of_an_executor_shows_the_users_graph(xray: Any, model: ChatSequrity) -> None:
    plain, secure = Twins(rich, model).of()
    assert secure.get_graph(xray=xray).to_json() == plain.get_graph(xray=xray).to_json()
    assert secure.get_graph().draw_mermaid() == plain.get_graph().draw_mermaid()
    assert "sequrity" not in secure.get_graph().draw_mermaid()


async def test_a_compiled_graph_in_an_executor_is_drawn_unchanged(model: ChatSequrity) -> None:
    compiled = rich().set_node_defaults(error_handler=again).compile(interrupt_before=["end"])
    secure = secured(compiled, model)
    assert secure.get_graph().draw_mermaid() == compiled.get_graph().draw_mermaid()
    drawn = await secure.aget_graph(xray=True)
    assert drawn.to_json() == (await compiled.aget_graph(xray=True)).to_json()


def test_a_drawing_of_an_outer_graph_shows_the_users_graph(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(rich, model).of():
        parent: Any = StateGraph(State)
        compiled = parent.add_node("inner", graph).add_edge(START, "inner").compile()
        found.append(compiled.get_graph(xray=True).draw_mermaid())
    assert found[1] == found[0]


def test_schemas_are_those_of_the_users_graph(model: ChatSequrity) -> None:
    for make in (rich, small):
        plain, secure = Twins(make, model).of()
        for ask in (
            CompiledStateGraph.get_input_jsonschema,
            CompiledStateGraph.get_output_jsonschema,
            CompiledStateGraph.get_context_jsonschema,
            lambda graph: graph.get_input_schema().model_json_schema(),
            lambda graph: graph.get_output_schema().model_json_schema(),
        ):
            assert ask(secure) == ask(plain)
        assert secure.InputType == plain.InputType
        assert secure.OutputType == plain.OutputType
        assert secure.stream_channels_list == plain.stream_channels_list
        assert secure.output_channels == plain.output_channels
        assert [name for name, _ in secure.get_subgraphs()] == [
            name for name, _ in plain.get_subgraphs()
        ]


def test_an_executor_is_a_compiled_graph_and_has_the_graphs_name(model: ChatSequrity) -> None:
    secure = secured(small().compile(name="mails"), model)
    assert isinstance(secure, CompiledStateGraph)
    assert isinstance(secure, Runnable)
    assert (secure.name, secure.get_name()) == ("mails", "mails")
    assert secured(small(), model).name == "LangGraph"
    assert secured(small(), model, name="own").name == "own"


def test_an_executor_keeps_checkpointer_and_interrupts_of_a_compiled_graph(
    model: ChatSequrity,
) -> None:
    saver = InMemorySaver()
    compiled = small().compile(checkpointer=saver, interrupt_after=["shout"])
    secure = secured(compiled, model)
    secure.invoke({"text": "a"}, thread())
    assert secure.get_state(thread()).next == ("end",)
    assert secure.checkpointer is saver
    assert secured(compiled, model, checkpointer=InMemorySaver()).checkpointer is not saver


# Copies


def _copies(graph: Any) -> list[Any]:
    return [
        graph.copy(),
        graph.with_config({"tags": ["x"]}),
        copy.copy(graph),
        copy.deepcopy(graph),
    ]


@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_copies_work_like_the_original(kind: Any, model: ChatSequrity) -> None:
    told = kind("any/model", base_url=model.base_url)
    nodes = {"end": {"tool_name": "finish"}}
    graph = secured(small().compile(interrupt_before=["end"]), told, nodes, name="mine")
    for one in _copies(graph):
        assert type(one) is LangGraphExecutor
        assert one.program == graph.program
        assert one.name == "mine"
        assert one.interrupt_before_nodes == ["end"]
        assert one.get_graph().to_json() == graph.get_graph().to_json()
        loose = one.copy({"interrupt_before_nodes": []})
        assert loose.invoke({"text": "a"}) == {"text": "A", "log": ["shout", "end A"]}
        assert one.explain().to_dict() == graph.explain().to_dict()


def test_an_executor_like_any_compiled_graph_cannot_be_pickled(model: ChatSequrity) -> None:
    with pytest.raises(AttributeError):
        pickle.dumps(small().compile())
    with pytest.raises(UsageError, match="cannot be pickled"):
        pickle.dumps(secured(small(), model))


# Models


def test_a_model_can_be_given_by_its_name(model: ChatSequrity) -> None:
    policy = 'tool "end" { hard deny always; }'
    graph = LangGraphExecutor(small(), "planner,worker", base_url=model.base_url, policy=policy)
    with pytest.raises(PolicyDenied):
        graph.invoke({"text": "a"})


def test_the_name_and_the_options_of_a_model_are_sent(model: ChatSequrity) -> None:
    with noted(model.base_url) as (told, sent):
        options = {"http_client": told.http_client, "temperature": 0.5}
        graph = LangGraphExecutor(small(), "planner,worker", base_url=model.base_url, **options)
        graph.invoke({"text": "a"})
    assert {(body["model"], body["temperature"]) for body in sent} == {("planner,worker", 0.5)}


def test_unknown_options_and_wrong_types_of_models_are_refused(model: ChatSequrity) -> None:
    with pytest.raises(UsageError, match="`base_url` is not an argument of `LangGraphExecutor`"):
        LangGraphExecutor(small(), model, base_url="http://127.0.0.1")
    with pytest.raises(UsageError, match="`polcy`"):
        LangGraphExecutor(small(), "any/model", base_url=model.base_url, polcy="")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="got int"):
        LangGraphExecutor(small(), 3)  # type: ignore[arg-type]


def test_the_responses_format_is_refused_with_a_reason(model: ChatSequrity) -> None:
    told = ChatSequrity("any/model", base_url=model.base_url, use_responses_api=True)
    with pytest.raises(UsageError, match="no endpoint for programs"):
        LangGraphExecutor(small(), told)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("history", ["whole", "new", "auto"])
@pytest.mark.parametrize("kind", [ChatSequrity, SequrityMessages])
def test_each_format_runs_a_graph(kind: Any, history: Any, model: ChatSequrity) -> None:
    provider = None if kind is ChatSequrity else "anthropic"
    told = kind("any/model", base_url=model.base_url, provider=provider)
    graph = LangGraphExecutor(rich(), told, history=history)
    plain = rich().compile()
    for text in ("abcd", "", "ab"):
        assert graph.invoke({"text": text}) == plain.invoke({"text": text})


def test_a_graph_runs_on_a_service_that_supports_only_documented_fields() -> None:
    with LocalServer(fidelity="documented") as server:
        told = ChatSequrity("any/model", base_url=server.base_url)
        options = {"again": NodeOptions(tool_name="once_more")}
        graph = LangGraphExecutor(rich(), told, nodes=options, checkpointer=InMemorySaver())
        found = [graph.invoke({"text": "abcd"}, thread()) for _ in range(2)]
    plain = rich().compile(checkpointer=InMemorySaver())
    assert found == [plain.invoke({"text": "abcd"}, thread()) for _ in range(2)]
    assert json.dumps(found)
