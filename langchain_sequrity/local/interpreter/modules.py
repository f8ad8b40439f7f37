"""What `import` finds: tables of functions, never modules of Python.

`datetime` and `time` use Python's own values; the current time comes from outside and is logged.
"""

import datetime as dt
import itertools
import json
import math
import random
import string
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

from langchain_sequrity.local.interpreter.builtins import ERRORS, TYPE_OF, TYPES
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    Operation,
    functions,
    methods,
    precise,
    pure,
    pure_with_machine,
    read_only,
)
from langchain_sequrity.local.interpreter.containers import hashable, update
from langchain_sequrity.local.interpreter.formatting import checked_str, clock_format, written_size
from langchain_sequrity.local.interpreter.iteration import collect, iterate, lazy_iterator
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.operators import binary
from langchain_sequrity.local.interpreter.regexes import RE
from langchain_sequrity.local.interpreter.values import (
    Builtin,
    DictValue,
    ErrorType,
    Marker,
    Opaque,
    TypeValue,
    Value,
    add_labels,
    split_labels,
    type_name,
    unbox,
)


def _fields(*names: str) -> Callable[[Any, str], Value]:
    return lambda inner, name: getattr(inner, name) if name in names else MISSING


def _strftime(machine: Machine, value: Any, format: str) -> str:  # noqa: A002 - Python's name
    if not isinstance(format, str):
        machine.fail(TypeError, f"strftime() argument 1 must be str, not {type_name(format)}")
    return clock_format(machine, value, format) if format else ""


def _strptime(machine: Machine, text: str, template: str) -> dt.datetime:
    for number, argument in enumerate((text, template), 1):
        if not isinstance(argument, str):
            reason = f"strptime() argument {number} must be str, not {type_name(argument)}"
            machine.fail(TypeError, reason)
    # Python compiles the template to a regular expression, which has no time limit.
    machine.pay_text(100 * (len(text) + len(template)))
    if template.count("%") > 12 or len(text) > 100:  # noqa: PLR2004 - more than any date has
        machine.fail(ValueError, "The date or its format is too long.")
    return dt.datetime.strptime(text, template)  # noqa: DTZ007 - as the program says


def _now(machine: Machine, tz: dt.tzinfo | None = None) -> dt.datetime:
    text = machine.read_external("now", lambda: dt.datetime.now(dt.UTC).isoformat())
    moment = dt.datetime.fromisoformat(text)
    return moment.astimezone(tz) if tz is not None else moment.replace(tzinfo=None)


def _now_in_utc(machine: Machine) -> dt.datetime:
    return _now(machine)


def _seconds(machine: Machine, /) -> Value:
    return machine.read_external("time", time.time)


def _sleep(_: Machine, seconds: Value, /) -> None:
    """Do not wait: nothing happens meanwhile."""
    del seconds


def _zoned(moment: dt.datetime) -> dt.datetime:
    # A time without a zone is UTC here, so that programs do not depend on the host's zone.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _as_timezone(_: Machine, moment: dt.datetime, tz: dt.tzinfo | None = None) -> dt.datetime:
    return _zoned(moment).astimezone(dt.UTC if tz is None else tz)


def _from_timestamp(_: Machine, timestamp: float, tz: dt.tzinfo | None = None) -> dt.datetime:
    moment = dt.datetime.fromtimestamp(timestamp, dt.UTC)
    return moment.astimezone(tz) if tz is not None else moment.replace(tzinfo=None)


def _methods(cls: type, *names: str) -> dict[str, Implementation]:
    return {name: pure(getattr(cls, name)) for name in names}


_ZONED = ("isoformat", "replace", "utcoffset", "tzname")
METHODS[dt.date] = methods(
    {
        **_methods(dt.date, "isoformat", "isoweekday", "weekday", "replace", "toordinal"),
        "isocalendar": pure_with_machine(lambda _, day: tuple(day.isocalendar())),
        "strftime": pure_with_machine(_strftime),
    }
)
METHODS[dt.time] = methods({**_methods(dt.time, *_ZONED), "strftime": pure_with_machine(_strftime)})
METHODS[dt.datetime] = methods(
    {
        **METHODS[dt.date],
        **_methods(dt.datetime, *_ZONED, "date", "time"),
        "astimezone": pure_with_machine(_as_timezone),
        "timestamp": pure_with_machine(lambda _, moment: _zoned(moment).timestamp()),
    }
)
METHODS[dt.timedelta] = _methods(dt.timedelta, "total_seconds")
METHODS[dt.timezone] = {}
ATTRIBUTES[dt.date] = _fields("year", "month", "day")
ATTRIBUTES[dt.time] = _fields("hour", "minute", "second", "microsecond", "tzinfo")
ATTRIBUTES[dt.datetime] = _fields(
    *("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo")
)
ATTRIBUTES[dt.timedelta] = _fields("days", "seconds", "microseconds")


