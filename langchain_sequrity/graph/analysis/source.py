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

from langchain_sequrity import _compat, syntax_trees
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
        state_name: Name of the parameter that gets the state.
    """

    function: FunctionType
    tree: Function
    state_name: str

    @property
    def body(self) -> list[ast.AST]:
        """The code that runs, without the function's own decorators, defaults and annotations."""
        return [self.tree.body] if isinstance(self.tree, ast.Lambda) else list(self.tree.body)

    def walk(self) -> Iterator[ast.AST]:
        """All syntax nodes of the body."""
        for node in self.body:
            yield from ast.walk(node)

    def parents(self) -> dict[ast.AST, ast.AST]:
        """Syntax node of the body → the node around it."""
        return {child: node for node in self.walk() for child in ast.iter_child_nodes(node)}

    def count_bindings(self, name: str) -> int:
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
    func, afunc = getattr(runnable, "func", None), getattr(runnable, "afunc", None)
    # A sync function has an async twin that runs it in a thread.
    if isinstance(afunc, functools.partial) and afunc.func is run_in_executor:
        afunc = None
    return [f for f in (func, afunc) if f is not None]


def sources_of(runnable: Any) -> list[FunctionSource]:
    """The sources of all functions that may run; none if one of them is unknown."""
    sources = [source_of(function) for function in functions_of(runnable)]
    return [source for source in sources if source is not None] if None not in sources else []


def source_of(function: Any, parameter: str | None = None) -> FunctionSource | None:
    """The source of a function; `None` if unknown.

    Args:
        function: Any callable.
        parameter: The parameter that gets the state; by default the first one.
    """
    plain_function = _plain_function(function)
    tree = None if plain_function is None else _tree(plain_function)
    if plain_function is None or tree is None:
        return None
    parameters = _signature_of(function, follow_wrapped=False)
    first_parameter = next(iter(parameters.values()), None)
    if parameter is None and first_parameter is not None and first_parameter.kind in _POSITIONAL:
        parameter = first_parameter.name
    arguments = (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)
    if parameter is None or parameter not in {a.arg for a in arguments} & parameters.keys():
        return None
    return FunctionSource(plain_function, tree, parameter)


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
    candidates = trees.get((code.co_name, code.co_firstlineno), [])
    if len(candidates) > 1:
        candidates = [tree for tree in candidates if _contains_code(tree, code)]
    # The walk goes inwards, and the innermost fits best.
    return candidates[-1] if candidates else None


