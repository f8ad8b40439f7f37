"""Built-in functions and types: a table of everything that exists."""

import builtins as python
import itertools
from collections.abc import Iterator
from typing import Any

from langchain_sequrity.local.interpreter.calls import (
    MISSING,
    Implementation,
    call_value,
    functions,
    precise,
    pure,
    pure_with_machine,
    read_only,
    with_exception,
    with_program_name,
)
from langchain_sequrity.local.interpreter.containers import (
    make_list,
    make_set,
    sort_keys,
    sorted_indices,
    update,
)
from langchain_sequrity.local.interpreter.data_types import UnionType
from langchain_sequrity.local.interpreter.faults import Exit, ToolError, ValidationError
from langchain_sequrity.local.interpreter.formatting import as_repr, as_text, convert
from langchain_sequrity.local.interpreter.iteration import (
    collect,
    iterate,
    lazy_iterator,
    open_choice_on,
    pay_for_numbers,
    records,
)
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import binary
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    FunctionValue,
    IteratorValue,
    ListValue,
    Mark,
    Method,
    Record,
    SetValue,
    ToolValue,
    TypeValue,
    Value,
    add_fields,
    add_labels,
    box_mark,
    fields_of,
    join_labels,
    split_labels,
    type_name,
    unbox,
)


def _length(machine: Machine, value: Value, /) -> Value:
    inner, mark = split_labels(value)
    if type(inner) not in _SIZED:
        machine.fail(TypeError, f"object of type '{type_name(inner)}' has no len()")
    return add_labels(len(inner), mark)


_SIZED = frozenset({str, bytes, tuple, range, ListValue, DictValue, SetValue})


def _set(machine: Machine, source: Value = (), /) -> Value:
    return make_set(machine, *collect(machine, source))


def _list(machine: Machine, source: Value = (), /) -> Value:
    return make_list(*collect(machine, source))


def _tuple(machine: Machine, source: Value = (), /) -> Value:
    items, mark = collect(machine, source)
    return add_labels(tuple(items), mark)


def _dict(machine: Machine, source: Value = (), /, **named: Value) -> Value:
    result: DictValue[Any, Value] = DictValue()
    update(machine, result, None, source)
    machine.pay_items(len(named), 100)
    result.update(named)
    return result


def _pay_for_bounds(machine: Machine, *bounds: Value, **_: Value) -> None:
    for bound in bounds:
        if isinstance(bound, int):
            machine.pay_bits(bound.bit_length())


def _pay_for_digits(machine: Machine, number: Value = None, *_: Value, **_named: Value) -> None:
    if isinstance(number, int):
        machine.pay_text(number.bit_length() + 3, "")


def _enumerate(machine: Machine, iterable: Value, start: Value = 0) -> Value:
    begin, mark = machine.strip_labels(start)
    if not isinstance(begin, int):
        machine.fail(TypeError, f"'{type_name(begin)}' object is not an integer")
    numbers = pay_for_numbers(machine, itertools.count(begin))
    rows = zip(numbers, iterate(machine, iterable), strict=False)
    return lazy_iterator(machine, [iterable], rows, mark)


def _zip(machine: Machine, /, *sources: Value, strict: Value = False) -> Value:
    is_strict, mark = machine.truth(strict)
    rows = zip(*(iterate(machine, source) for source in sources), strict=is_strict)
    return lazy_iterator(machine, list(sources), rows, mark)


def _map(machine: Machine, function: Value, /, *sources: Value) -> Value:
    readers = [iterate(machine, source) for source in sources]
    if not sources:
        machine.fail(TypeError, "map() must have at least two arguments.")

    def read() -> Iterator[Value]:
        for items in zip(*readers, strict=False):
            open_choice_on(machine, list(sources))
            yield call_value(machine, function, list(items), {})

    return lazy_iterator(machine, list(sources), read(), calls=function)


def _filter(machine: Machine, test: Value, source: Value, /) -> Value:
    def read() -> Iterator[Value]:
        for element in iterate(machine, source):
            open_choice_on(machine, [source])
            verdict = element if unbox(test) is None else call_value(machine, test, [element], {})
            is_kept, mark = machine.truth(verdict)
            machine.label_changed(result, mark)  # the position of the next element depends on it
            if is_kept:
                yield element

    result = lazy_iterator(machine, [source], read(), box_mark(test), calls=test)
    return result


