"""Several policies as one: no policy allows what another denies, and denials name theirs."""

import copy
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity import sqrt
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.headers import Presets as HeaderPresets
from langchain_sequrity.headers.policy import engine_presets
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Presets, compile_policy, named
from langchain_sequrity.sqrt.verdict import denial_of
from tests.sqrt.calls import given
from tests.sqrt.combined import compare

STRICT: dict[str, Any] = {"default_allow": False}
HARD: dict[str, Any] = {"default_allow": False, "default_allow_enforcement_level": "hard"}


def verdicts(policies: Sequence[Any], tool: str = "pay", **arguments: Any) -> tuple[str, ...]:
    """The verdict of a combination, and those of the policies alone."""
    called = {
        name: one if isinstance(one, Argument) else given(one) for name, one in arguments.items()
    }
    call = Call(tool, called)
    alone = [coerce(PolicyHeader, policy).compile() for policy in policies]
    together = decide(list(policies), tool, **called)
    return together.final_verdict, *(each.decide(call, Labels()).final_verdict for each in alone)


def decide(policies: Any, tool: str = "pay", **arguments: Any) -> sqrt.Verdict:
    """The verdict of a combination, whose text allows the same calls."""
    called = {
        name: value if isinstance(value, Argument) else given(value)
        for name, value in arguments.items()
    }
    call = Call(tool, called)
    header = coerce(PolicyHeader, policies)
    verdict = header.compile().decide(call, Labels())
    text = compile_policy(text_of(header), engine_presets(header, dual_llm=True))
    if "\n" not in tool:  # then each regex is in doubt, and the text is more precise
        assert text.decide(call, Labels()).allowed == verdict.allowed
    return verdict


def text_of(header: PolicyHeader) -> str:
    assert header.codes is not None
    return header.codes.code or ""


# The law


@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.long)])
def test_random_combinations_deny_what_one_of_the_policies_denies_and_nothing_else(
    count: int,
) -> None:
    outcome = compare(7, count)
    assert outcome.failures == []
    assert not outcome.is_poor
    assert outcome.layered > 5
    assert outcome.hardened > 0
    assert outcome.denied_in_doubt > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"presets": HeaderPresets(default_allow=False)},
        {"mode": "strict"},
        {"fail_fast": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_copy_of_a_header_has_its_own_settings_in_a_list(
    changes: dict[str, Any], count: int
) -> None:
    policies = [named("org", 'tool "read" { should allow always; }'), named("x", "")][:count]
    copied = coerce(PolicyHeader, policies[0] if count == 1 else policies).model_copy(
        update=changes
    )
    expected = {**copied.to_wire(), "codes": None}
    for policy in ([copied, named("app", "")], named("new", copied)):
        assert {**coerce(PolicyHeader, policy).to_wire(), "codes": None} == expected
    names = [source.name for source in sqrt.combine(copied, named("app", "")).sources]
    assert names == ["policy 1", "app"]


@pytest.mark.parametrize("options", [{}, STRICT, {**HARD, "fail_fast": False}], ids=str)
def test_an_unchanged_header_of_several_policies_keeps_their_names(
    options: dict[str, Any],
) -> None:
    header = coerce(PolicyHeader, [named("a", PolicyHeader.from_sqrt(SECRET, **options)), ""])
    names = [source.name for source in sqrt.combine(header.model_copy(), "").sources]
    assert names == ["a", "policy 2", "policy 3"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("^p.*$", "pay\n"), (".*", "pay\n"), (".*", "p\nay"), ("^p.*", "p\nay"), ("^pay$", "pay\n")],
)
def test_a_tool_name_with_a_line_break_is_in_doubt_in_a_combination_too(
    pattern: str, name: str
) -> None:
    deny = f'tool r"{pattern}" {{ should deny always; priority -1; }}'
    house = f'{deny} tool r"{pattern}" {{ should allow when to.value == "ana"; }}'
    assert verdicts([house, ""], name, to="ana")[0] == "soft_denied"
    assert decide([house, ""], to="ana").allowed


def test_a_regex_and_a_name_of_the_same_characters_are_for_different_tools() -> None:
    house = (
        r'tool r"^a\d$" { should deny always; } tool "^a\d$" { priority 1; should allow always; }'
    )
    assert verdicts([house, ""], "a1")[0] == "soft_denied"


DENY = 'tool "pay" { should deny when to.value == "eve"; }'
ALLOWANCES = [
    'tool "pay" { must allow always; }',
    'tool "pay" { priority 9; should allow always; }',
    'tool "pay" { priority 999; should allow when to.value == "eve"; }',
    'tool r"^p.*$" { must allow always; }',
    'tool r".*" { priority 9; should allow always; }',
    'tool r".*" { should deny always; } tool "pay" { priority 3; should allow always; }',
    'tool r".*" { priority 1; should deny always; } tool r"^pa.*$" { must allow always; }',
    'tool r"^pa" { must allow always; } tool "pay" { must allow always; }',
    PolicyHeader.from_sqrt('tool "pay" { should allow always; }', default_allow=False),
    PolicyHeader.from_sqrt('tool r"^p.*$" { must allow always; }', default_allow=False),
]


@pytest.mark.parametrize("allowance", ALLOWANCES, ids=str)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("denial", [DENY, DENY.replace("should", "must")], ids=["soft", "hard"])
def test_no_allowance_overrides_the_denial_of_another_policy(
    denial: str, allowance: Any, order: int
) -> None:
    policies = [denial, allowance][::order]
    combined, *alone = verdicts(policies, to="eve")
    assert sorted(one.endswith("denied") for one in alone) == [False, True]
    assert combined.endswith("denied")
    assert combined == "hard_denied" or "must" not in denial
    assert verdicts(policies, to="ana")[0].endswith("allowed")


TIES = 'tool "pay" { should deny when to.value == "eve"; should allow when sum.value == 1; }'
PARTLY = 'tool r"a" { must allow when to.value == "ana"; } tool "pay" { should allow when sum.value == 1; }'
PARTS = 'tool r"^p$|a.*" { must allow when to.value == "ana"; must allow when sum.value == 1; }'
LIFTED = (
    'tool r"a" { should deny always; } tool "pay" { priority 1; should allow when sum.value == 1; }'
)


@pytest.mark.parametrize(
    "policy", [TIES, PARTLY, PARTS, LIFTED], ids=["ties", "unmet", "parts", "lifted"]
)
@pytest.mark.parametrize("tool", ["pay", "say", "p"])
@pytest.mark.parametrize("to", ["ana", "eve"])
@pytest.mark.parametrize("amount", [1, 2])
def test_a_policy_beside_one_without_denials_decides_as_alone(
    policy: str, tool: str, to: str, amount: int
) -> None:
    combined, *alone = verdicts([policy, 'tool "x" { must deny always; }'], tool, to=to, sum=amount)
    assert combined.partition("_")[2] == alone[0].partition("_")[2]


