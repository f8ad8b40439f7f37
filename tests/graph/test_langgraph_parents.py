"""An executor as a node of another graph, and graphs as nodes of an executor."""

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import PolicyDenied
from tests.graph.running import secured
from tests.graph.twins import Twins, thread


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


class Inner(TypedDict, total=False):
    text: str
    hidden: str
    log: Annotated[list[str], operator.add]


def look(state: Inner) -> dict[str, Any]:
    return {"hidden": state["text"].upper(), "log": ["look"]}


def tell(state: Inner) -> dict[str, Any]:
    return {"text": state["hidden"] + "!", "log": ["tell"]}


def inner() -> Any:
    graph: Any = StateGraph(Inner)
    return graph.add_sequence([look, tell]).set_entry_point("look")


def after(state: State) -> dict[str, Any]:
    return {"text": state["text"] + "?", "log": ["after"]}


def around(graph: Any, **options: Any) -> Any:
    parent: Any = StateGraph(State)
    parent.add_node("inner", graph).add_node("after", after)
    parent.add_edge(START, "inner").add_edge("inner", "after")
    return parent.compile(**options)


def test_fields_that_both_graphs_have_go_in_and_out(model: ChatSequrity) -> None:
    plain, secure = (
        around(graph).invoke({"text": "a", "log": ["given"]}) for graph in Twins(inner, model).of()
    )
    assert secure == plain


async def test_fields_that_both_graphs_have_go_in_and_out_in_an_event_loop(
    model: ChatSequrity,
) -> None:
    plain, secure = [
        await around(graph).ainvoke({"text": "a", "log": ["given"]})
        for graph in Twins(inner, model).of()
    ]
    assert secure == plain


