"""Methods of texts, bytes, numbers and containers, as tables by type."""

from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.builtins import decode, encode
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    pure,
    sized,
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
from langchain_sequrity.local.interpreter.formatting import brace
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import (
    binary,
    collect,
    guard_errors,
    pay_for_search,
)
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorValue,
    ListValue,
    Mark,
    SetValue,
    TypeValue,
    Value,
    join,
    tag,
    take,
    type_name,
)

Args = list[Value]
Named = dict[str, Value]
_LINE_ENDS = ("\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
_SAME_SIZE = (
    *("upper", "lower", "title", "capitalize", "casefold", "swapcase", "partition"),
    *("removeprefix", "removesuffix"),
)
_LOOKING = (
    *("startswith", "endswith", "find", "index", "count", "isalnum", "isalpha", "isascii"),
    *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace"),
    *("istitle", "isupper"),
)
_BYTES_SAME_SIZE = ("upper", "lower")
_STRIPPING = ("strip", "lstrip", "rstrip")
_BACKWARDS = ("rfind", "rindex", "rpartition", *_STRIPPING)
_BYTES_LOOKING = (
    *("startswith", "endswith", "find", "index", "count", "isalnum", "isalpha", "isdigit"),
    "isspace",
)


# -- texts


def _same_size(function: Callable[..., Any]) -> Implementation:
    def guard(machine: Machine, text: Any, *_: Any) -> None:
        machine.make_text(3 * len(text))  # some letters become three when their case changes

    return pure(function, guard)


def _looking(function: Callable[..., Any]) -> Implementation:
    return pure(function, lambda machine, text, *_: machine.work(len(text) >> 8))


def _backwards(function: Callable[..., Any]) -> Implementation:
    # Searching from the end compares at every place, and stripping looks for every letter among
    # all that are to go: the product of both lengths.
    def guard(machine: Machine, text: Any, part: Any = None, *_: Any) -> None:
        if isinstance(part, str | bytes):
            machine.work((len(text) * len(part)) >> 10)
        machine.make_text(len(text))

    return pure(function, guard)


def _padded(function: Callable[..., Any]) -> Implementation:
    def guard(machine: Machine, text: str, width: Any = 0, *_: Any) -> None:
        if isinstance(width, int):
            machine.make_text(max(len(text), width))

    return pure(function, guard)


def _replace(machine: Machine, text: str, old: str, new: str, count: int = -1) -> str:
    if isinstance(old, str) and isinstance(new, str):
        found = text.count(old) if count < 0 else min(count, len(text) + 1)
        machine.make_text(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, count)


def _join(machine: Machine, args: Args, named: Named) -> Value:
    if len(args) != 2 or named:  # noqa: PLR2004 - the text and its one argument
        machine.fail(TypeError, f"str.join() takes exactly one argument ({len(args) - 1} given)")
    items, mark = collect(machine, args[1])
    bare, inner = machine.bare_all(items)
    text, text_mark = take(args[0])
    mark = join(join(mark, inner), text_mark)
    if not _TEXT.issuperset(map(type, bare)):
        machine.fail(TypeError, "sequence item: expected str instance", mark)
    machine.make_text(sum(map(len, bare)) + len(text) * len(bare))
    return tag(text.join(bare), mark)


_TEXT = frozenset({str})


def _split(function: Callable[..., Any]) -> Implementation:
    def call(machine: Machine, text: Any, sep: Any = None, maxsplit: int = -1) -> list[Any]:
        most = machine.limits.items
        wanted = maxsplit if 0 <= maxsplit <= most else most + 1
        if isinstance(sep, str | bytes):
            machine.work((len(text) * len(sep)) >> 10)
        machine.make_text(len(text))
        pieces: list[Any] = function(text, sep, wanted)
        machine.make_items(len(pieces), 80)
        return pieces

    return sized(call)


def _splitlines(machine: Machine, text: str, keepends: bool = False) -> list[str]:  # noqa: FBT001, FBT002
    machine.make_text(len(text))
    machine.make_items(sum(map(text.count, _LINE_ENDS)) + 1, 80)
    return text.splitlines(keepends)


def _expandtabs(machine: Machine, text: str, tabsize: int = 8) -> str:
    if isinstance(tabsize, int):
        machine.make_text(len(text) + text.count("\t") * max(tabsize, 0))
    return text.expandtabs(tabsize)


def _format(machine: Machine, args: Args, named: Named) -> Value:
    def run(template: str, *values: Value, **fields: Value) -> str:
        return brace(machine, template, values, fields)

    return pure(run)(machine, args, named)


def _text_methods() -> dict[str, Implementation]:
    return {
        **{name: _same_size(getattr(str, name)) for name in _SAME_SIZE},
        **{name: _looking(getattr(str, name)) for name in _LOOKING},
        **{name: _backwards(getattr(str, name)) for name in _BACKWARDS},
        **{name: _padded(getattr(str, name)) for name in ("ljust", "rjust", "center", "zfill")},
        "encode": sized(encode),
        "expandtabs": sized(_expandtabs),
        "format": _format,
        "join": _join,
        "replace": sized(_replace),
        "rsplit": _split(str.rsplit),
        "split": _split(str.split),
        "splitlines": sized(_splitlines),
    }


def _bytes_methods() -> dict[str, Implementation]:
    return {
        **{name: _same_size(getattr(bytes, name)) for name in _BYTES_SAME_SIZE},
        **{name: _looking(getattr(bytes, name)) for name in _BYTES_LOOKING},
        **{name: _backwards(getattr(bytes, name)) for name in _STRIPPING},
        "decode": sized(decode),
        "hex": _same_size(bytes.hex),
        "split": _split(bytes.split),
    }


# -- lists and tuples


def _method(least: int, most: int, *names: str) -> Callable[[Callable[..., Value]], Implementation]:
    """Check the number of arguments and hand over the container itself and its labels."""

    def decorate(function: Callable[..., Value]) -> Implementation:
        def call(machine: Machine, args: Args, named: Named) -> Value:
            if any(name not in names for name in named) or not least < len(args) <= most + 1:
                name = function.__name__.strip("_").rpartition("_")[2]
                machine.fail(TypeError, f"{name}() got wrong arguments")
            return function(machine, *args, **named)

        return call

    return decorate


@_method(1, 1)
def _list_append(machine: Machine, target: Value, item: Value) -> None:
    inner, mark = take(target)
    if len(inner) >= machine.limits.items:
        machine.exhaust("items", machine.limits.items)
    machine.charge(40)
    inner.append(item if machine.branch is None else tag(item, machine.branch))
    if mark is not None or machine.branch is not None:
        machine.mark(inner, mark)


@_method(1, 1)
def _list_extend(machine: Machine, target: Value, source: Value) -> None:
    inner, mark = take(target)
    extend(machine, inner, mark, source)


@_method(2, 2)
def _list_insert(machine: Machine, target: Value, place: Value, item: Value) -> None:
    inner, mark = take(target)
    index, index_mark = machine.bare(place)
    machine.make_items(len(inner) + 1, 1)
    guard_errors(machine, index_mark, lambda: inner.insert(index, item))
    machine.mark(inner, join(mark, index_mark))


@_method(0, 1)
def _list_pop(machine: Machine, target: Value, place: Value = -1) -> Value:
    inner, mark = take(target)
    index, index_mark = machine.bare(place)
    mark = join(mark, index_mark)
    item = guard_errors(machine, mark, lambda: inner.pop(index))
    machine.work(len(inner) >> 8)
    machine.mark(inner, mark)
    return tag(item, mark)


@_method(1, 1)
def _list_remove(machine: Machine, target: Value, item: Value) -> None:
    inner, _ = take(target)
    bare, mark = machine.bare(target)
    wanted, item_mark = machine.bare(item)
    mark = join(mark, item_mark)
    del inner[guard_errors(machine, mark, lambda: _find(machine, bare, wanted))]
    machine.mark(inner, mark)


def _find(machine: Machine, items: Value, wanted: Value) -> int:
    for place, item in enumerate(items):
        if item is wanted or item == wanted:
            return place
    return machine.fail(ValueError, "list.remove(x): x not in list")


@_method(0, 0)
def _list_clear(machine: Machine, target: Value) -> None:
    inner, mark = take(target)
    inner.clear()
    machine.mark(inner, mark)


@_method(0, 0)
def _list_reverse(machine: Machine, target: Value) -> None:
    inner, mark = take(target)
    machine.work(len(inner) >> 3)
    inner.reverse()
    machine.mark(inner, mark)


@_method(0, 0, "key", "reverse")
def _list_sort(machine: Machine, target: Value, **named: Value) -> None:
    inner, mark = take(target)
    items = list(inner)
    places, keys_mark = order(machine, items, named)
    inner[:] = [items[place] for place in places]
    machine.mark(inner, join(mark, keys_mark))


@_method(0, 0)
def _list_copy(machine: Machine, target: Value) -> Value:
    return make_list(*collect(machine, target))


# -- dicts


@_method(1, 2)
def _dict_get(machine: Machine, target: Value, key: Value, default: Value = None) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    return tag(inner.get(bare, default), join(mark, key_mark))


@_method(0, 0)
def _dict_keys(machine: Machine, target: Value) -> Value:
    items, mark = collect(machine, target)
    return make_list(items, mark)


@_method(0, 0)
def _dict_values(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner))
    return make_list(list(inner.values()), mark)


