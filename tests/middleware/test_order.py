"""Calls of one message run in parallel, but are checked as if they ran one after the other."""

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Engine, compile_policy
from tests.middleware.agents import agent, ask, calling, kinds

POLICIES = [
    """
    tool "a" {
        must deny when "two" in @session.tags;
        session before { when "one" in @tags { @tags |= {"two"}; } @tags |= {"one"}; }
    }
    tool "b" { must deny when "b" in @session.tags; session after { @tags |= {"b"}; } }
    tool "c" { must deny when "b" in @session.tags and "one" in @session.tags; }
    """,
    """
    tool "a" { result { @tags |= {"web"}; } }
    tool "b" { must deny when x.tags overlaps {"web"}; session after { @tags -= {"open"}; } }
    tool r"^[ac]$" { should deny when "open" in @session.tags; session before { @tags |= {"open"}; } }
    """,
    """
    tool r"." -> session after @tags |= {"done"} when @result.value == "b1";
    tool "c" { must allow when "done" in @session.tags; }
    """,
]


def a(x: int) -> str:
    """Do it."""
    return f"a{x}"


def b(x: int) -> str:
    """Do it."""
    return f"b{x}"


def c(x: int) -> str:
    """Do it."""
    return f"c{x}"


Asked = tuple[int, str, int]
"""The number of the message, the tool, and the argument."""


def one_after_the_other(engine: Engine, asked: list[Asked], waited: set[int]) -> list[str]:
    """The outcome of each call if it is checked after the previous one has ended."""
    found: list[str] = []
    session, seen = Labels(), Labels()
    number = 0
    for _, message in groupby(asked, key=lambda one: one[0]):
        labels = seen
        for _, tool, x in message:
            number += 1
            if number - 1 in waited:
                found.append("waits")
                continue
            call = Call(tool, {"x": Argument(x, labels)})
            session = engine.before(call, session)
            if not engine.decide(call, session).allowed:
                found.append("policy")
                continue
            got, session = engine.after(call, Argument(f"{tool}{x}", labels), session)
            seen = seen.join(got)
            found.append("made")
    return found


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The policy protects less")  # one denies every call
@settings(max_examples=60)
@given(
    policy=st.sampled_from(POLICIES),
    asked=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 1)),
        min_size=1,
        max_size=7,
    ).map(lambda calls: sorted(calls, key=lambda one: one[0])),
)
def test_a_call_that_does_not_wait_is_decided_as_if_earlier_calls_had_ended(
    policy: str, asked: list[Asked]
) -> None:
    messages: list[Any] = [
        calling(*[(tool, {"x": x}) for _, tool, x in message])
        for _, message in groupby(asked, key=lambda one: one[0])
    ]
    found = kinds(agent(policy, [a, b, c], *messages).invoke(ask()))
    waited = {number for number, kind in enumerate(found) if kind == "waits"}
    # `PolicyHeader.compile` chooses the presets; they do not affect these policies.
    assert found == one_after_the_other(compile_policy(policy), asked, waited)
    for _, message in groupby(zip(asked, found, strict=True), key=lambda one: one[0][0]):
        first = [kind for _, kind in message]
        assert first[0] != "waits"
