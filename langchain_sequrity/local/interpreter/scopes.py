"""Scopes: names are resolved to places before the program runs.

Names of the module live in a dict, which is the namespace of the result. Every function, lambda
and comprehension has a frame: a list whose first item is the enclosing frame.

`ScopeCompiler` is the base of the compiler: it reads, binds and labels variables.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Self

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import MISSING
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.syntax import MAIN, refuse
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    DictValue,
    Effects,
    IteratorValue,
    Mark,
    ToolValue,
    Value,
    add_labels,
    changed_by_calls,
    join_labels,
    unbox,
)

Frame = list[Any]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NESTED = (ast.FunctionDef, ast.Lambda, ast.ClassDef, *COMPREHENSIONS)
_NAMED = (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_BINDING = (ast.Name, *_NAMED, ast.MatchMapping, ast.alias)


@dataclass(slots=True)
class Scope:
    """The names of one function, lambda or comprehension.

    Attributes:
        parent: The scope around it; `None` is the module.
        slots: Index in the frame by name.
        globals: Names that belong to the module instead.
    """

    parent: "Scope | None"
    slots: dict[str, int] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)

    def add(self, name: str) -> int:
        """Give a name a slot."""
        return self.slots.setdefault(name, len(self.slots) + 1)

    def frame(self, outer: Frame | None) -> Frame:
        """A new frame with nothing bound."""
        return [outer, *([MISSING] * len(self.slots))]


def find(scope: Scope | None, name: str) -> tuple[int, int] | None:
    """Number of frames outwards and slot of a name; `None` for a name of the module."""
    depth = 0
    while scope is not None:
        if name in scope.globals:
            return None
        if name in scope.slots:
            return depth, scope.slots[name]
        scope, depth = scope.parent, depth + 1
    return None


def function_scope(node: ast.FunctionDef | ast.Lambda, parent: Scope | None) -> Scope:
    """The scope of a function: its parameters and the names that it binds."""
    scope = Scope(parent)
    for name in parameter_names(node.args):
        scope.add(name)
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


def parameter_names(arguments: ast.arguments) -> list[str]:
    """The names of all parameters."""
    starred = (arguments.vararg, arguments.kwarg)
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [parameter.arg for parameter in (*named, *starred) if parameter is not None]


def comprehension_scope(generators: list[ast.comprehension], parent: Scope | None) -> Scope:
    """The scope of a comprehension: its targets. `:=` binds in the scope around it."""
    scope = Scope(parent)
    for generator in generators:
        for name in bound_names(walk_scope([generator.target])):
            scope.add(name)
    return scope


def walk_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a scope, without those of inner scopes."""
    pending = list(body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, COMPREHENSIONS):
            # `:=` in a comprehension binds in the scope around it.
            pending.extend(n for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
        elif not isinstance(node, _NESTED):
            pending.extend(ast.iter_child_nodes(node))


class ChangedNames(NamedTuple):
    """Variables whose values a piece of code may change.

    Attributes:
        read: Iterators under these names may advance, and functions under them may be called: the
            code calls them, passes them on, or iterates over them.
        changed: Containers under these names may change: by a method, by an assignment, or by a
            function of the program that gets them as arguments.
        bound: The names themselves may be bound to another value: by `:=`, `global` or `nonlocal`.
        global_names: The names in `global` statements.
    """

    read: frozenset[str]
    changed: frozenset[str]
    bound: frozenset[str]
    global_names: frozenset[str]


def changed_names(nodes: Sequence[ast.AST], may_be_variable: Callable[[str], bool]) -> ChangedNames:
    """What this code may change, according to its text.

    Args:
        nodes: Expressions of one scope, or one function.
        may_be_variable: Whether a name is a variable of the program.
    """
    read: set[str] = set()
    changed: set[str] = set()
    bound: set[str] = set()
    global_names: set[str] = set()
    for node, hidden in _visible(nodes):
        if isinstance(node, _BINDING):
            bound |= {name for name in bound_names([node]) if name not in hidden}
        if isinstance(node, ast.Global):
            global_names.update(node.names)
        read |= _bases(*_read_parts(node)) - hidden
        changed |= _bases(*_changed_parts(node, may_be_variable)) - hidden
    read, changed, bound = ({*filter(may_be_variable, names)} for names in (read, changed, bound))
    return ChangedNames(*map(frozenset, (read, changed, bound, global_names)))


def _read_parts(node: ast.AST) -> list[ast.expr]:
    """Expressions within a node whose values it may call, pass on, or iterate over."""
    if isinstance(node, COMPREHENSIONS):
        return [node.generators[0].iter]
    match node:
        case ast.Call(func=function):
            return [function, *_call_arguments(node)]
        case ast.Compare(comparators=others):
            return others
        case (
            ast.Starred(value=source)
            | ast.For(iter=source)
            | ast.comprehension(iter=source)
            | ast.Assign(targets=[ast.Tuple() | ast.List()], value=source)
            | ast.Subscript(value=source)  # of a `defaultdict`, which may get a key
        ):
            return [source]
        case _:
            return []


def _changed_parts(node: ast.AST, may_be_variable: Callable[[str], bool]) -> list[ast.expr]:
    """Expressions within a node whose values it may change."""
    match node:
        case ast.Call(func=function):
            arguments = _call_arguments(node)
            may_change = _may_change_arguments(function, may_be_variable)
            may_change |= any(isinstance(value, ast.Lambda) for value in arguments)
            return arguments if may_change else []
        case ast.Attribute() if node.attr in _CHANGING:
            return [node]
        case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load):
            return [node]
        case ast.AugAssign(target=target):
            return [target]
        case _:
            return []


