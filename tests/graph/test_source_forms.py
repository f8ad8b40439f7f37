"""What the analysis finds in each form of code: a table of texts for each question.

The code is compiled, and never runs: each text is the body of a node or of a router.
"""

import ast
import asyncio
import linecache
import operator
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, TypedDict

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Overwrite, Send

from langchain_sequrity.errors import GraphNotSupported, UnknownAccess
from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.program import ToolSpec


class State(TypedDict, total=False):
    x: Any
    y: Any
    z: Annotated[list[Any], operator.add]


class Update(TypedDict, total=False):
    x: Any
    z: Any


class Settings:
    """Names of nodes: those of the class are constants, those of an object may change."""

    target = "b"


EVERYTHING = ("x", "y", "z")
FIXED = {
    "Command": Command, "Send": Send, "Settings": Settings, "SETTINGS": Settings(),
    "TARGET": "b", "TOOLS": ToolNode([]), "helper": lambda *_, **__: None,
}  # fmt: skip


def module_of(text: str, **names: Any) -> dict[str, Any]:
    """The names of a module with this text, as a notebook would run it."""
    path = f"<{text}>"
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    module = {**FIXED, **names}
    code = compile(text, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, module)  # noqa: S307 - the texts of this module
    if running is not None:
        asyncio.run(running)
    return module


def function_of(body: str, parameters: str = "state", **names: Any) -> Any:
    """A function with this body."""
    text = f"def function({parameters}):\n{textwrap.indent(body, '    ')}\n"
    return module_of(text, **names)["function"]


def quiet(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownAccess)
        return make()


def node_tool(node: Any, schema: Any = State, **options: Any) -> ToolSpec:
    graph = StateGraph(schema).add_node("a", node, **options).add_node("b", lambda _: None)
    tools: dict[str, ToolSpec] = quiet(
        lambda: compile_graph(read_graph(graph.add_edge(START, "a"))).offered
    )
    return tools["a"]


def router_tool(router: Any, path_map: Any = None) -> ToolSpec:
    graph: Any = StateGraph(State)
    for name in "abc":
        graph.add_node(name, lambda _: {"y": 1})
    graph.add_edge(START, "a").add_conditional_edges("a", router, path_map)
    tools: dict[str, ToolSpec] = quiet(lambda: compile_graph(read_graph(graph)).offered)
    return next(tool for tool in tools.values() if tool.role == "router")


def fields(tool: ToolSpec) -> tuple[str, ...]:
    return tuple(str(one.field) for one in tool.parameters if one.kind == "field")


# Reads

READS = {
    "state['x']": ("x",), "state.get('x', state.get('z'))": ("x", "z"), "'x' in state": ("x",),
    "'x' not in state": ("x",), "state['x']['y']": ("x",), "[state['x'] for _ in 'ab']": ("x",),
    # Other uses pass the state on.
    "state.x": EVERYTHING, "state.get(TARGET)": EVERYTHING, "state.get('x', default=0)": EVERYTHING,
    "state.get": EVERYTHING, "helper('x', state.get)": EVERYTHING, "state.pop('x')": EVERYTHING,
    "'x' == state": EVERYTHING, "state in ['x']": EVERYTHING, "'x' in state in [1]": EVERYTHING,
    "state[TARGET]": EVERYTHING, "state[0]": EVERYTHING, "{**state}": EVERYTHING,
    **dict.fromkeys(["locals()", "vars()", "eval('1')", "exec('1')", "dir()"], EVERYTHING),
    # So does a `ToolNode`, whose tools read anything.
    **{f"TOOLS.{name}(1)": EVERYTHING for name in ("invoke", "stream", "batch")},
    **{f"TOOLS.a{name}(1)": EVERYTHING for name in ("invoke", "stream", "batch")},
    "helper(TOOLS)": EVERYTHING, "TOOLS.name": (),
}  # fmt: skip


@pytest.mark.parametrize("expression", READS)
def test_only_a_use_that_names_a_key_reads_just_this_key(expression: str) -> None:
    assert fields(node_tool(function_of(f"return {{'y': {expression}}}"))) == READS[expression]


def test_a_tool_node_that_a_function_imports_reads_everything() -> None:
    body = "from langgraph.prebuilt import ToolNode\nreturn {'y': ToolNode([]).invoke(1)}"
    assert fields(node_tool(function_of(body))) == EVERYTHING


