"""Checks of a policy beyond its syntax: mistakes, and rules that do less than they seem to.

`check` is the entry point; its parts are

- `checked_policy`: a policy as the checks see it;
- `together`: the same, with the other policies of a list;
- `rules`: rules for tools and arguments that do not exist, and rules without effect;
- `ways`: what a policy can do in each way of using it, and what has no purpose there;
- `label_scope`: what a condition depends on;
- `reachable`: what a condition can be with the labels that calls can bring about;
- `possible_labels`: the labels that somebody sets in a way, and what conditions can be there;
- `inert`: rules and steps without effect in a way, because of its labels;
- `labels`: labels that nothing sets or tests, misspelt labels;
- `literals`: texts, patterns and numbers that mean something else than they seem to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.coerce import (
    MAX_HEADER_BYTES,
    AnyTool,
    PolicySettings,
    allows_by_default,
    header_bytes,
    policy_of,
    settings_of,
)
from langchain_sequrity.sqrt.compiler import Severity, compiled_tools
from langchain_sequrity.sqrt.diagnostics import syntax_error
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.lint import inert, literals, removals, rules, ways
from langchain_sequrity.sqrt.lint.checked_policy import CheckedPolicy
from langchain_sequrity.sqrt.lint.labels import (
    find_labels_as_values,
    find_misspelt,
    find_unset,
    impossible_labels,
    tested_labels,
)
from langchain_sequrity.sqrt.lint.possible_labels import PossibleLabels
from langchain_sequrity.sqrt.lint.together import with_others
from langchain_sequrity.sqrt.lint.ways import ANY_WAY, WAYS, Capabilities, Way
from langchain_sequrity.sqrt.nodes import Policy, Position, has_rules
from langchain_sequrity.sqrt.policy_forms import AnyPolicy

Mode = Literal["single-llm", "dual-llm"]
"""The modes of the service."""
_MOST_SHOWN = 10
_NO_SETTINGS = PolicySettings()


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
        policy: The name of its policy if several are given together, else an empty text.
    """

    severity: Severity
    message: str
    line: int
    column: int
    hint: str = ""
    lets_through: bool = False
    policy: str = ""


