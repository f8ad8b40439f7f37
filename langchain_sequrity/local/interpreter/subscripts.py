"""`value[key]` and `value.field`: reading, writing and deleting, with the labels of both."""

from typing import Any

import regex

from langchain_sequrity.local.interpreter.calls import (
    call_method,
    call_value,
)
from langchain_sequrity.local.interpreter.containers import hashable, store_key
from langchain_sequrity.local.interpreter.enums import EnumType, TextMember
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.type_schemas import of
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ListValue,
    Mark,
    Marker,
    Record,
    TypeValue,
    Value,
    changed_by_calls,
    join,
    tag,
    take,
    type_name,
)

_SEQUENCES = frozenset({str, bytes, tuple, range, ListValue, TextMember})


def get_item(machine: Machine, container: Value, key: Value) -> Value:
    """`container[key]`."""
    inner, mark = take(container)
    kind = type(inner)
    if kind is DictValue:
        return _from_dict(machine, inner, container, key)
    bare, key_mark = machine.bare(key)
    mark = join(mark, key_mark)
    if kind is EnumType and bare in inner.members:
        return tag(inner.members[bare], mark)
    if kind is TypeValue or kind is Marker:
        return _generic(machine, inner, bare, mark)
    if kind not in _SEQUENCES:
        if kind is regex.Match and isinstance(bare, str | int):
            return call_method(machine, container, "group", [key], {})
        machine.fail(TypeError, f"'{type_name(inner)}' object is not subscriptable", mark)

    def read() -> Value:
        if type(bare) is slice and kind is not range:
            size = len(range(len(inner))[bare])
            if isinstance(inner, str | bytes):
                machine.make_text(size, inner)
            else:
                machine.make_items(size)
        found = inner[bare]
        return ListValue(found) if type(found) is list else found

    return tag(machine.guarded(mark, read), mark)


def _generic(machine: Machine, inner: Value, bare: Value, mark: Mark) -> Value:
    if mark is not None:
        machine.fail(TypeError, "What a type is made of has no labels.", mark)
    arguments = bare if isinstance(bare, tuple) else (bare,)
    machine.make_items(len(arguments))
    form = of(inner, arguments)
    if form is None:
        machine.fail(TypeError, f"'{inner.name}[…]' with these arguments is no type here")
    return form


def _from_dict(
    machine: Machine, inner: DictValue[Any, Value], container: Value, key: Value
) -> Value:
    mark = join(take(container)[1], machine.bare(key)[1])
    (bare,), _ = machine.guarded(mark, lambda: hashable(machine, [key]))
    if inner.factory is not None:
        _make_missing(machine, inner, bare, mark)
    elif inner.is_counter and bare not in inner:
        return tag(0, mark)
    return tag(machine.guarded(mark, lambda: inner[bare]), mark)


def _make_missing(machine: Machine, inner: DictValue[Any, Value], bare: Value, mark: Mark) -> None:
    # Whether the key is new depends on the labels, so they are the dict's in both cases.
    for changed in (inner, *changed_by_calls(inner.factory)):
        machine.mark(changed, mark)
    machine.steer(mark)
    if bare not in inner:
        made = machine.under(mark, lambda: call_value(machine, inner.factory, [], {}))
        store_key(machine, inner, None, bare, made)


def set_item(machine: Machine, container: Value, key: Value, value: Value) -> None:
    """`container[key] = value`."""
    inner, mark = take(container)
    if type(inner) is DictValue and type(key) is str:  # the common case, which cannot fail
        store_key(machine, inner, mark, key, value)
        return
    bare, key_mark = machine.bare(key)
    mark = join(mark, key_mark)
    if type(inner) is DictValue:
        machine.guarded(mark, lambda: store_key(machine, inner, mark, key, value))
        return
    if type(inner) is not ListValue:
        message = f"'{type_name(inner)}' object does not support item assignment"
        machine.fail(TypeError, message, mark)
    if type(bare) is slice:
        items, items_mark = collect(machine, value)
        machine.make_items(len(inner) + len(items), 8)
        mark = join(mark, items_mark)
        value = items
    machine.guarded(mark, lambda: inner.__setitem__(bare, value))
    machine.mark(inner, mark)


def set_field(machine: Machine, target: Value, name: str, value: Value) -> None:
    """`target.name = value`."""
    inner, mark = take(target)
    machine.may_fail(mark)
    if type(inner) is not Record or name not in inner.fields:
        message = f"'{type_name(inner)}' object has no field '{name}' to set"
        machine.fail(AttributeError, message, mark)
    inner.fields[name] = value
    machine.mark(inner, mark)


def del_item(machine: Machine, container: Value, key: Value) -> None:
    """`del container[key]`."""
    inner, mark = take(container)
    bare, key_mark = machine.bare(key)
    mark = join(mark, key_mark)
    kind = type(inner)
    if kind not in (ListValue, DictValue):
        message = f"'{type_name(inner)}' object doesn't support item deletion"
        machine.fail(TypeError, message, mark)
    if kind is DictValue:
        machine.guarded(mark, lambda: hashable(machine, [bare]))
    machine.work(len(inner) >> 8)
    machine.guarded(mark, lambda: inner.__delitem__(bare))
    machine.mark(inner, mark)
