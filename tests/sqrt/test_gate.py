"""The gate: the steps of a checked call, and the digests of calls."""

from itertools import product
from typing import Any

import pytest

from langchain_sequrity.graph.journal import ProgramCall
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.verdict import AgentPolicy
from langchain_sequrity.sqrt import Argument, Call, Engine, Presets, compile_policy
from langchain_sequrity.sqrt.coerce import ToolArguments, arguments_of
from langchain_sequrity.sqrt.gate import Gate, ToolReturn, call_digest
from tests.sqrt.calls import given, labels

PLAIN = Presets(non_executable_memory=False)
PROPERTIES: dict[str, Any] = {
    "to": {"type": "string", "default": "ada"},
    "text": {"type": "string"},
}
TOOL = {"name": "send", "parameters": {"type": "object", "properties": PROPERTIES}}


def gate(*policies: str, tools: Any = (TOOL,)) -> Gate:
    engines = [compile_policy(policy, PLAIN) for policy in policies]
    return Gate(engines, arguments_of(tools))


def send(**arguments: Any) -> Call:
    return Call("send", {name: Argument(value) for name, value in arguments.items()})


def final_verdict(gate: Gate, call: Call, session: Labels | None = None) -> str:
    return gate.verdict(gate.begin(call, session or Labels())).final_verdict


# The check


def test_a_call_is_judged_with_the_defaults_of_omitted_arguments() -> None:
    to_ada = gate('tool "send" { must deny when to.value == "ada"; }')
    assert final_verdict(to_ada, send()) == "hard_denied"
    assert final_verdict(to_ada, send(to="bo")) == "soft_allowed"
    assert final_verdict(
        gate('tool "send" { must deny when text.value == ""; }'), send(to="x")
    ) == (
        "hard_denied"  # in doubt: it has no default
    )


def test_a_default_has_the_labels_of_what_decided_the_call() -> None:
    policy = 'tool "send" { must deny when "web" in to.tags; }'
    call = Call("send", {}, labels({"web"}))
    assert final_verdict(gate(policy), call) == "hard_denied"
    assert final_verdict(gate(policy), Call("send", {})) == "soft_allowed"


def test_a_call_that_begins_is_the_one_that_its_tool_gets() -> None:
    decided_by = labels({"web"})
    begun = gate("").begin(Call("send", {"text": given("x")}, decided_by), Labels())
    arguments = {"text": given("x"), "to": Argument("ada", decided_by)}
    assert begun.call == Call("send", arguments, decided_by, ("to", "text"))


def test_tools_that_are_known_later_count_and_unknown_ones_have_no_defaults() -> None:
    tools: dict[str, ToolArguments] = {}
    late = Gate([compile_policy('tool "send" { must deny when to.value == "ada"; }', PLAIN)], tools)
    call = Call("send", {"to": Argument("bo")})
    assert late.begin(call, Labels()).call is call
    assert late.begin(Call("send", {}), Labels()).call.arguments == {}
    tools.update(arguments_of([TOOL]))
    assert late.begin(Call("send", {}), Labels()).call.arguments == {"to": Argument("ada")}


def test_the_updates_before_a_call_count_in_its_check_and_stay_if_it_is_denied() -> None:
    once = gate(
        'tool "send" { must deny when "sent" in @session.tags; '
        'session before { when to.value == "bo" { @tags |= {"sent"}; } } }'
    )
    begun = once.begin(send(to="bo"), Labels())
    assert begun.session == labels({"sent"})
    assert not once.verdict(begun).allowed
    assert once.begin(send(), Labels()).session == Labels()  # its default is known here, too
    assert not once.verdict(once.begin(send(), begun.session)).allowed


ALLOWS, SOFT, HARD = "", 'tool "send" { should deny always; }', 'tool "send" { must deny always; }'
MUST_ALLOW = 'tool "send" { must allow always; }'
VERDICTS = {
    ALLOWS: "soft_allowed", MUST_ALLOW: "hard_allowed", SOFT: "soft_denied", HARD: "hard_denied",
}  # fmt: skip