@functools.lru_cache(maxsize=64)
def _functions_in(
    text: str, flags: int
) -> tuple[Mapping[tuple[str, int], list[Function]], frozenset[CodeType]]:
    """The functions in the text of a module: syntax trees by name and first line, and code."""
    try:
        tree = syntax_trees.parse(text)
        flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as in a notebook
        module: CodeType = compile(text, "<source>", "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}, frozenset()
    trees = defaultdict[tuple[str, int], list[Function]](list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            trees["<lambda>", node.lineno].append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first_line = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            trees[node.name, first_line].append(node)
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
    spans = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and end_column and column is not None
    ]
    return bool(spans) and all(
        start <= first and last <= end for first, last in spans if first != last
    )


# What a function reads

_TOOL_NODE = "ToolNode"

_RUN_METHODS = frozenset({"invoke", "stream", "batch"})
"""Methods that run a runnable; the names of the async ones start with an `a`."""

_REFLECTION = frozenset({"locals", "vars", "eval", "exec", "dir"})


def fields_read(
    source: FunctionSource, fields: Collection[str], *, is_dict: bool, attribute: str | None = None
) -> frozenset[str] | None:
    """The keys or attributes of the state that a function reads.

    Args:
        source: The function.
        fields: Fields that its state has.
        is_dict: Whether the state is a dict, not an object.
        attribute: Attribute of the parameter that is the state, if the parameter itself is not.

    Returns:
        The keys, fields or not; `None` if unknown.
    """
    names = [node for node in source.walk() if isinstance(node, ast.Name)]
    if any(node.id in _REFLECTION for node in names) or source.count_bindings(source.state_name):
        return None
    parents = source.parents()
    uses = [node for node in names if node.id == source.state_name]
    states = uses if attribute is None else _attribute_uses(attribute, uses, parents)
    return union_of(
        None if use is None else _keys_of_use(use, parents, fields, is_dict=is_dict)
        for use in states
    )


def uses_state(source: FunctionSource) -> bool:
    """Whether a function names its state at all."""
    return any(isinstance(n, ast.Name) and n.id == source.state_name for n in source.walk())


def uses_tool_node(source: FunctionSource) -> bool:
    """Whether a function may run a `ToolNode`, whose tools read the whole state."""
    nodes = list(source.walk())
    attribute_owners = {
        node.value
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr.lstrip("a") not in _RUN_METHODS
    }
    for node in nodes:
        if isinstance(node, ast.alias) and node.name == _TOOL_NODE:
            return True
        resolved = UNKNOWN if node in attribute_owners else source.resolve(node)
        if _compat.is_tool_node(resolved if isinstance(resolved, type) else type(resolved)):
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
        case ast.alias(name=name, asname=alias):
            yield (alias or name).partition(".")[0]
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
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=context):
            return _read_key(key, context, outer)
        case ast.Attribute(attr=key, ctx=context) if not is_dict and key in fields:
            return _read_key(key, context, outer)
        case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()]):
            return frozenset({key}) if is_dict else None
        case ast.Attribute(attr="get") if is_dict:
            match outer:  # state.get("x", …)
                case ast.Call(func=callee, args=[ast.Constant(value=str(key)), *_], keywords=[]):
                    return frozenset({key}) if callee is parent else None
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
        definite: Keys that are always returned; `None` if no return is reached.
        targets: Names that a router or a `goto` may give; `None` for any.
        sends: Nodes that packets may go to; `None` for any.
        max_targets: Highest number of targets; 2 means several.
        min_targets: Lowest number of targets.
        overwrites: Whether an update may be an `Overwrite`.
    """

    keys: frozenset[str] | None = frozenset()
    definite: frozenset[str] | None = frozenset()
    targets: frozenset[Any] | None = frozenset()
    sends: frozenset[str] | None = frozenset()
    max_targets: int = 0
    min_targets: int = 0
    overwrites: bool = False

    def either(self, other: "ReturnSummary") -> "ReturnSummary":
        """The summary of one or the other."""
        return ReturnSummary(
            keys=union(self.keys, other.keys),
            definite=_intersection(self.definite, other.definite),
            targets=union(self.targets, other.targets),
            sends=union(self.sends, other.sends),
            max_targets=max(self.max_targets, other.max_targets),
            min_targets=min(self.min_targets, other.min_targets),
            overwrites=self.overwrites or other.overwrites,
        )

    def together(self, other: "ReturnSummary") -> "ReturnSummary":
        """The summary of both together."""
        return replace(
            self.either(other),
            definite=union(self.definite, other.definite),
            max_targets=min(2, self.max_targets + other.max_targets),
            min_targets=self.min_targets + other.min_targets,
        )


def one_target(target: Any) -> ReturnSummary:
    """One target."""
    return ReturnSummary(targets=frozenset({target}), max_targets=1, min_targets=1)


def either(summaries: Iterable[ReturnSummary]) -> ReturnSummary:
    """The summary of any one of these; `NO_RETURN` without any."""
    return functools.reduce(ReturnSummary.either, summaries, NO_RETURN)


def union(first: frozenset[Any] | None, second: frozenset[Any] | None) -> frozenset[Any] | None:
    """The union, where `None` is everything."""
    return None if first is None or second is None else first | second


def union_of(sets: Iterable[frozenset[Any] | None]) -> frozenset[Any] | None:
    """The union of all of these, where `None` is everything."""
    nothing: frozenset[Any] | None = frozenset()
    return functools.reduce(union, sets, nothing)


def _intersection(
    first: frozenset[str] | None, second: frozenset[str] | None
) -> frozenset[str] | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


ANY_RETURN = ReturnSummary(None, frozenset(), None, None, max_targets=2, overwrites=True)

EMPTY_RETURN = ReturnSummary()

NO_RETURN = ReturnSummary(definite=None, min_targets=2)
"""No return: `Command.PARENT` leaves the graph."""

SINGLE_TARGET = ReturnSummary(targets=None, max_targets=1, min_targets=1)
"""Exactly one target, unknown: a computed name, or whether something holds."""

UNKNOWN_TARGETS = ReturnSummary(targets=None, max_targets=2)
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
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == name:
                values.append(value)
    binding_count = sum(name in bound_names(node) for node in ast.walk(source.tree.args))
    binding_count += source.count_bindings(name)
    return values if values and binding_count == len(values) else None


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
            call = parents[outer]
            is_command = isinstance(call, ast.Call) and source.resolve(call.func) is Command
            return frozenset() if is_command else None
    is_only_read = isinstance(outer, ast.Return | ast.Compare | ast.If) or (
        isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not)
    )
    return frozenset() if is_only_read else None


_Visit = Callable[[Any], ReturnSummary]


def node_returns(source: FunctionSource) -> ReturnSummary:
    """The possible returns of a node's function."""
    analysis = _ReturnAnalysis(source)
    # An `Overwrite` of a function that cannot see the class is an error when it runs.
    has_dict_form = "__overwrite__" in source.function.__code__.co_consts
    overwrites = has_dict_form or may_reference(source.function, Overwrite)
    return replace(analysis.summary(analysis.update), overwrites=overwrites)


