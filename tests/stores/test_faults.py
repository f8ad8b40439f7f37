"""Workers that share a Redis, under load: what happens to them loses nothing and does nothing twice."""

import pytest

from tests.stores import away, keys, kills
from tests.stores.redis_servers import why_unavailable
from tests.stores.stage import FAULTS

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "installed")


def test_killed_cut_off_and_paused_workers_lose_nothing_and_do_nothing_twice() -> None:
    result = kills.run(len(FAULTS))

    assert result.problems == []
    assert set(result.faults) == {*FAULTS}
    assert result.ledger.counts["answered"] > 50
    assert result.ledger.charges
    assert result.totals.right > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_again_and_again_loses_nothing_and_does_nothing_twice(kind: str) -> None:
    result = kills.run(8, [kind], seed=1 + FAULTS.index(kind))

    assert result.problems == []
    assert result.faults[kind] == 8


def test_while_redis_is_away_nothing_runs_and_all_go_on_when_it_is_back() -> None:
    result = away.run(3)

    assert result.problems == []
    assert set(result.refusals) == {"503"}


def test_no_idempotency_key_is_run_twice_by_several_workers() -> None:
    result = keys.run(300)

    assert result.problems == []
    assert len(result.runs) == 300
    assert result.replies["sent twice at once"]
    assert result.replies["sent again later"]
