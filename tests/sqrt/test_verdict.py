"""From votes to verdicts: recorded verdicts of the service, and V1 against a simple oracle."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Presets, Verdict, compile_policy, parse
from tests.sqrt.calls import decide, given

GLASS = given("vase", tags={"glass"})
PAPER = given("map", tags={"paper"})
DENY = 'tool "lend" { hard deny when "glass" in item.tags; }'
ALLOW = 'tool "lend" { hard allow when "glass" in item.tags; }'


def shown(verdict: Verdict) -> tuple[str, int, int]:
    return verdict.final_verdict, verdict.n_allowed, verdict.n_denied


# Recordings of the service


def test_recorded_a_hard_deny_that_holds_overrides_the_allowing_default() -> None:
    verdict = decide(DENY, item=GLASS)
    assert shown(verdict) == ("hard_denied", 1, 1)
    assert [reason.strength for reason in verdict.reasons] == ["hard"]


def test_recorded_a_hard_deny_that_does_not_hold_allows_the_call() -> None:
    assert decide(DENY, item=PAPER).allowed


def test_recorded_a_hard_allow_that_holds_allows_the_call() -> None:
    assert decide(ALLOW, item=GLASS).allowed


def test_recorded_a_hard_allow_that_does_not_hold_denies_the_call() -> None:
    verdict = decide(ALLOW, item=PAPER)
    assert shown(verdict) == ("hard_denied", 1, 1)
    (reason,) = verdict.reasons
    assert (reason.strength, reason.verdict, reason.unmet) == ("hard", "deny", True)


def test_recorded_parse_with_ai_may_not_read_blocked_data() -> None:
    verdict = decide("", tool="parse_with_ai", query=given("…", tags={"__llm_blocked"}))
    assert shown(verdict) == ("hard_denied", 2, 1)
    (reason,) = verdict.reasons
    assert reason.strength == "hard"
    assert reason.description


def test_recorded_a_tool_without_rules_is_allowed() -> None:
    verdict = decide(DENY, tool="scan", item=GLASS)
    assert shown(verdict) == ("soft_allowed", 1, 0)
    assert verdict.reasons[0].rule == "default_allow"


# Presets


def test_the_default_may_deny_and_may_be_hard() -> None:
    for allow, hard in itertools.product([True, False], repeat=2):
        found = decide("", presets=Presets(default_allow=allow, default_allow_hard=hard))
        strength = "hard" if hard else "soft"
        assert found.final_verdict == f"{strength}_{'allowed' if allow else 'denied'}"
        assert (found.n_allowed, found.n_denied) == (int(allow), int(not allow))


def test_the_preset_that_blocks_parse_with_ai_may_be_soft_or_off() -> None:
    blocked = given("…", tags={"__llm_blocked"})
    soft = decide("", presets=Presets(llm_blocked="soft"), tool="parse_with_ai", query=blocked)
    assert soft.final_verdict == "soft_denied"
    assert decide(
        "", presets=Presets(llm_blocked=None), tool="parse_with_ai", query=blocked
    ).allowed
    assert decide("", tool="lend", query=blocked).allowed


def test_fail_fast_stops_counting_at_the_first_hard_denial() -> None:
    policy = """tool "lend" {
        should allow always; must deny when "glass" in item.tags; must deny always; soft deny always;
    }"""
    fast = decide(policy, item=GLASS)
    assert shown(fast) == ("hard_denied", 2, 1)
    assert len(fast.reasons) == 1
    slow = decide(policy, presets=Presets(fail_fast=False), item=GLASS)
    assert shown(slow) == ("hard_denied", 2, 3)
    assert [reason.at and reason.at.column for reason in slow.reasons] == [30, 67]


def test_fail_fast_stops_counting_at_the_first_hard_denial_even_if_it_is_in_doubt() -> None:
    policy = """tool "lend" {
        should deny always; must deny when days.value == 1; must deny always; must deny always;
    }"""
    fast = decide(policy, days=given(1.0))
    assert shown(fast) == ("hard_denied", 1, 2)
    # Both deny. The certain one is reported.
    assert [reason.rule for reason in fast.reasons] == ["must deny always;"]
    slow = decide(policy, presets=Presets(fail_fast=False), days=given(1.0))
    assert shown(slow) == ("hard_denied", 1, 4)
    assert len(slow.reasons) == 3


# Reasons and words of a verdict


def test_a_reason_has_the_rule_its_place_and_its_doc_comment() -> None:
    verdict = decide(
        'tool "lend" {\n  /// glass stays\n  must deny when "glass" in item.tags;\n}', item=GLASS
    )
    (reason,) = verdict.reasons
    assert reason.rule == 'must deny when "glass" in item.tags;'
    assert reason.at == (3, 3)
    assert reason.description == "glass stays"
    assert verdict.words() == (
        'The call of `lend` is denied (hard): `must deny when "glass" in item.tags;` (line 3) '
        "applies — glass stays."
    )


def test_words_name_an_unmet_allowance_and_the_reason_for_doubt() -> None:
    assert "(line 1) is not met." in decide(ALLOW, item=PAPER).words()
    doubtful = decide('tool "lend" { must deny when days.value == 1; }', days=given(1.0)).words()
    assert (
        "(line 1) may apply (in doubt, because `days` is a float, and the rule means a whole "
        "number)."
    ) in doubtful
    assert doubtful.endswith("The service may see this differently.")
    assert "(line 1) may not be met" in decide(ALLOW).words()


ABSENT = [
    # a condition, the given arguments, the missing ones that make it unknown
    ('"glass" in item.tags', {}, ("item",)),
    ("item.value == 1", {}, ("item",)),
    ("item.value == days.value and item.value == 1", {}, ("item", "days")),
    ("item.value == 1 or days.value == 2", {"days": 3}, ("item",)),
    ("item.value in listed", {"item": "x"}, ("list",)),
    ("days.value == 1", {"days": 1.0}, ()),
    ("days.value == 1 or item.value == 1", {"days": 1}, ()),
    ("days.value == 1 and item.value == 1", {"days": 2}, ()),
    ("@args.tags is empty", {}, ()),
]


@pytest.mark.parametrize(("condition", "values", "absent"), ABSENT)
@pytest.mark.parametrize("rule", ["must deny", "must allow"])
def test_a_rule_in_doubt_names_the_missing_arguments(
    rule: str, condition: str, values: dict[str, Any], absent: tuple[str, ...]
) -> None:
    arguments = {name: given(value) for name, value in values.items()}
    text = f'let listed = list.tags; tool "lend" {{ {rule} when {condition}; }}'
    verdict = compile_policy(text).decide(Call("lend", arguments), Labels())
    assert verdict.reasons[0].absent == absent
    names = " and ".join(f"`{name}`" for name in absent)
    assert (f"because the call has no argument {names})." in verdict.words()) == bool(absent)


def test_many_missing_arguments_are_not_all_named() -> None:
    condition = " or ".join(f"a{n}.value == 1" for n in range(1_000))
    verdict = decide(f'tool "lend" {{ must deny when {condition}; }}')
    assert len(verdict.reasons[0].absent) == 1_000
    assert len(verdict.words()) < 600


@pytest.mark.parametrize("char", ["\x1b[2J", "\u202e", "\x00"])
def test_words_are_safe_to_print(char: str) -> None:
    verdict = decide(
        f'tool r".*" {{ /// {char}\n must deny when not "{char}" in a.tags; }}', tool=char
    )
    assert not verdict.allowed
    assert char not in verdict.words()


def test_words_name_a_few_reasons_and_count_the_others() -> None:
    rules = "must deny always; " * 3_000
    verdict = decide(f'tool "lend" {{ {rules} }}', presets=Presets(fail_fast=False))
    assert len(verdict.reasons) == 3_000
    assert verdict.words().endswith("; and 2995 more.")


# V1 against an oracle


@dataclass(frozen=True)
class Rule:
    strength: str
    decision: str
    condition: str  # always, yes, no or who (unknown)
    priority: int

    def text(self) -> str:
        condition = "always" if self.condition == "always" else f'when "x" in {self.condition}.tags'
        return f"{self.strength} {self.decision} {condition};"


ARGUMENTS: dict[str, Any] = {"yes": given(tags={"x"}), "no": given()}
RULES = st.builds(
    Rule,
    st.sampled_from(["must", "should"]),
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["always", "yes", "no", "who"]),
    st.integers(-1, 1),
)
BLOCKS = st.lists(RULES, max_size=7)


def policy_of(rules: Sequence[Rule]) -> str:
    """A block for each run of rules of one priority."""
    return "".join(
        f'tool "lend" {{ {" ".join(rule.text() for rule in block)} priority {priority}; }}\n'
        for priority, block in itertools.groupby(rules, key=lambda rule: rule.priority)
    )


def oracle(rules: Sequence[Rule], who: Sequence[bool], presets: Presets) -> tuple[bool, str]:
    """The verdict of V1, given which doubtful conditions hold."""
    known = iter(who)
    seen = [
        (rule, next(known) if rule.condition == "who" else rule.condition != "no") for rule in rules
    ]
    if any(held and (rule.strength, rule.decision) == ("must", "deny") for rule, held in seen):
        return False, "hard"
    allowing = [rule for rule, held in seen if held and rule.decision == "allow"]
    unmet = [
        rule
        for rule, held in seen
        if not held and (rule.strength, rule.decision) == ("must", "allow")
    ]
    if unmet and not allowing:
        return False, "hard"
    if any(rule.strength == "must" for rule in allowing):
        return True, "hard"
    soft = [rule for rule, held in seen if held]
    if soft:
        order = [
            (rule.priority, rule.condition != "always", rule.decision == "deny") for rule in soft
        ]
        return not max(order)[2], "soft"
    return presets.default_allow, "hard" if presets.default_allow_hard else "soft"


PRESETS = st.builds(
    Presets, default_allow=st.booleans(), default_allow_hard=st.booleans(), fail_fast=st.booleans()
)


EXAMPLES = pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.long)])


@EXAMPLES
def test_a_verdict_follows_v1_if_doubt_denies(count: int) -> None:
    @settings(max_examples=count, derandomize=True)
    @generated(BLOCKS, PRESETS)
    def law(rules: list[Rule], presets: Presets) -> None:
        verdict = decide(policy_of(rules), presets=presets, **ARGUMENTS)
        doubtful = [rule for rule in rules if rule.condition == "who"]
        fearful = [rule.decision == "deny" for rule in doubtful]
        assert (verdict.allowed, verdict.strength) == oracle(rules, fearful, presets)

    law()


@EXAMPLES
def test_a_verdict_is_certain_only_if_all_readings_agree(count: int) -> None:
    @settings(max_examples=count, derandomize=True)
    @generated(BLOCKS, PRESETS)
    def law(rules: list[Rule], presets: Presets) -> None:
        verdict = decide(policy_of(rules), presets=presets, **ARGUMENTS)
        doubtful = sum(rule.condition == "who" for rule in rules)
        readings = {
            oracle(rules, who, presets) for who in itertools.product([True, False], repeat=doubtful)
        }
        if presets.default_allow_hard:
            assert not verdict.certain or len(readings) == 1
        else:
            assert verdict.certain == (len(readings) == 1)

    law()


def test_a_soft_rule_in_doubt_may_decide_between_a_hard_rule_and_a_hard_default() -> None:
    hard, soft = "must allow always;", 'should allow when "x" in who.tags;'
    presets = Presets(default_allow_hard=True)
    readings = {
        (verdict.allowed, verdict.strength)
        for text in (f'tool "lend" {{ {hard} }}', f'tool "other" {{ {hard} }}')
        for tags in (set[str](), {"x"})
        for verdict in [
            decide(f'{text} tool "lend" {{ {soft} }}', presets=presets, who=given(tags=tags))
        ]
    }
    assert readings == {(True, "hard"), (True, "soft")}

    # Whether the regex of a tool must match the whole name is unknown.
    assert not decide(f'tool r"len" {{ {hard} }} tool "lend" {{ {soft} }}', presets=presets).certain


@settings(max_examples=500, derandomize=True)
@generated(BLOCKS.map(lambda rules: [rule for rule in rules if rule.condition != "who"]), PRESETS)
def test_the_counters_are_the_numbers_of_votes(rules: list[Rule], presets: Presets) -> None:
    verdict = decide(policy_of(rules), presets=presets, **ARGUMENTS)
    held = [rule for rule in rules if rule.condition != "no"]
    if presets.fail_fast:
        stops = [n for n, r in enumerate(held) if (r.strength, r.decision) == ("must", "deny")]
        held = held[: stops[0] + 1] if stops else held
    allowed = presets.default_allow + sum(rule.decision == "allow" for rule in held)
    denied = (not presets.default_allow) + sum(rule.decision == "deny" for rule in held)
    unmet = sum(reason.unmet for reason in verdict.reasons)
    assert (verdict.n_allowed, verdict.n_denied) == (allowed, denied + unmet)


@settings(max_examples=300, derandomize=True)
@generated(BLOCKS)
def test_fail_fast_never_changes_whether_a_call_is_allowed(rules: list[Rule]) -> None:
    fast = decide(policy_of(rules), presets=Presets(fail_fast=True), **ARGUMENTS)
    slow = decide(policy_of(rules), presets=Presets(fail_fast=False), **ARGUMENTS)
    assert (fast.allowed, fast.strength) == (slow.allowed, slow.strength)


@settings(max_examples=300, derandomize=True)
@generated(BLOCKS, PRESETS)
def test_the_reasons_are_rules_with_the_decision_and_strength_of_the_verdict(
    rules: list[Rule], presets: Presets
) -> None:
    verdict = decide(policy_of(rules), presets=presets, **ARGUMENTS)
    word = "allow" if verdict.allowed else "deny"
    assert verdict.reasons
    assert {(reason.verdict, reason.strength) for reason in verdict.reasons} == {
        (word, verdict.strength)
    }


@settings(max_examples=500, derandomize=True)
@generated(BLOCKS, PRESETS)
def test_a_hard_denial_names_certain_rules_first_and_all_rules_without_fail_fast(
    rules: list[Rule], presets: Presets
) -> None:
    verdict = decide(policy_of(rules), presets=presets, **ARGUMENTS)
    found = [
        rule for rule in rules
        if (rule.strength, rule.decision) == ("must", "deny") and rule.condition != "no"
    ]  # fmt: skip
    denying = [rule.text() for rule in sorted(found, key=lambda rule: rule.condition == "who")]
    if denying:
        named = denying[:1] if presets.fail_fast else denying
        assert [reason.rule for reason in verdict.reasons] == named


# Several blocks and their tools


def test_all_blocks_vote_whether_by_name_or_by_regex() -> None:
    policy = (
        'tool r"^len.$" { should deny always; } tool "lend" { should allow always; priority 1; }'
    )
    assert decide(policy).allowed
    assert not decide(policy, tool="lens").allowed
    assert decide(policy, tool="scan").allowed


def test_a_regex_that_matches_only_part_of_the_name_is_in_doubt() -> None:
    verdict = decide('tool r"en" { must deny always; }')
    assert (verdict.allowed, verdict.certain) == (False, False)
    allowing = decide('tool r"en" { must allow always; } tool "lend" { should deny always; }')
    assert (allowing.allowed, allowing.certain) == (False, False)


def test_priorities_order_soft_rules_and_do_not_affect_hard_ones() -> None:
    policy = 'tool "lend" { priority 9; should allow always; } tool "lend" { must deny always; }'
    assert decide(policy).final_verdict == "hard_denied"
    soft = 'tool "lend" { priority 9; should allow always; } tool "lend" { should deny when "glass" in item.tags; }'
    assert decide(soft, item=GLASS).final_verdict == "soft_allowed"


def test_a_policy_may_be_parsed_before_it_is_compiled() -> None:
    engine = compile_policy(parse(DENY))
    assert not engine.decide(Call("lend", {"item": GLASS}), Labels()).allowed


def test_an_engine_caches_rules_for_a_limited_number_of_tools() -> None:
    engine = compile_policy('tool r"^lend_[0-9]+$" { must deny always; }')
    for number in range(1_500):
        assert not engine.decide(Call(f"lend_{number}", {}), Labels()).allowed
    assert len(engine._rules) == 1_000


def test_one_call_does_not_affect_the_verdict_on_the_next() -> None:
    engine = compile_policy(DENY)
    for item, allowed in [(GLASS, False), (PAPER, True), (GLASS, False)] * 2:
        assert engine.decide(Call("lend", {"item": item}), Labels()).allowed is allowed


# Every documented kind of condition, met and unmet, under every kind of rule

SESSION = Labels(tags=frozenset({"open"}))
CONDITIONS: list[tuple[str, dict[str, Argument], dict[str, Argument]]] = [
    ("item.value == 5", {"item": given(5)}, {"item": given(6)}),
    ('item.value == "x"', {"item": given("x")}, {"item": given("y")}),
    ("item.value == true", {"item": given(True)}, {"item": given(False)}),
    ("item.value == 2.5", {"item": given(2.5)}, {"item": given(2.25)}),
    ("item.value == other.value", {"item": given("a"), "other": given("a")}, {"item": given("a"), "other": given("b")}),
    ('item.value == d"2027-01-01T00:00:00Z"', {"item": given("2027-01-01T01:00:00+01:00")}, {"item": given("2027-01-02T00:00:00Z")}),
    ('item.value in {"x", "y"}', {"item": given("y")}, {"item": given("z")}),
    ("item.value in {3, 4}", {"item": given(4)}, {"item": given(5)}),
    ('item.value in {r"^v[0-9]$"}', {"item": given("v1")}, {"item": given("w1")}),
    ('item.value in {w"v-*"}', {"item": given("v-1")}, {"item": given("w-1")}),
    ("item.value in {bool true}", {"item": given(True)}, {"item": given(False)}),
    ("item.value in {int 7}", {"item": given(7)}, {"item": given(8)}),
    ("item.value in {int 3..9}", {"item": given(3)}, {"item": given(10)}),
    ("item.value in {int 3<..9}", {"item": given(9)}, {"item": given(3)}),
    ("item.value in {int 3..<9}", {"item": given(3)}, {"item": given(9)}),
    ("item.value in {int 3<..<9}", {"item": given(4)}, {"item": given(3)}),
    ("item.value in {int 3..}", {"item": given(3)}, {"item": given(2)}),
    ("item.value in {int 3<..}", {"item": given(4)}, {"item": given(3)}),
    ("item.value in {int ..9}", {"item": given(9)}, {"item": given(10)}),
    ("item.value in {int ..<9}", {"item": given(8)}, {"item": given(9)}),
    ("item.value in {float 0.5..inf}", {"item": given(1e300)}, {"item": given(0.25)}),
    ('item.value in {str "x"}', {"item": given("x")}, {"item": given("X")}),
    ('item.value in {str matching r"^a+$"}', {"item": given("aa")}, {"item": given("b")}),
    ('item.value in {str like w"a?c"}', {"item": given("abc")}, {"item": given("ac")}),
    ('item.value in {str matching r"(?s).*" length 2..3}', {"item": given("abc")}, {"item": given("abcd")}),
    ('item.value in {str like w"*" length 4<..}', {"item": given("abcde")}, {"item": given("abcd")}),
    ('item.value in {datetime d"2027-01-01T00:00:00Z"..<d"2027-02-01T00:00:00Z"}', {"item": given("2027-01-31T23:59:59Z")}, {"item": given("2027-02-01T00:00:00Z")}),
    ('item.value in {datetime ..d"2027-01-01T00:00:00Z"}', {"item": given("2027-01-01T00:00:00Z")}, {"item": given("2027-01-01T00:00:01Z")}),
    ('item.value in {datetime d"2027-01-01T00:00:00Z"<..}', {"item": given("2027-01-01T00:00:01Z")}, {"item": given("2027-01-01T00:00:00Z")}),
    ('item.value in {datetime "2027-01-01T00:00:00Z"}', {"item": given("2027-01-01T00:00:00Z")}, {"item": given("2028-01-01T00:00:00Z")}),
    ("item.value in {datetime 0}", {"item": given("1970-01-01T00:00:00Z")}, {"item": given("1970-01-01T00:00:01Z")}),
    ("item.value in other.tags", {"item": given("a"), "other": given(tags={"a"})}, {"item": given("a"), "other": given(tags={"b"})}),
    ('"a" in item.tags', {"item": given(tags={"a", "b"})}, {"item": given(tags={"b"})}),
    ('item.tags overlaps {"a", "b"}', {"item": given(tags={"b", "c"})}, {"item": given(tags={"c"})}),
    ('item.tags subset of {"a", "b"}', {"item": given(tags={"a"})}, {"item": given(tags={"a", "c"})}),
    ('item.tags superset of {"a", "b"}', {"item": given(tags={"a", "b", "c"})}, {"item": given(tags={"a"})}),
    ('item.tags == {"a", "b"}', {"item": given(tags={"a", "b"})}, {"item": given(tags={"a"})}),
    ("item.tags is empty", {"item": given()}, {"item": given(tags={"a"})}),
    ("item.consumers is universal", {"item": given()}, {"item": given(consumers={"a"})}),
    ('item.producers overlaps {"a"}', {"item": given(producers={"a"})}, {"item": given(tags={"a"})}),
    ('item.consumers superset of {"a"}', {"item": given()}, {"item": given(consumers={"b"})}),
    ('@args.tags superset of {"a", "b"}', {"item": given(tags={"a"}), "other": given(tags={"b"})}, {"item": given(tags={"a"})}),
    ('@args.tags.union == {"a", "b"}', {"item": given(tags={"a"}), "other": given(tags={"b"})}, {"item": given(tags={"b"})}),
    ('@args.tags.intersect == {"a"}', {"item": given(tags={"a"}), "other": given(tags={"a", "b"})}, {"item": given(tags={"a"}), "other": given(tags={"b"})}),
    ('union of producers from args overlaps {"a"}', {"item": given(producers={"a"}), "other": given()}, {"item": given()}),
    ('intersect of consumers from args == {"a"}', {"item": given(consumers={"a", "b"}), "other": given(consumers={"a"})}, {"item": given(consumers={"b"})}),
    ('@session.tags overlaps {"open"} and item.value == 1', {"item": given(1)}, {"item": given(2)}),
    ('@session.tags overlaps {"shut"} or item.value == 1', {"item": given(1)}, {"item": given(2)}),
    ("not item.value == 1", {"item": given(2)}, {"item": given(1)}),
    ('item.tags overlaps {"a", "b"} - {"b"} | {"c"}', {"item": given(tags={"a"})}, {"item": given(tags={"b"})}),
    ('item.tags overlaps {"a"} ^ {"a", "b"}', {"item": given(tags={"b"})}, {"item": given(tags={"a"})}),
    ('item.tags overlaps {"a"} with "b" without "a"', {"item": given(tags={"b"})}, {"item": given(tags={"a"})}),
    ('item.tags subset of other.tags & {"a"}', {"item": given(tags={"a"}), "other": given(tags={"a", "b"})}, {"item": given(tags={"b"}), "other": given(tags={"a", "b"})}),
    ("wanted", {"item": given(tags={"named"})}, {"item": given()}),
    ("item.tags overlaps names", {"item": given(tags={"named"})}, {"item": given()}),
    ("item.value in range", {"item": given(2)}, {"item": given(9)}),
]  # fmt: skip
LETS = 'let names = {"named"}; let wanted = item.tags overlaps names; let range = int 1..3;'


@pytest.mark.parametrize(("condition", "met", "unmet"), CONDITIONS, ids=[c[0] for c in CONDITIONS])
def test_a_condition_decides_under_every_kind_of_rule(
    condition: str, met: dict[str, Argument], unmet: dict[str, Argument]
) -> None:
    def verdict(rules: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        found = decide(f'{LETS} tool "lend" {{ {rules} }}', SESSION, **arguments)
        return found.final_verdict, found.certain

    assert verdict(f"must deny when {condition};", met) == ("hard_denied", True)
    assert verdict(f"must deny when {condition};", unmet) == ("soft_allowed", True)
    assert verdict(f"must allow when {condition};", met) == ("hard_allowed", True)
    assert verdict(f"must allow when {condition};", unmet) == ("hard_denied", True)
    assert verdict(f"should deny when {condition}; should allow always;", met) == (
        "soft_denied",
        True,
    )
    assert verdict(f"should deny when {condition}; should allow always;", unmet) == (
        "soft_allowed",
        True,
    )
    assert verdict(f"should allow when {condition}; should deny always;", met) == (
        "soft_allowed",
        True,
    )
    assert verdict(f"should allow when {condition}; should deny always;", unmet) == (
        "soft_denied",
        True,
    )