def leaves_graph(source: FunctionSource) -> bool:
    """Whether a function names `PARENT`, which leads out of a subgraph."""
    return any(isinstance(node, ast.Attribute) and node.attr == "PARENT" for node in source.walk())


def may_reference(function: FunctionType, cls: type) -> bool:
    """Whether a function's code names a class, or its module has it under another name."""
    code = function.__code__
    names = (*code.co_names, *code.co_freevars, *code.co_consts)
    return cls.__name__ in names or any(value is cls for value in function.__globals__.values())


class _ReturnAnalysis:
    """Analysis of the returns of one function, with a method for each kind of expression."""

    def __init__(self, source: FunctionSource) -> None:
        self.source = source
        self.following: set[str] = set()
        self.update_visitors: Mapping[type[ast.expr], _Visit] = {
            ast.Constant: lambda expr: EMPTY_RETURN if expr.value is None else ANY_RETURN,
            ast.IfExp: lambda expr: self.update(expr.body).either(self.update(expr.orelse)),
            ast.Dict: self._dict,
            ast.Call: self._call,
            ast.List: lambda expr: self._all(expr.elts, self.update),
            ast.Tuple: lambda expr: self._all(expr.elts, self.update),
            ast.Name: self._update_variable,
        }
        self.route_visitors: Mapping[type[ast.expr], _Visit] = {
            ast.Constant: lambda expr: one_target(expr.value),
            ast.IfExp: lambda expr: self.route(expr.body).either(self.route(expr.orelse)),
            ast.List: lambda expr: self._all(expr.elts, self.route),
            ast.Tuple: lambda expr: self._all(expr.elts, self.route),
            ast.ListComp: lambda expr: replace(self.route(expr.elt), max_targets=2, min_targets=0),
            ast.Compare: lambda _: SINGLE_TARGET,
            ast.UnaryOp: lambda expr: SINGLE_TARGET if isinstance(expr.op, ast.Not) else ANY_RETURN,
            ast.BoolOp: lambda expr: either(map(self.route, expr.values)),
            ast.JoinedStr: lambda _: SINGLE_TARGET,
            ast.Subscript: self._subscript,
            ast.Call: self._routing_call,
            ast.Name: self._route_variable,
            ast.Attribute: self._route_variable,
        }

    def summary(self, visit: _Visit) -> ReturnSummary:
        """The summary of all returns."""
        if isinstance(self.source.tree, ast.Lambda):
            return visit(self.source.tree.body)
        nodes = list(scope_nodes(self.source))
        if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes):
            return ANY_RETURN
        values = [node.value for node in nodes if isinstance(node, ast.Return)]
        summaries = [EMPTY_RETURN if value is None else visit(value) for value in values]
        if _falls_through(self.source.tree.body):
            summaries.append(EMPTY_RETURN)
        return either(summaries)

    def update(self, expr: ast.expr) -> ReturnSummary:
        """An expression as the update of a node."""
        return self.update_visitors.get(type(expr), lambda _: ANY_RETURN)(expr)

    def route(self, expr: ast.expr) -> ReturnSummary:
        """An expression as the answer of a router, or as a `goto`."""
        return self.route_visitors.get(type(expr), lambda _: ANY_RETURN)(expr)

    def _all(self, exprs: list[ast.expr], visit: _Visit) -> ReturnSummary:
        summary = EMPTY_RETURN
        for expr in exprs:
            summary = summary.together(visit(expr))
        return summary

    def _variable(self, name: str, visit: _Visit) -> ReturnSummary:
        """The summary of a local variable's values."""
        values = assigned_values(self.source, name)
        if values is None or name in self.following:
            return ANY_RETURN
        self.following.add(name)
        summary = either(map(visit, values))
        self.following.discard(name)
        return summary

    def _update_variable(self, expr: ast.Name) -> ReturnSummary:
        keys = keys_added_later(self.source, expr.id)
        if keys is None:
            return ANY_RETURN
        summary = self._variable(expr.id, self.update)
        return replace(summary, keys=union(summary.keys, keys))

    def _dict(self, expr: ast.Dict) -> ReturnSummary:
        summary = EMPTY_RETURN
        for key, item in zip(expr.keys, expr.values, strict=True):
            if key is None:  # {**item}
                summary = summary.together(self.update(item))
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                summary = summary.together(_definite_keys([key.value]))
            else:
                return ANY_RETURN
        return summary

    def _call(self, expr: ast.Call) -> ReturnSummary:
        callee = self.source.resolve(expr.func)
        arguments = {k.arg: k.value for k in expr.keywords if k.arg is not None}
        if len(arguments) < len(expr.keywords):  # f(**options)
            return ANY_RETURN
        if callee is with_labels and expr.args:
            return self.update(expr.args[0])
        if callee is Command:
            return self._command(arguments)
        is_dict = (callee is dict or is_typeddict(callee)) and not expr.args
        return _definite_keys(arguments) if is_dict else ANY_RETURN

    def _command(self, arguments: Mapping[str, ast.expr]) -> ReturnSummary:
        graph, goto = arguments.get("graph"), arguments.get("goto")
        if isinstance(graph, ast.Attribute) and graph.attr == "PARENT":
            return NO_RETURN
        if graph is not None and not (isinstance(graph, ast.Constant) and graph.value is None):
            return ANY_RETURN
        update = self.update(arguments["update"]) if "update" in arguments else EMPTY_RETURN
        summary = ReturnSummary(keys=update.keys, definite=update.definite)
        return summary if goto is None else summary.together(self.route(goto))

    def _subscript(self, expr: ast.Subscript) -> ReturnSummary:
        is_state = isinstance(expr.value, ast.Name) and expr.value.id == self.source.state_name
        return UNKNOWN_TARGETS if is_state else ANY_RETURN  # no state field holds a Send

    def _routing_call(self, expr: ast.Call) -> ReturnSummary:
        callee = self.source.resolve(expr.func)
        if callee is bool or callee is str:
            return SINGLE_TARGET
        return self._send(expr) if callee is Send else ANY_RETURN

    def _send(self, expr: ast.Call) -> ReturnSummary:
        for node in [*expr.args[:1], *(k.value for k in expr.keywords if k.arg == "node")]:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                return ReturnSummary(sends=frozenset({node.value}), max_targets=2)
        return ReturnSummary(sends=None, max_targets=2)

    def _route_variable(self, expr: ast.Name | ast.Attribute) -> ReturnSummary:
        constant = self.source.resolve(expr)
        if isinstance(constant, str):
            return one_target(constant)
        if isinstance(expr, ast.Attribute) or keys_added_later(self.source, expr.id) != frozenset():
            return ANY_RETURN
        return self._variable(expr.id, self.route)


