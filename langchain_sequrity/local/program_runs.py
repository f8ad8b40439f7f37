"""Runs of programs: where they run, and which are paused until a tool result arrives.

A run is stored as data: the program's text, its variables and its log. A run that was closed, or
that another process paused, is replayed from its log (`docs/behaviour.md`, T2).
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.interpreter import (
    Program,
    ProgramFinished,
    ReplayDiverged,
    Run,
    ToolCall,
    parse,
)
from langchain_sequrity.local.interpreter.machine import DEFAULT_LIMITS, Limits
from langchain_sequrity.local.interpreter.run import planned_run
from langchain_sequrity.local.interpreter.worker_pool import (
    CAN_ISOLATE,
    DEFAULT_WORKERS,
    WorkerCounts,
    WorkerPool,
    WorkerRun,
    shared_pool,
)
from langchain_sequrity.owned_cache import owned_cache

AnyRun = Run | WorkerRun
_REMEMBERED = 16  # parsed programs; the largest take 5 MB each
_logger = logging.getLogger("langchain_sequrity.local")


class InProcess:
    """Programs in the server's own process: for tests, and for platforms without workers.

    The interpreter's limits are the only protection here. They do not protect against:

    - an operation in C that runs long without checking the clock: it may hold Python's lock, so
      that all requests wait for it;
    - an operation that takes more memory than estimated: the server runs out of memory;
    - a crash, such as an overflow of the C stack: it ends the server;
    - an escape from the interpreter: it reaches the server's keys, sessions and files.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def check(self, source: str, *, owner: str = "", variables: Collection[str] = ()) -> None:
        """Check a program, as `WorkerPool.check` does."""
        del owner
        if variables:
            parse(source, self._limits, variables=variables)
        else:
            _parsed(source, self._limits)

    def run(self, source: str, *, owner: str = "", **options: Any) -> Run:
        """Make a run of a program, as `WorkerPool.run` does."""
        del owner
        read = partial(_parsed, limits=self._limits)
        return planned_run(source, read=read, limits=self._limits, **options)


@owned_cache(maxsize=_REMEMBERED)
def _parsed(program: str, limits: Limits) -> Program:
    return parse(program, limits)


class ProgramRunner:
    """Where the programs of a server run: in worker processes, or in its own process.

    Args:
        isolated: Whether they run in workers: `True` always, `False` never, `None` if this machine
            can start workers. This is decided once, before the first program.
        limits: Limits of each program.
        workers: Number of worker processes.
    """

    def __init__(
        self,
        *,
        isolated: bool | None = None,
        limits: Limits = DEFAULT_LIMITS,
        workers: int = DEFAULT_WORKERS,
    ) -> None:
        self._isolated = isolated
        self._limits = limits
        self._workers = workers
        self._pool: WorkerPool | None = None  # once it is open
        self._executor: WorkerPool | InProcess | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._choosing = threading.Lock()

    def open(self) -> None:
        """Prepare for programs.

        Raises:
            UsageError: If workers are required, and this machine cannot start them.
        """
        with self._lock:
            self._is_closed, self._executor = False, None
        if self._isolated:
            try:
                self._executor_ready()
            except UsageError:
                self.close()
                raise

    def close(self) -> None:
        """End all programs and workers."""
        with self._lock:
            self._is_closed = True
            pool, self._pool, self._executor = self._pool, None, None
        if pool is not None:
            pool.close()

    def prepare(self) -> None:
        """Start the workers in the background, before the first program needs them."""
        if self._isolated is not False:
            with suppress(UsageError):  # the first program raises it
                self._open_pool().prepare()

    def problem(self) -> str:
        """Why programs cannot run, or an empty text; starts the workers."""
        if self._is_closed:
            return "The server and its programs were stopped."
        if self._isolated is False:
            return ""
        try:
            self._open_pool().prepare()
        except UsageError as error:
            return str(error) if self._isolated else ""  # otherwise they run in this process
        return ""

    @property
    def live_workers(self) -> int:
        """The number of worker processes; other servers of this process may share them."""
        pool = self._pool
        return 0 if pool is None else pool.live_workers

    @property
    def worker_counts(self) -> WorkerCounts:
        """How many worker processes there have been."""
        pool = self._pool
        return WorkerCounts() if pool is None else pool.counts

    def check(self, source: str, owner: str, variables: Collection[str] = ()) -> None:
        """Check that a program uses nothing but the language.

        Args:
            source: Its text.
            owner: Its owner: programs of different owners never share a process.
            variables: Variables that exist before it.

        Raises:
            ProgramRefused: With line, column and a suggestion.
        """
        self._executor_ready().check(source, owner=owner, variables=variables)

    def run(self, source: str, owner: str, **options: Any) -> AnyRun:
        """Make a run of a program; `options` are those of `Run`. Raises like `check`."""
        return self._executor_ready().run(source, owner=owner, **options)

    def _executor_ready(self) -> WorkerPool | InProcess:
        with self._choosing:
            if self._executor is None:
                self._executor = self._choose_executor()
            return self._executor

    def _choose_executor(self) -> WorkerPool | InProcess:
        if self._isolated is False:
            return InProcess(self._limits)
        try:
            pool = self._open_pool()
            pool.wait_until_ready()
        except UsageError as error:
            if self._isolated or self._is_closed:
                raise
            _logger.warning(
                "Programs run in the server's own process. Nothing there stops a program that "
                "escapes, or takes too much time or memory in a single operation. %s",
                error,
            )
            return InProcess(self._limits)
        return pool

    def _open_pool(self) -> WorkerPool:
        with self._lock:
            if self._is_closed:
                msg = "The server and its programs were stopped."
                raise UsageError(msg)
            if not CAN_ISOLATE:
                msg = "This platform does not support worker processes for programs."
                raise UsageError(msg)
            if self._pool is None:
                self._pool = shared_pool(self._limits, self._workers)
                self._pool.open()
            return self._pool


