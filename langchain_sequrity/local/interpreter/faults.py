"""How a program fails: errors that it can catch, and ends that it cannot (`behaviour.md`, M6).

A program can catch an `Exception`: those that Python's own operations raise, and `Raised`, which
carries an exception with labels. It cannot catch an `Abort`, which is not an `Exception`.
"""

from typing import Any, Final

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.labels import Labels


class ProgramRefused(SequrityError):
    """The program uses something outside of the language; the message says what to write instead.

    Attributes:
        reason: What is wrong, without the position.
        line: Line, from 1.
        column: Column, from 1.
    """

    def __init__(self, reason: str, *, line: int = 1, column: int = 1) -> None:
        super().__init__(f"Line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column

    @classmethod
    def of_syntax(cls, error: SyntaxError) -> "ProgramRefused":
        """Use the message and position of Python's parser."""
        reason = f"Not valid Python: {error.msg}."
        return cls(reason, line=error.lineno or 1, column=error.offset or 1)


class ReplayDiverged(SequrityError):
    """A replayed run differs from its log."""


class Raised(Exception):
    """An exception of the program, while it propagates."""

    def __init__(self, error: Any) -> None:
        super().__init__()
        self.error = error


class ValidationError(ValueError):
    """Data do not fit a model. pydantic's error is also a `ValueError`."""


class ToolError(Exception):
    """A tool failed; the program may catch it."""


class error(Exception):  # noqa: N801 - `re.error`, under the name that Python has for it
    """An invalid regular expression."""


class Abort(BaseException):
    """Ends a run without running any `except` or `finally` of the program."""


class OutOfBudget(Abort):
    """A limit was reached."""

    kind: Final = "budget"
    type_name: Final = "OutOfBudget"
    labels = Labels()

    @classmethod
    def of(cls, name: str, limit: float) -> "OutOfBudget":
        """An error that names the limit."""
        return cls(f"The program reached the limit `{name}` ({limit:g}).")


class BranchForbidden(Abort):
    """The policy forbids control flow that depends on data with these labels."""

    kind: Final = "branch"
    type_name: Final = "ControlFlow"

    def __init__(self, labels: Labels) -> None:
        super().__init__(
            "The policy does not let this data decide the control flow of the program."
        )
        self.labels = labels


class Exit(Abort):
    """The program called `exit`."""

    def __init__(self, code: Any, labels: Labels | None) -> None:
        super().__init__()
        self.code = code
        self.labels = labels


class NoJsonForm(Abort):
    """A value that leaves the program has no JSON form."""

    kind: Final = "value"

    def __init__(self, type_name: str, message: str, labels: Labels) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.labels = labels


class HostError(Abort):
    """An error that is not the program's, such as one of the policy, or a replay that diverged."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Abandoned(Abort):
    """The run was closed while it waited."""
