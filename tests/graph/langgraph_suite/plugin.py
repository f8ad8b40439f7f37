"""A pytest plugin for the tests of LangGraph: it makes their graphs `LangGraphExecutor`s.

Their package is called `tests`, as ours is. So this module is loaded alone, and imports nothing
from its own package.
"""

import faulthandler
import json
import signal
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor

SECONDS = 60
"""The time limit of one test."""

_GRACE_SECONDS = 30
"""If the alarm does not end a test, the whole process ends this long after the limit."""

_OWN = "langchain_sequrity"
_IN_MEMORY = ("memory", "in_memory")
_BACKENDS = ("cache", "sync_store", "async_store", "sync_checkpointer", "async_checkpointer")


class TooSlow(Exception):
    """A test took longer than `SECONDS`."""


class Executors:
    """Replaces compiled graphs with executors, and counts them.

    Args:
        base_url: Address of the service that they use.
    """

    def __init__(self, base_url: str) -> None:
        self.made = 0
        self._plain = StateGraph.compile
        self._model = ChatSequrity("any/model", base_url=base_url)

    def install(self) -> None:
        """Replace each graph that is compiled outside our package with an executor."""
        plain = self._plain

        def compile_graph(graph: Any, *args: Any, **options: Any) -> Any:
            compiled = plain(graph, *args, **options)
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.split(".")[0] == _OWN:
                return compiled
            self.made += 1  # first, because a graph that is refused counts too
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return LangGraphExecutor(compiled, self._model)

        StateGraph.compile = compile_graph  # type: ignore[method-assign, assignment]


class Recorder:
    """Records the outcome of each test, and writes all outcomes to a file.

    Args:
        path: The file, in JSON: node id → what is known of the test.
        executors: Replaces the graphs; `None` leaves them plain.
    """

    def __init__(self, path: Path | None, executors: Executors | None) -> None:
        self._path = path
        self._executors = executors
        self._tests: dict[str, dict[str, Any]] = {}
        self._uncollected: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        faulthandler.dump_traceback_later(SECONDS + _GRACE_SECONDS, exit=True)
        if self._executors is not None:
            self._executors.made = 0
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, _too_slow)
        signal.alarm(SECONDS)
        try:
            return (yield)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        report.executors = self._executors.made if self._executors is not None else 0
        if call.excinfo is not None and report.failed:
            report.raised = _chain(call.excinfo.value)
            report.where = _where(call.excinfo)
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        known = self._tests.setdefault(
            report.nodeid, {"outcome": "passed", "executors": 0, "seconds": 0.0}
        )
        known["executors"] = max(known["executors"], getattr(report, "executors", 0))
        known["seconds"] = round(known["seconds"] + report.duration, 2)
        if report.skipped:
            known["outcome"] = "skipped"
        elif report.failed and known["outcome"] != "failed":
            known.update(
                outcome="failed",
                when=report.when,
                raised=getattr(report, "raised", [["process ended", str(report.longrepr)]]),
                where=getattr(report, "where", ""),
                text=str(report.longrepr)[-6000:],
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._uncollected[report.nodeid] = str(report.longrepr)[-2000:]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._path is not None and not hasattr(session.config, "workerinput"):
            found = {"tests": self._tests, "uncollected": self._uncollected}
            self._path.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("langgraph suite")
    group.addoption("--executor", metavar="URL", help="make executors that use this service")
    group.addoption("--results", metavar="FILE", help="write how each test went, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    url, path = config.getoption("--executor"), config.getoption("--results")
    executors = None if url is None else Executors(url)
    if executors is not None:
        executors.install()
    config.pluginmanager.register(Recorder(None if path is None else Path(path), executors))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests that need no database: those with savers, stores and caches in memory."""
    left_out = [item for item in items if not _is_in_memory(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _is_in_memory(item)]


def _is_in_memory(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return all(str(params[name]).startswith(_IN_MEMORY) for name in _BACKENDS if name in params)


def _too_slow(*_: object) -> None:
    raise TooSlow(f"no end within {SECONDS} seconds")  # noqa: EM102, TRY003 - one place


def _chain(error: BaseException | None) -> list[list[str]]:
    """The error and its causes: class and text of each."""
    found: list[list[str]] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind = type(error)
        found.append([f"{kind.__module__}.{kind.__qualname__}", str(error)[:1000]])
        error = error.__cause__ or error.__context__
    return found


def _where(raised: pytest.ExceptionInfo[BaseException]) -> str:
    """The last line of the traceback that is in the package `tests`."""
    for entry in reversed(raised.traceback):
        path = Path(entry.path)
        if path.parent.name == "tests":
            return f"{path.name}:{entry.lineno + 1}: {str(entry.statement).strip()}"
    return ""
