"""Plots in the documentation, drawn from the tables beside them: `python -m benchmarks.plots`.

A plot is an SVG that follows the light or dark colours of the reader. Its text alternative has all
of its figures.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_WIDTH, _PANEL, _BAR, _GAP, _LABEL, _LEFT, _VALUE = 720, 56, 22, 8, 34, 130, 70
_STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}"
    ".bar{fill:#3565c4}.second{fill:#b3541e}.hollow{fill:none;stroke:#b3541e;stroke-width:2}"
    ".grid{stroke:#8c959f;stroke-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6f9bf0}.second{fill:#e38a52}.hollow{stroke:#e38a52}}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """Horizontal bars with one scale.

    Attributes:
        title: What the bars show.
        unit: Their unit.
        bars: A label and a value for each bar; bars of one label follow each other.
    """

    title: str
    unit: str
    bars: Sequence[tuple[str, float]]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Draw panels below each other."""
    parts, top = [], 0.0
    for panel in panels:
        parts += _drawn(panel, top)
        top += _PANEL + len(panel.bars) * (_BAR + _GAP)
    told = "; ".join(
        f"{panel.title}: "
        + ", ".join(f"{label} {value:g} {panel.unit}".rstrip() for label, value in panel.bars)
        for panel in panels
    )
    return _whole(title, told, top, parts)


def _whole(title: str, told: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" role="img" '
        f'aria-labelledby="title told"><title id="title">{escape(title)}</title>'
        f'<desc id="told">{escape(told)}.</desc><style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _drawn(panel: Panel, top: float) -> list[str]:
    widest = max(value for _, value in panel.bars)
    lines = [f'<text class="title" x="0" y="{top + 24:g}">{escape(panel.title)}</text>']
    kinds = list(dict.fromkeys(label.partition(": ")[2] for label, _ in panel.bars))
    for number, (label, value) in enumerate(panel.bars):
        y = top + _LABEL + number * (_BAR + _GAP)
        width = (_WIDTH - _LEFT - _VALUE) * value / widest
        second = " second" if kinds.index(label.partition(": ")[2]) else ""
        shape = f'x="{_LEFT}" y="{y:g}" width="{width:.1f}" height="{_BAR}" rx="3"'
        told = f"{value:g} {escape(panel.unit)}".rstrip()
        lines.append(
            f'<text x="0" y="{y + 16:g}">{escape(label)}</text><rect class="bar{second}" {shape}/>'
            f'<text x="{_LEFT + width + 8:.1f}" y="{y + 16:g}">{told}</text>'
        )
    return lines


def stores() -> str:
    """What workers with sessions in Redis serve, from the table of `docs/gateway.md`."""
    text = (DOCS / "gateway.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (\d+) \| (\d+) ms \| (\d+) ms \|$", text, re.MULTILINE)
    named = [(f"{n} worker{'s' * (n != '1')}", float(s), float(m), float(t)) for n, s, m, t in rows]
    steps = [(name, steps) for name, steps, _, _ in named]
    waits = [
        pair
        for name, _, middle, tail in named
        for pair in ((f"{name}: p50", middle), (f"{name}: p99", tail))
    ]
    return svg(
        "Sessions in Redis: steps for each CPU second, and how long a step takes with 50 clients",
        [
            Panel("Steps for each CPU second of the workers", "", steps),
            Panel("Time of a step with 50 clients on 2 cores", "ms", waits),
        ],
    )


_TARGET = 609
"""Plans of the attacker in each column of the table."""
_PUBLISHED = (
    ("CaMeL, a model plans", 0.0, 77.0),
    ("Progent, policies by hand", 2.2, None),
    ("Progent, policies by a model", 0.0, None),
    ("agent-airlock", 15.6, None),
)
"""Guard, percent of attacks that succeed, percent of tasks, as their authors publish them: other
attacks, other models, other versions of AgentDojo. `None` if no percentage of tasks is published
with the figure."""


def agentdojo() -> str:
    """Tasks that end right, and attacks that succeed, from the table of `RESULTS.md`."""
    text = (Path(__file__).parent / "RESULTS.md").read_text("utf-8")
    cells = r"[^|]*"
    row = rf"^\| \**(\w+)\** \| standard \| \**\d+ \((\d+)%\)\** \|{cells}\|{cells}\|"
    attacks = rf"{cells}/{cells}/ (\d+) \|" * 3
    ours = [
        (name, 100 * max(map(int, passed)) / _TARGET, float(tasks))
        for name, tasks, *passed in re.findall(row + attacks, text, re.MULTILINE)
    ]
    return scatter(
        "AgentDojo: tasks that end right, and attacks that succeed, under policies",
        ("attacks that succeed, %", "tasks that end right, %"),
        ours,
        _PUBLISHED,
    )


def scatter(
    title: str,
    axes: tuple[str, str],
    measured: Sequence[tuple[str, float, float]],
    published: Sequence[tuple[str, float, float | None]],
) -> str:
    """Draw points from 0 to 100 percent, filled if measured here, and hollow if published.

    A published figure without its second half is a mark on the axis.
    """
    left, top, width, height, line = 60, 60, 600, 380, 17
    lines = [f'<text class="title" x="0" y="20">{escape(title)}</text>']
    for tick in range(0, 101, 20):
        x, y = left + width * tick / 100, top + height * (1 - tick / 100)
        lines += [
            f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:g}" y2="{y:g}"/>',
            f'<text x="{left - 8}" y="{y + 5:g}" text-anchor="end">{tick}</text>',
            f'<text x="{x:g}" y="{top + height + 20}" text-anchor="middle">{tick}</text>',
        ]
    points = [(f"{name}, measured here", x, y, "bar") for name, x, y in measured]
    points += [(f"{name}, published", x, y, "hollow") for name, x, y in published if y is not None]
    points += [
        (f"{name}, published: {x:g} %, without tasks", x, 0.0, "hollow")
        for name, x, y in published if y is None
    ]  # fmt: skip
    free = top + height - 6.0
    for label, percent, share, kind in sorted(points, key=lambda point: (point[2], point[1])):
        x, y = left + width * percent / 100, top + height * (1 - share / 100)
        free = min(free, y + 5)
        side = "end" if percent > 60 else "start"  # noqa: PLR2004 - percent
        at = x - 12 if side == "end" else x + 12
        lines += [
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
            f'<text x="{at:.1f}" y="{free:.1f}" text-anchor="{side}">{escape(label)}</text>',
        ]
        free -= line
    bottom = top + height + 44
    lines += [
        f'<text x="{left + width}" y="{bottom}" text-anchor="end">{escape(axes[0])}</text>',
        f'<text x="0" y="{top - 6}">{escape(axes[1])}</text>',
    ]
    told = "; ".join(
        f"{label}: {axes[0]} {x:.1f}" + ("" if y is None else f", {axes[1]} {y:g}")
        for label, x, y in [*measured, *((f"{n} (published)", x, y) for n, x, y in published)]
    )
    return _whole(title, told, bottom + 8, lines)


PLOTS = {"stores.svg": stores, "agentdojo.svg": agentdojo}

if __name__ == "__main__":
    for name, draw in PLOTS.items():
        (DOCS / "images" / name).write_text(draw(), "utf-8")
