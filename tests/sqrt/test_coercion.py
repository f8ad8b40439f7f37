"""A text that some parser reads as a denied value is never certainly allowed."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import yaml
from hypothesis import example, settings
from hypothesis import given as generated
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.sqrt.calls import decide, given, truth

# How tolerant parsers read a text

_SPACE = "\t\n\v\f\r \xa0\ufeff\u2028\u2029\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_LAX: tuple[TypeAdapter[Any], ...] = tuple(map(TypeAdapter, (int, float, bool, Decimal)))
_LAX_TIMES: tuple[TypeAdapter[Any], ...] = (TypeAdapter(datetime), TypeAdapter(date))
_FLAGS = {
    True: ("1", "t", "true", "y", "yes", "on"),
    False: ("0", "f", "false", "n", "no", "off"),
}


def javascript(text: str) -> float:
    """`Number(text)` of ECMA-262."""
    text = text.strip(_SPACE)
    if text in {"", "Infinity", "+Infinity", "-Infinity"}:
        return float(text or 0)
    if text[:2].lower() in {"0x", "0o", "0b"}:
        return int(text if text.isascii() and "_" not in text else "?", 0)
    return float(text if text.isascii() and set(text.lower()) <= set("0123456789.+-e") else "?")


def octal(text: str) -> int:
    """A number that starts with a zero is octal, as in C and languages like it."""
    return int(text if text.strip().lstrip("+-").startswith("0") else "?", 8)


def sign(text: str) -> float:
    """The number of one character, such as a fraction or a Roman numeral."""
    found = [unicodedata.numeric(one, math.nan) for one in text.strip()]
    return found[0] if len(found) == 1 else math.nan


def thousands(text: str) -> float:
    """A form's parser that removes group separators and currency signs."""
    return float(text.replace(",", "").replace(" ", "").strip("$€"))


def with_decimal_comma(text: str) -> float:
    """A form's parser in many European countries: `1.000,5` is 1000.5."""
    if not re.fullmatch(r"[+-]?\d{1,3}(\.?\d{3})*(,\d*)?", text):
        raise ValueError(text)
    return float(text.replace(".", "").replace(",", "."))


def flag(text: str) -> bool:
    """A boolean in a configuration file."""
    return next(value for value, words in _FLAGS.items() if text.strip().lower() in words)


PARSERS: tuple[Callable[[str], Any], ...] = (
    int, float, Decimal, json.loads, yaml.safe_load, javascript, thousands, with_decimal_comma, flag,
    lambda text: int(text, 0), octal, sign, *(one.validate_python for one in _LAX),
)  # fmt: skip


def values_of(text: str) -> Iterator[bool | int | float]:
    """All numbers and booleans that some parser reads in a text."""
    for parse in PARSERS:
        with suppress(ValueError, ArithmeticError, StopIteration, yaml.YAMLError):
            found = parse(text)
            if isinstance(found, Decimal):
                found = int(found) if found.is_finite() and not found % 1 else float(found)
            if isinstance(found, bool | int | float) and not math.isnan(found):
                yield found


def literal(value: float) -> str | None:
    """A number in SQRT; `None` if SQRT cannot write it."""
    if isinstance(value, bool):
        return str(value).lower()
    with localcontext(prec=2_000):
        text = str(value) if value in {float("inf"), float("-inf")} else f"{Decimal(value):f}"
    if isinstance(value, float) and value.is_integer():
        text += "" if "." in text else ".0"
    return text if len(text) < 300 else None


def prohibitions(value: float) -> Iterator[str]:
    """Conditions that are true for a value."""
    written = literal(value)
    if written is None:
        return
    yield f"x.value == {written}"
    yield f"{written} == x.value"
    yield "x.value == y.value"
    if isinstance(value, bool):
        yield f"x.value in {{bool {written}}}"
        return
    yield f'x.value in {{"a", {written}}}'
    yield f'x.value in {{w"a*", 1, 2}} with {written}'
    for kind in ("int", "float"):
        for bounds in (f"{written}..", f"..{written}", f"{written}..{written}"):
            yield f"x.value in {{{kind} {bounds}}}"


def passes(condition: str, value: Any, other: Any = None) -> bool:
    """Whether a rule with this condition certainly allows a call."""
    verdict = decide(
        f'tool "lend" {{ must deny when {condition}; }}', x=given(value), y=given(other)
    )
    return verdict.allowed and verdict.certain


# Spellings

ZEROS = st.sampled_from(
    [0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xBE6, 0xFF10, 0x1D7CE]
)  # of several scripts
SPACES = st.text(st.sampled_from([*_SPACE, "\x1c", "\x85", "\u200b"]), max_size=3)
WHOLES: tuple[Callable[[int], str], ...] = (
    str, hex, oct, bin, "{:,}".format, "{:_}".format, "{:e}".format,
)  # fmt: skip
CASES: tuple[Callable[[str], str], ...] = (str, str.upper, str.title)
WORDS = ("true", "yes", "ON", "y", "T", "False", "no", "Off", "n", "inf", "-Infinity", "nan", "",
         "\u00bd", "\u2167", "\u4e94", "\u2461")  # fmt: skip


