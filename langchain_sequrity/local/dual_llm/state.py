"""State of a dual-LLM session between requests: plain data, which a store can keep."""

from copy import copy
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, TypeVar

from langchain_core.messages import BaseMessage, ToolMessage

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.tool_results import Refusal
from langchain_sequrity.sqrt.gate import ToolReturn

Json = dict[str, Any]
S = TypeVar("S", "OpenTurn", "DualState")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An earlier program of a turn, and its outcome for the planner.

    Attributes:
        program: Its text.
        outcome: Fixed text with the type and line of an error; data only if `X-Config` shows it.
        variables: The list of variables in the planner's prompt for this program.
        is_shown: Whether later prompts show the program, and not only its outcome.
    """

    program: str
    outcome: str
    variables: str = ""
    is_shown: bool = True


@dataclass(frozen=True, slots=True)
class FailedProgram:
    """A program that failed in this turn, since its last successful step.

    Attributes:
        program: Its text.
        outcome: What the planner was told.
        error: Code and message of its failure.
        may_repeat: Whether the same program may do better, because a tool has failed.
    """

    program: str
    outcome: str
    error: tuple[str, str]
    may_repeat: bool


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A finished turn, as later prompts of the planner show it.

    Attributes:
        query: The user's query, as the planner got it.
        programs: Its programs.
        end: Number of messages in the conversation at its end.
        variables: Variables at its end, for the next program.
    """

    query: str
    programs: tuple[str, ...]
    end: int
    variables: dict[str, Labeled] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A tool call that was handed out to the caller.

    Attributes:
        id: Its id.
        tool: The tool's own name.
        arguments: Its arguments after blockers.
        digest: Digest of tool and arguments before blockers.
        session: The session's labels at the time of the check.
        line: Its line in the program.
        is_cached: Whether its result is cached for the session.
    """

    id: str
    tool: str
    arguments: dict[str, Labeled]
    digest: str
    session: Labels
    line: int
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call that the caller made, or refused. Later programs of the turn can reuse the answer.

    Attributes:
        call: The call.
        result: The message with its result: parsed data would take more memory than their text.
        shape: Type and size of the result; empty if the tool failed or the call was refused.
        refusal: Whether the call was refused, and how that is known.
        step: Number of programs in the turn when it was answered.
    """

    call: WaitingCall
    result: ToolMessage
    shape: str
    refusal: Refusal | None = None
    step: int = 0

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return not self.shape