@_method(0, 0)
def _dict_items(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner), 120)
    return make_list(list(inner.items()), mark)


@_method(1, 2)
def _dict_pop(machine: Machine, target: Value, key: Value, *default: Value) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    mark = join(mark, key_mark)
    item = guard_errors(machine, mark, lambda: inner.pop(bare, *default))
    machine.mark(inner, mark)
    return tag(item, mark)


@_method(0, 0)
def _dict_popitem(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    item = guard_errors(machine, mark, inner.popitem)
    machine.mark(inner, mark)
    return tag(item, mark)


@_method(1, 2)
def _dict_setdefault(machine: Machine, target: Value, key: Value, default: Value = None) -> Value:
    inner, mark = take(target)
    (bare,), key_mark = hashable(machine, [key])
    if bare not in inner:
        store_key(machine, inner, mark, key, default)
    return tag(inner[bare], join(mark, key_mark))


def _dict_update(machine: Machine, args: Args, named: Named) -> Value:
    inner, mark = take(args[0])
    if len(args) > 2:  # noqa: PLR2004 - the dict and one source
        machine.fail(TypeError, f"update expected at most 1 argument, got {len(args) - 1}")
    for source in args[1:]:
        update(machine, inner, source)
    for key, value in named.items():
        store_key(machine, inner, mark, key, value)
    machine.mark(inner, mark)


@_method(0, 0)
def _dict_copy(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner), 100)
    result: DictValue[Any, Value] = DictValue(inner)
    result.labels = mark
    return result


