"""The rules of combined policies, so that no policy allows what another denies.

In one text, the allowances of each policy would override the soft denials of all others. So most
allowances are not written as rules. Each denial gets the allowances of its own policy that override
it as an exception: `should deny when d and not (a or b)`. A policy's `must allow` is a denial too,
of all calls that the policy does not allow.

Two sorts of denials cannot have such exceptions, because a condition cannot ask for the tool:

- denials in a block for many tools (`tool r"…"`), if an allowance is for only some of these tools
- the default of `default_allow=False`, which is for all tools

They stay rules in a lower layer of priorities, with the allowances for many tools that override
them. For each tool that a block allows by name, one rule in the middle layer lifts the lower layer,
and the denials of the lower layer are repeated for this tool in the upper layer, with their
exceptions.

So a call is denied if and only if one of the policies denies it by V1 (`docs/behaviour.md`),
however a service reads what is in doubt (V2).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, permutations
from math import inf
from typing import Any, Literal, NamedTuple

from langchain_sequrity.display import enumeration
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.sources import Source, one_line
from langchain_sequrity.sqrt.combination.tools import (
    always_includes,
    applies,
    includes,
    is_exact,
    may_overlap,
)
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI
from langchain_sequrity.sqrt.node_text import printed_node
from langchain_sequrity.sqrt.nodes import CheckRule, Position, Predicate, ToolBlock, ToolId
from langchain_sequrity.sqrt.verdict import NO_RULE_DECIDES

_START = Position(1, 1)


_Rank = tuple[float, bool]


class _Allowance(NamedTuple):
    tool: ToolId
    check: CheckRule
    rank: _Rank


class _Denial(NamedTuple):
    """A denial of one policy, before it is written.

    Attributes:
        tool: Its tools; `None` for all tools.
        check: The rule; for the default a rule with its reason.
        strength: Its strength.
        rank: Its rank among the rules of its policy.
        condition: Its condition without exceptions; `None` for `always`.
        exceptions: The allowances of the same policy that override it.
        required: For a `must allow`: all such rules of its block. It denies if none of the
            exceptions holds.
    """

    tool: ToolId | None
    check: CheckRule
    strength: nodes.Strength
    rank: _Rank
    condition: Predicate | None
    exceptions: tuple[_Allowance, ...]
    required: tuple[CheckRule, ...] = ()

    @property
    def inner(self) -> list[Predicate | None]:
        """The conditions of the exceptions that apply wherever it does."""
        return [a.check.condition for a in self.exceptions if self._is_inner(a)]

    @property
    def outer(self) -> list[_Allowance]:
        """The exceptions for only some of its tools, which its condition cannot name."""
        return [allowance for allowance in self.exceptions if not self._is_inner(allowance)]

    def _is_inner(self, allowance: _Allowance) -> bool:
        return self.tool is not None and always_includes(allowance.tool, self.tool)

    @property
    def is_lower(self) -> bool:
        """Whether it is written in the lower layer; the default always is."""
        return self.tool is None or bool(self.outer)

    def may_meet(self, tool: ToolId) -> bool:
        """Whether it may be for a tool of a block."""
        return self.tool is None or may_overlap(tool, self.tool)

    def for_tool(self, tool: ToolId) -> "_Denial | None":
        """The same denial for only these tools; `None` if it denies none of them."""
        condition = self.condition
        if is_exact(tool) and self.tool is not None:
            truth = applies(self.tool, tool.text.raw)
            required = [check.condition for check in self.required if check.condition]
            if truth is False or (truth is None and self.required and not required):
                return None
            if truth is None and required:  # it allows nothing, but may deny
                condition = nodes.Not(_all(required), _START)
        exceptions = tuple(a for a in self.exceptions if _counts(a.tool, tool))
        denial = self._replace(tool=tool, condition=condition, exceptions=exceptions)
        return None if None in denial.inner else denial

    def is_repeatable(self, tool: ToolId) -> bool:
        """Whether it can be written again for only these tools."""
        if self.tool is not None and not always_includes(self.tool, tool):
            return False
        denial = self.for_tool(tool)
        return denial is None or not denial.is_lower


@dataclass(frozen=True, eq=False)
class _Rules:
    """The rules of one policy.

    Attributes:
        source: The policy.
        together: The rules of all policies of the combination, in order.
    """

    source: Source
    together: "Sequence[_Rules]"

    @property
    def others(self) -> "list[_Rules]":
        """The rules of the other policies."""
        return [rules for rules in self.together if rules is not self]

    @cached_property
    def allowances(self) -> list[_Allowance]:
        """Its rules that allow."""
        return [
            _Allowance(block.tool, check, _rank(block, check))
            for block in self.source.declarations_of(ToolBlock)
            for check in block.checks
            if check.decision == "allow"
        ]

    @cached_property
    def denials(self) -> dict[Position, _Denial]:
        """Its denials that allowances may override: soft ones, `must allow`, and the default."""
        denials = [
            denial
            for block in self.source.declarations_of(ToolBlock)
            for denial in self._denials_of(block)
        ]
        if (strength := self.source.default_denial) is not None:
            check = CheckRule(strength, "deny", None, "", NO_RULE_DECIDES, _START)
            rank = (-inf, False)
            denials.append(_Denial(None, check, strength, rank, None, tuple(self.allowances)))
        return {denial.check.at: denial for denial in denials if None not in denial.inner}

    def _denials_of(self, block: ToolBlock) -> Iterator[_Denial]:
        required = tuple(check for check in block.checks if _is(check, "hard", "allow"))
        relevant = [a for a in self.allowances if _counts(a.tool, block.tool)]
        for check in block.checks:
            rank = _rank(block, check)
            if _is(check, "soft", "deny"):
                exceptions = tuple(a for a in relevant if a.rank > rank)
                yield _Denial(block.tool, check, "soft", rank, check.condition, exceptions)
        for check in required[:1]:
            rank = _rank(block, check)
            yield _Denial(block.tool, check, "hard", rank, None, tuple(relevant), required)

    # The lower layer

    @cached_property
    def lower(self) -> list[_Denial]:
        """Its denials."""
        return [denial for denial in self.denials.values() if denial.is_lower]

    @cached_property
    def lower_allowances(self) -> dict[Position, _Allowance]:
        """Its allowances: those for many tools that override a denial of the layer."""
        counting = {
            allowance.check.at
            for denial in self.lower
            for allowance in (denial.exceptions if denial.required else denial.outer)
        }
        return {
            allowance.check.at: allowance
            for allowance in self.allowances
            if allowance.check.at in counting and not is_exact(allowance.tool)
            if not self._is_in_vain(allowance)
            or not any(other.clash(self, allowance) for other in self.others)
        }

    def _is_in_vain(self, allowance: _Allowance) -> bool:
        """Whether another policy denies by default whatever only this allowance allows.

        An allowance that overrides a rule always counts: without it, that rule would be named as
        the reason. So does a `must allow` that also denies.
        """
        overrides_rule = any(
            denial.tool is not None and any(a.check is allowance.check for a in denial.outer)
            for denial in self.lower
        )
        counts = overrides_rule or self.is_required(allowance.check)
        return not counts and any(
            other.source.default_denial
            and all(
                is_exact(narrower.tool)
                or not may_overlap(allowance.tool, narrower.tool)
                or self._is_wider(allowance, other, narrower)
                for narrower in other.allowances
            )
            for other in self.others
        )

    def _is_wider(self, allowance: _Allowance, other: "_Rules", narrower: _Allowance) -> bool:
        covers = _covers(self.source, allowance, other.source, narrower)
        return covers and not _covers(other.source, narrower, self.source, allowance)

    def overridden(self, rules: "_Rules", allowance: _Allowance) -> Iterator[_Denial]:
        """Its denials that an allowance of another policy would override.

        Where that allowance holds, no allowance of this policy needs to hold.
        """
        for denial in self.lower:
            is_safe = any(
                _covers(self.source, exception, rules.source, allowance)
                for exception in denial.exceptions
            )
            if denial.may_meet(allowance.tool) and not is_safe:
                yield denial

    def clash(self, rules: "_Rules", allowance: _Allowance) -> _Denial | None:
        """A denial that an allowance of another policy would override for some tools."""
        overridden = self.overridden(rules, allowance)
        return next((d for d in overridden if not d.is_repeatable(allowance.tool)), None)

    @cached_property
    def lifted(self) -> list[str]:
        """The tools for which the layer is lifted, because an allowance names them."""
        return [
            allowance.tool.text.raw
            for denial in self.lower
            for allowance in denial.outer
            if is_exact(allowance.tool)
        ]

    @cached_property
    def repeated(self) -> list[_Denial]:
        """Its denials, for tools for which another rule overrides the layer."""
        names = dict.fromkeys(name for rules in self.together for name in rules.lifted)
        repeated = [denial.for_tool(_tool(name)) for name in names for denial in self.lower]
        for rules in self.others:
            for allowance in rules.lower_allowances.values():
                overridden = self.overridden(rules, allowance)
                repeated += [denial.for_tool(allowance.tool) for denial in overridden]
        return [denial for denial in repeated if denial is not None]

    @cached_property
    def ranks(self) -> list[_Rank]:
        """The ranks of its rules, in order."""
        denials = {denial.rank for denial in self.lower if denial.tool and not denial.required}
        return sorted(denials | {a.rank for a in self.lower_allowances.values()})

    def is_required(self, check: CheckRule) -> bool:
        """Whether a `must allow` stays one, because the denial in it is in this layer."""
        return any(check in denial.required for denial in self.lower)


def written_rules(
    sources: Sequence[Source], renames: Sequence[Mapping[str, str]]
) -> list[tuple[str, list[nodes.Declaration]]]:
    """Write the declarations of a combination.

    Args:
        sources: The policies.
        renames: The new names of each policy's `let` names.

    Returns:
        Sections, each with a heading. First those of the policies, whose nodes have the positions
        of the author's text; then that of the combination itself.

    Raises:
        UsageError: If two policies have lower layers for the same tools. The message names both.
    """
    policies: list[_Rules] = []
    policies += [_Rules(source, policies) for source in sources]
    for rules, other in permutations(policies, 2):
        _check_lower_layers(rules, other)
    _check_blocked_tag(policies)
    lifted = list(dict.fromkeys(name for rules in policies for name in rules.lifted))
    height = max((len(rules.ranks) for rules in policies), default=0)
    upper = height + bool(lifted)
    sections: list[tuple[str, list[nodes.Declaration]]] = []
    for rules, names in zip(policies, renames, strict=True):
        writer = _Writer(rules, upper, lifted)
        declarations = [_renamed(node, names) for node in writer.declarations()]
        sections.append((rules.source.name, declarations))
    if lifted:
        heading = "Tools that a policy allows by name: the rules above decide"
        sections.append((heading, [_lifting(name, height) for name in lifted]))
    return sections


def denying_by_default(sources: Sequence[Source], tool: str) -> Source | None:
    """The policy that a denial by default names.

    Returns:
        The first policy that denies by default and allows nothing for the tool. Without such a
        policy, the first that denies by default.
    """
    strict = [source for source in sources if source.default_denial]

    def is_silent(source: Source) -> bool:
        return not any(
            check.decision == "allow" and applies(block.tool, tool) is not False
            for block in source.declarations_of(ToolBlock)
            for check in block.checks
        )

    return next(filter(is_silent, strict), strict[0] if strict else None)


def _lifting(name: str, priority: int) -> ToolBlock:
    check = CheckRule("soft", "allow", None, "", "", _START)
    return ToolBlock(_tool(name), _priorities(priority), (check,), (), "", _START)


def _check_blocked_tag(policies: Sequence[_Rules]) -> None:
    """Refuse a soft preset beside allowances for its tool.

    A preset has no exceptions for single policies, and these allowances may override it.
    """
    for rules in policies:
        is_soft = rules.source.presets.get("llm_blocked_tag_enforcement_level") == "soft"
        for allowance in rules.allowances if is_soft else ():
            if applies(allowance.tool, PARSE_WITH_AI) is not False:
                msg = (
                    f"`{one_line(allowance.check.text)}` (line {allowance.check.at.line} of "
                    f"`{rules.source.name}`) is for `{PARSE_WITH_AI}`, and would override "
                    "`llm_blocked_tag_enforcement_level=soft` of the other policies. The policies "
                    f"{enumeration([f'`{p.source.name}`' for p in policies])} cannot be "
                    "combined. Make that level hard, or remove the rule."
                )
                raise UsageError(msg)


def _check_lower_layers(rules: _Rules, other: _Rules) -> None:
    """Refuse an allowance for many tools that would override a denial of another policy."""
    for allowance in rules.lower_allowances.values():
        if (denial := other.clash(rules, allowance)) is not None:
            rule = (
                f"the `default_allow=False` of `{other.source.name}`"
                if denial.tool is None
                else f"`{one_line(denial.check.text)}` (line {denial.check.at.line} of "
                f"`{other.source.name}`)"
            )
            msg = (
                f"The policies `{rules.source.name}` and `{other.source.name}` cannot be "
                f"combined: `{one_line(allowance.check.text)}` (line "
                f"{allowance.check.at.line} of `{rules.source.name}`) is for all tools "
                f"`{one_line(allowance.tool.text.raw)}`, and would override {rule} for some of "
                "them. Write the same block in both policies, or name each of its tools in a block "
                "of its own."
            )
            raise UsageError(msg)
    if other.source.default_denial != "hard":
        return
    for denial in rules.lower:
        is_alike = any(
            _covers(other.source, soft, rules.source, denial)
            for soft in other.denials.values()
            if soft.strength == "soft"
        )
        if denial.strength == "soft" and denial.tool is not None and not is_alike:
            msg = (
                f"The policies `{rules.source.name}` and `{other.source.name}` cannot be combined: "
                f"`{one_line(denial.check.text)}` (line {denial.check.at.line} of "
                f"`{rules.source.name}`) would make the hard `default_allow=False` of "
                f"`{other.source.name}` soft. Write `must deny`, or make the default soft."
            )
            raise UsageError(msg)


class _Writer:
    """Writes the declarations of one policy."""

    def __init__(self, rules: _Rules, upper: int, lifted: Sequence[str]) -> None:
        self._rules = rules
        self._upper = upper
        self._lifted = lifted
        # A `must allow` that holds overrides every soft denial.
        self._hard_allowed = [
            allowance.tool
            for other in rules.others
            for allowance in other.lower_allowances.values()
            if other.is_required(allowance.check)
        ]
        # Where a soft rule decides, the default does not; so it must not replace a hard default.
        self._is_hard_by_default = any(
            other.source.default_denial == "hard" for other in rules.others
        )

    def declarations(self) -> Iterator[nodes.Declaration]:
        """The declarations; names come first, because exceptions may use them earlier."""
        yield from self._rules.source.declarations_of(nodes.Binding)
        for node in self._rules.source.policy.declarations:
            if isinstance(node, nodes.OneLiner):
                yield node
            elif isinstance(node, ToolBlock):
                yield from self._block(node)
        for tool, denials in groupby(self._rules.repeated, key=lambda denial: denial.tool):
            if tool is not None:
                checks = tuple(map(self._in_upper_layer, denials))
                yield ToolBlock(tool, self._upper_priorities(checks), checks, (), "", _START)

    def _block(self, node: ToolBlock) -> Iterator[ToolBlock]:
        rules = self._rules
        upper: list[CheckRule] = []
        lower: defaultdict[int, list[CheckRule]] = defaultdict(list)
        for check in node.checks:
            denial = rules.denials.get(check.at)
            allowance = rules.lower_allowances.get(check.at)
            if _is(check, "hard", "deny"):
                upper.append(check)
            elif denial is not None and not denial.is_lower:
                upper.append(self._in_upper_layer(denial))
            elif denial is not None and not denial.required:
                lower[rules.ranks.index(denial.rank)].append(_rule(denial, denial.strength))
            if allowance is not None:
                strength: nodes.Strength = "hard" if rules.is_required(check) else "soft"
                rule = replace(check, strength=strength)
                lower[rules.ranks.index(allowance.rank)].append(rule)
        if upper or node.blocks:
            yield replace(node, priorities=self._upper_priorities(upper), checks=tuple(upper))
        for priority, checks in lower.items():
            yield replace(node, priorities=_priorities(priority), checks=tuple(checks), blocks=())

    def _in_upper_layer(self, denial: _Denial) -> CheckRule:
        """A denial; hard where another policy's rules would override or replace a soft one."""
        is_overridden = any(map(denial.may_meet, self._hard_allowed))
        is_lifted = denial.tool and is_exact(denial.tool) and denial.tool.text.raw in self._lifted
        is_replacing = self._is_hard_by_default and not is_lifted
        return _rule(denial, "hard" if is_overridden or is_replacing else denial.strength)

    def _upper_priorities(self, checks: Sequence[CheckRule]) -> tuple[nodes.NumberLiteral, ...]:
        """The priority of a block in the upper layer; hard rules need none."""
        has_soft = any(check.strength == "soft" for check in checks)
        return _priorities(self._upper) if has_soft else ()


