"""What the source of a function shows: the state fields that it reads, and what it returns.

The text is found through the code object, not through `inspect.unwrap`: what a decorator returned
is what runs. It is compiled again and compared, so a file that changed after the import is never
taken for the code that runs.

A field is read by `state["x"]`, `state.get("x")`, `"x" in state` or, where the state is an object,
`state.x`. Any other use of the parameter passes the whole state on, and then the reads are unknown.
Each `return` is analysed by itself. What the source does not show is unknown, never guessed.
"""

import __future__

import ast
import builtins
import functools
import inspect
import linecache
import types
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, MethodType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import run_in_executor
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Overwrite, Send
from typing_extensions import is_typeddict

from langchain_sequrity import _compat
from langchain_sequrity.labels import with_labels

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

UNKNOWN = _compat.MISSING
"""The value of a name that is unknown before the function runs."""


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A function that gets the state.

    Attributes:
        function: The function.
        tree: Its syntax tree.
        state: Name of the parameter that gets the state.
    """

    function: FunctionType
    tree: Function
    state: str

    @property
    def body(self) -> list[ast.AST]:
        """The code that runs, without the function's own decorators, defaults and annotations."""
        return [self.tree.body] if isinstance(self.tree, ast.Lambda) else list(self.tree.body)

    def walk(self) -> Iterator[ast.AST]:
        """All syntax nodes of the body."""
        for part in self.body:
            yield from ast.walk(part)

    def parents(self) -> dict[ast.AST, ast.AST]:
        """Syntax node of the body → the node around it."""
        return {child: node for node in self.walk() for child in ast.iter_child_nodes(node)}

    def binds(self, name: str) -> int:
        """How often the body binds or declares a name."""
        return sum(name in bound_names(node) for node in self.walk())

    def resolve(self, node: ast.AST) -> Any:
        """The object behind a name or a dotted name, or `UNKNOWN`."""
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            if owner is UNKNOWN or not (inspect.ismodule(owner) or inspect.isclass(owner)):
                return UNKNOWN
            return inspect.getattr_static(owner, node.attr, UNKNOWN)
        return self._lookup(node.id) if isinstance(node, ast.Name) else UNKNOWN

    def _lookup(self, name: str) -> Any:
        code = self.function.__code__
        if name in code.co_varnames or name in code.co_cellvars:
            return UNKNOWN
        if name in code.co_freevars:
            return _compat.cell_value(
                (self.function.__closure__ or ())[code.co_freevars.index(name)]
            )
        return self.function.__globals__.get(name, getattr(builtins, name, UNKNOWN))


# The functions of a runnable, and their source


def functions_of(runnable: Any) -> list[Callable[..., Any]]:
    """The functions that a node or a router runs, sync and async; none for other runnables."""
    if not isinstance(runnable, RunnableLambda) and not _compat.is_function_node(runnable):
        return []
    function, other = getattr(runnable, "func", None), getattr(runnable, "afunc", None)
    # A sync function has an async twin that runs it in a thread.
    is_twin = isinstance(other, functools.partial) and other.func is run_in_executor
    found = (function, None if is_twin else other)
    return [one for one in found if one is not None]


def sources_of(runnable: Any) -> list[FunctionSource]:
    """The sources of all functions that may run; none if one of them is unknown."""
    found = [source_of(function) for function in functions_of(runnable)]
    return [one for one in found if one is not None] if None not in found else []


def source_of(function: Any, parameter: str | None = None) -> FunctionSource | None:
    """The source of a function; `None` if unknown.

    Args:
        function: Any callable.
        parameter: The parameter that gets the state; by default the first one.
    """
    plain = _plain_function(function)
    tree = None if plain is None else _tree(plain)
    if plain is None or tree is None:
        return None
    parameters = _signature_of(function, follow_wrapped=False)
    first = next(iter(parameters.values()), None)
    if parameter is None and first is not None and first.kind in _POSITIONAL:
        parameter = first.name
    known = {one.arg for one in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)}
    if parameter is None or parameter not in known & parameters.keys():
        return None
    return FunctionSource(plain, tree, parameter)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function; none if one of them has a name that cannot be resolved."""
    while isinstance(function, functools.partial):
        function = function.func
    is_plain = inspect.isfunction(function) or inspect.ismethod(function)
    try:
        return get_type_hints(function if is_plain else type(function).__call__)
    except (NameError, TypeError, AttributeError):
        return {}


def input_hint(function: Any) -> Any:
    """The annotation of a function's first parameter; `None` without."""
    return hints_of(function).get(next(iter(_signature_of(function, follow_wrapped=True)), ""))


