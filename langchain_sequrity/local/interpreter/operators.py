"""Operators: a fast path for bare numbers and texts, and a general one for all values.

Sizes are checked before the work. Python's operators never get a container with labels in it:
containers have their own cases here; all other operands are numbers, texts, bytes and times.
"""

import ast
import itertools
import operator
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from langchain_sequrity.local.interpreter.data_types import DataType, union_type
from langchain_sequrity.local.interpreter.formatting import percent_format
from langchain_sequrity.local.interpreter.iteration import iterate
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    ITERABLE,
    DictValue,
    IteratorValue,
    ListValue,
    Mark,
    Marker,
    SetValue,
    TypeValue,
    Value,
    add_labels,
    box_mark,
    join_labels,
    split_labels,
    type_name,
    unbox,
)

Operator = Callable[[Any, Any], Any]
_OPERATORS: dict[type[ast.AST], tuple[str, Operator]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
    ast.LShift: ("<<", operator.lshift),
    ast.RShift: (">>", operator.rshift),
    ast.BitOr: ("|", operator.or_),
    ast.BitAnd: ("&", operator.and_),
    ast.BitXor: ("^", operator.xor),
}
SYMBOLS = {node_type: symbol for node_type, (symbol, _) in _OPERATORS.items()}
_FUNCTIONS = dict(_OPERATORS.values())
_NUMBERS = (int, float)
_SEQUENCES = (str, bytes, tuple, list)
_TIMED = (date, datetime, timedelta, int, float)  # not `str`: its `%` formats the argument
_TYPES = (DataType, TypeValue, Marker)
_MAX_FAST = 1 << 62


def binary(machine: Machine, symbol: str, first: Value, second: Value) -> Value:
    """Apply a binary operator to any two values."""
    left, left_mark = split_labels(first)
    # `%` of a text formats everything in its argument.
    is_format = symbol == "%" and isinstance(left, str)
    right, right_mark = machine.strip_labels(second) if is_format else split_labels(second)
    mark = join_labels(left_mark, right_mark)
    memory_before = machine.memory
    result = machine.run_guarded(mark, lambda: _bare_binary(machine, symbol, left, right))
    machine.pay_result(result, memory_before)
    return add_labels(result, mark)


def _bare_binary(machine: Machine, symbol: str, left: Value, right: Value) -> Value:  # noqa: PLR0911 - one per kind
    if symbol == "%" and isinstance(left, str):
        return percent_format(machine, left, right)
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return _arithmetic(machine, symbol, left, right)
    if isinstance(left, _SEQUENCES) or isinstance(right, _SEQUENCES):
        return _sequence(machine, symbol, left, right)
    if isinstance(left, SetValue) and isinstance(right, SetValue):
        return _combine_sets(machine, symbol, left, right)
    if symbol == "|" and isinstance(left, DictValue) and isinstance(right, DictValue):
        machine.pay_items(len(left) + len(right), 100)
        result = DictValue(left)
        result.update((key, right[key]) for key in machine.with_clock_checks(right))
        return result
    if isinstance(left, _TIMED) and isinstance(right, _TIMED):
        return _FUNCTIONS[symbol](left, right)
    if symbol == "|" and (isinstance(left, _TYPES) or isinstance(right, _TYPES)):
        united = union_type((left, right))
        if united is not None:
            return united
    return _unsupported(machine, symbol, left, right)


def _unsupported(machine: Machine, symbol: str, left: Value, right: Value) -> Value:
    names = f"'{type_name(left)}' and '{type_name(right)}'"
    machine.fail(TypeError, f"unsupported operand type(s) for {symbol}: {names}")


def _arithmetic(machine: Machine, symbol: str, left: float, right: float) -> Value:
    if isinstance(left, int) and isinstance(right, int):
        machine.pay_bits(_bits(symbol, left, right))
    result = _FUNCTIONS[symbol](left, right)
    if isinstance(result, complex):
        machine.fail(ValueError, "Complex numbers are not supported.")
    return result


def _bits(symbol: str, left: int, right: int) -> int:
    if symbol == "**":
        # Every power of 0, 1 and -1 is small; for other bases the exponent counts.
        return left.bit_length() * right if right > 0 and abs(left) > 1 else 0
    if symbol == "<<":
        return left.bit_length() + right if right > 0 and left else 0
    if symbol == "*":
        return left.bit_length() + right.bit_length()
    return max(left.bit_length(), right.bit_length()) + 1


def _sequence(machine: Machine, symbol: str, left: Value, right: Value) -> Value:
    """Concatenate two sequences, or repeat one."""
    sequence, count = (right, left) if isinstance(right, _SEQUENCES) else (left, right)
    if symbol == "+" and type(left) is type(right):
        size = len(left) + len(right)
    elif symbol == "*" and isinstance(count, int):
        size = len(sequence) * max(count, 0)
    else:
        return _unsupported(machine, symbol, left, right)
    if isinstance(sequence, str | bytes):
        machine.pay_text(size, sequence, *((left,) if symbol == "+" else ()))
    else:
        machine.pay_items(size)
    result = _FUNCTIONS[symbol](left, right)
    return ListValue(result) if type(sequence) is ListValue else result