def test_a_stream_of_the_outer_graph_shows_the_inner_nodes(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(inner, model).of():
        chunks = list(around(graph).stream({"text": "a"}, subgraphs=True))
        found.append([([one.split(":")[0] for one in names], chunk) for names, chunk in chunks])
    assert found[1] == found[0]


def leaving() -> Any:
    def leave(state: Inner) -> Command[Any]:
        update = {"text": state["hidden"], "log": ["left"]}
        return Command(graph=Command.PARENT, goto="after", update=update)

    graph: Any = StateGraph(Inner)
    return graph.add_sequence([look, leave, tell]).set_entry_point("look")


@pytest.mark.parametrize("in_loop", [False, True])
async def test_a_node_can_hand_over_to_the_outer_graph(in_loop: bool, model: ChatSequrity) -> None:
    found = []
    for graph in Twins(leaving, model).of():
        parent = around(graph)
        found.append(
            await parent.ainvoke({"text": "a"}) if in_loop else parent.invoke({"text": "a"})
        )
    assert found[1] == found[0]
    assert found[1]["log"] == ["left", "after"]


def test_an_error_handler_of_the_outer_graph_gets_a_denial(model: ChatSequrity) -> None:
    denies = model.model_copy(update={"policy": 'tool "tell" { hard deny always; }'})

    def review(_: State, error: Any) -> Command[Any]:
        assert isinstance(error.error, PolicyDenied)
        return Command(goto="after", update={"text": error.error.node or ""})

    parent: Any = StateGraph(State)
    parent.add_node("inner", secured(inner(), denies), error_handler=_typed(review))
    parent.add_node("after", after).add_edge(START, "inner")
    assert parent.compile().invoke({"text": "a"}) == {"text": "tell?", "log": ["after"]}


def _typed(handler: Any) -> Any:
    from langgraph.errors import NodeError  # noqa: PLC0415 - the annotation is looked at

    handler.__annotations__["error"] = NodeError
    return handler


def test_each_run_of_an_executor_as_a_node_is_a_separate_run(model: ChatSequrity) -> None:
    found = []
    for graph in Twins(inner, model).of():
        parent: Any = StateGraph(State)

        def again(state: State) -> str:
            return "inner" if len(state["text"]) < 5 else END

        parent.add_node("inner", graph).add_edge(START, "inner")
        compiled = parent.add_conditional_edges("inner", again).compile(
            checkpointer=InMemorySaver()
        )
        found.append([compiled.invoke({"text": "a"}, thread()) for _ in range(2)])
    assert found[1] == found[0]


def test_an_executor_in_an_outer_graph_can_have_its_own_memory(model: ChatSequrity) -> None:
    def remember(state: Inner) -> dict[str, Any]:
        return {"log": ["new"], "text": str(len(state.get("log", [])))}

    def make() -> Any:
        graph: Any = StateGraph(Inner)
        return graph.add_sequence([remember]).set_entry_point("remember")

    class Other(TypedDict, total=False):
        text: str

    found = []
    for graph in Twins(make, model).of(checkpointer=True):
        parent: Any = StateGraph(Other)
        compiled = parent.add_node("inner", graph).add_edge(START, "inner")
        remembering = compiled.compile(checkpointer=InMemorySaver())
        found.append([remembering.invoke({"text": "a"}, thread()) for _ in range(3)])
    assert found[1] == found[0]
    assert found[1][-1]["text"] == "2"


def test_a_node_can_create_and_run_an_executor(model: ChatSequrity) -> None:
    def make(state: State, config: RunnableConfig) -> Any:
        return LangGraphExecutor(inner(), model).invoke({"text": state["text"]}, config)

    def make_implicitly(state: State) -> Any:
        return LangGraphExecutor(inner(), model).invoke({"text": state["text"]})

    for node in (make, make_implicitly):
        parent: Any = StateGraph(State)
        graph = parent.add_sequence([("one", node)]).set_entry_point("one").compile()
        assert graph.invoke({"text": "a"}) == {"text": "A!", "log": ["look", "tell"]}
        names = {name for _, chunk in graph.stream({"text": "a"}, subgraphs=True) for name in chunk}
        assert names == {"look", "tell", "one"}


def test_an_executor_can_be_a_node_of_another_executor(model: ChatSequrity) -> None:
    def outer(graph: Any) -> Any:
        parent: Any = StateGraph(State)
        parent.add_node("inner", graph).add_node("after", after)
        return parent.add_edge(START, "inner").add_edge("inner", "after")

    plain = outer(inner().compile()).compile()
    secure = secured(outer(secured(inner(), model)), model)
    for options in ({"stream_mode": "updates"}, {"stream_mode": "values", "subgraphs": True}):
        found = [list(graph.stream({"text": "a"}, **options)) for graph in (plain, secure)]
        assert repr(found[1]).count("look") == repr(found[0]).count("look")
    assert secure.invoke({"text": "a"}) == plain.invoke({"text": "a"})


# The recursion limit


@pytest.mark.parametrize("limit", [1, 24, 25, 26, 40])
def test_a_recursion_limit_holds_below_and_above_the_default(
    model: ChatSequrity, limit: int
) -> None:
    ran = list[str]()
    graph: Any = StateGraph(State).add_node("a", lambda _state: ran.append("a"))
    graph.add_edge(START, "a").add_edge("a", "a")
    with pytest.raises(GraphRecursionError):
        secured(graph, model).invoke({"text": "a"}, {"recursion_limit": limit})
    assert len(ran) == limit


def test_the_recursion_limit_of_the_caller_holds(model: ChatSequrity) -> None:
    plain, secure = Twins(inner, model).of()
    for graph in (plain, secure, plain.with_config(), secure.with_config()):
        assert graph.invoke({"text": "a"}, {"recursion_limit": 3})["text"] == "A!"
        with pytest.raises(GraphRecursionError):
            graph.invoke({"text": "a"}, {"recursion_limit": 2})
        with pytest.raises(ValueError, match="at least 1"):
            graph.invoke({"text": "a"}, {"recursion_limit": 0})
    with pytest.raises(GraphRecursionError):
        secure.with_config({"recursion_limit": 2}).invoke({"text": "a"})
    with pytest.raises(GraphRecursionError):
        around(secure).invoke({"text": "a"}, {"recursion_limit": 2})


def test_a_node_sees_the_callers_config(model: ChatSequrity) -> None:
    def make() -> Any:
        def node(_: State, config: RunnableConfig) -> dict[str, Any]:
            given = config["configurable"]
            own = [key for key in given if not key.startswith(("__pregel", "checkpoint"))]
            return {"text": str(config["recursion_limit"]), "log": sorted(own)}

        def route(_: State, config: RunnableConfig) -> str:
            return END if config["recursion_limit"] == 7 else "node"

        graph: Any = StateGraph(State)
        graph.add_node("node", node).add_edge(START, "node")
        return graph.add_conditional_edges("node", route)

    config: Any = {"recursion_limit": 7, "configurable": {"user": "ann"}}
    plain, secure = (graph.invoke({}, config) for graph in Twins(make, model).of())
    assert secure == plain


# Tools


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    user: str


@tool
def whose(runtime: ToolRuntime) -> str:
    """Whose conversation it is."""
    return f"{runtime.state['user']}, {len(runtime.state['messages'])} messages"


@tool
def injected(state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Who asks."""
    return str(state["user"])


def tools() -> Any:
    def ask(_: Chat) -> dict[str, Any]:
        calls = [
            {"name": name, "args": {}, "id": str(number), "type": "tool_call"}
            for number, name in enumerate(["whose", "injected"])
        ]
        return {"messages": [AIMessage("", tool_calls=calls, id="asked")]}

    graph: Any = StateGraph(Chat)
    graph.add_node("ask", ask).add_node("tools", ToolNode([whose, injected]))
    return graph.add_edge(START, "ask").add_edge("ask", "tools")


@pytest.mark.parametrize("in_loop", [False, True])
async def test_tools_of_a_tool_node_see_the_state(in_loop: bool, model: ChatSequrity) -> None:
    given = {"messages": [HumanMessage("Who?", id="human")], "user": "ann"}
    found = []
    for graph in Twins(tools, model).of():
        ended = await graph.ainvoke(given) if in_loop else graph.invoke(given)
        found.append([one.content for one in ended["messages"]])
    assert found[1] == found[0]
    assert found[1][-2:] == ["ann, 2 messages", "ann"]