def _call_arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _visible(nodes: Sequence[ast.AST]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """All nodes, each with the names that an inner scope hides there."""
    scope_nodes = list(walk_scope(nodes))
    # `:=` binds a variable of the scope around, so it does not hide that variable.
    targets = {id(node.target) for node in scope_nodes if isinstance(node, ast.NamedExpr)}
    stored = frozenset(bound_names(node for node in scope_nodes if id(node) not in targets))
    pending = [(node, stored) for node in nodes]
    while pending:
        node, hidden = pending.pop()
        yield node, hidden
        inner_hidden = hidden
        outside: list[ast.expr] = []
        inside: Iterable[ast.AST] = ast.iter_child_nodes(node)
        match node:
            case ast.FunctionDef() | ast.Lambda():
                inner_hidden = hidden | function_scope(node, None).slots.keys()
                outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                inside = node.body if isinstance(node, ast.FunctionDef) else [node.body]
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner_hidden = hidden | comprehension_scope(node.generators, None).slots.keys()
                outside, inside = [node.generators[0].iter], without_first_source(node)
        pending += [(child, hidden) for child in outside]
        pending += [(child, inner_hidden) for child in inside]


def without_first_source(
    node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
) -> Iterator[ast.AST]:
    """Everything in a comprehension except its first source, which is always evaluated once."""
    yield from (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
    first, *others = node.generators
    yield from (first.target, *first.ifs, *others)


# A method of the interpreter that is missing here fails `test_skipped_changes.py`.
_CHANGING = frozenset({
    *("add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove"),
    *("reverse", "setdefault", "sort", "update"),
})  # fmt: skip


def _may_change_arguments(function: ast.expr, may_be_variable: Callable[[str], bool]) -> bool:
    """Whether the callee may be a function of the program, or a method under another name.

    A method call `x.append(1)` is recognised by its name. `list.append(x, 1)` changes its argument.
    """
    match function:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return attribute in _CHANGING and not may_be_variable(name)
        case ast.Attribute():
            return False
        case ast.Name(id=name):
            return may_be_variable(name)
        case _:
            return True


def _bases(*nodes: ast.AST) -> set[str]:
    """The variables that expressions start from, `x` for `x.y[z]`; for others, all their names."""
    names: set[str] = set()
    for node in nodes:
        start = node
        while isinstance(start, ast.Attribute | ast.Subscript | ast.Starred):
            start = start.value
        inner = (start,) if isinstance(start, ast.Name | ast.Lambda) else ast.walk(start)
        names |= {part.id for part in inner if isinstance(part, ast.Name)}
    return names


def minimum_steps(*nodes: ast.AST) -> int:
    """The minimum number of steps of these nodes, without the statements within them.

    An ordinary statement takes one step; a statement with thousands of nodes takes more.
    """
    count, pending = 0, list(nodes)
    while pending:
        node = pending.pop()
        count += 1
        parts = ast.iter_child_nodes(node)
        pending += [part for part in parts if not isinstance(part, _BLOCKS)]
    return 1 + (count >> 4)


_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.AST]]]:
    """The statements directly within a node, by the field that holds them."""
    for name, parts in ast.iter_fields(node):
        if isinstance(parts, list):
            yield name, [part for part in parts if isinstance(part, _BLOCKS)]


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


