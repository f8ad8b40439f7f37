"""Runs random graphs in LangGraph itself and in the executor, and compares the outcomes.

`python -m tests.graph.differential --count 6000` runs 6,000 graphs. It prints each seed whose two
runs differ, with the smallest graph that still shows the difference. `--mix` and `--seed` select
graphs; `--text` prints the graph of one seed.
"""

import linecache
import logging
import multiprocessing
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions
from langchain_sequrity.display.progress import tracked
from langchain_sequrity.local import LocalServer
from tests.graph.graph_text import text_of
from tests.graph.outcome import Outcome, outcome
from tests.graph.plans import Plan
from tests.graph.random_graphs import MIXES, cases_of, options_of, plan_of
from tests.graph.shrink import shrink

_FILES = count()
_REFUSED = "langchain_sequrity.errors.GraphNotSupported"
_ENDLESS = "builtins.OverflowError"  # what generated graphs raise when they grow too large


@dataclass(frozen=True)
class Comparison:
    """The two outcomes of a graph.

    Attributes:
        mix: The mix of features.
        seed: The seed of the graph within the mix.
        langgraph: The outcome in LangGraph.
        executor: The outcome in the executor.
    """

    mix: str
    seed: int
    langgraph: Outcome
    executor: Outcome

    @property
    def verdict(self) -> str:
        """How the outcomes agree or differ."""
        if self.langgraph.error == _ENDLESS:
            return "left out: endless"
        if self.executor.error == _REFUSED:
            return "refused"
        if self.langgraph != self.executor:
            return "DIFFERENT"
        return "equal: " + (self.langgraph.error or "state").rpartition(".")[2]

    def runs(self) -> tuple[Outcome, Outcome]:
        """The outcome in LangGraph, then the outcome in the executor."""
        return self.langgraph, self.executor

    @property
    def kind(self) -> tuple[object, ...]:
        """A key that is equal for two comparisons that show the same problem."""
        ours, theirs = self.executor, self.langgraph
        types = tuple(one.value and one.value[0] for one in (ours, theirs))
        return self.verdict, ours.error, theirs.error, types, ours.value == theirs.value


def run(text: str, model: ChatSequrity | None) -> Outcome:
    """Run a graph that is given as text: in LangGraph, or with a model in the executor."""
    name = f"<graph {next(_FILES)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), module)  # noqa: S102 - generated here

    def call() -> Any:
        graph = module["build"]()
        if model is None:
            compiled = graph.compile()
        else:
            options = {node: NodeOptions(**one) for node, one in module["OPTIONS"].items()}
            compiled = LangGraphExecutor(graph, model, nodes=options)
        return compiled.invoke(module["INPUT"], {"recursion_limit": module["LIMIT"]})

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the reads of opaque nodes are unknown
            return outcome(call, module["seen"])
    finally:
        del linecache.cache[name]


def compare(mix: str, seed: int, model: ChatSequrity, plan: Plan | None = None) -> Comparison:
    """Run a plan both ways; without one, the plan of the seed."""
    text = text_of(plan or plan_of(MIXES[mix], f"{mix} {seed}"))
    return Comparison(mix, seed, run(text, None), run(text, model))


def explain(found: Comparison, model: ChatSequrity) -> str:
    """The smallest graph that still shows the difference, and its two outcomes."""
    plan = shrink(
        plan_of(MIXES[found.mix], f"{found.mix} {found.seed}"),
        lambda one: compare(found.mix, found.seed, model, one).kind == found.kind,
    )
    small = compare(found.mix, found.seed, model, plan)
    return (
        f"--- {found.mix} {found.seed}\n{text_of(plan)}"
        f"# LangGraph: {_shown(small.langgraph)}\n# executor:  {_shown(small.executor)}\n"
    )


def _shown(one: Outcome) -> str:
    ended = f"{one.error}: {one.message[:400]!r}" if one.error else one.value
    return f"{ended}\n#   {one.seen}"


# -- many graphs, in several processes

_MODEL: list[ChatSequrity] = []


def _start() -> None:
    logging.disable(logging.WARNING)  # LangGraph warns of targets that do not exist
    server = LocalServer()
    server.start()
    _MODEL.append(ChatSequrity("any/model", base_url=server.base_url))


def _compare(case: tuple[str, int]) -> Comparison:
    return compare(*case, _MODEL[0])


def _explain(found: Comparison) -> str:
    return explain(found, _MODEL[0])


def _report(
    verdicts: dict[str, Counter[str]], wrong: list[Comparison], refused: list[Comparison]
) -> None:
    for mix, counts in verdicts.items():
        row = ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
        sys.stdout.write(f"{mix}: {row}\n")
    total = sum(map(Counter.total, verdicts.values()))
    for kind, ones in (("different", wrong), ("refused", refused)):
        sys.stdout.write(f"{kind}: {len(ones)} of {total}\n")
        for one in ones:
            ended = " / ".join(f"{run.error} {run.message[:160]!r}" for run in one.runs())
            sys.stdout.write(f"  {one.mix} {one.seed}: {ended}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Compare random graphs, print a table, and return 1 if any two outcomes differ."""
    parser = options_of("differential", 6000)
    parser.add_argument("--show", type=int, default=5, help="disagreements to explain")
    parser.add_argument("--text", action="store_true", help="print the graph of this seed")
    options = parser.parse_args(arguments)
    if options.text:
        mix, seed = next(cases_of(options))
        sys.stdout.write(text_of(plan_of(MIXES[mix], f"{mix} {seed}")))
        return 0
    verdicts: dict[str, Counter[str]] = {mix: Counter() for mix in options.mix or MIXES}
    wrong: list[Comparison] = []
    refused: list[Comparison] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        cases = pool.imap_unordered(_compare, cases_of(options), chunksize=20)
        for found in tracked(cases, "Comparing", unit="graphs", total=options.count):
            verdicts[found.mix][found.verdict] += 1
            if found.verdict in ("DIFFERENT", "refused"):
                (wrong if found.verdict == "DIFFERENT" else refused).append(found)
        _report(verdicts, wrong, refused)
        for text in pool.imap(_explain, wrong[: options.show] + refused[:1]):
            sys.stdout.write(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
