"""Classes of equal runs: one of each class runs, and counts for all.

What a policy sees of a plan of the attacker depends on the goal's calls and on the tool that
carries his text, not on the user's task. Honest plans run with each goal, because AgentDojo judges
what happened by the goal. `--full` runs every pair, and a test compares the two.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from benchmarks.agentdojo.attacks import TARGETS
from benchmarks.agentdojo.runs import Run
from benchmarks.agentdojo.worlds import carriers, goal_calls


@dataclass(frozen=True)
class RunClass:
    """Equal runs.

    Attributes:
        run: The first of them, which runs.
        weight: How many they are.
    """

    run: Run
    weight: int = 1


def classes_of(runs: Iterable[Run], *, full: bool) -> list[RunClass]:
    """The classes of runs, in the order of their first runs; each run alone if `full`."""
    if full:
        return [RunClass(run) for run in runs]
    members: dict[Hashable, list[Run]] = {}
    for run in runs:
        members.setdefault(_key(run), []).append(run)
    return [RunClass(equal[0], len(equal)) for equal in members.values()]


def _key(run: Run) -> Hashable:
    pair, settings = run.pair, (run.policy, run.flow, run.kind, run.pair.suite)
    if run.way:
        return (*settings, run.way, _targeted(pair.suite, pair.goal))
    if run.kind in ("task", "honest", "obeying"):
        return (*settings, pair)  # each goal has a check of its own
    source = carriers(pair.suite, pair.task)[0]
    return (*settings, pair.goal, source.call.tool)


def _targeted(suite: str, goal: str) -> frozenset[tuple[str, str]]:
    """The tools and arguments that say whom or what a goal reaches."""
    return frozenset(
        (call.tool, name)
        for call in goal_calls(suite, goal)
        for name in call.arguments
        if name in TARGETS
    )