def _combine_sets(machine: Machine, symbol: str, left: SetValue, right: SetValue) -> Value:
    lefts, rights = left.items, right.items
    machine.pay_items(len(lefts) + len(rights), 100)
    keep = _MEMBERSHIP.get(symbol)
    if keep is None:
        return _unsupported(machine, symbol, left, right)
    items = machine.with_clock_checks(itertools.chain(lefts, rights))
    return SetValue(dict.fromkeys(item for item in items if keep(item in lefts, item in rights)))


# Whether the result contains an element, given whether each operand contains it.
_MEMBERSHIP: dict[str, Operator] = {
    "|": operator.or_,
    "&": operator.and_,
    "-": operator.gt,
    "^": operator.xor,
}


def fast_binary(machine: Machine, symbol: str) -> Operator:
    """An operator with a fast path for two bare small integers or floats."""
    operate = _FUNCTIONS[symbol]
    if symbol in ("**", "<<"):
        return lambda left, right: binary(machine, symbol, left, right)

    def numbers(left: Value, right: Value) -> Value:
        left_type = type(left)
        if left_type is int and type(right) is int and -_MAX_FAST < left < _MAX_FAST:
            if -_MAX_FAST < right < _MAX_FAST:
                return operate(left, right)
        elif left_type is float and type(right) is float:
            return operate(left, right)
        return binary(machine, symbol, left, right)

    return numbers


def compare(machine: Machine, symbol: type[ast.cmpop], first: Value, second: Value) -> Value:
    """Compare any two values."""
    if symbol in (ast.Is, ast.IsNot):
        is_same = unbox(first) is unbox(second)
        mark = join_labels(box_mark(first), box_mark(second))
        return add_labels(is_same is (symbol is ast.Is), mark)
    if symbol in (ast.In, ast.NotIn):
        return contains(machine, first, second, negate=symbol is ast.NotIn)
    left, left_mark = machine.strip_labels(first)
    right, right_mark = machine.strip_labels(second)
    mark = join_labels(left_mark, right_mark)
    if isinstance(left, str | bytes):
        machine.pay_steps(len(left) >> 8)
    return add_labels(machine.run_guarded(mark, lambda: COMPARISONS[symbol](left, right)), mark)


COMPARISONS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def contains(machine: Machine, item: Value, container: Value, *, negate: bool = False) -> Value:
    """Evaluate `in`. The result takes the labels of all elements that were compared."""
    inner, mark = split_labels(container)
    bare_item, item_mark = machine.strip_labels(item)
    mark = join_labels(mark, item_mark)
    container_type = type(inner)
    if container_type is IteratorValue:
        is_found = _search(machine, bare_item, container, mark)
        return add_labels(is_found is not negate, inner.labels)
    if container_type not in ITERABLE:
        machine.fail(TypeError, f"argument of type '{type_name(inner)}' is not iterable", mark)
    if container_type in (DictValue, SetValue):
        # A set is not hashable, but may be asked for; it is never an element.
        is_set = container_type is SetValue and type(bare_item) is SetValue
        is_found = not is_set and machine.run_guarded(mark, lambda: bare_item in inner)
    else:
        if container_type is range and type(bare_item) not in (int, bool):  # Python reads all of it
            machine.pay_steps(len(inner))
        elif isinstance(inner, str | bytes):
            machine.pay_steps(len(inner) >> 8)
        bare, elements_mark = machine.strip_labels(inner)
        mark = join_labels(mark, elements_mark)
        is_found = machine.run_guarded(mark, lambda: bare_item in bare)
    return add_labels(is_found is not negate, mark)


def _search(machine: Machine, item: Value, container: Value, mark: Mark) -> bool:
    """Read an iterator up to an item. The iterator takes the labels of what was compared."""
    inner = unbox(container)
    for element in iterate(machine, container):
        bare, element_mark = machine.strip_labels(element)
        # Its position depends on them, and so does what its next step calls.
        machine.label_changed(inner, join_labels(mark, element_mark))
        machine.check_branch(inner.labels)
        if bare is item or bare == item:
            return True
    machine.label_changed(inner, mark)
    return False


def unary(machine: Machine, symbol: type[ast.unaryop], value: Value) -> Value:
    """Apply `-`, `+` or `~`. The compiler handles `not`."""
    inner, mark = split_labels(value)
    if not isinstance(inner, int | float | timedelta):
        name = type_name(inner)
        machine.fail(TypeError, f"bad operand type for unary operator: '{name}'", mark)
    if isinstance(inner, int):
        machine.pay_bits(inner.bit_length() + 1)
    return add_labels(machine.run_guarded(mark, lambda: _UNARY[symbol](inner)), mark)


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
