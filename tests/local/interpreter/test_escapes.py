"""Hostile programs: none gets out, none takes more than its limits (`security.md`, rules 2 and 3)."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.local.interpreter.corpus import CORPUS, FAMILIES
from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.observer import Observer


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    with Observer() as made:
        yield made


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{family}: {case.name}")
        for family, cases in FAMILIES.items()
        for case in cases
    ],
)
def test_a_hostile_program_ends_as_it_must_within_2_s_and_200_mb(
    observer: Observer, case: Case
) -> None:
    assert observer.faults(case) == []


def test_the_corpus_has_every_program_once() -> None:
    assert [
        name for name, count in Counter(case.name for case in CORPUS).items() if count > 1
    ] == []
    assert [text for text, count in Counter(c.program for c in CORPUS).items() if count > 1] == []


def test_the_observer_sees_a_program_that_does_not_do_what_is_expected(observer: Observer) -> None:
    wrong = Case("wrong", "f'{secret}'", "gives", value="k3y")
    assert "expected" in observer.faults(wrong)[0]


def test_the_observer_sees_a_process_that_ends(observer: Observer) -> None:
    assert observer.run("1").ends == "gives"
    observer.stop()
    assert observer.run("1").ends == "gives"
