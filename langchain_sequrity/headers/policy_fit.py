"""What a policy cannot do where it is given: in the way of its use, and with the tools there.

`check` finds it (`sqrt.lint`); this module tells it, once in each place, as a warning or an error.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import orjson

from langchain_sequrity.errors import PolicyMismatch, UsageError, warn
from langchain_sequrity.headers.policy import PolicyHeader

if TYPE_CHECKING:
    from langchain_sequrity.sqrt import Finding, Policy
    from langchain_sequrity.sqrt.coerce import AnyTool, PolicySettings
    from langchain_sequrity.sqrt.lint.ways import Capabilities


def warn_of_policy(text: str, *, is_strict: bool) -> None:
    """Warn of a policy that does less than it says.

    Raises:
        UsageError: Instead of the warning, if `is_strict`.
    """
    if not text:
        return
    if is_strict:
        raise UsageError(text)
    warn(text, PolicyMismatch)


def problems(
    policy: PolicyHeader | None,
    capabilities: "Capabilities",
    tools: "Sequence[AnyTool] | None" = None,
    *,
    unlabelled: Collection[str] = (),
    labels: Collection[str] = (),
) -> "list[Finding]":
    """Find the rules and fields of a policy that do less than they say.

    Args:
        policy: The policy.
        capabilities: What it can do where it is given.
        tools: Its tools; `None` if they are unknown.
        unlabelled: Names of tools whose results have no labels of their own.
        labels: Tags and producers that tools set on their results.

    Returns:
        The findings in source order. If the policy cannot be compiled here, only those of its
        fields: the service may know more.
    """
    if policy is None:
        return []
    from langchain_sequrity.sqrt.coerce import allows_by_default, settings_of  # noqa: PLC0415 - for policies only
    from langchain_sequrity.sqrt.lint import parts_of  # noqa: PLC0415

    parsed = _parsed(policy)
    facts = _Facts(
        None
        if parsed is None
        else tuple((p.name, p.policy.text) for p in parts_of(policy, parsed)),
        capabilities,
        settings_of(policy),
        allows_by_default(policy),
        frozenset(unlabelled),
        frozenset(labels),
    )
    if tools is not None and not all(isinstance(tool, Mapping) for tool in tools):
        return _problems(facts, tools)
    try:
        return list(_problems_of_sent(facts, None if tools is None else orjson.dumps(tools)))
    except TypeError:  # not JSON: the error comes when it is sent
        return []


class _Facts(NamedTuple):
    """What the findings depend on, besides the tools.

    Of each policy, `parts` has the name and the text, because a cache has these as a key.
    """

    parts: tuple[tuple[str, str], ...] | None
    capabilities: "Capabilities"
    settings: "PolicySettings"
    default_allow: bool
    unlabelled: frozenset[str]
    labels: frozenset[str]


@lru_cache(maxsize=128)  # an agent binds the same tools before each answer
def _problems_of_sent(facts: _Facts, tools: bytes | None) -> "tuple[Finding, ...]":
    return tuple(_problems(facts, None if tools is None else orjson.loads(tools)))


def _problems(facts: _Facts, tools: "Sequence[AnyTool] | None") -> "list[Finding]":
    from langchain_sequrity.sqrt.lint import (  # noqa: PLC0415
        PolicyPart,
        findings_in_parts,
        findings_of_settings,
    )
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    if facts.parts is None:
        return findings_of_settings(facts.settings, facts.capabilities)
    findings = findings_in_parts(
        [PolicyPart(name, parse(text)) for name, text in facts.parts],
        None if tools is None else [*map(_readable, tools)],
        unlabelled=facts.unlabelled,
        capabilities=facts.capabilities,
        labels=facts.labels,
        settings=facts.settings,
        default_allow=facts.default_allow,
    )
    return [finding for finding in findings if finding.severity == "error" or finding.lets_through]


def _readable(tool: "AnyTool") -> "AnyTool":
    """The tool as the lint takes it; only the name of a tool that the provider runs."""
    from langchain_sequrity.sqrt.coerce import arguments_of  # noqa: PLC0415

    if not isinstance(tool, Mapping):
        return tool
    try:
        arguments_of([tool])
    except UsageError:
        return str(tool.get("name") or tool.get("type"))
    return tool


def describe(
    findings: "Sequence[Finding]", capabilities: "Capabilities", misfit: str = "", advice: str = ""
) -> str:
    """The findings as a text.

    Args:
        findings: The findings.
        capabilities: What the policy can do where it is given.
        misfit: What is wrong with rules for tools and arguments that do not exist.
        advice: What to do about these.

    Returns:
        Headings, with one line per finding. Empty without findings.
    """
    reason = capabilities.without_labels
    misfits: list[Finding] = []
    no_labels: list[Finding] = []
    others: list[Finding] = []
    for finding in findings:
        if is_misfit(finding):
            misfits.append(finding)
        elif reason and finding.message.startswith(reason):
            message = finding.message.removeprefix(f"{reason}: ")
            no_labels.append(replace(finding, message=message, hint=""))
        else:
            others.append(finding)
    texts = []
    if misfits:
        texts.append(f"{misfit}:\n{_lines(misfits)}\n{advice}")
    if others:
        texts.append(f"The policy protects less than it seems to:\n{_lines(others)}")
    if no_labels:
        why = reason[0].lower() + reason[1:]
        texts.append(
            f"The policy asks for labels of arguments, and {why}:\n{_lines(no_labels)}\n"
            f"{capabilities.advice}."
        )
    return "\n".join(texts)


def news(
    findings: "Sequence[Finding]",
    capabilities: "Capabilities",
    earlier: "Sequence[Finding]",
    earlier_capabilities: "Capabilities",
) -> "list[Finding]":
    """The findings in a way without those that were told of another way."""
    repeated = {_anywhere(finding, earlier_capabilities) for finding in earlier}
    return [finding for finding in findings if _anywhere(finding, capabilities) not in repeated]


def is_repeated(finding: "Finding", earlier: "Iterable[Finding]") -> bool:
    """Whether an earlier finding told the same mistake, perhaps in other words.

    When the tools are known, more is known about a rule. At one place, findings are about the same
    mistake if their advice is the same, or if both say how little the rule there protects.
    """
    return any(
        finding == old
        or (
            _position(finding) == _position(old)
            and ((finding.lets_through and old.lets_through) or finding.hint == old.hint != "")
        )
        for old in earlier
    )


def _position(finding: "Finding") -> tuple[str, int, int]:
    return finding.policy, finding.line, finding.column


def _anywhere(finding: "Finding", capabilities: "Capabilities") -> "Finding":
    return replace(finding, message=finding.message.removeprefix(capabilities.where))


def is_misfit(finding: "Finding") -> bool:
    """Whether a finding is about a tool or an argument that does not exist."""
    return finding.severity == "error" and not finding.lets_through


def _lines(findings: "Iterable[Finding]") -> str:
    return "\n".join(
        f"- line {finding.line}{f' of `{finding.policy}`' if finding.policy else ''}: "
        f"{finding.message}.{f' {finding.hint}' if finding.hint else ''}"
        for finding in findings
    )


def missing_rules(policy: PolicyHeader | None, *, in_process: bool = False) -> str:
    """A sentence on a policy without rules, unless it has presets or a mode.

    Args:
        policy: The policy.
        in_process: Whether this process applies it, where a mode without rules denies nothing.

    Returns:
        The sentence. Empty if the policy has rules, or cannot be compiled here.
    """
    if policy is None or policy.presets or policy.auto_gen or (policy.mode and not in_process):
        return ""
    if policy.extra and not in_process:  # only the service knows these fields
        return ""
    if (parsed := _parsed(policy)) is None:
        return ""
    from langchain_sequrity.sqrt.lint import empty_findings  # noqa: PLC0415

    findings = empty_findings(parsed)
    return "\n".join(f"{finding.message}. {finding.hint}." for finding in findings)


def _parsed(policy: PolicyHeader) -> "Policy | None":
    try:
        return policy.compile().policy
    except UsageError:
        return None
