"""AgentDojo under policies: `python -m benchmarks.agentdojo [--full] [--json FILE] …`."""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from benchmarks.agentdojo import report, runs
from benchmarks.agentdojo.classes import RunClass, classes_of
from benchmarks.agentdojo.policies import FLOWS, POLICIES
from benchmarks.agentdojo.worlds import SUITES
from langchain_sequrity.display.progress import tracked

_COLUMNS = (
    "none:standard",
    "draft:standard",
    "draft:strict",
    "balanced:standard",
    "balanced:strict",
    "balanced:custom",
    "fields:standard",
    "fields:strict",
    "strict:standard",
    "strict:strict",
)


def main() -> int:
    """Run all, and print the table."""
    options = _options()
    if find_spec("agentdojo") is None:
        sys.stderr.write("This needs `pip install 'langchain-sequrity[agentdojo]'`.\n")
        return 2
    warnings.simplefilter("ignore")  # of AgentDojo's imports
    chosen = _classes(options.suite or SUITES, options.column or _COLUMNS, full=options.full)
    verdicts = runs.verdicts((item.run for item in chosen), options.jobs)
    shown = tracked(verdicts, "Running", unit="runs", total=len(chosen))
    counted = [(verdict, item.weight) for verdict, item in zip(shown, chosen, strict=True)]
    if options.json:
        settings = {"full": options.full, "suites": options.suite or list(SUITES)}
        content = report.as_json(counted, settings)
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
    sys.stdout.write(report.table(report.columns(counted)) + "\n")
    return 0


def _classes(suites: Sequence[str], columns: Sequence[str], *, full: bool) -> list[RunClass]:
    found = chain.from_iterable(_runs(suites, *column.split(":")) for column in columns)
    return classes_of(found, full=full)


def _runs(suites: Sequence[str], policy: str, flow: str) -> Iterator[runs.Run]:
    for kind in (runs.tasks, runs.hijacked, runs.data, runs.laundered):
        yield from kind(suites, policy, flow)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentdojo")
    parser.add_argument(
        "--full", action="store_true", help="run each pair, not each class of pairs"
    )
    parser.add_argument("--suite", action="append", choices=SUITES)
    names = [f"{policy}:{flow}" for policy in POLICIES for flow in FLOWS]
    parser.add_argument("--column", action="append", choices=names, metavar="POLICY:FLOW")
    parser.add_argument("--json", type=Path, help="write all verdicts to this file")
    parser.add_argument("--jobs", type=int, help="processes; as many as processors by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
