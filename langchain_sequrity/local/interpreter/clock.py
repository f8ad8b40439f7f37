"""`datetime` and `time`: values of Python, methods by table, the time of day from outside."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.builtins import TYPE_OF
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    functions,
    pure,
    sized,
)
from langchain_sequrity.local.interpreter.formatting import clock_format
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import TypeValue, Value, type_name

Args = list[Value]
Named = dict[str, Value]


def _fields(*names: str) -> Callable[[Any, str], Value]:
    return lambda inner, name: getattr(inner, name) if name in names else MISSING


def _strftime(machine: Machine, value: Any, template: str) -> str:
    if not isinstance(template, str):
        machine.fail(TypeError, f"strftime() argument 1 must be str, not {type_name(template)}")
    return clock_format(machine, value, template) if template else ""


def _strptime(machine: Machine, text: str, template: str) -> dt.datetime:
    # Python makes a regular expression of the template, which has no time limit.
    machine.make_text(100 * (len(text) + len(template)))
    if template.count("%") > 12 or len(text) > 100:  # noqa: PLR2004 - more than any date has
        machine.fail(ValueError, "The date or its format is too long.")
    return dt.datetime.strptime(text, template)  # noqa: DTZ007 - as the program says


def _now(kind: str) -> Implementation:
    def read(machine: Machine, tz: dt.tzinfo | None = None) -> Any:
        text = machine.event("now", lambda: dt.datetime.now(dt.UTC).isoformat())
        moment = dt.datetime.fromisoformat(text)
        local = moment.astimezone(tz) if tz is not None else moment.replace(tzinfo=None)
        return local.date() if kind == "date" else local

    return sized(read)


def _seconds(machine: Machine, args: Args, named: Named) -> Value:
    del args, named
    return machine.event("time", time.time)


def _sleep(machine: Machine, args: Args, named: Named) -> Value:
    """Nothing happens while a program waits, so it does not wait."""
    del machine, args, named


def _zoned(moment: dt.datetime) -> dt.datetime:
    # A time without a zone is UTC here: the zone of the host would be another one elsewhere.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _as_timezone(moment: dt.datetime, tz: dt.tzinfo | None = None) -> dt.datetime:
    return _zoned(moment).astimezone(dt.UTC if tz is None else tz)


def _from_timestamp(seconds: float, tz: dt.tzinfo | None = None) -> dt.datetime:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.astimezone(tz) if tz is not None else moment.replace(tzinfo=None)


def _methods(kind: type, *names: str) -> dict[str, Implementation]:
    return {name: pure(getattr(kind, name)) for name in names}


_ZONED = ("isoformat", "replace", "utcoffset", "tzname")
METHODS[dt.date] = {
    **_methods(dt.date, "isoformat", "isoweekday", "weekday", "replace", "toordinal"),
    "isocalendar": pure(lambda day: tuple(day.isocalendar())),
    "strftime": sized(_strftime),
}
METHODS[dt.time] = {**_methods(dt.time, *_ZONED), "strftime": sized(_strftime)}
METHODS[dt.datetime] = {
    **METHODS[dt.date],
    **_methods(dt.datetime, *_ZONED, "date", "time"),
    "astimezone": pure(_as_timezone),
    "timestamp": pure(lambda moment: _zoned(moment).timestamp()),
}
METHODS[dt.timedelta] = _methods(dt.timedelta, "total_seconds")
METHODS[dt.timezone] = {}
ATTRIBUTES[dt.date] = _fields("year", "month", "day")
ATTRIBUTES[dt.time] = _fields("hour", "minute", "second", "microsecond", "tzinfo")
ATTRIBUTES[dt.datetime] = _fields(
    *("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo")
)
ATTRIBUTES[dt.timedelta] = _fields("days", "seconds", "microseconds")


def _kind(kind: type, **members: Implementation) -> TypeValue:
    made = TypeValue(kind.__name__, pure(kind), (kind,))
    CLASS_MEMBERS[made.name] = functions(members)
    TYPE_OF[kind] = made
    return made


# What the types themselves have, besides the methods of their values.
CLASS_MEMBERS: dict[str, dict[str, Value]] = {}
DATETIME: dict[str, Value] = {
    "date": _kind(
        dt.date,
        today=_now("date"),
        fromisoformat=pure(dt.date.fromisoformat),
        fromordinal=pure(dt.date.fromordinal),
    ),
    "datetime": _kind(
        dt.datetime,
        now=_now("datetime"),
        today=_now("datetime"),
        utcnow=_now("datetime"),
        combine=pure(dt.datetime.combine),
        fromisoformat=pure(dt.datetime.fromisoformat),
        fromtimestamp=pure(_from_timestamp),
        strptime=sized(_strptime),
    ),
    "time": _kind(dt.time, fromisoformat=pure(dt.time.fromisoformat)),
    "timedelta": _kind(dt.timedelta),
    "timezone": _kind(dt.timezone),
    "UTC": dt.UTC,
}
CLASS_MEMBERS["timezone"]["utc"] = dt.UTC
TIME = functions(
    {"time": _seconds, "monotonic": _seconds, "perf_counter": _seconds, "sleep": _sleep}
)
