"""What every compiler of a scope does: names, conditions, and the doors to the other constructs."""

import ast
from collections.abc import Callable
from typing import Any, Self

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import (
    MISSING,
)
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import (
    UNBOUND,
    Frame,
    Scope,
    changes,
    find,
    weight,
)
from langchain_sequrity.local.interpreter.syntax import MAIN
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    Effects,
    IteratorValue,
    Mark,
    Tool,
    Value,
    changed_by_calls,
    strip,
    tag,
)

Code = Callable[[Frame | None], Value]
Test = Callable[[Frame | None], bool]
Store = Callable[[Frame | None, Value], None]
LeftOut = Callable[[Frame | None, Mark], None]
Touched = Callable[[Frame | None, Labels], list[Any]]


class Scoped:
    """Compiles what stands in one scope.

    Args:
        machine: The run that the code belongs to.
        scope: The function or comprehension that it stands in; `None` is the module.
        bound: Names that the module binds, so that built-ins under them are not meant.
    """

    def __init__(self, machine: Machine, scope: Scope | None, bound: frozenset[str]) -> None:
        """Compile into `machine`."""
        self.machine = machine
        self.scope = scope
        self.bound = bound

    def inner(self, scope: Scope | None) -> Self:
        """The same for another scope: one within this one, or the module."""
        return type(self)(self.machine, scope, self.bound)

    def expression(self, node: ast.expr) -> Code:
        """Compile any expression."""
        raise NotImplementedError

    def assign(self, target: ast.expr) -> Store:
        """Compile a target; statements know more of them."""
        raise NotImplementedError

    def block(self, nodes: list[ast.stmt]) -> Callable[[Frame | None], Any]:
        """Compile statements, for the body of a function."""
        raise NotImplementedError

    def test(self, node: ast.expr) -> Test:
        """Compile a condition (`behaviour.md`, M3)."""
        code = self.expression(node)
        machine = self.machine
        if machine.is_unwatched:
            return lambda frame: bool(strip(code(frame)))

        def watched(frame: Frame | None) -> bool:
            is_true, mark = machine.truth(code(frame))
            machine.looked(mark)
            return is_true

        return watched

    def load(self, name: str) -> Code:
        """Read a variable, a built-in or a tool."""
        place = find(self.scope, name)
        if place is None:
            return self._load_global(name)
        depth, slot = place

        def local(frame: Frame | None) -> Value:
            value = frame[slot]  # type: ignore[index]
            if value is UNBOUND:
                _unbound(machine, name)
            return value

        def outer(frame: Frame | None) -> Value:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            value = frame[slot]  # type: ignore[index]
            if value is UNBOUND:
                message = f"cannot access free variable '{name}' where it has no value"
                machine.fail(NameError, message)
            return value

        machine = self.machine
        return outer if depth else local

    def _load_global(self, name: str) -> Code:
        machine, names = self.machine, self.machine.names
        if name == MAIN:
            return lambda _: "__main__"
        otherwise = Tool(name) if name in machine.tools else BUILTINS.get(name, MISSING)

        def load(_: Frame | None) -> Value:
            value = names.get(name, otherwise)
            if value is MISSING:
                machine.fail(NameError, f"name '{name}' is not defined")
            return value

        return load

    def left_out(self, *nodes: ast.AST) -> LeftOut:
        """Compile what it means that labelled data left these expressions out.

        That something was not changed says as much about the data as that it was: what the
        expressions may change takes the labels.
        """
        touched, machine = self.touched(*nodes), self.machine

        def note(frame: Frame | None, mark: Mark) -> None:
            if mark is not None:
                machine.mark(Effects(touched, frame), mark)

        return note

    def touched(self, *nodes: ast.AST) -> Touched:
        """Compile to what labels the variables that some code may bind.

        It gives what the code may change besides: containers, iterators, and the effects of
        functions that it may call. It reads the text when labels first ask: in most programs they
        never do, and nested code is read once for each level.
        """
        compiled: list[Touched] = []

        def find(frame: Frame | None, labels: Labels) -> list[Any]:
            if not compiled:
                self.machine.work(weight(*nodes))
                compiled.append(self._touched(nodes))
            return compiled[0](frame, labels)

        return find

    def _touched(self, nodes: tuple[ast.AST, ...]) -> Touched:
        found = changes(nodes, self._is_own)
        places = {name: self._places(name, found.of_module) for name in frozenset().union(*found)}
        held = [
            (place._peek(name), name in found.changed)  # noqa: SLF001 - of another scope
            for name in found.read | found.changed
            for place in places[name]
        ]
        bound = [
            (place._peek(name), place.store(name, in_expression=True))  # noqa: SLF001
            for name in found.bound
            for place in places[name]
        ]

        def find(frame: Frame | None, labels: Labels) -> list[Any]:
            for peek, store in bound:
                value = peek(frame)
                if value is not MISSING:
                    store(frame, tag(value, labels))
            things: list[Any] = []
            for peek, is_changed in held:
                inner = strip(peek(frame))
                if type(inner) is IteratorValue or (is_changed and type(inner) in CARRIERS):
                    things.append(inner)
                else:
                    things += changed_by_calls(inner)
            return things

        return find

    def _places(self, name: str, of_module: frozenset[str]) -> tuple[Self, ...]:
        """Compilers of the scopes in which a name may be meant."""
        return (self, self.inner(None)) if name in of_module else (self,)

    def _is_own(self, name: str) -> bool:
        return name in self.bound or find(self.scope, name) is not None

    def _peek(self, name: str) -> Code:
        """Read a variable of the program; `MISSING` where it has no value."""
        names, place = self.machine.names, find(self.scope, name)
        if place is None:
            return lambda _: names.get(name, MISSING)
        depth, slot = place

        def peek(frame: Frame | None) -> Value:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            value = frame[slot]  # type: ignore[index]
            return MISSING if value is UNBOUND else value

        return peek

    def knows(self, name: str) -> bool:
        """Whether a name can have a value at all."""
        return name in self.bound or name in BUILTINS or find(self.scope, name) is not None

    def kept(self, name: str) -> Callable[[Frame | None], Callable[[], None]]:
        """Note what a variable is, to give it back if what it was bound for does not come about."""
        peek, store, names = self._peek(name), self.store(name), self.machine.names
        is_global = find(self.scope, name) is None

        def note(frame: Frame | None) -> Callable[[], None]:
            before = peek(frame)
            if before is not MISSING:
                return lambda: store(frame, before)
            return lambda: names.pop(name, None) if is_global else store(frame, UNBOUND)

        return note

    def store(self, name: str, *, in_expression: bool = False) -> Store:
        """Bind a variable, in a statement or within an expression or a pattern."""
        machine, names = self.machine, self.machine.names
        place = find(self.scope, name)

        def in_module(_: Frame | None, value: Value) -> None:
            names[name] = value

        def in_frame(frame: Frame | None, value: Value) -> None:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            frame[slot] = value  # type: ignore[index]

        depth, slot = place or (0, 0)
        plain = in_frame if place else in_module
        # Without mode `strict`, a branch is open at a statement only if it was when the function
        # was called. All that leaves the function has its labels; its own variables need none.
        is_own = place is not None and depth == 0
        if not machine.is_strict and (is_own or self.scope is None) and not in_expression:
            return plain
        return lambda frame, value: plain(frame, tag(value, machine.branch))


def _unbound(machine: Machine, name: str) -> None:
    message = f"cannot access local variable '{name}' where it is not associated with a value"
    machine.fail(UnboundLocalError, message)
