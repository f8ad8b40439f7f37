"""`coverage`: which rules and label changes a set of calls exercises."""

import json
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import Coverage, Presets, compile_policy, coverage, simulate
from tests.showing import CORPUS, assert_shown_safely
from tests.sqrt.agreement import Writer
from tests.sqrt.calls import labels

PAY = """
tool "pay" {
    must deny when amount.value in {int 100..};
    must deny when to.value == "eve";
    must allow when ready.value == true;
    should deny always;
    should allow when small.value == true;
    session before { @tags |= {"tried"}; }
    result { when amount.value == 1 { @tags |= {"one"}; } }
    session after { @tags |= {"paid"}; }
}
tool "other" { should deny always; }
"""


def pay(**arguments: Any) -> dict[str, Any]:
    return {"tool": "pay", "arguments": {"amount": 1, "to": "ada", "ready": True, **arguments}}


def statuses(found: Coverage) -> list[str]:
    return [rule.status for rule in found.rules]


def test_the_status_of_a_rule_is_the_highest_that_any_call_reached() -> None:
    found = coverage(PAY, [pay(), pay(amount=5, ready=False, small=True)])
    assert statuses(found) == [
        "did not hold", "did not hold", "decided", "held", "decided", "held", "held", "held",
        "never reached",
    ]  # fmt: skip
    assert [rule.line for rule in found.missed] == [3, 4, 12]
    assert found.share == pytest.approx(6 / 9)


def test_the_counts_of_a_rule_are_numbers_of_calls() -> None:
    found = coverage(PAY, [pay(), pay(amount=200), pay(amount=200, to="eve"), pay(amount=2)])
    counts = {
        rule.line: (rule.decided, rule.held, rule.not_held, rule.passed_over)
        for rule in found.rules
    }
    assert counts[3] == (2, 0, 2, 0)
    assert counts[4] == (0, 0, 2, 2)
    assert counts[5] == (2, 0, 0, 2)
    assert counts[6] == (0, 2, 0, 2)
    assert counts[8] == (0, 4, 0, 0)
    assert counts[9] == (0, 1, 1, 0)
    assert counts[12] == (0, 0, 0, 0)


def test_a_rule_that_is_not_evaluated_because_of_an_earlier_denial_is_passed_over() -> None:
    found = coverage(PAY, [pay(amount=200, to="eve")])
    assert statuses(found)[:5] == ["decided", *["passed over"] * 4]
    assert "was not evaluated" in " ".join(str(found).split())
    slow = coverage(PolicyHeader.from_sqrt(PAY, fail_fast=False), [pay(amount=200, to="eve")])
    assert statuses(slow)[:3] == ["decided", "decided", "held"]
    assert "was not evaluated" not in " ".join(str(slow).split())


def test_a_rule_is_passed_over_if_a_preset_denies_first() -> None:
    query = {"tool": "read", "id": "d", "result": "?"}
    ask = {"tool": "parse_with_ai", "arguments": {"query": "?"}, "uses": {"query": ["d"]}}
    policy = """
        tool "read" -> @tags |= {"__llm_blocked"};
        tool "parse_with_ai" { should allow always; }
    """
    found = coverage(policy, [query, ask])
    assert statuses(found) == ["held", "passed over"]
    assert found.by_default == 2


def test_changes_after_a_call_are_never_reached_if_it_is_denied() -> None:
    found = coverage(PAY, [pay(amount=200)])
    assert statuses(found)[5:8] == ["held", "never reached", "never reached"]


def test_a_call_that_is_not_reached_reaches_no_rule() -> None:
    calls = [
        {**pay(amount=200), "id": "p"},
        {"tool": "other", "arguments": {"x": 1}, "uses": {"x": ["p"]}},
    ]
    found = coverage(PAY, calls)
    assert statuses(found)[-1] == "never reached"
    assert "2 calls, of which 0 decided by no written rule and 1 not reached." in str(found)


def test_a_rule_whose_truth_is_unknown_counts_as_in_doubt() -> None:
    policy = 'tool r"en" { must deny when x.value == 1; must allow always; }'
    found = coverage(policy, [{"tool": "ten"}, {"tool": "ten", "arguments": {"x": 2}}])
    deny, allow = found.rules
    assert (deny.decided, deny.not_held, deny.in_doubt) == (1, 1, 1)
    assert (allow.decided, allow.held, allow.not_held) == (0, 0, 2)
    assert "decided, each time in doubt" in found.text(1_000)