@pytest.mark.parametrize("policies", [*product(VERDICTS, repeat=2), *product(VERDICTS, repeat=3)])
def test_a_call_needs_the_permission_of_all_policies_and_the_strongest_denial_is_reported(
    policies: tuple[str, ...],
) -> None:
    verdicts = [VERDICTS[policy] for policy in policies]
    denials = [verdict for verdict in verdicts if verdict.endswith("denied")]
    assert final_verdict(gate(*policies), send()) == min(denials, default=verdicts[0])


def test_the_first_of_equal_denials_is_reported() -> None:
    for rule in ("should deny always;", "must deny always;"):
        policies = [f'tool "send" {{ /// {name}\n {rule} }}' for name in ("first", "second")]
        both = gate(*policies)
        (reason,) = both.verdict(both.begin(send(), Labels())).reasons
        assert reason.description == "first"


def test_only_the_first_policy_changes_labels() -> None:
    changes = (
        'tool "send" { session before { @tags |= {"b"}; } result { @tags |= {"r"}; } '
        'session after { @tags |= {"a"}; } }'
    )
    for first, second, session, result in (
        (changes, "", {"a", "b"}, {"r"}),
        ("", changes, set[str](), set[str]()),
    ):
        both = gate(first, second)
        before = both.begin(send(), Labels()).session
        assert both.foreseen(send(), before) == labels(session)
        assert both.result_labels(send(), ToolReturn(1), before) == (
            labels(result),
            labels(session),
        )


# The result


@pytest.mark.parametrize(
    ("returned", "tags"),
    [
        (ToolReturn(1), {"in"}),
        (ToolReturn(1, labels({"own"})), {"in", "own"}),
        (ToolReturn(1, labels({"own"}), "replace"), {"own"}),
        (ToolReturn(1, labels({"own"}), "ignore"), {"in"}),
        (ToolReturn(1, None, "replace"), {"in"}),
        (ToolReturn("no", labels({"own"}), "replace", is_error=True), {"in", "own"}),
        (ToolReturn("no", labels({"own"}), "ignore", is_error=True), {"in"}),
        (ToolReturn("no", is_error=True), {"in"}),
    ],
)
def test_labels_of_a_tool_join_those_of_the_arguments_unless_it_says_otherwise(
    returned: ToolReturn, tags: set[str]
) -> None:
    call = Call("send", {"text": Argument("x", labels({"in"}))})
    assert gate("").result_labels(call, returned, Labels())[0] == labels(tags)
    by_other_data = gate("").result_labels(call, returned, Labels(), labels({"read"}))[0]
    assert by_other_data == labels({"read" if tag == "in" else tag for tag in tags})


def test_rules_on_results_see_defaults_and_only_add_labels_to_errors() -> None:
    policy = (
        'tool "send" { result { when to.value == "ada" { @tags = {"clean"}; } } '
        'session after { when to.value == "ada" { @tags |= {"sent"}; } } }'
    )
    call = Call("send", {"text": Argument("x", labels({"in"}))})
    for is_error, tags in ((False, {"clean"}), (True, {"clean", "in"})):
        returned = ToolReturn("x", is_error=is_error)
        result, session = gate(policy).result_labels(call, returned, labels({"old"}))
        assert (result, session) == (labels(tags), labels({"old", "sent"}))


def test_a_refused_call_has_the_labels_of_its_arguments_and_of_the_preset() -> None:
    call = Call("send", {"text": Argument("x", labels({"in"}))}, labels({"decided"}))
    assert gate('tool "send" -> @tags |= {"r"};').refusal_labels(call) == labels({"in", "decided"})
    with_preset = Gate([compile_policy("")])
    assert with_preset.refusal_labels(call) == labels({"in", "decided", "__non_executable"})