@dataclass(slots=True)
class OpenTurn:
    """A turn that is not over.

    Attributes:
        query: The user's query, as the planner gets it.
        new_messages: The user's messages.
        system: The system messages.
        tools: The caller's tools.
        shape: `response_format` of the request.
        tool_choice: Which tool the request wants to be called.
        is_planned: Whether a planner writes the programs; otherwise the caller sent one.
        has_steps: Whether the programs are steps that build on each other.
        variables: Variables that exist before the turn's first program.
        program: The program that runs.
        done: In multi-step planning, the successful steps; they and `program` are one run.
        done_events: Number of log events that belong to `done`.
        context: The list of current variables for the planner's prompt.
        log: The log of the run, from which it can be replayed.
        waiting: The call that was handed out.
        attempts: Earlier programs for the planner's prompt.
        failed: Programs that failed, which are not run again.
        prompt_labels: Labels of the data in the turn's texts for the planner's prompt.
        programs: All programs, for later turns.
        failures: Indices of the failed programs.
        steps: Number of programs.
        failed_steps: Number of failed programs.
        calls: Number of tool calls of this program.
        calls_made: Calls that this program and failed ones before it made, or that were refused.
        settled: Calls that were made for successful steps.
        asked_for: How often this program has made each call, by the call's digest.
        checks: One report for each checked call of the turn.
        mismatch: Whether the client's history differed from the stored one.
    """

    query: str
    new_messages: list[BaseMessage]
    system: list[BaseMessage]
    tools: list[Json]
    shape: Json | None = None
    tool_choice: str | dict[str, str] | None = None
    is_planned: bool = True
    has_steps: bool = False
    variables: dict[str, Labeled] = field(default_factory=dict)
    program: str = ""
    done: list[str] = field(default_factory=list)
    done_events: int = 0
    context: str = ""
    log: tuple[Json, ...] = ()
    waiting: WaitingCall | None = None
    attempts: list[Attempt] = field(default_factory=list)
    failed: list[FailedProgram] = field(default_factory=list)
    prompt_labels: Labels = NO_LABELS
    programs: list[str] = field(default_factory=list)
    failures: set[int] = field(default_factory=set)
    steps: int = 0
    failed_steps: int = 0
    calls: int = 0
    calls_made: list[MadeCall] = field(default_factory=list)
    settled: list[MadeCall] = field(default_factory=list)
    asked_for: dict[str, int] = field(default_factory=dict)
    checks: list[Json] = field(default_factory=list)
    mismatch: bool = False

    @property
    def text(self) -> str:
        """The program of the turn: the successful steps, and the last program."""
        return "\n".join(filter(None, [*self.done, self.program]))

    def show(self, text: Labeled) -> str:
        """Take a text, with the labels of the data in it, into the planner's prompts."""
        self.prompt_labels = self.prompt_labels.join(text.labels)
        value: str = text.value
        return value

    def reuse_call(self, digest: str) -> MadeCall | None:
        """Count a call of the program, and find it among the calls of failed programs.

        The same call twice in one program is two calls.
        """
        number = self.asked_for[digest] = self.asked_for.get(digest, 0) + 1
        # A failed call has no result; a new program may try it again.
        same = (m for m in self.calls_made if m.call.digest == digest and not m.failed)
        return next(islice(same, number - 1, None), None)

    def refused_call(self, digest: str) -> MadeCall | None:
        """The call of this turn that was refused, if there is one."""
        return next((m for m in self.calls_made if m.refusal and m.call.digest == digest), None)

    def settle(self) -> None:
        """Put the calls of a successful step aside: a later step that repeats one is a new call."""
        unused = []
        for made_call in self.calls_made:
            digest = made_call.call.digest
            if not made_call.failed and self.asked_for.get(digest, 0) > 0:
                self.asked_for[digest] -= 1
                self.settled.append(made_call)
            else:
                unused.append(made_call)
        self.calls_made = unused


@dataclass(slots=True)
class DualState:
    """State of a session.

    Attributes:
        labels: The session's labels.
        data_labels: Labels of all results in the session, and so of all its data.
        planner_labels: Labels of all data that the planner was shown. Later prompts contain its
            programs, so whatever it writes until the end of the session has them
            (`docs/behaviour.md`, T3).
        variables: Variables of earlier turns.
        past: Earlier turns.
        turn: The open turn.
        calls_made: Calls of the last turn, to which a client may go back.
        cache: Cached tool results.
        policies: Policies that programs added.
    """

    labels: Labels = field(default_factory=Labels)
    data_labels: Labels = NO_LABELS
    planner_labels: Labels = NO_LABELS
    variables: dict[str, Labeled] = field(default_factory=dict)
    past: list[PastTurn] = field(default_factory=list)
    turn: OpenTurn | None = None
    calls_made: list[MadeCall] = field(default_factory=list)
    cache: dict[str, ToolReturn] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)

    def copy(self) -> "DualState":
        """A working copy: a request that fails changes nothing (`docs/behaviour.md`, T2)."""
        turn = None if self.turn is None else _copied(self.turn)
        return replace(_copied(self), turn=turn)


def _copied(state: S) -> S:
    """A copy with its own lists, sets and dicts; what these contain never changes."""
    values: dict[str, Any] = {f.name: getattr(state, f.name) for f in fields(state)}
    copies: dict[str, Any] = {
        name: copy(value) for name, value in values.items() if isinstance(value, list | set | dict)
    }
    return replace(state, **copies)
