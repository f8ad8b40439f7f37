"""Which name means which place, decided before the program runs.

Names of the module live in a dict, which becomes the namespace of the result. Every function,
lambda and comprehension has a frame: a list whose first item is the frame around it.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_BINDING = (ast.Name, *_NAMED, ast.MatchMapping, ast.alias)
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
    """Variables whose values some code may change, by how.

    Attributes:
        read: Iterators under these names may go on, and functions under them may be called: they
            are called, given to something, or walked over.
        changed: Containers under these names may change: by a method, by an assignment, or by a
            function of the program that they are given to.
        bound: The names themselves may have another value, by `:=`, `global` or `nonlocal`.
        of_module: Those that a `global` statement names.
    """

    read: frozenset[str]
    changed: frozenset[str]
    bound: frozenset[str]
    of_module: frozenset[str]


def changes(nodes: Sequence[ast.AST], is_own: Callable[[str], bool]) -> Changes:
    """What this code may change, as far as its text says so.

    Args:
        nodes: Expressions of one scope, or one function.
        is_own: Whether a name is a variable of the program.
    """
    read: set[str] = set()
    changed: set[str] = set()
    bound: set[str] = set()
    of_module: set[str] = set()
    for node, hidden in _visible(nodes):
        if isinstance(node, _BINDING):
            bound |= {name for name in bound_names([node]) if name not in hidden}
        if isinstance(node, ast.Global):
            of_module.update(node.names)
        read |= _bases(*_read_parts(node)) - hidden
        changed |= _bases(*_changed_parts(node, is_own)) - hidden
    own = [frozenset(filter(is_own, names)) for names in (read, changed, bound)]
    return Changes(own[0], own[1], own[2], frozenset(of_module))


def _read_parts(node: ast.AST) -> list[ast.expr]:
    """Expressions within a node whose values it may call, hand on, or walk over."""
    match node:
        case ast.Call(func=function):
            return [function, *_given(node)]
        case ast.Attribute(attr=name) if name in _CHANGING:
            return [node]
        case ast.Compare(comparators=others):
            return others
        case (
            ast.Starred(value=source)
            | ast.For(iter=source)
            | ast.comprehension(iter=source)
            | ast.ListComp(generators=[ast.comprehension(iter=source), *_])
            | ast.SetComp(generators=[ast.comprehension(iter=source), *_])
            | ast.DictComp(generators=[ast.comprehension(iter=source), *_])
            | ast.GeneratorExp(generators=[ast.comprehension(iter=source), *_])
            | ast.Assign(targets=[ast.Tuple() | ast.List()], value=source)
        ):
            return [source]
        case _:
            return []


def _changed_parts(node: ast.AST, is_own: Callable[[str], bool]) -> list[ast.expr]:
    """Expressions within a node whose values it may change."""
    match node:
        case ast.Call(func=function):
            given = _given(node)
            has_own = any(isinstance(value, ast.Lambda) for value in given)
            return given if has_own or _may_be_own(function, is_own) else []
        case ast.Attribute() if node.attr in _CHANGING:
            return [node]
        case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load):
            return [node]
        case ast.AugAssign(target=target):
            return [target]
        case _:
            return []


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _visible(nodes: Sequence[ast.AST]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """All nodes, each with the names that are variables of an inner scope there."""
    around = list(walk_scope(nodes))
    # `:=` binds a variable from around, which is not hidden by it.
    targets = {id(node.target) for node in around if isinstance(node, ast.NamedExpr)}
    stored = frozenset(bound_names(node for node in around if id(node) not in targets))
    waiting = [(node, stored) for node in nodes]
    while waiting:
        node, hidden = waiting.pop()
        yield node, hidden
        own = hidden
        outside: list[ast.expr] = []
        inside: Iterable[ast.AST] = ast.iter_child_nodes(node)
        match node:
            case ast.FunctionDef() | ast.Lambda():
                own = hidden | function_scope(node, None).slots.keys()
                outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                inside = node.body if isinstance(node, ast.FunctionDef) else [node.body]
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                own = hidden | comprehension_scope(node.generators, None).slots.keys()
                outside, inside = [node.generators[0].iter], but_first_source(node)
        waiting += [(child, hidden) for child in outside]
        waiting += [(child, own) for child in inside]


def but_first_source(
    node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
) -> Iterator[ast.AST]:
    """All that a comprehension evaluates once for each element, or not at all."""
    yield from (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
    first, *others = node.generators
    yield from (first.target, *first.ifs, *others)


_CHANGING = frozenset({
    *("add", "append", "clear", "difference_update", "discard", "extend", "insert"),
    *("intersection_update", "pop", "popitem", "remove", "reverse", "setdefault", "sort"),
    *("subtract", "symmetric_difference_update", "update"),
})  # fmt: skip


def _may_be_own(function: ast.expr, is_own: Callable[[str], bool]) -> bool:
    """Whether what is called may be a function of the program, or a method under another name.

    A method that is called as one is known by its name; `list.append(x, 1)` changes what it is
    given.
    """
    match function:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return attribute in _CHANGING and not is_own(name)
        case ast.Attribute():
            return False
        case ast.Name(id=name):
            return is_own(name)
        case _:
            return True


def _bases(*nodes: ast.AST) -> set[str]:
    """The variables that expressions start from, `x` for `x.y[z]`; else all that they name."""
    found: set[str] = set()
    for node in nodes:
        start = node
        while isinstance(start, ast.Attribute | ast.Subscript | ast.Starred):
            start = start.value
        inner = (start,) if isinstance(start, ast.Name | ast.Lambda) else ast.walk(start)
        found |= {one.id for one in inner if isinstance(one, ast.Name)}
    return found


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
