"""A policy that forbids branches on some data ends each program in which they decide a tool call.

The full run is `python -m tests.local.interpreter.branch_oracle --count 5000`.
"""

import pytest

from langchain_sequrity.local.interpreter import ProgramRaised, Run, ToolFailure, parse
from tests.local.interpreter.branch_oracle import DECIDERS, Sample, decides, passed, plain, sample
from tests.local.interpreter.running import SECRET, TOOLS

_COUNT = 500


@pytest.mark.long
def test_forbidden_data_decide_nothing_about_the_calls_of_tools() -> None:
    wrong = [found for seed in range(_COUNT) if (found := passed(sample(seed))) is not None]

    assert [found.text for found in wrong] == []


def test_every_decider_makes_two_runs_call_different_tools() -> None:
    samples = [sample(seed) for seed in range(3 * len(DECIDERS))]
    deciding = {one.decider for one in samples if one.decider is not None and decides(one)}

    assert set(DECIDERS) - deciding == set()


def test_a_decision_that_the_policy_does_not_notice_is_reported() -> None:
    source = "if unlabelled():\n    send(text='x')"

    assert passed(Sample(source, DECIDERS[0])) is not None


def test_a_program_that_the_policy_ends_without_need_is_reported() -> None:
    assert passed(Sample("if n == 1:\n    i = 1", None)) is not None
    assert passed(plain(0)) is None


def test_a_program_may_not_catch_a_tool_failure_that_has_forbidden_labels() -> None:
    run = Run(
        parse("try:\n    read(name='x')\nexcept ToolError:\n    send(to='x', text='y')"),
        tools=TOOLS,
        may_branch=lambda labels: "secret" not in labels.tags,
    )
    run.advance()
    end = run.advance(ToolFailure("no", SECRET))

    assert isinstance(end, ProgramRaised)
    assert (end.kind, end.labels) == ("branch", SECRET)
