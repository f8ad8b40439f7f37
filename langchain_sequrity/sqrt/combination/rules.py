"""The rules of combined policies, so that no policy allows what another denies.

In one text, the allowances of each policy would override the soft denials of all others. So most
allowances are not written as rules. Each denial gets the allowances of its own policy that override
it as an exception: `should deny when d and not (a or b)`. A policy's `must allow` is a denial too,
of all calls that the policy does not allow.

Two sorts of denials cannot have such exceptions, because a condition cannot ask for the tool:

- denials in a block for many tools (`tool r"…"`) that have exceptions: whether the block is for a
  tool may be in doubt, and then its allowances do not count
- the default of `default_allow=False`, which is for all tools

They stay as they are, in a lower layer of priorities, with the allowances for many tools. For each
tool that a block allows by name, one rule in the middle layer lifts the lower layer, and the
denials of the lower layer are repeated for this tool in the upper layer, with their exceptions.

So a call is denied if and only if one of the policies denies it by V1 (`docs/behaviour.md`). This
is also true in doubt (V2): an exception in doubt does not lift its denial.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any, Literal, NamedTuple

from langchain_sequrity.display import enumeration, plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.sources import Source
from langchain_sequrity.sqrt.combination.tools import applies, is_exact, may_overlap
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI
from langchain_sequrity.sqrt.nodes import CheckRule, Position, Predicate, ToolBlock, ToolId
from langchain_sequrity.sqrt.verdict import DEFAULT_RULE, NO_RULE_DECIDES, Origin

_START = Position(1, 1)


class Written(NamedTuple):
    """A declaration of a combination.

    Attributes:
        node: The declaration; its positions are those of the author's text.
        origins: The origin of each check rule in it; `None` for a rule of the combination itself.
    """

    node: nodes.Declaration
    origins: tuple[Origin | None, ...] = ()


class _Allowance(NamedTuple):
    tool: ToolId
    check: CheckRule
    rank: tuple[float, bool]


class _Denial(NamedTuple):
    """A denial of one policy, before it is written.

    Attributes:
        tool: Its tools; `None` for all tools.
        block: The number of its declaration; -1 for the default.
        check: The rule; for the default a rule with its reason.
        strength: Its strength.
        exceptions: The allowances of the same policy that override it.
        required: For a `must allow`: all such rules of its block. It denies if none of the
            exceptions holds.
        origin: Its author's rule.
    """

    tool: ToolId | None
    block: int
    check: CheckRule
    strength: nodes.Strength
    exceptions: tuple[_Allowance, ...]
    required: tuple[CheckRule, ...]
    origin: Origin

    @property
    def may_apply(self) -> bool:
        """Whether it can deny at all; a `must allow always` is always met."""
        return not self.required or any(check.condition for check in self.required)

    def applies(self, name: str) -> bool | None:
        """Whether it is for the tool of a name."""
        return True if self.tool is None else applies(self.tool, name)


@dataclass(frozen=True)
class _Rules:
    """The rules of one policy.

    Attributes:
        source: The policy.
        default_denies: How strongly it denies by default, if it does.
        is_beside_strictest: Whether another policy denies all tools that no policy names.
    """

    source: Source
    default_denies: nodes.Strength | None
    is_beside_strictest: bool

    @cached_property
    def blocks(self) -> list[tuple[int, ToolBlock]]:
        """Its blocks, with the numbers of their declarations."""
        declarations = enumerate(self.source.policy.declarations)
        return [(number, node) for number, node in declarations if isinstance(node, ToolBlock)]

    @cached_property
    def allowances(self) -> list[_Allowance]:
        """Its rules that allow."""
        return [
            _Allowance(block.tool, check, _rank(block, check))
            for _, block in self.blocks
            for check in block.checks
            if check.decision == "allow"
        ]

    @cached_property
    def denials(self) -> list[_Denial]:
        """Its denials that allowances may override: soft ones, `must allow`, and the default."""
        denials = []
        for number, block in self.blocks:
            required = tuple(check for check in block.checks if _is(check, "hard", "allow"))
            for check in block.checks:
                if _is(check, "soft", "deny"):
                    rank = _rank(block, check)
                    exceptions = tuple(
                        allowance
                        for allowance in self.allowances
                        if allowance.check.strength == "hard" or allowance.rank > rank
                    )
                    origin = Origin(self.source.name, check.at, check.text)
                    denials.append(
                        _Denial(block.tool, number, check, "soft", exceptions, (), origin)
                    )
                elif required and check is required[0]:
                    origin = Origin(self.source.name, check.at, check.text, unmet=True)
                    every = tuple(self.allowances)
                    denials.append(
                        _Denial(block.tool, number, check, "hard", every, required, origin)
                    )
        if self.default_denies:
            check = CheckRule(self.default_denies, "deny", None, "", NO_RULE_DECIDES, _START)
            origin = Origin(self.source.name, None, DEFAULT_RULE)
            every = tuple(self.allowances)
            denials.append(_Denial(None, -1, check, self.default_denies, every, (), origin))
        return denials

    @cached_property
    def has_lower_layer(self) -> bool:
        """Whether some of its denials for many tools cannot be written with exceptions."""
        return any(
            denial.tool is None or may_overlap(allowance.tool, denial.tool)
            for denial in self.denials
            if denial.tool is None or not is_exact(denial.tool)
            for allowance in denial.exceptions
        )

    @cached_property
    def lower(self) -> list[_Denial]:
        """The denials that stay in the lower layer; the default is always there."""
        return [
            denial
            for denial in self.denials
            if denial.tool is None or (self.has_lower_layer and not is_exact(denial.tool))
        ]

    @cached_property
    def kept_allowances(self) -> list[_Allowance]:
        """The allowances that stay in the lower layer: those for many tools that count there."""
        counts = any(
            denial.tool is None or may_overlap(allowance.tool, denial.tool)
            for denial in self.lower
            for allowance in denial.exceptions
            if not is_exact(allowance.tool)
        )
        every = self.allowances if counts else ()
        return [
            allowance
            for allowance in every
            if not is_exact(allowance.tool) and not self._is_in_vain(allowance)
        ]

    def _is_in_vain(self, allowance: _Allowance) -> bool:
        """Whether the strictest policy denies by default whatever an allowance allows.

        An allowance that overrides a rule always counts: without it, that rule would be named as
        the reason. So does a `must allow` with a condition, which also denies.
        """
        return self.is_beside_strictest and not any(
            may_overlap(allowance.tool, denial.tool)
            for denial in self.lower
            if denial.tool is not None and denial.may_apply
            if any(exception.check is allowance.check for exception in denial.exceptions)
        )

    @cached_property
    def lifted(self) -> list[str]:
        """The tools for which the lower layer is lifted, because an allowance names them."""
        return [
            allowance.tool.text.raw
            for denial in self.lower
            for allowance in denial.exceptions
            if is_exact(allowance.tool) and denial.applies(allowance.tool.text.raw) is not False
        ]

    @cached_property
    def priorities(self) -> list[float]:
        """The priorities of its lower layer, in order."""
        return sorted(
            {
                _rank(block, check)[0]
                for _, block in self.blocks
                if not is_exact(block.tool)
                for check in block.checks
                if self.is_in_lower_layer(check)
            }
        )

    def is_in_lower_layer(self, check: CheckRule) -> bool:
        """Whether a rule of a block for many tools stays in the lower layer."""
        if check.decision == "allow":
            return any(check is allowance.check for allowance in self.kept_allowances)
        return check.strength == "soft" and self.has_lower_layer


def written_rules(
    sources: Sequence[Source], renames: Sequence[Mapping[str, str]]
) -> list[tuple[str, list[Written]]]:
    """Write the declarations of a combination.

    Args:
        sources: The policies.
        renames: The new names of each policy's `let` names.

    Returns:
        Sections, each with a heading.

    Raises:
        UsageError: If two policies have lower layers for the same tools. The message names both.
    """
    policies = [_rules_of(source, sources) for source in sources]
    for rules, other in permutations(policies, 2):
        _check_lower_layers(rules, other)
    _check_blocked_tag(policies)
    lifted = list(dict.fromkeys(name for rules in policies for name in rules.lifted))
    height = max((len(rules.priorities) for rules in policies), default=0)
    upper = height + bool(lifted)
    sections = []
    for rules, names in zip(policies, renames, strict=True):
        others = [other for other in policies if other is not rules]
        writer = _Writer(rules, others, upper, lifted)
        declarations = [
            written._replace(node=_renamed(written.node, names))
            for written in writer.declarations()
        ]
        sections.append((rules.source.name, declarations))
    if lifted:
        heading = "Tools that a policy allows by name: the rules above decide"
        sections.append((heading, [_lifting(name, height) for name in lifted]))
    return sections


def strictest(sources: Sequence[Source]) -> Source | None:
    """The policy that a denial by default names.

    Returns:
        The first policy that denies by default and allows tools by their names only. So it denies
        all tools that no policy names. Without such a policy, the first that denies by default.
    """
    strict = [source for source in sources if _default_of(source)]
    return next(filter(_names_what_it_allows, strict), strict[0] if strict else None)


def _rules_of(source: Source, sources: Sequence[Source]) -> _Rules:
    other = strictest(sources)
    is_beside = other is not None and other is not source and _names_what_it_allows(other)
    return _Rules(source, _default_of(source), is_beside)


def _names_what_it_allows(source: Source) -> bool:
    """Whether a policy has no allowances in blocks for many tools."""
    return not any(
        check.decision == "allow"
        for block in source.declarations_of(ToolBlock)
        if not is_exact(block.tool)
        for check in block.checks
    )


def _lifting(name: str, priority: int) -> Written:
    tool = _tool(name)
    check = CheckRule("soft", "allow", None, "", "", _START)
    return Written(ToolBlock(tool, _priorities(priority), (check,), (), "", _START), (None,))


def _default_of(source: Source) -> nodes.Strength | None:
    """How strongly a policy denies by default, if it does."""
    presets = source.settings.get("presets") or {}
    if presets.get("default_allow") is not False:
        return None
    return "hard" if presets.get("default_allow_enforcement_level") == "hard" else "soft"


def _check_blocked_tag(policies: Sequence[_Rules]) -> None:
    """Refuse a soft preset beside allowances for its tool.

    A preset has no exceptions for single policies, and these allowances may override it.
    """
    for rules in policies:
        presets = rules.source.settings.get("presets") or {}
        is_soft = presets.get("llm_blocked_tag_enforcement_level") == "soft"
        for allowance in rules.allowances if is_soft else ():
            if applies(allowance.tool, PARSE_WITH_AI) is not False:
                msg = (
                    f"`{_shown(allowance.check.text)}` (line {allowance.check.at.line} of "
                    f"`{rules.source.name}`) is for `{PARSE_WITH_AI}`, and would override "
                    "`llm_blocked_tag_enforcement_level=soft` of the other policies. The policies "
                    f"{enumeration([f'`{each.source.name}`' for each in policies])} cannot be "
                    "combined. Make that level hard, or remove the rule."
                )
                raise UsageError(msg)


def _check_lower_layers(rules: _Rules, other: _Rules) -> None:
    """Refuse an allowance for many tools that would override a denial of another policy."""
    for allowance in rules.kept_allowances:
        for denial in other.lower:
            if denial.tool is None or may_overlap(allowance.tool, denial.tool):
                what = (
                    "its `default_allow=False`"
                    if denial.tool is None
                    else f"`{_shown(denial.origin.rule)}` (line {denial.check.at.line})"
                )
                msg = (
                    f"The policies `{rules.source.name}` and `{other.source.name}` cannot be "
                    f"combined: `{_shown(allowance.check.text)}` (line "
                    f"{allowance.check.at.line} of `{rules.source.name}`) is for all tools "
                    f"`{_shown(allowance.tool.text.raw)}`, and would override {what} of "
                    f"`{other.source.name}` for some of them. Name each tool in a block of its "
                    "own, or write `must deny`."
                )
                raise UsageError(msg)
    if other.default_denies != "hard":
        return
    for denial in rules.lower:
        if denial.strength == "soft" and denial.tool is not None:
            msg = (
                f"The policies `{rules.source.name}` and `{other.source.name}` cannot be combined: "
                f"`{_shown(denial.origin.rule)}` (line {denial.check.at.line} of "
                f"`{rules.source.name}`) would make the hard `default_allow=False` of "
                f"`{other.source.name}` soft. Write `must deny`, or make the default soft."
            )
            raise UsageError(msg)


class _Writer:
    """Writes the declarations of one policy."""

    def __init__(
        self, rules: _Rules, others: Sequence[_Rules], upper: int, lifted: Sequence[str]
    ) -> None:
        self._rules = rules
        self._upper = upper
        self._lifted = lifted
        # A `must allow` that holds overrides every soft denial.
        self._hard_allowed = [
            allowance.tool
            for other in others
            for allowance in other.kept_allowances
            if allowance.check.strength == "hard"
        ]
        # Where a soft rule decides, the default does not; so it must not replace a hard default.
        self._is_hard_by_default = any(other.default_denies == "hard" for other in others)

    def declarations(self) -> Iterator[Written]:
        """The declarations; names come first, because exceptions may use them earlier."""
        yield from (Written(node) for node in self._rules.source.declarations_of(nodes.Binding))
        for number, node in enumerate(self._rules.source.policy.declarations):
            if isinstance(node, nodes.OneLiner):
                yield Written(node)
            elif isinstance(node, ToolBlock):
                yield from self._block(number, node)
        for name in self._lifted:
            yield from self._repeated(name)

    def _block(self, number: int, node: ToolBlock) -> Iterator[Written]:
        upper: list[tuple[CheckRule, Origin | None]] = []
        lower: list[tuple[CheckRule, Origin | None]] = []
        denials = {
            denial.check.at: denial for denial in self._rules.denials if denial.block == number
        }
        is_layered = self._rules.has_lower_layer and not is_exact(node.tool)
        for check in node.checks:
            origin = Origin(self._rules.source.name, check.at, check.text)
            if _is(check, "hard", "deny"):
                upper.append((check, origin))
            elif is_layered and self._rules.is_in_lower_layer(check):
                is_required = _is(check, "hard", "allow")
                lower.append((check, origin._replace(unmet=is_required)))
            elif not is_layered and (denial := denials.get(check.at)) is not None:
                name = node.tool.text.raw if is_exact(node.tool) else None
                if (rule := self._with_exceptions(denial, name)) is not None:
                    upper.append((rule, denial.origin))
        if upper or node.blocks:
            priorities = self._upper_priorities(upper)
            checks = tuple(check for check, _ in upper)
            block = ToolBlock(node.tool, priorities, checks, node.blocks, node.doc, node.at)
            yield Written(block, tuple(origin for _, origin in upper))
        if lower:
            own = self._rules.priorities.index(_rank(node, lower[0][0])[0])
            checks = tuple(check for check, _ in lower)
            block = ToolBlock(node.tool, _priorities(own), checks, (), node.doc, node.at)
            yield Written(block, tuple(origin for _, origin in lower))

    def _repeated(self, name: str) -> Iterator[Written]:
        """The denials of the lower layer for a tool for which that layer is lifted."""
        rules: list[tuple[CheckRule, Origin | None]] = []
        for denial in self._rules.lower:
            if denial.tool is None and self._is_required(name):
                continue  # such a denial is the same and stronger
            if denial.applies(name) is False:
                continue
            if (rule := self._with_exceptions(denial, name)) is not None:
                rules.append((rule, denial.origin))
        if rules:
            checks = tuple(check for check, _ in rules)
            priorities = self._upper_priorities(rules)
            block = ToolBlock(_tool(name), priorities, checks, (), "", _START)
            yield Written(block, tuple(origin for _, origin in rules))

    def _is_required(self, name: str) -> bool:
        return any(
            denial.required and denial.applies(name) is True for denial in self._rules.denials
        )

    def _with_exceptions(self, denial: _Denial, name: str | None) -> CheckRule | None:
        """A denial with its exceptions; `None` if they always lift it.

        Args:
            denial: The denial.
            name: The tool for which it is written; `None` for all tools of its block.
        """
        tool = denial.tool if name is None else _tool(name)
        if tool is None:
            return None
        exceptions = [
            allowance.check.condition
            for allowance in denial.exceptions
            if name is not None and applies(allowance.tool, name) is True
        ]
        parts = _conditions(denial, name)
        if None in exceptions or parts is None:
            return None
        if lifting := [condition for condition in exceptions if condition is not None]:
            parts.append(nodes.Not(_any(lifting), _START))
        when = _all(parts) if parts else None
        check = denial.check
        return CheckRule(self._strength(denial, tool), "deny", when, "", check.doc, check.at)

    def _strength(self, denial: _Denial, tool: ToolId) -> nodes.Strength:
        """Its strength; hard where another policy's rules would override or replace a soft one."""
        is_overridden = any(may_overlap(allowed, tool) for allowed in self._hard_allowed)
        is_lifted = is_exact(tool) and tool.text.raw in self._lifted
        if is_overridden or (self._is_hard_by_default and not is_lifted):
            return "hard"
        return denial.strength

    def _upper_priorities(
        self, rules: Sequence[tuple[CheckRule, Origin | None]]
    ) -> tuple[nodes.NumberLiteral, ...]:
        """The priority of a block in the upper layer; hard rules need none."""
        has_soft = any(check.strength == "soft" for check, _ in rules)
        return _priorities(self._upper) if has_soft else ()


