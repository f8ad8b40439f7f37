"""The source of a user's function, and which of its parameters gets the state.

The text is found through the code object, not through `inspect.unwrap`: what a decorator returned
is what runs. It is compiled again and compared, so that a file that changed after the import is
never taken for what runs.
"""

import ast
import builtins
import functools
import inspect
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any, get_type_hints

from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import run_in_executor

from langchain_sequrity.graph import _compat

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
UNKNOWN = object()
"""Stands for a name whose value cannot be known before the function runs."""


@dataclass(frozen=True, slots=True)
class Source:
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
        """What runs: no decorators, defaults or annotations of the function itself."""
        return [self.tree.body] if isinstance(self.tree, ast.Lambda) else list(self.tree.body)

    def resolve(self, node: ast.AST) -> Any:
        """The object that a name or a dotted name stands for, or `UNKNOWN`."""
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
            cell = (self.function.__closure__ or ())[code.co_freevars.index(name)]
            try:
                return cell.cell_contents
            except ValueError:
                return UNKNOWN
        return self.function.__globals__.get(name, getattr(builtins, name, UNKNOWN))


def functions_of(runnable: Any) -> list[Callable[..., Any]]:
    """The functions that a node or a router runs, sync and async, if functions are what it runs."""
    if not isinstance(runnable, RunnableLambda) and not _compat.is_function_node(runnable):
        return []
    function, other = getattr(runnable, "func", None), getattr(runnable, "afunc", None)
    # A sync function has an async twin that runs it in a thread.
    is_twin = isinstance(other, functools.partial) and other.func is run_in_executor
    found = (function, None if is_twin else other)
    return [one for one in found if one is not None]


def sources_of(runnable: Any) -> list[Source]:
    """The sources of all functions that may run; none if one of them is not known."""
    found = [source_of(function) for function in functions_of(runnable)]
    return [one for one in found if one is not None] if None not in found else []


def source_of(function: Any, parameter: str | None = None) -> Source | None:
    """The source of a function, if it is known.

    Args:
        function: What is called; it need not be a plain function.
        parameter: The parameter that gets the state; without it, the first one.
    """
    plain, skipped, named = _plain_function(function)
    if plain is None:
        return None
    tree = _tree(plain)
    if tree is None:
        return None
    places = [one.arg for one in (*tree.args.posonlyargs, *tree.args.args)]
    if parameter is not None:
        known = {*places[skipped:], *(one.arg for one in tree.args.kwonlyargs)} - named
        return Source(plain, tree, parameter) if parameter in known else None
    if skipped >= len(places) or places[skipped] in named:
        return None
    return Source(plain, tree, places[skipped])


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function; none where one of them names what cannot be found."""
    while isinstance(function, functools.partial):
        function = function.func
    is_plain = inspect.isfunction(function) or inspect.ismethod(function)
    try:
        return get_type_hints(function if is_plain else type(function).__call__)
    except (NameError, TypeError, AttributeError):
        return {}


def input_hint(function: Any) -> Any:
    """What the first parameter of a function is annotated with; `None` without."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # of built-in callables there is none
        return None
    return hints_of(function).get(next(iter(parameters), ""))


def _plain_function(function: Any) -> tuple[FunctionType | None, int, frozenset[str]]:
    """The function behind partials, methods and callable objects, and what they fill in."""
    skipped, named = 0, frozenset[str]()
    for _ in range(10):
        if isinstance(function, FunctionType):
            return function, skipped, named
        if isinstance(function, functools.partial):
            skipped += len(function.args)
            named |= frozenset(function.keywords)
            function = function.func
        elif isinstance(function, MethodType):
            skipped += 1
            function = function.__func__
        else:
            function = inspect.getattr_static(type(function), "__call__", None)
            skipped += 1
    return None, 0, frozenset()


def _tree(function: FunctionType) -> Function | None:
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    fits = [tree for tree in _functions_in(text) if _is_at(tree, code)]
    if len(fits) > 1:
        fits = [tree for tree in fits if _holds(tree, code)]
        fits = fits[-1:]  # the walk goes inwards, and what is inside is the nearer fit
    return fits[0] if fits and _is_same(fits[0], code) else None


@functools.lru_cache(maxsize=64)
def _functions_in(text: str) -> tuple[Function, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, Function))


def _is_at(tree: Function, code: CodeType) -> bool:
    if isinstance(tree, ast.Lambda):
        return code.co_name == "<lambda>" and tree.lineno == code.co_firstlineno
    first = min([tree.lineno, *(one.lineno for one in tree.decorator_list)])
    return tree.name == code.co_name and first == code.co_firstlineno


def _holds(tree: Function, code: CodeType) -> bool:
    """Whether all of the code stands within the tree: tells lambdas on one line apart."""
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


def _is_same(tree: Function, code: CodeType) -> bool:
    try:
        if isinstance(tree, ast.Lambda):
            outer = compile(ast.Expression(tree), "<source>", "eval")
        else:
            bare = type(tree)(**{**dict(ast.iter_fields(tree)), "decorator_list": []})
            around = _around(ast.copy_location(bare, tree), code.co_freevars)
            outer = compile(ast.Module([around], []), "<source>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return False
    codes = (one for one in outer.co_consts if isinstance(one, CodeType))
    if code.co_freevars and not isinstance(tree, ast.Lambda):
        codes = (one for each in codes for one in each.co_consts if isinstance(one, CodeType))
    inner = [one for one in codes if one.co_name == code.co_name]
    return len(inner) == 1 and set(_words(inner[0])) == set(_words(code))


def _around(function: ast.stmt, names: tuple[str, ...]) -> ast.stmt:
    """A function within one that has these variables, which `nonlocal` needs."""
    if not names:
        return function
    outer = ast.parse("def _():\n    " + " = ".join((*names, "None"))).body[0]
    assert isinstance(outer, ast.FunctionDef)  # noqa: S101 - it is written so
    outer.body.append(function)
    return outer


def _words(code: CodeType) -> Iterator[tuple[str, str]]:
    """Names and constants, also of functions within: they tell versions of a function apart."""
    for name in (*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars):
        yield "name", name
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        else:
            yield "constant", repr(constant)