class PendingRuns:
    """The live runs of a server, by session.

    Args:
        max_live: How many stay alive; more are closed, the oldest first, and replayed when needed.
    """

    def __init__(self, max_live: int) -> None:
        self._max_live = max_live
        self._live: OrderedDict[str, tuple[int, AnyRun]] = OrderedDict()
        self._lock = threading.Lock()

    def pop(self, session_id: str, version: int) -> AnyRun | None:
        """Take the live run of a session out; the caller then owns it.

        Args:
            session_id: The session.
            version: Its version. Workers that share a store have their own runs: one that stopped
                at another version is outdated, and closed.
        """
        with self._lock:
            stopped_at, run = self._live.pop(session_id, (version, None))
        if run is None or stopped_at == version:
            return run
        run.close()
        return None

    def put(self, session_id: str, version: int, run: AnyRun) -> None:
        """Keep a paused run until the session continues.

        Args:
            session_id: The session.
            version: Its version, which is different after each request.
            run: The run.
        """
        with self._lock:
            self._live[session_id] = version, run
            surplus = range(len(self._live) - self._max_live)
            dropped = [self._live.popitem(last=False)[1] for _ in surplus]
        for _, oldest in dropped:
            oldest.close()

    def drop_ended(self, has_ended: Callable[[str], bool]) -> None:
        """End the oldest runs while their sessions have ended.

        Args:
            has_ended: Whether a session is known to have ended.
        """
        while (oldest := self._oldest()) is not None and has_ended(oldest):
            self.drop(oldest)

    def _oldest(self) -> str | None:
        with self._lock:
            return next(iter(self._live), None)

    def drop(self, session_id: str) -> None:
        """End the live run of a session, if there is one."""
        with self._lock:
            _, run = self._live.pop(session_id, (0, None))
        if run is not None:
            run.close()

    def close(self) -> None:
        """End all live runs."""
        for session_id in [*self._live]:
            self.drop(session_id)


def replay_to(run: AnyRun, to: type[ToolCall | ProgramFinished] = ToolCall) -> None:
    """Replay a run up to the call that it waited for, or to the end of its last step.

    Raises:
        ReplayDiverged: If the replay stops at another place.
    """
    if not isinstance(run.advance(), to):
        msg = "A replayed program did not stop where it had waited."
        raise ReplayDiverged(msg)
