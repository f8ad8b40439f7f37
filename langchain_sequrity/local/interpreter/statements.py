"""Statements: each is compiled once to a function of the frame that returns how it ended.

`None` is the normal end; `BREAK`, `CONTINUE` and `RETURN` are the others. The returned value itself
waits on the machine. A pattern of `match` is compiled to a function that tests a value and binds
names. Everything that a pattern looks at is a decision, whose labels the bound names take.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from langchain_sequrity.local.interpreter.builtins import ERRORS, is_error
from langchain_sequrity.local.interpreter.calls import MISSING, attribute, make_error
from langchain_sequrity.local.interpreter.classes import class_statement
from langchain_sequrity.local.interpreter.containers import (
    del_item,
    get_item,
    hashable,
    in_place,
    make_list,
    set_field,
    set_item,
)
from langchain_sequrity.local.interpreter.expressions import ExpressionCompiler
from langchain_sequrity.local.interpreter.faults import Raised
from langchain_sequrity.local.interpreter.functions import compile_function
from langchain_sequrity.local.interpreter.iteration import collect, elements_of
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.modules import MODULES, Module
from langchain_sequrity.local.interpreter.operators import SYMBOLS, compare, fast_binary
from langchain_sequrity.local.interpreter.scopes import (
    Code,
    Frame,
    Store,
    blocks,
    bound_names,
    minimum_steps,
    walk_scope,
)
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ErrorType,
    ErrorValue,
    IteratorValue,
    ListValue,
    Value,
    add_labels,
    box_mark,
    join_labels,
    split_labels,
    unbox,
)


class Completion:
    """How a statement ended, if not normally: by `break`, `continue` or `return`."""


CompiledStatement = Callable[[Frame | None], Completion | None]
Fits = Callable[[Frame | None, Value], bool]
"""A compiled pattern: tests a value, and binds the pattern's names."""
BREAK, CONTINUE, RETURN = Completion(), Completion(), Completion()


