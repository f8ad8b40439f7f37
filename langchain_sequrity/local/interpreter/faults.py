"""How a program fails: errors that it can catch, and ends that it cannot (`behaviour.md`, M6).

A program can catch an `Exception`: those that Python's own operations raise, and `Raised`, which
carries an exception with labels. It cannot catch an `Abort`, which is not an `Exception`.
"""

from collections.abc import Iterable
from typing import Any, Final

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.refusals import how_to_raise


class ProgramRefused(SequrityError):
    """The program uses something outside of the language; the message says what to write instead.

    Attributes:
        reason: What is wrong, without the position.
        line: Line, from 1.
        column: Column, from 1.
        corrected: The whole program with what the message says to write, where this is known.
        still_wrong: What is wrong in the corrected program; empty if nothing is.
    """

    def __init__(
        self,
        reason: str,
        *,
        line: int = 1,
        column: int = 1,
        corrected: str | None = None,
        still_wrong: str = "",
    ) -> None:
        super().__init__(f"Line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column
        self.corrected = corrected
        self.still_wrong = still_wrong

    def with_correction(
        self, texts: Iterable[str], corrected: str | None, *, still_wrong: str = ""
    ) -> "ProgramRefused":
        """This refusal with more texts, and with the best correction."""
        return ProgramRefused(
            "\n".join(texts),
            line=self.line,
            column=self.column,
            corrected=corrected,
            still_wrong=still_wrong if corrected is not None else "",
        )

    @classmethod
    def from_error(cls, error: SyntaxError, source: str, corrected: str | None) -> "ProgramRefused":
        """Use the message and position of Python's parser."""
        line, column = error.lineno or 1, error.offset or 1
        reason = f"Not valid Python: {error.msg.rstrip('?')}."
        pairs = zip(source.split("\n"), (corrected or "").split("\n"), strict=False)
        changed = [(number, old, new) for number, (old, new) in enumerate(pairs, 1) if old != new]
        if corrected is not None and changed:
            line = changed[0][0]
            column = 1 if line != error.lineno else column
            reason += "".join(
                f"{'' if number == line else f' In line {number},'}"
                f" {'I' if number == line else 'i'}nstead of `{old.strip()}` write `{new.strip()}`"
                f"{'' if old.strip() != new.strip() else f', indented by {indent_of(new)}'}."
                for number, old, new in changed[:_MOST_LINES]
            )
        return cls(reason, line=line, column=column, corrected=corrected)


_MOST_LINES = 5


def indent_of(line: str) -> int:
    """The number of spaces that a line begins with."""
    return len(line) - len(line.lstrip())


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


_SIZES = frozenset({"text", "items", "bits", "memory", "outgoing"})


class OutOfBudget(Abort):
    """A limit was reached."""

    kind: Final = "budget"
    type_name: Final = "OutOfBudget"
    labels = Labels()

    @classmethod
    def at_limit(cls, name: str, limit: float, subject: str = "") -> "OutOfBudget":
        """An error that names the limit.

        Args:
            name: Its name among the limits of programs, or a description of a fixed one.
            limit: Its value.
            subject: What exceeded it, if that is known.
        """
        error = cls(
            f"The program reached the limit `{name}` ({limit:,}){subject and f': {subject}'}."
            + (f" {how_to_raise(f'program.{name}')}" if name.isidentifier() else "")
        )
        error._limit = None if subject else (name, limit)
        return error

    _limit: tuple[str, float] | None = None

    def about(self, subject: str) -> "OutOfBudget":
        """This error with what exceeded the limit, if that is a size and not said already."""
        if not subject or self._limit is None or self._limit[0] not in _SIZES:
            return self
        return self.at_limit(*self._limit, subject)


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