def _reversed(machine: Machine, value: Value, /) -> Value:
    inner = unbox(value)
    if type(inner) not in _SIZED or type(inner) is SetValue:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not reversible")
    items, mark = collect(machine, value)
    return IteratorValue(reversed(items), mark)


def _iter(machine: Machine, value: Value, /) -> Value:
    if type(unbox(value)) is IteratorValue:
        return value
    return lazy_iterator(machine, [value], iterate(machine, value))


def _next(machine: Machine, iterator: Value, default: Value = MISSING, /) -> Value:
    inner = unbox(iterator)
    if type(inner) is not IteratorValue:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not an iterator")
    for element in iterate(machine, iterator):
        return element
    if default is MISSING:
        machine.fail(StopIteration, "")
    return add_labels(default, split_labels(iterator)[1])


def _sorted(
    machine: Machine, values: Value, /, *, key: Value = None, reverse: Value = False
) -> Value:
    items, mark = collect(machine, values)
    if (fields := fields_of(values)) is not None and type(unbox(values)) is ListValue:
        indices, order = sorted_indices(machine, records(values), mark, key=key, reverse=reverse)
        order = join_labels(unbox(values).labels, order)
        return add_fields(make_list([items[index] for index in indices], order), fields)
    indices, order = sorted_indices(machine, items, mark, key=key, reverse=reverse)
    return make_list([items[index] for index in indices], join_labels(mark, order))


def _extreme(name: str, *, largest: bool) -> Implementation:
    """`max` or `min`. Of records with labels of fields, it reads one and the keys of all."""
    choose = max if largest else min

    def index_of(machine: Machine, bare: list[Value], mark: Mark) -> int:
        index: int = machine.run_guarded(
            mark, lambda: choose(range(len(bare)), key=bare.__getitem__)
        )
        return index

    def chosen_record(
        machine: Machine, values: Value, /, *, key: Value, default: Value = None
    ) -> Value:
        del default  # there are items
        items, mark = records(values), split_labels(values)[1]
        bare, order = sort_keys(machine, items, mark, key)
        return add_labels(items[index_of(machine, bare, join_labels(mark, order))], order)

    def call(
        machine: Machine, /, *args: Value, key: Value = None, default: Value = MISSING
    ) -> Value:
        items, mark = collect(machine, args[0]) if len(args) == 1 else (list(args), None)
        if not args:
            machine.fail(TypeError, f"{name} expected at least 1 argument, got 0")
        if len(args) > 1 and default is not MISSING:
            reason = f"Cannot specify a default for {name}() with multiple positional arguments"
            machine.fail(TypeError, reason)
        bare, order = sort_keys(machine, items, mark, key)
        if not items:
            if default is not MISSING:
                return default
            machine.fail(ValueError, f"{name}() arg is an empty sequence")
        mark = join_labels(mark, order)
        return add_labels(items[index_of(machine, bare, mark)], mark)

    return with_exception(read_only(call), _are_records, precise(chosen_record))


def _are_records(args: list[Value], named: dict[str, Value]) -> bool:
    """Whether a list with labels of fields is searched by keys; an empty one has none to give."""
    if len(args) != 1 or fields_of(args[0]) is None or unbox(named.get("key")) is None:
        return False
    return type(inner := unbox(args[0])) is ListValue and bool(inner)


def _sum(machine: Machine, values: Value, /, start: Value = 0) -> Value:
    if isinstance(unbox(start), str | bytes):
        machine.fail(TypeError, "sum() can't sum strings [use ''.join(seq) instead]")
    items, _ = collect(machine, values)
    if start == 0 and type(start) is int and _FLAT.issuperset(map(type, items)):
        # Large integers are allowed here: their bits were charged, and those of the sum are now.
        bits = max((abs(item).bit_length() for item in items if type(item) is int), default=0)
        machine.pay_bits(bits + 64)
        return sum(items)
    total = start
    for item in items:
        machine.pay_steps(1)
        total = binary(machine, "+", total, item)
    return total


_FLAT = frozenset({int, float, bool})


def _quantifier(*, stops_at: bool) -> Any:
    def call(machine: Machine, values: Value, /) -> Value:
        inner = unbox(values)
        for element in iterate(machine, values):
            is_true, mark = machine.truth(element)
            if type(inner) is IteratorValue:
                # Its position depends on which elements were true.
                machine.label_changed(inner, mark)
            if is_true is stops_at:
                return stops_at
        return not stops_at

    return call


