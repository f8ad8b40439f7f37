"""Containers with labels: build, read, change and sort them; `value[key]` and `value.field`."""

from typing import Any

import regex

from langchain_sequrity.local.interpreter.calls import (
    call_method,
    call_value,
)
from langchain_sequrity.local.interpreter.data_types import parametrized
from langchain_sequrity.local.interpreter.iteration import collect, iterate
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import binary
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ListValue,
    Mark,
    Marker,
    Record,
    SetValue,
    TypeValue,
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

Args = list[Value]
_NUMBERS = frozenset({int, float, bool})


def hashable(machine: Machine, values: Args) -> tuple[list[Any], Mark]:
    """Values as keys: bare, and only those that Python can hash by value."""
    bare, mark = machine.strip_all_labels(values)
    machine.may_fail(mark)
    for key in bare:
        _must_be_hashable(machine, key, mark)
    return bare, mark


def _must_be_hashable(machine: Machine, key: Value, mark: Mark) -> None:
    if type(key).__hash__ is None:
        machine.fail(TypeError, f"unhashable type: '{type_name(key)}'", mark)
    if type(key) is tuple:
        for part in key:  # `strip_all_labels` has paid for its parts
            _must_be_hashable(machine, part, mark)


def make_set(machine: Machine, values: Args, mark: Mark) -> SetValue:
    """Build a set."""
    keys, keys_mark = hashable(machine, values)
    machine.pay_items(len(keys), 100)
    return SetValue(dict.fromkeys(machine.with_clock_checks(keys)), join_labels(mark, keys_mark))


def make_list(items: list[Value], mark: Mark) -> ListValue[Value]:
    """Make a list with labels of its own."""
    result = ListValue(items)
    if mark is not None:
        result.labels = mark
    return result


def update(machine: Machine, target: DictValue[Any, Value], mark: Mark, source: Value) -> None:
    """`target.update(source)`, with a dict or pairs."""
    inner, source_mark = split_labels(source)
    if type(inner) is DictValue:
        merge(machine, target, source)
    else:
        for pair in iterate(machine, source):
            items, pair_mark = collect(machine, pair)
            if len(items) != 2:  # noqa: PLR2004 - a pair
                message = f"dictionary update sequence element has length {len(items)}, not 2"
                machine.fail(ValueError, message, pair_mark)
            store_key(machine, target, pair_mark, *items)
        source_mark = split_labels(source)[1]
    machine.label_changed(target, join_labels(mark, source_mark))


def merge(machine: Machine, target: DictValue[Any, Value], source: Value) -> None:
    """Add the items of a dict, as `{**source}` does."""
    inner, mark = split_labels(source)
    machine.may_fail(mark)
    if type(inner) is not DictValue:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not a mapping", mark)
    machine.pay_items(len(target) + len(inner), 100)
    for key, value in zip(machine.with_clock_checks(inner), inner.values(), strict=True):
        target[key] = value
    machine.label_changed(target, mark)


def store_key(
    machine: Machine, target: DictValue[Any, Value], mark: Mark, key: Value, value: Value
) -> None:
    """`target[key] = value`. The dict takes the labels of the key."""
    (bare,), key_mark = hashable(machine, [key])
    machine.pay_items(1, 100)
    machine.check_items(len(target) + 1)
    target[bare] = value
    machine.label_changed(target, join_labels(mark, key_mark))


def sorted_indices(
    machine: Machine,
    items: list[Value],
    mark: Mark,
    *,
    key: Value = None,
    reverse: Value = False,
) -> tuple[list[int], Mark]:
    """Sort the indices of items, by the items or by the results of `key`.

    Args:
        machine: The run.
        items: The items.
        mark: Labels of their number.
        key: A function of the program, or `None`.
        reverse: Whether the largest comes first.

    Returns:
        The indices in order, and the labels of the order, without those of the number.
    """
    bare, order = sort_keys(machine, items, mark, key)
    is_reverse, reverse_mark = machine.truth(reverse)
    order = join_labels(order, reverse_mark)
    _pay_for_comparisons(machine, bare)
    indices = machine.run_guarded(
        join_labels(mark, order),
        lambda: sorted(range(len(items)), key=bare.__getitem__, reverse=is_reverse),
    )
    return indices, order


def sort_keys(
    machine: Machine, items: list[Value], mark: Mark, key: Value
) -> tuple[list[Value], Mark]:
    """The bare values that are compared: the items, or the results of `key`; and their labels.

    `mark` has the labels of the number of items, which are not among those of the values.
    """
    keys = items
    if unbox(key) is not None:
        machine.open_choice(mark)  # the labels decide the number of calls
        for changed in changed_by_calls(key):
            machine.label_changed(changed, mark)
        keys = [call_value(machine, key, [item], {}) for item in items]
    bare, keys_mark = machine.strip_all_labels(keys)
    machine.check_branch(keys_mark)
    return bare, join_labels(keys_mark, box_mark(key))


def _pay_for_comparisons(machine: Machine, keys: list[Value]) -> None:
    """Pay for sorting: each round reads all keys."""
    rounds = len(keys).bit_length()
    machine.pay_steps(rounds * len(keys))
    if not _NUMBERS.issuperset(map(type, keys)):
        for _ in range(rounds):
            machine.strip_all_labels(keys)