def _signature_of(function: Any, *, follow_wrapped: bool) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, follow_wrapped=follow_wrapped).parameters
    except (ValueError, TypeError):  # built-in callables have none
        return {}


def _plain_function(function: Any) -> FunctionType | None:
    """The function behind partials, methods and callables."""
    for _ in range(10):
        if isinstance(function, FunctionType):
            return function
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        else:
            function = inspect.getattr_static(type(function), "__call__", None)
    return None


def _tree(function: FunctionType) -> Function | None:
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    # In a notebook, an earlier cell may have imported `annotations`.
    trees, codes = _functions_in(text, code.co_flags & __future__.annotations.compiler_flag)
    if code not in codes:
        return None
    fits = trees.get((code.co_name, code.co_firstlineno), [])
    if len(fits) > 1:
        fits = [tree for tree in fits if _contains_code(tree, code)]
    return fits[-1] if fits else None  # the walk goes inwards, and the innermost fits best


@functools.lru_cache(maxsize=64)
def _functions_in(
    text: str, flags: int
) -> tuple[Mapping[tuple[str, int], list[Function]], frozenset[CodeType]]:
    """The functions in the text of a module: syntax trees by name and first line, and code."""
    try:
        tree = ast.parse(text)
        flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as in a notebook
        module: CodeType = compile(tree, "<source>", "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}, frozenset()
    trees = defaultdict[tuple[str, int], list[Function]](list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            trees["<lambda>", node.lineno].append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            trees[node.name, first].append(node)
    return trees, frozenset(_codes_in(module))


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)


def _contains_code(tree: Function, code: CodeType) -> bool:
    """Whether all of the code is within the tree; this distinguishes lambdas on one line."""
    inner = tree.body if isinstance(tree, ast.Lambda) else tree
    start = (inner.lineno, inner.col_offset)
    end = (inner.end_lineno or 0, inner.end_col_offset or 0)
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and end_column and column is not None
    ]
    return bool(places) and all(
        start <= first and last <= end for first, last in places if first != last
    )


# What a function reads

_TOOL_NODE = "ToolNode"

_RUNS = frozenset({"invoke", "stream", "batch"})
"""Methods that run a runnable; the names of the async ones start with an `a`."""

_LOOKS_AROUND = frozenset({"locals", "vars", "eval", "exec", "dir"})


def fields_read(
    source: FunctionSource, fields: Collection[str], *, is_dict: bool, through: str | None = None
) -> frozenset[str] | None:
    """The keys or attributes of the state that a function reads.

    Args:
        source: The function.
        fields: Fields that its state has.
        is_dict: Whether the state is a dict, not an object.
        through: Attribute of the parameter that is the state, if the parameter itself is not.

    Returns:
        The keys, fields or not; `None` if unknown.
    """
    names = [node for node in source.walk() if isinstance(node, ast.Name)]
    if any(node.id in _LOOKS_AROUND for node in names) or source.binds(source.state):
        return None
    parents = source.parents()
    uses = [node for node in names if node.id == source.state]
    states = uses if through is None else _attribute_uses(through, uses, parents)
    return union_of(
        None if use is None else _keys_of_use(use, parents, fields, is_dict=is_dict)
        for use in states
    )


def uses_state(source: FunctionSource) -> bool:
    """Whether a function names its state at all."""
    return any(isinstance(node, ast.Name) and node.id == source.state for node in source.walk())


