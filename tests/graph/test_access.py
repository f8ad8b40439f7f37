"""The analysis of which fields a node or a router reads and writes."""

# ruff: noqa: ARG001, ARG005 - a node takes the state even if it does not use it

import asyncio
import codeop
import functools
import linecache
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.runnables import (
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import GraphNotSupported, UnknownAccess, UsageError
from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import GraphProgram, ToolSpec
from langchain_sequrity.labels import with_labels

KEY: Any = "x"
ELSEWHERE = "b"


class State(TypedDict, total=False):
    x: int
    y: int
    z: Annotated[list[Any], operator.add]


class Small(TypedDict):
    y: int


class Update(TypedDict, total=False):
    x: int
    z: list[Any]


EVERYTHING = ("x", "y", "z")


def tool_of(node: Any, options: NodeOptions | None = None) -> ToolSpec:
    graph = StateGraph(State).add_node("a", node).add_node("b", lambda s: None).add_edge(START, "a")
    nodes = {} if options is None else {"a": options}
    return compile_graph(read_graph(graph), nodes).offered["a"]


def quiet(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownAccess)
        return make()


def fields(tool: ToolSpec) -> Any:
    return tuple(str(one.field) for one in tool.parameters if one.kind != "send")


def helper(state: Any) -> Any:
    return state


# Reads.


def subscript(state: State) -> Any:
    return {"y": state["x"] + 1}


def get(state: State) -> Any:
    return {"y": state.get("x", 0) + len(state.get("z", []))}


def membership(state: State) -> Any:
    return {"y": 1 if "x" in state else 2, "x": "y" not in state}


def added_to(state: State) -> Any:
    state["x"] += 1
    return {"y": 1}


def only_set(state: State) -> Any:
    state["x"] = 1
    return {"y": 1}


def in_a_comprehension(state: State) -> Any:
    return {"y": sum(one + state["x"] for one in state["z"])}


def in_an_inner_function(state: State) -> Any:
    def inner() -> int:
        return state["x"]

    return {"y": inner()}


def in_a_text(state: State) -> Any:
    return {"y": f"{state['x']}"}


def nothing(state: State) -> Any:
    return {"y": 1}


async def asynchronous(state: State) -> Any:
    return {"y": state["x"]}


def other_name(config_free: State, /) -> Any:
    return {"y": config_free["x"]}


def with_config(state: State, config: RunnableConfig) -> Any:
    return {"y": state["x"], "x": len(config)}


class Method:
    def node(self, state: State) -> Any:
        return {"y": state["x"]}

    def __call__(self, state: State) -> Any:
        return {"y": state["z"]}


def two(first: int, state: State, last: int = 0) -> Any:
    return {"y": state["x"] + first + last}


READS: list[tuple[Any, tuple[str, ...]]] = [
    (subscript, ("x",)),
    (get, ("x", "z")),
    (membership, ("x", "y")),
    (added_to, ("x",)),
    (only_set, ()),
    (in_a_comprehension, ("x", "z")),
    (in_an_inner_function, ("x",)),
    (in_a_text, ("x",)),
    (nothing, ()),
    (asynchronous, ("x",)),
    (other_name, ("x",)),
    (with_config, ("x",)),
    (Method().node, ("x",)),
    (Method(), ("z",)),
    (functools.partial(two, 1), ("x",)),
    (functools.partial(two, 1, last=2), ("x",)),
    (lambda state: {"y": state["x"]}, ("x",)),
    (RunnableLambda(subscript), ("x",)),
    (RunnableLambda(subscript, afunc=asynchronous), ("x",)),
]


@pytest.mark.parametrize(
    ("node", "expected"), READS, ids=lambda one: getattr(one, "__name__", None)
)
def test_a_field_that_the_source_names_is_read(node: Any, expected: tuple[str, ...]) -> None:
    tool = tool_of(node)
    assert (fields(tool), tool.reads_from) == (expected, "source")


def test_two_lambdas_on_one_line_are_distinguished() -> None:
    one, other = (lambda s: {"y": s["x"]}), (lambda s: {"y": s["z"]})
    assert (fields(tool_of(one)), fields(tool_of(other))) == (("x",), ("z",))


# Nodes that pass the whole state on.


def handed_on(state: State) -> Any:
    return {"y": helper(state)}


def renamed(state: State) -> Any:
    other = state
    return {"y": other["x"]}


def computed_key(state: Any) -> Any:
    return {"y": state[KEY]}


def unpacked(state: State) -> Any:
    return {"y": dict(**state)["x"]}


def walked(state: State) -> Any:
    return {"y": list(state.values())}


def captured(state: State) -> Any:
    return {"y": [state]}


def rebound(state: State) -> Any:
    state = {**state}
    return {"y": state["x"]}


def shadowed(state: State) -> Any:
    return {"y": [state["x"] for state in [{"x": 1}]]}


def looked_around(state: State) -> Any:
    return {"y": locals()["state"]["x"]}


def matched(state: State) -> Any:
    match state:
        case {"x": value}:
            return {"y": value}
    return {"y": 1}


def formatted(state: State) -> Any:
    return {"y": f"{state}"}


def starred(*states: Any) -> Any:
    return {"y": states[0]["x"]}


def wrapper(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return {"y": args[0]["z"]} if args[0].get("x") else function(*args)

    return inner


@wrapper
def wrapped(state: State) -> Any:
    return {"y": state["x"]}


HANDED_ON = [
    handed_on, renamed, computed_key, unpacked, walked, captured, rebound, shadowed, looked_around, matched,
    formatted, starred, wrapped, functools.partial(handed_on),
]  # fmt: skip


@pytest.mark.parametrize("node", HANDED_ON, ids=lambda one: getattr(one, "__name__", "partial"))
def test_a_node_that_passes_its_whole_state_on_reads_everything_with_a_warning(node: Any) -> None:
    with pytest.warns(UnknownAccess) as warned:
        tool = tool_of(node)
    assert (fields(tool), tool.reads_from) == (EVERYTHING, "everything")
    texts = [str(one.message) for one in warned]
    assert any("Node 'a' reads" in text and "NodeOptions(reads=" in text for text in texts)


def test_a_source_file_that_changed_after_the_import_is_not_used(tmp_path: Any) -> None:
    path = tmp_path / "changing.py"
    path.write_text("def node(state):\n    return {'y': state['x']}\n")
    module: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), module)  # noqa: S102 - the test's own text
    path.write_text("def node(state):\n    return {'y': state['z']}\n")
    assert quiet(lambda: fields(tool_of(module["node"]))) == EVERYTHING


