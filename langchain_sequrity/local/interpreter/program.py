"""A program: text that was found to use nothing but the language."""

import ast
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

from langchain_sequrity.local.interpreter.compiler import compile_module
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused
from langchain_sequrity.local.interpreter.limits import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.placement import check_placement
from langchain_sequrity.local.interpreter.syntax import TOO_DEEP, read


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