def uses_tool_node(source: FunctionSource) -> bool:
    """Whether a function may run a `ToolNode`, whose tools read the whole state."""
    nodes = list(source.walk())
    looked_at = {
        node.value
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr.lstrip("a") not in _RUNS
    }
    for node in nodes:
        if isinstance(node, ast.alias) and node.name == _TOOL_NODE:
            return True
        found = UNKNOWN if node in looked_at else source.resolve(node)
        if _compat.is_tool_node(found if isinstance(found, type) else type(found)):
            return True
    return False


def bound_names(node: ast.AST) -> Iterator[str]:
    """Names that a syntax node binds or declares, without its children."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.arg(arg=name):
            yield name
        case (
            ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
            | ast.ClassDef(name=name)
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            yield name
        case ast.alias(name=name, asname=other):
            yield (other or name).partition(".")[0]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def _attribute_uses(
    attribute: str, uses: list[ast.Name], parents: dict[ast.AST, ast.AST]
) -> Iterator[ast.Attribute | None]:
    """The uses of an attribute; `None` for a use of the object itself."""
    for use in uses:
        parent = parents.get(use)
        if not isinstance(parent, ast.Attribute):
            yield None
        elif parent.attr == attribute:
            yield parent


def _keys_of_use(
    use: ast.expr, parents: dict[ast.AST, ast.AST], fields: Collection[str], *, is_dict: bool
) -> frozenset[str] | None:
    parent = parents.get(use)
    outer = parents.get(parent) if parent is not None else None
    match parent:
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key)), ctx=context):
            return _read_key(key, context, outer) if value is use else None
        case ast.Attribute(attr=key, ctx=context) if not is_dict and key in fields:
            return _read_key(key, context, outer)
        case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()]):
            return frozenset({key}) if is_dict else None
        case ast.Attribute(attr="get") if is_dict:
            match outer:  # state.get("x", …)
                case ast.Call(func=called, args=[ast.Constant(value=str(key)), *_], keywords=[]):
                    return frozenset({key}) if called is parent else None
    return None


def _read_key(key: str, context: ast.expr_context, outer: ast.AST | None) -> frozenset[str]:
    """A key that is read, not only set as in `state["x"] = 1`."""
    is_set = isinstance(context, ast.Store) and not isinstance(outer, ast.AugAssign)
    return frozenset() if is_set else frozenset({key})


# What a function returns


@dataclass(frozen=True, slots=True)
class ReturnSummary:
    """What one or several returns may be.

    Attributes:
        keys: Keys that a node may return; `None` for any.
        sure: Keys that are always returned; `None` if no return is reached.
        targets: Names that a router or a `goto` may give; `None` for any.
        sends: Nodes that packets may go to; `None` for any.
        most: Highest number of targets; 2 means several.
        least: Lowest number of targets.
        overwrites: Whether an update may be an `Overwrite`.
    """

    keys: frozenset[str] | None = frozenset()
    sure: frozenset[str] | None = frozenset()
    targets: frozenset[Any] | None = frozenset()
    sends: frozenset[str] | None = frozenset()
    most: int = 0
    least: int = 0
    overwrites: bool = False

    def either(self, other: "ReturnSummary") -> "ReturnSummary":
        """The summary of one or the other."""
        return ReturnSummary(
            keys=union(self.keys, other.keys),
            sure=_intersection(self.sure, other.sure),
            targets=union(self.targets, other.targets),
            sends=union(self.sends, other.sends),
            most=max(self.most, other.most),
            least=min(self.least, other.least),
            overwrites=self.overwrites or other.overwrites,
        )

    def together(self, other: "ReturnSummary") -> "ReturnSummary":
        """The summary of both together."""
        sure = None if self.sure is None or other.sure is None else self.sure | other.sure
        most, least = min(2, self.most + other.most), self.least + other.least
        return replace(self.either(other), sure=sure, most=most, least=least)


def one_target(target: Any) -> ReturnSummary:
    """One target."""
    return ReturnSummary(targets=frozenset({target}), most=1, least=1)


def either(summaries: Iterable[ReturnSummary]) -> ReturnSummary:
    """The summary of any one of these; `NEVER` without any."""
    return functools.reduce(ReturnSummary.either, summaries, NEVER)


def union(some: frozenset[Any] | None, others: frozenset[Any] | None) -> frozenset[Any] | None:
    """The union, where `None` is everything."""
    return None if some is None or others is None else some | others


def union_of(sets: Iterable[frozenset[Any] | None]) -> frozenset[Any] | None:
    """The union of all of these, where `None` is everything."""
    nothing: frozenset[Any] | None = frozenset()
    return functools.reduce(union, sets, nothing)


def _intersection(
    some: frozenset[str] | None, others: frozenset[str] | None
) -> frozenset[str] | None:
    if some is None or others is None:
        return others if some is None else some
    return some & others


ANYTHING = ReturnSummary(None, frozenset(), None, None, most=2, overwrites=True)

NOTHING = ReturnSummary()

NEVER = ReturnSummary(sure=None, least=2)
"""No return: `Command.PARENT` leaves the graph."""

ANY_ONE = ReturnSummary(targets=None, most=1, least=1)
"""Exactly one target, unknown: a computed name, or whether something holds."""

ANY_NAMES = ReturnSummary(targets=None, most=2)
"""Unknown targets, but no packets."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def scope_nodes(source: FunctionSource) -> Iterator[ast.AST]:
    """The syntax nodes of a function, without its inner functions and classes."""
    todo = source.body
    for node in todo:
        yield node
        if not isinstance(node, _SCOPES):
            todo.extend(ast.iter_child_nodes(node))