def _definite_keys(names: Any) -> ReturnSummary:
    keys = frozenset(names)
    return ReturnSummary(keys=keys, definite=keys)


def _falls_through(body: list[ast.stmt]) -> bool:
    """Whether a body can end without a `return`; true if in doubt."""
    match body[-1]:
        case ast.Return() | ast.Raise():
            return False
        case ast.If(body=inner, orelse=orelse) if orelse:
            return _falls_through(inner) or _falls_through(orelse)
        case ast.Match(cases=cases):
            last = cases[-1]
            is_exhaustive = last.guard is None and ast.unparse(last.pattern) == "_"
            return not is_exhaustive or any(_falls_through(case.body) for case in cases)
        case ast.Try(body=inner, handlers=handlers, orelse=orelse, finalbody=final):
            bodies = [orelse or inner, *(handler.body for handler in handlers)]
            finally_returns = final and not _falls_through(final)
            return not finally_returns and any(map(_falls_through, bodies))
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
        return _definite_keys(runnable.steps__)
    if isinstance(runnable, BaseLanguageModel | BaseOutputParser):
        return ReturnSummary(keys=None)
    sources = sources_of(runnable)
    return either(map(node_returns, sources)) if sources else ANY_RETURN


def _subgraph_returns(graph: CompiledStateGraph[Any, Any, Any, Any]) -> ReturnSummary:
    """The output fields of a subgraph, unless one of its nodes may command the parent."""
    builder = graph.builder
    for spec in builder.nodes.values():
        sources = sources_of(spec.runnable)
        may_leave = not sources or any(map(leaves_graph, sources))
        if may_leave or either(map(node_returns, sources)).targets is None:
            return ANY_RETURN
    return ReturnSummary(keys=frozenset(builder.schemas[builder.output_schema]))


