"""Paused programs. A live one waits in a thread; when there are many, the oldest give theirs up.

A program is data: its text, its variables and its log. One that was given up, or that another
process has paused, runs again from its log (`docs/behaviour.md`, T2).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm import internal_tools
from langchain_sequrity.local.dual_llm.state import OpenTurn
from langchain_sequrity.local.interpreter import Program, ReplayDiverged, Run, ToolCall, parse
from langchain_sequrity.local.interpreter.worker import WorkerRun

AnyRun = Run | WorkerRun
MAX_LIVE = 256
_REMEMBERED = 256


class Runs:
    """The live runs of a server, by session.

    Args:
        max_live: How many keep their threads.
    """

    def __init__(self, max_live: int = MAX_LIVE) -> None:
        self._max_live = max_live
        self._live: OrderedDict[str, AnyRun] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, session_id: str) -> AnyRun | None:
        """Take the live run of a session; it is then the caller's."""
        with self._lock:
            return self._live.pop(session_id, None)

    def put(self, session_id: str, run: AnyRun) -> None:
        """Keep a paused run until the session goes on."""
        with self._lock:
            self._live[session_id] = run
            surplus = range(len(self._live) - self._max_live)
            given_up = [self._live.popitem(last=False)[1] for _ in surplus]
        for oldest in given_up:
            oldest.close()

    def sweep(self, is_known: Callable[[str], object]) -> None:
        """End the oldest runs, as long as their sessions are gone.

        Args:
            is_known: Finds a session, if there still is one.
        """
        while (oldest := self._oldest()) is not None and not is_known(oldest):
            self.drop(oldest)

    def _oldest(self) -> str | None:
        with self._lock:
            return next(iter(self._live), None)

    def drop(self, session_id: str) -> None:
        """End the live run of a session, if there is one."""
        run = self.take(session_id)
        if run is not None:
            run.close()

    def close(self) -> None:
        """End all live runs."""
        with self._lock:
            live, self._live = self._live, OrderedDict()
        for run in live.values():
            run.close()


def start(
    turn: OpenTurn,
    configuration: Configuration,
    names: Mapping[str, str],
    *,
    isolated: bool = False,
) -> AnyRun:
    """Make the run of a turn's program, from its log if it has one.

    Args:
        turn: The turn.
        configuration: What the session's headers decide.
        names: Names of the caller's tools as programs call them, by their own names.
        isolated: Whether the program gets a process of its own.

    Returns:
        The run. With a log, it still has to be brought up to where it was: `replayed`.

    Raises:
        ProgramRefused: If the program uses what the language has not.
    """
    tools = {
        names[tool["function"]["name"]]: tool["function"].get("parameters") or {}
        for tool in turn.tools
    }
    tools |= {name: internal_tools.SCHEMAS[name] for name in configuration.internal_tools}
    kind = WorkerRun if isolated else Run
    return kind(
        _parsed(turn.program),
        tools=tools,
        variables=turn.variables,
        may_branch=configuration.may_branch,
        is_strict=configuration.is_strict,
        typed=internal_tools.TYPED,
        log=turn.log,
    )


@contextmanager
def closed_on_failure(run: AnyRun) -> Iterator[None]:
    """End a run where work with it fails; its thread would wait for ever."""
    try:
        yield
    except BaseException:
        run.close()
        raise


@lru_cache(maxsize=_REMEMBERED)
def _parsed(program: str) -> Program:
    return parse(program)


def replayed(run: AnyRun) -> ToolCall:
    """Bring a run up to the call that it waited for.

    Raises:
        ReplayDiverged: If it waits for nothing now.
    """
    step = run.advance()
    if not isinstance(step, ToolCall):
        msg = "A replayed program ended where it had waited for a tool."
        raise ReplayDiverged(msg)
    return step
