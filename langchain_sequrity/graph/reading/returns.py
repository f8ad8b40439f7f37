"""What a function returns, from its source: which fields a node writes, where a router goes.

Each `return` is looked at by itself. What cannot be told is said to be unknown, never guessed.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from langgraph.types import Command, Overwrite, Send
from typing_extensions import is_typeddict

from langchain_sequrity.graph.reading.answer import (
    ANY_NAMES,
    ANY_ONE,
    ANYTHING,
    NEVER,
    NOTHING,
    YES_OR_NO,
    Answer,
    either,
    one,
)
from langchain_sequrity.graph.reading.source import Source
from langchain_sequrity.graph.reading.variables import added, assigned, in_scope
from langchain_sequrity.labels import with_labels

_Read = Callable[[Any], Answer]


def node_answer(source: Source) -> Answer:
    """What a node's function may return."""
    reader = _Returns(source)
    return replace(reader.answer(reader.update), overwrites=_knows_overwrite(source))


def router_answer(source: Source) -> Answer:
    """Where a router's function may go."""
    reader = _Returns(source)
    return reader.answer(reader.route)


def leaves_graph(source: Source) -> bool:
    """Whether a function names `PARENT`, the way out of a subgraph."""
    nodes = (node for part in source.body for node in ast.walk(part))
    return any(isinstance(node, ast.Attribute) and node.attr == "PARENT" for node in nodes)


def _knows_overwrite(source: Source) -> bool:
    """Whether a function can see `Overwrite`; who gets it elsewhere is refused when it runs."""
    code = source.function.__code__
    seen = [*code.co_names, *code.co_freevars, *code.co_consts]
    objects = source.function.__globals__.values()
    return "Overwrite" in seen or "__overwrite__" in seen or any(it is Overwrite for it in objects)


