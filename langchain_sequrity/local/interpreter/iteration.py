"""Iteration: the one way to read elements, and what it does to labels.

Only what is here reads an iterator of the program. Each step is paid for, sees the labels that
container and iterator have at that time, and leaves those of whatever decided that it is taken.
"""

from collections.abc import Iterator
from typing import Any

from langchain_sequrity.local.interpreter.machine import ITERATOR_SIZE, Machine
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    ITERABLE,
    EnumType,
    IteratorValue,
    Mark,
    TextMember,
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
_IMMUTABLE = frozenset({str, bytes, tuple, range, EnumType, TextMember})


def iterate(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value, and pay for each element; see `elements_of`."""
    return _paid(machine, elements_of(machine, value))


def _paid(machine: Machine, elements: Iterator[Value]) -> Iterator[Value]:
    for element in elements:
        machine.work(1)
        yield element


def elements_of(machine: Machine, value: Value) -> Iterator[Value]:
    """Iterate over a value, for code that pays for each round itself.

    Each element takes the labels that the value has at that time.
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
    """Elements of a container that may change meanwhile, and its labels with it."""
    try:
        for element in container:
            labels = container.labels
            yield (element if mark is None and labels is None else tag(element, join(mark, labels)))
    except RuntimeError as error:  # a dict that has another size now
        raise machine.labelled(error, join(mark, container.labels)) from None


def _read(machine: Machine, iterator: IteratorValue, mark: Mark) -> Iterator[Value]:
    """Elements of an iterator; that it is read here, and under which branch, moves it."""
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
    """An iterator that reads others.

    How far it came, and how far each of its sources came, depends on all of them: at each step they
    share their labels.

    Args:
        machine: The run.
        sources: What it reads.
        elements: What it gives; this is what reads the sources.
        mark: Labels of whatever else decides how far it goes.
        calls: The function of the program that a step calls, which the labels then decide.
    """
    machine.charge(ITERATOR_SIZE)
    touched = changed_by_calls(calls)
    carriers = [one for one in touched if type(one) in CARRIERS]
    for source in sources:
        inner, source_mark = take(source)
        mark = join(mark, source_mark)
        if type(inner) in CARRIERS:
            carriers.append(inner)
    result = IteratorValue(iter(()), mark, [c for c in carriers if type(c) is IteratorValue])
    result.upstream += touched
    is_calling = strip(calls) is not None
    result.source = _steps(machine, result, carriers, elements, is_calling=is_calling)
    return result


def _steps(
    machine: Machine,
    result: IteratorValue,
    carriers: list[Any],
    elements: Iterator[Value],
    *,
    is_calling: bool,
) -> Iterator[Value]:
    while True:
        share_labels(machine, result, carriers)
        before = machine.branch
        if is_calling:
            machine.steer(result.labels)
        machine.branch = join(before, result.labels)
        try:
            element = next(elements, _END)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
            failure = machine.labelled(error, None)
            machine.moved(result, failure)
            raise failure from None
        finally:
            machine.leave(before)
        share_labels(machine, result, carriers)
        if element is _END:
            return
        if type(element) is tuple:
            machine.make_items(len(element), 8)
        yield element


_END = object()


def share_labels(machine: Machine, iterator: IteratorValue, carriers: list[Any]) -> None:
    """Give an iterator the labels of what it reads, and its own to the iterators that it reads."""
    mark = iterator.labels
    for carrier in carriers:
        mark = join(mark, carrier.labels)
    if mark is not None:
        machine.mark(iterator, mark)
        for one in iterator.upstream:
            machine.mark(one, mark)


def enter_branch_of(machine: Machine, sources: list[Value]) -> None:
    """Note that what was read from these decided that a function of the program is called now."""
    for source in sources:
        machine.decided(take(source)[1])


def collect(machine: Machine, value: Value) -> tuple[list[Value], Mark]:
    """Read all elements of a value.

    Returns:
        The elements with the labels they have themselves, and the labels that count for all.
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
    """Bytes of an element and its place, where the element is made when it is read."""
    if isinstance(container, str) and not container.isascii():
        return 100
    if type(container) is range:
        return 40 + (max(container.start.bit_length(), container.stop.bit_length()) >> 3)
    return 40
