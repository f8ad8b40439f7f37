"""Coverage: the rules and label changes of a policy that a set of calls exercised."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from typing_extensions import override

from langchain_sequrity.display.tables import Row, Table, Tabled, Tone
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt.coerce import AnyPolicy, AnyTool, engine_of
from langchain_sequrity.sqrt.compiler import CompiledStep
from langchain_sequrity.sqrt.context import Call, EvaluationContext
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.explanation import brief, tool_name
from langchain_sequrity.sqrt.matchers import Truth
from langchain_sequrity.sqrt.nodes import CheckRule, Phase, Policy, Position, UpdateStep, items_of
from langchain_sequrity.sqrt.simulation import Given, Simulation, check_names, read_trials, run
from langchain_sequrity.sqrt.verdict import Verdict, Vote

Status = Literal["decided", "held", "did not hold", "passed over", "never reached"]
_NO_LABELS = Labels()
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
class Coverage(Tabled):
    """The coverage of a policy by calls; made by `coverage`.

    Attributes:
        rules: All check rules and label changes in source order.
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
        verdicts = [one.verdict for one in self.simulation]
        return sum(one is not None and not any(r.at for r in one.reasons) for one in verdicts)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "share": self.share,
            "missed": len(self.missed),
            "calls": len(self.simulation),
            "by_default": self.by_default,
            "rules": [{**asdict(rule), "status": rule.status} for rule in self.rules],
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
        )

    def _notes(self) -> Iterator[str]:
        count = len(self.simulation)
        yield (
            f"{count} call{'' if count == 1 else 's'}, of which {self.by_default} decided by no "
            f"written rule and {len(self.simulation.not_reached)} not reached."
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
    cells = (str(rule.line), rule.tool, rule.kind, rule.rule, status, *map(str, counts))
    return tuple((cell,) for cell in cells)


def coverage(
    policy: AnyPolicy,
    calls: Iterable[Given],
    *,
    session: Labels = _NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
) -> Coverage:
    """Find the rules and label changes of a policy that a set of calls exercises.

    No call tests a rule that never held, so it may contain a mistake.

    Args:
        policy: As for `simulate`.
        calls: As for `simulate`.
        session: The session's labels before the first call.
        tools: As for `simulate`.

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
        found = coverage(policy, [{"tool": "pay", "arguments": {"amount": 200, "to": "eve"}}])
        assert [rule.status for rule in found.rules] == ["decided", "passed over"]
        assert found.share == 0.5
        ```
    """
    engine, trials = _CountingEngine(engine_of(policy)), read_trials(calls)
    known = check_names(trials, tools, engine)
    simulation = Simulation(tuple(run(engine, trials, session, known)))
    return Coverage(tuple(_rules(engine.policy, engine.counts)), simulation)


def _rules(policy: Policy, counts: Mapping[Position, Counter[str]]) -> Iterator[CoveredRule]:
    for one in (one for node in policy.declarations for one in items_of(node)):
        if isinstance(one.node, CheckRule | UpdateStep):
            name = tool_name(one.tool)
            yield CoveredRule(*one.at, name, one.kind, brief(one), **counts[one.at])


class _CountingEngine(Engine):
    """An engine that counts the results of its rules and steps, by their positions."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.policy, engine.tools, engine.presets)
        self.counts: defaultdict[Position, Counter[str]] = defaultdict(Counter)
        self._taken: list[Vote] = []

    @override
    def votes(self, call: Call, session: Labels) -> Iterator[Vote]:
        for vote in super().votes(call, session):
            self._taken.append(vote)
            yield vote

    @override
    def decide(self, call: Call, session: Labels) -> Verdict:
        self._taken = []
        verdict = super().decide(call, session)
        decided = {reason.at for reason in verdict.reasons}
        left = {check.reason.at for check, _ in self._rules_for(call.tool).checks}
        for vote in self._taken:
            at = vote.reason.at
            left.discard(at)
            if at is not None:  # only presets have no position
                self._count(at, vote, decided=at in decided)
        for at in filter(None, left):
            self.counts[at]["passed_over"] += 1
        return verdict

    def _count(self, at: Position, vote: Vote, *, decided: bool) -> None:
        counts = self.counts[at]
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
        for step, truth in super().steps(phase, tool, context):
            counts = self.counts[step.node.at]
            counts["not_held" if truth is False else "held"] += 1
            counts["in_doubt"] += truth is None
            yield step, truth
