"""Patterns of `match`: literals, sequences, mappings, alternatives and names.

Whatever a pattern looks at is a decision, whose labels the names take that it binds.
"""

import ast
from collections.abc import Callable

from langchain_sequrity.local.interpreter.containers import hashable
from langchain_sequrity.local.interpreter.operators import compare
from langchain_sequrity.local.interpreter.scoped import Scoped, Store
from langchain_sequrity.local.interpreter.scopes import Frame
from langchain_sequrity.local.interpreter.syntax import refuse
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ListValue,
    Value,
    box_mark,
    strip,
    take,
)

Fits = Callable[[Frame | None, Value], bool]


def compile_pattern(compiler: Scoped, node: ast.pattern) -> Fits:  # noqa: PLR0911 - one per kind
    """Compile a pattern to something that says whether a value fits, and binds its names."""
    match node:
        case ast.MatchValue():
            return _value(compiler, node)
        case ast.MatchSingleton():
            return _singleton(compiler, node)
        case ast.MatchSequence():
            return _sequence(compiler, node)
        case ast.MatchMapping():
            return _mapping(compiler, node)
        case ast.MatchAs():
            return _name(compiler, node)
        case ast.MatchOr():
            options = tuple(compile_pattern(compiler, option) for option in node.patterns)
            return lambda frame, value: any(fits(frame, value) for fits in options)
        case _:
            return refuse(node, "This pattern is not supported. Use an `if`.")


def _value(compiler: Scoped, node: ast.MatchValue) -> Fits:
    wanted, machine = compiler.expression(node.value), compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        is_equal, mark = machine.truth(compare(machine, ast.Eq, value, wanted(frame)))
        machine.decided(mark)  # what is bound from here on depends on it
        return is_equal

    return run


def _singleton(compiler: Scoped, node: ast.MatchSingleton) -> Fits:
    machine = compiler.machine

    def run(_: Frame | None, value: Value) -> bool:
        machine.decided(box_mark(value))
        return strip(value) is node.value

    return run


def _binding(compiler: Scoped, name: str | None) -> Store | None:
    return None if name is None else compiler.store(name, in_expression=True)


def _name(compiler: Scoped, node: ast.MatchAs) -> Fits:
    fits = compile_pattern(compiler, node.pattern) if node.pattern is not None else None
    store = _binding(compiler, node.name)

    def run(frame: Frame | None, value: Value) -> bool:
        if fits is not None and not fits(frame, value):
            return False
        if store is not None:
            store(frame, value)
        return True

    return run


def _sequence(compiler: Scoped, node: ast.MatchSequence) -> Fits:
    star = next((i for i, p in enumerate(node.patterns) if isinstance(p, ast.MatchStar)), None)
    parts = tuple(
        _star(compiler, pattern)
        if isinstance(pattern, ast.MatchStar)
        else compile_pattern(compiler, pattern)
        for pattern in node.patterns
    )
    least = len(parts) - (star is not None)
    machine = compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        inner, mark = take(value)
        machine.decided(mark)
        if type(inner) not in (ListValue, tuple, range):
            return False
        if len(inner) < least or (star is None and len(inner) != least):
            return False
        machine.make_items(len(inner))
        items = list(inner)
        if star is not None:
            end = len(items) - (least - star)
            items[star:end] = [ListValue(items[star:end])]
        return all(fits(frame, item) for fits, item in zip(parts, items, strict=True))

    return run


def _star(compiler: Scoped, node: ast.MatchStar) -> Fits:
    store = _binding(compiler, node.name)

    def run(frame: Frame | None, value: Value) -> bool:
        if store is not None:
            store(frame, value)
        return True

    return run


def _mapping(compiler: Scoped, node: ast.MatchMapping) -> Fits:
    keys = tuple(map(compiler.expression, node.keys))
    parts = tuple(compile_pattern(compiler, pattern) for pattern in node.patterns)
    store = _binding(compiler, node.rest)
    machine = compiler.machine

    def run(frame: Frame | None, value: Value) -> bool:
        inner, mark = take(value)
        machine.decided(mark)
        if type(inner) is not DictValue:
            return False
        wanted, keys_mark = hashable(machine, [key(frame) for key in keys])
        machine.decided(keys_mark)
        if any(key not in inner for key in wanted):
            return False
        pairs = zip(parts, wanted, strict=True)
        if not all(fits(frame, inner[key]) for fits, key in pairs):
            return False
        if store is not None:
            machine.make_items(len(inner), 100)
            named = set(wanted)
            rest = {key: item for key, item in inner.items() if key not in named}
            store(frame, DictValue(rest))
        return True

    return run