@_method(1, 2)
def _dict_fromkeys(machine: Machine, _: Value, keys: Value, value: Value = None) -> Value:
    items, mark = collect(machine, keys)
    made = make_set(machine, items, mark)
    result: DictValue[Any, Value] = DictValue(dict.fromkeys(made.items, value))
    result.labels = made.labels
    return result


@_method(0, 1)
def _dict_most_common(machine: Machine, target: Value, count: Value = None) -> Value:
    inner, mark = take(target)
    if not inner.is_counter:
        machine.fail(AttributeError, "'dict' object has no attribute 'most_common'", mark)
    pairs = list(inner.items())
    places, keys_mark = order(machine, [value for _, value in pairs], {"reverse": True})
    number, count_mark = machine.bare(count)
    mark = join(join(mark, keys_mark), count_mark)
    return make_list([pairs[place] for place in places][:number], mark)


# -- sets


@_method(1, 1)
def _set_add(machine: Machine, target: Value, item: Value) -> None:
    inner, mark = take(target)
    (bare,), item_mark = hashable(machine, [item])
    if len(inner) >= machine.limits.items:
        machine.exhaust("items", machine.limits.items)
    machine.charge(100)
    inner.items[bare] = None
    machine.mark(inner, join(mark, item_mark))


def _element(machine: Machine, item: Value) -> tuple[Value, Mark]:
    """What may be taken out of a set: a set too, though none holds one."""
    bare, mark = machine.bare(item)
    if type(bare) is SetValue:
        return MISSING, mark
    (key,), _ = hashable(machine, [bare])
    return key, mark


@_method(1, 1)
def _set_discard(machine: Machine, target: Value, item: Value) -> None:
    inner, mark = take(target)
    bare, item_mark = _element(machine, item)
    inner.items.pop(bare, None)
    machine.mark(inner, join(mark, item_mark))


@_method(1, 1)
def _set_remove(machine: Machine, target: Value, item: Value) -> None:
    inner, mark = take(target)
    bare, item_mark = _element(machine, item)
    mark = join(mark, item_mark)
    guard_errors(machine, mark, lambda: inner.items.pop(bare))
    machine.mark(inner, mark)


