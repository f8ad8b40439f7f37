"""What values have after a dot, as tables by type: methods of lists and dicts, and attributes."""

from typing import Any

from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    looking,
    method,
    operations,
    precise,
    pure,
)
from langchain_sequrity.local.interpreter.clock import CLASS_MEMBERS
from langchain_sequrity.local.interpreter.containers import (
    extend,
    hashable,
    make_list,
    make_set,
    order,
    store_key,
    update,
)
from langchain_sequrity.local.interpreter.enums import (
    MEMBERS,
    EnumMember,
    EnumType,
    NumberMember,
    TextMember,
)
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import pay_for_search
from langchain_sequrity.local.interpreter.texts import bytes_methods, text_methods
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorValue,
    ListValue,
    TypeValue,
    Value,
    join,
    strip,
    tag,
    take,
    type_name,
)

Args = list[Value]
Named = dict[str, Value]
# -- lists and tuples


@precise
@method(1, 1)
def _list_append(machine: Machine, target: Value, item: Value) -> None:
    inner, mark = take(target)
    machine.make_room(len(inner) + 1)
    machine.charge(40)
    inner.append(item)
    if mark is not None or machine.branch is not None:
        machine.mark(inner, mark)


@precise
@method(1, 1)
def _list_extend(machine: Machine, target: Value, source: Value) -> None:
    inner, mark = take(target)
    extend(machine, inner, mark, source)


@precise
@method(2, 2)
def _list_insert(machine: Machine, target: Value, place: Value, item: Value) -> None:
    inner, mark = take(target)
    index, index_mark = machine.bare(place)
    machine.make_items(len(inner) + 1, 1)
    inner.insert(index, item)
    machine.mark(inner, join(mark, index_mark))


@precise
@method(0, 1)
def _list_pop(machine: Machine, target: Value, place: Value = -1) -> Value:
    inner, mark = take(target)
    index, index_mark = machine.bare(place)
    mark = join(mark, index_mark)
    machine.work(len(inner) >> 8)
    item = inner.pop(index)
    machine.mark(inner, mark)
    return tag(item, mark)


@method(1, 1)
def _list_remove(machine: Machine, target: Value, item: Value) -> None:
    inner = strip(target)
    bare, wanted = machine.bare(inner)[0], machine.bare(item)[0]
    del inner[_find(machine, bare, wanted)]


def _find(machine: Machine, items: Value, wanted: Value) -> int:
    for place, item in enumerate(items):  # paid for by whoever took them bare
        if item is wanted or item == wanted:
            return place
    return machine.fail(ValueError, "list.remove(x): x not in list")


@precise
@method(0, 0)
def _list_clear(machine: Machine, target: Value) -> None:
    inner, mark = take(target)
    inner.clear()
    machine.mark(inner, mark)


@precise
@method(0, 0)
def _list_reverse(machine: Machine, target: Value) -> None:
    inner, mark = take(target)
    machine.work(len(inner) >> 3)
    inner.reverse()
    machine.mark(inner, mark)


@precise
@method(0, 0, "key", "reverse")
def _list_sort(machine: Machine, target: Value, **named: Value) -> None:
    inner, mark = take(target)
    items = list(inner)
    places, mark = order(machine, items, mark, named)
    inner[:] = [items[place] for place in places]
    machine.mark(inner, mark)


@precise
@method(0, 0)
def _list_copy(machine: Machine, target: Value) -> Value:
    return make_list(*collect(machine, target))


# -- dicts


@precise
@method(1, 2)
def _dict_get(machine: Machine, target: Value, key: Value, default: Value = None) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    return tag(inner.get(bare, default), join(mark, key_mark))


@precise
@method(0, 0)
def _dict_keys(machine: Machine, target: Value) -> Value:
    items, mark = collect(machine, target)
    return make_list(items, mark)


@precise
@method(0, 0)
def _dict_values(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner))
    return make_list(list(inner.values()), mark)


@precise
@method(0, 0)
def _dict_items(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner), 120)
    return make_list(list(inner.items()), mark)


@precise
@method(1, 2)
def _dict_pop(machine: Machine, target: Value, key: Value, *default: Value) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    mark = join(mark, key_mark)
    item = inner.pop(bare, *default)
    machine.mark(inner, mark)
    return tag(item, mark)


