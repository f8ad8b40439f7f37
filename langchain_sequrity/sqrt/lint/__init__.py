"""Checks of a policy beyond its syntax: mistakes, and rules that do less than they seem to.

`check` is the entry point; its parts are

- `checked_policy`: a policy as the checks see it;
- `rules`: rules for tools and arguments that do not exist, and rules without effect;
- `labels`: labels that nothing sets or tests, misspelt labels, modes without labels;
- `literals`: texts, patterns and numbers that mean something else than they seem to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import (
    MAX_HEADER_BYTES,
    AnyTool,
    allows_by_default,
    header_bytes,
    policy_of,
)
from langchain_sequrity.sqrt.compiler import Severity, compiled_tools, ignore_findings
from langchain_sequrity.sqrt.diagnostics import syntax_error
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.lint import literals, rules
from langchain_sequrity.sqrt.lint.checked_policy import CheckedPolicy
from langchain_sequrity.sqrt.lint.labels import (
    find_labels_as_values,
    find_misspelt,
    find_unlabelled,
    find_unset,
)
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.policy_forms import AnyPolicy

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.combination.sources import Source

Mode = Literal["single-llm", "dual-llm"]
_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake or a probable mistake in a policy.

    Attributes:
        severity: `error` if the policy cannot work, `warning` if it may surprise.
        message: The mistake.
        line: Its line, from 1.
        column: Its column, from 1.
        hint: What to do, or an empty text.
        lets_through: Whether a rule protects less than it seems to. Such a warning also appears
            wherever the policy is used, not only in `check`.
    """

    severity: Severity
    message: str
    line: int
    column: int
    hint: str = ""
    lets_through: bool = False


def check(
    policy: AnyPolicy,
    tools: Iterable[AnyTool] | None = None,
    *,
    mode: Mode | None = None,
    labels: Collection[str] = (),
) -> list[Finding]:
    """Find mistakes in a policy.

    Args:
        policy: Text, a `pathlib.Path` to a file, a parsed policy, a `PolicyHeader`, an engine, or a
            list of policies. Each policy of a list is checked in its own text, together with the
            labels of the others, and each message names the policy.
        tools: The tools of the policy: names, definitions as sent to a model, LangChain tools, or
            anything that `bind_tools` accepts. Rules for an unknown tool or argument protect
            nothing, so they are errors.
        mode: `single-llm` to find rules that need labels of arguments, which such sessions do not
            have.
        labels: Tags and producers that tools set on their results (`labeled_tool_result`), or that
            your program tests. Other labels that no rule sets or no rule tests get a warning.

    Returns:
        The findings in source order. If there is a syntax error, it is the only finding.

    Raises:
        UsageError: If `policy`, `tools`, `mode` or `labels` is invalid, or policies of a list
            cannot be combined.

    Example:
        ```python
        from langchain_sequrity.sqrt import check

        (finding,) = check('tool "send_mial" { must deny always; }', tools=["send_mail"])
        assert finding.severity == "error"
        assert finding.hint == "Did you mean `send_mail`?"
        ```
    """
    if mode is not None and mode not in get_args(Mode):
        msg = f'`mode` must be "single-llm" or "dual-llm"; got {plain(repr(mode), limit=80)}.'
        raise UsageError(msg)
    if isinstance(labels, str | Mapping):
        msg = (
            "`labels` must be a list of names, of tags and producers alike; got a "
            f'{type(labels).__name__}. Write `["web"]`.'
        )
        raise UsageError(msg)
    try:
        parsed = policy_of(policy)
    except PolicySyntaxError as error:
        return [finding_of(error)]
    default_allow, size = allows_by_default(policy), header_bytes(policy, parsed)
    sources = () if isinstance(policy, str | Path | Policy | Engine) else _sources_of(policy)
    if len(sources) < 2:  # noqa: PLR2004 - several
        return findings_in(
            parsed, tools, mode=mode, labels=labels, default_allow=default_allow, header_bytes=size
        )
    findings: list[Finding] = []
    for source in sources:
        others = [other.policy for other in sources if other is not source]
        known = {*labels, *_labels_of_others(source.policy, others)}
        findings += _named(
            source.name,
            findings_in(
                source.policy, tools, mode=mode, labels=known, default_allow=default_allow,
                header_bytes=size,
            ),
        )  # fmt: skip
        size = 0  # the length of all is reported once
    return findings


def _sources_of(policy: AnyPolicy) -> "tuple[Source, ...]":
    # Most policies are not combined.
    from langchain_sequrity.sqrt.combination import combined_sources  # noqa: PLC0415

    return combined_sources(policy)


def _named(policy: str, findings: Iterable[Finding]) -> list[Finding]:
    return [
        replace(finding, message=f"In the policy `{policy}`: {finding.message}")
        for finding in findings
    ]


def _labels_of_others(policy: Policy, others: Iterable[Policy]) -> set[str]:
    """Labels that others set, and those that a policy sets and others test."""
    sets = {name for other in others for name in _names_in(other, nodes.Update)}
    tests = {name for other in others for name in _names_in(other, nodes.LabelTest)}
    tests |= {name for other in others for name in _names_in(other, nodes.Membership)}
    return sets | (tests & _names_in(policy, nodes.Update))