def test_denials_have_a_higher_priority_than_the_rules_that_lift_lower_ones() -> None:
    text = str(sqrt.combine(LIFTED, ""))
    assert "priority 2;\n    should deny when not sum.value == 1;" in text
    assert text.endswith('tool "pay" {\n    priority 1;\n    should allow always;\n}\n')


@pytest.mark.parametrize("options", [STRICT, HARD], ids=["soft", "hard"])
def test_a_default_that_denies_is_not_lifted_by_the_allowances_of_another_policy(
    options: Any,
) -> None:
    house = PolicyHeader.from_sqrt('tool "pay" { must allow when to.value == "ana"; }', **options)
    app = 'tool "pay" { must allow always; } tool "scan" { must allow always; }'
    assert decide([house, app], to="ana").allowed
    assert not decide([house, app], to="eve").allowed
    for tool in ("scan", "other"):
        verdict = decide([app, house], tool)
        assert verdict.final_verdict == verdicts([app, house], tool)[2]
        assert verdict.reasons[0].rule == "default_allow"
        assert verdict.reasons[0].policy == "policy 2"


def test_two_defaults_that_deny_allow_what_both_allow() -> None:
    house = PolicyHeader.from_sqrt(
        'tool "pay" { should allow always; } tool "scan" { should allow always; }', **STRICT
    )
    app = PolicyHeader.from_sqrt(
        'tool "pay" { should allow when to.value == "ana"; }', default_allow=False
    )
    assert verdicts([house, app], to="ana")[0] == "soft_allowed"
    assert verdicts([house, app], to="eve")[0] == "soft_denied"
    assert verdicts([house, app], "scan")[0] == "soft_denied"


def test_soft_denials_stay_soft_and_hard_ones_hard() -> None:
    house = 'tool "pay" { must deny when to.value == "eve"; }'
    app = 'tool "pay" { should deny always; }'
    assert decide([house, app], to="ana").final_verdict == "soft_denied"
    assert decide([house, app], to="eve").final_verdict == "hard_denied"
    assert decide([house, app]).final_verdict == "hard_denied"  # in doubt


WIDE = """
    tool r"^p.*$" { must allow when to.value == "ana"; }
    tool r"^pa.*$" { should allow when to.value == "bo"; }
"""


@pytest.mark.parametrize("house", [WIDE, PolicyHeader.from_sqrt("", **HARD)], ids=str)
def test_a_soft_denial_is_hard_in_the_text_where_a_soft_one_would_not_deny_as_hard(
    house: Any,
) -> None:
    header = coerce(PolicyHeader, [house, 'tool "pay" { should deny always; }'])
    assert 'tool "pay" {\n    must deny always;' in text_of(header)


def test_a_soft_denial_beside_a_must_allow_for_many_tools_stays_soft_here() -> None:
    app = 'tool "pay" { should deny always; }'
    assert decide([WIDE, app], to="ana").final_verdict == "soft_denied"
    strict = PolicyHeader.from_sqrt("", **HARD)
    assert decide([strict, app]).final_verdict == "hard_denied"


def test_an_unmet_must_allow_is_not_met_by_the_allowance_of_another_policy() -> None:
    house = 'tool "pay" { must allow when to.value == "ana"; }'
    app = 'tool "pay" { should allow always; }'
    verdict = decide([house, app], to="eve")
    assert verdict.final_verdict == "hard_denied"
    assert verdict.reasons[0].unmet
    assert verdict.reasons[0].rule == 'must allow when to.value == "ana";'
    assert verdict.reasons[0].policy == "policy 1"
    assert decide([house, app], to="ana").allowed


def test_the_default_of_a_policy_is_named_where_another_one_allows_many_tools() -> None:
    header = coerce(PolicyHeader, [MANY, PolicyHeader.from_sqrt("", default_allow=False)])
    sent = header.compacted().codes
    assert sent is not None
    engine = compile_policy(sent.code or "", Presets(default_allow=False))
    names = [
        header.with_author_rule(denial_of(engine.decide(Call(tool, {}), Labels()))).policy
        for tool in ("pay", "page", "pit", "x")
    ]
    assert names == ["policy 2", "policy 2", "policy 1", "policy 2"]


def test_an_exception_in_doubt_does_not_lift_its_denial() -> None:
    house = 'tool "pay" { should allow when sum.value in {float 0..9}; should deny always; }'
    assert not decide([house, ""], sum=5).allowed
    assert decide([house, ""], sum=5.0).allowed


IN_DOUBT: list[tuple[str, str, dict[str, Any]]] = [
    ("""tool "pay" { must allow when sum.value in {int 0..9}; should allow when to.value == "ana"; }""",
     "soft_allowed", {"sum": 5.0, "to": "ana"}),
    ('tool r"pa" { should deny always; } tool "pay" { priority 1; should allow when to.value == "ana"; }',
     "soft_denied", {"to": "eve"}),
]  # fmt: skip


@pytest.mark.parametrize(("house", "expected", "arguments"), IN_DOUBT)
def test_what_a_policy_decides_in_doubt_is_in_doubt_in_a_combination(
    house: str, expected: str, arguments: dict[str, Any]
) -> None:
    other = 'tool "pay" { must deny when to.value == "nobody"; }'
    alone, combined = decide(house, **arguments), decide([house, other], **arguments)
    assert alone.final_verdict == combined.final_verdict == expected
    assert not alone.certain
    assert not combined.certain
    assert combined.reasons[0].policy == "policy 1"
    assert combined.reasons[0].rule == alone.reasons[0].rule


def test_a_certain_denial_beside_one_in_doubt_is_certain() -> None:
    house, _, arguments = IN_DOUBT[1]
    assert decide([house, 'tool "pay" { should deny always; }'], **arguments).certain


def test_label_changes_of_all_policies_apply_to_common_labels() -> None:
    house = 'tool "send" { must deny when @args.tags overlaps {"private"}; }'
    app = """
        tool "read" -> @tags |= {"private"};
        tool "send" { session before { @tags |= {"tried"}; } must deny when "tried_2" in @session.tags; }
    """
    calls: list[Any] = [
        {"tool": "read", "id": "page"},
        {"tool": "send", "arguments": {"text": ""}, "uses": {"text": ["page"]}},
    ]
    _, send = sqrt.simulate([house, app], calls)
    assert send.verdict is not None
    assert send.verdict.reasons[0].policy == "policy 1"
    assert "tried" in send.session_after.tags  # also after a denial


