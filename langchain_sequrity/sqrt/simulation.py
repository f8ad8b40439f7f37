"""Calls of tools tried on a policy, without any tool, model or server.

Decisions and labels are those of the local server for the same calls in one session
(`docs/behaviour.md`, M5 and V1 to V3), without blockers and classifiers. Coverage is the rules and
label changes of a policy that the calls exercised.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from typing_extensions import override

from langchain_sequrity.display.flow import Flow
from langchain_sequrity.display.tables import Row, Table, TableMixin, Tone
from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.pictures import PictureMixin
from langchain_sequrity.sqrt.coerce import AnyTool, engine_of
from langchain_sequrity.sqrt.compiler import CompiledStep
from langchain_sequrity.sqrt.context import Call, EvaluationContext
from langchain_sequrity.sqrt.decisions import NOT_REACHED, Decision, Simulation, SimulationTally
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.explanation import json_fields, line_cell, short_text, tool_name
from langchain_sequrity.sqrt.matchers import Truth
from langchain_sequrity.sqrt.nodes import CheckRule, Phase, Position, UpdateStep, items_of
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.trial_runs import run_trials
from langchain_sequrity.sqrt.trials import AnyTrial
from langchain_sequrity.sqrt.verdict import Verdict, Vote


def simulate(
    policy: AnyPolicy,
    calls: Iterable[AnyTrial],
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
    keep: int | None = None,
    jobs: int = 1,
) -> Simulation:
    """Try a policy on calls, in order.

    The session's labels pass from call to call as on the server. A denied call keeps the changes of
    `session before` and returns no result. A call that uses its result is not reached and changes
    nothing.

    Args:
        policy: Text or a parsed policy, with the service's default presets; a `PolicyHeader`, with
            its own presets and as in a dual-LLM session; an engine, as
            `header.compile(dual_llm=False)`; or a list of policies, which are combined.
        calls: Each a `Trial`, a mapping with the same keys, a line of JSON as bytes, or a `Call`,
            whose labels are final. A binary file of such lines is accepted too.
        session: The labels of each session before its first call.
        tools: All tools, as for `check`. Without them any tool can be called, except one without
            rules whose name is one slip away from a tool in the policy. Defaults of their schemas
            fill omitted arguments.
        keep: How many decisions, of the first calls, the result holds; all by default. Of other
            calls it has only the numbers, so that memory does not grow with the calls.
        jobs: How many processes try the calls, each some of the sessions. The result is the same.
            With more than one, calls and tools must be picklable, and a script needs
            `if __name__ == "__main__":`.

    Returns:
        A decision for each call.

    Raises:
        UsageError: If `policy` is not a policy, or a call is invalid: its tool or an argument is
            unknown or misspelt, for example.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import simulate

        policy = '''
            tool "read_mail" -> @tags |= {"untrusted"};
            tool "pay" {
                /// mails do not move money
                must deny when amount.tags overlaps {"untrusted"};
            }
        '''
        read, pay = simulate(
            policy,
            [
                {"tool": "read_mail", "id": "mail"},
                {"tool": "pay", "arguments": {"amount": 5}, "uses": {"amount": ["mail"]}},
            ],
        )
        assert read.allowed
        assert pay.verdict.final_verdict == "hard_denied"
        assert pay.verdict.reasons[0].description == "mails do not move money"
        ```
    """
    tally = SimulationTally(keep)
    run_trials(calls, [engine_of(policy)], [tally], session=session, tools=tools, jobs=jobs)
    return tally.simulation()


# Coverage

Status = Literal["decided", "held", "did not hold", "passed over", "never reached"]
_EXERCISED = {"decided", "held"}
_TONES: dict[str, Tone] = {
    "decided": "good", "held": "good", "did not hold": "doubtful", "passed over": "bad",
    "never reached": "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CoveredRule:
    """A check rule or a label change, and how often calls exercised it.

    Attributes:
        line: Its line, from 1.
        column: Its column, from 1.
        tool: The id of its tool, or its regex as written.
        kind: `must deny`, `should allow`, …, `result`, `session before` or `session after`.
        rule: A check rule as written, or a change in words.
        decided: Calls whose verdict it decided.
        held: Calls for which it held, but another rule decided. A change that ran has held.
        not_held: Calls for which it was evaluated and did not hold, or was an allowance in doubt.
        passed_over: Calls for which it was not evaluated, because an earlier denial had decided.
        in_doubt: The calls of `decided` and `held` for which it is unknown whether it holds.
        policy: The name of its policy if there are several, else an empty text. `decided` is then
            about the verdict of that policy.
    """

    line: int
    column: int
    tool: str
    kind: str
    rule: str
    decided: int = 0
    held: int = 0
    not_held: int = 0
    passed_over: int = 0
    in_doubt: int = 0
    policy: str = ""

    @property
    def status(self) -> Status:
        """Its best result over all calls."""
        if self.decided:
            return "decided"
        if self.held:
            return "held"
        if self.not_held:
            return "did not hold"
        return "passed over" if self.passed_over else "never reached"

    @property
    def is_missed(self) -> bool:
        """Whether no call exercised it."""
        return self.status not in _EXERCISED


@dataclass(frozen=True, slots=True, repr=False)
class Coverage(TableMixin, PictureMixin):
    """The coverage of a policy by calls; made by `coverage`.

    Attributes:
        rules: All check rules and label changes in source order; for several policies, those of
            each.
        simulation: The decisions on the calls.
    """

    rules: tuple[CoveredRule, ...]
    simulation: Simulation

    @property
    def missed(self) -> tuple[CoveredRule, ...]:
        """Rules and changes that held for no call."""
        return tuple(rule for rule in self.rules if rule.is_missed)

    @property
    def share(self) -> float:
        """The share of rules that held for some call, from 0 to 1; 1 for a policy without rules."""
        return 1 - len(self.missed) / len(self.rules) if self.rules else 1.0

    @property
    def by_default(self) -> int:
        """Calls that no written rule decided."""
        return sum(
            group.calls
            for group in self.simulation.grouped()
            if group.first.verdict and not any(r.at for r in group.first.verdict.reasons)
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "share": self.share,
            "missed": len(self.missed),
            "calls": self.simulation.counts.total(),
            "by_default": self.by_default,
            "rules": [
                {**asdict(rule, dict_factory=json_fields), "status": rule.status}
                for rule in self.rules
            ],
        }

    @override
    def table(self) -> Table:
        """A table with a row for each rule, rules that held in green."""
        total, reached = len(self.rules), len(self.rules) - len(self.missed)
        return Table(
            f"{reached} of {total} rules and label changes held for some call ({self.share:.0%})",
            ("Line", "Tool", "Kind", "Rule", "Status", "Decided", "Held", "Did not", "Passed over"),
            tuple(map(_row, self.rules)),
            tuple(self._notes()),
            tuple(_TONES[rule.status] for rule in self.rules),
            frozenset({"Tool", "Rule"}),
        )

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call of the simulation."""
        return self.simulation.flows()

    def _notes(self) -> Iterator[str]:
        counts = self.simulation.counts
        total = counts.total()
        yield (
            f"{total} call{'' if total == 1 else 's'}, of which {self.by_default} decided by no "
            f"written rule and {counts[NOT_REACHED]} not reached."
        )
        if any(rule.passed_over for rule in self.rules):
            yield (
                "Passed over: an earlier `must deny` had decided (`fail_fast`), so the rule was "
                "not evaluated."
            )


def _row(rule: CoveredRule) -> Row:
    status: str = rule.status
    if rule.in_doubt == rule.decided + rule.held > 0:
        status = f"{status}, each time in doubt"
    counts = (rule.decided, rule.held, rule.not_held, rule.passed_over)
    cells = (
        line_cell(rule.line, rule.policy),
        rule.tool,
        rule.kind,
        rule.rule,
        status,
        *map(str, counts),
    )
    return tuple((cell,) for cell in cells)


def coverage(
    policy: AnyPolicy,
    calls: Iterable[AnyTrial],
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
    keep: int | None = None,
    jobs: int = 1,
) -> Coverage:
    """Find the rules and label changes of a policy that a set of calls exercises.

    No call tests a rule that never held, so it may contain a mistake.

    Args:
        policy: As for `simulate`.
        calls: As for `simulate`.
        session: The labels of each session before its first call.
        tools: As for `simulate`.
        keep: As for `simulate`.
        jobs: As for `simulate`.

    Returns:
        The counts, and the simulation behind them.

    Raises:
        UsageError: If a call is invalid or `policy` is not a policy.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import coverage

        policy = '''
            tool "pay" {
                must deny when amount.value in {int 100..};
                must deny when to.value == "eve";
            }
        '''
        covered = coverage(policy, [{"tool": "pay", "arguments": {"amount": 200, "to": "eve"}}])
        assert [rule.status for rule in covered.rules] == ["decided", "passed over"]
        assert covered.share == 0.5
        ```
    """
    tally, counts = SimulationTally(keep), RuleCounts()
    engine = CountingEngine(engine_of(policy), counts)
    run_trials(calls, [engine], [tally, counts], session=session, tools=tools, jobs=jobs)
    return Coverage(tuple(engine.covered_rules()), tally.simulation())


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """The results of rules and label changes; the engine counts them.

    Attributes:
        rules: Counters by policy and position.
    """

    rules: defaultdict[tuple[str | None, Position], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def add(self, _: Sequence[Decision]) -> None:
        """Do nothing: the engine has counted."""

    def merge(self, other: "RuleCounts") -> None:
        """Add the counts of another process."""
        for rule, counts in other.rules.items():
            self.rules[rule].update(counts)


class CountingEngine(Engine):
    """An engine that counts the results of its rules and steps.

    Args:
        engine: The engine.
        counts: The counts.
    """

    def __init__(self, engine: Engine, counts: RuleCounts) -> None:
        super().__init__(
            engine.policy,
            engine.tools,
            engine.presets,
            engine.name,
            tuple(CountingEngine(part, counts) for part in engine.parts),
        )
        self._without_counts = engine
        self._counts = counts
        self._votes_cast: list[Vote] = []

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return CountingEngine, (self._without_counts, self._counts)

    def covered_rules(self, policy: str = "") -> Iterator[CoveredRule]:
        """The rules and label changes, with their counts; for combined policies, those of each."""
        for part in cast("tuple[CountingEngine, ...]", self.parts):
            yield from part.covered_rules(part.name or "")
        declarations = () if self.parts else self.policy.declarations
        for item in (item for node in declarations for item in items_of(node)):
            if isinstance(item.node, CheckRule | UpdateStep):
                texts = tool_name(item.tool), item.kind, short_text(item)
                counts: Mapping[str, Any] = self._counts.rules[self.name, item.at]
                yield CoveredRule(*item.at, *texts, **counts, policy=policy)

    @override
    def votes(self, call: Call, session: Labels) -> Iterator[Vote]:
        for vote in super().votes(call, session):
            self._votes_cast.append(vote)
            yield vote

    @override
    def decide(self, call: Call, session: Labels) -> Verdict:
        self._votes_cast = []
        verdict = super().decide(call, session)
        if self.parts:
            return verdict
        decided = {reason.at for reason in verdict.reasons}
        unevaluated = {check.reason.at for check, _ in self._rules_for(call.tool).checks}
        for vote in self._votes_cast:
            position = vote.reason.at
            unevaluated.discard(position)
            if position is not None:  # only presets have no position
                self._count(position, vote, decided=position in decided)
        for position in filter(None, unevaluated):
            self._counts.rules[self.name, position]["passed_over"] += 1
        return verdict

    def _count(self, position: Position, vote: Vote, *, decided: bool) -> None:
        counts = self._counts.rules[self.name, position]
        # A rule in doubt denies and never allows (V2).
        holds = vote.holds if vote.reason.verdict == "allow" else vote.holds is not False
        in_doubt = vote.holds is None or vote.fails is None
        counts["decided"] += decided
        counts["held"] += bool(holds) and not decided
        counts["not_held"] += not holds and not decided
        counts["in_doubt"] += in_doubt and (decided or bool(holds))

    @override
    def steps(
        self, phase: Phase, tool: str, context: EvaluationContext
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        return self._counted(super().steps(phase, tool, context))

    @override
    def field_steps(
        self, tool: str, path: str, context: EvaluationContext
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        return self._counted(super().field_steps(tool, path, context))

    def _counted(
        self, steps: Iterator[tuple[CompiledStep, Truth]]
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        for step, truth in steps:
            if not self.parts:  # they have counted
                counts = self._counts.rules[self.name, step.node.at]
                counts["not_held" if truth is False else "held"] += 1
                counts["in_doubt"] += truth is None
            yield step, truth
