"""Private names of LangGraph and LangChain: one module uses them, and checks them at import."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from langchain.agents import factory
from langgraph._internal import _constants
from langgraph._internal._runnable import RunnableSeq
from langgraph.graph import StateGraph, state
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel, _algo
from langgraph.pregel._read import PregelNode
from packaging.requirements import Requirement

from langchain_sequrity import _compat
from langchain_sequrity.errors import UnsupportedVersion, UsageError
from langchain_sequrity.graph.runtime import loop

FILE = Path(_compat.__file__)
PACKAGE = FILE.parent
CODE = compile(FILE.read_text(), FILE, "exec")
Patch = pytest.MonkeyPatch


def import_anew() -> None:
    """Run the module and its check of agents, as an import of the middleware does."""
    module: dict[str, Any] = {"__name__": _compat.__name__}
    exec(CODE, module)  # noqa: S102 - our own module
    module["check_agents"]()


def check(missing: str) -> None:
    """Import the module anew. It must say in one sentence what is missing."""
    with pytest.raises(UnsupportedVersion) as caught:
        import_anew()
    sentence = (
        r"langchain-sequrity works with (langgraph|langchain|langchain-core)>=[\d.]+,<[\d.]+; the installed "
        rf"\1 [\d.]+ does not have `{re.escape(missing)}` in the form that it needs\."
    )
    assert re.fullmatch(sentence, str(caught.value))


def imports() -> Iterator[tuple[str, str]]:
    """Each import of LangGraph in the module."""
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("langgraph", "langchain.")
        ):
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize(("module", "name"), [*imports()])
def test_a_name_that_cannot_be_imported_is_named(
    module: str, name: str, monkeypatch: Patch
) -> None:
    monkeypatch.delattr(sys.modules[module], name)
    check(f"{module}.{name}")


@pytest.mark.parametrize("module", sorted({module for module, _ in imports()}))
def test_a_module_that_does_not_exist_is_named(module: str, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    check(module)


MEMBERS = [
    pytest.param(owner, member, id=f"{owner.__name__}.{member}")
    for owner, members in {**_compat._MEMBERS, **_compat._agents()[0]}.items()
    for member in members.split()
]


@pytest.mark.parametrize(("owner", "member"), MEMBERS)
def test_a_member_that_a_class_lacks_is_named(owner: type, member: str, monkeypatch: Patch) -> None:
    name = member.partition("(")[0]
    for base in owner.__mro__[:-1]:
        if name in vars(base):
            monkeypatch.delattr(base, name)
        if name in vars(base).get("__annotations__", {}):
            monkeypatch.delitem(base.__annotations__, name)
    check(f"{owner.__module__}.{owner.__qualname__}.{member}")


def with_another_parameter(original: Any) -> Any:
    def changed(another: object) -> None: ...

    changed.__module__, changed.__qualname__ = original.__module__, original.__qualname__
    return changed


@pytest.mark.parametrize(
    ("owner", "member"), [case for case in MEMBERS if "(" in str(case.values[1])]
)
def test_a_method_with_other_parameters_is_named(
    owner: type, member: str, monkeypatch: Patch
) -> None:
    name = member.partition("(")[0]
    monkeypatch.setattr(owner, name, with_another_parameter(getattr(owner, name)))
    check(f"{owner.__module__}.{owner.__qualname__}.{member}")


@pytest.mark.parametrize(
    ("function", "parameters"),
    [*_compat._FUNCTIONS.items()],
    ids=lambda case: getattr(case, "__qualname__", "parameters"),
)
def test_a_function_with_other_parameters_is_named(
    function: FunctionType, parameters: str, monkeypatch: Patch
) -> None:
    changed = with_another_parameter(function)
    monkeypatch.setattr(sys.modules[function.__module__], function.__name__, changed)
    check(f"{function.__module__}.{function.__name__}({parameters})")


def after_init(owner: type[Any], name: str) -> tuple[type[Any], str, Any]:
    """A constructor whose objects lack an attribute."""
    init = owner.__init__

    @functools.wraps(init)
    def changed(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        delattr(self, name)

    return owner, "__init__", changed


def unlike(*_: object) -> None: ...


def attach_nothing(self: Any, key: Any, node: Any) -> None: ...


CHANGES: Mapping[str, tuple[Any, str, Any]] = {
    "langgraph.pregel.Pregel.stream with its SyncPregelLoop": (Pregel, "stream", unlike),
    "langgraph.pregel.Pregel.astream with its AsyncPregelLoop": (Pregel, "astream", unlike),
    "langgraph.pregel._read.PregelNode.node as a cached property": (PregelNode, "node", None),
    "langgraph.pregel._algo.PregelScratchpad.get_null_resume with its variables": (
        _algo, "_scratchpad", unlike,
    ),
    "langgraph.pregel._algo.prepare_node_error_handler_task with its path": (
        _algo, "prepare_node_error_handler_task", unlike,
    ),
    "langgraph.graph.state.CompiledStateGraph.attach_node with its writer": (
        CompiledStateGraph, "attach_node", attach_nothing,
    ),
    "langgraph.graph.state.CompiledStateGraph.attach_edge with its channel `join:…`": (
        CompiledStateGraph, "attach_edge", unlike,
    ),
    "langgraph.graph.state.StateGraph._node_defaults": after_init(StateGraph, "_node_defaults"),
    "langgraph._internal._runnable.RunnableSeq.steps": after_init(RunnableSeq, "steps"),
    "langgraph.graph.state._CHANNEL_BRANCH_TO with the node at its end": (
        state, "_CHANNEL_BRANCH_TO", "{}:branch",
    ),
    "langgraph._internal._constants with its keys of a run": (
        _constants, "CONFIG_KEY_RUNTIME", "runtime",
    ),
    "langchain.agents.factory.create_agent with its nodes `….before_agent`": (
        factory, "create_agent", unlike,
    ),
    "langchain.agents.factory._chain_tool_call_wrappers with its handlers": (
        factory, "_chain_tool_call_wrappers", lambda _: lambda *_: unlike,
    ),
}  # fmt: skip
"""Each fact that is checked, and how it can become false."""


@pytest.mark.parametrize("shape", [*_compat._SHAPES, *_compat._agents()[1]])
def test_a_shape_that_has_changed_is_named(shape: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(*CHANGES[shape])
    check(shape)


def tool_node() -> Any:
    injected = type("_InjectedArgs", (), {"state": {}, "runtime": None})
    wrappers = {"_wrap_tool_call": None, "_awrap_tool_call": None}
    tools = {"tools_by_name": {"a": None}, "_injected_args": {"a": injected()}}
    return type("ToolNode", (), {**tools, **wrappers, "_messages_key": "messages"})


TOOL_NODE = [name for name in vars(tool_node()) if not name.endswith("__")]


@pytest.mark.parametrize("missing", TOOL_NODE)
def test_an_attribute_that_a_tool_node_lacks_is_named_when_a_graph_has_one(missing: str) -> None:
    node = tool_node()
    assert _compat.parts_of_tool_node(node()) == ("messages", [(None, {}, None)], [])
    delattr(node, missing)
    with pytest.raises(UnsupportedVersion, match=rf"does not have `.*ToolNode\.{missing}`"):
        _compat.parts_of_tool_node(node())


@pytest.mark.parametrize("missing", ["state", "runtime"])
def test_an_attribute_that_injected_arguments_lack_is_named(missing: str) -> None:
    node = tool_node()()
    delattr(type(node._injected_args["a"]), missing)
    with pytest.raises(UnsupportedVersion, match=rf"does not have `.*_InjectedArgs\.{missing}`"):
        _compat.parts_of_tool_node(node)


@pytest.mark.parametrize(
    "read", [unlike, functools.partial(_algo.local_read), functools.partial(unlike, 1, 2, 3, 4)]
)
def test_another_function_that_reads_the_state_ends_a_run_with_that_sentence(read: Any) -> None:
    with pytest.raises(UnsupportedVersion, match=r"local_read bound to four arguments"):
        _compat.state_of_task({"configurable": {_constants.CONFIG_KEY_READ: read}}, "messages")


@pytest.mark.parametrize(
    "line",
    [
        "from langchain_sequrity import LangGraphExecutor",
        "from langchain_sequrity.middleware import PolicyMiddleware",
    ],
)
def test_the_public_classes_cannot_be_imported_without_a_name_of_the_loop(line: str) -> None:
    script = (
        "from langgraph.pregel._loop import PregelLoop\n"
        "PregelLoop.next_tick = PregelLoop.tick\n"
        "del PregelLoop.tick\n"
        f"try:\n    {line}\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("UnsupportedVersion langchain-sequrity works with langgraph")
    assert "`langgraph.pregel._loop.PregelLoop.tick()`" in done.stdout
    assert issubclass(UnsupportedVersion, UsageError)


def test_the_sentence_names_the_versions_of_the_requirements() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["langchain"]]
    required = {one.name: one.specifier for one in map(Requirement, lines)}
    for package, versions in _compat.SUPPORTED.items():
        assert required[package] == Requirement(package + versions).specifier


# No way round the module

ALLOWED = {
    "_run": "subclasses of BaseTool define it",
    "_arun": "subclasses of BaseTool define it",
    "_prepare": "of langchain-core: a model cannot import LangGraph",
    "_add_version": "of langchain-core: a model cannot import LangGraph",
    "_body_parameters": "of this package",
    "_changed": "of this package",
    "_combination": "of this package",
    "_report": "of this package",
    "_getframe": "of Python",
    "_regex_cache": "of Python",
}
"""Private attributes of other objects, with the reason."""

USERS = ("graph/", "middleware/", "interrupts.py")
"""The modules that use LangGraph. In others, the same names are of something else."""

Nodes = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    """The nodes of all other modules, with their place."""
    kinds = (ast.Import, ast.ImportFrom, ast.Attribute, ast.Name, ast.FunctionDef,
             ast.AsyncFunctionDef, ast.Constant)  # fmt: skip
    return [
        (f"{file.relative_to(PACKAGE)}:{node.lineno}", node)
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != FILE
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, kinds)
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_other_module_imports_a_private_name(nodes: Nodes) -> None:
    found = []
    for place, node in nodes:
        match node:
            case ast.ImportFrom(module=module, names=aliases):
                names = [f"{module}.{alias.name}" for alias in aliases]
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case _:
                continue
        for name in names:
            package, *parts = name.split(".")
            is_theirs = package.startswith("lang") and package != PACKAGE.name
            if is_theirs and any(map(is_private, parts)):
                found.append(f"{place}: {name}")
    assert found == []


def test_no_other_module_uses_a_private_attribute(nodes: Nodes) -> None:
    defined, used = set[str](), list[tuple[str, str]]()
    for place, node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined.add(name)
                used.append((place, name))
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                defined.add(name)
            case ast.Attribute(attr=name):
                used.append((place, name))
    listed = " ".join([*_compat._MEMBERS.values(), *TOOL_NODE, *(n for _, n in imports())])
    theirs = set(re.findall(r"\b_\w+", listed))
    assert [
        f"{place}: {name}"
        for place, name in used
        if is_private(name)
        and (name not in defined or (name in theirs and place.startswith(USERS)))
        and name not in ALLOWED
    ] == []


def test_each_private_attribute_of_another_object_is_allowed() -> None:
    lines = [
        line
        for file in PACKAGE.rglob("*.py")
        if file != FILE
        for line in file.read_text().splitlines()
        if "noqa: SLF001" in line
    ]
    assert [one for one in lines if not any(f".{name}" in one for name in ALLOWED)] == []


def test_no_other_module_writes_a_private_key_or_module_as_text(nodes: Nodes) -> None:
    private = re.compile(r"__pregel_|^branch:to|^langgraph\.([\w.]+\.)?_")
    assert [
        place
        for place, node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if private.search(node.value) and not place.startswith("session_memory.py")
    ] == []


def test_every_attribute_of_the_loop_that_other_modules_use_is_checked(nodes: Nodes) -> None:
    listed = [members for owner, members in _compat._MEMBERS.items() if "Loop" in owner.__name__]
    checked = {member.partition("(")[0] for member in " ".join(listed).split()}
    classes = {base for base in (*loop.SyncLoop.__mro__, *loop.AsyncLoop.__mro__)
               if base.__module__.startswith(PACKAGE.name)}  # fmt: skip
    own = {name for one in classes for name in vars(one)}
    overridden = {name for name in own if hasattr(_compat.PregelLoop, name)}
    assert {name for name in overridden if not name.startswith("__")} <= checked
    used = {
        node.attr
        for place, node in nodes
        if place.startswith("graph/runtime/") and isinstance(node, ast.Attribute)
        and (ast.unparse(node.value) in ("loop", "self._loop")
             or (place.startswith("graph/runtime/loop") and ast.unparse(node.value) == "self"))
    }  # fmt: skip
    assert len(used) > 15
    assert used <= checked | own