def test_a_label_that_one_policy_may_give_an_argument_is_read_by_the_others() -> None:
    house = 'tool "pay" { session before { to.tags |= {"seen"}; } }'
    app = 'tool "pay" { must deny when "seen" in to.tags; }'
    verdict = decide([house, app], to="ana")
    assert [reason.policy for reason in verdict.reasons] == ["policy 2"]


@pytest.mark.parametrize(
    ("binding", "test"),
    [
        ('let p = n.value == "{}";', "p"),
        ('let p = {{"{}"}};', "n.value in p"),
        ('let p = {{"{}"}};', "@args.tags overlaps p"),
    ],
)
def test_a_name_in_a_label_change_means_what_its_own_policy_says(binding: str, test: str) -> None:
    policies = [
        f'{binding.format(word)} tool "read" {{ result {{ when {test} {{ @tags |= {{"is_{word}"}}; }} }} }}'
        for word in "abc"
    ]
    call = {"tool": "read", "arguments": {"n": "b"}, "labels": {"n": {"tags": ["b"]}}}
    (read,) = sqrt.simulate(policies, [call])
    assert read.result_labels is not None
    assert read.result_labels.tags == {"b", "is_b", "__non_executable"}


def test_the_presets_of_all_policies_label_results() -> None:
    unlabelled = [
        PolicyHeader.from_sqrt(f'tool "{tool}" {{ }}', enable_non_executable_memory=False)
        for tool in "ab"
    ]
    for policies, tags in ((unlabelled, frozenset()), (["", " "], {"__non_executable"})):
        (read,) = sqrt.simulate(policies, [{"tool": "a"}], tools=["a", "b"])
        assert read.result_labels is not None
        assert read.result_labels.tags == tags


# What is refused


def refusal(*policies: Any) -> str:
    with pytest.raises(UsageError) as caught:
        coerce(PolicyHeader, [named("house", policies[0]), named("app", policies[1])])
    return str(caught.value)


SECRET = """
    tool "read" -> @tags |= {"secret"};
    tool "send" { must deny when @args.tags overlaps {"secret"}; }
"""
APPROVED = 'tool "send" { must deny when not "approved" in text.tags; }'
STEPS = """
    tool "read" { result { when @args.producers overlaps {"web"} { @tags |= {"secret"}; } } }
    tool "send" { must deny when @args.tags overlaps {"secret"}; }
"""
READERS = 'tool "send" { must deny when not text.consumers superset of {"ana"}; }'
SHARED = 'tool "send" { must deny when not to.value in text.consumers; }'
CHAIN = """
    tool "a" { result { when "first" in @args.tags { @tags |= {"second"}; } } }
    tool "b" { result { when "second" in @args.tags { @tags |= {"secret"}; } } }
    tool "send" { must deny when "secret" in text.tags; }
"""
WEAKENING = [
    (SECRET, 'tool "clean" -> @tags -= {"secret"};', "remove"),
    (SECRET, 'tool "clean" -> @tags = {"x"};', "remove"),
    (SECRET, 'tool "clean" -> @tags &= {"x"};', "remove"),
    (SECRET, 'tool "clean" -> @tags ^= {"secret"};', "remove"),
    (SECRET, 'tool "clean" -> session @tags -= {"secret"};', "remove"),
    (SECRET, 'let x = {"secret"}; tool "clean" -> @tags -= x with "y";', "remove"),
    (SECRET, 'tool "clean" -> @tags -= @args.tags;', "remove"),
    (SECRET, 'tool "clean" { result { when @tags is empty { @tags = {}; } } }', "remove"),
    (STEPS, 'tool "clean" -> @producers -= {"web"};', "remove"),
    (APPROVED, 'tool "write" -> @tags |= {"approved"};', "add"),
    (APPROVED, 'tool "write" -> @tags |= @session.tags;', "add"),
    (APPROVED, 'tool "write" { session before { @tags = {"approved"}; } }', "add"),
    ('tool "send" { must allow when "approved" in text.tags; }',
     'tool "write" -> @tags |= {"approved"};', "add"),
    ('let p = text.tags is empty; tool "send" { must deny when p; }',
     'tool "write" -> @tags |= {"x"};', "add"),
    ('tool "send" { must deny when not text.tags subset of {"x"}; }',
     'tool "write" -> @tags -= {"y"};', "remove"),
    ('tool "send" { must deny when not to.value in text.consumers; }',
     'tool "write" -> @consumers |= {"eve"};', "add"),
    (READERS, 'tool "write" -> @consumers = {"ana", "bo"};', "add"),
    ('tool "send" { must deny when "eve" in text.consumers; }',
     'tool "write" -> @consumers |= {"ana"};', "remove"),
    ('let s = a.tags ^ b.tags; tool "send" { must deny when "x" in s; }',
     'tool "write" -> @tags |= {"x"};', "add"),
    ('tool "send" { must deny when "x" in a.tags - b.tags; }',
     'tool "write" -> @tags |= {"x"};', "add"),
    (CHAIN, 'tool "write" -> @tags -= {"first"};', "remove"),
    ('tool "sum" -> @consumers |= {"ana"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "sum" -> @consumers -= {"eve"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "sum" -> @consumers ^= {"eve"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "sum" -> @consumers -= {"eve"}; tool "send" { must deny when not "bo" in text.consumers; }',
     'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "send" { must deny when not to.value in text.consumers | {"ana"}; }',
     'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "send" { must deny when not to.value in text.consumers - {"eve"}; }',
     'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "send" { must deny when not to.value in text.consumers with "ana"; }',
     'tool "fetch" -> @consumers &= {"bo"};', "remove"),
    ('tool "read" -> @tags ^= {"x"}; tool "send" { must deny when "x" in text.tags; }',
     'tool "read" -> @tags |= {"x"};', "add"),
    ('tool "read" -> session @tags ^= {"x"}; tool "send" { must deny when "x" in @session.tags; }',
     'tool "read" -> session @tags |= {"x"};', "add"),
    ('tool "read" -> @tags ^= {"x"}; tool "send" { must deny when not "x" in text.tags; }',
     'tool "read" -> @tags -= {"x"};', "remove"),
    (SECRET, 'tool "read" -> @tags |= {"*"};', "add"),
    (SECRET.replace('{"secret"};', '{"*"};', 1), 'tool "read" -> @tags |= {"x"};', "remove"),
]  # fmt: skip


@pytest.mark.parametrize(("house", "app", "verb"), WEAKENING)
def test_a_label_change_that_may_let_a_call_pass_that_another_policy_denies_is_refused(
    house: str, app: str, verb: str
) -> None:
    text = refusal(house, app)
    assert "The policy `app` may allow what the policy `house` denies" in text
    assert f"can {verb} " in text
    assert "of `app`)" in text


