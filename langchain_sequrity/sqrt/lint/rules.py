"""Rules for unknown tools and arguments, and rules without effect.

A policy may read as if it protected something, and protect nothing. Each such rule is legal: a rule
in a comment, an allowance in a policy that allows everything else too, a denial that another block
overrules, a condition that is always true or always false. Conditions are evaluated on sample calls
for every kind of value that they distinguish, so the findings are facts.
"""

import bisect
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.labels import ALL, Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import OPEN_TOOLS, AnyTool, Arguments, arguments_of
from langchain_sequrity.sqrt.compiler import CompiledCheck, CompiledTool, Reporter, Uses
from langchain_sequrity.sqrt.context import Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.lint.labels import find_labels_as_values
from langchain_sequrity.sqrt.lint.literals import FoundTools, as_regex, find_odd_texts, sides_of
from langchain_sequrity.sqrt.matchers import MatchBudget, Matcher
from langchain_sequrity.sqrt.nodes import (
    Policy,
    Position,
    ToolId,
    bindings_of,
    clauses_of,
    elements_of,
    tests_of,
    tools_of,
)
from langchain_sequrity.suggestions import meant, nearest

_MATCHING_SECONDS = 2.0  # for all regexes of a policy that name tools
_SCOPES = ("session", "result", "args")

# Tools and arguments that do not exist


class KnownTools:
    """The tools of a policy; finds rules for unknown tools and arguments."""

    def __init__(self, tools: Iterable[AnyTool], report: Reporter) -> None:
        self._report = report
        # After this time it is unknown whether a regex matches.
        self._budget = MatchBudget(_MATCHING_SECONDS)
        self._arguments = arguments_of(tools)
        self._found: dict[ToolId, list[str]] = {}

    @property
    def names(self) -> Collection[str]:
        """Their names."""
        return self._arguments.keys()

    def found(self, tool: ToolId) -> Mapping[str, Arguments]:
        """The tools that match a block, with their arguments."""
        return {name: self._arguments[name] for name in self._found.get(tool, ())}

    def visit(self, tool: ToolId, matches: Matcher, uses: Uses) -> None:
        """Check one rule or step of a tool."""
        if tool not in self._found:
            self._found[tool] = self._named(tool, matches)
        if found := self._found[tool]:
            for argument, at in uses.arguments.items():
                self._argument(argument, at, found)

    def _named(self, tool: ToolId, matches: Matcher) -> list[str]:
        """The tools that match a block; reports if none match, or none for certain."""
        shown = plain(tool.text.raw, limit=80)
        if tool.text.kind == "plain":
            if tool.text.raw in self._arguments:
                return [tool.text.raw]
            advice = nearest(tool.text.raw, self._arguments) or as_regex(tool.text.raw)
            self._report("error", f"There is no tool `{shown}`", tool.at, advice)
            return []
        matched = [(name, matches(name, self._budget)) for name in self._arguments]
        found = [name for name, truth in matched if truth is not False]
        if not found:
            self._report("error", f"No tool matches `{shown}`", tool.at)
        elif doubtful := [name for name, truth in matched if truth is None]:
            self._report(
                "warning", f"Whether `{shown}` matches `{plain(doubtful[0], limit=80)}` is unknown",
                tool.at, "Write `^…$` around the regex, and `.*` where anything may stand",
            )  # fmt: skip
        return found

    def _argument(self, argument: str, at: Position, found: list[str]) -> None:
        # A tool with open arguments must not hide misspelt names in a rule for many tools.
        found = [tool for tool in found if tool not in OPEN_TOOLS] or found
        known = [self._arguments[tool] for tool in found]
        declared = [name for one in known for name in one.names]
        lacking = [one for one in known if one.lack(argument)]
        tool = f"`{plain(found[0], limit=80)}`" if len(found) == 1 else "None of these tools"
        scope = meant(f"@{argument}") if argument in _SCOPES else ""
        advice = scope or nearest(argument, declared)
        if len(lacking) == len(found):
            lacks = "has no" if len(found) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", at, advice)
        elif lacking:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", at)
        elif advice and argument not in declared:
            declares = "does not declare the" if len(found) == 1 else "declares the"
            self._report("warning", f"{tool} {declares} argument `{argument}`", at, advice)


# Rules that decide nothing