@pytest.mark.parametrize(
    "binding",
    [
        "del state", "state = 1", "state: int = 1", "state += 1", "(state := 1)", "state, _ = 1, 2",
        "import math as state", "import state", "import state.part", "from math import pi as state",
        "def state(): pass", "async def state(): pass", "class state: pass", "[1 for state in 'a']",
        "lambda state: 0", "lambda *state: 0", "lambda **state: 0",
        "for state in 'a': pass", "with helper() as state: pass",
        "try: pass\nexcept ValueError as state: pass",
        "match 1:\n  case state: pass", "match 1:\n  case [*state]: pass",
        "match 1:\n  case {**state}: pass", "match 1:\n  case int() as state: pass",
        "def inner():\n  nonlocal state\n  state = 1",
    ],
)  # fmt: skip
def test_a_parameter_that_is_bound_to_something_else_too_may_be_read_completely(
    binding: str,
) -> None:
    assert fields(node_tool(function_of(f"{binding}\nreturn {{'y': state['x']}}"))) == EVERYTHING


@dataclass
class Record:
    x: Any = None
    y: Any = field(default_factory=list)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("state.x", ("x",)), ("1", ()), ("state.other", ("x", "y")), ("'x' in state", ("x", "y")),
        ("state.get('x')", ("x", "y")), ("state.get", ("x", "y")),
    ],
)  # fmt: skip
def test_of_an_object_only_attributes_that_are_fields_are_read(
    expression: str, expected: tuple[str, ...]
) -> None:
    tool = node_tool(function_of(f"return {{'y': {expression}}}"), Record)
    assert fields(tool) == expected


def test_a_state_of_one_value_is_read_by_a_node_that_only_sets_a_key() -> None:
    tool = node_tool(function_of("state['new'] = 1\nreturn None"), dict)
    assert fields(tool) == ("__root__",)
    assert fields(node_tool(function_of("return None"), dict)) == ()


def test_a_runnable_with_one_unknown_function_reads_everything() -> None:
    module: dict[str, Any] = {}
    exec("async def unknown(state):\n    return {'y': state['x']}\n", module)  # noqa: S102 - without a source
    both = RunnableLambda(function_of("return {'y': state['x']}"), afunc=module["unknown"])
    assert fields(node_tool(both)) == EVERYTHING


def test_a_router_with_one_function_that_is_not_prebuilt_reads_everything() -> None:
    async def waits(state: State) -> Any:
        return tools_condition(state)  # type: ignore[arg-type]

    both = RunnableLambda(tools_condition, afunc=waits)
    tool = router_tool(both, {"tools": "b", END: END})
    assert fields(tool) == EVERYTHING


# Where the source is

TEXTS = {
    "a decorated function": """\
        def noted(function):
            return function

        @noted
        @noted
        def function(state):
            return {"y": state["x"]}
        """,
    "a lambda within a lambda": 'function = (lambda: lambda state: {"y": state["x"]})()\n',
    "lambdas side by side": """\
        function, other = (lambda state: {"y": state["x"]}), (lambda state: {"y": state["z"]})
        """,
    "a cell that waits": """\
        import asyncio

        def function(state):
            return {"y": state["x"]}

        await asyncio.sleep(0)
        """,
    "a function within a function": """\
        def make():
            def function(state):
                return {"y": state["x"]}
            return function

        function = make()
        """,
}


@pytest.mark.parametrize("place", TEXTS)
def test_the_source_of_a_function_is_found(place: str) -> None:
    tool = node_tool(module_of(textwrap.dedent(TEXTS[place]))["function"])
    assert (fields(tool), tool.reads_from, tool.writes) == (("x",), "source", ("y",))


# Writes

ALL: Any = (EVERYTHING, frozenset())
"""Any field may be written, and none is certain."""


def sure(*names: str) -> Any:
    """Exactly these fields are written each time."""
    return names, frozenset(names)


def maybe(*names: str) -> Any:
    """These fields may be written, and none is certain."""
    return names, frozenset()


