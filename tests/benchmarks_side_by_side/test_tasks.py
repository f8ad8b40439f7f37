"""AgentDojo's tasks and attacks for an agent under a guard. They need the extra `side-by-side`."""

import warnings

import pytest

from benchmarks.agentdojo.worlds import SUITES, Pair
from benchmarks.side_by_side import tasks
from benchmarks.side_by_side.guards import GUARDS, NO_GUARD, Guard

pytestmark = pytest.mark.filterwarnings("ignore")  # of AgentDojo's and the peers' imports
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("agentdojo", reason="needs the extra `side-by-side`")


def guard(name: str) -> Guard:
    (chosen,) = [guard for guard in GUARDS if guard.name == name]
    if not chosen.is_installed:
        pytest.skip(f"{chosen.package} is not installed")
    return chosen


def test_without_a_guard_each_task_ends_right() -> None:
    verdicts = [tasks.verdict(NO_GUARD, pair, approves=False) for pair in tasks.tasks(SUITES)]
    assert [verdict.pair for verdict in verdicts if not verdict.is_useful] == []
    assert len(verdicts) == 97


def test_without_a_guard_each_attack_passes() -> None:
    pairs = list(tasks.attacks(["banking"]))
    assert len(pairs) == 144
    assert all(tasks.verdict(NO_GUARD, pair, approves=False).is_harmful for pair in pairs)


@pytest.mark.parametrize("name", ["PolicyMiddleware", "HumanInTheLoopMiddleware"])
def test_no_attack_passes_that_a_person_rejects(name: str) -> None:
    for pair in tasks.attacks(["banking"]):
        rejected, approved = tasks.verdicts(guard(name), pair)
        assert not rejected.is_harmful
        assert approved.is_harmful
        assert approved.questions


@pytest.mark.parametrize("name", ["agent-airlock", "agent-governance-toolkit"])
def test_an_allowlist_stops_the_attack_if_the_task_does_not_need_its_tool(name: str) -> None:
    pays, reads = (Pair("banking", f"user_task_{n}", "injection_task_5") for n in (0, 1))
    of_task, of_suite = guard(f"{name}, tools of the task"), guard(f"{name}, tools of the suite")
    assert not tasks.verdict(of_task, reads, approves=False).is_harmful
    assert tasks.verdict(of_task, pays, approves=False).is_harmful
    assert tasks.verdict(of_suite, reads, approves=False).is_harmful


def test_a_second_run_gives_the_same_verdicts() -> None:
    pairs = [*tasks.tasks(["slack"]), *tasks.attacks(["slack"])][::4]
    first, second = (
        [verdict for pair in pairs for verdict in tasks.verdicts(guard("PolicyMiddleware"), pair)]
        for _ in range(2)
    )
    assert first == second