def find_unreachable(checks: Sequence[nodes.CheckRule], report: Reporter) -> None:
    """Warn of rules that an unconditional rule of the same block hides."""
    always: dict[tuple[str, str], tuple[int, nodes.CheckRule]] = {}
    for number, rule in enumerate(checks):
        if rule.condition is None:
            always.setdefault((rule.strength, rule.decision), (number, rule))
    for number, rule in enumerate(checks):
        for place, other in always.values():
            if place != number and _hides(other, rule, is_first=place < number):
                report(
                    "warning",
                    f"This rule decides nothing: `{plain(other.text, limit=60)}` in line "
                    f"{other.at.line} always applies",
                    rule.at,
                )
                break


def _hides(other: nodes.CheckRule, rule: nodes.CheckRule, *, is_first: bool) -> bool:
    """Whether `other`, which always applies, makes `rule` in the same block ineffective."""
    alike = other.strength == rule.strength and other.decision == rule.decision
    if other.strength == "hard":
        if rule.condition is None and alike:
            return is_first
        return other.decision == "deny" or rule.strength == "soft" or alike
    if rule.strength == "hard" or rule.condition is not None:
        return False
    return is_first if alike else other.decision == "deny"


def find_mixed(checks: Sequence[nodes.CheckRule], report: Reporter) -> None:
    """Warn of `must allow` beside other allowances: unmet, it denies only if no other allows."""
    others = [rule for rule in checks if rule.decision == "allow"]
    for rule in others:
        if rule.strength == "hard" and rule.condition is not None and len(others) > 1:
            report(
                "warning", "Beside another rule that allows, this rule may restrict nothing",
                rule.at, "Write a prohibition as `must deny when not …`",
            )  # fmt: skip


def find_empty(policy: Policy, report: Reporter, *, default_allow: bool) -> None:
    """Warn of a policy without rules, unless the default denies.

    A policy with bindings only is meant to be part of another one.
    """
    tools = tools_of(policy)
    has_rules = any(
        isinstance(node, nodes.OneLiner) or node.checks or node.blocks for node in tools
    )
    has_names = not tools and policy.declarations
    if default_allow and not has_rules and not has_names:
        at = tools[0].at if tools else Position(1, 1)
        report(
            "warning", "This policy has no rules, so it allows every call", at,
            'Write one, as `tool "name" { must deny when …; }`, or leave the policy out',
        )  # fmt: skip


_RULE = re.compile(r"\b(?:must|should|hard|soft)\s+(?:allow|deny)\s+(?:when\b[^;]*|always\s*);")
_EVERY_NAME = {"^.*$", ".*", "^.+$", ".+", r"(?s).*", r"^(?s:.*)$"}
_MOST_TRIALS = 2_000  # of one rule
_ALL_TRIALS = 40_000  # of one policy
_MOST_LABELS = 4
_MOST_PAIRS = 20_000  # of blocks
_OTHER = "\ue000"  # a text and a label outside of any policy
_SHOWN = 60


def find_ineffective(
    policy: Policy,
    tools: Sequence[CompiledTool],
    found: FoundTools,
    reported: Iterable[Position],
    report: Reporter,
    *,
    default_allow: bool,
) -> None:
    """Warn of rules that let calls through which they seem to deny.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        found: Gives the tools that match a block.
        reported: The positions of earlier findings.
        report: Receives findings.
        default_allow: Whether a call that no rule decides is known to be allowed.
    """
    _find_rules_in_comments(policy, report)
    reported = list(reported)
    find_odd_texts(policy, reported, report)
    find_labels_as_values(policy, report)
    blocks = list(_blocks(policy, tools, found))
    _find_overruled(blocks, report)
    if default_allow:
        _find_lone_allowances(blocks, sorted(reported), report)
    _find_constant_conditions(blocks, bindings_of(policy), reported, report)


class _RuleBlock(NamedTuple):
    """A block of rules.

    Attributes:
        node: The block as a node.
        tool: The compiled block.
        known: The tools that match it, with their arguments; `None` if the tools are not known.
    """

    node: nodes.ToolBlock
    tool: CompiledTool
    known: Mapping[str, Arguments] | None

    @property
    def rules(self) -> Iterator[tuple[nodes.CheckRule, CompiledCheck]]:
        return zip(self.node.checks, self.tool.checks, strict=True)


def _blocks(
    policy: Policy, tools: Sequence[CompiledTool], found: FoundTools
) -> Iterator[_RuleBlock]:
    for node, tool in zip(tools_of(policy), tools, strict=True):
        if isinstance(node, nodes.ToolBlock):
            yield _RuleBlock(node, tool, found(node.tool))


