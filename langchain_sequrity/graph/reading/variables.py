"""Local variables of a function: which expressions they are made of, and what is added to them."""

import ast
from collections.abc import Iterator

from langgraph.types import Command

from langchain_sequrity.graph.reading.reads import bound_names
from langchain_sequrity.graph.reading.source import Source

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def in_scope(source: Source) -> Iterator[ast.AST]:
    """What a function consists of, without the functions and classes within it."""
    for part in source.body:
        yield from _in_scope(part)


def assigned(source: Source, name: str) -> list[ast.expr] | None:
    """The expressions that a variable may get its value from.

    Args:
        source: The function.
        name: A name in it.

    Returns:
        All expressions, if each is a plain assignment to a local variable; else `None`.
    """
    values: list[ast.expr] = []
    places: set[ast.AST] = set()
    for node in in_scope(source):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            place, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            place, value = node.target, node.value
        else:
            continue
        if isinstance(place, ast.Name) and place.id == name:
            values.append(value)
            places.add(place)
    others = (node for node in _everything(source) if node not in places)
    is_bound_otherwise = name in _parameters(source) or any(
        name in bound_names(one) for one in others
    )
    return values if values and not is_bound_otherwise else None


def added(source: Source, name: str) -> frozenset[str] | None:
    """Keys that are set on a variable's dict after it was made.

    Args:
        source: The function.
        name: A local variable of it.

    Returns:
        The keys; `None` if the dict is handed to something else, which may add any.
    """
    parents = {child: node for node in _everything(source) for child in ast.iter_child_nodes(node)}
    found: set[str] = set()
    for use in parents:
        if not (isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)):
            continue
        keys = _added_by(source, use, parents)
        if keys is None:
            return None
        found |= keys
    return frozenset(found)


def _added_by(source: Source, use: ast.AST, parents: dict[ast.AST, ast.AST]) -> set[str] | None:
    outer = parents.get(use)
    while isinstance(outer, ast.IfExp):
        use, outer = outer, parents.get(outer)
    match outer:
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=context):
            if isinstance(context, ast.Del):
                return None
            return {key} if isinstance(context, ast.Store) else set()
        case ast.Dict(keys=keys, values=values):
            is_copied = all(
                key is None for key, item in zip(keys, values, strict=True) if item is use
            )
            return set() if is_copied else None
        case ast.keyword(arg="update" | "goto"):
            made = parents[outer]
            is_command = isinstance(made, ast.Call) and source.resolve(made.func) is Command
            return set() if is_command else None
    is_looked_at = isinstance(outer, ast.Return | ast.Compare | ast.If) or (
        isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not)
    )
    return set() if is_looked_at else None


def _everything(source: Source) -> Iterator[ast.AST]:
    for part in source.body:
        yield from ast.walk(part)


def _in_scope(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _in_scope(child)


def _parameters(source: Source) -> set[str]:
    return {node.arg for node in ast.walk(source.tree.args) if isinstance(node, ast.arg)}
