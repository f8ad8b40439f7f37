import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequrity.sqrt import parse  # type: ignore[import-untyped]

from langchain_sequrity.headers import PolicyCodes, PolicyHeader, compact_sqrt

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


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_comments_and_white_space_anywhere_change_nothing(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([text for text in POLICIES if len(text) < 100]))
    gap = st.sampled_from([" ", "\n", "\t \r\n", "/* x */", "/**/", "// y\n", "//\n", "/*/ */"])
    # Spaces outside strings and comments stand where any gap may stand.
    pieces = re.split(r'([rwd]?"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/)', text, flags=re.DOTALL)
    noisy = "".join(
        piece if index % 2 else re.sub(" ", lambda _: data.draw(gap), piece)
        for index, piece in enumerate(pieces)
    )
    assert parse(noisy).tree == parse(compact_sqrt(noisy)).tree == parse(text).tree


@given(st.text(st.sampled_from('ab1"\\/*\n\r {};=|-<.>@r')) | st.sampled_from(POLICIES))
def test_compacting_is_stable_and_never_longer(text: str) -> None:
    compact = compact_sqrt(text)
    assert compact_sqrt(compact) == compact
    assert len(compact) <= len(text) + 1  # a doc comment at the very end gets its line end


@settings(deadline=None)
@given(st.text(st.sampled_from('ab"\\/*\n {};=|let'), max_size=12))
def test_text_that_is_no_policy_does_not_become_one(text: str) -> None:
    assert parse(compact_sqrt(text)).valid == parse(text).valid


@pytest.mark.parametrize("text", SAME)
def test_text_in_doubt_stays_as_it_is(text: str) -> None:
    assert compact_sqrt(text) == text


def test_remarks_and_indentation_go_and_doc_comments_stay() -> None:
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


def test_a_policy_is_sent_compact_and_kept_as_written() -> None:
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
def test_where_nothing_can_go_the_policy_is_itself(policy: PolicyHeader) -> None:
    assert policy.compacted() is policy
