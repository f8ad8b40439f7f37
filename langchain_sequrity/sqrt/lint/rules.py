"""Rules for unknown tools and arguments, and rules without effect.

A policy may read as if it protected something, and protect nothing. Each such rule is legal: a rule
in a comment, an allowance in a policy that allows everything else too, a denial that another block
overrules, a condition that is always true or always false. Conditions are evaluated on sample calls
for every kind of value that they distinguish, so the findings are facts.
"""

import bisect
import copy
import itertools
import math
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.labels import ALL, Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import (
    INTERNAL_TOOLS,
    OPEN_TOOLS,
    AnyTool,
    ToolArguments,
    arguments_of,
)
from langchain_sequrity.sqrt.compiler import CompiledCheck, CompiledStep, Operands, Reporter
from langchain_sequrity.sqrt.context import EMPTY, Argument, Call, EvaluationContext, LabelSet
from langchain_sequrity.sqrt.engine import assignment_result
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    CheckedTool,
    Clause,
    constant_effect,
    denies,
    enum_values,
    may_overlap,
    shape_of,
    value_test,
)
from langchain_sequrity.sqrt.lint.literals import as_regex
from langchain_sequrity.sqrt.matchers import MatchBudget, Matcher
from langchain_sequrity.sqrt.nodes import (
    Policy,
    Position,
    ToolId,
    elements_of,
    has_rules,
    tools_of,
)
from langchain_sequrity.suggestions import did_you_mean, suggest

_MATCHING_SECONDS = 2.0  # for all regexes of a policy that name tools
_SCOPES = ("session", "result", "args")

# Tools and arguments that do not exist


class KnownTools:
    """The tools of a policy; finds rules for unknown tools and arguments.

    Args:
        tools: The tools.
        report: Receives findings.
        service_tools: Whether calls of the service's own tools are possible.
        unlabelled: Names of tools whose results have no labels of their own.

    Attributes:
        arguments: Their arguments, by name of tool.
        matched_tools: The tools that match each block, with their arguments.
    """

    def __init__(
        self,
        tools: Iterable[AnyTool],
        report: Reporter,
        *,
        service_tools: bool = True,
        unlabelled: Collection[str] = (),
    ) -> None:
        self._report = report
        # After this time it is unknown whether a regex matches.
        self._budget = MatchBudget(_MATCHING_SECONDS)
        self.arguments = {
            name: signature._replace(may_label=False) if name in unlabelled else signature
            for name, signature in arguments_of(tools, service_tools=service_tools).items()
        }
        self.matched_tools: dict[ToolId, dict[str, ToolArguments]] = {}

    def silent(self) -> "KnownTools":
        """The same tools for another policy, whose mistakes are not reported."""
        other = copy.copy(self)
        other._report = lambda *_, **__: None  # noqa: SLF001 - of this class
        other.matched_tools = {}
        return other

    def visit(self, tool: ToolId, matches: Matcher, uses: Operands) -> None:
        """Check one rule or step of a tool."""
        if tool not in self.matched_tools:
            names = self._matching_names(tool, matches)
            self.matched_tools[tool] = {name: self.arguments[name] for name in names}
        if matching := self.matched_tools[tool]:
            for argument, usage in uses.arguments.items():
                self._check_argument(argument, usage, list(matching))

    def _matching_names(self, tool: ToolId, matches: Matcher) -> list[str]:
        """The tools that match a block; reports if none match, or none for certain."""
        text = plain(tool.text.raw, limit=80)
        if tool.text.kind == "plain":
            if tool.text.raw in self.arguments:
                return [tool.text.raw]
            if tool.text.raw in INTERNAL_TOOLS:  # `ways` reports it
                return []
            if (of_field := tool.text.raw.partition("/")[0]) in self.arguments:
                return [of_field]
            advice = suggest(tool.text.raw, self.arguments) or as_regex(tool.text.raw)
            self._report("error", f"There is no tool `{text}`", tool.at, advice)
            return []
        truths = [(name, matches(name, self._budget)) for name in self.arguments]
        names = [name for name, truth in truths if truth is not False]
        if not names and "/" in tool.text.raw:
            names = self._tools_of_fields(tool.text.raw)
        if not names:
            self._report("error", f"No tool matches `{text}`", tool.at)
        elif doubtful := [name for name, truth in truths if truth is None]:
            self._report(
                "warning", f"Whether `{text}` matches `{plain(doubtful[0], limit=80)}` is unknown",
                tool.at, "Write `^…$` around the regex, and `.*` where anything may stand",
            )  # fmt: skip
        return names

    def _tools_of_fields(self, pattern: str) -> list[str]:
        """The tools whose fields a regex names, as far as it can be read by its first part."""
        try:
            of_tool = re.compile(f"(?:{pattern.partition('/')[0]})\\Z")
        except re.error:
            return []
        return [name for name in self.arguments if of_tool.search(name)]

    def _check_argument(self, argument: str, usage: Position, tools: list[str]) -> None:
        # A tool with open arguments must not hide misspelt names in a rule for many tools.
        tools = [tool for tool in tools if tool not in OPEN_TOOLS] or tools
        signatures = [self.arguments[tool] for tool in tools]
        declared = [name for signature in signatures for name in signature.names]
        lacking = [signature for signature in signatures if signature.lack(argument)]
        tool = f"`{plain(tools[0], limit=80)}`" if len(tools) == 1 else "None of these tools"
        scope = did_you_mean(f"@{argument}") if argument in _SCOPES else ""
        advice = scope or suggest(argument, declared)
        if len(lacking) == len(tools):
            lacks = "has no" if len(tools) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", usage, advice)
        elif lacking:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", usage)
        elif advice and argument not in declared:
            declares = "does not declare the" if len(tools) == 1 else "declares the"
            self._report("warning", f"{tool} {declares} argument `{argument}`", usage, advice)


