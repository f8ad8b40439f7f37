"""Random requests that are almost valid: no reply has status 500, and errors are JSON."""

import pytest

from tests.local.faults.fuzz import run

SAMPLE = 500


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("first", range(0, 6 * SAMPLE, SAMPLE))
def test_a_random_request_gets_an_answer_or_an_error_in_json_and_logs_no_traceback(
    first: int,
) -> None:
    totals = run(iter(range(first, first + SAMPLE)))

    assert totals.problems == []
    assert {200, 400, 422} <= totals.statuses.keys()
