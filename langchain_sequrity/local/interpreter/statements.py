"""Statements, each compiled once to a function of the frame that returns how it ended.

`None` is the normal end; `BREAK`, `CONTINUE` and `RETURN` are the others. The returned value itself
waits on the machine.

Patterns of `match`: literals, sequences, mappings, alternatives and names.

Whatever a pattern looks at is a decision, whose labels the names take that it binds.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_sequrity.local.interpreter.calls import attribute
from langchain_sequrity.local.interpreter.classes import class_statement
from langchain_sequrity.local.interpreter.containers import hashable, in_place, make_list
from langchain_sequrity.local.interpreter.exceptions import Signal, Step, Trying
from langchain_sequrity.local.interpreter.functions import compile_function
from langchain_sequrity.local.interpreter.iteration import collect, elements_of
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.modules import MODULES, Module
from langchain_sequrity.local.interpreter.operators import SYMBOLS, compare, fast_binary
from langchain_sequrity.local.interpreter.scopes import (
    UNBOUND,
    Code,
    Frame,
    Scoped,
    Store,
    bound_names,
    find,
    walk_scope,
    weight,
)
from langchain_sequrity.local.interpreter.subscripts import del_item, get_item, set_field, set_item
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    IteratorValue,
    ListValue,
    Mark,
    Value,
    box_mark,
    strip,
    tag,
    take,
)

Fits = Callable[[Frame | None, Value], bool]


def compile_pattern(compiler: Scoped, node: ast.pattern) -> Fits:  # noqa: PLR0911 - one per kind
    """Compile a pattern to something that says whether a value fits, and binds its names."""
    match node:
        case ast.MatchValue():
            return _value(compiler, node)
        case ast.MatchSingleton():
            return _singleton(compiler, node)
        case ast.MatchSequence():
            return _sequence(compiler, node)
        case ast.MatchMapping():
            return _mapping(compiler, node)
        case ast.MatchAs():
            return _name(compiler, node)
        case ast.MatchOr():
            options = tuple(compile_pattern(compiler, option) for option in node.patterns)
            return lambda frame, value: any(fits(frame, value) for fits in options)
        case _:
            return refuse(node, "This pattern is not supported. Use an `if`.")


def _value(compiler: Scoped, node: ast.MatchValue) -> Fits:
    wanted, machine = compiler.expression(node.value), compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        is_equal, mark = machine.truth(compare(machine, ast.Eq, value, wanted(frame)))
        machine.decided(mark)  # what is bound from here on depends on it
        return is_equal

    return run


def _singleton(compiler: Scoped, node: ast.MatchSingleton) -> Fits:
    machine = compiler.machine

    def run(_: Frame | None, value: Value) -> bool:
        machine.decided(box_mark(value))
        return strip(value) is node.value

    return run


def _binding(compiler: Scoped, name: str | None) -> Store | None:
    return None if name is None else compiler.store(name, in_expression=True)


def _name(compiler: Scoped, node: ast.MatchAs) -> Fits:
    fits = compile_pattern(compiler, node.pattern) if node.pattern is not None else None
    store = _binding(compiler, node.name)

    def run(frame: Frame | None, value: Value) -> bool:
        if fits is not None and not fits(frame, value):
            return False
        if store is not None:
            store(frame, value)
        return True

    return run


def _sequence(compiler: Scoped, node: ast.MatchSequence) -> Fits:
    star = next((i for i, p in enumerate(node.patterns) if isinstance(p, ast.MatchStar)), None)
    parts = tuple(
        _star(compiler, pattern)
        if isinstance(pattern, ast.MatchStar)
        else compile_pattern(compiler, pattern)
        for pattern in node.patterns
    )
    least = len(parts) - (star is not None)
    machine = compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        inner, mark = take(value)
        machine.decided(mark)
        if type(inner) not in (ListValue, tuple, range):
            return False
        if len(inner) < least or (star is None and len(inner) != least):
            return False
        machine.make_items(len(inner))
        items = list(inner)
        if star is not None:
            end = len(items) - (least - star)
            items[star:end] = [ListValue(items[star:end])]
        return all(fits(frame, item) for fits, item in zip(parts, items, strict=True))

    return run


def _star(compiler: Scoped, node: ast.MatchStar) -> Fits:
    store = _binding(compiler, node.name)

    def run(frame: Frame | None, value: Value) -> bool:
        if store is not None:
            store(frame, value)
        return True

    return run


def _mapping(compiler: Scoped, node: ast.MatchMapping) -> Fits:
    keys = tuple(map(compiler.expression, node.keys))
    parts = tuple(compile_pattern(compiler, pattern) for pattern in node.patterns)
    store = _binding(compiler, node.rest)
    machine = compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        inner, mark = take(value)
        machine.decided(mark)
        if type(inner) is not DictValue:
            return False
        wanted, keys_mark = hashable(machine, [key(frame) for key in keys])
        machine.decided(keys_mark)
        if any(key not in inner for key in wanted):
            return False
        pairs = zip(parts, wanted, strict=True)
        if not all(fits(frame, inner[key]) for fits, key in pairs):
            return False
        if store is not None:
            machine.make_items(len(inner), 100)
            named = set(wanted)
            rest = {key: item for key, item in inner.items() if key not in named}
            store(frame, DictValue(rest))
        return True

    return run


BREAK, CONTINUE, RETURN = Signal(), Signal(), Signal()


class Statements(Trying):
    """Compiles the statements of one scope; see `Expressions` for what it is given."""

    def statement(self, node: ast.stmt) -> Step:
        """Compile any statement."""
        return STATEMENTS[type(node)](self, node)

    def block(self, nodes: Sequence[ast.stmt]) -> Step:
        """Compile statements that follow each other."""
        machine = self.machine
        steps = tuple((node.lineno, weight(node), self.statement(node)) for node in nodes)

        def run(frame: Frame | None) -> Signal | None:
            for line, price, step in steps:
                machine.line = line
                machine.fuel -= price
                if machine.fuel < 0:
                    machine.refuel()
                signal = step(frame)
                if signal is not None:
                    return signal
            return None

        return run

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
            machine.may_fail(mark)
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

    def labelling(self, name: str) -> Callable[[Frame | None, Mark], None]:
        """Add labels to what a variable holds, if it holds something."""
        names, place, store = self.machine.names, find(self.scope, name), self.store(name)
        depth, slot = place or (0, 0)

        def label(frame: Frame | None, mark: Mark) -> None:
            outer = frame
            for _ in range(depth):
                outer = outer[0]  # type: ignore[index]
            value = names.get(name, UNBOUND) if place is None else outer[slot]  # type: ignore[index]
            if value is not UNBOUND:
                store(frame, tag(value, mark))

        return label

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
            return self.branching(node, lambda frame: (body if test(frame) else otherwise)(frame))

        def run(frame: Frame | None) -> Signal | None:
            for test, body in pairs:
                if test(frame):
                    return body(frame)
            return otherwise(frame)

        return self.branching(node, run)

    def _while(self, node: ast.While) -> Step:
        test, body = self.test(node.test), self.block(node.body)
        otherwise = self.block(node.orelse)

        def run(frame: Frame | None) -> Signal | None:
            while test(frame):
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    return None if signal is BREAK else signal
            return otherwise(frame)

        return self.branching(node, run)

    def _for(self, node: ast.For) -> Step:
        machine, source = self.machine, self.expression(node.iter)
        store, body = self.assign(node.target), self.block(node.body)
        otherwise = self.block(node.orelse)
        elements = elements_of if machine.is_unwatched else _watched
        names = tuple(dict.fromkeys(bound_names(walk_scope([node.target]))))
        label = tuple(map(self.labelling, names))

        def ended(frame: Frame | None, values: Value) -> None:
            mark = take(values)[1]
            if mark is not None or machine.branch is not None:
                _leave_off(machine, values)
                for one in label:
                    one(frame, mark)

        def run(frame: Frame | None) -> Signal | None:
            values = source(frame)
            for value in elements(machine, values):
                store(frame, value)
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    ended(frame, values)
                    return None if signal is BREAK else signal
            ended(frame, values)
            return otherwise(frame)

        return self.branching(node, run)

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

        def chosen(frame: Frame | None, value: Value) -> Step | None:
            before = machine.branch
            try:
                for fits, guard, body in cases:
                    if fits(frame, value) and (guard is None or guard(frame)):
                        return body
                return None
            finally:
                if not machine.is_strict:
                    machine.leave(before)

        def run(frame: Frame | None) -> Signal | None:
            value = subject(frame)
            machine.looked(machine.bare(value)[1])
            body = chosen(frame, value)
            return None if body is None else body(frame)

        return self.branching(node, run)

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
    for value in elements_of(machine, values):
        mark = take(values)[1]
        if mark is not seen:
            seen = mark
            machine.looked(mark)
        yield value
    machine.looked(take(values)[1])


def _leave_off(machine: Machine, values: Value) -> None:
    inner = strip(values)
    if type(inner) is IteratorValue:
        machine.mark(inner, None)  # where it is now depends on what ended the loop


def _store_all(pairs: list[tuple[Store, Value]]) -> Step:
    def run(frame: Frame | None) -> None:
        for store, value in pairs:
            store(frame, value)

    return run


STATEMENTS: dict[type[ast.stmt], Callable[[Any, Any], Step]] = {
    ast.AnnAssign: lambda self, node: self._annotated(node),
    ast.Assert: lambda self, node: self.asserting(node),
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
    ast.Raise: lambda self, node: self.raising(node),
    ast.Return: lambda self, node: self._return(node),
    ast.Try: lambda self, node: self.attempt(node),
    ast.While: lambda self, node: self._while(node),
}