# Rules that decide nothing


def find_unreachable(policy: CheckedPolicy) -> None:
    """Warn of rules that another rule for the same tool hides."""
    tools: dict[tuple[str, str], list[tuple[CheckedTool, CompiledCheck]]] = {}
    for tool in policy.tools:
        text = tool.node.tool.text
        checks = ((tool, check) for check in tool.compiled.checks)
        tools.setdefault((text.kind, text.raw), []).extend(checks)
    for tool_checks in tools.values():
        if len(tool_checks) > 1:
            _find_hidden(policy, tool_checks)


def _find_hidden(
    policy: CheckedPolicy, checks: Sequence[tuple[CheckedTool, CompiledCheck]]
) -> None:
    shapes = [shape_of(check.node.condition, {"at", "bare"}) for _, check in checks]
    highest: dict[Hashable, dict[tuple[str, str], int]] = {}  # of each condition, by kind
    for index, (_, check) in enumerate(checks):
        rules = highest.setdefault(shapes[index], {})
        first = checks[rules.setdefault(_effect(check), index)][1]
        if check.node.strength == "soft" and check.rank > first.rank:
            rules[_effect(check)] = index
    always = highest.get(shape_of(None, ()), {})
    for index, (block, check) in enumerate(checks):
        for other_index in (*always.values(), *highest[shapes[index]].values()):
            other_block, other = checks[other_index]
            is_always, allows = other.test is None, other.node.decision == "allow"
            if is_always and allows and other_block is not block:
                continue  # `find_overruled` reports it
            if other_index != index and _shadows(other, check, is_first=other_index < index):
                reason = "always applies" if is_always else "is for the same calls"
                text, line = plain(other.node.text, limit=_LIMIT), other.node.at.line
                policy.report(
                    "warning", f"This rule decides nothing: `{text}` in line {line} {reason}",
                    check.node.at,
                    lets_through=allows and not is_always and check.node.decision == "deny",
                )  # fmt: skip
                break


def _effect(check: CompiledCheck) -> tuple[str, str]:
    return check.node.strength, check.node.decision


def _shadows(other: CompiledCheck, rule: CompiledCheck, *, is_first: bool) -> bool:
    """Whether `other`, which applies where `rule` applies, makes it ineffective."""
    is_soft, has_same_effect = rule.node.strength == "soft", _effect(other) == _effect(rule)
    if other.node.strength == "hard":
        if has_same_effect:
            return is_first or (other.test is None and rule.test is not None)
        # A `must allow` also denies, where its condition fails.
        return is_soft or (other.test is None and other.node.decision == "deny")
    if not is_soft or other.rank != rule.rank:
        return is_soft and other.rank > rule.rank
    return is_first if has_same_effect else other.node.decision == "deny"