HARMLESS = [
    (SECRET, 'tool "clean" -> @tags -= {"other"};'),
    (SECRET, 'tool "clean" -> @tags |= {"secret", "x"};'),
    (SECRET, 'tool "clean" -> @producers = {"x"};'),
    (SECRET, 'tool "clean" -> @consumers &= {"ana"};'),
    (APPROVED, 'tool "write" -> @tags -= {"approved"};'),
    (APPROVED, 'tool "write" -> @tags |= {"other"};'),
    (READERS, 'tool "write" -> @consumers &= {"bo"};'),
    (SECRET + 'tool "read" -> session @tags |= @result.tags;', 'tool "write" -> @tags |= {"x"};'),
    (CHAIN, 'tool "write" -> @tags |= {"first", "second"};'),
    (SHARED, 'tool "fetch" -> @consumers &= {"bo"};'),
    ('tool "sum" -> @consumers &= {"ana"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};'),
    ('tool "send" { must deny when not to.value in text.consumers & {"ana"}; }',
     'tool "fetch" -> @consumers &= {"bo"};'),
    ('tool "read" -> @tags ^= {"x"}; tool "send" { must deny when "x" in text.tags; }',
     'tool "read" -> @tags |= {"y"};'),
    (SECRET + 'tool "sum" -> @consumers |= {"ana"};', 'tool "fetch" -> @consumers &= {"bo"};'),
    ('tool "send" { must deny when not text.tags subset of {"x"}; }',
     'tool "write" -> @tags |= {"y"};'),
    ('tool "send" { must deny when not text.tags subset of {"x"}; }',
     'tool "write" -> @tags -= {"x"};'),
]  # fmt: skip


@pytest.mark.parametrize(("house", "app"), HARMLESS)
def test_a_label_change_that_can_only_deny_more_is_combined(house: str, app: str) -> None:
    assert len(sqrt.combine(house, app).sources) == 2


def test_a_change_of_labels_that_a_branching_policy_reads_is_refused() -> None:
    branches = {"mode": "deny", "tags": ["web"]}
    house = PolicyHeader.from_sqrt("", mode="custom", branching_meta_policy=branches)  # type: ignore[arg-type]
    assert "can remove tags `web`" in refusal(house, 'tool "clean" -> @tags -= {"web"};')
    assert sqrt.combine(house, 'tool "clean" -> @tags -= {"x"};').settings["mode"] == "custom"


def test_a_change_of_the_tag_that_blocks_the_data_model_is_refused() -> None:
    house = 'tool "read" -> @tags |= {"__llm_blocked"};'
    assert "can remove tags `__llm_blocked`" in refusal(house, 'tool "x" -> @tags = {"x"};')


SETTINGS: list[tuple[Any, Any, str]] = [
    ({"default_allow": True}, {"default_allow": False}, "`presets.default_allow`"),
    ({"mode": "strict"}, {"mode": "standard"}, "`mode`"),
    ({"fail_fast": True}, {"fail_fast": False}, "`fail_fast`"),
    ({"extra": {"new": 1}}, {"extra": {"new": 2}}, "`new`"),
    ({"branching_meta_policy": {"tags": ["a"]}}, {"branching_meta_policy": {"tags": ["b"]}},
     "`presets.branching_meta_policy`"),
    ({}, {"enable_llm_blocked_tag": False}, "`presets.enable_llm_blocked_tag`"),
    ({}, {"enable_non_executable_memory": False}, "`presets.enable_non_executable_memory`"),
    ({"llm_blocked_tag_enforcement_level": "soft"}, {},
     "`presets.llm_blocked_tag_enforcement_level`"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "field"), SETTINGS)
def test_settings_that_contradict_or_weaken_are_refused_by_name(
    one: Any, other: Any, field: str
) -> None:
    text = refusal(PolicyHeader.from_sqrt("", **one), PolicyHeader.from_sqrt("", **other))
    assert field in text
    assert "`house`" in text
    assert "`app`" in text


SOFT_BLOCK: dict[str, Any] = {"llm_blocked_tag_enforcement_level": "soft"}


@pytest.mark.parametrize("tool", ['"parse_with_ai"', 'r".*"', 'r"ai"'])
def test_an_allowance_beside_a_soft_preset_for_the_same_tool_is_refused(tool: str) -> None:
    allowing = PolicyHeader.from_sqrt(f"tool {tool} {{ should allow always; }}", **SOFT_BLOCK)
    denying = PolicyHeader.from_sqrt("", **SOFT_BLOCK)
    assert "would override `llm_blocked_tag_enforcement_level=soft`" in refusal(denying, allowing)
    blocked = given("", tags=["__llm_blocked"])
    assert verdicts([denying, denying], "parse_with_ai", query=blocked)[0] == "soft_denied"


def test_equal_settings_and_those_of_one_policy_are_those_of_the_combination() -> None:
    one = PolicyHeader.from_sqrt("", mode="strict", extra={"new": 1}, enable_llm_blocked_tag=False)
    other = PolicyHeader.from_sqrt("", default_allow=False, enable_llm_blocked_tag=False)
    header = coerce(PolicyHeader, [one, other])
    assert (header.mode, header.extra) == ("strict", {"new": 1})
    assert header.presets is not None
    assert header.presets.default_allow is False
    assert header.presets.enable_llm_blocked_tag is False


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (PolicyHeader(codes={"code": "permit(a, b, c);", "language": "cedar"}), "is in Cedar"),  # type: ignore[arg-type]
        (PolicyHeader(auto_gen=True), "has `auto_gen`"),
    ],
)
def test_a_policy_whose_rules_are_unknown_here_is_refused_by_name(
    policy: PolicyHeader, why: str
) -> None:
    assert f"The policy `app` {why}" in refusal("", policy)


MANY = 'tool r"^p.*$" { should deny always; } tool r"^pa.*$" { priority 1; should allow always; }'


@pytest.mark.parametrize(
    "other",
    [
        'tool r"^.*y$" { should deny always; } tool r"^x.*y$" { priority 1; should allow always; }',
        'tool r"y" { must allow when to.value == "ana"; }',
        'tool r".*" { should deny always; } tool "pay" { priority 1; should allow always; }',
        PolicyHeader.from_sqrt('tool r"a" { should allow always; }', default_allow=False),
    ],
    ids=str,
)
def test_allowances_for_many_tools_that_would_override_another_policy_are_refused(
    other: Any,
) -> None:
    text = refusal(MANY, other)
    assert "The policies `house` and `app` cannot be combined" in text
    assert "`should allow always;` (line 1 of `house`)" in text