class StatementCompiler(ExpressionCompiler):
    """Compiles the statements of one scope; see `ScopeCompiler` for the arguments."""

    def block(self, nodes: Sequence[ast.stmt]) -> CompiledStatement:
        """Compile a sequence of statements."""
        machine = self.machine
        steps = tuple((node.lineno, minimum_steps(node), self.visit(node)) for node in nodes)

        def run(frame: Frame | None) -> Completion | None:
            for line, price, step in steps:
                machine.line = line
                machine.fuel -= price
                if machine.fuel < 0:
                    machine.refuel()
                signal: Completion | None = step(frame)
                if signal is not None:
                    return signal
            return None

        return run

    # -- assignments

    def assign(self, target: ast.expr) -> Store:
        """Compile the target of an assignment."""
        match target:
            case ast.Name():
                return self.store(target.id)
            case ast.Subscript() | ast.Attribute():
                parts, _, write = self._item_or_field(target)
                machine = self.machine
                return lambda frame, value: write(machine, *parts(frame), value)
            case ast.Tuple() | ast.List():
                return self._unpack(target.elts)
            case _:
                return refuse(target, "This cannot be assigned to.")

    def _item_or_field(self, target: ast.Subscript | ast.Attribute) -> tuple[Any, Any, Any]:
        """Compile an item or a field to its container and key, and functions for its value."""
        container = self.expression(target.value)
        if isinstance(target, ast.Attribute):
            name = target.attr
            return (lambda frame: (container(frame), name)), attribute, set_field
        key = self.expression(target.slice)
        return (lambda frame: (container(frame), key(frame))), get_item, set_item

    def _unpack(self, targets: list[ast.expr]) -> Store:
        machine = self.machine
        stars = [index for index, target in enumerate(targets) if isinstance(target, ast.Starred)]
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
            items = [add_labels(item, mark) for item in items]
            if starred is not None and len(items) >= len(stores) - 1:
                end = len(items) - after
                middle = make_list(items[starred:end], mark)
                items[starred:end] = [middle]
            if len(items) != len(stores):
                message = f"cannot unpack {len(items)} values into {len(stores)}"
                machine.fail(ValueError, message, mark)
            for bind, item in zip(stores, items, strict=True):
                bind(frame, item)

        return store

    def visit_Assign(self, node: ast.Assign) -> CompiledStatement:
        value, targets = self.expression(node.value), tuple(map(self.assign, node.targets))
        if len(targets) == 1:
            only = targets[0]
            return lambda frame: only(frame, value(frame))

        def run(frame: Frame | None) -> None:
            result = value(frame)
            for store in targets:
                store(frame, result)

        return run

    def visit_AnnAssign(self, node: ast.AnnAssign) -> CompiledStatement:
        # The annotation is never evaluated.
        if node.value is None:
            return lambda _: None
        return self.visit_Assign(ast.Assign([node.target], node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> CompiledStatement:
        machine, target = self.machine, node.target
        symbol = SYMBOLS.get(type(node.op)) or refuse(node, "This operator is not supported.")
        value = self.expression(node.value)
        if isinstance(target, ast.Subscript | ast.Attribute):
            parts, read, write = self._item_or_field(target)

            def part(frame: Frame | None) -> None:
                location = parts(frame)
                old = read(machine, *location)
                write(machine, *location, in_place(machine, symbol, old, value(frame)))

            return part
        load, store = self.load(target.id), self.store(target.id)
        apply = fast_binary(machine, symbol)

        def variable(frame: Frame | None) -> None:
            old, operand = load(frame), value(frame)
            if type(old) is int:
                store(frame, apply(old, operand))
            else:
                store(frame, in_place(machine, symbol, old, operand))

        return variable

    def visit_Delete(self, node: ast.Delete) -> CompiledStatement:
        return _in_sequence(map(self._delete_target, node.targets))

    def _delete_target(self, target: ast.expr) -> Callable[[Frame | None], None]:
        machine = self.machine
        match target:
            case ast.Name():
                return self.unbind(target.id)
            case ast.Subscript():
                container, key = self.expression(target.value), self.expression(target.slice)
                return lambda frame: del_item(machine, container(frame), key(frame))
            case _:
                return refuse(target, "Only variables and items can be deleted.")

    # -- branches and loops

    def visit_If(self, node: ast.If) -> CompiledStatement:
        # A chain of `elif` is compiled flat, so that a long one does not need a deep stack.
        pairs = []
        orelse: list[ast.stmt] = [node]
        while len(orelse) == 1 and isinstance(orelse[0], ast.If):
            pairs.append((self.test(orelse[0].test), self.block(orelse[0].body)))
            orelse = orelse[0].orelse
        otherwise = self.block(orelse)

        def run(frame: Frame | None) -> Completion | None:
            for test, body in pairs:
                if test(frame):
                    return body(frame)
            return otherwise(frame)

        return self.close_branches_after(node, run)

    def visit_While(self, node: ast.While) -> CompiledStatement:
        test, body = self.test(node.test), self.block(node.body)
        otherwise = self.block(node.orelse)

        def run(frame: Frame | None) -> Completion | None:
            while test(frame):
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    return None if signal is BREAK else signal
            return otherwise(frame)

        return self.close_branches_after(node, run)

    def visit_For(self, node: ast.For) -> CompiledStatement:
        machine, source = self.machine, self.expression(node.iter)
        store, body = self.assign(node.target), self.block(node.body)
        otherwise = self.block(node.orelse)
        elements = elements_of if machine.ignores_control_flow else _elements_with_branch
        names = tuple(dict.fromkeys(bound_names(walk_scope([node.target]))))
        labelers = tuple(map(self.label_variable, names))

        def label_targets(frame: Frame | None, values: Value) -> None:
            mark = split_labels(values)[1]
            if mark is not None or machine.branch is not None:
                if type(unbox(values)) is IteratorValue:  # its position depends on what ended it
                    machine.label_changed(unbox(values), None)
                for label in labelers:
                    label(frame, mark)

        def run(frame: Frame | None) -> Completion | None:
            values = source(frame)
            for element in elements(machine, values):
                store(frame, element)
                signal = body(frame)
                if signal is not None and signal is not CONTINUE:
                    label_targets(frame, values)
                    return None if signal is BREAK else signal
            label_targets(frame, values)
            return otherwise(frame)

        return self.close_branches_after(node, run)

    def visit_Match(self, node: ast.Match) -> CompiledStatement:
        subject, machine = self.expression(node.subject), self.machine
        cases = tuple(
            (
                self.visit(case.pattern),
                self.test(case.guard) if case.guard is not None else None,
                self.block(case.body),
            )
            for case in node.cases
        )

        def chosen(frame: Frame | None, value: Value) -> CompiledStatement | None:
            before = machine.branch
            try:
                for fits, guard, body in cases:
                    if fits(frame, value) and (guard is None or guard(frame)):
                        return body
                return None
            finally:
                if not machine.is_strict:
                    machine.close_branches(before)

        def run(frame: Frame | None) -> Completion | None:
            value = subject(frame)
            machine.open_branch(machine.strip_labels(value)[1])
            body = chosen(frame, value)
            return None if body is None else body(frame)

        return self.close_branches_after(node, run)

    # -- functions, classes, imports and the rest

    def visit_FunctionDef(self, node: ast.FunctionDef) -> CompiledStatement:
        make, store = compile_function(self, node), self.store(node.name)
        return lambda frame: store(frame, make(frame))

    def visit_Return(self, node: ast.Return) -> CompiledStatement:
        machine = self.machine
        value = self.expression(node.value) if node.value is not None else None

        def run(frame: Frame | None) -> Completion:
            result = None if value is None else value(frame)
            machine.returned = (
                result if machine.branch is None else add_labels(result, machine.branch)
            )
            return RETURN

        return run

    def visit_ClassDef(self, node: ast.ClassDef) -> CompiledStatement:
        make, store = class_statement(self, node), self.store(node.name)
        return lambda frame: store(frame, make(frame))

    def visit_Import(self, node: ast.Import) -> CompiledStatement:
        return self._import(node.names, lambda name: Module(name, MODULES[name]))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> CompiledStatement:
        return self._import(node.names, MODULES[node.module or ""].__getitem__)

    def _import(self, aliases: list[ast.alias], load: Callable[[str], Value]) -> CompiledStatement:
        pairs = [(self.store(alias.asname or alias.name), load(alias.name)) for alias in aliases]

        def run(frame: Frame | None) -> None:
            for store, value in pairs:
                store(frame, value)

        return run

    def visit_Pass(self, node: ast.Pass | ast.Global | ast.Nonlocal) -> CompiledStatement:
        del node
        return lambda _: None

    visit_Global = visit_Nonlocal = visit_Pass

    def visit_Break(self, _: ast.Break) -> CompiledStatement:
        return lambda _: BREAK

    def visit_Continue(self, _: ast.Continue) -> CompiledStatement:
        return lambda _: CONTINUE

    def visit_Expr(self, node: ast.Expr) -> CompiledStatement:
        return _in_sequence([self.expression(node.value)])

    # -- patterns

    def visit_MatchValue(self, node: ast.MatchValue) -> Fits:
        expected, machine = self.expression(node.value), self.machine

        def run(frame: Frame | None, value: Value) -> bool:
            is_equal, mark = machine.truth(compare(machine, ast.Eq, value, expected(frame)))
            machine.open_choice(mark)  # what is bound from here on depends on it
            return is_equal

        return run

    def visit_MatchSingleton(self, node: ast.MatchSingleton) -> Fits:
        machine = self.machine

        def run(_: Frame | None, value: Value) -> bool:
            machine.open_choice(box_mark(value))
            return unbox(value) is node.value

        return run

    def _binding(self, name: str | None) -> Store:
        return _ignore if name is None else self.store(name, in_expression=True)

    def visit_MatchAs(self, node: ast.MatchAs) -> Fits:
        fits = self.visit(node.pattern) if node.pattern is not None else None
        store = self._binding(node.name)

        def run(frame: Frame | None, value: Value) -> bool:
            if fits is not None and not fits(frame, value):
                return False
            store(frame, value)
            return True

        return run

    def visit_MatchStar(self, node: ast.MatchStar) -> Fits:
        return self.visit_MatchAs(ast.MatchAs(name=node.name))

    def visit_MatchSequence(self, node: ast.MatchSequence) -> Fits:
        star = next((i for i, p in enumerate(node.patterns) if isinstance(p, ast.MatchStar)), None)
        parts = tuple(map(self.visit, node.patterns))
        least = len(parts) - (star is not None)
        machine = self.machine

        def run(frame: Frame | None, value: Value) -> bool:
            inner, mark = split_labels(value)
            machine.open_choice(mark)
            if type(inner) not in (ListValue, tuple, range):
                return False
            if len(inner) < least or (star is None and len(inner) != least):
                return False
            machine.pay_items(len(inner))
            items = list(inner)
            if star is not None:
                end = len(items) - (least - star)
                items[star:end] = [ListValue(items[star:end])]
            return all(fits(frame, item) for fits, item in zip(parts, items, strict=True))

        return run

    def visit_MatchMapping(self, node: ast.MatchMapping) -> Fits:
        keys = tuple(map(self.expression, node.keys))
        parts = tuple(map(self.visit, node.patterns))
        store = self._binding(node.rest)
        machine = self.machine

        def run(frame: Frame | None, value: Value) -> bool:
            inner, mark = split_labels(value)
            machine.open_choice(mark)
            if type(inner) is not DictValue:
                return False
            bare_keys, keys_mark = hashable(machine, [key(frame) for key in keys])
            machine.open_choice(keys_mark)
            if any(key not in inner for key in bare_keys):
                return False
            if not all(fits(frame, inner[key]) for fits, key in zip(parts, bare_keys, strict=True)):
                return False
            if node.rest is not None:
                machine.pay_items(len(inner), 100)
                excluded = set(bare_keys)
                store(frame, DictValue(kv for kv in inner.items() if kv[0] not in excluded))
            return True

        return run

    def visit_MatchOr(self, node: ast.MatchOr) -> Fits:
        options = tuple(map(self.visit, node.patterns))
        return lambda frame, value: any(fits(frame, value) for fits in options)

    # -- exceptions

    def close_branches_after(self, node: ast.stmt, run: CompiledStatement) -> CompiledStatement:
        """In strict mode, close the branches that a statement opened when it ends.

        A statement that may jump out (`return`, `raise`, `break`, `continue`) leaves them open: the
        next statement only runs if it did not jump. The target of the jump closes the branches.
        """
        machine = self.machine
        if not machine.is_strict or jumps_out(node):
            return run

        def run_and_close(frame: Frame | None) -> Completion | None:
            before = machine.branch
            try:
                return run(frame)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_labelled_error(error, None) from None
            finally:
                machine.close_branches(before)

        return run_and_close

    def visit_Try(self, node: ast.Try) -> CompiledStatement:
        body, otherwise, machine = self.block(node.body), self.block(node.orelse), self.machine
        may_catch = self._may_catch(node)
        handlers = tuple(map(self._handler, node.handlers))

        def run(frame: Frame | None) -> Completion | None:
            before, machine.try_labels = machine.try_labels, None
            machine.open_tries += may_catch
            try:
                try:
                    signal = body(frame)
                finally:
                    machine.open_tries -= may_catch
            except Exception as exception:  # noqa: BLE001 - what an operation raised is the program's
                error = machine.as_error_value(exception)
                if may_catch:
                    machine.label_changed(error, machine.try_labels)
                return self._handle(frame, handlers, error)
            finally:
                machine.try_labels = join_labels(before, machine.try_labels)
            return signal if signal is not None else otherwise(frame)

        with_finally = self._with_finally(run, node.finalbody) if node.finalbody else run
        return self.close_branches_after(node, with_finally)

    def _may_catch(self, node: ast.Try) -> bool:
        """Whether a statement may catch an exception of an operation.

        `ToolError` comes only from tools, and from `raise`, which labels the exception itself.
        """
        only_tool_errors = not self.is_bound("ToolError") and all(
            isinstance(handler.type, ast.Name) and handler.type.id == "ToolError"
            for handler in node.handlers
        )
        return not only_tool_errors or any(map(jumps_out, node.finalbody))

    def _handle(
        self, frame: Frame | None, handlers: tuple[Any, ...], error: ErrorValue
    ) -> Completion | None:
        machine = self.machine
        machine.open_branch(machine.strip_labels(error)[1])
        for fits, bind, forget, body in handlers:
            if not fits(frame, error):
                continue
            before, machine.handled = machine.handled, error
            bind(frame, error)
            try:
                signal: Completion | None = body(frame)
                return signal
            finally:
                machine.handled = before
                forget(frame, MISSING)
        raise Raised(error)

    def _handler(self, node: ast.ExceptHandler) -> tuple[Any, ...]:
        machine = self.machine
        types = self.expression(node.type) if node.type is not None else None
        bind = self.store(node.name) if node.name else _ignore
        forget = self.set_variable(node.name) if node.name else _ignore

        def fits(frame: Frame | None, error: ErrorValue) -> bool:
            if types is None:
                return True
            expected, mark = machine.strip_labels(types(frame))
            machine.open_branch(mark)
            for error_type in expected if isinstance(expected, tuple) else (expected,):
                if type(error_type) is not ErrorType:
                    message = "catching classes that do not inherit from BaseException"
                    machine.fail(TypeError, message, mark)
                if is_error(error.type, error_type):
                    return True
            return False

        return fits, bind, forget, self.block(node.body)

    def _with_finally(self, body: CompiledStatement, nodes: list[ast.stmt]) -> CompiledStatement:
        finish, machine = self.block(nodes), self.machine

        def run(frame: Frame | None) -> Completion | None:
            error = signal = None
            try:
                signal = body(frame)
            except Exception as exception:  # noqa: BLE001 - an `Abort` runs no `finally`
                error = machine.as_error_value(exception)
            line, returned = machine.line, machine.returned
            last_signal = finish(frame)
            if last_signal is not None:
                return last_signal
            machine.line, machine.returned = line, returned
            if error is not None:
                raise Raised(error)
            return signal

        return run

    def visit_Raise(self, node: ast.Raise) -> CompiledStatement:
        machine = self.machine
        value = self.expression(node.exc) if node.exc is not None else None
        cause = self.expression(node.cause) if node.cause is not None else None

        def run(frame: Frame | None) -> Completion | None:
            if value is None:
                if machine.handled is None:
                    machine.fail(RuntimeError, "No active exception to reraise")
                raise Raised(machine.handled)
            error, mark = split_labels(value(frame))
            if type(error) is ErrorType:
                error = make_error(machine, error, [], {})
            if type(error) is not ErrorValue:
                machine.fail(TypeError, "exceptions must derive from BaseException", mark)
            if cause is not None:
                cause(frame)
            machine.label_changed(error, mark)
            error.by_interpreter = False
            raise Raised(error)

        return run

    def visit_Assert(self, node: ast.Assert) -> CompiledStatement:
        test, machine = self.expression(node.test), self.machine
        message = self.expression(node.msg) if node.msg is not None else None

        def run(frame: Frame | None) -> Completion | None:
            is_true, mark = machine.truth(test(frame))
            machine.open_branch(mark)
            if not is_true:
                args = () if message is None else (message(frame),)
                mark = join_labels(mark, machine.branch)
                raise Raised(ErrorValue(ERRORS["AssertionError"], args, mark))
            return None

        return self.close_branches_after(node, run)


def _elements_with_branch(machine: Machine, values: Value) -> Iterator[Value]:
    """Iterate, and check the branch again whenever a lazy source has read new labels."""
    previous = split_labels(values)[1]
    machine.open_branch(previous)
    for value in elements_of(machine, values):
        mark = split_labels(values)[1]
        if mark is not previous:
            previous = mark
            machine.open_branch(mark)
        yield value
    machine.open_branch(split_labels(values)[1])


def _in_sequence(steps: Iterable[Code]) -> CompiledStatement:
    """One step that makes several."""
    steps = tuple(steps)

    def run(frame: Frame | None) -> None:
        for step in steps:
            step(frame)

    return run


_LOOP_JUMPS = (ast.Break, ast.Continue)
_RAISES = (ast.Raise, ast.Assert)
_Jumps = tuple[type[ast.stmt], ...]


def jumps_out(node: ast.stmt) -> bool:
    """Whether a statement may jump to a place outside of it."""
    pending: list[tuple[ast.AST, _Jumps]] = [(node, (ast.Return, *_LOOP_JUMPS, *_RAISES))]
    while pending:
        current, jumps = pending.pop()
        if isinstance(current, jumps):
            return True
        if isinstance(current, ast.FunctionDef):
            continue
        for field, block in blocks(current):
            absorbed: _Jumps = ()
            if field == "body" and isinstance(current, ast.For | ast.While):
                absorbed = _LOOP_JUMPS
            elif field == "body" and isinstance(current, ast.Try) and current.handlers:
                absorbed = _RAISES
            remaining = tuple(jump for jump in jumps if jump not in absorbed)
            pending += [(child, remaining) for child in block]
    return False


def _ignore(*_: Any) -> None:
    """Bind no name."""
