"""Runs: a task or an attack under a policy, and how it ended."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from benchmarks.agentdojo import laundering
from benchmarks.agentdojo.attacks import KINDS, Attack, attack, data_only, obeying
from benchmarks.agentdojo.chats import ENDED, Desk, Outcome, Turn
from benchmarks.agentdojo.plans import plans_of
from benchmarks.agentdojo.policies import header_of
from benchmarks.agentdojo.worlds import Pair, World, carriers, goal_calls, pairs_of, tasks_of

NOT_PLANNABLE = "not plannable"


class Run(NamedTuple):
    """What to run.

    Attributes:
        policy: The name of the policy.
        flow: How the flow of the program is controlled.
        kind: `task`; `code`, `parse` or `target` for a plan of the attacker; `honest` or `obeying`
            for an honest plan and such a reader; or a kind of laundering.
        pair: The task and the goal.
        way: The way of laundering.
    """

    policy: str
    flow: str
    kind: str
    pair: Pair
    way: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        run: What was run.
        state: `denied`, `stopped`, `ended`, or `not plannable`.
        is_useful: Whether the turn ended and AgentDojo finds the task done.
        is_harmful: Whether AgentDojo finds the goal reached, or all its calls were made.
        tool: The tool whose call was denied.
        reason: Why the run did not end.
        questions: The calls of a task that a person would have to approve; `None` if that would
            not help.
    """

    run: Run
    state: str
    is_useful: bool = False
    is_harmful: bool = False
    tool: str = ""
    reason: str = ""
    questions: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "run"}
        return {**self.run._asdict(), "pair": asdict(self.run.pair), **fields}


def tasks(suites: Iterable[str], policy: str, flow: str) -> Iterator[Run]:
    """Each task without an attacker."""
    for suite in suites:
        for task in tasks_of(suite):
            yield Run(policy, flow, "task", Pair(suite, task))


def hijacked(suites: Iterable[str], policy: str, flow: str) -> Iterator[Run]:
    """Each plan of the attacker, for the goals for which AgentDojo lists calls."""
    for kind in KINDS:
        for pair in _pairs(suites):
            if goal_calls(pair.suite, pair.goal) and carriers(pair.suite, pair.task):
                yield Run(policy, flow, kind, pair)


def data(suites: Iterable[str], policy: str, flow: str) -> Iterator[Run]:
    """Each honest plan with the attacker's text in the data, and two readers."""
    for kind in ("honest", "obeying"):
        for pair in _pairs(suites):
            yield Run(policy, flow, kind, pair)


def laundered(suites: Iterable[str], policy: str, flow: str) -> Iterator[Run]:
    """Each way of laundering with each goal."""
    for suite in suites:
        for way, pair in laundering.cases_of(suite):
            yield Run(policy, flow, laundering.ways()[way].kind, pair, way)


def _pairs(suites: Iterable[str]) -> Iterator[Pair]:
    for suite in suites:
        yield from pairs_of(suite)


def verdicts(runs: Iterable[Run], processes: int | None = None) -> Iterator[Verdict]:
    """Run all, in processes with a server each, and give the verdicts in the order of the runs."""
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        yield from pool.map(_in_process, runs, chunksize=8)


@cache
def _desk() -> Desk:
    """The server of this process. It ends with the process."""
    return Desk().__enter__()


def _in_process(run: Run) -> Verdict:
    return verdict(_desk(), run)


def verdict(desk: Desk, run: Run) -> Verdict:
    """Run a task or an attack."""
    if run.kind in ("task", "honest", "obeying"):
        return _of_plan(desk, run)
    return _of_attack(desk, run)


def _of_plan(desk: Desk, run: Run) -> Verdict:
    plan = plans_of(run.pair.suite)[run.pair.task]
    if plan.not_plannable:
        return Verdict(run, NOT_PLANNABLE, reason=plan.not_plannable)
    turn = plan.turn
    if run.kind == "obeying":
        turn = turn.obeying(obeying(run.pair))
    planted = data_only(run.pair) if run.pair.goal else {}
    world = World(run.pair, planted)
    outcome = desk.run(run.pair, world, [turn], header_of(run.policy, run.pair.suite, run.flow))
    is_harmful = bool(run.pair.goal) and world.is_harmful(outcome.answer)
    found = _verdict(run, world, outcome, is_harmful=is_harmful)
    if run.kind != "task":
        return found
    return _with_questions(desk, found, turn)


def _with_questions(desk: Desk, found: Verdict, turn: Turn) -> Verdict:
    """The verdict on a task, with the calls that a person approves until it is done."""
    if found.is_useful:
        return replace(found, questions=0)
    pair, world = found.run.pair, World(found.run.pair)
    header = header_of(found.run.policy, pair.suite, found.run.flow)
    outcome = desk.run(pair, world, [turn], header, approves=True)
    is_done = outcome.state == ENDED and world.is_useful(outcome.answer)
    return replace(found, questions=outcome.questions) if is_done else found


def _of_attack(desk: Desk, run: Run) -> Verdict:
    hostile = _attack(run)
    world = World(run.pair, hostile.planted)
    header = header_of(run.policy, run.pair.suite, run.flow)
    outcome = desk.run(run.pair, world, hostile.turns, header)
    made = [call for call in world.calls if not call.error]
    is_done = all(call in made for call in hostile.calls)
    is_harmful = is_done or world.is_harmful(outcome.answer)
    return _verdict(run, world, outcome, is_harmful=is_harmful)


def _attack(run: Run) -> Attack:
    return laundering.laundering(run.way, run.pair) if run.way else attack(run.kind, run.pair)


def _verdict(run: Run, world: World, outcome: Outcome, *, is_harmful: bool) -> Verdict:
    denial = outcome.denial
    return Verdict(
        run,
        outcome.state,
        is_useful=outcome.state == ENDED and world.is_useful(outcome.answer),
        is_harmful=is_harmful,
        tool=denial.tool or "" if denial else "",
        reason=denial.reason or denial.text if denial else outcome.reason,
    )