def _names_in(policy: Policy, kind: type) -> set[str]:
    """The plain texts in all nodes of a kind; those of names count for each kind."""
    roots = [node for node in nodes.walk(policy.declarations) if isinstance(node, kind)]
    roots += [node for node in policy.declarations if isinstance(node, nodes.Binding)]
    return {
        node.raw
        for node in nodes.walk(tuple(roots))
        if isinstance(node, nodes.TextLiteral) and node.kind == "plain"
    }


def finding_of(error: PolicySyntaxError) -> Finding:
    """An error as a finding."""
    place = f" (line {error.line}, column {error.column})"
    message = str(error).removesuffix(f"\n{error.source}").removesuffix(place)
    return Finding("error", message, error.line, error.column)


def findings_in(
    policy: Policy,
    tools: Iterable[AnyTool] | None = None,
    *,
    mode: Mode | None = None,
    labels: Collection[str] | None = None,
    default_allow: bool = False,
    header_bytes: int = 0,
) -> list[Finding]:
    """Find mistakes in a parsed policy.

    Args:
        policy: The policy.
        tools: The tools of the policy.
        mode: The mode of its sessions.
        labels: As for `check`; `None` skips these warnings.
        default_allow: Whether a call that no rule decides is known to be allowed.
        header_bytes: The length of the header that sends it; 0 if it is not sent.
    """
    findings = _Findings()
    report = findings.report
    known = None if tools is None else rules.KnownTools(tools, report)
    compiled = list(compiled_tools(policy, report, known.visit if known else lambda *_: None))
    checked = CheckedPolicy(policy, compiled, known.found if known else None, report)
    rules.find_unreachable(checked)
    rules.find_must_allow_beside_others(checked)
    if any(
        one.severity == "error" for one in findings
    ):  # the other checks need a policy that compiles
        return findings.in_order
    rules.find_empty(policy, report, default_allow=default_allow)
    if header_bytes > MAX_HEADER_BYTES:
        report(
            "warning", f"As a header this policy has {header_bytes:,} bytes; the limit is "
            f"{MAX_HEADER_BYTES:,}",
            Position(1, 1), "Shorten it, or split it by groups of tools",
        )  # fmt: skip
    rules.find_undone(checked)
    labels_reported = find_misspelt(checked)
    literals.find_address_leaks(checked)
    labels_reported |= literals.find_literal_mistakes(checked)
    reported = sorted(findings.places)
    rules.find_rules_in_comments(checked)
    literals.find_odd_texts(checked, findings.places)
    find_labels_as_values(checked)
    rules.find_overruled(checked)
    if default_allow:
        rules.find_needless_allowances(checked, reported)
    rules.find_constant_conditions(checked, reported)
    if mode == "single-llm":
        find_unlabelled(checked)
    if labels is not None:
        find_unset(checked, labels, known.arguments if known else None, labels_reported)
    return findings.in_order


def findings_of_mode(policy: Policy, mode: Mode) -> list[Finding]:
    """Find only rules that need labels which sessions of a mode do not have.

    Args:
        policy: A policy that compiles.
        mode: The mode of its sessions.

    Returns:
        The findings in source order; an error is a denial that never applies.
    """
    findings = _Findings()
    if mode == "single-llm":
        compiled = list(compiled_tools(policy, ignore_findings))
        find_unlabelled(CheckedPolicy(policy, compiled, None, findings.report))
    return findings.in_order


def empty_findings(policy: Policy) -> list[Finding]:
    """Find only whether a policy has no rules.

    Args:
        policy: A policy that compiles.

    Returns:
        At most one finding.
    """
    findings = _Findings()
    rules.find_empty(policy, findings.report, default_allow=True)
    return findings.in_order


def findings_with_carets(text: str, findings: Sequence[Finding]) -> str:
    """The first findings in a text, each with its line and a caret under its place."""
    shown = []
    for one in findings[:_MOST_SHOWN]:
        message = f"{one.message}. {one.hint}" if one.hint else one.message
        shown.append(str(syntax_error(text, Position(one.line, one.column), message)))
    if (more := len(findings) - _MOST_SHOWN) > 0:
        shown.append(f"… and {more} more")
    return "\n".join(shown)


class _Findings(list[Finding]):
    """Collects findings."""

    def report(
        self,
        severity: Severity,
        message: str,
        at: Position,
        hint: str = "",
        *,
        lets_through: bool = False,
    ) -> None:
        """Add a finding."""
        self.append(Finding(severity, message, at.line, at.column, hint, lets_through))

    @property
    def places(self) -> set[Position]:
        """The positions of all findings."""
        return {Position(found.line, found.column) for found in self}

    @property
    def in_order(self) -> list[Finding]:
        """All findings in source order, without duplicates."""
        return sorted(dict.fromkeys(self), key=lambda found: (found.line, found.column))
