"""Errors that show the place: line, column, the line itself and a caret."""

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.nodes import Position

_WIDTH = 160
_LINES = str.maketrans({"\t": " "})


def position(text: str, offset: int) -> Position:
    """The place of an offset in a text."""
    start = text.rfind("\n", 0, offset) + 1
    return Position(text.count("\n", 0, start) + 1, offset - start + 1)


def no_text(given: object) -> UsageError:
    """Build the error for what should be the text of a policy."""
    return UsageError(
        f"A policy is a text; got {type(given).__name__}. A parsed policy has it as `text`, a "
        "`PolicyHeader` as `codes.code`, and a file is read first."
    )


def fault(
    text: str, at: Position, message: str, *, expected: tuple[str, ...] = ()
) -> PolicySyntaxError:
    """Build the error for a place in a text."""
    return PolicySyntaxError(
        f"{message} (line {at.line}, column {at.column})",
        line=at.line,
        column=at.column,
        source=pointed(text, at),
        expected=expected,
    )


def pointed(text: str, at: Position) -> str:
    """The line of a place, and below it a caret."""
    line = text.split("\n", at.line)[at.line - 1].translate(_LINES)
    cut = max(0, at.column - _WIDTH // 2)
    before = plain(line[cut : at.column - 1])
    return f"  {before}{plain(line[at.column - 1 : cut + _WIDTH])}\n  {' ' * len(before)}^"