@pytest.mark.parametrize("rule", ["should allow always;", "must allow always;"])
def test_two_strict_policies_allow_what_one_names_and_the_other_allows_by_a_pattern(
    rule: str,
) -> None:
    house = PolicyHeader.from_sqrt(f'tool r"^get_.*$" {{ {rule} }}', default_allow=False)
    app = PolicyHeader.from_sqrt('tool "get_mail" { should allow always; }', default_allow=False)
    for policies in ([house, app], [app, house]):
        assert verdicts(policies, "get_mail")[0] == "soft_allowed"
        assert verdicts(policies, "get_all")[0] == "soft_denied"
        names = ("house", "app") if policies[0] is house else ("app", "house")
        verdict = decide(list(map(named, names, policies)), "get_all")
        assert verdict.reasons[0].policy == "app"


@pytest.mark.parametrize("pattern", ["^(pay|pan)$", "^pa.*$", "^pa[yn]$"])
@pytest.mark.parametrize("wide", [".*", "^.*$", "^p.*$", "^(p|q).*$"])
def test_a_denial_for_many_tools_is_repeated_for_those_that_another_policy_allows(
    pattern: str, wide: str
) -> None:
    house = f"""
        tool r"{wide}" {{ should deny when to.value == "eve"; }}
        tool r"^pi.*$" {{ must allow always; }}
    """
    app = PolicyHeader.from_sqrt(f'tool r"{pattern}" {{ should allow always; }}', **STRICT)
    allowed = [
        (tool, to)
        for tool in ("pay", "pan", "pit", "x")
        for to in ("ana", "eve")
        if decide([house, app], tool, to=to).allowed
    ]
    assert allowed == [("pay", "ana"), ("pan", "ana")]


@pytest.mark.parametrize("pattern", ["(?s)^l.*$", "^l[^x]*$"])
def test_a_pattern_that_matches_line_breaks_is_not_in_one_that_may_not(pattern: str) -> None:
    house = f'tool r"{pattern}" {{ should deny always; }} tool r"^la.*$" {{ must allow always; }}'
    app = PolicyHeader.from_sqrt('tool r".*" { should allow always; }', **STRICT)
    wide = f'{house} tool r"{pattern}" {{ priority 1; should allow always; }} tool r".*" {{ should deny always; }}'
    assert "the `default_allow=False` of `app`" in refusal(wide, app)


def test_an_allowance_that_overrides_a_rule_is_not_dropped_beside_a_strict_policy() -> None:
    # Without it, a call of `page` would be denied in the name of `house`, which allows it.
    strict = PolicyHeader.from_sqrt('tool "pay" { should allow always; }', default_allow=False)
    assert "the `default_allow=False` of `app`" in refusal(MANY, strict)


def test_a_must_allow_is_not_dropped_beside_a_strict_policy() -> None:
    # Without it, a call of `pit` would not be denied as hard.
    house = (
        'tool r"^p.*$" { must allow when to.value == "ana"; } tool "pan" { should allow always; }'
    )
    strict = PolicyHeader.from_sqrt('tool "pay" { should allow always; }', default_allow=False)
    assert "the `default_allow=False` of `app`" in refusal(house, strict)


PATTERNS_OF_P = [
    "^pa?y.*$", "^q.*$|^p.*$", "^p{0,1}y", "p", "^[pq]y", "^q(?#()|^p", "(?x)^q #(\n|^p",
    "^q[(]|^p", "^q\\\\(|^p", "^q[]()]*[]]|^p",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS_OF_P)
def test_patterns_that_may_share_a_tool_are_not_taken_for_different(pattern: str) -> None:
    house = f'tool r".*" {{ should deny always; }} tool r"{pattern}" {{ priority 1; should allow always; }}'
    app = 'tool r"^py.*$" { should deny always; } tool "pyx" { priority 1; should allow always; }'
    assert "cannot be combined" in refusal(house, app)


def test_a_soft_denial_for_many_tools_beside_a_hard_default_is_refused() -> None:
    text = refusal(LIFTED, PolicyHeader.from_sqrt("", **HARD))
    assert "the hard `default_allow=False` of `app`" in text


SAME_BLOCKS = [
    'tool r"^p.*$" { should deny always; should allow when to.value == "ana"; }',
    'tool r"an" { should deny always; } tool r"an" { priority 1; should allow when to.value == "ana"; }',
    'tool r"^p.*$" { must allow when to.value == "ana"; }',
    'tool r"^p.*$" { priority -1; should deny always; } tool r"^pa.*$" { should allow always; }',
    'tool r".*" { should deny always; } tool r"^p.*$" { priority 1; should allow when to.value == "ana"; }',
    'let us = {"ana"}; tool r"^p.*$" { should deny always; should allow when to.value in us; }',
    'tool "pay" -> @tags ^= {"x"}; tool "pan" { must deny when "x" in to.tags; }',
]  # fmt: skip


@pytest.mark.parametrize("extra", ["", " // again", 'tool "pay" { must deny when to.value == 7; }'])
@pytest.mark.parametrize("block", SAME_BLOCKS)
def test_policies_with_the_same_block_for_many_tools_are_combined(block: str, extra: str) -> None:
    if "^=" in block and extra:
        assert "can remove tags `x`" in refusal(block, block + extra)
        return
    header = coerce(PolicyHeader, [block, block + extra])
    for tool in ("pay", "pan", "pit", "x"):
        for to in ("ana", "eve", 7):
            alone = decide(block + extra, tool, to=to)
            assert decide(header, tool, to=to).allowed == alone.allowed


def test_a_policy_that_is_given_twice_counts_once() -> None:
    combination = sqrt.combine(named("house", SECRET), named("copy", SECRET), "")
    assert len(combination.sources) == 3
    assert "copy" not in str(combination)
    assert str(sqrt.combine(SECRET, SECRET)) == SECRET
    calls: list[Any] = [{"tool": "clean"}] * 2
    toggles = 'tool "clean" -> session @tags ^= {"x"};'
    for policies in (toggles, [toggles, toggles]):
        first, second = sqrt.simulate(policies, calls)
        assert ("x" in first.session_after.tags, second.session_after.tags) == (True, frozenset())


CONSUMER_ADVICE = [
    (SHARED, 'tool "write" -> @consumers |= {"eve"};',
     "`must deny when not to.value in text.consumers;` (line 1 of `house`)",
     "Write `&=` instead of `|=`"),
    ('tool "sum" -> @consumers |= {"ana"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};',
     "the change in line 1 of `house`", "Write `&=` in line 1 of `house`"),
    ('tool "send" { must deny when not to.value in text.consumers | {"ana"}; }',
     'tool "fetch" -> @consumers &= {"bo"};',
     'text.consumers | {"ana"};` (line 1 of `house`)', "without a union or difference"),
    ('tool "send" {\n must deny when "eve" in text.consumers; }',
     'tool "fetch" -> @consumers &= {"bo"};',
     '`must deny when "eve" in text.consumers;` (line 2 of `house`)',
     'Deny in line 2 of `house` what lacks a consumer, as `must deny when not "ana"'),
]  # fmt: skip