def _time_type(python_type: type, **members: Implementation) -> TypeValue:
    type_value = TypeValue(python_type.__name__, pure(python_type), (python_type,))
    CLASS_MEMBERS[type_value.name] = functions(members)
    TYPE_OF[python_type] = type_value
    return type_value


# Members of the types themselves, besides the methods of their values.
CLASS_MEMBERS: dict[str, dict[str, Value]] = {}
DATETIME: dict[str, Value] = {
    "date": _time_type(
        dt.date,
        today=pure_with_machine(lambda machine: _now(machine).date()),
        fromisoformat=pure(dt.date.fromisoformat),
        fromordinal=pure(dt.date.fromordinal),
    ),
    "datetime": _time_type(
        dt.datetime,
        now=pure_with_machine(_now),
        today=pure_with_machine(_now_in_utc),
        utcnow=pure_with_machine(_now_in_utc),
        combine=pure(dt.datetime.combine),
        fromisoformat=pure(dt.datetime.fromisoformat),
        fromtimestamp=pure_with_machine(_from_timestamp),
        strptime=pure_with_machine(_strptime),
    ),
    "time": _time_type(dt.time, fromisoformat=pure(dt.time.fromisoformat)),
    "timedelta": _time_type(dt.timedelta),
    "timezone": _time_type(dt.timezone),
    "UTC": dt.UTC,
}
CLASS_MEMBERS["timezone"]["utc"] = dt.UTC
_RANDOM = random.SystemRandom()
_WIDEST_INDENT = 16


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Module(Opaque):
    """A module: values by name."""

    name: str
    members: dict[str, Value]


# -- json


def _dumps(
    machine: Machine,
    obj: Value,
    *,
    indent: Any = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    default: Value = None,
    separators: Any = None,
) -> str:
    width = len(indent) if isinstance(indent, str) else indent or 0
    if width > _WIDEST_INDENT:
        machine.exhaust("indent of JSON", _WIDEST_INDENT)
    if separators is not None:
        machine.pay_text(sum(map(len, separators)) * written_size(obj), *separators)
    machine.pay_text(3 * written_size(obj) + width * _indented(obj, 1), "")

    def fallback(item: Any) -> Any:
        if isinstance(default, Builtin) and default.name == "str":
            return checked_str(item)
        msg = f"Object of type {type_name(item)} is not JSON serializable"
        raise TypeError(msg)

    return json.dumps(
        obj,
        indent=indent,
        sort_keys=sort_keys,
        ensure_ascii=ensure_ascii,
        separators=separators,
        default=fallback,
    )


def _indented(value: Value, depth: int) -> int:
    if isinstance(value, list | tuple):
        return depth * (len(value) + 1) + sum(_indented(item, depth + 1) for item in value)
    if isinstance(value, dict):
        inner = sum(_indented(item, depth + 1) for item in value.values())
        return depth * (len(value) + 1) + inner
    return 0


def _loads(machine: Machine, s: Any) -> Any:
    if not isinstance(s, str):
        machine.fail(TypeError, f"the JSON object must be str, not {type_name(s)}")
    machine.pay_text(len(s), s)
    machine.pay_items(s.count(",") + s.count("[") + s.count("{"), 150)
    return json.loads(s)


# -- math


def _factorial(machine: Machine, number: int) -> int:
    if isinstance(number, int) and number > 0:
        machine.pay_bits(number * number.bit_length())
    return math.factorial(number)


def _product(machine: Machine, source: Value, /, *, start: Value = 1) -> Value:
    items, _ = collect(machine, source)
    total = start
    for item in items:
        machine.pay_steps(1)
        total = binary(machine, "*", total, item)
    return total


def _gcd(machine: Machine, *numbers: int) -> int:
    machine.pay_steps(sum(n.bit_length() for n in numbers if isinstance(n, int)) >> 6)
    return math.gcd(*numbers)


