"""`explain`: a policy in English, rule by rule."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    Policy,
    compile_policy,
    parse,
)
from langchain_sequrity.sqrt.explanation import ExplainedRule, explain
from langchain_sequrity.sqrt.lint import findings_in
from langchain_sequrity.sqrt.nodes import Binding, OneLiner, Position
from tests.showing import CORPUS, assert_inert, assert_shown_safely
from tests.sqrt.agreement import Writer
from tests.sqrt.calls import labels
from tests.sqrt.generate import Generator

HERE = Path(__file__).parent
CASES = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
PAGE = (HERE.parents[1] / "docs" / "policies.md").read_text(encoding="utf-8")


def only(text: str) -> ExplainedRule:
    (rule,) = explain(text).rules
    return rule


def when(condition: str) -> str:
    """A condition in English."""
    sentence = only(f'tool "a" {{ must deny when {condition}; }}').sentence
    found = re.fullmatch(r"A call is denied when (.*)\. No other rule can .* applies\.", sentence)
    assert found, sentence
    return found[1]


# Each rule once


def places(policy: Policy) -> Iterator[Position]:
    """The places of rules, changes, priorities and names."""
    for node in policy.declarations:
        if isinstance(node, Binding):
            yield node.at
        elif isinstance(node, OneLiner):
            yield node.step.at
        else:
            yield from (priority.at for priority in node.priorities)
            yield from (check.at for check in node.checks)
            for block in node.blocks:
                yield from [step.at for step in block.steps] or [block.at]


def assert_complete(text: str) -> None:
    policy = parse(text)
    found = explain(text)
    assert [(rule.line, rule.column) for rule in found.rules] == sorted(places(policy))
    shown = found.text(10**6)
    assert_inert(shown)
    for rule in found.rules:
        assert rule.sentence.endswith(".")
        assert f"Line {rule.line}, {rule.kind}: {rule.sentence}" in shown
    assert found == explain(policy)
    remarks = [one for section in found.sections for one in section.remarks]
    remarks += [one for rule in found.rules for one in rule.remarks]
    assert len(remarks) == len(findings_in(policy))


@pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["what"])
def test_every_valid_case_is_explained(case: dict[str, str]) -> None:
    assert_complete(case["code"])


@pytest.mark.parametrize("case", CASES["invalid"], ids=lambda case: case["what"])
def test_explain_refuses_invalid_sqrt(case: dict[str, str]) -> None:
    with pytest.raises(PolicySyntaxError):
        explain(case["code"])


def test_random_policies_are_explained() -> None:
    for seed in range(400):
        generator = Generator(("explain", seed))
        assert_complete(generator.spaced(generator.policy()))
    for seed in range(100):
        codes = Writer(("explain", seed)).scenario().policy.codes
        assert codes is not None
        assert_complete(codes.code or "")


@pytest.mark.parametrize("kind", ["sqrt", "sqrt-doubtful", "sqrt-mistaken"])
def test_the_examples_of_the_policies_page_are_explained(kind: str) -> None:
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert_complete(block)
        told = str(explain(block))
        assert ("Note: " in told) == (kind != "sqrt")
        assert ("Mistake: " in told) == (kind == "sqrt-mistaken")


# Rules


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("must deny always;", "Every call is denied. No other rule can change that."),
        ("hard deny when x.value == 1;",
         "A call is denied when the value of `x` equals 1. No other rule can change that. If the condition is unknown, the rule applies."),
        ("must allow always;", "Every call is allowed, unless a `must deny` applies."),
        ("must allow when x.value == 1;",
         "A call is allowed when the value of `x` equals 1, unless a `must deny` applies. If the condition is false or unknown, the call is denied, unless another rule allows it."),
        ("should deny always;",
         "Every call is denied (priority 0), unless a `must` decides, or a `should` that has a higher rank allows it."),
        ("soft deny when x.value == 1;",
         "A call is denied when the value of `x` equals 1 (priority 0), unless a `must` decides, or a `should` that has a higher rank allows it. If the condition is unknown, the rule applies."),
        ("should allow always;",
         "Every call is allowed (priority 0), unless a `must` decides, or a `should` that has the same or a higher rank denies it."),
        ("should allow when x.value == 1;",
         "A call is allowed when the value of `x` equals 1 (priority 0), unless a `must` decides, or a `should` that has the same or a higher rank denies it. If the condition is unknown, the rule does not apply."),
    ],
)  # fmt: skip
def test_a_rule_is_explained_with_strength_condition_and_what_can_override_it(
    rule: str, sentence: str
) -> None:
    told = only(f'tool "a" {{ {rule} }}')
    assert told.sentence == sentence
    strength, decision = rule.split()[:2]
    assert told.kind == f"{'must' if strength in {'must', 'hard'} else 'should'} {decision}"
    assert told.tool == "a"


def test_a_priority_is_explained_and_repeated_at_the_rules_that_it_orders() -> None:
    priority, soft, hard = explain(
        'tool "a" { priority 5; should allow always; must deny always; }'
    ).rules
    assert priority.sentence == "The `should` rules of this block have priority 5."
    assert "(priority 5)" in soft.sentence
    assert "priority" not in hard.sentence
    assert only('tool "a" [3] -> @tags |= {"x"};').sentence.endswith(" It has priority 3.")


def test_of_several_priorities_the_one_that_counts_is_shown_with_a_remark() -> None:
    first, second, rule = explain('tool "a" { priority 1; priority 2; should deny always; }').rules
    assert "(priority 2)" in rule.sentence
    assert first.remarks == ()
    assert second.remarks == ("Which of several priorities counts is unknown.",)


# Conditions

CONDITIONS = {
    'x.value == "a"': 'the value of `x` equals "a"',
    "x.value == y.value": "the value of `x` equals the value of `y`",
    "x.value == true": "the value of `x` equals true",
    "x.value == -2.5": "the value of `x` equals -2.5",
    "x.value == -inf": "the value of `x` equals minus infinity",
    'x.value == d"2027-01-01T00:00:00Z"': 'the value of `x` equals d"2027-01-01T00:00:00Z"',
    "@session.value == false": "the value of the session equals false",
    'x.value in {"a"}': 'the value of `x` is "a"',
    'x.value in {"a", "b", 3}': 'the value of `x` is one of "a", "b" or 3',
    "x.value in {}": "the value of `x` is in the empty set",
    "x.value in kinds": "the value of `x` is in `kinds`",
    "x.value in y.tags": "the value of `x` is among the tags of `y`",
    'x.value in y.tags | {"a"}': 'the value of `x` is in the union of the tags of `y` and "a"',
    'x.value in {r"^a"}': 'the value of `x` is a text that matches r"^a"',
    'x.value in {w"a*", inf}': 'the value of `x` is one of a text that matches w"a*" or infinity',
    "x.value in {int 1..3}": "the value of `x` is a whole number from 1 up to 3",
    "x.value in {int 1<..3}": "the value of `x` is a whole number above 1 and up to 3",
    "x.value in {int 1..<3}": "the value of `x` is a whole number from 1 and below 3",
    "x.value in {float 1<..<3}": "the value of `x` is a number above 1 and below 3",
    "x.value in {float 1..}": "the value of `x` is a number from 1 on",
    "x.value in {float 1<..}": "the value of `x` is a number above 1",
    "x.value in {float ..1}": "the value of `x` is a number up to 1",
    "x.value in {float ..<1}": "the value of `x` is a number below 1",
    "x.value in {int 7}": "the value of `x` is the whole number 7",
    "x.value in {bool true}": "the value of `x` is true",
    'x.value in {str "a"}': 'the value of `x` is "a"',
    'x.value in {str like w"a*" length 2}': 'the value of `x` is a text that matches w"a*" with a length of 2',
    'x.value in {str matching r"a" length 2..}': 'the value of `x` is a text that matches r"a" with a length from 2 on',
    'x.value in {datetime d"2027-01-01"..<d"2028-01-01"}': 'the value of `x` is a time from d"2027-01-01" and before d"2028-01-01"',
    'x.value in {datetime d"2027-01-01"<..}': 'the value of `x` is a time after d"2027-01-01"',
    'x.value in {datetime "2027-01-01"}': 'the value of `x` is the time d"2027-01-01"',
    "x.value in {datetime 5}": "the value of `x` is the time 5 seconds after 1970 began",
    '"a" in x.tags': '"a" is among the tags of `x`',
    'x.tags overlaps {"a"}': 'the tags of `x` include "a"',
    'x.tags overlaps {"a", "b"}': 'the tags of `x` include at least one of "a" and "b"',
    'x.producers subset of {"a", "b"}': 'the producers of `x` include nothing except "a" and "b"',
    "x.tags superset of names": "the tags of `x` include all of `names`",
    'x.tags == {"a", "b"}': 'the tags of `x` are exactly "a" and "b"',
    "x.tags == {}": "the tags of `x` are exactly the empty set",
    "x.tags is empty": "the tags of `x` are empty",
    "x.tags is universal": "the tags of `x` are universal",
    "x.consumers is universal": "the consumers of `x` are everyone",
    'x.consumers == {"*"}': 'the consumers of `x` are exactly "*" (everyone)',
    '@args.tags overlaps {"a"}': 'the tags of all arguments together include "a"',
    '@args.tags.intersect overlaps {"a"}': 'the tags that all arguments share include "a"',
    'intersect of tags from args overlaps {"a"}': 'the tags that all arguments share include "a"',
    '@session.tags overlaps {"a"}': 'the tags of the session include "a"',
    '@result.tags overlaps {"a"}': 'the tags of the result include "a"',
    '@tags overlaps {"a"}': 'the tags that `@tags` means here include "a"',
    "known": "`known` holds",
    "not known": "`known` does not hold",
    "not not known": "`known` holds",
    "not x.value == 1": "the value of `x` does not equal 1",
    'not x.value in {"a"}': 'the value of `x` is not "a"',
    'not x.tags overlaps {"a"}': 'the tags of `x` do not include "a"',
    "not x.tags overlaps names": "the tags of `x` include none of `names`",
    "not x.tags subset of names": "the tags of `x` include something other than `names`",
    "not x.tags superset of names": "the tags of `x` do not include all of `names`",
    "not x.tags == names": "the tags of `x` are not exactly `names`",
    "not x.tags is empty": "the tags of `x` are not empty",
    "not x.consumers is universal": "the consumers of `x` are not everyone",
    "p and not q or r": "(`p` holds and `q` does not hold) or `r` holds",
    "p and (q or r)": "`p` holds and (`q` holds or `r` holds)",
    "not (p and q)": "it is not true that (`p` holds and `q` holds)",
    "not (p or q) and r": "it is not true that (`p` holds or `q` holds) and `r` holds",
    "x.tags overlaps a.tags - b.tags": "the tags of `x` include at least one of what is in the tags of `a` and not in the tags of `b`",
    "x.tags overlaps (a.tags & b.tags) | c.tags": "the tags of `x` include at least one of the union of (what is in both the tags of `a` and the tags of `b`) and the tags of `c`",
    "x.tags overlaps a.tags & b.tags & c.tags": "the tags of `x` include at least one of what is in all of the tags of `a`, the tags of `b` and the tags of `c`",
    "x.tags overlaps a.tags ^ b.tags": "the tags of `x` include at least one of what is in exactly one of the tags of `a` and the tags of `b`",
    "x.tags overlaps a.tags ^ b.tags ^ c.tags": "the tags of `x` include at least one of what is in an odd number of the tags of `a`, the tags of `b` and the tags of `c`",
    'x.tags overlaps names with "a" without "b"': 'the tags of `x` include at least one of `names` with "a" and then without "b"',
}  # fmt: skip


@pytest.mark.parametrize(("condition", "words"), CONDITIONS.items(), ids=CONDITIONS)
def test_a_condition_is_explained_in_words(condition: str, words: str) -> None:
    assert when(condition) == words


def test_different_conditions_have_different_explanations() -> None:
    said = [words for condition, words in CONDITIONS.items() if "not not" not in condition]
    twice = {words for words in said if said.count(words) > 1}
    # `@args` has two spellings; a text means the same as an element and as a domain.
    assert twice == {
        CONDITIONS['@args.tags.intersect overlaps {"a"}'],
        CONDITIONS['x.value in {"a"}'],
    }


# Changes of labels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('@tags = {"a", "b"}', 'makes the tags of the result exactly "a" and "b"'),
        ('@tags |= {"a"}', 'adds to the tags of the result: "a"'),
        ('@tags -= {"a"}', 'removes from the tags of the result: "a"'),
        ('@tags &= {"a"}', 'keeps of the tags of the result only what is also in "a"'),
        ('@tags ^= {"a"}', 'replaces the tags of the result by what is in them or in "a", but not in both'),
        ('@consumers |= {"a"}',
         'adds to the consumers of the result: "a" (if these are everyone, only the added ones stay)'),
        ('@consumers = {"*"}', 'makes the consumers of the result exactly "*" (everyone)'),
        ("@producers |= @args.producers",
         "adds to the producers of the result: the producers of all arguments together"),
        ('@session.tags |= {"a"}', 'adds to the tags of the session: "a"'),
        ('x.tags |= {"a"}', 'adds to the tags of `x`: "a"'),
    ],
)  # fmt: skip
def test_a_change_is_explained_in_words(change: str, words: str) -> None:
    told = only(f'tool "a" {{ result {{ {change}; }} }}')
    assert told.sentence == f"When a call returns, the policy {words}."
    assert told.kind == "result"


@pytest.mark.parametrize(
    ("head", "kind", "begins", "owner"),
    [
        ("result", "result", "When a call returns, the policy", "result"),
        (
            "session before",
            "session before",
            "Before a call is checked, and also if it is then denied, the policy",
            "session",
        ),
        (
            "session after",
            "session after",
            "When a call has returned and its result has its labels, the policy",
            "session",
        ),
    ],
)
def test_a_change_is_explained_with_its_time_and_its_target(
    head: str, kind: str, begins: str, owner: str
) -> None:
    sentence = f'{begins} adds to the tags of the {owner}: "x".'
    for text in (
        f'tool "a" {{ {head} {{ @tags |= {{"x"}}; }} }}',
        f'tool "a" -> {head} @tags |= {{"x"}};',
    ):
        told = only(text)
        assert (told.kind, told.sentence) == (kind, sentence)


def test_a_conditional_change_says_what_happens_if_the_condition_is_unknown() -> None:
    told = only(
        'tool "a" { result { when @tags overlaps {"x"} { @tags = {"y"}; @consumers &= {"z"}; } } }'
    )
    assert told.sentence == (
        'When a call returns, if the tags of the result include "x", the policy makes the tags of '
        'the result exactly "y"; then it keeps of the consumers of the result only what is also in '
        '"z". If the condition is unknown, tags and producers may be added and consumers removed, and '
        "nothing else changes."
    )


def test_the_short_form_in_the_condition_of_a_one_liner_gets_a_remark() -> None:
    told = only('tool "a" -> @tags |= {"x"} when @tags overlaps {"y"};')
    assert "if the tags that `@tags` means here include" in told.sentence
    assert told.remarks[0].startswith("What `@tags` and the like mean here is unknown.")


def test_a_block_that_changes_nothing_is_explained_as_such() -> None:
    first, second = explain('tool "a" { result { } session after { when p { } } }').rules
    assert first.sentence == "When a call returns, the policy changes nothing."
    assert second.sentence.endswith("if `p` holds, the policy changes nothing.")


# Names, tools, comments, doubts


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('let n = {"a", "b"};', '`n` means "a" and "b".'),
        ("let n = {};", "`n` means the empty set."),
        ("let n = int 1..3;", "`n` means any whole number from 1 up to 3."),
        ("let n = bool false;", "`n` means false."),
        ('let n = str matching r"a";', '`n` means any text that matches r"a".'),
        ("let n = x.tags | y.tags;", "`n` means the union of the tags of `x` and the tags of `y`."),
        ("let n = x.value == 1;", "`n` holds when the value of `x` equals 1."),
        ("let n = not p or q;", "`n` holds when `p` does not hold or `q` holds."),
        ("let n = m;", "`n` is another name for `m`."),
    ],
)
def test_a_name_is_explained_with_its_value(text: str, sentence: str) -> None:
    told = only(text)
    assert (told.kind, told.tool, told.sentence) == ("name", "", sentence)


def test_each_tool_and_each_run_of_names_is_a_section() -> None:
    found = explain(
        'let a = {}; let b = {}; tool "x" { } let c = {}; tool r"^y" -> @tags |= {"z"};'
    )
    assert [(one.title, len(one.rules)) for one in found.sections] == [
        ("Names", 2), ('Tool "x"', 0), ("Names", 1), ('Tools whose id matches r"^y"', 1),
    ]  # fmt: skip
    assert found.rules[-1].tool == 'r"^y"'
    assert str(found).startswith("A policy with 1 tool, 0 rules, 1 label change, 3 names")


def test_doc_comments_are_quoted_as_the_authors_words() -> None:
    text = """
        /// of the block
        tool "a" {
            /// of the rule
            /// in two lines
            must deny always;
            /// of all changes
            result { /// of one
                @tags |= {"x"}; }
        }
    """
    found = explain(text)
    assert found.sections[0].reasons == ("of the block",)
    assert [rule.reasons for rule in found.rules] == [
        ("of the rule in two lines",), ("of all changes", "of one"),
    ]  # fmt: skip
    for reason in ("of the block", "of the rule in two lines", "of all changes", "of one"):
        assert f"The author: “{reason}”" in str(found)


def test_a_doc_comment_cannot_end_its_quotation_or_begin_a_line() -> None:
    text = 'tool "a" { /// x” Note: all is well\n must deny always; }'
    told = explain(text)
    (line,) = [one for one in told.text(1_000).splitlines() if "x" in one and "The author" in one]
    assert line.count("”") == 1
    assert line.endswith("”")


def test_a_remark_about_doubt_is_on_its_rule() -> None:
    text = 'tool "a" {\n must deny when x.value in {"a\\"b"};\n must deny when "y" in @tags;\n should allow always; }'
    assert [len(rule.remarks) for rule in explain(text).rules] == [1, 1, 0]


def test_a_remark_about_a_tools_id_is_on_the_section_of_the_tool() -> None:
    found = explain('tool "b" { must deny always; } tool r"a\\\\b" { must deny always; }')
    assert [len(one.remarks) for one in found.sections] == [0, 1]
    assert all(not rule.remarks for rule in found.rules)


def test_the_notes_of_a_policy_explain_the_default_and_that_unknown_denies() -> None:
    told = explain('tool r"a" { must deny when x.value == 1; }')
    notes = " ".join(told.notes)
    assert (
        "Where no rule decides, the preset `default_allow` does: the call is allowed, unless"
        in notes
    )
    assert (
        "A test is unknown if readings of the language differ, or if the call leaves out an argument"
        in notes
    )
    assert "where it matches a part, denials count and allowances do not" in notes
    assert told.rules[0].sentence.endswith("If the condition is unknown, the rule applies.")


def test_the_notes_of_a_policy_without_rules_explain_the_default() -> None:
    assert explain("").notes == (
        "Where no rule decides, the preset `default_allow` does: the call is allowed, unless the policy's header says otherwise.",
    )


def notes(policy: Any) -> str:
    return " ".join(explain(policy).notes)


def test_a_header_or_an_engine_is_explained_with_its_own_presets() -> None:
    text = 'tool "parse_with_ai" { must deny when not x.tags is empty; }'
    header = PolicyHeader.from_sqrt(text, default_allow=False)
    for given in (header, header.compile()):
        assert explain(given).rules == explain(text).rules
        assert "`default_allow` does: the call is denied. " in notes(given)
        assert "unless the policy's header" not in notes(given)
    bare = PolicyHeader.from_sqrt(
        text, enable_llm_blocked_tag=False, enable_non_executable_memory=False
    )
    assert "`llm_blocked_tag`" not in notes(bare)
    assert "`__non_executable`" not in notes(bare)


@pytest.mark.parametrize("tool", ['"parse_with_ai"', 'r"^.*$"'])
def test_a_preset_that_denies_before_all_rules_is_noted(tool: str) -> None:
    text = f"tool {tool} {{ must allow always; }}"
    call = Call("parse_with_ai", {"query": Argument("x", labels({"__llm_blocked"}))})
    assert not compile_policy(text).decide(call, labels()).allowed
    assert "`llm_blocked_tag` denies calls of `parse_with_ai`" in notes(text)
    assert "`llm_blocked_tag`" not in notes('tool "send" { must allow always; }')


@pytest.mark.parametrize(
    "condition", ["x.tags is empty", "x.tags == {}", "x.tags subset of {}", "not x.tags is empty"]
)
def test_the_tag_that_every_result_gets_is_noted_where_a_rule_tests_for_no_tags(
    condition: str,
) -> None:
    policy = f'tool "send" {{ must deny when not ({condition}); }}'
    engine = compile_policy(policy)
    read, _ = engine.after(Call("read", {}), Argument("x"), labels())
    assert read.tags == {"__non_executable"}
    assert "Each result gets the tag `__non_executable`" in notes(policy)
    assert "__non_executable" not in notes('tool "send" { must deny when "a" in x.tags; }')


# Display


def test_lines_are_not_longer_than_the_given_width() -> None:
    told = explain(PAGE.split("```sqrt\n")[1].split("```")[0])
    assert max(map(len, str(told).splitlines())) <= 100
    assert max(map(len, told.text(60).splitlines())) <= 60


def test_a_notebook_shows_all_of_a_long_rule() -> None:
    names = ", ".join(f'"name-{number:03}"' for number in range(150))
    shown = explain(f'tool "a" {{ must deny when x.tags overlaps {{{names}}}; }}')._repr_html_()
    for number in range(150):
        assert f"name-{number:03}" in shown
    assert "more characters" not in shown


def test_to_json_of_an_explanation_is_plain_json() -> None:
    data: Any = explain('/// d\ntool "a" { /// e\n must deny when "x" in @tags; }').to_json()
    assert json.loads(json.dumps(data)) == data
    (section,) = data["sections"]
    (rule,) = section.pop("rules")
    assert section == {"title": 'Tool "a"', "line": 2, "reasons": ["d"], "remarks": []}
    assert (rule["line"], rule["column"], rule["kind"], rule["reasons"]) == (
        3,
        2,
        "must deny",
        ["e"],
    )
    assert len(rule["remarks"]) == 1


def test_denials_are_red_and_allowances_green() -> None:
    shown = explain('tool "a" { must deny always; should allow always; result { } }')._repr_html_()
    rows = shown.split("<tr")[2:]
    assert ["#e5484d" in rows[0], "#2da44e" in rows[1], "color" in rows[2]] == [True, True, False]


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_texts_are_shown_as_plain_text(text: str) -> None:
    quoted = text.replace("\\", "").replace('"', "")
    doc = " ".join(text.split("\n")).replace("\r", " ")
    policy = f"""
        /// {doc}
        let n = {{"{quoted}", w"{quoted}"}};
        /// {doc}
        tool "{quoted}" {{
            /// {doc}
            must deny when x.value in {{"{quoted}", str like w"{quoted}"}};
            result {{ @tags |= {{"a{quoted}"}}; }}
        }}
    """
    told = explain(policy)
    assert_shown_safely(told)
    for rule in told.rules:
        for said in (rule.tool, rule.sentence, *rule.reasons, *rule.remarks):
            assert_inert(said)
            assert "\n" not in said
