"""Printed nodes have the same meaning when they are parsed again."""

import json
from pathlib import Path
from typing import Any

import pytest
from sequrity.sqrt import validate  # type: ignore[import-untyped]

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import Policy, parse
from langchain_sequrity.sqrt.formatter import format_policy, printed
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Equality,
    Name,
    Not,
    Position,
    Predicate,
    SetLiteral,
    TextLiteral,
    ValueRef,
)
from langchain_sequrity.sqrt.parser import MAX_DEPTH
from tests.sqrt.generate import Generator
from tests.sqrt.meaning import meaning

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))["valid"]
AT = Position(1, 1)


def _assert_same(text: str) -> None:
    policy = parse(text)
    written = printed(policy)
    assert meaning(written) == meaning(policy)
    assert format_policy(written) == written


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_printed_valid_cases_keep_their_meaning_and_the_vendor_accepts_them(
    case: dict[str, Any],
) -> None:
    _assert_same(case["code"])
    assert validate(printed(parse(case["code"])))


def test_printed_random_policies_keep_their_meaning() -> None:
    for number in range(1_000):
        generator = Generator(("printed", number))
        _assert_same(generator.spaced([*generator.policy(), *generator.policy()]))


def test_the_vendor_accepts_printed_random_policies() -> None:
    for number in range(60):
        generator = Generator(("for the vendor", number))
        text = printed(parse(generator.spaced(generator.policy())))
        assert validate(text), text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("((p)) and (q or r) and (s and t)", "p and (q or r) and (s and t)"),
        ("not (p and q) or not (not (r))", "not (p and q) or not not r"),
        ("(p and q) or (r)", "p and q or r"),
        ("a.tags overlaps ((b | c) & d)", "a.tags overlaps (b | c) & d"),
        ("a.tags overlaps b | c & d", "a.tags overlaps b | c & d"),
        ("a.tags overlaps (b & c) | d", "a.tags overlaps (b & c) | d"),
        ("a.tags overlaps (b minus (c xor d))", "a.tags overlaps b - (c ^ d)"),
        ("a.tags overlaps ((b with 1) without 2)", "a.tags overlaps (b with 1) without 2"),
        ("a.value in {float 0.00000001..100000000000000000000000.0}", None),
        ("a.value in {int 1..1, int 1..1.0}", "a.value in {int 1, int 1..1.0}"),
        ("union of tags from args is empty", "@args.tags is empty"),
        ("not and and and and not or not or", None),
    ],
)
def test_parentheses_are_printed_only_where_needed(written: str, kept: str | None) -> None:
    policy = parse(f'tool "x" {{ must deny when {written}; }}')
    assert printed(policy) == f'tool "x" {{\n    must deny when {kept or written};\n}}\n'
    assert meaning(printed(policy)) == meaning(policy)


def test_an_empty_line_separates_kinds_of_declarations_and_doc_comments_are_kept() -> None:
    text = '/// a\n/// b\nlet x = {};let y = {};///c\ntool "t" [3] -> session @tags = x;tool "u" {}'
    assert printed(parse(text)) == (
        "/// a\n/// b\nlet x = {};\nlet y = {};\n\n"
        '/// c\ntool "t" [3] -> session after @tags = x;\n\ntool "u" {}\n'
    )


def test_an_empty_policy_is_printed_as_an_empty_text() -> None:
    assert printed(Policy((), "")) == ""


HOSTILE: list[Predicate | SetLiteral] = [
    Name('x; tool "t" { must allow always; } let z = p', AT),
    Equality(ValueRef("arg", "a.value == 1 or b", AT), ValueRef("arg", "c", AT), AT),
    SetLiteral((TextLiteral('x"}; let y = {"', "plain", AT),), AT),
    SetLiteral((TextLiteral("x\\", "matching", AT),), AT),
]


@pytest.mark.parametrize("node", HOSTILE)
def test_a_node_whose_text_would_parse_as_something_else_is_refused(
    node: Predicate | SetLiteral,
) -> None:
    with pytest.raises(UsageError, match=r"SQRT|quotes"):
        printed(Policy((Binding("ok", node, "", AT),), ""))


def test_an_invalid_name_is_refused() -> None:
    with pytest.raises(UsageError, match="`a b` is not a name"):
        printed(Policy((Binding("a b", SetLiteral((), AT), "", AT),), ""))


def test_a_doc_comment_cannot_become_a_rule() -> None:
    policy = Policy((Binding("x", SetLiteral((), AT), 'a\nlet y = {"evil"};', AT),), "")
    assert [node.name for node in parse(printed(policy)).declarations] == ["x"]  # type: ignore[union-attr]


def test_nodes_nested_too_deeply_are_refused_with_advice() -> None:
    node: Predicate = Name("p", AT)
    for _ in range(MAX_DEPTH):
        node = Not(node, AT)
    assert "not not p" in printed(Policy((Binding("x", node, "", AT),), ""))
    for _ in range(5_000):
        node = Not(node, AT)
    with pytest.raises(UsageError, match=r"nested more than 50 deep.*`let`"):
        printed(Policy((Binding("x", node, "", AT),), ""))