def check(
    policy: AnyPolicy,
    tools: Iterable[AnyTool] | None = None,
    *,
    mode: Way | None = None,
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
        mode: The way in which the policy is used, to find rules without effect there:
            `single-llm` or `dual-llm` for a chat model in this mode, `middleware` for
            `PolicyMiddleware`, `executor` for `LangGraphExecutor` (its tools are the nodes, their
            arguments the fields). Default: what at least one way can do.
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
    if mode is not None and mode not in get_args(Way):
        *names, last = (f'"{name}"' for name in get_args(Way))
        msg = f"`mode` must be {', '.join(names)} or {last}; got {plain(repr(mode), limit=80)}."
        raise UsageError(msg)
    check_labels(labels)
    try:
        parsed = policy_of(policy)
    except PolicySyntaxError as error:
        return [finding_of(error)]
    findings = findings_in_parts(
        parts_of(policy, parsed),
        tools,
        capabilities=ANY_WAY if mode is None else WAYS[mode],
        labels=labels,
        settings=settings_of(policy),
        default_allow=allows_by_default(policy),
        header_bytes=header_bytes(policy, parsed),
    )
    return [
        replace(f, message=f"In the policy `{f.policy}`: {f.message}") if f.policy else f
        for f in findings
    ]


class PolicyPart(NamedTuple):
    """One of the policies that are given together.

    Attributes:
        name: Its name; empty if it is the only one.
        policy: The policy, in its own text.
    """

    name: str
    policy: Policy


def parts_of(policy: AnyPolicy, parsed: Policy) -> list[PolicyPart]:
    """The policies of a list or a combination, or the policy itself.

    Args:
        policy: The policy in any form.
        parsed: The same, parsed.
    """
    if isinstance(policy, str | Path | Policy | Engine):
        return [PolicyPart("", parsed)]
    # Most policies are not combined.
    from langchain_sequrity.sqrt.combination import combined_sources  # noqa: PLC0415

    parts = [PolicyPart(source.name, source.policy) for source in combined_sources(policy)]
    return parts if len(parts) > 1 else [PolicyPart("", parsed)]


def findings_in_parts(
    parts: Sequence[PolicyPart],
    tools: Iterable[AnyTool] | None,
    *,
    labels: Collection[str] = (),
    settings: PolicySettings = _NO_SETTINGS,
    header_bytes: int = 0,
    **options: Any,
) -> list[Finding]:
    """Find mistakes in policies that are given together, each in its own text.

    Args:
        parts: The policies.
        tools: Their tools.
        labels: As for `check`.
        settings: The fields of their `X-Policy`, which are reported once.
        header_bytes: The length of the header with all of them, which is reported once.
        options: As for `findings_in`.
    """
    if len(parts) > 1 and tools is not None:
        tools = list(tools)
    findings: list[Finding] = []
    for number, part in enumerate(parts):
        in_part = findings_in(
            part.policy,
            tools,
            others=[other.policy for other in parts if other is not part],
            labels=labels,
            settings=settings,
            header_bytes=0 if number else header_bytes,
            reports_settings=not number,
            **options,
        )
        findings += [replace(f, policy=part.name) for f in in_part] if part.name else in_part
    return findings


def check_labels(labels: object) -> None:
    """Check the type of an argument `labels`.

    Raises:
        UsageError: If it is not a collection of texts.
    """
    is_list = isinstance(labels, Collection) and not isinstance(labels, str | bytes | Mapping)
    if not (is_list and all(isinstance(name, str) for name in labels)):  # type: ignore[attr-defined]
        msg = (
            "`labels` must be a list of names, of tags and producers alike; got a "
            f'{type(labels).__name__}. Write `["web"]`.'
        )
        raise UsageError(msg)


def finding_of(error: PolicySyntaxError) -> Finding:
    """An error as a finding."""
    suffix = f" (line {error.line}, column {error.column})"
    message = str(error).removesuffix(f"\n{error.source}").removesuffix(suffix)
    return Finding("error", message, error.line, error.column)


def findings_in(
    policy: Policy,
    tools: Iterable[AnyTool] | None = None,
    *,
    unlabelled: Collection[str] = (),
    capabilities: Capabilities | None = None,
    labels: Collection[str] = (),
    settings: PolicySettings = _NO_SETTINGS,
    default_allow: bool = False,
    header_bytes: int = 0,
    reports_settings: bool = True,
    others: Sequence[Policy] = (),
) -> list[Finding]:
    """Find mistakes in a parsed policy.

    Args:
        policy: The policy.
        tools: The tools of the policy.
        unlabelled: Names of tools whose results have no labels of their own.
        capabilities: What the policy can do; `None` skips warnings that depend on it, and those of
            labels.
        labels: As for `check`.
        settings: The fields of its `X-Policy`.
        default_allow: Whether a call that no rule decides is known to be allowed.
        header_bytes: The length of the header that sends it; 0 if it is not sent.
        reports_settings: Whether to report fields of `settings` without effect.
        others: Policies that are given together with it: they set and test the same labels.
    """
    findings = _Findings()
    report = findings.report
    has_service_tools = capabilities is None or capabilities.runs_programs
    known_tools = None
    if tools is not None:
        known_tools = rules.KnownTools(
            tools, report, service_tools=has_service_tools, unlabelled=unlabelled
        )
    visit = known_tools.visit if known_tools else lambda *_: None
    matched = known_tools.matched_tools if known_tools else None
    checked = CheckedPolicy(policy, list(compiled_tools(policy, report, visit)), matched, report)
    rules.find_unreachable(checked)
    rules.find_must_allow_beside_others(checked)
    if any(finding.severity == "error" for finding in findings):
        return findings.in_order  # the other checks need a policy that compiles
    rules.find_empty(policy, report, default_allow=default_allow)
    if header_bytes > MAX_HEADER_BYTES:
        report(
            "warning", f"As a header this policy has {header_bytes:,} bytes; the limit is "
            f"{MAX_HEADER_BYTES:,}",
            Position(1, 1), "Shorten it, or split it by groups of tools",
        )  # fmt: skip
    rules.find_undone(checked)
    arguments = known_tools.arguments if known_tools else None
    together = checked
    if others:
        together = with_others(policy, others, known_tools, report) or checked
    possible = PossibleLabels(
        together, capabilities or ANY_WAY, settings, declared=labels, tools=arguments
    )
    tested = tested_labels(together, possible, settings.denied_branches)
    impossible = impossible_labels(tested, possible)
    labels_reported = find_misspelt(together, impossible)
    literals.find_address_leaks(checked)
    labels_reported |= literals.find_literal_mistakes(checked)
    reported = sorted(findings.positions)
    rules.find_rules_in_comments(checked)
    literals.find_odd_texts(checked, findings.positions)
    find_labels_as_values(checked)
    rules.find_overruled(checked)
    if default_allow:
        rules.find_needless_allowances(checked, reported)
    rules.find_constant_conditions(checked, reported)
    if capabilities is not None:
        is_ruled = has_rules(policy)
        if reports_settings:
            ways.find_idle_settings(settings, possible.capabilities, report, has_rules=is_ruled)
        ways.find_absent_service_tools(checked, capabilities, arguments)
        ways.find_rules_of_fields(checked, capabilities, arguments)
        ways.find_misused_endorsements(checked, capabilities, arguments)
        ways.find_open_blocks(checked, capabilities, settings)
        removals.find_quoted_removals(checked, possible)
        reported_positions = inert.find_unlabelled(together, possible)
        reported_positions |= find_unset(together, tested, possible, labels, labels_reported)
        if reports_settings:
            inert.find_idle_branches(settings, possible, report)
        if capabilities is not ANY_WAY:
            inert.find_inert(together, possible, reported_positions)
    return findings.in_order


def findings_of_settings(settings: PolicySettings, capabilities: Capabilities) -> list[Finding]:
    """Find only fields of `X-Policy` without effect, for a policy that cannot be read here."""
    findings = _Findings()
    ways.find_idle_settings(settings, capabilities, findings.report, has_rules=True)
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
    excerpts = []
    for finding in findings[:_MOST_SHOWN]:
        message = f"{finding.message}. {finding.hint}" if finding.hint else finding.message
        excerpts.append(str(syntax_error(text, Position(finding.line, finding.column), message)))
    if (n_more := len(findings) - _MOST_SHOWN) > 0:
        excerpts.append(f"… and {n_more} more")
    return "\n".join(excerpts)


class _Findings(list[Finding]):
    """Collects findings."""

    def report(
        self, severity: Severity, message: str, position: Position, hint: str = "", **options: Any
    ) -> None:
        """Add a finding; the options are those of a `Reporter`."""
        self.append(Finding(severity, message, *position, hint, **options))

    @property
    def positions(self) -> set[Position]:
        """The positions of all findings."""
        return {Position(finding.line, finding.column) for finding in self}

    @property
    def in_order(self) -> list[Finding]:
        """All findings in source order, without duplicates."""
        return sorted(dict.fromkeys(self), key=lambda finding: (finding.line, finding.column))
