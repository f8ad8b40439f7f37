"""Without any one of its label rules, joins, tags and marks the interpreter gives other labels.

A few places, drawn with a seed, are switched off here; `python -m tests.local.interpreter.label_guards`
switches off every one.
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


def test_every_program_shows_the_labels_that_it_must_while_all_places_are_on(
    programs: Programs,
) -> None:
    assert programs.wrong == []


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", SAMPLE)
def test_a_place_that_is_off_is_noticed(programs: Programs, place: str) -> None:
    assert list(unnoticed(programs, [place])) == []


def test_a_program_comes_by_every_place(programs: Programs) -> None:
    assert [place for place in PLACES if place not in programs.passing] == []


@pytest.mark.long
def test_a_place_that_no_program_comes_by_is_not_noticed(programs: Programs) -> None:
    assert list(unnoticed(programs, ["nowhere: tag(value, mark)"])) == ["nowhere: tag(value, mark)"]


def test_each_place_that_changes_nothing_is_there() -> None:
    assert EQUAL.keys() <= {*rules(), *places()}


def test_every_place_has_a_name_of_its_own() -> None:
    every = [*rules(), *places()]

    assert len(every) == len(set(every)) > 300


def test_the_interpreter_with_switches_takes_the_place_of_no_other(programs: Programs) -> None:
    assert programs.switches.off == ""
    assert sys.modules[PACKAGE].Run is Run
    assert "SWITCHES" not in vars(sys.modules[f"{PACKAGE}.machine"])