def assigned_values(source: FunctionSource, name: str) -> list[ast.expr] | None:
    """The expressions that are assigned to a variable.

    Args:
        source: The function.
        name: A name in it.

    Returns:
        All of them; `None` if the variable is not local, or is bound in another way.
    """
    values: list[ast.expr] = []
    for node in scope_nodes(source):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=place)], value=value)
                | ast.AnnAssign(target=ast.Name(id=place), value=ast.expr() as value)
            ) if place == name:
                values.append(value)
    bound = sum(name in bound_names(node) for node in ast.walk(source.tree.args))
    bound += source.binds(name)
    return values if values and bound == len(values) else None


def keys_added_later(source: FunctionSource, name: str) -> frozenset[str] | None:
    """Keys that are set on a variable's dict later.

    Args:
        source: The function.
        name: A local variable of it.

    Returns:
        The keys; `None` if other code gets the dict and may add any key.
    """
    parents = source.parents()
    return union_of(
        _keys_added_by(source, use, parents)
        for use in parents
        if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)
    )


def _keys_added_by(
    source: FunctionSource, use: ast.AST, parents: dict[ast.AST, ast.AST]
) -> frozenset[str] | None:
    outer = parents.get(use)
    while isinstance(outer, ast.IfExp):
        use, outer = outer, parents.get(outer)
    match outer:
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=context):
            if isinstance(context, ast.Del):
                return None
            return frozenset({key} if isinstance(context, ast.Store) else ())
        case ast.Dict(keys=keys, values=values):
            is_copied = all(
                key is None for key, item in zip(keys, values, strict=True) if item is use
            )
            return frozenset() if is_copied else None
        case ast.keyword(arg="update" | "goto"):
            made = parents[outer]
            is_command = isinstance(made, ast.Call) and source.resolve(made.func) is Command
            return frozenset() if is_command else None
    is_looked_at = isinstance(outer, ast.Return | ast.Compare | ast.If) or (
        isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not)
    )
    return frozenset() if is_looked_at else None


_Read = Callable[[Any], ReturnSummary]


def node_returns(source: FunctionSource) -> ReturnSummary:
    """The possible returns of a node's function."""
    reader = _ReturnAnalysis(source)
    # An `Overwrite` of a function that cannot see the class is an error when it runs.
    is_dict = "__overwrite__" in source.function.__code__.co_consts
    overwrites = is_dict or may_reference(source.function, Overwrite)
    return replace(reader.summary(reader.update), overwrites=overwrites)