class _Returns:
    """Reads the returns of one function; a method for each kind of expression."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.following: set[str] = set()
        self.updates: Mapping[type[ast.expr], _Read] = {
            ast.Constant: lambda value: NOTHING if value.value is None else ANYTHING,
            ast.IfExp: lambda value: self.update(value.body).either(self.update(value.orelse)),
            ast.Dict: self._dict,
            ast.Call: self._call,
            ast.List: lambda value: self._all(value.elts, self.update) if value.elts else ANYTHING,
            ast.Tuple: lambda value: self._all(value.elts, self.update) if value.elts else ANYTHING,
            ast.Name: self._updated_variable,
        }
        self.routes: Mapping[type[ast.expr], _Read] = {
            ast.Constant: lambda value: one(value.value),
            ast.IfExp: lambda value: self.route(value.body).either(self.route(value.orelse)),
            ast.List: lambda value: self._all(value.elts, self.route),
            ast.Tuple: lambda value: self._all(value.elts, self.route),
            ast.ListComp: lambda value: replace(self.route(value.elt), most=2, least=0),
            ast.Compare: lambda _: YES_OR_NO,
            ast.UnaryOp: lambda value: YES_OR_NO if _is_test(value) else ANYTHING,
            ast.BoolOp: lambda value: YES_OR_NO if all(map(_is_test, value.values)) else ANYTHING,
            ast.JoinedStr: lambda _: ANY_ONE,
            ast.Subscript: self._looked_up,
            ast.Call: self._routing_call,
            ast.Name: self._named,
            ast.Attribute: self._named,
        }

    def answer(self, read: _Read) -> Answer:
        """What all returns together may say."""
        if isinstance(self.source.tree, ast.Lambda):
            return read(self.source.tree.body)
        own = list(in_scope(self.source))
        if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
            return ANYTHING
        values = [node.value for node in own if isinstance(node, ast.Return)]
        answers = [NOTHING if value is None else read(value) for value in values]
        if _falls_through(self.source.tree.body):
            answers.append(NOTHING)
        return either(answers)

    def update(self, value: ast.expr) -> Answer:
        """What a node says with an expression."""
        read = self.updates.get(type(value))
        return ANYTHING if read is None else read(value)

    def route(self, value: ast.expr) -> Answer:
        """Where an expression leads, as the answer of a router or a `goto`."""
        read = self.routes.get(type(value))
        return ANYTHING if read is None else read(value)

    def _all(self, values: list[ast.expr], read: _Read) -> Answer:
        answer = NOTHING
        for value in values:
            answer = answer.together(read(value))
        return answer

    def _variable(self, name: str, read: _Read) -> Answer:
        """What a local variable may hold."""
        values = assigned(self.source, name)
        if values is None or name in self.following:
            return ANYTHING
        self.following.add(name)
        answer = either(map(read, values))
        self.following.discard(name)
        return answer

    def _updated_variable(self, value: ast.Name) -> Answer:
        keys = added(self.source, value.id)
        answer = ANYTHING if keys is None else self._variable(value.id, self.update)
        return (
            answer
            if keys is None or answer.keys is None
            else replace(answer, keys=answer.keys | keys)
        )

    def _dict(self, value: ast.Dict) -> Answer:
        answer = NOTHING
        for key, item in zip(value.keys, value.values, strict=True):
            if key is None:  # {**item}
                answer = answer.together(self.update(item))
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                answer = answer.together(_keys([key.value]))
            else:
                return ANYTHING
        return answer

    def _call(self, value: ast.Call) -> Answer:
        made = self.source.resolve(value.func)
        named = {one.arg: one.value for one in value.keywords if one.arg is not None}
        if len(named) < len(value.keywords):  # f(**options)
            return ANYTHING
        if made is with_labels and value.args:
            return self.update(value.args[0])
        if made is Command and not value.args:
            return self._command(named)
        is_dict = (made is dict or is_typeddict(made)) and not value.args
        return _keys(named) if is_dict else ANYTHING

    def _command(self, named: Mapping[str, ast.expr]) -> Answer:
        graph, goto = named.get("graph"), named.get("goto")
        if isinstance(graph, ast.Attribute) and graph.attr == "PARENT":
            return NEVER
        if graph is not None and not (isinstance(graph, ast.Constant) and graph.value is None):
            return ANYTHING
        updated = self.update(named["update"]) if "update" in named else NOTHING
        answer = Answer(keys=updated.keys, sure=updated.sure)
        return answer if goto is None else answer.together(self.route(goto))

    def _looked_up(self, value: ast.Subscript) -> Answer:
        is_state = isinstance(value.value, ast.Name) and value.value.id == self.source.state
        return ANY_NAMES if is_state else ANYTHING  # no state field holds a Send

    def _routing_call(self, value: ast.Call) -> Answer:
        made = self.source.resolve(value.func)
        if made is bool:
            return YES_OR_NO
        if made is str:
            return ANY_ONE
        return self._send(value) if made is Send else ANYTHING

    def _send(self, value: ast.Call) -> Answer:
        named = [one.value for one in value.keywords if one.arg == "node"]
        for node in [*value.args[:1], *named]:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                return Answer(sends=frozenset({node.value}), most=2)
        return Answer(sends=None, most=2)

    def _named(self, value: ast.Name | ast.Attribute) -> Answer:
        constant = self.source.resolve(value)
        if isinstance(constant, str):
            return one(constant)
        if isinstance(value, ast.Attribute) or added(self.source, value.id) != frozenset():
            return ANYTHING
        return self._variable(value.id, self.route)


def _keys(names: Any) -> Answer:
    keys = frozenset(names)
    return Answer(keys=keys, sure=keys)


def _is_test(value: ast.expr) -> bool:
    is_not = isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    return is_not or isinstance(value, ast.Compare)


def _falls_through(body: list[ast.stmt]) -> bool:
    """Whether a body can end without a `return`; yes where in doubt."""
    match body[-1]:
        case ast.Return() | ast.Raise():
            return False
        case ast.If(body=inner, orelse=other) if other:
            return _falls_through(inner) or _falls_through(other)
        case ast.Match(cases=cases):
            last = cases[-1]
            is_full = last.guard is None and ast.unparse(last.pattern) == "_"
            return not is_full or any(_falls_through(case.body) for case in cases)
        case ast.Try(body=inner, handlers=handlers, orelse=other, finalbody=final):
            inside = [other or inner, *(handler.body for handler in handlers)]
            ends = final and not _falls_through(final)
            return not ends and any(map(_falls_through, inside))
    return True
