"""State of a dual-LLM session between requests: plain data, which a store can keep.

What grows with each call is in growing lists. Everything else is replaced, and never changed in
place, so that copies can share it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_sequrity.labels import KINDS, NO_LABELS, Labels
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.growing import GrowingList, GrowingTable
from langchain_sequrity.local.interpreter import Labeled
from langchain_sequrity.local.stored_messages import StoredMessage
from langchain_sequrity.local.tool_results import Refusal
from langchain_sequrity.sqrt.gate import ToolReturn
from langchain_sequrity.strict_json import dumps, loads

Json = dict[str, Any]
_LONG = 500  # characters


@dataclass(slots=True)
class LabelNames:
    """The names in the labels of a session, by number, so that labels become one number.

    In a chain of calls each result has the labels of all before it. As sets, these would take
    memory that grows with the square of the chain.

    Attributes:
        names: The names.
    """

    names: GrowingTable = field(default_factory=GrowingTable)

    def pack(self, labels: Labels) -> int:
        """Labels as a number, with a bit for each name in each of the three lists."""
        numbers = [self.names.numbers_of(getattr(labels, kind_name)) for kind_name in KINDS]
        bits = bytearray(len(KINDS) * len(self.names) + 1)
        for offset, numbers_of_kind in enumerate(numbers):
            for number in numbers_of_kind:
                bits[len(KINDS) * number + offset] = 1
        return int(bits[::-1].translate(_DIGITS), 2)  # `|=` on a number would copy it each time

    def unpack(self, packed: int) -> Labels:
        """The labels of a number."""
        bits = bin(packed)[:1:-1]
        sets = (
            frozenset(
                self.names[number]
                for number, bit in enumerate(bits[offset :: len(KINDS)])
                if bit == "1"
            )
            for offset in range(len(KINDS))
        )
        return Labels(*sets)

    def copy(self) -> "LabelNames":
        """A working copy."""
        return LabelNames(self.names.copy())


_DIGITS = bytes.maketrans(b"\0\1", b"01")


@dataclass(slots=True)
class Checks:
    """The reports of the checked calls of a turn. What most of them share is stored once.

    Attributes:
        forms: Reports without line and labels, as JSON texts.
        entries: Number of the form, line, and labels of each report, as `LabelNames` packs them.
        remarks: What was added to a report later, with its index.
    """

    forms: GrowingTable = field(default_factory=GrowingTable)
    entries: GrowingList[tuple[int, ...]] = field(default_factory=GrowingList)
    remarks: GrowingList[tuple[int, Json]] = field(default_factory=GrowingList)

    def add(self, entry: Json) -> None:
        """Add the result of `check_entry`, with packed labels."""
        arguments, decided_by = entry["arguments"], entry.get("decided_by")
        form = {**entry, "line": None, "arguments": dict.fromkeys(arguments)}
        labels = [*arguments.values()]
        if decided_by is not None:
            form["decided_by"] = None
            labels.append(decided_by)
        number = self.forms.number_of(dumps(form))
        self.entries.append((number, entry["line"], *labels))

    def remark(self, remark: Json) -> None:
        """Add fields to the last report."""
        self.remarks.append((len(self.entries) - 1, remark))

    def report(self, names: LabelNames) -> list[Json]:
        """All reports, for `policy_check_history`."""
        reports = []
        for number, line, *packed in self.entries:
            entry = loads(self.forms[number])
            labels = [names.unpack(one_packed).to_wire() for one_packed in packed]
            if "decided_by" in entry:
                entry["decided_by"] = labels.pop()
            entry["line"] = line
            entry["arguments"] = dict(zip(entry["arguments"], labels, strict=True))
            reports.append(entry)
        for index, remark in self.remarks:
            reports[index] |= remark
        return reports

    def copy(self) -> "Checks":
        """A working copy."""
        return Checks(self.forms.copy(), self.entries.copy(), self.remarks.copy())


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
    variables: Mapping[str, Labeled] = field(default_factory=dict)


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
        is_offered: Whether it was denied softly, and waits for the approval of a person.
    """

    id: str
    tool: str
    arguments: dict[str, Labeled]
    digest: str
    session: Labels
    line: int
    is_cached: bool = False
    is_offered: bool = False


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call that the caller made, or refused. Later programs of the turn can reuse the answer.

    Attributes:
        id: Its id.
        tool: The tool's own name.
        digest: Digest of tool and arguments before blockers.
        session: The session's labels at the time of the check, packed.
        result: The message with its result: parsed data would take more memory than their text.
        shape: Type and size of the result; empty if the tool failed or the call was refused.
        refusal: Whether the call was refused, and how that is known.
        step: Number of programs in the turn when it was answered.
        approved: Digest of the call with its labels, if a person approved it; otherwise empty.
    """

    id: str
    tool: str
    digest: str
    session: int
    result: StoredMessage
    shape: str
    refusal: Refusal | None = None
    step: int = 0
    approved: str = ""

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
        stored_log: The log of the run, from which it can be replayed; see `events`.
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
        calls_before: How many of these were made before this program.
        has_refused: Whether one of them was refused.
        settled: Calls that were made for successful steps.
        reused: How many of the calls before this program it has reused, by their digest.
        checks: One report for each checked call of the turn.
        mismatch: Whether the client's history differed from the stored one.
    """

    query: str
    new_messages: tuple[BaseMessage, ...]
    system: tuple[BaseMessage, ...]
    tools: CallerTools
    shape: Json | None = None
    tool_choice: str | dict[str, str] | None = None
    is_planned: bool = True
    has_steps: bool = False
    variables: Mapping[str, Labeled] = field(default_factory=dict)
    program: str = ""
    done: tuple[str, ...] = ()
    done_events: int = 0
    context: str = ""
    stored_log: GrowingList[str | Json] = field(default_factory=GrowingList)
    waiting: WaitingCall | None = None
    attempts: tuple[Attempt, ...] = ()
    failed: tuple[FailedProgram, ...] = ()
    prompt_labels: Labels = NO_LABELS
    programs: tuple[str, ...] = ()
    failures: frozenset[int] = frozenset()
    steps: int = 0
    failed_steps: int = 0
    calls: int = 0
    calls_made: GrowingList[MadeCall] = field(default_factory=GrowingList)
    calls_before: int = 0
    has_refused: bool = False
    settled: GrowingList[MadeCall] = field(default_factory=GrowingList)
    reused: Mapping[str, int] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    mismatch: bool = False

    def copy(self) -> "OpenTurn":
        """A working copy."""
        return replace(
            self,
            stored_log=self.stored_log.copy(),
            calls_made=self.calls_made.copy(),
            settled=self.settled.copy(),
            checks=self.checks.copy(),
        )

    @property
    def text(self) -> str:
        """The program of the turn: the successful steps, and the last program."""
        return "\n".join(filter(None, [*self.done, self.program]))

    def show(self, text: Labeled) -> str:
        """Take a text, with the labels of the data in it, into the planner's prompts."""
        self.prompt_labels = self.prompt_labels.join(text.labels)
        value: str = text.value
        return value

    @property
    def events(self) -> list[Json]:
        """The log of the run."""
        return [loads(event) if isinstance(event, str) else event for event in self.stored_log]

    def keep_events(self, events: Iterable[Json]) -> None:
        """Keep further events of the log, as JSON texts: these take less memory than the data.

        A long text is not copied: the run, and perhaps a message, have it too.
        """
        for event in events:
            value = event.get("value")
            is_long = isinstance(value, str) and len(value) > _LONG
            self.stored_log.append(event if is_long else dumps(event))

    def begin_program(self) -> None:
        """Begin the next program of the turn. The effects of a failed one are dropped."""
        self.steps += 1
        self.stored_log = self.stored_log.first(self.done_events)
        self.calls, self.program = 0, ""
        self.calls_before, self.reused = len(self.calls_made), {}

    def add_calls(self, calls: Iterable[MadeCall]) -> None:
        """Add calls that were made, or refused."""
        calls = [*calls]
        self.calls_made.extend(calls)
        self.has_refused = self.has_refused or any(call.refusal for call in calls)

    def reuse_call(self, digest: str) -> MadeCall | None:
        """Find a call of the program among those of failed programs, each of which is reused once.

        The same call twice in one program is two calls.
        """
        calls = islice(self.calls_made, self.calls_before)
        # A failed call has no result; a new program may try it again.
        same = [call for call in calls if call.digest == digest and not call.failed]
        number = self.reused.get(digest, 0)
        if number >= len(same):
            return None
        self.reused = {**self.reused, digest: number + 1}
        return same[number]

    def refused_call(self, digest: str) -> MadeCall | None:
        """The call of this turn that was refused, if there is one."""
        calls = self.calls_made if self.has_refused else ()
        return next((call for call in calls if call.refusal and call.digest == digest), None)

    def settle(self) -> None:
        """Put the calls of a successful step aside: a later step that repeats one is a new call."""
        unused, reused = [], dict(self.reused)
        for index, call in enumerate(self.calls_made):
            is_own = index >= self.calls_before
            if call.failed or not (is_own or reused.get(call.digest)):
                unused.append(call)
            else:
                if not is_own:
                    reused[call.digest] -= 1
                self.settled.append(call)
        self.calls_made, self.calls_before, self.reused = GrowingList(unused), len(unused), {}