def returns_of_router(runnable: Any) -> ReturnSummary:
    """The possible returns of a router."""
    sources = sources_of(runnable)
    analyses = map(_ReturnAnalysis, sources)
    return either(a.summary(a.route) for a in analyses) if sources else ANY_RETURN


def returns_one_literal(runnable: Any) -> bool:
    """Whether the return annotation of each function of a router is a Literal, not a list."""
    functions = functions_of(runnable)
    return bool(functions) and all(get_origin(_return_hint(f)) is Literal for f in functions)


def annotated_keys(runnable: Any, state_schema: type[Any]) -> frozenset[str] | None:
    """Keys of return annotations that are TypedDicts other than the state's; `None` for others."""
    # `-> None` means nothing: many functions with it return something.
    schemas = [cls for cls in return_types(runnable) if cls is not type(None)]
    if not schemas or not all(is_typeddict(cls) and cls is not state_schema for cls in schemas):
        return None
    return frozenset(key for cls in schemas for key in get_type_hints(cls))


def return_types(runnable: Any) -> list[Any]:
    """The classes in the return annotations of a node's functions, with all members of unions."""
    classes: list[Any] = []
    for hint in map(_return_hint, functions_of(runnable)):
        is_union = get_origin(hint) in (Union, types.UnionType)
        classes += get_args(hint) if is_union else [hint]
    return classes


def _return_hint(function: Any) -> Any:
    return hints_of(function).get("return")
