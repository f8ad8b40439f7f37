"""The verdicts of the policy on calls, without a model or a tool."""

import re

import pytest
from langchain_sequrity.sqrt import coverage, simulate
from langchain_sequrity.testing import assert_allowed, assert_denied

from agent import POLICY

TEXT = POLICY.read_text(encoding="utf-8")

READ = {"tool": "read_mail", "id": "mail", "arguments": {"number": 1}}


def send(to, **more):
    return {"tool": "send_mail", "arguments": {"to": to, "text": "Hello"}, **more}


def test_mail_goes_anywhere_before_one_was_read():
    assert_allowed(simulate(TEXT, [send("eve@evil.example"), send("ada@house.example")]))


def test_once_a_mail_was_read_mail_stays_in_the_house():
    read, inside, outside = simulate(
        TEXT, [READ, send("ada@house.example"), send("eve@evil.example")]
    )
    assert_allowed(read)
    assert_allowed(inside, tool="send_mail", certain=True)
    assert_denied(outside, tool="send_mail", reason="only to the house", strength="hard")


def test_the_text_of_a_mail_does_not_leave_the_house():
    labels = {"text": {"tags": ["mail"]}}
    denied = simulate(TEXT, [send("eve@evil.example", labels=labels)])
    assert_denied(denied, rule=re.compile(r"text\.tags overlaps"), certain=True)


@pytest.mark.parametrize("to", ["eve@evil.example", "ada@house.example.evil.example", ""])
def test_no_other_address_counts_as_the_house(to):
    assert_denied(simulate(TEXT, [READ, send(to)])[1], tool="send_mail")


def test_deleting_needs_a_person():
    deleted = simulate(TEXT, [{"tool": "delete_mail", "arguments": {"number": 1}}])
    assert_denied(deleted, reason="only a person", strength="soft")


def test_these_calls_exercise_every_rule():
    calls = [
        send("ada@house.example"),
        send("eve@evil.example", labels={"text": {"tags": ["mail"]}}),
        READ,
        send("eve@evil.example"),
        {"tool": "delete_mail", "arguments": {"number": 1}},
    ]
    found = coverage(TEXT, calls)
    assert not found.missed, str(found)
