"""No hostile program escapes or exceeds its limits (`security.md`, rules 2 and 3).

These tests run a sample of every kind. `python -m tests.local.interpreter.escapes` runs all
programs.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

import pytest

from tests.local.interpreter.corpus import CORPUS, FAMILIES
from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.observer import Observer


def some_of_every_kind(share: float) -> Iterator[tuple[str, Case]]:
    """Some programs of each family and ending, the same ones each time."""
    draw = random.Random(7)  # noqa: S311 - which ones does not matter
    for family, cases in FAMILIES.items():
        for _, group in groupby(sorted(cases, key=lambda case: case.ends), lambda case: case.ends):
            alike = list(group)
            for case in draw.sample(alike, max(1, round(share * len(alike)))):
                yield family, case


SAMPLE = list(some_of_every_kind(0.205))
# Under the default limits, each of these uses the most of one resource.
GREEDY = (
    "a loop in a comprehension",
    "colliding keys at once",
    "long texts looked for",
)


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    with Observer() as made:
        yield made


@pytest.mark.long(sample=11)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{family}: {case.name}") for family, case in SAMPLE],
)
def test_a_hostile_program_ends_as_expected_within_2_s_and_200_mb(
    observer: Observer, case: Case
) -> None:
    assert observer.faults(case) == []


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_program_ends_within_2_s_and_200_mb_under_the_default_limits(
    observer: Observer, name: str
) -> None:
    (case,) = (case for case in CORPUS if case.name == name)
    assert observer.faults_in_use(case) == []


def test_the_sample_has_at_least_250_programs_and_every_ending_of_every_family() -> None:
    assert len(SAMPLE) >= 250
    assert {(family, case.ends) for family, case in SAMPLE} == {
        (family, case.ends) for family, cases in FAMILIES.items() for case in cases
    }


def test_the_corpus_has_every_program_once() -> None:
    assert [
        name for name, count in Counter(case.name for case in CORPUS).items() if count > 1
    ] == []
    assert [text for text, count in Counter(c.program for c in CORPUS).items() if count > 1] == []


def test_the_observer_reports_a_program_that_ends_in_an_unexpected_way(observer: Observer) -> None:
    wrong = Case("wrong", "f'{secret}'", "gives", value="k3y")
    assert "expected" in observer.faults(wrong)[0]


def test_the_observer_starts_a_new_process_after_the_old_one_ended(observer: Observer) -> None:
    assert observer.run("1").ends == "gives"
    observer.stop()
    assert observer.run("1").ends == "gives"
