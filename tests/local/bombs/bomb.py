"""Defines a bomb and how it must end, and makes bombs from an operation."""

import ast
from dataclasses import dataclass
from typing import Literal

Ending = Literal["limit", "refused", "harmless", "over"]
_MOST_NODES = 19_900  # of the 20,000 that a program may have, without the loop
_MOST_LETTERS = 99_900  # of 100,000


@dataclass(frozen=True, slots=True)
class Bomb:
    """A program that takes as much time or memory as it can.

    `ends` says how it must end. `limit` is a failure that names a limit, `refused` a refusal before
    it runs, and `harmless` a value or an exception of the program. `over` is any of these, because
    it depends on the machine or on which of two guards is first. Every bomb must stay within the
    limits of time and memory in `watching`.
    """

    name: str
    program: str
    ends: Ending = "limit"


def kept(name: str, setup: str, expression: str) -> Bomb:
    """Keep the results of an operation in an endless loop. Each must be paid for."""
    return Bomb(f"{name}, kept", f"{setup}kept = []\nwhile True:\n    kept.append({expression})\n")


def wide(name: str, setup: str, expression: str) -> Bomb:
    """Run it thousands of times in each statement. The clock must be read in between."""
    nodes = _MOST_NODES - _nodes(setup)
    letters = _MOST_LETTERS - len(setup)
    count = max(1, min(nodes // _nodes(expression), letters // (len(expression) + 2)))
    row = f"{expression}, " * count
    return Bomb(f"{name}, wide", f"{setup}while True:\n    ({row})\n")


def _nodes(program: str) -> int:
    return sum(1 for _ in ast.walk(ast.parse(program)))
