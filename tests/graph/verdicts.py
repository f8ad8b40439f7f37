"""Compares verdicts on parallel steps: all calls made before the tasks run, or one by one.

Random graphs run twice under random policies: once in the way that the executor chooses, and once
with every call on its own. Both runs must have the same end, or the same denial of the same call
by the same rules.

`python -m tests.graph.verdicts --count 2000` runs 2,000 graphs and prints each that differs.
"""

import logging
import multiprocessing
import random
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import PolicyDenied, PolicySyntaxError
from langchain_sequrity.graph import executor
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.program import GraphProgram
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import compile_policy
from tests.graph import differential
from tests.graph.graph_text import text_of
from tests.graph.outcome import Outcome
from tests.graph.plans import Plan
from tests.graph.random_graphs import MIXES, cases_of, options_of, plan_of
from tests.sqrt.agreement import LETS, Policies
from tests.sqrt.generate import Tokens

PARALLEL = ("dags", "sends", "deferred", "reducers", "channels", "all")
"""Mixes of graphs that have several tasks in one step."""

Checks = dict[str, list[tuple[Any, ...]]]

_DENIED = f"{PolicyDenied.__module__}.{PolicyDenied.__qualname__}"
_CONFIG = {
    "response_format": {
        "include_policy_check_history": True,
        "include_namespace_snapshot": True,
        "strip_response_content": False,
    }
}
_ARGUMENTS = ("n", "log", "total", "text", "x")


class _Noting(LangGraphExecutor):
    """Keeps the checks of a denied run."""

    checks: ClassVar[list[Checks]]

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        try:
            return super().invoke(*args, **kwargs)
        except PolicyDenied as error:
            for one in error.checks:
                rules = [each.get("rule") for each in one["denied"]]
                told = one["verdict"], one["certain"], rules, one["arguments"]
                self.checks[0].setdefault(one["tool"], []).append(told)
            raise


class _Rules(Policies):
    """Policies for the tools of a graph."""

    def __init__(self, seed: object, plan: Plan) -> None:
        super().__init__(seed)
        self._tools = [node.name for node in plan.nodes if node.name.isidentifier()] or ["a"]

    def _tool(self) -> Tokens:
        name = self._random.choice(self._tools)
        return ["tool", *self._pick(*[f'"{name}"'] * 4, f'r"^[{name}]$"', 'r"^route"')]

    def _name(self) -> Tokens:
        return self._pick(*_ARGUMENTS)


@dataclass(frozen=True)
class Comparison:
    """A graph under a policy.

    Attributes:
        mix: The mix of features of the graph.
        seed: The seed of the graph and of the policy.
        chosen: The outcome in the way that the executor chooses.
        apart: The outcome with every call on its own.
        is_split: Whether these were two different ways.
        policy: The policy.
        checks: The checks of each denied run, by tool.
    """

    mix: str
    seed: int
    chosen: Outcome
    apart: Outcome
    is_split: bool
    policy: str
    checks: tuple[Checks, Checks]

    @property
    def verdict(self) -> str:
        """How the outcomes agree or differ."""
        if self.chosen == self.apart and not self.contradictions:
            ended = (self.apart.error or "state").rpartition(".")[2]
            return f"{'split' if self.is_split else 'apart'}: {ended}"
        if self.chosen.error == _DENIED and self.apart.error not in (None, _DENIED):
            return "left out: a task of the step failed before the call that is denied"
        return "DIFFERENT"

    @property
    def contradictions(self) -> list[tuple[str, Any, Any]]:
        """Pairs of checks of one call that differ, with the tool.

        The runs may differ in which calls of the step are checked before the denied call.
        """
        return [
            (tool, *pair)
            for tool in self.checks[0].keys() & self.checks[1].keys() - {"result_of"}
            for pair in zip(self.checks[0][tool], self.checks[1][tool], strict=False)
            if pair[0] != pair[1]
        ]


def compare(mix: str, seed: int, url: str) -> Comparison:
    """Run the graph of a seed under the policy of the seed in both ways."""
    plan = plan_of(MIXES[mix], f"verdicts {mix} {seed}")
    text, policy = text_of(plan), _policy(f"verdicts {mix} {seed}", plan)
    model = ChatSequrity("any/model", base_url=url, policy=policy, session_config=_CONFIG)
    programs = list[GraphProgram]()

    def noted(*args: Any, **options: Any) -> GraphProgram:
        programs.append(compile_graph(*args, **options))
        return programs[-1]

    with (
        mock.patch.object(executor, "compile_graph", noted),
        mock.patch.object(differential, "LangGraphExecutor", _Noting),
    ):
        _Noting.checks = [{}, {}]
        chosen = differential.run(text, model)
        _Noting.checks.reverse()
        with mock.patch.object(executor, "why_not_split", return_value=_apart):
            apart = differential.run(text, model)
    is_split = bool(programs) and programs[0].result_of in programs[0].offered
    return Comparison(
        mix,
        seed,
        chosen,
        apart,
        is_split,
        str(policy.codes),
        (_Noting.checks[1], _Noting.checks[0]),
    )


def _apart(*_: object) -> str:
    return "everything is, here"


def _policy(seed: str, plan: Plan) -> PolicyHeader:
    rules, dice = _Rules(seed, plan), random.Random(seed)  # noqa: S311 - no secret
    while True:
        text = f"{LETS}\n{rules.spaced(rules.policy())}"
        try:
            compile_policy(text)
        except PolicySyntaxError:
            continue
        return PolicyHeader.from_sqrt(text, default_allow=dice.random() < 0.9)


# -- many graphs, in several processes

_URL: list[str] = []


def _start() -> None:
    logging.disable(logging.CRITICAL)  # LangGraph warns of targets that do not exist
    warnings.simplefilter("ignore")  # random rules protect nothing
    server = LocalServer()
    server.start()
    _URL.append(server.base_url)


def _compare(case: tuple[str, int]) -> Comparison:
    return compare(*case, _URL[0])


def main(arguments: list[str]) -> int:
    """Compare random graphs, print a table, and return 1 if any two outcomes differ."""
    options = options_of("verdicts", 2000, PARALLEL).parse_args(arguments)
    verdicts: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        cases = pool.imap_unordered(_compare, cases_of(options, PARALLEL), chunksize=5)
        for found in tracked(cases, "Comparing", unit="graphs", total=options.count):
            verdicts[found.verdict] += 1
            if found.verdict == "DIFFERENT":
                ended = " / ".join(
                    f"{one.error} {one.message[:200]!r} {one.seen}"
                    for one in (found.chosen, found.apart)
                )
                hide()
                sys.stdout.write(f"DIFFERENT {found.mix} {found.seed}: {ended}\n{found.policy}\n")
                sys.stdout.flush()
    sys.stdout.write("".join(f"{count:6} {name}\n" for name, count in sorted(verdicts.items())))
    return 1 if verdicts["DIFFERENT"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
