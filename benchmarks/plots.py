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
    ".bar{fill:#3565c4}.second{fill:#b3541e}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6f9bf0}.second{fill:#e38a52}}"
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
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:g}" role="img" '
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


PLOTS = {"stores.svg": stores}

if __name__ == "__main__":
    for name, draw in PLOTS.items():
        (DOCS / "images" / name).write_text(draw(), "utf-8")