@precise
@method(0, 0)
def _dict_popitem(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    item = inner.popitem()
    machine.mark(inner, mark)
    return tag(item, mark)


@precise
@method(1, 2)
def _dict_setdefault(machine: Machine, target: Value, key: Value, default: Value = None) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    if bare not in inner:
        store_key(machine, inner, mark, key, default)
    mark = join(mark, key_mark)
    machine.mark(inner, mark)  # whether the key is new depends on them
    return tag(inner[bare], mark)


@precise
def _dict_update(machine: Machine, args: Args, named: Named) -> None:
    inner, mark = take(args[0])
    if len(args) > 2:  # noqa: PLR2004 - the dict and one source
        machine.fail(TypeError, f"update expected at most 1 argument, got {len(args) - 1}")
    for source in args[1:]:
        update(machine, inner, mark, source)
    for key, value in named.items():
        store_key(machine, inner, mark, key, value)
    machine.mark(inner, mark)


@precise
@method(0, 0)
def _dict_copy(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner), 100)
    result: DictValue[Any, Value] = DictValue(inner)
    result.labels = mark
    return result


@precise
@method(1, 2)
def _dict_fromkeys(machine: Machine, _: Value, keys: Value, value: Value = None) -> Value:
    items, mark = collect(machine, keys)
    made = make_set(machine, items, mark)
    result: DictValue[Any, Value] = DictValue(dict.fromkeys(made.items, value))
    result.labels = made.labels
    return result


@looking
@method(0, 1)
def _dict_most_common(machine: Machine, target: Value, count: Value = None) -> Value:
    inner = strip(target)
    if not inner.is_counter:
        machine.fail(AttributeError, "'dict' object has no attribute 'most_common'")
    machine.make_items(len(inner), 120)
    pairs = list(inner.items())
    counts = [value for _, value in pairs]
    places, _ = order(machine, counts, None, {"reverse": True})
    number, _ = machine.bare(count)
    return ListValue([pairs[place] for place in places][:number])


# -- values that a type has besides methods


def _type_attribute(inner: TypeValue, name: str) -> Value:
    if name in CLASS_MEMBERS.get(inner.name, ()):
        return CLASS_MEMBERS[inner.name][name]
    kind = next((k for k in inner.types if name in METHODS.get(k, ())), None)
    if inner.name == "dict" and name == "fromkeys":
        return _FROM_KEYS
    if kind is None:
        return MISSING

    def call(machine: Machine, args: Args, named: Named) -> Value:
        # The method itself has a label rule.
        value, mark = take(args[0]) if args else (None, None)
        if not isinstance(value, inner.types):
            wrong = type_name(value)
            machine.fail(TypeError, f"'{name}' needs a '{inner.name}' but got '{wrong}'", mark)
        return METHODS[type(value)][name](machine, args, named)

    return Builtin(name, call)


def _error_attribute(inner: ErrorValue, name: str) -> Value:
    if name == "args":
        return inner.args
    return MISSING


def _enum_type_attribute(inner: EnumType, name: str) -> Value:
    return inner.members.get(name, MISSING)


def _enum_attribute(inner: EnumMember, name: str) -> Value:
    return {"value": inner.value, "name": inner.name}.get(name, MISSING)


_FROM_KEYS = Builtin(
    "fromkeys", lambda machine, args, named: _dict_fromkeys(machine, [None, *args], named)
)
METHODS[str] = operations(text_methods())
METHODS[bytes] = operations(bytes_methods())
METHODS[int] = {"bit_length": pure(int.bit_length)}
METHODS[bool] = METHODS[int]
METHODS[float] = {"is_integer": pure(float.is_integer), "hex": pure(float.hex)}
METHODS[ListValue] = operations(
    {
        "append": _list_append,
        "clear": _list_clear,
        "copy": _list_copy,
        "count": pure(list.count),
        "extend": _list_extend,
        "index": pure(list.index),
        "insert": _list_insert,
        "pop": _list_pop,
        "remove": _list_remove,
        "reverse": _list_reverse,
        "sort": _list_sort,
    }
)
METHODS[tuple] = {"count": pure(tuple.count), "index": pure(tuple.index)}
METHODS[range] = {
    "count": pure(range.count, pay_for_search),
    "index": pure(range.index, pay_for_search),
}
METHODS[DictValue] = operations(
    {
        "clear": _list_clear,
        "copy": _dict_copy,
        "get": _dict_get,
        "items": _dict_items,
        "keys": _dict_keys,
        "most_common": _dict_most_common,
        "pop": _dict_pop,
        "popitem": _dict_popitem,
        "setdefault": _dict_setdefault,
        "update": _dict_update,
        "values": _dict_values,
    }
)
ATTRIBUTES[TypeValue] = _type_attribute
ATTRIBUTES[ErrorValue] = _error_attribute
ATTRIBUTES[EnumType] = _enum_type_attribute
for _kind in MEMBERS:
    ATTRIBUTES[_kind] = _enum_attribute
METHODS[TextMember] = METHODS[str]
METHODS[NumberMember] = METHODS[int]
