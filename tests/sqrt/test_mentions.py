"""Warnings about unused names and about labels that differ by one typing error."""

import time
from functools import partial

import pytest

from langchain_sequrity import sqrt
from langchain_sequrity.sqrt import Engine, compile_policy
from langchain_sequrity.sqrt.diagnostics import is_slip
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from tests.sqrt.calls import BROUGHT

check = partial(sqrt.check, labels=BROUGHT)


def warned(text: str) -> list[tuple[int, str]]:
    """The lines and messages of the warnings."""
    assert isinstance(compile_policy(text), Engine)
    return [(one.line, one.message) for one in check(text)]


# Names

UNUSED = [
    # a policy after a line that defines `a`; whether it uses `a`
    ('tool "x" { must deny when "b" in c.tags; }', False),
    ('tool "x" { must deny when c.value in a; }', True),
    ('tool "x" { must deny when not (p and c.value in a or p); }', True),
    ('tool "x" { must deny when c.tags overlaps {"b"} | (c.tags - a); }', True),
    ('tool "x" { must deny when c.tags == a with "b"; }', True),
    ('tool "x" { must deny when "b" in a; }', True),
    ('tool "x" { result { @tags |= a; } }', True),
    ('tool "x" { session before { when "b" in a { @tags |= {"b"}; } } }', True),
    ('tool "x" -> @tags |= a;', True),
    ('tool "x" -> @tags |= {"b"} when c.value in a;', True),
]


@pytest.mark.parametrize(("text", "is_used"), UNUSED)
def test_an_unused_name_gets_a_warning(text: str, is_used: bool) -> None:
    found = warned(f'let a = {{"z"}};\nlet p = d.tags is empty;\n{text}')
    assert ((1, "Nothing uses `a`") in found) == (not is_used)


def test_a_documented_name_may_be_unused() -> None:
    text = 'let a = {"y"};\n/// for later\nlet b = {"z"};\ntool "x" { must deny always; }'
    assert warned(text) == [(1, "Nothing uses `a`")]


@pytest.mark.parametrize("value", ["a", 'a | {"y"}', '"q" in a', "not b.tags overlaps a"])
def test_a_name_in_the_value_of_another_name_is_used(value: str) -> None:
    text = f'let a = {{"z"}};\nlet n = {value};\ntool "x" {{ must deny always; }}'
    assert warned(text) == [(2, "Nothing uses `n`")]


def test_a_text_with_only_names_gets_no_warnings() -> None:
    assert check('let a = {"x"};\nlet b = int 1..5;') == []


def test_an_unused_name_with_a_doc_comment_gets_no_warning() -> None:
    assert warned('/// For later.\nlet a = {"x"}; tool "x" { must deny always; }') == []


# Labels

IN = [
    # a tag in two places
    ('tool "x" { must deny when "untrusted" in c.tags; must deny when "untrused" in c.tags; }'),
    ('tool "x" { must deny when c.tags overlaps {"untrusted"}; result { @tags |= {"untrused"}; } }'),
    ('tool "x" -> @tags |= {"untrusted"}; tool "y" { must deny when "untrused" in @session.tags; }'),
    ('tool "x" { must deny when c.tags subset of {} with "untrusted" without "untrused"; }'),
    ('let a = {"untrusted"}; let b = a; tool "x" -> @tags |= b when "untrused" in c.tags;'),
    ('let a = {"untrusted"} | {"b"}; tool "x" { must deny when c.tags == a - {"untrused"}; }'),
    ('let a = c.tags; tool "x" { must deny when "untrusted" in a; must deny when "untrused" in a; }'),
    ('let a = c.tags; let b = a | d.tags; tool "x" { must deny when "untrusted" in b or "untrused" in c.tags; }'),
    ('let p = not "untrusted" in c.tags; tool "x" { must deny when p and "untrused" in c.tags; }'),
]  # fmt: skip


@pytest.mark.parametrize("text", IN)
def test_a_tag_that_is_nearly_another_gets_a_warning_in_all_places(text: str) -> None:
    (finding,) = check(text)
    assert finding.severity == "warning"
    assert finding.message == "This tag is nearly `untrusted` of line 1"
    assert finding.hint == "One of them may be misspelt"
    assert finding.column == text.index('"untrused"') + 1


def test_only_producers_are_compared_with_producers_and_consumers_are_not_compared() -> None:
    rule = 'tool "x" {{ must deny when "mailing" in c.{} or "mailling" in c.{}; }}'
    assert [message for _, message in warned(rule.format("producers", "producers"))] == [
        "This producer is nearly `mailing` of line 1"
    ]
    assert warned(rule.format("tags", "producers")) == []
    restricted = 'tool "r" -> @consumers = {"mailing"};'
    assert warned(f"{restricted}\n{rule.format('consumers', 'consumers')}") == []


