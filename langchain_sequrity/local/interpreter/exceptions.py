"""`try`, `raise` and `assert`: exceptions of the program, and what none of them may hold up."""

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from langchain_sequrity.local.interpreter.builtins import ERRORS, is_error
from langchain_sequrity.local.interpreter.calls import make_error
from langchain_sequrity.local.interpreter.expressions import Expressions
from langchain_sequrity.local.interpreter.faults import Raised
from langchain_sequrity.local.interpreter.scopes import Frame, find
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    ErrorValue,
    join,
    take,
)


class Signal:
    """How a statement ended, if not normally."""


Step = Callable[[Frame | None], Signal | None]


class Trying(Expressions):
    """Compiles the statements that raise and catch."""

    def block(self, nodes: Sequence[ast.stmt]) -> Step:
        """Compile statements that follow each other."""
        raise NotImplementedError

    def unbind(self, name: str) -> Callable[[Frame | None], None]:
        """Take a variable's value away."""
        raise NotImplementedError

    def branching(self, node: ast.stmt, run: Step) -> Step:
        """In mode `strict`, end with a statement the branch that it opened.

        One that may jump out of it (`return`, `raise`, `break`, `continue`) leaves the branch open:
        what comes next is only reached where it did not jump. What it jumps to ends the branch.
        """
        machine = self.machine
        if not machine.is_strict or jumps_out(node):
            return run

        def leaving(frame: Frame | None) -> Signal | None:
            before = machine.branch
            try:
                return run(frame)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
                raise machine.labelled(error, None) from None
            finally:
                machine.leave(before)

        return leaving

    def attempt(self, node: ast.Try) -> Step:
        """Compile `try`."""
        body, otherwise, machine = self.block(node.body), self.block(node.orelse), self.machine
        may_catch = self._may_catch(node)
        if may_catch:
            body = self._trying(body)
        handlers = tuple(map(self._handler, node.handlers))
        caught = self._caught

        def run(frame: Frame | None) -> Signal | None:
            before, machine.attempted = machine.attempted, None
            try:
                signal = body(frame)
            except Exception as exception:  # noqa: BLE001 - what an operation raised is the program's
                error = caught(exception)
                if may_catch:
                    machine.mark(error, machine.attempted)
                return self._handle(frame, handlers, error)
            finally:
                machine.attempted = join(before, machine.attempted)
            return signal if signal is not None else otherwise(frame)

        whole = self._with_finally(run, node.finalbody) if node.finalbody else run
        return self.branching(node, whole)

    def _may_catch(self, node: ast.Try) -> bool:
        """Whether a statement may catch what an operation raises.

        `ToolError` comes from tools, and from `raise`, which labels the exception itself.
        """
        is_own = "ToolError" in self.bound or find(self.scope, "ToolError") is not None
        of_tools = not is_own and all(
            isinstance(handler.type, ast.Name) and handler.type.id == "ToolError"
            for handler in node.handlers
        )
        return not of_tools or any(map(jumps_out, node.finalbody))

    def _trying(self, body: Step) -> Step:
        machine = self.machine

        def run(frame: Frame | None) -> Signal | None:
            machine.trying += 1
            try:
                return body(frame)
            finally:
                machine.trying -= 1

        return run

    def _caught(self, exception: Exception) -> ErrorValue:
        """The program's view of an exception; exhausting Python's stack or memory is the end."""
        if isinstance(exception, Raised):
            error: ErrorValue = exception.error
            return error
        if isinstance(exception, RecursionError | MemoryError):
            name = "depth" if isinstance(exception, RecursionError) else "memory"
            self.machine.exhaust(name, getattr(self.machine.limits, name))
        return self.machine.from_python(exception, self.machine.branch)

    def _handle(
        self, frame: Frame | None, handlers: tuple[Any, ...], error: ErrorValue
    ) -> Signal | None:
        machine = self.machine
        machine.looked(machine.bare(error)[1])
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
            wanted, mark = machine.bare(kinds(frame))
            machine.looked(mark)
            for one in wanted if isinstance(wanted, tuple) else (wanted,):
                if type(one) is not ErrorType:
                    message = "catching classes that do not inherit from BaseException"
                    machine.fail(TypeError, message, mark)
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

    def raising(self, node: ast.Raise) -> Step:
        """Compile `raise`."""
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
                inner, inner_mark = take(error.cause)
                if type(inner) not in (ErrorValue, ErrorType, type(None)):
                    message = "exception causes must derive from BaseException"
                    machine.fail(TypeError, message, inner_mark)
            machine.mark(error, mark)
            raise Raised(error)

        return run

    def asserting(self, node: ast.Assert) -> Step:
        """Compile `assert`."""
        test, machine = self.expression(node.test), self.machine
        message = self.expression(node.msg) if node.msg is not None else None

        def run(frame: Frame | None) -> Signal | None:
            is_true, mark = machine.truth(test(frame))
            machine.looked(mark)
            if not is_true:
                args = () if message is None else (message(frame),)
                mark = join(mark, machine.branch)
                raise Raised(ErrorValue(ERRORS["AssertionError"], args, mark))
            return None

        return self.branching(node, run)


_LOOP_JUMPS = (ast.Break, ast.Continue)
_RAISES = (ast.Raise, ast.Assert)
_Jumps = tuple[type[ast.stmt], ...]


def jumps_out(node: ast.stmt) -> bool:
    """Whether a statement may end by a jump to somewhere outside of it."""
    waiting: list[tuple[ast.stmt, _Jumps]] = [(node, (ast.Return, *_LOOP_JUMPS, *_RAISES))]
    while waiting:
        one, jumps = waiting.pop()
        if isinstance(one, jumps):
            return True
        waiting += [(child, left) for left, block in _blocks(one, jumps) for child in block]
    return False


def _blocks(node: ast.stmt, jumps: _Jumps) -> Iterator[tuple[_Jumps, Sequence[ast.stmt]]]:
    """The blocks of a statement, each with the jumps that lead out of the statement from there."""
    match node:
        case ast.For() | ast.While():
            yield tuple(kind for kind in jumps if kind not in _LOOP_JUMPS), node.body
            yield jumps, node.orelse
        case ast.Try():
            caught = _RAISES if node.handlers else ()
            yield tuple(kind for kind in jumps if kind not in caught), node.body
            yield jumps, [*node.orelse, *node.finalbody]
            yield from ((jumps, handler.body) for handler in node.handlers)
        case ast.If():
            yield jumps, [*node.body, *node.orelse]
        case ast.Match():
            yield from ((jumps, case.body) for case in node.cases)
        case _:
            pass


def _ignore(*_: Any) -> None:
    """Nothing to bind."""
