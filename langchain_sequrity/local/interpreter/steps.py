"""What a run gives out at each step, and what it takes: plain data."""

from dataclasses import dataclass
from typing import Literal

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.values import NO_LABELS, Labeled

FailureKind = Literal["exception", "budget", "branch", "exit", "value"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The program waits for a tool.

    Attributes:
        tool: Its name.
        arguments: JSON values by name of parameter; defaults are not filled in.
        line: Line of the call.
    """

    tool: str
    arguments: dict[str, Labeled]
    line: int


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """A tool failed: the program sees a `ToolError` with this text, which it may catch."""

    message: str
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Finished:
    """The program ended.

    Attributes:
        value: `final_return_value`, or else the value of an expression on the last line.
        value_type: Name of its type in the program.
        line: The last line that ran.
        exit_code: What `exit` was given; `None` also where it was not called.
    """

    value: Labeled
    value_type: str
    line: int
    exit_code: int | str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The program failed.

    Attributes:
        kind: An exception, an exhausted budget, a forbidden branch, `exit` with another code
            than 0, or a value that JSON does not have.
        type: Type of the exception, or of what comes nearest to one.
        message: Text. It may hold data that the program worked on; see `labels`.
        line: Line where it happened.
        labels: Labels of the text.
        value: `final_return_value` as it was when the program called `exit`.
    """

    kind: FailureKind
    type: str
    message: str
    line: int
    labels: Labels = NO_LABELS
    value: Labeled | None = None


Step = ToolCall | Finished | Failed


def check_turn(step: Step | None, result: Labeled | ToolFailure | None, *, is_closed: bool) -> None:
    """Check that a run may go on with this, after that step.

    Raises:
        UsageError: If it waits for a result and gets none, or the other way round, or is over.
    """
    waits = isinstance(step, ToolCall)
    if is_closed or not (step is None or waits):
        msg = "This run is over. Make a new one, with this one's log to get to the same place."
    elif waits and result is None:
        msg = "This run waits for the result of a tool; give it to `advance`."
    elif result is not None and not waits:
        msg = "This run does not wait for a result. Call `advance()` first."
    else:
        return
    raise UsageError(msg)
