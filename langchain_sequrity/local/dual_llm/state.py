"""What a dual-LLM session remembers between requests: plain data, so that it can be stored."""

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.policy_gate import Brought

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A program of a turn, and what the planner is told of how it ended.

    Attributes:
        program: Its text.
        outcome: Fixed words with the type and line of an error; never data.
        failed: Whether it failed.
        known: What the planner was told of variables when it wrote it.
    """

    program: str
    outcome: str
    failed: bool = True
    known: str = ""


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn that is over, as the planner remembers it.

    Attributes:
        query: What the user said, as it was put to the planner.
        programs: The programs that were written for it.
        end: How many messages the conversation had at its end.
        variables: What there was for the next program at its end.
    """

    query: str
    programs: tuple[str, ...]
    end: int
    variables: dict[str, Labeled] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """The tool call that was handed out.

    Attributes:
        id: Its id.
        tool: The tool's own name.
        arguments: What it was called with, after blockers.
        digest: Of tool and arguments, as the program made the call.
        session: The session's labels when it was checked.
        line: Its line in the program.
        is_cached: Whether its result is kept for the session.
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
    """A call that the caller made, in case its program fails and another one makes it again.

    Attributes:
        call: The call.
        result: What came of it, as it came: data take more room than their text.
        shape: Its type and size; empty if the tool failed.
    """

    call: WaitingCall
    result: ToolMessage
    shape: str

    @property
    def failed(self) -> bool:
        """Whether the tool failed."""
        return not self.shape


@dataclass(slots=True)
class OpenTurn:
    """A turn that is not over.

    Attributes:
        query: What the user said, as it is put to the planner.
        said: The user's messages.
        system: What the application says.
        tools: The caller's tools.
        shape: `response_format` of the request.
        tool_choice: Which tool the request wants called.
        is_planned: Whether a planner writes programs; else the caller has given one.
        variables: Variables that exist before the turn's first program.
        program: The program that runs.
        done: In multi-step planning, the steps that succeeded; they and `program` are one run.
        kept: How many events of the log belong to them.
        context: What the planner is told of the variables that there are now.
        log: Its log, from which it can be run again.
        waiting: The call that was handed out.
        attempts: Programs that were tried before, as far as they are remembered.
        programs: All programs, for the session's memory.
        failures: Indices of those that failed.
        steps: How many programs were written.
        failed_steps: How many of them failed.
        calls: Tool calls of this program.
        made: Calls that were made for this program and for those that failed before it.
        settled: Those that were made for steps that succeeded.
        asked_for: How often this program has made a call so far, by the call's digest.
        checks: One object for each checked call of the turn.
        mismatch: Whether the history that was sent differed from the stored one.
    """

    query: str
    said: list[BaseMessage]
    system: list[BaseMessage]
    tools: list[Json]
    shape: Json | None = None
    tool_choice: str | dict[str, str] | None = None
    is_planned: bool = True
    variables: dict[str, Labeled] = field(default_factory=dict)
    program: str = ""
    done: list[str] = field(default_factory=list)
    kept: int = 0
    context: str = ""
    log: tuple[Json, ...] = ()
    waiting: WaitingCall | None = None
    attempts: list[Step] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    failures: set[int] = field(default_factory=set)
    steps: int = 0
    failed_steps: int = 0
    calls: int = 0
    made: list[MadeCall] = field(default_factory=list)
    settled: list[MadeCall] = field(default_factory=list)
    asked_for: dict[str, int] = field(default_factory=dict)
    checks: list[Json] = field(default_factory=list)
    mismatch: bool = False

    @property
    def text(self) -> str:
        """The program of the turn: its steps that succeeded, and what runs or ran at its end."""
        return "\n".join(filter(None, [*self.done, self.program]))

    def earlier(self, digest: str) -> MadeCall | None:
        """Note that the program makes a call; what came of it, if it was made for one that failed.

        The same call twice in one program is two calls.
        """
        number = self.asked_for[digest] = self.asked_for.get(digest, 0) + 1
        # A tool that failed has no result: the planner is told, and may try again.
        alike = (one for one in self.made if one.call.digest == digest and not one.failed)
        return next(islice(alike, number - 1, None), None)

    def settle(self) -> None:
        """Put the calls of a step that succeeded aside: the same one in a later step is another."""
        left, asked_for = [], dict(self.asked_for)
        for one in self.made:
            digest = one.call.digest
            if not one.failed and asked_for.get(digest, 0) > 0:
                asked_for[digest] -= 1
                self.settled.append(one)
            else:
                left.append(one)
        self.made, self.asked_for = left, {}

    def copy(self) -> "OpenTurn":
        """A copy that can be changed while this one stays as it is."""
        return replace(
            self,
            done=[*self.done],
            attempts=[*self.attempts],
            programs=[*self.programs],
            failures={*self.failures},
            made=[*self.made],
            settled=[*self.settled],
            asked_for={**self.asked_for},
            checks=[*self.checks],
        )


@dataclass(slots=True)
class DualState:
    """What a session remembers.

    Attributes:
        labels: The session's labels.
        variables: What the programs of earlier turns left behind.
        past: Earlier turns.
        turn: The turn that is open.
        made: Calls of the turn that ended last: its history may come back, as in time travel.
        cache: What tools returned and is kept.
        policies: Policies that programs added.
    """

    labels: Labels = field(default_factory=Labels)
    variables: dict[str, Labeled] = field(default_factory=dict)
    past: list[PastTurn] = field(default_factory=list)
    turn: OpenTurn | None = None
    made: list[MadeCall] = field(default_factory=list)
    cache: dict[str, Brought] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)

    def copy(self) -> "DualState":
        """A copy to work on: a request that fails changes nothing (`docs/behaviour.md`, T2)."""
        return replace(
            self,
            past=[*self.past],
            turn=self.turn and self.turn.copy(),
            made=[*self.made],
            cache={**self.cache},
            policies=[*self.policies],
        )
