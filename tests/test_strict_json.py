"""Strict JSON: reading and writing keep every digit and refuse invalid input."""

import inspect
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.strict_json import (
    RepeatedKey,
    dumps,
    loads,
    nests_deeper,
    read_arguments,
)
from langchain_sequrity.wire.exchange import excerpt

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_a_written_value_is_read_back_with_every_digit(value: Any) -> None:
    assert loads(dumps(value)) == value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [10, 300])
def test_values_of_moderate_depth_are_written(depth: int) -> None:
    assert dumps(nested(depth)) == "[" * depth + "1" + "]" * depth


def _dumps_at_depth(frames: int, value: Any) -> str | None:
    if frames:
        return _dumps_at_depth(frames - 1, value)
    try:
        return dumps(value)
    except ValueError:
        return None


def test_near_the_end_of_the_stack_a_nested_value_is_written_or_is_a_value_error() -> None:
    value: Any = None
    for _ in range(240):
        value = [value]
    frames = range(100, sys.getrecursionlimit() - len(inspect.stack()) - 20, 7)
    assert {_dumps_at_depth(number, value) for number in frames} == {dumps(value), None}


def test_too_deep_nesting_is_a_value_error_in_reading_and_writing() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        dumps(nested(100_000))
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * 100_000)
    assert excerpt(nested(100_000), 10) == "(nested too deeply)"


@pytest.mark.parametrize(
    "text", ["NaN", "[1e999]", "[Infinity]", '{"a": -Infinity}', "", "{", "01"]
)
def test_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, [None, -float("inf")]])
def test_nan_and_infinity_are_refused_when_written(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps(value)
    assert dumps([None, "null"]) == '[null,"null"]'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"ab\xff\x1b[2J", "ab\ufffd\\x1b[2J"), ("ab\n", "ab\\n"), ({"a": "\u202e"}, '{"a":"\\u202e"}'), ("x" * 20, "x" * 10 + "… (10 more characters)")],
)  # fmt: skip
def test_an_excerpt_of_any_value_is_short_and_printable(value: Any, shown: str) -> None:
    assert excerpt(value, 10 if value == "x" * 20 else 100) == shown


@pytest.mark.parametrize(
    ("text", "args"), [("", {}), (None, {}), ('{"a":1}', {"a": 1}), ("[]", None), ("{", None)]
)
def test_read_arguments_returns_an_object_or_the_problem_in_words(
    text: str | None, args: Any
) -> None:
    read, problem = read_arguments(text)
    assert read == args
    assert (problem == "") == (args is not None)


def test_a_repeated_key_is_refused_if_keys_must_be_unique() -> None:
    text = '[{"a": {"b": 1, "\\u0062": 2}}]'
    assert loads(text) == [{"a": {"b": 2}}]
    with pytest.raises(RepeatedKey, match="twice") as caught:
        loads(text, unique=True)
    assert caught.value.key == "b"


def test_nests_deeper_counts_lists_and_objects() -> None:
    value = [{"a": [1]}, [], 2]
    assert nests_deeper(value, 2)
    assert not nests_deeper(value, 3)
    assert not nests_deeper("[[[[", 0)
