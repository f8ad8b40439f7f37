"""Iteration: the only way to read elements, with its label rules.

Only this module reads iterators of the program. Each step is paid for, uses the current labels of
the container or iterator, and adds to the iterator the labels of what decided to read on.
"""

from collections.abc import Iterator
from typing import Any

from langchain_sequrity.local.interpreter.machine import ITERATOR_SIZE, Machine
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    ITERABLE,
    IteratorValue,
    Mark,
    Value,
    box_mark,
    changed_by_calls,
    join,
    strip,
    tag,
    take,
    type_name,
)

_LARGE = 1 << 63
_IMMUTABLE = frozenset({str, bytes, tuple, range})


def iterate(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value and pay for each element; see `elements_of`."""
    return _paid(machine, elements_of(machine, value))


def _paid(machine: Machine, elements: Iterator[Value]) -> Iterator[Value]:
    for element in elements:
        machine.work(1)
        yield element


def elements_of(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value, for code that pays for each round itself.

    Each element takes the labels that the value has when the element is read.
    """
    inner, mark = take(value)
    machine.may_fail(mark)
    kind = type(inner)
    if kind in _IMMUTABLE:
        if kind is range and max(abs(inner.start), abs(inner.stop)) >= _LARGE:
            inner = _large(machine, inner)
        return iter(inner) if mark is None else (tag(element, mark) for element in inner)
    if kind is IteratorValue:
        return _read(machine, inner, box_mark(value))
    if kind not in ITERABLE:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not iterable", mark)
    return _live(machine, inner, box_mark(value))


def _large(machine: Machine, numbers: range) -> Iterator[int]:
    for number in numbers:
        machine.make_bits(number.bit_length())
        yield number


def _live(machine: Machine, container: Any, mark: Mark) -> Iterator[Value]:
    """Elements of a container that may change, with its labels, during the iteration."""
    try:
        for element in container:
            labels = container.labels
            yield (element if mark is None and labels is None else tag(element, join(mark, labels)))
    except RuntimeError as error:  # a dict or set changed its size
        raise machine.labelled(error, join(mark, container.labels)) from None


def _read(machine: Machine, iterator: IteratorValue, mark: Mark) -> Iterator[Value]:
    """Elements of an iterator. Reading advances it, so it takes the labels of the open branches."""
    if mark is not None:
        machine.mark(iterator, mark)
    for element in iterator.source:
        if machine.branch is not None:
            machine.mark(iterator, None)
        yield element if iterator.labels is None else tag(element, iterator.labels)
    if machine.branch is not None:
        machine.mark(iterator, None)


def lazy(
    machine: Machine,
    sources: list[Value],
    elements: Iterator[Value],
    mark: Mark = None,
    *,
    calls: Value = None,
) -> IteratorValue:
    """Make an iterator that reads other values.

    Its position, and the position of each source, depends on all of them: they share their labels
    at each step.

    Args:
        machine: The run.
        sources: The values that it reads.
        elements: Reads the sources and gives the elements.
        mark: Labels of other data that decide how far it goes.
        calls: The function of the program that each step calls. The labels decide on these calls.
    """
    machine.charge(ITERATOR_SIZE)
    touched = changed_by_calls(calls)
    carriers = [one for one in touched if type(one) in CARRIERS]
    for source in sources:
        inner, source_mark = take(source)
        mark = join(mark, source_mark)
        if type(inner) in CARRIERS:
            carriers.append(inner)
    upstream = [*(one for one in carriers if type(one) is IteratorValue), *touched]
    result = IteratorValue(iter(()), mark, upstream)
    is_calling = strip(calls) is not None

    def steps() -> Iterator[Value]:
        while True:
            share_labels(machine, result, carriers)
            before = machine.branch
            if is_calling:
                machine.check_branch(result.labels)
            machine.branch = join(before, result.labels)
            try:
                element = next(elements, _END)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.stopped(error, None, result) from None
            finally:
                machine.close_branches(before)
            share_labels(machine, result, carriers)
            if element is _END:
                return
            if type(element) is tuple:
                machine.make_items(len(element), 8)
            yield element

    result.source = steps()
    return result


_END = object()


def share_labels(machine: Machine, iterator: IteratorValue, carriers: list[Any]) -> None:
    """Give an iterator the labels of its sources, and give its labels to their iterators."""
    mark = iterator.labels
    for carrier in carriers:
        mark = join(mark, carrier.labels)
    if mark is not None:
        machine.mark(iterator, mark)
        for one in iterator.upstream:
            machine.mark(one, mark)


def open_choice_on(machine: Machine, sources: list[Value]) -> None:
    """Record that the elements read from these sources decide that a function is called now."""
    for source in sources:
        machine.open_choice(take(source)[1])


def collect(machine: Machine, value: Value) -> tuple[list[Value], Mark]:
    """Read all elements of a value.

    Returns:
        The elements with their own labels, and the labels that apply to all of them.
    """
    inner, mark = take(value)
    machine.may_fail(mark)
    kind = type(inner)
    if kind is IteratorValue:
        elements = []
        for element in iterate(machine, value):
            elements.append(element)
            machine.make_room(len(elements))
        machine.make_items(len(elements))
        return elements, inner.labels
    if kind not in ITERABLE:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not iterable", mark)
    machine.make_items(len(inner), _size_of_each(inner))
    return list(inner), mark


def _size_of_each(container: Any) -> int:
    """Bytes of an element and its slot, for containers that create elements when they are read."""
    if isinstance(container, str) and not container.isascii():
        return 100
    if type(container) is range:
        return 40 + (max(container.start.bit_length(), container.stop.bit_length()) >> 3)
    return 40
