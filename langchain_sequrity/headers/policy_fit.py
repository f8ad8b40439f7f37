"""Checks that a policy does what it says with the tools and in the mode of a session."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from langchain_sequrity.errors import PolicyMismatch, UsageError, warn
from langchain_sequrity.headers.policy import PolicyHeader

if TYPE_CHECKING:
    from langchain_sequrity.sqrt import Finding, Policy

_BLIND = "In single-LLM mode arguments have no labels: "
DUAL_LLM = '`features={"agent_arch": "dual-llm"}`'


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


def unfit_for_tools(policy: PolicyHeader | None, tools: Iterable[Mapping[str, Any]]) -> str:
    """The rules for unknown tools, arguments or values.

    Args:
        policy: The policy.
        tools: The tools' definitions.

    Returns:
        One line per rule. Empty if there are none, or if the policy cannot be compiled here: the
        service may know more.
    """
    if policy is None or policy.codes is None or _parsed(policy) is None:
        return ""
    try:
        written = orjson.dumps(list(tools))
    except TypeError:
        return ""
    return _joined(_unfit_for_tools(text, written, policy=name) for name, text in _texts(policy))


@lru_cache(maxsize=64)  # an agent binds the same tools before each answer
def _unfit_for_tools(text: str, tools: bytes, *, policy: str) -> str:
    from langchain_sequrity.sqrt.lint import findings_in  # noqa: PLC0415 - for policies only
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    parsed = parse(text)
    found = findings_in(parsed, list(map(_tool_for_lint, orjson.loads(tools))))
    reported = set(findings_in(parsed))  # when the model was constructed
    return _findings_text(
        (
            one
            for one in found
            if one.severity == "error" or (one.lets_through and one not in reported)
        ),
        policy=policy,
    )


def _tool_for_lint(tool: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """The tool as the lint takes it; only the name of a tool that the provider runs."""
    from langchain_sequrity.sqrt.coerce import arguments_of  # noqa: PLC0415

    try:
        arguments_of([tool])
    except UsageError:
        return str(tool.get("name") or tool.get("type"))
    return tool


def rules_that_need_labels(policy: PolicyHeader | None) -> str:
    """The rules that ask for labels of arguments, for a session without such labels.

    Args:
        policy: The policy.

    Returns:
        One line per rule, or an empty text.
    """
    if policy is None or _parsed(policy) is None:
        return ""
    from langchain_sequrity.sqrt.lint import findings_of_mode  # noqa: PLC0415
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    return _joined(
        _findings_text(findings_of_mode(parse(text), "single-llm"), shown=_BLIND, policy=name)
        for name, text in _texts(policy)
    )


def without_force(policy: PolicyHeader | None) -> str:
    """The rules that allow what they seem to deny.

    Args:
        policy: The policy.

    Returns:
        A heading and one line per rule. Empty if there are none, or if the policy cannot be
        compiled here.
    """
    if policy is None or policy.codes is None or _parsed(policy) is None:
        return ""
    from langchain_sequrity.sqrt.coerce import allows_by_default  # noqa: PLC0415

    default_allow = allows_by_default(policy)
    listed = _joined(
        _without_force(text, default_allow, policy=name) for name, text in _texts(policy)
    )
    return f"The policy protects less than it seems to:\n{listed}" if listed else ""


@lru_cache(maxsize=64)  # models with the same policy are often constructed and copied
def _without_force(
    text: str,
    default_allow: bool,  # noqa: FBT001 - a key of the cache
    *,
    policy: str,
) -> str:
    from langchain_sequrity.sqrt.lint import findings_in  # noqa: PLC0415 - for policies only
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    found = findings_in(parse(text), default_allow=default_allow)
    return _findings_text((one for one in found if one.lets_through), policy=policy)


def missing_rules(policy: PolicyHeader | None, *, here: bool = False) -> str:
    """A sentence on a policy without rules, unless it has presets or a mode.

    Args:
        policy: The policy.
        here: Whether this process applies it, where a mode without rules denies nothing.

    Returns:
        The sentence. Empty if the policy has rules, or cannot be compiled here.
    """
    if policy is None or policy.presets or policy.auto_gen or (policy.mode and not here):
        return ""
    if policy.extra and not here:  # only the service knows these fields
        return ""
    if (parsed := _parsed(policy)) is None:
        return ""
    from langchain_sequrity.sqrt.lint import empty_findings  # noqa: PLC0415

    return "\n".join(f"{one.message}. {one.hint}." for one in empty_findings(parsed))


def _parsed(policy: PolicyHeader) -> "Policy | None":
    try:
        return policy.compile().policy
    except UsageError:
        return None


def _texts(policy: PolicyHeader) -> list[tuple[str, str]]:
    """The author's texts: one without a name, or those of combined policies with their names."""
    if policy.combination is not None:
        return [(source.name, source.policy.text) for source in policy.combination.sources]
    return [("", (policy.codes and policy.codes.code) or "")]


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(filter(None, texts))


def _findings_text(found: "Iterable[Finding]", *, shown: str = "", policy: str) -> str:
    hint = not shown
    where = f" of `{policy}`" if policy else ""
    return "\n".join(
        f"- line {one.line}{where}: {one.message.removeprefix(shown)}. "
        f"{one.hint if hint else ''}".rstrip()
        for one in found
    )
