"""Points in time, some without a zone.

Times without a zone compare with each other; with one that has a zone they compare only where no
zone on earth would make a difference.
"""

import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

from langchain_sequrity.sqrt.truth import Truth

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY_ZONE = 14 * 3600.0
_MAX_TEXT = 64
# All parsers agree on these. Not on `20270101`, which may count seconds; on weeks; on other marks
# between date and time, which to some begin a zone; or on parts of microseconds.
_SURE = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)


class Instant(NamedTuple):
    """Seconds since 1970, in UTC if `zoned` and in some unknown zone if not."""

    seconds: float
    zoned: bool


def instant(written: object) -> Instant | None:
    """Read an ISO 8601 text or epoch seconds.

    Returns:
        The instant, or `None` if it is neither.
    """
    if isinstance(written, bool):
        return None
    if isinstance(written, int | float):
        return _epoch(written)
    if not isinstance(written, str) or len(written) > _MAX_TEXT:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return Instant((moment.replace(tzinfo=UTC) - _EPOCH).total_seconds(), zoned=False)
    return Instant((moment - _EPOCH).total_seconds(), zoned=True)


def surely(text: str) -> Instant | None:
    """Read a text that every parser of ISO 8601 reads alike; `None` for all others."""
    return instant(text) if _SURE.fullmatch(text) else None


def _epoch(number: float) -> Instant | None:
    try:
        seconds = float(number)
    except OverflowError:
        return None
    return None if math.isnan(seconds) else Instant(seconds, zoned=True)


def before(left: Instant, right: Instant, *, or_same: bool) -> Truth:
    """Whether `left` comes before `right`."""
    if left.zoned == right.zoned:
        return left.seconds < right.seconds or (or_same and left.seconds == right.seconds)
    gap = right.seconds - left.seconds
    return None if abs(gap) <= _ANY_ZONE else gap > 0