@dataclass(slots=True)
class DualState:
    """State of a session.

    Attributes:
        labels: The session's labels.
        data_labels: Labels of all results in the session, and so of all its data.
        planner_labels: Labels of all data that the planner was shown. Later prompts contain its
            programs, so whatever it writes until the end of the session has them
            (`docs/behaviour.md`, T3).
        names: The names in packed labels.
        variables: Variables of earlier turns.
        system: The system messages of the last request.
        past: Earlier turns.
        turn: The open turn.
        calls_made: Calls of the last turn, to which a client may go back.
        cache: Cached tool results.
        policies: Policies that programs added.
    """

    labels: Labels = field(default_factory=Labels)
    data_labels: Labels = NO_LABELS
    planner_labels: Labels = NO_LABELS
    names: LabelNames = field(default_factory=LabelNames)
    variables: Mapping[str, Labeled] = field(default_factory=dict)
    system: tuple[BaseMessage, ...] = ()
    past: GrowingList[PastTurn] = field(default_factory=GrowingList)
    turn: OpenTurn | None = None
    calls_made: tuple[MadeCall, ...] = ()
    cache: Mapping[str, ToolReturn] = field(default_factory=dict)
    policies: tuple[str, ...] = ()

    def copy(self) -> "DualState":
        """A working copy: a request that fails changes nothing (`docs/behaviour.md`, T2)."""
        turn = None if self.turn is None else self.turn.copy()
        return replace(self, turn=turn, names=self.names.copy(), past=self.past.copy())
