"""A verdict in the cells of a table, and as data."""

from typing import Any

from langchain_sequrity.display.tables import Cell, Tone
from langchain_sequrity.sqrt.verdict import Reason, Verdict

NOT_REACHED = "not reached"
_SHOWN = 3


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict in a word or two."""
    return NOT_REACHED if verdict is None else verdict.final_verdict.replace("_", " ")


def certain_word(verdict: Verdict | None) -> str:
    """Whether the service surely says the same, in words."""
    if verdict is None:
        return ""
    if verdict.certain:
        return "certain"
    absent = dict.fromkeys(name for reason in verdict.reasons for name in reason.absent)
    if absent:
        return f"uncertain: the call has no argument {' and '.join([*absent][:_SHOWN])}"
    return "uncertain: the service may see this differently"


def tone(verdict: Verdict | None) -> Tone:
    """The colour of a verdict."""
    if verdict is None:
        return "doubtful"
    return "good" if verdict.allowed else "bad"


def rules_cell(verdict: Verdict | None) -> Cell:
    """The rules that decided, with their lines."""
    return _shortened([] if verdict is None else [_rule(reason) for reason in verdict.reasons])


def reasons_cell(verdict: Verdict | None) -> Cell:
    """Why the author of the policy wants it so: the doc comments of these rules."""
    found = [] if verdict is None else [reason.description for reason in verdict.reasons]
    return _shortened(list(dict.fromkeys(one for one in found if one)))


def verdict_json(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict as plain data; one that was never asked for has `null` everywhere."""
    if verdict is None:
        return {
            "verdict": "not_reached", "allowed": None, "strength": None, "certain": None,
            "n_allowed": None, "n_denied": None, "reasons": [],
        }  # fmt: skip
    return {
        "verdict": verdict.final_verdict,
        "allowed": verdict.allowed,
        "strength": verdict.strength,
        "certain": verdict.certain,
        "n_allowed": verdict.n_allowed,
        "n_denied": verdict.n_denied,
        "reasons": [reason_json(reason) for reason in verdict.reasons],
    }


def reason_json(reason: Reason) -> dict[str, Any]:
    """A rule that decided, as plain data; a preset has no place."""
    return {
        "rule": reason.rule,
        "line": reason.at and reason.at.line,
        "column": reason.at and reason.at.column,
        "description": reason.description,
        "strength": reason.strength,
        "verdict": reason.verdict,
        "certain": reason.certain,
        "unmet": reason.unmet,
    }


def _rule(reason: Reason) -> str:
    text = " ".join(reason.rule.split())
    unmet = "not met: " if reason.unmet else ""
    return f"{unmet}{text} (line {reason.at.line})" if reason.at else f"{unmet}{text} (preset)"


def _shortened(lines: list[str]) -> Cell:
    if (more := len(lines) - _SHOWN) > 0:
        return (*lines[:_SHOWN], f"and {more} more")
    return tuple(lines) or ("",)
