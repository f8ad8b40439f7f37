"""Rules and steps without effect in a way, because of the labels that are possible there."""

from collections.abc import Collection

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import PolicySettings
from langchain_sequrity.sqrt.compiler import Reporter, Severity
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    Clause,
    constant_effect,
    denies,
    operands_of,
)
from langchain_sequrity.sqrt.lint.possible_labels import SEPARATE, PossibleLabels
from langchain_sequrity.sqrt.lint.reachable import Truths
from langchain_sequrity.sqrt.lint.ways import is_applied
from langchain_sequrity.sqrt.matchers import Truth
from langchain_sequrity.sqrt.nodes import Position


def find_unlabelled(policy: CheckedPolicy, possible: PossibleLabels) -> set[Position]:
    """Find rules that read labels of arguments, in a way in which arguments have none.

    A denial that never applies is an error.

    Returns:
        The positions of the rules and steps with findings.
    """
    reported: set[Position] = set()
    capabilities = possible.capabilities
    for clause in policy.clauses if capabilities.without_labels else ():
        copied = [
            element for update in clause.updates for element in policy.elements(update.set)
            if isinstance(element, nodes.Meta)
        ]  # fmt: skip
        read = [
            meta for meta in (*policy.label_reads(clause).metas, *copied)
            if meta.scope in {"arg", "args"} and not possible.changes_argument(clause, meta)
        ]  # fmt: skip
        if read:
            reported.add(clause.node.condition.at if clause.node.condition else read[0].at)
            severity, effect = _without_labels(clause, possible.truths(clause))
            policy.report(
                severity, f"{capabilities.without_labels}: {effect}", min(meta.at for meta in read),
                capabilities.advice, lets_through=True,
            )  # fmt: skip
    return reported


def _without_labels(clause: Clause, truths: Truths) -> tuple[Severity, str]:
    holds = next(iter(truths)) if len(truths) == 1 else None
    if clause.rule is None:
        effect = "never made" if holds is False else "made without them"
        return "warning", f"this change is {effect}"
    rule = f"`{plain(' '.join(clause.rule.text.split()), limit=80)}`"
    if holds is None:
        return "warning", f"{rule} is decided by the rest of its condition"
    severity: Severity = "warning" if denies(clause.rule, holds=holds) else "error"
    return severity, f"{rule} {constant_effect(clause.rule, holds=holds)}"


def find_idle_branches(
    settings: PolicySettings, possible: PossibleLabels, report: Reporter
) -> None:
    """Warn of a list of labels that may not decide branches, and that no value has."""
    capabilities, labels = possible.capabilities, settings.denied_branches
    if not labels or settings.mode != "custom" or not capabilities.runs_programs:
        return
    if any(
        possible.may_restrict("values") if field == "consumers"
        else possible.may_have(field, "values", name)
        for field, name in labels
    ):  # fmt: skip
        return
    report(
        "warning", f"{capabilities.where or 'Here'} `branching_meta_policy` restricts no branch",
        Position(1, 1), "No rule and no tool sets such labels", lets_through=True,
    )  # fmt: skip


def find_inert(
    policy: CheckedPolicy, possible: PossibleLabels, reported: Collection[Position]
) -> None:
    """Find rules and steps whose condition is constant in a way, although labels could decide it.

    Args:
        policy: The policy.
        possible: The labels in the way.
        reported: The positions of conditions and labels with findings about the way.
    """
    if policy.is_read_in_part:
        return
    for clause in policy.clauses:
        condition = clause.node.condition
        if condition is None or not is_applied(clause.tool, possible.capabilities):
            continue
        positions = {condition.at, *policy.label_reads(clause).positions}
        if not positions.isdisjoint(reported):
            continue
        truths = possible.truths(clause)
        if len(truths) == 1 and len(possible.in_other_way(**SEPARATE).truths_anywhere(clause)) > 1:
            _report_inert(policy, clause, possible, condition.at, *truths)


def _report_inert(
    policy: CheckedPolicy, clause: Clause, possible: PossibleLabels, start: Position, holds: Truth
) -> None:
    capabilities = possible.capabilities
    outcome = {True: "always holds", False: "never holds", None: "is always in doubt"}[holds]
    severity: Severity = "warning"
    if clause.rule is None:
        effect = f"this change is {'never' if holds is False else 'always'} made"
    else:
        effect = f"the rule {constant_effect(clause.rule, holds=holds is not False)}"
        if clause.rule.decision == "deny" and holds is False:
            severity = "error"
    policy.report(
        severity, f"{capabilities.where or 'Here'} this condition {outcome}, so {effect}",
        start,
        _cause(policy, clause, possible), lets_through=True,
    )  # fmt: skip


def _cause(policy: CheckedPolicy, clause: Clause, possible: PossibleLabels) -> str:
    """The fact about the way that makes a condition constant."""
    if possible.returns_objects(clause) and any(
        isinstance(side, nodes.ValueRef) and side.scope == "result"
        for test, _ in policy.tests(clause)
        for side in operands_of(test)
    ):
        return "The result is an object, which no rule can search; ask for its labels"
    if possible.changes_session(clause):
        return "`session before` changes these labels before the rule is tested"
    if len(possible.in_other_way(non_executable="perhaps").truths(clause)) > 1:
        return (
            f"Each result also has the tag `{NON_EXECUTABLE}`: name the labels that matter, as in "
            "`overlaps {…}`, or set `enable_non_executable_memory` to false"
        )
    is_shared = possible.capabilities.argument_labels == "shared"
    if is_shared and len(possible.in_other_way(**SEPARATE).truths(clause)) > 1:
        return "All arguments of a call have the labels of everything that the model has read"
    return "No rule and no tool sets such labels"
