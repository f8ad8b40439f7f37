"""Policies combined into one: an organisation's and an application's, for example.

A service takes one text, so the combination is one text in which no policy allows what another
denies. `sources` reads the policies, `settings` joins their other fields, `labels` refuses changes
of labels that another policy relies on, and `rules` writes the rules.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from langchain_sequrity.display import enumeration
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.labels import check_labels
from langchain_sequrity.sqrt.combination.rules import denying_by_default, written_rules
from langchain_sequrity.sqrt.combination.settings import joined_settings
from langchain_sequrity.sqrt.combination.sources import (
    NamedPolicy,
    Source,
    checks_of,
    named,
    read_sources,
    sources_of,
)
from langchain_sequrity.sqrt.compaction import AuthorPlace
from langchain_sequrity.sqrt.compiler import compiled_tools
from langchain_sequrity.sqrt.engine import Engine, error_raiser
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from langchain_sequrity.sqrt.node_text import declarations_text
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.verdict import DEFAULT_RULE, Presets

__all__ = ["Combination", "NamedPolicy", "combine", "combined_sources", "named"]


class Origin(NamedTuple):
    """The author's rule behind a rule of a combination.

    Attributes:
        policy: The name of its policy.
        at: Its place in the text of that policy; `None` for a default, or if it is not known.
        rule: The rule as written, or the name of a preset.
    """

    policy: str
    at: Position | None
    rule: str


@dataclass(frozen=True, eq=False, repr=False)
class Combination(nodes.Coloured):
    """Policies combined into one; made by `combine`, and accepted wherever a policy is.

    Attributes:
        sources: The policies, each with `name`, `policy` and `settings`.
        policy: The combined policy; `policy.text` is its text.
        settings: The other fields of `X-Policy`, as JSON.
        places: The author's policy and place by the position of each node.
    """

    sources: tuple[Source, ...]
    policy: Policy
    settings: Mapping[str, Any]
    places: Mapping[Position, tuple[Source, Position]]

    @property
    def has_names(self) -> bool:
        """Whether denials name its policies: there are several, or the only one has a name."""
        return len(self.sources) > 1 or self.sources[0].is_named

    @property
    def text(self) -> str:
        """The combination as SQRT text."""
        return self.policy.text

    def to_wire(self) -> dict[str, Any]:
        """The fields of `X-Policy`, as JSON."""
        return {**self.settings, "codes": {"code": self.text, "language": "sqrt"}}

    def compile(self, *, dual_llm: bool = True) -> Engine:
        """Compile it; the reasons of its verdicts name the policy and the author's rule.

        Args:
            dual_llm: Whether it is for a dual-LLM session; some presets are only for these.

        Returns:
            An engine.

        Raises:
            PolicySyntaxError: If a regex does not compile here.
        """
        distinct = _distinct(self.sources)
        first, *others = engines = [source.compile(dual_llm=dual_llm) for source in distinct]
        if not others:
            return first if self.has_names else replace(first, name=None)
        tools = tuple(tool for engine in engines for tool in engine.tools)
        presets = Presets.of_settings(self.settings, dual_llm=dual_llm)
        return Engine(self.policy, tools, presets, parts=tuple(engines))

    def origin_of(
        self, tool: str | None, rule: str | None, reason: str | None, at: Position | None
    ) -> Origin | None:
        """The author's rule behind a reason of the service.

        Args:
            tool: The tool that was to be called, if reported.
            rule: The rule, with any white space, or the name of a preset; `None` if not reported.
            reason: Its doc comment; `None` if not reported.
            at: Its place in the combined text; `None` if not reported.

        Returns:
            The rule. Without a place it is found by its text, or by its doc comment; `None` if it
            may belong to several policies, or is one of the combination itself.
        """
        checks = list(checks_of(self.policy))
        if at is not None:
            begins = [check.at for check in checks if check.at <= at]
            return self._origin_at(max(begins)) if begins else None
        if rule == DEFAULT_RULE and tool is not None:
            source = denying_by_default(self.sources, tool)
            return None if source is None else Origin(source.name, None, DEFAULT_RULE)
        written = _without_spaces(rule)
        candidates = {
            origin
            for check in checks
            if (origin := self._origin_at(check.at)) is not None
            and (
                _without_spaces(check.text) == written
                if written
                else bool(reason) and _without_spaces(check.doc) == _without_spaces(reason)
            )
        }
        if len({origin.policy for origin in candidates}) != 1:
            return None
        origin, *others = candidates
        return origin._replace(at=None) if others else origin

    def _origin_at(self, position: Position) -> Origin | None:
        """The author's rule behind the rule at a place; `None` for one of the combination."""
        if position not in self.places:
            return None
        source, author_position = self.places[position]
        rules = {check.at: check.text for check in checks_of(source.policy)}
        if author_position not in rules:  # a default that denies, written as a rule
            return Origin(source.name, None, DEFAULT_RULE)
        return Origin(source.name, author_position, rules[author_position])

    def place(self, at: Position) -> AuthorPlace | None:
        """The author's place for a place of the combined text.

        Args:
            at: The place.

        Returns:
            The name and text of the policy, and the place in that text; `None` before the first
            rule.
        """
        start = max((start for start in self.places if start <= at), default=None)
        if start is None:
            return None
        source, author_position = self.places[start]
        return AuthorPlace(source.name, source.policy.text, author_position)

    def __str__(self) -> str:
        """The text."""
        return self.text

    def __repr__(self) -> str:
        """The names of the policies."""
        return f"Combination({', '.join(source.name for source in self.sources)})"


