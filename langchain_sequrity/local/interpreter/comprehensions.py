"""Comprehensions: nested loops that give an iterator; its labels grow with what filters see."""

import ast
from collections.abc import Callable, Iterator
from typing import Any

from langchain_sequrity.local.interpreter.containers import make_list, make_set, store_key
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import (
    collect,
    iterate,
)
from langchain_sequrity.local.interpreter.scoped import Code, Scoped
from langchain_sequrity.local.interpreter.scopes import (
    Frame,
    comprehension_scope,
)
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    IteratorValue,
    Mark,
    Value,
    join,
    take,
)


class Comprehensions(Scoped):
    """Compiles comprehensions and generator expressions."""

    def _iterator(self, generators: list[ast.comprehension], element: Any) -> Code:
        """Compile to something that gives an iterator; `element` compiles what it yields."""
        first = self.expression(generators[0].iter)
        scope = comprehension_scope(generators, self.scope)
        within = self.inner(scope)
        produce = within.loops(generators, element(within))

        def run(frame: Frame | None) -> IteratorValue:
            source = first(frame)
            result = IteratorValue(iter(()), take(source)[1])
            result.source = produce(scope.frame(frame), result, source)
            return result

        return run

    def loops(self, generators: list[ast.comprehension], element: Code) -> Any:
        """Nest the loops of a comprehension, the last one innermost."""
        produce: Any = None
        for generator in reversed(generators):
            source = None if generator is generators[0] else self.expression(generator.iter)
            produce = self._loop(generator, source, produce, element)
        return produce

    def _loop(
        self, generator: ast.comprehension, source: Code | None, nested: Any, element: Code
    ) -> Any:
        if generator.is_async:
            refuse(generator.iter, "`async` is not supported. Use a plain `for`.")
        machine = self.machine
        assign = self.assign(generator.target)
        strictly = _under(machine, element) if machine.is_strict else None
        conditions = tuple(map(self.expression, generator.ifs))

        def holds(frame: Frame, result: IteratorValue) -> bool:
            for condition in conditions:
                value, mark = take(condition(frame))
                machine.steer(mark)
                result.labels = join(result.labels, mark)
                if not value:
                    return False
            return True

        def produce(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
            values = given if source is None else source(frame)
            result.labels = join(result.labels, take(values)[1])
            for value in iterate(machine, values):
                machine.fuel -= 1
                if machine.fuel < 0:
                    machine.refuel()
                assign(frame, value)
                if conditions and not holds(frame, result):
                    continue
                if nested is None:
                    yield element(frame) if strictly is None else strictly(frame, result.labels)
                else:
                    yield from nested(frame, result, None)
            result.labels = join(result.labels, take(values)[1])

        return produce

    def list_comprehension(self, node: ast.ListComp) -> Code:
        """`[…]`."""
        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_list(*collect(machine, produce(frame)))

    def set_comprehension(self, node: ast.SetComp) -> Code:
        """`{…}`."""
        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_set(machine, *collect(machine, produce(frame)))

    def generator(self, node: ast.GeneratorExp) -> Code:
        """`(…)`."""
        return self._one_element(node)

    def _one_element(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Code:
        return self._iterator(node.generators, lambda within: within.expression(node.elt))

    def dict_comprehension(self, node: ast.DictComp) -> Code:
        """`{key: …}`."""
        machine = self.machine

        def pair(within: "Comprehensions") -> Code:
            key, value = within.expression(node.key), within.expression(node.value)
            return lambda frame: (key(frame), value(frame))

        produce = self._iterator(node.generators, pair)

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            pairs = produce(frame)
            for key, value in pairs.source:
                store_key(machine, result, None, key, value)
            machine.mark(result, pairs.labels)
            return result

        return run


def _under(machine: Machine, element: Code) -> Callable[[Frame | None, Mark], Value]:
    """Evaluate an element of a comprehension under the labels of what let it through."""

    def run(frame: Frame | None, mark: Mark) -> Value:
        before, machine.branch = machine.branch, join(machine.branch, mark)
        try:
            return element(frame)
        finally:
            machine.branch = before

    return run
