"""A sample of `python -m tests.sqrt.differential`: both parsers accept the same texts."""

import json
from pathlib import Path

import pytest
from sequrity.sqrt import validate  # type: ignore[import-untyped]

from tests.sqrt.differential import QUIRKS, accepts, compare, rules_of_the_vendor, total
from tests.sqrt.generate import Generator

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))


def test_both_parsers_accept_the_same_generated_and_mutated_texts() -> None:
    found = total([compare(7, range(350))])
    assert found.unexplained == []
    assert found.valid >= 0.4 * found.texts
    assert found.valid <= 0.9 * found.texts
    used = {name for name, count in found.rules.items() if count}
    assert len(used) >= 0.9 * len(rules_of_the_vendor())


def test_generated_texts_without_mutation_are_sqrt() -> None:
    for number in range(500):
        generator = Generator(("valid", number))
        assert accepts(generator.spaced(generator.policy()))


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["what"])
def test_the_vendor_accepts_our_valid_cases(case: dict[str, str]) -> None:
    assert validate(case["code"])


@pytest.mark.parametrize("case", CASES["invalid"], ids=lambda case: case["what"])
def test_the_vendor_refuses_our_invalid_cases_except_quirks(case: dict[str, str]) -> None:
    assert validate(case["code"]) == (case["what"] in QUIRKS)


@pytest.mark.parametrize(
    ("text", "quirk"),
    [
        ('tool "x" { mustdeny always; }', "words written together"),
        ('letp={"x"};', "words written together"),
        ("let n = int ٣..٤;", "digits of other scripts"),
    ],
)
def test_each_quirk_exists_and_explains_its_text(text: str, quirk: str) -> None:
    assert validate(text)
    assert not accepts(text)
    assert [name for name, holds in QUIRKS.items() if holds(text)] == [quirk]


def test_quirks_explain_only_the_invalid_cases_that_have_their_names() -> None:
    for case in CASES["invalid"]:
        holds = [name for name, explains in QUIRKS.items() if explains(case["code"])]
        assert holds == ([case["what"]] if case["what"] in QUIRKS else [])
