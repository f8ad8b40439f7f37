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


@dataclass(frozen=True, slots=True)
class NextProgram:
    """The next of the programs that a run has one after the other.

    Attributes:
        source: Its text. It finds the variables of the programs before it as they left them.
    """

    source: str


Step = ToolCall | Finished | Failed
Answer = Labeled | ToolFailure | NextProgram


def waits(step: Step | None, *, has_steps: bool) -> bool:
    """Whether a run waits for something after that step."""
    return isinstance(step, ToolCall) or (has_steps and isinstance(step, Finished))


def check_turn(
    step: Step | None, answer: Answer | None, *, has_steps: bool, is_closed: bool
) -> None:
    """Check that a run may go on with this, after that step.

    Raises:
        UsageError: If it waits for one thing and gets another or none, or is over.
    """
    is_waiting = waits(step, has_steps=has_steps)
    if is_closed or not (step is None or is_waiting):
        msg = "This run is over. Make a new one, with this one's log to get to the same place."
    elif answer is not None and not is_waiting:
        msg = "This run does not wait for a result. Call `advance()` first."
    elif isinstance(step, ToolCall) and not isinstance(answer, Labeled | ToolFailure):
        msg = "This run waits for the result of a tool; give it to `advance`."
    elif isinstance(step, Finished) and not isinstance(answer, NextProgram):
        msg = "This run waits for its next program; give it to `advance`."
    else:
        return
    raise UsageError(msg)