@pytest.mark.parametrize(("house", "app", "rule", "advice"), CONSUMER_ADVICE)
def test_a_conflict_about_consumers_names_the_rule_and_what_to_write(
    house: str, app: str, rule: str, advice: str
) -> None:
    text = refusal(house, app)
    assert rule in text
    assert advice in text


ADVISED = [
    (SHARED, 'tool "write" -> @consumers &= {"eve"};'),
    ('tool "sum" -> @consumers &= {"ana"};' + SHARED, 'tool "fetch" -> @consumers &= {"bo"};'),
    ('tool "send" { must deny when not "ana" in text.consumers; }',
     'tool "fetch" -> @consumers &= {"bo"};'),
]  # fmt: skip


@pytest.mark.parametrize(("house", "app"), ADVISED)
def test_what_the_advice_about_consumers_says_is_combined(house: str, app: str) -> None:
    assert len(sqrt.combine(house, app).sources) == 2


def test_allowances_for_other_tools_are_combined() -> None:
    other = MANY.replace("^p", "^q")
    assert verdicts([MANY, other], "pay")[0] == "soft_allowed"
    assert verdicts([MANY, other], "qz")[0] == "soft_denied"


# Names


def test_names_are_those_of_files_of_callers_or_numbers(tmp_path: Path) -> None:
    file = tmp_path / "house.sqrt"
    file.write_text('tool "a" { must deny always; }')
    rest = [f'tool "{tool}" {{ must deny always; }}' for tool in "bc"]
    policies = [file, named("app", rest[0]), rest[1]]
    names = [decide(policies, tool).reasons[0].policy for tool in "abc"]
    assert names == ["house.sqrt", "app", "policy 3"]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 81, "`x`", 5, "\x1b[31m"])
def test_a_name_is_one_short_line(name: Any) -> None:
    with pytest.raises(UsageError, match="name of a policy is one line"):
        named(name, "")


def test_files_of_one_name_are_named_with_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "agent.sqrt" for folder in ("house", "app")]
    for path in paths:
        path.parent.mkdir()
        path.write_text('tool "pay" { must deny always; }')
    names = [source.name for source in sqrt.combine(*paths, "").sources]
    assert names == ["house/agent.sqrt", "app/agent.sqrt", "policy 3"]
    with pytest.raises(UsageError, match=r"Two policies are named `agent\.sqrt`"):
        sqrt.combine(paths[0], paths[0])


def test_two_policies_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="Two policies are named `app`"):
        sqrt.combine(named("app", ""), named("app", ""))
    with pytest.raises(UsageError, match="Two policies are named `policy 2`"):
        sqrt.combine(named("policy 2", ""), "")


def test_a_name_for_a_list_is_refused() -> None:
    with pytest.raises(UsageError, match="Name each policy of the list"):
        named("app", ["", ""])


def test_equal_names_of_lets_get_the_name_of_their_policy() -> None:
    house = 'let crew = {"ana"}; let ours = to.value in crew; tool "a" { must deny when not ours; }'
    app = 'let crew = {"bo"}; tool "b" { must deny when not to.value in crew; }'
    text = str(sqrt.combine(named("the house", house), named("7", app)))
    assert 'let the_house_crew = {"ana"};' in text
    assert "let ours = to.value in the_house_crew;" in text
    assert 'let _7_crew = {"bo"};' in text
    assert decide([house, app], "b", to="bo").allowed


def test_a_new_name_of_a_let_is_no_name_of_another_let() -> None:
    house = 'let crew = {"ana"}; let app_crew = {"eve"}; tool "a" { must deny when to.value in app_crew; }'
    app = 'let crew = {"bo"}; tool "b" { must deny when to.value in crew; }'
    policies = [named("house", house), named("app", app)]
    assert [decide(policies, tool, to="bo").allowed for tool in "ab"] == [True, False]
    assert [decide(policies, tool, to="eve").allowed for tool in "ab"] == [False, True]


def test_a_let_may_be_used_by_an_exception_of_an_earlier_block() -> None:
    policy = """
        tool "pay" { should deny always; }
        let crew = {"ana"};
        tool "pay" { priority 1; should allow when to.value in crew; }
    """
    assert decide([policy, ""], to="ana").allowed
    assert not decide([policy, ""], to="eve").allowed


def test_doc_comments_stay() -> None:
    house = '/// block\ntool "a" {\n /// rule\n should deny always; result {\n /// step\n @tags |= {"x"}; } }'
    text = str(sqrt.combine(house, ""))
    assert [doc for doc in ("/// block", "/// rule", "/// step") if doc not in text] == []


# Forms


def test_one_policy_in_a_list_is_that_policy() -> None:
    text = '// house\ntool "a"   { must deny always; }'
    assert coerce(PolicyHeader, [text]) == coerce(PolicyHeader, text)
    assert coerce(PolicyHeader, [[PolicyHeader(auto_gen=True)]]) == PolicyHeader(auto_gen=True)
    assert str(sqrt.combine(text)) == text
    assert decide([text], "a").reasons == decide(text, "a").reasons
    assert decide([named("house", text)], "a").reasons[0].policy == "house"
    assert coerce(PolicyHeader, [named("house", text)]) == coerce(PolicyHeader, text)


def test_an_empty_list_is_an_error() -> None:
    for make in (sqrt.combine, lambda: coerce(PolicyHeader, []), lambda: sqrt.explain([])):
        with pytest.raises(UsageError, match="needs at least one policy"):
            make()
    with pytest.raises(UsageError, match="needs at least one policy"):
        sqrt.simulate([[], []], [])


def test_lists_and_combinations_within_are_flattened() -> None:
    a, b, c = (f'tool "{tool}" {{ must deny always; }}' for tool in "abc")
    inner = sqrt.combine(a, named("bee", b))
    header = coerce(PolicyHeader, [a, named("bee", b)])
    for policies in ([inner, c], [header, c], [[a, named("bee", b)], c], [[a], inner.sources[1:]]):
        if policies[-1] is c:
            names = [decide(policies, tool).reasons[0].policy for tool in "abc"]
            assert names == ["policy 1", "bee", "policy 3"]
    assert decide([c, inner], "a").reasons[0].policy == "policy 2"