def find_must_allow_beside_others(policy: CheckedPolicy) -> None:
    """Warn of a conditional `must allow` if another rule allows too.

    If its condition fails, it denies only calls that no other rule allows.
    """
    for tool in policy.tools:
        allowing = [check for check in tool.compiled.checks if check.node.decision == "allow"]
        for check in allowing if len(allowing) > 1 else ():
            if check.required and check.test is not None:
                policy.report(
                    "warning", "Beside another rule that allows, this rule may restrict nothing",
                    check.node.at, "Write a prohibition as `must deny when not …`",
                )  # fmt: skip


# Changes of labels without effect


def find_undone(policy: CheckedPolicy) -> None:
    """Warn of a change of labels without which the labels would be the same after its block."""
    context = EvaluationContext(Call("", {}), Labels())
    steps = [(tool, step) for tool in policy.tools for step in tool.compiled.steps]
    for phase in nodes.PHASES:
        in_phase = (tool_step for tool_step in steps if tool_step[1].phase == phase)
        for tool, run in itertools.groupby(in_phase, _tool_of_fixed):
            updates = [update for _, step in run for update in step.updates] if tool else []
            for field in nodes.FIELDS:
                changes = [
                    (update.node, update.set.names(context) or EMPTY)
                    for update in updates if update.node.target.field == field
                ]  # fmt: skip
                if changes:
                    _find_undone(policy, field, changes)


def _tool_of_fixed(tool_step: tuple[CheckedTool, CompiledStep]) -> tuple[str, str] | None:
    """The tool of a step that makes the same changes at each call; else `None`."""
    tool, step = tool_step
    text = tool.node.tool.text
    is_fixed = step.test is None and all(
        update.honoured and isinstance(update.node.set, nodes.SetLiteral) for update in step.updates
    )
    return (text.kind, text.raw) if is_fixed else None


def _find_undone(
    policy: CheckedPolicy, field: nodes.Field, changes: Sequence[tuple[nodes.Update, LabelSet]]
) -> None:
    all_names = {name for _, labels in changes for name in labels.items}
    if len(all_names) > _MOST_LABELS or len(changes) > _MOST_CHANGES:
        return
    samples = list(map(LabelSet.read, _label_subsets(field, all_names)))
    remaining = list(changes)
    for change in reversed(changes):
        others = [other for other in remaining if other is not change]
        if all(_changed(sample, remaining) == _changed(sample, others) for sample in samples):
            remaining = others
            policy.report(
                "warning", "Without this change the labels after this block would be the same",
                change[0].at, "Remove it, or a change that undoes it",
            )  # fmt: skip


def _changed(labels: LabelSet, changes: Sequence[tuple[nodes.Update, LabelSet]]) -> LabelSet:
    for update, names in changes:
        labels = assignment_result(update, labels, names)
    return labels


def find_empty(policy: Policy, report: Reporter, *, default_allow: bool) -> None:
    """Warn of a policy without rules, unless the default denies.

    A policy with bindings only is meant to be part of another one.
    """
    tools = tools_of(policy)
    has_names = not tools and policy.declarations
    if default_allow and not has_rules(policy) and not has_names:
        position = tools[0].at if tools else Position(1, 1)
        report(
            "warning", "This policy has no rules, so it allows every call", position,
            'Write one, such as `tool "name" { must deny when …; }`, or leave the policy out',
        )  # fmt: skip


_RULE = re.compile(r"\b(?:must|should|hard|soft)\s+(?:allow|deny)\s+(?:when\b[^;]*|always\s*);")
_EVERY_NAME = {"^.*$", ".*", "^.+$", ".+", r"(?s).*", r"^(?s:.*)$"}
_MOST_TRIALS = 2_000  # of one rule
_ALL_TRIALS = 40_000  # of one policy
_MOST_LABELS = 4
_MOST_CHANGES = 10
_MOST_PAIRS = 20_000  # of blocks
_OTHER = "\ue000"  # a text and a label outside of any policy
_SESSION = ""  # in place of an argument's name
_LIMIT = 60


