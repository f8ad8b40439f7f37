"""`diff`: the changes from one policy to another."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import diff, parse, simulate
from tests.showing import CORPUS, assert_shown_safely
from tests.sqrt.agreement import Writer
from tests.sqrt.calls import labels
from tests.sqrt.generate import Generator

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
OLD = """
let staff = {"ada"};
tool "pay" {
    /// not so much
    must deny when amount.value in {int 100..};
    should allow when to.value in staff;
}
tool "read" -> @tags |= {"mail"};
"""


def pay(amount: Any, to: str = "ada") -> dict[str, Any]:
    return {"tool": "pay", "arguments": {"amount": amount, "to": to}}


CALLS = [pay(1), pay(200), {"tool": "read", "id": "m"}]


def changed(new: str, calls: list[Any] = CALLS) -> dict[int, tuple[str, ...]]:
    return {one.new.number: one.changed for one in diff(OLD, new, calls).changed}


def rules(new: str) -> tuple[list[str], list[str]]:
    found = diff(OLD, new)
    told = (
        [f"{one.kind} {one.tool}".strip() for one in side] for side in (found.removed, found.added)
    )
    removed, added = told
    return removed, added


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("100..", "500..", {2: ("verdict", "strength", "reason")}),
        ("must deny", "should deny", {2: ("strength", "reason")}),
        ("not so much", "too much", {2: ("reason",)}),
        ("{int 100..}", "{int 100.5..}", {2: ("reason",)}),
        ("should allow when", "must allow when", {1: ("strength", "reason")}),
        ("{int 100..}", "{float 100..}", {2: ("certainty", "reason")}),
        ('{"mail"}', '{"mail", "x"}', {3: ("labels",)}),
        ('tool "read" ->', 'tool "read" -> session', {3: ("labels",)}),
    ],
)
def test_a_changed_call_says_what_differs(text: str, other: str, expected: dict[int, Any]) -> None:
    assert changed(OLD.replace(text, other)) == {**expected}


def test_a_call_that_is_no_longer_reached_has_changed() -> None:
    calls = [{**pay(1), "id": "p"}, {"tool": "b", "arguments": {"x": 1}, "uses": {"x": ["p"]}}]
    found = diff("", 'tool "pay" { should deny always; }', calls)
    assert [one.changed for one in found.changed] == [("verdict", "reason"), ("verdict",)]
    assert found.changed[1].new.verdict is None
    again = diff('tool "pay" { should deny always; }', 'tool "pay" { must deny always; }', calls)
    assert [one.changed for one in again.changed] == [("strength", "reason")]


@pytest.mark.parametrize(
    ("text", "other", "removed", "added"),
    [
        ("100..", "500..", ["must deny pay"], ["must deny pay"]),
        ('{"ada"};', '{"ada", "bo"};', ["name"], ["name"]),
        ("    should allow when to.value in staff;\n", "", ["should allow pay"], []),
        ("should allow", "priority 3; should allow", [], ["priority pay"]),
        ('"read"', 'r"read"', ["result read"], ['result r"read"']),
        ("->", "-> session before", ["result read"], ["session before read"]),
        ("->", "[2] ->", ["result read"], ["result read"]),
        ("100..", "100.0..", ["must deny pay"], ["must deny pay"]),
        ("in staff", "in {staff}".replace("{", "").replace("}", ""), [], []),
        ("must deny", "hard  deny /* . */", [], []),
        ("not so much", "too much", [], []),
        ("\n", "\n\n// more\n", [], []),
    ],
)  # fmt: skip
def test_diff_names_the_rules_that_only_one_policy_has(
    text: str, other: str, removed: list[str], added: list[str]
) -> None:
    assert rules(OLD.replace(text, other)) == (removed, added)


def test_one_of_several_equal_rules_is_removed() -> None:
    rule = 'tool "a" { must deny always; }'
    found = diff(rule * 3, rule * 2)
    assert [one.column for one in found.removed] == [2 * len(rule) + 12]
    assert (found.added, found.is_reordered) == ((), False)


def test_a_different_order_of_the_same_rules_is_reported() -> None:
    one, other = 'tool "a" -> @tags = {"x"};', 'tool "a" -> @tags = {"y"};'
    found = diff(one + other, other + one, [{"tool": "a"}])
    assert (found.removed, found.added, found.is_reordered) == ((), (), True)
    assert found.changed[0].changed == ("labels",)
    assert "are in a different order" in str(found)
    assert not diff(one + other, other).is_reordered


def test_different_presets_are_reported() -> None:
    found = diff("", PolicyHeader.from_sqrt("", default_allow=False), [{"tool": "a"}])
    assert found.presets == ("The preset `default_allow` was True and is False.",)
    assert [one.changed for one in found.changed] == [("verdict", "reason")]
    assert not found.is_none
    assert "default_allow" in str(found)


def test_a_policy_does_not_differ_from_itself() -> None:
    found = diff(OLD, parse(OLD), CALLS)
    assert found.is_none
    assert found.calls == 3
    assert str(found).startswith("0 of 3 calls and 0 rules differ")


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["what"])
def test_a_valid_policy_does_not_differ_from_itself_with_a_comment(case: dict[str, str]) -> None:
    try:
        found = diff(case["code"], f"// new\n{case['code']}")
    except PolicySyntaxError:  # it parses but does not compile
        return
    assert found.is_none


@settings(max_examples=80, deadline=None)
@generated(st.integers(0, 10**6))
def test_calls_that_two_simulations_decide_differently_are_changed(seed: int) -> None:
    one, other = Writer(("diff", seed)).scenario(), Writer(("diff", seed + 1)).scenario()
    found = diff(one.policy, other.policy, one.trials)
    both = zip(simulate(one.policy, one.trials), simulate(other.policy, one.trials), strict=True)
    differ = [
        a.number
        for a, b in both
        if (a.verdict and (a.verdict.final_verdict, a.verdict.certain))
        != (b.verdict and (b.verdict.final_verdict, b.verdict.certain))
    ]
    assert set(differ) <= {call.new.number for call in found.changed}
    for call in found.changed:
        if call.new.number not in differ:
            assert set(call.changed) <= {"reason", "labels"}
    assert diff(one.policy, one.policy, one.trials).is_none
    back = diff(other.policy, one.policy)
    # Rules are compared by their words, not by their places.
    assert (back.added, back.removed) == (found.removed, found.added)


def test_the_layout_of_a_policy_makes_no_difference() -> None:
    for seed in range(60):
        generator = Generator(("layout", seed))
        tokens = generator.policy()
        try:
            found = diff(generator.spaced(tokens), generator.spaced(tokens))
        except PolicySyntaxError:
            continue
        assert not found.removed
        assert not found.added


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("must deny", "hard deny"),
        ("{int 100..}", "{int  100.. /* and more */}"),
        ("amount.value in {int 100..}", "(amount.value in {int 100..})"),
        ('let staff = {"ada"};\n', '// who\nlet staff = {\n"ada"};\n\n'),
        ("should allow when to", "soft allow when\nto"),
    ],
)
def test_the_spelling_of_a_rule_does_not_change_a_reason(text: str, other: str) -> None:
    assert text in OLD
    assert diff(OLD, OLD.replace(text, other), CALLS).is_none


def test_diff_starts_with_the_given_session_labels() -> None:
    new = 'tool "a" { must deny when "x" in @session.tags; }'
    assert not diff("", new, [{"tool": "a"}]).changed
    assert diff("", new, [{"tool": "a"}], session=labels({"x"})).changed


def test_bad_calls_and_policies_are_refused() -> None:
    with pytest.raises(UsageError, match="Call 1: unknown key"):
        diff("", "", [{"tol": "a"}])
    with pytest.raises(PolicySyntaxError):
        diff("", "tool")


def test_to_json_of_a_difference_is_plain_json() -> None:
    data = diff(OLD, OLD.replace("100", "500"), CALLS).to_json()
    assert json.loads(json.dumps(data)) == data
    (call,) = data["changed"]
    assert (call["number"], call["tool"], call["changed"]) == (
        2,
        "pay",
        ["verdict", "strength", "reason"],
    )
    assert (call["old"]["verdict"], call["new"]["verdict"]) == ("hard_denied", "soft_allowed")
    assert [rule["line"] for rule in (*data["removed"], *data["added"])] == [5, 5]


def test_the_text_shows_old_and_new_side_by_side() -> None:
    shown = diff(OLD, OLD.replace("100", "500"), CALLS).text(1_000)
    assert shown.startswith("1 of 3 calls and 2 rules differ")
    for part in (
        "call 2: pay",
        "hard denied",
        "soft allowed",
        "only here",
        "is a whole number from 500 on",
    ):
        assert part in shown
    assert "uncertain" in str(diff("", 'tool r"e" { must deny always; }', [{"tool": "tea"}]))


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_texts_are_shown_as_plain_text(text: str) -> None:
    quoted = text.replace("\\", "").replace('"', "")
    doc = " ".join(text.split("\n")).replace("\r", " ")
    policy = f'tool "{quoted}" {{ /// {doc}\n must deny when not x.tags overlaps {{"{quoted}"}}; }}'
    assert_shown_safely(diff("", policy, [{"tool": quoted, "arguments": {"x": 1}}]))
