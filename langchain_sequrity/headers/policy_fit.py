"""Whether a policy does what it says in a session with these tools, and in this mode."""

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


def tell(text: str, *, is_strict: bool) -> None:
    """Warn of a policy that does not do what it says; with `is_strict` that is an error.

    Raises:
        UsageError: If it is strict.
    """
    if not text:
        return
    if is_strict:
        raise UsageError(text)
    warn(text, PolicyMismatch)


def unfit_for_tools(policy: PolicyHeader | None, tools: Iterable[Mapping[str, Any]]) -> str:
    """Say which rules are for tools, arguments or values that are not there.

    Args:
        policy: The policy.
        tools: The tools' definitions.

    Returns:
        One line a rule; empty if there are none, or if the policy cannot be read here: the service
        may know more.
    """
    if policy is None or policy.codes is None or _parsed(policy) is None:
        return ""
    try:
        written = orjson.dumps(list(tools))
    except TypeError:
        return ""
    return _unfit_for_tools(policy.codes.code or "", written)


@lru_cache(maxsize=64)  # an agent binds the same tools before each answer
def _unfit_for_tools(text: str, tools: bytes) -> str:
    from langchain_sequrity.sqrt.lint import findings_in  # noqa: PLC0415 - few have a policy
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    parsed = parse(text)
    found = findings_in(parsed, list(map(_readable, orjson.loads(tools))))
    told = set(findings_in(parsed))  # where the policy was given
    return _listed(
        one for one in found if one.severity == "error" or (one.lets_through and one not in told)
    )


def _readable(tool: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """A tool as a policy can be compared with it: of the provider's own no more than the name."""
    from langchain_sequrity.sqrt.coerce import arguments_of  # noqa: PLC0415

    try:
        arguments_of([tool])
    except UsageError:
        return str(tool.get("name") or tool.get("type"))
    return tool


def without_labels(policy: PolicyHeader | None) -> str:
    """Say which rules ask for labels of arguments, for a session in which these have none.

    Args:
        policy: The policy.

    Returns:
        One line a rule, likewise.
    """
    parsed = None if policy is None else _parsed(policy)
    if parsed is None:
        return ""
    from langchain_sequrity.sqrt.lint import findings_of_mode  # noqa: PLC0415

    return _listed(findings_of_mode(parsed, "single-llm"), shown=_BLIND)


def without_force(policy: PolicyHeader | None) -> str:
    """Say which rules let through what they seem to deny.

    Args:
        policy: The policy.

    Returns:
        One line a rule under a line of its own; empty if there are none, or if the policy cannot be
        read here.
    """
    if policy is None or policy.codes is None or _parsed(policy) is None:
        return ""
    from langchain_sequrity.sqrt.coerce import allows_by_default  # noqa: PLC0415

    listed = _without_force(policy.codes.code or "", allows_by_default(policy))
    return f"The policy protects less than it seems to:\n{listed}" if listed else ""


@lru_cache(maxsize=64)  # models are copied and made again with one policy many times
def _without_force(text: str, default_allow: bool) -> str:  # noqa: FBT001 - a key of the cache
    from langchain_sequrity.sqrt.lint import findings_in  # noqa: PLC0415 - few have a policy
    from langchain_sequrity.sqrt.parser import parse  # noqa: PLC0415

    found = findings_in(parse(text), default_allow=default_allow)
    return _listed(one for one in found if one.lets_through)


def without_rules(policy: PolicyHeader | None, *, here: bool = False) -> str:
    """Say that a policy has no rules, unless it is names for other texts, or a mode and presets.

    Args:
        policy: The policy.
        here: Whether it is applied in this process, where a mode without rules denies nothing.

    Returns:
        A sentence; empty if it has rules, or if it cannot be read here.
    """
    if policy is None or policy.presets or policy.auto_gen or (policy.mode and not here):
        return ""
    if policy.extra and not here:  # which only the service knows
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


def _listed(found: "Iterable[Finding]", *, shown: str = "") -> str:
    hint = not shown
    return "\n".join(
        f"- line {one.line}: {one.message.removeprefix(shown)}. {one.hint if hint else ''}".rstrip()
        for one in found
    )
