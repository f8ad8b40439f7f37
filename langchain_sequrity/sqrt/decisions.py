"""The decisions of a policy on calls, as data and as tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, Self, overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.display.flow import Flow, FlowCall, flow_of_calls
from langchain_sequrity.display.tables import Cell, Row, Table, TableMixin, Tone
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.pictures import PictureMixin
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.sqrt.trials import Trial
from langchain_sequrity.sqrt.verdict import Reason, Verdict

NOT_REACHED = "not reached"
_MOST_LINES = 3
_COLUMNS = ("Call", "Verdict", "Certain", "Because of", "Why")
_CODE = frozenset({"Call", "Because of"})


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict in a word or two."""
    return NOT_REACHED if verdict is None else verdict.final_verdict.replace("_", " ")


def verdict_tone(verdict: Verdict | None) -> Tone:
    """The colour of a verdict."""
    if verdict is None:
        return "doubtful"
    return "good" if verdict.allowed else "bad"


def rules_cell(verdict: Verdict | None) -> Cell:
    """The rules that decided, with their lines."""
    return _shortened([] if verdict is None else [_rule(reason) for reason in verdict.reasons])


def verdict_json(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict as plain data; all fields are `null` for a call that is not reached."""
    names = ("allowed", "strength", "certain", "n_allowed", "n_denied")
    return {
        "verdict": "not_reached" if verdict is None else verdict.final_verdict,
        **{name: getattr(verdict, name, None) for name in names},
        "reasons": [] if verdict is None else [reason_json(reason) for reason in verdict.reasons],
    }


def reason_json(reason: Reason) -> dict[str, Any]:
    """A rule that decided, as plain data; a preset has no line and column."""
    names = ("description", "strength", "verdict", "certain", "unmet")
    policy = {} if reason.policy is None else {"policy": reason.policy}
    return {
        **policy,
        "rule": reason.rule,
        "line": reason.at and reason.at.line,
        "column": reason.at and reason.at.column,
        **{name: getattr(reason, name) for name in names},
    }


def _rule(reason: Reason) -> str:
    text = " ".join(reason.rule.split())
    unmet = "not met: " if reason.unmet else ""
    position = f"line {reason.at.line}" if reason.at else "preset"
    policy = f" of {reason.policy}" if reason.policy else ""
    return f"{unmet}{text} ({position}{policy})"


def _shortened(lines: list[str]) -> Cell:
    if (omitted := len(lines) - _MOST_LINES) > 0:
        return (*lines[:_MOST_LINES], f"and {omitted} more")
    return tuple(lines) or ("",)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of a policy on one call.

    Attributes:
        number: The call's number, from 1.
        trial: The call as it was given.
        call: The call as it was checked: arguments with the labels of the results in them.
        verdict: The verdict; `None` if the call is not reached.
        session_before: The session's labels before the call and its `session before` changes.
        session_after: The session's labels after the call, also after a denial.
        result_labels: Labels of the result; `None` without a result.
        waits_for: Ids of calls that it uses and that returned no result.
    """

    number: int
    trial: Trial
    call: Call
    verdict: Verdict | None
    session_before: Labels
    session_after: Labels
    result_labels: Labels | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the policy allows the call."""
        return self.verdict is not None and self.verdict.allowed

    @property
    def denied(self) -> bool:
        """Whether the policy denies the call; false for a call that is not reached."""
        return self.verdict is not None and not self.verdict.allowed

    @property
    def final_verdict(self) -> str:
        """The verdict in one word, such as `hard_denied`, or `not_reached`."""
        return "not_reached" if self.verdict is None else self.verdict.final_verdict

    @property
    def is_as_expected(self) -> bool:
        """Whether the verdict is the one that the call expects."""
        verdict = self.final_verdict
        return self.trial.expect in {verdict, verdict.partition("_")[2]}

    @override
    def __str__(self) -> str:
        if self.verdict is not None:
            return self.verdict.words()
        tool = plain(self.call.tool, limit=80)
        return f"The call of `{tool}` is {NOT_REACHED}: {self._waiting()}."

    def _waiting(self) -> str:
        if unjudged := getattr(self.trial, "unjudged", ""):  # of an audit log or a trace
            return str(unjudged)
        ids = ", ".join(f"`{plain(call_id, limit=80)}`" for call_id in self.waits_for)
        return f"no result of {ids}"

    def row(self) -> Row:
        """The decision as a row of the simulation's table."""
        tool, id_, verdict = self.call.tool, self.trial.id, self.verdict
        reasons = verdict.reasons if verdict else ()
        doubts = (reason.doubt for reason in reasons if reason.doubt)
        sure = f"uncertain: {next(doubts, 'the service may see this differently')}"
        if verdict is None or verdict.certain:
            sure = "certain" if verdict else ""
        return (
            (str(self.number),),
            (f"{tool} ({id_})" if id_ else tool,),
            (verdict_word(verdict),),
            (sure,),
            rules_cell(verdict) if verdict else (self._waiting(),),
            _shortened([*dict.fromkeys(r.description for r in reasons if r.description)]),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the values of arguments and results."""
        session = {"session": self.trial.session} if self.trial.session else {}
        remarks = {"remarks": [*self.remarks]} if self.remarks else {}
        return {
            "number": self.number,
            **session,
            **remarks,
            "id": self.trial.id,
            "tool": self.call.tool,
            "labels": {name: a.labels.to_wire() for name, a in self.call.arguments.items()},
            **verdict_json(self.verdict),
            "waits_for": list(self.waits_for),
            "session_before": self.session_before.to_wire(),
            "session_after": self.session_after.to_wire(),
            "result_labels": None if self.result_labels is None else self.result_labels.to_wire(),
        }

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is assumed about a call of a trace, in words."""
        remarks: tuple[str, ...] = getattr(self.trial, "remarks", ())
        return remarks

    def result_json(self) -> dict[str, Any]:
        """The same with the expectation, and whether it is met."""
        return {**self.to_json(), "expected": self.trial.expect, "met": self.is_as_expected}


@dataclass(frozen=True, slots=True)
class DecisionGroup:
    """Calls of one tool with the same verdict, from the same rules.

    Calls whose expectation is not met are groups of their own, for each expectation.

    Attributes:
        calls: The number of calls.
        first: The decision on the first of them.
    """

    calls: int
    first: Decision

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"calls": self.calls, "first": self.first.result_json()}


def _group_of(decision: Decision) -> tuple[Any, ...]:
    """What decisions of one group have in common, and the expectation, also if it is met."""
    tool, expected, verdict = decision.call.tool, decision.trial.expect, decision.verdict
    if verdict is None:
        return tool, expected, decision.remarks
    rules = [(r.policy, r.at, r.rule, r.unmet, r.certain) for r in verdict.reasons]
    strength = verdict.strength, verdict.certain
    return tool, expected, decision.remarks, verdict.allowed, *strength, *rules


@dataclass(frozen=True, slots=True, repr=False)
class Simulation(Sequence[Decision], TableMixin, PictureMixin):
    """The decisions of a policy on calls; made by `simulate`.

    Print it, show it in a notebook, save its picture, or read it as data.

    Attributes:
        decisions: One for each call, or for the first calls; the simulation itself is a sequence
            of them.
        groups: If `decisions` are not all: the numbers of calls, each with the first call. They
            are about all calls.
        is_turn: Whether the calls are those of one turn, which a denial ends.
    """

    is_turn: ClassVar[bool] = False

    decisions: tuple[Decision, ...]
    groups: tuple[DecisionGroup, ...] = ()

    @property
    def failure(self) -> tuple[str, str]:
        """Why a turn has no value, as a code and a sentence; empty for calls that are no turn."""
        return "", ""

    @property
    def counts(self) -> Counter[str]:
        """The numbers of all calls that are `allowed`, `denied` and `not reached`."""
        counts = Counter({"allowed": 0, "denied": 0})
        for group in self.grouped():
            verdict = group.first.final_verdict
            counts[verdict.rpartition("_")[2] if group.first.verdict else NOT_REACHED] += (
                group.calls
            )
        return counts

    def grouped(self) -> Iterable[DecisionGroup]:
        """All calls in groups; a group for each, if all are in `decisions`."""
        return self.groups or (DecisionGroup(1, decision) for decision in self.decisions)

    @property
    def allowed(self) -> tuple[Decision, ...]:
        """The calls in `decisions` that are allowed."""
        return tuple(decision for decision in self if decision.allowed)

    @property
    def denied(self) -> tuple[Decision, ...]:
        """The calls in `decisions` that are denied."""
        return tuple(decision for decision in self if decision.denied)

    @property
    def not_reached(self) -> tuple[Decision, ...]:
        """The calls in `decisions` that use the result of a call that returned none."""
        return tuple(decision for decision in self if decision.verdict is None)

    @property
    def unmet(self) -> tuple[DecisionGroup, ...]:
        """The calls whose verdict is not the expected one, in groups."""
        return tuple(group for group in self.grouped() if not group.first.is_as_expected)

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> "Simulation": ...

    @override
    def __getitem__(self, index: int | slice) -> "Decision | Simulation":
        selected = self.decisions[index]
        return selected if isinstance(selected, Decision) else Simulation(selected)

    @override
    def __len__(self) -> int:
        return len(self.decisions)

    def to_json(self) -> list[dict[str, Any]]:
        """The decisions as plain data, ready for JSON; equal for equal calls and policies."""
        return [decision.to_json() for decision in self]

    @override
    def table(self) -> Table:
        """A table with denied calls in red and allowed calls in green, also named in words."""
        if self.groups:
            rows = tuple(((f"{group.calls:,}",), *group.first.row()) for group in self.groups)
            columns: tuple[str, ...] = ("Calls", "First", *_COLUMNS)
        else:
            rows = tuple(decision.row() for decision in self)
            columns = ("#", *_COLUMNS)
        tones = tuple(verdict_tone(group.first.verdict) for group in self.grouped())
        return Table(self._title(), columns, rows, tuple(self._notes()), tones, _CODE)

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call, by the labels of arguments."""
        return (flow_of_calls(self._title(), self._flow_calls()),)

    def _flow_calls(self) -> Iterator[FlowCall]:
        return map(_flow_call, self.grouped())

    def _notes(self) -> Iterator[str]:
        calls: Counter[str] = Counter()
        for group in self.grouped():
            calls.update(dict.fromkeys(group.first.remarks, group.calls))
        for remark, number in calls.items():
            yield f"Of {number:,} call{'' if number == 1 else 's'}: {remark}."

    def _title(self) -> str:
        counts = self.counts
        counted = ", ".join(f"{number} {word}" for word, number in counts.items())
        return f"{counts.total()} call{'' if counts.total() == 1 else 's'}: {counted}"


def _flow_call(group: DecisionGroup) -> FlowCall:
    call, verdict = group.first.call, group.first.verdict
    reason = verdict.reasons[0] if verdict and verdict.reasons else None
    policy = f"{reason.policy}: " if reason and reason.policy else ""
    unmet = "not met: " if reason and reason.unmet else ""
    return FlowCall(
        call.tool,
        verdict_word(verdict),
        verdict_tone(verdict),
        {name: argument.labels.to_wire() for name, argument in call.arguments.items()},
        f"{policy}{unmet}{reason.rule}" if reason else "",
        reason.at.line if reason and reason.at else None,
        result=None if group.first.result_labels is None else group.first.result_labels.to_wire(),
        calls=group.calls,
    )


def check_keep(keep: int | None) -> None:
    """Check the number of decisions that a result holds.

    Raises:
        UsageError: If it is not a number.
    """
    if keep is not None and (not isinstance(keep, int) or keep < 0):
        msg = f"`keep` must be a number of decisions from 0, or `None` for all; got {keep!r}."
        raise UsageError(msg)


@dataclass(slots=True)
class SimulationTally:
    """Decisions on calls, and their numbers.

    Attributes:
        keep: How many decisions are held; `None` for all.
        decisions: The first ones.
        calls: The numbers of calls by group, if not all decisions may be held.
        examples: The first decision of each group.
    """

    keep: int | None
    decisions: list[Decision] = field(default_factory=list)
    calls: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    examples: dict[tuple[Any, ...], Decision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the number of decisions."""
        check_keep(self.keep)

    def add(self, decisions: Sequence[Decision]) -> None:
        """Add the decision of the first policy."""
        decision = decisions[0]
        if self.keep is None or len(self.decisions) < self.keep:
            self.decisions.append(decision)
        if self.keep is not None:
            group = _group_of(decision)
            self.calls[group] += 1
            if group not in self.examples:
                self.examples[group] = decision

    def merge(self, other: Self) -> None:
        """Add the decisions of another process."""
        both = sorted([*self.decisions, *other.decisions], key=_NUMBER)
        self.decisions = both[: self.keep]
        self.calls.update(other.calls)
        for group, decision in other.examples.items():
            self.examples[group] = min(self.examples.get(group, decision), decision, key=_NUMBER)

    def simulation(self) -> Simulation:
        """The result."""
        decisions = tuple(self.decisions)
        if self.calls.total() <= len(decisions):
            return Simulation(decisions)
        groups: dict[tuple[Any, ...], DecisionGroup] = {}
        for parts, decision in sorted(self.examples.items(), key=lambda item: _NUMBER(item[1])):
            tool, _, *others = parts
            group = (tool, *others) if decision.is_as_expected else parts
            calls = self.calls[parts] + (groups[group].calls if group in groups else 0)
            first = groups[group].first if group in groups else decision
            groups[group] = DecisionGroup(calls, first)
        return Simulation(decisions, tuple(groups.values()))


_NUMBER = attrgetter("number")