def _conditions(denial: _Denial, name: str | None) -> list[Predicate] | None:
    """The conditions of a denial without its exceptions; `None` if they never hold."""
    if denial.required:
        if name is None or denial.applies(name) is True:
            return []  # the exceptions have the conditions of the `must allow`
        # Whether the block applies is unknown. So it allows nothing, but may deny.
        required = [check.condition for check in denial.required if check.condition]
        return [nodes.Not(_all(required), _START)] if required else None
    condition = denial.check.condition
    if condition is None:
        return []
    return [*condition.parts] if isinstance(condition, nodes.And) else [condition]


def _rank(block: ToolBlock, check: CheckRule) -> tuple[float, bool]:
    priority = block.priorities[-1].value if block.priorities else 0
    return priority, check.condition is not None


def _is(check: CheckRule, strength: nodes.Strength, decision: Literal["allow", "deny"]) -> bool:
    return (check.strength, check.decision) == (strength, decision)


def _tool(name: str) -> ToolId:
    return ToolId(nodes.TextLiteral(name, "plain", _START), _START)


def _priorities(value: int) -> tuple[nodes.NumberLiteral, ...]:
    return (nodes.NumberLiteral(value, _START),) if value else ()


def _all(parts: Sequence[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else nodes.And(tuple(parts), _START)


def _any(parts: Sequence[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else nodes.Or(tuple(parts), _START)


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """A node with other names for bindings."""
    if isinstance(node, Position):
        return node
    if isinstance(node, tuple):
        return tuple(_renamed(part, names) for part in node)
    if not is_dataclass(node):
        return node
    changes = {field.name: _renamed(getattr(node, field.name), names) for field in fields(node)}
    if isinstance(node, nodes.Name | nodes.Binding):
        changes["name"] = names.get(node.name, node.name)
    return replace(node, **changes)  # type: ignore[type-var]


def _shown(text: str) -> str:
    return plain(" ".join(text.split()), limit=200)
