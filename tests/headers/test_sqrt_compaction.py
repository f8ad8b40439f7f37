import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequrity.sqrt import parse  # type: ignore[import-untyped]

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.headers import PolicyCodes, PolicyHeader, compact_sqrt
from langchain_sequrity.sqrt import compile_policy
from langchain_sequrity.sqrt.compaction import compacted
from langchain_sequrity.sqrt.diagnostics import position_at
from langchain_sequrity.sqrt.lexer import tokens

POLICIES = [
    "",
    "// just a remark\n",
    "/* over\n two lines */ ",
    'let staff = { "cook" , "waiter" } ;',
    'let none = { } ; let all = {"*"};',
    'let mix = {"a", r"^t-[0-9]+$", w"t-*", 7, -2.5, int 1 .. 9, bool true, datetime 0, str "x"};',
    'let s = a.tags | b.tags & {"x"} - {"y"} ^ c.tags;',
    'let s = (a.tags union {"x"}) minus b.tags xor c.tags intersect d.tags;',
    'let s = note.tags with "seen" without "new" with int -3;',
    "let s = union of tags from args ; let t = @args.consumers.intersect;",
    "let r = int -20..-5; let q = int 3 <..< 9; let p = int ..< 5; let o = int 5 <..;",
    "let f = float -inf ..< 0.0; let g = float 0..inf; let h = float +inf;",
    'let l = str matching r"\\d+\\.\\"x" length 1 ..< 40; let m = str like w"a*" length 3 ..;',
    'let d = datetime d"2026-03-01" <..< d"2027-01-01"; let e = datetime ..d"2026-06-01";',
    'let e = "x" == a.value and -3 == b.value and c.value == -0.5 and d.value == d"2026-01-01";',
    'let p = not ( a.value in {int 1..2} or "x" in b.tags ) and not q;',
    'let p = a.tags subset of {"x"} or a.tags superset of b.tags or a.tags == b.tags;',
    "let p = a.tags is empty and b.consumers is universal or @session.value == 2;",
    'tool "ovens" { }',
    'tool r"^(bake|fry)_.*$" { priority -3 ; must deny when q ; soft allow always ; }',
    'tool "bake" { result { @tags |= {"hot"}; @result.producers -= { "x" }; a.tags ^= b.tags; } }',
    'tool "bake" { result { when @tags overlaps {"raw"} { @consumers = crew ; } } }',
    'tool "door" { session before { @tags |= {"t"}; } session after { @session.tags &= {"u"}; } }',
    'tool "scan" [ -1 ] -> session before @tags |= {"s"} when @result.tags overlaps {"old"};',
    'tool "scan" -> @tags = @tags without "draft";',
    '/// first\n/// second \ntool "x" {\n  /// why // not a remark\n  must deny always; // r\n}',
    'tool "x" {\r\n  // remark\r\n  /// why\r\n  must deny always;\r\n}\r\n',
    "//// four slashes\nlet a = {};",
    'let url = {"http://x/*y*/", "say \\"// hi\\"", "back\\\\"}; // end',
    'let wrapped = {"two\n  // lines"};',
    'let herbs = {"thymé", "しそ"};',
    'tool\t"x"{must allow when p;}',
    'let from = {"x"}; let args = from | {"y"}; let not_ = args;',
]
SAME = [
    'let a = {"open};',
    "let a = /* open",
    "/* a /* b */ let x = {}; */",
    "// a\x0blet x = {}; ",
    "// a\rlet x = {}; ",
    "/// a\u2028let x = {};\nlet y = {};",
    "let a  =  {'x'};",
    "let é = {};  ",
    'let a = {"x\\\n"};  ',
    "permit (principal, action, resource) when { a::b  };",
    "let\xa0a  = {};",
]


@pytest.mark.parametrize("text", POLICIES)
def test_a_compact_policy_parses_to_the_same_tree(text: str) -> None:
    before, after = parse(text), parse(compact_sqrt(text))
    assert before.valid
    assert after.valid, compact_sqrt(text)
    assert after.tree == before.tree


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_comments_and_white_space_do_not_change_the_compacted_policy(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([text for text in POLICIES if len(text) < 100]))
    gap = st.sampled_from([" ", "\n", "\t \r\n", "/* x */", "/**/", "// y\n", "//\n", "/*/ */"])
    # Only spaces outside strings and comments are replaced: there, any gap is valid.
    pieces = re.split(r'([rwd]?"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/)', text, flags=re.DOTALL)
    noisy = "".join(
        piece if index % 2 else re.sub(" ", lambda _: data.draw(gap), piece)
        for index, piece in enumerate(pieces)
    )
    assert parse(noisy).tree == parse(compact_sqrt(noisy)).tree == parse(text).tree


@given(st.text(st.sampled_from('ab1"\\/*\n\r {};=|-<.>@r')) | st.sampled_from(POLICIES))
def test_compacting_is_idempotent_and_the_result_is_not_longer(text: str) -> None:
    compact = compact_sqrt(text)
    assert compact_sqrt(compact) == compact
    assert len(compact) <= len(text) + 1  # a doc comment at the very end gets its line end


