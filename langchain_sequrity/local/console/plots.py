"""Small plots of the last hour, as SVG without styles of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time

from langchain_sequrity.local.console.recorder import Minute

_MINUTES = 60
_WIDTH, _HEIGHT = 360, 80
_BAR = _WIDTH / _MINUTES
_HALF, _MOST = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Bar:
    """A minute in a plot.

    Attributes:
        x: Its left edge.
        y: Its upper edge.
        height: Its height.
        part_height: The height of the part in another colour, at its bottom.
        title: Its time and value in words.
    """

    x: float
    y: float
    height: float
    part_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A value in each minute of the last hour.

    Attributes:
        title: What is shown.
        total: Its value for the whole hour, in words.
        part: What the part in another colour is; empty without one.
        bars: The minutes that have a value.
        width: The width of the drawing.
        height: Its height.
    """

    title: str
    total: str
    part: str
    bars: tuple[Bar, ...]
    width: int = _WIDTH
    height: int = _HEIGHT


def plots(minutes: Sequence[Minute]) -> list[Plot]:
    """The plots of the last hour."""
    now = int(time() // 60)
    recent = [minute for minute in minutes if now - minute.time // 60 < _MINUTES]
    seconds = sorted(ms for minute in recent for ms in minute.milliseconds)
    requests, errors = sum(m.requests for m in recent), sum(m.errors for m in recent)
    denied, allowed = sum(m.denied for m in recent), sum(m.allowed for m in recent)
    return [
        _plot(
            "Requests", f"{requests:,}, {errors:,} with an error", "errors", recent, now,
            lambda m: m.requests, lambda m: m.errors,
        ),
        _plot(
            "Checked calls", f"{allowed + denied:,}, {denied:,} denied", "denied", recent, now,
            lambda m: m.allowed + m.denied, lambda m: m.denied,
        ),
        _plot(
            "Tokens", f"{sum(m.tokens for m in recent):,}", "", recent, now,
            lambda m: m.tokens, lambda _: 0,
        ),
        _plot(
            "Milliseconds of a reply",
            f"median {_quantile(seconds, _HALF):.1f}, 95% below {_quantile(seconds, _MOST):.1f}",
            "", recent, now, lambda m: _quantile(sorted(m.milliseconds), _HALF), lambda _: 0,
        ),
    ]  # fmt: skip


def _plot(  # noqa: PLR0917 - a row of the table above
    title: str,
    total: str,
    part: str,
    minutes: Sequence[Minute],
    now: int,
    value_of: Callable[[Minute], float],
    part_of: Callable[[Minute], float],
) -> Plot:
    highest = max((value_of(minute) for minute in minutes), default=0) or 1
    bars = []
    for minute in minutes:
        value, part_value = value_of(minute), part_of(minute)
        height = round(value / highest * (_HEIGHT - 4), 1)
        age = int(now - minute.time // 60)
        words = f"{age} min ago: {value:,.0f}" + (f", {part_value:,.0f} {part}" if part else "")
        bars.append(
            Bar(
                round((_MINUTES - 1 - age) * _BAR, 1),
                round(_HEIGHT - height, 1),
                height,
                round(part_value / highest * (_HEIGHT - 4), 1),
                words,
            )
        )
    return Plot(title, total, part, tuple(bars))


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
