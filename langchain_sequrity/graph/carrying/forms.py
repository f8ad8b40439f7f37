"""What JSON lacks and Python has: the forms in which such values are written.

A form is a name, what stands under `value`, and a function each way. Readers get input from
outside: they raise whatever they like for what they cannot read, and run no code of a user's.
"""

import base64
import datetime as dt
import zoneinfo
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from langgraph.types import Overwrite

from langchain_sequrity.graph.program import ABSENT


class Form(NamedTuple):
    """How objects of one class are written."""

    name: str
    payload: type | None  # what stands under `value`; `None` for anything
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    is_unordered: bool = False


def _same(value: Any) -> Any:
    return value


def _pairs(value: Mapping[Any, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_datetime(value: dt.datetime) -> str:
    """ISO 8601; a named zone follows in brackets, as RFC 9557 has it."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
    return f"{value.isoformat()}[{zone}]" if zone else value.isoformat()


def _read_datetime(text: str) -> dt.datetime:
    iso, _, zone = text.partition("[")
    value = dt.datetime.fromisoformat(iso)
    if not zone:
        return value
    first = value.replace(tzinfo=zoneinfo.ZoneInfo(zone.removesuffix("]")))
    # An hour that is there twice is told apart by its offset.
    return first if first.utcoffset() == value.utcoffset() else first.replace(fold=1)


def _read_absent(text: str) -> str:
    if text != ABSENT:
        msg = "a text that needs no escape"
        raise ValueError(msg)
    return text


_FORMS: dict[type | None, Form] = {
    None: Form("str", str, _same, _read_absent),
    int: Form("int", str, hex, lambda text: int(text, 16)),
    dict: Form("dict", list, _pairs, dict),
    tuple: Form("tuple", list, list, tuple),
    set: Form("set", list, list, set, is_unordered=True),
    frozenset: Form("frozenset", list, list, frozenset, is_unordered=True),
    deque: Form("deque", list, lambda one: [one.maxlen, *one], lambda row: deque(row[1:], row[0])),
    OrderedDict: Form("OrderedDict", list, _pairs, OrderedDict),
    Counter: Form("Counter", list, _pairs, lambda pairs: Counter(dict(pairs))),
    bytes: Form("bytes", str, _write_bytes, _read_bytes),
    bytearray: Form("bytearray", str, _write_bytes, lambda text: bytearray(_read_bytes(text))),
    dt.datetime: Form("datetime", str, _write_datetime, _read_datetime),
    dt.date: Form("date", str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: Form("time", str, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: Form(
        "timedelta", list, lambda one: [one.days, one.seconds, one.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    Decimal: Form("Decimal", str, str, Decimal),
    UUID: Form("UUID", str, str, UUID),
    type(Path()): Form("Path", str, str, Path),
    Overwrite: Form("overwrite", None, lambda value: value.value, Overwrite),
}  # fmt: skip
BY_CLASS = {cls: form for cls, form in _FORMS.items() if cls is not None}
BY_NAME = {form.name: form for form in _FORMS.values()}
