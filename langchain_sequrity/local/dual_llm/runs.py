"""Where programs run, and those that are paused until a tool's result comes.

A program is data: its text, its variables and its log. One that was given up, or that another
process has paused, runs again from its log (`docs/behaviour.md`, T2).
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm import internal_tools
from langchain_sequrity.local.dual_llm.state import OpenTurn
from langchain_sequrity.local.interpreter import (
    Finished,
    Program,
    ProgramRefused,
    ReplayDiverged,
    Run,
    ToolCall,
    parse,
)
from langchain_sequrity.local.interpreter.worker_pool import (
    CAN_ISOLATE,
    WorkerPool,
    WorkerRun,
    shared_pool,
)

AnyRun = Run | WorkerRun
MAX_LIVE = 256
_REMEMBERED = 16  # parsed programs; the largest take 5 MB each
_logger = logging.getLogger("langchain_sequrity.local")


class InProcess:
    """Programs in the server's own process: for tests, and for platforms without workers.

    The interpreter has its limits here too, but nothing stands behind them. Against these it does
    not defend:

    - an operation in C that takes long without a look at the clock: it may hold Python's lock, and
      all requests wait for it;
    - one that takes more memory than its estimate says: the server runs out of it;
    - a crash, such as an overflow of the C stack: it ends the server;
    - an escape from the interpreter: it finds the server's keys, sessions and files.
    """

    def check(self, source: str, *, owner: str = "", known: Collection[str] = ()) -> None:
        """Check a program, as `WorkerPool.check` does."""
        del owner
        if known:
            parse(source, known=known)
        else:
            _parsed(source)

    def run(self, source: str, *, owner: str = "", **options: Any) -> Run:
        """Make a run of a program, as `WorkerPool.run` does."""
        del owner
        return Run(_parsed(source), **options)


@lru_cache(maxsize=_REMEMBERED)
def _parsed(program: str) -> Program:
    return parse(program)


class Programs:
    """Where the programs of a server run: in workers, or in its own process.

    Args:
        isolated: In workers: `True` for always, `False` for never, `None` for where this machine
            can start them. That is found out once, before the first program.
        pool: The workers, if not those that all servers of this process share.
    """

    def __init__(self, *, isolated: bool | None = None, pool: WorkerPool | None = None) -> None:
        self._isolated = isolated
        self._given = pool
        self._pool: WorkerPool | None = None  # once it is open
        self._place: WorkerPool | InProcess | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._finding = threading.Lock()

    def open(self) -> None:
        """Be ready for programs.

        Raises:
            UsageError: If there have to be workers, and this machine cannot start them.
        """
        with self._lock:
            self._is_closed, self._place = False, None
        if self._isolated:
            try:
                self._found()
            except UsageError:
                self.close()
                raise

    def close(self) -> None:
        """End all programs, and what was started for them."""
        with self._lock:
            self._is_closed = True
            pool, self._pool, self._place = self._pool, None, None
        if pool is not None:
            pool.close()

    def prepare(self) -> None:
        """Start what the first program needs, without waiting for it."""
        if self._isolated is not False:
            with suppress(UsageError):  # the first program says so
                self._opened().prepare()

    def check(self, source: str, owner: str, known: Collection[str] = ()) -> None:
        """Check that a program uses nothing but the language.

        Args:
            source: Its text.
            owner: Whose it is: programs of different owners share no process.
            known: Variables that exist before it.

        Raises:
            ProgramRefused: With line, column and what to write instead.
        """
        self._found().check(source, owner=owner, known=known)

    def run(self, source: str, owner: str, **options: Any) -> AnyRun:
        """Make a run of a program; `options` are those of `Run`. Raises as `check` does."""
        return self._found().run(source, owner=owner, **options)

    def _found(self) -> WorkerPool | InProcess:
        with self._finding:
            place = self._place
            if place is None:
                place = self._place = self._decided()
            return place

    def _decided(self) -> WorkerPool | InProcess:
        if self._isolated is False:
            return InProcess()
        try:
            pool = self._opened()
            pool.ready()
        except UsageError as error:
            if self._isolated or self._is_closed:
                raise
            _logger.warning(
                "Programs run in the server's own process, where nothing stops one that takes "
                "too much time or memory in a single operation, or escapes. %s",
                error,
            )
            return InProcess()
        return pool

    def _opened(self) -> WorkerPool:
        with self._lock:
            if self._is_closed:
                msg = "The server was stopped, and its programs with it."
                raise UsageError(msg)
            if not CAN_ISOLATE:
                msg = "This platform has no worker processes for programs."
                raise UsageError(msg)
            if self._pool is None:
                self._pool = self._given or shared_pool()
                self._pool.open()
            return self._pool


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


def has_steps(turn: OpenTurn, configuration: Configuration) -> bool:
    """Whether the programs of a turn are steps that build on each other."""
    return turn.is_planned and bool(configuration.fsm.enable_multistep_planning)


def start(
    turn: OpenTurn,
    configuration: Configuration,
    names: Mapping[str, str],
    programs: Programs,
    owner: str,
    *,
    said: Iterable[str] = (),
) -> AnyRun:
    """Make the run of a turn's program, or of its steps, from its log if it has one.

    Args:
        turn: The turn.
        configuration: What the session's headers decide.
        names: Names of the caller's tools as programs call them, by their own names.
        programs: Where it runs.
        owner: Whose it is.
        said: What the user said before.

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
    return programs.run(
        turn.done[0] if turn.done else turn.program,
        owner,
        tools=tools,
        variables=turn.variables,
        may_branch=configuration.may_branch,
        is_strict=configuration.is_strict,
        log=turn.log,
        has_steps=has_steps(turn, configuration),
        asked="\n".join([*said, turn.query]) if turn.is_planned else None,
    )


@contextmanager
def closed_on_failure(run: AnyRun | None) -> Iterator[None]:
    """End a run where work with it fails; its thread would wait for ever.

    A step that is refused is no such failure: the run still waits for one.
    """
    try:
        yield
    except ProgramRefused:
        raise
    except BaseException:
        if run is not None:
            run.close()
        raise


def replayed(run: AnyRun, to: type[ToolCall | Finished] = ToolCall) -> None:
    """Bring a run up to the call that it waited for, or to the end of its last step.

    Raises:
        ReplayDiverged: If it is somewhere else now.
    """
    if not isinstance(run.advance(), to):
        msg = "A replayed program is not where it had waited."
        raise ReplayDiverged(msg)
