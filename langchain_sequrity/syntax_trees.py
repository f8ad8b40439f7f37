"""Syntax trees of Python text, for several threads at once.

CPython counts the depth of a tree that it makes in one place for all threads (until 3.13). If two
threads make trees at the same time, one may get `SystemError: AST constructor recursion depth
mismatch` for a text that is right, or a `RecursionError` for one that is not deep.
"""

import ast
import threading
from contextlib import suppress
from typing import Literal, overload

_lock = threading.Lock()
_ATTEMPTS = 20  # other packages in this process make trees without the lock


@overload
def parse(text: str, mode: Literal["exec"] = ...) -> ast.Module: ...
@overload
def parse(text: str, mode: Literal["eval"]) -> ast.Expression: ...
def parse(text: str, mode: Literal["exec", "eval"] = "exec") -> ast.AST:
    """Parse Python text, as `ast.parse` does.

    Args:
        text: The text.
        mode: A module, or an expression.

    Raises:
        SyntaxError: If it is not valid.
        ValueError: For a null character.
        RecursionError: If it is nested too deeply.
        MemoryError: The same, found by the parser.

    Example:
        ```python
        from langchain_sequrity.syntax_trees import parse

        assert parse("x = 1").body[0].lineno == 1
        ```
    """
    for _ in range(_ATTEMPTS):
        with suppress(SystemError), _lock:  # the count is begun anew each time
            return ast.parse(text, mode=mode)
    with _lock:
        return ast.parse(text, mode=mode)
