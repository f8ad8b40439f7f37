"""Calls: the shortest way to what is called, and the labels of `*` and `**`."""

import ast
from collections.abc import Callable

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import (
    METHODS,
    attribute,
    call_tool,
    call_value,
)
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import (
    Code,
    Frame,
    Scoped,
    find,
)
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    Function,
    Mark,
    Tool,
    TypeValue,
    Value,
    join,
    tag,
    take,
    type_name,
)

Arguments = Callable[[Frame | None], tuple[list[Value], dict[str, Value]]]


class Calling(Scoped):
    """Compiles calls."""

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
                    items += fresh
                    machine.make_room(len(items))
                    mark = join(mark, fresh_mark)
                else:
                    items.append(code(frame))
            return items, mark

        return run

    def call(self, node: ast.Call) -> Code:
        """Compile a call."""
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
            return machine.within(mark, lambda: call_value(machine, target, given, named))

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
