"""`simulate`: calls of one session under a policy, without tools, model and server."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    Decision,
    Presets,
    Simulation,
    Trial,
    compile_policy,
    coverage,
    diff,
    parse,
    simulate,
)
from tests.showing import CORPUS, assert_shown_safely, on_rich
from tests.sqrt.calls import given, labels

Json = dict[str, Any]
POLICY = """
tool "read" { result { @tags |= {"mail"}; @consumers = {"ada"}; } }
tool "send" {
    /// mails stay here
    must deny when text.tags overlaps {"mail"};
    should allow always;
}
tool "try" {
    must deny when "tried_2" in @session.tags;
    session before {
        when "tried_1" in @tags { @tags |= {"tried_2"}; }
        @tags |= {"tried_1"};
    }
}
"""
MAIL: Json = {"tool": "read", "id": "mail", "result": "Hi"}
SEND: Json = {"tool": "send", "arguments": {"text": "Hi"}, "uses": {"text": ["mail"]}}


def words(simulation: Simulation) -> list[str]:
    return [
        one.verdict.final_verdict if one.verdict else "not reached" for one in simulation.decisions
    ]


def one(policy: Any, call: Any, **options: Any) -> Decision:
    (decision,) = simulate(policy, [call], **options)
    return decision


# Decisions


def test_labels_of_a_result_reach_the_calls_that_use_it() -> None:
    read, sent, other = simulate(POLICY, [MAIL, SEND, {"tool": "send", "arguments": {"text": "x"}}])
    assert read.allowed
    assert read.result_labels == labels({"mail", "__non_executable"}, consumers={"ada"})
    assert sent.call.arguments["text"].labels == read.result_labels
    assert (sent.allowed, sent.denied, sent.result_labels) == (False, True, None)
    assert sent.verdict is not None
    (reason,) = sent.verdict.reasons
    assert (reason.description, reason.at) == ("mails stay here", (5, 5))
    assert other.allowed


def test_session_before_changes_of_a_denied_call_persist() -> None:
    simulation = simulate(POLICY, [{"tool": "try"}] * 3)
    assert words(simulation) == ["soft_allowed", "hard_denied", "hard_denied"]
    assert [d.session_before.tags for d in simulation] == [
        set(),
        {"tried_1"},
        {"tried_1", "tried_2"},
    ]
    assert simulation[-1].session_after.tags == {"tried_1", "tried_2"}


def test_a_session_can_have_labels_from_the_start() -> None:
    session = labels({"tried_1"})
    assert one(POLICY, {"tool": "try"}, session=session).denied


def test_calls_that_use_a_denied_call_are_not_reached_and_change_nothing() -> None:
    calls = [
        MAIL,
        {**SEND, "id": "sent"},
        {"tool": "try", "arguments": {"a": 1}, "uses": {"a": ["sent"]}, "id": "tried"},
        {"tool": "read", "arguments": {"b": 1}, "uses": {"b": ["mail", "tried"]}},
        {"tool": "try"},
    ]
    simulation = simulate(POLICY, calls)
    assert words(simulation) == [
        "soft_allowed", "hard_denied", "not reached", "not reached", "soft_allowed",
    ]  # fmt: skip
    assert [d.waits_for for d in simulation] == [(), (), ("sent",), ("tried",), ()]
    skipped = simulation.not_reached[0]
    assert (skipped.allowed, skipped.denied) == (False, False)
    assert skipped.session_after == skipped.session_before
    assert "no result of `sent`" in str(skipped)
    assert "not reached" in simulation.text(200)


@pytest.mark.parametrize(
    ("combine", "tags"),
    [("merge", {"own", "brought"}), ("replace", {"brought"}), ("ignore", {"own"})],
)
def test_labels_of_a_result_combine_as_requested(combine: Any, tags: set[str]) -> None:
    engine = compile_policy("", Presets(non_executable_memory=False))
    trial = Trial(
        "read", {"a": 1}, {"a": labels({"own"})}, result_labels=labels({"brought"}), combine=combine
    )
    found = one(engine, trial).result_labels
    assert found is not None
    assert found.tags == tags


def test_an_argument_joins_its_own_labels_and_those_of_all_results_in_it() -> None:
    calls = [
        {"tool": "a", "id": "1", "result_labels": {"producers": ["p"], "consumers": ["x", "y"]}},
        {"tool": "a", "id": "2", "result_labels": {"tags": ["t"], "consumers": ["y"]}},
        {
            "tool": "b",
            "arguments": {"v": 0},
            "uses": {"v": ["1", "2"]},
            "labels": {"v": {"tags": ["own"]}},
        },
    ]
    last = simulate("", calls)[-1]
    expected = labels({"t", "own", "__non_executable"}, {"p"}, {"y"})
    assert last.call.arguments["v"].labels == expected


POLICIES: list[Callable[[str], Any]] = [str, parse, compile_policy, PolicyHeader.from_sqrt]


@pytest.mark.parametrize("made", POLICIES)
def test_a_policy_may_have_any_form(made: Callable[[str], Any]) -> None:
    assert words(simulate(made(POLICY), [MAIL, SEND])) == ["soft_allowed", "hard_denied"]


def test_a_header_decides_with_its_own_presets() -> None:
    header = PolicyHeader.from_sqrt("", default_allow=False, default_allow_enforcement_level="hard")
    assert words(simulate(header, [{"tool": "a"}])) == ["hard_denied"]


FORMS: list[Any] = [
    Call("send", {"text": given("Hi", tags={"mail"})}),
    Trial("send", {"text": "Hi"}, {"text": labels({"mail"})}),
    {"tool": "send", "arguments": {"text": "Hi"}, "labels": {"text": {"tags": ["mail"]}}},
    {"tool": "send", "arguments": {"text": "Hi"}, "labels": {"text": labels({"mail"})}},
]


@pytest.mark.parametrize("form", FORMS, ids=["call", "trial", "json", "json with labels"])
def test_a_call_may_have_any_form(form: Any) -> None:
    assert one(POLICY, form).call == FORMS[0]
    assert one(POLICY, form).denied


def test_labels_of_a_call_object_may_have_reserved_names() -> None:
    blocked = Call("parse_with_ai", {"query": given("?", tags={"__llm_blocked"})})
    assert one("", blocked).denied


def test_calls_may_come_from_an_iterator() -> None:
    assert len(simulate(POLICY, iter([MAIL, SEND]))) == 2
    assert simulate(POLICY, []).decisions == ()


# Refusals

BAD: list[tuple[Any, str]] = [
    ("send", "Expected a list of calls to try, got a value of type `str`"),
    ({"tool": "a"}, "Expected a list of calls"),
    (Trial("a"), "Expected a list of calls"),
    (7, "Expected a list of calls"),
    ([{"tool": "a"}, 7], "Call 2: expected a `Trial`, a `Call` or a mapping, got a value of type `int`"),
    ([{}], "Call 1: `tool` is missing"),
    ([{"tool": ""}], "expected the name of a tool, got an empty one"),
    ([{"tool": 7}], "expected the name of a tool, got a value of type `int`"),
    ([Call("", {})], "expected the name of a tool"),
    ([{"tool": "a", "argumnts": {}}], "Call 1: unknown key `argumnts`. Did you mean `arguments`?"),
    ([{"tool": "a", "x": {}}], "unknown key `x`. Keys are `tool`, `arguments`"),
    ([{"tool": "a", 7: {}}], "unknown key `7`"),
    ([{"tool": "a", "arguments": []}], "Call 1 (`a`): expected `arguments` by name of argument, got a value of type `list`"),
    ([{"tool": "a", "arguments": {1: 2}}], "expected `arguments` by name of argument, got a value of type `dict`"),
    ([{"tool": "a", "arguments": {"x": object()}}], "argument `x`: expected plain JSON data, got a value of type `object`"),
    ([{"tool": "a", "arguments": {"x": (1,)}}], "got a value of type `tuple`"),
    ([{"tool": "a", "arguments": {"x": [{"y": float("nan")}]}}], "got the number nan"),
    ([{"tool": "a", "arguments": {"x": {1: 2}}}], "got a key that is a value of type `int`"),
    ([Call("a", {"x": Argument({1})})], "Call 1 (`a`): argument `x`: expected plain JSON data, got a value of type `set`"),
    ([{"tool": "a", "result": {1}}], "`result`: expected plain JSON data"),
    ([{"tool": "a", "arguments": {"text": 1}, "labels": {"txt": {}}}], "`labels` names `txt`, which is not one of `arguments`. Did you mean `text`?"),
    ([{"tool": "a", "uses": {"x": []}}], "`uses` names `x`, which is not one of `arguments`. Name one of `arguments`."),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": ["web"]}}], "labels of `x`: expected lists of names"),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": {"tag": ["web"]}}}], 'labels of `x`: expected lists of names. Write `{"tags": ["web"]}`'),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": {"tags": "web"}}}], "`tags` takes a collection of names"),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": {"tags": 7}}}], "expected lists of names"),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": {"tags": [[]]}}}], "labels of `x`: expected lists of names"),
    ([{"tool": "a", "arguments": {"x": 1}, "labels": {"x": {"tags": ["__a"]}}}], "labels of `x`: `tags` may not hold '__a'"),
    ([Trial("a", {"x": 1}, {"x": labels({"*"})})], "labels of `x`: `tags` may not hold '*'"),
    ([Trial("a", result_labels=labels({"__a"}))], "`result_labels`: `tags` may not hold"),
    ([{"tool": "a", "result_labels": ["web"]}], "`result_labels`: expected lists of names"),
    ([{"tool": "a", "combine": "join"}], "`combine` must be `merge`, `replace` or `ignore`; got `join`"),
    ([{"tool": "a", "combine": []}], "`combine` must be"),
    ([{"tool": "a", "id": 7}], "expected a text as `id`, got a value of type `int`"),
    ([{"tool": "a", "id": "x"}, {"tool": "b", "id": "x"}], "Call 2 (`b`): call 1 already has the id `x`"),
    ([MAIL, {**SEND, "uses": {"text": "mail"}}], "`uses` of `text`: expected a list of ids of calls, got `mail`"),
    ([MAIL, {**SEND, "uses": {"text": [7]}}], "expected a list of ids of calls"),
    ([MAIL, {**SEND, "uses": {"text": ["mial"]}}], "Call 2 (`send`): `uses` of `text` names `mial`, but no earlier call has this id. Did you mean `mail`?"),
    ([SEND, MAIL], "Call 1 (`send`): `uses` of `text` names `mail`, but no earlier call has this id. Give this id to an earlier call"),
    ([{**SEND, "id": "mail"}], "no earlier call has this id"),
]  # fmt: skip


@pytest.mark.parametrize(("calls", "told"), BAD)
def test_an_invalid_call_is_refused_with_its_number(calls: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        simulate(POLICY, calls)
    assert told in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested deeper than 100 levels"):
        simulate("", [{"tool": "a", "result": endless}])


def test_a_policy_that_does_not_compile_is_refused() -> None:
    with pytest.raises(PolicySyntaxError):
        simulate('tool "a" { must deny when p; }', [])


@pytest.mark.parametrize("given", [{"tags": ["x"]}, None, "untrusted", ["x"]])
def test_a_session_that_is_not_labels_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"Expected `Labels` as `session`.*frozenset"):
        simulate("", [{"tool": "a"}], session=given)


NAMING = 'tool "send_mail" { must deny when to.value == "eve"; } tool r"^read_.*$" {}'
SEND_MAIL = {"name": "send_mail", "parameters": {"properties": {"to": {}, "text": {}}}}
MISSPELT = "Call 1 (`{}`): no rule is for this tool. Did you mean `send_mail`? If not, give"


@pytest.mark.parametrize(
    "tool", ["sned_mail", "send_mial", "send_mails", "sendmail", "send-mail", "Send_Mail"]
)
def test_a_tool_without_rules_is_refused_if_its_name_is_one_slip_from_a_tool_with_rules(
    tool: str,
) -> None:
    trials: list[Callable[..., Any]] = [
        simulate,
        coverage,
        lambda policy, calls, **options: diff("", policy, calls, **options),
        lambda policy, calls, **options: diff(policy, "", calls, **options),
    ]
    for tried in trials:
        with pytest.raises(UsageError) as caught:
            tried(NAMING, [{"tool": tool}])
        assert str(caught.value).startswith(MISSPELT.format(tool))
        assert tried(NAMING, [{"tool": tool}], tools=[tool])


@pytest.mark.parametrize(
    ("policy", "tool"),
    [
        (NAMING, "read_mail"),
        (NAMING, "send_post"),
        (NAMING, "spend_mails"),
        (f'{NAMING} tool "send_mial" {{}}', "send_mial"),
        (f'{NAMING} tool r"mial" {{}}', "send_mial"),
        ('tool "step_1" {}', "step_2"),
        ('tool "pay" {}', "pry"),
    ],
)
def test_a_tool_without_rules_may_be_called_if_its_name_is_different_enough(
    policy: str, tool: str
) -> None:
    assert one(policy, {"tool": tool}).verdict is not None


def test_diff_accepts_the_old_and_the_new_name_of_a_renamed_tool() -> None:
    renamed = NAMING.replace("send_mail", "send_mails")
    assert diff(NAMING, renamed, [{"tool": "send_mail"}, {"tool": "send_mails"}]).calls == 2


def test_schema_defaults_replace_missing_arguments_if_tools_are_given() -> None:
    text = {"name": "send", "parameters": {"properties": {"text": {"default": "Hi"}}}}
    policy = 'tool "send" { must deny when text.value == "Bye"; }'
    call: Json = {"tool": "send"}
    assert [one.allowed for one in simulate(policy, [call], tools=[text])] == [True]
    assert [one.allowed for one in simulate(policy, [call])] == [False]
    assert coverage(policy, [call], tools=[text]).simulation[0].allowed
    assert diff(policy, policy.replace("Bye", "Hi"), [call], tools=[text]).changed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"tool": "sned_mail"}, "Call 1 (`sned_mail`): there is no such tool. Did you mean `send_mail`?"),
        ({"tool": "pay"}, "Call 1 (`pay`): there is no such tool. Add it to the tools."),
        ({"tool": "send_mail", "arguments": {"txt": ""}}, "Call 1 (`send_mail`): it has no argument `txt`. Did you mean `text`?"),
        ({"tool": "send_mail", "arguments": {"x": ""}}, "Call 1 (`send_mail`): it has no argument `x`. Leave it out."),
        ({"tool": "parse_with_ai", "arguments": {"question": ""}}, "Call 1 (`parse_with_ai`): it has no argument `question`."),
    ],
)  # fmt: skip
def test_an_unknown_tool_or_argument_is_refused_if_tools_are_given(
    call: Json, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        simulate("", [call], tools=[SEND_MAIL])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ([SEND_MAIL], {"tool": "send_mail", "arguments": {"to": "eve"}}),
        (["send_mail"], {"tool": "send_mail", "arguments": {"anything": 1}}),
        (iter(["send_mail"]), {"tool": "send_mail"}),
        ([], {"tool": "parse_with_ai", "arguments": {"query": "?"}}),
    ],
)
def test_calls_of_given_and_built_in_tools_are_accepted(tools: Any, call: Json) -> None:
    assert len(simulate(NAMING, [call], tools=tools)) == 1


@pytest.mark.parametrize("tools", ["send_mail", SEND_MAIL, [7]])
def test_tools_that_are_not_a_list_of_tools_are_refused(tools: Any) -> None:
    with pytest.raises(UsageError, match="`tools`"):
        simulate("", [], tools=tools)


def test_comparing_the_names_of_many_calls_and_tools_takes_bounded_time() -> None:
    policy = "".join(f'tool "send_{"x" * 40}{n}" {{}}' for n in range(1_000))
    calls = [{"tool": f"sent_{'x' * 40}{n}z"} for n in range(1_000)]
    start = time.process_time()
    assert len(simulate(policy, calls)) == 1_000
    assert time.process_time() - start < 4


# Display

DOUBTFUL = 'tool r"en" { must deny always; }'


def test_a_simulation_is_a_sequence_of_decisions() -> None:
    simulation = simulate(POLICY, [MAIL, SEND])
    assert simulation[1:] == Simulation(simulation.decisions[1:])
    assert [d.number for d in simulation] == [1, 2]
    assert (simulation.allowed, simulation.denied) == (
        simulation[:1].decisions,
        simulation[1:].decisions,
    )
    assert repr(simulation) == "Simulation(2 calls: 1 allowed, 1 denied)"
    assert simulation == simulate(POLICY, [MAIL, SEND])


def test_each_decision_is_shown_in_words_and_in_colour() -> None:
    simulation = simulate(POLICY + DOUBTFUL, [MAIL, {**SEND, "id": "a|b"}, {"tool": "ten"}])
    title, _, _, read, sent, ten = simulation.text(1_000).splitlines()
    assert title == "3 calls: 1 allowed, 2 denied"
    assert "read (mail)" in read
    assert "soft allowed" in read
    assert "default_allow (preset)" in read
    for part in (
        "send (a|b)",
        "hard denied",
        "certain",
        "must deny when",
        "(line 5)",
        "mails stay here",
    ):
        assert part in sent
    assert "uncertain: its regex matches only a part of the tool's name" in ten
    shown = simulation._repr_html_()
    green, red = "color: #2da44e", "color: #e5484d"
    assert [line.split('"')[1] for line in shown.split("<tr")[2:]] == [green, red, red]
    assert "hard denied" in on_rich(simulation)


def test_a_missing_argument_that_causes_doubt_is_named() -> None:
    (decision,) = simulation = simulate(
        'tool "a" { must deny when x.value == y.value; }', [{"tool": "a", "arguments": {"x": 1}}]
    )
    assert "may apply (in doubt, because the call has no argument `y`)." in str(decision)
    assert "uncertain: the call has no argument `y`" in simulation.text(1_000)


def test_an_unmet_allowance_is_shown_as_not_met() -> None:
    shown = simulate(
        'tool "a" { must allow when x.value == 1; }', [{"tool": "a", "arguments": {"x": 2}}]
    )
    assert "not met: must allow when x.value == 1; (line 1)" in shown.text(1_000)


def test_many_deciding_rules_are_counted_and_not_all_listed() -> None:
    policy = 'tool "a" { %s }' % ("should deny always;" * 9)
    assert "and 6 more" in simulate(policy, [{"tool": "a"}]).text(1_000)


def test_to_json_of_a_simulation_is_plain_json_and_deterministic() -> None:
    calls = [MAIL, {**SEND, "id": "s"}, {"tool": "b", "arguments": {"x": 1}, "uses": {"x": ["s"]}}]
    data = simulate(POLICY, calls).to_json()
    assert json.loads(json.dumps(data)) == data
    assert json.dumps(data) == json.dumps(simulate(POLICY, calls).to_json())
    read, sent, other = data
    assert (sent["verdict"], sent["allowed"], sent["strength"], sent["certain"]) == (
        "hard_denied",
        False,
        "hard",
        True,
    )
    assert sent["reasons"] == [
        {
            "rule": 'must deny when text.tags overlaps {"mail"};', "line": 5, "column": 5,
            "description": "mails stay here", "strength": "hard", "verdict": "deny",
            "certain": True, "unmet": False,
        }
    ]  # fmt: skip
    assert read["result_labels"]["tags"] == ["__non_executable", "mail"]
    assert read["reasons"][0]["line"] is None
    assert (other["verdict"], other["allowed"], other["waits_for"]) == ("not_reached", None, ["s"])
    assert "Hi" not in json.dumps(data)


@pytest.mark.parametrize("text", CORPUS)
def test_hostile_texts_are_shown_as_plain_text(text: str) -> None:
    doc = " ".join(text.split("\n")).replace("\r", " ")
    policy = f'/// {doc}\ntool "a" {{ /// {doc}\n must deny always; }}'
    used: Mapping[str, Any] = {"tool": text, "id": text, "arguments": {text: text}, "result": text}
    simulation = simulate(
        policy,
        [
            used,
            {"tool": "a", "id": f"{text}2"},
            {"tool": "b", "arguments": {"x": 1}, "uses": {"x": [f"{text}2"]}},
        ],
    )
    assert_shown_safely(simulation)
    for decision in simulation:
        assert "\x1b" not in str(decision)
        assert "\n" not in str(decision)
    with pytest.raises(UsageError) as caught:
        simulate("", [{"tool": text, "uses": {text: []}}])
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
