"""Calls: label rules for functions of Python, and calls of any value of a program."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.local.interpreter.machine import ATOMS, ERROR_SIZE, Machine
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    FunctionValue,
    IteratorValue,
    LabeledBox,
    ListValue,
    Method,
    SetValue,
    ToolValue,
    TypeValue,
    Value,
    add_labels,
    join_labels,
    split_labels,
    type_name,
    unbox,
)

Implementation = Callable[[Machine, list[Value], dict[str, Value]], Value]
Operation = Callable[..., Value]
"""Gets the machine, then the arguments of the call. Its own signature checks them."""
Guard = Callable[..., None]


@dataclass(slots=True)
class _Rule:
    operation: Operation
    name: str = ""
    is_method: bool = False

    def explained(self, error: Exception) -> Exception:
        """The error of a call. Arguments that do not fit are described as the program wrote them.

        Python's message has an internal name, and counts the machine and the object of a method.
        """
        internal, _, text = str(error).partition("()")
        if type(error) is not TypeError or internal != self.operation.__qualname__ or not self.name:
            return error
        if (counts := _TOO_MANY.match(text)) is None:
            return TypeError(f"{self.name}(){text}")
        hidden = 2 if self.is_method else 1
        minimum, maximum, count = (int(digits or counts[2]) - hidden for digits in counts.groups())
        return TypeError(too_many(self.name, minimum, maximum, count))


_TOO_MANY = re.compile(r" takes (?:from (\d+) to )?(\d+) positional arguments? but (\d+) ")


def too_many(name: str, minimum: int, maximum: int, count: int) -> str:
    """Python's message for more positional arguments than a function takes."""
    takes = f"{maximum} positional argument{'' if maximum == 1 else 's'}"
    if minimum < maximum:
        takes = f"from {minimum} to {maximum} positional arguments"
    return f"{name}() takes {takes} but {count} {'was' if count == 1 else 'were'} given"


def precise(operation: Operation) -> Implementation:
    """Mark an operation that has its own label rule.

    The operation sets the labels of its result and of everything that it changes. Its
    exceptions take the labels of all its arguments, and the branches that it opens are closed after
    it. `methods` and `functions` give an operation without a rule the cautious one.
    """
    rule = _Rule(operation)

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        if machine.open_tries:
            for value in (*args, *named.values()):
                machine.may_fail(split_labels(value)[1])
        before = machine.branch
        try:
            return operation(machine, *args, **named)
        except Exception as error:  # noqa: BLE001 - every exception here is the program's
            arguments = [*args, *named.values()]
            read = (inner for inner in map(unbox, arguments) if type(inner) is IteratorValue)
            error = rule.explained(error)
            raise machine.as_iteration_error(error, machine.labels_of(arguments), *read) from None
        finally:
            if machine.branch is not before:
                machine.close_branches(before)

    return _mark_ruled(call, rule)


def cautious(function: Operation, *, changes: bool = True) -> Implementation:
    """Give an operation the label rule that is safe for every operation.

    The labels of all inputs (receiver, arguments, elements, keys and positions) are joined to the
    result and to every container and iterator among the arguments.

    Args:
        function: The operation.
        changes: Whether it may change containers. Use `read_only` for operations that do not.
    """
    guarded = precise(function)
    changeable = CARRIERS if changes else (IteratorValue,)

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        arguments = [*args, *named.values()]
        mark_before = machine.labels_of(arguments)
        machine.may_fail(mark_before)
        result = guarded(machine, args, named)
        # Once more: iterators that were read have the labels of their new position now.
        mark = join_labels(mark_before, machine.labels_of(arguments))
        if mark is None and machine.branch is None:
            return result
        for inner in map(unbox, arguments):
            if type(inner) in changeable:
                machine.label_changed(inner, mark)
        return add_labels(result, mark)

    return _mark_ruled(call, vars(guarded)[_RULE])


