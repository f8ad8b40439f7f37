"""A sample of `python -m tests.sqrt.agreement`: verdicts offline and over HTTP are equal."""

import httpx
import pytest

from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import Trial
from tests.sqrt.agreement import (
    TOOLS,
    Outcome,
    Scenario,
    Session,
    Writer,
    compare,
    offline,
)


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.long)])
def test_verdicts_offline_and_over_http_are_equal(count: int) -> None:
    found = compare(7, count)
    assert found.disagreements == []
    assert found.pairs >= count
    assert found.not_reached > 0
    assert not found.is_poor


def test_the_same_seed_gives_the_same_scenario() -> None:
    assert Writer((3, 1)).scenario() == Writer((3, 1)).scenario()
    assert Writer((3, 1)).scenario() != Writer((3, 2)).scenario()


MAIL = Labels(tags=frozenset({"mail"}))
TRIALS = [
    Trial("scan", {}, id="r0", result="Hi", result_labels=MAIL),
    Trial("lend", {"a": "Hi"}, uses={"a": ["r0"]}, id="r1"),
    Trial("lend", {"a": "Hi"}, id="r2"),
    Trial("scan", {"a": 1}, uses={"a": ["r1"]}, id="r3"),
]
SAME = 'tool "lend" { /// no mails\n must deny when a.tags overlaps {"mail"}; }'
# Policies for the server; each differs in one respect from `SAME`, which `simulate` gets.
OTHERS = {
    "verdict": SAME.replace('{"mail"}', '{"news"}'),
    "strength": SAME.replace("must", "should"),
    "certainty": SAME.replace('{"mail"}', '{w"mai?"}'),
    "counters": f'{SAME} tool r"^l.*$" {{ should allow always; }}',
    "reason": SAME.replace("no mails", "no news"),
    "rule": SAME.replace("must deny", "hard deny"),
    "line": f"/// why\n{SAME}",
    "labels of a result": f'{SAME} tool "scan" -> @tags |= {{"scanned"}};',
    "labels of the session": f'{SAME} tool "lend" -> session before @tags |= {{"lent"}};',
}


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("other", [SAME, *OTHERS.values()], ids=["nothing", *OTHERS])
def test_a_difference_between_simulate_and_the_server_is_found(other: str) -> None:
    here, there = (Scenario(PolicyHeader.from_sqrt(one), TRIALS) for one in (SAME, other))
    outcome = Outcome()
    with (
        LocalServer(replacing_tools=TOOLS, script=[]) as server,
        httpx.Client(base_url=server.base_url, trust_env=False) as http,
    ):
        outcome.add(here, offline(here), Session(http, there).run())
    assert bool(outcome.disagreements) == (other != SAME)
