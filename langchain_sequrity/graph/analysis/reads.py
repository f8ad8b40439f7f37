"""Which state fields a function looks at, from its source.

A field is read by `state["x"]`, `state.get("x")`, `"x" in state` or, where the state is an object,
`state.x`. Any other use of the parameter hands the whole state on, and then nothing is known.
"""

import ast
from collections.abc import Collection, Iterator

from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis.source import UNKNOWN, Source

_TOOL_NODE = "ToolNode"
_RUNS = frozenset({"invoke", "stream", "batch"})
"""Methods that run a runnable; the asynchronous ones have an `a` before the name."""

_LOOKS_AROUND = frozenset({"locals", "vars", "eval", "exec", "dir"})


def fields_read(
    source: Source, fields: Collection[str], *, is_dict: bool, through: str | None = None
) -> frozenset[str] | None:
    """The keys or attributes of the state that are read.

    Args:
        source: The function.
        fields: Fields that its state has.
        is_dict: Whether the state is a dict, and no object.
        through: Attribute of the parameter that is the state, where the parameter is not.

    Returns:
        What it reads, fields or not; `None` if that cannot be known.
    """
    parents: dict[ast.AST, ast.AST] = {}
    uses: list[ast.expr] = []
    for part in source.body:
        for node in ast.walk(part):
            parents.update((child, node) for child in ast.iter_child_nodes(node))
            if isinstance(node, ast.Name) and node.id in _LOOKS_AROUND:
                return None
            if source.state in bound_names(node):
                return None
            if isinstance(node, ast.Name) and node.id == source.state:
                uses.append(node)
    found: set[str] = set()
    for use in uses if through is None else _through(through, uses, parents):
        if use is None:
            return None
        read = _read(use, parents, fields, is_dict=is_dict)
        if read is None:
            return None
        found |= read
    return frozenset(found)


def uses_tool_node(source: Source) -> bool:
    """Whether a function's code may run a `ToolNode`, whose tools read the whole state."""
    nodes = [node for part in source.body for node in ast.walk(part)]
    looked_at = {
        node.value
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr.lstrip("a") not in _RUNS
    }
    for node in nodes:
        if isinstance(node, ast.alias) and node.name == _TOOL_NODE:
            return True
        found = UNKNOWN if node in looked_at else source.resolve(node)
        if _compat.is_tool_node(found if isinstance(found, type) else type(found)):
            return True
    return False


def bound_names(node: ast.AST) -> Iterator[str]:
    """Names that a piece of syntax binds or declares, itself."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.arg(arg=name):
            yield name
        case (
            ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
            | ast.ClassDef(name=name)
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            yield name
        case ast.alias(name=name, asname=other):
            yield (other or name).partition(".")[0]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def _through(
    attribute: str, uses: list[ast.expr], parents: dict[ast.AST, ast.AST]
) -> Iterator[ast.Attribute | None]:
    """The places where an attribute is used; `None` where the object itself is handed on."""
    for use in uses:
        parent = parents.get(use)
        if not isinstance(parent, ast.Attribute):
            yield None
        elif parent.attr == attribute:
            yield parent


def _read(
    use: ast.expr, parents: dict[ast.AST, ast.AST], fields: Collection[str], *, is_dict: bool
) -> set[str] | None:
    parent = parents.get(use)
    outer = parents.get(parent) if parent is not None else None
    match parent:
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key)), ctx=context):
            return _unless_set(key, context, outer) if value is use else None
        case ast.Attribute(attr=key, ctx=context) if not is_dict and key in fields:
            return _unless_set(key, context, outer)
        case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()]):
            return {key} if is_dict else None
        case ast.Attribute(attr="get") if is_dict and isinstance(outer, ast.Call):
            return _got(outer) if outer.func is parent else None
    return None


def _unless_set(key: str, context: ast.expr_context, outer: ast.AST | None) -> set[str]:
    """A key that is read: not one that is only set, as in `state["x"] = 1`."""
    is_set = isinstance(context, ast.Store) and not isinstance(outer, ast.AugAssign)
    return set() if is_set else {key}


def _got(call: ast.Call) -> set[str] | None:
    """The key of a `state.get("x", …)`."""
    match call:
        case ast.Call(args=[ast.Constant(value=str(key)), *_], keywords=[]):
            return {key}
    return None
