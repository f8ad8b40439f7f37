"""Calling: functions of Python on bare values, and whatever a program holds that can be called."""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import ATOMS, Machine
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    Builtin,
    DictValue,
    EnumType,
    ErrorType,
    ErrorValue,
    FunctionValue,
    IteratorValue,
    ListValue,
    Method,
    SetValue,
    Tagged,
    ToolValue,
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


def precise(rule: Implementation) -> Implementation:
    """Let an operation have a label rule of its own.

    It says itself which labels its result has and what it marks. Whatever has no such rule gets the
    cautious one when it is put into a table (`operations`). What it raises has the labels of all
    that it was given, as anywhere, and the branches that it opens end with it.
    """

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        if machine.trying:
            for value in (*args, *named.values()):
                machine.may_fail(take(value)[1])
        before = machine.branch
        try:
            return rule(machine, args, named)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
            given = [*args, *named.values()]
            failure = machine.labelled(error, machine.labels_of(given))
            for inner in map(strip, given):
                if type(inner) is IteratorValue:
                    machine.moved(inner, failure)
            raise failure from None
        finally:
            if machine.branch is not before:
                machine.leave(before)

    return _ruled(call)


def cautious(function: Implementation, *, changes: bool = True) -> Implementation:
    """Give an operation the rule that is safe for any.

    All labels of what went in, receiver, arguments, elements, keys and positions, join what comes
    out and every container and iterator among the arguments.

    Args:
        function: The operation.
        changes: Whether it may change containers; `read_only` is for those that do not.
    """
    guarded = precise(function)
    touched = CARRIERS if changes else (IteratorValue,)

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        given = [*args, *named.values()]
        before = machine.labels_of(given)
        machine.may_fail(before)
        result = guarded(machine, args, named)
        # Again, for what was read has the labels of its position by now.
        mark = join(before, machine.labels_of(given))
        if mark is None and machine.branch is None:
            return result
        for inner in map(strip, given):
            if type(inner) in touched:
                machine.mark(inner, mark)
        return tag(result, mark)

    return _ruled(call)


def read_only(function: Implementation) -> Implementation:
    """The cautious rule for an operation that changes no container."""
    return cautious(function, changes=False)


def pure(function: Callable[..., Any], guard: Guard | None = None) -> Implementation:
    """Make a function of the language from one of Python that only looks at its arguments.

    It follows the cautious rule: what it is given is bare, and its result carries the labels of
    everything in it.

    Args:
        function: It is given bare values. An iterator is one that it cannot iterate.
        guard: Called before it with the machine and the same arguments, to check sizes.
    """
    if guard is None:
        return sized(lambda _, *bare, **named: function(*bare, **named))

    def run(machine: Machine, *bare: Value, **named: Value) -> Any:
        guard(machine, *bare, **named)
        return function(*bare, **named)

    return sized(run)


def sized(function: Callable[..., Any]) -> Implementation:
    """Do the same for a function that gets the machine first and checks sizes itself."""

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        bare, mark = machine.bare_all(args)
        if named:
            values, named_mark = machine.bare_all(list(named.values()))
            named, mark = dict(zip(named, values, strict=True)), join(mark, named_mark)
        if mark is None and machine.branch is None:
            return adopt(function(machine, *bare, **named))
        return tag(machine.guarded(mark, lambda: adopt(function(machine, *bare, **named))), mark)

    return _ruled(call)


def reading(implementation: Implementation) -> Implementation:
    """Read iterators among the arguments into lists first, for a function that takes elements."""

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        def read(value: Value) -> Value:
            if type(strip(value)) is not IteratorValue:
                return value
            items, _ = collect(machine, value)
            return ListValue(items)

        return implementation(machine, list(map(read, args)), named)

    return read_only(call)


def operations(table: dict[str, Implementation]) -> dict[str, Implementation]:
    """Operations by name; one without a label rule gets the cautious one."""
    return {name: call if has_rule(call) else cautious(call) for name, call in table.items()}


def functions(table: dict[str, Implementation]) -> dict[str, Value]:
    """The same as values of the program."""
    return {name: Builtin(name, call) for name, call in operations(table).items()}


