"""If one guard is removed, a hostile program can do more than it may.

These tests remove a few guards, drawn with a seed. `python -m tests.local.interpreter.guards`
removes all of them.
"""

import random
from collections.abc import Iterator

import pytest

from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.guards import SECOND, Guard, guards, recorded, witness
from tests.local.interpreter.observer import Observer

KNOWN = recorded()
GUARDS = guards()
# Without the guards that only a time limit can show: they depend on the speed of the machine.
STEADY = [g for g in GUARDS if g.name in KNOWN and KNOWN[g.name].seconds is None]
SAMPLE = random.Random(7).sample(STEADY, 6)  # noqa: S311 - which ones does not matter


@pytest.fixture(scope="module")
def intact() -> Iterator[Observer]:
    with Observer() as made:
        yield made


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("guard", SAMPLE, ids=lambda guard: guard.name)
def test_a_hostile_program_shows_that_a_guard_is_missing(intact: Observer, guard: Guard) -> None:
    case = KNOWN[guard.name]
    assert witness(guard, [case], intact) is case


def test_a_program_that_does_not_need_a_guard_does_not_notice_that_it_is_gone(
    intact: Observer,
) -> None:
    innocent = Case("innocent", "1 + 1", "gives", value=2)
    assert witness(SAMPLE[0], [innocent], intact) is None


def test_a_program_that_also_fails_with_the_guard_is_no_witness(intact: Observer) -> None:
    wrong = Case("wrong", "1 + 1", "gives", value=3)
    assert witness(SAMPLE[0], [wrong], intact) is None


def test_every_guard_has_a_program_that_needs_it_or_a_reason_for_having_none() -> None:
    assert {guard.name for guard in GUARDS} == KNOWN.keys() | SECOND.keys()
