"""State that a node reads through its config is part of its call, so policies see it."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Send

from langchain_sequrity import ChatSequrity, LangGraphExecutor, PolicyHeader
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.running import compiled, secured


class Rooms(MessagesState):
    rooms: int
    secret: str


GIVEN = {"messages": [], "secret": "x"}


@tool
def look(rooms: Annotated[int, InjectedState("rooms")]) -> str:
    """Look around."""
    return f"{rooms} rooms"


@tool
def wonder(runtime: ToolRuntime[Any, Any]) -> str:
    """Look at anything."""
    return f"{runtime.state['rooms']} rooms"


@tool
def gaze(state: Annotated[Rooms, InjectedState]) -> str:
    """Look at the whole state."""
    return f"{state['rooms']} rooms"


@tool
def wait() -> str:
    """Wait."""
    return "waited"


def calling(one: Any, node: Any) -> Any:
    """A graph whose router sends a call of a tool to a node, as agents do."""

    def agent(_state: Rooms) -> dict[str, Any]:
        call = {"name": one.name, "args": {}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", id="t", tool_calls=[call])], "rooms": 3}

    def spread(state: Rooms) -> list[Send]:
        return [Send("tools", [call]) for call in state["messages"][-1].tool_calls]  # type: ignore[union-attr]

    graph: Any = StateGraph(Rooms)
    graph.add_node("agent", agent)
    graph.add_node("tools", node)
    graph.add_edge(START, "agent")
    return graph.add_conditional_edges("agent", spread, ["tools"])


def within(one: Any) -> Any:
    """A function that runs a `ToolNode`."""

    def node(calls: Any) -> Any:
        return ToolNode([one]).invoke(calls)

    return node


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


def under(url: str, policy: str) -> ChatSequrity:
    """A model whose policy allows everything that it does not deny."""
    header = PolicyHeader(codes=policy, auto_gen=False, fail_fast=False)
    return ChatSequrity("any/model", base_url=url, policy=header)


@pytest.mark.parametrize("one", [look, wonder, gaze], ids=lambda one: one.name)
def test_a_tool_that_is_called_by_a_send_sees_the_state_of_the_graph(
    one: Any, model: ChatSequrity
) -> None:
    expected = compiled(calling(one, ToolNode([one]))).invoke(GIVEN)
    actual = secured(calling(one, ToolNode([one])), model).invoke(GIVEN)
    assert expected["messages"][-1].content == "3 rooms"
    assert actual["messages"][-1].content == "3 rooms"


def test_a_policy_sees_the_state_that_a_tool_reads_in_addition_to_its_send(url: str) -> None:
    deny = 'tool "tools" { must deny when rooms.value == 3; }'
    other = 'tool "tools" { must deny when rooms.value == 4; }'
    graph = calling(look, ToolNode([look]))
    assert secured(graph, under(url, other)).invoke(GIVEN)["rooms"] == 3
    with pytest.raises(PolicyDenied) as denied:
        secured(graph, under(url, deny)).invoke(GIVEN)
    assert denied.value.node == "tools"


def test_the_call_of_a_tool_node_contains_only_fields_that_its_tools_read(
    model: ChatSequrity,
) -> None:
    program = secured(calling(look, ToolNode([look])), model).program
    assert "rooms=s_rooms" in program
    assert "secret=" not in program


@pytest.mark.parametrize("one", [look, wonder, gaze], ids=lambda one: one.name)
def test_a_tool_inside_a_function_cannot_read_state_that_its_call_does_not_contain(
    one: Any, model: ChatSequrity
) -> None:
    graph = calling(one, within(one))
    with pytest.raises(UsageError, match=r"Node `tools` reads .* through its config"):
        secured(graph, model).invoke(GIVEN)


@tool
def pry(runtime: ToolRuntime[Any, Any]) -> str:
    """Look at the secret."""
    return str(runtime.state["secret"])


def behind(calls: Any) -> Any:
    return ToolNode([pry], handle_tool_errors=False).invoke(calls)


def test_a_tool_behind_a_function_reads_only_what_the_call_of_its_node_contains(
    model: ChatSequrity,
) -> None:
    def node(state: Rooms) -> dict[str, Any]:
        behind([{"name": "pry", "args": {}, "id": "1", "type": "tool_call"}])
        return {"rooms": state["rooms"]}

    graph: Any = StateGraph(Rooms).add_node("node", node).add_edge(START, "node")
    with pytest.raises(UsageError, match=r"Node `node` reads `secret` of the state"):
        secured(graph, model).invoke({**GIVEN, "rooms": 1})


def test_a_tool_inside_a_function_may_run_if_it_reads_no_state(model: ChatSequrity) -> None:
    graph = calling(wait, within(wait))
    assert secured(graph, model).invoke(GIVEN)["messages"][-1].content == "waited"


def test_a_field_in_the_argument_of_a_send_has_priority_over_the_state(model: ChatSequrity) -> None:
    def make() -> Any:
        def route(_state: Rooms) -> list[Send]:
            call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
            message = AIMessage("", id="m", tool_calls=[call])
            return [Send("tools", {"messages": [message], "rooms": 7})]

        graph: Any = StateGraph(Rooms)
        graph.add_node("tools", ToolNode([look]))
        return graph.add_conditional_edges(START, route, ["tools"])

    given = {"messages": [], "rooms": 1}
    expected = compiled(make()).invoke(given)["messages"][-1].content
    assert expected == "7 rooms"
    assert secured(make(), model).invoke(given)["messages"][-1].content == expected


def test_a_node_reads_through_its_config_only_fields_that_its_call_contains(
    model: ChatSequrity,
) -> None:
    seen: list[Any] = []

    def make(name: str) -> LangGraphExecutor:
        def node(state: Rooms, config: RunnableConfig) -> dict[str, Any]:
            seen.append(config["configurable"]["__pregel_read"](name, False))
            return {"rooms": state["rooms"] + 1}

        graph: Any = StateGraph(Rooms)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        return secured(graph, model)

    assert make("rooms").invoke({"messages": [], "rooms": 1})["rooms"] == 2
    assert seen == [1]
    with pytest.raises(UsageError, match=r"reads `secret` .*NodeOptions\(reads="):
        make("secret").invoke({"messages": [], "rooms": 1, "secret": "x"})


@pytest.mark.parametrize("is_fused", [False, True])
def test_nodes_and_routers_do_not_see_the_executors_own_keys(
    model: ChatSequrity, *, is_fused: bool
) -> None:
    seen: list[str] = []

    def node(state: Rooms, config: RunnableConfig) -> dict[str, Any]:
        seen.extend(config["configurable"])
        return {"rooms": state["rooms"] + 1}

    def route(state: Rooms, config: RunnableConfig) -> str:
        seen.extend(config["configurable"])
        return END if state["rooms"] else "node"

    graph: Any = StateGraph(Rooms).add_node("node", node).add_edge(START, "node")
    graph.add_conditional_edges("node", route, ["node", END])
    executor = secured(graph, model, {"node": {"fuse_router": is_fused}})
    executor.invoke({"messages": [], "rooms": 1}, {"configurable": {"who": "me"}})
    assert seen.count("who") == 2
    assert not [key for key in seen if "sequrity" in key]
