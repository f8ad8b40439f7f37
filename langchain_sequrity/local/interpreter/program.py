"""A program: text that was found to use nothing but the language."""

import ast
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.local.interpreter.compiler import ANSWER, ENDING, compile_module
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.placement import check_placement
from langchain_sequrity.local.interpreter.scopes import names_bound_anywhere
from langchain_sequrity.local.interpreter.signatures import is_open, signature
from langchain_sequrity.local.interpreter.syntax import TOO_DEEP, read, refuse


@dataclass(frozen=True, slots=True)
class Program:
    """A program that uses only what the language has.

    Attributes:
        source: Its text.
        tree: Its syntax tree.
        digest: SHA-256 of the text, in hex.
    """

    source: str
    tree: ast.Module = field(repr=False, compare=False)
    digest: str = field(repr=False)

    def check_calls(
        self,
        tools: Mapping[str, Mapping[str, Any]],
        variables: Collection[str] = (),
        *,
        in_full: bool = False,
    ) -> None:
        """Refuse positional arguments of tools (`docs/protocol.md`, Programs of the planner).

        A name that the program binds somewhere may mean something else than the tool. What is
        called then is known when it is called, and a call that does not fit is a `TypeError`.

        Args:
            tools: JSON Schema of the parameters, by name of tool.
            variables: Names that exist before the program.
            in_full: Whether arguments that a tool does not have, or that are missing, are refused
                too, as far as the text says.

        Raises:
            ProgramRefused: For the first such call.
        """
        calls = [
            (node, node.func.id)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        wrong = [
            (node, name, fault)
            for node, name in calls
            if name in tools
            and name not in variables
            and (fault := _misfit(node, name, tools[name], in_full=in_full)) is not None
        ]
        bound = names_bound_anywhere(self.tree) if wrong else frozenset()
        for node, name, fault in sorted(wrong, key=lambda one: (one[0].lineno, one[0].col_offset)):
            if name not in bound:
                refuse(node, fault)

    def check_answer(self) -> None:
        """Refuse a program that cannot have an answer: it would run for nothing.

        Raises:
            ProgramRefused: If it neither sets `final_return_value` nor may end early, and its last
                line is no expression; or if it is nothing but a text or a number, as of a planner
                that answers itself.
        """
        body = self.tree.body
        if any(map(_sets_answer, reversed(body))):
            return
        names = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        if not names.isdisjoint(ENDING):
            return
        if body and all(isinstance(one, ast.Expr) and _is_literal(one.value) for one in body):
            refuse(body[-1], f"This is an answer and no program. {_SET_ANSWER}")
        if not body or not isinstance(body[-1], ast.Expr):
            refuse(body[-1] if body else self.tree, f"The program has no answer. {_SET_ANSWER}")


def _sets_answer(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name == ANSWER
    return False


_SET_ANSWER = f"Write a program that puts the answer for the user into `{ANSWER}`."
KEYWORDS_ONLY = "Tools take keyword arguments only."


_LITERALS = (
    *(ast.Constant, ast.JoinedStr, ast.Tuple, ast.List, ast.Dict, ast.Set),
    *(ast.UnaryOp, ast.unaryop, ast.expr_context),
)


def _is_literal(node: ast.expr) -> bool:
    return all(isinstance(one, _LITERALS) for one in ast.walk(node))


def _misfit(call: ast.Call, name: str, schema: Mapping[str, Any], *, in_full: bool) -> str | None:
    """Why a call does not fit its tool, as far as its text says."""
    written = signature(name, schema)
    if call.args:
        return f"{KEYWORDS_ONLY} Write `{written}`."
    if not in_full:
        return None
    given = {one.arg for one in call.keywords}
    properties = schema.get("properties") or ()
    unknown = sorted(one for one in given if one is not None and one not in properties)
    if unknown and not is_open(schema):
        return f"`{name}` has no argument `{unknown[0]}`. Write `{written}`."
    missing = [one for one in schema.get("required") or () if one not in given]
    if missing and None not in given:  # `**found` may bring it
        return f"`{name}` needs the argument `{missing[0]}`. Write `{written}`."
    return None


def parse(source: str, limits: Limits = DEFAULT_LIMITS, *, known: Collection[str] = ()) -> Program:
    """Read a program and check that it uses nothing but the language.

    Args:
        source: Python text.
        limits: How long and how deep it may be.
        known: Variables that exist before it.

    Returns:
        The program.

    Raises:
        ProgramRefused: With line, column and what to write instead.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import parse

        program = parse("mail = read_mail(number=1)")
        ```
    """
    tree = read(source, limits)
    try:
        check_placement(tree)
        # What only compiling finds, such as a field of an unknown type, is refused here too.
        compile_module(Machine.idle(limits), tree, known=known)
    except (RecursionError, OutOfBudget) as error:
        too_deep = isinstance(error, RecursionError)
        raise ProgramRefused(TOO_DEEP if too_deep else str(error)) from None
    return Program(source, tree, hashlib.sha256(source.encode()).hexdigest())
