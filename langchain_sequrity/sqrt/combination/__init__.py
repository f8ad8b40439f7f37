"""Policies combined into one: an organisation's and an application's, for example.

A service takes one text, so the combination is one text in which no policy allows what another
denies. `sources` reads the policies, `settings` joins their other fields, `labels` refuses changes
of labels that another policy relies on, and `rules` writes the rules.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_sequrity.display import enumeration, plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.labels import check_labels
from langchain_sequrity.sqrt.combination.rules import Written, strictest, written_rules
from langchain_sequrity.sqrt.combination.settings import joined_settings
from langchain_sequrity.sqrt.combination.sources import (
    NamedPolicy,
    Source,
    checks_of,
    combination_of,
    named,
    origins_of,
    read_sources,
)
from langchain_sequrity.sqrt.compaction import AuthorPlace
from langchain_sequrity.sqrt.compiler import compiled_tools
from langchain_sequrity.sqrt.engine import Engine, compile_policy, error_raiser
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from langchain_sequrity.sqrt.node_text import declarations_text
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.verdict import DEFAULT_RULE, Origin, Presets

if TYPE_CHECKING:
    import rich.text

__all__ = ["Combination", "NamedPolicy", "combine", "combined_sources", "named"]


@dataclass(frozen=True, eq=False, repr=False)
class Combination:
    """Policies combined into one; made by `combine`, and accepted wherever a policy is.

    Attributes:
        sources: The policies, each with `name`, `policy` and `settings`.
        policy: The combined policy; `policy.text` is its text.
        settings: The other fields of `X-Policy`, as JSON.
        origins: The authors' rules by the position of the combination's rules; with `None`, the
            policy that denies by default.
        places: The author's policy and place by the position of each node.
    """

    sources: tuple[Source, ...]
    policy: Policy
    settings: Mapping[str, Any]
    origins: Mapping[Position | None, Origin]
    places: Mapping[Position, tuple[Source, Position]]

    @property
    def text(self) -> str:
        """The combination as SQRT text."""
        return self.policy.text

    def compile(self, *, dual_llm: bool = True) -> Engine:
        """Compile it; the reasons of its verdicts name the policy and the author's rule.

        Args:
            dual_llm: Whether it is for a dual-LLM session; some presets are only for these.

        Returns:
            An engine.

        Raises:
            PolicySyntaxError: If a regex does not compile here.
        """
        presets = Presets.of_settings(self.settings, dual_llm=dual_llm)
        engine = compile_policy(self.policy, presets)
        return replace(engine, origins=self.origins, parts=self.parts(dual_llm=dual_llm))

    def parts(self, *, dual_llm: bool = True) -> tuple[Engine, ...]:
        """The engine of each policy, whose reasons name it.

        Args:
            dual_llm: As for `compile`.

        Returns:
            The engines; none for a single policy.
        """
        sources = self.sources if len(self.sources) > 1 else ()
        return tuple(
            replace(
                compile_policy(
                    source.policy, Presets.of_settings(source.settings, dual_llm=dual_llm)
                ),
                origins=origins_of(source),
            )
            for source in sources
        )

    def origin(self, line: int, column: int | None = None) -> Origin | None:
        """The author's rule at a place of the combined text.

        Args:
            line: The line, from 1.
            column: The column, from 1, if known.

        Returns:
            The rule; `None` if no rule begins before that place, or the place is in a rule of the
            combination itself.
        """
        places = [check.at for check in checks_of(self.policy)]
        at = self._begin(sorted(places), line, column)
        return None if at is None else self.origins.get(at)

    def origin_of(self, rule: str | None, reason: str | None, at: Position | None) -> Origin | None:
        """The author's rule behind a reason of the service.

        Args:
            rule: The rule, with any white space, or the name of a preset; `None` if not reported.
            reason: Its doc comment; `None` if not reported.
            at: Its place in the combined text; `None` if not reported.

        Returns:
            The rule. Without a place it is found by its text, or by its doc comment; `None` if it
            may belong to several policies.
        """
        if at is not None:
            return self.origin(*at)
        if rule == DEFAULT_RULE:
            return self.origins.get(None)
        written = _without_spaces(rule)
        candidates = {
            origin
            for check in checks_of(self.policy)
            if (origin := self.origins.get(check.at)) is not None
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

    def author_of(self, at: Position) -> AuthorPlace | None:
        """The author's place for a place of the combined text.

        Args:
            at: The place.

        Returns:
            The name and text of the policy, and the place in that text; `None` if no policy has
            that place.
        """
        place = self.place(*at)
        if place is None:
            return None
        source, author_at = place
        return AuthorPlace(source.name, source.policy.text, author_at)

    def place(self, line: int, column: int | None = None) -> tuple[Source, Position] | None:
        """The author's policy and the place in it.

        Args:
            line: The line in the combined text, from 1.
            column: The column, from 1, if known.

        Returns:
            The policy and the place; `None` before the first rule.
        """
        at = self._begin(self._sorted_places, line, column)
        return None if at is None else self.places[at]

    @cached_property
    def _sorted_places(self) -> list[Position]:
        return sorted(self.places)

    @staticmethod
    def _begin(places: Sequence[Position], line: int, column: int | None) -> Position | None:
        """The last of these places that is not after a place."""
        index = bisect_right(places, (line, column or 10**9)) - 1
        return places[index] if index >= 0 else None

    def __str__(self) -> str:
        """The text."""
        return self.text

    def __repr__(self) -> str:
        """The names of the policies."""
        return f"Combination({', '.join(source.name for source in self.sources)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """The text, for IPython in a terminal."""
        printer.text(plain(self.text, limit=len(self.text), lines=True))

    def _repr_html_(self) -> str:
        """The text in colour, for notebooks."""
        return self.policy._repr_html_()

    def __rich__(self) -> "rich.text.Text":
        """The text in colour, for rich."""
        return self.policy.__rich__()


def combine(*policies: AnyPolicy) -> Combination:
    """Combine policies into one text that denies whatever one of them denies.

    The combination denies a call if and only if at least one policy denies it. All policies read
    and change the same labels. A denial names the policy that decided, with the place in its text.

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
    if len(sources) == 1:
        return _alone(sources[0])
    settings = joined_settings(sources)
    check_labels(sources)
    sections = written_rules(sources, _new_names(sources))
    return _combined(sources, settings, sections, _parsed(sources, sections))


