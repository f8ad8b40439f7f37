"""The fields that LangGraph's and LangChain's own nodes read and write are known."""

from collections.abc import Callable
from functools import partial
from functools import wraps as wraps_function
from typing import Annotated, Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelRequest,
    ModelRetryMiddleware,
    PIIMiddleware,
    TodoListMiddleware,
    ToolRetryMiddleware,
    before_model,
    wrap_tool_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import InjectedState, ToolRuntime, tool
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command
from pydantic import BaseModel

from langchain_sequrity.errors import UnknownAccess
from langchain_sequrity.graph.analysis.reads_and_writes import annotations_of_fields
from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codec.values import allowed_types
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.program import GraphProgram, ToolSpec
from tests.graph.apps.scripted import following


class State(MessagesState, total=False):
    user: str
    notes: list[str]
    secret: str


EVERYTHING = {"messages", "user", "notes", "secret"}


@tool
def plain(city: str) -> str:
    """Reads nothing."""
    return city


@tool
def unannotated(city: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - that is the point
    """Does not say what it returns, where `Command` is at hand."""
    return helper(city)


def helper(value: Any) -> Any:
    return value


@tool
def one_field(city: str, who: Annotated[str, InjectedState("user")]) -> str:
    """Reads a field."""
    return city + who


@tool
def whole_state(city: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Gets the state and looks at a field."""
    return city + str(state["user"])


@tool
def hands_on(city: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Gets the state and hands it on."""
    return city + str(helper(state))


@tool
def by_runtime(city: str, runtime: ToolRuntime) -> str:
    """Looks at a field through the runtime."""
    return f"{city}{runtime.state['user']}{runtime.tool_call_id}"


@tool
def runtime_without_state(city: str, runtime: ToolRuntime) -> str:
    """Needs the id of the call."""
    return city + str(runtime.tool_call_id)


@tool
def hands_on_runtime(city: str, runtime: ToolRuntime) -> str:
    """Hands the runtime on."""
    return city + str(helper(runtime))


@tool
def commands(city: str, runtime: ToolRuntime) -> Any:
    """Writes a field."""
    said = ToolMessage(city, tool_call_id=runtime.tool_call_id)
    return Command(update={"notes": [city], "messages": [said]})


@tool
def may_command(city: str) -> Command[Any] | str:
    """Writes something."""
    return helper(city)  # type: ignore[no-any-return]


@tool
async def waits(city: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Has no function that does not wait."""
    return city + str(state["user"])


@tool
def validated(city: str, state: Annotated[State, InjectedState]) -> str:
    """Gets a state that pydantic has validated."""
    return city + state["user"]


class OwnTool(BaseTool):
    name: str = "own"
    description: str = "A class of its own."

    def _run(self, city: str) -> str:
        return city


def tool_graph(*tools: Any, **options: Any) -> GraphProgram:
    graph: Any = StateGraph(State).add_node("tools", ToolNode(tools, **options))
    return compile_graph(read_graph(graph.add_edge(START, "tools")))


def fields(spec: ToolSpec) -> set[str]:
    return {str(one.field) for one in spec.parameters if one.kind != "send"}


TOOLS: list[tuple[list[Any], set[str], set[str]]] = [
    ([plain], set(), set()),
    ([OwnTool()], set(), set()),
    ([one_field], {"user"}, set()),
    ([plain, whole_state], {"user"}, set()),
    ([by_runtime, one_field], {"user"}, set()),
    ([waits], {"user"}, set()),
    ([validated], {"user", "notes", "secret"}, set()),
    ([runtime_without_state], set(), set()),
    ([plain, commands], set(), {"notes"}),
]


@pytest.mark.parametrize(("tools", "reads", "writes"), TOOLS, ids=range(len(TOOLS)))
def test_a_tool_node_reads_messages_and_what_its_tools_read(
    tools: list[Any], reads: set[str], writes: set[str]
) -> None:
    found = tool_graph(*tools).offered["tools"]
    assert (fields(found), set(found.writes)) == ({"messages", *reads}, {"messages", *writes})
    assert (found.targets, found.sends) == (frozenset(), frozenset())


@pytest.mark.parametrize("one", [hands_on, hands_on_runtime], ids=lambda one: one.name)
def test_a_tool_that_passes_the_state_on_makes_its_node_read_everything(one: Any) -> None:
    with pytest.warns(UnknownAccess, match="Node 'tools' reads"):
        assert fields(tool_graph(one).offered["tools"]) == EVERYTHING


@pytest.mark.parametrize("one", [may_command, unannotated], ids=lambda one: one.name)
def test_a_tool_with_an_unknown_command_makes_its_node_write_everything(one: Any) -> None:
    with pytest.warns(UnknownAccess, match="Node 'tools' writes"):
        assert set(tool_graph(plain, one).offered["tools"].writes) == EVERYTHING


def test_a_tool_may_return_a_command_that_only_its_closure_or_the_function_in_it_names() -> None:
    module: dict[str, Any] = {"wraps": wraps_function}
    text = """def decorated(function):
        @wraps(function)
        def run(city):
            return function(city)
        return run

def made(reply):
        def run(city):
            "Write something."
            return reply(update={})
        return run
    """
    exec(text, module)  # noqa: S102 - a module that does not have the class

    def commanding(city: str) -> Any:
        """Write something."""
        return helper(city) or Command()

    for function in (module["decorated"](commanding), module["made"](Command)):
        with pytest.warns(UnknownAccess, match="Node 'tools' writes"):
            found = tool_graph(tool(function)).offered["tools"]
        assert set(found.writes) == EVERYTHING


def test_an_unknown_wrapper_of_tool_calls_makes_its_node_read_and_write_everything() -> None:
    def wrap(request: Any, execute: Any) -> Any:
        return execute(request)

    with pytest.warns(UnknownAccess):
        found = tool_graph(plain, wrap_tool_call=wrap).offered["tools"]
    assert (fields(found), set(found.writes)) == (EVERYTHING, EVERYTHING)


@pytest.mark.parametrize(
    ("condition", "reads"),
    [(tools_condition, {"messages"}), (partial(tools_condition, messages_key="notes"), {"notes"})],
)
def test_tools_condition_reads_only_the_messages(condition: Any, reads: set[str]) -> None:
    def model(state: State) -> Any:
        return {"messages": [state["user"]]}

    graph: Any = StateGraph(State).add_node("model", model).add_node("tools", ToolNode([plain]))
    graph.add_edge(START, "model").add_conditional_edges("model", condition, ["tools", "__end__"])
    tools = compile_graph(read_graph(graph)).tools
    (router,) = (one for one in tools.values() if one.role == "router")
    assert fields(router) == reads


# Agents


class Report(BaseModel):
    city: str


@before_model
def looks_around(state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:  # noqa: ARG001 - LangChain's signature
    """A hook of the user that passes the state on."""
    return helper(state) and None


@wrap_tool_call
def wraps(request: Any, handler: Callable[[Any], Any]) -> Any:
    """A wrapper of the user that gets the state in its request."""
    return handler(request)


class Watching(AgentMiddleware[Any]):
    """A middleware of the user around the model."""

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[..., Any]) -> Any:
        return handler(request)


def agent(*middleware: Any, **options: Any) -> GraphProgram:
    return compile_graph(
        read_graph(create_agent(following("hi"), [plain], middleware=middleware, **options))
    )


def test_the_nodes_of_an_agent_read_and_write_only_messages() -> None:
    tools = agent().tools
    for node in ("model", "tools"):
        assert (fields(tools[node]), set(tools[node].writes)) == ({"messages"}, {"messages"})


def test_an_agent_with_a_response_format_writes_the_structured_response() -> None:
    tools = agent(response_format=ToolStrategy(Report)).tools
    assert set(tools["model"].writes) == {"messages", "structured_response"}
    assert set(tools["tools"].writes) == {"messages"}
    spec = read_graph(create_agent(following("hi"), [plain], response_format=ToolStrategy(Report)))
    assert allowed_types(annotations_of_fields(spec)["structured_response"]).classes == {Report}


def test_middleware_of_langchain_uses_only_the_fields_of_its_own_state() -> None:
    limit, ask = ModelCallLimitMiddleware(run_limit=3), HumanInTheLoopMiddleware({"plain": True})
    rest = [PIIMiddleware("email"), TodoListMiddleware(), ToolRetryMiddleware()]
    program = agent(limit, ask, ModelRetryMiddleware(), *rest)
    by_node = {one.node: one for one in program.offered.values() if one.role == "node"}
    counted = {"thread_model_call_count", "run_model_call_count"}
    for node, tool_ in by_node.items():
        assert "structured_response" not in fields(tool_), node
        if not node.startswith("ModelCallLimit"):
            assert not counted & (fields(tool_) | set(tool_.writes)), node
    assert "todos" in by_node["tools"].writes


@pytest.mark.parametrize(
    ("middleware", "node"),
    [
        (looks_around, "looks_around.before_model"), (wraps, "tools"), (Watching(), "model"),
        (HumanInTheLoopMiddleware({"plain": {"allowed_decisions": ["approve"], "description": lambda *_: "ask"}}), "HumanInTheLoopMiddleware.after_model"),
        (HumanInTheLoopMiddleware({"plain": {"allowed_decisions": ["approve"], "when": lambda _: True}}), "HumanInTheLoopMiddleware.after_model"),
    ],
    ids=["hook", "around tools", "around the model", "callback", "condition"],
)  # fmt: skip
def test_middleware_of_the_user_counts_as_reading_everything(middleware: Any, node: str) -> None:
    with pytest.warns(UnknownAccess) as warned:
        program = agent(middleware)
    assert any(f"Node '{node}' reads" in str(one.message) for one in warned)
    (found,) = (one for one in program.offered.values() if one.node == node and one.role == "node")
    assert fields(found) >= {"messages", "jump_to", "structured_response"}


@pytest.mark.filterwarnings("ignore:create_react_agent")
@pytest.mark.parametrize("told", [Report, ("Answer.", Report)], ids=["class", "with a prompt"])
def test_the_fields_of_create_react_agents_nodes_are_known(told: Any) -> None:
    spec = read_graph(create_react_agent(following("hi"), [plain], response_format=told))
    program = compile_graph(spec)
    by_node = {one.node: one for one in program.offered.values() if one.role == "node"}
    assert (fields(by_node["tools"]), by_node["tools"].writes) == ({"messages"}, ("messages",))
    assert by_node["agent"].reads_from == "source"
    assert allowed_types(annotations_of_fields(spec)["structured_response"]).classes == {Report}


@pytest.mark.filterwarnings("ignore:create_react_agent")
def test_create_react_agent_may_read_all_fields_of_a_larger_state() -> None:
    class More(AgentState[Any]):
        remaining_steps: RemainingSteps
        secret: str

    made = create_react_agent(following("hi"), [plain], state_schema=More)
    with pytest.warns(UnknownAccess, match="Node 'agent' reads|router 'should_continue'"):
        program = compile_graph(read_graph(made))
    assert "secret" in fields(program.offered["agent"])