def _isinstance(machine: Machine, value: Value, kinds: Value, /) -> Value:
    inner, mark = split_labels(value)
    bare, kinds_mark = machine.strip_labels(kinds)
    return add_labels(_is_instance(machine, inner, bare), join_labels(mark, kinds_mark))


def _is_instance(machine: Machine, value: Value, type_: Value) -> bool:
    if isinstance(type_, tuple):
        return any(_is_instance(machine, value, member) for member in type_)
    if type(type_) is UnionType:
        return any(
            value is None if member is None else _is_instance(machine, value, member)
            for member in type_.members
        )
    if type(type_) is TypeValue:
        return isinstance(value, type_.types)
    if type(type_) is ErrorType:
        return type(value) is ErrorValue and is_error(value.type, type_)
    if hasattr(type(type_), "instantiate"):
        return isinstance(value, Record) and type_ in value.model.ancestry
    return machine.fail(TypeError, "isinstance() arg 2 must be a type or a tuple of types")


def is_error(error_type: ErrorType, base: ErrorType) -> bool:
    """Whether the first type is the second or is derived from it."""
    if base.parent is None:
        return issubclass(error_type.python_type, base.python_type)
    ancestor: ErrorType | None = error_type
    while ancestor is not None and ancestor is not base:
        ancestor = ancestor.parent
    return ancestor is not None


def _callable(_: Machine, value: Value, /) -> Value:
    callables = (FunctionValue, Builtin, TypeValue, Method, ErrorType, ToolValue)
    inner, mark = split_labels(value)
    return add_labels(isinstance(inner, callables) or hasattr(type(inner), "instantiate"), mark)


def _exit(machine: Machine, code: Value = None, /) -> Value:
    bare, mark = machine.strip_labels(code)
    raise Exit(bare, join_labels(mark, machine.branch))


def _text(machine: Machine, value: Value = "", encoding: Value = MISSING) -> str:
    if encoding is not MISSING:
        return decode(machine, value, encoding)
    return as_text(machine, value)


ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "latin-1", "latin1", "utf-16", "utf-32"})


def check_encoding(machine: Machine, encoding: str) -> None:
    """Refuse all but the usual encodings of text. Other codecs can run code or decompress."""
    if not isinstance(encoding, str):
        machine.fail(TypeError, f"encoding must be str, not {type_name(encoding)}")
    if encoding.lower() not in ENCODINGS:
        machine.fail(LookupError, "unknown encoding; use utf-8, ascii, latin-1 or utf-16")


