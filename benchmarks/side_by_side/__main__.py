"""Guards side by side: `python -m benchmarks.side_by_side [--suite SUITE] [--part PART] …`."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.agentdojo.worlds import SUITES
from benchmarks.measure import FULL
from benchmarks.side_by_side import cost, report, tasks
from benchmarks.side_by_side.guards import GUARDS
from langchain_sequrity.display.progress import tracked


def main() -> int:
    """Run all, and print the table."""
    options = _options()
    if options.part != "cost" and find_spec("agentdojo") is None:
        sys.stderr.write("This needs `pip install 'langchain-sequrity[side-by-side]'`.\n")
        return 2
    _silence()
    load = os.getloadavg()
    for guard in GUARDS:
        if not guard.is_installed:
            sys.stderr.write(f"Left out, because it is not installed: {guard.name}.\n")
    rows = [report.Row(guard) for guard in GUARDS if guard.is_installed]
    if options.part != "tasks":
        _measure(rows)  # first, while the process is small
    if options.part != "cost":
        _judge(rows, options.suite or SUITES)
    sys.stdout.write(f"{report.conditions(load)}\n\n{report.table(rows)}\n")
    return 0


def _silence() -> None:
    """Switch off warnings and logs: refusals are counted here, and no guard pays for its log."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    if find_spec("structlog") is not None:  # agent-airlock uses it where it is installed
        structlog: Any = import_module("structlog")
        critical_only = structlog.make_filtering_bound_logger(logging.CRITICAL)
        structlog.configure(wrapper_class=critical_only)


def _judge(rows: Sequence[report.Row], suites: Sequence[str]) -> None:
    pairs = [*tasks.tasks(suites), *tasks.attacks(suites)]
    for row in rows:
        shown = tracked(pairs, row.guard.name, unit="tasks and attacks")
        row.verdicts = [verdict for pair in shown for verdict in tasks.verdicts(row.guard, pair)]


def _measure(rows: Sequence[report.Row]) -> None:
    added = cost.microseconds([row.guard for row in rows[1:]], FULL)
    for row in rows:
        row.microseconds = added[row.guard.name]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side")
    parser.add_argument("--suite", action="append", choices=SUITES)
    parser.add_argument(
        "--part", choices=("tasks", "cost"), help="only the verdicts, or only the time of a call"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
