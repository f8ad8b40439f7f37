"""Without any one of its guards the interpreter lets a hostile program do more than it may.

A few guards, drawn with a seed, are removed here; `python -m tests.local.interpreter.guards` removes
every one.
"""

import random
from collections.abc import Iterator

import pytest

from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.guards import Guard, guards, recorded, witness
from tests.local.interpreter.observer import Observer

KNOWN = recorded()
NOTICED = [guard for guard in guards() if guard.name in KNOWN]
SAMPLE = random.Random(7).sample(NOTICED, 5)  # noqa: S311 - which ones does not matter


@pytest.fixture(scope="module")
def intact() -> Iterator[Observer]:
    with Observer() as made:
        yield made


@pytest.mark.parametrize("guard", SAMPLE, ids=lambda guard: guard.name)
def test_a_guard_that_is_gone_is_noticed(intact: Observer, guard: Guard) -> None:
    case = KNOWN[guard.name]
    assert witness(guard, [case], intact) is case


def test_a_program_that_has_nothing_to_do_with_a_guard_does_not_notice(intact: Observer) -> None:
    innocent = Case("innocent", "1 + 1", "gives", value=2)
    assert witness(SAMPLE[0], [innocent], intact) is None


def test_a_program_that_goes_wrong_anyway_notices_nothing(intact: Observer) -> None:
    wrong = Case("wrong", "1 + 1", "gives", value=3)
    assert witness(SAMPLE[0], [wrong], intact) is None


def test_most_guards_have_a_program_that_notices() -> None:
    assert len(NOTICED) > 100