_MATH = (
    *("acos", "asin", "atan", "atan2", "ceil", "copysign", "cos", "cosh", "degrees"),
    *("erf", "exp", "fabs", "floor", "fmod", "hypot", "isclose", "isfinite"),
    *("isinf", "isnan", "isqrt", "log", "log10", "log1p", "log2", "modf", "pow", "radians"),
    *("sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)


# -- random


def _randint(machine: Machine, a: int, b: int) -> Value:
    return machine.read_external("random.randint", lambda: _RANDOM.randint(a, b))


def _random(machine: Machine, /) -> Value:
    return machine.read_external("random.random", _RANDOM.random)


def _choice(machine: Machine, seq: Value) -> Value:
    items, mark = collect(machine, seq)
    if not items:
        machine.fail(IndexError, "Cannot choose from an empty sequence")
    index = machine.read_external("random.choice", lambda: _RANDOM.randrange(len(items)))
    return add_labels(items[index], mark)


# -- itertools, collections


def _lazy(make: Callable[..., Iterator[Value]]) -> Operation:
    """A function whose result reads its sources element by element.

    Args:
        make: Gets the machine and the arguments, and returns an iterator of the elements.
    """

    @wraps(make)
    def call(machine: Machine, /, *args: Value, **named: Value) -> Value:
        elements = make(machine, *args, **named)
        return lazy_iterator(machine, [*args, *named.values()], elements)

    return call


def _chain(machine: Machine, *sources: Value) -> Iterator[Value]:
    for source in sources:
        yield from iterate(machine, source)


def _islice(machine: Machine, source: Value, *bounds: Value) -> Iterator[Value]:
    bare, _ = machine.strip_all_labels(list(bounds))
    return itertools.islice(iterate(machine, source), *bare)


def _count(machine: Machine, start: Value = 0, step: Value = 1) -> Iterator[Value]:
    while True:
        yield start
        start = binary(machine, "+", start, step)


def _repeat(machine: Machine, item: Value, times: Value = None) -> Iterator[Value]:
    number, _ = machine.strip_labels(times)
    return itertools.repeat(item) if number is None else itertools.repeat(item, number)


def _combinations(machine: Machine, iterable: Value, r: Value) -> Iterator[Value]:
    size, _ = machine.strip_labels(r)
    items, _ = collect(machine, iterable)
    if isinstance(size, int):
        machine.pay_items(size)
    return itertools.combinations(items, size)


def _cartesian(machine: Machine, *sources: Value, repeat: Value = 1) -> Iterator[Value]:
    number, _ = machine.strip_labels(repeat)
    pools = [collect(machine, source)[0] for source in sources]
    machine.pay_items(len(pools) * number)
    return itertools.product(*pools, repeat=number)


def _default_dict(
    machine: Machine, factory: Value = None, source: Value = (), /, **named: Value
) -> Value:
    result: DictValue[Any, Value] = DictValue()
    bare, mark = split_labels(factory)
    result.factory = None if bare is None else factory
    machine.label_changed(result, mark)
    update(machine, result, None, source)
    machine.pay_items(len(named), 100)
    result.update(named)
    return result


def _counter(machine: Machine, source: Value = None, /) -> Value:
    result: DictValue[Any, Value] = DictValue()
    result.is_counter = True
    if type(unbox(source)) is DictValue:
        update(machine, result, None, source)
    elif unbox(source) is not None:
        items, _ = collect(machine, source)
        keys, mark = hashable(machine, items)
        machine.pay_items(len(keys), 100)
        for key in machine.with_clock_checks(keys):
            result[key] = result.get(key, 0) + 1
        machine.label_changed(result, mark)
    return result


def _markers(*names: str) -> dict[str, Value]:
    return {name: Marker(name) for name in names}


MODULES: dict[str, dict[str, Value]] = {
    "collections": functions(
        {
            "Counter": read_only(_counter),
            "OrderedDict": TYPES["dict"].call,
            "defaultdict": precise(_default_dict),
        }
    ),
    "datetime": DATETIME,
    "itertools": functions(
        {
            "chain": precise(_lazy(_chain)),
            "combinations": precise(_lazy(_combinations)),
            "count": _lazy(_count),
            "islice": precise(_lazy(_islice)),
            "product": precise(_lazy(_cartesian)),
            "repeat": precise(_lazy(_repeat)),
        }
    ),
    "json": {
        **functions({"dumps": pure_with_machine(_dumps), "loads": pure_with_machine(_loads)}),
        "JSONDecodeError": ErrorType("JSONDecodeError", json.JSONDecodeError),
    },
    "math": {
        **functions({name: pure(getattr(math, name)) for name in _MATH}),
        **functions(
            {
                "factorial": pure_with_machine(_factorial),
                "gcd": pure_with_machine(_gcd),
                "prod": read_only(_product),
            }
        ),
        **{name: getattr(math, name) for name in ("e", "inf", "nan", "pi", "tau")},
    },
    "pydantic": {**_markers("BaseModel", "Field"), "ValidationError": ERRORS["ValidationError"]},
    "random": functions(
        {
            "choice": precise(_choice),
            "randint": pure_with_machine(_randint),
            "random": pure_with_machine(_random),
        }
    ),
    "re": RE,
    "string": {
        name: getattr(string, name)
        for name in (
            *("ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "hexdigits"),
            *("octdigits", "printable", "punctuation", "whitespace"),
        )
    },
    "time": functions(
        {"time": _seconds, "monotonic": _seconds, "perf_counter": _seconds, "sleep": _sleep}
    ),
    "typing": _markers(
        *("Any", "Callable", "Dict", "Iterable", "Iterator", "List", "Literal", "Mapping"),
        *("Optional", "Sequence", "Set", "Tuple", "Union"),
    ),
}
ATTRIBUTES[Module] = lambda inner, name: inner.members.get(name, MISSING)
Module.__name__ = "module"
