"""Formatting: f-strings, `format` and `%`. Widths are checked before anything is written.

Python's `str.format` reads attributes and items of its arguments. Here a field can only name an
argument.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ErrorValue,
    ListValue,
    Record,
    SetValue,
    Value,
    type_name,
)

_DIGITS = regex.compile(r"[0-9]+")
# A match is one whole field, as in Python, so a `%` within a field begins no other match. If the
# group contains `(`, the key has brackets, which hide the width; such a field is refused.
_PERCENT = regex.compile(r"%(?:\([^()]*\))?([-+ #0-9.*(]*)[hlL]?.?", regex.DOTALL)
_FORMATTABLE = (str, int, float)
_WIDEST = 10_000
_LITERAL_SIZE = 400  # a float without an exponent has at most this many digits


def written_size(value: Value) -> int:  # noqa: PLR0911 - one per kind
    """An upper bound for the length of `repr` of a bare value; integers count by their bits."""
    if isinstance(value, str | bytes):
        return 10 * len(value) + 3 if not value.isascii() else 4 * len(value) + 3
    if isinstance(value, bool) or value is None:
        return 5
    if isinstance(value, int):
        return value.bit_length() // 3 + 2
    if isinstance(value, ListValue | tuple):
        return sum(map(written_size, value)) + 2 * len(value) + 3
    if isinstance(value, DictValue):
        return sum(written_size(k) + written_size(v) + 4 for k, v in value.items()) + 2
    if isinstance(value, SetValue):
        return sum(map(written_size, value)) + 2 * len(value) + 5
    if isinstance(value, Record):
        fields = value.fields.items()
        return sum(len(k) + written_size(v) + 3 for k, v in fields) + len(value.model.name) + 2
    if isinstance(value, ErrorValue):
        return written_size(value.args) + len(value.type.name)
    return 400


def as_text(machine: Machine, value: Value) -> str:
    """`str` of a bare value."""
    if type(value) is str:
        return value
    machine.pay_text(written_size(value), "")
    return checked_str(value)


def as_repr(machine: Machine, value: Value) -> str:
    """`repr` of a bare value."""
    machine.pay_text(written_size(value), "")
    return repr(value) if _has_repr(value) else f"<{type_name(value)}>"


def checked_str(value: Value) -> str:
    """`str` of a bare value whose size was checked."""
    return str(value) if _has_repr(value) else f"<{type_name(value)}>"


def _has_repr(value: Value) -> bool:
    # Python's `repr` of functions and iterators shows addresses.
    value_type = type(value)
    return value_type in _TYPES_WITH_REPR or value_type.__module__ == "datetime"


_TYPES_WITH_REPR = frozenset(
    {str, int, float, bool, type(None), bytes, tuple, range, ListValue, DictValue, SetValue}
    | {Record, ErrorValue}
)


def format_with_spec(machine: Machine, value: Value, spec: str) -> str:
    """`format(value, spec)` of bare values."""
    if not spec:
        return as_text(machine, value)
    machine.pay_text(_spec_size(machine, spec) + written_size(value) + _LITERAL_SIZE, spec)
    if type(value).__module__ == "datetime":
        return clock_format(machine, value, spec)
    if not isinstance(value, _FORMATTABLE):
        name = type_name(value)
        machine.fail(TypeError, f"unsupported format string passed to {name}.__format__")
    return str(format(value, spec))


def _spec_size(machine: Machine, spec: str) -> int:
    size = 0
    for digits in _DIGITS.findall(spec):
        if len(digits) > len(str(_WIDEST)) or int(digits) > _WIDEST:
            machine.exhaust("width of a format", _WIDEST)
        size += int(digits)
    return size


def clock_format(machine: Machine, value: Any, spec: str) -> str:
    """`strftime`. Widths are refused: the C library would fill memory for a large one."""
    if _DIGITS.search(spec) and regex.search(r"%[^a-zA-Z%]*[0-9]", spec):
        machine.fail(ValueError, "A width in a date's format is not supported.")
    machine.pay_text(40 * len(spec), spec)
    return format(value, spec) if spec else str(value)


def percent_format(machine: Machine, template: str, values: Value) -> str:
    """`template % values`, of bare values."""
    specs = _PERCENT.findall(template)
    if any("*" in spec or "(" in spec for spec in specs):
        message = "`*` and brackets in keys of a % format are not supported. Use an f-string."
        machine.fail(ValueError, message)
    size = 4 * len(template) + 2 * written_size(values) + _LITERAL_SIZE * len(specs)
    machine.pay_text(size + sum(_spec_size(machine, spec) for spec in specs), "")
    return str(template % values)


class _BraceFormatter(string.Formatter):
    """Formats with the limits of a run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_field(self, field_name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Any:
        """Find the argument that a field names."""
        if "." in field_name or "[" in field_name:
            message = "Fields of `format` cannot contain a dot or brackets here. Use an f-string."
            self._machine.fail(ValueError, message)
        return super().get_field(field_name, args, kwargs)

    def convert_field(self, value: Value, conversion: str | None) -> Value:
        """Apply `!r`, `!s` or `!a`."""
        return _converted(self._machine, value, conversion)

    def format_field(self, value: Value, format_spec: str) -> str:
        """Apply the format spec."""
        text = format_with_spec(self._machine, value, format_spec)
        self._machine.pay_text(len(text), text)
        return text


def brace_format(machine: Machine, template: str, *args: Value, **named: Value) -> str:
    """`template.format(*args, **named)`, of bare values."""
    machine.pay_text(len(template), template)
    machine.pay_steps(template.count("{") + template.count("}"))
    text = _BraceFormatter(machine).vformat(template, args, named)
    machine.pay_text(len(text), text)
    return text


def convert(machine: Machine, value: Value, conversion: str | None, spec: str) -> str:
    """Format one field: convert it (`r`, `s`, `a` or `None`), then apply the format spec."""
    return format_with_spec(machine, _converted(machine, value, conversion), spec)


def _converted(machine: Machine, value: Value, conversion: str | None) -> Value:
    if conversion == "s":
        return as_text(machine, value)
    if conversion == "r":
        return as_repr(machine, value)
    if conversion == "a":
        return as_repr(machine, value).encode("ascii", "backslashreplace").decode("ascii")
    return value