def has_rule(call: Implementation) -> bool:
    """Whether an operation has a label rule."""
    return _RULED in vars(call)


_RULED = "has_label_rule"


def _ruled(call: Implementation) -> Implementation:
    vars(call)[_RULED] = True
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
    """Call any value; that it is this one was decided by the labels of its box."""
    if type(callee) is Tagged:
        inner = callee.value
        return machine.under(callee.labels, lambda: _call(machine, inner, args, named))
    return _call(machine, callee, args, named)


def _call(machine: Machine, inner: Value, args: list[Value], named: dict[str, Value]) -> Value:  # noqa: PLR0911 - one per kind
    kind = type(inner)
    if kind is FunctionValue:
        return inner.call(args, named)
    if kind is Builtin or kind is TypeValue:
        return inner.call(machine, args, named)
    if kind is Method:
        return call_method(machine, inner.target, inner.name, args, named)
    if kind is ErrorType:
        return make_error(machine, inner, args, named)
    if kind is ToolValue:
        return call_tool(machine, inner.name, args, named)
    if kind is EnumType:
        return enum_member(machine, inner, args)
    if hasattr(kind, "instantiate"):
        return inner.instantiate(machine, args, named)
    return machine.fail(TypeError, f"'{type_name(inner)}' object is not callable")


def enum_member(machine: Machine, enum: EnumType, args: list[Value]) -> Value:
    """`Color("red")`."""
    bare, mark = machine.bare_all(args)
    machine.may_fail(mark)
    machine.work(len(enum.members) >> 1)
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
        kind = type(machine.guarded(mark, lambda: error_type.kind(*bare)))
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
    machine.may_fail(mark)
    kind = type(inner)
    if name in METHODS.get(kind, ()):
        machine.charge(_METHOD_SIZE)
        return Method(name, target)
    reader = ATTRIBUTES.get(kind)
    if reader is not None:
        found = reader(inner, name)
        if found is not MISSING:
            return tag(found, mark)
    message = f"'{type_name(inner)}' object has no attribute '{name}'"
    return machine.fail(AttributeError, message, mark)


_METHOD_SIZE = 100


MISSING: Any = object()
"""Stands for an attribute or a variable that does not exist."""
# Filled by `methods`, `clock`, `patterns` and `models`: what a type has, by name.
METHODS: dict[type, dict[str, Implementation]] = {}
ATTRIBUTES: dict[type, Callable[[Any, str], Value]] = {}


def is_open(parameters: Mapping[str, Any]) -> bool:
    """Whether a tool takes arguments that its schema does not name."""
    return not parameters.get("properties") or bool(parameters.get("additionalProperties"))


def call_tool(machine: Machine, name: str, args: list[Value], named: dict[str, Value]) -> Value:
    """Call a tool, which takes keyword arguments only."""
    schema = machine.tools[name]
    names = list(schema.get("properties") or ())
    if args:
        machine.fail(TypeError, f"{name}() takes keyword arguments only, as every tool does")
    for key in named:
        if key not in names and not is_open(schema):
            machine.fail(TypeError, f"{name}() got an unexpected keyword argument '{key}'")
    bound = dict(named)
    missing = [key for key in schema.get("required") or () if key not in bound]
    if missing:
        machine.fail(TypeError, f"{name}() missing required argument: '{missing[0]}'")
    if machine.is_strict and machine.branch is not None:
        bound = {key: tag(value, machine.branch) for key, value in bound.items()}
    return machine.call_tool(name, bound, machine.line)


def method(least: int, most: int, *names: str) -> Callable[[Callable[..., Value]], Implementation]:
    """A method of a container: checks how many arguments there are, and hands them over.

    Args:
        least: How many arguments it takes at least, besides the container.
        most: How many at most.
        names: What may be given by name.
    """

    def decorate(function: Callable[..., Value]) -> Implementation:
        def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
            if any(name not in names for name in named) or not least < len(args) <= most + 1:
                name = function.__name__.strip("_").rpartition("_")[2]
                machine.fail(TypeError, f"{name}() got wrong arguments")
            return function(machine, *args, **named)

        return call

    return decorate