# Rules in comments


def _find_rules_in_comments(policy: Policy, report: Reporter) -> None:
    """Warn of a rule after `///`, which is part of a comment."""
    for doc, at in _docs(policy):
        if match := _RULE.search(doc):
            rule = plain(" ".join(doc[match.start() :].split()), limit=_SHOWN)
            report(
                "warning", f"`{rule}` is in a doc comment, so it is not a rule",
                at, "A comment ends with its line: write the rule in a line of its own",
                lets_through=True,
            )  # fmt: skip


def _docs(policy: Policy) -> Iterator[tuple[str, Position]]:
    """Doc comments, each with the position of its item."""
    for node in policy.declarations:
        if not isinstance(node, nodes.OneLiner):
            yield node.doc, node.at
        if isinstance(node, nodes.ToolBlock):
            for rule in node.checks:
                yield rule.doc, rule.at
            for block in node.blocks:
                yield block.doc, block.at
        for clause in (
            clauses_of(node) if isinstance(node, nodes.ToolBlock | nodes.OneLiner) else ()
        ):
            if clause.step:
                yield clause.step.doc, clause.step.at


# Blocks beside each other


def _covers(block: _RuleBlock, other: _RuleBlock) -> bool:
    """Whether a block applies to every tool of another block."""
    one, two = block.node.tool.text, other.node.tool.text
    if (one.kind, one.raw) == (two.kind, two.raw) or (
        one.kind == "matching" and one.raw in _EVERY_NAME
    ):
        return True
    if block.known and other.known:
        return other.known.keys() <= block.known.keys()
    return two.kind == "plain" and block.tool.matches(two.raw, MatchBudget()) is True


def _may_meet(block: _RuleBlock, other: _RuleBlock) -> bool:
    """Whether two blocks may apply to the same tool."""
    if block.known is not None and other.known is not None:
        return not block.known.keys().isdisjoint(other.known)
    for one, two in ((block, other), (other, block)):
        if two.node.tool.text.kind == "plain":
            return one.tool.matches(two.node.tool.text.raw, MatchBudget()) is not False
    return True  # two regexes are not compared


def _find_overruled(blocks: Sequence[_RuleBlock], report: Reporter) -> None:
    """Warn of rules that an unconditional allowance in another block overrules."""
    allowing = [
        (other, rule, compiled) for other in blocks for rule, compiled in other.rules
        if rule.decision == "allow" and rule.condition is None
    ]  # fmt: skip
    pairs = itertools.product(blocks, allowing)
    reported: set[Position] = set()
    for block, (other, allowance, by) in itertools.islice(pairs, _MOST_PAIRS):
        if other is block or not _covers(other, block):
            continue
        for rule, compiled in block.rules:
            if rule.at not in reported and _is_overruled(rule, compiled, by):
                reported.add(rule.at)
                report(
                    "warning", f"This rule restricts nothing: "
                    f"`{plain(allowance.text, limit=_SHOWN)}` in line {allowance.at.line} is for "
                    "the same calls and allows them", rule.at,
                    "Write a prohibition as `must deny when …`", lets_through=True,
                )  # fmt: skip


def _is_overruled(rule: nodes.CheckRule, compiled: CompiledCheck, by: CompiledCheck) -> bool:
    """Whether a rule has no effect beside an unconditional allowance."""
    if rule.decision == "allow":  # unmet, it denies only if nothing else allows
        return rule.strength == "hard" and rule.condition is not None
    return rule.strength == "soft" and (by.reason.strength == "hard" or by.rank > compiled.rank)


def _find_lone_allowances(
    blocks: Sequence[_RuleBlock], reported: Sequence[Position], report: Reporter
) -> None:
    """Warn of soft allowances if no rule denies anything that they could allow."""
    restricting = [block for block in blocks if any(map(_restricts, block.node.checks))]
    left = _MOST_PAIRS
    for block in blocks:
        lone = [
            rule for rule in block.node.checks
            if _is_soft_exception(rule) and not _is_reported(rule, reported)
        ]  # fmt: skip
        left -= len(restricting) if lone else 0
        if not lone or left < 0 or any(_may_meet(block, other) for other in restricting):
            continue
        for rule in lone:
            report(
                "warning", "This rule restricts nothing: where its condition fails, the call is "
                "allowed by default", rule.at,
                "Add `should deny always;`, or write `must deny when not …`", lets_through=True,
            )  # fmt: skip


