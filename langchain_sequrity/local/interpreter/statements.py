"""Statements, each compiled once to a function of the frame that returns how it ended.

`None` is the normal end; `BREAK`, `CONTINUE` and `RETURN` are the others. The returned value itself
waits on the machine.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from langchain_sequrity.local.interpreter.builtins import ERRORS, is_error
from langchain_sequrity.local.interpreter.calls import attribute, make_error
from langchain_sequrity.local.interpreter.classes import class_statement
from langchain_sequrity.local.interpreter.containers import in_place, make_list
from langchain_sequrity.local.interpreter.expressions import Code, Expressions, Store
from langchain_sequrity.local.interpreter.faults import Raised
from langchain_sequrity.local.interpreter.functions import compile_function
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.matching import compile_pattern
from langchain_sequrity.local.interpreter.modules import MODULES, Module
from langchain_sequrity.local.interpreter.operators import (
    SYMBOLS,
    collect,
    fast_binary,
    from_python,
    iterate,
)
from langchain_sequrity.local.interpreter.scopes import UNBOUND, Frame, find
from langchain_sequrity.local.interpreter.subscripts import (
    del_item,
    get_item,
    set_field,
    set_item,
)
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    ErrorValue,
    Value,
    strip,
    tag,
    take,
)


class Signal:
    """How a statement ended, if not normally."""


BREAK, CONTINUE, RETURN = Signal(), Signal(), Signal()
Step = Callable[[Frame | None], Signal | None]


class Statements(Expressions):
    """Compiles the statements of one scope; see `Expressions` for what it is given."""

    def statement(self, node: ast.stmt) -> Step:
        """Compile any statement."""
        method = _STATEMENTS.get(type(node))
        if method is None:
            refuse(node, f"`{type(node).__name__}` is not supported here.")
        return method(self, node)

    def block(self, nodes: Sequence[ast.stmt]) -> Step:
        """Compile statements that follow each other."""
        machine = self.machine
        steps = tuple((node.lineno, self.statement(node)) for node in nodes)

        def run(frame: Frame | None) -> Signal | None:
            for line, step in steps:
                machine.line = line
                machine.fuel -= 1
                if machine.fuel < 0:
                    machine.refuel()
                signal = step(frame)
                if signal is not None:
                    return signal
            return None

        return run

    def branching(self, run: Step) -> Step:
        """In mode `strict`, end with a statement the branch that it opened."""
        machine = self.machine
        return self.restoring(run) if machine.is_strict else run

    # -- assignments

    def assign(self, target: ast.expr) -> Store:
        """Compile a target."""
        match target:
            case ast.Name():
                return self.store(target.id)
            case ast.Subscript():
                return self._assign_item(target)
            case ast.Attribute():
                return self._assign_field(target)
            case ast.Tuple() | ast.List():
                return self._unpack(target.elts)
            case _:
                return refuse(target, "This cannot be assigned to.")

    def _assign_item(self, target: ast.Subscript) -> Store:
        container, key = self.expression(target.value), self.expression(target.slice)
        machine = self.machine

        def store(frame: Frame | None, value: Value) -> None:
            set_item(machine, container(frame), key(frame), value)

        return store

    def _assign_field(self, target: ast.Attribute) -> Store:
        record, name, machine = self.expression(target.value), target.attr, self.machine

        return lambda frame, value: set_field(machine, record(frame), name, value)

    def _unpack(self, targets: list[ast.expr]) -> Store:
        machine = self.machine
        stars = [place for place, one in enumerate(targets) if isinstance(one, ast.Starred)]
        if len(stars) > 1:
            refuse(targets[stars[1]], "Only one `*` can be assigned to at a time.")
        starred = stars[0] if stars else None
        stores = tuple(
            self.assign(target.value if isinstance(target, ast.Starred) else target)
            for target in targets
        )
        after = 0 if starred is None else len(targets) - starred - 1

        def store(frame: Frame | None, value: Value) -> None:
            items, mark = collect(machine, value)
            items = [tag(item, mark) for item in items]
            if starred is not None and len(items) >= len(stores) - 1:
                end = len(items) - after
                middle = make_list(items[starred:end], mark)
                items[starred:end] = [middle]
            if len(items) != len(stores):
                message = f"cannot unpack {len(items)} values into {len(stores)}"
                machine.fail(ValueError, message, mark)
            for one, item in zip(stores, items, strict=True):
                one(frame, item)

        return store

    def _assignment(self, node: ast.Assign) -> Step:
        value, targets = self.expression(node.value), tuple(map(self.assign, node.targets))
        if len(targets) == 1:
            only = targets[0]
            return lambda frame: only(frame, value(frame))

        def run(frame: Frame | None) -> None:
            result = value(frame)
            for store in targets:
                store(frame, result)

        return run

    def _annotated(self, node: ast.AnnAssign) -> Step:
        # The annotation itself is never evaluated.
        if node.value is None:
            return lambda _: None
        value, store = self.expression(node.value), self.assign(node.target)
        return lambda frame: store(frame, value(frame))

    def _augmented(self, node: ast.AugAssign) -> Step:
        machine, target = self.machine, node.target
        symbol = SYMBOLS.get(type(node.op)) or refuse(node, "This operator is not supported.")
        value = self.expression(node.value)
        if isinstance(target, ast.Subscript):
            container, key = self.expression(target.value), self.expression(target.slice)

            def item(frame: Frame | None) -> None:
                inner, index = container(frame), key(frame)
                before = get_item(machine, inner, index)
                set_item(machine, inner, index, in_place(machine, symbol, before, value(frame)))

            return item
        if isinstance(target, ast.Attribute):
            record, name = self.expression(target.value), target.attr

            def field(frame: Frame | None) -> None:
                inner = record(frame)
                before = attribute(machine, inner, name)
                set_field(machine, inner, name, in_place(machine, symbol, before, value(frame)))

            return field
        load, store = self.load(target.id), self.store(target.id)
        apply = self.fast_in_place(symbol)
        return lambda frame: store(frame, apply(load(frame), value(frame)))

    def _delete(self, node: ast.Delete) -> Step:
        steps = tuple(map(self._delete_target, node.targets))

        def run(frame: Frame | None) -> None:
            for step in steps:
                step(frame)

        return run

    def _delete_target(self, target: ast.expr) -> Callable[[Frame | None], None]:
        machine = self.machine
        match target:
            case ast.Name():
                return self.unbind(target.id)
            case ast.Subscript():
                container, key = self.expression(target.value), self.expression(target.slice)
                return lambda frame: del_item(machine, container(frame), key(frame))
            case ast.Tuple() | ast.List():
                steps = tuple(map(self._delete_target, target.elts))

                def each(frame: Frame | None) -> None:
                    for step in steps:
                        step(frame)

                return each
            case _:
                return refuse(target, "Only variables and items can be deleted.")

    def unbind(self, name: str) -> Callable[[Frame | None], None]:
        """Take a variable's value away."""
        machine, place, load = self.machine, find(self.scope, name), self.load(name)

        def in_module(frame: Frame | None) -> None:
            load(frame)
            if machine.names.pop(name, UNBOUND) is UNBOUND:
                machine.fail(NameError, f"name '{name}' is not defined")

        def in_frame(frame: Frame | None) -> None:
            load(frame)
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            frame[slot] = UNBOUND  # type: ignore[index]

        depth, slot = place or (0, 0)
        return in_frame if place else in_module

    # -- branches and loops

    def _if(self, node: ast.If) -> Step:
        # A chain of `elif` is flat here, so that a long one needs no deep stack.
        pairs = []
        rest: list[ast.stmt] = [node]
        while len(rest) == 1 and isinstance(rest[0], ast.If):
            pairs.append((self.test(rest[0].test), self.block(rest[0].body)))
            rest = rest[0].orelse
        otherwise = self.block(rest)
        if len(pairs) == 1:
            test, body = pairs[0]
            return self.branching(lambda frame: (body if test(frame) else otherwise)(frame))

        def run(frame: Frame | None) -> Signal | None:
            for test, body in pairs:
                if test(frame):
                    return body(frame)
            return otherwise(frame)

        return self.branching(run)

    def _while(self, node: ast.While) -> Step:
        machine = self.machine
        test, body = self.test(node.test), self.block(node.body)
        otherwise = self.block(node.orelse)

        def run(frame: Frame | None) -> Signal | None:
            while test(frame):
                machine.fuel -= 1
                if machine.fuel < 0:
                    machine.refuel()
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    return None if signal is BREAK else signal
            return otherwise(frame)

        return self.branching(run)

    def _for(self, node: ast.For) -> Step:
        machine, source = self.machine, self.expression(node.iter)
        store, body = self.assign(node.target), self.block(node.body)
        otherwise = self.block(node.orelse)
        elements = iterate if machine.is_unwatched else _watched

        def run(frame: Frame | None) -> Signal | None:
            for value in elements(machine, source(frame)):
                machine.fuel -= 1
                if machine.fuel < 0:
                    machine.refuel()
                store(frame, value)
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    return None if signal is BREAK else signal
            return otherwise(frame)

        return self.branching(run)

    def _match(self, node: ast.Match) -> Step:
        subject, machine = self.expression(node.subject), self.machine
        cases = tuple(
            (
                compile_pattern(self, case.pattern),
                self.test(case.guard) if case.guard is not None else None,
                self.block(case.body),
            )
            for case in node.cases
        )

        def run(frame: Frame | None) -> Signal | None:
            value = subject(frame)
            machine.looked(machine.bare(value)[1])
            for fits, guard, body in cases:
                if fits(frame, value) and (guard is None or guard(frame)):
                    return body(frame)
            return None

        return self.branching(run)

    # -- exceptions

    def _try(self, node: ast.Try) -> Step:
        body, otherwise = self.block(node.body), self.block(node.orelse)
        handlers = tuple(map(self._handler, node.handlers))
        caught = self._caught

        def run(frame: Frame | None) -> Signal | None:
            try:
                signal = body(frame)
            except Exception as exception:  # noqa: BLE001 - what an operation raised is the program's
                return self._handle(frame, handlers, caught(exception))
            return signal if signal is not None else otherwise(frame)

        return self._with_finally(run, node.finalbody) if node.finalbody else run

    def _caught(self, exception: Exception) -> ErrorValue:
        """The program's view of an exception; exhausting Python's stack or memory is the end."""
        if isinstance(exception, Raised):
            error: ErrorValue = exception.error
            return error
        if isinstance(exception, RecursionError | MemoryError):
            self.machine.exhaust("depth", self.machine.limits.depth)
        return from_python(self.machine, exception)

    def _handle(
        self, frame: Frame | None, handlers: tuple[Any, ...], error: ErrorValue
    ) -> Signal | None:
        machine = self.machine
        for fits, bind, unbind, body in handlers:
            if not fits(frame, error):
                continue
            before, machine.handled = machine.handled, error
            bind(frame, error)
            try:
                signal: Signal | None = body(frame)
                return signal
            finally:
                machine.handled = before
                unbind(frame)
        raise Raised(error)

    def _handler(self, node: ast.ExceptHandler) -> tuple[Any, ...]:
        machine = self.machine
        kinds = self.expression(node.type) if node.type is not None else None
        bind = self.store(node.name) if node.name else _ignore
        unbind = self._forget(node.name) if node.name else _ignore

        def fits(frame: Frame | None, error: ErrorValue) -> bool:
            if kinds is None:
                return True
            wanted = strip(kinds(frame))
            for kind in wanted if isinstance(wanted, tuple) else (wanted,):
                one = strip(kind)
                if type(one) is not ErrorType:
                    message = "catching classes that do not inherit from BaseException"
                    machine.fail(TypeError, message)
                if is_error(error.type, one):
                    return True
            return False

        return fits, bind, unbind, self.block(node.body)

    def _forget(self, name: str) -> Callable[[Frame | None], None]:
        unbind = self.unbind(name)

        def forget(frame: Frame | None) -> None:
            with suppress(Raised):  # the handler deleted the name itself
                unbind(frame)

        return forget

    def _with_finally(self, body: Step, nodes: list[ast.stmt]) -> Step:
        finish, machine, caught = self.block(nodes), self.machine, self._caught

        def run(frame: Frame | None) -> Signal | None:
            error = signal = None
            try:
                signal = body(frame)
            except Exception as exception:  # noqa: BLE001 - and not what no `finally` may see
                error = caught(exception)
            line, returned = machine.line, machine.returned
            last = finish(frame)
            if last is not None:
                return last
            machine.line, machine.returned = line, returned
            if error is not None:
                raise Raised(error)
            return signal

        return run

    def _raise(self, node: ast.Raise) -> Step:
        machine = self.machine
        value = self.expression(node.exc) if node.exc is not None else None
        cause = self.expression(node.cause) if node.cause is not None else None

        def run(frame: Frame | None) -> Signal | None:
            if value is None:
                if machine.handled is None:
                    machine.fail(RuntimeError, "No active exception to reraise")
                raise Raised(machine.handled)
            error, mark = take(value(frame))
            if type(error) is ErrorType:
                error = make_error(machine, error, [], {})
            if type(error) is not ErrorValue:
                machine.fail(TypeError, "exceptions must derive from BaseException", mark)
            if cause is not None:
                error.cause = cause(frame)
                if type(strip(error.cause)) not in (ErrorValue, ErrorType, type(None)):
                    machine.fail(TypeError, "exception causes must derive from BaseException", mark)
            machine.mark(error, mark)
            raise Raised(error)

        return run

    def _assert(self, node: ast.Assert) -> Step:
        test, machine = self.expression(node.test), self.machine
        message = self.expression(node.msg) if node.msg is not None else None

        def run(frame: Frame | None) -> Signal | None:
            value, mark = take(test(frame))
            machine.looked(mark)
            if not value:
                args = () if message is None else (message(frame),)
                raise Raised(ErrorValue(ERRORS["AssertionError"], args, mark))
            return None

        return self.branching(run)

    # -- functions, classes, imports and the rest

    def _function(self, node: ast.FunctionDef) -> Step:
        make, store = compile_function(self, node), self.store(node.name)
        return lambda frame: store(frame, make(frame))

    def _lambda(self, node: ast.Lambda) -> Code:
        return compile_function(self, node)

    def _return(self, node: ast.Return) -> Step:
        machine = self.machine
        value = self.expression(node.value) if node.value is not None else None

        def run(frame: Frame | None) -> Signal:
            result = None if value is None else value(frame)
            machine.returned = result if machine.branch is None else tag(result, machine.branch)
            return RETURN

        return run

    def _class(self, node: ast.ClassDef) -> Step:
        make, store = class_statement(self, node), self.store(node.name)
        return lambda frame: store(frame, make(frame))

    def _import(self, node: ast.Import) -> Step:
        pairs = [
            (self.store(alias.asname or alias.name), Module(alias.name, MODULES[alias.name]))
            for alias in node.names
        ]
        return _store_all(pairs)

    def _import_from(self, node: ast.ImportFrom) -> Step:
        members = MODULES[node.module or ""]
        return _store_all(
            [(self.store(alias.asname or alias.name), members[alias.name]) for alias in node.names]
        )

    def _expression_statement(self, node: ast.Expr) -> Step:
        code = self.expression(node.value)

        def run(frame: Frame | None) -> None:
            code(frame)

        return run

    def fast_in_place(self, symbol: str) -> Callable[[Value, Value], Value]:
        """An augmented assignment: bare integers and texts first."""
        machine = self.machine
        apply = fast_binary(machine, symbol)

        def run(one: Value, other: Value) -> Value:
            if type(one) is int:
                return apply(one, other)
            return in_place(machine, symbol, one, other)

        return run


