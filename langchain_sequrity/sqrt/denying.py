"""A verdict that denies, as a `Denial`: the fields of which texts are made."""

from collections.abc import Mapping
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.sqrt.verdict import Verdict


def denial_of(verdict: Verdict, call: Call | None = None) -> Denial:
    """The denial that a verdict stands for.

    Args:
        verdict: One that denies, or that allows in doubt.
        call: The call, if its arguments are to be told.

    Returns:
        The denial; the first of the reasons is the one that is told.
    """
    told = verdict.reasons[0]
    return Denial(
        verdict.tool,
        "uncertain" if verdict.allowed else "policy",
        "hard" if verdict.allowed else verdict.strength,
        certain=verdict.certain and not verdict.allowed,
        rule=" ".join(told.rule.split()),
        line=None if told.at is None else told.at.line,
        column=None if told.at is None else told.at.column,
        reason=told.description or None,
        doubt=told.doubt or None,
        **({} if call is None else of_call(call)),
    )


def of_call(call: Call) -> Mapping[str, Any]:
    """The fields of a denial that tell of the call."""
    return {
        "arguments": {name: one.value for name, one in call.arguments.items()},
        "labels": {name: one.labels.to_wire() for name, one in call.arguments.items()},
    }
