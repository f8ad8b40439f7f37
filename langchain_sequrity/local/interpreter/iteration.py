"""Iteration: the only way to read elements, with its label rules.

Only this module reads iterators of the program. Each step is paid for, uses the current labels of
the container or iterator, and adds to the iterator the labels of what decided to read on.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from langchain_sequrity.local.interpreter.machine import ITERATOR_SIZE, Machine
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    ITERABLE,
    IteratorValue,
    ListValue,
    Mark,
    Value,
    add_labels,
    box_mark,
    changed_by_calls,
    fields_of,
    item_of,
    join_labels,
    split_labels,
    type_name,
    unbox,
)

_LARGE = 1 << 63
_IMMUTABLE = frozenset({str, bytes, tuple, range})


def iterate(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value and pay for each element; see `elements_of`."""
    return _pay_for_each(machine, elements_of(machine, value))


def _pay_for_each(machine: Machine, elements: Iterator[Value]) -> Iterator[Value]:
    for element in elements:
        machine.pay_steps(1)
        yield element


def elements_of(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value, for code that pays for each round itself.

    Each element takes the labels that the value has when the element is read.
    """
    inner, mark = split_labels(value)
    machine.may_fail(mark)
    value_type = type(inner)
    if value_type in _IMMUTABLE:
        if value_type is range and max(abs(inner.start), abs(inner.stop)) >= _LARGE:
            inner = pay_for_numbers(machine, inner)
        return iter(inner) if mark is None else (add_labels(element, mark) for element in inner)
    if value_type is IteratorValue:
        return _read(machine, inner, box_mark(value))
    if value_type not in ITERABLE:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not iterable", mark)
    if value_type is ListValue and (fields := fields_of(value)) is not None:
        return (item_of(inner, fields, None, element, None) for element in inner)
    return _changing_elements(machine, inner, box_mark(value))


def pay_for_numbers(machine: Machine, numbers: Iterable[int]) -> Iterator[int]:
    """Iterate over large numbers, and pay for each."""
    for number in numbers:
        machine.pay_bits(number.bit_length())
        yield number


def _changing_elements(machine: Machine, container: Any, mark: Mark) -> Iterator[Value]:
    """Elements of a container that may change, with its labels, during the iteration."""
    try:
        for element in container:
            labels = container.labels
            yield (
                element
                if mark is None and labels is None
                else add_labels(element, join_labels(mark, labels))
            )
    except RuntimeError as error:  # a dict or set changed its size
        raise machine.as_labelled_error(error, join_labels(mark, container.labels)) from None


def _read(machine: Machine, iterator: IteratorValue, mark: Mark) -> Iterator[Value]:
    """Elements of an iterator. Reading advances it, so it takes the labels of the open branches."""
    if mark is not None:
        machine.label_changed(iterator, mark)
    for element in iterator.source:
        if machine.branch is not None:
            machine.label_changed(iterator, None)
        yield element if iterator.labels is None else add_labels(element, iterator.labels)
    if machine.branch is not None:
        machine.label_changed(iterator, None)


def lazy_iterator(
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
    machine.pay_memory(ITERATOR_SIZE)
    changed = changed_by_calls(calls)
    carriers = [c for c in changed if type(c) in CARRIERS]
    for source in sources:
        inner, source_mark = split_labels(source)
        mark = join_labels(mark, source_mark)
        if type(inner) in CARRIERS:
            carriers.append(inner)
    upstream = [*(c for c in carriers if type(c) is IteratorValue), *changed]
    result = IteratorValue(iter(()), mark, upstream)
    is_calling = unbox(calls) is not None

    def steps() -> Iterator[Value]:
        while True:
            share_labels(machine, result, carriers)
            before = machine.branch
            if is_calling:
                machine.check_branch(result.labels)
            machine.branch = join_labels(before, result.labels)
            try:
                element = next(elements, _END)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_iteration_error(error, None, result) from None
            finally:
                machine.close_branches(before)
            share_labels(machine, result, carriers)
            if element is _END:
                return
            if type(element) is tuple:
                machine.pay_items(len(element), 8)
            yield element

    result.source = steps()
    return result


_END = object()


def share_labels(machine: Machine, iterator: IteratorValue, carriers: list[Any]) -> None:
    """Give an iterator the labels of its sources, and give its labels to their iterators."""
    mark = iterator.labels
    for carrier in carriers:
        mark = join_labels(mark, carrier.labels)
    if mark is not None:
        machine.label_changed(iterator, mark)
        for upstream in iterator.upstream:
            machine.label_changed(upstream, mark)


def open_choice_on(machine: Machine, sources: list[Value]) -> None:
    """Record that the elements read from these sources decide that a function is called now."""
    for source in sources:
        machine.open_choice(split_labels(source)[1])


def collect(machine: Machine, value: Value) -> tuple[list[Value], Mark]:
    """Read all elements of a value.

    Returns:
        The elements with their own labels, and the labels that apply to all of them.
    """
    inner, mark = split_labels(value)
    machine.may_fail(mark)
    value_type = type(inner)
    if value_type is IteratorValue:
        elements = []
        for element in iterate(machine, value):
            elements.append(element)
            machine.check_items(len(elements))
        machine.pay_items(len(elements))
        return elements, inner.labels
    if value_type not in ITERABLE:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not iterable", mark)
    machine.pay_items(len(inner), _size_of_each(inner))
    return list(inner), mark


def records(value: Value) -> list[Value]:
    """The elements of a list with labels of fields, each with the labels of its own fields."""
    inner, fields = unbox(value), fields_of(value)
    assert fields is not None  # noqa: S101 - for mypy
    return [item_of(inner, fields, None, element, None) for element in inner]


def _size_of_each(container: Any) -> int:
    """Bytes of an element and its slot, for containers that create elements when they are read."""
    if isinstance(container, str) and not container.isascii():
        return 100
    if type(container) is range:
        return 40 + (max(container.start.bit_length(), container.stop.bit_length()) >> 3)
    return 40
