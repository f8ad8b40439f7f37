"""Run the tests of LangGraph itself with the executor.

They come from the source distributions of the installed versions, and run twice: plain, then with
an executor in place of each graph that they compile. `expected.toml` lists the tests that are not
expected to pass, with the reason.

    python -m tests.graph.langgraph_suite
    python -m tests.graph.langgraph_suite -k test_invoke_two_processes_in_out --show
    python -m tests.graph.langgraph_suite --table

The last one runs nothing: it writes the table of `expected.toml` into `docs/langgraph.md`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from langchain_sequrity.display.progress import progress
from langchain_sequrity.local import LocalServer
from tests.graph.langgraph_suite.fetching import CannotFetch, Suite, fetch, needed
from tests.graph.langgraph_suite.judging import (
    Judged,
    judge,
    read_expected,
    report,
    table,
    with_table,
)

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[2]
_EXPECTED = _HERE / "expected.toml"
_PAGE = _ROOT / "docs" / "langgraph.md"
_CACHE = _ROOT / ".cache" / "langgraph-suite"
_WITHOUT = ("randomly", "cacheprovider", "benchmark", "codspeed", "socket", "recording")
_ASYNCIO = {"langgraph": "strict", "langgraph-prebuilt": "auto"}
"""The mode of pytest-asyncio in each project."""


def main(arguments: list[str]) -> int:
    """Run the tests, print the count, and return 1 if a test fails that should pass."""
    options = _read(arguments)
    if options.table:
        page = _PAGE.read_text(encoding="utf-8")
        _PAGE.write_text(with_table(page, table(_EXPECTED)), encoding="utf-8")
        return 0
    try:
        suites, rest = fetch(_CACHE), needed(_CACHE)
    except CannotFetch as error:
        sys.stderr.write(f"The tests of LangGraph cannot be fetched. {error}\n")
        return 2
    judged: list[Judged] = []
    expected = read_expected(_EXPECTED)
    with LocalServer() as server:
        for suite in suites:
            if options.suite in (None, suite.name):
                runner = _Runner(suite, rest, options)
                plain = runner.plain()
                ran = runner.executors(server.base_url, plain)
                judged += judge(suite.name, plain, ran, expected)
    sys.stdout.write(report(judged))
    return int(any(one.verdict == "unexpected" for one in judged))


def _read(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.graph.langgraph_suite")
    parser.add_argument("--suite", choices=_ASYNCIO, help="only this one")
    parser.add_argument(
        "-k", default="", metavar="EXPRESSION", help="only these tests, as in pytest"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes that run tests")
    parser.add_argument("--again", action="store_true", help="run plain too, if it was kept")
    parser.add_argument("--show", action="store_true", help="print what pytest prints")
    parser.add_argument("--table", action="store_true", help="write the table of the page, and end")
    return parser.parse_args(arguments)


class _Runner:
    """Runs one suite.

    Args:
        suite: The suite.
        rest: Folder with packages that its tests import and that are not installed.
        options: Options of the command.
    """

    def __init__(self, suite: Suite, rest: Path, options: argparse.Namespace) -> None:
        self._suite = suite
        self._options = options
        paths = [str(_HERE.parent), str(rest)]
        if "PYTHONPATH" in os.environ:
            paths.insert(0, os.environ["PYTHONPATH"])
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def plain(self) -> dict[str, Any]:
        """The outcomes in LangGraph alone. They run once; then a file keeps the outcomes."""
        whole = f"plain-{sys.version_info.major}.{sys.version_info.minor}"
        kept = self._file(whole)
        if kept.exists() and not self._options.again:
            return _tests(kept)
        return self.run(whole)

    def executors(self, base_url: str, plain: Mapping[str, Any]) -> dict[str, Any]:
        """The outcomes with an executor in place of each graph.

        Args:
            base_url: Address of the service.
            plain: The outcomes in LangGraph alone.

        Returns:
            Node id → what is known of the test.
        """
        ran = self.run("executor", "--executor", base_url)
        if not self._options.k and (lost := plain.keys() - ran.keys()):
            msg = f"{len(lost)} tests were not run, {min(lost)} among them."
            raise SystemExit(msg)
        return ran

    def run(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run the tests and read their outcomes.

        Args:
            name: Name of the file that keeps the outcomes.
            *arguments: For pytest.

        Returns:
            Node id → what is known of the test.
        """
        file = self._file(f"{name}-part" if self._options.k else name)
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-q", "--tb=short"]
        command += [
            "-p",
            "langgraph_suite.plugin",
            "-o",
            f"asyncio_mode={_ASYNCIO[self._suite.name]}",
        ]
        command += ["-o", "asyncio_default_fixture_loop_scope=function", "-W", "ignore"]
        for plugin in _WITHOUT:
            command += ["-p", f"no:{plugin}"]
        if self._options.k:
            command += ["-k", self._options.k]
        if not self._options.show:
            # The executor compares code with its source; pytest's rewritten `assert`s differ from it.
            command += ["-n", str(self._options.jobs), "--assert=plain"]
        command += ["--results", str(file), *arguments]
        log = None if self._options.show else file.with_suffix(".txt").open("w", encoding="utf-8")
        shown = "" if log is None else f", see {log.name}"
        sys.stdout.write(f"{self._suite.folder.name}: {name}{shown}\n")
        sys.stdout.flush()
        with nullcontext() if log is None else progress(self._suite.folder.name, waits=True):
            subprocess.run(  # noqa: S603 - our own Python
                command,
                cwd=self._suite.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                check=False,
            )
        return _tests(file)

    def _file(self, name: str) -> Path:
        return self._suite.folder / f"{name}.json"


def _tests(file: Path) -> dict[str, Any]:
    if not file.exists():
        msg = f"pytest did not get to its end; see {file.with_suffix('.txt')}"
        raise SystemExit(msg)
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["uncollected"]:
        modules = "\n".join(f"{name}:\n{text}" for name, text in found["uncollected"].items())
        msg = f"Modules that cannot be imported:\n{modules}"
        raise SystemExit(msg)
    tests: dict[str, Any] = found["tests"]
    return tests


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
