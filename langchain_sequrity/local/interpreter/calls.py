"""Calling: functions of Python on bare values, and whatever a program holds that can be called."""

from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.enums import EnumType
from langchain_sequrity.local.interpreter.machine import ATOMS, Machine
from langchain_sequrity.local.interpreter.operators import guard_errors
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    Function,
    ListValue,
    Method,
    SetValue,
    Tool,
    TypeValue,
    Value,
    join,
    strip,
    tag,
    take,
    type_name,
)

Implementation = Callable[[Machine, list[Value], dict[str, Value]], Value]
Guard = Callable[..., None]


def pure(function: Callable[..., Any], guard: Guard | None = None) -> Implementation:
    """Make a function of the language from one of Python that only looks at its arguments.

    Args:
        function: It is given bare values.
        guard: Called before it with the machine and the same arguments, to check sizes.

    Returns:
        A function whose result carries the labels of everything in its arguments.
    """

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        bare, mark = machine.bare_all(args)
        if named:
            values, named_mark = machine.bare_all(list(named.values()))
            named, mark = dict(zip(named, values, strict=True)), join(mark, named_mark)

        def run() -> Value:
            if guard is not None:
                guard(machine, *bare, **named)
            return adopt(function(*bare, **named))

        return tag(guard_errors(machine, mark, run), mark)

    return call


def sized(function: Callable[..., Any]) -> Implementation:
    """Do the same for a function that gets the machine first and checks sizes itself."""

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        def with_machine(*bare: Value, **values: Value) -> Any:
            return function(machine, *bare, **values)

        return pure(with_machine)(machine, args, named)

    return call


def adopt(value: Any) -> Value:
    """Turn Python's containers into values; numbers, texts and times are values already."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is list:
        return ListValue(value if ATOMS.issuperset(map(type, value)) else map(adopt, value))
    if kind is dict:
        return DictValue((key, adopt(item)) for key, item in value.items())
    if kind is tuple:
        return tuple(map(adopt, value))
    if kind is set or kind is frozenset:
        return SetValue(dict.fromkeys(value))
    return value


def call_value(
    machine: Machine, callee: Value, args: list[Value], named: dict[str, Value]
) -> Value:
    """Call any value; the labels of the callee count for the result."""
    inner, mark = take(callee)
    kind = type(inner)
    if kind is Function:
        result = inner.call(args, named)
    elif kind is Builtin or kind is TypeValue:
        result = inner.call(machine, args, named)
    elif kind is Method:
        result = call_method(machine, inner.target, inner.name, args, named)
    elif kind is ErrorType:
        result = make_error(machine, inner, args, named)
    elif kind is Tool:
        result = call_tool(machine, inner.name, args, named)
    elif kind is EnumType:
        result = enum_member(machine, inner, args)
    elif hasattr(kind, "instantiate"):
        result = inner.instantiate(machine, args, named)
    else:
        machine.fail(TypeError, f"'{type_name(inner)}' object is not callable", mark)
    return tag(result, mark)


def enum_member(machine: Machine, enum: EnumType, args: list[Value]) -> Value:
    """`Color("red")`."""
    bare, mark = machine.bare_all(args)
    for member in enum:
        if len(bare) == 1 and (member.value == bare[0] or member == bare[0]):
            return tag(member, mark)
    return machine.fail(ValueError, f"not a valid {enum.name}", mark)


def make_error(
    machine: Machine, error_type: ErrorType, args: list[Value], named: dict[str, Value]
) -> ErrorValue:
    """`ValueError("text")`."""
    if named:
        machine.fail(TypeError, f"{error_type.name}() takes no keyword arguments")
    bare, mark = machine.bare_all(args)
    if error_type.parent is None:
        # Some types want certain arguments, and `OSError` becomes another one for some.
        kind = type(guard_errors(machine, mark, lambda: error_type.kind(*bare)))
        if kind is not error_type.kind:
            error_type = ErrorType(kind.__name__, kind)
    return ErrorValue(error_type, tuple(args), None)


def call_method(
    machine: Machine, target: Value, name: str, args: list[Value], named: dict[str, Value]
) -> Value:
    """`target.name(…)`."""
    methods = METHODS.get(type(strip(target)))
    method = methods.get(name) if methods is not None else None
    if method is None:
        return call_value(machine, attribute(machine, target, name), args, named)
    return method(machine, [target, *args], named)


def attribute(machine: Machine, target: Value, name: str) -> Value:
    """`target.name`, not called: a field, or a method as a value."""
    inner, mark = take(target)
    kind = type(inner)
    if name in METHODS.get(kind, ()):
        return Method(name, target)
    reader = ATTRIBUTES.get(kind)
    if reader is not None:
        found = reader(inner, name)
        if found is not MISSING:
            return tag(found, mark)
    message = f"'{type_name(inner)}' object has no attribute '{name}'"
    return machine.fail(AttributeError, message, mark)


class _Missing:
    """What a reader of attributes returns where there is none."""


MISSING = _Missing()
# Filled by `methods`, `clock`, `patterns` and `models`: what a type has, by name.
METHODS: dict[type, dict[str, Implementation]] = {}
ATTRIBUTES: dict[type, Callable[[Any, str], Value]] = {}


def call_tool(machine: Machine, name: str, args: list[Value], named: dict[str, Value]) -> Value:
    """Call a tool: positional arguments take the order of the properties in its schema."""
    schema = machine.tools[name]
    names = list(schema.get("properties") or ())
    if len(args) > len(names):
        machine.fail(TypeError, f"{name}() takes {len(names)} arguments but {len(args)} were given")
    bound = dict(zip(names, args, strict=False))
    for key, value in named.items():
        if key in bound:
            machine.fail(TypeError, f"{name}() got multiple values for argument '{key}'")
        if names and key not in names and not schema.get("additionalProperties"):
            machine.fail(TypeError, f"{name}() got an unexpected keyword argument '{key}'")
        bound[key] = value
    missing = [key for key in schema.get("required") or () if key not in bound]
    if missing:
        machine.fail(TypeError, f"{name}() missing required argument: '{missing[0]}'")
    if machine.branch is not None:
        bound = {key: tag(value, machine.branch) for key, value in bound.items()}
    return machine.call_tool(name, bound, machine.line)


def method(least: int, most: int, *names: str) -> Callable[[Callable[..., Value]], Implementation]:
    """Check the number of arguments and hand over the container itself and its labels."""

    def decorate(function: Callable[..., Value]) -> Implementation:
        def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
            if any(name not in names for name in named) or not least < len(args) <= most + 1:
                name = function.__name__.strip("_").rpartition("_")[2]
                machine.fail(TypeError, f"{name}() got wrong arguments")
            return function(machine, *args, **named)

        return call

    return decorate
