"""The figures of a column (a policy with its control of flow), as JSON and as one table."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from benchmarks.agentdojo import attacks, laundering
from benchmarks.agentdojo.chats import DENIED, STOPPED
from benchmarks.agentdojo.runs import Verdict

_PACKAGES = ("agentdojo", "langchain-sequrity", "langchain-core", "pydantic")


@dataclass
class Column:
    """Weighted counts for one policy and one control of flow.

    Attributes:
        policy: The name of the policy.
        flow: The control of flow.
        tasks: The number of tasks.
        right: Tasks done with at most 0, 1 and 2 approvals.
        ends: For each kind of run: how many are `denied`, `stopped`, `succeeded` or `ended`.
    """

    policy: str
    flow: str
    tasks: int = 0
    right: Counter[int] = field(default_factory=Counter)
    ends: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, verdict: Verdict, weight: int) -> None:
        """Count a verdict."""
        if verdict.run.kind == "task":
            self.tasks += weight
            for most in (0, 1, 2):
                asked = verdict.questions
                self.right[most] += weight * (asked is not None and asked <= most)
            return
        end = "succeeded" if verdict.is_harmful else verdict.state
        self.ends.setdefault(verdict.run.kind, Counter())[end] += weight

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "policy": self.policy,
            "flow": self.flow,
            "tasks": self.tasks,
            "right": {str(most): self.right[most] for most in (0, 1, 2)},
            "ends": {kind: dict(ends) for kind, ends in self.ends.items()},
        }


def columns(counted: Iterable[tuple[Verdict, int]]) -> list[Column]:
    """The columns of verdicts with their weights, in the order of their first verdicts."""
    found: dict[tuple[str, str], Column] = {}
    for verdict, weight in counted:
        run = verdict.run
        column = found.setdefault((run.policy, run.flow), Column(run.policy, run.flow))
        column.add(verdict, weight)
    return list(found.values())


def as_json(counted: Sequence[tuple[Verdict, int]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All verdicts and figures, with date, versions and machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "settings": dict(settings),
        "columns": [column.to_json() for column in columns(counted)],
        "verdicts": [{**verdict.to_json(), "weight": weight} for verdict, weight in counted],
    }


def table(found: Sequence[Column]) -> str:
    """The figures as a Markdown table with a line for each column."""
    kinds = [*attacks.KINDS, *laundering.KINDS]
    head = ["policy", "flow", "tasks", "≤ 1 approval", "≤ 2", *kinds, "honest", "obeying"]
    lines = [head, ["---"] * len(head)]
    for column in found:
        share = f"{column.right[0]} ({column.right[0] / max(column.tasks, 1):.0%})"
        ends = [_ends(column.ends.get(kind, Counter())) for kind in kinds]
        reached = [_reached(column.ends.get(kind, Counter())) for kind in ("honest", "obeying")]
        approved = [str(column.right[most]) for most in (1, 2)]
        lines.append([column.policy, column.flow, share, *approved, *ends, *reached])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _ends(ends: Counter[str]) -> str:
    """Denied / stopped by an error / succeeded."""
    succeeded = sum(ends.values()) - ends[DENIED] - ends[STOPPED]
    return f"{ends[DENIED]} / {ends[STOPPED]} / {succeeded}" if ends else "-"


def _reached(ends: Counter[str]) -> str:
    return f"{ends['succeeded']} of {sum(ends.values())}" if ends else "-"
