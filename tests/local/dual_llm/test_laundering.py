"""Labelled data does not reach a forbidden tool, whatever a program does to it.

With more programs: `python -m tests.local.dual_llm.laundering --count 2000`.
"""

from itertools import islice

import pytest

from tests.local.dual_llm.conversation import Stage
from tests.local.dual_llm.laundering import Laundry, Wash, washes

_COUNT = 500


@pytest.mark.long
def test_a_value_that_depends_on_labelled_data_is_denied_after_any_operations(stage: Stage) -> None:
    laundry = Laundry(stage)
    got_out = [wash for wash in islice(washes(), _COUNT) if laundry.outcome(wash) != "denied"]

    assert [wash.source for wash in got_out] == []


def test_a_value_that_does_not_depend_on_labelled_data_is_sent(stage: Stage) -> None:
    laundry = Laundry(stage)

    assert laundry.outcome(Wash("x = fetch(name='x')\nsend(body='plain')", "data")) == "sent"
    assert laundry.outcome(Wash("x = fetch(name='x')\nsend(body=x)", "data")) == "denied"
