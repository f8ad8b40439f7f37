"""Common mistakes, with the exact messages of `check`."""

import itertools
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Finding, Presets, check, compile_policy
from langchain_sequrity.sqrt.context import LabelSet
from tests.sqrt.calls import decide, given, labels

ROOT = Path(__file__).parent.parent.parent
Row = tuple[str, Sequence[tuple[str, str]]]
"""A text, and its expected findings: pairs of a message and a hint."""

PAY = {
    "name": "pay",
    "parameters": {
        "type": "object",
        "properties": {
            "euros": {"type": "number"},
            "count": {"type": "integer"},
            "to": {"type": "string"},
            "cc": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "note": {"type": "string"},
            "subject": {"type": "string", "default": ""},
            "priority": {"enum": ["low", "high"]},
            "colour": {"$ref": "#/$defs/Colour"},
            "files": {"type": "array"},
            "sure": {"type": "boolean"},
            "meta": {"type": ["object", "null"]},
        },
        "required": ["euros", "count", "to", "priority", "colour", "files", "sure", "meta"],
        "$defs": {"Colour": {"type": "string", "enum": ["red", "blue"]}},
    },
}
MODE = 'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`; or ask for `@session` labels'


def said(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.message, one.hint) for one in found]


def deny(condition: str) -> str:
    return f'tool "pay" {{ must deny when {condition}; }}'


# Conditions of a rule for `pay`

