"""A policy together with the others of a list, for the checks of labels: all share the labels."""

from collections.abc import Sequence
from typing import Any

from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.compiler import Reporter, Severity, compiled_tools
from langchain_sequrity.sqrt.lint.checked_policy import CheckedPolicy
from langchain_sequrity.sqrt.lint.rules import KnownTools
from langchain_sequrity.sqrt.nodes import Policy, Position

_FAR = 10_000_000  # more lines than a policy has


def with_others(
    policy: Policy, others: Sequence[Policy], known_tools: KnownTools | None, report: Reporter
) -> CheckedPolicy | None:
    """One policy of all declarations; only findings in the first policy are reported.

    Args:
        policy: The policy that is checked.
        others: The other policies.
        known_tools: Its tools, if they are known.
        report: Receives the findings.

    Returns:
        The policy; `None` if one of the others does not compile.
    """
    declarations = [*policy.declarations]
    for number, other in enumerate(others, 1):
        declarations += (_moved(node, number) for node in other.declarations)
    joined = Policy(tuple(declarations), policy.text)
    errors: list[str] = []

    def count_errors(severity: Severity, message: str, *_: object, **__: object) -> None:
        if severity == "error":
            errors.append(message)

    def report_here(
        severity: Severity, message: str, position: Position, hint: str = "", **options: Any
    ) -> None:
        if position.line < _FAR:
            report(severity, message, position, hint, **options)

    tools = None if known_tools is None else known_tools.silent()
    compiled = list(compiled_tools(joined, count_errors, tools.visit if tools else lambda *_: None))
    if errors:
        return None
    return CheckedPolicy(joined, compiled, tools.matched_tools if tools else None, report_here)


def _moved(node: Any, number: int) -> Any:
    """A node with positions and names of bindings that the first policy does not have."""
    return nodes.rebuilt(
        node,
        rename=lambda name: f"{name} ({number})",
        move=lambda position: Position(position.line + number * _FAR, position.column),
    )
