"""Formatting changes the layout of a policy and keeps its words and comments."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sequrity.sqrt import validate  # type: ignore[import-untyped]

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import check, compile_policy, parse
from langchain_sequrity.sqrt.formatter import WIDTH, format_policy, formatted_text
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from langchain_sequrity.sqrt.parser import MAX_DEPTH, PolicyParser
from tests.sqrt.generate import Generator
from tests.sqrt.meaning import commented, comments, meaning, words

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))["valid"]
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

LAID_OUT = {
    "nothing": ("", ""),
    "white space": (" \r\n\t\n", ""),
    "only comments": ("  // a\n\n\n\n/* b */ // c", "// a\n\n/* b */\n// c\n"),
    "one rule a line": (
        'tool "x"{priority 5;must deny always;should allow when(p);}',
        'tool "x" {\n    priority 5;\n    must deny always;\n    should allow when (p);\n}\n',
    ),
    "one change that fits stays in its line": (
        'tool "x" { result{@tags|={"a"};} session after{@tags={};@tags={};} }',
        'tool "x" {\n    result { @tags |= {"a"}; }\n    session after {\n        @tags = {};\n        @tags = {};\n    }\n}\n',
    ),
    "a free line between blocks, and one where there were some": (
        'let a={};\n\n\n\nlet b={};let c={};tool "x"{}tool "y"{must deny always;\n\n\nmust deny when p;}',
        'let a = {};\n\nlet b = {};\nlet c = {};\n\ntool "x" {}\n\ntool "y" {\n    must deny always;\n\n    must deny when p;\n}\n',
    ),
    "comments above and behind what they are about": (
        '/* top */\ntool "x" { // x\n// above\nmust deny always; // behind\n\n// last\n}\n// end',
        '/* top */\ntool "x" { // x\n    // above\n    must deny always; // behind\n\n    // last\n}\n// end\n',
    ),
    "a comment within a line stays within it": (
        "let /*a*/ x = {1/*b*/, 2};",
        "let /*a*/ x = {1 /*b*/, 2};\n",
    ),
    "a comment before a semicolon or a comma comes behind it": (
        'let x = {"a" // one\n, "b"} // two\n;',
        'let x = {\n    "a", // one\n    "b"\n}; // two\n',
    ),
    "a comment breaks a condition where it stands": (
        'tool "x" { must deny when a // why a\n and\n// why b\nb; }',
        'tool "x" {\n    must deny when a // why a\n        and\n            // why b\n            b;\n}\n',
    ),
    "stars below each other": (
        'tool "x" {\n/* a\n* b\n*/\n}',
        'tool "x" {\n    /* a\n     * b\n     */\n}\n',
    ),
    "doc comments stay with what they describe": (
        '///  a\n\n/// b\ntool "x" { /// c\nmust deny always; }',
        '///  a\n/// b\ntool "x" {\n    /// c\n    must deny always;\n}\n',
    ),
    "spellings and parentheses stay": (
        'tool "x" { hard deny when ((a.tags overlaps b.tags union c.tags intersect (d))); }',
        'tool "x" {\n    hard deny when ((a.tags overlaps b.tags union c.tags intersect (d)));\n}\n',
    ),
    "a sign belongs to its number, an operator does not": (
        "let s = {-1,-inf};let t = a-inf;let u = int -5..-inf;",
        "let s = {-1, -inf};\nlet t = a - inf;\nlet u = int -5..-inf;\n",
    ),
    "texts": (
        'let s = {"a  //  b", "c\n   d  ", r"\\s  ", w"  *"};',
        'let s = {"a  //  b", "c\n   d  ", r"\\s  ", w"  *"};\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "formatted"), LAID_OUT.values(), ids=LAID_OUT)
def test_policies_have_the_expected_layout(text: str, formatted: str) -> None:
    assert format_policy(text) == formatted
    assert format_policy(formatted) == formatted


@pytest.mark.parametrize("made", [str, parse, compile_policy, PolicyHeader.from_sqrt])
def test_a_policy_in_any_form_is_formatted(made: Callable[[str], Any]) -> None:
    text = '// why\ntool"x"{soft deny always;}'
    assert format_policy(made(text)) == '// why\ntool "x" {\n    soft deny always;\n}\n'


@pytest.mark.parametrize("made", [str, parse])
def test_a_policy_that_does_not_compile_is_formatted(made: Callable[[str], Any]) -> None:
    assert format_policy(made("let a=b;")) == "let a = b;\n"


def test_a_long_line_breaks_at_its_outermost_parts_first() -> None:
    long, longer = "a" * 40, "b" * 60
    text = (
        f'let s = {{"{long}","{longer}"}};'
        f'tool "x" -> @tags |= {{"{long}"}} when p and {longer};'
        f'tool "y" {{ must deny when (x.tags overlaps {{"{long}"}} or {longer}) and not {long}; }}'
    )
    assert format_policy(text) == (
        f'let s = {{\n    "{long}",\n    "{longer}"\n}};\n'
        f'tool "x" -> @tags |= {{"{long}"}}\n    when p and {longer};\n\n'
        f'tool "y" {{\n    must deny when (\n            x.tags overlaps {{"{long}"}}\n'
        f"            or {longer}\n        )\n        and not {long};\n}}\n"
    )


def test_a_line_breaks_only_if_it_is_longer_than_the_limit() -> None:
    for size in range(WIDTH):
        text = format_policy(f'tool "x" {{ must deny when p and {"q" * (size + 1)}; }}')
        rule = text.split("\n")[1]
        assert (" and " in rule) == (size + 1 + len("    must deny when p and ;") <= WIDTH)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_formatted_valid_cases_keep_their_meaning_and_the_vendor_accepts_them(
    case: dict[str, Any],
) -> None:
    _assert_kept(case["code"])
    for seed in range(5):
        _assert_kept(commented(case["code"], seed))
    assert validate(format_policy(case["code"]))


@pytest.mark.parametrize("width", [WIDTH, 30, 5])
def test_formatted_random_policies_keep_their_meaning(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_sequrity.sqrt.formatter.WIDTH", width)
    for number in range(300):
        generator = Generator(("format", width, number))
        text = generator.spaced([*generator.policy(), *generator.policy()])
        _assert_kept(commented(text, number))


def test_the_vendor_accepts_formatted_random_policies() -> None:
    for number in range(60):
        generator = Generator(("vendor", number))
        text = format_policy(commented(generator.spaced(generator.policy()), number))
        assert validate(text), text


def _assert_kept(text: str) -> None:
    formatted = format_policy(text)
    assert meaning(formatted) == meaning(text)
    assert words(formatted) == words(text)
    assert comments(formatted) == comments(text)
    assert format_policy(formatted) == formatted
    assert formatted == "" or (formatted.endswith("\n") and not formatted.endswith("\n\n"))
    assert not re.search(r"[ \t\r\f]\n|\n\n\n|\t", _QUOTED.sub('""', formatted))


def test_quoted_texts_are_not_changed() -> None:
    odd = '"\t\r\n  // \\" /* \\\\ \u00e9\u202e  \n"'
    text = f"let x = {{{odd}, r{odd}, w{odd}}};tool{odd}{{}}"
    assert words(format_policy(text)) == words(text)
    assert format_policy(text).count(odd) == 4


def test_formatting_keeps_the_warnings_of_a_policy() -> None:
    text = 'tool "x" { must deny when a.tags overlaps b.tags & c.tags | d.tags; }'
    found = [one.message for one in check(text)]
    assert any("Union binds tighter" in message for message in found)
    assert [one.message for one in check(format_policy(text))] == found


def test_invalid_sqrt_is_refused_at_its_place() -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        format_policy('tool "x" {\n  deny always;\n}')
    assert (caught.value.line, caught.value.column) == (2, 3)


def test_a_policy_that_would_be_too_long_when_formatted_is_refused() -> None:
    rules = "must deny always;" * (MAX_CHARACTERS // 20)
    with pytest.raises(UsageError, match="Formatted, this policy has 7"):
        format_policy(f'tool "x" {{{rules}}}')


def test_the_deepest_text_that_can_be_parsed_is_formatted() -> None:
    inner = "a"
    for _ in range(MAX_DEPTH):
        inner = f"({inner} | b & c - d ^ e with 1)"
    text = f'tool "x" {{ must deny when x.tags overlaps {inner}; }}'
    assert words(formatted_text(parse(text))) == words(text)


def test_a_text_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(PolicyParser):
        def __init__(self, text: str) -> None:
            made.append(text)
            super().__init__(text)

    monkeypatch.setattr("langchain_sequrity.sqrt.parser.PolicyParser", Counted)
    format_policy('tool "x" { must deny always; }')
    assert len(made) == 1
