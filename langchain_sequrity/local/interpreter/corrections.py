"""What is wrong at places of a program, and the program with that corrected."""

import ast
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, NamedTuple

from langchain_sequrity import syntax_trees


class SourceText:
    """Finds the text of a node in a program.

    Before Python 3.12 the places of nodes within an f-string are wrong; such a node is found by
    what is written.

    Args:
        source: The program.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def span_of(self, node: Any) -> tuple[int, int] | None:
        """Start and end of a node in the text; `None` if they cannot be found."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        unparsed = ast.unparse(node)
        if isinstance(node, ast.stmt) or _is_code(self._source[start:end], unparsed):
            return start, end
        line = self._starts[node.lineno - 1]
        text = self._lines[node.lineno - 1]
        for form in (unparsed, unparsed.replace("'", '"')):
            if text.count(form) == 1:
                start = line + text.index(form)
                return start, start + len(form)
        return None

    def text_of(self, node: ast.AST) -> str:
        """How a node is written."""
        span = self.span_of(node)
        text = "" if span is None else self._source[slice(*span)]
        return text if text and "\n" not in text else ast.unparse(node)

    def _offset(self, line: int, column: int) -> int:
        before = self._lines[line - 1].encode()[:column]  # columns count bytes
        return self._starts[line - 1] + len(before.decode("utf-8", "replace"))


def _is_code(text: str, unparsed: str) -> bool:
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.unparse(syntax_trees.parse(text, mode="eval")) == unparsed
    return False


class Problem(NamedTuple):
    """What is wrong at a place of a program, and how to correct it.

    Attributes:
        text: For whoever wrote the program.
        node: The code that is replaced, or before which something is written.
        replacement: What is written; `None` if it is not known.
        is_inserted: Whether it is written as lines before the node.
    """

    text: str
    node: ast.AST
    replacement: str | None
    is_inserted: bool = False


def corrected(source: str, problems: Sequence[Problem]) -> str | None:
    """The program with what is to be written in place of its problems, where this is known."""
    text = SourceText(source)
    edits = []
    for problem in problems:
        span = text.span_of(problem.node)
        if problem.replacement is None or span is None:
            continue
        start, end = span
        edits.append((start, start if problem.is_inserted else end, problem))
    last = len(source) + 1
    for start, end, problem in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        if end > last:  # it lies within another one, which is changed first
            continue
        indent = source[source.rfind("\n", 0, start) + 1 : start] if problem.is_inserted else ""
        new = f"{problem.replacement}\n{indent}" if problem.is_inserted else problem.replacement
        source, last = f"{source[:start]}{new}{source[end:]}", start
    return source if edits else None