def decode(machine: Machine, data: bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """`bytes.decode`."""
    if not isinstance(data, bytes):
        machine.fail(TypeError, f"decoding to str: need bytes, {type_name(data)} found")
    check_encoding(machine, encoding)
    machine.pay_text(8 * len(data), data)
    return bytes.decode(data, encoding, errors)


def encode(machine: Machine, text: str, encoding: str = "utf-8", errors: str = "strict") -> bytes:
    """`str.encode`."""
    check_encoding(machine, encoding)
    # `namereplace` writes the names of characters, of up to 88 letters.
    machine.pay_text((100 if errors == "namereplace" else 10) * len(text), "")
    return str.encode(text, encoding, errors)


def _bytes(machine: Machine, source: Value = b"", encoding: Value = MISSING) -> bytes:
    if isinstance(source, str):
        if encoding is MISSING:
            machine.fail(TypeError, "string argument without an encoding")
        return encode(machine, source, encoding)
    if encoding is not MISSING:
        machine.fail(TypeError, "encoding without a string argument")
    if isinstance(source, int):
        machine.pay_text(source, b"")
    if isinstance(source, SetValue | range | tuple | list):
        machine.pay_items(len(source))
    return bytes(source)


def _int(machine: Machine, value: Value = 0, base: Value = None) -> int:
    if isinstance(value, str | bytes):
        # A base that is not a power of two takes quadratic time; Python stops at 4300 digits.
        machine.pay_bits(4 * len(value) if base in (2, 4, 8, 16, 32) else 0)
        machine.pay_steps(len(value) >> 6)
    return int(value) if base is None else int(value, base)


def _float(machine: Machine, value: Value = 0.0) -> float:
    if isinstance(value, str | bytes):
        machine.pay_steps(len(value) >> 4)
    return float(value)


def _power(machine: Machine, base: Value, exp: Value, mod: Value = None) -> Value:
    if mod is None:
        return binary(machine, "**", base, exp)
    if isinstance(exp, int) and isinstance(mod, int):
        # One squaring per bit of the exponent: for the largest numbers this takes seconds.
        machine.pay_steps(exp.bit_length() * mod.bit_length() ** 2 >> 16)
        machine.pay_bits(mod.bit_length())
    return pow(base, exp, mod)


def _type_of(machine: Machine, value: Value, /) -> Value:
    inner, mark = split_labels(value)
    value_type: Value
    if isinstance(inner, ErrorValue):
        value_type = inner.type
    elif isinstance(inner, Record):
        value_type = inner.model
    elif type(inner) in TYPE_OF:
        value_type = TYPE_OF[type(inner)]
    else:
        machine.fail(TypeError, "type() of this value is not supported. Use isinstance().")
    return add_labels(value_type, mark)


def _ascii(machine: Machine, value: Value) -> str:
    return convert(machine, value, "a", "")


def _format(machine: Machine, value: Value, spec: str = "") -> str:
    if not isinstance(spec, str):
        machine.fail(TypeError, f"format() argument 2 must be str, not {type_name(spec)}")
    return convert(machine, value, None, spec)


def _round(machine: Machine, number: Value, ndigits: Value = None) -> Value:
    if isinstance(ndigits, int) and abs(ndigits) > machine.limits.bits:
        machine.exhaust("bits", machine.limits.bits)
    return round(number, ndigits)


TYPES = {
    name: TypeValue(name, with_program_name(name, call), (python_type,))
    for name, call, python_type in (
        ("bool", pure(bool), bool),
        ("int", pure_with_machine(_int), int),
        ("float", pure_with_machine(_float), float),
        ("str", pure_with_machine(_text), str),
        ("bytes", pure_with_machine(_bytes), bytes),
        ("list", precise(_list), ListValue),
        ("tuple", precise(_tuple), tuple),
        ("dict", precise(_dict), DictValue),
        ("set", read_only(_set), SetValue),
        ("range", pure(range, _pay_for_bounds), range),
    )
}
# The results of `type()`. `modules` adds those of dates and times.
TYPE_OF: dict[type, TypeValue] = {
    **{python_type: entry for entry in TYPES.values() for python_type in entry.types},
    type(None): TypeValue("NoneType", pure(lambda: None), (type(None),)),
}
_EXCEPTIONS = [
    member
    for member in vars(python).values()
    if isinstance(member, type) and issubclass(member, Exception)
    if not issubclass(member, Warning | python.BaseExceptionGroup)
]
ERRORS = {
    error.__name__: ErrorType(error.__name__, error)
    for error in [*_EXCEPTIONS, ToolError, ValidationError]
}
ERRORS["IOError"] = ERRORS["EnvironmentError"] = ERRORS["OSError"]
BUILTINS: dict[str, Value] = {
    **TYPES,
    **{name: error for name, error in ERRORS.items() if name != "ValidationError"},
    **functions(
        {
            "abs": pure(abs, _pay_for_bounds),
            "all": read_only(_quantifier(stops_at=False)),
            "any": read_only(_quantifier(stops_at=True)),
            "ascii": pure_with_machine(_ascii),
            "bin": pure(bin, _pay_for_digits),
            "callable": precise(_callable),
            "chr": pure(chr),
            "divmod": pure(divmod, _pay_for_bounds),
            "enumerate": precise(_enumerate),
            "exit": _exit,
            "filter": precise(_filter),
            "format": pure_with_machine(_format),
            "hex": pure(hex, _pay_for_digits),
            "isinstance": precise(_isinstance),
            "iter": precise(_iter),
            "len": precise(_length),
            "map": precise(_map),
            "max": _extreme("max", largest=True),
            "min": _extreme("min", largest=False),
            "next": precise(_next),
            "oct": pure(oct, _pay_for_digits),
            "ord": pure(ord),
            "pow": pure_with_machine(_power),
            "quit": _exit,
            "repr": pure_with_machine(as_repr),
            "reversed": precise(_reversed),
            "round": pure_with_machine(_round),
            "sorted": precise(_sorted),
            "sum": read_only(_sum),
            "type": precise(_type_of),
            "zip": precise(_zip),
        }
    ),
}