def read_only(function: Operation) -> Implementation:
    """Give the cautious rule to an operation that changes no container."""
    return cautious(function, changes=False)


def with_exception(
    call: Implementation,
    is_exception: Callable[[list[Value], dict[str, Value]], bool],
    exception: Implementation,
) -> Implementation:
    """An operation that has another label rule for some arguments."""

    def choose(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        return (exception if is_exception(args, named) else call)(machine, args, named)

    return _mark_ruled(choose, vars(call)[_RULE])


def pure(function: Callable[..., Any], guard: Guard | None = None) -> Implementation:
    """Make an operation from a function of Python that only reads its arguments.

    It follows the cautious rule: the function gets bare values, and its result carries the labels
    of everything in the arguments.

    Args:
        function: Gets bare values. It cannot iterate an iterator of the program.
        guard: Called before, with the machine and the same arguments, to check sizes.
    """

    def run(machine: Machine, *bare: Value, **named: Value) -> Any:
        if guard is not None:
            guard(machine, *bare, **named)
        return function(*bare, **named)

    return pure_with_machine(run)


def pure_with_machine(function: Callable[..., Any]) -> Implementation:
    """Like `pure`, for a function that gets the machine first and checks sizes itself."""
    rule = _Rule(function)

    def call(machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        bare, mark = machine.strip_all_labels(args)
        if named:
            values, named_mark = machine.strip_all_labels(list(named.values()))
            named, mark = dict(zip(named, values, strict=True)), join_labels(mark, named_mark)
        if mark is not None:
            machine.may_fail(mark)
        memory_before = machine.memory
        try:
            result = from_python(function(machine, *bare, **named))
        except Exception as error:  # noqa: BLE001 - every exception here is the program's
            raise machine.as_labelled_error(rule.explained(error), mark) from None
        machine.pay_result(result, memory_before)
        return result if mark is None else add_labels(result, mark)

    return _mark_ruled(call, rule)


def methods(table: Mapping[str, Operation]) -> dict[str, Implementation]:
    """A table of methods by name. Those without a label rule get the cautious one."""
    return {name: with_program_name(name, call, is_method=True) for name, call in table.items()}


def functions(table: Mapping[str, Operation]) -> dict[str, Value]:
    """Like `methods`, for functions, as values of the program."""
    return {name: Builtin(name, with_program_name(name, call)) for name, call in table.items()}


def with_program_name(
    name: str, operation: Operation, *, is_method: bool = False
) -> Implementation:
    """Give an operation its label rule, and the program's name for it, which errors show."""
    call = operation if has_rule(operation) else cautious(operation)
    rule = vars(call)[_RULE]
    if not rule.name:  # else the operation is an alias, such as `OrderedDict` of `dict`
        rule.name, rule.is_method = name, is_method
    return call


def has_rule(call: Operation) -> bool:
    """Whether an operation has a label rule."""
    return _RULE in vars(call)


_RULE = "rule"


def _mark_ruled(call: Implementation, rule: _Rule) -> Implementation:
    vars(call)[_RULE] = rule
    return call


def from_python(value: Any) -> Value:
    """Convert Python's containers to values. Numbers, texts and times are values already."""
    value_type = type(value)
    if value_type in ATOMS:
        return value
    if value_type is list:
        return ListValue(value if ATOMS.issuperset(map(type, value)) else map(from_python, value))
    if value_type is dict:
        return DictValue((key, from_python(item)) for key, item in value.items())
    if value_type is tuple:
        return tuple(map(from_python, value))
    if value_type is set or value_type is frozenset:
        return SetValue(dict.fromkeys(value))
    return value


def call_value(  # noqa: PLR0911 - one per kind
    machine: Machine, callee: Value, args: list[Value], named: dict[str, Value]
) -> Value:
    """Call any value. The labels of its box decided that this value is called."""
    callee_type = type(callee)
    if callee_type is FunctionValue:
        return callee.call(args, named)
    if callee_type is Builtin or callee_type is TypeValue:
        return callee.call(machine, args, named)
    if callee_type is LabeledBox:
        inner = callee.value
        return machine.branch_on(callee.labels, lambda: call_value(machine, inner, args, named))
    if callee_type is Method:
        return call_method(machine, callee.target, callee.name, args, named)
    if callee_type is ErrorType:
        return make_error(machine, callee, args, named)
    if callee_type is ToolValue:
        return call_tool(machine, callee.name, args, named)
    if hasattr(callee_type, "instantiate"):
        return callee.instantiate(machine, args, named)
    return machine.fail(TypeError, f"'{type_name(callee)}' object is not callable")


def make_error(
    machine: Machine, error_type: ErrorType, args: list[Value], named: dict[str, Value]
) -> ErrorValue:
    """`ValueError("text")`."""
    if named:
        machine.fail(TypeError, f"{error_type.name}() takes no keyword arguments")
    machine.pay_memory(ERROR_SIZE + 8 * len(args))
    bare, mark = machine.strip_all_labels(args)
    if error_type.parent is None:
        # Some types need certain arguments, and `OSError(2, …)` makes a subclass.
        actual_type = type(machine.run_guarded(mark, lambda: error_type.python_type(*bare)))
        if actual_type is not error_type.python_type:
            error_type = ErrorType(actual_type.__name__, actual_type)
    return ErrorValue(error_type, tuple(args), None)


def call_method(
    machine: Machine, target: Value, name: str, args: list[Value], named: dict[str, Value]
) -> Value:
    """`target.name(…)`."""
    methods = METHODS.get(type(unbox(target)))
    method = methods.get(name) if methods is not None else None
    if method is None:
        return call_value(machine, attribute(machine, target, name), args, named)
    return method(machine, [target, *args], named)


def attribute(machine: Machine, target: Value, name: str) -> Value:
    """`target.name` without a call: a field, or a bound method."""
    inner, mark = split_labels(target)
    machine.may_fail(mark)
    inner_type = type(inner)
    if name in METHODS.get(inner_type, ()):
        machine.pay_memory(_METHOD_SIZE)
        return Method(name, target)
    reader = ATTRIBUTES.get(inner_type)
    if reader is not None:
        field = reader(inner, name)
        if field is not MISSING:
            return add_labels(field, mark)
    message = f"'{type_name(inner)}' object has no attribute '{name}'"
    return machine.fail(AttributeError, message, mark)


_METHOD_SIZE = 100


MISSING: Any = object()
"""Stands for an attribute or a variable that does not exist."""
# The methods and the reader of attributes of each type. `methods`, `modules`, `regexes` and
# `classes` fill them.
METHODS: dict[type, dict[str, Implementation]] = {}
ATTRIBUTES: dict[type, Callable[[Any, str], Value]] = {}


def takes_unlisted_arguments(parameters: Mapping[str, Any]) -> bool:
    """Whether a tool takes arguments that its schema does not list."""
    return "properties" not in parameters or bool(parameters.get("additionalProperties"))


def call_tool(machine: Machine, name: str, args: list[Value], named: dict[str, Value]) -> Value:
    """Call a tool. Tools take keyword arguments only."""
    schema = machine.tools[name]
    names = list(schema.get("properties") or ())
    if args:
        machine.fail(TypeError, f"{name}() takes keyword arguments only, like every tool")
    for key in named:
        if key not in names and not takes_unlisted_arguments(schema):
            machine.fail(TypeError, f"{name}() got an unexpected keyword argument '{key}'")
    missing = [key for key in schema.get("required") or () if key not in named]
    if missing:
        machine.fail(TypeError, f"{name}() missing required argument: '{missing[0]}'")
    if machine.is_strict and machine.branch is not None:
        named = {key: add_labels(value, machine.branch) for key, value in named.items()}
    return machine.call_tool(name, named, machine.line)
