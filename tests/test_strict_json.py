"""JSON as text, without losing digits and without surprises."""

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
def test_what_is_written_is_read_again_with_every_digit(value: Any) -> None:
    assert loads(dumps(value)) == value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [10, 300])
def test_depth_that_python_can_write_is_written(depth: int) -> None:
    assert dumps(nested(depth)) == "[" * depth + "1" + "]" * depth


def test_what_is_too_deep_is_a_value_error_both_ways() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        dumps(nested(100_000))
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * 100_000)
    assert excerpt(nested(100_000), 10) == "(nested too deeply)"


@pytest.mark.parametrize(
    "text", ["NaN", "[1e999]", "[Infinity]", '{"a": -Infinity}', "", "{", "01"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, [None, -float("inf")]])
def test_numbers_that_json_lacks_are_never_written_as_something_else(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps(value)
    assert dumps([None, "null"]) == '[null,"null"]'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"ab\xff\x1b[2J", "ab\ufffd\\x1b[2J"), ("ab\n", "ab\\n"), ({"a": "\u202e"}, '{"a":"\\u202e"}'), ("x" * 20, "x" * 10 + "… (10 more characters)")],
)  # fmt: skip
def test_an_excerpt_of_anything_is_fit_to_be_shown(value: Any, shown: str) -> None:
    assert excerpt(value, 10 if value == "x" * 20 else 100) == shown


@pytest.mark.parametrize(
    ("text", "args"), [("", {}), (None, {}), ('{"a":1}', {"a": 1}), ("[]", None), ("{", None)]
)
def test_arguments_are_an_object_or_a_problem_in_words(text: str | None, args: Any) -> None:
    read, problem = read_arguments(text)
    assert read == args
    assert (problem == "") == (args is not None)


def test_a_key_that_stands_twice_is_refused_where_keys_are_unique() -> None:
    text = '[{"a": {"b": 1, "\\u0062": 2}}]'
    assert loads(text) == [{"a": {"b": 2}}]
    with pytest.raises(RepeatedKey, match="twice") as caught:
        loads(text, unique=True)
    assert caught.value.key == "b"


def test_depth_counts_lists_and_objects() -> None:
    value = [{"a": [1]}, [], 2]
    assert nests_deeper(value, 2)
    assert not nests_deeper(value, 3)
    assert not nests_deeper("[[[[", 0)
