"""What a bomb is, how it has to end, and how an operation becomes one."""

import ast
from dataclasses import dataclass
from typing import Literal

Ending = Literal["limit", "refused", "harmless", "over"]
_MOST_NODES = 19_900  # of the 20,000 that a program may have, without the loop around
_MOST_LETTERS = 99_900  # of 100,000


@dataclass(frozen=True, slots=True)
class Bomb:
    """A program that takes much.

    `ends` is how it has to end: `limit` is a failure that names a limit, `refused` a refusal before
    it runs, `harmless` a value or an exception of its own. `over` is any of them, where that
    depends on the machine or on which of two guards is first. Whatever it is, it is never slow and
    never big.
    """

    name: str
    program: str
    ends: Ending = "limit"


def kept(name: str, setup: str, expression: str) -> Bomb:
    """Keep what an operation makes, over and over: each has to pay for what it takes."""
    return Bomb(f"{name}, kept", f"{setup}kept = []\nwhile True:\n    kept.append({expression})\n")


def wide(name: str, setup: str, expression: str) -> Bomb:
    """Do it thousands of times in each statement: the clock has to be looked at in between."""
    nodes = _MOST_NODES - _nodes(setup)
    letters = _MOST_LETTERS - len(setup)
    count = max(1, min(nodes // _nodes(expression), letters // (len(expression) + 2)))
    row = f"{expression}, " * count
    return Bomb(f"{name}, wide", f"{setup}while True:\n    ({row})\n")


def _nodes(program: str) -> int:
    return sum(1 for _ in ast.walk(ast.parse(program)))
