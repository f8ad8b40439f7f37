"""Valid and invalid SQRT, and the places and advice of errors."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from langchain_sequrity.sqrt.nodes import (
    And,
    Binding,
    Equality,
    Membership,
    Meta,
    Name,
    Not,
    NumberLiteral,
    NumberRange,
    OneLiner,
    Or,
    Position,
    SetEdit,
    SetOperation,
    TimeLiteral,
    ToolBlock,
)
from langchain_sequrity.sqrt.parser import MAX_DEPTH

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "cases.json").read_text(encoding="utf-8")
)


def by_name(kind: str) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("case", CASES[kind], ids=lambda case: case["what"])


def refused(text: str) -> PolicySyntaxError:
    with pytest.raises(PolicySyntaxError) as caught:
        parse(text)
    return caught.value


def bound(text: str) -> Any:
    """The node that `let x = …;` binds."""
    (binding,) = parse(f"let x = {text};").declarations
    assert isinstance(binding, Binding)
    return binding.value


def block(text: str) -> ToolBlock:
    (found,) = parse(text).declarations
    assert isinstance(found, ToolBlock)
    return found


@by_name("valid")
def test_valid_sqrt_is_parsed(case: dict[str, Any]) -> None:
    assert parse(case["code"]).text == case["code"]


@by_name("invalid")
def test_invalid_sqrt_is_refused_at_its_place(case: dict[str, Any]) -> None:
    error = refused(case["code"])
    assert (error.line, error.column) == (case["line"], case["column"])
    line, caret = error.source.split("\n")
    assert caret.rstrip() == caret
    assert caret.endswith("^")
    assert str(error) == f"{str(error).removesuffix(error.source)}{line}\n{caret}"


# Messages of errors


def test_an_error_shows_line_column_the_line_and_a_caret() -> None:
    error = refused(
        'let halls = {"east"};\ntool "lend" {\n    must deny when halls overlaps {"x"};\n}'
    )
    assert (error.line, error.column) == (3, 26)
    assert (
        error.source == '      must deny when halls overlaps {"x"};\n                           ^'
    )
    assert error.expected == ("`;`",)
    assert "line 3, column 26" in str(error)
    assert "The left side is one set of labels" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lend", ("`let`", "`tool`")),
        ("tool x", ("the name of a tool in quotes", 'a regex `r"…"`')),
        ('tool "x" must', ("`{`", "`[`", "`->`")),
        ('tool "x" { lend', ("`must`", "`should`", "`priority`", "`result`", "`session`", "`}`")),
        ('tool "x" { must lend', ("`allow`", "`deny`")),
        ('tool "x" { must deny maybe', ("`always`", "`when`")),
        ('tool "x" { session {', ("`before`", "`after`")),
        ('tool "x" { result { @tags {', ("`=`", "`|=`", "`&=`", "`-=`", "`^=`")),
        ('tool "x" { must deny when ;', ("a condition",)),
        ('tool "x" { result { @tags = ;', ("a set, such as `{…}`, `arg.tags` or a name",)),
        ("let x = {,", ("an element (a text, a regex, a wildcard, a number or a domain)",)),
        ("let x = a.colours", ("`tags`", "`producers`", "`consumers`")),
        ("let x = a.value == b;", ("a value, such as `arg.value`, a text or a number",)),
        ("let x = int a..", ("a number",)),
        ("let x = datetime a", ('a time `d"…"`',)),
    ],
)
def test_an_error_says_what_was_expected(text: str, expected: tuple[str, ...]) -> None:
    error = refused(text)
    assert error.expected == expected
    assert f"Expected {' or '.join(expected)}, found" in str(error)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("let p = a.value > 3;", "`a.value in {int 4..}`"),
        ("let p = a.value >= 3;", "`a.value in {int 3..}`"),
        ("let p = a.value < 3;", "`a.value in {int ..<3}`"),
        ("let p = a.value <= 3;", "`a.value in {int ..3}`"),
        ("let p = a.value != 3;", "`not a.value == b.value`"),
        ("let p = !a;", "write `not`"),
        ('let p = a.value matching r"x";', "a.value in {str matching …}"),
        ('let p = a.tags contains "x";', '`"x" in a.tags`'),
        ('let p = {"x"} overlaps a.tags;', "The left side is one set of labels"),
        ("let p = a.tags is not empty;", "`not a.tags is empty`"),
        ("let n = 5;", "Only predicates, sets and domains have names"),
        ("let p = a.value.b == 1;", "Rules cannot read inside a value"),
        ("let p = @args.value == 1;", "Only `arg.value`, `@result.value`"),
        ("let s = {'x'};", 'double quotes: `"ana"`'),
        ("# note", "write `// …`"),
        ('tool "x" { must deny when copies in {1}; }', "`copies.value in …`"),
        ("let p = (copies == 3);", "`copies.value == …`"),
        ('tool "x" -> @tags |= {"a"} when copies in {1};', "`copies.value in …`"),
        ('tool "x" { result { when copies == 3 { @tags = {}; } } }', "`copies.value == …`"),
        ('let p = a.tags overlaps "x";', '`{"x"}`'),
        ('let p = a.tags == "x";', '`{"x"}`'),
        ('let p = a.tags subset of "x";', '`{"x"}`'),
        ('tool "x" -> @tags |= "x";', '`{"x"}`'),
        ("let p = a.value in 5;", "`{5}`"),
        ('let p = a.value in d"2027-01-01";', '`{datetime d"2027-01-01"}`'),
        ('let p = a.value == r"x";', '`in {r"x"}`'),
        ('let p = a.value == {"x"};', "`a.value in {…}`"),
        ('let p = a.tags in {"x"};', '`a.tags overlaps {"x"}` or `"x" in a.tags`'),
        ('let p = a.tags | b.tags overlaps {"x"};', "The left side is one set of labels"),
        ("let p = a.value == 1 && b;", "joined with `and`"),
        ('let p = a.tags overlaps {"x"} && b;', "joined with `and`"),
        ("let p = a.value == 1 || b;", "joined with `or`"),
        ('let p = a.tags overlaps {"x"} || b;', "joined with `or`"),
        ('tool "x" -> @tags += {"x"};', "added with `|=`"),
        ('tool "x" { result { @tags | {"x"}; } }', "added with `|=`"),
        ("let s = {1..5};", "`{int 1..5}`"),
        ("let s = {..5};", "`{int 1..5}`"),
        ("let n = 1..5;", "`{int 1..5}`"),
        ('tool "x" { result { must deny always; } }', "Write rules beside `result { … }`"),
        ('tool "x" { session after { should allow always; } }', "Write rules beside"),
        ('tool "x" { when p { must deny always; } }', "`must deny when p;`"),
        ('tool "x" { result {} when p { must deny always; } }', "`must deny when p;`"),
        ('tool "x" { must deny always priority 3; }', "`priority 3;` is a statement of its own"),
        ("must deny always;", 'the block of a tool: `tool "name" { … }`'),
        ('tool w"send_*" {}', '`tool r"^send_.*$"`'),
        ("/* note", "close it with `*/`"),
        ('let s = {"x};', 'close it with `"`'),
        ('tool "x" { deny always; }', "A rule begins with its strength"),
        ('tool "x" { MUST deny always; }', "Keywords are in lower case: `must`"),
        ('tool "x" { must deny if p; }', "Write `when`"),
        ('tool "x" { @tags = {}; }', "Labels change inside `result { … }`"),
        ('tool "x" { when p { @tags = {}; } }', "Labels change inside `result { … }`"),
        ('tool "x" { must deny always; when p { } }', "Labels change inside `result { … }`"),
        ('tool "x" { session { } }', "`session before {` or `session after {`"),
        ('tool "x" { result { when p { when q { } } } }', "combine the conditions with `and`"),
        ('tool "x" { result { when p { @tags = {}; when q { } } } }', "the conditions with `and`"),
        ('tool "x" { result { @args.tags = {}; } }', "can read but not change"),
        ('tool "x" -> @result.tags = {};', "A one-liner takes the short form"),
    ],
)
def test_an_error_says_what_to_write_instead(text: str, advice: str) -> None:
    assert advice in str(refused(text))


def test_the_error_of_a_binding_is_that_of_the_reading_that_gets_furthest() -> None:
    assert refused("let x = int 1..2 and;").column == 18
    assert refused('let x = a.tags | b.tags & "c";').column == 27
    assert refused("let x = a.tags overlaps;").expected == (
        "a set, such as `{…}`, `arg.tags` or a name",
    )


def test_bytes_are_not_parsed() -> None:
    with pytest.raises(UsageError, match="Expected the text of a policy, got bytes"):
        parse(b"")  # type: ignore[arg-type]


# Parsed nodes


def test_union_binds_tightest_then_intersection_difference_and_symmetric_difference() -> None:
    found = bound("a ^ b - c & d | e")
    assert [found.operator, found.operands[1].operator] == ["^", "-"]
    inner = found.operands[1].operands[1]
    assert [inner.operator, inner.operands[1].operator] == ["&", "|"]
    assert bound("a xor b minus c intersect d union e").operands[1].operator == "-"


def test_with_and_without_bind_tighter_than_any_operator_and_go_from_left_to_right() -> None:
    found = bound('a | b with "x" without "y"')
    assert isinstance(found, SetOperation)
    edited = found.operands[1]
    assert isinstance(edited, SetEdit)
    assert [adds for adds, _ in edited.edits] == [True, False]


def test_a_chain_of_one_operator_is_one_node_in_source_order() -> None:
    found = bound("a - b - c")
    assert [name.name for name in found.operands] == ["a", "b", "c"]


def test_an_unparenthesised_union_in_an_intersection_is_marked() -> None:
    assert bound("a & b | c").bare
    assert bound("b | c & a").bare
    assert not bound("a & (b | c)").bare
    assert not bound("(b | c) & a").bare


def test_not_binds_tightest_then_and_then_or() -> None:
    found = bound("not a and b or c")
    assert isinstance(found, Or)
    assert isinstance(found.parts[0], And)
    assert isinstance(found.parts[0].parts[0], Not)


def test_a_name_may_begin_with_a_keyword() -> None:
    assert bound("notice") == Name("notice", Position(1, 9))
    assert isinstance(bound("not ice"), Not)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("not and or", ["not", "or"]),
        ("not or and and or or", ["~or", "and", "or"]),
        ("not and or and", ["~and", "and"]),
    ],
)
def test_the_next_token_decides_whether_a_word_is_a_name_or_an_operator(
    text: str, names: list[str]
) -> None:
    def flat(node: Any) -> list[str]:
        if isinstance(node, Name):
            return [node.name]
        if isinstance(node, Not):
            return [f"~{name}" for name in flat(node.inner)]
        return [name for part in node.parts for name in flat(part)]

    assert flat(bound(text)) == names


@pytest.mark.parametrize(
    ("text", "low", "high", "low_open", "high_open"),
    [
        ("7", 7, 7, False, False),
        ("3..9", 3, 9, False, False),
        ("3<..9", 3, 9, True, False),
        ("3..<9", 3, 9, False, True),
        ("3<..<9", 3, 9, True, True),
        ("3..", 3, None, False, False),
        ("3<..", 3, None, True, False),
        ("..9", None, 9, False, False),
        ("..<9", None, 9, False, True),
    ],
)
def test_an_open_end_of_a_range_is_marked_on_its_side(
    text: str, low: int | None, high: int | None, low_open: bool, high_open: bool
) -> None:
    found: NumberRange = bound(f"int {text}").range
    ends = [end if end is None else end.value for end in (found.low, found.high)]
    assert [*ends, found.low_open, found.high_open] == [low, high, low_open, high_open]


@pytest.mark.parametrize(
    ("text", "value"),
    [("-5", -5), ("5", 5), ("-0.5", -0.5), ("inf", float("inf")), ("-inf", -float("inf")),
     ("+inf", float("inf"))],
)  # fmt: skip
def test_numbers_are_read(text: str, value: float) -> None:
    (element,) = bound(f"{{{text}}}").elements
    assert isinstance(element, NumberLiteral)
    assert (type(element.value), element.value) == (type(value), value)


def test_labels_of_all_arguments_have_two_spellings() -> None:
    def read(text: str) -> tuple[str, str, bool]:
        left = bound(f"{text} is empty").left
        assert isinstance(left, Meta)
        return left.scope, left.field, left.intersect

    assert read("@args.tags") == read("@args.tags.union") == read("union of tags from args")
    assert read("@args.tags.intersect") == read("intersect of tags from args")
    assert read("@args.tags.intersect") == ("args", "tags", True)


def test_literals_of_values_are_read() -> None:
    same = bound('d"2027-01-01" == true')
    assert isinstance(same, Equality)
    assert isinstance(same.left, TimeLiteral)
    assert isinstance(bound('inf in {"x"}'), Membership)
    assert isinstance(bound("inf"), Name)


def test_must_is_hard_and_should_is_soft() -> None:
    found = block(
        'tool "x" { must deny always; hard deny always; should allow always; soft allow always; }'
    )
    assert [check.strength for check in found.checks] == ["hard", "hard", "soft", "soft"]
    assert found.checks[0].text == "must deny always;"


@pytest.mark.parametrize(
    ("scope", "phase"),
    [("", "result"), ("result", "result"), ("session", "after"), ("session before", "before"),
     ("session after", "after")],
)  # fmt: skip
def test_a_one_liner_changes_the_result_unless_it_says_session(scope: str, phase: str) -> None:
    (found,) = parse(f'tool "x" [4] -> {scope} @tags |= {{"y"}};').declarations
    assert isinstance(found, OneLiner)
    assert found.phase == phase
    assert found.priority is not None
    assert found.priority.value == 4


def test_doc_comments_belong_to_what_follows() -> None:
    text = """
        /// Lending
        /// is limited.
        tool "lend" {
            /// fragile things stay
            must deny always;
            /// marks
            result {
                /// lent
                @tags |= {"lent"};
            }
        }
    """
    found = block(text)
    assert found.doc == "Lending\nis limited."
    assert found.checks[0].doc == "fragile things stay"
    assert found.blocks[0].doc == "marks"
    assert found.blocks[0].steps[0].doc == "lent"


# Hostile texts


def test_a_text_that_is_too_long_is_refused() -> None:
    assert parse(" " * MAX_CHARACTERS).declarations == ()
    assert f"at most {MAX_CHARACTERS} characters" in str(refused(" " * (MAX_CHARACTERS + 1)))
    assert parse(" " * 200_000, max_characters=200_000).declarations == ()


@pytest.mark.parametrize(
    ("opening", "middle", "closing"),
    [
        ("let p = ", "a", ""),
        ('tool "x" { must deny when ', "a", ""),
        ('tool "x" { must deny when a.tags == ', "b", ""),
    ],
)
@pytest.mark.parametrize("count", [5_000, 30_000])
def test_too_deep_nesting_is_a_syntax_error_and_not_a_recursion_error(
    opening: str, middle: str, closing: str, count: int
) -> None:
    text = f"{opening}{'(' * count}{middle}{')' * count};{closing}"
    assert f"nested more than {MAX_DEPTH} deep" in str(refused(text))


def test_the_depth_of_negation_is_limited() -> None:
    assert f"nested more than {MAX_DEPTH} deep" in str(refused("let p = " + "not " * 5_000 + "a;"))


def test_the_deepest_allowed_nesting_is_parsed() -> None:
    depth = MAX_DEPTH
    assert parse(f"let p = {'(' * depth}a{')' * depth};").declarations
    assert parse(f"let p = a.tags == {'(' * depth}a.tags | b{')' * depth};").declarations


@pytest.mark.parametrize(
    "text",
    [
        "let p = " + "a and " * 10_900 + "a;",
        "let p = a.tags | " * 1 + "a | " * 16_000 + "a;",
        "let p = {" + "1," * 32_000 + "1};",
        "let a={};" * 7_000,
        "let p = not " + "and or " * 9_000 + "and;",
        "let p = " + "not and " * 8_000 + "a;",
        "/" * 60_000 + '\ntool "x" {}',
        "//\n" * 20_000,
        "/**/" * 16_000,
        '"' * 65_000,
        "let p = {" + '"a' * 32_000,
        "/*" + "*" * 65_000,
        'let s = {r"' + '\\"' * 32_000 + '"};',
        "\n" * 65_000 + "!",
        "let x = int " + "." * 65_000,
        'tool "x" {' + "must deny always;" * 3_800 + "}",
        'tool "x" {' + "result{@tags={};}" * 3_800 + "}",
    ],
    ids=lambda text: f"{text[:24]!r}",
)  # fmt: skip
def test_the_longest_text_takes_linear_time(text: str) -> None:
    assert len(text) <= MAX_CHARACTERS
    start = time.process_time()
    with suppress(PolicySyntaxError):
        parse(text)
    assert time.process_time() - start < 2


def test_numbers_with_too_many_digits_are_refused() -> None:
    assert parse(f"let n = int {'9' * 300};").declarations
    for number in ("9" * 301, "9" * 60_000, "1." + "0" * 400):
        assert "at most 300 digits" in str(refused(f"let n = int {number};"))


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\u202e", "\u2066", "\u200b", "\ud800", "\U000e0041"]
)
def test_control_and_invisible_characters_are_escaped_in_an_error(char: str) -> None:
    for text in (f"let s = {char};", f'let s = {{"{char}" "x"}};', f"let s = {{}}; /// {char}"):
        shown = str(refused(text))
        assert char not in shown
        shown.encode()


def test_the_caret_is_under_the_place_after_escapes_and_tabs() -> None:
    error = refused('\tlet s = {"\u202e" "x"};')
    line, caret = error.source.split("\n")
    assert line[len(caret) - 1 :].startswith('"x"')


def test_an_error_in_a_long_line_shows_only_the_part_around_the_place() -> None:
    error = refused("let p = " + "a and " * 1_000 + ";" + " " * 1_000)
    line, caret = error.source.split("\n")
    assert len(line) < 200
    assert line[len(caret) - 1] == ";"