def test_a_function_without_a_source_reads_and_writes_everything() -> None:
    module: dict[str, Any] = {}
    exec("def node(state):\n    return {'y': state['x']}\n", module)  # noqa: S102 - the test's own text
    tool = quiet(lambda: tool_of(module["node"]))
    assert (fields(tool), tool.writes) == (EVERYTHING, EVERYTHING)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_error_of_a_node_that_misses_a_field_says_how_to_declare_it(
    model: ChatSequrity, *, is_async: bool
) -> None:
    class Letter(TypedDict, total=False):
        a: str
        b: str

    graph = StateGraph(Letter)
    graph.add_node("n", lambda state: {"b": state["a"]}).add_edge(START, "n")
    executor = LangGraphExecutor(graph, model, nodes={"n": NodeOptions(reads=[])})

    with pytest.raises(KeyError) as caught:
        asyncio.run(executor.ainvoke({"a": "x"})) if is_async else executor.invoke({"a": "x"})
    assert "`nodes={'n': NodeOptions(reads=['a'])}`" in caught.value.__notes__[0]

    with pytest.raises(KeyError) as caught:  # the node may read the field, but it is empty
        LangGraphExecutor(graph, model).invoke({})
    assert not any("NodeOptions" in one for one in caught.value.__notes__)


def test_the_input_schema_of_a_node_limits_what_it_reads() -> None:
    def node(state: Small) -> Any:
        return {"x": helper(state)}

    tool = tool_of(node)
    assert (fields(tool), tool.reads_from) == (("y",), "schema")


# Writes.


