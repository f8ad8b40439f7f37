"""A whole program, compiled for one run."""

import ast
from collections.abc import Callable

import langchain_sequrity.local.interpreter.methods  # fills the tables of `calls`, as does the next
import langchain_sequrity.local.interpreter.sets  # noqa: F401
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import bound_names, walk_scope
from langchain_sequrity.local.interpreter.statements import Statements
from langchain_sequrity.local.interpreter.values import Value

ANSWER = "final_return_value"


def compile_module(machine: Machine, tree: ast.Module) -> Callable[[], Value]:
    """Compile a program.

    Args:
        machine: The run; variables that exist before the program must be in `machine.names`.
        tree: A tree that was checked.

    Returns:
        A function that runs it once and returns the value of an expression on its last line, or
        `None` where there is none.
    """
    bound = {*machine.names, *bound_names(walk_scope(tree.body))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            bound.update(node.names)
    compiler = Statements(machine, None, frozenset(bound))
    body, last = tree.body, None
    if body and isinstance(body[-1], ast.Expr):
        body, last = body[:-1], body[-1]
    block = compiler.block(body)
    result = compiler.expression(last.value) if isinstance(last, ast.Expr) else None
    line = last.lineno if last is not None else 1

    def run() -> Value:
        if block(None) is not None or result is None:
            return None
        machine.line = line
        return result(None)

    return run