def in_place(machine: Machine, symbol: str, target: Value, source: Value) -> Value:
    """Apply an augmented assignment: lists, sets and dicts change in place."""
    inner, mark = split_labels(target)
    if type(inner) is ListValue and symbol == "+":
        extend(machine, inner, mark, source)
        return target
    if type(inner) is DictValue and symbol == "|":
        update(machine, inner, mark, source)
        return target
    combined = binary(machine, symbol, target, source)
    result, result_mark = split_labels(combined)
    if type(inner) is SetValue:
        inner.items.clear()  # the same dict, so that a loop over it notices the change
        inner.items.update(result.items)
    elif type(inner) is ListValue and symbol == "*":
        inner[:] = result
    else:
        return combined
    machine.label_changed(inner, result_mark)
    return target


def extend(machine: Machine, target: ListValue[Value], mark: Mark, source: Value) -> None:
    """Append all elements."""
    elements, source_mark = collect(machine, source)
    machine.check_items(len(target) + len(elements))
    target.extend(elements)
    machine.label_changed(target, join_labels(mark, source_mark))


_SUBSCRIPTABLE = frozenset({str, bytes, tuple, range, ListValue, DictValue})


def get_item(machine: Machine, container: Value, key: Value) -> Value:
    """`container[key]`."""
    inner, mark = split_labels(container)
    container_type = type(inner)
    bare, key_mark = machine.strip_labels(key)
    mark = join_labels(mark, key_mark)
    if container_type is DictValue:
        machine.run_guarded(mark, lambda: hashable(machine, [bare]))
        if inner.factory is not None:
            _call_default_factory(machine, inner, bare, mark)
    if container_type is TypeValue or container_type is Marker:
        return _parametrized_type(machine, inner, bare, mark)
    if container_type not in _SUBSCRIPTABLE:
        if container_type is regex.Match and isinstance(bare, str | int):
            return call_method(machine, container, "group", [key], {})
        machine.fail(TypeError, f"'{type_name(inner)}' object is not subscriptable", mark)

    def read() -> Value:
        if type(bare) is slice and container_type not in (range, DictValue):
            size = len(range(len(inner))[bare])
            if isinstance(inner, str | bytes):
                machine.pay_text(size, inner)
            else:
                machine.pay_items(size)
        is_counter = container_type is DictValue and inner.is_counter
        item = inner.get(bare, 0) if is_counter else inner[bare]
        return ListValue(item) if type(item) is list else item

    item = machine.run_guarded(mark, read)
    if (fields := fields_of(container)) is not None:
        return item_of(inner, fields, bare, item, key_mark)
    return add_labels(item, mark)


def _parametrized_type(machine: Machine, inner: Value, bare: Value, mark: Mark) -> Value:
    if mark is not None:
        machine.fail(TypeError, "The arguments of a type cannot have labels.", mark)
    arguments = bare if isinstance(bare, tuple) else (bare,)
    machine.pay_items(len(arguments))
    data_type = parametrized(inner, arguments)
    if data_type is None:
        machine.fail(TypeError, f"'{inner.name}[…]' does not support these arguments here")
    return data_type


def _call_default_factory(
    machine: Machine, inner: DictValue[Any, Value], bare: Value, mark: Mark
) -> None:
    # Whether the key is new depends on data with these labels, so the dict takes them either way.
    for changed in (inner, *changed_by_calls(inner.factory)):
        machine.label_changed(changed, mark)
    machine.check_branch(mark)
    if bare not in inner:
        default = machine.branch_on(mark, lambda: call_value(machine, inner.factory, [], {}))
        store_key(machine, inner, None, bare, default)


def set_item(machine: Machine, container: Value, key: Value, value: Value) -> None:
    """`container[key] = value`."""
    inner, mark = split_labels(container)
    if type(inner) is DictValue and type(key) is str:  # the common case, which cannot fail
        store_key(machine, inner, mark, key, value)
        return
    bare, key_mark = machine.strip_labels(key)
    mark = join_labels(mark, key_mark)
    if type(inner) is DictValue:
        machine.run_guarded(mark, lambda: store_key(machine, inner, mark, key, value))
        return
    if type(inner) is not ListValue:
        message = f"'{type_name(inner)}' object does not support item assignment"
        machine.fail(TypeError, message, mark)
    if type(bare) is slice:
        value, items_mark = collect(machine, value)
        machine.pay_items(len(inner) + len(value), 8)
        mark = join_labels(mark, items_mark)
    machine.run_guarded(mark, lambda: inner.__setitem__(bare, value))
    machine.label_changed(inner, mark)


def set_field(machine: Machine, target: Value, name: str, value: Value) -> None:
    """`target.name = value`."""
    inner, mark = split_labels(target)
    machine.may_fail(mark)
    if type(inner) is not Record or name not in inner.fields:
        message = f"'{type_name(inner)}' object has no field '{name}' to set"
        machine.fail(AttributeError, message, mark)
    inner.fields[name] = value
    machine.label_changed(inner, mark)


def del_item(machine: Machine, container: Value, key: Value) -> None:
    """`del container[key]`."""
    inner, mark = split_labels(container)
    bare, key_mark = machine.strip_labels(key)
    mark = join_labels(mark, key_mark)
    container_type = type(inner)
    if container_type not in (ListValue, DictValue):
        message = f"'{type_name(inner)}' object doesn't support item deletion"
        machine.fail(TypeError, message, mark)
    if container_type is DictValue:
        machine.run_guarded(mark, lambda: hashable(machine, [bare]))
    machine.pay_steps(len(inner) >> 8)
    machine.run_guarded(mark, lambda: inner.__delitem__(bare))
    machine.label_changed(inner, mark)
