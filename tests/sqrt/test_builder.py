"""The policy builder writes exactly the rules that were built, and refuses mistakes."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequrity.sqrt import validate  # type: ignore[import-untyped]

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Policy, check, compile_policy, parse
from langchain_sequrity.sqrt.builder import (
    Condition,
    SetOf,
    Tool,
    above,
    arg,
    args,
    at_least,
    at_most,
    below,
    between,
    let,
    like,
    matching,
    policy,
    result,
    session,
    tool,
)
from langchain_sequrity.sqrt.formatter import format_policy
from langchain_sequrity.sqrt.nodes import Policy as Nodes
from tests.sqrt.calls import labels
from tests.sqrt.meaning import meaning

P = arg("p").value.equals(1)
Q = arg("q").value.equals("x")
R = arg("r").tags.is_empty()
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2027, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


class Place(StrEnum):
    EAST = "east"


CONDITIONS: dict[str, Condition] = {
    'p.value == 1 and q.value == "x" and r.tags is empty': P & Q & R,
    'p.value == 1 and (q.value == "x" or r.tags is empty)': P & (Q | R),
    'p.value == 1 and q.value == "x" or r.tags is empty': P & Q | R,
    'not (p.value == 1 and not q.value == "x")': ~(P & ~Q),
    "a.value == b.value": arg("a").value.equals(arg("b").value),
    "a.value == true": arg("a").value.equals(True),
    "a.value == -0.5": arg("a").value.equals(-0.5),
    'a.value == "east"': arg("a").value.equals(Place.EAST),
    'a.value == d"2027-03-01T12:00:00+00:00"': arg("a").value.equals(NOON),
    "a.value in {int 1..31}": arg("a").value.is_in(between(1, 31)),
    "a.value in {float 0.5<..<inf}": arg("a").value.is_in(between(0.5, float("inf"), low_open=True, high_open=True)),
    "a.value in {int 4.., int 4<.., int ..4, int ..<4}": arg("a").value.is_in([at_least(4), above(4), at_most(4), below(4)]),
    'a.value in {datetime d"2027-03-01T12:00:00+02:00"..d"2027-03-01T12:00:00+00:00"}': arg("a").value.is_in(between(LATER, NOON)),
    'a.value in {"b", 5, bool false, str matching r"^a$"}': arg("a").value.is_in(["b", 5, False, matching(re.compile("^a$"))]),
    'a.value in {"a", "b", "c"}': arg("a").value.is_in({"c", "a", "b"}),
    'a.value in {str matching r"(?s).*" length 1..80}': arg("a").value.is_in(matching("(?s).*", length=between(1, 80))),
    'a.value in {str like w"*.museum" length ..9}': arg("a").value.is_in(like("*.museum", length=at_most(9))),
    'a.value in {str matching r"\\x5c[\\"]\\"\\n"}': arg("a").value.is_in(matching('\\\\["]\\"\\\n')),
    "a.value in b.consumers": arg("a").value.is_in(arg("b").consumers),
    '"x" in a.tags': arg("a").tags.has("x"),
    'a.tags overlaps {"x"}': arg("a").tags.overlaps("x"),
    'a.tags subset of {"x", "y"}': arg("a").tags.subset_of(("x", "y")),
    "a.producers superset of {}": arg("a").producers.superset_of([]),
    "a.consumers == @session.consumers": arg("a").consumers.equals(session.consumers),
    "a.consumers is universal": arg("a").consumers.is_universal(),
    '@args.tags overlaps {"x"} or @args.tags.intersect overlaps {"x"}': args.tags.overlaps({"x"}) | args.shared.tags.overlaps({"x"}),
    'a.tags overlaps (b.tags | {"x"}) & c.tags': arg("a").tags.overlaps((arg("b").tags | {"x"}) & arg("c").tags),
    'a.tags overlaps ({"x"} - b.tags) | (b.tags ^ {"y"})': arg("a").tags.overlaps(({"x"} - arg("b").tags) | (arg("b").tags ^ ["y"])),
    'a.tags overlaps {"x"} | ({"y"} & b.tags) | ({"z"} ^ b.tags)': arg("a").tags.overlaps({"x"} | ({"y"} & arg("b").tags) | ({"z"} ^ arg("b").tags)),
    "not.tags is empty and not and.tags is empty": arg("not").tags.is_empty() & ~arg("and").tags.is_empty(),
}  # fmt: skip


def rule(condition: Condition) -> str:
    """The SQRT rule for a condition, in one line."""
    return " ".join(str(policy(tool("t").must_deny(when=condition))).split())


@pytest.mark.parametrize(("text", "condition"), CONDITIONS.items(), ids=CONDITIONS)
def test_a_condition_is_written_in_sqrt(text: str, condition: Condition) -> None:
    assert rule(condition) == f'tool "t" {{ must deny when {text}; }}'


def test_a_whole_policy_is_written_in_the_formatters_layout() -> None:
    staff = let("staff", {"ada", "grace"}, doc="who works here")
    outside = let("outside", ~arg("to").value.is_in(staff))
    mail = (
        tool("send_mail", doc="  mail\n\n  goes out ")
        .must_deny(arg("text").tags.overlaps({"personal"}) & outside, doc="stay in the house")
        .must_allow(~outside)
        .should_deny()
        .should_allow(outside)
        .priority(3)
        .priority(-4)
        .session_after(session.tags.add("sent"), session.tags.remove(["tried"]), doc="counted")
        .session_before(session.tags.add("tried"))
        .session_after(session.tags.toggle("odd"), when=result.value.equals("ok"), doc="if sent")
    )
    read = tool(matching="^read_").result(
        result.tags.replace(args.tags), result.consumers.keep(staff), when=result.tags.is_empty()
    )
    assert str(policy(mail, read)) == (
        '/// who works here\nlet staff = {"ada", "grace"};\n'
        "let outside = not to.value in staff;\n\n"
        '/// mail\n///\n/// goes out\ntool "send_mail" {\n    priority -4;\n'
        "    /// stay in the house\n"
        '    must deny when text.tags overlaps {"personal"} and outside;\n'
        "    must allow when not outside;\n    should deny always;\n"
        "    should allow when outside;\n"
        '    session before { @tags |= {"tried"}; }\n    session after {\n'
        '        /// counted\n        @tags |= {"sent"};\n        @tags -= {"tried"};\n'
        '        /// if sent\n        when @result.value == "ok" { @tags ^= {"odd"}; }\n    }\n}\n\n'
        'tool r"^read_" {\n    result {\n        when @result.tags is empty {\n'
        "            @tags = @args.tags;\n            @consumers &= staff;\n        }\n    }\n}\n"
    )


def test_a_domain_can_have_a_name() -> None:
    percent = let("percent", between(0, 100))
    built = policy(tool("t").must_deny(~arg("a").value.is_in(percent)))
    assert str(built).startswith("let percent = int 0..100;\n\n")


def test_a_built_policy_works_wherever_a_policy_text_works() -> None:
    leak = arg("text").tags.overlaps({"personal"}) & ~arg("to").value.is_in(
        matching("^[A-Za-z0-9._+-]+@museum[.]example$")
    )
    built = policy(tool("mail").must_deny(when=leak, doc="addresses stay in the house"))
    mail = {"name": "mail", "parameters": {"properties": {"to": {}, "text": {}}}}
    assert check(built.text, [mail], labels=["personal"]) == []
    header = PolicyHeader.from_sqrt(built.text)
    assert PolicyHeader(codes=str(built)) == header
    call = Call("mail", {
        "to": Argument("eve@evil.example"), "text": Argument("Bo", labels(tags={"personal"}))
    })  # fmt: skip
    for engine in (compile_policy(built), header.compile()):
        verdict = engine.decide(call, Labels())
        assert verdict.final_verdict == "hard_denied"
        assert verdict.certain
        assert verdict.reasons[0].description == "addresses stay in the house"


def test_built_objects_are_immutable() -> None:
    first = tool("t").must_deny()
    before = str(policy(first))
    first.should_allow().priority(2).result(result.tags.add("x"))
    condition = P & Q
    assert rule(condition | R) != rule(condition)
    assert str(policy(first)) == before
    assert rule(condition) == rule(P & Q)
    with pytest.raises(AttributeError):
        first.node = first.node  # type: ignore[misc]


def test_a_policy_without_tools_is_empty() -> None:
    assert policy().text == ""


def test_a_python_set_is_always_written_in_the_same_order() -> None:
    values, turned = {0, 8}, {8, 0}
    assert list(values) != list(turned)
    assert rule(arg("a").value.is_in(values)) == rule(arg("a").value.is_in(turned))


@pytest.mark.parametrize(
    "operation",
    [
        lambda: P and Q,
        lambda: P or Q,
        lambda: not P,
        lambda: bool(arg("a").value),
        lambda: bool(arg("a").tags),
        lambda: [1] if P else [],
    ],
)
def test_a_condition_has_no_truth_value_in_python(operation: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"`&`, `\|` and `~` instead of `and`, `or` and `not`"):
        operation()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a name with a hyphen": (lambda: arg("user-id"), "`user-id` is not a name"),
    "no name": (lambda: arg(""), "is not a name"),
    "a name with a line break": (lambda: arg("a\n"), "is not a name"),
    "a name that is no text": (lambda: arg(5), "`5` is not a name"),  # type: ignore[arg-type]
    "a name of a set": (lambda: let("a b", {"x"}), "`a b` is not a name"),
    "a quote": (lambda: arg("a").value.equals('say "x"'), "quote or a backslash.*re.escape"),
    "a backslash": (lambda: arg("a").tags.has("a\\b"), "quote or a backslash"),
    "a quote in a tool's name": (lambda: tool('x" {} let y = {"'), "quote or a backslash"),
    "a tool's name that is no text": (lambda: tool(5), "The name of a tool must be a text"),  # type: ignore[arg-type]
    "a bracket in a wildcard": (lambda: like("[ab]*"), "wildcard `\\[ab\\]\\*`"),
    "half a character": (lambda: arg("a").tags.has("\ud800"), "lone surrogate"),
    "half a character in a doc comment": (lambda: tool("x", doc="\ud800"), "lone surrogate"),
    "a regex that does not compile": (lambda: matching("("), "regex `\\(` cannot be used"),
    "a regex with flags": (lambda: matching(re.compile("a", re.IGNORECASE)), "cannot have flags"),
    "a regex that is no text": (lambda: matching(5), "A pattern must be a text"),  # type: ignore[arg-type]
    "a condition that is none": (lambda: tool("t").must_deny(True), "Expected a condition.*`True`"),  # type: ignore[arg-type]
    "a comparison by Python": (lambda: tool("t").must_deny(arg("a").value == 5), "Write `.equals"),
    "a comparison and a condition": (lambda: (arg("a").value == 5) & P, "Write `.equals"),
    "a comparison that `and` would drop": (lambda: arg("a").value != 5 and P, "Write `.equals"),
    "a comparison that `or` would drop": (lambda: arg("a").value == 5 or P, "Write `.equals"),
    "an argument that `or` would drop": (lambda: arg("a") == 5 or P, "Write `.equals"),
    "labels that `or` would drop": (lambda: arg("a").tags == {"web"} or P, "Write `.equals"),
    "a look into a set that `or` would drop": (lambda: arg("a").value in {1, 2} or P, "`.is_in"),
    "a look into a list that `or` would drop": (lambda: arg("a").value in [1, 2] or P, "`.is_in"),
    "a look into a value": (lambda: "x" in arg("a").value, "`.is_in"),
    "two conditions compared": (lambda: P == Q, "Write `.equals"),
    "bytes for a set of values": (lambda: arg("a").value.is_in(b"east"), "Expected a set"),
    "a condition and a text": (lambda: P | "x", "Expected a condition"),  # type: ignore[operator]
    "less": (lambda: arg("a").value < 5, "between\\(1, 31\\)"),
    "at least, the other way": (lambda: arg("a").value <= 5, "at_least"),
    "in": (lambda: "x" in arg("a").tags, "`.has"),
    "a text for a set of values": (lambda: arg("a").value.is_in("east"), "got `'east'`. Write `{…}`"),
    "a pattern for labels": (lambda: arg("a").tags.overlaps({matching("x")}), "A label must be a text"),  # type: ignore[arg-type]
    "a number for a label": (lambda: arg("a").tags.has(5), "A label must be a text"),  # type: ignore[arg-type]
    "nothing as a value": (lambda: arg("a").value.equals(None), "got `None`"),  # type: ignore[arg-type]
    "a list as a value": (lambda: arg("a").value.is_in([["x"]]), "got `\\['x'\\]`"),  # type: ignore[list-item]
    "a time without zone": (lambda: at_least(datetime(2027, 1, 1)), "tzinfo=UTC"),  # noqa: DTZ001
    "no number": (lambda: arg("a").value.equals(float("nan")), "`nan`"),
    "too many digits": (lambda: arg("a").value.equals(10**300), "at most 300 digits"),
    "too many digits behind the point": (lambda: arg("a").value.equals(5e-320), "at most 300 digits"),
    "a range of two kinds": (lambda: between(1, 2.5), "of one kind"),
    "a range of truth values": (lambda: between(False, True), "`int`, a `float` or a `datetime`"),
    "a range that is empty": (lambda: between(3, 1), "Nothing lies between `3` and `1`"),
    "a range that is open on both sides of nothing": (lambda: between(1, 1, low_open=True), "Nothing lies"),
    "a length that is a float": (lambda: matching("a", length=between(1.0, 2.0)), "range of integers"),
    "two names for a tool": (lambda: tool("a", matching="b"), "by its name.*or a regex"),
    "no name for a tool": (tool, "by its name.*or a regex"),
    "a priority that is true": (lambda: tool("t").priority(True), "A priority must be an integer"),
    "a change of nothing": (lambda: tool("t").result(), "at least one change"),
    "a condition as a change": (lambda: tool("t").result(P), "Expected changes of the result"),  # type: ignore[arg-type]
    "a change of the session in a result": (lambda: tool("t").result(session.tags.add("x")), "changes of the result"),
    "a change of the result in a session": (lambda: tool("t").session_after(result.tags.add("x")), "changes of the session"),
    "a doc comment that is no text": (lambda: tool("t").must_deny(doc=5), "`doc` must be a text"),  # type: ignore[arg-type]
    "a policy of a text": (lambda: policy('tool "x" {}'), "A policy must be made of tools"),  # type: ignore[arg-type]
    "one name for two sets": (lambda: policy(tool("t").must_deny(arg("a").value.is_in(let("x", {1}) | let("x", {1.0})))), "`x` is already defined in line 1"),
    "a result before there is one": (lambda: policy(tool("t").must_deny(result.tags.is_empty())), "line 2"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_the_builder_refuses_what_sqrt_cannot_express_for_certain(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        make()


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (P & ~Q, 'Condition(p.value == 1 and not q.value == "x")'),
        (arg("a"), "LabelledValue(a)"),
        (session, "Labelled(@session)"),
        (arg("a").value, "ValueOf(a.value)"),
        (arg("a").tags, "LabelsOf(a.tags)"),
        (let("staff", {"ada"}) | {"bo"}, 'SetOf(staff | {"bo"})'),
        (result.tags.add("x"), 'Change(@result.tags |= {"x"})'),
        (tool("t").must_deny(P).result(result.tags.add("x")), 'Tool("t")'),
        (tool(matching="^t$"), 'Tool(r"^t$")'),
    ],
)
def test_the_repr_of_a_built_object_shows_its_sqrt(made: Any, shown: str) -> None:
    assert repr(made) == shown


def test_str_of_a_tool_includes_the_definitions_of_its_names() -> None:
    staff = let("staff", {"ada"})
    made = tool("t").must_deny(arg("to").value.is_in(staff))
    assert str(made) == str(policy(made))
    assert str(made).startswith('let staff = {"ada"};')


def test_a_condition_that_is_nested_too_deeply_to_be_written_has_a_repr() -> None:
    condition = P
    for _ in range(100):
        condition = ~(condition & Q)
    assert repr(condition) == "Condition(…)"


def test_an_error_shows_its_place_in_the_text_that_was_built() -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        policy(tool("t").should_allow().must_deny(result.tags.is_empty()))
    assert caught.value.line == 3
    assert "must deny when @result.tags is empty;" in caught.value.source


def test_a_policy_that_is_nested_too_deeply_is_refused() -> None:
    condition = P
    for _ in range(3_000):
        condition = ~(condition & Q)
    with pytest.raises(UsageError, match="`let`"):
        policy(tool("t").must_deny(condition))


# Random policies

NAMES = st.sampled_from(
    ("a", "to", "not", "and", "or", "when", "union", "true", "inf", "tags", "_9")
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\'), max_size=8)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, width=32)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(minutes=-90))]))
PATTERNS = st.sampled_from(("^a+$", '["x"]', "a\\\\b", "\\d{2}", "(?i)é", "")).map(matching)
WILDCARDS = st.text(st.sampled_from("ab*?.@"), max_size=5).map(like)
RANGES = st.one_of(
    st.integers(-5, 5).map(at_least), st.floats(-5, 5, width=32).map(below), MOMENTS.map(above),
    st.tuples(st.integers(-5, 0), st.integers(1, 5)).map(lambda ends: between(*ends, low_open=True)),
)  # fmt: skip
VALUES = st.lists(
    TEXTS | NUMBERS | st.booleans() | MOMENTS | PATTERNS | WILDCARDS | RANGES, max_size=4
)
LABELS = st.sets(TEXTS, max_size=3)
OTHERS: dict[str, Any] = {"args": args, "shared": args.shared, "session": session}
SUBJECTS = NAMES.map(arg) | st.sampled_from(tuple(OTHERS)).map(OTHERS.__getitem__)
ANY_LABELS = st.builds(
    getattr,
    SUBJECTS, st.sampled_from(("tags", "producers", "consumers")),
)  # fmt: skip


def _joined(operator: str, left: Any, right: Any) -> Any:
    return {
        "|": lambda: left | right, "&": lambda: left & right,
        "-": lambda: left - right, "^": lambda: left ^ right,
    }[operator]()  # fmt: skip


SETS: st.SearchStrategy[SetOf] = st.recursive(
    ANY_LABELS | st.builds(lambda one, other: one | other, ANY_LABELS, LABELS),
    lambda inner: st.builds(_joined, st.sampled_from("|&-^"), inner | LABELS, inner),
    max_leaves=5,
)
TESTS: st.SearchStrategy[Condition] = st.one_of(
    st.builds(lambda name, other: arg(name).value.equals(other), NAMES, TEXTS | NUMBERS | st.booleans() | MOMENTS),
    st.builds(lambda name, other: arg(name).value.equals(arg(other).value), NAMES, NAMES),
    st.builds(lambda name, values: arg(name).value.is_in(values), NAMES, VALUES | SETS),
    st.builds(lambda one, name: one.has(name), ANY_LABELS, TEXTS),
    st.builds(
        lambda one, test, others: getattr(one, test)(others),
        ANY_LABELS, st.sampled_from(("overlaps", "subset_of", "superset_of", "equals")), LABELS | SETS,
    ),
    st.builds(lambda one, test: getattr(one, test)(), ANY_LABELS, st.sampled_from(("is_empty", "is_universal"))),
)  # fmt: skip
CONDITION: st.SearchStrategy[Condition] = st.recursive(
    TESTS,
    lambda inner: (
        st.builds(_joined, st.sampled_from("|&"), inner, inner)
        | inner.map(lambda one: ~one)
        | inner.map(lambda one: let("not", one))
    ),
    max_leaves=8,
)
RULES = st.lists(
    st.tuples(
        st.sampled_from(("must_deny", "must_allow", "should_deny", "should_allow")),
        st.none() | CONDITION,
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    max_size=3,
)
CHANGES = st.builds(
    lambda field, how, names: getattr(getattr(session, field), how)(names),
    st.sampled_from(("tags", "producers", "consumers")),
    st.sampled_from(("add", "remove", "keep", "replace", "toggle")),
    LABELS | SETS,
)
STEPS = st.lists(
    st.tuples(st.sampled_from(("session_before", "session_after")), CHANGES, st.none() | CONDITION),
    max_size=3,
)


def _tool(name: str, doc: str, rank: int, rules: list[Any], steps: list[Any]) -> Tool:
    made = tool(name, doc=doc).priority(rank)
    for method, when, why in rules:
        made = getattr(made, method)(when, doc=why)
    for method, change, when in steps:
        made = getattr(made, method)(change, when=when)
    return made


TOOLS = st.builds(
    _tool, TEXTS, st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9), RULES, STEPS
)  # fmt: skip


def _read_back(made: Tool) -> Policy | None:
    """The policy; `None` if two different conditions have the name `not`."""
    try:
        return policy(made)
    except PolicySyntaxError as error:
        if "`not` is already defined" in str(error):
            return None
        raise


@settings(max_examples=300, derandomize=True)
@given(TOOLS)
def test_a_built_policy_has_the_same_meaning_after_parsing(made: Tool) -> None:
    built = _read_back(made)
    if built is None:
        return
    lets = {repr(one): one for one in made.lets}
    assert meaning(built) == meaning(Nodes((*lets.values(), made.node), ""))
    assert meaning(parse(built.text)) == meaning(built)
    assert format_policy(built.text) == built.text


@settings(max_examples=40, derandomize=True)
@given(TOOLS)
def test_the_vendor_accepts_a_built_policy(made: Tool) -> None:
    built = _read_back(made)
    assert built is None or validate(built.text)