@pytest.mark.parametrize(
    "text",
    [
        'tool "x" { must deny when c.value in {"untrusted", "untrused"}; }',
        'tool "x" { must deny when c.value == "untrusted" or c.value == "untrused"; }',
        'tool "untrusted" { must deny always; } tool "untrused" { must deny always; }',
        'tool "x" { must deny when "untrusted" in c.tags or "untrusted" in d.tags; }',
    ],
)
def test_values_and_tool_names_are_not_compared_as_labels(text: str) -> None:
    assert warned(text) == []


def test_a_misspelt_label_is_reported_once_at_the_later_place() -> None:
    text = """
        tool "x" -> @tags |= {"private"};
        tool "y" { must deny when "privat" in c.tags or "privat" in d.tags or "private" in c.tags; }
        tool "z" { must deny when "privates" in c.tags; }
    """
    assert warned(text) == [
        (3, "This tag is nearly `private` of line 2"),
        (4, "This tag is nearly `private` of line 2"),
    ]


def test_misspelt_labels_are_reported_only_without_errors() -> None:
    text = 'let a = {"x"};\ntool "x" { must deny when "untrusted" in c.tags and b; }'
    assert [one.severity for one in check(text)] == ["error"]
    text = text.replace(" and b", "")
    assert [one.severity for one in check(text, ["y"])] == ["error"]
    assert [one.severity for one in check(text, ["x"])] == ["warning"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("untrusted", "untrused"),
        ("untrusted", "untrusteds"),
        ("untrusted", "untrustad"),
        ("untrusted", "utnrusted"),
        ("untrusted", "Untrusted"),
        ("on loan", "on_loan"),
        ("on-loan", "onloan"),
        ("aaaaa", "aaaaaa"),
        ("\u00e4pfel", "apfel"),
    ],
)
def test_names_that_differ_by_one_slip_get_a_warning(one: str, other: str) -> None:
    assert is_slip(one, other)
    assert is_slip(other, one)
    tags = f'tool "x" {{ must deny when "{one}" in c.tags or "{other}" in c.tags; }}'
    assert len(warned(tags)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trusted", "untrusted"),
        ("internal", "external"),
        ("case_1", "case_2"),
        ("case_1", "case_11"),
        ("case_12", "case_21"),
        ("v2 mail", "v mail"),
        ("team_a", "team_b"),
        ("tier.i", "tier.ii"),
        ("is_on", "is_of"),
        ("ana@bank.example", "anna@bank.example"),
        ("mail", "mails"),  # short names are too often different words
        ("a" * 61, "a" * 62),
        ("", "a"),
    ],
)
def test_names_that_differ_on_purpose_get_no_warning(one: str, other: str) -> None:
    tags = f'tool "x" {{ must deny when "{one}" in c.tags or "{other}" in c.tags; }}'
    assert warned(tags) == []


# Hostile policies

RULE = 'tool "x" {{ must deny when {}; }}'
HOSTILE = [
    RULE.format(f"a.tags overlaps {{{','.join(f'{chr(34)}{n:012b}{chr(34)}' for n in range(4_000))}}}"),
    RULE.format(f"a.tags overlaps {{{','.join(chr(34) + 'ab' * 29 + chr(97 + n % 26) + chr(34) for n in range(1_000))}}}"),
    RULE.format(f'"{"a" * 60_000}" in a.tags and "{"a" * 4_000}" in a.tags'),
    RULE.format(" | ".join(["a.tags overlaps b", *"c" * 16_000])).replace("tool", "let b = {}; let c = b; tool"),
    RULE.format("a.tags == {}" + ' with "abcde" without "abcdf"' * 2_200),
    'let s = {"abcde"};tool "x" {' + 'must deny when "abcde" in a.tags&s;' * 1_800 + "}",
    'let a0 = {"abcde"};' + "".join(f"let a{n} = a{n - 1}|a{n - 1};" for n in range(1, 30)) + 'tool "x" { must deny when a.tags == a29; }' * 1_000,
    'tool "x" {}' + "".join(f"let b{n}={{}};" for n in range(4_500)),
]  # fmt: skip


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:40]!r}")
def test_checking_the_labels_of_a_hostile_policy_takes_bounded_time(text: str) -> None:
    assert len(text) <= MAX_CHARACTERS
    start = time.process_time()
    found = check(text)
    assert time.process_time() - start < 4
    assert not [one for one in found if one.severity == "error"]
    for one in found:
        assert len(one.message) + len(one.hint) < 600


@pytest.mark.parametrize("char", ["\u202e", "\x1b[31m", "\x00"])
def test_warnings_are_safe_to_print(char: str) -> None:
    found = check(RULE.format(f'"secret{char}" in a.tags or "secrets{char}" in a.tags'))
    assert "This tag is nearly" in found[-1].message
    assert not [one for one in found if char in one.message + one.hint]