def one_key(state: State) -> Any:
    return {"x": 1}


def always_and_maybe(state: State) -> Any:
    return {"x": 1, "y": 2} if state["x"] else {"x": 3}


def sometimes_nothing(state: State) -> Any:
    if state["x"]:
        return {"x": 1}
    return None


def falls_off_the_end(state: State) -> Any:  # noqa: RET503 - what is tested
    if state["x"]:
        return {"x": 1}


def both_ways(state: State) -> Any:
    if state["x"]:
        return {"x": 1}
    else:  # noqa: RET505 - what is tested
        raise ValueError


def built_up(state: State) -> Any:
    update: dict[str, Any] = {"x": 1}
    if state["y"]:
        update["z"] = [1]
    return update


def made_of_another(state: State) -> Any:
    base = {"x": 1}
    return {**base, "z": [2]}


def called_dict(state: State) -> Any:
    return dict(x=1, y=2)  # noqa: C408 - what is tested


def typed_dict(state: State) -> Any:
    return Update(x=1, z=[])


def labelled(state: State) -> Any:
    return with_labels({"x": 1}, tags=["t"])


def command(state: State) -> Any:
    return Command(update={"x": 1}, goto="b")


def commands(state: State) -> Any:
    return [{"x": 1}, Command(update={"z": [1]})]


def unknown_key(state: State) -> Any:
    return {"x": 1, "elsewhere": 2}


def never_here(state: State) -> Any:
    if state["x"]:
        return Command(graph=Command.PARENT, goto="other")
    return {"x": 1}


def in_a_try(state: State) -> Any:
    try:
        return {"x": 1}
    except ValueError:
        return {"x": 2, "y": 3}


WRITES: list[tuple[Any, tuple[str, ...], set[str]]] = [
    (one_key, ("x",), {"x"}),
    (always_and_maybe, ("x", "y"), {"x"}),
    (sometimes_nothing, ("x",), set()),
    (falls_off_the_end, ("x",), set()),
    (both_ways, ("x",), {"x"}),
    (built_up, ("x", "z"), {"x"}),
    (made_of_another, ("x", "z"), {"x", "z"}),
    (called_dict, ("x", "y"), {"x", "y"}),
    (typed_dict, ("x", "z"), {"x", "z"}),
    (labelled, ("x",), {"x"}),
    (command, ("x",), {"x"}),
    (commands, ("x", "z"), {"x", "z"}),
    (unknown_key, ("x",), {"x"}),
    (never_here, ("x",), {"x"}),
    (in_a_try, ("x", "y"), {"x"}),
    (lambda state: {"x": 1} if state["y"] else None, ("x",), set()),
    (lambda state: None, (), set()),
    (RunnableParallel(x=one_key, y=one_key), ("x", "y"), {"x", "y"}),
]


@pytest.mark.parametrize(
    ("node", "expected", "sure"), WRITES, ids=lambda one: getattr(one, "__name__", None)
)
def test_a_key_that_the_source_returns_is_written(
    node: Any, expected: tuple[str, ...], sure: set[str]
) -> None:
    tool = quiet(lambda: tool_of(node))
    assert (tool.writes, tool.definite, tool.writes_from) == (expected, sure, "source")


def returned_state(state: State) -> Any:
    return state


def called_helper(state: State) -> Any:
    return helper(state["x"])


def handed_around(state: State) -> Any:
    update = {"x": state["x"]}
    helper(update)
    return update


def computed(state: State) -> Any:
    return {KEY: 1}


def spread(state: State) -> Any:
    return {**helper({}), "x": 1}


def looped(state: State) -> Any:
    for update in [{"x": 1}, {"y": 2}]:
        if state["x"]:
            return update
    return None


@pytest.mark.parametrize(
    "node", [returned_state, called_helper, handed_around, computed, spread, looped]
)
def test_a_node_with_an_unknown_return_value_writes_everything_with_a_warning(node: Any) -> None:
    with pytest.warns(UnknownAccess) as warned:
        tool = tool_of(node)
    assert any("Node 'a' writes" in str(one.message) for one in warned)
    assert (tool.writes, set(tool.definite), tool.writes_from) == (EVERYTHING, set(), "everything")