def find_rules_in_comments(policy: CheckedPolicy) -> None:
    """Warn of a rule after `///`, which is part of a comment."""
    for node in policy.all_nodes:
        doc = getattr(node, "doc", "")
        if doc and (match := _RULE.search(doc)):
            rule = plain(" ".join(doc[match.start() :].split()), limit=_LIMIT)
            policy.report(
                "warning", f"`{rule}` is in a doc comment, so it is not a rule",
                node.at, "A comment ends with its line: write the rule in a line of its own",
                lets_through=True,
            )  # fmt: skip


# Blocks beside each other


def _covers(block: CheckedTool, other: CheckedTool) -> bool:
    """Whether a block applies to every tool of another block."""
    text, inner = block.node.tool.text, other.node.tool.text
    if (text.kind, text.raw) == (inner.kind, inner.raw) or (
        text.kind == "matching" and text.raw in _EVERY_NAME
    ):
        return True
    if block.matched_tools and other.matched_tools:
        return other.matched_tools.keys() <= block.matched_tools.keys()
    return inner.kind == "plain" and block.compiled.matches(inner.raw, MatchBudget()) is True


def find_overruled(policy: CheckedPolicy) -> None:
    """Warn of rules that an unconditional allowance in another block overrules."""
    allowing = [
        (other, check) for other in policy.tools for check in other.compiled.checks
        if check.node.decision == "allow" and check.test is None
    ]  # fmt: skip
    pairs = itertools.product(policy.tools, allowing)
    reported: set[Position] = set()
    for block, (other, allowance) in itertools.islice(pairs, _MOST_PAIRS):
        if other is block or not _covers(other, block):
            continue
        for check in block.compiled.checks:
            rule = check.node
            if rule.at not in reported and _is_overruled(check, allowance):
                reported.add(rule.at)
                overruling = allowance.node
                policy.report(
                    "warning", f"This rule restricts nothing: "
                    f"`{plain(overruling.text, limit=_LIMIT)}` in line {overruling.at.line} is for "
                    "the same calls and allows them", rule.at,
                    "Write a prohibition as `must deny when …`", lets_through=True,
                )  # fmt: skip


def _is_overruled(check: CompiledCheck, allowance: CompiledCheck) -> bool:
    """Whether a rule has no effect beside an unconditional allowance."""
    if (
        check.node.decision == "allow"
    ):  # if its condition fails, it denies only calls that no other rule allows
        return check.required and check.test is not None
    return check.node.strength == "soft" and (allowance.required or allowance.rank > check.rank)


def find_needless_allowances(policy: CheckedPolicy, reported: Sequence[Position]) -> None:
    """Warn of soft allowances if no rule denies anything that they could allow.

    Args:
        policy: The policy.
        reported: The sorted positions of earlier findings.
    """
    restricting = [block for block in policy.tools if any(map(_restricts, block.compiled.checks))]
    pairs_left = _MOST_PAIRS
    for block in policy.tools:
        soft = [
            rule for rule in (check.node for check in block.compiled.checks)
            if (rule.strength, rule.decision) == ("soft", "allow") and rule.condition is not None
            and not _is_reported(rule, reported)
        ]  # fmt: skip
        pairs_left -= len(restricting) if soft else 0
        if not soft or pairs_left < 0 or any(may_overlap(block, other) for other in restricting):
            continue
        for rule in soft:
            policy.report(
                "warning", "This rule restricts nothing: where its condition fails, the call is "
                "allowed by default", rule.at,
                "Add `should deny always;`, or write `must deny when not …`", lets_through=True,
            )  # fmt: skip


def _restricts(check: CompiledCheck) -> bool:
    """Whether a rule denies calls that a soft allowance can allow again."""
    if check.node.decision == "deny":
        return check.node.strength == "soft"
    return check.required and check.test is not None


# Conditions that no call meets, or every call


