"""The plans for AgentDojo's tasks, without the package `agentdojo`."""

import ast
from collections.abc import Iterator

import pytest

from benchmarks.agentdojo.laundering import ways
from benchmarks.agentdojo.plans import Plan, plans_of
from benchmarks.agentdojo.readers import read
from benchmarks.agentdojo.worlds import SUITES

PLANS = [(suite, task) for suite in SUITES for task in plans_of(suite)]


def fields(program: str) -> Iterator[set[str]]:
    """The fields of the schemas in a program."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ClassDef):
            yield {
                str(item.target.id)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }


def plan_of(suite: str, task: str) -> Plan:
    return plans_of(suite)[task]


def test_each_of_the_97_tasks_has_a_plan_or_the_reason_why_there_is_none() -> None:
    assert len(PLANS) == 97
    plans = [plan_of(*names) for names in PLANS]
    assert all(bool(plan.turn.program) != bool(plan.not_plannable) for plan in plans)
    assert sum(bool(plan.not_plannable) for plan in plans) == 2


@pytest.mark.parametrize(("suite", "task"), PLANS)
def test_a_reader_answers_what_the_program_asks_for(suite: str, task: str) -> None:
    turn = plan_of(suite, task).turn
    schemas = [schema - {"have_enough_info"} for schema in fields(turn.program)]
    assert all(set(answer) in schemas for answer in turn.answers)
    assert bool(turn.answers) <= ("parse_with_ai" in turn.program)


def test_a_computed_reader_reads_the_texts_of_travel() -> None:
    assert read("Names in this list: Hotels: Sea View\nOld Inn\n") == {
        "names": ["Sea View", "Old Inn"]
    }
    assert read("Rating of each: {'Old Inn': 'Rating: 4.5\\nReviews: 5 stars'}") == {
        "ratings": {"Old Inn": 4.5}
    }
    assert read("Lowest and highest price of each: {'Old Inn': 'Price range: 80.0 - 150.0'}") == {
        "prices": {"Old Inn": [80.0, 150.0]}
    }


def test_each_way_of_laundering_defines_what_the_attack_calls() -> None:
    written = [way.code for way in ways().values() if way.code]
    names = [
        {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
        for code in written
    ]
    assert all("laundered" in defined for defined in names)
    assert len(written) == len(ways()) - 1
