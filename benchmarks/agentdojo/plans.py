"""What a perfect planner and a perfect reader say for each task: `plans/<suite>.toml`.

A program is written from the user's request and the definitions of the tools alone. Where it needs
the meaning of a text, it asks the reader. Answers of the reader say what is in AgentDojo's data.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.agentdojo.chats import Reader, Turn
from benchmarks.agentdojo.readers import read

_PLANS = Path(__file__).with_name("plans")


@dataclass(frozen=True)
class Plan:
    """The plan of a task.

    Attributes:
        turn: What planner and reader say.
        not_plannable: Why no program can be written from the request alone.
    """

    turn: Turn
    not_plannable: str = ""


@cache
def plans_of(suite: str) -> Mapping[str, Plan]:
    """The plans of a suite by AgentDojo's ids of its tasks."""
    content = tomllib.loads((_PLANS / f"{suite}.toml").read_text("utf-8"))
    helpers = content.pop("helpers")
    reader = read if content.pop("computed_reader", False) else None
    return {f"user_task_{number}": _plan(plan, helpers, reader) for number, plan in content.items()}


def _plan(written: Mapping[str, Any], helpers: str, reader: Reader | None) -> Plan:
    program = helpers + written["program"] if "program" in written else ""
    turn = Turn(program, written.get("reader", ()), reader)
    return Plan(turn, written.get("not_plannable", ""))
