"""Comprehensions: nested loops that give an iterator; its labels grow with what filters see."""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from langchain_sequrity.local.interpreter.containers import make_list, make_set, store_key
from langchain_sequrity.local.interpreter.iteration import (
    collect,
    elements_of,
    share_labels,
)
from langchain_sequrity.local.interpreter.machine import ITERATOR_SIZE, Machine
from langchain_sequrity.local.interpreter.scopes import (
    Code,
    Frame,
    LeftOut,
    Scoped,
    but_first_source,
    comprehension_scope,
    weight,
)
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    DictValue,
    Effects,
    IteratorValue,
    Mark,
    Value,
    join,
    strip,
    take,
)

_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


class Comprehensions(Scoped):
    """Compiles comprehensions and generator expressions."""

    def _iterator(self, node: _Comprehension, element: Any) -> Code:
        """Compile to something that gives an iterator; `element` compiles what it yields."""
        generators = node.generators
        first = self.expression(generators[0].iter)
        scope = comprehension_scope(generators, self.scope)
        within = self.inner(scope)
        produce, machine = within.loops(node, element(within)), self.machine
        touched = within.touched(*but_first_source(node))
        size = ITERATOR_SIZE + _SLOT * len(scope.slots)

        def run(frame: Frame | None) -> IteratorValue:
            source = first(frame)
            machine.charge(size)
            result = IteratorValue(iter(()))
            _link(result, source)
            own = scope.frame(frame)
            result.upstream.append(Effects(touched, own))
            result.source = produce(own, result, source)
            return result

        return run

    def loops(self, node: _Comprehension, element: Code) -> Any:
        """Nest the loops of a comprehension, the last one innermost."""
        produce: Any = None
        whole = _Whole(weight(node), self.left_out(*but_first_source(node)))
        for generator in reversed(node.generators):
            is_first = generator is node.generators[0]
            source = None if is_first else self.expression(generator.iter)
            produce = self._loop(generator, source, produce, element, whole)
        return produce

    def _loop(
        self,
        generator: ast.comprehension,
        source: Code | None,
        nested: Any,
        element: Code,
        whole: "_Whole",
    ) -> Any:
        if generator.is_async:
            refuse(generator.iter, "`async` is not supported. Use a plain `for`.")
        machine, price = self.machine, whole.price
        step = self._step(generator, _nothing if nested is not None else element)

        def evaluated(frame: Frame, result: IteratorValue) -> Value:
            values = machine.within(result.labels, lambda: source(frame))  # type: ignore[misc]
            _link(result, values)
            return values

        def rounds(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
            values = given if source is None else evaluated(frame, result)
            inner, mark = take(values)
            carriers = [inner] if type(inner) in CARRIERS else []
            machine.mark(result, mark)
            for value in elements_of(machine, values):
                machine.fuel -= price
                if machine.fuel < 0:
                    machine.refuel()
                if carriers:
                    share_labels(machine, result, carriers)
                item = step(frame, result, value)
                if item is _SKIPPED:
                    continue
                if nested is None:
                    yield item
                else:
                    yield from nested(frame, result, None)
            share_labels(machine, result, carriers)
            machine.steer(result.labels)
            whole.is_over(frame, result.labels)
            if type(inner) is IteratorValue:
                result.upstream.remove(inner)

        return _moving(machine, rounds)

    def _step(self, generator: ast.comprehension, element: Code) -> Any:
        """Compile one round of a loop: the element, or `_SKIPPED` where a condition does not hold.

        What the round does depends on what let it through.
        """
        machine, assign = self.machine, self.assign(generator.target)
        is_watched = not machine.is_unwatched
        conditions = tuple(map(self.expression, generator.ifs))

        def holds(frame: Frame, result: IteratorValue) -> bool:
            for condition in conditions:
                is_true, mark = machine.truth(condition(frame))
                if mark is not None:
                    machine.mark(result, mark)  # where the next element is depends on it
                    machine.branch = join(machine.branch, mark)
                if not is_true:
                    return False
            return True

        def step(frame: Frame, result: IteratorValue, value: Value) -> Value:
            before = machine.branch
            try:
                if is_watched or result.labels is not None:
                    machine.decided(result.labels)
                assign(frame, value)
                return element(frame) if holds(frame, result) else _SKIPPED
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
                raise machine.labelled(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.leave(before)

        return step

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
        return self._iterator(node, lambda within: within.expression(node.elt))

    def dict_comprehension(self, node: ast.DictComp) -> Code:
        """`{key: …}`."""
        machine = self.machine

        def pair(within: "Comprehensions") -> Code:
            key, value = within.expression(node.key), within.expression(node.value)
            return lambda frame: (key(frame), value(frame))

        produce = self._iterator(node, pair)

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            pairs = produce(frame)
            for key, value in pairs.source:  # tuples of the compiler, not of the program
                store_key(machine, result, None, key, value)
            machine.mark(result, pairs.labels)
            return result

        return run


class _Whole(NamedTuple):
    """What the loops of a comprehension have in common.

    Attributes:
        price: Steps of each round.
        left_out: What it means that data decided how often there was one (`Scoped.left_out`).
    """

    price: int
    left_out: LeftOut

    def is_over(self, frame: Frame, mark: Mark) -> None:
        """Say that a loop has come to its end, and what decided when."""
        self.left_out(frame, mark)


def _moving(machine: Machine, rounds: Any) -> Any:
    """The rounds of a loop; an exception that ends them labels how far what they read came."""

    def produce(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
        try:
            yield from rounds(frame, result, given)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
            failure = machine.labelled(error, None)
            machine.moved(result, failure)
            raise failure from None

    return produce


def _link(result: IteratorValue, values: Value) -> None:
    """Whoever moves a comprehension's iterator may move the one that it reads."""
    inner = strip(values)
    if type(inner) is IteratorValue:
        result.upstream.append(inner)


_SKIPPED = object()
_SLOT = 8  # bytes of a variable


def _nothing(_: Frame | None) -> None:
    """What a round gives whose elements come from the loop within it."""
