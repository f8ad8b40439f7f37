"""How a program goes wrong: what it can catch, and what it cannot (`behaviour.md`, M6).

What it can catch is an `Exception`: those that Python's own operations raise, and `Raised`, which
carries an exception that has labels. What it cannot is a `Abort`, which is none.
"""

from typing import Any, Final

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.labels import Labels


class ProgramRefused(SequrityError):
    """The program uses what the language does not have; the text says what to write instead.

    Attributes:
        reason: What is wrong, without the position.
        line: Line, from 1.
        column: Column, from 1.
    """

    def __init__(self, reason: str, *, line: int = 1, column: int = 1) -> None:
        """Put the position before the reason."""
        super().__init__(f"Line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column

    @classmethod
    def of_syntax(cls, error: SyntaxError) -> "ProgramRefused":
        """Say what Python's parser says."""
        reason = f"Not valid Python: {error.msg}."
        return cls(reason, line=error.lineno or 1, column=error.offset or 1)


class ReplayDiverged(SequrityError):
    """A replayed run did something else than its log says."""


class Raised(Exception):
    """An exception of the program on its way to an `except`."""

    def __init__(self, error: Any) -> None:
        """Carry an `ErrorValue`."""
        super().__init__()
        self.error = error


class ValidationError(ValueError):
    """What a model raises for data that do not fit; pydantic's is a `ValueError` too."""


class ToolError(Exception):
    """A tool failed; the program may catch it."""


class error(Exception):  # noqa: N801 - `re.error`, under the name that Python has for it
    """A regular expression that is none."""


class Abort(BaseException):
    """The end of a run that no `except` and no `finally` of the program sees."""


class OutOfBudget(Abort):
    """A limit was reached."""

    kind: Final = "budget"
    type_name: Final = "OutOfBudget"
    labels = Labels()

    @classmethod
    def of(cls, name: str, limit: float) -> "OutOfBudget":
        """Name the limit."""
        return cls(f"The program reached the limit `{name}` ({limit:g}).")


class BranchForbidden(Abort):
    """The policy forbids to branch on a value with these labels."""

    kind: Final = "branch"
    type_name: Final = "ControlFlow"

    def __init__(self, labels: Labels) -> None:
        """Keep the labels of the condition."""
        super().__init__("Control flow depends on data that may not steer the program.")
        self.labels = labels


class Exit(Abort):
    """The program called `exit`."""

    def __init__(self, code: Any, labels: Labels | None) -> None:
        """Keep the exit code, which may be a text, and its labels."""
        super().__init__()
        self.code = code
        self.labels = labels


class NotJson(Abort):
    """A value that leaves the program has no JSON form."""

    kind: Final = "value"

    def __init__(self, type_name: str, message: str, labels: Labels) -> None:
        """Name the type of exception that says it best."""
        super().__init__(message)
        self.type_name = type_name
        self.labels = labels


class Diverged(Abort):
    """A replayed run did something else than its log says."""


class HostError(Abort):
    """What the interpreter calls outside of itself failed; it is not the program's to catch."""

    def __init__(self, error: Exception) -> None:
        """Carry what was raised."""
        super().__init__()
        self.error = error


class Abandoned(Abort):
    """Nobody waits for the run any more."""
