"""A policy in the forms in which it is given: text, nodes, an engine, or what makes one."""

from typing import Protocol

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse


class Compilable(Protocol):
    """What can make an engine of itself, as a `PolicyHeader`."""

    def compile(self) -> Engine:
        """Make the engine."""


AnyPolicy = str | Policy | Engine | Compilable
"""Text or nodes, under the service's default presets; or an engine, or what makes one."""


def engine_of(policy: AnyPolicy) -> Engine:
    """The engine that decides for a policy."""
    if isinstance(policy, str | Policy):
        return compile_policy(policy)
    if isinstance(policy, Engine):
        return policy
    if not callable(getattr(policy, "compile", None)):
        msg = (
            "Expected a policy: SQRT text, a parsed policy, a `PolicyHeader` or an engine; got a "
            f"value of type `{type(policy).__name__}`."
        )
        raise UsageError(msg)
    return policy.compile()


def policy_of(policy: AnyPolicy) -> Policy:
    """The nodes of a policy, also of one that can have no meaning."""
    if isinstance(policy, str):
        return parse(policy)
    if isinstance(policy, Policy):
        return policy
    try:
        return engine_of(policy).policy
    except PolicySyntaxError:
        text = getattr(getattr(policy, "codes", None), "code", None)
        if not isinstance(text, str):
            raise
        return parse(text)
