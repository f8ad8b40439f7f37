"""`try`, `raise` and `assert`: exceptions of the program, and what none of them may hold up."""

import ast
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from langchain_sequrity.local.interpreter.builtins import ERRORS, is_error
from langchain_sequrity.local.interpreter.calls import make_error
from langchain_sequrity.local.interpreter.expressions import Expressions
from langchain_sequrity.local.interpreter.faults import Raised
from langchain_sequrity.local.interpreter.operators import (
    from_python,
)
from langchain_sequrity.local.interpreter.scopes import Frame
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    ErrorValue,
    strip,
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

    def branching(self, run: Step) -> Step:
        """In mode `strict`, end with a statement the branch that it opened."""
        machine = self.machine
        return self.restoring(run) if machine.is_strict else run

    def attempt(self, node: ast.Try) -> Step:
        """Compile `try`."""
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
            name = "depth" if isinstance(exception, RecursionError) else "memory"
            self.machine.exhaust(name, getattr(self.machine.limits, name))
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
                if type(strip(error.cause)) not in (ErrorValue, ErrorType, type(None)):
                    machine.fail(TypeError, "exception causes must derive from BaseException", mark)
            machine.mark(error, mark)
            raise Raised(error)

        return run

    def asserting(self, node: ast.Assert) -> Step:
        """Compile `assert`."""
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


def _ignore(*_: Any) -> None:
    """Nothing to bind."""
