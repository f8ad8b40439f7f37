"""Differences between two policies: in their rules, and in their decisions on calls."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

from typing_extensions import override

from langchain_sequrity.display.tables import Row, Table, TableMixin, Tone
from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.sqrt.coerce import AnyTool, engine_of
from langchain_sequrity.sqrt.decisions import (
    Decision,
    check_keep,
    rules_cell,
    verdict_json,
    verdict_tone,
    verdict_word,
)
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.explanation import ExplainedRule, explained_rule, line_cell
from langchain_sequrity.sqrt.lint.checked_policy import shape_of
from langchain_sequrity.sqrt.nodes import CheckRule, PolicyItem, Position, items_of
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.trial_runs import run_trials
from langchain_sequrity.sqrt.trials import AnyTrial
from langchain_sequrity.sqrt.verdict import Presets, Reason, Verdict

_NO_TONE: tuple[Tone, ...] = ("",)


@dataclass(frozen=True, slots=True)
class ChangedCall:
    """A call that two policies decide differently.

    Attributes:
        old: The decision of the old policy.
        new: The decision of the new policy.
        changed: The differences: `verdict`, `strength`, `certainty`, `reason`, `labels`.
    """

    old: Decision
    new: Decision
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Difference(TableMixin):
    """The differences between two policies; made by `diff`.

    Attributes:
        calls: The number of calls.
        changed: The calls that the two decide differently, or the first of them.
        removed: Rules, changes of labels, priorities and names that only the old policy has.
        added: Those that only the new policy has.
        presets: Differences in the built-in policies, in words.
        is_reordered: Whether the common rules have a different order.
        omitted: The number of further calls that the two decide differently.
    """

    calls: int
    changed: tuple[ChangedCall, ...]
    removed: tuple[ExplainedRule, ...]
    added: tuple[ExplainedRule, ...]
    presets: tuple[str, ...]
    is_reordered: bool
    omitted: int = 0

    @property
    def is_none(self) -> bool:
        """Whether rules and decisions are the same."""
        rules = self.removed or self.added or self.presets or self.is_reordered
        return not self.changed and not self.omitted and not rules

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "calls": self.calls,
            "changed": [
                {
                    "number": call.new.number,
                    "id": call.new.trial.id,
                    "tool": call.new.call.tool,
                    "changed": list(call.changed),
                    "old": verdict_json(call.old.verdict),
                    "new": verdict_json(call.new.verdict),
                }
                for call in self.changed
            ],
            "removed": [rule.to_json() for rule in self.removed],
            "added": [rule.to_json() for rule in self.added],
            "presets": list(self.presets),
            "is_reordered": self.is_reordered,
            "omitted": self.omitted,
        }

    @override
    def table(self) -> Table:
        """A table with the calls in the colour of their new verdict, then the rules."""
        rows = [
            *(_call_row(call) for call in self.changed),
            *(_rule_row(rule, is_new=False) for rule in self.removed),
            *(_rule_row(rule, is_new=True) for rule in self.added),
        ]
        rules = len(self.removed) + len(self.added)
        return Table(
            f"{len(self.changed) + self.omitted} of {self.calls} calls and {rules} rules differ",
            ("What", "Old", "New", "Differs in"),
            tuple(rows),
            tuple(self._notes()),
            (*(verdict_tone(call.new.verdict) for call in self.changed), *_NO_TONE * rules),
            frozenset({"What", "Old", "New"}),
        )

    def _notes(self) -> Iterator[str]:
        if self.omitted:
            yield f"{self.omitted} more calls differ than are shown."
        yield from self.presets
        if self.is_reordered:
            yield "The rules that both policies have are in a different order."


def _call_row(call: ChangedCall) -> Row:
    name = f"call {call.new.number}: {call.new.call.tool}"
    old, new = _verdict_cells(call.old.verdict), _verdict_cells(call.new.verdict)
    return (name,), old, new, call.changed


def _verdict_cells(verdict: Verdict | None) -> tuple[str, ...]:
    suffix = "" if verdict is None or verdict.certain else ", uncertain"
    return (f"{verdict_word(verdict)}{suffix}", *rules_cell(verdict))


def _rule_row(rule: ExplainedRule, *, is_new: bool) -> Row:
    cell = (f"line {line_cell(rule.line, rule.policy)}", *rule.cell())
    name = f"{rule.kind} of {rule.tool}" if rule.tool else rule.kind
    return ((name,), () if is_new else cell, cell if is_new else (), ("only here",))


def diff(
    old: AnyPolicy,
    new: AnyPolicy,
    calls: Iterable[AnyTrial] = (),
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
    keep: int | None = None,
    jobs: int = 1,
) -> Difference:
    """Compare the rules of two policies, and their decisions on calls.

    Args:
        old: The old policy; as for `simulate`.
        new: The new policy.
        calls: As for `simulate`; each policy runs them in sessions of its own.
        session: The labels of each session before its first call.
        tools: As for `simulate`; a tool in one of the policies counts as spelt correctly.
        keep: How many calls with other decisions the result holds; all by default.
        jobs: As for `simulate`.

    Returns:
        The differences. Comments, positions, white space, and `hard` for `must` do not count. But
        a doc comment is part of the reason for a decision.

    Raises:
        UsageError: If a call is invalid or a policy is not a policy.
        PolicySyntaxError: If a text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import diff

        found = diff(
            'tool "pay" { must deny when amount.value in {int 100..}; }',
            'tool "pay" { must deny when amount.value in {int 500..}; }',
            [{"tool": "pay", "arguments": {"amount": 200}}],
        )
        assert found.changed[0].changed == ("verdict", "strength", "reason")
        assert [rule.kind for rule in found.removed] == ["must deny"]
        ```
    """
    before, after = engine_of(old), engine_of(new)
    tally = ChangeTally.of_engines(after, before, keep)
    run_trials(calls, [after, before], [tally], session=session, tools=tools, jobs=jobs)
    return difference_of(before, after, tally)


def difference_of(old: Engine, new: Engine, tally: "ChangeTally") -> Difference:
    """The differences between two policies, with the calls of a tally."""
    rules, others = _rules(old), _rules(new)
    removed, common = _partition(rules, others)
    added, other_common = _partition(others, rules)
    return Difference(
        tally.calls,
        tuple(tally.changed),
        tuple(_explained(removed, old)),
        tuple(_explained(added, new)),
        tuple(_preset_changes(old.presets, new.presets)),
        is_reordered=common != other_common,
        omitted=tally.omitted,
    )


# Calls


@dataclass(slots=True)
class ChangeTally:
    """The calls that a new and an old policy decide differently.

    Attributes:
        shapes: For each of the two, its rules with numbers that are equal for equal rules.
        keep: How many of the calls are held; `None` for all.
        calls: The number of all calls.
        changed: The first calls that differ.
        omitted: The number of other calls that differ.
    """

    shapes: "tuple[_Shapes, _Shapes]"
    keep: int | None
    calls: int = 0
    changed: list[ChangedCall] = field(default_factory=list)
    omitted: int = 0

    @classmethod
    def of_engines(cls, new: Engine, old: Engine, keep: int | None) -> Self:
        """An empty one for two policies."""
        check_keep(keep)
        numbers: dict[Hashable, int] = {}
        new_shapes, old_shapes = (
            {rule.key: numbers.setdefault(rule.shape, len(numbers)) for rule in _rules(engine)}
            for engine in (new, old)
        )
        return cls((new_shapes, old_shapes), keep)

    def add(self, decisions: Sequence[Decision]) -> None:
        """Add the decisions of the new and the old policy."""
        new, old = decisions
        self.calls += 1
        new_shapes, old_shapes = self.shapes
        if changes := _changes(old, new, old_shapes, new_shapes):
            if self.keep is None or len(self.changed) < self.keep:
                self.changed.append(ChangedCall(old, new, changes))
            else:
                self.omitted += 1

    def merge(self, other: Self) -> None:
        """Add the calls of another process."""
        self.calls += other.calls
        both = sorted([*self.changed, *other.changed], key=lambda call: call.new.number)
        self.changed = both[: self.keep]
        self.omitted += other.omitted + len(both) - len(self.changed)


def _changes(
    old: Decision, new: Decision, old_shapes: "_Shapes", new_shapes: "_Shapes"
) -> tuple[str, ...]:
    """The differences between two decisions on a call, in words."""
    before, after = old.verdict, new.verdict
    if before is None or after is None:
        return () if before is after else ("verdict",)
    is_same = before.allowed == after.allowed
    reasons = _without_places(before.reasons, old_shapes)
    labels = (old.result_labels, old.session_after)
    differences = {
        "verdict": not is_same,
        "strength": before.strength != after.strength,
        "certainty": before.certain != after.certain,
        "reason": reasons != _without_places(after.reasons, new_shapes),
        "labels": is_same and labels != (new.result_labels, new.session_after),
    }
    return tuple(aspect for aspect, differs in differences.items() if differs)


def _without_places(reasons: Iterable[Reason], shapes: "_Shapes") -> list[Hashable]:
    """Reasons without positions and spelling, which depend on the layout."""
    return [
        (
            shapes[reason.policy, reason.at] if reason.at else reason.rule,
            reason.description,
            reason.verdict,
            reason.certain,
            reason.unmet,
        )
        for reason in reasons
    ]


# Rules

_Shape = Hashable
_RuleKey = tuple[str | None, Position]
_Shapes = Mapping[_RuleKey, int]
_LAYOUT = {"at", "doc", "bare"}


class _Rule(NamedTuple):
    """An item of a policy, its key, and what is compared."""

    key: _RuleKey
    item: PolicyItem
    shape: _Shape


def _rules(engine: Engine) -> list[_Rule]:
    return [
        _Rule((part.name, item.at), item, _shape_of_item(item))
        for part in engine.parts or (engine,)
        for node in part.policy.declarations
        for item in items_of(node)
    ]


def _explained(rules: Iterable[_Rule], engine: Engine) -> Iterator[ExplainedRule]:
    for rule in rules:
        policy, _ = rule.key
        yield explained_rule(rule.item, (engine.parts and policy) or "")


def _shape_of_item(item: PolicyItem) -> _Shape:
    priority = item.one_liner and item.priority
    ignored = {*_LAYOUT, "text"} if isinstance(item.node, CheckRule) else _LAYOUT
    return item.kind, shape_of(item.tool, _LAYOUT), priority, shape_of(item.node, ignored)


def _partition(rules: list[_Rule], others: list[_Rule]) -> tuple[list[_Rule], list[_Shape]]:
    """The rules that the others lack, and the shapes of the common ones, in order."""
    unmatched = Counter(rule.shape for rule in others)
    missing, common = [], []
    for rule in rules:
        if unmatched[rule.shape]:
            unmatched[rule.shape] -= 1
            common.append(rule.shape)
        else:
            missing.append(rule)
    return missing, common


def _preset_changes(old: Presets, new: Presets) -> Iterator[str]:
    for preset in fields(Presets):
        before, after = getattr(old, preset.name), getattr(new, preset.name)
        if before != after:
            yield f"The preset `{preset.name}` was {before} and is {after}."
