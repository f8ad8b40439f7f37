"""Methods and attributes of values, as tables by type. Sizes are checked before the work."""

from collections.abc import Callable, Iterable
from typing import Any

from langchain_sequrity.local.interpreter.builtins import decode, encode
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    Operation,
    functions,
    methods,
    precise,
    pure,
    pure_with_machine,
    read_only,
)
from langchain_sequrity.local.interpreter.containers import (
    extend,
    hashable,
    in_place,
    make_list,
    make_set,
    sorted_indices,
    store_key,
    update,
)
from langchain_sequrity.local.interpreter.formatting import brace_format
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.modules import CLASS_MEMBERS
from langchain_sequrity.local.interpreter.operators import binary
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorValue,
    ListValue,
    Record,
    SetValue,
    TypeValue,
    Value,
    add_labels,
    fields_of,
    item_of,
    join_labels,
    split_labels,
    type_name,
    unbox,
)


def _set_add(machine: Machine, target: Value, item: Value, /) -> None:
    inner = unbox(target)
    (bare,), _ = hashable(machine, [item])
    machine.check_items(len(inner) + 1)
    machine.pay_memory(100)
    inner.items[bare] = None


def _set_discard(machine: Machine, target: Value, item: Value, /) -> None:
    unbox(target).items.pop(_element(machine, item), None)


def _set_remove(machine: Machine, target: Value, item: Value, /) -> None:
    key = _element(machine, item)
    if key is MISSING:
        machine.fail(KeyError, "a set is never an element of a set")
    unbox(target).items.pop(key)


def _element(machine: Machine, item: Value) -> Value:
    """An element to remove. It may be a set, which is not hashable and never an element."""
    bare, _ = machine.strip_labels(item)
    return MISSING if type(bare) is SetValue else hashable(machine, [bare])[0][0]


def _set_pop(machine: Machine, target: Value, /) -> Value:
    items = unbox(target).items
    if not items:
        machine.fail(KeyError, "pop from an empty set")
    first = next(iter(items))
    del items[first]
    return first


def _set_clear(_: Machine, target: Value, /) -> None:
    unbox(target).items.clear()


def _set_copy(machine: Machine, target: Value, /) -> Value:
    inner = unbox(target)
    machine.pay_items(len(inner), 100)
    return SetValue(dict(inner.items))


def _set_update(machine: Machine, target: Value, /, *sources: Value) -> None:
    for source in sources:
        in_place(machine, "|", target, make_set(machine, *collect(machine, source)))


def _set_combined(symbol: str) -> Implementation:
    def call(machine: Machine, target: Value, /, *sources: Value) -> Value:
        result: Value = _set_copy(machine, target)
        for source in sources:
            other = make_set(machine, *collect(machine, source))
            result = binary(machine, symbol, result, other)
        return result

    return read_only(call)


def _set_symmetric_difference(machine: Machine, target: Value, source: Value, /) -> Value:
    return binary(machine, "^", target, make_set(machine, *collect(machine, source)))


def _set_relation(holds: Callable[[SetValue, SetValue], bool]) -> Operation:
    def relation(machine: Machine, target: Value, source: Value, /) -> Value:
        other = make_set(machine, *collect(machine, source))
        return add_labels(holds(unbox(target), other), other.labels)

    return relation


METHODS[SetValue] = methods(
    {
        "add": _set_add,
        "clear": _set_clear,
        "copy": _set_copy,
        "difference": _set_combined("-"),
        "discard": _set_discard,
        "intersection": _set_combined("&"),
        "isdisjoint": _set_relation(lambda left, right: left.items.keys().isdisjoint(right.items)),
        "issubset": _set_relation(lambda left, right: left <= right),
        "issuperset": _set_relation(lambda left, right: left >= right),
        "pop": _set_pop,
        "remove": _set_remove,
        "symmetric_difference": _set_symmetric_difference,
        "union": _set_combined("|"),
        "update": precise(_set_update),
    }
)


