"""Values keep their structure, a second screening finds nothing, and findings quote no text."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.headers import Classifier
from langchain_sequrity.local.screening import Detection, ScreenedValue
from langchain_sequrity.local.screening.screen import WITHHELD
from tests.local.screening.screens import nobody, redacted, screen

ALL = screen(
    "url_blocker",
    "file_blocker",
    classifiers=(Classifier(name="pii_redaction", threshold=0),),
)

SECRETS = [
    "http://evil.example/leak",
    "evil.example/x",
    "ann@secret.example",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "+49 30 1234567",
    "123-45-6789",
    "192.0.2.7",
    "data:text/plain,secret",
    "[x](/secret)",
    "\u200b",
    "\uff41",
]
pieces = st.sampled_from([*SECRETS, " ", ".", "/", ":", "@", "[", "]", "(", "1", "a", "-", "+"])
texts = st.lists(pieces, max_size=8).map("".join) | st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
keys = texts | st.sampled_from(["type", "data", "url", "source", "file", "mime_type"])
kinds = st.sampled_from(["image", "file", "document", "text"])
blocks = st.fixed_dictionaries({"type": kinds}, optional={"data": texts, "url": texts, "n": texts})
values = st.recursive(
    scalars | blocks,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
examples = settings(derandomize=True, max_examples=300)


def looked_at(value: Any) -> ScreenedValue:
    return ALL.screen(value, ask=nobody)


def same_shape(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and len(one) == len(other)
            and all(map(same_shape, one.values(), other.values()))
        )
    if isinstance(one, list):
        return (
            isinstance(other, list) and len(one) == len(other) and all(map(same_shape, one, other))
        )
    if isinstance(one, str):
        return isinstance(other, str)
    # Only a number that is personal data changes its type.
    return (one == other and type(one) is type(other)) or (
        type(one) in {int, float} and isinstance(other, str) and other.lstrip("-").startswith("[")
    )


@examples
@given(values)
def test_a_value_keeps_its_structure_and_types(value: Any) -> None:
    assert same_shape(value, looked_at(value).value)


@examples
@given(values)
def test_a_second_screening_finds_nothing(value: Any) -> None:
    first = looked_at(value).value
    assert looked_at(first) == ScreenedValue(first)


@examples
@given(values)
def test_screening_does_not_change_its_input(value: Any) -> None:
    before = json.dumps(value)
    looked_at(value)
    assert json.dumps(value) == before


@examples
@given(st.lists(st.sampled_from(SECRETS[:9]), min_size=1, max_size=6), st.booleans())
def test_no_finding_quotes_redacted_text(secrets: list[str], as_keys: bool) -> None:
    value: Any = {f"{secret} ": secret for secret in secrets} if as_keys else [secrets, secrets]
    outcome = looked_at(value)
    shown = f"{outcome.findings!r} {' '.join(map(str, outcome.findings))}"
    assert outcome.findings
    for secret in secrets:
        assert secret not in shown
        assert secret not in json.dumps(outcome.value)


def test_keys_that_would_become_equal_are_numbered() -> None:
    mark = "[E-MAIL ADDRESS REDACTED]"
    value = {"a@x.example": 1, mark: 2, "b@x.example": 3, f"{mark}[2]": 4, "plain": 5}
    assert redacted(ALL, value) == {
        f"{mark}[3]": 1,
        mark: 2,
        f"{mark}[4]": 3,
        f"{mark}[2]": 4,
        "plain": 5,
    }


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_no_entry_of_an_object_is_lost_when_its_keys_are_redacted(count: int) -> None:
    value = {f"user{number}@x.example": number for number in range(count)}
    screened = redacted(ALL, value)
    assert list(screened.values()) == list(range(count))
    assert all(name.startswith("[E-MAIL ADDRESS REDACTED]") for name in screened)


def test_a_finding_names_kind_path_and_number() -> None:
    outcome = looked_at({"mail": {"to": ["x", "a@x.example b@x.example http://x.example"]}})
    assert set(outcome.findings) == {
        Detection("pii_redaction", "e-mail address", ("mail", "to", 1), count=2),
        Detection("url_blocker", "url", ("mail", "to", 1)),
    }
    assert {str(finding) for finding in outcome.findings} == {
        "`pii_redaction`: e-mail address (2 times) at `$.mail.to[1]`",
        "`url_blocker`: url at `$.mail.to[1]`",
    }


def test_a_finding_shows_a_key_shortened_and_without_terminal_escapes() -> None:
    shown = str(Detection("url_blocker", "url", ("\x1b[2J" + "k" * 500,)))
    assert "\x1b" not in shown
    assert len(shown) < 150


def test_overlapping_matches_are_replaced_by_one_marker() -> None:
    assert redacted(ALL, "see http://x.example/?m=a@b.example&n=1 now") == "see [URL BLOCKED] now"


def test_text_that_matches_only_after_another_redaction_is_also_redacted() -> None:
    assert redacted(ALL, "to ann@x.de4155550123 !") == (
        "to [E-MAIL ADDRESS REDACTED][PHONE NUMBER REDACTED] !"
    )


def test_a_text_that_still_matches_after_three_rounds_is_replaced_as_a_whole() -> None:
    # Each of the four matches only after the one before it is redacted.
    assert redacted(ALL, "to ann@x.de4155550123+4930123456www.x !") == "[URL BLOCKED]"


@pytest.mark.parametrize("value", [b"x", {1}, (1,), object(), {"a": [b"x"]}, {1: "x"}])
def test_a_value_that_is_not_json_raises_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="Only JSON values can be screened"):
        looked_at(value)


@pytest.mark.parametrize("outer", [[], {"type": "image"}], ids=["plain", "in a file"])
@pytest.mark.parametrize("inner", [[], {}], ids=["lists", "objects"])
def test_a_value_that_is_nested_too_deeply_is_withheld(outer: Any, inner: Any) -> None:
    value: Any = "x"
    for _ in range(5_000):
        value = [value] if inner == [] else {"k": value}
    value = {**outer, "data": value} if outer else [value]
    assert looked_at(value).value == WITHHELD
    assert (
        str(looked_at(value).denied) == "`screening`: value nested too deeply to be screened at `$`"
    )


@pytest.mark.parametrize(
    "value",
    [
        "x" * 4_100_000,
        [f"{n}" for n in range(70_000)],
        {"type": "image", "data": ["x"] * 70_000},
    ],
    ids=["one text", "many texts", "much content of a file"],
)
def test_a_value_that_is_too_large_is_withheld(value: Any) -> None:
    outcome = looked_at(value)
    assert outcome.value == WITHHELD
    assert str(outcome.denied) == "`screening`: value too large to be screened at `$`"


def test_a_table_with_many_rows_is_screened() -> None:
    table = [{"name": "ann", "mail": "a@x.example", "n": n} for n in range(50_000)]
    assert redacted(ALL, table)[-1] == {
        "name": "ann",
        "mail": "[E-MAIL ADDRESS REDACTED]",
        "n": 49_999,
    }
