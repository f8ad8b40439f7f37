"""Random programs over every operation lose no label.

In full numbers: `python -m tests.local.interpreter.taint_oracle --count 20000`, and `--strict`.
"""

import pytest

from langchain_sequrity.local.interpreter import parse
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.modules import MODULES
from tests.local.interpreter.differential import missing_nodes, node_kinds
from tests.local.interpreter.operations import (
    all_templates,
    covered,
    fields_needed,
    needed,
    unnamed,
)
from tests.local.interpreter.taint_oracle import (
    BRANCHES,
    Step,
    Trial,
    Writer,
    branching,
    examine,
    losses,
    smallest,
    trials,
)

_COUNT = 500


def test_what_differs_between_two_runs_carries_the_tag_of_the_secret() -> None:
    found = [losses(trial) for seed in range(_COUNT) for trial in trials(seed)]

    assert [lost[0].text for lost in found if lost] == []


def test_in_strict_mode_what_is_assigned_under_and_after_branches_carries_the_tag() -> None:
    found = [losses(trial) for seed in range(_COUNT) for trial in branching(seed)]

    assert [lost[0].text for lost in found if lost] == []


def test_every_operation_of_the_interpreter_has_a_template() -> None:
    assert needed() - covered() == set()
    assert fields_needed() - covered() == set()
    assert unnamed() == set()


def test_an_operation_without_a_template_is_noticed() -> None:
    some = BUILTINS["len"]
    builtins = {**BUILTINS, "fresh": some}
    modules = {**MODULES, "math": {**MODULES["math"], "fresh": some}}
    methods = {**METHODS, str: {**METHODS[str], "fresh": some}}

    assert needed(builtins, modules, methods) - covered() == {
        ("name", "fresh"), ("module", "math", "fresh"), ("method", "str", "fresh"),
    }  # fmt: skip


def test_templates_are_programs_that_use_every_node_of_the_language() -> None:
    templates = all_templates()
    sources = []
    for start in range(0, len(templates), 40):
        writer = Writer(f"templates {start}")
        for template in templates[start : start + 40]:
            writer.perform(template)
        sources.append(Trial(tuple(writer.steps), "num", (1, 2)).source())
        parse(sources[-1])

    assert missing_nodes(node_kinds(sources)) == set()


def test_every_branch_is_a_program_that_ends_both_ways() -> None:
    ended = [examine(trial) for seed in range(len(BRANCHES)) for trial in branching(seed)]

    assert None not in ended


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_flow_without_a_label_is_seen(is_strict: bool) -> None:
    # Nobody labels what is not assigned, in either mode.
    steps = (Step("v1 = 0\nif flag:\n    v1 = 1"),)

    found = losses(Trial(steps, "flag", (True, False), is_strict=is_strict))

    assert [(loss.variable, loss.values) for loss in found] == [("v1", (1, 0))]


def test_a_step_that_goes_two_ways_is_taken_out() -> None:
    steps = (
        Step("v1 = 0"),
        Step("if flag:\n    p1 = 1\n    v1 = 1\nelse:\n    p1 = 2"),
        Step("v2 = v1"),
    )

    found = examine(Trial(steps, "flag", (True, False)))

    assert found is not None
    assert ([step.text for step in found.trial.steps], found.losses) == (["v1 = 0", "v2 = v1"], [])


def test_a_program_is_shrunk_to_what_loses_the_tag() -> None:
    steps = (
        Step("v1 = [1, 2]"),
        Step("v2 = len(v1) + 3\nif flag:\n    v2 = 1"),
        Step("v3 = str(v2)"),
    )
    loss, *_ = losses(Trial(steps, "flag", (True, False)))

    assert [step.text for step in smallest(loss).trial.steps] == ["v2 = len\nif flag:\n    v2 = 1"]