_LINE_ENDS = ("\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
_CASE_METHODS = ("upper", "lower", "title", "capitalize", "casefold", "swapcase")
_PART_METHODS = (
    *("partition", "removeprefix", "removesuffix", "rfind", "rindex", "rpartition"),
    *("strip", "lstrip", "rstrip"),
)
_READING_METHODS = (
    *("startswith", "endswith", "find", "index", "count", "isalnum", "isalpha", "isascii"),
    *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace"),
    *("istitle", "isupper"),
)


def _growing_operation(function: Callable[..., Any], growth: int = 1) -> Implementation:
    # A search from the end compares at every position, and `strip` searches every character among
    # those to remove: both cost the product of the lengths.
    def guard(machine: Machine, text: Any, part: Any = None, *_: Any, **_named: Any) -> None:
        if isinstance(part, str | bytes):
            machine.pay_steps((len(text) * len(part)) >> 10)
        machine.pay_text(growth * len(text), text)

    return pure(function, guard)


def _reading_operation(function: Callable[..., Any]) -> Implementation:
    return pure(function, lambda machine, text, *_, **_named: machine.pay_steps(len(text) >> 8))


def _padding_operation(function: Callable[..., Any]) -> Implementation:
    def guard(
        machine: Machine, text: str, width: Any = 0, fill: Any = "", *_: Any, **_named: Any
    ) -> None:
        if isinstance(width, int) and isinstance(fill, str):
            machine.pay_text(max(len(text), width), text, fill)

    return pure(function, guard)


def _replace(machine: Machine, text: str, old: str, new: str, count: int = -1) -> str:
    if isinstance(old, str) and isinstance(new, str):
        machine.pay_steps(len(text) >> 8)
        replacements = text.count(old) if count < 0 else min(count, len(text) + 1)
        machine.pay_text(len(text) + replacements * max(len(new) - len(old), 0), text, new)
    return text.replace(old, new, count)


def _join(machine: Machine, separator: Value, source: Value, /) -> Value:
    items, _ = collect(machine, source)
    bare, mark = machine.strip_all_labels(items)
    text = unbox(separator)
    if not _TEXT.issuperset(map(type, bare)):
        index, wrong = next(pair for pair in enumerate(bare) if type(pair[1]) is not str)
        reason = f"sequence item {index}: expected str instance, {type_name(wrong)} found"
        machine.fail(TypeError, reason, mark)
    machine.pay_text(sum(map(len, bare)) + len(text) * len(bare), text, *bare)
    return add_labels(text.join(bare), mark)


_TEXT = frozenset({str})


def _split(function: Callable[..., Any]) -> Implementation:
    def call(machine: Machine, text: Any, sep: Any = None, maxsplit: int = -1) -> list[Any]:
        max_pieces = machine.limits.items
        splits = maxsplit if 0 <= maxsplit <= max_pieces else max_pieces + 1
        if isinstance(sep, str | bytes):
            machine.pay_steps((len(text) * len(sep)) >> 10)
        machine.pay_text(len(text), text)
        pieces: list[Any] = function(text, sep, splits)
        machine.pay_items(len(pieces), 80)
        return pieces

    return pure_with_machine(call)


def _splitlines(machine: Machine, text: str, keepends: bool = False) -> list[str]:  # noqa: FBT001, FBT002
    machine.pay_text(len(text), text)
    machine.pay_items(sum(map(text.count, _LINE_ENDS)) + 1, 80)
    return text.splitlines(keepends)


def _expandtabs(machine: Machine, text: str, tabsize: int = 8) -> str:
    if isinstance(tabsize, int):
        machine.pay_text(len(text) + text.count("\t") * max(tabsize, 0), text)
    return text.expandtabs(tabsize)


METHODS[str] = methods(
    {
        # A letter may become three when its case changes.
        **{name: _growing_operation(getattr(str, name), 3) for name in _CASE_METHODS},
        **{name: _growing_operation(getattr(str, name)) for name in _PART_METHODS},
        **{name: _reading_operation(getattr(str, name)) for name in _READING_METHODS},
        **{
            name: _padding_operation(getattr(str, name))
            for name in ("ljust", "rjust", "center", "zfill")
        },
        "encode": pure_with_machine(encode),
        "expandtabs": pure_with_machine(_expandtabs),
        "format": pure_with_machine(brace_format),
        "join": read_only(_join),
        "replace": pure_with_machine(_replace),
        "rsplit": _split(str.rsplit),
        "split": _split(str.split),
        "splitlines": pure_with_machine(_splitlines),
    }
)


# -- lists and tuples


def _listing(view: Callable[[Any], Iterable[Value]], size_of_each: int = 40) -> Implementation:
    """A method that makes a list of what is read of a list or dict."""

    def list_view(machine: Machine, target: Value, /) -> Value:
        inner, mark = split_labels(target)
        machine.pay_items(len(inner), size_of_each)
        return make_list(list(view(inner)), mark)

    return precise(list_view)


def _list_append(machine: Machine, target: Value, item: Value, /) -> None:
    inner, mark = split_labels(target)
    machine.check_items(len(inner) + 1)
    machine.pay_memory(40)
    inner.append(item)
    if mark is not None or machine.branch is not None:
        machine.label_changed(inner, mark)


def _list_extend(machine: Machine, target: Value, source: Value, /) -> None:
    inner, mark = split_labels(target)
    extend(machine, inner, mark, source)


def _list_insert(machine: Machine, target: Value, place: Value, item: Value, /) -> None:
    inner, mark = split_labels(target)
    index, index_mark = machine.strip_labels(place)
    machine.pay_items(len(inner) + 1, 1)
    inner.insert(index, item)
    machine.label_changed(inner, join_labels(mark, index_mark))


def _list_pop(machine: Machine, target: Value, place: Value = -1, /) -> Value:
    inner, mark = split_labels(target)
    index, index_mark = machine.strip_labels(place)
    mark = join_labels(mark, index_mark)
    machine.pay_steps(len(inner) >> 8)
    item = inner.pop(index)
    machine.label_changed(inner, mark)
    return add_labels(item, mark)


def _list_remove(machine: Machine, target: Value, item: Value, /) -> None:
    inner = unbox(target)
    bare, bare_item = machine.strip_labels(inner)[0], machine.strip_labels(item)[0]
    del inner[bare.index(bare_item)]  # `Machine.strip_labels` has paid for the search


@precise
def _list_clear(machine: Machine, target: Value, /) -> None:
    inner, mark = split_labels(target)
    inner.clear()
    machine.label_changed(inner, mark)


def _list_reverse(machine: Machine, target: Value, /) -> None:
    inner, mark = split_labels(target)
    machine.pay_steps(len(inner) >> 3)
    inner.reverse()
    machine.label_changed(inner, mark)


def _list_sort(
    machine: Machine, target: Value, /, *, key: Value = None, reverse: Value = False
) -> None:
    inner, mark = split_labels(target)
    items = list(inner)
    indices, order = sorted_indices(machine, items, mark, key=key, reverse=reverse)
    inner[:] = [items[index] for index in indices]
    machine.label_changed(inner, join_labels(mark, order))


# -- dicts


def _dict_get(machine: Machine, target: Value, key: Value, default: Value = None, /) -> Value:
    inner, mark = split_labels(target)
    (bare,), key_mark = hashable(machine, [key])
    if bare in inner and (fields := fields_of(target)) is not None:
        return item_of(inner, fields, bare, inner[bare], key_mark)
    return add_labels(inner.get(bare, default), join_labels(mark, key_mark))


def _dict_pop(machine: Machine, target: Value, key: Value, /, *default: Value) -> Value:
    inner, mark = split_labels(target)
    (bare,), key_mark = hashable(machine, [key])
    mark = join_labels(mark, key_mark)
    item = inner.pop(bare, *default)
    machine.label_changed(inner, mark)
    return add_labels(item, mark)


def _dict_popitem(machine: Machine, target: Value, /) -> Value:
    inner, mark = split_labels(target)
    item = inner.popitem()
    machine.label_changed(inner, mark)
    return add_labels(item, mark)


def _dict_setdefault(
    machine: Machine, target: Value, key: Value, default: Value = None, /
) -> Value:
    inner, mark = split_labels(target)
    (bare,), key_mark = hashable(machine, [key])
    if bare not in inner:
        store_key(machine, inner, mark, key, default)
    mark = join_labels(mark, key_mark)
    machine.label_changed(inner, mark)  # whether the key is new depends on these labels
    return add_labels(inner[bare], mark)


def _dict_update(machine: Machine, target: Value, source: Value = (), /, **named: Value) -> None:
    inner, mark = split_labels(target)
    update(machine, inner, mark, source)
    for key, value in named.items():
        store_key(machine, inner, mark, key, value)


def _dict_copy(machine: Machine, target: Value, /) -> Value:
    inner, mark = split_labels(target)
    machine.pay_items(len(inner), 100)
    result: DictValue[Any, Value] = DictValue(inner)
    result.labels = mark
    return result


def _dict_fromkeys(machine: Machine, keys: Value, value: Value = None, /) -> Value:
    items, mark = collect(machine, keys)
    key_set = make_set(machine, items, mark)
    result: DictValue[Any, Value] = DictValue(dict.fromkeys(key_set.items, value))
    result.labels = key_set.labels
    return result


def _dict_most_common(machine: Machine, target: Value, n: Value = None) -> Value:
    inner = unbox(target)
    if not inner.is_counter:
        machine.fail(AttributeError, "'dict' object has no attribute 'most_common'")
    machine.pay_items(len(inner), 120)
    pairs = list(inner.items())
    counts = [value for _, value in pairs]
    indices, _ = sorted_indices(machine, counts, None, reverse=True)
    number, _ = machine.strip_labels(n)
    return ListValue([pairs[index] for index in indices][:number])


# -- attributes


def _type_attribute(inner: TypeValue, name: str) -> Value:
    if name in CLASS_MEMBERS.get(inner.name, ()):
        return CLASS_MEMBERS[inner.name][name]
    owner = next((k for k in inner.types if name in METHODS.get(k, ())), None)
    if owner is None:
        return MISSING

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        # The method has a label rule itself.
        value, mark = split_labels(args[0]) if args else (None, None)
        if not isinstance(value, inner.types):
            wrong = type_name(value)
            machine.fail(TypeError, f"'{name}' needs a '{inner.name}' but got '{wrong}'", mark)
        return METHODS[type(value)][name](machine, args, named)

    return Builtin(name, call)


def _hex(data: bytes, *form: Any, **named: Any) -> str:
    sep = form[0] if form else named.get("sep", "")
    if isinstance(sep, ErrorValue | Record):  # which have a length here, but not in Python
        msg = f"sep must be str or bytes, not {type_name(sep)}"
        raise TypeError(msg)
    return data.hex(*form, **named)


CLASS_MEMBERS["dict"] = functions({"fromkeys": precise(_dict_fromkeys)})
METHODS[bytes] = methods({"decode": pure_with_machine(decode), "hex": _growing_operation(_hex, 3)})
METHODS[int] = {"bit_length": pure(int.bit_length)}
METHODS[bool] = METHODS[int]
METHODS[float] = {"is_integer": pure(float.is_integer), "hex": pure(float.hex)}
METHODS[ListValue] = methods(
    {
        "append": precise(_list_append),
        "clear": _list_clear,
        "copy": _listing(iter),
        "count": pure(list.count),
        "extend": precise(_list_extend),
        "index": pure(list.index),
        "insert": precise(_list_insert),
        "pop": precise(_list_pop),
        "remove": _list_remove,
        "reverse": precise(_list_reverse),
        "sort": precise(_list_sort),
    }
)
METHODS[tuple] = {"count": pure(tuple.count), "index": pure(tuple.index)}
METHODS[DictValue] = methods(
    {
        "clear": _list_clear,
        "copy": precise(_dict_copy),
        "get": precise(_dict_get),
        "items": _listing(dict.items, 120),
        "keys": _listing(dict.keys),
        "most_common": read_only(_dict_most_common),
        "pop": precise(_dict_pop),
        "popitem": precise(_dict_popitem),
        "setdefault": precise(_dict_setdefault),
        "update": precise(_dict_update),
        "values": _listing(dict.values),
    }
)
ATTRIBUTES[TypeValue] = _type_attribute
ATTRIBUTES[ErrorValue] = lambda error, name: error.args if name == "args" else MISSING
