"""`python -m benchmarks [--quick | --trial] [--json FILE] [CASE …]`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    console,
    construct,
    crowd,
    gateway,
    graphs,
    growth,
    history,
    imports,
    invoke,
    long_answer,
    middleware,
    policies,
    programs,
    stores,
    stream,
    transports,
)
from benchmarks.measure import FULL, QUICK, TRIAL, Effort
from benchmarks.peers import check_alike
from benchmarks.report import Row, as_json, table
from benchmarks.server import raw_server

_CASES: dict[str, Callable[[str, Effort], list[Row]]] = {
    "invoke": invoke.measure,
    "long_answer": long_answer.measure,
    "stream": stream.measure,
    "history": history.measure,
    "concurrent": crowd.measure,
    "transports": transports.measure,
    "growth": growth.measure,
    "imports": imports.measure,
    "construct": construct.measure,
    "policies": policies.measure,
    "middleware": middleware.measure,
    "programs": programs.measure,
    "graphs": graphs.measure,
    "gateway": gateway.measure,
    "stores": stores.measure,
    "console": console.measure,
}
_PACKAGES = (
    "langchain-core",
    "langchain-openai",
    "openai",
    "langchain-anthropic",
    "anthropic",
    "httpx",
    "httpcore",
    "h11",
    "anyio",
    "sequrity",
    "pydantic",
)
_OPTIONAL = ("aiohttp", "httpx-aiohttp")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(_CASES)}")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument(
        "--quick", dest="effort", action="store_const", const=QUICK, default=FULL,
        help="a look in minutes, not a result",
    )  # fmt: skip
    effort.add_argument(
        "--trial", dest="effort", action="store_const", const=TRIAL,
        help="only show that the benchmarks run",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    found = parser.parse_args()
    if unknown := set(found.cases) - set(_CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _direct_and_untraced() -> None:
    """Switch off proxies and tracing of the environment for all peers."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("LANGSMITH_", "LANGCHAIN_")):
            del os.environ[name]


def _measure(case: str, effort: Effort) -> list[Row]:
    """Measure one case, with a server of its own."""
    with raw_server() as base_url:
        return _CASES[case](base_url, effort)


def main() -> int:
    """Measure, print a table for each case, and return 1 if a goal was missed."""
    arguments = _arguments()
    _direct_and_untraced()
    with raw_server() as base_url:
        check_alike(base_url)
    rows: list[Row] = []
    cases = arguments.cases or list(_CASES)
    for number, case in enumerate(cases, 1):
        print(f"{case} ({number} of {len(cases)}) …", file=sys.stderr, flush=True)
        measured = _measure(case, arguments.effort)
        print(table(measured), flush=True)
        rows += measured
        if arguments.json:
            result = {"versions": _versions(), "rows": as_json(rows)}
            arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(goal.met for row in rows for goal in row.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