def combine(*policies: AnyPolicy) -> Combination:
    """Combine policies into one text that denies whatever one of them denies.

    The combination denies a call if and only if at least one policy denies it. All policies read
    and change the same labels. A denial names the policy that decided, with the place in its text.
    A policy that is given twice counts once.

    A list of policies is combined like this wherever a policy is accepted.

    Args:
        policies: The policies in any form; lists are flattened. `named` gives a policy a name. A
            file has its own name; other policies are "policy 1", "policy 2", ….

    Returns:
        The combination: `print` shows its text. One policy alone is unchanged.

    Raises:
        UsageError: If there is no policy, or one text cannot express them: fields that contradict
            each other, labels that one removes and another tests, allowances for many tools that
            override a denial, Cedar, `auto_gen`. The message names the policies.
        PolicySyntaxError: If a text is not a SQRT policy. The message names the policy.

    Example:
        ```python
        from langchain_sequrity import sqrt

        house = sqrt.named("organisation", 'tool "mail" { must deny when text.value == ""; }')
        mailer = sqrt.named(
            "mailer",
            'tool "mail" { should allow when to.value == "ana"; should deny always; }',
        )
        assert 'should deny when not to.value == "ana";' in str(sqrt.combine(house, mailer))

        (denied,) = sqrt.simulate(
            [house, mailer], [{"tool": "mail", "arguments": {"to": "bo", "text": "Hi"}}]
        )
        assert denied.verdict.reasons[0].policy == "mailer"
        assert denied.verdict.reasons[0].rule == "should deny always;"
        ```
    """
    sources = read_sources(policies)
    first, *others = distinct = _distinct(sources)
    if not others:
        places = {p: (first, p) for p in _positions(first.policy.declarations)}
        return Combination(sources, first.policy, first.settings, places)
    settings = joined_settings(distinct)
    check_labels(distinct)
    sections = written_rules(distinct, _new_names(distinct))
    policy = _parsed(distinct, sections)
    return Combination(sources, policy, settings, _places(distinct, sections, policy))


def _distinct(sources: Iterable[Source]) -> tuple[Source, ...]:
    """The policies without those that equal an earlier one, which would change nothing."""
    distinct: list[Source] = []
    for source in sources:
        same = (source.policy.text, source.settings)
        if all((other.policy.text, other.settings) != same for other in distinct):
            distinct.append(source)
    return tuple(distinct)


_Section = tuple[str, Sequence[nodes.Declaration]]


def _places(
    sources: Sequence[Source], sections: Sequence[_Section], policy: Policy
) -> dict[Position, tuple[Source, Position]]:
    """The author's policy and place by the position of each node of the combined text."""
    places: dict[Position, tuple[Source, Position]] = {}
    declarations = iter(policy.declarations)
    for source, (_, written) in zip(sources, sections, strict=False):
        for node, author_node in zip(islice(declarations, len(written)), written, strict=True):
            pairs = zip(_positions(node), _positions(author_node), strict=True)
            for position, author_position in pairs:
                places.setdefault(position, (source, author_position))
    return places


def _parsed(sources: Sequence[Source], sections: Sequence[_Section]) -> Policy:
    """The combined text as nodes.

    Raises:
        UsageError: If it is too long, or a combined condition is nested too deeply.
    """
    names = enumeration([f"`{source.name}`" for source in sources])
    try:
        text = "\n".join(
            f"// {heading}\n\n{declarations_text(tuple(written))}" for heading, written in sections
        )
        policy = parse(text, max_characters=len(text))
        for _ in compiled_tools(policy, error_raiser(text, skip_regexes=True)):
            pass
    except UsageError as error:
        msg = f"The policies {names} cannot be written as one text: {error}"
        raise UsageError(msg) from None
    if len(text) > MAX_CHARACTERS:
        msg = (
            f"The policies {names} have {len(text):,} characters as one text; the limit is "
            f"{MAX_CHARACTERS:,}. Shorten one of them."
        )
        raise UsageError(msg)
    return policy


def _without_spaces(text: str | None) -> str:
    return "".join((text or "").split())


def _positions(root: object) -> Iterator[Position]:
    return (node.at for node in nodes.walk(root) if hasattr(node, "at"))


def combined_sources(policy: object) -> tuple[Source, ...]:
    """The policies behind a list, a combination or its header; empty for any other policy."""
    if isinstance(policy, list | tuple | NamedPolicy):
        policy = combine(policy)
    return sources_of(policy)


# Names of bindings


_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]+")


def _new_names(sources: Sequence[Source]) -> list[dict[str, str]]:
    """New names for `let` names that several policies define, such as `organisation_staff`."""
    names = [set(nodes.bindings_of(source.policy)) for source in sources]
    used = set().union(*names)
    renames: list[dict[str, str]] = []
    for number, (source, defined) in enumerate(zip(sources, names, strict=True)):
        others = set().union(*(other for index, other in enumerate(names) if index != number))
        renames.append({})
        for name in sorted(defined & others):
            prefix = _NOT_IN_NAMES.sub("_", source.name).strip("_") or "policy"
            new = f"{'_' if prefix[0].isdigit() else ''}{prefix}_{name}"
            while new in used:
                new = f"{new}_"
            used.add(new)
            renames[-1][name] = new
    return renames
