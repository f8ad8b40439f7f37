"""From text to a checked syntax tree. Later steps only see nodes that are allowed here.

`ast.parse` makes a tree of data, which is never compiled to Python code. A node that no rule allows
is refused, so new syntax of a later Python is refused until somebody reviews it.
"""

import ast
import re
import symtable
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from langchain_sequrity import syntax_trees
from langchain_sequrity.local.interpreter.faults import ProgramRefused
from langchain_sequrity.local.interpreter.machine import Limits
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.syntax_repair import repaired
from langchain_sequrity.local.refusals import how_to_raise

MAIN = "__name__"
ALLOWED: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Pass),
    *(ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Try, ast.ExceptHandler, ast.Raise),
    *(ast.Assert, ast.FunctionDef, ast.Return, ast.Lambda, ast.arguments, ast.arg, ast.keyword),
    *(ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.alias, ast.ClassDef),
    *(ast.Match, ast.match_case, ast.MatchValue, ast.MatchSingleton, ast.MatchSequence),
    *(ast.MatchMapping, ast.MatchStar, ast.MatchAs, ast.MatchOr),
    *(ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp),
    *(ast.Call, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred, ast.NamedExpr),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.JoinedStr, ast.FormattedValue),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_REFUSALS: dict[str, str] = {
    "With": "`with` is not supported. There are no files or locks to close; call the tool.",
    "AsyncWith": "`async` is not supported. Tools are called without `await`.",
    "AsyncFor": "`async` is not supported. Use a plain `for`.",
    "AsyncFunctionDef": "`async def` is not supported. Use `def`.",
    "Await": "`await` is not supported. Tools are called without it.",
    "Yield": "`yield` is not supported. Build a list and return it.",
    "YieldFrom": "`yield from` is not supported. Build a list and return it.",
    "TryStar": "`except*` is not supported. Use `except`.",
    "MatchClass": "Class patterns are not supported. Use `isinstance` in an `if`.",
}
BLOCKED: dict[str, str] = {
    "eval": "Write the expression itself.",
    **dict.fromkeys(("exec", "compile"), "Write the statements themselves."),
    "__import__": "Use `import` with one of the allowed modules.",
    "open": "Files are reached through tools only.",
    "input": "Ask through a tool.",
    "print": "Nobody reads what a program prints. Put the answer into `final_return_value`.",
    **dict.fromkeys(("globals", "locals"), "Name the variable."),
    "vars": "Name the variable or the key.",
    "dir": "Name what you need.",
    "getattr": "Write `value.name` or `value[key]`.",
    "setattr": "Write `value.name = …` or `value[key] = …`.",
    "delattr": "Use `del value[key]`.",
    "hasattr": "Use `isinstance`, or `key in value`.",
    "hash": "Compare values with `==`.",
    "id": "Compare values with `is`.",
    "super": "Classes have no methods here.",
    "object": "Use a dict.",
    **dict.fromkeys(("memoryview", "bytearray"), "Use `bytes`."),
    "complex": "Use two floats.",
    "breakpoint": "Leave it out.",
}
"""Functions of Python that are not supported, and what to write instead."""


def read_program(source: str, limits: Limits) -> ast.Module:
    """Parse a program and check every node.

    Raises:
        ProgramRefused: With line, column and what to write instead.
    """
    if len(source) > limits.source:
        msg = (
            f"The program has more than {limits.source} characters. Write a shorter one. "
            f"{how_to_raise('program.source')}"
        )
        raise ProgramRefused(msg)
    # Python's parser takes quadratic time and gigabytes of memory for these.
    if _DOTTED.search(source) or source.count("{") > _MOST_BRACES:
        raise ProgramRefused(TOO_DEEP)
    tree = _tree(source)
    check(tree, limits)
    return tree


_WARNINGS_LOCK = threading.Lock()
_DOTTED = re.compile(r"(?:\.[ \t]*\w+[ \t]*){100}")  # dots in one name, as of a module
_MOST_BRACES = 10_000  # each may be a field of an f-string


def _tree(source: str) -> ast.Module:
    try:
        source.encode()
        return _parsed(source)
    except SyntaxError as error:
        corrected = repaired(source, _syntax_error)
        raise ProgramRefused.from_error(error, source, corrected) from None
    except ValueError:
        msg = "The text contains characters that a program cannot have."
        raise ProgramRefused(msg) from None
    except (RecursionError, MemoryError):
        raise ProgramRefused(TOO_DEEP) from None


def _parsed(source: str) -> ast.Module:
    # Ignore warnings: "\d" in a plain string is frequent and harmless. The lock is needed because
    # warning filters belong to the process.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = syntax_trees.parse(source)
        # This finds errors such as `global` after use. It runs no code.
        symtable.symtable(source, "<program>", "exec")
        return tree


def _syntax_error(source: str) -> SyntaxError | None:
    try:
        _parsed(source)
    except SyntaxError as error:
        return error
    return None


TOO_DEEP = "The program is nested too deeply. Store parts of it in variables or functions."


def check(tree: ast.AST, limits: Limits) -> None:
    """Check every node of a tree.

    Raises:
        ProgramRefused: For the first node that is not supported.
    """
    # Without recursion: a tree that is too deep would exhaust the stack of a visitor.
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    count = 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > limits.nodes:
            msg = f"The program has more than {limits.nodes} nodes. Write a shorter one."
            refuse(node, f"{msg} {how_to_raise('program.nodes')}")
        if depth > limits.nesting:
            refuse(node, f"{TOO_DEEP} {how_to_raise('program.nesting')}")
        _check_node(node)
        pending.extend((child, depth + _added_depth(node)) for child in _children(node))


