"""Expressions: each is compiled once to a function of the frame.

One method per construct. Where speed matters, a method returns a function that handles values
without labels itself and leaves everything else to `operators`, `containers` and `calls`.

A comprehension compiles to nested loops that give an iterator. The labels of that iterator grow
with what its sources and filters read.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import (
    METHODS,
    attribute,
    call_tool,
    call_value,
)
from langchain_sequrity.local.interpreter.containers import (
    get_item,
    make_list,
    make_set,
    merge,
    store_key,
)
from langchain_sequrity.local.interpreter.formatting import convert
from langchain_sequrity.local.interpreter.functions import compile_function
from langchain_sequrity.local.interpreter.iteration import (
    collect,
    elements_of,
    share_labels,
)
from langchain_sequrity.local.interpreter.machine import ITERATOR_SIZE, Machine
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
    LeftOut,
    ScopeCompiler,
    but_first_source,
    comprehension_scope,
    find,
    minimum_steps,
)
from langchain_sequrity.local.interpreter.syntax import refuse, type_of_operand
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    Builtin,
    DictValue,
    Effects,
    FunctionValue,
    IteratorValue,
    ListValue,
    Mark,
    ToolValue,
    TypeValue,
    Value,
    join,
    strip,
    tag,
    take,
    type_name,
)

Arguments = Callable[[Frame | None], tuple[list[Value], dict[str, Value]]]


_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
_FAST_COMPARABLE = frozenset({int, float, str})
_NONE = ast.Constant(None)
_SHORT = 4_096  # characters of a text whose comparison the price of its statement includes


class ExpressionCompiler(ScopeCompiler):
    """Compiles the expressions of one scope: one `visit_` method for each construct."""

    # -- names and constants

    def visit_Constant(self, node: ast.Constant) -> Code:
        value = node.value
        if isinstance(value, int):
            self.machine.make_bits(value.bit_length())
        return lambda _: value

    def visit_Name(self, node: ast.Name) -> Code:
        return self.load(node.id)

    # -- operators

    def visit_BinOp(self, node: ast.BinOp) -> Code:
        left, right = self.expression(node.left), self.expression(node.right)
        symbol = SYMBOLS.get(type(node.op))
        if symbol is None:
            refuse(node, "This operator is not supported.")
        apply = fast_binary(self.machine, symbol)
        return lambda frame: apply(left(frame), right(frame))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Code:
        operand, machine, kind = self.expression(node.operand), self.machine, type(node.op)
        if kind is ast.Not:

            def negate(frame: Frame | None) -> Value:
                is_true, mark = machine.truth(operand(frame))
                return tag(not is_true, mark)

            return negate
        return lambda frame: unary(machine, kind, operand(frame))

    def visit_BoolOp(self, node: ast.BoolOp) -> Code:
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
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.labelled(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.close_branches(before)

        return run

    def _each_left_out(self, nodes: list[ast.expr]) -> Callable[[Frame | None, int, Mark], None]:
        """Compile `left_out` for the expressions from a given index on."""
        notes = tuple(map(self.left_out, nodes))

        def note_all(frame: Frame | None, start: int, mark: Mark) -> None:
            if mark is not None:
                for note in notes[start:]:
                    note(frame, mark)

        return note_all

    def visit_Compare(self, node: ast.Compare) -> Code:
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
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.labelled(error, None) from None
            finally:
                machine.close_branches(before)

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

    def visit_IfExp(self, node: ast.IfExp) -> Code:
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

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Code:
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

    def visit_Attribute(self, node: ast.Attribute) -> Code:
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

    def visit_Subscript(self, node: ast.Subscript) -> Code:
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

    def visit_Slice(self, node: ast.Slice) -> Code:
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

    def visit_Starred(self, node: ast.Starred) -> Code:
        refuse(node, "`*` is not supported here.")

    # -- displays

    def visit_Lambda(self, node: ast.Lambda) -> Code:
        return compile_function(self, node)

    def visit_List(self, node: ast.List) -> Code:
        elements, machine = self.elements(node.elts), self.machine

        def run(frame: Frame | None) -> Value:
            items, mark = elements(frame)
            machine.make_items(len(items))
            return make_list(items, mark)

        return run

    def visit_Tuple(self, node: ast.Tuple) -> Code:
        elements, machine = self.elements(node.elts), self.machine

        def run(frame: Frame | None) -> Value:
            items, mark = elements(frame)
            machine.make_items(len(items), 8)
            return tag(tuple(items), mark)

        return run

    def visit_Set(self, node: ast.Set) -> Code:
        elements, machine = self.elements(node.elts), self.machine
        return lambda frame: make_set(machine, *elements(frame))

    def visit_Dict(self, node: ast.Dict) -> Code:
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

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Code:
        machine = self.machine
        parts = tuple(map(self.expression, node.values))

        def run(frame: Frame | None) -> Value:
            texts, mark = machine.bare_all([part(frame) for part in parts])
            machine.make_text(sum(map(len, texts)), *texts)
            return tag("".join(texts), mark)

        return run

    def visit_FormattedValue(self, node: ast.FormattedValue) -> Code:
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

    # -- calls

    def elements(self, nodes: list[ast.expr]) -> Callable[[Frame | None], tuple[list[Value], Mark]]:
        """Compile the elements of a display or a call. `*` adds the labels of its source."""
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
                    items += fresh
                    machine.make_room(len(items))
                    mark = join(mark, fresh_mark)
                else:
                    items.append(code(frame))
            return items, mark

        return run

    def visit_Call(self, node: ast.Call) -> Code:
        if _spreads(node):
            return self._call_spread(node)
        arguments, machine = self.arguments(node), self.machine
        function = node.func
        if isinstance(function, ast.Attribute) and not function.attr.startswith("_"):
            return self._call_method(function, node, arguments)
        known = self._known(function)
        if isinstance(known, ToolValue):
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
            if type(target) is FunctionValue:
                return target.call(args, named)
            return call_value(machine, target, args, named)

        return run

    def _call_spread(self, node: ast.Call) -> Code:
        """A call with `*` or `**`: the number of arguments and their names depend on data."""
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
            return machine.within(mark, lambda: call_value(machine, target, given, named))

        return run

    def _known(self, function: ast.expr) -> Value:
        """The built-in or tool that a name refers to, if it cannot refer to anything else."""
        if not isinstance(function, ast.Name) or function.id in self.bound:
            return None
        name = function.id
        if find(self.scope, name) is not None:
            return None
        return ToolValue(name) if name in self.machine.tools else BUILTINS.get(name)

    def _call_method(self, function: ast.Attribute, node: ast.Call, arguments: Arguments) -> Code:
        target, machine, name = self.expression(function.value), self.machine, function.attr
        line = node.lineno

        def run(frame: Frame | None) -> Value:
            value = target(frame)
            methods = METHODS.get(type(value))
            method = methods.get(name) if methods is not None else None
            if method is None:
                # Before the arguments: a missing method is reported first, as in Python.
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

    # -- comprehensions

    def _iterator(self, node: _Comprehension, element: Any) -> Code:
        """Compile to code that gives an iterator; `element` compiles what it yields."""
        generators = node.generators
        first = self.expression(generators[0].iter)
        scope = comprehension_scope(generators, self.scope)
        within = self.inner(scope)
        produce, machine = within.loops(node, element(within)), self.machine
        touched = within.touched(*but_first_source(node))
        size = ITERATOR_SIZE + _SLOT * len(scope.slots)

        def run(frame: Frame | None) -> IteratorValue:
            source = first(frame)
            machine.charge(size)
            result = IteratorValue(iter(()))
            _link(result, source)
            own = scope.frame(frame)
            result.upstream.append(Effects(touched, own))
            result.source = produce(own, result, source)
            return result

        return run

    def loops(self, node: _Comprehension, element: Code) -> Any:
        """Nest the loops of a comprehension, the last one innermost."""
        produce: Any = None
        shared = _Loops(minimum_steps(node), self.left_out(*but_first_source(node)))
        for generator in reversed(node.generators):
            is_first = generator is node.generators[0]
            source = None if is_first else self.expression(generator.iter)
            produce = self._loop(generator, source, produce, element, shared)
        return produce

    def _loop(
        self,
        generator: ast.comprehension,
        source: Code | None,
        nested: Any,
        element: Code,
        shared: "_Loops",
    ) -> Any:
        if generator.is_async:
            refuse(generator.iter, "`async` is not supported. Use a plain `for`.")
        machine, price = self.machine, shared.price
        step = self._step(generator, _nothing if nested is not None else element)

        def evaluated(frame: Frame, result: IteratorValue) -> Value:
            values = machine.within(result.labels, lambda: source(frame))  # type: ignore[misc]
            _link(result, values)
            return values

        def rounds(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
            values = given if source is None else evaluated(frame, result)
            inner, mark = take(values)
            carriers = [inner] if type(inner) in CARRIERS else []
            machine.mark(result, mark)
            for value in elements_of(machine, values):
                machine.fuel -= price
                if machine.fuel < 0:
                    machine.refuel()
                if carriers:
                    share_labels(machine, result, carriers)
                item = step(frame, result, value)
                if item is _SKIPPED:
                    continue
                if nested is None:
                    yield item
                else:
                    yield from nested(frame, result, None)
            share_labels(machine, result, carriers)
            machine.check_branch(result.labels)
            shared.left_out(frame, result.labels)
            if type(inner) is IteratorValue:
                result.upstream.remove(inner)

        return _moving(machine, rounds)

    def _step(self, generator: ast.comprehension, element: Code) -> Any:
        """Compile one round of a loop: the element, or `_SKIPPED` if a condition is false.

        The effects of a round depend on the conditions that were true.
        """
        machine, assign = self.machine, self.assign(generator.target)
        is_watched = not machine.ignores_control_flow
        conditions = tuple(map(self.expression, generator.ifs))

        def holds(frame: Frame, result: IteratorValue) -> bool:
            for condition in conditions:
                is_true, mark = machine.truth(condition(frame))
                if mark is not None:
                    machine.mark(result, mark)  # where the next element is depends on it
                    machine.branch = join(machine.branch, mark)
                if not is_true:
                    return False
            return True

        def step(frame: Frame, result: IteratorValue, value: Value) -> Value:
            before = machine.branch
            try:
                if is_watched or result.labels is not None:
                    machine.open_choice(result.labels)
                assign(frame, value)
                return element(frame) if holds(frame, result) else _SKIPPED
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.labelled(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.close_branches(before)

        return step

    def visit_ListComp(self, node: ast.ListComp) -> Code:

        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_list(*collect(machine, produce(frame)))

    def visit_SetComp(self, node: ast.SetComp) -> Code:

        produce, machine = self._one_element(node), self.machine
        return lambda frame: make_set(machine, *collect(machine, produce(frame)))

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> Code:

        return self._one_element(node)

    def _one_element(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Code:
        return self._iterator(node, lambda within: within.expression(node.elt))

    def visit_DictComp(self, node: ast.DictComp) -> Code:

        machine = self.machine

        def pair(within: "ExpressionCompiler") -> Code:
            key, value = within.expression(node.key), within.expression(node.value)
            return lambda frame: (key(frame), value(frame))

        produce = self._iterator(node, pair)

        def run(frame: Frame | None) -> Value:
            result: DictValue[Any, Value] = DictValue()
            pairs = produce(frame)
            for key, value in pairs.source:  # tuples from `pair`, not values of the program
                store_key(machine, result, None, key, value)
            machine.mark(result, pairs.labels)
            return result

        return run


def _shown(machine: Machine, value: Value) -> Value:
    if type(value) is str:
        return value
    inner, mark = machine.bare(value)
    return tag(machine.guarded(mark, lambda: convert(machine, inner, None, "")), mark)


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


class _Loops(NamedTuple):
    """Data that the loops of a comprehension share.

    Attributes:
        price: Steps of each round.
        left_out: Records that data decided the number of rounds (`ScopeCompiler.left_out`).
    """

    price: int
    left_out: LeftOut


def _moving(machine: Machine, rounds: Any) -> Any:
    """The rounds of a loop. An exception that ends them labels the iterators that they read."""

    def produce(frame: Frame, result: IteratorValue, given: Value) -> Iterator[Value]:
        try:
            yield from rounds(frame, result, given)
        except Exception as error:  # noqa: BLE001 - every exception here is the program's
            failure = machine.labelled(error, None)
            machine.moved(result, failure)
            raise failure from None

    return produce


def _link(result: IteratorValue, values: Value) -> None:
    """Record that advancing a comprehension's iterator may advance the one that it reads."""
    inner = strip(values)
    if type(inner) is IteratorValue:
        result.upstream.append(inner)


_SKIPPED = object()
_SLOT = 8  # bytes of a variable


def _nothing(_: Frame | None) -> None:
    """The element of a round whose elements come from an inner loop."""