PATTERNS: list[Row] = [
    ('to.value in {"*@evil.example"}', [("In plain quotes `*@evil.example` is that text, not a pattern", 'Write `w"*@evil.example"`')]),
    ('not to.value in {"*@evil.example"}', [("In plain quotes `*@evil.example` is that text, not a pattern", 'Write `str matching r"^[A-Za-z0-9._+-]+@evil[.]example$"`')]),
    ('to.value == "*@evil.example"', [("In plain quotes `*@evil.example` is that text, not a pattern", 'Write `to.value in {w"*@evil.example"}`')]),
    ('"*.exe" == to.value', [("In plain quotes `*.exe` is that text, not a pattern", 'Write `to.value in {w"*.exe"}`')]),
    ('to.value in {"a*"}', [("In plain quotes `a*` is that text, not a pattern", 'Write `w"a*"`')]),
    ('to.value in {"*"}', [("In plain quotes `*` is that text, not a pattern", 'Write `w"*"`')]),
    ('to.value in {str "a*"}', [("In plain quotes `a*` is that text, not a pattern", 'Write `str like w"a*"`')]),
    ('to.value in {str "^a$"}', [("In plain quotes `^a$` is that text, not a pattern", 'Write `str matching r"^a$"`')]),
    ('to.value in {"^x$"}', [("In plain quotes `^x$` is that text, not a pattern", 'Write `r"^x$"`')]),
    ('to.value in {".*"}', [("In plain quotes `.*` is that text, not a pattern", 'Write `r".*"`')]),
    ('to.value in {"ada", "^bo$"}', [("In plain quotes `^bo$` is that text, not a pattern", 'Write `r"^bo$"`')]),
    ('to.value in {".*@evil[.]example"}', [("In plain quotes `.*@evil[.]example` is that text, not a pattern", 'Write `r".*@evil[.]example"`')]),
    ('to.value in {"[a-z]+"}', [("In plain quotes `[a-z]+` is that text, not a pattern", 'Write `r"[a-z]+"`')]),
    ('to.value in {"(?i)cash"}', [("In plain quotes `(?i)cash` is that text, not a pattern", 'Write `r"(?i)cash"`')]),
    ('to.value in {"IBAN-??"}', [("In plain quotes `IBAN-??` is that text, not a pattern", 'Write `w"IBAN-??"`')]),
    ('to.value in {"a.+b"}', []),
    ('to.value in {"*[x$"}', [("In plain quotes `*[x$` is that text, not a pattern", 'Write `w"*[x$"`')]),
    ('"secret-*" in to.tags', [("Labels are compared letter by letter, and `secret-*` looks like a pattern", "Name each of the tags")]),
    ('to.tags overlaps {"secret-*"}', [("Labels are compared letter by letter, and `secret-*` looks like a pattern", "Name each of the tags")]),
    ('to.consumers superset of {"*@house.example"}', [("Labels are compared letter by letter, and `*@house.example` looks like a pattern", "Name each of the consumers")]),
]  # fmt: skip
KINDS: list[Row] = [
    ("not euros.value in {float 0..100}", [("`euros` may be a whole number, such as 1, which in `float` is in doubt, and doubt denies", "Write `int 0..100, float 0..100`")]),
    ("not euros.value in {float 0.5..<2.5}", [("`euros` may be a whole number, such as 1, which in `float` is in doubt, and doubt denies", "Write `int 1..2, float 0.5..<2.5`")]),
    ("not euros.value in {float ..100}", [("`euros` may be a whole number, such as 1, which in `float` is in doubt, and doubt denies", "Write `int ..100, float ..100`")]),
    ("not euros.value in {float 0<..}", [("`euros` may be a whole number, such as 1, which in `float` is in doubt, and doubt denies", "Write `int 1.., float 0<..`")]),
    ("not euros.value in {int 0..100}", [("`euros` may be a float, such as 1.5, which in `int` is in doubt, and doubt denies", "Write `int 0..100, float 0..100`")]),
    ("not count.value in {float 0..100}", [("`count` is a whole number, which in `float` is in doubt, and doubt denies", "Write `int 0..100`")]),
    ("not count.value in {float 0.5<..<2.5}", [("`count` is a whole number, which in `float` is in doubt, and doubt denies", "Write `int 1..2`")]),
    ("not count.value in {float 1<..<3}", [("`count` is a whole number, which in `float` is in doubt, and doubt denies", "Write `int 2`")]),
    ("not count.value in {float 5}", [("`count` is a whole number, which in `float` is in doubt, and doubt denies", "Write `int 5`")]),
    ("to.value in {int 1..5}", [("`to` is a text, and this is a number: at best that is in doubt", 'Write what it holds in quotes, such as `"5"`')]),
    ("to.value == 5", [("`to` is a text, and this is a number: at best that is in doubt", 'Write what it holds in quotes, such as `"5"`')]),
    ("to.value == true", [("`to` is a text, and this is true or false: at best that is in doubt", 'Write what it holds in quotes, such as `"true"`')]),
    ('count.value == "5"', [("`count` is a whole number, and this is a text: at best that is in doubt", "Write `int 1..5`, or `== 5`")]),
    ('count.value in {str matching r"^5$"}', [("`count` is a whole number, and this is a text: at best that is in doubt", "Write `int 1..5`, or `== 5`")]),
    ('euros.value in {"5", "6"}', [("`euros` is a number, and this is a text: at best that is in doubt", "Write `int 1..5`, or `== 5`"), ("`euros` is a number, and this is a text: at best that is in doubt", "Write `int 1..5`, or `== 5`")]),
    ('sure.value == "true"', [("`sure` is true or false, and this is a text: at best that is in doubt", "Write `bool true`, or `== true`")]),
    ("sure.value == 1", [("`sure` is true or false, and this is a number: at best that is in doubt", "Write `bool true`, or `== true`")]),
    ("sure.value in {int 0..1}", [("`sure` is true or false, and this is a number: at best that is in doubt", "Write `bool true`, or `== true`")]),
    ('files.value in {"a"}', [("`files` is a list, which no rule can search: this is always in doubt", "Compare its labels, or give the tool an argument with a single value")]),
    ('files.value == "a"', [("`files` is a list, which no rule can search: this is always in doubt", "Compare its labels, or give the tool an argument with a single value")]),
    ('meta.value in {"a"}', [("`meta` is an object, which no rule can search: this is always in doubt", "Compare its labels, or give the tool an argument with a single value")]),
    ('priority.value == "hgih"', [("`priority` is never `hgih`", "Did you mean `high`?")]),
    ('priority.value in {"low", "urgent"}', [("`priority` is never `urgent`", "It is one of `low`, `high`")]),
    ('colour.value == "green"', [("`colour` is never `green`", "It is one of `red`, `blue`")]),
    ("not euros.value in {int 0..100, float 0..100}", []),
    ("sure.value == true", []),
    ("count.value in {int 1..5}", []),
]  # fmt: skip
OPTIONAL: list[Row] = [
    ('note.value == "x"', [("`note` is optional: if a call omits it, this rule is in doubt, and doubt denies", 'Give it a default in the schema of its tool, as `"default": ""`, which the policy then checks')]),
    ('not note.value in {"x"}', [("`note` is optional: if a call omits it, this rule is in doubt, and doubt denies", 'Give it a default in the schema of its tool, as `"default": ""`, which the policy then checks')]),
    ('note.tags overlaps {"web"}', [("`note` is optional: if a call omits it, this rule is in doubt, and doubt denies", 'Give it a default in the schema of its tool, as `"default": ""`, which the policy then checks, or test `@args`, the labels of all arguments that the call has')]),
    ('note.tags overlaps {"web"} and note.value == "x"', [("`note` is optional: if a call omits it, this rule is in doubt, and doubt denies", 'Give it a default in the schema of its tool, as `"default": ""`, which the policy then checks')]),
    ('not cc.value in {"ada"}', [("`cc` is null if a call omits it, and this rule denies that", 'Give it the default `""` in the schema, and allow that: `{"", …}`')]),
    ('cc.value in {"ada"}', []),
    ('not subject.value in {"x"}', []),
]  # fmt: skip
# Whole policies, without tools

