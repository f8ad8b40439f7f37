"""What a service reports of its policy checks, brought to the calls that were checked.

The shape of a report is not published (`docs/protocol.md`, Dual-LLM content). What is not found
where the local server or a recording has it is "not reported"; nothing is guessed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from langchain_sequrity.wire.denied import read_labels
from langchain_sequrity.wire.printed import checked_tool

NOT_REPORTED: Final = "not reported"

Meta = dict[str, list[str]]
"""Labels as the protocol has them: producers, consumers, tags."""


@dataclass(frozen=True, slots=True)
class Check:
    """One policy check.

    Attributes:
        tool: Name of the tool.
        verdict: What came of it.
        is_certain: Whether all readings of the policy agree; `None` if that is not reported.
        rule: The rule that decided.
        reason: Why, in words.
        labels: Labels of the arguments, as far as they are reported.
        values: Values of the arguments; reported for denied calls only.
    """

    tool: str
    verdict: Literal["allowed", "denied", "not reported"] = NOT_REPORTED
    is_certain: bool | None = None
    rule: str = NOT_REPORTED
    reason: str = NOT_REPORTED
    labels: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


def read_checks(history: Iterable[Any]) -> list[Check]:
    """Read a `policy_check_history`; entries that name no tool are left out."""
    named = [(one, checked_tool(one)) for one in history if isinstance(one, Mapping)]
    return [_read(entry, tool) for entry, tool in named if tool is not None]


def assigned(
    tools: Sequence[str], checks: Iterable[Check]
) -> tuple[list[Check | None], list[Check]]:
    """Find the check of each call.

    Checks stand in the order of the calls, among those of denied calls and of the service's own
    tools. Where a tool has not as many checks that let it pass as it has calls, its checks are
    given to none: labels that belong to another call would mislead.

    Args:
        tools: The tool of each call, in order.
        checks: All checks, in order.

    Returns:
        The check of each call, or `None`; and the checks that belong to no call.
    """
    passed: dict[str, list[Check]] = defaultdict(list)
    others: list[Check] = []
    calls = Counter(tools)
    for check in checks:
        is_call = check.verdict != "denied" and check.tool in calls
        (passed[check.tool] if is_call else others).append(check)
    left = {
        tool: iter(found) if len(found) == calls[tool] else iter(())
        for tool, found in passed.items()
    }
    return [next(left.get(tool, iter(())), None) for tool in tools], others


def _read(entry: Mapping[str, Any], tool: str) -> Check:
    denied = _reasons(entry.get("denied")) or _reasons(entry.get("denial_reasons"))
    allowed = _reasons(entry.get("allowed"))
    verdict = str(entry.get("verdict") or entry.get("final_verdict") or "")
    is_denied = bool(denied) or verdict.endswith("denied")
    is_allowed = not is_denied and (bool(allowed) or verdict.endswith("allowed"))
    first = next(iter(denied if is_denied else allowed), {})
    certain = entry.get("certain")
    values = first.get("arguments")
    return Check(
        tool=tool,
        verdict="denied" if is_denied else "allowed" if is_allowed else NOT_REPORTED,
        is_certain=certain if isinstance(certain, bool) else None,
        rule=_text(first.get("rule")),
        reason=_text(first.get("reason") or first.get("checker_description")),
        labels=_labels(entry.get("arguments")),
        values={
            str(name): one["value"]
            for name, one in (values if isinstance(values, Mapping) else {}).items()
            if isinstance(one, Mapping) and "value" in one
        },
    )


def _reasons(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(found: Any) -> str:
    return found if isinstance(found, str) and found else NOT_REPORTED


def _labels(found: Any) -> dict[str, Meta]:
    if not isinstance(found, Mapping):
        return {}
    read = {str(name): read_labels(meta) for name, meta in found.items()}
    return {name: meta for name, meta in read.items() if meta is not None}