def find_constant_conditions(policy: CheckedPolicy, reported: Sequence[Position]) -> None:
    """Warn of rules whose condition always or never holds.

    Args:
        policy: The policy.
        reported: The sorted positions of earlier findings.
    """
    trials_left, work = _ALL_TRIALS, 1 + len(policy.bindings)
    for clause in policy.clauses:
        rule, test = clause.rule, clause.test
        if trials_left <= 0 or rule is None or test is None or _is_reported(rule, reported):
            continue
        samples = _SampleCalls(policy, clause)
        trials_left -= work
        if samples.is_exact and samples.number <= _MOST_TRIALS:
            trials_left -= samples.number * work
            truths = map(test, samples.contexts())
            holds = next(truths)
            if holds is not None and all(truth is holds for truth in truths):
                _report_constant(policy, rule, samples, holds=holds)


def _is_reported(rule: nodes.CheckRule, positions: Sequence[Position]) -> bool:
    """Whether one of the sorted positions is in a rule."""
    lines = rule.text.split("\n")
    start = rule.at.column if len(lines) == 1 else 1
    end = Position(rule.at.line + len(lines) - 1, start + len(lines[-1]))
    first = bisect.bisect_left(positions, rule.at)
    return first < len(positions) and positions[first] < end


def _report_constant(
    policy: CheckedPolicy, rule: nodes.CheckRule, samples: "_SampleCalls", *, holds: bool
) -> None:
    outcome = "always holds" if holds else "never holds"
    advice = ""
    if samples.enum_values:
        outcome += " for what the schema lists"
        values = ", ".join(f"`{plain(str(value), limit=40)}`" for value in samples.enum_values[:5])
        advice = f"The schema has {values}"
    elif samples.tests > 1 and holds:
        advice = 'Of `not a == "x" or not a == "y"` one always holds: write `not a in {"x", "y"}`'
    elif samples.tests > 1:
        advice = 'Nothing is "x" and "y" at once: join with `or`, or write `a.value in {"x", "y"}`'
    policy.report(
        "warning",
        f"This condition {outcome}, so the rule {constant_effect(rule, holds=holds)}",
        rule.at,
        advice,
        lets_through=not denies(rule, holds=holds),
    )


