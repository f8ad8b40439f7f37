"""Estimates of memory are never below the real size after parsing."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langchain_sequrity.sizes import MOST_PER_CHARACTER, of_json, of_value

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Values that parsing stores separately; tests repeat them to make their cost visible.
parts: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([[], {}, [1], [[]], {"a": 1}, {"a": {"b": []}}, [1.5, 300], "", "ab", None, 1]),
    st.lists(st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False), max_size=8),
    st.dictionaries(texts, texts, max_size=8),
    texts,
)  # fmt: skip
MANY = 500


def taken(parse: Callable[[Any], Any], text: Any) -> int:
    """The bytes that a parsed value uses, measured with `tracemalloc`."""
    tracemalloc.start()
    try:
        value = parse(text)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del value
    return size


@settings(max_examples=60, deadline=None)
@given(part=parts, ascii_only=st.booleans())
def test_parsed_json_takes_no_more_memory_than_estimated(part: Any, *, ascii_only: bool) -> None:
    text = json.dumps([part] * MANY, ensure_ascii=ascii_only).encode()
    estimate = of_json(text)
    assert taken(orjson.loads, text) <= estimate
    assert taken(json.loads, text.decode()) <= estimate
    assert taken(lambda it: json.loads(json.loads(it)), json.dumps(text.decode())) <= of_json(
        json.dumps(text.decode())
    )


@pytest.mark.parametrize("count", [*range(1, 12), 100, 1_000, 5_461, 5_462, 21_846, 87_382])
def test_an_object_of_any_size_uses_no_more_memory_than_estimated(count: int) -> None:
    text = orjson.dumps({f"k{number}": number for number in range(count)})
    assert taken(orjson.loads, text) <= of_json(text)


@pytest.mark.parametrize(
    "sign", ["é", "\u0416", "漢", "😀", "\\ud83d\\ude00", "\\u6f22", "\\u00e9"]
)
def test_one_wide_character_makes_the_whole_string_wide(sign: str) -> None:
    text = f'["{"a" * 100_000}{sign}"'.encode()
    assert taken(orjson.loads, text + b"]") <= of_json(text)
    assert taken(failure, text) <= of_json(text)


def failure(text: bytes) -> Exception:
    """The exception, which holds the text."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return error
    raise AssertionError


@given(text=st.binary(max_size=200) | st.text(max_size=200))
def test_any_text_has_an_estimate(text: bytes | str) -> None:
    assert of_json(text) >= 2 * len(text)


@given(text=st.text(min_size=1, max_size=200) | st.text('{[:,"\\u\U0001f600d', min_size=1))
def test_no_estimate_is_above_the_most_for_each_character(text: str) -> None:
    assert of_json(text) <= MOST_PER_CHARACTER * len(text)
    assert of_json(text.encode("utf-8", "surrogatepass")) <= MOST_PER_CHARACTER * len(
        text.encode("utf-8", "surrogatepass")
    )


@settings(max_examples=60, deadline=None)
@given(part=parts)
def test_an_object_is_counted_with_everything_in_it(part: Any) -> None:
    text = json.dumps([part] * MANY)
    size = taken(json.loads, text)
    assert of_value(json.loads(text)) >= 0.9 * size


@dataclass(frozen=True, slots=True)
class Slotted:
    inner: Any


class Plain:
    def __init__(self, inner: Any) -> None:
        self.inner = inner


@pytest.mark.parametrize(
    "hold",
    [Slotted, Plain, HumanMessage, lambda text: AIMessage("", additional_kwargs={"k": [text]}),
     lambda text: {text: 1}, lambda text: frozenset({text}), lambda text: (1, [{"a": text}])],
)  # fmt: skip
def test_values_inside_objects_of_any_kind_are_counted(hold: Callable[[str], Any]) -> None:
    assert of_value(hold("x" * 100_000)) > 100_000


def test_a_value_that_occurs_twice_counts_once_and_cycles_end() -> None:
    inner = ["x" * 100_000]
    circle: list[Any] = [inner, inner]
    circle.append(circle)
    assert 100_000 < of_value(circle) < 110_000