def _is_soft_exception(rule: nodes.CheckRule) -> bool:
    return (rule.strength, rule.decision) == ("soft", "allow") and rule.condition is not None


def _restricts(rule: nodes.CheckRule) -> bool:
    """Whether a rule denies calls that a soft allowance can allow again."""
    if rule.decision == "deny":
        return rule.strength == "soft"
    return rule.strength == "hard" and rule.condition is not None


# Conditions that no call meets, or every call


def _find_constant_conditions(
    blocks: Sequence[_RuleBlock],
    bindings: nodes.Bindings,
    reported: Sequence[Position],
    report: Reporter,
) -> None:
    left, places = _ALL_TRIALS, sorted(reported)
    for block in blocks:
        clauses = [clause for clause in clauses_of(block.node) if clause.rule is not None]
        for clause, (rule, compiled) in zip(clauses, block.rules, strict=True):
            if left <= 0 or compiled.test is None or _is_reported(rule, places):
                continue
            samples = _SampleCalls(clause, bindings, block.known)
            left -= 1 + len(bindings)
            if samples.is_exact and samples.number <= _MOST_TRIALS:
                left -= samples.number * (1 + len(bindings))
                held = {compiled.test(context) for context in samples.contexts()}
                if len(held) == 1 and None not in held:
                    _report_idle(rule, samples, report, held=True in held)


def _is_reported(rule: nodes.CheckRule, places: Sequence[Position]) -> bool:
    """Whether one of the sorted positions is in a rule."""
    lines = rule.text.split("\n")
    start = rule.at.column if len(lines) == 1 else 1
    end = Position(rule.at.line + len(lines) - 1, start + len(lines[-1]))
    first = bisect.bisect_left(places, rule.at)
    return first < len(places) and places[first] < end


def _report_idle(
    rule: nodes.CheckRule, samples: "_SampleCalls", report: Reporter, *, held: bool
) -> None:
    denies = held is (rule.decision == "deny")
    how = "always holds" if held else "never holds"
    if rule.decision == "allow" and rule.strength == "soft":
        says = "allows every call" if held else "does nothing"
    else:
        says = "denies every call" if denies else "denies nothing"
    advice = ""
    if samples.listed:
        how += " for what the schema lists"
        values = ", ".join(f"`{plain(str(one), limit=40)}`" for one in samples.listed[:5])
        advice = f"The schema has {values}"
    elif samples.tests > 1 and held:
        advice = 'Of `not a == "x" or not a == "y"` one always holds: write `not a in {"x", "y"}`'
    elif samples.tests > 1:
        advice = 'Nothing is "x" and "y" at once: join with `or`, or write `a.value in {"x", "y"}`'
    report(
        "warning", f"This condition {how}, so the rule {says}", rule.at, advice,
        lets_through=not denies,
    )  # fmt: skip


