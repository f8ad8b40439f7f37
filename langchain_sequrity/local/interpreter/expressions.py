"""Expressions: each is compiled once to a function of the frame.

One method per construct. Where speed matters, a method returns a function that handles values
without labels itself and leaves everything else to `operators`, `containers` and `calls`.

A comprehension compiles to nested loops that give an iterator. The labels of that iterator grow
with what its sources and filters read.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from langchain_sequrity.local.interpreter.calls import (
    METHODS,
    attribute,
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
    Labeler,
    ScopeCompiler,
    comprehension_scope,
    minimum_steps,
    without_first_source,
)
from langchain_sequrity.local.interpreter.syntax import refuse, type_of_operand
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    DictValue,
    Effects,
    FunctionValue,
    IteratorValue,
    ListValue,
    Mark,
    Value,
    add_labels,
    join_labels,
    split_labels,
    type_name,
    unbox,
)

Arguments = Callable[[Frame | None], tuple[list[Value], dict[str, Value], Mark]]


_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
_FAST_COMPARABLE = frozenset({int, float, str})
_NONE, _NO_SPEC = ast.Constant(None), ast.Constant("")
_SHORT = 4_096  # characters of a text whose comparison the price of its statement includes


class ExpressionCompiler(ScopeCompiler):
    """Compiles the expressions of one scope: one `visit_` method for each construct."""

    # -- names and constants

    def visit_Constant(self, node: ast.Constant) -> Code:
        value = node.value
        if isinstance(value, int):
            self.machine.pay_bits(value.bit_length())
        return lambda _: value

    def visit_Name(self, node: ast.Name) -> Code:
        return self.load(node.id)

    # -- operators

    def visit_BinOp(self, node: ast.BinOp) -> Code:
        left, right = self.expression(node.left), self.expression(node.right)
        symbol = SYMBOLS.get(type(node.op)) or refuse(node, "This operator is not supported.")
        apply = fast_binary(self.machine, symbol)
        return lambda frame: apply(left(frame), right(frame))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Code:
        operand, machine, operator = self.expression(node.operand), self.machine, type(node.op)
        if operator is ast.Not:

            def negate(frame: Frame | None) -> Value:
                is_true, mark = machine.truth(operand(frame))
                return add_labels(not is_true, mark)

            return negate
        return lambda frame: unary(machine, operator, operand(frame))

    def visit_BoolOp(self, node: ast.BoolOp) -> Code:
        codes, labelers = map(self.expression, node.values), map(self.label_skipped, node.values)
        return self._short_circuit(codes, labelers, stop=isinstance(node.op, ast.Or))

    def visit_Compare(self, node: ast.Compare) -> Code:
        if len(node.ops) == 1:
            return self._compare_two(node)
        # The parts run in a frame of their own, whose variable is the value to their left.
        first, pairs = self.expression(node.left), [*zip(node.ops, node.comparators, strict=True)]
        codes = [self._compare_next(type(op), self.expression(other)) for op, other in pairs]
        parts = [ast.Compare(_NONE, [op], [other]) for op, other in pairs]
        labelers = [_in_outer_frame(self.label_skipped(part)) for part in parts]
        compare_all = self._short_circuit(codes, labelers, stop=False)
        return lambda frame: compare_all([frame, first(frame)])

    def _short_circuit(
        self, codes: Iterable[Code], labelers: Iterable[Labeler], *, stop: bool
    ) -> Code:
        """Compile to the first value whose truth is `stop`, or else the last one.

        Each value, and each change that its code makes, depends on the truth of the values before
        it. If code does not run, its function in `labelers` is called.
        """
        *firsts, last = codes
        _, *labelers_of_rest = labelers
        machine = self.machine

        def run(frame: Frame | None) -> Value:
            mark: Mark = None
            before = machine.branch
            try:
                for number, code in enumerate(firsts):
                    value = code(frame)
                    is_true, value_mark = machine.truth(value)
                    if is_true is not stop and value_mark is None:
                        continue
                    decision_mark = join_labels(mark, value_mark)
                    if is_true is stop:
                        if decision_mark is None:
                            return value
                        for label_skipped in islice(labelers_of_rest, number, None):
                            label_skipped(frame, decision_mark)
                        return add_labels(value, mark)
                    mark = decision_mark
                    machine.branch = join_labels(machine.branch, mark)
                return add_labels(last(frame), mark)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_labelled_error(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.close_branches(before)

        return run

    def _compare_next(self, operator: type[ast.cmpop], code: Code) -> Code:
        machine = self.machine

        def run(frame: Any) -> Value:
            machine.pay_steps(1)
            left, right = frame[1], code(frame[0])
            frame[1] = right
            return compare(machine, operator, left, right)

        return run

    def _compare_two(self, node: ast.Compare) -> Code:
        left, right = self.expression(node.left), self.expression(node.comparators[0])
        machine, operator = self.machine, type(node.ops[0])
        apply = COMPARISONS.get(operator)
        if apply is None:
            return lambda frame: compare(machine, operator, left(frame), right(frame))

        def run(frame: Frame | None) -> Value:
            first, second = left(frame), right(frame)
            if type(first) in _FAST_COMPARABLE and type(second) in _FAST_COMPARABLE:
                if type(first) is str and len(first) > _SHORT:
                    machine.pay_steps(len(first) >> 8)
                return apply(first, second)
            return compare(machine, operator, first, second)

        return run

    def visit_IfExp(self, node: ast.IfExp) -> Code:
        condition, machine = self.expression(node.test), self.machine
        body, otherwise = self.expression(node.body), self.expression(node.orelse)
        label_body, label_otherwise = self.label_skipped(node.body), self.label_skipped(node.orelse)

        def run(frame: Frame | None) -> Value:
            is_true, mark = machine.truth(condition(frame))
            chosen, label_skipped = (body, label_otherwise) if is_true else (otherwise, label_body)
            if mark is None:
                return chosen(frame)
            label_skipped(frame, mark)
            return machine.run_within(mark, lambda: chosen(frame))

        return run

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Code:
        value = self.expression(node.value)
        bind = self.store(node.target.id, in_expression=True)

        def run(frame: Frame | None) -> Value:
            result = value(frame)
            bind(frame, result)
            return result

        return run

    # -- parts of values

    def visit_Attribute(self, node: ast.Attribute) -> Code:
        operand = type_of_operand(node)
        value, machine, name = self.expression(operand or node.value), self.machine, node.attr
        if operand is None:
            return lambda frame: attribute(machine, value(frame), name)

        def type_of(frame: Frame | None) -> Value:
            inner, mark = split_labels(value(frame))
            return add_labels(type_name(inner), mark)

        return type_of

    def visit_Subscript(self, node: ast.Subscript) -> Code:
        container, key = self.expression(node.value), self.expression(node.slice)
        machine = self.machine

        def run(frame: Frame | None) -> Value:
            inner, index = container(frame), key(frame)
            cls = type(inner)
            if cls is ListValue and type(index) is int and inner.labels is None:
                return inner[index]
            if cls is DictValue and type(index) is str and inner.labels is None and index in inner:
                return inner[index]
            return get_item(machine, inner, index)

        return run

    def visit_Slice(self, node: ast.Slice) -> Code:
        bounds = (node.lower, node.upper, node.step)
        parts = tuple(self.expression(part or _NONE) for part in bounds)
        machine = self.machine

        def run(frame: Frame | None) -> Value:
            bare, mark = machine.strip_all_labels([part(frame) for part in parts])
            return add_labels(slice(*bare), mark)

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
            machine.pay_items(len(items))
            return make_list(items, mark)

        return run

    def visit_Tuple(self, node: ast.Tuple) -> Code:
        elements, machine = self.elements(node.elts), self.machine

        def run(frame: Frame | None) -> Value:
            items, mark = elements(frame)
            machine.pay_items(len(items), 8)
            return add_labels(tuple(items), mark)

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
            machine.pay_memory(size)
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
            texts, mark = machine.strip_all_labels([part(frame) for part in parts])
            machine.pay_text(sum(map(len, texts)), *texts)
            return add_labels("".join(texts), mark)

        return run

    def visit_FormattedValue(self, node: ast.FormattedValue) -> Code:
        machine, value = self.machine, self.expression(node.value)
        conversion = None if node.conversion == -1 else chr(node.conversion)
        spec = self.expression(node.format_spec or _NO_SPEC)
        is_plain = node.format_spec is None and conversion is None

        def run(frame: Frame | None) -> Value:
            operand = value(frame)
            if is_plain and type(operand) is str:
                return operand
            inner, mark = machine.strip_labels(operand)
            template, form_mark = machine.strip_labels(spec(frame))
            mark = join_labels(mark, form_mark)
            text = machine.run_guarded(mark, lambda: convert(machine, inner, conversion, template))
            return add_labels(text, mark)

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
                    spread, spread_mark = collect(machine, code(frame))
                    items += spread
                    machine.check_items(len(items))
                    mark = join_labels(mark, spread_mark)
                else:
                    items.append(code(frame))
            return items, mark

        return run

    def visit_Call(self, node: ast.Call) -> Code:
        function, line = node.func, node.lineno
        arguments, machine = self.arguments(node), self.machine
        if isinstance(function, ast.Attribute) and not function.attr.startswith("_"):
            return self._call_method(function, arguments, line)
        callee = self.expression(function)

        def run(frame: Frame | None) -> Value:
            target = callee(frame)
            args, named, mark = arguments(frame)
            machine.line = line
            if mark is not None:
                return machine.run_within(mark, lambda: call_value(machine, target, args, named))
            if type(target) is FunctionValue:  # most calls, and calls within calls
                return target.call(args, named)
            return call_value(machine, target, args, named)

        return run

    def _call_method(self, function: ast.Attribute, arguments: Arguments, line: int) -> Code:
        target, machine, name = self.expression(function.value), self.machine, function.attr

        def run(frame: Frame | None) -> Value:
            value = target(frame)
            methods = METHODS.get(type(value))
            method = methods.get(name) if methods is not None else None
            # Before the arguments: a missing method is reported first, as in Python.
            member = attribute(machine, value, name) if method is None else None
            args, named, mark = arguments(frame)
            machine.line = line
            if method is None:
                return machine.run_within(mark, lambda: call_value(machine, member, args, named))
            if mark is None:
                return method(machine, [value, *args], named)
            return machine.run_within(mark, lambda: method(machine, [value, *args], named))

        return run

    def arguments(self, node: ast.Call) -> Arguments:
        """Compile the arguments of a call. Their number and names may depend on data."""
        if not node.keywords and not any(isinstance(arg, ast.Starred) for arg in node.args):
            codes = tuple(map(self.expression, node.args))
            return lambda frame: ([code(frame) for code in codes], {}, None)
        machine, elements = self.machine, self.elements(node.args)
        keywords = tuple((keyword.arg, self.expression(keyword.value)) for keyword in node.keywords)

        def run(frame: Frame | None) -> tuple[list[Value], dict[str, Value], Mark]:
            args, mark = elements(frame)
            named: dict[str, Value] = {}
            for name, code in keywords:
                value = code(frame)
                if name is None:
                    pairs, spread_mark = _unpack_mapping(machine, value)
                    mark = join_labels(mark, spread_mark)
                else:
                    pairs = [(name, value)]
                for key, item in pairs:
                    if key in named:
                        message = f"got multiple values for keyword argument '{key}'"
                        machine.fail(TypeError, message, mark)
                    named[key] = add_labels(item, mark)
            return args if mark is None else [add_labels(arg, mark) for arg in args], named, mark

        return run

    # -- comprehensions

    def _iterator(
        self, node: _Comprehension, element: Callable[["ExpressionCompiler"], Code]
    ) -> Code:
        """Compile to code that gives an iterator; `element` compiles what it yields."""
        machine, first = self.machine, self.expression(node.generators[0].iter)
        scope = comprehension_scope(node.generators, self.scope)
        inner, rest = self.compiler_for(scope), [*without_first_source(node)]
        label_skipped, label_effects = inner.label_skipped(*rest), inner.label_bound(*rest)
        produce = inner.loop(node.generators, element(inner), minimum_steps(node), label_skipped)
        size = ITERATOR_SIZE + _SLOT * len(scope.slots)

        def run(frame: Frame | None) -> IteratorValue:
            source = first(frame)
            machine.pay_memory(size)
            inner_frame = scope.frame(frame)
            result = IteratorValue(iter(()), upstream=[Effects(label_effects, inner_frame)])
            result.source = produce(inner_frame, result, source)
            return result

        return run

    def loop(  # noqa: C901 - with the functions in it
        self, generators: list[ast.comprehension], element: Code, price: int, label_end: Labeler
    ) -> Callable[[Frame, IteratorValue, Value], Iterator[Value]]:
        """Compile a loop of a comprehension, and those within it.

        Args:
            generators: The loop, and those within it.
            element: What the innermost loop yields.
            price: Steps of each round.
            label_end: Records that data decided the number of rounds.
        """
        generator, *others = generators
        if generator.is_async:
            refuse(generator.iter, "`async` is not supported. Use a plain `for`.")
        machine = self.machine
        content = self.expression(others[0].iter) if others else element
        content_for = self._content_for(generator, content)
        nested = self.loop(others, element, price, label_end) if others else None

        def rounds(frame: Frame, result: IteratorValue, values: Value) -> Iterator[Value]:
            inner, mark = split_labels(values)
            carriers = [inner] if type(inner) in CARRIERS else []
            try:
                machine.label_changed(result, mark)
                for value in elements_of(machine, values):
                    machine.pay_steps(price)
                    if carriers:
                        share_labels(machine, result, carriers)
                    item = content_for(frame, result, value)
                    if item is _SKIPPED:
                        continue
                    if nested is None:
                        yield item
                    else:
                        yield from nested(frame, result, add_labels(item, result.labels))
                share_labels(machine, result, carriers)
                machine.check_branch(result.labels)
                label_end(frame, result.labels)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_iteration_error(error, None, result) from None
            if type(inner) is IteratorValue:
                result.upstream.remove(inner)

        def produce(frame: Frame, result: IteratorValue, values: Value) -> Iterator[Value]:
            inner = unbox(values)
            if type(inner) is IteratorValue:  # advancing the result may advance it
                result.upstream.append(inner)
            return rounds(frame, result, values)

        return produce

    def _content_for(
        self, generator: ast.comprehension, content: Code
    ) -> Callable[[Frame, IteratorValue, Value], Value]:
        """Compile one round of a loop; it gives `_SKIPPED` if a condition is false.

        The effects of a round depend on the conditions that were true.
        """
        machine, assign = self.machine, self.assign(generator.target)
        is_watched = not machine.ignores_control_flow
        conditions = tuple(map(self.expression, generator.ifs))

        def run(frame: Frame, result: IteratorValue, value: Value) -> Value:
            before = machine.branch
            try:
                if is_watched or result.labels is not None:
                    machine.open_choice(result.labels)
                assign(frame, value)
                for condition in conditions:
                    is_true, mark = machine.truth(condition(frame))
                    if mark is not None:
                        # Where the next element is depends on it.
                        machine.label_changed(result, mark)
                        machine.branch = join_labels(machine.branch, mark)
                    if not is_true:
                        return _SKIPPED
                return content(frame)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_labelled_error(error, None) from None
            finally:
                if machine.branch is not before:
                    machine.close_branches(before)

        return run

    def visit_ListComp(self, node: ast.ListComp) -> Code:
        produce, machine = self.visit_GeneratorExp(node), self.machine
        return lambda frame: make_list(*collect(machine, produce(frame)))

    def visit_SetComp(self, node: ast.SetComp) -> Code:
        produce, machine = self.visit_GeneratorExp(node), self.machine
        return lambda frame: make_set(machine, *collect(machine, produce(frame)))

    def visit_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp) -> Code:
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
            machine.label_changed(result, pairs.labels)
            return result

        return run


def _in_outer_frame(label_skipped: Labeler) -> Labeler:
    return lambda frame, mark: label_skipped(frame[0], mark)  # type: ignore[index]


def _unpack_mapping(machine: Machine, value: Value) -> tuple[list[tuple[str, Value]], Mark]:
    inner, mark = split_labels(value)
    if type(inner) is not DictValue:
        message = f"argument after ** must be a mapping, not {type_name(inner)}"
        machine.fail(TypeError, message, mark)
    if any(type(key) is not str for key in inner):
        machine.fail(TypeError, "keywords must be strings", mark)
    machine.pay_items(len(inner), 100)
    return list(inner.items()), mark


_SKIPPED = object()
_SLOT = 8  # bytes of a variable