def _children(node: ast.AST) -> Iterable[ast.AST]:
    operand = type_of_operand(node) if isinstance(node, ast.Attribute) else None
    # Of `type(x).__name__` only `x` is checked: the rest is one construct.
    return ast.iter_child_nodes(node) if operand is None else (operand,)


def _added_depth(node: ast.AST) -> int:
    # `elif` is nested in the tree, but neither for the reader nor when it runs.
    return 0 if isinstance(node, ast.If) and len(node.orelse) == 1 else 1


def refuse(node: ast.AST, reason: str) -> NoReturn:
    """Refuse a node, with its position."""
    line, column = position(node)
    raise ProgramRefused(reason, line=line, column=column)


def position(node: ast.AST) -> tuple[int, int]:
    """Line and column of a node, from 1."""
    return getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1


def _check_node(node: ast.AST) -> None:
    name = type(node).__name__
    if not isinstance(node, ALLOWED):
        refuse(node, _REFUSALS.get(name) or f"`{name}` is not supported. Use simpler statements.")
    check = _CHECKS.get(type(node))
    if check is not None:
        check(node)


def _check_name(node: ast.Name) -> None:
    if node.id == MAIN and isinstance(node.ctx, ast.Load):
        return
    if node.id in BLOCKED and isinstance(node.ctx, ast.Load):
        refuse(node, f"`{node.id}` is not supported. {BLOCKED[node.id]}")
    _check_identifier(node, node.id)


def _check_identifier(node: ast.AST, name: str | None) -> None:
    if name is not None and name.startswith("__"):
        refuse(node, f"Names that start with `__`, such as `{name}`, are not supported.")


def _check_attribute(node: ast.Attribute) -> None:
    if node.attr.startswith("_") and type_of_operand(node) is None:
        refuse(
            node,
            f"`.{node.attr}` is not supported: attributes that start with `_` are internal. "
            "Use methods and fields; `type(x).__name__` is allowed.",
        )


def type_of_operand(node: ast.Attribute) -> ast.expr | None:
    """Return `x` of `type(x).__name__` and `x.__class__.__name__`, else `None`."""
    value = node.value
    if node.attr != MAIN:
        return None
    if isinstance(value, ast.Attribute) and value.attr == "__class__":
        return value.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "type":
        return value.args[0] if len(value.args) == 1 and not value.keywords else None
    return None


def _check_constant(node: ast.Constant) -> None:
    if isinstance(node.value, complex):
        refuse(node, "Complex numbers are not supported. Use two floats.")


def _check_function(node: ast.FunctionDef) -> None:
    if node.decorator_list:
        refuse(node.decorator_list[0], "Decorators are not supported. Call the function itself.")
    _check_identifier(node, node.name)


def _check_class(node: ast.ClassDef) -> None:
    if node.decorator_list:
        refuse(node.decorator_list[0], "Decorators are not supported. Leave it out.")
    if node.keywords:
        refuse(node, "A class takes only bases here. Leave the keyword arguments out.")
    _check_identifier(node, node.name)


def _check_import(node: ast.Import) -> None:
    for alias in node.names:
        if alias.name not in MODULES:
            refuse(node, f"`import {alias.name}` is not supported. {_MODULES_ARE}")
        _check_identifier(node, alias.asname)


def _check_import_from(node: ast.ImportFrom) -> None:
    module = node.module or ""
    if node.level or module not in MODULES:
        refuse(node, f"`from {module or '.'} import` is not supported. {_MODULES_ARE}")
    for alias in node.names:
        if alias.name not in MODULES[module]:
            names = ", ".join(sorted(MODULES[module]))
            refuse(node, f"`{module}` has no `{alias.name}` here. It has: {names}.")
        _check_identifier(node, alias.asname)


_MODULES_ARE = f"These modules exist: {', '.join(sorted(MODULES))}."
_CHECKS: dict[type[ast.AST], Callable[[Any], None]] = {
    ast.Name: _check_name,
    ast.Attribute: _check_attribute,
    ast.Constant: _check_constant,
    ast.FunctionDef: _check_function,
    ast.ClassDef: _check_class,
    ast.Import: _check_import,
    ast.ImportFrom: _check_import_from,
    ast.arg: lambda node: _check_identifier(node, node.arg),
    ast.keyword: lambda node: _check_identifier(node, node.arg),
    ast.ExceptHandler: lambda node: _check_identifier(node, node.name),
    ast.MatchAs: lambda node: _check_identifier(node, node.name),
    ast.MatchStar: lambda node: _check_identifier(node, node.name),
    ast.MatchMapping: lambda node: _check_identifier(node, node.rest),
}


# What a line is about, for errors. Only names that the program's text contains may be in an error:
# data can choose the name of an argument, as in `f(**{text: 1})`.


def variable_at(tree: ast.AST, line: int) -> str:
    """The variable that the statement in a line assigns to; empty if it is not one variable."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and _is_in(node, line):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            return names[0] if len(names) == len(targets) == 1 else ""
    return ""


def argument_at(tree: ast.AST, line: int, tool: str, argument: str) -> str:
    """The argument of a call in a line, in words."""
    keywords = [
        keyword
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_in(node, line)
        for keyword in node.keywords
    ]
    is_written = any(keyword.arg == argument for keyword in keywords)
    is_certain = is_written and all(keyword.arg is not None for keyword in keywords)
    return f"the argument `{argument}` of `{tool}`" if is_certain else f"an argument of `{tool}`"


def _is_in(node: ast.stmt | ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