def test_all_forms_of_policies_combine(tmp_path: Path) -> None:
    file = tmp_path / "a.sqrt"
    texts = {tool: f'tool "{tool}" {{ must deny always; }}' for tool in "abcdefg"}
    file.write_text(texts["a"])
    policies = [
        file,
        texts["b"],
        sqrt.parse(texts["c"]),
        compile_policy(texts["d"], Presets(fail_fast=False)),
        PolicyHeader.from_sqrt(texts["e"]),
        {"codes": texts["f"]},
        sqrt.policy(sqrt.tool("g").must_deny()),
    ]
    for tool in texts:
        assert not decide(policies, tool).allowed
    assert decide(policies, "h").allowed
    with pytest.raises(UsageError, match="or a list of policies"):
        sqrt.simulate(["", 5], [])  # type: ignore[list-item]


def test_a_list_is_accepted_by_each_function_on_policies() -> None:
    policies: list[Any] = [
        'tool "a" { must deny always; }',
        named("app", 'tool "b" { should deny always; }'),
    ]
    calls = [{"tool": "a"}, {"tool": "b"}]
    (a, b) = sqrt.simulate(policies, calls)
    assert a.verdict is not None
    assert b.verdict is not None
    assert (a.verdict.reasons[0].policy, b.verdict.reasons[0].policy) == ("policy 1", "app")
    assert a.to_json()["reasons"][0]["policy"] == "policy 1"
    assert sqrt.diff(policies, policies[0], calls).changed[0].new.allowed
    assert "must deny always;" in sqrt.format(policies)
    assert "line 1 of `app`" in b.verdict.words()


# Each policy has a rule in line 1 that is written differently in the combined text.
OF_TWO: list[Any] = [
    named("house", 'tool "send" { must allow when to.value == "ana"; }'),
    named("app", """tool "send" { should deny when to.value == "ana"; should allow when n.value == 1; }
tool "send" { session before { @tags |= {"tried"}; } }"""),
]  # fmt: skip
SENT: list[Any] = [{"tool": "send", "arguments": {"to": "ana", "n": 2}}]


def test_coverage_counts_the_rules_of_each_policy_as_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    coverage = sqrt.coverage(OF_TWO, SENT * 2)
    counts = [
        (rule.policy, rule.line, rule.rule, rule.decided, rule.held, rule.not_held)
        for rule in coverage.rules
    ]
    assert counts == [
        ("house", 1, 'must allow when to.value == "ana";', 2, 0, 0),
        ("app", 1, 'should deny when to.value == "ana";', 2, 0, 0),
        ("app", 1, "should allow when n.value == 1;", 0, 0, 2),
        ("app", 2, 'adds to the tags of the session: "tried"', 0, 2, 0),
    ]
    assert "1 of house" in str(coverage)
    assert [rule["policy"] for rule in coverage.to_json()["rules"]] == ["house", *["app"] * 3]
    assert sqrt.coverage(OF_TWO[1:], SENT).rules[0].policy == ""


def test_an_explanation_of_several_policies_has_the_rules_of_each() -> None:
    explanation = sqrt.explain(OF_TWO)
    rules = [(rule.policy, rule.line, rule.kind) for rule in explanation.rules]
    assert rules == [
        ("house", 1, "must allow"), ("app", 1, "should deny"), ("app", 1, "should allow"),
        ("app", 2, "session before"),
    ]  # fmt: skip
    text = str(explanation)
    assert text.startswith("2 policies with 1 tool, 3 rules, 1 label change, 0 names")
    assert 'Tool "send" (line 1 of `house`)' in text
    assert "A call is denied if one of the policies denies it." in text
    assert "In `app`: All blocks that name a tool" in text
    assert text.count("Of the `should` rules that apply, the highest rank decides") == 1
    assert "1 of house" in explanation.table().text(100)
    assert "policy" not in sqrt.explain(OF_TWO[:1]).to_json()["sections"][0]


def test_a_difference_of_several_policies_names_the_policy_of_each_rule() -> None:
    difference = sqrt.diff(OF_TWO[:1], OF_TWO, SENT)
    assert [rule.policy for rule in difference.added] == ["app"] * 3
    assert difference.removed == ()
    (changed,) = difference.changed
    assert changed.changed == ("verdict", "strength", "reason")
    assert "line 1 of app" in str(difference)
    assert sqrt.diff(OF_TWO, OF_TWO, SENT).is_none


def test_a_table_of_decisions_names_the_policy_of_each_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert "(line 1 of app)" in str(sqrt.simulate(OF_TWO, SENT))


def test_check_names_the_policy_and_knows_the_labels_of_the_others() -> None:
    reads = 'tool "read" -> @tags |= {"mail"};'
    denies = '\ntool "send" { must deny when "mail" in text.tags; must deny when "x" in txt.tags; }'
    findings = sqrt.check([reads, named("app", denies)], [_tool("read"), _tool("send", "text")])
    (finding,) = [one for one in findings if one.severity == "error"]
    assert finding.message.startswith("In the policy `app`: `send` has no argument `txt`")
    assert finding.line == 2
    assert not [one for one in findings if "mail" in one.message]


TAINTS = 'tool "read_crm" -> session @tags |= {"tainted"};'
ON_SESSION = 'tool "send_mail" { must deny when "tainted" in @session.tags; }'
ON_VALUES = 'tool "send_mail" { must deny when "tainted" in to.tags; }'
IN_BLOCK = 'tool "read_crm" { session after { @tags |= {"tainted"}; } }'
COPIES = 'tool "read" { session after { @tags |= @result.tags; } }'
LABELS: list[tuple[list[str], bool]] = [
    ([TAINTS, ON_SESSION], False),
    ([IN_BLOCK, ON_SESSION], False),
    ([COPIES, 'tool "read" -> @tags |= {"tainted"};', ON_SESSION], False),
    ([COPIES + 'tool "read" -> @tags |= {"tainted"};', ON_SESSION], False),
    (['let x = {"tainted"}; tool "read_crm" -> session @tags |= x;', 'let x = {"y"};' + ON_SESSION],
     False),
    (['tool "read_crm" -> @tags |= {"tainted"};', ON_VALUES], False),
    ([TAINTS + ON_SESSION, ON_VALUES], True),
    (['let words = {"tainted"}; tool "read_crm" { must deny when n.value in words; }', ON_VALUES],
     True),
    (['tool "read_crm" -> @producers |= {"tainted"};', ON_VALUES], True),
    (['tool "read_crm" { must deny when n.value in {"tainted"}; }', ON_SESSION], True),
]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("mode", ["single-llm", "dual-llm", "middleware", "executor"])
@pytest.mark.parametrize(("policies", "is_unset"), LABELS)
def test_check_knows_which_labels_the_others_set_and_where(
    policies: list[str], is_unset: bool, mode: Any, order: int
) -> None:
    tools = [_tool("send_mail", "to"), _tool("read_crm", "n"), _tool("read")]

    def unset(policy: Any) -> bool:
        return any(
            "No rule sets the" in each.message for each in sqrt.check(policy, tools, mode=mode)
        )

    assert unset(policies[::order]) == is_unset or mode in ("single-llm", "executor")
    assert unset(policies[::order]) == unset(_renamed_lets(policies))


