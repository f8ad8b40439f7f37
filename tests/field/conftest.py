"""Local servers behind the field server, and combinations of its habits."""

from collections.abc import Iterator
from typing import Any

import pytest

from langchain_sequrity.local import LocalServer
from tests.field.recorded import newest
from tests.field.server import Habits

PROGRAM = """
first = pay(euros=5, to="Zo\u00eb")
second = pay(euros=6, to="Bo")
final_return_value = f"{first} {second}"
"""
SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner"}, "program": PROGRAM},
    {"when": {"tool_result": "to Bo"}, "text": "Both are paid."},
    {"when": {"tool_result": "to Zo"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 6, "to": "Bo"}}]},
    {"when": {"user": "pay"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 5, "to": "Zo\u00eb"}}]},
]  # fmt: skip

HABITS = {
    "plain": Habits(),
    "reruns": Habits(reruns=True),
    "compares": Habits(compares=True),
    "compares strictly": Habits(compares=True, mismatch="reject"),
    "dashless": Habits(dashless=True),
    "reruns and compares": Habits(reruns=True, compares=True),
    "reruns, dashless": Habits(reruns=True, dashless=True),
    "short": Habits(short=True),
    "short and compares": Habits(short=True, compares=True),
    "unknown keys": Habits(unknown_keys=True, null_content=True),
    "newest": Habits(denials=newest, unknown_keys=True, null_content=True, nan=True),
    "all": Habits(reruns=True, compares=True, dashless=True),
    "all of the newest": Habits(
        compares=True, short=True, denials=newest, unknown_keys=True, null_content=True, nan=True
    ),
}


@pytest.fixture(scope="session")
def behind() -> Iterator[LocalServer]:
    with LocalServer(script=SCRIPT) as running:
        yield running
