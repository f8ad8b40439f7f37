"""No call runs that one engine denies which knows everything that ran in the conversation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.session_oracle.cases import WAYS, Call, Case, Way, make_case
from tests.session_oracle.ledger import Oracle
from tests.session_oracle.play import LABEL_KEY, play
from tests.session_oracle.stage import Stage

GROUPS = 30
CASES_OF_GROUP = 10
POLICY = (
    'tool "read_mail" -> session @tags |= {"mail"}; '
    'tool "send" { must deny when "mail" in @session.tags; }'
)
OF_TURNS = ("event", "style", "fails", "after_error", "on_loss", "approves")
READS, SENDS = Call("read_mail", 1), Call("send", "eve")


def varied(cases: Sequence[Case]) -> Iterator[Case]:
    """A few of the cases, with all drivers, events, styles and settings that one of them has."""
    missing = set[tuple[str, object]]().union(*map(traits, cases))
    while missing:
        case = max(cases, key=lambda case: len(missing & traits(case)))
        missing -= traits(case)
        yield case


def traits(case: Case) -> set[tuple[str, object]]:
    fields = {(name, value) for name, value in vars(case).items() if name not in ("seed", "turns")}
    turns = {(name, getattr(turn, name)) for turn in case.turns for name in OF_TURNS}
    return {*fields, *turns} - {("policy", case.policy)}


# Numbers of their own: conversations of one number are one thread.
SEEDS = {way: range(20_000 + n, 21_000, len(WAYS)) for n, way in enumerate(WAYS)}
CASES = [case for way in WAYS for case in varied([make_case(seed, way) for seed in SEEDS[way]])]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_conversations_run_no_call_that_the_engine_denies(stage: Stage, group: int) -> None:
    for seed in range(group * CASES_OF_GROUP, (group + 1) * CASES_OF_GROUP):
        check(make_case(seed), stage)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.way}, {case.driver}, {case.seed}")
def test_conversations_with_all_that_can_happen_run_no_call_that_the_engine_denies(
    stage: Stage, case: Case
) -> None:
    check(case, stage)


def check(case: Case, stage: Stage) -> None:
    outcome = play(without_processes(case), stage)
    problems = [*outcome.violations, *outcome.strange, *outcome.false_alarms]
    assert not problems, f"{case}\n{problems}"


def without_processes(case: Case) -> Case:
    """The same conversation in one process, which is quicker."""
    turns = (replace(t, event="restart") if t.event == "process" else t for t in case.turns)
    return replace(case, turns=tuple(turns))


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("way", WAYS)
def test_a_turn_in_another_process_is_judged_like_any_other(
    stage: Stage, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQURITY_LABEL_KEY", LABEL_KEY)
    seeds = (n for n in range(10_000) if "process" in [t.event for t in make_case(n, way).turns])
    case = make_case(next(seeds), way)
    outcome = play(case, stage)
    assert outcome.counts["event process"] > 0
    assert not outcome.violations + outcome.strange


def test_the_engine_finds_a_call_in_a_session_that_forgot() -> None:
    oracle = Oracle(POLICY)
    oracle.ran(READS, has_result=True)
    oracle.ran(SENDS, has_result=True)
    assert len(oracle.violations) == 1
    oracle.accepts_loss = True
    oracle.ran(SENDS, has_result=True)
    assert len(oracle.violations) == 1