@st.composite
def numerals(draw: st.DrawFn) -> str:
    """A number in a form that people or programs write."""
    number = draw(st.integers(-(10**9), 10**9) | st.integers(-(10**25), 10**25))
    whole = draw(st.sampled_from(WHOLES))
    zeros = draw(st.sampled_from(["", "0", "000", "0" * 70, "0" * 5_000]))
    after = draw(
        st.sampled_from(
            ["", ".", ".5", ",5", "." + "0" * 70, "e3", "E-2", "e400", "_0", "%", " EUR"]
        )
    )
    sign = draw(st.sampled_from(["", "+", "-", "\u2212", "--", "$"]))
    return sign + zeros + whole(abs(number)) + after


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A numeral or a word, perhaps in another script or case, with white space around it."""
    text = draw(
        numerals() | st.sampled_from(WORDS) | st.text("0123456789.,_+-eExinfa ", max_size=8)
    )
    zero = draw(ZEROS)
    text = "".join(chr(zero + int(one)) if one in "0123456789" else one for one in text)
    return draw(SPACES) + draw(st.sampled_from(CASES))(text) + draw(SPACES)


@pytest.mark.long
@settings(max_examples=1_000, derandomize=True, deadline=None)
@generated(spellings())
@example("0" * 70 + "5000")
@example(" " * 70 + "5000")
@example("5000." + "0" * 70)
@example("9" * 70_000)
@example("1e400")
@example("5.000")
@example("010")
@example("1:30")
@example("999.99999999999999999999")
@example("9007199254740993.0")
def test_a_text_that_a_parser_may_read_as_a_forbidden_value_is_never_certainly_allowed(
    text: str,
) -> None:
    for value in set(values_of(text)):
        for condition in prohibitions(value):
            assert not passes(condition, text, value), (text, value, condition)


@pytest.mark.long
@settings(max_examples=500, derandomize=True, deadline=None)
@generated(st.integers() | st.floats(allow_nan=False) | st.booleans())
@example(1e16)
@example(5000.0)
def test_a_value_is_never_certainly_allowed_if_its_text_is_denied(value: float) -> None:
    integer = [str(int(value))] if value == value // 1 and abs(value) != float("inf") else []
    for text in {str(value), json.dumps(value), *integer}:
        plain = text.replace("+", "[+]").replace(".", "[.]")
        for condition in (
            f'x.value == "{text}"', f'"{text}" == x.value', f'x.value in {{"a", "{text}"}}',
            f'x.value in {{str "{text}"}}', f'x.value in {{w"{text}"}}', f'x.value in {{r"^{plain}$"}}',
            "x.value == y.value",
        ):  # fmt: skip
            assert not passes(condition, value, text), (value, text, condition)


@pytest.mark.parametrize("text", ["5", "-5000", "999.9", "  7 ", "0", "two", "", "anna@x.example"])
def test_a_text_that_no_parser_reads_as_a_denied_number_is_certainly_allowed(text: str) -> None:
    assert passes("x.value in {int 1000..}", text)
    assert passes("x.value == 5000", text)


@pytest.mark.parametrize(
    ("one", "other", "known"),
    [
        ("5", 5, None), ("5", 6, False), (["5"], [5], None), ({"a": "yes"}, {"a": True}, None),
        ("0" * 5_000 + "5", 5, None), ("vase", 5, False), (None, 0, None), (None, "", None),
        (None, "vase", False), ("5", "5.0", False), ("no", False, None), ("no", True, False),
        (["5"], ["5"], True), ([5], 5, False), (float("nan"), 5, None), ("9" * 700, 10**700, None),
    ],
)  # fmt: skip
def test_values_of_different_kinds_are_never_certainly_equal(
    one: Any, other: Any, known: bool | None
) -> None:
    assert truth("x.value == y.value", None, x=given(one), y=given(other)) is known
    assert truth("y.value == x.value", None, x=given(one), y=given(other)) is known


NOT_TRUE = {"false", "f", "no", "n", "off", "none", "null", "nil", ""}
NOT_FALSE = {"true", "t", "yes", "y", "on"}
FLAGS = (
    "enabled",
    "ok",
    "✓",
    "[]",
    "-",
    "disabled",
    "ja",
    "active",
    "checked",
    "5",
    "-1",
    "0x",
    "TRUE",
    "no way",
)


@pytest.mark.parametrize("form", ["x.value == {}", "x.value in {{bool {}}}", "x.value == y.value"])
@settings(max_examples=50, deadline=None)
@generated(st.text(max_size=8) | st.sampled_from([*FLAGS, *NOT_TRUE, *NOT_FALSE]))
@example("enabled")
@example("ok")
@example("✓")
def test_a_text_differs_from_true_for_certain_only_if_it_says_false(form: str, text: str) -> None:
    bare = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())
    for flag, opposite in ((True, NOT_TRUE | {"0", "00"}), (False, NOT_FALSE)):
        condition = form.format(json.dumps(flag))
        found = truth(condition, None, x=given(text), y=given(flag))
        is_number = bool(re.search(r"\d", bare))
        is_sign = not bare and bool(text.strip())
        is_clear = not is_sign and (bare in opposite or is_number)
        assert found is None or (found is False and is_clear), text


@pytest.mark.parametrize(
    ("value", "flag", "known"),
    [(5, True, None), (0, True, False), (0.5, True, None), (-1, False, False), (0, False, None),
     (None, True, False), (None, False, None), ("0", True, False), ("5", False, False),
     ("5", True, None), ("0.0", False, None), (float("nan"), True, None)],
)  # fmt: skip
def test_anything_but_zero_may_be_read_as_true(value: Any, flag: bool, known: bool | None) -> None:
    assert truth(f"x.value == {json.dumps(flag)}", None, x=given(value)) is known
    assert truth("x.value == y.value", None, x=given(value), y=given(flag)) is known
    assert truth("x.value == y.value", None, x=given(flag), y=given(value)) is known


@pytest.mark.parametrize(
    ("constant", "tag"),
    [("5", "5.0"), ("5", "05"), ("true", "1"), ("true", "yes"), ('d"2027-01-01"', "2027-01-01T00")],
)
def test_whether_labels_contain_a_constant_of_another_kind_is_unknown(
    constant: str, tag: str
) -> None:
    assert truth(f"{constant} in x.tags", None, x=given("", tags={tag})) is None


@pytest.mark.parametrize(
    "text",
    ["0" * 2_000_000 + "5000", " " * 2_000_000 + "5000", "5000." + "0" * 2_000_000, "5" * 2_000_000,
     "5" * 2_000_000 + "x", "_".join("5" * 1_000_000), "5000" + "\u0301\u0323" * 1_000_000],
    ids=lambda text: f"{text[:3]}…{text[-3:]}",
)  # fmt: skip
def test_a_forbidden_number_is_not_certainly_allowed_however_long_its_text_is(text: str) -> None:
    numbers = ", ".join(f"{number}" for number in range(2_000))  # compared with each, read once
    assert not passes(f"x.value in {{{numbers}, int 1000..}}", text)


# Times

MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis adds it


@st.composite
def times(draw: st.DrawFn) -> str | float:
    """A moment in a form that programs write."""
    moment = draw(MOMENTS)
    seconds = moment.timestamp()
    forms: list[str | float] = [
        seconds, int(seconds), seconds * 1e3, int(seconds * 1e3), int(seconds * 1e6),
        str(seconds), str(int(seconds)), f"0{int(seconds)}", f" {int(seconds * 1e3)} ",
        moment.isoformat(), moment.isoformat(" "), f" {moment.isoformat()}",
        moment.strftime("%Y%m%d"), moment.strftime("%Y%m%dT%H%M%SZ"),
        moment.strftime("%G-W%V-%u"), moment.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        moment.strftime("%Y-%m-%d-10:00"), moment.strftime("%Y-%m-%dT%H:%M:%S,5Z"),
        moment.strftime("%Y-%m-%d"), moment.isoformat().replace("+00:00", "000Z"),
    ]  # fmt: skip
    return draw(st.sampled_from(forms))


def _epochs(value: object) -> Iterator[datetime]:
    for unit in (1, 1e3, 1e6, 1e9):
        with suppress(ValueError, TypeError, OverflowError, OSError):
            yield datetime.fromtimestamp(float(value) / unit, UTC)  # type: ignore[arg-type]


def moments_of(value: str | float) -> Iterator[datetime]:
    """All moments that some parser reads in a value. Without a zone, UTC is assumed."""
    yield from _epochs(value)
    parsers: list[Callable[[Any], Any]] = [one.validate_python for one in _LAX_TIMES]
    if isinstance(value, str):
        parsers += [datetime.fromisoformat, yaml.safe_load, parsedate_to_datetime]
        parsers += [lambda text: datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)]
    for parse in parsers:
        with suppress(ValueError, TypeError, yaml.YAMLError):
            found = parse(value)
            if isinstance(found, date) and not isinstance(found, datetime):
                found = datetime(found.year, found.month, found.day, tzinfo=UTC)
            if isinstance(found, datetime):
                yield found if found.tzinfo else found.replace(tzinfo=UTC)


@settings(max_examples=500, derandomize=True, deadline=None)
@generated(times())
@example("20270101")
@example(1767225600000)
def test_a_value_that_a_parser_may_read_as_a_forbidden_time_is_never_certainly_allowed(
    value: str | float,
) -> None:
    second = timedelta(seconds=1)
    for moment in set(moments_of(value)):
        with suppress(OverflowError):
            low, high = ((moment + step).isoformat() for step in (-second, second))
            condition = f'x.value in {{datetime d"{low}"..d"{high}"}}'
            assert not passes(condition, value), (value, moment)