X, Y = "return {'x': 1}", "return {'x': 1, 'y': 2}"
WRITES: dict[str, Any] = {
    X: sure("x"), "return": sure(), "pass": sure(), "return 5": ALL, "yield {'x': 1}": ALL,
    "yield from []": ALL, "return {TARGET: 1}": ALL, "return {**helper()}": ALL,
    "return {**{'x': 1}, 'y': 2}": sure("x", "y"),
    # Calls
    "return dict(x=1)": sure("x"), "return dict(helper(), x=1)": ALL, "return dict(**helper())": ALL,
    "return Update(x=1)": sure("x"), "return Update(helper(), x=1)": ALL,
    "return Command(update={'x': 1})": sure("x"), "return Command(**helper())": ALL,
    "return Command(graph=None, update={'x': 1})": sure("x"),
    "return Command(graph=helper(), update={'x': 1})": ALL,
    f"if helper(): return Command(graph=Command.PARENT)\n{X}": sure("x"),
    "return [Command(update={'x': 1}), {'y': 2}]": sure("x", "y"),
    "return (Command(update={'x': 1}), helper())": ALL,
    # Variables
    "update = {'x': 1}\nreturn update": sure("x"),
    "update = {'x': 1}\nupdate = {'y': 1}\nreturn update": maybe("x", "y"),
    "update = {'x': 1}\nupdate['y'] = 2\nreturn update": (("x", "y"), frozenset({"x"})),
    "update = {'x': 1}\nif update and not update: pass\nreturn update": ALL,
    "update = {'x': 1}\nif not update: pass\nreturn update": sure("x"),
    "update = {'x': 1}\nif update: pass\nreturn update": sure("x"),
    "update = {'x': 1}\nreturn update if helper() else None": maybe("x"),
    "update = {'x': 1}\nreturn {**update, 'y': 2}": sure("x", "y"),
    "update = {'x': 1}\nreturn Command(update=update)": sure("x"),
    "update = {'x': 1}\ndel update['x']\nreturn update": ALL,
    "update = {'x': 1}\nupdate |= {'y': 2}\nreturn update": ALL,
    "update = {'x': 1}\nupdate.update(helper())\nreturn update": ALL,
    "update = {'x': 1}\nhelper(update)\nreturn update": ALL,
    "update = {'x': 1}\nhelper(update=update)\nreturn update": ALL,
    "update = {'x': 1}\nother = {'y': update}\nreturn update": ALL,
    "update = {'x': 1}\nother = [update]\nreturn update": ALL,
    "update = {'x': 1}\nfor update in helper(): pass\nreturn update": ALL,
    "update = {'x': 1}\nupdate = update\nreturn update": ALL,
    "update = other\nother = update\nreturn update": ALL,
    "update = {'x': 1}\nupdate = {**update, 'y': 2}\nreturn update": ALL,
    "global update\nupdate = {'x': 1}\nhelper()\nreturn update": ALL,
    "update = {'x': 1}\ndef inner():\n  nonlocal update\nreturn update": ALL,
    "if helper(): update = {'x': 1}\nreturn update": sure("x"),  # else it is an error
    "return unknown": ALL,
    # Which return is reached
    f"if helper(): {X}": maybe("x"),
    f"if helper(): {X}\nelse: {Y}": (("x", "y"), frozenset({"x"})),
    f"if helper(): {X}\nelse: pass": maybe("x"),
    f"if helper(): pass\nelse: {X}": maybe("x"),
    f"if helper(): {X}\nelse: raise ValueError": sure("x"),
    f"if helper(): {X}\nelif helper(): {X}\nelse: {X}": sure("x"),
    f"if helper(): {X}\nelif helper(): {X}": maybe("x"),
    f"match helper():\n  case 1: {X}\n  case _: {X}": sure("x"),
    f"match helper():\n  case 1: {X}\n  case 2: {X}": maybe("x"),
    f"match helper():\n  case 1: pass\n  case _: {X}": maybe("x"),
    f"match helper():\n  case 1: {X}\n  case _ if helper(): {X}": maybe("x"),
    f"match helper():\n  case 1: {X}\n  case _: raise ValueError": sure("x"),
    f"try: {X}\nexcept ValueError: {X}": sure("x"),
    f"try: {X}\nexcept ValueError: pass": maybe("x"),
    f"try: helper()\nexcept ValueError: {X}": maybe("x"),
    f"try: helper()\nexcept ValueError: {X}\nelse: {X}": sure("x"),
    f"try: {X}\nexcept ValueError: {X}\nelse: helper()": maybe("x"),
    f"try: helper()\nfinally: {X}": sure("x"),
    f"try: {X}\nfinally: helper()": sure("x"),
    f"while True: {X}": maybe("x"),  # true if in doubt
    f"with helper(): {X}": maybe("x"),
    f"def inner(): {X}\nreturn {{'y': 2}}": sure("y"),
    f"async def inner(): {X}\nreturn {{'y': 2}}": sure("y"),
    "inner = lambda: {'x': 1}\nreturn {'y': 2}": sure("y"),
}  # fmt: skip


