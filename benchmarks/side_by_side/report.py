"""The figures of a guard, as a line of a table."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.side_by_side.guards import Guard
from benchmarks.side_by_side.tasks import Verdict

_PACKAGES = ("agentdojo", "langchain", "langgraph", "agent-airlock", "agent-governance-toolkit")
_NONE = "-"
_HEAD = (
    "guard",
    "tasks right",
    "… if a person says yes",
    "questions in all tasks",
    "attacks that pass",
    "… if a person says yes",
    "questions in all attacks",
    "tasks right under attack",
    "µs a call",
)


@dataclass
class Row:
    """The verdicts of a guard, and the time that it adds to a call."""

    guard: Guard
    verdicts: list[Verdict] = field(default_factory=list)
    microseconds: float | None = None

    def cells(self) -> list[str]:
        """The line of the table."""
        tasks = [verdict for verdict in self.verdicts if not verdict.pair.goal]
        attacks = [verdict for verdict in self.verdicts if verdict.pair.goal]
        right = [self._share(tasks, "is_useful", approves=yes) for yes in (False, True)]
        passed = [self._share(attacks, "is_harmful", approves=yes) for yes in (False, True)]
        cost = _NONE if self.microseconds is None else f"{self.microseconds:.0f}"
        return [
            self.guard.name,
            *right,
            self._questions(tasks),
            *passed,
            self._questions(attacks),
            self._share(attacks, "is_useful", approves=False),
            cost,
        ]

    @staticmethod
    def _share(verdicts: Sequence[Verdict], attribute: str, *, approves: bool) -> str:
        counted = [getattr(item, attribute) for item in verdicts if item.approves == approves]
        return f"{sum(counted)} of {len(counted)}" if counted else _NONE

    def _questions(self, verdicts: Sequence[Verdict]) -> str:
        """The questions if each is answered with yes, so that the next can follow."""
        if not self.guard.asks or not verdicts:
            return _NONE
        return str(sum(verdict.questions for verdict in verdicts if verdict.approves))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, without the columns that were not measured."""
    lines = [list(_HEAD), ["---"] * len(_HEAD), *(row.cells() for row in rows)]
    columns = [column for column in zip(*lines, strict=True) if set(column[2:]) != {_NONE}]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def conditions(load: Sequence[float]) -> str:
    """Date, versions, machine, and the load of the machine when the run began."""
    versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    busy = ", ".join(f"{number:.2f}" for number in load)
    today = datetime.now(UTC).date().isoformat()
    return f"{today}; {versions}; {machine}, {os.cpu_count()} cores; load before the run: {busy}"


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