def _alone(source: Source) -> Combination:
    """One policy as it is."""
    origins = origins_of(source) if source.is_named else {}
    places = {at: (source, at) for at in _positions(source.policy.declarations)}
    return Combination((source,), source.policy, source.settings, origins, places)


def _combined(
    sources: Sequence[Source],
    settings: Mapping[str, Any],
    sections: Sequence[tuple[str, Sequence[Written]]],
    policy: Policy,
) -> Combination:
    origins: dict[Position | None, Origin] = {}
    places: dict[Position, tuple[Source, Position]] = {}
    by_section = [(number, one) for number, (_, written) in enumerate(sections) for one in written]
    for (number, written), node in zip(by_section, policy.declarations, strict=True):
        if isinstance(node, nodes.ToolBlock):
            pairs = zip(node.checks, written.origins, strict=True)
            origins |= {check.at: origin for check, origin in pairs if origin is not None}
        if number < len(sources):
            pairs_of_places = zip(_positions(node), _positions(written.node), strict=True)
            for at, author_at in pairs_of_places:
                places.setdefault(at, (sources[number], author_at))
    if (denying := strictest(sources)) is not None:
        origins[None] = Origin(denying.name, None, DEFAULT_RULE)
    return Combination(tuple(sources), policy, settings, origins, places)


def _parsed(sources: Sequence[Source], sections: Sequence[tuple[str, Sequence[Written]]]) -> Policy:
    """The combined text as nodes.

    Raises:
        UsageError: If it is too long, or a combined condition is nested too deeply.
    """
    shown = enumeration([f"`{source.name}`" for source in sources])
    try:
        text = "\n".join(_section(heading, written) for heading, written in sections)
        policy = parse(text, max_characters=len(text))
        for _ in compiled_tools(policy, error_raiser(text, skip_regexes=True)):
            pass
    except UsageError as error:
        msg = f"The policies {shown} cannot be written as one text: {error}"
        raise UsageError(msg) from None
    if len(text) > MAX_CHARACTERS:
        msg = (
            f"The policies {shown} have {len(text):,} characters as one text; the limit is "
            f"{MAX_CHARACTERS:,}. Shorten one of them."
        )
        raise UsageError(msg)
    return policy


def _section(heading: str, written: Sequence[Written]) -> str:
    declarations = tuple(one.node for one in written)
    return f"// {heading}\n\n{declarations_text(declarations)}"


def _without_spaces(text: str | None) -> str:
    return "".join((text or "").split())


def _positions(root: object) -> Iterator[Position]:
    return (node.at for node in nodes.walk(root) if hasattr(node, "at"))


def combined_sources(policy: object) -> tuple[Source, ...]:
    """The policies behind a list, a combination or its header; empty for any other policy."""
    if isinstance(policy, list | tuple | NamedPolicy):
        policy = combine(policy)
    combination = combination_of(policy)
    return () if combination is None else combination.sources


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