@_method(0, 0)
def _set_pop(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    if not inner.items:
        machine.fail(KeyError, "pop from an empty set", mark)
    first = next(iter(inner.items))
    del inner.items[first]
    machine.mark(inner, mark)
    return tag(first, mark)


@_method(0, 0)
def _set_clear(machine: Machine, target: Value) -> None:
    inner, mark = take(target)
    inner.items.clear()
    machine.mark(inner, mark)


@_method(0, 0)
def _set_copy(machine: Machine, target: Value) -> Value:
    inner, mark = take(target)
    machine.make_items(len(inner), 100)
    return SetValue(dict(inner.items), mark)


def _set_update(machine: Machine, args: Args, named: Named) -> Value:
    del named
    inner, mark = take(args[0])
    for source in args[1:]:
        other = make_set(machine, *collect(machine, source))
        machine.make_items(len(inner) + len(other), 100)
        inner.items.update(other.items)
        mark = join(mark, other.labels)
    machine.mark(inner, mark)


def _set_combined(keep: Callable[[Any, Any, Any], dict[Any, None]]) -> Implementation:
    def call(machine: Machine, args: Args, named: Named) -> Value:
        del named
        inner, mark = take(args[0])
        items = inner.items
        for source in args[1:]:
            other = make_set(machine, *collect(machine, source))
            machine.make_items(len(items) + len(other), 100)
            items = keep(items, other.items, None)
            mark = join(mark, other.labels)
        return SetValue(dict(items), mark)

    return call


def _set_symmetric_difference(machine: Machine, target: Value, source: Value) -> Value:
    return binary(machine, "^", target, make_set(machine, *collect(machine, source)))


def _set_relation(holds: Callable[[SetValue, SetValue], bool]) -> Implementation:
    @_method(1, 1)
    def relation(machine: Machine, target: Value, source: Value) -> Value:
        inner, mark = take(target)
        other = make_set(machine, *collect(machine, source))
        return tag(holds(inner, other), join(mark, other.labels))

    return relation


def _without(one: Any, other: Any, _: Any) -> dict[Any, None]:
    return {item: None for item in one if item not in other}


# -- values that a type has besides methods


def _type_attribute(inner: TypeValue, name: str) -> Value:
    if name in CLASS_MEMBERS.get(inner.name, ()):
        return CLASS_MEMBERS[inner.name][name]
    kind = next((k for k in inner.types if name in METHODS.get(k, ())), None)
    if inner.name == "dict" and name == "fromkeys":
        return Builtin(name, lambda m, args, named: _dict_fromkeys(m, [None, *args], named))
    if kind is None:
        return MISSING

    def call(machine: Machine, args: Args, named: Named) -> Value:
        value, mark = take(args[0]) if args else (None, None)
        if not isinstance(value, inner.types):
            wrong = type_name(value)
            machine.fail(TypeError, f"'{name}' needs a '{inner.name}' but got '{wrong}'", mark)
        return METHODS[type(value)][name](machine, args, named)

    return Builtin(name, call)


def _error_attribute(inner: ErrorValue, name: str) -> Value:
    if name == "args":
        return tag(inner.args, inner.labels)
    return MISSING


def _enum_type_attribute(inner: EnumType, name: str) -> Value:
    return inner.members.get(name, MISSING)


def _enum_attribute(inner: EnumMember, name: str) -> Value:
    return {"value": inner.value, "name": inner.name}.get(name, MISSING)


METHODS[str] = _text_methods()
METHODS[bytes] = _bytes_methods()
METHODS[int] = {"bit_length": pure(int.bit_length)}
METHODS[bool] = METHODS[int]
METHODS[float] = {"is_integer": pure(float.is_integer), "hex": pure(float.hex)}
METHODS[ListValue] = {
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
METHODS[tuple] = {"count": pure(tuple.count), "index": pure(tuple.index)}
METHODS[range] = {
    "count": pure(range.count, pay_for_search),
    "index": pure(range.index, pay_for_search),
}
METHODS[DictValue] = {
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
METHODS[SetValue] = {
    "add": _set_add,
    "clear": _set_clear,
    "copy": _set_copy,
    "difference": _set_combined(_without),
    "discard": _set_discard,
    "intersection": _set_combined(lambda one, other, _: {i: None for i in one if i in other}),
    "isdisjoint": _set_relation(lambda one, other: one.items.keys().isdisjoint(other.items)),
    "issubset": _set_relation(lambda one, other: one <= other),
    "issuperset": _set_relation(lambda one, other: one >= other),
    "pop": _set_pop,
    "remove": _set_remove,
    "symmetric_difference": _method(1, 1)(_set_symmetric_difference),
    "union": _set_combined(lambda one, other, _: {**one, **other}),
    "update": _set_update,
}
ATTRIBUTES[TypeValue] = _type_attribute
ATTRIBUTES[ErrorValue] = _error_attribute
ATTRIBUTES[EnumType] = _enum_type_attribute
for _kind in MEMBERS:
    ATTRIBUTES[_kind] = _enum_attribute
METHODS[TextMember] = METHODS[str]
METHODS[NumberMember] = METHODS[int]