def leaves_graph(source: FunctionSource) -> bool:
    """Whether a function names `PARENT`, which leads out of a subgraph."""
    return any(isinstance(node, ast.Attribute) and node.attr == "PARENT" for node in source.walk())


def may_reference(function: FunctionType, kind: type) -> bool:
    """Whether a function's code names a class, or its module has it under another name."""
    code = function.__code__
    seen = (*code.co_names, *code.co_freevars, *code.co_consts)
    return kind.__name__ in seen or any(one is kind for one in function.__globals__.values())


class _ReturnAnalysis:
    """Analysis of the returns of one function, with a method for each kind of expression."""

    def __init__(self, source: FunctionSource) -> None:
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
            ast.Constant: lambda value: one_target(value.value),
            ast.IfExp: lambda value: self.route(value.body).either(self.route(value.orelse)),
            ast.List: lambda value: self._all(value.elts, self.route),
            ast.Tuple: lambda value: self._all(value.elts, self.route),
            ast.ListComp: lambda value: replace(self.route(value.elt), most=2, least=0),
            ast.Compare: lambda _: ANY_ONE,
            ast.UnaryOp: lambda value: ANY_ONE if isinstance(value.op, ast.Not) else ANYTHING,
            ast.BoolOp: lambda value: either(map(self.route, value.values)),
            ast.JoinedStr: lambda _: ANY_ONE,
            ast.Subscript: self._looked_up,
            ast.Call: self._routing_call,
            ast.Name: self._named,
            ast.Attribute: self._named,
        }

    def summary(self, read: _Read) -> ReturnSummary:
        """The summary of all returns."""
        if isinstance(self.source.tree, ast.Lambda):
            return read(self.source.tree.body)
        own = list(scope_nodes(self.source))
        if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
            return ANYTHING
        values = [node.value for node in own if isinstance(node, ast.Return)]
        summaries = [NOTHING if value is None else read(value) for value in values]
        if _falls_through(self.source.tree.body):
            summaries.append(NOTHING)
        return either(summaries)

    def update(self, value: ast.expr) -> ReturnSummary:
        """An expression as the update of a node."""
        read = self.updates.get(type(value))
        return ANYTHING if read is None else read(value)

    def route(self, value: ast.expr) -> ReturnSummary:
        """An expression as the answer of a router, or as a `goto`."""
        read = self.routes.get(type(value))
        return ANYTHING if read is None else read(value)

    def _all(self, values: list[ast.expr], read: _Read) -> ReturnSummary:
        summary = NOTHING
        for value in values:
            summary = summary.together(read(value))
        return summary

    def _variable(self, name: str, read: _Read) -> ReturnSummary:
        """The summary of a local variable's values."""
        values = assigned_values(self.source, name)
        if values is None or name in self.following:
            return ANYTHING
        self.following.add(name)
        summary = either(map(read, values))
        self.following.discard(name)
        return summary

    def _updated_variable(self, value: ast.Name) -> ReturnSummary:
        keys = keys_added_later(self.source, value.id)
        if keys is None:
            return ANYTHING
        summary = self._variable(value.id, self.update)
        return replace(summary, keys=union(summary.keys, keys))

    def _dict(self, value: ast.Dict) -> ReturnSummary:
        summary = NOTHING
        for key, item in zip(value.keys, value.values, strict=True):
            if key is None:  # {**item}
                summary = summary.together(self.update(item))
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                summary = summary.together(_keys([key.value]))
            else:
                return ANYTHING
        return summary

    def _call(self, value: ast.Call) -> ReturnSummary:
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

    def _command(self, named: Mapping[str, ast.expr]) -> ReturnSummary:
        graph, goto = named.get("graph"), named.get("goto")
        if isinstance(graph, ast.Attribute) and graph.attr == "PARENT":
            return NEVER
        if graph is not None and not (isinstance(graph, ast.Constant) and graph.value is None):
            return ANYTHING
        updated = self.update(named["update"]) if "update" in named else NOTHING
        summary = ReturnSummary(keys=updated.keys, sure=updated.sure)
        return summary if goto is None else summary.together(self.route(goto))

    def _looked_up(self, value: ast.Subscript) -> ReturnSummary:
        is_state = isinstance(value.value, ast.Name) and value.value.id == self.source.state
        return ANY_NAMES if is_state else ANYTHING  # no state field holds a Send

    def _routing_call(self, value: ast.Call) -> ReturnSummary:
        made = self.source.resolve(value.func)
        if made is bool or made is str:
            return ANY_ONE
        return self._send(value) if made is Send else ANYTHING

    def _send(self, value: ast.Call) -> ReturnSummary:
        named = [one.value for one in value.keywords if one.arg == "node"]
        for node in [*value.args[:1], *named]:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                return ReturnSummary(sends=frozenset({node.value}), most=2)
        return ReturnSummary(sends=None, most=2)

    def _named(self, value: ast.Name | ast.Attribute) -> ReturnSummary:
        constant = self.source.resolve(value)
        if isinstance(constant, str):
            return one_target(constant)
        if (
            isinstance(value, ast.Attribute)
            or keys_added_later(self.source, value.id) != frozenset()
        ):
            return ANYTHING
        return self._variable(value.id, self.route)