WHOLE: list[Row] = [
    ("", [("This policy has no rules, so it allows every call", 'Write one, such as `tool "name" { must deny when …; }`, or leave the policy out')]),
    ("  // nothing yet\n", [("This policy has no rules, so it allows every call", 'Write one, such as `tool "name" { must deny when …; }`, or leave the policy out')]),
    ('tool "pay" {}', [("This policy has no rules, so it allows every call", 'Write one, such as `tool "name" { must deny when …; }`, or leave the policy out')]),
    ('tool "pay" { priority 3; }', [("This policy has no rules, so it allows every call", 'Write one, such as `tool "name" { must deny when …; }`, or leave the policy out')]),
    ('tool "pay*" { must deny always; }', [("`*` in a name of a tool matches only `*`", 'A regex matches many tools: `tool r"^pay.*$"`')]),
    ('tool "*" { must deny always; }', [("`*` in a name of a tool matches only `*`", 'A regex matches many tools: `tool r".*"`')]),
    ('tool "send_.*" -> @tags |= {"x"};', [("`*` in a name of a tool matches only `*`", 'A regex matches many tools: `tool r"^send_.*$"`')]),
    ('tool "pay" { must deny when "private" in text.tags; }', [("No rule sets the tag `private` on results", 'Write `tool "…" -> @tags |= {"private"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "pay" { must deny when text.tags overlaps {"private", "secret"}; }', [("No rule sets the tag `private` on results", 'Write `tool "…" -> @tags |= {"private"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`'), ("No rule sets the tag `secret` on results", 'Write `tool "…" -> @tags |= {"secret"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "pay" { must allow when @args.tags superset of {"checked"}; }', [("No rule sets the tag `checked` on results", 'Write `tool "…" -> @tags |= {"checked"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "pay" { must deny when "paid" in @session.tags; }', [("No rule sets the tag `paid` on the session", 'Write `session after { @tags |= {"paid"}; }` for a tool')]),
    ('tool "buy" -> @tags |= {"paid"}; tool "pay" { must deny when "paid" in @session.tags; }', [("No rule sets the tag `paid` on the session", 'Write `session after { @tags |= {"paid"}; }` for a tool')]),
    ('tool "buy" -> session @tags |= {"paid"}; tool "pay" { must deny when "paid" in text.tags; }', [("No rule sets the tag `paid` on results", 'Write `tool "…" -> @tags |= {"paid"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('let marks = {"private"}; tool "pay" { must deny when text.tags overlaps marks; }', [("No rule sets the tag `private` on results", 'Write `tool "…" -> @tags |= {"private"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "read" -> @tags |= {"private"}; tool "pay" { must deny when "privat" in text.tags; }', [("This tag is nearly `private` of line 1", "One of them may be misspelt")]),
    ('tool "pay" { session after { when "web" in @result.tags { @tags |= {"seen"}; } } must deny when "seen" in @session.tags; }', [("No rule sets the tag `web` on results", 'Write `tool "…" -> @tags |= {"web"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "send" { must deny when not to.value in text.consumers; }', [("No rule restricts the consumers of results, so they are everyone", 'Write `tool "…" -> @consumers = {"ana"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "send" { must deny when not @session.consumers superset of {"bo"}; }', [("No rule restricts the consumers of the session, so they are everyone", 'Write `session after { @consumers = {"ana"}; }` for a tool')]),
    ('tool "read" -> @tags |= {"private"}; tool "pay" { must deny when to.value == "eve"; }', [("No rule tests tags, so this restricts nothing", 'Write a rule, as `must deny when @args.tags overlaps {"private"};`')]),
    ('tool "read" -> session @producers |= {"diary"}; tool "pay" { must deny when to.value == "eve"; }', [("No rule tests producers, so this restricts nothing", 'Write a rule, as `must deny when @args.producers overlaps {"web"};`')]),
    ('tool "read" -> @consumers &= {"ana"}; tool "pay" { must deny when to.value == "eve"; }', [("No rule tests consumers, so this restricts nothing", 'Write a rule, as `must deny when not @args.consumers superset of {"ana"};`')]),
    ('tool "read" -> @tags |= {"web", "private"}; tool "pay" { must deny when "web" in text.tags; }', [("No rule tests the tag `private` on results", "Deny calls with it, or remove it")]),
    ('tool "read" -> @tags |= {"web"}; tool "lend" -> @tags -= {"private"}; tool "pay" { must deny when "web" in text.tags; }', [("This removes nothing: no rule sets the tag `private` on results", 'Write `tool "…" -> @tags |= {"private"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
    ('tool "read" { result { @tags |= {"web"}; @tags -= {"web"}; } } tool "pay" { must deny when "web" in text.tags; }', [("Without this change the labels after this block would be the same", "Remove it, or a change that undoes it")]),
    ('tool "read" -> @tags |= {"web"}; tool "read" -> @tags = {}; tool "pay" { must deny when "web" in text.tags; }', [("Without this change the labels after this block would be the same", "Remove it, or a change that undoes it")]),
    ('tool "pay" { must deny always; } tool "pay" { must deny when to.value == "eve"; }', [("This rule decides nothing: `must deny always;` in line 1 always applies", "")]),
    ('tool "pay" { should deny when to.value == "eve"; } tool "pay" { must allow when to.value == "eve"; }', [('This rule decides nothing: `must allow when to.value == "eve";` in line 1 is for the same calls', "")]),
    ('tool "pay" { must deny when not euros.value in {float 0..100}; }', [("`euros` may be a whole number, such as 1, which in `float` is in doubt, and doubt denies", "Write `int 0..100, float 0..100`")]),
    ('tool "send" { must deny when not to.value in {w"*@museum.example"}; }', [("This pattern lets a text through that is not one address: `eve@evil.example,a@museum.example`", 'Write the allowed characters, as in `str matching r"^[A-Za-z0-9._+-]+@museum[.]example$"`')]),
    ('tool "send" { must deny when not to.value in {r"^.*@museum[.]example$"}; }', [("This pattern lets a text through that is not one address: `eve@evil.example,a@museum.example`", 'Write the allowed characters, as in `str matching r"^[A-Za-z0-9._+-]+@museum[.]example$"`')]),
    ('tool "send" { must deny when not cc.value in {r"^[^@,]+@museum[.]example$"}; }', [("This pattern lets a text through that is not one address: `eve;a@museum.example`", 'Write the allowed characters, as in `str matching r"^[A-Za-z0-9._+-]+@museum[.]example$"`')]),
    ('tool "send" { must allow when recipients.value in {str like w"*@museum.example"}; }', [("This pattern lets a text through that is not one address: `eve@evil.example,a@museum.example`", 'Write the allowed characters, as in `str matching r"^[A-Za-z0-9._+-]+@museum[.]example$"`')]),
]  # fmt: skip
# Whole policies, for `pay`

TOOLS: list[Row] = [
    ('tool "pya" { must deny always; }', [("There is no tool `pya`", "Did you mean `pay`?")]),
    ('tool "pay" { must deny when eruos.value == 1; }', [("`pay` has no argument `eruos`", "Did you mean `euros`?")]),
    ('tool "pay*" { must deny always; }', [("There is no tool `pay*`", "Did you mean `pay`?")]),
    ('tool r"^pya" { must deny always; }', [("No tool matches `^pya`", "")]),
    ('tool r"^pa" { must deny always; }', [("Whether `^pa` matches `pay` is unknown", "Write `^…$` around the regex, and `.*` where anything may stand")]),
    ('tool "pay" { must deny when "x" in session.tags; }', [("`pay` has no argument `session`", "Did you mean `@session`?")]),
    ('tool "pay" { must deny when "reader" in to.producers; }', [("No rule sets the producer `reader` on results", 'Write `tool "…" -> @producers |= {"reader"};` for the tool it comes from, or have that tool return it with `labeled_tool_result`')]),
]  # fmt: skip
# Items of a block, in single-LLM mode

BLIND: list[Row] = [
    ('must deny when "private" in text.tags;', [('In single-LLM mode arguments have no labels: `must deny when "private" in text.tags;` denies nothing', MODE)]),
    ('must deny when not "checked" in text.tags;', [('In single-LLM mode arguments have no labels: `must deny when not "checked" in text.tags;` denies every call', MODE)]),
    ("must deny when text.consumers is universal;", [("In single-LLM mode arguments have no labels: `must deny when text.consumers is universal;` denies every call", MODE)]),
    ('must allow when "private" in text.tags;', [('In single-LLM mode arguments have no labels: `must allow when "private" in text.tags;` denies every call', MODE)]),
    ("must allow when text.tags is empty;", [("In single-LLM mode arguments have no labels: `must allow when text.tags is empty;` denies nothing", MODE)]),
    ('should allow when "private" in text.tags; should deny always;', [('In single-LLM mode arguments have no labels: `should allow when "private" in text.tags;` does nothing', MODE)]),
    ('should deny when "private" in @args.tags and to.value == "a";', [('In single-LLM mode arguments have no labels: `should deny when "private" in @args.tags and to.value == "a";` denies nothing', MODE)]),
    ('must deny when "private" in text.tags or to.value == "a";', [('In single-LLM mode arguments have no labels: `must deny when "private" in text.tags or to.value == "a";` is decided by the rest of its condition', MODE)]),
    ("must deny when not text.tags is empty;", [("In single-LLM mode arguments have no labels: `must deny when not text.tags is empty;` denies nothing", MODE)]),
    ("result { @tags |= @args.tags; }", [("In single-LLM mode arguments have no labels: this change is made without them", MODE)]),
    ('result { when "private" in text.tags { @tags |= {"private"}; } }', [("In single-LLM mode arguments have no labels: this change is never made", MODE)]),
    ('session after { when not "private" in text.tags { @tags |= {"private"}; } }', [("In single-LLM mode arguments have no labels: this change is made without them", MODE)]),
    ("must deny when marked;", [("In single-LLM mode arguments have no labels: `must deny when marked;` denies nothing", MODE)]),
    ('must deny when "private" in @session.tags;', [("No rule sets the tag `private` on the session", 'Write `session after { @tags |= {"private"}; }` for a tool')]),
    ('session after { @tags |= {"private"}; } must deny when "private" in @session.tags;', []),
    ('must deny when text.value == "a";', []),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "expected"), [*PATTERNS, *KINDS, *OPTIONAL])
def test_a_mistake_in_a_condition_is_reported_with_a_hint(
    condition: str, expected: list[tuple[str, str]]
) -> None:
    found = check(deny(condition), [PAY], labels=["web"])
    assert said(found) == expected
    assert {one.severity for one in found} <= {"warning"}


@pytest.mark.parametrize(("text", "expected"), WHOLE)
def test_a_mistake_in_a_policy_is_reported_with_a_hint(
    text: str, expected: list[tuple[str, str]]
) -> None:
    assert said(check(text)) == expected


@pytest.mark.parametrize(("text", "expected"), TOOLS)
def test_a_rule_for_an_unknown_tool_or_argument_is_reported_with_a_hint(
    text: str, expected: list[tuple[str, str]]
) -> None:
    assert said(check(text, [PAY])) == expected


# Following a hint removes the warning


@pytest.mark.parametrize("condition", [row[0] for row in PATTERNS if " in {" in row[0] and row[1]])
def test_a_pattern_written_as_the_hint_says_gets_no_warning(condition: str) -> None:
    (finding,) = check(deny(condition), [PAY], labels=["web"])
    if not finding.hint.startswith("Write `"):
        return  # labels have no patterns
    written = finding.hint.removeprefix("Write `").removesuffix("`")
    start = finding.column - 1
    text = deny(condition)
    end = text.index('"', text.index('"', start) + 1) + 1
    start = text.rindex("str", 0, start) if text[start - 4 : start] == "str " else start
    mended = text[:start] + written + text[end:]
    assert not [one for one in check(mended, [PAY]) if "In plain quotes" in one.message]


NUMBERS = st.integers(-50, 50) | st.integers(-100, 100).map(lambda half: half / 2)


@settings(max_examples=200, derandomize=True, deadline=None)
@generated(
    NUMBERS, st.integers(0, 60), st.sampled_from(["..", "<..", "..<", "<..<"]),
    st.sampled_from(["int", "float"]), st.sampled_from(["euros", "count"]), NUMBERS,
)  # fmt: skip
def test_a_range_written_as_the_hint_says_is_certain_for_every_number(
    low: float, width: int, dots: str, kind: str, argument: str, value: float
) -> None:
    if kind == "int":
        low = int(low)
    text = f"{kind} {low}{dots}{low + width}"

    def doubted(written: str) -> list[Finding]:
        found = check(deny(f"not {argument}.value in {{{written}}}"), [PAY])
        return [one for one in found if "doubt denies" in one.message]

    found = doubted(text)
    if found:
        text = found[0].hint.removeprefix("Write `").removesuffix("`")
    if argument == "count":
        value = int(value)
    assert not doubted(text)
    policy = deny(f"not {argument}.value in {{{text}}}")
    call = Call("pay", {argument: given(value)})
    verdict = compile_policy(policy).decide(call, Labels())
    assert verdict.certain
    above = value > low if dots.startswith("<") else value >= low
    below = value < low + width if dots.endswith("<") else value <= low + width
    assert verdict.allowed == (above and below)


# Modes

MARKED = 'let marked = text.tags overlaps {"private"}; '


def blind(item: str) -> str:
    lets = MARKED if "marked" in item else ""
    return f'{lets}tool "r" -> @tags |= {{"private"}}; tool "s" {{ {item} }}'


@pytest.mark.parametrize(("item", "expected"), BLIND)
def test_an_item_that_needs_labels_of_arguments_is_reported_for_single_llm_mode(
    item: str, expected: list[tuple[str, str]]
) -> None:
    text, brought = blind(item), ["checked", "private"]
    found = check(text, mode="single-llm", labels=brought)
    assert said(found) == expected
    if "@session" not in item:
        assert check(text, mode="dual-llm", labels=brought) == []
        assert check(text, labels=brought) == []


@pytest.mark.parametrize("item", [row[0] for row in BLIND if row[0].startswith(("must", "should"))])
def test_the_message_for_single_llm_mode_describes_what_the_rule_does_there(item: str) -> None:
    found = check(blind(item), mode="single-llm", labels=["checked", "private"])
    allowed = [
        decide(blind(item), tool="s", text=given(text), to=given(to)).allowed
        for text in ("a", "b") for to in ("a", "b")
    ]  # fmt: skip
    for one in found:
        if "denies nothing" in one.message:
            assert (one.severity, all(allowed)) == ("error", True)
        elif "denies every call" in one.message:
            assert (one.severity, any(allowed)) == ("warning", False)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match=r'"middleware" or "executor"; got \'triple\''):
        check("", mode="triple")  # type: ignore[arg-type]


def test_labels_that_are_one_text_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"`labels` must be a list of names, .*; got a str. Write `\[\"web\"\]`"
    ):
        check("", labels="web")


# Sizes and defaults


@pytest.mark.parametrize(
    "policy",
    [
        deny('to.value in {"' + "a" * 8_100 + '"}'),
        deny('to.value in {"' + "é" * 1_400 + '"}'),
        PolicyHeader.from_sqrt(deny('to.value in {"' + "a" * 8_000 + '"}'), fail_fast=False, extra={"x": "y" * 99}),
    ],
)  # fmt: skip
def test_a_policy_that_is_too_long_for_a_header_is_reported(policy: Any) -> None:
    (finding,) = check(policy)
    assert finding.message.endswith("bytes; the limit is 8,192")
    assert finding.hint == "Shorten it, or split it by groups of tools"


def test_white_space_and_comments_do_not_count_for_the_header() -> None:
    assert check(deny('to.value == "a"') + " " * 9_000 + f"// {'c' * 9_000}") == []
    engine = compile_policy(deny('to.value in {"' + "a" * 9_000 + '"}'))
    assert check(engine) == []  # an engine is not sent


def test_a_policy_without_rules_gets_no_warning_if_the_default_denies() -> None:
    assert check(PolicyHeader.from_sqrt("", default_allow=False)) == []
    assert check(PolicyHeader.from_sqrt("").compile()) != []


@pytest.mark.parametrize(
    "text",
    [
        'let p = "private" in t.tags; tool "read" { result { @tags |= {"private"}; } } tool "x" { must deny when p; }',
        'let marks = {"private"}; tool "read" -> @tags |= marks with "secret"; tool "x" { must deny when t.tags overlaps marks with "secret"; }',
        'tool "read" -> @tags = {"private"}; tool "x" { must deny when "private" in @args.tags; }',
        'tool "x" { must deny when "__llm_blocked" in t.tags; }',
        'tool "x" { must deny when not t.tags subset of {"a", "b"}; }',
        'tool "r" -> @consumers = {"ada"}; tool "x" { must deny when not t.consumers superset of {"ada"}; }',
        'tool "x" { session before { @tags |= {"tried"}; } must deny when "tried" in @session.tags; }',
        'tool "r" -> @tags |= {"a"}; tool "x" { session after { @tags |= @result.tags; } must deny when "a" in @session.tags; }',
        'tool "x" { session after { @tags |= {"a"}; } result { @tags |= @session.tags; } must deny when "a" in t.tags; }',
        'tool "x" { must deny when "reader" in t.producers; }',
        'tool "x" -> @tags |= {"a"}; tool "y" -> @consumers = {"ana"};',
        'tool "x" -> @tags |= {"__llm_blocked"}; tool "y" { must deny when to.value == "a"; }',
        'tool "x" -> @tags |= {"a"}; tool "y" { must deny when not t.tags is empty; }',
        'tool "x" -> @tags |= {"a"}; tool "y" { must deny when t.tags superset of s.tags; }',
        'tool "x" -> @consumers = {"ana"}; tool "y" { must deny when not to.value in t.consumers; }',
        'tool "x" { result { @tags |= {"a"}; when "b" in t.tags { @tags -= {"a"}; } @tags |= {"b"}; } must deny when t.tags overlaps {"a", "b"}; }',
    ],
)  # fmt: skip
def test_a_label_that_may_be_set_and_tested_is_not_reported(text: str) -> None:
    assert check(text) == []


def test_labels_that_tools_set_or_programs_test_are_not_reported() -> None:
    read = 'tool "read" -> @tags |= {"seen"};'
    pay = 'tool "pay" { must deny when "web" in text.tags or not to.value in text.consumers; }'
    assert len(check(f"{read} {pay}")) == 3
    assert check(f"{read} {pay}", labels=["web", "seen"]) == []


def test_a_label_is_not_reported_as_untested_if_a_rule_may_look_at_it() -> None:
    (found,) = check(
        'tool "pay" { session after { @tags |= {"paid"}; } must deny when "paid" in @tags; }'
    )
    assert "`@tags`" in found.message, "that is the mistake"


def test_a_policy_too_large_to_be_read_whole_gets_no_warning_of_missing_labels() -> None:
    names = ", ".join(f'"item {one} of them"' for one in range(500))
    rules = "".join(f'tool "t{one}" {{ must deny when a.tags overlaps s; }}' for one in range(500))
    text = f'let s = {{{names}}}; tool "read" -> @tags |= s; {rules}'
    assert len(check(text)) == 1, "it is too long for a header"
    with_mode = check(text, mode="single-llm")
    assert [one.severity for one in with_mode].count("error") == 500


CHANGES = ["|= {NAME}", "-= {NAME}", "&= {NAME}", "= {NAME}", "^= {NAME}"]
STARTS = [
    frozenset(one) for one in ((), {"a"}, {"b"}, {"c"}, {"a", "b"}, {"a", "c"}, {"a", "b", "c"})
]


@pytest.mark.parametrize("field", ["tags", "consumers"])
def test_a_change_is_reported_exactly_if_the_labels_are_the_same_without_it(field: str) -> None:
    every = [
        f"@{field} {one.replace('NAME', names)};"
        for one in CHANGES
        for names in ('"a"', '"a", "b"', "")
    ]
    starts = [*STARTS, frozenset("*")] if field == "consumers" else STARTS

    def ends(*changes: str) -> list[LabelSet]:
        engine = compile_policy(f'tool "x" {{ result {{ {" ".join(changes)} }} }}')
        given = [labels(**{field: one}) for one in starts]
        found = [engine.after(Call("x", {}), Argument("", one), Labels())[0] for one in given]
        return [LabelSet.read(getattr(one, field)) for one in found]

    for first, second in itertools.product(every, repeat=2):
        text = f'tool "x" {{ result {{ {first} {second} }} }}'
        told = any(
            "the labels after this block would be the same" in one.message for one in check(text)
        )
        both = ends(first, second)
        assert told == (both in (ends(first), ends(second))), text


RULES = ["must deny", "must allow", "should deny", "should allow"]
CONDITIONS = ["always", 'when to.value == "eve"', 'when to.value == "bo"']


@pytest.mark.parametrize("between", ["", '} tool "pay" {', '} tool "pay" { priority 1;'])
def test_a_rule_that_is_reported_as_deciding_nothing_can_be_left_out(between: str) -> None:
    every = [f"{rule} {condition};" for rule in RULES for condition in CONDITIONS]
    reported = 0
    for one, other in itertools.product(every, repeat=2):
        text = f'tool "pay" {{\n{one}\n{between}\n{other}\n}}'
        for finding in check(text):
            if finding.message.startswith("This rule decides nothing"):
                reported += 1
                lines = text.split("\n")
                lines[finding.line - 1] = ""
                for default, to in itertools.product((True, False), ("eve", "bo", "ana")):
                    presets = Presets(default_allow=default)
                    verdicts = [
                        decide(text, presets=presets, tool="pay", to=given(to)).allowed
                        for text in (text, "\n".join(lines))
                    ]
                    assert verdicts[0] == verdicts[1], (text, finding, to)
    assert reported > 20


# Why a denial is in doubt

DOUBTS = [
    # a condition, the arguments, the reason for the doubt
    ("a.value in {float 0..9}", {"a": 5}, "`a` is a whole number, and the rule means `float`"),
    ("a.value in {int 0..9}", {"a": 5.0}, "`a` is a float, and the rule means `int`"),
    ("a.value == 5", {"a": 5.0}, "`a` is a float, and the rule means a whole number"),
    ("a.value == 5", {"a": "5"}, "`a` is a text, and the rule means a whole number"),
    ("a.value in {bool true}", {"a": 1}, "`a` is a whole number, and the rule means true or false"),
    ('a.value == "1"', {"a": 1}, "`a` is a whole number, and the rule means a text"),
    ('a.value == "x"', {}, "the call has no argument `a`"),
    ('"x" in a.tags and "y" in b.tags', {}, "the call has no argument `a` and `b`"),
    ('a.value in {"x"}', {"a": ["x"]}, "`a` is a list, which no rule can search"),
    ('a.value in {"x"}', {"a": {"x": 1}}, "`a` is an object, which no rule can search"),
    ('a.value in {r"x"}', {"a": "xy"}, "a regex matches only a part of `a`, or took too long"),
    ("a.value in named", {"a": "xy"}, "a regex matches only a part of `a`, or took too long"),
    ("said", {"a": "xy"}, "a regex matches only a part of `a`, or took too long"),
    ('a.value in {w"x*"}', {"a": "x\ny"}, "`a` has a line break, and a wildcard may stop there"),
    ('a.value in {w"[x]*"}', {"a": "x"}, "how `[` in a wildcard is read is not known"),
    ('a.value == "x\\y"', {"a": "xy"}, "how a backslash in the rule is read is not known"),
    ('a.value in {datetime d"2027-01-01T00:00:00Z"..}', {"a": 5}, "`a` is a whole number, which may count seconds or milliseconds"),
    ('a.value in {datetime d"2027-01-01T00:00:00Z"..}', {"a": "May 1"}, "`a` is written in another form than `2027-01-31T10:00:00Z`"),
    ('a.tags overlaps {w"x*"}', {"a": 1}, ""),
    ('"x" in @tags', {"a": 1}, "what `@tags` means here is not known"),
    ("@session.value == 1", {"a": 1}, "the value of `@session.value` is not known"),
    ("a.value == b.value", {"a": 1, "b": "1"}, "`a` is a whole number, and `b` is a text"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "arguments", "because"), DOUBTS)
def test_a_denial_in_doubt_says_why(
    condition: str, arguments: dict[str, Any], because: str
) -> None:
    lets = 'let named = {r"x"}; let said = a.value in named; '
    call = Call("lend", {name: given(value) for name, value in arguments.items()})
    text = f'{lets}tool "lend" {{ must deny when {condition}; }}'
    verdict = compile_policy(text).decide(call, Labels())
    assert verdict.allowed == (not because)
    if because:
        assert verdict.reasons[0].doubt == because
        assert verdict.words().count(f"may apply (in doubt, because {because})") == 1
        assert not verdict.certain


def test_a_denial_by_a_regex_that_matches_part_of_a_tool_name_says_so() -> None:
    verdict = decide('tool r"len" { must deny always; }')
    assert verdict.reasons[0].doubt == "its regex matches only a part of the tool's name"


def test_an_uncertain_verdict_names_the_rule_that_may_change_it() -> None:
    verdict = decide(
        'tool "lend" { must allow when a.value == 5; should allow always; }', a=given(5.0)
    )
    assert (verdict.allowed, verdict.strength, verdict.certain) == (True, "soft", False)
    assert verdict.reasons[0].doubt == (
        "`must allow when a.value == 5;` may apply, as `a` is a float, and the rule means a whole "
        "number"
    )


def test_a_certain_denial_does_not_mention_doubt() -> None:
    verdict = decide('tool "lend" { must deny when a.value == 5; }', a=given(5))
    assert verdict.reasons[0].doubt == ""
    assert "doubt" not in verdict.words()


WITHOUT_REGEX = """
import sys
sys.modules["regex"] = None  # as where it is not installed
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, check, compile_policy
policy = 'tool "lend" { must deny when not to.value in {r"^ada$"}; }'
verdict = compile_policy(policy).decide(Call("lend", {"to": Argument("ada")}), Labels())
print(verdict.reasons[0].doubt)
print(*[f"{one.message}. {one.hint}" for one in check(policy)])
"""


def test_without_the_package_regex_denials_and_check_say_so() -> None:
    command = [sys.executable, "-c", WITHOUT_REGEX]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    install = 'pip install "langchain-sequrity[local]"'
    assert done.stdout.splitlines() == [
        f"no regex is evaluated without the package `regex` (`{install}`)",
        (
            "Without the package `regex` no regex is evaluated: each is unknown, which denies. "
            f"Run `{install}`"
        ),
    ]


def test_the_extras_that_evaluate_policies_require_the_package_regex() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra in ("local", "langchain"):
        assert any(one.startswith("regex") for one in extras[extra])


@pytest.mark.parametrize(
    ("kind", "default"), [("string", '""'), ("integer", "0"), ("boolean", "false"), ("array", "[]")]
)
def test_the_advised_default_is_of_the_type_in_the_schema(kind: str, default: str) -> None:
    takes = {"type": "object", "properties": {"n": {"type": kind}}, "required": []}
    tool = {"name": "pay", "parameters": takes}
    (found,) = check('tool "pay" { must deny when "web" in n.tags; }', [tool], labels=["web"])
    assert f'`"default": {default}`' in found.hint