def test_a_change_in_doubt_counts_as_held_in_doubt() -> None:
    (rule,) = coverage('tool r"en" -> @tags |= {"x"};', [{"tool": "ten"}]).rules
    assert (rule.held, rule.in_doubt) == (1, 1)


def test_an_unmet_must_allow_decides_unless_another_rule_allows() -> None:
    policy = 'tool "a" { must allow when x.value == 1; should allow when x.value == 2; }'
    calls = [{"tool": "a", "arguments": {"x": x}} for x in (2, 3)]
    unmet, other = coverage(policy, calls).rules
    assert (unmet.decided, unmet.held, unmet.not_held) == (1, 0, 1)
    assert (other.decided, other.held, other.not_held) == (1, 0, 1)


def test_coverage_starts_with_the_given_session_labels() -> None:
    policy = 'tool "a" { must deny when "x" in @session.tags; }'
    assert coverage(policy, [{"tool": "a"}]).share == 0
    assert coverage(policy, [{"tool": "a"}], session=labels({"x"})).share == 1


def test_a_policy_without_rules_is_fully_covered() -> None:
    found = coverage('let x = {"y"}; tool "a" { priority 3; result { } }', [{"tool": "a"}])
    assert (found.rules, found.missed, found.share, found.by_default) == ((), (), 1.0, 1)


def test_coverage_refuses_bad_calls_as_simulate_does() -> None:
    with pytest.raises(UsageError, match="Call 1: unknown key"):
        coverage("", [{"tol": "a"}])


def test_coverage_does_not_change_how_an_engine_decides() -> None:
    engine = compile_policy(PAY, Presets(default_allow=False))
    calls = [pay(), pay(amount=200)]
    before = simulate(engine, calls)
    assert coverage(engine, calls).simulation == before
    assert simulate(engine, calls) == before


@settings(max_examples=60, deadline=None)
@generated(st.integers(0, 10**6))
def test_coverage_counts_every_decision_of_random_policies(seed: int) -> None:
    scenario = Writer(("coverage", seed)).scenario()
    found = coverage(scenario.policy, scenario.trials)
    assert found.simulation == simulate(scenario.policy, scenario.trials)
    decisions = found.simulation.decisions
    decided = [
        (reason.at, one.number)
        for one in decisions
        for reason in (one.verdict.reasons if one.verdict else ())
        if reason.at
    ]
    assert sum(rule.decided for rule in found.rules) == len(decided)
    reached = sum(one.verdict is not None for one in decisions)
    for rule in found.rules:
        counts = (rule.decided, rule.held, rule.not_held, rule.passed_over)
        assert sum(counts) <= reached
        assert rule.in_doubt <= rule.decided + rule.held
        assert (rule in found.missed) == (not rule.decided and not rule.held)
    by_place = {(rule.line, rule.column): rule for rule in found.rules}
    assert len(by_place) == len(found.rules)
    assert all(by_place[at.line, at.column].decided for at, _ in decided)


def test_to_json_of_a_coverage_is_plain_json() -> None:
    data = coverage(PAY, [pay()]).to_json()
    assert json.loads(json.dumps(data)) == data
    assert (data["calls"], data["by_default"], data["missed"]) == (1, 0, 4)
    assert data["rules"][2] == {
        "line": 5, "column": 5, "tool": "pay", "kind": "must allow",
        "rule": "must allow when ready.value == true;", "decided": 1, "held": 0, "not_held": 0,
        "passed_over": 0, "in_doubt": 0, "status": "decided",
    }  # fmt: skip
    assert data["rules"][6]["rule"] == (
        'if the value of `amount` equals 1, adds to the tags of the result: "one"'
    )


def test_rules_that_held_are_green_and_rules_never_reached_red() -> None:
    shown = coverage(PAY, [pay()])._repr_html_()
    colours = [row.split('"')[1] for row in shown.split("<tr")[2:]]
    green, red, yellow = "color: #2da44e", "color: #e5484d", "color: #bf8700"
    assert colours == [yellow, yellow, green, green, yellow, green, green, green, red]


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_texts_are_shown_as_plain_text(text: str) -> None:
    quoted = text.replace("\\", "").replace('"', "")
    policy = f'tool "{quoted}" {{ must deny when x.tags overlaps {{"{quoted}"}}; result {{ @tags |= {{"a{quoted}"}}; }} }}'
    assert_shown_safely(coverage(policy, [{"tool": quoted}]))