@settings(deadline=None)
@given(st.text(st.sampled_from('ab"\\/*\n {};=|let'), max_size=12))
def test_compacting_does_not_make_an_invalid_text_valid(text: str) -> None:
    assert parse(compact_sqrt(text)).valid == parse(text).valid


@pytest.mark.parametrize("text", SAME)
def test_a_text_that_is_not_certainly_sqrt_is_not_changed(text: str) -> None:
    assert compact_sqrt(text) == text


def test_comments_and_indentation_are_removed_and_doc_comments_kept() -> None:
    text = """
        // who is on duty
        let crew = {"ana", "bo"};

        /// Nobody floods a bed.
        tool "open_valve" {
            must deny when not seconds.value in {int 0..60};  /* one minute */
            should allow always;
        }
    """
    assert compact_sqrt(text) == (
        'let crew={"ana","bo"};/// Nobody floods a bed.\ntool "open_valve" {must deny when not '
        "seconds.value in {int 0..60};should allow always;}"
    )


def test_a_policy_is_sent_compacted_and_the_object_keeps_its_text() -> None:
    text = "let a = {};  // nothing\n"
    policy = PolicyHeader(codes=text)
    assert policy.to_header() == '{"codes":{"code":"let a={};","language":"sqrt"}}'
    assert policy.codes == PolicyCodes(code=text, language="sqrt")
    unsaid = PolicyHeader(codes=PolicyCodes(code=text))
    assert unsaid.to_header() == '{"codes":{"code":"let a={};"}}'


@pytest.mark.parametrize(
    "policy",
    [
        PolicyHeader(),
        PolicyHeader(codes=None),
        PolicyHeader(codes=""),
        PolicyHeader(codes=PolicyCodes(language="sqrt")),
        PolicyHeader(codes=PolicyCodes(code="permit ( x ) ; // y", language="cedar")),
        PolicyHeader(codes="let a={};"),
    ],
)
def test_a_policy_that_cannot_be_compacted_is_returned_itself(policy: PolicyHeader) -> None:
    assert policy.compacted() is policy


# Places


WRITTEN = st.sampled_from([text for text in POLICIES if "tool" in text])


@settings(max_examples=200, deadline=None)
@given(WRITTEN, st.data())
def test_author_place_maps_each_sent_token_to_its_place_in_the_authors_text(
    text: str, data: st.DataObject
) -> None:
    header = compacted(f"// cellar\n\n{text}")
    sent = compact_sqrt(f"// cellar\n\n{text}")
    for token in tokens(sent)[:-1]:
        at = header.author_place(*position_at(sent, token.start))
        assert at is not None
        line = f"// cellar\n\n{text}".split("\n")[at.line - 1][at.column - 1 :]
        assert line.startswith(token.text.split("\n")[0])
    beyond = data.draw(st.integers(sent.count("\n") + 2, 99) | st.just(0))
    assert header.author_place(beyond, 1) is None


def test_a_line_without_a_column_is_mapped_only_if_the_author_wrote_it_in_one_line() -> None:
    several = PolicyHeader(codes='tool "x" {\n  must deny always;\n}')
    assert several.author_place(1) is None
    assert several.author_place(1, 11) == (2, 3)
    assert PolicyHeader(codes='// c\ntool "x" { must deny always; }').author_place(1) == (2, 1)
    documented = PolicyHeader(codes='// c\n/// why\n\ntool "x" { must deny always; }')
    assert [documented.author_place(line) for line in (1, 2)] == [(2, 1), (4, 1)]


@pytest.mark.parametrize(
    "header",
    [PolicyHeader(), PolicyHeader(codes=""), PolicyHeader(codes=PolicyCodes(code="x", language="cedar"))],
)  # fmt: skip
def test_a_policy_without_sqrt_text_has_no_author_places(header: PolicyHeader) -> None:
    assert header.author_place(1, 1) is None
    assert header.author_text("line 1, column 1") == "line 1, column 1"


MISTAKES = [
    'let a = {"x"};\n\ntool "x" {\n    must deny  when nobody;  // c\n}\n',
    '/// why\n// c\ntool "x" {\n\tmust deny when "a" in a.tags;\n\tmust deny when a.value in {r"("};\n}',
    'tool "x" {}\r\n\r\ntool "y" { must deny when @result.value == 1; }',
]


@pytest.mark.parametrize("text", MISTAKES)
@pytest.mark.parametrize("flat", [False, True])
def test_author_text_turns_an_error_in_the_sent_text_into_one_in_the_authors_text(
    text: str, flat: bool
) -> None:
    with pytest.raises(PolicySyntaxError) as author:
        compile_policy(text)
    with pytest.raises(PolicySyntaxError) as service:
        compile_policy(compact_sqrt(text))
    said = " ".join(str(service.value).split()) if flat else str(service.value)
    assert compacted(text).author_text(said) == str(author.value)


def test_author_text_maps_all_places_in_a_message() -> None:
    policy = PolicyHeader(codes='tool "x" {\n  must deny always;\n  should allow always;\n}')
    said = "one (line 1, column 11); two (line 1, column 28); `line 1`"
    assert policy.author_text(said) == "one (line 2, column 3); two (line 3, column 3); `line 1`"
    assert policy.author_text("line 9, column 1") == "line 9, column 1"