def _rule(denial: _Denial, strength: nodes.Strength) -> CheckRule:
    """A denial with its exceptions."""
    condition = denial.condition
    parts = [*condition.parts] if isinstance(condition, nodes.And) else [condition]
    if inner := [condition for condition in denial.inner if condition is not None]:
        excepted = inner[0] if len(inner) == 1 else nodes.Or(tuple(inner), _START)
        parts.append(nodes.Not(excepted, _START))
    parts = [part for part in parts if part is not None]
    check = denial.check
    return CheckRule(strength, "deny", _all(parts) if parts else None, "", check.doc, check.at)


def _covers(
    source: Source, wider: _Allowance | _Denial, other: Source, narrower: _Allowance | _Denial
) -> bool:
    """Whether a rule of one policy holds wherever that of another policy holds."""
    if wider.tool is None or narrower.tool is None or not includes(wider.tool, narrower.tool):
        return False
    condition = wider.check.condition
    return condition is None or _reading(condition, source) == _reading(
        narrower.check.condition, other
    )


def _reading(condition: Predicate | nodes.Set | nodes.Domain | None, source: Source) -> list[str]:
    """A condition with what its names mean, as texts that are equal if the meanings are."""
    bindings = nodes.bindings_of(source.policy)
    texts = [] if condition is None else [printed_node(condition)]
    for node in nodes.walk(condition):
        if isinstance(node, nodes.Name) and node.name in bindings:
            texts += _reading(bindings[node.name].value, source)
    return texts


def _rank(block: ToolBlock, check: CheckRule) -> _Rank:
    if _is(check, "hard", "allow"):  # overrides every soft denial
        return inf, True
    priority = block.priorities[-1].value if block.priorities else 0
    return priority, check.condition is not None


def _counts(allowed: ToolId, denied: ToolId) -> bool:
    """Whether an allowance counts for tools of a denial; for one tool, in doubt it does not."""
    if is_exact(denied):
        return applies(allowed, denied.text.raw) is True
    return may_overlap(allowed, denied)


def _is(check: CheckRule, strength: nodes.Strength, decision: Literal["allow", "deny"]) -> bool:
    return (check.strength, check.decision) == (strength, decision)


def _tool(name: str) -> ToolId:
    return ToolId(nodes.TextLiteral(name, "plain", _START), _START)


def _priorities(value: int) -> tuple[nodes.NumberLiteral, ...]:
    return (nodes.NumberLiteral(value, _START),) if value else ()


def _all(parts: Sequence[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else nodes.And(tuple(parts), _START)


def _renamed(node: nodes.Declaration, names: Mapping[str, str]) -> Any:
    """A declaration with other names for bindings."""
    return nodes.rebuilt(node, rename=lambda name: names.get(name, name))