def test_labels_are_foreseen_with_the_updates_before_an_unchecked_call() -> None:
    policy = (
        'tool "send" { session before { @tags |= {"b"}; } '
        'session after { when to.value == "bo" { @tags |= {"a"}; } } }'
    )
    old = labels({"old"})
    for to, added in (({}, set[str]()), ({"to": "bo"}, {"a"})):
        call = send(**to)
        assert gate(policy).foreseen(call, old) == labels({"old", *added})
        assert gate(policy).foreseen(call, old, is_checked=False) == labels({"old", "b", *added})


def test_a_session_may_copy_labels_of_a_result() -> None:
    copies = gate('tool "send" { session after { @tags |= @result.tags; } }', "")
    assert copies.copies_result_labels("send")
    assert not copies.copies_result_labels("read")


def test_an_error_in_a_check_denies_and_the_updates_before_the_call_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    policy = AgentPolicy(
        'tool "send" { session before { @tags |= {"tried"}; } }',
        labelling="none", allow_uncertain=False, tools=None,
    )  # fmt: skip
    monkeypatch.setattr(Engine, "decide", fail)
    checked = policy.decide("send", {}, Labels(), Labels())
    assert (checked.verdict, checked.session) == (None, labels({"tried"}))
    assert checked.denial is not None
    assert checked.denial.reason == "checking it raised RecursionError"


# Digests


def test_calls_have_one_digest_if_their_tool_gets_the_same_arguments() -> None:
    digest = gate("").digest
    nested = {"b": [1.0, {"y": 2, "x": -3}], "a": None}
    same = {"a": None, "b": [1, {"x": -3.0, "y": 2.0}]}
    assert digest(send(text=nested)) == digest(send(text=same, to="ada"))
    values: tuple[Any, ...] = (1, 1.5, True, "1", [], {}, None, 2**70, "\ud800", {**same, "a": 0})
    others = [
        *(send(text=value) for value in values),
        send(text=same, to="bo"),
        send(text=[same]),
        send(),
        Call("post", {"text": Argument(same), "to": Argument("ada")}),
    ]
    assert len({digest(call) for call in [send(text=nested), *others]}) == len(others) + 1


def test_the_digest_of_a_call_depends_on_each_of_its_parts() -> None:
    first = call_digest("send", {"a": 1}, {"a": []}, within=["policy"])
    others = [
        call_digest("post", {"a": 1}, {"a": []}, within=["policy"]),
        call_digest("send", {"a": 2}, {"a": []}, within=["policy"]),
        call_digest("send", {"a": 1}, {"a": ["x"]}, within=["policy"]),
        call_digest("send", {"a": 1}, {"a": []}, within=["other"]),
        call_digest("send", {"a": 1}, {"a": []}),
        call_digest("send", {"a": 1}, within=["policy"]),
        call_digest(
            "send", {"a": 1}, {"a": []}, within=["policy"], encode=lambda v: repr(v).encode()
        ),
    ]
    assert len({first, *others}) == len(others) + 1


def test_digests_in_stored_runs_and_threads_stay_valid() -> None:
    args = {"to": "Zoë", "n": [1, 2.5, None, True], "big": 2**70, "z": {"b": 1, "a": "\u2028"}}
    stored = "55c573143d84fcafe778c4bfd2fff831dcaf4bf0a03704e47d72edfcb41ec5b1"
    assert ProgramCall("1", "pay", args).digest == stored
    stored = "6cd509b0d9278c3f30615a559c3a73fd1be4e440155ee2b2f74c703d5a2fd10a"
    assert ProgramCall("1", "pay", {**args, "big": 1}).digest == stored
    policy = AgentPolicy(
        'tool "pay" { must deny always; }',
        labelling="conversation", allow_uncertain=False, tools=None,
    )  # fmt: skip
    seen = Labels(frozenset({"é"}), frozenset({"ada"}), frozenset({"t"}))
    call = {"id": "c1", "name": "pay", "args": args}
    stored = "08f4e6fed5271a57a55fcb7f16b9f9d173432cc09c6e9e3605cd32a5715457a5"
    assert policy.digest("m1", call, seen) == stored