def _watched(machine: Machine, values: Value) -> Iterator[Value]:
    """Iterate, and ask again whenever a lazy source has looked at more."""
    seen = take(values)[1]
    machine.looked(seen)
    for value in iterate(machine, values):
        mark = take(values)[1]
        if mark is not seen:
            seen = mark
            machine.looked(mark)
        yield value
    machine.looked(take(values)[1])


def _ignore(*_: Any) -> None:
    """Nothing to bind."""


def _store_all(pairs: list[tuple[Store, Value]]) -> Step:
    def run(frame: Frame | None) -> None:
        for store, value in pairs:
            store(frame, value)

    return run


_STATEMENTS: dict[type[ast.stmt], Callable[[Any, Any], Step]] = {
    ast.AnnAssign: lambda self, node: self._annotated(node),
    ast.Assert: lambda self, node: self._assert(node),
    ast.Assign: lambda self, node: self._assignment(node),
    ast.AugAssign: lambda self, node: self._augmented(node),
    ast.Break: lambda _self, _node: lambda _: BREAK,
    ast.ClassDef: lambda self, node: self._class(node),
    ast.Continue: lambda _self, _node: lambda _: CONTINUE,
    ast.Delete: lambda self, node: self._delete(node),
    ast.Expr: lambda self, node: self._expression_statement(node),
    ast.For: lambda self, node: self._for(node),
    ast.FunctionDef: lambda self, node: self._function(node),
    ast.Global: lambda _self, _node: lambda _: None,
    ast.If: lambda self, node: self._if(node),
    ast.Import: lambda self, node: self._import(node),
    ast.ImportFrom: lambda self, node: self._import_from(node),
    ast.Match: lambda self, node: self._match(node),
    ast.Nonlocal: lambda _self, _node: lambda _: None,
    ast.Pass: lambda _self, _node: lambda _: None,
    ast.Raise: lambda self, node: self._raise(node),
    ast.Return: lambda self, node: self._return(node),
    ast.Try: lambda self, node: self._try(node),
    ast.While: lambda self, node: self._while(node),
}
