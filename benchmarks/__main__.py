"""`python -m benchmarks [--quick] [--json FILE] [CASE …]`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    construct,
    crowd,
    graphs,
    growth,
    history,
    imports,
    invoke,
    middleware,
    policies,
    programs,
    stream,
    transports,
)
from benchmarks.measure import FULL, QUICK, Effort
from benchmarks.peers import check_alike
from benchmarks.report import Row, as_json, table
from benchmarks.server import raw_server

_CASES: dict[str, Callable[[str, Effort], list[Row]]] = {
    "invoke": invoke.measure,
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
    parser.add_argument("--quick", action="store_true", help="a look in minutes, not a result")
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


def _measured(cases: Sequence[str], effort: Effort) -> list[Row]:
    rows = []
    with raw_server() as base_url:
        check_alike(base_url)
    for name in cases or _CASES:
        print(f"{name} …", file=sys.stderr, flush=True)
        with raw_server() as base_url:
            rows += _CASES[name](base_url, effort)
    return rows


def main() -> int:
    """Measure, print the table, and return 1 if a goal was missed."""
    arguments = _arguments()
    _direct_and_untraced()
    rows = _measured(arguments.cases, QUICK if arguments.quick else FULL)
    print(table(rows))
    if arguments.json:
        result = {"versions": _versions(), "rows": as_json(rows)}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(goal.met for row in rows for goal in row.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
