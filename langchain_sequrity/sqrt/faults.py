"""Errors that show the place: line, column, the line itself and a caret."""

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError

_WIDTH = 160
_LINES = str.maketrans({"\t": " "})


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset in a text, as `Position` has them."""
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, start) + 1, offset - start + 1


def no_text(given: object) -> UsageError:
    """Build the error for what should be the text of a policy."""
    return UsageError(
        f"A policy is a text; got {type(given).__name__}. A parsed policy has it as `text`, a "
        "`PolicyHeader` as `codes.code`, and a file is read first."
    )


def fault(
    text: str, at: tuple[int, int], message: str, *, expected: tuple[str, ...] = ()
) -> PolicySyntaxError:
    """Build the error for a place in a text."""
    line, column = at
    return PolicySyntaxError(
        f"{message} (line {line}, column {column})",
        line=line,
        column=column,
        source=pointed(text, at),
        expected=expected,
    )


def pointed(text: str, at: tuple[int, int]) -> str:
    """The line of a place, and below it a caret."""
    number, column = at
    line = text.split("\n", number)[number - 1].translate(_LINES)
    cut = max(0, column - _WIDTH // 2)
    before = plain(line[cut : column - 1])
    return f"  {before}{plain(line[column - 1 : cut + _WIDTH])}\n  {' ' * len(before)}^"