class _SampleCalls:
    """One sample call for each combination of values and labels that a condition distinguishes.

    Attributes:
        is_exact: Whether the samples cover all combinations.
        listed: The values that schemas list for the arguments, if any.
        tests: The number of single tests in the condition.
    """

    def __init__(
        self, clause: nodes.Clause, bindings: nodes.Bindings, known: Mapping[str, Arguments] | None
    ) -> None:
        self.is_exact = True
        self.listed: list[Any] = []
        self.tests = 0
        self._bindings = bindings
        self._known = known or {}
        self._values: dict[str, dict[tuple[type, Any], Any]] = {}
        self._labels: dict[str, dict[nodes.Field, set[str]]] = {}
        self._session: dict[nodes.Field, set[str]] = {}
        for test, _ in tests_of(clause.condition, bindings, passes=True):
            self.tests += 1
            self._add_test(test)
        for name in self._values:
            self._labels.setdefault(name, {})

    def _add_test(self, test: nodes.Tests) -> None:
        one, other = sides_of(test)
        if isinstance(test, nodes.Compared) or isinstance(other, nodes.Meta):
            self._add_label_test(test)
            return
        value, members = (one, other) if isinstance(one, nodes.Value) else (other, one)
        if (
            not isinstance(value, nodes.Value)
            or value.scope != "arg"
            or isinstance(members, nodes.Value)
        ):
            self.is_exact = (
                isinstance(value, nodes.TextLiteral)
                and isinstance(members, nodes.TextLiteral)
                and self.is_exact
            )
            return
        samples = self._values.setdefault(value.argument, {(str, _OTHER): _OTHER})
        if listed := self._listed(value.argument):  # patterns are tried on these, too
            self.listed += [one for one in listed if one not in self.listed]
            samples |= {(type(one), one): one for one in listed}
            return
        for element in elements_of(members, self._bindings):
            for sample in self._samples(element):
                samples[type(sample), sample] = sample

    def _listed(self, name: str) -> list[Any]:
        """The values of an argument, if the schemas of all tools list them."""
        found: list[Any] = []
        for one in self._known.values():
            schema = one.schemas.get(name, {})
            listed = [schema["const"]] if "const" in schema else schema.get("enum")
            if not isinstance(listed, list | tuple):
                return []
            found += listed
        is_plain = all(isinstance(one, str | int | float) for one in found)
        return found if is_plain else []

    def _samples(self, element: object) -> Iterator[Any]:
        """Values on both sides of each bound of an element."""
        match element:
            case (
                nodes.TextLiteral(kind="plain")
                | nodes.TextDomain(text=nodes.TextLiteral(kind="plain"), length=None)
            ):
                text = element.text if isinstance(element, nodes.TextDomain) else element
                yield text.raw
                self.is_exact = self.is_exact and "\\" not in text.raw
            case nodes.BoolDomain() | nodes.Boolean():
                yield from (True, False)
            case nodes.Number(value=value):
                yield from _around(value)
            case nodes.NumberDomain(range=bounds):
                for bound in (bounds.low, bounds.high):
                    yield from _around(bound.value if bound else 0)
            case _:
                self.is_exact = False

    def _add_label_test(self, test: nodes.Tests) -> None:
        one, other = sides_of(test)
        metas = [side for side in (one, other) if isinstance(side, nodes.Meta)]
        texts = [one] if isinstance(one, nodes.TextLiteral) else []
        members = other if isinstance(test, nodes.Compared) else None
        for element in elements_of(members, self._bindings) if members is not None else ():
            if isinstance(element, nodes.Meta):
                metas.append(element)
            elif isinstance(element, nodes.TextLiteral) and element.kind == "plain":
                texts.append(element)
            else:
                self.is_exact = False
        names = {text.raw for text in texts}
        for meta in metas:
            if meta.scope == "session":
                self._session.setdefault(meta.field, set()).update(names)
            elif meta.scope == "arg":
                of = self._labels.setdefault(meta.argument, {})
                of.setdefault(meta.field, set()).update(names)
            else:
                self.is_exact = False
        if len(metas) > 1:  # labels compared with labels
            self.is_exact = False

    @property
    def number(self) -> int:
        """The number of samples."""
        number = math.prod(len(values) for values in self._values.values())
        for fields in [*self._labels.values(), self._session]:
            if any(len(names) > _MOST_LABELS for names in fields.values()):
                return _MOST_TRIALS + 1
            number *= math.prod(len(_sets(field, names)) for field, names in fields.items())
        return number

    def contexts(self) -> Iterator[EvaluationContext]:
        """A context for each sample."""
        names = list(self._labels)
        values = [list(self._values.get(name, {(str, _OTHER): _OTHER}).values()) for name in names]
        labels = [_labelled(self._labels[name]) for name in names]
        for session in _labelled(self._session):
            for chosen in itertools.product(*values):
                for marked in itertools.product(*labels):
                    pairs = zip(names, chosen, marked, strict=True)
                    arguments = {name: Argument(value, of) for name, value, of in pairs}
                    yield EvaluationContext(Call("", arguments), session)


def _around(value: float) -> Iterator[int | float]:
    if math.isinf(value):
        return
    for number in (value - 1, value - 0.5, value, value + 0.5, value + 1):
        yield float(number)
        if number == int(number):
            yield int(number)


def _sets(field: nodes.Field, names: set[str]) -> list[frozenset[str]]:
    """All subsets of some labels, each with and without an extra label."""
    every = sorted(names - {ALL})
    chosen = itertools.chain.from_iterable(
        itertools.combinations(every, n) for n in range(len(every) + 1)
    )
    found = [frozenset({*one, *extra}) for one in chosen for extra in ((), (_OTHER,))]
    return [*found, frozenset({ALL})] if field == "consumers" else found


def _labelled(fields: Mapping[nodes.Field, set[str]]) -> list[Labels]:
    choices = [[(field, one) for one in _sets(field, names)] for field, names in fields.items()]
    return [Labels(**dict(chosen)) for chosen in itertools.product(*choices)]
