"""A whole program, compiled for one run.

A run may have several programs, one after the other, in one namespace. What a later one binds is
not known when an earlier one is compiled, whose functions may be called by the later one: names
that nobody has bound yet are then taken for variables.
"""

import ast
from collections.abc import Callable, Collection
from typing import Self

import langchain_sequrity.local.interpreter.methods  # fills the tables of `calls`, as does the next
import langchain_sequrity.local.interpreter.sets  # noqa: F401
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import COMPREHENSIONS, bound_names, walk_scope
from langchain_sequrity.local.interpreter.statements import Statements
from langchain_sequrity.local.interpreter.values import Value

ANSWER = "final_return_value"
ENDING = frozenset({ANSWER, "exit", "quit", "complete_turn"})


class _Open(frozenset[str]):
    """Names that are bound, and all others but those that have a meaning of their own."""

    meant: Collection[str] = ()

    @classmethod
    def of(cls, bound: Collection[str], machine: Machine) -> Self:
        """All names but built-ins and tools, and of these the ones that are bound."""
        found = cls(bound)
        found.meant = BUILTINS.keys() | machine.tools.keys()
        return found

    def __contains__(self, name: object) -> bool:
        """Whether a name may be a variable."""
        return super().__contains__(name) or name not in self.meant


def bound_by(tree: ast.Module) -> frozenset[str]:
    """The variables of the module that a program binds."""
    outer = [name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names]
    return frozenset([*bound_names(walk_scope(tree.body)), *outer])


def names_within(tree: ast.Module) -> frozenset[str]:
    """Names in code that can run after its program: that of functions and generators."""
    return frozenset(
        node.id
        for kept in ast.walk(tree)
        if isinstance(kept, (ast.FunctionDef, ast.Lambda, *COMPREHENSIONS))
        for node in ast.walk(kept)
        if isinstance(node, ast.Name)
    )


def may_decide_the_end(tree: ast.Module) -> bool:
    """Whether a program may decide, beyond its last line, what follows: by `exit` or an answer.

    The line `final_return_value = None`, with which planners begin, decides nothing.
    """
    rest = ast.Module([one for one in tree.body if not _is_beginning(one)], [])
    names = {node.id for node in ast.walk(rest) if isinstance(node, ast.Name)}
    return not ENDING.isdisjoint(names | bound_by(rest))


def _is_beginning(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=None)):
            return name == ANSWER
    return False


def compile_module(
    machine: Machine, tree: ast.Module, *, known: Collection[str] = (), is_open: bool = False
) -> Callable[[], Value]:
    """Compile a program.

    Args:
        machine: The run; variables that exist before the program must be in `machine.names`.
        tree: A tree that was checked.
        known: Further variables that exist before it, where it is only checked.
        is_open: Whether other programs may follow in the same namespace.

    Returns:
        A function that runs it once and returns the value of an expression on its last line, or
        `None` where there is none.
    """
    bound = bound_by(tree) | {*machine.names, *known}
    compiler = Statements(machine, None, _Open.of(bound, machine) if is_open else bound)
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
