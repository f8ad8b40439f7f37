"""Elements that are legal and hardly meant so."""

from collections.abc import Iterator
from typing import Any

from langchain_sequrity.sqrt.nodes import NumberDomain, Range, Text, TextDomain, TimeDomain
from langchain_sequrity.sqrt.patterns import INSTALL, has_engine, looks_slow
from langchain_sequrity.sqrt.times import before, instant


def remarks(element: Any) -> Iterator[tuple[str, str]]:
    """What is odd about an element or a literal, each with advice."""
    match element:
        case Text():
            yield from _on_text(element)
        case NumberDomain(kind=kind, range=bounds):
            yield from _on_range(bounds, whole=kind == "int")
        case TextDomain(text=text, length=length):
            yield from _on_text(text)
            if length is not None:
                yield from _on_range(length, whole=True)
        case TimeDomain():
            yield from _on_times(element)


def _on_text(text: Text) -> Iterator[tuple[str, str]]:
    if text.kind == "plain" and "\\" in text.raw:
        yield "How a backslash in a text is read is unknown", "Avoid it"
    elif text.kind == "like" and ("[" in text.raw or "\\" in text.raw):
        yield "How `[` and backslashes in a wildcard are read is unknown", "Use a regex"
    elif text.kind == "matching":
        yield from _on_regex(text.raw)


def _on_regex(raw: str) -> Iterator[tuple[str, str]]:
    if "\\\\" in raw:
        yield "How a doubled backslash in a regex is read is unknown", "Write `[.]` for `\\\\.`"
    if looks_slow(raw):
        yield "This regex can take exponential time", "Do not repeat what is itself repeated"
    if not has_engine():
        yield (
            "Without the package `regex` no regex is evaluated: each is unknown, which denies",
            f"Run `{INSTALL}`",
        )


def _on_range(bounds: Range, *, whole: bool) -> Iterator[tuple[str, str]]:
    ends = [end.value for end in (bounds.low, bounds.high) if end is not None]
    if whole and any(isinstance(end, float) and not _is_infinite(end) for end in ends):
        yield "The bounds of whole numbers are whole", "Drop the fraction"
    if len(ends) > 1 and (
        ends[0] > ends[1] or (ends[0] == ends[1] and (bounds.low_open or bounds.high_open))
    ):
        yield "No number lies in this range", "The smaller bound comes first"


def _is_infinite(number: float) -> bool:
    return number in {float("inf"), float("-inf")}


def _on_times(domain: TimeDomain) -> Iterator[tuple[str, str]]:
    low = domain.low and instant(domain.low.written)
    high = domain.high and instant(domain.high.written)
    if not low or not high:
        return
    closed = not (domain.low_open or domain.high_open)
    if before(low, high, or_same=closed) is False:
        yield "No time lies in this range", "The earlier bound comes first"
    if not low.zoned or not high.zoned:
        yield "The zone of a time without one is unknown", "Write it, as `…T00:00:00Z`"
