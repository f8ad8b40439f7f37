"""Assertions about verdicts and simulations."""

import re
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Simulation, compile_policy, simulate
from langchain_sequrity.testing import assert_allowed, assert_denied

POLICY = """
    tool "read_mail" { result { @tags |= {"mail"}; } session after { @tags |= {"mail"}; } }
    tool "pay" {
        /// a mail must not
        /// choose who is paid
        must deny when to.tags overlaps {"mail"}
            and not to.value in {"Ada"};
        /// large sums need a signature
        should deny when euros.value in {int 100..};
    }
"""
READ: dict[str, Any] = {"tool": "read_mail", "id": "mail"}


def pay(euros: int = 5, to: str = "Bo", **more: Any) -> dict[str, Any]:
    return {"tool": "pay", "arguments": {"euros": euros, "to": to}, **more}


LARGE = simulate(POLICY, [pay(500)])[0]
FROM_MAIL = simulate(POLICY, [READ, pay(uses={"to": ["mail"]})])[1]
SMALL = simulate(POLICY, [pay(5)])[0]
IN_DOUBT = simulate('tool "a" { must deny when x.value == y.value; }', [{"tool": "a"}])[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"tool": "pay"}, {"rule": "euros.value in"}, {"rule": re.compile(r"int \d+")},
     {"reason": "a signature"}, {"reason": re.compile("SIGN", re.IGNORECASE)}, {"strength": "soft"},
     {"certain": True}, {"tool": "pay", "rule": "should deny", "reason": "large", "strength": "soft"}],
)  # fmt: skip
def test_an_expected_denial_passes(options: dict[str, Any]) -> None:
    assert_denied(LARGE, **options)
    assert_denied(LARGE.verdict, **options)
    assert_denied(simulate(POLICY, [pay(500), pay(600)]), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tool": "read_mail"}, "the tool is `pay`"),
     ({"rule": "must deny"}, "the rule is `should deny when euros.value in {int 100..};`"),
     ({"rule": re.compile("^must")}, "a rule that matches /^must/"),
     ({"reason": "mail"}, "the reason is `large sums need a signature`"),
     ({"strength": "hard"}, "the strength is soft"),
     ({"certain": False}, "the verdict is certain")],
)  # fmt: skip
def test_a_denial_that_differs_fails_and_says_how(options: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as failed:
        assert_denied(LARGE, **options)
    text = str(failed.value)
    assert words in text
    assert text.startswith("Expected: denied, ")
    assert "large sums need a signature" in text  # the deciding rule is always shown


def test_line_breaks_in_rules_and_reasons_are_ignored() -> None:
    assert_denied(FROM_MAIL, rule='{"mail"} and not to.value', reason="not choose who")
    assert_denied(FROM_MAIL, rule='{"mail"}\n   and not')


def test_rule_and_reason_must_belong_to_the_same_rule() -> None:
    policy = """
        tool "a" {
            /// first
            should deny when x.value == 1;
            /// second
            should deny when x.value in {int 0..2};
        }
    """
    (both,) = simulate(policy, [{"tool": "a", "arguments": {"x": 1}}])
    assert both.verdict is not None
    assert len(both.verdict.reasons) == 2
    assert_denied(both, rule="== 1", reason="first")
    assert_denied(both, rule="int 0..2", reason="second")
    with pytest.raises(AssertionError, match="the reason is `first` and `second`"):
        assert_denied(both, rule="== 1", reason="second")


def test_assert_denied_fails_for_an_allowed_call_and_assert_allowed_for_a_denied_one() -> None:
    assert_allowed(SMALL, tool="pay", rule="default_allow", strength="soft", certain=True)
    with pytest.raises(
        AssertionError, match=r"(?s)Expected: denied\..*`default_allow`.*is allowed"
    ):
        assert_denied(SMALL)
    with pytest.raises(AssertionError, match=r"(?s)Expected: allowed\..*signature.*it is denied"):
        assert_allowed(LARGE)


def test_a_verdict_of_an_engine_can_be_asserted() -> None:
    engine = compile_policy(POLICY)
    mail = Argument("Eve", Labels(tags=frozenset({"mail"})))
    verdict = engine.decide(Call("pay", {"to": mail, "euros": Argument(1)}), Labels())
    assert_denied(verdict, tool="pay", strength="hard")


def test_doubt_can_be_asserted() -> None:
    assert_denied(IN_DOUBT, certain=False)
    with pytest.raises(AssertionError, match="the verdict is in doubt"):
        assert_denied(IN_DOUBT, certain=True)


def test_every_call_of_a_simulation_must_pass_and_the_failure_shows_the_table() -> None:
    mixed = simulate(POLICY, [READ, pay(5), pay(500)])
    with pytest.raises(AssertionError) as failed:
        assert_allowed(mixed)
    text = str(failed.value)
    assert "Difference for call 3: it is denied." in text
    assert "of call 2" not in text
    assert text.endswith(mixed.text(120))
    assert_allowed(mixed[:2])
    with pytest.raises(
        AssertionError, match=r"Difference for call 1: it is allowed; the tool is `read_m"
    ):
        assert_denied(mixed, tool="pay")


def test_a_call_that_is_not_reached_is_neither_allowed_nor_denied() -> None:
    policy = POLICY + 'tool "read_mail" { must deny always; }'
    not_reached = simulate(policy, [READ, pay(uses={"to": ["mail"]})])[1]
    for check in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match=r"not reached: no result of `mail`"):
            check(not_reached)


@pytest.mark.parametrize("check", [assert_allowed, assert_denied])
@pytest.mark.parametrize(
    ("what", "options", "words"),
    [(Simulation(()), {}, "has no calls"),
     (simulate(POLICY, [pay(5)] * 3, keep=1), {}, "has only the first 1 of 3 decisions"),
     (simulate(POLICY, [pay(5)] * 3, keep=0), {}, "has only the first 0 of 3 decisions"),
     (None, {}, "got a value of type `NoneType`"),
     ("denied", {}, "got a value of type `str`"),
     ({"answer": "x"}, {}, "list of messages as `messages`"),
     (LARGE, {"rule": ""}, "`rule` is empty"),
     (LARGE, {"reason": re.compile("")}, "`reason` is empty"),
     (LARGE, {"tool": 5}, "`tool`: expected `str`, got a value of type `int`"),
     (LARGE, {"rule": b"x"}, "`rule`: expected `str` or `Pattern`"),
     (LARGE, {"certain": "yes"}, "`certain`: expected `bool`"),
     (LARGE, {"strength": "must"}, '`strength` must be "hard" or "soft"')],
)  # fmt: skip
def test_an_unsupported_value_or_option_is_a_usage_error(
    check: Any, what: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        check(what, **options)
    assert words in str(refused.value)


def test_control_characters_of_a_policy_are_escaped_in_a_failure() -> None:
    policy = 'tool "a" {\n/// red\x1b[31m\nmust deny always; }'
    with pytest.raises(AssertionError) as failed:
        assert_allowed(simulate(policy, [{"tool": "a"}]))
    assert "\x1b" not in str(failed.value)
    assert "red\\x1b[31m" in str(failed.value)
