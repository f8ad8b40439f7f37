"""Which name means which place, decided before the program runs.

Names of the module live in a dict, which becomes the namespace of the result. Every function,
lambda and comprehension has a frame: a list whose first item is the frame around it.
"""

import ast
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Frame = list[Any]
_NESTED = (
    ast.FunctionDef,
    ast.Lambda,
    ast.ClassDef,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_NAMED = (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Unbound:
    """Marks a local variable that has no value yet."""


UNBOUND = Unbound()


@dataclass(slots=True)
class Scope:
    """The names of one function, lambda or comprehension.

    Attributes:
        parent: The scope around it; `None` is the module.
        slots: Place in the frame by name.
        is_comprehension: Whether `:=` binds around it.
    """

    parent: "Scope | None"
    slots: dict[str, int] = field(default_factory=dict)
    is_comprehension: bool = False
    globals: set[str] = field(default_factory=set)

    def add(self, name: str) -> int:
        """Give a name a place."""
        return self.slots.setdefault(name, len(self.slots) + 1)

    def frame(self, outer: Frame | None) -> Frame:
        """A new frame with nothing bound."""
        return [outer, *([UNBOUND] * len(self.slots))]


def find(scope: Scope | None, name: str) -> tuple[int, int] | None:
    """Where a name is: how many frames out and which place; `None` is the module."""
    depth = 0
    while scope is not None:
        if name in scope.globals:
            return None
        if name in scope.slots:
            return depth, scope.slots[name]
        scope, depth = scope.parent, depth + 1
    return None


def function_scope(node: ast.FunctionDef | ast.Lambda, parent: Scope | None) -> Scope:
    """The scope of a function: its parameters and whatever it binds."""
    scope = Scope(parent)
    args = node.args
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if arg is not None:
            scope.add(arg.arg)
    body = node.body if isinstance(node, ast.FunctionDef) else [node.body]
    outer: set[str] = set()
    nodes = list(walk_scope(body))
    for child in nodes:
        if isinstance(child, ast.Global):
            scope.globals.update(child.names)
        elif isinstance(child, ast.Nonlocal):
            outer.update(child.names)
    for name in bound_names(nodes):
        if name not in outer and name not in scope.globals:
            scope.add(name)
    return scope


def comprehension_scope(generators: list[ast.comprehension], parent: Scope | None) -> Scope:
    """The scope of a comprehension: its targets."""
    scope = Scope(parent, is_comprehension=True)
    for generator in generators:
        for name in bound_names(walk_scope([generator.target])):
            scope.add(name)
    return scope


def names_bound_anywhere(tree: ast.Module) -> frozenset[str]:
    """All names that a program binds, in whichever scope."""
    nodes = list(ast.walk(tree))
    parameters = (node.arg for node in nodes if isinstance(node, ast.arg))
    return frozenset((*bound_names(nodes), *parameters))


def walk_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes that belong to a scope, without those of scopes within it."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, COMPREHENSIONS):
            # `:=` in a comprehension binds outside of it, and its first source is read there.
            waiting.extend(n for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
        elif not isinstance(node, _NESTED):
            waiting.extend(ast.iter_child_nodes(node))


class Changes(NamedTuple):
    """Variables whose values an expression may change, by how.

    Attributes:
        read: Iterators under these names may go on: they are given to something, or walked over.
        changed: Containers under these names may change: by a method, or by a function of the
            program that they are given to.
        bound: The names themselves may have another value, by `:=`.
    """

    read: frozenset[str]
    changed: frozenset[str]
    bound: frozenset[str]


def changes(nodes: Iterable[ast.AST], is_own: Callable[[str], bool]) -> Changes:
    """What these expressions may change, as far as their text says so.

    Args:
        nodes: The expressions.
        is_own: Whether a name is a variable of the program.
    """
    read: set[str] = set()
    changed: set[str] = set()
    bound: set[str] = set()
    inner: set[str] = set()
    for node in itertools.chain.from_iterable(map(ast.walk, nodes)):
        match node:
            case ast.Call(func=function):
                given = {
                    _base(one) for one in (*node.args, *(word.value for word in node.keywords))
                }
                receiver = _base(function.value) if isinstance(function, ast.Attribute) else ""
                read |= given | {receiver}
                if receiver and function.attr in _CHANGING:  # type: ignore[attr-defined]
                    changed.add(receiver)
                if isinstance(function, ast.Name) and is_own(function.id):
                    changed |= given
            case ast.Compare(comparators=others):
                read.update(map(_base, others))
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                changed.add(_base(node))
            case ast.comprehension(iter=value) | ast.Starred(value=value):
                read.add(_base(value))
            case ast.NamedExpr(target=ast.Name(id=name)):
                bound.add(name)
            case ast.arg(arg=name) | ast.Name(ctx=ast.Store(), id=name):
                inner.add(name)  # also that of a `:=`, which is marked by itself
    read, changed, bound = (set(filter(is_own, names)) for names in (read, changed, bound))
    return Changes(frozenset(read - inner), frozenset(changed - inner), frozenset(bound))


_CHANGING = frozenset({
    *("add", "append", "clear", "difference_update", "discard", "extend", "insert"),
    *("intersection_update", "pop", "popitem", "remove", "reverse", "setdefault", "sort"),
    *("subtract", "symmetric_difference_update", "update"),
})  # fmt: skip


def _base(node: ast.AST) -> str:
    """The variable that an expression starts from, or an empty text."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def weight(*nodes: ast.AST) -> int:
    """Steps that these nodes take at the least, without the statements within them.

    An ordinary statement takes one, one of thousands of nodes takes more.
    """
    count, waiting = 0, list(nodes)
    while waiting:
        node = waiting.pop()
        count += 1
        parts = ast.iter_child_nodes(node)
        waiting += [part for part in parts if not isinstance(part, _BLOCKS)]
    return 1 + (count >> 4)


_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def bound_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that these nodes bind."""
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, _NAMED) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