@pytest.mark.parametrize("body", WRITES)
def test_the_fields_that_a_node_writes_and_writes_each_time_are_those_of_its_returns(
    body: str,
) -> None:
    tool = node_tool(function_of(body, Update=Update))
    assert (tool.writes, tool.definite) == WRITES[body]


def test_a_parameter_with_the_name_of_a_variable_may_be_what_is_returned() -> None:
    body = "if helper(): update = {'x': 1}\nreturn update"
    assert node_tool(function_of(body, "state, config=None, *, update=5")).writes == EVERYTHING


def test_a_return_annotation_may_be_an_optional_typed_dict() -> None:
    def node(state: State) -> Optional[Update]:  # noqa: UP045 - this form of a union
        return unknown(state["x"])  # type: ignore[no-any-return]

    tool = node_tool(node)
    assert (tool.writes, tool.writes_from) == (("x", "z"), "annotation")
    handled = node_tool(node, error_handler=lambda _: {"y": 1})
    assert (handled.writes, handled.writes_from) == (EVERYTHING, "everything")


def unknown(value: Any) -> Any:
    return value


OVERWRITES: list[tuple[str, dict[str, Any], bool]] = [
    ("return {'z': [1]}", {}, False),
    ("return {'z': Overwrite([1])}", {"Overwrite": Overwrite}, True),
    ("return {'z': Replaced([1])}", {"Replaced": Overwrite}, True),
    ("return {'z': {'__overwrite__': [1]}}", {}, True),
    ("from langgraph.types import Overwrite\nreturn {'z': Overwrite([1])}", {}, True),
]


@pytest.mark.parametrize(("body", "names", "expected"), OVERWRITES)
def test_a_node_may_overwrite_a_sum_if_it_or_its_error_handler_names_the_class(
    body: str, names: dict[str, Any], *, expected: bool
) -> None:
    named, silent = function_of(body, **names), function_of("return {'z': [2]}")
    assert node_tool(named).overwrites is expected
    assert node_tool(silent, error_handler=named).overwrites is expected
    assert node_tool(named, error_handler=silent).overwrites is expected


def test_a_class_in_the_closure_of_a_node_counts_as_named() -> None:
    text = """\
        def make():
            from langgraph.types import Overwrite
            def function(state):
                return {"z": Overwrite([1])}
            return function

        function = make()
        """
    assert node_tool(module_of(textwrap.dedent(text))["function"]).overwrites


# Targets: those that are named, those of packets, whether there is at most one, and possibly none

ANYWHERE: Any = (None, None, False, True)
UNNAMED: Any = (None, set(), True, True)
TARGETS: dict[str, Any] = {
    "return 'b'": ({"b"}, set(), True, False), "return END": (set(), set(), True, True),
    "return ['b', 'c']": ({"b", "c"}, set(), False, False), "return []": (set(), set(), True, True),
    "return ('b',)": ({"b"}, set(), True, False),
    "return 'b' if helper() else 'c'": ({"b", "c"}, set(), True, False),
    "return 'b' if helper() else ['b', 'c']": ({"b", "c"}, set(), False, False),
    "return 'b' if helper() else []": ({"b"}, set(), True, True),
    "if helper(): return 'b'\nraise ValueError": ({"b"}, set(), True, False),
    "return 'b' or 'c'": ({"b", "c"}, set(), True, False), "return helper() or 'c'": ANYWHERE,
    "return ['b' for _ in helper()]": ({"b"}, set(), False, True),
    "return f'{helper()}'": UNNAMED, "return str(helper())": UNNAMED, "return bool(1)": UNNAMED,
    "return not helper()": UNNAMED, "return helper() > 1": UNNAMED, "return -helper()": ANYWHERE,
    "return state['x']": (None, set(), False, True), "return helper()['x']": ANYWHERE,
    "return helper()": ANYWHERE, "return unknown": ANYWHERE,
    # Constants
    "return TARGET": ({"b"}, set(), True, False),
    "return Settings.target": ({"b"}, set(), True, False), "return SETTINGS.target": ANYWHERE,
    "return Settings.missing": ANYWHERE, "return helper.target": ANYWHERE,
    "target = 'c'\nreturn target": ({"c"}, set(), True, False),
    "target = ['c']\ntarget[0] = helper()\nreturn target": ANYWHERE,
    "TARGET = state['x']\ndef inner(): return TARGET\nreturn TARGET": (None, set(), False, True),
    # Packets
    "return Send('b', 1)": (set(), {"b"}, False, True),
    "return Send(node='b', arg=1)": (set(), {"b"}, False, True),
    "return Send(helper(), 1)": (set(), None, False, True),
    "return Send(node=helper(), arg=1)": (set(), None, False, True),
    "return ['c', Send('b', 1)]": ({"c"}, {"b"}, False, False),
    "return [Send('b', one) for one in state['z']]": (set(), {"b"}, False, True),
}  # fmt: skip