def test_a_return_annotation_names_the_writes_if_the_source_does_not() -> None:
    def node(state: Small) -> Update | None:
        return helper(state["y"])  # type: ignore[no-any-return]

    tool = tool_of(node)
    assert (tool.writes, set(tool.definite), tool.writes_from) == (("x", "z"), set(), "annotation")


def test_a_return_annotation_with_the_whole_state_does_not_limit_the_writes() -> None:
    def node(state: Small) -> State:
        return helper(state["y"])  # type: ignore[no-any-return]

    with pytest.warns(UnknownAccess):
        assert tool_of(node).writes_from == "everything"


# Declarations.


def test_a_declaration_has_priority_over_the_source() -> None:
    tool = tool_of(subscript, NodeOptions(reads=["y", "x"], writes=["z", "y"]))
    assert (fields(tool), tool.reads_from) == (("x", "y"), "declared")
    assert (tool.writes, tool.writes_from) == (("y", "z"), "declared")


def test_a_node_with_declared_reads_and_writes_causes_no_warning() -> None:
    tool = tool_of(returned_state, NodeOptions(reads=["x"], writes=["x"]))
    assert (fields(tool), tool.writes) == (("x",), ("x",))


@pytest.mark.parametrize("options", [NodeOptions(reads=["w"]), NodeOptions(writes=["w"])])
def test_a_declared_field_that_does_not_exist_is_refused(options: NodeOptions) -> None:
    with pytest.raises(UsageError, match=r"node 'a' names `w`; it can be one of `x`, `y`, `z`"):
        tool_of(nothing, options)


def test_options_for_an_unknown_node_are_refused() -> None:
    graph = StateGraph(State).add_node("a", nothing).add_edge(START, "a")
    with pytest.raises(UsageError, match=r"'b', which is not a node\. The nodes are 'a'"):
        compile_graph(read_graph(graph), {"b": NodeOptions()})


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"reads": ["x"]}, "{'reads': ['x']}"),
        (["x"], "['x']"),
        (None, "None"),
    ],
)  # fmt: skip
def test_options_of_another_type_are_refused_with_the_correct_form(given: Any, got: str) -> None:
    graph = StateGraph(State).add_node("a", nothing).add_edge(START, "a")
    with pytest.raises(UsageError) as caught:
        compile_graph(read_graph(graph), {"a": given})
    text = f"The options of node 'a' must be a `NodeOptions`; got {got}. Write {{'a': NodeOptions("
    assert str(caught.value).startswith(text)


# Objects as states.


class Model(BaseModel):
    x: int = 0
    y: int = 0


class Smaller(BaseModel):
    y: int = 0


@dataclass
class Record:
    x: int
    y: int = 0
    z: int = 0


@dataclass
class Checked:
    x: int = 0
    y: int = 0

    def __post_init__(self) -> None:
        self.y += self.x


def attribute(state: Any) -> Any:
    return {"x": state.y}


def called(state: Any) -> Any:
    return {"x": state.model_dump()}


@pytest.mark.parametrize(
    ("schema", "node", "expected"),
    [
        (Record, attribute, ("x", "y")),
        (Checked, attribute, ("x", "y")),
        (Model, attribute, ("x", "y")),
        (Model, called, ("x", "y")),
    ],
)
def test_fields_that_the_constructor_of_a_state_needs_are_read_too(
    schema: type[Any], node: Any, expected: tuple[str, ...]
) -> None:
    graph = StateGraph(schema).add_node("a", node).add_edge(START, "a")
    assert quiet(lambda: fields(compile_graph(read_graph(graph)).offered["a"])) == expected


def test_a_pydantic_state_is_read_completely_and_the_warning_says_why() -> None:
    graph = StateGraph(Model).add_node("a", attribute).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: END if state.y else "a", ["a", END])
    with pytest.warns(UnknownAccess) as warned:
        compile_graph(read_graph(graph))
    texts = [str(one.message) for one in warned]
    assert len(texts) == 2
    assert all("the state is a pydantic model, whose fields are validated" in one for one in texts)
    assert any("Give it a smaller `input_schema`." in one for one in texts)