Code = Callable[[Frame | None], Value]
Test = Callable[[Frame | None], bool]
Store = Callable[[Frame | None, Value], None]
Labeler = Callable[[Frame | None, Mark], None]
LabelEffects = Callable[[Frame | None, Labels], list[Any]]


class ScopeCompiler(ast.NodeVisitor):
    """Compiles the code of one scope.

    Args:
        machine: The run that the code belongs to.
        scope: The function or comprehension that contains the code; `None` is the module.
        bound: Names that the module binds, or that exist before it. They hide built-ins and tools.
    """

    def __init__(self, machine: Machine, scope: Scope | None, bound: frozenset[str]) -> None:
        self.machine = machine
        self.scope = scope
        self.bound = bound

    def compiler_for(self, scope: Scope | None) -> Self:
        """A compiler for another scope: an inner one, or the module."""
        return type(self)(self.machine, scope, self.bound)

    def expression(self, node: ast.expr) -> Code:
        """Compile any expression."""
        code: Code = self.visit(node)
        return code

    def generic_visit(self, node: ast.AST) -> NoReturn:
        """Refuse a construct that has no `visit_` method."""
        refuse(node, f"`{type(node).__name__}` is not supported here.")

    def assign(self, target: ast.expr) -> Store:
        """Compile the target of an assignment."""
        raise NotImplementedError

    def block(self, nodes: list[ast.stmt]) -> Callable[[Frame | None], Any]:
        """Compile a sequence of statements."""
        raise NotImplementedError

    def test(self, node: ast.expr) -> Test:
        """Compile a condition (`behaviour.md`, M3)."""
        code = self.expression(node)
        machine = self.machine
        if machine.ignores_control_flow:
            return lambda frame: bool(unbox(code(frame)))

        def watched(frame: Frame | None) -> bool:
            is_true, mark = machine.truth(code(frame))
            machine.open_branch(mark)
            return is_true

        return watched

    def load(self, name: str) -> Code:
        """Compile reading a variable, a built-in or a tool."""
        location = find(self.scope, name)
        if location is None:
            return self._load_global(name)
        depth, slot = location
        machine, peek = self.machine, self.get_variable(name)

        def local(frame: Frame | None) -> Value:
            value = frame[slot]  # type: ignore[index]
            if value is MISSING:
                machine.fail(UnboundLocalError, f"local variable '{name}' has no value here")
            return value

        def outer(frame: Frame | None) -> Value:
            value = peek(frame)
            if value is MISSING:
                _undefined(machine, name)
            return value

        return outer if depth else local

    def _load_global(self, name: str) -> Code:
        machine, names = self.machine, self.machine.names
        if name == MAIN:
            return lambda _: "__main__"
        otherwise = ToolValue(name) if name in machine.tools else BUILTINS.get(name, MISSING)

        def load(_: Frame | None) -> Value:
            value = names.get(name, otherwise)
            if value is MISSING:
                _undefined(machine, name)
            return value

        return load

    def label_skipped(self, *nodes: ast.AST) -> Labeler:
        """Compile a function to call when labelled data decided that these expressions do not run.

        That something did not change reveals as much about the data as a change: everything that
        the expressions may change takes the labels.
        """
        label_effects, machine = self.label_bound(*nodes), self.machine

        def label(frame: Frame | None, mark: Mark) -> None:
            if mark is not None:
                machine.label_changed(Effects(label_effects, frame), mark)
                if machine.is_strict and machine.may_exit:  # they might have ended the program
                    machine.branch = join_labels(machine.branch, mark)

        return label

    def label_bound(self, *nodes: ast.AST) -> LabelEffects:
        """Compile a function that labels the variables that some code may bind.

        It returns what else the code may change: containers, iterators, and the effects of
        functions that it may call. The text is analysed when it is first needed, which most
        programs never do.
        """
        compiled: list[LabelEffects] = []

        def find(frame: Frame | None, labels: Labels) -> list[Any]:
            if not compiled:
                self.machine.pay_steps(minimum_steps(*nodes))
                compiled.append(self._label_bound(nodes))
            return compiled[0](frame, labels)

        return find

    def _label_bound(self, nodes: tuple[ast.AST, ...]) -> LabelEffects:
        names = changed_names(nodes, self._may_be_variable)
        compilers = {
            name: (self, self.compiler_for(None)) if name in names.global_names else (self,)
            for name in frozenset().union(*names)
        }
        variables = [
            (compiler.get_variable(name), name in names.changed)
            for name in names.read | names.changed
            for compiler in compilers[name]
        ]
        bound = [scope.label_variable(name) for name in names.bound for scope in compilers[name]]

        def find(frame: Frame | None, labels: Labels) -> list[Any]:
            for label in bound:
                label(frame, labels)
            changeable: list[Any] = []
            for peek, is_changed in variables:
                inner = unbox(peek(frame))
                if type(inner) is IteratorValue or (is_changed and type(inner) in CARRIERS):
                    changeable.append(inner)
                elif type(inner) is DictValue and inner.factory is not None:
                    changeable += (inner, *changed_by_calls(inner.factory))
                else:
                    changeable += changed_by_calls(inner)
            return changeable

        return find

    def is_bound(self, name: str) -> bool:
        """Whether this program binds a name, or one before it."""
        return name in self.bound or find(self.scope, name) is not None

    def may_have_value(self, name: str) -> bool:
        """Whether a name can have a value at all."""
        return name in BUILTINS or self.is_bound(name)

    def _may_be_variable(self, name: str) -> bool:
        """Whether a name may be a variable, also of a later program."""
        return self.is_bound(name) or not (name in BUILTINS or name in self.machine.tools)

    def get_variable(self, name: str) -> Code:
        """Compile reading a variable of the program; it gives `MISSING` if it has no value."""
        names, location = self.machine.names, find(self.scope, name)
        if location is None:
            return lambda _: names.get(name, MISSING)
        depth, slot = location

        def run(frame: Frame | None) -> Value:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            return frame[slot]  # type: ignore[index]

        return run

    def set_variable(self, name: str) -> Store:
        """Compile setting a variable to a value, or to `MISSING`."""
        names, location = self.machine.names, find(self.scope, name)
        depth, slot = location or (0, 0)

        def in_module(_: Frame | None, value: Value) -> None:
            names[name] = value
            if value is MISSING:
                del names[name]

        def in_frame(frame: Frame | None, value: Value) -> None:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            frame[slot] = value  # type: ignore[index]

        return in_frame if location else in_module

    def unbind(self, name: str) -> Callable[[Frame | None], None]:
        """Compile `del name`."""
        machine, peek, put = self.machine, self.get_variable(name), self.set_variable(name)

        def run(frame: Frame | None) -> None:
            if peek(frame) is MISSING:
                _undefined(machine, name)
            put(frame, MISSING)

        return run

    def label_variable(self, name: str) -> Labeler:
        """Compile to a function that adds labels to a variable's value, if it has one."""
        peek, store = self.get_variable(name), self.store(name, in_expression=True)

        def label(frame: Frame | None, mark: Mark) -> None:
            value = peek(frame)
            if value is not MISSING:
                store(frame, add_labels(value, mark))

        return label

    def store(self, name: str, *, in_expression: bool = False) -> Store:
        """Compile binding a variable, in a statement or within an expression or a pattern."""
        machine, set_value, location = self.machine, self.set_variable(name), find(self.scope, name)
        # Outside strict mode, statements open no branch. So an open branch comes from the caller,
        # and everything that leaves the function gets its labels. Local variables need none.
        is_local = self.scope is None or (location is not None and location[0] == 0)
        if is_local and not machine.is_strict and not in_expression:
            return set_value
        return lambda frame, value: set_value(frame, add_labels(value, machine.branch))


def _undefined(machine: Machine, name: str) -> None:
    machine.fail(NameError, f"name '{name}' is not defined")
