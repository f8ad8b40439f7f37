"""Predicates, sets and literals to SQRT text, in one line, with the parentheses that they need."""

from decimal import Decimal
from math import isinf

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.cursor import MAX_DEPTH
from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Boolean,
    Both,
    Combined,
    Compared,
    Domain,
    Edited,
    Either,
    Element,
    In,
    Members,
    Meta,
    Moment,
    Name,
    Not,
    Number,
    NumberDomain,
    Operand,
    Operator,
    Predicate,
    Range,
    Same,
    Set,
    Text,
    TextDomain,
    TimeDomain,
    Update,
    Value,
)
from langchain_sequrity.sqrt.text.spelling import written_name, written_raw

_LETTERS = {"plain": "", "matching": "r", "like": "w"}
_TESTS = {
    "subset": "subset of",
    "superset": "superset of",
    "empty": "is empty",
    "universal": "is universal",
}
# How loosely an operator binds; what binds more loosely than a place allows gets parentheses.
_TEST, _NOT, _AND, _OR = range(4)
_ATOM, _EDITED = range(2)
_OPERATORS: dict[Operator, int] = {"|": 2, "&": 3, "-": 4, "^": 5}
_ANYTHING = 6


# Predicates


def printed_predicate(node: Predicate, depth: int = 0, loosest: int = _ANYTHING) -> str:  # noqa: PLR0911 - one per construct
    """Write a predicate."""
    if _looseness(node) > loosest:
        return f"({printed_predicate(node, _deeper(depth))})"
    match node:
        case Either(parts=parts):
            return " or ".join(printed_predicate(part, depth, _AND) for part in parts)
        case Both(parts=parts):
            return " and ".join(printed_predicate(part, depth, _NOT) for part in parts)
        case Not(inner=inner):
            return f"not {printed_predicate(inner, _deeper(depth), _NOT)}"
        case Name(name=name):
            return written_name(name)
        case In(value=value, set=members):
            return f"{printed_operand(value)} in {printed_set(members, depth)}"
        case Same(left=left, right=right):
            return f"{printed_operand(left)} == {printed_operand(right)}"
        case Compared(left=labels, test=test, right=members_or_none):
            rest = "" if members_or_none is None else f" {printed_set(members_or_none, depth)}"
            return f"{printed_meta(labels)} {_TESTS.get(test, test)}{rest}"


def _looseness(node: Predicate | Set) -> int:
    match node:
        case Either():
            return _OR
        case Both():
            return _AND
        case Not():
            return _NOT
        case Combined(operator=operator):
            return _OPERATORS[operator]
        case Edited():
            return _EDITED
        case _:
            return _TEST


def _deeper(depth: int) -> int:
    if depth == MAX_DEPTH:
        msg = (
            f"This policy is nested more than {MAX_DEPTH} deep, which SQRT does not take. Name "
            "parts of it with `let`."
        )
        raise UsageError(msg)
    return depth + 1


def printed_operand(node: Operand) -> str:
    """Write a value."""
    match node:
        case Value(scope="arg", argument=argument):
            return f"{written_name(argument)}.value"
        case Value(scope=scope):
            return f"@{scope}.value"
        case Boolean(value=flag):
            return "true" if flag else "false"
        case Moment():
            return _moment(node)
        case Text():
            return printed_text(node)
        case Number():
            return printed_number(node)


# Sets


def printed_set(node: Set, depth: int = 0, loosest: int = _ANYTHING) -> str:
    """Write a set."""
    if _looseness(node) > loosest:
        return f"({printed_set(node, _deeper(depth))})"
    match node:
        case Members(elements=elements):
            return f"{{{', '.join(map(printed_element, elements))}}}"
        case Meta():
            return printed_meta(node)
        case Name(name=name):
            return written_name(name)
        case Combined(operator=operator, operands=operands, bare=bare):
            tighter = _OPERATORS[operator] - 1
            if operator == "&" and not bare:
                tighter = _EDITED  # a union is tight enough, and `check` asks for parentheses
            return f" {operator} ".join(
                printed_set(operand, depth, tighter) for operand in operands
            )
        case Edited(base=base, edits=edits):
            steps = (
                f" {'with' if adds else 'without'} {printed_element(one)}" for adds, one in edits
            )
            return f"{printed_set(base, depth, _ATOM)}{''.join(steps)}"


def printed_meta(node: Meta) -> str:
    """Write labels."""
    match node:
        case Meta(scope="arg", argument=argument, field=field):
            return f"{written_name(argument)}.{field}"
        case Meta(scope="short", field=field):
            return f"@{field}"
        case Meta(scope=scope, field=field, intersect=intersect):
            return f"@{scope}.{field}{'.intersect' if intersect else ''}"


def printed_update(node: Update) -> str:
    """Write a change of labels."""
    return f"{printed_meta(node.target)} {node.assignment} {printed_set(node.set)}"


def printed_element(node: Element) -> str:
    """Write an element of a set."""
    match node:
        case Text():
            return printed_text(node)
        case Number():
            return printed_number(node)
        case _:
            return printed_domain(node)


def printed_domain(node: Domain) -> str:
    """Write a domain."""
    match node:
        case BoolDomain(value=flag):
            return f"bool {'true' if flag else 'false'}"
        case NumberDomain(kind=kind, range=bounds):
            return f"{kind} {_range(bounds)}"
        case TextDomain(text=text, length=length):
            how = "" if text.kind == "plain" else f"{text.kind} "
            size = "" if length is None else f" length {_range(length)}"
            return f"str {how}{printed_text(text)}{size}"
        case TimeDomain():
            return f"datetime {_range(node)}"


def _range(node: Range | TimeDomain) -> str:
    low, high = ("" if end is None else _end(end) for end in (node.low, node.high))
    marks = f"{'<' if node.low_open else ''}..{'<' if node.high_open else ''}"
    return low if low == high and marks == ".." else f"{low}{marks}{high}"


def _end(end: Number | Moment) -> str:
    return printed_number(end) if isinstance(end, Number) else _moment(end)


# Literals


def printed_text(text: Text) -> str:
    """Write a text, a regex or a wildcard."""
    return f'{_LETTERS[text.kind]}"{written_raw(text.raw)}"'


def _moment(node: Moment) -> str:
    if isinstance(node.written, str):
        return f'd"{written_raw(node.written)}"'
    return _digits(node.written)


def printed_number(node: Number) -> str:
    """Write a number."""
    return _digits(node.value)


def _digits(value: float) -> str:
    """Without exponent, which SQRT does not have; a float keeps its point."""
    if isinstance(value, int):
        return str(value)
    if isinf(value):
        return "inf" if value > 0 else "-inf"
    digits = f"{Decimal(repr(value)):f}"
    return digits if "." in digits else f"{digits}.0"
