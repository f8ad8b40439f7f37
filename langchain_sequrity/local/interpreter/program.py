"""A program: text that was found to use nothing but the language."""

import ast
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_sequrity.local.interpreter.compiler import compile_module
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.placement import check_placement
from langchain_sequrity.local.interpreter.scopes import names_bound_anywhere
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
        self, tools: Mapping[str, Mapping[str, Any]], variables: Collection[str] = ()
    ) -> None:
        """Refuse positional arguments of tools (`docs/protocol.md`, Programs of the planner).

        A name that the program binds somewhere may mean something else than the tool. What is
        called then is known when it is called, and a positional argument is a `TypeError`.

        Args:
            tools: JSON Schema of the parameters, by name of tool.
            variables: Names that exist before the program.

        Raises:
            ProgramRefused: For the first such call.
        """
        named = [
            node.func
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name)
        ]
        wrong = [node for node in named if node.id in tools and node.id not in variables]
        bound = names_bound_anywhere(self.tree) if wrong else frozenset()
        for node in sorted(wrong, key=lambda node: (node.lineno, node.col_offset)):
            if node.id not in bound:
                parameter = _first_parameter(tools[node.id])
                refuse(node, f"{KEYWORDS_ONLY} Write `{node.id}({parameter}=…)`.")


KEYWORDS_ONLY = "Tools take keyword arguments only."


def _first_parameter(schema: Mapping[str, Any]) -> str:
    first = next(iter(schema.get("properties") or ()), "")
    return first if first.isidentifier() else "name"


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