class _SampleCalls:
    """One sample call for each combination of values and labels that a condition distinguishes.

    Attributes:
        is_exact: Whether the samples cover all combinations.
        enum_values: The values that schemas list for the arguments, if any.
        tests: The number of single tests in the condition.
    """

    def __init__(self, policy: CheckedPolicy, clause: Clause) -> None:
        self.is_exact = True
        self.enum_values: list[Any] = []
        self.tests = 0
        self._bindings = policy.bindings
        self._tools = clause.tool.matched_tools or {}
        self._values: dict[str, dict[tuple[type, Any], Any]] = {}  # samples by argument
        # Names of labels by their owner and field.
        self._labels: dict[tuple[str, nodes.Field], set[str]] = {}
        sought: list[tuple[str, tuple[str, nodes.Field]]] = []  # values, and labels with them
        for test, _ in policy.tests(clause):
            self.tests += 1
            match test:
                case nodes.Equality(left=nodes.TextLiteral(), right=nodes.TextLiteral()):
                    pass
                case nodes.LabelTest(left=meta, right=members):
                    names = [] if members is None else elements_of(members, self._bindings)
                    self._add_label_test(meta, list(names))
                case nodes.Membership(value=nodes.ValueRef() as value, set=nodes.Meta() as meta):
                    self._add_value_test(test)
                    self._add_label_test(meta, [])
                    sought.append((value.argument, (meta.argument, meta.field)))
                case nodes.Membership(value=name, set=nodes.Meta() as meta):
                    # No label is a number or a truth value, whatever the labels are.
                    self._add_label_test(
                        meta, [name] if isinstance(name, nodes.TextLiteral) else []
                    )
                case _:
                    self._add_value_test(test)
        self._look_for_values(sought)

    def _add_value_test(self, test: nodes.Tests) -> None:
        comparison = value_test(test)
        if comparison is None or comparison[0].scope != "arg":
            self.is_exact = False
            return
        value, members = comparison
        samples = self._values.setdefault(value.argument, {(str, _OTHER): _OTHER})
        if values := self._enum_values(value.argument):  # patterns are tried on these, too
            self.enum_values += [value for value in values if value not in self.enum_values]
        else:
            values = [
                sample for element in elements_of(members, self._bindings)
                for sample in self._samples(element)
            ]  # fmt: skip
        samples.update(((type(value), value), value) for value in values)

    def _look_for_values(self, sought: Sequence[tuple[str, tuple[str, nodes.Field]]]) -> None:
        """Let each value that is looked for among labels be one of them, and the reverse."""
        texts = {
            text
            for argument, labels in sought
            for text in (*self._values.get(argument, {}).values(), *self._labels[labels])
            if isinstance(text, str) and text != _OTHER
        }
        for argument, labels in sought:
            self._labels[labels] |= texts
            self._values.get(argument, {}).update(((str, text), text) for text in texts)

    def _enum_values(self, name: str) -> list[Any]:
        """The values of an argument, if the schemas of all tools list them."""
        enums = [enum_values(tool.schemas.get(name, {})) for tool in self._tools.values()]
        values = [value for enum in enums for value in enum or ()]
        is_plain = None not in enums and all(isinstance(v, str | int | float) for v in values)
        return values if is_plain else []

    def _samples(self, element: object) -> Iterator[Any]:
        """Values on both sides of each bound of an element."""
        match element:
            case (
                nodes.TextLiteral(kind="plain", raw=raw)
                | nodes.TextDomain(text=nodes.TextLiteral(kind="plain", raw=raw), length=None)
            ):
                yield raw
                self.is_exact = self.is_exact and "\\" not in raw
            case nodes.Meta():
                pass  # `_look_for_values`
            case nodes.BoolDomain() | nodes.BooleanLiteral():
                yield from (True, False)
            case nodes.NumberLiteral(value=value):
                yield from _neighbours(value)
            case nodes.NumberDomain(range=bounds):
                for bound in (bounds.low, bounds.high):
                    yield from _neighbours(bound.value if bound else 0)
            case _:
                self.is_exact = False

    def _add_label_test(self, meta: nodes.Meta, elements: Sequence[object]) -> None:
        labels = self._labels.setdefault((meta.argument, meta.field), set())
        for element in elements:
            if isinstance(element, nodes.TextLiteral) and element.kind == "plain":
                labels.add(element.raw)
            else:
                self.is_exact = False
        if meta.scope not in {"session", "arg"} or len(labels) > _MOST_LABELS:
            self.is_exact = False

    @cached_property
    def _choices(self) -> dict[tuple[str, str], list[Any]]:
        """The samples of each value and of each set of labels, by argument."""
        choices: dict[tuple[str, str], list[Any]] = {}
        for name, samples in self._values.items():
            choices[name, "value"] = list(samples.values())
        for (name, field), names in self._labels.items():
            choices[name, field] = _label_subsets(field, names)
        return choices

    @property
    def number(self) -> int:
        """The number of samples."""
        return math.prod(map(len, self._choices.values()))

    def contexts(self) -> Iterator[EvaluationContext]:
        """A context for each sample."""
        owners = dict.fromkeys([_SESSION, *(owner for owner, _ in self._choices)])
        for chosen in itertools.product(*self._choices.values()):
            parts: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
            for (owner, part), sample in zip(self._choices, chosen, strict=True):
                parts[owner][part] = sample
            session = Labels(**parts.pop(_SESSION))
            arguments = {
                name: Argument(samples.pop("value", _OTHER), Labels(**samples))
                for name, samples in parts.items()
            }
            yield EvaluationContext(Call("", arguments), session)


def _neighbours(value: float) -> Iterator[int | float]:
    if math.isinf(value):
        return
    for number in (value - 1, value - 0.5, value, value + 0.5, value + 1):
        yield float(number)
        if number == int(number):
            yield int(number)


def _label_subsets(field: nodes.Field, names: set[str]) -> list[frozenset[str]]:
    """All subsets of some labels, each with and without an extra label."""
    labels = [*sorted(names - {ALL}), _OTHER]
    subsets = [
        frozenset(s) for n in range(len(labels) + 1) for s in itertools.combinations(labels, n)
    ]
    return [*subsets, frozenset({ALL})] if field == "consumers" else subsets