def _keys(names: Any) -> ReturnSummary:
    keys = frozenset(names)
    return ReturnSummary(keys=keys, sure=keys)


def _falls_through(body: list[ast.stmt]) -> bool:
    """Whether a body can end without a `return`; true if in doubt."""
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


# What a node or a router returns


def returns_of_node(runnable: Any) -> ReturnSummary:
    """The possible returns of a node."""
    if isinstance(runnable, CompiledStateGraph):
        return _subgraph_returns(runnable)
    if isinstance(runnable, RunnableSequence):
        return returns_of_node(runnable.last)
    if isinstance(runnable, RunnableBindingBase):
        return returns_of_node(runnable.bound)
    if isinstance(runnable, RunnableParallel):
        return _keys(runnable.steps__)
    if isinstance(runnable, BaseLanguageModel | BaseOutputParser):
        return ReturnSummary(keys=None)
    sources = sources_of(runnable)
    return either(node_returns(one) for one in sources) if sources else ANYTHING


def _subgraph_returns(graph: CompiledStateGraph[Any, Any, Any, Any]) -> ReturnSummary:
    """The output fields of a subgraph, unless one of its nodes may command the parent."""
    builder = graph.builder
    for spec in builder.nodes.values():
        sources = sources_of(spec.runnable)
        if not sources or any(map(leaves_graph, sources)):
            return ANYTHING
        if either(node_returns(one) for one in sources).targets is None:
            return ANYTHING
    return ReturnSummary(keys=frozenset(builder.schemas[builder.output_schema]))


def returns_of_router(runnable: Any) -> ReturnSummary:
    """The possible returns of a router."""
    sources = sources_of(runnable)
    readers = map(_ReturnAnalysis, sources)
    return either(one.summary(one.route) for one in readers) if sources else ANYTHING


def returns_one_literal(runnable: Any) -> bool:
    """Whether the return annotation of each function of a router is a Literal, not a list."""
    functions = functions_of(runnable)
    return bool(functions) and all(get_origin(_return_hint(one)) is Literal for one in functions)


def annotated_keys(runnable: Any, state_schema: type[Any]) -> frozenset[str] | None:
    """Keys of return annotations that are TypedDicts other than the state's; `None` for others."""
    # `-> None` means nothing: many functions with it return something.
    kinds = [kind for kind in return_kinds(runnable) if kind is not type(None)]
    if not kinds or not all(is_typeddict(one) and one is not state_schema for one in kinds):
        return None
    return frozenset(key for one in kinds for key in get_type_hints(one))


def return_kinds(runnable: Any) -> list[Any]:
    """The classes in the return annotations of a node's functions, with all members of unions."""
    hints = map(_return_hint, functions_of(runnable))
    return [kind for hint in hints for kind in _alternatives(hint)]


def _alternatives(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _return_hint(function: Any) -> Any:
    return hints_of(function).get("return")
