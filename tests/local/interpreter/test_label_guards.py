"""If one label rule, join, tag or mark is off, the interpreter gives wrong labels.

These tests switch off a few places, drawn with a seed.
`python -m tests.local.interpreter.label_guards` switches off all of them.
"""

import random
import sys

import pytest

from langchain_sequrity.local.interpreter import Run
from tests.local.interpreter.label_guards import EQUAL, PACKAGE, Programs, places, rules, unnoticed

PLACES = [place for place in (*rules(), *places()) if place not in EQUAL]
SAMPLE = random.Random(12).sample(PLACES, 12)  # noqa: S311 - which ones does not matter


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs()


def test_the_interpreter_with_switches_is_right_while_all_places_are_on(
    programs: Programs,
) -> None:
    assert programs.wrong == []


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", SAMPLE)
def test_a_program_notices_that_a_place_is_off(programs: Programs, place: str) -> None:
    assert list(unnoticed(programs, [place])) == []


def test_every_place_is_reached_by_a_program(programs: Programs) -> None:
    assert [place for place in PLACES if place not in programs.passing] == []


@pytest.mark.long
def test_a_place_that_no_program_reaches_counts_as_unnoticed(programs: Programs) -> None:
    assert list(unnoticed(programs, ["nowhere: add_labels(value, mark)"])) == [
        "nowhere: add_labels(value, mark)"
    ]


def test_the_places_that_make_no_difference_exist() -> None:
    assert EQUAL.keys() <= {*rules(), *places()}


def test_every_place_has_its_own_name() -> None:
    every = [*rules(), *places()]

    assert len(every) == len(set(every)) > 300


def test_the_interpreter_with_switches_does_not_replace_the_normal_one(programs: Programs) -> None:
    assert programs.switches.off == ""
    assert sys.modules[PACKAGE].Run is Run
    assert "SWITCHES" not in vars(sys.modules[f"{PACKAGE}.machine"])