def test_a_node_with_a_smaller_pydantic_input_schema_reads_only_its_fields() -> None:
    graph = StateGraph(Model).add_node("a", attribute, input_schema=Smaller).add_edge(START, "a")
    tool = compile_graph(read_graph(graph)).offered["a"]
    assert (fields(tool), tool.reads_from) == (("y",), "schema")


def test_declared_reads_without_a_field_that_the_model_needs_are_refused() -> None:
    graph = StateGraph(Model).add_node("a", attribute).add_edge(START, "a")
    with pytest.raises(UsageError, match="leaves out `x`, which its input schema needs"):
        compile_graph(read_graph(graph), {"a": NodeOptions(reads=["y"])})


# Routers.


def router_tool(router: Any, path_map: Any = None) -> ToolSpec:
    graph = StateGraph(State).add_node("a", nothing).add_node("b", nothing).add_node("c", nothing)
    graph.add_edge(START, "a").add_conditional_edges("a", router, path_map)
    program: GraphProgram = quiet(lambda: compile_graph(read_graph(graph)))
    return next(tool for tool in program.offered.values() if tool.role == "router")


def names(state: State) -> Any:
    return "b" if state["x"] else END


def literal(state: State) -> Literal["b", "c"]:
    return helper(state["x"])  # type: ignore[no-any-return]


def literal_from_state(state: State) -> Literal["b", "c"]:
    return state["x"]  # type: ignore[return-value]


def several(state: State) -> Any:
    return ["b", "c"]


def sends(state: State) -> Any:
    return [Send("b", {"x": one}) for one in state["z"]]


def handed_over(state: State) -> Any:
    return helper(state)


def boolean(state: State) -> Any:
    return state["x"] > 1


def computed_name(state: State) -> Any:
    return f"{state['x']}"


def constant(state: State) -> Any:
    target = "c"
    if state["x"]:
        target = ELSEWHERE
    return target


ROUTERS: list[tuple[Any, Any, set[str] | None, set[str] | None, bool, bool]] = [
    # router, path map, targets, sends, single, may end
    (names, None, {"b"}, set(), True, True),
    (literal, None, {"b", "c"}, {"b", "c"}, False, True),
    (literal_from_state, None, {"b", "c"}, set(), True, False),
    (several, None, {"b", "c"}, set(), False, False),
    (sends, None, set(), {"b"}, False, True),
    (boolean, {True: "b", False: "c"}, {"b", "c"}, set(), True, False),
    (boolean, {True: "b", False: END}, {"b"}, set(), True, True),
    (computed_name, None, None, set(), True, True),
    (computed_name, ["b"], {"b"}, set(), True, False),
    (constant, None, {"b", "c"}, set(), True, False),
    (lambda state: state["x"], None, None, set(), False, True),
    (handed_over, None, None, None, False, True),
]


@pytest.mark.parametrize(("router", "path_map", "targets", "sent", "single", "may_end"), ROUTERS)
def test_the_targets_of_a_router_are_found_in_its_source(
    router: Any, path_map: Any, targets: Any, sent: Any, single: bool, may_end: bool
) -> None:
    tool = router_tool(router, path_map)
    assert (tool.targets, tool.sends, tool.single, tool.may_end) == (targets, sent, single, may_end)


def test_a_router_that_reads_a_key_that_is_not_a_state_field_is_refused() -> None:
    def extra(state: Any) -> Any:
        return {"x": 1, "route": "b"}

    graph = StateGraph(State).add_node("a", extra).add_node("b", nothing).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: state["route"], ["b"])
    assert graph.compile().invoke({"x": 0})["y"] == 1  # in LangGraph, the router gets the key
    with pytest.raises(GraphNotSupported, match=r"`route`, which.*Make it a state field") as caught:
        quiet(lambda: compile_graph(read_graph(graph)))
    assert caught.value.edge == ("a", "condition")


