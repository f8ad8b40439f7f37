"""What a function returns, from its source: the fields a node writes, the targets of a router.

Each `return` is looked at by itself. What cannot be told is said to be unknown, never guessed.
"""

import ast
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.runnables import RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Overwrite, Send
from typing_extensions import is_typeddict

from langchain_sequrity.graph.analysis.reads import bound_names
from langchain_sequrity.graph.analysis.source import Source, functions_of, hints_of, sources_of
from langchain_sequrity.labels import with_labels


@dataclass(frozen=True, slots=True)
class Answer:
    """What one or several returns may say.

    Attributes:
        keys: Keys that a node may return; `None` for any.
        sure: Keys that are always among them; `None` where nothing is returned at all.
        targets: What a router or a `goto` may name; `None` for anything.
        sends: Nodes that packets may go to; `None` for any.
        most: How many targets it names at most; 2 for "several".
        least: How many at least.
        overwrites: Whether an update may be an `Overwrite`.
    """

    keys: frozenset[str] | None = frozenset()
    sure: frozenset[str] | None = frozenset()
    targets: frozenset[Any] | None = frozenset()
    sends: frozenset[str] | None = frozenset()
    most: int = 0
    least: int = 0
    overwrites: bool = False

    def either(self, other: "Answer") -> "Answer":
        """One or the other."""
        return Answer(
            keys=union(self.keys, other.keys),
            sure=_both(self.sure, other.sure),
            targets=union(self.targets, other.targets),
            sends=union(self.sends, other.sends),
            most=max(self.most, other.most),
            least=min(self.least, other.least),
            overwrites=self.overwrites or other.overwrites,
        )

    def together(self, other: "Answer") -> "Answer":
        """One after the other."""
        sure = None if self.sure is None or other.sure is None else self.sure | other.sure
        most, least = min(2, self.most + other.most), self.least + other.least
        return replace(self.either(other), sure=sure, most=most, least=least)


def one(target: Any) -> Answer:
    """One target."""
    return Answer(targets=frozenset({target}), most=1, least=1)


def either(answers: Iterable[Answer]) -> Answer:
    """One of these; `NEVER` if there is none."""
    found = None
    for answer in answers:
        found = answer if found is None else found.either(answer)
    return NEVER if found is None else found


def union(some: frozenset[Any] | None, others: frozenset[Any] | None) -> frozenset[Any] | None:
    """Both sets together, where `None` is everything."""
    return None if some is None or others is None else some | others


def _both(some: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    if some is None or others is None:
        return others if some is None else some
    return some & others


ANYTHING = Answer(None, frozenset(), None, None, most=2, overwrites=True)
NOTHING = Answer()
NEVER = Answer(sure=None, least=2)
"""An answer that does not come: `Command.PARENT` leaves the graph."""

ANY_ONE = Answer(targets=None, most=1, least=1)
"""One target, whatever it is."""

ANY_NAMES = Answer(targets=None, most=2)
"""Targets, whatever they are, but no packets."""

YES_OR_NO = one(target=True).either(one(target=False))


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def in_scope(source: Source) -> Iterator[ast.AST]:
    """What a function consists of, without the functions and classes within it."""
    for part in source.body:
        yield from _in_scope(part)


def assigned(source: Source, name: str) -> list[ast.expr] | None:
    """The expressions that a variable may get its value from.

    Args:
        source: The function.
        name: A name in it.

    Returns:
        All expressions, if each is a plain assignment to a local variable; else `None`.
    """
    values: list[ast.expr] = []
    places: set[ast.AST] = set()
    for node in in_scope(source):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            place, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            place, value = node.target, node.value
        else:
            continue
        if isinstance(place, ast.Name) and place.id == name:
            values.append(value)
            places.add(place)
    others = (node for node in _everything(source) if node not in places)
    is_bound_otherwise = name in _parameters(source) or any(
        name in bound_names(one) for one in others
    )
    return values if values and not is_bound_otherwise else None


def added(source: Source, name: str) -> frozenset[str] | None:
    """Keys that are set on a variable's dict after it was made.

    Args:
        source: The function.
        name: A local variable of it.

    Returns:
        The keys; `None` if the dict is handed to something else, which may add any.
    """
    parents = {child: node for node in _everything(source) for child in ast.iter_child_nodes(node)}
    found: set[str] = set()
    for use in parents:
        if not (isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)):
            continue
        keys = _added_by(source, use, parents)
        if keys is None:
            return None
        found |= keys
    return frozenset(found)