@pytest.mark.parametrize("body", TARGETS)
def test_the_targets_of_a_router_are_those_of_its_returns(body: str) -> None:
    tool = router_tool(function_of(body, END=END))
    assert (tool.targets, tool.sends, tool.single, tool.may_end) == TARGETS[body]


def test_a_router_names_one_target_if_all_its_functions_are_annotated_with_names() -> None:
    def named(state: State) -> Literal["b", "c"]:
        return state["x"]  # type: ignore[no-any-return]

    async def also_named(state: State) -> Literal["b", "c"]:
        return state["x"]  # type: ignore[no-any-return]

    async def open_ended(state: State) -> Any:
        return state["x"]

    targets = ["b", "c"]
    assert router_tool(RunnableLambda(named, afunc=also_named), targets).single
    assert not router_tool(RunnableLambda(named, afunc=open_ended), targets).single


def test_a_path_map_limits_the_packets_of_a_router_too() -> None:
    tool = router_tool(function_of("return helper()"), ["b"])
    assert tool.targets == tool.sends == frozenset({"b"})


def test_a_router_after_a_node_with_unknown_returns_may_not_read_what_is_no_field() -> None:
    graph: Any = StateGraph(State).add_node("a", function_of("return helper()"))
    graph.add_edge(START, "a").add_conditional_edges("a", lambda state: state["route"], ["a"])
    with pytest.raises(GraphNotSupported, match="`route`"):
        quiet(lambda: compile_graph(read_graph(graph)))


# Graphs within graphs


def subgraph(node: Any, router: Any = None) -> Any:
    inner: Any = StateGraph(State).add_node("i", node)
    if router is None:
        return inner.add_edge(START, "i").compile()
    return inner.add_conditional_edges(START, router, ["i"]).compile()


@pytest.mark.parametrize("body", ["return helper()", "return Command(goto=helper())"])
def test_a_graph_within_may_command_its_parent_unless_its_source_shows_that_it_does_not(
    body: str,
) -> None:
    assert node_tool(subgraph(function_of(body))).targets is None
    assert node_tool(subgraph(function_of("return {'x': 1}"))).targets == frozenset()
    assert node_tool(subgraph(RunnableLambda(lambda _: {}).bind())).targets is None


def test_a_runnable_with_a_config_writes_what_its_function_writes() -> None:
    bound = RunnableLambda(function_of("return {'x': 1}")).with_config(tags=["tag"])
    assert node_tool(bound).writes == ("x",)


def test_a_model_as_a_node_may_write_anything_and_goes_nowhere() -> None:
    tool = node_tool(FakeListChatModel(responses=["hi"]))
    assert (tool.writes, tool.targets, tool.sends) == (EVERYTHING, frozenset(), frozenset())


class Narrow(TypedDict, total=False):
    x: Any


def test_a_router_at_the_start_of_a_graph_within_reads_all_that_it_gets() -> None:
    def by_schema(state: Narrow) -> str:
        return "i" if state.get("x") else END

    class Small(TypedDict, total=False):
        x: Any

    def inner(router: Any) -> Any:
        graph: Any = StateGraph(State, input_schema=Small)
        graph.add_node("i", function_of("return {'x': 1}"))
        return graph.add_conditional_edges(START, router, ["i", END]).compile()

    assert fields(node_tool(inner(by_schema))) == ("x",)
    assert fields(node_tool(inner(lambda _: "i"))) == EVERYTHING
