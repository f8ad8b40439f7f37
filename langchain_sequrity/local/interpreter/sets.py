"""Methods of sets."""

from collections.abc import Callable

from langchain_sequrity.local.interpreter.calls import (
    METHODS,
    MISSING,
    Implementation,
    looking,
    method,
    operations,
    precise,
)
from langchain_sequrity.local.interpreter.containers import (
    hashable,
    in_place,
    make_set,
)
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import binary
from langchain_sequrity.local.interpreter.values import (
    SetValue,
    Value,
    strip,
    tag,
)

Args = list[Value]
Named = dict[str, Value]


@method(1, 1)
def _set_add(machine: Machine, target: Value, item: Value) -> None:
    inner = strip(target)
    (bare,), _ = hashable(machine, [item])
    machine.make_room(len(inner) + 1)
    machine.charge(100)
    inner.items[bare] = None


def _element(machine: Machine, item: Value) -> Value:
    """What may be taken out of a set: a set too, though none holds one."""
    bare, _ = machine.bare(item)
    if type(bare) is SetValue:
        return MISSING
    (key,), _ = hashable(machine, [bare])
    return key


@method(1, 1)
def _set_discard(machine: Machine, target: Value, item: Value) -> None:
    strip(target).items.pop(_element(machine, item), None)


@method(1, 1)
def _set_remove(machine: Machine, target: Value, item: Value) -> None:
    strip(target).items.pop(_element(machine, item))


@method(0, 0)
def _set_pop(machine: Machine, target: Value) -> Value:
    items = strip(target).items
    if not items:
        machine.fail(KeyError, "pop from an empty set")
    first = next(iter(items))
    del items[first]
    return first


@method(0, 0)
def _set_clear(_: Machine, target: Value) -> None:
    strip(target).items.clear()


@method(0, 0)
def _set_copy(machine: Machine, target: Value) -> Value:
    inner = strip(target)
    machine.make_items(len(inner), 100)
    return SetValue(dict(inner.items))


@precise
def _set_update(machine: Machine, args: Args, named: Named) -> None:
    del named
    for source in args[1:]:
        in_place(machine, "|", args[0], make_set(machine, *collect(machine, source)))


def _set_combined(symbol: str) -> Implementation:
    def call(machine: Machine, args: Args, named: Named) -> Value:
        result: Value = _set_copy(machine, args[:1], named)
        for source in args[1:]:
            other = make_set(machine, *collect(machine, source))
            result = binary(machine, symbol, result, other)
        return result

    return looking(call)


def _set_symmetric_difference(machine: Machine, target: Value, source: Value) -> Value:
    return binary(machine, "^", target, make_set(machine, *collect(machine, source)))


def _set_relation(holds: Callable[[SetValue, SetValue], bool]) -> Implementation:
    @method(1, 1)
    def relation(machine: Machine, target: Value, source: Value) -> Value:
        other = make_set(machine, *collect(machine, source))
        return tag(holds(strip(target), other), other.labels)

    return relation


METHODS[SetValue] = operations(
    {
        "add": _set_add,
        "clear": _set_clear,
        "copy": _set_copy,
        "difference": _set_combined("-"),
        "discard": _set_discard,
        "intersection": _set_combined("&"),
        "isdisjoint": _set_relation(lambda one, other: one.items.keys().isdisjoint(other.items)),
        "issubset": _set_relation(lambda one, other: one <= other),
        "issuperset": _set_relation(lambda one, other: one >= other),
        "pop": _set_pop,
        "remove": _set_remove,
        "symmetric_difference": method(1, 1)(_set_symmetric_difference),
        "union": _set_combined("|"),
        "update": _set_update,
    }
)