def _added_by(source: Source, use: ast.AST, parents: dict[ast.AST, ast.AST]) -> set[str] | None:
    outer = parents.get(use)
    while isinstance(outer, ast.IfExp):
        use, outer = outer, parents.get(outer)
    match outer:
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=context):
            if isinstance(context, ast.Del):
                return None
            return {key} if isinstance(context, ast.Store) else set()
        case ast.Dict(keys=keys, values=values):
            is_copied = all(
                key is None for key, item in zip(keys, values, strict=True) if item is use
            )
            return set() if is_copied else None
        case ast.keyword(arg="update" | "goto"):
            made = parents[outer]
            is_command = isinstance(made, ast.Call) and source.resolve(made.func) is Command
            return set() if is_command else None
    is_looked_at = isinstance(outer, ast.Return | ast.Compare | ast.If) or (
        isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not)
    )
    return set() if is_looked_at else None


def _everything(source: Source) -> Iterator[ast.AST]:
    for part in source.body:
        yield from ast.walk(part)


def _in_scope(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _in_scope(child)


def _parameters(source: Source) -> set[str]:
    return {node.arg for node in ast.walk(source.tree.args) if isinstance(node, ast.arg)}


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


def answer_of_node(runnable: Any) -> Answer:
    """What a node may return."""
    if isinstance(runnable, CompiledStateGraph):
        return _subgraph_answer(runnable)
    if isinstance(runnable, RunnableSequence):
        return answer_of_node(runnable.last)
    if isinstance(runnable, RunnableBindingBase):
        return answer_of_node(runnable.bound)
    if isinstance(runnable, RunnableParallel):
        keys = frozenset(runnable.steps__)
        return Answer(keys=keys, sure=keys)
    if isinstance(runnable, BaseLanguageModel | BaseOutputParser):
        return Answer(keys=None)
    sources = sources_of(runnable)
    return either(node_answer(one) for one in sources) if sources else ANYTHING


def _subgraph_answer(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Answer:
    """A subgraph returns its output fields, unless one of its nodes answers for the parent."""
    builder = graph.builder
    for spec in builder.nodes.values():
        sources = sources_of(spec.runnable)
        if not sources or any(map(leaves_graph, sources)):
            return ANYTHING
        if either(node_answer(one) for one in sources).targets is None:
            return ANYTHING
    return Answer(keys=frozenset(builder.schemas[builder.output_schema]))


def answer_of_router(runnable: Any) -> Answer:
    """Where a router may go."""
    sources = sources_of(runnable)
    return either(router_answer(one) for one in sources) if sources else ANYTHING


def names_one(runnable: Any) -> bool:
    """Whether all functions of a router are annotated to return a Literal, and no list of them."""
    functions = functions_of(runnable)
    return bool(functions) and all(get_origin(_return_hint(one)) is Literal for one in functions)


def annotated_keys(runnable: Any, state_schema: type[Any]) -> frozenset[str] | None:
    """Keys of a return annotation that is made of TypedDicts other than the state's."""
    functions = functions_of(runnable)
    hints = [kind for one in functions for kind in _alternatives(_return_hint(one))]
    # `-> None` says no more than no annotation: many functions with it return something.
    kinds = [kind for kind in hints if kind is not type(None)]
    if not kinds or not all(is_typeddict(one) and one is not state_schema for one in kinds):
        return None
    return frozenset(key for one in kinds for key in get_type_hints(one))


def return_kinds(runnable: Any) -> list[Any]:
    """What the functions of a node are annotated to return: all that a union names."""
    hints = map(_return_hint, functions_of(runnable))
    return [kind for hint in hints for kind in _alternatives(hint)]


def _alternatives(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _return_hint(function: Any) -> Any:
    return hints_of(function).get("return")
