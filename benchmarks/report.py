"""The rows of the result, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.formats import OURS, RIVALS, VENDOR
from benchmarks.measure import Samples, ratio
from benchmarks.peers import FLOOR

_MICRO = 1e6
_COLUMNS = (*OURS, *RIVALS, VENDOR, *FLOOR)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with a limit.

    Attributes:
        text: What is measured, as the table shows it.
        measured: The figure.
        limit: The maximum of the figure.
    """

    text: str
    measured: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        """The goal and the verdict."""
        verdict = "met" if self.met else "MISSED"
        return f"{self.text} {self.measured:.3g} ≤ {self.limit:g} {verdict}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        case: What was measured, with its unit.
        figures: The median of each peer.
        to_floor: The figure of our slower model, divided by the floor.
        to_rival: The figure of our slower model, divided by the rival's.
        goals: The goals of the case.
    """

    case: str
    figures: Mapping[str, float]
    to_floor: float | None = None
    to_rival: float | None = None
    goals: Sequence[Goal] = field(default=())


def compare(
    case: str,
    samples: Samples[str],
    *,
    floor: float | None = None,
    floor_is: Sequence[str] = FLOOR,
    rival: float | None = None,
    more: Sequence[Goal] = (),
) -> Row:
    """Make a row from the seconds of each peer.

    Args:
        case: What was measured. The table shows microseconds.
        samples: The figures of each round.
        floor: How many times the floor our model may need; `None` for no goal.
        floor_is: The peers whose figures add up to the floor.
        rival: The same for the rival that was measured.
        more: Further goals.
    """
    to_floor = _slowest(samples, floor_is)
    other = next((name for name in RIVALS if name in samples), "")
    to_rival = _slowest(samples, (other,))
    goals = [
        Goal(text, measured, limit)
        for text, measured, limit in (
            ("/ floor", to_floor, floor),
            (f"/ {other}", to_rival, rival),
        )
        if measured is not None and limit is not None
    ]
    figures = {name: median(values) * _MICRO for name, values in samples.items()}
    return Row(case, figures, to_floor, to_rival, [*goals, *more])


def _slowest(samples: Samples[str], others: Sequence[str]) -> float | None:
    if any(other not in samples for other in others):
        return None
    return max(ratio(samples, name, others) for name in OURS if name in samples)


def table(rows: Sequence[Row]) -> str:
    """Write the rows as a Markdown table, with a column for each peer that was measured."""
    measured = dict.fromkeys(name for row in rows for name in row.figures)
    known = [name for name in _COLUMNS if name in measured]
    columns = [*known, *(name for name in measured if name not in known)]
    head = ["case", *columns, "/ floor", "/ rival", "goals"]
    lines = [head, *(_cells(row, columns) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    figures = [_figure(row.figures.get(name)) for name in columns]
    goals = "; ".join(map(str, row.goals))
    return [row.case, *figures, _figure(row.to_floor), _figure(row.to_rival), goals]


def _figure(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 100 or figure == 0 else f"{figure:.3g}"  # noqa: PLR2004  # three digits


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as plain JSON."""
    return [
        {
            "case": row.case,
            "figures": dict(row.figures),
            "to_floor": row.to_floor,
            "to_rival": row.to_rival,
            "goals": [
                {"text": goal.text, "measured": goal.measured, "limit": goal.limit, "met": goal.met}
                for goal in row.goals
            ],
        }
        for row in rows
    ]
