"""Expressions, each compiled once to a function of the frame.

One method per construct. Where it matters, a method returns a function that has a fast way for
values without labels and leaves everything else to `operators`, `subscripts` and `calls`.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import (
    METHODS,
    MISSING,
    attribute,
    call_method,
    call_tool,
    call_value,
)
from langchain_sequrity.local.interpreter.containers import make_list, make_set, merge, store_key
from langchain_sequrity.local.interpreter.formatting import convert
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import (
    COMPARISONS,
    SYMBOLS,
    collect,
    compare,
    fast_binary,
    guard_errors,
    iterate,
    unary,
)
from langchain_sequrity.local.interpreter.scopes import (
    UNBOUND,
    Frame,
    Scope,
    comprehension_scope,
    find,
)
from langchain_sequrity.local.interpreter.subscripts import get_item
from langchain_sequrity.local.interpreter.syntax import MAIN, refuse, type_of_operand
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    Function,
    IteratorValue,
    ListValue,
    Mark,
    Tool,
    TypeValue,
    Value,
    box_mark,
    join,
    strip,
    tag,
    take,
    type_name,
)

Code = Callable[[Frame | None], Value]
Test = Callable[[Frame | None], bool]
Store = Callable[[Frame | None, Value], None]
Arguments = Callable[[Frame | None], tuple[list[Value], dict[str, Value]]]
_FAST_COMPARABLE = frozenset({int, float, str})


class Expressions:
    """Compiles the expressions of one scope.

    Args:
        machine: The run that the code belongs to.
        scope: The function or comprehension that it stands in; `None` is the module.
        bound: Names that the module binds, so that built-ins under them are not meant.
    """

    def __init__(self, machine: Machine, scope: Scope | None, bound: frozenset[str]) -> None:
        """Compile into `machine`."""
        self.machine = machine
        self.scope = scope
        self.bound = bound

    def inner(self, scope: Scope) -> "Expressions":
        """The same for a scope within this one."""
        return type(self)(self.machine, scope, self.bound)

    def expression(self, node: ast.expr) -> Code:
        """Compile any expression."""
        method = _EXPRESSIONS.get(type(node))
        if method is None:
            refuse(node, f"`{type(node).__name__}` is not supported here.")
        return method(self, node)

    def test(self, node: ast.expr) -> Test:
        """Compile a condition (`behaviour.md`, M3)."""
        code = self.expression(node)
        machine = self.machine
        if machine.is_unwatched:
            return lambda frame: bool(strip(code(frame)))

        def watched(frame: Frame | None) -> bool:
            value, mark = take(code(frame))
            machine.looked(mark)
            return bool(value)

        return watched

    # -- names and constants

    def _constant(self, node: ast.Constant) -> Code:
        value = node.value
        if isinstance(value, int):
            self.machine.make_bits(value.bit_length())
        return lambda _: value

    def _name(self, node: ast.Name) -> Code:
        return self.load(node.id)

    def load(self, name: str) -> Code:
        """Read a variable, a built-in or a tool."""
        place = find(self.scope, name)
        if place is None:
            return self._load_global(name)
        depth, slot = place

        def local(frame: Frame | None) -> Value:
            value = frame[slot]  # type: ignore[index]
            if value is UNBOUND:
                _unbound(machine, name)
            return value

        def outer(frame: Frame | None) -> Value:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            value = frame[slot]  # type: ignore[index]
            if value is UNBOUND:
                message = f"cannot access free variable '{name}' where it has no value"
                machine.fail(NameError, message)
            return value

        machine = self.machine
        return outer if depth else local

    def _load_global(self, name: str) -> Code:
        machine, names = self.machine, self.machine.names
        if name == MAIN:
            return lambda _: "__main__"
        otherwise = Tool(name) if name in machine.tools else BUILTINS.get(name, MISSING)

        def load(_: Frame | None) -> Value:
            value = names.get(name, otherwise)
            if value is MISSING:
                machine.fail(NameError, f"name '{name}' is not defined")
            return value

        return load

    def knows(self, name: str) -> bool:
        """Whether a name can have a value at all."""
        return name in self.bound or name in BUILTINS or find(self.scope, name) is not None

    def store(self, name: str) -> Store:
        """Bind a variable."""
        machine, names = self.machine, self.machine.names
        place = find(self.scope, name)

        def in_module(_: Frame | None, value: Value) -> None:
            names[name] = value

        def in_frame(frame: Frame | None, value: Value) -> None:
            for _ in range(depth):
                frame = frame[0]  # type: ignore[index]
            frame[slot] = value  # type: ignore[index]

        depth, slot = place or (0, 0)
        plain = in_frame if place else in_module
        if not machine.is_strict:
            return plain
        return lambda frame, value: plain(frame, tag(value, machine.branch))

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
                value, mark = take(operand(frame))
                return tag(not value, mark)

            return negate
        return lambda frame: unary(machine, kind, operand(frame))

    def _boolean(self, node: ast.BoolOp) -> Code:
        codes = tuple(map(self.expression, node.values))
        stops_at = isinstance(node.op, ast.Or)

        def run(frame: Frame | None) -> Value:
            mark: Mark = None
            value: Value = None
            for code in codes:
                value = code(frame)
                inner, value_mark = take(value)
                if bool(inner) is stops_at:
                    break
                mark = join(mark, value_mark)
            return tag(value, mark)

        return run

    def _compare(self, node: ast.Compare) -> Code:
        if len(node.ops) == 1:
            return self._compare_two(node)
        codes = tuple(map(self.expression, (node.left, *node.comparators)))
        kinds = tuple(map(type, node.ops))
        machine = self.machine

        def chain(frame: Frame | None) -> Value:
            mark: Mark = None
            left = codes[0](frame)
            result: Value = True
            for kind, code in zip(kinds, codes[1:], strict=True):
                right = code(frame)
                result, result_mark = take(compare(machine, kind, left, right))
                mark = join(mark, result_mark)
                if not result:
                    break
                left = right
            return tag(result, mark)

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
                return plain(one, other)
            return compare(machine, kind, one, other)

        return run

    def _ternary(self, node: ast.IfExp) -> Code:
        condition, machine = self.expression(node.test), self.machine
        body, otherwise = self.expression(node.body), self.expression(node.orelse)

        def run(frame: Frame | None) -> Value:
            value, mark = take(condition(frame))
            machine.looked(mark)
            return tag((body if value else otherwise)(frame), mark)

        return self.restoring(run) if machine.is_strict else run

    def restoring(self, run: Code) -> Code:
        """End with this code the branch that it opened."""
        machine = self.machine

        def restore(frame: Frame | None) -> Value:
            before = machine.branch
            try:
                return run(frame)
            finally:
                machine.branch = before

        return restore

    def _walrus(self, node: ast.NamedExpr) -> Code:
        value = self.expression(node.value)
        owner, depth = self.scope, 0
        while owner is not None and owner.is_comprehension:
            owner, depth = owner.parent, depth + 1
        bind = type(self)(self.machine, owner, self.bound).store(node.target.id)

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
            value = code(frame)
            return tag(type_name(strip(value)), box_mark(value))

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

    def elements(self, nodes: list[ast.expr]) -> Callable[[Frame | None], tuple[list[Value], Mark]]:
        """Compile the elements of a display or a call; `*` adds the labels of its source."""
        machine = self.machine
        if not any(isinstance(node, ast.Starred) for node in nodes):
            codes = tuple(map(self.expression, nodes))
            return lambda frame: ([code(frame) for code in codes], None)
        parts = tuple(
            (self.expression(node.value), True)
            if isinstance(node, ast.Starred)
            else (self.expression(node), False)
            for node in nodes
        )

        def run(frame: Frame | None) -> tuple[list[Value], Mark]:
            items: list[Value] = []
            mark: Mark = None
            for code, is_starred in parts:
                if is_starred:
                    fresh, fresh_mark = collect(machine, code(frame))
                    items += [tag(item, fresh_mark) for item in fresh]
                    machine.make_items(len(items), 8)
                    mark = join(mark, fresh_mark)
                else:
                    items.append(code(frame))
            return items, mark

        return run

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

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            machine.charge(100)
            for key, value in pairs:
                if key is None:
                    merge(machine, result, value(frame))
                    continue
                bare = key(frame)
                if type(bare) is str:
                    machine.charge(100)
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
            machine.make_text(sum(map(len, texts)))
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
            text = guard_errors(machine, mark, lambda: convert(machine, inner, conversion, form))
            return tag(text, mark)

        return run

    # -- comprehensions

    def _comprehension(self, generators: list[ast.comprehension], element: Any) -> Code:
        """Compile to something that gives an iterator; `element` compiles what it yields."""
        first = self.expression(generators[0].iter)
        scope = comprehension_scope(generators, self.scope)
        within = self.inner(scope)
        produce = within.loops(generators, element(within))

        def run(frame: Frame | None) -> IteratorValue:
            source = first(frame)
            result = IteratorValue(iter(()), take(source)[1])
            result.source = produce(scope.frame(frame), result, source)
            return result

        return run

    def loops(self, generators: list[ast.comprehension], element: Code) -> Any:
        """Nest the loops of a comprehension, the last one innermost."""
        produce: Any = None
        for generator in reversed(generators):
            source = None if generator is generators[0] else self.expression(generator.iter)
            produce = self._loop(generator, source, produce, element)
        return produce

    def _loop(
        self, generator: ast.comprehension, source: Code | None, nested: Any, element: Code
    ) -> Any:
        if generator.is_async:
            refuse(generator.iter, "`async` is not supported. Use a plain `for`.")
        machine = self.machine
        assign = self.assign(generator.target)
        strictly = _under(machine, element) if machine.is_strict else None
        conditions = tuple(map(self.expression, generator.ifs))

        def holds(frame: Frame, result: IteratorValue) -> bool:
            for condition in conditions:
                value, mark = take(condition(frame))
                machine.steer(mark)
                result.labels = join(result.labels, mark)
                if not value:
                    return False
            return True

        def produce(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
            values = given if source is None else source(frame)
            result.labels = join(result.labels, take(values)[1])
            for value in iterate(machine, values):
                machine.fuel -= 1
                if machine.fuel < 0:
                    machine.refuel()
                assign(frame, value)
                if conditions and not holds(frame, result):
                    continue
                if nested is None:
                    yield element(frame) if strictly is None else strictly(frame, result.labels)
                else:
                    yield from nested(frame, result, None)
            result.labels = join(result.labels, take(values)[1])

        return produce

    def assign(self, target: ast.expr) -> Store:
        """Compile a target; statements know more of them."""
        raise NotImplementedError

    def block(self, nodes: list[ast.stmt]) -> Callable[[Frame | None], Any]:
        """Compile statements, for the body of a function."""
        raise NotImplementedError

    def _list_comprehension(self, node: ast.ListComp) -> Code:
        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_list(*collect(machine, produce(frame)))

    def _set_comprehension(self, node: ast.SetComp) -> Code:
        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_set(machine, *collect(machine, produce(frame)))

    def _generator(self, node: ast.GeneratorExp) -> Code:
        return self._one_element(node)

    def _one_element(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Code:
        return self._comprehension(node.generators, lambda within: within.expression(node.elt))

    def _dict_comprehension(self, node: ast.DictComp) -> Code:
        machine = self.machine

        def pair(within: "Expressions") -> Code:
            key, value = within.expression(node.key), within.expression(node.value)
            return lambda frame: (key(frame), value(frame))

        produce = self._comprehension(node.generators, pair)

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            pairs = produce(frame)
            for key, value in pairs.source:
                store_key(machine, result, None, key, value)
            machine.mark(result, pairs.labels)
            return result

        return run

    # -- calls

    def _call(self, node: ast.Call) -> Code:
        if _spreads(node):
            return self._call_spread(node)
        arguments, machine = self.arguments(node), self.machine
        function = node.func
        if isinstance(function, ast.Attribute) and not function.attr.startswith("_"):
            return self._call_method(function, node, arguments)
        known = self._known(function)
        if isinstance(known, Tool):
            name, line = known.name, node.lineno

            def tool(frame: Frame | None) -> Value:
                args, named = arguments(frame)
                machine.line = line
                return call_tool(machine, name, args, named)

            return tool
        if isinstance(known, Builtin | TypeValue):
            implementation = known.call
            return lambda frame: implementation(machine, *arguments(frame))
        callee = self.expression(function)

        def run(frame: Frame | None) -> Value:
            target = callee(frame)
            args, named = arguments(frame)
            if type(target) is Function:
                return target.call(args, named)
            return call_value(machine, target, args, named)

        return run

    def _call_spread(self, node: ast.Call) -> Code:
        """A call with `*` or `**`: how many arguments there are, and their names, are data."""
        machine, callee, elements = (
            self.machine,
            self.expression(node.func),
            self.elements(node.args),
        )
        keywords = tuple((word.arg, self.expression(word.value)) for word in node.keywords)
        line = node.lineno

        def run(frame: Frame | None) -> Value:
            target = callee(frame)
            args, mark = elements(frame)
            named: dict[str, Value] = {}
            for name, code in keywords:
                value = code(frame)
                if name is None:
                    pairs, spread_mark = _spread(machine, value)
                    mark = join(mark, spread_mark)
                else:
                    pairs = [(name, value)]
                for key, item in pairs:
                    if key in named:
                        message = f"got multiple values for keyword argument '{key}'"
                        machine.fail(TypeError, message, mark)
                    named[key] = tag(item, mark)
            machine.line = line
            given = [tag(arg, mark) for arg in args]
            result = guard_errors(machine, mark, lambda: call_value(machine, target, given, named))
            return tag(result, mark)

        return run

    def _known(self, function: ast.expr) -> Value:
        """The built-in or tool that a name can only mean."""
        if not isinstance(function, ast.Name) or function.id in self.bound:
            return None
        name = function.id
        if find(self.scope, name) is not None:
            return None
        return Tool(name) if name in self.machine.tools else BUILTINS.get(name)

    def _call_method(self, function: ast.Attribute, node: ast.Call, arguments: Arguments) -> Code:
        target, machine, name = self.expression(function.value), self.machine, function.attr
        line = node.lineno

        def run(frame: Frame | None) -> Value:
            value = target(frame)
            methods = METHODS.get(type(value))
            method = methods.get(name) if methods is not None else None
            if method is None:
                # Before the arguments: that there is no such method comes first.
                found = attribute(machine, value, name)
                args, named = arguments(frame)
                machine.line = line
                return call_value(machine, found, args, named)
            args, named = arguments(frame)
            machine.line = line
            return method(machine, [value, *args], named)

        return run

    def arguments(self, node: ast.Call) -> Arguments:
        """Compile the arguments of a call."""
        codes = tuple(map(self.expression, node.args))
        if not node.keywords:
            return lambda frame: ([code(frame) for code in codes], {})
        named = tuple((word.arg or "", self.expression(word.value)) for word in node.keywords)
        return lambda frame: (
            [code(frame) for code in codes],
            {name: code(frame) for name, code in named},
        )

    def _lambda(self, node: ast.Lambda) -> Code:
        raise NotImplementedError


def _unbound(machine: Machine, name: str) -> None:
    message = f"cannot access local variable '{name}' where it is not associated with a value"
    machine.fail(UnboundLocalError, message)


def _shown(machine: Machine, value: Value) -> Value:
    if type(value) is str:
        return value
    inner, mark = machine.bare(value)
    return tag(convert(machine, inner, None, ""), mark)


def _under(machine: Machine, element: Code) -> Callable[[Frame | None, Mark], Value]:
    """Evaluate an element of a comprehension under the labels of what let it through."""

    def run(frame: Frame | None, mark: Mark) -> Value:
        before, machine.branch = machine.branch, join(machine.branch, mark)
        try:
            return element(frame)
        finally:
            machine.branch = before

    return run


def _spreads(node: ast.Call) -> bool:
    starred = any(isinstance(arg, ast.Starred) for arg in node.args)
    return starred or any(word.arg is None for word in node.keywords)


def _spread(machine: Machine, value: Value) -> tuple[list[tuple[str, Value]], Mark]:
    inner, mark = take(value)
    if type(inner) is not DictValue:
        message = f"argument after ** must be a mapping, not {type_name(inner)}"
        machine.fail(TypeError, message, mark)
    for key in inner:
        if type(key) is not str:
            machine.fail(TypeError, "keywords must be strings", mark)
    machine.make_items(len(inner), 100)
    return list(inner.items()), mark


_EXPRESSIONS: dict[type[ast.expr], Callable[[Any, Any], Code]] = {
    ast.Attribute: lambda self, node: self._attribute(node),
    ast.BinOp: lambda self, node: self._binary(node),
    ast.BoolOp: lambda self, node: self._boolean(node),
    ast.Call: lambda self, node: self._call(node),
    ast.Compare: lambda self, node: self._compare(node),
    ast.Constant: lambda self, node: self._constant(node),
    ast.Dict: lambda self, node: self._dict(node),
    ast.DictComp: lambda self, node: self._dict_comprehension(node),
    ast.FormattedValue: lambda self, node: self._formatted(node),
    ast.GeneratorExp: lambda self, node: self._generator(node),
    ast.IfExp: lambda self, node: self._ternary(node),
    ast.JoinedStr: lambda self, node: self._joined(node),
    ast.Lambda: lambda self, node: self._lambda(node),
    ast.List: lambda self, node: self._list(node),
    ast.ListComp: lambda self, node: self._list_comprehension(node),
    ast.Name: lambda self, node: self._name(node),
    ast.NamedExpr: lambda self, node: self._walrus(node),
    ast.Set: lambda self, node: self._set(node),
    ast.SetComp: lambda self, node: self._set_comprehension(node),
    ast.Slice: lambda self, node: self._slice(node),
    ast.Starred: lambda self, node: self._starred(node),
    ast.Subscript: lambda self, node: self._subscript(node),
    ast.Tuple: lambda self, node: self._tuple(node),
    ast.UnaryOp: lambda self, node: self._unary(node),
}