def _renamed_lets(policies: list[str]) -> str:
    return "\n".join(
        re.sub(r"\bx\b(?![\"'])", f"x{number}", text) for number, text in enumerate(policies)
    )


def test_check_reports_the_length_of_all_policies_once() -> None:
    long = 'tool "%s" {{ must deny when x.value in {{{}}}; }}'.format(
        ", ".join(f'"{n:05}"' for n in range(600))
    )
    findings = sqrt.check([long % "a", long % "b"])
    assert [one.message for one in findings if "bytes" in one.message]
    assert len([one for one in findings if "bytes" in one.message]) == 1
    assert not [one for one in sqrt.check(long % "a") if "bytes" in one.message]


def _tool(name: str, *arguments: str) -> dict[str, Any]:
    return {"name": name, "parameters": {"properties": {argument: {} for argument in arguments}}}


# Errors


def test_a_syntax_error_names_the_policy_with_its_own_line_and_caret() -> None:
    for policies in (["", named("app", "\ntool x")], named("app", "\ntool x")):
        with pytest.raises(PolicySyntaxError) as caught:
            coerce(PolicyHeader, policies)
        assert str(caught.value).startswith("In the policy `app`: ")
        assert (caught.value.line, caught.value.column) == (2, 6)
        assert str(caught.value).endswith("tool x\n       ^")
    with pytest.raises(PolicySyntaxError, match="In the policy `policy 2`: `crew` is not defined"):
        sqrt.combine("", 'tool "a" { must deny when crew; }')


def test_a_text_that_is_too_long_together_is_refused_by_name() -> None:
    long = f'tool "a" {{ must deny when x.value in {{{", ".join(["1"] * 12_000)}}}; }}'
    with pytest.raises(UsageError, match=r"`policy 1` and `policy 2` have .* as one text"):
        sqrt.combine(long, long.replace('"a"', '"b"'))


@pytest.mark.parametrize("policy", ["house.sqrt", Path("nowhere.sqrt"), Path("a.cedar"), 5])
def test_what_is_not_a_policy_is_refused_with_its_name(policy: Any) -> None:
    with pytest.raises(UsageError, match=r"^In the policy `app`: "):
        sqrt.combine("", named("app", policy))


def test_a_condition_that_is_nested_too_deeply_together_is_refused_by_name() -> None:
    deep = f"{'not ' * 50}x.value == 1"
    policy = f'tool "a" {{ should allow when {deep}; should deny always; }}'
    with pytest.raises(UsageError, match="`policy 1` and `policy 2` cannot be written as one text"):
        sqrt.combine(policy, "")


# The text that is sent


POLICIES = [
    named("house", '// first\nlet crew = {"ana"};\n\ntool "pay" {\n    /// strangers\n    must deny when\n        not to.value in crew;\n}'),
    named("app", 'let crew = {"bo"};\ntool "pay" {\n    /// strangers\n    should deny when not to.value in crew;\n    should deny when sum.value == 7;\n}'),
]  # fmt: skip


def test_places_of_the_sent_text_are_places_of_the_policies() -> None:
    header = coerce(PolicyHeader, POLICIES)
    assert header.codes is not None
    compacted = header.compacted().codes
    assert compacted is not None
    sent = compacted.code or ""
    places = {}
    for rule in ("must deny", "should deny when not", "should deny when sum", "to.value in app"):
        line = sent[: sent.index(rule)].count("\n") + 1
        column = sent.index(rule) - sent.rfind("\n", 0, sent.index(rule))
        places[rule] = header.author_place(line, column)
        text = header.author_text(f"A mistake (line {line}, column {column})")
        at = places[rule]
        assert at is not None
        name = "house" if rule == "must deny" else "app"
        assert f"line {at.line}, column {at.column} of the policy `{name}`" in text
        assert "^" in text
    assert list(places.values()) == [(6, 5), (4, 5), (5, 5), (4, 26)]


@pytest.mark.parametrize(
    ("denial", "policy", "line"),
    [
        (Denial("pay", rule="should deny when sum.value==7;"), "app", 5),
        (Denial("pay", rule="must deny when not to.value in house_crew;"), "house", 6),
        (Denial("pay", reason="strangers"), None, None),  # both policies have this comment
        (Denial("pay", rule="should deny always;"), None, None),
        (Denial("pay"), None, None),
        (Denial("pay", kind="branch", rule="should deny when sum.value==7;"), None, None),
    ],
)
def test_a_denial_without_a_place_is_named_by_its_rule_if_only_one_policy_has_it(
    denial: Denial, policy: str | None, line: int | None
) -> None:
    named_denial = coerce(PolicyHeader, POLICIES).with_author_rule(denial)
    assert (named_denial.policy, named_denial.line) == (policy, line)


def test_a_denial_with_only_a_comment_is_named_if_one_policy_has_the_comment() -> None:
    policies = [POLICIES[0], named("app", 'tool "pay" { must deny always; }')]
    denial = coerce(PolicyHeader, policies).with_author_rule(Denial("pay", reason="strangers"))
    assert (denial.policy, denial.line, denial.rule) == ("house", 6, None)


def test_a_rule_of_the_combination_itself_belongs_to_no_policy() -> None:
    header = coerce(PolicyHeader, [LIFTED, ""])
    codes = header.compacted().codes
    assert codes is not None
    column = (codes.code or "").index("should allow") + 1
    denial = Denial("pay", "uncertain", rule="should allow always;", line=1, column=column)
    assert header.with_author_rule(denial).policy is None


def test_a_combination_survives_copies_and_pickles() -> None:
    header = coerce(PolicyHeader, POLICIES)
    copies = [copy.deepcopy(header), pickle.loads(pickle.dumps(header)), header.model_copy()]
    for other in copies:
        assert other == header
        assert decide(other, to="eve").reasons[0].policy == "house"
    changed = header.model_copy(update={"codes": None})
    assert changed.combination is None


@pytest.mark.parametrize(
    "read", [sqrt.compile_policy, sqrt.parse, sqrt.highlight, PolicyHeader.from_sqrt]
)
@pytest.mark.parametrize("policies", [[TAINTS, ON_SESSION], sqrt.combine(TAINTS, ON_SESSION)])
def test_a_function_of_one_text_says_how_to_pass_several_policies(read: Any, policies: Any) -> None:
    with pytest.raises(UsageError, match=r"text of a policy, got .*`sqrt\.combine\(…\)\.text`"):
        read(policies)
    assert read(sqrt.combine(TAINTS, ON_SESSION).text)
