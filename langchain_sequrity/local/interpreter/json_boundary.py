"""Conversion between JSON and values of programs, at the boundary of the interpreter.

Incoming values are copied, so that neither side can change the other's data. Outgoing values are
bare; their labels are the join of all labels in them.
"""

import base64
import datetime as dt
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NoReturn

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, FieldLabels, Labeled, Labels
from langchain_sequrity.local.interpreter.data_types import as_data_type, pay_for_schema
from langchain_sequrity.local.interpreter.faults import NoJsonForm
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    FieldMarks,
    ListValue,
    Record,
    SetValue,
    Value,
    add_fields,
    add_labels,
    as_mark,
    type_name,
)

_DEEPEST = 200
_ATOMS = frozenset({type(None), bool, int, str})
_WIDEST_INTEGER = 14_000  # bits: Python writes integers of up to 4,300 digits


def check_json(value: Any, depth: int = 0) -> Any:
    """Copy a JSON value from outside.

    Raises:
        UsageError: If it is not a JSON value, or is nested too deeply.
    """
    if depth > _DEEPEST:
        msg = f"A JSON value for a program is nested more than {_DEEPEST} levels deep."
        raise UsageError(msg)
    value_type = type(value)
    if value_type in _ATOMS:
        return value
    if value_type is float and math.isfinite(value):
        return value
    below = depth + 1
    if value_type is list:
        return [item if type(item) in _ATOMS else check_json(item, below) for item in value]
    if value_type is dict and all(type(key) is str for key in value):
        return {
            key: item if type(item) in _ATOMS else check_json(item, below)
            for key, item in value.items()
        }
    msg = f"A program takes JSON values only, but got {reprlib.repr(value)}."
    raise UsageError(msg)


def value_from_json(machine: Machine, labeled: Labeled) -> Value:
    """Convert a JSON value to a value of the program. Its labels apply to everything in it."""
    value = _from_json(machine, labeled.value)
    if type(labeled.labels) is FieldLabels:
        return add_fields(value, field_marks(labeled.labels))
    return add_labels(value, as_mark(labeled.labels))


def field_marks(labels: FieldLabels) -> FieldMarks:
    """The labels of fields by the names of the objects that are on their path."""
    tree: dict[str, Any] = {}
    for path, field_labels in labels.fields:
        names = [name.replace("~1", "/").replace("~0", "~") for name in path.split("/")]
        items = tree
        for name in names[:-1]:
            items = items.setdefault(name, (None, {}))[1]
        items[names[-1]] = field_labels, items.get(names[-1], (None, {}))[1]
    return _marks(labels.rest, tree)


def _marks(rest: Labels, tree: Mapping[str, tuple[Labels | None, Any]]) -> FieldMarks:
    items = {name: _marks(labels or rest, inner) for name, (labels, inner) in tree.items()}
    whole = reduce(Labels.join, (item.labels for item in items.values()), rest)
    return FieldMarks(whole, as_mark(rest), items)


def _from_json(machine: Machine, value: Any) -> Value:
    if type(value) is dict:
        machine.pay_items(len(value), 100)
        return DictValue((key, _from_json(machine, item)) for key, item in value.items())
    if type(value) is list:
        machine.pay_items(len(value))
        return ListValue(_from_json(machine, item) for item in value)
    if type(value) is str:
        machine.pay_text(len(value), value)
    elif type(value) is int:
        machine.pay_bits(value.bit_length())
    return value


def value_to_json(machine: Machine, value: Value) -> Labeled:
    """Convert a value of the program to JSON.

    Types that JSON lacks are written like this:

    | Value | JSON |
    |---|---|
    | tuple, set, range | list |
    | dict with keys that are numbers, booleans or `None` | object; keys as in `json.dumps` |
    | date, datetime, time | text, ISO 8601 |
    | timedelta | number, seconds |
    | bytes | text, Base64 |
    | instance of a model | object of its fields |
    | type, model | object, its JSON Schema |

    Raises:
        NoJsonForm: For everything else, including NaN and infinity.
    """
    bare, mark = machine.strip_labels(value)
    labels = mark or NO_LABELS
    try:
        return Labeled(_to_json(machine, bare, 0), labels)
    except NoJsonForm as failure:
        raise NoJsonForm(failure.type_name, str(failure), labels) from None


def _to_json(machine: Machine, value: Value, depth: int) -> Any:
    if depth > _DEEPEST:
        _refuse(ValueError, "A value is nested too deeply, or contains itself.")
    write = _FORMS.get(type(value))
    if write is not None:
        return write(machine, value, depth + 1)
    data_type = as_data_type(value)
    if data_type is None:
        _refuse(TypeError, f"A value of type `{type_name(value)}` has no JSON form.")
    pay_for_schema(machine, data_type)
    schema = data_type.json_schema()
    machine.pay_text(len(json.dumps(schema)), "")
    try:
        return check_json(schema, depth)
    except UsageError as error:
        _refuse(ValueError, str(error))


def _refuse(error_type: type[Exception], message: str) -> NoReturn:
    raise NoJsonForm(error_type.__name__, message, NO_LABELS)


def _items(machine: Machine, values: Any, depth: int) -> list[Any]:
    machine.pay_items(len(values), 8)
    return [_to_json(machine, value, depth) for value in values]


def _numbers(machine: Machine, numbers: range, depth: int) -> list[Any]:
    try:
        len(numbers)
    except OverflowError:
        _refuse(ValueError, "A range of that size has no JSON form.")
    return _items(machine, numbers, depth)


def _fields(machine: Machine, value: Any, depth: int) -> dict[str, Any]:
    machine.pay_items(len(value), 100)
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(machine, key)
        if name in result:
            _refuse(ValueError, "Two keys of a dict have the same JSON form.")
        result[name] = _to_json(machine, item, depth)
    return result


def _key(machine: Machine, key: Value) -> str:
    if isinstance(key, str):
        return _text(machine, key, 0)
    if isinstance(key, int | float | None):
        return json.dumps(_to_json(machine, key, 0))
    return _refuse(TypeError, f"A key of type `{type_name(key)}` has no JSON form.")


def _text(machine: Machine, value: str, _: int) -> str:
    # A text that occurs several times is written several times.
    machine.pay_text(len(value), value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(ValueError, "A text with a lone surrogate has no JSON form.")
    return value


def _integer(machine: Machine, value: int, _: int) -> int:
    machine.pay_bits(value.bit_length())
    if value.bit_length() > _WIDEST_INTEGER:
        _refuse(ValueError, "An integer of that size has no JSON form.")
    return value


def _number(_: Machine, value: float, __: int) -> float:
    if not math.isfinite(value):
        _refuse(ValueError, "NaN and infinity have no JSON form.")
    return value


_FORMS: dict[type, Callable[[Machine, Any, int], Any]] = {
    **dict.fromkeys((bool, type(None)), lambda _, value, __: value),
    int: _integer,
    float: _number,
    str: _text,
    bytes: lambda machine, value, _: _text(machine, base64.b64encode(value).decode(), 0),
    **dict.fromkeys((dt.date, dt.datetime, dt.time), lambda _, value, __: value.isoformat()),
    dt.timedelta: lambda _, value, __: value.total_seconds(),
    **dict.fromkeys((ListValue, tuple, SetValue), _items),
    range: _numbers,
    DictValue: _fields,
    Record: lambda machine, value, depth: _fields(machine, value.fields, depth),
}
