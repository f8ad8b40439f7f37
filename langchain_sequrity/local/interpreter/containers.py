"""Building containers and changing them, with the labels that come along."""

from typing import Any

from langchain_sequrity.local.interpreter.calls import call_value
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import binary, collect, guard_errors, iterate
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ListValue,
    Mark,
    SetValue,
    Value,
    join,
    strip,
    tag,
    take,
    type_name,
)

Args = list[Value]
Named = dict[str, Value]
_NUMBERS = frozenset({int, float, bool})


def hashable(machine: Machine, values: Args) -> tuple[list[Any], Mark]:
    """Values as keys: bare, and only those that Python can hash and that hold no identity."""
    bare, mark = machine.bare_all(values)
    for key in bare:
        if type(key).__hash__ is None:
            machine.fail(TypeError, f"unhashable type: '{type_name(key)}'", mark)
        if type(key) is tuple:
            hashable(machine, list(key))
    return bare, mark


def make_set(machine: Machine, values: Args, mark: Mark) -> SetValue:
    """Build a set."""
    keys, keys_mark = hashable(machine, values)
    machine.make_items(len(keys), 100)
    return SetValue(dict.fromkeys(machine.paced(keys)), join(mark, keys_mark))


def make_list(items: list[Value], mark: Mark) -> ListValue[Value]:
    """A list with labels of its own."""
    result = ListValue(items)
    if mark is not None:
        result.labels = mark
    return result


def update(machine: Machine, target: DictValue[Any, Value], source: Value) -> None:
    """Add what `dict.update` takes: a dict, or pairs."""
    inner, mark = take(source)
    if type(inner) is DictValue:
        merge(machine, target, source)
        return
    for pair in iterate(machine, source):
        machine.work(1)
        items, pair_mark = collect(machine, pair)
        if len(items) != 2:  # noqa: PLR2004 - a pair
            machine.fail(ValueError, "dictionary update sequence element is no pair", pair_mark)
        store_key(machine, target, join(mark, pair_mark), *items)


def merge(machine: Machine, target: DictValue[Any, Value], source: Value) -> None:
    """Add what `{**source}` takes: a dict."""
    inner, mark = take(source)
    if type(inner) is not DictValue:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not a mapping", mark)
    machine.make_items(len(target) + len(inner), 100)
    for key, value in zip(machine.paced(inner), inner.values(), strict=True):
        target[key] = tag(value, mark)
    machine.mark(target, mark)


def store_key(
    machine: Machine, target: DictValue[Any, Value], mark: Mark, key: Value, value: Value
) -> None:
    """`target[key] = value`; the key's labels become the dict's."""
    (bare,), key_mark = hashable(machine, [key])
    machine.make_items(1, 100)
    machine.make_room(len(target) + 1)
    target[bare] = value
    machine.mark(target, join(mark, key_mark))


def order(machine: Machine, items: list[Value], named: Named) -> tuple[list[int], Mark]:
    """Sort places by their items, or by what `key` makes of them."""
    key = named.get("key")
    reverse, mark = machine.bare(named.get("reverse", False))
    keys = items if strip(key) is None else [call_value(machine, key, [item], {}) for item in items]
    bare, keys_mark = machine.bare_all(keys)
    mark = join(mark, keys_mark)
    _pay_for_comparisons(machine, bare)
    places = guard_errors(
        machine,
        mark,
        lambda: sorted(range(len(items)), key=bare.__getitem__, reverse=bool(reverse)),
    )
    return places, mark


def _pay_for_comparisons(machine: Machine, keys: list[Value]) -> None:
    """Pay for sorting: each round looks at all keys, and whoever took them bare paid for one."""
    rounds = len(keys).bit_length()
    machine.work(rounds * len(keys))
    if not _NUMBERS.issuperset(map(type, keys)):
        for _ in range(rounds):
            machine.bare_all(keys)


def in_place(machine: Machine, symbol: str, one: Value, other: Value) -> Value:
    """Apply an augmented assignment: lists, sets and dicts change, others are made anew."""
    target, mark = take(one)
    if type(target) is ListValue and symbol == "+":
        extend(machine, target, mark, other)
        return one
    if type(target) is DictValue and symbol == "|":
        update(machine, target, other)
        machine.mark(target, mark)
        return one
    if type(target) is SetValue:
        result, result_mark = take(binary(machine, symbol, one, other))
        fresh = dict(result.items)
        target.items.clear()  # and not another dict: a loop over it has to notice
        target.items.update(fresh)
        machine.mark(target, result_mark)
        return one
    if type(target) is ListValue and symbol == "*":
        result, result_mark = take(binary(machine, symbol, one, other))
        target[:] = result
        machine.mark(target, result_mark)
        return one
    return binary(machine, symbol, one, other)


def extend(machine: Machine, target: ListValue[Value], mark: Mark, source: Value) -> None:
    """Append all elements; each takes the source's labels, for a loop may be running over it."""
    elements, source_mark = collect(machine, source)
    machine.make_room(len(target) + len(elements))
    target.extend([tag(element, source_mark) for element in elements])
    machine.mark(target, join(mark, source_mark))
