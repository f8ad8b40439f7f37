"""Ways to launder a text: what it says stays, and its labels may get lost (`laundering.toml`).

Explicit ways copy the text within the program, or let it wait for a second turn. Stores write it
somewhere and read it again. Implicit ways build it from the planner's own characters, in branches
that the text decides.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.agentdojo.attacks import LAUNDERED, Attack, attack, has_target
from benchmarks.agentdojo.chats import Turn
from benchmarks.agentdojo.worlds import Pair, carriers, goal_calls, goals_of, tasks_of

KINDS = ("explicit", "store", "implicit")
_WAYS = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Way:
    """A way to launder a text.

    Attributes:
        kind: One of `KINDS`.
        code: The source code of `laundered(text)`. Without it, the text waits for a second turn.
        suites: The suites with the tools that it needs; empty for all.
    """

    kind: str
    code: str = ""
    suites: tuple[str, ...] = ()


@cache
def ways() -> dict[str, Way]:
    """All ways by name."""
    return {name: Way(**way) for name, way in tomllib.loads(_WAYS.read_text("utf-8")).items()}


def cases_of(suite: str) -> Iterator[tuple[str, Pair]]:
    """Each way with each goal that has a target, in the first task that shows his text."""
    task = next(task for task in tasks_of(suite) if carriers(suite, task))
    for name, way in ways().items():
        if way.suites and suite not in way.suites:
            continue
        for goal in goals_of(suite):
            if has_target(goal_calls(suite, goal)):
                yield name, Pair(suite, task, goal)


def laundering(name: str, pair: Pair) -> Attack:
    """The attack `target`, whose targets are laundered before they are used."""
    way, plain = ways()[name], attack("target", pair)
    (turn,) = plain.turns
    reads, acts = turn.program.split(LAUNDERED)
    if not way.code:
        turns = (Turn(reads + "final_return_value = 1\n"), Turn("import json\n" + acts))
        return Attack(plain.planted, turns, plain.calls)
    # One call for each word: a loop over `words` would label what it makes.
    words = ", ".join(f"laundered(words[{place}])" for place in range(plain.words))
    program = f"{reads}{way.code}\nwords = [{words}]\n{acts}"
    return Attack(plain.planted, (Turn(program, reader=_repeat),), plain.calls)


def _repeat(query: str) -> dict[str, str]:
    return {"value": query.partition(": ")[2]}
