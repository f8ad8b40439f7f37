"""Expressions, each compiled once to a function of the frame.

One method per construct. Where it matters, a method returns a function that has a fast way for
values without labels and leaves everything else to `operators`, `subscripts` and `calls`.
"""

import ast
from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.call_expressions import Calling
from langchain_sequrity.local.interpreter.calls import (
    attribute,
)
from langchain_sequrity.local.interpreter.comprehensions import Comprehensions
from langchain_sequrity.local.interpreter.containers import make_list, make_set, merge, store_key
from langchain_sequrity.local.interpreter.formatting import convert
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import (
    COMPARISONS,
    SYMBOLS,
    compare,
    fast_binary,
    unary,
)
from langchain_sequrity.local.interpreter.scopes import (
    Code,
    Frame,
)
from langchain_sequrity.local.interpreter.subscripts import get_item
from langchain_sequrity.local.interpreter.syntax import refuse, type_of_operand
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ListValue,
    Mark,
    Value,
    join,
    tag,
    take,
    type_name,
)

_FAST_COMPARABLE = frozenset({int, float, str})
_NONE = ast.Constant(None)
_SHORT = 4_096  # characters of a text that is compared for the price of its statement


class Expressions(Comprehensions, Calling):
    """Compiles the expressions of one scope."""

    def expression(self, node: ast.expr) -> Code:
        """Compile any expression."""
        return EXPRESSIONS[type(node)](self, node)

    # -- names and constants

    def _constant(self, node: ast.Constant) -> Code:
        value = node.value
        if isinstance(value, int):
            self.machine.make_bits(value.bit_length())
        return lambda _: value

    def _name(self, node: ast.Name) -> Code:
        return self.load(node.id)

    # -- operators

    def _binary(self, node: ast.BinOp) -> Code:
        left, right = self.expression(node.left), self.expression(node.right)
        symbol = SYMBOLS.get(type(node.op))
        if symbol is None:
            refuse(node, "This operator is not supported.")
        apply = fast_binary(self.machine, symbol)
        return lambda frame: apply(left(frame), right(frame))

    def _unary(self, node: ast.UnaryOp) -> Code:
        operand, machine, kind = self.expression(node.operand), self.machine, type(node.op)
        if kind is ast.Not:

            def negate(frame: Frame | None) -> Value:
                is_true, mark = machine.truth(operand(frame))
                return tag(not is_true, mark)

            return negate
        return lambda frame: unary(machine, kind, operand(frame))

    def _boolean(self, node: ast.BoolOp) -> Code:
        *codes, last = map(self.expression, node.values)
        left_out = self._each_left_out(node.values)
        stops_at, machine = isinstance(node.op, ast.Or), self.machine

        def run(frame: Frame | None) -> Value:
            mark: Mark = None
            before = machine.branch
            try:
                for at, code in enumerate(codes, 1):
                    value = code(frame)
                    is_true, value_mark = machine.truth(value)
                    if is_true is stops_at:
                        if mark is None and value_mark is None:
                            return value
                        left_out(frame, at, join(mark, value_mark))
                        return tag(value, mark)
                    if value_mark is not None:
                        mark = join(mark, value_mark)
                        machine.branch = join(before, mark)
                return tag(last(frame), mark)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
                raise machine.labelled(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.leave(before)

        return run

    def _each_left_out(self, nodes: list[ast.expr]) -> Callable[[Frame | None, int, Mark], None]:
        """`left_out` for those of some expressions that stand at a place or after it."""
        notes = tuple(map(self.left_out, nodes))

        def note_all(frame: Frame | None, start: int, mark: Mark) -> None:
            if mark is not None:
                for note in notes[start:]:
                    note(frame, mark)

        return note_all

    def _compare(self, node: ast.Compare) -> Code:
        if len(node.ops) == 1:
            return self._compare_two(node)
        first, *codes, last = map(self.expression, (node.left, *node.comparators))
        *kinds, last_kind = map(type, node.ops)
        steps = tuple(zip(kinds, codes, strict=True))
        pairs = zip(node.ops, node.comparators, strict=True)
        left_out = self._each_left_out([ast.Compare(_NONE, [op], [one]) for op, one in pairs])
        machine = self.machine

        def chain(frame: Frame | None) -> Value:
            mark: Mark = None
            left, before = first(frame), machine.branch
            try:
                for at, (kind, code) in enumerate(steps, 1):
                    machine.work(1)
                    right = code(frame)
                    result = compare(machine, kind, left, right)
                    is_true, result_mark = machine.truth(result)
                    mark = join(mark, result_mark)
                    if not is_true:
                        left_out(frame, at, mark)
                        return tag(False, mark)  # noqa: FBT003 - the value
                    machine.branch = join(before, mark)
                    left = right
                return tag(compare(machine, last_kind, left, last(frame)), mark)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
                raise machine.labelled(error, None) from None
            finally:
                machine.leave(before)

        return chain

    def _compare_two(self, node: ast.Compare) -> Code:
        left, right = self.expression(node.left), self.expression(node.comparators[0])
        machine, kind = self.machine, type(node.ops[0])
        plain = COMPARISONS.get(kind)
        if plain is None:
            return lambda frame: compare(machine, kind, left(frame), right(frame))

        def run(frame: Frame | None) -> Value:
            one, other = left(frame), right(frame)
            if type(one) in _FAST_COMPARABLE and type(other) in _FAST_COMPARABLE:
                if type(one) is str and len(one) > _SHORT:
                    machine.work(len(one) >> 8)
                return plain(one, other)
            return compare(machine, kind, one, other)

        return run

    def _ternary(self, node: ast.IfExp) -> Code:
        condition, machine = self.expression(node.test), self.machine
        body, otherwise = self.expression(node.body), self.expression(node.orelse)
        no_body, not_otherwise = self.left_out(node.body), self.left_out(node.orelse)

        def run(frame: Frame | None) -> Value:
            is_true, mark = machine.truth(condition(frame))
            chosen, left_out = (body, not_otherwise) if is_true else (otherwise, no_body)
            if mark is None:
                return chosen(frame)
            left_out(frame, mark)
            return machine.within(mark, lambda: chosen(frame))

        return run

    def _walrus(self, node: ast.NamedExpr) -> Code:
        value = self.expression(node.value)
        owner, depth = self.scope, 0
        while owner is not None and owner.is_comprehension:
            owner, depth = owner.parent, depth + 1
        around = type(self)(self.machine, owner, self.bound)
        bind = around.store(node.target.id, in_expression=True)

        def run(frame: Frame | None) -> Value:
            result = value(frame)
            outer = frame
            for _ in range(depth):
                outer = outer[0]  # type: ignore[index]
            bind(outer, result)
            return result

        return run

    # -- parts of values

    def _attribute(self, node: ast.Attribute) -> Code:
        operand = type_of_operand(node)
        if operand is not None:
            return self._type_name(operand)
        value, machine, name = self.expression(node.value), self.machine, node.attr
        return lambda frame: attribute(machine, value(frame), name)

    def _type_name(self, operand: ast.expr) -> Code:
        code = self.expression(operand)

        def run(frame: Frame | None) -> Value:
            inner, mark = take(code(frame))
            return tag(type_name(inner), mark)

        return run

    def _subscript(self, node: ast.Subscript) -> Code:
        container, key, machine = (
            self.expression(node.value),
            self.expression(node.slice),
            self.machine,
        )

        def run(frame: Frame | None) -> Value:
            inner, index = container(frame), key(frame)
            kind = type(inner)
            if kind is ListValue and type(index) is int and inner.labels is None:
                return inner[index]
            if kind is DictValue and type(index) is str and inner.labels is None and index in inner:
                return inner[index]
            return get_item(machine, inner, index)

        return run

    def _slice(self, node: ast.Slice) -> Code:
        parts = tuple(
            self.expression(part) if part is not None else None
            for part in (node.lower, node.upper, node.step)
        )
        machine = self.machine

        def run(frame: Frame | None) -> Value:
            values = [None if part is None else part(frame) for part in parts]
            bare, mark = machine.bare_all(values)
            return tag(slice(*bare), mark)

        return run

    def _starred(self, node: ast.Starred) -> Code:
        refuse(node, "`*` is not supported here.")

    # -- displays

    def _list(self, node: ast.List) -> Code:
        elements, machine = self.elements(node.elts), self.machine

        def run(frame: Frame | None) -> Value:
            items, mark = elements(frame)
            machine.make_items(len(items))
            return make_list(items, mark)

        return run

    def _tuple(self, node: ast.Tuple) -> Code:
        elements, machine = self.elements(node.elts), self.machine

        def run(frame: Frame | None) -> Value:
            items, mark = elements(frame)
            machine.make_items(len(items), 8)
            return tag(tuple(items), mark)

        return run

    def _set(self, node: ast.Set) -> Code:
        elements, machine = self.elements(node.elts), self.machine
        return lambda frame: make_set(machine, *elements(frame))

    def _dict(self, node: ast.Dict) -> Code:
        machine = self.machine
        pairs = tuple(
            (None if key is None else self.expression(key), self.expression(value))
            for key, value in zip(node.keys, node.values, strict=True)
        )
        size = 100 * (len(pairs) + 1)

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            machine.charge(size)
            for key, value in pairs:
                if key is None:
                    merge(machine, result, value(frame))
                    continue
                bare = key(frame)
                if type(bare) is str:
                    result[bare] = value(frame)
                else:
                    store_key(machine, result, None, bare, value(frame))
            return result

        return run

    def _joined(self, node: ast.JoinedStr) -> Code:
        machine = self.machine
        parts = tuple(map(self.expression, node.values))

        def run(frame: Frame | None) -> Value:
            texts, mark = machine.bare_all([part(frame) for part in parts])
            machine.make_text(sum(map(len, texts)), *texts)
            return tag("".join(texts), mark)

        return run

    def _formatted(self, node: ast.FormattedValue) -> Code:
        machine, value = self.machine, self.expression(node.value)
        conversion = None if node.conversion == -1 else chr(node.conversion)
        spec = self.expression(node.format_spec) if node.format_spec is not None else None
        if spec is None and conversion is None:
            return lambda frame: _shown(machine, value(frame))

        def run(frame: Frame | None) -> Value:
            inner, mark = machine.bare(value(frame))
            form, form_mark = machine.bare("" if spec is None else spec(frame))
            mark = join(mark, form_mark)
            text = machine.guarded(mark, lambda: convert(machine, inner, conversion, form))
            return tag(text, mark)

        return run

    def _lambda(self, node: ast.Lambda) -> Code:
        raise NotImplementedError


def _shown(machine: Machine, value: Value) -> Value:
    if type(value) is str:
        return value
    inner, mark = machine.bare(value)
    return tag(machine.guarded(mark, lambda: convert(machine, inner, None, "")), mark)


EXPRESSIONS: dict[type[ast.expr], Callable[[Any, Any], Code]] = {
    ast.Attribute: lambda self, node: self._attribute(node),
    ast.BinOp: lambda self, node: self._binary(node),
    ast.BoolOp: lambda self, node: self._boolean(node),
    ast.Call: lambda self, node: self.call(node),
    ast.Compare: lambda self, node: self._compare(node),
    ast.Constant: lambda self, node: self._constant(node),
    ast.Dict: lambda self, node: self._dict(node),
    ast.DictComp: lambda self, node: self.dict_comprehension(node),
    ast.FormattedValue: lambda self, node: self._formatted(node),
    ast.GeneratorExp: lambda self, node: self.generator(node),
    ast.IfExp: lambda self, node: self._ternary(node),
    ast.JoinedStr: lambda self, node: self._joined(node),
    ast.Lambda: lambda self, node: self._lambda(node),
    ast.List: lambda self, node: self._list(node),
    ast.ListComp: lambda self, node: self.list_comprehension(node),
    ast.Name: lambda self, node: self._name(node),
    ast.NamedExpr: lambda self, node: self._walrus(node),
    ast.Set: lambda self, node: self._set(node),
    ast.SetComp: lambda self, node: self.set_comprehension(node),
    ast.Slice: lambda self, node: self._slice(node),
    ast.Starred: lambda self, node: self._starred(node),
    ast.Subscript: lambda self, node: self._subscript(node),
    ast.Tuple: lambda self, node: self._tuple(node),
    ast.UnaryOp: lambda self, node: self._unary(node),
}