def test_a_router_that_reads_a_field_outside_the_schema_of_its_node_is_refused() -> None:
    def narrow(state: Small) -> Any:
        return {"x": state["y"]}

    graph = StateGraph(State).add_node("a", narrow).add_node("b", nothing).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "b" if state["x"] else END, ["b", END])
    with pytest.raises(
        GraphNotSupported, match=r"schema of 'a' does not have.*Annotate the router's param"
    ):
        compile_graph(read_graph(graph))


# Targets of nodes.


def goto_variable(state: State) -> Any:
    goto = "b" if state["x"] else END
    return Command(update={"y": 1}, goto=goto)


def goto_list(state: State) -> Any:
    return Command(goto=["a", "b"])


def goto_sends(state: State) -> Any:
    return Command(goto=[Send("b", one) for one in state["z"]])


def goto_anything(state: State) -> Any:
    return Command(goto=state["y"])


def goto_declared(state: State) -> Command[Literal["b"]]:
    return helper(state["y"])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("node", "targets", "sent", "single"),
    [
        (subscript, set(), set(), True),
        (goto_variable, {"b"}, set(), True),
        (goto_list, {"a", "b"}, set(), False),
        (goto_sends, set(), {"b"}, False),
        (goto_anything, None, set(), False),
        (goto_declared, {"b"}, {"b"}, False),
        (called_helper, None, None, False),
    ],
)
def test_the_targets_of_a_command_are_found_in_the_source(
    node: Any, targets: Any, sent: Any, single: bool
) -> None:
    tool = quiet(lambda: tool_of(node))
    assert (tool.targets, tool.sends, tool.single) == (targets, sent, single)


# Graphs and other runnables as nodes.


class Inner(TypedDict, total=False):
    x: int
    w: int


class InnerOutput(TypedDict, total=False):
    x: int


def subgraph(node: Any) -> Any:
    inner = StateGraph(Inner, output_schema=InnerOutput).add_node("i", node).add_edge(START, "i")
    return inner.compile()


def test_a_subgraph_reads_its_input_and_writes_its_output() -> None:
    tool = tool_of(subgraph(one_key))
    assert (fields(tool), tool.writes, tool.targets) == (("x",), ("x",), frozenset())


def test_a_subgraph_that_may_send_a_command_to_its_parent_may_write_everything() -> None:
    tool = quiet(lambda: tool_of(subgraph(never_here)))
    assert (fields(tool), tool.writes, tool.targets) == (("x",), EVERYTHING, None)


def test_a_runnable_that_passes_its_input_on_reads_everything() -> None:
    tool = quiet(lambda: tool_of(RunnablePassthrough.assign(x=lambda state: state["x"])))
    assert fields(tool) == EVERYTHING


def test_an_error_handler_adds_its_reads_and_writes_to_those_of_its_node() -> None:
    def handler(state: State, error: Any) -> Any:
        return {"z": [state["y"]]}

    graph = StateGraph(State).add_node("a", subscript, error_handler=handler).add_edge(START, "a")
    tool = compile_graph(read_graph(graph)).offered["a"]
    assert (fields(tool), tool.writes, set(tool.definite)) == (("x", "y"), ("y", "z"), set())


def test_an_error_handler_reads_only_fields_of_its_nodes_schema() -> None:
    def node(state: Small) -> Any:
        return {"x": state["y"]}

    def handler(state: State, error: Any) -> Any:
        return {"z": [state["y"], state["x"]]}

    graph: Any = StateGraph(State).set_node_defaults(error_handler=handler)
    spec = read_graph(graph.add_node("a", node).add_edge(START, "a"))
    assert fields(compile_graph(spec).offered["a"]) == ("y",)


def test_a_cell_of_a_notebook_is_read_after_one_that_imports_annotations() -> None:
    compiled, module = codeop.Compile(), dict[str, Any]()
    cells = (
        "from __future__ import annotations\n",
        "def node(state: dict) -> dict:\n    return {'y': state['x']}\n",
    )
    for name, text in zip(("<cell 1>", "<cell 2>"), cells, strict=True):
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compiled(text, name, "exec"), module)  # noqa: S102 - written above
    assert fields(tool_of(module["node"])) == ("x",)
