"""V2 and V3: an unknown condition denies and adds labels; it neither allows nor removes labels."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity import patterns as shared_patterns
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, check, compile_policy, matchers
from tests.sqrt.calls import decide, given, labels, truth

DOUBTS: list[tuple[str, str, dict[str, Argument]]] = [
    ("a regex that matches only a part", 'a.value in {str matching r"b"}', {"a": given("abc")}),
    ("a regex that matches only the beginning", 'a.value in {r"ab"}', {"a": given("abc")}),
    ("a regex that matches but for a line break at the end", 'a.value in {r"^ab$"}', {"a": given("ab\n")}),
    ("a doubled backslash in a regex", 'a.value in {r"a\\\\.c"}', {"a": given("a.c")}),
    ("a regex that compiles only in one reading", 'a.value in {r"a\\\\(c)"}', {"a": given("x")}),
    ("1 and 1.0", "a.value == 1", {"a": given(1.0)}),
    ("1.0 and 1", "a.value == 1.0", {"a": given(1)}),
    ("1 and true", "a.value == 1", {"a": given(True)}),
    ("true and 1", "a.value == true", {"a": given(1)}),
    ("false and 0.0", "a.value == false", {"a": given(0.0)}),
    ("true and a text", "a.value == true", {"a": given("True")}),
    ("a boolean domain and 1", "a.value in {bool true}", {"a": given(1)}),
    ("an integer domain and a float", "a.value in {int 1..9}", {"a": given(2.0)}),
    ("an integer domain and a fraction", "a.value in {int 1..9}", {"a": given(2.5)}),
    ("a float domain and an integer", "a.value in {float 1.0..9.0}", {"a": given(2)}),
    ("a boolean domain and a word", "a.value in {bool true}", {"a": given(" Yes ")}),
    ("an integer domain and a text", "a.value in {int 1..9}", {"a": given("2")}),
    ("an integer domain and true", "a.value in {int 1..9}", {"a": given(True)}),
    ("a text and a number", 'a.value == "2"', {"a": given(2)}),
    ("a set of texts and a number", 'a.value in {"x", "2"}', {"a": given(2)}),
    ("a text domain and a number", 'a.value in {str like w"2*"}', {"a": given(25)}),
    ("a number that nobody writes out", 'a.value in {str matching r"x"}', {"a": given(10**5000)}),
    ("two values that are only loosely equal", "a.value == b.value", {"a": given(1), "b": given(True)}),
    ("two lists that are only loosely equal", "a.value == b.value", {"a": given([1]), "b": given([1.0])}),
    ("an escaped quote", 'a.value == "x\\"y"', {"a": given('x"y')}),
    ("an escape for a line break", 'a.value == "x\\ny"', {"a": given("x\ny")}),
    ("an escape that may be none", 'a.value == "x\\dy"', {"a": given("xdy")}),
    ("a backslash in a set", 'a.value in {"x\\\\y"}', {"a": given("x\\y")}),
    ("a backslash in a literal", '"x\\"y" in a.tags', {"a": given(tags={'x"y'})}),
    ("a wildcard over a line break", 'a.value in {w"*@x"}', {"a": given("a\n@x")}),
    ("a wildcard over a separator of lines", 'a.value in {str like w"?@x"}', {"a": given("\u2028@x")}),
    ("a wildcard before the last line break", 'a.value in {w"*@x"}', {"a": given("a@x\r\n")}),
    ("a bracket in a wildcard", 'a.value in {w"[ab]*"}', {"a": given("ac")}),
    ("a backslash in a wildcard", 'a.value in {w"a\\*"}', {"a": given("a*")}),
    ("a time without zone near one with a zone", 'a.value == d"2027-01-01T00:00:00Z"', {"a": given("2027-01-01T05:00:00")}),
    ("a time of the first zone of a day", 'a.value == d"2027-01-01T00:00:00Z"', {"a": given("2027-01-01T14:00:00")}),
    ("a bound without zone", 'a.value in {datetime d"2027-01-01"..}', {"a": given("2027-01-01T05:00:00Z")}),
    ("a text that is no time", 'a.value in {datetime d"2027-01-01"..}', {"a": given("next week")}),
    ("seconds where texts are usual", "a.value in {datetime 5}", {"a": given(5)}),
    ("milliseconds where texts are usual", "a.value in {datetime 5}", {"a": given(5_000)}),
    ("seconds in a text", "a.value in {datetime 5}", {"a": given("5")}),
    ("a date or seconds", 'a.value in {datetime d"2027-01-01"}', {"a": given("20270101")}),
    ("a length in characters or bytes", 'a.value in {str matching r"(?s).*" length ..3}', {"a": given("äöü")}),
    ("an argument that was left out", "a.value == 1", {}),
    ("labels of an argument that was left out", "a.tags is empty", {}),
    ("an argument that was left out in a set", 'a.value in {"x"}', {}),
    ("a list", 'a.value in {"x"}', {"a": given(["x"])}),
    ("an object", 'a.value == "x"', {"a": given({"x": "x"})}),
    ("a list in a domain", 'a.value in {str matching r"(?s).*"}', {"a": given([])}),
    ("the value of the session", 'not @session.value == "x"', {"a": given()}),
    ("the short form in a check", "@tags is empty", {}),
    ("labels against a pattern", 'a.tags overlaps {w"x*"}', {"a": given(tags={"xy"})}),
    ("labels equal to a pattern", 'a.tags == {w"x*"}', {"a": given(tags={"xy"})}),
    ("a difference with a pattern", 'a.value in {"xy"} - {w"x*"}', {"a": given("xy")}),
    ("an intersection with a pattern", 'a.value in {w"x*"} & {"xy"}', {"a": given("xy")}),
    ("a symmetric difference with a pattern", 'a.value in {w"x*"} ^ {"xy"}', {"a": given("xy")}),
    ("everyone as an element", 'a.value in {"*"}', {"a": given("anna")}),
    ("a number among labels", "a.value in b.tags", {"a": given(5), "b": given(tags={"5"})}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("predicate", "arguments"), [d[1:] for d in DOUBTS], ids=[d[0] for d in DOUBTS]
)
def test_a_condition_on_which_readings_differ_denies_and_does_not_allow(
    predicate: str, arguments: dict[str, Argument]
) -> None:
    assert truth(predicate, None, **arguments) is None
    assert truth(f"not ({predicate})", None, **arguments) is None
    for rule in ("must deny", "must allow", "should deny"):
        verdict = decide(f'tool "lend" {{ {rule} when {predicate}; }}', **_any(arguments))
        assert (verdict.allowed, verdict.certain) == (False, False)
        assert not verdict.reasons[0].certain
    soft = decide(
        f'tool "lend" {{ should allow when {predicate}; should deny always; }}', **_any(arguments)
    )
    assert (soft.allowed, soft.certain) == (False, False)


def _any(arguments: dict[str, Argument]) -> dict[str, Any]:
    return dict(arguments)


def test_the_short_form_in_a_check_is_in_doubt_whatever_runs_before_the_check() -> None:
    for update in ("", 'session before { a.tags |= {"y"}; }'):
        verdict = decide(f'tool "lend" {{ {update} must deny when "x" in @tags; }}', a=given())
        assert (verdict.allowed, verdict.certain) == (False, False)


@pytest.mark.parametrize(
    ("predicate", "arguments", "known"),
    [
        ("a.value == 1", {"a": given(2.0)}, False),
        ("a.value == 1", {"a": given(None)}, False),
        ("a.value == 1", {"a": given("two")}, False),
        ("a.value in {int 1..9}", {"a": given("two")}, False),
        ("a.value in {int 1..9}", {"a": given(99.5)}, False),
        ('a.value == "x"', {"a": given(None)}, False),
        ('a.value == "x\\"y"', {"a": given("z")}, False),
        ('a.value in {str matching r"x"}', {"a": given("abc")}, False),
        ('a.value in {str matching r"(?s).*x.*"}', {"a": given("abxc")}, True),
        ('a.value in {datetime d"2027-01-01"..}', {"a": given("2029-01-01T00:00:00Z")}, True),
        ('a.value in {datetime d"2027-01-01"..}', {"a": given("2027-01-02")}, True),
        ('a.value in {datetime d"2027-01-01"..}', {"a": given(None)}, False),
        ('a.value in {datetime d"2027-01-01"..}', {"a": given(True)}, False),
        ('a.value in {str matching r"(?s).*" length ..9}', {"a": given("äöü")}, True),
        ("a.value == b.value", {"a": given([1, {"x": 2}]), "b": given([1, {"x": 2}])}, True),
        ("a.value == b.value", {"a": given([1]), "b": given([2])}, False),
        ("a.value == b.value", {"a": given([1]), "b": given([1, 1])}, False),
        ("a.value == b.value", {"a": given({"x": 1}), "b": given({"y": 1})}, False),
        ("a.value == b.value", {"a": given({"x": 1, "y": 2}), "b": given({"y": 2, "x": 1})}, True),
        ("a.value == b.value", {"a": given([1]), "b": given("x")}, False),
        ('a.tags overlaps {w"x*"}', {"a": given(tags={"y"})}, False),
        ('a.tags subset of {w"x*"}', {"a": given(tags={"y"})}, False),
        ('a.value in {"xy"} | {w"x*"}', {"a": given("xy")}, True),
        ('a.value in {"xy"} - {w"y*"}', {"a": given("xy")}, True),
        ('a.value in {"xy"} & {w"y*"}', {"a": given("xy")}, False),
        ('a.value in {"xy"} ^ {w"y*"}', {"a": given("xy")}, True),
        ('a.value in {w"y*"} ^ {"xy"}', {"a": given("xy")}, True),
        ('"a" == "a"', {}, True),
        ("1 == 1.0", {}, None),
        ('d"2027-01-01" == "2027-01-01T00:00:00"', {}, True),
        ('"2027-01-02" == d"2027-01-01"', {}, False),
        ("4 in {int 1..5}", {}, True),
    ],
)
def test_a_condition_on_which_all_readings_agree_is_certain(
    predicate: str, arguments: dict[str, Argument], known: bool | None
) -> None:
    assert truth(predicate, None, **arguments) is known


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("who and no", False), ("no and who", False), ("who and yes", None), ("who or yes", True),
        ("who or no", None), ("not who", None), ("not (who and no)", True), ("who or who", None),
    ],
)  # fmt: skip
def test_and_or_and_not_follow_kleenes_three_valued_logic(
    predicate: str, expected: bool | None
) -> None:
    lets = 'let yes = "x" in a.tags; let no = "y" in a.tags; let who = "x" in gone.tags;'
    engine = compile_policy(f'{lets} tool "lend" {{ must deny when {predicate}; }}')
    verdict = engine.decide(Call("lend", {"a": given(tags={"x"})}), Labels())
    assert (verdict.allowed, verdict.certain) == (expected is False, expected is not None)


def test_args_of_a_call_without_arguments_have_the_labels_of_an_unlabelled_value() -> None:
    for kind in ("", ".union", ".intersect"):
        assert truth(f"@args.tags{kind} is empty") is True
        assert truth(f"@args.producers{kind} is empty") is True
        assert truth(f"@args.consumers{kind} is universal") is True


# Updates


def after(policy: str, result: Argument, session: Labels | None = None, **arguments: Any) -> Labels:
    call = Call("lend", arguments)
    return compile_policy(policy).after(call, result, session or Labels())[0]


START = labels(tags={"a"}, producers={"p"}, consumers={"c", "d"})
UNKNOWN_STEP = 'tool "lend" {{ result {{ when "x" in gone.tags {{ {update} }} }} }}'
NON_EXECUTABLE = frozenset({"__non_executable"})


@pytest.mark.parametrize(
    ("update", "tags", "consumers"),
    [
        ('@tags |= {"b"};', "ab", "cd"),
        ('@tags = {"b"};', "ab", "cd"),
        ('@tags -= {"a"};', "a", "cd"),
        ("@tags = {};", "a", "cd"),
        ('@tags &= {"b"};', "a", "cd"),
        ('@tags ^= {"a", "b"};', "ab", "cd"),
        ('@consumers = {"d", "e"};', "a", "d"),
        ('@consumers |= {"e"};', "a", "cd"),
        ('@consumers = {"*"};', "a", "cd"),
        ('@consumers -= {"c"};', "a", "d"),
        ('@consumers &= {"c"};', "a", "c"),
        ('@tags = {"b"}; @tags -= {"b"};', "ab", "cd"),
    ],
)
def test_an_update_in_doubt_adds_labels_and_removes_none(
    update: str, tags: str, consumers: str
) -> None:
    found = after(UNKNOWN_STEP.format(update=update), Argument("", START))
    assert found.tags - NON_EXECUTABLE == frozenset(tags)
    assert found.consumers == frozenset(consumers)


FIELDS = st.sampled_from(["tags", "producers", "consumers"])
NAMES = st.sets(st.sampled_from("abc*"), max_size=3)


@settings(max_examples=400, derandomize=True)
@generated(FIELDS, st.sampled_from(["=", "|=", "&=", "-=", "^="]), NAMES, NAMES)
def test_an_update_in_doubt_is_no_weaker_than_either_reading(
    field: str, operator: str, old: set[str], given_names: set[str]
) -> None:
    start = Argument("", labels(**{field: old}))
    names = ", ".join(f'"{name}"' for name in sorted(given_names))
    update = f"@{field} {operator} {{{names}}};"
    doubtful = getattr(after(UNKNOWN_STEP.format(update=update), start), field)
    certain = getattr(after(f'tool "lend" {{ result {{ {update} }} }}', start), field)
    before = getattr(start.labels, field)
    for reading in (before, certain):
        if field == "consumers":
            assert "*" in reading or doubtful <= reading
        elif "*" not in doubtful:
            assert reading <= doubtful


@pytest.mark.parametrize("condition", ['"a" in @tags', 'not "a" in @tags'])
def test_a_one_liner_whose_condition_uses_the_short_form_is_in_doubt(condition: str) -> None:
    adding = after(f'tool "lend" -> @tags |= {{"b"}} when {condition};', Argument("", START))
    assert adding.tags - NON_EXECUTABLE == {"a", "b"}
    removing = after(f'tool "lend" -> @tags -= {{"a"}} when {condition};', Argument("", START))
    assert removing.tags - NON_EXECUTABLE == {"a"}


def test_an_update_is_in_doubt_if_its_tool_regex_is_in_doubt() -> None:
    found = after('tool r"len" -> @tags = {"b"};', Argument("", START))
    assert found.tags - NON_EXECUTABLE == {"a", "b"}


def test_labels_of_a_missing_argument_change_no_tags_and_add_no_consumers() -> None:
    for update in ("@tags = gone.tags", "@tags -= gone.tags", "@tags |= gone.tags"):
        found = after(f'tool "lend" {{ result {{ {update}; }} }}', Argument("", START))
        assert found.tags - NON_EXECUTABLE == {"a"}
    for update, left in [("=", "cd"), ("|=", "cd"), ("&=", "cd"), ("-=", ""), ("^=", "")]:
        policy = f'tool "lend" {{ result {{ @consumers {update} gone.consumers; }} }}'
        assert after(policy, Argument("", START)).consumers == frozenset(left)


def test_the_known_part_of_a_set_is_added_if_another_part_is_a_missing_argument() -> None:
    policy = 'let s = gone.tags | {"b"}; tool "lend" -> @tags |= s;'
    assert after(policy, Argument("", START)).tags - NON_EXECUTABLE == {"a", "b"}


def test_an_update_that_the_service_may_ignore_adds_labels_but_removes_none() -> None:
    engine = compile_policy("""
        tool "lend" {
            session after { @result.tags -= {"a"}; @result.tags |= {"b"}; }
            result { @session.tags -= {"s"}; @session.tags |= {"t"}; }
        }
    """)
    result, session = engine.after(Call("lend", {}), Argument("", START), labels(tags={"s"}))
    assert result.tags - NON_EXECUTABLE == {"a", "b"}
    assert session.tags == {"s", "t"}


def test_argument_labels_added_before_a_call_count_in_checks_but_removals_do_not() -> None:
    policy = """
        tool "lend" {
            session before { item.tags |= {"seen"}; item.tags -= {"glass"}; }
            must deny when item.tags overlaps {%s};
        }
    """
    for tag in ("seen", "glass"):
        assert not decide(policy % f'"{tag}"', item=given(tags={"glass"})).allowed
    assert decide(policy % '"other"', item=given(tags={"glass"})).allowed


# Regexes take bounded time

BOMBS = [
    r"(a+)+$",
    r"(a|aa)+$",
    r"(a*)*b",
    r"^(a|a?)+$",
    r"([a-zA-Z]+)*!",
    r"(.*a){20}$",
    r"(?:a?){60}a{60}b",
    r"(x+x+)+y",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
]


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_call_that_only_a_hostile_regex_could_allow_is_denied_within_2_s(bomb: str) -> None:
    start = time.process_time()
    verdict = decide(
        f'tool "lend" {{ must allow when a.value in {{r"{bomb}"}}; }}', a=given("a" * 5_000 + "\n!")
    )
    assert time.process_time() - start < 2
    assert not verdict.allowed


def test_a_regex_that_exceeds_its_time_is_unknown() -> None:
    assert truth('a.value in {r"(a|aa)+$"}', None, a=given("a" * 5_000 + "!")) is None


def test_many_hostile_regexes_share_the_time_limit_of_a_call() -> None:
    regexes = ", ".join(f'r"(a|aa)+{n}$"' for n in range(200))
    rules = f'tool "lend" {{ must deny when a.value in {{{regexes}}}; }}'
    start = time.process_time()
    assert not decide(rules, a=given("a" * 5_000 + "!")).allowed
    assert time.process_time() - start < 2


def test_many_wildcards_share_the_time_limit_of_a_call() -> None:
    wild = ", ".join(f'w"{"*a?" * 12}{n}b*"' for n in range(700))
    engine = compile_policy(f'tool "lend" {{ must deny when a.value in {{{wild}}}; }}')
    start = time.process_time()
    assert not engine.decide(Call("lend", {"a": given("a" * 1_000_000)}), Labels()).allowed
    assert time.process_time() - start < 2


ELEMENTS = {
    "a short wildcard": 'w"*{n}"',
    "a wildcard that fits": 'w"*"',
    "a wildcard with a length": 'str like w"*{n}" length 1..{n}000000',
    "a regex": 'r"{n}$"',
    "a regex with a length": 'str matching r"{n}" length 1..{n}000000',
    "a text with backslashes": '"{n}\\\\."',
    "whole numbers": "int 1..{n}",
    "fractions": "float 0.5..{n}.5",
    "a flag": "bool true",
    "times": 'datetime d"2027-01-01"..d"2027-01-{day}"',
}
LONG_TEXTS = {
    "letters": "a" * 1_000_000,
    "lines": "a\n" * 500_000,
    "a line break at the end": "a" * 1_000_000 + "\r\n",
    "accents": "e\u0301" * 500_000,
    "digits": "1" * 1_000_000,
    "spaces": " " * 1_000_000,
}


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
@pytest.mark.parametrize("element", ELEMENTS.values(), ids=ELEMENTS)
def test_a_policy_full_of_any_element_reads_a_long_text_in_bounded_time(
    element: str, text: str
) -> None:
    elements = (element.format(n=n, day=f"{1 + n % 28:02}") for n in range(1, 400))
    rules = "".join(f"must deny when a.value in {{{written}}};\n" for written in elements)
    engine = compile_policy(f'tool "lend" {{ {rules} }}')
    call = Call("lend", {"a": given(text)})
    engine.decide(Call("lend", {"a": given("")}), Labels())  # what is done once for a policy
    start = time.process_time()
    engine.decide(call, Labels())
    assert time.process_time() - start < 2


def test_many_labels_are_compared_with_numbers_in_bounded_time() -> None:
    rules = "".join(f"must deny when {n} in a.tags;\n" for n in range(400))
    engine = compile_policy(f'tool "lend" {{ {rules} }}')
    tags = frozenset(map(str, range(60_000)))
    start = time.process_time()
    verdict = engine.decide(Call("lend", {"a": given("x", tags=tags)}), Labels())
    assert time.process_time() - start < 2
    assert not verdict.allowed


def test_a_hostile_regex_for_tools_takes_bounded_time_and_denies() -> None:
    engine = compile_policy('tool r"(a|aa)+$" { must deny always; }' * 50)
    start = time.process_time()
    verdict = engine.decide(Call("a" * 5_000 + "!", {}), Labels())
    assert time.process_time() - start < 2
    assert (verdict.allowed, verdict.certain) == (False, False)


@pytest.mark.parametrize(
    "raw",
    [
        "(?:" * 200 + "a" + "){99}" * 200,
        "(((a{1000}){1000}){1000}){1000}",
        "a{99999999}",
        "(?<=a{0,5000})b",
        "|".join("a" * n for n in range(40)),
        "(a)" * 300,
        "[" + "a-z" * 300 + "]",
        "(?i)" + "ß" * 900,
        "(?R)",
        "(?P<x>a)(?P=x)" * 60,
    ],
    ids=lambda raw: raw[:20],
)
def test_compiling_a_hostile_regex_takes_bounded_time(raw: str) -> None:
    start = time.process_time()
    check(f'tool "lend" {{ must deny when a.value in {{r"{raw}"}}; }}')
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "raw",
    ["a{99999999}", "a{,99999999}", "a{5,99999999}", "((a{100}){100}){100}", f"a{{{'9' * 500}}}",
     "(?x)( #)\n a{1000}){1000}", "[)]{1000}(b{1000}[(]){1000}"],
)  # fmt: skip
def test_a_regex_whose_repeats_would_use_too_much_memory_is_an_error(raw: str) -> None:
    (finding,) = [one for one in check(f'let s = {{r"{raw}"}};') if one.severity == "error"]
    assert "its repeats expand to more than" in finding.message


def test_regexes_that_use_too_much_memory_together_are_an_error() -> None:
    regexes = ", ".join(f'r"a{{10000}}{n}"' for n in range(2_000))
    (finding, *_) = check(f"let s = {{{regexes}}};")
    assert "the regexes of a policy have more than" in finding.message


@pytest.mark.parametrize("raw", ["(?:lend){e<=2}", "a{}", "a{x}", "[[:alpha:]]", "[^b[:alpha:]]"])
def test_regex_syntax_that_only_the_package_regex_knows_is_an_error(raw: str) -> None:
    (finding,) = check(f'let s = {{r"{raw}"}};')
    assert finding.severity == "error"
    assert "a literal brace" in finding.message


def test_without_the_package_regex_every_regex_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_patterns, "_regex", lambda: None)
    policy = 'tool "lend" { must deny when a.value in {r"^x$"}; }'
    verdict = decide(policy, a=given("y"))
    assert (verdict.allowed, verdict.certain) == (False, False)
    (finding,) = check(policy)
    assert "Without the package `regex`" in finding.message
    assert 'pip install "langchain-sequrity[local]"' in finding.hint
    assert decide('tool "lend" { must deny when a.value in {w"x*"}; }', a=given("y")).allowed


# Wildcards against an oracle


def _glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_glob(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and _glob(pattern[1:], text[1:])


@settings(max_examples=500, derandomize=True)
@generated(st.text("ab*?.$", max_size=6), st.text("ab\n.$", max_size=6))
def test_wildcards_match_whole_texts(pattern: str, text: str) -> None:
    found = matchers.wildcard_test(pattern)(text, matchers.MatchBudget())
    if "\n" in text:  # whether `*` and `?` match it is unknown
        may_match = _glob(pattern, text) or _glob(pattern, text.removesuffix("\n"))
        assert found is (None if may_match else False)
    else:
        assert found is _glob(pattern, text)


def test_a_text_that_is_too_long_for_a_wildcard_is_unknown() -> None:
    test = matchers.wildcard_test("*" + "?a" * 49)
    assert test("a" * 50_000, matchers.MatchBudget()) is True
    assert test("a" * 60_000, matchers.MatchBudget()) is None


# Hostile values


def _web(depth: int) -> Any:
    value: Any = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "make", [lambda: _web(200), lambda: _deep(200_000), lambda: [0] * 1_000_000]
)
def test_comparing_hostile_values_takes_bounded_time(make: Callable[[], Any]) -> None:
    start = time.process_time()
    assert truth("a.value == b.value", None, a=given(make()), b=given(make())) is None
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "value", [(1,), {1}, b"x", object()], ids=lambda value: type(value).__name__
)
def test_a_value_that_is_not_json_is_unknown(value: Any) -> None:
    for condition in ("a.value == 1", "a.value in named", 'a.value in {"x"}'):
        policy = f'let named = {{"x", int 1}}; tool "lend" {{ must deny when {condition}; }}'
        assert not decide(policy, a=given(value)).allowed


def _deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [_deep(sys.getrecursionlimit() * 5), 10**5_000, float("nan"), float("inf"), -(10**400), "\ud800",
     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "x" * 1_000_000, "1e999", "nan"],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize(
    "condition",
    ["a.value == 1", 'a.value == "x"', "a.value == b.value", 'a.value in {"x", 1, r"^x+$", w"?*x"}',
     "a.value in {int 1..2, float 0.5..1.5, bool true}", 'a.value in {datetime d"2027-01-01"..}',
     'a.value in {str matching r"x" length 1..5}', "a.value in b.tags", "a.value in named"],
)  # fmt: skip
def test_no_value_makes_a_decision_raise(value: Any, condition: str) -> None:
    policy = f'let named = {{"x", int 5}}; tool "lend" {{ must deny when {condition}; }}'
    b = Argument(value, labels(tags={"x"}))
    assert isinstance(decide(policy, a=given(value), b=b).allowed, bool)
