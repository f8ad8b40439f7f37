"""Rules that allow what they seem to deny: `check` warns of each, with what to write instead."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import (
    Call,
    Finding,
    check,
    compile_policy,
    explain,
    highlight,
    printed,
    simulate,
)
from langchain_sequrity.sqrt.formatter import format_policy
from tests.sqrt.calls import BROUGHT, decide, given

PAY = {
    "name": "pay",
    "parameters": {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "count": {"type": "integer"},
            "text": {"type": "string"},
            "currency": {"enum": ["EUR", "USD"]},
            "level": {"type": "integer", "enum": [1, 2, 3]},
            "speed": {"const": "fast"},
        },
        "required": ["to", "count", "text", "currency", "level", "speed"],
    },
}


def let_through(text: Any, tools: Any = None) -> list[str]:
    """Messages about rules that protect less than they seem to."""
    found = check(text, tools, labels=BROUGHT)
    assert {one.severity for one in found if one.lets_through} <= {"warning"}
    return [one.message for one in found if one.lets_through]


def deny(condition: str) -> str:
    return f'tool "pay" {{ must deny when {condition}; }}'


# Allow rules without effect, because the default allows everything

LONE = "This rule restricts nothing: where its condition fails, the call is allowed by default"
ALLOW = 'should allow when to.value in {"ana"};'


@pytest.mark.parametrize(
    "text",
    [
        f'tool "pay" {{ {ALLOW} }}',
        f'tool "pay" {{ {ALLOW} must deny when to.value == "eve"; }}',
        f'tool "pay" {{ {ALLOW} }} tool "lend" {{ should deny always; }}',
        f'tool r"^pay$" {{ {ALLOW} }} tool r"^lend$" {{ must deny always; }}',
    ],
)
def test_allow_rules_that_restrict_nothing_get_a_warning(text: str) -> None:
    assert LONE in let_through(text)
    assert decide(text, tool="pay", to=given("mallory")).allowed


@pytest.mark.parametrize(
    "text",
    [
        f'tool "pay" {{ {ALLOW} should deny always; }}',
        f'tool "pay" {{ {ALLOW} }} tool r"^.*$" {{ should deny always; }}',
        f'tool "pay" {{ {ALLOW} must allow when to.value == "bo"; }}',
        'tool "pay" { should allow always; must deny when to.value == "eve"; }',
    ],
)
def test_allow_rules_get_no_warning_if_other_calls_are_denied(text: str) -> None:
    assert LONE not in let_through(text)


def test_allow_rules_get_no_warning_if_the_default_denies() -> None:
    policy = PolicyHeader.from_sqrt(f'tool "pay" {{ {ALLOW} }}', default_allow=False)
    assert let_through(policy) == []


# Two blocks for the same calls, in all combinations

RULES = ["should deny", "must deny", "must allow", "should allow"]
OTHERS = ['tool "pay"', 'tool r"^.*$"', 'tool r"^pay$"', 'tool "lend"', 'tool r"^lend.*$"']


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("allowance", ["should allow always", "must allow always"])
@pytest.mark.parametrize("priority", ["", "priority 5; "])
@pytest.mark.parametrize("tools", [None, [PAY, "lend"]], ids=["unknown", "known"])
def test_a_rule_gets_a_warning_exactly_if_another_block_overrules_it(
    rule: str, other: str, allowance: str, priority: str, tools: Any
) -> None:
    text = f'tool "pay" {{ {rule} when to.value == "eve"; }} {other} {{ {priority}{allowance}; }}'
    told = any("is for the same calls and allows them" in one for one in let_through(text, tools))
    allowed = {to: decide(text, tool="pay", to=given(to)).allowed for to in ("eve", "ana")}
    alone = f'tool "pay" {{ {rule} when to.value == "eve"; }}'
    before = {to: decide(alone, tool="pay", to=given(to)).allowed for to in ("eve", "ana")}
    restricted, restricts = not all(before.values()), not all(allowed.values())
    assert told == (restricted and not restricts)


# Rules in comments

BEFORE = ["", "no strangers: ", "no strangers, so we say that "]
SWALLOWED = [
    'must deny when to.value == "eve";', "should deny always;", "hard  deny when p;",
    "soft allow when p and q;", "must allow when not p;",
]  # fmt: skip


@pytest.mark.parametrize("prose", ["Clerks must deny when unsure.", "It should deny always", "x"])
def test_a_sentence_in_a_doc_comment_gets_no_warning(prose: str) -> None:
    text = f'tool "pay" {{\n  /// {prose}\n  must deny when to.value == "eve";\n}}'
    assert let_through(text) == []


@pytest.mark.parametrize("prose", BEFORE)
@pytest.mark.parametrize("rule", SWALLOWED)
def test_a_rule_in_a_doc_comment_gets_a_warning(prose: str, rule: str) -> None:
    for text in (
        f'tool "pay" {{\n  /// {prose}{rule}\n  should allow always;\n}}',
        f'/// {prose}{rule}\ntool "pay" {{ should allow always; }}',
        f'tool "pay" {{\n  /// {prose}{rule}\n  session after {{ @tags |= {{"paid"}}; }}\n}}',
        f'tool "pay" {{ result {{\n  /// {prose}{rule}\n  @tags |= {{"paid"}};\n}} }}',
        f'/// {prose}{rule}\nlet p = {{"x"}};\ntool "pay" {{ must deny when to.value in p; }}',
    ):
        [message] = let_through(text)
        assert message.endswith("is in a doc comment, so it is not a rule")
        assert " ".join(rule.split()) in message


@pytest.mark.parametrize(
    "doc", ["they must deny it when asked", "nothing must be denied", "should we allow this?"]
)
def test_prose_that_resembles_a_rule_in_a_doc_comment_gets_no_warning(doc: str) -> None:
    assert let_through(f'tool "pay" {{\n  /// {doc}\n  must deny always;\n}}') == []


# Invisible characters and look-alikes

ODD = [
    ("eve ", "has white space at an end"), ("\teve", "has white space at an end"),
    ("e\u200bve", "has the invisible character U+200B"),
    ("eve\u00ad", "has the invisible character U+00AD"),
    ("e\u00a0ve", "has the invisible character U+00A0"),
    ("\ufeffeve", "has the invisible character U+FEFF"),
    ("\u202eeve", "has the invisible character U+202E"),
    ("\u0435ve", "has the Cyrillic letter `\u0435` in a Latin word"),
    ("ev\u0435@evil.example", "has the Cyrillic letter `\u0435` in a Latin word"),
    ("\u03bfslo", "has the Greek letter `\u03bf` in a Latin word"),
]  # fmt: skip
PLACES: list[Callable[[str], str]] = [
    lambda raw: f'tool "{raw}" {{ must deny always; }}',
    lambda raw: deny(f'to.value == "{raw}"'),
    lambda raw: deny(f'not to.value in {{"ana", "{raw}"}}'),
    lambda raw: deny(f'to.value in {{str "{raw}"}}'),
    lambda raw: deny(f'"{raw}" in to.tags'),
    lambda raw: deny(f'@session.tags overlaps {{"{raw}"}}'),
    lambda raw: f'tool "read" -> @tags |= {{"{raw}"}};',
    lambda raw: f'let bad = {{"{raw}"}}; ' + deny("to.value in bad or text.value in bad"),
]


@pytest.mark.parametrize(("raw", "what"), ODD)
@pytest.mark.parametrize("place", PLACES)
def test_a_text_with_invisible_or_look_alike_characters_gets_a_warning(
    raw: str, what: str, place: Callable[[str], str]
) -> None:
    (message,) = [one for one in let_through(place(raw)) if "letter by letter" in one]
    assert what in message


@pytest.mark.parametrize(
    "raw",
    ["eve", "Новости", "Ελλάδα", "naïve café", "Москва und Oslo", "東京 Tokyo", " ", "a b"],
)
@pytest.mark.parametrize("place", PLACES)
def test_texts_in_other_languages_get_no_look_alike_warning(
    raw: str, place: Callable[[str], str]
) -> None:
    assert not [one for one in let_through(place(raw)) if "letter by letter" in one]


@pytest.mark.parametrize("name", [raw for raw, _ in ODD])
def test_a_tool_may_have_an_odd_name(name: str) -> None:
    text = f'tool "{name}" {{ must deny always; }}'
    assert not [one for one in check(text, [name]) if "letter by letter" in one.message]
    assert "letter by letter" in " ".join(one.message for one in check(text))


# Several texts in one pair of quotes, and ends of addresses

SEVERAL = [
    ("ana@bank.example, bo@bank.example", '"ana@bank.example", "bo@bank.example"'),
    ("ana@bank.example;bo@bank.example", '"ana@bank.example", "bo@bank.example"'),
    ("ana|bo", '"ana", "bo"'),
    ("EUR|USD|GBP", '"EUR", "USD", "GBP"'),
]


@pytest.mark.parametrize(("raw", "listed"), SEVERAL)
def test_alternatives_in_one_text_get_a_warning(raw: str, listed: str) -> None:
    (finding,) = check(deny(f'to.value in {{"{raw}"}}'))
    assert finding.message == f"`{raw}` is one text, not {raw.count('@') or raw.count('|') + 1}"
    assert finding.hint == f"Write `{listed}`"
    assert finding.lets_through
    (allowance,) = check(deny(f'not to.value in {{"{raw}"}}'))
    assert not allowance.lets_through  # it denies more than intended
    assert check(deny(f"to.value in {{{listed}}}")) == []


@pytest.mark.parametrize("raw", ["Oslo, Norway", "a | b", "ana@bank.example", "x|", "5,5"])
def test_other_texts_with_separators_get_no_warning(raw: str) -> None:
    assert let_through(deny(f'to.value in {{"{raw}"}}')) == []


def test_the_end_of_an_address_gets_a_warning_with_a_pattern() -> None:
    (finding,) = check(deny('to.value in {"@evil.example"}'))
    assert (finding.hint, finding.lets_through) == ('Write `w"*@evil.example"`', True)
    (finding,) = check(deny('not to.value in {"@bank.example"}'))
    assert finding.hint == 'Write `str matching r"^[A-Za-z0-9._+-]+@bank[.]example$"`'
    assert check(deny('to.value == "@ana"')) == []


# Values that are compared with names of labels

SETS = 'tool "read" -> @tags |= {"private"}; tool "fetch" { session after { @producers |= {"web"}; } } '


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ('text.value == "private"', 'Write `text.tags overlaps {"private"}`'),
        ('"private" == text.value', 'Write `text.tags overlaps {"private"}`'),
        ('text.value in {"x", "private"}', 'Write `text.tags overlaps {"private"}`'),
        (
            'to.value == "x" and text.value in {str "web"}',
            'Write `text.producers overlaps {"web"}`',
        ),
    ],
)
def test_comparing_a_value_with_a_label_gets_a_warning(condition: str, hint: str) -> None:
    (finding,) = [one for one in check(SETS + deny(condition)) if one.lets_through]
    assert "that this policy sets, but this rule compares the value of `text`" in finding.message
    assert finding.hint == hint


@pytest.mark.parametrize(
    "text",
    [
        SETS + deny('not text.value in {"private"}'),
        'tool "read" -> @consumers = {"ana"}; ' + deny('to.value in {"ana"}'),
        SETS + deny('text.tags overlaps {"private"}'),
    ],
)
def test_consumers_and_allowed_values_get_no_such_warning(text: str) -> None:
    assert let_through(text) == []


# Conditions that are never or always true

IDLE = [
    # a condition; whether it is always true (otherwise it is never true)
    ('to.value == "a" and to.value == "b"', False),
    ('to.value == "a" and not to.value in {"a", "b"}', False),
    ('to.value in {"a", "b"} - {"a", "b"}', False),
    ("to.value in {}", False),
    ("to.tags overlaps {}", False),
    ('"x" in to.tags and to.tags is empty', False),
    ('to.tags == {"x"} and "y" in to.tags', False),
    ('"x" in @session.tags and not @session.tags overlaps {"x", "y"}', False),
    ("count.value in {int 1..3} and count.value in {int 5..9}", False),
    ("count.value == 1 and count.value == 2", False),
    ('not to.value == "a" or not to.value == "b"', True),
    ('not (to.value == "a" and to.value == "b")', True),
    ('not to.value in {"a"} or to.value in {"a", "b"}', True),
    ('"x" in to.tags or not "x" in to.tags', True),
    ("not text.tags superset of {}", False),
    ("5 in text.tags", False),
    ("not true in @session.tags", True),
    ("not to.value in to.consumers and to.value in to.consumers", False),
    ("p and not p", False),
    ("p or not p", True),
]  # fmt: skip
NEVER, ALWAYS = "This condition never holds, so ", "This condition always holds, so "
LET = 'let p = to.value == "a"; '


@pytest.mark.parametrize(("condition", "always"), IDLE)
def test_a_condition_that_is_never_or_always_true_gets_a_warning(
    condition: str, always: bool
) -> None:
    for rule, says in (
        ("must deny", "the rule denies every call" if always else "the rule denies nothing"),
        ("must allow", "the rule denies nothing" if always else "the rule denies every call"),
        ("should allow", "the rule allows every call" if always else "the rule does nothing"),
    ):
        text = f'{LET}tool "pay" {{ {rule} when {condition}; should deny when to.value == "z"; }}'
        found = [one for one in check(text, labels=BROUGHT) if one.message.startswith("This cond")]
        assert [one.message for one in found] == [(ALWAYS if always else NEVER) + says]
        is_safe = always is (rule == "must deny")  # it denies more than intended
        assert found[0].lets_through is not is_safe


ATOMS = st.sampled_from(
    ['to.value == "a"', 'to.value in {"a", "b"}', '"x" in to.tags',
     'to.tags overlaps {"x", "y"}', "to.tags is empty", '"s" in @session.tags',
     "count.value in {int 1..3}", "count.value == 2"]
)  # fmt: skip
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) and ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) or ({two[1]})"),
    ),
    max_leaves=5,
)


@settings(max_examples=60, derandomize=True, deadline=None)
@generated(CONDITIONS)
def test_a_never_or_always_warning_is_right_for_every_call(condition: str) -> None:
    text = f'tool "pay" {{ must deny when {condition}; }}'
    deny, allow = (compile_policy(one) for one in (text, text.replace("must deny", "must allow")))
    truths = set()
    for to, tags, session, count in itertools.product(
        ("a", "b", "c"), ((), ("x",), ("y",), ("x", "y"), ("z",)), ((), ("s",)), (1, 2, 9, 2.0)
    ):
        call = Call("pay", {"to": given(to, tags=tags), "count": given(count)})
        labels = Labels(tags=frozenset(session))
        denied, allowed = (
            not deny.decide(call, labels).allowed,
            allow.decide(call, labels).allowed,
        )
        truths.add(denied if denied == allowed else None)  # in doubt, as 2.0 is for `int`
    told = [one.message for one in check(text, labels=BROUGHT)]
    assert any(one.startswith(NEVER) for one in told) == (truths == {False})
    assert any(one.startswith(ALWAYS) for one in told) == (truths == {True})


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('currency.value in {w"eur*"}', "the rule denies nothing"),
        ('currency.value in {r"^eur$"}', "the rule denies nothing"),
        ("level.value == 4", "the rule denies nothing"),
        ("level.value in {int 4..9}", "the rule denies nothing"),
        ('speed.value in {w"slow*"}', "the rule denies nothing"),
    ],
)
def test_a_condition_that_no_value_of_the_schema_meets_gets_a_warning(
    condition: str, message: str
) -> None:
    (finding,) = check(deny(condition), [PAY])
    expected = f"This condition never holds for what the schema lists, so {message}"
    assert (finding.message, finding.lets_through) == (expected, True)
    assert finding.hint.startswith("The schema has `")


@pytest.mark.parametrize(
    "condition",
    [
        'currency.value in {w"E*"}', 'not currency.value in {"EUR", "USD"}',
        "not level.value in {int 1..3}", 'not speed.value == "fast"', "level.value in {int 3..}",
        'text.value in {w"*x*"} and not text.value in {w"*x*"}',  # patterns are not tried
    ],
)  # fmt: skip
def test_a_condition_that_some_value_meets_gets_no_warning(condition: str) -> None:
    assert let_through(deny(condition), [PAY]) == []


def test_a_condition_with_too_many_parts_is_not_evaluated() -> None:
    many = " or ".join(f'"t{n}a" in to.tags' for n in range(9))
    assert let_through(deny(f"({many}) and to.tags is empty")) == []


# Calls and labels in the wrong form


@pytest.mark.parametrize("name", ["tags", "producers", "consumers"])
def test_labels_refuse_a_text_in_place_of_a_collection(name: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}` takes a collection of names, not the text"):
        Labels(**{name: "web"})  # type: ignore[arg-type]
    assert Labels(**{name: ["web"]}) == Labels(**{name: frozenset({"web"})})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["eve", 5, None, ["eve"], {"value": "eve"}])
def test_a_call_refuses_arguments_without_labels(value: Any) -> None:
    with pytest.raises(UsageError, match=r"The argument `to` of a `Call` must be an `Argument`"):
        Call("pay", {"to": value})
    with pytest.raises(UsageError, match="`arguments` of a `Call` must be a dict"):
        Call("pay", [value])  # type: ignore[arg-type]


@pytest.mark.parametrize("tool", ["Pay", "PAY", "pay ", " pay"])
def test_simulate_refuses_a_misspelt_tool_name(tool: str) -> None:
    with pytest.raises(UsageError, match="Did you mean `pay`"):
        simulate('tool "pay" { must deny always; }', [{"tool": tool}])
    assert simulate('tool "pay" { must deny always; }', [{"tool": "buy"}])[0].allowed


@pytest.mark.parametrize(("key", "meant"), [("name", "tool"), ("args", "arguments")])
def test_langchains_keys_of_a_call_are_refused_with_the_keys_of_simulate(
    key: str, meant: str
) -> None:
    call = {"tool": "pay", "arguments": {}} | {key: {}}
    with pytest.raises(UsageError, match=f"unknown key `{key}`. Keys are .*`{meant}`"):
        simulate("", [call])


def test_check_refuses_a_dict_of_labels() -> None:
    with pytest.raises(UsageError, match="of tags and producers alike; got a dict"):
        check("", labels={"tags": ["web"]})


# Values and texts that are not policies


ANY_FORM = "Expected a policy: SQRT text, a parsed policy"
EXPECTED: dict[Callable[[Any], object], str] = {
    **dict.fromkeys((explain, check, format_policy, partial(simulate, calls=[])), ANY_FORM),
    **dict.fromkeys((highlight, compile_policy), "Expected the text of a policy, got"),
    printed: "`printed` takes a parsed policy; got",
}


@pytest.mark.parametrize("policy", [None, 5, b"", {"x"}])
def test_a_value_that_is_not_a_policy_is_refused_with_its_type(policy: Any) -> None:
    for use, text in EXPECTED.items():
        with pytest.raises(UsageError, match=f"{text}.*{type(policy).__name__}"):
            use(policy)


FILES = [
    *("policy.sqrt", "a/b.txt", "x y.cedar", "house.SQRT", "./policies/house"),
    *("/etc/house.policy", "policies/house", "~/house/x"),
]


@pytest.mark.parametrize("text", FILES)
def test_a_path_passed_as_text_is_refused_as_a_file_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"got the name of a file. Pass it as `pathlib.Path\(…\)`"):
        check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"codes": {"code": ""}}', "got JSON"),
        ('```sqrt\ntool "pay" { must deny always; }\n```', "got Markdown"),
    ],
)
def test_json_and_markdown_are_refused_by_their_names(text: str, message: str) -> None:
    for way in (check, lambda text: simulate(text, [])):
        with pytest.raises(UsageError, match=message):
            way(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tool “pay” { must deny always; }", 'Write texts in straight quotes: `"ana"`'),
        ('tool\u00a0"pay" { must deny always; }', "This is a no-break space, U+00A0; write a plain space"),
        ('\u200btool "pay" { must deny always; }', "This is an invisible character, U+200B; remove it"),
    ],
)  # fmt: skip
def test_a_typographic_character_is_named_in_the_error(text: str, message: str) -> None:
    (finding,) = check(text)
    assert isinstance(finding, Finding)
    assert finding.message.startswith(message)
